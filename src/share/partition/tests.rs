use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { locks_max: 100, deliveries_max: 3 };

fn member(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn batch(base_offset: Offset, last_offset: Offset) -> LogBatch {
    LogBatch { base_offset, last_offset, deliverable: true }
}

fn want<'a>(member: &'a Arc<str>, records_max: i64) -> Acquire<'a> {
    Acquire { member, records_max, exact: false, range_records: 0, until_ms: 30_000 }
}

fn acquire(partition: &mut SharePartition, name: &str, records_max: i64, batches: &[LogBatch]) -> Vec<Acquired> {
    let Some(from) = partition.next_offset(BOUNDS) else { return Vec::new() };
    let batches = batches.iter().copied().filter(|batch| batch.last_offset >= from);
    partition.acquire(from, batches, &want(&member(name), records_max), BOUNDS).0
}

fn ranges(acquired: &[Acquired]) -> Vec<(Offset, Offset, u16)> {
    acquired.iter().map(|range| (range.first, range.last, range.deliveries)).collect()
}

fn ack(first: Offset, last: Offset, kind: Acknowledgement) -> Vec<AckBatch> {
    vec![AckBatch { first, last, kinds: vec![kind] }]
}

fn accept(partition: &mut SharePartition, name: &str, first: Offset, last: Offset) -> Result<Changed, AckError> {
    partition.acknowledge(name, &ack(first, last, Acknowledgement::Accept), BOUNDS, 0)
}

#[test]
fn batches_are_acquired_whole_unless_the_limit_is_exact() {
    let batches = [batch(0, 9), batch(10, 19), batch(20, 29)];
    let mut partition = SharePartition::new(0);
    assert_eq!(ranges(&acquire(&mut partition, "a", 12, &batches)), [(0, 19, 1)]);
    assert_eq!(ranges(&acquire(&mut partition, "b", 12, &batches)), [(20, 29, 1)]);
    assert_eq!(acquire(&mut partition, "b", 12, &batches), []);

    let mut partition = SharePartition::new(0);
    let a = member("a");
    let exact = Acquire { exact: true, ..want(&a, 12) };
    assert_eq!(ranges(&partition.acquire(0, batches, &exact, BOUNDS).0), [(0, 11, 1)]);
    assert_eq!(partition.next_offset(BOUNDS), Some(12));
}

#[test]
fn long_acquisitions_are_told_in_ranges_that_end_with_batches() {
    let batches: Vec<_> = (0..6).map(|at| batch(at * 4, at * 4 + 3)).collect();
    let mut partition = SharePartition::new(0);
    let a = member("a");
    let in_sixes = Acquire { range_records: 6, ..want(&a, 100) };
    let acquired = partition.acquire(0, batches, &in_sixes, BOUNDS).0;
    assert_eq!(ranges(&acquired), [(0, 7, 1), (8, 15, 1), (16, 23, 1)]);
}

#[test]
fn the_window_never_holds_more_than_may_be_locked() {
    let batches = [batch(0, 79), batch(80, 159), batch(160, 200)];
    let mut partition = SharePartition::new(0);
    assert_eq!(ranges(&acquire(&mut partition, "a", 500, &batches)), [(0, 99, 1)]);
    assert_eq!(partition.next_offset(BOUNDS), None);
    // The first record holds the window where it is.
    accept(&mut partition, "a", 1, 99).unwrap();
    assert_eq!(partition.next_offset(BOUNDS), None);
    assert!(accept(&mut partition, "a", 0, 0).unwrap().room);
    assert_eq!((partition.start(), partition.next_offset(BOUNDS)), (100, Some(100)));
    assert_eq!(ranges(&acquire(&mut partition, "a", 500, &batches)), [(100, 199, 1)]);
}

#[test]
fn what_is_released_comes_first_and_counts() {
    let batches = [batch(0, 9), batch(10, 19)];
    let mut partition = SharePartition::new(0);
    acquire(&mut partition, "a", 10, &batches);
    let told = AckBatch {
        first: 0,
        last: 9,
        kinds: (0..10).map(|at| if at < 4 { Acknowledgement::Accept } else { Acknowledgement::Release }).collect(),
    };
    partition.acknowledge("a", &[told], BOUNDS, 0).unwrap();
    assert_eq!((partition.start(), partition.next_offset(BOUNDS)), (4, Some(4)));
    assert_eq!(ranges(&acquire(&mut partition, "b", 100, &batches)), [(4, 9, 2), (10, 19, 1)]);
}

