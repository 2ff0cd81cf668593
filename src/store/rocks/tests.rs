//! What only a disk can do wrong.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rocksdb::WaitForCompactOptions;
use tempfile::TempDir;

use super::*;

const SMALL: RocksOptions = RocksOptions { memory_bytes: 8 << 20 };

fn open(dir: &Path) -> RocksStore {
    RocksStore::open(dir, SMALL).unwrap()
}

fn settle(store: &RocksStore) {
    store.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
}

fn log_key(epoch: u32, offset: u64) -> Vec<u8> {
    [&epoch.to_be_bytes()[..], &offset.to_be_bytes()[..]].concat()
}

/// One epoch of `count` batches of 16 KiB.
fn append_epoch(store: &RocksStore, epoch: u32, count: u64) {
    for offset in 0..count {
        let mut batch = Batch::default();
        batch.put(Family::Log, log_key(epoch, offset), vec![epoch as u8; 16 << 10]);
        batch.put(Family::Meta, vec![offset as u8], vec![0; 10]);
        store.commit(&batch, false).unwrap();
    }
    store.roll().unwrap();
}

#[test]
fn a_second_open_says_who_holds_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = RocksStore::open(dir.path(), SMALL);
    assert!(matches!(second, Err(OpenError::Held { pid: Some(pid) }) if pid == std::process::id()));
    first.close().unwrap();
    assert!(matches!(RocksStore::open(dir.path(), SMALL), Err(OpenError::Held { .. })));
    drop(first);
    open(dir.path());
}

#[test]
fn a_lock_file_left_behind_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("anabranch.lock"), "4000000000 and the rest of a longer text\n").unwrap();
    let _store = open(dir.path());
    let text = fs::read_to_string(dir.path().join("anabranch.lock")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn a_path_that_is_a_file_is_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "not a folder").unwrap();
    let error = RocksStore::open(&path, SMALL).err().unwrap();
    assert!(matches!(&error, OpenError::Unusable { folder, .. } if *folder == path), "{error}");
}

#[test]
fn a_damaged_store_is_unusable_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let current = dir.path().join("CURRENT");
    fs::write(&current, "MANIFEST-999999\n").unwrap();
    assert!(matches!(RocksStore::open(dir.path(), SMALL), Err(OpenError::Unusable { .. })));
    assert_eq!(fs::read_to_string(&current).unwrap(), "MANIFEST-999999\n");
}

#[test]
fn the_volume_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let volume = open(dir.path()).volume().unwrap();
    assert!(0 < volume.usable_bytes && volume.usable_bytes <= volume.total_bytes, "{volume:?}");
}

#[test]
fn opening_takes_no_memory_for_data_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(dir.path(), RocksOptions { memory_bytes: 512 << 20 }).unwrap();
    let figures = store.figures();
    assert!(figures.memtable_bytes + figures.block_cache_bytes + figures.table_reader_bytes < 64 << 10, "{figures:?}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn checksums_are_computed_in_hardware() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let log = fs::read_to_string(dir.path().join("LOG")).unwrap();
    let line = log.lines().find(|line| line.contains("Fast CRC32 supported")).unwrap();
    assert!(line.contains("Supported on x86"), "{line}");
}

#[test]
fn info_logs_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..6 {
        drop(open(dir.path()));
    }
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.filter(|name| name.starts_with("LOG")).count() <= 3);
}

#[test]
fn files_of_rolled_epochs_never_overlap_and_leave_level_0() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // As much as an epoch takes, in one-record batches and in whole ones: no memtable may close before its roll.
    for (epoch, size) in [(0, 80), (1, 100_000), (2, 16 << 10), (3, 300_000), (4, 52 << 10)] {
        let mut appended = 0;
        for offset in 0.. {
            let mut batch = Batch::default();
            batch.put(Family::Log, log_key(epoch, offset), vec![7; size]);
            if appended + batch.log_bytes() > store.epoch_bytes_max() {
                break;
            }
            appended += batch.log_bytes();
            store.commit(&batch, false).unwrap();
        }
        store.roll().unwrap();
    }
    settle(&store);
    let mut files: Vec<_> = store.db.live_files().unwrap();
    files.retain(|file| file.column_family_name == LOG);
    files.sort_by(|a, b| a.start_key.cmp(&b.start_key));
    assert_eq!(files.len(), 5, "one file for each epoch");
    assert!(files.iter().all(|file| file.level > 0));
    assert!(files.windows(2).all(|pair| pair[0].end_key < pair[1].start_key));
}

