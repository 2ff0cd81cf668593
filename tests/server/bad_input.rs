//! What strangers send: each gets Kafka's own error or a closed connection, and nobody else notices.

use anabranch::kafka::TABLE;
use anabranch::model::batch::{Codec, at};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest, ProduceRequest};

use crate::harness::{Broker, Client, NOW_MS, PRODUCE, batch, batch_at, fetch, frame, metrics, produce};
use crate::samples;

const REFUSED: &str = "anabranch_kafka_connections_refused_total";

/// A frame with a length, API key and version of its own.
fn raw(length: i32, key: i16, version: i16, rest: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], &key.to_be_bytes(), &version.to_be_bytes(), rest].concat()
}

async fn is_well(client: &mut Client) {
    assert_eq!(client.call(ApiVersionsRequest::default(), 0).await.error_code, 0);
}

#[tokio::test]
async fn what_cannot_be_answered_closes_its_own_connection_only() {
    let broker = Broker::with(|config| config.request_bytes_max = 32 << 20).await;
    broker.create_topic("t", 1).await;
    let mut well = broker.connect().await;
    let valid = frame(&produce("t", 0, batch(&["v"]), -1), 3, 7);
    let of_version = |version: i16| {
        let mut frame = valid.to_vec();
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        frame
    };
    let id = 7_i32.to_be_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("frame_length", raw(-1, 3, 0, &id)),
        ("frame_length", raw(i32::MIN, 3, 0, &id)),
        ("frame_length", raw(0, 3, 0, &id)),
        ("frame_length", raw(7, 3, 0, &id)),
        ("frame_length", raw(i32::MAX, 0, 9, &id)),
        ("frame_length", raw((32 << 20) + 1, 0, 9, &id)),
        // Only records make a request large.
        ("frame_length", raw((16 << 20) + 1, 3, 1, &id)),
        ("unknown_api", raw(8, 999, 0, &id)),
        ("unknown_api", raw(8, -1, 0, &id)),
        ("unknown_api", raw(8, i16::MIN, i16::MAX, &id)),
        // LeaderAndIsr: a key that Kafka has had, and that no client may send.
        ("unknown_api", raw(8, 4, 0, &id)),
        ("unsupported_version", of_version(0)),
        ("unsupported_version", of_version(1)),
        ("unsupported_version", of_version(2)),
        ("unsupported_version", of_version(14)),
        ("unsupported_version", of_version(-1)),
        // The body of Metadata version 1 is a count: this one asked for 154 GB.
        ("malformed", raw(14, 3, 1, &[&id[..], &[0xff, 0xff], &[0x7f, 0xff, 0xff, 0xff]].concat())),
        ("malformed", raw(16, 3, 12, &[&id[..], &[0xff, 0xff, 0], &[0xff, 0xff, 0xff, 0xff, 0x07]].concat())),
        // A client id that runs past the end, and one of a length that is negative.
        ("malformed", raw(10, 3, 1, &[&id[..], &[0x7f, 0xff]].concat())),
        ("malformed", raw(10, 3, 1, &[&id[..], &[0x80, 0]].concat())),
        ("malformed", raw(8, 3, 1, &id)),
    ];
    let mut expected: std::collections::BTreeMap<&str, f64> = Default::default();
    for (reason, bytes) in &cases {
        *expected.entry(reason).or_default() += 1.0;
        let mut stranger = broker.connect().await;
        stranger.send_bytes(bytes).await;
        assert_eq!(stranger.receive_frame().await, None, "{reason}: {bytes:02x?}");
        is_well(&mut well).await;
    }
    let told = metrics(&broker.server).await;
    for (reason, times) in expected {
        assert_eq!(told.get(&format!("{REFUSED}{{reason=\"{reason}\"}}")), Some(&times), "{reason}");
    }
    assert_eq!(well.latest("t", 0).await, 0);
}

#[tokio::test]
async fn a_frame_cut_anywhere_is_no_request() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let whole = frame(&produce("t", 0, batch(&["v"]), -1), PRODUCE, 7);
    for cut in 0..whole.len() {
        let mut stranger = broker.connect().await;
        stranger.send_bytes(&whole[..cut]).await;
        stranger.finish().await;
        assert_eq!(stranger.receive_frame().await, None, "cut at {cut}");
    }
    // Cut, but of a length that says so: the frame is whole and its request is not.
    for cut in 12..whole.len() {
        let mut shorter = whole[..cut].to_vec();
        shorter[..4].copy_from_slice(&(cut as i32 - 4).to_be_bytes());
        let mut stranger = broker.connect().await;
        stranger.send_bytes(&shorter).await;
        assert_eq!(stranger.receive_frame().await, None, "cut at {cut}");
    }
    assert_eq!(broker.connect().await.latest("t", 0).await, 0);
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte_and_many_at_once() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    let request = frame(&ApiVersionsRequest::default(), 0, 7);
    for byte in &request {
        client.send_bytes(&[*byte]).await;
    }
    assert_eq!(client.receive_frame().await.unwrap()[..4], 7_i32.to_be_bytes());
    client.send_bytes(&request.repeat(100)).await;
    for _ in 0..100 {
        assert_eq!(client.receive_frame().await.unwrap()[..4], 7_i32.to_be_bytes());
    }
}

