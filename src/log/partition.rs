//! One partition's log. Appends take their offsets under the append lock and are queued in that order; readers see
//! what the writer has published, up to [`Partition::end_offset`].
//!
//! Two locks, never held together except append before index: `append` (next offset, producers) by whoever appends,
//! `index` (segments, tail, start) by the writer for a moment and by readers. Of several partitions' append locks a
//! dormant one's comes before its holder's (`log::dormant`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{oneshot, watch};

use crate::log::disk::{DiskBatch, scan_segment};
use crate::log::producers::{self, Check, ELSEWHERE, Producers, SequenceError, sequence_after};
use crate::log::segment::{self, Segment};
use crate::log::tail::{StoredBatch, Tail};
use crate::log::writer::{Append, Outcome, RollRules, Writer};
use crate::model::batch::{self, Header};
use crate::model::ids::{Offset, PartitionId, PartitionIndex};
use crate::store::crypt::{DataKey, KeyError, KeyRing, Place};
use crate::store::keys::{BatchHeader, Key};
use crate::store::{Batch, Family, Store, StoreError};

pub struct Partition {
    pub id: PartitionId,
    pub(super) append: Mutex<AppendState>,
    pub(super) index: RwLock<Index>,
    /// One past the last record that is committed: what readers wait on.
    end: watch::Sender<Offset>,
    deleted: AtomicBool,
}

pub(super) struct AppendState {
    pub next_offset: Offset,
    last_append_ms: i64,
    /// Of what is addressed to this partition.
    pub producers: Producers,
    /// Whose log takes what is addressed to this partition: `log::dormant`.
    pub holder: PartitionIndex,
    /// Where it is another's log: `producers` knows what stands there before this.
    pub until: Offset,
    /// Whose holder this partition is, beside itself.
    pub guests: Vec<Weak<Partition>>,
}

impl AppendState {
    /// The answer to an idempotent producer's batch that has been appended already.
    pub fn duplicate(&self, header: &Header) -> Result<Option<Appended>, SequenceError> {
        if header.producer_id < 0 {
            return Ok(None);
        }
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        match self.producers.check(id, epoch, sequence, header.records_count)? {
            Check::Append => Ok(None),
            Check::Duplicate { base_offset, append_time_ms } => {
                Ok(Some(Appended::Duplicate { base_offset, append_ms: append_time_ms }))
            }
        }
    }
}

/// A batch that was queued.
pub(super) struct Placed {
    pub base_offset: Offset,
    pub append_ms: i64,
    done: oneshot::Receiver<Outcome>,
}

impl From<Placed> for Appended {
    fn from(placed: Placed) -> Appended {
        let Placed { base_offset, append_ms, done } = placed;
        Appended::Queued { base_offset, append_ms, done }
    }
}

pub(super) struct Index {
    pub log_start: Offset,
    pub segments: Vec<Segment>,
    pub tail: Tail,
    /// Nothing that can be read was appended earlier, as far as someone has looked: `log::times`.
    pub oldest_append_ms: i64,
}

impl Index {
    pub fn live(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.end_offset > self.log_start)
    }
}

/// A validated batch and how it is to be stored.
pub struct NewBatch<'a> {
    pub bytes: &'a [u8],
    pub leader_epoch: i32,
    /// `message.timestamp.type=LogAppendTime`: the broker's clock replaces the records' timestamps.
    pub log_append_time: bool,
    pub roll: RollRules,
    /// What seals it on its way to the store.
    pub data_key: Option<&'a DataKey>,
}

