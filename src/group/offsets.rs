//! The committed offsets of one group: pure. Owned and called by the registry under the group's lock.
//!
//! A change is [begun](Offsets::begin) when it is queued for the store and [finished](Offsets::finish) when the store
//! has answered. Readers see only what is durable. Changes of one group are queued in the order they began, but may be
//! finished in any order, so each partition remembers the sequence of the change it shows.
//!
//! Offsets that a transaction commits are *pending* until it ends: durable, but not shown. When it commits, they become
//! changes like all others; when it aborts, they go. What was committed for a partition after them, in a transaction that
//! ended earlier or in none, goes before them, as in Kafka: it drops them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::ids::Offset;

/// What a group committed for one partition. Stored as JSON with these field names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    pub offset: Offset,
    /// The leader epoch of the last record the consumer read, if it said so.
    pub leader_epoch: Option<i32>,
    /// The client's own text.
    pub metadata: String,
    /// Wall clock of the commit.
    pub commit_ms: i64,
    /// Wall clock at which the offset expires, if the client chose so itself (OffsetCommit 2 to 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_ms: Option<i64>,
}

/// What a transaction that is still open has committed for one partition. Stored as JSON with these field names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingOffset {
    /// Its place among the pending offsets of its group.
    pub order: u64,
    #[serde(flatten)]
    pub offset: CommittedOffset,
}

/// The pending offset of one transaction, by its producer, for one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PendingKey {
    pub topic: String,
    pub partition: u32,
    pub producer_id: i64,
}

/// From when the retention of a group's offsets counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpireFrom {
    /// Each offset's own commit.
    Commit,
    /// This moment (wall clock, ms): when the last member left.
    Moment(i64),
}

#[derive(Debug, Default)]
pub struct Offsets {
    topics: BTreeMap<String, BTreeMap<u32, Slot>>,
    next_sequence: u64,
    /// Sequences of the changes that began and did not finish yet.
    in_flight: BTreeSet<u64>,
    /// By producer: the partitions that its open transaction has pending offsets for.
    transactions: BTreeMap<i64, BTreeSet<(String, u32)>>,
    next_order: u64,
}

#[derive(Debug, Default)]
struct Slot {
    durable: Option<CommittedOffset>,
    /// The sequence of the change that `durable` shows, plus one; 0 for what was loaded.
    durable_after: u64,
    in_flight: u32,
    /// By producer.
    pending: BTreeMap<i64, PendingOffset>,
}

/// One partition's new offset; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub topic: String,
    pub partition: u32,
    pub to: Option<CommittedOffset>,
}

/// Changes on their way to the store.
#[derive(Debug)]
pub struct InFlight {
    sequence: u64,
    changes: Vec<Change>,
    /// Pending offsets that are gone with these changes.
    dropped: Vec<PendingKey>,
}

impl InFlight {
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Their keys are to be deleted in the same commit.
    pub fn dropped(&self) -> &[PendingKey] {
        &self.dropped
    }
}

/// What [`Offsets::expired`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired {
    pub deletions: Vec<Change>,
    /// Nothing would be left after these deletions.
    pub all: bool,
}

impl Offsets {
    /// Takes an offset that the store already holds.
    pub fn load(&mut self, topic: &str, partition: u32, offset: CommittedOffset) {
        self.slot(topic, partition).durable = Some(offset);
    }

    pub fn get(&self, topic: &str, partition: u32) -> Option<&CommittedOffset> {
        self.topics.get(topic)?.get(&partition)?.durable.as_ref()
    }

