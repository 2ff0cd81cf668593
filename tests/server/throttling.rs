//! Clients that go beyond a shard's limits: answered at once, told to pause, and not read from until the pause is over.

use kafka_protocol::messages::{FetchRequest, FetchResponse, HeartbeatRequest, ProduceRequest};

use crate::harness::{Broker, Client, FETCH, PRODUCE, batch, fetch, metrics, produce, records};

const ENFORCE: &[(&str, &str)] = &[("kinesis.limits", "enforce")];
const MIB: usize = 1 << 20;

/// A shard takes 1,000 of these a second.
fn small(count: usize) -> bytes::Bytes {
    batch(&vec!["v"; count])
}

/// A fetch of up to `mib` MiB.
fn large_fetch(name: &str, offset: i64, mib: usize) -> FetchRequest {
    let mut request = fetch(name, &[(0, offset)]).with_max_bytes((mib * MIB) as i32);
    request.topics[0].partitions[0].partition_max_bytes = (mib * MIB) as i32;
    request
}

/// A topic that holds `batches` batches of about half a MiB, written while nothing was enforced.
async fn filled(broker: &Broker, name: &str, batches: usize) {
    let mut client = broker.connect().await;
    client.create_topic(name, 1, &[("kinesis.limits", "off")]).await;
    let value = "v".repeat(MIB / 2);
    for _ in 0..batches {
        client.produced(name, 0, batch(&[&value])).await;
    }
}

async fn enforce(client: &mut Client, name: &str) {
    use kafka_protocol::messages::IncrementalAlterConfigsRequest;
    use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default()
        .with_name(crate::harness::text("kinesis.limits"))
        .with_value(Some(crate::harness::text("enforce")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(crate::harness::text(name))
        .with_configs(vec![config]);
    let altered = client.call(IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), 1).await;
    assert_eq!(altered.responses[0].error_code, 0);
}

fn sizes(response: &FetchResponse) -> usize {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|data| data.records.as_ref().map_or(0, bytes::Bytes::len)).sum()
}

#[tokio::test]
async fn a_producer_beyond_the_limits_is_answered_at_once_and_then_not_read_from() {
    let broker = Broker::start().await;
    broker.create_with("t", ENFORCE).await;
    let mut client = broker.connect().await;
    let answer = client.call(produce("t", 0, small(1_500), -1), PRODUCE).await;
    assert_eq!(answer.throttle_time_ms, 500);
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 0);

    client.send(produce("t", 0, small(1), -1), PRODUCE).await;
    broker.clock.advance(499);
    // Another connection goes on, be it of the same client; a group's coordinator is on one.
    let mut other = broker.connect().await;
    assert_eq!(other.call(HeartbeatRequest::default(), 4).await.throttle_time_ms, 0);
    assert_eq!(other.latest("t", 0).await, 1_500);
    assert!(!client.has_news().await);
    broker.clock.advance(1);
    let answer = client.receive::<ProduceRequest>(PRODUCE).await;
    assert_eq!((answer.throttle_time_ms, answer.responses[0].partition_responses[0].base_offset), (1, 1_500));
}

#[tokio::test]
async fn of_a_pipeline_one_request_goes_beyond_the_limits() {
    let broker = Broker::start().await;
    broker.create_with("t", ENFORCE).await;
    let mut client = broker.connect().await;
    for _ in 0..6 {
        client.send(produce("t", 0, small(600), -1), PRODUCE).await;
    }
    let mut pauses = Vec::new();
    for _ in 0..2 {
        pauses.push(client.receive::<ProduceRequest>(PRODUCE).await.throttle_time_ms);
    }
    assert_eq!(pauses, [0, 200]);
    let mut other = broker.connect().await;
    for sent in 2..6 {
        assert_eq!(other.latest("t", 0).await, sent * 600);
        assert!(!client.has_news().await);
        broker.clock.advance(if sent == 2 { 200 } else { 600 });
        assert_eq!(client.receive::<ProduceRequest>(PRODUCE).await.throttle_time_ms, 600);
    }
}

#[tokio::test]
async fn a_producer_that_wants_no_answers_is_not_read_from_either() {
    let broker = Broker::start().await;
    broker.create_with("t", ENFORCE).await;
    let mut client = broker.connect().await;
    client.send_unanswered(produce("t", 0, small(3_000), 0), PRODUCE).await;
    client.send(HeartbeatRequest::default(), 4).await;
    let mut other = broker.connect().await;
    broker.advance_until(0, async || other.latest("t", 0).await == 3_000).await;
    assert!(!client.has_news().await);
    broker.clock.advance(1_999);
    assert!(!client.has_news().await);
    broker.clock.advance(1);
    client.receive::<HeartbeatRequest>(4).await;
}

