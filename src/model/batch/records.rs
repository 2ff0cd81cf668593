//! The records inside a batch, one after the other.

use std::io::{self, Read};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::codec::{self, Codec};
use super::cursor::{Inflated, Slice, Take};
use super::error::{BatchError, RecordFault};
use super::header::{Header, at};
use super::walk::{self, Part};
use super::{DECOMPRESSED_BYTES_MAX, NO_TIMESTAMP};
use crate::model::ids::Offset;
use crate::model::settings::TimestampType;

/// One record. Of an uncompressed batch, keys and values share the batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Reads the records of a batch. A compressed one is inflated as the iterator goes, so a record is all that is held.
pub fn records(batch: &Bytes) -> Result<Records, BatchError> {
    let header = Header::parse(batch)?;
    let bytes = batch.slice(at::RECORDS..header.total_len());
    let source = match header.codec()? {
        Codec::None => Source::Plain(Slice::new(bytes)),
        codec => {
            let stream =
                codec::reader(codec, io::Cursor::new(bytes)).map_err(|error| walk::undecodable(codec, &error))?;
            Source::Packed(Inflated::new(codec, stream, DECOMPRESSED_BYTES_MAX))
        }
    };
    Ok(Records { header, source, index: 0, ended: false })
}

/// See [`records`]. Ends after the first error.
pub struct Records {
    header: Header,
    source: Source,
    index: i32,
    ended: bool,
}

