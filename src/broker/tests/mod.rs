//! The broker on a store in memory, against a model: whatever happens to it, what was acknowledged is there, in order,
//! once.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::catalog::{Draft, NewStream};
use super::{Broker, BrokerOptions, CatalogError, Stream, Terms};
use crate::clock::Clock;
use crate::config::MasterKey;
use crate::log::partition::ReadError;
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{self, Compressor, Options, Producer, Record};
use crate::model::ids::{Offset, PartitionIndex, ShardOrdinal};
use crate::model::settings::{BrokerValues, Overrides};
use crate::model::shard::{LineageError, SplitAt};
use crate::store::StoreError;
use crate::store::memory::MemoryStore;

mod read_ahead;
mod reshard;
mod retention;
mod transactions;

const PARTITIONS: u32 = 3;
/// Small, so that epochs step every few batches.
const EPOCH_BYTES: usize = 2_000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(store: &Arc<MemoryStore>, clock: &Clock, tail_bytes_max: usize) -> Arc<Broker> {
    let master_keys = vec![MasterKey { id: "key".into(), secret: [1; 32], disabled: false }];
    let options = BrokerOptions {
        sync: false,
        tail_bytes_max,
        compaction_bytes_max: 1 << 20,
        values: BrokerValues::default(),
        master_keys,
    };
    Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap()
}

fn values(batch: &[u8], value: u64, count: usize, producer: Option<Producer>) -> Bytes {
    let records: Vec<Record> = (0..count)
        .map(|n| Record {
            offset: 0,
            timestamp: 1_000,
            key: None,
            value: Some(Bytes::from(format!("{}-{value}-{n}", String::from_utf8_lossy(batch)))),
            headers: Vec::new(),
        })
        .collect();
    batch::build(&records, &Options { compressor: Compressor::None, producer }).unwrap()
}

async fn new_stream(broker: &Broker, name: &str) -> Arc<Stream> {
    let partitions = NonZeroU32::new(PARTITIONS).unwrap();
    let attributes = Attributes::new(broker.clock().now_ms());
    let overrides = Default::default();
    let new = NewStream { name: name.into(), partitions, claimed_replicas: 1, overrides, attributes };
    broker.create_stream(new).await.unwrap()
}

