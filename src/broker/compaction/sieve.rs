//! What stays of a compacted log, batch by batch. Pure, but for the keys that open and seal batches.
//!
//! The log is walked from its start on, each batch once: whether a transaction's marker is still needed is known from the
//! batches before it.

use std::collections::HashSet;

use bytes::Bytes;

use super::CompactionError;
use super::latest::Latest;
use crate::broker::space::Run;
use crate::log::disk::DiskBatch;
use crate::log::tail::StoredBatch;
use crate::log::transactions::Aborted;
use crate::model::batch::{self, BatchError, Filtered, Header, Record};
use crate::model::ids::{Offset, PartitionId};
use crate::store::crypt::{KeyRing, Place};
use crate::store::keys::BatchHeader;

/// Notes the records of `batches` from `from` on, those that were `aborted` apart; the offset of the one that did not fit,
/// if there is one.
pub fn note(
    mut latest: Latest,
    batches: &[StoredBatch],
    aborted: &[Aborted],
    from: Offset,
) -> Result<(Latest, Option<Offset>), BatchError> {
    for stored in batches {
        let batch = stored.batch();
        let header = Header::parse(&batch)?;
        if header.is_control() || is_aborted(&header, aborted) {
            continue;
        }
        for record in batch::records(&batch)? {
            let record = record?;
            let Some(key) = record.key.as_ref().filter(|_| record.offset >= from) else { continue };
            if !latest.note(key, record.offset) {
                return Ok((latest, Some(record.offset)));
            }
        }
    }
    Ok((latest, None))
}

fn is_aborted(header: &Header, aborted: &[Aborted]) -> bool {
    header.is_transactional()
        && !header.is_control()
        && aborted.iter().any(|aborted| aborted.holds(header.producer_id, header.base_offset))
}

/// What decides over each record.
pub struct Sieve {
    pub latest: Latest,
    /// Up to where `latest` knows; what stands behind stays.
    pub until: Offset,
    /// The batch that ends here stays in any case.
    pub end: Offset,
    /// What lies before is gone for readers.
    pub log_start: Offset,
    pub now_ms: i64,
    /// For tombstones that have none yet.
    pub horizon_ms: i64,
    /// For markers that have none yet.
    pub marker_horizon_ms: i64,
}

/// What is known behind the batches that were walked past.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// Producers of whose transaction something is left, up to its marker.
    in_transaction: HashSet<i64>,
    /// When the last tombstone or marker may go that was left.
    pub horizon_ms: Option<i64>,
}

/// What is left of a run.
pub struct Sifted {
    pub kept: Vec<DiskBatch>,
    pub markers_gone: Vec<Offset>,
    pub walk: Walk,
}

impl Sieve {
    pub fn sift(
        &self,
        mut walk: Walk,
        run: Run,
        aborted: &[Aborted],
        keys: &KeyRing,
        id: PartitionId,
    ) -> Result<Sifted, CompactionError> {
        let (mut kept, mut markers_gone) = (Vec::with_capacity(run.batches.len()), Vec::new());
        for batch in run.batches {
            let stored = batch.clone().open(keys, id)?;
            match self.judge(&mut walk, &stored, aborted)? {
                Filtered::Nothing if batch.header.is_control() => markers_gone.push(batch.base_offset),
                Filtered::Nothing => {}
                Filtered::Whole => kept.push(batch),
                Filtered::Part(left) => kept.push(replaced(&batch, &stored, &left, keys, id)?),
            }
        }
        Ok(Sifted { kept, markers_gone, walk })
    }

    /// Behind `batches`, if all of them stay as they are.
    pub fn walk_past(
        &self,
        mut walk: Walk,
        batches: &[StoredBatch],
        aborted: &[Aborted],
    ) -> Result<Option<Walk>, BatchError> {
        for stored in batches {
            if self.judge(&mut walk, stored, aborted)? != Filtered::Whole {
                return Ok(None);
            }
        }
        Ok(Some(walk))
    }

    fn judge(&self, walk: &mut Walk, stored: &StoredBatch, aborted: &[Aborted]) -> Result<Filtered, BatchError> {
        let batch = stored.batch();
        let header = Header::parse(&batch)?;
        if stored.base_offset >= self.until {
            return Ok(Filtered::Whole);
        }
        let filtered = match header.is_control() {
            true => self.judge_marker(walk, &batch, &header, stored.last_offset)?,
            false => self.judge_records(&batch, &header, stored.last_offset, aborted)?,
        };
        let left = match &filtered {
            Filtered::Nothing => return Ok(filtered),
            Filtered::Whole => header,
            Filtered::Part(left) => Header::parse(left)?,
        };
        if header.is_transactional() && !header.is_control() && left.records_count > 0 {
            walk.in_transaction.insert(header.producer_id);
        }
        walk.horizon_ms = walk.horizon_ms.max(left.delete_horizon_ms());
        Ok(filtered)
    }

    fn judge_marker(
        &self,
        walk: &mut Walk,
        batch: &Bytes,
        header: &Header,
        last_offset: Offset,
    ) -> Result<Filtered, BatchError> {
        let is_needed = walk.in_transaction.remove(&header.producer_id);
        if last_offset < self.log_start {
            return Ok(Filtered::Nothing);
        }
        if is_needed || last_offset + 1 >= self.end {
            return Ok(Filtered::Whole);
        }
        match header.delete_horizon_ms() {
            None => batch::with_delete_horizon(batch, self.marker_horizon_ms).map(Filtered::Part),
            Some(horizon_ms) if horizon_ms <= self.now_ms => Ok(Filtered::Nothing),
            Some(_) => Ok(Filtered::Whole),
        }
    }

    fn judge_records(
        &self,
        batch: &Bytes,
        header: &Header,
        last_offset: Offset,
        aborted: &[Aborted],
    ) -> Result<Filtered, BatchError> {
        let tombstones_go = header.delete_horizon_ms().is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
        let filtered = match is_aborted(header, aborted) {
            true => Filtered::Nothing,
            false => batch::filter(batch, self.horizon_ms, |record| self.keeps(record, tombstones_go))?,
        };
        match filtered {
            Filtered::Nothing if last_offset + 1 >= self.end => match header.records_count {
                0 => Ok(Filtered::Whole),
                _ => batch::emptied(batch).map(Filtered::Part),
            },
            filtered => Ok(filtered),
        }
    }

    fn keeps(&self, record: &Record, tombstones_go: bool) -> bool {
        if record.offset >= self.until {
            return true;
        }
        let Some(key) = &record.key else { return false };
        let is_over = record.offset < self.log_start || (tombstones_go && record.value.is_none());
        !is_over && !self.latest.supersedes(key, record.offset)
    }
}

/// `left` in the place of `batch`: appended when it was, and sealed as it was.
fn replaced(
    batch: &DiskBatch,
    stored: &StoredBatch,
    left: &[u8],
    keys: &KeyRing,
    id: PartitionId,
) -> Result<DiskBatch, CompactionError> {
    let head = stored.value.get(..BatchHeader::LEN).unwrap_or_default();
    let value = Bytes::from([head, left].concat());
    let value = match batch.stored.sealed_by {
        None => value,
        Some(number) => {
            let place = Place { partition: id, base_offset: batch.base_offset };
            keys.data_key(id.stream, number)?.seal(place, &value)?
        }
    };
    Ok(DiskBatch::at(batch.base_offset, value)?)
}
