//! Shards and their lineage: which span of which partition's log owns which hash keys, and since when.
//!
//! A shard is a generation of a partition: its records are `start_offset..end_offset` of that partition's log, and the
//! partition's leader epoch is the shard's. Owned by the stream (`broker` keeps one [`Lineage`] per stream, stored as
//! JSON, and changes it under the stream's lock); pure, so the caller brings offsets and the time.
//!
//! Invariants, held by [`Lineage::uniform`], [`Lineage::split`] and [`Lineage::add_partitions`]:
//! - The open shards cover the hash keys `0..2^128`, each key once.
//! - Ordinals are never reused and ascend in the list. (The highest ordinal is always open, because whatever closes a
//!   shard opens a higher one; so forgetting closed shards frees no ordinal.)
//! - A partition has at most one open shard, and its leader epochs only grow, with start offsets that never go back.
//! - A child's creation second is later than its parents', so that sequence numbers, which begin with that second, sort
//!   across a reshard.
//!
//! Sources: Kinesis API reference (SplitShard, HashKeyRange), KIP-101 and KIP-320 (leader epochs).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{Offset, PartitionIndex, ShardOrdinal};

/// The hash keys `start..=end`: inclusive, as Kinesis has it, because 2^128 does not fit. In JSON both are decimal
/// strings, as they are on the Kinesis wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKeyRange {
    #[serde(serialize_with = "put_decimal", deserialize_with = "get_decimal")]
    pub start: u128,
    #[serde(serialize_with = "put_decimal", deserialize_with = "get_decimal")]
    pub end: u128,
}

/// A span of one partition's log that owns a hash-key range for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub ordinal: ShardOrdinal,
    pub partition: PartitionIndex,
    pub leader_epoch: i32,
    pub start_offset: Offset,
    /// Exclusive; `None` while the shard is open.
    pub end_offset: Option<Offset>,
    pub hash_key_range: HashKeyRange,
    pub parents: Vec<ShardOrdinal>,
    pub created_ms: i64,
    /// `None` while the shard is open.
    pub closed_ms: Option<i64>,
}

/// Every shard of a stream, closed ones too, and the number of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Ascending by ordinal.
    shards: Vec<Shard>,
    partitions: u32,
}

/// Where a split divides the parent's hash keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitAt {
    Midpoint,
    /// The first hash key of the upper child: Kinesis' `NewStartingHashKey`.
    HashKey(u128),
}

/// The two children of a split: `stays` goes on in the parent's partition with the lower hash keys, `opens` begins on a
/// new partition with the upper ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Children {
    pub stays: ShardOrdinal,
    pub opens: ShardOrdinal,
}

/// Why a lineage was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    #[error("{0} does not exist")]
    NoSuchShard(ShardOrdinal),
    #[error("{0} is closed")]
    ShardClosed(ShardOrdinal),
    /// Kinesis leaves each child at least two hash keys.
    #[error(
        "hash key {at} is not both greater than one plus the shard's first hash key {} and less than its last {}",
        range.start, range.end
    )]
    HashKeyOutside { at: u128, range: HashKeyRange },
    #[error("{0} owns too few hash keys to be split")]
    TooNarrow(ShardOrdinal),
    /// The partition's log ends before the shard that is to be closed there begins.
    #[error("{shard} begins at offset {start_offset} and cannot end at {end_offset}")]
    EndsBeforeStart { shard: ShardOrdinal, start_offset: Offset, end_offset: Offset },
    #[error("{target} partitions would not be an increase from {open}")]
    NotAnIncrease { open: u32, target: u32 },
    #[error("no shard ordinals, partition numbers or leader epochs are left")]
    Exhausted,
}

impl HashKeyRange {
    pub const ALL: HashKeyRange = HashKeyRange { start: 0, end: u128::MAX };

    pub fn contains(&self, hash_key: u128) -> bool {
        (self.start..=self.end).contains(&hash_key)
    }

