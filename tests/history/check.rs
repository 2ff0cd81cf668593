//! The judge: a history in, what a Kafka log may not do out. Pure. [`crate::planted`] shows that it sees each fault, and
//! nothing else, when that fault is planted into a sound history.
//!
//! What a broker owes is what Kafka's protocol with transactions promises, no more, so that Apache Kafka's histories are
//! sound as well. In particular a transaction may become visible partition by partition after its commit was
//! acknowledged, and what nobody knows the fate of may have happened or not, but whole.

mod doors;
mod facts;
mod groups;
mod log;
mod readers;
mod transactions;

use std::collections::BTreeSet;
use std::fmt;

use self::facts::Facts;
use crate::history::{Group, History, Partition, Place, TxnId, Value};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Acknowledged outside of a transaction, or in one that was committed and is missing altogether.
    LostWrite { value: Value, partition: Partition, txn: Option<TxnId> },
    /// One write, several places.
    Duplicate { value: Value, places: Vec<Place> },
    /// Read, and never written, or refused.
    Phantom { value: Value, place: Place },
    /// Read under `read_committed` from a transaction that was not committed (G1a).
    AbortedRead { txn: TxnId, value: Value, place: Option<Place>, worker: u32 },
    /// Read under `read_committed` before anybody asked for the commit that came later.
    UncommittedRead { txn: TxnId, value: Value, place: Option<Place>, worker: u32 },
    /// A `read_committed` reader was let past a record of a transaction that was open all the while.
    BeyondOngoing { txn: TxnId, place: Place, worker: u32, reached: i64 },
    /// Two see different things at one offset; `None` is nothing, where another saw a record.
    Diverged { place: Place, values: Vec<Option<Value>> },
    /// The first was acknowledged before the second was sent, and stands behind it.
    Inverted { partition: Partition, first: Value, second: Value },
    /// Part of a transaction is there in the end and part of it is not.
    Torn { txn: TxnId, seen: Vec<Value>, missing: Vec<Value> },
    /// The group's offsets do not fit what the visible transactions took.
    TornOffsets { group: Group, partition: Partition, misfit: Misfit },
    /// An offset that no transaction which may count and no member committed.
    PhantomOffset { group: Group, partition: Partition, offset: i64 },
    /// A group's offset is lower than it was known to be before it was asked for.
    OffsetsWentBack { group: Group, partition: Partition, known: i64, found: i64 },
    /// A reader went on past a record without being given it.
    Skipped { worker: u32, value: Value, place: Place },
    /// A reader was given a record below the position that it had reached.
    WentBack { worker: u32, place: Place, position: i64 },
    /// The high watermark or the last stable offset is lower than it was known to be before it was asked for.
    WatermarkWentBack { partition: Partition, watermark: &'static str, known: i64, found: i64 },
    /// A producer did something after another one had taken its transactional id.
    Unfenced { txn: TxnId, worker: u32, what: &'static str },
    /// The Kinesis API does not show what readers of committed records see.
    DoorsDiffer { topic: u8, missing: Vec<Value>, extra: Vec<Value> },
    /// A transaction hangs: the last stable offset stays below the end although nothing is under way any more.
    Stuck { partition: Partition, last_stable_offset: i64, high_watermark: i64 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// The group has gone past what no visible transaction took: offsets without their records.
    Gap { from: i64, to: i64 },
    /// Visible transactions took the same twice.
    Overlap { from: i64, to: i64 },
    /// In the end the group stands below what visible transactions took: records without their offsets.
    Behind { taken: i64, found: i64 },
}

/// What is wrong with a history, each thing once, in a stable order.
pub fn check(history: &History) -> Vec<Violation> {
    let facts = Facts::of(history);
    let mut found = BTreeSet::new();
    log::check(&facts, &mut found);
    transactions::check(&facts, &mut found);
    readers::check(&facts, &mut found);
    groups::check(&facts, &mut found);
    doors::check(&facts, &mut found);
    found.into_iter().collect()
}

impl Violation {
    pub fn name(&self) -> &'static str {
        match self {
            Violation::LostWrite { .. } => "lost write",
            Violation::Duplicate { .. } => "duplicate",
            Violation::Phantom { .. } => "phantom",
            Violation::AbortedRead { .. } => "aborted read",
            Violation::UncommittedRead { .. } => "uncommitted read",
            Violation::BeyondOngoing { .. } => "read beyond an ongoing transaction",
            Violation::Diverged { .. } => "divergence",
            Violation::Inverted { .. } => "order inversion",
            Violation::Torn { .. } => "torn transaction",
            Violation::TornOffsets { .. } => "torn offsets",
            Violation::PhantomOffset { .. } => "phantom offset",
            Violation::OffsetsWentBack { .. } => "offsets went back",
            Violation::Skipped { .. } => "skipped record",
            Violation::WentBack { .. } => "reader went back",
            Violation::WatermarkWentBack { .. } => "watermark went back",
            Violation::Unfenced { .. } => "unfenced producer",
            Violation::DoorsDiffer { .. } => "doors differ",
            Violation::Stuck { .. } => "stuck partition",
        }
    }

    /// What of the history speaks of it.
    pub fn excerpt(&self, history: &History, lines_max: usize) -> String {
        let (places, values, txns): (Vec<Place>, Vec<Value>, Vec<TxnId>) = match self {
            Violation::LostWrite { value, txn, .. } => (vec![], vec![*value], txn.iter().copied().collect()),
            Violation::Duplicate { value, places } => (places.clone(), vec![*value], vec![]),
            Violation::Phantom { value, place } | Violation::Skipped { value, place, .. } => {
                (vec![*place], vec![*value], vec![])
            }
            Violation::AbortedRead { txn, value, place, .. } | Violation::UncommittedRead { txn, value, place, .. } => {
                (place.iter().copied().collect(), vec![*value], vec![*txn])
            }
            Violation::BeyondOngoing { txn, place, .. } => (vec![*place], vec![], vec![*txn]),
            Violation::Diverged { place, values } => (vec![*place], values.iter().copied().flatten().collect(), vec![]),
            Violation::Inverted { first, second, .. } => (vec![], vec![*first, *second], vec![]),
            Violation::Torn { txn, seen, missing } => {
                (vec![], seen.iter().chain(missing).copied().collect(), vec![*txn])
            }
            Violation::DoorsDiffer { missing, extra, .. } => {
                (vec![], missing.iter().chain(extra).take(5).copied().collect(), vec![])
            }
            Violation::WentBack { place, .. } => (vec![*place], vec![], vec![]),
            Violation::Unfenced { txn, .. } => (vec![], vec![], vec![*txn]),
            Violation::TornOffsets { group, partition, .. }
            | Violation::PhantomOffset { group, partition, .. }
            | Violation::OffsetsWentBack { group, partition, .. } => {
                return history.of_group(*group, *partition, lines_max);
            }
            Violation::WatermarkWentBack { partition, .. } | Violation::Stuck { partition, .. } => {
                return history.of_partition(*partition, lines_max);
            }
        };
        history.around(&places, &values, &txns, lines_max)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Violation::LostWrite { value, partition, txn: None } => {
                write!(f, "{value} was acknowledged in {partition} and is not there")
            }
            Violation::LostWrite { value, partition, txn: Some(txn) } => {
                write!(f, "{value} was committed in {partition} by {txn} and is not there, nor is anything of {txn}")
            }
            Violation::Duplicate { value, places } => write!(f, "{value} stands at {places:?}"),
            Violation::Phantom { value, place } => write!(f, "{value} at {place} was never written, or refused"),
            Violation::AbortedRead { txn, value, place, worker } => {
                write!(f, "w{worker} read {value}{} of {txn}, which was not committed", at(place))
            }
            Violation::UncommittedRead { txn, value, place, worker } => {
                write!(f, "w{worker} read {value}{} before the commit of {txn} was asked for", at(place))
            }
            Violation::BeyondOngoing { txn, place, worker, reached } => {
                write!(f, "w{worker} was told of {reached} in {} while {txn} was open since {place}", place.partition)
            }
            Violation::Diverged { place, values } => write!(f, "{place} holds one of {values:?}"),
            Violation::Inverted { partition, first, second } => {
                write!(f, "in {partition}, {second} stands before {first}, which was acknowledged before it was sent")
            }
            Violation::Torn { txn, seen, missing } => {
                write!(f, "of {txn} there is {seen:?} and there is not {missing:?}")
            }
            Violation::TornOffsets { group, partition, misfit } => match misfit {
                Misfit::Gap { from, to } => {
                    write!(f, "no visible transaction of g{group} took {partition}@{from}..{to}")
                }
                Misfit::Overlap { from, to } => {
                    write!(f, "two visible transactions of g{group} took {partition}@{from}..{to}")
                }
                Misfit::Behind { taken, found } => {
                    write!(f, "g{group} stands at {partition}@{found}, visible transactions took up to {taken}")
                }
            },
            Violation::PhantomOffset { group, partition, offset } => {
                write!(f, "g{group} stood at {partition}@{offset}, which nobody committed")
            }
            Violation::OffsetsWentBack { group, partition, known, found } => {
                write!(f, "g{group} stood at {partition}@{known} and later at {found}")
            }
            Violation::Skipped { worker, value, place } => write!(f, "w{worker} went past {value} at {place}"),
            Violation::WentBack { worker, place, position } => {
                write!(f, "w{worker} was given {place} when it had reached {position}")
            }
            Violation::WatermarkWentBack { partition, watermark, known, found } => {
                write!(f, "the {watermark} of {partition} was {known} and later {found}")
            }
            Violation::Unfenced { txn, worker, what } => {
                write!(f, "w{worker} was allowed to {what} {txn} after another producer had taken its id")
            }
            Violation::DoorsDiffer { topic, missing, extra } => {
                write!(f, "the other door does not show {missing:?} of t{topic}, or shows {extra:?} as well")
            }
            Violation::Stuck { partition, last_stable_offset, high_watermark } => {
                write!(f, "{partition} is stable up to {last_stable_offset} of {high_watermark} with nothing under way")
            }
        }
    }
}

fn at(place: &Option<Place>) -> String {
    place.map_or_else(|| " through the other door".to_owned(), |place| format!(" at {place}"))
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
