//! Reads the catalogue and judges it: what streams there are and whose batches stand where. Rows that cannot be read are
//! faults, and everything else is looked at nevertheless.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::report::{DataKey, Faults};
use crate::broker::catalog::{ClusterRecord, StreamRecord, stream_of};
use crate::broker::compaction::Progress;
use crate::log::recover::for_each_meta;
use crate::log::segment::Segment;
use crate::model::ids::{Offset, PartitionId, PartitionIndex, ShardOrdinal, StreamId};
use crate::model::settings::{BrokerSettings, BrokerValues, DynamicSettings, StreamSettings};
use crate::model::shard::Lineage;
use crate::store::crypt::KeyRing;
use crate::store::keys::{Key, parse_partition};
use crate::store::{Family, Store};

pub struct Catalogue {
    pub cluster: Option<ClusterRecord>,
    pub epoch: u32,
    pub next_producer_id: i64,
    pub dynamic: DynamicSettings,
    pub streams: BTreeMap<StreamId, Known>,
    pub partitions: BTreeMap<PartitionId, Rows>,
    pub data_keys: HashMap<StreamId, Vec<DataKey>>,
}

pub struct Known {
    pub record: StreamRecord,
    pub settings: StreamSettings,
}

/// What the index says of one partition.
#[derive(Debug, Default)]
pub struct Rows {
    pub log_start: Offset,
    /// By where they begin.
    pub segments: Vec<Segment>,
    pub compacted: Option<Progress>,
    /// By where they begin.
    pub generations: Vec<Generation>,
    /// The stream's settings have it compacted.
    compacts: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Generation {
    pub shard: ShardOrdinal,
    pub start_offset: Offset,
    pub end_offset: Option<Offset>,
    pub leader_epoch: i32,
}

/// Where a batch belongs that stands in the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// To the segment at this position.
    Segment(usize),
    /// To nobody any more: its file is not dropped yet.
    Dead,
    /// Nobody knows of it though somebody should.
    Astray(String),
}

impl Rows {
    /// Where the log ends; of an open segment only the beginning is stored.
    pub fn end(&self) -> Offset {
        self.segments.last().map_or(self.log_start, |last| last.end_offset).max(self.log_start)
    }

    /// Whether compaction may have left `from..to` without records.
    pub fn may_lack(&self, to: Offset) -> bool {
        self.compacts || self.compacted.is_some_and(|progress| to <= progress.until)
    }

    pub fn place(&self, epoch: u32, base_offset: Offset) -> Place {
        let before = self.segments.partition_point(|segment| segment.first_offset <= base_offset).checked_sub(1);
        let holder = before.and_then(|at| self.segments.get(at).map(|segment| (at, segment)));
        let is_last = before.is_some_and(|at| at + 1 == self.segments.len());
        match holder {
            Some((at, segment)) if !segment.closed && is_last || base_offset < segment.end_offset => {
                let range = segment_text(segment);
                match segment.epoch.cmp(&epoch) {
                    std::cmp::Ordering::Equal => Place::Segment(at),
                    std::cmp::Ordering::Greater => Place::Dead,
                    std::cmp::Ordering::Less => Place::Astray(format!("the index has that offset in {range}")),
                }
            }
            _ if base_offset < self.log_start => Place::Dead,
            _ if base_offset >= self.end() => {
                Place::Astray(format!("the index ends at offset {}, as if they were not there", self.end()))
            }
            _ if self.may_lack(base_offset + 1) => Place::Dead,
            _ => Place::Astray("no segment of the index holds them".to_owned()),
        }
    }

    /// The generation whose leader epoch a batch at `offset` has. What was appended to a sleeping log is of the one before.
    pub fn generation(&self, offset: Offset) -> Option<&Generation> {
        let behind = self.generations.partition_point(|generation| generation.start_offset <= offset);
        self.generations.get(behind.checked_sub(1)?)
    }
}

pub fn segment_text(segment: &Segment) -> String {
    match segment.closed {
        true => format!("segment {}..{} of epoch {}", segment.first_offset, segment.end_offset, segment.epoch),
        false => format!("segment {}.. of epoch {}", segment.first_offset, segment.epoch),
    }
}

