//! DeleteTopics (20), versions 1 to 6: by name, from 6 on also by id. A topic is answered when its deletion is durable;
//! its disk space comes back with the reaper. What groups committed for it goes with it, so that a later topic of its
//! name is read from its own start.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

use super::{Refusal, distinct};
use crate::broker::{CatalogError, Stream};
use crate::kafka::{Context, error, names, throttle};

/// Versions that refuse what goes beyond a quota.
const STRICT_FROM: i16 = 5;

pub async fn delete_topics(cx: Context, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = |name| DeleteTopicState::default().with_name(Some(name));
    let wanted: Vec<DeleteTopicState> = request.topic_names.into_iter().map(by_name).chain(request.topics).collect();
    let found: Vec<_> = distinct(&wanted, |topic| (topic.name.as_ref(), topic.topic_id))
        .map(|(topic, repeated)| (topic, find(&cx, topic, repeated)))
        .collect();
    let mut times_named: HashMap<Uuid, usize> = HashMap::new();
    for stream in found.iter().filter_map(|(_, found)| found.as_ref().ok()) {
        *times_named.entry(stream.topic_id).or_default() += 1;
    }
    let mut mutations = cx.door.quotas.mutations(&cx, STRICT_FROM);
    let judged = found.into_iter().map(|(topic, found)| {
        let found = found.and_then(|stream| match times_named.get(&stream.topic_id) {
            Some(2..) => {
                let message = "The provided topic name maps to an ID that was already supplied.";
                Err(Refusal::new(ResponseError::InvalidRequest, message))
            }
            _ => mutations.take(stream.partition_count()).map(|()| stream),
        });
        delete(&cx, topic, found)
    });
    // All are queued before any is awaited, so that they become durable together.
    let answers = join_all(judged).await;
    let pause_ms = throttle::told_ms(mutations.pause_ms);
    forget_offsets(&cx, &answers).await;
    DeleteTopicsResponse::default().with_responses(answers).with_throttle_time_ms(pause_ms)
}

async fn forget_offsets(cx: &Context, answers: &[DeletableTopicResult]) {
    let deleted = answers.iter().filter(|answer| answer.error_code == error::NONE);
    let gone: HashSet<&str> = deleted.filter_map(|answer| answer.name.as_ref()).map(|name| name.as_str()).collect();
    if gone.is_empty() {
        return;
    }
    // The topics are gone whether or not this succeeds.
    if let Err(failure) = cx.door.groups.forget_topics(|topic| gone.contains(topic)).await {
        tracing::warn!(%failure, "offsets of deleted topics are still kept");
    }
}

fn find(cx: &Context, topic: &DeleteTopicState, repeated: bool) -> Result<Arc<Stream>, Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ResponseError::InvalidRequest, message));
    let broker = &cx.door.broker;
    match (&topic.name, topic.topic_id) {
        (None, id) if id.is_nil() => invalid("Neither topic name nor id were specified."),
        (Some(_), id) if !id.is_nil() => invalid("You may not specify both topic name and topic id."),
        (None, _) if repeated => invalid("Duplicate topic id."),
        (Some(_), _) if repeated => Err(Refusal::duplicate_name()),
        (None, id) => broker.stream_by_topic_id(id).ok_or_else(unknown_id),
        (Some(name), _) => broker.stream(name).ok_or_else(Refusal::unknown_topic),
    }
}

fn unknown_id() -> Refusal {
    Refusal::new(ResponseError::UnknownTopicId, "This server does not host this topic ID.")
}

async fn delete(cx: &Context, topic: &DeleteTopicState, found: Result<Arc<Stream>, Refusal>) -> DeletableTopicResult {
    let deleted = match found {
        Ok(stream) => match cx.door.broker.delete_stream(&stream).await {
            Ok(()) => Ok(stream),
            // Another client was quicker.
            Err(CatalogError::NotFound) if topic.name.is_none() => Err(unknown_id()),
            Err(failure) => Err(failure.into()),
        },
        Err(refusal) => Err(refusal),
    };
    match deleted {
        Ok(stream) => {
            tracing::info!(topic = &*stream.name, "topic deleted");
            DeletableTopicResult::default()
                .with_name(Some(names::topic(&stream.name)))
                .with_topic_id(stream.topic_id)
                .with_error_message(None)
        }
        Err(refusal) => DeletableTopicResult::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_error_code(refusal.error.code())
            .with_error_message(names::message(refusal.message)),
    }
}
