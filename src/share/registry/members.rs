//! Heartbeats, leaving, and sessions that end.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Alarm, Group, GroupState, Shares};
use crate::broker::durable;
use crate::clock::fired;
use crate::log::writer::Outcome;
use crate::share::membership::{Beat, Heartbeat, JOIN_EPOCH, Rules, Topics};
use crate::share::{ShareError, stored};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

impl Shares {
    /// A member joins or goes on. A group comes into being with its first member.
    pub async fn heartbeat(self: &Arc<Self>, group_id: &str, beat: Heartbeat) -> Result<Beat, ShareError> {
        let group = if beat.epoch == JOIN_EPOCH {
            self.find_or_create(group_id)?
        } else {
            self.find(group_id).ok_or(ShareError::GroupIdNotFound)?
        };
        let settings = self.settings_of(group_id);
        let rules = Rules { session_timeout_ms: settings.session_timeout_ms, members_max: settings.members_max };
        let (beat, stored) = {
            let mut state = group.state.lock();
            state.check_open()?;
            let topics = self.topics(&state.membership.names(&beat));
            let (beat, changed) = state.membership.beat(beat, topics, rules, self.clock.tick_ms())?;
            self.schedule_group(&group, &mut state);
            (beat, changed.then(|| self.put_group(&group, &state)))
        };
        if let Some(stored) = stored {
            durable(stored).await.map_err(|_| ShareError::CoordinatorNotAvailable)?;
        }
        Ok(beat)
    }

    /// A member goes. What it holds goes back to others with the end of its share session, as with Kafka: what it says
    /// last of its records may come on another connection, behind this.
    pub async fn leave(self: &Arc<Self>, group_id: &str, member_id: &str) -> Result<(), ShareError> {
        let group = self.find(group_id).ok_or(ShareError::GroupIdNotFound)?;
        let stored = {
            let mut state = group.state.lock();
            state.check_open()?;
            state.membership.leave(member_id)?;
            self.put_group(&group, &state)
        };
        durable(stored).await.map_err(|_| ShareError::CoordinatorNotAvailable)
    }

    /// What they hold stays locked until that runs out, as with Kafka: that delivery counts, for it may be the reason.
    pub(super) fn expire_members(self: &Arc<Self>, group: &Arc<Group>, at: i64) {
        let mut state = group.state.lock();
        fired(&mut state.scheduled, at);
        let gone = state.membership.expire(self.clock.tick_ms());
        if gone > 0 && !state.deleting {
            tracing::info!(group_id = &*group.id, members = gone, "members of a share group were not heard of");
            // Nobody waits for it: what is lost with a crash is found out again.
            drop(self.put_group(group, &state));
        }
        self.schedule_group(group, &mut state);
    }

    /// Sees to it that [`Shares::tick`] comes in time. A deadline that has moved to later is left: the tick that comes too
    /// early schedules it anew, so a heartbeat costs nothing here.
    pub(super) fn schedule_group(&self, group: &Arc<Group>, state: &mut GroupState) {
        let Some(at) = state.membership.next_deadline() else { return };
        if !state.gone {
            self.alarms.set(&mut state.scheduled, at, &Alarm::Group(group.id.clone()));
        }
    }

    pub(super) fn put_group(&self, group: &Group, state: &GroupState) -> oneshot::Receiver<Outcome> {
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::ShareGroup(&group.id).encode(), stored::encode_group(&state.membership));
        self.broker.commit_meta(batch)
    }

    fn topics(&self, names: &BTreeSet<String>) -> Topics {
        let found = names.iter().filter_map(|name| {
            let stream = self.broker.stream(name)?;
            Some((name.clone(), (stream.topic_id, stream.partition_count())))
        });
        found.collect()
    }
}
