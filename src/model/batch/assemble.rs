//! What the log changes in a batch: its place, and the time when the topic says so.

use bytes::{BufMut, Bytes, BytesMut};

use super::at;
use super::header::{HEADER_LEN, LOG_APPEND_TIME};
use crate::model::ids::Offset;

/// `prefix` and then the batch with its offset and epoch, in one buffer of exact size: the batch is copied once.
/// `log_append_time` (milliseconds) replaces the records' timestamps; only then the CRC changes, as it does not cover the
/// offset and the epoch. `batch` must have passed [`validate`](super::validate); one without a whole header is copied
/// as it is.
pub fn assemble(
    prefix: &[u8],
    batch: &[u8],
    base_offset: Offset,
    leader_epoch: i32,
    log_append_time: Option<i64>,
) -> Bytes {
    let mut whole = BytesMut::with_capacity(prefix.len() + batch.len());
    whole.put_slice(prefix);
    whole.put_slice(batch);
    if let Some((head, records)) = whole.get_mut(prefix.len()..).and_then(<[u8]>::split_first_chunk_mut) {
        put(head, at::BASE_OFFSET, base_offset.to_be_bytes());
        put(head, at::PARTITION_LEADER_EPOCH, leader_epoch.to_be_bytes());
        if let Some(now_ms) = log_append_time {
            let attributes = i16::from_be_bytes([head[at::ATTRIBUTES], head[at::ATTRIBUTES + 1]]) | LOG_APPEND_TIME;
            put(head, at::ATTRIBUTES, attributes.to_be_bytes());
            put(head, at::MAX_TIMESTAMP, now_ms.to_be_bytes());
            put_crc(head, records);
        }
    }
    whole.freeze()
}

/// A copy of a sound batch that says the max timestamp it really has.
pub(super) fn with_max_timestamp(batch: &[u8], max_timestamp: i64) -> Bytes {
    let mut copy = BytesMut::from(batch);
    if let Some((head, records)) = copy.split_first_chunk_mut() {
        put(head, at::MAX_TIMESTAMP, max_timestamp.to_be_bytes());
        put_crc(head, records);
    }
    copy.freeze()
}

/// Writes one field. Callers name the offset by a constant of [`at`], so the field lies within the header.
pub(super) fn put<const N: usize>(head: &mut [u8; HEADER_LEN], offset: usize, field: [u8; N]) {
    head[offset..offset + N].copy_from_slice(&field);
}

/// Writes the checksum over everything behind it.
pub(super) fn put_crc(head: &mut [u8; HEADER_LEN], records: &[u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[at::ATTRIBUTES..]), records);
    put(head, at::CRC, crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::samples::{CODECS, decode, encode, rules, three};
    use super::super::{Codec, Header, validate};
    use super::*;
    use crate::model::settings::TimestampType;

    #[test]
    fn the_place_is_patched_and_everything_else_is_verbatim() {
        for codec in CODECS {
            let batch = encode(&three(), codec);
            let stored = assemble(b"sixteen bytes...", &batch, 1_000, 7, None);
            assert_eq!(&stored[..16], b"sixteen bytes...");
            let stored = stored.slice(16..);
            let header = Header::parse(&stored).unwrap();
            assert_eq!((header.base_offset, header.partition_leader_epoch, header.last_offset()), (1_000, 7, 1_002));
            assert_eq!(stored[at::MAGIC..], batch[at::MAGIC..]);
            let offsets: Vec<_> = decode(&stored).iter().map(|record| record.offset).collect();
            assert_eq!(offsets, [1_000, 1_001, 1_002]);
        }
    }

    #[test]
    fn under_log_append_time_every_record_has_the_brokers_time() {
        for codec in CODECS {
            let stored = assemble(b"", &encode(&three(), codec), 0, 0, Some(123_456));
            let header = Header::parse(&stored).unwrap();
            assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, 123_456));
            assert_eq!(header.crc, crc32c::crc32c(&stored[at::ATTRIBUTES..]));
            assert_eq!(header.codec(), Ok(codec));
            assert!(decode(&stored).iter().all(|record| record.timestamp == 123_456));
        }
    }

    #[test]
    fn a_wrong_max_timestamp_is_put_right() {
        let batch = encode(&three(), Codec::Gzip);
        let wrong = with_max_timestamp(&batch, 5);
        assert_ne!(wrong, batch);
        let validated = validate(&wrong, &rules()).unwrap();
        assert_eq!(validated.rewritten, Some(batch.clone()));
        assert!(validate(&batch, &rules()).unwrap().rewritten.is_none());
    }

    #[test]
    fn what_is_no_batch_is_copied() {
        assert_eq!(assemble(b"p", b"short", 1, 1, Some(1)), "pshort");
    }
}
