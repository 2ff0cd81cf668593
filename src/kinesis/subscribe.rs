//! SubscribeToShard: an event stream of what `fanout` has for a consumer. One task for each subscription takes the news,
//! writes them as events and hands them to the connection, one at a time: between the log and a client that does not
//! read there is never more than the event it is being sent and the next.
//!
//! Events as AWS sends them: while the shard goes on, ContinuationSequenceNumber and no ChildShards; at a closed shard's
//! end ChildShards and no ContinuationSequenceNumber, by which consumers know the end.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::arn::{self, Asked};
use super::error::Error;
use super::rates::SubscriptionKey;
use super::records::{ChildShard, Records, child_shards};
use super::start::{Start, TYPES, read_error};
use super::validate::{self, Input, Pattern, REQUIRED_NAME, Rule, Violations, part};
use super::{Context, consumers};
use crate::broker::Stream;
use crate::fanout::{self, End, News, Subscription};
use crate::http::codec::encode;
use crate::http::{Event, EventStream, Failure, Timestamp, message};
use crate::metrics::{ConsumerMetrics, Subscribed};
use crate::model::attributes::{Consumer, Transition};
use crate::model::ids::ShardOrdinal;

/// Events that wait for the connection.
const EVENTS_WAITING: usize = 1;

const EVENT: &str = "SubscribeToShardEvent";