/// Reads everything but what groups and transactions have. `wanted`: only the stream of that name.
pub fn read(store: &dyn Store, keys: &KeyRing, wanted: Option<&str>, faults: &mut Faults) -> Catalogue {
    let mut catalogue = Catalogue {
        cluster: single(store, Key::Cluster, "the cluster's record", faults, |value| ClusterRecord::decode(value).ok()),
        epoch: single(store, Key::Epoch, "the epoch", faults, |value| Some(u32::from_be_bytes(value.try_into().ok()?)))
            .unwrap_or_default(),
        next_producer_id: single(store, Key::NextProducerId, "the next producer id", faults, |value| {
            Some(i64::from_be_bytes(value.try_into().ok()?))
        })
        .unwrap_or_default(),
        dynamic: single(store, Key::BrokerSettings, "the broker's settings", faults, |value| {
            serde_json::from_slice(value).ok()
        })
        .unwrap_or_default(),
        streams: BTreeMap::new(),
        partitions: BTreeMap::new(),
        data_keys: HashMap::new(),
    };
    catalogue.read_streams(store, wanted, faults);
    catalogue.read_partitions(store, faults);
    catalogue.read_keys(store, keys, faults);
    catalogue.judge_streams(faults);
    catalogue.judge_rows(faults);
    catalogue
}

