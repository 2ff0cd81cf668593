//! A broker with transactions in a few lines, with clients of its own, that writes sound histories, and histories with
//! one fault planted: for the tests of the checker.

mod faults;

use std::collections::{BTreeMap, HashMap};

pub use self::faults::Fault;

use crate::history::{
    Answer, Call, Consumed, Entry, Event, Group, History, Isolation, Partition, Read, Sent, TxnId, Value,
};
use crate::random::Random;

const PARTITIONS: [Partition; 5] = [
    Partition { topic: 0, index: 0 },
    Partition { topic: 0, index: 1 },
    Partition { topic: 1, index: 0 },
    Partition { topic: 1, index: 1 },
    Partition { topic: 2, index: 0 },
];
const OUT: Partition = PARTITIONS[4];
/// Workers, and the transactional ids of those that have one.
const PRODUCERS: [u32; 3] = [1, 2, 3];
const PROCESSOR: u32 = 4;
const PLAIN: u32 = 5;
const READERS: [u32; 2] = [6, 7];
const UNCOMMITTED: u32 = 8;
const MEMBER: u32 = 9;
const STANDBY: u32 = 10;
/// Of the processor; of the member that commits outside of transactions.
const PROCESSED: Group = 0;
const CONSUMED: Group = 1;
const STEPS: usize = 400;
/// From here on the fault is planted as soon as it can be.
const ARMED: usize = 150;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Data(Value, Option<TxnId>),
    /// A marker, or what a fault has left.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    Aborted,
}

#[derive(Default)]
struct Producer {
    instance: u32,
    number: u32,
    open: Option<TxnId>,
}

pub struct Model {
    random: Random,
    history: History,
    logs: BTreeMap<Partition, Vec<Slot>>,
    txns: HashMap<TxnId, State>,
    producers: HashMap<u32, Producer>,
    positions: HashMap<u32, BTreeMap<Partition, i64>>,
    offsets: BTreeMap<(Group, Partition), Vec<i64>>,
    /// Answers on their way.
    under_way: HashMap<u32, Entry>,
    next_value: Value,
    fault: Option<Fault>,
    is_planted: bool,
}

/// A sound history, or one with the fault in it; false when there was no occasion for the fault.
pub fn run(seed: u64, fault: Option<Fault>) -> (History, bool) {
    let mut model = Model {
        random: Random::new(seed),
        history: History::default(),
        logs: PARTITIONS.iter().map(|partition| (*partition, Vec::new())).collect(),
        txns: HashMap::new(),
        producers: HashMap::new(),
        positions: HashMap::new(),
        offsets: BTreeMap::new(),
        under_way: HashMap::new(),
        next_value: 1,
        fault,
        is_planted: false,
    };
    for worker in PRODUCERS.into_iter().chain([PROCESSOR]) {
        model.init(worker);
        model.answer(worker);
    }
    for step in 0..STEPS {
        if step >= ARMED && !model.is_planted {
            model.plant(true);
        }
        model.step();
    }
    model.finish();
    (model.history, model.is_planted)
}

impl Model {
    fn step(&mut self) {
        let worker = 1 + self.random.below(9) as u32;
        if self.under_way.contains_key(&worker) {
            self.answer(worker);
        } else if PRODUCERS.contains(&worker) {
            self.produce(worker);
        } else if worker == PROCESSOR {
            self.process();
        } else if worker == PLAIN {
            self.send_plain();
        } else if READERS.contains(&worker) {
            let partition = self.random.pick(&PARTITIONS);
            if partition == PARTITIONS[0] && worker == READERS[0] && self.random.percent(20) {
                let read = self.read(Isolation::Committed, partition, 0);
                return self.show(false, read.records.into_iter().map(|(_, value)| value).collect());
            }
            self.poll(worker, Isolation::Committed, partition);
        } else if worker == UNCOMMITTED {
            let partition = self.random.pick(&PARTITIONS);
            self.poll(worker, Isolation::Uncommitted, partition);
        } else {
            self.consume();
        }
    }

