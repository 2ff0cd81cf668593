//! Members that speak the classic protocol in a group that assigns for itself, so that a group's members can be upgraded
//! (and taken back) one by one while it runs; and the way from a classic group and to one (KIP-848, online migration).
//!
//! A classic member's generation is its member epoch. JoinGroup brings it one step nearer to its target, SyncGroup hands
//! it what it is assigned, Heartbeat tells it to join again when there is more to do.

use bytes::Bytes;
use uuid::Uuid;

use super::heartbeat::bytes_of;
use super::{Assignment, ClassicSide, Consumer, Effect, GroupError, JOIN, Member, MemberState, Step};
use crate::group::GROUP_METADATA_BYTES_MAX;
use crate::group::classic::{
    Classic, JoinRequest, Joined, Leaver, Protocol, SyncAnswer, SyncRequest, Synced, Waiter, distinct,
};
use crate::group::stored::{StoredGroup, StoredMember, StoredProtocol};
use crate::group::subscription::{
    AssignedTopic, CONSUMER_PROTOCOL_TYPE, Subscription, read_assignment, read_subscription, write_assignment,
};
use crate::group::topics::Topics;

impl Consumer {
    /// JoinGroup: answers `waiter` once the member's place is durable.
    pub fn join(&mut self, step: &mut Step, request: JoinRequest, fresh: Uuid, waiter: Waiter) {
        let told = request.member_id.clone();
        match self.join_classic(step, request, fresh) {
            Ok(joined) => {
                self.store(step);
                step.effects.push(Effect::AnswerJoin(waiter, Ok(joined)));
            }
            Err((error, None)) => step.refuse_join(waiter, error, &told),
            Err((error, Some(member_id))) => step.refuse_join(waiter, error, &member_id),
        }
    }

    fn join_classic(
        &mut self,
        step: &mut Step,
        request: JoinRequest,
        fresh: Uuid,
    ) -> Result<Joined, (GroupError, Option<String>)> {
        let plain = |error| (error, None);
        if self.dead {
            return Err(plain(GroupError::CoordinatorNotAvailable));
        }
        let is_new = request.member_id.is_empty();
        let instance = request.group_instance_id.clone();
        let name = instance.as_deref().unwrap_or(&request.client_id);
        let member_id = if is_new { format!("{name}-{fresh}") } else { request.member_id.clone() };
        self.check_size(step, &member_id).map_err(plain)?;
        let protocols = distinct(request.protocols.clone());
        if !self.supports_classic(&request.protocol_type, &protocols) {
            return Err(plain(GroupError::InconsistentGroupProtocol));
        }
        // The member is not remembered: whatever id it comes with next is taken.
        if is_new && instance.is_none() && request.member_id_required {
            return Err((GroupError::MemberIdRequired, Some(member_id)));
        }
        let subscription = protocols.first().and_then(|protocol| read_subscription(&protocol.metadata));
        let subscription = subscription.ok_or(plain(GroupError::InconsistentGroupProtocol))?;
        let (known, replaced) = self.classic_place(&member_id, instance.as_deref(), is_new).map_err(plain)?;
        let updated = classic_member(known.as_ref(), replaced.is_some(), &request, protocols, &subscription);
        let held_by = replaced.as_deref().unwrap_or(&member_id);
        let held = known.as_ref().map_or(0, |member| bytes_of(held_by, member));
        if self.bytes - held + bytes_of(&member_id, &updated) > GROUP_METADATA_BYTES_MAX {
            return Err(plain(GroupError::GroupMaxSizeReached));
        }
        let changed = known.is_none_or(|known| !known.subscribes_like(&updated));
        if let Some(replaced) = &replaced {
            self.remove(replaced);
        }
        self.put(&member_id, updated);
        self.follow_topics(step, changed.then_some(&*member_id));
        let owned = ids_of(&subscription, step.topics);
        self.reconcile(step, &member_id, Some(&owned));
        self.await_sync(step, &member_id, &request);
        Ok(self.joined(&member_id))
    }

