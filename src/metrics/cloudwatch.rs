//! Which series is which of CloudWatch's metrics of Kinesis Data Streams, and their present values by that name. Read by
//! the CloudWatch door, and by whoever wants the table for people.
//!
//! Source: "Monitor the Amazon Kinesis Data Streams service with Amazon CloudWatch".

use std::collections::BTreeMap;
use std::fmt::Write;

use prometheus::proto::{Metric, MetricFamily};

use super::{Metrics, StreamMetrics};

const STREAM: &str = "stream";
const SHARD: &str = "shard";
const CONSUMER: &str = "consumer";

/// A metric of the namespace `AWS/Kinesis`.
#[derive(Debug, PartialEq)]
pub struct CloudWatch {
    pub name: &'static str,
    pub unit: Unit,
    pub level: Level,
    /// What its sum is the growth of.
    sum: Option<Source>,
    /// What the count of its samples is the growth of; `None` where nobody counts them.
    samples: Option<Source>,
    /// A gauge with its maximum.
    largest: Option<Source>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Count,
    Milliseconds,
}

/// What a metric is told of, by its dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `StreamName`.
    Stream,
    /// `StreamName` and `ShardId`; only what EnableEnhancedMonitoring has enabled.
    Shard,
    /// `StreamName` and `ConsumerName`.
    Consumer,
}

/// Those of a series that have these labels, added up by stream, shard and consumer.
#[derive(Debug, PartialEq)]
struct Source {
    /// Without the prefix that all have.
    series: &'static str,
    labels: &'static [(&'static str, &'static str)],
    /// Of a histogram, its count instead of its sum.
    counts: bool,
}

const fn of(series: &'static str, labels: &'static [(&'static str, &'static str)]) -> Option<Source> {
    Some(Source { series, labels, counts: false })
}

const fn count_of(series: &'static str, labels: &'static [(&'static str, &'static str)]) -> Option<Source> {
    Some(Source { series, labels, counts: true })
}

/// Reads rows of: `"name" unit level = sum, samples, largest;`.
macro_rules! metrics {
    ($($name:literal $unit:ident $level:ident = $sum:expr, $samples:expr, $largest:expr;)+) => {
        pub const METRICS: &[CloudWatch] = &[$(CloudWatch {
            name: $name,
            unit: Unit::$unit,
            level: Level::$level,
            sum: $sum,
            samples: $samples,
            largest: $largest,
        }),+];
    };
}

const GET: (&str, &str) = ("operation", "GetRecords");
const PUT_ONE: (&str, &str) = ("operation", "PutRecord");
const PUT: (&str, &str) = ("operation", "PutRecords");
const WELL: (&str, &str) = ("outcome", "success");
const REFUSED: (&str, &str) = ("policy", "enforce");
const READS: (&str, &str) = ("direction", "read");
const WRITES: (&str, &str) = ("direction", "write");

