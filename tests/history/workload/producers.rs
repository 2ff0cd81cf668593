//! Producers: of transactions that end in every way there is, and an idempotent one without any.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::time::sleep;

use super::{Lie, WRITTEN, Worker, World, end_of};
use crate::history::{Answer, Call, Partition, Sent, TxnId, Value};
use crate::names::partitions_of;
use crate::producer::{Flow, Producer};
use crate::wire::Trouble;

/// Transaction timeouts: longer than a run may take, and shorter than a pause with what comes before and after.
pub const LONG_MS: u64 = 60_000;
const SHORT_MS: u64 = 3_000;
const SENDS_MAX: u64 = 3;
const VALUES_MAX: u64 = 4;
const REST_MS: u64 = 12;

/// What a producer does after a transaction.
pub enum Next {
    GoesOn,
    /// Somebody else may be under way with its id, or it does not know what became of the last transaction.
    BeginsAnew,
}

pub async fn init(
    worker: &Worker,
    producer: &mut Producer,
    transactional_id: u32,
    instance: u32,
    timeout_ms: u64,
) -> bool {
    let call = Call::Init { transactional_id, instance, timeout_ms };
    let pending = worker.world.recorder.invoke(worker.number, call);
    let result = producer.init(timeout_ms).await;
    let is_ok = result.is_ok();
    end_of(pending, result.map(|()| Answer::Done));
    is_ok
}

pub async fn transactional(mut worker: Worker, id: u32, flow: Flow) {
    let mut instance = 0;
    while !worker.world.is_stopping() {
        instance += 1;
        let world = worker.world.clone();
        let mut producer = Producer::new(&world.address, &world.names, Some(id), flow);
        let timeout_ms = if worker.random.percent(20) { SHORT_MS } else { LONG_MS };
        if !init(&worker, &mut producer, id, instance, timeout_ms).await {
            continue;
        }
        let mut number = 0;
        let mut last = Some(producer);
        while let Some(producer) = last.take().filter(|_| !worker.world.is_stopping()) {
            number += 1;
            let txn = TxnId { transactional_id: id, instance, number };
            last = transaction(&mut worker, producer, txn).await;
            worker.rest(REST_MS).await;
        }
    }
}

/// None when the producer has to begin anew.
async fn transaction(worker: &mut Worker, mut producer: Producer, txn: TxnId) -> Option<Producer> {
    for _ in 0..1 + worker.random.below(SENDS_MAX) {
        let writes = some_writes(worker);
        if let Some(trouble) = send(worker, &mut producer, Some(txn), writes).await {
            return matches!(give_up(worker, &mut producer, txn, trouble).await, Next::GoesOn).then_some(producer);
        }
        worker.rest(REST_MS).await;
    }
    match worker.random.below(100) {
        0..5 => None,
        5..10 => {
            become_a_zombie(worker, producer, txn);
            None
        }
        10..15 => {
            let commit = worker.random.percent(50);
            let pending = worker.world.recorder.invoke(worker.number, Call::End { txn, commit });
            producer.end_and_vanish(commit).await;
            pending.unknown("did not wait");
            None
        }
        chance => {
            let next = end(worker, &mut producer, txn, chance >= 33).await;
            matches!(next, Next::GoesOn).then_some(producer)
        }
    }
}

fn some_writes(worker: &mut Worker) -> Vec<(Partition, Vec<Value>)> {
    let mut partitions = partitions_of(&WRITTEN);
    let count = 1 + worker.random.below(3) as usize;
    let first = worker.random.below(partitions.len() as u64) as usize;
    partitions.rotate_left(first);
    partitions.truncate(count);
    let values = |partition| {
        let count = 1 + worker.random.below(VALUES_MAX);
        (partition, worker.values(count))
    };
    partitions.into_iter().map(values).collect()
}

/// What went wrong, if anything did.
pub async fn send(
    worker: &Worker,
    producer: &mut Producer,
    txn: Option<TxnId>,
    writes: Vec<(Partition, Vec<Value>)>,
) -> Option<Trouble> {
    let pending = worker.world.recorder.invoke(worker.number, Call::Send { txn, writes: writes.clone() });
    let (sent, trouble) = producer.send(&writes).await;
    let is_any_sent = sent.iter().any(|(_, sent)| *sent != Sent::Refused);
    match trouble {
        Some(trouble) if !is_any_sent => pending.fail(trouble.text()),
        _ => pending.ok(Answer::Sent(sent)),
    }
    trouble
}

/// After something went wrong within a transaction.
pub async fn give_up(worker: &Worker, producer: &mut Producer, txn: TxnId, trouble: Trouble) -> Next {
    let is_fenced = |error| {
        matches!(
            error,
            ResponseError::ProducerFenced
                | ResponseError::InvalidProducerEpoch
                | ResponseError::InvalidProducerIdMapping
        )
    };
    let may_go_on = match trouble {
        Trouble::Refused(error) => !is_fenced(error),
        Trouble::Unsent => true,
        Trouble::Unknown(_) => producer.flow == Flow::Implicit,
    };
    if may_go_on { end(worker, producer, txn, false).await } else { Next::BeginsAnew }
}

pub async fn end(worker: &Worker, producer: &mut Producer, txn: TxnId, commit: bool) -> Next {
    let pending = worker.world.recorder.invoke(worker.number, Call::End { txn, commit });
    let result = producer.end(commit).await;
    let next = if result.is_ok() { Next::GoesOn } else { Next::BeginsAnew };
    end_of(pending, result.map(|()| Answer::Done));
    next
}

/// It goes on while another producer takes its transactional id.
fn become_a_zombie(worker: &mut Worker, mut producer: Producer, txn: TxnId) {
    let world: World = worker.world.clone();
    let number = world.next_zombie.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut zombie = world.worker(number);
    world.zombies.clone().lock().spawn(async move {
        zombie.rest(150).await;
        if zombie.random.percent(50) {
            let writes = some_writes(&mut zombie);
            if send(&zombie, &mut producer, Some(txn), writes).await.is_some() {
                return;
            }
        }
        end(&zombie, &mut producer, txn, true).await;
    });
}

/// Idempotent, outside of any transaction.
pub async fn plain(mut worker: Worker) {
    let world = worker.world.clone();
    while !world.is_stopping() {
        let mut producer = Producer::new(&world.address, &world.names, None, Flow::Implicit);
        let lies = world.plan.lie == Some(Lie::SendsTwice);
        // Without an id a batch that is sent twice is stored twice.
        if !lies && producer.init(LONG_MS).await.is_err() {
            continue;
        }
        while !world.is_stopping() {
            let mut writes = some_writes(&mut worker);
            writes.truncate(1);
            if lies {
                producer.send(&writes).await;
            }
            if send(&worker, &mut producer, None, writes).await.is_some() {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}
