//! Topics through their handlers, on a store in memory.

use kafka_protocol::error::ResponseError::{self, *};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::*;
use crate::kafka::names;
use crate::kafka::tests::fixture::{Fixture, encodes};

fn wanted(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(names::topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn with_config(topic: CreatableTopic, name: &'static str, value: Option<&'static str>) -> CreatableTopic {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(value.map(StrBytes::from_static_str));
    let configs = topic.configs.iter().cloned().chain([config]).collect();
    topic.with_configs(configs)
}

fn assigned(name: &str, partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(index, brokers): &(i32, &[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
    };
    wanted(name, -1, -1).with_assignments(partitions.iter().map(assignment).collect())
}

async fn create(door: &Fixture, version: i16, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default().with_topics(topics);
    encodes(create_topics(door.cx(version), request).await, version).topics
}

/// The error code and message of one topic's creation.
async fn created(door: &Fixture, topic: CreatableTopic) -> (i16, String) {
    let answer = create(door, 7, vec![topic]).await.remove(0);
    (answer.error_code, answer.error_message.map(|message| message.to_string()).unwrap_or_default())
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(names::topic(name)))
}

fn code(error: ResponseError) -> i16 {
    error.code()
}

#[tokio::test]
async fn a_topic_is_answered_with_what_was_made() {
    let door = Fixture::new();
    let topic = with_config(wanted("made", 3, 2), "retention.ms", Some("60000"));
    for version in 2..=7 {
        let topic = topic.clone().with_name(names::topic(&format!("made-{version}")));
        let answer = create(&door, version, vec![topic]).await.remove(0);
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
        let stream = door.door.broker.stream(&answer.name).unwrap();
        assert_eq!((stream.partition_count(), stream.claimed_replicas), (3, 2));
        assert_eq!(stream.settings().retention_ms, 60_000);
        if version >= 5 {
            assert_eq!((answer.num_partitions, answer.replication_factor), (3, 1));
            let configs = answer.configs.unwrap();
            assert!(configs.is_sorted_by(|a, b| a.name.as_str() < b.name.as_str()));
            let told = |name: &str| configs.iter().find(|config| config.name.as_str() == name).unwrap();
            let retention = told("retention.ms");
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("60000"), 1));
            assert_eq!(told("cleanup.policy").config_source, 5);
        }
        if version >= 7 {
            assert_eq!(answer.topic_id, stream.topic_id);
        }
    }
}

#[tokio::test]
async fn what_is_only_validated_is_judged_and_not_made() {
    let door = Fixture::new();
    let request = CreateTopicsRequest::default()
        .with_validate_only(true)
        .with_topics(vec![wanted("good", -1, -1), wanted("bad name", 1, 1)]);
    let answer = create_topics(door.cx(7), request).await;
    let codes: Vec<_> = answer.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, code(InvalidTopicException)]);
    assert!(door.door.broker.streams().is_empty());
}

