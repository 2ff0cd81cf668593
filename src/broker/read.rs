//! Records and offsets out. What memory holds is answered at once; what stands in the store is read on a thread that
//! may block.

use std::sync::Arc;

use crate::broker::Broker;
use crate::log::ahead::Place;
use crate::log::partition::{Cold, Hot, Partition, ReadError, has_room};
use crate::log::tail::StoredBatch;
use crate::model::batch::{self, Header};
use crate::model::ids::Offset;
use crate::store::StoreError;

/// A look for one offset reads this many bytes at a time.
const LOOK_BYTES_MAX: usize = 4 << 20;

/// Who reads less at a time is not read ahead of.
const READ_AHEAD_BYTES_MIN: usize = 64 << 10;

/// What is held of a read: what it gives, and what it has no room for.
#[derive(Default)]
struct Held {
    batches: Vec<StoredBatch>,
    left: Vec<StoredBatch>,
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    pub offset: Offset,
    pub timestamp: i64,
    pub leader_epoch: i32,
}

impl Broker {
    /// Batches from the one that holds `offset` on, up to `end` (exclusive) and about `bytes_max`; the first one comes
    /// whatever its size. Empty at the end of the log.
    pub async fn read(
        &self,
        partition: &Arc<Partition>,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, ReadError> {
        match partition.read_hot(offset, end, bytes_max)? {
            Hot::Batches(batches) => Ok(batches),
            Hot::Cold => self.read_stored(partition, offset, end, bytes_max).await,
        }
    }

    async fn read_stored(
        &self,
        partition: &Arc<Partition>,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, ReadError> {
        // Before anything is read.
        let place = place(partition, offset);
        let Held { mut batches, mut left } = self.held(place, end, bytes_max).await;
        if left.is_empty() && goes_on(&batches, end, bytes_max) {
            let (store, keys, partition) = (self.store.clone(), self.keys.clone(), partition.clone());
            let read = move || partition.read_cold(&*store, &keys, batches, offset, end, bytes_max);
            let Cold { batches: read, ahead } = blocking(read).await??;
            (batches, left) = (read, Vec::from_iter(ahead));
        }
        let Some(last) = batches.last() else { return Ok(batches) };
        let next = Place { offset: last.last_offset + 1, ..place };
        let reads_on = self.ahead.went(partition.id, offset, next.offset);
        if !(reads_on && next.offset < end && self.read_ahead(partition, next, &batches, &left, end)) {
            self.ahead.hold(next, left, self.clock.tick_ms());
        }
        Ok(batches)
    }

    /// What is held of a read.
    async fn held(&self, place: Place, end: Offset, bytes_max: usize) -> Held {
        let mut held = Held::default();
        let mut bytes = 0;
        while held.left.is_empty() && goes_on(&held.batches, end, bytes_max) {
            let offset = held.batches.last().map_or(place.offset, |last| last.last_offset + 1);
            let more = self.ahead.take(Place { offset, ..place }).await;
            if more.is_empty() {
                break;
            }
            for batch in more {
                let fits = held.batches.is_empty() || bytes + batch.batch_len() <= bytes_max;
                if held.left.is_empty() && fits && batch.base_offset < end {
                    bytes += batch.batch_len();
                    held.batches.push(batch);
                } else {
                    held.left.push(batch);
                }
            }
        }
        held
    }

    /// Begins to read what comes `next` behind `page`, of about its size, for its reader who will come for it; what is
    /// `left` of an earlier read begins it. Not where memory will have it, nor what is sealed at rest: that is not kept open.
    fn read_ahead(
        &self,
        partition: &Arc<Partition>,
        next: Place,
        page: &[StoredBatch],
        left: &[StoredBatch],
        end: Offset,
    ) -> bool {
        let bytes: usize = page.iter().map(|batch| batch.value.len()).sum();
        let largest = page.iter().map(|batch| batch.value.len()).max().unwrap_or(0);
        if bytes < READ_AHEAD_BYTES_MIN
            || partition.is_hot(next.offset)
            || page.iter().any(StoredBatch::is_sealed_at_rest)
        {
            return false;
        }
        let Some(promise) = self.ahead.promise(next, bytes + largest, self.clock.tick_ms()) else {
            return false;
        };
        let (store, keys, partition, before) =
            (self.store.clone(), self.keys.clone(), partition.clone(), left.to_vec());
        tokio::task::spawn_blocking(move || {
            // Who comes for a page that could not be read is told why when it reads by itself.
            let Ok(Cold { mut batches, ahead }) = partition.read_cold(&*store, &keys, before, next.offset, end, bytes)
            else {
                return;
            };
            batches.extend(ahead);
            let open = batches.iter().take_while(|batch| !batch.is_sealed_at_rest()).count();
            batches.truncate(open);
            promise.keep(batches);
        });
        true
    }

    /// For the next who reads on at the first record of `batch`, which was read and is not given out. What is sealed at rest
    /// is not kept open.
    pub fn keep_ahead(&self, partition: &Partition, batch: StoredBatch) {
        if !batch.is_sealed_at_rest() {
            self.ahead.hold(place(partition, batch.base_offset), vec![batch], self.clock.tick_ms());
        }
    }

    /// The first record at or after `timestamp`, among those before `end`.
    pub async fn offset_at_time(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
        end: Offset,
    ) -> Result<Option<FoundOffset>, ReadError> {
        self.look(
            partition,
            end,
            move |max_timestamp| max_timestamp >= timestamp,
            move |batch, from| batch::offset_for_timestamp(batch, timestamp, from),
        )
        .await
    }

    /// The first record with the largest timestamp, among those before `end`.
    pub async fn offset_of_max_time(
        &self,
        partition: &Arc<Partition>,
        end: Offset,
    ) -> Result<Option<FoundOffset>, ReadError> {
        let mut bounds: Vec<i64> = partition.segments().iter().map(|segment| segment.max_timestamp).collect();
        bounds.sort_unstable_by(|one, other| other.cmp(one));
        bounds.dedup();
        // A segment's bound is too high where the record that it speaks of was compacted away or lies beyond `end`.
        for bound in bounds {
            let mut found = self.first_at_max_time(partition, bound, end).await?;
            while let Some(first) = found {
                found = self.first_at_max_time(partition, first.timestamp.saturating_add(1), end).await?;
                if found.is_none() {
                    return Ok(Some(first));
                }
            }
        }
        Ok(None)
    }

    /// Of the first batch whose largest timestamp is `at_least` or later: the first record with that timestamp.
    async fn first_at_max_time(
        &self,
        partition: &Arc<Partition>,
        at_least: i64,
        end: Offset,
    ) -> Result<Option<FoundOffset>, ReadError> {
        self.look(
            partition,
            end,
            move |max_timestamp| max_timestamp >= at_least,
            |batch, _| batch::offset_of_max_timestamp(batch),
        )
        .await
    }

    /// Walks the segments and batches whose largest timestamp is `wanted`, until `find` finds a record that is still
    /// within the log.
    async fn look(
        &self,
        partition: &Arc<Partition>,
        end: Offset,
        wanted: impl Fn(i64) -> bool + Send + 'static,
        find: impl Fn(&[u8], Offset) -> Result<Option<(Offset, i64)>, batch::BatchError> + Send + 'static,
    ) -> Result<Option<FoundOffset>, ReadError> {
        let (store, keys, partition) = (self.store.clone(), self.keys.clone(), partition.clone());
        blocking(move || {
            let log_start = partition.log_start();
            for segment in partition.segments().into_iter().filter(|segment| wanted(segment.max_timestamp)) {
                let mut next = segment.first_offset.max(log_start);
                let segment_end = segment.end_offset.min(end);
                while next < segment_end {
                    let page = match partition.read_hot(next, segment_end, LOOK_BYTES_MAX)? {
                        Hot::Batches(batches) => batches,
                        Hot::Cold => {
                            partition.read_cold(&*store, &keys, Vec::new(), next, segment_end, LOOK_BYTES_MAX)?.batches
                        }
                    };
                    let Some(last) = page.last() else { break };
                    next = last.last_offset + 1;
                    for stored in &page {
                        let batch = stored.batch();
                        let header = Header::parse(&batch).map_err(corrupt)?;
                        if !wanted(header.max_timestamp) {
                            continue;
                        }
                        match find(&batch, log_start).map_err(corrupt)? {
                            Some((offset, timestamp)) if offset >= log_start => {
                                let leader_epoch = header.partition_leader_epoch;
                                return Ok(Some(FoundOffset { offset, timestamp, leader_epoch }));
                            }
                            _ => {}
                        }
                    }
                }
            }
            Ok(None)
        })
        .await?
    }
}

/// In a partition as it is now.
fn place(partition: &Partition, offset: Offset) -> Place {
    Place { id: partition.id, rewrites: partition.rewrites(), offset }
}

/// Whether a read that has `batches` goes on.
fn goes_on(batches: &[StoredBatch], end: Offset, bytes_max: usize) -> bool {
    let bytes = batches.iter().map(StoredBatch::batch_len).sum();
    let ended = batches.last().is_some_and(|last| last.last_offset + 1 >= end);
    !ended && has_room(bytes_max, bytes, batches.len())
}

fn corrupt(error: batch::BatchError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::NotDone("the read was cut short: the broker stops or failed".into()))
}
