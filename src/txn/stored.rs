//! The stored form of a transactional id: JSON under the key `Transaction` of `store::keys`. Written by the registry, read
//! back once at the start. Unknown fields are ignored, so that a field can be added.
//!
//! | field | type | |
//! |---|---|---|
//! | producer_id, producer_epoch | i64, i16 | the current pair |
//! | last_producer_id, last_producer_epoch | i64, i16, or null | the pair before, whose holder may ask again |
//! | timeout_ms | i32 | the producer's transaction timeout |
//! | state | string | `Empty`, `Ongoing`, `CompleteCommit`, `CompleteAbort` |
//! | topics | array | of the open transaction: `topic_id` (UUID), `partitions` (array of u32) |
//! | groups | array of strings | those that the open transaction commits offsets for |
//! | start_ms | i64 or null | wall clock at which the transaction began |
//! | update_ms | i64 | wall clock of the last change |

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{ProducerEpoch, State, Transaction};
use crate::store::StoreError;
use crate::store::keys::Key;

#[derive(Serialize, Deserialize)]
struct Stored {
    producer_id: i64,
    producer_epoch: i16,
    last_producer_id: Option<i64>,
    last_producer_epoch: Option<i16>,
    timeout_ms: i32,
    state: StoredState,
    topics: Vec<StoredTopic>,
    groups: Vec<String>,
    start_ms: Option<i64>,
    update_ms: i64,
}

/// What can be stored of [`State`]: an end is there or it is not.
#[derive(Serialize, Deserialize)]
enum StoredState {
    Empty,
    Ongoing,
    CompleteCommit,
    CompleteAbort,
}

#[derive(Serialize, Deserialize)]
struct StoredTopic {
    topic_id: String,
    partitions: Vec<u32>,
}

pub fn encode(transaction: &Transaction) -> Bytes {
    let topics = transaction.partitions.iter();
    let stored = Stored {
        producer_id: transaction.producer.producer_id,
        producer_epoch: transaction.producer.epoch,
        last_producer_id: transaction.last.map(|last| last.producer_id),
        last_producer_epoch: transaction.last.map(|last| last.epoch),
        timeout_ms: transaction.timeout_ms,
        state: match transaction.state {
            State::Empty => StoredState::Empty,
            // While it ends, the store still holds it as open.
            State::Ongoing | State::PrepareCommit | State::PrepareAbort => StoredState::Ongoing,
            State::CompleteCommit => StoredState::CompleteCommit,
            State::CompleteAbort => StoredState::CompleteAbort,
        },
        topics: topics
            .map(|(topic, partitions)| StoredTopic {
                topic_id: topic.to_string(),
                partitions: partitions.iter().copied().collect(),
            })
            .collect(),
        groups: transaction.groups.iter().cloned().collect(),
        start_ms: transaction.start_ms,
        update_ms: transaction.update_ms,
    };
    // No map and nothing else is in it whose serialization can fail.
    Bytes::from(serde_json::to_vec(&stored).unwrap_or_default())
}

pub fn decode(transactional_id: &str, value: &[u8]) -> Result<Transaction, StoreError> {
    let corrupt =
        |error: &dyn std::fmt::Display| StoreError::Corrupt(format!("transaction {transactional_id}: {error}"));
    let stored: Stored = serde_json::from_slice(value).map_err(|error| corrupt(&error))?;
    let last = stored.last_producer_id.zip(stored.last_producer_epoch);
    let mut partitions = super::state::Partitions::new();
    for topic in stored.topics {
        let topic_id = Uuid::parse_str(&topic.topic_id).map_err(|error| corrupt(&error))?;
        partitions.insert(topic_id, topic.partitions.into_iter().collect());
    }
    Ok(Transaction {
        producer: ProducerEpoch { producer_id: stored.producer_id, epoch: stored.producer_epoch },
        last: last.map(|(producer_id, epoch)| ProducerEpoch { producer_id, epoch }),
        timeout_ms: stored.timeout_ms,
        state: match stored.state {
            StoredState::Empty => State::Empty,
            StoredState::Ongoing => State::Ongoing,
            StoredState::CompleteCommit => State::CompleteCommit,
            StoredState::CompleteAbort => State::CompleteAbort,
        },
        partitions,
        groups: stored.groups.into_iter().collect(),
        start_ms: stored.start_ms,
        update_ms: stored.update_ms,
    })
}

/// The first byte of [`Key::Transaction`], for scans.
pub fn prefix() -> Bytes {
    Key::Transaction("").encode()
}

/// The transactional id of a [`Key::Transaction`].
pub fn parse_key(key: &[u8]) -> Result<&str, StoreError> {
    key.get(1..)
        .and_then(|id| std::str::from_utf8(id).ok())
        .ok_or_else(|| StoreError::Corrupt(format!("key of a transaction: {key:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_reads_back_as_written() {
        let mut transaction = Transaction::new(7, 60_000, 1_000);
        assert_eq!(decode("t", &encode(&transaction)).unwrap(), transaction);
        let producer = transaction.producer();
        transaction.add_partitions(producer, &[(Uuid::from_u128(5), 3), (Uuid::from_u128(5), 1)], 2_000).unwrap();
        transaction.add_group(producer, "g\u{0}\"", 2_000).unwrap();
        assert_eq!(decode("t", &encode(&transaction)).unwrap(), transaction);
        let ending = transaction.fence(3_000).unwrap();
        assert_eq!(ending.after.last, Some(producer));
        assert_eq!(decode("t", &encode(&ending.after)).unwrap(), ending.after);
    }

    #[test]
    fn what_does_not_parse_is_corrupt_and_names_its_id() {
        for value in [&b""[..], b"{}", br#"{"producer_id":1,"producer_epoch":99999}"#] {
            let error = decode("payments", value).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt(_)) && error.to_string().contains("payments"));
        }
        assert_eq!(parse_key(&Key::Transaction("t\u{0}").encode()).unwrap(), "t\u{0}");
        assert!(parse_key(b"X\xff").is_err());
    }
}
