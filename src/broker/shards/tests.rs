//! Records put by hash key and read by shard, beside those of Kafka's producers.

use std::collections::HashMap;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::put::{NewRecord, PutOutcome};
use crate::broker::{BrokerOptions, CatalogError, Terms};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::attributes::{Attributes, LimitsPolicy, RecordDistribution};
use crate::model::batch::{Compressor, Options, Record, RecordHeader};
use crate::model::ids::PartitionIndex;
use crate::model::settings::{BrokerValues, Overrides, TimestampType, topic};
use crate::model::shard::SplitAt;
use crate::store::memory::MemoryStore;

const ALL: PageLimits = PageLimits { records_max: 10_000, bytes_max: 10 << 20 };
const HALF: u128 = 1 << 127;

struct Bench {
    broker: Arc<Broker>,
    store: Arc<MemoryStore>,
    clock: Clock,
}

impl Bench {
    fn new() -> Bench {
        let (store, clock) = (Arc::new(MemoryStore::default()), Clock::manual(1_700_000_000_000));
        Bench { broker: open(&store, &clock), store, clock }
    }

    /// What a crash leaves.
    fn reopen(&mut self) {
        self.broker = open(&self.store, &self.clock);
    }

    async fn stream(&self, partitions: u32, overrides: &[(&str, &str)]) -> Arc<Stream> {
        let mut all = Overrides::from([(topic::KINESIS_LIMITS.to_owned(), LimitsPolicy::Off.to_string())]);
        all.extend(overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let new = NewStream {
            name: "orders".into(),
            partitions: NonZeroU32::new(partitions).unwrap(),
            claimed_replicas: 1,
            overrides: all,
            attributes: Attributes::new(self.clock.now_ms()),
        };
        self.broker.create_stream(new).await.unwrap()
    }

    async fn put(&self, stream: &Stream, records: &[NewRecord<'_>]) -> Vec<PutOutcome> {
        self.broker.put(stream, records).unwrap().committed().await
    }

    /// One record; where it went and by which offset.
    async fn put_one(&self, stream: &Stream, hash_key: u128, data: &[u8]) -> (u32, Offset) {
        let record = NewRecord { partition_key: Some("k"), hash_key: Some(hash_key), data };
        let outcome = self.put(stream, &[record]).await.remove(0);
        let PutOutcome::Kept { shard, sequence_number } = outcome else { panic!("{outcome:?}") };
        assert_eq!(sequence_number.ordinal, shard.0);
        (shard.0, sequence_number.offset().unwrap())
    }

    /// What a Kafka producer sends.
    async fn produce(&self, stream: &Stream, partition: u32, compressor: Compressor, values: &[&str]) {
        let record = |value: &&str| Record {
            offset: 0,
            timestamp: 5,
            key: Some(Bytes::from(format!("key of {value}"))),
            value: Some(Bytes::from((*value).to_owned())),
            headers: vec![RecordHeader { key: Bytes::from_static(b"trace"), value: None }],
        };
        let records: Vec<Record> = values.iter().map(record).collect();
        let batch = batch::build(&records, &Options { compressor, producer: None }).unwrap();
        let ticket = self.broker.append(stream, PartitionIndex(partition), &batch, Terms::default()).unwrap();
        ticket.committed().await.unwrap();
    }

    async fn split(&self, stream: &Stream, shard: u32) {
        let split = self.broker.change_stream(stream, |draft| {
            draft.split(ShardOrdinal(shard), SplitAt::Midpoint).map_err(CatalogError::from)
        });
        split.await.unwrap();
    }

    async fn page(&self, stream: &Stream, shard: u32, from: Offset, limits: PageLimits) -> Page {
        let span = stream.span(ShardOrdinal(shard)).unwrap();
        self.broker.read_shard(stream, &span, from, limits).await.unwrap()
    }

    /// Everything of a shard, in pages: data as text.
    async fn all(&self, stream: &Stream, shard: u32, limits: PageLimits) -> Vec<String> {
        let (mut found, mut next) = (Vec::new(), 0);
        loop {
            let page = self.page(stream, shard, next, limits).await;
            assert!(page.records.len() <= limits.records_max);
            assert!(page.records.iter().is_sorted_by_key(|record| record.offset));
            found.extend(page.records.iter().map(text));
            if page.records.is_empty() && page.next == next {
                return found;
            }
            assert!(page.next > next, "{page:?}");
            next = page.next;
        }
    }
}

fn open(store: &Arc<MemoryStore>, clock: &Clock) -> Arc<Broker> {
    let options = BrokerOptions {
        sync: false,
        tail_bytes_max: 5_000,
        compaction_bytes_max: 1 << 20,
        values: BrokerValues::default(),
        master_keys: Vec::new(),
    };
    Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap()
}

fn text(record: &ShardRecord) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
}

fn record<'a>(hash_key: u128, data: &'a str) -> NewRecord<'a> {
    NewRecord { partition_key: Some("k"), hash_key: Some(hash_key), data: data.as_bytes() }
}

