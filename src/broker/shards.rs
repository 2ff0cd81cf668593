//! Records out, by shard: a span of one partition's log, read in pages.
//!
//! Called by the Kinesis door and by `fanout`. A position is an offset of the shard's partition. Invariants:
//! - A page holds records of its shard only, each once, in order; [`Page::next`] never goes back.
//! - What is older than the stream's retention by its append time is hidden from the moment on, whether it has been
//!   dropped or not.
//! - Ends of transactions are no records. Of transactions a reader sees what the stream's `kinesis.isolation` says: by
//!   default none that was aborted, and nothing at or behind the first that is open.
//! - An open shard's end is looked at together with the lineage ([`Stream::span`]), so a record that a reshard gives to a
//!   child is never read as its parent's.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::read::blocking;
use crate::broker::retention::expiry;
use crate::broker::{Broker, Stream};
use crate::log::partition::{Partition, ReadError};
use crate::log::segment::Segment;
use crate::log::tail::StoredBatch;
use crate::log::transactions::Aborted;
use crate::model::attributes::Isolation;
use crate::model::batch::{self, BatchError, Codec, Header};
use crate::model::ids::{Offset, ShardOrdinal};
use crate::model::shard::Shard;
use crate::store::StoreError;

/// Reads that show nothing (expired records, control batches) before the page goes out as it is.
const EMPTY_READS_MAX: usize = 8;
/// Stored batches that a page's records may keep in memory, in pages: headers are not shown and kept all the same.
const HELD_PAGES_MAX: usize = 2;

/// A shard as it stands at one moment.
#[derive(Clone)]
pub struct Span {
    pub shard: Shard,
    pub partition: Arc<Partition>,
    pub isolation: Isolation,
    /// One past the last of its records that may be read.
    pub end: Offset,
}

/// One record of a shard. Key and data share the batch's bytes where it is not compressed, and are their own where it is:
/// what else it inflates to is not kept.
#[derive(Clone, Debug)]
pub struct ShardRecord {
    pub offset: Offset,
    pub append_ms: i64,
    /// It is encrypted at rest.
    pub sealed: bool,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
}

/// Bounds of a page; its first record comes whatever its size.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    pub records_max: usize,
    /// Of keys and data.
    pub bytes_max: usize,
}

#[derive(Debug, Default)]
pub struct Page {
    pub records: Vec<ShardRecord>,
    /// Of keys and data.
    pub bytes: usize,
    /// Where the next page begins.
    pub next: Offset,
    /// How far the reader is behind the newest record: 0 when there is nothing more to read now.
    pub behind_ms: i64,
    /// The shard is closed and nothing more comes.
    pub ended: bool,
    /// The next record is left out for [`PageLimits::bytes_max`].
    pub full: bool,
}

/// What of batches that were read a reader is shown.
struct Shown {
    expired_before_ms: i64,
    aborted: Vec<Aborted>,
}

impl Shown {
    /// Takes away those of `batches` that were trimmed meanwhile.
    fn of(span: &Span, batches: &mut Vec<StoredBatch>, expired_before_ms: i64) -> Shown {
        let aborted = match span.isolation {
            Isolation::Committed if batches.iter().any(is_transactional) => span.partition.aborted_among(batches),
            Isolation::Committed | Isolation::Uncommitted => Vec::new(),
        };
        Shown { expired_before_ms, aborted }
    }

    fn shows(&self, stored: &StoredBatch, header: &Header) -> bool {
        let is_aborted = || self.aborted.iter().any(|aborted| aborted.holds(header.producer_id, header.base_offset));
        stored.append_time_ms() >= self.expired_before_ms
            && !header.is_control()
            && !(header.is_transactional() && is_aborted())
    }
}

fn is_transactional(stored: &StoredBatch) -> bool {
    Header::parse(&stored.batch()).is_ok_and(|header| header.is_transactional())
}

