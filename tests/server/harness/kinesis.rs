//! A client of the Kinesis API over HTTP/1.1 or HTTP/2, in JSON or CBOR. What comes in CBOR is shown as JSON would have it:
//! byte strings in base64, times in seconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use ciborium::Value as Cbor;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::PATIENCE;

pub const JSON: &str = "application/x-amz-json-1.1";
pub const CBOR: &str = "application/x-amz-cbor-1.1";

/// Without delays, rates and limits of shards, which the clock that stands still would never give back.
pub fn free(config: &mut anabranch::config::Config) {
    config.state_delay = 0;
    config.control_rates = false;
    config.kinesis_limits = anabranch::model::attributes::LimitsPolicy::Off;
}

pub struct Kinesis {
    sender: Sender,
    /// Of what is asked and answered.
    format: &'static str,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An error that the service answered.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub code: String,
    pub message: String,
}

/// A record as GetRecords and SubscribeToShard give it out.
#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub shard: String,
    pub number: String,
    pub arrival_ms: i64,
    pub key: String,
    pub data: Bytes,
}

impl Kinesis {
    /// HTTP/1.1 and JSON.
    pub async fn connect(address: SocketAddr) -> Kinesis {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Kinesis { sender: Sender::One(sender), format: JSON }
    }

    /// HTTP/2 by prior knowledge and CBOR.
    pub async fn connect_h2(address: SocketAddr) -> Kinesis {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Kinesis { sender: Sender::Two(sender), format: CBOR }
    }

    /// What a request of any kind is answered; `None` when the connection was closed instead.
    pub async fn send(&mut self, target: &str, content_type: &str, body: Bytes) -> Option<Response<Incoming>> {
        let uri = match &self.sender {
            Sender::One(_) => "/",
            Sender::Two(_) => "http://localhost/",
        };
        let mut request = Request::post(uri)
            .header("content-type", content_type)
            .header("x-amz-date", "20240101T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AK/20240101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00",
            )
            .header("x-amz-target", target);
        if let Sender::One(_) = &self.sender {
            request = request.header("host", "localhost");
        }
        let request = request.body(Full::new(body)).unwrap();
        let answered = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await.ok()?;
                    sender.send_request(request).await.ok()
                }
                Sender::Two(sender) => {
                    sender.ready().await.ok()?;
                    sender.send_request(request).await.ok()
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("neither answered nor closed")
    }

