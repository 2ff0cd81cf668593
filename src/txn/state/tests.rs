use proptest::prelude::*;

use super::*;

const TOPIC: Uuid = Uuid::from_u128(9);
const FRESH: i64 = 1_000;

fn at(producer_id: i64, epoch: i16) -> ProducerEpoch {
    ProducerEpoch { producer_id, epoch }
}

/// Of producer 7, epoch 0.
fn empty() -> Transaction {
    Transaction::new(7, 60_000, 0)
}

fn ongoing(epoch: i16) -> Transaction {
    let mut transaction = Transaction { producer: at(7, epoch), ..empty() };
    assert_eq!(transaction.add_partitions(at(7, epoch), &[(TOPIC, 0)], 10), Ok(true));
    transaction
}

fn begin(transaction: &mut Transaction, producer: ProducerEpoch, commit: bool, rules: EndRules) -> Ending {
    match transaction.end(producer, commit, rules, Some(FRESH), 20) {
        Ok(End::Begun(ending)) => *ending,
        other => panic!("{other:?}"),
    }
}

fn ended(mut transaction: Transaction, commit: bool, rules: EndRules) -> Transaction {
    let producer = transaction.producer();
    let ending = begin(&mut transaction, producer, commit, rules);
    transaction.finish(ending, true);
    transaction
}

fn init(transaction: &mut Transaction, expected: Option<ProducerEpoch>) -> Result<Init, TxnError> {
    transaction.init(expected, 5_000, Some(FRESH), 30)
}

#[test]
fn a_transaction_holds_what_was_added_and_ends_once() {
    let mut transaction = ongoing(0);
    assert_eq!((transaction.state(), transaction.deadline_ms()), (State::Ongoing, Some(60_010)));
    assert_eq!(transaction.add_partitions(at(7, 0), &[(TOPIC, 0)], 11), Ok(false));
    assert_eq!(transaction.add_group(at(7, 0), "g", 12), Ok(true));
    assert_eq!(transaction.start_ms(), Some(10), "it began with the first");
    let ending = begin(&mut transaction, at(7, 0), true, EndRules::SameEpoch);
    assert_eq!((ending.marker, ending.groups.len(), ending.partitions[&TOPIC].len()), (at(7, 0), 1, 1));
    transaction.finish(ending, true);
    assert_eq!((transaction.state(), transaction.producer()), (State::CompleteCommit, at(7, 0)));
    assert!(transaction.partitions().is_empty() && transaction.deadline_ms().is_none());
    let again = transaction.end(at(7, 0), true, EndRules::SameEpoch, None, 40);
    assert_eq!(again, Ok(End::Already(at(7, 0))));
    assert_eq!(transaction.end(at(7, 0), false, EndRules::SameEpoch, None, 40), Err(TxnError::InvalidTxnState));
}

#[test]
fn while_it_ends_everybody_has_to_come_again() {
    let mut transaction = ongoing(0);
    let ending = begin(&mut transaction, at(7, 0), true, EndRules::SameEpoch);
    let concurrent = TxnError::ConcurrentTransactions;
    assert_eq!(transaction.state(), State::PrepareCommit);
    assert_eq!(transaction.add_partitions(at(7, 0), &[(TOPIC, 0)], 30), Err(concurrent));
    assert_eq!(transaction.verify_partition(at(7, 0), TOPIC, 0), Err(concurrent));
    assert_eq!(init(&mut transaction, None), Err(concurrent));
    assert_eq!(transaction.end(at(7, 0), true, EndRules::SameEpoch, None, 30), Err(concurrent));
    assert_eq!(transaction.end(at(7, 0), false, EndRules::SameEpoch, None, 30), Err(TxnError::InvalidTxnState));
    assert!(transaction.fence(30).is_none());
    transaction.finish(ending, false);
    assert_eq!(transaction, ongoing(0), "it could not be stored");
}

