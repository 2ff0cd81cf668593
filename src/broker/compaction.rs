//! Compaction: of the records that have the same key, the log keeps the last, at its offset.
//!
//! `reaper` asks for it now and then. A partition that is due (`due`) is read twice: its dirty part for where the last
//! record of each key stands (`latest`, in bounded memory: what does not fit waits for the next look), then all of it for
//! what is left when superseded records, tombstones past their time and records without a key are taken out (`sieve`), and
//! all of aborted transactions. Nothing from the first open transaction on is touched. What is left
//! of a segment takes its place (`log::rewrite`), a bounded run at a time and from the log's start on, so that a kill
//! between two of them never shows an older record of a key again. Nothing is held while it works but the one turn to
//! rewrite: appends and reads go on.
//!
//! Invariants:
//! - Offsets never change, and the batch at the log's end stays, without records if need be: it says where the log ends.
//! - What recovery needs of the batches that go, the producers' sequences, is stored before they do.
//! - The marker that ends a transaction stays for as long as a record of the transaction does, and then as long as a
//!   tombstone; with an abort's goes what the log knows of the transaction, in one commit.
//! - A tombstone goes no sooner than `delete.retention.ms` after the compaction that left nothing of its key before it:
//!   the time is kept in the batch itself (KIP-534).
//!
//! What is stored of a partition, big-endian:
//!
//! | field | width | |
//! |---|---|---|
//! | until | i64 | [`Progress::until`] |
//! | horizon | i64 | [`Progress::horizon_ms`]; only where there is one |
//!
//! Source: Kafka's log cleaner; KIP-58 and KIP-354 (lags), KIP-534 (tombstones).

mod due;
mod latest;
mod sieve;

pub use due::Progress;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use crate::broker::read::blocking;
use crate::broker::{Broker, Stream, durable};
use crate::log::partition::{Partition, ReadError};
use crate::log::recover;
use crate::log::rewrite::New;
use crate::log::segment::Segment;
use crate::model::batch::BatchError;
use crate::model::ids::{Offset, PartitionId, PartitionIndex, StreamId};
use crate::store::crypt::KeyError;
use crate::store::keys::Key;
use crate::store::{Batch, Family, Store, StoreError};
use due::due;
use latest::Latest;
use sieve::{Sieve, Walk};

/// Bytes of batches that are looked at, or rewritten in one commit.
const RUN_BYTES_MAX: usize = 1 << 20;
/// Segments below this are written anew though nothing of them goes, so that they become fewer.
const SMALL_SEGMENT_BYTES: u64 = 4 << 20;
/// A marker stays at least this long: longer than a reader takes from reading a batch to asking what was aborted.
const MARKER_MS_MIN: i64 = 10_000;

/// What the broker knows of all compactions.
pub(super) struct Compactor {
    keys_max: usize,
    /// Of partitions that were compacted; they go with their stream.
    progress: Mutex<HashMap<PartitionId, Progress>>,
    /// Why the last attempt failed, where it did.
    failures: Mutex<HashMap<PartitionId, String>>,
}

#[derive(Debug, thiserror::Error)]
enum CompactionError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Compactor {
    /// Blocks.
    pub fn load(store: &dyn Store, bytes_max: usize) -> Result<Compactor, StoreError> {
        let mut progress = HashMap::new();
        recover::for_each_meta(store, b"C", |key, value| {
            let read = parse_key(&key).zip(Progress::decode(&value));
            let (id, of) = read.ok_or_else(|| StoreError::Corrupt("how far a partition is compacted".into()))?;
            progress.insert(id, of);
            Ok(())
        })?;
        Ok(Compactor {
            keys_max: latest::keys_max(bytes_max),
            progress: Mutex::new(progress),
            failures: Mutex::default(),
        })
    }

    pub fn forget(&self, stream: StreamId) {
        self.progress.lock().retain(|id, _| id.stream != stream);
        self.failures.lock().retain(|id, _| id.stream != stream);
    }

    /// Takes down how an attempt ended. True if it failed for another reason than the one before: what cannot be read is
    /// tried at every look, and told once.
    fn is_new_failure(&self, partition: &Partition, failure: Option<&str>) -> bool {
        let mut failures = self.failures.lock();
        // Under the lock: a deletion forgets behind this.
        match failure.filter(|_| !partition.is_deleted()) {
            Some(failure) => failures.insert(partition.id, failure.to_owned()).as_deref() != Some(failure),
            None => {
                failures.remove(&partition.id);
                false
            }
        }
    }