#[tokio::test]
async fn topics_are_refused_with_kafkas_errors() {
    let door = Fixture::with(|config| config.lenient_replication = false);
    door.topic("a.b", 1).await;
    let manual = |partitions| assigned("m", &[(0, &[1])]).with_num_partitions(partitions);
    for (topic, error, part) in [
        (wanted("a.b", 1, 1), TopicAlreadyExists, "Topic 'a.b' already exists."),
        (wanted("a_b", 1, 1), InvalidTopicException, "collides with existing topic: a.b"),
        (wanted("..", 1, 1), InvalidTopicException, "'..' is not allowed"),
        (wanted("__cluster_metadata", 1, 1), InvalidRequest, "prohibited"),
        (wanted("p", 0, 1), InvalidPartitions, "non-positive"),
        (wanted("p", -2, 1), InvalidPartitions, "non-positive"),
        (wanted("p", 10_001, 1), InvalidPartitions, "maximum of 10000"),
        (wanted("p", i32::MAX, 1), InvalidPartitions, "maximum of 10000"),
        (wanted("p", 1, 0), InvalidReplicationFactor, "larger than 0"),
        (wanted("p", 1, 2), InvalidReplicationFactor, "Unable to replicate the partition 2 time(s)"),
        (with_config(wanted("p", 1, 1), "dummy.doesntexist", Some("x")), InvalidConfig, "dummy.doesntexist"),
        (with_config(wanted("p", 1, 1), "retention.ms", Some("soon")), InvalidConfig, "retention.ms"),
        (with_config(wanted("p", 1, 1), "retention.ms", None), InvalidConfig, "Null value not supported"),
        (manual(1), InvalidRequest, "numPartitions was not set to -1"),
        (assigned("m", &[(0, &[2])]), InvalidReplicaAssignment, "no such broker"),
        (assigned("m", &[(0, &[1]), (0, &[1])]), InvalidReplicaAssignment, "multiple manual"),
        (assigned("m", &[(0, &[1]), (2, &[1])]), InvalidReplicaAssignment, "consecutive"),
    ] {
        let name = topic.name.clone();
        let (told, message) = created(&door, topic).await;
        assert_eq!(told, code(error), "{name:?}: {message}");
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(door.door.broker.streams().len(), 1);
    assert_eq!(created(&door, assigned("m", &[(1, &[1]), (0, &[1])])).await.0, 0);
    assert_eq!(door.door.broker.stream("m").unwrap().partition_count(), 2);
}

#[tokio::test]
async fn a_name_given_twice_is_refused_and_the_others_keep_their_order() {
    let door = Fixture::new();
    let topics = ["b", "a", "b", "c"].map(|name| wanted(name, 1, 1)).into();
    let answers = create(&door, 4, topics).await;
    let told: Vec<_> = answers.iter().map(|answer| (answer.name.as_str(), answer.error_code)).collect();
    assert_eq!(told, [("b", code(InvalidRequest)), ("a", 0), ("c", 0)]);
    assert!(door.door.broker.stream("b").is_none());
}

#[tokio::test]
async fn one_request_makes_a_bounded_number_of_partitions() {
    let door = Fixture::new();
    let request = CreateTopicsRequest::default().with_validate_only(true).with_topics(vec![
        wanted("most", 9_999, 1),
        wanted("too-many", 2, 1),
        wanted("the-last", 1, 1),
    ]);
    let codes: Vec<_> = create_topics(door.cx(7), request).await.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, code(InvalidPartitions), 0]);
}

#[tokio::test]
async fn metadata_tells_the_listeners_address_and_all_topics() {
    let door = Fixture::new();
    let stream = door.topic("t", 2).await;
    door.door.broker.add_partitions(&stream, 3).await.unwrap();
    for version in 0..=13 {
        let all = (version == 0).then(Vec::new);
        let request = MetadataRequest::default().with_topics(all);
        let answer = encodes(metadata(door.cx(version), request).await, version);
        let [broker] = &answer.brokers[..] else { panic!("one broker") };
        assert_eq!((broker.node_id.0, broker.host.as_str(), broker.port), (1, "outside.example", 19_092));
        assert_eq!((answer.controller_id.0, answer.cluster_id.unwrap().len()), (1, 22));
        let [topic] = &answer.topics[..] else { panic!("one topic") };
        assert_eq!((topic.error_code, topic.topic_id), (0, stream.topic_id));
        // The first partition was split: its leader epoch tells.
        let epochs: Vec<_> = topic.partitions.iter().map(|partition| partition.leader_epoch).collect();
        assert_eq!(epochs, [1, 0, 0]);
        assert_eq!(topic.partitions[2].isr_nodes, [BrokerId(1)]);
    }
}

#[tokio::test]
async fn operations_are_told_when_asked_for() {
    let door = Fixture::new();
    door.topic("t", 1).await;
    let ask = |version| {
        let request = MetadataRequest::default()
            .with_topics(None)
            .with_include_cluster_authorized_operations(version <= 10)
            .with_include_topic_authorized_operations(true);
        metadata(door.cx(version), request)
    };
    let answer = encodes(ask(10).await, 10);
    assert_eq!(answer.cluster_authorized_operations, CLUSTER_OPERATIONS);
    assert_eq!(answer.topics[0].topic_authorized_operations, TOPIC_OPERATIONS);
    assert_eq!(encodes(ask(11).await, 11).cluster_authorized_operations, i32::MIN);
}

