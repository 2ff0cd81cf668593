//! Batches in: each gets its place under the append lock, and is queued before that is released.
//!
//! What is known under the append lock runs ahead of what readers see: the next offset, the producers, the transactions
//! that are open. The writer publishes what follows from it when it has committed the batch.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::MutexGuard;
use tokio::sync::oneshot;

use super::Partition;
use crate::log::producers::{self, Check, ELSEWHERE, Producers, SequenceError, sequence_after};
use crate::log::tail::StoredBatch;
use crate::log::transactions::{Begun, Change, Open};
use crate::log::writer::{Append, Outcome, RollRules, Writer};
use crate::model::batch::{self, Header, Marker};
use crate::model::ids::{Offset, PartitionIndex};
use crate::store::StoreError;
use crate::store::crypt::{DataKey, Place};
use crate::store::keys::BatchHeader;

pub(in crate::log) struct AppendState {
    pub next_offset: Offset,
    pub(super) last_append_ms: i64,
    /// Of what is addressed to this partition.
    pub producers: Producers,
    /// The transactions that are open in this partition's log, whomever their batches were addressed to.
    pub open: Open,
    /// Whose log takes what is addressed to this partition: `log::dormant`.
    pub holder: PartitionIndex,
    /// Where it is another's log: `producers` knows what stands there before this.
    pub until: Offset,
    /// Whose holder this partition is, beside itself.
    pub guests: Vec<Weak<Partition>>,
}

impl AppendState {
    /// The answer to an idempotent producer's batch that has been appended already; it changes nothing, also where the
    /// transaction that the batch was part of is over.
    pub fn duplicate(&self, header: &Header) -> Result<Option<Appended>, SequenceError> {
        if header.producer_id < 0 {
            return Ok(None);
        }
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        match self.producers.check(id, epoch, sequence, header.records_count)? {
            Check::Append => {
                self.producers.check_transaction(id, header.is_transactional())?;
                Ok(None)
            }
            Check::Duplicate { base_offset, append_time_ms } => {
                Ok(Some(Appended::Duplicate { base_offset, append_ms: append_time_ms }))
            }
        }
    }

    /// What the batch at `base_offset` does to the transactions of this log.
    fn change(
        &mut self,
        header: &Header,
        marker: Option<&Marker>,
        base_offset: Offset,
        addressed: PartitionIndex,
    ) -> Option<Change> {
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        match marker {
            Some(marker) => self.open.end(producer_id, base_offset, marker.commit),
            None if header.is_transactional() => {
                self.open.write(producer_id, Begun { first_offset: base_offset, producer_epoch, addressed })
            }
            None => None,
        }
    }
}

/// A batch that was queued.
pub(in crate::log) struct Placed {
    pub base_offset: Offset,
    pub append_ms: i64,
    done: oneshot::Receiver<Outcome>,
}

impl From<Placed> for Appended {
    fn from(placed: Placed) -> Appended {
        let Placed { base_offset, append_ms, done } = placed;
        Appended::Queued { base_offset, append_ms, done }
    }
}

/// A validated batch and how it is to be stored.
#[derive(Clone, Copy)]
pub struct NewBatch<'a> {
    pub bytes: &'a [u8],
    /// What it says, if it ends a transaction.
    pub marker: Option<&'a Marker>,
    pub leader_epoch: i32,
    /// `message.timestamp.type=LogAppendTime`: the broker's clock replaces the records' timestamps.
    pub log_append_time: bool,
    pub roll: RollRules,
    /// What seals it on its way to the store.
    pub data_key: Option<&'a DataKey>,
}

