//! JoinGroup: new members, members that come back, static members that take their place again.

use uuid::Uuid;

use super::members::{Member, distinct, metadata_bytes};
use super::{
    Classic, Effect, GroupError, JoinRequest, Joined, JoinedMember, Persisting, Replacement, State, Step, Waiter,
};
use crate::group::{GROUP_METADATA_BYTES_MAX, PENDING_MEMBERS_MAX};

impl Classic {
    /// Answers `waiter` at once or when the rebalance that follows has come to its end. `fresh` makes a new member's id.
    pub fn join(&mut self, step: &mut Step, request: JoinRequest, fresh: Uuid, waiter: Waiter) {
        let member_id = request.member_id.clone();
        if self.state == State::Dead {
            step.refuse_join(waiter, GroupError::CoordinatorNotAvailable, &member_id);
        } else if !self.has_bytes(&request) {
            step.refuse_join(waiter, GroupError::GroupMaxSizeReached, &member_id);
        } else if !self.has_room(step, &member_id) {
            self.remove(step, &member_id, GroupError::GroupMaxSizeReached);
            step.refuse_join(waiter, GroupError::GroupMaxSizeReached, "");
            self.maybe_complete_join(step);
        } else if !self.supports(&request.protocol_type, &request.protocols) {
            step.refuse_join(waiter, GroupError::InconsistentGroupProtocol, &member_id);
        } else if member_id.is_empty() {
            self.join_without_id(step, request, fresh, waiter);
        } else {
            self.join_with_id(step, request, waiter);
        }
    }

    fn has_bytes(&self, request: &JoinRequest) -> bool {
        let held = self.members.get(&request.member_id).map_or(0, |member| metadata_bytes(&member.protocols));
        self.metadata_bytes - held + metadata_bytes(&request.protocols) <= GROUP_METADATA_BYTES_MAX
    }

