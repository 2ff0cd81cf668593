//! Share groups over a socket: what members are given and how often, what becomes of what they say of it, and what is
//! left of all that after a crash.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::share_acknowledge_request::{self, AcknowledgePartition, AcknowledgeTopic};
use kafka_protocol::messages::share_fetch_request::{AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::share_fetch_response::PartitionData;
use kafka_protocol::messages::*;
use uuid::Uuid;

use anabranch::model::batch::{self, Codec, Producer};

use crate::harness::{Broker, Client, NOW_MS, PRODUCE, batch, batch_at, produce, text, topic, value};
use crate::process::Process;

const GROUP: &str = "shared";
const SECOND: i64 = 1_000;
/// The broker's.
const LOCK_MS: i64 = 30 * SECOND;
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;

/// First and last offset, and what is said of them.
type Said = (i64, i64, i8);
/// First and last offset, and which delivery it is.
type Got = (i64, i64, i16);

/// A member with its connection and its session.
pub struct Member {
    client: Client,
    id: &'static str,
    topic_id: Uuid,
    epoch: i32,
}

impl Member {
    pub async fn join(broker: &Broker, id: &'static str, topic_id: Uuid) -> Member {
        Member::on(broker.connect().await, id, topic_id).await
    }

    /// Of a group that reads topic t from its beginning unless it is set otherwise.
    async fn on(client: Client, id: &'static str, topic_id: Uuid) -> Member {
        let mut member = Member { client, id, topic_id, epoch: 0 };
        let joined = member.beat(0).await;
        assert_eq!((joined.error_code, joined.member_id.as_deref()), (0, Some(id)));
        member
    }

    async fn beat(&mut self, epoch: i32) -> ShareGroupHeartbeatResponse {
        let beat = ShareGroupHeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text(self.id))
            .with_member_epoch(epoch)
            .with_subscribed_topic_names((epoch == 0).then(|| vec![topic("t")]));
        self.client.call(beat, 1).await
    }

    fn request(&self, epoch: i32, said: &[Said]) -> ShareFetchRequest {
        let batch = |(first, last, kind): &Said| {
            let batch = AcknowledgementBatch::default().with_first_offset(*first).with_last_offset(*last);
            batch.with_acknowledge_types(vec![*kind])
        };
        let partition = FetchPartition::default().with_acknowledgement_batches(said.iter().map(batch).collect());
        let wanted = FetchTopic::default().with_topic_id(self.topic_id).with_partitions(vec![partition]);
        ShareFetchRequest::default()
            .with_group_id(Some(group()))
            .with_member_id(Some(text(self.id)))
            .with_share_session_epoch(epoch)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_max_records(100)
            .with_batch_size(100)
            .with_topics(if epoch == 0 || !said.is_empty() { vec![wanted] } else { Vec::new() })
    }

    async fn call(&mut self, request: ShareFetchRequest) -> ShareFetchResponse {
        let answer = self.client.call(request, 1).await;
        if answer.error_code == 0 {
            self.epoch += 1;
        }
        answer
    }

    /// What is there at once; what is said goes with the request.
    pub async fn fetch(&mut self, said: &[Said]) -> Vec<Got> {
        acquired(&self.fetch_data(said).await)
    }

    async fn fetch_data(&mut self, said: &[Said]) -> PartitionData {
        let answer = self.call(self.request(self.epoch, said)).await;
        only(answer)
    }

    /// Asks and waits; see [`Member::waited`].
    async fn wait(&mut self, max_wait_ms: i32) {
        let request = self.request(self.epoch, &[]).with_max_wait_ms(max_wait_ms);
        self.client.send(request, 1).await;
        self.epoch += 1;
    }

    async fn waited(&mut self) -> Vec<Got> {
        acquired(&only(self.client.receive::<ShareFetchRequest>(1).await))
    }

    async fn acknowledge_at(&mut self, epoch: i32, said: &[Said]) -> ShareAcknowledgeResponse {
        let batch = |(first, last, kind): &Said| {
            let batch = share_acknowledge_request::AcknowledgementBatch::default();
            batch.with_first_offset(*first).with_last_offset(*last).with_acknowledge_types(vec![*kind])
        };
        let partition = AcknowledgePartition::default().with_acknowledgement_batches(said.iter().map(batch).collect());
        let told = AcknowledgeTopic::default().with_topic_id(self.topic_id).with_partitions(vec![partition]);
        let request = ShareAcknowledgeRequest::default()
            .with_group_id(Some(group()))
            .with_member_id(Some(text(self.id)))
            .with_share_session_epoch(epoch)
            .with_topics(if said.is_empty() { Vec::new() } else { vec![told] });
        let answer = self.client.call(request, 1).await;
        if answer.error_code == 0 {
            self.epoch += 1;
        }
        answer
    }

    /// The partition's error.
    async fn acknowledge(&mut self, said: &[Said]) -> i16 {
        let answer = self.acknowledge_at(self.epoch, said).await;
        assert_eq!(answer.error_code, 0);
        answer.responses[0].partitions[0].error_code
    }

    /// Ends the session.
    async fn close(&mut self) {
        assert_eq!(self.acknowledge_at(-1, &[]).await.error_code, 0);
        self.epoch = 0;
    }
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn only(mut answer: ShareFetchResponse) -> PartitionData {
    assert_eq!((answer.error_code, answer.acquisition_lock_timeout_ms), (0, LOCK_MS as i32));
    // Where there is no news of a partition, it is not named.
    let data = answer.responses.pop().map_or_else(PartitionData::default, |mut topic| topic.partitions.remove(0));
    assert_eq!((data.error_code, data.acknowledge_error_code), (0, 0));
    data
}

fn acquired(data: &PartitionData) -> Vec<Got> {
    data.acquired_records.iter().map(|range| (range.first_offset, range.last_offset, range.delivery_count)).collect()
}

fn values(data: &PartitionData) -> Vec<String> {
    let records = data.records.clone().unwrap_or_default();
    let batches: Vec<Bytes> = batch::split(&records).map(Result::unwrap).collect();
    let all = batches.iter().flat_map(|batch| batch::records(batch).unwrap().map(Result::unwrap).collect::<Vec<_>>());
    all.map(|record| value(&record)).collect()
}

impl Client {
    async fn set_share_group(&mut self, settings: &[(&str, &str)]) {
        let setting = |(name, value): &(&str, &str)| {
            AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(32)
            .with_resource_name(text(GROUP))
            .with_configs(settings.iter().map(setting).collect());
        let answer = self.call(IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), 1).await;
        assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
    }

    /// Error of the group, and where it stands in partition 0 of topic t.
    async fn share_start(&mut self) -> (i16, Option<i64>) {
        let wanted = DescribeShareGroupOffsetsRequestGroup::default().with_group_id(group()).with_topics(None);
        let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![wanted]);
        let told = self.call(request, 0).await.groups.remove(0);
        (told.error_code, told.topics.first().map(|topic| topic.partitions[0].start_offset))
    }

    /// Error of the whole, and of the topic's only partition.
    async fn alter_share_start(&mut self, name: &str, offset: i64) -> (i16, Option<i16>) {
        let partition = AlterShareGroupOffsetsRequestPartition::default().with_start_offset(offset);
        let altered = AlterShareGroupOffsetsRequestTopic::default().with_topic_name(topic(name));
        let altered = altered.with_partitions(vec![partition]);
        let request = AlterShareGroupOffsetsRequest::default().with_group_id(group()).with_topics(vec![altered]);
        let answer = self.call(request, 0).await;
        (answer.error_code, answer.responses.first().map(|topic| topic.partitions[0].error_code))
    }

    async fn forget_share_start(&mut self, name: &str) -> (i16, Option<i16>) {
        let doomed = DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(topic(name));
        let request = DeleteShareGroupOffsetsRequest::default().with_group_id(group()).with_topics(vec![doomed]);
        let answer = self.call(request, 0).await;
        (answer.error_code, answer.responses.first().map(|topic| topic.error_code))
    }
}