#[tokio::test]
async fn topics_asked_for_are_made_where_client_and_configuration_allow_it() {
    for (configured, asked) in [(true, true), (true, false), (false, true)] {
        let door = Fixture::with(|config| {
            config.auto_create_topics = configured;
            config.num_partitions = 4;
        });
        door.topic("a.b", 1).await;
        let topics = ["new", "a_b", "not valid", "a.b"].map(named).into();
        let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(asked);
        let answer = metadata(door.cx(9), request).await;
        let told: Vec<_> = answer.topics.iter().map(|topic| (topic.error_code, topic.partitions.len())).collect();
        let [unknown, invalid] = [UnknownTopicOrPartition, InvalidTopicException].map(|error| (code(error), 0));
        match configured && asked {
            true => assert_eq!(told, [(0, 4), invalid, invalid, (0, 1)]),
            false => assert_eq!(told, [unknown, unknown, invalid, (0, 1)]),
        }
    }
}

#[tokio::test]
async fn metadata_by_id_tells_unknown_ids() {
    let door = Fixture::new();
    let stream = door.topic("t", 1).await;
    let by_id = |id| MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let topics = vec![by_id(stream.topic_id), by_id(Uuid::from_u128(9))];
    let answer = encodes(metadata(door.cx(12), MetadataRequest::default().with_topics(Some(topics))).await, 12);
    assert_eq!(answer.topics[0].name.as_ref().unwrap().as_str(), "t");
    assert_eq!((answer.topics[1].error_code, &answer.topics[1].name), (code(UnknownTopicId), &None));
    assert_eq!(answer.topics[1].topic_id, Uuid::from_u128(9));
}

async fn delete(door: &Fixture, topics: Vec<DeleteTopicState>) -> Vec<i16> {
    let answer = delete_topics(door.cx(6), DeleteTopicsRequest::default().with_topics(topics)).await;
    encodes(answer, 6).responses.iter().map(|topic| topic.error_code).collect()
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let door = Fixture::new();
    let (a, b) = (door.topic("a", 1).await, door.topic("b", 1).await);
    let name = |name: &str| DeleteTopicState::default().with_name(Some(names::topic(name)));
    let id = |id| DeleteTopicState::default().with_name(None).with_topic_id(id);
    let refused = delete(
        &door,
        vec![
            id(Uuid::nil()),
            name("a").with_topic_id(a.topic_id),
            id(Uuid::from_u128(9)),
            name("nowhere"),
            name("b"),
            id(b.topic_id),
        ],
    )
    .await;
    let [invalid, no_id, no_name] = [InvalidRequest, UnknownTopicId, UnknownTopicOrPartition].map(code);
    assert_eq!(refused, [invalid, invalid, no_id, no_name, invalid, invalid]);
    assert_eq!(delete(&door, vec![name("a"), name("a")]).await, [invalid]);
    assert_eq!(door.door.broker.streams().len(), 2);

    assert_eq!(delete(&door, vec![name("a"), id(b.topic_id)]).await, [0, 0]);
    assert!(door.door.broker.streams().is_empty() && a.is_deleted() && b.is_deleted());
    // The same name later is another topic.
    assert_ne!(door.topic("a", 1).await.topic_id, a.topic_id);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![names::topic("a")]);
    let answer = encodes(delete_topics(door.cx(5), request).await, 5);
    assert_eq!((answer.responses[0].error_code, door.door.broker.streams().len()), (0, 0));
}

fn grown(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default().with_name(names::topic(name)).with_count(count).with_assignments(None)
}

async fn grow(door: &Fixture, topics: Vec<CreatePartitionsTopic>, validate_only: bool) -> Vec<(i16, String)> {
    let request = CreatePartitionsRequest::default().with_topics(topics).with_validate_only(validate_only);
    let answer = encodes(create_partitions(door.cx(3), request).await, 3);
    let told = answer.results.into_iter();
    told.map(|topic| (topic.error_code, topic.error_message.map(|text| text.to_string()).unwrap_or_default())).collect()
}

