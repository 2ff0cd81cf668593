//! All groups of the broker: finds them, runs their state machines, keeps the requests that wait, fires their timers,
//! and takes what they write to the store and back.
//!
//! Rooms: `members` (requests of a group's members), `consumers` (those of the consumer protocol, and settings of
//! groups), `committed` (offsets), `admin` (listing, describing, deleting, expiry), `claims` (ids of groups that other
//! modules keep), `transactional` (offsets that transactions commit). All of them work the same way: lock the group,
//! decide, queue what is to be stored, unlock; then await.
//!
//! Invariants:
//! - Locks are taken in the order group, then timers or map; nobody holds the map while locking a group. Several groups
//!   are locked by ascending id.
//! - What was queued for the store is finished by a task of its own, so that it does not matter whether the client that
//!   asked for it is still there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::classic::{Classic, Effect, JoinAnswer, Step, SyncAnswer, Waiter};
use super::consumer::{Changes, Consumer};
use super::kinds::Group;
use super::offsets::{CommittedOffset, Offsets, PendingOffset};
use super::stored::{self, StoredHead};
use super::{GROUP_ID_BYTES_MAX, GROUPS_MAX, GroupError, GroupSettings, MetaLog, Now};
use crate::clock::{Alarms, Clock, fired};
use crate::model::settings::Overrides;
use crate::store::keys::Key;
use crate::store::{Batch, Family, StoreError};

mod admin;
mod claims;
mod committed;
mod consumers;
mod members;
mod transactional;

#[cfg(test)]
mod tests;

pub use admin::Listed;
pub use committed::{CommitRequest, Fetched, OffsetToCommit, TopicOffsets, TopicPartitions};
pub use consumers::ConfigError;
pub use transactional::QueuedCommit;

/// The coordinator of every group. Its methods run on a tokio runtime.
pub struct Groups {
    meta: Arc<dyn MetaLog>,
    clock: Clock,
    settings: GroupSettings,
    groups: DashMap<Arc<str>, Shared>,
    /// What was set for single groups, whether they exist or not.
    configs: RwLock<BTreeMap<String, Overrides>>,
    /// When each group wants [`Groups::tick`] to look at it.
    alarms: Alarms<Arc<str>>,
}

type Shared = Arc<Mutex<Entry>>;

struct Entry {
    id: Arc<str>,
    group: Group,
    offsets: Offsets,
    joins: HashMap<Waiter, oneshot::Sender<JoinAnswer>>,
    syncs: HashMap<Waiter, oneshot::Sender<SyncAnswer>>,
    next_waiter: u64,
    /// Writes of a consumer group that are on their way.
    storing: usize,
    /// The group's entry in `alarms`.
    scheduled: Option<i64>,
    /// No longer in the map: whoever comes has to look again.
    gone: bool,
    /// Rung when changes of offsets have finished.
    settled: Arc<Notify>,
}

impl Entry {
    fn new(id: Arc<str>, now: Now) -> Entry {
        Entry {
            id,
            group: Group::new(now),
            offsets: Offsets::default(),
            joins: HashMap::new(),
            syncs: HashMap::new(),
            next_waiter: 0,
            storing: 0,
            scheduled: None,
            gone: false,
            settled: Arc::new(Notify::new()),
        }
    }

    fn next_waiter(&mut self) -> Waiter {
        self.next_waiter += 1;
        Waiter(self.next_waiter)
    }
}

/// The store's answer to what a step wrote: true once it is durable.
type Stored = JoinHandle<bool>;

impl Groups {
    /// Loads what is stored. Members go on in the generation they were in; their sessions begin now.
    pub fn open(meta: Arc<dyn MetaLog>, clock: Clock, settings: GroupSettings) -> Result<Arc<Groups>, StoreError> {
        let groups = Arc::new(Groups {
            meta,
            clock,
            settings,
            groups: DashMap::new(),
            configs: RwLock::new(BTreeMap::new()),
            alarms: Alarms::default(),
        });
        groups.load_configs()?;
        let mut members = groups.stored_members()?;
        for (key, value) in groups.meta.scan_meta(&stored::group_prefix())? {
            let group_id = stored::parse_group_key(&key)?;
            let head = StoredHead::decode(group_id, &value)?;
            let shared = groups.insert(group_id);
            groups.step(&shared, &mut shared.lock(), |group, step| {
                *group = match head {
                    StoredHead::Classic(head) => Group::Classic(Classic::load(step, head)),
                    StoredHead::Consumer(head) => {
                        let members = members.remove(group_id).unwrap_or_default();
                        Group::Consumer(Consumer::load(step, head, members))
                    }
                };
            });
        }
        groups.delete_orphans(&members);
        for (key, value) in groups.meta.scan_meta(&stored::committed_offset_prefix())? {
            let (group_id, topic, partition) = stored::parse_committed_offset_key(&key)?;
            let offset = CommittedOffset::decode(group_id, &value)?;
            // A group that only ever committed offsets has nothing else stored.
            groups.insert(group_id).lock().offsets.load(topic, partition, offset);
        }
        for (key, value) in groups.meta.scan_meta(&stored::pending_offset_prefix())? {
            let (group_id, key) = stored::parse_pending_offset_key(&key)?;
            let pending = PendingOffset::decode(group_id, &value)?;
            groups.insert(group_id).lock().offsets.load_pending(&key, pending);
        }
        Ok(groups)
    }