enum Source {
    Plain(Slice<Bytes>),
    Packed(Inflated<Box<dyn Read>>),
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match &mut self.source {
            Source::Plain(cursor) => next(&self.header, self.index, cursor),
            Source::Packed(cursor) => next(&self.header, self.index, cursor),
        };
        self.index = self.index.saturating_add(1);
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

fn next(header: &Header, index: i32, cursor: &mut impl Take) -> Option<Result<Record, BatchError>> {
    if index < header.records_count {
        Some(read(header, cursor).map_err(|fault| BatchError::Record { index, fault }))
    } else {
        walk::ensure_end(cursor, header.records_count).err().map(Err)
    }
}

fn read(header: &Header, cursor: &mut impl Take) -> Result<Record, RecordFault> {
    let (mut key, mut value, mut headers) = (None, None, Vec::new());
    let frame = walk::record(cursor, |cursor, part, len| {
        let bytes = len.map(|len| cursor.take(len)).transpose()?;
        match part {
            Part::Key => key = bytes,
            Part::Value => value = bytes,
            Part::HeaderKey => headers.push(RecordHeader { key: bytes.unwrap_or_default(), value: None }),
            Part::HeaderValue => {
                if let Some(header) = headers.last_mut() {
                    header.value = bytes;
                }
            }
        }
        Ok(())
    })?;
    let (offset, timestamp) = place(header, frame)?;
    Ok(Record { offset, timestamp, key, value, headers })
}

/// A record's offset and its timestamp as readers see it.
fn place(header: &Header, frame: walk::Frame) -> Result<(Offset, i64), RecordFault> {
    let offset = header.base_offset.checked_add(i64::from(frame.offset_delta));
    let timestamp = match header.timestamp_type() {
        TimestampType::CreateTime => {
            header.base_timestamp.checked_add(frame.timestamp_delta).ok_or(RecordFault::Timestamp)?
        }
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    Ok((offset.ok_or(RecordFault::OffsetDelta(frame.offset_delta))?, timestamp))
}

/// The first record at or after `from` with `target` or a later timestamp, and that timestamp.
pub fn offset_for_timestamp(batch: &[u8], target: i64, from: Offset) -> Result<Option<(Offset, i64)>, BatchError> {
    let header = Header::parse(batch)?;
    if header.max_timestamp < target || header.last_offset() < from {
        return Ok(None);
    }
    first(&header, batch, |offset, timestamp| offset >= from && timestamp >= target)
}

/// The first record with the batch's latest timestamp, and that timestamp; none where records have no timestamps.
pub fn offset_of_max_timestamp(batch: &[u8]) -> Result<Option<(Offset, i64)>, BatchError> {
    let header = Header::parse(batch)?;
    if header.max_timestamp == NO_TIMESTAMP {
        return Ok(None);
    }
    first(&header, batch, |_, timestamp| timestamp == header.max_timestamp)
}

fn first(
    header: &Header,
    batch: &[u8],
    wanted: impl Fn(Offset, i64) -> bool,
) -> Result<Option<(Offset, i64)>, BatchError> {
    let mut found = None;
    walk::frames(header, batch, DECOMPRESSED_BYTES_MAX, |_, frame| {
        let (offset, timestamp) = place(header, frame)?;
        if wanted(offset, timestamp) {
            found = Some((offset, timestamp));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::assemble;
    use super::super::samples::{CODECS, NOW_MS, around, decode, encode, record, tampered, three};
    use super::*;

    #[test]
    fn records_come_back_from_every_codec() {
        for codec in CODECS {
            assert_eq!(decode(&encode(&three(), codec)), three(), "{codec}");
        }
    }

    #[test]
    fn records_of_an_uncompressed_batch_share_its_bytes() {
        let batch = encode(&three(), Codec::None);
        let value = decode(&batch)[0].value.clone().unwrap();
        assert!(batch.as_ptr_range().contains(&value.as_ptr()));
    }

    #[test]
    fn a_lying_count_or_a_cut_body_ends_the_iterator_with_one_error() {
        for codec in CODECS {
            let batch = encode(&three(), codec);
            let counted = |count: i32| {
                let lie = tampered(&batch, |bytes| {
                    bytes[at::RECORDS_COUNT..at::RECORDS].copy_from_slice(&count.to_be_bytes())
                });
                records(&lie).unwrap().map(|item| item.is_ok()).collect::<Vec<_>>()
            };
            assert_eq!(counted(3), [true, true, true], "{codec}");
            assert_eq!(counted(2), [true, true, false], "{codec}");
            assert_eq!(counted(i32::MAX), [true, true, true, false], "{codec}");
            assert_eq!(counted(0), [false], "{codec}");
            assert_eq!(counted(-1), [false], "{codec}");
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        // A record that claims a value of 1 GiB, and ends.
        let length = 1 << 30;
        let claim =
            [&super::super::samples::varint(length + 9)[..], &[0, 0, 0, 1], &super::super::samples::varint(length)]
                .concat();
        for codec in CODECS {
            let items: Vec<_> = records(&around(&claim, 1, codec)).unwrap().collect();
            assert!(
                matches!(&items[..], [Err(BatchError::Record { index: 0, fault: RecordFault::Cut })]),
                "{codec}: {items:?}"
            );
        }
    }

    #[test]
    fn the_first_record_at_or_after_a_time_is_found() {
        for codec in CODECS {
            let batch = assemble(b"", &encode(&three(), codec), 50, 0, None);
            let at = |target, from| offset_for_timestamp(&batch, target, from).unwrap();
            assert_eq!(at(NOW_MS - 100, 0), Some((50, NOW_MS - 10)));
            assert_eq!(at(NOW_MS - 9, 0), Some((51, NOW_MS + 5)));
            assert_eq!(at(NOW_MS + 5, 0), Some((51, NOW_MS + 5)));
            assert_eq!(at(NOW_MS + 6, 0), None);
            // Records before the log's start are gone.
            assert_eq!(at(NOW_MS - 100, 52), Some((52, NOW_MS - 7)));
            assert_eq!(at(NOW_MS, 52), None);
            assert_eq!(at(NOW_MS - 100, 53), None);
            assert_eq!(offset_of_max_timestamp(&batch), Ok(Some((51, NOW_MS + 5))));
        }
    }

    #[test]
    fn under_log_append_time_the_first_record_stands_for_all() {
        let batch = assemble(b"", &encode(&three(), Codec::Zstd), 50, 0, Some(9_000));
        assert_eq!(offset_for_timestamp(&batch, 9_000, 0), Ok(Some((50, 9_000))));
        assert_eq!(offset_for_timestamp(&batch, 1, 51), Ok(Some((51, 9_000))));
        assert_eq!(offset_for_timestamp(&batch, 9_001, 0), Ok(None));
        assert_eq!(offset_of_max_timestamp(&batch), Ok(Some((50, 9_000))));
    }

    #[test]
    fn records_without_timestamps_are_not_found_by_time() {
        let batch = encode(&[record(0, NO_TIMESTAMP, None, None)], Codec::None);
        assert_eq!(offset_for_timestamp(&batch, 0, 0), Ok(None));
        assert_eq!(offset_of_max_timestamp(&batch), Ok(None));
    }
}
