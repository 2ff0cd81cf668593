//! DescribeTopicPartitions (75), version 0: topics by name, a page of partitions at a time (KIP-966). The cursor is
//! where the next page begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_request::Cursor as Start;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::{TOPIC_OPERATIONS, unknown};
use crate::broker::Stream;
use crate::kafka::{Context, names};

/// Kafka's default of `max.request.partition.size.limit`.
const PARTITIONS_PER_ANSWER_MAX: i32 = 2_000;

pub async fn describe_topic_partitions(
    cx: Context,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let wanted: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
    if !cursor_fits(request.cursor.as_ref(), &wanted) {
        let refused = |name: &&str| failed(ResponseError::InvalidRequest, name);
        return DescribeTopicPartitionsResponse::default().with_topics(wanted.iter().map(refused).collect());
    }
    let (from_topic, from_partition) =
        request.cursor.as_ref().map_or(("", 0), |cursor| (cursor.topic_name.as_str(), cursor.partition_index as usize));
    let limit = request.response_partition_limit.clamp(1, PARTITIONS_PER_ANSWER_MAX) as usize;
    let mut page = Page { remaining: limit, response: DescribeTopicPartitionsResponse::default() };
    let broker = &cx.door.broker;
    let first = |name: &str| if name == from_topic { from_partition } else { 0 };
    if wanted.is_empty() {
        for stream in broker.streams().iter().filter(|stream| &*stream.name >= from_topic) {
            if !page.add(stream, first(&stream.name), cx.door.node_id()) {
                break;
            }
        }
    } else {
        for name in wanted.range(from_topic..) {
            let more = match broker.stream(name) {
                Some(stream) => page.add(&stream, first(name), cx.door.node_id()),
                None => page.add_unknown(name),
            };
            if !more {
                break;
            }
        }
    }
    page.response
}

/// A cursor points to one of the topics asked for, and to a partition.
fn cursor_fits(cursor: Option<&Start>, wanted: &BTreeSet<&str>) -> bool {
    cursor.is_none_or(|cursor| {
        let among = wanted.is_empty() || wanted.contains(cursor.topic_name.as_str());
        among && cursor.partition_index >= 0
    })
}

struct Page {
    /// Partitions that still fit.
    remaining: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page {
    /// Adds partitions from `first` on; false when the page is full.
    fn add(&mut self, stream: &Arc<Stream>, first: usize, node: BrokerId) -> bool {
        if self.remaining == 0 {
            return self.end_before(&stream.name, 0);
        }
        let epochs = stream.leader_epochs();
        let end = epochs.len().min(first.saturating_add(self.remaining));
        let span = epochs.get(first..end).unwrap_or_default();
        let partitions = (first..end).zip(span).map(|(index, epoch)| described(index as i32, *epoch, node)).collect();
        self.remaining -= span.len();
        self.response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(names::topic(&stream.name)))
                .with_topic_id(stream.topic_id)
                .with_is_internal(names::is_internal(&stream.name))
                .with_partitions(partitions)
                .with_topic_authorized_operations(TOPIC_OPERATIONS),
        );
        end >= epochs.len() || self.end_before(&stream.name, end)
    }

    /// A topic that does not exist takes no room.
    fn add_unknown(&mut self, name: &str) -> bool {
        if self.remaining == 0 {
            return self.end_before(name, 0);
        }
        self.response.topics.push(failed(unknown(name), name));
        true
    }

    fn end_before(&mut self, name: &str, partition: usize) -> bool {
        let cursor = Cursor::default().with_topic_name(names::topic(name)).with_partition_index(partition as i32);
        self.response.next_cursor = Some(cursor);
        false
    }
}

fn described(index: i32, leader_epoch: i32, node: BrokerId) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(node)
        .with_leader_epoch(leader_epoch)
        .with_replica_nodes(vec![node])
        .with_isr_nodes(vec![node])
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}

fn failed(error: ResponseError, name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(names::topic(name)))
        .with_is_internal(names::is_internal(name))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_points_into_what_was_asked_for() {
        let at = |name: &str, partition| {
            Start::default().with_topic_name(names::topic(name)).with_partition_index(partition)
        };
        let none = BTreeSet::new();
        let some = BTreeSet::from(["a", "b"]);
        assert!(cursor_fits(None, &none) && cursor_fits(None, &some));
        assert!(cursor_fits(Some(&at("anything", 3)), &none));
        assert!(cursor_fits(Some(&at("b", 0)), &some));
        assert!(!cursor_fits(Some(&at("c", 0)), &some));
        assert!(!cursor_fits(Some(&at("b", -1)), &some));
    }
}