    /// `None` when the connection ended before the answer.
    pub async fn try_call(&mut self, operation: &str, body: &Value) -> Option<Result<Value, Refused>> {
        let target = format!("Kinesis_20131202.{operation}");
        let answer = self.send(&target, self.format, encode(self.format, body)).await?;
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key("x-amzn-requestid"), "{operation}");
        let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.expect("an answer that stops");
        let body = decode(self.format, &body.ok()?.to_bytes());
        Some(if status == 200 { Ok(body) } else { Err(refused(status, &body)) })
    }

    pub async fn call(&mut self, operation: &str, body: Value) -> Result<Value, Refused> {
        self.try_call(operation, &body).await.unwrap_or_else(|| panic!("closed instead of answered: {operation}"))
    }

    pub async fn ok(&mut self, operation: &str, body: Value) -> Value {
        self.call(operation, body).await.unwrap_or_else(|refused| panic!("{operation}: {refused:?}"))
    }

    /// The events of a subscription, or why there is none.
    pub async fn subscribe(&mut self, consumer: &str, shard: &str, from: Value) -> Result<Events, Refused> {
        let body = json!({"ConsumerARN": consumer, "ShardId": shard, "StartingPosition": from});
        let target = "Kinesis_20131202.SubscribeToShard";
        let answer = self.send(target, self.format, encode(self.format, &body)).await.expect("an answer");
        let status = answer.status().as_u16();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let (shard, format) = (shard.to_owned(), self.format);
        let mut events = Events { body: answer.into_body(), buffer: BytesMut::new(), shard, format };
        if status != 200 {
            assert_eq!(content_type, format);
            let body = events.body.collect().await.unwrap().to_bytes();
            return Err(refused(status, &decode(format, &body)));
        }
        assert_eq!(content_type, "application/vnd.amazon.eventstream");
        let first = events.message().await.expect("an event stream begins with a message");
        assert_eq!((&*first.0[":message-type"], &*first.0[":event-type"]), ("event", "initial-response"));
        Ok(events)
    }

    pub async fn create_stream(&mut self, name: &str, shards: usize) {
        self.ok("CreateStream", json!({"StreamName": name, "ShardCount": shards})).await;
    }

    pub async fn register(&mut self, stream: &str, name: &str) -> String {
        let summary = self.ok("DescribeStreamSummary", json!({"StreamName": stream})).await;
        let arn = &summary["StreamDescriptionSummary"]["StreamARN"];
        let registered = self.ok("RegisterStreamConsumer", json!({"StreamARN": arn, "ConsumerName": name})).await;
        registered["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
    }

    /// Shards and sequence numbers of records that must all be taken; `None` when the connection ended.
    pub async fn try_put(&mut self, stream: &str, records: &[(String, Bytes)]) -> Option<Vec<(String, String)>> {
        assert_eq!(self.format, JSON, "data is written as text here");
        let record = |(key, data): &(String, Bytes)| json!({"PartitionKey": key, "Data": STANDARD.encode(data)});
        let records: Vec<Value> = records.iter().map(record).collect();
        let body = json!({"StreamName": stream, "Records": records});
        let answer = self.try_call("PutRecords", &body).await?.unwrap();
        assert_eq!(answer["FailedRecordCount"], 0, "{answer}");
        let put = answer["Records"].as_array().unwrap().iter();
        Some(put.map(|record| (text(&record["ShardId"]), text(&record["SequenceNumber"]))).collect())
    }

    pub async fn put(&mut self, stream: &str, records: &[(&str, &[u8])]) -> Vec<(String, String)> {
        let records: Vec<_> =
            records.iter().map(|(key, data)| (key.to_string(), Bytes::copy_from_slice(data))).collect();
        self.try_put(stream, &records).await.expect("an answer")
    }

    pub async fn shards(&mut self, stream: &str) -> Vec<Value> {
        self.ok("ListShards", json!({"StreamName": stream})).await["Shards"].as_array().unwrap().clone()
    }

    pub async fn iterator(&mut self, stream: &str, shard: &str, kind: &str) -> String {
        let body = json!({"StreamName": stream, "ShardId": shard, "ShardIteratorType": kind});
        text(&self.ok("GetShardIterator", body).await["ShardIterator"])
    }

    /// Records from `iterator` to the end of what is there, and the child shards if the shard ended.
    pub async fn read(&mut self, shard: &str, mut iterator: String) -> (Vec<Got>, Option<Vec<Value>>) {
        let mut read = Vec::new();
        loop {
            let page = self.ok("GetRecords", json!({"ShardIterator": iterator})).await;
            let found = got(shard, &page);
            let is_empty = found.is_empty();
            read.extend(found);
            match page["NextShardIterator"].as_str() {
                None => return (read, Some(page["ChildShards"].as_array().unwrap().clone())),
                Some(_) if is_empty && page["MillisBehindLatest"] == 0 => return (read, None),
                Some(next) => iterator = next.to_owned(),
            }
        }
    }

    pub async fn read_shard(&mut self, stream: &str, shard: &str) -> Vec<Got> {
        let iterator = self.iterator(stream, shard, "TRIM_HORIZON").await;
        self.read(shard, iterator).await.0
    }

    /// Every record of a stream, as read by who takes up a shard when it has read all of its parents to their ends.
    pub async fn follow(&mut self, stream: &str) -> Vec<Got> {
        let shards = self.shards(stream).await;
        let parents =
            |shard: &Value| ["ParentShardId", "AdjacentParentShardId"].iter().any(|name| shard.get(*name).is_some());
        let roots = shards.iter().filter(|shard| !parents(shard));
        let mut ready: VecDeque<String> = roots.map(|shard| text(&shard["ShardId"])).collect();
        let (mut done, mut begun, mut read) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        begun.extend(ready.iter().cloned());
        while let Some(shard) = ready.pop_front() {
            let iterator = self.iterator(stream, &shard, "TRIM_HORIZON").await;
            let (records, children) = self.read(&shard, iterator).await;
            read.extend(records);
            let Some(children) = children else { continue };
            done.insert(shard);
            for child in children {
                let id = text(&child["ShardId"]);
                let all = child["ParentShards"].as_array().unwrap().iter().all(|parent| done.contains(&text(parent)));
                if all && begun.insert(id.clone()) {
                    ready.push_back(id);
                }
            }
        }
        assert_eq!(begun.len(), shards.len(), "the children that were told are the shards that there are");
        read
    }
}

/// The event stream of a subscription, after its first message.
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
    shard: String,
    format: &'static str,
}