    fn push(&mut self, worker: u32, entry: Entry) {
        let at_ms = self.history.events.len() as u64;
        self.history.events.push(Event { at_ms, worker, entry });
    }

    fn invoke(&mut self, worker: u32, call: Call, end: Entry) {
        self.push(worker, Entry::Invoke(call));
        self.under_way.insert(worker, end);
    }

    fn answer(&mut self, worker: u32) {
        if let Some(end) = self.under_way.remove(&worker) {
            self.push(worker, end);
        }
    }

    /// At once, with nothing of others in between.
    fn call(&mut self, worker: u32, call: Call, end: Entry) {
        self.invoke(worker, call, end);
        self.answer(worker);
    }

    fn values(&mut self, count: u64) -> Vec<Value> {
        let first = self.next_value;
        self.next_value += count;
        (first..first + count).collect()
    }

    fn end_of(&self, partition: Partition) -> i64 {
        self.logs[&partition].len() as i64
    }

    fn is_open(&self, txn: TxnId) -> bool {
        self.txns.get(&txn) == Some(&State::Open)
    }

    fn stable(&self, partition: Partition) -> i64 {
        let is_open = |slot: &Slot| matches!(slot, Slot::Data(_, Some(txn)) if self.is_open(*txn));
        self.logs[&partition].iter().position(is_open).map_or(self.end_of(partition), |offset| offset as i64)
    }

    fn is_visible(&self, slot: Slot) -> Option<Value> {
        match slot {
            Slot::Data(value, None) => Some(value),
            Slot::Data(value, Some(txn)) => (self.txns.get(&txn) == Some(&State::Committed)).then_some(value),
            Slot::Nothing => None,
        }
    }

    fn append(&mut self, partition: Partition, slot: Slot) -> i64 {
        let log = self.logs.get_mut(&partition).unwrap();
        log.push(slot);
        log.len() as i64 - 1
    }

    fn init(&mut self, worker: u32) {
        let producer = self.producers.entry(worker).or_default();
        producer.instance += 1;
        producer.number = 0;
        let call = Call::Init { transactional_id: worker, instance: producer.instance, timeout_ms: 1_000_000 };
        if let Some(open) = producer.open.take() {
            self.close(open, State::Aborted);
        }
        self.invoke(worker, call, Entry::Ok(Answer::Done));
    }

    fn close(&mut self, txn: TxnId, state: State) {
        self.txns.insert(txn, state);
        let of_txn = |slot: &Slot| matches!(slot, Slot::Data(_, Some(other)) if *other == txn);
        for log in self.logs.values_mut().filter(|log| log.iter().any(of_txn)) {
            log.push(Slot::Nothing);
        }
    }

    fn begin(&mut self, worker: u32) -> TxnId {
        let producer = self.producers.get_mut(&worker).unwrap();
        producer.number += 1;
        let txn = TxnId { transactional_id: worker, instance: producer.instance, number: producer.number };
        producer.open = Some(txn);
        self.txns.insert(txn, State::Open);
        txn
    }

    fn send(&mut self, worker: u32, txn: Option<TxnId>, partitions: &[Partition], count: u64) -> Vec<Value> {
        let mut writes = Vec::new();
        let mut sent = Vec::new();
        for partition in partitions {
            let values = self.values(count);
            let base = self.end_of(*partition);
            for value in &values {
                self.append(*partition, Slot::Data(*value, txn));
            }
            writes.push((*partition, values));
            sent.push((*partition, if self.random.percent(95) { Sent::At(base) } else { Sent::Stored }));
        }
        let all = writes.iter().flat_map(|(_, values)| values.clone()).collect();
        self.invoke(worker, Call::Send { txn, writes }, Entry::Ok(Answer::Sent(sent)));
        all
    }

