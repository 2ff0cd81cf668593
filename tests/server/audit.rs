//! The audit log of a whole server: control operations of both doors, done and refused, in a stream of its own.

use anabranch::config::AuditLog;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{ApiVersionsRequest, CreateTopicsRequest};
use serde_json::{Value, json};

use crate::harness::kinesis::free;
use crate::harness::{Broker, batch, text, topic};

const STREAM: &str = "audit";

/// The events, once there are as many; the stream is made by the first.
async fn events(broker: &Broker, count: usize) -> Vec<Value> {
    let mut client = broker.connect().await;
    let mut lines = Vec::new();
    broker
        .advance_until(0, async || {
            if broker.server.broker().stream(STREAM).is_some() {
                lines = client.read_from(STREAM, 0, 0).await;
            }
            lines.len() >= count
        })
        .await;
    lines.iter().map(|(_, line)| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn control_operations_of_both_doors_are_told() {
    let broker = Broker::with(|config| {
        free(config);
        config.audit_log = AuditLog::Stream(STREAM.to_owned());
    })
    .await;
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 1).await;
    kinesis.put("s", &[("key", b"secret data")]).await;
    kinesis.call("CreateStream", json!({"StreamName": "s", "ShardCount": 1})).await.unwrap_err();
    let update = json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"});
    kinesis.ok("UpdateShardCount", update).await;

    let mut client = broker.connect().await;
    let named =
        ApiVersionsRequest::default().with_client_software_name(text("test")).with_client_software_version(text("1.2"));
    client.call(named, 3).await;
    client.create_topic("t", 3, &[("cleanup.policy", "compact")]).await;
    client.produced("s", 0, batch(&["more"])).await;
    let again = CreatableTopic::default().with_name(topic("t")).with_num_partitions(1).with_replication_factor(1);
    client.call(CreateTopicsRequest::default().with_topics(vec![again]), 7).await;

    let events = events(&broker, 5).await;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (event["eventSource"].as_str().unwrap(), event["eventName"].as_str().unwrap(), &event["errorCode"])
        })
        .collect();
    let (aws, kafka) = ("kinesis.amazonaws.com", "kafka");
    assert_eq!(
        told,
        [
            (aws, "CreateStream", &Value::Null),
            (aws, "CreateStream", &json!("ResourceInUseException")),
            (aws, "UpdateShardCount", &Value::Null),
            (kafka, "CreateTopics", &Value::Null),
            (kafka, "CreateTopics", &json!("TOPIC_ALREADY_EXISTS")),
        ]
    );
    assert_eq!(events[0]["requestParameters"], json!({"streamName": "s", "shardCount": 1}));
    assert_eq!(events[0]["userIdentity"]["type"], "Root");
    assert!(events[1]["errorMessage"].as_str().unwrap().contains("already exists"));
    assert_eq!(events[2]["responseElements"]["targetShardCount"], 2);
    assert_eq!(events[3]["sourceIPAddress"], "127.0.0.1");
    assert!(events[3]["userAgent"].as_str().unwrap().starts_with("test/1.2"), "{}", events[3]);
    let asked = &events[3]["requestParameters"]["topics"][0];
    assert_eq!((&asked["name"], &asked["partitions"]), (&json!("t"), &json!(3)));
    assert_eq!(asked["configs"]["cleanup.policy"], "compact");
    assert!(!events.iter().any(|event| event.to_string().contains("secret data")));
    broker.server.shutdown().await.unwrap();
}
