//! GetShardIterator and GetRecords. An iterator tells all that a reader is at (`iterator`), so nothing is kept here
//! between two calls. Reads of a shard share its 2 MiB and 5 calls a second (`broker::capacity`).

use std::sync::Arc;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::Context;
use super::arn::{self, Asked};
use super::error::Error;
use super::iterator::Position;
use super::put::rate_exceeded;
use super::records::{ANSWER_BYTES_MAX, ChildShard, RECORDS_MAX, Records, child_shards};
use super::start::{self, Start, TYPES};
use super::validate::{self, Input, Pattern, REQUIRED_NAME, Rule, Violations, input};
use crate::broker::Stream;
use crate::broker::shards::{Page, PageLimits, Span};
use crate::http::Timestamp;
use crate::metrics;
use crate::model::attributes::{RecordDistribution, Transition};
use crate::model::ids::{Offset, ShardOrdinal};

input! {
    GetShardIterator about a stream {
        shard_id: String = "ShardId" REQUIRED_NAME;
        shard_iterator_type: String = "ShardIteratorType" &[Rule::Required, Rule::OneOf(TYPES)];
        starting_sequence_number: String = "StartingSequenceNumber" &[Rule::Matches(Pattern::SequenceNumber)];
        timestamp: Timestamp = "Timestamp" &[];
        dry_run: bool = "DryRun" &[];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetShardIteratorOutput {
    shard_iterator: String,
}

/// The iterator names the stream; the ARN may name it as well.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetRecords {
    limit: Option<i32>,
    shard_iterator: Option<String>,
    dry_run: Option<bool>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    stream_id: Option<String>,
}

pub struct GetRecordsOutput {
    span: Span,
    distribution: RecordDistribution,
    page: Page,
    /// `None` at the end of a closed shard, whose children are told then.
    next: Option<String>,
    child_shards: Vec<ChildShard>,
}

pub async fn get_shard_iterator(cx: Context, input: GetShardIterator) -> Result<GetShardIteratorOutput, Error> {
    let shard_id = input.shard_id.unwrap_or_default();
    let (stream, span) = readable_shard(&cx, &shard_id)?;
    let start = Start {
        operation: "GetShardIterator",
        kind: input.shard_iterator_type.as_deref().unwrap_or_default(),
        sequence_number: input.starting_sequence_number.as_deref(),
        timestamp: input.timestamp,
    };
    let next = start.offset(&cx, &stream, &span).await?;
    if input.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let now_ms = cx.door.broker.clock().tick_ms();
    if cx.door.config.control_rates && !stream.begin_iterator(span.shard.ordinal, now_ms).is_granted() {
        let message = rate_exceeded(&cx.door.home, &stream.name, span.shard.ordinal);
        return Err(Error::ProvisionedThroughputExceeded(message));
    }
    Ok(GetShardIteratorOutput { shard_iterator: iterator(&cx, &stream, &span, next)? })
}

/// The shard that a request names, of the stream that it names. As AWS has it, a missing stream is told as a missing
/// shard of it, unless it was named by its ARN.
fn readable_shard(cx: &Context, shard_id: &str) -> Result<(Arc<Stream>, Span), Error> {
    let home = &cx.door.home;
    let named = cx.named.as_ref();
    let stream_name = named.map_or("", |named| &named.stream);
    let ordinal = arn::shard_ordinal(shard_id).ok_or_else(|| Error::shard_not_found(home, stream_name, shard_id))?;
    let missing = || Error::shard_does_not_exist(home, stream_name, &ordinal.to_string());
    let stream = match cx.stream() {
        Err(_) if named.is_some_and(|named| !named.by_arn && named.foreign.is_none()) => return Err(missing()),
        stream => stream?,
    };
    if stream.attributes().transition(cx.now_ms) == Some(Transition::Creating) {
        return Err(missing());
    }
    let span = stream.span(ordinal).ok_or_else(missing)?;
    Ok((stream, span))
}

fn iterator(cx: &Context, stream: &Stream, span: &Span, next: Offset) -> Result<String, Error> {
    cx.door.iterators.seal(&Position {
        stream: stream.id,
        stream_name: stream.name.to_string(),
        ordinal: span.shard.ordinal,
        next,
    })
}

pub async fn get_records(cx: Context, input: GetRecords) -> Result<GetRecordsOutput, Error> {
    let position = cx.door.iterators.open(input.shard_iterator.as_deref().unwrap_or_default())?;
    let (stream, span) = positioned_shard(&cx, &position)?;
    cx.authorize(&stream)?;
    if input.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let got = read_page(&cx, &stream, span, &position, input.limit).await;
    stream.metrics.get_records.answered(got.is_ok(), cx.seconds());
    got
}

async fn read_page(
    cx: &Context,
    stream: &Arc<Stream>,
    span: Span,
    position: &Position,
    limit: Option<i32>,
) -> Result<GetRecordsOutput, Error> {
    let (broker, shard) = (&cx.door.broker, span.shard.ordinal);
    if !stream.begin_read(shard, broker.clock().tick_ms()).is_granted() {
        return Err(Error::ProvisionedThroughputExceeded(rate_exceeded(&cx.door.home, &stream.name, shard)));
    }
    let records_max = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(RECORDS_MAX);
    let limits = PageLimits { records_max, bytes_max: ANSWER_BYTES_MAX };
    let read = broker.read_shard(stream, &span, position.next, limits).await;
    let (bytes, largest) = read.as_ref().map_or((0, false), |page| (page.bytes, page.full));
    stream.end_read(shard, bytes as u64, largest, broker.clock().tick_ms());
    let page = read.map_err(|error| start::read_error(&error))?;
    count_out(cx, stream, shard, &page);
    let (successful, bytes) = (page.records.len() as u64, page.bytes as u64);
    stream.metrics.get_records.records(metrics::Records { successful, bytes, ..metrics::Records::default() });
    let (next, child_shards) = match page.ended {
        true => (None, child_shards(&stream.lineage(), shard)),
        false => (Some(iterator(cx, stream, &span, page.next)?), Vec::new()),
    };
    Ok(GetRecordsOutput { distribution: stream.attributes().distribution, span, page, next, child_shards })
}

/// Counts what a reader of a shard is given.
fn count_out(cx: &Context, stream: &Stream, shard: ShardOrdinal, page: &Page) {
    stream.metrics.outgoing(shard, page.records.len() as u64, page.bytes as u64);
    stream.metrics.iterator_age(shard, page.behind_ms, cx.door.broker.clock().tick_ms());
}

/// The shard that an iterator was made for, unless it or its stream is gone.
fn positioned_shard(cx: &Context, position: &Position) -> Result<(Arc<Stream>, Span), Error> {
    let Position { stream, stream_name, ordinal, .. } = position;
    let missing = || Error::shard_does_not_exist(&cx.door.home, stream_name, &ordinal.to_string());
    let other_named = cx.named.as_ref().is_some_and(|named| named.foreign.is_some() || named.stream != *stream_name);
    if other_named {
        return Err(Error::InvalidArgument("StreamARN and ShardIterator do not name the same stream.".to_owned()));
    }
    let found = cx.door.broker.stream_in_any_state(stream_name).filter(|found| found.id == *stream);
    let found = found.ok_or_else(missing)?;
    let span = found.span(*ordinal).ok_or_else(missing)?;
    Ok((found, span))
}

impl Input for GetRecords {
    fn check(&self, found: &mut Violations) {
        found.member("Limit", self.limit.as_ref(), &[Rule::Min(1), Rule::Max(RECORDS_MAX as i64)]);
        let length = [Rule::Required, Rule::LengthMin(1), Rule::LengthMax(512)];
        found.member("ShardIterator", self.shard_iterator.as_ref(), &length);
        found.member("StreamARN", self.stream_arn.as_ref(), validate::STREAM_ARN);
        found.member("StreamId", self.stream_id.as_ref(), validate::STREAM_ID);
    }

    fn asked(&self) -> Asked<'_> {
        match self.stream_arn.as_deref() {
            None => Asked::Sealed,
            arn => Asked::Stream { name: None, arn },
        }
    }
}

impl Serialize for GetRecordsOutput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut answer = serializer.serialize_struct("GetRecordsOutput", 3)?;
        let GetRecordsOutput { span, distribution, page, .. } = self;
        let records = Records { shard: &span.shard, records: &page.records, distribution: *distribution };
        answer.serialize_field("Records", &records)?;
        answer.serialize_field("MillisBehindLatest", &page.behind_ms)?;
        match &self.next {
            Some(next) => answer.serialize_field("NextShardIterator", next)?,
            None => answer.serialize_field("ChildShards", &self.child_shards)?,
        }
        answer.end()
    }
}