/// Every record from `offset` on: `(offset, value)`.
async fn read_all(broker: &Broker, stream: &Stream, index: u32, mut offset: Offset) -> Vec<(Offset, Bytes)> {
    let partition = stream.partition(PartitionIndex(index)).unwrap();
    let mut found = Vec::new();
    while offset < partition.end_offset() {
        let batches = broker.read(&partition, offset, Offset::MAX, 300).await.unwrap();
        assert!(!batches.is_empty(), "nothing at {offset} of {:?}", partition.extent());
        for stored in batches {
            for record in batch::records(&stored.batch()).unwrap() {
                let record = record.unwrap();
                if record.offset >= offset {
                    found.push((record.offset, record.value.unwrap()));
                }
            }
            offset = stored.last_offset + 1;
        }
    }
    found
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        partition: u32,
        records: usize,
        idempotent: bool,
    },
    /// An idempotent producer sends its last batch again.
    Resend {
        partition: u32,
    },
    Trim {
        partition: u32,
        keep: usize,
    },
    Reclaim,
    Kill,
    Stop,
    /// What is appended from now on is sealed at rest, by a new key, or no longer.
    Encrypt(bool),
    /// Another stream is filled and deleted: what it leaves must disturb nobody.
    Churn {
        batches: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..PARTITIONS;
    let step = prop_oneof![
        8 => (partition.clone(), 1..6_usize, any::<bool>())
            .prop_map(|(partition, records, idempotent)| Step::Append { partition, records, idempotent }),
        2 => partition.clone().prop_map(|partition| Step::Resend { partition }),
        2 => (partition, 0..20_usize).prop_map(|(partition, keep)| Step::Trim { partition, keep }),
        3 => Just(Step::Reclaim),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        1 => any::<bool>().prop_map(Step::Encrypt),
        2 => (1..30_usize).prop_map(|batches| Step::Churn { batches }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What must be true of one partition.
#[derive(Default)]
struct Expected {
    log_start: Offset,
    records: Vec<Bytes>,
    /// The idempotent producer's next sequence, and its last batch with the offset it got.
    sequence: i32,
    last: Option<(Bytes, Offset)>,
}

struct Rig {
    store: Arc<MemoryStore>,
    clock: Clock,
    tail_bytes_max: usize,
    broker: Arc<Broker>,
    stream: Arc<Stream>,
    expected: HashMap<u32, Expected>,
    written: u64,
}

impl Rig {
    async fn new(tail_bytes_max: usize) -> Rig {
        let store = Arc::new(MemoryStore::with_epoch_bytes_max(EPOCH_BYTES));
        let clock = Clock::manual(1_000);
        let broker = open(&store, &clock, tail_bytes_max);
        let stream = new_stream(&broker, "kept").await;
        let expected = (0..PARTITIONS).map(|index| (index, Expected::default())).collect();
        Rig { store, clock, tail_bytes_max, broker, stream, expected, written: 0 }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { partition, records, idempotent } => self.append(partition, records, idempotent).await,
            Step::Resend { partition } => self.resend(partition).await,
            Step::Trim { partition, keep } => self.trim(partition, keep).await,
            Step::Reclaim => self.broker.reclaim().await.unwrap(),
            Step::Kill => {
                self.store = Arc::new(self.store.survivor(false));
                self.reopen();
            }
            Step::Stop => {
                self.broker.close().await.unwrap();
                self.store = Arc::new(self.store.survivor(true));
                self.reopen();
            }
            Step::Encrypt(true) => self.broker.start_encryption(&self.stream, "key").await.unwrap(),
            Step::Encrypt(false) => self.broker.stop_encryption(&self.stream, "key").await.unwrap(),
            Step::Churn { batches } => self.churn(batches).await,
        }
    }

    fn reopen(&mut self) {
        self.broker = open(&self.store, &self.clock, self.tail_bytes_max);
        self.stream = self.broker.stream("kept").unwrap();
    }

    async fn append(&mut self, partition: u32, count: usize, idempotent: bool) {
        let expected = self.expected.get_mut(&partition).unwrap();
        self.written += 1;
        let producer = idempotent.then(|| Producer {
            id: i64::from(partition),
            epoch: 0,
            base_sequence: expected.sequence,
            transactional: false,
        });
        let bytes = values(b"kept", self.written, count, producer);
        let ticket = self.broker.append(&self.stream, PartitionIndex(partition), &bytes, Terms::default()).unwrap();
        let at = ticket.committed().await.unwrap();
        let base_offset = at.base_offset.unwrap();
        assert_eq!(base_offset, expected.records.len() as Offset);
        for record in batch::records(&bytes).unwrap() {
            expected.records.push(record.unwrap().value.unwrap());
        }
        if idempotent {
            expected.sequence += count as i32;
            expected.last = Some((bytes, base_offset));
        }
    }

    async fn resend(&mut self, partition: u32) {
        let Some((bytes, base_offset)) = self.expected[&partition].last.clone() else { return };
        let ticket = self.broker.append(&self.stream, PartitionIndex(partition), &bytes, Terms::default()).unwrap();
        assert_eq!(ticket.committed().await.unwrap().base_offset, Some(base_offset));
    }

    async fn trim(&mut self, partition: u32, keep: usize) {
        let expected = self.expected.get_mut(&partition).unwrap();
        let wanted = expected.records.len().saturating_sub(keep) as Offset;
        expected.log_start = expected.log_start.max(wanted);
        let log = self.stream.partition(PartitionIndex(partition)).unwrap();
        assert_eq!(self.broker.trim(&log, wanted).await.unwrap(), expected.log_start);
    }

    async fn churn(&mut self, batches: usize) {
        let stream = new_stream(&self.broker, "churned").await;
        for n in 0..batches {
            let bytes = values(b"churned", n as u64, 3, None);
            self.broker
                .append(&stream, PartitionIndex(0), &bytes, Terms::default())
                .unwrap()
                .committed()
                .await
                .unwrap();
        }
        self.broker.delete_stream(&stream).await.unwrap();
        assert!(self.broker.append(&stream, PartitionIndex(0), &values(b"x", 0, 1, None), Terms::default()).is_err());
    }

    async fn check(&self) {
        for (index, expected) in &self.expected {
            let log = self.stream.partition(PartitionIndex(*index)).unwrap();
            assert_eq!((log.log_start(), log.end_offset()), (expected.log_start, expected.records.len() as Offset));
            let found = read_all(&self.broker, &self.stream, *index, expected.log_start).await;
            let wanted: Vec<(Offset, Bytes)> = (expected.log_start..)
                .zip(expected.records.iter().skip(expected.log_start as usize).cloned())
                .collect();
            assert_eq!(found, wanted, "partition {index}");
            let before = self.broker.read(&log, expected.log_start - 1, Offset::MAX, 1).await;
            assert!(matches!(before, Err(ReadError::OutOfRange { .. })));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_in_order_and_once(steps in steps(), cold in any::<bool>()) {
        runtime().block_on(async {
            let mut rig = Rig::new(if cold { 0 } else { 1_000 }).await;
            for step in &steps {
                rig.take(step).await;
            }
            rig.check().await;
            rig.take(&Step::Kill).await;
            rig.check().await;
            rig.take(&Step::Stop).await;
            rig.check().await;
        });
    }
}

#[test]
fn a_few_long_lived_records_do_not_keep_dead_epochs() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        for _ in 0..40 {
            rig.append(0, 1, false).await;
            rig.churn(20).await;
        }
        for _ in 0..60 {
            rig.broker.reclaim().await.unwrap();
        }
        let alive: u64 = rig.stream.partitions().iter().map(|log| log.extent().bytes).sum();
        let held = rig.broker.figures().file_bytes;
        assert!(held <= 2 * alive + 5 * EPOCH_BYTES as u64, "{held} bytes are held for {alive} alive");
        rig.check().await;
        rig.take(&Step::Kill).await;
        rig.check().await;
    });
}

#[test]
fn files_go_only_after_what_made_them_dead_is_durable() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        for _ in 0..40 {
            rig.append(0, 5, false).await;
        }
        let held = rig.store.hold_commits();
        let deletion = tokio::spawn({
            let (broker, stream) = (rig.broker.clone(), rig.stream.clone());
            async move { broker.delete_stream(&stream).await }
        });
        let reclaim = tokio::spawn({
            let broker = rig.broker.clone();
            async move { broker.reclaim().await }
        });
        // Work queued to the blocking threads behind the reclaim's gives it every chance to run ahead.
        for _ in 0..200 {
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
        let killed = Arc::new(rig.store.survivor(false));
        drop(held);
        deletion.await.unwrap().unwrap();
        reclaim.await.unwrap().unwrap();
        rig.store = killed;
        rig.reopen();
        rig.check().await;
    });
}