    /// Fires timers and expires offsets until it is dropped.
    pub async fn run_timers(self: Arc<Self>) {
        let interval_ms = self.settings.offsets_retention_check_interval_ms.max(1);
        let mut expiry_at = self.clock.tick_ms().saturating_add(interval_ms);
        loop {
            self.alarms.next(&self.clock, Some(expiry_at)).await;
            self.tick();
            if self.clock.tick_ms() >= expiry_at {
                self.expire_offsets();
                expiry_at = self.clock.tick_ms().saturating_add(interval_ms);
            }
        }
    }

    /// Fires what is due now.
    pub fn tick(self: &Arc<Self>) {
        for (at, group_id) in self.alarms.take_due(self.clock.tick_ms()) {
            self.find(&group_id, |shared, entry| {
                fired(&mut entry.scheduled, at);
                self.step(shared, entry, |group, step| group.fire(step));
                // Deadlines that were moved since have not been scheduled: see `schedule`.
                if let Some(next) = entry.group.next_deadline() {
                    self.schedule_at(entry, next);
                }
                self.drop_if_blank(shared, entry);
            });
        }
    }

    /// Runs `act` on the group, if there is one.
    fn find<R>(&self, group_id: &str, act: impl FnOnce(&Shared, &mut Entry) -> R) -> Option<R> {
        loop {
            let shared = self.groups.get(group_id).map(|shared| shared.clone())?;
            let mut entry = shared.lock();
            // Entries leave the map before their lock is released, so this does not go round for long.
            if !entry.gone {
                return Some(act(&shared, &mut entry));
            }
        }
    }

    /// Runs `act` on the group, and makes it if need be.
    fn find_or_create<R>(&self, group_id: &str, act: impl FnOnce(&Shared, &mut Entry) -> R) -> Result<R, GroupError> {
        loop {
            if !self.groups.contains_key(group_id) && self.groups.len() >= GROUPS_MAX {
                tracing::warn!(group_id, GROUPS_MAX, "refused a new group: there are as many as there may be");
                return Err(GroupError::CoordinatorNotAvailable);
            }
            let shared = self.insert(group_id);
            let mut entry = shared.lock();
            if !entry.gone {
                return Ok(act(&shared, &mut entry));
            }
        }
    }

    fn insert(&self, group_id: &str) -> Shared {
        let id: Arc<str> = Arc::from(group_id);
        let make = || Arc::new(Mutex::new(Entry::new(id.clone(), self.now())));
        self.groups.entry(id.clone()).or_insert_with(make).clone()
    }

    /// All groups, to be locked one by one.
    fn all(&self) -> Vec<Shared> {
        self.groups.iter().map(|entry| entry.value().clone()).collect()
    }

    fn now(&self) -> Now {
        Now { tick_ms: self.clock.tick_ms(), wall_ms: self.clock.now_ms() }
    }

    /// Lets the state machine decide, and does what it says. The last write, if there was one, can be waited for.
    fn step<R>(
        self: &Arc<Self>,
        shared: &Shared,
        entry: &mut Entry,
        act: impl FnOnce(&mut Group, &mut Step) -> R,
    ) -> (R, Option<Stored>) {
        let mut effects = Vec::new();
        let config = self.consumer_config(&entry.id);
        let mut step =
            Step { now: self.now(), settings: &self.settings, config, topics: &*self.meta, effects: &mut effects };
        let result = act(&mut entry.group, &mut step);
        // What is told now may rest on a write that is still on its way: then it is told after that.
        if entry.storing > 0 && matches!(entry.group, Group::Consumer(_)) {
            effects.insert(0, Effect::Store(Box::default()));
        }
        let stored = self.perform_all(shared, entry, effects);
        self.schedule(entry);
        (result, stored)
    }