fn single<T>(
    store: &dyn Store,
    key: Key<'_>,
    what: &str,
    faults: &mut Faults,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Option<T> {
    match store.get(Family::Meta, &key.encode()) {
        Ok(None) => None,
        Ok(Some(value)) => {
            let parsed = parse(&value);
            if parsed.is_none() {
                faults.general(format_args!("{what} cannot be parsed"));
            }
            parsed
        }
        Err(error) => {
            faults.general(format_args!("{what} cannot be read: {error}"));
            None
        }
    }
}

/// Shows every row of a kind to `each`; what it tells is a fault, and so is a row that the store cannot read.
pub fn rows(
    store: &dyn Store,
    prefix: &[u8],
    what: &str,
    faults: &mut Faults,
    mut each: impl FnMut(&Bytes, &Bytes) -> Result<(), String>,
) {
    let outcome = for_each_meta(store, prefix, |key, value| {
        if let Err(fault) = each(&key, &value) {
            faults.general(format_args!("{what} {}: {fault}", key_text(&key)));
        }
        Ok(())
    });
    if let Err(error) = outcome {
        faults.general(format_args!("not every {what} can be read: {error}"));
    }
}

fn key_text(key: &[u8]) -> String {
    let shown = key.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("[{}]", shown.collect::<String>())
}

impl Catalogue {
    pub fn name(&self, stream: StreamId) -> &str {
        self.streams.get(&stream).map_or("?", |known| &known.record.name)
    }

    fn read_streams(&mut self, store: &dyn Store, wanted: Option<&str>, faults: &mut Faults) {
        let broker = BrokerSettings::new(BrokerValues::default(), self.dynamic.clone());
        let streams = &mut self.streams;
        rows(store, b"s", "stream", faults, |key, value| {
            let id = stream_of(key).map_err(|error| error.to_string())?;
            let record = StreamRecord::decode(value).map_err(|error| error.to_string())?;
            if wanted.is_none_or(|wanted| wanted == record.name) {
                let settings = StreamSettings::effective(&record.overrides, &broker);
                streams.insert(id, Known { record, settings });
            }
            Ok(())
        });
        for (id, known) in &self.streams {
            for index in (0..known.record.lineage.partitions()).map(PartitionIndex) {
                let generations = generations(&known.record.lineage, index);
                let compacts = known.settings.cleanup_policy.compacts();
                let rows = Rows { generations, compacts, ..Rows::default() };
                self.partitions.insert(PartitionId { stream: *id, index }, rows);
            }
        }
    }

    fn read_partitions(&mut self, store: &dyn Store, faults: &mut Faults) {
        let partitions = &mut self.partitions;
        let offset = |bytes: Option<&[u8]>| Some(Offset::from_be_bytes(bytes?.try_into().ok()?));
        let no_offset = || "no offset where one should be".to_owned();
        rows(store, b"g", "segment", faults, |key, value| {
            let first_offset = offset(key.get(9..)).ok_or_else(no_offset)?;
            let Some(of) = parse_partition(key).and_then(|id| partitions.get_mut(&id)) else { return Ok(()) };
            let segment = Segment::decode(first_offset, value).ok_or("its layout cannot be parsed")?;
            of.segments.push(segment);
            Ok(())
        });
        rows(store, b"l", "log start", faults, |key, value| {
            let Some(of) = parse_partition(key).and_then(|id| partitions.get_mut(&id)) else { return Ok(()) };
            of.log_start = offset(Some(value)).ok_or_else(no_offset)?;
            Ok(())
        });
        rows(store, b"C", "progress of compaction", faults, |key, value| {
            let Some(of) = parse_partition(key).and_then(|id| partitions.get_mut(&id)) else { return Ok(()) };
            of.compacted = Some(Progress::decode(value).ok_or("its layout cannot be parsed")?);
            Ok(())
        });
    }

    fn read_keys(&mut self, store: &dyn Store, keys: &KeyRing, faults: &mut Faults) {
        let data_keys = &mut self.data_keys;
        rows(store, b"k", "data key", faults, |key, record| {
            let stream = stream_of(key.get(..5).unwrap_or_default()).map_err(|error| error.to_string())?;
            let number = key.get(5..).and_then(|number| number.try_into().ok()).ok_or("no number")?;
            let number = u32::from_be_bytes(number);
            keys.load(stream, number, record).map_err(|error| error.to_string())?;
            let unusable = keys.data_key(stream, number).err().map(|error| error.to_string());
            data_keys.entry(stream).or_default().push(DataKey { number, unusable });
            Ok(())
        });
    }

    fn judge_streams(&self, faults: &mut Faults) {
        let mut names: HashMap<&str, StreamId> = HashMap::new();
        for (id, Known { record, .. }) in &self.streams {
            if let Some(other) = names.insert(&record.name, *id) {
                faults.of_stream(&record.name, None, format_args!("streams {} and {} have this name", other.0, id.0));
            }
            if self.cluster.as_ref().is_some_and(|cluster| id.0 >= cluster.next_stream_id) {
                faults.of_stream(&record.name, None, format_args!("its number {} is not given out yet", id.0));
            }
            for fault in lineage_faults(&record.lineage) {
                faults.of_stream(&record.name, None, fault);
            }
            if let Some(encryption) = record.attributes.as_ref().and_then(|attributes| attributes.encryption.as_ref()) {
                let number = encryption.data_key_id;
                let stored = self.data_keys.get(id).into_iter().flatten().any(|key| key.number == number);
                if !stored {
                    faults.of_stream(&record.name, None, format_args!("its data key {number} is not stored"));
                }
            }
        }
    }

    /// The index by itself: no offset twice, and none missing that compaction has not taken.
    fn judge_rows(&self, faults: &mut Faults) {
        for (id, rows) in &self.partitions {
            let (name, partition) = (self.name(id.stream), Some(id.index.0));
            let mut next = rows.log_start;
            for (at, segment) in rows.segments.iter().enumerate() {
                let text = segment_text(segment);
                if segment.closed && segment.end_offset <= segment.first_offset {
                    faults.of_stream(name, partition, format_args!("{text} ends before it begins"));
                }
                if !segment.closed && at + 1 < rows.segments.len() {
                    faults.of_stream(name, partition, format_args!("{text} is open, with another behind it"));
                }
                if !segment.closed && segment.epoch != self.epoch || segment.epoch > self.epoch {
                    let now = self.epoch;
                    faults.of_stream(name, partition, format_args!("{text} cannot be written in epoch {now}"));
                }
                let first = segment.first_offset;
                if at > 0 && first < next {
                    faults.of_stream(
                        name,
                        partition,
                        format_args!("{text} begins before {next}, where the one before ends"),
                    );
                }
                if first > next && !rows.may_lack(first) {
                    faults.of_stream(name, partition, format_args!("the index lacks offsets {next}..{first}"));
                }
                next = next.max(segment.end_offset);
            }
        }
    }
}

fn generations(lineage: &Lineage, index: PartitionIndex) -> Vec<Generation> {
    let of_partition = lineage.shards().iter().filter(|shard| shard.partition == index);
    let mut generations: Vec<Generation> = of_partition
        .map(|shard| Generation {
            shard: shard.ordinal,
            start_offset: shard.start_offset,
            end_offset: shard.end_offset,
            leader_epoch: shard.leader_epoch,
        })
        .collect();
    generations.sort_by_key(|generation| (generation.start_offset, generation.leader_epoch));
    generations
}

/// What no reshard leaves behind.
fn lineage_faults(lineage: &Lineage) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = Some(0_u128);
    for shard in lineage.open_shards_by_hash_key() {
        let range = &shard.hash_key_range;
        if next != Some(range.start) {
            found.push(format!(
                "the hash keys before {} belong to no open shard, or to two ({})",
                range.start, shard.ordinal
            ));
        }
        next = range.end.checked_add(1);
    }
    if let Some(next) = next {
        found.push(format!("no open shard has the hash keys from {next} on"));
    }
    for index in (0..lineage.partitions()).map(PartitionIndex) {
        for pair in generations(lineage, index).windows(2) {
            let [before, behind] = pair else { continue };
            if before.leader_epoch >= behind.leader_epoch
                || before.end_offset.is_none_or(|end| end > behind.start_offset)
            {
                let (before, behind) = (before.shard, behind.shard);
                found.push(format!("on partition {} {behind} does not follow on {before}", index.0));
            }
        }
    }
    for shard in lineage.shards() {
        for parent in shard.parents.iter().filter_map(|parent| lineage.shard(*parent)) {
            if parent.is_open() {
                found.push(format!("{} is open, but {} is its child", parent.ordinal, shard.ordinal));
            }
            if parent.created_ms.div_euclid(1_000) >= shard.created_ms.div_euclid(1_000) {
                found.push(format!("{} is not younger than its parent {}", shard.ordinal, parent.ordinal));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(first_offset: Offset, end_offset: Offset, epoch: u32) -> Segment {
        Segment { end_offset, closed: true, ..Segment::open(first_offset, epoch, 0) }
    }

    #[test]
    fn a_batch_is_placed_by_epoch_and_offset() {
        let open = Segment::open(30, 4, 0);
        let mut rows =
            Rows { log_start: 12, segments: vec![closed(10, 20, 3), closed(22, 30, 2), open], ..Rows::default() };
        let cases = [
            ((3, 10), Place::Segment(0)),
            ((3, 19), Place::Segment(0)),
            ((2, 22), Place::Segment(1)),
            ((4, 30), Place::Segment(2)),
            ((4, 999), Place::Segment(2)),
            // Moved on since.
            ((1, 15), Place::Dead),
            // Trimmed.
            ((1, 9), Place::Dead),
        ];
        for ((epoch, offset), wanted) in cases {
            assert_eq!(rows.place(epoch, offset), wanted, "epoch {epoch}, offset {offset}");
        }
        for (epoch, offset) in [(4, 15), (3, 20), (3, 21)] {
            assert!(matches!(rows.place(epoch, offset), Place::Astray(_)), "epoch {epoch}, offset {offset}");
        }
        rows.compacted = Some(Progress { until: 22, horizon_ms: None });
        assert_eq!(rows.place(3, 21), Place::Dead);
        rows.segments.truncate(2);
        assert!(matches!(rows.place(4, 30), Place::Astray(_)), "behind the end of the index");
    }

    #[test]
    fn what_reshards_leave_is_sound() {
        use crate::model::shard::SplitAt;
        let mut lineage = Lineage::uniform(2.try_into().unwrap(), 1_000);
        lineage.split(ShardOrdinal(0), SplitAt::Midpoint, 10, 5_000).unwrap();
        lineage.merge(ShardOrdinal(1), ShardOrdinal(3), |_| 10, 9_000).unwrap();
        assert_eq!(lineage_faults(&lineage), Vec::<String>::new());
        let mut stored = serde_json::to_value(&lineage).unwrap();
        stored["shards"][2]["start_offset"] = 9.into();
        let misplaced: Lineage = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(lineage_faults(&misplaced).len(), 1);
        stored["shards"][2]["hash_key_range"]["end"] = "5".into();
        let torn: Lineage = serde_json::from_value(stored).unwrap();
        assert_eq!(lineage_faults(&torn).len(), 2);
    }
}
