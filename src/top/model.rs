//! From two samples to what is shown: rows of streams, partitions, shards, consumers and groups, with rates. Pure.
//!
//! A rate is the difference of a counter over the time between the samples. A counter that went back was reset, and
//! counted from zero; when the broker was started anew there is nothing to compare with. A series that has just come
//! began at zero.

use std::collections::BTreeMap;

use super::sample::{Sample, Series};

/// Rates are a second; none before there are two samples of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub broker: BrokerRow,
    /// By name.
    pub streams: BTreeMap<String, StreamRow>,
    /// Of all streams.
    pub groups: Vec<GroupRow>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerRow {
    pub version: String,
    pub uptime_s: Option<f64>,
    pub in_bytes: Option<f64>,
    pub in_records: Option<f64>,
    pub out_bytes: Option<f64>,
    pub out_records: Option<f64>,
    pub kafka_requests: Option<f64>,
    pub kinesis_requests: Option<f64>,
    /// Of requests of both doors.
    pub errors: Option<f64>,
    pub throttled: Option<f64>,
    pub kafka_connections: Option<f64>,
    pub http_connections: Option<f64>,
    pub disk_bytes: Option<f64>,
    pub resident_bytes: Option<f64>,
    /// Of one processor.
    pub cpu: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamRow {
    pub open_shards: Option<f64>,
    pub closed_shards: Option<f64>,
    pub in_bytes: Option<f64>,
    pub in_records: Option<f64>,
    pub out_bytes: Option<f64>,
    pub out_records: Option<f64>,
    pub write_throttled: Option<f64>,
    pub read_throttled: Option<f64>,
    /// Of Kinesis readers: how old what they read is.
    pub age_s: Option<f64>,
    pub size_bytes: Option<f64>,
    /// Of the group that is behind most.
    pub lag: Option<f64>,
    pub partitions: BTreeMap<u64, PartitionRow>,
    /// Where EnableEnhancedMonitoring asked for them.
    pub shards: BTreeMap<String, ShardRow>,
    pub consumers: BTreeMap<String, ConsumerRow>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionRow {
    pub log_start: Option<f64>,
    pub log_end: Option<f64>,
    pub size_bytes: Option<f64>,
    /// Offsets, so markers of transactions count.
    pub appended: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardRow {
    pub in_bytes: Option<f64>,
    pub in_records: Option<f64>,
    pub out_bytes: Option<f64>,
    pub out_records: Option<f64>,
    pub throttled: Option<f64>,
    pub age_s: Option<f64>,
}

/// Enhanced fan-out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerRow {
    pub bytes: Option<f64>,
    pub records: Option<f64>,
    pub behind_s: Option<f64>,
}

/// A group on a stream, all its partitions together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupRow {
    pub name: String,
    pub stream: String,
    pub shares: bool,
    pub partitions: usize,
    pub lag: f64,
    /// Of the partition that is behind most.
    pub lag_s: Option<f64>,
    /// Records a second that it comes closer to the end, or falls behind where negative.
    pub gains: Option<f64>,
}

/// Two samples of one run.
struct Pair<'a> {
    before: Option<&'a Sample>,
    now: &'a Sample,
    seconds: f64,
}

const STARTED: &str = "process_start_time_seconds";
const UPTIME: &str = "anabranch_uptime_seconds";

/// Whether the broker was started anew between the two.
pub fn restarted(before: &Sample, now: &Sample) -> bool {
    let went_back = before.value(UPTIME).zip(now.value(UPTIME)).is_some_and(|(before, now)| now < before);
    went_back || before.value(STARTED).zip(now.value(STARTED)).is_some_and(|(before, now)| now > before + 1.0)
}

/// `before` was taken `ms` earlier.
pub fn model(before: Option<(&Sample, i64)>, now: &Sample) -> Model {
    let before = before.filter(|(before, ms)| *ms > 0 && !restarted(before, now));
    let seconds = before.map_or(1.0, |(_, ms)| ms as f64 / 1_000.0);
    let pair = Pair { before: before.map(|(before, _)| before), now, seconds };
    let mut model = Model { broker: pair.broker(), ..Model::default() };
    pair.streams(&mut model.streams);
    pair.parts(&mut model.streams);
    pair.groups(&mut model);
    model
}

