//! `anabranch inspect FOLDER`: what a stopped broker's folder holds, and whether it is as a broker writes it. Called by
//! `main`.
//!
//! - `catalogue`: streams, shards and the index, read and judged
//! - `walk`: every batch, judged
//! - `groups`: groups, transactional ids, quotas
//! - `report`: what was found; `text` prints it for people
//! - `batches`: some batches of one shard, printed
//!
//! Invariants:
//! - Not a byte of the folder changes, and no broker can start on it meanwhile.
//! - Memory is what the catalogue takes, as in a broker that starts, and a page of batches: the number of records does
//!   not matter.
//! - Nothing that is read is believed. What cannot be parsed is a fault, and the rest is looked at nevertheless.
//!
//! A fault is what no broker leaves behind, however it ended: a folder after `kill -9` has none.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;

use crate::clock::Clock;
use crate::config::Inspect;
use crate::log::disk::DiskBatch;
use crate::log::recover::{self, Found};
use crate::log::segment;
use crate::log::transactions::{Aborted, Transactions};
use crate::model::attributes::{CapacityMode, Transition};
use crate::model::batch::Marker;
use crate::model::ids::{PartitionId, PartitionIndex, StreamId};
use crate::model::settings::CleanupPolicy;
use crate::store::crypt::KeyRing;
use crate::store::keys::{BatchHeader, Key, parse_partition};
use crate::store::rocks::{OpenError, RocksStore};
use crate::store::{Family, Store};

mod batches;
mod catalogue;
mod groups;
mod report;
mod text;
mod walk;

#[cfg(test)]
mod tests;

use catalogue::{Catalogue, Known, Rows};
use report::{Faults, OpenTransaction, Partition, Producer, Report, Shard, Stream};
use walk::Walked;

/// What became of an inspection: the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sound = 0,
    Faulty = 1,
    Unreadable = 2,
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("there is no stream {0}")]
    NoStream(String),
    #[error("stream {stream} has no shard {shard}")]
    NoShard { stream: String, shard: u32 },
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl InspectError {
    /// Whether who reads the output has gone.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, InspectError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Inspects and prints to `out`.
pub fn run(options: &Inspect, out: &mut impl Write) -> Result<Outcome, InspectError> {
    let store = RocksStore::open_read_only(&options.folder)?;
    let keys = KeyRing::new(&options.master_keys, Clock::system());
    let outcome = match (&options.stream, options.shard) {
        (Some(stream), Some(shard)) => batches::print(&store, &keys, stream, shard, options, out)?,
        (wanted, _) => {
            let report = inspect(&store, &keys, &options.folder, wanted.as_deref())?;
            match options.json {
                true => {
                    serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
                    writeln!(out)?;
                }
                false => text::print(&report, wanted.is_some(), out)?,
            }
            if report.faults.is_empty() { Outcome::Sound } else { Outcome::Faulty }
        }
    };
    out.flush()?;
    Ok(outcome)
}

/// `wanted`: only the stream of that name, and what groups have committed of it.
fn inspect(store: &dyn Store, keys: &KeyRing, folder: &Path, wanted: Option<&str>) -> Result<Report, InspectError> {
    let mut faults = Faults::default();
    let catalogue = catalogue::read(store, keys, wanted, &mut faults);
    if let Some(wanted) = wanted.filter(|_| catalogue.streams.is_empty()) {
        return Err(InspectError::NoStream(wanted.to_owned()));
    }
    let walked = walk::walk(store, keys, &catalogue, wanted.is_some(), &mut faults);
    let mut found = recovered(store, &catalogue, &mut faults);
    judge_recovered(store, &catalogue, &found, &mut faults);
    let ends = ends(&catalogue, &found);
    let mut groups = groups::groups(store, &ends, &mut faults);
    let mut share_groups = groups::share_groups(store, &ends, &mut faults);
    if let Some(wanted) = wanted {
        groups.iter_mut().for_each(|group| group.offsets.retain(|offset| offset.stream == wanted));
        groups.retain(|group| !group.offsets.is_empty());
        share_groups.iter_mut().for_each(|group| group.partitions.retain(|shared| shared.stream == wanted));
        share_groups.retain(|group| !group.partitions.is_empty());
    }
    let figures = store.figures();
    let streams = catalogue.streams.iter();
    let streams = streams.map(|(id, known)| stream(*id, known, &catalogue, &walked, &mut found)).collect();
    let mut disk = walked.disk;
    (disk.file_bytes, disk.wal_bytes) = (figures.file_bytes, figures.wal_bytes);
    Ok(Report {
        folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()).display().to_string(),
        cluster_id: catalogue.cluster.as_ref().map(|cluster| cluster.cluster_id.to_string()),
        epoch: catalogue.epoch,
        next_producer_id: catalogue.next_producer_id,
        disk,
        settings: catalogue.dynamic.clone(),
        streams,
        groups,
        share_groups,
        transactional_ids: groups::transactional_ids(store, &ends, &mut faults),
        quotas: groups::quotas(store, &mut faults),
        unchecked: walked.unchecked(&catalogue),
        faults,
    })
}

