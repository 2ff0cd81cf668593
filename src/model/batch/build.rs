//! Encodes batches: from records, or from another batch's records in another codec.

use std::io::{self, BufRead, Write};

use bytes::{BufMut, Bytes};

use super::assemble::{put, put_crc};
use super::codec::{self, Compressor};
use super::error::BatchError;
use super::header::{CODEC_MASK, HEADER_LEN, Header, LENGTH_OVERHEAD, MAGIC, TRANSACTIONAL, at};
use super::records::Record;
use super::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP};

/// The largest batch whose length its own field can tell.
const BATCH_BYTES_MAX: usize = i32::MAX as usize;

/// How a batch is encoded, apart from its records.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub compressor: Compressor,
    pub producer: Option<Producer>,
}

/// Who wrote a batch, and as which of its batches to the partition.
#[derive(Clone, Copy, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
}

/// Encodes `records` as a client would: base offset 0, no leader epoch, consecutive offsets whatever the records say.
/// Fails without records and beyond 2 GiB.
pub fn build(records: &[Record], options: &Options) -> Result<Bytes, BatchError> {
    let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
    let Some(first) = records.first() else {
        return Err(BatchError::Count { records_count: 0, last_offset_delta: -1 });
    };
    let mut body = Vec::new();
    let mut stream = Vec::new();
    for (record, offset_delta) in records.iter().zip(0..count) {
        body.clear();
        put_record(&mut body, record, record.timestamp.wrapping_sub(first.timestamp), offset_delta);
        put_varlong(&mut stream, body.len() as i64);
        stream.put_slice(&body);
    }
    let producer = options.producer;
    let header = Header {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        magic: MAGIC,
        crc: 0,
        attributes: if producer.is_some_and(|producer| producer.transactional) { TRANSACTIONAL } else { 0 },
        last_offset_delta: count - 1,
        base_timestamp: first.timestamp,
        max_timestamp: records.iter().map(|record| record.timestamp).fold(NO_TIMESTAMP, i64::max),
        producer_id: producer.map_or(NO_PRODUCER_ID, |producer| producer.id),
        producer_epoch: producer.map_or(NO_PRODUCER_EPOCH, |producer| producer.epoch),
        base_sequence: producer.map_or(NO_SEQUENCE, |producer| producer.base_sequence),
        records_count: count,
    };
    seal(&header, options.compressor, &stream[..], BATCH_BYTES_MAX)
}

pub(super) fn put_record(body: &mut Vec<u8>, record: &Record, timestamp_delta: i64, offset_delta: i32) {
    const ATTRIBUTES: u8 = 0;
    body.put_u8(ATTRIBUTES);
    put_varlong(body, timestamp_delta);
    put_varlong(body, i64::from(offset_delta));
    put_nullable(body, record.key.as_deref());
    put_nullable(body, record.value.as_deref());
    put_varlong(body, record.headers.len() as i64);
    for header in &record.headers {
        put_nullable(body, Some(&header.key));
        put_nullable(body, header.value.as_deref());
    }
}

fn put_nullable(body: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varlong(body, bytes.map_or(-1, |bytes| bytes.len() as i64));
    body.put_slice(bytes.unwrap_or_default());
}

/// Zigzag; a value of 32 bits has the same bytes as a varint and as a varlong.
pub(super) fn put_varlong(body: &mut Vec<u8>, value: i64) {
    let mut raw = (value << 1 ^ value >> 63) as u64;
    while raw >= 0x80 {
        body.put_u8(raw as u8 | 0x80);
        raw >>= 7;
    }
    body.put_u8(raw as u8);
}

