//! A whole server in this process, on a store in memory and a clock that stands still, and a client that speaks Kafka's
//! protocol over a socket; [`kinesis`] has one for the other door.

#[path = "../common/frame.rs"]
mod frame;
pub mod kinesis;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use self::frame::{frame, text, topic};
use anabranch::clock::Clock;
use anabranch::config::{Config, HostPort};
use anabranch::model::batch::{self, Codec, Compressor, Options, Producer, Record};
use anabranch::server::Server;
use anabranch::store::Store;
use anabranch::store::memory::MemoryStore;
use bytes::{Buf, Bytes};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Where the clock of every server begins.
pub const NOW_MS: i64 = 1_700_000_000_000;
/// No answer takes this long: what waits longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Versions that the helpers below speak: the newest that name topics by name.
pub const PRODUCE: i16 = 12;
pub const FETCH: i16 = 12;

pub struct Broker {
    pub server: Server,
    pub store: Arc<MemoryStore>,
    pub clock: Clock,
    config: Config,
}

/// Ports are picked by the system.
pub fn config() -> Config {
    let mut config = Config::default();
    config.kafka_addr[0].bind.port = 0;
    config.http_addr = HostPort { host: "127.0.0.1".into(), port: 0 };
    config
}

impl Broker {
    pub async fn start() -> Broker {
        Broker::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Broker {
        let mut config = config();
        change(&mut config);
        Broker::on(Arc::new(MemoryStore::new()), Clock::manual(NOW_MS), config).await
    }

    async fn on(store: Arc<MemoryStore>, clock: Clock, config: Config) -> Broker {
        let server = start_on(&config, &clock, store.clone()).await;
        Broker { server, store, clock, config }
    }

    /// As after `kill -9`.
    pub async fn crash(self) -> Broker {
        let store = Arc::new(self.store.survivor(false));
        Broker::on(store, self.clock.clone(), self.config.clone()).await
    }

    /// Stopped and started again.
    pub async fn restart(self) -> Broker {
        let Broker { server, store, clock, config } = self;
        server.shutdown().await.unwrap();
        Broker::on(Arc::new(store.survivor(true)), clock, config).await
    }

    pub async fn connect(&self) -> Client {
        Client::connect(&self.server).await
    }

    /// Over HTTP/1.1.
    pub async fn kinesis(&self) -> kinesis::Kinesis {
        kinesis::Kinesis::connect(self.server.http_addr()).await
    }

    pub async fn create_topic(&self, name: &str, partitions: i32) -> Uuid {
        self.connect().await.create_topic(name, partitions, &[]).await
    }

    pub async fn create_with(&self, name: &str, settings: &[(&str, &str)]) -> Uuid {
        self.connect().await.create_topic(name, 1, settings).await
    }

    /// Advances the clock, by `step_ms` at a time, until `done`.
    pub async fn advance_until(&self, step_ms: i64, mut done: impl AsyncFnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !done().await {
            assert!(tokio::time::Instant::now() < deadline, "it never happens");
            self.clock.advance(step_ms);
            tokio::task::yield_now().await;
        }
    }
}

pub async fn start_on(config: &Config, clock: &Clock, store: Arc<dyn Store>) -> Server {
    Server::start_on(config.clone(), clock.clone(), store).await.unwrap()
}

pub struct Client {
    socket: TcpStream,
    /// Correlation ids of what was sent and is not answered yet.
    sent: VecDeque<i32>,
    next_correlation_id: i32,
}

impl Client {
    pub async fn connect(server: &Server) -> Client {
        Client::connect_to(server.kafka_addrs()[0]).await
    }

    pub async fn connect_to(address: std::net::SocketAddr) -> Client {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, sent: VecDeque::new(), next_correlation_id: 1 }
    }

    pub async fn call<R: Request>(&mut self, request: R, version: i16) -> R::Response {
        self.send(request, version).await;
        self.receive::<R>(version).await
    }

    pub async fn send<R: Request>(&mut self, request: R, version: i16) {
        self.try_send(request, version).await.unwrap();
    }

    /// Without an answer to come: Produce with acks=0.
    pub async fn send_unanswered<R: Request>(&mut self, request: R, version: i16) {
        self.send(request, version).await;
        self.sent.pop_back();
    }

