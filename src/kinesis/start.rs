//! Where a reader begins: the five types of positions of GetShardIterator and SubscribeToShard, and AWS's texts for those
//! that are none. Called by `get` and `subscribe`.

use super::Context;
use super::error::Error;
use crate::broker::Stream;
use crate::broker::shards::Span;
use crate::http::Timestamp;
use crate::log::partition::ReadError;
use crate::model::ids::Offset;
use crate::model::sequence_number::{DIGITS, SequenceNumber, SequenceNumberError};

pub const AT_SEQUENCE_NUMBER: &str = "AT_SEQUENCE_NUMBER";
pub const AFTER_SEQUENCE_NUMBER: &str = "AFTER_SEQUENCE_NUMBER";
pub const TRIM_HORIZON: &str = "TRIM_HORIZON";
pub const LATEST: &str = "LATEST";
pub const AT_TIMESTAMP: &str = "AT_TIMESTAMP";

/// In the order in which AWS lists them.
pub const TYPES: &[&str] = &[AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON];

/// A position as a request has it; its type is one of [`TYPES`].
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub operation: &'static str,
    pub kind: &'a str,
    pub sequence_number: Option<&'a str>,
    pub timestamp: Option<Timestamp>,
}

impl Start<'_> {
    /// The offset of the first record that the reader is to have.
    pub async fn offset(&self, cx: &Context, stream: &Stream, span: &Span) -> Result<Offset, Error> {
        let number = match (self.kind, self.sequence_number) {
            (AT_SEQUENCE_NUMBER | AFTER_SEQUENCE_NUMBER, Some(text)) => Some(self.number(cx, stream, span, text)?),
            (AT_SEQUENCE_NUMBER | AFTER_SEQUENCE_NUMBER, None) => return Err(self.unfit("no")),
            (_, Some(_)) => return Err(self.unfit("also a")),
            (_, None) => None,
        };
        let first = span.shard.start_offset;
        let offset = match (self.kind, number) {
            (AT_SEQUENCE_NUMBER, Some(number)) => at(cx, span, &number).await?,
            // A number's position is its record's offset and one.
            (_, Some(number)) => Offset::try_from(number.position).unwrap_or(Offset::MAX),
            (AT_TIMESTAMP, None) => self.at_timestamp(cx, span).await?,
            (LATEST, None) => span.end,
            (_, None) => first,
        };
        Ok(offset.clamp(first, span.shard.end_offset.unwrap_or(Offset::MAX)))
    }

    async fn at_timestamp(&self, cx: &Context, span: &Span) -> Result<Offset, Error> {
        let Some(Timestamp(ms)) = self.timestamp else {
            return Err(Error::InvalidArgument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
                 timestamp parameter."
                    .to_owned(),
            ));
        };
        if ms > cx.now_ms {
            return Err(Error::InvalidArgument(format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                 timestampInMillis: {ms}, currentTimestampInMillis: {}",
                cx.now_ms
            )));
        }
        let found = cx.door.broker.offset_at_append_time(&span.partition, ms).await;
        found.map_err(|error| Error::internal(&error))
    }

    /// A sequence number of this shard.
    fn number(&self, cx: &Context, stream: &Stream, span: &Span, text: &str) -> Result<SequenceNumber, Error> {
        let (name, account) = (&stream.name, &cx.door.home.account);
        let shard = span.shard.ordinal;
        let invalid = |text: &str, why: &str| {
            let operation = self.operation;
            Error::InvalidArgument(format!(
                "StartingSequenceNumber {text} used in {operation} on shard {shard} in stream {name} under account \
                 {account} is invalid{why}."
            ))
        };
        const STRANGE: &str = " because it did not come from this stream";
        let of_other = |ordinal| {
            Error::InvalidArgument(format!(
                "Invalid StartingSequenceNumber. It encodes {ordinal}, while it was used in a call to a shard with {shard}"
            ))
        };
        match SequenceNumber::parse(text) {
            Ok(number) if number.ordinal != shard.0 => Err(of_other(crate::model::ids::ShardOrdinal(number.ordinal))),
            Ok(number) if number.created_s != span.shard.starting_sequence_number().created_s => {
                Err(invalid(text, STRANGE))
            }
            Ok(number) => Ok(number),
            Err(SequenceNumberError::Earlier { ordinal, .. }) if ordinal != shard => Err(of_other(ordinal)),
            // AWS fails over numbers in its first layout, which were shorter.
            Err(SequenceNumberError::Earlier { written, .. }) if written.len() < DIGITS => Err(Error::Internal),
            Err(SequenceNumberError::Earlier { written, .. }) => Err(invalid(&written, STRANGE)),
            Err(SequenceNumberError::Malformed) => Err(invalid(text, "")),
        }
    }

    fn unfit(&self, what: &str) -> Error {
        Error::InvalidArgument(format!(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
             TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {} and {what} \
             StartingSequenceNumber.",
            self.kind
        ))
    }
}

/// The first record whose number is not below `number`. The number that tells how far a subscription is lies between
/// two records': it has the position of the last one and a later time.
async fn at(cx: &Context, span: &Span, number: &SequenceNumber) -> Result<Offset, Error> {
    let Some(offset) = number.offset() else { return Ok(span.shard.start_offset) };
    let appended = cx.door.broker.append_ms_at(span, offset).await.map_err(|error| read_error(&error))?;
    let is_past = appended.is_some_and(|append_ms| span.shard.sequence_number(offset, append_ms) < *number);
    Ok(if is_past { offset.saturating_add(1) } else { offset })
}

pub fn read_error(error: &ReadError) -> Error {
    match error {
        ReadError::OutOfRange { .. } => {
            tracing::error!(%error, "a shard could not be read");
            Error::Internal
        }
        ReadError::Key(error) => Error::key(error),
        ReadError::Store(error) => Error::internal(error),
    }
}
