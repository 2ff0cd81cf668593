//! Transactions: whole or not at all, seen only once they are committed, and by no producer that another has replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Violation;
use super::facts::{Facts, Fate};
use crate::history::{Answer, Call, Isolation, Operation, Outcome, Partition, Place, Read, Sent, TxnId, Value};

pub fn check(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    atomicity(facts, found);
    visibility(facts, found);
    ongoing(facts, found);
    fencing(facts, found);
}

fn atomicity(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let Some(log) = &facts.log else { return };
    let there: BTreeSet<Value> = log.values().flat_map(|records| records.values().copied()).collect();
    for (id, txn) in facts.txns.iter().filter(|(_, txn)| facts.is_in_effect(txn)) {
        let (seen, missing): (Vec<Value>, Vec<Value>) = txn.values.iter().partition(|value| there.contains(value));
        if seen.is_empty() {
            found.extend(missing.iter().map(|value| Violation::LostWrite {
                value: *value,
                partition: facts.writes[value].partition,
                txn: Some(*id),
            }));
        } else if !missing.is_empty() {
            found.insert(Violation::Torn { txn: *id, seen, missing });
        }
    }
}

fn visibility(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    for (operation, isolation, read) in facts.reads() {
        if isolation == Isolation::Uncommitted {
            continue;
        }
        for (offset, value) in &read.records {
            let Some((id, txn)) = facts.txn_of(*value) else { continue };
            let (value, place, worker) = (*value, Some(read.place(*offset)), operation.worker);
            if txn.fate == Fate::Aborted {
                found.insert(Violation::AbortedRead { txn: id, value, place, worker });
            } else if operation.completed < txn.commit_asked {
                found.insert(Violation::UncommittedRead { txn: id, value, place, worker });
            }
        }
    }
}

/// Who reads committed records is not told of anything beyond a transaction that was open from before the question until
/// after the answer.
fn ongoing(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    // By the places in the history at which sends were acknowledged and polls invoked.
    let mut steps: Vec<(usize, &Operation<'_>)> = Vec::new();
    for operation in &facts.operations {
        match operation.call {
            Call::Send { txn: Some(_), .. } => steps.push((operation.completed, operation)),
            Call::Poll { isolation: Isolation::Committed, .. } => steps.push((operation.invoked, operation)),
            _ => {}
        }
    }
    steps.sort_by_key(|(place, _)| *place);
    let mut open: HashMap<Partition, BTreeMap<i64, (TxnId, usize)>> = HashMap::new();
    for (place, operation) in steps {
        match (operation.call, operation.outcome) {
            (Call::Send { txn: Some(id), .. }, Outcome::Ok(Answer::Sent(sent))) => {
                let closes = facts.txns[id].closes;
                for (partition, sent) in sent {
                    if let Sent::At(offset) = sent {
                        open.entry(*partition).or_default().insert(*offset, (*id, closes));
                    }
                }
            }
            (Call::Poll { .. }, Outcome::Ok(Answer::Read(reads))) => {
                for read in reads {
                    let open = open.entry(read.partition).or_default();
                    open.retain(|_, (_, closes)| *closes > place);
                    let first = open.iter().find(|(_, (_, closes))| *closes > operation.completed);
                    if let Some((offset, (id, _))) = first {
                        beyond(facts, operation, read, *id, *offset, found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn beyond(
    facts: &Facts<'_>,
    operation: &Operation<'_>,
    read: &Read,
    txn: TxnId,
    offset: i64,
    found: &mut BTreeSet<Violation>,
) {
    let last = read.records.last().map_or(-1, |(offset, _)| offset + 1);
    let reached = last.max(read.last_stable_offset).max(if read.next > read.from { read.next } else { -1 });
    // Its own records are told as read before their commit.
    let is_read = read.records.iter().any(|(_, value)| facts.txn_of(*value).is_some_and(|(id, _)| id == txn));
    if reached > offset && !is_read {
        let place = Place { partition: read.partition, offset };
        found.insert(Violation::BeyondOngoing { txn, place, worker: operation.worker, reached });
    }
}

/// Nothing is taken from a producer once another one knows that it has the transactional id.
fn fencing(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let mut taken: HashMap<u32, Vec<(u32, usize)>> = HashMap::new();
    for operation in &facts.operations {
        if let (Call::Init { transactional_id, instance, .. }, Outcome::Ok(_)) = (operation.call, operation.outcome) {
            taken.entry(*transactional_id).or_default().push((*instance, operation.completed));
        }
    }
    for operation in &facts.operations {
        let (txn, what) = match (operation.call, operation.outcome) {
            (Call::Send { txn: Some(txn), .. }, Outcome::Ok(Answer::Sent(sent)))
                if sent.iter().any(|(_, sent)| matches!(sent, Sent::At(_) | Sent::Stored)) =>
            {
                (txn, "write into")
            }
            (Call::SendOffsets { txn, .. }, Outcome::Ok(_)) => (txn, "add offsets to"),
            (Call::End { txn, commit: true }, Outcome::Ok(_)) => (txn, "commit"),
            _ => continue,
        };
        let others = taken.get(&txn.transactional_id).into_iter().flatten();
        if others.into_iter().any(|(instance, since)| *instance > txn.instance && *since < operation.invoked) {
            found.insert(Violation::Unfenced { txn: *txn, worker: operation.worker, what });
        }
    }
}
