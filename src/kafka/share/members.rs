//! What members ask, and what is asked about them: ShareGroupHeartbeat (76), ShareGroupDescribe (77), version 1.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_group_describe_response as describe;
use kafka_protocol::messages::share_group_heartbeat_response as heartbeat;
use kafka_protocol::messages::{
    GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse, ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{is_member_id, of_share};
use crate::kafka::{Context, names};
use crate::share::membership::{ASSIGNOR, Assignment, Beat, Heartbeat, JOIN_EPOCH, LEAVE_EPOCH, Member};
use crate::share::{Description, ShareError};

/// What everyone may do with a group, as Kafka's bits: read 3, delete 6, describe 8.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

/// ShareGroupHeartbeat: a member joins (epoch 0), goes on, or leaves (epoch -1). It makes its id itself.
pub async fn share_group_heartbeat(cx: Context, request: ShareGroupHeartbeatRequest) -> ShareGroupHeartbeatResponse {
    if let Some(fault) = fault(&request) {
        return ShareGroupHeartbeatResponse::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(names::message(fault));
    }
    let (group_id, member_id) = (request.group_id.clone(), request.member_id.to_string());
    let answer = if request.member_epoch == LEAVE_EPOCH {
        let left = cx.door.shares.leave(&group_id, &member_id).await;
        left.map(|()| Beat { epoch: LEAVE_EPOCH, assignment: None })
    } else {
        cx.door.shares.heartbeat(&group_id, beat(&cx, request)).await
    };
    let interval_ms = cx.door.shares.settings_of(&group_id).heartbeat_interval_ms;
    match answer {
        Ok(beat) => ShareGroupHeartbeatResponse::default()
            .with_member_id(Some(StrBytes::from_string(member_id)))
            .with_member_epoch(beat.epoch)
            .with_heartbeat_interval_ms(i32::try_from(interval_ms).unwrap_or(i32::MAX))
            .with_assignment(beat.assignment.map(assigned)),
        Err(failure) => ShareGroupHeartbeatResponse::default()
            .with_error_code(of_share(failure).code())
            .with_error_message(names::message(failure.to_string())),
    }
}

/// Why a heartbeat makes no sense, in Kafka's words.
fn fault(request: &ShareGroupHeartbeatRequest) -> Option<&'static str> {
    let blank = |text: &str| text.trim().is_empty();
    let subscribes = request.subscribed_topic_names.as_ref().is_some_and(|topics| !topics.is_empty());
    if blank(&request.group_id) {
        Some("GroupId can't be empty.")
    } else if !is_member_id(&request.member_id) {
        Some("MemberId can't be empty and no longer than that of a UUID.")
    } else if request.member_epoch < LEAVE_EPOCH {
        Some("MemberEpoch is invalid.")
    } else if request.rack_id.as_deref().is_some_and(blank) {
        Some("RackId can't be empty.")
    } else if request.member_epoch == JOIN_EPOCH && !subscribes {
        Some("SubscribedTopicNames must be set in first request.")
    } else {
        None
    }
}

fn beat(cx: &Context, request: ShareGroupHeartbeatRequest) -> Heartbeat {
    let names = |topics: Vec<TopicName>| topics.iter().map(|topic| topic.to_string()).collect::<BTreeSet<_>>();
    Heartbeat {
        member_id: request.member_id.to_string(),
        epoch: request.member_epoch,
        client_id: cx.client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: format!("/{}", cx.client.peer.ip()),
        rack_id: request.rack_id.map(|rack| rack.to_string()),
        subscribed: request.subscribed_topic_names.map(names),
    }
}

fn assigned(assignment: Assignment) -> heartbeat::Assignment {
    let topics = assignment.into_iter().map(|(topic_id, partitions)| {
        heartbeat::TopicPartitions::default()
            .with_topic_id(topic_id)
            .with_partitions(partitions.into_iter().map(|index| index as i32).collect())
    });
    heartbeat::Assignment::default().with_topic_partitions(topics.collect())
}

/// ShareGroupDescribe: each group once, for a description can be large and a request could name it a million times.
pub async fn share_group_describe(cx: Context, request: ShareGroupDescribeRequest) -> ShareGroupDescribeResponse {
    let wanted: IndexSet<GroupId> = request.group_ids.into_iter().collect();
    let groups = wanted.into_iter().map(|group_id| {
        let Some(description) = cx.door.shares.describe(&group_id) else { return missing(group_id) };
        let described = described(&cx, description).with_group_id(group_id);
        if request.include_authorized_operations {
            described.with_authorized_operations(GROUP_OPERATIONS)
        } else {
            described
        }
    });
    ShareGroupDescribeResponse::default().with_groups(groups.collect())
}

fn missing(group_id: GroupId) -> describe::DescribedGroup {
    let message = names::message(format!("Group {} not found.", group_id.as_str()));
    describe::DescribedGroup::default()
        .with_error_code(of_share(ShareError::GroupIdNotFound).code())
        .with_error_message(message)
        .with_group_id(group_id)
        .with_group_state(StrBytes::from_static_str("Dead"))
}

fn described(cx: &Context, description: Description) -> describe::DescribedGroup {
    let members = description.members.into_iter().map(|(member_id, member)| described_member(cx, member_id, member));
    describe::DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(description.state.name()))
        .with_group_epoch(description.epoch)
        .with_assignment_epoch(description.epoch)
        .with_assignor_name(StrBytes::from_static_str(ASSIGNOR))
        .with_members(members.collect())
}

fn described_member(cx: &Context, member_id: String, member: Member) -> describe::Member {
    let topic = |name: String| TopicName(StrBytes::from_string(name));
    let topics = member.assignment.into_iter().filter_map(|(topic_id, partitions)| {
        // One that was deleted is no longer assigned, as soon as a member is heard of.
        let stream = cx.door.broker.stream_by_topic_id(topic_id)?;
        let partitions = partitions.into_iter().map(|index| index as i32).collect();
        let assigned = describe::TopicPartitions::default().with_topic_id(topic_id).with_partitions(partitions);
        Some(assigned.with_topic_name(topic(stream.name.to_string())))
    });
    describe::Member::default()
        .with_member_id(StrBytes::from_string(member_id))
        .with_rack_id(member.rack_id.map(StrBytes::from_string))
        .with_member_epoch(member.epoch)
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_subscribed_topic_names(member.subscribed.into_iter().map(topic).collect())
        .with_assignment(describe::Assignment::default().with_topic_partitions(topics.collect()))
}
