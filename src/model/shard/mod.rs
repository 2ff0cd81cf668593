//! Shards and their lineage: which span of which partition's log owns which hash keys, and since when.
//!
//! A shard is a generation of a partition: its records are `start_offset..end_offset` of that partition's log, and the
//! partition's leader epoch is the shard's. Owned by the stream (`broker` keeps one [`Lineage`] per stream, stored as
//! JSON, and changes it under the stream's lock); pure, so the caller brings offsets and the time.
//!
//! - `range`: hash-key ranges
//! - `reshard`: split, merge, scale, add partitions: everything that changes a lineage but `forget`
//! - `open`: the open shards by hash key and by partition
//!
//! Invariants, held by [`Lineage::uniform`] and everything that changes a lineage:
//! - The open shards cover the hash keys `0..2^128`, each key once.
//! - Ordinals are never reused and ascend in the list. (The highest ordinal is always open, because whatever closes a
//!   shard opens a higher one; so forgetting closed shards frees no ordinal.)
//! - A partition has one open shard, or none: then it is *dormant*, no record is appended to its log (ends of transactions
//!   may be: [`Lineage::extend_dormant`]), and the open shard that owns the first of the hash keys it had takes what is
//!   addressed to it. The next split wakes it.
//! - A partition's leader epochs only grow, also across sleep and forgetting, with start offsets that never go back; its
//!   generations meet, but for what was appended to a sleeping log. The number of partitions never shrinks.
//! - A child's creation second is later than its parents', so that sequence numbers, which begin with that second, sort
//!   across a reshard. Several reshards within one second therefore run ahead of the clock, a second each.
//!
//! Sources: Kinesis API reference (SplitShard, MergeShards, UpdateShardCount, HashKeyRange), KIP-101 and KIP-320 (leader
//! epochs).

mod open;
mod range;
mod reshard;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use self::open::OpenShards;
use super::ids::{Offset, PartitionIndex, ShardOrdinal};
use super::sequence_number::SequenceNumber;

pub use range::HashKeyRange;
pub use reshard::{Children, LineageError, SplitAt};

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
    /// None, the one that was split, or the two that were merged in the order in which they were named. They may have
    /// been forgotten.
    pub parents: Vec<ShardOrdinal>,
    pub created_ms: i64,
    /// `None` while the shard is open.
    pub closed_ms: Option<i64>,
}

/// Every shard of a stream, closed ones too, and the number of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Lineage {
    /// Ascending by ordinal.
    shards: Vec<Shard>,
    partitions: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dormant: BTreeMap<PartitionIndex, Dormant>,
    #[serde(skip)]
    open: OpenShards,
}

/// A partition without an open shard: what its last generation left, which outlives that generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Dormant {
    leader_epoch: i32,
    /// The end of its log, as far as it was told.
    end_offset: Offset,
    /// The first hash key it owned, as a range so that JSON keeps it in decimal.
    hash_key_range: HashKeyRange,
}

#[derive(Deserialize)]
struct Stored {
    shards: Vec<Shard>,
    partitions: u32,
    #[serde(default)]
    dormant: BTreeMap<PartitionIndex, Dormant>,
}

impl Shard {
    pub fn is_open(&self) -> bool {
        self.end_offset.is_none()
    }

    /// The number of the record at `offset`, which was appended at `append_ms`.
    pub fn sequence_number(&self, offset: Offset, append_ms: i64) -> SequenceNumber {
        self.number(offset.saturating_add(1), append_ms)
    }

    /// Lies before the number of the shard's first record.
    pub fn starting_sequence_number(&self) -> SequenceNumber {
        self.number(self.start_offset, self.created_ms)
    }

    /// Lies after the number of the shard's last record; `None` while the shard is open.
    pub fn ending_sequence_number(&self) -> Option<SequenceNumber> {
        let closed_ms = self.closed_ms.unwrap_or(self.created_ms);
        self.end_offset.map(|end_offset| self.number(end_offset.saturating_add(1), closed_ms))
    }

    fn number(&self, position: i64, append_ms: i64) -> SequenceNumber {
        let created_s = second_of(self.created_ms);
        SequenceNumber {
            created_s,
            position: u64::try_from(position).unwrap_or_default(),
            append_s: second_of(append_ms).max(created_s),
            ordinal: self.ordinal.0,
        }
    }
}

fn second_of(ms: i64) -> u64 {
    u64::try_from(ms.div_euclid(1_000)).unwrap_or_default()
}

impl Lineage {
    /// `partitions` open shards that divide the hash keys evenly, as a new Kinesis stream has them: each begins at a
    /// multiple of 2^128 / `partitions` rounded down, and the last takes the rest.
    pub fn uniform(partitions: NonZeroU32, now_ms: i64) -> Lineage {
        let shards: Vec<_> = (0..)
            .zip(range::uniform(partitions))
            .map(|(index, hash_key_range)| Shard {
                ordinal: ShardOrdinal(index),
                partition: PartitionIndex(index),
                leader_epoch: 0,
                start_offset: 0,
                end_offset: None,
                hash_key_range,
                parents: Vec::new(),
                created_ms: now_ms,
                closed_ms: None,
            })
            .collect();
        let open = OpenShards::of(&shards);
        Lineage { shards, partitions: partitions.get(), dormant: BTreeMap::new(), open }
    }

    /// Every shard, ascending by ordinal.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// How many partitions the stream has, dormant ones too: Kafka's partition count.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Whether no shard was ever split or merged: each log holds what was addressed to its partition, and nothing else.
    pub fn is_original(&self) -> bool {
        // Every split and every merge takes more ordinals than it adds partitions.
        self.shards.last().is_some_and(|last| last.ordinal.0 + 1 == self.partitions)
    }