impl Pair<'_> {
    fn rate(&self, name: &str, now: &Series) -> Option<f64> {
        let before = self.before?.find(name, now).map_or(0.0, |before| before.value);
        let grown = if now.value >= before { now.value - before } else { now.value };
        Some(grown / self.seconds)
    }

    /// Of the series of a name that are wanted, together.
    fn rates(&self, name: &str, wanted: impl Fn(&Series) -> bool) -> Option<f64> {
        let series = self.now.all(name).iter().filter(|series| wanted(series));
        series
            .map(|series| self.rate(name, series))
            .try_fold(0.0, |sum, rate| Some(sum + rate?))
            .filter(|_| self.before.is_some())
    }

    fn broker(&self) -> BrokerRow {
        let all = |name: &str| self.rates(name, |_| true);
        let failed = |series: &Series| !matches!(series.label("error"), "" | "NONE");
        let errors = ["anabranch_kafka_requests_total", "anabranch_kinesis_requests_total"];
        let errors = errors.iter().map(|name| self.rates(name, failed));
        BrokerRow {
            version: self
                .now
                .all("anabranch_build_info")
                .first()
                .map_or("", |series| series.label("version"))
                .to_owned(),
            uptime_s: self.now.value(UPTIME),
            in_bytes: all("anabranch_stream_incoming_bytes_total"),
            in_records: all("anabranch_stream_incoming_records_total"),
            out_bytes: all("anabranch_stream_outgoing_bytes_total"),
            out_records: all("anabranch_stream_outgoing_records_total"),
            kafka_requests: all("anabranch_kafka_requests_total"),
            kinesis_requests: all("anabranch_kinesis_requests_total"),
            errors: errors.fold(self.before.map(|_| 0.0), |sum, rate| Some(sum? + rate?)),
            throttled: all("anabranch_stream_throttled_total"),
            kafka_connections: self.now.value("anabranch_kafka_connections"),
            http_connections: self.now.value("anabranch_http_connections"),
            disk_bytes: self.now.sum("anabranch_store_disk_bytes"),
            resident_bytes: self.now.value("process_resident_memory_bytes"),
            cpu: all("process_cpu_seconds_total"),
        }
    }

    fn streams(&self, streams: &mut BTreeMap<String, StreamRow>) {
        let mut each = |name: &str, set: fn(&mut StreamRow, &Series, Option<f64>)| {
            for series in self.now.all(name) {
                let stream = series.label("stream");
                if !stream.is_empty() {
                    set(streams.entry(stream.to_owned()).or_default(), series, self.rate(name, series));
                }
            }
        };
        each("anabranch_stream_shards", |row, series, _| match series.label("state") {
            "open" => row.open_shards = Some(series.value),
            _ => row.closed_shards = Some(series.value),
        });
        each("anabranch_stream_incoming_bytes_total", |row, _, rate| row.in_bytes = rate);
        each("anabranch_stream_incoming_records_total", |row, _, rate| row.in_records = rate);
        each("anabranch_stream_outgoing_bytes_total", |row, _, rate| row.out_bytes = rate);
        each("anabranch_stream_outgoing_records_total", |row, _, rate| row.out_records = rate);
        each("anabranch_stream_throttled_total", |row, series, rate| match series.label("direction") {
            "write" => add(&mut row.write_throttled, rate),
            _ => add(&mut row.read_throttled, rate),
        });
        each("anabranch_stream_iterator_age_max_seconds", |row, series, _| row.age_s = Some(series.value));
        each("anabranch_partition_size_bytes", |row, series, _| add(&mut row.size_bytes, Some(series.value)));
    }

    /// What streams consist of.
    fn parts(&self, streams: &mut BTreeMap<String, StreamRow>) {
        let mut each = |name: &str, label: &str, set: fn(&mut StreamRow, &str, &Series, Option<f64>)| {
            for series in self.now.all(name) {
                if let (Some(row), part) = (streams.get_mut(series.label("stream")), series.label(label)) {
                    set(row, part, series, self.rate(name, series));
                }
            }
        };
        fn partition<'a>(row: &'a mut StreamRow, index: &str) -> &'a mut PartitionRow {
            row.partitions.entry(index.parse().unwrap_or_default()).or_default()
        }
        fn shard<'a>(row: &'a mut StreamRow, id: &str) -> &'a mut ShardRow {
            row.shards.entry(id.to_owned()).or_default()
        }
        fn consumer<'a>(row: &'a mut StreamRow, name: &str) -> &'a mut ConsumerRow {
            row.consumers.entry(name.to_owned()).or_default()
        }
        each("anabranch_partition_size_bytes", "partition", |row, index, series, _| {
            partition(row, index).size_bytes = Some(series.value);
        });
        each("anabranch_partition_log_start_offset", "partition", |row, index, series, _| {
            partition(row, index).log_start = Some(series.value);
        });
        each("anabranch_partition_log_end_offset", "partition", |row, index, series, rate| {
            let row = partition(row, index);
            (row.log_end, row.appended) = (Some(series.value), rate);
        });
        each("anabranch_shard_incoming_bytes_total", "shard", |row, id, _, rate| shard(row, id).in_bytes = rate);
        each("anabranch_shard_incoming_records_total", "shard", |row, id, _, rate| shard(row, id).in_records = rate);
        each("anabranch_shard_outgoing_bytes_total", "shard", |row, id, _, rate| shard(row, id).out_bytes = rate);
        each("anabranch_shard_outgoing_records_total", "shard", |row, id, _, rate| shard(row, id).out_records = rate);
        each("anabranch_shard_throttled_total", "shard", |row, id, _, rate| add(&mut shard(row, id).throttled, rate));
        each("anabranch_shard_iterator_age_max_seconds", "shard", |row, id, series, _| {
            shard(row, id).age_s = Some(series.value);
        });
        each("anabranch_consumer_event_bytes_total", "consumer", |row, name, _, rate| consumer(row, name).bytes = rate);
        each("anabranch_consumer_event_records_total", "consumer", |row, name, _, rate| {
            consumer(row, name).records = rate;
        });
        each("anabranch_consumer_behind_max_seconds", "consumer", |row, name, series, _| {
            consumer(row, name).behind_s = Some(series.value);
        });
    }

    fn groups(&self, model: &mut Model) {
        let mut groups: BTreeMap<(String, String, bool), GroupRow> = BTreeMap::new();
        for (name, shares) in [("anabranch_group_lag_records", false), ("anabranch_share_group_backlog_records", true)]
        {
            for series in self.now.all(name) {
                let (group, stream) = (series.label("group").to_owned(), series.label("stream").to_owned());
                let row = groups.entry((group.clone(), stream.clone(), shares)).or_insert_with(|| GroupRow {
                    name: group,
                    stream,
                    shares,
                    gains: self.before.map(|_| 0.0),
                    ..GroupRow::default()
                });
                row.partitions += 1;
                row.lag += series.value;
                let before = self.before.and_then(|before| before.find(name, series));
                row.gains = row
                    .gains
                    .map(|gains| gains + before.map_or(0.0, |before| before.value - series.value) / self.seconds);
            }
        }
        for series in self.now.all("anabranch_group_lag_seconds") {
            let key = (series.label("group").to_owned(), series.label("stream").to_owned(), false);
            if let Some(row) = groups.get_mut(&key) {
                row.lag_s = Some(row.lag_s.map_or(series.value, |lag| lag.max(series.value)));
            }
        }
        for row in groups.values() {
            if let Some(stream) = model.streams.get_mut(&row.stream) {
                stream.lag = Some(stream.lag.map_or(row.lag, |lag| lag.max(row.lag)));
            }
        }
        model.groups = groups.into_values().collect();
    }
}

