//! From this broker's errors to Kafka's codes: one exhaustive match per error.

use kafka_protocol::error::ResponseError;

use crate::broker::{AppendError, CatalogError};
use crate::group::GroupError;
use crate::log::partition::ReadError;
use crate::log::producers::SequenceError;
use crate::model::batch::{BatchError, ErrorKind};
use crate::store::StoreError;
use crate::store::crypt::KeyError;
use crate::txn::TxnError;

pub const NONE: i16 = 0;

/// Kafka's name of a code, for metrics: `NONE`, `NOT_LEADER_OR_FOLLOWER`, ...
pub fn name(code: i16) -> &'static str {
    usize::try_from(i32::from(code) + 1).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("UNKNOWN_SERVER_ERROR")
}

/// The first error of an answer.
#[derive(Default)]
pub struct Codes(i16);

impl Codes {
    pub fn add(&mut self, code: i16) {
        if self.0 == NONE {
            self.0 = code;
        }
    }

    pub fn first(&self) -> i16 {
        self.0
    }
}

/// Lets a closure of the table be written without its types.
pub fn note<R>(codes: &mut Codes, response: &R, note: impl FnOnce(&R, &mut Codes)) {
    note(response, codes);
}

pub fn of_append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::NoSuchPartition => ResponseError::UnknownTopicOrPartition,
        AppendError::NotEnoughReplicas { .. } => ResponseError::NotEnoughReplicas,
        AppendError::Batch(error) => of_batch(error),
        AppendError::Sequence(error) => of_sequence(error),
        AppendError::Key(error) => of_key(error),
        AppendError::Store(error) => of_store(error),
    }
}

pub fn of_batch(error: &BatchError) -> ResponseError {
    match error.kind() {
        ErrorKind::Corrupt => ResponseError::CorruptMessage,
        ErrorKind::InvalidRecord => ResponseError::InvalidRecord,
        ErrorKind::InvalidTimestamp => ResponseError::InvalidTimestamp,
        ErrorKind::TooLarge => ResponseError::MessageTooLarge,
        ErrorKind::UnsupportedCompression => ResponseError::UnsupportedCompressionType,
        ErrorKind::InvalidTransactionState => ResponseError::InvalidTxnState,
        ErrorKind::Internal => ResponseError::UnknownServerError,
    }
}

pub fn of_sequence(error: &SequenceError) -> ResponseError {
    match error {
        SequenceError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        SequenceError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        SequenceError::OutsideTransaction { .. } => ResponseError::InvalidTxnState,
        // Every client sends the batch again after it.
        SequenceError::TooManyTransactions => ResponseError::NotEnoughReplicas,
    }
}

pub fn of_read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ReadError::Key(error) => of_key(error),
        ReadError::Store(error) => of_store(error),
    }
}

/// A refusal that clients tell their user at once: the errors of storage they would silently retry for ever.
pub fn of_key(error: &KeyError) -> ResponseError {
    match error {
        KeyError::NotFound(_)
        | KeyError::Disabled(_)
        | KeyError::Absent(_)
        | KeyError::Mismatch(_)
        | KeyError::Lost(_) => ResponseError::TopicAuthorizationFailed,
    }
}

pub fn of_store(error: &StoreError) -> ResponseError {
    match error {
        StoreError::NotDone(_) | StoreError::Unknown(_) => ResponseError::KafkaStorageError,
        StoreError::Corrupt(_) => ResponseError::CorruptMessage,
    }
}

pub fn of_catalog(error: &CatalogError) -> ResponseError {
    match error {
        CatalogError::Exists(_) => ResponseError::TopicAlreadyExists,
        CatalogError::NotFound => ResponseError::UnknownTopicOrPartition,
        CatalogError::Lineage(_) => ResponseError::InvalidPartitions,
        CatalogError::Setting(_) => ResponseError::InvalidConfig,
        CatalogError::Store(error) => of_store(error),
    }
}

pub fn of_group(error: GroupError) -> ResponseError {
    match error {
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnreleasedInstanceId => ResponseError::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::InvalidRegularExpression => ResponseError::InvalidRegularExpression,
        GroupError::InvalidRequest(_) => ResponseError::InvalidRequest,
        GroupError::UnsupportedVersion => ResponseError::UnsupportedVersion,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::InvalidCommitOffsetSize => ResponseError::InvalidCommitOffsetSize,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
    }
}

pub fn of_txn(error: TxnError) -> ResponseError {
    match error {
        TxnError::InvalidRequest => ResponseError::InvalidRequest,
        TxnError::InvalidTransactionTimeout => ResponseError::InvalidTransactionTimeout,
        TxnError::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
        TxnError::ProducerFenced => ResponseError::ProducerFenced,
        TxnError::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
        TxnError::InvalidTxnState => ResponseError::InvalidTxnState,
        TxnError::TransactionAbortable => ResponseError::TransactionAbortable,
        TxnError::TransactionalIdNotFound => ResponseError::TransactionalIdNotFound,
        TxnError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        TxnError::Group(error) => of_group(error),
    }
}

