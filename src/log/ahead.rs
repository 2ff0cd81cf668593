//! What a read from the store brought too much, and what is read before its reader asks for it.
//!
//! A reader comes back for exactly what its answer left out, and large batches seldom fill an answer: without the batches
//! kept here a good part of what lies in the store would be read twice. Who reads on from where the last answer ended will
//! do so again: the next page is read while the client takes this one.
//!
//! Held by the broker, for all partitions together and within one bound of bytes; the oldest go first, but a page makes way
//! for another only when its reader has not come for [`STALE_MS`]: of more readers than there is room for, some have their
//! pages ahead, where otherwise none would. What was read before segments of its partition were rewritten is given to nobody:
//! of what compaction takes away it is no longer known whether it was aborted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::log::tail::StoredBatch;
use crate::metrics::Metrics;
use crate::model::ids::{Offset, PartitionId};

/// Looking for one is a walk through all.
const HELD_MAX: usize = 256;
/// Readers of whom it is known where they will go on.
const READERS_MAX: usize = 256;
/// Smaller ones cost less to read again than to keep.
const BYTES_MIN: usize = 4 << 10;
/// Milliseconds for which a page waits for its reader.
const STALE_MS: i64 = 1_000;

pub struct Ahead {
    bytes_max: usize,
    state: Mutex<State>,
    bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    held: VecDeque<Held>,
    /// Where readers of the store stopped.
    stopped: VecDeque<(PartitionId, Offset)>,
}

/// Where a reader goes on, in a partition as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: PartitionId,
    /// How often its segments had been rewritten before it was read.
    pub rewrites: u64,
    pub offset: Offset,
}

struct Held {
    place: Place,
    bytes: usize,
    since_ms: i64,
    /// They may still be being read.
    batches: oneshot::Receiver<Vec<StoredBatch>>,
}

/// For who has read a page: it waits for its reader, unless it had to go meanwhile.
pub struct Promise(oneshot::Sender<Vec<StoredBatch>>);

impl Promise {
    pub fn keep(self, batches: Vec<StoredBatch>) {
        let _ = self.0.send(batches);
    }
}

impl Ahead {
    pub fn new(bytes_max: usize, metrics: &Metrics) -> Ahead {
        let bytes = Arc::new(AtomicUsize::new(0));
        let used = bytes.clone();
        metrics.watch_budget("ahead", bytes_max, move || used.load(Ordering::Relaxed));
        Ahead { bytes_max, state: Mutex::default(), bytes }
    }

    /// Holds what a read brought too much.
    pub fn hold(&self, place: Place, batches: Vec<StoredBatch>, now_ms: i64) {
        let bytes = batches.iter().map(|batch| batch.value.len()).sum();
        let mut state = self.state.lock();
        if !(BYTES_MIN..=self.bytes_max).contains(&bytes) || state.position(place).is_some() {
            return;
        }
        while state.held.len() >= HELD_MAX || self.used() + bytes > self.bytes_max {
            let Some(oldest) = state.held.pop_front() else { break };
            self.free(&oldest);
        }
        self.reserve(&mut state, place, bytes, now_ms).keep(batches);
    }

    /// Room for a page which is going to be read. None where there is none, or one that is.
    pub fn promise(&self, place: Place, bytes: usize, now_ms: i64) -> Option<Promise> {
        let mut state = self.state.lock();
        if state.position(place).is_some() {
            return None;
        }
        state.held.retain(|held| {
            let stale = now_ms.saturating_sub(held.since_ms) >= STALE_MS;
            if stale {
                self.free(held);
            }
            !stale
        });
        if state.held.len() >= HELD_MAX || self.used().saturating_add(bytes) > self.bytes_max {
            return None;
        }
        Some(self.reserve(&mut state, place, bytes, now_ms))
    }

    /// The batches from there on that are held, which they are no longer. Waits for what is being read.
    pub async fn take(&self, place: Place) -> Vec<StoredBatch> {
        let found = {
            let mut state = self.state.lock();
            state.position(place).and_then(|at| state.held.remove(at))
        };
        let Some(held) = found else { return Vec::new() };
        self.free(&held);
        // Who was to read it could not, then there is nothing.
        held.batches.await.unwrap_or_default()
    }

    /// Takes note that a read went from one offset to another. Whether it began where one had stopped before.
    pub fn went(&self, id: PartitionId, from: Offset, to: Offset) -> bool {
        let mut state = self.state.lock();
        let before = state.stopped.iter().position(|stopped| *stopped == (id, from));
        let goes_on = before.and_then(|at| state.stopped.remove(at)).is_some();
        if state.stopped.len() >= READERS_MAX {
            state.stopped.pop_front();
        }
        state.stopped.push_back((id, to));
        goes_on
    }

