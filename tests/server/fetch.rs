//! Records out: waiting, limits, sessions, epochs, topic ids, and what a deletion does to who waits.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, OffsetForLeaderEpochRequest};

use crate::harness::{Broker, Client, FETCH, batch, batches, fetch, records, topic, value};

/// The waiting fetch is in its place: whatever else is asked over other connections comes after it.
async fn waits(client: &mut Client, request: FetchRequest, version: i16) {
    client.send(request, version).await;
    assert!(!client.has_news().await, "it is answered at once");
}

fn values(data: &PartitionData) -> Vec<String> {
    records(data).iter().map(value).collect()
}

fn of_partition(answer: &FetchResponse, index: i32) -> &PartitionData {
    answer.responses.iter().flat_map(|topic| &topic.partitions).find(|data| data.partition_index == index).unwrap()
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_the_append_and_by_nothing_else() {
    let broker = Broker::start().await;
    broker.create_topic("t", 2).await;
    broker.create_topic("other", 1).await;
    let (mut consumer, mut producer) = (broker.connect().await, broker.connect().await);
    // The clock stands still: only the append can wake it.
    waits(&mut consumer, fetch("t", &[(0, 0), (1, 0)]).with_max_wait_ms(500), FETCH).await;
    producer.produced("other", 0, batch(&["elsewhere"])).await;
    assert!(!consumer.has_news().await);
    producer.produced("t", 1, batch(&["woken"])).await;
    let answer = consumer.receive::<FetchRequest>(FETCH).await;
    assert_eq!(values(of_partition(&answer, 1)), ["woken"]);
    assert!(values(of_partition(&answer, 0)).is_empty(), "a full answer holds every partition");

    // Without news it is answered when its time is over, and empty.
    waits(&mut consumer, fetch("t", &[(0, 0)]).with_max_wait_ms(500), FETCH).await;
    broker.advance_until(100, async || consumer.has_news().await).await;
    let answer = consumer.receive::<FetchRequest>(FETCH).await;
    assert_eq!((answer.error_code, values(of_partition(&answer, 0)).len()), (0, 0));
    // And at once when it does not want to wait.
    assert!(values(&producer.fetch("t", 0, 0).await).is_empty());
}

#[tokio::test]
async fn a_fetch_waits_for_as_many_bytes_as_it_asks_for() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let (mut consumer, mut producer) = (broker.connect().await, broker.connect().await);
    let one = batch(&["0123456789"]);
    let request = fetch("t", &[(0, 0)]).with_max_wait_ms(60_000).with_min_bytes(2 * one.len() as i32 + 1);
    waits(&mut consumer, request.clone(), FETCH).await;
    for _ in 0..2 {
        producer.produced("t", 0, one.clone()).await;
        assert!(!consumer.has_news().await, "that is not enough");
    }
    producer.produced("t", 0, one.clone()).await;
    let answer = consumer.receive::<FetchRequest>(FETCH).await;
    assert_eq!(batches(of_partition(&answer, 0)).len(), 3);
    // More than the answer may hold cannot be waited for.
    let request = fetch("t", &[(0, 2)]).with_max_wait_ms(60_000).with_min_bytes(i32::MAX).with_max_bytes(10);
    assert_eq!(batches(of_partition(&consumer.call(request, FETCH).await, 0)).len(), 1);
}

