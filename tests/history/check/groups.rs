//! Groups: offsets move with the transactions that carry them, only those, and only on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::facts::{Facts, Fate};
use super::{Misfit, Violation};
use crate::history::{Answer, Call, Group, Outcome, Partition};

pub fn check(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    monotony(facts, found);
    origin(facts, found);
    coverage(facts, found);
}

type Key = (Group, Partition);

/// What was acknowledged or found before a question is the least that its answer may tell.
fn monotony(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let mut steps: Vec<(usize, usize, bool)> = Vec::new();
    for (index, operation) in facts.operations.iter().enumerate() {
        if matches!(operation.outcome, Outcome::Ok(_)) {
            steps.push((operation.invoked, index, true));
            steps.push((operation.completed, index, false));
        }
    }
    steps.sort_unstable();
    let mut known: HashMap<Key, i64> = HashMap::new();
    let mut floors: HashMap<usize, Vec<(Partition, i64)>> = HashMap::new();
    let rise = |known: &mut HashMap<Key, i64>, key, offset: i64| {
        let known = known.entry(key).or_insert(offset);
        *known = offset.max(*known);
    };
    for (_, index, is_invoked) in steps {
        let operation = &facts.operations[index];
        match (operation.call, operation.outcome) {
            (Call::FetchOffsets { group }, Outcome::Ok(_)) if is_invoked => {
                let of_group = known.iter().filter(|((other, _), _)| other == group);
                floors.insert(index, of_group.map(|((_, partition), offset)| (*partition, *offset)).collect());
            }
            (Call::FetchOffsets { group }, Outcome::Ok(Answer::Offsets(offsets))) => {
                for (partition, known) in floors.remove(&index).unwrap_or_default() {
                    let told = offsets.iter().find(|(other, _)| *other == partition).map_or(-1, |(_, offset)| *offset);
                    if told < known {
                        found.insert(Violation::OffsetsWentBack { group: *group, partition, known, found: told });
                    }
                }
                for (partition, offset) in offsets {
                    rise(&mut known, (*group, *partition), *offset);
                }
            }
            (Call::Commit { group, offsets }, _) if !is_invoked => {
                for (partition, offset) in offsets {
                    rise(&mut known, (*group, *partition), *offset);
                }
            }
            (Call::End { txn, commit: true }, _) if !is_invoked => {
                for (group, consumed) in &facts.txns[txn].consumed {
                    rise(&mut known, (*group, consumed.partition), consumed.to);
                }
            }
            _ => {}
        }
    }
}

/// Every offset that is found was committed by somebody, and not by a transaction that came to nothing.
fn origin(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let mut committed: HashSet<(Key, i64)> = HashSet::new();
    for operation in &facts.operations {
        if let Call::Commit { group, offsets } = operation.call {
            committed.extend(offsets.iter().map(|(partition, offset)| ((*group, *partition), *offset)));
        }
    }
    for txn in facts.txns.values().filter(|txn| txn.fate != Fate::Aborted) {
        committed.extend(txn.consumed.iter().map(|(group, taken)| ((*group, taken.partition), taken.to)));
    }
    for operation in &facts.operations {
        let (Call::FetchOffsets { group }, Outcome::Ok(Answer::Offsets(offsets))) = (operation.call, operation.outcome)
        else {
            continue;
        };
        for (partition, offset) in offsets {
            if !committed.contains(&((*group, *partition), *offset)) {
                found.insert(Violation::PhantomOffset { group: *group, partition: *partition, offset: *offset });
            }
        }
    }
}

/// What visible transactions took from a partition lies end to end, up to where the group stands in the end.
fn coverage(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let mut taken: BTreeMap<Key, Vec<(i64, i64)>> = BTreeMap::new();
    for txn in facts.txns.values() {
        for (group, consumed) in &txn.consumed {
            let taken = taken.entry((*group, consumed.partition)).or_default();
            if facts.is_in_effect(txn) {
                taken.push((consumed.from, consumed.to));
            }
        }
    }
    for ((group, partition), mut ranges) in taken {
        let mut tear = |misfit| {
            found.insert(Violation::TornOffsets { group, partition, misfit });
        };
        ranges.sort_unstable();
        let mut reached = 0;
        for (from, to) in ranges {
            if from > reached {
                tear(Misfit::Gap { from: reached, to: from });
            } else if from < reached {
                tear(Misfit::Overlap { from, to: to.min(reached) });
            }
            reached = reached.max(to);
        }
        match last_found(facts, group, partition) {
            Some(last) if last > reached => tear(Misfit::Gap { from: reached, to: last }),
            Some(last) if last < reached => tear(Misfit::Behind { taken: reached, found: last }),
            _ => {}
        }
    }
}

/// None when nobody asked after the last transaction had ended.
fn last_found(facts: &Facts<'_>, group: Group, partition: Partition) -> Option<i64> {
    let last_end = facts.operations.iter().filter(|operation| matches!(operation.call, Call::End { .. }));
    let last_end = last_end.map(|operation| operation.completed).filter(|place| *place != usize::MAX).max()?;
    facts.operations.iter().rev().find_map(|operation| match (operation.call, operation.outcome) {
        (Call::FetchOffsets { group: of }, Outcome::Ok(Answer::Offsets(offsets)))
            if *of == group && operation.invoked > last_end =>
        {
            Some(offsets.iter().find(|(other, _)| *other == partition).map_or(0, |(_, offset)| *offset))
        }
        _ => None,
    })
}
