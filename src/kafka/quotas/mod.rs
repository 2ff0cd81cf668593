//! Client quotas: kept, told, and held against what clients do (KIP-13, KIP-55, KIP-124, KIP-219, KIP-546, KIP-599,
//! KIP-612). The door's rows ask it for every request, and `conn` for every connection.
//!
//! - [`entity`]: whose quotas there are and which of them holds; pure
//! - [`meter`]: what they are measured with; pure
//! - [`handlers`]: DescribeClientQuotas (48) and AlterClientQuotas (49)
//! - [`work`]: the time that a request is worked on
//!
//! What goes beyond a quota is answered with the time to pause and its connection is not read from for as long; a fetch
//! beyond it gives nothing, a mutation is refused where its version can tell so. Nobody is authenticated here, so every
//! user is [`ANONYMOUS`].
//!
//! Invariants: entities and their limits are kept in `Meta` under [`Key::ClientQuota`], as JSON, and in memory. There are
//! at most [`ENTITIES_MAX`] of them and at most [`METERS_MAX`] meters: idle ones are dropped, and if none is, all are, so
//! that clients of ever new names get more than they should and nothing else breaks.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use parking_lot::{Mutex, RwLock};

use crate::broker::Broker;
use crate::kafka::Context;
use crate::kafka::error::Refusal;
use crate::metrics::Metrics;
use crate::store::keys::Key;
use crate::store::{Batch, Family, StoreError};

pub mod entity;
pub mod handlers;
mod meter;
#[cfg(test)]
mod tests;
pub mod work;

use entity::{Entity, Limits, Quota, Table};
use meter::{Meter, SAMPLES, SampledRate, TokenBucket, WINDOW_MS};

/// Kafka's name of who is not authenticated.
const ANONYMOUS: &str = "ANONYMOUS";
/// Entities with limits.
const ENTITIES_MAX: usize = 10_000;
const METERS_MAX: usize = 10_000;

/// All client quotas of this broker.
pub struct Quotas {
    /// Replaced as a whole, so that whoever asks holds no lock meanwhile.
    table: RwLock<Arc<Table>>,
    meters: Mutex<HashMap<MeterKey, Meter>>,
    metrics: Arc<Metrics>,
}

/// Whose meter it is: the parts that the quota is not of are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct MeterKey {
    quota: Quota,
    user: Option<String>,
    client_id: Option<String>,
}

/// New limits of an entity; without any it is forgotten.
pub type Change = (Entity, Limits);

impl Quotas {
    /// Reads what is kept. Blocks.
    pub fn open(broker: &Broker) -> Result<Quotas, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt(format!("a client quota: {error}"));
        let mut entities = BTreeMap::new();
        for (key, limits) in broker.scan_meta(&Key::ClientQuota("").encode())? {
            let entity: Entity = serde_json::from_slice(key.get(1..).unwrap_or_default()).map_err(corrupt)?;
            let limits: Limits = serde_json::from_slice(&limits).map_err(corrupt)?;
            entities.insert(entity, limits);
        }
        let (table, metrics) = (RwLock::new(Arc::new(Table::new(entities))), broker.metrics().clone());
        Ok(Quotas { table, meters: Mutex::default(), metrics })
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    /// Returns when what `decide` makes of the table is durable. It holds at once.
    async fn change<T>(
        &self,
        broker: &Broker,
        decide: impl FnOnce(&Table) -> (Vec<Change>, T),
    ) -> Result<T, StoreError> {
        let (answer, done) = {
            let mut table = self.table.write();
            let (changes, answer) = decide(&table);
            if changes.is_empty() {
                return Ok(answer);
            }
            let mut entities = table.entities().clone();
            let mut batch = Batch::default();
            for (entity, limits) in changes {
                // Names and numbers always encode.
                let name = serde_json::to_string(&entity).unwrap_or_default();
                let key = Key::ClientQuota(&name).encode();
                if limits.is_empty() {
                    batch.delete(Family::Meta, key);
                    entities.remove(&entity);
                } else {
                    batch.put(Family::Meta, key, serde_json::to_vec(&limits).unwrap_or_default());
                    entities.insert(entity, limits);
                }
            }
            *table = Arc::new(Table::new(entities));
            (answer, broker.commit_meta(batch))
        };
        match done.await {
            Ok(outcome) => outcome.map(|()| answer),
            Err(_) => Err(StoreError::NotDone("the server stops".to_owned())),
        }
    }

