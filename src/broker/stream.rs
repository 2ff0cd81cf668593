//! One stream: its partitions, its shards and its settings. Doors hold it as an `Arc` for as long as a request takes;
//! a deleted stream answers [`Stream::is_deleted`] and takes no more appends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use uuid::Uuid;

use crate::broker::gauges::Gauges;
use crate::broker::traffic::{Traffic, Written};
use crate::log::partition::Partition;
use crate::metrics::StreamMetrics;
use crate::model::attributes::{Attributes, Transition};
use crate::model::ids::{Offset, PartitionIndex, ShardOrdinal, StreamId};
use crate::model::settings::{Overrides, StreamSettings};
use crate::model::shard::Lineage;

pub struct Stream {
    pub id: StreamId,
    pub name: Arc<str>,
    /// Kafka's topic id.
    pub topic_id: Uuid,
    /// How many replicas were asked for; one is kept. `min.insync.replicas` is measured by it.
    pub claimed_replicas: i16,
    pub metrics: StreamMetrics,
    pub(super) state: RwLock<State>,
    pub(super) gauges: Gauges,
    pub(super) traffic: Traffic,
    deleted: AtomicBool,
}

/// What [`Broker::change_stream`](super::Broker::change_stream) changes as one. Read by appends from choosing a leader
/// epoch to queueing the batch, so that none straddles a change.
pub(super) struct State {
    pub lineage: Arc<Lineage>,
    pub attributes: Arc<Attributes>,
    /// Settings given for this stream, by their Kafka names.
    pub overrides: Overrides,
    pub settings: Arc<StreamSettings>,
    pub partitions: Vec<Arc<Partition>>,
    /// Of each partition: its last generation's, kept beside the lineage for the append path.
    pub leader_epochs: Vec<i32>,
    /// Of each partition: its last generation, kept for the same reason.
    pub last_shards: Vec<LastShard>,
    /// Of each partition: what was appended to it.
    pub written: Vec<Written>,
}

#[derive(Clone, Copy)]
pub(super) struct LastShard {
    pub ordinal: ShardOrdinal,
    pub start_offset: Offset,
}

impl State {
    pub fn new(
        lineage: Lineage,
        attributes: Attributes,
        overrides: Overrides,
        settings: Arc<StreamSettings>,
        partitions: Vec<Arc<Partition>>,
    ) -> State {
        let (lineage, attributes) = (Arc::new(lineage), Arc::new(attributes));
        let mut state = State {
            lineage,
            attributes,
            overrides,
            settings,
            partitions,
            leader_epochs: Vec::new(),
            last_shards: Vec::new(),
            written: Vec::new(),
        };
        state.refresh_leader_epochs();
        state
    }

    pub fn refresh_leader_epochs(&mut self) {
        let mut shards = vec![LastShard { ordinal: ShardOrdinal(0), start_offset: 0 }; self.partitions.len()];
        // Ascending by ordinal, so that a partition's last generation wins.
        for shard in self.lineage.shards() {
            let at = shard.partition.0 as usize;
            if let Some(last) = shards.get_mut(at) {
                *last = LastShard { ordinal: shard.ordinal, start_offset: shard.start_offset };
            }
        }
        self.leader_epochs = self.lineage.leader_epochs();
        self.last_shards = shards;
        self.written.resize_with(self.partitions.len(), Written::default);
    }

    /// That was appended to a partition; `bytes` as the shard's limits count them.
    pub fn count_written(&self, index: PartitionIndex, records: u64, bytes: u64) {
        if let Some(written) = self.written.get(index.0 as usize) {
            written.count(records, bytes);
        }
    }
}

impl Stream {
    pub(super) fn new(
        id: StreamId,
        name: Arc<str>,
        topic_id: Uuid,
        claimed_replicas: i16,
        metrics: StreamMetrics,
        state: State,
        traffic: Traffic,
    ) -> Stream {
        let deleted = AtomicBool::new(false);
        Stream {
            id,
            name,
            topic_id,
            claimed_replicas,
            metrics,
            state: RwLock::new(state),
            gauges: Gauges::default(),
            traffic,
            deleted,
        }
    }

    pub fn partition_count(&self) -> u32 {
        self.state.read().partitions.len() as u32
    }

    pub fn partition(&self, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.state.read().partitions.get(index.0 as usize).cloned()
    }

    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.state.read().partitions.clone()
    }

    pub fn settings(&self) -> Arc<StreamSettings> {
        self.state.read().settings.clone()
    }

    /// Settings given for this stream, by their Kafka names.
    pub fn overrides(&self) -> Overrides {
        self.state.read().overrides.clone()
    }

    pub fn leader_epoch(&self, index: PartitionIndex) -> Option<i32> {
        self.state.read().leader_epochs.get(index.0 as usize).copied()
    }

    /// Of every partition, in their order.
    pub fn leader_epochs(&self) -> Vec<i32> {
        self.state.read().leader_epochs.clone()
    }

    /// The largest epoch at or below `epoch` and where it ends; see [`Lineage::end_offset_for_epoch`].
    pub fn end_offset_for_epoch(&self, index: PartitionIndex, epoch: i32) -> Option<(i32, Offset)> {
        let state = self.state.read();
        let partition = state.partitions.get(index.0 as usize)?;
        Some(state.lineage.end_offset_for_epoch(index, epoch, partition.end_offset()))
    }

    /// The shards as they are now.
    pub fn lineage(&self) -> Arc<Lineage> {
        self.state.read().lineage.clone()
    }

    pub fn attributes(&self) -> Arc<Attributes> {
        self.state.read().attributes.clone()
    }

    /// Whether its deletion has begun: it can be read and written until that is carried out.
    pub fn is_deleting(&self) -> bool {
        self.state.read().attributes.passing.is_some_and(|passing| passing.transition == Transition::Deleting)
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        for partition in self.partitions() {
            partition.mark_deleted();
        }
    }
}
