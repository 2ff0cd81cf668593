//! What a group id stands for: one name space for groups of every kind. Owned and called by the registry, which knows
//! groups only through [`Group`]; each kind's own machine lies in a room of its own.
//!
//! A group id is free until a member joins, an offset is committed, or another module [claims](super::Groups::claim) it.
//! One that came to nothing is a classic group that [is blank](Group::is_blank), and leaves by itself.

use super::classic::{
    Classic, Description, JoinRequest, Leaver, Persisting, State, Step, SyncAnswer, SyncRequest, Waiter,
};
use super::offsets::ExpireFrom;
use super::{GroupError, Now};
use uuid::Uuid;

/// The type of a group, as Kafka's tools name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupType {
    Classic,
    /// Kept by another module; here only the id is.
    Share,
}

impl GroupType {
    pub fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Share => "share",
        }
    }

    /// Every type of this module's groups with every state that one can be seen in, for metrics that also say 0.
    pub fn states() -> impl Iterator<Item = (&'static str, &'static str)> {
        let seen = State::ALL.into_iter().filter(|state| *state != State::Dead);
        seen.map(|state| (GroupType::Classic.name(), state.name()))
    }
}

#[derive(Debug)]
pub(super) enum Group {
    Classic(Classic),
    /// The id is taken by a group that another module keeps.
    Claimed(GroupType),
}

impl Group {
    /// A group that nothing is known of yet.
    pub fn new(now: Now) -> Group {
        Group::Classic(Classic::new(now))
    }

    /// The state's name, if there is a group here that this module keeps and that is not being deleted.
    pub fn state_name(&self) -> Option<&'static str> {
        match self {
            Group::Classic(group) if group.state() == State::Dead => None,
            Group::Classic(group) => Some(group.state().name()),
            Group::Claimed(_) => None,
        }
    }

    pub fn group_type(&self) -> GroupType {
        match self {
            Group::Classic(_) => GroupType::Classic,
            Group::Claimed(group_type) => *group_type,
        }
    }

    /// Empty if the group never had members.
    pub fn protocol_type(&self) -> &str {
        match self {
            Group::Classic(group) => group.protocol_type(),
            Group::Claimed(_) => "",
        }
    }

    /// As DescribeGroups shows it; `None` for what is no classic group.
    pub fn describe(&self) -> Option<Description> {
        match self {
            Group::Classic(group) => Some(group.describe()),
            Group::Claimed(_) => None,
        }
    }

    /// Nothing is worth keeping. (Offsets are the registry's to ask.)
    pub fn is_blank(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_blank(),
            Group::Claimed(_) => false,
        }
    }

    /// True if the group may be deleted without disturbing anyone.
    pub fn is_deserted(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_deserted(),
            Group::Claimed(_) => false,
        }
    }

    /// Takes a group without members out of service while its deletion is stored.
    pub fn begin_deletion(&mut self) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.begin_deletion(),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// The deletion could not be stored.
    pub fn undo_deletion(&mut self) {
        match self {
            Group::Classic(group) => group.undo_deletion(),
            Group::Claimed(_) => {}
        }
    }

    pub fn join(&mut self, step: &mut Step, request: JoinRequest, fresh: Uuid, waiter: Waiter) {
        match self {
            Group::Classic(group) => group.join(step, request, fresh, waiter),
            Group::Claimed(_) => {
                step.refuse_join(waiter, GroupError::InconsistentGroupProtocol, &request.member_id);
            }
        }
    }

    pub fn sync(&mut self, step: &mut Step, request: SyncRequest, waiter: Waiter) {
        let refused: SyncAnswer = match self {
            Group::Classic(group) => return group.sync(step, request, waiter),
            Group::Claimed(_) => Err(GroupError::UnknownMemberId),
        };
        step.answer_sync(waiter, refused);
    }

    pub fn heartbeat(
        &mut self,
        step: &mut Step,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.heartbeat(step, member_id, group_instance_id, generation),
            Group::Claimed(_) => Err(GroupError::UnknownMemberId),
        }
    }

    pub fn leave(&mut self, step: &mut Step, leavers: &[Leaver]) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        match self {
            Group::Classic(group) => group.leave(step, leavers),
            Group::Claimed(_) => Ok(vec![Err(GroupError::UnknownMemberId); leavers.len()]),
        }
    }

    /// Whether offsets may be committed in this name.
    pub fn check_commit(
        &mut self,
        step: &mut Step,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.check_commit(step, member_id, group_instance_id, generation),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Whether a transaction may commit offsets in this name.
    pub fn check_transactional_commit(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.check_transactional_commit(member_id, group_instance_id, generation),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Whether single offsets may be deleted.
    pub fn check_offset_deletion(&self) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.check_offset_deletion(),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Claimed(_) => false,
        }
    }

    /// From when the group's offsets count as unused; `None` while that cannot be said.
    pub fn offset_expiry(&self) -> Option<ExpireFrom> {
        match self {
            Group::Classic(group) => group.offset_expiry(),
            Group::Claimed(_) => None,
        }
    }

    /// The store's answer to an [`Effect::Persist`](super::classic::Effect::Persist). A group that has become another
    /// since has answered those who waited.
    pub fn persisted(&mut self, step: &mut Step, persisting: Persisting, durable: bool) {
        match self {
            Group::Classic(group) => group.persisted(step, persisting, durable),
            Group::Claimed(_) => {}
        }
    }

    pub fn fire(&mut self, step: &mut Step) {
        match self {
            Group::Classic(group) => group.fire(step),
            Group::Claimed(_) => {}
        }
    }

    pub fn next_deadline(&self) -> Option<i64> {
        match self {
            Group::Classic(group) => group.next_deadline(),
            Group::Claimed(_) => None,
        }
    }

    pub fn take_armed(&mut self) -> Option<i64> {
        match self {
            Group::Classic(group) => group.take_armed(),
            Group::Claimed(_) => None,
        }
    }
}
