//! Ordered keys and values, committed atomically: RocksDB on disk ([`rocks`]) and memory with injected faults
//! ([`memory`]). One contract test (`contract`) runs on both. No RocksDB type leaves this folder.
//!
//! Called by `log` (record batches, from its one writer thread) and, through it, for the catalogue. All calls block;
//! a caller on an async task moves reads that may touch the disk to a blocking thread.
//!
//! Every key and value layout stands in [`keys`].

use bytes::Bytes;

pub mod crypt;
pub mod keys;
pub mod memory;
pub mod rocks;

#[cfg(test)]
mod contract;

/// What is kept apart: `Log` holds record batches and is only ever appended to and dropped by epoch; `Meta` holds the
/// catalogue and everything else that is small and overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Log,
    Meta,
}

/// Changes that happen all or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub ops: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        family: Family,
        key: Bytes,
        value: Bytes,
    },
    Delete {
        family: Family,
        key: Bytes,
    },
    /// Every key in `from..to` (none if `to` is not above `from`). For `Meta` only: the log is dropped by
    /// [`Store::drop_range`].
    DeleteRange {
        from: Bytes,
        to: Bytes,
    },
}

/// Where a scan begins. Both lie inside `floor..end` of the [`Scan`].
#[derive(Clone, Debug)]
pub enum Start {
    /// The first key at or after this one.
    At(Bytes),
    /// The last key at or before `key`, if it is not below `floor`; otherwise the first key after `key`.
    AtOrBefore { key: Bytes, floor: Bytes },
}

/// A bounded page of ascending keys.
#[derive(Clone, Debug)]
pub struct Scan {
    pub family: Family,
    pub start: Start,
    /// Exclusive.
    pub end: Bytes,
    /// The page ends with the entry that reaches either bound, or before the one that would go beyond `bytes_max`; it
    /// holds at least one entry if there is one, whatever the bounds.
    pub entries_max: usize,
    /// Bytes of values.
    pub bytes_max: usize,
}

#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<(Bytes, Bytes)>,
    /// True when a bound ended the page: there may be more entries behind the last one, or none.
    pub more: bool,
    /// The entry that would have gone beyond [`Scan::bytes_max`]: to know its size is to have read it.
    pub beyond: Option<(Bytes, Bytes)>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Certainly not done; the store goes on.
    #[error("not done: {0}")]
    NotDone(String),
    /// May have been done or not: only a restart tells.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// What is stored does not read back.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

/// Figures for `/metrics`; bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    /// Bytes of live files on disk, both families, without the write-ahead log.
    pub file_bytes: u64,
    pub wal_bytes: u64,
    pub memtable_bytes: u64,
    pub block_cache_bytes: u64,
    pub table_reader_bytes: u64,
    /// Flushes and compactions running or waiting.
    pub pending_jobs: u64,
    /// That compactions have still to go through.
    pub pending_compaction_bytes: u64,
    /// To how many bytes a second writes are slowed down; 0: they are not.
    pub delayed_write_rate: u64,
    pub write_stopped: bool,
}

/// The volume that the store is on; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    pub total_bytes: u64,
    /// What this process may still use.
    pub usable_bytes: u64,
}

pub trait Store: Send + Sync + 'static {
    /// Applies `batch` atomically; with `sync` it is on the disk when this returns, else it survives the process only.
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError>;

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    fn scan(&self, scan: &Scan) -> Result<Page, StoreError>;

    /// The most that an epoch holds: bytes of `Log`, as [`Batch::log_bytes`] counts them.
    fn epoch_bytes_max(&self) -> usize;

    /// Whether an epoch of so many bytes is to end, with a [`Store::roll`]. Going a little beyond is harmless; far beyond,
    /// the store closes memtables by itself, in the middle of an epoch, and has to merge the files.
    fn epoch_is_full(&self, epoch_bytes: usize) -> bool;

    /// Closes the current memtables of both families and begins to write them to files, without waiting for it, so that
    /// the write-ahead log behind them can go. The log's epochs end here: its files never overlap. A store that would have
    /// to wait, and has room for more, leaves this to a later roll.
    fn roll(&self) -> Result<(), StoreError>;

    /// Gives the disk space of `from..to` in `Log` back. The caller never reads that range again; keys in it may vanish
    /// at once, later or (those in files that reach beyond the range, or not flushed yet) with a later call. Deletes
    /// files before it returns, 20 ms for each: not for the thread that commits.
    fn drop_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError>;

    fn figures(&self) -> Figures;

    /// None where there is no volume, or the system does not say.
    fn volume(&self) -> Option<Volume>;

    /// Makes everything committed durable and stops background work. No commit may follow.
    fn close(&self) -> Result<(), StoreError>;
}

/// What an entry of [`Family::Log`] costs in memory beyond its key and value: sequence number, lengths, skip list node.
const LOG_ENTRY_OVERHEAD: usize = 48;

impl Batch {
    /// The memory that the puts into [`Family::Log`] will take until they are flushed.
    pub fn log_bytes(&self) -> usize {
        let cost = |op: &Op| match op {
            Op::Put { family: Family::Log, key, value } => key.len() + value.len() + LOG_ENTRY_OVERHEAD,
            _ => 0,
        };
        self.ops.iter().map(cost).sum()
    }

    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put { family, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete { family, key: key.into() });
    }

    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.ops.push(Op::DeleteRange { from: from.into(), to: to.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
