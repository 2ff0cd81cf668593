//! Whether a client's batch may be appended, as Kafka's log decides it, and what must be rewritten first.

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::codec::{self, Codec, Compressor};
use super::error::{BatchError, RecordErrors, RecordFault};
use super::header::{Header, at};
use super::walk::{self, Frame};
use super::{DECOMPRESSED_BYTES_MAX, NO_TIMESTAMP, assemble, build};
use crate::model::settings::{Compression, StreamSettings, TimestampType};

/// What a topic asks of the batches it takes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `max.message.bytes`: of the batch as it comes, and again as it is stored where compression changes it.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a CreateTime may lie before `now_ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far it may lie after.
    pub after_max_ms: i64,
    pub now_ms: i64,
    /// `compression.type`.
    pub compression: Compression,
    /// Whether every record must have a key, as compaction needs.
    pub require_keys: bool,
    /// Whether the batch may be transactional: its producer has an ongoing transaction that includes this partition.
    pub transactional: bool,
}

impl Rules {
    /// What a stream's settings ask for now, of batches outside of any transaction.
    pub fn new(settings: &StreamSettings, now_ms: i64) -> Rules {
        Rules {
            max_message_bytes: usize::try_from(settings.max_message_bytes).unwrap_or(0),
            timestamp_type: settings.timestamp_type,
            before_max_ms: settings.timestamp_before_max_ms,
            after_max_ms: settings.timestamp_after_max_ms,
            now_ms,
            compression: settings.compression,
            require_keys: false,
            transactional: false,
        }
    }
}

/// A batch that may be appended.
#[derive(Clone, Debug)]
pub struct Validated {
    pub records_count: i32,
    pub last_offset_delta: i32,
    /// The latest timestamp as readers will see it; [`NO_TIMESTAMP`] where no record has one.
    pub max_timestamp: i64,
    /// Which record is the first with it, counted from the batch's base offset.
    pub offset_delta_of_max_timestamp: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub is_transactional: bool,
    /// The batch to append instead, where the topic wants another codec or the client's max timestamp was wrong.
    pub rewritten: Option<Bytes>,
}

/// Judges `batch`, which must be one client's batch and nothing else.
pub fn validate(batch: &[u8], rules: &Rules) -> Result<Validated, BatchError> {
    validate_up_to(batch, rules, DECOMPRESSED_BYTES_MAX)
}

fn validate_up_to(batch: &[u8], rules: &Rules, inflated_max: u64) -> Result<Validated, BatchError> {
    let header = Header::parse(batch)?;
    check_frame(&header, batch, rules)?;
    check_header(&header, rules)?;
    let mut judge =
        Judge { header: &header, rules, latest: NO_TIMESTAMP, latest_at: 0, errors: RecordErrors::default() };
    walk::frames(&header, batch, inflated_max, |index, frame| {
        judge.record(index, frame)?;
        Ok(ControlFlow::Continue(()))
    })?;
    let (max_timestamp, offset_delta_of_max_timestamp) = judge.verdict()?;
    Ok(Validated {
        records_count: header.records_count,
        last_offset_delta: header.last_offset_delta,
        max_timestamp,
        offset_delta_of_max_timestamp,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        is_transactional: header.is_transactional(),
        rewritten: rewrite(&header, batch, rules, max_timestamp)?,
    })
}

/// The batch as a run of bytes: its place, its size, its checksum. In Kafka's order.
fn check_frame(header: &Header, batch: &[u8], rules: &Rules) -> Result<(), BatchError> {
    let size = header.total_len();
    if size < batch.len() {
        return Err(BatchError::BytesAfterBatch(batch.len() - size));
    }
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset(header.base_offset));
    }
    if size > rules.max_message_bytes {
        return Err(BatchError::TooLarge { size, max: rules.max_message_bytes });
    }
    let computed = crc32c::crc32c(batch.get(at::ATTRIBUTES..).unwrap_or_default());
    if header.crc != computed {
        return Err(BatchError::Crc { stored: header.crc, computed });
    }
    Ok(())
}

