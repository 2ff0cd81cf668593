//! Any history of a stream: splits, merges, scalings, added partitions, appends, expiries and restarts in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Split {
        pick: usize,
        at: Option<u128>,
    },
    Merge {
        pick: usize,
        reversed: bool,
    },
    Scale {
        target: u32,
    },
    Add {
        more: u32,
    },
    /// Addressed to a partition that may sleep.
    Append {
        pick: u32,
        records: i64,
    },
    /// Closed shards whose ordinal is a multiple of this plus one.
    Forget {
        every: u32,
    },
    Restart,
    Elapse {
        ms: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<usize>(), proptest::option::of(any::<u128>())).prop_map(|(pick, at)| Step::Split { pick, at }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, reversed)| Step::Merge { pick, reversed }),
        1 => (1..12u32).prop_map(|target| Step::Scale { target }),
        1 => (0..4u32).prop_map(|more| Step::Add { more }),
        6 => (any::<u32>(), 1..50i64).prop_map(|(pick, records)| Step::Append { pick, records }),
        1 => (0..3u32).prop_map(|every| Step::Forget { every }),
        1 => Just(Step::Restart),
        2 => (-500..3_000i64).prop_map(|ms| Step::Elapse { ms }),
    ]
}

/// A stream's lineage beside what its logs would hold.
struct History {
    lineage: Lineage,
    log_ends: Vec<Offset>,
    now_ms: i64,
    /// Where records went: partition, first offset, and the shard that took them.
    records: Vec<(PartitionIndex, Offset, ShardOrdinal)>,
    /// Starting and ending numbers of every shard there was, and its parents.
    numbers: BTreeMap<ShardOrdinal, (SequenceNumber, Option<SequenceNumber>, Vec<ShardOrdinal>)>,
    epochs: Vec<i32>,
}

