//! The checker judged: sound histories are sound, and each fault planted into one is seen, and nothing else.

use std::collections::BTreeSet;

use crate::check::{Violation, check};
use crate::history::{Answer, Call, Entry, History, Isolation, Partition, Read, Recorder, Sent, TxnId};
use crate::model::{self, Fault};

const SEEDS: u64 = 20;

const FAULTS: &[(Fault, &str)] = &[
    (Fault::LoseWrite, "lost write"),
    (Fault::LoseTransaction, "lost write"),
    (Fault::DuplicateWrite, "duplicate"),
    (Fault::Phantom, "phantom"),
    (Fault::AbortedRead, "aborted read"),
    (Fault::UncommittedRead, "uncommitted read"),
    (Fault::BeyondOngoing, "read beyond an ongoing transaction"),
    (Fault::Diverge, "divergence"),
    (Fault::Vanish, "divergence"),
    (Fault::Invert, "order inversion"),
    (Fault::InvertBatch, "order inversion"),
    (Fault::Tear, "torn transaction"),
    (Fault::OffsetsWithoutRecords, "torn offsets"),
    (Fault::RecordsWithoutOffsets, "torn offsets"),
    (Fault::PhantomOffset, "phantom offset"),
    (Fault::OffsetsBack, "offsets went back"),
    (Fault::Skip, "skipped record"),
    (Fault::ReaderBack, "reader went back"),
    (Fault::HighWatermarkBack, "watermark went back"),
    (Fault::StableOffsetBack, "watermark went back"),
    (Fault::Unfenced, "unfenced producer"),
    (Fault::DoorShowsAborted, "aborted read"),
    (Fault::DoorShowsUncommitted, "uncommitted read"),
    (Fault::DoorHides, "doors differ"),
    (Fault::Stuck, "stuck partition"),
];

#[test]
fn sound_histories_are_sound() {
    for seed in 0..5 * SEEDS {
        let (history, _) = model::run(seed, None);
        let found = check(&history);
        assert!(found.is_empty(), "seed {seed}: {found:?}\n{}", found[0].excerpt(&history, 60));
    }
}

#[test]
fn each_fault_is_seen_and_nothing_else() {
    for (fault, name) in FAULTS {
        let mut planted = 0;
        for seed in 0..SEEDS {
            let (history, is_planted) = model::run(seed, Some(*fault));
            if !is_planted {
                continue;
            }
            planted += 1;
            let found = check(&history);
            let names: BTreeSet<&str> = found.iter().map(Violation::name).collect();
            let excerpts = || found.iter().map(|found| found.excerpt(&history, 40)).collect::<String>();
            assert_eq!(names, BTreeSet::from([*name]), "{fault:?} by seed {seed}: {found:?}\n{}", excerpts());
            assert!(!found[0].excerpt(&history, 40).is_empty(), "{found:?}");
        }
        assert!(planted >= SEEDS / 2, "{fault:?} was planted in {planted} histories only");
    }
}

const P: Partition = Partition { topic: 0, index: 0 };
const Q: Partition = Partition { topic: 0, index: 1 };

/// Histories written by hand, call after call.
struct Script(Recorder);

impl Script {
    fn call(&self, worker: u32, call: Call, answer: Answer) {
        self.0.invoke(worker, call).ok(answer);
    }

    fn init(&self, worker: u32, instance: u32, timeout_ms: u64) {
        self.call(worker, Call::Init { transactional_id: 1, instance, timeout_ms }, Answer::Done);
    }

    fn send(&self, worker: u32, txn: TxnId, partition: Partition, value: u64, offset: i64) {
        let call = Call::Send { txn: Some(txn), writes: vec![(partition, vec![value])] };
        self.call(worker, call, Answer::Sent(vec![(partition, Sent::At(offset))]));
    }

    fn poll(&self, partition: Partition, next: i64, records: &[(i64, u64)]) {
        let read = read(partition, next, records);
        let call = Call::Poll { isolation: Isolation::Committed, from: vec![(partition, 0)] };
        self.call(9, call, Answer::Read(vec![read]));
    }

