//! Where records are, and where a log begins: ListOffsets and DeleteRecords across stops.

use anabranch::model::batch::Codec;
use kafka_protocol::error::ResponseError;

use crate::harness::{Broker, NOW_MS, batch, batch_at};

#[tokio::test]
async fn offsets_are_listed_by_special_and_by_time_also_after_a_restart() {
    let mut broker = Broker::start().await;
    broker.create_topic("t", 2).await;
    let mut client = broker.connect().await;
    for (n, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate() {
        client.produced("t", 0, batch_at(NOW_MS + 10 * n as i64, &["a", "b"], codec, None)).await;
    }
    // Time does not go up with offsets.
    client.produced("t", 0, batch_at(NOW_MS + 5, &["late"], Codec::None, None)).await;
    for round in 0..3 {
        let mut client = broker.connect().await;
        let mut listed = Vec::new();
        for timestamp in [-1, -2, -3, -4, -5] {
            let (error, offset, timestamp) = client.list_offset("t", 0, timestamp).await;
            assert_eq!(error, 0);
            listed.push((offset, if timestamp < 0 { timestamp } else { timestamp - NOW_MS }));
        }
        assert_eq!(listed, [(11, -1), (0, -1), (8, 40), (0, -1), (-1, -1)]);
        for (after, found) in [(0, (0, 0)), (1, (2, 10)), (10, (2, 10)), (35, (8, 40)), (40, (8, 40))] {
            let expected = (0, found.0, NOW_MS + found.1);
            assert_eq!(client.list_offset("t", 0, NOW_MS + after).await, expected, "{after}");
        }
        assert_eq!(client.list_offset("t", 0, NOW_MS + 41).await, (0, -1, -1));
        assert_eq!(client.list_offset("t", 0, 0).await, (0, 0, NOW_MS));
        for (timestamp, offset) in [(-1, 0), (-2, 0), (-3, -1), (NOW_MS, -1)] {
            assert_eq!(client.list_offset("t", 1, timestamp).await, (0, offset, -1), "of an empty partition");
        }
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(client.list_offset("t", 2, -1).await, (unknown, -1, -1));
        broker = if round == 0 { broker.restart().await } else { broker.crash().await };
    }
}

#[tokio::test]
async fn deleted_records_stay_deleted_and_offsets_go_on() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["0", "1", "2"])).await;
    client.produced("t", 0, batch(&["3"])).await;
    assert_eq!(client.delete_records("t", 0, 2).await, (0, 2));
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (2, 4));
    assert_eq!(client.read_from("t", 0, 2).await, [(2, "2".to_owned()), (3, "3".to_owned())]);
    assert_eq!(client.delete_records("t", 0, 5).await, (ResponseError::OffsetOutOfRange.code(), -1));
    assert_eq!(client.delete_records("t", 0, -1).await, (0, 4), "-1 is the end");
    let broker = broker.restart().await;
    let mut client = broker.connect().await;
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (4, 4));
    assert_eq!(client.list_offset("t", 0, -3).await, (0, -1, -1), "nothing is left to have a time");
    assert_eq!(client.produced("t", 0, batch(&["4"])).await, 4);
    assert_eq!(client.read_from("t", 0, 4).await, [(4, "4".to_owned())]);
}

#[tokio::test]
async fn a_topic_made_again_under_its_name_begins_empty() {
    let broker = Broker::start().await;
    let old = broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["old"])).await;
    client.delete_topic("t").await;
    let gone = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(client.list_offset("t", 0, -1).await.0, gone);
    assert_eq!(client.produce("t", 0, batch(&["x"])).await.error_code, gone);
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!(client.list_offset("t", 0, -1).await.0, gone);
    assert_ne!(client.create_topic("t", 1, &[]).await, old);
    assert_eq!((client.earliest("t", 0).await, client.latest("t", 0).await), (0, 0));
    assert_eq!(client.produced("t", 0, batch(&["new"])).await, 0);
    assert_eq!(client.read_from("t", 0, 0).await, [(0, "new".to_owned())]);
}