impl History {
    fn new(partitions: u32) -> History {
        History {
            lineage: Lineage::uniform(NonZeroU32::new(partitions).unwrap(), 1_000),
            log_ends: vec![0; partitions as usize],
            now_ms: 1_000,
            records: Vec::new(),
            numbers: BTreeMap::new(),
            epochs: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let before = self.lineage.clone();
        let ends = self.log_ends.clone();
        let end_of = |partition: PartitionIndex| ends[partition.0 as usize];
        let lineage = &mut self.lineage;
        match step {
            Step::Split { pick, at } => {
                let open: Vec<_> = before.open_shards().collect();
                let shard = open[pick % open.len()];
                let at = at.map_or(SplitAt::Midpoint, SplitAt::HashKey);
                let split = lineage.split(shard.ordinal, at, end_of(shard.partition), self.now_ms);
                assert_eq!(lineage.open_count(), before.open_count() + u32::from(split.is_ok()));
                assert!(split.is_ok() || *lineage == before);
            }
            Step::Merge { pick, reversed } => {
                let open: Vec<_> = before.open_shards_by_hash_key().map(|shard| shard.ordinal).collect();
                let (low, high) = (pick % open.len(), (pick + 1) % open.len());
                let (a, b) = if reversed { (open[high], open[low]) } else { (open[low], open[high]) };
                let merged = lineage.merge(a, b, end_of, self.now_ms);
                // The last and the first are neighbours only if there are two.
                assert_eq!(merged.is_ok(), low + 1 == high || open.len() == 2);
                assert!(merged.is_ok() || *lineage == before);
            }
            Step::Scale { target } => {
                lineage.scale(NonZeroU32::new(target).unwrap(), end_of, self.now_ms).unwrap();
                let ranges: Vec<_> = lineage.open_shards_by_hash_key().map(|shard| shard.hash_key_range).collect();
                assert_eq!(ranges, range::uniform(NonZeroU32::new(target).unwrap()).collect::<Vec<_>>());
            }
            Step::Add { more } => {
                let target = before.partitions() + more;
                assert_eq!(lineage.add_partitions(target, end_of, self.now_ms).is_ok(), more > 0);
                assert!(more == 0 || (lineage.partitions(), lineage.open_count()) == (target, target));
            }
            Step::Append { pick, records } => {
                let shard = lineage.absorbing(PartitionIndex(pick % lineage.partitions())).unwrap();
                let end = &mut self.log_ends[shard.partition.0 as usize];
                self.records.push((shard.partition, *end, shard.ordinal));
                *end += records;
                self.records.push((shard.partition, *end - 1, shard.ordinal));
            }
            Step::Forget { every } => {
                lineage.forget(|shard| shard.ordinal.0 % (every + 1) == 0);
            }
            Step::Restart => {
                *lineage = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
                assert_eq!(*lineage, before);
            }
            Step::Elapse { ms } => self.now_ms += ms,
        }
        assert!(lineage.partitions() >= before.partitions(), "partitions went away");
        self.log_ends.resize(lineage.partitions() as usize, 0);
    }

    fn check(&mut self) {
        self.check_hash_keys();
        self.check_partitions();
        self.check_numbers();
        for (partition, offset, taken_by) in &self.records {
            let holds = |shard: &&Shard| {
                let end = shard.end_offset.unwrap_or(Offset::MAX);
                shard.partition == *partition && (shard.start_offset..end).contains(offset)
            };
            let holders: Vec<_> = self.lineage.shards().iter().filter(holds).map(|shard| shard.ordinal).collect();
            let expected = self.lineage.shard(*taken_by).map(|shard| shard.ordinal);
            assert_eq!(holders, Vec::from_iter(expected), "a record is not in the shard that took it alone");
        }
    }

    fn check_hash_keys(&self) {
        let open: Vec<_> = self.lineage.open_shards_by_hash_key().collect();
        assert_eq!((open[0].hash_key_range.start, open[open.len() - 1].hash_key_range.end), (0, u128::MAX));
        for pair in open.windows(2) {
            assert_eq!(pair[0].hash_key_range.end + 1, pair[1].hash_key_range.start, "a gap or an overlap");
        }
        assert_eq!((self.lineage.open_shards().count(), self.lineage.open_count() as usize), (open.len(), open.len()));
        for shard in open {
            for key in [shard.hash_key_range.start, shard.hash_key_range.end] {
                assert_eq!(self.lineage.shard_for_hash_key(key), Some(shard));
            }
        }
    }

    fn check_partitions(&mut self) {
        let lineage = &self.lineage;
        for partition in (0..lineage.partitions()).map(PartitionIndex) {
            let open: Vec<_> = lineage.open_shards().filter(|shard| shard.partition == partition).collect();
            assert_eq!(open.len(), usize::from(!lineage.is_dormant(partition)), "not one open shard");
            assert_eq!(open.first().copied(), lineage.open_shard_on(partition));
            let absorbing = lineage.absorbing(partition).unwrap();
            assert!(absorbing.is_open() && open.first().is_none_or(|own| *own == absorbing));
            let epochs: Vec<_> = lineage.epochs(partition).collect();
            for pair in epochs.windows(2) {
                assert!(pair[0].0 < pair[1].0, "an epoch went back");
                let meet = pair[0].2 == Some(pair[1].1);
                assert!(meet || pair[0].0 + 1 < pair[1].0 && pair[0].2 < Some(pair[1].1), "generations do not meet");
            }
            let log_end = self.log_ends[partition.0 as usize];
            let latest = lineage.leader_epoch(partition).unwrap();
            assert_eq!(lineage.end_offset_for_epoch(partition, latest, log_end), (latest, log_end));
            assert!(open.first().is_none_or(|own| own.leader_epoch == latest && own.start_offset <= log_end));
        }
        let epochs = lineage.leader_epochs();
        assert!(self.epochs.iter().zip(&epochs).all(|(before, now)| before <= now), "an epoch went back");
        self.epochs = epochs;
    }

    fn check_numbers(&mut self) {
        for shard in self.lineage.shards() {
            let (start, end) = (shard.starting_sequence_number(), shard.ending_sequence_number());
            let known = self.numbers.entry(shard.ordinal).or_insert_with(|| (start, end, shard.parents.clone()));
            assert_eq!((known.0, &known.2), (start, &shard.parents), "an ordinal was reused");
            known.1 = end;
            assert!(end.is_none_or(|end| start < end));
            for child in self.lineage.children(shard.ordinal) {
                assert_eq!(shard.closed_ms, Some(child.created_ms));
                assert!(end.is_some_and(|end| end < child.starting_sequence_number()));
            }
        }
        for (start, _, parents) in self.numbers.values() {
            for parent in parents {
                let (parent_start, ..) = self.numbers[parent];
                assert!(parent_start.created_s < start.created_s, "a child does not sort after its parent");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_invariants(partitions in 1..7u32, steps in prop::collection::vec(step(), 0..40)) {
        let mut history = History::new(partitions);
        for step in steps {
            history.take(step);
            history.check();
        }
    }
}
