//! What administrators ask: listing and describing groups, where they stand, moving that, and deletion.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Alarm, Group, GroupState, Share, Shares};
use crate::broker::durable;
use crate::group::GroupType;
use crate::log::writer::Outcome;
use crate::model::ids::{Offset, PartitionId, StreamId};
use crate::share::ShareError;
use crate::share::membership::{Member, State};
use crate::share::partition::SharePartition;
use crate::store::keys::Key;
use crate::store::{Batch, Family};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub group_id: String,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub state: State,
    pub epoch: i32,
    pub members: BTreeMap<String, Member>,
}

/// Where a group stands in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartOffset {
    pub id: PartitionId,
    /// The first record that is not processed.
    pub offset: Offset,
}

impl Shares {
    /// By group id.
    pub fn list(&self) -> Vec<Listed> {
        let listed = |group: Arc<Group>| {
            let state = group.state.lock();
            (!state.gone).then(|| Listed { group_id: group.id.to_string(), state: state.membership.state() })
        };
        self.all().into_iter().filter_map(listed).collect()
    }

    pub fn describe(&self, group_id: &str) -> Option<Description> {
        let group = self.find(group_id)?;
        let state = group.state.lock();
        let (epoch, members) = (state.membership.epoch(), state.membership.members().clone());
        (!state.gone).then(|| Description { state: state.membership.state(), epoch, members })
    }

    /// Where the group stands in every partition that it has begun with; `None` if there is no such group.
    pub fn start_offsets(&self, group_id: &str) -> Option<Vec<StartOffset>> {
        let group = self.find(group_id)?;
        let state = group.state.lock();
        let of = |share: &Arc<Share>| StartOffset { id: share.id, offset: share.state.lock().partition.start() };
        (!state.gone).then(|| state.shares.values().map(of).collect())
    }

    /// Calls `visit` with group, partition and a function from the log's end to the records that wait and those that
    /// members hold, for `/metrics`.
    pub fn visit_backlogs(&self, mut visit: impl FnMut(&str, PartitionId, &dyn Fn(Offset) -> (i64, i64))) {
        for group in self.all() {
            let shares: Vec<_> = group.state.lock().shares.values().cloned().collect();
            for share in shares {
                visit(&group.id, share.id, &|end| {
                    let state = share.state.lock();
                    (state.partition.backlog(end), state.partition.acquired())
                });
            }
        }
    }

    /// Puts a group without members elsewhere; it comes into being if need be. What it held is forgotten.
    pub async fn set_start_offsets(self: &Arc<Self>, group_id: &str, starts: &[StartOffset]) -> Result<(), ShareError> {
        let group = self.find_or_create(group_id)?;
        let (stored, waits) = {
            let mut state = group.state.lock();
            state.check_unused()?;
            let stored = self.put_group(&group, &state);
            let waits: Vec<_> = starts.iter().map(|start| self.set_start(&group, &mut state, *start)).collect();
            (stored, waits)
        };
        durable(stored).await.map_err(|_| ShareError::CoordinatorNotAvailable)?;
        for (share, version) in waits {
            share.stored(version).await?;
        }
        Ok(())
    }

    fn set_start(self: &Arc<Self>, group: &Group, state: &mut GroupState, to: StartOffset) -> (Arc<Share>, u64) {
        let partition = SharePartition::new(to.offset);
        let make = || Arc::new(Share::new(group.id.clone(), to.id, self.metrics_of(&group.id), partition.clone()));
        let share = state.shares.entry(to.id).or_insert_with(make).clone();
        let version = self.replace(&share, partition);
        (share, version)
    }

    /// Has a group without members forget streams; it begins anew with them when it comes back.
    pub async fn forget_offsets(self: &Arc<Self>, group_id: &str, streams: &[StreamId]) -> Result<(), ShareError> {
        let group = self.find(group_id).ok_or(ShareError::GroupIdNotFound)?;
        let stored = {
            let mut state = group.state.lock();
            state.check_unused()?;
            self.forget(&group, &mut state, |id| streams.contains(&id.stream))
        };
        durable(stored).await.map_err(|_| ShareError::CoordinatorNotAvailable)
    }

    /// Has every group forget streams that were deleted. For when one is, and once at the start in case the broker stopped
    /// between the two.
    pub async fn forget_deleted_streams(self: &Arc<Self>) -> Result<(), ShareError> {
        let mut queued = Vec::new();
        for group in self.all() {
            let mut state = group.state.lock();
            // Looked up under the lock: what a group has begun with is younger than its stream.
            let streams = self.broker.streams_in_any_state();
            let live: HashSet<StreamId> = streams.iter().map(|stream| stream.id).collect();
            if !state.deleting && state.shares.keys().any(|id| !live.contains(&id.stream)) {
                queued.push(self.forget(&group, &mut state, |id| !live.contains(&id.stream)));
            }
        }
        let mut all = Ok(());
        for stored in queued {
            all = all.and(durable(stored).await.map_err(|_| ShareError::CoordinatorNotAvailable));
        }
        all
    }

    fn forget(
        &self,
        group: &Group,
        state: &mut GroupState,
        which: impl Fn(PartitionId) -> bool,
    ) -> oneshot::Receiver<Outcome> {
        let gone: Vec<PartitionId> = state.shares.keys().copied().filter(|id| which(*id)).collect();
        let mut batch = Batch::default();
        for id in gone {
            batch.delete(Family::Meta, Key::SharePartition { group: &group.id, partition: id }.encode());
            if let Some(share) = state.shares.remove(&id) {
                self.close(&share);
            }
        }
        self.broker.commit_meta(batch)
    }

    /// Deletes a group without members, with what it has processed.
    pub async fn delete_group(self: &Arc<Self>, group_id: &str) -> Result<(), ShareError> {
        let group = self.find(group_id).ok_or(ShareError::GroupIdNotFound)?;
        let (forgotten, stored) = {
            let mut state = group.state.lock();
            state.check_unused()?;
            state.deleting = true;
            let forgotten = self.forget(&group, &mut state, |_| true);
            let mut batch = Batch::default();
            batch.delete(Family::Meta, Key::ShareGroup(&group.id).encode());
            (forgotten, self.broker.commit_meta(batch))
        };
        let shares = self.clone();
        let finished = tokio::spawn(async move {
            let deleted = durable(forgotten).await.is_ok() && durable(stored).await.is_ok();
            shares.finish_deletion(&group, deleted);
            deleted
        });
        if finished.await.unwrap_or(false) { Ok(()) } else { Err(ShareError::CoordinatorNotAvailable) }
    }

    /// A deletion that could not be stored leaves a group that has begun with nothing.
    fn finish_deletion(&self, group: &Arc<Group>, deleted: bool) {
        let mut state = group.state.lock();
        state.deleting = false;
        if !deleted {
            return;
        }
        state.gone = true;
        self.alarms.clear(&mut state.scheduled, &Alarm::Group(group.id.clone()));
        self.names.release(&group.id, GroupType::Share);
        self.broker.metrics().forget_share_group(&group.id);
        self.groups.remove_if(&group.id, |_, listed| Arc::ptr_eq(listed, group));
    }
}

impl GroupState {
    fn check_unused(&self) -> Result<(), ShareError> {
        self.check_open()?;
        if self.membership.members().is_empty() { Ok(()) } else { Err(ShareError::NonEmptyGroup) }
    }
}
