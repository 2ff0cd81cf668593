//! What a power cut leaves: a prefix of the commits, wherever it tore the write-ahead log or the files of large values.

use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

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
            // The last stands apart. Some batches lie in two blocks of the write-ahead log.
            let (size, filler) = [(100, 0), (7_000, 100), (40_000, 5_000)][self.commits as usize % 3];
            batch.delete_range("g", "h");
            batch.put(Family::Meta, &b"filler"[..], vec![0; filler]);
            batch.put(Family::Log, log_key(epoch, self.commits.into()), vec![self.commits as u8; size]);
            batch.put(Family::Meta, &b"last"[..], self.commits.to_be_bytes().to_vec());
            store.commit(&batch, false).unwrap();
            self.commits += 1;
        }
    }

    /// The catalogue of files first: what it names is there until it says otherwise. Large values last: they were there
    /// before what names them.
    fn copy(&self) -> Torn {
        let copy = tempfile::tempdir().unwrap();
        let mut paths: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort_by_key(|path| !path.to_string_lossy().contains("MANIFEST"));
        for path in paths.iter().filter(|path| path.is_file()) {
            // A file that went away meanwhile is for the caller to notice.
            let _ = fs::copy(path, copy.path().join(path.file_name().unwrap()));
        }
        let copied = Torn { dir: copy, commits: self.commits };
        fs::create_dir_all(copied.blobs()).unwrap();
        // Without the note of the boot: the system has failed since.
        for path in numbered_files(&self.blobs()) {
            fs::copy(&path, copied.blobs().join(path.file_name().unwrap())).unwrap();
        }
        copied
    }

    fn blobs(&self) -> PathBuf {
        self.dir.path().join("blobs")
    }

    fn newest_blobs(&self) -> File {
        OpenOptions::new().write(true).open(numbered_files(&self.blobs()).last().unwrap()).unwrap()
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
        let found = entries(&store, 0, u32::MAX);
        for (index, (key, value)) in found.iter().enumerate() {
            assert_eq!(key[4..], (index as u64).to_be_bytes(), "a hole");
            assert!(value.iter().all(|byte| *byte == index as u8), "the value of {index}");
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
    assert!(length > 100_000, "a file with one small record has {length} bytes");
}

#[test]
fn without_the_newest_large_values_there_is_a_prefix() {
    let torn = Torn::new(2, 20);
    fs::remove_file(numbered_files(&torn.blobs()).last().unwrap()).unwrap();
    assert_eq!(torn.survivors(), 62, "up to the first that stands apart");
    torn.goes_on();
}

#[test]
fn values_of_older_epochs_that_are_gone_take_nothing_with_them() {
    // Their places may still stand in a file of the write-ahead log that is of no use any more.
    let torn = Torn::new(3, 20);
    let store = open(torn.dir.path());
    store.drop_range(&0_u32.to_be_bytes(), &2_u32.to_be_bytes()).unwrap();
    assert_eq!(numbered_files(&torn.blobs()).len(), 2);
    drop(store);
    let copy = torn.copy();
    assert_eq!(entries(&open(copy.dir.path()), 2, 9).len(), 50);
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
    fn large_values_cut_off_leave_a_prefix(epochs in 0..6_u32, tail in 3..60_u32, cut in 0..1_000_000_u64) {
        let torn = Torn::new(epochs, tail);
        let blobs = torn.newest_blobs();
        let length = blobs.metadata().unwrap().len();
        blobs.set_len(cut.min(length)).unwrap();
        prop_assert!((epochs * 30..=torn.commits).contains(&torn.survivors()));
        torn.goes_on();
    }

    #[test]
    fn garbled_large_values_leave_a_prefix(
        epochs in 0..6_u32,
        tail in 3..60_u32,
        at in 0..1_000_000_u64,
        garbage in prop::collection::vec(any::<u8>(), 1..5000),
    ) {
        let torn = Torn::new(epochs, tail);
        torn.newest_blobs().write_all_at(&garbage, at).unwrap();
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
