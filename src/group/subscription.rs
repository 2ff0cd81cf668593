//! Reads the topics out of a member's subscription, the metadata that consumers send with the protocol type `consumer`.
//!
//! The coordinator needs them to know which offsets are in use. Only the part that all versions begin with is read:
//!
//! | field | width |
//! |---|---|
//! | version | i16 |
//! | topics | i32 count, then per topic an i16 length and UTF-8 |
//!
//! Source: Kafka's ConsumerProtocolSubscription schema.

use std::collections::BTreeSet;

/// The protocol type of consumers; other group types (Connect, Schema Registry) carry metadata of their own.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Adds the topics of `metadata` to `topics`, or says that it does not parse. The bytes are a client's: every length is
/// checked against what is there, and nothing is reserved for a count that the bytes do not hold.
pub fn read_topics(metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let (_version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::try_from(i32::from_be_bytes(*count)).ok()?;
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::try_from(i16::from_be_bytes(*len)).ok()?;
        let (topic, after) = after.split_at_checked(len)?;
        topics.insert(std::str::from_utf8(topic).ok()?.to_owned());
        rest = after;
    }
    Some(())
}

/// A subscription as a consumer writes it: for tests of the group's rooms.
#[cfg(test)]
pub fn subscription(topics: &[&str]) -> bytes::Bytes {
    use bytes::BufMut;
    let mut out = bytes::BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &[u8]) -> Option<Vec<String>> {
        let mut topics = BTreeSet::new();
        read_topics(metadata, &mut topics)?;
        Some(topics.into_iter().collect())
    }

    #[test]
    fn topics_are_read_from_the_common_prefix() {
        assert_eq!(topics(&subscription(&["b", "a"])).unwrap(), ["a", "b"]);
        assert_eq!(topics(&subscription(&[])).unwrap(), [""; 0]);
    }

    #[test]
    fn cut_or_hostile_metadata_is_refused() {
        let whole = subscription(&["orders"]);
        let needed = whole.len() - 4;
        for len in 0..needed {
            assert_eq!(topics(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None, "two thousand million topics in no bytes");
        assert_eq!(topics(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None, "a negative count");
        assert_eq!(topics(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None, "a negative length");
        assert_eq!(topics(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff]), None, "not UTF-8");
    }
}
