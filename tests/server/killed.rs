//! The process and its folder: `kill -9` at any moment, SIGTERM, and a second start.

use std::collections::VecDeque;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
};

use crate::harness::{Client, PRODUCE, batch, produce, sequenced, text, topic};
use crate::process::Process;
use crate::random::Random;

/// Requests under way, as idempotent clients allow themselves.
const IN_FLIGHT: usize = 5;
const ROUNDS: u64 = 10;
/// Small, so that memtables are flushed and epochs step under the load of this test.
const SMALL: [&str; 2] = ["--memory", "16MiB"];

fn filled(number: i64) -> String {
    format!("{number} {}", "x".repeat(Random(number as u64).below(16_000)))
}

/// An idempotent producer of the numbers from 0 on, two to a batch.
struct Producer {
    id: i64,
    /// Of the next batch that was never sent.
    next: i64,
    /// First numbers of batches without an answer, in order.
    unanswered: VecDeque<i64>,
    acknowledged: i64,
}

impl Producer {
    fn request(&self, first: i64) -> ProduceRequest {
        let (one, two) = (filled(first), filled(first + 1));
        produce("t", 0, sequenced(self.id, 0, first as i32, &[&one, &two]), -1)
    }

    /// What nobody knows the fate of is sent again, under its old sequence.
    async fn resume(&self, client: &mut Client) {
        for first in &self.unanswered {
            client.send(self.request(*first), PRODUCE).await;
        }
    }

    /// Sends until `acknowledgements` have come, and leaves what is under way.
    async fn run(&mut self, client: &mut Client, acknowledgements: u64) {
        for _ in 0..acknowledgements {
            while self.unanswered.len() < IN_FLIGHT {
                self.unanswered.push_back(self.next);
                client.send(self.request(self.next), PRODUCE).await;
                self.next += 2;
            }
            let answer = client.receive::<ProduceRequest>(PRODUCE).await;
            let partition = &answer.responses[0].partition_responses[0];
            let first = self.unanswered.pop_front().unwrap();
            assert_eq!((partition.error_code, partition.base_offset), (0, first), "{:?}", partition.error_message);
            self.acknowledged = first + 2;
        }
    }
}

fn commit(offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("killed")));
    let topic = OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

async fn committed(client: &mut Client) -> i64 {
    let wanted = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![wanted]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    client.call(request, 8).await.groups[0].topics[0].partitions[0].committed_offset
}

#[tokio::test]
async fn what_was_acknowledged_is_there_in_order_and_once_after_kills_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &SMALL);
    let mut client = Client::connect_to(process.kafka).await;
    client.create_topic("t", 1, &[]).await;
    let id = client.new_producer_id().await;
    let mut producer = Producer { id, next: 0, unanswered: VecDeque::new(), acknowledged: 0 };
    for round in 0..ROUNDS {
        // Also at once after the start, with what was sent again still on its way.
        let acknowledgements = if round % 4 == 3 { 0 } else { Random(round).next() % 300 };
        producer.run(&mut client, acknowledgements).await;
        let committed_offset = producer.acknowledged;
        let answer = Client::connect_to(process.kafka).await.call(commit(committed_offset), 8).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        producer.run(&mut client, Random(round + 100).next() % 20).await;
        process.kill();

        process = Process::start(folder.path(), &SMALL);
        client = Client::connect_to(process.kafka).await;
        let end = client.latest("t", 0).await;
        assert!(end >= producer.acknowledged, "round {round}: {end} of {} acknowledged", producer.acknowledged);
        assert_eq!(committed(&mut client).await, committed_offset);
        producer.resume(&mut client).await;
    }
    producer.run(&mut client, 10).await;
    let read = Client::connect_to(process.kafka).await.read_from("t", 0, 0).await;
    assert!(read.len() as i64 >= producer.acknowledged && read.len() as i64 <= producer.next);
    for (number, (offset, value)) in read.iter().enumerate() {
        assert!(*offset == number as i64 && *value == filled(*offset), "{offset} at place {number}");
    }
}

#[tokio::test]
async fn a_second_start_says_who_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Process::start(folder.path(), &SMALL);
    let (said, code) = Process::refused(folder.path());
    assert_eq!(code, Some(1));
    assert!(said.contains(&first.id().to_string()), "{said}");
    // The folder is free as soon as its holder is gone, however it went.
    first.kill();
    let mut second = Process::start(folder.path(), &SMALL);
    assert_eq!(second.terminate().code(), Some(0));
}

#[tokio::test]
async fn sigterm_answers_what_is_under_way_and_everything_is_there_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &SMALL);
    let mut client = Client::connect_to(process.kafka).await;
    client.create_topic("t", 1, &[]).await;
    client.produced("t", 0, batch(&["kept"])).await;
    assert_eq!(client.call(commit(1), 8).await.topics[0].partitions[0].error_code, 0);
    let joined = client.join(9).await;
    client.sync_as_leader(&joined, 5).await;
    let stopped = tokio::task::spawn_blocking(move || process.terminate());
    // It stops while requests are on their way. Whatever was taken is answered before the connection ends.
    for n in 0..20_000 {
        if client.try_send(produce("t", 0, batch(&[&filled(n)]), -1), PRODUCE).await.is_err() {
            break;
        }
    }
    let mut answered = 0;
    while let Some(answer) = client.try_receive::<ProduceRequest>(PRODUCE).await {
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        answered += 1;
    }
    assert_eq!(stopped.await.unwrap().code(), Some(0));

    let process = Process::start(folder.path(), &SMALL);
    let mut client = Client::connect_to(process.kafka).await;
    let read = client.read_from("t", 0, 0).await;
    assert_eq!(read.len(), 1 + answered);
    assert_eq!(committed(&mut client).await, 1);
    assert_eq!(client.heartbeat(&joined, 4).await, 0, "the member is still one");
    let described = client.call(DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g"))]), 5).await;
    assert_eq!((&*described.groups[0].group_state, described.groups[0].members.len()), ("Stable", 1));
}
