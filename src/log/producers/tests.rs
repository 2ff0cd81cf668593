use proptest::prelude::*;

use super::*;

const ID: i64 = 7;

fn appended(first_sequence: i32, count: i32, first_offset: Offset, append_time_ms: i64) -> Appended {
    Appended {
        first_sequence,
        last_sequence: sequence_after(first_sequence, count - 1),
        first_offset,
        last_offset: first_offset + i64::from(count) - 1,
        append_time_ms,
    }
}

fn marker(producer_id: i64, producer_epoch: i16, coordinator_epoch: i32) -> Marker {
    Marker { producer_id, producer_epoch, coordinator_epoch, commit: true }
}

/// A producer that has appended batches of ten records from sequence 0 and offset 100 on.
fn after(batches: i32) -> Producers {
    let mut producers = Producers::default();
    for batch in 0..batches {
        producers.record(ID, 3, appended(batch * 10, 10, 100 + i64::from(batch) * 10, i64::from(batch)));
    }
    producers
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    assert_eq!(sequence_after(0, i32::MAX), i32::MAX);
    let mut producers = Producers::default();
    producers.record(ID, 0, appended(i32::MAX - 4, 5, 0, 0));
    assert_eq!(producers.check(ID, 0, 0, 3), Ok(Check::Append));
    assert!(producers.check(ID, 0, 1, 3).is_err());
    // A batch that itself crosses the end is recognised when it comes again.
    let mut producers = Producers::default();
    producers.record(ID, 0, appended(i32::MAX - 1, 5, 40, 9));
    assert_eq!(producers.iter().next().map(|(_, entry)| entry.last_sequence()), Some(2));
    assert_eq!(
        producers.check(ID, 0, i32::MAX - 1, 5),
        Ok(Check::Duplicate { base_offset: Some(40), append_time_ms: 9 })
    );
    assert_eq!(producers.check(ID, 0, 3, 1), Ok(Check::Append));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    assert_eq!(Producers::default().check(ID, 0, 0, 1), Ok(Check::Append));
    assert_eq!(Producers::default().check(ID, 4, 1_234, 1), Ok(Check::Append));
}

#[test]
fn the_last_five_batches_are_duplicates_and_older_ones_are_out_of_order() {
    let producers = after(7);
    for batch in 2..7 {
        let at = i64::from(batch);
        assert_eq!(
            producers.check(ID, 3, batch * 10, 10),
            Ok(Check::Duplicate { base_offset: Some(100 + at * 10), append_time_ms: at })
        );
    }
    for batch in 0..2 {
        assert!(matches!(
            producers.check(ID, 3, batch * 10, 10),
            Err(SequenceError::OutOfOrderSequence { last_sequence: 69, last_epoch: 3, .. })
        ));
    }
    // The same first sequence with another count is not the same batch.
    assert!(matches!(producers.check(ID, 3, 60, 9), Err(SequenceError::OutOfOrderSequence { .. })));
    assert_eq!(producers.check(ID, 3, 70, 1), Ok(Check::Append));
    assert!(matches!(producers.check(ID, 3, 71, 1), Err(SequenceError::OutOfOrderSequence { .. })));
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
    let mut producers = after(2);
    assert!(matches!(
        producers.check(ID, 4, 20, 1),
        Err(SequenceError::OutOfOrderSequence { producer_epoch: 4, last_epoch: 3, .. })
    ));
    assert_eq!(producers.check(ID, 4, 0, 10), Ok(Check::Append));
    producers.record(ID, 4, appended(0, 10, 120, 5));
    assert_eq!(producers.check(ID, 4, 0, 10), Ok(Check::Duplicate { base_offset: Some(120), append_time_ms: 5 }));
    assert_eq!(
        producers.check(ID, 3, 10, 10),
        Err(SequenceError::InvalidProducerEpoch { producer_id: ID, producer_epoch: 3, current_epoch: 4 })
    );
    assert_eq!(producers.iter().map(|(_, entry)| entry.batches().len()).sum::<usize>(), 1);
}

#[test]
fn idle_producers_expire() {
    let mut producers = after(3);
    producers.record(8, 0, appended(0, 1, 200, 5));
    assert_eq!(producers.expire(1), 0);
    assert_eq!(producers.expire(2), 1);
    assert_eq!(producers.iter().map(|(id, _)| id).collect::<Vec<_>>(), [8]);
    assert_eq!(producers.check(ID, 3, 500, 1), Ok(Check::Append));
}

