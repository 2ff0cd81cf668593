//! What strangers send to the Kinesis API: each gets an error as AWS words it, and nobody else notices.

use std::net::SocketAddr;

use anabranch::kinesis::TABLE;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::kinesis::{CBOR, JSON, Kinesis, encode, free};
use crate::harness::{Broker, PATIENCE};
use crate::random::Random;

/// The longest body that is read; what is longer is told so.
const BODY_BYTES_MAX: usize = 16 << 20;
const BODY_MS_MAX: i64 = 120_000;

/// Members that operations know, with values that are good for some of them.
fn members() -> Vec<(&'static str, Value)> {
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    vec![
        ("StreamName", json!("s")),
        ("StreamARN", json!(arn)),
        ("ResourceARN", json!(arn)),
        ("ConsumerARN", json!(format!("{arn}/consumer/c:1700000000"))),
        ("ConsumerName", json!("c")),
        ("ShardId", json!("shardId-000000000000")),
        ("ShardIteratorType", json!("AT_TIMESTAMP")),
        ("StartingSequenceNumber", json!("49039857307708443467467104868809893875799651909875269634")),
        ("Timestamp", json!(1.5e9)),
        ("ShardIterator", json!("AAAAAAAAAAE=")),
        ("StartingPosition", json!({"Type": "LATEST"})),
        ("Data", json!("AAAA")),
        ("PartitionKey", json!("k")),
        ("ExplicitHashKey", json!("7")),
        ("Records", json!([{"PartitionKey": "k", "Data": "AAAA"}, {"PartitionKey": "", "Data": null}])),
        ("ShardCount", json!(2)),
        ("TargetShardCount", json!(2)),
        ("ScalingType", json!("UNIFORM_SCALING")),
        ("StreamModeDetails", json!({"StreamMode": "ON_DEMAND"})),
        ("ShardToSplit", json!("shardId-000000000000")),
        ("NewStartingHashKey", json!("1")),
        ("ShardToMerge", json!("shardId-000000000000")),
        ("AdjacentShardToMerge", json!("shardId-000000000001")),
        ("RetentionPeriodHours", json!(48)),
        ("ShardLevelMetrics", json!(["ALL"])),
        ("Tags", json!({"a": "b"})),
        ("TagKeys", json!(["a"])),
        ("Policy", json!("{\"Version\":\"2012-10-17\",\"Statement\":[]}")),
        ("ShardFilter", json!({"Type": "AT_TIMESTAMP", "Timestamp": 1})),
        ("NextToken", json!("AAAA")),
        ("MaxResults", json!(7)),
        ("Limit", json!(7)),
        ("EncryptionType", json!("KMS")),
        ("KeyId", json!("alias/aws/kinesis")),
        ("MaxRecordSizeInKiB", json!(2_048)),
        ("WarmThroughputMiBps", json!(4)),
        ("RecordDistributionStrategy", json!("AUTO")),
        ("MinimumThroughputBillingCommitment", json!({"Status": "ENABLED"})),
        ("DryRun", json!(true)),
    ]
}

/// Values that no member expects.
fn strange(random: &mut Random) -> Value {
    let all = [
        Value::Null,
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!("\u{0}\u{10ffff}"),
        json!("9".repeat(400)),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null, {}, [[]], 1]),
        json!({"": {"": null}}),
        json!(vec![json!({"PartitionKey": "k", "Data": "===="}); 501]),
        json!("=AAA"),
    ];
    all[random.below(all.len())].clone()
}

fn body(format: &str, random: &mut Random) -> Bytes {
    let members = members();
    let mut all = serde_json::Map::new();
    let count = random.below(members.len());
    for (name, value) in &members {
        if count > 8 || random.below(4) == 0 {
            let value = if random.below(8) == 0 { strange(random) } else { value.clone() };
            all.insert(name.to_string(), value);
        }
    }
    let mut bytes = encode(format, &Value::Object(all)).to_vec();
    match random.below(6) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 | 2 => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
        }
        3 => bytes = (0..random.below(200)).map(|_| random.next() as u8).collect(),
        _ => {}
    }
    bytes.into()
}

