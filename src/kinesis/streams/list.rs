//! ListStreams, in the order of names. Topics whose names are too long for Kinesis are left out: nothing could be asked
//! about them.

use serde::{Deserialize, Serialize};

use crate::http::Timestamp;
use crate::kinesis::Context;
use crate::kinesis::error::Error;
use crate::kinesis::shapes::{Facts, StreamModeDetails};
use crate::kinesis::token;
use crate::kinesis::validate::{NAME, Pattern, Rule, input};

/// Streams in one answer.
const PAGE: usize = 100;
const NAME_LENGTH_MAX: usize = 128;

input! {
    ListStreams about the account {
        limit: i32 = "Limit" &[Rule::Min(1), Rule::Max(10_000)];
        exclusive_start_stream_name: String = "ExclusiveStartStreamName" NAME;
        next_token: String = "NextToken" &[Rule::LengthMin(1), Rule::LengthMax(1_048_576)];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListStreamsOutput {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<StreamSummary>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamSummary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    stream_creation_timestamp: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct After {
    stream: String,
}

pub async fn list_streams(cx: Context, input: ListStreams) -> Result<ListStreamsOutput, Error> {
    let after = match (input.next_token, input.exclusive_start_stream_name) {
        (Some(_), Some(_)) => {
            let text = "NextToken and ExclusiveStartStreamName cannot be provided together.";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        (Some(token), None) => Some(token::take::<After>(&token, cx.now_ms)?.stream),
        (None, name) => name,
    };
    let limit = input.limit.map_or(PAGE, |limit| PAGE.min(limit.unsigned_abs() as usize));
    let streams = cx.door.broker.streams_in_any_state();
    let visible =
        streams.iter().filter(|stream| stream.name.len() <= NAME_LENGTH_MAX && Pattern::Name.matches(&stream.name));
    let mut rest = visible.filter(|stream| after.as_ref().is_none_or(|after| *stream.name > **after));
    let page: Vec<StreamSummary> = rest
        .by_ref()
        .take(limit)
        .map(|stream| {
            let facts = Facts::of(stream, cx.now_ms);
            StreamSummary {
                stream_name: stream.name.to_string(),
                stream_arn: cx.door.home.stream_arn(&stream.name),
                stream_status: facts.status(),
                stream_mode_details: facts.mode(),
                stream_creation_timestamp: facts.created(),
            }
        })
        .collect();
    let has_more_streams = rest.next().is_some();
    let last = page.last().filter(|_| has_more_streams).map(|summary| summary.stream_name.clone());
    Ok(ListStreamsOutput {
        stream_names: page.iter().map(|summary| summary.stream_name.clone()).collect(),
        has_more_streams,
        next_token: last.map(|stream| token::give(After { stream }, cx.now_ms)),
        stream_summaries: page,
    })
}
