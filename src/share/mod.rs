//! Share groups: members that share the records of partitions one by one, as of a queue, instead of partitions.
//!
//! | room | what it owns |
//! |---|---|
//! | [`membership`] | who belongs to a group and reads which partitions: pure |
//! | [`partition`] | which records of one partition a group has processed, holds, or may deliver: pure |
//! | [`sessions`] | which partitions a member fetches, over several requests |
//! | `stored` | the stored form of groups |
//! | `registry` | [`Shares`]: all groups, their timers, deliveries, and the way to the store |
//!
//! Called by the Kafka door, which maps [`ShareError`] to Kafka's codes, and by `server`, which runs
//! [`Shares::run_timers`]. Nothing here knows a protocol.
//!
//! Invariants:
//! - An acknowledgement is answered when it is durable. So is a delivery, as far as what it rests on goes: a record's
//!   count of deliveries after a crash is at most one behind, the delivery that nobody answered for, as in Kafka.
//! - What is held is not stored: after a restart it is available at once.
//! - Group ids are one name space with [`crate::group`]: a share group [claims](crate::group::Groups::claim) its id.
//! - Locks come in the order group, share partition, timers; nothing waits while it holds one.
//!
//! Source: KIP-932; the behaviour of Apache Kafka 4's group coordinator and share partition manager.

pub mod membership;
pub mod partition;
mod registry;
pub mod sessions;
pub mod stored;

pub use registry::{Delivery, Description, Listed, Share, Shares, StartOffset, Want};

use crate::group::GroupError;
use crate::log::partition::ReadError;
use crate::model::settings::group::OffsetReset;

/// The longest id of a member, in characters: that of a UUID, as Kafka's clients make theirs.
pub const MEMBER_ID_CHARS_MAX: usize = 36;

/// Topics that one member may subscribe to.
pub const MEMBER_TOPICS_MAX: usize = 10_000;

/// Partitions of one share session.
pub const SESSION_PARTITIONS_MAX: usize = 10_000;

/// The settings of a group: the broker's (`group.share.*`), unless the group has its own (`share.*`). Kafka's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSettings {
    pub session_timeout_ms: i64,
    pub heartbeat_interval_ms: i64,
    pub lock_duration_ms: i64,
    /// How often a record is delivered at most.
    pub deliveries_max: u16,
    /// Offsets of one partition that may be between the first one that is not processed and the last one delivered.
    pub locks_max: i64,
    pub reset: OffsetReset,
    pub read_committed: bool,
    /// Members may ask for more time.
    pub renewal: bool,
    /// Members of one group.
    pub members_max: usize,
    /// Share sessions of all groups.
    pub sessions_max: usize,
}

impl Default for ShareSettings {
    fn default() -> ShareSettings {
        ShareSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            lock_duration_ms: 30_000,
            deliveries_max: 5,
            locks_max: 2_000,
            reset: OffsetReset::Latest,
            read_committed: false,
            renewal: true,
            members_max: 200,
            sessions_max: 2_000,
        }
    }
}

/// Why a request of a share group was refused. Named as Kafka names its error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ShareError {
    #[error("the request is not valid")]
    InvalidRequest,
    #[error("there is no such share group")]
    GroupIdNotFound,
    /// The id cannot be a share group's.
    #[error(transparent)]
    Claim(#[from] GroupError),
    #[error("the group does not know this member")]
    UnknownMemberId,
    #[error("the member's epoch is not the group's current one")]
    FencedMemberEpoch,
    #[error("the group holds as many members as it may")]
    GroupMaxSizeReached,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("a record is not acquired by this member")]
    InvalidRecordState,
    #[error("there is no such topic or partition")]
    UnknownTopicOrPartition,
    #[error("there is no such share session")]
    SessionNotFound,
    #[error("the epoch of the share session is not the next one")]
    InvalidSessionEpoch,
    #[error("there are as many share sessions as there may be")]
    SessionLimitReached,
    /// The group is being deleted, could not be stored, or would be one too many.
    #[error("the group cannot be served at the moment")]
    CoordinatorNotAvailable,
}

/// Why nothing was delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<partition::AckError> for ShareError {
    fn from(error: partition::AckError) -> ShareError {
        match error {
            partition::AckError::Invalid => ShareError::InvalidRequest,
            partition::AckError::RecordState => ShareError::InvalidRecordState,
        }
    }
}