/// A broker with topic t of one partition, and a group that begins where it begins.
async fn start() -> (Broker, Uuid) {
    let broker = Broker::start().await;
    let topic_id = broker.create_topic("t", 1).await;
    broker.connect().await.set_share_group(&[("share.auto.offset.reset", "earliest")]).await;
    (broker, topic_id)
}

#[tokio::test]
async fn members_share_the_records_and_what_is_processed_is_gone() {
    let (broker, topic_id) = start().await;
    let mut client = broker.connect().await;
    for values in [&["0", "1"][..], &["2", "3", "4"], &["5"]] {
        client.produced("t", 0, batch(values)).await;
    }
    let mut one = Member::join(&broker, "one", topic_id).await;
    let mut two = Member::join(&broker, "two", topic_id).await;
    let first = one.call(one.request(0, &[]).with_max_records(2)).await;
    let first = only(first);
    assert_eq!((acquired(&first), values(&first)), (vec![(0, 1, 1)], vec!["0".to_owned(), "1".to_owned()]));
    assert_eq!(two.fetch(&[]).await, [(2, 5, 1)]);
    assert_eq!(client.share_start().await, (0, Some(0)));

    assert_eq!(one.acknowledge(&[(0, 1, ACCEPT)]).await, 0);
    assert_eq!(client.share_start().await, (0, Some(2)));
    // With the next fetch; what is given back comes again, in its batch.
    let again = two.fetch_data(&[(2, 2, REJECT), (3, 3, RELEASE), (4, 4, ACCEPT)]).await;
    assert_eq!((acquired(&again), values(&again)), (vec![(3, 3, 2)], vec!["2".into(), "3".into(), "4".into()]));
    assert_eq!(client.share_start().await, (0, Some(3)));
    assert_eq!(one.fetch(&[]).await, []);

    let not_held = ResponseError::InvalidRecordState.code();
    assert_eq!(one.acknowledge(&[(3, 3, ACCEPT)]).await, not_held, "two holds it");
    assert_eq!(one.acknowledge(&[(0, 1, ACCEPT)]).await, 0, "processed already, which nobody minds");
    let invalid = ResponseError::InvalidRequest.code();
    assert_eq!(two.acknowledge(&[(6, 6, ACCEPT)]).await, invalid, "there is no such record");
    assert_eq!(two.acknowledge(&[(3, 3, 9)]).await, invalid, "no word for what became of it");
    assert_eq!(two.acknowledge(&[(3, 3, 4)]).await, invalid, "more time is for version 2 to ask for");
    assert_eq!(two.acknowledge(&[(3, 3, ACCEPT), (5, 5, ACCEPT)]).await, 0);
    assert_eq!(client.share_start().await, (0, Some(6)));
}

