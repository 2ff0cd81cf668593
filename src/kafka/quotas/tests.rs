//! Quotas altered, told and enforced, with a clock that the tests move.

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, CreateTopicsRequest, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::handlers::{alter_client_quotas, describe_client_quotas};
use super::*;
use crate::kafka::error::NONE;
use crate::kafka::names;
use crate::kafka::tests::fixture::{Fixture, encodes};
use crate::kafka::topics::create_topics;

const VERSION: i16 = 1;
const INVALID: i16 = ResponseError::InvalidRequest.code();

type Part<'a> = (&'a str, Option<&'a str>);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn entry(parts: &[Part], ops: &[(&str, Option<f64>)]) -> EntryData {
    let part =
        |(kind, name): &Part| EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text));
    let op = |(key, value): &(&str, Option<f64>)| {
        OpData::default().with_key(text(key)).with_value(value.unwrap_or_default()).with_remove(value.is_none())
    };
    EntryData::default().with_entity(parts.iter().map(part).collect()).with_ops(ops.iter().map(op).collect())
}

async fn alter(fixture: &Fixture, entries: Vec<EntryData>, validate_only: bool) -> Vec<(i16, String)> {
    let request = AlterClientQuotasRequest::default().with_entries(entries).with_validate_only(validate_only);
    let answer = encodes(alter_client_quotas(fixture.cx(VERSION), request).await, VERSION);
    let told = answer.entries.into_iter().map(|entry| (entry.error_code, entry.error_message.unwrap_or_default()));
    told.map(|(code, message)| (code, message.to_string())).collect()
}