/// Why one entry of a request is refused: a topic, a resource, a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: ResponseError,
    pub message: String,
}

impl Refusal {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Refusal {
        Refusal { error, message: message.into() }
    }

    pub fn unknown_topic() -> Refusal {
        Refusal::new(ResponseError::UnknownTopicOrPartition, "This server does not host this topic-partition.")
    }

    pub fn duplicate_name() -> Refusal {
        Refusal::new(ResponseError::InvalidRequest, "Duplicate topic name.")
    }
}

impl From<CatalogError> for Refusal {
    fn from(failure: CatalogError) -> Refusal {
        match &failure {
            CatalogError::Exists(name) => {
                Refusal::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists."))
            }
            CatalogError::NotFound => Refusal::unknown_topic(),
            CatalogError::Lineage(_) | CatalogError::Setting(_) | CatalogError::Store(_) => {
                Refusal::new(of_catalog(&failure), failure.to_string())
            }
        }
    }
}

/// Holds a client's idea of who leads since when against the truth (KIP-320); -1 is none.
pub fn check_leader_epoch(current: Option<i32>, claimed: i32) -> Result<(), ResponseError> {
    match current {
        None => Err(ResponseError::UnknownTopicOrPartition),
        Some(current) if claimed >= 0 && claimed < current => Err(ResponseError::FencedLeaderEpoch),
        Some(current) if claimed > current => Err(ResponseError::UnknownLeaderEpoch),
        Some(_) => Ok(()),
    }
}

