//! What only a disk can do wrong.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rocksdb::WaitForCompactOptions;

use super::*;

mod power_cut;

/// Of the two kinds that [`append_epoch`] takes: those that RocksDB holds, and those that stand apart.
const BATCH_BYTES: [usize; 2] = [4 << 10, 16 << 10];
const EPOCH_BYTES: usize = 640 << 10;

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

/// One epoch of 640 KiB, in batches of so many bytes.
fn append_epoch(store: &RocksStore, epoch: u32, batch_bytes: usize) {
    for offset in 0..(EPOCH_BYTES / batch_bytes) as u64 {
        let mut batch = Batch::default();
        batch.put(Family::Log, log_key(epoch, offset), vec![epoch as u8; batch_bytes]);
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
            appended += batch.log_bytes();
            store.commit(&batch, false).unwrap();
            if store.epoch_is_full(appended) {
                break;
            }
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
    for batch_bytes in BATCH_BYTES {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for epoch in 0..8 {
            append_epoch(&store, epoch, batch_bytes);
        }
        settle(&store);
        let files = || {
            let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
            let tables = entries.filter(|path| path.extension() == Some("sst".as_ref()));
            let files = tables.chain(numbered_files(&dir.path().join("blobs")));
            files.map(|file| file.metadata().unwrap().blocks() * 512).sum::<u64>()
        };
        let (before, epoch_bytes) = (files(), EPOCH_BYTES as u64);
        assert!(before > 8 * epoch_bytes);
        store.drop_range(&6_u32.to_be_bytes()[..0], &6_u32.to_be_bytes()).unwrap();
        let (after, reported) = (files(), store.figures().file_bytes);
        assert!((2 * epoch_bytes..3 * epoch_bytes).contains(&after), "{before} before, {after} after");
        assert!(reported.abs_diff(after) < epoch_bytes, "{reported} reported, {after} there");
        assert_eq!(entries(&store, 6, 8).len(), 2 * EPOCH_BYTES / batch_bytes);
    }
}

/// What the epochs `from..to` hold.
fn entries(store: &RocksStore, from: u32, to: u32) -> Vec<(Bytes, Bytes)> {
    let scan = Scan {
        family: Family::Log,
        start: Start::At(log_key(from, 0).into()),
        end: log_key(to, 0).into(),
        entries_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    store.scan(&scan).unwrap().entries
}

fn commit(store: &RocksStore, key: Vec<u8>, value: Vec<u8>, sync: bool) {
    let mut batch = Batch::default();
    batch.put(Family::Log, key, value);
    store.commit(&batch, sync).unwrap();
}

#[test]
fn large_values_are_found_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let sizes = [1, 8191, 8192, 20, 70_000, 8192, 300_000, 5, 1_500_000];
    let alike = [&0xFFFF_B10B_u32.to_be_bytes()[..], &[0; 16]].concat();
    let value = |offset: usize| match sizes.get(offset) {
        Some(size) => vec![offset as u8; *size],
        None => alike.clone(),
    };
    for offset in 0..=sizes.len() {
        commit(&store, log_key(1, offset as u64), value(offset), false);
        // Another partition's, in between.
        commit(&store, [&log_key(1, 1)[..], &[0; 8]].concat(), vec![7; 10_000], false);
    }
    for look in 0..3 {
        for bytes_max in [1, 100_000, 1 << 20, 64 << 20] {
            let mut from = 0;
            while from <= sizes.len() {
                let start = Start::At(log_key(1, from as u64).into());
                let end = log_key(2, 0).into();
                let page = store.scan(&Scan { family: Family::Log, start, end, entries_max: 100, bytes_max }).unwrap();
                let page: Vec<_> = page.entries.iter().filter(|(key, _)| key.len() == 12).collect();
                for (key, found) in &page {
                    assert_eq!(key, &log_key(1, from as u64));
                    assert!(*found == value(from), "{} bytes of {from}", found.len());
                    from += 1;
                }
                if page.is_empty() {
                    break;
                }
            }
            assert!(from > 1);
        }
        for offset in 0..=sizes.len() {
            let found = store.get(Family::Log, &log_key(1, offset as u64)).unwrap();
            assert!(found.unwrap() == value(offset));
        }
        assert_eq!(store.get(Family::Log, &log_key(1, 100)).unwrap(), None);
        if look == 1 {
            store.close().unwrap();
        }
        drop(store);
        store = open(dir.path());
    }
}

#[test]
fn large_values_are_looked_at_without_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, log_key(1, 0), vec![1; 50_000], false);
    store.roll().unwrap();
    commit(&store, log_key(1, 1), vec![2; 50_000], false);
    drop(store);
    // As after a power cut that took the last value.
    let file = numbered_files(&dir.path().join("blobs")).remove(0);
    OpenOptions::new().write(true).open(&file).unwrap().set_len(60_000).unwrap();
    fs::remove_file(dir.path().join("blobs/boot")).unwrap();
    let store = RocksStore::open_read_only(dir.path()).unwrap();
    assert_eq!(store.get(Family::Log, &log_key(1, 0)).unwrap().unwrap(), vec![1; 50_000]);
    assert!(matches!(store.get(Family::Log, &log_key(1, 1)), Err(StoreError::Corrupt(_))));
    drop(store);
    let store = open(dir.path());
    assert_eq!(entries(&store, 0, 9).len(), 1, "a broker goes on without it");
}

