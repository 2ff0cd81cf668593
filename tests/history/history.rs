//! What clients asked of a broker and what came of it, as they saw it: the recorder that workers write into, and the
//! operations that [`crate::check`] judges.
//!
//! An operation is invoked by a worker, which does one thing at a time, and ends in one of three ways: it is known to
//! have happened (`Ok`), known not to have happened (`Fail`), or nobody knows (`Unknown`, or no end at all). Events are in
//! one order: an operation that ended before another was invoked happened before it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// Of an excerpt. The file of the whole history has them whole.
const LINE_CHARS_MAX: usize = 500;

/// Of one record; no two writes of a history share one.
pub type Value = u64;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: u8,
    pub index: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: Partition,
    pub offset: i64,
}

/// A transaction: the `number`th of the `instance`th producer that took this transactional id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    pub transactional_id: u32,
    pub instance: u32,
    pub number: u32,
}

pub type Group = u8;

/// What a transaction took from one partition, by the positions of its consumer before and after.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Consumed {
    pub partition: Partition,
    pub from: i64,
    pub to: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

#[derive(Clone)]
pub enum Call {
    /// A producer takes a transactional id: whoever had it before is fenced.
    Init {
        transactional_id: u32,
        instance: u32,
        timeout_ms: u64,
    },
    Send {
        txn: Option<TxnId>,
        writes: Vec<(Partition, Vec<Value>)>,
    },
    SendOffsets {
        txn: TxnId,
        group: Group,
        consumed: Vec<Consumed>,
    },
    End {
        txn: TxnId,
        commit: bool,
    },
    Poll {
        isolation: Isolation,
        from: Vec<(Partition, i64)>,
    },
    /// Offsets of a group outside of any transaction.
    Commit {
        group: Group,
        offsets: Vec<(Partition, i64)>,
    },
    /// With `require_stable`.
    FetchOffsets {
        group: Group,
    },
    /// Merges or splits until the topic has so many open shards. Not a thing that Apache Kafka does.
    Reshard {
        topic: u8,
        shards: u32,
    },
    /// Of what the topic holds, without places: through the Kinesis API.
    OtherDoor {
        topic: u8,
        is_all: bool,
    },
    /// Everything, `read_committed`, when nothing is under way any more.
    ReadAll,
}

#[derive(Clone)]
pub enum Answer {
    Done,
    Sent(Vec<(Partition, Sent)>),
    Read(Vec<Read>),
    Shown(Vec<Value>),
    /// Partitions without an offset are left out.
    Offsets(Vec<(Partition, i64)>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Acknowledged, the first record at this offset.
    At(i64),
    /// Acknowledged without its offset.
    Stored,
    Refused,
    Maybe,
}

/// What one partition gave to a reader that asked for `from..` and goes on at `next`.
#[derive(Clone)]
pub struct Read {
    pub partition: Partition,
    pub from: i64,
    pub next: i64,
    pub records: Vec<(i64, Value)>,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
}

#[derive(Clone)]
pub enum Entry {
    Invoke(Call),
    Ok(Answer),
    Fail(String),
    Unknown(String),
    /// What was done to the broker.
    Note(String),
}

#[derive(Clone)]
pub struct Event {
    pub at_ms: u64,
    pub worker: u32,
    pub entry: Entry,
}

#[derive(Clone, Default)]
pub struct History {
    pub events: Vec<Event>,
}

#[derive(Clone, Copy)]
pub enum Outcome<'h> {
    Ok(&'h Answer),
    Fail,
    Unknown,
}

/// An operation whole. Places in the history: `completed` is beyond its end when no end was recorded.
pub struct Operation<'h> {
    pub worker: u32,
    pub invoked: usize,
    pub completed: usize,
    pub invoked_ms: u64,
    pub completed_ms: u64,
    pub call: &'h Call,
    pub outcome: Outcome<'h>,
}

