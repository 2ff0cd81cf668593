//! A sound request for every API and version, about partition 0 of a topic `t` that exists.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;
use kafka_protocol::messages::{
    alter_client_quotas_request, alter_user_scram_credentials_request, create_acls_request, delete_acls_request,
    describe_client_quotas_request, update_features_request,
};
use kafka_protocol::messages::{
    alter_configs_request, describe_producers_request, describe_quorum_request, describe_topic_partitions_request,
    incremental_alter_configs_request,
};
use kafka_protocol::messages::{share_acknowledge_request, share_fetch_request};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use uuid::Uuid;

use crate::harness::{self, batch, text, topic};

/// One API.
pub struct Sample {
    pub key: i16,
    /// The frame of a version.
    pub frame: Box<dyn Fn(i16) -> BytesMut>,
    /// Reads an answer of a version to its last byte; its correlation id.
    pub decode: fn(Bytes, i16) -> i32,
}

pub const CORRELATION_ID: i32 = 0x0bad_cafe;

fn sample<R: Request + 'static>(make: impl Fn(i16) -> R + 'static) -> Sample {
    Sample {
        key: R::KEY,
        frame: Box::new(move |version| harness::frame(&make(version), version, CORRELATION_ID)),
        decode: decode::<R>,
    }
}

fn decode<R: Request>(mut frame: Bytes, version: i16) -> i32 {
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
    R::Response::decode(&mut frame, version).unwrap();
    assert_eq!(frame.remaining(), 0, "bytes left over in the answer to {} version {version}", R::KEY);
    header.correlation_id
}

pub fn all(topic_id: Uuid) -> Vec<Sample> {
    let share_groups = share_groups(topic_id);
    let groups = [groups(), consumer_groups(), share_groups].into_iter().flatten().collect();
    let all = [records(topic_id), transactions(), groups, topics(), settings(), cluster(), clients()];
    all.into_iter().flatten().collect()
}

fn records(topic_id: Uuid) -> Vec<Sample> {
    vec![
        sample(move |version| {
            let mut request = harness::produce("t", 0, batch(&["value"]), -1);
            if version >= 13 {
                request.topic_data[0].name = topic("");
                request.topic_data[0].topic_id = topic_id;
            }
            request
        }),
        sample(move |version| {
            let mut request = harness::fetch("t", &[(0, 0)]);
            if version >= 13 {
                request.topics[0].topic = topic("");
                request.topics[0].topic_id = topic_id;
            }
            request
        }),
        sample(|_| {
            let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
        }),
        sample(|_| {
            let partition = DeleteRecordsPartition::default().with_offset(0);
            let topic = DeleteRecordsTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000)
        }),
        sample(|_| {
            let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
            let topic = OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
        }),
        sample(|_| {
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(1_000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        }),
        sample(|_| {
            let topic = describe_producers_request::TopicRequest::default()
                .with_name(topic("t"))
                .with_partition_indexes(vec![0]);
            DescribeProducersRequest::default().with_topics(vec![topic])
        }),
    ]
}

fn transactions() -> Vec<Sample> {
    let partitions = || vec![AddPartitionsToTxnTopic::default().with_name(topic("t")).with_partitions(vec![0])];
    vec![
        sample(move |version| match version {
            0..=3 => AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(TransactionalId(text("id")))
                .with_v3_and_below_topics(partitions()),
            _ => AddPartitionsToTxnRequest::default().with_transactions(vec![
                AddPartitionsToTxnTransaction::default()
                    .with_transactional_id(TransactionalId(text("id")))
                    .with_topics(partitions()),
            ]),
        }),
        sample(|_| {
            AddOffsetsToTxnRequest::default()
                .with_transactional_id(TransactionalId(text("id")))
                .with_group_id(GroupId(text("g")))
        }),
        sample(|_| EndTxnRequest::default().with_transactional_id(TransactionalId(text("id"))).with_committed(true)),
        sample(|_| {
            let topic = WritableTxnMarkerTopic::default().with_name(topic("t")).with_partition_indexes(vec![0, 1]);
            let marker = WritableTxnMarker::default().with_producer_id(ProducerId(77)).with_topics(vec![topic]);
            WriteTxnMarkersRequest::default().with_markers(vec![marker])
        }),
        sample(|_| {
            let partition = TxnOffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
            let topic = TxnOffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            TxnOffsetCommitRequest::default()
                .with_transactional_id(TransactionalId(text("id")))
                .with_group_id(GroupId(text("g")))
                .with_topics(vec![topic])
        }),
        sample(|_| DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text("id"))])),
        sample(|version| {
            let request = ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing"), text("Gone")]);
            let request = if version >= 1 { request.with_duration_filter(5) } else { request };
            if version >= 2 { request.with_transactional_id_pattern(Some(text("i."))) } else { request }
        }),
    ]
}

