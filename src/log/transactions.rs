//! Transactions of one log: which are open, and which were aborted. Pure.
//!
//! A log knows a transaction by its producer alone, as its readers do: whichever partition a batch was addressed to, the
//! producer's next marker in the log ends what the producer has written into it since the marker before.
//!
//! There are two of these for a partition. [`Open`] runs ahead under the append lock, where a batch gets its place and the
//! [`Change`] that it makes is told; [`Transactions`] is what readers see, and takes the change in when the batch is
//! published, so that the last stable offset never speaks of what is not committed. The change is stored in the commit of
//! its batch, entry by entry: what is recovered is what the log holds, wherever it was cut, and needs no batch read again.
//!
//! Invariants:
//! - A producer has at most one open transaction in a log.
//! - Aborted ones are in the order of their markers. Behind one, everything that is still open begins at `stable` or
//!   later, so a look for those that overlap a range ends early.
//! - An aborted one is kept for as long as its marker: a reader that is told of it must find the marker, or it would take
//!   the producer's later records for aborted as well.
//!
//! Stored under [`Key::OpenTransaction`], whose key has the producer:
//!
//! | field | width | |
//! |---|---|---|
//! | first_offset | i64 | of its first batch in this log |
//! | producer_epoch | i16 | of that batch |
//! | addressed | u32 | the partition that the batch was addressed to |
//!
//! and [`Key::AbortedTransaction`], whose key has the marker's offset:
//!
//! | field | width | |
//! |---|---|---|
//! | producer_id | i64 | |
//! | first_offset | i64 | |
//! | stable | i64 | |
//!
//! Source: KIP-98; Kafka's transaction index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::model::ids::{Offset, PartitionId, PartitionIndex};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// Where a transaction begins in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub first_offset: Offset,
    pub producer_epoch: i16,
    /// The partition that its first batch was addressed to: another than the log's own where that one is dormant.
    pub addressed: PartitionIndex,
}

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    /// Of its first batch in the log; the log may begin behind it.
    pub first_offset: Offset,
    /// Of its marker.
    pub last_offset: Offset,
    /// The last stable offset behind the marker.
    pub stable: Offset,
}

impl Aborted {
    /// Whether the batch at `base_offset`, which `producer_id` wrote in a transaction, is part of it.
    pub fn holds(&self, producer_id: i64, base_offset: Offset) -> bool {
        self.producer_id == producer_id && (self.first_offset..self.last_offset).contains(&base_offset)
    }
}

/// What a batch does to the transactions of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Begins { producer_id: i64, begun: Begun },
    Ends { producer_id: i64, aborted: Option<Aborted> },
}

/// The open ones, by producer and by where they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    by_producer: BTreeMap<i64, Begun>,
    first_offsets: BTreeSet<Offset>,
}

/// What readers of a log know of its transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    open: Open,
    /// In the order of `last_offset`.
    aborted: VecDeque<Aborted>,
}

impl Open {
    pub fn get(&self, producer_id: i64) -> Option<&Begun> {
        self.by_producer.get(&producer_id)
    }

    /// By ascending producer id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Begun)> {
        self.by_producer.iter().map(|(producer_id, begun)| (*producer_id, begun))
    }

    pub fn len(&self) -> usize {
        self.by_producer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    /// Where the earliest begins.
    pub fn first_offset(&self) -> Option<Offset> {
        self.first_offsets.first().copied()
    }

    /// A producer has written a batch as part of its transaction.
    pub fn write(&mut self, producer_id: i64, begun: Begun) -> Option<Change> {
        if self.by_producer.contains_key(&producer_id) {
            return None;
        }
        self.insert(producer_id, begun);
        Some(Change::Begins { producer_id, begun })
    }

    /// The producer's marker stands at `offset`. Without an open transaction it changes nothing.
    pub fn end(&mut self, producer_id: i64, offset: Offset, commit: bool) -> Option<Change> {
        let begun = self.remove(producer_id)?;
        let stable = self.first_offset().unwrap_or(offset + 1);
        let first_offset = begun.first_offset;
        let aborted = (!commit).then_some(Aborted { producer_id, first_offset, last_offset: offset, stable });
        Some(Change::Ends { producer_id, aborted })
    }

    fn insert(&mut self, producer_id: i64, begun: Begun) {
        if let Some(before) = self.by_producer.insert(producer_id, begun) {
            self.first_offsets.remove(&before.first_offset);
        }
        self.first_offsets.insert(begun.first_offset);
    }

    fn remove(&mut self, producer_id: i64) -> Option<Begun> {
        let begun = self.by_producer.remove(&producer_id)?;
        self.first_offsets.remove(&begun.first_offset);
        Some(begun)
    }
}

