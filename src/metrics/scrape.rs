//! What exists now (partitions, groups, the store), written at each scrape and gone when it is not written again.

use std::cell::Cell;

use prometheus::IntGaugeVec;

use super::declare::Series;
use super::{OTHER, StreamMetrics};

/// Where one scrape writes what exists now.
pub struct Scrape<'a> {
    series: &'a Series,
    label_max: usize,
    partitions: Cell<usize>,
    lags: Cell<usize>,
}

impl<'a> Scrape<'a> {
    pub(super) fn new(series: &'a Series, label_max: usize) -> Scrape<'a> {
        Scrape { series, label_max, partitions: Cell::new(0), lags: Cell::new(0) }
    }

    pub fn uptime_ms(&self, ms: i64) {
        self.series.uptime.set(ms / 1_000);
    }

    /// One stream: how many of its shards are open and closed, and how far behind its readers were lately.
    pub fn stream(&self, stream: &StreamMetrics, open: usize, closed: usize, now_ms: i64) {
        for (state, count) in [("open", open), ("closed", closed)] {
            self.series.stream_shards.with_label_values(&[&*stream.label, state]).add(count as i64);
        }
        stream.write_ages(now_ms);
    }

    /// One partition: bytes it holds, its first offset and the offset of its next record. Those of `_other` are sums.
    pub fn partition(&self, stream: &str, partition: i32, bytes: u64, start_offset: i64, end_offset: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.partitions, stream) { [stream, &number] } else { [OTHER, OTHER] };
        let write = |gauges: &IntGaugeVec, value: i64| gauges.with_label_values(&labels).add(value);
        write(&self.series.partition_bytes, bytes as i64);
        write(&self.series.partition_start, start_offset);
        write(&self.series.partition_end, end_offset);
    }

    /// Records that `group` has not committed on one partition, and the age of the first of them, if it is known. Those of
    /// `_other` are the sum, and the age of the oldest.
    pub fn group_lag(&self, group: &str, stream: &str, partition: i32, records: i64, behind_ms: Option<i64>) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.lags, group) { [group, stream, &number] } else { [OTHER; 3] };
        self.series.group_lag.with_label_values(&labels).add(records);
        if let Some(behind_ms) = behind_ms {
            let gauge = self.series.group_lag_seconds.with_label_values(&labels);
            gauge.set(gauge.get().max(behind_ms as f64 / 1e3));
        }
    }

    /// How much a share group has before it in a partition, and how much of that its members hold.
    pub fn share_backlog(&self, group: &str, stream: &str, partition: i32, records: i64, acquired: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.lags, group) { [group, stream, &number] } else { [OTHER; 3] };
        self.series.share_backlog.with_label_values(&labels).add(records);
        self.series.share_acquired.with_label_values(&labels).add(acquired);
    }

    /// How many transactional ids are in a state, as Kafka spells it.
    pub fn transactions(&self, state: &'static str, count: usize) {
        self.series.transactions.with_label_values(&[state]).set(count as i64);
    }

    /// For how long what is still there has been expired.
    pub fn retention_behind_ms(&self, ms: i64) {
        self.series.retention_behind.set(ms as f64 / 1e3);
    }

    /// The volume of the data folder; bytes.
    pub fn volume(&self, size: u64, free: u64) {
        self.series.volume_size.with_label_values::<&str>(&[]).set(size as i64);
        self.series.volume_free.with_label_values::<&str>(&[]).set(free as i64);
    }

    /// Memory that is bounded; bytes.
    pub fn memory_budget(&self, name: &'static str, used: u64, limit: u64) {
        self.series.memory_used.with_label_values(&[name]).set(used as i64);
        self.series.memory_limit.with_label_values(&[name]).set(limit as i64);
    }

    pub fn runtime(&self, workers: usize, alive_tasks: usize, queued_tasks: usize) {
        self.series.runtime_workers.set(workers as i64);
        self.series.runtime_alive_tasks.set(alive_tasks as i64);
        self.series.runtime_queued_tasks.set(queued_tasks as i64);
    }

    /// How many groups of a type are in a state; both as Kafka spells them.
    pub fn groups(&self, group_type: &'static str, state: &'static str, count: usize) {
        self.series.groups.with_label_values(&[group_type, state]).set(count as i64);
    }

    /// Bytes on disk of one kind (`files`, `wal`).
    pub fn store_disk(&self, kind: &'static str, bytes: u64) {
        self.series.store_disk.with_label_values(&[kind]).set(bytes as i64);
    }

    /// Bytes in memory of one kind (`memtables`, `block_cache`, ...).
    pub fn store_memory(&self, kind: &'static str, bytes: u64) {
        self.series.store_memory.with_label_values(&[kind]).set(bytes as i64);
    }

    /// Flushes and compactions to be done, and bytes that compactions have still to go through.
    pub fn store_pending(&self, jobs: u64, compaction_bytes: u64) {
        self.series.store_pending_jobs.set(jobs as i64);
        self.series.store_compaction_pending.set(compaction_bytes as i64);
    }

    /// To how many bytes a second the store slows down writes (0: it does not), and whether it stops them.
    pub fn store_stall(&self, delayed_bytes_per_s: u64, is_stopped: bool) {
        self.series.store_write_delayed.set(delayed_bytes_per_s as i64);
        self.series.store_write_stopped.set(is_stopped.into());
    }

    /// Whether the next series of a kind may have labels of its own.
    fn has_own(&self, used: &Cell<usize>, name: &str) -> bool {
        let own = used.get() < self.label_max && name != OTHER;
        if own {
            used.set(used.get() + 1);
        }
        own
    }
}
