//! Records in: acknowledgements, order, idempotence, and the settings of a topic that judge or change a batch.

use anabranch::model::batch::{self, Codec, Header, at};
use anabranch::store::StoreError;
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ApiVersionsRequest, DescribeProducersRequest, ProduceRequest};

use crate::harness::{
    Broker, Client, NOW_MS, PRODUCE, batch, batch_at, batches, produce, records, sequenced, topic, value,
};

fn str_bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn only(answer: kafka_protocol::messages::ProduceResponse) -> PartitionProduceResponse {
    answer.responses[0].partition_responses[0].clone()
}

#[tokio::test]
async fn each_kind_of_acknowledgement_keeps_the_records() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.send_unanswered(produce("t", 0, batch(&["none"]), 0), PRODUCE).await;
    // The next answer is that of the next request.
    let one = only(client.call(produce("t", 0, batch(&["leader"]), 1), PRODUCE).await);
    let all = only(client.call(produce("t", 0, batch(&["all"]), -1), PRODUCE).await);
    assert_eq!((one.error_code, one.base_offset, all.error_code, all.base_offset), (0, 1, 0, 2));
    assert_eq!((all.log_append_time_ms, all.log_start_offset), (-1, 0));
    let read: Vec<String> = client.read_from("t", 0, 0).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, ["none", "leader", "all"]);
    let odd = only(client.call(produce("t", 0, batch(&["two"]), 2), PRODUCE).await);
    assert_eq!(odd.error_code, ResponseError::InvalidRequiredAcks.code());
}

/// Nothing else would tell the client.
#[tokio::test]
async fn an_error_that_nobody_wants_an_answer_to_closes_the_connection() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    client.send(produce("nowhere", 0, batch(&["lost"]), 0), PRODUCE).await;
    assert_eq!(client.receive_frame().await, None);
}

#[tokio::test]
async fn what_is_sent_without_waiting_is_kept_and_answered_in_order() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    // The commits of the first requests wait, so that the others come while these are under way.
    let held = broker.store.hold_commits();
    let mut client = broker.connect().await;
    for n in 0..200 {
        client.send(produce("t", 0, batch(&[&format!("a{n}"), &format!("b{n}")]), -1), PRODUCE).await;
    }
    client.send(ApiVersionsRequest::default(), 0).await;
    drop(held);
    for n in 0..200 {
        assert_eq!(only(client.receive::<ProduceRequest>(PRODUCE).await).base_offset, 2 * n);
    }
    client.receive::<ApiVersionsRequest>(0).await;
    let read = client.read_from("t", 0, 0).await;
    let sent = (0..200).flat_map(|n| [format!("a{n}"), format!("b{n}")]).enumerate();
    assert!(read.into_iter().eq(sent.map(|(offset, value)| (offset as i64, value))));
}

#[tokio::test]
async fn an_answer_comes_only_when_the_records_are_kept() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut producer = broker.connect().await;
    let mut consumer = broker.connect().await;
    let held = broker.store.hold_commits();
    producer.send(produce("t", 0, batch(&["v"]), -1), PRODUCE).await;
    let held = tokio::task::spawn_blocking(move || {
        held.wait_for_commit();
        held
    });
    let held = held.await.unwrap();
    assert!(!producer.has_news().await);
    assert_eq!((consumer.latest("t", 0).await, consumer.fetch("t", 0, 0).await.high_watermark), (0, 0));
    drop(held);
    assert_eq!(only(producer.receive::<ProduceRequest>(PRODUCE).await).base_offset, 0);
    assert_eq!(consumer.latest("t", 0).await, 1);
}

/// What comes again while its first copy is being written is answered as that one is, whether that goes well or not.
#[tokio::test]
async fn a_duplicate_shares_the_fate_of_the_first() {
    for fails in [false, true] {
        let broker = Broker::start().await;
        broker.create_topic("t", 1).await;
        let (mut first, mut second) = (broker.connect().await, broker.connect().await);
        let id = first.new_producer_id().await;
        let held = broker.store.hold_commits();
        for client in [&mut first, &mut second] {
            client.send(produce("t", 0, sequenced(id, 0, 0, &["v"]), -1), PRODUCE).await;
            assert!(!client.has_news().await);
        }
        if fails {
            broker.store.fail_next_commits(1, StoreError::NotDone("the disk is full".into()));
        }
        drop(held);
        let expected = if fails { (ResponseError::KafkaStorageError.code(), -1) } else { (0, 0) };
        for client in [&mut first, &mut second] {
            let answer = only(client.receive::<ProduceRequest>(PRODUCE).await);
            assert_eq!((answer.error_code, answer.base_offset), expected);
        }
        // After a failure nobody knows what the disk holds until the next start, which can then go on.
        let broker = broker.crash().await;
        let again = broker.connect().await.produced("t", 0, sequenced(id, 0, 0, &["v"])).await;
        assert_eq!((again, broker.connect().await.latest("t", 0).await), (0, 1));
    }
}

