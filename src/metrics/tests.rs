use std::collections::HashSet;

use super::*;
use crate::model::ids::ShardOrdinal;

const SHARD: ShardOrdinal = ShardOrdinal(0);
const SHARD_LEVEL: [&str; 7] = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
];

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
    metrics.api("Produce").observe("NONE", 0.002, None);
    metrics.operation("PutRecords").observe("ResourceNotFoundException", 0.002, None);
    let orders = metrics.stream("orders");
    orders.enable_shard_level(&SHARD_LEVEL.map(str::to_owned).into());
    orders.incoming(SHARD, 1, 1);
    orders.outgoing(SHARD, 1, 1);
    orders.iterator_age(SHARD, 1, 0);
    orders.throttled(Direction::Read, SHARD, false);
    orders.consumer("app").event(1, 1, 1, 0);
    metrics.cloudwatch_operation("PutMetricData").observe("NONE", 0.002, None);
    metrics.audit_lost(1);
    drop(metrics.connection_opened());
    metrics.connection_refused("too_many");
    metrics.quota_paused("producer_byte_rate", "app", 1);
    metrics.transaction_ended("commit", 1);
    let share_group = metrics.share_group("s");
    share_group.delivered(1);
    share_group.acknowledged("accept", 1);
    metrics.watch_budget("tail", 10, || 5);
    drop(metrics.http_connection_opened());
    metrics.http_refused("signature");
    metrics.store_commit(0.001, 3);
    let text = metrics.render(TextFormat::Prometheus, |scrape| {
        scrape.stream(&orders, 1, 0, 0);
        scrape.partition("orders", 0, 1, 2, 3);
        scrape.group_lag("g", "orders", 0, 1, Some(1));
        scrape.transactions("Ongoing", 1);
        scrape.volume(2, 1);
        scrape.share_backlog("s", "orders", 0, 1, 1);
        scrape.groups("classic", "Stable", 1);
        scrape.store_disk("files", 1);
        scrape.store_memory("memtables", 1);
    });
    for Declared { name, kind, help, .. } in Metrics::declared() {
        assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name} has no help");
        assert!(samples(&text).iter().any(|(series, _)| series.starts_with(&name)), "{name} has no sample");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
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
    produce.observe("NONE", 0.0002, None);
    produce.observe("NONE", 40.0, None);
    produce.observe("CORRUPT_MESSAGE", 0.0002, None);
    let text = metrics.render(TextFormat::Prometheus, |_| ());
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
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    assert_eq!(value(&text, "anabranch_kafka_connections"), Some(1.0));
    assert_eq!(value(&text, "anabranch_kafka_connections_accepted_total"), Some(2.0));
}

#[test]
fn topics_beyond_the_bound_share_one_series() {
    let metrics = Metrics::new(2);
    let streams = ["a", "b", "c", "d", "_other"].map(|name| metrics.stream(name));
    for stream in &streams {
        stream.incoming(SHARD, 1, 10);
    }
    metrics.stream("a").incoming(SHARD, 1, 1);
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    let bytes =
        |text: &str, topic: &str| value(text, &format!("anabranch_stream_incoming_bytes_total{{stream=\"{topic}\"}}"));
    assert_eq!(count(&text, "anabranch_stream_incoming_bytes_total"), 3);
    assert_eq!((bytes(&text, "a"), bytes(&text, "b"), bytes(&text, "_other")), (Some(11.0), Some(10.0), Some(30.0)));

    // A deleted topic's series vanish and make room; what is folded stays, whatever a client called its topic.
    for deleted in [0, 2, 4] {
        metrics.forget_stream(&streams[deleted]);
    }
    streams[0].incoming(SHARD, 1, 1);
    metrics.stream("e").incoming(SHARD, 1, 1);
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    assert_eq!((bytes(&text, "a"), bytes(&text, "e"), bytes(&text, "_other")), (None, Some(1.0), Some(30.0)));
}

