//! What every store promises, run against each of them. What only a disk can do wrong is tested in `rocks`.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::memory::MemoryStore;
use super::rocks::{RocksOptions, RocksStore};
use super::{Batch, Family, Op, Page, Scan, Start, Store};

/// A place where stores live, one after another.
trait Place: Default {
    type Store: Store;

    fn open(&self) -> Self::Store;

    /// The process is gone without a word; the next one opens what is there.
    fn kill_and_open(&self, store: Self::Store) -> Self::Store;

    fn close_and_open(&self, store: Self::Store) -> Self::Store;
}

struct Disk(TempDir);

impl Default for Disk {
    fn default() -> Disk {
        Disk(tempfile::tempdir().unwrap())
    }
}

impl Place for Disk {
    type Store = RocksStore;

    fn open(&self) -> RocksStore {
        RocksStore::open(self.0.path(), RocksOptions { memory_bytes: 8 << 20 }).unwrap()
    }

    fn kill_and_open(&self, store: RocksStore) -> RocksStore {
        drop(store);
        self.open()
    }

    fn close_and_open(&self, store: RocksStore) -> RocksStore {
        store.close().unwrap();
        self.kill_and_open(store)
    }
}

#[derive(Default)]
struct Memory;

impl Place for Memory {
    type Store = MemoryStore;

    fn open(&self) -> MemoryStore {
        MemoryStore::new()
    }

    fn kill_and_open(&self, store: MemoryStore) -> MemoryStore {
        store.survivor(false)
    }

    fn close_and_open(&self, store: MemoryStore) -> MemoryStore {
        store.close().unwrap();
        store.survivor(true)
    }
}

