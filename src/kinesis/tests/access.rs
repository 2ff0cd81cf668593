//! Who may ask for what, how often, and by which name: resource policies, rates, ARNs.

use serde_json::{Value, json};

use super::fixture::{ACCOUNT, Fixture, arn};
use crate::security::Principal;

const OTHER: &str = "111111111111";

fn policy(effect: &str, principal: &str, action: &str, resource: &str) -> Value {
    let statement = json!({"Effect": effect, "Principal": {"AWS": principal}, "Action": action, "Resource": resource});
    Value::String(json!({"Version": "2012-10-17", "Statement": [statement]}).to_string())
}

async fn code(f: &Fixture, principal: &Principal, operation: &str, body: Value) -> &'static str {
    match f.call_as(principal.clone(), operation, body).await {
        Ok(_) => "",
        Err(failure) => failure.code,
    }
}

#[tokio::test]
async fn other_accounts_need_a_policy() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let other = Principal::root(OTHER);
    let describe = json!({"StreamARN": arn("s")});
    let denied = f.call_as(other.clone(), "DescribeStream", describe.clone()).await.unwrap_err();
    assert_eq!((denied.code, denied.status), ("AccessDeniedException", 400));
    assert_eq!(
        denied.message.unwrap(),
        format!(
            "User: arn:aws:iam::{OTHER}:root is not authorized to perform: kinesis:DescribeStream on resource: {} because \
             no resource-based policy allows the kinesis:DescribeStream action",
            arn("s")
        )
    );
    let allowed = policy("Allow", OTHER, "kinesis:DescribeStream", &arn("s"));
    f.ok("PutResourcePolicy", json!({"ResourceARN": arn("s"), "Policy": allowed})).await;
    assert_eq!(f.ok("GetResourcePolicy", json!({"ResourceARN": arn("s")})).await, json!({"Policy": allowed}));
    assert_eq!(code(&f, &other, "DescribeStream", describe.clone()).await, "");
    assert_eq!(code(&f, &other, "DescribeStreamSummary", describe.clone()).await, "AccessDeniedException");
    // A name is looked for in the caller's account.
    let by_name = f.call_as(other.clone(), "DescribeStream", json!({"StreamName": "s"})).await.unwrap_err();
    assert_eq!(by_name.message.unwrap(), format!("Stream s under account {OTHER} not found."));
    assert_eq!(code(&f, &other, "ListStreams", json!({})).await, "AccessDeniedException");
    f.ok("DeleteResourcePolicy", json!({"ResourceARN": arn("s")})).await;
    assert_eq!(code(&f, &other, "DescribeStream", describe).await, "AccessDeniedException");
    assert_eq!(f.ok("GetResourcePolicy", json!({"ResourceARN": arn("s")})).await, json!({"Policy": "{}"}));
    let (code, text) = f.refused("DeleteResourcePolicy", json!({"ResourceARN": arn("s")})).await;
    assert_eq!(code, "ResourceNotFoundException");
    assert_eq!(text, format!("No resource policy found for resource ARN {}.", arn("s")));
}

#[tokio::test]
async fn a_denial_holds_for_the_streams_own_account_as_well() {
    let f = Fixture::new();
    f.create("s", 2).await;
    let token = f.ok("ListShards", json!({"StreamName": "s", "MaxResults": 1})).await["NextToken"].take();
    let denied = policy("Deny", "*", "kinesis:ListShards", &arn("s"));
    f.ok("PutResourcePolicy", json!({"ResourceARN": arn("s"), "Policy": denied})).await;
    assert_eq!(f.refused("ListShards", json!({"StreamName": "s"})).await.0, "AccessDeniedException");
    assert_eq!(f.refused("ListShards", json!({"NextToken": token})).await.0, "AccessDeniedException");
    f.summary("s").await;
}

#[tokio::test]
async fn an_iterator_is_no_way_around_a_policy() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let from = json!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "LATEST"});
    let iterator = f.ok("GetShardIterator", from).await["ShardIterator"].take();
    let (by_iterator, by_arn) =
        (json!({"ShardIterator": iterator}), json!({"ShardIterator": iterator, "StreamARN": arn("s")}));
    let other = Principal::root(OTHER);
    for body in [&by_iterator, &by_arn] {
        assert_eq!(code(&f, &other, "GetRecords", body.clone()).await, "AccessDeniedException");
        f.ok("GetRecords", body.clone()).await;
    }
    let allowed = policy("Allow", OTHER, "kinesis:GetRecords", &arn("s"));
    f.ok("PutResourcePolicy", json!({"ResourceARN": arn("s"), "Policy": allowed})).await;
    for body in [by_iterator, by_arn] {
        assert_eq!(code(&f, &other, "GetRecords", body).await, "");
    }
}

