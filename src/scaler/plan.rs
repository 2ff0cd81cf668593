//! The decision: which shards an on-demand stream is to split and to merge now. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::broker::traffic::{DAY_MS, Observed, SHARD_LOAD, ShardLoad};
use crate::model::attributes::Attributes;
use crate::model::shard::{HashKeyRange, Lineage, Shard};

/// What every on-demand stream has.
pub const SHARDS_MIN: u32 = 4;
/// 10 GiB a second, the most that AWS gives.
pub const SHARDS_MAX: u32 = 10_240;
/// In this time a stream grows to no more than double.
const DOUBLING_MS: i64 = 15 * 60_000;
/// For this long after capacity was given back, shards are merged by their present load.
const RELEASE_MS: i64 = 15 * 60_000;
/// A shard at its limit. A little less than all, because records that do not fit leave a part of it unused.
const HOT: u64 = SHARD_LOAD * 9 / 10;
/// Shards that take less than this together are better one.
const COLD: u64 = SHARD_LOAD / 2;
/// Loads below this say nothing about which shard is to be split first.
const NOISE: u64 = SHARD_LOAD / 4;
/// A hot shard is split until it owns this part of an even share of the hash keys: what is hot then is one key.
const NARROWEST: u128 = 16;
/// Percent by which the highest load may be more than capacity allows, before more is given: a minute's load has the
/// second's burst in it that shards allow.
const SLACK_PERCENT: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The shard that owns the hash key divides there.
    Split { at: u128 },
    /// The shards that meet at the hash key, which is the first of the upper one, become one.
    Merge { at: u128 },
}

/// What is decided from.
pub struct View<'a> {
    lineage: &'a Lineage,
    observed: &'a Observed,
    warm_mibps: Option<u32>,
    created_ms: i64,
    released_ms: Option<i64>,
    /// How many more shards may be open.
    room: u32,
    now_ms: i64,
}

impl<'a> View<'a> {
    pub fn new(
        lineage: &'a Lineage,
        attributes: &Attributes,
        observed: &'a Observed,
        room: u32,
        now_ms: i64,
    ) -> View<'a> {
        View {
            lineage,
            observed,
            warm_mibps: attributes.warm_mibps,
            created_ms: attributes.created_ms,
            released_ms: attributes.capacity_released_ms,
            room,
            now_ms,
        }
    }

    /// How many shards twice the highest load takes, and the warm throughput.
    fn wanted(&self) -> u32 {
        let per_shard = SHARD_LOAD * (100 + SLACK_PERCENT) / 100;
        let shards = self.observed.peak.saturating_mul(2).div_ceil(per_shard);
        let shards = u32::try_from(shards).unwrap_or(u32::MAX).clamp(SHARDS_MIN, SHARDS_MAX);
        shards.max(warm_shards(self.warm_mibps))
    }

    /// Up to how many shards the stream may grow now.
    fn ceiling(&self) -> u32 {
        let then_ms = self.now_ms.saturating_sub(DOUBLING_MS).max(self.created_ms);
        let then = self.lineage.shards().iter().filter(|shard| was_open(shard, then_ms)).count();
        let doubled = u32::try_from(then).unwrap_or(u32::MAX).saturating_mul(2);
        let ceiling = doubled.max(SHARDS_MIN).max(warm_shards(self.warm_mibps)).min(SHARDS_MAX);
        ceiling.min(self.lineage.open_count().saturating_add(self.room))
    }

    fn load(&self, shard: &Shard) -> ShardLoad {
        self.observed.shards.get(&shard.ordinal).copied().unwrap_or_default()
    }
}

/// One MiB a second each.
pub fn warm_shards(warm_mibps: Option<u32>) -> u32 {
    warm_mibps.unwrap_or_default().min(SHARDS_MAX)
}

/// A child's creation may lie ahead of the clock, so its parents' end may too; they were open until then.
fn was_open(shard: &Shard, then_ms: i64) -> bool {
    shard.created_ms <= then_ms && shard.closed_ms.is_none_or(|closed_ms| closed_ms > then_ms)
}

/// What is to be done now, in order. Splits or merges, never both.
pub fn plan(view: &View<'_>) -> Vec<Step> {
    let splits = grow(view);
    if splits.is_empty() { shrink(view) } else { splits }
}

