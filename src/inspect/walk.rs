//! Reads every batch once, in the order in which they lie on the disk, and judges it: by itself, by its neighbours in its
//! segment, and the segment's row in the index by all of them. In memory there is one page of batches at a time.
//!
//! What no row points at is either dead, its file not dropped yet, or lost to every reader: `Place` tells which.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::catalogue::{Catalogue, Place, Rows, segment_text};
use super::report::{Disk, Fault, Faults, Totals, Unchecked};
use crate::log::disk::DiskBatch;
use crate::log::partition::ReadError;
use crate::log::segment::Segment;
use crate::model::batch::{self, Header, Marker};
use crate::model::ids::{Offset, PartitionId, ShardOrdinal, StreamId};
use crate::store::crypt::KeyRing;
use crate::store::keys::{BatchHeader, Key, parse_batch_key};
use crate::store::{Family, Scan, Start, Store, StoreError};

const PAGE_ENTRIES_MAX: usize = 1_024;
const PAGE_BYTES_MAX: usize = 4 << 20;

/// What the walk leaves to be told.
#[derive(Default)]
pub struct Walked {
    pub disk: Disk,
    pub partitions: BTreeMap<PartitionId, Totals>,
    pub shards: BTreeMap<(StreamId, ShardOrdinal), Totals>,
    /// By stream and data key: why not, and how many batches.
    unchecked: BTreeMap<(StreamId, u32), (String, u64)>,
}

struct Walk<'a> {
    store: &'a dyn Store,
    keys: &'a KeyRing,
    catalogue: &'a Catalogue,
    faults: &'a mut Faults,
    walked: Walked,
    current: Option<Tally>,
    astray: Option<Astray>,
    /// Segments that were come to, by partition and position.
    seen: BTreeSet<(PartitionId, usize)>,
}

/// The segment being read.
struct Tally {
    id: PartitionId,
    at: usize,
    /// Where the next batch is to begin; none behind one that cannot be read.
    next: Option<Offset>,
    bytes: u64,
    max_timestamp: i64,
    append_ms: Option<(i64, i64)>,
    has_producers: bool,
    /// Something of it could not be read, so that sums mean nothing.
    broken: bool,
}

/// A run of batches without a row.
struct Astray {
    id: PartitionId,
    epoch: u32,
    first_offset: Offset,
    last_offset: Offset,
    batches: u64,
    why: String,
}

/// Reads the whole log, or of every epoch the one stream that the catalogue was read for.
pub fn walk(store: &dyn Store, keys: &KeyRing, catalogue: &Catalogue, only: bool, faults: &mut Faults) -> Walked {
    let (walked, current, astray, seen) = Default::default();
    let mut walk = Walk { store, keys, catalogue, faults, walked, current, astray, seen };
    match only {
        false => walk.range(Bytes::new(), Bytes::from_static(&[u8::MAX; 32])),
        true => {
            for epoch in 0..=catalogue.epoch {
                for stream in catalogue.streams.keys() {
                    let bound = |stream: u32| [epoch.to_be_bytes(), stream.to_be_bytes()].concat();
                    walk.range(bound(stream.0).into(), bound(stream.0.saturating_add(1)).into());
                }
            }
        }
    }
    walk.finish_segment();
    walk.tell_astray();
    walk.tell_unseen();
    walk.walked
}

impl Walked {
    pub fn unchecked(&self, catalogue: &Catalogue) -> Vec<Unchecked> {
        let told = self.unchecked.iter().map(|((stream, data_key), (why, batches))| Unchecked {
            stream: catalogue.name(*stream).to_owned(),
            data_key: *data_key,
            batches: *batches,
            why: why.clone(),
        });
        told.collect()
    }
}