    /// The member as it was known, and whose place it takes.
    fn classic_place(
        &self,
        member_id: &str,
        instance: Option<&str>,
        is_new: bool,
    ) -> Result<(Option<Member>, Option<String>), GroupError> {
        let holder = instance.and_then(|instance| self.static_members.get(instance));
        match (instance, holder) {
            (Some(_), Some(holder)) if is_new => Ok((self.members.get(holder).cloned(), Some(holder.clone()))),
            (Some(_), Some(holder)) if holder != member_id => Err(GroupError::FencedInstanceId),
            (Some(_), None) if !is_new => Err(GroupError::UnknownMemberId),
            _ => Ok((self.members.get(member_id).cloned(), None)),
        }
    }

    /// Whether some protocol of a classic member is shared by all others that there are.
    fn supports_classic(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        let mut others = self.members.values().filter_map(|member| member.classic.as_ref()).peekable();
        let is_shared = |name: &str| {
            let has = |side: &ClassicSide| side.protocols.iter().any(|protocol| protocol.name == name);
            self.members.values().filter_map(|member| member.classic.as_ref()).all(has)
        };
        protocol_type == CONSUMER_PROTOCOL_TYPE
            && !protocols.is_empty()
            && (others.peek().is_none() || protocols.iter().any(|protocol| is_shared(&protocol.name)))
    }

