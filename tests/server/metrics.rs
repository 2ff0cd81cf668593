//! What `/metrics` tells after loads on all paths: everything that is declared, and the numbers that were sent.

use std::collections::BTreeMap;

use anabranch::metrics::{Kind, Metrics, cloudwatch};
use anabranch::model::attributes::LimitsPolicy;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProducerId, TransactionalId,
};
use serde_json::json;

use crate::groups::commit;
use crate::harness::kinesis::free;
use crate::harness::{Broker, Client, PRODUCE, batch, metrics, produce, text, topic};
use crate::share::Member;
use crate::throttling::limit;

const SHARD_0: &str = "shardId-000000000000";
const SECOND: i64 = 1_000;

/// What is rightly absent here: a store in memory is on no volume, and no audit log is written.
const ABSENT: &[&str] = &["anabranch_volume_size_bytes", "anabranch_volume_free_bytes", "anabranch_audit_events_total"];

/// One sample, by its labels in the order of their names.
fn sample(told: &BTreeMap<String, f64>, series: &str) -> f64 {
    let named = format!("anabranch_{series}");
    *told.get(&named).unwrap_or_else(|| panic!("no {named}"))
}

/// A transaction that holds nothing but a partition.
async fn transaction(client: &mut Client, name: &str, committed: bool) {
    let id = || TransactionalId(text("tx"));
    let begin = InitProducerIdRequest::default().with_transactional_id(Some(id())).with_transaction_timeout_ms(60_000);
    let begun = client.call(begin, 4).await;
    assert_eq!(begun.error_code, 0);
    let (producer_id, epoch) = (ProducerId(*begun.producer_id), begun.producer_epoch);
    let wanted = AddPartitionsToTxnTopic::default().with_name(topic(name)).with_partitions(vec![0]);
    let add = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(producer_id)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(vec![wanted]);
    let added = client.call(add, 3).await;
    assert_eq!(added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
    let end = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(producer_id)
        .with_producer_epoch(epoch)
        .with_committed(committed);
    assert_eq!(client.call(end, 3).await.error_code, 0);
}

/// A broker whose shards have limits and nothing else has.
async fn loaded() -> Broker {
    let broker = Broker::with(|config| {
        free(config);
        config.kinesis_limits = LimitsPolicy::Enforce;
    });
    let broker = broker.await;
    load(&broker).await;
    broker
}

/// Records through every door, and calls that are refused.
async fn load(broker: &Broker) {
    let (mut kafka, mut kinesis) = (broker.connect().await, broker.kinesis().await);
    let id = broker.create_topic("t", 1).await;
    let mut member = Member::join(broker, "m", id).await;
    member.fetch(&[]).await;
    kafka.produced("t", 0, batch(&["a", "b", "c"])).await;
    assert_eq!(kafka.read_from("t", 0, 0).await.len(), 3);
    kafka.call(commit("g", "t", 0, 1), 5).await;
    transaction(&mut kafka, "t", true).await;
    transaction(&mut kafka, "t", false).await;
    assert!(!member.fetch(&[]).await.is_empty());
    member.fetch(&[(0, 2, 1)]).await;
    limit(&mut kafka, "client", "producer_byte_rate", 10.0).await;

    kinesis.create_stream("s", 1).await;
    let consumer = kinesis.register("s", "app").await;
    let all = json!({"StreamName": "s", "ShardLevelMetrics": ["ALL"]});
    kinesis.ok("EnableEnhancedMonitoring", all).await;
    kinesis.put("s", &[("key", b"12345"), ("key", b"67890")]).await;
    kinesis.ok("PutRecord", json!({"StreamName": "s", "PartitionKey": "k", "Data": "MTIz"})).await;
    // A MiB more in one second than a shard takes.
    let mib = "A".repeat(4 * 1_000_000 / 3);
    let record = json!({"PartitionKey": "k", "Data": &mib[..mib.len() / 4 * 4]});
    let refused = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": [record, record]})).await;
    assert_eq!(refused["FailedRecordCount"], 1, "{refused}");
    assert_eq!(kinesis.read_shard("s", SHARD_0).await.len(), 4);
    let mut subscriber = broker.kinesis().await;
    let mut events = subscriber.subscribe(&consumer, SHARD_0, json!({"Type": "TRIM_HORIZON"})).await.unwrap();
    while events.next().await.unwrap().records.is_empty() {}
    assert!(broker.kinesis().await.subscribe(&consumer, SHARD_0, json!({"Type": "LATEST"})).await.is_err());

    let paused = kafka.call(produce("t", 0, batch(&["v".repeat(2_000).as_str()]), -1), PRODUCE).await;
    assert!(paused.throttle_time_ms > 0);
}

#[tokio::test]
async fn everything_declared_is_told_after_a_load_and_nothing_else() {
    let broker = loaded().await;
    let told = metrics(&broker.server).await;
    let names: Vec<&str> = told.keys().filter_map(|series| series.split('{').next()).collect();
    let declared = Metrics::declared();
    let mut missing = Vec::new();
    for series in &declared {
        let name = match series.kind {
            Kind::Histogram => format!("{}_count", series.name),
            Kind::Counter | Kind::Gauge => series.name.clone(),
        };
        // These are only told of what was refused.
        let refusals = ["anabranch_kafka_connections_refused_total", "anabranch_http_refused_total"];
        let absent = ABSENT.contains(&&*series.name) || refusals.contains(&&*series.name);
        if names.contains(&&*name) == absent {
            missing.push(name);
        }
    }
    assert_eq!(missing, [""; 0], "absent, or present against the list");
    let undeclared = |name: &&&str| {
        let family = ["_bucket", "_sum", "_count", ""].iter().filter_map(|end| name.strip_suffix(end));
        !family.into_iter().any(|family| declared.iter().any(|series| series.name == family))
    };
    assert_eq!(names.iter().filter(undeclared).collect::<Vec<_>>(), [&""; 0]);
}

#[tokio::test]
async fn numbers_are_those_of_the_load() {
    let broker = loaded().await;
    let told = metrics(&broker.server).await;
    let of = |series: &str| sample(&told, series);
    assert_eq!(of("stream_incoming_records_total{stream=\"t\"}"), 4.0);
    // Keys and data: 2 * (3 + 5), 1 + 3, and 1 with the one large record that fitted.
    let large = of("shard_incoming_bytes_total{shard=\"shardId-000000000000\",stream=\"s\"}") - 20.0;
    assert!((999_000.0..1_000_001.0).contains(&large), "{large}");
    assert_eq!(of("stream_incoming_bytes_total{stream=\"s\"}"), large + 20.0);
    assert_eq!(of("stream_incoming_records_total{stream=\"s\"}"), 4.0);
    assert_eq!(of("shard_incoming_records_total{shard=\"shardId-000000000000\",stream=\"s\"}"), 4.0);
    // GetRecords and SubscribeToShard.
    assert_eq!(of("shard_outgoing_records_total{shard=\"shardId-000000000000\",stream=\"s\"}"), 8.0);
    assert_eq!(of("stream_throttled_total{direction=\"write\",policy=\"enforce\",stream=\"s\"}"), 1.0);
    let put = |outcome: &str| {
        of(&format!("stream_request_records_total{{operation=\"PutRecords\",outcome=\"{outcome}\",stream=\"s\"}}"))
    };
    assert_eq!([put("successful"), put("throttled"), put("failed")], [3.0, 1.0, 0.0]);
    assert_eq!(of("stream_requests_total{operation=\"PutRecord\",outcome=\"success\",stream=\"s\"}"), 1.0);
    assert_eq!(of("stream_request_records_total{operation=\"GetRecords\",outcome=\"successful\",stream=\"s\"}"), 4.0);
    let subscribed = |outcome: &str| {
        of(&format!("consumer_subscriptions_total{{consumer=\"app\",outcome=\"{outcome}\",stream=\"s\"}}"))
    };
    assert_eq!([subscribed("success"), subscribed("rate_exceeded")], [1.0, 1.0]);
    assert_eq!(of("consumer_event_records_total{consumer=\"app\",stream=\"s\"}"), 4.0);
    assert_eq!(
        [of("transactions_ended_total{outcome=\"commit\"}"), of("transactions_ended_total{outcome=\"abort\"}")],
        [1.0; 2]
    );
    assert_eq!(of("transactions{state=\"CompleteAbort\"}"), 1.0);
    assert_eq!(of("share_group_delivered_records_total{group=\"shared\"}"), 3.0);
    assert_eq!(of("share_group_acknowledged_records_total{group=\"shared\",kind=\"accept\"}"), 3.0);
    let slowed = of("client_throttle_seconds_total{client=\"client\",quota=\"producer_byte_rate\"}");
    assert_eq!((slowed > 0.0, slowed), (true, of("quota_throttle_seconds_total{quota=\"producer_byte_rate\"}")));

    // The same by the names that CloudWatch has for it.
    let streams = broker.server.broker().streams();
    let readings = broker.server.broker().metrics().cloudwatch(streams.iter().map(|stream| &stream.metrics), 0);
    let read = |name: &str| readings.iter().find(|one| one.metric.name == name && one.stream == "s").unwrap();
    assert_eq!(read("IncomingRecords").sum, Some(4.0));
    assert_eq!(read("PutRecords.TotalRecords").sum, Some(4.0));
    let absent = cloudwatch::METRICS.iter().filter(|metric| !readings.iter().any(|one| one.metric == *metric));
    assert_eq!(absent.collect::<Vec<_>>(), Vec::<&cloudwatch::CloudWatch>::new());
}

#[tokio::test]
async fn a_group_is_as_far_behind_as_its_next_record_is_old() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    for value in ["a", "b"] {
        client.produced("t", 0, batch(&[value])).await;
        broker.clock.advance(5 * SECOND);
    }
    let mut behind = async |offset: i64| {
        client.call(commit("g", "t", 0, offset), 5).await;
        let told = metrics(&broker.server).await;
        let of = |name: &str| sample(&told, &format!("group_lag_{name}{{group=\"g\",partition=\"0\",stream=\"t\"}}"));
        (of("records"), of("seconds"))
    };
    assert_eq!(behind(0).await, (2.0, 10.0));
    assert_eq!(behind(1).await, (1.0, 5.0));
    assert_eq!(behind(2).await, (0.0, 0.0));
    assert_eq!(behind(0).await, (2.0, 10.0), "as far back as before");
}

#[tokio::test]
async fn retention_tells_when_it_looked_and_how_late_it_is() {
    let broker = Broker::with(|config| config.retention_check_interval = 600 * SECOND).await;
    broker.create_with("t", &[("retention.ms", "60000")]).await;
    broker.connect().await.produced("t", 0, batch(&["v"])).await;
    let told = async || {
        let told = metrics(&broker.server).await;
        let of = |name: &str| sample(&told, &format!("retention_{name}_seconds"));
        (of("behind"), of("last_look_timestamp"))
    };
    let (behind, begun) = told().await;
    assert_eq!(behind, 0.0);
    broker.clock.advance(90 * SECOND);
    assert_eq!(told().await, (30.0, begun));
    broker.advance_until(60 * SECOND, async || told().await.1 > begun).await;
    assert_eq!(told().await.0, 0.0);
}
