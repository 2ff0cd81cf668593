//! How a lineage changes: shards are split, merged and scaled to a count. Each operation either happens as a whole or
//! changes nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use super::range::{self, HashKeyRange};
use super::{Dormant, Lineage, Shard};
use crate::model::ids::{Offset, PartitionIndex, ShardOrdinal};

/// Where a split divides the parent's hash keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitAt {
    Midpoint,
    /// The first hash key of the upper child: Kinesis' `NewStartingHashKey`.
    HashKey(u128),
}

/// The two children of a split: `stays` goes on in the parent's partition with the lower hash keys, `opens` begins on the
/// lowest dormant partition, or on a new one, with the upper ones.
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
    /// Between the hash keys of the two lie another shard's, or they are one shard.
    #[error("{0} and {1} are not adjacent")]
    NotAdjacent(ShardOrdinal, ShardOrdinal),
    /// The partition's log ends before the shard that is to be closed there begins.
    #[error("{shard} begins at offset {start_offset} and cannot end at {end_offset}")]
    EndsBeforeStart { shard: ShardOrdinal, start_offset: Offset, end_offset: Offset },
    #[error("{target} partitions would not be an increase from {partitions}")]
    NotAnIncrease { partitions: u32, target: u32 },
    #[error("no shard ordinals, partition numbers or leader epochs are left")]
    Exhausted,
}

