//! Takes records out of a batch, for compaction. What is left stands where it stood: offsets, times, producer, codec and
//! the span of offsets that the batch covers stay, so that no reader and no producer's sequence notices more than that
//! records are missing.
//!
//! A batch that holds tombstones says since when they may go, its *delete horizon*, in the place of its base timestamp;
//! a bit of the attributes tells so, and the records' timestamps are counted from there (KIP-534).
//!
//! Called by `broker::compaction` with batches that were validated when they came.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::NO_TIMESTAMP;
use super::build::{put_record, put_varlong, seal};
use super::codec::{Codec, Compressor};
use super::error::BatchError;
use super::header::{DELETE_HORIZON, HEADER_LEN, Header};
use super::records::{Record, Records, records};

/// What is to become of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// It stays as it is.
    Whole,
    /// This stays.
    Part(Bytes),
    /// Nothing stays.
    Nothing,
}

/// Takes the records out of `batch` that `keep` refuses; it is asked twice of every record and must answer the same.
/// Where tombstones stay and no horizon is set yet, `horizon_ms` becomes it.
pub fn filter(batch: &Bytes, horizon_ms: i64, keep: impl Fn(&Record) -> bool) -> Result<Filtered, BatchError> {
    let header = Header::parse(batch)?;
    let mut left = Left::default();
    for record in records(batch)? {
        let record = record?;
        if keep(&record) {
            left.take(&record, horizon_ms);
        }
    }
    if left.count == 0 {
        return Ok(Filtered::Nothing);
    }
    let horizon_ms = Some(horizon_ms).filter(|_| header.delete_horizon_ms().is_none() && left.wants_horizon());
    if left.count == header.records_count && horizon_ms.is_none() {
        return Ok(Filtered::Whole);
    }
    rebuild(batch, &header, &left, horizon_ms, keep).map(Filtered::Part)
}

/// The batch with all its records and a delete horizon: for a transaction's marker. As it was where it has one already.
pub fn with_delete_horizon(batch: &Bytes, horizon_ms: i64) -> Result<Bytes, BatchError> {
    let header = Header::parse(batch)?;
    let mut left = Left::default();
    for record in records(batch)? {
        left.take(&record?, horizon_ms);
    }
    match header.delete_horizon_ms().is_some() || left.is_beyond_horizon {
        true => Ok(batch.clone()),
        false => rebuild(batch, &header, &left, Some(horizon_ms), |_| true),
    }
}

/// The batch without any record, which keeps its place in the log and what it says of its producer.
pub fn emptied(batch: &[u8]) -> Result<Bytes, BatchError> {
    let header = Header::parse(batch)?;
    let empty = Header {
        attributes: header.attributes & !DELETE_HORIZON,
        base_timestamp: NO_TIMESTAMP,
        max_timestamp: NO_TIMESTAMP,
        records_count: 0,
        ..header
    };
    seal(&empty, Compressor::of(Codec::None), io::empty(), HEADER_LEN)
}

/// What is known of the records that stay.
struct Left {
    count: i32,
    max_timestamp: i64,
    has_tombstones: bool,
    /// A record's time is too far from the horizon to be told as a distance from it. Such tombstones never go.
    is_beyond_horizon: bool,
}

impl Default for Left {
    fn default() -> Left {
        Left { count: 0, max_timestamp: NO_TIMESTAMP, has_tombstones: false, is_beyond_horizon: false }
    }
}

impl Left {
    fn take(&mut self, record: &Record, horizon_ms: i64) {
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.has_tombstones |= record.value.is_none();
        self.is_beyond_horizon |= record.timestamp.checked_sub(horizon_ms).is_none();
    }

    fn wants_horizon(&self) -> bool {
        self.has_tombstones && !self.is_beyond_horizon
    }
}

fn rebuild(
    batch: &Bytes,
    header: &Header,
    left: &Left,
    horizon_ms: Option<i64>,
    keep: impl Fn(&Record) -> bool,
) -> Result<Bytes, BatchError> {
    let base_timestamp = horizon_ms.unwrap_or(header.base_timestamp);
    let rebuilt = Header {
        attributes: header.attributes | horizon_ms.map_or(0, |_| DELETE_HORIZON),
        base_timestamp,
        max_timestamp: left.max_timestamp,
        records_count: left.count,
        ..*header
    };
    let stream =
        Encoded { records: records(batch)?, header: rebuilt, keep, piece: Vec::new(), body: Vec::new(), read: 0 };
    seal(&rebuilt, Compressor::of(header.codec()?), stream, i32::MAX as usize)
}

