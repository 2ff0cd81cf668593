//! Record batches as others write and read them: Java's and kafka-python's encoders (files made once), and the codec crate.

use std::fs;
use std::path::Path;

use anabranch::model::batch::{self, Codec, Compressor, Header, Options, Producer, Record, RecordHeader, Rules};
use anabranch::model::settings::{Compression, TimestampType};
use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCompression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType as TheirTimestampType,
};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

const RULES: Rules = Rules {
    max_message_bytes: 1 << 20,
    timestamp_type: TimestampType::CreateTime,
    before_max_ms: i64::MAX,
    after_max_ms: 3_600_000,
    now_ms: 1_700_000_000_000,
    compression: Compression::Producer,
    require_keys: false,
    transactional: false,
};

fn header(key: &'static str, value: Option<&'static str>) -> RecordHeader {
    RecordHeader { key: key.into(), value: value.map(Bytes::from) }
}

/// What the files hold.
fn expected() -> Vec<Record> {
    let record = |offset, timestamp, key: Option<&'static str>, value: Option<Bytes>, headers| Record {
        offset,
        timestamp,
        key: key.map(Bytes::from),
        value,
        headers,
    };
    vec![
        record(0, 1_700_000_000_000, Some("UA"), Some("flight 1545".into()), vec![header("origin", Some("EWR"))]),
        record(1, 1_700_000_000_007, None, None, vec![]),
        record(
            2,
            1_699_999_999_995,
            Some(""),
            Some(vec![b'x'; 2_000].into()),
            vec![header("note", None), header("note", Some(""))],
        ),
    ]
}

fn decode(batch: &Bytes) -> Vec<Record> {
    batch::records(batch).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn batches_of_other_encoders_are_valid_and_read_in_full() {
    for writer in ["java", "kafka-python"] {
        for codec in CODECS {
            let name = format!("fuzz/seeds/record_batch/{writer}-{codec}");
            let batch = Bytes::from(fs::read(&name).unwrap());
            let validated = batch::validate(&batch, &RULES).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(validated.rewritten.is_none(), "{name}");
            assert_eq!((validated.producer_id, validated.producer_epoch, validated.base_sequence), (4_711, 2, 9));
            assert_eq!((validated.max_timestamp, validated.offset_delta_of_max_timestamp), (1_700_000_000_007, 1));
            assert_eq!(Header::parse(&batch).unwrap().codec(), Ok(codec));
            assert_eq!(decode(&batch), expected(), "{name}");
        }
    }
}

#[test]
fn an_uncompressed_batch_is_the_same_bytes_whoever_builds_it() {
    let producer = Some(Producer { id: 4_711, epoch: 2, base_sequence: 9, transactional: false });
    let built = batch::build(&expected(), &Options { compressor: Compressor::None, producer }).unwrap();
    let folder = Path::new("fuzz/seeds/record_batch");
    // kafka-python writes 0 where the others write -1 for the leader epoch, which the broker sets.
    let stored = |batch: &[u8]| batch::assemble(&[], batch, 0, 0, None);
    for writer in ["java-none", "kafka-python-none"] {
        assert_eq!(stored(&fs::read(folder.join(writer)).unwrap()), stored(&built), "{writer}");
    }
}

#[test]
fn the_codec_crate_reads_what_is_built_and_what_is_stored() {
    let built = batch::build(&expected(), &Options { compressor: Compressor::None, producer: None }).unwrap();
    let stored = batch::assemble(&[], &built, 500, 4, None);
    let theirs = RecordBatchDecoder::decode(&mut stored.clone()).unwrap().records;
    assert_eq!(theirs.len(), 3);
    for (their, our) in theirs.iter().zip(expected()) {
        assert_eq!((their.offset, their.timestamp), (500 + our.offset, our.timestamp));
        assert_eq!((&their.key, &their.value), (&our.key, &our.value));
        assert_eq!(their.partition_leader_epoch, 4);
    }
    assert_eq!(theirs[0].headers.get("origin".as_bytes()), Some(&Some(Bytes::from("EWR"))));
}

#[test]
fn what_the_codec_crate_writes_is_valid() {
    let theirs: Vec<TheirRecord> = expected()
        .into_iter()
        .map(|record| TheirRecord {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TheirTimestampType::Creation,
            offset: record.offset,
            // The crate opens a new batch where sequences are not consecutive.
            sequence: record.offset as i32,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: IndexMap::from([(StrBytes::from_static_str("origin"), Some(Bytes::from("EWR")))]),
        })
        .collect();
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: TheirCompression::None };
    RecordBatchEncoder::encode(&mut batch, &theirs, &options).unwrap();
    let batch = batch.freeze();
    batch::validate(&batch, &RULES).unwrap();
    let ours = decode(&batch);
    for (our, their) in ours.iter().zip(&theirs) {
        assert_eq!((our.offset, our.timestamp), (their.offset, their.timestamp));
        assert_eq!((&our.key, &our.value), (&their.key, &their.value));
        assert_eq!(our.headers, [header("origin", Some("EWR"))]);
    }
    assert_eq!(ours.len(), 3);
}
