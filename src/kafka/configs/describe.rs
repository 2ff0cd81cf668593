//! DescribeConfigs (32), versions 1 to 4: every setting with its value and where that comes from; with synonyms and
//! (from version 3 on) documentation where the client wants them.
//!
//! A resource that is named twice is answered once: clients keep answers by resource, and a small request cannot ask
//! for a huge answer.

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Kind, invalid, scope};
use crate::kafka::error::{self, Refusal};
use crate::kafka::{Context, names};
use crate::model::settings::describe::{self, Described, Synonym};
use crate::model::settings::{Scope, ValueType};

/// What to tell besides values.
#[derive(Clone, Copy)]
struct Wishes {
    synonyms: bool,
    documentation: bool,
}

pub async fn describe_configs(cx: Context, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let wishes = Wishes { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut distinct = IndexMap::with_capacity(request.resources.len());
    for resource in request.resources {
        distinct.entry((resource.resource_type, resource.resource_name.clone())).or_insert(resource);
    }
    let results = distinct.into_values().map(|resource| answered(&cx, resource, wishes)).collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn answered(cx: &Context, resource: DescribeConfigsResource, wishes: Wishes) -> DescribeConfigsResult {
    let answer = DescribeConfigsResult::default().with_resource_type(resource.resource_type);
    let answer = match settings_of(cx, &resource) {
        Ok(mut settings) => {
            if let Some(wanted) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
                settings.retain(|setting| wanted.iter().any(|key| key.as_str() == setting.name));
            }
            let configs = settings.into_iter().map(|setting| told(setting, wishes)).collect();
            answer.with_error_code(error::NONE).with_error_message(None).with_configs(configs)
        }
        Err(refusal) => {
            answer.with_error_code(refusal.error.code()).with_error_message(names::message(refusal.message))
        }
    };
    answer.with_resource_name(resource.resource_name)
}

fn settings_of(cx: &Context, resource: &DescribeConfigsResource) -> Result<Vec<Described>, Refusal> {
    let name = resource.resource_name.as_str();
    let broker = &cx.door.broker;
    match Kind::of(resource.resource_type) {
        Some(Kind::Topic) => {
            if let Some(fault) = names::topic_name_fault(name) {
                return Err(Refusal::new(ResponseError::InvalidTopicException, fault));
            }
            let stream = broker.stream(name).ok_or_else(Refusal::unknown_topic)?;
            Ok(describe::topic(&stream.overrides(), &broker.settings()))
        }
        Some(Kind::Broker) => Ok(match scope(cx, name)? {
            Scope::Node => describe::broker(&broker.settings()),
            Scope::Cluster => describe::cluster(&broker.settings()),
        }),
        Some(Kind::ClientMetrics) if name.is_empty() => {
            Err(invalid("Client metrics subscription name must not be empty"))
        }
        Some(Kind::Group) if name.is_empty() => Err(invalid("Group name must not be empty")),
        Some(Kind::Group) => Ok(describe::group(&cx.door.groups.config(name), &broker.settings())),
        Some(Kind::ClientMetrics) => Ok(Vec::new()),
        Some(Kind::BrokerLogger) => Err(invalid("Unsupported resource type: BROKER_LOGGER")),
        None => Err(invalid(format!("Unexpected resource type {} for resource {name}", resource.resource_type))),
    }
}

fn told(setting: Described, wishes: Wishes) -> DescribeConfigsResourceResult {
    let synonym = |synonym: Synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name))
            .with_value(synonym.value.map(StrBytes::from_string))
            .with_source(names::config_source(synonym.source))
    };
    let synonyms = if wishes.synonyms { setting.synonyms } else { Vec::new() };
    let documentation = setting.documentation.filter(|_| wishes.documentation);
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(setting.name))
        .with_value(setting.value.map(StrBytes::from_string))
        .with_config_source(names::config_source(setting.source))
        .with_read_only(setting.read_only)
        .with_is_sensitive(setting.sensitive)
        .with_config_type(type_number(setting.value_type))
        .with_synonyms(synonyms.into_iter().map(synonym).collect())
        .with_documentation(documentation.map(StrBytes::from_static_str))
}

/// Kafka's DescribeConfigsResponse.ConfigType.
fn type_number(value_type: ValueType) -> i8 {
    match value_type {
        ValueType::Unknown => 0,
        ValueType::Boolean => 1,
        ValueType::String => 2,
        ValueType::Int => 3,
        ValueType::Long => 5,
        ValueType::Double => 6,
        ValueType::List => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{BrokerSettings, Overrides};

    #[test]
    fn synonyms_and_documentation_are_told_on_wish_only() {
        let overrides = Overrides::from([("retention.ms".to_owned(), "5".to_owned())]);
        let setting = describe::topic(&overrides, &BrokerSettings::default())
            .into_iter()
            .find(|setting| setting.name == "retention.ms")
            .unwrap();
        let bare = told(setting.clone(), Wishes { synonyms: false, documentation: false });
        assert_eq!((bare.value.as_deref(), bare.config_source, bare.config_type), (Some("5"), 1, 5));
        assert!(bare.synonyms.is_empty() && bare.documentation.is_none());
        let full = told(setting, Wishes { synonyms: true, documentation: true });
        assert_eq!((full.synonyms[0].name.as_str(), full.synonyms[0].source), ("retention.ms", 1));
        assert!(full.documentation.is_some());
    }
}
