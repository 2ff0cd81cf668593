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

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::proto::LabelPair;
use prometheus::{Registry, TextEncoder};

use declare::Series;
pub use declare::{Declared, Kind};
use handles::{ApiExemplars, Exemplar};
pub use handles::{ApiMetrics, OpenConnection, ShareGroupMetrics, TraceId};
pub use openmetrics::TextFormat;
#[cfg(target_os = "linux")]
use process::Process;
pub use scrape::Scrape;
pub use streams::{ConsumerMetrics, Direction, Operation, Records, StreamMetrics, Subscribed};

use streams::Bound;

pub mod cloudwatch;
mod declare;
mod handles;
mod openmetrics;
#[cfg(target_os = "linux")]
mod process;
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
/// Histograms with exemplars.
const KAFKA_REQUEST_SECONDS: &str = "kafka_request_seconds";
const KINESIS_REQUEST_SECONDS: &str = "kinesis_request_seconds";
const CLOUDWATCH_REQUEST_SECONDS: &str = "cloudwatch_request_seconds";
/// What may be said of a record of a share group.
const ACKNOWLEDGEMENTS: [&str; 5] = ["gap", "accept", "release", "reject", "renew"];
/// Outcomes.
const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

/// Memory that is bounded.
struct Budget {
    limit_bytes: usize,
    used_bytes: Box<dyn Fn() -> usize + Send + Sync>,
}

