//! What RocksDB's memtables hold, as far as commits tell: the store closes them itself, before RocksDB would.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::blobs::{Place, is_apart};
use super::options::Buffers;
use crate::store::{Batch, Family, LOG_ENTRY_OVERHEAD, Op};

/// What was committed since the memtables were last closed.
pub struct Memtables {
    /// Where RocksDB would close them.
    buffers: Buffers,
    log: AtomicUsize,
    meta: AtomicUsize,
}

impl Memtables {
    pub fn new(buffers: Buffers) -> Memtables {
        Memtables { buffers, log: AtomicUsize::new(0), meta: AtomicUsize::new(0) }
    }

    pub fn add(&self, cost: Cost) {
        self.log.fetch_add(cost.log, Ordering::Relaxed);
        self.meta.fetch_add(cost.meta, Ordering::Relaxed);
    }

    pub fn clear(&self) {
        self.log.store(0, Ordering::Relaxed);
        self.meta.store(0, Ordering::Relaxed);
    }

    /// Whether one of them would come near to where RocksDB closes it.
    pub fn are_full_with(&self, cost: Cost) -> bool {
        let full = |held: &AtomicUsize, cost, buffer| held.load(Ordering::Relaxed) + cost > buffer / 10 * 9;
        full(&self.log, cost.log, self.buffers.log) || full(&self.meta, cost.meta, self.buffers.meta)
    }

    /// Whether an epoch has to end for what the log's holds.
    pub fn is_log_filling(&self) -> bool {
        self.log.load(Ordering::Relaxed) >= self.buffers.log / 5 * 4
    }

    /// Whether they are far from full: an epoch may end and they go on.
    pub fn have_room(&self) -> bool {
        let half_free = |held: &AtomicUsize, buffer| held.load(Ordering::Relaxed) < buffer / 2;
        half_free(&self.log, self.buffers.log) && half_free(&self.meta, self.buffers.meta)
    }
}

/// What a batch takes in the memtables, by [`Batch::log_bytes`]'s measure; bytes.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub log: usize,
    pub meta: usize,
}

impl Cost {
    pub fn of(batch: &Batch, apart_from: usize) -> Cost {
        let mut cost = Cost::default();
        for op in &batch.ops {
            match op {
                Op::Put { family: Family::Log, key, value } if is_apart(key, value, apart_from) => {
                    cost.log += key.len() + Place::LEN + LOG_ENTRY_OVERHEAD;
                }
                Op::Put { family, key, value } => {
                    *cost.of_family(*family) += key.len() + value.len() + LOG_ENTRY_OVERHEAD
                }
                Op::Delete { family, key } => *cost.of_family(*family) += key.len() + LOG_ENTRY_OVERHEAD,
                Op::DeleteRange { from, to } => cost.meta += from.len() + to.len() + LOG_ENTRY_OVERHEAD,
            }
        }
        cost
    }

    fn of_family(&mut self, family: Family) -> &mut usize {
        match family {
            Family::Log => &mut self.log,
            Family::Meta => &mut self.meta,
        }
    }
}