/// Batches are larger than what is shown of them, in memory and cold, so that one read does not fill a page.
#[tokio::test]
async fn a_page_goes_on_to_its_limit() {
    for compressor in [Compressor::None, Compressor::of(Codec::Lz4)] {
        let bench = Bench::new();
        let stream = bench.stream(1, &[]).await;
        let values: Vec<String> = (0..100).map(|n| format!("{n:0100}")).collect();
        for value in &values {
            bench.produce(&stream, 0, compressor, &[value]).await;
        }
        // Key and data of one have 207 bytes.
        let limits = PageLimits { records_max: 1_000, bytes_max: 40 * 207 + 206 };
        let (mut found, mut next) = (Vec::new(), 0);
        for records in [40, 40, 20] {
            let page = bench.page(&stream, 0, next, limits).await;
            assert_eq!((page.records.len(), page.full), (records, records == 40), "{compressor:?}");
            found.extend(page.records.iter().map(text));
            next = page.next;
        }
        assert_eq!(found, values);
        assert_eq!(bench.page(&stream, 0, 0, PageLimits { records_max: 30, ..limits }).await.records.len(), 30);
    }
}

#[tokio::test]
async fn a_page_holds_no_more_than_a_few_times_its_limit() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    let header = RecordHeader { key: Bytes::from_static(b"h"), value: Some(Bytes::from(vec![0; 10_000])) };
    for _ in 0..10 {
        let value = Some(Bytes::from_static(b"small"));
        let record = Record { offset: 0, timestamp: 5, key: None, value, headers: vec![header.clone()] };
        let batch = batch::build(&[record], &Options { compressor: Compressor::None, producer: None }).unwrap();
        bench.broker.append(&stream, PartitionIndex(0), &batch, Terms::default()).unwrap().committed().await.unwrap();
    }
    let limits = PageLimits { records_max: 1_000, bytes_max: 20_000 };
    let page = bench.page(&stream, 0, 0, limits).await;
    assert!((4..=6).contains(&page.records.len()) && !page.full, "{}", page.records.len());
    assert_eq!(bench.all(&stream, 0, limits).await.len(), 10);
}

#[tokio::test]
async fn one_request_is_one_batch_for_each_shard() {
    let bench = Bench::new();
    let stream = bench.stream(2, &[]).await;
    let outcomes = bench
        .put(&stream, &[record(0, "a"), record(u128::MAX, "b"), record(1, "c"), record(HALF, "d"), record(2, "e")])
        .await;
    let places: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            PutOutcome::Kept { shard, sequence_number } => (shard.0, sequence_number.offset().unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]);
    assert_eq!(bench.all(&stream, 0, ALL).await, ["a", "c", "e"]);
    assert_eq!(bench.all(&stream, 1, ALL).await, ["b", "d"]);

    // As Kafka reads them: one batch each, whose timestamps are the arrival.
    let partition = stream.partition(PartitionIndex(0)).unwrap();
    let batches = bench.broker.read(&partition, 0, Offset::MAX, 1 << 20).await.unwrap();
    assert_eq!(batches.len(), 1);
    let header = Header::parse(&batches[0].batch()).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    let records: Vec<Record> = batch::records(&batches[0].batch()).unwrap().map(Result::unwrap).collect();
    assert!(
        records.iter().all(|record| record.timestamp == bench.clock.now_ms() && record.key.as_deref() == Some(b"k"))
    );
}