/// What a client may say in a header.
fn check_header(header: &Header, rules: &Rules) -> Result<(), BatchError> {
    let Header { records_count, last_offset_delta, producer_id, base_sequence, .. } = *header;
    if records_count <= 0 || last_offset_delta != records_count - 1 {
        return Err(BatchError::Count { records_count, last_offset_delta });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.has_producer_id() && base_sequence < 0 {
        return Err(BatchError::Sequence { producer_id, base_sequence });
    }
    if header.is_transactional() {
        if !header.has_producer_id() {
            return Err(BatchError::TransactionalWithoutProducer);
        }
        if !rules.transactional {
            return Err(BatchError::Transactional);
        }
    }
    Ok(())
}

/// Looks at one record after the other; faults of structure end the walk, faults of content are collected.
struct Judge<'a> {
    header: &'a Header,
    rules: &'a Rules,
    latest: i64,
    latest_at: i32,
    errors: RecordErrors,
}

impl Judge<'_> {
    #[inline]
    fn record(&mut self, index: i32, frame: Frame) -> Result<(), RecordFault> {
        if frame.offset_delta != index {
            return Err(RecordFault::OffsetDelta(frame.offset_delta));
        }
        let timestamp = self.header.base_timestamp.checked_add(frame.timestamp_delta).ok_or(RecordFault::Timestamp)?;
        if self.rules.require_keys && !frame.has_key {
            self.errors.push(index, false, || "a compacted topic takes no record without a key".to_owned());
        } else if self.header.timestamp_type() == TimestampType::LogAppendTime {
            self.errors.push(index, true, || "only the broker may set the timestamp type LogAppendTime".to_owned());
        } else if self.rules.timestamp_type == TimestampType::CreateTime {
            self.check_bounds(index, timestamp);
        }
        if timestamp > self.latest {
            self.latest = timestamp;
            self.latest_at = index;
        }
        Ok(())
    }

    #[inline]
    fn check_bounds(&mut self, index: i32, timestamp: i64) {
        let Rules { now_ms, before_max_ms, after_max_ms, .. } = *self.rules;
        let early = now_ms.saturating_sub(timestamp) > before_max_ms;
        let late = timestamp.saturating_sub(now_ms) > after_max_ms;
        if timestamp != NO_TIMESTAMP && (early || late) {
            let (from, to) = (now_ms.saturating_sub(before_max_ms), now_ms.saturating_add(after_max_ms));
            self.errors.push(index, true, || format!("timestamp {timestamp} is outside of [{from}, {to}]"));
        }
    }

    /// The latest timestamp and the first record that has it.
    fn verdict(self) -> Result<(i64, i32), BatchError> {
        if !self.errors.errors.is_empty() {
            return Err(BatchError::Records(self.errors));
        }
        Ok(match self.rules.timestamp_type {
            TimestampType::CreateTime => (self.latest, self.latest_at),
            TimestampType::LogAppendTime => (self.rules.now_ms, 0),
        })
    }
}

fn rewrite(header: &Header, batch: &[u8], rules: &Rules, max_timestamp: i64) -> Result<Option<Bytes>, BatchError> {
    let source = header.codec()?;
    match Compressor::wanted(rules.compression).filter(|target| target.codec() != source) {
        Some(target) => recompress(header, batch, source, target, max_timestamp, rules.max_message_bytes).map(Some),
        None => {
            // Under LogAppendTime the log sets the max timestamp anyway.
            let wrong = rules.timestamp_type == TimestampType::CreateTime && header.max_timestamp != max_timestamp;
            Ok(wrong.then(|| assemble::with_max_timestamp(batch, max_timestamp)))
        }
    }
}

/// The same records in another codec. They have been walked, so they inflate and stay below the cap.
fn recompress(
    header: &Header,
    batch: &[u8],
    source: Codec,
    target: Compressor,
    max_timestamp: i64,
    max: usize,
) -> Result<Bytes, BatchError> {
    let records = io::Cursor::new(batch.get(at::RECORDS..).unwrap_or_default());
    let inflated = codec::reader(source, records).map_err(|error| walk::undecodable(source, &error))?;
    build::seal(&Header { max_timestamp, ..*header }, target, io::BufReader::new(inflated), max)
}
