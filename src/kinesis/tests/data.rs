//! Records in and out: PutRecord, PutRecords, GetShardIterator, GetRecords. Texts are those that were recorded from AWS.

use serde_json::{Value, json};

use super::fixture::{ACCOUNT, Fixture, NOW_MS, arn};
use crate::config::Config;
use crate::model::attributes::LimitsPolicy;

const MAX_HASH_KEY: &str = "340282366920938463463374607431768211455";
const SHARD_0: &str = "shardId-000000000000";

/// Without limits of shards, which have tests of their own.
fn unlimited() -> Fixture {
    Fixture::with(|config: &mut Config| config.kinesis_limits = LimitsPolicy::Off)
}

impl Fixture {
    async fn put(&self, key: &str, data: &str) -> Value {
        self.ok("PutRecord", json!({"StreamName": "s", "PartitionKey": key, "Data": data})).await
    }

    async fn iterator(&self, shard: &str, more: Value) -> String {
        let mut body = json!({"StreamName": "s", "ShardId": shard});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ok("GetShardIterator", body).await["ShardIterator"].as_str().unwrap().to_owned()
    }

    async fn get(&self, iterator: &str) -> Value {
        self.ok("GetRecords", json!({"ShardIterator": iterator})).await
    }

    /// Data of what a position reads, as put: base64.
    async fn read(&self, shard: &str, from: Value) -> Vec<String> {
        let iterator = self.iterator(shard, from).await;
        data(&self.get(&iterator).await)
    }