#[derive(Debug)]
pub struct Pushed {
    pub records: Vec<Got>,
    pub body: Value,
}

impl Events {
    /// The next event; `Err(None)` when the stream ended without an error.
    pub async fn next(&mut self) -> Result<Pushed, Option<Refused>> {
        let Some((headers, body)) = self.message().await else { return Err(None) };
        match &*headers[":message-type"] {
            "event" => {
                assert_eq!(
                    (&*headers[":event-type"], &*headers[":content-type"]),
                    ("SubscribeToShardEvent", self.format)
                );
                Ok(Pushed { records: got(&self.shard, &body), body })
            }
            "exception" => {
                let refused = refused(0, &body);
                assert_eq!(headers[":exception-type"], refused.code);
                Err(Some(refused))
            }
            other => panic!("{other}"),
        }
    }

    async fn message(&mut self) -> Option<(BTreeMap<String, String>, Value)> {
        while !self.is_whole() {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("nothing is pushed");
            match frame {
                Some(frame) => self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default()),
                None => {
                    assert!(self.buffer.is_empty(), "a message that is cut");
                    return None;
                }
            }
        }
        let length = self.number(0) as usize;
        let headers_length = self.number(4) as usize;
        assert_eq!(self.number(8), crc32fast::hash(&self.buffer[..8]));
        assert_eq!(self.number(length - 4), crc32fast::hash(&self.buffer[..length - 4]));
        let message = self.buffer.split_to(length).freeze();
        let mut headers = message.slice(12..12 + headers_length);
        let mut read = BTreeMap::new();
        while headers.has_remaining() {
            let name_length = headers.get_u8() as usize;
            let name = headers.split_to(name_length);
            assert_eq!(headers.get_u8(), 7);
            let value_length = headers.get_u16() as usize;
            let value = headers.split_to(value_length);
            read.insert(String::from_utf8(name.to_vec()).unwrap(), String::from_utf8(value.to_vec()).unwrap());
        }
        Some((read, decode(self.format, &message[12 + headers_length..length - 4])))
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.buffer[at..at + 4].try_into().unwrap())
    }

    fn is_whole(&self) -> bool {
        self.buffer.len() >= 12 && self.buffer.len() >= self.number(0) as usize
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn refused(status: u16, body: &Value) -> Refused {
    let message = body.get("message").or(body.get("Message")).and_then(Value::as_str).unwrap_or_default();
    Refused { status, code: text(&body["__type"]), message: message.to_owned() }
}

fn got(shard: &str, page: &Value) -> Vec<Got> {
    let record = |record: &Value| Got {
        shard: shard.to_owned(),
        number: text(&record["SequenceNumber"]),
        arrival_ms: (record["ApproximateArrivalTimestamp"].as_f64().unwrap() * 1_000.0).round() as i64,
        key: text(&record["PartitionKey"]),
        data: STANDARD.decode(text(&record["Data"])).unwrap().into(),
    };
    page["Records"].as_array().unwrap().iter().map(record).collect()
}

/// A body in its format.
pub fn encode(format: &str, body: &Value) -> Bytes {
    if format == JSON {
        return serde_json::to_vec(body).unwrap().into();
    }
    let mut bytes = Vec::new();
    ciborium::into_writer(body, &mut bytes).unwrap();
    bytes.into()
}

fn decode(format: &str, body: &[u8]) -> Value {
    match format {
        _ if body.is_empty() => Value::Null,
        JSON => serde_json::from_slice(body).unwrap(),
        _ => shown(ciborium::from_reader(body).unwrap()),
    }
}

fn shown(value: Cbor) -> Value {
    match value {
        Cbor::Integer(number) => json!(i64::try_from(number).unwrap()),
        Cbor::Bytes(bytes) => json!(STANDARD.encode(bytes)),
        Cbor::Float(number) => json!(number),
        Cbor::Text(text) => json!(text),
        Cbor::Bool(truth) => json!(truth),
        Cbor::Null => Value::Null,
        // As AWS has them: a whole number of milliseconds.
        Cbor::Tag(1, ms) => json!(i64::try_from(ms.into_integer().unwrap()).unwrap() as f64 / 1_000.0),
        Cbor::Array(items) => items.into_iter().map(shown).collect(),
        Cbor::Map(members) => {
            let member = |(name, value): (Cbor, Cbor)| (name.into_text().unwrap(), shown(value));
            Value::Object(members.into_iter().map(member).collect())
        }
        other => panic!("AWS writes no {other:?}"),
    }
}
