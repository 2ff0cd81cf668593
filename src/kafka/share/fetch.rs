//! ShareFetch (78), versions 1 and 2: records acquired for a member, at once or when there are some. A waiting request is
//! woken by an append, by records that come back, and by a window that moves on; nothing polls.
//!
//! What the request acknowledges comes first. Whole batches go out that hold acquired records; which records of them are
//! the member's says the list beside them. A group that reads committed sees nothing beyond the last stable offset, and
//! none of what was aborted. Where limits are enforced, a partition gives nothing while its shard's read
//! pipe owes, as with Fetch; a client beyond its quota (`quotas`) pauses after an answer. A session's partitions are named when something is new about them, and once when they are
//! new themselves.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_fetch_response::{
    AcquiredRecords, LeaderIdAndEpoch, PartitionData, ShareFetchableTopicResponse,
};
use kafka_protocol::messages::{ShareFetchRequest, ShareFetchResponse};
use tokio::sync::watch;

use super::acknowledge::{Said, acknowledge};
use super::{FetchExtra, by_topic, lock_timeout_ms, of_delivery, of_share, release, session_key};
use crate::broker::{ReadPipe, Stream};
use crate::kafka::Context;
use crate::kafka::budget::Grant;
use crate::kafka::error::Codes;
use crate::kafka::throttle::{self, Supply};
use crate::log::partition::Partition;
use crate::log::tail::StoredBatch;
use crate::model::ids::{Offset, PartitionIndex};
use crate::share::partition::Acquired;
use crate::share::sessions::{FINAL, OPENING, Place, SessionKey};
use crate::share::{Delivery, Share, Want};

type Acknowledged = IndexMap<Place, Option<ResponseError>>;

/// The answer, and the memory that its records hold.
pub async fn share_fetch(
    cx: Context,
    request: ShareFetchRequest,
    extra: FetchExtra,
) -> (ShareFetchResponse, Option<Grant>) {
    let refused = |error: ResponseError| (ShareFetchResponse::default().with_error_code(error.code()), None);
    let clock = cx.door.broker.clock();
    let deadline = clock.tick_ms().saturating_add(request.max_wait_ms.max(0).into());
    let key = match session_key(request.group_id.as_ref(), request.member_id.as_ref()) {
        Ok(key) => key,
        Err(error) => return refused(error),
    };
    let begun = match begin(&cx, &key, &request, extra) {
        Ok(begun) => begun,
        Err(error) => {
            // Clients ask again at once.
            if error == ResponseError::ShareSessionLimitReached {
                clock.sleep_until(deadline).await;
            }
            return refused(error);
        }
    };
    let limits = Limits::of(&request, extra, cx.door.config.fetch_bytes_max.min(cx.door.quotas.fetch_bytes_max(&cx)));
    let acknowledged = acknowledge(&cx, &key, said(request), extra.renews).await;
    let places = match begun {
        Begun::Ended(places) => {
            release(&cx.door, &key, &places);
            Vec::new()
        }
        Begun::GoesOn(places) => places,
    };
    let asked = Asked { key: &key, places: &places, acknowledged: &acknowledged };
    fetch(&cx, &asked, &limits, deadline).await
}

/// The first error of an answer, or 0.
pub fn first_error(response: &ShareFetchResponse) -> i16 {
    let mut codes = Codes::default();
    codes.add(response.error_code);
    for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
        codes.add(partition.error_code);
        codes.add(partition.acknowledge_error_code);
    }
    codes.first()
}

/// What a request does to its member's session.
enum Begun {
    /// These were fetched by it.
    Ended(Vec<Place>),
    /// These are to be fetched now.
    GoesOn(Vec<Place>),
}

