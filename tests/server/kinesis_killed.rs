//! What the Kinesis API acknowledged, after `kill -9`: records, and everything that is told of streams and the account.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::kinesis::{Got, Kinesis, text};
use crate::process::Process;
use crate::random::Random;

const SETTINGS: [&str; 6] = ["--memory", "16MiB", "--kinesis-limits", "off", "--control-rates", "false"];

fn start(folder: &Path, more: &[&str]) -> Process {
    Process::start(folder, &[&SETTINGS[..], more].concat())
}

/// Everything that the account and its streams say of themselves.
async fn told(kinesis: &mut Kinesis) -> Vec<Value> {
    let mut told = vec![kinesis.ok("DescribeAccountSettings", json!({})).await];
    let list = kinesis.ok("ListStreams", json!({})).await;
    for name in list["StreamNames"].as_array().unwrap() {
        let by_name = json!({"StreamName": name});
        let described = kinesis.ok("DescribeStream", by_name.clone()).await;
        let arn = described["StreamDescription"]["StreamARN"].clone();
        told.push(described);
        for operation in ["DescribeStreamSummary", "ListTagsForStream", "ListShards"] {
            told.push(kinesis.ok(operation, by_name.clone()).await);
        }
        told.push(kinesis.ok("GetResourcePolicy", json!({"ResourceARN": arn})).await);
        let consumers = kinesis.ok("ListStreamConsumers", json!({"StreamARN": arn})).await;
        for consumer in consumers["Consumers"].as_array().unwrap() {
            let arn = &consumer["ConsumerARN"];
            told.push(kinesis.ok("DescribeStreamConsumer", json!({"ConsumerARN": arn})).await);
            for operation in ["GetResourcePolicy", "ListTagsForResource"] {
                told.push(kinesis.ok(operation, json!({"ResourceARN": arn})).await);
            }
        }
        told.push(consumers);
    }
    told.push(list);
    told
}

fn arn(stream: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}")
}

fn policy(resource: &str) -> Value {
    let statement = json!({
        "Effect": "Allow", "Principal": {"AWS": "111111111111"}, "Action": "kinesis:*", "Resource": resource,
    });
    Value::String(json!({"Version": "2012-10-17", "Statement": [statement]}).to_string())
}

