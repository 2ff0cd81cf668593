//! Records in. A record batch is validated outside every lock, gets its place in the log under the partition's, and is
//! answered when the writer has committed it: two stages, so that a connection can go on meanwhile.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::broker::gauges::Appending;
use crate::broker::{Broker, Stream, durable};
use crate::log::partition::{self, Appended, NewBatch};
use crate::log::producers::SequenceError;
use crate::log::writer::{Outcome, RollRules};
use crate::model::batch::{self, BatchError, Rules};
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::settings::TimestampType;
use crate::store::crypt::KeyError;
use crate::store::{Batch, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("no such partition")]
    NoSuchPartition,
    /// `min.insync.replicas` asks for more replicas than the stream claims to have.
    #[error("{min_insync} replicas are required, there are {claimed}")]
    NotEnoughReplicas { min_insync: i32, claimed: i16 },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The stream is encrypted, and its key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// On what terms a producer sends a batch.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Every replica is to have it before the answer (acks=all).
    pub all_replicas: bool,
    /// False for a client too old to read it.
    pub zstd_allowed: bool,
    /// The batch may be part of a transaction. Whoever says so has made sure that the producer's transaction is open and
    /// includes the partition, and that it stays so until the batch is queued.
    pub transactional: bool,
}

/// A producer's that is in no transaction and waits for no replica.
impl Default for Terms {
    fn default() -> Terms {
        Terms { all_replicas: false, zstd_allowed: true, transactional: false }
    }
}

/// Where the records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedAt {
    /// None where the partition is dormant: the records stand in the log of the one that absorbed it.
    pub base_offset: Option<Offset>,
    /// Set when the broker's clock replaced the records' timestamps.
    pub log_append_ms: Option<i64>,
    pub log_start: Offset,
}

/// A batch that has its place; [`Ticket::committed`] tells when it is kept.
pub struct Ticket {
    partition: std::sync::Arc<partition::Partition>,
    base_offset: Option<Offset>,
    log_append_ms: Option<i64>,
    throttle_ms: i64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Broker {
    /// Validates and queues what a producer sent for one partition: exactly one record batch. What is sent to a dormant
    /// partition goes to the shard that absorbed it.
    pub fn append(
        &self,
        stream: &Stream,
        index: PartitionIndex,
        records: &Bytes,
        terms: Terms,
    ) -> Result<Ticket, AppendError> {
        let settings = stream.settings();
        if terms.all_replicas && settings.min_insync_replicas > i32::from(stream.claimed_replicas) {
            let (min_insync, claimed) = (settings.min_insync_replicas, stream.claimed_replicas);
            return Err(AppendError::NotEnoughReplicas { min_insync, claimed });
        }
        let now_ms = self.clock.now_ms();
        let rules = Rules { transactional: terms.transactional, ..Rules::new(&settings, now_ms) };
        let one = batch::single_batch(records, terms.zstd_allowed)?;
        let validated = batch::validate(&one, &rules)?;
        let bytes = validated.rewritten.as_deref().unwrap_or(&one);
        let log_append_time = rules.timestamp_type == TimestampType::LogAppendTime;
        let roll = RollRules { segment_bytes: settings.segment_bytes.max(0) as u64, segment_ms: settings.roll_ms() };
        // Held through the append: a split must not come between the epoch and the offset.
        let state = stream.state.read();
        let partition = state.partition(index).ok_or(AppendError::NoSuchPartition)?;
        let shard = state.lineage.absorbing(index).ok_or(AppendError::NoSuchPartition)?;
        let holder = state.partition(shard.partition).ok_or(AppendError::NoSuchPartition)?;
        let elsewhere = shard.partition != index;
        let data_key = self.data_key(stream, &state.attributes)?;
        let leader_epoch = shard.leader_epoch;
        let new = NewBatch { bytes, marker: None, leader_epoch, log_append_time, roll, data_key: data_key.as_deref() };
        let mut throttle_ms = 0;
        let appended = match elsewhere {
            true => partition.append_elsewhere(holder, &self.writer, new, now_ms),
            false => partition.append(&self.writer, new, now_ms),
        };
        let (base_offset, append_ms, outcome) = match appended? {
            Appended::Queued { base_offset, append_ms, done } => {
                let appending = Appending {
                    policy: settings.limits,
                    shard: shard.ordinal,
                    lineage: &state.lineage,
                    record_kib_max: state.attributes.record_kib_max,
                    metrics: &stream.metrics,
                };
                let (records, size) = (validated.records_count as u64, bytes.len() as u64);
                stream.metrics.incoming(shard.ordinal, records, size);
                state.count_written(shard.partition, records, size);
                throttle_ms = stream.gauges.charge_append(&appending, records, size, self.clock.tick_ms());
                ((!elsewhere).then_some(base_offset), append_ms, done)
            }
            // Kept once the first one is, and the writer answers in order: an empty commit behind it shares its fate.
            Appended::Duplicate { base_offset, append_ms } => {
                (base_offset, append_ms, self.writer.commit_meta(Batch::default()))
            }
        };
        Ok(Ticket {
            partition: partition.clone(),
            base_offset,
            log_append_ms: log_append_time.then_some(append_ms),
            throttle_ms,
            outcome,
        })
    }
}

impl Ticket {
    /// How long the writer is to pause, because the shard's limits are enforced and this went beyond them.
    pub fn throttle_ms(&self) -> i64 {
        self.throttle_ms
    }

    /// Returns when the batch is kept, as `--durability` means it.
    pub async fn committed(self) -> Result<AppendedAt, AppendError> {
        durable(self.outcome).await?;
        Ok(AppendedAt {
            base_offset: self.base_offset,
            log_append_ms: self.log_append_ms,
            log_start: self.partition.log_start(),
        })
    }
}

impl From<partition::AppendError> for AppendError {
    fn from(error: partition::AppendError) -> AppendError {
        match error {
            partition::AppendError::Sequence(error) => AppendError::Sequence(error),
            partition::AppendError::Deleted => AppendError::NoSuchPartition,
            partition::AppendError::Batch(error) => AppendError::Batch(error),
            partition::AppendError::Store(error) => AppendError::Store(error),
        }
    }
}