#[test]
fn who_is_not_the_producer_is_told_what_kafka_tells() {
    let mut transaction = ongoing(1);
    for (producer, error) in [
        (at(8, 1), TxnError::InvalidProducerIdMapping),
        (at(7, 0), TxnError::ProducerFenced),
        (at(7, 2), TxnError::ProducerFenced),
    ] {
        assert_eq!(transaction.add_partitions(producer, &[(TOPIC, 0)], 20), Err(error));
        assert_eq!(transaction.add_group(producer, "g", 20), Err(error));
        assert_eq!(transaction.verify_partition(producer, TOPIC, 0), Err(error));
        for rules in [EndRules::SameEpoch, EndRules::NextEpoch] {
            assert_eq!(transaction.end(producer, true, rules, None, 20), Err(error));
        }
    }
    assert_eq!(transaction.verify_partition(at(7, 1), TOPIC, 1), Err(TxnError::TransactionAbortable));
    assert_eq!(transaction.verify_group(at(7, 1), "g"), Err(TxnError::TransactionAbortable));
}

#[test]
fn every_transaction_of_kip_890_has_an_epoch_of_its_own() {
    let mut transaction = ended(ongoing(0), true, EndRules::NextEpoch);
    assert_eq!((transaction.producer(), transaction.state()), (at(7, 1), State::CompleteCommit));
    let mut end = |producer, commit| transaction.end(producer, commit, EndRules::NextEpoch, None, 40);
    assert_eq!(end(at(7, 0), true), Ok(End::Already(at(7, 1))), "the answer was lost");
    assert_eq!(end(at(7, 0), false), Err(TxnError::InvalidTxnState));
    assert_eq!(end(at(7, 1), true), Err(TxnError::InvalidTxnState), "no transaction has begun with that epoch");
    assert_eq!(end(at(7, 2), true), Err(TxnError::ProducerFenced));
    // It does not know whether the broker has seen the transaction.
    let ending = begin(&mut transaction, at(7, 1), false, EndRules::NextEpoch);
    assert!(ending.partitions.is_empty());
    assert_eq!(transaction.end(at(7, 1), false, EndRules::NextEpoch, None, 40), Err(TxnError::ConcurrentTransactions));
    transaction.finish(ending, true);
    assert_eq!((transaction.producer(), transaction.state()), (at(7, 2), State::CompleteAbort));
    assert_eq!(transaction.start_ms(), Some(20));
}

#[test]
fn only_kip_890_aborts_nothing() {
    let mut transaction = empty();
    assert_eq!(transaction.end(at(7, 0), false, EndRules::SameEpoch, None, 20), Err(TxnError::InvalidTxnState));
    assert_eq!(transaction.end(at(7, 0), true, EndRules::NextEpoch, None, 20), Err(TxnError::InvalidTxnState));
    let transaction = ended(empty(), false, EndRules::NextEpoch);
    assert_eq!(transaction.producer(), at(7, 1));
}

#[test]
fn used_up_epochs_lead_to_a_new_producer_id() {
    let mut transaction = ongoing(EPOCH_EXHAUSTED);
    let last = at(7, EPOCH_EXHAUSTED);
    assert_eq!(transaction.end(last, true, EndRules::NextEpoch, None, 20), Ok(End::NeedsProducerId));
    let ending = begin(&mut transaction, last, true, EndRules::NextEpoch);
    assert_eq!((ending.marker, ending.after.producer()), (at(7, i16::MAX), at(FRESH, 0)));
    assert_eq!(transaction.end(last, true, EndRules::NextEpoch, None, 20), Err(TxnError::ConcurrentTransactions));
    transaction.finish(ending, true);
    let again = transaction.end(last, true, EndRules::NextEpoch, None, 20);
    assert_eq!(again, Ok(End::Already(at(FRESH, 0))));

    let exhausted = || Transaction { producer: last, ..empty() };
    assert_eq!(exhausted().init(None, 1, None, 0), Ok(Init::NeedsProducerId));
    assert_eq!(init(&mut exhausted(), None), Ok(Init::Ready(at(FRESH, 0))));
    let mut transaction = exhausted();
    assert_eq!(init(&mut transaction, Some(last)), Ok(Init::Ready(at(FRESH, 0))));
    assert_eq!(init(&mut transaction, Some(last)), Ok(Init::Ready(at(FRESH, 0))), "the answer was lost");
    assert_eq!(init(&mut transaction, None), Ok(Init::Ready(at(FRESH, 1))));
    assert_eq!(init(&mut transaction, Some(last)), Err(TxnError::ProducerFenced));
}