/// Wherever a request of any row and version may hold a count or a length, it claims two thousand million.
#[tokio::test]
async fn hostile_counts_are_answered_or_end_the_connection() {
    let broker = Broker::start().await;
    let samples = samples::all(broker.create_topic("t", 1).await);
    let mut stranger = broker.connect().await;
    const COUNTS: [&[u8]; 3] = [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0x7f, 0xff]];
    let mut tried = 0;
    for sample in &samples {
        let row = TABLE.iter().find(|row| row.key as i16 == sample.key).unwrap();
        for version in row.versions.min..=row.versions.max {
            let sound = (sample.frame)(version);
            for place in 12..sound.len() {
                // Every count where it stands, one of them per place: the places are many and the versions alike.
                let count = COUNTS[(place + version as usize) % COUNTS.len()];
                let mut bytes = sound.to_vec();
                bytes.splice(place..(place + count.len()).min(sound.len()), count.iter().copied());
                let length = bytes.len() as i32 - 4;
                bytes[..4].copy_from_slice(&length.to_be_bytes());
                stranger.send_bytes(&bytes).await;
                // What asks for an answer in 24 days is cut off as idle; what wants none (acks=0) is followed by more.
                stranger.send_bytes(&frame(&ApiVersionsRequest::default(), 0, -7)).await;
                loop {
                    while !stranger.has_news().await {
                        broker.clock.advance(60_000);
                    }
                    match stranger.receive_frame().await {
                        Some(answer) if answer[..4] == (-7_i32).to_be_bytes() => break,
                        Some(_) => {}
                        None => {
                            stranger = broker.connect().await;
                            break;
                        }
                    }
                }
                tried += 1;
            }
            is_well(&mut broker.connect().await).await;
        }
    }
    assert!(tried > 5_000, "{tried}");
}

