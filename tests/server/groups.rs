//! Consumer groups over a socket: what a client of each version sees, and what it finds after a crash.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Message;

use crate::harness::{Broker, Client, text, topic};

impl Client {
    /// Joins as a new member would, with the second request where the version asks for it.
    pub async fn join(&mut self, version: i16) -> JoinGroupResponse {
        let response = self.call(join(""), version).await;
        if response.error_code != ResponseError::MemberIdRequired.code() {
            return response;
        }
        assert!(version >= 4);
        self.call(join(&response.member_id), version).await
    }

    pub async fn sync_as_leader(&mut self, joined: &JoinGroupResponse, version: i16) -> SyncGroupResponse {
        let assigned = joined.members.iter().map(|member| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(Bytes::from(format!("for {}", member.member_id.as_str())))
        });
        let request = sync(joined, version).with_assignments(assigned.collect());
        self.call(request, version).await
    }

    pub async fn heartbeat(&mut self, joined: &JoinGroupResponse, version: i16) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group("g"))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone());
        self.call(request, version).await.error_code
    }

    /// Of partition 0, as the newest version tells it.
    async fn committed(&mut self, group_id: &str, topic_name: &str) -> i64 {
        let topics = OffsetFetchRequestTopics::default().with_name(topic(topic_name)).with_partition_indexes(vec![0]);
        let wanted = OffsetFetchRequestGroup::default()
            .with_group_id(group(group_id))
            .with_member_epoch(-1)
            .with_topics(Some(vec![topics]));
        let request = OffsetFetchRequest::default().with_groups(vec![wanted]).with_require_stable(true);
        self.call(request, 9).await.groups[0].topics[0].partitions[0].committed_offset
    }
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn join(member_id: &str) -> JoinGroupRequest {
    // A consumer's subscription to topic t.
    let metadata = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff]);
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata);
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn sync(joined: &JoinGroupResponse, version: i16) -> SyncGroupRequest {
    let request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    if version < 5 {
        return request;
    }
    request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")))
}

pub fn commit(group_id: &str, topic_name: &str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default().with_name(topic(topic_name)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group(group_id))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn versions<R: Message>() -> std::ops::RangeInclusive<i16> {
    R::VERSIONS.min..=R::VERSIONS.max
}

#[tokio::test]
async fn two_members_rebalance_in_every_version() {
    let broker = Broker::start().await;
    for version in versions::<JoinGroupRequest>() {
        let (sync_version, beat_version, leave_version) = (version.min(5), version.min(4), version.min(5));
        let (mut first, mut second) = (broker.connect().await, broker.connect().await);
        let alone = first.join(version).await;
        assert_eq!((alone.error_code, &alone.leader), (0, &alone.member_id), "version {version}");
        let synced = first.sync_as_leader(&alone, sync_version).await;
        assert_eq!(synced.assignment, format!("for {}", alone.member_id.as_str()));
        assert_eq!(first.heartbeat(&alone, beat_version).await, 0);

        let member_id = match version {
            4.. => second.call(join(""), version).await.member_id,
            _ => text(""),
        };
        second.send(join(&member_id), version).await;
        // The second member's join is parked on its own connection: the first one learns of it by its heartbeat.
        while first.heartbeat(&alone, beat_version).await != ResponseError::RebalanceInProgress.code() {}
        let leader = first.call(join(&alone.member_id), version).await;
        let follower = second.receive::<JoinGroupRequest>(version).await;
        assert_eq!((leader.generation_id, follower.generation_id), (alone.generation_id + 1, alone.generation_id + 1));
        assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
        assert_eq!(follower.protocol_name.as_deref(), Some("range"));

        second.send(sync(&follower, sync_version), sync_version).await;
        assert_eq!(first.sync_as_leader(&leader, sync_version).await.error_code, 0);
        let synced = second.receive::<SyncGroupRequest>(sync_version).await;
        assert_eq!(synced.assignment, format!("for {}", follower.member_id.as_str()));

        for (client, joined) in [(&mut second, &follower), (&mut first, &leader)] {
            let request = LeaveGroupRequest::default().with_group_id(group("g"));
            let request = if leave_version < 3 {
                request.with_member_id(joined.member_id.clone())
            } else {
                request.with_members(vec![MemberIdentity::default().with_member_id(joined.member_id.clone())])
            };
            let left = client.call(request, leave_version).await;
            assert_eq!(left.error_code, 0);
            assert!(left.members.iter().all(|member| member.error_code == 0));
            assert_eq!(client.heartbeat(joined, beat_version).await, ResponseError::UnknownMemberId.code());
        }
    }
}

#[tokio::test]
async fn errors_reach_clients_under_kafkas_codes() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    let refused = client.call(join("").with_session_timeout_ms(1), 9).await;
    assert_eq!(refused.error_code, ResponseError::InvalidSessionTimeout.code());
    let refused = client.call(join("").with_group_id(group("")), 0).await;
    assert_eq!(refused.error_code, ResponseError::InvalidGroupId.code());
    let refused = client.call(join("").with_protocols(vec![]), 5).await;
    assert_eq!(refused.error_code, ResponseError::InconsistentGroupProtocol.code());
    let joined = client.join(9).await;
    let refused = client.call(sync(&joined, 0), 5).await;
    assert_eq!(refused.error_code, ResponseError::InconsistentGroupProtocol.code(), "version 5 must name its protocol");
    let request = LeaveGroupRequest::default().with_group_id(group("nobody")).with_member_id(text("m"));
    assert_eq!(client.call(request, 0).await.error_code, ResponseError::UnknownMemberId.code());
}

