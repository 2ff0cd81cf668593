//! Prometheus series: every one is declared once, in [`series!`](self) below, with its name, help and labels.
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

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// The label of what does not fit. A topic or group that is really called this is counted here too.
const OTHER: &str = "_other";
/// Kafka's name for a request that went well.
const NONE: &str = "NONE";
/// Directions and policies of what is throttled.
const WRITE: &str = "write";
const READ: &str = "read";
const ENFORCE: &str = "enforce";
const OBSERVE: &str = "observe";

/// Of answers, in seconds. Fetches and joins of groups wait on purpose, hence the long end.
const REQUEST_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of readers behind the newest record, in seconds: from one that keeps up to one that retention is about to overtake.
const AGE_SECONDS: &[f64] = &[0.0, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0];
/// Of commits to the store, in seconds: from one in memory to one that waits for a slow disk.
const COMMIT_SECONDS: &[f64] =
    &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
const COMMIT_BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Reads rows of: `field: Type = "name", "help", constructor;` and prefixes every name with `anabranch_`.
macro_rules! series {
    ($($field:ident: $type:ty = $name:literal, $help:literal, $make:expr;)+) => {
        struct Series { $($field: $type,)+ }

        #[cfg(test)]
        const NAMES: &[&str] = &[$(concat!("anabranch_", $name)),+];

        impl Series {
            fn registered(registry: &Registry) -> Result<Series, prometheus::Error> {
                Ok(Series {
                    $($field: registered(registry, ($make)(Opts::new(concat!("anabranch_", $name), $help))?)?,)+
                })
            }
        }
    };
}

series! {
    build_info: IntGaugeVec = "build_info", "Always 1; its labels say what is running", gauges(&["version", "arch", "os"]);
    uptime: IntGauge = "uptime_seconds", "Time since the server started", IntGauge::with_opts;

    requests: IntCounterVec = "kafka_requests_total", "Kafka requests answered", counters(&["api", "error"]);
    request_seconds: HistogramVec = "kafka_request_seconds",
        "Time from a whole Kafka request to its answer, waiting included", histograms(&["api"], REQUEST_SECONDS);
    operations: IntCounterVec = "kinesis_requests_total",
        "Kinesis requests answered; error is AWS's name or NONE", counters(&["operation", "error"]);
    operation_seconds: HistogramVec = "kinesis_request_seconds",
        "Time from a whole Kinesis request to its answer, waiting included", histograms(&["operation"], REQUEST_SECONDS);
    connections: IntGauge = "kafka_connections", "Open Kafka connections", IntGauge::with_opts;
    connections_total: IntCounter = "kafka_connections_total", "Kafka connections accepted", IntCounter::with_opts;
    connections_refused: IntCounterVec = "kafka_connections_refused_total",
        "Kafka connections closed by the broker", counters(&["reason"]);
    http_connections: IntGauge = "http_connections", "Open HTTP connections", IntGauge::with_opts;
    http_connections_total: IntCounter = "http_connections_total", "HTTP connections accepted", IntCounter::with_opts;
    http_refused: IntCounterVec = "http_refused_total",
        "HTTP requests refused before they came to an operation, and connections closed by the server", counters(&["reason"]);

    bytes_in: IntCounterVec = "bytes_in_total", "Bytes of record batches appended", counters(&["topic"]);
    records_in: IntCounterVec = "records_in_total", "Records appended", counters(&["topic"]);
    bytes_out: IntCounterVec = "bytes_out_total", "Bytes of record batches read by clients", counters(&["topic"]);
    records_out: IntCounterVec = "records_out_total",
        "Records in the batches read by clients", counters(&["topic"]);
    iterator_age: HistogramVec = "iterator_age_seconds",
        "How far behind the newest record what a Kinesis client read was; 0 at the end of a shard",
        histograms(&["topic"], AGE_SECONDS);
    throttled: IntCounterVec = "throttled_total",
        "Puts, batches, calls and fetches beyond a shard's limits: slowed or refused (enforce) or let through (observe)",
        counters(&["topic", "direction", "policy"]);
    throttle_seconds: CounterVec = "throttle_seconds_total",
        "Time that Kafka clients were told to pause", seconds(&["topic", "direction"]);
    quota_seconds: CounterVec = "quota_throttle_seconds_total",
        "Time that Kafka clients were told to pause for what their quotas allow", seconds(&["quota"]);

    partition_bytes: IntGaugeVec = "partition_size_bytes",
        "Bytes of record batches a partition holds", gauges(&["topic", "partition"]);
    partition_start: IntGaugeVec = "partition_log_start_offset",
        "First offset a partition holds", gauges(&["topic", "partition"]);
    partition_end: IntGaugeVec = "partition_log_end_offset",
        "Offset of a partition's next record", gauges(&["topic", "partition"]);
    group_lag: IntGaugeVec = "group_lag_records",
        "Records between a group's committed offset and the end of the partition",
        gauges(&["group", "topic", "partition"]);
    share_backlog: IntGaugeVec = "share_group_backlog_records",
        "Offsets of a partition that a share group has not processed",
        gauges(&["group", "topic", "partition"]);
    groups: IntGaugeVec = "groups", "Groups by type and state", gauges(&["type", "state"]);
    retention_deleted_bytes: IntCounter = "retention_deleted_bytes_total",
        "Bytes of record batches that retention removed", IntCounter::with_opts;
    compactions: IntCounter = "compactions_total", "Partitions compacted, again and again", IntCounter::with_opts;
    compaction_removed_bytes: IntCounter = "compaction_removed_bytes_total",
        "Bytes of record batches that compaction removed", IntCounter::with_opts;

    store_commit_seconds: Histogram = "store_commit_seconds",
        "Time of one commit to the store", histogram(COMMIT_SECONDS);
    store_commit_batches: Histogram = "store_commit_batches",
        "Record batches that one commit carried", histogram(COMMIT_BATCHES);
    store_disk: IntGaugeVec = "store_disk_bytes", "Bytes the store has on disk", gauges(&["kind"]);
    store_memory: IntGaugeVec = "store_memory_bytes", "Bytes the store holds in memory", gauges(&["kind"]);
    store_pending_jobs: IntGauge = "store_pending_jobs", "Flushes and compactions running or waiting", IntGauge::with_opts;
}

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
        collect(&Scrape { series, label_max: self.label_max, partitions: Cell::new(0), lags: Cell::new(0) });
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written as text");
            String::new()
        })
    }
}

