//! One partition's log. Appends take their offsets under the append lock and are queued in that order; readers see
//! what the writer has published, up to [`Partition::end_offset`].
//!
//! Two locks, never held together except append before index: `append` (next offset, producers, open transactions) by
//! whoever appends, `index` (segments, tail, start, transactions that are published) by the writer for a moment and by
//! readers. Of several partitions' append locks a dormant one's comes before its holder's (`log::dormant`).
//!
//! - [`append`]: batches in
//! - [`read`]: batches out
//! - here: what is there, and what retention and the writer do to it

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::log::producers::Producers;
use crate::log::segment::Segment;
use crate::log::tail::{StoredBatch, Tail};
use crate::log::transactions::{Change, Transactions};
use crate::log::writer::Append;
use crate::model::ids::{Offset, PartitionId};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

pub mod append;
pub mod read;

pub use append::{AppendError, Appended, NewBatch};
pub(in crate::log) use append::{AppendState, record_producer};
pub use read::{Cold, Hot, ReadError, has_room};

pub struct Partition {
    pub id: PartitionId,
    pub(super) append: Mutex<AppendState>,
    pub(super) index: RwLock<Index>,
    /// One past the last record that is committed: what readers wait on.
    end: watch::Sender<Offset>,
    /// How many transactions are open in this log, as the append lock has it: seldom any.
    open_count: AtomicUsize,
    pub(in crate::log) rewrites: AtomicU64,
    deleted: AtomicBool,
}

pub(super) struct Index {
    pub log_start: Offset,
    pub segments: Vec<Segment>,
    pub tail: Tail,
    pub transactions: Transactions,
    /// Nothing that can be read was appended earlier, as far as someone has looked: `log::times`.
    pub oldest_append_ms: i64,
}

impl Index {
    pub fn live(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.end_offset > self.log_start)
    }
}

/// What is known of a partition's extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub log_start: Offset,
    pub end: Offset,
    pub bytes: u64,
}

impl Partition {
    pub fn new(
        id: PartitionId,
        log_start: Offset,
        segments: Vec<Segment>,
        producers: Producers,
        transactions: Transactions,
    ) -> Partition {
        let end = segments.last().map_or(log_start, |last| last.end_offset).max(log_start);
        let last_append_ms = segments.last().map_or(0, |last| last.last_append_ms);
        let open = transactions.open().clone();
        let open_count = AtomicUsize::new(open.len());
        let tail = Tail::default();
        Partition {
            id,
            append: Mutex::new(AppendState {
                next_offset: end,
                last_append_ms,
                producers,
                open,
                holder: id.index,
                until: end,
                guests: Vec::new(),
            }),
            index: RwLock::new(Index { log_start, segments, tail, transactions, oldest_append_ms: i64::MIN }),
            end: watch::Sender::new(end),
            open_count,
            rewrites: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
        }
    }

