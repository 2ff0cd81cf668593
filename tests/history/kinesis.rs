//! Reads through the other door, shard after shard, as a client of the Kinesis API does.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::history::Value;
use crate::names::Names;
use crate::wire::Address;

const ANSWER: Duration = Duration::from_millis(1_000);
/// Records of one answer: few enough for an unoptimised broker to give them in time.
const PAGE: u32 = 1_000;
/// What a record is read as that nobody can have written.
const UNREADABLE: Value = Value::MAX;

/// The status and the body of one call; `None` when nobody knows.
pub async fn call(broker: &Address, operation: &str, body: &Json) -> Option<(u16, Json)> {
    let address = broker.borrow().and_then(|doors| doors.http)?;
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-amz-json-1.1\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\nx-amz-date: 20240101T000000Z\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AK/20240101/us-east-1/kinesis/aws4_request, \
         SignedHeaders=host, Signature=00\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut socket = TcpStream::connect(address).await.ok()?;
        if socket.local_addr().ok()? == address {
            return None;
        }
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    let answer = timeout(ANSWER, exchange).await.ok()??;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // Cut short with its connection, it is no answer.
    Some((status, if body.is_empty() { Json::Null } else { serde_json::from_str(body).ok()? }))
}

/// Of one topic's stream.
pub struct Shards {
    broker: Address,
    stream: String,
    /// The last sequence number that each shard gave, and whether it has ended.
    read: BTreeMap<String, (Option<String>, bool)>,
}

/// What one round through the shards gave.
pub struct Round {
    pub values: Vec<Value>,
    /// Nothing more was there.
    pub is_at_the_end: bool,
    /// A shard that says there is more.
    pub behind: Option<String>,
}

impl Shards {
    pub fn new(broker: &Address, names: &Names, topic: u8) -> Shards {
        Shards { broker: broker.clone(), stream: names.topic(topic).to_string(), read: BTreeMap::new() }
    }

    /// A page of each shard; `None` when one of them did not answer, and what was read is read again.
    pub async fn round(&mut self) -> Option<Round> {
        let (status, listed) = call(&self.broker, "ListShards", &json!({"StreamName": self.stream})).await?;
        assert_eq!(status, 200, "{listed}");
        for shard in listed["Shards"].as_array()? {
            self.read.entry(shard["ShardId"].as_str()?.to_owned()).or_default();
        }
        let mut read = self.read.clone();
        let mut round = Round { values: Vec::new(), is_at_the_end: true, behind: None };
        for (shard, (last, has_ended)) in read.iter_mut().filter(|(_, (_, has_ended))| !has_ended) {
            let page = self.page(shard, last.as_deref()).await?;
            for record in page["Records"].as_array()? {
                *last = Some(record["SequenceNumber"].as_str()?.to_owned());
                round.values.push(value(record).unwrap_or(UNREADABLE));
                round.is_at_the_end = false;
            }
            *has_ended = page["NextShardIterator"].is_null();
            if !*has_ended && page["MillisBehindLatest"] != 0 {
                round.is_at_the_end = false;
                round.behind = Some(format!("{shard} after {last:?}: {page}"));
            }
        }
        self.read = read;
        Some(round)
    }

    async fn page(&self, shard: &str, last: Option<&str>) -> Option<Json> {
        let mut from = json!({"StreamName": self.stream, "ShardId": shard});
        match last {
            Some(last) => {
                from["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
                from["StartingSequenceNumber"] = last.into();
            }
            None => from["ShardIteratorType"] = "TRIM_HORIZON".into(),
        }
        let (status, iterator) = call(&self.broker, "GetShardIterator", &from).await?;
        assert_eq!(status, 200, "{iterator}");
        let body = json!({"ShardIterator": iterator["ShardIterator"], "Limit": PAGE});
        let (status, page) = call(&self.broker, "GetRecords", &body).await?;
        assert_eq!(status, 200, "{page}");
        Some(page)
    }
}

fn value(record: &Json) -> Option<Value> {
    let data = STANDARD.decode(record["Data"].as_str()?).ok()?;
    let number = data.split(|byte| *byte == b' ').next()?;
    str::from_utf8(number).ok()?.parse().ok()
}
