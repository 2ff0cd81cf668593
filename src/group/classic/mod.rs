//! One group that speaks the classic protocol: a pure state machine. Owned and called by the registry under the
//! group's lock; time comes in with each call, and what has to happen goes out as [`Effect`]s.
//!
//! | state | holds while | leaves when |
//! |---|---|---|
//! | Empty | no members | a member joins: PreparingRebalance |
//! | PreparingRebalance | members are asked to join the next generation | all have joined or their time is up: CompletingRebalance, or Empty if none is left |
//! | CompletingRebalance | the leader works out the assignment | it is durable: Stable; a member comes, goes or changes: PreparingRebalance |
//! | Stable | members heartbeat | a member comes, goes or changes: PreparingRebalance |
//! | Dead | the group's deletion is on its way to the store | it is gone, or back to Empty if that failed |
//!
//! Rooms: `join` (JoinGroup), `sync` (SyncGroup, Heartbeat, LeaveGroup, checks of offset commits), `rebalance` (the
//! phases and their timers), `members` (who is in, what they support), `snapshot` (stored form, description).
//!
//! Invariants:
//! - The generation only grows.
//! - There is a leader exactly when there are members, and it is one of them.
//! - Every [`Waiter`] that was handed in is answered once, at the latest when its deadline has passed.
//! - Each member of a new generation that waits hears of it; the leader alone hears of all members.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use indexmap::IndexMap;

use super::consumer::Changes;
use super::stored::StoredGroup;
use super::topics::Topics;
use super::{ConsumerConfig, GroupError, GroupSettings, Now};

mod join;
mod members;
mod rebalance;
mod snapshot;
mod sync;

#[cfg(test)]
mod tests;

pub use members::Protocol;
pub(super) use members::distinct;
pub use snapshot::{Description, MemberDescription};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl State {
    pub const ALL: [State; 5] =
        [State::Empty, State::PreparingRebalance, State::CompletingRebalance, State::Stable, State::Dead];

    /// As Kafka's tools show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// A request that waits for its answer. The registry keeps the way back to the client under this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Empty if the client has none yet.
    pub member_id: String,
    /// Set for a static member.
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// The member's choice, best first.
    pub protocols: Vec<Protocol>,
    /// A dynamic member without an id is told one and has to join again with it (JoinGroup 4 and later).
    pub member_id_required: bool,
    /// The client understands [`Joined::skip_assignment`] (JoinGroup 9 and later).
    pub can_skip_assignment: bool,
}

pub type JoinAnswer = Result<Joined, JoinRefused>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    /// The leader came back as a static member: it leads, and the assignment stands.
    pub skip_assignment: bool,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// For the selected protocol.
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    pub error: GroupError,
    /// The id the client should go on with; empty if it has to begin anew.
    pub member_id: String,
}

#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub generation: i32,
    /// Checked against the group's if given (SyncGroup 5 and later), as is `protocol`.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Member id and assignment; only the leader's count.
    pub assignments: Vec<(String, Bytes)>,
}

pub type SyncAnswer = Result<Synced, GroupError>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

/// Who leaves: by member id, or with an empty one by group instance id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// What the registry has to do, in this order.
#[derive(Debug)]
pub enum Effect {
    AnswerJoin(Waiter, JoinAnswer),
    AnswerSync(Waiter, SyncAnswer),
    /// Store the group, then call [`Classic::persisted`] with the outcome.
    Persist(Box<StoredGroup>, Persisting),
    /// Store what changed in a group, and do what follows when that is durable; answers that follow turn into errors if it
    /// cannot be.
    Store(Box<Changes>),
}

impl Effect {
    /// What is left of it when what it rests on could not be stored.
    pub fn failed(self) -> Effect {
        let error = GroupError::CoordinatorNotAvailable;
        match self {
            Effect::AnswerJoin(waiter, _) => {
                Effect::AnswerJoin(waiter, Err(JoinRefused { error, member_id: String::new() }))
            }
            Effect::AnswerSync(waiter, _) => Effect::AnswerSync(waiter, Err(error)),
            Effect::Persist(..) | Effect::Store(_) => self,
        }
    }
}

/// What waits for a stored group.
#[derive(Debug)]
pub enum Persisting {
    /// Nothing: the group became empty.
    Nothing,
    /// The leader's assignment for this generation.
    Assignment { generation: i32, assignments: HashMap<String, Bytes> },
    /// The answer to a static member that came back.
    Replacement(Box<Replacement>),
}