    /// How often segments were written anew: what was read from the store before is no longer what lies there.
    pub fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Acquire)
    }

    pub fn log_start(&self) -> Offset {
        self.index.read().log_start
    }

    pub fn end_offset(&self) -> Offset {
        *self.end.borrow()
    }

    /// One past the last record that has its place, committed or not: where a new generation begins.
    pub fn next_offset(&self) -> Offset {
        self.append.lock().next_offset
    }

    /// Wakes when records are committed; see [`Partition::end_offset`].
    pub fn watch_end(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    pub fn extent(&self) -> Extent {
        let index = self.index.read();
        Extent {
            log_start: index.log_start,
            end: *self.end.borrow(),
            bytes: index.live().map(|segment| segment.bytes).sum(),
        }
    }

    /// The segments that hold records at or after the log start.
    pub fn segments(&self) -> Vec<Segment> {
        self.with_segments(|segments| segments.cloned().collect())
    }

    /// Runs `look` on the same, under the index lock: for looks at all partitions, which copy nothing.
    pub fn with_segments<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Segment>) -> T) -> T {
        look(&mut self.index.read().live())
    }

    /// Runs `look` on the partition's producers.
    pub fn producers<T>(&self, look: impl FnOnce(&mut Producers) -> T) -> T {
        look(&mut self.append.lock().producers)
    }

    /// From now on appends are refused and waiting readers wake.
    pub fn mark_deleted(&self) {
        // Both locks make the order plain: what was queued before is committed before the deletion is.
        let _state = self.append.lock();
        let _index = self.index.write();
        self.deleted.store(true, Ordering::Release);
        self.end.send_modify(|_| {});
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Whether a trim to `log_start` forgets segments that tell what idempotent producers have written.
    pub fn trims_producers(&self, log_start: Offset) -> bool {
        let index = self.index.read();
        let mut gone = index.segments.iter().take_while(|segment| segment.closed && segment.end_offset <= log_start);
        gone.any(|segment| segment.has_producers)
    }

    /// Moves the start of the log to `log_start` (never back, never past the end) and forgets segments that lie
    /// before it; the commit is queued with `submit` before the lock is released. Returns the bytes forgotten.
    pub fn trim(&self, log_start: Offset, submit: impl FnOnce(Batch)) -> u64 {
        let mut index = self.index.write();
        if self.is_deleted() {
            return 0;
        }
        let log_start = log_start.min(self.end_offset()).max(index.log_start);
        // An open segment stays: the writer is about to extend it.
        let gone =
            index.segments.iter().take_while(|segment| segment.closed && segment.end_offset <= log_start).count();
        if log_start == index.log_start && gone == 0 {
            return 0;
        }
        index.log_start = log_start;
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::LogStart(self.id).encode(), Bytes::copy_from_slice(&log_start.to_be_bytes()));
        index.transactions.trim(self.id, log_start, &mut batch);
        let mut bytes = 0;
        for segment in index.segments.drain(..gone) {
            bytes += segment.bytes;
            let key = Key::Segment { partition: self.id, first_offset: segment.first_offset };
            batch.delete(Family::Meta, key.encode());
        }
        submit(batch);
        bytes
    }

    // What follows is for the writer alone.

    /// Takes an append into the open segment, or opens one; true when it opened one where none was open.
    pub(super) fn extend_segments(&self, epoch: u32, append: &Append, bytes: u64, commit: &mut Batch) -> bool {
        let mut index = self.index.write();
        let segments = &mut index.segments;
        let was_open = segments.last().is_some_and(|last| !last.closed);
        let due = |last: &Segment| {
            last.bytes > 0
                && (last.bytes + bytes > append.roll.segment_bytes
                    || append.append_ms - last.first_append_ms >= append.roll.segment_ms)
        };
        if was_open && segments.last().is_some_and(due) {
            close_last(segments, self.id, commit);
        }
        if segments.last().is_none_or(|last| last.closed) {
            let segment = Segment::open(append.batch.base_offset, epoch, append.append_ms);
            put_segment(commit, self.id, &segment);
            segments.push(segment);
        }
        if let Some(last) = segments.last_mut() {
            let end = append.batch.last_offset + 1;
            last.extend(end, bytes, append.max_timestamp, append.append_ms, append.has_producer);
        }
        !was_open
    }

    pub(super) fn close_segment(&self, commit: &mut Batch) {
        let mut index = self.index.write();
        if !self.is_deleted() {
            close_last(&mut index.segments, self.id, commit);
        }
    }

    /// Makes a committed batch visible, with what it does to transactions, and wakes readers.
    pub(super) fn publish(&self, batch: StoredBatch, change: Option<&Change>) {
        let end = batch.last_offset + 1;
        let mut index = self.index.write();
        index.tail.push(batch);
        change.into_iter().for_each(|change| index.transactions.apply(change));
        drop(index);
        self.end.send_replace(end);
    }

    pub(super) fn drop_oldest_of_tail(&self) {
        self.index.write().tail.drop_oldest();
    }
}

fn close_last(segments: &mut [Segment], id: PartitionId, commit: &mut Batch) {
    if let Some(last) = segments.last_mut().filter(|last| !last.closed) {
        last.closed = true;
        put_segment(commit, id, last);
    }
}

pub(super) fn put_segment(commit: &mut Batch, partition: PartitionId, segment: &Segment) {
    let key = Key::Segment { partition, first_offset: segment.first_offset };
    commit.put(Family::Meta, key.encode(), segment.encode());
}
