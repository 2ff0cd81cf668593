//! Shards split, merged and scaled: AWS's rules and texts, and what is seen of it.

use serde_json::{Value, json};

use super::fixture::{ACCOUNT, Fixture, arn, shard_numbers};

const DAY_MS: i64 = 86_400_000;

fn split(stream: &str, shard: &str, at: &str) -> Value {
    json!({"StreamName": stream, "ShardToSplit": shard, "NewStartingHashKey": at})
}

fn merge(stream: &str, first: &str, second: &str) -> Value {
    json!({"StreamName": stream, "ShardToMerge": first, "AdjacentShardToMerge": second})
}

fn scale(target: u32) -> Value {
    json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"})
}

#[tokio::test]
async fn a_split_has_recorded_refusals() {
    let f = Fixture::new();
    f.create("s", 3).await;
    let not_found = |shard: &str, stream: &str| {
        let text = format!("Could not find shard {shard} in stream {stream} under account {ACCOUNT}.");
        ("ResourceNotFoundException", text)
    };
    // The form of the id comes before the stream.
    for id in ["ABKLFD8", "2.14E4", "2147483648", "shardId-002147483648"] {
        assert_eq!(f.refused("SplitShard", split("missing", id, "0")).await, not_found(id, "missing"));
    }
    let (code, text) = f.refused("SplitShard", split("missing", "a-00002147483647", "0")).await;
    assert_eq!(
        (code, text),
        ("ResourceNotFoundException", format!("Stream missing under account {ACCOUNT} not found."))
    );
    assert_eq!(f.refused("SplitShard", split("s", "shardId-5", "0")).await, not_found("shardId-000000000005", "s"));
    for (shard, at, ordinal, start, end) in [
        ("x-0", "1", 0, "0", "113427455640312821154458202477256070484"),
        ("x-0", "113427455640312821154458202477256070484", 0, "0", "113427455640312821154458202477256070484"),
        (
            "x-2",
            "999999999999999999999999999999999999999",
            2,
            "226854911280625642308916404954512140970",
            "340282366920938463463374607431768211455",
        ),
    ] {
        let (code, text) = f.refused("SplitShard", split("s", shard, at)).await;
        assert_eq!(code, "InvalidArgumentException");
        assert_eq!(
            text,
            format!(
                "NewStartingHashKey {at} used in SplitShard() on shard shardId-{ordinal:012} in stream s under account \
                 {ACCOUNT} is not both greater than one plus the shard's StartingHashKey {start} and less than the \
                 shard's EndingHashKey {end}."
            )
        );
    }
    f.ok("SplitShard", split("s", "x-0", "2")).await;
    let described = f.ok("DescribeStream", json!({"StreamName": "s"})).await;
    let shards = &described["StreamDescription"]["Shards"];
    assert_eq!(shards[3]["HashKeyRange"], json!({"StartingHashKey": "0", "EndingHashKey": "1"}));
    assert_eq!(shards[4]["ParentShardId"], "shardId-000000000000");
    assert!(shards[0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    let (code, text) = f.refused("SplitShard", split("s", "x-0", "2")).await;
    assert_eq!(code, "InvalidArgumentException");
    let text_recorded = "has already been merged or split, and thus is not eligible for merging or splitting.";
    assert!(text.ends_with(text_recorded), "{text}");
    // Two hash keys are too few to be divided.
    assert_eq!(f.refused("SplitShard", split("s", "x-3", "1")).await.0, "InvalidArgumentException");
}

#[tokio::test]
async fn a_merge_has_recorded_refusals() {
    let f = Fixture::new();
    f.create("s", 3).await;
    for (first, second) in [(0, 2), (1, 0), (1, 1)] {
        let (code, text) = f.refused("MergeShards", merge("s", &format!("x-{first}"), &format!("x-{second}"))).await;
        assert_eq!(code, "InvalidArgumentException");
        assert_eq!(
            text,
            format!(
                "Shards shardId-{first:012} and shardId-{second:012} in stream s under account {ACCOUNT} are not an \
                 adjacent pair of shards eligible for merging"
            )
        );
    }
    let (code, text) = f.refused("MergeShards", merge("s", "x-0", "shardId-5")).await;
    assert_eq!(code, "ResourceNotFoundException");
    assert_eq!(text, format!("Could not find shard shardId-000000000005 in stream s under account {ACCOUNT}."));
    f.ok("MergeShards", merge("s", "x-0", "x-1")).await;
    let listed = f.ok("ListShards", json!({"StreamName": "s"})).await;
    assert_eq!(shard_numbers(&listed), [0, 1, 2, 3]);
    let child = &listed["Shards"][3];
    assert_eq!(child["ParentShardId"], "shardId-000000000000");
    assert_eq!(child["AdjacentParentShardId"], "shardId-000000000001");
    assert_eq!(
        child["HashKeyRange"],
        json!({"StartingHashKey": "0", "EndingHashKey": "226854911280625642308916404954512140969"})
    );
    f.ok("MergeShards", merge("s", "x-3", "x-2")).await;
    assert_eq!(f.summary("s").await["OpenShardCount"], 1);
}

#[tokio::test]
async fn a_reshard_takes_an_active_stream_and_leaves_it_updating() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 1).await;
    f.clock.advance(500);
    f.ok("SplitShard", split("s", "0", "2")).await;
    assert_eq!(f.status("s").await, "UPDATING");
    for (operation, body) in
        [("SplitShard", split("s", "1", "9")), ("MergeShards", merge("s", "1", "2")), ("UpdateShardCount", scale(2))]
    {
        let (code, text) = f.refused(operation, body).await;
        assert_eq!(code, "ResourceInUseException", "{operation}");
        assert_eq!(text, format!("Stream s under account {ACCOUNT} not ACTIVE, instead in state UPDATING"));
    }
    f.clock.advance(500);
    assert_eq!(f.status("s").await, "ACTIVE");
    f.ok("MergeShards", merge("s", "1", "2")).await;
}

