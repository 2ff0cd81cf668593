//! What is set of a stream: retention, tags, monitoring, mode, record size and distribution.

use serde_json::{Map, Value, json};

use super::fixture::{ACCOUNT, Fixture, arn};

const DAY_MS: i64 = 86_400_000;

fn hours(hours: i32) -> Value {
    json!({"StreamName": "s", "RetentionPeriodHours": hours})
}

#[tokio::test]
async fn retention_is_a_day_to_a_year() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 1).await;
    f.clock.advance(500);
    let (longer, shorter) = ("IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod");
    let invalid = |text: &str| ("InvalidArgumentException", text.to_owned());
    for operation in [longer, shorter] {
        let text = "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.";
        assert_eq!(f.refused(operation, hours(23)).await, invalid(text));
        let text =
            "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.";
        assert_eq!(f.refused(operation, hours(8_761)).await, invalid(text));
        assert_eq!(f.refused(operation, hours(0)).await.0, "ValidationException");
    }
    f.ok(longer, hours(8_760)).await;
    assert_eq!(f.status("s").await, "UPDATING");
    assert_eq!(f.refused(longer, hours(8_760)).await.0, "ResourceInUseException");
    f.clock.advance(500);
    assert_eq!(f.summary("s").await["RetentionPeriodHours"], 8_760);
    f.ok(longer, hours(8_760)).await;
    assert_eq!(f.status("s").await, "ACTIVE", "nothing changed");
    let text = "Requested retention period (25 hours) for stream s can not be shorter than existing retention period (8760 \
                hours). Use DecreaseRetentionPeriod API.";
    assert_eq!(f.refused(longer, hours(25)).await, invalid(text));
    f.ok(shorter, hours(25)).await;
    f.clock.advance(500);
    let text = "Requested retention period (26 hours) for stream s can not be longer than existing retention period (25 \
                hours). Use IncreaseRetentionPeriod API.";
    assert_eq!(f.refused(shorter, hours(26)).await, invalid(text));
    let overrides = f.door.broker.stream("s").unwrap().overrides();
    assert_eq!(overrides["retention.ms"], (25 * 3_600_000).to_string(), "Kafka's clients see it as well");
}

#[tokio::test]
async fn tags_are_refused_as_recorded() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let add = |key: &str, value: &str| {
        let tags: Map<String, Value> = [(key.to_owned(), json!(value))].into_iter().collect();
        json!({"StreamName": "s", "Tags": tags})
    };
    let invalid = "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, \
                   _ . / = + - % @.";
    for bad in ["abc;def", "abc\tdef", "abc\ndef", "abc,def"] {
        let expected = ("InvalidArgumentException", invalid.to_owned());
        assert_eq!(f.refused("AddTagsToStream", add(bad, "1")).await, expected);
        assert_eq!(f.refused("AddTagsToStream", add("a", bad)).await, expected);
        let remove = json!({"StreamName": "s", "TagKeys": [bad]});
        assert_eq!(f.refused("RemoveTagsFromStream", remove).await, expected);
    }
    let (code, text) = f.refused("AddTagsToStream", add("abc%def", "1")).await;
    assert_eq!(code, "InvalidArgumentException");
    assert_eq!(
        text,
        format!(
            "Failed to add tags to stream s under account {ACCOUNT} because some tags contained illegal characters. The \
             allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
        )
    );
    assert_eq!(f.refused("AddTagsToStream", add("AWS:x", "1")).await.0, "InvalidArgumentException");
    assert_eq!(f.refused("AddTagsToStream", add(&"k".repeat(129), "1")).await.0, "ValidationException");
    assert_eq!(f.refused("AddTagsToStream", add("a", &"v".repeat(257))).await.0, "ValidationException");
    f.ok("AddTagsToStream", add("\u{fc}0 _./=+-@:", "")).await;
}

#[tokio::test]
async fn a_stream_has_fifty_tags_and_lists_them_in_order() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let numbered = |from: usize, to: usize, value: &str| {
        let tags: Map<String, Value> = (from..to).map(|n| (format!("k{n:02}"), json!(value))).collect();
        json!({"StreamName": "s", "Tags": tags})
    };
    f.ok("AddTagsToStream", numbered(0, 50, "a")).await;
    let (code, text) = f.refused("AddTagsToStream", numbered(49, 51, "b")).await;
    assert_eq!(code, "InvalidArgumentException");
    assert_eq!(
        text,
        format!(
            "Failed to add tags to stream s under account {ACCOUNT} because a given stream cannot have more than 50 tags \
             associated with it."
        )
    );
    f.ok("AddTagsToStream", numbered(49, 50, "b")).await;
    let page = json!({"StreamName": "s", "ExclusiveStartTagKey": "k46", "Limit": 2});
    let tags = json!([{"Key": "k47", "Value": "a"}, {"Key": "k48", "Value": "a"}]);
    assert_eq!(f.ok("ListTagsForStream", page).await, json!({"Tags": tags, "HasMoreTags": true}));
    let rest = f.ok("ListTagsForStream", json!({"StreamName": "s", "ExclusiveStartTagKey": "k48"})).await;
    assert_eq!(rest, json!({"Tags": [{"Key": "k49", "Value": "b"}], "HasMoreTags": false}));
    f.ok("RemoveTagsFromStream", json!({"StreamName": "s", "TagKeys": ["k00", "none"]})).await;
    let listed = f.ok("ListTagsForResource", json!({"ResourceARN": arn("s")})).await;
    assert_eq!(listed["Tags"].as_array().unwrap().len(), 49);
}

