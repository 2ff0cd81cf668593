//! The other door: it shows what readers of committed records see, each record once.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::facts::{Facts, Fate};
use crate::history::{Call, Value};

pub fn check(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    visibility(facts, found);
    whole(facts, found);
}

fn visibility(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    for (operation, values) in facts.shown() {
        for value in values {
            let Some((id, txn)) = facts.txn_of(*value) else { continue };
            let (value, place, worker) = (*value, None, operation.worker);
            if txn.fate == Fate::Aborted {
                found.insert(Violation::AbortedRead { txn: id, value, place, worker });
            } else if operation.completed < txn.commit_asked {
                found.insert(Violation::UncommittedRead { txn: id, value, place, worker });
            }
        }
    }
}

/// When nothing is under way any more, both doors show the same.
fn whole(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let Some(log) = &facts.log else { return };
    for (operation, values) in facts.shown() {
        let Call::OtherDoor { topic, is_all: true } = *operation.call else { continue };
        let mut times: BTreeMap<Value, i32> = BTreeMap::new();
        for value in values {
            *times.entry(*value).or_default() += 1;
        }
        let of_topic = log.iter().filter(|(partition, _)| partition.topic == topic);
        for value in of_topic.flat_map(|(_, records)| records.values()) {
            *times.entry(*value).or_default() -= 1;
        }
        let beyond = |is_wanted: fn(i32) -> bool| {
            times.iter().filter(|(_, times)| is_wanted(**times)).map(|(value, _)| *value).collect::<Vec<_>>()
        };
        let (missing, extra) = (beyond(|times| times < 0), beyond(|times| times > 0));
        if !missing.is_empty() || !extra.is_empty() {
            found.insert(Violation::DoorsDiffer { topic, missing, extra });
        }
    }
}
