//! What Kafka clients see of shards that merge and split: partitions that never stop taking writes.

use anabranch::broker::CatalogError;
use anabranch::model::batch::Header;
use anabranch::model::ids::ShardOrdinal;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{BrokerId, MetadataRequest, OffsetForLeaderEpochRequest};

use crate::harness::{Broker, Client, batch, batches, sequenced, topic};

async fn merge(broker: &Broker, name: &str, a: u32, b: u32) {
    let broker = broker.server.broker();
    let stream = broker.stream(name).unwrap();
    let merged =
        broker.change_stream(&stream, |draft| Ok::<_, CatalogError>(draft.merge(ShardOrdinal(a), ShardOrdinal(b))?));
    merged.await.unwrap();
}

/// The leader epoch of each partition, as metadata tells it.
async fn epochs(client: &mut Client, name: &str) -> Vec<i32> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let metadata = client.call(MetadataRequest::default().with_topics(Some(vec![wanted])), 9).await;
    let partitions = &metadata.topics[0].partitions;
    assert!(partitions.iter().all(|partition| partition.error_code == 0 && partition.leader_id == BrokerId(1)));
    partitions.iter().map(|partition| partition.leader_epoch).collect()
}

/// Where a leader epoch of a partition ended.
async fn end_of_epoch(client: &mut Client, name: &str, partition: i32, epoch: i32) -> (i16, i32, i64) {
    let wanted = OffsetForLeaderPartition::default().with_partition(partition).with_current_leader_epoch(-1);
    let wanted = vec![wanted.with_leader_epoch(epoch)];
    let wanted = OffsetForLeaderTopic::default().with_topic(topic(name)).with_partitions(wanted);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
    let end = client.call(request, 4).await.topics.remove(0).partitions.remove(0);
    (end.error_code, end.leader_epoch, end.end_offset)
}

fn texts(records: Vec<(i64, String)>) -> Vec<String> {
    records.into_iter().map(|(_, text)| text).collect()
}

#[tokio::test]
async fn a_partition_that_was_absorbed_is_shown_read_and_written_and_wakes() {
    let mut broker = Broker::start().await;
    broker.create_topic("t", 2).await;
    let mut client = broker.connect().await;
    let id = client.new_producer_id().await;
    client.produced("t", 0, batch(&["lower"])).await;
    assert_eq!(client.produced("t", 1, sequenced(id, 0, 0, &["own", "own"])).await, 0);
    merge(&broker, "t", 0, 1).await;

    let mut sequence = 2;
    for round in 0..3_i64 {
        let mut client = broker.connect().await;
        assert_eq!(epochs(&mut client, "t").await, [1, 0]);
        // Taken, but not by this partition's log; and again, which is noticed.
        for _ in 0..2 {
            let answer = client.produce("t", 1, sequenced(id, 0, sequence, &["absorbed"])).await;
            assert_eq!((answer.error_code, answer.base_offset, answer.log_start_offset), (0, -1, 0));
        }
        sequence += 1;
        let gap = client.produce("t", 1, sequenced(id, 0, sequence + 1, &["gap"])).await;
        assert_eq!(gap.error_code, ResponseError::OutOfOrderSequenceNumber.code());
        // Its own records are there, and a copy of them is known by its offset.
        assert_eq!(texts(client.read_from("t", 1, 0).await), ["own", "own"]);
        assert_eq!((client.earliest("t", 1).await, client.latest("t", 1).await), (0, 2));
        if round == 0 {
            assert_eq!(client.produced("t", 1, sequenced(id, 0, 0, &["own", "own"])).await, 0);
        }
        assert_eq!(client.latest("t", 0).await, 2 + round);
        let epochs_of = |data| batches(data).iter().map(|b| Header::parse(b).unwrap().partition_leader_epoch).collect();
        let stamped: Vec<i32> = epochs_of(&client.fetch("t", 0, 0).await);
        assert_eq!((stamped[0], stamped[1]), (0, 1));
        assert_eq!(end_of_epoch(&mut client, "t", 0, 0).await, (0, 0, 1));
        assert_eq!(end_of_epoch(&mut client, "t", 1, 0).await, (0, 0, 2));
        broker = if round == 0 { broker.crash().await } else { broker.restart().await };
    }

    // One more is one more than are shown: the sleeper wakes and another is made.
    let mut client = broker.connect().await;
    client.add_partitions("t", 3).await;
    assert_eq!(epochs(&mut client, "t").await.len(), 3);
    assert_eq!(epochs(&mut client, "t").await[1], 1);
    let again = client.produce("t", 1, sequenced(id, 0, sequence - 1, &["absorbed"])).await;
    assert_eq!((again.error_code, again.base_offset), (0, -1));
    assert_eq!(client.produced("t", 1, sequenced(id, 0, sequence, &["awake"])).await, 2);
    assert_eq!(texts(client.read_from("t", 1, 0).await), ["own", "own", "awake"]);
    assert_eq!(texts(client.read_from("t", 0, 0).await), ["lower", "absorbed", "absorbed", "absorbed"]);
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!(client.produced("t", 1, sequenced(id, 0, sequence, &["awake"])).await, 2);
    assert_eq!(client.produced("t", 1, sequenced(id, 0, sequence + 1, &["last"])).await, 3);
}