#[test]
fn what_a_scrape_does_not_write_is_gone() {
    let metrics = Metrics::new(2);
    let text = metrics.render(TextFormat::Prometheus, |scrape| {
        for partition in 0..4 {
            scrape.partition("orders", partition, 100, 5, 10);
            scrape.group_lag("g", "orders", partition, 7, Some(i64::from(partition) * 1_000));
        }
        scrape.groups("classic", "Stable", 1);
    });
    let lag = "anabranch_group_lag_records{group=\"_other\",partition=\"_other\",stream=\"_other\"}";
    assert_eq!(count(&text, "anabranch_partition_size_bytes"), 3);
    assert_eq!(value(&text, "anabranch_partition_size_bytes{partition=\"1\",stream=\"orders\"}"), Some(100.0));
    assert_eq!(value(&text, "anabranch_partition_log_end_offset{partition=\"_other\",stream=\"_other\"}"), Some(20.0));
    assert_eq!((count(&text, "anabranch_group_lag_records"), value(&text, lag)), (3, Some(14.0)));
    let oldest = "anabranch_group_lag_seconds{group=\"_other\",partition=\"_other\",stream=\"_other\"}";
    assert_eq!((count(&text, "anabranch_group_lag_seconds"), value(&text, oldest)), (3, Some(3.0)));

    let text = metrics.render(TextFormat::Prometheus, |scrape| scrape.partition("orders", 0, 1, 2, 3));
    assert_eq!(count(&text, "anabranch_partition_"), 3);
    assert_eq!(value(&text, "anabranch_partition_size_bytes{partition=\"0\",stream=\"orders\"}"), Some(1.0));
    assert_eq!(count(&text, "anabranch_group"), 0);
}

#[test]
fn names_of_clients_are_escaped() {
    let metrics = Metrics::new(2);
    let text = metrics.render(TextFormat::Prometheus, |scrape| scrape.group_lag("a\"b\\c\nd", "t", 0, 1, None));
    assert_eq!(count(&text, "anabranch_group_lag_records{group=\"a\\\"b\\\\c\\nd\""), 1);
}

#[test]
fn shards_have_series_as_far_as_they_are_enabled_and_while_they_are() {
    let metrics = Metrics::new(2);
    let stream = metrics.stream("orders");
    let counted =
        |name: &str| count(&metrics.render(TextFormat::Prometheus, |_| ()), &format!("anabranch_shard_{name}"));
    stream.incoming(SHARD, 1, 10);
    assert_eq!(counted(""), 0);
    stream.enable_shard_level(&["IncomingBytes", "OutgoingRecords"].map(str::to_owned).into());
    for shard in 0..4 {
        stream.incoming(ShardOrdinal(shard), 1, 10);
        stream.outgoing(ShardOrdinal(shard), 1, 10);
    }
    assert_eq!((counted("incoming_bytes"), counted("outgoing_records"), counted("")), (3, 3, 6), "two and the others");
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    let bytes = |text: &str, shard: &str| {
        value(text, &format!("anabranch_shard_incoming_bytes_total{{shard=\"{shard}\",stream=\"orders\"}}"))
    };
    assert_eq!((bytes(&text, "shardId-000000000000"), bytes(&text, "_other")), (Some(10.0), Some(20.0)));

    stream.enable_shard_level(&["IncomingBytes".to_owned()].into());
    stream.incoming(SHARD, 1, 1);
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    assert_eq!(bytes(&text, "shardId-000000000000"), Some(11.0), "what stays enabled goes on counting");
    assert_eq!(
        value(&text, "anabranch_shard_outgoing_records_total{shard=\"shardId-000000000000\",stream=\"orders\"}"),
        None
    );
    // One that is gone makes room for another.
    stream.retain(|shard| shard != SHARD, |_| true);
    stream.incoming(ShardOrdinal(9), 1, 5);
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    assert_eq!((bytes(&text, "shardId-000000000000"), bytes(&text, "shardId-000000000009")), (None, Some(5.0)));

    metrics.forget_stream(&stream);
    stream.incoming(ShardOrdinal(9), 1, 5);
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    assert_eq!(count(&text, "anabranch_stream_"), 0);
    assert_eq!(bytes(&text, "shardId-000000000009"), None);
}

