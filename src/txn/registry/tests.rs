//! The coordinator on a broker whose store is in memory, and can be cut after each of its commits.

use std::num::NonZeroU32;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::{AppendError, BrokerOptions, Stream, Terms, Ticket};
use crate::group::{CommitRequest, Fetched, GroupSettings, OffsetToCommit, TopicPartitions};
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{self, Compressor, Header, Options, Producer, Record};
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::settings::BrokerValues;
use crate::store::memory::MemoryStore;
use crate::store::{Figures, Page, Scan, Store, Volume};
use crate::txn::state::{EndRules, ProducerEpoch};

const TRANSACTIONAL: Terms = Terms { all_replicas: false, zstd_allowed: true, transactional: true };
const TIMEOUT_MS: i32 = 60_000;
const PARTITIONS: u32 = 2;

/// A store that remembers what a killed process would have left after each of its commits.
struct Cuts {
    inner: MemoryStore,
    cuts: Mutex<Vec<MemoryStore>>,
}

impl Cuts {
    fn new(inner: MemoryStore) -> Arc<Cuts> {
        Arc::new(Cuts { inner, cuts: Mutex::default() })
    }
}

impl Store for Cuts {
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.inner.commit(batch, sync)?;
        self.cuts.lock().push(self.inner.survivor(false));
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(family, key)
    }

    fn scan(&self, scan: &Scan) -> Result<Page, StoreError> {
        self.inner.scan(scan)
    }

    fn epoch_bytes_max(&self) -> usize {
        self.inner.epoch_bytes_max()
    }

    fn epoch_is_full(&self, epoch_bytes: usize) -> bool {
        self.inner.epoch_is_full(epoch_bytes)
    }

    fn roll(&self) -> Result<(), StoreError> {
        self.inner.roll()
    }

    fn drop_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.inner.drop_range(from, to)
    }

    fn figures(&self) -> Figures {
        self.inner.figures()
    }

    fn volume(&self) -> Option<Volume> {
        self.inner.volume()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

struct Bed {
    store: Arc<Cuts>,
    clock: Clock,
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    transactions: Arc<Transactions>,
}

impl Bed {
    async fn new() -> Bed {
        let bed = Bed::on(MemoryStore::new(), Clock::manual(1_000_000));
        bed.topic("t").await;
        bed
    }

    fn on(store: MemoryStore, clock: Clock) -> Bed {
        let store = Cuts::new(store);
        let (values, master_keys) = (BrokerValues::default(), Vec::new());
        let options =
            BrokerOptions { sync: false, tail_bytes_max: 1 << 20, values, master_keys, compaction_bytes_max: 1 << 20 };
        let broker = Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap();
        let groups = Groups::open(broker.clone(), clock.clone(), GroupSettings::default()).unwrap();
        let settings = TxnSettings::default();
        let transactions = Transactions::open(broker.clone(), groups.clone(), clock.clone(), settings).unwrap();
        Bed { store, clock, broker, groups, transactions }
    }

    /// As after `kill -9`.
    fn reopened(&self) -> Bed {
        Bed::on(self.store.inner.survivor(false), self.clock.clone())
    }

    async fn topic(&self, name: &str) -> Arc<Stream> {
        let partitions = NonZeroU32::new(PARTITIONS).unwrap();
        let attributes = Attributes::new(self.clock.now_ms());
        let overrides = Default::default();
        let new = NewStream { name: name.into(), partitions, claimed_replicas: 1, overrides, attributes };
        self.broker.create_stream(new).await.unwrap()
    }

    fn stream(&self) -> Arc<Stream> {
        self.broker.stream("t").unwrap()
    }

    fn topic_id(&self) -> Uuid {
        self.stream().topic_id
    }

    async fn init(&self, expected: Option<ProducerEpoch>) -> Result<ProducerEpoch, TxnError> {
        self.transactions.init("id", expected, TIMEOUT_MS).await
    }

    async fn add(&self, producer: ProducerEpoch, partition: u32) -> Result<(), TxnError> {
        self.transactions.add_partitions("id", producer, &[(self.topic_id(), partition)]).await
    }

    /// Writes the first batch of the producer's epoch to a partition: one record.
    fn begin_write(
        &self,
        producer: ProducerEpoch,
        partition: u32,
        value: &str,
        verification: Verification,
    ) -> Result<Result<Ticket, AppendError>, TxnError> {
        let (stream, bytes) = (self.stream(), record(producer, value));
        let append = || self.broker.append(&stream, PartitionIndex(partition), &bytes, TRANSACTIONAL);
        self.transactions.write("id", producer, (stream.topic_id, partition), verification, append)
    }

    async fn write(&self, producer: ProducerEpoch, partition: u32, value: &str, verification: Verification) {
        let ticket = self.begin_write(producer, partition, value, verification).unwrap().unwrap();
        ticket.committed().await.unwrap();
    }

    async fn commit_offset(
        &self,
        producer: ProducerEpoch,
        offset: Offset,
        verification: Verification,
    ) -> Result<(), TxnError> {
        let committed = self.transactions.commit_offsets("id", producer, "g", verification, offset_request(offset));
        committed.await.map(|answers| assert_eq!(answers, [Ok(())]))
    }

    async fn end(&self, producer: ProducerEpoch, commit: bool, rules: EndRules) -> Result<ProducerEpoch, TxnError> {
        self.transactions.end("id", producer, commit, rules).await
    }

    /// A whole transaction: `value` to both partitions, `offset` for the group.
    async fn transact(
        &self,
        producer: ProducerEpoch,
        value: &str,
        offset: Offset,
        commit: bool,
        rules: EndRules,
    ) -> ProducerEpoch {
        match rules {
            EndRules::SameEpoch => {
                self.add(producer, 0).await.unwrap();
                self.write(producer, 0, value, Verification::Added).await;
                self.add(producer, 1).await.unwrap();
                self.write(producer, 1, value, Verification::Added).await;
                self.transactions.add_group("id", producer, "g").await.unwrap();
                self.commit_offset(producer, offset, Verification::Added).await.unwrap();
            }
            EndRules::NextEpoch => {
                self.write(producer, 0, value, Verification::Add).await;
                self.write(producer, 1, value, Verification::Add).await;
                self.commit_offset(producer, offset, Verification::Add).await.unwrap();
            }
        }
        self.end(producer, commit, rules).await.unwrap()
    }

    /// What a reader of committed records sees.
    async fn committed(&self, partition: u32) -> Vec<String> {
        let log = self.stream().partition(PartitionIndex(partition)).unwrap();
        let aborted = log.aborted_within(0, Offset::MAX);
        let (mut next, stable, mut found) = (0, log.last_stable_offset(), Vec::new());
        while next < stable {
            for stored in self.broker.read(&log, next, Offset::MAX, 10_000).await.unwrap() {
                let bytes = stored.batch();
                let header = Header::parse(&bytes).unwrap();
                next = stored.last_offset + 1;
                let is_aborted = aborted.iter().any(|aborted| {
                    let span = aborted.first_offset..=aborted.last_offset;
                    aborted.producer_id == header.producer_id && span.contains(&stored.base_offset)
                });
                if header.is_control() || is_aborted || stored.base_offset >= stable {
                    continue;
                }
                let records = batch::records(&bytes).unwrap();
                let text = |record: Record| String::from_utf8_lossy(&record.value.unwrap()).into_owned();
                found.extend(records.map(|record| text(record.unwrap())));
            }
        }
        found
    }

    async fn offset(&self) -> Fetched {
        let wanted = [TopicPartitions { topic: "t".into(), partitions: vec![0] }];
        self.groups.fetch_offsets("g", Some(&wanted), true).await[0].partitions[0].1.clone()
    }

    async fn committed_offset(&self) -> Option<Offset> {
        match self.offset().await {
            Fetched::Committed(committed) => Some(committed.offset),
            Fetched::Nothing => None,
            Fetched::Unstable => panic!("unstable"),
        }
    }

    fn state(&self) -> Option<State> {
        self.transactions.describe("id").ok().map(|described| described.state)
    }

    /// Lets tasks run that finish what the store has answered.
    async fn settle(&self) {
        self.broker.commit_meta(Batch::default()).await.unwrap().unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

fn record(producer: ProducerEpoch, value: &str) -> Bytes {
    let record = Record {
        offset: 0,
        timestamp: 1_000,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    };
    let ProducerEpoch { producer_id: id, epoch } = producer;
    let producer = Some(Producer { id, epoch, base_sequence: 0, transactional: true });
    batch::build(&[record], &Options { compressor: Compressor::None, producer }).unwrap()
}

fn offset_request(offset: Offset) -> CommitRequest {
    let offset =
        OffsetToCommit { topic: "t".into(), partition: 0, offset, leader_epoch: None, metadata: String::new() };
    CommitRequest {
        member_id: String::new(),
        group_instance_id: None,
        generation: -1,
        knows_epochs: true,
        retention_ms: None,
        offsets: vec![offset],
    }
}

/// Kills the broker after every single commit of a transaction's life. Whatever is left: it has happened everywhere or
/// nowhere, whoever has the producer's pair can still commit it if it was complete, and the next producer can go on.
#[tokio::test]
async fn a_kill_at_any_step_leaves_all_or_nothing_and_the_client_can_go_on() {
    for (rules, commit) in [
        (EndRules::SameEpoch, true),
        (EndRules::SameEpoch, false),
        (EndRules::NextEpoch, true),
        (EndRules::NextEpoch, false),
    ] {
        let bed = Bed::new().await;
        bed.store.cuts.lock().clear();
        let producer = bed.init(None).await.unwrap();
        bed.transact(producer, "first", 5, commit, rules).await;
        let cuts = std::mem::take(&mut *bed.store.cuts.lock());
        assert!(cuts.len() >= 5, "{}", cuts.len());
        let (mut open, mut ended) = (0, 0);
        for cut in cuts {
            let after = Bed::on(cut, bed.clock.clone());
            match after.state() {
                None | Some(State::Empty) => assert!(after.committed(0).await.is_empty()),
                Some(State::Ongoing) => {
                    open += 1;
                    assert!(after.committed(0).await.is_empty() && after.committed(1).await.is_empty());
                    resumed(&after, producer, rules).await;
                }
                Some(state) => {
                    ended += 1;
                    assert_eq!(state, if commit { State::CompleteCommit } else { State::CompleteAbort });
                    let expected: &[&str] = if commit { &["first"] } else { &[] };
                    assert_eq!(after.committed(0).await, expected);
                    assert_eq!(after.committed(1).await, expected);
                    assert_eq!(after.committed_offset().await, commit.then_some(5));
                }
            }
            // The next instance takes over, whatever there is.
            let before = (after.committed(0).await, after.committed(1).await);
            let next = after.init(None).await.unwrap();
            assert_ne!(next, producer);
            after.transact(next, "second", 9, true, rules).await;
            for (partition, mut expected) in [(0, before.0), (1, before.1)] {
                expected.push("second".into());
                assert_eq!(after.committed(partition).await, expected);
            }
            assert_eq!(after.committed_offset().await, Some(9));
        }
        assert!(open >= 3 && ended >= 1, "{open} {ended}");
    }
}

/// Another process has the producer's pair from a checkpoint, and commits (Flink).
async fn resumed(killed: &Bed, producer: ProducerEpoch, rules: EndRules) {
    let bed = killed.reopened();
    let written = [0, 1].map(|index| bed.stream().partition(PartitionIndex(index)).unwrap().end_offset() > 0);
    let offset = bed.offset().await == Fetched::Unstable;
    bed.end(producer, true, rules).await.unwrap();
    for (partition, written) in [(0, written[0]), (1, written[1])] {
        assert_eq!(bed.committed(partition).await.len(), usize::from(written));
    }
    assert_eq!(bed.committed_offset().await, offset.then_some(5));
    let again = bed.reopened();
    assert_eq!(again.state(), Some(State::CompleteCommit));
    assert_eq!(again.committed_offset().await, offset.then_some(5));
    // The answer was lost with the broker.
    again.end(producer, true, rules).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_end_is_on_its_way_others_have_to_come_again() {
    let bed = Arc::new(Bed::new().await);
    let producer = bed.init(None).await.unwrap();
    bed.write(producer, 0, "first", Verification::Add).await;
    bed.commit_offset(producer, 5, Verification::Add).await.unwrap();
    let held = bed.store.inner.hold_commits();
    let ending = tokio::spawn({
        let bed = bed.clone();
        async move { bed.end(producer, true, EndRules::SameEpoch).await }
    });
    held.wait_for_commit();
    let concurrent = TxnError::ConcurrentTransactions;
    assert_eq!(bed.state(), Some(State::PrepareCommit));
    assert_eq!(bed.add(producer, 1).await, Err(concurrent));
    assert_eq!(bed.init(None).await, Err(concurrent));
    assert_eq!(bed.end(producer, true, EndRules::SameEpoch).await, Err(concurrent));
    assert_eq!(bed.begin_write(producer, 0, "late", Verification::Added).map(|_| ()), Err(concurrent));
    assert_eq!(bed.begin_write(producer, 0, "late", Verification::Add).map(|_| ()), Err(concurrent));
    assert_eq!(bed.commit_offset(producer, 6, Verification::Add).await, Err(concurrent));
    drop(held);
    assert_eq!(ending.await.unwrap(), Ok(producer));
    assert_eq!((bed.committed(0).await, bed.committed_offset().await), (vec!["first".to_owned()], Some(5)));
    assert_eq!(
        bed.begin_write(producer, 0, "late", Verification::Added).map(|_| ()),
        Err(TxnError::TransactionAbortable)
    );
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let bed = Bed::new().await;
    let producer = bed.init(None).await.unwrap();
    bed.write(producer, 0, "first", Verification::Add).await;
    bed.commit_offset(producer, 5, Verification::Add).await.unwrap();
    bed.clock.advance(i64::from(TIMEOUT_MS) - 1);
    bed.transactions.tick();
    assert_eq!(bed.state(), Some(State::Ongoing));
    // The time counts on through a restart.
    let bed = bed.reopened();
    bed.transactions.tick();
    assert_eq!(bed.state(), Some(State::Ongoing));
    bed.clock.advance(1);
    bed.transactions.tick();
    bed.settle().await;
    assert_eq!(bed.state(), Some(State::CompleteAbort));
    assert!(bed.committed(0).await.is_empty());
    assert_eq!(bed.offset().await, Fetched::Nothing);
    assert_eq!(bed.end(producer, true, EndRules::SameEpoch).await, Err(TxnError::ProducerFenced));
    assert_eq!(bed.begin_write(producer, 0, "late", Verification::Add).map(|_| ()), Err(TxnError::ProducerFenced));
    // It may go on, but with the epoch that fenced it (KIP-360).
    let next = bed.init(Some(producer)).await.unwrap();
    assert_eq!(next, ProducerEpoch { epoch: producer.epoch + 1, ..producer });
    bed.transact(next, "second", 6, true, EndRules::NextEpoch).await;
    assert_eq!(bed.committed(0).await, ["second"]);
}

#[tokio::test]
async fn the_timer_task_wakes_for_deadlines_and_for_expiry() {
    let bed = Bed::new().await;
    let timers = tokio::spawn(bed.transactions.clone().run_timers());
    tokio::task::yield_now().await;
    let producer = bed.init(None).await.unwrap();
    bed.add(producer, 0).await.unwrap();
    bed.end(producer, true, EndRules::SameEpoch).await.unwrap();
    bed.add(producer, 0).await.unwrap();
    tokio::task::yield_now().await;
    bed.clock.advance(TIMEOUT_MS.into());
    while bed.state() != Some(State::CompleteAbort) {
        bed.settle().await;
    }
    bed.clock.advance(TxnSettings::default().id_expiration_ms);
    while bed.state().is_some() {
        bed.settle().await;
    }
    timers.abort();
    bed.settle().await;
    let bed = bed.reopened();
    assert_eq!(bed.state(), None);
    assert_eq!(bed.end(producer, true, EndRules::SameEpoch).await, Err(TxnError::InvalidProducerIdMapping));
    assert_ne!(bed.init(Some(producer)).await.unwrap().producer_id, producer.producer_id);
}

#[tokio::test]
async fn who_takes_over_aborts_what_is_open() {
    let bed = Bed::new().await;
    let old = bed.init(None).await.unwrap();
    bed.write(old, 0, "first", Verification::Add).await;
    let new = bed.init(None).await.unwrap();
    assert_eq!(new, ProducerEpoch { epoch: old.epoch + 2, ..old }, "one epoch fenced, nobody was told it");
    assert_eq!((bed.state(), bed.committed(0).await), (Some(State::Empty), vec![]));
    assert_eq!(bed.begin_write(old, 0, "late", Verification::Add).map(|_| ()), Err(TxnError::ProducerFenced));
    bed.transact(new, "second", 1, true, EndRules::NextEpoch).await;
    assert_eq!(bed.committed(0).await, ["second"]);
}

#[tokio::test]
async fn what_was_not_added_is_refused() {
    let bed = Bed::new().await;
    let producer = bed.init(None).await.unwrap();
    let refused = Err(TxnError::TransactionAbortable);
    assert_eq!(bed.begin_write(producer, 0, "x", Verification::Added).map(|_| ()), refused);
    bed.add(producer, 0).await.unwrap();
    assert_eq!(bed.begin_write(producer, 1, "x", Verification::Added).map(|_| ()), refused);
    assert_eq!(bed.commit_offset(producer, 1, Verification::Added).await, refused);
    let stale = CommitRequest { generation: 3, member_id: "m".into(), ..offset_request(1) };
    let commit = bed.transactions.commit_offsets("id", producer, "g", Verification::Add, stale).await;
    assert_eq!(commit, Err(TxnError::Group(crate::group::GroupError::IllegalGeneration)));
    for (id, timeout_ms, error) in [
        ("", TIMEOUT_MS, TxnError::InvalidRequest),
        ("id", 0, TxnError::InvalidTransactionTimeout),
        ("id", 900_001, TxnError::InvalidTransactionTimeout),
    ] {
        assert_eq!(bed.transactions.init(id, None, timeout_ms).await, Err(error));
    }
    let long = "x".repeat(TRANSACTIONAL_ID_BYTES_MAX + 1);
    assert_eq!(bed.transactions.init(&long, None, TIMEOUT_MS).await, Err(TxnError::InvalidRequest));
    let unknown = bed.transactions.end("unknown", producer, true, EndRules::SameEpoch).await;
    assert_eq!(unknown, Err(TxnError::InvalidProducerIdMapping));
}

#[tokio::test]
async fn a_topic_that_is_deleted_does_not_hold_up_the_others() {
    let bed = Bed::new().await;
    let gone = bed.topic("gone").await;
    let producer = bed.init(None).await.unwrap();
    bed.transactions.add_partitions("id", producer, &[(gone.topic_id, 0)]).await.unwrap();
    bed.write(producer, 1, "first", Verification::Add).await;
    bed.broker.delete_stream(&gone).await.unwrap();
    bed.topic("gone").await;
    let described = bed.transactions.describe("id").unwrap();
    assert_eq!(described.topics, [(Arc::from("t"), vec![1])]);
    bed.end(producer, true, EndRules::SameEpoch).await.unwrap();
    assert_eq!(bed.committed(1).await, ["first"]);
    let log = bed.broker.stream("gone").unwrap().partition(PartitionIndex(0)).unwrap();
    assert_eq!(log.end_offset(), 0, "another topic of the same name has nothing to do with it");
}

#[tokio::test]
async fn ids_are_listed_by_what_is_asked() {
    let bed = Bed::new().await;
    let producer = bed.init(None).await.unwrap();
    let other = bed.transactions.init("other", None, TIMEOUT_MS).await.unwrap();
    bed.add(producer, 0).await.unwrap();
    bed.clock.advance(1_000);
    let listed = |filter: ListFilter| -> Vec<String> {
        let mut ids: Vec<_> =
            bed.transactions.list(&filter).iter().map(|one| one.transactional_id.to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(listed(ListFilter::default()), ["id", "other"]);
    assert_eq!(listed(ListFilter { states: Some(vec![State::Ongoing]), ..ListFilter::default() }), ["id"]);
    assert!(listed(ListFilter { states: Some(vec![]), ..ListFilter::default() }).is_empty());
    assert_eq!(listed(ListFilter { producer_ids: vec![other.producer_id], ..ListFilter::default() }), ["other"]);
    assert_eq!(listed(ListFilter { longer_than_ms: Some(1_000), ..ListFilter::default() }), ["other"]);
    assert_eq!(listed(ListFilter { longer_than_ms: Some(999), ..ListFilter::default() }), ["id", "other"]);
    assert_eq!(bed.transactions.describe("none"), Err(TxnError::TransactionalIdNotFound));
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_transaction_open() {
    let bed = Bed::new().await;
    let producer = bed.init(None).await.unwrap();
    bed.write(producer, 0, "first", Verification::Add).await;
    bed.store.inner.fail_next_commits(1, StoreError::NotDone("full".into()));
    for rules in [EndRules::NextEpoch, EndRules::SameEpoch] {
        assert_eq!(bed.end(producer, true, rules).await, Err(TxnError::CoordinatorNotAvailable));
        assert_eq!(bed.state(), Some(State::Ongoing));
    }
    let bed = bed.reopened();
    bed.end(producer, true, EndRules::NextEpoch).await.unwrap();
    assert_eq!(bed.committed(0).await, ["first"]);
}
