//! Topics: what they are and how they come and go.
//!
//! - [`metadata`] has Metadata (3): brokers and topics, with auto-creation
//! - [`create`] has CreateTopics (19)
//! - [`delete`] has DeleteTopics (20)
//! - [`grow`] has CreatePartitions (37)
//! - [`describe`] has DescribeTopicPartitions (75)
//!
//! This broker is its cluster's only one: every partition is led by it and has it as its one replica.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;

use crate::broker::catalog::NewStream;
use crate::broker::{CatalogError, Stream};
use crate::kafka::error::Refusal;
use crate::kafka::names::{self, Collisions};
use crate::kafka::{Context, error};
use crate::model::attributes::Attributes;

pub(super) mod assignment;
mod create;
mod delete;
mod describe;
mod grow;
mod metadata;

pub use create::create_topics;
pub use delete::delete_topics;
pub use describe::describe_topic_partitions;
pub use grow::create_partitions;
pub use metadata::metadata;

/// The most partitions that one topic may have, and one request may add.
const PARTITIONS_MAX: u32 = 10_000;

/// What a client may do with a topic where nothing is forbidden, as Kafka's bit field of operations: READ, WRITE,
/// CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = operations(&[3, 4, 5, 6, 7, 8, 10, 11]);

/// The same of the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = operations(&[5, 7, 8, 9, 10, 11, 12]);

const fn operations(codes: &[u32]) -> i32 {
    let mut field = 0;
    let mut at = 0;
    while at < codes.len() {
        field |= 1 << codes[at];
        at += 1;
    }
    field
}

/// Each key's first entry, in order, and whether it came more than once: Kafka refuses such, whatever they say.
fn distinct<'a, T, K: Hash + Eq>(entries: &'a [T], key: impl Fn(&'a T) -> K) -> impl Iterator<Item = (&'a T, bool)> {
    let mut firsts: IndexMap<K, (&T, bool)> = IndexMap::with_capacity(entries.len());
    for entry in entries {
        firsts.entry(key(entry)).and_modify(|(_, repeated)| *repeated = true).or_insert((entry, false));
    }
    firsts.into_values()
}

/// Why a topic that does not exist is not answered.
fn unknown(name: &str) -> ResponseError {
    match names::is_valid_topic(name) {
        true => ResponseError::UnknownTopicOrPartition,
        false => ResponseError::InvalidTopicException,
    }
}

/// What `wanted` could collide with. Looks through all topics, but only if one of them could.
fn collisions<'a>(cx: &Context, wanted: impl IntoIterator<Item = &'a str>) -> Collisions {
    if !wanted.into_iter().any(names::may_collide) {
        return Collisions::among([]);
    }
    Collisions::among(cx.door.broker.streams().iter().map(|stream| &stream.name))
}

/// The topic `name`, made with the defaults if it does not exist. The caller has asked whether clients may.
async fn ensure_topic(cx: &Context, name: &str, collisions: &Collisions) -> Result<Arc<Stream>, ResponseError> {
    if let Some(stream) = cx.door.broker.stream(name) {
        return Ok(stream);
    }
    let colliding = collisions.with(name).is_some();
    if colliding || name == names::CLUSTER_METADATA_TOPIC || !names::is_valid_topic(name) {
        return Err(ResponseError::InvalidTopicException);
    }
    let new = NewStream {
        name: name.to_owned(),
        partitions: default_partitions(cx),
        claimed_replicas: 1,
        overrides: BTreeMap::new(),
        attributes: Attributes::new(cx.door.broker.clock().now_ms()),
    };
    // Metadata cannot tell that the quota is used up; what is made counts all the same.
    cx.door.quotas.mutated(cx, new.partitions.get());
    match cx.door.broker.create_stream(new).await {
        Ok(stream) => {
            tracing::info!(topic = name, partitions = stream.partition_count(), "topic made when asked for");
            Ok(stream)
        }
        // Another client was quicker.
        Err(CatalogError::Exists(_)) => cx.door.broker.stream(name).ok_or(ResponseError::UnknownTopicOrPartition),
        Err(error) => Err(error::of_catalog(&error)),
    }
}

/// `num-partitions`, which the configuration keeps between 1 and [`PARTITIONS_MAX`].
fn default_partitions(cx: &Context) -> NonZeroU32 {
    u32::try_from(cx.door.config.num_partitions).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests;
