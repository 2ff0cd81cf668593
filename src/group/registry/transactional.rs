//! Offsets that transactions commit: pending until their transaction ends, and then changed together with all that it
//! did. Called by the transaction coordinator under the lock of the transactional id, which comes before a group's.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::committed::put_changes;
use super::{CommitRequest, Entry, Groups, Shared, check_group_id, durable};
use crate::group::offsets::{CommittedOffset, InFlight, PendingKey};
use crate::group::{GroupError, OffsetToCommit, PENDING_OFFSETS_MAX};
use crate::store::{Batch, Family, StoreError};

/// Pending offsets on their way to the store.
pub struct QueuedCommit {
    answers: Vec<Result<(), GroupError>>,
    stored: Option<super::Stored>,
}

impl QueuedCommit {
    /// One answer for each offset of the request, in their order, once they are durable.
    pub async fn answers(self) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if let Some(stored) = self.stored {
            durable(stored).await?;
        }
        Ok(self.answers)
    }
}

impl Groups {
    /// Queues offsets that the producer's open transaction is to commit. As with other commits, a group that does not
    /// exist comes into being if the producer does not speak for a member.
    pub fn commit_in_transaction(
        self: &Arc<Self>,
        group_id: &str,
        producer_id: i64,
        request: CommitRequest,
    ) -> Result<QueuedCommit, GroupError> {
        check_group_id(group_id)?;
        let generation = request.generation;
        let commit = |shared: &_, entry: &mut Entry| {
            let queued = self.queue_pending(shared, entry, producer_id, request);
            self.drop_if_blank(shared, entry);
            queued
        };
        if generation < 0 {
            self.find_or_create(group_id, commit)?
        } else {
            self.find(group_id, commit).ok_or(GroupError::IllegalGeneration)?
        }
    }

    fn queue_pending(
        self: &Arc<Self>,
        shared: &Shared,
        entry: &mut Entry,
        producer_id: i64,
        request: CommitRequest,
    ) -> Result<QueuedCommit, GroupError> {
        let CommitRequest { member_id, group_instance_id, generation, offsets, .. } = request;
        entry.group.check_transactional_commit(&member_id, group_instance_id.as_deref(), generation)?;
        if entry.offsets.pending_count() + offsets.len() > PENDING_OFFSETS_MAX {
            return Err(GroupError::InvalidCommitOffsetSize);
        }
        let commit_ms = self.clock.now_ms();
        let mut batch = Batch::default();
        let answers = offsets
            .into_iter()
            .map(|asked| {
                if self.is_too_large(&asked.metadata) {
                    return Err(GroupError::OffsetMetadataTooLarge);
                }
                let OffsetToCommit { topic, partition, offset, leader_epoch, metadata } = asked;
                let key = PendingKey { topic, partition, producer_id };
                let committed = CommittedOffset { offset, leader_epoch, metadata, commit_ms, expire_ms: None };
                let pending = entry.offsets.add_pending(&key, committed);
                batch.put(Family::Meta, key.encode(&entry.id), pending.encode());
                Ok(())
            })
            .collect();
        let stored = (!batch.is_empty()).then(|| self.commit(shared, batch, |_, _, _, _| ()));
        Ok(QueuedCommit { answers, stored })
    }

    /// Ends the producer's transaction in `group_ids`: adds what that changes to `batch`, has `queue` queue it, and tells
    /// what the store answers once the groups show it. The groups are locked meanwhile, so that the store gets this in the
    /// order in which they decided.
    pub fn end_transaction(
        self: &Arc<Self>,
        producer_id: i64,
        commit: bool,
        group_ids: &BTreeSet<String>,
        mut batch: Batch,
        queue: impl FnOnce(Batch) -> oneshot::Receiver<Result<(), StoreError>>,
    ) -> JoinHandle<Result<(), StoreError>> {
        let groups = self.existing(group_ids);
        let mut locked: Vec<MutexGuard<Entry>> = groups.iter().map(|group| group.lock()).collect();
        let mut ended: Vec<InFlight> = Vec::with_capacity(locked.len());
        for entry in &mut locked {
            let in_flight = entry.offsets.end_transaction(producer_id, commit);
            put_changes(&mut batch, &entry.id, &in_flight);
            ended.push(in_flight);
        }
        let answer = queue(batch);
        drop(locked);
        let this = self.clone();
        tokio::spawn(async move {
            let outcome = answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the store has stopped".into())));
            for (shared, in_flight) in groups.iter().zip(ended) {
                let mut entry = shared.lock();
                entry.offsets.finish(in_flight, outcome.is_ok());
                entry.settled.notify_waiters();
                this.drop_if_blank(shared, &mut entry);
            }
            outcome
        })
    }

    /// Those of the groups that are there, by ascending id. One that is deleted right after this has taken its pending
    /// offsets with it; none is made anew with some of this transaction's, whose id the caller has locked.
    fn existing(&self, group_ids: &BTreeSet<String>) -> Vec<Shared> {
        group_ids.iter().filter_map(|group_id| self.groups.get(group_id.as_str()).map(|group| group.clone())).collect()
    }
}