    fn await_sync(&mut self, step: &Step, member_id: &str, request: &JoinRequest) {
        let deadline = step.now.tick_ms.saturating_add(i64::from(request.rebalance_timeout_ms.max(0)));
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadlines.join = None;
            member.deadlines.sync = Some(deadline);
        }
        self.arm(deadline);
        self.renew_session(step, member_id, request.session_timeout_ms);
    }

    fn joined(&self, member_id: &str) -> Joined {
        let member = self.members.get(member_id);
        let side = member.and_then(|member| member.classic.as_ref());
        Joined {
            member_id: member_id.to_owned(),
            generation: member.map_or(JOIN, |member| member.epoch),
            protocol_type: Some(CONSUMER_PROTOCOL_TYPE.to_owned()),
            protocol: side.and_then(ClassicSide::protocol).map(str::to_owned),
            // The coordinator leads: no member is asked to assign.
            leader: String::new(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }

    /// A classic member that may speak for itself: by its ids, and as one that speaks this protocol.
    fn classic_named(&self, member_id: &str, instance: Option<&str>) -> Result<(&Member, &ClassicSide), GroupError> {
        if self.dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if holder != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        let side = member.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
        Ok((member, side))
    }

    /// SyncGroup: what the member is assigned as of its last JoinGroup.
    pub fn sync(&mut self, step: &mut Step, request: SyncRequest, waiter: Waiter) {
        let answer = self.sync_classic(step, &request);
        step.answer_sync(waiter, answer);
    }

    fn sync_classic(&mut self, step: &mut Step, request: &SyncRequest) -> SyncAnswer {
        let (member, side) = self.classic_named(&request.member_id, request.group_instance_id.as_deref())?;
        if member.epoch != request.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |asked: &Option<String>, held: Option<&str>| asked.is_some() && asked.as_deref() != held;
        if differs(&request.protocol_type, Some(CONSUMER_PROTOCOL_TYPE)) || differs(&request.protocol, side.protocol())
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        // One that gives up partitions joins again anyway when it has.
        if self.group_epoch > member.epoch && member.state != MemberState::UnrevokedPartitions {
            self.await_join(step, &request.member_id);
            return Err(GroupError::RebalanceInProgress);
        }
        let (session_timeout_ms, assignment) =
            (side.session_timeout_ms, side.assignment(&member.assigned, step.topics));
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.deadlines.sync = None;
        }
        self.renew_session(step, &request.member_id, session_timeout_ms);
        Ok(Synced { protocol_type: request.protocol_type.clone(), protocol: request.protocol.clone(), assignment })
    }

    /// The member has been told to join again: it has its rebalance timeout to do so.
    fn await_join(&mut self, step: &Step, member_id: &str) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        if member.deadlines.join.is_none() {
            let deadline = step.now.tick_ms.saturating_add(i64::from(member.rebalance_timeout_ms.max(0)));
            member.deadlines.join = Some(deadline);
            self.arm(deadline);
        }
    }

    /// The classic Heartbeat.
    pub fn heartbeat_classic(
        &mut self,
        step: &mut Step,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let (member, side) = self.classic_named(member_id, instance)?;
        if member.epoch != generation {
            return Err(GroupError::IllegalGeneration);
        }
        let has_more_to_do = member.epoch < self.group_epoch
            || member.state == MemberState::UnrevokedPartitions
            || (member.state == MemberState::UnreleasedPartitions && !self.waits_for_others(member_id, member));
        let session_timeout_ms = side.session_timeout_ms;
        self.renew_session(step, member_id, session_timeout_ms);
        if has_more_to_do {
            self.await_join(step, member_id);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// LeaveGroup: one answer for each.
    pub fn leave_classic(
        &mut self,
        step: &mut Step,
        leavers: &[Leaver],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let leave = |leaver: &Leaver| {
            let instance = leaver.group_instance_id.as_deref();
            let member_id = if leaver.member_id.is_empty() {
                // An administrator puts out a static member by its instance id, whatever protocol it speaks.
                let holder = instance.and_then(|instance| self.static_members.get(instance));
                holder.cloned().ok_or(GroupError::UnknownMemberId)?
            } else {
                self.classic_named(&leaver.member_id, instance)?;
                leaver.member_id.clone()
            };
            self.put_out(&member_id);
            Ok(())
        };
        let answers = leavers.iter().map(leave).collect();
        self.store(step);
        Ok(answers)
    }

    /// Whether the last member that needs a group of this kind has gone.
    pub fn is_all_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.classic.is_some())
    }

    /// A classic group as it stands, for a member of the new protocol to join. What its members hold is what they were
    /// last assigned: they have that or less.
    pub fn from_classic(step: &Step, classic: &Classic) -> Result<Consumer, GroupError> {
        let stored = classic.stored(None);
        if stored.protocol_type.as_deref() != Some(CONSUMER_PROTOCOL_TYPE) {
            return Err(GroupError::GroupIdNotFound);
        }
        let mut group = Consumer {
            group_epoch: stored.generation,
            assignment_epoch: stored.generation,
            head_changed: true,
            ..Consumer::default()
        };
        for member in stored.members {
            group.adopt(step, member, stored.protocol.as_deref(), stored.generation)?;
        }
        Ok(group)
    }

    fn adopt(
        &mut self,
        step: &Step,
        stored: StoredMember,
        protocol: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let named = stored.protocols.iter().find(|one| Some(one.name.as_str()) == protocol);
        let metadata = named.or(stored.protocols.first()).map(|one| &one.metadata);
        let subscription =
            metadata.and_then(|metadata| read_subscription(metadata)).ok_or(GroupError::GroupIdNotFound)?;
        let mut assigned = Assignment::new();
        if !stored.assignment.is_empty() {
            for AssignedTopic { topic, partitions } in
                read_assignment(&stored.assignment).ok_or(GroupError::GroupIdNotFound)?
            {
                let Some(topic) = step.topics.topic(&topic) else { continue };
                let is_free = |partition: &u32| {
                    *partition < topic.partitions && !self.holders.contains_key(&(topic.id, *partition))
                };
                let partitions: std::collections::BTreeSet<u32> = partitions
                    .into_iter()
                    .filter_map(|partition| u32::try_from(partition).ok())
                    // An assignor of the members' own may have given one to two.
                    .filter(is_free)
                    .collect();
                if !partitions.is_empty() {
                    assigned.insert(topic.id, partitions);
                }
            }
        }
        let protocol = |stored: StoredProtocol| Protocol { name: stored.name, metadata: stored.metadata };
        let side = ClassicSide {
            session_timeout_ms: stored.session_timeout_ms,
            protocols: stored.protocols.into_iter().map(protocol).collect(),
        };
        let member = Member {
            group_instance_id: stored.group_instance_id,
            rack_id: subscription.rack_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            topics: subscription.topics.into_iter().collect(),
            epoch: generation,
            previous_epoch: generation,
            target: assigned.clone(),
            assigned,
            classic: Some(side),
            ..Member::blank()
        };
        self.put(&stored.member_id, member);
        self.begin_session(step, &stored.member_id);
        Ok(())
    }

    /// The group as a classic one, whose members are then asked to rebalance among themselves.
    pub fn to_classic(&self, step: &Step) -> StoredGroup {
        let member = |(member_id, member): (&String, &Member)| {
            let side = member.classic.as_ref()?;
            Some(StoredMember {
                member_id: member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                session_timeout_ms: side.session_timeout_ms,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                protocols: side.protocols.iter().map(StoredProtocol::from).collect(),
                assignment: side.assignment(&member.assigned, step.topics),
            })
        };
        StoredGroup {
            protocol_type: Some(CONSUMER_PROTOCOL_TYPE.to_owned()),
            generation: self.group_epoch,
            protocol: None,
            leader: None,
            state_since_ms: step.now.wall_ms,
            members: self.members.iter().filter_map(member).collect(),
        }
    }

    /// Every member that is stored or is about to be.
    pub fn member_ids(&self) -> impl Iterator<Item = &String> {
        self.members.keys().chain(&self.members_changed)
    }
}