/// One API of a door: a Kafka API, a Kinesis operation.
#[derive(Clone)]
pub struct ApiMetrics {
    name: &'static str,
    well: IntCounter,
    requests: IntCounterVec,
    seconds: Histogram,
}

impl ApiMetrics {
    /// One answer; `error` is the protocol's name of its (first) error, or NONE.
    pub fn observe(&self, error: &'static str, seconds: f64) {
        self.seconds.observe(seconds);
        match error {
            NONE => self.well.inc(),
            _ => self.requests.with_label_values(&[self.name, error]).inc(),
        }
    }
}

/// One topic. Bytes are those of record batches, as stored.
#[derive(Clone)]
pub struct StreamMetrics {
    pub bytes_in: IntCounter,
    pub records_in: IntCounter,
    pub bytes_out: IntCounter,
    pub records_out: IntCounter,
    /// In seconds.
    pub iterator_age: Histogram,
    pub write_throttled: Throttled,
    pub read_throttled: Throttled,
}

/// What went beyond the limits of one topic's shards, in one direction.
#[derive(Clone)]
pub struct Throttled {
    enforced: IntCounter,
    observed: IntCounter,
    seconds: Counter,
}

impl Throttled {
    /// One more; `observe` when it was let through.
    pub fn count(&self, observe: bool) {
        if observe { self.observed.inc() } else { self.enforced.inc() }
    }

    /// A client was told to pause for this long.
    pub fn paused(&self, ms: i64) {
        self.seconds.inc_by(ms.max(0) as f64 / 1e3);
    }
}

/// A connection that counts as open until this is dropped.
pub struct OpenConnection {
    open: IntGauge,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Where one scrape writes what exists now.
pub struct Scrape<'a> {
    series: &'a Series,
    label_max: usize,
    partitions: Cell<usize>,
    lags: Cell<usize>,
}

