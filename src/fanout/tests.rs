use std::future::poll_fn;
use std::num::NonZeroU32;
use std::task::Poll;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::put::NewRecord;
use crate::broker::shards::ShardRecord;
use crate::broker::{BrokerOptions, CatalogError};
use crate::metrics::Metrics;
use crate::model::attributes::{Attributes, LimitsPolicy, Passing};
use crate::model::settings::{BrokerValues, Overrides, topic};
use crate::model::shard::SplitAt;
use crate::store::memory::MemoryStore;

/// Shorter than a subscription.
const RETENTION_MS: i64 = 60_000;
const SHARED_BYTES: usize = 64 << 10;
const FIRST: ShardOrdinal = ShardOrdinal(0);

struct Bench {
    broker: Arc<Broker>,
    clock: Clock,
    dispatcher: Arc<Dispatcher>,
    stream: Arc<Stream>,
}

impl Bench {
    async fn new() -> Bench {
        let clock = Clock::manual(1_700_000_000_000);
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 1 << 24,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: Vec::new(),
        };
        let broker = Broker::open(Arc::new(MemoryStore::default()), options, clock.clone(), Metrics::new(10)).unwrap();
        let consumer = |name: &str| Consumer {
            name: name.to_owned(),
            created_ms: 7,
            passing: None,
            tags: Default::default(),
            policy: None,
        };
        let mut attributes = Attributes::new(clock.now_ms());
        attributes.consumers = vec![consumer("a"), consumer("b")];
        let new = NewStream {
            name: "orders".into(),
            partitions: NonZeroU32::MIN,
            claimed_replicas: 1,
            overrides: Overrides::from([
                (topic::KINESIS_LIMITS.to_owned(), LimitsPolicy::Enforce.to_string()),
                (topic::RETENTION_MS.to_owned(), RETENTION_MS.to_string()),
            ]),
            attributes,
        };
        let stream = broker.create_stream(new).await.unwrap();
        let dispatcher = Dispatcher::new(clock.clone(), SHARED_BYTES, &Metrics::new(1));
        Bench { dispatcher, broker, clock, stream }
    }

    fn subscribe(&self, consumer: &str) -> Result<Subscription, Occupied> {
        self.subscribe_to(FIRST, consumer, 0, 0)
    }

    fn subscribe_to(
        &self,
        shard: ShardOrdinal,
        consumer: &str,
        next: Offset,
        format: u8,
    ) -> Result<Subscription, Occupied> {
        let attributes = self.stream.attributes();
        let span = self.stream.span(shard).unwrap();
        let consumer = attributes.consumer(consumer).unwrap();
        self.dispatcher.subscribe(&self.broker, &self.stream, consumer, &span, next, format)
    }

    async fn put(&self, data: &[u8]) {
        self.put_at(0, data).await;
    }

    async fn put_at(&self, hash_key: u128, data: &[u8]) {
        let record = NewRecord { partition_key: Some("k"), hash_key: Some(hash_key), data };
        let outcomes = self.broker.put(&self.stream, &[record]).unwrap().committed().await;
        assert!(matches!(outcomes[..], [crate::broker::put::PutOutcome::Kept { .. }]), "{outcomes:?}");
    }

    async fn change(&self, change: impl FnOnce(&mut crate::broker::catalog::Draft<'_>)) {
        let changed = self.broker.change_stream(&self.stream, |draft| {
            change(draft);
            Ok::<_, CatalogError>(())
        });
        changed.await.unwrap();
    }
}

fn page(news: News) -> Page {
    match news {
        News::Page(told) => told.page,
        News::Written(written) => panic!("{written:?}"),
        News::End(end) => panic!("{end:?}"),
    }
}

fn end(news: News) -> End {
    match news {
        News::Page(told) => panic!("{:?}", told.page),
        News::Written(written) => panic!("{written:?}"),
        News::End(end) => end,
    }
}

/// Where what is told was read and how, as the door would write it.
#[derive(Debug, PartialEq)]
enum Heard {
    /// By itself.
    Own(String),
    /// By another subscription.
    Shared(String),
    Nothing,
}

