//! Members of both protocols in one group, and groups that go over.

use super::*;
use crate::group::classic::{Classic, JoinAnswer, JoinRequest, Leaver, Protocol, SyncAnswer, SyncRequest, Waiter};
use crate::group::subscription::{AssignedTopic, read_assignment, subscription};

fn join_request(member_id: &str, topics: &[&str]) -> JoinRequest {
    JoinRequest {
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "classic".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: subscription(topics) }],
        member_id_required: false,
        can_skip_assignment: true,
    }
}

impl Fixture {
    fn join(&mut self, request: JoinRequest) -> JoinAnswer {
        self.effects.clear();
        self.step(|group, step, fresh| group.join(step, request, fresh, Waiter(7)));
        match self.effects.pop() {
            Some(Effect::AnswerJoin(Waiter(7), answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, member_id: &str, generation: i32) -> Result<Vec<AssignedTopic>, GroupError> {
        let request = SyncRequest {
            member_id: member_id.into(),
            group_instance_id: None,
            generation,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignments: Vec::new(),
        };
        self.step(|group, step, _| group.sync(step, request, Waiter(8)));
        let answer: SyncAnswer = match self.effects.pop() {
            Some(Effect::AnswerSync(Waiter(8), answer)) => answer,
            other => panic!("{other:?}"),
        };
        answer.map(|synced| read_assignment(&synced.assignment).unwrap())
    }

    fn beat_classic(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        self.step(|group, step, _| group.heartbeat_classic(step, member_id, None, generation))
    }
}

fn assigned(topic: &str, partitions: &[i32]) -> Vec<AssignedTopic> {
    vec![AssignedTopic { topic: topic.into(), partitions: partitions.to_vec() }]
}

#[test]
fn a_classic_member_shares_with_one_of_the_new_protocol() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let mut modern = Client::new("m", &["a"]);
    modern.beat(&mut fixture).unwrap();
    let asked = fixture.join(JoinRequest { member_id_required: true, ..join_request("", &["a"]) }).unwrap_err();
    assert_eq!(asked.error, GroupError::MemberIdRequired);
    let joined = fixture.join(join_request(&asked.member_id, &["a"])).unwrap();
    assert_eq!((joined.generation, joined.protocol.as_deref(), joined.members.len()), (2, Some("range"), 0));
    let me = joined.member_id.as_str();
    assert_eq!(fixture.sync(me, 2), Ok(vec![]), "nothing is free yet");
    assert_eq!(fixture.beat_classic(me, 2), Ok(()), "and nothing to join for");

    modern.beat(&mut fixture).unwrap();
    modern.beat(&mut fixture).unwrap();
    assert_eq!(fixture.beat_classic(me, 2), Err(GroupError::RebalanceInProgress), "a partition has come free");
    let joined = fixture.join(join_request(me, &["a"])).unwrap();
    let given = fixture.sync(me, joined.generation).unwrap();
    assert_eq!((given[0].partitions.len(), modern.count()), (1, 1));
    assert_eq!(fixture.beat_classic(me, joined.generation), Ok(()));
    assert_eq!(fixture.group.check_epoch(me, 1), Err(GroupError::IllegalGeneration));
    assert!(fixture.group.describe().members[1].is_classic);

    modern.leave(&mut fixture, LEAVE).unwrap();
    assert!(fixture.group.is_all_classic());
    assert_eq!(fixture.beat_classic(me, joined.generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(fixture.sync(me, joined.generation), Err(GroupError::RebalanceInProgress));
    let joined = fixture.join(join_request(me, &["a"])).unwrap();
    assert_eq!(fixture.sync(me, joined.generation), Ok(assigned("a", &[0, 1])));
}

#[test]
fn classic_members_are_held_to_their_protocol() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let mut modern = Client::new("m", &["a"]);
    modern.beat(&mut fixture).unwrap();
    let refused = |fixture: &mut Fixture, request| fixture.join(request).unwrap_err().error;
    let connect = JoinRequest { protocol_type: "connect".into(), ..join_request("", &["a"]) };
    assert_eq!(refused(&mut fixture, connect), GroupError::InconsistentGroupProtocol);
    let joined = fixture.join(join_request("", &["a"])).unwrap();
    let mut other = join_request("", &["a"]);
    other.protocols[0].name = "sticky".into();
    assert_eq!(refused(&mut fixture, other), GroupError::InconsistentGroupProtocol, "shared with no classic member");
    let mut broken = join_request("", &["a"]);
    broken.protocols[0].metadata = bytes::Bytes::from_static(&[0]);
    assert_eq!(refused(&mut fixture, broken), GroupError::InconsistentGroupProtocol);
    assert_eq!(fixture.beat_classic("m", 1), Err(GroupError::UnknownMemberId), "it speaks the other protocol");
    assert_eq!(fixture.beat_classic(&joined.member_id, 9), Err(GroupError::IllegalGeneration));
    assert_eq!(fixture.sync(&joined.member_id, 9), Err(GroupError::IllegalGeneration));

    let leavers = [joined.member_id.as_str(), "m", "who"]
        .map(|member_id| Leaver { member_id: member_id.into(), group_instance_id: None });
    let left = fixture.step(|group, step, _| group.leave_classic(step, &leavers)).unwrap();
    assert_eq!(left, [Ok(()), Err(GroupError::UnknownMemberId), Err(GroupError::UnknownMemberId)]);
    let mut fixed = Client { instance: Some("i".into()), ..Client::new("s", &["a"]) };
    fixed.beat(&mut fixture).unwrap();
    let by_instance = [Leaver { member_id: String::new(), group_instance_id: Some("i".into()) }];
    let left = fixture.step(|group, step, _| group.leave_classic(step, &by_instance)).unwrap();
    assert_eq!((left, fixture.group.members.len()), (vec![Ok(())], 1), "an administrator's way, for either protocol");
}

#[test]
fn a_classic_member_that_does_not_come_is_put_out() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let joined = fixture.join(JoinRequest { session_timeout_ms: 100_000, ..join_request("", &["a"]) }).unwrap();
    assert_eq!(fixture.group.next_deadline(), Some(30_000), "for its assignment");
    fixture.sync(&joined.member_id, joined.generation).unwrap();
    fixture.topics.set("a", 3);
    let mut modern = Client::new("m", &["a"]);
    modern.beat(&mut fixture).unwrap();
    fixture.advance(20_000);
    modern.beat(&mut fixture).unwrap();
    assert_eq!(fixture.beat_classic(&joined.member_id, joined.generation), Err(GroupError::RebalanceInProgress));
    fixture.advance(29_999);
    modern.beat(&mut fixture).unwrap();
    assert!(fixture.group.members.contains_key(&joined.member_id));
    fixture.advance(1);
    assert!(!fixture.group.members.contains_key(&joined.member_id), "it was told to join again");
    modern.beat(&mut fixture).unwrap();
    assert_eq!(modern.count(), 3);
}

#[test]
fn static_members_change_protocol_in_their_place() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let as_static = |request| JoinRequest { group_instance_id: Some("i".into()), ..request };
    let joined = fixture.join(as_static(join_request("", &["a"]))).unwrap();
    let mut modern = Client { instance: Some("i".into()), ..Client::new("m", &["a"]) };
    modern.beat(&mut fixture).unwrap();
    assert_eq!(modern.count(), 2, "it has what its classic self had");
    assert_eq!(fixture.group.members.len(), 1);
    let old = fixture.join(as_static(join_request(&joined.member_id, &["a"]))).unwrap_err();
    assert_eq!(old.error, GroupError::FencedInstanceId);
    let back = fixture.join(as_static(join_request("", &["a"]))).unwrap();
    assert!(fixture.group.is_all_classic());
    assert_ne!(back.member_id, joined.member_id);
}

#[test]
fn what_one_member_gave_to_two_is_held_by_one() {
    let fixture = Fixture::with_topics(&[("a", 2)]);
    let mut classic = Classic::new(fixture.now);
    let mut effects = Vec::new();
    let mut step = Step {
        now: fixture.now,
        settings: &fixture.settings,
        config: fixture.config,
        topics: &fixture.topics,
        effects: &mut effects,
    };
    classic.join(&mut step, join_request("", &["a"]), Uuid::from_u128(1), Waiter(1));
    let upgraded = Consumer::from_classic(&step, &classic).unwrap();
    assert_eq!((upgraded.members.len(), upgraded.group_epoch, upgraded.is_all_classic()), (1, 1, true));
    let mut stored = classic.stored(None);
    stored.members.push(stored.members[0].clone());
    stored.members[1].member_id = "other".into();
    for member in &mut stored.members {
        member.assignment = crate::group::subscription::write_assignment(0, assigned("a", &[0, 9, -1]));
    }
    let classic = Classic::load(&mut step, stored);
    let upgraded = Consumer::from_classic(&step, &classic).unwrap();
    let counts: Vec<usize> = upgraded.members.values().map(|member| member.assigned.len()).collect();
    assert_eq!(counts, [1, 0]);
    let back = upgraded.to_classic(&step);
    assert_eq!(back.members.len(), 2);
    assert_eq!(read_assignment(&back.members[0].assignment), Some(assigned("a", &[0])));
}