#[tokio::test]
async fn partitions_are_added_and_every_topic_is_answered() {
    let door = Fixture::with(|config| config.lenient_replication = false);
    let stream = door.topic("t", 2).await;
    door.topic("u", 2).await;
    assert_eq!(grow(&door, vec![grown("t", 5)], true).await[0].0, 0);
    assert_eq!(stream.partition_count(), 2);
    let to = |brokers: &[i32]| {
        let assignment = |broker: &i32| CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(*broker)]);
        Some(brokers.iter().map(assignment).collect::<Vec<_>>())
    };
    for (topic, error, part) in [
        (grown("t", 2), InvalidPartitions, "Topic already has 2 partition(s)."),
        (grown("t", 1), InvalidPartitions, "currently has 2 partition(s); 1 would not be an increase"),
        (grown("t", -1), InvalidPartitions, "-1 would not be an increase"),
        (grown("t", 10_001), InvalidPartitions, "maximum"),
        (grown("nowhere", 3), UnknownTopicOrPartition, ""),
        (grown("t", 4).with_assignments(to(&[1])), InvalidReplicaAssignment, "only 1 assignment(s)"),
        (grown("t", 3).with_assignments(to(&[2])), InvalidReplicaAssignment, "no such broker"),
    ] {
        let (told, message) = grow(&door, vec![topic], false).await.remove(0);
        assert_eq!(told, code(error), "{message}");
        assert!(message.contains(part), "{message}");
    }
    let answers = grow(&door, vec![grown("u", 9), grown("t", 5), grown("nowhere", 1), grown("u", 8)], false).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer.0).collect();
    assert_eq!(codes, [code(InvalidRequest), 0, code(UnknownTopicOrPartition)]);
    assert_eq!(stream.partition_count(), 5);
    assert_eq!(grow(&door, vec![grown("t", 6).with_assignments(to(&[1]))], false).await[0].0, 0);
}

/// Topics with their partitions, and where the next page begins.
async fn page(door: &Fixture, topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> (String, String) {
    let cursor = cursor
        .map(|(name, partition)| Cursor::default().with_topic_name(names::topic(name)).with_partition_index(partition));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.iter().map(|name| TopicRequest::default().with_name(names::topic(name))).collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor);
    let answer = encodes(describe_topic_partitions(door.cx(0), request).await, 0);
    let topic = |topic: &describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic| {
        let partitions: Vec<_> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        format!("{}{partitions:?}{}", topic.name.as_ref().unwrap().as_str(), topic.error_code)
    };
    let next = answer.next_cursor.map(|next| format!("{} {}", next.topic_name.as_str(), next.partition_index));
    (answer.topics.iter().map(topic).collect::<Vec<_>>().join(" "), next.unwrap_or_default())
}

#[tokio::test]
async fn topics_are_described_page_by_page_in_order_of_names() {
    let door = Fixture::new();
    door.topic("b", 3).await;
    door.topic("a", 1).await;
    let told = |topics: &str, next: &str| (topics.to_owned(), next.to_owned());
    assert_eq!(page(&door, &[], 2_000, None).await, told("a[0]0 b[0, 1, 2]0", ""));
    assert_eq!(page(&door, &[], 3, None).await, told("a[0]0 b[0, 1]0", "b 2"));
    assert_eq!(page(&door, &[], 3, Some(("b", 2))).await, told("b[2]0", ""));
    // A page that ends with a topic points to the next one; so does a limit that makes no sense.
    assert_eq!(page(&door, &[], 1, None).await, told("a[0]0", "b 0"));
    assert_eq!(page(&door, &[], i32::MIN, None).await, told("a[0]0", "b 0"));
    // A cursor beyond what there is (the topic was made again, smaller) is no error.
    assert_eq!(page(&door, &[], 5, Some(("b", 7))).await, told("b[]0", ""));
    assert_eq!(page(&door, &["x", "b", "a b"], 9, None).await, told("a b[]17 b[0, 1, 2]0 x[]3", ""));
    assert_eq!(page(&door, &["b"], 9, Some(("a", 0))).await, told("b[]42", ""));
}

#[test]
fn operations_are_kafkas_bit_fields() {
    // As a broker without an authorizer answers them.
    assert_eq!((TOPIC_OPERATIONS, CLUSTER_OPERATIONS), (3_576, 8_096));
}

#[test]
fn repeated_entries_are_told_once() {
    let told: Vec<_> = distinct(&["a", "b", "a", "c", "a"], |name| *name).collect();
    assert_eq!(told, [(&"a", true), (&"b", false), (&"c", false)]);
}