/// A static member that came back under a new id, and what to return to if that cannot be stored.
#[derive(Debug)]
pub struct Replacement {
    waiter: Waiter,
    group_instance_id: String,
    old_member_id: String,
    new_member_id: String,
    old_leader: String,
    old_protocols: Vec<Protocol>,
    old_session_timeout_ms: i32,
    old_rebalance_timeout_ms: i32,
    can_skip_assignment: bool,
}

/// What a call on the machine works with.
pub struct Step<'a> {
    pub now: Now,
    pub settings: &'a GroupSettings,
    /// Of this group.
    pub config: ConsumerConfig,
    pub topics: &'a dyn Topics,
    pub effects: &'a mut Vec<Effect>,
}

impl Step<'_> {
    fn answer_join(&mut self, waiter: Waiter, answer: JoinAnswer) {
        self.effects.push(Effect::AnswerJoin(waiter, answer));
    }

    pub(super) fn refuse_join(&mut self, waiter: Waiter, error: GroupError, member_id: &str) {
        self.answer_join(waiter, Err(JoinRefused { error, member_id: member_id.to_owned() }));
    }

    pub(super) fn answer_sync(&mut self, waiter: Waiter, answer: SyncAnswer) {
        self.effects.push(Effect::AnswerSync(waiter, answer));
    }
}

/// The timer of PreparingRebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JoinTimer {
    /// Ends the phase.
    Rebalance { at: i64 },
    /// Ends the phase, unless members came while it ran and some of the rebalance timeout is left.
    Initial { at: i64, delay_ms: i64, left_ms: i64 },
}

impl JoinTimer {
    fn at(self) -> i64 {
        match self {
            JoinTimer::Rebalance { at } | JoinTimer::Initial { at, .. } => at,
        }
    }
}

#[derive(Debug)]
pub struct Classic {
    state: State,
    /// The group came to PreparingRebalance from Empty: it waits for its timer even if all have joined.
    initial_rebalance: bool,
    /// Wall clock when the group entered its state.
    state_since_ms: i64,
    generation: i32,
    /// `None` for a group that only ever committed offsets.
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    /// In the order they joined; see `members` for what is counted beside it.
    members: IndexMap<String, members::Member>,
    /// Group instance id to member id.
    static_members: HashMap<String, String>,
    /// How many members support each protocol.
    supporters: HashMap<String, usize>,
    awaiting_join: usize,
    metadata_bytes: usize,
    /// Member ids that were handed out but have not joined yet, with the tick at which they are forgotten.
    pending_members: HashMap<String, i64>,
    /// Members of this generation that have not sent their SyncGroup yet.
    pending_syncs: HashSet<String>,
    /// The topics that the members subscribe to, if the group's members are consumers and all could be read.
    subscribed_topics: Option<BTreeSet<String>>,
    new_member_added: bool,
    join_timer: Option<JoinTimer>,
    sync_deadline: Option<i64>,
    /// The earliest deadline that was set since the registry last asked.
    armed: Option<i64>,
}

impl Classic {
    pub fn new(now: Now) -> Classic {
        Classic {
            state: State::Empty,
            initial_rebalance: false,
            state_since_ms: now.wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: IndexMap::new(),
            static_members: HashMap::new(),
            supporters: HashMap::new(),
            awaiting_join: 0,
            metadata_bytes: 0,
            pending_members: HashMap::new(),
            pending_syncs: HashSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            join_timer: None,
            sync_deadline: None,
            armed: None,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Nothing is worth keeping: no members, none on the way, never a generation. (Offsets are the registry's to ask.)
    pub fn is_blank(&self) -> bool {
        self.state == State::Empty && self.generation == 0 && self.pending_members.is_empty()
    }

    /// True if the group may be deleted without disturbing anyone.
    pub fn is_deserted(&self) -> bool {
        self.state == State::Empty && self.pending_members.is_empty()
    }

    /// Takes an Empty group out of service while its deletion is stored.
    pub fn begin_deletion(&mut self) -> Result<(), GroupError> {
        match self.state {
            State::Empty => {
                self.state = State::Dead;
                self.pending_members.clear();
                Ok(())
            }
            State::Dead => Err(GroupError::GroupIdNotFound),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => Err(GroupError::NonEmptyGroup),
        }
    }

    /// The deletion could not be stored.
    pub fn undo_deletion(&mut self) {
        if self.state == State::Dead {
            self.state = State::Empty;
        }
    }

    fn enter(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since_ms = now.wall_ms;
    }

    fn arm(&mut self, deadline: i64) {
        self.armed = Some(self.armed.map_or(deadline, |armed| armed.min(deadline)));
    }

    /// The earliest deadline set since the last call: when [`Classic::fire`] wants to be called, unless an earlier time
    /// is known already.
    pub fn take_armed(&mut self) -> Option<i64> {
        self.armed.take()
    }
}
