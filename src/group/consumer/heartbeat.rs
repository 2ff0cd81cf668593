//! ConsumerGroupHeartbeat: a member joins, goes on, or leaves.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::subscriptions::check_regex;
use super::{
    ASSIGNORS, Assignment, Consumer, Deadlines, GroupError, HeartbeatAnswer, HeartbeatRequest, JOIN, LEAVE,
    LEAVE_FOR_A_WHILE, Member, MemberState, Step,
};
use crate::group::GROUP_METADATA_BYTES_MAX;

impl HeartbeatRequest {
    /// What can be said against a request without knowing the group.
    pub fn check(&self) -> Result<(), GroupError> {
        let refuse = |why| Err(GroupError::InvalidRequest(why));
        if self.group_instance_id.as_deref() == Some("") {
            return refuse("InstanceId can't be empty.");
        }
        if self.rack_id.as_deref() == Some("") {
            return refuse("RackId can't be empty.");
        }
        match self.member_epoch {
            JOIN => {
                if self.rebalance_timeout_ms.is_none() {
                    return refuse("RebalanceTimeoutMs must be provided in first request.");
                }
                if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                    return refuse("TopicPartitions must be empty when (re-)joining.");
                }
                if self.subscribed_topics.is_none() && self.subscribed_regex.is_none() {
                    return refuse(
                        "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                    );
                }
            }
            epoch if epoch > 0 || epoch == LEAVE || epoch == LEAVE_FOR_A_WHILE => {
                if self.member_id.is_empty() {
                    return refuse("MemberId can't be empty.");
                }
                if epoch == LEAVE_FOR_A_WHILE && self.group_instance_id.is_none() {
                    return refuse("InstanceId can't be null.");
                }
            }
            _ => return refuse("MemberEpoch is invalid."),
        }
        match &self.server_assignor {
            Some(name) if !ASSIGNORS.contains(&name.as_str()) => Err(GroupError::UnsupportedAssignor),
            Some(_) | None => Ok(()),
        }
    }

    /// A member says everything when it joins, and when it does not know what the coordinator knows.
    fn is_full(&self) -> bool {
        let subscribes = self.subscribed_topics.is_some() || self.subscribed_regex.is_some();
        self.member_epoch == JOIN || (self.rebalance_timeout_ms.is_some() && subscribes && self.owned.is_some())
    }
}

/// What a member's place in the group was before its request.
struct Place {
    /// As it was known; `None` if the member is new.
    known: Option<Member>,
    /// The static member whose place it takes.
    replaces: Option<String>,
}

impl Consumer {
    /// A member's heartbeat, its request [checked](HeartbeatRequest::check). `fresh` makes the id of a member that has none.
    pub fn heartbeat(
        &mut self,
        step: &mut Step,
        mut request: HeartbeatRequest,
        fresh: Uuid,
    ) -> Result<HeartbeatAnswer, GroupError> {
        if self.dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if matches!(request.member_epoch, LEAVE | LEAVE_FOR_A_WHILE) {
            return self.leave(step, &request);
        }
        if request.member_id.is_empty() {
            request.member_id = fresh.to_string();
        }
        self.check_size(step, &request.member_id)?;
        let place = self.place(&request)?;
        if let Some(regex) = request.subscribed_regex.as_deref().filter(|regex| !regex.is_empty()) {
            check_regex(regex)?;
            self.check_regexes(regex)?;
        }
        let updated = updated(&place, &request);
        self.check_bytes(&place, &request.member_id, &updated)?;
        Ok(self.go_on(step, request, place, updated))
    }

    pub(super) fn check_size(&self, step: &Step, member_id: &str) -> Result<(), GroupError> {
        let size_max = usize::try_from(step.settings.max_size).unwrap_or(0);
        match self.members.len() >= size_max && !self.members.contains_key(member_id) {
            true => Err(GroupError::GroupMaxSizeReached),
            false => Ok(()),
        }
    }