fn consumer_groups() -> Vec<Sample> {
    let id = || GroupId(text("consumers"));
    vec![
        // First, so that the other finds the group.
        sample(move |_| {
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(id())
                .with_member_id(text("member"))
                .with_rebalance_timeout_ms(60_000)
                .with_subscribed_topic_names(Some(vec![topic("t")]))
                .with_topic_partitions(Some(Vec::new()))
        }),
        sample(move |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![id()])),
    ]
}

fn share_groups(topic_id: Uuid) -> Vec<Sample> {
    let id = || GroupId(text("shared"));
    vec![
        // First, so that the others find the group.
        sample(move |_| {
            ShareGroupHeartbeatRequest::default()
                .with_group_id(id())
                .with_member_id(text("member"))
                .with_subscribed_topic_names(Some(vec![topic("t")]))
        }),
        sample(move |_| ShareGroupDescribeRequest::default().with_group_ids(vec![id()])),
        share_fetch(topic_id),
        share_acknowledge(topic_id),
        sample(move |_| {
            let group = DescribeShareGroupOffsetsRequestGroup::default().with_group_id(id()).with_topics(None);
            DescribeShareGroupOffsetsRequest::default().with_groups(vec![group])
        }),
        sample(move |_| {
            let partition = AlterShareGroupOffsetsRequestPartition::default().with_start_offset(0);
            let altered = AlterShareGroupOffsetsRequestTopic::default();
            let altered = altered.with_topic_name(topic("t")).with_partitions(vec![partition]);
            AlterShareGroupOffsetsRequest::default().with_group_id(id()).with_topics(vec![altered])
        }),
        sample(move |_| {
            let forgotten = DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(topic("t"));
            DeleteShareGroupOffsetsRequest::default().with_group_id(id()).with_topics(vec![forgotten])
        }),
    ]
}

/// Version 2, which the codec does not know: the one of version 1, with `extra` behind group, member and `numbers` bytes.
fn second_version(mut frame: BytesMut, numbers: usize, extra: &[u8]) -> BytesMut {
    let strings: &[u8] = b"\x07shared\x07member";
    let at = frame.windows(strings.len()).position(|window| window == strings).unwrap() + strings.len() + numbers;
    let rest = frame.split_off(at);
    frame.extend_from_slice(extra);
    frame.extend_from_slice(&rest);
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame[6..8].copy_from_slice(&2_i16.to_be_bytes());
    frame
}

fn share_fetch(topic_id: Uuid) -> Sample {
    let wanted = share_fetch_request::FetchTopic::default()
        .with_topic_id(topic_id)
        .with_partitions(vec![share_fetch_request::FetchPartition::default()]);
    let request = ShareFetchRequest::default()
        .with_group_id(Some(GroupId(text("shared"))))
        .with_member_id(Some(text("member")))
        .with_max_records(1)
        .with_topics(vec![wanted]);
    Sample {
        key: ShareFetchRequest::KEY,
        frame: Box::new(move |version| {
            let first = harness::frame(&request, 1, CORRELATION_ID);
            if version == 2 { second_version(first, 24, &[1, 0]) } else { first }
        }),
        decode: |frame, _| decode::<ShareFetchRequest>(frame, 1),
    }
}

