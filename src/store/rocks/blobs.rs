//! Values of the log that are written once. RocksDB writes what it is given twice, to its write-ahead log and to a table;
//! of a large value it gets a [`Place`], and the value itself goes to a file of its epoch. Called by the store alone:
//! appends and syncs by the one thread that commits, reads by any.
//!
//! `blobs/N` in the data folder holds large values whose keys begin with `N`, the epoch, as a `u32`. Each partition (what
//! lies between the epoch and the last eight bytes of a key) fills extents of its own, so that who reads one partition
//! reads its file in long runs. The system is asked to find room for an extent at once where much was filled before, which
//! makes writing it cheaper; what an extent leaves free is a hole in the end.
//!
//! **What survives.** A value is in its file before its place is committed: nothing else is needed where only the process
//! dies. For a power cut the order on the disk counts. A synced commit syncs its values too. Others are on the disk
//! before memtables that hold their places are flushed (see [`super::RocksStore`]), so no table names a value that is not
//! there. The write-ahead log may: [`super::wal`] cuts it at the first such place when the system was started anew since.
//! `blobs/boot` tells by the boot's id. What is left is a prefix of the commits in any case.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use file::{BlobFile, read_at, release, reserve, sync_folder, write_all_at};
pub(super) use place::{Place, apart_from, is_apart};
use place::{number_of, partition_of};
use sync::{Dirty, Syncer, Syncing};

mod file;
mod place;
mod sync;
#[cfg(test)]
mod tests;

const FOLDER: &str = "blobs";
const BOOT_FILE: &str = "boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How much a partition gets of a file at a time: as much as it has filled of this file so far, or of the last, within
/// these.
const EXTENT_BYTES_MIN: u64 = 256 << 10;
const EXTENT_BYTES_MAX: u64 = 8 << 20;
/// Less room than this is not given back.
const RELEASED_BYTES_MIN: u64 = 64 << 10;
/// The disk is asked to write after each so many bytes.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// A file being appended to.
struct Current {
    number: u32,
    blobs: Arc<BlobFile>,
    /// Where the next extent begins.
    end: u64,
    extents: HashMap<Box<[u8]>, Extent>,
    asked_at: u64,
}

#[derive(Clone, Copy, Default)]
struct Extent {
    next: u64,
    end: u64,
    filled: u64,
    /// What the partition filled of the last file.
    expected: u64,
    /// Whether there is room on the disk for all of it.
    reserved: bool,
}

impl Extent {
    /// Gives back what is free.
    fn leave(&self, file: &File) {
        if self.reserved && self.end - self.next >= RELEASED_BYTES_MIN {
            release(file, self.next, self.end - self.next);
        }
    }
}

impl Current {
    /// Where the next value of a partition goes.
    fn take(&mut self, partition: &[u8], bytes: u64) -> io::Result<u64> {
        if !self.extents.contains_key(partition) {
            self.extents.insert(partition.into(), Extent::default());
        }
        let Some(extent) = self.extents.get_mut(partition) else { return Ok(self.end) };
        if extent.end - extent.next < bytes {
            let file = self.blobs.file()?;
            let more = bytes.max(extent.filled.max(extent.expected).clamp(EXTENT_BYTES_MIN, EXTENT_BYTES_MAX));
            if extent.end != self.end {
                extent.leave(file);
                extent.next = self.end;
            }
            // A partition that fills little keeps no room from others.
            extent.reserved = more > EXTENT_BYTES_MIN;
            if extent.reserved {
                reserve(file, self.end, more);
            }
            self.end += more;
            extent.end = self.end;
        }
        let position = extent.next;
        extent.next += bytes;
        extent.filled += bytes;
        Ok(position)
    }

    /// Gives back what is free.
    fn leave(&self) -> io::Result<()> {
        let file = self.blobs.file()?;
        self.extents.values().for_each(|extent| extent.leave(file));
        Ok(())
    }
}

pub(super) struct Blobs {
    folder: PathBuf,
    /// A file that was dropped leaves its number behind: who still meets its places need not wonder.
    files: RwLock<BTreeMap<u32, Option<Arc<BlobFile>>>>,
    current: Mutex<Option<Current>>,
    dirty: Arc<Dirty>,
    syncer: OnceLock<Syncer>,
}