#[test]
fn a_flood_of_producers_is_bounded_and_pushes_out_the_idlest() {
    let mut producers = Producers::default();
    for id in 0..PRODUCERS_MAX as i64 + 1 {
        // The first one stays busy.
        producers.record(0, 0, appended(id as i32, 1, id, id));
        producers.record(id, 0, appended(if id == 0 { 1 } else { 0 }, 1, id, id));
    }
    assert!(producers.len() <= PRODUCERS_MAX);
    assert!(producers.iter().any(|(id, _)| id == 0));
    assert!(!producers.iter().any(|(id, _)| id == 1));
    assert!(producers.iter().any(|(id, _)| id == PRODUCERS_MAX as i64));
    assert_eq!(Producers::decode(&producers.encode()), Ok(producers));
}

#[test]
fn the_snapshot_is_laid_out_as_documented() {
    let mut producers = Producers::default();
    producers.mark(&marker(0x0102, 3, 8), 1);
    producers.record(0x0102, 3, appended(4, 2, 6, 9));
    producers.begin(0x0102, 6);
    let expected = [
        &[2][..],
        &1u32.to_be_bytes(),
        &0x0102i64.to_be_bytes(),
        &3i16.to_be_bytes(),
        &9i64.to_be_bytes(),
        &8i32.to_be_bytes(),
        &[1],
        &6i64.to_be_bytes(),
        &[1],
        &4i32.to_be_bytes(),
        &5i32.to_be_bytes(),
        &6i64.to_be_bytes(),
        &7i64.to_be_bytes(),
        &9i64.to_be_bytes(),
    ]
    .concat();
    assert_eq!(producers.encode(), expected);
    assert_eq!(Producers::decode(&expected), Ok(producers));
}

#[test]
fn a_snapshot_of_the_first_version_still_reads() {
    let first = [
        &[1][..],
        &1u32.to_be_bytes(),
        &ID.to_be_bytes(),
        &3i16.to_be_bytes(),
        &[1],
        &4i32.to_be_bytes(),
        &5i32.to_be_bytes(),
        &6i64.to_be_bytes(),
        &7i64.to_be_bytes(),
        &9i64.to_be_bytes(),
    ]
    .concat();
    let mut producers = Producers::default();
    producers.record(ID, 3, appended(4, 2, 6, 9));
    assert_eq!(Producers::decode(&first), Ok(producers));
    for len in 0..first.len() {
        assert_eq!(Producers::decode(&first[..len]), Err(SnapshotError::Cut));
    }
}

#[test]
fn a_marker_that_is_found_alone_tells_nothing_of_sequences() {
    let mut producers = Producers::default();
    producers.mark_found(&marker(ID, 3, 5), 9);
    // Also after the next start.
    let producers = Producers::decode(&producers.encode()).unwrap();
    assert_eq!(producers.check(ID, 3, 17, 1), Ok(Check::Append));
    assert!(matches!(producers.check(ID, 2, 17, 1), Err(SequenceError::InvalidProducerEpoch { .. })));
    let mut known = producers.clone();
    known.record(ID, 3, appended(17, 1, 100, 9));
    assert!(matches!(known.check(ID, 3, 19, 1), Err(SequenceError::OutOfOrderSequence { .. })));
    let mut fenced = producers;
    fenced.mark_found(&marker(ID, 4, 5), 9);
    assert!(matches!(fenced.check(ID, 4, 17, 1), Err(SequenceError::OutOfOrderSequence { .. })));
    // Of a producer that is known it is a marker like any other.
    let mut producers = after(2);
    producers.mark_found(&marker(ID, 4, 5), 9);
    assert!(matches!(producers.check(ID, 4, 17, 1), Err(SequenceError::OutOfOrderSequence { .. })));
}

