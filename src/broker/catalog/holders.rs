//! Whose log takes what is addressed to a partition: follows from the shards, and is told to the partitions when those
//! change and when the broker starts. See `log::dormant`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::log::dormant::Moving;
use crate::log::partition::Partition;
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::shard::Lineage;
use crate::store::Batch;

/// A partition whose holder changes.
pub struct Move {
    partition: Arc<Partition>,
    from: Arc<Partition>,
    to: Arc<Partition>,
    /// Where the log of `to` ends.
    until: Offset,
}

/// What becomes of the partitions' holders when `new` follows `old`. No append may be under way.
pub fn moves(old: &Lineage, new: &Lineage, partitions: &[Arc<Partition>]) -> Vec<Move> {
    let sleepers: BTreeSet<PartitionIndex> = old.dormant().chain(new.dormant()).collect();
    let moved = |index: PartitionIndex| {
        let partition_of = |lineage: &Lineage| {
            let holder = lineage.absorbing(index).map_or(index, |shard| shard.partition);
            partitions.get(holder.0 as usize).cloned()
        };
        let (partition, from, to) = (partitions.get(index.0 as usize)?.clone(), partition_of(old)?, partition_of(new)?);
        let until = to.next_offset();
        (from.id != to.id).then_some(Move { partition, from, to, until })
    };
    sleepers.into_iter().filter_map(moved).collect()
}

/// Tells the partitions of a stream that was loaded; the store knows it.
pub fn restore(lineage: &Lineage, partitions: &[Arc<Partition>]) {
    for index in lineage.dormant() {
        let holder = lineage.absorbing(index).and_then(|shard| partitions.get(shard.partition.0 as usize));
        let partition = partitions.get(index.0 as usize);
        if let (Some(partition), Some(holder)) = (partition, holder) {
            drop(partition.move_to(holder.id.index, holder.next_offset(), &mut Batch::default()));
            holder.take_in(partition);
        }
    }
}

impl Move {
    /// See [`Partition::move_to`].
    pub fn begin(&self, commit: &mut Batch) -> Moving<'_> {
        self.partition.move_to(self.to.id.index, self.until, commit)
    }

    /// Once the change is queued.
    pub fn end(&self) {
        self.from.let_go(&self.partition);
        if self.to.id != self.partition.id {
            self.to.take_in(&self.partition);
        }
    }
}
