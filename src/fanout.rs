//! Enhanced fan-out: what registered consumers are pushed. Called by the Kinesis door, which turns what a
//! [`Subscription`] has into events and says where it begins.
//!
//! A subscription reads for one consumer and one shard, for at most [`SUBSCRIPTION_MS_MAX`]. It is pulled by whoever sends
//! its events, so that a slow client holds back nobody and holds no more than what is being sent to it; it waits on the
//! partition's and the stream's watches and polls nothing. At least every [`HEARTBEAT_MS`] it tells how far it is. Those at
//! the shard's end are mostly told the same, which is read and written for one of them ([`feed`]).
//!
//! Invariants:
//! - One consumer has one subscription to a shard. A new one within [`TAKEOVER_MS`] of the last is refused, a later one
//!   takes over and ends the one before.
//! - What is remembered is one small entry for each consumer and shard that is subscribed or lately was, and for shards
//!   with several subscriptions a few events within one bound of bytes.
//! - What one is told of another's reading it would have read itself: the same records up to the end of the shard as it
//!   is now, of which nothing has expired and all is in memory.
//!
//! Source: Kinesis API reference (SubscribeToShard).

mod feed;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::feed::{Feed, Name, Room};
use crate::broker::shards::{Page, PageLimits, Span};
use crate::broker::{Broker, ReadPipe, Stream};
use crate::clock::Clock;
use crate::log::partition::ReadError;
use crate::metrics::Metrics;
use crate::model::attributes::{Consumer, RecordDistribution, Transition};
use crate::model::ids::{Offset, ShardOrdinal, StreamId};

pub use self::feed::Written;

/// How long a subscription lasts.
pub const SUBSCRIPTION_MS_MAX: i64 = 5 * 60_000;
/// A consumer that has subscribed to a shard cannot do so again for this long.
pub const TAKEOVER_MS: i64 = 5_000;
/// A client hears something at least every 5 seconds; the rest is for the way.
pub const HEARTBEAT_MS: i64 = 4_000;
/// Keys and data of one event: half of what a second's pipe holds. A larger record comes alone.
const EVENT_LIMITS: PageLimits = PageLimits { records_max: 10_000, bytes_max: 1 << 20 };
/// With this many entries, those that mean nothing any more are dropped.
const PRUNE_FROM: usize = 64;

/// All subscriptions of this broker.
pub struct Dispatcher {
    clock: Clock,
    room: Arc<Room>,
    subscribed: Mutex<Subscribed>,
}

#[derive(Default)]
struct Subscribed {
    by_key: HashMap<Key, Entry>,
    /// Of shards with a subscription.
    feeds: HashMap<(StreamId, ShardOrdinal), Arc<Feed>>,
    next_id: u64,
    prune_at: usize,
}

/// A consumer that was registered anew under its name is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    stream: StreamId,
    consumer: String,
    created_ms: i64,
    shard: ShardOrdinal,
}

impl Key {
    fn new(stream: &Stream, consumer: &Consumer, shard: ShardOrdinal) -> Key {
        Key { stream: stream.id, consumer: consumer.name.clone(), created_ms: consumer.created_ms, shard }
    }
}

fn is_recent(since_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(since_ms) < TAKEOVER_MS
}

struct Entry {
    id: u64,
    /// When it began, by [`Clock::tick_ms`].
    since_ms: i64,
    taken_over: watch::Sender<bool>,
}

/// Another subscription of the consumer to the shard is not old enough to be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another subscription began less than {TAKEOVER_MS} ms ago")]
pub struct Occupied;