    /// How many hash keys it holds, less one: the whole range holds 2^128, which does not fit.
    fn span(&self) -> u128 {
        self.end.saturating_sub(self.start)
    }

    /// Where the upper half begins.
    fn midpoint(&self) -> u128 {
        self.start.saturating_add(self.span() / 2).saturating_add(1)
    }

    /// The ranges below and from `at`, if each keeps at least two hash keys.
    fn divided(&self, at: u128) -> Option<(HashKeyRange, HashKeyRange)> {
        let fits = at > self.start.saturating_add(1) && at < self.end;
        fits.then(|| (HashKeyRange { start: self.start, end: at - 1 }, HashKeyRange { start: at, end: self.end }))
    }
}

impl Shard {
    pub fn is_open(&self) -> bool {
        self.end_offset.is_none()
    }
}

impl Lineage {
    /// `partitions` open shards that divide the hash keys evenly, as a new Kinesis stream has them: each begins at a
    /// multiple of 2^128 / `partitions` rounded down, and the last takes the rest.
    pub fn uniform(partitions: NonZeroU32, now_ms: i64) -> Lineage {
        let partitions = partitions.get();
        let n = u128::from(partitions);
        // 2^128 / n without 2^128: one more than (2^128 - 1) / n where n divides evenly. With one shard the width wraps
        // to 0, which is only ever multiplied by 0.
        let width = (u128::MAX / n).wrapping_add(u128::from(u128::MAX % n == n - 1));
        let shards = (0..partitions)
            .map(|index| {
                let start = width * u128::from(index);
                let end = if index == partitions - 1 { u128::MAX } else { start + (width - 1) };
                Shard {
                    ordinal: ShardOrdinal(index),
                    partition: PartitionIndex(index),
                    leader_epoch: 0,
                    start_offset: 0,
                    end_offset: None,
                    hash_key_range: HashKeyRange { start, end },
                    parents: Vec::new(),
                    created_ms: now_ms,
                    closed_ms: None,
                }
            })
            .collect();
        Lineage { shards, partitions }
    }

