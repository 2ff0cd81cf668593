//! Streams: made, described, deleted; their states and the account's quotas.

use serde_json::json;

use super::fixture::{ACCOUNT, Fixture, NOW_MS, arn};

#[tokio::test]
async fn a_stream_goes_through_its_states() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 3).await;
    let described = f.ok("DescribeStream", json!({"StreamName": "s"})).await;
    assert_eq!(
        described,
        json!({"StreamDescription": {
            "StreamName": "s",
            "StreamARN": arn("s"),
            "StreamStatus": "CREATING",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": NOW_MS as f64 / 1_000.0,
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
            "HasMoreShards": false,
            "Shards": [],
        }})
    );
    assert_eq!(f.summary("s").await["OpenShardCount"], 0);
    let (code, text) = f
        .refused("SplitShard", json!({"StreamName": "s", "ShardToSplit": "shardId-0", "NewStartingHashKey": "2"}))
        .await;
    assert_eq!(code, "ResourceInUseException");
    assert_eq!(text, format!("Stream s under account {ACCOUNT} not ACTIVE, instead in state CREATING"));

    f.clock.advance(500);
    let described = f.ok("DescribeStream", json!({"StreamARN": arn("s")})).await;
    let shards = &described["StreamDescription"]["Shards"];
    assert_eq!(described["StreamDescription"]["StreamStatus"], "ACTIVE");
    assert_eq!(
        shards[1]["HashKeyRange"],
        json!({
            "StartingHashKey": "113427455640312821154458202477256070485",
            "EndingHashKey": "226854911280625642308916404954512140969",
        })
    );
    let number = shards[1]["SequenceNumberRange"]["StartingSequenceNumber"].as_str().unwrap();
    assert_eq!((number.len(), shards[1].as_object().unwrap().len()), (56, 3));

    f.ok("DeleteStream", json!({"StreamName": "s"})).await;
    assert_eq!(f.status("s").await, "DELETING");
    let (code, text) = f.refused("DeleteStream", json!({"StreamName": "s"})).await;
    assert_eq!(code, "ResourceInUseException");
    assert_eq!(text, format!("Stream s under account {ACCOUNT} not ACTIVE, instead in state DELETING"));
    f.clock.advance(500);
    f.door.broker.finish_deletions().await.unwrap();
    let (code, text) = f.refused("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!((code, text.as_str()), ("ResourceNotFoundException", "Stream s under account 000000000000 not found."));
}

#[tokio::test]
async fn a_summary_tells_everything() {
    let f = Fixture::new();
    f.create("s", 2).await;
    assert_eq!(
        f.summary("s").await,
        json!({
            "StreamName": "s",
            "StreamARN": arn("s"),
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": NOW_MS as f64 / 1_000.0,
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
            "OpenShardCount": 2,
            "ConsumerCount": 0,
            "MaxRecordSizeInKiB": 1_024,
        })
    );
    f.create_on_demand("d").await;
    let summary = f.summary("d").await;
    assert_eq!(
        (&summary["OpenShardCount"], &summary["RecordDistributionStrategy"]),
        (&json!(4), &json!("USER_PARTITION_KEY"))
    );
    assert_eq!(summary["StreamModeDetails"], json!({"StreamMode": "ON_DEMAND"}));
}

#[tokio::test]
async fn streams_and_what_was_set_survive_a_restart() {
    let f = Fixture::new();
    let tags = json!({"team": "a"});
    f.ok("CreateStream", json!({"StreamName": "s", "ShardCount": 2, "Tags": tags, "MaxRecordSizeInKiB": 2_048})).await;
    f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"})).await;
    let before = (f.summary("s").await, f.ok("ListShards", json!({"StreamName": "s"})).await);
    let f = f.restarted();
    assert_eq!((f.summary("s").await, f.ok("ListShards", json!({"StreamName": "s"})).await), before);
    assert_eq!((&before.0["MaxRecordSizeInKiB"], &before.0["ConsumerCount"]), (&json!(2_048), &json!(1)));
    let listed = f.ok("ListTagsForStream", json!({"StreamName": "s"})).await;
    assert_eq!(listed, json!({"Tags": [{"Key": "team", "Value": "a"}], "HasMoreTags": false}));
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let (code, text) = f.refused("CreateStream", json!({"StreamName": "s", "ShardCount": 1})).await;
    assert_eq!(
        (code, text.as_str()),
        ("ResourceInUseException", "Stream s under account 000000000000 already exists.")
    );
}

