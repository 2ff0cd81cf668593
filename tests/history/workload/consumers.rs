//! Those who read: processors that take, write and commit in one transaction, members of a group, and readers that keep
//! their positions to themselves.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::time::{Instant, sleep};

use super::producers::{self, Next};
use super::{ALL, Lie, MEMBERS, OUT, PROCESSORS, TAKEN, Worker, end_of};
use crate::group::{Member, Standing};
use crate::history::{Answer, Call, Consumed, Group, Isolation, Partition, Read, TxnId};
use crate::kinesis::Shards;
use crate::names::partitions_of;
use crate::producer::{Flow, Producer};
use crate::reader::Reader;
use crate::wire::Trouble;

/// What a processor takes from a partition for one transaction.
const RECORDS_MAX: usize = 20;
const REST_MS: u64 = 10;

type Positions = HashMap<Partition, i64>;

/// None when they cannot be had.
pub async fn offsets(worker: &Worker, member: &mut Member, group: Group) -> Option<Positions> {
    let pending = worker.world.recorder.invoke(worker.number, Call::FetchOffsets { group });
    let result = member.offsets().await;
    let found = result.as_ref().ok().map(|offsets| offsets.iter().copied().collect());
    end_of(pending, result.map(Answer::Offsets));
    found
}

/// Records the poll, and keeps what was lied about to itself.
async fn poll(worker: &Worker, reader: &mut Reader, isolation: Isolation, from: &[(Partition, i64)]) -> Polled {
    let call = Call::Poll { isolation, from: from.to_vec() };
    let pending = worker.world.recorder.invoke(worker.number, call);
    let lies = worker.world.plan.lie == Some(Lie::ReadsUncommitted);
    let result = reader.poll(if lies { Isolation::Uncommitted } else { isolation }, from).await;
    let polled = match &result {
        Ok(reads) => Polled::Reads(reads.clone()),
        Err(Trouble::Refused(ResponseError::OffsetOutOfRange)) => Polled::OutOfRange,
        Err(_) => Polled::Nothing,
    };
    end_of(pending, result.map(Answer::Read));
    polled
}

enum Polled {
    Reads(Vec<Read>),
    /// It asked for what the broker says never was, which shows where the log went back.
    OutOfRange,
    Nothing,
}

/// Everything from the beginning, over and over if it `repeats`.
pub async fn reader(mut worker: Worker, isolation: Isolation, repeats: bool) {
    let world = worker.world.clone();
    let mut reader = Reader::new(&world.address, &world.names);
    let beginning: Positions = partitions_of(&ALL).into_iter().map(|partition| (partition, 0)).collect();
    let mut positions = beginning.clone();
    while !world.is_stopping() {
        let mut from: Vec<_> = positions.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        from.sort();
        match poll(&worker, &mut reader, isolation, &from).await {
            Polled::Reads(reads) => {
                let is_at_the_end = reads.iter().all(|read| read.next == read.from);
                positions.extend(reads.iter().map(|read| (read.partition, read.next)));
                if repeats && is_at_the_end && worker.random.percent(15) {
                    positions = beginning.clone();
                }
            }
            Polled::OutOfRange => positions = beginning.clone(),
            Polled::Nothing => sleep(Duration::from_millis(50)).await,
        }
        worker.rest(REST_MS).await;
    }
}

/// What one topic shows through the other door, if there is one.
pub async fn other_door(mut worker: Worker) {
    let world = worker.world.clone();
    let topic = TAKEN[0];
    let mut shards = Shards::new(&world.address, &world.names, topic);
    while !world.is_stopping() {
        if world.address.borrow().is_none_or(|doors| doors.http.is_some()) {
            let pending = world.recorder.invoke(worker.number, Call::OtherDoor { topic, is_all: false });
            match shards.round().await {
                Some(round) => pending.ok(Answer::Shown(round.values)),
                None => pending.fail("no answer"),
            }
        }
        worker.rest(5 * REST_MS).await;
    }
}

/// All that a topic shows through the other door.
pub async fn show_all(worker: &Worker, topic: u8, until: Instant) {
    let world = &worker.world;
    if world.address.borrow().is_none_or(|doors| doors.http.is_none()) {
        return;
    }
    let mut shards = Shards::new(&world.address, &world.names, topic);
    let mut values = Vec::new();
    let pending = world.recorder.invoke(worker.number, Call::OtherDoor { topic, is_all: true });
    let mut behind = None;
    loop {
        let is_late = Instant::now() > until;
        assert!(!is_late, "the other door does not come to an end after {} values: {behind:?}", values.len());
        let Some(round) = shards.round().await else { continue };
        behind = round.behind;
        values.extend(round.values);
        if round.is_at_the_end {
            return pending.ok(Answer::Shown(values));
        }
    }
}

/// Of a group that commits its offsets outside of any transaction.
pub async fn member(mut worker: Worker) {
    let world = worker.world.clone();
    let topics: Vec<u8> = [1].into_iter().chain(OUT).collect();
    let mut member = Member::new(&world.address, &world.names, MEMBERS, &topics);
    let mut reader = Reader::new(&world.address, &world.names);
    let mut positions: Option<Positions> = None;
    while !world.is_stopping() {
        let Some(known) = stand(&worker, &mut member, MEMBERS, &mut positions).await else { continue };
        let from: Vec<_> = known.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        let Polled::Reads(reads) = poll(&worker, &mut reader, Isolation::Committed, &from).await else { continue };
        known.extend(reads.iter().map(|read| (read.partition, read.next)));
        if reads.iter().any(|read| read.next > read.from) {
            let offsets: Vec<_> = known.iter().map(|(partition, offset)| (*partition, *offset)).collect();
            let call = Call::Commit { group: MEMBERS, offsets: offsets.clone() };
            let pending = world.recorder.invoke(worker.number, call);
            let result = member.commit(&offsets).await;
            // What was not answered may come to pass late: only in another generation it cannot.
            match result {
                Err(Trouble::Unknown(_)) => member.vanish(),
                Err(Trouble::Refused(error)) => member.forget(error),
                _ => {}
            }
            end_of(pending, result.map(|()| Answer::Done));
        }
        if worker.random.percent(1) {
            member.leave().await;
        }
        worker.rest(REST_MS).await;
    }
    member.leave().await;
}

