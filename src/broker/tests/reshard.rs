//! Shards split, merge, scale, sleep and wake under both protocols' writers, restarts and expiries, against a model: a
//! reader that follows parents to children reads every record once, in the order of its sequence number; Kafka sees
//! partitions whose epochs and offsets fit, and idempotent producers notice nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::broker::put::{NewRecord, PutOutcome};
use crate::model::batch::Header;
use crate::model::sequence_number::SequenceNumber;
use crate::model::shard::{Lineage, Shard};

const RETENTION_MS: i64 = 60_000;
/// How many of its last batches a producer may send again.
const IN_FLIGHT: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    Split {
        pick: usize,
        at: Option<u128>,
    },
    Merge {
        pick: usize,
        lower_first: bool,
    },
    Scale {
        target: u32,
    },
    AddPartitions {
        more: u32,
    },
    /// To the shard that owns a hash key.
    Put {
        key: u8,
        records: usize,
    },
    /// To a partition, awake or not.
    Append {
        pick: usize,
        records: usize,
        idempotent: bool,
    },
    Resend {
        pick: usize,
        back: usize,
    },
    Advance {
        ms: i64,
    },
    Expire,
    Reclaim,
    /// What is written from now on is sealed at rest, or no longer.
    Encrypt(bool),
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<usize>(), proptest::option::of(any::<u128>())).prop_map(|(pick, at)| Step::Split { pick, at }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, lower_first)| Step::Merge { pick, lower_first }),
        1 => (1..7_u32).prop_map(|target| Step::Scale { target }),
        1 => (1..3_u32).prop_map(|more| Step::AddPartitions { more }),
        6 => (any::<u8>(), 1..4_usize).prop_map(|(key, records)| Step::Put { key, records }),
        12 => (any::<usize>(), 1..4_usize, proptest::bool::weighted(0.8))
            .prop_map(|(pick, records, idempotent)| Step::Append { pick, records, idempotent }),
        4 => (any::<usize>(), 0..IN_FLIGHT).prop_map(|(pick, back)| Step::Resend { pick, back }),
        2 => (0..12_000_i64).prop_map(|ms| Step::Advance { ms }),
        1 => Just(Step::Expire),
        1 => Just(Step::Reclaim),
        1 => any::<bool>().prop_map(Step::Encrypt),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// An idempotent producer that writes to one partition only.
#[derive(Default)]
struct Writer {
    sequence: i32,
    /// With what was answered.
    last: VecDeque<(Bytes, Option<Offset>)>,
}

struct Kept {
    append_ms: i64,
    /// Of a put.
    hash_key: Option<u128>,
}

struct Reshaped {
    rig: Rig,
    writers: BTreeMap<u32, Writer>,
    /// Every record that was acknowledged, in the order of that, and has not expired.
    kept: Vec<(Bytes, Kept)>,
    expired_before_ms: i64,
}

/// A record as a reader finds it.
struct Found {
    shard: Shard,
    sequence_number: SequenceNumber,
    value: Bytes,
}

impl Reshaped {
    async fn new(tail_bytes_max: usize) -> Reshaped {
        let rig = Rig::new(tail_bytes_max).await;
        let retention = rig
            .broker
            .alter_stream(&rig.stream, |_| Ok([("retention.ms".to_owned(), RETENTION_MS.to_string())].into()));
        retention.await.unwrap();
        Reshaped { rig, writers: BTreeMap::new(), kept: Vec::new(), expired_before_ms: i64::MIN }
    }

    fn handles(&self) -> (Arc<Broker>, Arc<Stream>) {
        (self.rig.broker.clone(), self.rig.stream.clone())
    }

    fn lineage(&self) -> Arc<Lineage> {
        self.rig.stream.lineage()
    }

