//! Random histories: several clients that join, sync, heartbeat, leave, restart and fall silent, a store that fails at
//! times, and a clock. After each step the invariants hold; at the end, once time has passed, nobody waits any more.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Join {
        client: usize,
        changed: bool,
    },
    /// As if the client had restarted: it has forgotten its member id.
    JoinAnew {
        client: usize,
    },
    Sync {
        client: usize,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Persist {
        durable: bool,
    },
    Advance {
        ms: i64,
    },
    Restart,
}

const CLIENTS: usize = 4;

fn event() -> impl Strategy<Value = Event> {
    let client = || 0..CLIENTS;
    prop_oneof![
        6 => (client(), any::<bool>()).prop_map(|(client, changed)| Event::Join { client, changed }),
        2 => client().prop_map(|client| Event::JoinAnew { client }),
        6 => client().prop_map(|client| Event::Sync { client }),
        3 => client().prop_map(|client| Event::Heartbeat { client }),
        1 => client().prop_map(|client| Event::Leave { client }),
        6 => prop::bool::weighted(0.9).prop_map(|durable| Event::Persist { durable }),
        4 => (0_i64..40_000).prop_map(|ms| Event::Advance { ms }),
        1 => Just(Event::Restart),
    ]
}

#[derive(Clone, Default)]
struct Client {
    member_id: String,
    generation: i32,
    leads: bool,
    members: Vec<String>,
    join: Option<Waiter>,
    sync: Option<Waiter>,
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    on_disk: Option<StoredGroup>,
    generation: i32,
    /// Requests that were given up by their client but must be answered all the same.
    given_up: HashSet<Waiter>,
    leaders: HashMap<i32, String>,
}

impl World {
    fn new(delay_ms: i32) -> World {
        let settings = GroupSettings { initial_rebalance_delay_ms: delay_ms, max_size: 3, ..GroupSettings::default() };
        World {
            bench: Bench::with(settings),
            clients: vec![Client::default(); CLIENTS],
            on_disk: None,
            generation: 0,
            given_up: HashSet::new(),
            leaders: HashMap::new(),
        }
    }

    /// Even clients are static members.
    fn request(&self, client: usize, member_id: &str, changed: bool) -> JoinRequest {
        JoinRequest {
            group_instance_id: (client.is_multiple_of(2)).then(|| format!("instance-{client}")),
            protocols: protocols(&["range", "sticky"], if changed { &["t", "u"] } else { &["t"] }),
            member_id_required: client == 1,
            ..request(member_id)
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Join { client, changed } => {
                let member_id = self.clients[client].member_id.clone();
                self.join(client, &member_id, changed);
            }
            Event::JoinAnew { client } => self.join(client, "", false),
            Event::Sync { client } => self.sync(client),
            Event::Heartbeat { client } => {
                let Client { member_id, generation, .. } = self.clients[client].clone();
                let answer = self.bench.heartbeat(&member_id, generation);
                let current = generation == self.bench.group.generation;
                assert!(answer.is_err() || current, "a heartbeat of another generation was accepted");
            }
            Event::Leave { client } => {
                let member_id = self.clients[client].member_id.clone();
                if !member_id.is_empty() {
                    self.bench.leave(&[&member_id]);
                }
            }
            Event::Persist { durable } => self.persist(durable),
            Event::Advance { ms } => self.bench.advance(ms),
            Event::Restart => self.restart(),
        }
        self.hear();
        self.check();
    }

    fn join(&mut self, client: usize, member_id: &str, changed: bool) {
        self.given_up.extend(self.clients[client].join.take());
        let waiter = self.bench.join(self.request(client, member_id, changed));
        self.clients[client].join = Some(waiter);
    }

