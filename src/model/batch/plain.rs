//! Encodes the batches that the broker itself writes: uncompressed, without a producer, every record of the same time.
//! Called by `broker::put` with one request's records for a shard. One pass, one buffer: no record is held anywhere else.

use bytes::Bytes;

use super::assemble::put;
use super::build::put_varlong;
use super::error::BatchError;
use super::header::{HEADER_LEN, LENGTH_OVERHEAD, MAGIC, at};
use super::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE};

/// The bytes of a record apart from its key and value, at most: six varints, the attributes byte and no headers.
const FRAME_BYTES_MAX: usize = 32;

/// A batch that grows record by record.
pub struct Plain {
    bytes: Vec<u8>,
    records_count: i32,
}

impl Plain {
    /// With room for `records` records whose keys and values have `payload_bytes` bytes in all.
    pub fn with_capacity(records: usize, payload_bytes: usize) -> Plain {
        let mut bytes = Vec::with_capacity(HEADER_LEN + records * FRAME_BYTES_MAX + payload_bytes);
        bytes.resize(HEADER_LEN, 0);
        Plain { bytes, records_count: 0 }
    }

    pub fn push(&mut self, key: Option<&[u8]>, value: &[u8]) {
        const ATTRIBUTES: u8 = 0;
        const TIMESTAMP_DELTA: u8 = 0;
        const NO_HEADERS: u8 = 0;
        let offset_delta = i64::from(self.records_count);
        let key_len = key.map_or(-1, |key| key.len() as i64);
        let value_len = value.len() as i64;
        let lengths = varlong_len(offset_delta) + varlong_len(key_len) + varlong_len(value_len);
        let body = 3 + lengths + key.map_or(0, <[u8]>::len) + value.len();
        let bytes = &mut self.bytes;
        put_varlong(bytes, body as i64);
        bytes.extend_from_slice(&[ATTRIBUTES, TIMESTAMP_DELTA]);
        put_varlong(bytes, offset_delta);
        put_varlong(bytes, key_len);
        bytes.extend_from_slice(key.unwrap_or_default());
        put_varlong(bytes, value_len);
        bytes.extend_from_slice(value);
        bytes.push(NO_HEADERS);
        self.records_count = self.records_count.saturating_add(1);
    }

    /// The batch, to be appended under LogAppendTime: its times and its checksum are the log's to set
    /// ([`assemble`](super::assemble)), which knows the time only when the batch has its place. Fails without records and
    /// beyond 2 GiB.
    pub fn finish(self) -> Result<Bytes, BatchError> {
        let Plain { mut bytes, records_count } = self;
        if records_count <= 0 {
            return Err(BatchError::Count { records_count, last_offset_delta: records_count - 1 });
        }
        let size = bytes.len();
        let too_large = BatchError::TooLarge { size, max: i32::MAX as usize };
        let batch_length = i32::try_from(size - LENGTH_OVERHEAD).map_err(|_| too_large)?;
        if let Some(head) = bytes.first_chunk_mut() {
            put(head, at::BATCH_LENGTH, batch_length.to_be_bytes());
            put(head, at::PARTITION_LEADER_EPOCH, (-1_i32).to_be_bytes());
            put(head, at::MAGIC, MAGIC.to_be_bytes());
            put(head, at::LAST_OFFSET_DELTA, (records_count - 1).to_be_bytes());
            put(head, at::PRODUCER_ID, NO_PRODUCER_ID.to_be_bytes());
            put(head, at::PRODUCER_EPOCH, NO_PRODUCER_EPOCH.to_be_bytes());
            put(head, at::BASE_SEQUENCE, NO_SEQUENCE.to_be_bytes());
            put(head, at::RECORDS_COUNT, records_count.to_be_bytes());
        }
        Ok(bytes.into())
    }
}

/// How many bytes `put_varlong` writes.
fn varlong_len(value: i64) -> usize {
    let raw = (value << 1 ^ value >> 63) as u64;
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{decode, rules, varint};
    use super::super::{Rules, assemble, validate};
    use super::*;
    use crate::model::settings::TimestampType;

    fn batch(records: &[(Option<Vec<u8>>, Vec<u8>)]) -> Bytes {
        let payload = records.iter().map(|(key, value)| key.as_ref().map_or(0, Vec::len) + value.len()).sum();
        let mut plain = Plain::with_capacity(records.len(), payload);
        records.iter().for_each(|(key, value)| plain.push(key.as_deref(), value));
        plain.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_a_client_might_have_sent(
            records in prop::collection::vec((prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
                prop::collection::vec(any::<u8>(), 0..300)), 1..100)
        ) {
            let stored = assemble(b"", &batch(&records), 70, 3, Some(1_234));
            let read: Vec<_> = decode(&stored)
                .into_iter()
                .map(|record| {
                    assert_eq!(record.timestamp, 1_234);
                    assert!(record.headers.is_empty());
                    (record.offset, record.key.map(|key| key.to_vec()), record.value.unwrap().to_vec())
                })
                .collect();
            let expected: Vec<_> =
                (70..).zip(records.clone()).map(|(offset, (key, value))| (offset, key, value)).collect();
            prop_assert_eq!(read, expected);

            // Sound by the rules for clients, once its times and checksum are set.
            let mut sent = assemble(b"", &batch(&records), 0, -1, Some(1_234)).to_vec();
            sent[at::ATTRIBUTES + 1] = 0;
            let crc = crc32c::crc32c(&sent[at::ATTRIBUTES..]);
            sent[at::CRC..at::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
            let rules = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
            prop_assert_eq!(validate(&sent, &rules).map(|validated| validated.records_count), Ok(records.len() as i32));
        }

        #[test]
        fn lengths_are_foreseen(value in any::<i64>(), bits in 0..63_u32) {
            prop_assert_eq!(varlong_len(value >> bits), varint(value >> bits).len());
        }
    }

    #[test]
    fn room_is_taken_once() {
        let mut plain = Plain::with_capacity(500, 500 * 1_030);
        let capacity = plain.bytes.capacity();
        (0..500).for_each(|_| plain.push(Some(b"123456"), &[7; 1_024]));
        assert_eq!(plain.bytes.capacity(), capacity);
        assert!(matches!(Plain::with_capacity(0, 0).finish(), Err(BatchError::Count { .. })));
    }
}
