//! Judges a batch as it lies in the log: called by `inspect`, which believes nothing. What a client may send is
//! [`validate`](super::validate)'s; a stored batch may also be a marker, and compaction may have taken records out.

use std::ops::ControlFlow;

use super::error::{BatchError, RecordFault};
use super::header::{Header, at};
use super::{DECOMPRESSED_BYTES_MAX, walk};

/// Its checksum holds, and it has as many sound records as it says, each at an offset of its own that lies in it.
pub fn verify(batch: &[u8]) -> Result<Header, BatchError> {
    let header = Header::parse(batch)?;
    if header.total_len() < batch.len() {
        return Err(BatchError::BytesAfterBatch(batch.len() - header.total_len()));
    }
    let computed = crc32c::crc32c(batch.get(at::ATTRIBUTES..).unwrap_or_default());
    if header.crc != computed {
        return Err(BatchError::Crc { stored: header.crc, computed });
    }
    let Header { records_count, last_offset_delta, .. } = header;
    if last_offset_delta < 0 || !(0..=last_offset_delta.saturating_add(1)).contains(&records_count) {
        return Err(BatchError::Count { records_count, last_offset_delta });
    }
    let mut next = 0;
    walk::frames(&header, batch, DECOMPRESSED_BYTES_MAX, |_, frame| {
        if !(next..=last_offset_delta).contains(&frame.offset_delta) {
            return Err(RecordFault::OffsetDelta(frame.offset_delta));
        }
        next = frame.offset_delta.saturating_add(1);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{CODECS, encode, tampered, three};
    use super::super::{Codec, Filtered, Marker, assemble, emptied, filter};
    use super::*;

    #[test]
    fn what_the_log_holds_is_sound() {
        for codec in CODECS {
            let stored = assemble(b"", &encode(&three(), codec), 70, 3, Some(1_234));
            assert_eq!(verify(&stored).map(|header| header.base_offset), Ok(70));
            let Filtered::Part(less) = filter(&stored, 0, |record| record.offset == 71).unwrap() else {
                panic!("{codec}")
            };
            assert_eq!(verify(&less).map(|header| header.records_count), Ok(1), "{codec}");
            assert_eq!(verify(&emptied(&stored).unwrap()).map(|header| header.records_count), Ok(0));
        }
        let marker = Marker { producer_id: 9, producer_epoch: 1, coordinator_epoch: 2, commit: true };
        assert!(verify(&assemble(b"", &marker.batch(5), 8, 0, None)).is_ok());
    }

    #[test]
    fn every_flipped_byte_that_the_checksum_covers_is_noticed() {
        let stored = assemble(b"", &encode(&three(), Codec::None), 70, 3, None);
        for byte in at::ATTRIBUTES..stored.len() {
            let mut broken = stored.to_vec();
            broken[byte] ^= 1;
            assert!(matches!(verify(&broken), Err(BatchError::Crc { .. })), "byte {byte}");
        }
    }

    #[test]
    fn a_count_that_lies_is_noticed_though_the_checksum_holds() {
        let stored = encode(&three(), Codec::None);
        let with = |count: i32, delta: i32| {
            let lying = tampered(&stored, |bytes| {
                bytes[at::RECORDS_COUNT..at::RECORDS].copy_from_slice(&count.to_be_bytes());
                bytes[at::LAST_OFFSET_DELTA..at::BASE_TIMESTAMP].copy_from_slice(&delta.to_be_bytes());
            });
            verify(&lying).err()
        };
        assert_eq!(with(3, 2), None);
        assert_eq!(with(3, 9), None, "as compaction leaves it");
        assert!(matches!(with(3, 1), Some(BatchError::Count { .. })), "more records than offsets");
        assert!(matches!(with(2, 2), Some(BatchError::Record { .. })), "a record more than counted");
        assert!(matches!(with(-1, 2), Some(BatchError::Count { .. })));
        assert!(matches!(with(0, -1), Some(BatchError::Count { .. })));
    }
}
