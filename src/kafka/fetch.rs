//! Fetch (1): records from where the client is, at once or when they arrive. A waiting fetch is woken by the append.
//!
//! Versions 4 to 18: sessions from 7 on (`sessions`), topic ids from 13 on. Byte limits bound the answer, but the first
//! batch of an answer comes whatever its size, and whole batches only. `replica_id` is not looked at: there are no
//! followers. Where limits are enforced, a partition gives nothing while its shard's read pipe owes (`throttle`); the pipe
//! is the shared one, or the one of a consumer that is registered by the client's id. A client beyond its quota (`quotas`)
//! is given nothing either.
//!
//! A client that reads committed records only is given what lies before the last stable offset and the transactions among
//! it that were aborted, whose records it leaves out (KIP-98); it waits for that offset to move.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId, TopicName};

use crate::broker::{Broker, ReadPipe, Stream};
use crate::kafka::budget::Grant;
use crate::kafka::error::Codes;
use crate::kafka::sessions::{Plan, TopicKey, Wanted};
use crate::kafka::throttle::{self, Supply};
use crate::kafka::{Context, error};
use crate::log::partition::Partition;
use crate::log::tail::StoredBatch;
use crate::log::transactions::Aborted;
use crate::model::attributes::Isolation;
use crate::model::ids::{Offset, PartitionIndex};

pub mod encode;

/// Partitions whose records are read from the store at the same time, for one answer.
const READS_AT_ONCE: usize = 4;
/// Versions that name topics by id.
const IDS_FROM: i16 = 13;

/// An answer, its records beside it in the pieces they lie in.
pub struct Fetched {
    /// Its partitions are empty.
    pub response: FetchResponse,
    /// Of each partition of the response, in its order.
    records: Vec<Vec<Bytes>>,
}

impl Fetched {
    fn empty(response: FetchResponse) -> Fetched {
        Fetched { response, records: Vec::new() }
    }

    /// The first error, or 0.
    pub fn first_error(&self) -> i16 {
        let mut codes = Codes::default();
        codes.add(self.response.error_code);
        let partitions = self.response.responses.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| codes.add(partition.error_code));
        codes.first()
    }
}

/// The answer, and the memory that its records hold.
pub async fn fetch(cx: Context, request: FetchRequest) -> (Fetched, Option<Grant>) {
    let broker = &cx.door.broker;
    let clock = broker.clock();
    let deadline = clock.tick_ms().saturating_add(request.max_wait_ms.max(0).into());
    let session_seed = clock.random_uuid().as_u128() as i32;
    let plan = cx.door.sessions.plan(&request, cx.version >= IDS_FROM, clock.tick_ms(), session_seed);
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return (Fetched::empty(FetchResponse::default().with_error_code(error.code())), None),
    };
    let limits = Limits::of(&request, cx.door.config.fetch_bytes_max.min(cx.door.quotas.fetch_bytes_max(&cx)));
    loop {
        let grant = tokio::select! {
            biased;
            grant = cx.door.answers.grant(limits.bytes_max) => grant,
            () = clock.sleep_until(deadline) => None,
        };
        let Some(mut grant) = grant else {
            // Others hold all the memory for answers: this one goes as if nothing had come.
            let round = read_all(&cx, &plan, &limits.within(0)).await;
            return (respond(&cx, plan, round), None);
        };
        let round = read_all(&cx, &plan, &limits.within(grant.bytes())).await;
        // Whole batches seldom fill a grant, so half of a small one must do for a client that wants more than it.
        let bytes_min = limits.bytes_min.min(grant.bytes() / 2);
        let enough = round.bytes >= bytes_min || round.failed || round.withheld || plan.wanted.is_empty();
        if enough || clock.tick_ms() >= deadline {
            grant.shrink(round.bytes);
            return (respond(&cx, plan, round), Some(grant));
        }
        drop(grant);
        wait_for_news(&round, clock.sleep_until(deadline)).await;
    }
}

struct Limits {
    bytes_min: usize,
    bytes_max: usize,
    isolation: Isolation,
}

impl Limits {
    /// The same in no more memory than there is; with none, nothing is read but offsets are looked at.
    fn within(&self, bytes_max: usize) -> Limits {
        Limits { bytes_max: self.bytes_max.min(bytes_max), ..*self }
    }

    fn of(request: &FetchRequest, fetch_bytes_max: usize) -> Limits {
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(fetch_bytes_max).max(1);
        let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
        Limits { bytes_min, bytes_max, isolation: isolation(request.isolation_level) }
    }
}

