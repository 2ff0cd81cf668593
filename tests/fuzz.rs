//! The properties of `fuzz/`, over seeds that are mutated the same way in every run. `cargo fuzz` looks deeper.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../fuzz/properties/bed.rs"]
mod bed;
#[path = "../fuzz/properties/calls.rs"]
mod calls;
#[path = "../fuzz/properties/documents.rs"]
mod documents;
#[path = "../fuzz/properties/frames.rs"]
mod frames;
#[path = "common/random.rs"]
mod random;
#[path = "../fuzz/properties/record_batch.rs"]
mod record_batch;

use random::Random;

/// The most that anything here may ask for at once: claims of a few bytes asked for 150 GB where they were believed.
const ALLOCATION_BYTES_MAX: usize = 64 << 20;

/// Remembers the largest allocation.
struct Largest(AtomicUsize);

#[global_allocator]
static LARGEST: Largest = Largest(AtomicUsize::new(0));

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by whoever calls this.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by whoever calls this.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.0.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as promised by whoever calls this.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The longest a mutant may grow.
const MUTANT_BYTES_MAX: usize = 8 << 10;

/// Values that arithmetic goes wrong at.
const INTERESTING: [i32; 8] = [i32::MIN, -1, 0, 1, 0x7f, 0x80, 0xffff, i32::MAX];

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new("fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let len = random.below(16).min(bytes.len() - at);
    match random.below(7) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
        2 => {
            let value = INTERESTING[random.below(INTERESTING.len())].to_be_bytes();
            bytes.iter_mut().skip(at).zip(value).for_each(|(byte, value)| *byte = value);
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..at + len)),
        5 => {
            let piece: Vec<u8> = bytes[at..at + len].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let from = random.below(other.len());
            let piece: Vec<u8> = other[from..].iter().take(len).copied().collect();
            bytes.splice(at..at + len, piece);
        }
    }
    bytes.truncate(MUTANT_BYTES_MAX);
}

/// `mutants` of each seed.
fn run(target: &str, mutants: u64, property: fn(&[u8])) {
    let seeds = seeds(target);
    for (index, (path, seed)) in seeds.iter().enumerate() {
        property(seed);
        for mutant in 0..mutants {
            let mut random = Random(index as u64 * mutants + mutant);
            let mut bytes = seed.clone();
            for _ in 0..=random.below(4) {
                let other = &seeds[random.below(seeds.len())].1;
                mutate(&mut bytes, other, &mut random);
            }
            let outcome = std::panic::catch_unwind(|| property(&bytes));
            assert!(outcome.is_ok(), "mutant {mutant} of {} breaks {target}: {bytes:02x?}", path.display());
            let largest = LARGEST.0.load(Ordering::Relaxed);
            assert!(
                largest < ALLOCATION_BYTES_MAX,
                "{largest} bytes at once, at mutant {mutant} of {}: {bytes:02x?}",
                path.display()
            );
        }
    }
}

#[test]
fn record_batches() {
    run("record_batch", 3_000, record_batch::holds);
}

#[test]
fn frames() {
    run("frames", 600, frames::holds);
}

#[test]
fn documents() {
    run("documents", 20_000, documents::holds);
}

#[test]
fn calls() {
    run("calls", 1_000, calls::holds);
}