/// Asks and checks the answer; the connection lives on, except under an event stream, which is left.
async fn answered(kinesis: &mut Kinesis, address: SocketAddr, operation: &str, format: &str, body: Bytes) -> u16 {
    let target = format!("Kinesis_20131202.{operation}");
    let answer = kinesis.send(&target, format, body.clone()).await;
    let answer = answer.unwrap_or_else(|| panic!("closed by {operation} {body:02x?}"));
    let status = answer.status().as_u16();
    assert!(matches!(status, 200 | 400), "{status} for {operation} {body:02x?}");
    assert!(answer.headers().contains_key("x-amzn-requestid"));
    let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    if content_type == "application/vnd.amazon.eventstream" {
        *kinesis = Kinesis::connect(address).await;
        return status;
    }
    assert_eq!(content_type, format);
    let told = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap().unwrap().to_bytes();
    if status == 400 {
        let code = match format {
            JSON => serde_json::from_slice::<Value>(&told).unwrap()["__type"].as_str().unwrap().to_owned(),
            _ => {
                let told: ciborium::Value = ciborium::from_reader(&told[..]).unwrap();
                let members = told.into_map().unwrap();
                members[0].1.as_text().unwrap().to_owned()
            }
        };
        assert!(code.ends_with("Exception"), "{operation}: {code}");
    }
    status
}

#[tokio::test]
async fn thousands_of_strange_requests_are_answered_over_connections_that_live_on() {
    let broker = Broker::with(|config| {
        free(config);
        config.shards_max = 60;
    })
    .await;
    let address = broker.server.http_addr();
    let mut bystander = Kinesis::connect(address).await;
    bystander.create_stream("bystander", 1).await;
    let mut connections = [Kinesis::connect(address).await, Kinesis::connect_h2(address).await];
    let mut random = Random(7);
    let mut well = 0;
    for round in 0..40 {
        for row in TABLE {
            for format in [JSON, CBOR] {
                let body = body(format, &mut random);
                let kinesis = &mut connections[random.below(2)];
                well += u32::from(answered(kinesis, address, row.operation, format, body).await == 200);
            }
        }
        let data = format!("{round}");
        bystander.put("bystander", &[("k", data.as_bytes())]).await;
    }
    assert!(well > 50, "{well}: the bodies are too strange to come far");
    assert_eq!(bystander.read_shard("bystander", "shardId-000000000000").await.len(), 40);
}