/// One look at everything that is wanted, in the order of the plan.
struct Round {
    looks: Vec<Look>,
    bytes: usize,
    failed: bool,
    /// A partition has records that its shard's pipe does not let through yet.
    withheld: bool,
}

/// What one partition has.
struct Look {
    /// Without its records.
    data: PartitionData,
    batches: Vec<StoredBatch>,
    /// Set when the partition exists.
    log: Option<Log>,
}

impl Look {
    fn refused(partition: i32, error: ResponseError) -> Look {
        let data = PartitionData::default()
            .with_partition_index(partition)
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_preferred_read_replica((-1).into())
            .with_records(Some(Bytes::new()));
        Look { data, batches: Vec::new(), log: None }
    }

    /// Gives nothing of what it has found, which is one batch that is too large. Its reader will come back for it.
    fn leave_out(&mut self, broker: &Broker) {
        for (log, batch) in self.log.iter_mut().zip(self.batches.drain(..)) {
            log.next_offset = batch.base_offset;
            broker.keep_ahead(&log.partition, batch);
        }
        self.data.aborted_transactions.iter_mut().for_each(Vec::clear);
    }

    fn has_more(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.next_offset < log.end)
    }

    fn bytes(&self) -> usize {
        self.batches.iter().map(StoredBatch::batch_len).sum()
    }
}

/// Where a look's records are from.
struct Log {
    stream: Arc<Stream>,
    partition: Arc<Partition>,
    /// That its records go out by, if there are any.
    pipe: Option<ReadPipe>,
    /// Behind the records of the look.
    next_offset: Offset,
    isolation: Isolation,
    /// Up to where the client may read.
    end: Offset,
    /// After how long the shard's pipe lets anything through; 0: it does.
    withheld_ms: i64,
}

async fn read_all(cx: &Context, plan: &Plan, limits: &Limits) -> Round {
    let mut round = Round { looks: Vec::with_capacity(plan.wanted.len()), bytes: 0, failed: false, withheld: false };
    let mut reads = FuturesOrdered::new();
    // The most that the reads under way may bring.
    let mut awaited_bytes = 0;
    // A partition was given less room than it asked for, and has more than that.
    let mut full = false;
    for (topic, wanted) in &plan.wanted {
        let asked = Asked::of(cx, topic, wanted, limits);
        // Each reads as if those before it had brought their most, so a read that this would cut waits for them.
        let asked_bytes = asked.as_ref().map_or(0, |asked| asked.bytes_max);
        while reads.len() >= READS_AT_ONCE
            || (!reads.is_empty() && round.bytes + awaited_bytes + asked_bytes > limits.bytes_max)
        {
            let read: Option<(Look, usize, bool)> = reads.next().await;
            let Some((look, bytes_max, is_cut)) = read else { break };
            awaited_bytes -= bytes_max;
            full |= is_cut && look.has_more();
            round.take(cx, look, bytes_max);
        }
        // The partition for which the rest did not suffice was the last: to try each that follows would read its first
        // batch, which seldom fits.
        let left = if full { 0 } else { limits.bytes_max.saturating_sub(round.bytes + awaited_bytes) };
        let bytes_max = asked_bytes.min(left);
        let may_be_first = round.bytes == 0 && limits.bytes_max > 0;
        let read = async move {
            let look = match asked {
                Ok(asked) => asked.read(cx, bytes_max, may_be_first).await,
                Err(error) => Err(error),
            };
            let look = look.unwrap_or_else(|error| Look::refused(wanted.partition, error));
            (look, bytes_max, bytes_max < asked_bytes)
        };
        awaited_bytes += bytes_max;
        reads.push_back(read);
    }
    while let Some((look, bytes_max, _)) = reads.next().await {
        round.take(cx, look, bytes_max);
    }
    round
}

impl Round {
    /// Takes in the next partition's look, which was given room for `bytes_max` and brings its first batch whatever its
    /// size: only the answer's first may be larger than its room.
    fn take(&mut self, cx: &Context, mut look: Look, bytes_max: usize) {
        if self.bytes > 0 && look.batches.first().is_some_and(|first| first.batch_len() > bytes_max) {
            look.leave_out(&cx.door.broker);
        }
        self.failed |= look.log.is_none();
        self.withheld |= look.log.as_ref().is_some_and(|log| log.withheld_ms > 0);
        self.bytes += look.bytes();
        self.looks.push(look);
    }
}

