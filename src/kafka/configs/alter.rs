//! AlterConfigs (33), versions 0 to 2, replaces all that was set on a resource; IncrementalAlterConfigs (44), versions
//! 0 and 1, changes single settings. Each resource is judged and altered as a whole, by itself, and answered when that
//! is durable. `validate_only` judges alone.
//!
//! Errors are Kafka's: INVALID_CONFIG for a topic's value, INVALID_REQUEST for a broker's.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource as ToReplace;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Replaced;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as ToChange, AlterableConfig as Incremental,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Changed;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Kind, invalid, scope};
use crate::broker::CatalogError;
use crate::group::ConfigError;
use crate::kafka::error::{self, Refusal};
use crate::kafka::{Context, names};
use crate::model::settings::{self, Change, DynamicSettings, Op, Overrides, SettingError, topic};

/// Kafka's AlterConfigOp.OpType.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// One resource of a request of either kind.
struct Wish {
    kind: i8,
    name: StrBytes,
    /// Refused where the request itself does not make sense.
    edit: Result<Edit, Refusal>,
}

/// What is to become of a resource's settings.
#[derive(Debug, PartialEq, Eq)]
enum Edit {
    /// These and no others.
    Replace(Overrides),
    Change(Vec<Change>),
}

pub async fn alter_configs(cx: Context, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let wish = |resource: ToReplace| {
        let configs = resource.configs.into_iter().map(|config| (config.name, config.value)).collect();
        Wish { kind: resource.resource_type, name: resource.resource_name, edit: replacement(configs) }
    };
    let wishes: Vec<_> = request.resources.into_iter().map(wish).collect();
    let outcomes = alter(&cx, &wishes, request.validate_only).await;
    let answered = wishes.into_iter().zip(outcomes).map(|(wish, outcome)| {
        let (code, message) = outcome_fields(outcome);
        Replaced::default()
            .with_resource_type(wish.kind)
            .with_resource_name(wish.name)
            .with_error_code(code)
            .with_error_message(message)
    });
    AlterConfigsResponse::default().with_responses(answered.collect())
}

pub async fn incremental_alter_configs(
    cx: Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let wish = |resource: ToChange| Wish {
        kind: resource.resource_type,
        name: resource.resource_name,
        edit: changes(resource.configs),
    };
    let wishes: Vec<_> = request.resources.into_iter().map(wish).collect();
    let outcomes = alter(&cx, &wishes, request.validate_only).await;
    let answered = wishes.into_iter().zip(outcomes).map(|(wish, outcome)| {
        let (code, message) = outcome_fields(outcome);
        Changed::default()
            .with_resource_type(wish.kind)
            .with_resource_name(wish.name)
            .with_error_code(code)
            .with_error_message(message)
    });
    IncrementalAlterConfigsResponse::default().with_responses(answered.collect())
}

fn outcome_fields(outcome: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (error::NONE, None),
        Err(refusal) => (refusal.error.code(), names::message(refusal.message)),
    }
}

fn replacement(configs: Vec<(StrBytes, Option<StrBytes>)>) -> Result<Edit, Refusal> {
    check_keys(configs.iter().map(|(name, value)| (name.as_str(), value.is_none())))?;
    let text = |(name, value): (StrBytes, Option<StrBytes>)| (name.to_string(), value.unwrap_or_default().to_string());
    Ok(Edit::Replace(configs.into_iter().map(text).collect()))
}

fn changes(configs: Vec<Incremental>) -> Result<Edit, Refusal> {
    let lacks = |config: &Incremental| config.value.is_none() && config.config_operation != DELETE;
    check_keys(configs.iter().map(|config| (config.name.as_str(), lacks(config))))?;
    let change = |config: Incremental| {
        let value = config.value.unwrap_or_default().to_string();
        let op = match config.config_operation {
            SET => Op::Set(value),
            DELETE => Op::Delete,
            APPEND => Op::Append(value),
            SUBTRACT => Op::Subtract(value),
            other => return Err(invalid(format!("Unknown operations type {other}"))),
        };
        Ok(Change { name: config.name.to_string(), op })
    };
    configs.into_iter().map(change).collect::<Result<_, _>>().map(Edit::Change)
}

