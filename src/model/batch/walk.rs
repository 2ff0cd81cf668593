//! The walk through the records of a batch: one parser for every reader, and nothing it finds is believed.

use std::io;
use std::ops::ControlFlow;

use super::at;
use super::codec::{self, Codec};
use super::cursor::{Cursor, Inflated, Slice};
use super::error::{BatchError, RecordFault};
use super::header::Header;

/// What the walk tells of a record without holding any of its bytes.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub has_key: bool,
}

/// The variable parts of a record, in the order they come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
    HeaderKey,
    HeaderValue,
}

/// Reads one record. `body` must pass exactly the bytes of each part it is given (`None` is null).
#[inline]
pub(super) fn record<C: Cursor>(
    cursor: &mut C,
    mut body: impl FnMut(&mut C, Part, Option<u64>) -> Result<(), RecordFault>,
) -> Result<Frame, RecordFault> {
    let end = match cursor.varint()? {
        length @ 0.. => cursor.position() + length as u64,
        length => return Err(RecordFault::Length(length)),
    };
    let _attributes = cursor.byte()?;
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = cursor.varint()?;
    let key = nullable(cursor, end)?;
    body(cursor, Part::Key, key)?;
    let value = nullable(cursor, end)?;
    body(cursor, Part::Value, value)?;
    let headers = cursor.varint()?;
    if headers < 0 {
        return Err(RecordFault::Length(headers));
    }
    // A header takes bytes, so a count that lies runs into the end of the record.
    for _ in 0..headers {
        let header_key = nullable(cursor, end)?.ok_or(RecordFault::Length(-1))?;
        body(cursor, Part::HeaderKey, Some(header_key))?;
        let header_value = nullable(cursor, end)?;
        body(cursor, Part::HeaderValue, header_value)?;
    }
    match end.checked_sub(cursor.position()) {
        Some(0) => Ok(Frame { timestamp_delta, offset_delta, has_key: key.is_some() }),
        Some(unused) => Err(RecordFault::UnusedBytes(unused)),
        None => Err(RecordFault::BeyondRecord),
    }
}

/// A length that may be null (-1), of bytes that end inside the record.
#[inline]
fn nullable<C: Cursor>(cursor: &mut C, end: u64) -> Result<Option<u64>, RecordFault> {
    match cursor.varint()? {
        -1 if cursor.position() <= end => Ok(None),
        length @ 0.. if cursor.position() + length as u64 <= end => Ok(Some(length as u64)),
        length @ ..-1 => Err(RecordFault::Length(length)),
        _ => Err(RecordFault::BeyondRecord),
    }
}

/// Shows every record of `batch` to `visit`, with its place, until it breaks off. Walked to the end, the batch holds
/// exactly `records_count` sound records and not a byte more.
pub(super) fn frames(
    header: &Header,
    batch: &[u8],
    inflated_max: u64,
    visit: impl FnMut(i32, Frame) -> Result<ControlFlow<()>, RecordFault>,
) -> Result<(), BatchError> {
    let records = batch.get(at::RECORDS..header.total_len()).unwrap_or_default();
    match header.codec()? {
        Codec::None => walk(&mut Slice::new(records), header.records_count, visit),
        codec => {
            let source = codec::reader(codec, io::Cursor::new(records)).map_err(|error| undecodable(codec, &error))?;
            walk(&mut Inflated::new(codec, source, inflated_max), header.records_count, visit)
        }
    }
}

/// The error of a codec that refuses the very beginning of its stream.
pub(super) fn undecodable(codec: Codec, error: &io::Error) -> BatchError {
    BatchError::Record { index: 0, fault: RecordFault::Decompress { codec, reason: error.to_string() } }
}

fn walk<C: Cursor>(
    cursor: &mut C,
    records_count: i32,
    mut visit: impl FnMut(i32, Frame) -> Result<ControlFlow<()>, RecordFault>,
) -> Result<(), BatchError> {
    for index in 0..records_count {
        let step = record(cursor, |cursor, _, len| cursor.skip(len.unwrap_or(0))).and_then(|frame| visit(index, frame));
        match step {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(fault) => return Err(BatchError::Record { index, fault }),
        }
    }
    ensure_end(cursor, records_count)
}

/// Nothing may follow the last record counted.
pub(super) fn ensure_end<C: Cursor>(cursor: &mut C, records_count: i32) -> Result<(), BatchError> {
    let fault = match cursor.at_end() {
        Ok(true) => return Ok(()),
        Ok(false) => RecordFault::BytesAfterLast,
        Err(fault) => fault,
    };
    Err(BatchError::Record { index: records_count.saturating_sub(1), fault })
}