impl Walk<'_> {
    fn range(&mut self, from: Bytes, to: Bytes) {
        let mut start = from;
        let mut entries_max = PAGE_ENTRIES_MAX;
        loop {
            let scan = Scan {
                family: Family::Log,
                start: Start::At(start.clone()),
                end: to.clone(),
                entries_max,
                bytes_max: PAGE_BYTES_MAX,
            };
            match self.store.scan(&scan) {
                Ok(page) => {
                    let Some((last, _)) = page.entries.last() else { return };
                    start = [last, &[0][..]].concat().into();
                    page.entries.into_iter().for_each(|(key, value)| self.entry(&key, value));
                    if !page.more {
                        return;
                    }
                }
                // One by one, as far as it goes.
                Err(_) if entries_max > 1 => entries_max = 1,
                Err(error) => {
                    entries_max = PAGE_ENTRIES_MAX;
                    match self.pass_over(&start, &error).filter(|next| *next < to) {
                        Some(next) => start = next,
                        None => return,
                    }
                }
            }
        }
    }

    /// What lies at `start` cannot be read: where the next segment begins.
    fn pass_over(&mut self, start: &[u8], error: &StoreError) -> Option<Bytes> {
        let behind = match self.current.take() {
            // Its sums mean nothing any more: it is not held against its row.
            Some(tally) => {
                let from = tally.next.map_or_else(String::new, |next| format!(" from offset {next} on"));
                self.fault(tally.id, None, format!("{} cannot be read{from}: {error}", self.text(&tally)));
                None
            }
            None => start.get(..20).and_then(parse_batch_key),
        };
        if let Some((epoch, id, base_offset)) = behind {
            let place = self.catalogue.partitions.get(&id).map(|rows| rows.place(epoch, base_offset));
            if let Some(Place::Segment(at)) = place {
                self.seen.insert((id, at));
            }
            self.fault(id, Some(base_offset), format!("epoch {epoch} cannot be read here: {error}"));
        }
        let first_keys = self.catalogue.partitions.iter().flat_map(|(id, rows)| {
            let key = |segment: &Segment| Key::Batch {
                epoch: segment.epoch,
                partition: *id,
                base_offset: segment.first_offset,
            };
            rows.segments.iter().map(move |segment| key(segment).encode())
        });
        first_keys.filter(|key| key[..] > *start).min()
    }

    fn entry(&mut self, key: &Bytes, value: Bytes) {
        let Some((epoch, id, base_offset)) = parse_batch_key(key) else {
            self.faults.general(format_args!("the log has a key that is no batch's: {key:02x?}"));
            return;
        };
        let Some(rows) = self.catalogue.partitions.get(&id) else { return self.dead(&value) };
        match rows.place(epoch, base_offset) {
            Place::Dead => self.dead(&value),
            Place::Astray(why) => {
                self.astray(Astray { id, epoch, first_offset: base_offset, last_offset: base_offset, batches: 1, why })
            }
            Place::Segment(at) => {
                if self.current.as_ref().is_none_or(|tally| (tally.id, tally.at) != (id, at)) {
                    self.finish_segment();
                    self.seen.insert((id, at));
                    let next = rows.segments.get(at).map(|segment| segment.first_offset);
                    self.current = Some(Tally::new(id, at, next));
                }
                self.batch(rows, id, base_offset, key, value);
            }
        }
    }

    fn dead(&mut self, value: &Bytes) {
        self.walked.disk.dead_batches += 1;
        self.walked.disk.dead_bytes += value.len() as u64;
    }

    fn astray(&mut self, found: Astray) {
        match &mut self.astray {
            Some(run) if (run.id, run.epoch, &run.why) == (found.id, found.epoch, &found.why) => {
                run.last_offset = found.last_offset;
                run.batches += 1;
            }
            _ => {
                self.tell_astray();
                self.astray = Some(found);
            }
        }
    }

    fn tell_astray(&mut self) {
        let Some(Astray { id, epoch, first_offset, last_offset, batches, why }) = self.astray.take() else { return };
        let which = match batches {
            1 => format!("a batch at offset {first_offset}"),
            _ => format!("{batches} batches from offset {first_offset} to the one at {last_offset}"),
        };
        self.fault(id, None, format!("epoch {epoch} holds {which}, but {why}"));
    }

    fn tell_unseen(&mut self) {
        for (id, rows) in &self.catalogue.partitions {
            for (at, segment) in rows.segments.iter().enumerate() {
                if !self.seen.contains(&(*id, at)) {
                    let text = segment_text(segment);
                    self.fault(*id, None, format!("the index has {text}, but there is no batch of it"));
                }
            }
        }
    }

    /// One batch of the current segment.
    fn batch(&mut self, rows: &Rows, id: PartitionId, base_offset: Offset, key: &[u8], value: Bytes) {
        self.walked.disk.batches += 1;
        self.walked.disk.batch_bytes += value.len() as u64;
        let batch = match parse(key, value.clone()) {
            Ok(batch) => batch,
            Err(fault) => {
                self.fault(id, Some(base_offset), fault);
                if let Some(tally) = &mut self.current {
                    (tally.next, tally.broken) = (None, true);
                }
                return;
            }
        };
        self.judge(rows, id, &batch);
        let faults = self.current.as_mut().map(|tally| tally.take(rows, &batch)).unwrap_or_default();
        faults.into_iter().for_each(|fault| self.fault(id, Some(base_offset), fault));
        let totals = self.walked.partitions.entry(id).or_default();
        totals.take(&batch);
        let generation = rows.generation(base_offset);
        if let Some(generation) = generation.filter(|one| one.end_offset.is_none_or(|end| base_offset < end)) {
            self.walked.shards.entry((id.stream, generation.shard)).or_default().take(&batch);
        }
    }

    /// A batch by itself.
    fn judge(&mut self, rows: &Rows, id: PartitionId, batch: &DiskBatch) {
        let Header { base_offset: said, partition_leader_epoch, .. } = batch.header;
        let base_offset = batch.base_offset;
        if said != base_offset {
            self.fault(id, Some(base_offset), format!("the batch that stands here says it is at offset {said}"));
        }
        let epoch = rows.generation(base_offset).map(|generation| generation.leader_epoch);
        if let Some(epoch) = epoch.filter(|epoch| *epoch != partition_leader_epoch) {
            let fault = format!("the batch has leader epoch {partition_leader_epoch}, its shard {epoch}");
            self.fault(id, Some(base_offset), fault);
        }
        let addressed = batch.stored.addressed.map(|index| PartitionId { index, ..id });
        if let Some(addressed) = addressed.filter(|addressed| !self.catalogue.partitions.contains_key(addressed)) {
            let fault = format!("the batch was addressed to partition {}, which there is not", addressed.index.0);
            self.fault(id, Some(base_offset), fault);
        }
        let Some(open) = self.open(id, batch) else { return };
        if let Err(error) = batch::verify(&open) {
            self.fault(id, Some(base_offset), error.to_string());
        } else if batch.header.is_control() && Marker::of(&open).is_none() {
            self.fault(id, Some(base_offset), "a control batch that ends no transaction".to_owned());
        }
    }

    /// The record batch itself; none where its key cannot be used, or it does not open.
    fn open(&mut self, id: PartitionId, batch: &DiskBatch) -> Option<Bytes> {
        let number = batch.stored.sealed_by;
        match batch.clone().open(self.keys, id) {
            Ok(open) => Some(open.value.slice(BatchHeader::LEN..)),
            Err(ReadError::Key(error)) => {
                let why = error.to_string();
                let entry = self.walked.unchecked.entry((id.stream, number.unwrap_or_default())).or_insert((why, 0));
                entry.1 += 1;
                None
            }
            Err(error @ (ReadError::Store(_) | ReadError::OutOfRange { .. })) => {
                self.fault(id, Some(batch.base_offset), error.to_string());
                None
            }
        }
    }

    /// The current segment has no more batches: its row is held against them.
    fn finish_segment(&mut self) {
        let Some(tally) = self.current.take() else { return };
        let rows = self.catalogue.partitions.get(&tally.id);
        let Some(segment) = rows.and_then(|rows| rows.segments.get(tally.at)) else { return };
        if !tally.broken && segment.closed {
            let text = segment_text(segment);
            for fault in tally.differences(segment) {
                self.fault(tally.id, None, format!("the index says of {text} {fault}"));
            }
        }
    }

    fn text(&self, tally: &Tally) -> String {
        let rows = self.catalogue.partitions.get(&tally.id);
        rows.and_then(|rows| rows.segments.get(tally.at)).map(segment_text).unwrap_or_default()
    }

    fn fault(&mut self, id: PartitionId, offset: Option<Offset>, fault: String) {
        let stream = Some(self.catalogue.name(id.stream).to_owned());
        self.faults.add(Fault { stream, partition: Some(id.index.0), offset, fault });
    }
}