#[tokio::test]
async fn writers_of_a_shard_share_its_rate() {
    let broker = Broker::start().await;
    broker.create_with("t", ENFORCE).await;
    let (mut one, mut two) = (broker.connect().await, broker.connect().await);
    let pause = async |client: &mut Client, count| {
        client.call(produce("t", 0, small(count), -1), PRODUCE).await.throttle_time_ms
    };
    assert_eq!(pause(&mut one, 2_000).await, 1_000);
    assert_eq!(pause(&mut two, 2_000).await, 3_000);
    // No more than ten seconds are held against anyone.
    assert_eq!(pause(&mut broker.connect().await, 90_000).await, 10_000);
}

#[tokio::test]
async fn a_reader_beyond_the_pipe_gets_its_records_and_then_nothing_until_it_has_recovered() {
    let broker = Broker::start().await;
    filled(&broker, "t", 16).await;
    let mut client = broker.connect().await;
    enforce(&mut client, "t").await;
    let first = client.call(large_fetch("t", 0, 4), FETCH).await;
    let read = sizes(&first);
    assert!(read > 3 * MIB && read <= 4 * MIB, "{read}");
    // 2 MiB were there, 2 MiB come in a second.
    assert_eq!(first.throttle_time_ms, ((read - 2 * MIB) * 1_000).div_ceil(2 * MIB) as i32);
    let pause_ms = i64::from(first.throttle_time_ms);

    let mut other = broker.connect().await;
    let next = records(&first.responses[0].partitions[0]).len() as i64;
    client.send(large_fetch("t", next, 4), FETCH).await;
    broker.clock.advance(pause_ms - 100);
    // The pipe is the shard's, not the connection's; who is late gets nothing, and owes nothing for it.
    for _ in 0..3 {
        let empty = broker.connect().await.call(large_fetch("t", 0, 4), FETCH).await;
        assert_eq!((empty.throttle_time_ms, empty.responses.len(), empty.session_id), (100, 0, 0));
    }
    assert_eq!(other.latest("t", 0).await, 16);
    assert!(!client.has_news().await);
    broker.clock.advance(100);
    assert!(sizes(&client.receive::<FetchRequest>(FETCH).await) > 3 * MIB);
}

#[tokio::test]
async fn a_fetch_session_survives_being_throttled() {
    let broker = Broker::start().await;
    filled(&broker, "t", 12).await;
    let mut client = broker.connect().await;
    enforce(&mut client, "t").await;
    let open = |offset| large_fetch("t", offset, 3).with_session_epoch(0);
    let incremental = |session_id, epoch| {
        fetch("t", &[]).with_max_bytes(3 << 20).with_session_id(session_id).with_session_epoch(epoch)
    };
    let opened = client.call(open(0), FETCH).await;
    assert!(opened.session_id != 0 && opened.throttle_time_ms > 0 && sizes(&opened) > 2 * MIB);

    // Empty of topics: no session is opened by that, because a client would not take it up.
    let late = broker.connect().await.call(open(0), FETCH).await;
    assert_eq!((late.session_id, late.responses.len(), late.error_code), (0, 0, 0));
    assert!(late.throttle_time_ms > 0);
    // A session goes on, with its next epoch.
    let mut same_client = broker.connect().await;
    let mut next = same_client.call(incremental(opened.session_id, 1), FETCH).await;
    assert_eq!((next.session_id, next.responses.len(), next.error_code), (opened.session_id, 0, 0));
    assert!(next.throttle_time_ms > 0);
    broker.clock.advance(5_000);
    next = same_client.call(incremental(opened.session_id, 2), FETCH).await;
    assert!((next.error_code, next.session_id) == (0, opened.session_id) && sizes(&next) > 2 * MIB);
}

#[tokio::test]
async fn a_shard_that_owes_does_not_hold_up_another() {
    let broker = Broker::start().await;
    filled(&broker, "hot", 12).await;
    filled(&broker, "cool", 2).await;
    let mut client = broker.connect().await;
    enforce(&mut client, "hot").await;
    assert!(client.call(large_fetch("hot", 0, 4), FETCH).await.throttle_time_ms > 0);
    let mut both = large_fetch("hot", 4, 4);
    both.topics.extend(large_fetch("cool", 0, 4).topics);
    let answer = broker.connect().await.call(both.clone(), FETCH).await;
    let read: Vec<_> = answer.responses.iter().map(|topic| (topic.topic.to_string(), &topic.partitions[0])).collect();
    assert_eq!(read.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["hot", "cool"]);
    assert_eq!([records(read[0].1).len(), records(read[1].1).len()], [0, 2]);
    assert!(answer.throttle_time_ms > 0, "nothing is left that could be read at once");
    both.topics[1].partitions[0].partition_max_bytes = 1;
    let answer = broker.connect().await.call(both, FETCH).await;
    assert!(sizes(&answer) > 0 && answer.throttle_time_ms == 0, "the other topic has more");
}