async fn set(fixture: &Fixture, parts: &[Part<'_>], quota: &str, limit: f64) {
    let altered = alter(fixture, vec![entry(parts, &[(quota, Some(limit))])], false).await;
    assert_eq!(altered[0].0, NONE, "{altered:?}");
}

async fn describe(fixture: &Fixture, asked: &[(&str, i8, Option<&str>)], strict: bool) -> DescribeClientQuotasResponse {
    let component = |(kind, match_type, name): &(&str, i8, Option<&str>)| {
        let component = ComponentData::default().with_entity_type(text(kind)).with_match_type(*match_type);
        component.with_match(name.map(text))
    };
    let components = asked.iter().map(component).collect();
    let request = DescribeClientQuotasRequest::default().with_components(components).with_strict(strict);
    encodes(describe_client_quotas(fixture.cx(VERSION), request).await, VERSION)
}

/// `client-id=a,user=*: producer_byte_rate=5`, for each entity.
fn told(answer: DescribeClientQuotasResponse) -> Vec<String> {
    let entries = answer.entries.unwrap().into_iter().map(|entry| {
        let parts = entry.entity.iter().map(|part| {
            format!("{}={}", part.entity_type, part.entity_name.as_ref().map_or("*", |name| name.as_str()))
        });
        let values = entry.values.iter().map(|value| format!("{}={}", value.key, value.value));
        format!("{}: {}", parts.collect::<Vec<_>>().join(","), values.collect::<Vec<_>>().join(","))
    });
    entries.collect()
}

fn cx(fixture: &Fixture, client_id: &str) -> Context {
    Context { client_id: Some(text(client_id)), ..fixture.cx(7) }
}

#[tokio::test]
async fn quotas_are_kept_told_and_removed() {
    let fixture = Fixture::new();
    set(&fixture, &[("client-id", Some("a"))], "producer_byte_rate", 5.0).await;
    set(&fixture, &[("client-id", None), ("user", Some("u"))], "request_percentage", 0.5).await;
    set(&fixture, &[("user", None)], "controller_mutation_rate", 2.5).await;
    set(&fixture, &[("ip", Some("::ffff:10.0.0.1"))], "connection_creation_rate", 9.0).await;
    let all = [
        "client-id=*,user=u: request_percentage=0.5",
        "client-id=a: producer_byte_rate=5",
        "ip=10.0.0.1: connection_creation_rate=9",
        "user=*: controller_mutation_rate=2.5",
    ];
    assert_eq!(told(describe(&fixture, &[], false).await), all);
    for (asked, strict, wanted) in [
        (&[("client-id", 2, None)][..], false, &[0, 1][..]),
        (&[("client-id", 2, None)], true, &[1]),
        (&[("client-id", 0, Some("a"))], false, &[1]),
        (&[("client-id", 1, None)], false, &[0]),
        (&[("user", 0, Some("u")), ("client-id", 2, None)], true, &[0]),
        (&[("user", 2, None)], true, &[3]),
        (&[("ip", 2, None)], true, &[2]),
        (&[("user", 0, Some("nobody"))], false, &[]),
    ] {
        let wanted: Vec<_> = wanted.iter().map(|at: &usize| all[*at]).collect();
        assert_eq!(told(describe(&fixture, asked, strict).await), wanted, "{asked:?} {strict}");
    }
    for (asked, error) in [
        (&[("user", 0, None)][..], ResponseError::InvalidRequest),
        (&[("user", 1, Some("u"))], ResponseError::InvalidRequest),
        (&[("user", 2, Some("u"))], ResponseError::InvalidRequest),
        (&[("user", 3, None)], ResponseError::InvalidRequest),
        (&[("user", 2, None), ("user", 1, None)], ResponseError::InvalidRequest),
        (&[("user", 2, None), ("ip", 2, None)], ResponseError::InvalidRequest),
        (&[("", 2, None)], ResponseError::InvalidRequest),
        (&[("topic", 2, None)], ResponseError::UnsupportedVersion),
    ] {
        assert_eq!(describe(&fixture, asked, false).await.error_code, error.code(), "{asked:?}");
    }
    // What is stored is what is told.
    let reopened = Quotas::open(&fixture.door.broker).unwrap();
    assert_eq!(reopened.table().entities(), fixture.door.quotas.table().entities());

    let removed =
        alter(&fixture, vec![entry(&[("client-id", Some("a"))], &[("producer_byte_rate", None)])], false).await;
    assert_eq!(removed[0].0, NONE);
    assert!(told(describe(&fixture, &[("client-id", 0, Some("a"))], false).await).is_empty());
    assert_eq!(Quotas::open(&fixture.door.broker).unwrap().table().entities().len(), 3);
}

#[tokio::test]
async fn what_is_no_quota_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    let client = &[("client-id", Some("a"))][..];
    for (parts, ops, message) in [
        (&[][..], &[("producer_byte_rate", Some(1.0))][..], "Invalid empty client quota entity"),
        (&[("topic", Some("t"))], &[], "Unhandled client quota entity type: topic"),
        (&[("user", Some(""))], &[], "Empty user not supported"),
        (&[("user", None), ("user", None)], &[], "Invalid empty client quota entity, duplicate entity entry user"),
        (&[("user", None), ("ip", None)], &[], "Invalid empty client quota entity"),
        (&[("ip", Some("nowhere"))], &[], "nowhere is not a valid IP or resolvable host."),
        (client, &[("nonsense", Some(1.0))], "Invalid configuration key nonsense"),
        (client, &[("connection_creation_rate", Some(1.0))], "Invalid configuration key connection_creation_rate"),
        (&[("ip", None)], &[("producer_byte_rate", Some(1.0))], "Invalid configuration key producer_byte_rate"),
        (client, &[("producer_byte_rate", Some(0.0))], "Quota producer_byte_rate must be greater than 0"),
        (client, &[("request_percentage", Some(f64::NAN))], "Quota request_percentage must be greater than 0"),
        (client, &[("producer_byte_rate", Some(1.5))], "producer_byte_rate cannot be a fractional value."),
        (client, &[("producer_byte_rate", Some(1e30))], "Proposed value for producer_byte_rate is too large."),
        (client, &[("request_percentage", Some(f64::INFINITY))], "Proposed value for request_percentage is too large."),
        (
            client,
            &[("producer_byte_rate", Some(1.0)), ("producer_byte_rate", None)],
            "Duplicate quota key producer_byte_rate not updating quota for this entity",
        ),
        // One bad key, and the good one is not set either.
        (client, &[("producer_byte_rate", Some(1.0)), ("nonsense", Some(1.0))], "Invalid configuration key nonsense"),
    ] {
        let altered = alter(&fixture, vec![entry(parts, ops)], false).await;
        assert_eq!(altered, [(INVALID, message.to_owned())], "{parts:?} {ops:?}");
    }
    let good = || entry(client, &[("producer_byte_rate", Some(1.0)), ("nonsense", None)]);
    assert_eq!(alter(&fixture, vec![good(), good()], false).await[1].1, "Ignoring duplicate entity");
    assert_eq!(alter(&fixture, vec![good()], true).await[0].0, NONE);
    assert!(told(describe(&fixture, &[], false).await).is_empty());
    // Of several entries each is judged by itself.
    let altered = alter(&fixture, vec![good(), entry(&[], &[])], false).await;
    assert_eq!((altered[0].0, altered[1].0), (NONE, INVALID));
    assert_eq!(told(describe(&fixture, &[], false).await), ["client-id=a: producer_byte_rate=1"]);
}