#[tokio::test]
async fn what_is_cut_or_claims_what_is_not_there_is_a_serialization_error() {
    let broker = Broker::with(free).await;
    let address = broker.server.http_addr();
    let mut kinesis = Kinesis::connect(address).await;
    kinesis.create_stream("s", 1).await;
    let record = json!({"PartitionKey": "k", "Data": "AAAA", "ExplicitHashKey": "1"});
    let whole = json!({"Records": vec![record; 3], "StreamName": "s"});
    for format in [JSON, CBOR] {
        let whole = encode(format, &whole);
        // Without any body it is the same; with all of it, in CBOR, its data is a text and no byte string.
        for length in 0..whole.len() {
            assert_eq!(answered(&mut kinesis, address, "PutRecords", format, whole.slice(..length)).await, 400);
        }
    }
    let claims: [(&str, Vec<u8>); 12] = [
        // Maps, lists, byte strings and texts of 2^64 - 1, 2^62 and 2^31.
        (CBOR, [&[0xbb][..], &[0xff; 8]].concat()),
        (CBOR, [&b"\xa1\x67Records\x9b"[..], &[0x40, 0, 0, 0, 0, 0, 0, 0]].concat()),
        (CBOR, [&b"\xa1\x67Records\x9a"[..], &[0x80, 0, 0, 0], &[0xa0; 600]].concat()),
        (CBOR, [&b"\xa1\x64Data\x5b"[..], &[0x7f; 8]].concat()),
        (CBOR, [&b"\xa1\x6cPartitionKey\x7b"[..], &[0x7f; 8]].concat()),
        (CBOR, [&b"\xa1\x64Data\x5f"[..], &[0x5a, 0xff, 0xff, 0xff, 0xff]].concat()),
        (CBOR, vec![0x9f; 1 << 20]),
        (CBOR, vec![0x81; 1 << 20]),
        (CBOR, vec![0xc1; 1 << 20]),
        (JSON, vec![b'['; 1 << 20]),
        (JSON, br#"{"Tags":"#.repeat(100_000)),
        (JSON, [&br#"{"MaxResults":"#[..], &[b'9'; 1 << 20]].concat()),
    ];
    for operation in ["PutRecords", "CreateStream", "ListShards"] {
        for (format, claim) in &claims {
            assert_eq!(answered(&mut kinesis, address, operation, format, claim.clone().into()).await, 400);
        }
    }
    kinesis.put("s", &[("k", b"well")]).await;
}

#[tokio::test]
async fn content_types_and_targets_that_are_none_are_client_errors() {
    let broker = Broker::with(free).await;
    let mut kinesis = broker.kinesis().await;
    for content_type in ["", "text/plain", "application/json", "application/x-amz-json-9.9", CBOR, "é", ";;;"] {
        for target in ["", "Kinesis_20131202", "Kinesis_20131202.", ".ListStreams", "Kinesis_20131202.Nothing", "é.é"]
        {
            for body in [&b""[..], b"{}", b"\xa0", b"\xff\xff"] {
                let answer = kinesis.send(target, content_type, Bytes::from_static(body)).await.unwrap();
                assert!(answer.status().is_client_error(), "{content_type} {target}: {}", answer.status());
                assert!(answer.headers().contains_key("x-amzn-requestid"));
                answer.into_body().collect().await.unwrap();
            }
        }
    }
    kinesis.ok("ListStreams", json!({})).await;
}

fn head(length: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Type: {JSON}\r\n\
         {length}\r\n\r\n"
    )
}

/// The status of the answer that comes, or `None` when there is none.
async fn status(socket: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, socket.read(&mut piece)).await.expect("neither answered nor closed") {
            Ok(read @ 1..) => answer.extend_from_slice(&piece[..read]),
            Ok(0) | Err(_) => return None,
        }
    }
    Some(std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap())
}

#[tokio::test]
async fn bodies_that_are_too_large_are_told_so_by_either_version() {
    let broker = Broker::with(free).await;
    let address = broker.server.http_addr();
    broker.kinesis().await.create_stream("s", 1).await;
    let claimed = head(&format!("Content-Length: {}", u64::MAX / 2));
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(claimed.as_bytes()).await.unwrap();
    assert_eq!(status(&mut socket).await, Some(413));

    for mut kinesis in [Kinesis::connect(address).await, Kinesis::connect_h2(address).await] {
        let body = Bytes::from(vec![b' '; BODY_BYTES_MAX + 1]);
        let answer = kinesis.send("Kinesis_20131202.PutRecords", JSON, body).await.expect("an answer");
        assert_eq!(answer.status(), 413);
    }
    // One byte less is read, and is no document.
    let mut kinesis = broker.kinesis().await;
    let body = Bytes::from(vec![b' '; BODY_BYTES_MAX]);
    assert_eq!(answered(&mut kinesis, address, "PutRecords", JSON, body).await, 400);
    kinesis.put("s", &[("k", b"well")]).await;
}

#[tokio::test]
async fn slow_bodies_wait_alone_and_not_for_ever() {
    let broker = Broker::with(free).await;
    let address = broker.server.http_addr();
    let mut kinesis = broker.kinesis().await;
    kinesis.create_stream("s", 1).await;
    let mut slow = Vec::new();
    for place in 0..200 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let length = if place % 2 == 0 { "Content-Length: 16000000" } else { "Transfer-Encoding: chunked" };
        socket.write_all(head(length).as_bytes()).await.unwrap();
        socket.write_all(b"10\r\n0123").await.unwrap();
        slow.push(socket);
    }
    // What they have claimed and not sent is nobody's.
    for _ in 0..20 {
        kinesis.put("s", &[("k", &[7; 100_000])]).await;
    }
    broker.clock.advance(BODY_MS_MAX);
    for mut socket in slow {
        let told = status(&mut socket).await;
        assert!(told.is_none_or(|status| (400..500).contains(&status)), "{told:?}");
    }
    broker.kinesis().await.put("s", &[("k", b"well")]).await;
}
