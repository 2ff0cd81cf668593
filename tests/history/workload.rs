//! The workload: producers, processors and readers at once against a broker that is killed, paused and restarted, and the
//! history of it. A seed gives the choices of every worker; how they meet is the system's.

mod consumers;
mod producers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, FindCoordinatorRequest};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::Broker;
use crate::frame::text;
use crate::group::Member;
use crate::history::{Answer, Call, Entry, Group, History, Isolation, Outcome, Recorder, Value};
use crate::names::{Names, TOPICS, partitions_of};
use crate::producer::{Flow, Producer};
use crate::random::Random;
use crate::reader::Reader;
use crate::wire::{Address, Link, Trouble};

/// Topics: producers write to the first two; processors take the first and write to the last.
const WRITTEN: [u8; 2] = [0, 1];
const TAKEN: [u8; 1] = [0];
const OUT: [u8; 1] = [2];
/// Groups: of the processors; of members that commit outside of transactions.
const PROCESSORS: Group = 0;
const MEMBERS: Group = 1;
const ALL: [u8; 3] = [0, 1, 2];
/// Transactional ids: of producers that write on their own; from here on of processors.
const PRODUCERS: u32 = 4;
const PROCESSORS_FROM: u32 = 10;
/// The worker that sets up and reads everything in the end.
const OWNER: u32 = 0;
/// Workers that come as others go.
const ZOMBIES_FROM: u32 = 100;
/// How long workers may take to end, and the broker to settle.
const END: Duration = Duration::from_secs(90);
const SETTLED: Duration = Duration::from_secs(20);

/// What is wrong with the workload, to see that it is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A reader of committed records asks for all records.
    ReadsUncommitted,
    /// A processor commits its offsets beside its transaction.
    OffsetsBeside,
    /// A producer sends again what was acknowledged, as if it were not.
    SendsTwice,
    /// The broker loses what it acknowledged.
    Forgets,
}

#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    pub lie: Option<Lie>,
}

/// What all workers share.
#[derive(Clone)]
pub struct World {
    plan: Plan,
    recorder: Recorder,
    names: Names,
    address: Address,
    is_stopping: Arc<AtomicBool>,
    next_zombie: Arc<AtomicU32>,
    zombies: Arc<Mutex<JoinSet<()>>>,
}

/// A worker's own.
pub struct Worker {
    world: World,
    number: u32,
    random: Random,
    next_value: Value,
}

