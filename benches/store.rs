//! The store alone beside plain append-only files, in one run: `cargo bench --bench store -- [GIB] [FOLDER]`.
//!
//! Both are given the same batches of 64 KiB, and synced also of 4 KiB, for 16 partitions, in turn. Figures are 10^6
//! bytes a second of batches and processor seconds of the whole process for a GiB of them; what RocksDB does in the
//! background is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anabranch::log::tail::{StoredBatch, Tail};
use anabranch::log::writer::COMMIT_BYTES_MAX;
use anabranch::model::ids::{Offset, PartitionId, PartitionIndex, StreamId};
use anabranch::store::keys::{BatchHeader, Key};
use anabranch::store::rocks::{RocksOptions, RocksStore};
use anabranch::store::{Batch, Family, Scan, Start, Store};
use bytes::{Bytes, BytesMut};

const MIB: usize = 1 << 20;
const BATCH_BYTES: usize = 64 << 10;
const SMALL_BATCH_BYTES: usize = 4 << 10;
const PARTITIONS: usize = 16;
/// Batches in one commit: what the log's writer puts together under load.
const COMMIT_BATCHES: usize = COMMIT_BYTES_MAX / BATCH_BYTES;
const READ_BYTES: usize = MIB;
/// Of the broker's default of 512 MiB, the store gets half.
const MEMORY_BYTES: usize = 256 * MIB;
const TAIL_READS: usize = 10_000_000;

fn main() {
    // cargo passes `--bench` on.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let gib: f64 = arguments.next().map_or(4.0, |gib| gib.parse().expect("GIB is a number"));
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder of its own");
    let bytes = (gib * 1024.0 * MIB as f64) as usize;
    let batch = random_batch(BATCH_BYTES);

    println!("{gib} GiB in batches of {} KiB, {PARTITIONS} partitions", BATCH_BYTES >> 10);
    println!("{:<28}{:>10}{:>12}", "", "MB/s", "CPU-s/GiB");
    let plain = folder.path().join("plain");
    // Pages that the system has not had in hand lately cost a virtual machine's host time. Both are given those of this
    // round, and neither has the other's to be written meanwhile.
    append_plain(&plain, &batch, bytes, false);
    fs::remove_dir_all(&plain).expect("the files are removed");
    let appended = measure("plain files, append", bytes, || append_plain(&plain, &batch, bytes, false));
    drop_page_cache(&plain);
    let rocks = folder.path().join("store");
    let stored = measure("store, append", bytes, || append_stored(&rocks, &batch, bytes, false));
    beside(stored, appended);

    drop_page_cache(&plain);
    let cold = measure("plain files, cold scan", bytes, || read_plain(&plain));
    let store = open(&rocks);
    drop_page_cache(&rocks);
    let scanned = measure("store, cold scan", bytes, || scan(&store, bytes));
    beside(scanned, cold);

    trim(&store, bytes, &rocks);
    drop(store);
    fs::remove_dir_all(&rocks).expect("the store is removed");
    fs::remove_dir_all(&plain).expect("the files are removed");

    let few = (bytes / 8).max(64 * MIB);
    let synced = measure("plain files, synced each", few, || append_plain(&plain, &batch, few, true));
    let stored = measure("store, synced commits", few, || append_stored(&rocks, &batch, few, true));
    beside(stored, synced);
    fs::remove_dir_all(&rocks).expect("the store is removed");
    fs::remove_dir_all(&plain).expect("the files are removed");

    // Large batches are bound by what the disk writes, small ones by how often it is asked to.
    let (small, few) = (random_batch(SMALL_BATCH_BYTES), (bytes / 128).max(16 * MIB));
    let synced = measure("plain files, 4 KiB synced", few, || append_plain(&plain, &small, few, true));
    let stored = measure("store, 4 KiB synced", few, || append_stored(&rocks, &small, few, true));
    beside(stored, synced);
    tail(&batch);
}

#[derive(Clone, Copy)]
struct Figures {
    bytes_per_second: f64,
    cpu_seconds: f64,
}

fn measure(name: &str, bytes: usize, work: impl FnOnce()) -> Figures {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    work();
    let figures =
        Figures { bytes_per_second: bytes as f64 / began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu };
    let per_gib = figures.cpu_seconds / (bytes as f64 / (1024 * MIB) as f64);
    println!("{name:<28}{:>10.0}{per_gib:>12.2}", figures.bytes_per_second / 1e6);
    figures
}

fn beside(ours: Figures, plain: Figures) {
    println!(
        "{:<28}{:>9.2}x{:>11.2}x",
        "  store / plain",
        ours.bytes_per_second / plain.bytes_per_second,
        ours.cpu_seconds / plain.cpu_seconds
    );
}

fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is writable, and zeros are a value of all its fields, which are numbers.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Bytes that no layer below can make smaller.
fn random_batch(bytes: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = BytesMut::with_capacity(BatchHeader::LEN + bytes);
    BatchHeader { append_time_ms: 0, sealed_by: None, addressed: None }.put(&mut out);
    while out.len() < BatchHeader::LEN + bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(state ^ state >> 33).to_le_bytes());
    }
    out.freeze()
}

fn plain_file(folder: &Path, partition: usize) -> PathBuf {
    folder.join(format!("{partition}.log"))
}