#[tokio::test]
async fn offsets_are_committed_and_fetched_in_every_version() {
    let broker = Broker::start().await;
    broker.create_topic("t", 2).await;
    let mut client = broker.connect().await;
    for version in versions::<OffsetCommitRequest>() {
        let offset = i64::from(version) * 10;
        let committed = client.call(commit("g", "t", 0, offset), version).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0, "version {version}");
        assert_eq!(client.committed("g", "t").await, offset);
    }
    for version in versions::<OffsetFetchRequest>() {
        let partitions = if version < 8 {
            let wanted = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![0, 1]);
            let request = OffsetFetchRequest::default().with_group_id(group("g")).with_topics(Some(vec![wanted]));
            let response = client.call(request, version).await;
            let told = |index: usize| {
                let partition = &response.topics[0].partitions[index];
                (partition.committed_offset, partition.metadata.as_deref().unwrap_or_default().to_owned())
            };
            [told(0), told(1)]
        } else {
            let wanted = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0, 1]);
            let group = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(Some(vec![wanted]));
            let response = client.call(OffsetFetchRequest::default().with_groups(vec![group]), version).await;
            let told = |index: usize| {
                let partition = &response.groups[0].topics[0].partitions[index];
                (partition.committed_offset, partition.metadata.as_deref().unwrap_or_default().to_owned())
            };
            [told(0), told(1)]
        };
        assert_eq!(partitions, [(90, "note".to_owned()), (-1, String::new())], "version {version}");
    }
    let all = OffsetFetchRequest::default().with_group_id(group("g")).with_topics(None);
    let all = client.call(all, 2).await;
    assert_eq!((all.topics.len(), all.topics[0].partitions.len()), (1, 1));
}

#[tokio::test]
async fn only_what_exists_is_committed() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    for (name, partition) in [("unknown", 0), ("t", 1), ("t", -1)] {
        let refused = client.call(commit("g", name, partition, 1), 9).await;
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(refused.topics[0].partitions[0].error_code, unknown, "{name}-{partition}");
    }
    let member = commit("g", "t", 0, 1).with_generation_id_or_member_epoch(3).with_member_id(text("m"));
    let code = |response: OffsetCommitResponse| response.topics[0].partitions[0].error_code;
    assert_eq!(code(client.call(member.clone(), 8).await), ResponseError::IllegalGeneration.code());
    assert_eq!(code(client.call(member, 9).await), ResponseError::GroupIdNotFound.code());
    assert!(client.call(ListGroupsRequest::default(), 5).await.groups.is_empty());
}