/// A partition that is there, and what may be read of it.
struct Asked<'a> {
    wanted: &'a Wanted,
    stream: Arc<Stream>,
    partition: Arc<Partition>,
    pipe: Option<ReadPipe>,
    withheld_ms: i64,
    isolation: Isolation,
    high_watermark: Offset,
    last_stable_offset: Offset,
    /// If the answer has room for so much.
    bytes_max: usize,
}

impl<'a> Asked<'a> {
    fn of(cx: &Context, topic: &TopicKey, wanted: &'a Wanted, limits: &Limits) -> Result<Asked<'a>, ResponseError> {
        let broker = &cx.door.broker;
        let stream = if cx.version >= IDS_FROM {
            broker.stream_by_topic_id(topic.id).ok_or(ResponseError::UnknownTopicId)?
        } else {
            broker.stream(&topic.name).ok_or(ResponseError::UnknownTopicOrPartition)?
        };
        let index = u32::try_from(wanted.partition).map(PartitionIndex);
        let index = index.map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        let partition = stream.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        error::check_leader_epoch(stream.leader_epoch(index), wanted.current_leader_epoch)?;

        let high_watermark = partition.end_offset();
        let last_stable_offset = partition.last_stable_offset().min(high_watermark);
        let isolation = limits.isolation;
        let end = end_for(isolation, high_watermark, last_stable_offset);
        let has_records = wanted.fetch_offset < end && limits.bytes_max > 0;
        let shard = stream.shard_at(index, wanted.fetch_offset).filter(|_| has_records);
        let pipe = shard.map(|shard| stream.read_pipe(shard, cx.client_id.as_deref()));
        let withheld_ms = pipe.as_ref().map_or(0, |pipe| pipe.wait_ms(broker.clock().tick_ms()));
        let pipe_bytes_max = pipe.as_ref().map_or(usize::MAX, ReadPipe::answer_bytes_max);
        // Where nothing is read, no room is taken from others.
        let bytes_max = match has_records && withheld_ms == 0 {
            true => usize::try_from(wanted.bytes_max).unwrap_or(0).min(limits.bytes_max).min(pipe_bytes_max),
            false => 0,
        };
        Ok(Asked {
            wanted,
            stream,
            partition,
            pipe,
            withheld_ms,
            isolation,
            high_watermark,
            last_stable_offset,
            bytes_max,
        })
    }

    async fn read(self, cx: &Context, bytes_max: usize, may_be_first: bool) -> Result<Look, ResponseError> {
        let Asked {
            wanted, stream, partition, pipe, withheld_ms, isolation, high_watermark, last_stable_offset, ..
        } = self;
        let end = end_for(isolation, high_watermark, last_stable_offset);
        // With nothing to read the offset is still looked at: it may be out of range.
        let nothing = withheld_ms > 0 || (bytes_max == 0 && !may_be_first);
        let (until, bytes_max) = if nothing { (wanted.fetch_offset, 0) } else { (end, bytes_max) };
        let batches = cx.door.broker.read(&partition, wanted.fetch_offset, until, bytes_max).await;
        let mut batches = batches.map_err(|error| error::of_read(&error))?;
        let aborted = (isolation == Isolation::Committed).then(|| aborted_among(&partition, &mut batches));
        let data = PartitionData::default()
            .with_partition_index(wanted.partition)
            .with_high_watermark(high_watermark)
            .with_last_stable_offset(last_stable_offset)
            .with_log_start_offset(partition.log_start())
            .with_aborted_transactions(aborted)
            .with_preferred_read_replica((-1).into())
            .with_records(Some(Bytes::new()));
        let next_offset = batches.last().map_or(wanted.fetch_offset, |last| last.last_offset + 1);
        Ok(Look { data, batches, log: Some(Log { stream, partition, pipe, next_offset, isolation, end, withheld_ms }) })
    }
}

fn end_for(isolation: Isolation, high_watermark: Offset, last_stable_offset: Offset) -> Offset {
    match isolation {
        Isolation::Uncommitted => high_watermark,
        Isolation::Committed => last_stable_offset,
    }
}

/// Any other level than 1 is read_uncommitted, as Kafka has it.
pub fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::Committed } else { Isolation::Uncommitted }
}

fn aborted_among(partition: &Partition, batches: &mut Vec<StoredBatch>) -> Vec<AbortedTransaction> {
    let told = |aborted: Aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    };
    partition.aborted_among(batches).into_iter().map(told).collect()
}