/// What a broker would start with; where none can start, what the index says.
fn recovered(store: &dyn Store, catalogue: &Catalogue, faults: &mut Faults) -> HashMap<PartitionId, Found> {
    let known: Vec<PartitionId> = catalogue.partitions.keys().copied().collect();
    match recover::look(store, &known) {
        Ok(look) => look.partitions,
        Err(error) => {
            faults.general(format_args!("no broker can start on this folder: {error}"));
            HashMap::new()
        }
    }
}

/// Logs against the shards that lie on them, and what is known of transactions against their markers.
fn judge_recovered(store: &dyn Store, catalogue: &Catalogue, found: &HashMap<PartitionId, Found>, faults: &mut Faults) {
    for (id, rows) in &catalogue.partitions {
        let Some(log) = found.get(id) else { continue };
        let (name, partition) = (catalogue.name(id.stream), Some(id.index.0));
        let end = log.end();
        for generation in &rows.generations {
            let needs = generation.end_offset.unwrap_or(generation.start_offset);
            if needs > end {
                let shard = generation.shard;
                faults.of_stream(
                    name,
                    partition,
                    format_args!("the log ends at {end}, but {shard} reaches to {needs}"),
                );
            }
        }
        if rows.log_start > end {
            let log_start = rows.log_start;
            faults.of_stream(name, partition, format_args!("the log begins at {log_start} and ends at {end}"));
        }
        for (producer_id, begun) in log.transactions.open().iter().filter(|(_, begun)| begun.first_offset >= end) {
            let first = begun.first_offset;
            faults.of_stream(
                name,
                partition,
                format_args!(
                    "producer {producer_id} has a transaction open from {first} on, but the log ends at {end}"
                ),
            );
        }
        for aborted in log.transactions.aborted_within(0, end) {
            if let Err(fault) = ends_with_abort(store, *id, log, &aborted) {
                let Aborted { producer_id, last_offset, .. } = aborted;
                faults.of_stream(
                    name,
                    partition,
                    format_args!("producer {producer_id}'s transaction was aborted at {last_offset}, but {fault}"),
                );
            }
        }
    }
    judge_aborted_rows(store, catalogue, found, faults);
}

/// An aborted transaction whose marker would lie behind the log's end is not among those that overlap it.
fn judge_aborted_rows(
    store: &dyn Store,
    catalogue: &Catalogue,
    found: &HashMap<PartitionId, Found>,
    faults: &mut Faults,
) {
    let mut beyond = Vec::new();
    catalogue::rows(store, b"A", "aborted transaction", faults, |key, value| {
        let last = key.get(9..).and_then(|last| last.try_into().ok()).map(i64::from_be_bytes).ok_or("no offset")?;
        Transactions::default().restore_aborted(last, value).ok_or("its layout cannot be parsed")?;
        let id = parse_partition(key).ok_or("no partition")?;
        if let Some(end) = found.get(&id).map(Found::end).filter(|end| last >= *end) {
            beyond.push((id, last, end));
        }
        Ok(())
    });
    for (id, last, end) in beyond {
        let fault = format_args!("a transaction was aborted at {last}, but the log ends at {end}").to_string();
        faults.of_stream(catalogue.name(id.stream), Some(id.index.0), fault);
    }
}

