//! One stream: its partitions, its shards and its settings. Doors hold it as an `Arc` for as long as a request takes;
//! a deleted stream answers [`Stream::is_deleted`] and takes no more appends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::watch;
use uuid::Uuid;

use crate::broker::gauges::Gauges;
use crate::broker::traffic::{Traffic, Written};
use crate::log::partition::Partition;
use crate::metrics::StreamMetrics;
use crate::model::attributes::{Attributes, Transition};
use crate::model::ids::{Offset, PartitionIndex, StreamId};
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
    changed: watch::Sender<()>,
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
    /// Of each partition: what was appended to it.
    pub written: Vec<Written>,
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
        let written = partitions.iter().map(|_| Written::default()).collect();
        State { lineage, attributes, overrides, settings, partitions, written }
    }

    pub fn add_partition(&mut self, partition: Arc<Partition>) {
        self.partitions.push(partition);
        self.written.push(Written::default());
    }

    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(index.0 as usize)
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
        metrics.enable_shard_level(&state.attributes.shard_metrics);
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
            changed: watch::Sender::new(()),
        }
    }

    pub fn partition_count(&self) -> u32 {
        self.state.read().partitions.len() as u32
    }

    pub fn partition(&self, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.state.read().partition(index).cloned()
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

    /// The partition's last generation's, which a dormant partition keeps.
    pub fn leader_epoch(&self, index: PartitionIndex) -> Option<i32> {
        self.state.read().lineage.leader_epoch(index)
    }

    /// Of every partition, in their order.
    pub fn leader_epochs(&self) -> Vec<i32> {
        self.state.read().lineage.leader_epochs()
    }

    /// The largest epoch at or below `epoch` and where it ends; see [`Lineage::end_offset_for_epoch`].
    pub fn end_offset_for_epoch(&self, index: PartitionIndex, epoch: i32) -> Option<(i32, Offset)> {
        let state = self.state.read();
        let partition = state.partition(index)?;
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

    /// Wakes when the stream was changed: its shards, its attributes, its settings; and when it is deleted.
    pub fn watch_changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn note_change(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.note_change();
        for partition in self.partitions() {
            partition.mark_deleted();
        }
    }
}
