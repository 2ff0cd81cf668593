//! Both doors over the same records: what goes in by one comes out by the other, also while shards split and merge.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch::model::batch::{self, Codec, Compressor, Options, Record, RecordHeader};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::kinesis::{Kinesis, free};
use crate::harness::{Broker, Client, NOW_MS, batch, records};

const SHARD_0: &str = "shardId-000000000000";

#[tokio::test]
async fn what_put_records_writes_kafka_consumers_read() {
    let broker = Broker::with(free).await;
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 2).await;
    let put: [(&str, &[u8]); 5] =
        [("a", b"one"), ("b", b""), ("ключ", b"\x00\xff"), ("a", b"two"), (&"k".repeat(256), b"long")];
    let mut numbers = kinesis.put("s", &put[..3]).await;
    broker.clock.advance(1_500);
    numbers.extend(kinesis.put("s", &put[3..]).await);

    let mut client = broker.connect().await;
    for partition in 0..2 {
        let shard = format!("shardId-{partition:012}");
        let mine = || put.iter().zip(&numbers).enumerate().filter(|(_, (_, (in_shard, _)))| *in_shard == shard);
        let expected: Vec<_> = mine()
            .zip(0..)
            .map(|((place, ((key, data), _)), offset)| {
                let timestamp = if place < 3 { NOW_MS } else { NOW_MS + 1_500 };
                (offset, key.as_bytes().to_vec(), data.to_vec(), timestamp)
            })
            .collect();
        assert!(!expected.is_empty(), "{shard}");
        let fetched: Vec<_> = records(&client.fetch("s", partition, 0).await)
            .into_iter()
            .map(|record| {
                assert!(record.headers.is_empty());
                (record.offset, record.key.unwrap().to_vec(), record.value.unwrap().to_vec(), record.timestamp)
            })
            .collect();
        assert_eq!(fetched, expected);
        let got = kinesis.read_shard("s", &shard).await;
        let got: Vec<_> =
            got.iter().map(|got| (got.number.clone(), got.key.as_bytes().to_vec(), got.arrival_ms)).collect();
        let as_put: Vec<_> = mine()
            .zip(&expected)
            .map(|((_, (_, (_, number))), (_, key, _, timestamp))| (number.clone(), key.clone(), *timestamp))
            .collect();
        assert_eq!(got, as_put);
        // Kafka's search by time finds what came later.
        if let Some((offset, _, _, timestamp)) = expected.iter().find(|record| record.3 > NOW_MS) {
            assert_eq!(client.list_offset("s", partition, NOW_MS + 1).await, (0, *offset, *timestamp));
        }
    }
}

/// One batch with everything that a Kinesis record cannot say.
fn foreign() -> Bytes {
    let headers = vec![RecordHeader { key: Bytes::from_static(b"trace"), value: Some(Bytes::from_static(b"1")) }];
    let record = |key: Option<&[u8]>, value: Option<&'static [u8]>| Record {
        offset: 0,
        timestamp: NOW_MS - 86_400_000,
        key: key.map(Bytes::copy_from_slice),
        value: value.map(Bytes::from_static),
        headers: headers.clone(),
    };
    let all = [
        record(Some(b"plain"), Some(b"text")),
        record(None, Some(b"without a key")),
        record(Some(b""), Some(b"with an empty one")),
        record(Some(&[0xff, 0x00]), Some(b"a binary one")),
        record(Some(b"tombstone"), None),
        record(Some(&[b'x'; 257]), Some(b"a long one")),
        record(Some("é".repeat(256).as_bytes()), Some(b"as long as may be")),
    ];
    batch::build(&all, &Options { compressor: Compressor::of(Codec::Gzip), producer: None }).unwrap()
}

#[tokio::test]
async fn what_kafka_producers_write_get_records_tells_by_its_rules() {
    let broker = Broker::with(free).await;
    broker.create_topic("t", 2).await;
    let mut client = broker.connect().await;
    client.produced("t", 1, batch(&["first"])).await;
    broker.clock.advance(250);
    client.produced("t", 1, foreign()).await;
    let expected = [
        ("partition-1".to_owned(), &b"first"[..]),
        ("plain".to_owned(), b"text"),
        ("partition-1".to_owned(), b"without a key"),
        ("partition-1".to_owned(), b"with an empty one"),
        (format!("base64:{}", STANDARD.encode([0xff, 0x00])), b"a binary one"),
        ("tombstone".to_owned(), b""),
        (format!("md5:{:x}", Md5::digest([b'x'; 257])), b"a long one"),
        ("é".repeat(256), b"as long as may be"),
    ];
    let address = broker.server.http_addr();
    for mut kinesis in [Kinesis::connect(address).await, Kinesis::connect_h2(address).await] {
        let got = kinesis.read_shard("t", "shardId-000000000001").await;
        let read: Vec<_> = got.iter().map(|got| (got.key.clone(), &got.data[..])).collect();
        assert_eq!(read, expected);
        // The time of a record is when it came, whatever its producer says.
        let arrivals: Vec<_> = got.iter().map(|got| got.arrival_ms - NOW_MS).collect();
        assert_eq!(arrivals, [0, 250, 250, 250, 250, 250, 250, 250]);
        assert!(got.is_sorted_by(|a, b| a.number < b.number));
        // A number from the middle of a compressed batch is a place.
        for (kind, rest) in [("AT_SEQUENCE_NUMBER", 4), ("AFTER_SEQUENCE_NUMBER", 5)] {
            let number = &got[4].number;
            let shard = "shardId-000000000001";
            let body = json!({
                "StreamName": "t", "ShardId": shard, "ShardIteratorType": kind, "StartingSequenceNumber": number,
            });
            let iterator = kinesis.ok("GetShardIterator", body).await["ShardIterator"].as_str().unwrap().to_owned();
            assert_eq!(kinesis.read(shard, iterator).await.0, got[rest..], "{kind}");
        }
    }
}