part! {
    StartingPosition {
        kind: String = "Type" &[Rule::Required, Rule::OneOf(TYPES)];
        sequence_number: String = "SequenceNumber" &[Rule::Matches(Pattern::SequenceNumber)];
        timestamp: Timestamp = "Timestamp" &[];
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SubscribeToShard {
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    shard_id: Option<String>,
    starting_position: Option<StartingPosition>,
    dry_run: Option<bool>,
    stream_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SubscribeToShardEvent<'a> {
    records: Records<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_sequence_number: Option<String>,
    millis_behind_latest: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShard>>,
}

pub async fn subscribe_to_shard(cx: Context, input: SubscribeToShard) -> Result<EventStream, Error> {
    let stream = cx.stream()?;
    let home = &cx.door.home;
    let attributes = stream.attributes();
    if attributes.transition(cx.now_ms) == Some(Transition::Creating) {
        return Err(Error::stream_not_active(home, &stream.name, Transition::Creating));
    }
    let consumer = consumers::find(&cx, &attributes, cx.require_consumer()?)?;
    if consumer.transition(cx.now_ms).is_some() {
        return Err(consumers::not_active(&cx, &stream.name, consumer));
    }
    let metrics = stream.metrics.consumer(&consumer.name);
    let subscribed = subscribe(&cx, &stream, consumer, input, metrics.clone()).await;
    metrics.subscribed(match &subscribed {
        Ok(_) => Subscribed::Success,
        Err(Error::ResourceInUse(_) | Error::LimitExceeded(_)) => Subscribed::RateExceeded,
        Err(_) => Subscribed::Failure,
    });
    subscribed
}

async fn subscribe(
    cx: &Context,
    stream: &Arc<Stream>,
    consumer: &Consumer,
    input: SubscribeToShard,
    metrics: Arc<ConsumerMetrics>,
) -> Result<EventStream, Error> {
    let home = &cx.door.home;
    let shard_id = input.shard_id.unwrap_or_default();
    let ordinal = arn::shard_ordinal(&shard_id).ok_or_else(|| Error::shard_not_found(home, &stream.name, &shard_id))?;
    let span = stream.span(ordinal);
    let span = span.ok_or_else(|| Error::shard_does_not_exist(home, &stream.name, &ordinal.to_string()))?;
    let told = Told {
        ordinal,
        shard: ordinal.to_string(),
        consumer: consumer.name.clone(),
        cx: cx.clone(),
        stream: stream.clone(),
        metrics,
    };
    let fits = take_call(cx, stream, consumer, ordinal);
    // Said whatever the rate is, as clients wait for the former subscription to end by it.
    if cx.door.fanout.is_occupied(stream, consumer, ordinal) {
        return Err(told.occupied());
    }
    fits?;
    let position = input.starting_position.unwrap_or_default();
    let start = Start {
        operation: "SubscribeToShard",
        kind: position.kind.as_deref().unwrap_or_default(),
        sequence_number: position.sequence_number.as_deref(),
        timestamp: position.timestamp,
    };
    let next = start.offset(cx, stream, &span).await?;
    if input.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let subscribed = cx.door.fanout.subscribe(&cx.door.broker, stream, consumer, &span, next, cx.format as u8);
    let subscription = subscribed.map_err(|_| told.occupied())?;
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
    tokio::spawn(push(told, subscription, sender));
    Ok(EventStream(receiver))
}

/// One more call for the consumer and the shard, whatever comes of it.
fn take_call(cx: &Context, stream: &Stream, consumer: &Consumer, shard: ShardOrdinal) -> Result<(), Error> {
    let Consumer { name, created_ms, .. } = consumer;
    let asked = SubscriptionKey { stream: stream.id, consumer: name.clone(), created_ms: *created_ms, shard };
    if cx.door.config.control_rates && !cx.door.rates.take_subscription(asked, cx.door.broker.clock().tick_ms()) {
        let arn = cx.door.home.consumer_arn(&stream.name, name, *created_ms);
        return Err(Error::LimitExceeded(format!("Rate exceeded for consumer {arn} and shard {shard}")));
    }
    Ok(())
}

/// What the texts of a subscription's errors name.
struct Told {
    cx: Context,
    stream: Arc<Stream>,
    consumer: String,
    ordinal: ShardOrdinal,
    shard: String,
    metrics: Arc<ConsumerMetrics>,
}

/// Sends what the subscription has, until it ends or the client goes.
async fn push(told: Told, mut subscription: Subscription, events: mpsc::Sender<Event>) {
    loop {
        let news = tokio::select! {
            news = subscription.next() => news,
            () = events.closed() => return,
        };
        let event = match news {
            News::Page(read) => told.event(&read).inspect(|bytes| subscription.share(&read, bytes)),
            News::Written(written) => {
                told.count(written.records, written.bytes, 0);
                Ok(written.body)
            }
            News::End(end) => match told.failure(end) {
                None => return,
                Some(error) => Err(error.into()),
            },
        };
        let (event, is_last) = match event {
            Ok(bytes) => (Event::Message(bytes), false),
            Err(failure) => (Event::Exception(failure), true),
        };
        if is_last {
            told.metrics.event_failed();
            // The connection bounds how long this may wait for its client.
            let _ = events.send(event).await;
            return;
        }
        tokio::select! {
            // A client that takes what it is sent gets it, though the subscription may be over by now.
            biased;
            sent = events.send(event) => if sent.is_err() { return },
            // The client takes nothing, so there is nothing that could tell it.
            () = subscription.overdue() => return,
        }
    }
}

impl Told {
    /// An event goes out.
    fn count(&self, records: u64, bytes: u64, behind_ms: i64) {
        self.stream.metrics.outgoing(self.ordinal, records, bytes);
        self.metrics.event(records, bytes, behind_ms, self.cx.door.broker.clock().tick_ms());
    }

    /// Others at the same place may be sent the same: nothing in it is this consumer's own.
    fn event(&self, read: &fanout::Told) -> Result<Bytes, Failure> {
        let Context { door, format, .. } = &self.cx;
        let fanout::Told { span, page, distribution, .. } = read;
        let shard = &span.shard;
        self.count(page.records.len() as u64, page.bytes as u64, page.behind_ms);
        // The last record's number at a later time: it advances though nothing is written, and after it comes the next
        // record.
        let last_append_ms = page.records.last().map_or(i64::MIN, |record| record.append_ms);
        let now_ms = door.broker.clock().now_ms().max(last_append_ms);
        let reached = || shard.sequence_number(page.next.saturating_sub(1), now_ms).to_string();
        let event = SubscribeToShardEvent {
            records: Records { shard, records: &page.records, distribution: *distribution },
            continuation_sequence_number: (!page.ended).then(reached),
            millis_behind_latest: page.behind_ms,
            child_shards: page.ended.then(|| child_shards(&self.stream.lineage(), shard.ordinal)),
        };
        Ok(message(EVENT, *format, &encode(*format, &event)?))
    }

    /// The error that ends the stream; `None` for an end that is none.
    fn failure(&self, end: End) -> Option<Error> {
        let home = &self.cx.door.home;
        match end {
            End::ShardEnded | End::Expired => None,
            End::TakenOver => Some(self.occupied()),
            End::ConsumerGone => Some(match self.cx.named_consumer() {
                Some(named) => consumers::not_found(&self.cx, named),
                None => Error::Internal,
            }),
            End::StreamGone => Some(Error::stream_not_found(home, &self.stream.name)),
            End::ShardGone => Some(Error::shard_does_not_exist(home, &self.stream.name, &self.shard)),
            End::Failed(error) => Some(read_error(&error)),
        }
    }

    fn occupied(&self) -> Error {
        let Told { cx, stream, consumer, shard, .. } = self;
        let account = &cx.door.home.account;
        Error::ResourceInUse(format!(
            "Another active subscription exists for this consumer: {account}:{}:{shard}:{consumer}",
            stream.name
        ))
    }
}

impl Input for SubscribeToShard {
    fn check(&self, found: &mut Violations) {
        found.member("ConsumerARN", self.consumer_arn.as_ref(), validate::REQUIRED_CONSUMER_ARN);
        found.member("ShardId", self.shard_id.as_ref(), REQUIRED_NAME);
        found.member("StartingPosition", self.starting_position.as_ref(), &[Rule::Required]);
        found.member("StreamId", self.stream_id.as_ref(), validate::STREAM_ID);
    }

    fn asked(&self) -> Asked<'_> {
        Asked::Consumer { arn: self.consumer_arn.as_deref(), stream_arn: None, name: None }
    }
}