#[test]
fn the_epoch_that_only_fences_is_never_told() {
    let mut transaction = ongoing(EPOCH_EXHAUSTED);
    let ending = transaction.fence(20).unwrap();
    assert_eq!(ending.marker, at(7, i16::MAX));
    transaction.finish(ending, true);
    assert_eq!(init(&mut transaction, Some(at(7, EPOCH_EXHAUSTED))), Ok(Init::Ready(at(FRESH, 0))));
}

#[test]
fn a_new_instance_fences_the_old_one() {
    let mut transaction = empty();
    assert_eq!(init(&mut transaction, None), Ok(Init::Ready(at(7, 1))));
    assert_eq!((transaction.state(), transaction.timeout_ms()), (State::Empty, 5_000));
    assert_eq!(transaction.add_partitions(at(7, 0), &[(TOPIC, 0)], 30), Err(TxnError::ProducerFenced));
    assert_eq!(init(&mut transaction, Some(at(7, 0))), Err(TxnError::ProducerFenced));
    assert_eq!(init(&mut transaction, Some(at(6, 1))), Err(TxnError::ProducerFenced));

    transaction.add_partitions(at(7, 1), &[(TOPIC, 0)], 30).unwrap();
    assert_eq!(init(&mut transaction, None), Ok(Init::AbortFirst));
    let ending = transaction.fence(40).unwrap();
    assert_eq!((ending.marker, ending.commit), (at(7, 2), false));
    assert_eq!(transaction.add_partitions(at(7, 1), &[(TOPIC, 0)], 30), Err(TxnError::ProducerFenced));
    transaction.finish(ending, true);
    assert_eq!(init(&mut transaction, None), Ok(Init::Ready(at(7, 3))), "nobody was told the epoch that fenced");
}

#[test]
fn a_producer_goes_on_after_an_error() {
    let mut transaction = empty();
    assert_eq!(init(&mut transaction, Some(at(7, 0))), Ok(Init::Ready(at(7, 1))));
    assert_eq!(init(&mut transaction, Some(at(7, 0))), Ok(Init::Ready(at(7, 1))), "the answer was lost");
    assert_eq!(init(&mut transaction, Some(at(7, 1))), Ok(Init::Ready(at(7, 2))));
    assert_eq!(init(&mut transaction, Some(at(7, 0))), Err(TxnError::ProducerFenced));
    // One whose transaction timed out may go on as well, as nobody has taken its place.
    transaction.add_partitions(at(7, 2), &[(TOPIC, 0)], 30).unwrap();
    let ending = transaction.fence(40).unwrap();
    transaction.finish(ending, true);
    assert_eq!(transaction.end(at(7, 2), true, EndRules::SameEpoch, None, 50), Err(TxnError::ProducerFenced));
    assert_eq!(transaction.end(at(7, 2), true, EndRules::NextEpoch, None, 50), Err(TxnError::InvalidTxnState));
    assert_eq!(transaction.end(at(7, 2), false, EndRules::NextEpoch, None, 50), Ok(End::Already(at(7, 3))));
    assert_eq!(init(&mut transaction, Some(at(7, 2))), Ok(Init::Ready(at(7, 3))));
}

#[test]
fn a_transaction_is_bounded() {
    let mut transaction = empty();
    let many: Vec<_> = (0..=PARTITIONS_MAX as u32).map(|partition| (TOPIC, partition)).collect();
    assert_eq!(transaction.add_partitions(at(7, 0), &many, 0), Err(TxnError::TransactionAbortable));
    assert_eq!((transaction.add_partitions(at(7, 0), &many[1..], 0), transaction.state()), (Ok(true), State::Ongoing));
    assert_eq!(transaction.add_partitions(at(7, 0), &many[1..], 0), Ok(false));
    for group in 0..GROUPS_MAX {
        transaction.add_group(at(7, 0), &group.to_string(), 0).unwrap();
    }
    assert_eq!(transaction.add_group(at(7, 0), "one more", 0), Err(TxnError::TransactionAbortable));
    assert_eq!(transaction.add_group(at(7, 0), "0", 0), Ok(false));
}

