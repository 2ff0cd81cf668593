//! ListShards: the shards that are open or closed within the retention period, by filter and page by page.
//!
//! A stream cannot tell about shards from before its trim horizon, so filters by time begin there at the earliest, as
//! AWS says of FROM_TIMESTAMP.

use serde::{Deserialize, Serialize};

use super::Context;
use super::arn::{Asked, shard_ordinal};
use super::error::Error;
use super::shapes::{Facts, Shard};
use super::token;
use super::validate::{NAME, Rule, STREAM_ARN, STREAM_ID, input, part};
use crate::broker::Stream;
use crate::http::Timestamp;
use crate::model::shard;

/// Shards in one answer.
const PAGE: usize = 1_000;

const FILTER_TYPES: &[&str] =
    &["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"];

part! {
    ShardFilter {
        kind: String = "Type" &[Rule::Required, Rule::OneOf(FILTER_TYPES)];
        shard_id: String = "ShardId" NAME;
        timestamp: Timestamp = "Timestamp" &[];
    }
}

input! { @define [] ListShards {
    max_results: i32 = "MaxResults" &[Rule::Min(1), Rule::Max(10_000)];
    exclusive_start_shard_id: String = "ExclusiveStartShardId" NAME;
    shard_filter: ShardFilter = "ShardFilter" &[];
    stream_creation_timestamp: Timestamp = "StreamCreationTimestamp" &[];
    stream_name: String = "StreamName" NAME;
    stream_arn: String = "StreamARN" STREAM_ARN;
    stream_id: String = "StreamId" STREAM_ID;
    next_token: String = "NextToken" &[Rule::LengthMin(1), Rule::LengthMax(1_048_576)];
} {
    /// A token stands for the stream whose list goes on. One that cannot be read is told by the handler.
    fn asked(&self) -> Asked<'_> {
        let place = self.next_token.as_deref().and_then(token::peek::<Place>);
        match place {
            Some(place) => Asked::Listed { stream: place.stream },
            None => Asked::Stream { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() },
        }
    }
} }

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListShardsOutput {
    shards: Vec<Shard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Where a list goes on, and which list it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    stream: String,
    /// Of the stream, so that the list does not go on in another of the same name.
    created_ms: i64,
    /// A shard's ordinal.
    after: Option<u32>,
    filter: Filter,
}

/// Which shards are listed. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Filter {
    All,
    Open,
    OpenAt(i64),
    OpenSince(i64),
}

impl Filter {
    fn takes(self, shard: &shard::Shard) -> bool {
        let ended_before = |at_ms: i64| shard.closed_ms.is_some_and(|closed_ms| closed_ms < at_ms);
        match self {
            Filter::All => true,
            Filter::Open => shard.is_open(),
            Filter::OpenAt(at_ms) => shard.created_ms <= at_ms && !ended_before(at_ms),
            Filter::OpenSince(at_ms) => !ended_before(at_ms),
        }
    }
}

pub async fn list_shards(cx: Context, input: ListShards) -> Result<ListShardsOutput, Error> {
    let place = match &input.next_token {
        Some(token) => go_on(&cx, &input, token)?,
        None => begin(&cx, &input)?,
    };
    let stream = cx.stream()?;
    let facts = Facts::of(&stream, cx.now_ms);
    if place.created_ms != facts.attributes.created_ms {
        // Another stream has the name now.
        return Err(Error::stream_not_found(&cx.door.home, &stream.name));
    }
    let lineage = stream.lineage();
    let limit = input.max_results.map_or(PAGE, |limit| PAGE.min(limit.unsigned_abs() as usize));
    let mut rest = lineage
        .shards()
        .iter()
        .filter(|_| facts.shows_shards())
        .filter(|shard| place.after.is_none_or(|after| shard.ordinal.0 > after) && place.filter.takes(shard));
    let page: Vec<&shard::Shard> = rest.by_ref().take(limit).collect();
    let last = page.last().filter(|_| rest.next().is_some());
    let next_token = last.map(|last| token::give(Place { after: Some(last.ordinal.0), ..place.clone() }, cx.now_ms));
    Ok(ListShardsOutput { shards: page.into_iter().map(Shard::from).collect(), next_token })
}

