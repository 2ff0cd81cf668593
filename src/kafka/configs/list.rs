//! ListConfigResources (74): what has settings that can be described (KIP-1142). Version 0 is KIP-714's
//! ListClientMetricsResources and knows client metrics only, of which there are none here.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::Kind;
use crate::kafka::Context;

pub async fn list_config_resources(cx: Context, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let Some(kinds) = kinds(cx.version, &request.resource_types) else {
        return ListConfigResourcesResponse::default().with_error_code(ResponseError::UnsupportedVersion.code());
    };
    let mut resources = Vec::new();
    if kinds.contains(&Kind::Broker) {
        resources.push(resource(Kind::Broker, &cx.door.config.node_id.to_string()));
    }
    if kinds.contains(&Kind::Topic) {
        resources.extend(cx.door.broker.streams().iter().map(|stream| resource(Kind::Topic, &stream.name)));
    }
    if kinds.contains(&Kind::Group) {
        resources.extend(cx.door.groups.configured().iter().map(|name| resource(Kind::Group, name)));
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}

/// The kinds asked for: all that the version knows if none is named; None if it does not know one.
fn kinds(version: i16, asked: &[i8]) -> Option<Vec<Kind>> {
    let known = |kind: &Kind| version >= 1 || *kind == Kind::ClientMetrics;
    match asked {
        [] => Some(Kind::ALL.into_iter().filter(known).collect()),
        _ => asked.iter().map(|id| Kind::of(*id).filter(known)).collect(),
    }
}

fn resource(kind: Kind, name: &str) -> ConfigResource {
    ConfigResource::default().with_resource_type(kind as i8).with_resource_name(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_0_knows_client_metrics_only() {
        assert_eq!(kinds(0, &[]), Some(vec![Kind::ClientMetrics]));
        assert_eq!(kinds(1, &[]), Some(Kind::ALL.to_vec()));
        assert_eq!(kinds(1, &[2, 32]), Some(vec![Kind::Topic, Kind::Group]));
        assert_eq!(kinds(1, &[2, 3]), None);
        assert_eq!(kinds(1, &[0]), None);
    }
}
