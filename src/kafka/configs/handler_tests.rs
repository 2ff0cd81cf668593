//! The handlers of this folder on a store in memory.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as ToReplace, AlterableConfig as Replacement,
};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as ToChange, AlterableConfig as Incremental,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Message, StrBytes};

use crate::kafka::configs::{alter_configs, describe_configs, incremental_alter_configs, list_config_resources};
use crate::kafka::tests::fixture::{Fixture, encodes};
use crate::model::settings::CleanupPolicy;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn describe(fixture: &Fixture, version: i16, kind: i8, name: &str, keys: &[&str]) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3);
    let response = describe_configs(fixture.cx(version), request).await;
    encodes(response, version).results.remove(0)
}

/// The value and source of one setting, as a client reads it.
async fn value(fixture: &Fixture, kind: i8, name: &str, key: &str) -> Option<(String, i8)> {
    let result = describe(fixture, 4, kind, name, &[key]).await;
    result.configs.first().map(|config| (config.value.clone().unwrap_or_default().to_string(), config.config_source))
}

async fn change(fixture: &Fixture, kind: i8, name: &str, changes: &[(&str, i8, &str)]) -> (i16, String) {
    let answers = change_all(fixture, &[(kind, name, changes)], false).await;
    answers.into_iter().next().unwrap()
}

/// A resource's type, its name, and its changes: name, operation, value.
type Changes<'a> = (i8, &'a str, &'a [(&'a str, i8, &'a str)]);

async fn change_all(fixture: &Fixture, resources: &[Changes<'_>], validate_only: bool) -> Vec<(i16, String)> {
    let config = |(name, operation, value): &(&str, i8, &str)| {
        Incremental::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value((*operation != DELETE).then(|| text(value)))
    };
    let resource = |(kind, name, changes): &(i8, &str, &[(&str, i8, &str)])| {
        ToChange::default()
            .with_resource_type(*kind)
            .with_resource_name(text(name))
            .with_configs(changes.iter().map(config).collect())
    };
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources.iter().map(resource).collect())
        .with_validate_only(validate_only);
    let response = encodes(incremental_alter_configs(fixture.cx(1), request).await, 1);
    let answers = response.responses.into_iter();
    answers.map(|answer| (answer.error_code, answer.error_message.unwrap_or_default().to_string())).collect()
}

async fn replace(fixture: &Fixture, version: i16, kind: i8, name: &str, configs: &[(&str, &str)]) -> i16 {
    let config =
        |(name, value): &(&str, &str)| Replacement::default().with_name(text(name)).with_value(Some(text(value)));
    let resource = ToReplace::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    encodes(alter_configs(fixture.cx(version), request).await, version).responses[0].error_code
}

const OK: (i16, String) = (0, String::new());

#[tokio::test]
async fn every_version_describes_every_resource() {
    let fixture = Fixture::new();
    fixture.topic("t", 1).await;
    for version in DescribeConfigsRequest::VERSIONS.min..=DescribeConfigsRequest::VERSIONS.max {
        let counted = async |kind, name| describe(&fixture, version, kind, name, &[]).await.configs.len();
        assert_eq!(counted(TOPIC, "t").await, 36);
        assert!(counted(BROKER, "1").await > 50);
        assert_eq!(counted(BROKER, "").await, 0);
        assert_eq!((counted(GROUP, "g").await, counted(CLIENT_METRICS, "m").await), (10, 0));
        for (kind, name, error) in [
            (TOPIC, "missing", ResponseError::UnknownTopicOrPartition),
            (TOPIC, "no good", ResponseError::InvalidTopicException),
            (BROKER, "2", ResponseError::InvalidRequest),
            (BROKER, "one", ResponseError::InvalidRequest),
            (BROKER_LOGGER, "1", ResponseError::InvalidRequest),
            (GROUP, "", ResponseError::InvalidRequest),
            (3, "t", ResponseError::InvalidRequest),
        ] {
            assert_eq!(describe(&fixture, version, kind, name, &[]).await.error_code, error.code(), "{kind} {name}");
        }
    }
}

#[tokio::test]
async fn a_resource_named_twice_is_described_once_and_holds_only_the_keys_asked_for() {
    let fixture = Fixture::new();
    fixture.topic("t", 1).await;
    let keys = Some(vec![text("retention.ms"), text("no.such")]);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configuration_keys(keys);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource.clone(), resource]);
    let response = describe_configs(fixture.cx(4), request).await;
    let [result] = &response.results[..] else { panic!("{} results", response.results.len()) };
    let names: Vec<_> = result.configs.iter().map(|config| config.name.as_str()).collect();
    assert_eq!(names, ["retention.ms"]);
}

