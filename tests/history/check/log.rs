//! The log: what stands where, once, in order, and is still there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Violation;
use super::facts::Facts;
use crate::history::{Isolation, Partition, Place, Value};

pub fn check(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    places(facts, found);
    phantoms(facts, found);
    order(facts, found);
    lost(facts, found);
}

/// One value at one place: by acknowledgements and by whoever read.
fn places(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let mut holds: HashMap<Place, BTreeSet<Option<Value>>> = HashMap::new();
    let mut stands: HashMap<Value, BTreeSet<Place>> = HashMap::new();
    let acknowledged = facts
        .writes
        .iter()
        .filter_map(|(value, write)| Some((Place { partition: write.partition, offset: write.offset? }, *value)));
    let read =
        facts.reads().flat_map(|(_, _, read)| read.records.iter().map(|(offset, value)| (read.place(*offset), *value)));
    for (place, value) in acknowledged.chain(read) {
        holds.entry(place).or_default().insert(Some(value));
        stands.entry(value).or_default().insert(place);
    }
    // What somebody read and nobody finds in the end.
    if let Some(log) = &facts.log {
        for (_, isolation, read) in facts.reads() {
            for (offset, _) in &read.records {
                let is_there = log.get(&read.partition).is_some_and(|log| log.contains_key(offset));
                if isolation == Isolation::Committed && !is_there {
                    // Aborted reads are told as such.
                    let values = holds.entry(read.place(*offset)).or_default();
                    let all_visible = values
                        .iter()
                        .flatten()
                        .all(|value| facts.txn_of(*value).is_none_or(|(_, txn)| facts.is_in_effect(txn)));
                    if all_visible {
                        values.insert(None);
                    }
                }
            }
        }
    }
    for (place, values) in holds {
        if values.len() > 1 {
            found.insert(Violation::Diverged { place, values: values.into_iter().collect() });
        }
    }
    for (value, places) in stands {
        if places.len() > 1 {
            found.insert(Violation::Duplicate { value, places: places.into_iter().collect() });
        }
    }
}

fn phantoms(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    for (_, _, read) in facts.reads() {
        for (offset, value) in &read.records {
            let is_written = facts.writes.get(value).is_some_and(|write| {
                !write.refused && (write.partition == read.partition || facts.may_move(write.partition, read.partition))
            });
            if !is_written {
                found.insert(Violation::Phantom { value: *value, place: read.place(*offset) });
            }
        }
    }
}

/// What was sent after another write was acknowledged stands behind it.
fn order(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    enum Step {
        Invoked,
        Completed,
    }
    let mut steps: BTreeMap<(usize, Value), Step> = BTreeMap::new();
    for (value, write) in facts.writes.iter().filter(|(_, write)| write.offset.is_some()) {
        steps.insert((write.invoked, *value), Step::Invoked);
        steps.insert((write.completed, *value), Step::Completed);
    }
    let mut furthest: HashMap<Partition, (i64, Value)> = HashMap::new();
    for ((_, value), step) in steps {
        let write = &facts.writes[&value];
        let Some(offset) = write.offset else { continue };
        let reached = furthest.get(&write.partition).copied();
        match step {
            Step::Invoked => {
                if let Some((_, first)) = reached.filter(|(reached, _)| *reached > offset) {
                    found.insert(Violation::Inverted { partition: write.partition, first, second: value });
                }
            }
            Step::Completed if reached.is_none_or(|(reached, _)| reached < offset) => {
                furthest.insert(write.partition, (offset, value));
            }
            Step::Completed => {}
        }
    }
    within_batches(facts, found);
}

/// One write's records stand in the order in which they were sent, by who read them in the end.
fn within_batches(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let Some(log) = &facts.log else { return };
    for (partition, records) in log {
        let mut last: HashMap<usize, Value> = HashMap::new();
        let mut met = BTreeSet::new();
        for value in records.values() {
            let Some(write) = facts.writes.get(value) else { continue };
            // What stands there twice is told as such.
            if !met.insert(*value) {
                continue;
            }
            // Values of one producer are sent in their order.
            if let Some(before) = last.insert(write.invoked, *value).filter(|before| before > value) {
                found.insert(Violation::Inverted { partition: *partition, first: *value, second: before });
            }
        }
    }
}

/// Outside of transactions; those are judged whole.
fn lost(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let Some(log) = &facts.log else { return };
    let there: BTreeSet<Value> = log.values().flat_map(|records| records.values().copied()).collect();
    for (value, write) in &facts.writes {
        if write.txn.is_none() && write.acknowledged && !there.contains(value) {
            found.insert(Violation::LostWrite { value: *value, partition: write.partition, txn: None });
        }
    }
}