/// One consumer's reading of one shard.
pub struct Subscription {
    broker: Arc<Broker>,
    stream: Arc<Stream>,
    pipe: ReadPipe,
    next: Offset,
    /// As far as was seen last.
    behind_ms: i64,
    until_ms: i64,
    heartbeat_ms: i64,
    is_over: bool,
    /// As the stream's attributes were after the last change that was seen.
    is_registered: bool,
    distribution: RecordDistribution,
    /// The door's number for how it writes what this subscription is told.
    format: u8,
    /// Rings at its time or before what is waited for: setting it anew for every event costs more than a look too many.
    alarm: Option<(i64, BoxFuture<'static, ()>)>,
    end: watch::Receiver<Offset>,
    changes: watch::Receiver<()>,
    taken_over: watch::Receiver<bool>,
    place: Place,
}

/// The subscription's entry with the dispatcher.
struct Place {
    dispatcher: Arc<Dispatcher>,
    feed: Arc<Feed>,
    key: Key,
    id: u64,
}

/// What a subscription has to tell.
pub enum News {
    /// Records, or none for a while: then only how far the reader is.
    Page(Box<Told>),
    /// Records up to the shard's end, as they were written for another subscription.
    Written(Written),
    End(End),
}

/// What was read for a subscription.
pub struct Told {
    pub span: Span,
    pub page: Page,
    /// What of the stream's attributes shows in how records are written.
    pub distribution: RecordDistribution,
    from: Offset,
}

/// Why nothing more comes.
#[derive(Debug)]
pub enum End {
    /// The shard is closed and its last page was told.
    ShardEnded,
    /// The time is over; the consumer may subscribe again.
    Expired,
    TakenOver,
    ConsumerGone,
    StreamGone,
    /// All of the closed shard's records have expired, and it is forgotten.
    ShardGone,
    Failed(ReadError),
}

impl Dispatcher {
    /// `shared_bytes_max`: of events that are held for several subscriptions.
    pub fn new(clock: Clock, shared_bytes_max: usize, metrics: &Metrics) -> Arc<Dispatcher> {
        let room = Room::new(shared_bytes_max);
        let used = room.clone();
        metrics.watch_budget("fanout", shared_bytes_max, move || used.used());
        Arc::new(Dispatcher { clock, room, subscribed: Mutex::default() })
    }

    /// Begins to read the shard of `span` from `next` on. What the door writes in the same `format` is the same for every
    /// subscription.
    pub fn subscribe(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        stream: &Arc<Stream>,
        consumer: &Consumer,
        span: &Span,
        next: Offset,
        format: u8,
    ) -> Result<Subscription, Occupied> {
        let now_ms = self.clock.tick_ms();
        let shard = span.shard.ordinal;
        let key = Key::new(stream, consumer, shard);
        let (place, taken_over) = self.enter(key, now_ms)?;
        let changes = stream.watch_changes();
        let mut subscription = Subscription {
            broker: broker.clone(),
            pipe: stream.read_pipe(shard, Some(&consumer.name)),
            next,
            behind_ms: 0,
            until_ms: now_ms.saturating_add(SUBSCRIPTION_MS_MAX),
            // The first event tells the client that it is subscribed.
            heartbeat_ms: now_ms,
            is_over: false,
            is_registered: true,
            distribution: RecordDistribution::default(),
            format,
            alarm: None,
            end: span.partition.watch_end(),
            changes,
            stream: stream.clone(),
            taken_over,
            place,
        };
        // Behind the beginning of the watch, so that no change is missed.
        subscription.heed();
        Ok(subscription)
    }

    /// Whether the consumer has subscribed to the shard so recently that nothing may take over yet.
    pub fn is_occupied(&self, stream: &Stream, consumer: &Consumer, shard: ShardOrdinal) -> bool {
        let before = self.subscribed.lock().by_key.get(&Key::new(stream, consumer, shard)).map(|entry| entry.since_ms);
        before.is_some_and(|since_ms| is_recent(since_ms, self.clock.tick_ms()))
    }

