//! What a producer asks before its transaction ends: to take over the id, to add partitions and groups, to write, and to
//! commit offsets.

use std::sync::Arc;

use uuid::Uuid;

use super::end::ABORT;
use super::{Entry, Stored, Transactions, check_id, durable};
use crate::group::{CommitRequest, GroupError};
use crate::txn::TxnError;
use crate::txn::state::{Init, ProducerEpoch, State, Transaction};

/// Whether what a transaction touches has to be in it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It must have been added before, or is refused.
    Added,
    /// It is added now (KIP-890).
    Add,
}

/// Where [`Transactions::init`] stands.
enum Step {
    Ready(ProducerEpoch, Stored),
    Aborting(tokio::task::JoinHandle<Result<(), TxnError>>),
    NeedsProducerId,
    Unknown,
}

impl Transactions {
    /// A producer begins to use a transactional id, or goes on after an error with the pair it has (`expected`). Fences
    /// whoever had the id, and aborts the transaction that is open. Kafka has the client ask again after that abort; here
    /// it is over so soon that the answer waits for it.
    pub async fn init(
        self: &Arc<Self>,
        id: &str,
        expected: Option<ProducerEpoch>,
        timeout_ms: i32,
    ) -> Result<ProducerEpoch, TxnError> {
        check_id(id)?;
        if timeout_ms <= 0 || i64::from(timeout_ms) > self.settings.max_timeout_ms {
            return Err(TxnError::InvalidTransactionTimeout);
        }
        let (mut fresh_id, mut aborted) = (None, false);
        loop {
            let step = self.find(id, |shared, entry| {
                let now_ms = self.clock.now_ms();
                Ok(match entry.transaction.init(expected, timeout_ms, fresh_id, now_ms)? {
                    Init::Ready(producer) => Step::Ready(producer, self.store(entry)),
                    Init::AbortFirst if aborted => return Err(TxnError::ConcurrentTransactions),
                    Init::AbortFirst => match entry.transaction.fence(now_ms) {
                        Some(ending) => Step::Aborting(self.run_end(shared, entry, ending, ABORT)),
                        None => return Err(TxnError::ConcurrentTransactions),
                    },
                    Init::NeedsProducerId => Step::NeedsProducerId,
                })
            });
            match step.unwrap_or(Ok(Step::Unknown))? {
                Step::Ready(producer, stored) => {
                    durable(stored).await?;
                    return Ok(producer);
                }
                Step::Aborting(ended) => {
                    ended.await.unwrap_or(Err(TxnError::CoordinatorNotAvailable))?;
                    aborted = true;
                }
                Step::NeedsProducerId => fresh_id = Some(self.new_producer_id().await?),
                Step::Unknown => {
                    let producer_id = match fresh_id {
                        Some(fresh_id) => fresh_id,
                        None => self.new_producer_id().await?,
                    };
                    fresh_id = Some(producer_id);
                    let transaction = Transaction::new(producer_id, timeout_ms, self.clock.now_ms());
                    let producer = transaction.producer();
                    if let Some(stored) = self.create(id, transaction)? {
                        durable(stored).await?;
                        return Ok(producer);
                    }
                }
            }
        }
    }

    pub(super) async fn new_producer_id(&self) -> Result<i64, TxnError> {
        self.broker.new_producer_id().await.map_err(|error| {
            tracing::warn!(%error, "no producer id could be had");
            TxnError::CoordinatorNotAvailable
        })
    }

    /// Adds partitions, by topic id, to the producer's transaction, all or none.
    pub async fn add_partitions(
        self: &Arc<Self>,
        id: &str,
        producer: ProducerEpoch,
        topic_partitions: &[(Uuid, u32)],
    ) -> Result<(), TxnError> {
        let stored =
            self.change(id, |transaction, now_ms| transaction.add_partitions(producer, topic_partitions, now_ms))?;
        durable(stored).await
    }

    /// Adds a group whose offsets the transaction is going to commit.
    pub async fn add_group(
        self: &Arc<Self>,
        id: &str,
        producer: ProducerEpoch,
        group_id: &str,
    ) -> Result<(), TxnError> {
        let stored = self.change(id, |transaction, now_ms| transaction.add_group(producer, group_id, now_ms))?;
        durable(stored).await
    }

    /// Whether the partition is in the producer's transaction.
    pub fn verify_partition(
        &self,
        id: &str,
        producer: ProducerEpoch,
        (topic, partition): (Uuid, u32),
    ) -> Result<(), TxnError> {
        check_id(id)?;
        let verified = self.find(id, |_, entry| entry.transaction.verify_partition(producer, topic, partition));
        verified.unwrap_or(Err(TxnError::InvalidProducerIdMapping))
    }

    /// Runs `append`, which places a batch of the producer's transaction in the partition's log, if it may be there. The
    /// transaction cannot end between the two, so no record comes behind its marker.
    pub fn write<R>(
        self: &Arc<Self>,
        id: &str,
        producer: ProducerEpoch,
        (topic, partition): (Uuid, u32),
        verification: Verification,
        append: impl FnOnce() -> R,
    ) -> Result<R, TxnError> {
        check_id(id)?;
        let written = self.find(id, |_, entry| {
            match verification {
                Verification::Added => entry.transaction.verify_partition(producer, topic, partition)?,
                // The batch is queued behind this, and answered after it.
                Verification::Add => drop(self.change_entry(entry, |transaction, now_ms| {
                    transaction.add_partitions(producer, &[(topic, partition)], now_ms)
                })?),
            }
            Ok(append())
        });
        written.unwrap_or(Err(TxnError::InvalidProducerIdMapping))
    }

    /// Commits a group's offsets with the producer's transaction. One answer for each offset, in their order.
    pub async fn commit_offsets(
        self: &Arc<Self>,
        id: &str,
        producer: ProducerEpoch,
        group_id: &str,
        verification: Verification,
        request: CommitRequest,
    ) -> Result<Vec<Result<(), GroupError>>, TxnError> {
        check_id(id)?;
        let queued = self.find(id, |_, entry| {
            match verification {
                Verification::Added => entry.transaction.verify_group(producer, group_id)?,
                Verification::Add => drop(
                    self.change_entry(entry, |transaction, now_ms| transaction.add_group(producer, group_id, now_ms))?,
                ),
            }
            Ok(self.groups.commit_in_transaction(group_id, producer.producer_id, request)?)
        });
        let queued = queued.unwrap_or(Err(TxnError::InvalidProducerIdMapping))?;
        Ok(queued.answers().await?)
    }

    fn change(
        self: &Arc<Self>,
        id: &str,
        act: impl FnOnce(&mut Transaction, i64) -> Result<bool, TxnError>,
    ) -> Result<Stored, TxnError> {
        check_id(id)?;
        let changed = self.find(id, |_, entry| self.change_entry(entry, act));
        let stored = changed.unwrap_or(Err(TxnError::InvalidProducerIdMapping))?;
        Ok(stored.unwrap_or_else(|| self.behind_others()))
    }

    /// Lets the transaction decide; what it changed is queued, and its timeout begins if it has begun.
    fn change_entry(
        &self,
        entry: &mut Entry,
        act: impl FnOnce(&mut Transaction, i64) -> Result<bool, TxnError>,
    ) -> Result<Option<Stored>, TxnError> {
        let was_open = entry.transaction.state() == State::Ongoing;
        if !act(&mut entry.transaction, self.clock.now_ms())? {
            return Ok(None);
        }
        if !was_open {
            self.arm(entry);
        }
        Ok(Some(self.store(entry)))
    }
}
