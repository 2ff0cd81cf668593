//! One group whose members leave the assignment to the coordinator (KIP-848): a pure state machine. Owned and called by
//! the registry under the group's lock; time comes in with each call, and what has to happen goes out as [`Effect`]s.
//!
//! Three epochs carry it. The *group epoch* steps when a subscription or a topic changes, or a member goes. The *target
//! assignment* is computed for the newest group epoch, at the next heartbeat of whichever member. Each *member epoch*
//! follows once the member has given up what the target takes from it; a partition goes to its next owner when the
//! former one has said that it let go, has left, or was put out.
//!
//! | member | holds while | leaves when |
//! |---|---|---|
//! | Stable | it has what the target of its epoch says | there is a newer target |
//! | UnrevokedPartitions | it has to give up partitions, and stays in its epoch | it no longer reports them; its rebalance timeout puts it out |
//! | UnreleasedPartitions | it is in the newest epoch, and others still hold some of its partitions | they let go |
//!
//! Rooms: `heartbeat` (ConsumerGroupHeartbeat: joining, going on, leaving), `subscriptions` (which topics there are for
//! whom), `assign` (the target: `uniform` and `range`), `reconcile` (each member's way to it, and who holds which
//! partition), `bridge` (members that speak the classic protocol, and the way from and to a classic group), `timers`,
//! `snapshot` (stored form, description).
//!
//! Invariants:
//! - A partition is held by at most one member: in its `assigned` or in its `revoking`, and in `holders`.
//! - Group epoch >= assignment epoch >= every member's epoch, but for the -2 of a static member that is away.
//! - What changed is handed to the store before any answer that rests on it ([`Effect::Store`]).
//!
//! Source: KIP-848, KIP-1082 (members make their own ids), Apache Kafka 4's group coordinator.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;
use uuid::Uuid;

use super::GroupError;
use super::classic::{Effect, Protocol, Step};
use super::stored::{StoredConsumerMember, StoredHead};
use super::topics::Topic;

mod assign;
mod bridge;
mod heartbeat;
mod reconcile;
mod snapshot;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timers;

pub use assign::ASSIGNORS;
pub use snapshot::{ConsumerDescription, ConsumerMemberDescription};
pub use subscriptions::REGEXES_MAX;

/// Partitions by topic. No topic without partitions.
pub type Assignment = BTreeMap<Uuid, BTreeSet<u32>>;

/// The epoch with which a member joins.
pub const JOIN: i32 = 0;
/// The epoch with which a member leaves.
pub const LEAVE: i32 = -1;
/// The epoch with which a static member leaves for a while.
pub const LEAVE_FOR_A_WHILE: i32 = -2;

#[derive(Clone, Debug, Default)]
pub struct HeartbeatRequest {
    /// Empty if the coordinator is to make one up (version 0).
    pub member_id: String,
    pub member_epoch: i32,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Here and below: `None` if it did not change.
    pub rack_id: Option<String>,
    pub rebalance_timeout_ms: Option<i32>,
    pub subscribed_topics: Option<Vec<String>>,
    /// An empty one takes it back.
    pub subscribed_regex: Option<String>,
    pub server_assignor: Option<String>,
    /// Topic ids and partition indexes.
    pub owned: Option<Vec<(Uuid, Vec<i32>)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    pub member_id: String,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// `None` if it did not change.
    pub assignment: Option<Assignment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerState {
    Empty,
    /// The target is older than the group epoch: the next heartbeat computes it.
    Assigning,
    Reconciling,
    Stable,
    /// Its deletion is on its way to the store.
    Dead,
}

impl ConsumerState {
    /// All but Dead, in which no group is seen.
    pub const SEEN: [ConsumerState; 4] =
        [ConsumerState::Empty, ConsumerState::Assigning, ConsumerState::Reconciling, ConsumerState::Stable];