impl ClassicSide {
    fn protocol(&self) -> Option<&str> {
        self.protocols.first().map(|protocol| protocol.name.as_str())
    }

    /// As the member's client reads it, in the version that it wrote its subscription in.
    fn assignment(&self, assigned: &Assignment, topics: &dyn Topics) -> Bytes {
        let version = self.protocols.first().and_then(|protocol| protocol.metadata.first_chunk::<2>());
        let named = assigned.iter().filter_map(|(topic, partitions)| {
            let partitions = partitions.iter().filter_map(|partition| i32::try_from(*partition).ok()).collect();
            Some(AssignedTopic { topic: topics.topic_name(*topic)?.to_string(), partitions })
        });
        write_assignment(version.map_or(0, |version| i16::from_be_bytes(*version)), named.collect())
    }
}

/// The member with what its JoinGroup says of it.
fn classic_member(
    known: Option<&Member>,
    replaces: bool,
    request: &JoinRequest,
    protocols: Vec<Protocol>,
    subscription: &Subscription,
) -> Member {
    let mut member = known.cloned().unwrap_or_else(Member::blank);
    if replaces {
        (member.epoch, member.previous_epoch) = (JOIN, JOIN);
    }
    member.deadlines.rebalance = None;
    member.group_instance_id = request.group_instance_id.clone().or(member.group_instance_id);
    member.rack_id = subscription.rack_id.clone().or(member.rack_id);
    member.client_id = request.client_id.clone();
    member.client_host = request.client_host.clone();
    member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    member.topics = subscription.topics.iter().cloned().collect();
    member.regex = None;
    member.classic = Some(ClassicSide { session_timeout_ms: request.session_timeout_ms, protocols });
    member
}

/// What a classic member says that it has, by topic ids. Topics that are gone are nobody's.
fn ids_of(subscription: &Subscription, topics: &dyn Topics) -> Vec<(Uuid, Vec<i32>)> {
    let owned = subscription.owned.iter();
    owned.filter_map(|owned| Some((topics.topic(&owned.topic)?.id, owned.partitions.clone()))).collect()
}