/// Positions of what the member holds: those of the group after each change. None when it holds nothing just now.
async fn stand<'p>(
    worker: &Worker,
    member: &mut Member,
    group: Group,
    positions: &'p mut Option<Positions>,
) -> Option<&'p mut Positions> {
    match member.beat().await {
        Standing::Stays => {}
        Standing::Joined => *positions = None,
        Standing::Away => {
            sleep(Duration::from_millis(30)).await;
            return None;
        }
    }
    if positions.is_none() {
        let committed = offsets(worker, member, group).await?;
        let position = |partition: &Partition| (*partition, committed.get(partition).copied().unwrap_or(0));
        *positions = Some(member.assigned.iter().map(position).collect());
    }
    let positions = positions.as_mut().filter(|positions| !positions.is_empty());
    if positions.is_none() {
        sleep(Duration::from_millis(30)).await;
    }
    positions
}

/// Takes, writes a record for each, and commits both in one transaction.
pub async fn processor(mut worker: Worker, id: u32, flow: Flow) {
    let world = worker.world.clone();
    let mut member = Member::new(&world.address, &world.names, PROCESSORS, &TAKEN);
    let mut reader = Reader::new(&world.address, &world.names);
    let mut instance = 0;
    while !world.is_stopping() {
        instance += 1;
        let mut producer = Producer::new(&world.address, &world.names, Some(id), flow);
        if !producers::init(&worker, &mut producer, id, instance, producers::LONG_MS).await {
            continue;
        }
        // What the last instance had in hand may or may not be committed.
        let mut positions: Option<Positions> = None;
        let mut number = 0;
        while !world.is_stopping() {
            let Some(known) = stand(&worker, &mut member, PROCESSORS, &mut positions).await else { continue };
            let from: Vec<_> = known.iter().map(|(partition, offset)| (*partition, *offset)).collect();
            let Polled::Reads(reads) = poll(&worker, &mut reader, Isolation::Committed, &from).await else {
                continue;
            };
            let consumed = consumed(&reads);
            if consumed.is_empty() {
                continue;
            }
            number += 1;
            let txn = TxnId { transactional_id: id, instance, number };
            let commit = worker.random.percent(85);
            match process(&mut worker, &mut producer, &mut member, txn, &reads, &consumed, commit).await {
                Some(Next::GoesOn) => {
                    known.extend(consumed.iter().map(|taken| (taken.partition, taken.to)));
                }
                // What was aborted is taken again.
                None => positions = None,
                Some(Next::BeginsAnew) => break,
            }
            if worker.random.percent(2) {
                member.leave().await;
                positions = None;
            }
            worker.rest(REST_MS).await;
        }
    }
    member.leave().await;
}

/// Up to so many records of each partition, and what lies before the next.
fn consumed(reads: &[Read]) -> Vec<Consumed> {
    let taken = |read: &Read| {
        let to = read.records.get(RECORDS_MAX).map_or(read.next, |(offset, _)| *offset);
        Consumed { partition: read.partition, from: read.from, to }
    };
    reads.iter().filter(|read| !read.records.is_empty()).map(taken).collect()
}

/// None when it was aborted.
async fn process(
    worker: &mut Worker,
    producer: &mut Producer,
    member: &mut Member,
    txn: TxnId,
    reads: &[Read],
    consumed: &[Consumed],
    commit: bool,
) -> Option<Next> {
    let count: usize = reads.iter().map(|read| read.records.len().min(RECORDS_MAX)).sum();
    let values = worker.values(count as u64);
    let out = partitions_of(&OUT);
    let halves = values.split_at(count / 2);
    let writes: Vec<_> = [(out[0], halves.0.to_vec()), (out[1], halves.1.to_vec())].into_iter().collect();
    let writes: Vec<_> = writes.into_iter().filter(|(_, values)| !values.is_empty()).collect();
    if let Some(trouble) = producers::send(worker, producer, Some(txn), writes).await {
        return undone(producers::give_up(worker, producer, txn, trouble).await);
    }
    let call = Call::SendOffsets { txn, group: PROCESSORS, consumed: consumed.to_vec() };
    let pending = worker.world.recorder.invoke(worker.number, call);
    let result = if worker.world.plan.lie == Some(Lie::OffsetsBeside) {
        let offsets: Vec<_> = consumed.iter().map(|taken| (taken.partition, taken.to)).collect();
        member.commit(&offsets).await
    } else {
        producer.send_offsets(PROCESSORS, member, consumed).await
    };
    end_of(pending, result.map(|()| Answer::Done));
    if let Err(trouble) = result {
        if let Trouble::Refused(
            error @ (ResponseError::IllegalGeneration
            | ResponseError::UnknownMemberId
            | ResponseError::RebalanceInProgress),
        ) = trouble
        {
            member.forget(error);
        }
        return undone(producers::give_up(worker, producer, txn, trouble).await);
    }
    let next = producers::end(worker, producer, txn, commit).await;
    if commit { Some(next) } else { undone(next) }
}

fn undone(next: Next) -> Option<Next> {
    match next {
        Next::GoesOn => None,
        Next::BeginsAnew => Some(Next::BeginsAnew),
    }
}