#[test]
fn a_record_is_delivered_no_more_often_than_it_may() {
    let batches = [batch(0, 1)];
    let mut partition = SharePartition::new(0);
    for deliveries in 1..=3 {
        assert_eq!(ranges(&acquire(&mut partition, "a", 10, &batches)), [(0, 1, deliveries)]);
        partition.acknowledge("a", &ack(0, 1, Acknowledgement::Release), BOUNDS, 0).unwrap();
    }
    assert_eq!((partition.start(), acquire(&mut partition, "a", 10, &batches)), (2, vec![]));
}

#[test]
fn an_acknowledgement_is_taken_whole_or_not_at_all() {
    let batches = [batch(0, 9), batch(10, 19)];
    let mut partition = SharePartition::new(0);
    acquire(&mut partition, "a", 10, &batches);
    acquire(&mut partition, "b", 10, &batches);
    let before = partition.clone();
    let two = [ack(0, 4, Acknowledgement::Accept), ack(8, 10, Acknowledgement::Accept)].concat();
    assert_eq!(partition.acknowledge("a", &two, BOUNDS, 0), Err(AckError::RecordState));
    for (first, last) in [(5, 4), (0, 20), (25, 30), (0, i64::MAX), (i64::MIN, i64::MAX)] {
        assert_eq!(accept(&mut partition, "a", first, last), Err(AckError::Invalid), "{first}..={last}");
    }
    let twice = [ack(0, 4, Acknowledgement::Accept), ack(4, 5, Acknowledgement::Accept)].concat();
    assert_eq!(partition.acknowledge("a", &twice, BOUNDS, 0), Err(AckError::Invalid));
    let few = [AckBatch { first: 0, last: 2, kinds: vec![Acknowledgement::Accept; 2] }];
    assert_eq!(partition.acknowledge("a", &few, BOUNDS, 0), Err(AckError::Invalid));
    let none = [AckBatch { first: 0, last: 0, kinds: Vec::new() }];
    assert_eq!(partition.acknowledge("a", &none, BOUNDS, 0), Err(AckError::Invalid));
    assert_eq!(partition, before);
    accept(&mut partition, "a", 3, 3).unwrap();
    assert_eq!(accept(&mut partition, "a", 3, 3), Err(AckError::RecordState));
}

#[test]
fn locks_run_out_unless_they_are_renewed() {
    let batches = [batch(0, 9)];
    let mut partition = SharePartition::new(0);
    acquire(&mut partition, "a", 10, &batches);
    let renewed = partition.acknowledge("a", &ack(5, 9, Acknowledgement::Renew), BOUNDS, 50_000).unwrap();
    assert_eq!(renewed, Changed::default());
    assert_eq!(partition.next_expiry(), Some(30_000));
    assert_eq!(partition.expire(29_999, BOUNDS), Changed::default());
    assert_eq!(partition.expire(30_000, BOUNDS), Changed { stored: true, room: true, archived: 0 });
    assert_eq!((partition.next_expiry(), partition.next_offset(BOUNDS)), (Some(50_000), Some(0)));
    assert_eq!(accept(&mut partition, "a", 0, 4), Err(AckError::RecordState));
    assert!(accept(&mut partition, "a", 5, 9).is_ok());
}

#[test]
fn a_member_that_goes_gives_back_what_it_was_never_seen_to_process() {
    let batches = [batch(0, 9)];
    let mut partition = SharePartition::new(0);
    for _ in 0..5 {
        assert_eq!(ranges(&acquire(&mut partition, "a", 10, &batches)), [(0, 9, 1)]);
        assert!(partition.release_member("a").room);
    }
    assert_eq!(partition.release_member("a"), Changed::default());
}

