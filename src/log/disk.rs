//! Batches as they lie in the store, some of them sealed: found, counted and moved without a key, opened for readers.
//!
//! Used by whoever reads the store: `partition` for readers, `recover`, and `broker` when it moves segments.

use bytes::Bytes;

use crate::log::partition::ReadError;
use crate::log::segment::Segment;
use crate::log::tail::StoredBatch;
use crate::model::batch::Header;
use crate::model::ids::{Offset, PartitionId};
use crate::store::crypt::{KeyError, KeyRing, Place, data};
use crate::store::keys::{BatchHeader, Key, parse_batch_key};
use crate::store::{Family, Page, Scan, Start, Store, StoreError};

/// Batches read from the store in one page.
const SCAN_ENTRIES_MAX: usize = 4_096;

#[derive(Clone, Debug)]
pub struct DiskBatch {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// [`BatchHeader`], then the record batch, sealed or not: either way its header can be read.
    pub value: Bytes,
    pub header: Header,
    pub stored: BatchHeader,
}

impl DiskBatch {
    /// An entry of the log family.
    pub fn parse(key: &[u8], value: Bytes) -> Result<DiskBatch, StoreError> {
        let (_, _, base_offset) =
            parse_batch_key(key).ok_or_else(|| StoreError::Corrupt(format!("a record batch under key {key:02x?}")))?;
        DiskBatch::at(base_offset, value)
    }

    /// A value that lies, or is to lie, at `base_offset`.
    pub fn at(base_offset: Offset, value: Bytes) -> Result<DiskBatch, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("a record batch at offset {base_offset}"));
        let stored = BatchHeader::parse(&value).ok_or_else(corrupt)?;
        let header = Header::parse(&value[BatchHeader::LEN..]).map_err(|_| corrupt())?;
        let last_offset = base_offset + Offset::from(header.last_offset_delta);
        let batch = DiskBatch { base_offset, last_offset, value, header, stored };
        // A cut batch, or one whose flag was lost, must not pass for an open one.
        if batch.batch_len() != batch.header.total_len() { Err(corrupt()) } else { Ok(batch) }
    }

    /// Bytes of the record batch when it is open.
    pub fn batch_len(&self) -> usize {
        let overhead = if self.stored.sealed_by.is_some() { data::OVERHEAD } else { 0 };
        self.value.len().saturating_sub(BatchHeader::LEN + overhead)
    }

    /// For a reader.
    pub fn open(self, keys: &KeyRing, partition: PartitionId) -> Result<StoredBatch, ReadError> {
        let DiskBatch { base_offset, last_offset, value, stored, .. } = self;
        let value = match stored.sealed_by {
            None => value,
            Some(number) => match keys.data_key(partition.stream, number) {
                Ok(key) => key.open(Place { partition, base_offset }, value)?,
                // Keys go with their stream, so a number without a key was never written.
                Err(lost @ KeyError::Lost(_)) => return Err(StoreError::Corrupt(lost.to_string()).into()),
                Err(error) => return Err(error.into()),
            },
        };
        Ok(StoredBatch { base_offset, last_offset, value })
    }
}

/// One that is not sealed.
impl From<DiskBatch> for StoredBatch {
    fn from(batch: DiskBatch) -> StoredBatch {
        let DiskBatch { base_offset, last_offset, value, .. } = batch;
        StoredBatch { base_offset, last_offset, value }
    }
}

/// Some batches of a segment.
pub struct DiskPage {
    pub batches: Vec<DiskBatch>,
    /// The next one, where it was read and is too large for the page.
    pub beyond: Option<DiskBatch>,
}

/// The batches of `segment` from the one that holds `offset` on, or else the next one, a page of them. What is no batch ends
/// the page, and is an error where the page would begin with it.
pub fn scan_segment(
    store: &dyn Store,
    partition: PartitionId,
    segment: &Segment,
    offset: Offset,
    end: Offset,
    bytes_max: usize,
) -> Result<DiskPage, StoreError> {
    let key = |base_offset| Key::Batch { epoch: segment.epoch, partition, base_offset }.encode();
    let scan = |start| {
        store.scan(&Scan {
            family: Family::Log,
            start,
            end: key(segment.end_offset.min(end)),
            entries_max: SCAN_ENTRIES_MAX,
            bytes_max: bytes_max.max(1),
        })
    };
    let page = scan(Start::AtOrBefore { key: key(offset), floor: key(segment.first_offset) })?;
    let more = page.more;
    let found = batches_from(page, offset)?;
    match found.batches.is_empty() && more {
        // Where compaction has left nothing at `offset`, all that fitted into the page lies before it.
        true => batches_from(scan(Start::At(key(offset)))?, offset),
        false => Ok(found),
    }
}

fn batches_from(page: Page, offset: Offset) -> Result<DiskPage, StoreError> {
    let mut batches = Vec::with_capacity(page.entries.len());
    for (key, value) in page.entries {
        match DiskBatch::parse(&key, value) {
            Ok(batch) if batch.last_offset < offset => {}
            Ok(batch) => batches.push(batch),
            Err(error) if batches.is_empty() => return Err(error),
            Err(_) => return Ok(DiskPage { batches, beyond: None }),
        }
    }
    let beyond = page.beyond.and_then(|(key, value)| DiskBatch::parse(&key, value).ok());
    Ok(DiskPage { batches, beyond })
}