#[tokio::test]
async fn what_kafka_producers_write_is_read_whatever_its_codec() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    let codecs =
        [Compressor::None, Compressor::of(Codec::Gzip), Compressor::of(Codec::Lz4), Compressor::of(Codec::Zstd)];
    for (n, codec) in codecs.into_iter().enumerate() {
        bench.produce(&stream, 0, codec, &[&format!("{n}a"), &format!("{n}b"), &format!("{n}c")]).await;
    }
    bench.put_one(&stream, 0, b"put").await;
    let expected = ["0a", "0b", "0c", "1a", "1b", "1c", "2a", "2b", "2c", "3a", "3b", "3c", "put"].map(str::to_owned);
    for records_max in [1, 2, 3, 4, 100] {
        assert_eq!(bench.all(&stream, 0, PageLimits { records_max, ..ALL }).await, expected, "{records_max}");
    }
    // In the middle of a batch the read begins at the record, not at the batch; arrival is the broker's time.
    let page = bench.page(&stream, 0, 7, PageLimits { records_max: 1, ..ALL }).await;
    assert_eq!((text(&page.records[0]), page.records[0].offset, page.next), ("2b".to_owned(), 7, 8));
    assert_eq!(page.records[0].append_ms, bench.clock.now_ms());
    assert_eq!(page.records[0].key.as_deref(), Some(&b"key of 2b"[..]));
}

#[tokio::test]
async fn a_page_has_its_bytes_and_a_large_record_comes_alone() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    let large = "x".repeat(300);
    bench.put(&stream, &[record(0, "aaaa"), record(0, "bbbb"), record(0, &large), record(0, "c")]).await;
    // Four bytes and the key's one.
    let limits = PageLimits { records_max: 10, bytes_max: 10 };
    let first = bench.page(&stream, 0, 0, limits).await;
    assert_eq!((first.records.len(), first.bytes, first.full, first.next), (2, 10, true, 2));
    let second = bench.page(&stream, 0, first.next, limits).await;
    assert_eq!((second.records.len(), second.bytes, second.full, second.next), (1, 301, true, 3));
    let third = bench.page(&stream, 0, second.next, limits).await;
    assert_eq!((third.records.len(), third.full, third.behind_ms), (1, false, 0));
    // A page that ends by its count has left nothing out for its bytes.
    assert!(!bench.page(&stream, 0, 0, PageLimits { records_max: 1, bytes_max: 10 }).await.full);
}

#[tokio::test]
async fn a_closed_shard_ends_and_its_children_go_on() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    bench.put(&stream, &[record(0, "a"), record(u128::MAX, "b")]).await;
    let before = stream.span(ShardOrdinal(0)).unwrap();
    bench.split(&stream, 0).await;
    bench.put(&stream, &[record(0, "c"), record(u128::MAX, "d")]).await;
    bench.produce(&stream, 0, Compressor::None, &["e"]).await;

    assert_eq!(bench.all(&stream, 0, ALL).await, ["a", "b"]);
    assert_eq!(bench.all(&stream, 1, ALL).await, ["c", "e"]);
    assert_eq!(bench.all(&stream, 2, ALL).await, ["d"]);
    let last = bench.page(&stream, 0, 1, ALL).await;
    assert_eq!((last.ended, last.next), (true, 2));
    assert!(!bench.page(&stream, 0, 0, PageLimits { records_max: 1, ..ALL }).await.ended);
    assert!(!bench.page(&stream, 1, 4, ALL).await.ended, "an open shard does not end");
    // A reader that looked before the split has seen its shard open, and gets nothing of the child.
    let page = bench.broker.read_shard(&stream, &before, 0, ALL).await.unwrap();
    assert_eq!((page.records.len(), page.ended), (2, false));
}