impl Transactions {
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// The batch that makes `change` is committed.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::Begins { producer_id, begun } => self.open.insert(producer_id, begun),
            Change::Ends { producer_id, aborted } => {
                self.open.remove(producer_id);
                self.aborted.extend(aborted);
            }
        }
    }

    /// Those aborted that have an offset in `from..to`, in the order of their markers.
    pub fn aborted_within(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        let mut found = Vec::new();
        let first = self.aborted.partition_point(|aborted| aborted.last_offset < from);
        for aborted in self.aborted.range(first..) {
            if aborted.first_offset < to {
                found.push(*aborted);
            }
            if aborted.stable >= to {
                break;
            }
        }
        found
    }

    /// Forgets those whose markers lie before `log_start`.
    pub fn trim(&mut self, partition: PartitionId, log_start: Offset, commit: &mut Batch) {
        let gone = self.aborted.partition_point(|aborted| aborted.last_offset < log_start);
        for aborted in self.aborted.drain(..gone) {
            delete_aborted(partition, aborted.last_offset, commit);
        }
    }

    /// Forgets the one that the marker at `last_offset` ends, as that marker goes.
    pub fn forget(&mut self, partition: PartitionId, last_offset: Offset, commit: &mut Batch) {
        if let Ok(at) = self.aborted.binary_search_by_key(&last_offset, |aborted| aborted.last_offset) {
            self.aborted.remove(at);
            delete_aborted(partition, last_offset, commit);
        }
    }

    /// Takes in an entry of [`Key::OpenTransaction`]; none where it cannot be read.
    pub fn restore_open(&mut self, producer_id: i64, mut value: &[u8]) -> Option<()> {
        let first_offset = value.try_get_i64().ok()?;
        let producer_epoch = value.try_get_i16().ok()?;
        let addressed = PartitionIndex(value.try_get_u32().ok()?);
        self.open.insert(producer_id, Begun { first_offset, producer_epoch, addressed });
        Some(())
    }

    /// Takes in an entry of [`Key::AbortedTransaction`], which come in their order; none where it cannot be read.
    pub fn restore_aborted(&mut self, last_offset: Offset, mut value: &[u8]) -> Option<()> {
        let producer_id = value.try_get_i64().ok()?;
        let first_offset = value.try_get_i64().ok()?;
        let stable = value.try_get_i64().ok()?;
        self.aborted.push_back(Aborted { producer_id, first_offset, last_offset, stable });
        Some(())
    }
}

impl Change {
    /// Adds to the commit of the batch what is stored of this.
    pub fn store(&self, partition: PartitionId, commit: &mut Batch) {
        match *self {
            Change::Begins { producer_id, begun } => {
                let mut value = BytesMut::with_capacity(14);
                value.put_i64(begun.first_offset);
                value.put_i16(begun.producer_epoch);
                value.put_u32(begun.addressed.0);
                commit.put(Family::Meta, Key::OpenTransaction { partition, producer_id }.encode(), value.freeze());
            }
            Change::Ends { producer_id, aborted } => {
                commit.delete(Family::Meta, Key::OpenTransaction { partition, producer_id }.encode());
                let Some(aborted) = aborted else { return };
                let key = Key::AbortedTransaction { partition, last_offset: aborted.last_offset };
                commit.put(Family::Meta, key.encode(), encode_aborted(&aborted));
            }
        }
    }
}

fn encode_aborted(aborted: &Aborted) -> Bytes {
    let mut value = BytesMut::with_capacity(24);
    value.put_i64(aborted.producer_id);
    value.put_i64(aborted.first_offset);
    value.put_i64(aborted.stable);
    value.freeze()
}

