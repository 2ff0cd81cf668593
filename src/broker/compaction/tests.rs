//! Compaction against a model: whatever is appended, compacted and killed, a reader of the whole log comes to the same
//! last value of every key, and what may go does.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::broker::BrokerOptions;
use crate::broker::append::Terms;
use crate::broker::catalog::NewStream;
use crate::broker::transactions::End;
use crate::clock::Clock;
use crate::config::MasterKey;
use crate::log::tail::StoredBatch;
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{self, Codec, Compressor, Header, Marker, Options, Producer, Record};
use crate::model::settings::BrokerValues;
use crate::store::memory::MemoryStore;

/// Small, so that epochs step every few batches.
const EPOCH_BYTES: usize = 3_000;
const DELETE_RETENTION_MS: i64 = 5_000;
const SEGMENT_MS: i64 = 2_000;
const KEYS: u8 = 6;

const PRODUCERS: u8 = 3;

/// A record of the model.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    key: Bytes,
    value: Option<Bytes>,
    append_ms: i64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// For every reader.
    Shown,
    /// Part of this producer's open transaction.
    Open(u8),
    Aborted,
    /// No record, but the end of a transaction.
    Marker,
}

struct Rig {
    store: Arc<MemoryStore>,
    clock: Clock,
    tail_bytes_max: usize,
    compaction_bytes_max: usize,
    broker: Arc<Broker>,
    stream: Arc<Stream>,
    /// Everything that was ever appended, by offset.
    appended: Vec<Kept>,
    sequence: i32,
    last: Option<(Bytes, Offset)>,
    /// Of the producers that write in transactions.
    sequences: [i32; PRODUCERS as usize],
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(store: &Arc<MemoryStore>, clock: &Clock, tail_bytes_max: usize, compaction_bytes_max: usize) -> Arc<Broker> {
    let master_keys = vec![MasterKey { id: "key".into(), secret: [1; 32], disabled: false }];
    let values = BrokerValues::default();
    let options = BrokerOptions { sync: false, tail_bytes_max, compaction_bytes_max, values, master_keys };
    Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap()
}

impl Rig {
    async fn new(tail_bytes_max: usize, compaction_bytes_max: usize, settings: &[(&str, &str)]) -> Rig {
        let store = Arc::new(MemoryStore::with_epoch_bytes_max(EPOCH_BYTES));
        let clock = Clock::manual(1_000_000);
        let broker = open(&store, &clock, tail_bytes_max, compaction_bytes_max);
        let own = [
            ("cleanup.policy", "compact"),
            ("internal.segment.bytes", "600"),
            ("min.cleanable.dirty.ratio", "0.0"),
            ("segment.ms", &SEGMENT_MS.to_string()),
            ("delete.retention.ms", &DELETE_RETENTION_MS.to_string()),
        ];
        let overrides =
            own.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let attributes = Attributes::new(clock.now_ms());
        let partitions = NonZeroU32::MIN;
        let new = NewStream { name: "kept".into(), partitions, claimed_replicas: 1, overrides, attributes };
        let stream = broker.create_stream(new).await.unwrap();
        let appended = Vec::new();
        Rig {
            store,
            clock,
            tail_bytes_max,
            compaction_bytes_max,
            broker,
            stream,
            appended,
            sequence: 0,
            last: None,
            sequences: Default::default(),
        }
    }

    fn log(&self) -> Arc<Partition> {
        self.stream.partition(PartitionIndex(0)).unwrap()
    }

    /// Appends a batch of `(key, value)`; a value of `None` is a tombstone.
    async fn append(&mut self, records: &[(u8, Option<u8>)], codec: Codec, idempotent: bool) {
        let producer =
            idempotent.then_some(Producer { id: 9, epoch: 0, base_sequence: self.sequence, transactional: false });
        let (batch, base_offset) = self.write(records, codec, producer, State::Shown).await;
        if idempotent {
            self.sequence += records.len() as i32;
            self.last = Some((batch, base_offset));
        }
    }

