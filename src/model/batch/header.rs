//! The 61 bytes before the records, and where one batch ends and the next begins.

use bytes::{Buf, Bytes};

use super::NO_PRODUCER_ID;
use super::codec::Codec;
use super::error::BatchError;
use crate::model::ids::Offset;
use crate::model::settings::TimestampType;

/// Where each field begins, in bytes from the start of the batch.
pub mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    /// The CRC covers the batch from here on.
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORDS_COUNT: usize = 57;
    pub const RECORDS: usize = 61;
}

/// Bytes before the records.
pub const HEADER_LEN: usize = at::RECORDS;

/// What `batch_length` does not count: itself and the base offset before it.
pub(super) const LENGTH_OVERHEAD: usize = at::PARTITION_LEADER_EPOCH;

/// Up to here a batch says how long it is and of which format.
const PROBE_LEN: usize = at::MAGIC + 1;

/// The only format there is.
pub(super) const MAGIC: i8 = 2;

pub(super) const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;

/// The fields before the records, as they stand in the bytes. Only the length and the magic have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub base_offset: Offset,
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

impl Header {
    /// Reads the header of the batch that `bytes` begins with. Whatever comes back `Ok` is whole: `bytes` holds at least
    /// [`Header::total_len`] bytes, which is at least [`HEADER_LEN`].
    pub fn parse(bytes: &[u8]) -> Result<Header, BatchError> {
        let total_len = probe(bytes)?;
        let Some(mut field) = bytes.get(..HEADER_LEN.min(total_len)).filter(|head| head.len() == HEADER_LEN) else {
            return Err(BatchError::Cut { have: bytes.len(), need: HEADER_LEN });
        };
        Ok(Header {
            base_offset: field.get_i64(),
            batch_length: field.get_i32(),
            partition_leader_epoch: field.get_i32(),
            magic: field.get_i8(),
            crc: field.get_u32(),
            attributes: field.get_i16(),
            last_offset_delta: field.get_i32(),
            base_timestamp: field.get_i64(),
            max_timestamp: field.get_i64(),
            producer_id: field.get_i64(),
            producer_epoch: field.get_i16(),
            base_sequence: field.get_i32(),
            records_count: field.get_i32(),
        })
    }

    /// Bytes of the whole batch.
    pub fn total_len(&self) -> usize {
        LENGTH_OVERHEAD + self.batch_length.max(0) as usize
    }

