//! The stored form of a group, of a committed offset and of a pending one: JSON under the keys `Group`, `CommittedOffset`
//! and `PendingOffset` of `store::keys`. Written by the registry, read back once at the start. Unknown fields are ignored, so that a field can be
//! added.
//!
//! A group (written when the leader's assignment arrives, when a static member is replaced, when the group empties):
//!
//! | field | type | |
//! |---|---|---|
//! | protocol_type | string or null | `consumer`, `connect`, ...; null if the group never had members |
//! | generation | i32 | |
//! | protocol | string or null | the selected protocol; null while empty |
//! | leader | string or null | a member id |
//! | state_since_ms | i64 | wall clock when the group entered its state: where the expiry of its offsets counts from |
//! | members | array | empty means that the group is Empty, else it is Stable |
//!
//! A member: `member_id`, `group_instance_id` (or null), `client_id`, `client_host`, `session_timeout_ms`,
//! `rebalance_timeout_ms`, `protocols` (array of `name`, `metadata` in hexadecimal), `assignment` in hexadecimal.
//!
//! A consumer group (KIP-848) stores an object with the one field `consumer` in the same place, and each of its members
//! under the key `GroupMember`, so that a heartbeat rewrites no more than the member that it moved:
//!
//! | field of `consumer` | type | |
//! |---|---|---|
//! | group_epoch, assignment_epoch | i32 | |
//! | metadata_hash | u64 | of the topics subscribed to when the group epoch stepped last |
//!
//! A member of it: see [`StoredConsumerMember`]. Assignments are objects of topic id to an array of partitions.
//!
//! A committed offset: see [`CommittedOffset`]. A pending one, of a transaction that is still open: see [`PendingOffset`].
//! The settings of a group: an object of texts, by Kafka's names.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::offsets::{CommittedOffset, PendingKey, PendingOffset};
use crate::store::StoreError;
use crate::store::keys::Key;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredGroup {
    pub protocol_type: Option<String>,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub state_since_ms: i64,
    pub members: Vec<StoredMember>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Vec<StoredProtocol>,
    #[serde(with = "hexadecimal")]
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredProtocol {
    pub name: String,
    #[serde(with = "hexadecimal")]
    pub metadata: Bytes,
}

/// What is stored under [`Key::Group`].
#[derive(Clone, Debug)]
pub enum StoredHead {
    Classic(StoredGroup),
    Consumer(StoredConsumer),
}

impl StoredHead {
    pub fn encode(&self) -> Bytes {
        match self {
            StoredHead::Classic(group) => group.encode(),
            StoredHead::Consumer(head) => head.clone().encode(),
        }
    }

    pub fn decode(group_id: &str, value: &[u8]) -> Result<StoredHead, StoreError> {
        let probed: ConsumerValue = decode("group", group_id, value)?;
        match probed.consumer {
            Some(head) => Ok(StoredHead::Consumer(head)),
            None => StoredGroup::decode(group_id, value).map(StoredHead::Classic),
        }
    }
}

/// The field tells the kinds apart.
#[derive(Serialize, Deserialize)]
struct ConsumerValue {
    consumer: Option<StoredConsumer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConsumer {
    pub group_epoch: i32,
    pub assignment_epoch: i32,
    pub metadata_hash: u64,
}

impl StoredConsumer {
    pub fn encode(self) -> Bytes {
        encode(&ConsumerValue { consumer: Some(self) })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConsumerMember {
    pub group_instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub server_assignor: Option<String>,
    pub topics: BTreeSet<String>,
    pub regex: Option<String>,
    pub epoch: i32,
    pub previous_epoch: i32,
    /// `member` while it has to give up partitions, `others` while others have to; null while it has what it is to have.
    pub waits_for: Option<String>,
    pub assigned: BTreeMap<String, BTreeSet<u32>>,
    pub revoking: BTreeMap<String, BTreeSet<u32>>,
    pub target: BTreeMap<String, BTreeSet<u32>>,
    /// Null for a member that speaks the consumer protocol.
    pub classic: Option<StoredClassicSide>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredClassicSide {
    pub session_timeout_ms: i32,
    pub protocols: Vec<StoredProtocol>,
}

impl StoredConsumerMember {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(group_id: &str, value: &[u8]) -> Result<StoredConsumerMember, StoreError> {
        decode("member of group", group_id, value)
    }
}

impl StoredGroup {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(group_id: &str, value: &[u8]) -> Result<StoredGroup, StoreError> {
        decode("group", group_id, value)
    }
}

impl CommittedOffset {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(group_id: &str, value: &[u8]) -> Result<CommittedOffset, StoreError> {
        decode("committed offset of group", group_id, value)
    }
}

impl PendingOffset {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(group_id: &str, value: &[u8]) -> Result<PendingOffset, StoreError> {
        decode("pending offset of group", group_id, value)
    }
}

impl PendingKey {
    pub fn encode(&self, group_id: &str) -> Bytes {
        let PendingKey { topic, partition, producer_id } = self;
        Key::PendingOffset { group: group_id, topic, partition: *partition, producer_id: *producer_id }.encode()
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    // None of these types holds a map or anything else whose serialization can fail.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

fn decode<'a, T: Deserialize<'a>>(what: &str, group_id: &str, value: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Corrupt(format!("{what} {group_id}: {error}")))
}

/// The first bytes of keys, for scans.
pub fn group_prefix() -> Bytes {
    Key::Group("").encode()
}

pub fn group_member_prefix() -> Bytes {
    Key::GroupMember { group: "", member: "" }.encode().slice(..1)
}

pub fn group_settings_prefix() -> Bytes {
    Key::GroupSettings("").encode()
}

pub fn encode_settings(settings: &BTreeMap<String, String>) -> Bytes {
    encode(settings)
}

pub fn decode_settings(group_id: &str, value: &[u8]) -> Result<BTreeMap<String, String>, StoreError> {
    decode("settings of group", group_id, value)
}

pub fn committed_offset_prefix() -> Bytes {
    Key::CommittedOffset { group: "", topic: "", partition: 0 }.encode().slice(..1)
}

/// The first byte of [`Key::PendingOffset`], for scans.
pub fn pending_offset_prefix() -> Bytes {
    Key::PendingOffset { group: "", topic: "", partition: 0, producer_id: 0 }.encode().slice(..1)
}

/// The group id of a [`Key::Group`] or a [`Key::GroupSettings`].
pub fn parse_group_key(key: &[u8]) -> Result<&str, StoreError> {
    key.get(1..)
        .and_then(|id| std::str::from_utf8(id).ok())
        .ok_or_else(|| StoreError::Corrupt(format!("key of a group: {key:?}")))
}

/// Group id and member id of a [`Key::GroupMember`].
pub fn parse_group_member_key(key: &[u8]) -> Result<(&str, &str), StoreError> {
    let parse = || std::str::from_utf8(key.get(1..)?).ok()?.split_once('\0');
    parse().ok_or_else(|| StoreError::Corrupt(format!("key of a group's member: {key:?}")))
}

/// Group id, topic and partition of a [`Key::CommittedOffset`].
pub fn parse_committed_offset_key(key: &[u8]) -> Result<(&str, &str, u32), StoreError> {
    parse_partition(key).ok_or_else(|| StoreError::Corrupt(format!("key of a committed offset: {key:?}")))
}

/// Group id and the rest of a [`Key::PendingOffset`].
pub fn parse_pending_offset_key(key: &[u8]) -> Result<(&str, PendingKey), StoreError> {
    let parse = || {
        let (partition, producer_id) = key.split_last_chunk::<8>()?;
        let (group, topic, partition) = parse_partition(partition)?;
        Some((group, PendingKey { topic: topic.to_owned(), partition, producer_id: i64::from_be_bytes(*producer_id) }))
    };
    parse().ok_or_else(|| StoreError::Corrupt(format!("key of a pending offset: {key:?}")))
}

/// `prefix, group, 0, topic, 0, partition u32`.
fn parse_partition(key: &[u8]) -> Option<(&str, &str, u32)> {
    let (names, partition) = key.get(1..)?.split_last_chunk::<4>()?;
    let (group, topic) = std::str::from_utf8(names).ok()?.strip_suffix('\0')?.split_once('\0')?;
    Some((group, topic, u32::from_be_bytes(*partition)))
}

mod hexadecimal {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
        let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect();
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect();
        match bytes {
            Some(bytes) if rest.is_empty() => Ok(Bytes::from(bytes)),
            _ => Err(D::Error::custom("not pairs of hexadecimal digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_back_as_written() {
        let group = StoredGroup {
            protocol_type: Some("consumer".into()),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            state_since_ms: 1_700_000_000_000,
            members: vec![StoredMember {
                member_id: "m-1".into(),
                group_instance_id: None,
                client_id: "\u{e9}\u{0}\"".into(),
                client_host: "/127.0.0.1".into(),
                session_timeout_ms: 45_000,
                rebalance_timeout_ms: 300_000,
                protocols: vec![StoredProtocol { name: "range".into(), metadata: Bytes::from_static(&[0, 255, 16]) }],
                assignment: Bytes::new(),
            }],
        };
        assert_eq!(StoredGroup::decode("g", &group.encode()).unwrap(), group);
    }

    #[test]
    fn a_pending_offset_reads_back_as_written() {
        let offset =
            CommittedOffset { offset: 5, leader_epoch: Some(2), metadata: "m".into(), commit_ms: 9, expire_ms: None };
        let pending = PendingOffset { order: u64::MAX, offset };
        assert_eq!(PendingOffset::decode("g", &pending.encode()).unwrap(), pending);
    }

    #[test]
    fn what_does_not_parse_is_corrupt_and_names_its_group() {
        for value in [&b""[..], b"{}", br#"{"offset":1,"leader_epoch":null,"metadata":7,"commit_ms":0}"#] {
            let error = CommittedOffset::decode("orders", value).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt(_)) && error.to_string().contains("orders"));
        }
        for digits in ["0", "0g", "\u{e9}"] {
            let value = format!(r#"{{"name":"range","metadata":"{digits}"}}"#);
            assert!(serde_json::from_str::<StoredProtocol>(&value).is_err(), "{digits}");
        }
    }

    #[test]
    fn keys_read_back() {
        let key = Key::CommittedOffset { group: "g", topic: "t", partition: 0x0001_0000 }.encode();
        assert!(key.starts_with(&committed_offset_prefix()));
        assert_eq!(parse_committed_offset_key(&key).unwrap(), ("g", "t", 0x0001_0000));
        let key = Key::CommittedOffset { group: "", topic: "t", partition: 0 }.encode();
        assert_eq!(parse_committed_offset_key(&key).unwrap(), ("", "t", 0));
        assert!(parse_committed_offset_key(b"Og\0t\0").is_err());
        let pending = PendingKey { topic: "t".into(), partition: 0x0001_0000, producer_id: 7 << 40 };
        let key = pending.encode("g");
        assert!(key.starts_with(&pending_offset_prefix()));
        assert_eq!(parse_pending_offset_key(&key).unwrap(), ("g", pending));
        assert!(parse_pending_offset_key(b"qg\0t\0\0\0\0\0").is_err());
        assert_eq!(parse_group_key(&Key::Group("g").encode()).unwrap(), "g");
    }
}
