//! What partitions remember of producers: DescribeProducers (61). Who gets a producer id stands in `transactions`.

use indexmap::{IndexMap, IndexSet};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId, TopicName};

use crate::kafka::{Context, names};
use crate::log::partition::Partition;
use crate::log::producers::ELSEWHERE;
use crate::model::ids::PartitionIndex;

/// No transaction is open.
const NO_TRANSACTION: i64 = -1;

/// DescribeProducers, version 0: what partitions remember of their producers.
pub async fn describe_producers(cx: Context, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics: IndexMap<TopicName, Vec<i32>> = IndexMap::new();
    for topic in request.topics {
        topics.entry(topic.name).or_default().extend(topic.partition_indexes);
    }
    let topics = topics.into_iter().map(|(name, partitions)| describe_topic(&cx, name, partitions)).collect();
    DescribeProducersResponse::default().with_topics(topics)
}

fn describe_topic(cx: &Context, name: TopicName, partition_indexes: Vec<i32>) -> TopicResponse {
    let stream = cx.door.broker.stream(&name);
    let fault = names::topic_name_fault(&name);
    let describe = |partition_index: i32| {
        let answer = PartitionResponse::default().with_partition_index(partition_index).with_error_message(None);
        if let Some(fault) = &fault {
            return answer
                .with_error_code(ResponseError::InvalidTopicException.code())
                .with_error_message(names::message(fault.as_str()));
        }
        let index = u32::try_from(partition_index).ok().map(PartitionIndex);
        match stream.as_ref().zip(index).and_then(|(stream, index)| stream.partition(index)) {
            Some(partition) => answer.with_active_producers(active_producers(&partition)),
            None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
        }
    };
    // Each once: a partition may remember many, and a request could name it a million times.
    let wanted: IndexSet<i32> = partition_indexes.into_iter().collect();
    let partitions = wanted.into_iter().map(describe).collect();
    TopicResponse::default().with_name(name).with_partitions(partitions)
}

fn active_producers(partition: &Partition) -> Vec<ProducerState> {
    let end_offset = partition.end_offset();
    partition.producers(|producers| {
        producers
            .iter()
            .map(|(id, entry)| {
                // What began while the partition was dormant stands in another log: told as beginning where this one ends.
                let begins = entry.transaction().map(|first| if first == ELSEWHERE { end_offset } else { first });
                ProducerState::default()
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(entry.producer_epoch().into())
                    .with_last_sequence(entry.last_sequence())
                    .with_last_timestamp(entry.last_append_ms())
                    .with_coordinator_epoch(entry.coordinator_epoch())
                    .with_current_txn_start_offset(begins.unwrap_or(NO_TRANSACTION))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_producers_request::TopicRequest;

    use super::*;
    use crate::broker::End;
    use crate::kafka::tests::fixture::{Fixture, NOW_MS, encodes};
    use crate::model::batch::Producer;

    #[tokio::test]
    async fn producers_are_described_by_what_they_wrote_last() {
        let door = Fixture::new();
        let stream = door.topic("t", 2).await;
        let producer = |base_sequence| Some(Producer { id: 7, epoch: 2, base_sequence, transactional: false });
        door.append(&stream, 1, &[1, 2], producer(0)).await;
        door.append(&stream, 1, &[3], producer(2)).await;
        let describe = async |topic: &str, partitions: &[i32]| {
            let topic =
                TopicRequest::default().with_name(names::topic(topic)).with_partition_indexes(partitions.to_vec());
            let request = DescribeProducersRequest::default().with_topics(vec![topic]);
            encodes(describe_producers(door.cx(0), request).await, 0).topics.remove(0).partitions
        };
        let described = describe("t", &[0, 1, 2, 1]).await;
        let told: Vec<_> = described.iter().map(|p| (p.error_code, p.active_producers.len())).collect();
        assert_eq!(told, [(0, 0), (0, 1), (3, 0)]);
        let active = &described[1].active_producers[0];
        assert_eq!((active.producer_id.0, active.producer_epoch, active.last_sequence), (7, 2, 2));
        assert_eq!((active.last_timestamp, active.current_txn_start_offset), (NOW_MS, -1));
        assert_eq!(describe("no such", &[0]).await[0].error_code, 17);
        // In a transaction, and after it.
        let transactional = Some(Producer { id: 8, epoch: 1, base_sequence: 0, transactional: true });
        door.append(&stream, 0, &[1], None).await;
        door.append(&stream, 0, &[1, 2], transactional).await;
        let of_8 = |described: &[PartitionResponse]| {
            let active = &described[0].active_producers[0];
            assert_eq!((active.producer_id.0, active.last_sequence), (8, 1));
            (active.producer_epoch, active.coordinator_epoch, active.current_txn_start_offset)
        };
        assert_eq!(of_8(&describe("t", &[0]).await), (1, -1, 1));
        let partitions = vec![(stream.clone(), PartitionIndex(0))];
        let end = End { producer_id: 8, producer_epoch: 1, coordinator_epoch: 4, commit: true, partitions };
        door.door.broker.end_transaction(end, Default::default()).await.unwrap().unwrap();
        assert_eq!(of_8(&describe("t", &[0]).await), (1, 4, -1));
    }
}
