//! Who belongs to a share group and which partitions each member reads. Pure: the state machine of one group, owned and
//! called by the registry under the group's lock.
//!
//! Every change of members, of what they subscribe to, or of the topics behind that begins a new epoch and a new
//! assignment at once. A member moves to the group's epoch with its next heartbeat; nobody has to give anything up first,
//! for two may read one partition.
//!
//! Source: KIP-932; the behaviour of Apache Kafka 4's share groups.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{MEMBER_TOPICS_MAX, ShareError};

mod assignor;
#[cfg(test)]
mod tests;

/// The name of the only assignor.
pub const ASSIGNOR: &str = "simple";

/// Epoch with which a member joins, and with which it leaves.
pub const JOIN_EPOCH: i32 = 0;
pub const LEAVE_EPOCH: i32 = -1;

/// Partitions by topic id.
pub type Assignment = BTreeMap<Uuid, BTreeSet<u32>>;

/// Topics that someone is subscribed to, as far as they exist: their ids and how many partitions they have.
pub type Topics = BTreeMap<String, (Uuid, u32)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    epoch: i32,
    members: BTreeMap<String, Member>,
    /// What the assignment rests on.
    topics: Topics,
}

/// A member. Stored as JSON with these field names, but for its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub epoch: i32,
    /// The one before, for a member that did not hear of the newest.
    pub previous_epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub rack_id: Option<String>,
    pub subscribed: BTreeSet<String>,
    #[serde(with = "assignment_text")]
    pub assignment: Assignment,
    /// When its session ends, on the clock that never goes back.
    #[serde(skip)]
    deadline_ms: i64,
}

/// What a member says; topics only where it says them.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub member_id: String,
    pub epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub rack_id: Option<String>,
    pub subscribed: Option<BTreeSet<String>>,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    pub epoch: i32,
    /// Where it may be another than it was.
    pub assignment: Option<Assignment>,
}

/// The settings of the group that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub session_timeout_ms: i64,
    pub members_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    Stable,
}

impl State {
    pub const ALL: [State; 2] = [State::Empty, State::Stable];

    /// As Kafka's tools show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Stable => "Stable",
        }
    }
}

impl Membership {
    /// The group as it was stored. Sessions begin anew.
    pub fn load(epoch: i32, mut members: BTreeMap<String, Member>, deadline_ms: i64) -> Membership {
        members.values_mut().for_each(|member| member.deadline_ms = deadline_ms);
        Membership { epoch, members, topics: Topics::new() }
    }

    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    pub fn state(&self) -> State {
        if self.members.is_empty() { State::Empty } else { State::Stable }
    }

    /// The names that an answer to this heartbeat may depend on.
    pub fn names(&self, beat: &Heartbeat) -> BTreeSet<String> {
        let known = self.members.values().flat_map(|member| &member.subscribed);
        known.chain(beat.subscribed.iter().flatten()).cloned().collect()
    }

    /// A member joins, goes on, or says something new. `topics` are those of [`Membership::names`] that exist. True if
    /// what is stored is another.
    pub fn beat(
        &mut self,
        beat: Heartbeat,
        topics: Topics,
        rules: Rules,
        now_ms: i64,
    ) -> Result<(Beat, bool), ShareError> {
        let joins = beat.epoch == JOIN_EPOCH;
        self.check(&beat, rules)?;
        let says = beat.subscribed.is_some();
        let fresh = Member::new(&beat);
        let is_new = !self.members.contains_key(&beat.member_id);
        let member = self.members.entry(beat.member_id.clone()).or_insert(fresh);
        member.deadline_ms = now_ms.saturating_add(rules.session_timeout_ms);
        let changed = member.take(beat.subscribed, beat.rack_id, beat.client_id, beat.client_host);
        let stale = is_new || changed || self.has_changed(&topics);
        if stale {
            self.topics = topics;
            self.next_epoch();
        }
        let epoch = self.epoch;
        let member = self.members.get_mut(&beat.member_id).ok_or(ShareError::UnknownMemberId)?;
        let moves = member.epoch != epoch;
        if moves {
            member.previous_epoch = member.epoch;
            member.epoch = epoch;
        }
        let assignment = (joins || says || moves).then(|| member.assignment.clone());
        Ok((Beat { epoch, assignment }, stale || moves))
    }