    pub async fn try_send<R: Request>(&mut self, request: R, version: i16) -> std::io::Result<()> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.sent.push_back(correlation_id);
        self.socket.write_all(&frame(&request, version, correlation_id)).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed the connection: what it answered before that is still to be read.
        let _ = self.socket.write_all(bytes).await;
    }

    /// No more bytes will come from this side.
    pub async fn finish(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    pub async fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        self.try_receive::<R>(version).await.unwrap_or_else(|| panic!("closed instead of answered: {}", R::KEY))
    }

    /// None when the connection was closed.
    pub async fn try_receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let mut frame = self.receive_frame().await?;
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        assert_eq!(Some(header.correlation_id), self.sent.pop_front(), "answers come in the order of the requests");
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert_eq!(frame.remaining(), 0, "bytes left over in the answer to {} version {version}", R::KEY);
        Some(response)
    }

    /// The next frame without its length, or None when the connection was closed.
    pub async fn receive_frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.socket.read_i32().await.ok()?;
            let mut frame = vec![0; length as usize];
            self.socket.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("neither answered nor closed")
    }

    /// Whether an answer or the end of the connection has come. Takes nothing of it.
    pub async fn has_news(&self) -> bool {
        let mut byte = [0];
        let peek = self.socket.peek(&mut byte);
        tokio::time::timeout(Duration::from_millis(1), peek).await.is_ok()
    }

    pub async fn create_topic(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Uuid {
        let setting = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        };
        let new = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(settings.iter().map(setting).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(1_000);
        let made = self.call(request, 7).await.topics.remove(0);
        assert_eq!(made.error_code, 0, "{name}: {:?}", made.error_message);
        made.topic_id
    }

    pub async fn delete_topic(&mut self, name: &str) {
        let doomed = DeleteTopicState::default().with_name(Some(topic(name)));
        let request = DeleteTopicsRequest::default().with_topics(vec![doomed]).with_timeout_ms(1_000);
        assert_eq!(self.call(request, 6).await.responses[0].error_code, 0);
    }

    pub async fn add_partitions(&mut self, name: &str, count: i32) {
        let grown = CreatePartitionsTopic::default().with_name(topic(name)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![grown]).with_timeout_ms(1_000);
        assert_eq!(self.call(request, 3).await.results[0].error_code, 0);
    }

    pub async fn produce(&mut self, name: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        self.call(produce(name, partition, batch, -1), PRODUCE).await.responses.remove(0).partition_responses.remove(0)
    }

    /// The base offset of what must be taken.
    pub async fn produced(&mut self, name: &str, partition: i32, batch: Bytes) -> i64 {
        let answer = self.produce(name, partition, batch).await;
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// What is there at once.
    pub async fn fetch(&mut self, name: &str, partition: i32, offset: i64) -> PartitionData {
        self.call(fetch(name, &[(partition, offset)]), FETCH).await.responses.remove(0).partitions.remove(0)
    }

    /// Offsets and values from `offset` to the end.
    pub async fn read_from(&mut self, name: &str, partition: i32, mut offset: i64) -> Vec<(i64, String)> {
        let mut read = Vec::new();
        loop {
            let data = self.fetch(name, partition, offset).await;
            assert_eq!(data.error_code, 0);
            let records = records(&data);
            let Some(last) = records.last() else { return read };
            let from = std::mem::replace(&mut offset, last.offset + 1);
            read.extend(
                records.iter().filter(|record| record.offset >= from).map(|record| (record.offset, value(record))),
            );
        }
    }

    /// `(error, offset, timestamp)` as ListOffsets tells them.
    pub async fn list_offset(&mut self, name: &str, partition: i32, timestamp: i64) -> (i16, i64, i64) {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let found = self.call(request, 9).await.topics.remove(0).partitions.remove(0);
        (found.error_code, found.offset, found.timestamp)
    }

    pub async fn earliest(&mut self, name: &str, partition: i32) -> i64 {
        self.list_offset(name, partition, -2).await.1
    }

    pub async fn latest(&mut self, name: &str, partition: i32) -> i64 {
        self.list_offset(name, partition, -1).await.1
    }

    /// Error and low watermark.
    pub async fn delete_records(&mut self, name: &str, partition: i32, before: i64) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
        let deleted = self.call(request, 2).await.topics.remove(0).partitions.remove(0);
        (deleted.error_code, deleted.low_watermark)
    }

    pub async fn new_producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let made = self.call(request, 4).await;
        assert_eq!((made.error_code, made.producer_epoch), (0, 0));
        made.producer_id.0
    }
}

pub fn produce(name: &str, partition: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// Of partitions and offsets of one topic, answered at once with at most a megabyte, outside of any session.
pub fn fetch(name: &str, wanted: &[(i32, i64)]) -> FetchRequest {
    let partition = |(partition, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
            .with_current_leader_epoch(-1)
            .with_log_start_offset(-1)
    };
    let topic = FetchTopic::default().with_topic(topic(name)).with_partitions(wanted.iter().map(partition).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(if wanted.is_empty() { vec![] } else { vec![topic] })
}

/// Uncompressed, as of the moment at which clocks begin.
pub fn batch(values: &[&str]) -> Bytes {
    batch_at(NOW_MS, values, Codec::None, None)
}

pub fn batch_at(timestamp: i64, values: &[&str], codec: Codec, producer: Option<Producer>) -> Bytes {
    let record = |value: &&str| Record {
        offset: 0,
        timestamp,
        key: None,
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
    };
    let records: Vec<_> = values.iter().map(record).collect();
    batch::build(&records, &Options { compressor: Compressor::of(codec), producer }).unwrap()
}

/// A batch of one idempotent producer.
pub fn sequenced(id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    batch_at(NOW_MS, values, Codec::None, Some(Producer { id, epoch, base_sequence, transactional: false }))
}

/// The batches of an answer.
pub fn batches(data: &PartitionData) -> Vec<Bytes> {
    let all = data.records.clone().unwrap_or_default();
    batch::split(&all).map(Result::unwrap).collect()
}

pub fn records(data: &PartitionData) -> Vec<Record> {
    batches(data)
        .iter()
        .flat_map(|batch| batch::records(batch).unwrap().map(Result::unwrap).collect::<Vec<_>>())
        .collect()
}

pub fn value(record: &Record) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
}

/// What `/metrics` tells, by series.
pub async fn metrics(server: &Server) -> BTreeMap<String, f64> {
    let mut socket = TcpStream::connect(server.http_addr()).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let series =
        |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    let (_head, body) = answer.split_once("\r\n\r\n").unwrap();
    body.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect()
}
