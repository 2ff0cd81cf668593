//! Records and offsets out. What memory holds is answered at once; what stands in the store is read on a thread that
//! may block.

use std::sync::Arc;

use crate::broker::Broker;
use crate::log::partition::{Hot, Partition, ReadError};
use crate::log::tail::StoredBatch;
use crate::model::batch::{self, Header};
use crate::model::ids::Offset;
use crate::store::StoreError;

/// A look for one offset reads this many bytes at a time.
const LOOK_BYTES_MAX: usize = 4 << 20;

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
            Hot::Cold => {
                let (store, keys, partition) = (self.store.clone(), self.keys.clone(), partition.clone());
                let (id, ahead) = (partition.id, self.ahead.take(partition.id, offset));
                let read =
                    blocking(move || partition.read_cold(&*store, &keys, ahead, offset, end, bytes_max)).await??;
                read.ahead.into_iter().for_each(|batch| self.ahead.hold(id, batch));
                Ok(read.batches)
            }
        }
    }

    /// For the next who reads on at the first record of `batch`, which was read and is not given out. What is sealed at rest
    /// is not kept open.
    pub fn keep_ahead(&self, partition: &Partition, batch: StoredBatch) {
        if !batch.is_sealed_at_rest() {
            self.ahead.hold(partition.id, batch);
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
                            partition.read_cold(&*store, &keys, None, next, segment_end, LOOK_BYTES_MAX)?.batches
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

fn corrupt(error: batch::BatchError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::NotDone("the read was cut short: the broker stops or failed".into()))
}
