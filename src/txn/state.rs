//! The state machine of one transactional id: pure. Owned and called by the registry under the id's lock; time comes in as
//! an argument, and so does a fresh producer id where one is needed.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | Empty, Complete* | a partition or group is added | Ongoing |
//! | Ongoing | its end [begins](Transaction::end) | Prepare* |
//! | Empty, Complete* | an abort of nothing begins (KIP-890: it still asks for a new epoch) | PrepareAbort |
//! | Prepare* | the end is [durable](Transaction::finish) | Complete* |
//! | Prepare* | the end could not be stored | what it was before |
//! | Empty, Complete* | a producer [takes over](Transaction::init) | Empty |
//!
//! Prepare* live in memory only: what is stored goes from before the end to after it at once.
//!
//! A producer is known by its id and epoch. Whoever has an older epoch is fenced. `last` is the pair that the current one
//! replaced at its own holder's wish or by an end that the holder may not have heard of: its holder may ask again, and is
//! told the current pair.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{GROUPS_MAX, PARTITIONS_MAX, TxnError};

/// From this epoch on a producer gets a new id instead of a next epoch. The one above it is left for fencing.
pub const EPOCH_EXHAUSTED: i16 = i16::MAX - 1;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEpoch {
    pub producer_id: i64,
    pub epoch: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

/// Partitions by topic id: of the topic that was meant, not of one that has got its name since.
pub type Partitions = BTreeMap<Uuid, BTreeSet<u32>>;

/// Which rules an EndTxn follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRules {
    /// The epoch stays (EndTxn 0 to 4).
    SameEpoch,
    /// Every transaction has an epoch of its own (KIP-890, EndTxn 5).
    NextEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub(super) producer: ProducerEpoch,
    pub(super) last: Option<ProducerEpoch>,
    pub(super) timeout_ms: i32,
    pub(super) state: State,
    pub(super) partitions: Partitions,
    pub(super) groups: BTreeSet<String>,
    /// Wall clock at which the transaction began: the current one, or the last.
    pub(super) start_ms: Option<i64>,
    /// Wall clock of the last change: where the expiry of the id counts from.
    pub(super) update_ms: i64,
}

/// What [`Transaction::init`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// The producer's pair; the change is to be stored.
    Ready(ProducerEpoch),
    /// A transaction is open. It is to be [aborted](Transaction::fence) first, then this is to be asked again.
    AbortFirst,
    /// The epochs of the producer id are used up: ask again with a fresh one.
    NeedsProducerId,
}

/// What [`Transaction::end`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It has ended that way already: the producer's pair.
    Already(ProducerEpoch),
    /// To be stored, then [finished](Transaction::finish).
    Begun(Box<Ending>),
    /// As in [`Init`].
    NeedsProducerId,
}

/// An end on its way to the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    pub commit: bool,
    /// In whose name the markers are written.
    pub marker: ProducerEpoch,
    pub partitions: Partitions,
    pub groups: BTreeSet<String>,
    /// What the transactional id is like once it is durable.
    pub after: Transaction,
    /// What is put back if it cannot be stored.
    before: (ProducerEpoch, Option<ProducerEpoch>, State),
}

impl State {
    pub const ALL: [State; 6] = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
    ];

    /// As Kafka's tools show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Ongoing => "Ongoing",
            State::PrepareCommit => "PrepareCommit",
            State::PrepareAbort => "PrepareAbort",
            State::CompleteCommit => "CompleteCommit",
            State::CompleteAbort => "CompleteAbort",
        }
    }
}

impl ProducerEpoch {
    fn next(self) -> ProducerEpoch {
        ProducerEpoch { epoch: self.epoch.saturating_add(1), ..self }
    }

    fn is_exhausted(self) -> bool {
        self.epoch >= EPOCH_EXHAUSTED
    }
}

impl Transaction {
    /// A transactional id that nobody had.
    pub fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Transaction {
        Transaction {
            producer: ProducerEpoch { producer_id, epoch: 0 },
            last: None,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            groups: BTreeSet::new(),
            start_ms: None,
            update_ms: now_ms,
        }
    }

    pub fn producer(&self) -> ProducerEpoch {
        self.producer
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms
    }

    pub fn start_ms(&self) -> Option<i64> {
        self.start_ms
    }

    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Those that the open transaction commits offsets for.
    pub fn groups(&self) -> &BTreeSet<String> {
        &self.groups
    }

    /// When the open transaction times out; wall clock.
    pub fn deadline_ms(&self) -> Option<i64> {
        let start_ms = self.start_ms.filter(|_| self.state == State::Ongoing)?;
        Some(start_ms.saturating_add(self.timeout_ms.into()))
    }