    /// The offset of the last record (of a compacted batch: of the last one it once had).
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    pub fn codec(&self) -> Result<Codec, BatchError> {
        let id = (self.attributes & CODEC_MASK) as u8;
        Codec::from_id(id).ok_or(BatchError::UnknownCodec(id))
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is the time from which tombstones may go (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// From when on the batch's tombstones, or the marker that it is, may go.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }
}

/// The total length of the batch that `bytes` begins with, all of which is there.
fn probe(bytes: &[u8]) -> Result<usize, BatchError> {
    if bytes.is_empty() {
        return Err(BatchError::NoBatch);
    }
    let Some(mut field) = bytes.get(at::BATCH_LENGTH..PROBE_LEN) else {
        return Err(BatchError::Cut { have: bytes.len(), need: HEADER_LEN });
    };
    let batch_length = field.get_i32();
    let _partition_leader_epoch = field.get_i32();
    let magic = field.get_i8();
    match magic {
        MAGIC => {}
        0 | 1 => return Err(BatchError::OldMagic(magic)),
        _ => return Err(BatchError::UnknownMagic(magic)),
    }
    let total_len = match usize::try_from(batch_length) {
        Ok(length) if length >= HEADER_LEN - LENGTH_OVERHEAD => LENGTH_OVERHEAD + length,
        _ => return Err(BatchError::Length(batch_length)),
    };
    if bytes.len() < total_len {
        return Err(BatchError::Cut { have: bytes.len(), need: total_len });
    }
    Ok(total_len)
}

/// Cuts a run of batches, as a Fetch answer carries them, into single ones without copying. Ends after the first error;
/// a batch cut at the end, which Kafka allows in a Fetch answer, is such an error.
pub fn split(records: &Bytes) -> Split {
    Split { rest: records.clone() }
}

/// See [`split`].
pub struct Split {
    rest: Bytes,
}

impl Iterator for Split {
    type Item = Result<Bytes, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match probe(&self.rest) {
            Ok(total_len) => Some(Ok(self.rest.split_to(total_len))),
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

/// The one batch that a Produce request of version 3 or later may carry for a partition. `zstd_allowed` is false below
/// version 7. Unlike Kafka, which drops a second batch that is cut and acknowledges the first, any byte too much refuses
/// the request: half of what a client wrote must not vanish silently.
pub fn single_batch(records: &Bytes, zstd_allowed: bool) -> Result<Bytes, BatchError> {
    let header = Header::parse(records)?;
    if header.total_len() < records.len() {
        return Err(BatchError::BytesAfterBatch(records.len() - header.total_len()));
    }
    if !zstd_allowed && header.codec()? == Codec::Zstd {
        return Err(BatchError::ZstdNotAllowed);
    }
    Ok(records.clone())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{CODECS, encode, tampered, three};
    use super::super::{BatchError, ErrorKind};
    use super::*;

    #[test]
    fn fields_are_read_from_where_they_are() {
        let bytes: Vec<u8> = [
            &1i64.to_be_bytes()[..],
            &49i32.to_be_bytes(),
            &2i32.to_be_bytes(),
            &[2],
            &3u32.to_be_bytes(),
            &0x0033i16.to_be_bytes(),
            &4i32.to_be_bytes(),
            &5i64.to_be_bytes(),
            &6i64.to_be_bytes(),
            &7i64.to_be_bytes(),
            &8i16.to_be_bytes(),
            &9i32.to_be_bytes(),
            &10i32.to_be_bytes(),
        ]
        .concat();
        let header = Header::parse(&bytes).unwrap();
        let expected = Header {
            base_offset: 1,
            batch_length: 49,
            partition_leader_epoch: 2,
            magic: 2,
            crc: 3,
            attributes: 0x33,
            last_offset_delta: 4,
            base_timestamp: 5,
            max_timestamp: 6,
            producer_id: 7,
            producer_epoch: 8,
            base_sequence: 9,
            records_count: 10,
        };
        assert_eq!(header, expected);
        assert_eq!((header.total_len(), header.last_offset()), (61, 5));
        assert_eq!(header.codec(), Ok(Codec::Lz4));
        assert!(header.is_transactional() && header.is_control() && header.has_producer_id());
        assert!(!header.has_delete_horizon());
        assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
        assert_eq!(Header { attributes: 7, ..header }.codec(), Err(BatchError::UnknownCodec(7)));
        assert!(Header { attributes: 0x40, ..header }.has_delete_horizon());
        assert_eq!(Header { attributes: 8, ..header }.timestamp_type(), TimestampType::LogAppendTime);
        for len in 1..bytes.len() {
            assert!(matches!(Header::parse(&bytes[..len]), Err(BatchError::Cut { .. })), "{len}");
        }
    }

    #[test]
    fn hostile_lengths_and_old_magics_are_told_apart() {
        let batch = encode(&three(), Codec::None);
        let with = |at: usize, field: &[u8]| {
            let mut bytes = batch.to_vec();
            bytes[at..at + field.len()].copy_from_slice(field);
            Header::parse(&bytes).map_err(|error| (error.kind(), error))
        };
        for length in [-1, i32::MIN, 0, 48] {
            let error = (ErrorKind::Corrupt, BatchError::Length(length));
            assert_eq!(with(at::BATCH_LENGTH, &length.to_be_bytes()), Err(error));
        }
        let (have, need) = (batch.len(), i32::MAX as usize + LENGTH_OVERHEAD);
        let error = (ErrorKind::InvalidRecord, BatchError::Cut { have, need });
        assert_eq!(with(at::BATCH_LENGTH, &i32::MAX.to_be_bytes()), Err(error));
        for (magic, kind) in [
            (0, ErrorKind::InvalidRecord),
            (1, ErrorKind::InvalidRecord),
            (3, ErrorKind::Corrupt),
            (-1, ErrorKind::Corrupt),
        ] {
            assert_eq!(with(at::MAGIC, &i8::to_be_bytes(magic)).unwrap_err().0, kind, "magic {magic}");
        }
        assert_eq!(Header::parse(&[]), Err(BatchError::NoBatch));
    }

    #[test]
    fn a_produce_request_carries_exactly_one_batch() {
        let batch = encode(&three(), Codec::None);
        assert_eq!(single_batch(&batch, true), Ok(batch.clone()));
        let two = Bytes::from([&batch[..], &batch[..]].concat());
        assert_eq!(single_batch(&two, true), Err(BatchError::BytesAfterBatch(batch.len())));
        assert_eq!(single_batch(&two.slice(..batch.len() + 1), true), Err(BatchError::BytesAfterBatch(1)));
        assert_eq!(single_batch(&Bytes::new(), true), Err(BatchError::NoBatch));
        for codec in CODECS {
            let single = single_batch(&encode(&three(), codec), false);
            assert_eq!(single.err(), (codec == Codec::Zstd).then_some(BatchError::ZstdNotAllowed));
        }
        let unknown = tampered(&batch, |bytes| bytes[at::ATTRIBUTES + 1] = 6);
        assert_eq!(single_batch(&unknown, false), Err(BatchError::UnknownCodec(6)));
    }

    #[test]
    fn a_run_of_batches_is_split_where_they_end() {
        let batches = CODECS.map(|codec| encode(&three(), codec));
        let run = Bytes::from(batches.concat());
        assert_eq!(split(&run).collect::<Result<Vec<_>, _>>().unwrap(), batches);
        let cut = split(&run.slice(..run.len() - 1)).collect::<Vec<_>>();
        assert_eq!(cut.len(), 5);
        assert!(cut[..4].iter().all(Result::is_ok));
        assert!(matches!(cut[4], Err(BatchError::Cut { .. })));
    }
}