    /// True if an offset is committed, pending or on its way.
    pub fn holds(&self, topic: &str, partition: u32) -> bool {
        self.topics.get(topic).is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// Every durable offset, by topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, &CommittedOffset)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .filter_map(move |(partition, slot)| Some((topic.as_str(), *partition, slot.durable.as_ref()?)))
        })
    }

    /// True if nothing is committed, pending or on its way.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The sequence that the next change will have.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// True once every change that began before `sequence` has finished.
    pub fn settled_before(&self, sequence: u64) -> bool {
        self.in_flight.first().is_none_or(|first| *first >= sequence)
    }

    /// Begins changes that are made outside of transactions.
    pub fn begin(&mut self, changes: Vec<Change>) -> InFlight {
        let mut dropped = Vec::new();
        for change in &changes {
            dropped.append(&mut self.drop_pending(&change.topic, change.partition, u64::MAX));
        }
        self.begin_with(changes, dropped)
    }

    fn begin_with(&mut self, changes: Vec<Change>, dropped: Vec<PendingKey>) -> InFlight {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.in_flight.insert(sequence);
        for change in &changes {
            self.slot(&change.topic, change.partition).in_flight += 1;
        }
        InFlight { sequence, changes, dropped }
    }

    /// Takes a pending offset that the store already holds.
    pub fn load_pending(&mut self, key: &PendingKey, pending: PendingOffset) {
        self.next_order = self.next_order.max(pending.order.saturating_add(1));
        self.put_pending(key, pending);
    }

    /// Notes what a transaction wants to commit; to be stored.
    pub fn add_pending(&mut self, key: &PendingKey, offset: CommittedOffset) -> PendingOffset {
        let pending = PendingOffset { order: self.next_order, offset };
        self.next_order += 1;
        self.put_pending(key, pending.clone());
        pending
    }

    fn put_pending(&mut self, key: &PendingKey, pending: PendingOffset) {
        self.slot(&key.topic, key.partition).pending.insert(key.producer_id, pending);
        self.transactions.entry(key.producer_id).or_default().insert((key.topic.clone(), key.partition));
    }

    /// True if a transaction that is still open wants to commit an offset of the partition.
    pub fn is_unstable(&self, topic: &str, partition: u32) -> bool {
        self.topics.get(topic).and_then(|slots| slots.get(&partition)).is_some_and(|slot| !slot.pending.is_empty())
    }

    /// Pending offsets of all transactions.
    pub fn pending_count(&self) -> usize {
        self.transactions.values().map(BTreeSet::len).sum()
    }

    /// Begins the end of a producer's transaction. Its pending offsets become changes if it commits, and are gone in any
    /// case, as are those of other transactions that are older.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) -> InFlight {
        let partitions = self.transactions.remove(&producer_id).unwrap_or_default();
        let (mut changes, mut dropped) = (Vec::new(), Vec::new());
        for (topic, partition) in partitions {
            let slot = self.slot(&topic, partition);
            let Some(PendingOffset { order, offset }) = slot.pending.remove(&producer_id) else { continue };
            dropped.push(PendingKey { topic: topic.clone(), partition, producer_id });
            if commit {
                dropped.append(&mut self.drop_pending(&topic, partition, order));
                changes.push(Change { topic, partition, to: Some(offset) });
            } else {
                self.drop_if_unused(&topic, partition);
            }
        }
        self.begin_with(changes, dropped)
    }

    /// Drops the pending offsets of a partition whose order is below `before`. Its slot stays.
    fn drop_pending(&mut self, topic: &str, partition: u32, before: u64) -> Vec<PendingKey> {
        let Some(slot) = self.topics.get_mut(topic).and_then(|slots| slots.get_mut(&partition)) else {
            return Vec::new();
        };
        let older = slot.pending.iter().filter(|(_, pending)| pending.order < before);
        let gone: Vec<i64> = older.map(|(producer_id, _)| *producer_id).collect();
        slot.pending.retain(|_, pending| pending.order >= before);
        let at = (topic.to_owned(), partition);
        for producer_id in &gone {
            if let Some(partitions) = self.transactions.get_mut(producer_id) {
                partitions.remove(&at);
                if partitions.is_empty() {
                    self.transactions.remove(producer_id);
                }
            }
        }
        let key = |producer_id| PendingKey { topic: topic.to_owned(), partition, producer_id };
        gone.into_iter().map(key).collect()
    }

    /// Takes the store's answer to `in_flight`: shows the changes if they are durable, else leaves what was there.
    pub fn finish(&mut self, in_flight: InFlight, durable: bool) {
        self.in_flight.remove(&in_flight.sequence);
        for change in in_flight.changes {
            let slot = self.slot(&change.topic, change.partition);
            slot.in_flight = slot.in_flight.saturating_sub(1);
            if durable && slot.durable_after <= in_flight.sequence {
                slot.durable = change.to;
                slot.durable_after = in_flight.sequence + 1;
            }
            self.drop_if_unused(&change.topic, change.partition);
        }
    }

    /// Deletions for everything there is or may come to be.
    pub fn delete_all(&self) -> Vec<Change> {
        self.delete_where(|_| true)
    }

    /// Deletions for everything of the topics that `gone` picks.
    pub fn delete_where(&self, gone: impl Fn(&str) -> bool) -> Vec<Change> {
        let topics = self.topics.iter().filter(|(topic, _)| gone(topic));
        topics.flat_map(|(topic, partitions)| partitions.keys().map(|partition| deletion(topic, *partition))).collect()
    }

    /// What has expired at `now_ms` (wall clock). Topics in use (`subscribed`) and partitions with a change on its way or
    /// a pending offset are spared.
    pub fn expired(
        &self,
        now_ms: i64,
        retention_ms: i64,
        from: ExpireFrom,
        subscribed: impl Fn(&str) -> bool,
    ) -> Expired {
        let mut found = Expired { deletions: Vec::new(), all: true };
        for (topic, partitions) in &self.topics {
            let in_use = subscribed(topic);
            for (partition, slot) in partitions {
                let past = slot.durable.as_ref().is_some_and(|offset| offset.is_past(now_ms, retention_ms, from));
                if past && !in_use && slot.in_flight == 0 && slot.pending.is_empty() {
                    found.deletions.push(deletion(topic, *partition));
                } else {
                    found.all = false;
                }
            }
        }
        found
    }

    fn slot(&mut self, topic: &str, partition: u32) -> &mut Slot {
        self.topics.entry(topic.to_owned()).or_default().entry(partition).or_default()
    }

    fn drop_if_unused(&mut self, topic: &str, partition: u32) {
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        let unused = |slot: &Slot| slot.durable.is_none() && slot.in_flight == 0 && slot.pending.is_empty();
        if partitions.get(&partition).is_some_and(unused) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

impl CommittedOffset {
    fn is_past(&self, now_ms: i64, retention_ms: i64, from: ExpireFrom) -> bool {
        match (self.expire_ms, from) {
            (Some(expire_ms), _) => now_ms >= expire_ms,
            (None, ExpireFrom::Commit) => now_ms.saturating_sub(self.commit_ms) >= retention_ms,
            (None, ExpireFrom::Moment(moment)) => now_ms.saturating_sub(moment) >= retention_ms,
        }
    }
}

fn deletion(topic: &str, partition: u32) -> Change {
    Change { topic: topic.to_owned(), partition, to: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: Offset, commit_ms: i64) -> CommittedOffset {
        CommittedOffset { offset, leader_epoch: None, metadata: String::new(), commit_ms, expire_ms: None }
    }

    fn change(offset: Offset) -> Vec<Change> {
        vec![Change { topic: "t".into(), partition: 0, to: Some(at(offset, 0)) }]
    }

    fn offset(offsets: &Offsets) -> Option<Offset> {
        offsets.get("t", 0).map(|committed| committed.offset)
    }

    #[test]
    fn only_durable_offsets_show_and_the_last_queued_wins() {
        let mut offsets = Offsets::default();
        let (first, second) = (offsets.begin(change(5)), offsets.begin(change(7)));
        assert_eq!(offset(&offsets), None);
        assert!(!offsets.settled_before(1) && offsets.settled_before(0));
        offsets.finish(second, true);
        assert_eq!(offset(&offsets), Some(7));
        assert!(!offsets.settled_before(1));
        offsets.finish(first, true);
        assert_eq!(offset(&offsets), Some(7), "the store committed 5 before 7, whichever answer came first");
        assert!(offsets.settled_before(2));
    }

    #[test]
    fn a_change_that_failed_leaves_what_was_there() {
        let mut offsets = Offsets::default();
        let lost = offsets.begin(change(5));
        offsets.finish(lost, false);
        assert!(offsets.is_empty());
        let kept = offsets.begin(change(6));
        offsets.finish(kept, true);
        let lost = offsets.begin(change(7));
        offsets.finish(lost, false);
        assert_eq!(offset(&offsets), Some(6));
    }

    #[test]
    fn a_deletion_queued_after_a_commit_stays_deleted() {
        let mut offsets = Offsets::default();
        let commit = offsets.begin(change(5));
        let deletions = offsets.delete_where(|topic| topic == "t");
        assert_eq!(deletions.len(), 1, "what is on its way is deleted too");
        let deletion = offsets.begin(deletions);
        offsets.finish(deletion, true);
        assert_eq!(offset(&offsets), None);
        offsets.finish(commit, true);
        assert!(offsets.is_empty());
    }

    fn pending(producer_id: i64) -> PendingKey {
        PendingKey { topic: "t".into(), partition: 0, producer_id }
    }

    #[test]
    fn what_a_transaction_commits_shows_when_it_has_ended() {
        let mut offsets = Offsets::default();
        offsets.load("t", 0, at(1, 0));
        offsets.add_pending(&pending(7), at(5, 0));
        assert_eq!(
            (offset(&offsets), offsets.is_unstable("t", 0), offsets.is_unstable("t", 1)),
            (Some(1), true, false)
        );
        let end = offsets.end_transaction(7, true);
        assert_eq!((end.changes().len(), end.dropped()), (1, &[pending(7)][..]));
        assert_eq!(offset(&offsets), Some(1), "not durable yet");
        offsets.finish(end, true);
        assert_eq!((offset(&offsets), offsets.is_unstable("t", 0)), (Some(5), false));
        assert!(offsets.end_transaction(7, true).dropped().is_empty());
    }

    #[test]
    fn what_a_transaction_aborts_leaves_nothing() {
        let mut offsets = Offsets::default();
        offsets.add_pending(&pending(7), at(5, 0));
        assert!(offsets.holds("t", 0) && !offsets.is_empty());
        let end = offsets.end_transaction(7, false);
        assert_eq!((end.changes(), end.dropped()), (&[][..], &[pending(7)][..]));
        offsets.finish(end, true);
        assert!(offsets.is_empty() && offsets.pending_count() == 0);
    }

    #[test]
    fn what_came_later_goes_before_what_is_pending() {
        let mut offsets = Offsets::default();
        offsets.add_pending(&pending(7), at(5, 0));
        offsets.add_pending(&pending(8), at(6, 0));
        offsets.add_pending(&pending(9), at(7, 0));
        // 8 ends: 7 is older and gone, 9 is newer and stays.
        let end = offsets.end_transaction(8, true);
        assert_eq!(end.dropped(), [pending(8), pending(7)]);
        offsets.finish(end, true);
        assert!(offsets.end_transaction(7, true).changes().is_empty());
        assert_eq!((offset(&offsets), offsets.pending_count()), (Some(6), 1));
        // A commit outside of transactions is newer than all.
        let plain = offsets.begin(change(8));
        assert_eq!(plain.dropped(), [pending(9)]);
        offsets.finish(plain, true);
        assert_eq!((offset(&offsets), offsets.pending_count()), (Some(8), 0));
    }

    #[test]
    fn the_order_of_pending_offsets_outlives_a_restart() {
        let mut offsets = Offsets::default();
        offsets.load_pending(&pending(7), PendingOffset { order: 4, offset: at(5, 0) });
        assert_eq!(offsets.add_pending(&pending(8), at(6, 0)).order, 5);
        let first = offsets.end_transaction(7, true);
        assert_eq!(first.dropped(), [pending(7)]);
    }

    #[test]
    fn pending_offsets_go_with_what_is_deleted_and_do_not_expire() {
        let mut offsets = Offsets::default();
        offsets.load("t", 0, at(1, 0));
        offsets.add_pending(&pending(7), at(5, 0));
        let none = Expired { deletions: vec![], all: false };
        assert_eq!(offsets.expired(i64::MAX, 1, ExpireFrom::Commit, |_| false), none);
        let deletions = offsets.delete_all();
        let deletion = offsets.begin(deletions);
        assert_eq!(deletion.dropped(), [pending(7)]);
        offsets.finish(deletion, true);
        assert!(offsets.is_empty());
    }

    #[test]
    fn offsets_expire_by_commit_by_the_groups_moment_or_by_their_own_wish() {
        let mut offsets = Offsets::default();
        offsets.load("a", 0, at(1, 1_000));
        offsets.load("b", 0, at(1, 5_000));
        offsets.load("c", 0, CommittedOffset { expire_ms: Some(2_000), ..at(1, 9_000) });
        let topics = |now_ms, from, subscribed: &str| {
            let expired = offsets.expired(now_ms, 1_000, from, |topic| topic == subscribed);
            (expired.deletions.into_iter().map(|change| change.topic).collect::<Vec<_>>(), expired.all)
        };
        assert_eq!(topics(1_999, ExpireFrom::Commit, ""), (vec![], false));
        assert_eq!(topics(2_000, ExpireFrom::Commit, ""), (vec!["a".into(), "c".into()], false));
        assert_eq!(topics(2_000, ExpireFrom::Commit, "a"), (vec!["c".into()], false));
        assert_eq!(topics(2_000, ExpireFrom::Moment(1_001), ""), (vec!["c".into()], false));
        assert!(topics(6_000, ExpireFrom::Moment(1_001), "").1);
        assert!(Offsets::default().expired(0, 1, ExpireFrom::Commit, |_| false).all);
    }

    #[test]
    fn an_offset_with_a_commit_on_its_way_does_not_expire() {
        let mut offsets = Offsets::default();
        offsets.load("t", 0, at(1, 0));
        let renewal = offsets.begin(change(2));
        assert_eq!(
            offsets.expired(i64::MAX, 1, ExpireFrom::Commit, |_| false),
            Expired { deletions: vec![], all: false }
        );
        offsets.finish(renewal, false);
        assert!(offsets.expired(i64::MAX, 1, ExpireFrom::Commit, |_| false).all);
    }
}