fn delete_aborted(partition: PartitionId, last_offset: Offset, commit: &mut Batch) {
    commit.delete(Family::Meta, Key::AbortedTransaction { partition, last_offset }.encode());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::StreamId;
    use crate::store::Op;

    const ID: PartitionId = PartitionId { stream: StreamId(3), index: PartitionIndex(5) };

    fn begun(first_offset: Offset) -> Begun {
        Begun { first_offset, producer_epoch: 2, addressed: PartitionIndex(9) }
    }

    /// Producer 1 is open from 10 on; 2 from 20 was aborted at 30, 3 from 40 at 50, 4 from 60 was committed at 70.
    fn log() -> (Transactions, Batch) {
        let (mut open, mut seen, mut stored) = (Open::default(), Transactions::default(), Batch::default());
        let mut changes = vec![open.write(1, begun(10))];
        for (producer_id, first, last, commit) in [(2, 20, 30, false), (3, 40, 50, false), (4, 60, 70, true)] {
            changes.push(open.write(producer_id, begun(first)));
            assert_eq!(open.write(producer_id, begun(first + 5)), None, "it is open already");
            changes.push(open.end(producer_id, last, commit));
            assert_eq!(open.end(producer_id, last + 1, commit), None, "it is over");
        }
        for change in changes.into_iter().flatten() {
            change.store(ID, &mut stored);
            seen.apply(&change);
        }
        assert_eq!(&open, seen.open());
        (seen, stored)
    }

    fn markers(found: &[Aborted]) -> Vec<Offset> {
        found.iter().map(|aborted| aborted.last_offset).collect()
    }

    #[test]
    fn aborted_ones_are_found_by_any_offset_of_theirs() {
        let (log, _) = log();
        assert_eq!(log.open().first_offset(), Some(10));
        let ranges = [
            ((0, 20), vec![]),
            ((0, 21), vec![30]),
            ((30, 41), vec![30, 50]),
            ((31, 99), vec![50]),
            ((51, 99), vec![]),
        ];
        for ((from, to), wanted) in ranges {
            assert_eq!(markers(&log.aborted_within(from, to)), wanted, "{from}..{to}");
        }
        let aborted = log.aborted_within(0, 99)[0];
        assert_eq!((aborted.producer_id, aborted.first_offset, aborted.stable), (2, 20, 10));
        let holds = [(2, 19), (2, 20), (2, 29), (2, 30), (1, 25)].map(|(id, offset)| aborted.holds(id, offset));
        assert_eq!(holds, [false, true, true, false, false]);
    }

    #[test]
    fn what_is_stored_reads_back() {
        let (log, stored) = log();
        // As the store would hold it: the last change of a key counts.
        let mut entries = BTreeMap::new();
        for op in stored.ops {
            match op {
                Op::Put { key, value, .. } => entries.insert(key, value),
                Op::Delete { key, .. } => entries.remove(&key),
                Op::DeleteRange { .. } => panic!("nothing deletes a range"),
            };
        }
        let mut restored = Transactions::default();
        for (key, value) in &entries {
            let number = i64::from_be_bytes(key[9..].try_into().unwrap());
            let mut restore = |value: &[u8]| match key[0] {
                b'o' => restored.restore_open(number, value),
                _ => restored.restore_aborted(number, value),
            };
            assert_eq!(restore(&value[1..]), None);
            assert_eq!(restore(value), Some(()));
        }
        assert_eq!((entries.len(), &restored), (3, &log));
    }

    #[test]
    fn an_aborted_one_goes_with_its_marker() {
        let (mut log, _) = log();
        let mut commit = Batch::default();
        log.trim(ID, 30, &mut commit);
        assert!(commit.is_empty());
        log.trim(ID, 31, &mut commit);
        log.forget(ID, 40, &mut commit);
        assert_eq!((markers(&log.aborted_within(0, 99)), commit.ops.len()), (vec![50], 1));
        log.forget(ID, 50, &mut commit);
        assert_eq!((log.aborted_within(0, 99), commit.ops.len()), (vec![], 2));
        assert_eq!(log.open().first_offset(), Some(10), "what is open stays open");
    }
}