    pub fn shard(&self, ordinal: ShardOrdinal) -> Option<&Shard> {
        self.place_of(ordinal).and_then(|place| self.shards.get(place))
    }

    /// Ascending by ordinal.
    pub fn open_shards(&self) -> impl DoubleEndedIterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.is_open())
    }

    /// Ascending by hash key.
    pub fn open_shards_by_hash_key(&self) -> impl DoubleEndedIterator<Item = &Shard> {
        self.open.between(0, u128::MAX).filter_map(|place| self.shards.get(place))
    }

    pub fn open_count(&self) -> u32 {
        self.open.count() as u32
    }

    /// The partition's own open shard; `None` for a dormant partition and one that there is not.
    pub fn open_shard_on(&self, partition: PartitionIndex) -> Option<&Shard> {
        self.open.on(partition).and_then(|place| self.shards.get(place))
    }

    /// The open shard that owns `hash_key`. `None` only for a lineage that was stored wrong.
    pub fn shard_for_hash_key(&self, hash_key: u128) -> Option<&Shard> {
        let shard = self.shards.get(self.open.covering(hash_key)?)?;
        shard.hash_key_range.contains(hash_key).then_some(shard)
    }

    /// The open shard that takes what is addressed to the partition: its own, or for a dormant one the shard that owns
    /// the first hash key it had. `None` if there is no such partition.
    pub fn absorbing(&self, partition: PartitionIndex) -> Option<&Shard> {
        match self.dormant.get(&partition) {
            Some(dormant) => self.shard_for_hash_key(dormant.hash_key_range.start),
            None => self.open_shard_on(partition),
        }
    }

    pub fn is_dormant(&self, partition: PartitionIndex) -> bool {
        self.dormant.contains_key(&partition)
    }

    /// Partitions without an open shard, ascending.
    pub fn dormant(&self) -> impl DoubleEndedIterator<Item = PartitionIndex> {
        self.dormant.keys().copied()
    }

    /// The shards that go on with the hash keys of `ordinal`, ascending: two after a split, one after a merge, none while
    /// it is open. They may be closed, or forgotten.
    pub fn children(&self, ordinal: ShardOrdinal) -> impl Iterator<Item = &Shard> {
        let later = self.shards.partition_point(|shard| shard.ordinal <= ordinal);
        self.shards.iter().skip(later).filter(move |shard| shard.parents.contains(&ordinal))
    }

    /// The partition's latest leader epoch; `None` if there is no such partition.
    pub fn leader_epoch(&self, partition: PartitionIndex) -> Option<i32> {
        match self.dormant.get(&partition) {
            Some(dormant) => Some(dormant.leader_epoch),
            None => self.open_shard_on(partition).map(|shard| shard.leader_epoch),
        }
    }

    /// Of every partition, in their order.
    pub fn leader_epochs(&self) -> Vec<i32> {
        (0..self.partitions).map(|index| self.leader_epoch(PartitionIndex(index)).unwrap_or_default()).collect()
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
        match self.leader_epoch(partition) {
            Some(latest) if epoch == latest => return (epoch, log_end),
            Some(latest) if (0..latest).contains(&epoch) => {}
            Some(_) | None => return UNKNOWN,
        }
        let mut floor = None;
        for (known, start_offset, _) in self.epochs(partition) {
            if known > epoch {
                return (floor.unwrap_or(epoch), start_offset);
            }
            floor = Some(known);
        }
        // A dormant partition whose later generations are forgotten: they held nothing that is still there.
        (floor.unwrap_or(epoch), log_end)
    }

    /// Takes in where the logs of sleeping partitions end by now, so that their next generations begin there. What stands
    /// between two generations is no shard's, and of the leader epoch of the one before.
    pub fn extend_dormant(&mut self, end_of: impl Fn(PartitionIndex) -> Offset) {
        for (partition, dormant) in &mut self.dormant {
            dormant.end_offset = dormant.end_offset.max(end_of(*partition));
        }
    }

    /// Drops the closed shards that `gone` says hold nothing any more; tells whether there were any. A partition that
    /// sleeps keeps its leader epoch and its place.
    pub fn forget(&mut self, gone: impl Fn(&Shard) -> bool) -> bool {
        let before = self.shards.len();
        self.shards.retain(|shard| shard.is_open() || !gone(shard));
        let forgot = self.shards.len() < before;
        if forgot {
            self.open = OpenShards::of(&self.shards);
        }
        forgot
    }

    fn place_of(&self, ordinal: ShardOrdinal) -> Option<usize> {
        self.shards.binary_search_by_key(&ordinal, |shard| shard.ordinal).ok()
    }
}

impl TryFrom<Stored> for Lineage {
    type Error = String;

    /// Refuses what nothing here ever stored, where it would mislead everything else.
    fn try_from(stored: Stored) -> Result<Lineage, String> {
        let Stored { shards, partitions, dormant } = stored;
        if !shards.is_sorted_by(|a, b| a.ordinal < b.ordinal) {
            return Err("ordinals of shards do not ascend".to_owned());
        }
        if shards.iter().any(|shard| shard.partition.0 >= partitions) {
            return Err("a shard lies on a partition that there is not".to_owned());
        }
        let open = OpenShards::of(&shards);
        let astray = (0..partitions).map(PartitionIndex).find(|p| open.on(*p).is_some() == dormant.contains_key(p));
        if let Some(partition) = astray {
            return Err(format!("partition {} is not either dormant or open", partition.0));
        }
        Ok(Lineage { shards, partitions, dormant, open })
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
