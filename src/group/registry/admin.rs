//! What administrators ask: listing, describing and deleting groups. And the expiry of offsets, which deletes groups that
//! nobody uses any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::committed::put_changes;
use super::{Entry, Groups, Shared, Stored, durable};
use crate::group::classic::{Description, State};
use crate::group::{GroupError, GroupType};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// A group in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub group_id: String,
    /// Empty if the group never had members.
    pub protocol_type: String,
    /// As Kafka names it.
    pub state: &'static str,
    pub group_type: GroupType,
}

impl Groups {
    /// The groups of this module whose state and type are among those named, in any case of letters; no names mean all.
    pub fn list(&self, states: &[String], types: &[String]) -> Vec<Listed> {
        let among = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|asked| asked.eq_ignore_ascii_case(name))
        };
        let listed = |shared: Shared| {
            let entry = shared.lock();
            let state = entry.group.state_name().filter(|_| !entry.gone)?;
            let group_type = entry.group.group_type();
            (among(states, state) && among(types, group_type.name())).then(|| Listed {
                group_id: entry.id.to_string(),
                protocol_type: entry.group.protocol_type().to_owned(),
                state,
                group_type,
            })
        };
        self.all().into_iter().filter_map(listed).collect()
    }

    /// How many groups of each type and state there are, of those that are some.
    pub fn count(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        let mut counts = BTreeMap::new();
        for shared in self.all() {
            let entry = shared.lock();
            if let Some(state) = entry.group.state_name().filter(|_| !entry.gone) {
                *counts.entry((entry.group.group_type().name(), state)).or_default() += 1;
            }
        }
        counts
    }

    /// `None` if there is no such group, or if it is no classic one.
    pub fn describe(&self, group_id: &str) -> Option<Description> {
        let described = self.find(group_id, |_, entry| entry.group.describe())??;
        (described.state != State::Dead).then_some(described)
    }

    /// Deletes groups without members, with their offsets. One answer for each.
    pub async fn delete_groups(self: &Arc<Self>, group_ids: &[String]) -> Vec<Result<(), GroupError>> {
        let queue = |group_id: &String| {
            let queued = self.find(group_id, |shared, entry| {
                entry.group.begin_deletion()?;
                Ok(self.delete_group(shared, entry))
            });
            queued.unwrap_or(Err(GroupError::GroupIdNotFound))
        };
        let queued: Vec<Result<Stored, GroupError>> = group_ids.iter().map(queue).collect();
        let mut answers = Vec::with_capacity(queued.len());
        for deletion in queued {
            answers.push(match deletion {
                Ok(stored) => durable(stored).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Deletes the offsets whose retention has passed, and the groups that are left with nothing. Does not wait for the
    /// store: what fails is tried again the next time.
    pub fn expire_offsets(self: &Arc<Self>) {
        for shared in self.all() {
            let mut entry = shared.lock();
            if !entry.gone {
                self.expire_offsets_of(&shared, &mut entry);
            }
        }
    }

    fn expire_offsets_of(self: &Arc<Self>, shared: &Shared, entry: &mut Entry) {
        let Some(from) = entry.group.offset_expiry() else { return };
        let retention_ms = self.settings.offsets_retention_ms;
        let subscribed = |topic: &str| entry.group.is_subscribed_to(topic);
        let expired = entry.offsets.expired(self.clock.now_ms(), retention_ms, from, subscribed);
        if expired.all && entry.group.is_deserted() && entry.group.begin_deletion().is_ok() {
            tracing::info!(group_id = &*entry.id, "deleting a group that nobody uses any more");
            self.delete_group(shared, entry);
        } else if !expired.deletions.is_empty() {
            tracing::info!(group_id = &*entry.id, offsets = expired.deletions.len(), "deleting expired offsets");
            self.change_offsets(shared, entry, expired.deletions);
        }
    }

    /// Stores the deletion of a group that has begun it.
    fn delete_group(self: &Arc<Self>, shared: &Shared, entry: &mut Entry) -> Stored {
        let deletions = entry.offsets.delete_all();
        let mut batch = Batch::default();
        batch.delete(Family::Meta, Key::Group(&entry.id).encode());
        let in_flight = entry.offsets.begin(deletions);
        put_changes(&mut batch, &entry.id, &in_flight);
        self.commit(shared, batch, move |groups, shared, entry, durable| {
            entry.offsets.finish(in_flight, durable);
            entry.settled.notify_waiters();
            if durable {
                groups.drop_group(shared, entry);
            } else {
                entry.group.undo_deletion();
            }
        })
    }
}