pub enum Appended {
    Queued {
        base_offset: Offset,
        append_ms: i64,
        done: oneshot::Receiver<Outcome>,
    },
    /// An idempotent producer sent it again; it stands at `base_offset` already, or in another partition's log.
    Duplicate {
        base_offset: Option<Offset>,
        append_ms: i64,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error("the partition was deleted")]
    Deleted,
    #[error(transparent)]
    Batch(#[from] batch::BatchError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is not within {log_start}..={end}")]
    OutOfRange { offset: Offset, log_start: Offset, end: Offset },
    /// What stands there is sealed, and its key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What memory has of a read.
pub enum Hot {
    Batches(Vec<StoredBatch>),
    /// It stands in the store: [`Partition::read_cold`], on a thread that may block.
    Cold,
}

/// What is known of a partition's extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub log_start: Offset,
    pub end: Offset,
    pub bytes: u64,
}

impl Partition {
    pub fn new(id: PartitionId, log_start: Offset, segments: Vec<Segment>, producers: Producers) -> Partition {
        let end = segments.last().map_or(log_start, |last| last.end_offset).max(log_start);
        let last_append_ms = segments.last().map_or(0, |last| last.last_append_ms);
        Partition {
            id,
            append: Mutex::new(AppendState {
                next_offset: end,
                last_append_ms,
                producers,
                holder: id.index,
                until: end,
                guests: Vec::new(),
            }),
            index: RwLock::new(Index { log_start, segments, tail: Tail::default(), oldest_append_ms: i64::MIN }),
            end: watch::Sender::new(end),
            deleted: AtomicBool::new(false),
        }
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

    /// Gives the batch its offsets and queues it. The order of calls is the order of the log.
    pub fn append(self: &Arc<Self>, writer: &Writer, new: NewBatch<'_>, now_ms: i64) -> Result<Appended, AppendError> {
        if let Some(failure) = writer.failure() {
            return Err(failure.clone().into());
        }
        let header = Header::parse(new.bytes)?;
        let mut state = self.lock_append()?;
        if let Some(duplicate) = state.duplicate(&header)? {
            return Ok(duplicate);
        }
        let placed = self.place(&mut state, writer, &header, new, None, now_ms)?;
        record_producer(&mut state.producers, &header, Some(placed.base_offset), placed.append_ms);
        Ok(placed.into())
    }

    pub(super) fn lock_append(&self) -> Result<MutexGuard<'_, AppendState>, AppendError> {
        let state = self.append.lock();
        if self.is_deleted() { Err(AppendError::Deleted) } else { Ok(state) }
    }

    /// Puts the batch at the end of this log.
    pub(super) fn place(
        self: &Arc<Self>,
        state: &mut AppendState,
        writer: &Writer,
        header: &Header,
        new: NewBatch<'_>,
        addressed: Option<PartitionIndex>,
        now_ms: i64,
    ) -> Result<Placed, AppendError> {
        let base_offset = state.next_offset;
        let last_offset = base_offset + Offset::from(header.last_offset_delta);
        let append_ms = now_ms.max(state.last_append_ms);
        let log_append_time = new.log_append_time.then_some(append_ms);
        let mut prefix = [0; BatchHeader::LEN];
        BatchHeader { append_time_ms: append_ms, sealed_by: new.data_key.map(DataKey::number), addressed }
            .put(&mut &mut prefix[..]);
        let value = batch::assemble(&prefix, new.bytes, base_offset, new.leader_epoch, log_append_time);
        // Under the lock, as the place is part of what is sealed; other partitions go on meanwhile.
        let place = Place { partition: self.id, base_offset };
        let sealed = new.data_key.map(|key| key.seal(place, &value)).transpose()?;
        state.next_offset = last_offset + 1;
        state.last_append_ms = append_ms;
        let (done, outcome) = oneshot::channel();
        writer.append(Append {
            partition: self.clone(),
            batch: StoredBatch { base_offset, last_offset, value },
            sealed,
            max_timestamp: log_append_time.unwrap_or(header.max_timestamp),
            append_ms,
            has_producer: header.producer_id >= 0,
            roll: new.roll,
            done,
        });
        Ok(Placed { base_offset, append_ms, done: outcome })
    }

    /// Batches from the one that holds `offset` on, up to `end` (exclusive), at most `bytes_max` of them, the first
    /// one whatever its size; from memory if memory has them.
    pub fn read_hot(&self, offset: Offset, end: Offset, bytes_max: usize) -> Result<Hot, ReadError> {
        let committed = self.end_offset();
        let index = self.index.read();
        if offset < index.log_start || offset > committed {
            return Err(ReadError::OutOfRange { offset, log_start: index.log_start, end: committed });
        }
        let end = end.min(committed);
        if offset >= end {
            return Ok(Hot::Batches(Vec::new()));
        }
        Ok(index.tail.read(offset, end, bytes_max).map_or(Hot::Cold, Hot::Batches))
    }