    fn perform_all(self: &Arc<Self>, shared: &Shared, entry: &mut Entry, effects: Vec<Effect>) -> Option<Stored> {
        // One write for all that changed, so that none of it overtakes what happens to the group meanwhile.
        let mut changes: Option<Changes> = None;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Store(more) => changes.get_or_insert_default().extend(*more),
                effect if changes.is_some() => after.push(effect),
                effect => before.push(effect),
            }
        }
        let mut stored = None;
        for effect in before {
            stored = self.perform(shared, entry, effect).or(stored);
        }
        match changes {
            Some(changes) => Some(self.store(shared, entry, changes, after)),
            None => stored,
        }
    }

    /// Stores what changed in a group, and does the rest when that is durable.
    fn store(self: &Arc<Self>, shared: &Shared, entry: &mut Entry, changes: Changes, rest: Vec<Effect>) -> Stored {
        let mut batch = Batch::default();
        if let Some(head) = &changes.head {
            batch.put(Family::Meta, Key::Group(&entry.id).encode(), head.encode());
        }
        for (member, stored) in &changes.members {
            let key = Key::GroupMember { group: &entry.id, member }.encode();
            match stored {
                Some(stored) => batch.put(Family::Meta, key, stored.encode()),
                None => batch.delete(Family::Meta, key),
            }
        }
        entry.storing += 1;
        self.commit(shared, batch, move |groups, shared, entry, durable| {
            entry.storing -= 1;
            if !durable {
                entry.group.not_stored(changes);
            }
            let rest = rest.into_iter().map(|effect| if durable { effect } else { effect.failed() }).collect();
            groups.perform_all(shared, entry, rest);
        })
    }

    fn perform(self: &Arc<Self>, shared: &Shared, entry: &mut Entry, effect: Effect) -> Option<Stored> {
        match effect {
            // A client that went away has dropped its end, and misses nothing by not hearing this.
            Effect::AnswerJoin(waiter, answer) => {
                if let Some(client) = entry.joins.remove(&waiter) {
                    let _ = client.send(answer);
                }
                None
            }
            Effect::AnswerSync(waiter, answer) => {
                if let Some(client) = entry.syncs.remove(&waiter) {
                    let _ = client.send(answer);
                }
                None
            }
            Effect::Store(changes) => Some(self.store(shared, entry, *changes, Vec::new())),
            Effect::Persist(group, persisting) => {
                let mut batch = Batch::default();
                batch.put(Family::Meta, Key::Group(&entry.id).encode(), group.encode());
                Some(self.commit(shared, batch, move |groups, shared, entry, durable| {
                    groups.step(shared, entry, |group, step| group.persisted(step, persisting, durable));
                }))
            }
        }
    }

    /// Queues `batch` for the store, and calls `finish` under the group's lock when the store has answered.
    fn commit(
        self: &Arc<Self>,
        shared: &Shared,
        batch: Batch,
        finish: impl FnOnce(&Arc<Groups>, &Shared, &mut Entry, bool) + Send + 'static,
    ) -> Stored {
        let answer = self.meta.commit_meta(batch);
        let (groups, shared) = (self.clone(), shared.clone());
        tokio::spawn(async move {
            let outcome = answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the store has stopped".into())));
            let mut entry = shared.lock();
            if let Err(error) = &outcome {
                tracing::warn!(group_id = &*entry.id, %error, "could not store what a group changed");
            }
            finish(&groups, &shared, &mut entry, outcome.is_ok());
            outcome.is_ok()
        })
    }

    /// Sees to it that [`Groups::tick`] comes in time for deadlines that were set. One that has moved to later is left: the
    /// tick that comes too early schedules it anew. So a heartbeat costs nothing here.
    fn schedule(&self, entry: &mut Entry) {
        if let Some(at) = entry.group.take_armed() {
            self.schedule_at(entry, at);
        }
    }

    fn schedule_at(&self, entry: &mut Entry, at: i64) {
        if !entry.gone {
            self.alarms.set(&mut entry.scheduled, at, &entry.id);
        }
    }

    /// Forgets a group that never came to anything, so that asking for groups does not fill the memory.
    fn drop_if_blank(&self, shared: &Shared, entry: &mut Entry) {
        if entry.group.is_blank() && entry.offsets.is_empty() {
            self.drop_group(shared, entry);
        }
    }

    fn drop_group(&self, shared: &Shared, entry: &mut Entry) {
        entry.gone = true;
        self.alarms.clear(&mut entry.scheduled, &entry.id);
        self.groups.remove_if(&entry.id, |_, listed| Arc::ptr_eq(listed, shared));
    }
}

/// Kafka takes any group id; here it must fit a key (no NUL) and a Kafka string. Members cannot use the empty one.
fn check_group_id(group_id: &str) -> Result<(), GroupError> {
    let storable = group_id.len() <= GROUP_ID_BYTES_MAX && !group_id.contains('\0');
    if storable { Ok(()) } else { Err(GroupError::InvalidGroupId) }
}

fn check_group_id_of_members(group_id: &str) -> Result<(), GroupError> {
    if group_id.is_empty() { Err(GroupError::InvalidGroupId) } else { check_group_id(group_id) }
}

/// Waits for the store's answer to a write.
async fn durable(stored: Stored) -> Result<(), GroupError> {
    match stored.await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(GroupError::CoordinatorNotAvailable),
    }
}