/// Returns when a partition has more than `round` saw, is deleted, or `deadline` is over.
async fn wait_for_news(round: &Round, deadline: impl Future<Output = ()>) {
    let mut news: FuturesUnordered<_> = round
        .looks
        .iter()
        .filter_map(|look| look.log.as_ref())
        .map(|Log { partition, isolation, end, .. }| async move {
            let mut ends = partition.watch_end();
            // Not `wait_for`: what it asks runs under the watch's own lock, and this asks for the end again, for which a
            // writer that waits in between would have both wait for ever. A transaction ends by an append.
            while partition.end_for(*isolation) <= *end && !partition.is_deleted() {
                // The sender lives in the partition, so this ends only with news.
                if ends.changed().await.is_err() {
                    return;
                }
            }
        })
        .collect();
    tokio::select! {
        () = deadline => {}
        Some(()) = news.next() => {}
    }
}

fn respond(cx: &Context, plan: Plan, round: Round) -> Fetched {
    // What the client's quota does not let through is charged to no shard.
    let quota_ms = cx.door.quotas.fetched(cx, round.bytes);
    if quota_ms > 0 {
        return Fetched::empty(throttled(cx, &plan, quota_ms));
    }
    let pause_ms = pause_ms(cx, &round);
    if pause_ms > 0 && round.bytes == 0 && !round.failed {
        return Fetched::empty(throttled(cx, &plan, pause_ms));
    }
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut pieces = Vec::new();
    let mut told = Vec::new();
    for ((topic, wanted), look) in plan.wanted.into_iter().zip(round.looks) {
        count_out(&look);
        let Look { data, batches, .. } = look;
        let records = !batches.is_empty();
        let (high_watermark, log_start) = (data.high_watermark, data.log_start_offset);
        let news = records || data.error_code != error::NONE || wanted.is_news(high_watermark, log_start);
        if plan.session_id != 0 && news {
            told.push(((topic.clone(), wanted.partition), high_watermark, log_start, records));
        }
        if !plan.full && !news {
            continue;
        }
        pieces.push(batches.iter().map(StoredBatch::batch).collect());
        match topics.last_mut() {
            Some(last) if last.topic.0 == topic.name && last.topic_id == topic.id => last.partitions.push(data),
            _ => topics.push(
                FetchableTopicResponse::default()
                    .with_topic(TopicName(topic.name))
                    .with_topic_id(topic.id)
                    .with_partitions(vec![data]),
            ),
        }
    }
    if !told.is_empty() {
        cx.door.sessions.told(plan.session_id, told);
    }
    let response = FetchResponse::default()
        .with_session_id(plan.session_id)
        .with_responses(topics)
        .with_throttle_time_ms(pause_ms as i32);
    Fetched { response, records: pieces }
}

/// An answer that gives nothing, because nothing that is there may go out yet: empty, as Kafka's, and a session that it
/// would have opened is not, for a client takes no session from an answer that does not name its partitions.
fn throttled(cx: &Context, plan: &Plan, pause_ms: i64) -> FetchResponse {
    let response = FetchResponse::default().with_throttle_time_ms(throttle::told_ms(pause_ms));
    if plan.full {
        cx.door.sessions.forget(plan.session_id);
        return response;
    }
    response.with_session_id(plan.session_id)
}

/// Charges the shards for what goes out. Tells for how long the connection is to pause.
fn pause_ms(cx: &Context, round: &Round) -> i64 {
    let now_ms = cx.door.broker.clock().tick_ms();
    let mut supplies = Vec::new();
    for look in &round.looks {
        let Some((log, pipe)) = look.log.as_ref().and_then(|log| Some((log, log.pipe.as_ref()?))) else { continue };
        let bytes = look.bytes();
        let more = log.next_offset < log.end;
        supplies.push((&log.stream, Supply::charge(pipe, log.withheld_ms, bytes, more, now_ms)));
    }
    throttle::pause_for(&supplies)
}

fn count_out(look: &Look) {
    let pipe = look.log.as_ref().and_then(|log| log.pipe.as_ref());
    // What has records has a pipe that they go out by.
    if let Some(pipe) = pipe.filter(|_| !look.batches.is_empty()) {
        pipe.count_out(records_in(&look.batches), look.bytes() as u64);
    }
}

/// How many records the batches claim to hold: they were validated when they came. Ends of transactions are none.
fn records_in(batches: &[StoredBatch]) -> u64 {
    batches
        .iter()
        .filter_map(|batch| crate::model::batch::Header::parse(&batch.batch()).ok())
        .filter(|header| !header.is_control())
        .map(|header| Offset::from(header.records_count).max(0) as u64)
        .sum()
}

#[cfg(test)]
mod tests;