#[test]
fn only_an_idle_id_expires() {
    let transaction = ongoing(0);
    assert!(!transaction.is_expired(i64::MAX, 1_000));
    let transaction = ended(transaction, true, EndRules::SameEpoch);
    assert!(!transaction.is_expired(1_019, 1_000) && transaction.is_expired(1_020, 1_000));
}

/// One client's view: the pair it believes to have.
#[derive(Clone, Copy, Debug)]
enum Call {
    Init,
    Recover,
    Add,
    End { commit: bool, next_epoch: bool, stored: bool },
    TimeOut,
}

fn calls() -> impl Strategy<Value = Vec<(usize, Call)>> {
    let call = prop_oneof![
        1 => Just(Call::Init),
        1 => Just(Call::Recover),
        3 => Just(Call::Add),
        3 => any::<(bool, bool, bool)>().prop_map(|(commit, next_epoch, stored)| Call::End { commit, next_epoch, stored }),
        1 => Just(Call::TimeOut),
    ];
    prop::collection::vec((0..3_usize, call), 1..60)
}

proptest! {
    /// Of several clients with one transactional id, only the one that came last can do anything, and no pair is ever
    /// told to two of them.
    #[test]
    fn one_producer_at_a_time(calls in calls(), epoch in prop_oneof![Just(0), Just(EPOCH_EXHAUSTED - 3)]) {
        let mut transaction = Transaction { producer: at(7, epoch), ..empty() };
        let mut fresh = FRESH;
        let mut clients: [Option<ProducerEpoch>; 3] = [None; 3];
        let mut last: Option<usize> = None;
        for (client, call) in calls {
            fresh += 1;
            match (call, clients[client]) {
                (Call::Init, _) | (Call::Recover, Some(_)) => {
                    let expected = if matches!(call, Call::Init) { None } else { clients[client] };
                    let mut step = transaction.init(expected, 1_000, Some(fresh), 0);
                    if step == Ok(Init::AbortFirst) {
                        let ending = transaction.fence(0).unwrap();
                        transaction.finish(ending, true);
                        step = transaction.init(expected, 1_000, Some(fresh), 0);
                    }
                    match step {
                        Ok(Init::Ready(producer)) => {
                            prop_assert!(expected.is_none() || last == Some(client), "a fenced producer came back");
                            prop_assert!(producer.epoch < i16::MAX);
                            prop_assert!(clients.iter().enumerate().all(|(other, has)| other == client || *has != Some(producer)));
                            (clients[client], last) = (Some(producer), Some(client));
                        }
                        other => {
                            prop_assert_eq!(other, Err(TxnError::ProducerFenced));
                            prop_assert!(last != Some(client));
                        }
                    }
                }
                (Call::Add, Some(producer)) => {
                    let added = transaction.add_partitions(producer, &[(TOPIC, 1)], 0);
                    prop_assert!(added.is_err() || last == Some(client));
                }
                (Call::End { commit, next_epoch, stored }, Some(producer)) => {
                    let rules = if next_epoch { EndRules::NextEpoch } else { EndRules::SameEpoch };
                    let before = transaction.clone();
                    match transaction.end(producer, commit, rules, Some(fresh), 0) {
                        Ok(End::Begun(ending)) => {
                            prop_assert_eq!(last, Some(client));
                            let after = ending.after.producer();
                            transaction.finish(*ending, stored);
                            if stored {
                                clients[client] = Some(after);
                            } else {
                                prop_assert_eq!(&transaction, &before);
                            }
                        }
                        Ok(End::Already(producer)) => {
                            prop_assert_eq!(last, Some(client));
                            clients[client] = Some(producer);
                        }
                        other => prop_assert!(other.is_err()),
                    }
                }
                (Call::TimeOut, _) => {
                    if let Some(ending) = transaction.fence(0) {
                        transaction.finish(ending, true);
                    }
                }
                (_, None) => {}
            }
        }
    }
}