    /// As Kafka's tools show it.
    pub fn name(self) -> &'static str {
        match self {
            ConsumerState::Empty => "Empty",
            ConsumerState::Assigning => "Assigning",
            ConsumerState::Reconciling => "Reconciling",
            ConsumerState::Stable => "Stable",
            ConsumerState::Dead => "Dead",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MemberState {
    Stable,
    UnrevokedPartitions,
    UnreleasedPartitions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    group_instance_id: Option<String>,
    rack_id: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout_ms: i32,
    server_assignor: Option<String>,
    topics: BTreeSet<String>,
    regex: Option<String>,
    epoch: i32,
    previous_epoch: i32,
    state: MemberState,
    assigned: Assignment,
    /// What the member holds beyond `assigned` until it says that it let go.
    revoking: Assignment,
    /// By the group's assignment epoch.
    target: Assignment,
    /// Set while the member speaks the classic protocol.
    classic: Option<ClassicSide>,
    deadlines: Deadlines,
}

/// What a member said of itself in the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ClassicSide {
    session_timeout_ms: i32,
    /// Best first.
    protocols: Vec<Protocol>,
}

/// When a member is put out, by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Deadlines {
    /// It was silent.
    session: Option<i64>,
    /// It did not give up its partitions.
    rebalance: Option<i64>,
    /// Of the classic protocol: it did not join again when told to.
    join: Option<i64>,
    /// Of the classic protocol: it did not come for its assignment.
    sync: Option<i64>,
}

/// What has to be stored: `None` where it is to be deleted.
#[derive(Debug, Default)]
pub struct Changes {
    pub head: Option<StoredHead>,
    pub members: Vec<(String, Option<StoredConsumerMember>)>,
}

impl Changes {
    /// Adds what changed later.
    pub fn extend(&mut self, later: Changes) {
        self.head = later.head.or(self.head.take());
        self.members.extend(later.members);
    }
}

#[derive(Debug, Default)]
pub struct Consumer {
    group_epoch: i32,
    assignment_epoch: i32,
    /// By member id, in the order they came.
    members: IndexMap<String, Member>,
    /// Group instance id to member id.
    static_members: HashMap<String, String>,
    /// Who holds each partition.
    holders: HashMap<(Uuid, u32), String>,
    /// The topics that members are subscribed to and that exist, by name.
    subscribed: BTreeMap<String, Topic>,
    /// Of `subscribed`, as it was when the group epoch stepped last.
    metadata_hash: u64,
    /// Of the topics when `subscribed` was made; `None` if they are to be looked at again.
    topics_version: Option<u64>,
    /// Every regular expression of the members, with the topics that it matches.
    regexes: BTreeMap<String, BTreeSet<String>>,
    /// Bytes that members hold in names, subscriptions and protocols.
    bytes: usize,
    dead: bool,
    head_changed: bool,
    members_changed: BTreeSet<String>,
    /// The earliest deadline that was set since the registry last asked.
    armed: Option<i64>,
}

impl Consumer {
    pub fn state(&self) -> ConsumerState {
        if self.dead {
            ConsumerState::Dead
        } else if self.members.is_empty() {
            ConsumerState::Empty
        } else if self.group_epoch > self.assignment_epoch {
            ConsumerState::Assigning
        } else if self.members.values().any(|member| !self.is_reconciled(member)) {
            ConsumerState::Reconciling
        } else {
            ConsumerState::Stable
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed.contains_key(topic)
    }

    /// Takes a group without members out of service while its deletion is stored.
    pub fn begin_deletion(&mut self) -> Result<(), GroupError> {
        match self.state() {
            ConsumerState::Empty => {
                self.dead = true;
                Ok(())
            }
            ConsumerState::Dead => Err(GroupError::GroupIdNotFound),
            ConsumerState::Assigning | ConsumerState::Reconciling | ConsumerState::Stable => {
                Err(GroupError::NonEmptyGroup)
            }
        }
    }

    /// The deletion could not be stored.
    pub fn undo_deletion(&mut self) {
        self.dead = false;
    }

    /// Whether a member may commit or fetch offsets with this epoch.
    pub fn check_epoch(&self, member_id: &str, epoch: i32) -> Result<(), GroupError> {
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        match member.epoch == epoch {
            true => Ok(()),
            false if member.classic.is_some() => Err(GroupError::IllegalGeneration),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }

    /// Whether offsets may be committed in this name. Without an epoch an administrator may, or a consumer that assigns
    /// itself, while nobody is in the group. A member must know of epochs, unless it is one of the classic protocol.
    pub fn check_commit(&self, member_id: &str, epoch: i32, knows_epochs: bool) -> Result<(), GroupError> {
        if self.dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        if !knows_epochs && self.members.get(member_id).is_some_and(|member| member.classic.is_none()) {
            return Err(GroupError::UnsupportedVersion);
        }
        self.check_epoch(member_id, epoch)
    }

    /// Whether a transaction may commit offsets in this name (KIP-447). A producer that does not tell the member it works
    /// for may always; one that does is told of generations, whatever its member has, as in Kafka.
    pub fn check_transactional_commit(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        if !self.dead && epoch < 0 && member_id.is_empty() && group_instance_id.is_none() {
            return Ok(());
        }
        self.check_commit(member_id, epoch, true).map_err(|error| match error {
            GroupError::StaleMemberEpoch => GroupError::IllegalGeneration,
            other => other,
        })
    }

    /// Hands what changed to the store. To be called before effects that rest on it.
    fn store(&mut self, step: &mut Step) {
        if !self.head_changed && self.members_changed.is_empty() {
            return;
        }
        let head = std::mem::take(&mut self.head_changed).then(|| StoredHead::Consumer(self.stored_head()));
        let changed = std::mem::take(&mut self.members_changed);
        let members = changed.into_iter().map(|member_id| {
            let stored = self.stored_member(&member_id);
            (member_id, stored)
        });
        let members = members.collect();
        step.effects.push(Effect::Store(Box::new(Changes { head, members })));
    }

    /// The store did not take these: they go with the next ones.
    pub fn not_stored(&mut self, changes: Changes) {
        self.head_changed |= changes.head.is_some();
        self.members_changed.extend(changes.members.into_iter().map(|(member_id, _)| member_id));
    }

    fn arm(&mut self, deadline: i64) {
        self.armed = Some(self.armed.map_or(deadline, |armed| armed.min(deadline)));
    }

    /// The earliest deadline set since the last call.
    pub fn take_armed(&mut self) -> Option<i64> {
        self.armed.take()
    }
}