#[test]
fn a_marker_fences_older_epochs_and_lets_its_own_begin() {
    let mut producers = after(2);
    producers.begin(ID, 100);
    assert_eq!(producers.get(ID).and_then(Entry::transaction), Some(100));
    assert_eq!(producers.check_transaction(ID, false), Err(SequenceError::OutsideTransaction { producer_id: ID }));
    // Of the same epoch it ends the transaction, and the sequences go on.
    producers.mark(&marker(ID, 3, 5), 9);
    assert_eq!(producers.check_transaction(ID, false), Ok(()));
    assert_eq!(producers.check(ID, 3, 20, 1), Ok(Check::Append));
    assert!(matches!(producers.check(ID, 3, 10, 10), Ok(Check::Duplicate { .. })));
    // Of a newer one it begins anew.
    producers.mark(&marker(ID, 4, 5), 9);
    assert!(matches!(producers.check(ID, 3, 20, 1), Err(SequenceError::InvalidProducerEpoch { .. })));
    assert!(matches!(
        producers.check(ID, 4, 1, 1),
        Err(SequenceError::OutOfOrderSequence { last_sequence: -1, last_epoch: 4, .. })
    ));
    assert_eq!(producers.check(ID, 4, 0, 1), Ok(Check::Append));
    // One that comes late takes nothing back.
    producers.mark(&marker(ID, 2, 1), 9);
    let entry = producers.get(ID).unwrap();
    assert_eq!((entry.producer_epoch(), entry.coordinator_epoch()), (4, 5));
    // Who has never written here is fenced as well.
    producers.mark(&marker(8, 6, 5), 9);
    assert!(matches!(producers.check(8, 5, 0, 1), Err(SequenceError::InvalidProducerEpoch { .. })));
    assert_eq!(producers.check(8, 6, 0, 1), Ok(Check::Append));
    assert_eq!(Producers::decode(&producers.encode()), Ok(producers));
}

#[test]
fn a_duplicate_opens_no_transaction_and_who_is_in_one_is_never_forgotten() {
    let mut producers = after(1);
    producers.begin(ID, 100);
    for id in 100..100 + PRODUCERS_MAX as i64 {
        producers.record(id, 0, appended(0, 1, id, id));
    }
    producers.expire(i64::MAX);
    assert_eq!(producers.iter().map(|(id, _)| id).collect::<Vec<_>>(), [ID]);
    producers.mark(&marker(ID, 3, 0), 50);
    assert!(matches!(producers.check(ID, 3, 0, 10), Ok(Check::Duplicate { .. })));
    assert_eq!((producers.expire(49), producers.expire(50)), (0, 1));
}

#[test]
fn transactions_are_bounded() {
    let mut producers = Producers::default();
    for id in 0..TRANSACTIONS_MAX as i64 {
        assert_eq!(producers.check_transaction(id, true), Ok(()));
        producers.record(id, 0, appended(0, 1, id, id));
        producers.begin(id, id);
    }
    let next = TRANSACTIONS_MAX as i64;
    assert_eq!(producers.check_transaction(next, true), Err(SequenceError::TooManyTransactions));
    assert_eq!((producers.check_transaction(next, false), producers.check_transaction(3, true)), (Ok(()), Ok(())));
    let restored = Producers::decode(&producers.encode()).unwrap();
    assert_eq!(restored.check_transaction(next, true), Err(SequenceError::TooManyTransactions));
    producers.reconcile(|id| id != 3);
    assert_eq!(producers.check_transaction(next, true), Ok(()));
    producers.restore_open(next, 2, ELSEWHERE);
    assert_eq!(producers.get(next).and_then(Entry::transaction), Some(ELSEWHERE));
    assert_eq!(producers.check_transaction(3, true), Err(SequenceError::TooManyTransactions));
}

#[test]
fn snapshots_that_lie_are_refused() {
    let good = after(2).encode();
    for len in 0..good.len() {
        assert_eq!(Producers::decode(&good[..len]), Err(SnapshotError::Cut));
    }
    assert_eq!(Producers::decode(&[&good[..], &[0]].concat()), Err(SnapshotError::TooLong(1)));
    let patched = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        Producers::decode(&bytes)
    };
    assert_eq!(patched(0, 3), Err(SnapshotError::Version(3)));
    assert_eq!(patched(1, 0x7f), Err(SnapshotError::Cut));
    assert_eq!(patched(27, 2), Err(SnapshotError::Unsound(ID)));
    assert_eq!(patched(28, 6), Err(SnapshotError::Unsound(ID)));
    assert_eq!(patched(29, 0x80), Err(SnapshotError::Unsound(ID)));
    let twice = [&good[..1], &2u32.to_be_bytes(), &good[5..], &good[5..]].concat();
    assert_eq!(Producers::decode(&twice), Err(SnapshotError::Unsound(ID)));
}

