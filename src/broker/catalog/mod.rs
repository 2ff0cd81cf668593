//! Which streams there are. In memory by name and by topic id; in `Meta` as JSON:
//!
//! | key | value |
//! |---|---|
//! | [`Key::Cluster`] | `cluster_id`: UUID, made at the first start; `next_stream_id`: never reused, so that what a deleted stream left in the log is never taken for another's |
//! | [`Key::Stream`] | `name`, `topic_id`, `claimed_replicas`, `overrides` (settings by Kafka name), `attributes` (`model::attributes`), `lineage` (`model::shard`) |
//! | [`Key::BrokerSettings`] | settings of the broker that were altered while it ran, by Kafka name |
//! | [`Key::NextProducerId`] | `u64`, big-endian: producer ids from here on were never handed out |
//!
//! - [`change`]: one stream is changed, its shards too
//! - [`deletion`]: one stream goes, at once or in a while
//! - [`holders`]: whose log takes what is addressed to a partition

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::broker::stream::State;
use crate::broker::traffic::{History, Traffic};
use crate::broker::{Broker, Stream, durable};
use crate::clock::Clock;
use crate::log::partition::Partition;
use crate::log::producers::Producers;
use crate::log::recover;
use crate::log::transactions::Transactions;
use crate::log::writer::{Outcome, Writer};
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::ids::{PartitionId, PartitionIndex, StreamId};
use crate::model::settings::{BrokerSettings, BrokerValues, DynamicSettings, Overrides, SettingError, StreamSettings};
use crate::model::shard::{Lineage, LineageError};
use crate::store::keys::Key;
use crate::store::{Batch, Family, Store, StoreError};

mod change;
mod deletion;
mod holders;

pub use change::Draft;

/// Producer ids are taken from the store this many at a time: those not handed out before a restart are lost.
const PRODUCER_ID_BLOCK: i64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("stream {0} exists already")]
    Exists(String),
    #[error("there is no such stream")]
    NotFound,
    #[error(transparent)]
    Lineage(#[from] LineageError),
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A stream to be made.
pub struct NewStream {
    pub name: String,
    pub partitions: NonZeroU32,
    pub claimed_replicas: i16,
    /// Valid settings by their Kafka names.
    pub overrides: Overrides,
    /// Its shards are as old as these are.
    pub attributes: Attributes,
}

/// The value of [`Key::Cluster`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterRecord {
    #[serde(with = "uuid_text")]
    pub cluster_id: Uuid,
    pub next_stream_id: u32,
}

/// The value of a [`Key::Stream`].
#[derive(Debug, Serialize, Deserialize)]
pub struct StreamRecord {
    pub name: String,
    #[serde(with = "uuid_text")]
    pub topic_id: Uuid,
    pub claimed_replicas: i16,
    pub overrides: Overrides,
    /// Absent in what was stored before streams had any.
    pub attributes: Option<Attributes>,
    pub lineage: Lineage,
}

impl ClusterRecord {
    pub fn decode(value: &[u8]) -> Result<ClusterRecord, StoreError> {
        parse(value)
    }
}

impl StreamRecord {
    pub fn decode(value: &[u8]) -> Result<StreamRecord, StoreError> {
        parse(value)
    }
}

/// What the store holds of the catalogue.
pub(super) struct Records {
    cluster: Option<ClusterRecord>,
    streams: Vec<(StreamId, StreamRecord)>,
    traffic: HashMap<StreamId, History>,
    dynamic: DynamicSettings,
    next_producer_id: i64,
}

pub(super) struct Catalog {
    cluster_id: Uuid,
    by_name: DashMap<Arc<str>, Arc<Stream>>,
    by_topic_id: DashMap<Uuid, Arc<Stream>>,
    settings: RwLock<Arc<BrokerSettings>>,
    /// Counts changes of which streams there are, and of streams themselves.
    version: AtomicU64,
    /// Counts deletions that have begun and that were carried out.
    deletions: watch::Sender<u64>,
    /// Held while a change is decided, applied in memory and queued.
    changes: Mutex<Changes>,
}

