//! Streams encrypted and not, through restarts, on a disk and in memory.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::{AppendError, BrokerOptions, Terms};
use crate::clock::Clock;
use crate::config::MasterKey;
use crate::log::partition::{Partition, ReadError};
use crate::metrics::Metrics;
use crate::model::batch::{self, Compressor, Options, Producer, Record};
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::settings::BrokerValues;
use crate::store::memory::MemoryStore;
use crate::store::rocks::{RocksOptions, RocksStore};
use crate::store::{Scan, Start};

/// Where stores live, one after another.
trait Place: Sized {
    fn fresh() -> Self;
    fn store(&self) -> Arc<dyn Store>;
    /// What the next process finds when this one is gone without a word.
    fn killed(self) -> Self;
}

impl Place for Arc<MemoryStore> {
    fn fresh() -> Self {
        Arc::new(MemoryStore::new())
    }

    fn store(&self) -> Arc<dyn Store> {
        self.clone()
    }

    fn killed(self) -> Self {
        Arc::new(self.survivor(false))
    }
}

struct Disk {
    folder: TempDir,
    store: Arc<RocksStore>,
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl Disk {
    fn open(folder: TempDir) -> Disk {
        let store = Arc::new(RocksStore::open(folder.path(), RocksOptions { memory_bytes: 8 << 20 }).unwrap());
        Disk { folder, store }
    }

    /// How often `marker` is found in the files as they are now.
    fn occurrences(&self, marker: &[u8]) -> usize {
        let contents = files(self.folder.path()).into_iter().filter_map(|path| std::fs::read(path).ok());
        contents.map(|content| content.windows(marker.len()).filter(|window| *window == marker).count()).sum()
    }
}

impl Place for Disk {
    fn fresh() -> Disk {
        Disk::open(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn killed(self) -> Disk {
        let copy = tempfile::tempdir().unwrap();
        for path in files(self.folder.path()) {
            let target = copy.path().join(path.strip_prefix(self.folder.path()).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(&path, target).unwrap();
        }
        Disk::open(copy)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn key(id: &str, byte: u8) -> MasterKey {
    MasterKey { id: id.into(), secret: [byte; 32], disabled: false }
}

fn broker(store: Arc<dyn Store>, master_keys: Vec<MasterKey>, tail_bytes_max: usize) -> Arc<Broker> {
    let options = BrokerOptions {
        sync: false,
        tail_bytes_max,
        compaction_bytes_max: 1 << 20,
        values: BrokerValues::default(),
        master_keys,
    };
    Broker::open(store, options, Clock::manual(1_000), Metrics::new(10)).unwrap()
}

async fn new_stream(broker: &Broker) -> Arc<Stream> {
    let new = NewStream {
        name: "kept".into(),
        partitions: NonZeroU32::MIN,
        claimed_replicas: 1,
        overrides: Default::default(),
        attributes: Attributes::new(1_000),
    };
    broker.create_stream(new).await.unwrap()
}

fn log(stream: &Stream) -> Arc<Partition> {
    stream.partition(PartitionIndex(0)).unwrap()
}

/// Appends one batch of one record, whose timestamp is its sequence, by an idempotent producer.
async fn append(broker: &Broker, stream: &Stream, sequence: i32, text: &str) -> Result<Offset, AppendError> {
    let record = Record {
        offset: 0,
        timestamp: i64::from(sequence),
        key: None,
        value: Some(text.to_owned().into()),
        headers: Vec::new(),
    };
    let producer = Some(Producer { id: 7, epoch: 0, base_sequence: sequence, transactional: false });
    let batch = batch::build(&[record], &Options { compressor: Compressor::None, producer }).unwrap();
    let ticket = broker.append(stream, PartitionIndex(0), &batch, Terms::default())?;
    Ok(ticket.committed().await?.base_offset.unwrap())
}

/// Everything from `offset` on: the record's text and whether it is sealed in the store.
async fn read(broker: &Broker, stream: &Stream, mut offset: Offset) -> Result<Vec<(String, bool)>, ReadError> {
    let mut found = Vec::new();
    while offset < log(stream).end_offset() {
        for stored in broker.read(&log(stream), offset, Offset::MAX, 1 << 20).await? {
            for record in batch::records(&stored.batch()).unwrap() {
                let text = String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap();
                found.push((text, stored.is_sealed_at_rest()));
            }
            offset = stored.last_offset + 1;
        }
    }
    Ok(found)
}

/// Starts, rotates and stops, with a batch in each state; the process is killed now and then.
fn what_was_written_across_the_switch_is_read<P: Place>(tail_bytes_max: usize) {
    runtime().block_on(async {
        let keys = || vec![key("new", 1), key("old", 2)];
        let open = |place: &P| {
            let broker = broker(place.store(), keys(), tail_bytes_max);
            let stream = broker.stream("kept");
            (broker, stream)
        };
        let mut place = P::fresh();
        let (mut broker, _) = open(&place);
        let mut stream = new_stream(&broker).await;
        let mut wanted = Vec::new();
        for (sequence, key_name) in
            [None, Some("old"), Some("alias/aws/kinesis"), None, Some("old")].into_iter().enumerate()
        {
            let in_use = stream.attributes().encryption.clone();
            match (key_name, in_use) {
                (Some(name), _) => broker.start_encryption(&stream, name).await.unwrap(),
                (None, Some(in_use)) => broker.stop_encryption(&stream, &in_use.key_name).await.unwrap(),
                (None, None) => {}
            }
            for half in 0..2 {
                let sequence = 2 * sequence as i32 + half;
                let text = format!("text-{sequence}");
                assert_eq!(append(&broker, &stream, sequence, &text).await.unwrap(), Offset::from(sequence));
                wanted.push((text, key_name.is_some()));
                assert_eq!(read(&broker, &stream, 0).await.unwrap(), wanted);
                if half == 0 {
                    place = place.killed();
                    let opened = open(&place);
                    (broker, stream) = (opened.0, opened.1.unwrap());
                    // A duplicate is known as such although its batch is sealed.
                    let again = append(&broker, &stream, sequence, &wanted[sequence as usize].0).await.unwrap();
                    assert_eq!(again, Offset::from(sequence));
                }
                assert_eq!(read(&broker, &stream, 0).await.unwrap(), wanted);
            }
            for (timestamp, _) in wanted.iter().enumerate() {
                let timestamp = timestamp as i64;
                let found = broker.offset_at_time(&log(&stream), timestamp, Offset::MAX).await.unwrap().unwrap();
                assert_eq!(found.offset, timestamp);
            }
        }
        broker.close().await.unwrap();
        let (broker, stream) = open(&place.killed());
        assert_eq!(read(&broker, &stream.unwrap(), 0).await.unwrap(), wanted);
    });
}

#[test]
fn on_disk_what_was_written_across_the_switch_is_read() {
    what_was_written_across_the_switch_is_read::<Disk>(0);
    what_was_written_across_the_switch_is_read::<Disk>(1 << 20);
}

#[test]
fn in_memory_what_was_written_across_the_switch_is_read() {
    what_was_written_across_the_switch_is_read::<Arc<MemoryStore>>(0);
    what_was_written_across_the_switch_is_read::<Arc<MemoryStore>>(1 << 20);
}

#[test]
fn no_file_shows_what_is_sealed() {
    runtime().block_on(async {
        let place = Disk::fresh();
        let broker = broker(place.store(), vec![key("a", 1)], 1 << 20);
        let stream = new_stream(&broker).await;
        append(&broker, &stream, 0, "an open text").await.unwrap();
        broker.start_encryption(&stream, "a").await.unwrap();
        for sequence in 1..20 {
            append(&broker, &stream, sequence, "a secret text").await.unwrap();
        }
        assert!(place.occurrences(b"an open text") > 0, "the write-ahead log is looked at");
        assert_eq!(place.occurrences(b"a secret text"), 0);
        broker.close().await.unwrap();
        assert!(place.occurrences(b"an open text") > 0, "the table files are looked at");
        for secret in [&b"a secret text"[..], &[1; 32]] {
            assert_eq!(place.occurrences(secret), 0);
        }
    });
}

#[test]
fn without_its_master_key_a_stream_keeps_its_order_and_what_is_open() {
    runtime().block_on(async {
        let place = Arc::<MemoryStore>::fresh();
        let first = broker(place.store(), vec![key("a", 1)], 0);
        let stream = new_stream(&first).await;
        append(&first, &stream, 0, "open").await.unwrap();
        first.start_encryption(&stream, "a").await.unwrap();
        append(&first, &stream, 1, "sealed").await.unwrap();

        let disabled = MasterKey { disabled: true, ..key("a", 1) };
        for (keys, wanted) in [
            (vec![], KeyError::Absent("a".into())),
            (vec![key("b", 1)], KeyError::Absent("a".into())),
            (vec![key("a", 2)], KeyError::Mismatch("a".into())),
            (vec![disabled], KeyError::Disabled("a".into())),
        ] {
            let place = place.clone().killed();
            let broker = broker(place.store(), keys, 0);
            let stream = broker.stream("kept").unwrap();
            assert_eq!(log(&stream).end_offset(), 2);
            let page = broker.read(&log(&stream), 0, Offset::MAX, 1 << 20).await.unwrap();
            assert_eq!(page.iter().map(|batch| batch.last_offset).collect::<Vec<_>>(), [0]);
            let refused = broker.read(&log(&stream), 1, Offset::MAX, 1 << 20).await;
            assert!(matches!(refused, Err(ReadError::Key(error)) if error == wanted));
            let refused = append(&broker, &stream, 2, "refused").await;
            assert!(matches!(refused, Err(AppendError::Key(error)) if error == wanted));
            // Another key or none lets it go on.
            broker.stop_encryption(&stream, "a").await.unwrap();
            assert_eq!(append(&broker, &stream, 2, "open again").await.unwrap(), 2);
            assert_eq!(read(&broker, &stream, 2).await.unwrap(), [("open again".to_owned(), false)]);
        }
    });
}

/// Changes one bit of the batch at `base_offset` behind the broker's back.
fn tamper(store: &MemoryStore, base_offset: Offset, at: usize) {
    let page = store
        .scan(&Scan {
            family: Family::Log,
            start: Start::At(Bytes::new()),
            end: Bytes::from_static(&[0xff; 32]),
            entries_max: 1_000,
            bytes_max: 1 << 20,
        })
        .unwrap();
    let (key, value) = page.entries.into_iter().find(|(key, _)| key.ends_with(&base_offset.to_be_bytes())).unwrap();
    let mut value = value.to_vec();
    let at = at.min(value.len() - 1);
    value[at] ^= 0x01;
    let mut batch = Batch::default();
    batch.put(Family::Log, key, value);
    store.commit(&batch, false).unwrap();
}

#[test]
fn a_changed_batch_is_corrupt_and_its_neighbours_are_not() {
    runtime().block_on(async {
        // A flag, the data key's number, the append time, a producer, a record, the end of the trailer.
        for at in [3, 7, 15, 16 + 50, 16 + 61 + 5, usize::MAX] {
            let store = Arc::<MemoryStore>::fresh();
            let broker = broker(store.store(), vec![key("a", 1)], 0);
            let stream = new_stream(&broker).await;
            broker.start_encryption(&stream, "a").await.unwrap();
            for sequence in 0..3 {
                append(&broker, &stream, sequence, "text").await.unwrap();
            }
            tamper(&store, 1, at);
            let page = broker.read(&log(&stream), 0, Offset::MAX, 1 << 20).await;
            assert_eq!(page.unwrap().iter().map(|batch| batch.base_offset).collect::<Vec<_>>(), [0], "{at}");
            let corrupt = broker.read(&log(&stream), 1, Offset::MAX, 1 << 20).await;
            assert!(matches!(corrupt, Err(ReadError::Store(StoreError::Corrupt(_)))), "{at}");
            assert_eq!(read(&broker, &stream, 2).await.unwrap(), [("text".to_owned(), true)], "{at}");
        }
    });
}

#[test]
fn a_key_that_is_not_there_changes_nothing() {
    runtime().block_on(async {
        let place = Arc::<MemoryStore>::fresh();
        let disabled = MasterKey { disabled: true, ..key("off", 3) };
        let broker = broker(place.store(), vec![key("a", 1), key("b", 2), disabled], 0);
        let stream = new_stream(&broker).await;
        for (name, wanted) in [("c", KeyError::NotFound("c".into())), ("alias/off", KeyError::Disabled("off".into()))] {
            let refused = broker.start_encryption(&stream, name).await;
            assert!(matches!(refused, Err(EncryptionError::Key(error)) if error == wanted));
            assert_eq!(stream.attributes().encryption, None);
        }
        broker.stop_encryption(&stream, "a").await.unwrap();
        broker.start_encryption(&stream, "alias/a").await.unwrap();
        let refused = broker.stop_encryption(&stream, "b").await;
        assert!(matches!(refused, Err(EncryptionError::OtherKey { in_use }) if in_use == "alias/a"));
        broker.stop_encryption(&stream, "arn:aws:kms:us-east-1:000000000000:key/a").await.unwrap();
        assert_eq!(stream.attributes().encryption, None);
    });
}

#[test]
fn a_deleted_stream_takes_its_keys_with_it() {
    runtime().block_on(async {
        let place = Arc::<MemoryStore>::fresh();
        let broker = broker(place.store(), vec![key("a", 1)], 0);
        let stream = new_stream(&broker).await;
        broker.start_encryption(&stream, "a").await.unwrap();
        append(&broker, &stream, 0, "text").await.unwrap();
        assert_eq!(broker.scan_meta(b"k").unwrap().len(), 1);
        broker.delete_stream(&stream).await.unwrap();
        assert_eq!(broker.scan_meta(b"k").unwrap().len(), 0);
        assert!(broker.start_encryption(&stream, "a").await.is_err());
        assert!(broker.read(&log(&stream), 0, Offset::MAX, 1).await.unwrap().is_empty());
    });
}