/// Kafka's names by code, from -1 on (org.apache.kafka.common.protocol.Errors).
const NAMES: &[&str] = &[
    "UNKNOWN_SERVER_ERROR",
    "NONE",
    "OFFSET_OUT_OF_RANGE",
    "CORRUPT_MESSAGE",
    "UNKNOWN_TOPIC_OR_PARTITION",
    "INVALID_FETCH_SIZE",
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_OR_FOLLOWER",
    "REQUEST_TIMED_OUT",
    "BROKER_NOT_AVAILABLE",
    "REPLICA_NOT_AVAILABLE",
    "MESSAGE_TOO_LARGE",
    "STALE_CONTROLLER_EPOCH",
    "OFFSET_METADATA_TOO_LARGE",
    "NETWORK_EXCEPTION",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "COORDINATOR_NOT_AVAILABLE",
    "NOT_COORDINATOR",
    "INVALID_TOPIC_EXCEPTION",
    "RECORD_LIST_TOO_LARGE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "INVALID_REQUIRED_ACKS",
    "ILLEGAL_GENERATION",
    "INCONSISTENT_GROUP_PROTOCOL",
    "INVALID_GROUP_ID",
    "UNKNOWN_MEMBER_ID",
    "INVALID_SESSION_TIMEOUT",
    "REBALANCE_IN_PROGRESS",
    "INVALID_COMMIT_OFFSET_SIZE",
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "INVALID_TIMESTAMP",
    "UNSUPPORTED_SASL_MECHANISM",
    "ILLEGAL_SASL_STATE",
    "UNSUPPORTED_VERSION",
    "TOPIC_ALREADY_EXISTS",
    "INVALID_PARTITIONS",
    "INVALID_REPLICATION_FACTOR",
    "INVALID_REPLICA_ASSIGNMENT",
    "INVALID_CONFIG",
    "NOT_CONTROLLER",
    "INVALID_REQUEST",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    "POLICY_VIOLATION",
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "DUPLICATE_SEQUENCE_NUMBER",
    "INVALID_PRODUCER_EPOCH",
    "INVALID_TXN_STATE",
    "INVALID_PRODUCER_ID_MAPPING",
    "INVALID_TRANSACTION_TIMEOUT",
    "CONCURRENT_TRANSACTIONS",
    "TRANSACTION_COORDINATOR_FENCED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "SECURITY_DISABLED",
    "OPERATION_NOT_ATTEMPTED",
    "KAFKA_STORAGE_ERROR",
    "LOG_DIR_NOT_FOUND",
    "SASL_AUTHENTICATION_FAILED",
    "UNKNOWN_PRODUCER_ID",
    "REASSIGNMENT_IN_PROGRESS",
    "DELEGATION_TOKEN_AUTH_DISABLED",
    "DELEGATION_TOKEN_NOT_FOUND",
    "DELEGATION_TOKEN_OWNER_MISMATCH",
    "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
    "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
    "DELEGATION_TOKEN_EXPIRED",
    "INVALID_PRINCIPAL_TYPE",
    "NON_EMPTY_GROUP",
    "GROUP_ID_NOT_FOUND",
    "FETCH_SESSION_ID_NOT_FOUND",
    "INVALID_FETCH_SESSION_EPOCH",
    "LISTENER_NOT_FOUND",
    "TOPIC_DELETION_DISABLED",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "UNSUPPORTED_COMPRESSION_TYPE",
    "STALE_BROKER_EPOCH",
    "OFFSET_NOT_AVAILABLE",
    "MEMBER_ID_REQUIRED",
    "PREFERRED_LEADER_NOT_AVAILABLE",
    "GROUP_MAX_SIZE_REACHED",
    "FENCED_INSTANCE_ID",
    "ELIGIBLE_LEADERS_NOT_AVAILABLE",
    "ELECTION_NOT_NEEDED",
    "NO_REASSIGNMENT_IN_PROGRESS",
    "GROUP_SUBSCRIBED_TO_TOPIC",
    "INVALID_RECORD",
    "UNSTABLE_OFFSET_COMMIT",
    "THROTTLING_QUOTA_EXCEEDED",
    "PRODUCER_FENCED",
    "RESOURCE_NOT_FOUND",
    "DUPLICATE_RESOURCE",
    "UNACCEPTABLE_CREDENTIAL",
    "INCONSISTENT_VOTER_SET",
    "INVALID_UPDATE_VERSION",
    "FEATURE_UPDATE_FAILED",
    "PRINCIPAL_DESERIALIZATION_FAILURE",
    "SNAPSHOT_NOT_FOUND",
    "POSITION_OUT_OF_RANGE",
    "UNKNOWN_TOPIC_ID",
    "DUPLICATE_BROKER_REGISTRATION",
    "BROKER_ID_NOT_REGISTERED",
    "INCONSISTENT_TOPIC_ID",
    "INCONSISTENT_CLUSTER_ID",
    "TRANSACTIONAL_ID_NOT_FOUND",
    "FETCH_SESSION_TOPIC_ID_ERROR",
    "INELIGIBLE_REPLICA",
    "NEW_LEADER_ELECTED",
    "OFFSET_MOVED_TO_TIERED_STORAGE",
    "FENCED_MEMBER_EPOCH",
    "UNRELEASED_INSTANCE_ID",
    "UNSUPPORTED_ASSIGNOR",
    "STALE_MEMBER_EPOCH",
    "MISMATCHED_ENDPOINT_TYPE",
    "UNSUPPORTED_ENDPOINT_TYPE",
    "UNKNOWN_CONTROLLER_ID",
    "UNKNOWN_SUBSCRIPTION_ID",
    "TELEMETRY_TOO_LARGE",
    "INVALID_REGISTRATION",
    "TRANSACTION_ABORTABLE",
    "INVALID_RECORD_STATE",
    "SHARE_SESSION_NOT_FOUND",
    "INVALID_SHARE_SESSION_EPOCH",
    "FENCED_STATE_EPOCH",
    "INVALID_VOTER_KEY",
    "DUPLICATE_VOTER",
    "VOTER_NOT_FOUND",
    "INVALID_REGULAR_EXPRESSION",
    "REBOOTSTRAP_REQUIRED",
    "STREAMS_INVALID_TOPOLOGY",
    "STREAMS_INVALID_TOPOLOGY_EPOCH",
    "STREAMS_TOPOLOGY_FENCED",
    "SHARE_SESSION_LIMIT_REACHED",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names() {
        let named = [
            (ResponseError::UnknownServerError, "UNKNOWN_SERVER_ERROR"),
            (ResponseError::OffsetOutOfRange, "OFFSET_OUT_OF_RANGE"),
            (ResponseError::UnsupportedVersion, "UNSUPPORTED_VERSION"),
            (ResponseError::InvalidRecord, "INVALID_RECORD"),
            (ResponseError::UnknownTopicId, "UNKNOWN_TOPIC_ID"),
            (ResponseError::TransactionAbortable, "TRANSACTION_ABORTABLE"),
        ];
        for (error, expected) in named {
            assert_eq!(name(error.code()), expected);
        }
        assert_eq!(name(NONE), "NONE");
        assert_eq!(name(i16::MAX), "UNKNOWN_SERVER_ERROR");
    }

    #[test]
    fn leader_epochs_are_fenced_both_ways() {
        assert_eq!(check_leader_epoch(Some(2), -1), Ok(()));
        assert_eq!(check_leader_epoch(Some(2), 2), Ok(()));
        assert_eq!(check_leader_epoch(Some(2), 1), Err(ResponseError::FencedLeaderEpoch));
        assert_eq!(check_leader_epoch(Some(2), 3), Err(ResponseError::UnknownLeaderEpoch));
    }
}
