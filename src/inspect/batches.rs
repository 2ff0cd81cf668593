//! Some batches of one shard, and their records where they are wanted: what lies there, looked up through the index as
//! readers do. Judged is each batch only by itself.

use std::io::Write;

use serde::Serialize;

use super::catalogue::{self, Catalogue, segment_text};
use super::report::Faults;
use super::text::{Align, Table, bytes_text};
use super::{InspectError, Outcome};
use crate::config::Inspect;
use crate::log::disk::{DiskBatch, scan_segment};
use crate::log::recover;
use crate::log::segment::Segment;
use crate::model::batch::{self, Marker, Record};
use crate::model::ids::{Offset, PartitionId, ShardOrdinal};
use crate::security::date::format_extended;
use crate::store::Store;
use crate::store::crypt::KeyRing;
use crate::store::keys::BatchHeader;

const PAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a key or a value that are shown.
const SHOWN_BYTES_MAX: usize = 200;

#[derive(Serialize)]
struct Shown {
    base_offset: Offset,
    last_offset: Offset,
    records: i32,
    bytes: usize,
    codec: String,
    append_ms: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    /// `commit` or `abort`, of a marker.
    marker: Option<&'static str>,
    /// The dormant partition that it was addressed to.
    addressed: Option<u32>,
    data_key: Option<u32>,
    fault: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<Vec<ShownRecord>>,
}