#[tokio::test]
async fn a_topics_settings_apply_at_once() {
    let fixture = Fixture::new();
    let stream = fixture.topic("t", 1).await;
    let changes = [("retention.ms", SET, "5"), ("cleanup.policy", SUBTRACT, "delete"), ("segment.ms", SET, "60000")];
    assert_eq!(change(&fixture, TOPIC, "t", &changes).await, OK);
    assert_eq!(stream.settings().retention_ms, 5);
    assert_eq!(stream.settings().cleanup_policy, CleanupPolicy::Keep);
    assert_eq!(change(&fixture, TOPIC, "t", &[("cleanup.policy", APPEND, "delete")]).await, OK);
    assert_eq!(change(&fixture, TOPIC, "t", &[("segment.ms", DELETE, "")]).await, OK);
    assert_eq!(value(&fixture, TOPIC, "t", "cleanup.policy").await, Some(("delete".into(), 1)));
    assert_eq!(value(&fixture, TOPIC, "t", "segment.ms").await, Some(("604800000".into(), 5)));
    // The older request knows nothing of what it does not name.
    for version in AlterConfigsRequest::VERSIONS.min..=AlterConfigsRequest::VERSIONS.max {
        assert_eq!(replace(&fixture, version, TOPIC, "t", &[("flush.ms", "9")]).await, 0);
    }
    assert_eq!(stream.overrides().into_keys().collect::<Vec<_>>(), ["flush.ms"]);
}

#[tokio::test]
async fn a_refused_change_changes_nothing() {
    let fixture = Fixture::new();
    let stream = fixture.topic("t", 1).await;
    let invalid_config = ResponseError::InvalidConfig.code();
    for (changes, code, message) in [
        (
            &[("retention.ms", SET, "7"), ("segment.ms", SET, "0")][..],
            invalid_config,
            "Invalid value 0 for configuration segment.ms: Value must be at least 1",
        ),
        (&[("no.such", SET, "7")], invalid_config, "Unknown topic config name: no.such"),
        (
            &[("retention.ms", APPEND, "7")],
            invalid_config,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            &[("retention.ms", SET, "7"), ("retention.ms", SET, "7")],
            ResponseError::InvalidRequest.code(),
            "Error due to duplicate config keys",
        ),
    ] {
        assert_eq!(change(&fixture, TOPIC, "t", changes).await, (code, message.to_owned()));
    }
    let validated = change_all(&fixture, &[(TOPIC, "t", &[("retention.ms", SET, "7")])], true).await;
    assert_eq!(validated, [OK]);
    assert!(stream.overrides().is_empty());
}

#[tokio::test]
async fn resources_are_judged_each_by_itself_and_answered_in_order() {
    let fixture = Fixture::new();
    fixture.topic("t", 1).await;
    let set: &[(&str, i8, &str)] = &[("retention.ms", SET, "7")];
    let resources = [
        (TOPIC, "twice", set),
        (TOPIC, "t", set),
        (TOPIC, "gone", set),
        (TOPIC, "twice", set),
        (BROKER_LOGGER, "1", set),
    ];
    let answers = change_all(&fixture, &resources, false).await;
    let codes: Vec<_> = answers.iter().map(|(code, _)| *code).collect();
    let (invalid, unknown) = (ResponseError::InvalidRequest.code(), ResponseError::UnknownTopicOrPartition.code());
    assert_eq!(codes, [invalid, 0, unknown, invalid, invalid]);
    assert_eq!(answers[0].1, "Each resource must appear at most once.");
    assert_eq!(answers[2].1, "The topic 'gone' does not exist.");
    assert_eq!(value(&fixture, TOPIC, "t", "retention.ms").await, Some(("7".into(), 1)));
}

