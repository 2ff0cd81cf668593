//! SubscribeToShard over both versions of HTTP: what consumers are pushed, and when it ends.

use serde_json::{Value, json};

use crate::harness::kinesis::{Events, Kinesis, Pushed, Refused, free, text};
use crate::harness::{Broker, Client, NOW_MS, batch};
use crate::process::Process;

const SHARD_0: &str = "shardId-000000000000";
const HEARTBEAT_MS: i64 = 4_000;
const TAKEOVER_MS: i64 = 5_000;
const SUBSCRIPTION_MS: i64 = 300_000;

fn from(kind: &str) -> Value {
    json!({"Type": kind})
}

fn after(number: &str) -> Value {
    json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number})
}

fn data(event: &Pushed) -> Vec<&[u8]> {
    event.records.iter().map(|record| &record.data[..]).collect()
}

fn reached(event: &Pushed) -> String {
    text(&event.body["ContinuationSequenceNumber"])
}

async fn event(events: &mut Events) -> Pushed {
    events.next().await.unwrap_or_else(|end| panic!("it ended: {end:?}"))
}

/// The end after any number of events without records.
async fn end(events: &mut Events) -> Option<Refused> {
    loop {
        match events.next().await {
            Ok(event) => assert!(data(&event).is_empty()),
            Err(end) => return end,
        }
    }
}

async fn both(broker: &Broker) -> [Kinesis; 2] {
    let address = broker.server.http_addr();
    [Kinesis::connect(address).await, Kinesis::connect_h2(address).await]
}

#[tokio::test]
async fn records_are_pushed_when_they_come_and_heartbeats_when_none_do_for_five_minutes() {
    let broker = Broker::with(free).await;
    broker.kinesis().await.create_stream("s", 1).await;
    for place in 0..2 {
        // Connections that nobody has used for minutes are closed.
        let (mut kinesis, mut kafka) = (broker.kinesis().await, broker.connect().await);
        let [one, two] = both(&broker).await;
        let mut subscriber = if place == 0 { one } else { two };
        let consumer = kinesis.register("s", &format!("c{place}")).await;
        let mut events = subscriber.subscribe(&consumer, SHARD_0, from("LATEST")).await.unwrap();
        let first = event(&mut events).await;
        assert_eq!((data(&first).len(), &first.body["MillisBehindLatest"]), (0, &json!(0)));
        // By either door; the clock stands still, so nothing but the append can push it.
        let number = kinesis.put("s", &[("key", b"put")]).await.remove(0).1;
        let pushed = event(&mut events).await;
        assert_eq!((data(&pushed), &pushed.records[0].number), (vec![&b"put"[..]], &number));
        assert_eq!((&*pushed.records[0].key, pushed.records[0].arrival_ms), ("key", broker.clock.now_ms()));
        kafka.produced("s", 0, batch(&["produced"])).await;
        let pushed = event(&mut events).await;
        assert_eq!((data(&pushed), &*pushed.records[0].key), (vec![&b"produced"[..]], "partition-0"));
        let (mut at, mut beats) = (reached(&pushed), 0);
        assert!(at >= pushed.records[0].number && pushed.records[0].number > number);
        let end = loop {
            broker.clock.advance(HEARTBEAT_MS);
            match events.next().await {
                Ok(beat) => {
                    let next = reached(&beat);
                    assert!(data(&beat).is_empty() && next > at, "{next} after {at}");
                    (at, beats) = (next, beats + 1);
                }
                Err(end) => break end,
            }
        };
        assert_eq!((end.map(|end| end.code), beats), (None, SUBSCRIPTION_MS / HEARTBEAT_MS - 1));
        // The connection is as good as before, and the reader goes on where it was.
        broker.kinesis().await.put("s", &[("key", b"later")]).await;
        let mut events = subscriber.subscribe(&consumer, SHARD_0, after(&at)).await.unwrap();
        assert_eq!(data(&event(&mut events).await), [b"later"]);
    }
}

#[tokio::test]
async fn a_consumer_takes_over_from_itself_after_five_seconds_and_never_from_others() {
    let broker = Broker::with(free).await;
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 2).await;
    let consumer = kinesis.register("s", "c").await;
    let other = kinesis.register("s", "other").await;
    let [mut one, mut two] = both(&broker).await;
    let mut first = one.subscribe(&consumer, SHARD_0, from("LATEST")).await.unwrap();
    event(&mut first).await;
    let refused = two.subscribe(&consumer, SHARD_0, from("LATEST")).await.err().unwrap();
    assert_eq!((refused.status, &*refused.code), (400, "ResourceInUseException"));
    assert!(refused.message.starts_with("Another active subscription exists"), "{}", refused.message);
    // Neither another consumer nor another shard is in its way; on HTTP/2 they share a connection.
    let mut others = two.subscribe(&other, SHARD_0, from("LATEST")).await.unwrap();
    let mut shards = two.subscribe(&consumer, "shardId-000000000001", from("LATEST")).await.unwrap();
    event(&mut others).await;
    event(&mut shards).await;
    broker.clock.advance(TAKEOVER_MS);
    let mut second = two.subscribe(&consumer, SHARD_0, from("LATEST")).await.unwrap();
    assert_eq!(end(&mut first).await.unwrap().code, "ResourceInUseException");
    event(&mut second).await;
    let hash_key = json!({"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": "0", "Data": "AAAA"});
    kinesis.ok("PutRecord", hash_key).await;
    for events in [&mut second, &mut others] {
        while data(&event(events).await).is_empty() {}
    }
}