    async fn change<T>(&self, change: impl FnOnce(&mut Draft<'_>) -> Result<T, LineageError>) -> bool {
        let changed = self.rig.broker.change_stream(&self.rig.stream, |draft| Ok::<_, CatalogError>(change(draft)?));
        changed.await.is_ok()
    }

    async fn take(&mut self, step: &Step) {
        let open: Vec<Shard> = self.lineage().open_shards_by_hash_key().cloned().collect();
        let partitions = self.lineage().partitions();
        match *step {
            Step::Split { pick, at } => {
                let at = at.map_or(SplitAt::Midpoint, SplitAt::HashKey);
                // Refused where the hash key lies outside.
                self.change(|draft| draft.split(open[pick % open.len()].ordinal, at)).await;
            }
            Step::Merge { pick, lower_first } if open.len() > 1 => {
                let at = pick % (open.len() - 1);
                let (a, b) = (open[at].ordinal, open[at + 1].ordinal);
                let (a, b) = if lower_first { (a, b) } else { (b, a) };
                assert!(self.change(|draft| draft.merge(a, b)).await);
            }
            Step::Merge { .. } => {}
            Step::Scale { target } => {
                assert!(self.change(|draft| draft.scale(NonZeroU32::new(target).unwrap())).await);
                assert_eq!(self.lineage().open_count(), target);
            }
            Step::AddPartitions { more } => {
                self.rig.broker.add_partitions(&self.rig.stream, partitions + more).await.unwrap();
                assert_eq!((self.lineage().partitions(), self.lineage().dormant().count()), (partitions + more, 0));
            }
            Step::Put { key, records } => {
                let hash_key = u128::from(key) << 120 | 77;
                let shard = self.lineage().shard_for_hash_key(hash_key).unwrap().clone();
                let at = self.append(shard.partition, records, None, Some(hash_key)).await;
                assert!(at.is_some_and(|offset| offset >= shard.start_offset));
            }
            Step::Append { pick, records, idempotent } => {
                let index = PartitionIndex(pick as u32 % partitions);
                let sequence = idempotent.then(|| self.writers.entry(index.0).or_default().sequence);
                let at = self.append(index, records, sequence, None).await;
                assert_eq!(at.is_none(), self.lineage().is_dormant(index));
            }
            Step::Resend { pick, back } => self.resend(pick as u32 % partitions, back).await,
            Step::Advance { ms } => self.rig.clock.advance(ms),
            Step::Expire => self.expire().await,
            Step::Reclaim => self.rig.broker.reclaim().await.unwrap(),
            Step::Encrypt(on) => self.rig.take(&super::Step::Encrypt(on)).await,
            Step::Kill => self.restart(&super::Step::Kill).await,
            Step::Stop => self.restart(&super::Step::Stop).await,
        }
    }

    async fn append(
        &mut self,
        index: PartitionIndex,
        records: usize,
        sequence: Option<i32>,
        hash_key: Option<u128>,
    ) -> Option<Offset> {
        self.rig.written += 1;
        let producer = |base_sequence| Producer { id: index.0.into(), epoch: 0, base_sequence, transactional: false };
        let bytes = values(b"kept", self.rig.written, records, sequence.map(producer));
        let append_ms = self.rig.clock.now_ms();
        let ticket = self.rig.broker.append(&self.rig.stream, index, &bytes, Terms::default()).unwrap();
        let base_offset = ticket.committed().await.unwrap().base_offset;
        for record in batch::records(&bytes).unwrap() {
            self.kept.push((record.unwrap().value.unwrap(), Kept { append_ms, hash_key }));
        }
        if let (Some(_), Some(writer)) = (sequence, self.writers.get_mut(&index.0)) {
            writer.sequence += records as i32;
            writer.last.push_front((bytes, base_offset));
            writer.last.truncate(IN_FLIGHT);
        }
        base_offset
    }

    async fn resend(&mut self, index: u32, back: usize) {
        let Some((bytes, answered)) = self.writers.get(&index).and_then(|writer| writer.last.get(back)) else { return };
        let ticket = self.rig.broker.append(&self.rig.stream, PartitionIndex(index), bytes, Terms::default()).unwrap();
        assert_eq!(ticket.committed().await.unwrap().base_offset, *answered, "partition {index}");
    }

    async fn expire(&mut self) {
        self.rig.broker.expire(&self.rig.stream).await.unwrap();
        self.rig.broker.forget_shards(&self.rig.stream).await.unwrap();
        self.expired_before_ms = self.rig.clock.now_ms() - RETENTION_MS;
        self.kept.retain(|(_, kept)| kept.append_ms >= self.expired_before_ms);
    }

    async fn restart(&mut self, how: &super::Step) {
        let before = self.lineage();
        self.rig.take(how).await;
        assert_eq!(before, self.lineage());
    }

    /// Every record of the shard that is still there.
    async fn read(&self, shard: &Shard) -> Vec<Found> {
        let partition = self.rig.stream.partition(shard.partition).unwrap();
        let end = shard.end_offset.unwrap_or_else(|| partition.end_offset());
        let mut next = shard.start_offset.max(partition.log_start());
        let mut found = Vec::new();
        while next < end {
            let page = self.rig.broker.read(&partition, next, end, 300).await.unwrap();
            assert!(!page.is_empty(), "nothing at {next} of {shard:?}");
            for stored in page {
                let bytes = stored.batch();
                assert_eq!(Header::parse(&bytes).unwrap().partition_leader_epoch, shard.leader_epoch, "{shard:?}");
                for record in batch::records(&bytes).unwrap() {
                    let record = record.unwrap();
                    let sequence_number = shard.sequence_number(record.offset, stored.append_time_ms());
                    found.push(Found { shard: shard.clone(), sequence_number, value: record.value.unwrap() });
                }
                next = stored.last_offset + 1;
            }
        }
        assert_eq!(next.max(end), next, "a batch lies in two shards");
        found
    }

    /// Reads from the oldest shards on, children after all their parents.
    async fn read_by_parentage(&self) -> Vec<Found> {
        let lineage = self.lineage();
        let known = |ordinal: &ShardOrdinal| lineage.shard(*ordinal).is_some();
        let mut found = Vec::new();
        let mut done: BTreeSet<ShardOrdinal> = BTreeSet::new();
        let roots = lineage.shards().iter().filter(|shard| !shard.parents.iter().any(known));
        let mut next: VecDeque<Shard> = roots.cloned().collect();
        while let Some(shard) = next.pop_front() {
            let of_shard = self.read(&shard).await;
            let numbers: Vec<_> = of_shard.iter().map(|found| found.sequence_number).collect();
            assert!(numbers.iter().all(|number| *number > shard.starting_sequence_number()));
            assert!(shard.ending_sequence_number().is_none_or(|end| numbers.iter().all(|number| *number < end)));
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
            found.extend(of_shard);
            done.insert(shard.ordinal);
            for child in lineage.children(shard.ordinal) {
                assert!(shard.ending_sequence_number().unwrap() < child.starting_sequence_number());
                // A merge's child is read once, behind the later of its parents.
                if child.parents.iter().all(|parent| done.contains(parent) || !known(parent)) {
                    next.push_back(child.clone());
                }
            }
        }
        assert_eq!(done.len(), lineage.shards().len(), "a shard is nobody's child");
        found
    }

    async fn check(&self) {
        let found = self.read_by_parentage().await;
        let mut values: Vec<_> = found.iter().map(|found| found.value.clone()).collect();
        let mut wanted: Vec<_> = self.kept.iter().map(|(value, _)| value.clone()).collect();
        values.sort();
        wanted.sort();
        assert_eq!(values, wanted);
        self.check_keys(&found);
        self.check_kafka().await;
    }

    /// Puts of one hash key are read in the order of their acknowledgement, each from a shard that owns the key.
    fn check_keys(&self, found: &[Found]) {
        let by_value: HashMap<&Bytes, &Found> = found.iter().map(|found| (&found.value, found)).collect();
        let mut last: HashMap<u128, SequenceNumber> = HashMap::new();
        for (value, kept) in &self.kept {
            let Some(hash_key) = kept.hash_key else { continue };
            let found = by_value[value];
            assert!(found.shard.hash_key_range.contains(hash_key));
            let before = last.insert(hash_key, found.sequence_number);
            assert!(before.is_none_or(|before| before < found.sequence_number));
        }
    }

    /// Every partition is readable from end to end, and its epochs end where the next ones begin.
    async fn check_kafka(&self) {
        let lineage = self.lineage();
        let mut ranges: Vec<_> = lineage.open_shards().map(|shard| shard.hash_key_range).collect();
        ranges.sort_by_key(|range| range.start);
        assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, u128::MAX));
        assert!(ranges.windows(2).all(|pair| pair[0].end + 1 == pair[1].start));
        let epochs = self.rig.stream.leader_epochs();
        assert_eq!(epochs.len() as u32, self.rig.stream.partition_count());
        for (index, leader_epoch) in epochs.into_iter().enumerate() {
            let index = PartitionIndex(index as u32);
            let log = self.rig.stream.partition(index).unwrap();
            let latest = self.rig.stream.end_offset_for_epoch(index, leader_epoch).unwrap();
            assert_eq!(latest, (leader_epoch, log.end_offset()), "partition {index:?}");
            let records = read_all(&self.rig.broker, &self.rig.stream, index.0, log.log_start()).await;
            assert_eq!(records.len() as Offset, log.end_offset() - log.log_start());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_shards_every_record_is_read_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..90),
        tail_bytes_max in prop_oneof![Just(0_usize), Just(1_000)],
    ) {
        runtime().block_on(async {
            let mut reshaped = Reshaped::new(tail_bytes_max).await;
            for step in &steps {
                reshaped.take(step).await;
            }
            reshaped.expire().await;
            reshaped.check().await;
            for how in [Step::Kill, Step::Stop] {
                reshaped.take(&how).await;
                reshaped.check().await;
            }
            // Every producer still knows where it is.
            for index in reshaped.writers.keys().copied().collect::<Vec<_>>() {
                for back in 0..IN_FLIGHT {
                    reshaped.resend(index, back).await;
                }
                reshaped.take(&Step::Append { pick: index as usize, records: 1, idempotent: true }).await;
            }
            reshaped.check().await;
        });
    }
}

