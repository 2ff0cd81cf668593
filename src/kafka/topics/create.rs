//! CreateTopics (19), versions 2 to 7. Each topic is judged by itself, in Kafka's order: name, existence, settings,
//! then partitions and replicas. A topic is answered when it is durable, and can be used at once; the request's timeout
//! is not needed.
//!
//! One replica is kept. With `lenient-replication` a wish for more is remembered (`min.insync.replicas` is measured by
//! it) and answered as one; without, it is refused as Kafka refuses it where brokers are missing.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{PARTITIONS_MAX, Refusal, assignment, collisions, default_partitions, distinct};
use crate::broker::catalog::NewStream;
use crate::kafka::names::{self, Collisions};
use crate::kafka::{Context, error, throttle};
use crate::model::attributes::Attributes;
use crate::model::settings::{BrokerSettings, Overrides, describe, topic};

/// Versions that answer with what was made: partitions, replicas, settings.
const DETAILS_FROM: i16 = 5;
/// Versions that refuse what goes beyond a quota.
const STRICT_FROM: i16 = 6;

pub async fn create_topics(cx: Context, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let collisions = collisions(&cx, request.topics.iter().map(|topic| topic.name.as_str()));
    let settings = cx.door.broker.settings();
    let mut planner = Planner { cx: &cx, collisions, settings: &settings, room: PARTITIONS_MAX };
    let mut mutations = cx.door.quotas.mutations(&cx, STRICT_FROM);
    let plans: Vec<_> = distinct(&request.topics, |topic| &topic.name)
        .map(|(topic, repeated)| {
            let plan = if repeated { Err(Refusal::duplicate_name()) } else { planner.plan(topic) };
            let plan = plan.and_then(|new| mutations.take(new.partitions.get()).map(|()| new));
            (topic.name.clone(), plan)
        })
        .collect();
    let pause_ms = throttle::told_ms(mutations.pause_ms);
    // All are queued before any is awaited, so that they become durable together.
    let made = plans.into_iter().map(|(name, plan)| make(&cx, &settings, name, plan, request.validate_only));
    CreateTopicsResponse::default().with_topics(join_all(made).await).with_throttle_time_ms(pause_ms)
}

/// Judges the topics of one request.
struct Planner<'a> {
    cx: &'a Context,
    collisions: Collisions,
    settings: &'a BrokerSettings,
    /// Partitions that this request may still make.
    room: u32,
}