#[tokio::test]
async fn batches_that_are_not_sound_are_refused_with_kafkas_errors() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let sound = batch_at(NOW_MS, &["one", "two"], Codec::Lz4, None);
    let changed = |change: &dyn Fn(&mut BytesMut)| {
        let mut bytes = BytesMut::from(&sound[..]);
        change(&mut bytes);
        bytes.freeze()
    };
    let crc = |bytes: &mut BytesMut| {
        let crc = crc32c::crc32c(&bytes[at::ATTRIBUTES..]);
        bytes[at::CRC..at::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    };
    let corrupt = ResponseError::CorruptMessage.code();
    let invalid = ResponseError::InvalidRecord.code();
    let cases: Vec<(&str, Bytes, Vec<i16>)> = vec![
        ("wrong CRC", changed(&|bytes| bytes[at::CRC] ^= 1), vec![corrupt]),
        ("a flipped bit in the records", changed(&|bytes| *bytes.last_mut().unwrap() ^= 1), vec![corrupt]),
        ("cut", sound.slice(..sound.len() - 1), vec![corrupt, invalid]),
        ("nothing", Bytes::new(), vec![corrupt, invalid]),
        ("a header's beginning", sound.slice(..20), vec![corrupt, invalid]),
        ("message format 1", changed(&|bytes| bytes[at::MAGIC] = 1), vec![corrupt, invalid, 43]),
        ("message format 3", changed(&|bytes| bytes[at::MAGIC] = 3), vec![corrupt, invalid]),
        ("a negative length", changed(&|bytes| bytes[at::BATCH_LENGTH] = 0x80), vec![corrupt, invalid]),
        ("two batches", [&sound[..], &sound].concat().into(), vec![invalid]),
        (
            "two thousand million records",
            changed(&|bytes| {
                bytes[at::RECORDS_COUNT..at::RECORDS].copy_from_slice(&i32::MAX.to_be_bytes());
                bytes[at::LAST_OFFSET_DELTA..at::BASE_TIMESTAMP].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
                crc(bytes);
            }),
            vec![corrupt, invalid],
        ),
        (
            "bytes that do not inflate",
            changed(&|bytes| {
                bytes.truncate(at::RECORDS);
                bytes.put_bytes(0xaa, 100);
                let length = (bytes.len() - at::PARTITION_LEADER_EPOCH) as i32;
                bytes[at::BATCH_LENGTH..at::PARTITION_LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
                crc(bytes);
            }),
            vec![corrupt, invalid],
        ),
        (
            "codec 7",
            changed(&|bytes| {
                bytes[at::ATTRIBUTES + 1] |= 7;
                crc(bytes);
            }),
            vec![corrupt, invalid, ResponseError::UnsupportedCompressionType.code()],
        ),
        (
            "a control batch",
            changed(&|bytes| {
                bytes[at::ATTRIBUTES + 1] |= 0x20;
                crc(bytes);
            }),
            vec![invalid],
        ),
    ];
    for (what, batch, errors) in cases {
        let answer = client.produce("t", 0, batch).await;
        assert!(errors.contains(&answer.error_code), "{what}: {} {:?}", answer.error_code, answer.error_message);
        assert_eq!(answer.base_offset, -1, "{what}");
    }
    assert_eq!(client.latest("t", 0).await, 0);
    assert_eq!(client.produced("t", 0, sound.clone()).await, 0);
    assert_eq!(client.read_from("t", 0, 0).await.len(), 2);
    // KIP-110: a client that cannot have read zstd may not write it.
    let zstd = batch_at(NOW_MS, &["three"], Codec::Zstd, None);
    let answer = client.call(produce("t", 0, zstd, -1), 6).await;
    let refused = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(refused, ResponseError::UnsupportedCompressionType.code());
}

#[tokio::test]
async fn clients_that_stall_are_cut_off_by_the_clock() {
    let broker = Broker::with(|config| config.connections_idle_max = 60_000).await;
    broker.create_topic("t", 1).await;
    let mut silent = broker.connect().await;
    let mut slow = broker.connect().await;
    slow.send_bytes(&frame(&MetadataRequest::default(), 4, 1)[..9]).await;
    // A fetch that waits for records and a client that has gone meanwhile, or seems to.
    let mut gone = broker.connect().await;
    gone.send(fetch("t", &[(0, 0)]).with_max_wait_ms(i32::MAX), crate::harness::FETCH).await;
    let open = async |broker: &Broker| metrics(&broker.server).await["anabranch_kafka_connections"];
    assert!(open(&broker).await >= 3.0);
    broker.advance_until(10_000, async || open(&broker).await == 0.0).await;
    for client in [&mut silent, &mut slow, &mut gone] {
        assert_eq!(client.receive_frame().await, None);
    }
    assert_eq!(metrics(&broker.server).await[&format!("{REFUSED}{{reason=\"idle\"}}")], 3.0);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_not_read_from_and_cut_off() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut well = broker.connect().await;
    let large = "x".repeat(900_000);
    for _ in 0..4 {
        well.produced("t", 0, batch(&[&large])).await;
    }
    let mut deaf = broker.connect().await;
    // Each answer is 900 kB: they fill the sockets' buffers, and then nothing more is read of the requests. Enough of
    // these fill the buffers of the other direction.
    let request = frame(&fetch("t", &[(0, 0)]).with_max_bytes(1 << 20), crate::harness::FETCH, 1).repeat(1_000);
    let mut sent = 0;
    while tokio::time::timeout(std::time::Duration::from_millis(300), deaf.send_bytes(&request)).await.is_ok() {
        sent += 1;
        assert!(sent < 1_000, "requests are read although nobody reads their answers");
    }
    assert_eq!(well.produced("t", 0, batch(&["after"])).await, 4);
    let refused = format!("{REFUSED}{{reason=\"idle\"}}");
    broker
        .advance_until(60_000, async || metrics(&broker.server).await.get(&refused).is_some_and(|times| *times >= 1.0))
        .await;
}

#[tokio::test]
async fn a_server_stops_although_clients_do_not_read_or_finish() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut slow = broker.connect().await;
    slow.send_bytes(&[0, 0, 0, 50, 0, 3]).await;
    let mut waiting = broker.connect().await;
    waiting.send(fetch("t", &[(0, 0)]).with_max_wait_ms(i32::MAX), crate::harness::FETCH).await;
    let mut well = broker.connect().await;
    is_well(&mut well).await;
    let Broker { server, clock, .. } = broker;
    let stopping = tokio::spawn(server.shutdown());
    for client in [&mut slow, &mut waiting, &mut well] {
        assert_eq!(client.receive_frame().await, None);
    }
    // No grace was needed: the clock has not moved.
    stopping.await.unwrap().unwrap();
    assert_eq!(clock.now_ms(), NOW_MS);
}

#[tokio::test]
async fn a_produce_of_many_partitions_that_do_not_exist_is_refused_one_by_one() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut request: ProduceRequest = produce("t", 0, batch(&["v"]), 1);
    let one = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data =
        [-1, 1, i32::MAX, i32::MIN, 0].map(|index| one.clone().with_index(index)).into();
    let answer = client.call(request, PRODUCE).await.responses.remove(0).partition_responses;
    let codes: Vec<i16> = answer.iter().map(|partition| partition.error_code).collect();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [unknown, unknown, unknown, unknown, 0]);
}