impl History {
    /// In the order of their invocations.
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations: Vec<Operation<'_>> = Vec::new();
        let mut open = HashMap::new();
        for (place, event) in self.events.iter().enumerate() {
            let outcome = match &event.entry {
                Entry::Note(_) => continue,
                Entry::Invoke(call) => {
                    open.insert(event.worker, operations.len());
                    operations.push(Operation {
                        worker: event.worker,
                        invoked: place,
                        completed: usize::MAX,
                        invoked_ms: event.at_ms,
                        completed_ms: u64::MAX,
                        call,
                        outcome: Outcome::Unknown,
                    });
                    continue;
                }
                Entry::Ok(answer) => Outcome::Ok(answer),
                Entry::Fail(_) => Outcome::Fail,
                Entry::Unknown(_) => Outcome::Unknown,
            };
            let index = open.remove(&event.worker).expect("an end without a beginning");
            let operation = &mut operations[index];
            (operation.completed, operation.completed_ms, operation.outcome) = (place, event.at_ms, outcome);
        }
        operations
    }

    /// The last events that speak of a group's offsets in a partition, and of transactions that carry them.
    pub fn of_group(&self, group: Group, partition: Partition, max: usize) -> String {
        let txns: Vec<TxnId> = self
            .calls()
            .filter_map(|call| match call {
                Call::SendOffsets { txn, group: of, consumed }
                    if *of == group && consumed.iter().any(|taken| taken.partition == partition) =>
                {
                    Some(*txn)
                }
                _ => None,
            })
            .collect();
        self.select(max, |event| match event {
            Entry::Invoke(Call::Commit { group: of, .. } | Call::FetchOffsets { group: of }) => *of == group,
            Entry::Invoke(Call::SendOffsets { txn, .. } | Call::End { txn, .. }) => txns.contains(txn),
            _ => false,
        })
    }

    /// The last events that tell of reads of a partition.
    pub fn of_partition(&self, partition: Partition, max: usize) -> String {
        self.select(max, |event| match event {
            Entry::Invoke(Call::Poll { from, .. }) => from.iter().any(|(of, _)| *of == partition),
            Entry::Invoke(Call::Send { writes, .. }) => writes.iter().any(|(of, _)| *of == partition),
            Entry::Invoke(Call::Reshard { topic, .. }) => *topic == partition.topic,
            Entry::Invoke(call) => matches!(call, Call::Init { .. } | Call::End { .. } | Call::ReadAll),
            _ => false,
        })
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.events.iter().filter_map(|event| match &event.entry {
            Entry::Invoke(call) => Some(call),
            _ => None,
        })
    }

    /// Operations whose invocation is wanted, results that are, and all notes.
    fn select(&self, max: usize, is_wanted: impl Fn(&Entry) -> bool) -> String {
        let mut under_way = HashSet::new();
        let mut lines: Vec<String> = Vec::new();
        let mut was_note = false;
        for (place, event) in self.events.iter().enumerate() {
            let is_note = matches!(event.entry, Entry::Note(_));
            let is_wanted = match &event.entry {
                Entry::Note(_) => true,
                Entry::Invoke(_) if is_wanted(&event.entry) => {
                    under_way.insert(event.worker);
                    true
                }
                Entry::Invoke(_) => {
                    under_way.remove(&event.worker);
                    false
                }
                Entry::Ok(_) | Entry::Fail(_) | Entry::Unknown(_) => {
                    under_way.remove(&event.worker) || is_wanted(&event.entry)
                }
            };
            match lines.last_mut() {
                _ if !is_wanted => continue,
                // What was done to the broker meanwhile is one line.
                Some(line) if is_note && was_note => *line += &format!("; {}", event.to_string().trim_start()),
                _ => lines.push(format!("{place:>7} {event}")),
            }
            was_note = is_note;
        }
        // What went wrong shows in the end.
        let left_out = lines.len().saturating_sub(max);
        let mut text = if left_out > 0 { format!("        {left_out} more, then\n") } else { String::new() };
        for line in lines.split_off(left_out) {
            let cut = line.char_indices().nth(LINE_CHARS_MAX).map_or(line.len(), |(at, _)| at);
            text += &line[..cut];
            text += if cut < line.len() { "...\n" } else { "\n" };
        }
        text
    }

    /// The last events that speak of any of these.
    pub fn around(&self, places: &[Place], values: &[Value], txns: &[TxnId], max: usize) -> String {
        self.select(max, |event| match event {
            Entry::Invoke(call) => concerns(call, values, txns),
            Entry::Ok(Answer::Shown(shown)) => shown.iter().any(|value| values.contains(value)),
            Entry::Ok(Answer::Read(reads)) => reads.iter().any(|read| {
                read.records.iter().any(|(offset, value)| {
                    values.contains(value) || places.contains(&Place { partition: read.partition, offset: *offset })
                })
            }),
            _ => false,
        })
    }
}

fn concerns(call: &Call, values: &[Value], txns: &[TxnId]) -> bool {
    match call {
        Call::Init { transactional_id, instance, .. } => txns.iter().any(|txn| {
            txn.transactional_id == *transactional_id && (txn.instance == *instance || txn.instance + 1 == *instance)
        }),
        Call::Send { txn, writes } => {
            txn.is_some_and(|txn| txns.contains(&txn))
                || writes.iter().flat_map(|(_, written)| written).any(|value| values.contains(value))
        }
        Call::SendOffsets { txn, .. } | Call::End { txn, .. } => txns.contains(txn),
        Call::Reshard { .. } => true,
        Call::Poll { .. }
        | Call::Commit { .. }
        | Call::FetchOffsets { .. }
        | Call::OtherDoor { .. }
        | Call::ReadAll => false,
    }
}