impl Planner<'_> {
    fn plan(&mut self, topic: &CreatableTopic) -> Result<NewStream, Refusal> {
        self.check_name(&topic.name)?;
        let overrides = self.overrides(topic)?;
        let (partitions, claimed_replicas) = match topic.assignments.is_empty() {
            true => self.counted(topic)?,
            false => self.assigned(topic)?,
        };
        let Some(room) = self.room.checked_sub(partitions.get()) else {
            let message = format!("Number of partitions is above the maximum of {PARTITIONS_MAX} in one request.");
            return Err(Refusal::new(ResponseError::InvalidPartitions, message));
        };
        self.room = room;
        let attributes = Attributes::new(self.cx.door.broker.clock().now_ms());
        Ok(NewStream { name: topic.name.to_string(), partitions, claimed_replicas, overrides, attributes })
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let invalid = |message| Err(Refusal::new(ResponseError::InvalidTopicException, message));
        if name == names::CLUSTER_METADATA_TOPIC {
            let message = format!("Creation of internal topic {name} is prohibited.");
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        if let Some(fault) = names::topic_name_fault(name) {
            return invalid(fault);
        }
        if self.cx.door.broker.stream(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, message));
        }
        match self.collisions.with(name) {
            Some(other) => invalid(format!("Topic '{name}' collides with existing topic: {other}")),
            None => Ok(()),
        }
    }

    fn overrides(&self, topic: &CreatableTopic) -> Result<Overrides, Refusal> {
        let configs = topic.configs.iter().map(|config| (config.name.as_str(), config.value.as_deref()));
        topic::validate_overrides(configs, self.settings)
            .map_err(|fault| Refusal::new(ResponseError::InvalidConfig, fault.to_string()))
    }

    /// Partitions and replicas by their numbers.
    fn counted(&self, topic: &CreatableTopic) -> Result<(NonZeroU32, i16), Refusal> {
        let replicas = match topic.replication_factor {
            -1 => 1,
            replicas if replicas < 1 => {
                let message = "Replication factor must be larger than 0, or -1 to use the default value.";
                return Err(Refusal::new(ResponseError::InvalidReplicationFactor, message));
            }
            replicas => replicas,
        };
        let partitions = match topic.num_partitions {
            -1 => Some(default_partitions(self.cx)),
            partitions => u32::try_from(partitions).ok().and_then(NonZeroU32::new),
        };
        let Some(partitions) = partitions else {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Refusal::new(ResponseError::InvalidPartitions, message));
        };
        if replicas > 1 && !self.cx.door.config.lenient_replication {
            let message = format!(
                "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} \
                 cannot be reached because only 1 broker(s) are registered."
            );
            return Err(Refusal::new(ResponseError::InvalidReplicationFactor, message));
        }
        Ok((partitions, replicas))
    }

    /// Partitions and replicas by manual assignment.
    fn assigned(&self, topic: &CreatableTopic) -> Result<(NonZeroU32, i16), Refusal> {
        if topic.replication_factor != -1 {
            let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        if topic.num_partitions != -1 {
            let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        let invalid = |message| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        let mut indexes = BTreeSet::new();
        let mut replicas = None;
        for assigned in &topic.assignments {
            let index = assigned.partition_index;
            if !indexes.insert(index) {
                return invalid(format!("Found multiple manual partition assignments for partition {index}"));
            }
            assignment::check(self.cx, &assigned.broker_ids, replicas)?;
            replicas = Some(assigned.broker_ids.len());
        }
        if !indexes.iter().copied().eq(0..indexes.len() as i32) {
            return invalid("partitions should be a consecutive 0-based integer sequence".to_owned());
        }
        let partitions = NonZeroU32::new(indexes.len() as u32).unwrap_or(NonZeroU32::MIN);
        Ok((partitions, i16::try_from(replicas.unwrap_or(1)).unwrap_or(i16::MAX)))
    }
}

async fn make(
    cx: &Context,
    settings: &BrokerSettings,
    name: TopicName,
    plan: Result<NewStream, Refusal>,
    validate_only: bool,
) -> CreatableTopicResult {
    let new = match plan {
        Ok(new) => new,
        Err(refusal) => return refused(name, refusal),
    };
    let mut answer = CreatableTopicResult::default().with_error_code(error::NONE).with_error_message(None);
    if cx.version >= DETAILS_FROM {
        answer = answer
            .with_num_partitions(new.partitions.get() as i32)
            .with_replication_factor(1)
            .with_configs(Some(configs(&new.overrides, settings)));
    }
    if !validate_only {
        match cx.door.broker.create_stream(new).await {
            Ok(stream) => {
                tracing::info!(topic = &*stream.name, partitions = stream.partition_count(), "topic made");
                answer = answer.with_topic_id(stream.topic_id);
            }
            Err(failure) => return refused(name, failure.into()),
        }
    }
    answer.with_name(name)
}

fn refused(name: TopicName, refusal: Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(refusal.error.code())
        .with_error_message(names::message(refusal.message))
}

fn configs(overrides: &Overrides, settings: &BrokerSettings) -> Vec<CreatableTopicConfigs> {
    let config = |described: describe::Described| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(described.name))
            .with_value(described.value.map(StrBytes::from_string))
            .with_read_only(described.read_only)
            .with_config_source(names::config_source(described.source))
            .with_is_sensitive(described.sensitive)
    };
    describe::topic(overrides, settings).into_iter().map(config).collect()
}