    /// While members gather, only those that wait count: the group may be over its size since the setting changed, and
    /// the last to come go. Afterwards whoever is in is in.
    fn has_room(&self, step: &Step, member_id: &str) -> bool {
        let size_max = usize::try_from(step.settings.max_size).unwrap_or(0);
        let member = self.members.get(member_id);
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some()) || self.awaiting_join < size_max
            }
            State::CompletingRebalance | State::Stable => member.is_some() || self.members.len() < size_max,
        }
    }

    fn join_without_id(&mut self, step: &mut Step, request: JoinRequest, fresh: Uuid, waiter: Waiter) {
        let name = request.group_instance_id.as_deref().unwrap_or(&request.client_id);
        let new_id = format!("{name}-{fresh}");
        let holder = request.group_instance_id.as_ref().and_then(|instance| self.static_members.get(instance));
        if let Some(old_id) = holder.cloned() {
            self.rejoin_static(step, request, &old_id, &new_id, waiter);
        } else if request.group_instance_id.is_some() || !request.member_id_required {
            self.add_member(step, request, &new_id, waiter);
        } else if self.pending_members.len() >= PENDING_MEMBERS_MAX {
            step.refuse_join(waiter, GroupError::GroupMaxSizeReached, "");
        } else {
            let forgotten_at = step.now.tick_ms + i64::from(request.session_timeout_ms);
            self.arm(forgotten_at);
            step.refuse_join(waiter, GroupError::MemberIdRequired, &new_id);
            self.pending_members.insert(new_id, forgotten_at);
        }
    }

    fn join_with_id(&mut self, step: &mut Step, request: JoinRequest, waiter: Waiter) {
        let member_id = request.member_id.clone();
        if self.pending_members.contains_key(&member_id) && request.group_instance_id.is_none() {
            return self.add_member(step, request, &member_id, waiter);
        }
        if let Err(error) = self.check_member(&member_id, request.group_instance_id.as_deref()) {
            return step.refuse_join(waiter, error, &member_id);
        }
        let protocols = distinct(request.protocols.clone());
        let unchanged = self.members.get(&member_id).is_some_and(|member| member.protocols == protocols);
        match self.state {
            // A client that did not receive the answer to its join asks again.
            State::CompletingRebalance if unchanged => {
                let joined = self.joined(&member_id);
                step.answer_join(waiter, Ok(joined));
            }
            // A follower with nothing new does not disturb the others; a leader asks for a rebalance this way.
            State::Stable if unchanged && !self.is_leader(&member_id) => {
                let joined = self.joined(&member_id);
                step.answer_join(waiter, Ok(joined));
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update(&member_id, protocols, request.session_timeout_ms, request.rebalance_timeout_ms);
                self.await_join(step, &member_id, waiter);
                self.rebalance_or_complete(step);
            }
            State::Empty | State::Dead => step.refuse_join(waiter, GroupError::UnknownMemberId, &member_id),
        }
    }

    fn add_member(&mut self, step: &mut Step, request: JoinRequest, member_id: &str, waiter: Waiter) {
        let protocol_type = request.protocol_type.clone();
        // A new member cannot heartbeat before it has an answer, and a client that gives up and asks again comes as
        // another member: so these leave after a time of their own.
        let deadline = step.now.tick_ms + i64::from(step.settings.new_member_join_timeout_ms);
        let mut member = Member::new(request);
        member.awaiting_join = Some(waiter);
        member.session_deadline = Some(deadline);
        self.arm(deadline);
        if self.state == State::PreparingRebalance && self.initial_rebalance {
            self.new_member_added = true;
        }
        self.insert(member_id, member, Some(protocol_type));
        self.rebalance_or_complete(step);
    }

    /// A static member without a member id has restarted: it takes its place, and its assignment, under a new id.
    fn rejoin_static(&mut self, step: &mut Step, request: JoinRequest, old_id: &str, new_id: &str, waiter: Waiter) {
        let Some(old) = self.members.get(old_id) else {
            return step.refuse_join(waiter, GroupError::UnknownMemberId, "");
        };
        let replacement = Replacement {
            waiter,
            group_instance_id: request.group_instance_id.unwrap_or_default(),
            old_member_id: old_id.to_owned(),
            new_member_id: new_id.to_owned(),
            old_leader: self.leader.clone().unwrap_or_default(),
            old_protocols: old.protocols.clone(),
            old_session_timeout_ms: old.session_timeout_ms,
            old_rebalance_timeout_ms: old.rebalance_timeout_ms,
            can_skip_assignment: request.can_skip_assignment,
        };
        self.replace_static(step, &replacement.group_instance_id, old_id, new_id);
        let protocols = distinct(request.protocols);
        self.update(new_id, protocols, request.session_timeout_ms, request.rebalance_timeout_ms);
        self.await_join(step, new_id, waiter);
        self.renew_session(step.now, new_id);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                let stored = Box::new(self.stored(None));
                step.effects.push(Effect::Persist(stored, Persisting::Replacement(Box::new(replacement))));
            }
            // In CompletingRebalance the leader may be assigning to the old id right now.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance | State::Empty | State::Dead => self.maybe_complete_join(step),
        }
    }

    /// The stored outcome of [`Classic::rejoin_static`] without a rebalance. If one has begun meanwhile it answers the
    /// member, and stores the group anew.
    pub(super) fn replacement_persisted(&mut self, step: &mut Step, replacement: Replacement, durable: bool) {
        let member_id = &replacement.new_member_id;
        let waits = self.members.get(member_id).is_some_and(|member| member.awaiting_join == Some(replacement.waiter));
        if !waits || self.state != State::Stable {
            return;
        }
        self.take_join_waiter(member_id);
        self.renew_session(step.now, member_id);
        if durable {
            let joined = self.rejoined(&replacement);
            step.answer_join(replacement.waiter, Ok(joined));
            return;
        }
        step.refuse_join(replacement.waiter, GroupError::CoordinatorNotAvailable, "");
        self.replace_static(step, &replacement.group_instance_id, member_id, &replacement.old_member_id);
        self.update(
            &replacement.old_member_id,
            replacement.old_protocols,
            replacement.old_session_timeout_ms,
            replacement.old_rebalance_timeout_ms,
        );
    }

    /// A client that cannot skip the assignment is told that its former id leads, so that it does not assign.
    fn rejoined(&self, replacement: &Replacement) -> Joined {
        let joined = self.joined(&replacement.new_member_id);
        if replacement.can_skip_assignment {
            Joined { skip_assignment: self.is_leader(&replacement.new_member_id), ..joined }
        } else {
            Joined { leader: replacement.old_leader.clone(), members: Vec::new(), ..joined }
        }
    }

    /// The current generation, as `member_id` is told of it.
    pub(super) fn joined(&self, member_id: &str) -> Joined {
        let members = if self.is_leader(member_id) { self.joined_members() } else { Vec::new() };
        Joined {
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let member = |(member_id, member): (&String, &Member)| JoinedMember {
            member_id: member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(member).collect()
    }
}