    /// The member that a request speaks for, if its epoch and its instance id entitle it to.
    fn place(&self, request: &HeartbeatRequest) -> Result<Place, GroupError> {
        let member_id = request.member_id.as_str();
        let joins = request.member_epoch == JOIN;
        let holder = request.group_instance_id.as_ref().map(|instance| self.static_members.get(instance));
        if joins && let Some(Some(holder)) = holder.filter(|holder| *holder != Some(&request.member_id)) {
            let known = self.members.get(holder).cloned();
            // Of two that live, the one that is in stays; a classic one is being replaced by its own upgrade.
            return match &known {
                Some(member) if member.classic.is_none() && member.epoch != LEAVE_FOR_A_WHILE => {
                    Err(GroupError::UnreleasedInstanceId)
                }
                Some(_) | None => Ok(Place { known, replaces: Some(holder.clone()) }),
            };
        }
        match holder {
            Some(None) if !joins => return Err(GroupError::UnknownMemberId),
            Some(Some(holder)) if holder != member_id => return Err(GroupError::FencedInstanceId),
            Some(_) | None => {}
        }
        let known = self.members.get(member_id).cloned();
        match &known {
            None if joins => {}
            None => return Err(GroupError::UnknownMemberId),
            // It holds nothing and begins anew: because it was told to, or did not hear the answer to its first request.
            Some(_) if joins => {}
            Some(member) => check_member_epoch(member, request)?,
        }
        Ok(Place { known, replaces: None })
    }

    fn check_bytes(&self, place: &Place, member_id: &str, updated: &Member) -> Result<(), GroupError> {
        let held_by = place.replaces.as_deref().unwrap_or(member_id);
        let held = place.known.as_ref().map_or(0, |member| bytes_of(held_by, member));
        match self.bytes - held + bytes_of(member_id, updated) <= GROUP_METADATA_BYTES_MAX {
            true => Ok(()),
            false => Err(GroupError::GroupMaxSizeReached),
        }
    }

    /// Takes the member in as it is now, and brings it as far as it can go.
    fn go_on(&mut self, step: &mut Step, request: HeartbeatRequest, place: Place, updated: Member) -> HeartbeatAnswer {
        let member_id = request.member_id.clone();
        let (full, owned) = (request.is_full(), request.owned.as_deref());
        let changed = place.known.as_ref().is_none_or(|known| !known.subscribes_like(&updated));
        let before = place.known.as_ref().filter(|_| request.member_epoch != JOIN).map(|known| known.assigned.clone());
        if let Some(replaced) = &place.replaces {
            self.remove(replaced);
        }
        // Most heartbeats bring nothing new.
        if place.known.as_ref() != Some(&updated) || place.replaces.is_some() {
            self.put(&member_id, updated);
        }
        self.follow_topics(step, changed.then_some(&*member_id));
        self.reconcile(step, &member_id, owned);
        self.renew_session(step, &member_id, step.config.session_timeout_ms);
        self.store(step);
        let member = self.members.get(&member_id);
        let assigned = member.map(|member| member.assigned.clone()).unwrap_or_default();
        HeartbeatAnswer {
            member_epoch: member.map_or(request.member_epoch, |member| member.epoch),
            member_id,
            heartbeat_interval_ms: step.config.heartbeat_interval_ms,
            assignment: Some(assigned).filter(|assigned| full || before.as_ref() != Some(assigned)),
        }
    }

