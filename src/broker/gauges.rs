//! The gauges of a stream's shards, and its policy for what goes beyond their limits. Made when a shard is first used,
//! gone once the shard is forgotten; called by appends and by the doors, with [`crate::clock::Clock::tick_ms`] as now.
//!
//! | policy | refusing calls | debt |
//! |---|---|---|
//! | enforce | say no | say how long to pause |
//! | observe | say yes; what would have been refused is counted and leaves the gauge as it is | the same |
//! | off | say yes and look at nothing | the same |
//!
//! Invariants: every lock in here is the last one that anybody takes. There is at most one gauge for each shard that
//! the lineage still has (and as many again before they are looked through), and in each at most one pipe for each
//! registered consumer (and one more).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::broker::Stream;
use crate::broker::capacity::{ANSWER_BYTES_MAX, Bucket, Pipe, ReadGauge, Verdict, WriteGauge, WriteLimits};
use crate::broker::stream::State;
use crate::metrics::{Direction, StreamMetrics};
use crate::model::attributes::LimitsPolicy;
use crate::model::ids::{Offset, PartitionIndex, ShardOrdinal};
use crate::model::shard::{Lineage, Shard};

/// Gauges of this many shards are not looked through for forgotten ones.
const PRUNE_FROM: usize = 64;

#[derive(Default)]
pub(super) struct Gauges(RwLock<Shards>);

#[derive(Default)]
struct Shards {
    by_ordinal: HashMap<ShardOrdinal, Arc<ShardGauges>>,
    /// With this many, those of forgotten shards are dropped.
    prune_at: usize,
}

#[derive(Default)]
struct ShardGauges {
    write: Mutex<WriteGauge>,
    read: Mutex<ReadGauge>,
    /// Places to read from that were given out.
    iterators: Mutex<Bucket>,
    /// Of consumers that have a pipe of their own, by name.
    pipes: Mutex<HashMap<Box<str>, Pipe>>,
}

impl Gauges {
    fn of(&self, shard: ShardOrdinal, lineage: impl FnOnce() -> Arc<Lineage>) -> Arc<ShardGauges> {
        if let Some(gauges) = self.0.read().by_ordinal.get(&shard) {
            return gauges.clone();
        }
        let lineage = lineage();
        let mut shards = self.0.write();
        if shards.by_ordinal.len() >= shards.prune_at.max(PRUNE_FROM) {
            shards.by_ordinal.retain(|ordinal, _| lineage.shard(*ordinal).is_some());
            shards.prune_at = 2 * shards.by_ordinal.len();
        }
        shards.by_ordinal.entry(shard).or_default().clone()
    }

    /// One batch was appended to a shard: for how long its writer is to pause. `lineage` is the stream's.
    pub fn charge_append(&self, append: &Appending, records: u64, bytes: u64, now_ms: i64) -> i64 {
        let Appending { policy, shard, lineage, record_kib_max, metrics } = *append;
        if policy == LimitsPolicy::Off {
            return 0;
        }
        let gauges = self.of(shard, || lineage.clone());
        let limits = WriteLimits::new(record_kib_max);
        let mut gauge = gauges.write.lock();
        let observe = policy == LimitsPolicy::Observe;
        // A writer that had been told to pause would not have sent it.
        let beyond = observe && gauge.debt_ms(&limits, now_ms) > 0;
        let pause_ms = if beyond { 0 } else { gauge.charge(&limits, records, bytes, now_ms) };
        drop(gauge);
        if beyond || pause_ms > 0 {
            metrics.throttled(Direction::Write, shard, observe);
        }
        if observe { 0 } else { pause_ms }
    }
}

/// A batch that was appended, for [`Gauges::charge_append`].
#[derive(Clone, Copy)]
pub(super) struct Appending<'a> {
    pub policy: LimitsPolicy,
    /// That took it.
    pub shard: ShardOrdinal,
    pub lineage: &'a Arc<Lineage>,
    pub record_kib_max: u32,
    pub metrics: &'a StreamMetrics,
}

