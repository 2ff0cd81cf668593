//! Prometheus series: every one is declared once, in the table of `declare`, with its name, help and labels.
//!
//! Counters and histograms are written where things happen, through handles that are fetched once ([`ApiMetrics`] by the
//! doors, [`StreamMetrics`] by each stream), so a request looks nothing up. Gauges that describe what exists now
//! (partitions, groups, the store) are written by a function that [`Metrics::render`] calls at each scrape; what it does
//! not write is gone from the answer, so nothing stale remains.
//!
//! Invariant: labels that clients can invent (topics, groups, partitions) are bounded. Of each kind the first
//! `metrics-label-max` get series of their own; all others are added up in one series labelled `_other`.
//!
//! Naming follows <https://prometheus.io/docs/practices/naming/>: base units, `_total` for counters.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};

use declare::Series;
pub use handles::{ApiMetrics, OpenConnection, StreamMetrics, Throttled};
pub use scrape::Scrape;

mod declare;
mod handles;
mod scrape;

/// The label of what does not fit. A topic or group that is really called this is counted here too.
const OTHER: &str = "_other";
/// Kafka's name for a request that went well.
const NONE: &str = "NONE";
/// Directions and policies of what is throttled.
const WRITE: &str = "write";
const READ: &str = "read";
const ENFORCE: &str = "enforce";
const OBSERVE: &str = "observe";

/// All series of one server.
pub struct Metrics {
    registry: Registry,
    series: Series,
    label_max: usize,
    /// Topics that have series of their own.
    topics: Mutex<HashSet<String>>,
    /// Held through a scrape, for a scrape resets gauges before it writes them.
    scraping: Mutex<()>,
}

impl Metrics {
    /// `label_max` bounds the topics, the partitions, and the partitions of groups that get series of their own.
    pub fn new(label_max: usize) -> Arc<Metrics> {
        let registry = Registry::new();
        // allowed: names and labels are constants of this file, and every test of it runs this line.
        let series = Series::registered(&registry).expect("every series has a valid name of its own");
        series
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS])
            .set(1);
        #[cfg(target_os = "linux")]
        if let Err(error) = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())) {
            tracing::warn!(%error, "no process metrics");
        }
        Arc::new(Metrics { registry, series, label_max, topics: Mutex::default(), scraping: Mutex::default() })
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

    /// The handle of one operation of the Kinesis API; `name` as AWS spells it.
    pub fn operation(&self, name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            well: self.series.operations.with_label_values(&[name, NONE]),
            requests: self.series.operations.clone(),
            seconds: self.series.operation_seconds.with_label_values(&[name]),
        }
    }

    /// The handle of one topic, for as long as its stream lives. A topic beyond the bound counts as `_other`, and goes on
    /// doing so when others are deleted.
    pub fn stream(&self, topic: &str) -> StreamMetrics {
        let mut topics = self.topics.lock();
        let own = topics.contains(topic) || (topics.len() < self.label_max && topic != OTHER);
        if own {
            topics.insert(topic.to_owned());
        }
        let label = if own { topic } else { OTHER };
        StreamMetrics {
            bytes_in: self.series.bytes_in.with_label_values(&[label]),
            records_in: self.series.records_in.with_label_values(&[label]),
            bytes_out: self.series.bytes_out.with_label_values(&[label]),
            records_out: self.series.records_out.with_label_values(&[label]),
            iterator_age: self.series.iterator_age.with_label_values(&[label]),
            write_throttled: self.throttled(label, WRITE),
            read_throttled: self.throttled(label, READ),
        }
    }

    /// A client was told to pause for a quota of its own; `quota` as Kafka spells it.
    pub fn quota_paused(&self, quota: &'static str, ms: i64) {
        self.series.quota_seconds.with_label_values(&[quota]).inc_by(ms.max(0) as f64 / 1e3);
    }

    fn throttled(&self, label: &str, direction: &str) -> Throttled {
        let counter = |policy| self.series.throttled.with_label_values(&[label, direction, policy]);
        Throttled {
            enforced: counter(ENFORCE),
            observed: counter(OBSERVE),
            seconds: self.series.throttle_seconds.with_label_values(&[label, direction]),
        }
    }

    /// Removes the series of a topic that was deleted. Handles that still exist count into nothing.
    pub fn forget_stream(&self, topic: &str) {
        let mut topics = self.topics.lock();
        if !topics.remove(topic) {
            return;
        }
        for vec in [&self.series.bytes_in, &self.series.records_in, &self.series.bytes_out, &self.series.records_out] {
            // Only a series that was never made cannot be removed, and `stream` made them all.
            let _ = vec.remove_label_values(&[topic]);
        }
        let _ = self.series.iterator_age.remove_label_values(&[topic]);
        for direction in [WRITE, READ] {
            for policy in [ENFORCE, OBSERVE] {
                let _ = self.series.throttled.remove_label_values(&[topic, direction, policy]);
            }
            let _ = self.series.throttle_seconds.remove_label_values(&[topic, direction]);
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
        let series = &self.series;
        let now = [
            &series.partition_bytes,
            &series.partition_start,
            &series.partition_end,
            &series.group_lag,
            &series.share_backlog,
            &series.groups,
        ];
        for gauges in now.into_iter().chain([&series.store_disk, &series.store_memory]) {
            gauges.reset();
        }
        collect(&Scrape::new(series, self.label_max));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written as text");
            String::new()
        })
    }
}

#[cfg(test)]
mod tests;
