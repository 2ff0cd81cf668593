//! When records were appended, for whoever asks again and again about the same ones: how long consumers are behind, at
//! each look at the metrics.
//!
//! A look goes into the store for at most [`COLD_LOOKS_MAX`] records that it has not been asked about before. Of the
//! others it tells when their segment was begun, which is no later. What was asked in one look is remembered for the
//! next, and nothing else is.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::log::partition::{Hot, Partition};
use crate::model::ids::{Offset, PartitionId};

/// Records of one look that are read from the store.
const COLD_LOOKS_MAX: usize = 200;

type Known = HashMap<(PartitionId, Offset), i64>;

#[derive(Default)]
pub struct Ages(Mutex<Known>);

/// One look. What it was asked is remembered when it ends.
pub struct Look<'a> {
    ages: &'a Ages,
    broker: &'a Broker,
    before: Known,
    asked: Known,
    cold: usize,
}

impl Ages {
    pub fn look<'a>(&'a self, broker: &'a Broker) -> Look<'a> {
        Look { ages: self, broker, before: std::mem::take(&mut self.0.lock()), asked: Known::new(), cold: 0 }
    }
}

impl Look<'_> {
    /// When the first record at or after `offset` was appended, or somewhat before; `None` where there is none. Blocks.
    pub fn appended_ms(&mut self, partition: &Arc<Partition>, offset: Offset) -> Option<i64> {
        let offset = offset.max(partition.log_start());
        let key = (partition.id, offset);
        if let Some(known) = self.before.get(&key).or_else(|| self.asked.get(&key)).copied() {
            self.asked.insert(key, known);
            return Some(known);
        }
        let end = partition.end_offset();
        let batches = match partition.read_hot(offset, end, 0).ok()? {
            Hot::Batches(batches) => batches,
            Hot::Cold if self.cold < COLD_LOOKS_MAX => {
                self.cold += 1;
                partition.read_cold(&*self.broker.store, &self.broker.keys, Vec::new(), offset, end, 0).ok()?.batches
            }
            Hot::Cold => return partition.segment_begun_ms(offset),
        };
        let appended_ms = batches.first()?.append_time_ms();
        self.asked.insert(key, appended_ms);
        Some(appended_ms)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        *self.ages.0.lock() = std::mem::take(&mut self.asked);
    }
}