#[tokio::test]
async fn an_answer_keeps_within_its_limits_except_for_its_first_batch() {
    let broker = Broker::start().await;
    broker.create_topic("t", 2).await;
    let mut client = broker.connect().await;
    let one = batch(&[&"x".repeat(1_000)]);
    let len = one.len() as i32;
    for partition in [0, 0, 0, 1, 1] {
        client.produced("t", partition, one.clone()).await;
    }
    let counts = async |client: &mut Client, max_bytes: i32, partition_max_bytes: i32| {
        let mut request = fetch("t", &[(0, 0), (1, 0)]).with_max_bytes(max_bytes);
        request.topics[0].partitions.iter_mut().for_each(|wanted| wanted.partition_max_bytes = partition_max_bytes);
        let answer = client.call(request, FETCH).await;
        [0, 1].map(|index| batches(of_partition(&answer, index)).len())
    };
    let many = i32::MAX;
    assert_eq!(counts(&mut client, many, many).await, [3, 2]);
    // Of a partition: whole batches.
    assert_eq!(counts(&mut client, many, 2 * len).await, [2, 2]);
    assert_eq!(counts(&mut client, many, 2 * len - 1).await, [1, 1]);
    // Of the answer.
    assert_eq!(counts(&mut client, 4 * len, many).await, [3, 1]);
    assert_eq!(counts(&mut client, 4 * len - 1, many).await, [3, 0]);
    assert_eq!(counts(&mut client, len, many).await, [1, 0]);
    // The first batch comes whatever its size, or its consumer would never get past it; a second partition has no such
    // right.
    assert_eq!(counts(&mut client, 1, many).await, [1, 0]);
    assert_eq!(counts(&mut client, many, 1).await, [1, 0]);
    assert_eq!(counts(&mut client, 0, 0).await, [1, 0]);
    assert_eq!(counts(&mut client, -1, -1).await, [1, 0]);
}

#[tokio::test]
async fn the_brokers_own_limit_holds_too() {
    let broker = Broker::with(|config| config.fetch_bytes_max = 4_096).await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let one = batch(&[&"x".repeat(1_000)]);
    for _ in 0..10 {
        client.produced("t", 0, one.clone()).await;
    }
    assert_eq!(batches(&client.fetch("t", 0, 0).await).len(), 4_096 / one.len());
}

#[tokio::test]
async fn offsets_within_a_batch_get_the_batch_and_those_beyond_the_log_an_error() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["0", "1", "2"])).await;
    client.produced("t", 0, batch(&["3", "4"])).await;
    for (offset, first) in [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3)] {
        let data = client.fetch("t", 0, offset).await;
        assert_eq!(records(&data)[0].offset, first, "from {offset}");
        assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (5, 5, 0));
    }
    let end = client.fetch("t", 0, 5).await;
    assert_eq!((end.error_code, end.records), (0, Some(Bytes::new())));
    assert_eq!(client.delete_records("t", 0, 2).await, (0, 2));
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    for offset in [-1, 0, 1, 6, i64::MAX, i64::MIN] {
        assert_eq!(client.fetch("t", 0, offset).await.error_code, out_of_range, "{offset}");
    }
    let data = client.fetch("t", 0, 2).await;
    assert_eq!((records(&data)[0].offset, data.log_start_offset), (0, 2), "the batch is whole");
    for (name, partition) in [("t", 1), ("t", -1), ("nowhere", 0)] {
        let refused = client.fetch(name, partition, 0).await.error_code;
        assert_eq!(refused, ResponseError::UnknownTopicOrPartition.code());
    }
}

fn session(id: i32, epoch: i32, wanted: &[(i32, i64)]) -> FetchRequest {
    fetch("t", wanted).with_session_id(id).with_session_epoch(epoch)
}

fn told(answer: &FetchResponse) -> Vec<i32> {
    answer.responses.iter().flat_map(|topic| &topic.partitions).map(|data| data.partition_index).collect()
}

