//! Keeps metrics: which there are, in memory and in `Meta`; their points in `Meta` alone.
//!
//! The handlers queue what is put ([`Keeper::put`]); one task ([`run`]) merges what waits into the points that are stored
//! and commits all of it at once, so a put that was answered is kept as records are. A point of seconds is also merged
//! into its minute. Once an hour what is too old goes, and metrics of which nothing is left.
//!
//! | bound | |
//! |---|---|
//! | [`METRICS_MAX`] | metrics; a put of a further one is refused |
//! | [`MINUTES_KEPT_MS`], [`SECONDS_KEPT_MS`] | with one point a minute (or second) and unit: points of one metric |
//! | [`super::point::VALUES_MAX`] | values of one point |
//! | [`QUEUE_MAX`] | puts that wait; further ones wait before the queue |
//!
//! Stored under [`Key::Metric`]: [`Name`] as JSON; under [`Key::MetricPoint`]: [`Point`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::error::Error;
use super::point::{Point, Unit};
use crate::broker::Broker;
use crate::store::keys::{Key, parse_point_key, prefix_range};
use crate::store::{Batch, Family, Start, StoreError};

pub const METRICS_MAX: usize = 10_000;
pub const MINUTES_KEPT_MS: i64 = 15 * 86_400_000;
pub const SECONDS_KEPT_MS: i64 = 3 * 3_600_000;
const QUEUE_MAX: usize = 64;
/// Points in one page from the store.
const PAGE_POINTS: usize = 4_096;
/// Milliseconds between two looks for what is too old.
const TRIM_MS: i64 = 3_600_000;

/// What a metric is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    pub namespace: String,
    pub metric: String,
    /// Names and values, ascending: their order means nothing.
    pub dimensions: Vec<(String, String)>,
}

impl Name {
    pub fn new(namespace: String, metric: String, mut dimensions: Vec<(String, String)>) -> Name {
        dimensions.sort();
        Name { namespace, metric, dimensions }
    }
}

/// A metric that there is.
#[derive(Debug)]
pub struct Metric {
    pub id: u32,
    pub name: Name,
    /// The time of its latest point.
    pub last_ms: AtomicI64,
}

/// What points stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    Minutes,
    Seconds,
}

impl Resolution {
    fn stored(self) -> u8 {
        match self {
            Resolution::Minutes => 0,
            Resolution::Seconds => 1,
        }
    }

    fn kept_ms(self) -> i64 {
        match self {
            Resolution::Minutes => MINUTES_KEPT_MS,
            Resolution::Seconds => SECONDS_KEPT_MS,
        }
    }

    /// The beginning of what a time lies in, in seconds since 1970.
    fn second_of(self, ms: i64) -> u32 {
        let unit = match self {
            Resolution::Minutes => 60,
            Resolution::Seconds => 1,
        };
        u32::try_from(ms.div_euclid(1_000).div_euclid(unit) * unit).unwrap_or(0)
    }
}

/// What is put of one metric.
#[derive(Clone, Debug)]
pub struct Datum {
    pub name: Name,
    pub at_ms: i64,
    pub unit: Unit,
    pub resolution: Resolution,
    pub point: Point,
}

struct Put {
    data: Vec<Datum>,
    done: oneshot::Sender<Result<(), Error>>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Name, Arc<Metric>>,
    by_id: BTreeMap<u32, Arc<Metric>>,
    next_id: u32,
}

impl Known {
    fn add(&mut self, metric: Arc<Metric>) {
        self.next_id = self.next_id.max(metric.id.saturating_add(1));
        self.by_name.insert(metric.name.clone(), metric.clone());
        self.by_id.insert(metric.id, metric);
    }
}

pub struct Keeper {
    broker: Arc<Broker>,
    known: RwLock<Known>,
    queue: mpsc::Sender<Put>,
    /// The queue's end, until the task takes it.
    waiting: Mutex<Option<mpsc::Receiver<Put>>>,
}