/// The records that stay, encoded one after the other as they are read: no more than one is held.
struct Encoded<F> {
    records: Records,
    header: Header,
    keep: F,
    /// A record with its length, and how much of it was read.
    piece: Vec<u8>,
    read: usize,
    body: Vec<u8>,
}

impl<F: Fn(&Record) -> bool> Encoded<F> {
    fn refill(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.read = 0;
        for record in self.records.by_ref() {
            let record = record.map_err(io::Error::other)?;
            if !(self.keep)(&record) {
                continue;
            }
            let Header { base_offset, base_timestamp, .. } = self.header;
            self.body.clear();
            let offset_delta = record.offset.wrapping_sub(base_offset) as i32;
            put_record(&mut self.body, &record, record.timestamp.wrapping_sub(base_timestamp), offset_delta);
            put_varlong(&mut self.piece, self.body.len() as i64);
            self.piece.extend_from_slice(&self.body);
            break;
        }
        Ok(())
    }
}

impl<F: Fn(&Record) -> bool> Read for Encoded<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<F: Fn(&Record) -> bool> BufRead for Encoded<F> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read >= self.piece.len() {
            self.refill()?;
        }
        Ok(self.piece.get(self.read..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.read += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{CODECS, NOW_MS, decode, encode, record, three};
    use super::super::{Options, Producer, RecordHeader, assemble, at, build};
    use super::*;
    use crate::model::settings::TimestampType;

    const HORIZON_MS: i64 = NOW_MS + 86_400_000;

    /// As it lies in the log.
    fn stored(records: &[Record], codec: Codec) -> Bytes {
        let producer = Some(Producer { id: 7, epoch: 2, base_sequence: 40, transactional: true });
        let batch = build(records, &Options { compressor: Compressor::of(codec), producer }).unwrap();
        assemble(b"", &batch, 500, 3, None)
    }

    fn part(filtered: Result<Filtered, BatchError>) -> Bytes {
        match filtered {
            Ok(Filtered::Part(batch)) => batch,
            other => panic!("{other:?}"),
        }
    }

    fn crc_is_right(batch: &Bytes) -> bool {
        Header::parse(batch).unwrap().crc == crc32c::crc32c(&batch[at::ATTRIBUTES..])
    }

    /// Everything that must not change.
    fn fixed(batch: &Bytes) -> Header {
        let header = Header::parse(batch).unwrap();
        let attributes = header.attributes & !DELETE_HORIZON;
        Header { crc: 0, batch_length: 0, base_timestamp: 0, max_timestamp: 0, records_count: 0, attributes, ..header }
    }

    #[test]
    fn a_batch_that_loses_nothing_or_everything_is_told() {
        for codec in CODECS {
            let keyed = [record(0, NOW_MS, Some("k"), Some("v")), record(1, NOW_MS, Some("l"), Some("v"))];
            let batch = stored(&keyed, codec);
            assert_eq!(filter(&batch, HORIZON_MS, |_| true), Ok(Filtered::Whole));
            assert_eq!(filter(&batch, HORIZON_MS, |_| false), Ok(Filtered::Nothing));
        }
    }

    #[test]
    fn a_tombstone_gets_its_horizon_once_and_keeps_its_time() {
        for codec in CODECS {
            let batch = stored(&three(), codec);
            let set = part(filter(&batch, HORIZON_MS, |_| true));
            assert_eq!(Header::parse(&set).unwrap().delete_horizon_ms(), Some(HORIZON_MS));
            assert_eq!((decode(&set), fixed(&set)), (decode(&batch), fixed(&batch)), "{codec}");
            assert!(crc_is_right(&set));
            assert_eq!(filter(&set, HORIZON_MS + 1, |_| true), Ok(Filtered::Whole));
            // It stays when another record goes, and a batch of values needs none.
            let fewer = part(filter(&set, HORIZON_MS + 1, |record| record.offset != 500));
            assert_eq!(Header::parse(&fewer).unwrap().delete_horizon_ms(), Some(HORIZON_MS));
            assert_eq!(decode(&fewer), decode(&batch)[1..]);
            let values = part(filter(&batch, HORIZON_MS, |record| record.value.is_some()));
            assert_eq!(Header::parse(&values).unwrap().delete_horizon_ms(), None);
        }
    }

    #[test]
    fn a_time_that_cannot_be_told_from_the_horizon_is_kept() {
        let batch = stored(&[record(0, i64::MIN + 5, Some("k"), None)], Codec::None);
        assert_eq!(filter(&batch, HORIZON_MS, |_| true), Ok(Filtered::Whole));
        assert_eq!(with_delete_horizon(&batch, HORIZON_MS), Ok(batch.clone()));
    }

    #[test]
    fn a_marker_gets_a_horizon_too() {
        let batch = stored(&[record(0, NOW_MS, Some("k"), Some("v"))], Codec::None);
        let set = with_delete_horizon(&batch, HORIZON_MS).unwrap();
        assert_eq!(Header::parse(&set).unwrap().delete_horizon_ms(), Some(HORIZON_MS));
        assert_eq!((decode(&set), fixed(&set), crc_is_right(&set)), (decode(&batch), fixed(&batch), true));
        assert_eq!(with_delete_horizon(&set, 5), Ok(set.clone()));
    }

    #[test]
    fn an_emptied_batch_keeps_its_place_and_its_producer() {
        for codec in CODECS {
            let batch = stored(&three(), codec);
            for batch in [batch.clone(), part(filter(&batch, HORIZON_MS, |_| true))] {
                let empty = emptied(&batch).unwrap();
                assert_eq!((empty.len(), decode(&empty), crc_is_right(&empty)), (HEADER_LEN, vec![], true));
                let (before, after) = (fixed(&batch), fixed(&empty));
                assert_eq!(Header { attributes: before.attributes & !7, ..before }, after);
                let header = Header::parse(&empty).unwrap();
                assert_eq!((header.max_timestamp, header.delete_horizon_ms()), (NO_TIMESTAMP, None));
                assert_eq!(filter(&empty, HORIZON_MS, |_| true), Ok(Filtered::Nothing));
            }
        }
    }

    #[test]
    fn under_log_append_time_the_brokers_time_stays() {
        for codec in CODECS {
            let batch = assemble(b"", &encode(&three(), codec), 50, 0, Some(9_000));
            let left = part(filter(&batch, 12_000, |record| record.offset != 50));
            assert_eq!(Header::parse(&left).unwrap().timestamp_type(), TimestampType::LogAppendTime);
            assert_eq!(decode(&left), decode(&batch)[1..]);
            assert_eq!(Header::parse(&left).unwrap().max_timestamp, 9_000);
        }
    }

    #[test]
    fn a_batch_that_does_not_read_is_an_error() {
        let batch = stored(&three(), Codec::Gzip);
        let cut = super::super::samples::tampered(&batch, |bytes| bytes.truncate(bytes.len() - 9));
        assert!(filter(&cut, HORIZON_MS, |_| true).is_err());
    }

    proptest! {
        #[test]
        fn exactly_what_is_kept_comes_back(
            shapes in prop::collection::vec((-1_000_000i64..1_000, 0u8..4, 0usize..60, any::<bool>()), 1..40),
            codec in 0u8..5,
        ) {
            let codec = Codec::from_id(codec).unwrap();
            let text = |len: usize| Bytes::from(vec![b'a'; len]);
            let records: Vec<Record> = (0..).zip(&shapes).map(|(offset, (time, shape, len, _))| Record {
                offset,
                timestamp: NOW_MS + time,
                key: (*shape != 0).then(|| text(*len)),
                value: (*shape != 1).then(|| text(len * 30)),
                headers: (*shape == 2).then(|| RecordHeader { key: text(*len), value: None }).into_iter().collect(),
            }).collect();
            let batch = stored(&records, codec);
            let stays = |record: &Record| shapes[(record.offset - 500) as usize].3;
            let wanted: Vec<Record> = decode(&batch).into_iter().filter(stays).collect();
            let left = match filter(&batch, HORIZON_MS, stays).unwrap() {
                Filtered::Whole => batch.clone(),
                Filtered::Part(left) => left,
                Filtered::Nothing => {
                    prop_assert!(wanted.is_empty());
                    return Ok(());
                }
            };
            let header = Header::parse(&left).unwrap();
            prop_assert_eq!(header.max_timestamp, wanted.iter().map(|record| record.timestamp).max().unwrap());
            prop_assert_eq!(header.records_count as usize, wanted.len());
            prop_assert_eq!(header.has_delete_horizon(), wanted.iter().any(|record| record.value.is_none()));
            prop_assert_eq!(decode(&left), wanted);
            prop_assert_eq!(fixed(&left), fixed(&batch));
            prop_assert!(crc_is_right(&left));
            prop_assert!(left.len() <= batch.len() || codec != Codec::None || header.has_delete_horizon());
            prop_assert_eq!(filter(&left, HORIZON_MS, stays), Ok(Filtered::Whole));
        }
    }
}
