//! Random histories: producers that write, end and begin again, shards that move under them, kills, trims, moved segments.
//! Each log is copied batch by batch into a [`Shadow`]; what is open, aborted and stable follows from that alone, and has
//! to be what the log says, to a Kafka client and to a Kinesis reader, and what became of each transaction by its end.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;
use crate::broker::shards::PageLimits;

const PRODUCERS: usize = 3;

#[derive(Clone, Debug)]
enum Act {
    Write {
        producer: usize,
        pick: usize,
        records: usize,
    },
    End {
        producer: usize,
        commit: bool,
        /// As from transaction.version 2 on: the marker has a new epoch.
        bump: bool,
    },
    /// The broker is killed when the end is queued but not committed.
    Cut {
        producer: usize,
    },
    /// The batch written last comes again.
    Resend {
        producer: usize,
    },
    Plain {
        pick: usize,
    },
    Scale {
        target: u32,
    },
    Trim {
        pick: usize,
        keep: Offset,
    },
    Of(Step),
    Check,
}

fn act() -> impl Strategy<Value = Act> {
    let producer = 0..PRODUCERS;
    let pick = 0..8_usize;
    prop_oneof![
        10 => (producer.clone(), pick.clone(), 1..4_usize)
            .prop_map(|(producer, pick, records)| Act::Write { producer, pick, records }),
        5 => (producer.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(producer, commit, bump)| Act::End { producer, commit, bump }),
        1 => producer.clone().prop_map(|producer| Act::Cut { producer }),
        2 => producer.prop_map(|producer| Act::Resend { producer }),
        2 => pick.clone().prop_map(|pick| Act::Plain { pick }),
        2 => (1..5_u32).prop_map(|target| Act::Scale { target }),
        2 => (pick, 0..12_i64).prop_map(|(pick, keep)| Act::Trim { pick, keep }),
        2 => Just(Act::Of(Step::Reclaim)),
        1 => Just(Act::Of(Step::Kill)),
        1 => Just(Act::Of(Step::Stop)),
        1 => any::<bool>().prop_map(|on| Act::Of(Step::Encrypt(on))),
        1 => (1..10_usize).prop_map(|batches| Act::Of(Step::Churn { batches })),
        1 => Just(Act::Check),
    ]
}

#[derive(Default)]
struct Client {
    epoch: i16,
    /// By partition, in this epoch.
    sequences: HashMap<u32, i32>,
    /// The open transaction: its number, and its partitions.
    transaction: Option<(usize, BTreeSet<u32>)>,
    last: Option<(u32, Bytes, Option<Offset>)>,
}

/// One batch of a log.
struct Copied {
    offset: Offset,
    last_offset: Offset,
    producer_id: i64,
    /// Of a marker: whether it commits.
    marker: Option<bool>,
    transactional: bool,
    values: Vec<(Offset, Bytes)>,
}

/// A log as it was written, what was trimmed since as well.
#[derive(Default)]
struct Shadow {
    batches: Vec<Copied>,
    end: Offset,
}

struct Run {
    rig: Rig,
    clients: Vec<Client>,
    logs: BTreeMap<u32, Shadow>,
    /// What became of each transaction; `None` while it is open.
    outcomes: Vec<Option<bool>>,
    /// Which transaction a value was written in, if in one.
    written: HashMap<Bytes, Option<usize>>,
}

impl Run {
    async fn new(tail_bytes_max: usize) -> Run {
        Run {
            rig: Rig::new(tail_bytes_max).await,
            clients: (0..PRODUCERS).map(|_| Client::default()).collect(),
            logs: BTreeMap::new(),
            outcomes: Vec::new(),
            written: HashMap::new(),
        }
    }

    fn partition(&self, pick: usize) -> u32 {
        pick as u32 % self.rig.stream.partition_count()
    }

