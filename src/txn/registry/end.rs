//! How a transaction ends: markers in its partitions, the offsets of its groups and its new state, in one commit.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Entry, Shared, Transactions, check_id};
use crate::broker::{self, Stream};
use crate::model::ids::PartitionIndex;
use crate::store::keys::Key;
use crate::store::{Batch, Family, StoreError};
use crate::txn::TxnError;
use crate::txn::state::{End, EndRules, Ending, Partitions, ProducerEpoch};
use crate::txn::stored;

/// Of the one coordinator that there is. Kafka counts how often a partition of its transaction log has changed hands.
const COORDINATOR_EPOCH: i32 = 0;

/// How transactions end, for the metrics.
pub(super) const COMMIT: &str = "commit";
pub(super) const ABORT: &str = "abort";
pub(super) const TIMEOUT: &str = "timeout";

/// Where [`Transactions::end`] stands.
enum Step {
    Ended(ProducerEpoch),
    Ending(ProducerEpoch, JoinHandle<Result<(), TxnError>>),
    NeedsProducerId,
}

impl Transactions {
    /// Commits or aborts the producer's transaction. Answers, once it has ended, with the pair to go on with.
    pub async fn end(
        self: &Arc<Self>,
        id: &str,
        producer: ProducerEpoch,
        commit: bool,
        rules: EndRules,
    ) -> Result<ProducerEpoch, TxnError> {
        check_id(id)?;
        let mut fresh_id = None;
        loop {
            let step = self.find(id, |shared, entry| {
                Ok(match entry.transaction.end(producer, commit, rules, fresh_id, self.clock.now_ms())? {
                    End::Already(producer) => Step::Ended(producer),
                    End::Begun(ending) => {
                        let after = ending.after.producer();
                        let how = if commit { COMMIT } else { ABORT };
                        Step::Ending(after, self.run_end(shared, entry, *ending, how))
                    }
                    End::NeedsProducerId => Step::NeedsProducerId,
                })
            });
            match step.unwrap_or(Err(TxnError::InvalidProducerIdMapping))? {
                Step::Ended(producer) => return Ok(producer),
                Step::Ending(after, ended) => {
                    ended.await.unwrap_or(Err(TxnError::CoordinatorNotAvailable))?;
                    return Ok(after);
                }
                Step::NeedsProducerId => fresh_id = Some(self.new_producer_id().await?),
            }
        }
    }

    /// The transaction has been open for as long as its producer wished at most.
    pub(super) fn time_out(self: &Arc<Self>, shared: &Shared, entry: &mut Entry) {
        let Some(ending) = entry.transaction.fence(self.clock.now_ms()) else { return };
        tracing::info!(transactional_id = &*entry.id, "aborting a transaction that has timed out");
        // Finished by a task of its own.
        drop(self.run_end(shared, entry, ending, TIMEOUT));
    }

    /// Queues an end that has begun. It is finished by a task of its own, so that it does not matter whether the client
    /// that asked for it is still there. `how` is for the metrics.
    pub(super) fn run_end(
        self: &Arc<Self>,
        shared: &Shared,
        entry: &mut Entry,
        ending: Ending,
        how: &'static str,
    ) -> JoinHandle<Result<(), TxnError>> {
        entry.deadline = None;
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::Transaction(&entry.id).encode(), stored::encode(&ending.after));
        let end = self.end_of(ending.marker, ending.commit, COORDINATOR_EPOCH, self.existing(&ending.partitions));
        let queue = |batch| self.broker.end_transaction(end, batch);
        // Offsets are pending in the name of the producer id that wrote them, which is the markers' one.
        let producer_id = ending.marker.producer_id;
        let ended = self.groups.end_transaction(producer_id, ending.commit, &ending.groups, batch, queue);
        let (shared, metrics) = (shared.clone(), self.broker.metrics().clone());
        let took_ms = entry.transaction.start_ms.map_or(0, |start_ms| self.clock.now_ms().saturating_sub(start_ms));
        tokio::spawn(async move {
            let outcome = ended.await.unwrap_or_else(|_| Err(StoreError::Unknown("the task has ended".into())));
            let mut entry = shared.lock();
            if let Err(error) = &outcome {
                tracing::warn!(transactional_id = &*entry.id, %error, "a transaction could not be ended");
            }
            // An abort of nothing only asks for a new epoch.
            if outcome.is_ok() && !(ending.partitions.is_empty() && ending.groups.is_empty()) {
                metrics.transaction_ended(how, took_ms);
            }
            entry.transaction.finish(ending, outcome.is_ok());
            outcome.map_err(|_| TxnError::CoordinatorNotAvailable)
        })
    }

    /// Writes a marker into one partition for an operator, whatever the coordinator knows of the transaction.
    pub fn write_marker(
        &self,
        producer: ProducerEpoch,
        commit: bool,
        coordinator_epoch: i32,
        partition: (Arc<Stream>, PartitionIndex),
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let end = self.end_of(producer, commit, coordinator_epoch, vec![partition]);
        self.broker.end_transaction(end, Batch::default())
    }

    fn end_of(
        &self,
        marker: ProducerEpoch,
        commit: bool,
        coordinator_epoch: i32,
        partitions: Vec<(Arc<Stream>, PartitionIndex)>,
    ) -> broker::End {
        let ProducerEpoch { producer_id, epoch } = marker;
        broker::End { producer_id, producer_epoch: epoch, coordinator_epoch, commit, partitions }
    }

    /// Those of the partitions that are still there.
    fn existing(&self, partitions: &Partitions) -> Vec<(Arc<Stream>, PartitionIndex)> {
        let mut existing = Vec::new();
        for (topic_id, indexes) in partitions {
            let Some(stream) = self.broker.stream_by_topic_id(*topic_id) else { continue };
            existing.extend(indexes.iter().map(|index| (stream.clone(), PartitionIndex(*index))));
        }
        existing
    }
}
