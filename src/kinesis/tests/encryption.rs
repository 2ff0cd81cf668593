//! Encryption at rest, started, rotated, stopped, and without its key.

use serde_json::{Value, json};

use super::fixture::{ACCOUNT, Fixture, NOW_MS};
use crate::config::MasterKey;

fn key(id: &str, byte: u8) -> MasterKey {
    MasterKey { id: id.into(), secret: [byte; 32], disabled: false }
}

fn with_keys(keys: Vec<MasterKey>) -> Fixture {
    Fixture::with(|config| config.master_keys = keys)
}

fn about(key_id: &str) -> Value {
    json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": key_id})
}

#[tokio::test]
async fn a_stream_tells_the_key_that_was_asked_for_until_it_is_stopped() {
    let f = Fixture::with(|config| {
        config.master_keys = vec![key("main", 1), key("other", 2)];
        config.state_delay = 500;
    });
    f.create("s", 1).await;
    f.clock.advance(500);
    f.ok("StartStreamEncryption", about("alias/aws/kinesis")).await;
    let busy = f.refused("StartStreamEncryption", about("other")).await;
    assert_eq!(busy.0, "ResourceInUseException");
    assert_eq!(f.status("s").await, "UPDATING");
    f.clock.advance(500);
    let rotated = "arn:aws:kms:us-east-1:000000000000:key/other";
    f.ok("StartStreamEncryption", about(rotated)).await;
    let f = f.restarted();
    let summary = f.summary("s").await;
    assert_eq!((&summary["EncryptionType"], &summary["KeyId"]), (&json!("KMS"), &json!(rotated)));
    f.clock.advance(500);
    let (code, text) = f.refused("StopStreamEncryption", about("main")).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(text.starts_with(&format!("Stream s under account {ACCOUNT} is encrypted under key {rotated}")), "{text}");
    f.ok("StopStreamEncryption", about("alias/other")).await;
    let summary = f.summary("s").await;
    assert_eq!((&summary["EncryptionType"], &summary["KeyId"]), (&json!("NONE"), &Value::Null));
    f.clock.advance(500);
    f.ok("StopStreamEncryption", about("alias/other")).await;
    assert_eq!(f.status("s").await, "ACTIVE", "there was nothing to stop");
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_told_apart_as_kms_does() {
    let f = with_keys(vec![key("main", 1), MasterKey { disabled: true, ..key("off", 2) }]);
    f.create("s", 1).await;
    for (key_id, code, text) in [
        ("1234", "KMSNotFoundException", "Key '1234' does not exist"),
        (
            "arn:aws:kms:us-east-1:000000000000:key/1234",
            "KMSNotFoundException",
            "Key 'arn:aws:kms:us-east-1:000000000000:key/1234' does not exist",
        ),
        ("alias/gone", "KMSNotFoundException", "Alias alias/gone is not found."),
        ("off", "KMSDisabledException", "off is disabled."),
    ] {
        let refused = f.refused("StartStreamEncryption", about(key_id)).await;
        assert_eq!(refused, (code, text.to_owned()));
    }
    let none = json!({"StreamName": "s", "EncryptionType": "NONE", "KeyId": "main"});
    assert_eq!(f.refused("StartStreamEncryption", none).await.0, "InvalidArgumentException");
    assert_eq!(f.summary("s").await["EncryptionType"], "NONE");
    let f = Fixture::new();
    f.create("s", 1).await;
    assert_eq!(f.refused("StartStreamEncryption", about("alias/aws/kinesis")).await.0, "KMSNotFoundException");
}

#[tokio::test]
async fn twenty_five_starts_and_stops_a_day() {
    let f = with_keys(vec![key("main", 1)]);
    f.create("s", 1).await;
    for _ in 0..25 {
        f.ok("StartStreamEncryption", about("main")).await;
        f.ok("StopStreamEncryption", about("main")).await;
    }
    assert_eq!(f.refused("StartStreamEncryption", about("main")).await.0, "LimitExceededException");
    assert_eq!(f.clock.now_ms(), NOW_MS);
    f.clock.advance(86_400_000);
    f.ok("StartStreamEncryption", about("main")).await;
}

#[tokio::test]
async fn records_tell_whether_they_are_sealed_and_refuse_without_the_key() {
    let f = with_keys(vec![key("main", 1)]);
    f.create("s", 1).await;
    let record = |data: &str| json!({"StreamName": "s", "PartitionKey": "k", "Data": data});
    let put = f.ok("PutRecord", record("b3Blbg==")).await;
    assert_eq!(put.get("EncryptionType"), None);
    f.ok("StartStreamEncryption", about("main")).await;
    assert_eq!(f.ok("PutRecord", record("c2VhbGVk")).await["EncryptionType"], "KMS");
    let many = json!({"StreamName": "s", "Records": [{"PartitionKey": "k", "Data": "c2VhbGVk"}]});
    assert_eq!(f.ok("PutRecords", many.clone()).await["EncryptionType"], "KMS");

    let start = json!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
    let read = async |f: &Fixture| {
        let iterator = f.ok("GetShardIterator", start.clone()).await["ShardIterator"].take();
        f.ok("GetRecords", json!({"ShardIterator": iterator})).await
    };
    let told = |page: &Value| -> Vec<Option<String>> {
        let records = page["Records"].as_array().unwrap();
        records.iter().map(|record| record.get("EncryptionType").map(|kind| kind.as_str().unwrap().into())).collect()
    };
    let kms = || Some("KMS".to_owned());
    assert_eq!(told(&read(&f).await), [None, kms(), kms()]);
    // From the store as from memory.
    let f = f.restarted();
    assert_eq!(told(&read(&f).await), [None, kms(), kms()]);

    let f = f.restarted_with(|config| config.master_keys.clear());
    let page = read(&f).await;
    assert_eq!(told(&page), [None]);
    let refused = f.refused("GetRecords", json!({"ShardIterator": page["NextShardIterator"]})).await;
    assert_eq!(refused.0, "KMSAccessDeniedException");
    assert!(refused.1.starts_with("The ciphertext refers to a customer master key that does not exist"));
    assert_eq!(f.refused("PutRecord", record("c2VhbGVk")).await, refused);
    assert_eq!(f.refused("PutRecords", many).await, refused);
    f.ok("StopStreamEncryption", about("main")).await;
    assert_eq!(f.ok("PutRecord", record("b3Blbg==")).await.get("EncryptionType"), None);
}
