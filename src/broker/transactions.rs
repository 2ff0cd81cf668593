//! Transactions end: in every partition that a producer has written to, and in what the coordinator knows of it, as one.
//!
//! Called by the transaction coordinator, which decides that a transaction ends, lets nobody write into it from then on,
//! and knows which partitions are part of it. What a log knows of open and aborted transactions is `log::transactions`.
//!
//! A marker goes where a producer's batch for the partition would go now: into its own log, or while it is dormant into
//! the one of the partition that absorbed it. What was written before shards were merged or split may stand in other logs
//! of the stream, and each in which the producer's transaction is still open gets a marker of its own.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::broker::stream::State;
use crate::broker::{Broker, Stream};
use crate::log::partition::{AppendError, NewBatch, Partition};
use crate::log::writer::{Outcome, RollRules};
use crate::model::batch::Marker;
use crate::model::ids::PartitionIndex;
use crate::model::settings::TimestampType;
use crate::store::Batch;

/// A transaction that ends.
pub struct End {
    pub producer_id: i64,
    /// Whoever writes with an older one is fenced, in these partitions, whether it has written there or not.
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    pub commit: bool,
    /// Those of streams that are deleted, and those that there are not, are passed over.
    pub partitions: Vec<(Arc<Stream>, PartitionIndex)>,
}

impl Broker {
    /// Queues the markers of a transaction in all of its partitions, and `meta`, for one commit: all of it happens or
    /// nothing. Answered when that is durable. Nobody may write into the transaction meanwhile: the caller holds what it
    /// guards the transaction with.
    pub fn end_transaction(&self, end: End, meta: Batch) -> oneshot::Receiver<Outcome> {
        let End { producer_id, producer_epoch, coordinator_epoch, commit, mut partitions } = end;
        let marker = Marker { producer_id, producer_epoch, coordinator_epoch, commit };
        partitions.sort_by_key(|(stream, index)| (stream.id, *index));
        partitions.dedup_by_key(|(stream, index)| (stream.id, *index));
        let group = self.writer.group();
        for of_stream in partitions.chunk_by(|(one, _), (other, _)| one.id == other.id) {
            if let Some((stream, _)) = of_stream.first() {
                self.mark_stream(stream, of_stream.iter().map(|(_, index)| *index), &marker);
            }
        }
        group.close(meta)
    }

    /// Queues the markers in one stream.
    fn mark_stream(&self, stream: &Stream, indexes: impl Iterator<Item = PartitionIndex>, marker: &Marker) {
        let now_ms = self.clock.now_ms();
        let bytes = marker.batch(now_ms);
        // Held to the last marker: a change of shards must not come between the choice of the log and the marker.
        let state = stream.state.read();
        let settings = &state.settings;
        let new = NewBatch {
            bytes: &bytes,
            marker: Some(marker),
            leader_epoch: 0,
            log_append_time: settings.timestamp_type == TimestampType::LogAppendTime,
            roll: RollRules { segment_bytes: settings.segment_bytes.max(0) as u64, segment_ms: settings.roll_ms() },
            // It tells nothing of any record, and must not fail for want of a key.
            data_key: None,
        };
        for index in indexes {
            self.mark_partition(&state, index, new, marker, now_ms);
        }
        if state.lineage.is_original() {
            return;
        }
        for partition in &state.partitions {
            if partition.is_in_transaction(marker.producer_id) {
                let new = NewBatch { leader_epoch: leader_epoch(&state, partition), ..new };
                passed_over(partition, partition.append_marker(&self.writer, new, marker, now_ms));
            }
        }
    }

    fn mark_partition(&self, state: &State, index: PartitionIndex, new: NewBatch<'_>, marker: &Marker, now_ms: i64) {
        let shard = state.lineage.absorbing(index);
        let holder = shard.and_then(|shard| Some((state.partition(shard.partition)?, shard.leader_epoch)));
        let (Some(partition), Some((holder, leader_epoch))) = (state.partition(index), holder) else { return };
        let new = NewBatch { leader_epoch, ..new };
        let marked = match holder.id == partition.id {
            true => partition.append_marker(&self.writer, new, marker, now_ms),
            false => partition.append_marker_elsewhere(holder, &self.writer, new, marker, now_ms),
        };
        passed_over(partition, marked);
    }
}

/// Of the partition's last generation: it may be dormant by now.
fn leader_epoch(state: &State, partition: &Partition) -> i32 {
    state.lineage.leader_epoch(partition.id.index).unwrap_or_default()
}

/// A stream that is deleted needs no marker.
fn passed_over(partition: &Partition, marked: Result<(), AppendError>) {
    if let Err(error) = marked {
        tracing::debug!(%error, partition = %partition.id, "the end of a transaction was not written");
    }
}