#[tokio::test]
async fn records_are_hidden_when_they_expire_to_the_millisecond() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[(topic::RETENTION_MS, "3600000"), (topic::SEGMENT_BYTES, "150")]).await;
    for n in 0..6 {
        bench.put_one(&stream, 0, format!("{n}").as_bytes()).await;
        bench.clock.advance(60_000);
    }
    // The first was appended six minutes ago.
    bench.clock.advance(3_600_000 - 6 * 60_000);
    assert_eq!(bench.all(&stream, 0, ALL).await, ["0", "1", "2", "3", "4", "5"]);
    bench.clock.advance(1);
    assert_eq!(bench.all(&stream, 0, ALL).await, ["1", "2", "3", "4", "5"]);
    bench.clock.advance(4 * 60_000);
    let page = bench.page(&stream, 0, 0, ALL).await;
    assert_eq!((page.records.len(), page.next), (1, 6));
    bench.clock.advance(60_000);
    let page = bench.page(&stream, 0, 0, ALL).await;
    assert_eq!((page.records.len(), page.next, page.behind_ms), (0, 6, 0), "an empty page goes on as well");
}

#[tokio::test]
async fn a_reader_knows_how_far_it_is_behind() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    assert_eq!(bench.page(&stream, 0, 0, ALL).await.behind_ms, 0);
    bench.put_one(&stream, 0, b"a").await;
    bench.clock.advance(5_000);
    bench.put_one(&stream, 0, b"b").await;
    bench.clock.advance(2_000);
    let one = PageLimits { records_max: 1, ..ALL };
    assert_eq!(bench.page(&stream, 0, 0, one).await.behind_ms, 7_000);
    assert_eq!(bench.page(&stream, 0, 1, one).await.behind_ms, 0);
}

#[tokio::test]
async fn limits_refuse_single_records() {
    let bench = Bench::new();
    let stream = bench.stream(2, &[(topic::KINESIS_LIMITS, "enforce")]).await;
    let large = "x".repeat((1 << 20) - 1);
    let outcomes =
        bench.put(&stream, &[record(0, &large), record(0, "more"), record(HALF, "other"), record(0, "and more")]).await;
    let kept: Vec<_> = outcomes.iter().map(|outcome| matches!(outcome, PutOutcome::Kept { .. })).collect();
    assert_eq!(kept, [true, false, true, false]);
    assert!(matches!(outcomes[1], PutOutcome::Throttled { shard: ShardOrdinal(0) }));
    // A request of which nothing fits writes nothing.
    let outcomes = bench.put(&stream, &[record(0, "more")]).await;
    assert!(matches!(outcomes[..], [PutOutcome::Throttled { .. }]));
    assert_eq!(bench.all(&stream, 0, ALL).await, [large]);
}

#[tokio::test]
async fn spread_evenly_keys_decide_nothing() {
    let bench = Bench::new();
    let stream = bench.stream(4, &[(topic::KINESIS_LIMITS, "enforce")]).await;
    let spread = bench.broker.change_stream(&stream, |draft| {
        draft.attributes.distribution = RecordDistribution::Auto;
        Ok::<_, CatalogError>(())
    });
    spread.await.unwrap();
    let one = |data| NewRecord { partition_key: None, hash_key: None, data };
    bench.put(&stream, &[one(b"r"); 40]).await;
    for shard in 0..4 {
        assert_eq!(bench.all(&stream, shard, ALL).await.len(), 10);
    }
    // What one shard cannot take, another does, until none can: 990 are left in each.
    let outcomes = bench.put(&stream, &[one(b""); 4 * 990 + 1]).await;
    let throttled = outcomes.iter().filter(|outcome| matches!(outcome, PutOutcome::Throttled { .. })).count();
    assert_eq!(throttled, 1);
}