    async fn take(&mut self, act: &Act) {
        match *act {
            Act::Write { producer, pick, records } => self.write(producer, pick, records).await,
            Act::End { producer, commit, bump } => self.end(producer, commit, bump).await,
            Act::Cut { producer } => self.cut(producer).await,
            Act::Resend { producer } => self.resend(producer).await,
            Act::Plain { pick } => {
                let index = PartitionIndex(self.partition(pick));
                let bytes = self.note(1, None, None);
                let ticket = self.rig.broker.append(&self.rig.stream, index, &bytes, Terms::default()).unwrap();
                ticket.committed().await.unwrap();
            }
            Act::Scale { target } => {
                let target = NonZeroU32::new(target).unwrap();
                let scale = |draft: &mut Draft<'_>| draft.scale(target).map_err(CatalogError::from);
                self.rig.broker.change_stream(&self.rig.stream, scale).await.unwrap();
            }
            Act::Trim { pick, keep } => {
                // What goes is copied first.
                self.copy().await;
                let log = self.rig.stream.partition(PartitionIndex(self.partition(pick))).unwrap();
                self.rig.broker.trim(&log, log.end_offset() - keep).await.unwrap();
            }
            Act::Of(ref step) => {
                self.copy().await;
                self.rig.take(step).await;
            }
            Act::Check => self.check().await,
        }
    }

    /// A batch whose values are told from all others.
    fn note(&mut self, records: usize, producer: Option<Producer>, transaction: Option<usize>) -> Bytes {
        self.rig.written += 1;
        let bytes = values(b"kept", self.rig.written, records, producer);
        for record in batch::records(&bytes).unwrap() {
            self.written.insert(record.unwrap().value.unwrap(), transaction);
        }
        bytes
    }

    async fn write(&mut self, producer: usize, pick: usize, records: usize) {
        let index = self.partition(pick);
        let number = match &self.clients[producer].transaction {
            Some((number, _)) => *number,
            None => {
                self.outcomes.push(None);
                self.outcomes.len() - 1
            }
        };
        let client = &mut self.clients[producer];
        client.transaction.get_or_insert((number, BTreeSet::new())).1.insert(index);
        let sequence = client.sequences.entry(index).or_default();
        let by = transactional(producer as i64, client.epoch, *sequence);
        *sequence += records as i32;
        let bytes = self.note(records, by, Some(number));
        let ticket = self.rig.broker.append(&self.rig.stream, PartitionIndex(index), &bytes, TRANSACTIONAL).unwrap();
        let at = ticket.committed().await.unwrap().base_offset;
        self.clients[producer].last = Some((index, bytes, at));
    }

    async fn end(&mut self, producer: usize, commit: bool, bump: bool) {
        let client = &mut self.clients[producer];
        let Some((number, partitions)) = client.transaction.take() else { return };
        if bump {
            client.epoch += 1;
            client.sequences.clear();
            client.last = None;
        }
        let epoch = client.epoch;
        let partitions: Vec<u32> = partitions.into_iter().collect();
        self.rig.end(producer as i64, epoch, commit, &partitions).await;
        self.outcomes[number] = Some(commit);
    }

    async fn cut(&mut self, producer: usize) {
        let client = &self.clients[producer];
        let Some((_, indexes)) = &client.transaction else { return };
        let partitions = indexes.iter().map(|index| (self.rig.stream.clone(), PartitionIndex(*index))).collect();
        let held = self.rig.store.hold_commits();
        let end = End {
            producer_id: producer as i64,
            producer_epoch: client.epoch + 1,
            coordinator_epoch: 0,
            commit: true,
            partitions,
        };
        let ended = self.rig.broker.end_transaction(end, Batch::default());
        let killed = Arc::new(self.rig.store.survivor(false));
        drop(held);
        ended.await.unwrap().unwrap();
        self.rig.store = killed;
        self.rig.reopen();
    }

    async fn resend(&mut self, producer: usize) {
        let Some((index, bytes, at)) = self.clients[producer].last.clone() else { return };
        let ticket = self.rig.broker.append(&self.rig.stream, PartitionIndex(index), &bytes, TRANSACTIONAL).unwrap();
        assert_eq!(ticket.committed().await.unwrap().base_offset, at);
    }