impl Lineage {
    /// Closes an open shard at `end_offset`, the end of its partition's log, and opens its two children there and on
    /// another partition. Their creation time is `now_ms`, or the next second after the parent's where that is not later.
    pub fn split(
        &mut self,
        ordinal: ShardOrdinal,
        at: SplitAt,
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<Children, LineageError> {
        let range = self.open_shard(ordinal)?.hash_key_range;
        let halves = match at {
            SplitAt::Midpoint => range.divided(range.midpoint()).ok_or(LineageError::TooNarrow(ordinal))?,
            SplitAt::HashKey(at) => range.divided(at).ok_or(LineageError::HashKeyOutside { at, range })?,
        };
        self.divide(ordinal, halves, end_offset, now_ms)
    }

    fn divide(
        &mut self,
        ordinal: ShardOrdinal,
        (lower, upper): (HashKeyRange, HashKeyRange),
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<Children, LineageError> {
        let parent = self.closable(ordinal, end_offset)?;
        let stays = self.next_ordinal()?;
        let opens = next(stays)?;
        let created_ms = now_ms.max(next_second(parent.created_ms));
        let child = |ordinal_of_child, partition, leader_epoch, start_offset, hash_key_range| Shard {
            ordinal: ordinal_of_child,
            partition,
            leader_epoch,
            start_offset,
            end_offset: None,
            hash_key_range,
            parents: vec![ordinal],
            created_ms,
            closed_ms: None,
        };
        let staying = child(stays, parent.partition, next_epoch(parent.leader_epoch)?, end_offset, lower);
        let (opening, partitions) = match self.dormant.first_key_value() {
            Some((partition, woken)) => {
                let epoch = next_epoch(woken.leader_epoch)?;
                (child(opens, *partition, epoch, woken.end_offset, upper), self.partitions)
            }
            None => {
                let partitions = self.partitions.checked_add(1).ok_or(LineageError::Exhausted)?;
                (child(opens, PartitionIndex(self.partitions), 0, 0, upper), partitions)
            }
        };

        // Nothing below fails, so a refused split has changed nothing.
        self.close(ordinal, end_offset, created_ms);
        self.dormant.remove(&opening.partition);
        self.partitions = partitions;
        self.open(staying);
        self.open(opening);
        Ok(Children { stays, opens })
    }

    /// Closes two open shards whose hash keys meet, in either order, and opens one that owns the keys of both on the
    /// lower of their partitions; the other partition becomes dormant. `end_of` gives the end of a partition's log.
    /// Returns the child.
    pub fn merge(
        &mut self,
        a: ShardOrdinal,
        b: ShardOrdinal,
        end_of: impl Fn(PartitionIndex) -> Offset,
        now_ms: i64,
    ) -> Result<ShardOrdinal, LineageError> {
        let (first, second) = (self.open_shard(a)?, self.open_shard(b)?);
        let joined = first.hash_key_range.joined(&second.hash_key_range);
        let hash_key_range = joined.ok_or(LineageError::NotAdjacent(a, b))?;
        let (stays, leaves) = if first.partition < second.partition { (first, second) } else { (second, first) };
        let (stays_end, leaves_end) = (end_of(stays.partition), end_of(leaves.partition));
        let (stays, leaves) =
            (self.closable(stays.ordinal, stays_end)?.clone(), self.closable(leaves.ordinal, leaves_end)?.clone());
        let created_ms = now_ms.max(next_second(stays.created_ms)).max(next_second(leaves.created_ms));
        let child = Shard {
            ordinal: self.next_ordinal()?,
            partition: stays.partition,
            leader_epoch: next_epoch(stays.leader_epoch)?,
            start_offset: stays_end,
            end_offset: None,
            hash_key_range,
            parents: vec![a, b],
            created_ms,
            closed_ms: None,
        };
        let dormant = Dormant {
            leader_epoch: leaves.leader_epoch,
            end_offset: leaves_end,
            hash_key_range: leaves.hash_key_range,
        };

        // Nothing below fails, so a refused merge has changed nothing.
        self.close(stays.ordinal, stays_end, created_ms);
        self.close(leaves.ordinal, leaves_end, created_ms);
        self.dormant.insert(leaves.partition, dormant);
        let ordinal = child.ordinal;
        self.open(child);
        Ok(ordinal)
    }

    /// Kafka's CreatePartitions: splits the widest open shard at its midpoint (the lowest ordinal first where several are
    /// as wide) until `target` are open, which leaves no partition dormant. `end_offset_of` gives the end of an existing
    /// partition's log.
    pub fn add_partitions(
        &mut self,
        target: u32,
        end_offset_of: impl Fn(PartitionIndex) -> Offset,
        now_ms: i64,
    ) -> Result<Vec<Children>, LineageError> {
        if target <= self.partitions {
            return Err(LineageError::NotAnIncrease { partitions: self.partitions, target });
        }
        let end_of = known_ends(self.partitions, end_offset_of);
        let mut grown = self.clone();
        let mut widest: BinaryHeap<_> =
            self.open_shards().map(|shard| (shard.hash_key_range.span(), Reverse(shard.ordinal.0))).collect();
        let mut splits = Vec::new();
        for _ in self.open_count()..target {
            let (_, Reverse(ordinal)) = widest.pop().ok_or(LineageError::Exhausted)?;
            let end_offset = end_of(grown.open_shard(ShardOrdinal(ordinal))?.partition);
            let children = grown.split(ShardOrdinal(ordinal), SplitAt::Midpoint, end_offset, now_ms)?;
            for child in [children.stays, children.opens] {
                widest.push((grown.open_shard(child)?.hash_key_range.span(), Reverse(child.0)));
            }
            splits.push(children);
        }
        *self = grown;
        Ok(splits)
    }

    /// Kinesis' UpdateShardCount with uniform scaling: afterwards `target` open shards divide the hash keys evenly.
    ///
    /// As at AWS this is made of splits and merges and leaves some shards that lived for a moment. Shards are taken in
    /// the order of their hash keys: each is cut at the boundaries that are missing inside it, the middle one first, and
    /// what has then become complete of the new ranges is merged, so that the partitions which a merge frees serve the
    /// next split. Shards that own a new range already are left alone.
    pub fn scale(
        &mut self,
        target: NonZeroU32,
        end_of: impl Fn(PartitionIndex) -> Offset,
        now_ms: i64,
    ) -> Result<(), LineageError> {
        let end_of = known_ends(self.partitions, end_of);
        let mut scaled = self.clone();
        let wanted: Vec<_> = range::uniform(target).collect();
        let mut merged = 0;
        for old in self.open_shards_by_hash_key() {
            let range = old.hash_key_range;
            let from = wanted.partition_point(|wanted| wanted.start <= range.start);
            let until = wanted.partition_point(|wanted| wanted.start <= range.end);
            scaled.cut_at(old.ordinal, wanted.get(from..until).unwrap_or_default(), &end_of, now_ms)?;
            while let Some(complete) = wanted.get(merged).filter(|wanted| wanted.end <= range.end) {
                scaled.merge_within(complete, &end_of, now_ms)?;
                merged += 1;
            }
        }
        *self = scaled;
        Ok(())
    }

    /// Cuts a shard where each of `ranges` begins. The middle first, so that there are few generations.
    fn cut_at(
        &mut self,
        ordinal: ShardOrdinal,
        ranges: &[HashKeyRange],
        end_of: &impl Fn(PartitionIndex) -> Offset,
        now_ms: i64,
    ) -> Result<(), LineageError> {
        let middle = ranges.len() / 2;
        let (Some(before), Some(at), Some(after)) =
            (ranges.get(..middle), ranges.get(middle), ranges.get(middle + 1..))
        else {
            return Ok(());
        };
        let shard = self.open_shard(ordinal)?;
        let halves = shard.hash_key_range.cut(at.start).ok_or(LineageError::TooNarrow(ordinal))?;
        let children = self.divide(ordinal, halves, end_of(shard.partition), now_ms)?;
        self.cut_at(children.stays, before, end_of, now_ms)?;
        self.cut_at(children.opens, after, end_of, now_ms)
    }

    /// Merges the open shards that begin in `range`, neighbours first, so that there are few generations.
    fn merge_within(
        &mut self,
        range: &HashKeyRange,
        end_of: &impl Fn(PartitionIndex) -> Offset,
        now_ms: i64,
    ) -> Result<(), LineageError> {
        let places = self.open.between(range.start, range.end);
        let mut parts: Vec<_> = places.filter_map(|place| self.shards.get(place)).map(|shard| shard.ordinal).collect();
        while parts.len() > 1 {
            let mut fewer = Vec::with_capacity(parts.len().div_ceil(2));
            for pair in parts.chunks(2) {
                match *pair {
                    [a, b] => fewer.push(self.merge(a, b, end_of, now_ms)?),
                    [alone] => fewer.push(alone),
                    _ => {}
                }
            }
            parts = fewer;
        }
        Ok(())
    }

    fn open_shard(&self, ordinal: ShardOrdinal) -> Result<&Shard, LineageError> {
        let shard = self.shard(ordinal).ok_or(LineageError::NoSuchShard(ordinal))?;
        if shard.is_open() { Ok(shard) } else { Err(LineageError::ShardClosed(ordinal)) }
    }

    /// The open shard, if it can end at `end_offset`.
    fn closable(&self, ordinal: ShardOrdinal, end_offset: Offset) -> Result<&Shard, LineageError> {
        let shard = self.open_shard(ordinal)?;
        let start_offset = shard.start_offset;
        match end_offset < start_offset {
            true => Err(LineageError::EndsBeforeStart { shard: ordinal, start_offset, end_offset }),
            false => Ok(shard),
        }
    }

    fn close(&mut self, ordinal: ShardOrdinal, end_offset: Offset, closed_ms: i64) {
        if let Some(shard) = self.place_of(ordinal).and_then(|place| self.shards.get_mut(place)) {
            shard.end_offset = Some(end_offset);
            shard.closed_ms = Some(closed_ms);
            self.open.remove(shard);
        }
    }

    /// Takes in a shard with the next ordinal.
    fn open(&mut self, shard: Shard) {
        self.open.insert(self.shards.len(), &shard);
        self.shards.push(shard);
    }

    fn next_ordinal(&self) -> Result<ShardOrdinal, LineageError> {
        self.shards.last().map_or(Err(LineageError::Exhausted), |last| next(last.ordinal))
    }
}

/// `end_of` for the partitions that there are now; one that is only about to be opened has no log yet.
fn known_ends(known: u32, end_of: impl Fn(PartitionIndex) -> Offset) -> impl Fn(PartitionIndex) -> Offset {
    move |partition| if partition.0 < known { end_of(partition) } else { 0 }
}

fn next(ordinal: ShardOrdinal) -> Result<ShardOrdinal, LineageError> {
    ordinal
        .0
        .checked_add(1)
        .filter(|next| *next <= ShardOrdinal::MAX.0)
        .map(ShardOrdinal)
        .ok_or(LineageError::Exhausted)
}

fn next_epoch(leader_epoch: i32) -> Result<i32, LineageError> {
    leader_epoch.checked_add(1).ok_or(LineageError::Exhausted)
}

/// The first millisecond of the second after the one that `ms` lies in.
fn next_second(ms: i64) -> i64 {
    ms.div_euclid(1_000).saturating_add(1).saturating_mul(1_000)
}
