//! All transactional ids of the broker: finds them, runs their state machines, fires their timers, and takes what they
//! decide to the log, the groups and the store.
//!
//! Rooms: `begin` (a producer takes over an id, a transaction gets partitions and groups), `end` (commit, abort, timeout),
//! `admin` (listing, describing, expiry). All of them work the same way: lock the id, decide, queue what is to be stored,
//! unlock; then await.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::state::{State, Transaction};
use super::{TRANSACTIONAL_ID_BYTES_MAX, TRANSACTIONAL_IDS_MAX, TxnError, TxnSettings, stored};
use crate::broker::Broker;
use crate::clock::{Alarms, Clock, fired};
use crate::group::Groups;
use crate::store::keys::Key;
use crate::store::{Batch, Family, StoreError};

mod admin;
mod begin;
mod end;

#[cfg(test)]
mod tests;

pub use admin::{Described, ListFilter, Listed};
pub use begin::Verification;

/// How often ids that nobody uses any more are looked for; as often as Kafka.
const EXPIRY_CHECK_INTERVAL_MS: i64 = 3_600_000;

/// The coordinator of every transaction. Its methods run on a tokio runtime.
pub struct Transactions {
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    clock: Clock,
    settings: TxnSettings,
    transactions: DashMap<Arc<str>, Shared>,
    /// When each id wants [`Transactions::tick`] to look at it.
    alarms: Alarms<Arc<str>>,
}

type Shared = Arc<Mutex<Entry>>;

struct Entry {
    id: Arc<str>,
    transaction: Transaction,
    /// When the open transaction times out, by the clock that never goes back.
    deadline: Option<i64>,
    /// The id's entry in `alarms`.
    scheduled: Option<i64>,
    /// No longer in the map: whoever comes has to look again.
    gone: bool,
}

/// The store's answer to a change.
type Stored = oneshot::Receiver<Result<(), StoreError>>;

impl Transactions {
    /// Loads what is stored. What has timed out meanwhile is aborted by the first [`Transactions::tick`]. Blocks.
    pub fn open(
        broker: Arc<Broker>,
        groups: Arc<Groups>,
        clock: Clock,
        settings: TxnSettings,
    ) -> Result<Arc<Transactions>, StoreError> {
        let transactions = Arc::new(Transactions {
            broker,
            groups,
            clock,
            settings,
            transactions: DashMap::new(),
            alarms: Alarms::default(),
        });
        for (key, value) in transactions.broker.scan_meta(&stored::prefix())? {
            let id: Arc<str> = Arc::from(stored::parse_key(&key)?);
            let mut entry = Entry::new(id.clone(), stored::decode(&id, &value)?);
            transactions.arm(&mut entry);
            transactions.transactions.insert(id, Arc::new(Mutex::new(entry)));
        }
        Ok(transactions)
    }

    /// Aborts what times out and forgets ids that nobody uses, until it is dropped.
    pub async fn run_timers(self: Arc<Self>) {
        let mut expiry_at = self.clock.tick_ms().saturating_add(EXPIRY_CHECK_INTERVAL_MS);
        loop {
            self.alarms.next(&self.clock, Some(expiry_at)).await;
            self.tick();
            if self.clock.tick_ms() >= expiry_at {
                self.expire_ids();
                expiry_at = self.clock.tick_ms().saturating_add(EXPIRY_CHECK_INTERVAL_MS);
            }
        }
    }

    /// Begins to abort what has timed out by now.
    pub fn tick(self: &Arc<Self>) {
        let now = self.clock.tick_ms();
        for (at, id) in self.alarms.take_due(now) {
            self.find(&id, |shared, entry| {
                fired(&mut entry.scheduled, at);
                match entry.deadline.filter(|_| entry.transaction.state() == State::Ongoing) {
                    Some(deadline) if deadline <= now => self.time_out(shared, entry),
                    // The transaction that this timer was for has ended, and another has begun.
                    Some(deadline) => self.schedule_at(entry, deadline),
                    None => {}
                }
            });
        }
    }

