//! Any sequence of joins, leaves, heartbeats heard or not, silences, restarts of the broker and changes of topics: no
//! partition is ever in two hands, and when it is quiet everyone has what it is to have.

use proptest::prelude::*;

use super::*;
use crate::group::stored::StoredHead;

const TOPICS: [&str; 3] = ["a", "b", "c"];
const CLIENTS: usize = 5;

#[derive(Clone, Debug)]
enum Happening {
    Beat(usize),
    BeatUnheard(usize),
    Leave(usize),
    LeaveForAWhile(usize),
    /// The process dies and comes back: with a new id, or for a static one with its instance id.
    Restart(usize),
    Subscribe(usize, Vec<usize>),
    Express(usize, Option<&'static str>),
    Grow(usize, u32),
    Delete(usize),
    Advance(i64),
    RestartBroker,
}

fn happening() -> impl Strategy<Value = Happening> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => client.clone().prop_map(Happening::Beat),
        4 => client.clone().prop_map(Happening::BeatUnheard),
        1 => client.clone().prop_map(Happening::Leave),
        1 => client.clone().prop_map(Happening::LeaveForAWhile),
        1 => client.clone().prop_map(Happening::Restart),
        2 => (client.clone(), proptest::collection::vec(0..TOPICS.len(), 0..3))
            .prop_map(|(client, topics)| Happening::Subscribe(client, topics)),
        1 => (client, proptest::option::of(prop_oneof![Just("a|c"), Just("[bc]"), Just(".*")]))
            .prop_map(|(client, regex)| Happening::Express(client, regex)),
        1 => (0..TOPICS.len(), 1_u32..7).prop_map(|(topic, width)| Happening::Grow(topic, width)),
        1 => (0..TOPICS.len()).prop_map(Happening::Delete),
        2 => (0_i64..30_000).prop_map(Happening::Advance),
        1 => Just(Happening::RestartBroker),
    ]
}

struct World {
    fixture: Fixture,
    clients: Vec<Client>,
    restarts: usize,
    stored: Stored,
}

/// What the store holds of the group.
#[derive(Default)]
struct Stored {
    head: Option<StoredHead>,
    members: BTreeMap<String, StoredConsumerMember>,
}

impl World {
    fn new() -> World {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|index| Client::new(&format!("m{index}"), &["a"])).collect();
        clients[0].instance = Some("i0".into());
        clients[1].instance = Some("i1".into());
        let fixture = Fixture::with_topics(&[("a", 4), ("b", 2)]);
        World { fixture, clients, restarts: 0, stored: Stored::default() }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Beat(client) => drop(self.clients[client].beat(&mut self.fixture)),
            Happening::BeatUnheard(client) => self.clients[client].beat_unheard(&mut self.fixture),
            Happening::Leave(client) => drop(self.clients[client].leave(&mut self.fixture, LEAVE)),
            Happening::LeaveForAWhile(client) => {
                if self.clients[client].instance.is_some() {
                    let _ = self.clients[client].leave(&mut self.fixture, LEAVE_FOR_A_WHILE);
                }
            }
            Happening::Restart(client) => {
                self.restarts += 1;
                let client = &mut self.clients[client];
                client.abandon();
                client.member_id = format!("{}+{}", client.member_id, self.restarts);
            }
            Happening::Subscribe(client, topics) => {
                self.clients[client].topics = topics.iter().map(|topic| TOPICS[*topic].to_owned()).collect();
                self.clients[client].full = true;
            }
            Happening::Express(client, regex) => {
                self.clients[client].regex = Some(regex.unwrap_or_default().to_owned());
                self.clients[client].full = true;
            }
            Happening::Grow(topic, width) => {
                use crate::group::topics::Topics;
                let had = self.fixture.topics.topic(TOPICS[topic]).map_or(0, |topic| topic.partitions);
                self.fixture.topics.set(TOPICS[topic], width.max(had));
            }
            Happening::Delete(topic) => self.fixture.topics.delete(TOPICS[topic]),
            Happening::Advance(ms) => self.fixture.advance(ms),
            Happening::RestartBroker => self.restart_broker(),
        }
        self.write();
        self.lose_sessions();
        held(&self.clients);
    }

    /// The store takes what the group handed out; every answer came after that.
    fn write(&mut self) {
        for effect in self.fixture.effects.drain(..) {
            let Effect::Store(changes) = effect else { panic!("{effect:?}") };
            self.stored.head = changes.head.or(self.stored.head.take());
            for (member_id, member) in changes.members {
                match member {
                    Some(member) => drop(self.stored.members.insert(member_id, member)),
                    None => drop(self.stored.members.remove(&member_id)),
                }
            }
        }
    }

    fn restart_broker(&mut self) {
        let Some(StoredHead::Consumer(head)) = self.stored.head.clone() else { return };
        let members = self.stored.members.clone().into_iter().collect();
        self.fixture.step(|group, step, _| *group = Consumer::load(step, head, members));
    }

    /// A client that the coordinator has given up on has given up itself, by its own timers.
    fn lose_sessions(&mut self) {
        for client in &mut self.clients {
            if !self.fixture.group.members.contains_key(&client.member_id) {
                client.abandon();
            }
        }
    }

    fn quiet_down(&mut self) {
        // Static members that went for a while, and processes that died, are forgotten; a static one whose old self is
        // still known comes in after that.
        for _ in 0..3 {
            settle(&mut self.fixture, &mut self.clients);
            self.fixture.advance(20_000);
        }
        settle(&mut self.fixture, &mut self.clients);
        self.write();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_is_in_two_hands_and_all_find_one(happenings in proptest::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(happening);
        }
        world.quiet_down();
        let held = held(&world.clients);
        let group = &world.fixture.group;
        prop_assert_eq!(group.state(), ConsumerState::Stable);
        prop_assert_eq!(group.members.len(), CLIENTS);
        let wanted: BTreeMap<Uuid, usize> =
            group.subscribed.values().map(|topic| (topic.id, topic.partitions as usize)).collect();
        prop_assert_eq!(held, wanted);
        for client in &world.clients {
            prop_assert_eq!(&client.holds, &group.members[&client.member_id].assigned);
            prop_assert_eq!(&client.holds, &group.members[&client.member_id].target);
        }
        // What is stored is what is: another broker would go on from here.
        let Some(StoredHead::Consumer(head)) = world.stored.head.clone() else { panic!("no head") };
        prop_assert_eq!(&head, &group.stored_head());
        let stored: Vec<_> = world.stored.members.keys().collect();
        let mut known: Vec<_> = group.members.keys().collect();
        known.sort();
        prop_assert_eq!(stored, known);
        for (member_id, stored) in &world.stored.members {
            prop_assert_eq!(Some(stored.clone()), group.stored_member(member_id));
        }
    }
}