#[tokio::test]
async fn what_is_altered_on_the_broker_reaches_topics() {
    let fixture = Fixture::new();
    let stream = fixture.topic("t", 1).await;
    assert_eq!(change(&fixture, BROKER, "", &[("log.retention.ms", SET, "50")]).await, OK);
    assert_eq!(stream.settings().retention_ms, 50);
    assert_eq!(change(&fixture, BROKER, "1", &[("log.retention.ms", SET, "60")]).await, OK);
    assert_eq!(value(&fixture, TOPIC, "t", "retention.ms").await, Some(("60".into(), 2)));
    assert_eq!(value(&fixture, BROKER, "", "log.retention.ms").await, Some(("50".into(), 3)));
    assert_eq!(replace(&fixture, 2, BROKER, "1", &[]).await, 0);
    assert_eq!(value(&fixture, TOPIC, "t", "retention.ms").await, Some(("50".into(), 3)));

    let invalid = ResponseError::InvalidRequest.code();
    let message = "Cannot update these configs dynamically: Set(node.id)".to_owned();
    assert_eq!(change(&fixture, BROKER, "1", &[("node.id", SET, "2")]).await, (invalid, message));
    assert_eq!(change(&fixture, BROKER, "", &[("log.roll.ms", SET, "0")]).await.0, invalid);
    assert_eq!(change(&fixture, BROKER, "7", &[("log.roll.ms", SET, "5")]).await.0, invalid);
    // What a finished move of partitions takes away again.
    assert_eq!(change(&fixture, BROKER, "1", &[("leader.replication.throttled.rate", DELETE, "")]).await, OK);
}

#[tokio::test]
async fn topics_and_the_broker_are_listed() {
    let fixture = Fixture::new();
    fixture.topic("t", 1).await;
    let listed = async |version, kinds: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = encodes(list_config_resources(fixture.cx(version), request).await, version);
        let resources = response.config_resources.into_iter();
        let names = resources.map(|resource| (resource.resource_type, resource.resource_name.to_string()));
        (response.error_code, names.collect::<Vec<_>>())
    };
    assert_eq!(listed(0, &[]).await, (0, Vec::new()));
    assert_eq!(listed(1, &[]).await, (0, vec![(BROKER, "1".into()), (TOPIC, "t".into())]));
    assert_eq!(listed(1, &[TOPIC]).await, (0, vec![(TOPIC, "t".into())]));
    assert_eq!(listed(1, &[GROUP, CLIENT_METRICS]).await, (0, Vec::new()));
    let timeout = ("consumer.session.timeout.ms", SET, "50000");
    assert_eq!(change(&fixture, GROUP, "g", &[timeout]).await, OK);
    assert_eq!(listed(1, &[GROUP, CLIENT_METRICS]).await, (0, vec![(GROUP, "g".into())]));
    assert_eq!(listed(1, &[99]).await.0, ResponseError::UnsupportedVersion.code());
}

#[tokio::test]
async fn groups_have_settings_before_they_have_members() {
    let fixture = Fixture::new();
    let timeout = "consumer.session.timeout.ms";
    assert_eq!(value(&fixture, GROUP, "g", timeout).await, Some(("45000".into(), 5)));
    let validated = change_all(&fixture, &[(GROUP, "g", &[(timeout, SET, "50000")])], true).await;
    assert_eq!((validated, value(&fixture, GROUP, "g", timeout).await), (vec![OK], Some(("45000".into(), 5))));
    assert_eq!(change(&fixture, GROUP, "g", &[(timeout, SET, "50000")]).await, OK);
    assert_eq!(value(&fixture, GROUP, "g", timeout).await, Some(("50000".into(), 8)));
    assert_eq!(value(&fixture, GROUP, "other", timeout).await, Some(("45000".into(), 5)));

    let invalid = ResponseError::InvalidConfig.code();
    let bound = "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms";
    assert_eq!(change(&fixture, GROUP, "g", &[(timeout, SET, "60001")]).await, (invalid, bound.to_owned()));
    let unknown = "Unknown group config name: retention.ms".to_owned();
    assert_eq!(change(&fixture, GROUP, "g", &[("retention.ms", SET, "1")]).await, (invalid, unknown));
    assert_eq!(change(&fixture, GROUP, "g", &[(timeout, APPEND, "1")]).await.0, invalid);
    assert_eq!(change(&fixture, GROUP, "", &[(timeout, SET, "50000")]).await.0, ResponseError::InvalidRequest.code());
    assert_eq!(value(&fixture, GROUP, "g", timeout).await, Some(("50000".into(), 8)), "refused changes change nothing");
    assert_eq!(replace(&fixture, 2, GROUP, "g", &[("consumer.heartbeat.interval.ms", "6000")]).await, 0);
    assert_eq!(value(&fixture, GROUP, "g", timeout).await, Some(("45000".into(), 5)));
    assert_eq!(change(&fixture, GROUP, "g", &[("consumer.heartbeat.interval.ms", DELETE, "")]).await, OK);
}
