//! What is written to a stream over time: how much of its shards' limits is in use, and the highest use of the last thirty
//! days, which on-demand capacity follows. Appends count what they queue; `scaler` looks once a minute.
//!
//! A load is told in thousandths of what one shard takes (by bytes or by records, whichever is more), so 4,000 is a stream
//! that fills four shards. Loads of shards are only in memory. Of an on-demand stream the highest loads are kept in `Meta`
//! under [`Key::Traffic`] as JSON, `[[when_ms, load], ...]`: only those that no later one reaches, at most one an hour, so
//! a restart knows the thirty days before it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::broker::capacity::WriteLimits;
use crate::broker::{Broker, Stream};
use crate::model::attributes::CapacityMode;
use crate::model::ids::{PartitionIndex, ShardOrdinal};
use crate::model::shard::Lineage;
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// What one shard takes, as a load.
pub const SHARD_LOAD: u64 = 1_000;
pub const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// How long a high load is remembered.
const REMEMBERED_MS: i64 = 30 * DAY_MS;

/// What was ever appended to one partition since the broker started.
#[derive(Default)]
pub(super) struct Written {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Written {
    pub fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn totals(&self) -> Totals {
        Totals { records: self.records.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

#[derive(Clone, Copy, Default)]
struct Totals {
    records: u64,
    bytes: u64,
}

impl Totals {
    fn since(self, earlier: Totals) -> Totals {
        Totals {
            records: self.records.saturating_sub(earlier.records),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }

    fn plus(self, other: Totals) -> Totals {
        Totals { records: self.records.saturating_add(other.records), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// As a load, when it came within `period_ms`.
    fn load(self, period_ms: i64) -> u64 {
        let limits = WriteLimits::new(0);
        let load = |amount: u64, per_s: u64| {
            let shards_ms = u128::from(per_s) * period_ms.max(1) as u128;
            u64::try_from(u128::from(amount) * 1_000 * u128::from(SHARD_LOAD) / shards_ms.max(1)).unwrap_or(u64::MAX)
        };
        load(self.bytes, limits.bytes.per_s).max(load(self.records, limits.records.per_s))
    }
}

/// A stream's traffic as it was at the last look.
#[derive(Default)]
pub(super) struct Traffic(Mutex<Meter>);

#[derive(Default)]
struct Meter {
    history: Option<History>,
    last: Option<Look>,
    shards: HashMap<ShardOrdinal, Measured>,
}

struct Look {
    now_ms: i64,
    tick_ms: i64,
    /// Of each partition.
    totals: Vec<Totals>,
}

/// The loads of one shard: the highest of the last day or two, in two windows of a day.
#[derive(Clone, Copy)]
struct Measured {
    since_ms: i64,
    window_ms: i64,
    highest: u64,
    highest_before: u64,
}

/// The highest loads of a stream, oldest first: each is higher than all after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct History(VecDeque<(i64, u64)>);

/// What [`Broker::observe_traffic`] saw of a stream.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The highest load of the last thirty days, or since capacity was given back.
    pub peak: u64,
    /// Of the open shards.
    pub shards: HashMap<ShardOrdinal, ShardLoad>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardLoad {
    /// Since the look before.
    pub now: u64,
    /// The highest of the last day at least, if it was measured for so long.
    pub peak: u64,
    pub measured_ms: i64,
}

impl History {
    /// Takes in the load at `now_ms`; what was seen before `since_ms` does not stand in its way. Tells whether anything
    /// changed.
    fn note(&mut self, load: u64, now_ms: i64, since_ms: i64) -> bool {
        let before = self.0.len();
        self.0.retain(|(at_ms, _)| now_ms.saturating_sub(*at_ms) <= REMEMBERED_MS);
        let expired = self.0.len() < before;
        // Within an hour of a higher load a lower one would be remembered hardly longer.
        let covered = |&(at_ms, higher): &(i64, u64)| {
            higher > load && at_ms >= since_ms && now_ms.saturating_sub(at_ms) < HOUR_MS
        };
        if load == 0 || self.0.back().is_some_and(covered) {
            return expired;
        }
        while self.0.back().is_some_and(|(_, lower)| *lower <= load) {
            self.0.pop_back();
        }
        self.0.push_back((now_ms, load));
        true
    }

    fn peak_since(&self, since_ms: i64) -> u64 {
        self.0.iter().find(|(at_ms, _)| *at_ms >= since_ms).map_or(0, |(_, load)| *load)
    }
}

impl Measured {
    fn new(now_ms: i64) -> Measured {
        Measured { since_ms: now_ms, window_ms: now_ms, highest: 0, highest_before: 0 }
    }

    fn note(&mut self, load: u64, now_ms: i64) {
        if now_ms.saturating_sub(self.window_ms) >= DAY_MS {
            self.highest_before = self.highest;
            self.highest = 0;
            self.window_ms = now_ms;
        }
        self.highest = self.highest.max(load);
    }
}

impl Meter {
    /// Loads since the last look, of the stream and of its open shards. A shard that is younger than that look has no
    /// load of its own yet: part of what its partition took was its parent's.
    fn look(&mut self, lineage: &Lineage, totals: Vec<Totals>, now_ms: i64, tick_ms: i64) -> (u64, Observed) {
        let last = self.last.replace(Look { now_ms, tick_ms, totals: totals.clone() });
        let period_ms = last.as_ref().map_or(0, |last| tick_ms.saturating_sub(last.tick_ms));
        let taken = |partition: PartitionIndex| {
            let at = partition.0 as usize;
            let before = last.as_ref().and_then(|last| last.totals.get(at)).copied().unwrap_or_default();
            totals.get(at).copied().unwrap_or_default().since(before)
        };
        let mut sum = Totals::default();
        for partition in (0..lineage.partitions()).map(PartitionIndex) {
            sum = sum.plus(taken(partition));
        }
        let mut observed = Observed::default();
        let mut measured = HashMap::with_capacity(lineage.open_count() as usize);
        for shard in lineage.open_shards() {
            let mut known = self.shards.remove(&shard.ordinal).unwrap_or(Measured::new(now_ms));
            let was_there = last.as_ref().is_some_and(|last| shard.created_ms <= last.now_ms);
            let now = if was_there && period_ms > 0 { taken(shard.partition).load(period_ms) } else { 0 };
            known.note(now, now_ms);
            let (peak, measured_ms) = (known.highest.max(known.highest_before), now_ms.saturating_sub(known.since_ms));
            observed.shards.insert(shard.ordinal, ShardLoad { now, peak, measured_ms });
            measured.insert(shard.ordinal, known);
        }
        self.shards = measured;
        (if period_ms > 0 { sum.load(period_ms) } else { 0 }, observed)
    }
}

impl Traffic {
    /// With what was remembered before a restart.
    pub fn remembered(history: Option<History>) -> Traffic {
        Traffic(Mutex::new(Meter { history, ..Meter::default() }))
    }
}

#[cfg(test)]
impl Stream {
    /// Counts as if that much had been appended.
    pub fn pretend_written(&self, partition: PartitionIndex, records: u64, bytes: u64) {
        self.state.read().count_written(partition, records, bytes);
    }
}

impl Broker {
    /// Looks at what was written to an on-demand stream since the last look, and remembers it. `None` for a stream that
    /// has provisioned shards; what was remembered of it is dropped.
    ///
    /// A stream that is seen for the first time counts as half busy: so it keeps the shards that it has for as long as
    /// if it had needed them.
    pub fn observe_traffic(&self, stream: &Stream) -> Option<Observed> {
        // Most streams are like this, and a change of the catalogue is not to wait for a look at each of them.
        if stream.settings().capacity_mode == CapacityMode::Provisioned && stream.traffic.0.lock().history.is_none() {
            return None;
        }
        let (now_ms, tick_ms) = (self.clock().now_ms(), self.clock().tick_ms());
        self.while_unchanged(stream, |state| {
            let mut meter = stream.traffic.0.lock();
            if state.settings.capacity_mode == CapacityMode::Provisioned {
                if meter.history.is_some() {
                    *meter = Meter::default();
                    let mut batch = Batch::default();
                    batch.delete(Family::Meta, Key::Traffic(stream.id).encode());
                    self.remember(batch);
                }
                return None;
            }
            let totals = state.written.iter().map(Written::totals).collect();
            let (load, mut observed) = meter.look(&state.lineage, totals, now_ms, tick_ms);
            let since_ms = state.attributes.capacity_released_ms.unwrap_or(i64::MIN);
            let is_new = meter.history.is_none();
            let history = meter.history.get_or_insert_default();
            let seed = if is_new { u64::from(state.lineage.open_count()) * SHARD_LOAD / 2 } else { 0 };
            if history.note(load.max(seed), now_ms, since_ms) {
                let mut batch = Batch::default();
                // A list of pairs of numbers always encodes.
                let value = serde_json::to_vec(history).unwrap_or_default();
                batch.put(Family::Meta, Key::Traffic(stream.id).encode(), value);
                self.remember(batch);
            }
            observed.peak = history.peak_since(since_ms);
            Some(observed)
        })?
    }

    /// Nobody waits for it: a stop that loses the last minute's loads does no harm.
    fn remember(&self, batch: Batch) {
        drop(self.commit_meta(batch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn a_load_is_the_larger_share_of_a_shards_limits() {
        let load = |records, bytes, ms| Totals { records, bytes }.load(ms);
        assert_eq!(load(60_000, 0, 60_000), SHARD_LOAD);
        assert_eq!(load(0, 60 * KIB * KIB, 60_000), SHARD_LOAD);
        assert_eq!(load(30_000, 45 * KIB * KIB, 60_000), 750);
        assert_eq!(load(8_000, KIB, 1_000), 8 * SHARD_LOAD);
        assert_eq!(load(0, 0, 0), 0);
    }

    #[test]
    fn the_highest_load_of_thirty_days_is_remembered() {
        let mut history = History::default();
        let mut note = |load, hour: i64| {
            history.note(load, hour * HOUR_MS, i64::MIN);
            history.peak_since(i64::MIN)
        };
        assert_eq!(note(500, 0), 500);
        assert_eq!(note(3_000, 1), 3_000);
        assert_eq!(note(1_000, 2), 3_000);
        assert_eq!(note(2_000, 3), 3_000);
        assert_eq!(note(0, 721), 3_000, "thirty days later to the hour");
        assert_eq!(note(0, 722), 2_000, "then the highest since counts");
        assert_eq!(note(0, 724), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_reads_back() {
        let mut history = History::default();
        // Ever lower loads, every minute for forty days.
        for minute in 0..40 * 24 * 60 {
            history.note(1_000_000 - minute, minute as i64 * 60_000, i64::MIN);
        }
        assert!(history.0.len() <= 721, "{}", history.0.len());
        let json = serde_json::to_string(&history).unwrap();
        assert!(json.starts_with("[[") && json.len() < 20_000, "{}", json.len());
        assert_eq!(serde_json::from_str::<History>(&json).unwrap(), history);
    }

    #[test]
    fn after_a_release_only_what_came_later_counts() {
        let mut history = History::default();
        history.note(9_000, 1_000, i64::MIN);
        assert!(history.note(2_000, 61_000, 30_000), "the higher one before the release does not cover it");
        assert_eq!((history.peak_since(30_000), history.peak_since(i64::MIN)), (2_000, 9_000));
        assert!(!history.note(1_500, 121_000, 30_000));
        assert!(history.note(2_000, 121_000, 30_000), "as high again is remembered anew");
    }

    #[test]
    fn a_shard_remembers_a_day() {
        let mut measured = Measured::new(0);
        measured.note(900, 1);
        for hour in 1..=24 {
            measured.note(100, hour * HOUR_MS);
        }
        assert_eq!(measured.highest.max(measured.highest_before), 900);
        measured.note(100, 2 * DAY_MS);
        assert_eq!(measured.highest.max(measured.highest_before), 100);
    }
}
