//! From what is stored to partitions that take appends. Called once, by `broker`, with the partitions that its
//! catalogue knows; what belongs to others (deleted streams) is passed over. [`look`] is all of it but the commit that
//! makes it this run's: `inspect` stops there.
//!
//! After a clean stop every segment is closed and no batch is read. After a crash the newest epoch is: that is at most
//! what one memtable takes, and segments that were open in it get their summaries from it. Producers are taken from
//! their last snapshot and brought up to date from the batches behind it, which may stand in another partition's log
//! (`log::dormant`). Transactions are stored entry by entry, so nothing of them is replayed. Of a sealed batch the header tells enough, so
//! nothing here needs a key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::log::disk::{DiskBatch, scan_segment};
use crate::log::dormant::Snapshot;
use crate::log::partition::{Partition, put_segment, record_producer};
use crate::log::producers::{ELSEWHERE, Producers};
use crate::log::segment::Segment;
use crate::log::transactions::Transactions;
use crate::model::batch::Marker;
use crate::model::ids::{Offset, PartitionId, StreamId};
use crate::store::keys::{BatchHeader, Key, parse_batch_key, parse_partition, prefix_range};
use crate::store::{Batch, Family, Scan, Start, Store, StoreError};

const PAGE_ENTRIES_MAX: usize = 4_096;
const PAGE_BYTES_MAX: usize = 8 << 20;

pub struct Recovered {
    pub partitions: HashMap<PartitionId, Arc<Partition>>,
    /// Nothing is written in it yet.
    pub epoch: u32,
}

/// What the store holds, before anything of it is changed.
pub struct Look {
    pub partitions: HashMap<PartitionId, Found>,
    /// The last that was written in.
    pub epoch: u32,
}

/// What is known of one partition.
pub struct Found {
    pub log_start: Offset,
    /// The last may be open: then it is as long as the batches that stand in it.
    pub segments: Vec<Segment>,
    /// Of what was addressed to the partition.
    pub snapshot: Snapshot<Producers>,
    /// Of the partition's log.
    pub transactions: Transactions,
}

impl Found {
    fn nothing(id: PartitionId) -> Found {
        let snapshot = Snapshot { holder: id.index, until: 0, producers: Producers::default() };
        Found { log_start: 0, segments: Vec::new(), snapshot, transactions: Transactions::default() }
    }

    /// One past the last record.
    pub fn end(&self) -> Offset {
        self.segments.last().map_or(self.log_start, |last| last.end_offset).max(self.log_start)
    }
}

/// Brings what is stored up to date, in memory alone.
pub fn look(store: &dyn Store, known: &[PartitionId]) -> Result<Look, StoreError> {
    let mut found: HashMap<PartitionId, Found> = known.iter().map(|id| (*id, Found::nothing(*id))).collect();
    load_index(store, &mut found)?;
    let last_epoch = match store.get(Family::Meta, &Key::Epoch.encode())? {
        Some(value) => u32::from_be_bytes(value[..].try_into().map_err(|_| corrupt("the epoch"))?),
        None => 0,
    };
    for (id, segment, from) in behind_snapshots(&found) {
        replay_closed(store, id, &segment, from, &mut found)?;
    }
    if found.values().any(|found| found.segments.last().is_some_and(|last| !last.closed)) {
        replay_epoch(store, last_epoch, &mut found)?;
    }
    reconcile_producers(&mut found);
    Ok(Look { partitions: found, epoch: last_epoch })
}

pub fn recover(store: &dyn Store, known: &[PartitionId]) -> Result<Recovered, StoreError> {
    let Look { partitions: mut found, epoch } = look(store, known)?;
    let epoch = epoch + 1;
    store.commit(&summaries(epoch, &mut found), false)?;
    let partitions = found
        .into_iter()
        .map(|(id, found)| {
            let Found { log_start, segments, snapshot, transactions } = found;
            (id, Arc::new(Partition::new(id, log_start, segments, snapshot.producers, transactions)))
        })
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
        if let Some(found) = parse_partition(&key).and_then(|id| found.get_mut(&id)) {
            found.segments.push(Segment::decode(first_offset, &value).ok_or_else(|| corrupt("a segment"))?);
        }
        Ok(())
    })?;
    for_each_meta(store, b"l", |key, value| {
        if let Some(found) = parse_partition(&key).and_then(|id| found.get_mut(&id)) {
            found.log_start = be_i64(&value).ok_or_else(|| corrupt("a log start"))?;
        }
        Ok(())
    })?;
    for_each_meta(store, b"o", |key, value| {
        let producer_id = key.get(9..).and_then(be_i64).ok_or_else(|| corrupt("a transaction's key"))?;
        let Some(found) = parse_partition(&key).and_then(|id| found.get_mut(&id)) else { return Ok(()) };
        found.transactions.restore_open(producer_id, &value).ok_or_else(|| corrupt("a transaction"))
    })?;
    for_each_meta(store, b"A", |key, value| {
        let last_offset = key.get(9..).and_then(be_i64).ok_or_else(|| corrupt("an aborted transaction's key"))?;
        let Some(found) = parse_partition(&key).and_then(|id| found.get_mut(&id)) else { return Ok(()) };
        found.transactions.restore_aborted(last_offset, &value).ok_or_else(|| corrupt("an aborted transaction"))
    })?;
    for_each_meta(store, b"p", |key, value| {
        let Some(id) = parse_partition(&key) else { return Ok(()) };
        if let Some(found) = found.get_mut(&id) {
            found.snapshot = Snapshot::decode(id, &value).ok_or_else(|| corrupt("producers"))?;
        }
        Ok(())
    })
}

