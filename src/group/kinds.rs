//! What a group id stands for: one name space for groups of every kind. Owned and called by the registry, which knows
//! groups only through [`Group`]; each kind's own machine lies in a room of its own.
//!
//! A group id is free until a member joins, an offset is committed, or another module [claims](super::Groups::claim) it.
//! One that came to nothing is a classic group that [is blank](Group::is_blank), and leaves by itself.
//!
//! A group goes over from the classic to the consumer protocol (KIP-848) when a member of that joins: an empty one
//! always, one with members if they are consumers and the policy allows it. It goes back when a classic member joins an
//! empty one, and, if the policy allows it, when only classic members are left.

use uuid::Uuid;

use super::classic::{
    Classic, Description, Effect, JoinRequest, Leaver, Persisting, State, Step, SyncAnswer, SyncRequest, Waiter,
};
use super::consumer::{
    Changes, Consumer, ConsumerDescription, ConsumerState, HeartbeatAnswer, HeartbeatRequest, JOIN, LEAVE,
};
use super::offsets::ExpireFrom;
use super::stored::StoredHead;
use super::subscription::CONSUMER_PROTOCOL_TYPE;
use super::{GroupError, Now};

/// The type of a group, as Kafka's tools name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupType {
    Classic,
    Consumer,
    /// Kept by another module; here only the id is.
    Share,
}

impl GroupType {
    pub fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
            GroupType::Share => "share",
        }
    }

    /// Every type of this module's groups with every state that one can be seen in, for metrics that also say 0.
    pub fn states() -> impl Iterator<Item = (&'static str, &'static str)> {
        let seen = State::ALL.into_iter().filter(|state| *state != State::Dead);
        let classic = seen.map(|state| (GroupType::Classic.name(), state.name()));
        classic.chain(ConsumerState::SEEN.into_iter().map(|state| (GroupType::Consumer.name(), state.name())))
    }
}

