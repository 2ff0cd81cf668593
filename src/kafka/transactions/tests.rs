//! The handlers together, as clients of several ages call them.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::kafka::groups::{find_coordinator, offset_fetch};
use crate::kafka::names::topic;
use crate::kafka::produce::produce;
use crate::kafka::tests::fixture::{Fixture, encodes};
use crate::model::batch::{Compressor, Options, Producer, Record, build};
use crate::model::ids::PartitionIndex;

fn id() -> TransactionalId {
    TransactionalId(StrBytes::from_static_str("id"))
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("g"))
}

/// A client that speaks certain versions.
struct Caller<'a> {
    door: &'a Fixture,
    init: i16,
    add: i16,
    produce: i16,
    commit: i16,
    end: i16,
}

impl Caller<'_> {
    async fn init(&self, expected: Option<(i64, i16)>) -> (i16, i64, i16) {
        let (producer_id, epoch) = expected.unwrap_or((-1, -1));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch);
        let answer = encodes(init_producer_id(self.door.cx(self.init), request).await, self.init);
        (answer.error_code, answer.producer_id.0, answer.producer_epoch)
    }

    async fn add(&self, (producer_id, epoch): (i64, i16), partitions: &[i32]) -> Vec<i16> {
        let topics =
            vec![AddPartitionsToTxnTopic::default().with_name(topic("t")).with_partitions(partitions.to_vec())];
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_producer_id(ProducerId(producer_id))
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(topics);
        let answer = encodes(add_partitions_to_txn(self.door.cx(self.add), request).await, self.add);
        let partitions = answer.results_by_topic_v3_and_below[0].results_by_partition.iter();
        partitions.map(|partition| partition.partition_error_code).collect()
    }

    async fn add_group(&self, (producer_id, epoch): (i64, i16)) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id())
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_group_id(group());
        encodes(add_offsets_to_txn(self.door.cx(self.add), request).await, self.add).error_code
    }

    async fn produce(&self, producer: (i64, i16), transactional_id: Option<TransactionalId>) -> i16 {
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch(producer)));
        let data = TopicProduceData::default().with_name(topic("t")).with_partition_data(vec![partition]);
        let request =
            ProduceRequest::default().with_transactional_id(transactional_id).with_acks(-1).with_topic_data(vec![data]);
        let (answer, _) = produce(self.door.cx(self.produce), request);
        encodes(answer.await, self.produce).responses[0].partition_responses[0].error_code
    }

    async fn commit_offset(&self, (producer_id, epoch): (i64, i16), partition: i32) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(5)
            .with_committed_metadata(Some(StrBytes::default()));
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id())
            .with_group_id(group())
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_generation_id(-1)
            .with_topics(vec![
                TxnOffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]),
            ]);
        let answer = encodes(txn_offset_commit(self.door.cx(self.commit), request).await, self.commit);
        answer.topics[0].partitions[0].error_code
    }

    async fn end(&self, (producer_id, epoch): (i64, i16), commit: bool) -> (i16, i64, i16) {
        let request = EndTxnRequest::default()
            .with_transactional_id(id())
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_committed(commit);
        let answer = encodes(end_txn(self.door.cx(self.end), request).await, self.end);
        (answer.error_code, answer.producer_id.0, answer.producer_epoch)
    }
}

/// The first batch of an epoch.
fn batch((id, epoch): (i64, i16)) -> Bytes {
    let record =
        Record { offset: 0, timestamp: 1, key: None, value: Some(Bytes::from_static(b"v")), headers: Vec::new() };
    let producer = Some(Producer { id, epoch, base_sequence: 0, transactional: true });
    build(&[record], &Options { compressor: Compressor::None, producer }).unwrap()
}

fn librdkafka(door: &Fixture) -> Caller<'_> {
    Caller { door, init: 4, add: 0, produce: 10, commit: 3, end: 1 }
}

fn java(door: &Fixture) -> Caller<'_> {
    Caller { door, init: 5, add: 3, produce: 12, commit: 5, end: 5 }
}

/// `(error, offset)` of partition 0.
async fn fetch_offset(door: &Fixture) -> (i16, i64) {
    let topics = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let wanted = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topics]));
    let request = OffsetFetchRequest::default().with_groups(vec![wanted]).with_require_stable(true);
    let answer = encodes(offset_fetch(door.cx(8), request).await, 8);
    let partition = &answer.groups[0].topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

fn stable_offset(door: &Fixture) -> i64 {
    let stream = door.door.broker.stream("t").unwrap();
    stream.partition(PartitionIndex(0)).unwrap().last_stable_offset()
}