#[tokio::test]
async fn clients_have_a_default_quota_each_on_their_own_and_users_share_theirs() {
    let fixture = Fixture::new();
    let quotas = &fixture.door.quotas;
    assert_eq!(quotas.produced(&cx(&fixture, "a"), 1 << 30), 0, "nothing is limited");
    set(&fixture, &[("client-id", None)], "producer_byte_rate", 100.0).await;
    assert_eq!(quotas.produced(&cx(&fixture, "a"), 1_500), 5_000);
    assert_eq!(quotas.produced(&cx(&fixture, "b"), 1_000), 0);
    set(&fixture, &[("user", Some(ANONYMOUS))], "producer_byte_rate", 100.0).await;
    assert_eq!(quotas.produced(&cx(&fixture, "a"), 1_000), 0);
    assert_eq!(quotas.produced(&cx(&fixture, "b"), 500), 5_000);
    fixture.door.broker.clock().advance(11_000);
    assert_eq!(quotas.produced(&cx(&fixture, "b"), 1_000), 0);
}

#[tokio::test]
async fn a_fetch_beyond_its_quota_does_not_count() {
    let fixture = Fixture::new();
    set(&fixture, &[("client-id", Some("a"))], "consumer_byte_rate", 100.0).await;
    let (quotas, a) = (&fixture.door.quotas, cx(&fixture, "a"));
    assert_eq!((quotas.fetch_bytes_max(&a), quotas.fetch_bytes_max(&cx(&fixture, "b"))), (1_000, usize::MAX));
    assert_eq!(quotas.fetched(&a, 800), 0);
    assert_eq!(quotas.fetched(&a, 800), 6_000);
    assert_eq!(quotas.fetched(&a, 800), 6_000);
    assert_eq!(quotas.fetched(&a, 200), 0);
}

#[tokio::test]
async fn the_time_of_requests_is_limited_in_short_pauses() {
    let fixture = Fixture::new();
    let (quotas, a) = (&fixture.door.quotas, cx(&fixture, "a"));
    assert!(!quotas.times(&a));
    set(&fixture, &[("client-id", Some("a"))], "request_percentage", 1.0).await;
    assert!(quotas.times(&a) && !quotas.times(&cx(&fixture, "b")));
    // A hundredth of ten seconds is a tenth of one.
    assert_eq!(quotas.worked(&a, 100_000), 0);
    assert_eq!(quotas.worked(&a, 5_000), 500);
    assert_eq!(quotas.worked(&a, 1_000_000), WINDOW_MS);
}

#[tokio::test]
async fn connections_of_an_address_are_limited() {
    let fixture = Fixture::new();
    set(&fixture, &[("ip", Some("10.0.0.1"))], "connection_creation_rate", 1.0).await;
    let connected = |address: &str| fixture.door.quotas.connected(address.parse().unwrap(), 0);
    assert_eq!((0..12).map(|_| connected("::ffff:10.0.0.1")).collect::<Vec<_>>()[8..], [0, 0, 1_000, 1_000]);
    assert_eq!(connected("10.0.0.2"), 0);
}

#[tokio::test]
async fn topics_beyond_the_quota_are_refused_or_only_slow_old_clients_down() {
    let fixture = Fixture::new();
    set(&fixture, &[("user", None)], "controller_mutation_rate", 1.0).await;
    let create = async |version: i16, name: &str, partitions: i32| {
        let topic = CreatableTopic::default().with_name(names::topic(name)).with_num_partitions(partitions);
        let request = CreateTopicsRequest::default().with_topics(vec![topic.with_replication_factor(1)]);
        let answer = encodes(create_topics(fixture.cx(version), request).await, version);
        (answer.topics[0].error_code, answer.throttle_time_ms)
    };
    let refused = ResponseError::ThrottlingQuotaExceeded.code();
    // Eleven seconds' worth are there, and the last request may go beyond them.
    assert_eq!(create(6, "a", 10).await, (NONE, 0));
    assert_eq!(create(6, "b", 4).await, (NONE, 0));
    assert_eq!(create(6, "c", 1).await, (refused, 3_000));
    assert_eq!(create(5, "c", 1).await, (NONE, 4_000));
    fixture.door.broker.clock().advance(3_999);
    assert_eq!(create(7, "d", 1).await, (refused, 1));
    fixture.door.broker.clock().advance(1);
    assert_eq!(create(7, "d", 1).await, (NONE, 0));
    assert!(fixture.door.broker.stream("c").is_some());
}

#[tokio::test]
async fn meters_are_bounded() {
    let fixture = Fixture::new();
    set(&fixture, &[("client-id", None)], "producer_byte_rate", 100.0).await;
    let quotas = &fixture.door.quotas;
    for client in 0..METERS_MAX + 10 {
        quotas.produced(&cx(&fixture, &client.to_string()), 1_500);
    }
    assert!(quotas.meters.lock().len() <= METERS_MAX);
}
