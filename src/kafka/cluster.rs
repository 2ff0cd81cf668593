//! What a cluster of one broker says of itself: AlterReplicaLogDirs (34), DescribeLogDirs (35), DescribeCluster (60),
//! ElectLeaders (43), AlterPartitionReassignments (45), ListPartitionReassignments (46) and DescribeQuorum (55), all
//! their versions.
//!
//! This broker leads every partition, keeps its only replica in its only folder and is its own controller. So leaders
//! need no election, and moving a partition to where it is succeeds at once.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::describe_quorum_request::TopicData as QuorumTopic;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::error::{self, Refusal};
use super::topics::{CLUSTER_OPERATIONS, assignment};
use super::{Advertised, Context, names};
use crate::broker::Stream;

/// Kafka's EndpointType: a client speaks to a broker or to a controller.
const BROKER_ENDPOINT: i8 = 1;
const CONTROLLER_ENDPOINT: i8 = 2;

/// Kafka's ElectionType: 0 is preferred, 1 is unclean.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

/// Nobody ever stood against this node.
const QUORUM_EPOCH: i32 = 1;
/// Kafka keeps its metadata in a log; here there is none, so it is told as empty.
const QUORUM_END_OFFSET: i64 = 0;
/// From this version on, voters are told with their addresses.
const QUORUM_NODES_FROM: i16 = 2;