struct Changes {
    cluster: ClusterRecord,
    next_producer_id: i64,
    /// Ids below this are on disk as handed out.
    producer_ids_until: i64,
}

pub(super) fn load(store: &dyn Store) -> Result<Records, StoreError> {
    let cluster = store.get(Family::Meta, &Key::Cluster.encode())?.map(|value| parse(&value)).transpose()?;
    let dynamic = store.get(Family::Meta, &Key::BrokerSettings.encode())?.map(|value| parse(&value)).transpose()?;
    let next_producer_id = match store.get(Family::Meta, &Key::NextProducerId.encode())? {
        Some(value) => i64::from_be_bytes(value[..].try_into().map_err(|_| corrupt("the next producer id"))?),
        None => 0,
    };
    let mut streams = Vec::new();
    recover::for_each_meta(store, b"s", |key, value| {
        streams.push((stream_of(&key)?, parse(&value)?));
        Ok(())
    })?;
    let mut traffic = HashMap::new();
    recover::for_each_meta(store, b"T", |key, value| {
        traffic.insert(stream_of(&key)?, parse(&value)?);
        Ok(())
    })?;
    Ok(Records { cluster, streams, traffic, dynamic: dynamic.unwrap_or_default(), next_producer_id })
}

/// The stream that a key of one letter and a stream's number is about.
pub fn stream_of(key: &[u8]) -> Result<StreamId, StoreError> {
    let id = key.get(1..).and_then(|id| id.try_into().ok()).ok_or_else(|| corrupt("a stream's key"))?;
    Ok(StreamId(u32::from_be_bytes(id)))
}

impl Records {
    pub fn partition_ids(&self) -> Vec<PartitionId> {
        let of = |(stream, record): &(StreamId, StreamRecord)| {
            let stream = *stream;
            (0..record.lineage.partitions()).map(move |index| PartitionId { stream, index: PartitionIndex(index) })
        };
        self.streams.iter().flat_map(of).collect()
    }
}

impl Catalog {
    pub fn new(
        mut records: Records,
        mut partitions: HashMap<PartitionId, Arc<Partition>>,
        values: BrokerValues,
        clock: &Clock,
        metrics: &Metrics,
        writer: &Writer,
    ) -> Catalog {
        let cluster = records.cluster.unwrap_or_else(|| {
            let cluster = ClusterRecord { cluster_id: clock.random_uuid(), next_stream_id: 1 };
            let mut batch = Batch::default();
            batch.put(Family::Meta, Key::Cluster.encode(), json(&cluster));
            // Whatever is made durable later is so only after this.
            drop(writer.commit_meta(batch));
            cluster
        });
        let catalog = Catalog {
            cluster_id: cluster.cluster_id,
            by_name: DashMap::new(),
            by_topic_id: DashMap::new(),
            settings: RwLock::new(Arc::new(BrokerSettings::new(values, records.dynamic))),
            version: AtomicU64::new(0),
            deletions: watch::Sender::new(0),
            changes: Mutex::new(Changes {
                cluster,
                next_producer_id: records.next_producer_id,
                producer_ids_until: records.next_producer_id,
            }),
        };
        for (id, record) in records.streams {
            let logs: Vec<_> = (0..record.lineage.partitions())
                .map(|index| PartitionId { stream: id, index: PartitionIndex(index) })
                .map(|id| partitions.remove(&id).unwrap_or_else(|| empty_partition(id)))
                .collect();
            holders::restore(&record.lineage, &logs);
            let settings = catalog.effective(&record.overrides);
            let created_ms = record.lineage.shards().first().map_or(0, |shard| shard.created_ms);
            let attributes = record.attributes.unwrap_or_else(|| Attributes::new(created_ms));
            let state = State::new(record.lineage, attributes, record.overrides, settings, logs);
            let name: Arc<str> = record.name.into();
            let handles = metrics.stream(&name);
            let traffic = Traffic::remembered(records.traffic.remove(&id));
            let stream = Stream::new(id, name, record.topic_id, record.claimed_replicas, handles, state, traffic);
            catalog.insert(Arc::new(stream));
        }
        catalog
    }

