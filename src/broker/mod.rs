//! What doors call: streams and shards, append, read, wait. No protocol's shapes are named here.
//!
//! - [`catalog`]: which streams there are, kept durably
//! - [`stream`]: one stream: its partitions, shards and settings
//! - [`append`]: records in
//! - [`read`]: records and offsets out
//! - [`transactions`]: what producers wrote as one becomes visible, or never does
//! - [`encryption`]: encryption at rest, started and stopped
//! - [`retention`]: what has been kept for long enough
//! - [`put`], [`shards`]: the same by hash key and by shard
//! - `secret`: what doors seal
//! - [`compaction`]: of the records with one key, the last is kept
//! - [`space`]: disk space given back
//! - [`traffic`]: what is written over time, for on-demand capacity
//! - [`ages`]: when records were appended, for the metrics
//! - [`capacity`]: what a shard takes and gives: token buckets, pure
//! - [`gauges`]: those of a stream's shards, and its policy for what goes beyond
//!
//! A change of the catalogue is decided and applied in memory under one lock, queued to the log's writer before the
//! lock is released, and answered when it is durable. Whoever builds on it meanwhile queues behind it, so nothing
//! durable ever rests on something that is not.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::MasterKey;
use crate::log::ahead::Ahead;
use crate::log::recover;
use crate::log::writer::{Outcome, Writer, WriterOptions, gone};
use crate::metrics::Metrics;
use crate::model::settings::BrokerValues;
use crate::store::crypt::KeyRing;
use crate::store::{Batch, Family, Figures, Page, Scan, Start, Store, StoreError, Volume};

pub mod ages;
pub mod append;
pub mod capacity;
pub mod catalog;
pub mod compaction;
pub mod encryption;
mod gauges;
pub mod put;
pub mod read;
pub mod retention;
mod secret;
pub mod shards;
pub mod space;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod traffic;
pub mod transactions;

pub use append::{AppendError, AppendedAt, Terms, Ticket};
pub use capacity::Verdict;
pub use catalog::CatalogError;
pub use encryption::EncryptionError;
pub use gauges::{PutGauge, ReadPipe};
pub use stream::Stream;
pub use transactions::End;

/// Bytes of values in one page of `Meta`.
const META_PAGE_BYTES: usize = 1 << 20;
/// This part of the memory for recent batches holds what was read from the store and had no room, or ahead of its reader.
const AHEAD_PART: usize = 4;

/// How the broker keeps records.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Answer only when the record is on the disk.
    pub sync: bool,
    /// Bytes of batches in memory, all partitions together: recent ones, and what was read ahead of its reader.
    pub tail_bytes_max: usize,
    /// Bytes that the keys of one compaction take.
    pub compaction_bytes_max: usize,
    /// The broker's settings from the start, which those altered later go before.
    pub values: BrokerValues,
    /// For encryption at rest; the current one first.
    pub master_keys: Vec<MasterKey>,
}

pub struct Broker {
    store: Arc<dyn Store>,
    keys: Arc<KeyRing>,
    ahead: Ahead,
    writer: Writer,
    catalog: catalog::Catalog,
    clock: Clock,
    metrics: Arc<Metrics>,
    secret: secret::Secret,
    rewriting: space::Turn,
    compactor: compaction::Compactor,
}

impl Broker {
    /// Recovers what `store` holds. Blocks.
    pub fn open(
        store: Arc<dyn Store>,
        options: BrokerOptions,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Broker>, StoreError> {
        let keys = Arc::new(KeyRing::new(&options.master_keys, clock.clone()));
        encryption::load_keys(&*store, &keys)?;
        let records = catalog::load(&*store)?;
        let recovered = recover::recover(&*store, &records.partition_ids())?;
        let ahead_bytes_max = options.tail_bytes_max / AHEAD_PART;
        let ahead = Ahead::new(ahead_bytes_max, &metrics);
        let writer_options = WriterOptions {
            epoch: recovered.epoch,
            sync: options.sync,
            tail_bytes_max: options.tail_bytes_max - ahead_bytes_max,
        };
        let writer = Writer::start(store.clone(), writer_options, metrics.clone(), clock.clone())
            .map_err(|error| StoreError::NotDone(error.to_string()))?;
        let catalog = catalog::Catalog::new(records, recovered.partitions, options.values, &clock, &metrics, &writer);
        let secret = secret::load(&*store, &writer, &clock)?;
        let compactor = compaction::Compactor::load(&*store, options.compaction_bytes_max)?;
        let rewriting = space::Turn::default();
        let broker =
            Arc::new(Broker { store, keys, ahead, writer, catalog, clock, metrics, secret, rewriting, compactor });
        broker.warn_of_locked_streams();
        Ok(broker)
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Queues changes of `Meta` that another layer owns (groups and their offsets). Calls are committed in order.
    pub fn commit_meta(&self, batch: Batch) -> oneshot::Receiver<Outcome> {
        self.writer.commit_meta(batch)
    }

    /// Every entry of `Meta` below `prefix`. Blocks: for start-up.
    pub fn scan_meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut entries = Vec::new();
        recover::for_each_meta(&*self.store, prefix, |key, value| {
            entries.push((key, value));
            Ok(())
        })?;
        Ok(entries)
    }

    /// One value of `Meta` that another layer owns. Blocks.
    pub fn get_meta(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(Family::Meta, key)
    }

    /// At most `entries_max` entries of `Meta` from `start` on, below `end`. Blocks.
    pub fn page_of_meta(&self, start: Start, end: Bytes, entries_max: usize) -> Result<Page, StoreError> {
        self.store.scan(&Scan { family: Family::Meta, start, end, entries_max, bytes_max: META_PAGE_BYTES })
    }

    /// Why nothing can be written any more, if so.
    pub fn failure(&self) -> Option<&StoreError> {
        self.writer.failure()
    }

    pub fn figures(&self) -> Figures {
        self.store.figures()
    }

    /// The volume that records are on, where there is one. Blocks.
    pub fn look_at_volume(&self) -> Option<Volume> {
        self.store.volume()
    }

    /// The same, without blocking.
    pub async fn volume(&self) -> Option<Volume> {
        let store = self.store.clone();
        // A network filesystem may let this wait.
        tokio::task::spawn_blocking(move || store.volume()).await.ok().flatten()
    }

    /// Where the log's writer is, to be compared: as long as it stays there, nothing is appended.
    pub fn position(&self) -> (u32, u64) {
        (self.writer.epoch(), self.writer.epoch_bytes())
    }

    /// Writes what is queued and closes the store. What is called after it fails.
    pub async fn close(&self) -> Outcome {
        self.writer.close().await
    }
}

/// Waits until what was queued is durable.
pub(crate) async fn durable(outcome: oneshot::Receiver<Outcome>) -> Outcome {
    outcome.await.unwrap_or_else(|_| Err(gone()))
}