#[test]
fn no_append_straddles_a_change_of_shards() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    threads.block_on(async {
        let mut reshaped = Reshaped::new(100_000).await;
        let writers: Vec<_> =
            (0..PARTITIONS).map(|index| tokio::spawn(append_all(reshaped.handles(), index))).collect();
        let putter = tokio::spawn(put_all(reshaped.handles()));
        let mut change = 0_usize;
        while !putter.is_finished() || writers.iter().any(|writer| !writer.is_finished()) || change < 20 {
            change += 1;
            let pick = change.wrapping_mul(7_919);
            let step = match reshaped.lineage().open_count() < 2 + change as u32 % 4 {
                true => Step::Split { pick, at: None },
                false => Step::Merge { pick, lower_first: true },
            };
            reshaped.take(&step).await;
        }
        let append_ms = reshaped.rig.clock.now_ms();
        for (value, hash_key) in putter.await.unwrap() {
            reshaped.kept.push((value, Kept { append_ms, hash_key: Some(hash_key) }));
        }
        for (index, writer) in writers.into_iter().enumerate() {
            let (values, writer) = writer.await.unwrap();
            reshaped.kept.extend(values.into_iter().map(|value| (value, Kept { append_ms, hash_key: None })));
            reshaped.writers.insert(index as u32, writer);
        }
        for _ in 0..2 {
            reshaped.check().await;
            for (index, back) in (0..PARTITIONS).flat_map(|index| (0..IN_FLIGHT).map(move |back| (index, back))) {
                reshaped.resend(index, back).await;
            }
            reshaped.check().await;
            reshaped.restart(&super::Step::Kill).await;
        }
    });
}