#[tokio::test]
async fn a_fetch_session_tells_only_what_is_new() {
    let broker = Broker::start().await;
    broker.create_topic("t", 3).await;
    let (mut consumer, mut producer) = (broker.connect().await, broker.connect().await);
    let opened = consumer.call(session(0, 0, &[(0, 0), (1, 0), (2, 0)]), FETCH).await;
    let id = opened.session_id;
    assert!(id > 0);
    assert_eq!(told(&opened), [0, 1, 2], "the first answer is full");
    let quiet = consumer.call(session(id, 1, &[]), FETCH).await;
    assert_eq!((quiet.error_code, quiet.session_id, told(&quiet)), (0, id, vec![]));

    producer.produced("t", 1, batch(&["a"])).await;
    let news = consumer.call(session(id, 2, &[]), FETCH).await;
    assert_eq!((told(&news), values(of_partition(&news, 1))), (vec![1], vec!["a".to_owned()]));
    // Until the client moves on, it is told again; then it is not.
    assert_eq!(told(&consumer.call(session(id, 3, &[]), FETCH).await), [1]);
    assert_eq!(told(&consumer.call(session(id, 4, &[(1, 1)]), FETCH).await), [] as [i32; 0]);

    // An incremental fetch waits like any other, and for what was added to it too.
    broker.create_topic("u", 1).await;
    let mut more = session(id, 5, &[(0, 0)]);
    more.topics.push(more.topics[0].clone().with_topic(topic("u")));
    assert_eq!(told(&consumer.call(more, FETCH).await), [0], "a partition that is new to the session is told");
    waits(&mut consumer, session(id, 6, &[]).with_max_wait_ms(60_000), FETCH).await;
    producer.produced("u", 0, batch(&["b"])).await;
    let woken = consumer.receive::<FetchRequest>(FETCH).await;
    assert_eq!((woken.responses[0].topic.as_str(), told(&woken)), ("u", vec![0]));

    // What is forgotten is told no more.
    let forgotten = ForgottenTopic::default().with_topic(topic("t")).with_partitions(vec![2]);
    let mut request = session(id, 7, &[]).with_forgotten_topics_data(vec![forgotten]);
    request.topics = fetch("u", &[(0, 1)]).topics;
    consumer.call(request, FETCH).await;
    producer.produced("t", 2, batch(&["c"])).await;
    assert_eq!(told(&consumer.call(session(id, 8, &[]), FETCH).await), [] as [i32; 0]);
    // A start that moves is news.
    producer.delete_records("t", 1, 1).await;
    assert_eq!(told(&consumer.call(session(id, 9, &[]), FETCH).await), [1]);
}

#[tokio::test]
async fn a_session_is_held_to_its_epoch_and_can_be_closed() {
    let broker = Broker::start().await;
    let topic_id = broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    let id = client.call(session(0, 0, &[(0, 0)]), FETCH).await.session_id;
    let error = async |client: &mut Client, request: FetchRequest, version: i16| {
        let answer = client.call(request, version).await;
        (ResponseError::try_from_code(answer.error_code), answer.responses.len())
    };
    for (id, epoch, refused) in [
        (id, 2, ResponseError::InvalidFetchSessionEpoch),
        (id, i32::MAX, ResponseError::InvalidFetchSessionEpoch),
        (id, -2, ResponseError::InvalidFetchSessionEpoch),
        (id ^ 1, 1, ResponseError::FetchSessionIdNotFound),
        (0, 1, ResponseError::FetchSessionIdNotFound),
    ] {
        assert_eq!(error(&mut client, session(id, epoch, &[]), FETCH).await, (Some(refused), 0), "{id} {epoch}");
    }
    // By id where it was opened by name.
    let mut by_id = session(id, 1, &[(0, 0)]);
    by_id.topics[0].topic_id = topic_id;
    let refused = Some(ResponseError::FetchSessionTopicIdError);
    assert_eq!(error(&mut client, by_id, 13).await, (refused, 0));
    assert_eq!(error(&mut client, session(id, 1, &[]), FETCH).await.0, None, "refusals change nothing");
    // Opened anew in the place of the old one.
    let next = client.call(session(id, 0, &[(0, 0)]), FETCH).await.session_id;
    assert_eq!(error(&mut client, session(id, 2, &[]), FETCH).await.0, Some(ResponseError::FetchSessionIdNotFound));
    // Closed, and still answered in full.
    let closed = client.call(session(next, -1, &[(0, 0)]), FETCH).await;
    assert_eq!((closed.session_id, told(&closed)), (0, vec![0]));
    assert_eq!(error(&mut client, session(next, 1, &[]), FETCH).await.0, Some(ResponseError::FetchSessionIdNotFound));
}

