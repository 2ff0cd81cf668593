//! The store on disk: one RocksDB in the data folder, with a column family for each [`Family`].
//!
//! Owns the folder (see [`folder`]) and how RocksDB is set up (see [`options`]); called through [`Store`] only. Commits come
//! from one thread, reads from any.
//!
//! What it rests on:
//! - The epoch leads every key of the log and the log is rolled with it, so that no two files of the log overlap: RocksDB
//!   moves them down its levels without reading them, and a range of epochs is dropped by deleting files.
//! - After a failed commit RocksDB may hold part of it in its write-ahead log. So the first failure stops all later
//!   commits: what was acknowledged has no hole in front of it.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, ErrorKind, FlushOptions, ReadOptions, WriteBatch,
    WriteOptions, properties,
};

use super::{Batch, Family, Figures, Op, Page, Scan, Start, Store, StoreError, Volume};
use folder::FolderLock;
pub use folder::Released;
pub use options::RocksOptions;

mod folder;
mod options;
#[cfg(test)]
mod tests;

const LOG: &str = "log";
const META: &str = "meta";
const FAMILIES: [&str; 2] = [LOG, META];

/// Where RocksDB begins to read: what has none is not its folder.
const CURRENT_FILE: &str = "CURRENT";

/// More than any key of the log holds: [`super::keys::Key::Batch`] has 20.
const LOG_KEY_BYTES_MAX: usize = 32;

pub struct RocksStore {
    db: DB,
    write_buffer_bytes: usize,
    /// Why no more commits are taken.
    stopped: Mutex<Option<String>>,
    /// Released after `db` is closed: fields drop in this order. None where there is no lock file and nothing is written.
    lock: Option<FolderLock>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store of this one) has the folder open.
    #[error("the data folder is in use{}", .pid.map_or_else(String::new, |pid| format!(" by process {pid}")))]
    Held { pid: Option<u32> },
    #[error("cannot use the data folder {}: {reason}", .folder.display())]
    Unusable { folder: PathBuf, reason: String },
}

impl RocksStore {
    /// Opens the store in `dir`, which is made if it is missing; an empty folder becomes an empty store. After a crash
    /// this replays the write-ahead log.
    pub fn open(dir: &Path, options: RocksOptions) -> Result<RocksStore, OpenError> {
        let unusable = |reason: String| OpenError::Unusable { folder: dir.to_path_buf(), reason };
        fs::create_dir_all(dir).map_err(|error| unusable(error.to_string()))?;
        let lock = FolderLock::acquire(dir)?;
        let setup = options::Setup::new(&options).map_err(|error| unusable(error.into_string()))?;
        let families =
            [(LOG, setup.log), (META, setup.meta)].map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let db = DB::open_cf_descriptors(&setup.db, dir, families).map_err(|error| unusable(error.into_string()))?;
        let missing = FAMILIES.into_iter().find(|name| db.cf_handle(name).is_none());
        if let Some(name) = missing {
            return Err(unusable(format!("it has no column family {name}")));
        }
        Ok(RocksStore { db, write_buffer_bytes: setup.write_buffer_bytes, stopped: Mutex::new(None), lock: Some(lock) })
    }

    /// Opens what a broker has left in `dir`, to be read only: not a byte of the folder changes. What the write-ahead log
    /// holds is read into memory, which takes as much as a broker's memtables, and stays where it is. Every commit is
    /// refused.
    pub fn open_read_only(dir: &Path) -> Result<RocksStore, OpenError> {
        let unusable = |reason: String| OpenError::Unusable { folder: dir.to_path_buf(), reason };
        if !dir.join(CURRENT_FILE).is_file() {
            return Err(unusable("no broker has written in it".to_owned()));
        }
        let lock = FolderLock::share(dir)?;
        let setup = options::Setup::to_read().map_err(|error| unusable(error.into_string()))?;
        let families =
            [(LOG, setup.log), (META, setup.meta)].map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let db = DB::open_cf_descriptors_read_only(&setup.db, dir, families, false)
            .map_err(|error| unusable(error.into_string()))?;
        Ok(RocksStore { db, write_buffer_bytes: setup.write_buffer_bytes, stopped: Mutex::new(None), lock })
    }