/// Numbers of one writer, told by key: what readers must see in this order.
struct Writer {
    key: String,
    address: SocketAddr,
    acknowledged: mpsc::Sender<()>,
    stop: Arc<AtomicBool>,
}

/// How many requests each writer has acknowledged between two changes of shards.
const REQUESTS: usize = 12;
const RECORDS: u64 = 5;

impl Writer {
    /// Puts `RECORDS` at a time and returns how many there were.
    async fn put(self) -> u64 {
        let mut kinesis = Kinesis::connect(self.address).await;
        let mut next = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let data = |n: u64| Bytes::from(format!("{}:{n}", self.key));
            let records: Vec<_> = (next..next + RECORDS).map(|n| (self.key.clone(), data(n))).collect();
            kinesis.try_put("s", &records).await.expect("an answer");
            next += RECORDS;
            let _ = self.acknowledged.send(()).await;
        }
        next
    }

    /// The same over Kafka, to one partition, which may be dormant at times.
    async fn produce(self, partition: i32) -> u64 {
        let mut client = Client::connect_to(self.address).await;
        let id = client.new_producer_id().await;
        let mut next = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let values: Vec<_> = (next..next + RECORDS).map(|n| format!("{}:{n}", self.key)).collect();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let answer = client.produce("s", partition, crate::harness::sequenced(id, 0, next as i32, &values)).await;
            assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            next += RECORDS;
            let _ = self.acknowledged.send(()).await;
        }
        next
    }
}

/// The numbers of each writer in the order of reading.
fn by_writer<'a>(data: impl Iterator<Item = &'a [u8]>) -> BTreeMap<String, Vec<u64>> {
    let mut read: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for data in data {
        let (writer, number) = std::str::from_utf8(data).unwrap().split_once(':').unwrap();
        read.entry(writer.to_owned()).or_default().push(number.parse().unwrap());
    }
    read
}

fn open(shards: &[Value]) -> Vec<&str> {
    let is_open = |shard: &&Value| shard["SequenceNumberRange"].get("EndingSequenceNumber").is_none();
    shards.iter().filter(is_open).map(|shard| shard["ShardId"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_parents_to_children_reads_all_of_both_doors_once_and_in_order() {
    let broker = Broker::with(free).await;
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 1).await;
    let (sender, mut acknowledged) = mpsc::channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let writer =
        |key: &str, address| Writer { key: key.to_owned(), address, acknowledged: sender.clone(), stop: stop.clone() };
    let (http, kafka) = (broker.server.http_addr(), broker.server.kafka_addrs()[0]);
    let mut tasks: Vec<_> = ["a", "b", "c"]
        .map(|key| (key.to_owned(), tokio::spawn(writer(key, http).put())))
        .into_iter()
        .chain([("k0".to_owned(), tokio::spawn(writer("k0", kafka).produce(0)))])
        .collect();
    let mut wait = async |writers: usize| {
        for _ in 0..REQUESTS * writers {
            acknowledged.recv().await.unwrap();
        }
    };
    wait(4).await;
    let split = |shard: &str| json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": "1".repeat(38)});
    kinesis.ok("SplitShard", split(SHARD_0)).await;
    tasks.push(("k1".to_owned(), tokio::spawn(writer("k1", kafka).produce(1))));
    // Merged, the second partition sleeps; split again, it wakes.
    for _ in 0..3 {
        wait(5).await;
        let shards = kinesis.shards("s").await;
        let parents = open(&shards);
        let merge = json!({"StreamName": "s", "ShardToMerge": parents[0], "AdjacentShardToMerge": parents[1]});
        kinesis.ok("MergeShards", merge).await;
        wait(5).await;
        let shards = kinesis.shards("s").await;
        kinesis.ok("SplitShard", split(open(&shards)[0])).await;
    }
    wait(5).await;
    stop.store(true, Ordering::Relaxed);
    drop(sender);
    acknowledged.close();
    let mut written = BTreeMap::new();
    for (key, task) in tasks {
        written.insert(key, (0..task.await.unwrap()).collect::<Vec<_>>());
    }

    assert_eq!(kinesis.shards("s").await.len(), 12);
    for _ in 0..2 {
        let read = kinesis.follow("s").await;
        assert_eq!(by_writer(read.iter().map(|got| &got.data[..])), written);
        // A child's numbers come after its parents', so all numbers of a key ascend.
        for key in ["a", "b", "c"] {
            let numbers: Vec<_> = read.iter().filter(|got| got.key == key).map(|got| &got.number).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{key}");
        }
    }
    // Consumers of the two partitions have all of it too, once.
    let mut client = broker.connect().await;
    let mut read = client.read_from("s", 0, 0).await;
    read.extend(client.read_from("s", 1, 0).await);
    let mut by_writer = by_writer(read.iter().map(|(_, value)| value.as_bytes()));
    by_writer.values_mut().for_each(|numbers| numbers.sort_unstable());
    assert_eq!(by_writer, written);
}
