//! Compacted topics through both doors: what is left, that offsets stay, and that the disk gets its space back.

use std::time::Duration;

use anabranch::model::batch::{self, Codec, Compressor, Options, Record};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use serde_json::json;

use crate::harness::{Broker, Client, NOW_MS, batch, records};
use crate::process::Process;

const MINUTE: i64 = 60_000;

/// Records of `(key, value)`, of one time each.
fn keyed(pairs: &[(&str, Option<&str>)], timestamp: i64, codec: Codec) -> Bytes {
    let record = |(key, value): &(&str, Option<&str>)| Record {
        offset: 0,
        timestamp,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    };
    let records: Vec<_> = pairs.iter().map(record).collect();
    batch::build(&records, &Options { compressor: Compressor::of(codec), producer: None }).unwrap()
}

/// Offsets, keys and values from `offset` on, as a client reads them: behind each batch it goes on at the next offset.
async fn table(client: &mut Client, name: &str, mut offset: i64) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = Vec::new();
    loop {
        let data = client.fetch(name, 0, offset).await;
        assert_eq!(data.error_code, 0);
        let batches = crate::harness::batches(&data);
        let Some(last) = batches.last() else { return found };
        found.extend(
            records(&data)
                .into_iter()
                .filter(|record| record.offset >= offset)
                .map(|record| (record.offset, text(record.key.unwrap()), record.value.map(text))),
        );
        offset = batch::Header::parse(last).unwrap().last_offset() + 1;
    }
}

#[tokio::test]
async fn the_last_record_of_each_key_is_left_where_it_was() {
    let broker = Broker::with(|config| config.connections_idle_max = 30 * 24 * 60 * MINUTE).await;
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "60000"), ("min.cleanable.dirty.ratio", "0.1")];
    broker.create_with("t", &settings).await;
    let mut client = broker.connect().await;
    for round in 0..4 {
        let value = format!("v{round}");
        let pairs = [("a", Some(&*value)), ("b", Some(&*value)), ("a", Some("again")), ("c", None)];
        client.produced("t", 0, keyed(&pairs[..4 - round], NOW_MS + round as i64, Codec::Gzip)).await;
    }
    let wanted: Vec<(i64, String, Option<String>)> =
        vec![(3, "c".into(), None), (8, "b".into(), Some("v2".into())), (9, "a".into(), Some("v3".into()))];
    // Silence: nobody appends, and the segment ends and is compacted nevertheless.
    broker
        .advance_until(MINUTE / 4, async || table(&mut broker.connect().await, "t", 0).await.len() == wanted.len())
        .await;
    assert_eq!(table(&mut client, "t", 0).await, wanted);
    // A reader may begin where nothing is left.
    assert_eq!(table(&mut client, "t", 5).await, wanted[1..]);
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (0, 10));
    assert_eq!(client.list_offset("t", 0, NOW_MS + 1).await, (0, 8, NOW_MS + 2));
    assert_eq!(client.list_offset("t", 0, -3).await, (0, 9, NOW_MS + 3));
    // The tombstone has a day.
    broker.clock.advance(23 * 60 * MINUTE);
    assert_eq!(table(&mut broker.connect().await, "t", 0).await.len(), 3);
    broker.advance_until(MINUTE, async || table(&mut broker.connect().await, "t", 0).await == wanted[1..]).await;
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!(table(&mut client, "t", 0).await, wanted[1..]);
    assert_eq!(client.produced("t", 0, keyed(&[("d", Some("v"))], NOW_MS, Codec::None)).await, 10);
}

#[tokio::test]
async fn a_compacted_topic_refuses_what_it_cannot_compact() {
    let broker = Broker::start().await;
    broker.create_with("t", &[("cleanup.policy", "compact")]).await;
    broker.create_with("both", &[("cleanup.policy", "compact,delete")]).await;
    let mut client = broker.connect().await;
    let refused = client.produce("t", 0, batch(&["without a key"])).await;
    assert_eq!(refused.error_code, ResponseError::InvalidRecord.code());
    assert_eq!(refused.record_errors.len(), 1);
    for topic in ["t", "both"] {
        client.produced(topic, 0, keyed(&[("k", Some("v"))], NOW_MS, Codec::None)).await;
    }
    // The start of a topic that deletes nothing does not move.
    assert_eq!(client.delete_records("t", 0, 1).await, (ResponseError::PolicyViolation.code(), -1));
    assert_eq!(client.delete_records("both", 0, 1).await, (0, 1));
}