    fn sync(&mut self, client: usize) {
        let Client { member_id, generation, leads, members, .. } = self.clients[client].clone();
        self.given_up.extend(self.clients[client].sync.take());
        let all: Vec<(&str, &'static str)> = members.iter().map(|id| (id.as_str(), "assigned")).collect();
        self.clients[client].sync = Some(self.bench.sync(&member_id, generation, if leads { &all } else { &[] }));
    }

    fn persist(&mut self, durable: bool) {
        if !self.bench.persists.is_empty() {
            let stored = self.bench.persist(durable);
            if durable {
                self.on_disk = Some(stored);
            }
        }
    }

    /// Connections break, so those who wait get no answer; what was durable is there again.
    fn restart(&mut self) {
        match self.on_disk.clone() {
            Some(stored) => self.bench.restart(stored),
            None => {
                self.bench.group = Classic::new(self.bench.now);
                self.bench.persists.clear();
            }
        }
        self.bench.joins.clear();
        self.bench.syncs.clear();
        self.given_up.clear();
        self.leaders.clear();
        self.generation = self.bench.group.generation;
        for client in &mut self.clients {
            client.join = None;
            client.sync = None;
        }
    }

    /// The clients take their answers.
    fn hear(&mut self) {
        for client in &mut self.clients {
            if let Some(answer) = client.join.and_then(|waiter| self.bench.joins.remove(&waiter)) {
                client.join = None;
                match answer {
                    Ok(joined) => {
                        client.leads = joined.leader == joined.member_id && !joined.skip_assignment;
                        client.members = joined.members.into_iter().map(|member| member.member_id).collect();
                        assert_eq!(client.leads, !client.members.is_empty(), "the leader alone hears of all members");
                        if client.leads {
                            let leader = self.leaders.entry(joined.generation).or_insert_with(|| joined.leader.clone());
                            assert_eq!(*leader, joined.leader, "one leader in a generation");
                        }
                        client.member_id = joined.member_id;
                        client.generation = joined.generation;
                    }
                    Err(refused) => client.member_id = refused.member_id,
                }
            }
            if client.sync.is_some_and(|waiter| self.bench.syncs.remove(&waiter).is_some()) {
                client.sync = None;
            }
        }
        self.given_up
            .retain(|waiter| self.bench.joins.remove(waiter).is_none() && self.bench.syncs.remove(waiter).is_none());
    }

    fn check(&mut self) {
        let group = &self.bench.group;
        assert!(group.generation >= self.generation, "the generation went back");
        self.generation = group.generation;
        assert_eq!(group.leader.is_some(), !group.members.is_empty());
        assert!(group.leader.as_ref().is_none_or(|leader| group.members.contains_key(leader)));
        assert_eq!(group.state == State::Empty, group.members.is_empty() && group.state != State::PreparingRebalance);
        assert_eq!(group.awaiting_join, group.members.values().filter(|member| member.awaiting_join.is_some()).count());
        let bytes = |member: &members::Member| members::metadata_bytes(&member.protocols);
        assert_eq!(group.metadata_bytes, group.members.values().map(bytes).sum::<usize>());
        for (name, count) in &group.supporters {
            let supports = |member: &&members::Member| member.protocols.iter().any(|protocol| protocol.name == *name);
            assert_eq!(*count, group.members.values().filter(supports).count(), "supporters of {name}");
        }
        for (instance, member_id) in &group.static_members {
            assert_eq!(group.members[member_id].group_instance_id.as_ref(), Some(instance));
        }
        assert!(group.pending_syncs.iter().all(|member_id| group.members.contains_key(member_id)));
        self.check_waiters();
    }

    /// Whoever waits is known to the group: it will be answered.
    fn check_waiters(&self) {
        let members = self.bench.group.members.values();
        let held: HashSet<Waiter> =
            members.flat_map(|member| [member.awaiting_join, member.awaiting_sync]).flatten().collect();
        let waiting = self.clients.iter().flat_map(|client| [client.join, client.sync]).flatten();
        let waiting: HashSet<Waiter> = waiting.chain(self.given_up.iter().copied()).collect();
        assert_eq!(held, waiting);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_keep_the_invariants(delay_ms in prop_oneof![Just(0), Just(3_000)], events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new(delay_ms);
        for event in events {
            world.apply(event);
        }
        // The store answers, and everyone has gone: the sessions end, and nobody is left or waits.
        for _ in 0..20 {
            world.apply(Event::Persist { durable: true });
            world.apply(Event::Advance { ms: 300_000 });
        }
        prop_assert_eq!(world.bench.group.state(), State::Empty);
        prop_assert!(world.given_up.is_empty());
        prop_assert!(world.clients.iter().all(|client| client.join.is_none() && client.sync.is_none()));
        prop_assert_eq!(world.bench.group.next_deadline(), None);
    }
}
