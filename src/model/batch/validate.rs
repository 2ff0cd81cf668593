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
            require_keys: settings.cleanup_policy.compacts(),
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::super::samples::{CODECS, NOW_MS, around, decode, encode, record, rules, tampered, three, varint};
    use super::super::{ErrorKind, RECORD_ERRORS_MAX, Record, RecordError};
    use super::*;

    fn refused(batch: &[u8], rules: &Rules) -> (ErrorKind, BatchError) {
        let error = validate(batch, rules).unwrap_err();
        (error.kind(), error)
    }

    /// The uncompressed batch of [`three`] with one field of its header changed.
    fn with(at: usize, field: &[u8]) -> Bytes {
        tampered(&encode(&three(), Codec::None), |bytes| bytes[at..at + field.len()].copy_from_slice(field))
    }

    #[test]
    fn sound_batches_of_every_codec_are_taken_as_they_are() {
        for codec in CODECS {
            let validated = validate(&encode(&three(), codec), &rules()).unwrap();
            assert_eq!((validated.records_count, validated.last_offset_delta), (3, 2));
            assert_eq!((validated.max_timestamp, validated.offset_delta_of_max_timestamp), (NOW_MS + 5, 1));
            assert_eq!((validated.producer_id, validated.producer_epoch, validated.base_sequence), (-1, -1, -1));
            assert!(validated.rewritten.is_none() && !validated.is_transactional);
        }
    }

    #[test]
    fn what_arrived_damaged_is_corrupt() {
        for codec in CODECS {
            let batch = encode(&three(), codec);
            for at in at::CRC..batch.len() {
                let mut damaged = batch.to_vec();
                damaged[at] ^= 0x10;
                assert!(matches!(refused(&damaged, &rules()), (ErrorKind::Corrupt, BatchError::Crc { .. })), "{at}");
            }
        }
    }

    #[test]
    fn headers_that_lie_are_invalid() {
        let rules = rules();
        let count = |records_count: i32, last_offset_delta: i32| {
            let batch = tampered(&with(at::RECORDS_COUNT, &records_count.to_be_bytes()), |bytes| {
                bytes[at::LAST_OFFSET_DELTA..at::BASE_TIMESTAMP].copy_from_slice(&last_offset_delta.to_be_bytes())
            });
            refused(&batch, &rules)
        };
        for (records_count, last_offset_delta) in [(3, 3), (0, -1), (-1, -2), (i32::MIN, i32::MAX), (2, 2)] {
            let error = BatchError::Count { records_count, last_offset_delta };
            assert_eq!(count(records_count, last_offset_delta), (ErrorKind::InvalidRecord, error));
        }
        for (records_count, fault) in
            [(2, RecordFault::BytesAfterLast), (4, RecordFault::Cut), (i32::MAX, RecordFault::Cut)]
        {
            let index = if records_count == 2 { 1 } else { 3 };
            let error = BatchError::Record { index, fault };
            assert_eq!(count(records_count, records_count - 1), (ErrorKind::InvalidRecord, error));
        }
        let invalid = |error| (ErrorKind::InvalidRecord, error);
        assert_eq!(refused(&with(at::BASE_OFFSET, &5i64.to_be_bytes()), &rules), invalid(BatchError::BaseOffset(5)));
        assert_eq!(refused(&with(at::ATTRIBUTES, &[0, 0x20]), &rules), invalid(BatchError::Control));
        assert_eq!(
            refused(&with(at::PRODUCER_ID, &9i64.to_be_bytes()), &rules),
            invalid(BatchError::Sequence { producer_id: 9, base_sequence: -1 })
        );
        for id in 5..8 {
            let error = (ErrorKind::UnsupportedCompression, BatchError::UnknownCodec(id));
            assert_eq!(refused(&with(at::ATTRIBUTES, &[0, id]), &rules), error);
        }
        let twice = [three(), three()].map(|records| encode(&records, Codec::None)).concat();
        assert_eq!(refused(&twice, &rules), invalid(BatchError::BytesAfterBatch(twice.len() / 2)));
    }

    #[test]
    fn transactional_batches_need_a_transaction_and_a_producer() {
        let anonymous = with(at::ATTRIBUTES, &[0, 0x10]);
        assert_eq!(refused(&anonymous, &rules()), (ErrorKind::InvalidRecord, BatchError::TransactionalWithoutProducer));
        let batch = tampered(&anonymous, |bytes| {
            bytes[at::PRODUCER_ID..at::RECORDS_COUNT].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        });
        assert_eq!(refused(&batch, &rules()), (ErrorKind::InvalidTransactionState, BatchError::Transactional));
        assert!(validate(&batch, &Rules { transactional: true, ..rules() }).unwrap().is_transactional);
    }

    #[test]
    fn size_is_judged_as_sent_and_as_stored() {
        let batch = encode(&three(), Codec::None);
        let exactly = Rules { max_message_bytes: batch.len(), ..rules() };
        assert!(validate(&batch, &exactly).is_ok());
        let (size, max) = (batch.len(), batch.len() - 1);
        let small = Rules { max_message_bytes: max, ..rules() };
        assert_eq!(refused(&batch, &small), (ErrorKind::TooLarge, BatchError::TooLarge { size, max }));
        // Fits as gzip, not uncompressed.
        let text: &'static str = "abcdefgh".repeat(1_000).leak();
        let packed = encode(&[record(0, NOW_MS, None, Some(text))], Codec::Gzip);
        let plain = Rules { max_message_bytes: 1_000, compression: Compression::Uncompressed, ..rules() };
        assert_eq!(refused(&packed, &plain).0, ErrorKind::TooLarge);
        assert!(validate(&packed, &Rules { compression: Compression::Producer, ..plain }).is_ok());
    }

    #[test]
    fn records_must_be_sound() {
        // attributes, timestamp delta, offset delta, key, value, headers
        let cases: [(&[u8], RecordFault); 12] = [
            (&[0, 0, 0, 1, 1], RecordFault::Cut),
            (&[0, 0, 0, 1, 1, 0, 0], RecordFault::UnusedBytes(1)),
            (&[0, 0, 2, 1, 1, 0], RecordFault::OffsetDelta(1)),
            (&[0, 0, 0, 3, 1, 0], RecordFault::Length(-2)),
            (&[0, 0, 0, 1, 3, 0], RecordFault::Length(-2)),
            (&[0, 0, 0, 1, 1, 1], RecordFault::Length(-1)),
            (&[0, 0, 0, 40, 1, 0], RecordFault::BeyondRecord),
            (&[0, 0, 0, 1, 40, 0], RecordFault::BeyondRecord),
            // A header with a null key; one that is cut; two billion headers.
            (&[0, 0, 0, 1, 1, 2, 1, 1], RecordFault::Length(-1)),
            (&[0, 0, 0, 1, 1, 2, 0], RecordFault::Cut),
            (&[0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0], RecordFault::Cut),
            (&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 1, 1, 0], RecordFault::Varint),
        ];
        for codec in CODECS {
            for (body, fault) in &cases {
                let stream = [&varint(body.len() as i64)[..], body].concat();
                let error = BatchError::Record { index: 0, fault: fault.clone() };
                assert_eq!(refused(&around(&stream, 1, codec), &rules()), (ErrorKind::InvalidRecord, error), "{codec}");
            }
            for (length, fault) in [(-1, RecordFault::Length(-1)), (i64::from(i32::MAX), RecordFault::Cut)] {
                let error = BatchError::Record { index: 0, fault };
                assert_eq!(refused(&around(&varint(length), 1, codec), &rules()).1, error, "{codec}");
            }
        }
    }

    #[test]
    fn timestamps_cannot_overflow() {
        let body = [&[0][..], &varint(i64::MAX), &[0, 1, 1, 0]].concat();
        let stream = [&varint(body.len() as i64)[..], &body].concat();
        let error = BatchError::Record { index: 0, fault: RecordFault::Timestamp };
        assert_eq!(refused(&around(&stream, 1, Codec::None), &rules()).1, error);
        // The bounds saturate: everything is after `now - i64::MAX`.
        for timestamp in [i64::MIN, -2, 0] {
            assert!(validate(&encode(&[record(0, timestamp, None, None)], Codec::None), &rules()).is_ok());
        }
        let after = refused(&encode(&[record(0, i64::MAX, None, None)], Codec::None), &rules());
        assert_eq!(after.0, ErrorKind::InvalidTimestamp);
    }

    #[test]
    fn each_record_out_of_bounds_is_named() {
        let rules = Rules { before_max_ms: 1_000, after_max_ms: 2_000, ..rules() };
        let times = [NOW_MS - 1_000, NOW_MS - 1_001, NO_TIMESTAMP, NOW_MS + 2_000, NOW_MS + 2_001];
        let records: Vec<Record> = (0..).zip(times).map(|(offset, time)| record(offset, time, None, None)).collect();
        for codec in CODECS {
            let (kind, error) = refused(&encode(&records, codec), &rules);
            assert_eq!(kind, ErrorKind::InvalidTimestamp);
            let indices: Vec<_> = error.record_errors().iter().map(|error| error.batch_index).collect();
            assert_eq!(indices, [1, 4], "{codec}");
            let log_append = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules };
            let validated = validate(&encode(&records, codec), &log_append).unwrap();
            assert_eq!((validated.max_timestamp, validated.offset_delta_of_max_timestamp), (NOW_MS, 0));
        }
    }

    #[test]
    fn only_the_broker_sets_log_append_time() {
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let (kind, error) = refused(&with(at::ATTRIBUTES, &[0, 8]), &Rules { timestamp_type, ..rules() });
            assert_eq!((kind, error.record_errors().len()), (ErrorKind::InvalidTimestamp, 3));
        }
    }

    #[test]
    fn keys_can_be_required() {
        let rules = Rules { require_keys: true, ..rules() };
        let (kind, error) = refused(&encode(&three(), Codec::Lz4), &rules);
        assert_eq!(kind, ErrorKind::InvalidRecord);
        assert!(matches!(error.record_errors(), [RecordError { batch_index: 1, .. }]));
        assert!(validate(&encode(&three()[..1], Codec::Lz4), &rules).is_ok());
    }

    #[test]
    fn the_list_of_record_errors_is_bounded() {
        let records: Vec<Record> = (0..500).map(|offset| record(offset, NOW_MS, None, None)).collect();
        let (_, error) = refused(&encode(&records, Codec::Zstd), &Rules { require_keys: true, ..rules() });
        let BatchError::Records(errors) = &error else { panic!("{error}") };
        assert_eq!((errors.errors.len(), errors.omitted), (RECORD_ERRORS_MAX, 500 - RECORD_ERRORS_MAX));
        assert!(error.to_string().starts_with("500 record(s)"));
    }

    #[test]
    fn a_topics_codec_rewrites_whatever_comes() {
        let settings = [
            (Compression::Uncompressed, Codec::None),
            (Compression::Gzip(1), Codec::Gzip),
            (Compression::Snappy, Codec::Snappy),
            (Compression::Lz4(9), Codec::Lz4),
            (Compression::Zstd(3), Codec::Zstd),
        ];
        for source in CODECS {
            for (compression, target) in settings {
                let batch = encode(&three(), source);
                let validated = validate(&batch, &Rules { compression, ..rules() }).unwrap();
                let Some(rewritten) = validated.rewritten else {
                    assert_eq!(source, target);
                    continue;
                };
                assert_ne!(source, target);
                assert_eq!(decode(&rewritten), three());
                assert_eq!(Header::parse(&rewritten).unwrap().codec(), Ok(target));
                // What is stored is itself a sound batch, and nothing else changed.
                assert!(validate(&rewritten, &rules()).unwrap().rewritten.is_none());
                let fields = |batch: &Bytes| {
                    let header = Header::parse(batch).unwrap();
                    Header { crc: 0, batch_length: 0, attributes: 0, ..header }
                };
                assert_eq!(fields(&rewritten), fields(&batch));
            }
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_cap() {
        // One record with a value of zeros beyond the cap, 300 MiB of them in a few kilobytes.
        let value = DECOMPRESSED_BYTES_MAX + (44 << 20);
        let body = [&[0, 0, 0, 1][..], &varint(value as i64)].concat();
        let length = body.len() as u64 + value + 1;
        let head = [&varint(length as i64)[..], &body].concat();
        let zeros = std::io::repeat(0).take(value + 1);
        let header = Header::parse(&encode(&[record(0, NOW_MS, None, None)], Codec::Zstd)).unwrap();
        let stream = io::BufReader::new(io::Cursor::new(head).chain(zeros));
        let bomb = build::seal(&header, Compressor::of(Codec::Zstd), stream, 1 << 20).unwrap();
        let error = BatchError::Record { index: 0, fault: RecordFault::InflatesTooMuch(DECOMPRESSED_BYTES_MAX) };
        assert_eq!(refused(&bomb, &rules()), (ErrorKind::InvalidRecord, error));
        assert!(validate_up_to(&bomb, &rules(), u64::MAX).is_ok());
        // Below the cap, what it inflates to is never held: it does not fit into what the topic takes.
        let honest = validate_up_to(&bomb, &Rules { compression: Compression::Uncompressed, ..rules() }, u64::MAX);
        assert_eq!(honest.unwrap_err().kind(), ErrorKind::TooLarge);
    }

    proptest! {
        #[test]
        fn what_is_built_is_valid_and_comes_back(
            times in prop::collection::vec((-1_000_000i64..1_000, any::<bool>(), 0usize..40), 1..50),
            codec in 0u8..5,
        ) {
            let codec = Codec::from_id(codec).unwrap();
            let text = |len: usize| Bytes::from(vec![b'a'; len]);
            let records: Vec<Record> = (0..).zip(&times).map(|(offset, (time, keyed, len))| Record {
                offset,
                timestamp: NOW_MS + time,
                key: keyed.then(|| text(*len)),
                value: (!keyed).then(|| text(len * 30)),
                headers: Vec::new(),
            }).collect();
            let batch = encode(&records, codec);
            let validated = validate(&batch, &rules()).unwrap();
            prop_assert!(validated.rewritten.is_none());
            let latest = records.iter().map(|record| record.timestamp).max();
            prop_assert_eq!(Some(validated.max_timestamp), latest);
            let first = records.iter().position(|record| Some(record.timestamp) == latest);
            prop_assert_eq!(Some(validated.offset_delta_of_max_timestamp as usize), first);
            prop_assert_eq!(decode(&batch), records);
        }
    }
}