#[tokio::test]
async fn at_a_shards_end_its_children_are_told_and_read_on() {
    let broker = Broker::with(free).await;
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 1).await;
    for (place, mut subscriber) in both(&broker).await.into_iter().enumerate() {
        let consumer = kinesis.register("s", &format!("c{place}")).await;
        let shards = kinesis.shards("s").await;
        let parent = text(&shards.last().unwrap()["ShardId"]);
        let start = &shards.last().unwrap()["HashKeyRange"]["StartingHashKey"];
        let put = |data: &str| json!({"StreamName": "s", "PartitionKey": "k", "ExplicitHashKey": start, "Data": data});
        kinesis.ok("PutRecord", put("AAAA")).await;
        let mut events = subscriber.subscribe(&consumer, &parent, from("TRIM_HORIZON")).await.unwrap();
        assert_eq!(data(&event(&mut events).await), [[0, 0, 0]]);
        if place == 0 {
            let split = json!({"StreamName": "s", "ShardToSplit": parent, "NewStartingHashKey": "3".repeat(39)});
            kinesis.ok("SplitShard", split).await;
        } else {
            let before = text(&shards[shards.len() - 2]["ShardId"]);
            let merge = json!({"StreamName": "s", "ShardToMerge": before, "AdjacentShardToMerge": parent});
            kinesis.ok("MergeShards", merge).await;
        }
        let last = event(&mut events).await;
        assert!(data(&last).is_empty() && last.body.get("ContinuationSequenceNumber").is_none());
        let children = last.body["ChildShards"].as_array().unwrap();
        assert_eq!(children.len(), 2 - place);
        assert!(events.next().await.unwrap_err().is_none());
        kinesis.ok("PutRecord", put("AQEB")).await;
        let mut read = 0;
        for child in children {
            let mut events =
                subscriber.subscribe(&consumer, &text(&child["ShardId"]), from("TRIM_HORIZON")).await.unwrap();
            read += data(&event(&mut events).await).len();
            // What is dropped leaves the stream.
            if place == 0 {
                subscriber = Kinesis::connect(broker.server.http_addr()).await;
            }
        }
        assert_eq!(read, 1);
    }
}

#[tokio::test]
async fn a_subscription_ends_with_the_server_and_goes_on_with_the_next() {
    let broker = Broker::with(free).await;
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 1).await;
    let consumer = kinesis.register("s", "c").await;
    kinesis.put("s", &[("k", b"before")]).await;
    let [mut one, mut two] = both(&broker).await;
    let mut events = one.subscribe(&consumer, SHARD_0, from("TRIM_HORIZON")).await.unwrap();
    let at = reached(&event(&mut events).await);
    broker.clock.advance(TAKEOVER_MS);
    let again = two.subscribe(&consumer, SHARD_0, json!({"Type": "AT_TIMESTAMP", "Timestamp": NOW_MS / 1_000}));
    let mut again = again.await.unwrap();
    assert_eq!(data(&event(&mut again).await), [b"before"]);
    let broker = broker.restart().await;
    assert!(end(&mut again).await.is_none());
    let mut kinesis = broker.kinesis().await;
    kinesis.put("s", &[("k", b"after")]).await;
    let mut next = Kinesis::connect_h2(broker.server.http_addr()).await;
    let mut events = next.subscribe(&consumer, SHARD_0, after(&at)).await.unwrap();
    assert_eq!(data(&event(&mut events).await), [b"after"]);
}

/// Of each shard, in batches of one record of a million bytes.
const BATCHES: usize = 24;
const SHARDS: usize = 4;
const SILENT: usize = 8;
/// 32 silent subscriptions would hold a gigabyte of text if what waits for them were unbounded.
const RESIDENT_BYTES_MAX: u64 = 500 << 20;

#[tokio::test]
async fn subscribers_that_do_not_read_hold_little_and_nobody_back() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--memory", "64MiB", "--state-delay", "0", "--kinesis-limits", "off", "--control-rates", "false"];
    let process = Process::start(folder.path(), &settings);
    let mut kinesis = Kinesis::connect(process.http).await;
    kinesis.create_stream("s", SHARDS).await;
    let mut silent = Vec::new();
    for place in 0..SILENT {
        let consumer = kinesis.register("s", &format!("silent{place}")).await;
        let mut shared = Kinesis::connect_h2(process.http).await;
        for shard in 0..SHARDS {
            let shard = format!("shardId-{shard:012}");
            let mut own = Kinesis::connect(process.http).await;
            let subscriber = if place % 2 == 0 { &mut own } else { &mut shared };
            silent.push(subscriber.subscribe(&consumer, &shard, from("TRIM_HORIZON")).await.unwrap());
        }
    }
    let consumer = kinesis.register("s", "reader").await;
    let mut reader = Kinesis::connect_h2(process.http).await;
    let mut producer = Client::connect_to(process.kafka).await;
    let value = "v".repeat(1_000_000);
    for shard in 0..SHARDS {
        let mut events =
            reader.subscribe(&consumer, &format!("shardId-{shard:012}"), from("TRIM_HORIZON")).await.unwrap();
        let mut read = 0;
        for written in 1..=BATCHES {
            producer.produced("s", shard as i32, batch(&[&value])).await;
            while read < written {
                read += data(&event(&mut events).await).len();
            }
        }
    }
    if let Some(resident) = process.resident() {
        assert!(resident < RESIDENT_BYTES_MAX, "{resident}");
    }
    // Whoever begins to read has missed nothing.
    let mut late = silent.swap_remove(0);
    let mut read = 0;
    while read < BATCHES {
        read += data(&event(&mut late).await).len();
    }
}
