//! Groups that the coordinator assigns (KIP-848): ConsumerGroupHeartbeat (68), ConsumerGroupDescribe (69).

use std::collections::BTreeSet;

use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
};
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment as Assigned, TopicPartitions};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, GroupId,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::GROUP_OPERATIONS;
use super::{owned, string};
use crate::broker::Broker;
use crate::group::GroupError;
use crate::group::consumer::{
    Assignment, ConsumerDescription, ConsumerMemberDescription, ConsumerState, HeartbeatAnswer, HeartbeatRequest,
};
use crate::kafka::error;
use crate::kafka::{Context, names};

/// ConsumerGroupHeartbeat versions in which members make their own ids (KIP-1082) and may subscribe by expression.
const OWN_MEMBER_ID_FROM: i16 = 1;
/// ConsumerGroupDescribe versions that tell members of the classic protocol apart.
const MEMBER_TYPE_FROM: i16 = 1;
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;
/// What is not said, in both directions.
const UNSAID: i32 = -1;

/// ConsumerGroupHeartbeat, versions 0 and 1.
pub async fn consumer_group_heartbeat(
    cx: Context,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    if cx.version >= OWN_MEMBER_ID_FROM && request.member_id.is_empty() {
        return heartbeat_response(Err(GroupError::InvalidRequest("MemberId can't be empty.")));
    }
    let group_id = request.group_id.clone();
    let client_id = cx.client_id.as_deref().unwrap_or_default().to_owned();
    let client_host = format!("/{}", cx.client.peer.ip());
    let request = heartbeat_request(request, client_id, client_host);
    heartbeat_response(cx.door.groups.heartbeat_consumer(&group_id, request).await)
}

fn heartbeat_request(
    request: ConsumerGroupHeartbeatRequest,
    client_id: String,
    client_host: String,
) -> HeartbeatRequest {
    let topics = request.subscribed_topic_names;
    let partitions = request.topic_partitions;
    HeartbeatRequest {
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        group_instance_id: owned(request.instance_id),
        client_id,
        client_host,
        rack_id: owned(request.rack_id),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout_ms| *timeout_ms != UNSAID),
        subscribed_topics: topics.map(|topics| topics.iter().map(|topic| topic.to_string()).collect()),
        subscribed_regex: owned(request.subscribed_topic_regex),
        server_assignor: owned(request.server_assignor),
        owned: partitions.map(|topics| topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect()),
    }
}

fn heartbeat_response(answer: Result<HeartbeatAnswer, GroupError>) -> ConsumerGroupHeartbeatResponse {
    match answer {
        Ok(answer) => ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(string(answer.member_id)))
            .with_member_epoch(answer.member_epoch)
            .with_heartbeat_interval_ms(answer.heartbeat_interval_ms)
            .with_assignment(answer.assignment.map(assigned)),
        Err(error) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error::of_group(error).code())
            .with_error_message(names::message(error.to_string())),
    }
}

fn assigned(assignment: Assignment) -> Assigned {
    let topic = |(topic_id, partitions): (Uuid, BTreeSet<u32>)| {
        TopicPartitions::default().with_topic_id(topic_id).with_partitions(indexes(&partitions))
    };
    Assigned::default().with_topic_partitions(assignment.into_iter().map(topic).collect())
}

fn indexes(partitions: &BTreeSet<u32>) -> Vec<i32> {
    partitions.iter().filter_map(|partition| i32::try_from(*partition).ok()).collect()
}

/// ConsumerGroupDescribe, versions 0 and 1.
pub async fn consumer_group_describe(
    cx: Context,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    // Each once: a description can be large, and a request could name it a million times.
    let wanted: IndexSet<GroupId> = request.group_ids.into_iter().collect();
    let described = wanted.into_iter().map(|group_id| {
        let Some(description) = cx.door.groups.describe_consumer(&group_id) else {
            return missing(&cx, group_id);
        };
        let described = described(group_id, description, cx.version, &cx.door.broker);
        if request.include_authorized_operations {
            described.with_authorized_operations(GROUP_OPERATIONS)
        } else {
            described
        }
    });
    ConsumerGroupDescribeResponse::default().with_groups(described.collect())
}