#[tokio::test]
async fn a_record_is_delivered_as_often_as_the_group_says() {
    let (broker, topic_id) = start().await;
    let mut client = broker.connect().await;
    client.set_share_group(&[("share.delivery.count.limit", "2")]).await;
    client.produced("t", 0, batch(&["poison", "good"])).await;
    let mut member = Member::join(&broker, "m", topic_id).await;
    assert_eq!(member.fetch(&[]).await, [(0, 1, 1)]);
    assert_eq!(member.fetch(&[(0, 0, RELEASE), (1, 1, ACCEPT)]).await, [(0, 0, 2)]);
    assert_eq!(member.fetch(&[(0, 0, RELEASE)]).await, [], "given up");
    assert_eq!(client.share_start().await, (0, Some(2)));
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_group_says() {
    let (broker, topic_id) = start().await;
    let mut client = broker.connect().await;
    client.set_share_group(&[("share.partition.max.record.locks", "100")]).await;
    for _ in 0..3 {
        client.produced("t", 0, batch(&["v"; 60])).await;
    }
    let mut member = Member::join(&broker, "m", topic_id).await;
    let all = member.request(0, &[]).with_max_records(500).with_batch_size(0);
    assert_eq!(acquired(&only(member.call(all).await)), [(0, 99, 1)], "a batch is cut, if need be");
    let mut other = Member::join(&broker, "other", topic_id).await;
    assert_eq!(other.fetch(&[]).await, []);
    other.wait(30_000).await;
    assert!(!other.client.has_news().await);
    // What is processed in the middle makes no room; what is processed at the beginning does.
    assert_eq!(member.acknowledge(&[(50, 99, ACCEPT)]).await, 0);
    assert!(!other.client.has_news().await);
    assert_eq!(member.acknowledge(&[(0, 9, ACCEPT)]).await, 0);
    assert_eq!(other.waited().await, [(100, 109, 1)]);
}

#[tokio::test]
async fn a_lock_runs_out_and_a_waiting_member_gets_the_record() {
    let (broker, topic_id) = start().await;
    broker.connect().await.produced("t", 0, batch(&["v"])).await;
    let mut slow = Member::join(&broker, "slow", topic_id).await;
    assert_eq!(slow.fetch(&[]).await, [(0, 0, 1)]);
    let mut other = Member::join(&broker, "other", topic_id).await;
    assert_eq!(other.fetch(&[]).await, []);
    other.wait(2 * LOCK_MS as i32).await;
    assert!(!other.client.has_news().await);
    broker.clock.advance(LOCK_MS - 1);
    assert!(!other.client.has_news().await);
    broker.clock.advance(1);
    assert_eq!(other.waited().await, [(0, 0, 2)]);
    assert_eq!(slow.acknowledge(&[(0, 0, ACCEPT)]).await, ResponseError::InvalidRecordState.code(), "too late");
    assert_eq!(other.acknowledge(&[(0, 0, ACCEPT)]).await, 0);
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_an_append_or_ends_in_time() {
    let (broker, topic_id) = start().await;
    let mut member = Member::join(&broker, "m", topic_id).await;
    assert_eq!(member.fetch(&[]).await, []);
    member.wait(500).await;
    assert!(!member.client.has_news().await);
    broker.clock.advance(500);
    assert_eq!(member.waited().await, []);
    member.wait(30_000).await;
    assert!(!member.client.has_news().await);
    broker.connect().await.produced("t", 0, batch(&["v"])).await;
    assert_eq!(member.waited().await, [(0, 0, 1)]);
}

/// A transaction of `count` records, left open.
async fn transaction(client: &mut Client, count: usize) -> (i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let made = client.call(request, 5).await;
    assert_eq!(made.error_code, 0);
    let producer =
        Producer { id: made.producer_id.0, epoch: made.producer_epoch, base_sequence: 0, transactional: true };
    let records = batch_at(NOW_MS, &vec!["in a transaction"; count], Codec::None, Some(producer));
    let request = produce("t", 0, records, -1).with_transactional_id(Some(TransactionalId(text("tx"))));
    assert_eq!(client.call(request, PRODUCE).await.responses[0].partition_responses[0].error_code, 0);
    (made.producer_id.0, made.producer_epoch)
}

async fn end(client: &mut Client, (producer_id, epoch): (i64, i16), commit: bool) {
    let request = EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(epoch)
        .with_committed(commit);
    assert_eq!(client.call(request, 5).await.error_code, 0);
}

#[tokio::test]
async fn a_group_that_reads_committed_waits_for_the_end_of_transactions() {
    let (broker, topic_id) = start().await;
    let mut client = broker.connect().await;
    client.set_share_group(&[("share.isolation.level", "read_committed")]).await;
    let mut member = Member::join(&broker, "m", topic_id).await;
    // Offsets 0 and 1 with their marker at 2, 3 with its at 4, and 5.
    let open = transaction(&mut client, 2).await;
    assert_eq!(member.fetch(&[]).await, []);
    member.wait(30_000).await;
    assert!(!member.client.has_news().await);
    end(&mut client, open, true).await;
    assert_eq!(member.waited().await, [(0, 1, 1)]);

    let open = transaction(&mut client, 1).await;
    client.produced("t", 0, batch(&["behind it"])).await;
    assert_eq!(member.fetch(&[]).await, [], "what is open holds up what is behind it");
    end(&mut client, open, false).await;
    let data = member.fetch_data(&[(0, 1, ACCEPT)]).await;
    assert_eq!((acquired(&data), values(&data)), (vec![(4, 4, 1)], vec!["behind it".to_owned()]));
    assert_eq!(member.acknowledge(&[(4, 4, ACCEPT)]).await, 0);
    assert_eq!(client.share_start().await.1, Some(6), "the marker behind it is nobody's");

    // Who takes everything gets what was aborted, but no markers.
    client.set_share_group(&[("share.isolation.level", "read_uncommitted")]).await;
    let open = transaction(&mut client, 1).await;
    assert_eq!(member.fetch(&[]).await, [(6, 6, 1)]);
    end(&mut client, open, false).await;
    assert_eq!(member.fetch(&[(6, 6, ACCEPT)]).await, []);
}

#[tokio::test]
async fn sessions_are_counted_and_what_was_held_goes_back_with_them() {
    let (broker, topic_id) = start().await;
    broker.connect().await.produced("t", 0, batch(&["v"])).await;
    let mut member = Member::join(&broker, "m", topic_id).await;
    let code = |answer: ShareFetchResponse| answer.error_code;
    let not_found = ResponseError::ShareSessionNotFound.code();
    assert_eq!(code(member.call(member.request(1, &[])).await), not_found);
    assert_eq!(member.acknowledge_at(1, &[]).await.error_code, not_found);
    let with = member.request(0, &[(0, 0, ACCEPT)]);
    assert_eq!(code(member.call(with).await), ResponseError::InvalidRequest.code(), "there is nothing yet to say");
    assert_eq!(member.fetch(&[]).await, [(0, 0, 1)]);
    let wrong = ResponseError::InvalidShareSessionEpoch.code();
    assert_eq!(code(member.call(member.request(2, &[])).await), wrong);
    assert_eq!(member.acknowledge_at(0, &[]).await.error_code, wrong);

    let mut other = Member::join(&broker, "other", topic_id).await;
    assert_eq!(other.fetch(&[]).await, []);
    member.close().await;
    // As if it had never been delivered.
    assert_eq!(other.fetch(&[]).await, [(0, 0, 1)]);
    assert_eq!(code(member.call(member.request(1, &[])).await), not_found);

    // A partition that is forgotten is not fetched any more.
    assert_eq!(member.fetch(&[]).await, []);
    let forgotten = ForgottenTopic::default().with_topic_id(topic_id).with_partitions(vec![0]);
    let request = member.request(member.epoch, &[]).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(member.call(request).await.error_code, 0);
    member.wait(30_000).await;
    // The other's connection ends, and so does its session; the third waits for just that.
    let mut third = Member::join(&broker, "third", topic_id).await;
    third.wait(30_000).await;
    drop(other);
    assert_eq!(third.waited().await, [(0, 0, 1)]);
}

#[tokio::test]
async fn there_are_as_many_sessions_as_there_may_be() {
    let broker = Broker::with(|config| config.group_share_sessions_max = 1).await;
    let topic_id = broker.create_topic("t", 1).await;
    let mut one = Member::join(&broker, "one", topic_id).await;
    let mut two = Member::join(&broker, "two", topic_id).await;
    assert_eq!(one.fetch(&[]).await, []);
    // Told late, for the client asks again at once.
    two.wait(500).await;
    assert!(!two.client.has_news().await);
    broker.clock.advance(500);
    let refused = two.client.receive::<ShareFetchRequest>(1).await.error_code;
    assert_eq!(refused, ResponseError::ShareSessionLimitReached.code());
    one.close().await;
    two.epoch = 0;
    assert_eq!(two.fetch(&[]).await, []);
}

#[tokio::test]
async fn what_was_said_survives_a_crash_and_what_was_held_is_free() {
    let (broker, topic_id) = start().await;
    broker.connect().await.produced("t", 0, batch(&["0", "1", "2", "3"])).await;
    let mut member = Member::join(&broker, "m", topic_id).await;
    assert_eq!(member.fetch(&[]).await, [(0, 3, 1)]);
    assert_eq!(member.acknowledge(&[(0, 0, ACCEPT), (1, 1, RELEASE), (2, 2, REJECT)]).await, 0);
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!(client.share_start().await, (0, Some(1)));
    let mut member = Member { client: broker.connect().await, epoch: 0, ..member };
    assert_eq!(member.beat(1).await.error_code, 0, "still a member");
    assert_eq!(member.fetch(&[]).await, [(1, 1, 2), (3, 3, 1)]);
    assert_eq!(member.acknowledge(&[(1, 1, ACCEPT), (3, 3, ACCEPT)]).await, 0);
    let broker = broker.crash().await;
    assert_eq!(broker.connect().await.share_start().await, (0, Some(4)));
}

/// A real folder and a real kill.
#[tokio::test]
async fn a_kill_loses_nothing_of_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &["--memory", "16MiB"]);
    let mut client = Client::connect_to(process.kafka).await;
    let topic_id = client.create_topic("t", 1, &[]).await;
    client.set_share_group(&[("share.auto.offset.reset", "earliest")]).await;
    client.produced("t", 0, batch(&["v"; 50])).await;
    for round in 0..5 {
        let mut member = Member::on(Client::connect_to(process.kafka).await, "m", topic_id).await;
        let from = round * 10;
        let held = member.fetch(&[]).await;
        assert_eq!((held[0].0, held[held.len() - 1].1), (from, 49));
        assert_eq!(member.acknowledge(&[(from, from + 9, ACCEPT)]).await, 0);
        process.kill();
        process = Process::start(folder.path(), &["--memory", "16MiB"]);
    }
    let mut client = Client::connect_to(process.kafka).await;
    assert_eq!(client.share_start().await, (0, Some(50)));
}