#[tokio::test]
async fn a_deleted_stream_takes_nothing() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    bench.broker.delete_stream(&stream).await.unwrap();
    let outcomes = bench.put(&stream, &[record(0, "a")]).await;
    assert!(matches!(outcomes[..], [PutOutcome::Failed(crate::broker::put::PutError::Deleted)]), "{outcomes:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u128>),
    Produce { partition: usize, records: usize, zstd: bool },
    Split { pick: usize },
    Merge { pick: usize },
    Restart,
    Later(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(any::<u128>(), 1..20).prop_map(Step::Put),
        3 => (any::<usize>(), 1..10_usize, any::<bool>())
            .prop_map(|(partition, records, zstd)| Step::Produce { partition, records, zstd }),
        2 => any::<usize>().prop_map(|pick| Step::Split { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Merge { pick }),
        1 => Just(Step::Restart),
        1 => (0..5_000_i64).prop_map(Step::Later),
    ];
    prop::collection::vec(step, 1..40)
}

/// Reads every shard from its beginning, parents before their children, and counts what it finds.
async fn follow(bench: &Bench, stream: &Stream, limits: PageLimits) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for shard in stream.lineage().shards() {
        for text in bench.all(stream, shard.ordinal.0, limits).await {
            *found.entry(text).or_insert(0) += 1;
        }
        if !shard.is_open() {
            assert!(stream.lineage().children(shard.ordinal).count() > 0, "a closed shard has children");
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_read_once_through_reshards(
        steps in steps(), records_max in 1..40_usize, bytes_max in 1..2_000_usize
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut bench = Bench::new();
            let mut stream = bench.stream(2, &[]).await;
            let mut acknowledged = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(keys) => {
                        let data: Vec<String> = (0..keys.len()).map(|n| format!("{number}-{n}")).collect();
                        let records: Vec<_> =
                            keys.iter().zip(&data).map(|(key, data)| record(*key, data)).collect();
                        for (outcome, data) in bench.put(&stream, &records).await.iter().zip(&data) {
                            assert!(matches!(outcome, PutOutcome::Kept { .. }));
                            acknowledged.push(data.clone());
                        }
                    }
                    Step::Produce { partition, records, zstd } => {
                        let values: Vec<String> = (0..records).map(|n| format!("{number}-{n}")).collect();
                        let values: Vec<&str> = values.iter().map(String::as_str).collect();
                        let codec = if zstd { Compressor::of(Codec::Zstd) } else { Compressor::None };
                        // Any partition: what is addressed to a dormant one is absorbed.
                        let partition = partition as u32 % stream.partition_count();
                        bench.produce(&stream, partition, codec, &values).await;
                        acknowledged.extend(values.iter().map(|value| (*value).to_owned()));
                    }
                    Step::Split { pick } => {
                        let open: Vec<u32> = stream.lineage().open_shards().map(|shard| shard.ordinal.0).collect();
                        bench.split(&stream, open[pick % open.len()]).await;
                    }
                    Step::Merge { pick } => {
                        let lineage = stream.lineage();
                        let open: Vec<_> = lineage.open_shards_by_hash_key().map(|shard| shard.ordinal).collect();
                        if open.len() > 1 {
                            let at = pick % (open.len() - 1);
                            let merge = bench.broker.change_stream(&stream, |draft| {
                                draft.merge(open[at], open[at + 1]).map_err(CatalogError::from)
                            });
                            merge.await.unwrap();
                        }
                    }
                    Step::Restart => {
                        bench.reopen();
                        stream = bench.broker.stream("orders").unwrap();
                    }
                    Step::Later(ms) => bench.clock.advance(ms),
                }
            }
            let found = follow(&bench, &stream, PageLimits { records_max, bytes_max }).await;
            assert_eq!(found.len(), acknowledged.len());
            for data in acknowledged {
                assert_eq!(found.get(&data), Some(&1), "{data}");
            }
        });
    }
}

