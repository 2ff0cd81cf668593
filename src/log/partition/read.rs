//! Batches out: from memory where it has them, else from the store.

use super::Partition;
use crate::log::disk::scan_segment;
use crate::log::segment::{self, Segment};
use crate::log::tail::StoredBatch;
use crate::log::transactions::Aborted;
use crate::model::attributes::Isolation;
use crate::model::ids::{Offset, PartitionId};
use crate::store::crypt::{KeyError, KeyRing};
use crate::store::{Store, StoreError};

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

/// What the store has of a read.
pub struct Cold {
    pub batches: Vec<StoredBatch>,
    /// The next batch, which was read and had no room. Only what lies open in the store: what is sealed is opened for the
    /// reader who gets it.
    pub ahead: Option<StoredBatch>,
}

impl Partition {
    /// Up to here every transaction is over: the end of what is committed, or where the earliest open one begins.
    pub fn last_stable_offset(&self) -> Offset {
        let index = self.index.read();
        // What is published shows in the transactions before it does in the end, so this never goes beyond an open one.
        let first = index.transactions.open().first_offset();
        self.end_offset().min(first.map_or(Offset::MAX, |first| first.max(index.log_start)))
    }

    /// Up to where a reader may read.
    pub fn end_for(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Uncommitted => self.end_offset(),
            Isolation::Committed => self.last_stable_offset(),
        }
    }

    /// The aborted transactions that `batches`, which were read up to the last stable offset, hold something of. Batches
    /// that were trimmed since they were read are taken away: it is no longer known what became of them.
    pub fn aborted_among(&self, batches: &mut Vec<StoredBatch>) -> Vec<Aborted> {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Vec::new() };
        let (from, to) = (first.base_offset, last.last_offset + 1);
        let index = self.index.read();
        let (log_start, aborted) = (index.log_start, index.transactions.aborted_within(from, to));
        drop(index);
        batches.retain(|batch| batch.last_offset >= log_start);
        aborted
    }

    /// The aborted transactions that have an offset in `from..to`, in the order of their markers. Of what lies before the
    /// last stable offset these are all.
    pub fn aborted_within(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        self.index.read().transactions.aborted_within(from, to)
    }

    /// Whether memory has the record at `offset` and what follows it. What was trimmed, or rewritten by compaction, it has
    /// no more.
    pub fn is_hot(&self, offset: Offset) -> bool {
        let index = self.index.read();
        offset >= index.log_start && index.tail.first_from(offset).is_some()
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

    /// The same from the store, behind `before`: what an earlier read brought of what begins at `offset`. What cannot be
    /// opened ends the page, and is an error where the page would begin with it. Blocks.
    pub fn read_cold(
        &self,
        store: &dyn Store,
        keys: &KeyRing,
        before: Vec<StoredBatch>,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Cold, ReadError> {
        let end = end.min(self.end_offset());
        let mut bytes = before.iter().map(StoredBatch::batch_len).sum();
        let mut next = before.last().map_or(offset, |last| last.last_offset + 1);
        let mut read = Cold { batches: before, ahead: None };
        while next < end && has_room(bytes_max, bytes, read.batches.len()) {
            let Some(segment) = self.segment_from(next) else { break };
            if segment.first_offset >= end {
                break;
            }
            next = next.max(segment.first_offset);
            let page = match scan_segment(store, self.id, &segment, next, end, bytes_max.saturating_sub(bytes)) {
                Ok(page) => page,
                Err(error) => return self.cut_short(read, error.into()),
            };
            if page.batches.is_empty() {
                // The segment was rewritten or dropped between looking and reading, then its place is another; or nothing
                // is left in it from here on.
                match self.segment_from(next) {
                    Some(now) if segment.is_where(&now) => next = now.end_offset,
                    Some(_) => {}
                    None => break,
                }
                continue;
            }
            read.ahead = page.beyond.filter(|batch| batch.stored.sealed_by.is_none()).map(StoredBatch::from);
            for batch in page.batches {
                if !read.batches.is_empty() && bytes + batch.batch_len() > bytes_max {
                    read.ahead = (batch.stored.sealed_by.is_none()).then(|| StoredBatch::from(batch));
                    return Ok(read);
                }
                match batch.open(keys, self.id) {
                    Ok(batch) => {
                        bytes += batch.batch_len();
                        next = batch.last_offset + 1;
                        read.batches.push(batch);
                    }
                    Err(error) => return self.cut_short(read, error),
                }
            }
            if read.ahead.is_some() {
                return Ok(read);
            }
        }
        let log_start = self.log_start();
        if read.batches.is_empty() && offset < log_start {
            return Err(ReadError::OutOfRange { offset, log_start, end });
        }
        Ok(read)
    }

    /// What a read answers when it can go no further.
    fn cut_short(&self, read: Cold, error: ReadError) -> Result<Cold, ReadError> {
        // A deleted stream takes its keys with it.
        if !read.batches.is_empty() || self.is_deleted() {
            return Ok(Cold { ahead: None, ..read });
        }
        if let ReadError::Store(error) = &error {
            let PartitionId { stream, index } = self.id;
            tracing::error!(%error, stream = stream.0, partition = index.0, "records cannot be read");
        }
        Err(error)
    }

    pub(in crate::log) fn segment_from(&self, offset: Offset) -> Option<Segment> {
        let index = self.index.read();
        index.segments.get(segment::find(&index.segments, offset)).cloned()
    }
}

/// Whether one more batch of the usual size fits; the first always does.
pub fn has_room(bytes_max: usize, bytes: usize, batches: usize) -> bool {
    bytes.checked_div(batches).is_none_or(|usual| bytes_max.saturating_sub(bytes) > usual)
}