    fn progress(&self, id: PartitionId) -> Progress {
        self.progress.lock().get(&id).copied().unwrap_or_default()
    }
}

impl Progress {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_i64(self.until);
        if let Some(horizon_ms) = self.horizon_ms {
            out.put_i64(horizon_ms);
        }
        out.freeze()
    }

    pub fn decode(mut value: &[u8]) -> Option<Progress> {
        let until = value.try_get_i64().ok()?;
        let horizon_ms = if value.is_empty() { None } else { Some(value.try_get_i64().ok()?) };
        value.is_empty().then_some(Progress { until, horizon_ms })
    }
}

impl Broker {
    /// Compacts every partition that is due.
    pub async fn compact(&self) {
        let streams = self.streams_in_any_state();
        let compacted: Vec<Arc<Stream>> =
            streams.into_iter().filter(|stream| stream.settings().cleanup_policy.compacts()).collect();
        for stream in &compacted {
            // A producer that has gone silent leaves a segment that no append will ever end.
            let opened_ms = self.clock.now_ms().saturating_sub(stream.settings().roll_ms());
            stream.partitions().iter().for_each(|partition| partition.close_aged(&self.writer, opened_ms));
        }
        if compacted.is_empty() || self.settled().await.is_err() {
            return;
        }
        for stream in compacted {
            for partition in stream.partitions() {
                let failure = self.compact_partition(&stream, &partition).await.err().map(|error| error.to_string());
                if self.compactor.is_new_failure(&partition, failure.as_deref()) {
                    let index = partition.id.index.0;
                    tracing::warn!(failure, stream = &*stream.name, index, "a partition could not be compacted");
                }
            }
        }
    }

    async fn compact_partition(&self, stream: &Stream, partition: &Arc<Partition>) -> Result<(), CompactionError> {
        let (settings, now_ms) = (stream.settings(), self.clock.now_ms());
        let rules = &settings.compaction;
        let (log_start, stable) = (partition.log_start(), partition.last_stable_offset());
        let progress = self.compactor.progress(partition.id);
        let found = partition.with_segments(|segments| due(segments, log_start, stable, &progress, rules, now_ms));
        let Some(due) = found else { return Ok(()) };
        let (latest, until) = self.latest(partition, due.dirty.clone()).await?;
        // What is stored from here on speaks of every batch before `until`.
        self.store_producers(partition).await?;
        let sieve = Sieve {
            latest,
            until,
            end: due.dirty.end,
            log_start,
            now_ms,
            horizon_ms: now_ms.saturating_add(rules.delete_retention_ms),
            marker_horizon_ms: now_ms.saturating_add(rules.delete_retention_ms.max(MARKER_MS_MIN)),
        };
        let segment_bytes = settings.segment_bytes.max(0) as u64;
        let bytes = partition.extent().bytes;
        let horizon_ms = self.sift(partition, Arc::new(sieve), segment_bytes).await?;
        self.metrics.compacted(bytes.saturating_sub(partition.extent().bytes));
        self.note_progress(partition, Progress { until, horizon_ms }).await?;
        Ok(())
    }

    /// Where the last record of each key in `dirty` stands, and up to where that is known.
    async fn latest(
        &self,
        partition: &Arc<Partition>,
        dirty: std::ops::Range<Offset>,
    ) -> Result<(Latest, Offset), CompactionError> {
        let records = u64::try_from(dirty.end - dirty.start).unwrap_or(0);
        let mut latest = Latest::new(self.compactor.keys_max, records);
        let mut next = dirty.start;
        while next < dirty.end {
            let batches = match self.read(partition, next, dirty.end, RUN_BYTES_MAX).await {
                Err(ReadError::OutOfRange { log_start, .. }) if next < log_start => {
                    next = log_start;
                    continue;
                }
                batches => batches?,
            };
            let Some(last) = batches.last() else { break };
            next = last.last_offset + 1;
            // Looked at behind the batches, of which nothing is still open.
            let aborted = partition.aborted_within(dirty.start, dirty.end);
            let full_at;
            (latest, full_at) = blocking(move || sieve::note(latest, &batches, &aborted, dirty.start)).await??;
            if let Some(full_at) = full_at {
                return Ok((latest, full_at));
            }
        }
        Ok((latest, dirty.end))
    }