/// A batch with the fields of `header` around the records that `stream` holds uncompressed, in another codec: its length,
/// codec and checksum are set anew. Fails above `max` bytes.
pub(super) fn seal(
    header: &Header,
    compressor: Compressor,
    stream: impl BufRead,
    max: usize,
) -> Result<Bytes, BatchError> {
    let mut batch = Bounded { bytes: vec![0; HEADER_LEN], max: max.min(BATCH_BYTES_MAX), refused: 0 };
    let written = codec::compress(compressor, stream, &mut batch);
    if batch.refused > 0 {
        return Err(BatchError::TooLarge { size: batch.bytes.len() + batch.refused, max });
    }
    let failed = |error: io::Error| BatchError::Compress { codec: compressor.codec(), reason: error.to_string() };
    written.map_err(failed)?;
    let mut bytes = batch.bytes;
    let batch_length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    if let Some((head, records)) = bytes.split_first_chunk_mut() {
        let attributes = header.attributes & !CODEC_MASK | i16::from(compressor.codec().id());
        put(head, at::BASE_OFFSET, header.base_offset.to_be_bytes());
        put(head, at::BATCH_LENGTH, batch_length.to_be_bytes());
        put(head, at::PARTITION_LEADER_EPOCH, header.partition_leader_epoch.to_be_bytes());
        put(head, at::MAGIC, header.magic.to_be_bytes());
        put(head, at::ATTRIBUTES, attributes.to_be_bytes());
        put(head, at::LAST_OFFSET_DELTA, header.last_offset_delta.to_be_bytes());
        put(head, at::BASE_TIMESTAMP, header.base_timestamp.to_be_bytes());
        put(head, at::MAX_TIMESTAMP, header.max_timestamp.to_be_bytes());
        put(head, at::PRODUCER_ID, header.producer_id.to_be_bytes());
        put(head, at::PRODUCER_EPOCH, header.producer_epoch.to_be_bytes());
        put(head, at::BASE_SEQUENCE, header.base_sequence.to_be_bytes());
        put(head, at::RECORDS_COUNT, header.records_count.to_be_bytes());
        put_crc(head, records);
    }
    Ok(bytes.into())
}

/// Takes what fits into `max` bytes and refuses the rest, so that inflating a bomb into another codec stays small.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    /// Bytes of the write that did not fit.
    refused: usize,
}

impl Write for &mut Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.max {
            self.refused = piece.len();
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{CODECS, NOW_MS, record, rules, three};
    use super::super::{Codec, validate};
    use super::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        let batch = build(
            &[record(0, 1_000, Some("k"), Some("value")), record(1, 998, None, None)],
            &Options { compressor: Compressor::None, producer: None },
        )
        .unwrap();
        let expected = [
            &0i64.to_be_bytes()[..],
            &69i32.to_be_bytes(),
            &(-1i32).to_be_bytes(),
            &[2],
            &batch[at::CRC..at::ATTRIBUTES],
            &0i16.to_be_bytes(),
            &1i32.to_be_bytes(),
            &1_000i64.to_be_bytes(),
            &1_000i64.to_be_bytes(),
            &(-1i64).to_be_bytes(),
            &(-1i16).to_be_bytes(),
            &(-1i32).to_be_bytes(),
            &2i32.to_be_bytes(),
            // Lengths and deltas are zigzag: 12 bytes, deltas 0 and 0, a key of 1, a value of 5, no headers.
            &[24, 0, 0, 0, 2, b'k', 10, b'v', b'a', b'l', b'u', b'e', 0],
            // 6 bytes, timestamp delta -2, offset delta 1, null, null.
            &[12, 0, 3, 2, 1, 1, 0],
        ]
        .concat();
        assert_eq!(batch, expected);
        assert_eq!(Header::parse(&batch).unwrap().crc, crc32c::crc32c(&batch[at::ATTRIBUTES..]));
    }

    #[test]
    fn a_producers_fields_are_written() {
        let producer = Producer { id: 4_711, epoch: 3, base_sequence: 17, transactional: true };
        for codec in CODECS {
            let options = Options { compressor: Compressor::of(codec), producer: Some(producer) };
            let batch = build(&three(), &options).unwrap();
            let validated = validate(&batch, &super::super::Rules { transactional: true, ..rules() }).unwrap();
            assert_eq!((validated.producer_id, validated.producer_epoch, validated.base_sequence), (4_711, 3, 17));
            assert!(validated.is_transactional);
            assert_eq!((validated.max_timestamp, validated.offset_delta_of_max_timestamp), (NOW_MS + 5, 1));
        }
    }

    #[test]
    fn a_batch_of_nothing_or_of_too_much_is_refused() {
        let options = Options { compressor: Compressor::None, producer: None };
        assert!(matches!(build(&[], &options), Err(BatchError::Count { .. })));
        let header = Header::parse(&build(&three(), &options).unwrap()).unwrap();
        for codec in CODECS {
            let sealed = seal(&header, Compressor::of(codec), &[0; 200_000][..], 65);
            assert!(matches!(sealed, Err(BatchError::TooLarge { max: 65, .. })), "{codec}: {sealed:?}");
        }
        assert_eq!(seal(&header, Compressor::of(Codec::None), &[0; 39][..], 100).map(|batch| batch.len()), Ok(100));
    }
}