fn begin(
    cx: &Context,
    key: &SessionKey,
    request: &ShareFetchRequest,
    extra: FetchExtra,
) -> Result<Begun, ResponseError> {
    if extra.renews && !renews_only(request) {
        return Err(ResponseError::InvalidRequest);
    }
    if !cx.door.shares.holds(&key.group_id) {
        return Err(ResponseError::GroupIdNotFound);
    }
    let sessions = &cx.door.share_sessions;
    let asked = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, partition.partition_index)));
    let plan = match request.share_session_epoch {
        FINAL => return sessions.close(key).map(Begun::Ended).map_err(of_share),
        // There is nothing yet that could be acknowledged.
        OPENING if acknowledges(request) => return Err(ResponseError::InvalidRequest),
        OPENING => sessions.open(key, cx.client.id, asked),
        epoch => {
            let forgotten = request.forgotten_topics_data.iter();
            let forgotten =
                forgotten.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)));
            sessions.go_on(key, epoch, asked, forgotten)
        }
    };
    plan.map(|plan| Begun::GoesOn(plan.places)).map_err(of_share)
}

fn acknowledges(request: &ShareFetchRequest) -> bool {
    let mut partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.any(|partition| !partition.acknowledgement_batches.is_empty())
}

/// KIP-1222: a request that renews fetches nothing, for that could take longer than the lock.
fn renews_only(request: &ShareFetchRequest) -> bool {
    [request.max_bytes, request.min_bytes, request.max_records, request.max_wait_ms] == [0; 4]
}

fn said(request: ShareFetchRequest) -> Vec<(Place, Vec<Said>)> {
    let partitions = request.topics.into_iter().flat_map(|topic| {
        topic.partitions.into_iter().map(move |partition| {
            let batches = partition.acknowledgement_batches.into_iter().map(|batch| Said {
                first: batch.first_offset,
                last: batch.last_offset,
                kinds: batch.acknowledge_types,
            });
            ((topic.topic_id, partition.partition_index), batches.collect::<Vec<_>>())
        })
    });
    partitions.filter(|(_, batches)| !batches.is_empty()).collect()
}

struct Limits {
    bytes_min: usize,
    bytes_max: usize,
    records_max: i64,
    range_records: i64,
    exact: bool,
}

impl Limits {
    fn of(request: &ShareFetchRequest, extra: FetchExtra, fetch_bytes_max: usize) -> Limits {
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(fetch_bytes_max);
        Limits {
            bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max),
            bytes_max,
            records_max: request.max_records.max(0).into(),
            range_records: request.batch_size.max(0).into(),
            exact: extra.exact,
        }
    }

    /// Nothing is fetched: the request only acknowledges.
    fn are_none(&self) -> bool {
        self.bytes_max == 0 || self.records_max == 0
    }
}

struct Asked<'a> {
    key: &'a SessionKey,
    places: &'a [Place],
    acknowledged: &'a Acknowledged,
}

async fn fetch(cx: &Context, asked: &Asked<'_>, limits: &Limits, deadline: i64) -> (ShareFetchResponse, Option<Grant>) {
    let clock = cx.door.broker.clock();
    if limits.are_none() || asked.places.is_empty() {
        return (respond(cx, asked, Round::default()), None);
    }
    loop {
        let grant = tokio::select! {
            biased;
            grant = cx.door.answers.grant(limits.bytes_max) => grant,
            () = clock.sleep_until(deadline) => None,
        };
        // Others hold all the memory for answers: this one goes as if nothing had come.
        let Some(mut grant) = grant else { return (respond(cx, asked, Round::default()), None) };
        let last = clock.tick_ms() >= deadline;
        let round = look_at_all(cx, asked, limits, grant.bytes(), last).await;
        if round.records > 0 || round.failed || round.withheld || last {
            grant.shrink(round.bytes);
            return (respond(cx, asked, round), Some(grant));
        }
        drop(grant);
        wait_for_news(round, clock.sleep_until(deadline)).await;
    }
}

/// One look at everything that is wanted, in the order of the session.
#[derive(Default)]
struct Round {
    looks: Vec<(Place, Result<Look, ResponseError>)>,
    records: i64,
    bytes: usize,
    failed: bool,
    /// A partition has records that its shard's pipe does not let through yet.
    withheld: bool,
}

/// What one partition has.
struct Look {
    stream: Arc<Stream>,
    log: Arc<Partition>,
    news: watch::Receiver<u64>,
    share: Arc<Share>,
    /// The log's end.
    high_watermark: Offset,
    /// Up to where the group may read.
    end: Offset,
    delivery: Delivery,
    pipe: Option<ReadPipe>,
    /// After how long the shard's pipe lets anything through; 0: it does.
    withheld_ms: i64,
}

