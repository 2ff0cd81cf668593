//! The phases of a rebalance and everything that happens by the clock.

use super::{Classic, Effect, GroupError, JoinTimer, Persisting, State, Step};
use crate::group::Now;

impl Classic {
    /// Somebody came, went or changed: a rebalance begins, or the one that gathers may be complete.
    pub(super) fn rebalance_or_complete(&mut self, step: &mut Step) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
            State::PreparingRebalance | State::Dead => self.maybe_complete_join(step),
        }
    }

    /// Completes the gathering if nobody is missing. The first one after Empty waits for its timer.
    pub(super) fn maybe_complete_join(&mut self, step: &mut Step) {
        if self.state == State::PreparingRebalance && !self.initial_rebalance && self.all_joined() {
            self.complete_join(step);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, step: &mut Step) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment.clear();
            }
            self.answer_syncs(step, Err(GroupError::RebalanceInProgress));
        }
        self.pending_syncs.clear();
        self.sync_deadline = None;
        self.initial_rebalance = self.state == State::Empty;
        self.enter(State::PreparingRebalance, step.now);
        if self.initial_rebalance {
            let delay_ms = i64::from(step.settings.initial_rebalance_delay_ms.max(0));
            let left_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.new_member_added = false;
            self.set_join_timer(JoinTimer::Initial { at: step.now.tick_ms + delay_ms, delay_ms, left_ms });
            if delay_ms == 0 {
                self.complete_join(step);
            }
        } else if self.all_joined() {
            self.complete_join(step);
        } else {
            self.set_join_timer(JoinTimer::Rebalance { at: step.now.tick_ms + self.rebalance_timeout_ms() });
        }
    }

    /// Ends the gathering: dynamic members that did not come are out, the others are the next generation. Static members
    /// keep their place until their session ends.
    pub(super) fn complete_join(&mut self, step: &mut Step) {
        self.join_timer = None;
        let missing =
            |member: &super::members::Member| member.awaiting_join.is_none() && member.group_instance_id.is_none();
        let absent: Vec<String> =
            self.members.iter().filter(|(_, member)| missing(member)).map(|(id, _)| id.clone()).collect();
        for member_id in &absent {
            self.remove(step, member_id, GroupError::UnknownMemberId);
        }
        if self.members.is_empty() {
            self.become_empty(step);
        } else if self.elect_leader() {
            self.next_generation(step);
        } else {
            // Only static members, and none of them came: wait for one, or for their sessions to end.
            self.set_join_timer(JoinTimer::Rebalance { at: step.now.tick_ms + self.rebalance_timeout_ms().max(1) });
        }
    }

    fn become_empty(&mut self, step: &mut Step) {
        self.generation = self.generation.saturating_add(1);
        self.protocol = None;
        self.pending_syncs.clear();
        self.enter(State::Empty, step.now);
        self.read_subscriptions();
        step.effects.push(Effect::Persist(Box::new(self.stored(None)), Persisting::Nothing));
    }

    fn next_generation(&mut self, step: &mut Step) {
        self.generation = self.generation.saturating_add(1);
        self.protocol = self.select_protocol();
        self.enter(State::CompletingRebalance, step.now);
        self.read_subscriptions();
        tracing::debug!(generation = self.generation, members = self.members.len(), "a generation is complete");
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            if let Some(waiter) = self.take_join_waiter(&member_id) {
                let joined = self.joined(&member_id);
                step.answer_join(waiter, Ok(joined));
            }
            if let Some(member) = self.members.get_mut(&member_id) {
                member.is_new = false;
            }
            self.renew_session(step.now, &member_id);
            self.pending_syncs.insert(member_id);
        }
        let deadline = step.now.tick_ms + self.rebalance_timeout_ms();
        self.sync_deadline = Some(deadline);
        self.arm(deadline);
    }

    /// A leader that did not come gives way to the first member that did.
    fn elect_leader(&mut self) -> bool {
        let waits =
            |member_id: &String| self.members.get(member_id).is_some_and(|member| member.awaiting_join.is_some());
        if !self.leader.as_ref().is_some_and(waits) {
            let came = self.members.iter().find(|(_, member)| member.awaiting_join.is_some());
            match came {
                Some((member_id, _)) => self.leader = Some(member_id.clone()),
                None => return false,
            }
        }
        true
    }

    /// The session of this member begins anew.
    pub(super) fn renew_session(&mut self, now: Now, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            let deadline = now.tick_ms + i64::from(member.session_timeout_ms);
            member.session_deadline = Some(deadline);
            self.arm(deadline);
        }
    }

    fn set_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.arm(timer.at());
    }

    /// The earliest time at which [`Classic::fire`] has something to do.
    pub fn next_deadline(&self) -> Option<i64> {
        let sessions = self.members.values().filter_map(|member| member.session_deadline);
        let pending = self.pending_members.values().copied();
        let phases = self.join_timer.map(JoinTimer::at).into_iter().chain(self.sync_deadline);
        sessions.chain(pending).chain(phases).min()
    }

    /// Does what is due at `step.now`.
    pub fn fire(&mut self, step: &mut Step) {
        let now = step.now.tick_ms;
        self.forget_pending_members(step);
        let due = |member: &super::members::Member| member.session_deadline.is_some_and(|at| at <= now);
        let late: Vec<String> =
            self.members.iter().filter(|(_, member)| due(member)).map(|(id, _)| id.clone()).collect();
        for member_id in &late {
            self.expire_session(step, member_id);
        }
        if let Some(timer) = self.join_timer.filter(|timer| timer.at() <= now) {
            self.fire_join_timer(step, timer);
        }
        if self.sync_deadline.is_some_and(|at| at <= now) {
            self.expire_syncs(step);
        }
    }

    fn forget_pending_members(&mut self, step: &mut Step) {
        let before = self.pending_members.len();
        self.pending_members.retain(|_, forgotten_at| *forgotten_at > step.now.tick_ms);
        if self.pending_members.len() < before {
            self.complete_if_all_joined(step);
        }
    }

    /// Unlike [`Classic::maybe_complete_join`] this does not wait for the timer of an initial rebalance: nobody is left to
    /// wait for, as in Kafka.
    fn complete_if_all_joined(&mut self, step: &mut Step) {
        if self.state == State::PreparingRebalance && self.all_joined() {
            self.complete_join(step);
        }
    }

    fn expire_session(&mut self, step: &mut Step, member_id: &str) {
        let now = step.now.tick_ms;
        // An earlier member's end may have answered this one, and renewed its session.
        let Some(member) = self.members.get_mut(member_id) else { return };
        if member.session_deadline.is_none_or(|at| at > now) {
            return;
        }
        if member.is_excused() {
            member.session_deadline = None;
            return;
        }
        tracing::debug!(member_id, "a member's session ended");
        self.remove(step, member_id, GroupError::UnknownMemberId);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance => self.complete_if_all_joined(step),
            State::Empty | State::Dead => {}
        }
    }

    fn fire_join_timer(&mut self, step: &mut Step, timer: JoinTimer) {
        match timer {
            JoinTimer::Initial { at, delay_ms, left_ms } if self.new_member_added && left_ms > 0 => {
                self.new_member_added = false;
                let next_ms = delay_ms.min(left_ms);
                let left_ms = (left_ms - delay_ms).max(0);
                self.set_join_timer(JoinTimer::Initial { at: at + next_ms, delay_ms: next_ms, left_ms });
            }
            JoinTimer::Initial { .. } | JoinTimer::Rebalance { .. } => self.complete_join(step),
        }
    }

    /// Members that joined but did not come for their assignment are out.
    fn expire_syncs(&mut self, step: &mut Step) {
        self.sync_deadline = None;
        if self.pending_syncs.is_empty() {
            return;
        }
        let missing: Vec<String> = self.pending_syncs.iter().cloned().collect();
        tracing::debug!(members = missing.len(), "members did not come for their assignment");
        for member_id in &missing {
            self.remove(step, member_id, GroupError::UnknownMemberId);
        }
        match self.state {
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
            State::Empty | State::PreparingRebalance | State::Dead => {}
        }
    }
}