    /// When the folder is free again: once the last who reads or writes here has let go of this store. None where it was
    /// opened to be read only.
    pub fn released(&self) -> Option<Released> {
        self.lock.as_ref().map(FolderLock::released)
    }

    pub fn write_buffer_bytes(&self) -> usize {
        self.write_buffer_bytes
    }

    /// `open` has seen both families, and none is ever dropped.
    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let name = match family {
            Family::Log => LOG,
            Family::Meta => META,
        };
        self.db.cf_handle(name).ok_or_else(|| StoreError::Corrupt(format!("no column family {name}")))
    }

    fn write_batch(&self, batch: &Batch) -> Result<WriteBatch, StoreError> {
        let (log, meta) = (self.family(Family::Log)?, self.family(Family::Meta)?);
        let of = |family| match family {
            Family::Log => log,
            Family::Meta => meta,
        };
        let mut out = WriteBatch::with_capacity_bytes(batch.ops.iter().map(encoded_bytes).sum::<usize>() + 16);
        for op in &batch.ops {
            match op {
                Op::Put { family, key, value } => out.put_cf(of(*family), key, value),
                Op::Delete { family, key } => out.delete_cf(of(*family), key),
                Op::DeleteRange { from, to } if from < to => out.delete_range_cf(meta, from, to),
                Op::DeleteRange { .. } => {}
            }
        }
        Ok(out)
    }

    /// Takes note of a failed write: everything after it is refused.
    fn stop(&self, error: rocksdb::Error) -> StoreError {
        let error = commit_error(error);
        if !matches!(error, StoreError::NotDone(_)) {
            tracing::error!(%error, "the store takes no more commits until it is opened again");
            self.stopped.lock().get_or_insert_with(|| error.to_string());
        }
        error
    }

    fn iterator(&self, family: Family, floor: &[u8], end: &[u8]) -> Result<DBRawIterator<'_>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(floor);
        options.set_iterate_upper_bound(end);
        options.fill_cache(family != Family::Log);
        // No readahead size: RocksDB would read through a buffer of its own and copy everything once more. Without one it
        // has the system read ahead.
        Ok(self.db.raw_iterator_cf_opt(self.family(family)?, options))
    }

    /// An iterator at the first entry of `scan`.
    fn seek(&self, scan: &Scan) -> Result<DBRawIterator<'_>, StoreError> {
        let (key, floor) = match &scan.start {
            Start::At(key) => (key, key),
            Start::AtOrBefore { key, floor } => (key, floor.min(key)),
        };
        let mut iterator = self.iterator(scan.family, floor, &scan.end)?;
        iterator.seek(key);
        // A reader that goes on where it stopped asks for a key that is there. Any other has to look backwards.
        if matches!(scan.start, Start::AtOrBefore { .. }) && floor < key && iterator.key() != Some(&key[..]) {
            iterator.seek_for_prev(key);
            if !iterator.valid() {
                iterator.status().map_err(read_error)?;
                iterator.seek(key);
            }
        }
        Ok(iterator)
    }

    /// Bytes of the write-ahead log's files, those kept for recycling included.
    fn wal_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.db.path()) else { return 0 };
        let files = entries.flatten().filter(|entry| Path::new(&entry.file_name()).extension() == Some("log".as_ref()));
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

