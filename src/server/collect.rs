//! What `/metrics` tells of what exists now: read when someone looks, on a thread that may block.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::ages::Ages;
use crate::group::{GroupType, Groups};
use crate::metrics::{Scrape, TextFormat};
use crate::model::ids::{PartitionIndex, StreamId};
use crate::share::{self, Shares};
use crate::txn::{self, Transactions};

/// Whom a scrape asks.
pub struct Collector {
    pub broker: Arc<Broker>,
    pub groups: Arc<Groups>,
    pub transactions: Arc<Transactions>,
    pub shares: Arc<Shares>,
    /// Memory that the store may take, in bytes.
    pub store_bytes_max: usize,
    pub ages: Ages,
}

impl Collector {
    pub fn text(&self, format: TextFormat) -> String {
        self.broker.metrics().render(format, |scrape| self.collect(scrape))
    }

    fn collect(&self, scrape: &Scrape) {
        scrape.uptime_ms(self.broker.clock().tick_ms());
        self.streams(scrape);
        self.store(scrape);
        self.groups(scrape);
        self.shares(scrape);
        let counts = self.transactions.count();
        for state in txn::state::State::ALL {
            scrape.transactions(state.name(), counts.get(&state).copied().unwrap_or(0));
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let runtime = runtime.metrics();
            scrape.runtime(runtime.num_workers(), runtime.num_alive_tasks(), runtime.global_queue_depth());
        }
    }

    fn streams(&self, scrape: &Scrape) {
        let tick_ms = self.broker.clock().tick_ms();
        for stream in self.broker.streams() {
            let (lineage, attributes) = (stream.lineage(), stream.attributes());
            let is_shard = |shard| lineage.shard(shard).is_some();
            stream.metrics.retain(is_shard, |consumer| attributes.consumer(consumer).is_some());
            let open = lineage.open_count() as usize;
            scrape.stream(&stream.metrics, open, lineage.shards().len() - open, tick_ms);
            for (index, partition) in stream.partitions().iter().enumerate() {
                let extent = partition.extent();
                scrape.partition(&stream.name, index as i32, extent.bytes, extent.log_start, extent.end);
            }
        }
        scrape.retention_behind_ms(self.broker.retention_behind_ms());
    }

    fn store(&self, scrape: &Scrape) {
        let figures = self.broker.figures();
        scrape.store_disk("files", figures.file_bytes);
        scrape.store_disk("wal", figures.wal_bytes);
        scrape.store_memory("memtables", figures.memtable_bytes);
        scrape.store_memory("block_cache", figures.block_cache_bytes);
        scrape.store_memory("table_readers", figures.table_reader_bytes);
        scrape.store_pending(figures.pending_jobs, figures.pending_compaction_bytes);
        scrape.store_stall(figures.delayed_write_rate, figures.write_stopped);
        let used_bytes = figures.memtable_bytes.saturating_add(figures.block_cache_bytes);
        scrape.memory_budget("store", used_bytes, self.store_bytes_max as u64);
        if let Some(volume) = self.broker.look_at_volume() {
            scrape.volume(volume.total_bytes, volume.usable_bytes);
        }
    }

    fn groups(&self, scrape: &Scrape) {
        let counts = self.groups.count();
        for (group_type, state) in GroupType::states() {
            scrape.groups(group_type, state, counts.get(&(group_type, state)).copied().unwrap_or(0));
        }
        let mut lags = Vec::new();
        // The log is not looked at while a group is locked.
        self.groups.visit_committed(|group, topic, partition, committed| {
            lags.push((group.to_owned(), topic.to_owned(), partition, committed));
        });
        let now_ms = self.broker.clock().now_ms();
        let mut look = self.ages.look(&self.broker);
        for (group, topic, index, committed) in lags {
            let log = self.broker.stream(&topic).and_then(|stream| stream.partition(PartitionIndex(index)));
            let Some(log) = log else { continue };
            let lag = (log.end_offset() - committed).max(0);
            let behind_ms = match lag {
                0 => Some(0),
                _ => look.appended_ms(&log, committed).map(|appended_ms| now_ms.saturating_sub(appended_ms).max(0)),
            };
            scrape.group_lag(&group, &topic, index as i32, lag, behind_ms);
        }
    }

    fn shares(&self, scrape: &Scrape) {
        let listed = self.shares.list();
        for state in share::membership::State::ALL {
            let count = listed.iter().filter(|group| group.state == state).count();
            scrape.groups(GroupType::Share.name(), state.name(), count);
        }
        let streams: HashMap<StreamId, _> =
            self.broker.streams().into_iter().map(|stream| (stream.id, stream)).collect();
        self.shares.visit_backlogs(|group, id, backlog| {
            let Some(stream) = streams.get(&id.stream) else { return };
            if let Some(log) = stream.partition(id.index) {
                let (waiting, acquired) = backlog(log.end_offset());
                scrape.share_backlog(group, &stream.name, id.index.0 as i32, waiting, acquired);
            }
        });
    }
}