/// What the subscription has to say, written and shared as the door does it.
async fn hear(subscription: &mut Subscription) -> Heard {
    let shared = |written: Written| Heard::Shared(String::from_utf8(written.body.to_vec()).unwrap());
    match now(subscription).await {
        None => Heard::Nothing,
        Some(News::Written(written)) => shared(written),
        Some(News::End(end)) => panic!("{end:?}"),
        Some(News::Page(told)) => {
            let data = |record: &ShardRecord| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap();
            let text = told.page.records.iter().map(data).collect::<Vec<_>>().join(" ");
            subscription.share(&told, &Bytes::from(text.clone().into_bytes()));
            Heard::Own(text)
        }
    }
}

fn own(text: &str) -> Heard {
    Heard::Own(text.to_owned())
}

fn shared(text: &str) -> Heard {
    Heard::Shared(text.to_owned())
}

/// What the subscription has to say without waiting; `None` when it waits.
async fn now(subscription: &mut Subscription) -> Option<News> {
    let mut next = Box::pin(subscription.next());
    for _ in 0..20 {
        let polled = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
        if let Poll::Ready(news) = polled {
            return Some(news);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn records_are_pushed_when_they_come() {
    let bench = Bench::new().await;
    let mut subscription = bench.subscribe("a").unwrap();
    let first = page(subscription.next().await);
    assert_eq!((first.records.len(), first.next, first.behind_ms), (0, 0, 0), "the first tells that it is subscribed");
    assert!(now(&mut subscription).await.is_none());
    let waiting = tokio::spawn(async move { (page(subscription.next().await), subscription) });
    tokio::task::yield_now().await;
    bench.put(b"x").await;
    let (pushed, mut subscription) = waiting.await.unwrap();
    assert_eq!((pushed.records.len(), pushed.next), (1, 1));
    assert!(now(&mut subscription).await.is_none(), "each record comes once");
}

#[tokio::test]
async fn something_is_heard_at_least_every_five_seconds() {
    let bench = Bench::new().await;
    let mut subscription = bench.subscribe("a").unwrap();
    subscription.next().await;
    for _ in 0..3 {
        bench.clock.advance(HEARTBEAT_MS - 1);
        assert!(now(&mut subscription).await.is_none());
        bench.clock.advance(1);
        assert!(page(now(&mut subscription).await.unwrap()).records.is_empty());
    }
    const { assert!(HEARTBEAT_MS < 5_000) };
}

#[tokio::test]
async fn a_subscription_is_taken_over_after_five_seconds() {
    let bench = Bench::new().await;
    let mut first = bench.subscribe("a").unwrap();
    bench.clock.advance(TAKEOVER_MS - 1);
    assert_eq!(bench.subscribe("a").err(), Some(Occupied));
    assert!(bench.subscribe("b").is_ok(), "another consumer has its own");
    bench.clock.advance(1);
    let mut second = bench.subscribe("a").unwrap();
    assert!(matches!(end(first.next().await), End::TakenOver));
    assert!(matches!(end(first.next().await), End::TakenOver));
    drop(first);
    assert!(page(second.next().await).records.is_empty());
    // Who has gone still counts for those seconds.
    drop(second);
    assert_eq!(bench.subscribe("a").err(), Some(Occupied));
    bench.clock.advance(TAKEOVER_MS);
    drop(bench.subscribe("a").unwrap());
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_taken_over_as_well() {
    let bench = Bench::new().await;
    let mut first = bench.subscribe("a").unwrap();
    bench.clock.advance(TAKEOVER_MS);
    let waiting = tokio::spawn(async move { first.overdue().await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let _second = bench.subscribe("a").unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_subscription_lasts_five_minutes() {
    let bench = Bench::new().await;
    let mut subscription = bench.subscribe("a").unwrap();
    bench.clock.advance(SUBSCRIPTION_MS_MAX - 1);
    page(subscription.next().await);
    bench.clock.advance(1);
    assert!(matches!(end(subscription.next().await), End::Expired));
}

#[tokio::test]
async fn a_closed_shard_ends_it_though_nothing_was_appended() {
    let bench = Bench::new().await;
    bench.put(b"x").await;
    let mut subscription = bench.subscribe("a").unwrap();
    assert_eq!(page(subscription.next().await).records.len(), 1);
    assert!(now(&mut subscription).await.is_none());
    let waiting = tokio::spawn(async move { (page(subscription.next().await), subscription) });
    tokio::task::yield_now().await;
    bench.change(|draft| assert!(draft.split(FIRST, SplitAt::Midpoint).is_ok())).await;
    let (last, mut subscription) = waiting.await.unwrap();
    assert!(last.ended && last.records.is_empty());
    assert!(matches!(end(subscription.next().await), End::ShardEnded));
}

#[tokio::test]
async fn it_ends_with_its_consumer_and_with_its_stream() {
    let bench = Bench::new().await;
    let mut of_a = bench.subscribe("a").unwrap();
    let mut of_b = bench.subscribe("b").unwrap();
    page(of_a.next().await);
    page(of_b.next().await);
    let waiting = tokio::spawn(async move { end(of_a.next().await) });
    tokio::task::yield_now().await;
    bench
        .change(|draft| {
            let passing = Passing { transition: Transition::Deleting, until_ms: i64::MAX };
            draft.attributes.consumers[0].passing = Some(passing);
        })
        .await;
    assert!(matches!(waiting.await.unwrap(), End::ConsumerGone));
    assert!(now(&mut of_b).await.is_none());
    let waiting = tokio::spawn(async move { end(of_b.next().await) });
    tokio::task::yield_now().await;
    bench.broker.delete_stream(&bench.stream).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), End::StreamGone));
}

#[tokio::test]
async fn every_consumer_has_two_mebibytes_a_second_of_its_own() {
    let bench = Bench::new().await;
    // Appended over time, as the shard takes a mebibyte a second.
    let record = vec![b'x'; (1 << 20) - 1];
    for _ in 0..6 {
        bench.put(&record).await;
        bench.clock.advance(1_000);
    }
    let mut of_a = bench.subscribe("a").unwrap();
    let mut of_b = bench.subscribe("b").unwrap();
    // A burst of a second's worth and what was begun before it was over, then the rate. Each has its own.
    let count = async |subscription: &mut Subscription| {
        let mut records = 0;
        while let Some(news) = now(subscription).await {
            records += page(news).records.len();
        }
        records
    };
    assert_eq!((count(&mut of_a).await, count(&mut of_b).await), (3, 3));
    bench.clock.advance(500);
    assert_eq!(count(&mut of_a).await, 1);
    bench.clock.advance(500);
    assert_eq!((count(&mut of_a).await, count(&mut of_b).await), (1, 2));
    bench.clock.advance(2_000);
    assert_eq!((count(&mut of_a).await, count(&mut of_b).await), (1, 1));
}

/// Two subscriptions that wait for what comes next, behind the first record.
async fn two(bench: &Bench) -> (Subscription, Subscription) {
    bench.put(b"0").await;
    let (mut of_a, mut of_b) = (bench.subscribe("a").unwrap(), bench.subscribe("b").unwrap());
    for subscription in [&mut of_a, &mut of_b] {
        hear(subscription).await;
        assert_eq!(hear(subscription).await, Heard::Nothing);
    }
    (of_a, of_b)
}

#[tokio::test]
async fn what_is_told_at_a_shards_end_is_read_and_written_once() {
    let bench = Bench::new().await;
    let (mut of_a, mut of_b) = two(&bench).await;
    for text in ["1", "2"] {
        bench.put(text.as_bytes()).await;
        assert_eq!((hear(&mut of_a).await, hear(&mut of_b).await), (own(text), shared(text)));
        assert_eq!((hear(&mut of_a).await, hear(&mut of_b).await), (Heard::Nothing, Heard::Nothing));
    }
    assert_eq!(bench.dispatcher.room.used(), 0, "all have had it");
    // One that missed some reads what it missed with what came then; from there on both go together.
    bench.put(b"3").await;
    assert_eq!(hear(&mut of_a).await, own("3"));
    bench.put(b"4").await;
    assert_eq!((hear(&mut of_a).await, hear(&mut of_b).await), (own("4"), own("3 4")));
    bench.put(b"5").await;
    assert_eq!((hear(&mut of_b).await, hear(&mut of_a).await), (own("5"), shared("5")));
    drop((of_a, of_b));
    assert!(bench.dispatcher.subscribed.lock().feeds.is_empty());
    assert_eq!(bench.dispatcher.room.used(), 0);
}

#[tokio::test]
async fn no_other_shards_place_or_format_is_shared() {
    let bench = Bench::new().await;
    bench.change(|draft| assert!(draft.split(FIRST, SplitAt::Midpoint).is_ok())).await;
    let children: Vec<Span> = [1, 2].map(|ordinal| bench.stream.span(ShardOrdinal(ordinal)).unwrap()).into();
    let starts: Vec<Offset> = children.iter().map(|span| span.shard.start_offset).collect();
    assert_eq!(starts[0], starts[1]);
    let at = |shard, consumer, format| bench.subscribe_to(ShardOrdinal(shard), consumer, starts[0], format).unwrap();
    let (mut of_a, mut of_b, mut in_other_format) = (at(1, "a", 0), at(2, "b", 0), at(1, "b", 1));
    // Alone with the other shard, as far as it is read.
    let mut beside = at(2, "a", 0);
    for subscription in [&mut of_a, &mut of_b, &mut in_other_format, &mut beside] {
        hear(subscription).await;
    }
    bench.put_at(0, b"low").await;
    bench.put_at(u128::MAX, b"high").await;
    assert_eq!((hear(&mut of_a).await, hear(&mut of_b).await), (own("low"), own("high")));
    assert_eq!((hear(&mut in_other_format).await, hear(&mut beside).await), (own("low"), shared("high")));
}

#[tokio::test]
async fn what_was_trimmed_or_has_expired_is_not_told_of_anothers_reading() {
    let bench = Bench::new().await;
    let (mut of_a, mut of_b) = two(&bench).await;
    bench.put(b"1").await;
    bench.put(b"2").await;
    assert_eq!(hear(&mut of_a).await, own("1 2"));
    bench.broker.trim(&bench.stream.partitions()[0], 2).await.unwrap();
    assert_eq!(hear(&mut of_b).await, own("2"));
    bench.put(b"3").await;
    bench.clock.advance(RETENTION_MS / 2);
    bench.put(b"4").await;
    assert_eq!(hear(&mut of_a).await, own("3 4"));
    bench.clock.advance(RETENTION_MS / 2 + 1);
    assert_eq!(hear(&mut of_b).await, own("4"));
}

#[tokio::test]
async fn the_end_of_a_closed_shard_is_told_whoever_has_read_to_it() {
    let bench = Bench::new().await;
    let (mut of_a, mut of_b) = two(&bench).await;
    bench.put(b"1").await;
    assert_eq!(hear(&mut of_a).await, own("1"));
    bench.change(|draft| assert!(draft.split(FIRST, SplitAt::Midpoint).is_ok())).await;
    for (subscription, records) in [(&mut of_a, 0), (&mut of_b, 1)] {
        let last = page(subscription.next().await);
        assert_eq!((last.ended, last.records.len()), (true, records));
    }
}

#[tokio::test]
async fn what_others_were_told_counts_against_ones_own_pipe_and_hides_no_end() {
    let bench = Bench::new().await;
    let (mut of_a, mut of_b) = two(&bench).await;
    let wait_ms = |subscription: &Subscription| subscription.pipe.wait_ms(bench.clock.tick_ms());
    // A second's worth but for what they were told before, so that most of what comes next is owed.
    for subscription in [&of_a, &of_b] {
        subscription.pipe.charge((2 << 20) - 100, bench.clock.tick_ms());
    }
    let text = "x".repeat(10_000);
    bench.put(text.as_bytes()).await;
    assert_eq!((wait_ms(&of_a), wait_ms(&of_b)), (0, 0));
    assert_eq!((hear(&mut of_a).await, hear(&mut of_b).await), (own(&text), shared(&text)));
    assert!(wait_ms(&of_b) > 0);
    assert_eq!(wait_ms(&of_a), wait_ms(&of_b));
    bench.clock.advance(1_000);
    bench.put(b"1").await;
    assert_eq!(hear(&mut of_a).await, own("1"));
    bench
        .change(|draft| {
            let passing = Passing { transition: Transition::Deleting, until_ms: i64::MAX };
            draft.attributes.consumers[1].passing = Some(passing);
        })
        .await;
    assert!(matches!(end(of_b.next().await), End::ConsumerGone));
}