/// Each as `(operation, request)`; `C` stands for the ARN of the consumer.
fn changes() -> Vec<(&'static str, Value)> {
    let s = |more: Value| {
        let mut body = json!({"StreamName": "s"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let key = json!({"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    vec![
        ("UpdateAccountSettings", json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}})),
        ("CreateStream", s(json!({"ShardCount": 2, "Tags": {"made": "with"}}))),
        ("AddTagsToStream", s(json!({"Tags": {"later": "ключ", "gone": "soon"}}))),
        ("RemoveTagsFromStream", s(json!({"TagKeys": ["gone"]}))),
        ("PutResourcePolicy", json!({"ResourceARN": arn("s"), "Policy": policy(&arn("s"))})),
        ("IncreaseStreamRetentionPeriod", s(json!({"RetentionPeriodHours": 100}))),
        ("DecreaseStreamRetentionPeriod", s(json!({"RetentionPeriodHours": 48}))),
        ("EnableEnhancedMonitoring", s(json!({"ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]}))),
        ("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c", "Tags": {"who": "reads"}})),
        ("PutResourcePolicy", json!({"ResourceARN": "C", "Policy": "C"})),
        ("UpdateMaxRecordSize", json!({"StreamARN": arn("s"), "MaxRecordSizeInKiB": 2_048})),
        ("StartStreamEncryption", s(key)),
        ("SplitShard", s(json!({"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "1000"}))),
        ("UpdateShardCount", s(json!({"TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}))),
        ("CreateStream", json!({"StreamName": "d", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}})),
        ("UpdateStreamWarmThroughput", json!({"StreamARN": arn("d"), "WarmThroughputMiBps": 6})),
        ("DeregisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"})),
    ]
}

#[tokio::test]
async fn every_change_that_was_acknowledged_survives_a_kill() {
    let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = keys.path().join("keys");
    std::fs::write(&keys, "one AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").unwrap();
    let keys = ["--master-keys", keys.to_str().unwrap()];
    let at_once = [&keys[..], &["--state-delay", "0"]].concat();
    let slowly = [&keys[..], &["--state-delay", "1h"]].concat();
    let mut process = start(folder.path(), &at_once);
    let mut kinesis = Kinesis::connect(process.http).await;
    let (mut consumer, mut before) = (String::new(), told(&mut kinesis).await);
    for (operation, mut body) in changes() {
        if body["ResourceARN"] == "C" {
            body = json!({"ResourceARN": consumer, "Policy": policy(&consumer)});
        }
        let answer = kinesis.ok(operation, body).await;
        if let Some(arn) = answer["Consumer"]["ConsumerARN"].as_str() {
            consumer = arn.to_owned();
        }
        let after = told(&mut kinesis).await;
        assert_ne!(after, before, "{operation} shows");
        process.kill();
        process = start(folder.path(), &at_once);
        kinesis = Kinesis::connect(process.http).await;
        before = told(&mut kinesis).await;
        assert_eq!(before, after, "after {operation}");
    }

    // States that pass, too: they go on where they were.
    process.kill();
    process = start(folder.path(), &slowly);
    kinesis = Kinesis::connect(process.http).await;
    let passing = [
        ("CreateStream", json!({"StreamName": "new", "ShardCount": 1})),
        ("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "new"})),
        ("StopStreamEncryption", json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"})),
        ("DeleteStream", json!({"StreamName": "d"})),
    ];
    for (operation, body) in passing {
        kinesis.ok(operation, body).await;
    }
    let after = told(&mut kinesis).await;
    process.kill();
    // What has begun takes as long as it was to take then.
    process = start(folder.path(), &at_once);
    kinesis = Kinesis::connect(process.http).await;
    assert_eq!(told(&mut kinesis).await, after);
    for (name, status) in [("new", "CREATING"), ("s", "UPDATING"), ("d", "DELETING")] {
        let summary = kinesis.ok("DescribeStreamSummary", json!({"StreamName": name})).await;
        assert_eq!(summary["StreamDescriptionSummary"]["StreamStatus"], status, "{name}");
    }
    let consumers = kinesis.ok("ListStreamConsumers", json!({"StreamARN": arn("s")})).await;
    assert_eq!(consumers["Consumers"][0]["ConsumerStatus"], "CREATING");
}

#[tokio::test]
async fn an_iterator_that_was_given_out_before_a_kill_reads_on_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = start(folder.path(), &["--state-delay", "0"]);
    let mut kinesis = Kinesis::connect(process.http).await;
    kinesis.create_stream("s", 1).await;
    let shard = "shardId-000000000000";
    let mut number = kinesis.put("s", &[("k", b"0")]).await.remove(0).1;
    let mut iterator = kinesis.iterator("s", shard, "LATEST").await;
    for round in 1..5 {
        process.kill();
        process = start(folder.path(), &["--state-delay", "0"]);
        kinesis = Kinesis::connect(process.http).await;
        let data = round.to_string();
        let next = kinesis.put("s", &[("k", data.as_bytes())]).await.remove(0).1;
        assert!(next > number, "{next} after {number}");
        number = next;
        let page = kinesis.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        let read = kinesis.read(shard, iterator).await.0;
        let read: Vec<_> = read.iter().map(|got| (&*got.number, &got.data[..])).collect();
        assert_eq!(read, [(&*number, data.as_bytes())]);
        iterator = text(&page["NextShardIterator"]);
    }
}

const CONNECTIONS: u64 = 4;
const ROUNDS: u64 = 6;

/// A record that was acknowledged.
struct Acknowledged {
    shard: String,
    number: String,
    key: String,
    data: Bytes,
}

/// Puts until the connection ends, and tells of each request that was answered.
async fn put(address: SocketAddr, seed: u64, answered: mpsc::UnboundedSender<()>) -> Vec<Acknowledged> {
    let mut kinesis = Kinesis::connect(address).await;
    let mut random = Random(seed);
    let mut acknowledged = Vec::new();
    loop {
        let record = |n: usize, random: &mut Random| {
            let length = random.below(3_000);
            (format!("{seed}-{n}"), Bytes::from(vec![random.below(256) as u8; length]))
        };
        let count = 1 + random.below(30);
        let records: Vec<_> = (0..count).map(|n| record(n, &mut random)).collect();
        let Some(put) = kinesis.try_put("s", &records).await else { return acknowledged };
        let _ = answered.send(());
        acknowledged.extend(records.into_iter().zip(put).map(|((key, data), (shard, number))| Acknowledged {
            shard,
            number,
            key,
            data,
        }));
    }
}

fn by_shard(read: Vec<Got>) -> BTreeMap<String, Vec<Got>> {
    let mut shards: BTreeMap<_, Vec<Got>> = BTreeMap::new();
    for got in read {
        shards.entry(got.shard.clone()).or_default().push(got);
    }
    shards
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_were_acknowledged_are_there_in_order_after_kills_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = start(folder.path(), &["--state-delay", "0"]);
    let mut kinesis = Kinesis::connect(process.http).await;
    kinesis.create_stream("s", 2).await;
    let mut before: BTreeMap<String, Vec<Got>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let (sender, mut answered) = mpsc::unbounded_channel();
        let putters: Vec<_> = (0..CONNECTIONS)
            .map(|place| tokio::spawn(put(process.http, round * CONNECTIONS + place, sender.clone())))
            .collect();
        let mut random = Random(1_000 + round);
        for _ in 0..random.below(40) {
            answered.recv().await.unwrap();
        }
        // While they put.
        let target = if round % 2 == 0 { 4 } else { 2 };
        let body = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        kinesis.ok("UpdateShardCount", body).await;
        for _ in 0..random.below(40) {
            answered.recv().await.unwrap();
        }
        process.kill();
        let mut acknowledged = Vec::new();
        for putter in putters {
            acknowledged.extend(putter.await.unwrap());
        }

        process = start(folder.path(), &["--state-delay", "0"]);
        kinesis = Kinesis::connect(process.http).await;
        let read = kinesis.follow("s").await;
        let numbers: BTreeSet<_> = read.iter().map(|got| &got.number).collect();
        assert_eq!(numbers.len(), read.len(), "round {round}: none twice");
        let after = by_shard(read);
        for (shard, known) in &before {
            assert_eq!(after.get(shard).map(|after| &after[..known.len()]), Some(&known[..]), "round {round}: {shard}");
        }
        for (shard, records) in &after {
            assert!(records.is_sorted_by(|a, b| a.number < b.number), "round {round}: {shard}");
        }
        for Acknowledged { shard, number, key, data } in acknowledged {
            let records = &after[&shard];
            let place = records.binary_search_by(|got| got.number.cmp(&number));
            let got = &records[place.unwrap_or_else(|_| panic!("round {round}: {number} of {shard} is lost"))];
            assert_eq!((&got.key, &got.data), (&key, &data));
        }
        before = after;
    }
}
