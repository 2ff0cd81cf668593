//! What a history says of each write, each transaction and the log in the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{
    Answer, Call, Consumed, Group, History, Isolation, Operation, Outcome, Partition, Place, Read, Sent, TxnId, Value,
};

pub struct Facts<'h> {
    pub operations: Vec<Operation<'h>>,
    pub writes: HashMap<Value, Write>,
    pub txns: BTreeMap<TxnId, Txn>,
    /// What is there in the end, and all that is known of it when nothing was read in the end.
    pub log: Option<BTreeMap<Partition, BTreeMap<i64, Value>>>,
    /// Seen by anybody under `read_committed`.
    pub seen: HashSet<Value>,
    /// Topics whose partitions were merged and split.
    resharded: HashSet<u8>,
}

pub struct Write {
    pub partition: Partition,
    pub txn: Option<TxnId>,
    /// Places in the history.
    pub invoked: usize,
    pub completed: usize,
    pub acknowledged: bool,
    pub refused: bool,
    /// As the acknowledgement told it.
    pub offset: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Aborted,
    /// A commit was asked for, and nobody knows what came of it.
    Unknown,
}

pub struct Txn {
    pub fate: Fate,
    pub values: Vec<Value>,
    /// Of groups, where the broker took them.
    pub consumed: Vec<(Group, Consumed)>,
    /// The place in the history from which a commit may have happened.
    pub commit_asked: usize,
    /// The place from which the broker may have ended it, for whatever reason.
    pub closes: usize,
}

