//! A group with clients as they behave: what they hold, what they say, what they hear or miss.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::group::topics::TestTopics;
use crate::group::{ConsumerConfig, GroupSettings, Now};

mod histories;
mod migration;
mod rules;

pub(super) struct Fixture {
    pub group: Consumer,
    pub topics: TestTopics,
    pub settings: GroupSettings,
    pub config: ConsumerConfig,
    pub now: Now,
    pub effects: Vec<Effect>,
    next_id: u128,
}

impl Fixture {
    pub fn new() -> Fixture {
        let settings = GroupSettings::default();
        Fixture {
            group: Consumer::default(),
            topics: TestTopics::default(),
            config: settings.consumer,
            settings,
            now: Now { tick_ms: 0, wall_ms: 1_000_000 },
            effects: Vec::new(),
            next_id: 1 << 64,
        }
    }

    pub fn with_topics(topics: &[(&str, u32)]) -> Fixture {
        let fixture = Fixture::new();
        topics.iter().for_each(|(name, partitions)| fixture.topics.set(name, *partitions));
        fixture
    }

    pub fn step<R>(&mut self, act: impl FnOnce(&mut Consumer, &mut Step, Uuid) -> R) -> R {
        self.next_id += 1;
        let mut step = Step {
            now: self.now,
            settings: &self.settings,
            config: self.config,
            topics: &self.topics,
            effects: &mut self.effects,
        };
        let result = act(&mut self.group, &mut step, Uuid::from_u128(self.next_id));
        self.check();
        result
    }

    pub fn beat(&mut self, request: HeartbeatRequest) -> Result<HeartbeatAnswer, GroupError> {
        request.check()?;
        self.step(|group, step, fresh| group.heartbeat(step, request, fresh))
    }

    pub fn advance(&mut self, ms: i64) {
        self.now.tick_ms += ms;
        self.now.wall_ms += ms;
        self.step(|group, step, _| group.fire(step));
    }

    /// What the module promises.
    pub fn check(&self) {
        let group = &self.group;
        let mut held = std::collections::HashMap::new();
        let mut bytes = 0;
        for (member_id, member) in &group.members {
            bytes += heartbeat::bytes_of(member_id, member);
            assert!(member.epoch <= group.assignment_epoch.max(0), "{member_id} is ahead of its target");
            for assignment in [&member.assigned, &member.revoking] {
                for (topic, partitions) in assignment {
                    assert!(!partitions.is_empty());
                    for partition in partitions {
                        let other = held.insert((*topic, *partition), member_id.clone());
                        assert_eq!(other, None, "{partition} of {topic} is held twice");
                    }
                }
            }
            if let Some(instance) = &member.group_instance_id {
                assert_eq!(group.static_members.get(instance), Some(member_id));
            }
        }
        assert_eq!(group.holders, held);
        assert_eq!(group.bytes, bytes);
        assert!(group.group_epoch >= group.assignment_epoch);
        assert!(group.static_members.values().all(|member_id| group.members.contains_key(member_id)));
    }

    pub fn topic_id(&self, name: &str) -> Uuid {
        use crate::group::topics::Topics;
        self.topics.topic(name).unwrap().id
    }

    pub fn member(&self, member_id: &str) -> &Member {
        &self.group.members[member_id]
    }
}

/// A consumer as KIP-848 wants it: it holds partitions, lets go of them when told to, and says so.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub member_id: String,
    pub instance: Option<String>,
    pub topics: Vec<String>,
    pub regex: Option<String>,
    pub epoch: i32,
    pub holds: Assignment,
    /// What it was last told to have.
    told: Assignment,
    /// It says everything with the next heartbeat.
    full: bool,
}

impl Client {
    pub fn new(member_id: &str, topics: &[&str]) -> Client {
        Client {
            member_id: member_id.to_owned(),
            instance: None,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            regex: None,
            epoch: JOIN,
            holds: Assignment::new(),
            told: Assignment::new(),
            full: true,
        }
    }

    pub fn request(&self) -> HeartbeatRequest {
        let owned = self.holds.iter().map(|(topic, held)| (*topic, held.iter().map(|one| *one as i32).collect()));
        let full = self.full || self.epoch == JOIN;
        HeartbeatRequest {
            member_id: self.member_id.clone(),
            member_epoch: self.epoch,
            group_instance_id: self.instance.clone(),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rack_id: None,
            rebalance_timeout_ms: full.then_some(60_000),
            subscribed_topics: full.then(|| self.topics.clone()),
            subscribed_regex: self.regex.clone().filter(|_| full),
            server_assignor: None,
            owned: Some(owned.collect()),
        }
    }

    /// Takes the coordinator's answer: gives up what it is to give up, takes the rest.
    pub fn hear(&mut self, answer: Result<HeartbeatAnswer, GroupError>) {
        match answer {
            Ok(answer) => {
                self.epoch = answer.member_epoch;
                self.full = false;
                if let Some(assignment) = answer.assignment {
                    self.told = assignment;
                }
                self.holds = self.told.clone();
            }
            Err(GroupError::FencedMemberEpoch | GroupError::UnknownMemberId) => self.abandon(),
            Err(_) => {}
        }
    }

    pub fn abandon(&mut self) {
        self.epoch = JOIN;
        self.full = true;
        self.holds.clear();
        self.told.clear();
    }

    pub fn beat(&mut self, fixture: &mut Fixture) -> Result<HeartbeatAnswer, GroupError> {
        let answer = fixture.beat(self.request());
        self.hear(answer.clone());
        answer
    }

    /// The answer gets lost on its way.
    pub fn beat_unheard(&mut self, fixture: &mut Fixture) {
        let _ = fixture.beat(self.request());
        self.full = true;
    }

    pub fn leave(&mut self, fixture: &mut Fixture, epoch: i32) -> Result<HeartbeatAnswer, GroupError> {
        let request = HeartbeatRequest {
            member_id: self.member_id.clone(),
            member_epoch: epoch,
            group_instance_id: self.instance.clone(),
            ..HeartbeatRequest::default()
        };
        self.abandon();
        fixture.beat(request)
    }

    pub fn partitions(&self, topic: Uuid) -> Vec<u32> {
        self.holds.get(&topic).into_iter().flatten().copied().collect()
    }

    pub fn count(&self) -> usize {
        self.holds.values().map(BTreeSet::len).sum()
    }
}

/// Heartbeats of all until nothing moves any more.
pub(super) fn settle(fixture: &mut Fixture, clients: &mut [Client]) {
    for _ in 0..20 {
        for client in clients.iter_mut() {
            let _ = client.beat(fixture);
        }
    }
}

/// No partition in two hands, all in some: by topic, how many are held.
pub(super) fn held(clients: &[Client]) -> BTreeMap<Uuid, usize> {
    let mut held: BTreeMap<Uuid, BTreeSet<u32>> = BTreeMap::new();
    for client in clients {
        for (topic, partitions) in &client.holds {
            for partition in partitions {
                assert!(held.entry(*topic).or_default().insert(*partition), "{partition} of {topic} in two hands");
            }
        }
    }
    held.into_iter().map(|(topic, partitions)| (topic, partitions.len())).collect()
}
