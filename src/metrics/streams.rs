//! What is counted for one stream, its shards and its consumers. The broker holds a [`StreamMetrics`] with each stream and
//! counts through it what comes in and goes out by either protocol; the Kinesis door counts its operations.
//!
//! Shards have series only as far as the stream's shard-level metrics were enabled (EnableEnhancedMonitoring), and
//! consumers once they subscribe. Where none are enabled, a shard costs one load of an atomic for each batch.
//!
//! Source: "Monitor the Amazon Kinesis Data Streams service with Amazon CloudWatch".

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use prometheus::{Counter, Histogram, IntCounter};

use super::declare::Series;
use super::{ENFORCE, FAILURE, OBSERVE, OTHER, READ, SUCCESS, WRITE};
use crate::model::ids::ShardOrdinal;

/// Half of what the largest age is told of: the largest of one to two of these.
const WINDOW_MS: i64 = 60_000;
/// Of records of a request.
pub(super) const OUTCOMES: [&str; 3] = ["successful", "failed", "throttled"];
pub(super) const OPERATIONS: [&str; 3] = ["GetRecords", "PutRecord", "PutRecords"];
pub(super) const RATE_EXCEEDED: &str = "rate_exceeded";

/// One stream.
pub struct StreamMetrics {
    incoming: Volume,
    outgoing: Volume,
    /// Of what readers of shards were given.
    iterator_age: Age,
    write_throttled: Throttled,
    read_throttled: Throttled,
    pub get_records: Operation,
    pub put_record: Operation,
    pub put_records: Operation,
    pub(super) label: Arc<str>,
    series: Arc<Series>,
    /// Bits of [`ShardLevel`].
    shard_level: AtomicU8,
    shards: Parts<ShardOrdinal, ShardMetrics>,
    consumers: Parts<Box<str>, ConsumerMetrics>,
}

/// Bytes as limits count them (keys and data of records, whole batches of Kafka's) and records.
struct Volume {
    bytes: IntCounter,
    records: IntCounter,
}

impl Volume {
    fn count(&self, records: u64, bytes: u64) {
        self.records.inc_by(records);
        self.bytes.inc_by(bytes);
    }
}

/// Which way what is throttled goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Write,
    Read,
}

/// What went beyond the limits of one stream's shards, in one direction.
struct Throttled {
    enforced: IntCounter,
    observed: IntCounter,
    seconds: Counter,
}

impl Throttled {
    fn new(series: &Series, label: &str, direction: &str) -> Throttled {
        let counter = |policy| series.stream_throttled.with_label_values(&[label, direction, policy]);
        Throttled {
            enforced: counter(ENFORCE),
            observed: counter(OBSERVE),
            seconds: series.stream_throttle_seconds.with_label_values(&[label, direction]),
        }
    }
}

/// One operation of the Kinesis API on one stream.
pub struct Operation {
    seconds: Histogram,
    success: IntCounter,
    failure: IntCounter,
    bytes: IntCounter,
    /// In the order of [`OUTCOMES`].
    records: [IntCounter; 3],
}

/// What became of a request's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub successful: u64,
    pub failed: u64,
    pub throttled: u64,
    /// Keys and data of the successful ones.
    pub bytes: u64,
}

impl Operation {
    fn new(series: &Series, label: &str, operation: &str) -> Operation {
        let answered = |outcome| series.stream_requests.with_label_values(&[label, operation, outcome]);
        let records = |outcome| series.stream_request_records.with_label_values(&[label, operation, outcome]);
        Operation {
            seconds: series.stream_request_seconds.with_label_values(&[label, operation]),
            success: answered(SUCCESS),
            failure: answered(FAILURE),
            bytes: series.stream_request_bytes.with_label_values(&[label, operation]),
            records: OUTCOMES.map(records),
        }
    }

    /// One request that came as far as its stream was answered.
    pub fn answered(&self, success: bool, seconds: f64) {
        self.seconds.observe(seconds);
        if success { self.success.inc() } else { self.failure.inc() }
    }

    pub fn records(&self, records: Records) {
        let Records { successful, failed, throttled, bytes } = records;
        self.bytes.inc_by(bytes);
        for (counter, count) in self.records.iter().zip([successful, failed, throttled]) {
            counter.inc_by(count);
        }
    }
}

/// How far behind the newest record readers are, and the furthest of them lately.
struct Age {
    seen: Histogram,
    window: Window,
}