#[derive(Serialize)]
struct ShownRecord {
    offset: Offset,
    timestamp: i64,
    sequence_number: String,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

pub fn print(
    store: &dyn Store,
    keys: &KeyRing,
    stream: &str,
    ordinal: u32,
    options: &Inspect,
    out: &mut impl Write,
) -> Result<Outcome, InspectError> {
    let mut faults = Faults::default();
    let catalogue = catalogue::read(store, keys, Some(stream), &mut faults);
    let (id, known) = catalogue.streams.first_key_value().ok_or_else(|| InspectError::NoStream(stream.to_owned()))?;
    let shard = known.record.lineage.shard(ShardOrdinal(ordinal));
    let shard = shard.ok_or_else(|| InspectError::NoShard { stream: stream.to_owned(), shard: ordinal })?;
    let partition = PartitionId { stream: *id, index: shard.partition };
    let until = shard.end_offset.unwrap_or(Offset::MAX);
    let from = options.from.unwrap_or(shard.start_offset).max(shard.start_offset);
    let mut found = Vec::new();
    let mut next = from;
    for segment in segments(store, &catalogue, partition) {
        while found.len() < options.count && next.max(segment.first_offset) < until.min(segment.end_offset) {
            let offset = next.max(segment.first_offset);
            let page = match scan_segment(store, partition, &segment, offset, until, PAGE_BYTES_MAX) {
                Ok(page) => page.batches,
                Err(error) => {
                    faults.of_stream(
                        stream,
                        Some(partition.index.0),
                        format_args!("{}: {error}", segment_text(&segment)),
                    );
                    break;
                }
            };
            let Some(last) = page.last() else { break };
            next = last.last_offset + 1;
            let room = options.count - found.len();
            for batch in page.into_iter().take(room) {
                let records = |record: &Record, ms| shard.sequence_number(record.offset, ms).to_string();
                found.push(shown(batch, keys, partition, options.records, records));
            }
        }
    }
    let outcome = match faults.is_empty() && found.iter().all(|batch| batch.fault.is_none()) {
        true => Outcome::Sound,
        false => Outcome::Faulty,
    };
    match options.json {
        true => {
            serde_json::to_writer_pretty(&mut *out, &found).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        false => print_text(&found, out)?,
    }
    faults.listed.iter().try_for_each(|fault| writeln!(out, "FAULT {fault}"))?;
    Ok(outcome)
}

/// The partition's segments; the open one as long as its batches, where those can be read.
fn segments(store: &dyn Store, catalogue: &Catalogue, id: PartitionId) -> Vec<Segment> {
    let known: Vec<PartitionId> = catalogue.partitions.keys().copied().collect();
    let looked = recover::look(store, &known).ok().and_then(|mut look| look.partitions.remove(&id));
    let stored = || catalogue.partitions.get(&id).map(|rows| rows.segments.clone());
    looked.map(|log| log.segments).or_else(stored).unwrap_or_default()
}

fn shown(
    batch: DiskBatch,
    keys: &KeyRing,
    id: PartitionId,
    records: bool,
    number: impl Fn(&Record, i64) -> String,
) -> Shown {
    let (header, stored) = (batch.header, batch.stored);
    let (base_offset, last_offset, bytes) = (batch.base_offset, batch.last_offset, batch.batch_len());
    let opened = batch.open(keys, id).map(|open| open.value.slice(BatchHeader::LEN..));
    let fault = match &opened {
        Ok(open) => batch::verify(open).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let marker = opened.as_ref().ok().and_then(Marker::of);
    let contents = opened.as_ref().ok().filter(|_| records && fault.is_none()).map(|open| {
        let records = batch::records(open).into_iter().flatten().filter_map(Result::ok);
        records.map(|record| shown_record(&record, number(&record, stored.append_time_ms))).collect()
    });
    Shown {
        base_offset,
        last_offset,
        records: header.records_count,
        bytes,
        codec: header.codec().map_or_else(|_| "unknown".to_owned(), |codec| codec.to_string()),
        append_ms: stored.append_time_ms,
        leader_epoch: header.partition_leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.is_transactional(),
        marker: marker.map(|marker| if marker.commit { "commit" } else { "abort" }),
        addressed: stored.addressed.map(|index| index.0),
        data_key: stored.sealed_by,
        fault,
        contents,
    }
}

fn shown_record(record: &Record, sequence_number: String) -> ShownRecord {
    ShownRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        sequence_number,
        key: record.key.as_deref().map(shown_bytes),
        value: record.value.as_deref().map(shown_bytes),
        headers: record
            .headers
            .iter()
            .map(|header| (shown_bytes(&header.key), header.value.as_deref().map(shown_bytes)))
            .collect(),
    }
}

/// As text where it is, the rest escaped.
fn shown_bytes(bytes: &[u8]) -> String {
    let head = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    let mut text: String = head
        .utf8_chunks()
        .flat_map(|chunk| {
            let escaped = chunk.valid().chars().map(|c| match c.is_control() || c == '\\' {
                true => c.escape_default().to_string(),
                false => c.to_string(),
            });
            escaped.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"))).collect::<Vec<_>>()
        })
        .collect();
    if bytes.len() > SHOWN_BYTES_MAX {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}

fn print_text(found: &[Shown], out: &mut impl Write) -> std::io::Result<()> {
    let mut table = Table::new(&[
        ("OFFSETS", Align::Left),
        ("RECORDS", Align::Right),
        ("BYTES", Align::Right),
        ("CODEC", Align::Left),
        ("APPENDED", Align::Left),
        ("LEADER EPOCH", Align::Right),
        ("PRODUCER", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for batch in found {
        let producer = match batch.producer_id {
            ..0 => String::new(),
            id => format!("{id}, epoch {}, sequence {}", batch.producer_epoch, batch.base_sequence),
        };
        let what = [
            batch.transactional.then(|| "transactional".to_owned()),
            batch.marker.map(str::to_owned),
            batch.addressed.map(|index| format!("addressed to partition {index}")),
            batch.data_key.map(|number| format!("sealed by data key {number}")),
            batch.fault.as_ref().map(|fault| format!("FAULT: {fault}")),
        ];
        table.row(vec![
            format!("{}..={}", batch.base_offset, batch.last_offset),
            batch.records.to_string(),
            bytes_text(batch.bytes as u64),
            batch.codec.clone(),
            format_extended(batch.append_ms),
            batch.leader_epoch.to_string(),
            producer,
            what.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]);
        for record in batch.contents.iter().flatten() {
            let text = |bytes: &Option<String>| bytes.clone().unwrap_or_else(|| "(null)".to_owned());
            let mut line = format!("{} {}: {}", record.offset, text(&record.key), text(&record.value));
            for (key, value) in &record.headers {
                line.push_str(&format!(" [{key}={}]", text(value)));
            }
            table.line(line);
        }
    }
    table.print(0, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_where_they_are() {
        assert_eq!(shown_bytes("caf\u{e9}\n\\".as_bytes()), "caf\u{e9}\\n\\\\");
        assert_eq!(shown_bytes(b"a\xff\x00b"), "a\\xff\\u{0}b");
        assert_eq!(shown_bytes(&[b'x'; 201]), format!("{}... (201 bytes)", "x".repeat(200)));
    }
}