impl Stream {
    /// What becomes of traffic beyond a shard's limits.
    pub fn limits_policy(&self) -> LimitsPolicy {
        self.settings().limits
    }

    /// The gauge that records put to `shard` go through. `state` is the stream's, which the caller has locked.
    pub(super) fn put_gauge(&self, state: &State, shard: ShardOrdinal) -> PutGauge<'_> {
        let policy = state.settings.limits;
        let limits = WriteLimits::new(state.attributes.record_kib_max);
        let gauges = (policy != LimitsPolicy::Off).then(|| self.gauges.of(shard, || state.lineage.clone()));
        PutGauge { stream: self, shard, policy, limits, gauges }
    }

    /// Whether a call may read from `shard` through the shared pipe. One that may is to end with [`Stream::end_read`].
    pub fn begin_read(&self, shard: ShardOrdinal, now_ms: i64) -> Verdict {
        let policy = self.limits_policy();
        let Some(gauges) = self.gauges_of(policy, shard) else { return Verdict::Granted };
        let verdict = gauges.read.lock().begin_call(now_ms);
        self.judged(policy, verdict, Direction::Read, shard)
    }

    /// Whether one more place to read `shard` from may be given out.
    pub fn begin_iterator(&self, shard: ShardOrdinal, now_ms: i64) -> Verdict {
        let policy = self.limits_policy();
        let Some(gauges) = self.gauges_of(policy, shard) else { return Verdict::Granted };
        let verdict = gauges.iterators.lock().take(ReadGauge::CALLS, 1, now_ms);
        self.judged(policy, verdict, Direction::Read, shard)
    }

    /// The call gave `bytes` of `shard`; `largest` when it would have given more but for the most that one answer may
    /// have.
    pub fn end_read(&self, shard: ShardOrdinal, bytes: u64, largest: bool, now_ms: i64) {
        if let Some(gauges) = self.gauges_of(self.limits_policy(), shard) {
            gauges.read.lock().end_call(bytes, largest, now_ms);
        }
    }

    /// The pipe that records of `shard` go out by: of `consumer` if one is registered by that name, else the shared one.
    pub fn read_pipe(self: &Arc<Self>, shard: ShardOrdinal, consumer: Option<&str>) -> ReadPipe {
        let is_registered = |name: &&str| self.attributes().consumer(name).is_some();
        ReadPipe { stream: self.clone(), shard, consumer: consumer.filter(is_registered).map(Box::from) }
    }

    /// The shard that a partition's `offset` belongs to: its last one for what is not written yet, and for what is
    /// older than any that is remembered its first.
    pub fn shard_at(&self, index: PartitionIndex, offset: Offset) -> Option<ShardOrdinal> {
        let lineage = self.lineage();
        if let Some(open) = lineage.open_shard_on(index).filter(|open| open.start_offset <= offset) {
            return Some(open.ordinal);
        }
        let mut generations = lineage.shards().iter().filter(|shard| shard.partition == index);
        let holds = |shard: &&Shard| shard.end_offset.is_none_or(|end| offset < end);
        let holding = generations.clone().find(holds).or_else(|| generations.next_back());
        holding.map(|shard| shard.ordinal)
    }

    fn gauges_of(&self, policy: LimitsPolicy, shard: ShardOrdinal) -> Option<Arc<ShardGauges>> {
        (policy != LimitsPolicy::Off).then(|| self.gauges.of(shard, || self.lineage()))
    }

    fn judged(&self, policy: LimitsPolicy, verdict: Verdict, way: Direction, shard: ShardOrdinal) -> Verdict {
        let observe = policy == LimitsPolicy::Observe;
        if !verdict.is_granted() {
            self.metrics.throttled(way, shard, observe);
        }
        if observe { Verdict::Granted } else { verdict }
    }
}

