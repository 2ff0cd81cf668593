//! Every series is declared here, once, with its name, help and labels. Called by the rooms of [`metrics`](super), which
//! write them.

use prometheus::core::{Collector, Desc};
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Of answers, in seconds. Fetches and joins of groups wait on purpose, hence the long end.
pub(super) const REQUEST_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The same for each stream, of operations that do not wait: fewer, for there are many streams.
const STREAM_REQUEST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Of readers behind the newest record, in seconds: from one that keeps up to one that retention is about to overtake.
const AGE_SECONDS: &[f64] = &[0.0, 0.1, 1.0, 10.0, 60.0, 300.0, 600.0, 3_600.0, 21_600.0, 86_400.0];
/// Of commits to the store, in seconds: from one in memory to one that waits for a slow disk.
const COMMIT_SECONDS: &[f64] =
    &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
/// Of transactions, in seconds: from one that a stream processor commits ten times a second to Kafka's longest timeout.
const TRANSACTION_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];
const COMMIT_BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Reads rows of: `field: Type = "name", "help", constructor;` and prefixes every name with [`PREFIX`](super::PREFIX).
macro_rules! series {
    ($($field:ident: $type:ty = $name:literal, $help:literal, $make:expr;)+) => {
        pub(super) struct Series { $(pub $field: $type,)+ }

        impl Series {
            pub fn registered(registry: &Registry) -> Result<Series, prometheus::Error> {
                Ok(Series {
                    $($field: registered(registry, ($make)(Opts::new(concat!("anabranch_", $name), $help))?)?,)+
                })
            }

            pub fn declared(&self) -> Vec<Declared> {
                let all = [$((<$type as Typed>::KIND, self.$field.desc())),+];
                all.into_iter().flat_map(|(kind, descs)| descs.into_iter().map(move |desc| declared(kind, desc))).collect()
            }
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One series, whatever its labels' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub kind: Kind,
    pub help: String,
    pub labels: Vec<String>,
}

/// What kind a type of series is.
trait Typed {
    const KIND: Kind;
}

macro_rules! typed {
    ($($kind:ident: $($type:ty),+;)+) => {
        $($(impl Typed for $type {
            const KIND: Kind = Kind::$kind;
        })+)+
    };
}

typed! {
    Counter: IntCounter, IntCounterVec, CounterVec;
    Gauge: IntGauge, IntGaugeVec, Gauge, GaugeVec;
    Histogram: Histogram, HistogramVec;
}

fn declared(kind: Kind, desc: &Desc) -> Declared {
    Declared { name: desc.fq_name.clone(), kind, help: desc.help.clone(), labels: desc.variable_labels.clone() }
}

/// What is exported of this process, by the names that all programs have for it.
pub(super) fn declared_of_process(process: &dyn Collector) -> Vec<Declared> {
    let kind = |desc: &Desc| if desc.fq_name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
    process.desc().into_iter().map(|desc| declared(kind(desc), desc)).collect()
}

impl Series {
    /// Gauges that only some of what there is has at a time; each scrape writes those that it has.
    pub fn reset(&self) {
        let now = [
            &self.stream_shards,
            &self.partition_bytes,
            &self.partition_start,
            &self.partition_end,
            &self.group_lag,
            &self.share_backlog,
            &self.share_acquired,
            &self.transactions,
            &self.volume_size,
            &self.volume_free,
            &self.memory_used,
            &self.memory_limit,
            &self.groups,
            &self.store_disk,
            &self.store_memory,
        ];
        now.into_iter().for_each(|gauges| gauges.reset());
        self.group_lag_seconds.reset();
        self.reset_ages();
    }

    pub fn reset_ages(&self) {
        for gauges in [&self.stream_iterator_age_max, &self.shard_iterator_age_max, &self.consumer_behind_max] {
            gauges.reset();
        }
    }
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
    cloudwatch: IntCounterVec = "cloudwatch_requests_total",
        "CloudWatch requests answered; error is AWS's code or NONE", counters(&["operation", "error"]);
    cloudwatch_seconds: HistogramVec = "cloudwatch_request_seconds",
        "Time from a whole CloudWatch request to its answer", histograms(&["operation"], REQUEST_SECONDS);
    audit_events: IntCounterVec = "audit_events_total",
        "Events of the audit log, written or lost (the queue was full, or where they go did not take them)", counters(&["outcome"]);
    spans_lost: IntCounter = "trace_spans_lost_total",
        "Spans that the collector did not take, or that found the queue full", IntCounter::with_opts;
    connections: IntGauge = "kafka_connections", "Open Kafka connections", IntGauge::with_opts;
    connections_total: IntCounter = "kafka_connections_accepted_total", "Kafka connections accepted", IntCounter::with_opts;
    connections_refused: IntCounterVec = "kafka_connections_refused_total",
        "Kafka connections closed by the broker", counters(&["reason"]);
    http_connections: IntGauge = "http_connections", "Open HTTP connections", IntGauge::with_opts;
    http_connections_total: IntCounter = "http_connections_accepted_total", "HTTP connections accepted", IntCounter::with_opts;
    http_refused: IntCounterVec = "http_refused_total",
        "HTTP requests refused before they came to an operation, and connections closed by the server", counters(&["reason"]);

    stream_incoming_bytes: IntCounterVec = "stream_incoming_bytes_total",
        "Bytes appended: keys and data of records put, record batches of Kafka producers", counters(&["stream"]);
    stream_incoming_records: IntCounterVec = "stream_incoming_records_total", "Records appended", counters(&["stream"]);
    stream_outgoing_bytes: IntCounterVec = "stream_outgoing_bytes_total",
        "Bytes given to clients: keys and data of records got, record batches of Kafka consumers", counters(&["stream"]);
    stream_outgoing_records: IntCounterVec = "stream_outgoing_records_total",
        "Records given to clients", counters(&["stream"]);
    stream_iterator_age: HistogramVec = "stream_iterator_age_seconds",
        "How far behind the newest record what a Kinesis client read was; 0 at the end of a shard",
        histograms(&["stream"], AGE_SECONDS);
    stream_iterator_age_max: GaugeVec = "stream_iterator_age_max_seconds",
        "The furthest behind that a Kinesis client was within the last one to two minutes", float_gauges(&["stream"]);
    stream_throttled: IntCounterVec = "stream_throttled_total",
        "Puts, batches, calls and fetches beyond a shard's limits: slowed or refused (enforce) or let through (observe)",
        counters(&["stream", "direction", "policy"]);
    stream_throttle_seconds: CounterVec = "stream_throttle_seconds_total",
        "Time that Kafka clients were told to pause", float_counters(&["stream", "direction"]);
    stream_requests: IntCounterVec = "stream_requests_total",
        "Kinesis requests that came as far as their stream", counters(&["stream", "operation", "outcome"]);
    stream_request_seconds: HistogramVec = "stream_request_seconds",
        "Time of those requests", histograms(&["stream", "operation"], STREAM_REQUEST_SECONDS);
    stream_request_bytes: IntCounterVec = "stream_request_bytes_total",
        "Keys and data of the records that those requests put or got", counters(&["stream", "operation"]);
    stream_request_records: IntCounterVec = "stream_request_records_total",
        "Records of those requests by what became of them", counters(&["stream", "operation", "outcome"]);
    stream_shards: IntGaugeVec = "stream_shards", "Shards, open and closed", gauges(&["stream", "state"]);
    shard_incoming_bytes: IntCounterVec = "shard_incoming_bytes_total",
        "Bytes appended to a shard, once enabled", counters(&["stream", "shard"]);
    shard_incoming_records: IntCounterVec = "shard_incoming_records_total",
        "Records appended to a shard, once enabled", counters(&["stream", "shard"]);
    shard_outgoing_bytes: IntCounterVec = "shard_outgoing_bytes_total",
        "Bytes of a shard given to clients, once enabled", counters(&["stream", "shard"]);
    shard_outgoing_records: IntCounterVec = "shard_outgoing_records_total",
        "Records of a shard given to clients, once enabled", counters(&["stream", "shard"]);
    shard_throttled: IntCounterVec = "shard_throttled_total",
        "What was slowed or refused for a shard's limits, once enabled", counters(&["stream", "shard", "direction"]);
    shard_iterator_age_max: GaugeVec = "shard_iterator_age_max_seconds",
        "The furthest behind that a reader of a shard was within the last one to two minutes, once enabled",
        float_gauges(&["stream", "shard"]);
    consumer_subscriptions: IntCounterVec = "consumer_subscriptions_total",
        "Calls of SubscribeToShard by registered consumers", counters(&["stream", "consumer", "outcome"]);
    consumer_events: IntCounterVec = "consumer_events_total",
        "Events sent to registered consumers, and subscriptions ended by an error",
        counters(&["stream", "consumer", "outcome"]);
    consumer_event_bytes: IntCounterVec = "consumer_event_bytes_total",
        "Keys and data sent to registered consumers", counters(&["stream", "consumer"]);
    consumer_event_records: IntCounterVec = "consumer_event_records_total",
        "Records sent to registered consumers", counters(&["stream", "consumer"]);
    consumer_behind: HistogramVec = "consumer_behind_seconds",
        "How far behind the newest record a registered consumer was with an event",
        histograms(&["stream", "consumer"], AGE_SECONDS);
    consumer_behind_max: GaugeVec = "consumer_behind_max_seconds",
        "The furthest behind that a registered consumer was within the last one to two minutes",
        float_gauges(&["stream", "consumer"]);
    client_seconds: CounterVec = "client_throttle_seconds_total",
        "The same for each client id, or for an address that opens connections too fast",
        float_counters(&["quota", "client"]);
    quota_seconds: CounterVec = "quota_throttle_seconds_total",
        "Time that Kafka clients were told to pause for what their quotas allow", float_counters(&["quota"]);

    partition_bytes: IntGaugeVec = "partition_size_bytes",
        "Bytes of record batches a partition holds", gauges(&["stream", "partition"]);
    partition_start: IntGaugeVec = "partition_log_start_offset",
        "First offset a partition holds", gauges(&["stream", "partition"]);
    partition_end: IntGaugeVec = "partition_log_end_offset",
        "Offset of a partition's next record", gauges(&["stream", "partition"]);
    group_lag: IntGaugeVec = "group_lag_records",
        "Records between a group's committed offset and the end of the partition",
        gauges(&["group", "stream", "partition"]);
    group_lag_seconds: GaugeVec = "group_lag_seconds",
        "Age of the first record of a partition that a group has not committed; 0 when there is none",
        float_gauges(&["group", "stream", "partition"]);
    share_backlog: IntGaugeVec = "share_group_backlog_records",
        "Offsets of a partition that a share group has not processed",
        gauges(&["group", "stream", "partition"]);
    share_acquired: IntGaugeVec = "share_group_acquired_records",
        "Records of a partition that members of a share group hold", gauges(&["group", "stream", "partition"]);
    share_delivered: IntCounterVec = "share_group_delivered_records_total",
        "Deliveries of records to members of a share group", counters(&["group"]);
    share_acknowledged: IntCounterVec = "share_group_acknowledged_records_total",
        "Records that members of a share group acknowledged, by how", counters(&["group", "kind"]);
    share_archived: IntCounterVec = "share_group_archived_records_total",
        "Records that were delivered as often as they may be and are not any more", counters(&["group"]);
    transactions: IntGaugeVec = "transactions", "Transactional ids by state", gauges(&["state"]);
    transactions_ended: IntCounterVec = "transactions_ended_total",
        "Transactions that ended, by how", counters(&["outcome"]);
    transaction_seconds: HistogramVec = "transaction_seconds",
        "Time from the beginning of a transaction to its end", histograms(&["outcome"], TRANSACTION_SECONDS);
    groups: IntGaugeVec = "groups", "Groups by type and state", gauges(&["type", "state"]);
    retention_looked: IntGauge = "retention_last_look_timestamp_seconds",
        "Unix time at which retention's last look at all partitions ended; the start's until then", IntGauge::with_opts;
    retention_behind: Gauge = "retention_behind_seconds",
        "For how long the oldest record that is still there has been expired", Gauge::with_opts;
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
    store_compaction_pending: IntGauge = "store_compaction_pending_bytes",
        "Bytes that compactions of the store have still to go through", IntGauge::with_opts;
    store_write_delayed: IntGauge = "store_write_delayed_bytes_per_second",
        "To what the store slows down writes; 0 when it does not", IntGauge::with_opts;
    store_write_stopped: IntGauge = "store_write_stopped", "1 while the store stops writes", IntGauge::with_opts;
    volume_size: IntGaugeVec = "volume_size_bytes", "Size of the volume that the data folder is on", gauges(&[]);
    volume_free: IntGaugeVec = "volume_free_bytes", "What of it the broker may still use", gauges(&[]);
    memory_used: IntGaugeVec = "memory_budget_used_bytes", "Memory in use of each budget", gauges(&["budget"]);
    memory_limit: IntGaugeVec = "memory_budget_limit_bytes", "What each budget may take", gauges(&["budget"]);
    runtime_workers: IntGauge = "runtime_workers", "Threads that run tasks", IntGauge::with_opts;
    runtime_alive_tasks: IntGauge = "runtime_alive_tasks", "Tasks that have not ended", IntGauge::with_opts;
    runtime_queued_tasks: IntGauge = "runtime_queued_tasks",
        "Tasks that wait in the queue of all threads", IntGauge::with_opts;
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, series: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(series.clone()))?;
    Ok(series)
}

fn counters(labels: &[&str]) -> impl Fn(Opts) -> Result<IntCounterVec, prometheus::Error> {
    |opts| IntCounterVec::new(opts, labels)
}

fn float_counters(labels: &[&str]) -> impl Fn(Opts) -> Result<CounterVec, prometheus::Error> {
    |opts| CounterVec::new(opts, labels)
}

fn float_gauges(labels: &[&str]) -> impl Fn(Opts) -> Result<GaugeVec, prometheus::Error> {
    |opts| GaugeVec::new(opts, labels)
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