/// The widest shards are split evenly until there are `wanted`.
pub fn widen(lineage: &Lineage, wanted: u32) -> Vec<Step> {
    let loads = lineage.open_shards().map(|shard| (0, shard.hash_key_range));
    split_first(loads, lineage.open_count(), wanted, wanted)
}

fn grow(view: &View<'_>) -> Vec<Step> {
    let loads = view.lineage.open_shards().map(|shard| (view.load(shard).now, shard.hash_key_range));
    split_first(loads, view.lineage.open_count(), view.wanted(), view.ceiling())
}

/// Splits the busiest shard in half, the widest where none is busy, as long as fewer than `wanted` are open or it is hot;
/// to no more than `ceiling`. A half is taken to have half of the load.
fn split_first(
    loads: impl Iterator<Item = (u64, HashKeyRange)>,
    mut open: u32,
    wanted: u32,
    ceiling: u32,
) -> Vec<Step> {
    let entry = |load: u64, range: HashKeyRange| {
        let rank = if load < NOISE { 0 } else { load };
        (rank, range.span(), Reverse(range.start), range.end)
    };
    let mut busiest: BinaryHeap<_> = loads.map(|(load, range)| entry(load, range)).collect();
    let even_share = u128::MAX / u128::from(open.max(1));
    let mut splits = Vec::new();
    while open < ceiling {
        let Some((load, span, Reverse(start), end)) = busiest.pop() else { break };
        if open >= wanted && load < HOT {
            break;
        }
        let is_narrow = span <= even_share / NARROWEST;
        if load > 0 && is_narrow {
            // Splitting does not help it. It may still be the widest.
            busiest.push(entry(0, HashKeyRange { start, end }));
            continue;
        }
        let range = HashKeyRange { start, end };
        let at = range.midpoint();
        busiest.push(entry(load / 2, HashKeyRange { start, end: at.saturating_sub(1) }));
        busiest.push(entry(load / 2, HashKeyRange { start: at, end }));
        splits.push(Step::Split { at });
        open += 1;
    }
    splits
}