#[test]
fn a_lost_value_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, log_key(1, 0), vec![1; 50_000], false);
    fs::write(dir.path().join("blobs/1"), [0; 50_000]).unwrap();
    let scan = Scan {
        family: Family::Log,
        start: Start::At(Bytes::new()),
        end: log_key(2, 0).into(),
        entries_max: 10,
        bytes_max: 10,
    };
    assert!(matches!(store.scan(&scan), Err(StoreError::Corrupt(_))));
    assert!(matches!(store.get(Family::Log, &log_key(1, 0)), Err(StoreError::Corrupt(_))));
}

#[test]
fn dropped_values_vanish_without_a_word_once_they_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for epoch in 1..4 {
        commit(&store, log_key(epoch, 0), vec![1; 50_000], false);
        commit(&store, log_key(epoch, 1), vec![1; 50], false);
    }
    let files = || numbered_files(&dir.path().join("blobs")).len();
    let drop_two = || store.drop_range(&1_u32.to_be_bytes(), &3_u32.to_be_bytes()).unwrap();
    drop_two();
    assert_eq!(files(), 3, "the write-ahead log may be replayed with them");
    // The call has had them flushed, whether an epoch ends or not.
    settle(&store);
    drop_two();
    assert_eq!(files(), 1);
    // The one table reaches beyond what was dropped.
    let found: Vec<_> = entries(&store, 1, 9).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [log_key(1, 1), log_key(2, 1), log_key(3, 0), log_key(3, 1)]);
    assert_eq!(store.get(Family::Log, &log_key(1, 0)).unwrap(), None);
    store.roll().unwrap();
    settle(&store);
    store.drop_range(&3_u32.to_be_bytes(), &4_u32.to_be_bytes()).unwrap();
    assert_eq!(files(), 0, "the last epoch has ended too");
}

#[test]
fn no_table_names_a_value_that_is_not_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tables = || store.db.live_files().unwrap().len();
    let mut seen = 0;
    for offset in 0..2_000 {
        let unsynced = store.blobs.unsynced_bytes();
        let mut batch = Batch::default();
        batch.put(Family::Log, log_key(1, offset), vec![1; 10_000]);
        batch.put(Family::Meta, offset.to_be_bytes().to_vec(), vec![0; 5_000]);
        store.commit(&batch, false).unwrap();
        settle(&store);
        if tables() > seen {
            // All before this commit was synced in it.
            assert!(store.blobs.unsynced_bytes() < unsynced.max(10_001));
            seen = tables();
        }
    }
    assert!(seen > 0, "the catalogue alone filled its memtable");
    store.roll().unwrap();
    assert_eq!(store.blobs.unsynced_bytes(), 0);
}

#[test]
fn synced_values_are_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, log_key(1, 0), vec![1; 10_000], true);
    assert!(!dir.path().join("blobs").exists(), "few are synced with the write-ahead log");
    commit(&store, log_key(1, 1), vec![1; 300_000], true);
    assert_eq!((store.blobs.unsynced_bytes(), numbered_files(&dir.path().join("blobs")).len()), (0, 1));
    commit(&store, log_key(1, 2), vec![1; 10_000], false);
    assert_eq!(store.blobs.unsynced_bytes(), 10_000);
    store.commit(&Batch::default(), true).unwrap();
    assert_eq!(store.blobs.unsynced_bytes(), 0);
}

#[test]
fn a_failed_sync_of_values_stops_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, log_key(1, 0), vec![1; 10_000], false);
    store.blobs.fail();
    assert!(matches!(store.roll(), Err(StoreError::Unknown(_))));
    let mut batch = Batch::default();
    batch.put(Family::Meta, "a", "b");
    assert!(matches!(store.commit(&batch, false), Err(StoreError::NotDone(_))));
}

#[test]
fn the_write_ahead_log_does_not_grow_with_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for epoch in 0..40 {
        append_epoch(&store, epoch, BATCH_BYTES[0]);
    }
    settle(&store);
    let (wal_bytes, appended) = (store.figures().wal_bytes, 40 * EPOCH_BYTES as u64);
    assert!(wal_bytes > 0 && wal_bytes < appended / 3, "{wal_bytes} of {appended}");
}

#[test]
fn the_highest_key_below_another() {
    assert_eq!(last_below(b""), None);
    assert_eq!(last_below(b"a\0").unwrap(), b"a");
    let below = last_below(b"ab").unwrap();
    assert!(below.starts_with(b"aa\xff\xff") && below < b"ab".to_vec());
}

/// The files of large values in a folder, oldest first.
fn numbered_files(blobs: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let entries = fs::read_dir(blobs).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter_map(|path| Some((number(&path)?, path))).collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}
