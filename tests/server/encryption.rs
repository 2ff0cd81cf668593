//! Encryption at rest: Kafka clients do not meet it while the master key is there, and the files of a process that was
//! killed show nothing.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, NOW_MS, batch, config, records, start_on, value};
use crate::process::Process;

fn keys() -> Vec<MasterKey> {
    vec![MasterKey { id: "key".into(), secret: [1; 32], disabled: false }]
}

/// An encrypted stream `t` without records.
async fn encrypted() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let options = BrokerOptions {
        sync: false,
        tail_bytes_max: 0,
        compaction_bytes_max: 1 << 20,
        values: BrokerValues::default(),
        master_keys: keys(),
    };
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

/// The answer of the Kinesis API, head and body.
async fn kinesis(address: SocketAddr, operation: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n\
         Content-Type: application/x-amz-json-1.1\r\nX-Amz-Date: 20240101T000000Z\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AK/20240101/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
         Signature=00\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// How often `marker` is found in the files of a folder.
fn occurrences(folder: &Path, marker: &str) -> usize {
    let within = |content: Vec<u8>| content.windows(marker.len()).filter(|bytes| *bytes == marker.as_bytes()).count();
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .map(|path| match path.is_dir() {
            true => occurrences(&path, marker),
            false => within(std::fs::read(path).unwrap()),
        })
        .sum()
}

#[tokio::test]
async fn what_was_sealed_survives_kills_and_shows_in_no_file() {
    let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = keys.path().join("keys");
    let (one, two) = ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
    std::fs::write(&keys, format!("one {one}\n")).unwrap();
    let settings = ["--memory", "16MiB", "--state-delay", "0", "--master-keys", keys.to_str().unwrap()];
    let about = |key: &str| format!(r#"{{"StreamName":"t","EncryptionType":"KMS","KeyId":"{key}"}}"#);

    let mut process = Process::start(folder.path(), &settings);
    let mut client = Client::connect_to(process.kafka).await;
    client.create_topic("t", 1, &[]).await;
    client.produced("t", 0, batch(&["an open text"])).await;
    let started = kinesis(process.http, "StartStreamEncryption", &about("alias/aws/kinesis")).await;
    assert!(started.starts_with("HTTP/1.1 200"), "{started}");
    client.produced("t", 0, batch(&["a first secret"])).await;
    process.kill();

    // The master key is rotated, and the stream follows; the old one still opens what it sealed.
    std::fs::write(&keys, format!("two {two}\none {one}\n")).unwrap();
    process = Process::start(folder.path(), &settings);
    let mut client = Client::connect_to(process.kafka).await;
    client.produced("t", 0, batch(&["a second secret"])).await;
    let started = kinesis(process.http, "StartStreamEncryption", &about("two")).await;
    assert!(started.starts_with("HTTP/1.1 200"), "{started}");
    client.produced("t", 0, batch(&["a third secret"])).await;
    process.kill();

    process = Process::start(folder.path(), &settings);
    let read = Client::connect_to(process.kafka).await.read_from("t", 0, 0).await;
    let texts: Vec<&str> = read.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["an open text", "a first secret", "a second secret", "a third secret"]);
    process.kill();
    assert!(occurrences(folder.path(), "an open text") > 0);
    assert_eq!(occurrences(folder.path(), "secret"), 0);

    // Without the first key, what the second one sealed can be read.
    std::fs::write(&keys, format!("two {two}\n")).unwrap();
    process = Process::start(folder.path(), &settings);
    let mut client = Client::connect_to(process.kafka).await;
    assert_eq!(client.fetch("t", 0, 1).await.error_code, ResponseError::TopicAuthorizationFailed.code());
    assert_eq!(client.read_from("t", 0, 3).await, [(3, "a third secret".to_owned())]);
}