#[tokio::test]
async fn epochs_are_fenced_once_a_shard_was_split() {
    let mut broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["before", "before"])).await;
    client.add_partitions("t", 2).await;
    client.produced("t", 0, batch(&["after"])).await;
    // Epochs never go back, and outlive the process.
    for round in 0..3 {
        let mut client = broker.connect().await;
        let error = async |client: &mut Client, epoch: i32| {
            let mut request = fetch("t", &[(0, 0)]);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            ResponseError::try_from_code(of_partition(&client.call(request, FETCH).await, 0).error_code)
        };
        assert_eq!(error(&mut client, -1).await, None);
        assert_eq!(error(&mut client, 0).await, Some(ResponseError::FencedLeaderEpoch));
        assert_eq!(error(&mut client, 1).await, None);
        assert_eq!(error(&mut client, 2).await, Some(ResponseError::UnknownLeaderEpoch));
        let data = client.fetch("t", 0, 0).await;
        let epochs: Vec<i32> = batches(&data)
            .iter()
            .map(|batch| anabranch::model::batch::Header::parse(batch).unwrap().partition_leader_epoch)
            .collect();
        assert_eq!(epochs, [0, 1]);
        let wanted = OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(0);
        let wanted = OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![wanted]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
        let end = client.call(request, 4).await.topics.remove(0).partitions.remove(0);
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, 0, 2));
        broker = if round == 0 { broker.crash().await } else { broker.restart().await };
    }
}

#[tokio::test]
async fn topics_are_fetched_by_id_in_newer_versions() {
    let broker = Broker::start().await;
    let id = broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["v"])).await;
    let mut request = fetch("", &[(0, 0)]);
    request.topics[0].topic_id = id;
    for version in 13..=18 {
        let answer = client.call(request.clone(), version).await;
        assert_eq!((answer.responses[0].topic_id, values(of_partition(&answer, 0))), (id, vec!["v".to_owned()]));
    }
    client.delete_topic("t").await;
    client.create_topic("t", 1, &[]).await;
    let refused = client.call(request, 18).await;
    assert_eq!(of_partition(&refused, 0).error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn a_fetch_that_waits_learns_of_the_topics_deletion() {
    let broker = Broker::start().await;
    let id = broker.create_topic("t", 1).await;
    let (mut by_name, mut by_id) = (broker.connect().await, broker.connect().await);
    waits(&mut by_name, fetch("t", &[(0, 0)]).with_max_wait_ms(i32::MAX), FETCH).await;
    let mut request = fetch("", &[(0, 0)]).with_max_wait_ms(i32::MAX);
    request.topics[0].topic_id = id;
    waits(&mut by_id, request, 18).await;
    broker.connect().await.delete_topic("t").await;
    let answer = by_name.receive::<FetchRequest>(FETCH).await;
    assert_eq!(of_partition(&answer, 0).error_code, ResponseError::UnknownTopicOrPartition.code());
    let answer = by_id.receive::<FetchRequest>(18).await;
    assert_eq!(of_partition(&answer, 0).error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn a_reader_of_committed_records_is_told_that_nothing_was_aborted() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    client.produced("t", 0, batch(&["v"])).await;
    for version in 4..=FETCH {
        for (level, aborted) in [(0, None), (1, Some(0))] {
            let answer = client.call(fetch("t", &[(0, 0)]).with_isolation_level(level), version).await;
            let data = of_partition(&answer, 0);
            assert_eq!(data.aborted_transactions.as_ref().map(Vec::len), aborted, "version {version}");
            assert_eq!((data.last_stable_offset, values(data)), (1, vec!["v".to_owned()]));
        }
    }
}