#[tokio::test]
async fn a_crash_leaves_members_in_their_generation_and_offsets_where_they_were() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let joined = client.join(9).await;
    client.sync_as_leader(&joined, 5).await;
    let commit = commit("g", "t", 0, 42)
        .with_member_id(joined.member_id.clone())
        .with_generation_id_or_member_epoch(joined.generation_id);
    assert_eq!(client.call(commit, 9).await.topics[0].partitions[0].error_code, 0);

    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!(client.heartbeat(&joined, 4).await, 0);
    assert_eq!(client.committed("g", "t").await, 42);
    let synced = client.call(sync(&joined, 5), 5).await;
    assert_eq!(synced.assignment, format!("for {}", joined.member_id.as_str()));
    broker.clock.advance(10_000);
    while client.heartbeat(&joined, 4).await == 0 {
        // It came before the timer, and has renewed the session.
        broker.clock.advance(10_000);
    }
    assert_eq!(client.heartbeat(&joined, 4).await, ResponseError::UnknownMemberId.code(), "its session has ended");
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let joined = client.join(9).await;
    client.sync_as_leader(&joined, 5).await;
    client.call(commit("simple", "t", 0, 1), 9).await;

    for version in versions::<ListGroupsRequest>() {
        let request = ListGroupsRequest::default();
        let request = if version < 4 { request } else { request.with_states_filter(vec![text("stable")]) };
        let listed = client.call(request, version).await.groups;
        assert_eq!(listed.len(), if version < 4 { 2 } else { 1 }, "version {version}");
        if version == 5 {
            assert_eq!((&*listed[0].group_state, &*listed[0].group_type), ("Stable", "classic"));
        }
    }
    for version in versions::<DescribeGroupsRequest>() {
        let request = DescribeGroupsRequest::default()
            .with_groups(vec![group("g"), group("nobody"), group("g")])
            .with_include_authorized_operations(version >= 3);
        let described = client.call(request, version).await.groups;
        assert_eq!(described.len(), 2, "each once");
        assert_eq!((&*described[0].group_state, &*described[0].protocol_data), ("Stable", "range"));
        assert_eq!(described[0].members[0].client_host.as_str(), "/127.0.0.1");
        assert_eq!(described[0].members[0].client_id.as_str(), "client");
        let missing = if version < 6 { 0 } else { ResponseError::GroupIdNotFound.code() };
        assert_eq!((&*described[1].group_state, described[1].error_code), ("Dead", missing));
    }
    for version in versions::<DeleteGroupsRequest>() {
        client.call(commit("simple", "t", 0, 1), 9).await;
        let request =
            DeleteGroupsRequest::default().with_groups_names(vec![group("g"), group("simple"), group("nobody")]);
        let codes: Vec<i16> =
            client.call(request, version).await.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ResponseError::NonEmptyGroup.code(), 0, ResponseError::GroupIdNotFound.code()]);
        assert_eq!(client.committed("simple", "t").await, -1);
    }
}

#[tokio::test]
async fn offsets_are_deleted_one_by_one_and_with_their_topic() {
    let broker = Broker::start().await;
    for name in ["t", "u"] {
        broker.create_topic(name, 1).await;
    }
    let mut client = broker.connect().await;
    for name in ["t", "u"] {
        client.call(commit("g", name, 0, 7), 9).await;
    }
    let delete = |name: &str, index| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(index);
        let topic = OffsetDeleteRequestTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
        OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![topic])
    };
    let response = client.call(delete("t", 0), 0).await;
    assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, 0));
    assert_eq!((client.committed("g", "t").await, client.committed("g", "u").await), (-1, 7));
    let response = client.call(delete("u", 5), 0).await;
    assert_eq!(response.topics[0].partitions[0].error_code, ResponseError::UnknownTopicOrPartition.code());

    client.delete_topic("u").await;
    broker.create_topic("u", 1).await;
    assert_eq!(client.committed("g", "u").await, -1, "a new topic begins anew");
}

#[tokio::test]
async fn this_broker_coordinates_every_group_and_transaction() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    let port = i32::from(broker.server.kafka_addrs()[0].port());
    for version in versions::<FindCoordinatorRequest>() {
        let found = if version < 4 {
            let found = client.call(FindCoordinatorRequest::default().with_key(text("g")), version).await;
            (found.error_code, found.host.to_string(), found.port)
        } else {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("h")]);
            let found = client.call(request, version).await.coordinators;
            assert_eq!((&*found[0].key, &*found[1].key), ("g", "h"));
            (found[1].error_code, found[1].host.to_string(), found[1].port)
        };
        assert_eq!(found, (0, "127.0.0.1".to_owned(), port), "version {version}");
        if version >= 1 {
            let request = FindCoordinatorRequest::default().with_key_type(1);
            let request =
                if version < 4 { request.with_key(text("x")) } else { request.with_coordinator_keys(vec![text("x")]) };
            let found = client.call(request, version).await;
            let found =
                found.coordinators.first().map_or((found.error_code, found.port), |one| (one.error_code, one.port));
            assert_eq!(found, (0, port), "version {version}");
        }
    }
}
