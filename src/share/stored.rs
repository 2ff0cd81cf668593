//! The stored form of a share group: JSON under `Key::ShareGroup`, with the epoch and the members of
//! [`Membership`](super::membership::Membership). Written by the registry whenever members, subscriptions or assignments
//! change; read once at the start. What the group has processed is stored apart: `partition::stored`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::membership::{Member, Membership};
use crate::model::ids::{PartitionId, PartitionIndex, StreamId};
use crate::store::StoreError;
use crate::store::keys::Key;

#[derive(Serialize)]
struct Written<'a> {
    epoch: i32,
    members: &'a BTreeMap<String, Member>,
}

#[derive(Deserialize)]
struct Read {
    epoch: i32,
    members: BTreeMap<String, Member>,
}

pub fn encode_group(group: &Membership) -> Bytes {
    // Maps with string keys and plain structs always encode.
    serde_json::to_vec(&Written { epoch: group.epoch(), members: group.members() }).unwrap_or_default().into()
}

/// Sessions of members end at `deadline_ms` unless they go on.
pub fn decode_group(group_id: &str, value: &[u8], deadline_ms: i64) -> Result<Membership, StoreError> {
    let Read { epoch, members } = serde_json::from_slice(value)
        .map_err(|error| StoreError::Corrupt(format!("share group {group_id}: {error}")))?;
    Ok(Membership::load(epoch, members, deadline_ms))
}

/// What all keys of their kind begin with, for scans.
pub fn group_prefix() -> Bytes {
    Key::ShareGroup("").encode()
}

pub fn partition_prefix() -> Bytes {
    Key::SharePartition { group: "", partition: NOWHERE }.encode().slice(..1)
}

const NOWHERE: PartitionId = PartitionId { stream: StreamId(0), index: PartitionIndex(0) };

/// The group id of a [`Key::ShareGroup`].
pub fn parse_group_key(key: &[u8]) -> Result<&str, StoreError> {
    let group = key.get(1..).and_then(|id| std::str::from_utf8(id).ok());
    group.ok_or_else(|| StoreError::Corrupt(format!("key of a share group: {key:?}")))
}

/// Group id and partition of a [`Key::SharePartition`].
pub fn parse_partition_key(key: &[u8]) -> Result<(&str, PartitionId), StoreError> {
    let parse = || {
        let (rest, index) = key.get(1..)?.split_last_chunk::<4>()?;
        let (group, stream) = rest.split_last_chunk::<4>()?;
        let group = std::str::from_utf8(group).ok()?.strip_suffix('\0')?;
        let stream = StreamId(u32::from_be_bytes(*stream));
        Some((group, PartitionId { stream, index: PartitionIndex(u32::from_be_bytes(*index)) }))
    };
    parse().ok_or_else(|| StoreError::Corrupt(format!("key of a share partition: {key:?}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::share::membership::{Heartbeat, Rules, Topics};
    use uuid::Uuid;

    #[test]
    fn a_group_reads_back_as_written() {
        let mut group = Membership::default();
        let beat = Heartbeat {
            member_id: "m".into(),
            epoch: 0,
            client_id: "\u{e9}\"".into(),
            client_host: "/127.0.0.1".into(),
            rack_id: Some("r".into()),
            subscribed: Some(BTreeSet::from(["t".to_owned()])),
        };
        let topics = Topics::from([("t".to_owned(), (Uuid::from_u128(7), 2))]);
        group.beat(beat, topics, Rules { session_timeout_ms: 5, members_max: 1 }, 0).unwrap();
        let read = decode_group("g", &encode_group(&group), 5).unwrap();
        assert_eq!((read.epoch(), read.members()), (group.epoch(), group.members()));
        assert!(matches!(decode_group("g", b"{}", 0), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn keys_read_back() {
        let partition = PartitionId { stream: StreamId(1 << 24), index: PartitionIndex(3) };
        let key = Key::SharePartition { group: "g", partition }.encode();
        assert!(key.starts_with(&partition_prefix()));
        assert_eq!(parse_partition_key(&key).unwrap(), ("g", partition));
        assert_eq!(parse_group_key(&Key::ShareGroup("g").encode()).unwrap(), "g");
        assert!(parse_partition_key(&key[..8]).is_err());
    }
}
