use std::net::SocketAddr;

use serde_json::{Value, json};
use uuid::Uuid;

use super::event::renamed;
use super::*;
use crate::broker::BrokerOptions;
use crate::config::AuditLog;
use crate::model::settings::BrokerValues;
use crate::security::Principal;
use crate::store::memory::MemoryStore;

fn event(name: &'static str) -> Event {
    let peer: SocketAddr = "[::1]:5000".parse().unwrap();
    let arn = "arn:aws:iam::123456789012:user/team/ann".to_owned();
    Event {
        source: Source::Kinesis,
        name,
        read_only: false,
        at_ms: 1_440_938_160_000,
        peer,
        user_agent: Some("x".repeat(2_000)),
        identity: Identity::Principal(Principal { account: "123456789012".into(), arn }),
        request: renamed(json!({"StreamName": "s", "Tags": {"A": [{"B": 1}]}})),
        response: Value::Null,
        error: Some(("ResourceInUseException".into(), Some("no".into()))),
        request_id: "r".into(),
    }
}

fn config(audit_log: AuditLog) -> Config {
    Config { audit_log, ..Config::default() }
}

fn broker() -> Arc<Broker> {
    let options = BrokerOptions {
        sync: false,
        tail_bytes_max: 1 << 20,
        compaction_bytes_max: 1 << 20,
        values: BrokerValues::default(),
        master_keys: Vec::new(),
    };
    Broker::open(Arc::new(MemoryStore::new()), options, Clock::manual(0), Metrics::new(10)).unwrap()
}

fn counted(broker: &Broker, outcome: &str) -> Option<String> {
    let name = format!("anabranch_audit_events_total{{outcome=\"{outcome}\"}} ");
    broker
        .metrics()
        .render(crate::metrics::TextFormat::Prometheus, |_| ())
        .lines()
        .find_map(|line| line.strip_prefix(&name).map(str::to_owned))
}

#[test]
fn an_event_has_cloudtrails_shape() {
    let value = event("CreateStream").value("us-east-1", "000000000000", Uuid::nil());
    assert_eq!(
        value,
        json!({
            "eventVersion": "1.11",
            "userIdentity": {"type": "IAMUser", "principalId": "123456789012", "accountId": "123456789012",
                "arn": "arn:aws:iam::123456789012:user/team/ann", "userName": "ann"},
            "eventTime": "2015-08-30T12:36:00Z",
            "eventSource": "kinesis.amazonaws.com",
            "eventName": "CreateStream",
            "awsRegion": "us-east-1",
            "sourceIPAddress": "::1",
            "userAgent": "x".repeat(1_024),
            "errorCode": "ResourceInUseException",
            "errorMessage": "no",
            "requestParameters": {"streamName": "s", "tags": {"a": [{"b": 1}]}},
            "responseElements": null,
            "requestID": "r",
            "eventID": Uuid::nil().to_string(),
            "readOnly": false,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": "000000000000",
            "eventCategory": "Management",
        })
    );
    let root = Event { identity: Identity::Principal(Principal::root("1")), ..event("x") }.value("", "", Uuid::nil());
    assert_eq!(root["userIdentity"]["type"], "Root");
}

#[tokio::test]
async fn a_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    std::fs::write(&path, "before\n").unwrap();
    let broker = broker();
    let log = AuditLog::File(path.clone());
    let opened = Audit::open(&config(log), broker.clock().clone(), broker.metrics().clone()).unwrap();
    let (audit, writer) = (opened.0, opened.1.unwrap());
    let running = tokio::spawn(run(writer, broker.clone()));
    audit.record(event("CreateStream"));
    audit.record(event("DeleteStream"));
    audit.flush().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "before"));
    let names: Vec<Value> =
        lines[1..].iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["eventName"].clone()).collect();
    assert_eq!(names, ["CreateStream", "DeleteStream"]);
    assert_eq!(counted(&broker, "written").as_deref(), Some("2"));
    running.abort();

    let missing = AuditLog::File(folder.path().join("no/audit.log"));
    assert!(Audit::open(&config(missing), broker.clock().clone(), broker.metrics().clone()).is_err());
}

#[tokio::test]
async fn nobody_waits_for_a_full_queue() {
    let broker = broker();
    let opened = Audit::open(&config(AuditLog::Stdout), broker.clock().clone(), broker.metrics().clone()).unwrap();
    // The writer does not run.
    for _ in 0..QUEUE_MAX + 3 {
        opened.0.record(event("CreateStream"));
    }
    assert_eq!(counted(&broker, "lost").as_deref(), Some("3"));
}
