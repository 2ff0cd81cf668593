//! The store on disk: one RocksDB in the data folder, with a column family for each [`Family`].
//!
//! Owns the folder (see [`folder`]) and how RocksDB is set up (see [`options`]); called through [`Store`] only. Commits come
//! from one thread, reads from any.
//!
//! What it rests on:
//! - The epoch leads every key of the log and the log is rolled with it, so that no two files of the log overlap: RocksDB
//!   moves them down its levels without reading them, and a range of epochs is dropped by deleting files.
//! - Large values of the log do not go through RocksDB: it holds their places (see [`blobs`]). No memtable is flushed before
//!   the values it has places of are on the disk. RocksDB would do so by itself when one is full: it never gets that far.
//! - After a failed commit RocksDB may hold part of it in its write-ahead log. So the first failure stops all later
//!   commits: what was acknowledged has no hole in front of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, ErrorKind, FlushOptions, ReadOptions, WriteBatch,
    WriteOptions, properties,
};

use super::{Batch, Family, Figures, Op, Page, Scan, Start, Store, StoreError, Volume};
use blobs::Blobs;
use folder::FolderLock;
pub use folder::Released;
use memtables::{Cost, Memtables};
use options::Buffers;
pub use options::RocksOptions;
use page::{Found, lost_value, place_of};

mod blobs;
mod folder;
mod memtables;
mod options;
mod page;
#[cfg(test)]
mod tests;
mod wal;

const LOG: &str = "log";
const META: &str = "meta";
const FAMILIES: [&str; 2] = [LOG, META];

/// Where RocksDB begins to read: what has none is not its folder.
const CURRENT_FILE: &str = "CURRENT";

/// More than any key of the log holds: [`super::keys::Key::Batch`] has 20.
const LOG_KEY_BYTES_MAX: usize = 32;

/// What a roll waits for to be on the disk. Where there is more, the disk is behind for the moment, and the memtables, which
/// hold little but places then, go on.
const ROLL_WAITS_BYTES_MAX: u64 = 16 << 20;
/// An epoch of values that stand apart holds this many write buffers: the longer it is, the longer are the runs in which
/// a partition is read.
const EPOCH_BUFFERS: usize = 4;