fn share_acknowledge(topic_id: Uuid) -> Sample {
    let batch = share_acknowledge_request::AcknowledgementBatch::default().with_acknowledge_types(vec![1]);
    let partition =
        share_acknowledge_request::AcknowledgePartition::default().with_acknowledgement_batches(vec![batch]);
    let told =
        share_acknowledge_request::AcknowledgeTopic::default().with_topic_id(topic_id).with_partitions(vec![partition]);
    let request = move |epoch| {
        ShareAcknowledgeRequest::default()
            .with_group_id(Some(GroupId(text("shared"))))
            .with_member_id(Some(text("member")))
            .with_share_session_epoch(epoch)
            .with_topics(vec![told.clone()])
    };
    Sample {
        key: ShareAcknowledgeRequest::KEY,
        frame: Box::new(move |version| {
            let first = harness::frame(&request(version.into()), 1, CORRELATION_ID);
            if version == 2 { second_version(first, 4, &[0]) } else { first }
        }),
        decode: |frame, version| {
            // Behind correlation id, no tagged fields, throttle time, error and a null message.
            let known = if version == 2 { [&frame[..12], &frame[16..]].concat().into() } else { frame };
            decode::<ShareAcknowledgeRequest>(known, 1)
        },
    }
}

fn groups() -> Vec<Sample> {
    let id = |name: &str| GroupId(text(name));
    vec![
        sample(move |_| {
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(0)
                .with_committed_metadata(Some(text("note")));
            let topic = OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            OffsetCommitRequest::default()
                .with_group_id(id("committed"))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic])
        }),
        sample(move |version| {
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![0]);
                return OffsetFetchRequest::default().with_group_id(id("committed")).with_topics(Some(vec![topic]));
            }
            let topic = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
            let group =
                OffsetFetchRequestGroup::default().with_group_id(id("committed")).with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![group])
        }),
        sample(|version| match version {
            ..4 => FindCoordinatorRequest::default().with_key(text("g")),
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]),
        }),
        sample(move |version| {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
            // Each version a group of its own: a second member would wait for the first.
            JoinGroupRequest::default()
                .with_group_id(id(&format!("joined-{version}")))
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(10_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
        }),
        sample(move |_| HeartbeatRequest::default().with_group_id(id("g")).with_member_id(text("m"))),
        sample(move |version| {
            let request = LeaveGroupRequest::default().with_group_id(id("g"));
            match version {
                ..3 => request.with_member_id(text("m")),
                3.. => request.with_members(vec![MemberIdentity::default().with_member_id(text("m"))]),
            }
        }),
        sample(move |version| {
            let assigned = SyncGroupRequestAssignment::default()
                .with_member_id(text("m"))
                .with_assignment(Bytes::from_static(b"partitions"));
            let request = SyncGroupRequest::default()
                .with_group_id(id("g"))
                .with_member_id(text("m"))
                .with_assignments(vec![assigned]);
            match version {
                ..5 => request,
                5.. => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
            }
        }),
        sample(move |_| DescribeGroupsRequest::default().with_groups(vec![id("committed"), id("g")])),
        sample(|version| match version {
            ..4 => ListGroupsRequest::default(),
            4.. => ListGroupsRequest::default().with_states_filter(vec![text("Empty")]),
        }),
        sample(move |_| DeleteGroupsRequest::default().with_groups_names(vec![id("nobody")])),
        sample(move |_| {
            let partition = OffsetDeleteRequestPartition::default();
            let topic = OffsetDeleteRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            OffsetDeleteRequest::default().with_group_id(id("committed")).with_topics(vec![topic])
        }),
    ]
}

fn topics() -> Vec<Sample> {
    vec![
        sample(|_| {
            MetadataRequest::default()
                .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic("t")))]))
                .with_allow_auto_topic_creation(true)
        }),
        sample(|version| {
            let setting =
                CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000")));
            let new = CreatableTopic::default()
                .with_name(topic(&format!("created-{version}")))
                .with_num_partitions(2)
                .with_replication_factor(1)
                .with_configs(vec![setting]);
            CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(1_000)
        }),
        sample(|version| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(1_000);
            match version {
                ..6 => request.with_topic_names(vec![topic("nowhere")]),
                6.. => request.with_topics(vec![DeleteTopicState::default().with_name(Some(topic("nowhere")))]),
            }
        }),
        sample(|version| {
            let grown = CreatePartitionsTopic::default()
                .with_name(topic("t"))
                .with_count(2 + i32::from(version))
                .with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![grown]).with_timeout_ms(1_000)
        }),
        sample(|_| {
            let wanted = describe_topic_partitions_request::TopicRequest::default().with_name(topic("t"));
            DescribeTopicPartitionsRequest::default().with_topics(vec![wanted]).with_response_partition_limit(100)
        }),
    ]
}