    /// Whether the id may be forgotten.
    pub fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        match self.state {
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                now_ms.saturating_sub(self.update_ms) >= expiration_ms
            }
            State::Ongoing | State::PrepareCommit | State::PrepareAbort => false,
        }
    }

    /// A producer begins to use the id, or goes on after an error (KIP-360), telling the pair that it has: `expected`.
    pub fn init(
        &mut self,
        expected: Option<ProducerEpoch>,
        timeout_ms: i32,
        fresh_id: Option<i64>,
        now_ms: i64,
    ) -> Result<Init, TxnError> {
        if self.is_ending() {
            return Err(TxnError::ConcurrentTransactions);
        }
        let again = expected.is_some() && expected == self.last;
        if expected.is_some_and(|expected| expected != self.producer) && !again {
            return Err(TxnError::ProducerFenced);
        }
        if self.state == State::Ongoing {
            return Ok(Init::AbortFirst);
        }
        // An epoch that only fences is never told.
        if again && self.producer.epoch < i16::MAX {
            // Its holder did not hear the answer. Nobody else can have come since: that would have cleared `last`.
        } else if self.producer.is_exhausted() {
            let Some(producer_id) = fresh_id else { return Ok(Init::NeedsProducerId) };
            self.last = expected;
            self.producer = ProducerEpoch { producer_id, epoch: 0 };
        } else {
            self.last = expected;
            self.producer = self.producer.next();
        }
        self.state = State::Empty;
        self.start_ms = None;
        self.timeout_ms = timeout_ms;
        self.update_ms = now_ms;
        Ok(Init::Ready(self.producer))
    }

    /// Adds partitions; true if that changed anything that is to be stored.
    pub fn add_partitions(
        &mut self,
        producer: ProducerEpoch,
        topic_partitions: &[(Uuid, u32)],
        now_ms: i64,
    ) -> Result<bool, TxnError> {
        self.check(producer)?;
        let is_new = |(topic, partition): &&(Uuid, u32)| !self.holds_partition(*topic, *partition);
        let new: BTreeSet<(Uuid, u32)> = topic_partitions.iter().filter(is_new).copied().collect();
        let held: usize = self.partitions.values().map(BTreeSet::len).sum();
        if held + new.len() > PARTITIONS_MAX {
            return Err(TxnError::TransactionAbortable);
        }
        if new.is_empty() && self.state == State::Ongoing {
            return Ok(false);
        }
        self.begin_if_need_be(now_ms);
        for (topic, partition) in new {
            self.partitions.entry(topic).or_default().insert(partition);
        }
        Ok(true)
    }

    /// Adds a group whose offsets the transaction is going to commit; true if that is to be stored.
    pub fn add_group(&mut self, producer: ProducerEpoch, group_id: &str, now_ms: i64) -> Result<bool, TxnError> {
        self.check(producer)?;
        if self.state == State::Ongoing && self.groups.contains(group_id) {
            return Ok(false);
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(TxnError::TransactionAbortable);
        }
        self.begin_if_need_be(now_ms);
        self.groups.insert(group_id.to_owned());
        Ok(true)
    }

    /// Whether the producer may write to this partition in its transaction.
    pub fn verify_partition(&self, producer: ProducerEpoch, topic: Uuid, partition: u32) -> Result<(), TxnError> {
        self.check(producer)?;
        if self.holds_partition(topic, partition) { Ok(()) } else { Err(TxnError::TransactionAbortable) }
    }

    /// Whether the producer may commit this group's offsets in its transaction.
    pub fn verify_group(&self, producer: ProducerEpoch, group_id: &str) -> Result<(), TxnError> {
        self.check(producer)?;
        if self.groups.contains(group_id) { Ok(()) } else { Err(TxnError::TransactionAbortable) }
    }

    /// The producer ends its transaction.
    pub fn end(
        &mut self,
        producer: ProducerEpoch,
        commit: bool,
        rules: EndRules,
        fresh_id: Option<i64>,
        now_ms: i64,
    ) -> Result<End, TxnError> {
        // With an epoch for each transaction, an EndTxn that comes again bears the epoch before.
        let again = rules == EndRules::NextEpoch && self.last == Some(producer);
        if producer.producer_id != self.producer.producer_id && !again {
            return Err(TxnError::InvalidProducerIdMapping);
        }
        let complete = matches!(self.state, State::CompleteCommit | State::CompleteAbort);
        let is_current = producer == self.producer;
        let is_valid =
            if self.is_ending() && rules == EndRules::NextEpoch { again } else { is_current || (complete && again) };
        if !is_valid {
            return Err(TxnError::ProducerFenced);
        }
        let has_ended_so = |ended_by_commit| match (rules, ended_by_commit == commit) {
            // Without it, the same epoch may ask again for as long as no other transaction has begun.
            (EndRules::SameEpoch, true) => Ok(End::Already(self.producer)),
            (EndRules::NextEpoch, true) if again => Ok(End::Already(self.producer)),
            _ => Err(TxnError::InvalidTxnState),
        };
        match self.state {
            State::Ongoing => Ok(self.begin_end(commit, rules, fresh_id, now_ms)),
            State::PrepareCommit if commit => Err(TxnError::ConcurrentTransactions),
            State::PrepareAbort if !commit => Err(TxnError::ConcurrentTransactions),
            State::PrepareCommit | State::PrepareAbort => Err(TxnError::InvalidTxnState),
            // A producer of KIP-890 aborts without knowing whether the broker has seen a record of the transaction.
            State::Empty | State::CompleteCommit | State::CompleteAbort
                if rules == EndRules::NextEpoch && !commit && !again =>
            {
                Ok(self.begin_end(commit, rules, fresh_id, now_ms))
            }
            State::Empty => Err(TxnError::InvalidTxnState),
            State::CompleteCommit => has_ended_so(true),
            State::CompleteAbort => has_ended_so(false),
        }
    }

    /// Aborts the open transaction on the broker's own account, with the next epoch, which fences whoever has the current
    /// one. `None` if none is open.
    pub fn fence(&mut self, now_ms: i64) -> Option<Ending> {
        if self.state != State::Ongoing {
            return None;
        }
        let next = self.producer.next();
        Some(self.begin_with(false, next, next, Some(self.producer), now_ms))
    }

    /// The end is durable, or certainly not done.
    pub fn finish(&mut self, ending: Ending, durable: bool) {
        if durable {
            *self = ending.after;
        } else {
            (self.producer, self.last, self.state) = ending.before;
        }
    }

    fn begin_end(&mut self, commit: bool, rules: EndRules, fresh_id: Option<i64>, now_ms: i64) -> End {
        let current = self.producer;
        match rules {
            EndRules::SameEpoch => End::Begun(Box::new(self.begin_with(commit, current, current, self.last, now_ms))),
            EndRules::NextEpoch => {
                let marker = current.next();
                let after = match (current.is_exhausted(), fresh_id) {
                    (false, _) => marker,
                    (true, Some(producer_id)) => ProducerEpoch { producer_id, epoch: 0 },
                    (true, None) => return End::NeedsProducerId,
                };
                End::Begun(Box::new(self.begin_with(commit, marker, after, Some(current), now_ms)))
            }
        }
    }

    fn begin_with(
        &mut self,
        commit: bool,
        marker: ProducerEpoch,
        producer: ProducerEpoch,
        last: Option<ProducerEpoch>,
        now_ms: i64,
    ) -> Ending {
        let before = (self.producer, self.last, self.state);
        let after = Transaction {
            producer,
            last,
            timeout_ms: self.timeout_ms,
            state: if commit { State::CompleteCommit } else { State::CompleteAbort },
            partitions: Partitions::new(),
            groups: BTreeSet::new(),
            start_ms: if self.state == State::Ongoing { self.start_ms } else { Some(now_ms) },
            update_ms: now_ms,
        };
        let (partitions, groups) = (self.partitions.clone(), self.groups.clone());
        self.state = if commit { State::PrepareCommit } else { State::PrepareAbort };
        // What has the old epoch is fenced from now on.
        (self.producer, self.last) = (marker, last);
        Ending { commit, marker, partitions, groups, after, before }
    }

    /// Whether this is the producer, and may change its transaction now.
    fn check(&self, producer: ProducerEpoch) -> Result<(), TxnError> {
        if producer.producer_id != self.producer.producer_id {
            Err(TxnError::InvalidProducerIdMapping)
        } else if producer.epoch != self.producer.epoch {
            Err(TxnError::ProducerFenced)
        } else if self.is_ending() {
            Err(TxnError::ConcurrentTransactions)
        } else {
            Ok(())
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::PrepareCommit | State::PrepareAbort)
    }

    fn holds_partition(&self, topic: Uuid, partition: u32) -> bool {
        self.partitions.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
    }

    fn begin_if_need_be(&mut self, now_ms: i64) {
        if self.state != State::Ongoing {
            self.state = State::Ongoing;
            self.start_ms = Some(now_ms);
        }
        self.update_ms = now_ms;
    }
}

#[cfg(test)]
mod tests;
