//! A stream is changed: its attributes, its settings, its shards. Doors call [`Broker::change_stream`]; what they decide
//! from and what they change is a [`Draft`], so that nothing is applied of a change that is refused half-way.
//!
//! A change is applied under the stream's write lock and queued before that is released. Appends hold the read lock from
//! choosing the shard to queueing the batch: each stands, in memory and in the store, wholly before a change or after it.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::holders::{Move, moves};
use super::{CatalogError, StreamRecord, empty_partition, json};
use crate::broker::retention::expiry;
use crate::broker::stream::State;
use crate::broker::{Broker, Stream, durable};
use crate::log::partition::Partition;
use crate::log::writer::Outcome;
use crate::model::attributes::Attributes;
use crate::model::ids::{Offset, PartitionId, PartitionIndex, ShardOrdinal};
use crate::model::settings::{Overrides, SettingError, StreamSettings};
use crate::model::shard::{Children, Lineage, LineageError, SplitAt};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// A stream as it is to be. No append comes between what is read here and what becomes of it.
pub struct Draft<'a> {
    pub attributes: Attributes,
    /// Settings given for this stream, by their Kafka names; valid ones.
    pub overrides: Overrides,
    pub lineage: Lineage,
    pub now_ms: i64,
    /// In effect before the change.
    pub settings: &'a StreamSettings,
    partitions: &'a [Arc<Partition>],
}

impl Draft<'_> {
    /// Where the partition's log ends: 0 for one that is yet to be made.
    pub fn end_of(&self, index: PartitionIndex) -> Offset {
        end_of(self.partitions, index)
    }

    /// Closes a shard and opens its two children.
    pub fn split(&mut self, ordinal: ShardOrdinal, at: SplitAt) -> Result<Children, LineageError> {
        let partition = self.lineage.shard(ordinal).map(|shard| shard.partition);
        let end_offset = partition.map_or(0, |index| self.end_of(index));
        self.lineage.split(ordinal, at, end_offset, self.now_ms)
    }

    /// Closes two shards whose hash keys meet and opens one that owns the keys of both; returns that one.
    pub fn merge(&mut self, a: ShardOrdinal, b: ShardOrdinal) -> Result<ShardOrdinal, LineageError> {
        self.lineage.merge(a, b, |index| end_of(self.partitions, index), self.now_ms)
    }

    /// Splits and merges shards until `target` divide the hash keys evenly.
    pub fn scale(&mut self, target: NonZeroU32) -> Result<(), LineageError> {
        self.lineage.scale(target, |index| end_of(self.partitions, index), self.now_ms)
    }

    /// Splits shards until `target` are open.
    pub fn add_partitions(&mut self, target: u32) -> Result<Vec<Children>, LineageError> {
        self.lineage.add_partitions(target, |index| end_of(self.partitions, index), self.now_ms)
    }
}

/// A change that is applied in memory and on its way into the store.
struct Queued<T> {
    value: T,
    done: oneshot::Receiver<Outcome>,
    /// Set when the retention was changed: records appended before this go with the change.
    expired_before_ms: Option<i64>,
}

fn end_of(partitions: &[Arc<Partition>], index: PartitionIndex) -> Offset {
    partitions.get(index.0 as usize).map_or(0, |partition| partition.next_offset())
}

impl Broker {
    /// Changes a stream as one: what `change` makes of the draft is applied if it returns Ok, and this returns when that
    /// is durable. `change` runs under the stream's lock: what it wants to know of this stream it asks the draft, never
    /// the stream. Who makes the retention longer calls [`Broker::expire`] before.
    pub async fn change_stream<T, E: From<CatalogError>>(
        &self,
        stream: &Stream,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Queued { value, done, expired_before_ms } = self.queue_change(stream, change)?;
        durable(done).await.map_err(CatalogError::Store)?;
        if let Some(before_ms) = expired_before_ms {
            self.expire_before(stream, before_ms).await.map_err(CatalogError::Store)?;
        }
        Ok(value)
    }