    fn insert(&self, stream: Arc<Stream>) {
        self.by_topic_id.insert(stream.topic_id, stream.clone());
        self.by_name.insert(stream.name.clone(), stream);
    }

    /// To be called after what changed can be seen.
    fn note_change(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn effective(&self, overrides: &Overrides) -> Arc<StreamSettings> {
        Arc::new(StreamSettings::effective(overrides, &self.settings.read()))
    }
}

impl Broker {
    pub fn cluster_id(&self) -> Uuid {
        self.catalog.cluster_id
    }

    /// A number that is another one after streams came, went, or changed: read before what it is about.
    pub fn catalog_version(&self) -> u64 {
        self.catalog.version.load(Ordering::Acquire)
    }

    /// The stream `name`, unless its deletion has begun.
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.stream_in_any_state(name).filter(|stream| !stream.is_deleting())
    }

    /// The same, for those who are shown a stream until its deletion is carried out.
    pub fn stream_in_any_state(&self, name: &str) -> Option<Arc<Stream>> {
        self.catalog.by_name.get(name).map(|entry| entry.value().clone())
    }

    /// The stream with Kafka's topic id, unless its deletion has begun.
    pub fn stream_by_topic_id(&self, topic_id: Uuid) -> Option<Arc<Stream>> {
        let stream = self.catalog.by_topic_id.get(&topic_id).map(|entry| entry.value().clone());
        stream.filter(|stream| !stream.is_deleting())
    }