fn corrupt(error: BatchError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

impl Span {
    /// Whether a reader at `next` has had everything of a closed shard.
    pub fn is_ended_at(&self, next: Offset) -> bool {
        self.shard.end_offset.is_some_and(|end_offset| next >= end_offset)
    }
}

impl Stream {
    /// The shard and how far it goes now. `None` when there is no such shard, or no longer.
    pub fn span(&self, ordinal: ShardOrdinal) -> Option<Span> {
        // A reshard needs the write lock, so everything committed by now that lies at or after an open shard's start is
        // its own.
        let state = self.state.read();
        let shard = state.lineage.shard(ordinal)?.clone();
        let partition = state.partitions.get(shard.partition.0 as usize)?.clone();
        let isolation = state.settings.kinesis_isolation;
        let readable = partition.end_for(isolation);
        let end = shard.end_offset.map_or(readable, |end_offset| end_offset.min(readable));
        Some(Span { shard, partition, isolation, end })
    }
}

impl Broker {
    /// The records of a shard from `from` on.
    pub async fn read_shard(
        &self,
        stream: &Stream,
        span: &Span,
        from: Offset,
        limits: PageLimits,
    ) -> Result<Page, ReadError> {
        let now_ms = self.clock.now_ms();
        let expired_before_ms = expiry(&stream.settings(), now_ms).unwrap_or(i64::MIN);
        let mut page = Page { next: from.max(span.shard.start_offset), ..Page::default() };
        let (mut empty_reads, mut held_bytes, mut transactional) = (0, 0, false);
        while empty_reads < EMPTY_READS_MAX {
            page.next = page.next.max(first_unexpired(&span.partition, expired_before_ms));
            if page.next >= span.end {
                break;
            }
            let room = limits.bytes_max.saturating_sub(page.bytes);
            let mut batches = match self.read(&span.partition, page.next, span.end, room).await {
                // Retention overtook the reader between the look at the log's start and the read.
                Err(ReadError::OutOfRange { log_start, .. }) if page.next < log_start => {
                    page.next = log_start;
                    empty_reads += 1;
                    continue;
                }
                // What was read goes out first; whoever goes on from there is told.
                Err(_) if !page.records.is_empty() => break,
                batches => batches?,
            };
            if batches.is_empty() {
                // Compaction has left nothing between here and the shard's end.
                page.next = span.end;
                break;
            }
            let (before, read_bytes) = (page.records.len(), batches.iter().map(StoredBatch::batch_len).sum::<usize>());
            let shown = Shown::of(span, &mut batches, expired_before_ms);
            transactional |= batches.iter().any(is_transactional);
            page = fill(page, batches, span.end, shown, limits).await?;
            match page.records.len() > before {
                true => held_bytes += read_bytes,
                false => empty_reads += 1,
            }
            let is_held = held_bytes >= limits.bytes_max.saturating_mul(HELD_PAGES_MAX);
            if page.full || page.records.len() >= limits.records_max || is_held {
                break;
            }
        }
        if transactional && !page.records.is_empty() {
            self.pass_hidden(span, &mut page, expired_before_ms).await?;
        }
        page.ended = span.is_ended_at(page.next);
        page.behind_ms = match (page.next < span.end, page.records.last()) {
            (false, _) => 0,
            (true, Some(last)) => now_ms.saturating_sub(last.append_ms).max(0),
            (true, None) => self.behind_ms(span, page.next, now_ms).await?,
        };
        Ok(page)
    }

    /// Whether a page of `span` that began with the record at `first`, and whose oldest was appended at `oldest_append_ms`,
    /// would be read again as it was: nothing of it has expired, and memory has it still.
    pub fn is_current(&self, stream: &Stream, span: &Span, first: Offset, oldest_append_ms: i64) -> bool {
        let expired_before_ms = expiry(&stream.settings(), self.clock.now_ms()).unwrap_or(i64::MIN);
        oldest_append_ms >= expired_before_ms && span.partition.is_hot(first)
    }

    /// Passes over what shows nothing behind the records of a page, so that a reader who has had all there is to see is
    /// not told that there is more.
    async fn pass_hidden(&self, span: &Span, page: &mut Page, expired_before_ms: i64) -> Result<(), ReadError> {
        for _ in 0..EMPTY_READS_MAX {
            if page.next >= span.end {
                break;
            }
            // Whatever keeps it from being read, the page goes out first.
            let Ok(mut batches) = self.read(&span.partition, page.next, span.end, 1).await else { break };
            let shown = Shown::of(span, &mut batches, expired_before_ms);
            let Some(first) = batches.first() else { break };
            let header = Header::parse(&first.batch()).map_err(corrupt)?;
            if shown.shows(first, &header) {
                break;
            }
            page.next = first.last_offset + 1;
        }
        Ok(())
    }

    /// How long ago the record at `next`, which there is, was appended.
    async fn behind_ms(&self, span: &Span, next: Offset, now_ms: i64) -> Result<i64, ReadError> {
        let batches = self.read(&span.partition, next, span.end, 1).await?;
        Ok(batches.first().map_or(0, |batch| now_ms.saturating_sub(batch.append_time_ms()).max(0)))
    }

    /// When the record at `offset` was appended; `None` when it is not there (any more).
    pub async fn append_ms_at(&self, span: &Span, offset: Offset) -> Result<Option<i64>, ReadError> {
        if offset < span.shard.start_offset.max(span.partition.log_start()) || offset >= span.end {
            return Ok(None);
        }
        match self.read(&span.partition, offset, span.end, 1).await {
            Ok(batches) => Ok(batches.first().map(StoredBatch::append_time_ms)),
            Err(ReadError::OutOfRange { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where the first segment begins in which not everything has expired; the end of the log when there is none.
fn first_unexpired(partition: &Partition, expired_before_ms: i64) -> Offset {
    // Looked at first: what is committed after this may be in a segment that was not seen.
    let extent = partition.extent();
    let first_kept = partition.with_segments(|segments| {
        let kept = |segment: &Segment| segment.last_append_ms >= expired_before_ms;
        segments.filter_map(|segment| kept(segment).then_some(segment.first_offset)).next()
    });
    first_kept.unwrap_or(extent.end).max(extent.log_start)
}

/// Takes from `batches` what belongs to the page. Inflating may take a while: it is done where that disturbs nobody.
async fn fill(
    page: Page,
    batches: Vec<StoredBatch>,
    end: Offset,
    shown: Shown,
    limits: PageLimits,
) -> Result<Page, StoreError> {
    let is_compressed =
        |stored: &StoredBatch| Header::parse(&stored.batch()).and_then(|header| header.codec()) != Ok(Codec::None);
    let work = move |batches: &[StoredBatch]| take(page, batches, end, &shown, limits);
    let filled = match batches.iter().any(is_compressed) {
        true => blocking(move || work(&batches)).await?,
        false => work(&batches),
    };
    filled.map_err(corrupt)
}

fn take(
    mut page: Page,
    batches: &[StoredBatch],
    end: Offset,
    shown: &Shown,
    limits: PageLimits,
) -> Result<Page, BatchError> {
    for stored in batches {
        let (append_ms, sealed) = (stored.append_time_ms(), stored.is_sealed_at_rest());
        let batch = stored.batch();
        let header = Header::parse(&batch)?;
        if !shown.shows(stored, &header) {
            page.next = page.next.max(stored.last_offset + 1);
            continue;
        }
        let is_inflated = header.codec()? != Codec::None;
        let own = |bytes: Option<Bytes>| match is_inflated {
            true => bytes.map(|bytes| Bytes::copy_from_slice(&bytes)),
            false => bytes,
        };
        for record in batch::records(&batch)? {
            let batch::Record { offset, key, value, .. } = record?;
            if offset < page.next {
                continue;
            }
            if offset >= end {
                return Ok(page);
            }
            let bytes = key.as_ref().map_or(0, Bytes::len) + value.as_ref().map_or(0, Bytes::len);
            page.full = !page.records.is_empty() && page.bytes + bytes > limits.bytes_max;
            if page.full || page.records.len() >= limits.records_max {
                return Ok(page);
            }
            let record = ShardRecord { offset, append_ms, sealed, key: own(key), value: own(value) };
            page.bytes += bytes;
            page.next = offset + 1;
            page.records.push(record);
        }
        page.next = page.next.max(stored.last_offset + 1);
    }
    Ok(page)
}

#[cfg(test)]
mod tests;