#[test]
fn disk_space_returns_when_epochs_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for epoch in 0..8 {
        append_epoch(&store, epoch, 40);
    }
    settle(&store);
    let files = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        let tables = entries.filter(|entry| entry.path().extension() == Some("sst".as_ref()));
        tables.map(|table| table.metadata().unwrap().len()).sum::<u64>()
    };
    let (before, epoch_bytes) = (files(), 40 * (16 << 10));
    assert!(before > 8 * epoch_bytes);
    store.drop_range(&log_key(0, 0), &6_u32.to_be_bytes()).unwrap();
    let (after, reported) = (files(), store.figures().file_bytes);
    assert!((2 * epoch_bytes..3 * epoch_bytes).contains(&after), "{before} before, {after} after");
    assert!(reported.abs_diff(after) < epoch_bytes, "{reported} reported, {after} there");
    let scan = Scan {
        family: Family::Log,
        start: Start::At(log_key(6, 0).into()),
        end: log_key(8, 0).into(),
        entries_max: 1000,
        bytes_max: 64 << 20,
    };
    assert_eq!(store.scan(&scan).unwrap().entries.len(), 80);
}

#[test]
fn the_write_ahead_log_does_not_grow_with_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for epoch in 0..40 {
        append_epoch(&store, epoch, 40);
    }
    settle(&store);
    let (wal_bytes, appended) = (store.figures().wal_bytes, 40 * 40 * (16 << 10));
    assert!(wal_bytes > 0 && wal_bytes < appended / 3, "{wal_bytes} of {appended}");
}

#[test]
fn the_highest_key_below_another() {
    assert_eq!(last_below(b""), None);
    assert_eq!(last_below(b"a\0").unwrap(), b"a");
    let below = last_below(b"ab").unwrap();
    assert!(below.starts_with(b"aa\xff\xff") && below < b"ab".to_vec());
}

/// A store whose commits are numbered, with its write-ahead log as a power cut may leave it.
struct Torn {
    dir: TempDir,
    commits: u32,
}

impl Torn {
    /// `epochs` full epochs, then `tail` commits that are in the write-ahead log only. From the second epoch or so on
    /// files of the write-ahead log are recycled, so that behind the tail stand records of earlier epochs.
    fn new(epochs: u32, tail: u32) -> Torn {
        let mut torn = Torn { dir: tempfile::tempdir().unwrap(), commits: 0 };
        let store = open(torn.dir.path());
        for epoch in 0..epochs {
            torn.append(&store, epoch, 30);
            store.roll().unwrap();
            settle(&store);
        }
        torn.append(&store, epochs, tail);
        // Copied while it is open, because closing cuts off what stands behind the tail.
        torn.copy()
    }

    /// The end of one epoch and the begin of the next, with nothing flushed: two files of the write-ahead log count.
    fn between_epochs() -> Torn {
        // The folder is copied while the flush runs. One that was too quick is noticed: files are missing then.
        for _ in 0..50 {
            let mut torn = Torn { dir: tempfile::tempdir().unwrap(), commits: 0 };
            let store = RocksStore::open(torn.dir.path(), RocksOptions { memory_bytes: 128 << 20 }).unwrap();
            torn.append(&store, 0, 300);
            store.roll().unwrap();
            torn.append(&store, 1, 5);
            let copy = torn.copy();
            if copy.wals().len() == 2 && copy.copy().try_survivors() == Some(torn.commits) {
                return copy;
            }
        }
        panic!("every flush was quicker than a copy");
    }

    fn append(&mut self, store: &RocksStore, epoch: u32, count: u32) {
        for _ in 0..count {
            let mut batch = Batch::default();
            let size = [100, 3_000, 40_000][self.commits as usize % 3];
            batch.put(Family::Log, log_key(epoch, self.commits.into()), vec![self.commits as u8; size]);
            batch.put(Family::Meta, &b"last"[..], self.commits.to_be_bytes().to_vec());
            store.commit(&batch, false).unwrap();
            self.commits += 1;
        }
    }