fn missing(cx: &Context, group_id: GroupId) -> DescribedGroup {
    let message = match cx.door.groups.group_type(&group_id) {
        Some(_) => format!("Group {} is not a consumer group.", group_id.as_str()),
        None => format!("Group {} not found.", group_id.as_str()),
    };
    DescribedGroup::default()
        .with_group_id(group_id)
        .with_group_state(StrBytes::from_static_str(ConsumerState::Dead.name()))
        .with_error_code(ResponseError::GroupIdNotFound.code())
        .with_error_message(names::message(message))
}

fn described(group_id: GroupId, group: ConsumerDescription, version: i16, broker: &Broker) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(group_id)
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_group_epoch(group.group_epoch)
        .with_assignment_epoch(group.assignment_epoch)
        .with_assignor_name(StrBytes::from_static_str(group.assignor))
        .with_members(group.members.into_iter().map(|member| described_member(member, version, broker)).collect())
}

fn described_member(member: ConsumerMemberDescription, version: i16, broker: &Broker) -> Member {
    let member_type = if member.is_classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER };
    let described = Member::default()
        .with_member_id(string(member.member_id))
        .with_instance_id(member.group_instance_id.map(string))
        .with_rack_id(member.rack_id.map(string))
        .with_member_epoch(member.member_epoch)
        .with_client_id(string(member.client_id))
        .with_client_host(string(member.client_host))
        .with_subscribed_topic_names(member.topics.iter().map(|topic| names::topic(topic)).collect())
        .with_subscribed_topic_regex(member.regex.map(string))
        .with_assignment(described_assignment(member.assigned, broker))
        .with_target_assignment(described_assignment(member.target, broker));
    if version >= MEMBER_TYPE_FROM { described.with_member_type(member_type) } else { described }
}

