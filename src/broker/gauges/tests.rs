use std::num::NonZeroU32;

use bytes::Bytes;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::{Broker, BrokerOptions, CatalogError, Terms};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::attributes::{Attributes, Consumer};
use crate::model::batch::{self, Compressor, Options, Record};
use crate::model::settings::{BrokerValues, Overrides, topic};
use crate::model::shard::SplitAt;
use crate::store::memory::MemoryStore;

const MIB: u64 = 1 << 20;
const FIRST: ShardOrdinal = ShardOrdinal(0);

struct Bench {
    broker: Arc<Broker>,
    clock: Clock,
}

impl Bench {
    fn new() -> Bench {
        let clock = Clock::manual(1_000_000);
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 1 << 20,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: Vec::new(),
        };
        let broker = Broker::open(Arc::new(MemoryStore::default()), options, clock.clone(), Metrics::new(10)).unwrap();
        Bench { broker, clock }
    }

    async fn stream(&self, policy: LimitsPolicy) -> Arc<Stream> {
        let name = policy.to_string();
        let overrides = Overrides::from([(topic::KINESIS_LIMITS.to_owned(), policy.to_string())]);
        let attributes = Attributes::new(0);
        let new = NewStream { name, partitions: NonZeroU32::MIN, claimed_replicas: 1, overrides, attributes };
        self.broker.create_stream(new).await.unwrap()
    }

    /// The pause that a batch of `records` of `size` bytes each brings.
    fn append(&self, stream: &Stream, records: usize, size: usize) -> i64 {
        let value = Some(Bytes::from(vec![b'v'; size]));
        let record = Record { offset: 0, timestamp: 1_000, key: None, value, headers: Vec::new() };
        let batch = batch::build(&vec![record; records], &Options { compressor: Compressor::None, producer: None });
        self.broker.append(stream, PartitionIndex(0), &batch.unwrap(), Terms::default()).unwrap().throttle_ms()
    }

    async fn split(&self, stream: &Stream, shard: u32) {
        let split = self.broker.change_stream(stream, |draft| {
            draft.split(ShardOrdinal(shard), SplitAt::Midpoint).map_err(CatalogError::from)
        });
        split.await.unwrap();
    }

    async fn register(&self, stream: &Stream, names: &[&str]) {
        let consumer = |name: &&str| Consumer {
            name: (*name).to_owned(),
            created_ms: 0,
            passing: None,
            tags: Default::default(),
            policy: None,
        };
        let consumers = names.iter().map(consumer).collect();
        let registered = self.broker.change_stream(stream, |draft| {
            draft.attributes.consumers = consumers;
            Ok::<_, CatalogError>(())
        });
        registered.await.unwrap();
    }

    /// Of one stream's throttled counter.
    fn counted(&self, stream: &Stream, direction: &str, policy: &str) -> u64 {
        let start = format!(
            "anabranch_stream_throttled_total{{direction=\"{direction}\",policy=\"{policy}\",stream=\"{}\"}} ",
            stream.name
        );
        let text = self.broker.metrics().render(crate::metrics::TextFormat::Prometheus, |_| ());
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn puts_are_refused_counted_or_let_through_by_policy() {
    let bench = Bench::new();
    for (policy, refused, enforced, observed) in
        [(LimitsPolicy::Enforce, true, 1, 0), (LimitsPolicy::Observe, false, 0, 1), (LimitsPolicy::Off, false, 0, 0)]
    {
        let stream = bench.stream(policy).await;
        let gauge = stream.put_gauge(&stream.state.read(), FIRST);
        assert_eq!(gauge.admit(MIB, 0), Verdict::Granted);
        assert_eq!(!gauge.admit(MIB, 0).is_granted(), refused, "{policy}");
        let counted = ["enforce", "observe"].map(|policy| bench.counted(&stream, "write", policy));
        assert_eq!(counted, [enforced, observed], "{policy}");
    }
}

#[tokio::test]
async fn both_protocols_fill_the_same_gauge() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Enforce).await;
    assert_eq!(bench.append(&stream, 1_000, 1), 0);
    assert_eq!(
        stream.put_gauge(&stream.state.read(), FIRST).admit(1, bench.clock.tick_ms()),
        Verdict::Refused { wait_ms: 1 }
    );
    assert_eq!(bench.append(&stream, 500, 1), 500);
    assert_eq!(bench.counted(&stream, "write", "enforce"), 2);
    bench.clock.advance(500);
    assert_eq!(bench.append(&stream, 1, 1), 1);
}

#[tokio::test]
async fn what_observe_counts_is_what_enforce_would_have_slowed() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Observe).await;
    for _ in 0..20 {
        assert_eq!(bench.append(&stream, 100, 1), 0);
    }
    // The tenth filled it, the eleventh would have been told to pause, the others would not have come.
    assert_eq!(bench.counted(&stream, "write", "observe"), 10);
    bench.clock.advance(101);
    bench.append(&stream, 1, 1);
    assert_eq!(bench.counted(&stream, "write", "observe"), 10);
}