impl Age {
    fn new(seen: Histogram) -> Age {
        Age { seen, window: Window::default() }
    }

    fn observe(&self, behind_ms: i64, now_ms: i64) {
        self.seen.observe(behind_ms as f64 / 1e3);
        self.window.note(behind_ms, now_ms);
    }
}

/// The largest of the last [`WINDOW_MS`] to twice that.
#[derive(Default)]
struct Window(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    since_ms: i64,
    largest: Option<i64>,
    largest_before: Option<i64>,
}

impl Seen {
    fn turn(&mut self, now_ms: i64) {
        let age_ms = now_ms.saturating_sub(self.since_ms);
        if age_ms < WINDOW_MS {
            return;
        }
        self.largest_before = self.largest.take().filter(|_| age_ms < 2 * WINDOW_MS);
        self.since_ms = now_ms;
    }
}

impl Window {
    fn note(&self, value: i64, now_ms: i64) {
        let mut seen = self.0.lock();
        seen.turn(now_ms);
        seen.largest = seen.largest.max(Some(value));
    }

    /// `None` when there was nothing.
    fn largest(&self, now_ms: i64) -> Option<i64> {
        let mut seen = self.0.lock();
        seen.turn(now_ms);
        seen.largest.max(seen.largest_before)
    }
}

/// Shards or consumers of all streams that have series of their own are at most so many.
pub(super) struct Bound {
    used: AtomicUsize,
    max: usize,
}

impl Bound {
    pub(super) fn new(max: usize) -> Arc<Bound> {
        Arc::new(Bound { used: AtomicUsize::new(0), max })
    }

    fn take(self: &Arc<Self>) -> Option<Own> {
        let more = |used| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Own(self.clone()))
    }
}

/// One of a [`Bound`].
struct Own(Arc<Bound>);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shards or consumers of a stream.
struct Parts<K, V> {
    bound: Arc<Bound>,
    known: RwLock<Known<K, V>>,
}

struct Known<K, V> {
    parts: HashMap<K, Arc<V>>,
    /// The stream was deleted: nothing of it gets series any more.
    gone: bool,
}

impl<K, V> Parts<K, V> {
    fn new(bound: Arc<Bound>) -> Parts<K, V> {
        Parts { bound, known: RwLock::new(Known { parts: HashMap::new(), gone: false }) }
    }

    fn all(&self) -> Vec<Arc<V>> {
        self.known.read().parts.values().cloned().collect()
    }
}

/// The shard-level metrics of AWS, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum ShardLevel {
    IncomingBytes = 1,
    IncomingRecords = 2,
    OutgoingBytes = 4,
    OutgoingRecords = 8,
    WriteThrottled = 16,
    ReadThrottled = 32,
    IteratorAge = 64,
}

impl ShardLevel {
    fn parse(name: &str) -> Option<ShardLevel> {
        Some(match name {
            "IncomingBytes" => ShardLevel::IncomingBytes,
            "IncomingRecords" => ShardLevel::IncomingRecords,
            "OutgoingBytes" => ShardLevel::OutgoingBytes,
            "OutgoingRecords" => ShardLevel::OutgoingRecords,
            "WriteProvisionedThroughputExceeded" => ShardLevel::WriteThrottled,
            "ReadProvisionedThroughputExceeded" => ShardLevel::ReadThrottled,
            "IteratorAgeMilliseconds" => ShardLevel::IteratorAge,
            _ => return None,
        })
    }

    fn is_in(self, level: u8) -> bool {
        level & self as u8 != 0
    }
}

/// One shard: what of it is enabled.
struct ShardMetrics {
    label: String,
    /// `None`: counted with others.
    own: Option<Own>,
    incoming_bytes: Option<IntCounter>,
    incoming_records: Option<IntCounter>,
    outgoing_bytes: Option<IntCounter>,
    outgoing_records: Option<IntCounter>,
    write_throttled: Option<IntCounter>,
    read_throttled: Option<IntCounter>,
    age: Option<Window>,
}

