//! On-demand streams on a manual clock, with traffic that is told to the meter instead of being sent.

use std::num::NonZeroU32;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::put::NewRecord;
use crate::broker::{BrokerOptions, Terms};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::attributes::Attributes;
use crate::model::batch::{self, Compressor, Options, Record};
use crate::model::ids::PartitionIndex;
use crate::model::settings::BrokerValues;
use crate::model::shard::Shard;
use crate::store::memory::MemoryStore;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const SHARDS_MAX: usize = 1_000;

struct House {
    store: Arc<MemoryStore>,
    clock: Clock,
    broker: Arc<Broker>,
    stream: Arc<Stream>,
}

fn open(store: &Arc<MemoryStore>, clock: &Clock) -> Arc<Broker> {
    let options = BrokerOptions {
        sync: false,
        tail_bytes_max: 1 << 20,
        compaction_bytes_max: 1 << 20,
        values: BrokerValues::default(),
        master_keys: Vec::new(),
    };
    Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap()
}

impl House {
    async fn new(mode: &str, shards: u32) -> House {
        let (store, clock) = (Arc::new(MemoryStore::new()), Clock::manual(1_700_000_000_000));
        let broker = open(&store, &clock);
        let new = NewStream {
            name: "river".into(),
            partitions: NonZeroU32::new(shards).unwrap(),
            claimed_replicas: 1,
            overrides: [("kinesis.stream.mode".to_owned(), mode.to_owned())].into(),
            attributes: Attributes::new(clock.now_ms()),
        };
        let stream = broker.create_stream(new).await.unwrap();
        // The first look only begins to measure.
        look(&broker, SHARDS_MAX).await;
        House { store, clock, broker, stream }
    }

    fn restart(self) -> House {
        let House { store, clock, broker, .. } = self;
        drop(broker);
        let broker = open(&store, &clock);
        let stream = broker.stream("river").unwrap();
        House { store, clock, broker, stream }
    }

    fn shards(&self) -> u32 {
        self.stream.lineage().open_count()
    }

    /// Minutes in which each open shard takes what `load` says, in thousandths of its limit, and at most that limit
    /// where it is `enforced`; returns how many shards are open after each.
    async fn minutes(&self, count: usize, load: impl Fn(&Shard) -> u64) -> Vec<u32> {
        let mut open = Vec::new();
        for _ in 0..count {
            for shard in self.stream.lineage().open_shards() {
                self.stream.pretend_written(shard.partition, load(shard) * 60, 0);
            }
            self.clock.advance(MINUTE);
            look(&self.broker, SHARDS_MAX).await;
            open.push(self.shards());
        }
        open
    }

    /// The same for traffic that is spread over all shards, each of which takes no more than its limit.
    async fn traffic(&self, count: usize, stream_load: u64) -> Vec<u32> {
        let mut open = Vec::new();
        for _ in 0..count {
            let each = (stream_load / u64::from(self.shards())).min(1_000);
            open.extend(self.minutes(1, |_| each).await);
        }
        open
    }

    async fn set(&self, name: &str, value: &str) {
        let change = |old: &crate::model::settings::Overrides| {
            let mut new = old.clone();
            new.insert(name.to_owned(), value.to_owned());
            Ok(new)
        };
        self.broker.alter_stream(&self.stream, change).await.unwrap();
    }

    async fn warm(&self, mibps: u32) {
        self.broker
            .change_stream(&self.stream, |draft| warm_up(draft, mibps).map_err(CatalogError::from))
            .await
            .unwrap();
    }

    fn is_even(&self) -> bool {
        let lineage = self.stream.lineage();
        let mut spans = lineage.open_shards().map(|shard| shard.hash_key_range.span());
        let first = spans.next();
        spans.all(|span| Some(span) == first)
    }
}

#[tokio::test]
async fn a_stream_within_half_of_its_capacity_stays() {
    let house = House::new("on-demand", 4).await;
    assert_eq!(house.traffic(20, 2_000).await, [4; 20]);
    assert_eq!(house.stream.lineage().shards().len(), 4, "nothing was split and merged again");
}

#[tokio::test]
async fn capacity_is_twice_the_peak_and_doubles_once_in_a_quarter_of_an_hour() {
    let house = House::new("on-demand", 4).await;
    // Twice of 3 MiB a second is 6.
    assert_eq!(house.traffic(2, 3_000).await, [6, 6]);
    assert_eq!(house.traffic(1, 4_000).await, [8]);
    assert!(house.is_even());
    // Twelve are needed; more than twice the four of a quarter of an hour ago there are not.
    let open = house.traffic(20, 12_000).await;
    assert_eq!(open[..10], [8; 10], "and what is beyond is throttled meanwhile");
    assert_eq!(open[19], 16, "{open:?}");
    assert_eq!(house.traffic(20, 12_000).await[19], 24);
}

#[tokio::test]
async fn the_seconds_burst_of_full_shards_does_not_ask_for_more_than_double() {
    let house = House::new("on-demand", 4).await;
    let open = house.minutes(40, |_| if house.shards() == 4 { 1_016 } else { 508 }).await;
    assert_eq!((open[0], open[39]), (8, 8));
}