/// What a client does next; small numbers, so that repeats and gaps happen.
fn attempts() -> impl Strategy<Value = Vec<(i64, i16, i32, i32)>> {
    let sequence = prop_oneof![0i32..30, (i32::MAX - 20)..=i32::MAX];
    prop::collection::vec((0i64..4, 0i16..3, sequence, 1i32..6), 0..120)
}

proptest! {
    #[test]
    fn a_restart_from_any_snapshot_changes_nothing(attempts in attempts(), snapshot_at in 0usize..120) {
        let mut live = Producers::default();
        let mut log = Vec::new();
        let mut snapshot = (live.encode(), 0);
        for (step, (id, epoch, sequence, count)) in attempts.into_iter().enumerate() {
            if step == snapshot_at {
                snapshot = (live.encode(), log.len());
            }
            // Half of the attempts follow the state, the others go where they go.
            let follow = live.iter().find(|(known, _)| *known == id).map(|(_, entry)| entry.clone());
            let (epoch, sequence) = match follow {
                Some(entry) if step % 2 == 0 => {
                    (entry.producer_epoch(), sequence_after(entry.last_sequence(), 1))
                }
                _ => (epoch, sequence),
            };
            let offset = log.len() as i64 * 10;
            match live.check(id, epoch, sequence, count) {
                Ok(Check::Append) => {
                    let batch = appended(sequence, count, offset, step as i64);
                    live.record(id, epoch, batch);
                    log.push((id, epoch, batch));
                    // What was just appended is recognised at once.
                    let again = Check::Duplicate { base_offset: Some(offset), append_time_ms: step as i64 };
                    prop_assert_eq!(live.check(id, epoch, sequence, count), Ok(again));
                }
                Ok(Check::Duplicate { base_offset, .. }) => {
                    let there = log.iter().any(|(logged, logged_epoch, batch)| {
                        (*logged, *logged_epoch, Some(batch.first_offset)) == (id, epoch, base_offset)
                            && batch.first_sequence == sequence
                    });
                    prop_assert!(there, "a duplicate of a batch that was never appended");
                }
                Err(_) => {}
            }
        }
        let mut restarted = Producers::decode(&snapshot.0).unwrap();
        for (id, epoch, batch) in &log[snapshot.1..] {
            restarted.record(*id, *epoch, *batch);
        }
        prop_assert_eq!(&restarted, &live);
        prop_assert_eq!(Producers::decode(&live.encode()), Ok(live));
    }

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Producers::decode(&garbage);
    }
}

#[test]
fn a_producer_whose_batches_were_trimmed_away_goes_on_with_any_sequence() {
    let mut producers = Producers::default();
    producers.restore_open(ID, 3, 100);
    assert_eq!(producers.check(ID, 3, 17, 2), Ok(Check::Append));
    assert!(producers.check(ID, 2, 17, 2).is_err(), "it is fenced by its epoch all the same");
    assert!(producers.check(ID, 4, 17, 2).is_err(), "a new epoch begins at 0");
    let mut other = producers.clone();
    producers.record(ID, 3, appended(17, 2, 110, 5));
    producers.begin(ID, 110);
    assert!(producers.check(ID, 3, 17, 1).is_err());
    producers.mark(&marker(ID, 3, 0), 6);
    assert_eq!(producers.check(ID, 3, 19, 1), Ok(Check::Append));
    // With the old flow of transactions the epoch goes on.
    other.mark(&marker(ID, 3, 0), 6);
    assert_eq!((other.check(ID, 3, 17, 1), other.len()), (Ok(Check::Append), 0));
    // With the new one it does not.
    other.restore_open(ID, 3, 100);
    other.mark(&marker(ID, 4, 0), 6);
    assert!(other.check(ID, 3, 17, 1).is_err() && other.check(ID, 4, 1, 1).is_err());
    assert_eq!(other.check(ID, 4, 0, 1), Ok(Check::Append));
}
