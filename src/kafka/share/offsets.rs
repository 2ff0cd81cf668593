//! Where share groups stand: DescribeShareGroupOffsets (90), AlterShareGroupOffsets (91), DeleteShareGroupOffsets (92),
//! version 0. A group's offset in a partition is that of the first record that it has not processed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_share_group_offsets_response as altered;
use kafka_protocol::messages::delete_share_group_offsets_response as deleted;
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::describe_share_group_offsets_response as described;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::of_share;
use crate::broker::Stream;
use crate::kafka::{Context, names};
use crate::model::ids::{Offset, PartitionId, PartitionIndex, StreamId};
use crate::share::{ShareError, StartOffset};

/// The offset of a partition that the group has not begun with.
const NONE_YET: Offset = -1;

type DescribedPartition = described::DescribeShareGroupOffsetsResponsePartition;
type DescribedTopic = described::DescribeShareGroupOffsetsResponseTopic;
type DescribedGroup = described::DescribeShareGroupOffsetsResponseGroup;

/// DescribeShareGroupOffsets: of the partitions named, or of all that the group has begun with.
pub async fn describe_share_group_offsets(
    cx: Context,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let groups = request.groups.into_iter().map(|group| describe_group(&cx, group));
    DescribeShareGroupOffsetsResponse::default().with_groups(groups.collect())
}

fn describe_group(cx: &Context, group: DescribeShareGroupOffsetsRequestGroup) -> DescribedGroup {
    let starts = cx.door.shares.start_offsets(&group.group_id);
    let answer = DescribedGroup::default().with_group_id(group.group_id.clone());
    let Some(starts) = starts else {
        let message = format!("Group {} not found.", group.group_id.as_str());
        return answer
            .with_error_code(of_share(ShareError::GroupIdNotFound).code())
            .with_error_message(names::message(message));
    };
    let starts: BTreeMap<PartitionId, Offset> = starts.iter().map(|start| (start.id, start.offset)).collect();
    match group.topics {
        None => answer.with_topics(describe_all(cx, &starts)),
        Some(topics) => {
            let described = topics.into_iter().map(|topic| {
                let stream = cx.door.broker.stream(&topic.topic_name);
                let indexes = topic.partitions;
                describe_topic(topic.topic_name, stream.as_deref(), &indexes, &starts)
            });
            answer.with_topics(described.collect())
        }
    }
}

fn describe_all(cx: &Context, starts: &BTreeMap<PartitionId, Offset>) -> Vec<DescribedTopic> {
    let streams: HashMap<StreamId, Arc<Stream>> =
        cx.door.broker.streams().into_iter().map(|stream| (stream.id, stream)).collect();
    let mut topics: BTreeMap<StreamId, Vec<i32>> = BTreeMap::new();
    for id in starts.keys() {
        topics.entry(id.stream).or_default().push(id.index.0 as i32);
    }
    let described = topics.into_iter().filter_map(|(id, indexes)| {
        let stream = streams.get(&id)?;
        Some(describe_topic(TopicName(StrBytes::from_string(stream.name.to_string())), Some(stream), &indexes, starts))
    });
    described.collect()
}

/// What does not exist, or was not begun with, has no offset, which is no error.
fn describe_topic(
    name: TopicName,
    stream: Option<&Stream>,
    indexes: &[i32],
    starts: &BTreeMap<PartitionId, Offset>,
) -> DescribedTopic {
    let partitions = indexes.iter().map(|index| {
        let id = stream.and_then(|stream| partition_id(stream, *index));
        let offset = id.and_then(|id| starts.get(&id)).copied();
        let epoch = stream.zip(id).and_then(|(stream, id)| stream.leader_epoch(id.index));
        DescribedPartition::default()
            .with_partition_index(*index)
            .with_start_offset(offset.unwrap_or(NONE_YET))
            .with_leader_epoch(epoch.unwrap_or(0))
    });
    DescribedTopic::default()
        .with_topic_name(name)
        .with_topic_id(stream.map(|stream| stream.topic_id).unwrap_or_default())
        .with_partitions(partitions.collect())
}

fn partition_id(stream: &Stream, index: i32) -> Option<PartitionId> {
    let index = PartitionIndex(u32::try_from(index).ok()?);
    stream.partition(index).map(|partition| partition.id)
}

/// AlterShareGroupOffsets: for a group without members. One that does not exist comes into being.
pub async fn alter_share_group_offsets(
    cx: Context,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    let mut starts = Vec::new();
    let topics = request.topics.into_iter().map(|topic| {
        let stream = cx.door.broker.stream(&topic.topic_name);
        let partitions = topic.partitions.into_iter().map(|partition| {
            let answer = altered::AlterShareGroupOffsetsResponsePartition::default();
            let answer = answer.with_partition_index(partition.partition_index);
            let id = stream.as_ref().and_then(|stream| partition_id(stream, partition.partition_index));
            match id {
                None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                Some(_) if partition.start_offset < 0 => answer.with_error_code(ResponseError::InvalidRequest.code()),
                Some(id) => {
                    starts.push(StartOffset { id, offset: partition.start_offset });
                    answer
                }
            }
        });
        let partitions = partitions.collect();
        altered::AlterShareGroupOffsetsResponseTopic::default()
            .with_topic_name(topic.topic_name)
            .with_topic_id(stream.as_ref().map(|stream| stream.topic_id).unwrap_or_default())
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    match cx.door.shares.set_start_offsets(&request.group_id, &starts).await {
        Ok(()) => AlterShareGroupOffsetsResponse::default().with_responses(topics),
        Err(failure) => AlterShareGroupOffsetsResponse::default()
            .with_error_code(of_share(failure).code())
            .with_error_message(names::message(failure.to_string())),
    }
}

/// DeleteShareGroupOffsets: a group without members forgets topics, and begins anew with them when it comes back.
pub async fn delete_share_group_offsets(
    cx: Context,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let mut streams = Vec::new();
    let topics = request.topics.into_iter().map(|topic| {
        let answer = deleted::DeleteShareGroupOffsetsResponseTopic::default();
        let stream = cx.door.broker.stream(&topic.topic_name);
        let answer = answer.with_topic_name(topic.topic_name);
        match stream {
            None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            Some(stream) => {
                streams.push(stream.id);
                answer.with_topic_id(stream.topic_id)
            }
        }
    });
    let topics = topics.collect();
    match cx.door.shares.forget_offsets(&request.group_id, &streams).await {
        Ok(()) => DeleteShareGroupOffsetsResponse::default().with_responses(topics),
        Err(failure) => DeleteShareGroupOffsetsResponse::default()
            .with_error_code(of_share(failure).code())
            .with_error_message(names::message(failure.to_string())),
    }
}