/// What one request puts to one shard. See [`Stream::put_gauge`].
pub struct PutGauge<'a> {
    stream: &'a Stream,
    shard: ShardOrdinal,
    policy: LimitsPolicy,
    limits: WriteLimits,
    /// `None` where nothing is limited.
    gauges: Option<Arc<ShardGauges>>,
}

impl PutGauge<'_> {
    /// Whether the shard takes one more record, with `bytes` of data and key.
    pub fn admit(&self, bytes: u64, now_ms: i64) -> Verdict {
        let Some(gauges) = &self.gauges else { return Verdict::Granted };
        let verdict = gauges.write.lock().take(&self.limits, 1, bytes, now_ms);
        self.stream.judged(self.policy, verdict, Direction::Write, self.shard)
    }
}

/// 2 MiB a second of one shard, for one consumer or for those who have none of their own. See [`Stream::read_pipe`].
pub struct ReadPipe {
    stream: Arc<Stream>,
    shard: ShardOrdinal,
    /// `None`: shared.
    consumer: Option<Box<str>>,
}

impl ReadPipe {
    /// Counts what of the shard was given to a client.
    pub fn count_out(&self, records: u64, bytes: u64) {
        self.stream.metrics.outgoing(self.shard, records, bytes);
    }

    /// How long to wait before anything more may be read; 0 where limits are not enforced.
    pub fn wait_ms(&self, now_ms: i64) -> i64 {
        match self.stream.limits_policy() {
            policy @ LimitsPolicy::Enforce => self.with_pipe(policy, |pipe| pipe.wait_ms(now_ms)).unwrap_or(0),
            LimitsPolicy::Observe | LimitsPolicy::Off => 0,
        }
    }

    /// How many bytes one answer may have.
    pub fn answer_bytes_max(&self) -> usize {
        if self.stream.limits_policy() == LimitsPolicy::Enforce { ANSWER_BYTES_MAX } else { usize::MAX }
    }

    /// A reader found that it has to wait, and was told so.
    pub fn turn_away(&self) {
        self.with_pipe(self.stream.limits_policy(), Pipe::turn_away);
        self.stream.metrics.throttled(Direction::Read, self.shard, false);
    }

    /// `bytes` were read. Tells how long to wait before anything more is, the turns of others on the same pipe included; 0
    /// where limits are not enforced.
    pub fn charge(&self, bytes: u64, now_ms: i64) -> i64 {
        let policy = self.stream.limits_policy();
        let observe = policy == LimitsPolicy::Observe;
        let charged = self.with_pipe(policy, |pipe| {
            // A reader that had been told to wait would not have had them.
            let beyond = observe && pipe.wait_ms(now_ms) > 0;
            (beyond, if beyond { 0 } else { pipe.charge_in_turn(bytes, now_ms) })
        });
        let Some((beyond, wait_ms)) = charged else { return 0 };
        if beyond || wait_ms > 0 {
            self.stream.metrics.throttled(Direction::Read, self.shard, observe);
        }
        if observe { 0 } else { wait_ms }
    }

    /// `None` where nothing is limited.
    fn with_pipe<T>(&self, policy: LimitsPolicy, work: impl FnOnce(&mut Pipe) -> T) -> Option<T> {
        let gauges = self.stream.gauges_of(policy, self.shard)?;
        let Some(name) = &self.consumer else { return Some(work(&mut gauges.read.lock().pipe)) };
        if let Some(pipe) = gauges.pipes.lock().get_mut(name) {
            return Some(work(pipe));
        }
        let attributes = self.stream.attributes();
        let mut pipes = gauges.pipes.lock();
        // Whose consumer was deregistered is not needed any more.
        pipes.retain(|name, _| attributes.consumer(name).is_some());
        Some(work(pipes.entry(name.clone()).or_default()))
    }
}

#[cfg(test)]
mod tests;
