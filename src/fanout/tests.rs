use std::future::poll_fn;
use std::num::NonZeroU32;
use std::task::Poll;

use super::*;
use crate::broker::catalog::NewStream;
use crate::broker::put::NewRecord;
use crate::broker::{BrokerOptions, CatalogError};
use crate::metrics::Metrics;
use crate::model::attributes::{Attributes, LimitsPolicy, Passing};
use crate::model::settings::{BrokerValues, Overrides, topic};
use crate::model::shard::SplitAt;
use crate::store::memory::MemoryStore;

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
            overrides: Overrides::from([(topic::KINESIS_LIMITS.to_owned(), LimitsPolicy::Enforce.to_string())]),
            attributes,
        };
        let stream = broker.create_stream(new).await.unwrap();
        Bench { dispatcher: Dispatcher::new(clock.clone()), broker, clock, stream }
    }

    fn subscribe(&self, consumer: &str) -> Result<Subscription, Occupied> {
        let attributes = self.stream.attributes();
        let span = self.stream.span(FIRST).unwrap();
        let consumer = attributes.consumer(consumer).unwrap();
        self.dispatcher.subscribe(&self.broker, &self.stream, consumer, &span, 0)
    }

    async fn put(&self, data: &[u8]) {
        let record = NewRecord { partition_key: Some("k"), hash_key: None, data };
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
        News::Page(_, page) => page,
        News::End(end) => panic!("{end:?}"),
    }
}

fn end(news: News) -> End {
    match news {
        News::Page(_, page) => panic!("{page:?}"),
        News::End(end) => end,
    }
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