pub struct RocksStore {
    db: DB,
    blobs: Blobs,
    buffers: Buffers,
    memtables: Memtables,
    /// Held by who commits or closes memtables, so that what is committed between a sync and a flush is not flushed.
    turn: Mutex<()>,
    /// Files of values below this number have all their places in memtables that were closed.
    rolled_to: AtomicU32,
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
        let blobs = recovered_blobs(dir).map_err(|error| unusable(error.to_string()))?;
        let setup = options::Setup::new(&options).map_err(|error| unusable(error.into_string()))?;
        let families =
            [(LOG, setup.log), (META, setup.meta)].map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        let db = DB::open_cf_descriptors(&setup.db, dir, families).map_err(|error| unusable(error.into_string()))?;
        let missing = FAMILIES.into_iter().find(|name| db.cf_handle(name).is_none());
        if let Some(name) = missing {
            return Err(unusable(format!("it has no column family {name}")));
        }
        Ok(RocksStore::new(db, blobs, setup.buffers, Some(lock)))
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
        let blobs = Blobs::find(dir).map_err(|error| unusable(error.to_string()))?;
        Ok(RocksStore::new(db, blobs, setup.buffers, lock))
    }

    fn new(db: DB, blobs: Blobs, buffers: Buffers, lock: Option<FolderLock>) -> RocksStore {
        RocksStore {
            db,
            buffers,
            memtables: Memtables::new(buffers),
            turn: Mutex::new(()),
            // What was replayed has been flushed.
            rolled_to: AtomicU32::new(blobs.next()),
            blobs,
            stopped: Mutex::new(None),
            lock,
        }
    }

    /// When the folder is free again: once the last who reads or writes here has let go of this store. None where it was
    /// opened to be read only.
    pub fn released(&self) -> Option<Released> {
        self.lock.as_ref().map(FolderLock::released)
    }

    pub fn write_buffer_bytes(&self) -> usize {
        self.buffers.log
    }

    /// `open` has seen both families, and none is ever dropped.
    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let name = match family {
            Family::Log => LOG,
            Family::Meta => META,
        };
        self.db.cf_handle(name).ok_or_else(|| StoreError::Corrupt(format!("no column family {name}")))
    }

    /// What RocksDB gets of `batch`, for which its large values are written here.
    fn write_batch(&self, batch: &Batch, apart_from: usize, cost: Cost) -> Result<WriteBatch, StoreError> {
        let (log, meta) = (self.family(Family::Log)?, self.family(Family::Meta)?);
        let of = |family| match family {
            Family::Log => log,
            Family::Meta => meta,
        };
        let mut out = WriteBatch::with_capacity_bytes(cost.log + cost.meta + 16);
        for op in &batch.ops {
            match op {
                Op::Put { family: Family::Log, key, value } if blobs::is_apart(key, value, apart_from) => {
                    let place =
                        self.blobs.append(key, value).map_err(|error| StoreError::NotDone(error.to_string()))?;
                    out.put_cf(log, key, place);
                }
                Op::Put { family, key, value } => out.put_cf(of(*family), key, value),
                Op::Delete { family, key } => out.delete_cf(of(*family), key),
                Op::DeleteRange { from, to } if from < to => out.delete_range_cf(meta, from, to),
                Op::DeleteRange { .. } => {}
            }
        }
        Ok(out)
    }

    fn sync_blobs(&self) -> Result<(), StoreError> {
        self.blobs.sync().map_err(|error| self.stop(StoreError::Unknown(error.to_string())))
    }

    /// Closes the memtables before `cost` would fill one, should values of theirs not be on the disk yet.
    fn make_room(&self, cost: Cost) -> Result<(), StoreError> {
        if self.memtables.are_full_with(cost) && self.blobs.unsynced_bytes() > 0 {
            self.close_memtables(self.blobs.current())?;
        }
        Ok(())
    }

    /// Syncs the values that the memtables have places of, then has these flushed. They hold all places in files below
    /// `rolled_to`. Called by who has the `turn`.
    fn close_memtables(&self, rolled_to: u32) -> Result<(), StoreError> {
        self.sync_blobs()?;
        let mut options = FlushOptions::default();
        options.set_wait(false);
        let families = [self.family(Family::Log)?, self.family(Family::Meta)?];
        self.db.flush_cfs_opt(&families, &options).map_err(|error| StoreError::NotDone(error.into_string()))?;
        self.memtables.clear();
        self.rolled_to.fetch_max(rolled_to, Ordering::AcqRel);
        Ok(())
    }

    /// Closes the memtables so that files of values below `number` can go once they are flushed.
    fn close_memtables_below(&self, number: u32) -> Result<(), StoreError> {
        if self.rolled_to.load(Ordering::Acquire) >= number.min(self.blobs.current()) {
            return Ok(());
        }
        // Most of it while others commit, the rest while they wait.
        self.sync_blobs()?;
        let _turn = self.turn.lock();
        self.close_memtables(self.blobs.current())
    }

    /// The number below which no file of values is needed to replay the write-ahead log.
    fn flushed_to(&self) -> u32 {
        let rolled_to = self.rolled_to.load(Ordering::Acquire);
        let waiting = FAMILIES.iter().filter_map(|family| self.db.cf_handle(family)).any(|family| {
            let memtables = self.db.property_int_value_cf(family, properties::NUM_IMMUTABLE_MEM_TABLE);
            !matches!(memtables, Ok(Some(0)))
        });
        if waiting { 0 } else { rolled_to }
    }

    /// Takes note of a failed write: everything after it is refused.
    fn stop(&self, error: StoreError) -> StoreError {
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

    fn sync_all(&self) -> Result<(), StoreError> {
        self.sync_blobs()?;
        self.db.flush_wal(true).map_err(|error| self.stop(commit_error(error)))
    }

    /// Bytes of the write-ahead log's files, those kept for recycling included.
    fn wal_bytes(&self) -> u64 {
        let files = wal::files(self.db.path()).unwrap_or_default();
        files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

impl Store for RocksStore {
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        if let Some(why) = &*self.stopped.lock() {
            return Err(StoreError::NotDone(format!("the store stopped: {why}")));
        }
        if batch.is_empty() {
            return if sync { self.sync_all() } else { Ok(()) };
        }
        let _turn = self.turn.lock();
        let apart_from = blobs::apart_from(batch, sync);
        let cost = Cost::of(batch, apart_from);
        self.make_room(cost)?;
        let writes = self.write_batch(batch, apart_from, cost)?;
        // Either may be on the disk first: a commit whose values are missing is cut off when the store is opened.
        let syncing = sync.then(|| self.blobs.begin_sync());
        let mut options = WriteOptions::new();
        options.set_sync(sync);
        self.db.write_opt(writes, &options).map_err(|error| self.stop(commit_error(error)))?;
        if let Some(syncing) = syncing {
            syncing.wait().map_err(|error| self.stop(StoreError::Unknown(error.to_string())))?;
        }
        self.memtables.add(cost);
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(family != Family::Log);
        let found = self.db.get_pinned_cf_opt(self.family(family)?, key, &options).map_err(read_error)?;
        let Some(found) = found else { return Ok(None) };
        let Some(place) = place_of(family, key, &found) else { return Ok(Some(Bytes::copy_from_slice(&found))) };
        match self.blobs.read_run(key, &[place]) {
            Ok(values) => Ok(values.into_iter().next()),
            Err(lost) => lost_value(key, lost).map(|()| None),
        }
    }

    fn scan(&self, scan: &Scan) -> Result<Page, StoreError> {
        let mut iterator = self.seek(scan)?;
        let mut found = Found::default();
        while let Some((key, value)) = iterator.item() {
            let place = place_of(scan.family, key, value);
            let len = place.map_or(value.len(), |place| place.len);
            if found.bytes + len > scan.bytes_max && !found.entries.is_empty() {
                found.more = true;
                // To know the size of a value that stands apart is not to have read it.
                found.beyond = place.is_none().then(|| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                break;
            }
            found.push(key, value, place);
            if found.entries.len() >= scan.entries_max || found.bytes >= scan.bytes_max {
                found.more = true;
                break;
            }
            iterator.next();
        }
        iterator.status().map_err(read_error)?;
        found.into_page(&self.blobs)
    }

    fn epoch_bytes_max(&self) -> usize {
        self.buffers.log * EPOCH_BUFFERS
    }

    fn epoch_is_full(&self, epoch_bytes: usize) -> bool {
        epoch_bytes >= self.epoch_bytes_max() || self.memtables.is_log_filling()
    }

    fn roll(&self) -> Result<(), StoreError> {
        if self.blobs.unsynced_bytes() > ROLL_WAITS_BYTES_MAX && self.memtables.have_room() {
            return Ok(());
        }
        let _turn = self.turn.lock();
        self.close_memtables(self.blobs.next())
    }

    fn drop_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let Some(last) = last_below(to) else { return Ok(()) };
        if from >= &last[..] {
            return Ok(());
        }
        let (log, flushed_to) = (self.family(Family::Log)?, self.flushed_to());
        self.db.delete_file_in_range_cf(log, from, &last).map_err(|error| StoreError::NotDone(error.into_string()))?;
        self.blobs.drop_files(from, to, flushed_to).map_err(|error| StoreError::NotDone(error.to_string()))?;
        // What could not go yet, goes with a later call.
        match self.blobs.last_within(from, to) {
            Some(last) => self.close_memtables_below(last.saturating_add(1)),
            None => Ok(()),
        }
    }

    fn figures(&self) -> Figures {
        let sum = |name: &properties::PropName| {
            let handles = FAMILIES.iter().filter_map(|family| self.db.cf_handle(family));
            handles.filter_map(|handle| self.db.property_int_value_cf(handle, name).ok().flatten()).sum::<u64>()
        };
        let whole = |name: &properties::PropName| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        Figures {
            file_bytes: sum(properties::LIVE_SST_FILES_SIZE) + self.blobs.bytes(),
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
        let _turn = self.turn.lock();
        self.sync_blobs()?;
        if let Err(error) = self.blobs.end() {
            tracing::warn!(%error, "room on the disk could not be given back");
        }
        // Files instead of a write-ahead log to replay: the next start is quicker. Only the sync below is owed.
        if let Err(error) = self.db.flush_cfs_opt(&families, &FlushOptions::default()) {
            tracing::warn!(%error, "could not write out the memtables; the write-ahead log has them");
        }
        let synced = self.sync_all();
        self.db.cancel_all_background_work(true);
        synced
    }
}

/// The large values in `dir`, as RocksDB may rest on them: what it replays, it writes to tables.
fn recovered_blobs(dir: &Path) -> io::Result<Blobs> {
    let blobs = Blobs::find(dir)?;
    if blobs.may_be_cut() {
        wal::cut(dir, &blobs)?;
    }
    blobs.settle()?;
    Ok(blobs)
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