#[tokio::test]
async fn topics_are_named_by_id_in_the_newest_version() {
    let broker = Broker::start().await;
    let id = broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let mut request = produce("", 0, batch(&["v"]), -1);
    request.topic_data[0].topic_id = id;
    let answer = client.call(request.clone(), 13).await;
    assert_eq!((answer.responses[0].topic_id, only(answer).base_offset), (id, 0));
    client.delete_topic("t").await;
    client.create_topic("t", 1, &[]).await;
    let refused = only(client.call(request, 13).await);
    assert_eq!(refused.error_code, ResponseError::UnknownTopicId.code(), "another topic of that name is another topic");
}

async fn sequence_error(client: &mut Client, id: i64, epoch: i16, sequence: i32) -> Option<ResponseError> {
    let answer = client.produce("t", 0, sequenced(id, epoch, sequence, &["x"])).await;
    ResponseError::try_from_code(answer.error_code)
}

#[tokio::test]
async fn idempotent_producers_are_known_after_stops_and_crashes() {
    let mut broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let id = broker.connect().await.new_producer_id().await;
    let send = async |broker: &Broker, epoch, sequence, values: &[&str]| {
        broker.connect().await.produce("t", 0, sequenced(id, epoch, sequence, values)).await
    };
    let mut sequence = 0;
    let mut offset = 0;
    for round in 0..4 {
        for _ in 0..6 {
            let answer = send(&broker, 0, sequence, &["a", "b"]).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, offset));
            (sequence, offset) = (sequence + 2, offset + 2);
        }
        broker = if round % 2 == 0 { broker.crash().await } else { broker.restart().await };
        // The last five batches are recognised, and stand where they stood.
        for back in 1..=5 {
            let again = send(&broker, 0, sequence - 2 * back, &["a", "b"]).await;
            assert_eq!((again.error_code, again.base_offset), (0, offset - i64::from(2 * back)), "{back} batches back");
        }
        let mut client = broker.connect().await;
        let out_of_order = Some(ResponseError::OutOfOrderSequenceNumber);
        assert_eq!(sequence_error(&mut client, id, 0, sequence + 1).await, out_of_order, "a gap");
        assert_eq!(sequence_error(&mut client, id, 0, sequence - 12).await, out_of_order, "too long ago");
        assert_eq!(sequence_error(&mut client, id, 1, 1).await, out_of_order, "a new epoch begins with 0");
        assert_eq!(client.latest("t", 0).await, offset);
        assert_ne!(client.new_producer_id().await, id, "no id is given twice");
    }
    let mut client = broker.connect().await;
    assert_eq!(sequence_error(&mut client, id, 1, 0).await, None);
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    let fenced = Some(ResponseError::InvalidProducerEpoch);
    assert_eq!(sequence_error(&mut client, id, 0, sequence).await, fenced);
    assert_eq!(client.latest("t", 0).await, offset + 1);

    let wanted = TopicRequest::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let described = client.call(DescribeProducersRequest::default().with_topics(vec![wanted]), 0).await;
    let producers = &described.topics[0].partitions[0].active_producers;
    assert_eq!(producers.len(), 1);
    assert_eq!((producers[0].producer_id.0, producers[0].producer_epoch, producers[0].last_sequence), (id, 1, 0));
}

#[tokio::test]
async fn a_producer_is_forgotten_when_it_was_silent_for_too_long() {
    let broker = Broker::with(|config| config.producer_id_expiration = 3_600_000).await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let id = client.new_producer_id().await;
    assert_eq!(sequence_error(&mut client, id, 0, 0).await, None);
    assert_eq!(sequence_error(&mut client, id, 0, 7).await, Some(ResponseError::OutOfOrderSequenceNumber));
    broker
        .advance_until(60_000, async || {
            let wanted = TopicRequest::default().with_name(topic("t")).with_partition_indexes(vec![0]);
            let mut client = broker.connect().await;
            let described = client.call(DescribeProducersRequest::default().with_topics(vec![wanted]), 0).await;
            described.topics[0].partitions[0].active_producers.is_empty()
        })
        .await;
    assert!(broker.clock.now_ms() >= NOW_MS + 3_600_000);
    // As in Kafka 4, a producer that nobody knows may begin anywhere.
    assert_eq!(sequence_error(&mut broker.connect().await, id, 0, 7).await, None);
}

#[tokio::test]
async fn log_append_time_replaces_what_the_client_says() {
    let broker = Broker::start().await;
    broker.create_with("t", &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut client = broker.connect().await;
    broker.clock.advance(5_000);
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let answer = client.produce("t", 0, batch_at(7, &["a", "b"], codec, None)).await;
        assert_eq!((answer.error_code, answer.log_append_time_ms), (0, NOW_MS + 5_000), "{codec}");
        let data = client.fetch("t", 0, answer.base_offset).await;
        let stored = batches(&data).remove(0);
        let header = Header::parse(&stored).unwrap();
        assert_eq!(header.crc, crc32c::crc32c(&stored[at::ATTRIBUTES..]), "the checksum is of what is stored");
        assert_eq!((header.max_timestamp, header.attributes & 8), (NOW_MS + 5_000, 8));
        assert!(records(&data).iter().all(|record| record.timestamp == NOW_MS + 5_000), "{codec}");
    }
    assert_eq!(client.list_offset("t", 0, NOW_MS + 5_000).await, (0, 0, NOW_MS + 5_000));
    assert_eq!(client.list_offset("t", 0, NOW_MS + 5_001).await, (0, -1, -1));
}