impl Store for RocksStore {
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        if let Some(why) = &*self.stopped.lock() {
            return Err(StoreError::NotDone(format!("the store stopped: {why}")));
        }
        if batch.is_empty() {
            return if sync { self.db.flush_wal(true).map_err(|error| self.stop(error)) } else { Ok(()) };
        }
        let mut options = WriteOptions::new();
        options.set_sync(sync);
        self.db.write_opt(self.write_batch(batch)?, &options).map_err(|error| self.stop(error))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(family != Family::Log);
        let found = self.db.get_pinned_cf_opt(self.family(family)?, key, &options).map_err(read_error)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, scan: &Scan) -> Result<Page, StoreError> {
        let mut iterator = self.seek(scan)?;
        let mut page = Page::default();
        let mut bytes = 0;
        while let Some((key, value)) = iterator.item() {
            bytes += value.len();
            let entry = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            if bytes > scan.bytes_max && !page.entries.is_empty() {
                page.more = true;
                page.beyond = Some(entry);
                break;
            }
            page.entries.push(entry);
            if page.entries.len() >= scan.entries_max || bytes >= scan.bytes_max {
                page.more = true;
                break;
            }
            iterator.next();
        }
        iterator.status().map_err(read_error)?;
        Ok(page)
    }

    fn epoch_bytes_max(&self) -> usize {
        self.write_buffer_bytes / 5 * 4
    }

    fn roll(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        let families = [self.family(Family::Log)?, self.family(Family::Meta)?];
        self.db.flush_cfs_opt(&families, &options).map_err(|error| StoreError::NotDone(error.into_string()))
    }

    fn drop_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let Some(last) = last_below(to) else { return Ok(()) };
        if from >= &last[..] {
            return Ok(());
        }
        let log = self.family(Family::Log)?;
        self.db.delete_file_in_range_cf(log, from, &last).map_err(|error| StoreError::NotDone(error.into_string()))
    }

    fn figures(&self) -> Figures {
        let sum = |name: &properties::PropName| {
            let handles = FAMILIES.iter().filter_map(|family| self.db.cf_handle(family));
            handles.filter_map(|handle| self.db.property_int_value_cf(handle, name).ok().flatten()).sum::<u64>()
        };
        let whole = |name: &properties::PropName| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        Figures {
            file_bytes: sum(properties::LIVE_SST_FILES_SIZE),
            wal_bytes: self.wal_bytes(),
            memtable_bytes: sum(properties::SIZE_ALL_MEM_TABLES),
            block_cache_bytes: whole(properties::BLOCK_CACHE_USAGE),
            table_reader_bytes: sum(properties::ESTIMATE_TABLE_READERS_MEM),
            pending_jobs: whole(properties::NUM_RUNNING_FLUSHES)
                + whole(properties::NUM_RUNNING_COMPACTIONS)
                + sum(properties::MEM_TABLE_FLUSH_PENDING)
                + sum(properties::COMPACTION_PENDING),
            pending_compaction_bytes: sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            delayed_write_rate: whole(properties::ACTUAL_DELAYED_WRITE_RATE),
            write_stopped: whole(properties::IS_WRITE_STOPPED) != 0,
        }
    }

    fn volume(&self) -> Option<Volume> {
        folder::volume(self.db.path())
    }

    fn close(&self) -> Result<(), StoreError> {
        let families = [self.family(Family::Log)?, self.family(Family::Meta)?];
        // Files instead of a write-ahead log to replay: the next start is quicker. Only the sync below is owed.
        if let Err(error) = self.db.flush_cfs_opt(&families, &FlushOptions::default()) {
            tracing::warn!(%error, "could not write out the memtables; the write-ahead log has them");
        }
        let synced = self.db.flush_wal(true).map_err(|error| self.stop(error));
        self.db.cancel_all_background_work(true);
        synced
    }
}

fn encoded_bytes(op: &Op) -> usize {
    let bytes = match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete { key, .. } => key.len(),
        Op::DeleteRange { from, to } => from.len() + to.len(),
    };
    // A tag, the family and two lengths.
    bytes + 12
}

/// The highest possible key of the log below `to`, because RocksDB takes both ends of a range of files as included.
fn last_below(to: &[u8]) -> Option<Vec<u8>> {
    let (last, rest) = to.split_last()?;
    let mut below = rest.to_vec();
    if *last > 0 {
        below.push(*last - 1);
        below.resize(LOG_KEY_BYTES_MAX.max(to.len()), u8::MAX);
    }
    Some(below)
}

/// A write that RocksDB refused before it began certainly did not happen; one that broke off may have.
fn commit_error(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Corruption => StoreError::Corrupt(error.into_string()),
        ErrorKind::InvalidArgument | ErrorKind::NotSupported | ErrorKind::ShutdownInProgress => {
            StoreError::NotDone(error.into_string())
        }
        _ => StoreError::Unknown(error.into_string()),
    }
}

fn read_error(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Corruption => StoreError::Corrupt(error.into_string()),
        _ => StoreError::NotDone(error.into_string()),
    }
}
