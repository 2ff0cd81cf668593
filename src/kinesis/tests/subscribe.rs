//! Enhanced fan-out through the door: the events that a consumer is sent.

use serde_json::{Value, json};

use super::fixture::{ACCOUNT, Fixture, arn};
use crate::config::Config;
use crate::fanout::{HEARTBEAT_MS, SUBSCRIPTION_MS_MAX, TAKEOVER_MS};
use crate::http::{Event, EventStream, Failure};
use crate::model::attributes::LimitsPolicy;

const SHARD_0: &str = "shardId-000000000000";

async fn fixture() -> (Fixture, String) {
    let f = Fixture::with(|config: &mut Config| config.kinesis_limits = LimitsPolicy::Off);
    f.create("s", 1).await;
    let registered = f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"})).await;
    let consumer = registered["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned();
    (f, consumer)
}

fn request(consumer: &str, kind: &str) -> Value {
    json!({"ConsumerARN": consumer, "ShardId": SHARD_0, "StartingPosition": {"Type": kind}})
}

async fn put(f: &Fixture, data: &str) -> String {
    let put = f.ok("PutRecord", json!({"StreamName": "s", "PartitionKey": "a", "Data": data})).await;
    put["SequenceNumber"].as_str().unwrap().to_owned()
}

/// The next event; `Err` with the name and text of the exception that ends the stream, or nothing at its plain end.
async fn next(events: &mut EventStream) -> Result<Value, Option<(&'static str, String)>> {
    match events.0.recv().await {
        Some(Event::Message(bytes)) => {
            // Two lengths and their sum of bits, headers, the body, the sum of everything.
            let (prelude, rest) = bytes.split_at(12);
            let headers = u32::from_be_bytes(prelude[4..8].try_into().unwrap()) as usize;
            let (headers, body) = rest.split_at(headers);
            assert!(String::from_utf8_lossy(headers).contains("SubscribeToShardEvent"));
            Ok(serde_json::from_slice(&body[..body.len() - 4]).unwrap())
        }
        Some(Event::Exception(Failure { code, message, .. })) => Err(Some((code, message.unwrap_or_default()))),
        None => Err(None),
    }
}

fn data(event: &Value) -> Vec<&str> {
    event["Records"].as_array().unwrap().iter().map(|record| record["Data"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn records_are_pushed_and_the_place_can_be_resumed() {
    let (f, consumer) = fixture().await;
    put(&f, "AAAA").await;
    let mut events = f.events("SubscribeToShard", request(&consumer, "LATEST")).await;
    let first = next(&mut events).await.unwrap();
    assert_eq!((data(&first).len(), &first["MillisBehindLatest"]), (0, &json!(0)));
    let number = put(&f, "AAAB").await;
    let pushed = next(&mut events).await.unwrap();
    assert_eq!((data(&pushed), pushed["Records"][0]["SequenceNumber"].as_str()), (vec!["AAAB"], Some(number.as_str())));
    assert!(pushed.get("ChildShards").is_none());
    // Nothing is written, yet the place advances.
    f.clock.advance(HEARTBEAT_MS);
    let idle = next(&mut events).await.unwrap();
    let place = |event: &Value| event["ContinuationSequenceNumber"].as_str().unwrap().to_owned();
    assert!(data(&idle).is_empty() && place(&idle) > place(&pushed) && place(&pushed) >= number);
    put(&f, "AAAC").await;
    assert_eq!(data(&next(&mut events).await.unwrap()), ["AAAC"]);
    drop(events);
    // Neither lost nor twice from there on, by either type.
    for kind in ["AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"] {
        f.clock.advance(TAKEOVER_MS);
        let mut body = request(&consumer, kind);
        body["StartingPosition"]["SequenceNumber"] = json!(place(&idle));
        let mut events = f.events("SubscribeToShard", body).await;
        assert_eq!(data(&next(&mut events).await.unwrap()), ["AAAC"], "{kind}");
    }
}

#[tokio::test]
async fn a_second_subscription_is_refused_and_later_takes_over() {
    let (f, consumer) = fixture().await;
    let mut first = f.events("SubscribeToShard", request(&consumer, "LATEST")).await;
    next(&mut first).await.unwrap();
    let text = format!("Another active subscription exists for this consumer: {ACCOUNT}:s:{SHARD_0}:c");
    let refused = f.refused("SubscribeToShard", request(&consumer, "LATEST")).await;
    assert_eq!(refused, ("ResourceInUseException", text.clone()));
    f.clock.advance(TAKEOVER_MS);
    let mut second = f.events("SubscribeToShard", request(&consumer, "LATEST")).await;
    // What came in those seconds may still come first.
    let end = loop {
        match next(&mut first).await {
            Ok(event) => assert!(data(&event).is_empty()),
            Err(end) => break end,
        }
    };
    assert_eq!(end, Some(("ResourceInUseException", text)));
    next(&mut second).await.unwrap();
    f.clock.advance(SUBSCRIPTION_MS_MAX);
    let end = loop {
        match next(&mut second).await {
            Ok(event) => assert!(data(&event).is_empty()),
            Err(end) => break end,
        }
    };
    assert_eq!(end, None, "after five minutes it ends without an error");
}

#[tokio::test]
async fn a_consumer_calls_once_a_second_for_a_shard() {
    let f =
        Fixture::with(|config: &mut Config| (config.kinesis_limits, config.control_rates) = (LimitsPolicy::Off, true));
    f.create("s", 2).await;
    let mut consumers = Vec::new();
    for name in ["c", "d"] {
        let registered = f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": name})).await;
        consumers.push(registered["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned());
    }
    let call = async |consumer: &str| f.refused("SubscribeToShard", request(consumer, "LATEST")).await;
    // A call that fails is a call.
    let mut body = request(&consumers[0], "AT_SEQUENCE_NUMBER");
    body["StartingPosition"]["SequenceNumber"] = json!("1");
    assert_eq!(f.refused("SubscribeToShard", body).await.0, "InvalidArgumentException");
    let text = format!("Rate exceeded for consumer {} and shard {SHARD_0}", consumers[0]);
    assert_eq!(call(&consumers[0]).await, ("LimitExceededException", text.clone()));
    // Another shard and another consumer have their own.
    let mut other = request(&consumers[0], "LATEST");
    other["ShardId"] = json!("shardId-000000000001");
    f.events("SubscribeToShard", other).await;
    f.events("SubscribeToShard", request(&consumers[1], "LATEST")).await;
    f.clock.advance(999);
    assert_eq!(call(&consumers[0]).await, ("LimitExceededException", text));
    f.clock.advance(1);
    f.events("SubscribeToShard", request(&consumers[0], "LATEST")).await;
    // Within the second and after it.
    for _ in 0..2 {
        assert_eq!(call(&consumers[0]).await.0, "ResourceInUseException");
        f.clock.advance(1_000);
    }
}

#[tokio::test]
async fn the_last_event_of_a_closed_shard_tells_its_children() {
    let (f, consumer) = fixture().await;
    put(&f, "AAAA").await;
    let mut events = f.events("SubscribeToShard", request(&consumer, "TRIM_HORIZON")).await;
    assert_eq!(data(&next(&mut events).await.unwrap()), ["AAAA"]);
    let split = json!({"StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": "1000"});
    f.ok("SplitShard", split).await;
    let last = next(&mut events).await.unwrap();
    assert_eq!((data(&last).len(), last.get("ContinuationSequenceNumber")), (0, None));
    let children = last["ChildShards"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(children[0]["ParentShards"], json!([SHARD_0]));
    assert_eq!(next(&mut events).await, Err(None));
}

#[tokio::test]
async fn a_consumer_that_is_deregistered_is_told() {
    let (f, consumer) = fixture().await;
    let mut events = f.events("SubscribeToShard", request(&consumer, "LATEST")).await;
    next(&mut events).await.unwrap();
    f.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer})).await;
    let end = next(&mut events).await.unwrap_err();
    assert_eq!(end.unwrap().0, "ResourceNotFoundException");
    let (code, _) = f.refused("SubscribeToShard", request(&consumer, "LATEST")).await;
    assert_eq!(code, "ResourceNotFoundException");
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_two_events() {
    let (f, consumer) = fixture().await;
    let events = f.events("SubscribeToShard", request(&consumer, "TRIM_HORIZON")).await;
    for _ in 0..50 {
        put(&f, "AAAA").await;
    }
    // The first may still be on its way here.
    while events.0.is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        put(&f, "AAAA").await;
    }
    assert_eq!(events.0.len(), 1, "and one more is being handed over");
}

#[tokio::test]
async fn subscriptions_are_validated() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 1).await;
    f.clock.advance(500);
    let registered = f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"})).await;
    let consumer = registered["Consumer"]["ConsumerARN"].as_str().unwrap();
    let (code, text) = f.refused("SubscribeToShard", request(consumer, "LATEST")).await;
    assert_eq!(code, "ResourceInUseException");
    assert!(text.contains("is not in ACTIVE status"), "{text}");
    f.clock.advance(500);
    let (code, text) = f.refused("SubscribeToShard", json!({})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.starts_with("3 validation errors detected: Value null at 'consumerARN'"), "{text}");
    let (_, text) = f.refused("SubscribeToShard", request(consumer, "")).await;
    assert!(text.contains("Value '' at 'startingPosition.type' failed"), "{text}");
    let mut body = request(consumer, "LATEST");
    body["ShardId"] = json!("shardId-000000000009");
    assert_eq!(f.refused("SubscribeToShard", body).await.0, "ResourceNotFoundException");
    let mut body = request(consumer, "LATEST");
    body["DryRun"] = json!(true);
    assert_eq!(f.refused("SubscribeToShard", body).await.0, "DryRunOperationException");
    f.events("SubscribeToShard", request(consumer, "LATEST")).await;
}

#[tokio::test]
async fn consumers_at_the_same_place_are_sent_the_same_bytes() {
    let (f, first) = fixture().await;
    let registered = f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "d"})).await;
    let second = registered["Consumer"]["ConsumerARN"].as_str().unwrap();
    let mut of_first = f.events("SubscribeToShard", request(&first, "LATEST")).await;
    let mut of_second = f.events("SubscribeToShard", request(second, "LATEST")).await;
    for events in [&mut of_first, &mut of_second] {
        next(events).await.unwrap();
    }
    for text in ["AAAA", "AAAB"] {
        put(&f, text).await;
        let bytes = async |events: &mut EventStream| match events.0.recv().await {
            Some(Event::Message(bytes)) => bytes,
            other => panic!("{other:?}"),
        };
        let (one, other) = (bytes(&mut of_first).await, bytes(&mut of_second).await);
        assert_eq!((one.as_ptr(), one.len()), (other.as_ptr(), other.len()), "they are not even copies");
    }
    // Each counts what it is sent.
    let text = f.door.broker.metrics().render(crate::metrics::TextFormat::Prometheus, |_| ());
    for consumer in ["c", "d"] {
        let records = format!("anabranch_consumer_event_records_total{{consumer=\"{consumer}\",stream=\"s\"}} 2");
        assert!(text.lines().any(|line| line == records), "{text}");
    }
}