impl ShardMetrics {
    fn new(series: &Series, stream: &str, shard: ShardOrdinal, own: Option<Own>, level: u8) -> ShardMetrics {
        let label = if own.is_some() { shard.to_string() } else { OTHER.to_owned() };
        let labels = [stream, &label];
        let throttled = |direction| series.shard_throttled.with_label_values(&[stream, &label, direction]);
        ShardMetrics {
            incoming_bytes: ShardLevel::IncomingBytes
                .is_in(level)
                .then(|| series.shard_incoming_bytes.with_label_values(&labels)),
            incoming_records: ShardLevel::IncomingRecords
                .is_in(level)
                .then(|| series.shard_incoming_records.with_label_values(&labels)),
            outgoing_bytes: ShardLevel::OutgoingBytes
                .is_in(level)
                .then(|| series.shard_outgoing_bytes.with_label_values(&labels)),
            outgoing_records: ShardLevel::OutgoingRecords
                .is_in(level)
                .then(|| series.shard_outgoing_records.with_label_values(&labels)),
            write_throttled: ShardLevel::WriteThrottled.is_in(level).then(|| throttled(WRITE)),
            read_throttled: ShardLevel::ReadThrottled.is_in(level).then(|| throttled(READ)),
            age: ShardLevel::IteratorAge.is_in(level).then(Window::default),
            own,
            label,
        }
    }

    /// Takes away its series but for those of `level`.
    fn remove(&self, series: &Series, stream: &str, level: u8) {
        if self.own.is_none() {
            return;
        }
        let counters = [
            (ShardLevel::IncomingBytes, &series.shard_incoming_bytes),
            (ShardLevel::IncomingRecords, &series.shard_incoming_records),
            (ShardLevel::OutgoingBytes, &series.shard_outgoing_bytes),
            (ShardLevel::OutgoingRecords, &series.shard_outgoing_records),
        ];
        for (of, counters) in counters.into_iter().filter(|(of, _)| !of.is_in(level)) {
            let _ = (of, counters.remove_label_values(&[stream, &self.label]));
        }
        let throttled = [(ShardLevel::WriteThrottled, WRITE), (ShardLevel::ReadThrottled, READ)];
        for (_, direction) in throttled.into_iter().filter(|(of, _)| !of.is_in(level)) {
            let _ = series.shard_throttled.remove_label_values(&[stream, &self.label, direction]);
        }
    }
}

fn add(counter: &Option<IntCounter>, count: u64) {
    if let Some(counter) = counter {
        counter.inc_by(count);
    }
}

/// One consumer with a pipe of its own.
pub struct ConsumerMetrics {
    label: String,
    /// `None`: counted with others.
    own: Option<Own>,
    subscribed: IntCounter,
    rate_exceeded: IntCounter,
    refused: IntCounter,
    event_success: IntCounter,
    event_failure: IntCounter,
    events: Volume,
    behind: Age,
}

/// What became of a call that asked to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    Success,
    /// There is another subscription, or there were too many calls.
    RateExceeded,
    Failure,
}

impl ConsumerMetrics {
    fn new(series: &Series, stream: &str, name: &str, own: Option<Own>) -> ConsumerMetrics {
        let label = if own.is_some() { name } else { OTHER };
        let subscribed = |outcome| series.consumer_subscriptions.with_label_values(&[stream, label, outcome]);
        let event = |outcome| series.consumer_events.with_label_values(&[stream, label, outcome]);
        ConsumerMetrics {
            subscribed: subscribed(SUCCESS),
            rate_exceeded: subscribed(RATE_EXCEEDED),
            refused: subscribed(FAILURE),
            event_success: event(SUCCESS),
            event_failure: event(FAILURE),
            events: Volume {
                bytes: series.consumer_event_bytes.with_label_values(&[stream, label]),
                records: series.consumer_event_records.with_label_values(&[stream, label]),
            },
            behind: Age::new(series.consumer_behind.with_label_values(&[stream, label])),
            label: label.to_owned(),
            own,
        }
    }

    fn remove(&self, series: &Series, stream: &str) {
        if self.own.is_none() {
            return;
        }
        let labels = [stream, &*self.label];
        for outcome in [SUCCESS, RATE_EXCEEDED, FAILURE] {
            let _ = series.consumer_subscriptions.remove_label_values(&[stream, &self.label, outcome]);
        }
        for outcome in [SUCCESS, FAILURE] {
            let _ = series.consumer_events.remove_label_values(&[stream, &self.label, outcome]);
        }
        let _ = series.consumer_event_bytes.remove_label_values(&labels);
        let _ = series.consumer_event_records.remove_label_values(&labels);
        let _ = series.consumer_behind.remove_label_values(&labels);
    }

    pub fn subscribed(&self, outcome: Subscribed) {
        match outcome {
            Subscribed::Success => self.subscribed.inc(),
            Subscribed::RateExceeded => self.rate_exceeded.inc(),
            Subscribed::Failure => self.refused.inc(),
        }
    }

