//! Batches for the tests of this folder.

use bytes::{BufMut, Bytes};

use super::assemble::put_crc;
use super::*;
use crate::model::ids::Offset;
use crate::model::settings;

pub(super) const NOW_MS: i64 = 1_700_000_000_000;

pub(super) const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

pub(super) fn rules() -> Rules {
    Rules {
        max_message_bytes: 1 << 20,
        timestamp_type: settings::TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        now_ms: NOW_MS,
        compression: settings::Compression::Producer,
        require_keys: false,
        transactional: false,
    }
}

pub(super) fn record(offset: Offset, timestamp: i64, key: Option<&'static str>, value: Option<&'static str>) -> Record {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Record { offset, timestamp, key: key.map(bytes), value: value.map(bytes), headers: Vec::new() }
}

/// Three records: everything set, everything null, everything empty; the second is the latest.
pub(super) fn three() -> Vec<Record> {
    let mut records = vec![
        record(
            0,
            NOW_MS - 10,
            Some("carrier"),
            Some("the value of a record, the value of a record, the value of a record"),
        ),
        record(1, NOW_MS + 5, None, None),
        record(2, NOW_MS - 7, Some(""), Some("")),
    ];
    records[0]
        .headers
        .push(RecordHeader { key: Bytes::from_static(b"origin"), value: Some(Bytes::from_static(b"EWR")) });
    records[2].headers.push(RecordHeader { key: Bytes::new(), value: None });
    records
}

pub(super) fn encode(records: &[Record], codec: Codec) -> Bytes {
    build(records, &Options { compressor: Compressor::of(codec), producer: None }).unwrap()
}

pub(super) fn decode(batch: &Bytes) -> Vec<Record> {
    records(batch).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The batch with some bytes changed and everything sound again around them: length and CRC.
pub(super) fn tampered(batch: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let length = (bytes.len() - header::LENGTH_OVERHEAD) as i32;
    bytes[at::BATCH_LENGTH..at::PARTITION_LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
    let (head, records) = bytes.split_first_chunk_mut().unwrap();
    put_crc(head, records);
    bytes.into()
}

/// A batch of one claimed record around a stream of bytes that need not be one.
pub(super) fn around(stream: &[u8], records_count: i32, codec: Codec) -> Bytes {
    let mut packed = Vec::new();
    codec::compress(Compressor::of(codec), stream, &mut packed).unwrap();
    tampered(&encode(&three(), codec), |bytes| {
        bytes.truncate(at::LAST_OFFSET_DELTA);
        bytes.put_i32(records_count - 1);
        bytes.put_i64(NOW_MS);
        bytes.put_i64(NOW_MS);
        bytes.put_i64(NO_PRODUCER_ID);
        bytes.put_i16(NO_PRODUCER_EPOCH);
        bytes.put_i32(NO_SEQUENCE);
        bytes.put_i32(records_count);
        bytes.put_slice(&packed);
    })
}

/// Bytes of a varint, as [`build`] writes them.
pub(super) fn varint(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    build::put_varlong(&mut bytes, value);
    bytes
}
