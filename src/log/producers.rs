//! Idempotent producers of one partition: which sequence numbers come next, which batches are there already, and who is
//! in a transaction.
//!
//! The log asks [`Producers::check`] and [`Producers::check_transaction`] before it appends a client's batch and tells
//! [`Producers::record`], [`Producers::begin`] and [`Producers::mark`] what it appended, live and when it recovers. Pure:
//! time comes in as an argument, bytes go out and in by [`Producers::encode`] and [`Producers::decode`].
//!
//! Invariants:
//! - An entry has at most [`BATCHES_KEPT`] batches, all of its one epoch, oldest first; none if only a marker has told of
//!   that epoch, which then begins at sequence 0, unless what stood before the marker may have been trimmed away.
//! - Epochs never go back: a marker of a newer one fences whoever writes with the one before.
//! - Who is in a transaction is neither evicted nor expired, and there are never more than [`TRANSACTIONS_MAX`] of them.
//! - The same records in the same order give the same state, from any snapshot on.
//! - Never more than [`PRODUCERS_MAX`] producers; the idlest go first. A producer that is unknown, or no longer known,
//!   may begin with any sequence, as in Kafka 4 (no UNKNOWN_PRODUCER_ID is ever answered).
//!
//! Snapshot, big-endian:
//!
//! | field | width |
//! |---|---|
//! | version: 2 | u8 |
//! | producers | u32 |
//! | then of each, in ascending order of ids: | |
//! | producer id | i64 |
//! | producer epoch | i16 |
//! | last append, milliseconds | i64 |
//! | epoch of the coordinator that ended its last transaction; -1: none | i32 |
//! | in a transaction: 0 or 1; 2: it is not, and may go on with any sequence | u8 |
//! | where that begins; -1 in another partition's log; only where there is one | i64 |
//! | batches: 0 to 5 | u8 |
//! | then of each, oldest first: | |
//! | first sequence, last sequence | i32, i32 |
//! | first offset, last offset; -1 where it stands in another partition's log | i64, i64 |
//! | append time, milliseconds | i64 |
//!
//! Version 1 knew no transactions: of a producer it has the id, the epoch and 1 to 5 batches.
//!
//! Source: KIP-98, KIP-360, KIP-890; Kafka's producer state management.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};

use crate::model::batch::Marker;
use crate::model::ids::Offset;

/// How many of a producer's last batches are recognised when they come again: what a client may have in flight.
pub const BATCHES_KEPT: usize = 5;

/// How many producers a partition remembers. Clients that open a producer for every message make a new id each time.
pub const PRODUCERS_MAX: usize = 16_384;

/// The part of the producers, counted from the idlest, that makes room for new ones at once.
const EVICTED_AT_ONCE: usize = PRODUCERS_MAX / 16;

/// How many of a partition's producers may be in a transaction: none of them can make room for others.
pub const TRANSACTIONS_MAX: usize = PRODUCERS_MAX / 2;

const SNAPSHOT_VERSION: u8 = 2;
/// Without transactions.
const FIRST_VERSION: u8 = 1;
const PRODUCER_LEN: usize = 8 + 2 + 8 + 4 + 1 + 8 + 1;
const BATCH_LEN: usize = 4 + 4 + 8 + 8 + 8;

/// The offset of a batch that stands in another partition's log: this one was dormant when it came.
pub const ELSEWHERE: Offset = -1;

/// The coordinator's epoch where none has ended a transaction.
pub const NO_COORDINATOR: i32 = -1;

/// The last sequence where there is none: 0 comes next.
const NO_SEQUENCE: i32 = -1;

/// A batch that a producer has appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    pub first_sequence: i32,
    pub last_sequence: i32,
    /// Or [`ELSEWHERE`].
    pub first_offset: Offset,
    pub last_offset: Offset,
    pub append_time_ms: i64,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    producer_epoch: i16,
    kept: [Appended; BATCHES_KEPT],
    /// How many of `kept` are set.
    len: usize,
    /// Of a batch or a marker.
    last_append_ms: i64,
    coordinator_epoch: i32,
    /// Where its transaction begins, or [`ELSEWHERE`].
    transaction: Option<Offset>,
    /// Known by a marker alone that was found when the log was recovered: the batches before it may have been trimmed away.
    has_lost_batches: bool,
}

impl Entry {
    fn new(producer_epoch: i16) -> Entry {
        Entry {
            producer_epoch,
            kept: Default::default(),
            len: 0,
            last_append_ms: 0,
            coordinator_epoch: NO_COORDINATOR,
            transaction: None,
            has_lost_batches: false,
        }
    }

    /// Sequences begin anew.
    fn begin_epoch(&mut self, producer_epoch: i16) {
        self.producer_epoch = producer_epoch;
        (self.kept, self.len) = Default::default();
        self.has_lost_batches = false;
    }