impl World {
    fn worker(&self, number: u32) -> Worker {
        Worker {
            world: self.clone(),
            number,
            random: Random::of(self.plan.seed, number),
            next_value: Value::from(number) * 1_000_000_000,
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

impl Worker {
    fn values(&mut self, count: u64) -> Vec<Value> {
        let first = self.next_value + 1;
        self.next_value += count;
        (first..first + count).collect()
    }

    async fn rest(&mut self, ms_max: u64) {
        let ms = self.random.below(ms_max + 1);
        sleep(Duration::from_millis(ms)).await;
    }
}

/// What is told of an operation that succeeded without an answer worth keeping, or did not.
fn end_of(pending: crate::history::Pending, result: Result<Answer, Trouble>) {
    match result {
        Ok(answer) => pending.ok(answer),
        Err(trouble @ Trouble::Unknown(_)) => pending.unknown(trouble.text()),
        Err(trouble) => pending.fail(trouble.text()),
    }
}

pub async fn run(plan: Plan) -> History {
    let recorder = Recorder::new();
    let mut broker = Broker::start(&recorder);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = format!("h{}-{}-{}", plan.seed, std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let world = World {
        plan,
        recorder: recorder.clone(),
        names: Names::new(run),
        address: broker.address(),
        is_stopping: Arc::default(),
        next_zombie: Arc::new(AtomicU32::new(ZOMBIES_FROM)),
        zombies: Arc::default(),
    };
    prepare(&world).await;
    let mut workers = JoinSet::new();
    for id in 0..PRODUCERS {
        let flow = if id % 2 == 0 { Flow::Implicit } else { Flow::Explicit };
        workers.spawn(producers::transactional(world.worker(1 + id), id, flow));
    }
    workers.spawn(producers::plain(world.worker(9)));
    for place in 0..2 {
        let flow = if place == 0 { Flow::Implicit } else { Flow::Explicit };
        workers.spawn(consumers::processor(world.worker(10 + place), PROCESSORS_FROM + place, flow));
        workers.spawn(consumers::member(world.worker(20 + place)));
    }
    workers.spawn(consumers::reader(world.worker(30), Isolation::Committed, false));
    workers.spawn(consumers::reader(world.worker(31), Isolation::Committed, true));
    workers.spawn(consumers::reader(world.worker(32), Isolation::Uncommitted, false));
    workers.spawn(consumers::other_door(world.worker(40)));

    torment(&world, &mut broker).await;
    world.is_stopping.store(true, Ordering::Relaxed);
    let ended = async {
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        let mut zombies = std::mem::take(&mut *world.zombies.lock());
        while let Some(ended) = zombies.join_next().await {
            ended.unwrap();
        }
    };
    timeout(END, ended).await.expect("a worker hangs");
    conclude(&world, &mut broker).await;
    recorder.history()
}

async fn torment(world: &World, broker: &mut Broker) {
    let mut random = Random::of(world.plan.seed, u32::MAX);
    let until = Instant::now() + world.plan.length;
    if world.plan.lie == Some(Lie::Forgets) {
        sleep(world.plan.length / 3).await;
        broker.remember().await;
        sleep(world.plan.length / 3).await;
        broker.forget().await;
        return sleep(world.plan.length / 3).await;
    }
    while Instant::now() < until {
        broker.harm(&world.names, OWNER, &mut random).await;
    }
}

/// Topics, and coordinators that know of them.
async fn prepare(world: &World) {
    let mut link = Link::new(&world.address);
    let new = (0u8..).zip(TOPICS).map(|(topic, partitions)| {
        CreatableTopic::default()
            .with_name(world.names.topic(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
    });
    let request = CreateTopicsRequest::default().with_topics(new.collect()).with_timeout_ms(10_000);
    let made = link.call_for(Duration::from_secs(15), &request, 7).await;
    let Ok(made) = made else { panic!("topics are not made") };
    assert!(made.topics.iter().all(|topic| topic.error_code == 0), "{made:?}");
    // A broker may make what its coordinators need only when it is asked for one.
    for (key_type, key) in [(0, "g"), (1, "x")] {
        let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(vec![text(key)]);
        let found = link.ask(&request, 4, true, |answer| answer.coordinators[0].error_code).await;
        assert!(found.is_ok(), "no coordinator of type {key_type}: {}", found.err().unwrap().text());
    }
}

/// Ends what is under way, and reads everything twice, with a kill in between.
async fn conclude(world: &World, broker: &mut Broker) {
    world.recorder.note("all workers have ended");
    let owner = world.worker(OWNER);
    let inits = instances(&world.recorder.history());
    for (transactional_id, instance) in inits {
        let mut producer = Producer::new(&world.address, &world.names, Some(transactional_id), Flow::Implicit);
        producers::init(&owner, &mut producer, transactional_id, instance + 1, producers::LONG_MS).await;
    }
    for group in [PROCESSORS, MEMBERS] {
        consumers::offsets(&owner, &mut Member::new(&world.address, &world.names, group, &ALL), group).await;
    }
    read_all(world, Call::Poll { isolation: Isolation::Committed, from: Vec::new() }).await;
    broker.kill(Duration::ZERO).await;
    for group in [PROCESSORS, MEMBERS] {
        consumers::offsets(&owner, &mut Member::new(&world.address, &world.names, group, &ALL), group).await;
    }
    for topic in ALL {
        consumers::show_all(&owner, topic, Instant::now() + SETTLED).await;
    }
    read_all(world, Call::ReadAll).await;
}

/// The last producer of each transactional id.
fn instances(history: &History) -> HashMap<u32, u32> {
    let mut last = HashMap::new();
    for event in &history.events {
        if let Entry::Invoke(Call::Init { transactional_id, instance, .. }) = event.entry {
            let known = last.entry(transactional_id).or_insert(instance);
            *known = instance.max(*known);
        }
    }
    last
}

/// From the beginning to the end, once the end is stable or does not become so in time.
async fn read_all(world: &World, call: Call) {
    let mut reader = Reader::new(&world.address, &world.names);
    let until = Instant::now() + SETTLED;
    let mut reads = HashMap::new();
    let pending = world.recorder.invoke(OWNER, call);
    let mut open = partitions_of(&ALL);
    while !open.is_empty() {
        let from: Vec<_> = open
            .iter()
            .map(|partition| {
                let next = reads.get(partition).map_or(0, |read: &crate::history::Read| read.next);
                (*partition, next)
            })
            .collect();
        let is_late = Instant::now() > until;
        let Ok(polled) = reader.poll(Isolation::Committed, &from).await else {
            assert!(!is_late, "the end cannot be read");
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        for read in polled {
            let moved = read.next > read.from;
            if read.next >= read.high_watermark || (is_late && !moved) {
                open.retain(|partition| *partition != read.partition);
            }
            let whole = reads.entry(read.partition).or_insert_with(|| crate::history::Read {
                from: 0,
                records: Vec::new(),
                ..read.clone()
            });
            whole.next = read.next;
            whole.high_watermark = read.high_watermark;
            whole.last_stable_offset = read.last_stable_offset;
            whole.records.extend(read.records);
        }
    }
    let mut reads: Vec<_> = reads.into_values().collect();
    reads.sort_by_key(|read| read.partition);
    pending.ok(Answer::Read(reads));
}

/// How much there was of everything.
pub struct Tally {
    pub committed: usize,
    pub aborted: usize,
    pub unknown: usize,
    pub processed: usize,
    pub written: usize,
    pub read: usize,
    pub harms: usize,
    pub events: usize,
    /// Refusals and the like, by what was asked and what was said.
    pub troubles: Vec<(String, usize)>,
}

impl Tally {
    pub fn of(history: &History) -> Tally {
        let operations = history.operations();
        let ends = |wanted: bool, known: bool| {
            let is = |operation: &&crate::history::Operation<'_>| {
                matches!(operation.call, Call::End { commit, .. } if *commit == wanted)
                    && matches!(operation.outcome, Outcome::Ok(_)) == known
            };
            operations.iter().filter(is).count()
        };
        let count = |is: fn(&Call) -> bool| {
            let is_ok = |outcome| matches!(outcome, Outcome::Ok(_));
            operations.iter().filter(|operation| is(operation.call) && is_ok(operation.outcome)).count()
        };
        let read = operations.iter().rev().find_map(|operation| match (operation.call, operation.outcome) {
            (Call::ReadAll, Outcome::Ok(Answer::Read(reads))) => {
                Some(reads.iter().map(|read| read.records.len()).sum())
            }
            _ => None,
        });
        let mut troubles: HashMap<String, usize> = HashMap::new();
        for operation in operations.iter().filter(|operation| operation.completed != usize::MAX) {
            let (Entry::Fail(why) | Entry::Unknown(why)) = &history.events[operation.completed].entry else { continue };
            let asked = operation.call.to_string();
            let verb = asked.split_whitespace().next().unwrap_or_default();
            *troubles.entry(format!("{verb}: {why}")).or_default() += 1;
        }
        let mut troubles: Vec<_> = troubles.into_iter().collect();
        troubles.sort();
        let harm = |entry: &Entry| matches!(entry, Entry::Note(note) if !note.starts_with("started"));
        Tally {
            committed: ends(true, true),
            aborted: ends(false, true),
            unknown: ends(true, false) + ends(false, false),
            processed: count(|call| matches!(call, Call::SendOffsets { .. })),
            written: count(|call| matches!(call, Call::Send { .. })),
            read: read.unwrap_or(0),
            harms: history.events.iter().filter(|event| harm(&event.entry)).count(),
            events: history.events.len(),
            troubles,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { committed, aborted, unknown, processed, written, read, harms, events, troubles } = self;
        writeln!(
            f,
            "{events} events: {committed} transactions committed, {aborted} aborted, {unknown} of unknown or refused \
             end, {processed} with offsets; {written} writes; {read} records in the end; {harms} harms"
        )?;
        troubles.iter().try_for_each(|(what, times)| writeln!(f, "  {times:>6} x {what}"))
    }
}
