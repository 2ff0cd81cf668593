//! All share groups of the broker: finds them, runs their state machines, fires their timers, and takes what they write
//! to the store and back.
//!
//! Rooms: `members` (heartbeats, sessions that end), `share` (one share partition: its lock, its waiting readers, its way
//! to the store), `delivery` (records out, acknowledgements in), `admin` (listing, describing, start offsets, deletion).
//!
//! Invariants:
//! - Locks are taken in the order group, share partition, timers or map; nobody holds the map while locking a group.
//! - What was queued for the store is finished by a task of its own, so that it does not matter whether the client that
//!   asked for it is still there.

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::membership::Membership;
use super::partition::SharePartition;
use super::stored;
use super::{ShareError, ShareSettings};
use crate::broker::Broker;
use crate::clock::{Alarms, Clock};
use crate::group::{GroupType, Groups};
use crate::metrics::ShareGroupMetrics;
use crate::model::ids::PartitionId;
use crate::model::settings::group::{
    SHARE_AUTO_OFFSET_RESET, SHARE_DELIVERY_COUNT_LIMIT, SHARE_HEARTBEAT_INTERVAL_MS, SHARE_ISOLATION_LEVEL,
    SHARE_PARTITION_MAX_RECORD_LOCKS, SHARE_RECORD_LOCK_DURATION_MS, SHARE_RENEW_ACKNOWLEDGE_ENABLE,
    SHARE_SESSION_TIMEOUT_MS, own,
};
use crate::store::StoreError;

mod admin;
mod delivery;
mod members;
mod share;
#[cfg(test)]
mod tests;

pub use admin::{Description, Listed, StartOffset};
pub use delivery::{Delivery, Want};
pub use share::Share;

/// The coordinator of every share group. Its methods run on a tokio runtime.
pub struct Shares {
    broker: Arc<Broker>,
    /// Whose name space group ids are of.
    names: Arc<Groups>,
    clock: Clock,
    settings: ShareSettings,
    groups: DashMap<Arc<str>, Arc<Group>>,
    /// When each group and share partition wants [`Shares::tick`] to look at it.
    alarms: Alarms<Alarm>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// Sessions of members.
    Group(Arc<str>),
    /// Locks of records.
    Share(Arc<str>, PartitionId),
}

struct Group {
    id: Arc<str>,
    state: Mutex<GroupState>,
}

#[derive(Default)]
struct GroupState {
    membership: Membership,
    shares: BTreeMap<PartitionId, Arc<Share>>,
    /// The group's entry in `alarms`.
    scheduled: Option<i64>,
    /// Its deletion is on its way to the store: nothing may change any more.
    deleting: bool,
    /// About to leave the map: whoever comes has to look again.
    gone: bool,
}

impl Shares {
    /// Loads what is stored. Members go on in the epoch they were in; their sessions begin now.
    pub fn open(broker: Arc<Broker>, names: Arc<Groups>, settings: ShareSettings) -> Result<Arc<Shares>, StoreError> {
        let clock = broker.clock().clone();
        let shares =
            Arc::new(Shares { broker, names, clock, settings, groups: DashMap::new(), alarms: Alarms::default() });
        shares.load()?;
        Ok(shares)
    }

    fn load(&self) -> Result<(), StoreError> {
        let deadline_ms = self.clock.tick_ms().saturating_add(self.settings.session_timeout_ms);
        for (key, value) in self.broker.scan_meta(&stored::group_prefix())? {
            let group_id = stored::parse_group_key(&key)?;
            let membership = stored::decode_group(group_id, &value, deadline_ms)?;
            let claimed = self.names.claim(group_id, GroupType::Share);
            claimed.map_err(|error| StoreError::Corrupt(format!("share group {group_id}: {error}")))?;
            let group = self.insert(group_id);
            let mut state = group.state.lock();
            state.membership = membership;
            self.schedule_group(&group, &mut state);
        }
        for (key, value) in self.broker.scan_meta(&stored::partition_prefix())? {
            let (group_id, id) = stored::parse_partition_key(&key)?;
            let partition = SharePartition::decode(&value)
                .ok_or_else(|| StoreError::Corrupt(format!("what share group {group_id} has processed")))?;
            // One that never had a member is not stored.
            let group = self.find_or_create(group_id);
            let group = group.map_err(|error| StoreError::Corrupt(format!("share group {group_id}: {error}")))?;
            let share = Arc::new(Share::new(group.id.clone(), id, self.metrics_of(&group.id), partition));
            group.state.lock().shares.insert(id, share);
        }
        Ok(())
    }