/// The batch, or precisely why there is none.
fn parse(key: &[u8], value: Bytes) -> Result<DiskBatch, String> {
    let header = value.get(BatchHeader::LEN..).ok_or("the batch is cut within what precedes it")?;
    Header::parse(header).map_err(|error| error.to_string())?;
    DiskBatch::parse(key, value).map_err(|_| "the batch is longer or shorter than it says".to_owned())
}

impl Tally {
    fn new(id: PartitionId, at: usize, next: Option<Offset>) -> Tally {
        Tally { id, at, next, bytes: 0, max_timestamp: -1, append_ms: None, has_producers: false, broken: false }
    }

    /// Takes the segment's next batch in; tells what does not go on where the one before ended.
    fn take(&mut self, rows: &Rows, batch: &DiskBatch) -> Vec<String> {
        let (base_offset, append_ms) = (batch.base_offset, batch.stored.append_time_ms);
        let mut faults = Vec::new();
        match self.next {
            Some(next) if base_offset < next => {
                faults.push(format!("the batch overlaps the one before, which ends at {next}"))
            }
            Some(next) if base_offset > next && !rows.may_lack(base_offset) => {
                faults.push(format!("offsets {next}..{base_offset} are missing before this batch"));
            }
            _ => {}
        }
        if let Some((_, last)) = self.append_ms.filter(|(_, last)| append_ms < *last) {
            faults.push(format!("the batch was appended at {append_ms}, the one before at {last}"));
        }
        self.next = Some(batch.last_offset + 1);
        self.bytes += batch.batch_len() as u64;
        self.max_timestamp = self.max_timestamp.max(batch.header.max_timestamp);
        let first_ms = self.append_ms.map_or(append_ms, |(first, _)| first);
        self.append_ms = Some((first_ms, append_ms));
        self.has_producers |= batch.header.producer_id >= 0;
        faults
    }

