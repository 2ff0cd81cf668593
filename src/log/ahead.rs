//! Batches that a read from the store brought and had no room for. A reader comes back for exactly what its answer left
//! out, and large batches seldom fill an answer: without these a good part of what lies in the store would be read twice.
//!
//! Held by the broker, for all partitions together and within one bound of bytes; the oldest go first. A batch stays what
//! it was when it was read: what compaction has taken away since may still come, as to a reader who was a moment earlier.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::log::tail::StoredBatch;
use crate::metrics::Metrics;
use crate::model::ids::{Offset, PartitionId};

/// Looking for one is a walk through all.
const BATCHES_MAX: usize = 256;
/// Smaller ones cost less to read again than to keep.
const BATCH_BYTES_MIN: usize = 4 << 10;

pub struct Ahead {
    bytes_max: usize,
    held: Mutex<VecDeque<(PartitionId, StoredBatch)>>,
    bytes: Arc<AtomicUsize>,
}

impl Ahead {
    pub fn new(bytes_max: usize, metrics: &Metrics) -> Ahead {
        let bytes = Arc::new(AtomicUsize::new(0));
        let used = bytes.clone();
        metrics.watch_budget("ahead", bytes_max, move || used.load(Ordering::Relaxed));
        Ahead { bytes_max, held: Mutex::default(), bytes }
    }

    pub fn hold(&self, id: PartitionId, batch: StoredBatch) {
        let bytes = batch.value.len();
        if !(BATCH_BYTES_MIN..=self.bytes_max).contains(&bytes) {
            return;
        }
        let mut held = self.held.lock();
        if held.iter().any(|(of, held)| *of == id && held.base_offset == batch.base_offset) {
            return;
        }
        held.push_back((id, batch));
        let mut total = self.bytes.load(Ordering::Relaxed) + bytes;
        while held.len() > BATCHES_MAX || total > self.bytes_max {
            let Some((_, oldest)) = held.pop_front() else { break };
            total -= oldest.value.len();
        }
        self.bytes.store(total, Ordering::Relaxed);
    }

    /// The batch that begins at `offset`, which is held no longer.
    pub fn take(&self, id: PartitionId, offset: Offset) -> Option<StoredBatch> {
        let mut held = self.held.lock();
        let at = held.iter().position(|(of, batch)| *of == id && batch.base_offset == offset)?;
        let (_, batch) = held.remove(at)?;
        self.bytes.fetch_sub(batch.value.len(), Ordering::Relaxed);
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::ids::{PartitionIndex, StreamId};

    const KIB: usize = 1 << 10;

    fn id(index: u32) -> PartitionId {
        PartitionId { stream: StreamId(1), index: PartitionIndex(index) }
    }

    fn batch(base_offset: Offset, bytes: usize) -> StoredBatch {
        StoredBatch { base_offset, last_offset: base_offset + 9, value: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_batch_comes_once_and_only_to_who_asks_for_its_beginning() {
        let ahead = Ahead::new(64 * KIB, &Metrics::new(1));
        ahead.hold(id(1), batch(10, 8 * KIB));
        ahead.hold(id(1), batch(10, 8 * KIB));
        assert!(ahead.take(id(1), 11).is_none());
        assert!(ahead.take(id(2), 10).is_none());
        assert_eq!(ahead.take(id(1), 10).map(|batch| batch.last_offset), Some(19));
        assert!(ahead.take(id(1), 10).is_none());
        assert_eq!(ahead.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_oldest_make_room_and_what_is_too_large_or_small_is_not_held() {
        let ahead = Ahead::new(16 * KIB, &Metrics::new(1));
        (0..3).for_each(|at| ahead.hold(id(at), batch(10, 8 * KIB)));
        assert!(ahead.take(id(0), 10).is_none());
        ahead.hold(id(3), batch(10, 17 * KIB));
        ahead.hold(id(4), batch(10, 100));
        assert_eq!(ahead.bytes.load(Ordering::Relaxed), 16 * KIB);
        let held = |index| ahead.take(id(index), 10).is_some();
        assert_eq!([1, 2, 3, 4].map(held), [true, true, false, false]);
    }
}