#[test]
fn offsets_without_records_are_passed_over() {
    let mut partition = SharePartition::new(0);
    let control = LogBatch { deliverable: false, ..batch(15, 15) };
    let batches = [batch(5, 9), control, batch(16, 19)];
    assert_eq!(ranges(&acquire(&mut partition, "a", 100, &batches)), [(5, 9, 1), (16, 19, 1)]);
    assert_eq!(partition.start(), 5);
    accept(&mut partition, "a", 5, 9).unwrap();
    assert_eq!(partition.start(), 16);

    // Compacted away between two deliveries.
    accept(&mut partition, "a", 17, 17).unwrap();
    partition.acknowledge("a", &ack(18, 19, Acknowledgement::Release), BOUNDS, 0).unwrap();
    partition.acknowledge("a", &ack(16, 16, Acknowledgement::Release), BOUNDS, 0).unwrap();
    assert_eq!(ranges(&acquire(&mut partition, "a", 100, &[batch(19, 19)])), [(19, 19, 2)]);
    assert_eq!(partition.start(), 19);
}

#[test]
fn a_trimmed_log_takes_the_window_along() {
    let batches = [batch(0, 9), batch(10, 19)];
    let mut partition = SharePartition::new(0);
    acquire(&mut partition, "a", 100, &batches);
    assert_eq!(partition.trim(0), Changed::default());
    assert!(partition.trim(5).stored);
    assert_eq!(partition.start(), 5);
    assert!(accept(&mut partition, "a", 0, 9).is_ok(), "what was trimmed may be acknowledged still");
    assert_eq!(partition.start(), 10);
    partition.trim(50);
    assert_eq!((partition.start(), partition.end(), partition.next_offset(BOUNDS)), (50, 50, Some(50)));
    assert!(accept(&mut partition, "a", 10, 19).is_ok());
}

#[test]
fn backlog_counts_what_is_not_done() {
    let mut partition = SharePartition::new(0);
    acquire(&mut partition, "a", 100, &[batch(0, 9)]);
    accept(&mut partition, "a", 3, 5).unwrap();
    assert_eq!(partition.backlog(30), 27);
}

#[test]
fn what_was_never_written_is_not_read() {
    let good = SharePartition::new(7).encode();
    assert_eq!(SharePartition::decode(&good), Some(SharePartition::new(7)));
    let mut long = good.to_vec();
    long.push(0);
    let with_run = |length: i64| [&good[..], &length.to_be_bytes(), &[0, 0]].concat();
    for bad in [&b""[..], &good[..5], &long, &with_run(0), &with_run(-4), &with_run(i64::MAX), &[2; 9]] {
        assert_eq!(SharePartition::decode(bad), None, "{bad:?}");
    }
    assert_eq!(SharePartition::decode(&with_run(3)).unwrap().end(), 10);
}

// A history of random steps beside a model that knows every record by itself.

#[derive(Clone, Debug)]
enum Step {
    Append { records: i64, deliverable: bool },
    Acquire { member: usize, records_max: i64, exact: bool },
    Acknowledge { member: usize, from: i64, count: i64, kind: Acknowledgement },
    Advance { ms: i64 },
    Leave { member: usize },
    Trim { records: i64 },
    Compact { batch: usize },
    Restart,
}

#[derive(Clone, Debug, PartialEq)]
enum Record {
    Available(u16),
    Acquired { member: usize, deliveries: u16, until_ms: i64 },
    Done,
}

const MEMBERS: [&str; 3] = ["a", "b", "c"];
const TIGHT: Bounds = Bounds { locks_max: 12, deliveries_max: 2 };