    fn push(&mut self, appended: Appended) {
        self.last_append_ms = appended.append_time_ms;
        self.has_lost_batches = false;
        if self.len == BATCHES_KEPT {
            self.kept.rotate_left(1);
            self.len -= 1;
        }
        if let Some(slot) = self.kept.get_mut(self.len) {
            *slot = appended;
            self.len += 1;
        }
    }

    pub fn producer_epoch(&self) -> i16 {
        self.producer_epoch
    }

    /// It is in a transaction of which no batch is known: they were trimmed away, and a crash came before the next
    /// snapshot. Like a producer that is unknown it may go on with any sequence.
    fn has_lost_sequences(&self) -> bool {
        self.len == 0 && self.transaction.is_some()
    }

    /// The batches kept, oldest first.
    pub fn batches(&self) -> &[Appended] {
        self.kept.get(..self.len).unwrap_or_default()
    }

    /// Of the newest batch; -1 where none of this epoch is known.
    pub fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(NO_SEQUENCE, |last| last.last_sequence)
    }

    /// When the newest batch or marker was appended.
    pub fn last_append_ms(&self) -> i64 {
        self.last_append_ms
    }

    /// Of the coordinator that ended the last transaction, or [`NO_COORDINATOR`].
    pub fn coordinator_epoch(&self) -> i32 {
        self.coordinator_epoch
    }

    /// Where its open transaction begins, or [`ELSEWHERE`] in another partition's log.
    pub fn transaction(&self) -> Option<Offset> {
        self.transaction
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It comes next.
    Append,
    /// It is there already: answer as if it had just been appended. No offset where it stands in another's log.
    Duplicate { base_offset: Option<Offset>, append_time_ms: i64 },
}

/// Why a batch may not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER. `last_sequence` is of the producer's current epoch.
    #[error(
        "sequence {base_sequence} of producer {producer_id} (epoch {producer_epoch}) does not follow {last_sequence} \
         (epoch {last_epoch})"
    )]
    OutOfOrderSequence {
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        last_epoch: i16,
        last_sequence: i32,
    },
    /// INVALID_PRODUCER_EPOCH: a newer instance of the producer has written, this one is fenced.
    #[error("epoch {producer_epoch} of producer {producer_id} is fenced by epoch {current_epoch}")]
    InvalidProducerEpoch { producer_id: i64, producer_epoch: i16, current_epoch: i16 },
    /// INVALID_TXN_STATE: what it writes must be part of its transaction until that is ended.
    #[error("producer {producer_id} is in a transaction, the batch is not")]
    OutsideTransaction { producer_id: i64 },
    /// It may be sent again, when others have ended theirs.
    #[error("{TRANSACTIONS_MAX} producers are in a transaction already")]
    TooManyTransactions,
}

/// A snapshot that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("producer snapshot version {0} is unknown")]
    Version(u8),
    #[error("the producer snapshot is cut")]
    Cut,
    #[error("the producer snapshot has {0} bytes too many")]
    TooLong(usize),
    #[error("the producer snapshot is not sound at producer {0}")]
    Unsound(i64),
}

/// The sequence `steps` after `sequence`: after `i32::MAX` comes 0.
pub fn sequence_after(sequence: i32, steps: i32) -> i32 {
    const SEQUENCES: i64 = i32::MAX as i64 + 1;
    // Lies in 0..SEQUENCES, so nothing is lost.
    (i64::from(sequence) + i64::from(steps)).rem_euclid(SEQUENCES) as i32
}

/// The idempotent producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, Entry>,
    /// How many of them are in a transaction.
    transactions: usize,
}

impl Producers {
    /// Whether a client's batch with a producer id comes next. Changes nothing. The batch has been validated: its
    /// sequence is not negative and it has at least one record.
    pub fn check(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        records_count: i32,
    ) -> Result<Check, SequenceError> {
        let Some(entry) = self.entries.get(&producer_id) else {
            return Ok(Check::Append);
        };
        let last_sequence = entry.last_sequence();
        if producer_epoch == entry.producer_epoch {
            if entry.has_lost_sequences() || entry.has_lost_batches {
                return Ok(Check::Append);
            }
            let last = sequence_after(base_sequence, records_count.saturating_sub(1));
            let again = |batch: &&Appended| batch.first_sequence == base_sequence && batch.last_sequence == last;
            if let Some(batch) = entry.batches().iter().find(again) {
                let Appended { first_offset, append_time_ms, .. } = *batch;
                let base_offset = (first_offset != ELSEWHERE).then_some(first_offset);
                return Ok(Check::Duplicate { base_offset, append_time_ms });
            }
        }
        if producer_epoch < entry.producer_epoch {
            let current_epoch = entry.producer_epoch;
            return Err(SequenceError::InvalidProducerEpoch { producer_id, producer_epoch, current_epoch });
        }
        // Where nothing is known of the epoch, that is 0 as well.
        let expected = if producer_epoch == entry.producer_epoch { sequence_after(last_sequence, 1) } else { 0 };
        if base_sequence != expected {
            return Err(SequenceError::OutOfOrderSequence {
                producer_id,
                producer_epoch,
                base_sequence,
                last_epoch: entry.producer_epoch,
                last_sequence,
            });
        }
        Ok(Check::Append)
    }

