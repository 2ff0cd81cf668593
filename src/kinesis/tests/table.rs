//! Every row of the table is exercised, and what is no row is unknown.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixture::{Fixture, arn};
use crate::config::MasterKey;
use crate::kinesis::TABLE;

/// A request for each operation that goes well, on streams `p` (provisioned), `d` (on-demand) and `gone`, in this order.
fn samples() -> Vec<(&'static str, Value)> {
    let key = json!({"StreamName": "p", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "1000"});
    let pair = json!({
        "StreamName": "p",
        "ShardToMerge": "shardId-000000000002",
        "AdjacentShardToMerge": "shardId-000000000003",
    });
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"AWS": "111111111111"},
        "Action": "kinesis:DescribeStreamSummary",
        "Resource": arn("p"),
    }]});
    let commitment = json!({"Status": "ENABLED"});
    vec![
        ("CreateStream", json!({"StreamName": "new", "ShardCount": 1})),
        ("PutRecord", json!({"StreamName": "p", "PartitionKey": "a", "Data": ""})),
        ("PutRecords", json!({"StreamName": "p", "Records": [{"PartitionKey": "a", "Data": ""}]})),
        ("GetShardIterator", json!({"StreamARN": arn("p"), "ShardId": "0", "ShardIteratorType": "LATEST"})),
        ("DescribeStream", json!({"StreamName": "p"})),
        ("DescribeStreamSummary", json!({"StreamARN": arn("p")})),
        ("ListStreams", json!({})),
        ("ListShards", json!({"StreamName": "p"})),
        ("AddTagsToStream", json!({"StreamName": "p", "Tags": {"a": "b"}})),
        ("ListTagsForStream", json!({"StreamName": "p"})),
        ("RemoveTagsFromStream", json!({"StreamName": "p", "TagKeys": ["a"]})),
        ("TagResource", json!({"ResourceARN": arn("p"), "Tags": {"a": "b"}})),
        ("ListTagsForResource", json!({"ResourceARN": arn("p")})),
        ("UntagResource", json!({"ResourceARN": arn("p"), "TagKeys": ["a"]})),
        ("IncreaseStreamRetentionPeriod", json!({"StreamName": "p", "RetentionPeriodHours": 48})),
        ("DecreaseStreamRetentionPeriod", json!({"StreamName": "p", "RetentionPeriodHours": 24})),
        ("EnableEnhancedMonitoring", json!({"StreamName": "p", "ShardLevelMetrics": ["ALL"]})),
        ("DisableEnhancedMonitoring", json!({"StreamName": "p", "ShardLevelMetrics": ["IncomingBytes"]})),
        ("SplitShard", key),
        ("MergeShards", pair),
        ("UpdateShardCount", json!({"StreamName": "p", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"})),
        ("UpdateMaxRecordSize", json!({"StreamARN": arn("p"), "MaxRecordSizeInKiB": 4_096})),
        ("DescribeLimits", json!({})),
        ("UpdateAccountSettings", json!({"MinimumThroughputBillingCommitment": commitment})),
        ("DescribeAccountSettings", json!({})),
        ("UpdateStreamWarmThroughput", json!({"StreamName": "d", "WarmThroughputMiBps": 6})),
        (
            "UpdateStreamRecordDistributionStrategy",
            json!({"StreamARN": arn("d"), "RecordDistributionStrategy": "AUTO"}),
        ),
        ("UpdateStreamMode", json!({"StreamARN": arn("d"), "StreamModeDetails": {"StreamMode": "PROVISIONED"}})),
        ("PutResourcePolicy", json!({"ResourceARN": arn("p"), "Policy": policy.to_string()})),
        ("GetResourcePolicy", json!({"ResourceARN": arn("p")})),
        ("DeleteResourcePolicy", json!({"ResourceARN": arn("p")})),
        ("RegisterStreamConsumer", json!({"StreamARN": arn("p"), "ConsumerName": "c"})),
        ("DescribeStreamConsumer", json!({"StreamARN": arn("p"), "ConsumerName": "c"})),
        ("ListStreamConsumers", json!({"StreamARN": arn("p")})),
        ("DeregisterStreamConsumer", json!({"StreamARN": arn("p"), "ConsumerName": "c"})),
        ("StartStreamEncryption", json!({"StreamName": "p", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"})),
        ("StopStreamEncryption", json!({"StreamName": "p", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"})),
        ("DeleteStream", json!({"StreamName": "gone"})),
    ]
}

/// Operations whose request needs what another one answered: `data` and `subscribe` exercise them.
const ELSEWHERE: &[&str] = &["GetRecords", "SubscribeToShard"];

/// Operations that AWS answers with an empty body.
const SILENT: &[&str] = &[
    "AddTagsToStream",
    "CreateStream",
    "DecreaseStreamRetentionPeriod",
    "DeleteResourcePolicy",
    "DeleteStream",
    "DeregisterStreamConsumer",
    "IncreaseStreamRetentionPeriod",
    "MergeShards",
    "PutResourcePolicy",
    "RemoveTagsFromStream",
    "SplitShard",
    "StartStreamEncryption",
    "StopStreamEncryption",
    "TagResource",
    "UntagResource",
    "UpdateMaxRecordSize",
    "UpdateStreamMode",
    "UpdateStreamRecordDistributionStrategy",
];

#[tokio::test]
async fn every_row_is_exercised() {
    let f = Fixture::with(|config| {
        config.master_keys = vec![MasterKey { id: "main".into(), secret: [1; 32], disabled: false }];
    });
    f.create("p", 2).await;
    f.create("gone", 1).await;
    f.create_on_demand("d").await;
    let samples = samples();
    let sampled: BTreeSet<&str> = samples.iter().map(|(operation, _)| *operation).collect();
    let rows = || TABLE.iter().filter(|row| !ELSEWHERE.contains(&row.operation));
    let served: BTreeSet<&str> = rows().map(|row| row.operation).collect();
    assert_eq!((sampled, samples.len()), (served, rows().count()), "there is one sample for each row");
    for (operation, body) in samples {
        let answer = f.ok(operation, body).await;
        assert_eq!(answer.is_null(), SILENT.contains(&operation), "{operation}: {answer}");
    }
    let text = f.door.broker.metrics().render(crate::metrics::TextFormat::Prometheus, |_| ());
    for row in rows() {
        let well = format!("anabranch_kinesis_requests_total{{error=\"NONE\",operation=\"{}\"}}", row.operation);
        assert!(text.lines().any(|line| line.starts_with(&well) && !line.ends_with(" 0")), "{well}");
    }
}

#[tokio::test]
async fn every_row_refuses_what_does_not_exist() {
    let f = Fixture::new();
    let of_the_account = ["CreateStream", "ListStreams"];
    for (operation, body) in samples() {
        let text = body.to_string();
        if of_the_account.contains(&operation) || !(text.contains("\"StreamName\":") || text.contains(":stream/")) {
            continue;
        }
        let (code, text) = f.refused(operation, body).await;
        assert_eq!(code, "ResourceNotFoundException", "{operation}: {text}");
        assert!(text.starts_with("Stream "), "{operation}: {text}");
    }
}

#[tokio::test]
async fn every_row_with_members_refuses_a_body_of_another_type() {
    let f = Fixture::new();
    for row in TABLE {
        let (code, _) = f.refused(row.operation, json!([])).await;
        assert_eq!(code, "SerializationException", "{}", row.operation);
    }
}

#[tokio::test]
async fn what_is_no_row_is_unknown() {
    let f = Fixture::new();
    for operation in ["", "createStream", "CreateChannel", "ReceiveQueueRecords", "DescribeEverything"] {
        let failure = f.call(operation, json!({})).await.unwrap_err();
        assert_eq!((failure.code, failure.message, failure.status), ("UnknownOperationException", None, 400));
    }
}