    fn enter(self: &Arc<Self>, key: Key, now_ms: i64) -> Result<(Place, watch::Receiver<bool>), Occupied> {
        let mut subscribed = self.subscribed.lock();
        if let Some(before) = subscribed.by_key.get(&key) {
            if is_recent(before.since_ms, now_ms) {
                return Err(Occupied);
            }
            before.taken_over.send_replace(true);
        }
        if subscribed.by_key.len() >= subscribed.prune_at.max(PRUNE_FROM) {
            subscribed
                .by_key
                .retain(|_, entry| is_recent(entry.since_ms, now_ms) || entry.taken_over.receiver_count() > 0);
            subscribed.prune_at = 2 * subscribed.by_key.len();
        }
        let id = subscribed.next_id;
        subscribed.next_id += 1;
        let (sender, receiver) = watch::channel(false);
        subscribed.by_key.insert(key.clone(), Entry { id, since_ms: now_ms, taken_over: sender });
        let feed = subscribed.feeds.entry((key.stream, key.shard)).or_insert_with(|| Feed::new(&self.room)).clone();
        feed.join();
        Ok((Place { dispatcher: self.clone(), feed, key, id }, receiver))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now_ms = self.dispatcher.clock.tick_ms();
        let mut subscribed = self.dispatcher.subscribed.lock();
        if self.feed.leave() {
            subscribed.feeds.remove(&(self.key.stream, self.key.shard));
        }
        // A recent one goes on to keep the consumer from subscribing again.
        let is_done = |entry: &Entry| entry.id == self.id && !is_recent(entry.since_ms, now_ms);
        if subscribed.by_key.get(&self.key).is_some_and(is_done) {
            subscribed.by_key.remove(&self.key);
        }
    }
}

/// What a look at the shard comes to.
enum Look {
    News(News),
    /// There is nothing to tell before this time, unless something changes; new records change nothing for a consumer
    /// that has had its share of this second.
    Wait {
        until_ms: i64,
        for_records: bool,
    },
    Again,
}

impl Subscription {
    /// Waits for what there is to tell. After an [`News::End`] it is the same end again.
    pub async fn next(&mut self) -> News {
        loop {
            // Marked before the look, so that nothing that comes after it is missed.
            self.end.mark_unchanged();
            // The sender lives in the stream.
            if self.changes.has_changed().unwrap_or(true) {
                self.changes.mark_unchanged();
                self.heed();
            }
            match self.look().await {
                Look::News(news) => return news,
                Look::Again => {}
                Look::Wait { until_ms, for_records } => self.wait(until_ms, for_records).await,
            }
        }
    }

    /// Returns when the subscription is over though its last news have not been taken: for a client that takes none.
    pub async fn overdue(&mut self) {
        let clock = self.broker.clock().clone();
        let until_ms = self.until_ms;
        tokio::select! {
            () = clock.sleep_until(until_ms) => {}
            // The sender goes with the entry, which stays while this is not taken over.
            _ = self.taken_over.wait_for(|taken_over| *taken_over) => {}
        }
    }

    async fn wait(&mut self, until_ms: i64, for_records: bool) {
        self.alarm.take_if(|(at_ms, _)| *at_ms > until_ms);
        let (_, alarm) = self.alarm.get_or_insert_with(|| {
            let clock = self.broker.clock().clone();
            (until_ms, async move { clock.sleep_until(until_ms).await }.boxed())
        });
        let (rang, changed) = tokio::select! {
            () = alarm => (true, false),
            // The senders live in the partition, the stream and the dispatcher.
            _ = self.end.changed(), if for_records => (false, false),
            _ = self.changes.changed() => (false, true),
            _ = self.taken_over.wait_for(|taken_over| *taken_over) => (false, false),
        };
        if rang {
            self.alarm = None;
        }
        if changed {
            self.heed();
        }
    }

    /// Takes from the stream's attributes what this depends on.
    fn heed(&mut self) {
        let Key { consumer, created_ms, .. } = &self.place.key;
        let attributes = self.stream.attributes();
        let consumer = attributes.consumer(consumer).filter(|consumer| consumer.created_ms == *created_ms);
        let stays =
            |consumer: &Consumer| consumer.passing.is_none_or(|passing| passing.transition != Transition::Deleting);
        self.is_registered = consumer.is_some_and(stays);
        self.distribution = attributes.distribution;
    }