/// The closed segments that reach beyond a snapshot of producers whose batches they may hold, in the order of their logs,
/// and from where on they have to be read.
fn behind_snapshots(found: &HashMap<PartitionId, Found>) -> Vec<(PartitionId, Segment, Offset)> {
    let mut unread_from: HashMap<PartitionId, Offset> = HashMap::new();
    for (id, found) in found {
        let holder = PartitionId { stream: id.stream, index: found.snapshot.holder };
        let from = unread_from.entry(holder).or_insert(Offset::MAX);
        *from = (*from).min(found.snapshot.until);
    }
    let mut behind = Vec::new();
    for (id, found) in found {
        let Some(from) = unread_from.get(id) else { continue };
        let reaches = |segment: &&Segment| segment.end_offset > *from.max(&found.log_start);
        let closed = found.segments.iter().filter(|segment| segment.closed && segment.has_producers);
        behind.extend(closed.filter(reaches).map(|segment| (*id, segment.clone(), *from)));
    }
    behind
}

fn replay_closed(
    store: &dyn Store,
    id: PartitionId,
    segment: &Segment,
    from: Offset,
    found: &mut HashMap<PartitionId, Found>,
) -> Result<(), StoreError> {
    let mut next = segment.first_offset.max(from);
    while next < segment.end_offset {
        let page = scan_segment(store, id, segment, next, segment.end_offset, PAGE_BYTES_MAX)?.batches;
        let Some(last) = page.last() else { break };
        next = last.last_offset + 1;
        for batch in &page {
            replay_producer(batch, id, found);
        }
    }
    Ok(())
}

/// Reads the newest epoch and takes its batches into the segments that were open.
fn replay_epoch(store: &dyn Store, epoch: u32, found: &mut HashMap<PartitionId, Found>) -> Result<(), StoreError> {
    let bound = |epoch: u32| Bytes::copy_from_slice(&epoch.to_be_bytes());
    for_each(store, Family::Log, bound(epoch), bound(epoch + 1), &mut |key, value| {
        let Some((_, id, base_offset)) = parse_batch_key(&key) else { return Err(corrupt("a batch's key")) };
        let Some(of) = found.get_mut(&id) else { return Ok(()) };
        let Some(open) = of.segments.last_mut().filter(|last| !last.closed) else { return Ok(()) };
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
        replay_producer(&batch, id, found);
        Ok(())
    })
}

/// Takes a batch that stands in the log of `holder` into the producers of the partition that it was addressed to.
fn replay_producer(batch: &DiskBatch, holder: PartitionId, found: &mut HashMap<PartitionId, Found>) {
    let addressed = batch.stored.addressed;
    let of = PartitionId { index: addressed.unwrap_or(holder.index), ..holder };
    let Some(Found { snapshot, .. }) = found.get_mut(&of) else { return };
    // What stands in the log of an earlier holder is in the snapshot.
    if snapshot.holder != holder.index || batch.base_offset < snapshot.until {
        return;
    }
    let append_ms = batch.stored.append_time_ms;
    if batch.header.is_control() {
        // Markers are never sealed.
        if let Some(marker) = Marker::of(&batch.value.slice(BatchHeader::LEN..)) {
            snapshot.producers.mark_found(&marker, append_ms);
        }
        return;
    }
    let base_offset = addressed.is_none().then_some(batch.base_offset);
    record_producer(&mut snapshot.producers, &batch.header, base_offset, append_ms);
}

/// What logs know of open transactions goes before what is left of the batches that began and ended them.
fn reconcile_producers(found: &mut HashMap<PartitionId, Found>) {
    let mut open: HashMap<StreamId, HashSet<i64>> = HashMap::new();
    let mut begun: Vec<(PartitionId, i64, i16, Offset)> = Vec::new();
    for (log, of_log) in &*found {
        for (producer_id, began) in of_log.transactions.open().iter() {
            open.entry(log.stream).or_default().insert(producer_id);
            let of = PartitionId { index: began.addressed, ..*log };
            let first_offset = if of == *log { began.first_offset } else { ELSEWHERE };
            begun.push((of, producer_id, began.producer_epoch, first_offset));
        }
    }
    for (id, of_partition) in &mut *found {
        let open = open.get(&id.stream);
        of_partition.snapshot.producers.reconcile(|producer_id| open.is_some_and(|open| open.contains(&producer_id)));
    }
    for (of, producer_id, producer_epoch, first_offset) in begun {
        if let Some(of_partition) = found.get_mut(&of) {
            of_partition.snapshot.producers.restore_open(producer_id, producer_epoch, first_offset);
        }
    }
}

/// Closes what was open and steps the epoch, so that a crash from here on need not read the same batches again.
fn summaries(epoch: u32, found: &mut HashMap<PartitionId, Found>) -> Batch {
    let mut batch = Batch::default();
    let mut read_to = HashMap::new();
    for (id, found) in &mut *found {
        let Some(last) = found.segments.last_mut().filter(|last| !last.closed) else { continue };
        last.closed = true;
        put_segment(&mut batch, *id, last);
        read_to.insert(*id, last.end_offset);
    }
    for (id, Found { snapshot, .. }) in found {
        let holder = PartitionId { index: snapshot.holder, ..*id };
        let worth = !snapshot.producers.is_empty() || holder != *id;
        if let Some(until) = read_to.get(&holder).filter(|_| worth) {
            let (holder, until, producers) = (snapshot.holder, *until, snapshot.producers.encode());
            batch.put(Family::Meta, Key::Producers(*id).encode(), Snapshot { holder, until, producers }.encode(*id));
        }
    }
    batch.put(Family::Meta, Key::Epoch.encode(), Bytes::copy_from_slice(&epoch.to_be_bytes()));
    batch
}

fn be_i64(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}