    /// Whether a client's batch that comes next may do so inside of a transaction, or outside of any. Changes nothing.
    pub fn check_transaction(&self, producer_id: i64, transactional: bool) -> Result<(), SequenceError> {
        let is_in_one = self.entries.get(&producer_id).is_some_and(|entry| entry.transaction.is_some());
        match (is_in_one, transactional) {
            (true, false) => Err(SequenceError::OutsideTransaction { producer_id }),
            (false, true) if self.transactions >= TRANSACTIONS_MAX => Err(SequenceError::TooManyTransactions),
            (true, true) | (false, _) => Ok(()),
        }
    }

    /// Notes a batch that has been appended (or is found in the log while recovering): what is in the log is true.
    pub fn record(&mut self, producer_id: i64, producer_epoch: i16, appended: Appended) {
        let entry = self.entry(producer_id, producer_epoch);
        if entry.producer_epoch != producer_epoch {
            entry.begin_epoch(producer_epoch);
        }
        entry.push(appended);
    }

    /// Notes that the batch recorded last is part of the producer's transaction, which begins with it if it is not open
    /// yet: at `first_offset`, or [`ELSEWHERE`].
    pub fn begin(&mut self, producer_id: i64, first_offset: Offset) {
        let Some(entry) = self.entries.get_mut(&producer_id) else { return };
        if entry.transaction.is_none() {
            entry.transaction = Some(first_offset);
            self.transactions += 1;
        }
    }

    /// Notes a marker: the producer's transaction is over, and whoever writes with an older epoch is fenced, whether it
    /// has written here before or not.
    pub fn mark(&mut self, marker: &Marker, append_ms: i64) {
        let entry = self.entry(marker.producer_id, marker.producer_epoch);
        if marker.producer_epoch > entry.producer_epoch {
            entry.begin_epoch(marker.producer_epoch);
        } else if entry.has_lost_sequences() {
            // Its epoch goes on behind the marker, and with it sequences that nobody knows.
            self.entries.remove(&marker.producer_id);
            self.transactions -= 1;
            return;
        }
        entry.coordinator_epoch = entry.coordinator_epoch.max(marker.coordinator_epoch);
        entry.last_append_ms = append_ms;
        if entry.transaction.take().is_some() {
            self.transactions -= 1;
        }
    }

    /// The same of a marker that is found when the log is recovered. What its producer wrote before may have been trimmed
    /// away: where nothing else is known of it, it may go on with any sequence, as one that is unknown.
    pub fn mark_found(&mut self, marker: &Marker, append_ms: i64) {
        let is_unknown = !self.entries.contains_key(&marker.producer_id);
        self.mark(marker, append_ms);
        if let Some(entry) = self.entries.get_mut(&marker.producer_id).filter(|_| is_unknown) {
            entry.has_lost_batches = true;
        }
    }

    /// Those in a transaction are exactly the ones that logs know to be: `is_open` says so of a producer in any log of the
    /// stream. What was trimmed away with a log's beginning is not seen when it is recovered.
    pub fn reconcile(&mut self, is_open: impl Fn(i64) -> bool) {
        for (id, entry) in &mut self.entries {
            if entry.transaction.is_some() && !is_open(*id) {
                entry.transaction = None;
                self.transactions -= 1;
            }
        }
    }

    /// A log knows the producer to be in a transaction with what it has written to this partition.
    pub fn restore_open(&mut self, producer_id: i64, producer_epoch: i16, first_offset: Offset) {
        self.entry(producer_id, producer_epoch);
        self.begin(producer_id, first_offset);
    }

    fn entry(&mut self, producer_id: i64, producer_epoch: i16) -> &mut Entry {
        if self.entries.len() >= PRODUCERS_MAX && !self.entries.contains_key(&producer_id) {
            self.evict();
        }
        self.entries.entry(producer_id).or_insert_with(|| Entry::new(producer_epoch))
    }

    /// Forgets the producers that have been idle for longest and are in no transaction. By last append, then by id, so that
    /// a replay forgets the same ones.
    fn evict(&mut self) {
        let idle = self.entries.iter().filter(|(_, entry)| entry.transaction.is_none());
        let mut idlest: Vec<_> = idle.map(|(id, entry)| (entry.last_append_ms, *id)).collect();
        idlest.sort_unstable();
        for (_, id) in idlest.into_iter().take(EVICTED_AT_ONCE) {
            self.entries.remove(&id);
        }
    }

