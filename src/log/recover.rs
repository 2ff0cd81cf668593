//! From what is stored to partitions that take appends. Called once, by `broker`, with the partitions that its
//! catalogue knows; what belongs to others (deleted streams) is passed over.
//!
//! After a clean stop every segment is closed and no batch is read. After a crash the newest epoch is: that is at most
//! what one memtable takes, and segments that were open in it get their summaries from it. Producers are taken from
//! their last snapshot and brought up to date from the batches behind it. Of a sealed batch the header tells enough, so
//! nothing here needs a key.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::log::disk::{DiskBatch, scan_segment};
use crate::log::partition::{Partition, encode_snapshot, put_segment, record_producer};
use crate::log::producers::Producers;
use crate::log::segment::Segment;
use crate::model::ids::{Offset, PartitionId, PartitionIndex, StreamId};
use crate::store::keys::{Key, parse_batch_key, prefix_range};
use crate::store::{Batch, Family, Scan, Start, Store, StoreError};

const PAGE_ENTRIES_MAX: usize = 4_096;
const PAGE_BYTES_MAX: usize = 8 << 20;

pub struct Recovered {
    pub partitions: HashMap<PartitionId, Arc<Partition>>,
    /// Nothing is written in it yet.
    pub epoch: u32,
}

#[derive(Default)]
struct Found {
    log_start: Offset,
    segments: Vec<Segment>,
    producers: Producers,
    /// Batches from here on are not in `producers`.
    producers_until: Offset,
}

pub fn recover(store: &dyn Store, known: &[PartitionId]) -> Result<Recovered, StoreError> {
    let mut found: HashMap<PartitionId, Found> = known.iter().map(|id| (*id, Found::default())).collect();
    load_index(store, &mut found)?;
    let last_epoch = match store.get(Family::Meta, &Key::Epoch.encode())? {
        Some(value) => u32::from_be_bytes(value[..].try_into().map_err(|_| corrupt("the epoch"))?),
        None => 0,
    };
    for (id, found) in &mut found {
        for segment in found.segments.clone().iter().filter(|segment| segment.closed) {
            replay_closed(store, *id, segment, found)?;
        }
    }
    if found.values().any(|found| found.segments.last().is_some_and(|last| !last.closed)) {
        replay_epoch(store, last_epoch, &mut found)?;
    }
    let epoch = last_epoch + 1;
    store.commit(&summaries(epoch, &mut found), false)?;
    let partitions = found
        .into_iter()
        .map(|(id, found)| (id, Arc::new(Partition::new(id, found.log_start, found.segments, found.producers))))
        .collect();
    Ok(Recovered { partitions, epoch })
}

