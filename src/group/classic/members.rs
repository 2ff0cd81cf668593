//! Who is in the group, who leads it, and which protocols all members share.
//!
//! Every change of `members` goes through this room, because counts are kept beside it: supporters of each protocol,
//! members awaiting a join, bytes of metadata, static members.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;

use super::{Classic, GroupError, JoinRefused, JoinRequest, State, Step, Waiter};
use crate::group::subscription::{CONSUMER_PROTOCOL_TYPE, read_topics};

/// A way to assign (`range`, `cooperative-sticky`, ...) with what the member says to its leader about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

#[derive(Debug)]
pub(super) struct Member {
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// Best first, each name once.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    pub awaiting_join: Option<Waiter>,
    pub awaiting_sync: Option<Waiter>,
    /// Has never been part of a generation: it may not know its own id, so waiting does not keep it in.
    pub is_new: bool,
    /// `None` after it passed while the member waited for an answer; the answer sets it anew.
    pub session_deadline: Option<i64>,
}

impl Member {
    pub fn new(request: JoinRequest) -> Member {
        Member {
            group_instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: distinct(request.protocols),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
            session_deadline: None,
        }
    }

    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let selected = self.protocols.iter().find(|supported| Some(supported.name.as_str()) == protocol);
        selected.map_or_else(Bytes::new, |supported| supported.metadata.clone())
    }

    /// Members that wait for an answer cannot heartbeat.
    pub fn is_excused(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}

/// The first of each name.
pub fn distinct(protocols: Vec<Protocol>) -> Vec<Protocol> {
    let mut seen = HashSet::new();
    protocols.into_iter().filter(|protocol| seen.insert(protocol.name.clone())).collect()
}

pub(super) fn metadata_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len()).sum()
}

impl Classic {
    /// Takes a member in. The first one gives the group its protocol type, and any first one leads.
    pub(super) fn insert(&mut self, member_id: &str, member: Member, protocol_type: Option<String>) {
        self.pending_members.remove(member_id);
        if self.members.is_empty() {
            self.protocol_type = protocol_type;
        }
        if let Some(instance) = &member.group_instance_id {
            self.static_members.insert(instance.clone(), member_id.to_owned());
        }
        self.count_protocols(&member.protocols);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.leader.get_or_insert_with(|| member_id.to_owned());
        self.members.insert(member_id.to_owned(), member);
    }

    /// Puts a member or a pending one out; whatever it waits for is answered with `error`.
    pub(super) fn remove(&mut self, step: &mut Step, member_id: &str, error: GroupError) {
        self.pending_members.remove(member_id);
        self.pending_syncs.remove(member_id);
        let Some(member) = self.members.shift_remove(member_id) else { return };
        self.uncount_protocols(&member.protocols);
        if let Some(instance) = &member.group_instance_id {
            self.static_members.remove(instance);
        }
        if let Some(waiter) = member.awaiting_join {
            self.awaiting_join -= 1;
            step.refuse_join(waiter, error, "");
        }
        if let Some(waiter) = member.awaiting_sync {
            step.answer_sync(waiter, Err(error));
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.first().map(|(first, _)| first.clone());
        }
    }

    /// Gives a static member a new id. Whoever still waits under the old one is fenced.
    pub(super) fn replace_static(&mut self, step: &mut Step, instance: &str, old_id: &str, new_id: &str) {
        let Some((index, _, mut member)) = self.members.swap_remove_full(old_id) else { return };
        if let Some(waiter) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            let refused = JoinRefused { error: GroupError::FencedInstanceId, member_id: old_id.to_owned() };
            step.answer_join(waiter, Err(refused));
        }
        if let Some(waiter) = member.awaiting_sync.take() {
            step.answer_sync(waiter, Err(GroupError::FencedInstanceId));
        }
        // From here on its waiting keeps it in: it may take longer than its session.
        member.is_new = false;
        let (appended, _) = self.members.insert_full(new_id.to_owned(), member);
        self.members.swap_indices(index, appended);
        if self.leader.as_deref() == Some(old_id) {
            self.leader = Some(new_id.to_owned());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.to_owned());
        }
        self.static_members.insert(instance.to_owned(), new_id.to_owned());
    }

    /// Takes over what a member that joins again says of itself.
    pub(super) fn update(
        &mut self,
        member_id: &str,
        protocols: Vec<Protocol>,
        session_timeout_ms: i32,
        rebalance_timeout_ms: i32,
    ) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.session_timeout_ms = session_timeout_ms;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        let old = std::mem::replace(&mut member.protocols, protocols.clone());
        self.uncount_protocols(&old);
        self.count_protocols(&protocols);
    }

    /// The member waits for the next generation from now on. A join it sent before and gave up on is let go.
    pub(super) fn await_join(&mut self, step: &mut Step, member_id: &str, waiter: Waiter) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        match member.awaiting_join.replace(waiter) {
            Some(earlier) => step.refuse_join(earlier, GroupError::RebalanceInProgress, member_id),
            None => self.awaiting_join += 1,
        }
    }

    pub(super) fn take_join_waiter(&mut self, member_id: &str) -> Option<Waiter> {
        let waiter = self.members.get_mut(member_id)?.awaiting_join.take()?;
        self.awaiting_join -= 1;
        Some(waiter)
    }

    /// Whether a request may speak for this member.
    pub(super) fn check_member(&self, member_id: &str, group_instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = group_instance_id {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(super) fn all_joined(&self) -> bool {
        self.awaiting_join == self.members.len() && self.pending_members.is_empty()
    }

    /// The longest time any member needs to come to a rebalance.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    /// Whether a member with these protocols can take part: some protocol must be one that all members support.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.supporter_count(&protocol.name) == self.members.len())
    }

    /// Each member votes for its first choice among the protocols that all support; the most votes win, and of equals
    /// the one that was voted for first.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|protocol| protocol.name.as_str());
            let Some(choice) = names.find(|name| self.supporter_count(name) == self.members.len()) else { continue };
            match votes.iter_mut().find(|(name, _)| *name == choice) {
                Some((_, count)) => *count += 1,
                None => votes.push((choice, 1)),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).to_owned())
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Reads the topics anew; for when the protocol has been selected.
    pub(super) fn read_subscriptions(&mut self) {
        self.subscribed_topics = self.uses_consumer_protocol().then(BTreeSet::new).and_then(|mut topics| {
            for member in self.members.values() {
                read_topics(&member.metadata(self.protocol.as_deref()), &mut topics)?;
            }
            Some(topics)
        });
    }

    fn supporter_count(&self, protocol: &str) -> usize {
        self.supporters.get(protocol).copied().unwrap_or(0)
    }

    fn count_protocols(&mut self, protocols: &[Protocol]) {
        self.metadata_bytes += metadata_bytes(protocols);
        for protocol in protocols {
            *self.supporters.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn uncount_protocols(&mut self, protocols: &[Protocol]) {
        self.metadata_bytes -= metadata_bytes(protocols);
        for protocol in protocols {
            if let Some(count) = self.supporters.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(&protocol.name);
                }
            }
        }
    }
}
