//! Lists, page by page: streams, shards and their filters, tokens.

use serde_json::json;

use super::fixture::{Fixture, NOW_MS, arn, shard_numbers};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn streams_are_listed_page_by_page() {
    let f = Fixture::new();
    for n in 0..105 {
        f.create(&format!("s{n:03}"), 1).await;
    }
    let first = f.ok("ListStreams", json!({})).await;
    assert_eq!((first["StreamNames"].as_array().unwrap().len(), &first["HasMoreStreams"]), (100, &json!(true)));
    assert_eq!(first["StreamSummaries"][0]["StreamARN"], arn("s000"));
    let rest = json!(["s100", "s101", "s102", "s103", "s104"]);
    let by_token = f.ok("ListStreams", json!({"NextToken": first["NextToken"]})).await;
    assert_eq!((&by_token["StreamNames"], &by_token["HasMoreStreams"]), (&rest, &json!(false)));
    assert_eq!(by_token.get("NextToken"), None);
    let by_name = f.ok("ListStreams", json!({"ExclusiveStartStreamName": "s099", "Limit": 2})).await;
    assert_eq!((&by_name["StreamNames"], &by_name["HasMoreStreams"]), (&json!(["s100", "s101"]), &json!(true)));
    let many = f.ok("ListStreams", json!({"Limit": 10_000})).await;
    assert_eq!(many["StreamNames"].as_array().unwrap().len(), 100);
    f.clock.advance(300_000);
    let (code, _) = f.refused("ListStreams", json!({"NextToken": first["NextToken"]})).await;
    assert_eq!(code, "ExpiredNextTokenException");
}

#[tokio::test]
async fn a_description_has_a_hundred_shards() {
    let f = Fixture::new();
    f.create("s", 150).await;
    let mut seen = Vec::new();
    let mut more = json!({"StreamName": "s"});
    for expected in [100, 50] {
        let page = f.ok("DescribeStream", more).await["StreamDescription"].take();
        let shards = shard_numbers(&page);
        assert_eq!((shards.len(), page["HasMoreShards"].as_bool().unwrap()), (expected, seen.is_empty()));
        seen.extend(shards);
        more = json!({"StreamName": "s", "ExclusiveStartShardId": format!("shardId-{:012}", seen[seen.len() - 1])});
    }
    assert_eq!(seen, (0..150).collect::<Vec<u64>>());
}

#[tokio::test]
async fn shards_are_listed_by_filter() {
    let f = Fixture::new();
    f.create("s", 2).await;
    f.clock.advance(HOUR_MS);
    let split = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "99"});
    f.ok("SplitShard", split).await;
    let split_at = f.clock.now_ms();
    f.clock.advance(HOUR_MS);
    let filtered = async |filter: serde_json::Value| f.shards(json!({"StreamName": "s", "ShardFilter": filter})).await;
    let at = |kind: &str, ms: i64| json!({"Type": kind, "Timestamp": ms as f64 / 1_000.0});
    assert_eq!(f.shards(json!({"StreamName": "s"})).await, [0, 1, 2, 3]);
    assert_eq!(filtered(json!({"Type": "AT_LATEST"})).await, [1, 2, 3]);
    assert_eq!(filtered(json!({"Type": "AT_TRIM_HORIZON"})).await, [0, 1]);
    assert_eq!(filtered(json!({"Type": "FROM_TRIM_HORIZON"})).await, [0, 1, 2, 3]);
    assert_eq!(filtered(json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001"})).await, [2, 3]);
    assert_eq!(filtered(at("AT_TIMESTAMP", split_at - 1)).await, [0, 1]);
    assert_eq!(filtered(at("AT_TIMESTAMP", split_at + 1)).await, [1, 2, 3]);
    assert_eq!(filtered(at("AT_TIMESTAMP", NOW_MS - HOUR_MS)).await, [0, 1], "corrected to the trim horizon");
    assert_eq!(filtered(at("FROM_TIMESTAMP", split_at + 1)).await, [1, 2, 3]);
    assert_eq!(filtered(at("FROM_TIMESTAMP", 0)).await, [0, 1, 2, 3]);
    for wrong in [
        json!({"Type": "AFTER_SHARD_ID"}),
        json!({"Type": "AT_TIMESTAMP"}),
        json!({"Type": "AT_LATEST", "Timestamp": 1.0}),
        json!({"Type": "AT_LATEST", "ShardId": "shardId-000000000001"}),
    ] {
        let (code, _) = f.refused("ListShards", json!({"StreamName": "s", "ShardFilter": wrong})).await;
        assert_eq!(code, "InvalidArgumentException", "{wrong}");
    }
    // The parent is told as such, and its end is its children's beginning.
    let listed = f.ok("ListShards", json!({"StreamName": "s"})).await;
    assert_eq!(listed["Shards"][3]["ParentShardId"], "shardId-000000000000");
    let end = listed["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].as_str().unwrap();
    assert!(end < listed["Shards"][2]["SequenceNumberRange"]["StartingSequenceNumber"].as_str().unwrap());

    // A day after the split the parent is beyond the horizon, whether or not its records are gone.
    f.clock.advance(24 * HOUR_MS);
    assert_eq!(filtered(json!({"Type": "AT_TRIM_HORIZON"})).await, [1, 2, 3]);
    assert_eq!(filtered(json!({"Type": "FROM_TRIM_HORIZON"})).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_list_of_shards_goes_on_by_token() {
    let f = Fixture::new();
    f.create("s", 5).await;
    let filter = json!({"Type": "AT_LATEST"});
    let first = f.ok("ListShards", json!({"StreamARN": arn("s"), "MaxResults": 2, "ShardFilter": filter})).await;
    assert_eq!(shard_numbers(&first), [0, 1]);
    let token = first["NextToken"].clone();
    let second = f.ok("ListShards", json!({"NextToken": token, "MaxResults": 2})).await;
    assert_eq!(shard_numbers(&second), [2, 3]);
    let last = f.ok("ListShards", json!({"NextToken": second["NextToken"]})).await;
    assert_eq!((shard_numbers(&last), last.get("NextToken")), (vec![4], None));

    let both = f.refused("ListShards", json!({"StreamName": "s", "NextToken": token})).await;
    assert_eq!(both, ("InvalidArgumentException", "NextToken and StreamName cannot be provided together.".to_owned()));
    let none = f.refused("ListShards", json!({})).await;
    assert_eq!(none, ("InvalidArgumentException", "Either NextToken or StreamName should be provided.".to_owned()));
    assert_eq!(f.refused("ListShards", json!({"NextToken": "x"})).await.0, "InvalidArgumentException");
    let created = NOW_MS as f64 / 1_000.0;
    assert_eq!(f.shards(json!({"StreamName": "s", "StreamCreationTimestamp": created})).await.len(), 5);
    let other = json!({"StreamName": "s", "StreamCreationTimestamp": created - 5.0});
    assert_eq!(f.refused("ListShards", other).await.0, "ResourceNotFoundException");

    // The token is the stream's, not its name's; and it ages.
    f.clock.advance(1_000);
    f.ok("DeleteStream", json!({"StreamName": "s"})).await;
    assert_eq!(f.refused("ListShards", json!({"NextToken": token})).await.0, "ResourceNotFoundException");
    f.create("s", 5).await;
    assert_eq!(f.refused("ListShards", json!({"NextToken": token})).await.0, "ResourceNotFoundException");
    f.clock.advance(299_000);
    assert_eq!(f.refused("ListShards", json!({"NextToken": token})).await.0, "ExpiredNextTokenException");
}