    /// Appends as part of a producer's transaction.
    async fn transact(&mut self, producer: u8, records: &[(u8, Option<u8>)]) {
        let base_sequence = self.sequences[usize::from(producer)];
        let id = 100 + i64::from(producer);
        let of = Producer { id, epoch: 0, base_sequence, transactional: true };
        self.write(records, Codec::None, Some(of), State::Open(producer)).await;
        self.sequences[usize::from(producer)] += records.len() as i32;
    }

    async fn end(&mut self, producer: u8, commit: bool) {
        let is_open = |kept: &Kept| kept.state == State::Open(producer);
        if !self.appended.iter().any(is_open) {
            return;
        }
        let (stream, partition) = (self.stream.clone(), PartitionIndex(0));
        let (producer_id, partitions) = (100 + i64::from(producer), vec![(stream, partition)]);
        let end = End { producer_id, producer_epoch: 0, coordinator_epoch: 0, commit, partitions };
        durable(self.broker.end_transaction(end, Batch::default())).await.unwrap();
        let state = if commit { State::Shown } else { State::Aborted };
        self.appended.iter_mut().filter(|kept| is_open(kept)).for_each(|kept| kept.state = state);
        let append_ms = self.clock.now_ms();
        self.appended.push(Kept { key: Bytes::new(), value: None, append_ms, state: State::Marker });
        assert_eq!(self.log().end_offset(), self.appended.len() as Offset);
    }

    async fn write(
        &mut self,
        records: &[(u8, Option<u8>)],
        codec: Codec,
        producer: Option<Producer>,
        state: State,
    ) -> (Bytes, Offset) {
        let text = |kind: &str, n: u8, count: usize| Bytes::from(format!("{kind}{n}").repeat(count));
        let records: Vec<Record> = records
            .iter()
            .map(|(key, value)| Record {
                offset: 0,
                timestamp: self.clock.now_ms(),
                key: Some(text("key", *key, 1)),
                value: value.map(|value| text("value", value, 3)),
                headers: Vec::new(),
            })
            .collect();
        let batch = batch::build(&records, &Options { compressor: Compressor::of(codec), producer }).unwrap();
        let terms = Terms { transactional: producer.is_some_and(|of| of.transactional), ..Terms::default() };
        let ticket = self.broker.append(&self.stream, PartitionIndex(0), &batch, terms).unwrap();
        let base_offset = ticket.committed().await.unwrap().base_offset.unwrap();
        assert_eq!(base_offset, self.appended.len() as Offset);
        let append_ms = self.clock.now_ms();
        self.appended.extend(records.into_iter().map(|record| Kept {
            key: record.key.unwrap(),
            value: record.value,
            append_ms,
            state,
        }));
        (batch, base_offset)
    }

    async fn resend(&self) {
        let Some((batch, base_offset)) = &self.last else { return };
        let ticket = self.broker.append(&self.stream, PartitionIndex(0), batch, Terms::default()).unwrap();
        assert_eq!(ticket.committed().await.unwrap().base_offset, Some(*base_offset));
    }

    fn kill(&mut self) {
        self.store = Arc::new(self.store.survivor(false));
        self.reopen();
    }

    async fn stop(&mut self) {
        self.broker.close().await.unwrap();
        self.store = Arc::new(self.store.survivor(true));
        self.reopen();
    }

    fn reopen(&mut self) {
        self.broker = open(&self.store, &self.clock, self.tail_bytes_max, self.compaction_bytes_max);
        self.stream = self.broker.stream("kept").unwrap();
    }