#[tokio::test]
async fn input_is_validated_as_recorded() {
    let f = Fixture::new();
    let (code, text) = f.refused("CreateStream", json!({"StreamName": "", "ShardCount": 0})).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(
        text,
        "3 validation errors detected: Value '0' at 'shardCount' failed to satisfy constraint: Member must have value \
         greater than or equal to 1; Value '' at 'streamName' failed to satisfy constraint: Member must satisfy regular \
         expression pattern: [a-zA-Z0-9_.-]+; Value '' at 'streamName' failed to satisfy constraint: Member must have \
         length greater than or equal to 1"
    );
    let (code, text) = f.refused("CreateStream", json!({"StreamName": "a", "ShardCount": 100_000_000_000_i64})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("Value '2147483647' at 'shardCount'"), "{text}");
    let (code, text) = f.refused("CreateStream", json!({"StreamName": 23})).await;
    assert_eq!(code, "SerializationException");
    assert_eq!(text, "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String");
    let (code, text) = f.refused("DescribeStream", json!({})).await;
    assert_eq!(code, "ValidationException");
    assert!(
        text.ends_with("Value null at 'streamName' failed to satisfy constraint: Member must not be null"),
        "{text}"
    );
    let (code, _) = f.refused("CreateStream", json!({"StreamName": "a"})).await;
    assert_eq!(code, "ValidationException", "a provisioned stream has a shard count");
}

#[tokio::test]
async fn the_account_has_so_many_shards() {
    let f = Fixture::with(|config| config.shards_max = 10);
    f.create("s", 3).await;
    let (code, text) = f.refused("CreateStream", json!({"StreamName": "t", "ShardCount": 100_000})).await;
    assert_eq!(code, "LimitExceededException");
    assert_eq!(
        text,
        "This request would exceed the shard limit for the account 000000000000 in us-east-1. Current shard count for the \
         account: 3. Limit: 10. Number of additional shards that would have resulted from this request: 100000. Refer to \
         the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current \
         limits and how to request higher limits."
    );
    f.create("t", 7).await;
    let split = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "2"});
    assert_eq!(f.refused("SplitShard", split).await.0, "LimitExceededException");
    let scale = json!({"StreamName": "s", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"});
    assert_eq!(f.refused("UpdateShardCount", scale).await.0, "LimitExceededException");
    let limits = f.ok("DescribeLimits", json!({})).await;
    assert_eq!(
        limits,
        json!({"ShardLimit": 10, "OpenShardCount": 10, "OnDemandStreamCount": 0, "OnDemandStreamCountLimit": 50})
    );
}

#[tokio::test]
async fn five_streams_come_or_go_at_once() {
    let f = Fixture::with(|config| config.state_delay = 500);
    for name in ["a", "b", "c", "d", "e"] {
        f.create(name, 1).await;
    }
    let sixth = json!({"StreamName": "f", "ShardCount": 1});
    let (code, text) = f.refused("CreateStream", sixth.clone()).await;
    assert_eq!(code, "LimitExceededException");
    assert_eq!(
        text,
        "This request would have exceed the limit on the number of streams that can simultaneously be in CREATING or \
         DELETING for the account 000000000000. Limit: 5."
    );
    f.clock.advance(500);
    f.ok("CreateStream", sixth).await;
}

#[tokio::test]
async fn on_demand_streams_are_counted() {
    let f = Fixture::with(|config| config.on_demand_streams_max = 1);
    f.create_on_demand("d").await;
    f.create("s", 1).await;
    let text = "This request would exceed the limit on the number of On-Demand streams for the account 000000000000 in \
                us-east-1. Current On-Demand streams count: 1. Limit: 1.";
    let mode = json!({"StreamMode": "ON_DEMAND"});
    let more = f.refused("CreateStream", json!({"StreamName": "e", "StreamModeDetails": mode})).await;
    assert_eq!(more, ("LimitExceededException", text.to_owned()));
    let switched = f.refused("UpdateStreamMode", json!({"StreamARN": arn("s"), "StreamModeDetails": mode})).await;
    assert_eq!(switched, ("LimitExceededException", text.to_owned()));
}

#[tokio::test]
async fn a_stream_with_consumers_is_deleted_only_with_them() {
    let f = Fixture::new();
    f.create("s", 1).await;
    f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"})).await;
    let (code, text) = f.refused("DeleteStream", json!({"StreamName": "s"})).await;
    assert_eq!(code, "ResourceInUseException");
    assert_eq!(
        text,
        "DeleteStream can't delete 000000000000:s because there are consumers associated with this data stream. To delete \
         s anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the consumers that are \
         associated with it."
    );
    f.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true})).await;
    assert_eq!(f.refused("DescribeStream", json!({"StreamName": "s"})).await.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn topics_of_kafka_are_streams_as_well() {
    use crate::broker::catalog::NewStream;
    use crate::model::attributes::Attributes;

    let f = Fixture::new();
    let long = "t".repeat(200);
    for (name, retention) in [("topic", "3600001"), ("forever", "-1"), (long.as_str(), "1")] {
        let overrides = [("retention.ms".to_owned(), retention.to_owned())].into();
        let new = NewStream {
            name: name.to_owned(),
            partitions: std::num::NonZeroU32::MIN,
            claimed_replicas: 1,
            overrides,
            attributes: Attributes::new(NOW_MS),
        };
        f.door.broker.create_stream(new).await.unwrap();
    }
    assert_eq!(f.summary("topic").await["RetentionPeriodHours"], 2);
    assert_eq!(f.summary("forever").await["RetentionPeriodHours"], 8_760);
    let listed = f.ok("ListStreams", json!({})).await;
    assert_eq!(listed["StreamNames"], json!(["forever", "topic"]), "a longer name could not be asked for");
}