pub enum Appended {
    Queued {
        base_offset: Offset,
        append_ms: i64,
        done: oneshot::Receiver<Outcome>,
    },
    /// An idempotent producer sent it again; it stands at `base_offset` already, or in another partition's log.
    Duplicate {
        base_offset: Option<Offset>,
        append_ms: i64,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error("the partition was deleted")]
    Deleted,
    #[error(transparent)]
    Batch(#[from] batch::BatchError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Partition {
    /// Gives the batch its offsets and queues it. The order of calls is the order of the log.
    pub fn append(self: &Arc<Self>, writer: &Writer, new: NewBatch<'_>, now_ms: i64) -> Result<Appended, AppendError> {
        if let Some(failure) = writer.failure() {
            return Err(failure.clone().into());
        }
        let header = Header::parse(new.bytes)?;
        let mut state = self.lock_append()?;
        if let Some(duplicate) = state.duplicate(&header)? {
            return Ok(duplicate);
        }
        let placed = self.place(&mut state, writer, &header, new, None, now_ms)?;
        record_producer(&mut state.producers, &header, Some(placed.base_offset), placed.append_ms);
        Ok(placed.into())
    }

    /// Writes a marker into this log. It also fences the producer here, if what is addressed to this partition goes to
    /// this log.
    pub fn append_marker(
        self: &Arc<Self>,
        writer: &Writer,
        new: NewBatch<'_>,
        marker: &Marker,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let header = Header::parse(new.bytes)?;
        let mut state = self.lock_append()?;
        let placed = self.place(&mut state, writer, &header, new, None, now_ms)?;
        if state.holder == self.id.index {
            state.producers.mark(marker, placed.append_ms);
        }
        Ok(())
    }

    /// Whether the producer has a transaction open in this log that has its place, committed or not.
    pub fn is_in_transaction(&self, producer_id: i64) -> bool {
        self.open_count.load(Ordering::Acquire) > 0 && self.append.lock().open.get(producer_id).is_some()
    }

    pub(in crate::log) fn lock_append(&self) -> Result<MutexGuard<'_, AppendState>, AppendError> {
        let state = self.append.lock();
        if self.is_deleted() { Err(AppendError::Deleted) } else { Ok(state) }
    }

    /// Puts the batch at the end of this log.
    pub(in crate::log) fn place(
        self: &Arc<Self>,
        state: &mut AppendState,
        writer: &Writer,
        header: &Header,
        new: NewBatch<'_>,
        addressed: Option<PartitionIndex>,
        now_ms: i64,
    ) -> Result<Placed, AppendError> {
        let base_offset = state.next_offset;
        let last_offset = base_offset + Offset::from(header.last_offset_delta);
        let append_ms = now_ms.max(state.last_append_ms);
        let log_append_time = new.log_append_time.then_some(append_ms);
        let mut prefix = [0; BatchHeader::LEN];
        BatchHeader { append_time_ms: append_ms, sealed_by: new.data_key.map(DataKey::number), addressed }
            .put(&mut &mut prefix[..]);
        let value = batch::assemble(&prefix, new.bytes, base_offset, new.leader_epoch, log_append_time);
        // Under the lock, as the place is part of what is sealed; other partitions go on meanwhile.
        let place = Place { partition: self.id, base_offset };
        let sealed = new.data_key.map(|key| key.seal(place, &value)).transpose()?;
        state.next_offset = last_offset + 1;
        state.last_append_ms = append_ms;
        let change = state.change(header, new.marker, base_offset, addressed.unwrap_or(self.id.index));
        self.open_count.store(state.open.len(), Ordering::Release);
        let (done, outcome) = oneshot::channel();
        writer.append(Append {
            partition: self.clone(),
            batch: StoredBatch { base_offset, last_offset, value },
            change,
            sealed,
            max_timestamp: log_append_time.unwrap_or(header.max_timestamp),
            append_ms,
            has_producer: header.producer_id >= 0,
            roll: new.roll,
            done,
        });
        Ok(Placed { base_offset, append_ms, done: outcome })
    }
}

/// Notes what an idempotent producer has appended, at `base_offset` or in another partition's log.
pub(in crate::log) fn record_producer(
    producers: &mut Producers,
    header: &Header,
    base_offset: Option<Offset>,
    append_ms: i64,
) {
    if header.producer_id < 0 {
        return;
    }
    let appended = producers::Appended {
        first_sequence: header.base_sequence,
        last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
        first_offset: base_offset.unwrap_or(ELSEWHERE),
        last_offset: base_offset.map_or(ELSEWHERE, |base_offset| base_offset + Offset::from(header.last_offset_delta)),
        append_time_ms: append_ms,
    };
    producers.record(header.producer_id, header.producer_epoch, appended);
    if header.is_transactional() {
        producers.begin(header.producer_id, appended.first_offset);
    }
}
