//! The newest batches of a partition, in memory: what a reader at the end gets without touching the store. All
//! readers share the same bytes. The writer alone adds and drops; one byte budget spans all partitions
//! (`log::writer`).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::model::ids::Offset;
use crate::store::keys::BatchHeader;

/// A batch as readers get it: open, also where the store's copy is sealed.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// [`BatchHeader`], then the record batch.
    pub value: Bytes,
}

impl StoredBatch {
    pub fn batch(&self) -> Bytes {
        self.value.slice(BatchHeader::LEN.min(self.value.len())..)
    }

    pub fn batch_len(&self) -> usize {
        self.value.len().saturating_sub(BatchHeader::LEN)
    }

    pub fn append_time_ms(&self) -> i64 {
        BatchHeader::parse(&self.value).map_or(0, |header| header.append_time_ms)
    }

    /// Whether it is encrypted at rest.
    pub fn is_sealed_at_rest(&self) -> bool {
        BatchHeader::parse(&self.value).is_some_and(|header| header.sealed_by.is_some())
    }
}

#[derive(Debug, Default)]
pub struct Tail {
    batches: VecDeque<StoredBatch>,
    /// Batches that were left out before their time and that [`Tail::drop_oldest`] is still going to be called for.
    left_out: usize,
}

impl Tail {
    pub fn push(&mut self, batch: StoredBatch) {
        self.batches.push_back(batch);
    }

    pub fn drop_oldest(&mut self) {
        match self.left_out.checked_sub(1) {
            Some(left_out) => self.left_out = left_out,
            None => drop(self.batches.pop_front()),
        }
    }

    /// Leaves out the batches before `offset`: the store has others in their place.
    pub fn leave_out(&mut self, offset: Offset) {
        let outdated = self.batches.partition_point(|batch| batch.last_offset < offset);
        self.left_out += self.batches.drain(..outdated).count();
    }

    /// The batch that holds `offset`, or the first behind it. None when the tail begins after `offset`, or ends before.
    pub fn first_from(&self, offset: Offset) -> Option<&StoredBatch> {
        self.batches.front().filter(|first| first.base_offset <= offset)?;
        self.batches.get(self.batches.partition_point(|batch| batch.last_offset < offset))
    }

    /// The first batch appended at `ms` or later. None where it may lie before the tail, or is not there yet.
    pub fn first_appended_at(&self, ms: i64) -> Option<&StoredBatch> {
        self.batches.front().filter(|first| first.append_time_ms() < ms)?;
        self.batches.get(self.batches.partition_point(|batch| batch.append_time_ms() < ms))
    }

    /// The batches from the one that holds `offset` on, up to `end`, at most `bytes_max` of them (the first one
    /// whatever its size). None when the tail begins after `offset`.
    pub fn read(&self, offset: Offset, end: Offset, bytes_max: usize) -> Option<Vec<StoredBatch>> {
        if self.batches.front()?.base_offset > offset {
            return None;
        }
        let from = self.batches.partition_point(|batch| batch.last_offset < offset);
        let mut bytes = 0;
        let taken = self.batches.range(from..).take_while(|batch| {
            let first = bytes == 0;
            bytes += batch.batch_len();
            batch.last_offset < end && (first || bytes <= bytes_max)
        });
        Some(taken.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Tail {
        let mut tail = Tail::default();
        for base_offset in [10, 20, 30] {
            let value = Bytes::from(vec![0; BatchHeader::LEN + 100]);
            tail.push(StoredBatch { base_offset, last_offset: base_offset + 9, value });
        }
        tail
    }

    fn bases(read: Option<Vec<StoredBatch>>) -> Option<Vec<Offset>> {
        Some(read?.iter().map(|batch| batch.base_offset).collect())
    }

    #[test]
    fn an_offset_inside_a_batch_returns_the_whole_batch() {
        assert_eq!(bases(tail().read(15, 40, 1_000)), Some(vec![10, 20, 30]));
        assert_eq!(bases(tail().read(39, 40, 1_000)), Some(vec![30]));
        assert_eq!(bases(tail().read(40, 40, 1_000)), Some(vec![]));
    }

    #[test]
    fn bytes_and_end_bound_the_page_but_the_first_batch_always_comes() {
        assert_eq!(bases(tail().read(10, 40, 1)), Some(vec![10]));
        assert_eq!(bases(tail().read(10, 40, 200)), Some(vec![10, 20]));
        assert_eq!(bases(tail().read(10, 30, 1_000)), Some(vec![10, 20]));
    }

    #[test]
    fn what_was_dropped_must_come_from_the_store() {
        let mut tail = tail();
        tail.drop_oldest();
        assert_eq!(bases(tail.read(10, 40, 1_000)), None);
        assert_eq!(bases(tail.read(20, 40, 1_000)), Some(vec![20, 30]));
        assert_eq!(bases(Tail::default().read(0, 0, 1)), None);
    }

    #[test]
    fn what_is_left_out_is_not_dropped_again() {
        let mut tail = tail();
        tail.leave_out(29);
        assert_eq!(bases(tail.read(10, 40, 1_000)), None);
        assert_eq!(bases(tail.read(20, 40, 1_000)), Some(vec![20, 30]));
        tail.drop_oldest();
        assert_eq!(bases(tail.read(20, 40, 1_000)), Some(vec![20, 30]));
        tail.drop_oldest();
        assert_eq!(bases(tail.read(30, 40, 1_000)), Some(vec![30]));
    }
}