/// Refuses keys that come twice or lack a value.
fn check_keys<'a>(configs: impl Iterator<Item = (&'a str, bool)>) -> Result<(), Refusal> {
    let mut known = HashSet::new();
    let mut lacking = Vec::new();
    for (name, lacks_value) in configs {
        if !known.insert(name) {
            return Err(invalid("Error due to duplicate config keys"));
        }
        if lacks_value {
            lacking.push(name);
        }
    }
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(invalid(format!("Null value not supported for : {}", lacking.join(", ")))),
    }
}

/// The outcome of each wish, in their order.
async fn alter(cx: &Context, wishes: &[Wish], validate_only: bool) -> Vec<Result<(), Refusal>> {
    let mut times_named: HashMap<(i8, &str), usize> = HashMap::with_capacity(wishes.len());
    for wish in wishes {
        *times_named.entry((wish.kind, &wish.name)).or_default() += 1;
    }
    let times_named = &times_named;
    // All are queued before any is awaited, so that they become durable together.
    let outcomes = wishes.iter().map(|wish| async move {
        if times_named.get(&(wish.kind, wish.name.as_str())).is_some_and(|times| *times > 1) {
            return Err(invalid("Each resource must appear at most once."));
        }
        let edit = wish.edit.as_ref().map_err(Refusal::clone)?;
        match Kind::of(wish.kind) {
            Some(Kind::Topic) => alter_topic(cx, &wish.name, edit, validate_only).await,
            Some(Kind::Broker) => alter_broker(cx, &wish.name, edit, validate_only).await,
            Some(Kind::Group) => alter_group(cx, &wish.name, edit, validate_only).await,
            Some(Kind::ClientMetrics) => alter_client_metrics(&wish.name, edit),
            Some(Kind::BrokerLogger) | None => Err(invalid(format!("Unknown resource type {}", wish.kind))),
        }
    });
    join_all(outcomes).await
}

async fn alter_topic(cx: &Context, name: &str, edit: &Edit, validate_only: bool) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(invalid("Default topic resources are not allowed."));
    }
    if let Some(fault) = names::topic_name_fault(name) {
        return Err(Refusal::new(ResponseError::InvalidTopicException, fault));
    }
    let broker = &cx.door.broker;
    let judged = |current: &Overrides| {
        let altered = edit.of_topic(current)?;
        let altered = altered.iter().map(|(name, value)| (name.as_str(), Some(value.as_str())));
        topic::validate_overrides(altered, &broker.settings())
    };
    match broker.stream(name) {
        // Kafka judges the settings before it looks whether there is such a topic.
        None => {
            judged(&Overrides::new()).map_err(CatalogError::Setting)?;
            let message = format!("The topic '{name}' does not exist.");
            Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message))
        }
        Some(stream) if validate_only => Ok(judged(&stream.overrides()).map(drop).map_err(CatalogError::Setting)?),
        Some(stream) => {
            broker.alter_stream(&stream, judged).await?;
            tracing::info!(topic = name, "settings altered");
            Ok(())
        }
    }
}

async fn alter_broker(cx: &Context, name: &str, edit: &Edit, validate_only: bool) -> Result<(), Refusal> {
    let scope = scope(cx, name)?;
    let broker = &cx.door.broker;
    let judged = |dynamic: &DynamicSettings| dynamic.replaced(scope, edit.of_broker(dynamic.scope(scope))?);
    let outcome = match validate_only {
        true => judged(broker.settings().dynamic()).map(drop).map_err(CatalogError::Setting),
        false => broker.alter_broker(judged).await,
    };
    match outcome {
        Ok(()) if validate_only => Ok(()),
        Ok(()) => {
            tracing::info!(?scope, "broker settings altered");
            Ok(())
        }
        Err(CatalogError::Setting(fault)) => Err(Refusal::new(of_broker_fault(&fault), fault.to_string())),
        Err(failure) => Err(failure.into()),
    }
}

fn of_broker_fault(fault: &SettingError) -> ResponseError {
    match fault {
        SettingError::NotAList { .. } => ResponseError::InvalidConfig,
        SettingError::UnknownName(_)
        | SettingError::UnknownGroupName(_)
        | SettingError::OutOfBounds { .. }
        | SettingError::Null(_)
        | SettingError::Invalid { .. }
        | SettingError::TooLong
        | SettingError::NoTieredStorage
        | SettingError::CompactionLags { .. }
        | SettingError::NotDynamic(_)
        | SettingError::TooManyCustom { .. } => ResponseError::InvalidRequest,
    }
}