/// None only where nothing is known.
fn add(sum: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(uptime_s: u64, bytes: u64, throttled: u64, lag: u64) -> Sample {
        let text = format!(
            "anabranch_build_info{{version=\"1.2.3\"}} 1\nanabranch_uptime_seconds {uptime_s}\n\
             anabranch_stream_incoming_bytes_total{{stream=\"a\"}} {bytes}\n\
             anabranch_stream_incoming_bytes_total{{stream=\"b\"}} 7\n\
             anabranch_stream_throttled_total{{stream=\"a\",direction=\"write\",policy=\"enforce\"}} {throttled}\n\
             anabranch_stream_throttled_total{{stream=\"a\",direction=\"write\",policy=\"observe\"}} {throttled}\n\
             anabranch_kafka_requests_total{{api=\"Fetch\",error=\"NONE\"}} {bytes}\n\
             anabranch_kafka_requests_total{{api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"}} {throttled}\n\
             anabranch_stream_shards{{stream=\"a\",state=\"open\"}} 3\n\
             anabranch_partition_log_end_offset{{stream=\"a\",partition=\"1\"}} {bytes}\n\
             anabranch_shard_incoming_bytes_total{{stream=\"a\",shard=\"shardId-000000000000\"}} {bytes}\n\
             anabranch_consumer_event_bytes_total{{stream=\"a\",consumer=\"c\"}} {bytes}\n\
             anabranch_group_lag_records{{group=\"g\",stream=\"a\",partition=\"0\"}} {lag}\n\
             anabranch_group_lag_records{{group=\"g\",stream=\"a\",partition=\"1\"}} 5\n\
             anabranch_group_lag_seconds{{group=\"g\",stream=\"a\",partition=\"0\"}} 9\n"
        );
        Sample::parse(&text).unwrap()
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let (before, now) = (sample(10, 1_000, 4, 100), sample(14, 3_000, 6, 60));
        let model = model(Some((&before, 4_000)), &now);
        let a = &model.streams["a"];
        assert_eq!((a.in_bytes, model.streams["b"].in_bytes), (Some(500.0), Some(0.0)));
        assert_eq!((a.write_throttled, a.read_throttled), (Some(1.0), None), "both policies together");
        assert_eq!((a.open_shards, a.lag), (Some(3.0), Some(65.0)));
        assert_eq!(a.partitions[&1].appended, Some(500.0));
        assert_eq!(a.shards["shardId-000000000000"].in_bytes, Some(500.0));
        assert_eq!(a.consumers["c"].bytes, Some(500.0));
        let group = &model.groups[0];
        assert_eq!((group.partitions, group.lag, group.lag_s, group.gains), (2, 65.0, Some(9.0), Some(10.0)));
        let broker = &model.broker;
        assert_eq!((&*broker.version, broker.uptime_s, broker.in_bytes), ("1.2.3", Some(14.0), Some(500.0)));
        assert_eq!((broker.kafka_requests, broker.errors), (Some(500.5), Some(0.5)));
    }

    #[test]
    fn a_first_look_has_no_rates_and_neither_has_one_at_another_run() {
        let (long_ago, now) = (sample(1_000, 9, 9, 9), sample(14, 3_000, 6, 60));
        for before in [None, Some((&long_ago, 4_000)), Some((&now, 0))] {
            let model = model(before, &now);
            let a = &model.streams["a"];
            assert_eq!((a.in_bytes, model.broker.errors, model.groups[0].gains), (None, None, None));
            assert_eq!((a.open_shards, a.lag), (Some(3.0), Some(65.0)), "what stands is told");
        }
        assert!(restarted(&long_ago, &now) && !restarted(&now, &now));
    }

    #[test]
    fn a_counter_that_went_back_counts_from_zero_and_so_does_a_new_one() {
        let (before, now) = (sample(10, 1_000, 4, 0), sample(12, 400, 4, 0));
        let told = model(Some((&before, 2_000)), &now);
        assert_eq!(told.streams["a"].in_bytes, Some(200.0));
        let nothing = Sample::parse("anabranch_uptime_seconds 10\n").unwrap();
        assert_eq!(model(Some((&nothing, 2_000)), &now).streams["a"].in_bytes, Some(200.0));
    }
}
