//! Consumers: their states, limits, names and lists.

use serde_json::json;

use super::fixture::{ACCOUNT, Fixture, NOW_MS, arn};

#[tokio::test]
async fn a_consumer_goes_through_its_states() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 1).await;
    let by_name = json!({"StreamARN": arn("s"), "ConsumerName": "c"});
    assert_eq!(f.refused("RegisterStreamConsumer", by_name.clone()).await.0, "ResourceInUseException");
    f.clock.advance(500);
    let consumer = f.ok("RegisterStreamConsumer", by_name.clone()).await["Consumer"].take();
    let consumer_arn = format!("{}/consumer/c:{}", arn("s"), NOW_MS / 1_000);
    assert_eq!(
        consumer,
        json!({
            "ConsumerName": "c",
            "ConsumerARN": consumer_arn,
            "ConsumerStatus": "CREATING",
            "ConsumerCreationTimestamp": (NOW_MS / 1_000) as f64,
        })
    );
    let refused = f.refused("RegisterStreamConsumer", by_name.clone()).await;
    let text = format!("Consumer c under stream s already exists for account {ACCOUNT}.");
    assert_eq!(refused, ("ResourceInUseException", text));

    f.clock.advance(500);
    let described = f.ok("DescribeStreamConsumer", json!({"ConsumerARN": consumer_arn})).await;
    let described = &described["ConsumerDescription"];
    assert_eq!((&described["ConsumerStatus"], &described["StreamARN"]), (&json!("ACTIVE"), &json!(arn("s"))));
    f.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer_arn})).await;
    let listed = f.ok("ListStreamConsumers", json!({"StreamARN": arn("s")})).await;
    assert_eq!(listed["Consumers"][0]["ConsumerStatus"], "DELETING");
    let (code, text) = f.refused("DeregisterStreamConsumer", by_name.clone()).await;
    let created = NOW_MS / 1_000;
    assert_eq!(code, "ResourceInUseException");
    assert_eq!(
        text,
        format!(
            "Consumer c with creation timestamp {created} under stream s and account {ACCOUNT} is not in ACTIVE status."
        )
    );
    assert_eq!(f.refused("RegisterStreamConsumer", by_name.clone()).await.0, "ResourceInUseException");

    f.clock.advance(500);
    let (code, text) = f.refused("DescribeStreamConsumer", json!({"ConsumerARN": consumer_arn})).await;
    assert_eq!(code, "ResourceNotFoundException");
    assert_eq!(text, format!("Consumer {consumer_arn}, account {ACCOUNT} not found."));
    assert_eq!(f.summary("s").await["ConsumerCount"], 0);
    // Registered again it is another.
    let again = f.ok("RegisterStreamConsumer", by_name).await;
    assert_ne!(again["Consumer"]["ConsumerARN"], consumer_arn);
    f.clock.advance(500);
    assert_eq!(
        f.refused("DescribeStreamConsumer", json!({"ConsumerARN": consumer_arn})).await.0,
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn a_stream_has_twenty_consumers_and_five_that_are_creating() {
    let f = Fixture::with(|config| config.state_delay = 500);
    f.create("s", 1).await;
    f.clock.advance(500);
    let register = |n: usize| json!({"StreamARN": arn("s"), "ConsumerName": format!("c{n}")});
    for n in 0..20 {
        if n > 0 && n % 5 == 0 {
            let (code, text) = f.refused("RegisterStreamConsumer", register(n)).await;
            assert_eq!(code, "LimitExceededException");
            assert!(text.contains("CREATING") && text.ends_with("Limit: 5."), "{text}");
            f.clock.advance(500);
        }
        f.ok("RegisterStreamConsumer", register(n)).await;
    }
    f.clock.advance(500);
    let (code, text) = f.refused("RegisterStreamConsumer", register(20)).await;
    assert!(code == "LimitExceededException" && text.ends_with("Limit: 20."), "{code} {text}");
    f.ok("DeregisterStreamConsumer", register(7)).await;
    assert_eq!(f.refused("RegisterStreamConsumer", register(20)).await.0, "LimitExceededException");
    f.clock.advance(500);
    f.ok("RegisterStreamConsumer", register(20)).await;
}

#[tokio::test]
async fn consumers_are_listed_page_by_page() {
    let f = Fixture::new();
    f.create("s", 1).await;
    f.create("t", 1).await;
    for name in ["e", "a", "d", "b", "c"] {
        f.ok("RegisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": name})).await;
    }
    let mut names = Vec::new();
    let mut body = json!({"StreamARN": arn("s"), "MaxResults": 2});
    for _ in 0..3 {
        let page = f.ok("ListStreamConsumers", body.clone()).await;
        names.extend(page["Consumers"].as_array().unwrap().iter().map(|c| c["ConsumerName"].clone()));
        match page.get("NextToken") {
            Some(token) => body["NextToken"] = token.clone(),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let elsewhere = json!({"StreamARN": arn("t"), "NextToken": body["NextToken"]});
    assert_eq!(f.refused("ListStreamConsumers", elsewhere).await.0, "InvalidArgumentException");
    f.clock.advance(300_000);
    assert_eq!(f.refused("ListStreamConsumers", body).await.0, "ExpiredNextTokenException");
    let missing = json!({"StreamARN": arn("missing"), "ConsumerName": "c"});
    assert_eq!(f.refused("RegisterStreamConsumer", missing).await.0, "ResourceNotFoundException");
    let (code, text) = f.refused("DescribeStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "z"})).await;
    assert_eq!(code, "ResourceNotFoundException");
    assert_eq!(text, format!("Consumer z under stream s not found for account {ACCOUNT}."));
}

#[tokio::test]
async fn a_consumer_has_tags() {
    let f = Fixture::new();
    f.create("s", 1).await;
    let new = json!({"StreamARN": arn("s"), "ConsumerName": "c", "Tags": {"a": "1"}});
    let registered = f.ok("RegisterStreamConsumer", new).await;
    let resource = registered["Consumer"]["ConsumerARN"].clone();
    f.ok("TagResource", json!({"ResourceARN": resource, "Tags": {"b": "2"}})).await;
    f.ok("UntagResource", json!({"ResourceARN": resource, "TagKeys": ["a"]})).await;
    let listed = f.ok("ListTagsForResource", json!({"ResourceARN": resource})).await;
    assert_eq!(listed, json!({"Tags": [{"Key": "b", "Value": "2"}]}));
    assert_eq!(f.ok("ListTagsForResource", json!({"ResourceARN": arn("s")})).await, json!({"Tags": []}));
}