    /// The same from the store. What cannot be opened ends the page, and is an error where the page would begin with it.
    /// Blocks.
    pub fn read_cold(
        &self,
        store: &dyn Store,
        keys: &KeyRing,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, ReadError> {
        let end = end.min(self.end_offset());
        let mut batches: Vec<StoredBatch> = Vec::new();
        let mut bytes = 0;
        let mut next = offset;
        while next < end && has_room(bytes_max, bytes, batches.len()) {
            let Some(segment) = self.segment_from(next) else { break };
            if segment.first_offset >= end {
                break;
            }
            next = next.max(segment.first_offset);
            // A page ends with the batch that reaches its bound. Asking for half of what is left, again and again, seldom
            // reads a large batch only to leave it out.
            let page_bytes = bytes_max.saturating_sub(bytes) / 2;
            let page = match scan_segment(store, self.id, &segment, next, end, page_bytes) {
                Ok(page) => page,
                Err(error) => return self.cut_short(batches, error.into()),
            };
            if page.is_empty() {
                // The segment moved or was dropped between looking and reading: look again, once it shows.
                match self.segment_from(next) {
                    Some(now) if now.epoch != segment.epoch => continue,
                    Some(now) if now.first_offset > next => {
                        next = now.first_offset;
                        continue;
                    }
                    _ => break,
                }
            }
            for batch in page {
                if !batches.is_empty() && bytes + batch.batch_len() > bytes_max {
                    return Ok(batches);
                }
                match batch.open(keys, self.id) {
                    Ok(batch) => {
                        bytes += batch.batch_len();
                        next = batch.last_offset + 1;
                        batches.push(batch);
                    }
                    Err(error) => return self.cut_short(batches, error),
                }
            }
        }
        let log_start = self.log_start();
        if batches.is_empty() && offset < log_start {
            return Err(ReadError::OutOfRange { offset, log_start, end });
        }
        Ok(batches)
    }

    /// What a read answers when it can go no further.
    fn cut_short(&self, batches: Vec<StoredBatch>, error: ReadError) -> Result<Vec<StoredBatch>, ReadError> {
        // A deleted stream takes its keys with it.
        if !batches.is_empty() || self.is_deleted() {
            return Ok(batches);
        }
        if let ReadError::Store(error) = &error {
            let PartitionId { stream, index } = self.id;
            tracing::error!(%error, stream = stream.0, partition = index.0, "records cannot be read");
        }
        Err(error)
    }

    pub(super) fn segment_from(&self, offset: Offset) -> Option<Segment> {
        let index = self.index.read();
        index.segments.get(segment::find(&index.segments, offset)).cloned()
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

    /// Replaces the part of a closed segment that `batches` hold by a piece in `epoch`.
    pub(super) fn relocate_segment(&self, epoch: u32, batches: &[DiskBatch], end_offset: Offset, commit: &mut Batch) {
        let Some(first_offset) = batches.first().map(|batch| batch.base_offset) else { return };
        let mut index = self.index.write();
        if self.is_deleted() {
            return;
        }
        let at = segment::find(&index.segments, first_offset);
        // Trimmed or deleted meanwhile: the copies are dead, and their epoch's death will free them.
        let Some(old) = index.segments.get(at).cloned().filter(|old| old.closed && old.epoch < epoch) else { return };
        let moved_bytes: u64 = batches.iter().map(|batch| batch.batch_len() as u64).sum();
        let piece = Segment { first_offset, end_offset, epoch, bytes: moved_bytes, ..old.clone() };
        if old.first_offset < piece.first_offset {
            let key = Key::Segment { partition: self.id, first_offset: old.first_offset };
            commit.delete(Family::Meta, key.encode());
        }
        put_segment(commit, self.id, &piece);
        let rest = (end_offset < old.end_offset).then(|| Segment {
            first_offset: end_offset,
            bytes: old.bytes.saturating_sub(moved_bytes),
            ..old
        });
        if let Some(rest) = &rest {
            put_segment(commit, self.id, rest);
        }
        index.segments.splice(at..=at, std::iter::once(piece).chain(rest));
    }

    /// Makes a committed batch visible and wakes readers.
    pub(super) fn publish(&self, batch: StoredBatch) {
        let end = batch.last_offset + 1;
        self.index.write().tail.push(batch);
        self.end.send_replace(end);
    }

    pub(super) fn drop_oldest_of_tail(&self) {
        self.index.write().tail.drop_oldest();
    }
}

/// Notes what an idempotent producer has appended, at `base_offset` or in another partition's log.
pub(super) fn record_producer(producers: &mut Producers, header: &Header, base_offset: Option<Offset>, append_ms: i64) {
    if header.producer_id < 0 {
        return;
    }
    let appended = producers::Appended {
        first_sequence: header.base_sequence,
        last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
        first_offset: base_offset.unwrap_or(ELSEWHERE),
        last_offset: base_offset.map_or(ELSEWHERE, |base_offset| base_offset + Offset::from(header.last_offset_delta)),
        append_time_ms: append_ms,
    };
    producers.record(header.producer_id, header.producer_epoch, appended);
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

/// Whether one more batch of the usual size fits; the first always does.
fn has_room(bytes_max: usize, bytes: usize, batches: usize) -> bool {
    bytes.checked_div(batches).is_none_or(|usual| bytes_max.saturating_sub(bytes) > usual)
}
