//! The rules one by one (`rules`), and random histories against the invariants (`histories`).

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::group::subscription::subscription;
use crate::group::topics::TestTopics;

mod histories;
mod rules;

/// A group with its clock, its clients' answers, and what it wants stored.
pub struct Bench {
    pub group: Classic,
    pub now: Now,
    pub settings: GroupSettings,
    pub joins: HashMap<Waiter, JoinAnswer>,
    pub syncs: HashMap<Waiter, SyncAnswer>,
    pub persists: VecDeque<(StoredGroup, Persisting)>,
    answered: HashSet<Waiter>,
    ids: u64,
}

pub fn protocols(names: &[&str], topics: &[&str]) -> Vec<Protocol> {
    names.iter().map(|name| Protocol { name: (*name).into(), metadata: subscription(topics) }).collect()
}

/// A consumer of topic `t` that knows `range`, as JoinGroup 5 sends it.
pub fn request(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"], &["t"]),
        member_id_required: true,
        can_skip_assignment: false,
    }
}

pub fn static_request(member_id: &str, instance: &str) -> JoinRequest {
    JoinRequest { group_instance_id: Some(instance.into()), ..request(member_id) }
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(GroupSettings::default())
    }

    pub fn with(settings: GroupSettings) -> Bench {
        let now = Now { tick_ms: 0, wall_ms: 1_000_000 };
        Bench {
            group: Classic::new(now),
            now,
            settings,
            joins: HashMap::new(),
            syncs: HashMap::new(),
            persists: VecDeque::new(),
            answered: HashSet::new(),
            ids: 0,
        }
    }

    pub fn step<R>(&mut self, act: impl FnOnce(&mut Classic, &mut Step) -> R) -> R {
        let mut effects = Vec::new();
        let mut step = Step {
            now: self.now,
            settings: &self.settings,
            config: self.settings.consumer,
            topics: &TestTopics::default(),
            effects: &mut effects,
        };
        let result = act(&mut self.group, &mut step);
        for effect in effects {
            match effect {
                Effect::AnswerJoin(waiter, answer) => {
                    assert!(self.answered.insert(waiter), "{waiter:?} is answered twice");
                    self.joins.insert(waiter, answer);
                }
                Effect::AnswerSync(waiter, answer) => {
                    assert!(self.answered.insert(waiter), "{waiter:?} is answered twice");
                    self.syncs.insert(waiter, answer);
                }
                Effect::Persist(stored, persisting) => self.persists.push_back((*stored, persisting)),
                Effect::Store(changes) => panic!("a classic group stores itself whole: {changes:?}"),
            }
        }
        result
    }

    fn waiter(&mut self) -> Waiter {
        self.ids += 1;
        Waiter(self.ids)
    }

    pub fn join(&mut self, request: JoinRequest) -> Waiter {
        let waiter = self.waiter();
        let fresh = Uuid::from_u128(waiter.0.into());
        self.step(|group, step| group.join(step, request, fresh, waiter));
        waiter
    }

    /// A dynamic member's first two joins.
    pub fn join_new(&mut self, request: JoinRequest) -> (String, Waiter) {
        let refused = self.join(request.clone());
        let refused = self.joins.remove(&refused).expect("answered at once").unwrap_err();
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        let waiter = self.join(JoinRequest { member_id: refused.member_id.clone(), ..request });
        (refused.member_id, waiter)
    }

    pub fn joined(&mut self, waiter: Waiter) -> Joined {
        self.joins.remove(&waiter).expect("no answer yet").expect("refused")
    }

    pub fn join_error(&mut self, waiter: Waiter) -> GroupError {
        self.joins.remove(&waiter).expect("no answer yet").expect_err("accepted").error
    }

    pub fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Waiter {
        let waiter = self.waiter();
        let request = SyncRequest {
            member_id: member_id.into(),
            group_instance_id: None,
            generation,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignments: assignments
                .iter()
                .map(|(id, bytes)| ((*id).into(), Bytes::from_static(bytes.as_bytes())))
                .collect(),
        };
        self.step(|group, step| group.sync(step, request, waiter));
        waiter
    }

    pub fn assignment(&mut self, waiter: Waiter) -> Bytes {
        self.syncs.remove(&waiter).expect("no answer yet").expect("refused").assignment
    }

    pub fn sync_error(&mut self, waiter: Waiter) -> GroupError {
        self.syncs.remove(&waiter).expect("no answer yet").expect_err("accepted")
    }

    pub fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        self.step(|group, step| group.heartbeat(step, member_id, None, generation))
    }

    pub fn leave(&mut self, member_ids: &[&str]) -> Vec<Result<(), GroupError>> {
        let leavers: Vec<Leaver> =
            member_ids.iter().map(|id| Leaver { member_id: (*id).into(), group_instance_id: None }).collect();
        self.step(|group, step| group.leave(step, &leavers)).unwrap()
    }

    /// Answers the oldest write.
    pub fn persist(&mut self, durable: bool) -> StoredGroup {
        let (stored, persisting) = self.persists.pop_front().expect("nothing to store");
        self.step(|group, step| group.persisted(step, persisting, durable));
        stored
    }

    /// Time passes, and every timer on the way fires.
    pub fn advance(&mut self, ms: i64) {
        let end = self.now.tick_ms + ms;
        while let Some(at) = self.group.next_deadline().filter(|at| *at <= end) {
            self.set_tick(at.max(self.now.tick_ms));
            self.step(|group, step| group.fire(step));
        }
        self.set_tick(end);
    }

    fn set_tick(&mut self, tick_ms: i64) {
        self.now.wall_ms += tick_ms - self.now.tick_ms;
        self.now.tick_ms = tick_ms;
    }

    /// A stable group of `members`; the first leads. Answers their ids and the generation.
    pub fn stable(&mut self, members: usize) -> (Vec<String>, i32) {
        self.stable_of((0..members).map(|_| request("")).collect())
    }

    pub fn stable_of(&mut self, requests: Vec<JoinRequest>) -> (Vec<String>, i32) {
        let mut ids: Vec<String> = Vec::new();
        let mut waiters = Vec::new();
        for request in &requests {
            let waiter = if request.group_instance_id.is_some() {
                self.join(request.clone())
            } else {
                self.join_new(request.clone()).1
            };
            // Each newcomer throws those before it back into the rebalance.
            for (id, request) in ids.iter().zip(&requests) {
                waiters.push(self.join(JoinRequest { member_id: id.clone(), ..request.clone() }));
            }
            let joined = self.joined(waiter);
            ids.push(joined.member_id);
        }
        let generation = self.group.generation;
        let assignments: Vec<(&str, &'static str)> =
            ids.iter().zip(["zero", "one", "two", "three", "four"]).map(|(id, name)| (id.as_str(), name)).collect();
        let syncs: Vec<Waiter> =
            ids.iter().map(|id| self.sync(id, generation, if *id == ids[0] { &assignments } else { &[] })).collect();
        self.persist(true);
        for waiter in syncs {
            self.assignment(waiter);
        }
        assert_eq!(self.group.state(), State::Stable);
        self.joins.clear();
        self.persists.clear();
        (ids, generation)
    }

    /// The group as a restart finds it.
    pub fn restart(&mut self, stored: StoredGroup) {
        self.group = self.step(|_, step| Classic::load(step, stored));
        self.persists.clear();
    }
}