/// Readers that are told of an aborted transaction look for its marker.
fn ends_with_abort(store: &dyn Store, id: PartitionId, log: &Found, aborted: &Aborted) -> Result<(), String> {
    let base_offset = aborted.last_offset;
    let holder = log.segments.get(segment::find(&log.segments, base_offset));
    let holder = holder.filter(|segment| segment.first_offset <= base_offset).ok_or("no segment holds its marker")?;
    let key = Key::Batch { epoch: holder.epoch, partition: id, base_offset }.encode();
    let value = store.get(Family::Log, &key).map_err(|error| error.to_string())?.ok_or("no batch is there")?;
    let batch = DiskBatch::parse(&key, value).map_err(|error| error.to_string())?;
    match Marker::of(&batch.value.slice(BatchHeader::LEN..)) {
        Some(marker) if marker.producer_id == aborted.producer_id && !marker.commit => Ok(()),
        Some(_) => Err("another transaction's end is there".to_owned()),
        None => Err("the batch there is no marker".to_owned()),
    }
}

fn ends(catalogue: &Catalogue, found: &HashMap<PartitionId, Found>) -> groups::Ends {
    let streams = || catalogue.streams.iter();
    let end_of = |(id, rows): (&PartitionId, &Rows)| {
        let end = found.get(id).map_or_else(|| rows.end(), Found::end);
        ((catalogue.name(id.stream).to_owned(), id.index.0), end)
    };
    groups::Ends {
        names: streams().map(|(id, known)| (id.0, known.record.name.clone())).collect(),
        topic_ids: streams().map(|(_, known)| (known.record.topic_id, known.record.name.clone())).collect(),
        by_name: catalogue.partitions.iter().map(end_of).collect(),
    }
}

fn stream(
    id: StreamId,
    known: &Known,
    catalogue: &Catalogue,
    walked: &Walked,
    found: &mut HashMap<PartitionId, Found>,
) -> Stream {
    let Known { record, settings } = known;
    let attributes = record.attributes.as_ref();
    let passing = attributes.and_then(|attributes| attributes.passing);
    let indexes = (0..record.lineage.partitions()).map(PartitionIndex);
    let partitions: Vec<Partition> =
        indexes.map(|index| partition(PartitionId { stream: id, index }, known, catalogue, walked, found)).collect();
    let created_ms = record.lineage.shards().first().map_or(0, |shard| shard.created_ms);
    Stream {
        name: record.name.clone(),
        id: id.0,
        topic_id: record.topic_id.to_string(),
        created_ms: attributes.map_or(created_ms, |attributes| attributes.created_ms),
        mode: match settings.capacity_mode {
            CapacityMode::Provisioned => "provisioned",
            CapacityMode::OnDemand => "on-demand",
        },
        // What passes by itself has passed while nobody served.
        status: match passing.map(|passing| passing.transition) {
            Some(Transition::Deleting) => "deleting",
            Some(Transition::Creating | Transition::Updating) | None => "active",
        },
        cleanup_policy: match settings.cleanup_policy {
            CleanupPolicy::Delete => "delete",
            CleanupPolicy::Compact => "compact",
            CleanupPolicy::CompactAndDelete => "compact,delete",
            CleanupPolicy::Keep => "keep",
        },
        retention_ms: settings.retention_ms,
        settings: record.overrides.clone(),
        tags: attributes.map(|attributes| attributes.tags.clone()).unwrap_or_default(),
        consumers: attributes
            .map(|attributes| attributes.consumers.iter().map(|consumer| consumer.name.clone()).collect())
            .unwrap_or_default(),
        encryption: attributes
            .and_then(|attributes| attributes.encryption.as_ref())
            .map(|encryption| encryption.key_name.clone()),
        data_keys: catalogue.data_keys.get(&id).cloned().unwrap_or_default(),
        shards: shards(id, known, walked, &partitions),
        partitions,
    }
}

