//! Consumer groups: who belongs to a group, what each member was assigned, and the offsets that groups committed.
//!
//! | room | what it owns |
//! |---|---|
//! | [`classic`] | the state machine of one group that speaks the classic protocol: pure |
//! | [`consumer`] | the state machine of one group that leaves the assignment to the coordinator (KIP-848): pure |
//! | [`offsets`] | the committed offsets of one group: pure |
//! | `kinds` | what a group id stands for: the registry knows groups through it |
//! | `subscription` | reading which topics a consumer's subscription names |
//! | `topics` | what groups that assign must know of topics |
//! | `stored` | the stored form of groups and offsets |
//! | `registry` | [`Groups`]: all groups, their waiting requests, their timers, and the way to the store |
//!
//! Called by the Kafka door, which maps [`GroupError`] to Kafka's error codes, and by `server`, which runs
//! [`Groups::run_timers`].
//!
//! Invariants:
//! - A request is answered after what it changed is durable, except that a rebalance's new generation becomes durable
//!   with the leader's assignment, as in Kafka: a crash before that throws the members back to the former generation,
//!   and their next heartbeat tells them to join again.
//! - No lock is held across an await; a client that went away leaves nothing behind but its member's session timeout.
//!
//! Source: the behaviour of Apache Kafka 4's group coordinator; KIP-62 (session and rebalance timeouts), KIP-134
//! (initial rebalance delay), KIP-345 (static members), KIP-389 (group size), KIP-394 (member id required), KIP-496
//! (deleting offsets), KIP-559 (protocol name and type in the answers), KIP-814 (static leaders that skip assignment).

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::model::settings::group::MigrationPolicy;
use crate::store::{Batch, StoreError};

pub mod classic;
pub mod consumer;
mod kinds;
pub mod offsets;
mod registry;
pub mod stored;
mod subscription;
mod topics;

pub use kinds::GroupType;
pub use registry::{
    CommitRequest, ConfigError, Fetched, Groups, Listed, OffsetToCommit, QueuedCommit, TopicOffsets, TopicPartitions,
};
pub use topics::{Topic, Topics};

/// The longest group id, in bytes: what a Kafka string can hold.
pub const GROUP_ID_BYTES_MAX: usize = i16::MAX as usize;

/// How many groups there can be. Beyond it a new group is refused as if its coordinator were away, so that clients try
/// again later; groups that hold nothing leave by themselves.
pub const GROUPS_MAX: usize = 100_000;

/// How many members of one group may have been told their id without having joined with it yet.
pub const PENDING_MEMBERS_MAX: usize = 1_000;

/// The bytes that the members of one group may hold together in the metadata of their protocols.
pub const GROUP_METADATA_BYTES_MAX: usize = 64 << 20;

/// Offsets that open transactions may want to commit for one group at a time.
pub const PENDING_OFFSETS_MAX: usize = 100_000;

/// The settings that shape groups, with Kafka's names (`group.*` and `offset*.*`) and, but for the first, its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long the first rebalance of an empty group waits for more members. Kafka waits 3 s; a local broker answers
    /// at once.
    pub initial_rebalance_delay_ms: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    /// How long a member that never got its member id stays in a rebalance.
    pub new_member_join_timeout_ms: i32,
    /// Members of one group.
    pub max_size: i32,
    /// Of groups of the consumer protocol that do not set it for themselves.
    pub consumer: ConsumerConfig,
    pub migration: MigrationPolicy,
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: i64,
    pub offset_metadata_max_bytes: i32,
}

/// What a group of the consumer protocol may set for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    pub session_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            initial_rebalance_delay_ms: 0,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            new_member_join_timeout_ms: 300_000,
            max_size: i32::MAX,
            consumer: ConsumerConfig { session_timeout_ms: 45_000, heartbeat_interval_ms: 5_000 },
            migration: MigrationPolicy::Bidirectional,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            offset_metadata_max_bytes: 4_096,
        }
    }
}

/// Why a group refused a request. Named as Kafka names its error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    #[error("the group does not know this member")]
    UnknownMemberId,
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("no protocol is shared with the group's members")]
    InconsistentGroupProtocol,
    #[error("the session timeout is out of the broker's bounds")]
    InvalidSessionTimeout,
    #[error("join again with the member id of this answer")]
    MemberIdRequired,
    #[error("another member has taken over this group instance id")]
    FencedInstanceId,
    #[error("the group holds as many members as it may")]
    GroupMaxSizeReached,
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("there is no such group")]
    GroupIdNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The member must give up its partitions and join again.
    #[error(
        "the member epoch is not the one that the group knows: the member must abandon all its partitions and rejoin"
    )]
    FencedMemberEpoch,
    /// The request must be repeated with the epoch of the next heartbeat's answer.
    #[error("the member epoch is not the one that the group knows")]
    StaleMemberEpoch,
    #[error("the instance id is owned by another member")]
    UnreleasedInstanceId,
    #[error("the server-side assignor is not one of {}", consumer::ASSIGNORS.join(", "))]
    UnsupportedAssignor,
    #[error("the regular expression is not valid, or there are too many in the group")]
    InvalidRegularExpression,
    #[error("{0}")]
    InvalidRequest(&'static str),
    #[error("OffsetCommit version 9 or above must be used by members using the consumer group protocol")]
    UnsupportedVersion,
    #[error("the metadata of a committed offset is too large")]
    OffsetMetadataTooLarge,
    #[error("transactions hold as many offsets of the group as they may")]
    InvalidCommitOffsetSize,
    /// The group is being deleted, could not be stored, or would be one too many.
    #[error("the group cannot be served at the moment")]
    CoordinatorNotAvailable,
}

/// What groups need from the store below the broker.
pub trait MetaLog: Topics + Send + Sync + 'static {
    /// Puts `batch` into the queue of commits and returns at once. Batches are committed in the order of these calls;
    /// the receiver hears when this one is durable, or why it is not.
    fn commit_meta(&self, batch: Batch) -> oneshot::Receiver<Result<(), StoreError>>;

    /// All keys of the catalogue that begin with `prefix`, ascending. Blocks; for the start only.
    fn scan_meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
}

impl MetaLog for Broker {
    fn commit_meta(&self, batch: Batch) -> oneshot::Receiver<Result<(), StoreError>> {
        Broker::commit_meta(self, batch)
    }

    fn scan_meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Broker::scan_meta(self, prefix)
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never goes back: for deadlines.
    pub tick_ms: i64,
    /// Milliseconds since 1970: for what is stored.
    pub wall_ms: i64,
}