#[tokio::test]
async fn an_administrator_moves_a_group_without_members() {
    let (broker, topic_id) = start().await;
    broker.create_topic("other", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["0", "1", "2", "3"])).await;
    assert_eq!(client.share_start().await, (ResponseError::GroupIdNotFound.code(), None));
    // It comes into being with where it stands.
    assert_eq!(client.alter_share_start("t", 2).await, (0, Some(0)));
    assert_eq!(client.share_start().await, (0, Some(2)));
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(client.alter_share_start("unknown", 2).await, (0, Some(unknown)));

    let mut member = Member::join(&broker, "m", topic_id).await;
    assert_eq!(member.fetch(&[]).await, [(2, 3, 1)]);
    let used = ResponseError::NonEmptyGroup.code();
    assert_eq!(client.alter_share_start("t", 0).await.0, used);
    assert_eq!(client.forget_share_start("t").await.0, used);
    assert_eq!(member.beat(-1).await.member_epoch, -1);
    assert_eq!(client.alter_share_start("t", 1).await, (0, Some(0)));
    assert_eq!(member.beat(0).await.error_code, 0);
    assert_eq!(member.fetch(&[]).await, [(1, 3, 1)], "what it held is forgotten");
    assert_eq!(member.beat(-1).await.error_code, 0);

    assert_eq!(client.forget_share_start("unknown").await, (0, Some(unknown)));
    assert_eq!(client.forget_share_start("t").await, (0, Some(0)));
    assert_eq!(client.share_start().await, (0, None));
    let broker = broker.crash().await;
    let mut client = broker.connect().await;
    assert_eq!(client.share_start().await, (0, None));
    let doomed = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    assert_eq!(client.call(doomed, 2).await.results[0].error_code, 0);
    assert_eq!(client.share_start().await.0, ResponseError::GroupIdNotFound.code());
}