impl Scrape<'_> {
    pub fn uptime_ms(&self, ms: i64) {
        self.series.uptime.set(ms / 1_000);
    }

    /// One partition: bytes it holds, its first offset and the offset of its next record. Those of `_other` are sums.
    pub fn partition(&self, topic: &str, partition: i32, bytes: u64, start_offset: i64, end_offset: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.partitions, topic) { [topic, &number] } else { [OTHER, OTHER] };
        let write = |gauges: &IntGaugeVec, value: i64| gauges.with_label_values(&labels).add(value);
        write(&self.series.partition_bytes, bytes as i64);
        write(&self.series.partition_start, start_offset);
        write(&self.series.partition_end, end_offset);
    }

    /// Records that `group` has not committed on one partition.
    pub fn group_lag(&self, group: &str, topic: &str, partition: i32, records: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.lags, group) { [group, topic, &number] } else { [OTHER; 3] };
        self.series.group_lag.with_label_values(&labels).add(records);
    }

    /// How much a share group has before it in a partition.
    pub fn share_backlog(&self, group: &str, topic: &str, partition: i32, records: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.lags, group) { [group, topic, &number] } else { [OTHER; 3] };
        self.series.share_backlog.with_label_values(&labels).add(records);
    }

    /// How many groups of a type are in a state; both as Kafka spells them.
    pub fn groups(&self, group_type: &'static str, state: &'static str, count: usize) {
        self.series.groups.with_label_values(&[group_type, state]).set(count as i64);
    }

    /// Bytes on disk of one kind (`files`, `wal`).
    pub fn store_disk(&self, kind: &'static str, bytes: u64) {
        self.series.store_disk.with_label_values(&[kind]).set(bytes as i64);
    }

    /// Bytes in memory of one kind (`memtables`, `block_cache`, ...).
    pub fn store_memory(&self, kind: &'static str, bytes: u64) {
        self.series.store_memory.with_label_values(&[kind]).set(bytes as i64);
    }

    pub fn store_pending_jobs(&self, jobs: u64) {
        self.series.store_pending_jobs.set(jobs as i64);
    }

    /// Whether the next series of a kind may have labels of its own.
    fn has_own(&self, used: &Cell<usize>, name: &str) -> bool {
        let own = used.get() < self.label_max && name != OTHER;
        if own {
            used.set(used.get() + 1);
        }
        own
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, series: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(series.clone()))?;
    Ok(series)
}

fn counters(labels: &[&str]) -> impl Fn(Opts) -> Result<IntCounterVec, prometheus::Error> {
    |opts| IntCounterVec::new(opts, labels)
}

fn seconds(labels: &[&str]) -> impl Fn(Opts) -> Result<CounterVec, prometheus::Error> {
    |opts| CounterVec::new(opts, labels)
}

fn gauges(labels: &[&str]) -> impl Fn(Opts) -> Result<IntGaugeVec, prometheus::Error> {
    |opts| IntGaugeVec::new(opts, labels)
}

fn histograms(labels: &[&str], buckets: &[f64]) -> impl Fn(Opts) -> Result<HistogramVec, prometheus::Error> {
    |opts| HistogramVec::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels)
}

