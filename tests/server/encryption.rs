//! Encryption at rest as Kafka clients meet it: not at all while the master key is there.

use std::num::NonZeroU32;
use std::sync::Arc;

use anabranch::broker::catalog::NewStream;
use anabranch::broker::{Broker, BrokerOptions};
use anabranch::clock::Clock;
use anabranch::config::MasterKey;
use anabranch::metrics::Metrics;
use anabranch::model::attributes::Attributes;
use anabranch::model::settings::BrokerValues;
use anabranch::store::memory::MemoryStore;
use kafka_protocol::error::ResponseError;

use crate::harness::{Client, NOW_MS, batch, config, records, start_on, value};

fn keys() -> Vec<MasterKey> {
    vec![MasterKey { id: "key".into(), secret: [1; 32], disabled: false }]
}

/// An encrypted stream `t` without records.
async fn encrypted() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let options =
        BrokerOptions { sync: false, tail_bytes_max: 0, values: BrokerValues::default(), master_keys: keys() };
    let broker = Broker::open(store.clone(), options, Clock::manual(NOW_MS), Metrics::new(1)).unwrap();
    let new = NewStream {
        name: "t".into(),
        partitions: NonZeroU32::MIN,
        claimed_replicas: 1,
        overrides: Default::default(),
        attributes: Attributes::new(NOW_MS),
    };
    let stream = broker.create_stream(new).await.unwrap();
    broker.start_encryption(&stream, "alias/aws/kinesis").await.unwrap();
    broker.close().await.unwrap();
    Arc::new(store.survivor(true))
}

#[tokio::test]
async fn kafka_clients_notice_a_lost_master_key_at_once_and_nothing_before() {
    let mut config = config();
    config.master_keys = keys();
    let clock = Clock::manual(NOW_MS);
    let store = encrypted().await;
    let server = start_on(&config, &clock, store.clone()).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(client.produced("t", 0, batch(&["one", "two"])).await, 0);
    let wanted = [(0, "one".to_owned()), (1, "two".to_owned())];
    assert_eq!(client.read_from("t", 0, 0).await, wanted);

    // Nothing of it is in memory after a kill.
    let again = start_on(&config, &clock, Arc::new(store.survivor(false))).await;
    assert_eq!(Client::connect(&again).await.read_from("t", 0, 0).await, wanted);

    config.master_keys.clear();
    let lost = start_on(&config, &clock, Arc::new(store.survivor(false))).await;
    let mut client = Client::connect(&lost).await;
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (0, 2));
    let refused = client.produce("t", 0, batch(&["three"])).await;
    assert_eq!(refused.error_code, ResponseError::TopicAuthorizationFailed.code());
    let told = refused.error_message.map(|message| message.to_string()).unwrap_or_default();
    assert!(told.contains("master key key"), "{told}");
    let refused = client.fetch("t", 0, 0).await;
    assert_eq!(refused.error_code, ResponseError::TopicAuthorizationFailed.code());

    // Other streams do not care.
    client.create_topic("open", 1, &[]).await;
    client.produced("open", 0, batch(&["text"])).await;
    let read: Vec<_> = records(&client.fetch("open", 0, 0).await).iter().map(value).collect();
    assert_eq!(read, ["text"]);
}