impl Keeper {
    /// Reads which metrics there are. Blocks.
    pub fn open(broker: Arc<Broker>) -> Result<Keeper, StoreError> {
        let mut known = Known::default();
        for (key, json) in broker.scan_meta(b"M")? {
            let corrupt = |what: &str| StoreError::Corrupt(format!("a metric: {what}"));
            let id = key.get(1..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
            let id = id.ok_or_else(|| corrupt("its key"))?;
            let name: Name = serde_json::from_slice(&json).map_err(|error| corrupt(&error.to_string()))?;
            let last_ms = AtomicI64::new(last_minute_ms(&broker, id)?);
            known.add(Arc::new(Metric { id, name, last_ms }));
        }
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        Ok(Keeper { broker, known: RwLock::new(known), queue, waiting: Mutex::new(Some(waiting)) })
    }

    /// Returns when all of it is kept, or none.
    pub async fn put(&self, data: Vec<Datum>) -> Result<(), Error> {
        let (done, kept) = oneshot::channel();
        let stopped = |_| Error::internal(&StoreError::NotDone("the server stops".to_owned()));
        self.queue.send(Put { data, done }).await.map_err(|error| stopped(error.to_string()))?;
        kept.await.map_err(|error| stopped(error.to_string()))?
    }

    pub fn metric(&self, name: &Name) -> Option<Arc<Metric>> {
        self.known.read().by_name.get(name).cloned()
    }

    /// Metrics after `id`, in the order in which they came, as far as `visit` says true.
    pub fn each_after(&self, id: Option<u32>, mut visit: impl FnMut(&Arc<Metric>) -> bool) {
        let from = id.map_or(0, |id| id.saturating_add(1));
        let known = self.known.read();
        for metric in known.by_id.range(from..).map(|(_, metric)| metric) {
            if !visit(metric) {
                return;
            }
        }
    }

    /// Points of a metric from `from_s` on, before `to_s`, ascending; `visit` says whether to go on. Blocks.
    pub fn points(
        &self,
        metric: &Metric,
        resolution: Resolution,
        from_s: u32,
        to_s: u32,
        mut visit: impl FnMut(u32, Unit, Point) -> bool,
    ) -> Result<(), StoreError> {
        let key = |second| point_key(metric.id, resolution, second, Unit(0));
        let mut start = key(from_s);
        let end = key(to_s);
        loop {
            let page = self.broker.page_of_meta(Start::At(start.clone()), end.clone(), PAGE_POINTS)?;
            for (key, value) in &page.entries {
                let (second, unit) = parse_point_key(key).ok_or_else(|| StoreError::Corrupt("a point's key".into()))?;
                let point = parse(value)?;
                if !visit(second, Unit(unit), point) {
                    return Ok(());
                }
            }
            match page.entries.last() {
                Some((last, _)) if page.more => start = [last, &[0][..]].concat().into(),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// The points of what is put, merged into those that are stored. Blocks.
    fn merge(&self, puts: &[Put]) -> Result<Merged, StoreError> {
        let mut merged = Merged::default();
        for put in puts {
            match self.metrics_of(&put.data, &merged) {
                Ok((metrics, added)) => {
                    merged.added.extend(added.into_iter().map(|metric| (metric.name.clone(), metric)));
                    for (datum, metric) in put.data.iter().zip(metrics) {
                        self.merge_one(datum, metric, &mut merged)?;
                    }
                    merged.refused.push(None);
                }
                Err(error) => merged.refused.push(Some(error)),
            }
        }
        for metric in merged.added.values() {
            // A name always encodes.
            let json = serde_json::to_vec(&metric.name).unwrap_or_default();
            merged.batch.put(Family::Meta, Key::Metric(metric.id).encode(), json);
        }
        for (key, point) in &merged.points {
            merged.batch.put(Family::Meta, key.clone(), point.encode());
        }
        Ok(merged)
    }

    /// The metric of each datum, and those that are new.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn metrics_of(&self, data: &[Datum], merged: &Merged) -> Result<(Vec<Arc<Metric>>, Vec<Arc<Metric>>), Error> {
        let known = self.known.read();
        let mut added: HashMap<&Name, Arc<Metric>> = HashMap::new();
        let mut metrics = Vec::with_capacity(data.len());
        for datum in data {
            let name = &datum.name;
            let there = known.by_name.get(name).or_else(|| merged.added.get(name)).or_else(|| added.get(name));
            let metric = match there {
                Some(metric) => metric.clone(),
                None => {
                    let new = merged.added.len() + added.len();
                    if known.by_name.len() + new >= METRICS_MAX {
                        return Err(Error::LimitExceeded(format!("There are {METRICS_MAX} metrics already.")));
                    }
                    let id = known.next_id.saturating_add(u32::try_from(new).unwrap_or(u32::MAX));
                    let metric = Arc::new(Metric { id, name: name.clone(), last_ms: AtomicI64::new(0) });
                    added.insert(name, metric.clone());
                    metric
                }
            };
            metrics.push(metric);
        }
        Ok((metrics, added.into_values().collect()))
    }

    fn merge_one(&self, datum: &Datum, metric: Arc<Metric>, merged: &mut Merged) -> Result<(), StoreError> {
        let resolutions: &[Resolution] = match datum.resolution {
            Resolution::Minutes => &[Resolution::Minutes],
            Resolution::Seconds => &[Resolution::Minutes, Resolution::Seconds],
        };
        for resolution in resolutions {
            let key = point_key(metric.id, *resolution, resolution.second_of(datum.at_ms), datum.unit);
            match merged.points.get_mut(&key) {
                Some(point) => point.merge(&datum.point),
                None => {
                    let mut point = datum.point.clone();
                    if let Some(stored) = self.broker.get_meta(&key)? {
                        point.merge(&parse(&stored)?);
                    }
                    merged.points.insert(key, point);
                }
            }
        }
        merged.latest.push((metric, datum.at_ms));
        Ok(())
    }

    /// Deletes what is too old.
    fn trim(&self, now_ms: i64) -> Batch {
        let mut batch = Batch::default();
        let mut known = self.known.write();
        let oldest_ms = now_ms - MINUTES_KEPT_MS;
        known.by_name.retain(|_, metric| metric.last_ms.load(Ordering::Relaxed) >= oldest_ms);
        let Known { by_name, by_id, .. } = &mut *known;
        by_id.retain(|id, metric| {
            let is_kept = by_name.contains_key(&metric.name);
            for resolution in [Resolution::Minutes, Resolution::Seconds] {
                let to_s = if is_kept { resolution.second_of(now_ms - resolution.kept_ms()) } else { u32::MAX };
                let key = |second| point_key(*id, resolution, second, Unit(0));
                batch.delete_range(key(0), key(to_s));
            }
            if !is_kept {
                batch.delete(Family::Meta, Key::Metric(*id).encode());
            }
            is_kept
        });
        batch
    }

    fn publish(&self, merged: Merged) {
        if !merged.added.is_empty() {
            let mut known = self.known.write();
            merged.added.into_values().for_each(|metric| known.add(metric));
        }
        for (metric, at_ms) in merged.latest {
            metric.last_ms.fetch_max(at_ms, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Merged {
    batch: Batch,
    added: HashMap<Name, Arc<Metric>>,
    points: BTreeMap<Bytes, Point>,
    latest: Vec<(Arc<Metric>, i64)>,
    /// Of each put.
    refused: Vec<Option<Error>>,
}

fn point_key(metric: u32, resolution: Resolution, second: u32, unit: Unit) -> Bytes {
    Key::MetricPoint { metric, resolution: resolution.stored(), second, unit: unit.0 }.encode()
}

fn parse(value: &[u8]) -> Result<Point, StoreError> {
    Point::parse(value).ok_or_else(|| StoreError::Corrupt("a point of a metric".to_owned()))
}

/// When a metric's last minute begins; 0 without any.
fn last_minute_ms(broker: &Broker, id: u32) -> Result<i64, StoreError> {
    let floor = point_key(id, Resolution::Minutes, 0, Unit(0));
    let (_, end) = prefix_range(floor.get(..6).unwrap_or_default());
    let last = point_key(id, Resolution::Minutes, u32::MAX, Unit(u8::MAX));
    let page = broker.page_of_meta(Start::AtOrBefore { key: last, floor }, end, 1)?;
    let key = page.entries.first().and_then(|(key, _)| parse_point_key(key));
    Ok(key.map_or(0, |(second, _)| i64::from(second) * 1_000))
}

/// Commits what is put, until the server stops.
pub async fn run(keeper: Arc<Keeper>) {
    let Some(mut waiting) = keeper.waiting.lock().take() else { return };
    let clock = keeper.broker.clock().clone();
    let mut puts = Vec::new();
    let mut trim_at_ms = clock.tick_ms().saturating_add(TRIM_MS);
    loop {
        tokio::select! {
            received = waiting.recv_many(&mut puts, QUEUE_MAX) => match received {
                0 => return,
                _ => commit(&keeper, std::mem::take(&mut puts)).await,
            },
            () = clock.sleep_until(trim_at_ms) => {
                trim_at_ms = clock.tick_ms().saturating_add(TRIM_MS);
                let batch = keeper.trim(clock.now_ms());
                if let Err(error) = committed(&keeper, batch).await {
                    tracing::warn!(%error, "metrics that are too old are kept");
                }
            }
        }
    }
}

async fn commit(keeper: &Arc<Keeper>, puts: Vec<Put>) {
    let merging = keeper.clone();
    let merged = tokio::task::spawn_blocking(move || {
        let merged = merging.merge(&puts);
        (puts, merged)
    });
    // An error says that the server stops, or that the merging has ended in the middle: nobody is answered then.
    let Ok((puts, merged)) = merged.await else { return };
    let outcome = match merged {
        Ok(mut merged) => {
            let batch = std::mem::take(&mut merged.batch);
            committed(keeper, batch).await.map(|()| merged)
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(mut merged) => {
            let refused = std::mem::take(&mut merged.refused);
            keeper.publish(merged);
            for (put, refused) in puts.into_iter().zip(refused) {
                // Who does not wait any more has gone.
                let _ = put.done.send(refused.map_or(Ok(()), Err));
            }
        }
        Err(error) => {
            let error = Error::internal(&error);
            for put in puts {
                let _ = put.done.send(Err(error.clone()));
            }
        }
    }
}

async fn committed(keeper: &Keeper, batch: Batch) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    match keeper.broker.commit_meta(batch).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::NotDone("the server stops".to_owned())),
    }
}
