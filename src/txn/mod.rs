//! The transaction coordinator: which transactional id has which producer, what its transaction holds, and how it ends.
//!
//! | room | what it owns |
//! |---|---|
//! | [`state`] | the state machine of one transactional id: pure |
//! | `stored` | its stored form |
//! | `registry` | [`Transactions`]: all transactional ids, their timers, and the way to the log, the groups and the store |
//!
//! Called by the Kafka door, which maps [`TxnError`] to Kafka's error codes, and by `server`, which runs
//! [`Transactions::run_timers`].
//!
//! Invariants:
//! - A transaction ends in one commit of the store: the markers in all its partitions, the offsets it commits for groups
//!   and its new state are durable together or not at all. So there is no prepared state to recover: after a crash a
//!   transaction is as open as it was, or has ended.
//! - What a transaction is going to touch is queued for the store before what touches it: a record of a transaction is
//!   never there without the coordinator knowing the partition.
//! - A change is decided and applied under the lock of its transactional id, and queued before that is released; a
//!   request is answered after what it changed is durable. Only the end of a transaction shows late: until it is durable,
//!   whoever else asks is told to come again (CONCURRENT_TRANSACTIONS), as by Kafka while it writes markers.
//! - Locks are taken in the order transactional id, groups (by ascending id), then whatever the broker takes.
//!
//! Source: KIP-98, KIP-360 (going on after an error), KIP-447 (offsets fenced by the group), KIP-588 (error codes), KIP-664
//! (tools), KIP-890 (an epoch for every transaction, partitions added by their first record), and the behaviour of Apache
//! Kafka 4's transaction coordinator.

use crate::group::GroupError;

mod registry;
pub mod state;
pub mod stored;

pub use registry::{Described, ListFilter, Listed, Transactions, Verification};

/// How many transactional ids there can be. Beyond it a new one is refused as if its coordinator were away, so that
/// clients try again later; ids that are not used expire.
pub const TRANSACTIONAL_IDS_MAX: usize = 100_000;

/// The longest transactional id, in bytes: what a Kafka string can hold.
pub const TRANSACTIONAL_ID_BYTES_MAX: usize = i16::MAX as usize;

/// Partitions of one transaction.
pub const PARTITIONS_MAX: usize = 10_000;

/// Groups that one transaction commits offsets for.
pub const GROUPS_MAX: usize = 100;

/// The settings that shape transactions, with Kafka's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnSettings {
    /// `transaction.max.timeout.ms`: the longest timeout that a producer may ask for.
    pub max_timeout_ms: i64,
    /// `transactional.id.expiration.ms`: a transactional id without a transaction is forgotten after this long.
    pub id_expiration_ms: i64,
}

impl Default for TxnSettings {
    fn default() -> TxnSettings {
        TxnSettings { max_timeout_ms: 15 * 60_000, id_expiration_ms: 7 * 24 * 3_600_000 }
    }
}

/// Why the coordinator refused a request. Named as Kafka names its error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TxnError {
    #[error("the request makes no sense")]
    InvalidRequest,
    #[error("the transaction timeout is out of the broker's bounds")]
    InvalidTransactionTimeout,
    #[error("the producer id is not the transactional id's")]
    InvalidProducerIdMapping,
    #[error("a newer instance of the producer has taken over")]
    ProducerFenced,
    #[error("the transaction is just ending")]
    ConcurrentTransactions,
    #[error("the transaction is not in a state for that")]
    InvalidTxnState,
    /// Abort, and go on.
    #[error("the partition or group is not in the transaction, or would be one too many")]
    TransactionAbortable,
    #[error("there is no such transactional id")]
    TransactionalIdNotFound,
    /// It could not be stored, or would be one too many.
    #[error("the transaction cannot be served at the moment")]
    CoordinatorNotAvailable,
    #[error(transparent)]
    Group(#[from] GroupError),
}