fn shards(id: StreamId, known: &Known, walked: &Walked, partitions: &[Partition]) -> Vec<Shard> {
    let lineage = &known.record.lineage;
    let mut children: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for shard in lineage.shards() {
        for parent in &shard.parents {
            children.entry(*parent).or_default().push(shard.ordinal.to_string());
        }
    }
    let told = lineage.shards().iter().map(|shard| {
        let totals = walked.shards.get(&(id, shard.ordinal)).copied().unwrap_or_default();
        let log_end = partitions.get(shard.partition.0 as usize).map_or(0, |partition| partition.end_offset);
        let last = totals.last_offset.zip(totals.last_append_ms);
        Shard {
            id: shard.ordinal.to_string(),
            partition: shard.partition.0,
            leader_epoch: shard.leader_epoch,
            open: shard.is_open(),
            parents: shard.parents.iter().map(ToString::to_string).collect(),
            children: children.remove(&shard.ordinal).unwrap_or_default(),
            starting_hash_key: shard.hash_key_range.start.to_string(),
            ending_hash_key: shard.hash_key_range.end.to_string(),
            start_offset: shard.start_offset,
            next_offset: shard.end_offset.unwrap_or(log_end),
            starting_sequence_number: shard.starting_sequence_number().to_string(),
            last_sequence_number: last.map(|(offset, ms)| shard.sequence_number(offset, ms).to_string()),
            ending_sequence_number: shard.ending_sequence_number().map(|number| number.to_string()),
            created_ms: shard.created_ms,
            closed_ms: shard.closed_ms,
            totals,
        }
    });
    told.collect()
}

fn partition(
    id: PartitionId,
    known: &Known,
    catalogue: &Catalogue,
    walked: &Walked,
    found: &mut HashMap<PartitionId, Found>,
) -> Partition {
    let lineage = &known.record.lineage;
    let rows = catalogue.partitions.get(&id);
    let log = found.remove(&id);
    let end_offset = log.as_ref().map_or_else(|| rows.map_or(0, Rows::end), Found::end);
    let transactions = log.as_ref().map(|log| &log.transactions);
    let open = transactions.map(Transactions::open);
    let producers = log.as_ref().map(|log| &log.snapshot.producers);
    Partition {
        index: id.index.0,
        absorbed_by: lineage
            .absorbing(id.index)
            .filter(|_| lineage.is_dormant(id.index))
            .map(|shard| shard.ordinal.to_string()),
        log_start_offset: rows.map_or(0, |rows| rows.log_start),
        end_offset,
        last_stable_offset: open.and_then(|open| open.first_offset()).unwrap_or(end_offset),
        segments: rows.map_or(0, |rows| rows.segments.len()),
        compacted_until: rows.and_then(|rows| rows.compacted).map(|progress| progress.until),
        open_transactions: open.into_iter().flat_map(|open| open.iter()).map(open_transaction).collect(),
        aborted_transactions: transactions.map_or(0, |transactions| transactions.aborted_within(0, i64::MAX).len()),
        producers: producers.into_iter().flat_map(|producers| producers.iter()).map(producer).collect(),
        totals: walked.partitions.get(&id).copied().unwrap_or_default(),
    }
}

fn open_transaction((producer_id, begun): (i64, &crate::log::transactions::Begun)) -> OpenTransaction {
    OpenTransaction { producer_id, producer_epoch: begun.producer_epoch, first_offset: begun.first_offset }
}

fn producer((producer_id, entry): (i64, &crate::log::producers::Entry)) -> Producer {
    Producer {
        producer_id,
        producer_epoch: entry.producer_epoch(),
        last_sequence: entry.last_sequence(),
        last_append_ms: entry.last_append_ms(),
    }
}
