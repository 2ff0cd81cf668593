//! Metadata (3), versions 0 to 13: this broker, by the address of the listener that the client came by, and topics:
//! all, by name, or (from 12 on) by id. Topics named that do not exist are made where the client and the configuration
//! allow it, and are answered as made: clients need not ask twice.

use std::sync::Arc;

use futures_util::future::join_all;
use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{CLUSTER_OPERATIONS, TOPIC_OPERATIONS, collisions, ensure_topic, unknown};
use crate::broker::Stream;
use crate::kafka::{Context, names};

/// Versions that may ask for topics by id.
const IDS_FROM: i16 = 12;

/// What a client asks for.
enum Wanted {
    All,
    Names(IndexSet<StrBytes>),
    Ids(IndexSet<Uuid>),
}

pub async fn metadata(cx: Context, request: MetadataRequest) -> MetadataResponse {
    let MetadataRequest { topics, allow_auto_topic_creation, .. } = request;
    let wanted = match wanted(topics, cx.version) {
        Ok(wanted) => wanted,
        // A broker that answers none but errors has told nothing of itself, as with Kafka.
        Err(topics) => return MetadataResponse::default().with_topics(topics),
    };
    let mut topics = match wanted {
        Wanted::All => cx.door.broker.streams().iter().map(|stream| described(stream, cx.door.node_id())).collect(),
        Wanted::Names(names) => by_name(&cx, names, allow_auto_topic_creation).await,
        Wanted::Ids(ids) => ids.into_iter().map(|id| by_id(&cx, id)).collect(),
    };
    if request.include_topic_authorized_operations {
        topics.iter_mut().for_each(|topic| topic.topic_authorized_operations = TOPIC_OPERATIONS);
    }
    let mut response = MetadataResponse::default()
        .with_brokers(brokers(&cx))
        .with_cluster_id(Some(StrBytes::from_string(names::uuid_text(cx.door.broker.cluster_id()))))
        .with_controller_id(cx.door.node_id())
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// Or the topics with an error each, if the request is not one of its version.
fn wanted(topics: Option<Vec<MetadataRequestTopic>>, version: i16) -> Result<Wanted, Vec<MetadataResponseTopic>> {
    let Some(topics) = topics else { return Ok(Wanted::All) };
    if version == 0 && topics.is_empty() {
        return Ok(Wanted::All);
    }
    let misfit = |topic: &MetadataRequestTopic| match version < IDS_FROM {
        true => topic.name.is_none() || !topic.topic_id.is_nil(),
        false => topic.name.is_none() && topic.topic_id.is_nil(),
    };
    if topics.iter().any(misfit) {
        let refused = |topic: MetadataRequestTopic| {
            let name = topic.name.unwrap_or_default();
            failed(ResponseError::InvalidRequest, &name).with_topic_id(topic.topic_id)
        };
        return Err(topics.into_iter().map(refused).collect());
    }
    // Kafka does not look at names once there is an id.
    let ids: IndexSet<Uuid> = topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil()).collect();
    if !ids.is_empty() {
        return Ok(Wanted::Ids(ids));
    }
    Ok(Wanted::Names(topics.into_iter().filter_map(|topic| topic.name).map(|name| name.0).collect()))
}

fn brokers(cx: &Context) -> Vec<MetadataResponseBroker> {
    let advertised = cx.door.listeners.get(cx.client.listener);
    let broker = |listener: &crate::kafka::Advertised| {
        MetadataResponseBroker::default()
            .with_node_id(cx.door.node_id())
            .with_host(StrBytes::from_string(listener.host.clone()))
            .with_port(listener.port.into())
    };
    advertised.map(broker).into_iter().collect()
}

async fn by_name(cx: &Context, names: IndexSet<StrBytes>, client_allows: bool) -> Vec<MetadataResponseTopic> {
    let broker = &cx.door.broker;
    let create = client_allows && cx.door.config.auto_create_topics;
    let missing = || names.iter().map(|name| name.as_str()).filter(|name| create && broker.stream(name).is_none());
    let collisions = collisions(cx, missing());
    let collisions = &collisions;
    // All are queued before any is awaited, so that they become durable together.
    let answers = names.iter().map(|name| async move {
        let found = match create {
            true => ensure_topic(cx, name, collisions).await,
            false => broker.stream(name).ok_or_else(|| unknown(name)),
        };
        match found {
            Ok(stream) => described(&stream, cx.door.node_id()),
            Err(error) => failed(error, name),
        }
    });
    join_all(answers).await
}

fn by_id(cx: &Context, id: Uuid) -> MetadataResponseTopic {
    match cx.door.broker.stream_by_topic_id(id) {
        Some(stream) => described(&stream, cx.door.node_id()),
        None => failed(ResponseError::UnknownTopicId, "").with_name(None).with_topic_id(id),
    }
}

fn failed(error: ResponseError, name: &str) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(names::topic(name)))
        .with_is_internal(names::is_internal(name))
}

fn described(stream: &Arc<Stream>, node: BrokerId) -> MetadataResponseTopic {
    let partition = |(index, leader_epoch)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(node)
            .with_leader_epoch(leader_epoch)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    MetadataResponseTopic::default()
        .with_name(Some(names::topic(&stream.name)))
        .with_topic_id(stream.topic_id)
        .with_is_internal(names::is_internal(&stream.name))
        .with_partitions((0..).zip(stream.leader_epochs()).map(partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(Some(names::topic(name)))
    }

    fn with_id(id: u128) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(id))
    }

    #[test]
    fn no_topics_means_all_in_version_0_and_none_later() {
        assert!(matches!(wanted(None, 1), Ok(Wanted::All)));
        assert!(matches!(wanted(Some(Vec::new()), 0), Ok(Wanted::All)));
        assert!(matches!(wanted(Some(Vec::new()), 1), Ok(Wanted::Names(names)) if names.is_empty()));
    }

    #[test]
    fn ids_are_answered_from_version_12_on_and_go_before_names() {
        let refused = wanted(Some(vec![with_id(7), named("a")]), 11).err().unwrap();
        assert!(refused.iter().all(|topic| topic.error_code == ResponseError::InvalidRequest.code()));
        assert_eq!(refused.len(), 2);
        let Ok(Wanted::Ids(ids)) = wanted(Some(vec![with_id(7), named("a"), with_id(7)]), 12) else { panic!("ids") };
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), [Uuid::from_u128(7)]);
        assert!(wanted(Some(vec![with_id(0)]), 12).is_err());
    }

    #[test]
    fn a_name_asked_for_twice_is_answered_once() {
        let Ok(Wanted::Names(names)) = wanted(Some(vec![named("a"), named("b"), named("a")]), 4) else {
            panic!("names")
        };
        assert_eq!(names.len(), 2);
    }
}
