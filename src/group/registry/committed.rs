//! Committed offsets: commit, fetch, delete, and what becomes of them when a topic is deleted.

use std::sync::Arc;

use super::{Entry, Groups, Shared, Stored, check_group_id, check_group_id_of_members, durable};
use crate::group::GroupError;
use crate::group::offsets::{Change, CommittedOffset, InFlight};
use crate::model::ids::Offset;
use crate::store::keys::Key;
use crate::store::{Batch, Family};

#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// Negative if the client is not a member.
    pub generation: i32,
    /// The request tells a member's epoch where it tells a generation: OffsetCommit from version 9 on.
    pub knows_epochs: bool,
    /// The client's own retention (OffsetCommit 2 to 4), in place of the broker's.
    pub retention_ms: Option<i64>,
    pub offsets: Vec<OffsetToCommit>,
}

/// The caller has made sure that the partition exists.
#[derive(Clone, Debug)]
pub struct OffsetToCommit {
    pub topic: String,
    pub partition: u32,
    pub offset: Offset,
    pub leader_epoch: Option<i32>,
    pub metadata: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions {
    pub topic: String,
    pub partitions: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    pub topic: String,
    pub partitions: Vec<(u32, Fetched)>,
}

/// What there is for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    Nothing,
    Committed(CommittedOffset),
    /// A transaction that is still open wants to commit, and the reader asked for what is stable only.
    Unstable,
}

/// An answer for each thing asked, valid once what was queued is durable.
type Queued = (Vec<Result<(), GroupError>>, Option<Stored>);

impl Groups {
    /// One answer for each offset of the request, in their order; or an error for all of them. A group that does not
    /// exist comes into being if the client is not a member.
    pub async fn commit_offsets(
        self: &Arc<Self>,
        group_id: &str,
        request: CommitRequest,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(group_id)?;
        let generation = request.generation;
        let commit = |shared: &_, entry: &mut _| {
            let queued = self.queue_commit(shared, entry, request);
            self.drop_if_blank(shared, entry);
            queued
        };
        // Without a generation the client is an administrator or assigns itself: that makes a simple group.
        let queued = if generation < 0 {
            self.find_or_create(group_id, commit)?
        } else {
            self.find(group_id, commit).ok_or(GroupError::GroupIdNotFound)?
        };
        let (answers, stored) = queued?;
        if let Some(stored) = stored {
            durable(stored).await?;
        }
        Ok(answers)
    }

    fn queue_commit(
        self: &Arc<Self>,
        shared: &Shared,
        entry: &mut Entry,
        request: CommitRequest,
    ) -> Result<Queued, GroupError> {
        let CommitRequest { member_id, group_instance_id, generation, knows_epochs, retention_ms, offsets } = request;
        let checked = self.step(shared, entry, |group, step| {
            group.check_commit(step, &member_id, group_instance_id.as_deref(), generation, knows_epochs)
        });
        checked.0?;
        let commit_ms = self.clock.now_ms();
        let expire_ms = retention_ms.map(|retention_ms| commit_ms.saturating_add(retention_ms));
        let mut changes = Vec::new();
        let answers = offsets
            .into_iter()
            .map(|asked| {
                if self.is_too_large(&asked.metadata) {
                    return Err(GroupError::OffsetMetadataTooLarge);
                }
                let OffsetToCommit { topic, partition, offset, leader_epoch, metadata } = asked;
                let to = Some(CommittedOffset { offset, leader_epoch, metadata, commit_ms, expire_ms });
                changes.push(Change { topic, partition, to });
                Ok(())
            })
            .collect();
        let stored = (!changes.is_empty()).then(|| self.change_offsets(shared, entry, changes));
        Ok((answers, stored))
    }

    /// Kafka counts UTF-16 units, whatever the setting's name says.
    pub(super) fn is_too_large(&self, metadata: &str) -> bool {
        let max = usize::try_from(self.settings.offset_metadata_max_bytes).unwrap_or(0);
        metadata.len() > max && metadata.encode_utf16().count() > max
    }

    /// The offsets of the partitions that were asked for; or every committed offset if `wanted` is `None`. With
    /// `require_stable`, commits that are on their way are waited for, and partitions that open transactions want to
    /// commit for are unstable (KIP-447).
    pub async fn fetch_offsets(
        &self,
        group_id: &str,
        wanted: Option<&[TopicPartitions]>,
        require_stable: bool,
    ) -> Vec<TopicOffsets> {
        if require_stable {
            self.settle(group_id).await;
        }
        let found = self.find(group_id, |_, entry| match wanted {
            Some(wanted) => wanted.iter().map(|topic| entry.offsets_of(topic, require_stable)).collect(),
            None => entry.all_offsets(require_stable),
        });
        let nothing = |topic: &TopicPartitions| TopicOffsets {
            topic: topic.topic.clone(),
            partitions: topic.partitions.iter().map(|partition| (*partition, Fetched::Nothing)).collect(),
        };
        found.unwrap_or_else(|| wanted.unwrap_or_default().iter().map(nothing).collect())
    }

