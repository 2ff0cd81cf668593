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

    /// Records that `group` has not committed on one partition.
    pub fn group_lag(&self, group: &str, stream: &str, partition: i32, records: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.lags, group) { [group, stream, &number] } else { [OTHER; 3] };
        self.series.group_lag.with_label_values(&labels).add(records);
    }

    /// How much a share group has before it in a partition.
    pub fn share_backlog(&self, group: &str, stream: &str, partition: i32, records: i64) {
        let number = partition.to_string();
        let labels = if self.has_own(&self.lags, group) { [group, stream, &number] } else { [OTHER; 3] };
        self.series.share_backlog.with_label_values(&labels).add(records);
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

    pub fn store_pending_jobs(&self, jobs: u64) {
        self.series.store_pending_jobs.set(jobs as i64);
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