metrics! {
    "GetRecords.Bytes" Bytes Stream = of("stream_request_bytes_total", &[GET]), of("stream_requests_total", &[GET, WELL]), None;
    "GetRecords.IteratorAgeMilliseconds" Milliseconds Stream = of("stream_iterator_age_seconds", &[]),
        count_of("stream_iterator_age_seconds", &[]), of("stream_iterator_age_max_seconds", &[]);
    "GetRecords.Latency" Milliseconds Stream = of("stream_request_seconds", &[GET]),
        count_of("stream_request_seconds", &[GET]), None;
    "GetRecords.Records" Count Stream = of("stream_request_records_total", &[GET]),
        of("stream_requests_total", &[GET, WELL]), None;
    "GetRecords.Success" Count Stream = of("stream_requests_total", &[GET, WELL]), of("stream_requests_total", &[GET]), None;
    "IncomingBytes" Bytes Stream = of("stream_incoming_bytes_total", &[]), None, None;
    "IncomingRecords" Count Stream = of("stream_incoming_records_total", &[]), None, None;
    "PutRecord.Bytes" Bytes Stream = of("stream_request_bytes_total", &[PUT_ONE]),
        of("stream_requests_total", &[PUT_ONE, WELL]), None;
    "PutRecord.Latency" Milliseconds Stream = of("stream_request_seconds", &[PUT_ONE]),
        count_of("stream_request_seconds", &[PUT_ONE]), None;
    "PutRecord.Success" Count Stream = of("stream_requests_total", &[PUT_ONE, WELL]),
        of("stream_requests_total", &[PUT_ONE]), None;
    "PutRecords.Bytes" Bytes Stream = of("stream_request_bytes_total", &[PUT]), of("stream_requests_total", &[PUT, WELL]), None;
    "PutRecords.Latency" Milliseconds Stream = of("stream_request_seconds", &[PUT]),
        count_of("stream_request_seconds", &[PUT]), None;
    "PutRecords.Success" Count Stream = of("stream_requests_total", &[PUT, WELL]), of("stream_requests_total", &[PUT]), None;
    "PutRecords.TotalRecords" Count Stream = of("stream_request_records_total", &[PUT]), of("stream_requests_total", &[PUT]), None;
    "PutRecords.SuccessfulRecords" Count Stream = of("stream_request_records_total", &[PUT, ("outcome", "successful")]),
        of("stream_requests_total", &[PUT]), None;
    "PutRecords.FailedRecords" Count Stream = of("stream_request_records_total", &[PUT, ("outcome", "failed")]),
        of("stream_requests_total", &[PUT]), None;
    "PutRecords.ThrottledRecords" Count Stream = of("stream_request_records_total", &[PUT, ("outcome", "throttled")]),
        of("stream_requests_total", &[PUT]), None;
    "ReadProvisionedThroughputExceeded" Count Stream = of("stream_throttled_total", &[READS, REFUSED]), None, None;
    "WriteProvisionedThroughputExceeded" Count Stream = of("stream_throttled_total", &[WRITES, REFUSED]), None, None;
    "SubscribeToShard.RateExceeded" Count Consumer = of("consumer_subscriptions_total", &[("outcome", "rate_exceeded")]),
        of("consumer_subscriptions_total", &[]), None;
    "SubscribeToShard.Success" Count Consumer = of("consumer_subscriptions_total", &[WELL]),
        of("consumer_subscriptions_total", &[]), None;
    "SubscribeToShardEvent.Success" Count Consumer = of("consumer_events_total", &[WELL]), of("consumer_events_total", &[]), None;
    "SubscribeToShardEvent.Bytes" Bytes Consumer = of("consumer_event_bytes_total", &[]),
        of("consumer_events_total", &[WELL]), None;
    "SubscribeToShardEvent.Records" Count Consumer = of("consumer_event_records_total", &[]),
        of("consumer_events_total", &[WELL]), None;
    "SubscribeToShardEvent.MillisBehindLatest" Milliseconds Consumer = of("consumer_behind_seconds", &[]),
        count_of("consumer_behind_seconds", &[]), of("consumer_behind_max_seconds", &[]);
    "IncomingBytes" Bytes Shard = of("shard_incoming_bytes_total", &[]), None, None;
    "IncomingRecords" Count Shard = of("shard_incoming_records_total", &[]), None, None;
    "IteratorAgeMilliseconds" Milliseconds Shard = None, None, of("shard_iterator_age_max_seconds", &[]);
    "OutgoingBytes" Bytes Shard = of("shard_outgoing_bytes_total", &[]), None, None;
    "OutgoingRecords" Count Shard = of("shard_outgoing_records_total", &[]), None, None;
    "ReadProvisionedThroughputExceeded" Count Shard = of("shard_throttled_total", &[READS]), None, None;
    "WriteProvisionedThroughputExceeded" Count Shard = of("shard_throttled_total", &[WRITES]), None, None;
}

/// A metric of one stream, shard or consumer as it stands. Sums and samples count from the start of the server, so what
/// came within a period is the difference of two readings.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub metric: &'static CloudWatch,
    pub stream: String,
    pub shard: Option<String>,
    pub consumer: Option<String>,
    /// In the metric's unit. `None`: only the maximum is known.
    pub sum: Option<f64>,
    pub samples: Option<f64>,
    /// The maximum of the last one to two minutes, in the metric's unit.
    pub largest: Option<f64>,
}

/// Whose value it is: stream, shard and consumer, the latter two empty where there is none.
type Subject = (String, String, String);