    /// Takes what the logs have grown by into the shadows.
    async fn copy(&mut self) {
        for log in self.rig.stream.partitions() {
            let shadow = self.logs.entry(log.id.index.0).or_default();
            while shadow.end < log.end_offset() {
                for stored in self.rig.broker.read(&log, shadow.end, Offset::MAX, 1_000).await.unwrap() {
                    let bytes = stored.batch();
                    let header = Header::parse(&bytes).unwrap();
                    let marker = Marker::of(&bytes).map(|marker| marker.commit);
                    let records = batch::records(&bytes).unwrap().map(Result::unwrap).filter(|_| marker.is_none());
                    assert_eq!(stored.base_offset, shadow.end, "a hole in the log");
                    shadow.end = stored.last_offset + 1;
                    shadow.batches.push(Copied {
                        offset: stored.base_offset,
                        last_offset: stored.last_offset,
                        producer_id: header.producer_id,
                        marker,
                        transactional: header.is_transactional(),
                        values: records.map(|record| (record.offset, record.value.unwrap())).collect(),
                    });
                }
            }
        }
    }

    async fn check(&mut self) {
        self.copy().await;
        for log in self.rig.stream.partitions() {
            let shadow = &self.logs[&log.id.index.0];
            let (open, aborted) = shadow.transactions();
            let (log_start, end) = (log.log_start(), log.end_offset());
            let stable = open.values().min().map_or(end, |first| (*first).clamp(log_start, end));
            assert_eq!((shadow.end, log.last_stable_offset()), (end, stable), "{}", log.id);
            for producer in 0..PRODUCERS as i64 {
                assert_eq!(log.is_in_transaction(producer), open.contains_key(&producer), "{}", log.id);
            }
            for (from, to) in [(log_start, end), (log_start, stable), (log_start + 3, stable - 2), (end - 4, end)] {
                let wanted: Vec<_> = aborted
                    .iter()
                    .filter(|(_, first, last)| *last >= from.max(log_start) && *first < to)
                    .copied()
                    .collect();
                let told = log.aborted_within(from, to);
                let told: Vec<_> =
                    told.iter().map(|one| (one.producer_id, one.first_offset, one.last_offset)).collect();
                assert_eq!(told, wanted, "{} {from}..{to}", log.id);
            }
            let visible = self.visible(shadow, log_start, stable);
            assert_eq!(self.consume(&log, stable).await, visible, "{}", log.id);
        }
        self.check_kinesis().await;
    }

    /// What of a log a reader of committed records is to see; every batch is what became of its transaction.
    fn visible(&self, shadow: &Shadow, log_start: Offset, stable: Offset) -> Vec<(Offset, Bytes)> {
        let (open, aborted) = shadow.transactions();
        let mut visible = Vec::new();
        for copied in shadow.batches.iter().filter(|copied| copied.marker.is_none()) {
            let outcome = match copied.transactional {
                false => Some(true),
                true if open.get(&copied.producer_id).is_some_and(|first| *first <= copied.offset) => None,
                true => Some(!aborted.iter().any(|(producer, first, last)| {
                    *producer == copied.producer_id && (*first..*last).contains(&copied.offset)
                })),
            };
            for (offset, value) in &copied.values {
                let expected = self.written[value].map_or(Some(true), |number| self.outcomes[number]);
                assert_eq!(outcome, expected, "{value:?} at {offset}");
                if outcome == Some(true) && *offset >= log_start && copied.last_offset < stable {
                    visible.push((*offset, value.clone()));
                }
            }
        }
        visible
    }