#[tokio::test]
async fn a_consumer_has_a_policy_of_its_own() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let registered = f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "c"})).await;
    let consumer = registered["Consumer"]["ConsumerARN"].as_str().unwrap();
    let other = Principal::root(OTHER);
    let describe = json!({"ConsumerARN": consumer});
    assert_eq!(code(&f, &other, "DescribeStreamConsumer", describe.clone()).await, "AccessDeniedException");
    let allowed = policy("Allow", OTHER, "kinesis:DescribeStreamConsumer", consumer);
    f.ok("PutResourcePolicy", json!({"ResourceARN": consumer, "Policy": allowed})).await;
    assert_eq!(code(&f, &other, "DescribeStreamConsumer", describe).await, "");
    assert_eq!(f.ok("GetResourcePolicy", json!({"ResourceARN": arn("s")})).await, json!({"Policy": "{}"}));
}

#[tokio::test]
async fn a_policy_is_read_before_it_is_kept() {
    let f = Fixture::new();
    f.create("s", 1).await;
    for wrong in ["", "{", "[]", r#"{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps"}]}"#] {
        let (code, _) = f.refused("PutResourcePolicy", json!({"ResourceARN": arn("s"), "Policy": wrong})).await;
        assert_eq!(code, "InvalidArgumentException", "{wrong}");
    }
    assert_eq!(f.ok("GetResourcePolicy", json!({"ResourceARN": arn("s")})).await, json!({"Policy": "{}"}));
}

#[tokio::test]
async fn control_operations_have_rates() {
    let f = Fixture::with(|config| config.control_rates = true);
    f.create("s", 1).await;
    f.create("t", 1).await;
    f.clock.advance(1_000);
    f.ok("DescribeLimits", json!({})).await;
    let refused = f.refused("DescribeLimits", json!({})).await;
    assert_eq!(refused, ("LimitExceededException", format!("Rate exceeded for account {ACCOUNT}.")));
    for _ in 0..10 {
        f.ok("DescribeStream", json!({"StreamName": "s"})).await;
    }
    // Of the account: another stream is no way around it.
    let refused = f.refused("DescribeStream", json!({"StreamName": "t"})).await;
    assert_eq!(refused, ("LimitExceededException", format!("Rate exceeded for stream t under account {ACCOUNT}.")));
    for _ in 0..5 {
        f.ok("ListStreamConsumers", json!({"StreamARN": arn("s")})).await;
    }
    assert_eq!(f.refused("ListStreamConsumers", json!({"StreamARN": arn("s")})).await.0, "LimitExceededException");
    // Of the stream: another one has its own.
    f.ok("ListStreamConsumers", json!({"StreamARN": arn("t")})).await;
    f.clock.advance(200);
    f.ok("ListStreamConsumers", json!({"StreamARN": arn("s")})).await;
    assert_eq!(f.refused("ListStreamConsumers", json!({"StreamARN": arn("s")})).await.0, "LimitExceededException");
    // What is wrong in itself costs nothing.
    for _ in 0..20 {
        assert_eq!(f.refused("DeleteStream", json!({})).await.0, "ValidationException");
    }
    f.ok("DeleteStream", json!({"StreamName": "t"})).await;
}

#[tokio::test]
async fn arns_of_other_accounts_and_regions_name_nothing_here() {
    let f = Fixture::new();
    f.create("s", 1).await;
    for (arn, account) in [
        ("arn:aws:kinesis:us-east-1:111111111111:stream/s", "111111111111"),
        ("arn:aws:kinesis:eu-west-1:000000000000:stream/s", "000000000000"),
    ] {
        let (code, text) = f.refused("DescribeStream", json!({"StreamARN": arn})).await;
        assert_eq!(code, "ResourceNotFoundException");
        assert_eq!(text, format!("Stream s under account {account} not found."));
    }
    let (code, text) = f.refused("DescribeStream", json!({"StreamARN": "arn:aws:kinesis:nowhere"})).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(
        text,
        "1 validation error detected: Value 'arn:aws:kinesis:nowhere' at 'streamARN' failed to satisfy constraint: Member \
         must satisfy regular expression pattern: arn:aws.*:kinesis:.*:\\d{12}:stream/\\S+"
    );
    let both = json!({"StreamName": "t", "StreamARN": arn("s")});
    assert_eq!(f.refused("DescribeStream", both).await.0, "InvalidArgumentException");
    f.ok("DescribeStream", json!({"StreamName": "s", "StreamARN": arn("s")})).await;
}