impl Source {
    /// The value of everything that it selects.
    fn read(&self, families: &[MetricFamily], unit: Unit) -> BTreeMap<Subject, f64> {
        let is_it = |family: &&MetricFamily| family.name().strip_prefix(super::PREFIX) == Some(self.series);
        let mut values = BTreeMap::new();
        for metric in families.iter().find(is_it).into_iter().flat_map(MetricFamily::get_metric) {
            let label = |wanted: &str| {
                metric.get_label().iter().find(|label| label.name() == wanted).map_or("", |label| label.value())
            };
            if self.labels.iter().all(|(name, value)| label(name) == *value) {
                let subject = [STREAM, SHARD, CONSUMER].map(|name| label(name).to_owned()).into();
                *values.entry(subject).or_default() += self.value(metric, unit);
            }
        }
        values
    }

    fn value(&self, metric: &Metric, unit: Unit) -> f64 {
        let histogram = metric.get_histogram();
        // Exactly one of the kinds is set.
        let value = match self.counts {
            true => return histogram.get_sample_count() as f64,
            false => metric.get_counter().get_value() + metric.get_gauge().get_value() + histogram.get_sample_sum(),
        };
        match unit {
            // Series are in seconds, samples are counted.
            Unit::Milliseconds => value * 1e3,
            Unit::Bytes | Unit::Count => value,
        }
    }

    fn shown(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        match labels.is_empty() {
            true => format!("{}{}", super::PREFIX, self.series),
            false => format!("{}{}{{{}}}", super::PREFIX, self.series, labels.join(",")),
        }
    }
}

impl CloudWatch {
    fn read(&'static self, families: &[MetricFamily]) -> Vec<Reading> {
        let read = |source: &Option<Source>| source.as_ref().map(|source| source.read(families, self.unit));
        let (sums, samples, largest) = (read(&self.sum), read(&self.samples), read(&self.largest));
        let known = sums.as_ref().or(largest.as_ref());
        let subjects: Vec<_> = known.into_iter().flat_map(|known| known.keys().cloned()).collect();
        let named = |name: &String| (!name.is_empty()).then(|| name.clone());
        subjects
            .into_iter()
            .map(|subject| {
                let at = |values: &Option<BTreeMap<_, f64>>| values.as_ref().and_then(|all| all.get(&subject)).copied();
                Reading {
                    metric: self,
                    stream: subject.0.clone(),
                    shard: named(&subject.1),
                    consumer: named(&subject.2),
                    sum: at(&sums),
                    samples: at(&samples),
                    largest: at(&largest),
                }
            })
            .collect()
    }
}

impl Metrics {
    /// All of [`METRICS`] as they stand; `now_ms` is of the clock that never goes back. What has no series of its own is
    /// told of a stream called `_other`.
    pub fn cloudwatch<'a>(&self, streams: impl IntoIterator<Item = &'a StreamMetrics>, now_ms: i64) -> Vec<Reading> {
        let _one_at_a_time = self.scraping.lock();
        self.series.reset_ages();
        streams.into_iter().for_each(|stream| stream.write_ages(now_ms));
        let families = self.registry.gather();
        METRICS.iter().flat_map(|metric| metric.read(&families)).collect()
    }
}