    fn read_all(&self, reads: Vec<Read>) -> Vec<&'static str> {
        self.call(0, Call::ReadAll, Answer::Read(reads));
        check(&self.0.history()).iter().map(Violation::name).collect()
    }
}

fn read(partition: Partition, next: i64, records: &[(i64, u64)]) -> Read {
    Read { partition, from: 0, next, records: records.to_vec(), high_watermark: next, last_stable_offset: next }
}

fn txn(instance: u32) -> TxnId {
    TxnId { transactional_id: 1, instance, number: 1 }
}

#[test]
fn a_commit_of_unknown_fate_may_be_there_or_not_but_whole() {
    for (p, q, expected) in [
        (&[(0, 1)][..], &[(0, 2)][..], &[][..]),
        (&[], &[], &[]),
        (&[(0, 1)], &[], &["torn transaction"]),
        (&[], &[(0, 2)], &["torn transaction"]),
    ] {
        let script = Script(Recorder::new());
        script.init(1, 1, 60_000);
        script.send(1, txn(1), P, 1, 0);
        script.send(1, txn(1), Q, 2, 0);
        script.0.invoke(1, Call::End { txn: txn(1), commit: true }).unknown("closed");
        assert_eq!(script.read_all(vec![read(P, 2, p), read(Q, 2, q)]), expected);
    }
}

#[test]
fn a_refused_commit_and_a_transaction_without_an_end_are_aborted() {
    for is_refused in [true, false] {
        let script = Script(Recorder::new());
        script.init(1, 1, 60_000);
        script.send(1, txn(1), P, 1, 0);
        if is_refused {
            script.0.invoke(1, Call::End { txn: txn(1), commit: true }).fail("fenced");
        }
        script.init(1, 2, 60_000);
        assert_eq!(script.read_all(vec![read(P, 2, &[(0, 1)])]), ["aborted read"]);
    }
}

#[test]
fn readers_may_go_past_a_transaction_that_may_have_ended() {
    // Open, timed out, replaced.
    for (timeout_ms, is_replaced, expected) in
        [(60_000, false, &["read beyond an ongoing transaction"][..]), (0, false, &[]), (60_000, true, &[])]
    {
        let script = Script(Recorder::new());
        script.init(1, 1, timeout_ms);
        script.send(1, txn(1), P, 1, 0);
        if is_replaced {
            script.init(2, 2, 60_000);
        }
        script.poll(P, 2, &[]);
        script.init(2, 3, 60_000);
        assert_eq!(script.read_all(vec![read(P, 2, &[])]), expected);
    }
}

#[test]
fn what_was_read_of_a_commit_of_unknown_fate_must_stay() {
    let script = Script(Recorder::new());
    script.init(1, 1, 60_000);
    script.send(1, txn(1), P, 1, 0);
    script.0.invoke(1, Call::End { txn: txn(1), commit: true }).unknown("closed");
    script.poll(P, 2, &[(0, 1)]);
    assert_eq!(script.read_all(vec![read(P, 2, &[])]), ["lost write", "divergence"]);
}

#[test]
fn excerpts_tell_what_concerns_a_violation_and_what_was_done_to_the_broker() {
    let (history, _) = model::run(1, Some(Fault::Tear));
    let mut history: History = history;
    let worker = 0;
    history.events.push(model_note(worker));
    let found = check(&history);
    let excerpt = found[0].excerpt(&history, 40);
    assert!(excerpt.contains("*** killed"), "{excerpt}");
    assert!(excerpt.lines().count() < history.events.len() / 10, "{excerpt}");
    let Violation::Torn { txn, .. } = &found[0] else { panic!("{found:?}") };
    assert!(excerpt.contains(&format!("commit {txn}")), "{excerpt}");
}

fn model_note(worker: u32) -> crate::history::Event {
    crate::history::Event { at_ms: u64::MAX, worker, entry: Entry::Note("killed".into()) }
}