    /// Every shard, ascending by ordinal.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// How many partitions the stream has: Kafka's partition count.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    pub fn shard(&self, ordinal: ShardOrdinal) -> Option<&Shard> {
        self.index_of(ordinal).and_then(|at| self.shards.get(at))
    }

    /// Ascending by ordinal.
    pub fn open_shards(&self) -> impl DoubleEndedIterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.is_open())
    }

    /// The shard that takes the partition's appends.
    pub fn open_shard_on(&self, partition: PartitionIndex) -> Option<&Shard> {
        self.open_shards().rev().find(|shard| shard.partition == partition)
    }

    /// The open shard that owns `hash_key`. `None` only for a lineage that was stored wrong.
    pub fn shard_for_hash_key(&self, hash_key: u128) -> Option<&Shard> {
        self.open_shards().find(|shard| shard.hash_key_range.contains(hash_key))
    }

    /// The partition's latest leader epoch; `None` if there is no such partition.
    pub fn leader_epoch(&self, partition: PartitionIndex) -> Option<i32> {
        self.shards.iter().rev().find(|shard| shard.partition == partition).map(|shard| shard.leader_epoch)
    }

    /// `(leader_epoch, start_offset, end_offset)` of the partition's generations, oldest first.
    pub fn epochs(&self, partition: PartitionIndex) -> impl Iterator<Item = (i32, Offset, Option<Offset>)> {
        self.shards
            .iter()
            .filter(move |shard| shard.partition == partition)
            .map(|shard| (shard.leader_epoch, shard.start_offset, shard.end_offset))
    }

    /// Kafka's OffsetForLeaderEpoch: the largest known epoch that is not above `epoch`, and the offset where it ends
    /// (`log_end` for the latest). `(-1, -1)` for an epoch nobody has had yet and for an unknown partition; an epoch
    /// older than all that are known ends where they begin.
    pub fn end_offset_for_epoch(&self, partition: PartitionIndex, epoch: i32, log_end: Offset) -> (i32, Offset) {
        const UNKNOWN: (i32, Offset) = (-1, -1);
        if epoch < 0 {
            return UNKNOWN;
        }
        let mut floor = None;
        for (known, start_offset, _) in self.epochs(partition) {
            if known > epoch {
                return (floor.unwrap_or(epoch), start_offset);
            }
            floor = Some(known);
        }
        // Nothing is above `epoch`: only the latest epoch itself has an answer.
        if floor == Some(epoch) { (epoch, log_end) } else { UNKNOWN }
    }

    /// Closes an open shard at `end_offset`, the end of its partition's log, and opens its two children there and on a
    /// new partition. Their creation time is `now_ms`, or the next second after the parent's where that is not later.
    pub fn split(
        &mut self,
        ordinal: ShardOrdinal,
        at: SplitAt,
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<Children, LineageError> {
        let index = self.index_of(ordinal).ok_or(LineageError::NoSuchShard(ordinal))?;
        let parent = self.shards.get_mut(index).ok_or(LineageError::NoSuchShard(ordinal))?;
        if !parent.is_open() {
            return Err(LineageError::ShardClosed(ordinal));
        }
        if end_offset < parent.start_offset {
            let start_offset = parent.start_offset;
            return Err(LineageError::EndsBeforeStart { shard: ordinal, start_offset, end_offset });
        }
        let range = parent.hash_key_range;
        let (lower, upper) = match at {
            SplitAt::Midpoint => range.divided(range.midpoint()).ok_or(LineageError::TooNarrow(ordinal))?,
            SplitAt::HashKey(at) => range.divided(at).ok_or(LineageError::HashKeyOutside { at, range })?,
        };
        let stays_epoch = parent.leader_epoch.checked_add(1).ok_or(LineageError::Exhausted)?;
        let partitions = self.partitions.checked_add(1).ok_or(LineageError::Exhausted)?;
        let created_ms = now_ms.max(next_second(parent.created_ms));
        let partition = parent.partition;

        let last = self.shards.last().map_or(ordinal, |shard| shard.ordinal);
        let stays = ShardOrdinal(last.0.checked_add(1).ok_or(LineageError::Exhausted)?);
        let opens = ShardOrdinal(stays.0.checked_add(1).ok_or(LineageError::Exhausted)?);

        // Nothing below fails, so a refused split has changed nothing.
        let new_partition = PartitionIndex(self.partitions);
        if let Some(parent) = self.shards.get_mut(index) {
            parent.end_offset = Some(end_offset);
            parent.closed_ms = Some(created_ms);
        }
        let child = |child, partition, leader_epoch, start_offset, hash_key_range| Shard {
            ordinal: child,
            partition,
            leader_epoch,
            start_offset,
            end_offset: None,
            hash_key_range,
            parents: vec![ordinal],
            created_ms,
            closed_ms: None,
        };
        let children =
            [child(stays, partition, stays_epoch, end_offset, lower), child(opens, new_partition, 0, 0, upper)];
        self.shards.extend(children);
        self.partitions = partitions;
        Ok(Children { stays, opens })
    }

    /// Kafka's CreatePartitions: splits the widest open shard at its midpoint (the lowest ordinal first where several are
    /// as wide) until `target` are open. `end_offset_of` gives the end of an existing partition's log. Changes nothing
    /// when it fails.
    pub fn add_partitions(
        &mut self,
        target: u32,
        end_offset_of: impl Fn(PartitionIndex) -> Offset,
        now_ms: i64,
    ) -> Result<Vec<Children>, LineageError> {
        let mut grown = self.clone();
        let mut widest: BinaryHeap<_> =
            self.open_shards().map(|shard| (shard.hash_key_range.span(), Reverse(shard.ordinal.0))).collect();
        let open = widest.len() as u32;
        if target <= open {
            return Err(LineageError::NotAnIncrease { open, target });
        }
        let mut splits = Vec::new();
        for _ in open..target {
            let (_, Reverse(ordinal)) = widest.pop().ok_or(LineageError::Exhausted)?;
            let ordinal = ShardOrdinal(ordinal);
            let parent = grown.shard(ordinal).ok_or(LineageError::NoSuchShard(ordinal))?;
            // A partition that only this call opens has no log yet.
            let end_offset = if parent.partition.0 < self.partitions { end_offset_of(parent.partition) } else { 0 };
            let children = grown.split(ordinal, SplitAt::Midpoint, end_offset, now_ms)?;
            for child in [children.stays, children.opens] {
                let shard = grown.shard(child).ok_or(LineageError::NoSuchShard(child))?;
                widest.push((shard.hash_key_range.span(), Reverse(child.0)));
            }
            splits.push(children);
        }
        *self = grown;
        Ok(splits)
    }

    fn index_of(&self, ordinal: ShardOrdinal) -> Option<usize> {
        self.shards.binary_search_by_key(&ordinal, |shard| shard.ordinal).ok()
    }
}

