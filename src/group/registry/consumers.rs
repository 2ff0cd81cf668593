//! What members of the consumer protocol ask, what administrators ask of such groups, and the settings of single groups.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Entry, Groups, Stored, check_group_id_of_members, durable};
use crate::group::consumer::{ConsumerDescription, HeartbeatAnswer, HeartbeatRequest, JOIN};
use crate::group::stored::{self, StoredConsumerMember};
use crate::group::{ConsumerConfig, GroupError};
use crate::model::settings::group::{
    CONFIGURED_GROUPS_MAX, CONSUMER_HEARTBEAT_INTERVAL_MS, CONSUMER_SESSION_TIMEOUT_MS, own,
};
use crate::model::settings::{Overrides, SettingError};
use crate::store::keys::Key;
use crate::store::{Batch, Family, StoreError};

/// By group: id and state of each member.
pub(super) type StoredMembers = HashMap<String, Vec<(String, StoredConsumerMember)>>;

/// Why the settings of a group could not be altered.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Group(#[from] GroupError),
}

impl Groups {
    /// ConsumerGroupHeartbeat: answered when what it changed is durable, and what it tells.
    pub async fn heartbeat_consumer(
        self: &Arc<Self>,
        group_id: &str,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatAnswer, GroupError> {
        check_group_id_of_members(group_id)?;
        request.check()?;
        let joins = request.member_epoch == JOIN;
        let fresh = self.clock.random_uuid();
        let beat = |shared: &_, entry: &mut Entry| {
            let beat = self.step(shared, entry, |group, step| group.heartbeat_consumer(step, request, fresh));
            self.drop_if_blank(shared, entry);
            beat
        };
        let (answer, stored): (_, Option<Stored>) = if joins {
            self.find_or_create(group_id, beat)?
        } else {
            self.find(group_id, beat).ok_or(GroupError::GroupIdNotFound)?
        };
        let answer = answer?;
        if let Some(stored) = stored {
            durable(stored).await?;
        }
        Ok(answer)
    }

    /// `None` if there is no such group, or if it is no consumer group.
    pub fn describe_consumer(&self, group_id: &str) -> Option<ConsumerDescription> {
        self.find(group_id, |_, entry| entry.group.describe_consumer()).flatten()
    }

    /// Whether a client that says who it is (OffsetFetch 9 and later) may fetch the group's offsets.
    pub fn check_fetch(&self, group_id: &str, member_id: &str, member_epoch: i32) -> Result<(), GroupError> {
        let checked = self.find(group_id, |_, entry| entry.group.check_fetch(member_id, member_epoch));
        checked.unwrap_or(Ok(()))
    }

    /// What was set for a group.
    pub fn config(&self, group_id: &str) -> Overrides {
        self.configs.read().get(group_id).cloned().unwrap_or_default()
    }

    /// The groups for which something was set, by name.
    pub fn configured(&self) -> Vec<String> {
        self.configs.read().keys().cloned().collect()
    }

    /// Replaces what was set for a group by what `change` makes of it; returns when that is durable. It holds at once.
    pub async fn alter_config(
        self: &Arc<Self>,
        group_id: &str,
        change: impl FnOnce(&Overrides) -> Result<Overrides, SettingError>,
    ) -> Result<(), ConfigError> {
        check_group_id_of_members(group_id)?;
        let done = {
            let mut configs = self.configs.write();
            let held = configs.get(group_id).cloned().unwrap_or_default();
            let altered = change(&held)?;
            if !configs.contains_key(group_id) && configs.len() >= CONFIGURED_GROUPS_MAX {
                return Err(SettingError::TooManyCustom { max: CONFIGURED_GROUPS_MAX }.into());
            }
            let (mut batch, key) = (Batch::default(), Key::GroupSettings(group_id).encode());
            if altered.is_empty() {
                configs.remove(group_id);
                batch.delete(Family::Meta, key);
            } else {
                batch.put(Family::Meta, key, stored::encode_settings(&altered));
                configs.insert(group_id.to_owned(), altered);
            }
            // Queued under the lock, so that the last to alter is the last to be stored.
            self.meta.commit_meta(batch)
        };
        match done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(GroupError::CoordinatorNotAvailable.into()),
        }
    }

    /// What holds for a group: its own settings, else the broker's.
    pub(super) fn consumer_config(&self, group_id: &str) -> ConsumerConfig {
        let defaults = self.settings.consumer;
        let configs = self.configs.read();
        let Some(overrides) = configs.get(group_id) else { return defaults };
        let number = |name, default| own(overrides, name).unwrap_or(default);
        ConsumerConfig {
            session_timeout_ms: number(CONSUMER_SESSION_TIMEOUT_MS, defaults.session_timeout_ms),
            heartbeat_interval_ms: number(CONSUMER_HEARTBEAT_INTERVAL_MS, defaults.heartbeat_interval_ms),
        }
    }

    pub(super) fn load_configs(&self) -> Result<(), StoreError> {
        for (key, value) in self.meta.scan_meta(&stored::group_settings_prefix())? {
            let group_id = stored::parse_group_key(&key)?;
            let settings = stored::decode_settings(group_id, &value)?;
            self.configs.write().insert(group_id.to_owned(), settings);
        }
        Ok(())
    }

    /// Members of groups that are none of the consumer protocol any more: what a write that failed left behind.
    pub(super) fn delete_orphans(&self, members: &StoredMembers) {
        let mut batch = Batch::default();
        for (group, members) in members {
            for (member, _) in members {
                batch.delete(Family::Meta, Key::GroupMember { group, member }.encode());
            }
        }
        if !batch.is_empty() {
            // Should this fail as well, the next start finds them again.
            drop(self.meta.commit_meta(batch));
        }
    }

    /// The members of all consumer groups, by group.
    pub(super) fn stored_members(&self) -> Result<StoredMembers, StoreError> {
        let mut members = StoredMembers::new();
        for (key, value) in self.meta.scan_meta(&stored::group_member_prefix())? {
            let (group_id, member_id) = stored::parse_group_member_key(&key)?;
            let member = StoredConsumerMember::decode(group_id, &value)?;
            members.entry(group_id.to_owned()).or_default().push((member_id.to_owned(), member));
        }
        Ok(members)
    }
}