    /// As Kafka's clients read, page by page, with the aborted transactions that come with each.
    async fn consume(&self, log: &Arc<crate::log::partition::Partition>, stable: Offset) -> Vec<(Offset, Bytes)> {
        let mut found = Vec::new();
        let mut next = log.log_start();
        while next < stable {
            let mut page = self.rig.broker.read(log, next, stable, 300).await.unwrap();
            let mut told = log.aborted_among(&mut page);
            told.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
            let mut aborted = HashSet::new();
            for stored in page {
                while let Some(one) = told.pop_if(|one| one.first_offset <= stored.last_offset) {
                    aborted.insert(one.producer_id);
                }
                let bytes = stored.batch();
                let header = Header::parse(&bytes).unwrap();
                if header.is_control() {
                    aborted.remove(&header.producer_id);
                } else if !header.is_transactional() || !aborted.contains(&header.producer_id) {
                    let records = batch::records(&bytes).unwrap().map(Result::unwrap);
                    let wanted = records.filter(|record| record.offset >= next);
                    found.extend(wanted.map(|record| (record.offset, record.value.unwrap())));
                }
                next = stored.last_offset + 1;
            }
        }
        found
    }

    /// All shards together show what the logs do, and a reader who has had it is not behind.
    async fn check_kinesis(&self) {
        let limits = PageLimits { records_max: 3, bytes_max: 200 };
        let mut found = Vec::new();
        for shard in self.rig.stream.lineage().shards() {
            let span = self.rig.stream.span(shard.ordinal).unwrap();
            let mut next = shard.start_offset;
            loop {
                let page = self.rig.broker.read_shard(&self.rig.stream, &span, next, limits).await.unwrap();
                assert!(page.records.iter().all(|record| record.offset >= next && record.offset < span.end));
                found.extend(page.records.into_iter().map(|record| (shard.partition.0, record.offset, record.value)));
                if page.next == next || page.next >= span.end {
                    assert_eq!((page.behind_ms, page.ended), (0, span.is_ended_at(page.next)));
                    break;
                }
                next = page.next;
            }
        }
        let mut wanted = Vec::new();
        for log in self.rig.stream.partitions() {
            let index = log.id.index.0;
            let visible = self.visible(&self.logs[&index], log.log_start(), log.last_stable_offset());
            wanted.extend(visible.into_iter().map(|(offset, value)| (index, offset, Some(value))));
        }
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}

/// `(producer, first, last)`.
type Abort = (i64, Offset, Offset);

impl Shadow {
    /// Where open transactions begin, by producer; those aborted.
    fn transactions(&self) -> (HashMap<i64, Offset>, Vec<Abort>) {
        let (mut open, mut aborted) = (HashMap::new(), Vec::new());
        for copied in self.batches.iter().filter(|copied| copied.transactional) {
            match copied.marker {
                None => {
                    open.entry(copied.producer_id).or_insert(copied.offset);
                }
                Some(commit) => {
                    let begun = open.remove(&copied.producer_id).filter(|_| !commit);
                    aborted.extend(begun.map(|first| (copied.producer_id, first, copied.offset)));
                }
            }
        }
        (open, aborted)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn transactions_are_seen_whole_or_not_at_all_whatever_happens(
        acts in proptest::collection::vec(act(), 1..80),
        tail_bytes_max in prop_oneof![Just(0_usize), Just(1_000)],
    ) {
        runtime().block_on(async {
            let mut run = Run::new(tail_bytes_max).await;
            for act in &acts {
                run.take(act).await;
            }
            for last in [Act::Check, Act::Of(Step::Kill), Act::Check, Act::Of(Step::Stop), Act::Check] {
                run.take(&last).await;
            }
            // Every producer can go on, and with the last transaction nothing is held back any more.
            for producer in 0..PRODUCERS {
                run.take(&Act::Resend { producer }).await;
                run.take(&Act::Write { producer, pick: producer, records: 1 }).await;
                run.take(&Act::End { producer, commit: producer % 2 == 0, bump: true }).await;
            }
            run.take(&Act::Check).await;
            for log in run.rig.stream.partitions() {
                assert_eq!(log.last_stable_offset(), log.end_offset());
            }
            prop_assert_eq!(run.rig.broker.scan_meta(b"o").unwrap().len(), 0);
            Ok(())
        })?;
    }
}