/// All series of one server.
pub struct Metrics {
    registry: Registry,
    series: Arc<Series>,
    label_max: usize,
    /// Streams that have series of their own.
    streams: Mutex<HashSet<String>>,
    shards: Arc<Bound>,
    consumers: Arc<Bound>,
    /// Clients that were slowed down for their quotas.
    clients: Mutex<HashSet<String>>,
    /// Those that have series of their own.
    share_groups: Mutex<HashMap<String, Arc<ShareGroupMetrics>>>,
    budgets: Mutex<BTreeMap<&'static str, Budget>>,
    exemplars: Mutex<Vec<Arc<ApiExemplars>>>,
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
        if let Err(error) = registry.register(Box::new(Process::this())) {
            tracing::warn!(%error, "no process metrics");
        }
        Arc::new(Metrics {
            registry,
            series,
            label_max,
            streams: Mutex::default(),
            shards: Bound::new(label_max),
            consumers: Bound::new(label_max),
            clients: Mutex::default(),
            share_groups: Mutex::default(),
            budgets: Mutex::default(),
            exemplars: Mutex::default(),
            scraping: Mutex::default(),
        })
    }

    /// Everything that [`Metrics::render`] may tell of.
    pub fn declared() -> Vec<Declared> {
        let mut declared = Metrics::new(0).series.declared();
        #[cfg(target_os = "linux")]
        declared.extend(declare::declared_of_process(&Process::this()));
        declared
    }

    /// The handle of one Kafka API; `name` as Kafka spells it.
    pub fn api(&self, name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            well: self.series.requests.with_label_values(&[name, NONE]),
            requests: self.series.requests.clone(),
            seconds: self.series.request_seconds.with_label_values(&[name]),
            exemplars: self.exemplars(KAFKA_REQUEST_SECONDS, name),
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
            exemplars: self.exemplars(CLOUDWATCH_REQUEST_SECONDS, name),
        }
    }

    /// The handle of one operation of the Kinesis API; `name` as AWS spells it.
    pub fn operation(&self, name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            well: self.series.operations.with_label_values(&[name, NONE]),
            requests: self.series.operations.clone(),
            seconds: self.series.operation_seconds.with_label_values(&[name]),
            exemplars: self.exemplars(KINESIS_REQUEST_SECONDS, name),
        }
    }

    fn exemplars(&self, series: &'static str, api: &'static str) -> Arc<ApiExemplars> {
        let made = Arc::new(ApiExemplars::new(series, api));
        let mut all = self.exemplars.lock();
        // Whoever asks again goes on with those that there are.
        let known = all.iter().find(|known| known.series == series && known.api == api).cloned();
        known.unwrap_or_else(|| {
            all.push(made.clone());
            made
        })
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

    /// A client was told to pause for a quota of its own; `quota` as Kafka spells it, `client` by its id.
    pub fn quota_paused(&self, quota: &'static str, client: &str, ms: i64) {
        let seconds = ms.max(0) as f64 / 1e3;
        let mut clients = self.clients.lock();
        let own = clients.contains(client) || (clients.len() < self.label_max && client != OTHER);
        if own && !clients.contains(client) {
            clients.insert(client.to_owned());
        }
        self.series.quota_seconds.with_label_values(&[quota]).inc_by(seconds);
        self.series.client_seconds.with_label_values(&[quota, if own { client } else { OTHER }]).inc_by(seconds);
    }

    /// The handle of a share group, for as long as it lives.
    pub fn share_group(&self, group: &str) -> Arc<ShareGroupMetrics> {
        let mut groups = self.share_groups.lock();
        if let Some(known) = groups.get(group) {
            return known.clone();
        }
        let own = groups.len() < self.label_max && group != OTHER;
        let label = if own { group } else { OTHER };
        let made = Arc::new(ShareGroupMetrics {
            delivered: self.series.share_delivered.with_label_values(&[label]),
            acknowledged: self.series.share_acknowledged.clone(),
            archived: self.series.share_archived.with_label_values(&[label]),
            label: label.to_owned(),
        });
        if own {
            groups.insert(group.to_owned(), made.clone());
        }
        made
    }

    /// Removes the series of a share group that was deleted.
    pub fn forget_share_group(&self, group: &str) {
        if self.share_groups.lock().remove(group).is_none() {
            return;
        }
        // Only what was never counted cannot be removed.
        let _ = self.series.share_delivered.remove_label_values(&[group]);
        let _ = self.series.share_archived.remove_label_values(&[group]);
        for kind in ACKNOWLEDGEMENTS {
            let _ = self.series.share_acknowledged.remove_label_values(&[group, kind]);
        }
    }

    /// Memory that is bounded: its use is told with every scrape.
    pub fn watch_budget(
        &self,
        name: &'static str,
        limit_bytes: usize,
        used_bytes: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.budgets.lock().insert(name, Budget { limit_bytes, used_bytes: Box::new(used_bytes) });
    }

    /// A transaction has ended, with an outcome from the fixed set of the caller.
    pub fn transaction_ended(&self, outcome: &'static str, took_ms: i64) {
        self.series.transactions_ended.with_label_values(&[outcome]).inc();
        self.series.transaction_seconds.with_label_values(&[outcome]).observe(took_ms.max(0) as f64 / 1e3);
    }

    /// Retention has looked at every partition.
    pub fn retention_looked(&self, now_ms: i64) {
        self.series.retention_looked.set(now_ms / 1_000);
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

    /// All series. `collect` writes what exists now; where a bound may cut, it does so in an order that stays the same from
    /// scrape to scrape.
    pub fn render(&self, format: TextFormat, collect: impl FnOnce(&Scrape)) -> String {
        let _one_at_a_time = self.scraping.lock();
        self.series.reset();
        let scrape = Scrape::new(&self.series, self.label_max);
        for (name, budget) in self.budgets.lock().iter() {
            scrape.memory_budget(name, (budget.used_bytes)() as u64, budget.limit_bytes as u64);
        }
        collect(&scrape);
        let families = self.registry.gather();
        match format {
            TextFormat::OpenMetrics => {
                openmetrics::encode(&families, &|series, labels| self.exemplars_of(series, labels))
            }
            TextFormat::Prometheus => TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written as text");
                String::new()
            }),
        }
    }

    fn exemplars_of(&self, series: &str, labels: &[LabelPair]) -> Option<Vec<Option<Exemplar>>> {
        let series = series.strip_prefix(PREFIX)?;
        let all = self.exemplars.lock();
        let of = all.iter().find(|one| one.series == series && labels.iter().any(|label| label.value() == one.api))?;
        Some(of.buckets.lock().clone())
    }
}

#[cfg(test)]
mod tests;