macro_rules! on_each_store {
    ($($test:ident,)*) => {
        mod rocks {
            $(#[test] fn $test() { super::$test::<super::Disk>(); })*
        }
        mod memory {
            $(#[test] fn $test() { super::$test::<super::Memory>(); })*
        }
    };
}

on_each_store! {
    a_batch_is_applied_in_order,
    families_do_not_mix,
    scans_are_ascending_and_half_open,
    scans_begin_at_or_before_a_key,
    pages_end_at_their_bounds_and_hold_at_least_one_entry,
    pages_join_into_the_whole_range,
    a_deleted_range_is_half_open,
    dropping_a_range_keeps_what_is_outside,
    everything_committed_survives_a_close,
    everything_committed_survives_the_process,
    a_batch_without_changes_can_be_synced,
    log_bytes_counts_what_a_roll_writes_out,
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(store: &impl Store, family: Family, keys: &[&str]) {
    let mut batch = Batch::default();
    for key in keys {
        batch.put(family, bytes(key), bytes(&format!("value of {key}")));
    }
    store.commit(&batch, false).unwrap();
}

fn scan(family: Family, start: Start, end: &str) -> Scan {
    Scan { family, start, end: bytes(end), entries_max: 100, bytes_max: 1 << 20 }
}

fn keys(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
}

fn keys_at(store: &impl Store, family: Family, from: &str, end: &str) -> Vec<String> {
    let page = store.scan(&scan(family, Start::At(bytes(from)), end)).unwrap();
    keys(&page).into_iter().map(String::from).collect()
}

fn a_batch_is_applied_in_order<P: Place>() {
    let place = P::default();
    let store = place.open();
    put(&store, Family::Meta, &["a", "b", "c"]);
    let mut batch = Batch::default();
    batch.delete_range("a", "c");
    batch.put(Family::Meta, "b", "again");
    batch.put(Family::Meta, "d", "short-lived");
    batch.delete(Family::Meta, "d");
    batch.put(Family::Meta, "e", "first");
    batch.put(Family::Meta, "e", "second");
    store.commit(&batch, true).unwrap();
    let get = |key: &str| store.get(Family::Meta, key.as_bytes()).unwrap();
    assert_eq!(get("a"), None);
    assert_eq!(get("b"), Some(bytes("again")));
    assert_eq!(get("c"), Some(bytes("value of c")));
    assert_eq!(get("d"), None);
    assert_eq!(get("e"), Some(bytes("second")));
}

fn families_do_not_mix<P: Place>() {
    let place = P::default();
    let store = place.open();
    put(&store, Family::Log, &["a"]);
    assert_eq!(store.get(Family::Meta, b"a").unwrap(), None);
    let mut batch = Batch::default();
    batch.delete(Family::Meta, "a");
    batch.delete_range("", "z");
    store.commit(&batch, false).unwrap();
    assert_eq!(store.get(Family::Log, b"a").unwrap(), Some(bytes("value of a")));
}

fn scans_are_ascending_and_half_open<P: Place>() {
    let place = P::default();
    let store = place.open();
    for family in [Family::Log, Family::Meta] {
        put(&store, family, &["d", "b"]);
        store.roll().unwrap();
        put(&store, family, &["c", "a", "e"]);
        assert_eq!(keys_at(&store, family, "b", "e"), ["b", "c", "d"]);
        assert_eq!(keys_at(&store, family, "bb", "cc"), ["c"]);
        assert!(keys_at(&store, family, "bb", "c").is_empty());
        assert!(keys_at(&store, family, "c", "b").is_empty());
        assert!(keys_at(&store, family, "f", "z").is_empty());
    }
}

fn scans_begin_at_or_before_a_key<P: Place>() {
    let place = P::default();
    let store = place.open();
    let check = |key: &str, floor: &str, end: &str, expected: &[&str]| {
        let start = Start::AtOrBefore { key: bytes(key), floor: bytes(floor) };
        let page = store.scan(&scan(Family::Log, start, end)).unwrap();
        assert_eq!(keys(&page), expected, "key {key}, floor {floor}, end {end}");
    };
    check("c", "a", "z", &[]);
    put(&store, Family::Log, &["b", "f"]);
    store.roll().unwrap();
    put(&store, Family::Log, &["d"]);
    check("d", "a", "z", &["d", "f"]);
    check("d", "d", "z", &["d", "f"]);
    check("e", "a", "z", &["d", "f"]);
    check("e", "d", "z", &["d", "f"]);
    check("e", "dd", "z", &["f"]);
    check("e", "e", "z", &["f"]);
    check("a", "a", "z", &["b", "d", "f"]);
    check("bb", "c", "z", &["d", "f"]);
    check("g", "a", "z", &["f"]);
    check("g", "g", "z", &[]);
    check("e", "a", "f", &["d"]);
    check("e", "e", "f", &[]);
    check("c", "a", "d", &["b"]);
}

fn pages_end_at_their_bounds_and_hold_at_least_one_entry<P: Place>() {
    let place = P::default();
    let store = place.open();
    let mut batch = Batch::default();
    for key in ["a", "b", "c", "d"] {
        batch.put(Family::Log, key, vec![0; 100]);
    }
    store.commit(&batch, false).unwrap();
    let page = |entries_max, bytes_max| {
        let whole = scan(Family::Log, Start::At(bytes("a")), "z");
        store.scan(&Scan { entries_max, bytes_max, ..whole }).unwrap()
    };
    for (entries_max, bytes_max, expected) in [
        (1, 1000, 1),
        (3, 1000, 3),
        (0, 1000, 1),
        (9, 0, 1),
        (9, 100, 1),
        (9, 199, 1),
        (9, 200, 2),
        (9, 399, 3),
        (0, 0, 1),
    ] {
        let page = page(entries_max, bytes_max);
        assert_eq!((page.entries.len(), page.more), (expected, true), "{entries_max} entries, {bytes_max} bytes");
        let beyond = page.beyond.map(|(key, _)| key);
        let bounded_by_bytes = expected < entries_max && expected * 100 < bytes_max;
        assert_eq!(beyond, bounded_by_bytes.then(|| bytes(["a", "b", "c", "d"][expected])), "{bytes_max} bytes");
    }
    let page = page(5, 401);
    assert_eq!((page.entries.len(), page.more), (4, false));
}

fn pages_join_into_the_whole_range<P: Place>() {
    let place = P::default();
    let store = place.open();
    // Values around the sizes where a disk reads in another way: a block, the readahead.
    let sizes = [1, 70_000, 10, 300_000, 1_500_000, 2, 64 << 10, 1 << 20, 5];
    for (index, size) in sizes.iter().enumerate() {
        let mut batch = Batch::default();
        batch.put(Family::Log, vec![index as u8], vec![index as u8; *size]);
        store.commit(&batch, false).unwrap();
        if index % 4 == 3 {
            store.roll().unwrap();
        }
    }
    for bytes_max in [1, 100_000, 2 << 20, 64 << 20] {
        let mut from = Bytes::new();
        let mut found = Vec::new();
        loop {
            let end = Bytes::from_static(&[200]);
            let page = Scan { family: Family::Log, start: Start::At(from.clone()), end, entries_max: 100, bytes_max };
            let page = store.scan(&page).unwrap();
            for (key, value) in &page.entries {
                assert!(value.iter().all(|byte| *byte == key[0]));
                found.push(value.len());
                from = Bytes::from(vec![key[0] + 1]);
            }
            if !page.more {
                break;
            }
        }
        assert_eq!(found, sizes, "pages of {bytes_max} bytes");
    }
}

fn a_deleted_range_is_half_open<P: Place>() {
    let place = P::default();
    let store = place.open();
    put(&store, Family::Meta, &["a", "b", "bb", "c", "d"]);
    store.roll().unwrap();
    let delete = |from: &'static str, to: &'static str| {
        let mut batch = Batch::default();
        batch.delete_range(from, to);
        store.commit(&batch, false).unwrap();
    };
    delete("b", "c");
    assert_eq!(keys_at(&store, Family::Meta, "", "z"), ["a", "c", "d"]);
    delete("c", "c");
    delete("d", "a");
    assert_eq!(keys_at(&store, Family::Meta, "", "z"), ["a", "c", "d"]);
}

fn dropping_a_range_keeps_what_is_outside<P: Place>() {
    let place = P::default();
    let store = place.open();
    // Four epochs; the border lies on a key that is there, in the middle of an epoch and between two.
    for epoch in ["1", "2", "3", "4"] {
        put(&store, Family::Log, &[&format!("{epoch}a"), &format!("{epoch}b"), &format!("{epoch}c")]);
        store.roll().unwrap();
    }
    put(&store, Family::Meta, &["2a"]);
    store.drop_range(b"2", b"2c").unwrap();
    store.drop_range(b"2", b"3").unwrap();
    store.drop_range(b"3b", b"4a").unwrap();
    store.drop_range(b"4", b"4").unwrap();
    store.drop_range(b"4b", b"4").unwrap();
    store.drop_range(b"4", b"").unwrap();
    let store = place.kill_and_open(store);
    assert_eq!(keys_at(&store, Family::Log, "1", "2"), ["1a", "1b", "1c"]);
    assert_eq!(keys_at(&store, Family::Log, "3", "3b"), ["3a"]);
    assert_eq!(keys_at(&store, Family::Log, "4", "5"), ["4a", "4b", "4c"]);
    assert_eq!(keys_at(&store, Family::Meta, "", "z"), ["2a"]);
}

fn everything_committed_survives_a_close<P: Place>() {
    let place = P::default();
    let mut store = place.open();
    for round in 0..3 {
        let key = round.to_string();
        put(&store, Family::Log, &[&key]);
        put(&store, Family::Meta, &[&key]);
        store = place.close_and_open(store);
    }
    assert_eq!(keys_at(&store, Family::Log, "", "z"), ["0", "1", "2"]);
    assert_eq!(keys_at(&store, Family::Meta, "", "z"), ["0", "1", "2"]);
}

fn everything_committed_survives_the_process<P: Place>() {
    let place = P::default();
    let mut store = place.open();
    for round in 0..4 {
        let key = round.to_string();
        put(&store, Family::Log, &[&key]);
        if round % 2 == 0 {
            store.roll().unwrap();
        }
        put(&store, Family::Meta, &[&key]);
        store = place.kill_and_open(store);
    }
    assert_eq!(keys_at(&store, Family::Log, "", "z"), ["0", "1", "2", "3"]);
    assert_eq!(keys_at(&store, Family::Meta, "", "z"), ["0", "1", "2", "3"]);
}

fn a_batch_without_changes_can_be_synced<P: Place>() {
    let place = P::default();
    let store = place.open();
    store.commit(&Batch::default(), false).unwrap();
    put(&store, Family::Log, &["a"]);
    store.commit(&Batch::default(), true).unwrap();
    assert_eq!(keys_at(&store, Family::Log, "", "z"), ["a"]);
}

fn log_bytes_counts_what_a_roll_writes_out<P: Place>() {
    let place = P::default();
    let store = place.open();
    let mut batch = Batch::default();
    batch.put(Family::Meta, "m", vec![0; 1000]);
    batch.delete(Family::Log, "l");
    assert_eq!(batch.log_bytes(), 0);
    batch.put(Family::Log, "l", vec![0; 1000]);
    assert!((1001..1200).contains(&batch.log_bytes()));
    assert!(store.epoch_bytes_max() > batch.log_bytes());
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Op>, bool),
    Roll,
    Kill,
    Close,
    Look { family: Family, key: Bytes, floor: Option<Bytes>, end: Bytes, entries_max: usize, bytes_max: usize },
}

fn any_key() -> impl Strategy<Value = Bytes> {
    // Few, and with the bytes at both ends, so that steps meet.
    prop::collection::vec(prop::sample::select(vec![0, 1, 0x7f, 0xff]), 0..3).prop_map(Bytes::from)
}

fn any_family() -> impl Strategy<Value = Family> {
    prop::sample::select(vec![Family::Log, Family::Meta])
}

fn any_op() -> impl Strategy<Value = Op> {
    let value = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        6 => (any_family(), any_key(), value).prop_map(|(family, key, value)| Op::Put { family, key, value }),
        2 => (any_family(), any_key()).prop_map(|(family, key)| Op::Delete { family, key }),
        1 => (any_key(), any_key()).prop_map(|(from, to)| Op::DeleteRange { from, to }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let look = (any_family(), any_key(), prop::option::of(any_key()), any_key(), 0..6_usize, 0..120_usize);
    prop_oneof![
        8 => (prop::collection::vec(any_op(), 0..5), any::<bool>()).prop_map(|(ops, sync)| Step::Commit(ops, sync)),
        2 => Just(Step::Roll),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        12 => look.prop_map(|(family, key, floor, end, entries_max, bytes_max)| {
            Step::Look { family, key, floor, end, entries_max, bytes_max }
        }),
    ]
}

#[derive(Default)]
struct Model(BTreeMap<(bool, Bytes), Bytes>);

impl Model {
    fn apply(&mut self, op: &Op) {
        let is_log = |family: &Family| *family == Family::Log;
        match op {
            Op::Put { family, key, value } => {
                self.0.insert((is_log(family), key.clone()), value.clone());
            }
            Op::Delete { family, key } => {
                self.0.remove(&(is_log(family), key.clone()));
            }
            Op::DeleteRange { from, to } => self.0.retain(|(log, key), _| *log || key < from || key >= to),
        }
    }

    /// The contract of a scan, read off its words.
    fn page(&self, scan: &Scan) -> (Vec<(Bytes, Bytes)>, bool) {
        let family = self.0.iter().filter(|((log, _), _)| *log == (scan.family == Family::Log));
        let all: Vec<_> = family.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        let from = match &scan.start {
            Start::At(key) => key.clone(),
            Start::AtOrBefore { key, floor } => {
                let before = all.iter().rev().find(|(found, _)| found <= key && found >= floor);
                before.map_or(key.clone(), |(found, _)| found.clone())
            }
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (key, value) in all.into_iter().filter(|(key, _)| *key >= from && *key < scan.end) {
            bytes += value.len();
            if bytes > scan.bytes_max && !entries.is_empty() {
                return (entries, true);
            }
            entries.push((key, value));
            if entries.len() >= scan.entries_max || bytes >= scan.bytes_max {
                return (entries, true);
            }
        }
        (entries, false)
    }
}

fn behaves_like_the_model<P: Place>(steps: Vec<Step>) {
    let place = P::default();
    let mut store = place.open();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(ops, sync) => {
                ops.iter().for_each(|op| model.apply(op));
                store.commit(&Batch { ops }, sync).unwrap();
            }
            Step::Roll => store.roll().unwrap(),
            Step::Kill => store = place.kill_and_open(store),
            Step::Close => store = place.close_and_open(store),
            Step::Look { family, key, floor, end, entries_max, bytes_max } => {
                let expected = model.0.get(&(family == Family::Log, key.clone()));
                assert_eq!(store.get(family, &key).unwrap().as_ref(), expected);
                // The key of a backward start lies below the end.
                let (start, end) = match floor {
                    None => (Start::At(key), end),
                    Some(floor) if key < end => (Start::AtOrBefore { key, floor }, end),
                    Some(floor) => {
                        let end = Bytes::from([&key[..], &[0]].concat());
                        (Start::AtOrBefore { key, floor }, end)
                    }
                };
                let scan = Scan { family, start, end, entries_max, bytes_max };
                let page = store.scan(&scan).unwrap();
                assert_eq!((page.entries, page.more), model.page(&scan), "{scan:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_behaves_like_the_model(steps in prop::collection::vec(any_step(), 1..60)) {
        behaves_like_the_model::<Memory>(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rocks_behaves_like_the_model(steps in prop::collection::vec(any_step(), 1..60)) {
        behaves_like_the_model::<Disk>(steps);
    }
}