impl Blobs {
    /// What there is in the data folder; writes nothing.
    pub fn find(data_folder: &Path) -> io::Result<Blobs> {
        let folder = data_folder.join(FOLDER);
        let mut files = BTreeMap::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            if let Some(number) = number {
                let file = BlobFile::found(entry.path(), &entry.metadata()?);
                files.insert(number, Some(Arc::new(file)));
            }
        }
        Ok(Blobs {
            folder,
            files: RwLock::new(files),
            current: Mutex::new(None),
            dirty: Arc::default(),
            syncer: OnceLock::new(),
        })
    }

    /// Whether what was written last may be missing because the system has ended since, not the process alone.
    pub fn may_be_cut(&self) -> bool {
        let same = |boot: String| fs::read_to_string(self.folder.join(BOOT_FILE)).is_ok_and(|noted| noted == boot);
        !self.files.read().is_empty() && !boot_id().is_some_and(same)
    }

    /// Makes all there is durable and takes note of the boot: what comes next may rest on it.
    pub fn settle(&self) -> io::Result<()> {
        let files: Vec<_> = self.files.read().values().flatten().cloned().collect();
        if files.is_empty() {
            return Ok(());
        }
        files.iter().try_for_each(|file| file.sync())?;
        sync_folder(&self.folder)?;
        self.note_boot()
    }

    fn note_boot(&self) -> io::Result<()> {
        boot_id().map_or(Ok(()), |boot| fs::write(self.folder.join(BOOT_FILE), boot))
    }

    /// Writes a value; what it answers is for RocksDB.
    pub fn append(&self, key: &[u8], value: &[u8]) -> io::Result<[u8; Place::LEN]> {
        let number = number_of(key).ok_or_else(|| io::Error::other("a key without an epoch"))?;
        let mut current = self.current.lock();
        if current.as_ref().is_none_or(|current| current.number != number) {
            *current = Some(self.begin(number, current.take())?);
        }
        let Some(current) = current.as_mut() else { return Err(io::Error::other("no file")) };
        let position = current.take(partition_of(key), value.len() as u64)?;
        write_all_at(current.blobs.file()?, value, position)?;
        let written = current.blobs.written.fetch_add(value.len() as u64, Ordering::AcqRel) + value.len() as u64;
        self.dirty.add(&current.blobs);
        if written - current.asked_at >= SYNC_EVERY_BYTES {
            current.asked_at = written;
            if let Some(syncer) = self.syncer.get() {
                syncer.wake();
            }
        }
        Ok(Place { position, len: value.len(), crc: crc32c::crc32c(value) }.encode())
    }

    /// A file to append to. One that is there holds what no commit names, or older values of the epoch.
    fn begin(&self, number: u32, last: Option<Current>) -> io::Result<Current> {
        if self.syncer.get().is_none() {
            fs::create_dir_all(&self.folder)?;
            self.note_boot()?;
            let _ = self.syncer.set(Syncer::start(self.dirty.clone())?);
        }
        if let Some(last) = &last {
            last.leave()?;
        }
        let path = self.folder.join(number.to_string());
        let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path)?;
        let about = file.metadata()?;
        let blobs = Arc::new(BlobFile::opened(path, file, &about));
        let written = blobs.written.load(Ordering::Acquire);
        self.files.write().insert(number, Some(blobs.clone()));
        let expected = |extent: Extent| Extent { expected: extent.filled, ..Extent::default() };
        let filled = last.into_iter().flat_map(|last| last.extents).filter(|(_, extent)| extent.filled > 0);
        let extents = filled.map(|(partition, extent)| (partition, expected(extent))).collect();
        Ok(Current { number, blobs, end: about.len(), extents, asked_at: written })
    }

    /// Nothing is appended any more.
    pub fn end(&self) -> io::Result<()> {
        self.current.lock().take().map_or(Ok(()), |current| current.leave())
    }

    /// Everything appended is on the disk when this returns.
    pub fn sync(&self) -> io::Result<()> {
        self.dirty.sync(&AtomicBool::new(false))
    }

    /// The same, when the answer says so.
    pub fn begin_sync(&self) -> Syncing {
        match self.syncer.get() {
            Some(syncer) if self.unsynced_bytes() > 0 => syncer.begin(),
            _ => Syncing::done(),
        }
    }

    /// The file that is appended to, or the next one.
    pub fn current(&self) -> u32 {
        self.current.lock().as_ref().map_or_else(|| self.next(), |current| current.number)
    }

    /// The file after those there are.
    pub fn next(&self) -> u32 {
        self.files.read().last_key_value().map_or(0, |(number, _)| number.saturating_add(1))
    }

    pub fn unsynced_bytes(&self) -> u64 {
        self.dirty.bytes()
    }

    pub fn bytes(&self) -> u64 {
        self.files.read().values().flatten().map(|file| file.written.load(Ordering::Acquire)).sum()
    }

    /// Removes files below number `flushed` of which no key lies outside of `from..to`. The caller never reads that range
    /// again.
    pub fn drop_files(&self, from: &[u8], to: &[u8], flushed: u32) -> io::Result<()> {
        let Some(first) = first_within(from) else { return Ok(()) };
        // Keys of files below this one lie all below `to`.
        let Some(end) = number_of(to).map(|end| end.min(flushed)) else { return Ok(()) };
        if first >= end {
            return Ok(());
        }
        let dropped: Vec<_> = {
            let mut files = self.files.write();
            files.range_mut(first..end).filter_map(|(_, file)| file.take()).collect()
        };
        self.dirty.leave_out(&dropped);
        dropped.iter().try_for_each(|file| match fs::remove_file(&file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// The last file of which no key lies outside of `from..to`.
    pub fn last_within(&self, from: &[u8], to: &[u8]) -> Option<u32> {
        let (first, end) = (first_within(from)?, number_of(to)?);
        let files = self.files.read();
        let mut there = files.range(first..end.max(first)).filter(|(_, file)| file.is_some());
        there.next_back().map(|(number, _)| *number)
    }

    fn file_of(&self, key: &[u8]) -> Result<Arc<BlobFile>, Lost> {
        let found = number_of(key).and_then(|number| self.files.read().get(&number).cloned());
        found.ok_or(Lost::Unreadable("its file is missing".into()))?.ok_or(Lost::Dropped)
    }

    /// The values of keys of one file whose places follow each other without a gap.
    pub fn read_run(&self, key: &[u8], places: &[Place]) -> Result<Vec<Bytes>, Lost> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
        let file = self.file_of(key)?;
        let unreadable = |error: io::Error| Lost::Unreadable(error.to_string());
        let len = last.end().saturating_sub(first.position) as usize;
        let mut rest = read_at(file.file().map_err(unreadable)?, len, first.position).map_err(unreadable)?;
        let mut values = Vec::with_capacity(places.len());
        for place in places {
            let value = rest.split_to(place.len.min(rest.len()));
            if crc32c::crc32c(&value) != place.crc {
                return Err(Lost::Unreadable(format!("{} bytes at {} are damaged", place.len, place.position)));
            }
            values.push(value);
        }
        Ok(values)
    }

    #[cfg(test)]
    pub fn fail(&self) {
        let _ = self.dirty.failure.set("injected".to_owned());
    }

    /// Whether the value is there as it was written.
    pub fn holds(&self, key: &[u8], place: Place) -> bool {
        self.read_run(key, &[place]).is_ok()
    }
}

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Lost {
    /// Its epoch was dropped.
    Dropped,
    Unreadable(String),
}

/// The first file that holds no key below `from`.
fn first_within(from: &[u8]) -> Option<u32> {
    let mut number = [0; 4];
    let shared = from.len().min(4);
    number[..shared].copy_from_slice(&from[..shared]);
    let number = u32::from_be_bytes(number);
    if from.len() > 4 { number.checked_add(1) } else { Some(number) }
}

fn boot_id() -> Option<String> {
    fs::read_to_string(BOOT_ID).ok()
}