    fn check(&self, beat: &Heartbeat, rules: Rules) -> Result<(), ShareError> {
        if beat.subscribed.as_ref().is_some_and(|topics| topics.len() > MEMBER_TOPICS_MAX) {
            return Err(ShareError::InvalidRequest);
        }
        match self.members.get(&beat.member_id) {
            None if beat.epoch != JOIN_EPOCH => Err(ShareError::UnknownMemberId),
            None if self.members.len() >= rules.members_max => Err(ShareError::GroupMaxSizeReached),
            None => Ok(()),
            Some(member) => member.check(beat.epoch),
        }
    }

    /// A member goes.
    pub fn leave(&mut self, member_id: &str) -> Result<(), ShareError> {
        self.members.remove(member_id).ok_or(ShareError::UnknownMemberId)?;
        self.next_epoch();
        Ok(())
    }

    /// Those whose sessions have ended go; how many there were.
    pub fn expire(&mut self, now_ms: i64) -> usize {
        let before = self.members.len();
        self.members.retain(|_, member| member.deadline_ms > now_ms);
        let gone = before - self.members.len();
        if gone > 0 {
            self.next_epoch();
        }
        gone
    }

    /// When the next session ends.
    pub fn next_deadline(&self) -> Option<i64> {
        self.members.values().map(|member| member.deadline_ms).min()
    }

    fn has_changed(&self, topics: &Topics) -> bool {
        self.topics != *topics
    }

    fn next_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        let mut assigned: BTreeMap<String, Assignment> = BTreeMap::new();
        for (name, (topic_id, partitions)) in &self.topics {
            let subscribers: Vec<(&String, &Member)> =
                self.members.iter().filter(|(_, member)| member.subscribed.contains(name)).collect();
            let current: Vec<BTreeSet<u32>> = subscribers
                .iter()
                .map(|(_, member)| member.assignment.get(topic_id).cloned().unwrap_or_default())
                .collect();
            let shares = assignor::assign(*partitions, &current);
            for ((member_id, _), share) in subscribers.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
                assigned.entry((*member_id).clone()).or_default().insert(*topic_id, share);
            }
        }
        for (member_id, member) in &mut self.members {
            member.assignment = assigned.remove(member_id).unwrap_or_default();
        }
    }
}

impl Member {
    fn new(beat: &Heartbeat) -> Member {
        Member {
            epoch: 0,
            previous_epoch: 0,
            client_id: String::new(),
            client_host: String::new(),
            rack_id: beat.rack_id.clone(),
            subscribed: BTreeSet::new(),
            assignment: Assignment::new(),
            deadline_ms: 0,
        }
    }

    fn check(&self, epoch: i32) -> Result<(), ShareError> {
        let known = [JOIN_EPOCH, self.epoch, self.previous_epoch].contains(&epoch);
        if known { Ok(()) } else { Err(ShareError::FencedMemberEpoch) }
    }

    /// True if it subscribes to something else than before.
    fn take(
        &mut self,
        subscribed: Option<BTreeSet<String>>,
        rack_id: Option<String>,
        client_id: String,
        client_host: String,
    ) -> bool {
        (self.client_id, self.client_host) = (client_id, client_host);
        self.rack_id = rack_id.or(self.rack_id.take());
        match subscribed {
            Some(subscribed) if subscribed != self.subscribed => {
                self.subscribed = subscribed;
                true
            }
            Some(_) | None => false,
        }
    }
}

/// An assignment in JSON: an object with topic ids as its names.
mod assignment_text {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    use super::Assignment;

    pub fn serialize<S: Serializer>(assignment: &Assignment, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(assignment.iter().map(|(topic_id, partitions)| (topic_id.to_string(), partitions)))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(input: D) -> Result<Assignment, D::Error> {
        let texts = BTreeMap::<String, BTreeSet<u32>>::deserialize(input)?;
        let parsed =
            |(text, partitions): (String, _)| Ok((Uuid::try_parse(&text).map_err(D::Error::custom)?, partitions));
        texts.into_iter().map(parsed).collect()
    }
}