impl<'h> Facts<'h> {
    pub fn of(history: &'h History) -> Facts<'h> {
        let operations = history.operations();
        let writes = writes(&operations);
        let txns = txns(history, &operations);
        let log = operations.iter().rev().find_map(|operation| match (operation.call, operation.outcome) {
            (Call::ReadAll, Outcome::Ok(Answer::Read(reads))) => {
                Some(reads.iter().map(|read| (read.partition, read.records.iter().copied().collect())).collect())
            }
            _ => None,
        });
        let resharded = operations.iter().filter_map(|operation| match operation.call {
            Call::Reshard { topic, .. } => Some(*topic),
            _ => None,
        });
        let resharded = resharded.collect();
        let mut facts = Facts { operations, writes, txns, log, seen: HashSet::new(), resharded };
        let committed = facts.reads().filter(|(_, isolation, _)| *isolation == Isolation::Committed);
        let read = committed.flat_map(|(_, _, read)| read.records.iter().map(|(_, value)| *value));
        facts.seen = read.chain(facts.shown().flat_map(|(_, values)| values.iter().copied())).collect();
        facts
    }

    /// Everything that was read from a partition, with the operation that read it.
    pub fn reads(&self) -> impl Iterator<Item = (&Operation<'h>, Isolation, &'h Read)> {
        self.operations.iter().flat_map(|operation| {
            let isolation = match operation.call {
                Call::Poll { isolation, .. } => *isolation,
                _ => Isolation::Committed,
            };
            let reads = match operation.outcome {
                Outcome::Ok(Answer::Read(reads)) => &reads[..],
                _ => &[],
            };
            reads.iter().map(move |read| (operation, isolation, read))
        })
    }

    /// What the other door showed.
    pub fn shown(&self) -> impl Iterator<Item = (&Operation<'h>, &'h [Value])> {
        self.operations.iter().filter_map(|operation| match operation.outcome {
            Outcome::Ok(Answer::Shown(values)) => Some((operation, &values[..])),
            _ => None,
        })
    }

    /// Whether a partition may hold what was sent to another one, which it had absorbed.
    pub fn may_move(&self, from: Partition, to: Partition) -> bool {
        from.topic == to.topic && self.resharded.contains(&from.topic)
    }

    pub fn txn_of(&self, value: Value) -> Option<(TxnId, &Txn)> {
        let id = self.writes.get(&value)?.txn?;
        Some((id, self.txns.get(&id)?))
    }

    /// Whether what the transaction did must be there: it was committed, or somebody has seen something of it.
    pub fn is_in_effect(&self, txn: &Txn) -> bool {
        match txn.fate {
            Fate::Committed => true,
            Fate::Aborted => false,
            Fate::Unknown => txn.values.iter().any(|value| self.seen.contains(value)),
        }
    }
}

impl Read {
    pub fn place(&self, offset: i64) -> Place {
        Place { partition: self.partition, offset }
    }
}

fn writes(operations: &[Operation<'_>]) -> HashMap<Value, Write> {
    let mut writes = HashMap::new();
    for operation in operations {
        let Call::Send { txn, writes: sent } = operation.call else { continue };
        for (partition, values) in sent {
            let fate = match operation.outcome {
                Outcome::Ok(Answer::Sent(sent)) => {
                    sent.iter().find(|(other, _)| other == partition).map_or(Sent::Maybe, |(_, sent)| *sent)
                }
                Outcome::Fail => Sent::Refused,
                Outcome::Ok(_) | Outcome::Unknown => Sent::Maybe,
            };
            for (value, delta) in values.iter().zip(0..) {
                let write = Write {
                    partition: *partition,
                    txn: *txn,
                    invoked: operation.invoked,
                    completed: operation.completed,
                    acknowledged: matches!(fate, Sent::At(_) | Sent::Stored),
                    refused: fate == Sent::Refused,
                    offset: if let Sent::At(base) = fate { Some(base + delta) } else { None },
                };
                let other = writes.insert(*value, write);
                assert!(other.is_none(), "{value} is written twice: that is no history");
            }
        }
    }
    writes
}

fn txns(history: &History, operations: &[Operation<'_>]) -> BTreeMap<TxnId, Txn> {
    let mut txns: BTreeMap<TxnId, Txn> = BTreeMap::new();
    let mut inits: HashMap<u32, Vec<(u32, usize, u64)>> = HashMap::new();
    for operation in operations {
        let id = match operation.call {
            Call::Init { transactional_id, instance, timeout_ms } => {
                let init = (*instance, operation.invoked, *timeout_ms);
                inits.entry(*transactional_id).or_default().push(init);
                continue;
            }
            Call::Send { txn: Some(txn), .. } | Call::SendOffsets { txn, .. } | Call::End { txn, .. } => *txn,
            _ => continue,
        };
        let txn = txns.entry(id).or_insert_with(|| Txn {
            fate: Fate::Aborted,
            values: Vec::new(),
            consumed: Vec::new(),
            commit_asked: usize::MAX,
            closes: first_end(history, inits.get(&id.transactional_id), id.instance, operation.invoked_ms),
        });
        match (operation.call, operation.outcome) {
            (Call::Send { writes, .. }, Outcome::Ok(Answer::Sent(sent))) => {
                let is_stored = |partition: &Partition| {
                    sent.iter().any(|(other, sent)| other == partition && matches!(sent, Sent::At(_) | Sent::Stored))
                };
                txn.values.extend(writes.iter().filter(|(on, _)| is_stored(on)).flat_map(|(_, values)| values));
            }
            (Call::SendOffsets { group, consumed, .. }, Outcome::Ok(_)) => {
                txn.consumed.extend(consumed.iter().map(|consumed| (*group, *consumed)));
            }
            (Call::End { commit, .. }, outcome) => {
                txn.closes = txn.closes.min(operation.invoked);
                if *commit {
                    txn.commit_asked = txn.commit_asked.min(operation.invoked);
                    txn.fate = match (outcome, txn.fate) {
                        (Outcome::Ok(_), _) | (_, Fate::Committed) => Fate::Committed,
                        (Outcome::Unknown, _) | (_, Fate::Unknown) => Fate::Unknown,
                        (Outcome::Fail, Fate::Aborted) => Fate::Aborted,
                    };
                }
            }
            _ => {}
        }
    }
    // Who takes the transactional id ends what its holder had under way, also when that comes later in the history.
    for (id, txn) in &mut txns {
        let later = inits.get(&id.transactional_id).into_iter().flatten().filter(|init| init.0 > id.instance);
        txn.closes = later.map(|init| init.1).fold(txn.closes, usize::min);
    }
    txns
}

/// The place of the first event at which the transaction may have timed out.
fn first_end(history: &History, inits: Option<&Vec<(u32, usize, u64)>>, instance: u32, begun_ms: u64) -> usize {
    let own = inits.into_iter().flatten().find(|init| init.0 == instance);
    let timeout_ms = own.map_or(0, |init| init.2);
    history.events.partition_point(|event| event.at_ms < begun_ms + timeout_ms)
}