/// Where workers write what they do.
#[derive(Clone)]
pub struct Recorder {
    started: Instant,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder { started: Instant::now(), history: Arc::default() }
    }

    pub fn note(&self, text: impl Into<String>) {
        self.push(0, Entry::Note(text.into()));
    }

    pub fn invoke(&self, worker: u32, call: Call) -> Pending {
        self.push(worker, Entry::Invoke(call));
        Pending { recorder: self.clone(), worker }
    }

    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    fn push(&self, worker: u32, entry: Entry) {
        let mut history = self.history.lock();
        let at_ms = self.started.elapsed().as_millis() as u64;
        history.events.push(Event { at_ms, worker, entry });
    }
}

/// An operation under way. One that is dropped has no end.
#[must_use]
pub struct Pending {
    recorder: Recorder,
    worker: u32,
}

impl Pending {
    pub fn ok(self, answer: Answer) {
        self.recorder.push(self.worker, Entry::Ok(answer));
    }

    pub fn fail(self, why: impl Into<String>) {
        self.recorder.push(self.worker, Entry::Fail(why.into()));
    }

    pub fn unknown(self, why: impl Into<String>) {
        self.recorder.push(self.worker, Entry::Unknown(why.into()));
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}-{}", self.topic, self.index)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}.{}#{}", self.transactional_id, self.instance, self.number)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Init { transactional_id, instance, timeout_ms } => {
                write!(f, "init x{transactional_id}.{instance} timeout {timeout_ms} ms")
            }
            Call::Send { txn, writes } => {
                match txn {
                    Some(txn) => write!(f, "send {txn}")?,
                    None => f.write_str("send")?,
                }
                writes.iter().try_for_each(|(partition, values)| write!(f, " {partition}{values:?}"))
            }
            Call::SendOffsets { txn, group, consumed } => {
                write!(f, "offsets {txn} g{group}")?;
                consumed.iter().try_for_each(|taken| write!(f, " {}@{}..{}", taken.partition, taken.from, taken.to))
            }
            Call::End { txn, commit } => write!(f, "{} {txn}", if *commit { "commit" } else { "abort" }),
            Call::Poll { isolation, from } => {
                write!(f, "poll {isolation}")?;
                at(f, from)
            }
            Call::Commit { group, offsets } => {
                write!(f, "commit g{group}")?;
                at(f, offsets)
            }
            Call::FetchOffsets { group } => write!(f, "offsets of g{group}"),
            Call::Reshard { topic, shards } => write!(f, "reshard t{topic} to {shards}"),
            Call::OtherDoor { topic, is_all: false } => write!(f, "GetRecords t{topic}"),
            Call::OtherDoor { topic, is_all: true } => write!(f, "GetRecords t{topic} to the end"),
            Call::ReadAll => f.write_str("read all"),
        }
    }
}

fn at(f: &mut fmt::Formatter<'_>, offsets: &[(Partition, i64)]) -> fmt::Result {
    offsets.iter().try_for_each(|(partition, offset)| write!(f, " {partition}@{offset}"))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => Ok(()),
            Answer::Sent(sent) => sent.iter().try_for_each(|(partition, sent)| match sent {
                Sent::At(offset) => write!(f, " {partition}@{offset}"),
                Sent::Stored => write!(f, " {partition} stored"),
                Sent::Refused => write!(f, " {partition} refused"),
                Sent::Maybe => write!(f, " {partition} maybe"),
            }),
            Answer::Read(reads) => reads.iter().try_for_each(|read| {
                let Read { partition, from, next, records, high_watermark, last_stable_offset } = read;
                write!(f, " {partition}@{from}..{next} (stable {last_stable_offset}, end {high_watermark})")?;
                records.iter().try_for_each(|(offset, value)| write!(f, " {offset}:{value}"))
            }),
            Answer::Shown(values) => write!(f, "{values:?}"),
            Answer::Offsets(offsets) => at(f, offsets),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { at_ms, worker, entry } = self;
        match entry {
            Entry::Invoke(call) => write!(f, "{at_ms:>6} ms  w{worker}  invoke   {call}"),
            Entry::Ok(answer) => write!(f, "{at_ms:>6} ms  w{worker}  ok      {answer}"),
            Entry::Fail(why) => write!(f, "{at_ms:>6} ms  w{worker}  fail     {why}"),
            Entry::Unknown(why) => write!(f, "{at_ms:>6} ms  w{worker}  unknown  {why}"),
            Entry::Note(text) => write!(f, "{at_ms:>6} ms  *** {text}"),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().enumerate().try_for_each(|(place, event)| writeln!(f, "{place:>7} {event}"))
    }
}

macro_rules! debug_as_display {
    ($($name:ty),*) => { $(impl fmt::Debug for $name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(self, f)
        }
    })* };
}
debug_as_display!(Partition, Place, TxnId, Isolation, Call, Event);
