//! Reads the topics out of a member's subscription, the metadata that consumers send with the protocol type `consumer`.
//!
//! The coordinator needs them to know which offsets are in use: for that only the part is read that all versions begin
//! with. Where it assigns for members of the classic protocol it reads the rest, and writes assignments as their leader
//! would. The common part:
//!
//! | field | width |
//! |---|---|
//! | version | i16 |
//! | topics | i32 count, then per topic an i16 length and UTF-8 |
//!
//! Source: Kafka's schemas ConsumerProtocolSubscription and ConsumerProtocolAssignment.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

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

/// All that this broker reads of a subscription.
///
/// | field | width |
/// |---|---|
/// | version | i16 |
/// | topics | as above |
/// | user data | i32 length or -1, bytes |
/// | owned partitions (version 1 and later) | i32 count, then per topic a name as above, an i32 count, and i32 each |
/// | generation (2) | i32 |
/// | rack (3) | i16 length or -1, UTF-8 |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    pub topics: Vec<String>,
    pub owned: Vec<AssignedTopic>,
    pub rack_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedTopic {
    pub topic: String,
    pub partitions: Vec<i32>,
}

pub fn read_subscription(metadata: &[u8]) -> Option<Subscription> {
    let mut rest = Reader(metadata);
    let version = rest.i16()?;
    let topics = rest.several(Reader::text)?;
    rest.nullable_bytes()?;
    let owned = if version >= 1 { rest.several(Reader::assigned)? } else { Vec::new() };
    if version >= 2 {
        rest.i32()?;
    }
    let rack_id = if version >= 3 { rest.nullable_text()? } else { None };
    Some(Subscription { topics, owned, rack_id })
}

/// The topics of a ConsumerProtocolAssignment: version i16, partitions by topic as above, user data.
pub fn read_assignment(assignment: &[u8]) -> Option<Vec<AssignedTopic>> {
    let mut rest = Reader(assignment);
    rest.i16()?;
    rest.several(Reader::assigned)
}

pub fn write_assignment(version: i16, topics: Vec<AssignedTopic>) -> Bytes {
    let mut out = BytesMut::new();
    // The newest version that is known; all so far hold the same.
    out.put_i16(version.clamp(0, 3));
    out.put_i32(topics.len() as i32);
    for AssignedTopic { topic, partitions } in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
        out.put_i32(partitions.len() as i32);
        partitions.into_iter().for_each(|partition| out.put_i32(partition));
    }
    out.put_i32(-1);
    out.freeze()
}

/// Reads a client's bytes: every length is checked against what is there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn i16(&mut self) -> Option<i16> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*head))
    }

    fn i32(&mut self) -> Option<i32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*head))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.i16()?).ok()?;
        Some(std::str::from_utf8(self.take(len)?).ok()?.to_owned())
    }

    fn nullable_text(&mut self) -> Option<Option<String>> {
        if self.0.starts_with(&[0xff, 0xff]) {
            self.take(2)?;
            return Some(None);
        }
        self.text().map(Some)
    }

    fn nullable_bytes(&mut self) -> Option<()> {
        match self.i32()? {
            -1 => Some(()),
            len => self.take(usize::try_from(len).ok()?).map(drop),
        }
    }

    /// Nothing is reserved for a count that the bytes do not hold.
    fn several<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.i32()?;
        (0..u32::try_from(count).ok()?).map(|_| one(self)).collect()
    }

    fn assigned(&mut self) -> Option<AssignedTopic> {
        Some(AssignedTopic { topic: self.text()?, partitions: self.several(Reader::i32)? })
    }
}

/// A subscription as a consumer writes it: for tests of the group's rooms.
#[cfg(test)]
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
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

    /// A subscription of version 3 as a cooperative consumer writes it.
    fn cooperative() -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_i16(3);
        out.put_slice(&[0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 9, 9]);
        out.put_slice(&[0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 7]);
        out.put_slice(&[0, 0, 0, 5, 0, 1, b'r']);
        out.to_vec()
    }

    #[test]
    fn subscriptions_of_every_version_are_read() {
        let read = read_subscription(&cooperative()).unwrap();
        assert_eq!((read.topics, read.rack_id.as_deref()), (vec!["a".to_owned()], Some("r")));
        assert_eq!(read.owned, [AssignedTopic { topic: "a".into(), partitions: vec![7] }]);
        let plain = read_subscription(&subscription(&["x", "y"])).unwrap();
        assert_eq!(plain, Subscription { topics: vec!["x".into(), "y".into()], ..Subscription::default() });
    }

    #[test]
    fn assignments_read_back() {
        let topics = vec![AssignedTopic { topic: "a".into(), partitions: vec![3, 1] }];
        assert_eq!(read_assignment(&write_assignment(2, topics.clone())), Some(topics));
        assert_eq!(write_assignment(9, vec![])[..2], [0, 3]);
        assert_eq!(read_assignment(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_cut_subscription_is_refused() {
        let whole = cooperative();
        for len in 0..whole.len() {
            assert_eq!(read_subscription(&whole[..len]), None, "{len} bytes");
        }
    }
}