impl Bench {
    /// One record of a producer's transaction.
    async fn write(&self, stream: &Stream, id: i64, sequence: i32, value: &str) {
        let record = Record {
            offset: 0,
            timestamp: 5,
            key: None,
            value: Some(Bytes::from(value.to_owned())),
            headers: Vec::new(),
        };
        let producer = Some(batch::Producer { id, epoch: 0, base_sequence: sequence, transactional: true });
        let batch = batch::build(&[record], &Options { compressor: Compressor::None, producer }).unwrap();
        let terms = Terms { transactional: true, ..Terms::default() };
        self.broker.append(stream, PartitionIndex(0), &batch, terms).unwrap().committed().await.unwrap();
    }

    async fn end(&self, stream: &Arc<Stream>, id: i64, commit: bool) {
        let partitions = vec![(stream.clone(), PartitionIndex(0))];
        let end = crate::broker::End { producer_id: id, producer_epoch: 0, coordinator_epoch: 0, commit, partitions };
        self.broker.end_transaction(end, Default::default()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_page_shows_committed_records_only_and_passes_over_the_others() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    bench.put_one(&stream, 0, b"put").await;
    bench.write(&stream, 7, 0, "kept").await;
    bench.write(&stream, 8, 0, "dropped").await;
    bench.put_one(&stream, 0, b"behind").await;
    // Nothing behind an open transaction is there yet, and a reader who has the rest is up to date.
    let limits = PageLimits { records_max: 10, bytes_max: 1 << 20 };
    let page = bench.page(&stream, 0, 0, limits).await;
    assert_eq!((page.records.iter().map(text).collect::<Vec<_>>(), page.next), (vec!["put".to_owned()], 1));
    bench.clock.advance(5_000);
    let page = bench.page(&stream, 0, 1, limits).await;
    assert_eq!((page.records.len(), page.next, page.behind_ms, page.ended), (0, 1, 0, false));
    bench.end(&stream, 8, false).await;
    assert!(bench.page(&stream, 0, 1, limits).await.records.is_empty());
    bench.end(&stream, 7, true).await;
    assert_eq!(bench.all(&stream, 0, limits).await, ["put", "kept", "behind"]);
    // The last of the visible records is the end, though markers follow it; the one before is not.
    for (records_max, next, behind_ms) in [(1, 1, 5_000), (2, 3, 5_000), (3, 6, 0)] {
        let page = bench.page(&stream, 0, 0, PageLimits { records_max, ..limits }).await;
        assert_eq!((page.records.len(), page.next, page.behind_ms), (records_max, next, behind_ms));
    }
    // Of a reader that is in the middle of what was aborted, and of one of a closed shard.
    let page = bench.page(&stream, 0, 2, limits).await;
    assert_eq!(page.records.iter().map(text).collect::<Vec<_>>(), ["behind"]);
    bench.split(&stream, 0).await;
    let page = bench.page(&stream, 0, 4, limits).await;
    assert_eq!((page.records.len(), page.next, page.ended), (0, 6, true));
}

#[tokio::test]
async fn a_shard_that_was_closed_within_a_transaction_ends_with_that() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[]).await;
    let limits = PageLimits { records_max: 10, bytes_max: 1 << 20 };
    bench.write(&stream, 7, 0, "parent's").await;
    bench.split(&stream, 0).await;
    bench.write(&stream, 7, 1, "child's").await;
    let page = bench.page(&stream, 0, 0, limits).await;
    assert_eq!((page.records.len(), page.ended), (0, false));
    bench.end(&stream, 7, true).await;
    let page = bench.page(&stream, 0, 0, limits).await;
    assert_eq!((page.records.len(), page.ended), (1, true));
    assert_eq!(bench.all(&stream, 1, limits).await, ["child's"]);
}

#[tokio::test]
async fn who_asks_for_it_reads_uncommitted_records_but_no_markers() {
    let bench = Bench::new();
    let stream = bench.stream(1, &[(topic::KINESIS_ISOLATION, "read_uncommitted")]).await;
    let limits = PageLimits { records_max: 10, bytes_max: 1 << 20 };
    bench.write(&stream, 7, 0, "aborted").await;
    bench.end(&stream, 7, false).await;
    bench.write(&stream, 7, 1, "open").await;
    assert_eq!(bench.all(&stream, 0, limits).await, ["aborted", "open"]);
}
