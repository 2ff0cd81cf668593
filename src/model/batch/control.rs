//! Control batches: what the log says in the middle of the records. The only ones there are end a producer's transaction:
//! one record, of which readers are shown nothing, uncompressed, with the producer's id and epoch and no sequence.
//!
//! Built by `broker` for the log, read by recovery and by whoever must tell a commit from an abort. Clients may not write
//! them ([`validate`](super::validate)).
//!
//! | part | field | width | |
//! |---|---|---|---|
//! | key | version | i16 | 0; later versions only add |
//! | key | type | i16 | 0: abort, 1: commit |
//! | value | version | i16 | 0 |
//! | value | coordinator epoch | i32 | |
//!
//! Source: KIP-98; Kafka's ControlRecordType and EndTransactionMarker.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::assemble::{put, put_crc};
use super::build::put_record;
use super::header::{CONTROL, HEADER_LEN, Header, LENGTH_OVERHEAD, MAGIC, TRANSACTIONAL, at};
use super::{NO_SEQUENCE, Record, build, records};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// The end of a producer's transaction in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    pub commit: bool,
}

impl Marker {
    /// The batch, to be given its place in a log; its record was made at `timestamp`.
    pub fn batch(&self, timestamp: i64) -> Bytes {
        let mut key = BytesMut::with_capacity(4);
        key.put_i16(VERSION);
        key.put_i16(if self.commit { COMMIT } else { ABORT });
        let mut value = BytesMut::with_capacity(6);
        value.put_i16(VERSION);
        value.put_i32(self.coordinator_epoch);
        let (key, value) = (Some(key.freeze()), Some(value.freeze()));
        let record = Record { offset: 0, timestamp, key, value, headers: Vec::new() };
        let mut body = Vec::new();
        put_record(&mut body, &record, 0, 0);
        let mut bytes = vec![0; HEADER_LEN];
        build::put_varlong(&mut bytes, body.len() as i64);
        bytes.extend_from_slice(&body);
        let batch_length = (bytes.len() - LENGTH_OVERHEAD) as i32;
        if let Some((head, records)) = bytes.split_first_chunk_mut() {
            put(head, at::BATCH_LENGTH, batch_length.to_be_bytes());
            put(head, at::PARTITION_LEADER_EPOCH, (-1_i32).to_be_bytes());
            put(head, at::MAGIC, MAGIC.to_be_bytes());
            put(head, at::ATTRIBUTES, (TRANSACTIONAL | CONTROL).to_be_bytes());
            put(head, at::BASE_TIMESTAMP, timestamp.to_be_bytes());
            put(head, at::MAX_TIMESTAMP, timestamp.to_be_bytes());
            put(head, at::PRODUCER_ID, self.producer_id.to_be_bytes());
            put(head, at::PRODUCER_EPOCH, self.producer_epoch.to_be_bytes());
            put(head, at::BASE_SEQUENCE, NO_SEQUENCE.to_be_bytes());
            put(head, at::RECORDS_COUNT, 1_i32.to_be_bytes());
            put_crc(head, records);
        }
        bytes.into()
    }

    /// What a batch says of its producer's transaction; `None` where it is no control batch, or one of another kind.
    pub fn of(batch: &Bytes) -> Option<Marker> {
        let header = Header::parse(batch).ok()?;
        if !header.is_control() {
            return None;
        }
        let record = records(batch).ok()?.next()?.ok()?;
        let (mut key, mut value) = (record.key?, record.value?);
        let _version = key.try_get_i16().ok()?;
        let commit = match key.try_get_i16().ok()? {
            ABORT => false,
            COMMIT => true,
            _ => return None,
        };
        let _version = value.try_get_i16().ok()?;
        let coordinator_epoch = value.try_get_i32().ok()?;
        let Header { producer_id, producer_epoch, .. } = header;
        Some(Marker { producer_id, producer_epoch, coordinator_epoch, commit })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{encode, rules, three};
    use super::super::{BatchError, Codec, assemble, validate};
    use super::*;

    #[test]
    fn a_marker_reads_back_wherever_it_stands() {
        for commit in [true, false] {
            let marker = Marker { producer_id: 1 << 40, producer_epoch: 7, coordinator_epoch: 3, commit };
            let batch = marker.batch(1_234);
            assert_eq!(Marker::of(&batch), Some(marker));
            let stored = assemble(b"", &batch, 99, 5, Some(5_678));
            assert_eq!(Marker::of(&stored), Some(marker));
            let header = Header::parse(&stored).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.base_offset, header.last_offset(), header.base_sequence), (99, 99, -1));
            assert_eq!(header.crc, crc32c::crc32c(&stored[at::ATTRIBUTES..]));
        }
    }

    #[test]
    fn a_marker_is_kafkas_byte_for_byte() {
        let marker = Marker { producer_id: 9, producer_epoch: 1, coordinator_epoch: 2, commit: true };
        let batch = marker.batch(0);
        // Length 16, attributes, timestamp and offset deltas of 0, key of 4 bytes, value of 6, no headers.
        let record = [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 2, 0];
        assert_eq!(batch[HEADER_LEN..], record);
        assert_eq!(batch.len(), 78);
    }

    #[test]
    fn clients_may_not_write_one_and_no_other_batch_is_one() {
        let marker = Marker { producer_id: 9, producer_epoch: 1, coordinator_epoch: 2, commit: true };
        let rules = super::super::Rules { transactional: true, ..rules() };
        assert_eq!(validate(&marker.batch(0), &rules).err(), Some(BatchError::Control));
        assert_eq!(Marker::of(&encode(&three(), Codec::None)), None);
        assert_eq!(Marker::of(&Bytes::from_static(b"short")), None);
    }
}