fn append_plain(folder: &Path, batch: &[u8], bytes: usize, synced: bool) {
    fs::create_dir_all(folder).expect("a folder");
    let open = |partition| OpenOptions::new().create(true).append(true).open(plain_file(folder, partition));
    let mut files: Vec<File> = (0..PARTITIONS).map(|partition| open(partition).expect("a file")).collect();
    for at in 0..bytes / (batch.len() - BatchHeader::LEN) {
        let file = &mut files[at % PARTITIONS];
        file.write_all(&batch[BatchHeader::LEN..]).expect("written");
        if synced {
            file.sync_data().expect("synced");
        }
    }
}

fn read_plain(folder: &Path) {
    let mut buffer = vec![0; READ_BYTES];
    for partition in 0..PARTITIONS {
        let mut file = File::open(plain_file(folder, partition)).expect("a file");
        while file.read(&mut buffer).expect("read") > 0 {}
    }
}

fn open(folder: &Path) -> RocksStore {
    RocksStore::open(folder, RocksOptions { memory_bytes: MEMORY_BYTES }).expect("a store")
}

fn partition(index: usize) -> PartitionId {
    PartitionId { stream: StreamId(1), index: PartitionIndex(index as u32) }
}

fn key(epoch: u32, index: usize, base_offset: Offset) -> Bytes {
    Key::Batch { epoch, partition: partition(index), base_offset }.encode()
}

/// As the log's writer does it: an epoch at a time, each ended by a roll.
fn append_stored(folder: &Path, batch: &Bytes, bytes: usize, synced: bool) {
    let store = open(folder);
    let (mut epoch, mut in_epoch) = (0, 0);
    let mut offsets = [0; PARTITIONS];
    for _ in 0..bytes / (batch.len() - BatchHeader::LEN) / COMMIT_BATCHES {
        let mut commit = Batch::default();
        for at in 0..COMMIT_BATCHES {
            let index = at % PARTITIONS;
            commit.put(Family::Log, key(epoch, index, offsets[index]), batch.clone());
            offsets[index] += 1;
        }
        in_epoch += commit.log_bytes();
        store.commit(&commit, synced).expect("committed");
        if store.epoch_is_full(in_epoch) {
            store.roll().expect("rolled");
            (epoch, in_epoch) = (epoch + 1, 0);
        }
    }
    store.roll().expect("rolled");
}

/// Every partition of every epoch, in pages as a fetch reads them.
fn scan(store: &RocksStore, bytes: usize) {
    let mut found = 0;
    for epoch in 0..=bytes.div_ceil(store.epoch_bytes_max()) as u32 {
        for index in 0..PARTITIONS {
            let end = key(epoch, index, Offset::MAX);
            let mut start = Start::At(key(epoch, index, 0));
            loop {
                let wanted = Scan {
                    family: Family::Log,
                    start: start.clone(),
                    end: end.clone(),
                    entries_max: usize::MAX,
                    bytes_max: READ_BYTES,
                };
                let page = store.scan(&wanted).expect("scanned");
                found += page.entries.len();
                match page.entries.last() {
                    Some((last, _)) if page.more => start = Start::At([last.as_ref(), &[0]].concat().into()),
                    _ => break,
                }
            }
        }
    }
    assert_eq!(found, bytes / BATCH_BYTES / COMMIT_BATCHES * COMMIT_BATCHES, "all that was appended");
}

/// The first half of the epochs goes: how long that takes, and what of the space is back when it returns.
fn trim(store: &RocksStore, bytes: usize, folder: &Path) {
    let half = (bytes / store.epoch_bytes_max() / 2) as u32;
    let before = disk_bytes(folder);
    let began = Instant::now();
    store.drop_range(&key(0, 0, 0), &half.to_be_bytes()).expect("dropped");
    let spent = began.elapsed();
    let back = before.saturating_sub(disk_bytes(folder));
    println!("store, trim: {} MB of {} MB back in {} ms", back / 1_000_000, before / 1_000_000, spent.as_millis());
}

fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let about = files(folder).into_iter().filter_map(|file| file.metadata().ok());
    about.map(|about| about.blocks() * 512).sum()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A fetch at the end of a partition, from memory.
fn tail(value: &Bytes) {
    let mut tail = Tail::default();
    for base_offset in 0..64 {
        tail.push(StoredBatch { base_offset, last_offset: base_offset, value: value.clone() });
    }
    let began = Instant::now();
    let mut found = 0;
    for at in 0..TAIL_READS {
        let from = std::hint::black_box(63 - (at % 4) as Offset);
        found += tail.read(from, 64, MIB).map_or(0, |batches| batches.len());
    }
    assert!(found >= TAIL_READS);
    println!("tail read: {:.0} ns", began.elapsed().as_nanos() as f64 / TAIL_READS as f64);
}

/// Asks the system to forget what it has of these files; without it a cold scan would be of memory.
fn drop_page_cache(folder: &Path) {
    use std::os::fd::AsRawFd;

    for path in files(folder) {
        let Ok(file) = File::open(path) else { continue };
        if file.sync_all().is_ok() {
            // SAFETY: the descriptor is open for as long as the call takes. Not being heeded is no error.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
    }
}
