//! Share groups (KIP-932): `members` (ShareGroupHeartbeat, ShareGroupDescribe), `fetch` (ShareFetch), `acknowledge`
//! (ShareAcknowledge, and what ShareFetch acknowledges), `offsets` (where a group stands). `wire` reads and writes the
//! versions that the codec does not know. What they decide stands in [`crate::share`].
//!
//! This broker coordinates every group and leads every partition.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::kafka::{Client, Context, Door, error};
use crate::model::ids::{PartitionId, PartitionIndex};
use crate::share::sessions::{Place, SessionKey};
use crate::share::{DeliveryError, MEMBER_ID_CHARS_MAX, ShareError};

mod acknowledge;
mod fetch;
mod members;
mod offsets;
mod wire;

pub use acknowledge::share_acknowledge;
pub use fetch::{first_error, share_fetch};
pub use members::{share_group_describe, share_group_heartbeat};
pub use offsets::{alter_share_group_offsets, delete_share_group_offsets, describe_share_group_offsets};
pub use wire::{AcknowledgeExtra, FetchExtra, VERSIONS, decode_acknowledge, decode_fetch, put_lock_timeout};

pub fn of_share(failure: ShareError) -> ResponseError {
    match failure {
        ShareError::InvalidRequest => ResponseError::InvalidRequest,
        ShareError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        ShareError::Claim(failure) => error::of_group(failure),
        ShareError::UnknownMemberId => ResponseError::UnknownMemberId,
        ShareError::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
        ShareError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        ShareError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        ShareError::InvalidRecordState => ResponseError::InvalidRecordState,
        ShareError::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
        ShareError::SessionNotFound => ResponseError::ShareSessionNotFound,
        ShareError::InvalidSessionEpoch => ResponseError::InvalidShareSessionEpoch,
        ShareError::SessionLimitReached => ResponseError::ShareSessionLimitReached,
        ShareError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
    }
}

fn of_delivery(failure: &DeliveryError) -> ResponseError {
    match failure {
        DeliveryError::Share(failure) => of_share(*failure),
        DeliveryError::Read(failure) => error::of_read(failure),
    }
}

/// Whose session a request is of.
fn session_key(group_id: Option<&GroupId>, member_id: Option<&StrBytes>) -> Result<SessionKey, ResponseError> {
    let group_id = group_id.map(|id| id.to_string()).filter(|id| !id.is_empty());
    let member_id = member_id.map(ToString::to_string).filter(|id| is_member_id(id));
    match (group_id, member_id) {
        (Some(group_id), Some(member_id)) => Ok(SessionKey { group_id, member_id }),
        _ => Err(ResponseError::InvalidRequest),
    }
}

fn is_member_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= MEMBER_ID_CHARS_MAX
}

/// Ends the share sessions of a connection that has ended: what their members hold is for others.
pub fn disconnected(door: &Door, client: &Client) {
    for (key, places) in door.share_sessions.disconnect(client.id) {
        release(door, &key, &places);
    }
}

/// Gives back what a session's member holds.
fn release(door: &Door, key: &SessionKey, places: &[Place]) {
    let ids = places.iter().filter_map(|place| partition_id(door, place));
    door.shares.release(&key.group_id, &key.member_id, ids);
}

fn partition_id(door: &Door, (topic_id, index): &Place) -> Option<PartitionId> {
    let stream = door.broker.stream_by_topic_id(*topic_id)?;
    Some(PartitionId { stream: stream.id, index: PartitionIndex(u32::try_from(*index).ok()?) })
}

/// How long records are locked that the group acquires.
fn lock_timeout_ms(cx: &Context, key: &SessionKey) -> i32 {
    i32::try_from(cx.door.shares.settings_of(&key.group_id).lock_duration_ms).unwrap_or(i32::MAX)
}

/// Puts what is told of places under their topics, in the order of the places.
fn by_topic<P>(told: impl IntoIterator<Item = (Uuid, P)>) -> Vec<(Uuid, Vec<P>)> {
    let mut topics: indexmap::IndexMap<Uuid, Vec<P>> = indexmap::IndexMap::new();
    for (topic_id, partition) in told {
        topics.entry(topic_id).or_default().push(partition);
    }
    topics.into_iter().collect()
}