fn settings() -> Vec<Sample> {
    const TOPIC: i8 = 2;
    vec![
        sample(|_| {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text("t"))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            DescribeConfigsRequest::default().with_resources(vec![resource])
        }),
        sample(|_| {
            let setting = alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("-1")));
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text("t"))
                .with_configs(vec![setting]);
            AlterConfigsRequest::default().with_resources(vec![resource])
        }),
        sample(|_| {
            let setting = incremental_alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("-1")));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text("t"))
                .with_configs(vec![setting]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
        }),
        sample(|version| match version {
            ..1 => ListConfigResourcesRequest::default(),
            1.. => ListConfigResourcesRequest::default().with_resource_types(vec![TOPIC]),
        }),
    ]
}

fn cluster() -> Vec<Sample> {
    vec![
        sample(|version| match version {
            ..3 => ApiVersionsRequest::default(),
            3.. => ApiVersionsRequest::default()
                .with_client_software_name(text("sample"))
                .with_client_software_version(text("1")),
        }),
        sample(|_| DescribeClusterRequest::default()),
        sample(|_| {
            let moved = AlterReplicaLogDirTopic::default().with_name(topic("t")).with_partitions(vec![0]);
            let dir = AlterReplicaLogDir::default().with_path(text("/elsewhere")).with_topics(vec![moved]);
            AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
        }),
        sample(|_| {
            let wanted = DescribableLogDirTopic::default().with_topic(topic("t")).with_partitions(vec![0]);
            DescribeLogDirsRequest::default().with_topics(Some(vec![wanted]))
        }),
        sample(|_| {
            let wanted = TopicPartitions::default().with_topic(topic("t")).with_partitions(vec![0]);
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![wanted])).with_timeout_ms(1_000)
        }),
        sample(|_| {
            let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1)]));
            let moved = ReassignableTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]).with_timeout_ms(1_000)
        }),
        sample(|_| {
            let wanted =
                ListPartitionReassignmentsTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
            ListPartitionReassignmentsRequest::default().with_topics(Some(vec![wanted])).with_timeout_ms(1_000)
        }),
        sample(|_| {
            let partition = describe_quorum_request::PartitionData::default();
            let wanted = describe_quorum_request::TopicData::default()
                .with_topic_name(topic("__cluster_metadata"))
                .with_partitions(vec![partition]);
            DescribeQuorumRequest::default().with_topics(vec![wanted])
        }),
    ]
}

/// Who may do how much.
fn clients() -> Vec<Sample> {
    let acl =
        || create_acls_request::AclCreation::default().with_resource_name(text("t")).with_principal(text("User:a"));
    vec![
        sample(|_| {
            let user = describe_client_quotas_request::ComponentData::default()
                .with_entity_type(text("user"))
                .with_match_type(2)
                .with_match(None);
            DescribeClientQuotasRequest::default().with_components(vec![user])
        }),
        sample(|_| {
            let client = alter_client_quotas_request::EntityData::default()
                .with_entity_type(text("client-id"))
                .with_entity_name(Some(text("nobody")));
            let op =
                alter_client_quotas_request::OpData::default().with_key(text("producer_byte_rate")).with_value(1_000.0);
            let entry = alter_client_quotas_request::EntryData::default().with_entity(vec![client]).with_ops(vec![op]);
            AlterClientQuotasRequest::default().with_entries(vec![entry])
        }),
        sample(|_| DescribeAclsRequest::default().with_resource_type_filter(1)),
        sample(move |_| CreateAclsRequest::default().with_creations(vec![acl()])),
        sample(|_| {
            let filter = delete_acls_request::DeleteAclsFilter::default().with_resource_type_filter(1);
            DeleteAclsRequest::default().with_filters(vec![filter])
        }),
        sample(|_| DescribeUserScramCredentialsRequest::default().with_users(None)),
        sample(|_| {
            let gone = alter_user_scram_credentials_request::ScramCredentialDeletion::default().with_name(text("a"));
            AlterUserScramCredentialsRequest::default().with_deletions(vec![gone])
        }),
        sample(|_| {
            let update = update_features_request::FeatureUpdateKey::default()
                .with_feature(text("metadata.version"))
                .with_max_version_level(27);
            UpdateFeaturesRequest::default().with_feature_updates(vec![update])
        }),
    ]
}