    async fn refused_iterator(&self, more: Value) -> (&'static str, String) {
        let mut body = json!({"StreamName": "s", "ShardId": "shardId-0"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.refused("GetShardIterator", body).await
    }
}

fn data(answer: &Value) -> Vec<String> {
    let records = answer["Records"].as_array().unwrap();
    records.iter().map(|record| record["Data"].as_str().unwrap().to_owned()).collect()
}

fn trim_horizon() -> Value {
    json!({"ShardIteratorType": "TRIM_HORIZON"})
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_put() {
    let f = unlimited();
    f.create("s", 3).await;
    let put = f.put("a", "AQID").await;
    let number = put["SequenceNumber"].as_str().unwrap();
    assert_eq!((put["ShardId"].as_str(), number.len()), (Some(SHARD_0), 56));
    assert_eq!(put.as_object().unwrap().len(), 2, "without encryption there is no word of it");
    let iterator = f.iterator(SHARD_0, trim_horizon()).await;
    let got = f.get(&iterator).await;
    assert_eq!(
        got["Records"],
        json!([{
            "SequenceNumber": number,
            "ApproximateArrivalTimestamp": NOW_MS as f64 / 1_000.0,
            "Data": "AQID",
            "PartitionKey": "a",
        }])
    );
    assert_eq!((&got["MillisBehindLatest"], got.get("ChildShards")), (&json!(0), None));
    let again = f.get(got["NextShardIterator"].as_str().unwrap()).await;
    assert_eq!(again["Records"], json!([]));
}

#[tokio::test]
async fn put_records_answers_in_the_order_of_the_request() {
    let f = unlimited();
    f.create("s", 3).await;
    let entry = |key: &str, hash: Option<&str>| {
        let mut entry = json!({"PartitionKey": key, "Data": ""});
        if let Some(hash) = hash {
            entry["ExplicitHashKey"] = json!(hash);
        }
        entry
    };
    let records = [
        entry("a", None),
        entry("b", None),
        entry("e", None),
        entry("f", None),
        entry("a", Some(MAX_HASH_KEY)),
        entry("a", Some("226854911280625642308916404954512140969")),
        entry("a", Some("226854911280625642308916404954512140970")),
    ];
    let answer = f.ok("PutRecords", json!({"StreamARN": arn("s"), "Records": records})).await;
    assert_eq!(answer["FailedRecordCount"], json!(0));
    let shards: Vec<_> = answer["Records"].as_array().unwrap().iter().map(|r| r["ShardId"].as_str().unwrap()).collect();
    // As recorded.
    let expected = [0, 1, 2, 1, 2, 1, 2].map(|n| format!("shardId-{n:012}"));
    assert_eq!(shards, expected);
}

#[tokio::test]
async fn requests_are_refused_as_recorded() {
    let f = unlimited();
    f.create("s", 1).await;
    let (code, text) = f.refused("PutRecord", json!({})).await;
    assert_eq!(
        (code, text.as_str()),
        (
            "ValidationException",
            "3 validation errors detected: Value null at 'partitionKey' failed to satisfy constraint: Member must not be \
             null; Value null at 'data' failed to satisfy constraint: Member must not be null; Value null at 'streamName' \
             failed to satisfy constraint: Member must not be null"
        )
    );
    let (_, text) = f.refused("PutRecord", json!({"StreamName": "s", "Data": ""})).await;
    assert_eq!(
        text,
        "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member must not be null"
    );
    let records = json!([{"PartitionKey": "", "Data": "", "ExplicitHashKey": ""}]);
    let (_, text) = f.refused("PutRecords", json!({"StreamName": "", "Records": records})).await;
    assert_eq!(
        text,
        "4 validation errors detected: Value '' at 'records.1.member.partitionKey' failed to satisfy constraint: Member \
         must have length greater than or equal to 1; Value '' at 'records.1.member.explicitHashKey' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38}); Value '' at 'streamName' failed \
         to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '' at 'streamName' \
         failed to satisfy constraint: Member must have length greater than or equal to 1"
    );
    let (_, text) = f.refused("PutRecords", json!({"StreamName": "s", "Records": []})).await;
    assert!(text.starts_with("1 validation error detected: Value '[]' at 'records' failed"), "{text}");
    let many = vec![json!({"PartitionKey": "", "Data": ""}); 501];
    let (_, text) = f.refused("PutRecords", json!({"StreamName": "", "Records": many})).await;
    assert!(text.starts_with("10 validation errors detected: Value at 'records' failed"), "{text}");
    assert!(
        text.contains("Member must have length less than or equal to 500; Value '' at 'records.1.member."),
        "{text}"
    );
    let (code, text) = f.refused("PutRecord", json!({"StreamName": "x", "PartitionKey": "a", "Data": ""})).await;
    assert_eq!((code, text), ("ResourceNotFoundException", format!("Stream x under account {ACCOUNT} not found.")));
    let two_to_the_128 = "340282366920938463463374607431768211456";
    let entry = json!({"PartitionKey": "a", "Data": "", "ExplicitHashKey": two_to_the_128});
    let (code, text) = f.refused("PutRecords", json!({"StreamName": "s", "Records": [entry]})).await;
    assert_eq!(code, "InvalidArgumentException");
    assert_eq!(
        text,
        format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was \
             {two_to_the_128}"
        )
    );
}

#[tokio::test]
async fn records_have_the_size_that_their_stream_takes() {
    use base64::Engine;
    let f = unlimited();
    f.create("s", 1).await;
    let of = |bytes: usize| base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]);
    let body = |bytes: usize| json!({"StreamName": "s", "PartitionKey": "ab", "Data": of(bytes)});
    f.ok("PutRecord", body((1 << 20) - 2)).await;
    let (code, text) = f.refused("PutRecord", body((1 << 20) - 1)).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(
        text,
        "1 validation error detected: Value at 'data' failed to satisfy \
         constraint: Member must have length less than or equal to 1048576"
    );
    let entry = |bytes: usize| json!({"PartitionKey": "ab", "Data": of(bytes)});
    let records = json!([entry(1), entry((1 << 20) - 1)]);
    let (_, text) = f.refused("PutRecords", json!({"StreamName": "s", "Records": records})).await;
    assert!(text.contains(" at 'records.2.member.data' failed"), "{text}");
    // Ten of them with their keys are ten MiB, and one byte more is too much.
    let mut records = vec![entry((1 << 20) - 2); 10];
    f.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
    records.push(json!({"PartitionKey": "a", "Data": ""}));
    let refused = f.refused("PutRecords", json!({"StreamName": "s", "Records": records})).await;
    assert_eq!(refused, ("InvalidArgumentException", "Records size exceeds 10 MB limit".to_owned()));
    f.ok("UpdateMaxRecordSize", json!({"StreamARN": arn("s"), "MaxRecordSizeInKiB": 10_240})).await;
    f.ok("PutRecord", body((10 << 20) - 2)).await;
}

