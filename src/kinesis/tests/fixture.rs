//! A door on a store in memory. Calls go through `dispatch` as JSON, as clients send them.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::Audit;
use crate::broker::{Broker, BrokerOptions};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{Call, EventStream, Failure, Format, Reply};
use crate::kinesis::{Door, dispatch};
use crate::metrics::Metrics;
use crate::model::settings::BrokerValues;
use crate::security::Principal;
use crate::store::memory::MemoryStore;

/// The clock stands here.
pub const NOW_MS: i64 = 1_700_000_000_000;
pub const ACCOUNT: &str = "000000000000";

pub struct Fixture {
    pub door: Arc<Door>,
    pub clock: Clock,
    store: Arc<MemoryStore>,
    config: Arc<Config>,
}

impl Fixture {
    /// Without delays and rates.
    pub fn new() -> Fixture {
        Fixture::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Fixture {
        let mut config = Config { state_delay: 0, control_rates: false, ..Config::default() };
        change(&mut config);
        Fixture::open(Clock::manual(NOW_MS), Arc::new(MemoryStore::new()), Arc::new(config))
    }

    fn open(clock: Clock, store: Arc<MemoryStore>, config: Arc<Config>) -> Fixture {
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 1 << 20,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: config.master_keys.clone(),
        };
        let broker = Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap();
        let (audit, _) = Audit::open(&config, clock.clone(), broker.metrics().clone()).unwrap();
        let door = Door::open(broker, config.clone(), audit).unwrap();
        Fixture { door, clock, store, config }
    }

    /// What a crash leaves, opened again.
    pub fn restarted(self) -> Fixture {
        self.restarted_with(|_| ())
    }

    /// The same under other settings.
    pub fn restarted_with(self, change: impl FnOnce(&mut Config)) -> Fixture {
        let survivor = Arc::new(self.store.survivor(false));
        let mut config = Config::clone(&self.config);
        change(&mut config);
        Fixture::open(self.clock, survivor, Arc::new(config))
    }

    pub async fn call(&self, operation: &str, body: Value) -> Result<Value, Failure> {
        self.call_as(Principal::root(ACCOUNT), operation, body).await
    }

    pub async fn call_as(&self, principal: Principal, operation: &str, body: Value) -> Result<Value, Failure> {
        match self.reply(principal, operation, body).await {
            Reply::Whole(answer) => answer.map(|body| match body.is_empty() {
                true => Value::Null,
                false => serde_json::from_slice(&body).unwrap(),
            }),
            Reply::Events(_) => panic!("{operation} answers with events"),
        }
    }

    /// The stream of an operation that answers with events.
    pub async fn events(&self, operation: &str, body: Value) -> EventStream {
        match self.reply(Principal::root(ACCOUNT), operation, body).await {
            Reply::Events(events) => events,
            Reply::Whole(answer) => panic!("{operation}: {answer:?}"),
        }
    }

    async fn reply(&self, principal: Principal, operation: &str, body: Value) -> Reply {
        let call = Call {
            operation: operation.to_owned(),
            format: Format::Json,
            body: serde_json::to_vec(&body).unwrap().into(),
            principal,
            peer: ([127, 0, 0, 1], 50_000).into(),
            user_agent: None,
            request_id: Uuid::nil(),
            trace: None,
        };
        dispatch::dispatch(self.door.clone(), call).await
    }

    pub async fn ok(&self, operation: &str, body: Value) -> Value {
        match self.call(operation, body.clone()).await {
            Ok(answer) => answer,
            Err(failure) => panic!("{operation} {body}: {failure:?}"),
        }
    }

    /// The error's name and message.
    pub async fn refused(&self, operation: &str, body: Value) -> (&'static str, String) {
        match self.call(operation, body.clone()).await {
            Ok(answer) => panic!("{operation} {body}: {answer}"),
            Err(failure) => (failure.code, failure.message.unwrap_or_default()),
        }
    }

    pub async fn create(&self, name: &str, shards: u32) {
        self.ok("CreateStream", json!({"StreamName": name, "ShardCount": shards})).await;
    }

    pub async fn create_on_demand(&self, name: &str) {
        let mode = json!({"StreamMode": "ON_DEMAND"});
        self.ok("CreateStream", json!({"StreamName": name, "StreamModeDetails": mode})).await;
    }

    pub async fn summary(&self, name: &str) -> Value {
        self.ok("DescribeStreamSummary", json!({"StreamName": name})).await["StreamDescriptionSummary"].take()
    }

    pub async fn status(&self, name: &str) -> String {
        self.summary(name).await["StreamStatus"].as_str().unwrap().to_owned()
    }

    pub async fn shards(&self, body: Value) -> Vec<u64> {
        shard_numbers(&self.ok("ListShards", body).await)
    }
}

pub fn arn(stream: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}")
}

/// Ordinals of the shards in an answer.
pub fn shard_numbers(answer: &Value) -> Vec<u64> {
    let shards = answer["Shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["ShardId"].as_str().unwrap()["shardId-".len()..].parse().unwrap()).collect()
}
