//! What members ask of their group: join, sync, heartbeat, leave.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Groups, check_group_id_of_members, durable};
use crate::group::GroupError;
use crate::group::classic::{JoinAnswer, JoinRefused, JoinRequest, Leaver, SyncAnswer, SyncRequest};

impl Groups {
    /// Answers when the generation that this join led to is complete, or at once if there is no need to wait.
    pub async fn join(self: &Arc<Self>, group_id: &str, request: JoinRequest) -> JoinAnswer {
        let member_id = request.member_id.clone();
        let refused = |error| JoinRefused { error, member_id };
        match self.begin_join(group_id, request) {
            Ok(answer) => answer.await.unwrap_or_else(|_| Err(refused(GroupError::CoordinatorNotAvailable))),
            Err(error) => Err(refused(error)),
        }
    }

    fn begin_join(
        self: &Arc<Self>,
        group_id: &str,
        request: JoinRequest,
    ) -> Result<oneshot::Receiver<JoinAnswer>, GroupError> {
        check_group_id_of_members(group_id)?;
        let bounds = self.settings.min_session_timeout_ms..=self.settings.max_session_timeout_ms;
        if !bounds.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let fresh = self.clock.random_uuid();
        let is_known = !request.member_id.is_empty();
        let join = |shared: &_, entry: &mut super::Entry| {
            let (client, answer) = oneshot::channel();
            let waiter = entry.next_waiter();
            entry.joins.insert(waiter, client);
            self.step(shared, entry, |group, step| group.join(step, request, fresh, waiter));
            self.drop_if_blank(shared, entry);
            answer
        };
        // Whoever has a member id has it from a group that exists.
        if is_known {
            self.find(group_id, join).ok_or(GroupError::UnknownMemberId)
        } else {
            self.find_or_create(group_id, join)
        }
    }

    /// Answers when the leader's assignment is durable, or at once if there is no need to wait.
    pub async fn sync(self: &Arc<Self>, group_id: &str, request: SyncRequest) -> SyncAnswer {
        check_group_id_of_members(group_id)?;
        let answer = self.find(group_id, |shared, entry| {
            let (client, answer) = oneshot::channel();
            let waiter = entry.next_waiter();
            entry.syncs.insert(waiter, client);
            self.step(shared, entry, |group, step| group.sync(step, request, waiter));
            answer
        });
        let answer = answer.ok_or(GroupError::UnknownMemberId)?;
        answer.await.unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }

    pub fn heartbeat(
        self: &Arc<Self>,
        group_id: &str,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        check_group_id_of_members(group_id)?;
        let beat = self.find(group_id, |shared, entry| {
            let beat =
                self.step(shared, entry, |group, step| group.heartbeat(step, member_id, group_instance_id, generation));
            beat.0
        });
        beat.unwrap_or(Err(GroupError::UnknownMemberId))
    }

    /// One answer for each of `leavers`, in their order.
    pub async fn leave(
        self: &Arc<Self>,
        group_id: &str,
        leavers: &[Leaver],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id_of_members(group_id)?;
        let left = self.find(group_id, |shared, entry| {
            let left = self.step(shared, entry, |group, step| group.leave(step, leavers));
            self.drop_if_blank(shared, entry);
            left
        });
        let Some((answers, stored)) = left else {
            return Ok(vec![Err(GroupError::UnknownMemberId); leavers.len()]);
        };
        if let Some(stored) = stored {
            // They have left even if that could not be stored: after a restart their sessions would end.
            let _ = durable(stored).await;
        }
        answers
    }
}