    fn produce(&mut self, worker: u32) {
        if self.random.percent(4) {
            return self.init(worker);
        }
        let txn = match self.producers[&worker].open {
            Some(txn) if self.random.percent(50) => {
                let commit = self.random.percent(70);
                return self.end(worker, txn, commit);
            }
            Some(txn) => txn,
            None => self.begin(worker),
        };
        let first = self.random.below(4) as usize;
        let last = first + 1 + self.random.below(4 - first as u64) as usize;
        let count = 1 + self.random.below(2);
        self.send(worker, Some(txn), &PARTITIONS[first..last], count);
    }

    /// With an outcome that nobody knows now and then, after which the producer has to begin anew.
    fn end(&mut self, worker: u32, txn: TxnId, commit: bool) {
        let state = if commit { State::Committed } else { State::Aborted };
        let call = Call::End { txn, commit };
        if self.random.percent(10) {
            if self.random.percent(50) {
                self.close(txn, state);
                self.producers.get_mut(&worker).unwrap().open = None;
            }
            self.call(worker, call, Entry::Unknown("closed".into()));
            return self.init(worker);
        }
        self.close(txn, state);
        self.producers.get_mut(&worker).unwrap().open = None;
        self.invoke(worker, call, Entry::Ok(Answer::Done));
    }

    fn send_plain(&mut self) {
        let partition = self.random.pick(&PARTITIONS[..4]);
        if self.random.percent(10) {
            let value = self.values(1);
            if self.random.percent(50) {
                self.append(partition, Slot::Data(value[0], None));
            }
            let call = Call::Send { txn: None, writes: vec![(partition, value)] };
            return self.invoke(PLAIN, call, Entry::Unknown("closed".into()));
        }
        let count = 1 + self.random.below(3);
        self.send(PLAIN, None, &[partition], count);
    }

    fn position(&self, worker: u32, partition: Partition) -> i64 {
        self.positions.get(&worker).and_then(|of| of.get(&partition)).copied().unwrap_or(0)
    }

    fn read(&mut self, isolation: Isolation, partition: Partition, from: i64) -> Read {
        let (end, stable) = (self.end_of(partition), self.stable(partition));
        let limit = if isolation == Isolation::Committed { stable } else { end };
        let next = limit.min(from + 1 + self.random.below(20) as i64).max(from);
        let is_given = |slot: Slot| match (isolation, slot) {
            (Isolation::Uncommitted, Slot::Data(value, _)) => Some(value),
            _ => self.is_visible(slot),
        };
        let range = (from..next).zip(self.logs[&partition].iter().skip(from as usize));
        let records = range.filter_map(|(offset, slot)| Some((offset, is_given(*slot)?))).collect();
        Read { partition, from, next, records, high_watermark: end, last_stable_offset: stable }
    }

    fn poll(&mut self, worker: u32, isolation: Isolation, partition: Partition) {
        // Some begin again.
        let from = if self.random.percent(5) { 0 } else { self.position(worker, partition) };
        let read = self.read(isolation, partition, from);
        self.polled(worker, isolation, read);
    }

    fn polled(&mut self, worker: u32, isolation: Isolation, read: Read) {
        self.positions.entry(worker).or_default().insert(read.partition, read.next);
        let call = Call::Poll { isolation, from: vec![(read.partition, read.from)] };
        self.invoke(worker, call, Entry::Ok(Answer::Read(vec![read])));
    }

    fn committed(&self, group: Group, partition: Partition) -> Option<i64> {
        self.offsets.get(&(group, partition)).and_then(|offsets| offsets.last().copied())
    }

    fn fetch_offsets(&mut self, worker: u32, group: Group) {
        let of_group = self.offsets.iter().filter(|((other, _), _)| *other == group);
        let offsets: Vec<_> = of_group.map(|((_, partition), all)| (*partition, *all.last().unwrap())).collect();
        self.call(worker, Call::FetchOffsets { group }, Entry::Ok(Answer::Offsets(offsets)));
    }