#[tokio::test]
async fn what_would_have_been_throttled_is_counted() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1, &[]).await;
    let slowed = client.create_topic("slowed", 1, ENFORCE).await;
    assert!(!slowed.is_nil());
    for _ in 0..3 {
        let answer = client.call(produce("t", 0, small(1_500), -1), PRODUCE).await;
        assert_eq!(answer.throttle_time_ms, 0);
    }
    client.call(produce("slowed", 0, small(1_500), -1), PRODUCE).await;
    let told = metrics(&broker.server).await;
    let throttled = |topic: &str, policy: &str| {
        told[&format!("anabranch_stream_throttled_total{{direction=\"write\",policy=\"{policy}\",stream=\"{topic}\"}}")]
    };
    assert_eq!((throttled("t", "observe"), throttled("t", "enforce")), (3.0, 0.0));
    assert_eq!((throttled("slowed", "observe"), throttled("slowed", "enforce")), (0.0, 1.0));
    assert_eq!(told["anabranch_stream_throttle_seconds_total{direction=\"write\",stream=\"slowed\"}"], 0.5);
}

pub async fn limit(client: &mut Client, client_id: &str, quota: &str, value: f64) {
    use kafka_protocol::messages::AlterClientQuotasRequest;
    use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
    let text = crate::harness::text;
    let entity = EntityData::default().with_entity_type(text("client-id")).with_entity_name(Some(text(client_id)));
    let op = OpData::default().with_key(text(quota)).with_value(value);
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
    let altered = client.call(AlterClientQuotasRequest::default().with_entries(vec![entry]), 1).await;
    assert_eq!(altered.entries[0].error_code, 0);
}

#[tokio::test]
async fn a_producer_beyond_its_quota_is_told_and_not_read_from() {
    let broker = Broker::start().await;
    broker.create_topic("t", 1).await;
    let mut client = broker.connect().await;
    limit(&mut client, "client", "producer_byte_rate", 100.0).await;
    // It holds after a restart.
    let broker = broker.restart().await;
    let mut client = broker.connect().await;
    let request = produce("t", 0, batch(&["v".repeat(2_000).as_str()]), -1);
    let answer = client.call(request, PRODUCE).await;
    // Its 2,000 bytes and a little more over ten seconds are twice what may be.
    let pause_ms = i64::from(answer.throttle_time_ms);
    assert!((10_000..13_000).contains(&pause_ms), "{pause_ms}");
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 0);
    let counted = metrics(&broker.server).await["anabranch_quota_throttle_seconds_total{quota=\"producer_byte_rate\"}"];
    assert_eq!(counted, pause_ms as f64 / 1e3);
    client.send(HeartbeatRequest::default(), 4).await;
    broker.clock.advance(pause_ms - 1);
    assert!(!client.has_news().await);
    broker.clock.advance(1);
    client.receive::<HeartbeatRequest>(4).await;
    limit(&mut client, "client", "producer_byte_rate", 1e9).await;
    assert_eq!(client.call(produce("t", 0, small(1), -1), PRODUCE).await.throttle_time_ms, 0);
}

#[tokio::test]
async fn a_consumer_beyond_its_quota_is_given_nothing_until_its_pause_is_over() {
    let broker = Broker::start().await;
    filled(&broker, "t", 3).await;
    let mut client = broker.connect().await;
    limit(&mut client, "client", "consumer_byte_rate", 60_000.0).await;
    let first = client.call(large_fetch("t", 0, 4), FETCH).await;
    assert_eq!((first.throttle_time_ms, sizes(&first) > MIB / 2), (0, true), "ten seconds' worth holds one batch");
    let second = client.call(large_fetch("t", 1, 4), FETCH).await;
    assert_eq!(sizes(&second), 0);
    let pause_ms = i64::from(second.throttle_time_ms);
    assert!((7_000..8_000).contains(&pause_ms), "{pause_ms}");
    client.send(large_fetch("t", 1, 4), FETCH).await;
    broker.clock.advance(pause_ms - 1);
    assert!(!client.has_news().await);
    broker.clock.advance(1);
    // The first is still within the windows: nothing came since, so that the next is told the rest.
    let third = client.receive::<FetchRequest>(FETCH).await;
    broker.clock.advance(third.throttle_time_ms.into());
    broker.clock.advance(5_000);
    assert!(sizes(&client.call(large_fetch("t", 1, 4), FETCH).await) > MIB / 2);
}