#[test]
fn consumers_beyond_the_bound_share_one_series() {
    let metrics = Metrics::new(1);
    let stream = metrics.stream("orders");
    for name in ["a", "b", "c"] {
        stream.consumer(name).event(1, 10, 500, 0);
    }
    let text = metrics.render(TextFormat::Prometheus, |scrape| scrape.stream(&stream, 1, 0, 0));
    let bytes = |text: &str, consumer: &str| {
        value(text, &format!("anabranch_consumer_event_bytes_total{{consumer=\"{consumer}\",stream=\"orders\"}}"))
    };
    assert_eq!((bytes(&text, "a"), bytes(&text, "b"), bytes(&text, "_other")), (Some(10.0), None, Some(20.0)));
    assert_eq!(value(&text, "anabranch_consumer_behind_max_seconds{consumer=\"a\",stream=\"orders\"}"), Some(0.5));
    stream.retain(|_| true, |consumer| consumer != "a");
    assert_eq!(bytes(&metrics.render(TextFormat::Prometheus, |_| ()), "a"), None);
}

#[test]
fn the_furthest_behind_is_that_of_the_last_minutes() {
    let metrics = Metrics::new(1);
    let stream = metrics.stream("orders");
    let furthest = |now_ms| {
        let text = metrics.render(TextFormat::Prometheus, |scrape| scrape.stream(&stream, 1, 0, now_ms));
        value(&text, "anabranch_stream_iterator_age_max_seconds{stream=\"orders\"}")
    };
    assert_eq!(furthest(0), None);
    stream.iterator_age(SHARD, 9_000, 0);
    stream.iterator_age(SHARD, 1_000, 59_000);
    assert_eq!(furthest(59_999), Some(9.0));
    stream.iterator_age(SHARD, 2_000, 61_000);
    assert_eq!(furthest(61_000), Some(9.0));
    stream.iterator_age(SHARD, 3_000, 121_000);
    assert_eq!(furthest(121_000), Some(3.0));
    assert_eq!(furthest(241_000), None);
}

#[test]
fn clients_and_share_groups_beyond_the_bound_share_one_series() {
    let metrics = Metrics::new(1);
    for client in ["a", "b", "c", "a"] {
        metrics.quota_paused("producer_byte_rate", client, 500);
        let group = metrics.share_group(client);
        group.delivered(2);
        group.acknowledged("reject", 1);
    }
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    let client = |client: &str| {
        let series = "anabranch_client_throttle_seconds_total";
        value(&text, &format!("{series}{{client=\"{client}\",quota=\"producer_byte_rate\"}}"))
    };
    assert_eq!((client("a"), client("b"), client("_other")), (Some(1.0), None, Some(1.0)));
    assert_eq!(value(&text, "anabranch_quota_throttle_seconds_total{quota=\"producer_byte_rate\"}"), Some(2.0));
    let delivered = |text: &str, group: &str| {
        value(text, &format!("anabranch_share_group_delivered_records_total{{group=\"{group}\"}}"))
    };
    assert_eq!((delivered(&text, "a"), delivered(&text, "_other")), (Some(4.0), Some(4.0)));
    metrics.forget_share_group("a");
    let text = metrics.render(TextFormat::Prometheus, |_| ());
    assert_eq!((delivered(&text, "a"), delivered(&text, "_other")), (None, Some(4.0)));
    assert_eq!(count(&text, "anabranch_share_group_acknowledged_records_total{group=\"a\""), 0);
}