#[tokio::test]
async fn shard_level_metrics_are_told_before_and_after() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let metrics = |names: &[&str]| json!({"StreamName": "s", "ShardLevelMetrics": names});
    let enabled = f.ok("EnableEnhancedMonitoring", metrics(&["OutgoingBytes", "IncomingBytes"])).await;
    assert_eq!(
        enabled,
        json!({
            "StreamName": "s",
            "CurrentShardLevelMetrics": [],
            "DesiredShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"],
            "StreamARN": arn("s"),
        })
    );
    let all = f.ok("EnableEnhancedMonitoring", metrics(&["ALL"])).await;
    assert_eq!(all["DesiredShardLevelMetrics"].as_array().unwrap().len(), 7);
    let disabled = f.ok("DisableEnhancedMonitoring", metrics(&["IncomingBytes"])).await;
    assert_eq!(disabled["CurrentShardLevelMetrics"].as_array().unwrap().len(), 7);
    assert_eq!(f.summary("s").await["EnhancedMonitoring"][0]["ShardLevelMetrics"].as_array().unwrap().len(), 6);
    f.ok("DisableEnhancedMonitoring", metrics(&["ALL"])).await;
    assert_eq!(f.summary("s").await["EnhancedMonitoring"], json!([{"ShardLevelMetrics": []}]));
    let (code, text) = f.refused("EnableEnhancedMonitoring", metrics(&["Other"])).await;
    assert!(code == "ValidationException" && text.contains("Value '[Other]' at 'shardLevelMetrics'"), "{text}");
}

#[tokio::test]
async fn a_mode_is_switched_twice_a_day() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 2).await;
    let to = |mode: &str| json!({"StreamARN": arn("s"), "StreamModeDetails": {"StreamMode": mode}});
    f.clock.advance(500);
    f.ok("UpdateStreamMode", to("PROVISIONED")).await;
    assert_eq!(f.status("s").await, "ACTIVE", "that is no switch");
    f.ok("UpdateStreamMode", to("ON_DEMAND")).await;
    assert_eq!(f.status("s").await, "UPDATING");
    f.clock.advance(500);
    let summary = f.summary("s").await;
    assert_eq!(
        (&summary["StreamModeDetails"]["StreamMode"], &summary["OpenShardCount"]),
        (&json!("ON_DEMAND"), &json!(2))
    );
    f.ok("UpdateStreamMode", to("PROVISIONED")).await;
    f.clock.advance(500);
    let (code, text) = f.refused("UpdateStreamMode", to("ON_DEMAND")).await;
    assert!(code == "LimitExceededException" && text.contains("2 times in a rolling 24-hour period"), "{text}");
    f.clock.advance(DAY_MS - 1_000);
    f.ok("UpdateStreamMode", to("ON_DEMAND")).await;
    let nothing = json!({"StreamARN": arn("s"), "StreamModeDetails": {}});
    let (code, text) = f.refused("UpdateStreamMode", nothing).await;
    assert!(code == "ValidationException" && text.contains("at 'streamModeDetails.streamMode'"), "{text}");
}

#[tokio::test]
async fn records_are_spread_evenly_on_on_demand_streams_only() {
    let f = Fixture::new();
    f.create("p", 1).await;
    f.create_on_demand("d").await;
    let to = |name: &str, strategy: &str| json!({"StreamARN": arn(name), "RecordDistributionStrategy": strategy});
    let operation = "UpdateStreamRecordDistributionStrategy";
    assert_eq!(f.refused(operation, to("p", "AUTO")).await.0, "InvalidArgumentException");
    f.ok(operation, to("d", "AUTO")).await;
    assert_eq!(f.summary("d").await["RecordDistributionStrategy"], "AUTO");
    f.ok("UpdateStreamMode", json!({"StreamARN": arn("d"), "StreamModeDetails": {"StreamMode": "PROVISIONED"}})).await;
    assert_eq!(f.summary("d").await.get("RecordDistributionStrategy"), None);
    let new = json!({"StreamName": "q", "ShardCount": 1, "RecordDistributionStrategy": "AUTO"});
    assert_eq!(f.refused("CreateStream", new).await.0, "InvalidArgumentException");
}

#[tokio::test]
async fn records_may_be_ten_mebibytes() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let to = |kib: i32| json!({"StreamARN": arn("s"), "MaxRecordSizeInKiB": kib});
    for kib in [1_023, 10_241] {
        assert_eq!(f.refused("UpdateMaxRecordSize", to(kib)).await.0, "ValidationException");
    }
    f.ok("UpdateMaxRecordSize", to(10_240)).await;
    assert_eq!(f.summary("s").await["MaxRecordSizeInKiB"], 10_240);
}