    fn metrics_of(&self, group_id: &str) -> Arc<ShareGroupMetrics> {
        self.broker.metrics().share_group(group_id)
    }

    /// The broker's.
    pub fn settings(&self) -> &ShareSettings {
        &self.settings
    }

    /// The settings of a group: the broker's, unless it has its own.
    pub fn settings_of(&self, group_id: &str) -> ShareSettings {
        let overrides = self.names.config(group_id);
        let number = |name, default| own(&overrides, name).unwrap_or(default);
        let settings = self.settings;
        ShareSettings {
            session_timeout_ms: number(SHARE_SESSION_TIMEOUT_MS, settings.session_timeout_ms),
            heartbeat_interval_ms: number(SHARE_HEARTBEAT_INTERVAL_MS, settings.heartbeat_interval_ms),
            lock_duration_ms: number(SHARE_RECORD_LOCK_DURATION_MS, settings.lock_duration_ms),
            deliveries_max: own(&overrides, SHARE_DELIVERY_COUNT_LIMIT).unwrap_or(settings.deliveries_max),
            locks_max: number(SHARE_PARTITION_MAX_RECORD_LOCKS, settings.locks_max),
            reset: own(&overrides, SHARE_AUTO_OFFSET_RESET).unwrap_or(settings.reset),
            read_committed: overrides
                .get(SHARE_ISOLATION_LEVEL)
                .map_or(settings.read_committed, |level| level == "read_committed"),
            renewal: own(&overrides, SHARE_RENEW_ACKNOWLEDGE_ENABLE).unwrap_or(settings.renewal),
            ..settings
        }
    }

    /// Fires timers until it is dropped.
    pub async fn run_timers(self: Arc<Self>) {
        loop {
            self.alarms.next(&self.clock, None).await;
            self.tick();
        }
    }

    /// Fires what is due now.
    pub fn tick(self: &Arc<Self>) {
        for (at, alarm) in self.alarms.take_due(self.clock.tick_ms()) {
            match alarm {
                Alarm::Group(group_id) => {
                    if let Some(group) = self.find(&group_id) {
                        self.expire_members(&group, at);
                    }
                }
                Alarm::Share(group_id, id) => {
                    if let Some(share) = self.share(&group_id, id) {
                        self.expire_locks(&share, at);
                    }
                }
            }
        }
    }

    fn find(&self, group_id: &str) -> Option<Arc<Group>> {
        self.groups.get(group_id).map(|group| group.clone())
    }

    /// The group, which comes into being if its id is free.
    fn find_or_create(&self, group_id: &str) -> Result<Arc<Group>, ShareError> {
        loop {
            self.names.claim(group_id, GroupType::Share)?;
            let group = self.insert(group_id);
            // One that is gone leaves the map before its lock is released, so this does not go round for long.
            if !group.state.lock().gone {
                return Ok(group);
            }
        }
    }

    fn insert(&self, group_id: &str) -> Arc<Group> {
        let id: Arc<str> = Arc::from(group_id);
        let make = || Arc::new(Group { id: id.clone(), state: Mutex::new(GroupState::default()) });
        self.groups.entry(id.clone()).or_insert_with(make).clone()
    }

    /// Whether there is such a share group.
    pub fn holds(&self, group_id: &str) -> bool {
        self.groups.contains_key(group_id)
    }

    /// All groups by id, to be locked one by one.
    fn all(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.groups.iter().map(|entry| entry.value().clone()).collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        groups
    }
}

impl GroupState {
    fn check_open(&self) -> Result<(), ShareError> {
        if self.deleting || self.gone { Err(ShareError::CoordinatorNotAvailable) } else { Ok(()) }
    }
}