    /// All streams whose deletion has not begun, by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        let mut streams = self.streams_in_any_state();
        streams.retain(|stream| !stream.is_deleting());
        streams
    }

    /// All streams by name.
    pub fn streams_in_any_state(&self) -> Vec<Arc<Stream>> {
        let mut streams: Vec<_> = self.catalog.by_name.iter().map(|entry| entry.value().clone()).collect();
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        streams
    }

    /// The broker's settings as they stand.
    pub fn settings(&self) -> Arc<BrokerSettings> {
        self.catalog.settings.read().clone()
    }

    /// Makes a stream; returns when it is durable.
    pub async fn create_stream(&self, new: NewStream) -> Result<Arc<Stream>, CatalogError> {
        self.create_stream_if(new, |_| Ok(())).await
    }

    /// The same if `admit` says so of all streams there are, in whatever state. Nothing changes in between.
    pub async fn create_stream_if<E: From<CatalogError>>(
        &self,
        new: NewStream,
        admit: impl FnOnce(&[Arc<Stream>]) -> Result<(), E>,
    ) -> Result<Arc<Stream>, E> {
        let (stream, done) = self.queue_new_stream(new, admit)?;
        durable(done).await.map_err(CatalogError::Store)?;
        Ok(stream)
    }

    fn queue_new_stream<E: From<CatalogError>>(
        &self,
        new: NewStream,
        admit: impl FnOnce(&[Arc<Stream>]) -> Result<(), E>,
    ) -> Result<(Arc<Stream>, oneshot::Receiver<Outcome>), E> {
        let mut changes = self.catalog.changes.lock();
        if self.catalog.by_name.contains_key(&*new.name) {
            return Err(CatalogError::Exists(new.name).into());
        }
        admit(&self.streams_in_any_state())?;
        let settings = self.catalog.effective(&new.overrides);
        let id = StreamId(changes.cluster.next_stream_id);
        changes.cluster.next_stream_id += 1;
        let record = StreamRecord {
            name: new.name,
            topic_id: self.clock.random_uuid(),
            claimed_replicas: new.claimed_replicas,
            overrides: new.overrides,
            lineage: Lineage::uniform(new.partitions, new.attributes.created_ms),
            attributes: Some(new.attributes.clone()),
        };
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::Cluster.encode(), json(&changes.cluster));
        batch.put(Family::Meta, Key::Stream(id).encode(), json(&record));
        let done = self.writer.commit_meta(batch);
        let partitions = (0..new.partitions.get())
            .map(|index| empty_partition(PartitionId { stream: id, index: PartitionIndex(index) }))
            .collect();
        let name: Arc<str> = record.name.into();
        let handles = self.metrics.stream(&name);
        let state = State::new(record.lineage, new.attributes, record.overrides, settings, partitions);
        let traffic = Traffic::default();
        let stream = Stream::new(id, name, record.topic_id, record.claimed_replicas, handles, state, traffic);
        let stream = Arc::new(stream);
        self.catalog.insert(stream.clone());
        self.catalog.note_change();
        Ok((stream, done))
    }

    /// Replaces the settings that were altered while the broker ran by what `change` makes of them. Streams follow at
    /// once.
    pub async fn alter_broker(
        &self,
        change: impl FnOnce(&DynamicSettings) -> Result<DynamicSettings, SettingError>,
    ) -> Result<(), CatalogError> {
        let done = {
            let _changes = self.catalog.changes.lock();
            let now = self.settings();
            let altered = Arc::new(now.with_dynamic(change(now.dynamic())?));
            let mut batch = Batch::default();
            batch.put(Family::Meta, Key::BrokerSettings.encode(), json(altered.dynamic()));
            *self.catalog.settings.write() = altered;
            for stream in self.streams_in_any_state() {
                let mut state = stream.state.write();
                state.settings = self.catalog.effective(&state.overrides);
            }
            self.writer.commit_meta(batch)
        };
        Ok(durable(done).await?)
    }

    /// A producer id that no producer ever had.
    pub async fn new_producer_id(&self) -> Result<i64, StoreError> {
        let (id, done) = {
            let mut changes = self.catalog.changes.lock();
            let id = changes.next_producer_id;
            changes.next_producer_id += 1;
            let done = (id >= changes.producer_ids_until).then(|| {
                changes.producer_ids_until = id + PRODUCER_ID_BLOCK;
                let mut batch = Batch::default();
                let until = Bytes::copy_from_slice(&changes.producer_ids_until.to_be_bytes());
                batch.put(Family::Meta, Key::NextProducerId.encode(), until);
                self.writer.commit_meta(batch)
            });
            (id, done)
        };
        match done {
            Some(done) => durable(done).await.map(|()| id),
            // The block's commit may still be under way, but whatever this producer makes durable queues behind it.
            None => Ok(id),
        }
    }

    /// Returns when every change that shows by now, of the catalogue or of a log's start, is durable.
    pub(super) async fn settled(&self) -> Result<(), StoreError> {
        let done = {
            // A deletion shows a moment before it is queued, under this lock.
            let _changes = self.catalog.changes.lock();
            self.writer.commit_meta(Batch::default())
        };
        durable(done).await
    }
}

/// UUIDs in JSON: the usual 36 characters.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub fn serialize<S: Serializer>(uuid: &Uuid, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(uuid)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(input: D) -> Result<Uuid, D::Error> {
        Uuid::try_parse(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

fn empty_partition(id: PartitionId) -> Arc<Partition> {
    Arc::new(Partition::new(id, 0, Vec::new(), Producers::default(), Transactions::default()))
}

fn json(record: &impl Serialize) -> Bytes {
    // Maps with string keys and plain structs always encode.
    serde_json::to_vec(record).unwrap_or_default().into()
}

fn parse<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Corrupt(format!("a record of the catalogue: {error}")))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}