/// Calls `each` for every entry of `Meta` whose key begins with `prefix`, in order.
pub fn for_each_meta(
    store: &dyn Store,
    prefix: &[u8],
    mut each: impl FnMut(Bytes, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (from, to) = prefix_range(prefix);
    for_each(store, Family::Meta, from, to, &mut each)
}

fn for_each(
    store: &dyn Store,
    family: Family,
    from: Bytes,
    to: Bytes,
    each: &mut impl FnMut(Bytes, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut start = from;
    loop {
        let page = store.scan(&Scan {
            family,
            start: Start::At(start),
            end: to.clone(),
            entries_max: PAGE_ENTRIES_MAX,
            bytes_max: PAGE_BYTES_MAX,
        })?;
        let Some((last, _)) = page.entries.last() else { return Ok(()) };
        // The smallest key after the last one.
        start = [last, &[0][..]].concat().into();
        for (key, value) in page.entries {
            each(key, value)?;
        }
        if !page.more {
            return Ok(());
        }
    }
}

fn load_index(store: &dyn Store, found: &mut HashMap<PartitionId, Found>) -> Result<(), StoreError> {
    for_each_meta(store, b"g", |key, value| {
        let first_offset = key.get(9..).and_then(be_i64).ok_or_else(|| corrupt("a segment's key"))?;
        if let Some(found) = partition_of(&key).and_then(|id| found.get_mut(&id)) {
            found.segments.push(Segment::decode(first_offset, &value).ok_or_else(|| corrupt("a segment"))?);
        }
        Ok(())
    })?;
    for_each_meta(store, b"l", |key, value| {
        if let Some(found) = partition_of(&key).and_then(|id| found.get_mut(&id)) {
            found.log_start = be_i64(&value).ok_or_else(|| corrupt("a log start"))?;
        }
        Ok(())
    })?;
    for_each_meta(store, b"p", |key, value| {
        if let Some(found) = partition_of(&key).and_then(|id| found.get_mut(&id)) {
            let (until, producers) = value.split_at_checked(8).ok_or_else(|| corrupt("producers"))?;
            found.producers_until = be_i64(until).ok_or_else(|| corrupt("producers"))?;
            found.producers = Producers::decode(producers).map_err(|_| corrupt("producers"))?;
        }
        Ok(())
    })
}

/// Brings the producers up to date from a closed segment that reaches beyond their snapshot.
fn replay_closed(store: &dyn Store, id: PartitionId, segment: &Segment, found: &mut Found) -> Result<(), StoreError> {
    if !segment.has_producers || segment.end_offset <= found.producers_until.max(found.log_start) {
        return Ok(());
    }
    let mut next = segment.first_offset.max(found.producers_until);
    while next < segment.end_offset {
        let page = scan_segment(store, id, segment, next, segment.end_offset, PAGE_BYTES_MAX)?;
        let Some(last) = page.last() else { break };
        next = last.last_offset + 1;
        for batch in &page {
            replay_producer(batch, found);
        }
    }
    Ok(())
}

/// Reads the newest epoch and takes its batches into the segments that were open.
fn replay_epoch(store: &dyn Store, epoch: u32, found: &mut HashMap<PartitionId, Found>) -> Result<(), StoreError> {
    let bound = |epoch: u32| Bytes::copy_from_slice(&epoch.to_be_bytes());
    for_each(store, Family::Log, bound(epoch), bound(epoch + 1), &mut |key, value| {
        let Some((_, id, base_offset)) = parse_batch_key(&key) else { return Err(corrupt("a batch's key")) };
        let Some(found) = found.get_mut(&id) else { return Ok(()) };
        let Some(open) = found.segments.last_mut().filter(|last| !last.closed) else { return Ok(()) };
        if base_offset < open.end_offset {
            // It belongs to a closed segment: rolled within this epoch, or moved into it.
            return Ok(());
        }
        let batch = DiskBatch::parse(&key, value)?;
        open.extend(
            batch.last_offset + 1,
            batch.batch_len() as u64,
            batch.header.max_timestamp,
            batch.stored.append_time_ms,
            batch.header.producer_id >= 0,
        );
        replay_producer(&batch, found);
        Ok(())
    })
}

fn replay_producer(batch: &DiskBatch, found: &mut Found) {
    if batch.header.producer_id >= 0 && batch.base_offset >= found.producers_until {
        record_producer(&mut found.producers, &batch.header, batch.base_offset, batch.stored.append_time_ms);
    }
}

/// Closes what was open and steps the epoch, so that a crash from here on need not read the same batches again.
fn summaries(epoch: u32, found: &mut HashMap<PartitionId, Found>) -> Batch {
    let mut batch = Batch::default();
    for (id, found) in found {
        let Some(last) = found.segments.last_mut().filter(|last| !last.closed) else { continue };
        last.closed = true;
        if !found.producers.is_empty() {
            let snapshot = encode_snapshot(last.end_offset, &found.producers);
            batch.put(Family::Meta, Key::Producers(*id).encode(), snapshot);
        }
        put_segment(&mut batch, *id, last);
    }
    batch.put(Family::Meta, Key::Epoch.encode(), Bytes::copy_from_slice(&epoch.to_be_bytes()));
    batch
}

fn partition_of(key: &[u8]) -> Option<PartitionId> {
    let number = |at: usize| Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?));
    Some(PartitionId { stream: StreamId(number(1)?), index: PartitionIndex(number(5)?) })
}

fn be_i64(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}