#[tokio::test]
async fn numbers_for_ordering_are_judged_as_recorded() {
    let f = unlimited();
    f.create("s", 1).await;
    let first = f.put("a", "").await;
    let body =
        |number: &str| json!({"StreamName": "s", "PartitionKey": "a", "Data": "", "SequenceNumberForOrdering": number});
    let second = f.ok("PutRecord", body(first["SequenceNumber"].as_str().unwrap())).await;
    assert!(second["SequenceNumber"].as_str() > first["SequenceNumber"].as_str());
    // 0x2000...0002, 0x20000000000...0001: shards and times of zero.
    f.ok("PutRecord", body("49039857307708443467467104868809893875799651909875269634")).await;
    for wrong in [
        "49039857307708443467467104868809893875799651909875269632",
        "49039857307708443467467104868809893875799651909875269635",
        "26227199374822427428162556223570313216",
    ] {
        let refused = f.refused("PutRecord", body(wrong)).await;
        let text = format!(
            "ExclusiveMinimumSequenceNumber {wrong} used in PutRecord on stream s under account {ACCOUNT} is invalid."
        );
        assert_eq!(refused, ("InvalidArgumentException", text));
    }
}

#[tokio::test]
async fn a_reader_begins_where_it_says() {
    let f = unlimited();
    f.create("s", 1).await;
    let mut numbers = Vec::new();
    for data in ["AAAA", "AAAB", "AAAC"] {
        let put = f.put("a", data).await;
        numbers.push(put["SequenceNumber"].as_str().unwrap().to_owned());
        f.clock.advance(1_500);
    }
    let at = |kind: &str, number: &str| json!({"ShardIteratorType": kind, "StartingSequenceNumber": number});
    assert_eq!(f.read("shardId-0", trim_horizon()).await, ["AAAA", "AAAB", "AAAC"]);
    assert_eq!(f.read("0", at("AT_SEQUENCE_NUMBER", &numbers[1])).await, ["AAAB", "AAAC"]);
    assert_eq!(f.read("x-0", at("AFTER_SEQUENCE_NUMBER", &numbers[1])).await, ["AAAC"]);
    let shards = f.ok("ListShards", json!({"StreamName": "s"})).await;
    let start = shards["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"].as_str().unwrap();
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        assert_eq!(f.read(SHARD_0, at(kind, start)).await.len(), 3, "{kind}");
    }
    let timestamp = |ms: i64| json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": ms as f64 / 1_000.0});
    assert_eq!(f.read(SHARD_0, timestamp(0)).await.len(), 3);
    assert_eq!(f.read(SHARD_0, timestamp(NOW_MS + 1_500)).await, ["AAAB", "AAAC"]);
    assert_eq!(f.read(SHARD_0, timestamp(NOW_MS + 1_501)).await, ["AAAC"]);
    assert_eq!(f.read(SHARD_0, timestamp(NOW_MS + 4_500)).await, [""; 0]);
    let latest = f.iterator(SHARD_0, json!({"ShardIteratorType": "LATEST"})).await;
    assert_eq!(data(&f.get(&latest).await), [""; 0]);
    f.put("a", "AAAD").await;
    assert_eq!(data(&f.get(&format!("\"{latest}\"")).await), ["AAAD"]);
    let limited = f.iterator(SHARD_0, trim_horizon()).await;
    let page = f.ok("GetRecords", json!({"ShardIterator": limited, "Limit": 3, "StreamARN": arn("s")})).await;
    assert_eq!((data(&page).len(), &page["MillisBehindLatest"]), (3, &json!(1_500)));
    assert_eq!(data(&f.get(page["NextShardIterator"].as_str().unwrap()).await), ["AAAD"]);
}