    /// A segment that is rewritten bit by bit keeps bounds of its times from before.
    fn differences(&self, segment: &Segment) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(end) = self.next.filter(|end| *end != segment.end_offset) {
            found.push(format!("that it ends at {}, but its last batch ends at {end}", segment.end_offset));
        }
        if self.bytes != segment.bytes {
            found.push(format!("that it has {} bytes, but its batches have {}", segment.bytes, self.bytes));
        }
        if self.max_timestamp > segment.max_timestamp {
            let (said, real) = (segment.max_timestamp, self.max_timestamp);
            found.push(format!("that no timestamp is above {said}, but one is {real}"));
        }
        let (said_first, said_last) = (segment.first_append_ms, segment.last_append_ms);
        if let Some((first, last)) = self.append_ms.filter(|(first, last)| *first < said_first || *last > said_last) {
            found.push(format!("that it was appended in {said_first}..={said_last}, but it was in {first}..={last}"));
        }
        if self.has_producers && !segment.has_producers {
            found.push("that no producer is idempotent, but one is".to_owned());
        }
        found
    }
}

impl Totals {
    fn take(&mut self, batch: &DiskBatch) {
        self.batches += 1;
        match batch.header.is_control() {
            true => self.markers += 1,
            false => self.records += u64::try_from(batch.header.records_count).unwrap_or_default(),
        }
        self.bytes += batch.batch_len() as u64;
        let append_ms = batch.stored.append_time_ms;
        self.first_append_ms = Some(self.first_append_ms.map_or(append_ms, |first| first.min(append_ms)));
        // Segments that were rewritten come behind younger ones.
        if self.last_offset.is_none_or(|last| last < batch.last_offset) {
            (self.last_offset, self.last_append_ms) = (Some(batch.last_offset), Some(append_ms));
        }
    }
}