    /// How many ids are in each state.
    pub fn count(&self) -> HashMap<State, usize> {
        let ids: Vec<Shared> = self.transactions.iter().map(|entry| entry.value().clone()).collect();
        let mut counts = HashMap::new();
        for id in ids {
            *counts.entry(id.lock().transaction.state()).or_default() += 1;
        }
        counts
    }

    /// Runs `act` on the id, if it is known.
    fn find<R>(&self, id: &str, act: impl FnOnce(&Shared, &mut Entry) -> R) -> Option<R> {
        loop {
            let shared = self.transactions.get(id).map(|shared| shared.clone())?;
            let mut entry = shared.lock();
            // Entries leave the map before their lock is released, so this does not go round for long.
            if !entry.gone {
                return Some(act(&shared, &mut entry));
            }
        }
    }

    /// Puts a new id there and queues it for the store; `None` if it is known since.
    fn create(&self, id: &str, transaction: Transaction) -> Result<Option<Stored>, TxnError> {
        if self.transactions.len() >= TRANSACTIONAL_IDS_MAX {
            tracing::warn!(
                transactional_id = id,
                TRANSACTIONAL_IDS_MAX,
                "refused a new transactional id: there are as many as there may be"
            );
            return Err(TxnError::CoordinatorNotAvailable);
        }
        let id: Arc<str> = Arc::from(id);
        let shared = Arc::new(Mutex::new(Entry::new(id.clone(), transaction)));
        // Locked before it can be found, so that its first change is queued before any other.
        let entry = shared.lock();
        match self.transactions.entry(id) {
            Place::Occupied(_) => Ok(None),
            Place::Vacant(place) => {
                drop(place.insert(shared.clone()));
                Ok(Some(self.store(&entry)))
            }
        }
    }

    /// Queues the id as it is now.
    fn store(&self, entry: &Entry) -> Stored {
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::Transaction(&entry.id).encode(), stored::encode(&entry.transaction));
        self.broker.commit_meta(batch)
    }

    /// For an answer that changes nothing, but rests on what may still be on its way.
    fn behind_others(&self) -> Stored {
        self.broker.commit_meta(Batch::default())
    }

    /// Sets the deadline of a transaction that has begun.
    fn arm(&self, entry: &mut Entry) {
        let Some(deadline_ms) = entry.transaction.deadline_ms() else { return };
        let left_ms = deadline_ms.saturating_sub(self.clock.now_ms()).max(0);
        let deadline = self.clock.tick_ms().saturating_add(left_ms);
        entry.deadline = Some(deadline);
        self.schedule_at(entry, deadline);
    }

    /// Sees to it that [`Transactions::tick`] comes by then. An earlier visit that is due anyway schedules anew.
    fn schedule_at(&self, entry: &mut Entry, at: i64) {
        if !entry.gone {
            self.alarms.set(&mut entry.scheduled, at, &entry.id);
        }
    }
}

impl Entry {
    fn new(id: Arc<str>, transaction: Transaction) -> Entry {
        Entry { id, transaction, deadline: None, scheduled: None, gone: false }
    }
}

/// An id must be one, and fit a Kafka string.
fn check_id(id: &str) -> Result<(), TxnError> {
    let fits = !id.is_empty() && id.len() <= TRANSACTIONAL_ID_BYTES_MAX;
    if fits { Ok(()) } else { Err(TxnError::InvalidRequest) }
}

/// Waits for the store's answer to a change.
async fn durable(stored: Stored) -> Result<(), TxnError> {
    let outcome = stored.await.unwrap_or_else(|_| Err(StoreError::Unknown("the store has stopped".into())));
    outcome.map_err(|error| {
        tracing::warn!(%error, "could not store what a transaction changed");
        TxnError::CoordinatorNotAvailable
    })
}