    fn queue_change<T, E: From<CatalogError>>(
        &self,
        stream: &Stream,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<Queued<T>, E> {
        let _changes = self.catalog.changes.lock();
        if stream.is_deleted() {
            return Err(CatalogError::NotFound.into());
        }
        let mut state = stream.state.write();
        let mut draft = Draft {
            attributes: Attributes::clone(&state.attributes),
            overrides: state.overrides.clone(),
            lineage: Lineage::clone(&state.lineage),
            now_ms: self.clock.now_ms(),
            settings: &state.settings,
            partitions: &state.partitions,
        };
        draft.lineage.extend_dormant(|index| end_of(&state.partitions, index));
        let value = change(&mut draft)?;
        let Draft { attributes, overrides, lineage, now_ms, .. } = draft;
        stream.metrics.enable_shard_level(&attributes.shard_metrics);
        state.attributes = Arc::new(attributes);
        let settings = self.catalog.effective(&overrides);
        // Under a longer retention nothing comes back that had expired under the old one.
        let expired_before_ms = (settings.retention_ms != state.settings.retention_ms)
            .then(|| expiry(&state.settings, now_ms).max(expiry(&settings, now_ms)))
            .flatten();
        state.settings = settings;
        state.overrides = overrides;
        for index in state.partitions.len() as u32..lineage.partitions() {
            let id = PartitionId { stream: stream.id, index: PartitionIndex(index) };
            state.add_partition(empty_partition(id));
        }
        let moves = moves(&state.lineage, &lineage, &state.partitions);
        state.lineage = Arc::new(lineage);
        let mut batch = Batch::default();
        let moving: Vec<_> = moves.iter().map(|moved| moved.begin(&mut batch)).collect();
        let done = self.queue_stream(stream, &state, batch);
        drop(moving);
        moves.iter().for_each(Move::end);
        stream.note_change();
        self.catalog.note_change();
        Ok(Queued { value, done, expired_before_ms })
    }

    /// What `work` makes of the stream as it stands, while nothing can change it; `None` once it is deleted. For what is
    /// kept beside the stream's record: what `work` queues comes before a deletion or not at all.
    pub(in crate::broker) fn while_unchanged<T>(&self, stream: &Stream, work: impl FnOnce(&State) -> T) -> Option<T> {
        let _changes = self.catalog.changes.lock();
        if stream.is_deleted() {
            return None;
        }
        Some(work(&stream.state.read()))
    }

    /// Queues the stream's record as the last of `batch`.
    fn queue_stream(&self, stream: &Stream, state: &State, mut batch: Batch) -> oneshot::Receiver<Outcome> {
        let record = StreamRecord {
            name: stream.name.to_string(),
            topic_id: stream.topic_id,
            claimed_replicas: stream.claimed_replicas,
            overrides: state.overrides.clone(),
            attributes: Some(Attributes::clone(&state.attributes)),
            lineage: Lineage::clone(&state.lineage),
        };
        batch.put(Family::Meta, Key::Stream(stream.id).encode(), json(&record));
        self.writer.commit_meta(batch)
    }

    /// Splits shards until `target` are open.
    pub async fn add_partitions(&self, stream: &Stream, target: u32) -> Result<(), CatalogError> {
        self.change_stream(stream, |draft| Ok(draft.add_partitions(target).map(drop)?)).await
    }

    /// Replaces a stream's own settings by what `change` makes of them.
    pub async fn alter_stream(
        &self,
        stream: &Stream,
        change: impl FnOnce(&Overrides) -> Result<Overrides, SettingError>,
    ) -> Result<(), CatalogError> {
        // What has expired must be gone before the retention may become longer.
        self.expire(stream).await?;
        self.change_stream(stream, |draft| {
            draft.overrides = change(&draft.overrides)?;
            Ok(())
        })
        .await
    }
}