/// [`METRICS`] for people, as a table of Markdown.
pub fn table() -> String {
    let mut table = "| CloudWatch | unit | dimensions | Prometheus |\n|---|---|---|---|\n".to_owned();
    for metric in METRICS {
        let dimensions = match metric.level {
            Level::Stream => "StreamName",
            Level::Shard => "StreamName, ShardId",
            Level::Consumer => "StreamName, ConsumerName",
        };
        let shown = |source: &Option<Source>| source.as_ref().map(|source| format!("`{}`", source.shown()));
        let sources: Vec<_> = [&metric.sum, &metric.largest].into_iter().filter_map(shown).collect();
        // Writing to a text does not fail.
        let _ = writeln!(table, "| {} | {:?} | {dimensions} | {} |", metric.name, metric.unit, sources.join("; "));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::{Direction, Metrics, Records, Subscribed};
    use crate::model::ids::ShardOrdinal;

    #[test]
    fn every_source_is_declared_with_its_labels() {
        let declared = Metrics::declared();
        for metric in METRICS {
            for source in [&metric.sum, &metric.samples, &metric.largest].into_iter().flatten() {
                let found =
                    declared.iter().find(|one| one.name == format!("{}{}", super::super::PREFIX, source.series));
                let found = found.unwrap_or_else(|| panic!("{} is not declared", source.series));
                let subject: &[&str] = match metric.level {
                    Level::Stream => &[STREAM],
                    Level::Shard => &[STREAM, SHARD],
                    Level::Consumer => &[STREAM, CONSUMER],
                };
                let needed = source.labels.iter().map(|(name, _)| *name).chain(subject.iter().copied());
                for label in needed {
                    assert!(found.labels.iter().any(|known| known == label), "{} has no {label}", source.series);
                }
            }
        }
        assert_eq!(table().lines().count(), METRICS.len() + 2);
    }

    #[test]
    fn readings_are_in_the_units_of_cloudwatch_and_by_its_dimensions() {
        let metrics = Metrics::new(10);
        let stream = metrics.stream("orders");
        let shard = ShardOrdinal(3);
        stream.enable_shard_level(&BTreeSet::from(["IncomingBytes".to_owned(), "IteratorAgeMilliseconds".to_owned()]));
        stream.incoming(shard, 2, 300);
        stream.iterator_age(shard, 5_000, 0);
        stream.iterator_age(shard, 1_000, 0);
        stream.throttled(Direction::Write, shard, false);
        stream.throttled(Direction::Write, shard, true);
        stream.put_records.records(Records { successful: 7, failed: 1, throttled: 2, bytes: 700 });
        stream.put_records.answered(true, 0.25);
        stream.put_records.answered(false, 0.25);
        let consumer = stream.consumer("app");
        consumer.subscribed(Subscribed::RateExceeded);
        consumer.event(4, 40, 2_000, 0);

        let readings = metrics.cloudwatch([&stream], 1_000);
        let read = |name: &str, level: Level| {
            let mut found = readings.iter().filter(|one| one.metric.name == name && one.metric.level == level);
            let (first, next) = (found.next(), found.next());
            assert_eq!(next, None, "{name}");
            first.map(|one| (one.sum, one.samples, one.largest))
        };
        assert_eq!(read("IncomingBytes", Level::Stream), Some((Some(300.0), None, None)));
        assert_eq!(read("IncomingBytes", Level::Shard), Some((Some(300.0), None, None)));
        assert_eq!(read("IncomingRecords", Level::Shard), None, "not enabled");
        assert_eq!(read("IteratorAgeMilliseconds", Level::Shard), Some((None, None, Some(5_000.0))));
        let age = (Some(6_000.0), Some(2.0), Some(5_000.0));
        assert_eq!(read("GetRecords.IteratorAgeMilliseconds", Level::Stream), Some(age));
        assert_eq!(read("WriteProvisionedThroughputExceeded", Level::Stream), Some((Some(1.0), None, None)));
        assert_eq!(read("PutRecords.TotalRecords", Level::Stream), Some((Some(10.0), Some(2.0), None)));
        assert_eq!(read("PutRecords.ThrottledRecords", Level::Stream), Some((Some(2.0), Some(2.0), None)));
        assert_eq!(read("PutRecords.Success", Level::Stream), Some((Some(1.0), Some(2.0), None)));
        assert_eq!(read("PutRecords.Latency", Level::Stream), Some((Some(500.0), Some(2.0), None)));
        assert_eq!(read("SubscribeToShard.RateExceeded", Level::Consumer), Some((Some(1.0), Some(1.0), None)));
        let behind = (Some(2_000.0), Some(1.0), Some(2_000.0));
        assert_eq!(read("SubscribeToShardEvent.MillisBehindLatest", Level::Consumer), Some(behind));
        let of_shard = readings.iter().find(|one| one.metric.level == Level::Shard).unwrap();
        assert_eq!((&*of_shard.stream, of_shard.shard.as_deref()), ("orders", Some("shardId-000000000003")));

        // Two minutes later nobody has read anything lately.
        let readings = metrics.cloudwatch([&stream], 121_000);
        let age = readings.iter().find(|one| one.metric.name == "GetRecords.IteratorAgeMilliseconds").unwrap();
        assert_eq!((age.sum, age.largest), (Some(6_000.0), None));
    }
}
