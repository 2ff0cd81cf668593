//! What a record's key is called where keys are texts, with one rule for everything that Kafka's keys can be and a
//! partition key cannot. Called by the Kinesis door for every record it gives out; the README shows the same table.
//!
//! | key | partition key |
//! |---|---|
//! | UTF-8 of 1 to 256 characters | itself |
//! | null or empty | `partition-` and the number of the record's partition |
//! | not UTF-8 | `base64:` and the key in base64, with padding |
//! | more than 256 characters after that | `md5:` and the MD5 of the key in hexadecimal |
//!
//! A value of null (a tombstone) is empty data, and headers are not visible. The other way nothing is lost: the key is the
//! partition key, the value the data, and the timestamp the time of arrival ([`Plain`](super::Plain)).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use crate::model::ids::PartitionIndex;

/// Characters of a partition key.
pub const PARTITION_KEY_CHARS_MAX: usize = 256;

/// The partition key of a record with `key` that stands in `partition`.
pub fn partition_key(key: Option<&[u8]>, partition: PartitionIndex) -> Cow<'_, str> {
    let key = key.unwrap_or_default();
    if key.is_empty() {
        return Cow::Owned(format!("partition-{}", partition.0));
    }
    let text = match std::str::from_utf8(key) {
        Ok(text) => Cow::Borrowed(text),
        // Whatever does not fit is hashed: it need not be written first.
        Err(_) if key.len() > PARTITION_KEY_CHARS_MAX => return md5_of(key),
        Err(_) => Cow::Owned(format!("base64:{}", STANDARD.encode(key))),
    };
    // A character has at least a byte.
    let fits = text.len() <= PARTITION_KEY_CHARS_MAX || text.chars().count() <= PARTITION_KEY_CHARS_MAX;
    if fits { text } else { md5_of(key) }
}

fn md5_of(key: &[u8]) -> Cow<'static, str> {
    Cow::Owned(format!("md5:{:x}", Md5::digest(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &[u8]) -> String {
        partition_key(Some(key), PartitionIndex(3)).into_owned()
    }

    #[test]
    fn a_text_of_up_to_256_characters_is_itself() {
        assert_eq!(of(b"a"), "a");
        assert_eq!(of("ключ".as_bytes()), "ключ");
        let longest = "é".repeat(256);
        assert_eq!(of(longest.as_bytes()), longest);
        assert_eq!(of(&[b'x'; 256]), "x".repeat(256));
    }

    #[test]
    fn no_key_is_the_partitions_name() {
        assert_eq!(partition_key(None, PartitionIndex(12)), "partition-12");
        assert_eq!(of(b""), "partition-3");
    }

    #[test]
    fn bytes_are_base64_and_what_is_too_long_its_md5() {
        assert_eq!(of(&[0xff, 0xfe]), "base64://4=");
        // 186 bytes are 248 characters, 255 with the prefix; three more are beyond.
        assert_eq!(of(&[0xff; 186]).len(), 255);
        assert_eq!(of(&[0xff; 187]), format!("md5:{:x}", Md5::digest([0xff; 187])));
        assert_eq!(of(&[0xff; 300]), format!("md5:{:x}", Md5::digest([0xff; 300])));
        assert_eq!(of(&[b'x'; 257]), format!("md5:{:x}", Md5::digest([b'x'; 257])));
        assert_eq!(of("é".repeat(257).as_bytes()).len(), 36);
    }
}