async fn look_at_all(cx: &Context, asked: &Asked<'_>, limits: &Limits, bytes_max: usize, last: bool) -> Round {
    let mut round = Round::default();
    for place in asked.places {
        let look = look_at(cx, asked.key, *place).await;
        round.failed |= look.is_err();
        round.withheld |= look.as_ref().is_ok_and(|look| look.withheld_ms > 0);
        round.looks.push((*place, look));
    }
    if !last && limits.bytes_min > 1 && !round.withheld && !has_bytes(cx, &round, limits.bytes_min).await {
        return round;
    }
    let member_id: Arc<str> = Arc::from(asked.key.member_id.as_str());
    for (_, place) in &mut round.looks {
        let Ok(look) = place else { continue };
        let want = Want {
            member_id: member_id.clone(),
            records_max: limits.records_max - round.records,
            exact: limits.exact,
            range_records: limits.range_records,
            bytes_max: bytes_max.min(limits.bytes_max).saturating_sub(round.bytes),
            first_anyway: round.bytes == 0,
        };
        match acquire(cx, look, want).await {
            Ok(()) => {
                round.records += look.delivery.records();
                round.bytes += look.delivery.bytes;
            }
            Err(error) => {
                round.failed = true;
                *place = Err(error);
            }
        }
    }
    round
}

async fn look_at(cx: &Context, key: &SessionKey, (topic_id, index): Place) -> Result<Look, ResponseError> {
    let stream = cx.door.broker.stream_by_topic_id(topic_id).ok_or(ResponseError::UnknownTopicId)?;
    let index = u32::try_from(index).map(PartitionIndex).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    let log = stream.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let shares = &cx.door.shares;
    let share = shares.begin(&key.group_id, &stream, index).await.map_err(|failure| of_delivery(&failure))?;
    // News is what comes after this.
    let news = share.watch();
    let high_watermark = log.end_offset();
    let end = shares.readable_end(&key.group_id, &log);
    let next = shares.next_offset(&share).map(|next| next.max(log.log_start())).filter(|next| *next < end);
    let shard = next.and_then(|next| stream.shard_at(index, next));
    let pipe = shard.map(|shard| stream.read_pipe(shard, cx.client_id.as_deref()));
    let withheld_ms = pipe.as_ref().map_or(0, |pipe| pipe.wait_ms(cx.door.broker.clock().tick_ms()));
    Ok(Look { stream, log, news, share, high_watermark, end, delivery: Delivery::default(), pipe, withheld_ms })
}

/// Whether there are as many bytes to be had. They may be gone when they are acquired, which is what a minimum allows.
async fn has_bytes(cx: &Context, round: &Round, bytes_min: usize) -> bool {
    let mut bytes = 0;
    for look in round.looks.iter().filter_map(|(_, look)| look.as_ref().ok()) {
        let Some(next) = cx.door.shares.next_offset(&look.share) else { continue };
        let next = next.max(look.log.log_start());
        let missing = bytes_min.saturating_sub(bytes);
        if missing > 0 && next < look.end {
            let page = cx.door.broker.read(&look.log, next, look.end, missing).await;
            // What cannot be read is told when it is acquired.
            bytes += page.map_or(missing, |page| page.iter().map(StoredBatch::batch_len).sum());
        }
    }
    bytes >= bytes_min
}

async fn acquire(cx: &Context, look: &mut Look, want: Want) -> Result<(), ResponseError> {
    let Some(pipe) = look.pipe.as_ref().filter(|_| look.withheld_ms == 0) else { return Ok(()) };
    let want = Want { bytes_max: want.bytes_max.min(pipe.answer_bytes_max()), ..want };
    if want.records_max <= 0 {
        return Ok(());
    }
    let delivery = cx.door.shares.acquire(&look.share, &look.log, look.end, &want).await;
    look.delivery = delivery.map_err(|failure| of_delivery(&failure))?;
    Ok(())
}