#[tokio::test]
async fn a_kinesis_reader_passes_over_what_is_gone() {
    let broker = Broker::with(|config| config.connections_idle_max = 30 * 24 * 60 * MINUTE).await;
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "60000"), ("min.cleanable.dirty.ratio", "0.1")];
    broker.create_with("t", &settings).await;
    let mut kinesis = broker.kinesis().await;
    let mut numbers = Vec::new();
    for value in ["1", "2", "3"] {
        numbers.extend(kinesis.put("t", &[("a", value.as_bytes()), ("b", value.as_bytes())]).await);
    }
    let mut client = broker.connect().await;
    client.produced("t", 0, keyed(&[("a", None)], NOW_MS, Codec::None)).await;
    broker.advance_until(MINUTE / 4, async || table(&mut broker.connect().await, "t", 0).await.len() == 2).await;
    let mut kinesis = broker.kinesis().await;
    let shard = "shardId-000000000000";
    let whole = kinesis.read_shard("t", shard).await;
    assert_eq!(whole.len(), 2);
    // A checkpoint at a record that is gone leads to what comes behind it.
    let after = json!({
        "StreamName": "t", "ShardId": shard, "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
        "StartingSequenceNumber": numbers[2].1,
    });
    let iterator = kinesis.ok("GetShardIterator", after).await["ShardIterator"].as_str().unwrap().to_owned();
    let (read, _) = kinesis.read(shard, iterator).await;
    assert_eq!(read.len(), 2);
}

/// Clients wait for a compaction as long as Kafka's cleaner sleeps, a quarter of a minute.
#[tokio::test]
async fn what_is_due_is_compacted_at_the_next_quarter_of_a_minute() {
    let broker = Broker::start().await;
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01")];
    broker.create_with("t", &settings).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, keyed(&[("a", Some("1")), ("a", Some("2"))], NOW_MS, Codec::None)).await;
    broker.clock.advance(1_000);
    client.produced("t", 0, keyed(&[("b", Some("1"))], NOW_MS, Codec::None)).await;
    broker.clock.advance(14_000);
    let wanted = vec![(1, "a".into(), Some("2".into())), (2, "b".into(), Some("1".into()))];
    broker.advance_until(0, async || table(&mut client, "t", 0).await == wanted).await;
}

/// A real folder, a real clock: segments come and go in the store's own files, and a kill loses nothing.
#[tokio::test]
async fn the_store_gets_its_space_back_and_a_kill_brings_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--memory", "16MiB", "--compaction-interval", "200ms"];
    let mut process = Process::start(folder.path(), &settings);
    let mut client = Client::connect_to(process.kafka).await;
    let topic = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "300"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "100"),
    ];
    client.create_topic("t", 1, &topic).await;
    let filler = "x".repeat(20_000);
    let mut last = Vec::new();
    for round in 0..400_u32 {
        let (key, value) = (format!("k{}", round % 7), format!("{round} {filler}"));
        let offset = client.produced("t", 0, keyed(&[(&key, Some(&value))], NOW_MS, Codec::None)).await;
        last.retain(|(_, known, _): &(i64, String, Option<String>)| *known != key);
        last.push((offset, key, Some(value)));
        if round == 200 {
            process.kill();
            process = Process::start(folder.path(), &settings);
            client = Client::connect_to(process.kafka).await;
        }
    }
    client.produced("t", 0, keyed(&[("k0", None)], NOW_MS, Codec::None)).await;
    last.retain(|(_, key, _)| key != "k0");
    let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while table(&mut client, "t", 0).await != last {
        assert!(tokio::time::Instant::now() < deadline, "it is never compacted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    process.kill();
    let process = Process::start(folder.path(), &settings);
    let mut client = Client::connect_to(process.kafka).await;
    assert_eq!(table(&mut client, "t", 0).await, last);
    assert_eq!(client.latest("t", 0).await, 401);
}