const EACH: u64 = 300;

/// An idempotent producer of one partition that does not wait for answers, and sends some batches twice.
async fn append_all((broker, stream): (Arc<Broker>, Arc<Stream>), index: u32) -> (Vec<Bytes>, Writer) {
    let (mut sent, mut kept, mut writer) = (Vec::new(), Vec::new(), Writer::default());
    for n in 0..EACH {
        let producer = Producer { id: index.into(), epoch: 0, base_sequence: n as i32, transactional: false };
        let bytes = values(format!("of-{index}").as_bytes(), n, 1, Some(producer));
        let again = bytes.clone();
        let times = if n % 5 == 0 { vec![bytes, again] } else { vec![bytes] };
        for bytes in times {
            let ticket = broker.append(&stream, PartitionIndex(index), &bytes, Terms::default()).unwrap();
            sent.push((bytes, ticket));
        }
        tokio::task::yield_now().await;
    }
    for (bytes, ticket) in sent {
        let base_offset = ticket.committed().await.unwrap().base_offset;
        match writer.last.front() {
            // The answer to the first copy is the answer to the second.
            Some((before, answered)) if *before == bytes => assert_eq!(*answered, base_offset),
            _ => {
                kept.extend(batch::records(&bytes).unwrap().map(|record| record.unwrap().value.unwrap()));
                writer.last.push_front((bytes, base_offset));
                writer.last.truncate(IN_FLIGHT);
            }
        }
    }
    (kept, writer)
}

/// Puts to three hash keys; every record with its key, in order.
async fn put_all((broker, stream): (Arc<Broker>, Arc<Stream>)) -> Vec<(Bytes, u128)> {
    let (mut kept, mut tickets) = (Vec::new(), Vec::new());
    for n in 0..EACH {
        let put: Vec<(Bytes, u128)> =
            (0..3).map(|key| (Bytes::from(format!("put-{n}-{key}")), u128::MAX / 3 * key)).collect();
        let records: Vec<NewRecord<'_>> = put
            .iter()
            .map(|(data, hash_key)| NewRecord { partition_key: Some("k"), hash_key: Some(*hash_key), data })
            .collect();
        tickets.push(broker.put(&stream, &records).unwrap());
        kept.extend(put);
        tokio::task::yield_now().await;
    }
    for ticket in tickets {
        let outcomes = ticket.committed().await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Kept { .. })), "{outcomes:?}");
    }
    kept
}