    /// An event goes out.
    pub fn event(&self, records: u64, bytes: u64, behind_ms: i64, now_ms: i64) {
        self.event_success.inc();
        self.events.count(records, bytes);
        self.behind.observe(behind_ms, now_ms);
    }

    /// A subscription ends by an error.
    pub fn event_failed(&self) {
        self.event_failure.inc();
    }
}

impl StreamMetrics {
    pub(super) fn new(series: &Arc<Series>, label: &str, shards: Arc<Bound>, consumers: Arc<Bound>) -> StreamMetrics {
        let [get_records, put_record, put_records] = OPERATIONS.map(|name| Operation::new(series, label, name));
        StreamMetrics {
            incoming: Volume {
                bytes: series.stream_incoming_bytes.with_label_values(&[label]),
                records: series.stream_incoming_records.with_label_values(&[label]),
            },
            outgoing: Volume {
                bytes: series.stream_outgoing_bytes.with_label_values(&[label]),
                records: series.stream_outgoing_records.with_label_values(&[label]),
            },
            iterator_age: Age::new(series.stream_iterator_age.with_label_values(&[label])),
            write_throttled: Throttled::new(series, label, WRITE),
            read_throttled: Throttled::new(series, label, READ),
            get_records,
            put_record,
            put_records,
            label: label.into(),
            series: series.clone(),
            shard_level: AtomicU8::new(0),
            shards: Parts::new(shards),
            consumers: Parts::new(consumers),
        }
    }

    /// Records were appended to a shard.
    pub fn incoming(&self, shard: ShardOrdinal, records: u64, bytes: u64) {
        self.incoming.count(records, bytes);
        if let Some(shard) = self.shard(shard) {
            add(&shard.incoming_bytes, bytes);
            add(&shard.incoming_records, records);
        }
    }

    /// Records of a shard were given to a client.
    pub fn outgoing(&self, shard: ShardOrdinal, records: u64, bytes: u64) {
        self.outgoing.count(records, bytes);
        if let Some(shard) = self.shard(shard) {
            add(&shard.outgoing_bytes, bytes);
            add(&shard.outgoing_records, records);
        }
    }

    /// A reader of a shard was given what was so far behind the newest record.
    pub fn iterator_age(&self, shard: ShardOrdinal, behind_ms: i64, now_ms: i64) {
        self.iterator_age.observe(behind_ms, now_ms);
        if let Some(age) = self.shard(shard).as_ref().and_then(|shard| shard.age.as_ref()) {
            age.note(behind_ms, now_ms);
        }
    }

    /// Something was beyond a shard's limits; `observe` when it was let through, which AWS knows nothing of.
    pub fn throttled(&self, direction: Direction, shard: ShardOrdinal, observe: bool) {
        let throttled = self.in_direction(direction);
        if observe {
            throttled.observed.inc();
            return;
        }
        throttled.enforced.inc();
        if let Some(shard) = self.shard(shard) {
            add(
                match direction {
                    Direction::Write => &shard.write_throttled,
                    Direction::Read => &shard.read_throttled,
                },
                1,
            );
        }
    }

    /// A client was told to pause for this long.
    pub fn paused(&self, direction: Direction, ms: i64) {
        self.in_direction(direction).seconds.inc_by(ms.max(0) as f64 / 1e3);
    }

    fn in_direction(&self, direction: Direction) -> &Throttled {
        match direction {
            Direction::Write => &self.write_throttled,
            Direction::Read => &self.read_throttled,
        }
    }

    /// Which shard-level metrics there are, by their names on AWS. Those that are no more vanish.
    pub fn enable_shard_level(&self, names: &BTreeSet<String>) {
        let level = names.iter().filter_map(|name| ShardLevel::parse(name)).fold(0, |level, of| level | of as u8);
        let mut known = self.shards.known.write();
        if self.shard_level.swap(level, Ordering::Relaxed) != level {
            // Those that stay are found again by their labels.
            known.parts.drain().for_each(|(_, shard)| shard.remove(&self.series, &self.label, level));
        }
    }

