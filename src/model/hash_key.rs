//! Hash keys: where in `0..2^128` a record belongs, which decides its shard. Called by the Kinesis door for every record.
//!
//! Source: Kinesis API reference (PutRecord: PartitionKey, ExplicitHashKey).

use md5::{Digest, Md5};

/// Of a partition key: the MD5 of its UTF-8 as a big-endian number.
pub fn of(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// An explicit hash key: `0` or decimal digits without a leading zero, below 2^128.
pub fn parse(text: &str) -> Option<u128> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_key_is_hashed_by_md5() {
        // RFC 1321, A.5.
        assert_eq!(of(""), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
        assert_eq!(of("message digest"), 0xf96b_697d_7cb7_938d_525a_2f31_aaf1_61d0);
        // Characters outside ASCII count by their UTF-8.
        assert_eq!(of("é"), u128::from_be_bytes(Md5::digest([0xc3, 0xa9]).into()));
    }

    #[test]
    fn an_explicit_hash_key_is_a_plain_number_below_two_to_the_128() {
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("340282366920938463463374607431768211455"), Some(u128::MAX));
        for wrong in ["340282366920938463463374607431768211456", "", "+1", "-1", "01", "00", "1 ", "0x1", "١"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