/// Returns when something may be acquired that was not there for `round`, or `deadline` is over.
async fn wait_for_news(round: Round, deadline: impl Future<Output = ()>) {
    let looks = round.looks.into_iter().filter_map(|(_, look)| look.ok());
    let mut news: FuturesUnordered<_> = looks
        .map(|mut look| async move {
            let mut end = look.log.watch_end();
            tokio::select! {
                // The senders live in what `look` holds, so this ends only with news.
                _ = look.news.changed() => {}
                _ = end.wait_for(|end| *end > look.high_watermark || look.log.is_deleted()) => {}
            }
        })
        .collect();
    tokio::select! {
        () = deadline => {}
        Some(()) = news.next() => {}
    }
}

fn respond(cx: &Context, asked: &Asked, round: Round) -> ShareFetchResponse {
    // What is acquired goes out, whatever the quota says: the next request waits for it.
    let pause_ms = pause_ms(cx, &round).max(cx.door.quotas.delivered(cx, round.bytes));
    let mut told: IndexMap<Place, PartitionData> = IndexMap::new();
    for (place, look) in round.looks {
        let (failed, data) = match look {
            Ok(look) => {
                count_out(&look);
                (false, delivered(place, &look.delivery))
            }
            Err(error) => (true, empty(place).with_error_code(error.code())),
        };
        let news = failed || !data.acquired_records.is_empty();
        if news || cx.door.share_sessions.is_due(asked.key, &place) {
            cx.door.share_sessions.told(asked.key, &place, failed);
            told.insert(place, data);
        }
    }
    for (place, error) in asked.acknowledged {
        let data = told.entry(*place).or_insert_with(|| empty(*place));
        data.acknowledge_error_code = error.map_or(0, |error| error.code());
    }
    let partitions = told.into_iter().map(|((topic_id, _), data)| (topic_id, data));
    let topics = by_topic(partitions).into_iter().map(|(topic_id, partitions)| {
        ShareFetchableTopicResponse::default().with_topic_id(topic_id).with_partitions(partitions)
    });
    ShareFetchResponse::default()
        .with_throttle_time_ms(throttle::told_ms(pause_ms))
        .with_acquisition_lock_timeout_ms(lock_timeout_ms(cx, asked.key))
        .with_responses(topics.collect())
}

fn empty((_, index): Place) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(-1).with_leader_epoch(-1))
        .with_records(Some(Bytes::new()))
}

fn delivered(place: Place, delivery: &Delivery) -> PartitionData {
    let range = |range: &Acquired| {
        AcquiredRecords::default()
            .with_first_offset(range.first)
            .with_last_offset(range.last)
            .with_delivery_count(i16::try_from(range.deliveries).unwrap_or(i16::MAX))
    };
    empty(place)
        .with_records(Some(joined(&delivery.batches)))
        .with_acquired_records(delivery.acquired.iter().map(range).collect())
}

/// Batches one behind the other, as they go over the wire.
fn joined(batches: &[StoredBatch]) -> Bytes {
    match batches {
        [] => Bytes::new(),
        [one] => one.batch(),
        many => {
            let mut records = BytesMut::with_capacity(many.iter().map(StoredBatch::batch_len).sum());
            many.iter().for_each(|batch| records.extend_from_slice(&batch.batch()));
            records.freeze()
        }
    }
}

/// Charges the shards for what goes out. Tells for how long the connection is to pause.
fn pause_ms(cx: &Context, round: &Round) -> i64 {
    let now_ms = cx.door.broker.clock().tick_ms();
    let mut supplies = Vec::new();
    for look in round.looks.iter().filter_map(|(_, look)| look.as_ref().ok()) {
        let Some(pipe) = &look.pipe else { continue };
        let more = cx.door.shares.next_offset(&look.share).is_some_and(|next| next < look.end);
        supplies.push((&look.stream, Supply::charge(pipe, look.withheld_ms, look.delivery.bytes, more, now_ms)));
    }
    throttle::pause_for(&supplies)
}

fn count_out(look: &Look) {
    if let Some(pipe) = look.pipe.as_ref().filter(|_| look.delivery.bytes > 0) {
        pipe.count_out(look.delivery.records().max(0) as u64, look.delivery.bytes as u64);
    }
}