    /// Waits until every change of the group's offsets that has begun by now has finished.
    async fn settle(&self, group_id: &str) {
        let Some(until) = self.find(group_id, |_, entry| entry.offsets.next_sequence()) else { return };
        loop {
            let settled = self.find(group_id, |_, entry| {
                (!entry.offsets.settled_before(until)).then(|| entry.settled.clone().notified_owned())
            });
            match settled.flatten() {
                Some(settled) => settled.await,
                None => return,
            }
        }
    }

    /// One answer for each topic.
    pub async fn delete_offsets(
        self: &Arc<Self>,
        group_id: &str,
        topics: &[TopicPartitions],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id_of_members(group_id)?;
        let queued = self.find(group_id, |shared, entry| {
            entry.group.check_offset_deletion()?;
            let subscribed = |topic: &TopicPartitions| entry.group.is_subscribed_to(&topic.topic);
            let answers: Vec<_> = topics
                .iter()
                .map(|topic| if subscribed(topic) { Err(GroupError::GroupSubscribedToTopic) } else { Ok(()) })
                .collect();
            let free = topics.iter().filter(|topic| !subscribed(topic));
            let asked =
                free.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic.as_str(), *partition)));
            let held = asked.filter(|(topic, partition)| entry.offsets.holds(topic, *partition));
            let deletion = |(topic, partition): (&str, u32)| Change { topic: topic.to_owned(), partition, to: None };
            let changes: Vec<Change> = held.map(deletion).collect();
            let stored = (!changes.is_empty()).then(|| self.change_offsets(shared, entry, changes));
            Ok((answers, stored))
        });
        let (answers, stored) = queued.unwrap_or(Err(GroupError::GroupIdNotFound))?;
        if let Some(stored) = stored {
            durable(stored).await?;
        }
        Ok(answers)
    }

    /// Deletes the offsets of all topics that `gone` picks, in every group. For when a topic is deleted, and once at the
    /// start in case the broker stopped between the two. An error means that some could not be deleted.
    pub async fn forget_topics(self: &Arc<Self>, gone: impl Fn(&str) -> bool) -> Result<(), GroupError> {
        let mut queued = Vec::new();
        for shared in self.all() {
            let mut entry = shared.lock();
            let changes = entry.offsets.delete_where(&gone);
            if !changes.is_empty() {
                queued.push(self.change_offsets(&shared, &mut entry, changes));
            }
        }
        let mut all = Ok(());
        for stored in queued {
            all = all.and(durable(stored).await);
        }
        all
    }

    /// Calls `visit` with group, topic, partition and offset of everything committed, for the lag in `/metrics`.
    pub fn visit_committed(&self, mut visit: impl FnMut(&str, &str, u32, Offset)) {
        for shared in self.all() {
            let entry = shared.lock();
            for (topic, partition, committed) in entry.offsets.iter() {
                visit(&entry.id, topic, partition, committed.offset);
            }
        }
    }

    pub(super) fn change_offsets(self: &Arc<Self>, shared: &Shared, entry: &mut Entry, changes: Vec<Change>) -> Stored {
        let mut batch = Batch::default();
        let in_flight = entry.offsets.begin(changes);
        put_changes(&mut batch, &entry.id, &in_flight);
        self.commit(shared, batch, move |groups, shared, entry, durable| {
            entry.offsets.finish(in_flight, durable);
            entry.settled.notify_waiters();
            groups.drop_if_blank(shared, entry);
        })
    }
}

pub(super) fn put_changes(batch: &mut Batch, group_id: &str, in_flight: &InFlight) {
    for pending in in_flight.dropped() {
        batch.delete(Family::Meta, pending.encode(group_id));
    }
    for change in in_flight.changes() {
        let key = Key::CommittedOffset { group: group_id, topic: &change.topic, partition: change.partition }.encode();
        match &change.to {
            Some(offset) => batch.put(Family::Meta, key, offset.encode()),
            None => batch.delete(Family::Meta, key),
        }
    }
}

impl Entry {
    fn offsets_of(&self, wanted: &TopicPartitions, require_stable: bool) -> TopicOffsets {
        let fetched = |partition: &u32| {
            let committed = self.offsets.get(&wanted.topic, *partition);
            (*partition, self.fetched(&wanted.topic, *partition, committed, require_stable))
        };
        TopicOffsets { topic: wanted.topic.clone(), partitions: wanted.partitions.iter().map(fetched).collect() }
    }

    fn all_offsets(&self, require_stable: bool) -> Vec<TopicOffsets> {
        let mut topics: Vec<TopicOffsets> = Vec::new();
        for (topic, partition, committed) in self.offsets.iter() {
            let found = (partition, self.fetched(topic, partition, Some(committed), require_stable));
            match topics.last_mut().filter(|last| last.topic == topic) {
                Some(last) => last.partitions.push(found),
                None => topics.push(TopicOffsets { topic: topic.to_owned(), partitions: vec![found] }),
            }
        }
        topics
    }

    fn fetched(
        &self,
        topic: &str,
        partition: u32,
        committed: Option<&CommittedOffset>,
        require_stable: bool,
    ) -> Fetched {
        if require_stable && self.offsets.is_unstable(topic, partition) {
            return Fetched::Unstable;
        }
        committed.cloned().map_or(Fetched::Nothing, Fetched::Committed)
    }
}