    /// The catalogue of files first: what it names is there until it says otherwise.
    fn copy(&self) -> Torn {
        let copy = tempfile::tempdir().unwrap();
        let mut paths: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort_by_key(|path| !path.to_string_lossy().contains("MANIFEST"));
        for path in paths {
            // A file that went away meanwhile is for the caller to notice.
            let _ = fs::copy(&path, copy.path().join(path.file_name().unwrap()));
        }
        Torn { dir: copy, commits: self.commits }
    }

    /// The files of the write-ahead log, oldest first.
    fn wals(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut wals: Vec<_> = entries.filter(|path| path.extension() == Some("log".as_ref())).collect();
        wals.sort();
        wals
    }

    fn newest_wal(&self) -> File {
        OpenOptions::new().write(true).open(self.wals().last().unwrap()).unwrap()
    }

    /// How many commits are there after opening again: those before, whole, and none of those behind.
    fn survivors(&self) -> u32 {
        self.try_survivors().unwrap()
    }

    fn try_survivors(&self) -> Option<u32> {
        let store = RocksStore::open(self.dir.path(), SMALL).ok()?;
        let scan = Scan {
            family: Family::Log,
            start: Start::At(Bytes::new()),
            end: Bytes::from_static(&[255]),
            entries_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let found = store.scan(&scan).unwrap().entries;
        for (index, (key, value)) in found.iter().enumerate() {
            assert_eq!(key[4..], (index as u64).to_be_bytes(), "a hole");
            assert!(value.iter().all(|byte| *byte == index as u8));
        }
        let survivors = found.len() as u32;
        let last = store.get(Family::Meta, b"last").unwrap();
        assert_eq!(last.as_deref(), survivors.checked_sub(1).map(u32::to_be_bytes).as_ref().map(|last| &last[..]));
        Some(survivors)
    }

    /// Goes on where the survivors end, dies again, and all of that is there.
    fn goes_on(mut self) {
        self.commits = self.survivors();
        self.append(&open(self.dir.path()), 1000, 20);
        assert_eq!(self.survivors(), self.commits);
    }
}

#[test]
fn an_untouched_write_ahead_log_is_replayed_whole() {
    for epochs in [0, 1, 4] {
        let torn = Torn::new(epochs, 20);
        assert_eq!(torn.survivors(), torn.commits);
        torn.goes_on();
    }
}

#[test]
fn the_write_ahead_log_of_these_tests_is_recycled() {
    let length = Torn::new(4, 1).newest_wal().metadata().unwrap().len();
    assert!(length > 300_000, "a file with one small record has {length} bytes");
}

#[test]
fn an_empty_newest_write_ahead_log_takes_nothing_else_with_it() {
    let torn = Torn::new(3, 20);
    torn.newest_wal().set_len(0).unwrap();
    assert_eq!(torn.survivors(), 90);
    torn.goes_on();
}

#[test]
fn what_follows_a_torn_older_write_ahead_log_is_gone_too() {
    let torn = Torn::between_epochs();
    for share in [0, 1, 2, 3] {
        let torn = torn.copy();
        let older = OpenOptions::new().write(true).open(&torn.wals()[0]).unwrap();
        let length = older.metadata().unwrap().len();
        older.set_len(length / 4 * share).unwrap();
        let survivors = torn.survivors();
        assert!(survivors <= 300 && (survivors > 0) == (share > 0), "{survivors} of {share} quarters");
        torn.goes_on();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_truncated_write_ahead_log_leaves_a_prefix(epochs in 0..6_u32, tail in 1..30_u32, cut in 0.0..1.0_f64) {
        let torn = Torn::new(epochs, tail);
        let wal = torn.newest_wal();
        let length = wal.metadata().unwrap().len();
        wal.set_len((length as f64 * cut) as u64).unwrap();
        prop_assert!((epochs * 30..=torn.commits).contains(&torn.survivors()));
        torn.goes_on();
    }

    #[test]
    fn a_garbled_write_ahead_log_leaves_a_prefix(
        epochs in 0..6_u32,
        tail in 1..30_u32,
        at in 0.0..1.0_f64,
        garbage in prop::collection::vec(any::<u8>(), 1..5000),
    ) {
        let torn = Torn::new(epochs, tail);
        let wal = torn.newest_wal();
        let length = wal.metadata().unwrap().len();
        wal.write_all_at(&garbage, (length as f64 * at) as u64).unwrap();
        prop_assert!((epochs * 30..=torn.commits).contains(&torn.survivors()));
        torn.goes_on();
    }
}