    fn shard(&self, shard: ShardOrdinal) -> Option<Arc<ShardMetrics>> {
        if self.shard_level.load(Ordering::Relaxed) == 0 {
            return None;
        }
        if let Some(known) = self.shards.known.read().parts.get(&shard) {
            return Some(known.clone());
        }
        let mut known = self.shards.known.write();
        let level = self.shard_level.load(Ordering::Relaxed);
        if level == 0 || known.gone {
            return None;
        }
        let make = || {
            let own = if *self.label == *OTHER { None } else { self.shards.bound.take() };
            Arc::new(ShardMetrics::new(&self.series, &self.label, shard, own, level))
        };
        Some(known.parts.entry(shard).or_insert_with(make).clone())
    }

    /// The handle of a registered consumer, for as long as a subscription takes.
    pub fn consumer(&self, name: &str) -> Arc<ConsumerMetrics> {
        if let Some(known) = self.consumers.known.read().parts.get(name) {
            return known.clone();
        }
        let mut known = self.consumers.known.write();
        if known.gone {
            return Arc::new(ConsumerMetrics::new(&self.series, OTHER, name, None));
        }
        let make = || {
            let own = if *self.label == *OTHER || name == OTHER { None } else { self.consumers.bound.take() };
            Arc::new(ConsumerMetrics::new(&self.series, &self.label, name, own))
        };
        known.parts.entry(name.into()).or_insert_with(make).clone()
    }

    /// Forgets shards and consumers that are no more.
    pub fn retain(&self, is_shard: impl Fn(ShardOrdinal) -> bool, is_consumer: impl Fn(&str) -> bool) {
        self.shards.known.write().parts.retain(|shard, metrics| {
            let stays = is_shard(*shard);
            if !stays {
                metrics.remove(&self.series, &self.label, 0);
            }
            stays
        });
        self.consumers.known.write().parts.retain(|name, metrics| {
            let stays = is_consumer(name);
            if !stays {
                metrics.remove(&self.series, &self.label);
            }
            stays
        });
    }

    /// The stream was deleted.
    pub(super) fn forget_parts(&self) {
        self.retain(|_| false, |_| false);
        self.shards.known.write().gone = true;
        self.consumers.known.write().gone = true;
    }

    /// Writes how far behind readers were lately; where several share a label, the furthest.
    pub(super) fn write_ages(&self, now_ms: i64) {
        let raise = |gauges: &prometheus::GaugeVec, labels: &[&str], window: &Window| {
            if let Some(behind_ms) = window.largest(now_ms) {
                let gauge = gauges.with_label_values(labels);
                gauge.set(gauge.get().max(behind_ms as f64 / 1e3));
            }
        };
        raise(&self.series.stream_iterator_age_max, &[&self.label], &self.iterator_age.window);
        for shard in self.shards.all() {
            if let Some(age) = &shard.age {
                raise(&self.series.shard_iterator_age_max, &[&self.label, &shard.label], age);
            }
        }
        for consumer in self.consumers.all() {
            raise(&self.series.consumer_behind_max, &[&self.label, &consumer.label], &consumer.behind.window);
        }
    }

    /// Takes away the stream's own series.
    pub(super) fn remove(&self) {
        self.forget_parts();
        let (series, label) = (&self.series, &*self.label);
        for counters in [
            &series.stream_incoming_bytes,
            &series.stream_incoming_records,
            &series.stream_outgoing_bytes,
            &series.stream_outgoing_records,
        ] {
            // Only a series that was never made cannot be removed, and `new` made them all.
            let _ = counters.remove_label_values(&[label]);
        }
        let _ = series.stream_iterator_age.remove_label_values(&[label]);
        for direction in [WRITE, READ] {
            for policy in [ENFORCE, OBSERVE] {
                let _ = series.stream_throttled.remove_label_values(&[label, direction, policy]);
            }
            let _ = series.stream_throttle_seconds.remove_label_values(&[label, direction]);
        }
        for operation in OPERATIONS {
            let _ = series.stream_request_seconds.remove_label_values(&[label, operation]);
            let _ = series.stream_request_bytes.remove_label_values(&[label, operation]);
            for outcome in [SUCCESS, FAILURE] {
                let _ = series.stream_requests.remove_label_values(&[label, operation, outcome]);
            }
            for outcome in OUTCOMES {
                let _ = series.stream_request_records.remove_label_values(&[label, operation, outcome]);
            }
        }
    }
}

#[cfg(test)]
impl StreamMetrics {
    /// Records and bytes given to clients so far.
    pub fn given_out(&self) -> (u64, u64) {
        (self.outgoing.records.get(), self.outgoing.bytes.get())
    }
}