#[test]
fn nothing_is_visible_or_acknowledged_before_it_is_committed() {
    runtime().block_on(async {
        let rig = Rig::new(1_000).await;
        let held = rig.store.hold_commits();
        let bytes = values(b"kept", 1, 2, None);
        let ticket = rig.broker.append(&rig.stream, PartitionIndex(0), &bytes, Terms::default()).unwrap();
        let log = rig.stream.partition(PartitionIndex(0)).unwrap();
        tokio::task::spawn_blocking(move || {
            held.wait_for_commit();
            drop(held);
        });
        assert_eq!(log.end_offset(), 0);
        let mut ends = log.watch_end();
        assert_eq!(ticket.committed().await.unwrap().base_offset, Some(0));
        assert_eq!(*ends.wait_for(|end| *end > 0).await.unwrap(), 2);
    });
}

#[test]
fn what_comes_too_late_for_a_stop_is_not_taken_for_known_when_it_comes_again() {
    runtime().block_on(async {
        let mut rig = Rig::new(1_000).await;
        let producer = |base_sequence| Some(Producer { id: 7, epoch: 0, base_sequence, transactional: false });
        let sent: Vec<Bytes> = (0..3).map(|n| values(b"kept", n, 1, producer(n as i32))).collect();
        let append = |rig: &Rig, n: usize| {
            rig.broker.append(&rig.stream, PartitionIndex(0), &sent[n], Terms::default()).unwrap().committed()
        };
        append(&rig, 0).await.unwrap();
        let held = rig.store.hold_commits();
        let first = append(&rig, 1);
        held.wait_for_commit();
        let mut closed = Box::pin(rig.broker.close());
        tokio::select! {
            biased;
            _ = &mut closed => panic!("it waits for what is queued"),
            () = std::future::ready(()) => {}
        }
        let late = append(&rig, 2);
        tokio::task::spawn_blocking(move || drop(held));
        closed.await.unwrap();
        first.await.unwrap();
        assert!(late.await.is_ok(), "it was queued before the writer had ended");
        assert!(append(&rig, 2).await.is_err());
        rig.store = Arc::new(rig.store.survivor(true));
        rig.reopen();
        for n in [1, 2, 2] {
            assert_eq!(append(&rig, n).await.unwrap().base_offset, Some(n as Offset));
        }
        assert_eq!(read_all(&rig.broker, &rig.stream, 0, 0).await.len(), 3);
    });
}

#[test]
fn after_a_commit_of_unknown_outcome_nothing_more_is_written_until_a_restart_tells() {
    runtime().block_on(async {
        let mut rig = Rig::new(1_000).await;
        rig.append(0, 1, false).await;
        rig.store.fail_next_commits(1, StoreError::Unknown("the disk went away".into()));
        let bytes = values(b"kept", 2, 1, None);
        let ticket = rig.broker.append(&rig.stream, PartitionIndex(0), &bytes, Terms::default()).unwrap();
        assert!(ticket.committed().await.is_err());
        assert!(rig.broker.append(&rig.stream, PartitionIndex(1), &bytes, Terms::default()).is_err());
        assert!(rig.broker.failure().is_some());
        assert_eq!(read_all(&rig.broker, &rig.stream, 0, 0).await.len(), 1);
        rig.store = Arc::new(rig.store.survivor(false));
        rig.reopen();
        // The memory store did commit it: the restart tells so.
        assert_eq!(read_all(&rig.broker, &rig.stream, 0, 0).await.len(), 2);
    });
}