/// Topics that are gone since are left out, as they have no name any more.
fn described_assignment(assignment: Assignment, broker: &Broker) -> DescribedAssignment {
    let topics = assignment.into_iter().filter_map(|(topic_id, partitions)| {
        let stream = broker.stream_by_topic_id(topic_id)?;
        let topic = DescribedPartitions::default()
            .with_topic_id(topic_id)
            .with_topic_name(names::topic(&stream.name))
            .with_partitions(indexes(&partitions));
        Some(topic)
    });
    DescribedAssignment::default().with_topic_partitions(topics.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as Owned;
    use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
    use kafka_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};

    use super::*;
    use crate::kafka::groups::{group_id, offset_commit, offset_fetch};
    use crate::kafka::tests::fixture::{Fixture, encodes};

    fn text(text: &str) -> StrBytes {
        string(text.to_owned())
    }

    fn join(member_id: &str) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id("g"))
            .with_member_id(text(member_id))
            .with_rebalance_timeout_ms(60_000)
            .with_subscribed_topic_names(Some(vec![names::topic("t")]))
            .with_topic_partitions(Some(Vec::new()))
    }

    async fn beat(
        fixture: &Fixture,
        version: i16,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        encodes(consumer_group_heartbeat(fixture.cx(version), request).await, version)
    }

    async fn describe(fixture: &Fixture, version: i16, group: &str) -> DescribedGroup {
        let request = ConsumerGroupDescribeRequest::default()
            .with_group_ids(vec![group_id(group), group_id(group)])
            .with_include_authorized_operations(true);
        let mut response = encodes(consumer_group_describe(fixture.cx(version), request).await, version);
        assert_eq!(response.groups.len(), 1, "each once");
        response.groups.remove(0)
    }

    #[tokio::test]
    async fn members_join_go_on_and_leave_in_both_versions() {
        let fixture = Fixture::new();
        let stream = fixture.topic("t", 3).await;
        for version in 0..=1 {
            let joined = beat(&fixture, version, join("m")).await;
            assert_eq!((joined.error_code, joined.heartbeat_interval_ms), (0, 5_000));
            let assignment = joined.assignment.unwrap();
            assert_eq!(assignment.topic_partitions.len(), 1);
            let given = &assignment.topic_partitions[0];
            assert_eq!((given.topic_id, &given.partitions[..]), (stream.topic_id, &[0, 1, 2][..]));
            let owned = Owned::default().with_topic_id(stream.topic_id).with_partitions(vec![0, 1, 2]);
            let more = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group_id("g"))
                .with_member_id(text("m"))
                .with_member_epoch(joined.member_epoch)
                .with_topic_partitions(Some(vec![owned]));
            assert_eq!(beat(&fixture, version, more.clone()).await.assignment, None);
            let fenced = beat(&fixture, version, more.clone().with_member_epoch(99)).await;
            assert_eq!(fenced.error_code, ResponseError::FencedMemberEpoch.code());
            assert!(fenced.error_message.is_some());
            assert_eq!(beat(&fixture, version, more.with_member_epoch(-1)).await.member_epoch, -1);
        }
        let unnamed = beat(&fixture, 0, join("")).await;
        assert!(!unnamed.member_id.unwrap().is_empty());
        assert_eq!(beat(&fixture, 1, join("")).await.error_code, ResponseError::InvalidRequest.code());
    }

    #[tokio::test]
    async fn groups_are_described_with_what_members_have() {
        let fixture = Fixture::new();
        fixture.topic("t", 2).await;
        beat(&fixture, 1, join("m")).await;
        for version in 0..=1 {
            let group = describe(&fixture, version, "g").await;
            assert_eq!((&*group.group_state, &*group.assignor_name, group.group_epoch), ("Stable", "uniform", 1));
            assert_eq!(group.authorized_operations, GROUP_OPERATIONS);
            let member = &group.members[0];
            assert_eq!((&*member.member_id, &*member.client_host, member.member_epoch), ("m", "/127.0.0.1", 1));
            assert_eq!(member.member_type, if version == 0 { -1 } else { CONSUMER_MEMBER });
            let topics = &member.assignment.topic_partitions;
            assert_eq!((topics[0].topic_name.as_str(), &topics[0].partitions[..]), ("t", &[0, 1][..]));
            assert_eq!(member.target_assignment, member.assignment);
        }
        let nobody = describe(&fixture, 1, "nobody").await;
        assert_eq!((nobody.error_code, nobody.error_message.unwrap().as_str()), (69, "Group nobody not found."));
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
        let topic = OffsetCommitRequestTopic::default().with_name(names::topic("t")).with_partitions(vec![partition]);
        let commit = OffsetCommitRequest::default().with_group_id(group_id("simple")).with_topics(vec![topic]);
        let commit = commit.with_generation_id_or_member_epoch(-1);
        assert_eq!(offset_commit(fixture.cx(9), commit).await.topics[0].partitions[0].error_code, 0);
        let simple = describe(&fixture, 1, "simple").await;
        assert_eq!(simple.error_message.unwrap().as_str(), "Group simple is not a consumer group.");
    }

    #[tokio::test]
    async fn offsets_are_told_to_members_that_know_their_epoch() {
        let fixture = Fixture::new();
        fixture.topic("t", 1).await;
        beat(&fixture, 1, join("m")).await;
        let fetch = async |member: Option<&str>, epoch| {
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(group_id("g"))
                .with_member_id(member.map(text))
                .with_member_epoch(epoch)
                .with_topics(None);
            let request = OffsetFetchRequest::default().with_groups(vec![group]);
            encodes(offset_fetch(fixture.cx(9), request).await, 9).groups[0].error_code
        };
        assert_eq!(fetch(None, -1).await, 0, "an administrator");
        assert_eq!(fetch(Some("m"), 1).await, 0);
        assert_eq!(fetch(Some("m"), 2).await, ResponseError::StaleMemberEpoch.code());
        assert_eq!(fetch(Some("who"), 1).await, ResponseError::UnknownMemberId.code());
    }
}