    async fn look(&mut self) -> Look {
        let now_ms = self.broker.clock().tick_ms();
        if let Some(end) = self.over(now_ms) {
            return Look::News(News::End(end));
        }
        let Some(span) = self.stream.span(self.place.key.shard) else {
            return Look::News(News::End(End::ShardGone));
        };
        let pipe_ms = self.pipe.wait_ms(now_ms);
        if pipe_ms == 0 && (self.next < span.end || span.is_ended_at(self.next)) {
            if let Some(written) = self.written(&span) {
                (self.next, self.behind_ms) = (span.end, 0);
                self.pipe.charge(written.bytes, now_ms);
                self.heartbeat_ms = now_ms.saturating_add(HEARTBEAT_MS);
                return Look::News(News::Written(written));
            }
            let before = self.next;
            let page = match self.broker.read_shard(&self.stream, &span, self.next, EVENT_LIMITS).await {
                Ok(page) => page,
                Err(error) => return Look::News(News::End(End::Failed(error))),
            };
            (self.next, self.behind_ms, self.is_over) = (page.next, page.behind_ms, page.ended);
            if !page.records.is_empty() || page.ended {
                self.pipe.charge(page.bytes as u64, now_ms);
                return Look::News(self.told(span, page, before, now_ms));
            }
            if self.next > before {
                return Look::Again;
            }
        }
        if now_ms >= self.heartbeat_ms {
            let behind_ms = if self.next < span.end { self.behind_ms } else { 0 };
            let page = Page { next: self.next, behind_ms, ..Page::default() };
            return Look::News(self.told(span, page, self.next, now_ms));
        }
        let pipe_free_ms = if pipe_ms > 0 { now_ms.saturating_add(pipe_ms) } else { i64::MAX };
        let until_ms = pipe_free_ms.min(self.heartbeat_ms).min(self.until_ms);
        Look::Wait { until_ms, for_records: pipe_ms == 0 }
    }

    fn told(&mut self, span: Span, page: Page, from: Offset, now_ms: i64) -> News {
        self.heartbeat_ms = now_ms.saturating_add(HEARTBEAT_MS);
        News::Page(Box::new(Told { span, page, distribution: self.distribution, from }))
    }

    /// What another subscription was told of the records from here to the end of the shard, if this one would read them
    /// just so.
    fn written(&self, span: &Span) -> Option<Written> {
        // Whoever reads to the end of a closed shard is told of its children.
        if span.is_ended_at(span.end) {
            return None;
        }
        let written = self.place.feed.take(&self.name(span, self.next, self.distribution))?;
        let Written { first, oldest_append_ms, .. } = written;
        self.broker.is_current(&self.stream, span, first, oldest_append_ms).then_some(written)
    }

    /// Lets others be told what this one is, as the door has written it.
    pub fn share(&self, told: &Told, body: &Bytes) {
        let Told { span, page, distribution, from } = told;
        let oldest_append_ms = page.records.iter().map(|record| record.append_ms).min();
        let (Some(first), Some(oldest_append_ms)) = (page.records.first(), oldest_append_ms) else { return };
        if page.ended || page.next != span.end {
            return;
        }
        let (records, bytes) = (page.records.len() as u64, page.bytes as u64);
        let written = Written { body: body.clone(), records, bytes, first: first.offset, oldest_append_ms };
        self.place.feed.hold(self.name(span, *from, *distribution), &written);
    }

    fn name(&self, span: &Span, from: Offset, distribution: RecordDistribution) -> Name {
        Name { from, end: span.end, format: self.format, distribution, isolation: span.isolation }
    }

    /// Why nothing more comes, if so.
    fn over(&self, now_ms: i64) -> Option<End> {
        if self.is_over {
            return Some(End::ShardEnded);
        }
        if *self.taken_over.borrow() {
            return Some(End::TakenOver);
        }
        if self.stream.is_deleted() {
            return Some(End::StreamGone);
        }
        if !self.is_registered {
            return Some(End::ConsumerGone);
        }
        (now_ms >= self.until_ms).then_some(End::Expired)
    }
}

#[cfg(test)]
mod tests;