#[derive(Debug)]
pub(super) enum Group {
    Classic(Classic),
    Consumer(Consumer),
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
            Group::Classic(group) => Some(group.state()).filter(|state| *state != State::Dead).map(State::name),
            Group::Consumer(group) => {
                Some(group.state()).filter(|state| *state != ConsumerState::Dead).map(ConsumerState::name)
            }
            Group::Claimed(_) => None,
        }
    }

    pub fn group_type(&self) -> GroupType {
        match self {
            Group::Classic(_) => GroupType::Classic,
            Group::Consumer(_) => GroupType::Consumer,
            Group::Claimed(group_type) => *group_type,
        }
    }

    /// Empty if the group never had members.
    pub fn protocol_type(&self) -> &str {
        match self {
            Group::Classic(group) => group.protocol_type(),
            Group::Consumer(_) => CONSUMER_PROTOCOL_TYPE,
            Group::Claimed(_) => "",
        }
    }

    /// As DescribeGroups shows it; `None` for what is no classic group.
    pub fn describe(&self) -> Option<Description> {
        match self {
            Group::Classic(group) => Some(group.describe()),
            Group::Consumer(_) | Group::Claimed(_) => None,
        }
    }

    /// As ConsumerGroupDescribe shows it; `None` for what is no consumer group.
    pub fn describe_consumer(&self) -> Option<ConsumerDescription> {
        match self {
            Group::Consumer(group) if group.state() != ConsumerState::Dead => Some(group.describe()),
            Group::Consumer(_) | Group::Classic(_) | Group::Claimed(_) => None,
        }
    }

    /// Nothing is worth keeping. (Offsets are the registry's to ask.)
    pub fn is_blank(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_blank(),
            Group::Consumer(_) | Group::Claimed(_) => false,
        }
    }

    /// True if the group may be deleted without disturbing anyone.
    pub fn is_deserted(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_deserted(),
            Group::Consumer(group) => group.is_empty(),
            Group::Claimed(_) => false,
        }
    }

    /// Takes a group without members out of service while its deletion is stored.
    pub fn begin_deletion(&mut self) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.begin_deletion(),
            Group::Consumer(group) => group.begin_deletion(),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// The deletion could not be stored.
    pub fn undo_deletion(&mut self) {
        match self {
            Group::Classic(group) => group.undo_deletion(),
            Group::Consumer(group) => group.undo_deletion(),
            Group::Claimed(_) => {}
        }
    }

    /// ConsumerGroupHeartbeat.
    pub fn heartbeat_consumer(
        &mut self,
        step: &mut Step,
        request: HeartbeatRequest,
        fresh: Uuid,
    ) -> Result<HeartbeatAnswer, GroupError> {
        match self {
            Group::Consumer(group) => {
                let leaves = request.member_epoch == LEAVE;
                let answer = group.heartbeat(step, request, fresh)?;
                if leaves {
                    self.maybe_downgrade(step);
                }
                Ok(answer)
            }
            Group::Classic(classic) if request.member_epoch == JOIN => {
                let mut group = upgraded(step, classic)?;
                let answer = group.heartbeat(step, request, fresh)?;
                classic.dissolve(step);
                *self = Group::Consumer(group);
                Ok(answer)
            }
            Group::Classic(_) | Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// A group of which only classic members are left goes back to them.
    fn maybe_downgrade(&mut self, step: &mut Step) {
        let Group::Consumer(group) = self else { return };
        if !step.settings.migration.downgrades() || !group.is_all_classic() {
            return;
        }
        let members = group.member_ids().map(|member_id| (member_id.clone(), None)).collect();
        let mut effects = Vec::new();
        let mut inner = Step { effects: &mut effects, ..*step };
        let classic = Classic::take_over(&mut inner, group.to_classic(step));
        let head = StoredHead::Classic(classic.stored(None));
        tracing::info!("a consumer group of which only classic members are left becomes a classic group");
        step.effects.push(Effect::Store(Box::new(Changes { head: Some(head), members })));
        step.effects.extend(effects);
        *self = Group::Classic(classic);
    }

    pub fn join(&mut self, step: &mut Step, request: JoinRequest, fresh: Uuid, waiter: Waiter) {
        if matches!(self, Group::Consumer(group) if group.state() == ConsumerState::Empty) {
            *self = Group::new(step.now);
        }
        match self {
            Group::Classic(group) => group.join(step, request, fresh, waiter),
            Group::Consumer(group) => {
                group.join(step, request, fresh, waiter);
                // It may have taken the place of the last static member of the other protocol.
                self.maybe_downgrade(step);
            }
            Group::Claimed(_) => step.refuse_join(waiter, GroupError::InconsistentGroupProtocol, &request.member_id),
        }
    }

    pub fn sync(&mut self, step: &mut Step, request: SyncRequest, waiter: Waiter) {
        let refused: SyncAnswer = match self {
            Group::Classic(group) => return group.sync(step, request, waiter),
            Group::Consumer(group) => return group.sync(step, request, waiter),
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
            Group::Consumer(group) => group.heartbeat_classic(step, member_id, group_instance_id, generation),
            Group::Claimed(_) => Err(GroupError::UnknownMemberId),
        }
    }

    pub fn leave(&mut self, step: &mut Step, leavers: &[Leaver]) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        match self {
            Group::Classic(group) => group.leave(step, leavers),
            Group::Consumer(group) => {
                let answers = group.leave_classic(step, leavers);
                self.maybe_downgrade(step);
                answers
            }
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
        knows_epochs: bool,
    ) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.check_commit(step, member_id, group_instance_id, generation),
            Group::Consumer(group) => group.check_commit(member_id, generation, knows_epochs),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Whether a client that says who it is may fetch offsets.
    pub fn check_fetch(&self, member_id: &str, member_epoch: i32) -> Result<(), GroupError> {
        match self {
            Group::Classic(_) => Ok(()),
            Group::Consumer(group) => group.check_epoch(member_id, member_epoch),
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
            Group::Consumer(group) => group.check_transactional_commit(member_id, group_instance_id, generation),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Whether single offsets may be deleted.
    pub fn check_offset_deletion(&self) -> Result<(), GroupError> {
        match self {
            Group::Classic(group) => group.check_offset_deletion(),
            Group::Consumer(group) if group.state() == ConsumerState::Dead => Err(GroupError::GroupIdNotFound),
            Group::Consumer(_) => Ok(()),
            Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        }
    }

    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Consumer(group) => group.is_subscribed_to(topic),
            Group::Claimed(_) => false,
        }
    }

    /// From when the group's offsets count as unused; `None` while that cannot be said.
    pub fn offset_expiry(&self) -> Option<ExpireFrom> {
        match self {
            Group::Classic(group) => group.offset_expiry(),
            Group::Consumer(group) => (group.state() != ConsumerState::Dead).then_some(ExpireFrom::Commit),
            Group::Claimed(_) => None,
        }
    }

    /// The store's answer to an [`Effect::Persist`]. A group that has become another since has answered those who waited.
    pub fn persisted(&mut self, step: &mut Step, persisting: Persisting, durable: bool) {
        match self {
            Group::Classic(group) => group.persisted(step, persisting, durable),
            Group::Consumer(_) | Group::Claimed(_) => {}
        }
    }

    /// The store did not take these.
    pub fn not_stored(&mut self, changes: Changes) {
        match self {
            Group::Consumer(group) => group.not_stored(changes),
            // A classic group stores itself whole, the next time something happens to it.
            Group::Classic(_) | Group::Claimed(_) => {}
        }
    }

    pub fn fire(&mut self, step: &mut Step) {
        match self {
            Group::Classic(group) => group.fire(step),
            Group::Consumer(group) => {
                group.fire(step);
                self.maybe_downgrade(step);
            }
            Group::Claimed(_) => {}
        }
    }

    pub fn next_deadline(&self) -> Option<i64> {
        match self {
            Group::Classic(group) => group.next_deadline(),
            Group::Consumer(group) => group.next_deadline(),
            Group::Claimed(_) => None,
        }
    }

    pub fn take_armed(&mut self) -> Option<i64> {
        match self {
            Group::Classic(group) => group.take_armed(),
            Group::Consumer(group) => group.take_armed(),
            Group::Claimed(_) => None,
        }
    }
}

/// The group of the consumer protocol that a classic one becomes, which is left as it was.
fn upgraded(step: &Step, classic: &Classic) -> Result<Consumer, GroupError> {
    match classic.state() {
        State::Dead => Err(GroupError::CoordinatorNotAvailable),
        State::Empty => Ok(Consumer::default()),
        State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
            if !step.settings.migration.upgrades() {
                return Err(GroupError::GroupIdNotFound);
            }
            Consumer::from_classic(step, classic)
        }
    }
}