fn histogram(buckets: &[f64]) -> impl Fn(Opts) -> Result<Histogram, prometheus::Error> {
    |opts| Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sample of the text, as `name{labels}` and value; panics on a line that is not Prometheus' text format.
    fn samples(text: &str) -> Vec<(String, f64)> {
        let mut typed = HashSet::new();
        let mut samples = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(typed.insert(name.to_owned()), "{name} has two types");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(typed.contains(name) || family.is_some_and(|family| typed.contains(family)), "{line}");
                assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                samples.push((series.to_owned(), value.parse().unwrap()));
            }
        }
        samples
    }

    fn value(text: &str, series: &str) -> Option<f64> {
        samples(text).into_iter().find(|(name, _)| name == series).map(|(_, value)| value)
    }

    fn count(text: &str, prefix: &str) -> usize {
        samples(text).iter().filter(|(name, _)| name.starts_with(prefix)).count()
    }

    #[test]
    fn everything_declared_appears() {
        let metrics = Metrics::new(10);
        metrics.api("Produce").observe("NONE", 0.002);
        metrics.operation("PutRecords").observe("ResourceNotFoundException", 0.002);
        metrics.stream("orders");
        drop(metrics.connection_opened());
        metrics.connection_refused("too_many");
        metrics.quota_paused("producer_byte_rate", 1);
        drop(metrics.http_connection_opened());
        metrics.http_refused("signature");
        metrics.store_commit(0.001, 3);
        let text = metrics.render(|scrape| {
            scrape.partition("orders", 0, 1, 2, 3);
            scrape.group_lag("g", "orders", 0, 1);
            scrape.share_backlog("s", "orders", 0, 1);
            scrape.groups("classic", "Stable", 1);
            scrape.store_disk("files", 1);
            scrape.store_memory("memtables", 1);
        });
        for name in NAMES {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
            assert!(samples(&text).iter().any(|(series, _)| series.starts_with(name)), "{name} has no sample");
        }
        let build = format!(
            "anabranch_build_info{{arch=\"{}\",os=\"{}\",version=\"{}\"}}",
            std::env::consts::ARCH,
            std::env::consts::OS,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(value(&text, &build), Some(1.0));
        #[cfg(target_os = "linux")]
        assert!(value(&text, "process_resident_memory_bytes").unwrap() > 0.0);
    }

    #[test]
    fn requests_are_counted_by_error_and_timed() {
        let metrics = Metrics::new(10);
        let produce = metrics.api("Produce");
        produce.observe("NONE", 0.0002);
        produce.observe("NONE", 40.0);
        produce.observe("CORRUPT_MESSAGE", 0.0002);
        let text = metrics.render(|_| ());
        let requests =
            |error: &str| value(&text, &format!("anabranch_kafka_requests_total{{api=\"Produce\",error=\"{error}\"}}"));
        assert_eq!((requests("NONE"), requests("CORRUPT_MESSAGE")), (Some(2.0), Some(1.0)));
        let within = |seconds: &str| {
            value(&text, &format!("anabranch_kafka_request_seconds_bucket{{api=\"Produce\",le=\"{seconds}\"}}"))
        };
        assert_eq!((within("0.0001"), within("0.00025"), within("30")), (Some(0.0), Some(2.0), Some(2.0)));
        assert_eq!(within("+Inf"), Some(3.0));
    }

    #[test]
    fn open_connections_go_down_again() {
        let metrics = Metrics::new(10);
        let first = metrics.connection_opened();
        let _second = metrics.connection_opened();
        drop(first);
        let text = metrics.render(|_| ());
        assert_eq!(value(&text, "anabranch_kafka_connections"), Some(1.0));
        assert_eq!(value(&text, "anabranch_kafka_connections_total"), Some(2.0));
    }

    #[test]
    fn topics_beyond_the_bound_share_one_series() {
        let metrics = Metrics::new(2);
        let streams: Vec<_> = ["a", "b", "c", "d", "_other"].map(|topic| metrics.stream(topic)).into();
        for stream in &streams {
            stream.bytes_in.inc_by(10);
        }
        metrics.stream("a").bytes_in.inc_by(1);
        let text = metrics.render(|_| ());
        let bytes = |text: &str, topic: &str| value(text, &format!("anabranch_bytes_in_total{{topic=\"{topic}\"}}"));
        assert_eq!(count(&text, "anabranch_bytes_in_total"), 3);
        assert_eq!(
            (bytes(&text, "a"), bytes(&text, "b"), bytes(&text, "_other")),
            (Some(11.0), Some(10.0), Some(30.0))
        );

        // A deleted topic's series vanish and make room; what is folded stays, whatever a client called its topic.
        for topic in ["a", "c", "_other"] {
            metrics.forget_stream(topic);
        }
        streams[0].bytes_in.inc();
        metrics.stream("e").bytes_in.inc();
        let text = metrics.render(|_| ());
        assert_eq!((bytes(&text, "a"), bytes(&text, "e"), bytes(&text, "_other")), (None, Some(1.0), Some(30.0)));
    }

    #[test]
    fn what_a_scrape_does_not_write_is_gone() {
        let metrics = Metrics::new(2);
        let text = metrics.render(|scrape| {
            for partition in 0..4 {
                scrape.partition("orders", partition, 100, 5, 10);
                scrape.group_lag("g", "orders", partition, 7);
            }
            scrape.groups("classic", "Stable", 1);
        });
        let lag = "anabranch_group_lag_records{group=\"_other\",partition=\"_other\",topic=\"_other\"}";
        assert_eq!(count(&text, "anabranch_partition_size_bytes"), 3);
        assert_eq!(value(&text, "anabranch_partition_size_bytes{partition=\"1\",topic=\"orders\"}"), Some(100.0));
        assert_eq!(
            value(&text, "anabranch_partition_log_end_offset{partition=\"_other\",topic=\"_other\"}"),
            Some(20.0)
        );
        assert_eq!((count(&text, "anabranch_group_lag_records"), value(&text, lag)), (3, Some(14.0)));

        let text = metrics.render(|scrape| scrape.partition("orders", 0, 1, 2, 3));
        assert_eq!(count(&text, "anabranch_partition_"), 3);
        assert_eq!(value(&text, "anabranch_partition_size_bytes{partition=\"0\",topic=\"orders\"}"), Some(1.0));
        assert_eq!(count(&text, "anabranch_group"), 0);
    }

    #[test]
    fn names_of_clients_are_escaped() {
        let metrics = Metrics::new(2);
        let text = metrics.render(|scrape| scrape.group_lag("a\"b\\c\nd", "t", 0, 1));
        assert_eq!(count(&text, "anabranch_group_lag_records{group=\"a\\\"b\\\\c\\nd\""), 1);
    }
}