/// Merges neighbours that take little together, those first that take least, until no more than wanted are open. Each
/// shard at most once: the child is measured for a day before it is merged again, unless capacity is being given back.
fn shrink(view: &View<'_>) -> Vec<Step> {
    let (open, wanted) = (view.lineage.open_count(), view.wanted());
    let excess = open.saturating_sub(wanted) as usize;
    if excess == 0 {
        return Vec::new();
    }
    let is_release = view.released_ms.is_some_and(|released_ms| view.now_ms.saturating_sub(released_ms) < RELEASE_MS);
    let cold = |load: ShardLoad| match is_release {
        true => Some(load.now),
        false => (load.measured_ms >= DAY_MS).then_some(load.peak),
    };
    let shards: Vec<_> = view.lineage.open_shards_by_hash_key().collect();
    let mut pairs: Vec<_> = shards
        .windows(2)
        .enumerate()
        .filter_map(|(place, pair)| {
            let [below, above] = pair else { return None };
            let load = cold(view.load(below))?.saturating_add(cold(view.load(above))?);
            let rank = if load < NOISE { 0 } else { load };
            let span = below.hash_key_range.span().saturating_add(above.hash_key_range.span());
            (load <= COLD).then_some((rank, span, place, above.hash_key_range.start))
        })
        .collect();
    pairs.sort_unstable();
    let mut is_taken = vec![false; shards.len()];
    let mut merges = Vec::new();
    for (_, _, place, at) in pairs {
        let Some([below, above]) = is_taken.get_mut(place..place + 2) else { continue };
        if merges.len() < excess && !*below && !*above {
            (*below, *above) = (true, true);
            merges.push(Step::Merge { at });
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::PartitionIndex;
    use crate::model::shard::SplitAt;

    const NOW_MS: i64 = 1_700_000_000_000;

    /// As the broker does it, on a lineage alone.
    fn take(lineage: &mut Lineage, step: Step) {
        let end_of = |_: PartitionIndex| 0;
        match step {
            Step::Split { at } => {
                let shard = lineage.shard_for_hash_key(at).unwrap().ordinal;
                lineage.split(shard, SplitAt::HashKey(at), 0, NOW_MS).unwrap();
            }
            Step::Merge { at } => {
                let [below, above] = [at - 1, at].map(|key| lineage.shard_for_hash_key(key).unwrap().ordinal);
                lineage.merge(below, above, end_of, NOW_MS).unwrap();
            }
        }
    }

    #[test]
    fn the_busiest_are_split_first_and_the_widest_where_none_is_busy() {
        let lineage = Lineage::uniform(NonZeroU32::new(2).unwrap(), 0);
        let ranges: Vec<_> = lineage.open_shards().map(|shard| shard.hash_key_range).collect();
        let half = ranges[1].start;
        let split = |loads: [u64; 2], wanted, ceiling| {
            let steps = split_first(loads.into_iter().zip(ranges.clone()), 2, wanted, ceiling);
            steps.into_iter().map(|step| if let Step::Split { at } = step { at } else { 0 }).collect::<Vec<_>>()
        };
        assert_eq!(split([0, NOISE - 1], 4, 4), [half / 2, half + half / 2], "noise is not busy");
        assert_eq!(split([300, 800], 3, 3), [half + half / 2]);
        assert_eq!(split([300, 800], 4, 4), [half + half / 2, half + half / 4], "half of 800 is more than 300");
        assert_eq!(split([300, 2_000], 2, 9).len(), 3, "a hot shard and its hot halves");
        assert_eq!(split([300, 2_000], 2, 3).len(), 1);
        assert_eq!(split([300, 2_000], 2, 2).len(), 0);
    }

    #[test]
    fn shards_of_a_quarter_of_an_hour_ago_are_counted() {
        let mut lineage = Lineage::uniform(NonZeroU32::new(8).unwrap(), NOW_MS);
        let observed = Observed::default();
        let attributes = Attributes::new(NOW_MS);
        let ceiling =
            |lineage: &Lineage, now_ms, room| View::new(lineage, &attributes, &observed, room, now_ms).ceiling();
        assert_eq!(ceiling(&lineage, NOW_MS, 100), 16, "a new stream counts from its beginning");
        assert_eq!(ceiling(&lineage, NOW_MS, 3), 11);
        let split_ms = NOW_MS + DAY_MS;
        lineage.add_partitions(12, |_| 0, split_ms).unwrap();
        assert_eq!(ceiling(&lineage, split_ms, 100), 16);
        assert_eq!(ceiling(&lineage, split_ms + DOUBLING_MS - 1, 100), 16);
        assert_eq!(ceiling(&lineage, split_ms + DOUBLING_MS, 100), 24);
    }

    proptest! {
        /// Whatever shards there are and whatever they take, what is planned can be done and keeps its bounds.
        #[test]
        fn a_plan_can_be_carried_out(
            splits in prop::collection::vec(any::<u128>(), 0..40),
            loads in prop::collection::vec((0..3_000u64, 0..3_000u64, prop::bool::ANY), 41),
            peak in 0..40_000u64,
            warm in proptest::option::of(0..60u32),
            room in 0..50u32,
            is_release in prop::bool::ANY,
        ) {
            let mut lineage = Lineage::uniform(NonZeroU32::MIN, NOW_MS - DAY_MS);
            for at in splits {
                let shard = lineage.shard_for_hash_key(at).unwrap().ordinal;
                // Too near to an edge.
                let _ = lineage.split(shard, SplitAt::HashKey(at), 0, NOW_MS - DAY_MS);
            }
            let open = lineage.open_shards().map(|shard| shard.ordinal);
            let shards = open.zip(loads).map(|(shard, (now, peak, measured))| {
                (shard, ShardLoad { now, peak, measured_ms: if measured { DAY_MS } else { 0 } })
            });
            let observed = Observed { peak, shards: shards.collect() };
            let mut attributes = Attributes::new(NOW_MS - DAY_MS);
            attributes.warm_mibps = warm;
            attributes.capacity_released_ms = is_release.then_some(NOW_MS);
            let view = View::new(&lineage, &attributes, &observed, room, NOW_MS);
            let (wanted, ceiling, before) = (view.wanted(), view.ceiling(), lineage.open_count());
            let steps = plan(&view);
            let splits = steps.iter().filter(|step| matches!(step, Step::Split { .. })).count();
            let grows = splits > 0;
            prop_assert!(!grows || splits == steps.len());
            let mut after = lineage.clone();
            steps.iter().for_each(|step| take(&mut after, *step));
            let after = after.open_count();
            prop_assert_eq!(before.abs_diff(after) as usize, steps.len());
            if grows {
                prop_assert!(after <= ceiling && after - before <= room);
            } else {
                prop_assert!(after == before || after >= wanted);
                prop_assert!(before >= wanted.min(ceiling), "too few, and nothing was split");
            }
        }
    }
}
