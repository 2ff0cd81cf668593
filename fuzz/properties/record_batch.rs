//! What holds for any bytes that claim to be a record batch. Panics where it does not.
//!
//! Bytes are tried as they are, and again with their length, count and checksum put right: no mutation finds a CRC-32C by
//! chance, and the records behind it are where the danger is.

use anabranch::model::batch::{self, Header, Rules, at};
use anabranch::model::settings::{Compression, TimestampType};
use bytes::Bytes;

/// A bomb may hold tens of millions of records; this many are enough to look at.
const RECORDS_READ_MAX: usize = 10_000;

const BATCH_BYTES_MAX: usize = 1 << 20;

pub fn holds(data: &[u8]) {
    holds_for(&Bytes::copy_from_slice(data));
    if let Some(repaired) = repaired(data) {
        holds_for(&repaired);
    }
}

/// The same bytes with everything right that comes before the records.
fn repaired(data: &[u8]) -> Option<Bytes> {
    let mut batch = data.to_vec();
    let batch_length = i32::try_from(batch.len().checked_sub(at::PARTITION_LEADER_EPOCH)?).ok()?;
    let mut put = |at: usize, field: &[u8]| {
        batch.get_mut(at..at + field.len())?.copy_from_slice(field);
        Some(())
    };
    put(at::BASE_OFFSET, &[0; 8])?;
    put(at::BATCH_LENGTH, &batch_length.to_be_bytes())?;
    put(at::MAGIC, &[2])?;
    let records_count = i32::from_be_bytes(data.get(at::RECORDS_COUNT..at::RECORDS)?.try_into().ok()?);
    put(at::LAST_OFFSET_DELTA, &records_count.wrapping_sub(1).to_be_bytes())?;
    let crc = crc32c::crc32c(batch.get(at::ATTRIBUTES..)?);
    batch.get_mut(at::CRC..at::ATTRIBUTES)?.copy_from_slice(&crc.to_be_bytes());
    Some(batch.into())
}

fn rules(timestamp_type: TimestampType, compression: Compression) -> Rules {
    Rules {
        max_message_bytes: BATCH_BYTES_MAX,
        timestamp_type,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        now_ms: 1_700_000_000_000,
        compression,
        require_keys: false,
        transactional: true,
    }
}

fn holds_for(bytes: &Bytes) {
    let run = batch::split(bytes).filter_map(Result::ok).map(|batch| batch.len()).sum::<usize>();
    assert!(run <= bytes.len());
    let _ = batch::offset_for_timestamp(bytes, 0, 0);
    let _ = batch::offset_of_max_timestamp(bytes);
    if let Ok(records) = batch::records(bytes) {
        records.take(RECORDS_READ_MAX).for_each(drop);
    }
    assert_eq!(batch::assemble(b"prefix", bytes, 7, 1, Some(5)).len(), 6 + bytes.len());
    let Ok(header) = Header::parse(bytes) else {
        assert!(batch::validate(bytes, &rules(TimestampType::CreateTime, Compression::Producer)).is_err());
        return;
    };
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        if let Ok(validated) = batch::validate(bytes, &rules(timestamp_type, Compression::Producer)) {
            assert_eq!(header.crc, crc32c::crc32c(&bytes[at::ATTRIBUTES..]), "a batch with a wrong CRC is valid");
            assert_eq!(header.total_len(), bytes.len());
            assert_eq!(batch::single_batch(bytes, true).as_ref(), Ok(bytes));
            let stored = validated.rewritten.as_ref().unwrap_or(bytes);
            readers_see_it_whole(stored, validated.records_count, validated.max_timestamp, timestamp_type);
        }
    }
    let _ = batch::validate(bytes, &rules(TimestampType::CreateTime, Compression::Snappy));
}

/// What has been judged valid is a batch for every reader, at its place in the log.
fn readers_see_it_whole(batch: &Bytes, records_count: i32, max_timestamp: i64, timestamp_type: TimestampType) {
    let append_time = (timestamp_type == TimestampType::LogAppendTime).then_some(max_timestamp);
    let stored = batch::assemble(&[], batch, 1_000, 3, append_time);
    let header = Header::parse(&stored).expect("a valid batch has a header");
    assert_eq!(header.crc, crc32c::crc32c(&stored[at::ATTRIBUTES..]));
    assert_eq!((header.base_offset, header.partition_leader_epoch), (1_000, 3));
    assert_eq!((header.records_count, header.max_timestamp), (records_count, max_timestamp));
    let mut latest = -1;
    for (offset, record) in
        (1_000..).zip(batch::records(&stored).expect("a valid batch has records").take(RECORDS_READ_MAX))
    {
        let record = record.expect("a valid batch has sound records");
        assert_eq!(record.offset, offset);
        assert!(record.timestamp <= max_timestamp.max(-1));
        latest = latest.max(record.timestamp);
    }
    if records_count as usize <= RECORDS_READ_MAX {
        assert_eq!(batch::records(&stored).into_iter().flatten().count(), records_count as usize);
        assert_eq!(latest, max_timestamp);
        let found = batch::offset_of_max_timestamp(&stored).expect("a valid batch can be searched");
        assert_eq!(found.is_some(), max_timestamp != -1);
        if let Some((offset, timestamp)) = found {
            assert_eq!(timestamp, max_timestamp);
            let first = batch::offset_for_timestamp(&stored, timestamp, 0);
            assert_eq!(first, Ok(Some((offset, timestamp))));
        }
    }
}
