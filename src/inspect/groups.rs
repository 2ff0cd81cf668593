//! Reads what groups, share groups, transactional ids and quotas have stored.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::catalogue::rows;
use super::report::{Committed, Faults, Group, Member, Quota, ShareGroup, Shared, TransactionalId};
use crate::group::offsets::CommittedOffset;
use crate::group::stored::{self, StoredConsumerMember, StoredHead, StoredMember};
use crate::model::ids::{Offset, PartitionId};
use crate::share::partition::SharePartition;
use crate::share::{self, membership};
use crate::store::Store;
use crate::store::keys::Key;
use crate::txn;

/// Where partitions end, by stream and index.
pub struct Ends {
    pub names: BTreeMap<u32, String>,
    pub topic_ids: BTreeMap<Uuid, String>,
    pub by_name: BTreeMap<(String, u32), Offset>,
}

impl Ends {
    fn lag(&self, stream: &str, partition: u32, offset: Offset) -> Option<i64> {
        self.by_name.get(&(stream.to_owned(), partition)).map(|end| (end - offset).max(0))
    }

    fn name(&self, id: PartitionId) -> String {
        let number = id.stream.0;
        self.names.get(&number).cloned().unwrap_or_else(|| format!("(deleted stream {number})"))
    }
}

/// Groups of both of Kafka's protocols, with their offsets.
pub fn groups(store: &dyn Store, ends: &Ends, faults: &mut Faults) -> Vec<Group> {
    let mut found: BTreeMap<String, Group> = BTreeMap::new();
    rows(store, &stored::group_prefix(), "group", faults, |key, value| {
        let id = stored::parse_group_key(key).map_err(|error| error.to_string())?;
        let head = StoredHead::decode(id, value).map_err(|error| error.to_string())?;
        found.insert(id.to_owned(), head_of(id, head));
        Ok(())
    });
    rows(store, &stored::group_member_prefix(), "member of a group", faults, |key, value| {
        let (id, member) = stored::parse_group_member_key(key).map_err(|error| error.to_string())?;
        let stored = StoredConsumerMember::decode(id, value).map_err(|error| error.to_string())?;
        let group = found.get_mut(id).ok_or("there is no such group")?;
        group.members.push(consumer_member(member, stored));
        group.state = "Stable";
        Ok(())
    });
    rows(store, &stored::group_settings_prefix(), "settings of a group", faults, |key, value| {
        let id = stored::parse_group_key(key).map_err(|error| error.to_string())?;
        let settings = stored::decode_settings(id, value).map_err(|error| error.to_string())?;
        without_members(&mut found, id).settings = settings;
        Ok(())
    });
    rows(store, &stored::committed_offset_prefix(), "committed offset", faults, |key, value| {
        let (id, stream, partition) = stored::parse_committed_offset_key(key).map_err(|error| error.to_string())?;
        let offset = CommittedOffset::decode(id, value).map_err(|error| error.to_string())?;
        without_members(&mut found, id).offsets.push(committed(ends, stream, partition, offset, None));
        Ok(())
    });
    rows(store, &stored::pending_offset_prefix(), "pending offset", faults, |key, value| {
        let (id, place) = stored::parse_pending_offset_key(key).map_err(|error| error.to_string())?;
        let pending = crate::group::offsets::PendingOffset::decode(id, value).map_err(|error| error.to_string())?;
        let offset = committed(ends, &place.topic, place.partition, pending.offset, Some(place.producer_id));
        without_members(&mut found, id).offsets.push(offset);
        Ok(())
    });
    found.into_values().collect()
}

/// A group that clients only keep offsets under has no head.
fn without_members<'a>(found: &'a mut BTreeMap<String, Group>, id: &str) -> &'a mut Group {
    found.entry(id.to_owned()).or_insert_with(|| Group {
        id: id.to_owned(),
        kind: "simple",
        state: "Empty",
        ..Group::default()
    })
}

fn head_of(id: &str, head: StoredHead) -> Group {
    let id = id.to_owned();
    match head {
        StoredHead::Classic(group) => Group {
            id,
            kind: "classic",
            state: if group.members.is_empty() { "Empty" } else { "Stable" },
            generation: group.generation,
            protocol: group.protocol,
            members: group.members.into_iter().map(|member| classic_member(member, group.generation)).collect(),
            ..Group::default()
        },
        StoredHead::Consumer(head) => {
            Group { id, kind: "consumer", state: "Empty", generation: head.group_epoch, ..Group::default() }
        }
    }
}

