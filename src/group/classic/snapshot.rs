//! The group as it is stored, loaded, described, and as the expiry of its offsets sees it.

use std::collections::HashMap;

use bytes::Bytes;

use super::members::{Member, Protocol};
use super::{Classic, GroupError, State, Step};
use crate::group::offsets::ExpireFrom;
use crate::group::stored::{StoredGroup, StoredMember, StoredProtocol};

/// A group as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub state: State,
    /// Empty if the group never had members.
    pub protocol_type: String,
    /// Empty unless the group is Stable.
    pub protocol: String,
    pub members: Vec<MemberDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// For the selected protocol; empty unless the group is Stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

impl Classic {
    /// `assignments` stands for the members' own when it is given: it is stored before it holds.
    pub fn stored(&self, assignments: Option<&HashMap<String, Bytes>>) -> StoredGroup {
        let member = |(member_id, member): (&String, &Member)| StoredMember {
            member_id: member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            protocols: member.protocols.iter().map(StoredProtocol::from).collect(),
            assignment: match assignments {
                Some(assignments) => assignments.get(member_id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        };
        StoredGroup {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// A group as it was stored. Its members' sessions begin anew, so that they can go on as if nothing had been.
    pub fn load(step: &mut Step, stored: StoredGroup) -> Classic {
        let mut group = Classic::new(step.now);
        group.generation = stored.generation;
        group.protocol = stored.protocol;
        group.state = if stored.members.is_empty() { State::Empty } else { State::Stable };
        group.state_since_ms = stored.state_since_ms;
        group.protocol_type = stored.protocol_type.clone();
        for member in stored.members {
            let member_id = member.member_id.clone();
            group.insert(&member_id, Member::from(member), stored.protocol_type.clone());
            group.renew_session(step.now, &member_id);
        }
        // If it is not one of the members, the first of them leads.
        if let Some(leader) = stored.leader.filter(|leader| group.members.contains_key(leader)) {
            group.leader = Some(leader);
        }
        group.read_subscriptions();
        if group.members.len() > usize::try_from(step.settings.max_size).unwrap_or(0) {
            // The setting has shrunk: whoever comes last to this rebalance is out.
            group.prepare_rebalance(step);
        }
        group
    }

    /// A group that was of another kind a moment ago. Its members are asked to assign among themselves.
    pub fn take_over(step: &mut Step, stored: StoredGroup) -> Classic {
        let mut group = Classic::load(step, stored);
        if group.state == State::Stable {
            group.protocol = group.select_protocol();
            group.read_subscriptions();
            group.prepare_rebalance(step);
        }
        group
    }

    /// The group goes over into another kind: whoever waits is told to come again.
    pub fn dissolve(&mut self, step: &mut Step) {
        self.answer_syncs(step, Err(GroupError::RebalanceInProgress));
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            if let Some(waiter) = self.take_join_waiter(&member_id) {
                step.refuse_join(waiter, GroupError::RebalanceInProgress, &member_id);
            }
        }
    }

    /// Empty if the group never had members.
    pub fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    pub fn describe(&self) -> Description {
        let protocol = self.protocol.as_deref().filter(|_| self.state == State::Stable);
        let member = |(member_id, member): (&String, &Member)| MemberDescription {
            member_id: member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        Description {
            state: self.state,
            protocol_type: self.protocol_type().to_owned(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// From when the group's offsets count as unused; `None` while that cannot be said.
    pub fn offset_expiry(&self) -> Option<ExpireFrom> {
        match (&self.protocol_type, self.state) {
            (_, State::Dead) => None,
            (None, _) => Some(ExpireFrom::Commit),
            (Some(_), State::Empty) => Some(ExpireFrom::Moment(self.state_since_ms)),
            (Some(_), State::Stable) => self.subscribed_topics.is_some().then_some(ExpireFrom::Commit),
            (Some(_), State::PreparingRebalance | State::CompletingRebalance) => None,
        }
    }

    /// Consumers whose subscriptions could not be read count as subscribed to everything.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Whether single offsets may be deleted: while there are members, only their coordinator knowing what they read
    /// makes it safe.
    pub fn check_offset_deletion(&self) -> Result<(), GroupError> {
        match self.state {
            State::Dead => Err(GroupError::GroupIdNotFound),
            State::Empty => Ok(()),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                if self.uses_consumer_protocol() {
                    Ok(())
                } else {
                    Err(GroupError::NonEmptyGroup)
                }
            }
        }
    }
}

impl From<&Protocol> for StoredProtocol {
    fn from(protocol: &Protocol) -> StoredProtocol {
        StoredProtocol { name: protocol.name.clone(), metadata: protocol.metadata.clone() }
    }
}

impl From<StoredMember> for Member {
    fn from(stored: StoredMember) -> Member {
        let protocol = |stored: StoredProtocol| Protocol { name: stored.name, metadata: stored.metadata };
        Member {
            group_instance_id: stored.group_instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout_ms: stored.session_timeout_ms,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            protocols: stored.protocols.into_iter().map(protocol).collect(),
            assignment: stored.assignment,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            session_deadline: None,
        }
    }
}