/// The group need not exist yet: what is set for it waits for it.
async fn alter_group(cx: &Context, name: &str, edit: &Edit, validate_only: bool) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(invalid("Default group resources are not allowed."));
    }
    let broker = cx.door.broker.settings();
    let judged = |current: &Overrides| {
        let altered = edit.of_group(current)?;
        settings::group::validate(&altered, &broker)?;
        Ok(altered)
    };
    let outcome = match validate_only {
        true => judged(&cx.door.groups.config(name)).map(drop).map_err(ConfigError::Setting),
        false => cx.door.groups.alter_config(name, judged).await,
    };
    outcome.map_err(|failure| match failure {
        ConfigError::Setting(fault) => Refusal::new(ResponseError::InvalidConfig, fault.to_string()),
        ConfigError::Group(error) => Refusal::new(error::of_group(error), error.to_string()),
    })
}

/// Clients are not asked for metrics, so there is only something to take away.
fn alter_client_metrics(name: &str, edit: &Edit) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(invalid("Subscription name can't be empty"));
    }
    match edit.first_given() {
        Some(key) => Err(invalid(format!("Unknown client metrics configuration: {key}"))),
        None => Ok(()),
    }
}

impl Edit {
    fn of_topic(&self, current: &Overrides) -> Result<Overrides, SettingError> {
        match self {
            Edit::Replace(all) => Ok(all.clone()),
            Edit::Change(changes) => settings::alter::topic(current, changes),
        }
    }

    fn of_group(&self, current: &Overrides) -> Result<Overrides, SettingError> {
        match self {
            Edit::Replace(all) => Ok(all.clone()),
            Edit::Change(changes) => settings::alter::group(current, changes),
        }
    }

    fn of_broker(&self, current: &Overrides) -> Result<Overrides, SettingError> {
        match self {
            Edit::Replace(all) => Ok(all.clone()),
            Edit::Change(changes) => settings::alter::broker(current, changes),
        }
    }

    /// The first setting that is given a value.
    fn first_given(&self) -> Option<&str> {
        match self {
            Edit::Replace(all) => all.keys().next().map(String::as_str),
            Edit::Change(changes) => {
                changes.iter().find(|change| change.op != Op::Delete).map(|change| change.name.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incremental(name: &'static str, operation: i8, value: Option<&'static str>) -> Incremental {
        Incremental::default()
            .with_name(StrBytes::from_static_str(name))
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_static_str))
    }

    fn message(refused: Result<Edit, Refusal>) -> String {
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.error, ResponseError::InvalidRequest);
        refusal.message
    }

    #[test]
    fn operations_are_read_by_number() {
        let edit = changes(vec![
            incremental("a", SET, Some("1")),
            incremental("b", DELETE, None),
            incremental("c", APPEND, Some("2")),
            incremental("d", SUBTRACT, Some("3")),
        ])
        .unwrap();
        let change = |name: &str, op| Change { name: name.into(), op };
        let expected = vec![
            change("a", Op::Set("1".into())),
            change("b", Op::Delete),
            change("c", Op::Append("2".into())),
            change("d", Op::Subtract("3".into())),
        ];
        assert_eq!(edit, Edit::Change(expected));
        assert_eq!(message(changes(vec![incremental("a", 4, Some("1"))])), "Unknown operations type 4");
    }

    #[test]
    fn keys_that_come_twice_or_lack_a_value_are_refused() {
        let twice = vec![incremental("a", SET, Some("1")), incremental("a", DELETE, None)];
        assert_eq!(message(changes(twice)), "Error due to duplicate config keys");
        let lacking = vec![incremental("a", SET, None), incremental("b", DELETE, None), incremental("c", APPEND, None)];
        assert_eq!(message(changes(lacking)), "Null value not supported for : a, c");
        let lacking = vec![(StrBytes::from_static_str("x"), None)];
        assert_eq!(message(replacement(lacking)), "Null value not supported for : x");
    }

    #[test]
    fn what_has_no_settings_can_only_be_cleared() {
        let set = changes(vec![incremental("gone", DELETE, None), incremental("interval.ms", SET, Some("1"))]).unwrap();
        let cleared = changes(vec![incremental("interval.ms", DELETE, None)]).unwrap();
        assert_eq!(alter_client_metrics("m", &set).unwrap_err().error, ResponseError::InvalidRequest);
        assert_eq!(alter_client_metrics("m", &cleared), Ok(()));
        assert!(alter_client_metrics("", &cleared).is_err());
        assert_eq!(alter_client_metrics("m", &Edit::Replace(Overrides::new())), Ok(()));
    }
}
