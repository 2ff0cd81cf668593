//! For tests of handlers: a door on a store in memory, without sockets. What a handler answers is encoded as well,
//! because the codec refuses fields that a version does not have.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::sync::watch;

use crate::audit::Audit;
use crate::broker::catalog::NewStream;
use crate::broker::{Broker, BrokerOptions, Stream, Terms};
use crate::clock::Clock;
use crate::config::Config;
use crate::group::{GroupSettings, Groups};
use crate::kafka::fetch::{self, Fetched};
use crate::kafka::{Advertised, Client, Context, Coordinators, Door, Quotas, Watchers, encode_frame};
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{Compressor, Options, Producer, Record, build};
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::settings::BrokerValues;
use crate::share::{ShareSettings, Shares};
use crate::store::memory::MemoryStore;
use crate::txn::{Transactions, TxnSettings};

/// The clock stands here.
pub const NOW_MS: i64 = 1_700_000_000_000;

pub struct Fixture {
    pub door: Arc<Door>,
    /// Kept, so that the door does not think that the server stops.
    _stopping: watch::Sender<bool>,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Fixture {
        Fixture::remembering(1 << 20, change)
    }

    /// With so many bytes of batches in memory.
    pub fn remembering(tail_bytes_max: usize, change: impl FnOnce(&mut Config)) -> Fixture {
        let mut config = Config::default();
        change(&mut config);
        let clock = Clock::manual(NOW_MS);
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: Vec::new(),
        };
        let broker = Broker::open(Arc::new(MemoryStore::new()), options, clock.clone(), Metrics::new(10)).unwrap();
        let groups = Groups::open(broker.clone(), clock.clone(), GroupSettings::default()).unwrap();
        let transactions = Transactions::open(broker.clone(), groups.clone(), clock, TxnSettings::default()).unwrap();
        let shares = Shares::open(broker.clone(), groups.clone(), ShareSettings::default()).unwrap();
        let listener = |name: &str, port| Advertised { name: name.into(), host: format!("{name}.example"), port };
        let listeners = vec![listener("inside", 9092), listener("outside", 19092)];
        let (stopping, watching) = watch::channel(false);
        let quotas = Quotas::open(&broker).unwrap();
        let coordinators = Coordinators { groups, transactions, shares };
        let (audit, _) = Audit::open(&config, broker.clock().clone(), broker.metrics().clone()).unwrap();
        let door = Door::new(
            broker,
            coordinators,
            quotas,
            Arc::new(config),
            listeners,
            watching,
            Watchers { audit, tracer: None },
        );
        Fixture { door, _stopping: stopping }
    }

    /// Of a client that speaks `version` and came by the second listener.
    pub fn cx(&self, version: i16) -> Context {
        let client = Client::new(([127, 0, 0, 1], 50_000).into(), 1);
        Context { door: self.door.clone(), client: Arc::new(client), client_id: None, version, correlation_id: 7 }
    }

    pub async fn topic(&self, name: &str, partitions: u32) -> Arc<Stream> {
        let new = NewStream {
            name: name.into(),
            partitions: NonZeroU32::new(partitions).unwrap(),
            claimed_replicas: 1,
            overrides: Default::default(),
            attributes: Attributes::new(self.door.broker.clock().now_ms()),
        };
        self.door.broker.create_stream(new).await.unwrap()
    }

    /// Appends one batch with a record at each of `timestamps`; its base offset.
    pub async fn append(&self, stream: &Stream, index: u32, timestamps: &[i64], producer: Option<Producer>) -> Offset {
        let record = |timestamp: &i64| Record {
            offset: 0,
            timestamp: *timestamp,
            key: None,
            value: Some(Bytes::from_static(b"value")),
            headers: Vec::new(),
        };
        self.append_records(stream, index, &timestamps.iter().map(record).collect::<Vec<_>>(), producer).await
    }

    pub async fn append_records(
        &self,
        stream: &Stream,
        index: u32,
        records: &[Record],
        producer: Option<Producer>,
    ) -> Offset {
        let batch = build(records, &Options { compressor: Compressor::None, producer }).unwrap();
        let transactional = producer.is_some_and(|producer| producer.transactional);
        let terms = Terms { transactional, ..Terms::default() };
        let ticket = self.door.broker.append(stream, PartitionIndex(index), &batch, terms).unwrap();
        ticket.committed().await.unwrap().base_offset.unwrap()
    }
}

/// A fetch's answer as its client has it.
pub fn received(answer: &Fetched, version: i16) -> FetchResponse {
    let mut frame = fetch::encode::frame(answer, 7, version).unwrap();
    let mut bytes = frame.copy_to_bytes(frame.remaining());
    // Behind the length.
    bytes.advance(4);
    ResponseHeader::decode(&mut bytes, FetchResponse::header_version(version)).unwrap();
    FetchResponse::decode(&mut bytes, version).unwrap()
}

/// Fails where the codec would refuse the answer.
pub fn encodes<R: Encodable + HeaderVersion>(response: R, version: i16) -> R {
    assert!(encode_frame(&response, 7, version).is_some(), "version {version}");
    response
}