    /// Bytes that are held, and those there is room kept for.
    pub fn used(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn reserve(&self, state: &mut State, place: Place, bytes: usize, since_ms: i64) -> Promise {
        let (promise, batches) = oneshot::channel();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        state.held.push_back(Held { place, bytes, since_ms, batches });
        Promise(promise)
    }

    fn free(&self, held: &Held) {
        self.bytes.fetch_sub(held.bytes, Ordering::Relaxed);
    }
}

impl State {
    fn position(&self, place: Place) -> Option<usize> {
        self.held.iter().position(|held| held.place == place)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;
    use crate::model::ids::{PartitionIndex, StreamId};

    const KIB: usize = 1 << 10;

    fn id(index: u32) -> PartitionId {
        PartitionId { stream: StreamId(1), index: PartitionIndex(index) }
    }

    fn batch(base_offset: Offset, bytes: usize) -> StoredBatch {
        StoredBatch { base_offset, last_offset: base_offset + 9, value: Bytes::from(vec![0; bytes]) }
    }

    fn place(index: u32, offset: Offset) -> Place {
        Place { id: id(index), rewrites: 0, offset }
    }

    fn hold(ahead: &Ahead, index: u32, offset: Offset, bytes: usize) {
        ahead.hold(place(index, offset), vec![batch(offset, bytes)], 0);
    }

    /// The offsets at which what is there now begins.
    fn take(ahead: &Ahead, index: u32, offset: Offset) -> Vec<Offset> {
        let taken = ahead.take(place(index, offset)).now_or_never().expect("it is not being read");
        taken.iter().map(|batch| batch.base_offset).collect()
    }

    #[test]
    fn a_batch_comes_once_and_only_to_who_asks_for_its_beginning() {
        let ahead = Ahead::new(64 * KIB, &Metrics::new(1));
        hold(&ahead, 1, 10, 8 * KIB);
        hold(&ahead, 1, 10, 8 * KIB);
        assert!(take(&ahead, 1, 11).is_empty());
        assert!(take(&ahead, 2, 10).is_empty());
        assert_eq!(take(&ahead, 1, 10), [10]);
        assert!(take(&ahead, 1, 10).is_empty());
        assert_eq!(ahead.used(), 0);
    }

    #[test]
    fn the_oldest_make_room_and_what_is_too_large_or_small_is_not_held() {
        let ahead = Ahead::new(16 * KIB, &Metrics::new(1));
        (0..3).for_each(|at| hold(&ahead, at, 10, 8 * KIB));
        assert!(take(&ahead, 0, 10).is_empty());
        hold(&ahead, 3, 10, 17 * KIB);
        hold(&ahead, 4, 10, 100);
        assert_eq!(ahead.used(), 16 * KIB);
        let held = |index| !take(&ahead, index, 10).is_empty();
        assert_eq!([1, 2, 3, 4].map(held), [true, true, false, false]);
    }

    #[test]
    fn a_page_is_waited_for_and_one_that_does_not_come_is_empty() {
        let ahead = Ahead::new(64 * KIB, &Metrics::new(1));
        let promise = ahead.promise(place(1, 10), 8 * KIB, 0).unwrap();
        assert!(ahead.promise(place(1, 10), 8 * KIB, 0).is_none(), "it is being read");
        let mut taking = Box::pin(ahead.take(place(1, 10)));
        assert!((&mut taking).now_or_never().is_none());
        promise.keep(vec![batch(10, 100), batch(20, 100)]);
        assert_eq!(taking.now_or_never().unwrap().len(), 2);
        ahead.promise(place(1, 30), 8 * KIB, 0).unwrap().keep(vec![batch(30, 100)]);
        assert_eq!(take(&ahead, 1, 30), [30]);
        drop(ahead.promise(place(1, 40), 8 * KIB, 0).unwrap());
        assert!(take(&ahead, 1, 40).is_empty());
        assert_eq!(ahead.used(), 0);
    }

    #[test]
    fn a_page_makes_way_when_its_reader_stays_away() {
        let ahead = Ahead::new(16 * KIB, &Metrics::new(1));
        assert!(ahead.promise(place(1, 10), 17 * KIB, 0).is_none());
        let first = ahead.promise(place(1, 10), 10 * KIB, 0).unwrap();
        assert!(ahead.promise(place(2, 10), 10 * KIB, STALE_MS - 1).is_none());
        assert!(ahead.promise(place(2, 10), 10 * KIB, STALE_MS).is_some());
        first.keep(vec![batch(10, 100)]);
        assert!(take(&ahead, 1, 10).is_empty());
        assert_eq!(ahead.used(), 10 * KIB);
    }

    #[test]
    fn what_was_read_before_a_rewrite_is_given_to_nobody() {
        let ahead = Ahead::new(64 * KIB, &Metrics::new(1));
        hold(&ahead, 1, 10, 8 * KIB);
        let rewritten = Place { rewrites: 1, ..place(1, 10) };
        assert!(ahead.take(rewritten).now_or_never().unwrap().is_empty());
        ahead.hold(rewritten, vec![batch(10, 9 * KIB)], 0);
        assert_eq!(ahead.take(rewritten).now_or_never().unwrap()[0].value.len(), 9 * KIB);
    }

    #[test]
    fn who_goes_on_is_known() {
        let ahead = Ahead::new(0, &Metrics::new(1));
        assert!(!ahead.went(id(1), 0, 10));
        assert!(!ahead.went(id(2), 10, 20), "another partition");
        assert!(ahead.went(id(1), 10, 20));
        assert!(!ahead.went(id(1), 10, 20), "it has gone on");
        (0..READERS_MAX as Offset).for_each(|from| assert!(!ahead.went(id(3), from * 2, 1_000_001)));
        assert!(!ahead.went(id(1), 20, 30), "forgotten");
        assert_eq!(ahead.state.lock().stopped.len(), READERS_MAX);
    }
}