/// The first millisecond of the second after the one that `ms` lies in.
fn next_second(ms: i64) -> i64 {
    ms.div_euclid(1_000).saturating_add(1).saturating_mul(1_000)
}

fn put_decimal<S: Serializer>(value: &u128, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

fn get_decimal<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF: u128 = 170_141_183_460_469_231_731_687_303_715_884_105_728;

    fn uniform(partitions: u32) -> Lineage {
        Lineage::uniform(NonZeroU32::new(partitions).unwrap(), 1_000)
    }

    fn starts(lineage: &Lineage) -> Vec<u128> {
        lineage.open_shards().map(|shard| shard.hash_key_range.start).collect()
    }

    #[test]
    fn a_new_stream_is_divided_as_aws_divides_it() {
        assert_eq!(uniform(1).shards[0].hash_key_range, HashKeyRange::ALL);
        assert_eq!(starts(&uniform(2)), [0, HALF]);
        let thirds = uniform(3);
        assert_eq!(
            starts(&thirds),
            [
                0,
                113_427_455_640_312_821_154_458_202_477_256_070_485,
                226_854_911_280_625_642_308_916_404_954_512_140_970
            ]
        );
        assert_eq!(thirds.shards[0].hash_key_range.end, 113_427_455_640_312_821_154_458_202_477_256_070_484);
        assert_eq!(thirds.shards[2].hash_key_range.end, u128::MAX);
    }

    #[test]
    fn a_split_goes_on_in_its_partition_and_opens_another() {
        let mut lineage = uniform(1);
        let children = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 70, 5_000).unwrap();
        assert_eq!(children, Children { stays: ShardOrdinal(1), opens: ShardOrdinal(2) });
        let [parent, stays, opens] = lineage.shards() else { panic!("three shards") };
        assert_eq!((parent.end_offset, parent.closed_ms), (Some(70), Some(5_000)));
        assert_eq!((stays.partition.0, stays.leader_epoch, stays.start_offset), (0, 1, 70));
        assert_eq!(stays.hash_key_range, HashKeyRange { start: 0, end: HALF - 1 });
        assert_eq!((opens.partition.0, opens.leader_epoch, opens.start_offset), (1, 0, 0));
        assert_eq!(opens.hash_key_range, HashKeyRange { start: HALF, end: u128::MAX });
        assert_eq!((&stays.parents, &opens.parents), (&vec![ShardOrdinal(0)], &vec![ShardOrdinal(0)]));
        assert_eq!((lineage.partitions(), lineage.leader_epoch(PartitionIndex(0))), (2, Some(1)));
        assert_eq!(lineage.open_shard_on(PartitionIndex(0)).unwrap().ordinal, ShardOrdinal(1));
        assert_eq!(lineage.open_shard_on(PartitionIndex(2)), None);
        assert_eq!(lineage.shard_for_hash_key(HALF).unwrap().ordinal, ShardOrdinal(2));
        assert_eq!(lineage.shard_for_hash_key(HALF - 1).unwrap().ordinal, ShardOrdinal(1));
    }

    #[test]
    fn a_childs_creation_second_is_later_than_its_parents() {
        let mut lineage = uniform(1);
        // The same second, and a clock that was set back.
        let first = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 0, 1_999).unwrap();
        assert_eq!(lineage.shard(first.stays).unwrap().created_ms, 2_000);
        let second = lineage.split(first.stays, SplitAt::Midpoint, 0, -7).unwrap();
        assert_eq!(lineage.shard(second.opens).unwrap().created_ms, 3_000);
        let third = lineage.split(second.stays, SplitAt::Midpoint, 0, 4_001).unwrap();
        assert_eq!(lineage.shard(third.stays).unwrap().created_ms, 4_001);
    }

    #[test]
    fn a_refused_split_changes_nothing() {
        let mut lineage = uniform(2);
        let before = lineage.clone();
        let range = HashKeyRange { start: HALF, end: u128::MAX };
        for at in [0, HALF, HALF + 1, u128::MAX] {
            let refused = lineage.split(ShardOrdinal(1), SplitAt::HashKey(at), 0, 0);
            assert_eq!(refused, Err(LineageError::HashKeyOutside { at, range }));
        }
        let refused = lineage.split(ShardOrdinal(2), SplitAt::Midpoint, 0, 0);
        assert_eq!(refused, Err(LineageError::NoSuchShard(ShardOrdinal(2))));
        let refused = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, -1, 0);
        assert!(matches!(refused, Err(LineageError::EndsBeforeStart { .. })));
        let refused = lineage.add_partitions(2, |_| 0, 0);
        assert_eq!(refused, Err(LineageError::NotAnIncrease { open: 2, target: 2 }));
        let refused = lineage.add_partitions(3, |_| -1, 0);
        assert!(matches!(refused, Err(LineageError::EndsBeforeStart { .. })));
        assert_eq!(lineage, before);

        let lower = lineage.split(ShardOrdinal(0), SplitAt::HashKey(2), 0, 0).unwrap().stays;
        assert_eq!(
            lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 0, 0),
            Err(LineageError::ShardClosed(ShardOrdinal(0)))
        );
        assert_eq!(lineage.split(lower, SplitAt::Midpoint, 0, 0), Err(LineageError::TooNarrow(lower)));
    }

    #[test]
    fn partitions_are_added_by_splitting_the_widest_lowest_shard() {
        let mut lineage = uniform(1);
        let splits = lineage.add_partitions(4, |partition| i64::from(partition.0) + 9, 1_000).unwrap();
        let opened: Vec<_> = splits.iter().map(|split| (split.stays.0, split.opens.0)).collect();
        assert_eq!(opened, [(1, 2), (3, 4), (5, 6)]);
        // Each quarter is owned once, by partitions 0, 2, 1 and 3.
        let mut open: Vec<_> = lineage.open_shards().map(|s| (s.hash_key_range.start, s.partition.0)).collect();
        open.sort();
        assert_eq!(open, [(0, 0), (HALF / 2, 2), (HALF, 1), (HALF / 2 * 3, 3)]);
        let epochs: Vec<_> = lineage.epochs(PartitionIndex(0)).collect();
        assert_eq!(epochs, [(0, 0, Some(9)), (1, 9, Some(9)), (2, 9, None)]);
        let epochs: Vec<_> = lineage.epochs(PartitionIndex(1)).collect();
        assert_eq!(epochs, [(0, 0, Some(0)), (1, 0, None)]);
    }

    #[test]
    fn an_epoch_ends_where_kafka_says_it_does() {
        let mut lineage = uniform(1);
        let partition = PartitionIndex(0);
        assert_eq!(lineage.end_offset_for_epoch(partition, 0, 5), (0, 5));
        assert_eq!(lineage.end_offset_for_epoch(partition, 1, 5), (-1, -1));
        let stays = lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 5, 0).unwrap().stays;
        lineage.split(stays, SplitAt::Midpoint, 8, 0).unwrap();
        let ends: Vec<_> = (-1..=3).map(|epoch| lineage.end_offset_for_epoch(partition, epoch, 13)).collect();
        assert_eq!(ends, [(-1, -1), (0, 5), (1, 8), (2, 13), (-1, -1)]);
        assert_eq!(lineage.end_offset_for_epoch(PartitionIndex(3), 0, 13), (-1, -1));

        // Retention has taken generations away: what came before the first known one ended where that begins.
        lineage.shards.retain(|shard| shard.partition != partition || shard.leader_epoch == 2);
        assert_eq!(lineage.end_offset_for_epoch(partition, 0, 13), (0, 8));
    }

    #[test]
    fn json_keeps_hash_keys_as_decimal_strings() {
        let mut lineage = uniform(2);
        lineage.split(ShardOrdinal(1), SplitAt::Midpoint, 3, 0).unwrap();
        let json = serde_json::to_string(&lineage).unwrap();
        assert!(
            json.contains(r#""hash_key_range":{"start":"170141183460469231731687303715884105728","end":"34028"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Lineage>(&json).unwrap(), lineage);
        assert!(serde_json::from_str::<HashKeyRange>(r#"{"start":"-1","end":"2"}"#).is_err());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Split { pick: usize, at: Option<u128>, appended: i64, elapsed_ms: i64 },
        Add { more: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<usize>(), proptest::option::of(any::<u128>()), 0..50i64, -500..3_000i64)
                .prop_map(|(pick, at, appended, elapsed_ms)| Step::Split { pick, at, appended, elapsed_ms }),
            1 => (0..9u32).prop_map(|more| Step::Add { more }),
        ]
    }

    fn check(lineage: &Lineage) {
        let mut ranges: Vec<_> = lineage.open_shards().map(|shard| shard.hash_key_range).collect();
        ranges.sort_by_key(|range| range.start);
        assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, u128::MAX));
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].end + 1, pair[1].start, "a gap or an overlap");
        }
        for pair in lineage.shards.windows(2) {
            assert!(pair[0].ordinal < pair[1].ordinal, "an ordinal was reused");
        }
        for partition in (0..lineage.partitions).map(PartitionIndex) {
            let epochs: Vec<_> = lineage.epochs(partition).collect();
            assert_eq!((epochs[0].0, epochs[0].1), (0, 0));
            for pair in epochs.windows(2) {
                assert!(pair[0].0 < pair[1].0, "an epoch went back");
                assert_eq!(pair[0].2, Some(pair[1].1), "generations of a partition do not meet");
            }
            assert!(lineage.open_shard_on(partition).is_some());
        }
        for shard in &lineage.shards {
            for parent in &shard.parents {
                let parent = lineage.shard(*parent).unwrap();
                assert!(parent.created_ms.div_euclid(1_000) < shard.created_ms.div_euclid(1_000));
                assert_eq!(parent.closed_ms, Some(shard.created_ms));
            }
        }
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_invariants(partitions in 1..7u32, steps in prop::collection::vec(step(), 0..24)) {
            let mut lineage = uniform(partitions);
            let (mut now_ms, mut log_end) = (1_000, 0);
            for step in steps {
                let known = lineage.shards.len();
                match step {
                    Step::Split { pick, at, appended, elapsed_ms } => {
                        log_end += appended;
                        now_ms += elapsed_ms;
                        let open: Vec<_> = lineage.open_shards().map(|shard| shard.ordinal).collect();
                        let at = at.map_or(SplitAt::Midpoint, SplitAt::HashKey);
                        let split = lineage.split(open[pick % open.len()], at, log_end, now_ms);
                        prop_assert_eq!(lineage.shards.len(), known + if split.is_ok() { 2 } else { 0 });
                    }
                    Step::Add { more } => {
                        let target = lineage.partitions() + more;
                        let added = lineage.add_partitions(target, |_| log_end, now_ms);
                        prop_assert_eq!(added.is_ok(), more > 0);
                        prop_assert_eq!(lineage.partitions(), target);
                    }
                }
                check(&lineage);
            }
        }
    }
}