#[test]
fn partitions_added_are_splits_that_last() {
    runtime().block_on(async {
        let mut rig = Rig::new(1_000).await;
        for partition in 0..PARTITIONS {
            rig.append(partition, 3, false).await;
        }
        rig.broker.add_partitions(&rig.stream, 5).await.unwrap();
        for _ in 0..2 {
            // Two of the three were split, and go on under a new leader epoch; two are new.
            let mut epochs = rig.stream.leader_epochs();
            let split = epochs.iter().position(|epoch| *epoch == 1).unwrap() as u32;
            epochs.sort();
            assert_eq!(epochs, [0, 0, 0, 1, 1]);
            assert_eq!(rig.stream.end_offset_for_epoch(PartitionIndex(split), 0), Some((0, 3)));
            rig.take(&Step::Kill).await;
        }
        assert!(rig.broker.add_partitions(&rig.stream, 5).await.is_err());
    });
}

#[test]
fn producer_ids_are_never_given_twice() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        let mut given = Vec::new();
        for _ in 0..3 {
            given.push(rig.broker.new_producer_id().await.unwrap());
            given.push(rig.broker.new_producer_id().await.unwrap());
            rig.take(&Step::Kill).await;
        }
        let mut distinct = given.clone();
        distinct.dedup();
        assert!(given.is_sorted() && distinct == given, "{given:?}");
    });
}

#[test]
fn a_deletion_that_has_begun_is_carried_out_when_due_also_after_a_kill() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.append(0, 1, false).await;
        let other = new_stream(&rig.broker, "other").await;
        rig.broker.begin_deletion(&rig.stream, 1_500).await.unwrap();
        // To begin again does not put it off.
        rig.broker.begin_deletion(&rig.stream, 9_000).await.unwrap();
        for _ in 0..2 {
            assert!(
                rig.broker.stream("kept").is_none() && rig.broker.stream_by_topic_id(rig.stream.topic_id).is_none()
            );
            assert_eq!(rig.broker.streams().len(), 1);
            rig.stream = rig.broker.stream_in_any_state("kept").unwrap();
            // Its records are there until the end.
            rig.check().await;
            assert_eq!(rig.broker.finish_deletions().await.unwrap(), Some(1_500));
            rig.store = Arc::new(rig.store.survivor(false));
            rig.broker = open(&rig.store, &rig.clock, 0);
        }
        rig.clock.advance(500);
        assert_eq!(rig.broker.finish_deletions().await.unwrap(), None);
        assert!(rig.broker.stream_in_any_state("kept").is_none());
        assert!(new_stream(&rig.broker, "kept").await.partition(PartitionIndex(0)).unwrap().end_offset() == 0);
        let other = rig.broker.stream(&other.name).unwrap();
        rig.broker.begin_deletion(&other, rig.clock.now_ms()).await.unwrap();
        assert!(other.is_deleted() && rig.broker.stream_in_any_state("other").is_none());
    });
}

#[test]
fn a_change_of_a_stream_is_whole_and_lasts_and_a_refused_one_leaves_no_trace() {
    runtime().block_on(async {
        let mut rig = Rig::new(0).await;
        rig.append(2, 4, false).await;
        let children = rig
            .broker
            .change_stream(&rig.stream, |draft| {
                draft.attributes.tags.insert("a".into(), "b".into());
                draft.overrides.insert("retention.ms".into(), "7".into());
                Ok::<_, CatalogError>(draft.split(ShardOrdinal(2), SplitAt::Midpoint)?)
            })
            .await
            .unwrap();
        assert_eq!((children.stays.0, children.opens.0), (3, 4));
        let refused = rig.broker.change_stream(&rig.stream, |draft| {
            draft.attributes.tags.clear();
            draft.overrides.clear();
            draft.split(ShardOrdinal(0), SplitAt::Midpoint)?;
            Ok::<_, CatalogError>(draft.split(ShardOrdinal(2), SplitAt::Midpoint)?)
        });
        assert!(matches!(refused.await, Err(CatalogError::Lineage(LineageError::ShardClosed(ShardOrdinal(2))))));
        for _ in 0..2 {
            assert_eq!(rig.stream.attributes().tags.len(), 1);
            assert_eq!((rig.stream.settings().retention_ms, rig.stream.partition_count()), (7, 4));
            assert_eq!(rig.stream.lineage().shard(ShardOrdinal(2)).unwrap().end_offset, Some(4));
            assert_eq!(rig.stream.leader_epochs(), [0, 0, 1, 0]);
            rig.take(&Step::Kill).await;
        }
    });
}
