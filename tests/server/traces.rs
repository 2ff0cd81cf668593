//! Traces of a whole server, told to a collector of the test's own.

use std::sync::Arc;

use anabranch::config::{Endpoint, HostPort};
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::kinesis::free;
use crate::harness::{Broker, topic};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Fields of a protobuf message: varints and fixed numbers, or bytes.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_at(8);
                bytes = rest;
                Field::Number(u64::from_le_bytes(number.try_into().unwrap()))
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(value.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn messages(bytes: &[u8], field: u64) -> Vec<Vec<u8>> {
    let of = |(number, value)| match value {
        Field::Bytes(bytes) if number == field => Some(bytes),
        _ => None,
    };
    fields(bytes).into_iter().filter_map(of).collect()
}

fn text(bytes: &[u8], field: u64) -> String {
    messages(bytes, field).first().map_or(String::new(), |text| String::from_utf8(text.clone()).unwrap())
}

fn number(bytes: &[u8], field: u64) -> u64 {
    let found = fields(bytes).into_iter().find(|(number, _)| *number == field);
    match found {
        Some((_, Field::Number(number))) => number,
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of an attribute, as text.
fn attribute(message: &[u8], field: u64, key: &str) -> Option<String> {
    let pair = messages(message, field).into_iter().find(|pair| text(pair, 1) == key)?;
    let value = messages(&pair, 2).remove(0);
    Some(match fields(&value).remove(0) {
        (1, Field::Bytes(text)) => String::from_utf8(text).unwrap(),
        (3, Field::Number(number)) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

/// Takes requests until it is dropped; their paths and bodies.
async fn collector() -> (u16, Arc<Mutex<Vec<(String, Vec<u8>)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let taking = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut received = Vec::new();
            let (head, body) = loop {
                socket.read_buf(&mut received).await.unwrap();
                let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let head = String::from_utf8(received[..end].to_vec()).unwrap().to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let whole = end + 4 + length.parse::<usize>().unwrap();
                if received.len() >= whole {
                    break (head, received[end + 4..whole].to_vec());
                }
            };
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            taking.lock().push((head.split(' ').nth(1).unwrap().to_owned(), body));
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    (port, taken)
}

async fn post(broker: &Broker, operation: &str, body: &str, traceparent: &str) {
    let mut socket = TcpStream::connect(broker.server.http_addr()).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.{operation}\r\ntraceparent: {traceparent}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
}

#[tokio::test]
async fn every_request_is_a_span() {
    let (port, taken) = collector().await;
    let broker = Broker::with(|config| {
        free(config);
        let address = HostPort { host: "127.0.0.1".into(), port };
        config.otlp_endpoint = Some(Endpoint { address, path: "/v1/traces".into() });
    })
    .await;
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    post(&broker, "ListStreams", "{}", &sampled).await;
    post(&broker, "DescribeLimits", "{}", &format!("00-{TRACE}-{PARENT}-00")).await;
    post(&broker, "DescribeStreamSummary", r#"{"StreamName": "none"}"#, "").await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1, &[]).await;
    let again = CreatableTopic::default().with_name(topic("t")).with_num_partitions(1).with_replication_factor(1);
    client.call(CreateTopicsRequest::default().with_topics(vec![again]), 7).await;
    drop(client);
    broker.server.shutdown().await.unwrap();

    let mut spans = Vec::new();
    for (path, body) in taken.lock().iter() {
        assert_eq!(path, "/v1/traces");
        let of_resource = messages(body, 1).remove(0);
        let resource = messages(&of_resource, 1).remove(0);
        assert_eq!(attribute(&resource, 1, "service.name").as_deref(), Some("anabranch"));
        spans.extend(messages(&messages(&of_resource, 2).remove(0), 2));
    }
    let names: Vec<String> = spans.iter().map(|span| text(span, 5)).collect();
    let kinesis = |operation: &str| format!("Kinesis_20131202.{operation}");
    assert_eq!(
        names,
        [&*kinesis("ListStreams"), &kinesis("DescribeStreamSummary"), "CreateTopics", "CreateTopics"],
        "the one that its client does not sample is missing"
    );
    let of = |index: usize, key: &str| attribute(&spans[index], 9, key);
    let ids = |span: &[u8], field: u64| messages(span, field).first().map(|id| hex(id));
    // A child of its client's span.
    assert_eq!((ids(&spans[0], 1).as_deref(), ids(&spans[0], 4).as_deref()), (Some(TRACE), Some(PARENT)));
    assert_eq!(of(0, "rpc.method").as_deref(), Some("ListStreams"));
    assert_eq!(of(0, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!((of(0, "error.type"), messages(&spans[0], 15).len()), (None, 0));
    // A root of its own, which failed.
    assert_eq!(ids(&spans[1], 4), None);
    assert_ne!(ids(&spans[1], 1).as_deref(), Some(TRACE));
    assert_eq!(of(1, "error.type").as_deref(), Some("ResourceNotFoundException"));
    assert_eq!(number(&messages(&spans[1], 15)[0], 3), 2);
    for span in &spans {
        assert_eq!((ids(span, 1).unwrap().len(), ids(span, 2).unwrap().len()), (32, 16));
        assert_eq!(number(span, 6), 2, "a server's");
        assert!(number(span, 8) >= number(span, 7) && number(span, 7) > 1_600_000_000_000_000_000);
    }
    assert_eq!(of(2, "messaging.system").as_deref(), Some("kafka"));
    assert_eq!((of(2, "kafka.api_key").as_deref(), of(2, "kafka.api_version").as_deref()), (Some("19"), Some("7")));
    assert_eq!((of(2, "error.type"), of(3, "error.type").as_deref()), (None, Some("TOPIC_ALREADY_EXISTS")));
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_up_nobody() {
    let broker = Broker::with(|config| {
        free(config);
        let address = HostPort { host: "127.0.0.1".into(), port: 1 };
        config.otlp_endpoint = Some(Endpoint { address, path: "/v1/traces".into() });
    })
    .await;
    post(&broker, "ListStreams", "{}", "").await;
    let lost = async || crate::harness::metrics(&broker.server).await["anabranch_trace_spans_lost_total"];
    broker.advance_until(1_000, async || lost().await == 1.0).await;
    broker.server.shutdown().await.unwrap();
}
