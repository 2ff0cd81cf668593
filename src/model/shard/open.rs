//! Which shards are open, found by hash key and by partition without a walk over all there ever were. Derived from the
//! list of shards: never stored, kept in step by [`Lineage`](super::Lineage) alone.

use std::collections::BTreeMap;

use super::Shard;
use crate::model::ids::PartitionIndex;

/// Places in the list of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenShards {
    /// By the first hash key.
    by_hash_key: BTreeMap<u128, usize>,
    /// By partition; a dormant one has none.
    by_partition: BTreeMap<PartitionIndex, usize>,
}

impl OpenShards {
    pub fn of(shards: &[Shard]) -> OpenShards {
        let mut open = OpenShards::default();
        for (place, shard) in shards.iter().enumerate().filter(|(_, shard)| shard.is_open()) {
            open.insert(place, shard);
        }
        open
    }

    pub fn insert(&mut self, place: usize, shard: &Shard) {
        self.by_hash_key.insert(shard.hash_key_range.start, place);
        self.by_partition.insert(shard.partition, place);
    }

    pub fn remove(&mut self, shard: &Shard) {
        self.by_hash_key.remove(&shard.hash_key_range.start);
        self.by_partition.remove(&shard.partition);
    }

    pub fn count(&self) -> usize {
        self.by_hash_key.len()
    }

    /// The one whose range begins at or before `hash_key` and nearest to it.
    pub fn covering(&self, hash_key: u128) -> Option<usize> {
        self.by_hash_key.range(..=hash_key).next_back().map(|(_, place)| *place)
    }

    pub fn on(&self, partition: PartitionIndex) -> Option<usize> {
        self.by_partition.get(&partition).copied()
    }

    /// Those that begin in `start..=end`, ascending by hash key.
    pub fn between(&self, start: u128, end: u128) -> impl DoubleEndedIterator<Item = usize> {
        self.by_hash_key.range(start..=end).map(|(_, place)| *place)
    }
}
