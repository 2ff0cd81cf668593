//! Every series is declared here, once, with its name, help and labels. Called by the rooms of [`metrics`](super), which
//! write them.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

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
        pub(super) struct Series { $(pub $field: $type,)+ }

        #[cfg(test)]
        pub const NAMES: &[&str] = &[$(concat!("anabranch_", $name)),+];

        impl Series {
            pub fn registered(registry: &Registry) -> Result<Series, prometheus::Error> {
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