pub async fn describe_cluster(cx: Context, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if let Some(refusal) = endpoint_fault(request.endpoint_type) {
        return DescribeClusterResponse::default()
            .with_error_code(refusal.error.code())
            .with_error_message(names::message(refusal.message));
    }
    let broker = |listener: &Advertised| {
        DescribeClusterBroker::default()
            .with_broker_id(cx.door.node_id())
            .with_host(StrBytes::from_string(listener.host.clone()))
            .with_port(listener.port.into())
    };
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(names::uuid_text(cx.door.broker.cluster_id())))
        .with_controller_id(cx.door.node_id())
        .with_brokers(clients_listener(&cx).map(broker).into_iter().collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// The listener that the client came by.
fn clients_listener(cx: &Context) -> Option<&Advertised> {
    cx.door.listeners.get(cx.client.listener)
}

fn endpoint_fault(endpoint: i8) -> Option<Refusal> {
    match endpoint {
        BROKER_ENDPOINT => None,
        CONTROLLER_ENDPOINT => Some(Refusal::new(
            ResponseError::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )),
        _ => {
            Some(Refusal::new(ResponseError::UnsupportedEndpointType, format!("Unsupported endpoint type {endpoint}")))
        }
    }
}

/// The one log directory: the data folder. A partition's size is that of its live records.
pub async fn describe_log_dirs(cx: Context, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let broker = &cx.door.broker;
    let result = DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(log_dir(&cx)));
    if let Some(failure) = broker.failure() {
        let offline = result.with_error_code(error::of_store(failure).code());
        return DescribeLogDirsResponse::default().with_results(vec![offline]);
    }
    let wanted = request.topics.as_deref().map(partitions_by_topic);
    let mut topics = Vec::new();
    for stream in broker.streams() {
        let partitions = match &wanted {
            None => sizes(&stream, |_| true),
            Some(wanted) => match wanted.get(&*stream.name) {
                Some(indexes) => sizes(&stream, |index| indexes.contains(&index)),
                None => continue,
            },
        };
        if !partitions.is_empty() {
            let name = names::topic(&stream.name);
            topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
        }
    }
    let mut result = result.with_topics(topics);
    if let Some(volume) = broker.volume().await {
        result.total_bytes = i64::try_from(volume.total_bytes).unwrap_or(i64::MAX);
        result.usable_bytes = i64::try_from(volume.usable_bytes).unwrap_or(i64::MAX);
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// The data folder as clients are told of it: its absolute path.
fn log_dir(cx: &Context) -> String {
    let folder = &cx.door.config.data_dir;
    std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string()
}

/// Moving a replica to the folder that it is in is nothing to do; there is no other folder.
pub async fn alter_replica_log_dirs(cx: Context, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let folder = log_dir(&cx);
    let of_dir = |dir: AlterReplicaLogDir| {
        let known = *dir.path == *folder;
        dir.topics.into_iter().map(move |topic| (known, topic))
    };
    let result = |(known, topic): (bool, AlterReplicaLogDirTopic)| {
        let partitions = cx.door.broker.stream(&topic.name).map(|stream| stream.partition_count());
        let moved = |index: &i32| {
            let code = move_fault(&cx, known, partitions, *index).map_or(0, |error| error.code());
            AlterReplicaLogDirPartitionResult::default().with_partition_index(*index).with_error_code(code)
        };
        let moved = topic.partitions.iter().map(moved).collect();
        AlterReplicaLogDirTopicResult::default().with_topic_name(topic.name).with_partitions(moved)
    };
    let results = request.dirs.into_iter().flat_map(of_dir).map(result).collect();
    AlterReplicaLogDirsResponse::default().with_results(results)
}

/// Kafka looks at the folder before the partition.
fn move_fault(cx: &Context, known_folder: bool, partitions: Option<u32>, index: i32) -> Option<ResponseError> {
    if !known_folder {
        return Some(ResponseError::LogDirNotFound);
    }
    if let Some(failure) = cx.door.broker.failure() {
        return Some(error::of_store(failure));
    }
    let there = partitions.is_some_and(|count| has(count, index));
    (!there).then_some(ResponseError::UnknownTopicOrPartition)
}

fn partitions_by_topic(topics: &[DescribableLogDirTopic]) -> BTreeMap<&str, BTreeSet<i32>> {
    let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for topic in topics {
        wanted.entry(&topic.topic).or_default().extend(&topic.partitions);
    }
    wanted
}

fn sizes(stream: &Stream, wanted: impl Fn(i32) -> bool) -> Vec<DescribeLogDirsPartition> {
    let partitions = (0..).zip(stream.partitions()).filter(|(index, _)| wanted(*index));
    partitions
        .map(|(index, partition)| {
            let bytes = i64::try_from(partition.extent().bytes).unwrap_or(i64::MAX);
            DescribeLogDirsPartition::default().with_partition_index(index).with_partition_size(bytes)
        })
        .collect()
}

/// Every partition has its preferred leader. Asked for all partitions, Kafka answers those that needed an election:
/// none.
pub async fn elect_leaders(cx: Context, request: ElectLeadersRequest) -> ElectLeadersResponse {
    if !ELECTION_TYPES.contains(&request.election_type) {
        return ElectLeadersResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let result = |topic: TopicPartitions| {
        let stream = cx.door.broker.stream(&topic.topic);
        let partition = |index: &i32| {
            let refusal = election_refusal(&topic.topic, *index, stream.as_deref().map(Stream::partition_count));
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(refusal.error.code())
                .with_error_message(names::message(refusal.message))
        };
        let partitions = topic.partitions.iter().map(partition).collect();
        ReplicaElectionResult::default().with_topic(topic.topic).with_partition_result(partitions)
    };
    let results = request.topic_partitions.unwrap_or_default().into_iter().map(result).collect();
    ElectLeadersResponse::default().with_replica_election_results(results)
}

fn election_refusal(topic: &str, index: i32, partitions: Option<u32>) -> Refusal {
    match partitions {
        None => Refusal::new(ResponseError::UnknownTopicOrPartition, format!("No such topic as {topic}")),
        Some(count) if !has(count, index) => {
            Refusal::new(ResponseError::UnknownTopicOrPartition, format!("No such partition as {topic}-{index}"))
        }
        Some(_) => Refusal::new(ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition."),
    }
}

fn has(partitions: u32, index: i32) -> bool {
    u32::try_from(index).is_ok_and(|index| index < partitions)
}

pub async fn alter_partition_reassignments(
    cx: Context,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let node = cx.door.node_id();
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = cx.door.broker.stream(&topic.name).map(|stream| stream.partition_count());
        let answered = |partition: &ReassignablePartition| {
            let answer = ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            match reassigned(&topic.name, partition, partitions, node) {
                Ok(()) => answer.with_error_message(None),
                Err(refusal) => {
                    answer.with_error_code(refusal.error.code()).with_error_message(names::message(refusal.message))
                }
            }
        };
        let answered = topic.partitions.iter().map(answered).collect();
        responses.push(ReassignableTopicResponse::default().with_name(topic.name).with_partitions(answered));
    }
    AlterPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_responses(responses)
}

/// A partition can be moved to where it is; there is no move to call off.
fn reassigned(
    topic: &str,
    wanted: &ReassignablePartition,
    partitions: Option<u32>,
    node: BrokerId,
) -> Result<(), Refusal> {
    let index = wanted.partition_index;
    let unknown = |message| Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message));
    match (partitions, &wanted.replicas) {
        (None, _) => unknown(format!("Unable to find a topic named {topic}.")),
        (Some(count), _) if !has(count, index) => unknown(format!("Unable to find partition {topic}:{index}.")),
        (Some(_), None) => {
            Err(Refusal::new(ResponseError::NoReassignmentInProgress, "No partition reassignment is in progress."))
        }
        (Some(_), Some(replicas)) => match assignment::move_fault(replicas, node) {
            Some(fault) => Err(Refusal::new(ResponseError::InvalidReplicaAssignment, fault)),
            None => Ok(()),
        },
    }
}

/// A move is over when it is answered, so none is ever under way.
pub async fn list_partition_reassignments(
    _: Context,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}

/// This node is the only voter, and so the leader.
pub async fn describe_quorum(cx: Context, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let response = DescribeQuorumResponse::default().with_error_message(None);
    if !is_about_quorum(&request.topics) {
        return response.with_topics(request.topics.into_iter().map(no_quorum).collect());
    }
    let node = cx.door.node_id();
    let now_ms = cx.door.broker.clock().now_ms();
    let voter = ReplicaState::default()
        .with_replica_id(node)
        .with_log_end_offset(QUORUM_END_OFFSET)
        .with_last_fetch_timestamp(now_ms)
        .with_last_caught_up_timestamp(now_ms);
    let quorum = PartitionData::default()
        .with_error_message(None)
        .with_leader_id(node)
        .with_leader_epoch(QUORUM_EPOCH)
        .with_high_watermark(QUORUM_END_OFFSET)
        .with_current_voters(vec![voter]);
    let topic =
        TopicData::default().with_topic_name(names::topic(names::CLUSTER_METADATA_TOPIC)).with_partitions(vec![quorum]);
    let response = response.with_topics(vec![topic]);
    match cx.version >= QUORUM_NODES_FROM {
        true => response.with_nodes(vec![node_with_listeners(&cx)]),
        false => response,
    }
}

/// Kafka's only quorum is that of its metadata.
fn is_about_quorum(topics: &[QuorumTopic]) -> bool {
    let [topic] = topics else { return false };
    let [partition] = &topic.partitions[..] else { return false };
    topic.topic_name.as_str() == names::CLUSTER_METADATA_TOPIC && partition.partition_index == 0
}

fn no_quorum(topic: QuorumTopic) -> TopicData {
    let refused = |index| {
        PartitionData::default()
            .with_partition_index(index)
            .with_error_code(ResponseError::UnknownTopicOrPartition.code())
            .with_error_message(None)
    };
    let partitions = topic.partitions.iter().map(|partition| refused(partition.partition_index)).collect();
    TopicData::default().with_topic_name(topic.topic_name).with_partitions(partitions)
}

fn node_with_listeners(cx: &Context) -> Node {
    let listener = |listener: &Advertised| {
        Listener::default()
            .with_name(StrBytes::from_string(listener.name.clone()))
            .with_host(StrBytes::from_string(listener.host.clone()))
            .with_port(listener.port)
    };
    Node::default()
        .with_node_id(cx.door.node_id())
        .with_listeners(clients_listener(cx).map(listener).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_quorum_request::PartitionData as QuorumPartition;
    use kafka_protocol::protocol::Message;

    use super::*;
    use crate::kafka::tests::fixture::{Fixture, NOW_MS, encodes};

    fn versions<R: Message>() -> std::ops::RangeInclusive<i16> {
        R::VERSIONS.min..=R::VERSIONS.max
    }

    #[tokio::test]
    async fn the_cluster_is_this_broker_at_the_listener_that_the_client_came_by() {
        let fixture = Fixture::new();
        for version in versions::<DescribeClusterRequest>() {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            let response = encodes(describe_cluster(fixture.cx(version), request).await, version);
            assert_eq!((response.controller_id, response.cluster_id.len()), (BrokerId(1), 22));
            assert_eq!(response.cluster_authorized_operations, CLUSTER_OPERATIONS);
            let [broker] = &response.brokers[..] else { panic!("{} brokers", response.brokers.len()) };
            assert_eq!((broker.broker_id, broker.host.as_str(), broker.port), (BrokerId(1), "outside.example", 19092));
        }
        let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLER_ENDPOINT);
        let refused = encodes(describe_cluster(fixture.cx(1), request).await, 1);
        assert_eq!(refused.error_code, ResponseError::MismatchedEndpointType.code());
    }

    #[tokio::test]
    async fn log_dirs_hold_the_partitions_asked_for_with_their_sizes() {
        let fixture = Fixture::new();
        let stream = fixture.topic("full", 2).await;
        fixture.topic("empty", 1).await;
        fixture.append(&stream, 1, &[NOW_MS; 3], None).await;
        for version in versions::<DescribeLogDirsRequest>() {
            let dir = async |topics| {
                let request = DescribeLogDirsRequest::default().with_topics(topics);
                encodes(describe_log_dirs(fixture.cx(version), request).await, version).results.remove(0)
            };
            let all = dir(None).await;
            assert!(all.log_dir.starts_with('/') && all.log_dir.ends_with("anabranch-data"), "{}", all.log_dir);
            assert_eq!((all.error_code, all.total_bytes, all.usable_bytes), (0, -1, -1));
            let sizes = all.topics.iter().map(|topic| {
                let sizes = topic.partitions.iter().map(|partition| partition.partition_size).collect::<Vec<_>>();
                (topic.name.as_str(), sizes)
            });
            let bytes = stream.partition(crate::model::ids::PartitionIndex(1)).unwrap().extent().bytes as i64;
            assert!(bytes > 0);
            assert_eq!(sizes.collect::<Vec<_>>(), [("empty", vec![0]), ("full", vec![0, bytes])]);

            let topic = DescribableLogDirTopic::default();
            let missing = topic.clone().with_topic(names::topic("gone")).with_partitions(vec![0]);
            let some = topic.with_topic(names::topic("full")).with_partitions(vec![1, 5]);
            let filtered = dir(Some(vec![missing, some])).await;
            let [topic] = &filtered.topics[..] else { panic!("{} topics", filtered.topics.len()) };
            assert_eq!((topic.partitions.len(), topic.partitions[0].partition_index), (1, 1));
        }
    }

    #[tokio::test]
    async fn a_replica_moves_to_the_folder_it_is_in_and_to_no_other() {
        let fixture = Fixture::new();
        fixture.topic("here", 1).await;
        for version in versions::<AlterReplicaLogDirsRequest>() {
            let described = describe_log_dirs(fixture.cx(1), DescribeLogDirsRequest::default()).await;
            let folder = described.results[0].log_dir.clone();
            let topic = |name: &str, partitions| {
                AlterReplicaLogDirTopic::default().with_name(names::topic(name)).with_partitions(partitions)
            };
            let own = AlterReplicaLogDir::default()
                .with_path(folder)
                .with_topics(vec![topic("here", vec![0, 1, -1]), topic("gone", vec![0])]);
            let other = AlterReplicaLogDir::default()
                .with_path(StrBytes::from_static_str("/elsewhere"))
                .with_topics(vec![topic("here", vec![0])]);
            let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![own, other]);
            let response = encodes(alter_replica_log_dirs(fixture.cx(version), request).await, version);
            let codes = response.results.iter().map(|topic| {
                let codes = topic.partitions.iter().map(|partition| partition.error_code).collect::<Vec<_>>();
                (topic.topic_name.as_str(), codes)
            });
            let unknown = ResponseError::UnknownTopicOrPartition.code();
            let elsewhere = ResponseError::LogDirNotFound.code();
            let expected = [("here", vec![0, unknown, unknown]), ("gone", vec![unknown]), ("here", vec![elsewhere])];
            assert_eq!(codes.collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn leaders_stay_and_moves_are_over_at_once() {
        let fixture = Fixture::new();
        fixture.topic("t", 1).await;
        for version in versions::<ElectLeadersRequest>() {
            let wanted = TopicPartitions::default().with_topic(names::topic("t")).with_partitions(vec![0, 1]);
            let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![wanted]));
            let response = encodes(elect_leaders(fixture.cx(version), request).await, version);
            let partitions = response.replica_election_results[0].partition_result.iter();
            let codes: Vec<_> = partitions.map(|partition| partition.error_code).collect();
            let (needless, unknown) = (ResponseError::ElectionNotNeeded, ResponseError::UnknownTopicOrPartition);
            assert_eq!(codes, [needless.code(), unknown.code()]);
            let request = ElectLeadersRequest::default().with_topic_partitions(None);
            let response = encodes(elect_leaders(fixture.cx(version), request).await, version);
            assert!(response.error_code == 0 && response.replica_election_results.is_empty());
        }
        let unknown = ElectLeadersRequest::default().with_election_type(2);
        let refused = encodes(elect_leaders(fixture.cx(2), unknown).await, 2);
        assert_eq!(refused.error_code, ResponseError::InvalidRequest.code());

        for version in versions::<AlterPartitionReassignmentsRequest>() {
            let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1)]));
            let topic = alter_partition_reassignments_request::ReassignableTopic::default()
                .with_name(names::topic("t"))
                .with_partitions(vec![partition]);
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
            let response = encodes(alter_partition_reassignments(fixture.cx(version), request).await, version);
            assert_eq!(response.responses[0].partitions[0].error_code, 0);
        }
        let listed = list_partition_reassignments(fixture.cx(0), ListPartitionReassignmentsRequest::default()).await;
        assert!(encodes(listed, 0).topics.is_empty());
    }

    #[tokio::test]
    async fn this_node_is_the_quorum() {
        let fixture = Fixture::new();
        let about = |topic: &str| {
            let topic = QuorumTopic::default()
                .with_topic_name(names::topic(topic))
                .with_partitions(vec![QuorumPartition::default()]);
            DescribeQuorumRequest::default().with_topics(vec![topic])
        };
        for version in versions::<DescribeQuorumRequest>() {
            let response = describe_quorum(fixture.cx(version), about(names::CLUSTER_METADATA_TOPIC)).await;
            let response = encodes(response, version);
            let quorum = &response.topics[0].partitions[0];
            assert_eq!((quorum.error_code, quorum.leader_id, quorum.current_voters.len()), (0, BrokerId(1), 1));
            assert_eq!(quorum.current_voters[0].last_caught_up_timestamp, NOW_MS);
            assert_eq!(response.nodes.len(), usize::from(version >= QUORUM_NODES_FROM));
            let other = encodes(describe_quorum(fixture.cx(version), about("t")).await, version);
            let unknown = ResponseError::UnknownTopicOrPartition.code();
            assert_eq!(other.topics[0].partitions[0].error_code, unknown);
        }
    }

    #[test]
    fn clients_that_want_a_controller_learn_that_this_is_a_broker() {
        assert_eq!(endpoint_fault(1), None);
        assert_eq!(endpoint_fault(2).unwrap().error, ResponseError::MismatchedEndpointType);
        assert_eq!(endpoint_fault(0).unwrap().error, ResponseError::UnsupportedEndpointType);
    }

    #[test]
    fn partitions_asked_for_are_collected_by_topic() {
        let topic = |name: &str, partitions: &[i32]| {
            DescribableLogDirTopic::default().with_topic(names::topic(name)).with_partitions(partitions.to_vec())
        };
        let topics = [topic("a", &[0, 1]), topic("b", &[3]), topic("a", &[1, 2])];
        let wanted = partitions_by_topic(&topics);
        assert_eq!(wanted, BTreeMap::from([("a", BTreeSet::from([0, 1, 2])), ("b", BTreeSet::from([3]))]));
    }

    #[test]
    fn no_partition_needs_an_election() {
        let refusal = |index, partitions| election_refusal("t", index, partitions);
        assert_eq!(refusal(0, Some(1)).error, ResponseError::ElectionNotNeeded);
        assert_eq!(refusal(1, Some(1)).message, "No such partition as t-1");
        assert_eq!(refusal(-1, Some(1)).error, ResponseError::UnknownTopicOrPartition);
        assert_eq!(refusal(0, None).message, "No such topic as t");
    }

    #[test]
    fn a_partition_can_be_moved_to_where_it_is() {
        let outcome = |partitions, index, replicas: Option<&[i32]>| {
            let replicas = replicas.map(|ids| ids.iter().copied().map(BrokerId).collect());
            let wanted = ReassignablePartition::default().with_partition_index(index).with_replicas(replicas);
            reassigned("t", &wanted, partitions, BrokerId(1)).map_err(|refusal| refusal.error)
        };
        assert_eq!(outcome(Some(2), 1, Some(&[1])), Ok(()));
        assert_eq!(outcome(Some(2), 1, Some(&[1, 2])), Err(ResponseError::InvalidReplicaAssignment));
        assert_eq!(outcome(Some(2), 1, Some(&[])), Err(ResponseError::InvalidReplicaAssignment));
        assert_eq!(outcome(Some(2), 1, None), Err(ResponseError::NoReassignmentInProgress));
        assert_eq!(outcome(Some(2), 2, Some(&[1])), Err(ResponseError::UnknownTopicOrPartition));
        assert_eq!(outcome(None, 0, None), Err(ResponseError::UnknownTopicOrPartition));
    }

    #[test]
    fn the_only_quorum_is_that_of_the_metadata() {
        let topic = |name: &str, index| {
            let partition = QuorumPartition::default().with_partition_index(index);
            QuorumTopic::default().with_topic_name(names::topic(name)).with_partitions(vec![partition])
        };
        assert!(is_about_quorum(&[topic("__cluster_metadata", 0)]));
        assert!(!is_about_quorum(&[topic("__cluster_metadata", 1)]));
        assert!(!is_about_quorum(&[topic("orders", 0)]));
        assert!(!is_about_quorum(&[topic("__cluster_metadata", 0), topic("orders", 0)]));
        assert!(!is_about_quorum(&[]));
    }
}
