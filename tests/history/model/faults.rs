//! Faults of the model's broker, each with just the calls that show it.

use super::{CONSUMED, MEMBER, Model, OUT, PARTITIONS, PLAIN, PROCESSOR, PRODUCERS, READERS, STANDBY, Slot, State};
use crate::history::{Answer, Call, Entry, Isolation, Partition, Read, Sent, TxnId, Value};

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
    DoorShowsAborted,
    DoorShowsUncommitted,
    DoorHides,
    Stuck,
}

impl Model {
    /// Does the fault, if there is an occasion. Nothing of others comes in between.
    pub fn plant(&mut self, is_running: bool) {
        let Some(fault) = self.fault.filter(|_| !self.is_planted) else { return };
        let is_for_the_end = matches!(fault, Fault::Phantom | Fault::Stuck | Fault::DoorHides);
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
            Fault::DoorShowsAborted | Fault::DoorShowsUncommitted => {
                let (txn, values) = self.open(&[one]);
                self.show(false, values);
                self.close_known(PRODUCERS[0], txn, fault == Fault::DoorShowsUncommitted);
            }
            Fault::DoorHides => self.show(true, vec![]),
            Fault::Stuck => {
                self.open(&[one]);
            }
            Fault::UncommittedRead | Fault::BeyondOngoing => return false,
        }
        true
    }
}