#[tokio::test]
async fn a_topics_compression_is_that_of_its_batches() {
    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    for (setting, kept) in [
        ("producer", None),
        ("uncompressed", Some(0)),
        ("gzip", Some(1)),
        ("snappy", Some(2)),
        ("lz4", Some(3)),
        ("zstd", Some(4)),
    ] {
        client.create_topic(setting, 1, &[("compression.type", setting)]).await;
        for (id, codec) in CODECS.into_iter().enumerate() {
            let sent = batch_at(NOW_MS, &["a value", "a value", "another"], codec, None);
            let offset = client.produced(setting, 0, sent.clone()).await;
            let data = client.fetch(setting, 0, offset).await;
            let stored = batches(&data).remove(0);
            assert_eq!(stored[at::ATTRIBUTES + 1] & 7, kept.unwrap_or(id as u8), "{codec} to {setting}");
            assert_eq!(records(&data).iter().map(value).collect::<Vec<_>>(), ["a value", "a value", "another"]);
            if kept.is_none_or(|kept| kept == id as u8) {
                // Verbatim, but for its place and epoch, which the checksum does not cover.
                assert_eq!(stored[at::MAGIC..], sent[at::MAGIC..], "{codec} to {setting}");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_larger_than_its_topic_allows_is_refused() {
    let broker = Broker::start().await;
    broker.create_with("t", &[("max.message.bytes", "1000")]).await;
    broker.create_topic("default", 1).await;
    let mut client = broker.connect().await;
    // The longer the value, the longer its length: found by trying.
    let of_size = |size: usize| {
        let values = (size - 100..size).map(|len| batch(&[&"x".repeat(len)]));
        values.into_iter().find(|batch| batch.len() == size).unwrap()
    };
    assert_eq!(client.produce("t", 0, of_size(1_000)).await.error_code, 0);
    let too_large = ResponseError::MessageTooLarge.code();
    assert_eq!(client.produce("t", 0, of_size(1_001)).await.error_code, too_large);
    assert_eq!(client.produce("default", 0, of_size(1_048_588)).await.error_code, 0);
    assert_eq!(client.produce("default", 0, of_size(1_048_589)).await.error_code, too_large);
}

#[tokio::test]
async fn min_insync_replicas_counts_the_replicas_that_were_wished_for() {
    let broker = Broker::start().await;
    broker.create_with("t", &[("min.insync.replicas", "2")]).await;
    let mut client = broker.connect().await;
    let refused = only(client.call(produce("t", 0, batch(&["v"]), -1), PRODUCE).await);
    assert_eq!(refused.error_code, ResponseError::NotEnoughReplicas.code());
    assert_eq!(only(client.call(produce("t", 0, batch(&["v"]), 1), PRODUCE).await).error_code, 0);
}

#[tokio::test]
async fn timestamps_are_held_within_a_topics_bounds() {
    let broker = Broker::start().await;
    let bounds = [("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "2000")];
    broker.create_with("t", &bounds).await;
    let mut client = broker.connect().await;
    for (from_now, allowed) in [(-1_001, false), (-1_000, true), (0, true), (2_000, true), (2_001, false)] {
        let answer = client.produce("t", 0, batch_at(NOW_MS + from_now, &["v", "w"], Codec::None, None)).await;
        assert_eq!(answer.error_code, if allowed { 0 } else { ResponseError::InvalidTimestamp.code() }, "{from_now}");
        let blamed: Vec<i32> = answer.record_errors.iter().map(|record| record.batch_index).collect();
        assert_eq!(blamed, if allowed { vec![] } else { vec![0, 1] });
    }
}

#[tokio::test]
async fn records_of_every_shape_come_back_as_they_were_sent() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let sent: Vec<batch::Record> = [(Some(""), None), (None, Some("")), (None, None), (Some("key"), Some("value"))]
        .into_iter()
        .enumerate()
        .map(|(n, (key, value))| batch::Record {
            offset: n as i64,
            timestamp: NOW_MS - n as i64 * 1_000,
            key: key.map(str_bytes),
            value: value.map(str_bytes),
            headers: vec![
                batch::RecordHeader { key: Bytes::from_static(b"h"), value: None },
                batch::RecordHeader { key: Bytes::from_static(b"h"), value: Some(Bytes::from_static(&[0xff, 0])) },
            ],
        })
        .collect();
    for compressor in [batch::Compressor::None, batch::Compressor::of(Codec::Zstd)] {
        let batch = batch::build(&sent, &batch::Options { compressor, producer: None }).unwrap();
        let offset = client.produced("t", 0, batch).await;
        let mut read = records(&client.fetch("t", 0, offset).await);
        read.iter_mut().for_each(|record| record.offset -= offset);
        assert_eq!(read, sent);
    }
}
