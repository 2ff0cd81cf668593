//! Closed segments written anew into the current epoch: moved as they are, so that their old epoch can be dropped
//! (`broker::space`), or with less in them (`broker::compaction`). The writer commits a run of batches at a time; readers
//! find the old place until the new one is committed.
//!
//! Whoever rewrites has the one turn for it (`broker::space` gives it out) from reading a run to its
//! commit, and nobody trims meanwhile: the closed segments that the writer finds are those that were read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::log::disk::DiskBatch;
use crate::log::partition::{Index, Partition, put_segment};
use crate::log::segment::{self, Segment};
use crate::log::writer::{Outcome, Writer};
use crate::model::ids::Offset;
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// What takes the place of a run of batches of one closed segment, from its first on.
pub struct New {
    /// Where the segment begins.
    pub from: Offset,
    /// Of each batch of the run: where it begins, and its bytes as segments count them.
    pub read: Vec<(Offset, u64)>,
    /// One past the last offset of the run.
    pub until: Offset,
    /// What the current epoch gets instead, in order; where none is, the run's offsets are left without records.
    pub kept: Vec<DiskBatch>,
    /// Where the markers stood that go, of transactions of which nothing is left.
    pub markers_gone: Vec<Offset>,
    /// What is kept becomes one segment with the one before it, if that lies in the current epoch too and both together
    /// have no more bytes than this.
    pub join_bytes_max: u64,
}

/// On its way to the writer.
pub struct Rewrite {
    pub partition: Arc<Partition>,
    pub new: New,
    pub done: oneshot::Sender<Outcome>,
}

/// What becomes of a partition's index once a rewrite is committed.
pub(super) struct Swap {
    partition: Arc<Partition>,
    /// Segments that begin in here give way ...
    replaced: Range<Offset>,
    /// ... to these.
    segments: Vec<Segment>,
    /// Batches before this are no longer what the store holds.
    until: Offset,
}

impl Partition {
    /// The segment that holds `offset`, or the first behind it, if it is closed and all of it is committed.
    pub fn closed_from(&self, offset: Offset) -> Option<Segment> {
        self.segment_from(offset).filter(|segment| segment.closed && segment.end_offset <= self.end_offset())
    }

    /// Ends the open segment if it was opened at `ms` or before, so that it can be rewritten.
    pub fn close_aged(self: &Arc<Self>, writer: &Writer, ms: i64) {
        let aged = |segment: &Segment| !segment.closed && segment.first_append_ms <= ms;
        if self.index.read().segments.last().is_some_and(aged) {
            writer.close_segment(self.clone());
        }
    }

    // What follows is for the writer alone.

    /// Puts what is kept of a run into `epoch`; none where the run is gone, because the stream was deleted.
    pub(super) fn plan_rewrite(self: &Arc<Self>, epoch: u32, new: &New, commit: &mut Batch) -> Option<Swap> {
        let mut index = self.index.write();
        if self.is_deleted() {
            return None;
        }
        let Index { segments, transactions, .. } = &mut *index;
        let at = segment::find(segments, new.from);
        let old = segments.get(at).filter(|old| old.first_offset == new.from && old.closed)?;
        for marker in &new.markers_gone {
            // Before the marker can be missed: a reader that is told of an abort looks for its marker.
            transactions.forget(self.id, *marker, commit);
        }
        let before = at.checked_sub(1).and_then(|before| segments.get(before));
        let read_bytes: u64 = new.read.iter().map(|(_, bytes)| bytes).sum();
        let rest = (new.until < old.end_offset).then(|| Segment {
            first_offset: new.until,
            bytes: old.bytes.saturating_sub(read_bytes),
            ..old.clone()
        });
        let mut first_replaced = old.first_offset;
        let kept = kept_segment(epoch, old, &new.kept).map(|kept| match before.filter(|before| before.closed) {
            Some(before) if before.epoch == epoch && before.bytes + kept.bytes <= new.join_bytes_max => {
                first_replaced = before.first_offset;
                joined(before, &kept)
            }
            _ => kept,
        });
        self.put_new(epoch, old, new, commit);
        commit.delete(Family::Meta, Key::Segment { partition: self.id, first_offset: old.first_offset }.encode());
        let segments: Vec<Segment> = kept.into_iter().chain(rest).collect();
        segments.iter().for_each(|segment| put_segment(commit, self.id, segment));
        let replaced = first_replaced..old.end_offset;
        Some(Swap { partition: self.clone(), replaced, segments, until: new.until })
    }

    fn put_new(&self, epoch: u32, old: &Segment, new: &New, commit: &mut Batch) {
        let key = |base_offset| Key::Batch { epoch, partition: self.id, base_offset }.encode();
        if old.epoch == epoch {
            let is_kept = |offset: &Offset| new.kept.binary_search_by_key(offset, |kept| kept.base_offset).is_ok();
            for (gone, _) in new.read.iter().filter(|(offset, _)| !is_kept(offset)) {
                commit.delete(Family::Log, key(*gone));
            }
        }
        for batch in &new.kept {
            commit.put(Family::Log, key(batch.base_offset), batch.value.clone());
        }
    }
}

impl Swap {
    /// Shows what was committed.
    pub fn apply(self) {
        let mut index = self.partition.index.write();
        if self.partition.is_deleted() {
            return;
        }
        let at = |offset| index.segments.partition_point(|segment| segment.first_offset < offset);
        let range = at(self.replaced.start)..at(self.replaced.end);
        index.segments.splice(range, self.segments);
        index.tail.leave_out(self.until);
        self.partition.rewrites.fetch_add(1, Ordering::Release);
    }
}

/// The segment that `kept` makes of a part of `old`.
fn kept_segment(epoch: u32, old: &Segment, kept: &[DiskBatch]) -> Option<Segment> {
    let (first, last) = (kept.first()?, kept.last()?);
    Some(Segment {
        first_offset: first.base_offset,
        end_offset: last.last_offset + 1,
        epoch,
        bytes: kept.iter().map(|batch| batch.batch_len() as u64).sum(),
        max_timestamp: kept.iter().map(|batch| batch.header.max_timestamp).fold(-1, i64::max),
        first_append_ms: first.stored.append_time_ms,
        last_append_ms: last.stored.append_time_ms,
        has_producers: old.has_producers,
        closed: true,
    })
}

fn joined(before: &Segment, behind: &Segment) -> Segment {
    Segment {
        end_offset: behind.end_offset,
        bytes: before.bytes + behind.bytes,
        max_timestamp: before.max_timestamp.max(behind.max_timestamp),
        last_append_ms: behind.last_append_ms,
        has_producers: before.has_producers || behind.has_producers,
        ..before.clone()
    }
}
