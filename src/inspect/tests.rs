//! A folder that a broker on the disk has filled is inspected, as it was left and with faults planted in it.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::{Broker, BrokerOptions, CatalogError, End, Terms};
use crate::config::MasterKey;
use crate::group::offsets::CommittedOffset;
use crate::group::stored::{StoredConsumer, StoredConsumerMember};
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{self, Codec, Compressor, Options, Producer, Record, at};
use crate::model::ids::{Offset, ShardOrdinal};
use crate::model::settings::BrokerValues;
use crate::model::shard::SplitAt;
use crate::store::keys::{parse_batch_key, prefix_range};
use crate::store::rocks::{Released, RocksOptions};
use crate::store::{Batch, Scan, Start};

/// Memtables of 1 MiB.
const SMALL: RocksOptions = RocksOptions { memory_bytes: 8 << 20 };
const ORDERS: u32 = 1;
const TABLE: u32 = 2;
const SEALED: u32 = 3;
const TRANSACTIONAL: Terms = Terms { all_replicas: false, zstd_allowed: true, transactional: true };

fn master_keys() -> Vec<MasterKey> {
    vec![MasterKey { id: "key".into(), secret: [1; 32], disabled: false }]
}

fn records(keys: &[&str], bytes: usize, producer: Option<Producer>) -> Bytes {
    let record = |key: &&str| Record {
        offset: 0,
        timestamp: 1_000,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::from(vec![b'x'; bytes])),
        headers: Vec::new(),
    };
    let records: Vec<Record> = keys.iter().map(record).collect();
    batch::build(&records, &Options { compressor: Compressor::of(Codec::None), producer }).unwrap()
}

struct Rig {
    broker: Arc<Broker>,
    clock: Clock,
    folder: Released,
}

impl Rig {
    fn open(folder: &Path) -> Rig {
        let clock = Clock::manual(1_700_000_000_000);
        let store = Arc::new(RocksStore::open(folder, SMALL).unwrap());
        let folder = store.released().unwrap();
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 0,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: master_keys(),
        };
        Rig { broker: Broker::open(store, options, clock.clone(), Metrics::new(10)).unwrap(), clock, folder }
    }

    /// Stopped, or let go of as a kill does.
    async fn end(self, stopped: bool) {
        if stopped {
            self.broker.close().await.unwrap();
        }
        drop(self.broker);
        self.folder.wait().await;
    }

    async fn stream(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        let overrides = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let partitions = NonZeroU32::new(partitions).unwrap();
        let attributes = Attributes::new(self.clock.now_ms());
        let new = NewStream { name: name.into(), partitions, claimed_replicas: 1, overrides, attributes };
        self.broker.create_stream(new).await.unwrap();
    }

    async fn append(&self, name: &str, index: u32, batch: Bytes, terms: Terms) {
        let stream = self.broker.stream(name).unwrap();
        self.broker.append(&stream, PartitionIndex(index), &batch, terms).unwrap().committed().await.unwrap();
    }

    async fn end_transaction(&self, producer_id: i64, commit: bool) {
        let partitions = vec![(self.broker.stream("orders").unwrap(), PartitionIndex(0))];
        let end = End { producer_id, producer_epoch: 1, coordinator_epoch: 0, commit, partitions };
        self.broker.end_transaction(end, Batch::default()).await.unwrap().unwrap();
    }

    /// Shards that split and merge over several epochs, transactions that ended and one that is open, a compacted table,
    /// a stream that was sealed, a group.
    async fn fill(&self) {
        self.stream("orders", 2, &[]).await;
        for round in 0..30 {
            self.append("orders", round % 2, records(&["a", "b"], 300_000, None), Terms::default()).await;
        }
        let stream = self.broker.stream("orders").unwrap();
        let split = self
            .broker
            .change_stream(&stream, |draft| Ok::<_, CatalogError>(draft.split(ShardOrdinal(0), SplitAt::Midpoint)?));
        split.await.unwrap();
        for (sequence, id) in [(0, 7), (0, 8), (0, 9), (1, 9)] {
            let producer = Producer { id, epoch: 0, base_sequence: sequence, transactional: true };
            self.append("orders", 0, records(&["t"], 10, Some(producer)), TRANSACTIONAL).await;
        }
        self.end_transaction(7, false).await;
        self.end_transaction(8, true).await;
        let merge = self
            .broker
            .change_stream(&stream, |draft| Ok::<_, CatalogError>(draft.merge(ShardOrdinal(1), ShardOrdinal(3))?));
        merge.await.unwrap();
        self.append("orders", 2, records(&["absorbed"], 10, None), Terms::default()).await;

        let settings = [("cleanup.policy", "compact"), ("segment.ms", "1000"), ("min.cleanable.dirty.ratio", "0.0")];
        self.stream("table", 1, &settings).await;
        for round in 0..6 {
            self.append("table", 0, records(&["a", ["b", "c"][round % 2]], 10, None), Terms::default()).await;
            self.clock.advance(600);
        }
        self.clock.advance(5_000);
        self.broker.compact().await;
        self.append("table", 0, records(&["d"], 10, None), Terms::default()).await;

        self.stream("sealed", 1, &[]).await;
        self.append("sealed", 0, records(&["open"], 10, None), Terms::default()).await;
        let sealed = self.broker.stream("sealed").unwrap();
        self.broker.start_encryption(&sealed, "alias/aws/kinesis").await.unwrap();
        self.append("sealed", 0, records(&["secret"], 10, None), Terms::default()).await;
        self.group().await;
    }

    async fn group(&self) {
        let mut batch = Batch::default();
        let head = StoredConsumer { group_epoch: 4, assignment_epoch: 4, metadata_hash: 0 };
        batch.put(Family::Meta, Key::Group("readers").encode(), head.encode());
        let member = StoredConsumerMember {
            group_instance_id: None,
            rack_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 1,
            server_assignor: None,
            topics: ["orders".to_owned()].into(),
            regex: None,
            epoch: 4,
            previous_epoch: 3,
            waits_for: None,
            assigned: BTreeMap::new(),
            revoking: BTreeMap::new(),
            target: BTreeMap::new(),
            classic: None,
        };
        batch.put(Family::Meta, Key::GroupMember { group: "readers", member: "m" }.encode(), member.encode());
        let offset =
            CommittedOffset { offset: 3, leader_epoch: None, metadata: String::new(), commit_ms: 5, expire_ms: None };
        let key = Key::CommittedOffset { group: "readers", topic: "orders", partition: 1 };
        batch.put(Family::Meta, key.encode(), offset.encode());
        self.broker.commit_meta(batch).await.unwrap().unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A folder with all that [`Rig::fill`] makes; not stopped cleanly: what was written last is in the write-ahead log alone.
fn filled(stopped: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let rig = Rig::open(folder.path());
        rig.fill().await;
        rig.end(stopped).await;
    });
    folder
}