#[tokio::test]
async fn iterators_are_refused_as_recorded() {
    let f = unlimited();
    f.create("s", 1).await;
    let (code, text) = f.refused("GetShardIterator", json!({})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.starts_with("3 validation errors detected: Value null at 'shardId'"), "{text}");
    let (_, text) = f.refused_iterator(json!({"ShardIteratorType": ""})).await;
    assert_eq!(
        text,
        "1 validation error detected: Value '' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy \
         enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]"
    );
    let of_shard = |stream: &str, id: &str| json!({"StreamName": stream, "ShardId": id, "ShardIteratorType": "LATEST"});
    for (stream, id, text) in [
        ("x", "2147483647", format!("Shard shardId-002147483647 in stream x under account {ACCOUNT} does not exist")),
        (
            "x",
            "a-00002147483647",
            format!("Shard shardId-002147483647 in stream x under account {ACCOUNT} does not exist"),
        ),
        ("x", "2147483648", format!("Could not find shard 2147483648 in stream x under account {ACCOUNT}.")),
        ("x", "ABKLFD8", format!("Could not find shard ABKLFD8 in stream x under account {ACCOUNT}.")),
        ("s", "shardId-5", format!("Shard shardId-000000000005 in stream s under account {ACCOUNT} does not exist")),
    ] {
        assert_eq!(f.refused("GetShardIterator", of_shard(stream, id)).await, ("ResourceNotFoundException", text));
    }
    let by_arn = json!({"StreamARN": arn("x"), "ShardId": "0", "ShardIteratorType": "LATEST"});
    let (_, text) = f.refused("GetShardIterator", by_arn).await;
    assert_eq!(text, format!("Stream x under account {ACCOUNT} not found."));

    let combine = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
                   TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified ";
    let at = |kind: &str, number: &str| json!({"ShardIteratorType": kind, "StartingSequenceNumber": number});
    for (body, text) in [
        (
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
            format!("{combine}AT_SEQUENCE_NUMBER and no StartingSequenceNumber."),
        ),
        (at("LATEST", "5"), format!("{combine}LATEST and also a StartingSequenceNumber.")),
        (
            at("AT_SEQUENCE_NUMBER", "5"),
            "Invalid StartingSequenceNumber. It encodes shardId-000000000005, while it was used in a call to a shard \
             with shardId-000000000000"
                .to_owned(),
        ),
        (
            at("AT_SEQUENCE_NUMBER", "26227199374822427428162556223570313216"),
            format!(
                "StartingSequenceNumber 26227199374822427428162556223570313216 used in GetShardIterator on shard \
                 shardId-000000000000 in stream s under account {ACCOUNT} is invalid."
            ),
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP"}),
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp \
             parameter."
                .to_owned(),
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": (NOW_MS + 2_000) / 1_000}),
            format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: \
                 {}, currentTimestampInMillis: {NOW_MS}",
                NOW_MS + 2_000
            ),
        ),
    ] {
        assert_eq!(f.refused_iterator(body).await, ("InvalidArgumentException", text));
    }
    assert_eq!(f.refused_iterator(at("AT_SEQUENCE_NUMBER", "0")).await.0, "InternalFailure");
    // Of another stream: the shard was created at another time.
    let (_, text) =
        f.refused_iterator(at("AT_SEQUENCE_NUMBER", "49590338271490256608559692538361571095921575989136588802")).await;
    assert!(text.ends_with("is invalid because it did not come from this stream."), "{text}");
    let refused = f.refused("GetRecords", json!({"ShardIterator": "abc"})).await;
    assert_eq!(refused, ("InvalidArgumentException", "Invalid ShardIterator.".to_owned()));
    let (_, text) = f.refused("GetRecords", json!({"ShardIterator": "", "Limit": 0})).await;
    assert_eq!(
        text,
        "2 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater \
         than or equal to 1; Value '' at 'shardIterator' failed to satisfy constraint: Member must have length greater \
         than or equal to 1"
    );
}

#[tokio::test]
async fn an_iterator_survives_a_restart_but_not_its_stream() {
    let f = unlimited();
    f.create("s", 1).await;
    f.put("a", "AAAA").await;
    let iterator = f.iterator(SHARD_0, trim_horizon()).await;
    let f = f.restarted();
    assert_eq!(data(&f.get(&iterator).await), ["AAAA"]);
    f.ok("DeleteStream", json!({"StreamName": "s"})).await;
    f.door.broker.finish_deletions().await.unwrap();
    let gone = (
        "ResourceNotFoundException",
        format!("Shard shardId-000000000000 in stream s under account {ACCOUNT} does not exist"),
    );
    assert_eq!(f.refused("GetRecords", json!({"ShardIterator": iterator})).await, gone);
    f.create("s", 1).await;
    assert_eq!(
        f.refused("GetRecords", json!({"ShardIterator": iterator})).await,
        gone,
        "a stream made anew is another"
    );
}