fn step() -> impl Strategy<Value = Step> {
    let member = || 0..MEMBERS.len();
    let kind = prop_oneof![
        4 => Just(Acknowledgement::Accept),
        3 => Just(Acknowledgement::Release),
        1 => Just(Acknowledgement::Reject),
        1 => Just(Acknowledgement::Gap),
        1 => Just(Acknowledgement::Renew),
    ];
    prop_oneof![
        4 => (1..6_i64, prop::bool::weighted(0.85)).prop_map(|(records, deliverable)| Step::Append { records, deliverable }),
        6 => (member(), 1..8_i64, any::<bool>())
            .prop_map(|(member, records_max, exact)| Step::Acquire { member, records_max, exact }),
        8 => (member(), 0..14_i64, 1..6_i64, kind)
            .prop_map(|(member, from, count, kind)| Step::Acknowledge { member, from, count, kind }),
        2 => (0..40_000_i64).prop_map(|ms| Step::Advance { ms }),
        1 => member().prop_map(|member| Step::Leave { member }),
        1 => (0..6_i64).prop_map(|records| Step::Trim { records }),
        1 => (0..20_usize).prop_map(|batch| Step::Compact { batch }),
        1 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Model {
    log: Vec<LogBatch>,
    log_start: Offset,
    log_end: Offset,
    records: BTreeMap<Offset, Record>,
    now_ms: i64,
}

impl Model {
    fn run(&mut self, partition: &mut SharePartition, step: &Step) {
        match step {
            Step::Append { records, deliverable } => {
                let last_offset = self.log_end + records - 1;
                self.log.push(LogBatch { base_offset: self.log_end, last_offset, deliverable: *deliverable });
                self.log_end += records;
            }
            Step::Acquire { member, records_max, exact } => self.acquire(partition, *member, *records_max, *exact),
            Step::Acknowledge { member, from, count, kind } => {
                self.acknowledge(partition, *member, partition.start() + from, *count, *kind)
            }
            Step::Advance { ms } => {
                self.now_ms += ms;
                partition.expire(self.now_ms, TIGHT);
                for record in self.records.values_mut() {
                    if let Record::Acquired { deliveries, until_ms, .. } = *record
                        && until_ms <= self.now_ms
                    {
                        *record = given_back(deliveries);
                    }
                }
            }
            Step::Leave { member } => {
                partition.release_member(MEMBERS[*member]);
                self.give_back(|held| held == *member);
            }
            Step::Trim { records } => {
                self.log_start = (self.log_start + records).min(self.log_end);
                self.log.retain(|batch| batch.last_offset >= self.log_start);
                partition.trim(self.log_start);
                self.records.retain(|offset, _| *offset >= self.log_start);
            }
            Step::Compact { batch } => {
                if self.log.len() > *batch + 1 {
                    self.log.remove(*batch);
                }
            }
            Step::Restart => {
                *partition = SharePartition::decode(&partition.encode()).unwrap();
                self.give_back(|_| true);
            }
        }
    }

    /// As it was before the delivery.
    fn give_back(&mut self, of: impl Fn(usize) -> bool) {
        for record in self.records.values_mut() {
            if let Record::Acquired { member, deliveries, .. } = *record
                && of(member)
            {
                *record = Record::Available(deliveries - 1);
            }
        }
    }

    fn acquire(&mut self, partition: &mut SharePartition, who: usize, records_max: i64, exact: bool) {
        let Some(from) = partition.next_offset(TIGHT) else { return };
        let batches: Vec<_> = self.log.iter().copied().filter(|batch| batch.last_offset >= from).collect();
        let name = member(MEMBERS[who]);
        let want = Acquire { exact, until_ms: self.now_ms + 30_000, ..want(&name, records_max) };
        let (acquired, _) = partition.acquire(from, batches.iter().copied(), &want, TIGHT);
        let count: i64 = acquired.iter().map(|range| range.last - range.first + 1).sum();
        assert!(!exact || count <= records_max);
        for range in &acquired {
            for offset in range.first..=range.last {
                let there = batches.iter().any(|batch| batch.deliverable && holds(batch, offset));
                assert!(there, "{offset} is nothing to deliver");
                let before = self.records.insert(
                    offset,
                    Record::Acquired { member: who, deliveries: range.deliveries, until_ms: want.until_ms },
                );
                let delivered = match before {
                    None => 0,
                    Some(Record::Available(deliveries)) => deliveries,
                    Some(other) => panic!("{offset} was delivered while {other:?}"),
                };
                assert_eq!(range.deliveries, delivered + 1);
            }
        }
        // What was passed over is done.
        for offset in from..partition.end() {
            let there = self.log.iter().any(|batch| batch.deliverable && holds(batch, offset));
            if !there && state(partition, offset).is_none_or(|state| state == Record::Done) {
                self.records.insert(offset, Record::Done);
            }
        }
    }

    fn acknowledge(
        &mut self,
        partition: &mut SharePartition,
        who: usize,
        first: Offset,
        count: i64,
        kind: Acknowledgement,
    ) {
        let (last, before) = (first + count - 1, partition.clone());
        let held =
            |offset| matches!(self.records.get(&offset), Some(Record::Acquired { member, .. }) if *member == who);
        let all = (first..=last).all(held);
        let answer = partition.acknowledge(MEMBERS[who], &ack(first, last, kind), TIGHT, self.now_ms + 30_000);
        assert_eq!(answer.is_ok(), all);
        if !all {
            assert_eq!(*partition, before);
            return;
        }
        for offset in first..=last {
            let Some(Record::Acquired { deliveries, until_ms, .. }) = self.records.get(&offset).cloned() else {
                continue;
            };
            let record = match kind {
                Acknowledgement::Gap | Acknowledgement::Accept | Acknowledgement::Reject => Record::Done,
                Acknowledgement::Release => given_back(deliveries),
                Acknowledgement::Renew => {
                    Record::Acquired { member: who, deliveries, until_ms: until_ms.max(self.now_ms + 30_000) }
                }
            };
            self.records.insert(offset, record);
        }
    }

    /// What is known of every record is the same, and the runs are as their invariants want them.
    fn check(&self, partition: &SharePartition) {
        let mut at = partition.start();
        let mut before: Option<&State> = None;
        for (first, run) in &partition.runs {
            assert!(*first == at && run.end > at, "{partition:?}");
            assert_ne!(before, Some(&run.state), "{partition:?}");
            (at, before) = (run.end, Some(&run.state));
        }
        assert_eq!(at, partition.end());
        assert_ne!(partition.runs.values().next().map(|run| &run.state), Some(&State::Done));
        for (offset, record) in &self.records {
            match state(partition, *offset) {
                Some(state) => assert_eq!(state, *record, "{offset}"),
                None => assert_eq!(*record, Record::Done, "{offset}"),
            }
        }
    }
}

fn holds(batch: &LogBatch, offset: Offset) -> bool {
    (batch.base_offset..=batch.last_offset).contains(&offset)
}

fn given_back(deliveries: u16) -> Record {
    if deliveries >= TIGHT.deliveries_max { Record::Done } else { Record::Available(deliveries) }
}

/// `None` before the window.
fn state(partition: &SharePartition, offset: Offset) -> Option<Record> {
    let (_, run) = partition.runs.range(..=offset).next_back().filter(|(_, run)| run.end > offset)?;
    Some(match &run.state {
        State::Available(deliveries) => Record::Available(*deliveries),
        State::Acquired(lock) => Record::Acquired {
            member: MEMBERS.iter().position(|name| *name == &*lock.member).unwrap(),
            deliveries: lock.deliveries,
            until_ms: lock.until_ms,
        },
        State::Done => Record::Done,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_record_is_processed_once_or_as_often_as_it_may(steps in prop::collection::vec(step(), 1..120)) {
        let (mut model, mut partition) = (Model::default(), SharePartition::new(0));
        for step in &steps {
            model.run(&mut partition, step);
            model.check(&partition);
        }
        // Someone who goes on accepting comes to the end of the log.
        model.run(&mut partition, &Step::Advance { ms: 100_000 });
        for _ in 0..1_000 {
            model.run(&mut partition, &Step::Acquire { member: 0, records_max: 5, exact: false });
            let held: Vec<Offset> = model
                .records
                .iter()
                .filter(|(_, record)| matches!(record, Record::Acquired { .. }))
                .map(|(offset, _)| *offset)
                .collect();
            for offset in held {
                model.acknowledge(&mut partition, 0, offset, 1, Acknowledgement::Accept);
            }
            model.check(&partition);
        }
        let last = model.log.last().map_or(0, |batch| batch.last_offset + 1);
        prop_assert!(partition.start() >= last.max(model.log_start), "{partition:?}");
    }
}