/// All that lies in and below a folder, by its path from there.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = Path::new(path.file_name().unwrap());
        match path.is_dir() {
            true => files.extend(self::files(&path).into_iter().map(|(below, content)| (name.join(below), content))),
            false => drop(files.insert(name.to_owned(), fs::read(&path).unwrap())),
        }
    }
    files
}

fn write(folder: &Path, name: &Path, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn options(folder: &Path) -> Inspect {
    Inspect { folder: folder.to_owned(), json: true, count: 20, master_keys: master_keys(), ..Inspect::default() }
}

fn printed(options: &Inspect) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = run(options, &mut out).unwrap();
    (outcome, String::from_utf8(out).unwrap())
}

fn report(options: &Inspect) -> (Outcome, serde_json::Value) {
    let (outcome, text) = printed(options);
    (outcome, serde_json::from_str(&text).unwrap())
}

fn faults(report: &serde_json::Value) -> Vec<String> {
    let listed = report["faults"]["listed"].as_array().unwrap().iter();
    listed.map(|fault| fault["fault"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_folder_is_told_as_it_was_left_and_stays_so() {
    for stopped in [true, false] {
        let folder = filled(stopped);
        let before = files(folder.path());
        let (outcome, report) = report(&options(folder.path()));
        assert_eq!(faults(&report), Vec::<String>::new(), "stopped {stopped}");
        assert_eq!(outcome, Outcome::Sound);
        assert_eq!(files(folder.path()), before, "stopped {stopped}");

        let stream = |at: usize| &report["streams"][at];
        let orders = stream(0);
        assert_eq!((orders["name"].as_str(), orders["status"].as_str()), (Some("orders"), Some("active")));
        let shards: Vec<_> = orders["shards"].as_array().unwrap().iter().collect();
        let told: Vec<(i64, i64, i64, bool)> = shards
            .iter()
            .map(|shard| {
                let number = |field: &str| shard[field].as_i64().unwrap();
                (number("start_offset"), number("next_offset"), number("records"), shard["open"].as_bool().unwrap())
            })
            .collect();
        // Of the shard that took transactions: four records, two markers.
        assert_eq!(told[0], (0, 30, 30, false));
        assert_eq!(told[2], (30, 36, 4, true));
        assert_eq!(shards[0]["children"][1], "shardId-000000000003");
        assert_eq!(shards[4]["parents"].as_array().unwrap().len(), 2);
        assert_eq!(told[4], (30, 31, 1, true), "what is addressed to the dormant partition stands here");
        let partitions = &orders["partitions"];
        assert_eq!(partitions[2]["absorbed_by"], "shardId-000000000004");
        assert_eq!((&partitions[0]["last_stable_offset"], &partitions[0]["end_offset"]), (&32.into(), &36.into()));
        assert_eq!(partitions[0]["open_transactions"][0]["producer_id"], 9);
        assert_eq!(partitions[0]["aborted_transactions"], 1);
        assert_eq!(partitions[0]["producers"].as_array().unwrap().len(), 3);
        assert!(partitions[0]["segments"].as_u64().unwrap() > 1, "several epochs");

        let table = &stream(1)["partitions"][0];
        assert_eq!((&stream(1)["name"], &table["end_offset"]), (&"table".into(), &13.into()));
        assert!(table["records"].as_i64().unwrap() < 13 && table["compacted_until"].as_i64() > Some(0));
        assert_eq!(stream(2)["data_keys"][0]["unusable"], serde_json::Value::Null);
        let group = &report["groups"][0];
        assert_eq!((&group["kind"], &group["state"]), (&"consumer".into(), &"Stable".into()));
        assert_eq!((&group["offsets"][0]["lag"], &group["members"][0]["id"]), (&28.into(), &"m".into()));

        // A broker still starts, and its folder is then as any other's.
        runtime().block_on(async { Rig::open(folder.path()).end(true).await });
        assert_eq!(faults(&self::report(&options(folder.path())).1), Vec::<String>::new());
    }
}

#[test]
fn people_are_told_the_same() {
    let folder = filled(true);
    let text = printed(&Inspect { json: false, ..options(folder.path()) }).1;
    for said in [
        "Stream orders (number 1): active, provisioned, delete, retention 7d, created 2023-11-14T22:13:20Z",
        "  shardId-000000000004  open    ",
        "dormant: shardId-000000000004 takes what is addressed to it",
        "open: producer 9, epoch 0, from offset 32 on",
        "encryption new batches are sealed under alias/aws/kinesis; data key 1 opens",
        "Group readers: consumer, Stable, generation 4",
        "No fault in ",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
}

#[test]
fn one_stream_and_some_of_its_batches_are_shown() {
    let folder = filled(false);
    let of = |stream: &str| Inspect { stream: Some(stream.into()), ..options(folder.path()) };
    let (outcome, told) = report(&of("orders"));
    assert_eq!((outcome, told["streams"].as_array().unwrap().len(), faults(&told).len()), (Outcome::Sound, 1, 0));
    assert_eq!(told["groups"].as_array().unwrap().len(), 1);
    assert_eq!(report(&of("sealed")).1["groups"].as_array().unwrap().len(), 0);
    assert!(matches!(run(&of("nowhere"), &mut Vec::new()), Err(InspectError::NoStream(_))));

    let shard = |shard| Inspect { shard: Some(shard), records: true, ..of("orders") };
    let batches = report(&Inspect { from: Some(31), ..shard(2) }).1;
    let offsets: Vec<i64> =
        batches.as_array().unwrap().iter().map(|batch| batch["base_offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [31, 32, 33, 34, 35]);
    assert_eq!((&batches[3]["marker"], &batches[4]["marker"]), (&"abort".into(), &"commit".into()));
    assert_eq!((&batches[0]["producer_id"], &batches[0]["contents"][0]["key"]), (&8.into(), &"t".into()));
    let few = report(&Inspect { count: 2, ..shard(0) }).1;
    assert_eq!(few.as_array().unwrap().len(), 2);
    assert!(matches!(run(&shard(9), &mut Vec::new()), Err(InspectError::NoShard { .. })));
}

#[test]
fn without_the_key_what_it_sealed_is_told_apart() {
    let folder = filled(true);
    let (outcome, told) = report(&Inspect { master_keys: Vec::new(), ..options(folder.path()) });
    assert_eq!((outcome, faults(&told)), (Outcome::Sound, vec![]));
    let unchecked = &told["unchecked"][0];
    assert_eq!((&unchecked["stream"], &unchecked["batches"]), (&"sealed".into(), &1.into()));
    assert!(unchecked["why"].as_str().unwrap().contains("master key key"), "{unchecked}");
}

#[test]
fn a_folder_that_cannot_be_read_is_said_to_be() {
    let folder = filled(true);
    let held = Rig::open(folder.path());
    let error = run(&options(folder.path()), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(held);
    let empty = tempfile::tempdir().unwrap();
    for nothing in [empty.path().to_owned(), empty.path().join("missing")] {
        let error = run(&options(&nothing), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("no broker has written in it"), "{error}");
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is made");
    }
}

fn partition_id(stream: u32, index: u32) -> PartitionId {
    PartitionId { stream: StreamId(stream), index: PartitionIndex(index) }
}

fn scan(store: &dyn Store, family: Family, from: Bytes, end: Bytes) -> Vec<(Bytes, Bytes)> {
    let scan = Scan { family, start: Start::At(from), end, entries_max: usize::MAX, bytes_max: usize::MAX };
    store.scan(&scan).unwrap().entries
}

/// Batches of a partition in the order of their offsets.
fn batches(store: &dyn Store, id: PartitionId) -> Vec<(Bytes, Bytes)> {
    let all = scan(store, Family::Log, Bytes::new(), Bytes::from_static(&[u8::MAX; 32]));
    let mut own: Vec<_> = all.into_iter().filter(|(key, _)| parse_batch_key(key).unwrap().1 == id).collect();
    own.sort_by_key(|(key, _)| parse_batch_key(key).unwrap().2);
    own
}

fn index_rows(store: &dyn Store, id: PartitionId) -> Vec<(Bytes, Bytes)> {
    let key = Key::Segment { partition: id, first_offset: 0 }.encode();
    let (from, to) = prefix_range(&key[..9]);
    scan(store, Family::Meta, from, to)
}

fn flipped(value: &Bytes, at: usize) -> Bytes {
    let mut bytes = value.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// What is found after `plant` has written into the folder.
fn found_after(pristine: &Path, plant: impl FnOnce(&dyn Store, &mut Batch)) -> (Outcome, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files(pristine) {
        write(folder.path(), &name, &content);
    }
    let store = RocksStore::open(folder.path(), SMALL).unwrap();
    let mut batch = Batch::default();
    plant(&store, &mut batch);
    store.commit(&batch, false).unwrap();
    drop(store);
    let (outcome, told) = report(&options(folder.path()));
    (outcome, faults(&told))
}

type Plant = fn(&dyn Store, &mut Batch);

#[test]
fn every_planted_fault_is_told() {
    let folder = filled(true);
    let cases: [(&str, Plant, &str); 14] = [
        (
            "a byte of a record",
            |store, batch| {
                let (key, value) = batches(store, partition_id(ORDERS, 0)).remove(3);
                batch.put(Family::Log, key, flipped(&value, value.len() - 1));
            },
            "the CRC-32C is",
        ),
        (
            "a cut batch",
            |store, batch| {
                let (key, value) = batches(store, partition_id(ORDERS, 0)).remove(3);
                batch.put(Family::Log, key, value.slice(..value.len() - 1));
            },
            "the record batch is cut",
        ),
        (
            "a batch that says it is elsewhere",
            |store, batch| {
                let (key, value) = batches(store, partition_id(ORDERS, 0)).remove(3);
                batch.put(Family::Log, key, flipped(&value, BatchHeader::LEN + at::BASE_OFFSET + 7));
            },
            "the batch that stands here says it is at offset 7",
        ),
        (
            "another leader epoch",
            |store, batch| {
                let (key, value) = batches(store, partition_id(ORDERS, 0)).remove(3);
                batch.put(Family::Log, key, flipped(&value, BatchHeader::LEN + at::PARTITION_LEADER_EPOCH + 3));
            },
            "the batch has leader epoch 1, its shard 0",
        ),
        (
            "a batch in the middle is gone",
            |store, batch| {
                batch.delete(Family::Log, batches(store, partition_id(ORDERS, 0)).remove(1).0);
            },
            "offsets 2..4 are missing before this batch",
        ),
        (
            "the last batch is gone",
            |store, batch| {
                batch.delete(Family::Log, batches(store, partition_id(ORDERS, 1)).pop().unwrap().0);
            },
            "but its last batch ends at 30",
        ),
        (
            "a row of the index is gone",
            |store, batch| {
                batch.delete(Family::Meta, index_rows(store, partition_id(ORDERS, 0)).remove(1).0);
            },
            "the index lacks offsets",
        ),
        (
            "the last row is gone",
            |store, batch| {
                batch.delete(Family::Meta, index_rows(store, partition_id(TABLE, 0)).pop().unwrap().0);
            },
            "as if they were not there",
        ),
        (
            "a row counts other bytes",
            |store, batch| {
                let (key, value) = index_rows(store, partition_id(ORDERS, 0)).remove(0);
                batch.put(Family::Meta, key, flipped(&value, 21));
            },
            "but its batches have",
        ),
        (
            "a row without its batches",
            |store, batch| {
                let (key, value) = index_rows(store, partition_id(ORDERS, 0)).remove(0);
                batch.put(Family::Meta, key, flipped(&value, 5));
            },
            "but there is no batch of it",
        ),
        (
            "a row that does not parse",
            |store, batch| {
                let (key, value) = index_rows(store, partition_id(ORDERS, 0)).remove(0);
                batch.put(Family::Meta, key, value.slice(1..));
            },
            "no broker can start on this folder",
        ),
        (
            "a stream that does not parse",
            |_, batch| {
                batch.put(Family::Meta, Key::Stream(StreamId(TABLE)).encode(), "{}");
            },
            "missing field",
        ),
        (
            "a marker is gone",
            |_, batch| {
                let aborted = Key::AbortedTransaction { partition: partition_id(ORDERS, 0), last_offset: 33 };
                batch.put(Family::Meta, aborted.encode(), vec![0; 24]);
            },
            "the batch there is no marker",
        ),
        (
            "a sealed byte",
            |store, batch| {
                let (key, value) = batches(store, partition_id(SEALED, 0)).remove(1);
                batch.put(Family::Log, key, flipped(&value, BatchHeader::LEN + at::RECORDS));
            },
            "does not open",
        ),
    ];
    for (what, plant, wanted) in cases {
        let (outcome, faults) = found_after(folder.path(), plant);
        assert!(faults.iter().any(|fault| fault.contains(wanted)), "{what}: {faults:#?}");
        assert_eq!(outcome, Outcome::Faulty, "{what}");
    }
    assert_eq!(found_after(folder.path(), |_, _| ()), (Outcome::Sound, vec![]));
}

#[test]
fn a_batch_that_rots_costs_what_follows_it_in_its_segment_and_nothing_else() {
    let folder = filled(true);
    let rotten = tempfile::tempdir().unwrap();
    let mut planted = 0;
    for (name, mut content) in files(folder.path()) {
        // Only batches hold such runs.
        let run = [b'x'; 50_000];
        let found = content.windows(run.len()).position(|bytes| bytes == run).filter(|_| planted == 0);
        if let Some(at) = found {
            content[at] ^= 1;
            planted += 1;
        }
        write(rotten.path(), &name, &content);
    }
    assert_eq!(planted, 1);
    let (outcome, told) = report(&options(rotten.path()));
    let faults = faults(&told);
    assert!(faults.iter().any(|fault| fault.contains("cannot be read")), "{faults:?}");
    assert_eq!(outcome, Outcome::Faulty);
    let batches = |report: &serde_json::Value| report["disk"]["batches"].as_u64().unwrap();
    let whole = report(&options(folder.path())).1;
    assert!((batches(&whole) / 2..batches(&whole)).contains(&batches(&told)), "most is read");
}

#[test]
fn faults_are_bounded_and_say_where_they_are() {
    let mut faults = report::Faults::default();
    for _ in 0..report::FAULTS_MAX + 7 {
        faults.of_stream("s", Some(1), "torn");
    }
    assert_eq!((faults.listed.len(), faults.left_out), (report::FAULTS_MAX, 7));
    let fault = report::Fault { offset: Some(Offset::MAX), ..faults.listed.remove(0) };
    assert_eq!(fault.to_string(), format!("stream s, partition 1, offset {}: torn", Offset::MAX));
}
