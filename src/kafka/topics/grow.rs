//! CreatePartitions (37), versions 0 to 3: a stream's shards are split until it has as many partitions as are asked for.
//! Every topic of the request is answered.

use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{PARTITIONS_MAX, Refusal, assignment, distinct};
use crate::broker::Stream;
use crate::kafka::{Context, names, throttle};

/// Versions that refuse what goes beyond a quota.
const STRICT_FROM: i16 = 3;

pub async fn create_partitions(cx: Context, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut room = PARTITIONS_MAX;
    let mut mutations = cx.door.quotas.mutations(&cx, STRICT_FROM);
    let plans: Vec<_> = distinct(&request.topics, |topic| &topic.name)
        .map(|(topic, repeated)| {
            let plan = if repeated { Err(Refusal::duplicate_name()) } else { plan(&cx, topic, &mut room) };
            let plan = plan.and_then(|(stream, target)| {
                mutations.take(target.saturating_sub(stream.partition_count()))?;
                Ok((stream, target))
            });
            (topic, plan)
        })
        .collect();
    let pause_ms = throttle::told_ms(mutations.pause_ms);
    // All are queued before any is awaited, so that they become durable together.
    let grown = plans.into_iter().map(|(topic, plan)| grow(&cx, topic, plan, request.validate_only));
    CreatePartitionsResponse::default().with_results(join_all(grown).await).with_throttle_time_ms(pause_ms)
}

/// The stream and how many partitions it is to have.
fn plan(cx: &Context, topic: &CreatePartitionsTopic, room: &mut u32) -> Result<(Arc<Stream>, u32), Refusal> {
    let stream = cx.door.broker.stream(&topic.name).ok_or_else(Refusal::unknown_topic)?;
    let invalid = |message| Err(Refusal::new(ResponseError::InvalidPartitions, message));
    let (name, now) = (&stream.name, stream.partition_count());
    let target = match u32::try_from(topic.count) {
        Ok(target) if target > now => target,
        Ok(target) if target == now => return invalid(format!("Topic already has {now} partition(s).")),
        Ok(_) | Err(_) => {
            return invalid(format!(
                "The topic {name} currently has {now} partition(s); {} would not be an increase.",
                topic.count
            ));
        }
    };
    let additional = target - now;
    if let Some(assignments) = &topic.assignments {
        if assignments.len() != additional as usize {
            let message = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        }
        // Lenient or not, partitions are answered as having one replica; a wish for more is the topic's, not theirs.
        let replicas = (!cx.door.config.lenient_replication).then_some(1);
        for assigned in assignments {
            assignment::check(cx, &assigned.broker_ids, replicas)?;
        }
    }
    match room.checked_sub(additional) {
        Some(rest) if target <= PARTITIONS_MAX => *room = rest,
        _ => return invalid(format!("Number of partitions is above the maximum of {PARTITIONS_MAX}.")),
    }
    Ok((stream, target))
}

async fn grow(
    cx: &Context,
    topic: &CreatePartitionsTopic,
    plan: Result<(Arc<Stream>, u32), Refusal>,
    validate_only: bool,
) -> CreatePartitionsTopicResult {
    let grown = match plan {
        Ok((stream, target)) if !validate_only => {
            tracing::info!(topic = &*stream.name, partitions = target, "partitions are added");
            cx.door.broker.add_partitions(&stream, target).await.map_err(Refusal::from)
        }
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal),
    };
    let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
    match grown {
        Ok(()) => answer.with_error_message(None),
        Err(refusal) => {
            answer.with_error_code(refusal.error.code()).with_error_message(names::message(refusal.message))
        }
    }
}