#[tokio::test]
async fn a_producer_of_today_names_nothing_before_it_writes() {
    let door = Fixture::new();
    door.topic("t", 1).await;
    let java = java(&door);
    let (_, producer_id, epoch) = java.init(None).await;
    assert_eq!((java.produce((producer_id, epoch), Some(id())).await, stable_offset(&door)), (0, 0));
    assert_eq!(java.commit_offset((producer_id, epoch), 0).await, 0);
    assert_eq!(java.commit_offset((producer_id, epoch), 7).await, 3, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(fetch_offset(&door).await, (88, -1), "UNSTABLE_OFFSET_COMMIT");
    assert_eq!(java.end((producer_id, epoch), true).await, (0, producer_id, epoch + 1));
    assert_eq!((fetch_offset(&door).await, stable_offset(&door)), ((0, 5), 2));
    // The answer was lost; then the next transaction, with the epoch of its own.
    assert_eq!(java.end((producer_id, epoch), true).await, (0, producer_id, epoch + 1));
    assert_eq!(java.produce((producer_id, epoch), Some(id())).await, 47, "INVALID_PRODUCER_EPOCH");
    assert_eq!(java.produce((producer_id, epoch + 1), Some(id())).await, 0);
    assert_eq!(java.end((producer_id, epoch + 1), false).await, (0, producer_id, epoch + 2));
    assert_eq!(java.end((producer_id, epoch), true).await, (90, -1, -1), "PRODUCER_FENCED");
}

#[tokio::test]
async fn an_older_producer_names_what_it_is_going_to_touch() {
    let door = Fixture::new();
    door.topic("t", 1).await;
    let client = librdkafka(&door);
    let (_, producer_id, epoch) = client.init(None).await;
    let producer = (producer_id, epoch);
    assert_eq!(client.produce(producer, Some(id())).await, 48, "INVALID_TXN_STATE");
    let newer = Caller { produce: 11, commit: 4, ..librdkafka(&door) };
    assert_eq!(newer.produce(producer, Some(id())).await, 120, "TRANSACTION_ABORTABLE");
    assert_eq!((client.commit_offset(producer, 0).await, newer.commit_offset(producer, 0).await), (48, 120));
    assert_eq!(client.add(producer, &[0, 1]).await, [55, 3], "OPERATION_NOT_ATTEMPTED");
    assert_eq!(client.produce(producer, Some(id())).await, 48, "none was added");
    assert_eq!((client.add(producer, &[0]).await, client.add_group(producer).await), (vec![0], 0));
    assert_eq!(client.produce(producer, None).await, 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED");
    assert_eq!(client.produce(producer, Some(id())).await, 0);
    assert_eq!(client.commit_offset(producer, 0).await, 0);
    assert_eq!(client.end(producer, true).await.0, 0);
    assert_eq!((fetch_offset(&door).await, client.end(producer, true).await.0), ((0, 5), 0));
    assert_eq!(client.end(producer, false).await.0, 48, "INVALID_TXN_STATE");
}

#[tokio::test]
async fn the_fenced_are_told_in_words_that_they_know() {
    let door = Fixture::new();
    door.topic("t", 1).await;
    let (old, new) = (librdkafka(&door), java(&door));
    let (_, producer_id, epoch) = new.init(None).await;
    let zombie = (producer_id, epoch);
    new.init(None).await;
    assert_eq!((old.add(zombie, &[0]).await, new.add(zombie, &[0]).await), (vec![47], vec![90]));
    assert_eq!((old.add_group(zombie).await, new.add_group(zombie).await), (47, 90));
    assert_eq!((old.end(zombie, true).await.0, new.end(zombie, true).await.0), (47, 90));
    assert_eq!((old.commit_offset(zombie, 0).await, new.commit_offset(zombie, 0).await), (47, 47));
    assert_eq!((old.produce(zombie, Some(id())).await, new.produce(zombie, Some(id())).await), (47, 47));
    let ancient = Caller { init: 3, ..librdkafka(&door) };
    assert_eq!((ancient.init(Some(zombie)).await.0, old.init(Some(zombie)).await.0), (47, 90));
    let stranger = (producer_id + 1, 0);
    assert_eq!((new.add(stranger, &[0]).await, new.end(stranger, true).await.0), (vec![49], 49));
    assert_eq!(new.init(Some((7, -1))).await.0, 42, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_producer_without_a_transactional_id_gets_an_id_of_its_own() {
    let door = Fixture::new();
    let init = async |version| {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = encodes(init_producer_id(door.cx(version), request).await, version);
        (answer.error_code, answer.producer_id.0, answer.producer_epoch)
    };
    assert_eq!([init(0).await, init(4).await, init(5).await], [(0, 0, 0), (0, 1, 0), (0, 2, 0)]);
}

#[tokio::test]
async fn brokers_ask_for_several_transactions_at_once() {
    let door = Fixture::new();
    door.topic("t", 2).await;
    let (_, producer_id, epoch) = java(&door).init(None).await;
    let ask = async |verify_only, partitions: &[i32]| {
        let topics =
            vec![AddPartitionsToTxnTopic::default().with_name(topic("t")).with_partitions(partitions.to_vec())];
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(id())
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_verify_only(verify_only)
            .with_topics(topics);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let answer = encodes(add_partitions_to_txn(door.cx(5), request).await, 5);
        let partitions = answer.results_by_transaction[0].topic_results[0].results_by_partition.iter();
        partitions.map(|partition| partition.partition_error_code).collect::<Vec<_>>()
    };
    assert_eq!(ask(true, &[0]).await, [120]);
    assert_eq!(ask(false, &[0]).await, [0]);
    assert_eq!(ask(true, &[0, 1]).await, [0, 120]);
}

#[tokio::test]
async fn an_operator_ends_what_hangs() {
    let door = Fixture::new();
    door.topic("t", 1).await;
    let java = java(&door);
    let (_, producer_id, epoch) = java.init(None).await;
    java.produce((producer_id, epoch), Some(id())).await;
    let mark = async |epoch, coordinator_epoch, partitions: &[i32]| {
        let topic = WritableTxnMarkerTopic::default().with_name(topic("t")).with_partition_indexes(partitions.to_vec());
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_coordinator_epoch(coordinator_epoch)
            .with_topics(vec![topic]);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let answer = encodes(write_txn_markers(door.cx(1), request).await, 1);
        answer.markers[0].topics[0].partitions.iter().map(|partition| partition.error_code).collect::<Vec<_>>()
    };
    assert_eq!((mark(epoch - 1, 0, &[0]).await, stable_offset(&door)), (vec![47], 0));
    assert_eq!((mark(epoch, 3, &[0, 1]).await, stable_offset(&door)), (vec![0, 3], 2));
    assert_eq!(mark(epoch, 2, &[0]).await, [52], "TRANSACTION_COORDINATOR_FENCED");
}

#[tokio::test]
async fn tools_see_what_there_is() {
    let door = Fixture::new();
    door.topic("t", 2).await;
    let client = librdkafka(&door);
    let (_, producer_id, epoch) = client.init(None).await;
    client.add((producer_id, epoch), &[1]).await;
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![
        id(),
        id(),
        TransactionalId(StrBytes::from_static_str("none")),
    ]);
    let described = encodes(describe_transactions(door.cx(0), request).await, 0).transaction_states;
    assert_eq!((described.len(), described[1].error_code), (2, 105), "TRANSACTIONAL_ID_NOT_FOUND");
    assert_eq!((&*described[0].transaction_state, described[0].producer_id.0), ("Ongoing", producer_id));
    assert_eq!((&described[0].topics[0].topic, &described[0].topics[0].partitions[..]), (&topic("t"), &[1][..]));
    assert_eq!((described[0].transaction_timeout_ms, described[0].producer_epoch), (60_000, epoch));
    let list = async |states: &[&'static str], pattern: Option<&'static str>| {
        let request = ListTransactionsRequest::default()
            .with_state_filters(states.iter().map(|state| StrBytes::from_static_str(state)).collect())
            .with_transactional_id_pattern(pattern.map(StrBytes::from_static_str));
        let answer = encodes(list_transactions(door.cx(2), request).await, 2);
        (answer.error_code, answer.transaction_states.len(), answer.unknown_state_filters.len())
    };
    assert_eq!(list(&[], None).await, (0, 1, 0));
    assert_eq!(list(&["Ongoing", "Dead", "Nonsense"], Some("i.")).await, (0, 1, 1));
    assert_eq!((list(&["Nonsense"], None).await, list(&[], Some("i")).await), ((0, 0, 1), (0, 0, 0)));
    assert_eq!(list(&[], Some("(")).await.0, 128, "INVALID_REGULAR_EXPRESSION");
    let request = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("id")).with_key_type(1);
    let found = encodes(find_coordinator(door.cx(2), request).await, 2);
    assert_eq!((found.error_code, found.port), (0, 19_092));
}
