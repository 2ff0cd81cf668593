//! The committed offsets of one group: pure. Owned and called by the registry under the group's lock.
//!
//! A change is [begun](Offsets::begin) when it is queued for the store and [finished](Offsets::finish) when the store
//! has answered. Readers see only what is durable. Changes of one group are queued in the order they began, but may be
//! finished in any order, so each partition remembers the sequence of the change it shows.

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
}

#[derive(Debug, Default)]
struct Slot {
    durable: Option<CommittedOffset>,
    /// The sequence of the change that `durable` shows, plus one; 0 for what was loaded.
    durable_after: u64,
    in_flight: u32,
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

    /// True if an offset is committed or on its way.
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

    /// True if nothing is committed and nothing is on its way.
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

    pub fn begin(&mut self, changes: Vec<Change>) -> InFlight {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.in_flight.insert(sequence);
        for change in &changes {
            self.slot(&change.topic, change.partition).in_flight += 1;
        }
        InFlight { sequence, changes }
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
            if slot.durable.is_none() && slot.in_flight == 0 {
                self.drop_slot(&change.topic, change.partition);
            }
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

    /// What has expired at `now_ms` (wall clock). Topics in use (`subscribed`) and partitions with a change on its way
    /// are spared.
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
                if past && !in_use && slot.in_flight == 0 {
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

    fn drop_slot(&mut self, topic: &str, partition: u32) {
        if let Some(partitions) = self.topics.get_mut(topic) {
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