#[tokio::test]
async fn scaling_goes_to_double_or_half() {
    let f = Fixture::new();
    f.create("s", 2).await;
    let counts = "Current open shard count: 2, Target shard count: 6";
    let text = format!("UpdateShardCount cannot scale up over double your current open shard count. {counts}");
    assert_eq!(f.refused("UpdateShardCount", scale(6)).await, ("LimitExceededException", text));
    let answer = f.ok("UpdateShardCount", scale(4)).await;
    assert_eq!(
        answer,
        json!({"StreamName": "s", "CurrentShardCount": 2, "TargetShardCount": 4, "StreamARN": arn("s")})
    );
    assert_eq!(f.summary("s").await["OpenShardCount"], 4);
    f.ok("UpdateShardCount", scale(7)).await;
    let counts = "Current open shard count: 7, Target shard count: 3";
    let text = format!("UpdateShardCount cannot scale down below half your current open shard count. {counts}");
    assert_eq!(f.refused("UpdateShardCount", scale(3)).await, ("LimitExceededException", text));
    f.ok("UpdateShardCount", scale(4)).await;
    let listed = f.ok("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}})).await;
    let starts =
        listed["Shards"].as_array().unwrap().iter().map(|shard| shard["HashKeyRange"]["StartingHashKey"].clone());
    let mut starts: Vec<u128> = starts.map(|start| start.as_str().unwrap().parse().unwrap()).collect();
    starts.sort_unstable();
    assert_eq!(starts, (0..4).map(|n| n << 126).collect::<Vec<u128>>());
    let wrong = json!({"StreamName": "s", "TargetShardCount": 4, "ScalingType": "OTHER"});
    assert_eq!(f.refused("UpdateShardCount", wrong).await.0, "ValidationException");
}

#[tokio::test]
async fn a_stream_has_ten_thousand_shards_at_most() {
    let f = Fixture::new();
    f.create("s", 6_000).await;
    let (code, text) = f.refused("UpdateShardCount", scale(10_001)).await;
    assert!(code == "LimitExceededException" && text.contains("10000 shards"), "{code} {text}");
}

#[tokio::test]
async fn a_stream_is_scaled_ten_times_a_day() {
    let f = Fixture::new();
    f.create("s", 2).await;
    for n in 0..10 {
        f.ok("UpdateShardCount", scale(if n % 2 == 0 { 3 } else { 2 })).await;
        f.clock.advance(1_000);
    }
    let (code, text) = f.refused("UpdateShardCount", scale(3)).await;
    assert!(code == "LimitExceededException" && text.contains("10 times in a rolling 24-hour period"), "{code} {text}");
    f.clock.advance(DAY_MS - 10_000);
    f.ok("UpdateShardCount", scale(3)).await;
    assert_eq!(f.refused("UpdateShardCount", scale(2)).await.0, "LimitExceededException");
}

#[tokio::test]
async fn an_on_demand_stream_is_not_resharded_by_hand() {
    let f = Fixture::new();
    f.create_on_demand("s").await;
    let text = format!("Request is invalid. Stream s under account {ACCOUNT} is in On-Demand mode.");
    for (operation, body) in
        [("SplitShard", split("s", "0", "9")), ("MergeShards", merge("s", "0", "1")), ("UpdateShardCount", scale(3))]
    {
        assert_eq!(f.refused(operation, body).await, ("ValidationException", text.clone()), "{operation}");
    }
}