#[tokio::test]
async fn at_the_end_of_a_closed_shard_its_children_are_told() {
    let f = unlimited();
    f.create("s", 1).await;
    let put = f.put("a", "AAAA").await;
    let number = put["SequenceNumber"].as_str().unwrap().to_owned();
    let split = json!({"StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": "1000"});
    f.ok("SplitShard", split).await;
    let iterator = f.iterator(SHARD_0, trim_horizon()).await;
    let last = f.get(&iterator).await;
    assert_eq!((data(&last), last.get("NextShardIterator")), (vec!["AAAA".to_owned()], None));
    assert_eq!(
        last["ChildShards"],
        json!([
            {
                "ShardId": "shardId-000000000001",
                "ParentShards": [SHARD_0],
                "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "999"},
            },
            {
                "ShardId": "shardId-000000000002",
                "ParentShards": [SHARD_0],
                "HashKeyRange": {"StartingHashKey": "1000", "EndingHashKey": MAX_HASH_KEY},
            },
        ])
    );
    let shards = f.ok("ListShards", json!({"StreamName": "s"})).await;
    let end = shards["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].as_str().unwrap();
    assert!(*end > *number);
    for from in [
        json!({"ShardIteratorType": "LATEST"}),
        json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number}),
        json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": end}),
    ] {
        let iterator = f.iterator(SHARD_0, from).await;
        let answer = f.get(&iterator).await;
        assert_eq!((data(&answer).len(), answer.get("NextShardIterator")), (0, None));
    }
}

#[tokio::test]
async fn shards_have_limits() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let records = vec![json!({"PartitionKey": "a", "Data": "AAAA"}); 500];
    for refused in [0, 0] {
        let answer = f.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
        assert_eq!(answer["FailedRecordCount"], json!(refused));
    }
    f.clock.advance(100);
    let answer = f.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
    assert_eq!(answer["FailedRecordCount"], json!(400));
    let text = format!("Rate exceeded for shard {SHARD_0} in stream s under account {ACCOUNT}.");
    let entry = json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": text});
    assert_eq!(answer["Records"][499], entry);
    let refused = f.refused("PutRecord", json!({"StreamName": "s", "PartitionKey": "a", "Data": ""})).await;
    assert_eq!(refused, ("ProvisionedThroughputExceededException", text.clone()));

    let mut iterator = f.iterator(SHARD_0, trim_horizon()).await;
    let mut read = 0;
    for _ in 0..5 {
        let answer = f.ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 300})).await;
        read += data(&answer).len();
        iterator = answer["NextShardIterator"].as_str().unwrap().to_owned();
    }
    assert_eq!(read, 1_100);
    let refused = f.refused("GetRecords", json!({"ShardIterator": iterator})).await;
    assert_eq!(refused, ("ProvisionedThroughputExceededException", text));
    f.clock.advance(200);
    f.get(&iterator).await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let f = unlimited();
    f.create("s", 1).await;
    let iterator = f.iterator(SHARD_0, trim_horizon()).await;
    let dry = |mut body: Value| {
        body["DryRun"] = json!(true);
        body
    };
    for (operation, body) in [
        ("PutRecord", json!({"StreamName": "s", "PartitionKey": "a", "Data": "AAAA"})),
        ("PutRecords", json!({"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": "AAAA"}]})),
        ("GetShardIterator", json!({"StreamName": "s", "ShardId": SHARD_0, "ShardIteratorType": "LATEST"})),
        ("GetRecords", json!({"ShardIterator": iterator})),
    ] {
        assert_eq!(f.refused(operation, dry(body)).await.0, "DryRunOperationException", "{operation}");
    }
    assert_eq!(data(&f.get(&iterator).await), [""; 0]);
    let missing = dry(json!({"StreamName": "x", "PartitionKey": "a", "Data": "AAAA"}));
    assert_eq!(f.refused("PutRecord", missing).await.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn a_stream_takes_records_once_it_is_made() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 1).await;
    let body = json!({"StreamName": "s", "PartitionKey": "a", "Data": ""});
    assert_eq!(f.refused("PutRecord", body.clone()).await.0, "ResourceNotFoundException");
    assert_eq!(f.refused_iterator(trim_horizon()).await.0, "ResourceNotFoundException");
    f.clock.advance(500);
    f.ok("PutRecord", body).await;
}