#[tokio::test]
async fn a_peak_holds_its_capacity_for_thirty_days_also_through_a_restart() {
    let house = House::new("on-demand", 4).await;
    house.traffic(30, 8_000).await;
    assert_eq!(house.shards(), 16);
    house.clock.advance(28 * DAY);
    let house = house.restart();
    for _ in 0..3 {
        house.minutes(1, |_| 1).await;
    }
    assert_eq!(house.shards(), 16);
    // Then it is given back by halves, each shard measured for a day before.
    let mut open = Vec::new();
    for _ in 0..8 {
        house.clock.advance(DAY);
        house.minutes(2, |_| 1).await;
        open.push(house.shards());
    }
    assert_eq!(open[0], 16, "thirty days have not passed");
    assert_eq!((open[7], house.is_even()), (4, true), "{open:?}");
    assert!(open.windows(2).all(|pair| pair[1] >= pair[0] / 2), "{open:?}");
    assert_eq!(house.stream.partition_count(), 16, "partitions only sleep");
}

#[tokio::test]
async fn busy_neighbours_are_not_merged() {
    let house = House::new("on-demand", 16).await;
    house.clock.advance(29 * DAY);
    // One pair of neighbours takes little, any other more than half a shard's limit together.
    let load = |shard: &Shard| if shard.ordinal.0 < 2 { 20 } else { 300 };
    assert_eq!(house.minutes(2, load).await, [16; 2]);
    house.clock.advance(DAY + 60 * MINUTE);
    assert_eq!(house.minutes(1, |_| 0).await, [15], "what was busy within the day stays, though nine would do");
}

#[tokio::test]
async fn a_hot_shard_is_split_but_one_hot_key_not_for_ever() {
    let house = House::new("on-demand", 4).await;
    // All traffic of the lowest quarter, spread over its hash keys: half of it is within one shard's limit.
    let lowest = |shard: &Shard| if shard.hash_key_range.start == 0 { 950 } else { 0 };
    assert_eq!(house.minutes(1, lowest).await, [5]);
    let lineage = house.stream.lineage();
    assert_eq!(lineage.open_shards_by_hash_key().next().unwrap().hash_key_range.end, u128::MAX / 8);

    // A key with the hash 0 stays hot.
    let open = house.minutes(200, lowest).await;
    let settled = open[199];
    assert!((6..=12).contains(&settled), "{open:?}");
    assert_eq!(open[150], settled);
}

#[tokio::test]
async fn warm_throughput_is_there_at_once_and_given_back_within_minutes() {
    let house = House::new("on-demand", 4).await;
    house.warm(64).await;
    assert_eq!((house.shards(), house.is_even()), (64, true));
    assert_eq!(house.traffic(20, 1_000).await, [64; 20]);
    house.warm(8).await;
    assert_eq!(house.shards(), 64, "warming up takes nothing away");
    assert_eq!(house.traffic(5, 1_000).await, [32, 16, 8, 8, 8]);
    assert!(house.is_even());
    // What is in use is not given back.
    house.traffic(1, 6_000).await;
    house.warm(4).await;
    assert_eq!(house.traffic(5, 6_000).await[4], 12);
}

#[tokio::test]
async fn no_more_shards_are_opened_than_the_broker_may_have() {
    let house = House::new("on-demand", 4).await;
    for _ in 0..40 {
        house.minutes(0, |_| 0).await;
        for shard in house.stream.lineage().open_shards() {
            house.stream.pretend_written(shard.partition, 0, 60 << 20);
        }
        house.clock.advance(MINUTE);
        look(&house.broker, 11).await;
    }
    assert_eq!(house.shards(), 11);
}

#[tokio::test]
async fn a_stream_that_becomes_on_demand_keeps_its_shards_and_provisioned_ones_are_left_alone() {
    let house = House::new("provisioned", 10).await;
    assert_eq!(house.traffic(3, 10_000).await, [10; 3]);
    house.set("kinesis.stream.mode", "on-demand").await;
    assert_eq!(house.traffic(3, 100).await, [10; 3], "what came before does not count");
    house.clock.advance(2 * DAY);
    assert_eq!(house.traffic(3, 100).await, [10; 3]);
    house.set("kinesis.stream.mode", "provisioned").await;
    house.clock.advance(40 * DAY);
    assert_eq!(house.traffic(3, 10_000).await, [10; 3]);

    let house = House::new("on-demand", 1).await;
    assert_eq!(house.shards(), 4, "every on-demand stream has four");
    assert!(house.is_even());
}

#[tokio::test]
async fn the_task_looks_every_minute() {
    let house = House::new("on-demand", 4).await;
    let task = tokio::spawn(run(house.broker.clone(), SHARDS_MAX));
    tokio::task::yield_now().await;
    house.stream.pretend_written(PartitionIndex(0), 4 * 60_000, 0);
    house.clock.advance(LOOK_MS);
    while house.shards() == 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.shards(), 8);
    task.abort();
}

#[tokio::test]
async fn appends_are_counted_for_the_shard_that_takes_them() {
    let house = House::new("on-demand", 4).await;
    let record = Record { offset: 0, timestamp: 0, key: None, value: Some("x".into()), headers: Vec::new() };
    let options = Options { compressor: Compressor::None, producer: None };
    let batch = batch::build(&vec![record; 300], &options).unwrap();
    house.broker.append(&house.stream, PartitionIndex(2), &batch, Terms::default()).unwrap().committed().await.unwrap();
    // By its hash key, 200 KiB to the last quarter.
    let data = vec![0; 50 << 10];
    let record = NewRecord { partition_key: Some("k"), hash_key: Some(u128::MAX), data: &data };
    house.broker.put(&house.stream, &[record; 4]).unwrap().committed().await;
    house.clock.advance(MINUTE);
    let observed = house.broker.observe_traffic(&house.stream).unwrap();
    let mut busy: Vec<_> = observed.shards.iter().map(|(shard, load)| (shard.0, load.now)).collect();
    busy.sort_unstable();
    assert_eq!(busy, [(0, 0), (1, 0), (2, 5), (3, 3)]);
}
