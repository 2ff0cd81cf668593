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
