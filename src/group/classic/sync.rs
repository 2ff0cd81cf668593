//! SyncGroup, Heartbeat and LeaveGroup, and what an offset commit must satisfy.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Classic, Effect, GroupError, Leaver, Persisting, State, Step, SyncAnswer, SyncRequest, Synced, Waiter};

impl Classic {
    /// Answers `waiter` at once or when the leader's assignment is durable.
    pub fn sync(&mut self, step: &mut Step, request: SyncRequest, waiter: Waiter) {
        if let Err(error) = self.check_sync(&request) {
            return step.answer_sync(waiter, Err(error));
        }
        match self.state {
            State::PreparingRebalance => step.answer_sync(waiter, Err(GroupError::RebalanceInProgress)),
            State::CompletingRebalance => self.await_sync(step, request, waiter),
            State::Stable => {
                self.synced_in_time(&request.member_id);
                let answer = self.synced(&request.member_id);
                step.answer_sync(waiter, answer);
            }
            State::Empty | State::Dead => step.answer_sync(waiter, Err(GroupError::UnknownMemberId)),
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |asked: &Option<String>, held: &Option<String>| asked.is_some() && held.is_some() && asked != held;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn await_sync(&mut self, step: &mut Step, request: SyncRequest, waiter: Waiter) {
        let SyncRequest { member_id, assignments, .. } = request;
        if let Some(member) = self.members.get_mut(&member_id)
            && let Some(earlier) = member.awaiting_sync.replace(waiter)
        {
            step.answer_sync(earlier, Err(GroupError::RebalanceInProgress));
        }
        self.synced_in_time(&member_id);
        if !self.is_leader(&member_id) {
            return;
        }
        let assigned = assignments.into_iter().filter(|(member_id, _)| self.members.contains_key(member_id));
        let assignments: HashMap<String, Bytes> = assigned.collect();
        let stored = Box::new(self.stored(Some(&assignments)));
        let persisting = Persisting::Assignment { generation: self.generation, assignments };
        step.effects.push(Effect::Persist(stored, persisting));
    }

    fn synced_in_time(&mut self, member_id: &str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            self.sync_deadline = None;
        }
    }

    fn synced(&self, member_id: &str) -> SyncAnswer {
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        Ok(Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        })
    }

    /// Answers every member that waits for its assignment: with it, or with why there is none.
    pub(super) fn answer_syncs(&mut self, step: &mut Step, outcome: Result<(), GroupError>) {
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            let waiter = self.members.get_mut(&member_id).and_then(|member| member.awaiting_sync.take());
            if let Some(waiter) = waiter {
                let answer = outcome.and_then(|()| self.synced(&member_id));
                step.answer_sync(waiter, answer);
                self.renew_session(step.now, &member_id);
            }
        }
    }

    /// The store's answer to an [`Effect::Persist`].
    pub fn persisted(&mut self, step: &mut Step, persisting: Persisting, durable: bool) {
        match persisting {
            Persisting::Nothing => {}
            Persisting::Assignment { generation, assignments } => {
                // Otherwise another rebalance has begun, and has answered those who waited.
                if self.state == State::CompletingRebalance && self.generation == generation {
                    self.assignment_persisted(step, assignments, durable);
                }
            }
            Persisting::Replacement(replacement) => self.replacement_persisted(step, *replacement, durable),
        }
    }

    fn assignment_persisted(&mut self, step: &mut Step, mut assignments: HashMap<String, Bytes>, durable: bool) {
        if !durable {
            self.answer_syncs(step, Err(GroupError::CoordinatorNotAvailable));
            self.prepare_rebalance(step);
            return;
        }
        for (member_id, member) in &mut self.members {
            member.assignment = assignments.remove(member_id).unwrap_or_default();
        }
        self.enter(State::Stable, step.now);
        self.answer_syncs(step, Ok(()));
    }

    pub fn heartbeat(
        &mut self,
        step: &mut Step,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(member_id, group_instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.renew_session(step.now, member_id);
        match self.state {
            State::CompletingRebalance | State::Stable => Ok(()),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    /// Puts members out; one answer for each. The group rebalances once, however many leave.
    pub fn leave(&mut self, step: &mut Step, leavers: &[Leaver]) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let answers: Vec<_> = leavers.iter().map(|leaver| self.leave_one(step, leaver)).collect();
        if answers.iter().any(Result::is_ok) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
                State::PreparingRebalance => self.maybe_complete_join(step),
                State::Empty | State::Dead => {}
            }
        }
        Ok(answers)
    }

    fn leave_one(&mut self, step: &mut Step, leaver: &Leaver) -> Result<(), GroupError> {
        let instance = leaver.group_instance_id.as_deref();
        let member_id = if leaver.member_id.is_empty() {
            let holder = instance.and_then(|instance| self.static_members.get(instance));
            holder.cloned().ok_or(GroupError::UnknownMemberId)?
        } else {
            if !self.pending_members.contains_key(&leaver.member_id) {
                self.check_member(&leaver.member_id, instance)?;
            }
            leaver.member_id.clone()
        };
        self.remove(step, &member_id, GroupError::UnknownMemberId);
        Ok(())
    }

    /// Whether offsets may be committed in this name. A member's commit renews its session, as in Kafka.
    pub fn check_commit(
        &mut self,
        step: &mut Step,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        // An administrator, or a consumer that assigns itself: welcome while nobody is subscribed.
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && group_instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(member_id, group_instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            // The member has heard of the new generation, but has no assignment in it yet.
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            State::Stable | State::PreparingRebalance => {
                self.renew_session(step.now, member_id);
                Ok(())
            }
            State::Empty | State::Dead => Ok(()),
        }
    }
    /// Whether a transaction may commit offsets in this name (KIP-447). A producer that does not tell the member it works
    /// for may always; one that does may during a rebalance as well, as in Kafka.
    pub fn check_transactional_commit(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let tells_member = generation >= 0 || !member_id.is_empty() || group_instance_id.is_some();
        if !tells_member || (generation < 0 && self.state == State::Empty) {
            return Ok(());
        }
        self.check_member(member_id, group_instance_id)?;
        if generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }
}