#[tokio::test]
async fn members_are_assigned_listed_and_missed() {
    let (broker, topic_id) = start().await;
    let mut client = broker.connect().await;
    client.add_partitions("t", 2).await;
    let mut one = Member::join(&broker, "one", topic_id).await;
    let mut two = Member::join(&broker, "two", topic_id).await;
    let listed = async |client: &mut Client| {
        let request = ListGroupsRequest::default().with_types_filter(vec![text("share")]);
        let groups = client.call(request, 5).await.groups;
        groups.into_iter().map(|group| (group.group_id.to_string(), group.group_state.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut client).await, [(GROUP.to_owned(), "Stable".to_owned())]);
    let described = async |client: &mut Client| {
        let request = ShareGroupDescribeRequest::default().with_group_ids(vec![group()]);
        client.call(request, 1).await.groups.remove(0)
    };
    let told = described(&mut client).await;
    let mut partitions: Vec<i32> = told.members.iter().flat_map(assigned_to).collect();
    partitions.sort_unstable();
    assert_eq!((told.members.len(), &*told.assignor_name, partitions), (2, "simple", vec![0, 1]));

    let epoch = one.beat(0).await.member_epoch;
    assert_eq!(epoch, told.group_epoch, "who joins again is who it was");
    assert_eq!(one.beat(epoch + 1).await.error_code, ResponseError::FencedMemberEpoch.code());
    // Silence for a session.
    broker
        .advance_until(10 * SECOND, async || {
            assert_eq!(one.beat(0).await.error_code, 0);
            described(&mut broker.connect().await).await.members.len() == 1
        })
        .await;
    let unknown = ResponseError::UnknownMemberId.code();
    assert_eq!(two.beat(epoch).await.error_code, unknown);
    let told = described(&mut broker.connect().await).await;
    assert_eq!(assigned_to(&told.members[0]), [0, 1]);
    assert_eq!(one.beat(-1).await.error_code, 0);
    assert_eq!(listed(&mut broker.connect().await).await, [(GROUP.to_owned(), "Empty".to_owned())]);
}

fn assigned_to(member: &share_group_describe_response::Member) -> Vec<i32> {
    member.assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect()
}

#[tokio::test]
async fn a_group_may_begin_with_what_is_young_enough() {
    let (broker, topic_id) = start().await;
    let mut client = broker.connect().await;
    client.set_share_group(&[("share.auto.offset.reset", "by_duration:PT1M")]).await;
    for age in [120, 60, 30] {
        client.produced("t", 0, batch_at(NOW_MS - age * SECOND, &["v"], Codec::None, None)).await;
    }
    let mut member = Member::join(&broker, "m", topic_id).await;
    assert_eq!(member.fetch(&[]).await, [(1, 2, 1)]);
}