    async fn store_producers(&self, partition: &Partition) -> Result<(), StoreError> {
        let mut last = None;
        partition.snapshot_producers(|batch| last = Some(self.writer.commit_meta(batch)));
        match last {
            Some(last) => durable(last).await,
            None => Ok(()),
        }
    }

    /// Puts what `sieve` leaves in the place of what there was. Returns when the last may go of what is left for a time.
    async fn sift(
        &self,
        partition: &Arc<Partition>,
        sieve: Arc<Sieve>,
        segment_bytes: u64,
    ) -> Result<Option<i64>, CompactionError> {
        let mut walk = Walk::default();
        // Of a segment before it, which a trim to the log's end has left open, nothing may be there any more.
        let mut next = sieve.log_start;
        while let Some(segment) = partition.closed_from(next).filter(|segment| segment.first_offset < sieve.until) {
            if segment.bytes >= SMALL_SEGMENT_BYTES.min(segment_bytes)
                && let Some(behind) = self.walk_past(partition, &sieve, &segment, walk.clone()).await?
            {
                walk = behind;
                next = segment.end_offset;
                continue;
            }
            next = segment.first_offset;
            while next < segment.end_offset.min(sieve.until) {
                let _turn = self.rewriting.take().await;
                let Some(run) = self.closed_run(partition, next, RUN_BYTES_MAX).await? else {
                    return Ok(walk.horizon_ms);
                };
                let (from, until, read) = (run.segment.first_offset, run.until, run.read());
                let aborted = partition.aborted_within(from, until);
                let (keys, id, sieve) = (self.keys.clone(), partition.id, sieve.clone());
                let sifted = blocking(move || sieve.sift(walk, run, &aborted, &keys, id)).await??;
                walk = sifted.walk;
                let (kept, markers_gone) = (sifted.kept, sifted.markers_gone);
                let new = New { from, read, until, kept, markers_gone, join_bytes_max: segment_bytes };
                self.rewrite(partition, new).await?;
                next = until;
            }
        }
        Ok(walk.horizon_ms)
    }

    /// Behind `segment`, if nothing of it is to go: then it is left where it is.
    async fn walk_past(
        &self,
        partition: &Arc<Partition>,
        sieve: &Arc<Sieve>,
        segment: &Segment,
        mut walk: Walk,
    ) -> Result<Option<Walk>, CompactionError> {
        let mut next = segment.first_offset.max(partition.log_start());
        while next < segment.end_offset {
            // To the segment's end, for `until` may lie within a batch.
            let batches = match self.read(partition, next, segment.end_offset, RUN_BYTES_MAX).await {
                Err(ReadError::OutOfRange { .. }) => return Ok(None),
                batches => batches?,
            };
            let Some(last) = batches.last() else { break };
            let aborted = partition.aborted_within(next, last.last_offset + 1);
            next = last.last_offset + 1;
            let sieve = sieve.clone();
            match blocking(move || sieve.walk_past(walk, &batches, &aborted)).await?? {
                Some(behind) => walk = behind,
                None => return Ok(None),
            }
        }
        Ok(Some(walk))
    }

    async fn note_progress(&self, partition: &Partition, progress: Progress) -> Result<(), StoreError> {
        let stored = {
            let mut known = self.compactor.progress.lock();
            // Under the lock: a deletion forgets behind this, and its commit comes behind this one.
            if partition.is_deleted() {
                return Ok(());
            }
            known.insert(partition.id, progress);
            let mut batch = Batch::default();
            batch.put(Family::Meta, Key::Compacted(partition.id).encode(), progress.encode());
            self.writer.commit_meta(batch)
        };
        durable(stored).await
    }
}

fn parse_key(key: &[u8]) -> Option<PartitionId> {
    let mut fields = key.get(1..)?;
    let stream = StreamId(fields.try_get_u32().ok()?);
    let index = PartitionIndex(fields.try_get_u32().ok()?);
    fields.is_empty().then_some(PartitionId { stream, index })
}

#[cfg(test)]
mod tests;