    fn leave(&mut self, step: &mut Step, request: &HeartbeatRequest) -> Result<HeartbeatAnswer, GroupError> {
        let member_id = request.member_id.clone();
        if let Some(instance) = &request.group_instance_id {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if *holder != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        let member = self.members.get_mut(&member_id).ok_or(GroupError::UnknownMemberId)?;
        if request.member_epoch == LEAVE_FOR_A_WHILE {
            // It keeps its place, and what it was assigned, until its session ends.
            member.epoch = LEAVE_FOR_A_WHILE;
            let revoking = std::mem::take(&mut member.revoking);
            member.deadlines.rebalance = None;
            self.release(&member_id, &revoking);
            self.members_changed.insert(member_id.clone());
        } else {
            self.put_out(&member_id);
        }
        self.store(step);
        Ok(HeartbeatAnswer {
            member_id,
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// A member goes for good, by its will or not: the others share what it had.
    pub(super) fn put_out(&mut self, member_id: &str) {
        self.remove(member_id);
        self.step_epoch();
    }

    pub(super) fn step_epoch(&mut self) {
        self.group_epoch = self.group_epoch.saturating_add(1);
        self.head_changed = true;
        // Whether topics are still subscribed to is seen with the next target.
        self.topics_version = None;
    }

    /// Takes a member in, or what is new of it. Counts are kept here and in [`Consumer::remove`] alone.
    pub(super) fn put(&mut self, member_id: &str, member: Member) {
        if let Some(instance) = &member.group_instance_id {
            self.static_members.insert(instance.clone(), member_id.to_owned());
        }
        self.bytes += bytes_of(member_id, &member);
        let Some(old) = self.members.insert(member_id.to_owned(), member.clone()) else {
            self.members_changed.insert(member_id.to_owned());
            self.hold(member_id, &member.assigned);
            self.hold(member_id, &member.revoking);
            return;
        };
        self.bytes -= bytes_of(member_id, &old);
        if member != old {
            self.members_changed.insert(member_id.to_owned());
        }
        if member.assigned != old.assigned || member.revoking != old.revoking {
            self.release(member_id, &old.assigned);
            self.release(member_id, &old.revoking);
            self.hold(member_id, &member.assigned);
            self.hold(member_id, &member.revoking);
        }
    }

    pub(super) fn remove(&mut self, member_id: &str) {
        let Some(member) = self.members.shift_remove(member_id) else { return };
        self.bytes -= bytes_of(member_id, &member);
        self.release(member_id, &member.assigned);
        self.release(member_id, &member.revoking);
        if let Some(instance) = &member.group_instance_id {
            self.static_members.remove(instance);
        }
        self.members_changed.insert(member_id.to_owned());
    }
}

/// A member may come with its last epoch or with the one before, when the answer with the new one was lost: it then has
/// no partition that it should not have.
fn check_member_epoch(member: &Member, request: &HeartbeatRequest) -> Result<(), GroupError> {
    if request.member_epoch == member.epoch {
        return Ok(());
    }
    let is_within = |owned: &Vec<(Uuid, Vec<i32>)>| {
        owned.iter().all(|(topic, partitions)| {
            let assigned = member.assigned.get(topic);
            let has =
                |index: &i32| u32::try_from(*index).ok().zip(assigned).is_some_and(|(index, set)| set.contains(&index));
            assigned.is_some() && partitions.iter().all(has)
        })
    };
    let was_lost = request.member_epoch == member.previous_epoch && request.member_epoch < member.epoch;
    match was_lost && request.owned.as_ref().is_some_and(is_within) {
        true => Ok(()),
        false => Err(GroupError::FencedMemberEpoch),
    }
}

/// The member with what its request says of it.
fn updated(place: &Place, request: &HeartbeatRequest) -> Member {
    let mut member = place.known.clone().unwrap_or_else(Member::blank);
    if place.replaces.is_some() {
        // It inherits what its predecessor had, and goes on from there.
        (member.epoch, member.previous_epoch) = (JOIN, JOIN);
    } else if request.member_epoch == JOIN {
        (member.epoch, member.previous_epoch) = (JOIN, JOIN);
        member.state = MemberState::Stable;
        member.assigned = Assignment::new();
        member.revoking = Assignment::new();
        member.deadlines = Deadlines::default();
    }
    member.classic = None;
    member.deadlines.join = None;
    member.deadlines.sync = None;
    member.client_id = request.client_id.clone();
    member.client_host = request.client_host.clone();
    if request.group_instance_id.is_some() {
        member.group_instance_id = request.group_instance_id.clone();
    }
    if request.rack_id.is_some() {
        member.rack_id = request.rack_id.clone();
    }
    if let Some(rebalance_timeout_ms) = request.rebalance_timeout_ms {
        member.rebalance_timeout_ms = rebalance_timeout_ms;
    }
    if request.server_assignor.is_some() {
        member.server_assignor = request.server_assignor.clone();
    }
    if let Some(topics) = &request.subscribed_topics {
        member.topics = topics.iter().cloned().collect();
    }
    if let Some(regex) = &request.subscribed_regex {
        member.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
    }
    member
}

impl Member {
    pub(super) fn blank() -> Member {
        Member {
            group_instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 0,
            server_assignor: None,
            topics: BTreeSet::new(),
            regex: None,
            epoch: JOIN,
            previous_epoch: JOIN,
            state: MemberState::Stable,
            assigned: Assignment::new(),
            revoking: Assignment::new(),
            target: Assignment::new(),
            classic: None,
            deadlines: Deadlines::default(),
        }
    }

    pub(super) fn subscribes_like(&self, other: &Member) -> bool {
        self.topics == other.topics && self.regex == other.regex
    }
}

pub(super) fn bytes_of(member_id: &str, member: &Member) -> usize {
    let names: usize = member.topics.iter().map(String::len).sum();
    let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let protocols = member.classic.iter().flat_map(|classic| &classic.protocols);
    let classic: usize = protocols.map(|protocol| protocol.name.len() + protocol.metadata.len()).sum();
    let own = member_id.len() + member.client_id.len() + member.client_host.len();
    own + of(&member.group_instance_id) + of(&member.rack_id) + of(&member.regex) + names + classic
}
