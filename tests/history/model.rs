//! A broker with transactions in a few lines, with clients of its own, that writes sound histories, and histories with
//! one fault planted: for the tests of the checker.

use std::collections::{BTreeMap, HashMap};

use crate::history::{
    Answer, Call, Consumed, Entry, Event, Group, History, Isolation, Partition, Read, Sent, TxnId, Value,
};
use crate::random::Random;

/// What a broken broker does once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    LoseWrite,
    LoseTransaction,
    DuplicateWrite,
    Phantom,
    AbortedRead,
    UncommittedRead,
    BeyondOngoing,
    Diverge,
    Vanish,
    Invert,
    InvertBatch,
    Tear,
    OffsetsWithoutRecords,
    RecordsWithoutOffsets,
    PhantomOffset,
    OffsetsBack,
    Skip,
    ReaderBack,
    HighWatermarkBack,
    StableOffsetBack,
    Unfenced,
    Stuck,
}

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
        let reads = PARTITIONS.iter().map(|partition| read_all(self, partition)).collect();
        self.call(0, Call::ReadAll, Entry::Ok(Answer::Read(reads)));
    }

    /// Does the fault, if there is an occasion. Nothing of others comes in between.
    fn plant(&mut self, is_running: bool) {
        let Some(fault) = self.fault.filter(|_| !self.is_planted) else { return };
        let is_for_the_end = matches!(fault, Fault::Phantom | Fault::Stuck);
        if is_running == is_for_the_end {
            return;
        }
        let workers = [PRODUCERS[0], PROCESSOR, PLAIN, READERS[0], MEMBER];
        for worker in workers {
            self.answer(worker);
        }
        self.is_planted = self.break_it(fault);
    }

    /// A transaction of the first producer, with one record in each of these partitions.
    fn open(&mut self, partitions: &[Partition]) -> (TxnId, Vec<Value>) {
        let worker = PRODUCERS[0];
        if self.producers[&worker].open.is_some() {
            self.init(worker);
            self.answer(worker);
        }
        let txn = self.begin(worker);
        let mut writes = Vec::new();
        let mut sent = Vec::new();
        let values = self.values(partitions.len() as u64);
        for (partition, value) in partitions.iter().zip(&values) {
            writes.push((*partition, vec![*value]));
            sent.push((*partition, Sent::At(self.append(*partition, Slot::Data(*value, Some(txn))))));
        }
        self.call(worker, Call::Send { txn: Some(txn), writes }, Entry::Ok(Answer::Sent(sent)));
        (txn, values)
    }

    fn close_known(&mut self, worker: u32, txn: TxnId, commit: bool) {
        self.close(txn, if commit { State::Committed } else { State::Aborted });
        self.producers.get_mut(&PRODUCERS[0]).unwrap().open = None;
        self.call(worker, Call::End { txn, commit }, Entry::Ok(Answer::Done));
    }

    fn forget(&mut self, partition: Partition, value: Value) {
        for slot in self.logs.get_mut(&partition).unwrap() {
            if matches!(slot, Slot::Data(other, _) if *other == value) {
                *slot = Slot::Nothing;
            }
        }
    }

    fn write(&mut self, partition: Partition, values: Vec<Value>, end: Entry) {
        self.call(PLAIN, Call::Send { txn: None, writes: vec![(partition, values)] }, end);
    }

    fn sent(partition: Partition, sent: Sent) -> Entry {
        Entry::Ok(Answer::Sent(vec![(partition, sent)]))
    }

    fn reader_polls(&mut self, read: Read) {
        self.polled(READERS[0], Isolation::Committed, read);
        self.answer(READERS[0]);
    }

    /// Everything from where the reader is to the end of the partition, by a rule of its own.
    fn everything(&self, partition: Partition, is_given: impl Fn(Slot) -> Option<Value>) -> Read {
        let from = self.position(READERS[0], partition);
        let next = self.end_of(partition);
        let slots = (from..next).zip(self.logs[&partition].iter().skip(from as usize));
        let records = slots.filter_map(|(offset, slot)| Some((offset, is_given(*slot)?))).collect();
        Read { partition, from, next, records, high_watermark: next, last_stable_offset: self.stable(partition) }
    }

    fn break_it(&mut self, fault: Fault) -> bool {
        let (one, other) = (PARTITIONS[0], PARTITIONS[3]);
        let is_stable = self.stable(one) == self.end_of(one);
        match fault {
            Fault::LoseWrite => {
                let value = self.values(1);
                let offset = self.append(one, Slot::Nothing);
                self.write(one, value, Model::sent(one, Sent::At(offset)));
            }
            Fault::LoseTransaction => {
                let (txn, values) = self.open(&[one, other]);
                self.close_known(PRODUCERS[0], txn, true);
                self.forget(one, values[0]);
                self.forget(other, values[1]);
            }
            Fault::DuplicateWrite => {
                let value = self.values(1);
                let offset = self.append(one, Slot::Data(value[0], None));
                self.append(one, Slot::Data(value[0], None));
                self.write(one, value, Model::sent(one, Sent::At(offset)));
            }
            Fault::Phantom => {
                let value = self.values(1)[0];
                self.append(one, Slot::Data(value, None));
            }
            Fault::AbortedRead => {
                let (txn, values) = self.open(&[one]);
                self.close_known(PRODUCERS[0], txn, false);
                if self.stable(one) < self.end_of(one) {
                    return false;
                }
                let read = self.everything(one, |slot| match slot {
                    Slot::Data(value, _) if value == values[0] => Some(value),
                    _ => self.is_visible(slot),
                });
                self.reader_polls(read);
            }
            Fault::UncommittedRead if is_stable => {
                let (txn, values) = self.open(&[one]);
                let read = self.everything(one, |slot| match slot {
                    Slot::Data(value, _) if value == values[0] => Some(value),
                    _ => self.is_visible(slot),
                });
                self.reader_polls(read);
                self.close_known(PRODUCERS[0], txn, true);
            }
            Fault::BeyondOngoing if is_stable => {
                let (txn, _) = self.open(&[one]);
                let value = self.values(1);
                let offset = self.append(one, Slot::Data(value[0], None));
                self.write(one, value, Model::sent(one, Sent::At(offset)));
                let read = self.everything(one, |slot| self.is_visible(slot));
                self.reader_polls(read);
                self.close_known(PRODUCERS[0], txn, false);
            }
            Fault::Diverge | Fault::Vanish => {
                let from = self.position(READERS[0], one);
                let mut read = self.read(Isolation::Committed, one, from);
                if read.records.is_empty() {
                    return false;
                }
                let unknown = self.values(1);
                let place = read.records.len() - 1;
                if fault == Fault::Diverge {
                    read.records[place].1 = unknown[0];
                } else {
                    // The marker of a transaction stands there for others.
                    let log = &self.logs[&one];
                    let nothing = (read.from..read.next).find(|offset| log[*offset as usize] == Slot::Nothing);
                    let Some(offset) = nothing else { return false };
                    read.records.push((offset, unknown[0]));
                    read.records.sort_unstable();
                }
                self.write(one, unknown, Entry::Unknown("closed".into()));
                self.reader_polls(read);
            }
            Fault::Invert => {
                let values = self.values(2);
                let second = self.append(one, Slot::Data(values[1], None));
                let first = self.append(one, Slot::Data(values[0], None));
                self.write(one, vec![values[0]], Model::sent(one, Sent::At(first)));
                self.write(one, vec![values[1]], Model::sent(one, Sent::At(second)));
            }
            Fault::InvertBatch => {
                let values = self.values(2);
                for value in values.iter().rev() {
                    self.append(one, Slot::Data(*value, None));
                }
                self.write(one, values, Model::sent(one, Sent::Stored));
            }
            Fault::Tear => {
                let (txn, values) = self.open(&[one, other]);
                self.close_known(PRODUCERS[0], txn, true);
                self.forget(other, values[1]);
            }
            Fault::OffsetsWithoutRecords => return self.turn(true, false, false, true),
            Fault::RecordsWithoutOffsets => return self.turn(true, false, true, false),
            Fault::PhantomOffset | Fault::OffsetsBack => {
                let Some(mut all) = self.offsets.remove(&(CONSUMED, OUT)) else { return false };
                let last = all[all.len() - 1];
                let found = match fault {
                    Fault::PhantomOffset => last + 1,
                    _ => all[0],
                };
                if found == last {
                    self.offsets.insert((CONSUMED, OUT), all);
                    return false;
                }
                let answer = Entry::Ok(Answer::Offsets(vec![(OUT, found)]));
                self.call(MEMBER, Call::FetchOffsets { group: CONSUMED }, answer);
                all.push(last + 2);
                self.offsets.insert((CONSUMED, OUT), all);
                let call = Call::Commit { group: CONSUMED, offsets: vec![(OUT, last + 2)] };
                self.call(MEMBER, call, Entry::Ok(Answer::Done));
            }
            Fault::Skip => {
                let from = self.position(READERS[0], one);
                let mut read = self.read(Isolation::Committed, one, from);
                if read.records.pop().is_none() {
                    return false;
                }
                self.reader_polls(read);
            }
            Fault::ReaderBack => {
                let from = self.position(READERS[0], one);
                let before = (0..from).zip(&self.logs[&one]);
                let Some(below) = before.filter_map(|(at, slot)| Some((at, self.is_visible(*slot)?))).last() else {
                    return false;
                };
                let mut read = self.read(Isolation::Committed, one, from);
                read.records.insert(0, below);
                self.reader_polls(read);
            }
            Fault::HighWatermarkBack | Fault::StableOffsetBack => {
                let read = self.read(Isolation::Committed, one, self.stable(one));
                self.reader_polls(read.clone());
                if fault == Fault::HighWatermarkBack {
                    self.reader_polls(Read { high_watermark: read.high_watermark - 1, ..read });
                } else {
                    self.reader_polls(Read { last_stable_offset: read.last_stable_offset - 1, ..read });
                }
            }
            Fault::Unfenced => {
                let worker = PRODUCERS[0];
                let (txn, _) = self.open(&[one]);
                let producer = self.producers.get_mut(&worker).unwrap();
                producer.instance += 1;
                let call = Call::Init { transactional_id: worker, instance: producer.instance, timeout_ms: 1_000_000 };
                self.call(STANDBY, call, Entry::Ok(Answer::Done));
                self.close_known(worker, txn, true);
            }
            Fault::Stuck => {
                self.open(&[one]);
            }
            Fault::UncommittedRead | Fault::BeyondOngoing => return false,
        }
        true
    }
}