fn classic_member(member: StoredMember, epoch: i32) -> Member {
    Member {
        id: member.member_id,
        instance_id: member.group_instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        epoch,
        // In its protocol's own bytes.
        subscribed: Vec::new(),
    }
}

fn consumer_member(id: &str, member: StoredConsumerMember) -> Member {
    Member {
        id: id.to_owned(),
        instance_id: member.group_instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        epoch: member.epoch,
        subscribed: member.topics.into_iter().chain(member.regex).collect(),
    }
}

fn committed(ends: &Ends, stream: &str, partition: u32, of: CommittedOffset, pending_of: Option<i64>) -> Committed {
    let CommittedOffset { offset, commit_ms, metadata, .. } = of;
    let lag = ends.lag(stream, partition, offset);
    Committed { stream: stream.to_owned(), partition, offset, commit_ms, metadata, lag, pending_of }
}

pub fn share_groups(store: &dyn Store, ends: &Ends, faults: &mut Faults) -> Vec<ShareGroup> {
    let mut found: BTreeMap<String, ShareGroup> = BTreeMap::new();
    let named = |id: &str| ShareGroup { id: id.to_owned(), ..ShareGroup::default() };
    rows(store, &share::stored::group_prefix(), "share group", faults, |key, value| {
        let id = share::stored::parse_group_key(key).map_err(|error| error.to_string())?;
        let group = share::stored::decode_group(id, value, 0).map_err(|error| error.to_string())?;
        let members = group.members().iter().map(|(id, member)| sharing(id, member)).collect();
        found.insert(id.to_owned(), ShareGroup { epoch: group.epoch(), members, ..named(id) });
        Ok(())
    });
    rows(store, &share::stored::partition_prefix(), "share partition", faults, |key, value| {
        let (id, partition) = share::stored::parse_partition_key(key).map_err(|error| error.to_string())?;
        let state = SharePartition::decode(value).ok_or("its layout cannot be parsed")?;
        let stream = ends.name(partition);
        let lag = ends.lag(&stream, partition.index.0, state.start());
        let (start_offset, end_offset) = (state.start(), state.end());
        let shared = Shared { stream, partition: partition.index.0, start_offset, end_offset, lag };
        found.entry(id.to_owned()).or_insert_with(|| named(id)).partitions.push(shared);
        Ok(())
    });
    found.into_values().collect()
}

fn sharing(id: &str, member: &membership::Member) -> Member {
    Member {
        id: id.to_owned(),
        instance_id: None,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        epoch: member.epoch,
        subscribed: member.subscribed.iter().cloned().collect(),
    }
}

pub fn transactional_ids(store: &dyn Store, ends: &Ends, faults: &mut Faults) -> Vec<TransactionalId> {
    let mut found = Vec::new();
    rows(store, &txn::stored::prefix(), "transactional id", faults, |key, value| {
        let id = txn::stored::parse_key(key).map_err(|error| error.to_string())?;
        let transaction = txn::stored::decode(id, value).map_err(|error| error.to_string())?;
        let producer = transaction.producer();
        let named = |topic: &Uuid| ends.topic_ids.get(topic).cloned().unwrap_or_else(|| topic.to_string());
        let partitions = transaction.partitions().iter().flat_map(|(topic, partitions)| {
            let name = named(topic);
            partitions.iter().map(move |partition| format!("{name}/{partition}"))
        });
        found.push(TransactionalId {
            id: id.to_owned(),
            producer_id: producer.producer_id,
            producer_epoch: producer.epoch,
            state: transaction.state().name(),
            timeout_ms: transaction.timeout_ms(),
            start_ms: transaction.start_ms(),
            partitions: partitions.collect(),
            groups: transaction.groups().iter().cloned().collect(),
        });
        Ok(())
    });
    found
}

pub fn quotas(store: &dyn Store, faults: &mut Faults) -> Vec<Quota> {
    let mut found = Vec::new();
    rows(store, &Key::ClientQuota("").encode(), "client quota", faults, |key, value| {
        let read = |json: &[u8]| serde_json::from_slice(json).map_err(|error| error.to_string());
        found.push(Quota { entity: read(key.get(1..).unwrap_or_default())?, limits: read(value)? });
        Ok(())
    });
    found
}
