//! Histories of whole brokers under kills, pauses and restarts, and the judge of them, in the manner of Jepsen's Kafka
//! workload.
//!
//! [`workload`] runs clients at once, [`history`] holds what they saw, [`check`] says what is wrong with it. That the
//! checker sees faults is shown twice: [`planted`] plants them into histories of a [`model`], and the tests below into
//! clients of the real broker.
//!
//! | variable | what |
//! |---|---|
//! | `ANABRANCH_HISTORY_SECONDS` | how long the broker is harmed; 15 by default |
//! | `ANABRANCH_HISTORY_SEED` | a number: the choices of every worker |
//! | `ANABRANCH_HISTORY_BROKER`, `ANABRANCH_HISTORY_CONTROL` | another broker's address, and a command that does `start`, `kill`, `term`, `pause` and `resume` to it |

mod broker;
mod check;
#[path = "../common/frame.rs"]
mod frame;
mod group;
mod history;
mod kinesis;
mod model;
mod names;
#[path = "../common/random.rs"]
mod numbers;
mod planted;
#[path = "../server/process.rs"]
#[allow(dead_code, reason = "the tests of the server use the rest of it")]
mod process;
mod producer;
mod random;
mod reader;
mod wire;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::check::{Violation, check};
use crate::history::History;
use crate::workload::{Lie, Plan, Tally};

/// Of a report.
const SHOWN_OF_A_KIND: usize = 2;
const LINES_SHOWN: usize = 40;
/// How long a run with a lie in it takes.
const LIE: Duration = Duration::from_secs(4);

fn variable(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    variable("ANABRANCH_HISTORY_SEED").unwrap_or_else(|| now() % 1_000_000_000)
}

async fn run(length: Duration, lie: Option<Lie>) -> (History, Vec<Violation>) {
    let plan = Plan { seed: seed(), length, lie };
    println!("seed {}", plan.seed);
    let history = workload::run(plan).await;
    println!("{}", Tally::of(&history));
    let violations = check(&history);
    (history, violations)
}

fn report(history: &History, violations: &[Violation]) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{}.txt", std::process::id()));
    std::fs::write(&file, history.to_string()).unwrap();
    let mut text = format!("{} violations; the whole history: {}\n", violations.len(), file.display());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in violations {
        *counts.entry(violation.name()).or_default() += 1;
    }
    for (name, count) in counts {
        text += &format!("  {count:>6} x {name}\n");
    }
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in violations {
        let shown = shown.entry(violation.name()).or_default();
        *shown += 1;
        if *shown > SHOWN_OF_A_KIND {
            continue;
        }
        text += &format!("\n{violation}\n{}", violation.excerpt(history, LINES_SHOWN));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_under_kills_pauses_and_restarts_are_sound() {
    let seconds = variable("ANABRANCH_HISTORY_SECONDS").unwrap_or(15);
    let (history, violations) = run(Duration::from_secs(seconds), None).await;
    assert!(violations.is_empty(), "{}", report(&history, &violations));
    let tally = Tally::of(&history);
    let is_rich = tally.committed > 20 && tally.aborted > 5 && tally.processed > 5 && tally.read > 100;
    assert!(is_rich && tally.harms > 2, "too little happened: {tally}");
}

async fn found_with(lie: Lie) -> BTreeSet<&'static str> {
    let (_, violations) = run(LIE, Some(lie)).await;
    violations.iter().map(Violation::name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_do_not_read_committed_are_seen() {
    let found = found_with(Lie::ReadsUncommitted).await;
    assert!(found.contains("aborted read") && found.contains("uncommitted read"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn offsets_beside_their_transaction_are_seen() {
    let found = found_with(Lie::OffsetsBeside).await;
    assert!(found.contains("torn offsets"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_that_are_stored_twice_are_seen() {
    let found = found_with(Lie::SendsTwice).await;
    assert_eq!(found, BTreeSet::from(["duplicate"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_broker_that_forgets_is_seen() {
    let found = found_with(Lie::Forgets).await;
    assert!(found.contains("lost write") && found.contains("divergence"), "{found:?}");
}