fn begin(cx: &Context, input: &ListShards) -> Result<Place, Error> {
    if input.stream_name.is_none() && input.stream_arn.is_none() {
        return invalid("Either NextToken or StreamName should be provided.");
    }
    let stream = cx.stream()?;
    let created_ms = stream.attributes().created_ms;
    // Clients have the time in whole seconds or to the millisecond.
    let is_other = |given: &Timestamp| given.0.div_euclid(1_000) != created_ms.div_euclid(1_000);
    if input.stream_creation_timestamp.as_ref().is_some_and(is_other) {
        return Err(Error::stream_not_found(&cx.door.home, &stream.name));
    }
    let ordinal = |id: &String| {
        shard_ordinal(id).ok_or_else(|| Error::shard_not_found(&cx.door.home, &stream.name, id)).map(|id| id.0)
    };
    let mut place = Place {
        stream: stream.name.to_string(),
        created_ms,
        after: input.exclusive_start_shard_id.as_ref().map(ordinal).transpose()?,
        filter: Filter::All,
    };
    let Some(filter) = &input.shard_filter else { return Ok(place) };
    let kind = filter.kind.as_deref().unwrap_or_default();
    match (kind, &filter.shard_id) {
        ("AFTER_SHARD_ID", None) => return invalid("ShardId must be provided with the shard filter AFTER_SHARD_ID."),
        ("AFTER_SHARD_ID", Some(id)) => place.after = place.after.max(Some(ordinal(id)?)),
        (_, Some(_)) => return invalid("ShardId can only be provided with the shard filter AFTER_SHARD_ID."),
        (_, None) => {}
    }
    let takes_time = matches!(kind, "AT_TIMESTAMP" | "FROM_TIMESTAMP");
    let at_ms = match filter.timestamp {
        None if takes_time => return invalid(&format!("Timestamp must be provided with the shard filter {kind}.")),
        Some(_) if !takes_time => {
            return invalid("Timestamp can only be provided with the shard filters AT_TIMESTAMP and FROM_TIMESTAMP.");
        }
        None => i64::MIN,
        Some(at) => at.0,
    };
    let at_ms = at_ms.max(trim_horizon_ms(&stream, cx.now_ms));
    place.filter = match kind {
        "AT_LATEST" => Filter::Open,
        "AT_TRIM_HORIZON" | "AT_TIMESTAMP" => Filter::OpenAt(at_ms),
        "FROM_TRIM_HORIZON" | "FROM_TIMESTAMP" => Filter::OpenSince(at_ms),
        _ => Filter::All,
    };
    Ok(place)
}

/// A token says all that the list began with, so nothing else may be said.
fn go_on(cx: &Context, input: &ListShards, token: &str) -> Result<Place, Error> {
    let given = [
        ("StreamName", input.stream_name.is_some()),
        ("StreamARN", input.stream_arn.is_some()),
        ("StreamCreationTimestamp", input.stream_creation_timestamp.is_some()),
        ("ExclusiveStartShardId", input.exclusive_start_shard_id.is_some()),
        ("ShardFilter", input.shard_filter.is_some()),
    ];
    if let Some((name, _)) = given.iter().find(|(_, is_given)| *is_given) {
        return invalid(&format!("NextToken and {name} cannot be provided together."));
    }
    token::take(token, cx.now_ms)
}

fn invalid<T>(text: &str) -> Result<T, Error> {
    Err(Error::InvalidArgument(text.to_owned()))
}

/// The oldest time that a stream has shards of: where its retention begins, or where it does itself.
fn trim_horizon_ms(stream: &Stream, now_ms: i64) -> i64 {
    let settings = stream.settings();
    let first_ms = stream.lineage().shards().iter().map(|shard| shard.created_ms).min().unwrap_or(now_ms);
    match settings.retention_ms {
        ms if ms < 0 => first_ms,
        ms => first_ms.max(now_ms.saturating_sub(ms)),
    }
}