    /// One turn of consume, transform, produce, whole. Its transaction stays open for none but itself.
    fn process(&mut self) {
        let (commit, is_known) = (self.random.percent(80), self.random.percent(85));
        let happens = is_known || self.random.percent(50);
        let is_planned = commit && happens;
        self.turn(commit, is_known, is_planned, is_planned);
    }

    fn turn(&mut self, commit: bool, is_known: bool, records_stay: bool, offsets_stay: bool) -> bool {
        self.fetch_offsets(PROCESSOR, PROCESSED);
        let partition = self.random.pick(&PARTITIONS[..2]);
        let from = self.committed(PROCESSED, partition).unwrap_or(0);
        let read = self.read(Isolation::Committed, partition, from);
        self.polled(PROCESSOR, Isolation::Committed, read.clone());
        self.answer(PROCESSOR);
        if read.records.is_empty() {
            return false;
        }
        let txn = self.begin(PROCESSOR);
        self.send(PROCESSOR, Some(txn), &[OUT], read.records.len() as u64);
        self.answer(PROCESSOR);
        let consumed = vec![Consumed { partition, from, to: read.next }];
        let call = Call::SendOffsets { txn, group: PROCESSED, consumed };
        self.call(PROCESSOR, call, Entry::Ok(Answer::Done));
        self.close(txn, if records_stay { State::Committed } else { State::Aborted });
        self.producers.get_mut(&PROCESSOR).unwrap().open = None;
        if offsets_stay {
            self.offsets.entry((PROCESSED, partition)).or_default().push(read.next);
        }
        let end = if is_known { Entry::Ok(Answer::Done) } else { Entry::Unknown("closed".into()) };
        self.call(PROCESSOR, Call::End { txn, commit }, end);
        if !is_known {
            self.init(PROCESSOR);
            self.answer(PROCESSOR);
        }
        true
    }

    /// The member of a group that commits by itself.
    fn consume(&mut self) {
        let from = self.committed(CONSUMED, OUT).unwrap_or(0).max(self.position(MEMBER, OUT));
        match self.random.below(3) {
            0 => self.fetch_offsets(MEMBER, CONSUMED),
            1 => {
                let read = self.read(Isolation::Committed, OUT, from);
                self.polled(MEMBER, Isolation::Committed, read);
            }
            _ => {
                self.offsets.entry((CONSUMED, OUT)).or_default().push(from);
                let call = Call::Commit { group: CONSUMED, offsets: vec![(OUT, from)] };
                self.invoke(MEMBER, call, Entry::Ok(Answer::Done));
            }
        }
    }

    fn show(&mut self, is_all: bool, values: Vec<Value>) {
        self.call(READERS[0], Call::OtherDoor { topic: 0, is_all }, Entry::Ok(Answer::Shown(values)));
    }

    fn finish(&mut self) {
        for worker in 0..=STANDBY {
            self.answer(worker);
        }
        for worker in PRODUCERS.into_iter().chain([PROCESSOR]) {
            self.init(worker);
            self.answer(worker);
        }
        self.plant(false);
        self.fetch_offsets(0, PROCESSED);
        self.fetch_offsets(0, CONSUMED);
        let read_all = |model: &mut Model, partition: &Partition| {
            let (end, stable) = (model.end_of(*partition), model.stable(*partition));
            let slots = (0..stable).zip(&model.logs[partition]);
            let records = slots.filter_map(|(offset, slot)| Some((offset, model.is_visible(*slot)?))).collect();
            Read {
                partition: *partition,
                from: 0,
                next: stable,
                records,
                high_watermark: end,
                last_stable_offset: stable,
            }
        };
        let reads: Vec<Read> = PARTITIONS.iter().map(|partition| read_all(self, partition)).collect();
        let of_topic = reads.iter().filter(|read| read.partition.topic == 0);
        let shown = of_topic.flat_map(|read| read.records.iter().map(|(_, value)| *value)).collect();
        self.show(true, shown);
        self.call(0, Call::ReadAll, Entry::Ok(Answer::Read(reads)));
    }
}