    /// The limit that holds for a client and the key of its meter.
    fn held(&self, quota: Quota, user: &str, client_id: &str) -> Option<(MeterKey, f64)> {
        let held = self.table.read().held(quota, user, client_id)?;
        let key = MeterKey {
            quota,
            user: held.by_user.then(|| user.to_owned()),
            client_id: held.by_client_id.then(|| client_id.to_owned()),
        };
        Some((key, held.limit))
    }

    fn measure<T>(&self, key: MeterKey, limit: f64, now_ms: i64, measure: impl FnOnce(&mut Meter) -> T) -> T {
        let mut meters = self.meters.lock();
        if meters.len() >= METERS_MAX && !meters.contains_key(&key) {
            meters.retain(|_, meter| !meter.is_idle(now_ms));
            if meters.len() >= METERS_MAX {
                meters.clear();
            }
        }
        let quota = key.quota;
        measure(meters.entry(key).or_insert_with(|| match quota {
            Quota::ControllerMutationRate => Meter::Tokens(TokenBucket::full(limit, now_ms)),
            Quota::ProducerByteRate
            | Quota::ConsumerByteRate
            | Quota::RequestPercentage
            | Quota::ConnectionCreationRate => Meter::Rate(SampledRate::default()),
        }))
    }

    /// Counts and tells for how long to pause; with `refuses`, what goes beyond does not count, for it is not given.
    fn rate(&self, held: Option<(MeterKey, f64)>, client: &str, value: f64, now_ms: i64, refuses: bool) -> i64 {
        let Some((key, limit)) = held else { return 0 };
        let (quota, longest_ms) = (key.quota, key.quota.pause_ms_max());
        let pause_ms = self.measure(key, limit, now_ms, |meter| match meter {
            Meter::Rate(rate) => {
                let pause_ms = rate.record(value, limit, now_ms);
                if pause_ms > 0 && refuses {
                    rate.unrecord(value, now_ms);
                }
                pause_ms
            }
            Meter::Tokens(bucket) => bucket.charge(value, limit, now_ms),
        });
        self.paused(quota, client, pause_ms.min(longest_ms))
    }

    fn paused(&self, quota: Quota, client: &str, pause_ms: i64) -> i64 {
        if pause_ms > 0 {
            self.metrics.quota_paused(quota.name(), client, pause_ms);
        }
        pause_ms
    }

    /// A produce request of so many bytes has come. Tells for how long its connection is to pause.
    pub fn produced(&self, cx: &Context, bytes: usize) -> i64 {
        let held = self.held(Quota::ProducerByteRate, ANONYMOUS, client_id(cx));
        self.rate(held, client_id(cx), bytes as f64, now_ms(cx), false)
    }

    /// So many bytes are to be given to a fetch. Tells for how long its connection is to pause: then nothing is given.
    pub fn fetched(&self, cx: &Context, bytes: usize) -> i64 {
        let held = self.held(Quota::ConsumerByteRate, ANONYMOUS, client_id(cx));
        self.rate(held, client_id(cx), bytes as f64, now_ms(cx), true)
    }

    /// So many bytes were given to a fetch that cannot be taken back. Tells for how long its connection is to pause.
    pub fn delivered(&self, cx: &Context, bytes: usize) -> i64 {
        let held = self.held(Quota::ConsumerByteRate, ANONYMOUS, client_id(cx));
        self.rate(held, client_id(cx), bytes as f64, now_ms(cx), false)
    }

