use std::collections::BTreeSet;
use std::num::NonZeroU32;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::broker::append::Terms;
use crate::broker::catalog::NewStream;
use crate::broker::{BrokerOptions, Stream};
use crate::group::GroupSettings;
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{Compressor, Options, Record, build};
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::settings::BrokerValues;
use crate::model::settings::group::OffsetReset;
use crate::share::ShareError;
use crate::share::membership::{Beat, Heartbeat, State};
use crate::share::partition::{AckBatch, Acknowledgement, Acquired};
use crate::store::memory::MemoryStore;

const P: PartitionIndex = PartitionIndex(0);

struct Bed {
    store: Arc<MemoryStore>,
    broker: Arc<Broker>,
    names: Arc<Groups>,
    shares: Arc<Shares>,
}

impl Bed {
    async fn new() -> Bed {
        let bed = Bed::on(MemoryStore::new(), OffsetReset::Earliest);
        let new = NewStream {
            name: "t".into(),
            partitions: NonZeroU32::MIN,
            claimed_replicas: 1,
            overrides: Default::default(),
            attributes: Attributes::new(0),
        };
        bed.broker.create_stream(new).await.unwrap();
        bed
    }

    fn on(store: MemoryStore, reset: OffsetReset) -> Bed {
        let store = Arc::new(store);
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 1 << 20,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: Vec::new(),
        };
        let clock = Clock::manual(1_000_000);
        let broker = Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap();
        let names = Groups::open(broker.clone(), clock, GroupSettings::default()).unwrap();
        let settings = ShareSettings { reset, ..ShareSettings::default() };
        let shares = Shares::open(broker.clone(), names.clone(), settings).unwrap();
        Bed { store, broker, names, shares }
    }

    /// What is there after the process was killed.
    fn killed(&self) -> Bed {
        Bed::on(self.store.survivor(false), OffsetReset::Earliest)
    }

    fn stream(&self) -> Arc<Stream> {
        self.broker.stream("t").unwrap()
    }

    async fn append(&self, records: usize) {
        let record =
            Record { offset: 0, timestamp: 0, key: None, value: Some(Bytes::from_static(b"v")), headers: Vec::new() };
        let options = Options { compressor: Compressor::None, producer: None };
        let batch = build(&vec![record; records], &options).unwrap();
        let ticket = self.broker.append(&self.stream(), P, &batch, Terms::default()).unwrap();
        ticket.committed().await.unwrap();
    }

    async fn join(&self, member_id: &str) {
        self.beat(member_id, 0).await.unwrap();
    }

    async fn beat(&self, member_id: &str, epoch: i32) -> Result<Beat, ShareError> {
        let beat = Heartbeat {
            member_id: member_id.into(),
            epoch,
            client_id: "c".into(),
            client_host: "/h".into(),
            rack_id: None,
            subscribed: Some(BTreeSet::from(["t".to_owned()])),
        };
        self.shares.heartbeat("g", beat).await
    }

    async fn share(&self) -> Arc<Share> {
        self.shares.begin("g", &self.stream(), P).await.unwrap()
    }

    async fn acquire(&self, member_id: &str, records_max: i64) -> Vec<(Offset, Offset, u16)> {
        let log = self.stream().partition(P).unwrap();
        let want = Want {
            member_id: Arc::from(member_id),
            records_max,
            exact: true,
            range_records: 0,
            bytes_max: 1 << 20,
            first_anyway: true,
        };
        let delivery = self.shares.acquire(&self.share().await, &log, log.end_offset(), &want).await.unwrap();
        let there = |range: &Acquired| {
            let holds = |offset: Offset| {
                delivery.batches.iter().any(|batch| (batch.base_offset..=batch.last_offset).contains(&offset))
            };
            holds(range.first) && holds(range.last)
        };
        assert!(delivery.acquired.iter().all(there));
        delivery.acquired.iter().map(|range| (range.first, range.last, range.deliveries)).collect()
    }

    async fn say(&self, member_id: &str, first: Offset, last: Offset, kind: Acknowledgement) -> Result<(), ShareError> {
        let said = [AckBatch { first, last, kinds: vec![kind] }];
        self.shares.acknowledge(&self.share().await, member_id, &said).await
    }

    fn advance(&self, ms: i64) {
        self.broker.clock().advance(ms);
        self.shares.tick();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_counts_go_on() {
    let bed = Bed::new().await;
    bed.append(10).await;
    bed.join("a").await;
    assert_eq!(bed.acquire("a", 8).await, [(0, 7, 1)]);
    bed.say("a", 0, 2, Acknowledgement::Accept).await.unwrap();
    bed.say("a", 4, 4, Acknowledgement::Accept).await.unwrap();
    bed.say("a", 5, 5, Acknowledgement::Release).await.unwrap();
    // Acquired again and not answered for when the process dies: this delivery does not count.
    assert_eq!(bed.acquire("b", 1).await, [(5, 5, 2)]);

    let bed = bed.killed();
    assert_eq!(bed.shares.describe("g").unwrap().members.len(), 1);
    assert_eq!(bed.acquire("a", 100).await, [(3, 3, 1), (5, 5, 2), (6, 9, 1)]);
    assert_eq!(bed.shares.start_offsets("g").unwrap()[0].offset, 3);
    // The member goes on in its epoch, and hears of the next one: what it was assigned is looked at anew.
    assert_eq!(bed.beat("a", 1).await.unwrap().epoch, 2);
}

#[tokio::test]
async fn an_answer_waits_for_what_it_rests_on() {
    let bed = Bed::new().await;
    bed.append(2).await;
    bed.join("a").await;
    assert_eq!(bed.acquire("a", 2).await, [(0, 1, 1)]);
    let held = bed.store.hold_commits();
    let release = bed.say("a", 0, 1, Acknowledgement::Release);
    tokio::pin!(release);
    assert!(release.as_mut().now_or_never().is_none());
    // Given to another at once, but told only when the first delivery is sure to count.
    let again = bed.acquire("b", 2);
    tokio::pin!(again);
    assert!(again.as_mut().now_or_never().is_none());
    drop(held);
    assert_eq!((release.await, again.await), (Ok(()), vec![(0, 1, 2)]));
    assert_eq!(bed.killed().acquire("c", 2).await, [(0, 1, 2)]);
}

#[tokio::test]
async fn a_group_begins_once_and_does_not_move_by_itself() {
    let bed = Bed::new().await;
    bed.append(4).await;
    bed.join("a").await;
    let latest = Bed::on(bed.store.survivor(false), OffsetReset::Latest);
    assert_eq!(latest.acquire("a", 9).await, []);
    latest.append(3).await;
    // It begins where it began, whatever the settings say now and where the log ends.
    assert_eq!(latest.killed().acquire("a", 9).await, [(4, 6, 1)]);

    let recent = Bed::on(bed.store.survivor(false), OffsetReset::ByDuration(60_000));
    assert_eq!(recent.acquire("a", 9).await, [], "records have timestamps of long ago");
}

#[tokio::test]
async fn locks_run_out_on_the_clock_and_wake_those_who_wait() {
    let bed = Bed::new().await;
    bed.append(3).await;
    bed.join("a").await;
    assert_eq!(bed.acquire("a", 3).await, [(0, 2, 1)]);
    let mut news = bed.share().await.watch();
    bed.advance(29_999);
    assert!(!news.has_changed().unwrap());
    bed.say("a", 2, 2, Acknowledgement::Renew).await.unwrap();
    bed.advance(1);
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    assert_eq!(bed.acquire("b", 3).await, [(0, 1, 2)]);
    bed.advance(30_000);
    assert!(news.has_changed().unwrap());
    assert_eq!(bed.acquire("b", 3).await, [(0, 1, 3), (2, 2, 2)]);
    assert_eq!(bed.killed().acquire("c", 3).await, [(0, 1, 3), (2, 2, 2)]);
}

#[tokio::test]
async fn sessions_that_end_give_back_what_is_held_and_silent_members_when_it_runs_out() {
    let bed = Bed::new().await;
    bed.append(4).await;
    bed.join("a").await;
    bed.join("b").await;
    assert_eq!(bed.acquire("a", 2).await, [(0, 1, 1)]);
    assert_eq!(bed.acquire("b", 2).await, [(2, 3, 1)]);
    bed.shares.leave("g", "a").await.unwrap();
    // Its last words may come behind its leaving.
    bed.say("a", 0, 0, Acknowledgement::Accept).await.unwrap();
    assert_eq!(bed.acquire("c", 9).await, []);
    bed.shares.release("g", "a", [bed.stream().partition(P).unwrap().id]);
    assert_eq!(bed.acquire("c", 9).await, [(1, 1, 1)]);
    bed.advance(20_000);
    bed.say("b", 2, 3, Acknowledgement::Renew).await.unwrap();
    bed.advance(25_000);
    assert_eq!(bed.shares.describe("g").unwrap().state, State::Empty);
    assert_eq!(bed.acquire("d", 9).await, [(1, 1, 2)]);
    bed.advance(5_000);
    assert_eq!(bed.acquire("d", 9).await, [(2, 3, 2)]);
    assert_eq!(bed.beat("b", 2).await, Err(ShareError::UnknownMemberId));
}

#[tokio::test]
async fn group_ids_are_one_name_space() {
    let bed = Bed::new().await;
    bed.join("a").await;
    assert_eq!(bed.names.group_type("g"), Some(GroupType::Share));
    assert_eq!(bed.killed().names.group_type("g"), Some(GroupType::Share));
    assert_eq!(bed.shares.delete_group("g").await, Err(ShareError::NonEmptyGroup));
    bed.share().await;
    bed.shares.leave("g", "a").await.unwrap();
    bed.shares.delete_group("g").await.unwrap();
    assert_eq!((bed.names.group_type("g"), bed.shares.holds("g")), (None, false));
    let prefixes = [stored::group_prefix(), stored::partition_prefix()];
    assert!(prefixes.iter().all(|prefix| bed.broker.scan_meta(prefix).unwrap().is_empty()));
    assert_eq!(bed.shares.delete_group("g").await, Err(ShareError::GroupIdNotFound));
    // And again from the beginning.
    bed.append(1).await;
    bed.join("a").await;
    assert_eq!(bed.acquire("a", 9).await, [(0, 0, 1)]);
}

#[tokio::test]
async fn a_group_without_members_can_be_put_elsewhere() {
    let bed = Bed::new().await;
    bed.append(5).await;
    let id = bed.stream().partition(P).unwrap().id;
    bed.shares.set_start_offsets("g", &[StartOffset { id, offset: 3 }]).await.unwrap();
    bed.join("a").await;
    assert_eq!(bed.acquire("a", 9).await, [(3, 4, 1)]);
    let back = [StartOffset { id, offset: 1 }];
    assert_eq!(bed.shares.set_start_offsets("g", &back).await, Err(ShareError::NonEmptyGroup));
    assert_eq!(bed.shares.forget_offsets("g", &[id.stream]).await, Err(ShareError::NonEmptyGroup));
    let before = bed.share().await;
    bed.shares.leave("g", "a").await.unwrap();
    bed.shares.set_start_offsets("g", &back).await.unwrap();
    assert_eq!(bed.killed().shares.start_offsets("g").unwrap(), back);
    bed.shares.forget_offsets("g", &[id.stream]).await.unwrap();
    assert_eq!(bed.killed().shares.start_offsets("g").unwrap(), []);
    // Who still has the old one hears that it is gone.
    let said = [AckBatch { first: 3, last: 4, kinds: vec![Acknowledgement::Accept] }];
    assert_eq!(bed.shares.acknowledge(&before, "a", &said).await, Err(ShareError::UnknownTopicOrPartition));
}

#[tokio::test]
async fn what_was_processed_of_a_deleted_stream_goes_with_it() {
    let bed = Bed::new().await;
    bed.append(1).await;
    bed.join("a").await;
    bed.acquire("a", 1).await;
    bed.shares.forget_deleted_streams().await.unwrap();
    assert_eq!(bed.shares.start_offsets("g").unwrap().len(), 1);
    bed.broker.delete_stream(&bed.stream()).await.unwrap();
    bed.shares.forget_deleted_streams().await.unwrap();
    assert_eq!(bed.killed().shares.start_offsets("g").unwrap(), []);
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_nothing_hangs() {
    let bed = Bed::new().await;
    bed.append(2).await;
    bed.join("a").await;
    bed.acquire("a", 2).await;
    bed.store.fail_next_commits(1_000, StoreError::NotDone("full".into()));
    assert_eq!(bed.say("a", 0, 0, Acknowledgement::Accept).await, Err(ShareError::CoordinatorNotAvailable));
    assert_eq!(bed.beat("b", 0).await, Err(ShareError::CoordinatorNotAvailable));
    assert_eq!(bed.shares.leave("g", "a").await, Err(ShareError::CoordinatorNotAvailable));
    assert_eq!(bed.killed().acquire("c", 9).await, [(0, 1, 1)]);
}