    /// Forgets the producers whose last append was at `before_ms` or earlier (`producer.id.expiration.ms` ago) and that are
    /// in no transaction. Returns how many.
    pub fn expire(&mut self, before_ms: i64) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.transaction.is_some() || entry.last_append_ms > before_ms);
        before - self.entries.len()
    }

    pub fn get(&self, producer_id: i64) -> Option<&Entry> {
        self.entries.get(&producer_id)
    }

    /// All producers by ascending id (DescribeProducers).
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The snapshot, as the table above lays it out.
    pub fn encode(&self) -> Bytes {
        let batches: usize = self.entries.values().map(|entry| entry.len).sum();
        let mut out = Vec::with_capacity(1 + 4 + self.entries.len() * PRODUCER_LEN + batches * BATCH_LEN);
        out.put_u8(SNAPSHOT_VERSION);
        // Never more than PRODUCERS_MAX.
        out.put_u32(self.entries.len() as u32);
        for (id, entry) in &self.entries {
            out.put_i64(*id);
            out.put_i16(entry.producer_epoch);
            out.put_i64(entry.last_append_ms);
            out.put_i32(entry.coordinator_epoch);
            out.put_u8(match entry.transaction {
                Some(_) => 1,
                None if entry.has_lost_batches => 2,
                None => 0,
            });
            entry.transaction.into_iter().for_each(|first_offset| out.put_i64(first_offset));
            out.put_u8(entry.len as u8);
            for batch in entry.batches() {
                out.put_i32(batch.first_sequence);
                out.put_i32(batch.last_sequence);
                out.put_i64(batch.first_offset);
                out.put_i64(batch.last_offset);
                out.put_i64(batch.append_time_ms);
            }
        }
        out.into()
    }

    /// Reads a snapshot. What it claims is bounded by the bytes that are there.
    pub fn decode(mut bytes: &[u8]) -> Result<Producers, SnapshotError> {
        let version = bytes.try_get_u8().map_err(cut)?;
        if version != SNAPSHOT_VERSION && version != FIRST_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let count = bytes.try_get_u32().map_err(cut)?;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let (id, entry) = decode_entry(version, &mut bytes)?;
            let ascending = entries.last_key_value().is_none_or(|(last, _)| *last < id);
            if !ascending || entries.len() == PRODUCERS_MAX {
                return Err(SnapshotError::Unsound(id));
            }
            entries.insert(id, entry);
        }
        let transactions = entries.values().filter(|entry| entry.transaction.is_some()).count();
        if bytes.is_empty() {
            Ok(Producers { entries, transactions })
        } else {
            Err(SnapshotError::TooLong(bytes.len()))
        }
    }
}

fn decode_entry(version: u8, bytes: &mut &[u8]) -> Result<(i64, Entry), SnapshotError> {
    let id = bytes.try_get_i64().map_err(cut)?;
    let mut entry = Entry::new(bytes.try_get_i16().map_err(cut)?);
    let mut last_append_ms = None;
    if version != FIRST_VERSION {
        last_append_ms = Some(bytes.try_get_i64().map_err(cut)?);
        entry.coordinator_epoch = bytes.try_get_i32().map_err(cut)?;
        entry.transaction = match bytes.try_get_u8().map_err(cut)? {
            0 => None,
            1 => Some(bytes.try_get_i64().map_err(cut)?),
            2 => {
                entry.has_lost_batches = true;
                None
            }
            _ => return Err(SnapshotError::Unsound(id)),
        };
    }
    let batches = usize::from(bytes.try_get_u8().map_err(cut)?);
    if batches > BATCHES_KEPT || (version == FIRST_VERSION && batches == 0) || (entry.has_lost_batches && batches > 0) {
        return Err(SnapshotError::Unsound(id));
    }
    for _ in 0..batches {
        entry.push(Appended {
            first_sequence: bytes.try_get_i32().map_err(cut)?,
            last_sequence: bytes.try_get_i32().map_err(cut)?,
            first_offset: bytes.try_get_i64().map_err(cut)?,
            last_offset: bytes.try_get_i64().map_err(cut)?,
            append_time_ms: bytes.try_get_i64().map_err(cut)?,
        });
    }
    entry.last_append_ms = last_append_ms.unwrap_or(entry.last_append_ms);
    let sound = |batch: &Appended| {
        batch.first_sequence >= 0 && batch.last_sequence >= 0 && batch.first_offset <= batch.last_offset
    };
    if entry.batches().iter().all(sound) { Ok((id, entry)) } else { Err(SnapshotError::Unsound(id)) }
}

fn cut(_: bytes::TryGetError) -> SnapshotError {
    SnapshotError::Cut
}

#[cfg(test)]
mod tests;