    /// What a fetch may have at most: more at once would be beyond the quota whatever came before.
    pub fn fetch_bytes_max(&self, cx: &Context) -> usize {
        let held = self.held(Quota::ConsumerByteRate, ANONYMOUS, client_id(cx));
        // A conversion from a float ends at the bounds of the integer.
        held.map_or(usize::MAX, |(_, limit)| {
            (limit * (SAMPLES as i64 - 1) as f64 * WINDOW_MS as f64 / 1_000.0) as usize
        })
    }

    /// Whether the time that requests of this client take is limited.
    fn times(&self, cx: &Context) -> bool {
        self.table.read().held(Quota::RequestPercentage, ANONYMOUS, client_id(cx)).is_some()
    }

    /// A request has been worked on for so long. Tells for how long its connection is to pause.
    fn worked(&self, cx: &Context, micros: i64) -> i64 {
        let held = self.held(Quota::RequestPercentage, ANONYMOUS, client_id(cx));
        let percent = micros as f64 * 100.0 / 1e6;
        self.rate(held, client_id(cx), percent, now_ms(cx), false)
    }

    /// A connection has come. Tells after how long it is to be closed, if there were too many of its address.
    pub fn connected(&self, address: IpAddr, now_ms: i64) -> i64 {
        let address = address.to_canonical().to_string();
        let held = self.held(Quota::ConnectionCreationRate, &address, "");
        self.rate(held, &address, 1.0, now_ms, true)
    }

    /// So many partitions are made for a client that cannot be told to pause.
    pub fn mutated(&self, cx: &Context, partitions: u32) {
        let Some((key, limit)) = self.held(Quota::ControllerMutationRate, ANONYMOUS, client_id(cx)) else { return };
        self.measure(key, limit, now_ms(cx), |meter| match meter {
            Meter::Tokens(bucket) => drop(bucket.charge(partitions.into(), limit, now_ms(cx))),
            Meter::Rate(_) => {}
        });
    }

    /// For a request that makes or deletes partitions. From `strict_from` on versions know the error.
    pub fn mutations(&self, cx: &Context, strict_from: i16) -> Mutations<'_> {
        let held = self.held(Quota::ControllerMutationRate, ANONYMOUS, client_id(cx));
        Mutations {
            quotas: self,
            client_id: client_id(cx).to_owned(),
            held,
            strict: cx.version >= strict_from,
            now_ms: now_ms(cx),
            pause_ms: 0,
        }
    }
}

/// The partitions that one request makes and deletes (KIP-599).
pub struct Mutations<'a> {
    quotas: &'a Quotas,
    client_id: String,
    held: Option<(MeterKey, f64)>,
    strict: bool,
    now_ms: i64,
    /// For how long the connection is to pause.
    pub pause_ms: i64,
}

impl Mutations<'_> {
    /// So many more; refused where the quota is used up and the client can be told so.
    pub fn take(&mut self, partitions: u32) -> Result<(), Refusal> {
        let Some((key, limit)) = self.held.clone() else { return Ok(()) };
        let (now_ms, strict) = (self.now_ms, self.strict);
        let taken = self.quotas.measure(key, limit, now_ms, |meter| match meter {
            Meter::Tokens(bucket) if strict => bucket.take(partitions.into(), limit, now_ms),
            Meter::Tokens(bucket) => Err(bucket.charge(partitions.into(), limit, now_ms)),
            Meter::Rate(_) => Ok(()),
        });
        let owed_ms = taken.err().unwrap_or(0);
        if owed_ms > self.pause_ms {
            self.quotas.paused(Quota::ControllerMutationRate, &self.client_id, owed_ms - self.pause_ms);
            self.pause_ms = owed_ms;
        }
        match owed_ms > 0 && strict {
            true => {
                let message = "The throttling quota has been exceeded.";
                Err(Refusal::new(ResponseError::ThrottlingQuotaExceeded, message))
            }
            false => Ok(()),
        }
    }
}

/// As Kafka has it, a client without an id has the empty one.
fn client_id(cx: &Context) -> &str {
    cx.client_id.as_deref().unwrap_or_default()
}

fn now_ms(cx: &Context) -> i64 {
    cx.door.broker.clock().tick_ms()
}
