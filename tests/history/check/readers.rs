//! Readers: nothing is passed over, nothing comes back, and watermarks only rise.

use std::collections::{BTreeSet, HashMap};

use super::Violation;
use super::facts::Facts;
use crate::history::{Answer, Call, Isolation, Outcome, Partition};

pub fn check(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    skipped(facts, found);
    positions(facts, found);
    watermarks(facts, found);
    stuck(facts, found);
}

/// Whatever is committed in the end was committed, or held the reader back, when a reader came by.
fn skipped(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    let Some(log) = &facts.log else { return };
    for (operation, _, read) in facts.reads() {
        let Some(records) = log.get(&read.partition) else { continue };
        if read.next <= read.from {
            continue;
        }
        let given: BTreeSet<i64> = read.records.iter().map(|(offset, _)| *offset).collect();
        for (offset, value) in records.range(read.from..read.next) {
            if !given.contains(offset) {
                let place = read.place(*offset);
                found.insert(Violation::Skipped { worker: operation.worker, value: *value, place });
            }
        }
    }
}

fn positions(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    for (operation, _, read) in facts.reads() {
        let mut position = read.from;
        for (offset, _) in &read.records {
            if *offset < position {
                let place = read.place(*offset);
                found.insert(Violation::WentBack { worker: operation.worker, place, position });
            }
            position = position.max(offset + 1);
        }
    }
}

/// In the order of the history: what was told before a question is the least that its answer may tell.
fn watermarks(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    const NAMES: [&str; 2] = ["high watermark", "last stable offset"];
    let mut steps: Vec<(usize, usize, bool)> = Vec::new();
    for (index, operation) in facts.operations.iter().enumerate() {
        if matches!(operation.outcome, Outcome::Ok(Answer::Read(_))) {
            steps.push((operation.invoked, index, true));
            steps.push((operation.completed, index, false));
        }
    }
    steps.sort_unstable();
    let mut known: HashMap<Partition, [i64; 2]> = HashMap::new();
    let mut floors: HashMap<usize, HashMap<Partition, [i64; 2]>> = HashMap::new();
    for (_, index, is_invoked) in steps {
        let Outcome::Ok(Answer::Read(reads)) = facts.operations[index].outcome else { continue };
        if is_invoked {
            let floor = |partition| Some((partition, *known.get(&partition)?));
            floors.insert(index, reads.iter().filter_map(|read| floor(read.partition)).collect());
            continue;
        }
        let floors = floors.remove(&index).unwrap_or_default();
        for read in reads {
            let told = [read.high_watermark, read.last_stable_offset];
            let floor = floors.get(&read.partition).copied().unwrap_or([-1; 2]);
            for ((watermark, found_at), known) in NAMES.into_iter().zip(told).zip(floor) {
                if found_at < known {
                    let partition = read.partition;
                    found.insert(Violation::WatermarkWentBack { partition, watermark, known, found: found_at });
                }
            }
            let known = known.entry(read.partition).or_insert([-1; 2]);
            *known = [known[0].max(told[0]), known[1].max(told[1])];
        }
    }
}

fn stuck(facts: &Facts<'_>, found: &mut BTreeSet<Violation>) {
    for (operation, isolation, read) in facts.reads() {
        let is_last = matches!(operation.call, Call::ReadAll) && isolation == Isolation::Committed;
        if is_last && read.last_stable_offset < read.high_watermark {
            found.insert(Violation::Stuck {
                partition: read.partition,
                last_stable_offset: read.last_stable_offset,
                high_watermark: read.high_watermark,
            });
        }
    }
}