#[tokio::test]
async fn a_policy_can_be_changed_while_traffic_flows() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Off).await;
    assert_eq!(bench.append(&stream, 3_000, 1), 0);
    let enforce = Overrides::from([(topic::KINESIS_LIMITS.to_owned(), "enforce".to_owned())]);
    bench.broker.alter_stream(&stream, |_| Ok(enforce)).await.unwrap();
    assert_eq!(bench.append(&stream, 3_000, 1), 2_000);
}

#[tokio::test]
async fn large_records_may_come_in_bursts_once_they_are_allowed() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Enforce).await;
    let allow = bench.broker.change_stream(&stream, |draft| {
        draft.attributes.record_kib_max = 10_240;
        Ok::<_, CatalogError>(())
    });
    allow.await.unwrap();
    assert_eq!(stream.put_gauge(&stream.state.read(), FIRST).admit(10 * MIB, 0), Verdict::Granted);
    assert_eq!(stream.put_gauge(&stream.state.read(), FIRST).admit(1, 0), Verdict::Refused { wait_ms: 1 });
}

#[tokio::test]
async fn children_begin_afresh_and_parents_stay_readable() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Enforce).await;
    assert_eq!(bench.append(&stream, 2_000, 1), 1_000);
    bench.split(&stream, 0).await;
    assert_eq!(bench.append(&stream, 1_000, 1), 0);

    let shard_at = |index, offset| stream.shard_at(PartitionIndex(index), offset);
    assert_eq!([shard_at(0, 0), shard_at(0, 1_999)], [Some(FIRST); 2]);
    assert_eq!([shard_at(0, 2_000), shard_at(0, 9_000)], [Some(ShardOrdinal(1)); 2]);
    assert_eq!((shard_at(1, 0), shard_at(2, 0)), (Some(ShardOrdinal(2)), None));

    assert_eq!(stream.begin_read(FIRST, 0), Verdict::Granted);
    stream.end_read(FIRST, 10 * MIB, true, 0);
    assert_eq!(stream.begin_read(FIRST, 0), Verdict::Refused { wait_ms: 5_000 });
    assert_eq!(stream.begin_read(ShardOrdinal(1), 0), Verdict::Granted);
    assert_eq!(bench.counted(&stream, "read", "enforce"), 1);
}

#[tokio::test]
async fn a_registered_consumer_has_a_pipe_of_its_own_on_every_shard() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Enforce).await;
    bench.register(&stream, &["a", "b"]).await;
    let pipe = |shard: u32, consumer| stream.read_pipe(ShardOrdinal(shard), consumer);
    assert_eq!(pipe(0, Some("a")).charge(4 * MIB, 0), 1_000);
    assert_eq!(pipe(0, Some("a")).wait_ms(400), 600);
    for (shard, other) in [(0, Some("b")), (0, None), (0, Some("nobody")), (1, Some("a"))] {
        assert_eq!(pipe(shard, other).wait_ms(0), 0, "{shard} {other:?}");
    }
    // Whoever is not registered shares with those who do not say who they are, and with GetRecords.
    assert_eq!(pipe(0, Some("nobody")).charge(3 * MIB, 0), 500);
    assert_eq!(pipe(0, None).wait_ms(0), 500);
    assert_eq!(stream.begin_read(FIRST, 0), Verdict::Refused { wait_ms: 1_000 });
}

#[tokio::test]
async fn an_observed_reader_never_waits() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Observe).await;
    let pipe = stream.read_pipe(FIRST, None);
    assert_eq!([pipe.charge(3 * MIB, 0), pipe.wait_ms(0), pipe.charge(MIB, 0)], [0; 3]);
    assert_eq!(stream.begin_read(FIRST, 0), Verdict::Granted);
    assert_eq!(bench.counted(&stream, "read", "observe"), 3);
}

#[tokio::test]
async fn gauges_and_pipes_are_bounded() {
    let bench = Bench::new();
    let stream = bench.stream(LimitsPolicy::Enforce).await;
    for ordinal in 0..10_000 {
        stream.begin_read(ShardOrdinal(ordinal), 0);
    }
    // Of these the lineage knows one.
    assert!(stream.gauges.0.read().by_ordinal.len() <= PRUNE_FROM);
    for name in (0..100).map(|n| format!("c{n}")) {
        bench.register(&stream, &[&name]).await;
        stream.read_pipe(FIRST, Some(&name)).charge(1, 0);
    }
    let gauges = stream.gauges.of(FIRST, || stream.lineage());
    assert!(gauges.pipes.lock().len() <= 2);
}