    /// Compacts for as long as it takes the store to do something `steps` times, and is killed then.
    async fn compact_killed(&mut self, steps: usize) {
        let broker = self.broker.clone();
        let some_steps = async {
            for _ in 0..steps {
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
        };
        tokio::select! {
            () = broker.compact() => {}
            () = some_steps => {}
        }
        drop(broker);
        self.kill();
    }

    /// Every batch from `offset` on.
    async fn batches(&self, mut offset: Offset) -> Vec<StoredBatch> {
        let log = self.log();
        let mut found = Vec::new();
        while offset < log.end_offset() {
            let batches = self.broker.read(&log, offset, Offset::MAX, 300).await.unwrap();
            assert!(!batches.is_empty(), "nothing from {offset} on: {:?} {:?}", log.extent(), log.segments());
            assert!(batches.iter().all(|stored| stored.last_offset >= offset));
            offset = batches.last().unwrap().last_offset + 1;
            found.extend(batches);
        }
        found
    }

    /// Every record that a client which wants committed ones gets to see, as clients go about it.
    async fn read(&self, offset: Offset) -> Vec<(Offset, Option<Bytes>, Option<Bytes>)> {
        let log = self.log();
        let (log_start, stable) = (log.log_start(), log.last_stable_offset());
        let batches = self.batches(offset).await;
        let mut aborted = log.aborted_within(offset, stable);
        aborted.sort_by_key(|aborted| aborted.first_offset);
        let mut aborted = aborted.into_iter().peekable();
        let mut passed_over = std::collections::HashSet::new();
        let mut found = Vec::new();
        for stored in batches.iter().filter(|stored| stored.last_offset < stable) {
            while let Some(begun) = aborted.next_if(|aborted| aborted.first_offset <= stored.last_offset) {
                passed_over.insert(begun.producer_id);
            }
            let batch = stored.batch();
            let header = Header::parse(&batch).unwrap();
            if header.is_control() {
                let marker = Marker::of(&batch).unwrap();
                if !marker.commit {
                    passed_over.remove(&header.producer_id);
                }
                continue;
            }
            if header.is_transactional() && passed_over.contains(&header.producer_id) {
                continue;
            }
            for record in batch::records(&batch).unwrap() {
                let record = record.unwrap();
                found.push((record.offset, record.key, record.value));
            }
        }
        found.retain(|(offset, _, _)| *offset >= log_start);
        found
    }

    /// What must always be true of what can be read.
    async fn check(&self, min_lag_ms: i64) {
        let log = self.log();
        let log_start = log.log_start();
        assert_eq!(log.end_offset(), self.appended.len() as Offset);
        let found = self.read(log_start).await;
        assert!(found.is_sorted_by_key(|(offset, _, _)| *offset));
        for (offset, key, value) in &found {
            let appended = &self.appended[*offset as usize];
            assert_eq!((key.as_ref(), value), (Some(&appended.key), &appended.value), "at {offset}");
            assert_eq!(appended.state, State::Shown, "at {offset}");
        }
        let stable = log.last_stable_offset();
        let first_open = self.appended.iter().position(|kept| matches!(kept.state, State::Open(_)));
        let end = first_open.unwrap_or(self.appended.len()) as Offset;
        assert_eq!(stable, end.max(log_start));
        let live = (0..).zip(&self.appended).take(stable as usize).skip(log_start as usize);
        let live = live.filter(|(_, kept)| kept.state == State::Shown);
        if first_open.is_none() {
            let batches = self.batches(log_start).await;
            let headers = batches.iter().map(|stored| Header::parse(&stored.batch()).unwrap());
            let latest = headers.filter(|header| header.records_count > 0).map(|header| header.max_timestamp).max();
            let told = self.broker.offset_of_max_time(&log, stable).await.unwrap();
            // Of a batch that the log's start cuts, the record may be gone.
            assert!(told.map(|told| told.timestamp) == latest || log_start > 0, "{told:?} is not {latest:?}");
        }
        let now_ms = self.clock.now_ms();
        let last = |records: &mut dyn Iterator<Item = (Offset, Bytes, Option<Bytes>)>| {
            let mut last: BTreeMap<Bytes, (Offset, Option<Bytes>)> = BTreeMap::new();
            records.for_each(|(offset, key, value)| drop(last.insert(key, (offset, value))));
            last
        };
        let seen = last(&mut found.iter().map(|(offset, key, value)| (*offset, key.clone().unwrap(), value.clone())));
        let wanted = last(&mut live.clone().map(|(offset, kept)| (offset, kept.key.clone(), kept.value.clone())));
        for (key, (offset, value)) in &wanted {
            let append_ms = self.appended[*offset as usize].append_ms;
            match seen.get(key) {
                Some(last) => assert_eq!(last, &(*offset, value.clone()), "{key:?}"),
                None => {
                    assert!(value.is_none() && now_ms - append_ms >= DELETE_RETENTION_MS, "{key:?} at {offset} is gone")
                }
            }
        }
        for (offset, kept) in live {
            if now_ms - kept.append_ms < min_lag_ms {
                assert!(found.iter().any(|(found, _, _)| *found == offset), "{offset} is young");
            }
        }
    }

    /// Lets everything that is there become compactable, and compacts it.
    async fn compact_all(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.clock.advance(SEGMENT_MS.max(DELETE_RETENTION_MS) + 1_000);
            self.broker.compact().await;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { records: Vec<(u8, Option<u8>)>, codec: u8, idempotent: bool },
    Transact { producer: u8, records: Vec<(u8, Option<u8>)> },
    End { producer: u8, commit: bool },
    Resend,
    Wait(i64),
    Compact,
    CompactKilled(usize),
    Reclaim,
    Kill,
    Stop,
    Trim { back: usize },
    Encrypt(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0..KEYS, proptest::option::weighted(0.8, 0..250_u8));
    let records = prop::collection::vec(record, 1..6);
    let append = (records.clone(), 0..5_u8, any::<bool>());
    let step = prop_oneof![
        12 => append.prop_map(|(records, codec, idempotent)| Step::Append { records, codec, idempotent }),
        5 => (0..PRODUCERS, records).prop_map(|(producer, records)| Step::Transact { producer, records }),
        5 => (0..PRODUCERS, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        1 => Just(Step::Resend),
        3 => (0..2_500_i64).prop_map(Step::Wait),
        4 => Just(Step::Compact),
        2 => (0..25_usize).prop_map(Step::CompactKilled),
        1 => Just(Step::Reclaim),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        1 => (0..40_usize).prop_map(|back| Step::Trim { back }),
        1 => any::<bool>().prop_map(Step::Encrypt),
    ];
    prop::collection::vec(step, 1..80)
}

async fn take(rig: &mut Rig, step: &Step) {
    match step {
        Step::Append { records, codec, idempotent } => {
            rig.append(records, Codec::from_id(*codec).unwrap(), *idempotent).await;
        }
        Step::Transact { producer, records } => rig.transact(*producer, records).await,
        Step::End { producer, commit } => rig.end(*producer, *commit).await,
        Step::Resend => rig.resend().await,
        Step::Wait(ms) => rig.clock.advance(*ms),
        Step::Compact => rig.broker.compact().await,
        Step::CompactKilled(steps) => rig.compact_killed(*steps).await,
        Step::Reclaim => rig.broker.reclaim().await.unwrap(),
        Step::Kill => rig.kill(),
        Step::Stop => rig.stop().await,
        Step::Trim { back } => {
            let offset = rig.appended.len().saturating_sub(*back) as Offset;
            rig.broker.trim(&rig.log(), offset).await.unwrap();
        }
        Step::Encrypt(true) => rig.broker.start_encryption(&rig.stream, "key").await.unwrap(),
        Step::Encrypt(false) => rig.broker.stop_encryption(&rig.stream, "key").await.unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_last_value_of_every_key_stays_and_what_may_go_does(
        steps in steps(),
        tail_bytes_max in prop_oneof![Just(0_usize), Just(800), Just(100_000)],
        keys_bytes in prop_oneof![Just(60_usize), Just(1 << 20)],
        min_lag_ms in prop_oneof![Just(0_i64), Just(1_500)],
    ) {
        runtime().block_on(async {
            let settings = [("min.compaction.lag.ms", &*min_lag_ms.to_string())];
            let mut rig = Rig::new(tail_bytes_max, keys_bytes, &settings).await;
            for step in &steps {
                take(&mut rig, step).await;
                rig.check(min_lag_ms).await;
            }
            rig.resend().await;
            for producer in 0..PRODUCERS {
                rig.end(producer, producer == 0).await;
            }
            // A key's record needs a place in the table for its older ones to go.
            rig.compact_all(8 + rig.appended.len() / 2).await;
            rig.check(min_lag_ms).await;
            let left = rig.read(rig.log().log_start()).await;
            let keys: std::collections::BTreeSet<_> = left.iter().map(|(_, key, _)| key).collect();
            prop_assert_eq!(left.len(), keys.len(), "{:?}", left);
            prop_assert!(left.iter().all(|(_, _, value)| value.is_some()), "{:?}", left);
            // An abort's marker goes too, but for one that is the log's end, and with it what is known of the abort.
            let log = rig.log();
            let batches = rig.batches(log.log_start()).await;
            let is_abort = |stored: &&StoredBatch| Marker::of(&stored.batch()).is_some_and(|marker| !marker.commit);
            let markers: Vec<_> = batches.iter().filter(is_abort).map(|stored| stored.last_offset + 1).collect();
            prop_assert!(markers.iter().all(|end| *end == log.end_offset()), "{:?}", markers);
            prop_assert!(log.aborted_within(0, Offset::MAX).len() <= markers.len());
            rig.kill();
            rig.check(min_lag_ms).await;
            prop_assert!(rig.log().aborted_within(0, Offset::MAX).len() <= markers.len());
            rig.resend().await;
            rig.append(&[(1, Some(1))], Codec::None, true).await;
            rig.transact(1, &[(1, Some(2))]).await;
            Ok::<_, TestCaseError>(())
        })?;
    }
}

#[test]
fn the_space_of_what_went_comes_back() {
    runtime().block_on(async {
        let mut rig = Rig::new(0, 1 << 20, &[("internal.segment.bytes", "100000")]).await;
        for round in 0..400_u32 {
            rig.append(&[(round as u8 % KEYS, Some(round as u8)); 4], Codec::None, false).await;
            rig.clock.advance(100);
            if round % 20 == 0 {
                rig.broker.compact().await;
            }
        }
        rig.compact_all(3).await;
        for _ in 0..60 {
            rig.broker.reclaim().await.unwrap();
        }
        let extent = rig.log().extent();
        assert!(extent.bytes < 2_000, "{extent:?}");
        // What is left lies together.
        assert!(rig.log().segments().len() <= 2, "{:?}", rig.log().segments());
        let held = rig.broker.figures().file_bytes;
        assert!(held <= 2 * extent.bytes + 5 * EPOCH_BYTES as u64, "{held} bytes are held for {}", extent.bytes);
        rig.check(0).await;
        rig.kill();
        rig.check(0).await;
    });
}

#[test]
fn a_silent_producers_segment_is_closed_in_time_and_compacted() {
    runtime().block_on(async {
        for (name, ms) in [("segment.ms", "700"), ("max.compaction.lag.ms", "700")] {
            let settings = [("segment.ms", "1000000"), ("min.cleanable.dirty.ratio", "0.9"), (name, ms)];
            let mut rig = Rig::new(100_000, 1 << 20, &settings).await;
            rig.append(&[(1, Some(1)), (1, Some(2))], Codec::None, false).await;
            rig.append(&[(2, Some(1)), (1, Some(3))], Codec::None, false).await;
            rig.clock.advance(699);
            rig.broker.compact().await;
            assert_eq!(rig.read(0).await.len(), 4, "{name}");
            rig.clock.advance(2);
            rig.broker.compact().await;
            let left: Vec<Offset> = rig.read(0).await.into_iter().map(|(offset, _, _)| offset).collect();
            assert_eq!(left, [2, 3], "{name}");
            rig.check(0).await;
        }
    });
}

#[test]
fn a_stream_that_becomes_compacted_loses_records_without_keys() {
    runtime().block_on(async {
        let mut rig = Rig::new(0, 1 << 20, &[("cleanup.policy", "delete")]).await;
        let keyless =
            Record { offset: 0, timestamp: 5, key: None, value: Some(Bytes::from_static(b"v")), headers: Vec::new() };
        let batch = batch::build(&[keyless], &Options { compressor: Compressor::None, producer: None }).unwrap();
        let append = |rig: &Rig| rig.broker.append(&rig.stream, PartitionIndex(0), &batch, Terms::default());
        append(&rig).unwrap().committed().await.unwrap();
        rig.appended.push(Kept { key: Bytes::new(), value: None, append_ms: 0, state: State::Shown });
        rig.append(&[(1, Some(1))], Codec::None, false).await;
        let compact = |overrides: &crate::model::settings::Overrides| {
            let mut altered = overrides.clone();
            altered.insert("cleanup.policy".into(), "compact".into());
            Ok(altered)
        };
        rig.broker.alter_stream(&rig.stream, compact).await.unwrap();
        assert!(append(&rig).is_err());
        rig.compact_all(1).await;
        assert_eq!(rig.read(0).await.iter().map(|(offset, _, _)| *offset).collect::<Vec<_>>(), [1]);
    });
}

#[test]
fn compaction_and_retention_work_together() {
    runtime().block_on(async {
        let settings = [("cleanup.policy", "compact,delete"), ("retention.ms", "60000")];
        let mut rig = Rig::new(0, 1 << 20, &settings).await;
        for round in 0..40 {
            rig.append(&[(round % 3, Some(round)), (3, Some(round))], Codec::Zstd, false).await;
            rig.clock.advance(1_000);
            rig.broker.compact().await;
        }
        rig.check(0).await;
        let before = rig.read(0).await;
        assert!(before.len() < 20, "{before:?}");
        // Everything appended before this has expired, whatever offsets are left.
        for expired_ms in [25_000, 35_000, 38_000, 39_500] {
            let first_ms = rig.appended[0].append_ms;
            let now_ms = first_ms + expired_ms + 60_000;
            rig.clock.advance(now_ms - rig.clock.now_ms());
            rig.broker.expire(&rig.stream).await.unwrap();
            let left = rig.read(rig.log().log_start()).await;
            let kept =
                |(offset, _, _): &&(Offset, _, _)| rig.appended[*offset as usize].append_ms >= first_ms + expired_ms;
            assert_eq!(left, before.iter().filter(kept).cloned().collect::<Vec<_>>());
        }
    });
}

#[test]
fn what_was_aborted_neither_stays_nor_takes_anything_with_it() {
    runtime().block_on(async {
        let mut rig = Rig::new(0, 1 << 20, &[]).await;
        rig.append(&[(1, Some(1)), (2, Some(1))], Codec::None, false).await;
        rig.transact(0, &[(1, Some(2)), (2, None)]).await;
        rig.transact(1, &[(2, Some(3))]).await;
        rig.end(1, true).await;
        rig.compact_all(1).await;
        // The first transaction is open: nothing from it on is touched.
        assert_eq!(rig.batches(0).await.len(), 4);
        rig.end(0, false).await;
        rig.append(&[(3, Some(1))], Codec::None, false).await;
        rig.compact_all(1).await;
        let offsets = |records: Vec<(Offset, Option<Bytes>, Option<Bytes>)>| {
            records.into_iter().map(|(offset, _, _)| offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(rig.read(0).await), [0, 4, 7]);
        // The abort's marker stays for a while, and as long what is known of it.
        let ends = |batches: Vec<StoredBatch>| batches.iter().map(|one| one.last_offset).collect::<Vec<_>>();
        assert_eq!(ends(rig.batches(0).await), [1, 4, 5, 6, 7]);
        assert_eq!(rig.log().aborted_within(0, 9).len(), 1);
        rig.kill();
        rig.compact_all(3).await;
        assert_eq!(ends(rig.batches(0).await), [1, 4, 5, 7]);
        assert!(rig.log().aborted_within(0, 9).is_empty());
        rig.kill();
        assert!(rig.log().aborted_within(0, 9).is_empty());
        rig.check(0).await;
    });
}

#[test]
fn a_failure_is_told_once_until_it_is_another() {
    runtime().block_on(async {
        let rig = Rig::new(1 << 20, 1 << 20, &[]).await;
        let partition = rig.log();
        let told = |failure| rig.broker.compactor.is_new_failure(&partition, failure);
        assert_eq!(
            [Some("a"), Some("a"), Some("b"), Some("b"), None, None, Some("b")].map(told),
            [true, false, true, false, false, false, true]
        );
        rig.broker.compactor.forget(partition.id.stream);
        assert!(told(Some("b")), "another stream's");
    });
}

#[test]
fn progress_reads_back() {
    for progress in [Progress { until: 7, horizon_ms: None }, Progress { until: 0, horizon_ms: Some(i64::MAX) }] {
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
        assert_eq!(Progress::decode(&progress.encode()[1..]), None);
    }
}
