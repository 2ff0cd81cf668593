//! Prometheus series: every one is declared once, in the table of `declare`, with its name, help and labels.
//!
//! Counters and histograms are written where things happen, through handles that are fetched once ([`ApiMetrics`] by the
//! doors, [`StreamMetrics`] by each stream), so a request looks nothing up. Gauges that describe what exists now
//! (partitions, groups, the store) are written by a function that [`Metrics::render`] calls at each scrape; what it does
//! not write is gone from the answer, so nothing stale remains.
//!
//! Invariant: labels that clients can invent (streams, shards, consumers, groups, partitions) are bounded. Of each kind the first
//! `metrics-label-max` get series of their own; all others are added up in one series labelled `_other`.
//!
//! Naming follows <https://prometheus.io/docs/practices/naming/>: base units, `_total` for counters.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};

use declare::Series;
pub use declare::{Declared, Kind};
pub use handles::{ApiMetrics, OpenConnection};
pub use scrape::Scrape;
pub use streams::{ConsumerMetrics, Direction, Operation, Records, StreamMetrics, Subscribed};

use streams::Bound;

pub mod cloudwatch;
mod declare;
mod handles;
mod scrape;
mod streams;

/// Before every name but those of the process.
const PREFIX: &str = "anabranch_";
/// The label of what does not fit. A stream or group that is really called this is counted here too.
const OTHER: &str = "_other";
/// Kafka's name for a request that went well.
const NONE: &str = "NONE";
/// Directions and policies of what is throttled.
const WRITE: &str = "write";
const READ: &str = "read";
const ENFORCE: &str = "enforce";
const OBSERVE: &str = "observe";
/// Outcomes.
const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

/// All series of one server.
pub struct Metrics {
    registry: Registry,
    series: Arc<Series>,
    label_max: usize,
    /// Streams that have series of their own.
    streams: Mutex<HashSet<String>>,
    shards: Arc<Bound>,
    consumers: Arc<Bound>,
    /// Held through a scrape, for a scrape resets gauges before it writes them.
    scraping: Mutex<()>,
}

impl Metrics {
    /// `label_max` bounds the streams, their shards, their consumers, the partitions, and the partitions of groups that get series of their own.
    pub fn new(label_max: usize) -> Arc<Metrics> {
        let registry = Registry::new();
        // allowed: names and labels are constants of this file, and every test of it runs this line.
        let series = Arc::new(Series::registered(&registry).expect("every series has a valid name of its own"));
        series
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS])
            .set(1);
        #[cfg(target_os = "linux")]
        if let Err(error) = registry.register(Box::new(ProcessCollector::for_self())) {
            tracing::warn!(%error, "no process metrics");
        }
        Arc::new(Metrics {
            registry,
            series,
            label_max,
            streams: Mutex::default(),
            shards: Bound::new(label_max),
            consumers: Bound::new(label_max),
            scraping: Mutex::default(),
        })
    }

    /// Everything that [`Metrics::render`] may tell of.
    pub fn declared() -> Vec<Declared> {
        let mut declared = Metrics::new(0).series.declared();
        #[cfg(target_os = "linux")]
        declared.extend(declare::declared_of_process(&ProcessCollector::for_self()));
        declared
    }

    /// The handle of one Kafka API; `name` as Kafka spells it.
    pub fn api(&self, name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            well: self.series.requests.with_label_values(&[name, NONE]),
            requests: self.series.requests.clone(),
            seconds: self.series.request_seconds.with_label_values(&[name]),
        }
    }

    pub fn spans_lost(&self, spans: usize) {
        self.series.spans_lost.inc_by(spans as u64);
    }

    pub fn audit_written(&self, events: usize) {
        self.series.audit_events.with_label_values(&["written"]).inc_by(events as u64);
    }

    pub fn audit_lost(&self, events: usize) {
        self.series.audit_events.with_label_values(&["lost"]).inc_by(events as u64);
    }

    /// The handle of one operation of the CloudWatch API; `name` as AWS spells it.
    pub fn cloudwatch_operation(&self, name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            well: self.series.cloudwatch.with_label_values(&[name, NONE]),
            requests: self.series.cloudwatch.clone(),
            seconds: self.series.cloudwatch_seconds.with_label_values(&[name]),
        }
    }

    /// The handle of one operation of the Kinesis API; `name` as AWS spells it.
    pub fn operation(&self, name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            well: self.series.operations.with_label_values(&[name, NONE]),
            requests: self.series.operations.clone(),
            seconds: self.series.operation_seconds.with_label_values(&[name]),
        }
    }

    /// The handle of one stream, for as long as it lives. A stream beyond the bound counts as `_other`, and goes on doing
    /// so when others are deleted.
    pub fn stream(&self, name: &str) -> StreamMetrics {
        let mut streams = self.streams.lock();
        let own = streams.contains(name) || (streams.len() < self.label_max && name != OTHER);
        if own {
            streams.insert(name.to_owned());
        }
        let label = if own { name } else { OTHER };
        StreamMetrics::new(&self.series, label, self.shards.clone(), self.consumers.clone())
    }

    /// A client was told to pause for a quota of its own; `quota` as Kafka spells it.
    pub fn quota_paused(&self, quota: &'static str, ms: i64) {
        self.series.quota_seconds.with_label_values(&[quota]).inc_by(ms.max(0) as f64 / 1e3);
    }

    /// Removes the series of a stream that was deleted. What is still counted for it counts into nothing.
    pub fn forget_stream(&self, stream: &StreamMetrics) {
        if self.streams.lock().remove(&*stream.label) {
            stream.remove();
        }
    }

    /// Counts an accepted Kafka connection, open until the guard is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.series.connections_total.inc();
        self.series.connections.inc();
        OpenConnection { open: self.series.connections.clone() }
    }

    /// Counts a Kafka connection that the broker closed, with a reason from the fixed set of the caller.
    pub fn connection_refused(&self, reason: &'static str) {
        self.series.connections_refused.with_label_values(&[reason]).inc();
    }

    pub fn http_connection_opened(&self) -> OpenConnection {
        self.series.http_connections_total.inc();
        self.series.http_connections.inc();
        OpenConnection { open: self.series.http_connections.clone() }
    }

    /// Counts an HTTP request that came to no operation or a connection that was closed, with a reason from the fixed
    /// set of the caller.
    pub fn http_refused(&self, reason: &'static str) {
        self.series.http_refused.with_label_values(&[reason]).inc();
    }

    /// One commit of the store that carried `batches` record batches.
    pub fn store_commit(&self, seconds: f64, batches: usize) {
        self.series.store_commit_seconds.observe(seconds);
        self.series.store_commit_batches.observe(batches as f64);
    }

    pub fn retention_deleted(&self, bytes: u64) {
        self.series.retention_deleted_bytes.inc_by(bytes);
    }

    /// A partition was compacted and holds so much less than before.
    pub fn compacted(&self, removed_bytes: u64) {
        self.series.compactions.inc();
        self.series.compaction_removed_bytes.inc_by(removed_bytes);
    }

    /// All series in Prometheus' text format. `collect` writes what exists now; where a bound may cut, it does so in an
    /// order that stays the same from scrape to scrape.
    pub fn render(&self, collect: impl FnOnce(&Scrape)) -> String {
        let _one_at_a_time = self.scraping.lock();
        self.series.reset();
        collect(&Scrape::new(&self.series, self.label_max));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written as text");
            String::new()
        })
    }
}

#[cfg(test)]
mod tests;
