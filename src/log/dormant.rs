//! What is addressed to a dormant partition: a producer may still send to it, and its batches go into the log of the
//! partition that absorbed it, its *holder*. The sequences of idempotent producers are kept by the partition that was
//! addressed, so that a producer notices neither that it falls asleep nor that it wakes. An awake partition is its own
//! holder.
//!
//! Recovery finds such batches in the holder's log by their header ([`BatchHeader::addressed`]). So that the order of a
//! producer's batches is that of one log, a partition's producers are snapshotted with every change of its holder, in
//! the commit that makes the change durable; what stands behind a snapshot is all of that holder's log.
//!
//! [`BatchHeader::addressed`]: crate::store::keys::BatchHeader

use std::sync::{Arc, Weak};

use bytes::{Buf, BufMut, Bytes};
use parking_lot::MutexGuard;

use crate::log::partition::{AppendError, AppendState, Appended, NewBatch, Partition, record_producer};
use crate::log::producers::Producers;
use crate::log::writer::Writer;
use crate::model::batch::{Header, Marker};
use crate::model::ids::{Offset, PartitionId, PartitionIndex};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// First byte of a snapshot of a partition whose batches go elsewhere. An offset never begins with it.
const ELSEWHERE: u8 = 1;

/// A partition whose holder changes: nothing is snapshotted until it is dropped.
pub struct Moving<'a> {
    _state: MutexGuard<'a, AppendState>,
}

impl Partition {
    /// Takes in a batch that is addressed to this partition, and queues it at the end of `holder`'s log, where
    /// [`Appended::Queued`] has its place. A dormant partition's lock is taken before its holder's; nobody takes them
    /// the other way round.
    pub fn append_elsewhere(
        &self,
        holder: &Arc<Partition>,
        writer: &Writer,
        new: NewBatch<'_>,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        if let Some(failure) = writer.failure() {
            return Err(failure.clone().into());
        }
        let header = Header::parse(new.bytes)?;
        let mut state = self.lock_append()?;
        if let Some(duplicate) = state.duplicate(&header)? {
            return Ok(duplicate);
        }
        let placed = holder.place(&mut *holder.lock_append()?, writer, &header, new, Some(self.id.index), now_ms)?;
        state.until = placed.base_offset + Offset::from(header.last_offset_delta) + 1;
        record_producer(&mut state.producers, &header, None, placed.append_ms);
        Ok(placed.into())
    }

    /// Writes a marker that is addressed to this partition at the end of `holder`'s log, and fences the producer here.
    pub fn append_marker_elsewhere(
        &self,
        holder: &Arc<Partition>,
        writer: &Writer,
        new: NewBatch<'_>,
        marker: &Marker,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let header = Header::parse(new.bytes)?;
        let mut state = self.lock_append()?;
        let placed = holder.place(&mut *holder.lock_append()?, writer, &header, new, Some(self.id.index), now_ms)?;
        state.until = placed.base_offset + 1;
        state.producers.mark(marker, placed.append_ms);
        Ok(())
    }

    /// From now on what is addressed to this partition goes to the log of `holder`, from `until` on. Adds to `commit`
    /// what is to be stored of it; the caller queues that before it drops what this returns, so that nothing which was
    /// known before is stored behind it. No append may be under way.
    pub fn move_to(&self, holder: PartitionIndex, until: Offset, commit: &mut Batch) -> Moving<'_> {
        let mut state = self.append.lock();
        (state.holder, state.until) = (holder, until);
        commit.put(Family::Meta, Key::Producers(self.id).encode(), encode_snapshot(self.id, &state, until));
        Moving { _state: state }
    }

    /// `guest`'s batches go to this partition's log from now on: its producers are snapshotted with this one's.
    pub fn take_in(&self, guest: &Arc<Partition>) {
        self.append.lock().guests.push(Arc::downgrade(guest));
    }

    pub fn let_go(&self, guest: &Arc<Partition>) {
        let guest = Arc::downgrade(guest);
        self.append.lock().guests.retain(|known| !known.ptr_eq(&guest));
    }

    /// Hands `submit` what is to be stored of the producers whose batches are in this log, each under its append lock,
    /// so that no append comes between.
    pub fn snapshot_producers(&self, mut submit: impl FnMut(Batch)) {
        let (next_offset, guests) = {
            let state = self.append.lock();
            (state.next_offset, state.guests.clone())
        };
        // Whatever a guest has not taken in by now will stand behind `next_offset`.
        for guest in guests.iter().filter_map(Weak::upgrade) {
            guest.snapshot(self.id.index, next_offset, &mut submit);
        }
        self.snapshot(self.id.index, next_offset, &mut submit);
    }

    fn snapshot(&self, holder: PartitionIndex, next_offset: Offset, submit: &mut impl FnMut(Batch)) {
        let state = self.append.lock();
        let idle = holder == self.id.index && state.producers.is_empty();
        if state.holder != holder || idle || self.is_deleted() {
            return;
        }
        let own = holder == self.id.index;
        let until = if own { state.next_offset } else { state.until.max(next_offset) };
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::Producers(self.id).encode(), encode_snapshot(self.id, &state, until));
        submit(batch);
    }
}

fn encode_snapshot(id: PartitionId, state: &AppendState, until: Offset) -> Bytes {
    Snapshot { holder: state.holder, until, producers: state.producers.encode() }.encode(id)
}

/// What is stored of a partition's producers, big-endian:
///
/// | field | width | |
/// |---|---|---|
/// | elsewhere | u8: 1 | these two only where the holder is another partition |
/// | holder | u32 | |
/// | until | i64 | batches in the holder's log from there on are not in it; its first byte is 0 |
/// | producers | the rest | `log::producers` |
pub struct Snapshot<P> {
    pub holder: PartitionIndex,
    pub until: Offset,
    pub producers: P,
}

impl Snapshot<Bytes> {
    pub fn encode(&self, of: PartitionId) -> Bytes {
        let mut out = Vec::with_capacity(13 + self.producers.len());
        if self.holder != of.index {
            out.put_u8(ELSEWHERE);
            out.put_u32(self.holder.0);
        }
        out.put_i64(self.until);
        out.put_slice(&self.producers);
        out.into()
    }
}

impl Snapshot<Producers> {
    pub fn decode(of: PartitionId, mut value: &[u8]) -> Option<Snapshot<Producers>> {
        let mut holder = of.index;
        if value.first() == Some(&ELSEWHERE) {
            value.advance(1);
            holder = PartitionIndex(value.try_get_u32().ok()?);
        }
        let until = value.try_get_i64().ok()?;
        Some(Snapshot { holder, until, producers: Producers::decode(value).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::StreamId;

    #[test]
    fn a_snapshot_reads_back_and_names_its_holder_where_that_is_another() {
        let of = PartitionId { stream: StreamId(3), index: PartitionIndex(5) };
        for (holder, len) in [(5, 13), (6, 18)] {
            let snapshot = Snapshot { holder: PartitionIndex(holder), until: 77, producers: Producers::default() };
            let bytes =
                Snapshot { holder: snapshot.holder, until: 77, producers: snapshot.producers.encode() }.encode(of);
            assert_eq!(bytes.len(), len);
            let read = Snapshot::decode(of, &bytes).unwrap();
            assert_eq!((read.holder.0, read.until, read.producers), (holder, 77, snapshot.producers));
            assert!((0..len).all(|cut| Snapshot::decode(of, &bytes[..cut]).is_none()));
        }
    }
}
