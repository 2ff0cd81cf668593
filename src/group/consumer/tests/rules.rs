//! The rules one by one.

use super::*;
use crate::group::stored::StoredHead;

fn error(answer: Result<HeartbeatAnswer, GroupError>) -> GroupError {
    answer.unwrap_err()
}

#[test]
fn a_first_member_gets_everything_at_once() {
    let mut fixture = Fixture::with_topics(&[("a", 3)]);
    let mut client = Client::new("m", &["a", "not yet"]);
    let answer = client.beat(&mut fixture).unwrap();
    assert_eq!((answer.member_epoch, answer.heartbeat_interval_ms), (1, 5_000));
    assert_eq!(client.partitions(fixture.topic_id("a")), [0, 1, 2]);
    assert_eq!(client.beat(&mut fixture).unwrap().assignment, None, "what did not change is not said again");
    fixture.topics.set("not yet", 1);
    assert_eq!(client.beat(&mut fixture).unwrap().member_epoch, 2);
    assert_eq!(client.partitions(fixture.topic_id("not yet")), [0]);
}

#[test]
fn a_partition_goes_over_when_its_holder_says_that_it_let_go() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let topic = fixture.topic_id("a");
    let (mut first, mut second) = (Client::new("first", &["a"]), Client::new("second", &["a"]));
    first.beat(&mut fixture).unwrap();
    let joined = second.beat(&mut fixture).unwrap();
    assert_eq!((joined.member_epoch, joined.assignment), (2, Some(Assignment::new())), "in, with nothing free for it");
    assert_eq!(fixture.group.state(), ConsumerState::Reconciling);

    let told = first.beat(&mut fixture).unwrap();
    assert_eq!(told.member_epoch, 1, "it stays in its epoch until it has let go");
    assert_eq!(told.assignment.unwrap()[&topic].len(), 1);
    second.beat(&mut fixture).unwrap();
    assert_eq!(second.count(), 0, "the first one has not said so yet");
    assert_eq!(first.beat(&mut fixture).unwrap().member_epoch, 2);
    second.beat(&mut fixture).unwrap();
    assert_eq!((first.count(), second.count()), (1, 1));
    assert_eq!(fixture.group.state(), ConsumerState::Stable);
}

#[test]
fn a_member_that_does_not_let_go_is_put_out_after_its_rebalance_timeout() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let (mut first, mut second) = (Client::new("first", &["a"]), Client::new("second", &["a"]));
    first.beat(&mut fixture).unwrap();
    second.beat(&mut fixture).unwrap();
    first.beat(&mut fixture).unwrap();
    // It goes on heartbeating without saying what it has.
    for _ in 0..3 {
        fixture.advance(20_000);
        let silent = HeartbeatRequest { owned: None, ..first.request() };
        let _ = fixture.beat(silent);
        second.beat(&mut fixture).unwrap();
    }
    assert_eq!(error(first.beat(&mut fixture)), GroupError::UnknownMemberId);
    second.beat(&mut fixture).unwrap();
    assert_eq!(second.count(), 2);
}

#[test]
fn a_silent_member_is_put_out_when_its_session_ends() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    fixture.config.session_timeout_ms = 10_000;
    let mut client = Client::new("m", &["a"]);
    client.beat(&mut fixture).unwrap();
    assert_eq!(fixture.group.next_deadline(), Some(10_000));
    fixture.advance(9_999);
    client.beat(&mut fixture).unwrap();
    fixture.advance(9_999);
    assert_eq!(fixture.group.state(), ConsumerState::Stable);
    fixture.advance(1);
    assert_eq!((fixture.group.state(), fixture.group.group_epoch), (ConsumerState::Empty, 2));
    assert_eq!(error(client.beat(&mut fixture)), GroupError::UnknownMemberId);
    assert_eq!(client.beat(&mut fixture).unwrap().member_epoch, 3, "it joins again");
}

#[test]
fn epochs_fence() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let mut client = Client::new("m", &["a"]);
    client.beat(&mut fixture).unwrap();
    fixture.topics.set("a", 3);
    client.beat(&mut fixture).unwrap();
    assert_eq!(client.epoch, 2);
    let at = |epoch, owned| HeartbeatRequest { member_epoch: epoch, owned, ..client.request() };
    let topic = fixture.topic_id("a");
    assert_eq!(error(fixture.beat(at(3, None))), GroupError::FencedMemberEpoch);
    assert_eq!(error(fixture.beat(at(1, None))), GroupError::FencedMemberEpoch, "it does not say what it has");
    assert_eq!(error(fixture.beat(at(1, Some(vec![(topic, vec![7])])))), GroupError::FencedMemberEpoch);
    let lost = fixture.beat(at(1, Some(vec![(topic, vec![0, 1])]))).unwrap();
    assert_eq!(lost.member_epoch, 2, "the answer was lost: the epoch before, with no more than it should have");
    assert_eq!(
        error(fixture.beat(HeartbeatRequest { member_id: "who".into(), ..at(1, None) })),
        GroupError::UnknownMemberId
    );

    assert_eq!(fixture.group.check_epoch("m", 2), Ok(()));
    assert_eq!(fixture.group.check_epoch("m", 1), Err(GroupError::StaleMemberEpoch));
    assert_eq!(fixture.group.check_epoch("who", 1), Err(GroupError::UnknownMemberId));
    let commits = |group: &Consumer, member_id: &str, epoch| {
        [group.check_commit(member_id, epoch, true), group.check_commit(member_id, epoch, false)]
    };
    let (stale, old) = (Err(GroupError::StaleMemberEpoch), Err(GroupError::UnsupportedVersion));
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(commits(&fixture.group, "m", 2), [Ok(()), old]);
    assert_eq!([commits(&fixture.group, "m", 1), commits(&fixture.group, "m", -1)], [[stale, old]; 2]);
    assert_eq!([commits(&fixture.group, "", -1), commits(&fixture.group, "who", 2)], [[unknown; 2]; 2]);
    let in_transaction = |group: &Consumer, member_id, epoch| group.check_transactional_commit(member_id, None, epoch);
    assert_eq!(in_transaction(&fixture.group, "", -1), Ok(()), "of no member");
    assert_eq!(in_transaction(&fixture.group, "m", 2), Ok(()));
    assert_eq!(in_transaction(&fixture.group, "m", 1), Err(GroupError::IllegalGeneration));
    assert_eq!(in_transaction(&fixture.group, "who", 2), unknown);
    client.leave(&mut fixture, LEAVE).unwrap();
    assert_eq!(commits(&fixture.group, "", -1), [Ok(()); 2], "an administrator may, while nobody is in");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let fine = Client::new("m", &["a"]).request();
    let refused = |change: &dyn Fn(&mut HeartbeatRequest)| {
        let mut request = fine.clone();
        change(&mut request);
        request.check().unwrap_err()
    };
    assert_eq!(fine.check(), Ok(()));
    let cases: [&dyn Fn(&mut HeartbeatRequest); 8] = [
        &|request| request.rebalance_timeout_ms = None,
        &|request| request.owned = None,
        &|request| request.owned = Some(vec![(Uuid::from_u128(1), vec![0])]),
        &|request| request.subscribed_topics = None,
        &|request| request.group_instance_id = Some(String::new()),
        &|request| request.rack_id = Some(String::new()),
        &|request| request.member_epoch = -3,
        &|request| request.member_epoch = LEAVE_FOR_A_WHILE,
    ];
    for (index, case) in cases.iter().enumerate() {
        assert!(matches!(refused(case), GroupError::InvalidRequest(_)), "case {index}");
    }
    assert_eq!(refused(&|request| request.server_assignor = Some("sticky".into())), GroupError::UnsupportedAssignor);
    let without_id = HeartbeatRequest { member_id: String::new(), member_epoch: 1, ..fine.clone() };
    assert!(without_id.check().is_err());
    let mut fixture = Fixture::new();
    let named = fixture.beat(HeartbeatRequest { member_id: String::new(), ..fine }).unwrap();
    assert!(!named.member_id.is_empty(), "version 0 may leave the id to the coordinator");
}

#[test]
fn static_members_keep_what_they_have_while_they_are_away() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    let mut other = Client::new("other", &["a"]);
    let mut client = Client { instance: Some("i".into()), ..Client::new("m", &["a"]) };
    let mut clients = [other.clone(), client.clone()];
    settle(&mut fixture, &mut clients);
    [other, client] = clients;
    let had = client.holds.clone();

    let mut rival = Client { instance: Some("i".into()), ..Client::new("rival", &["a"]) };
    assert_eq!(error(rival.beat(&mut fixture)), GroupError::UnreleasedInstanceId);
    let epoch = fixture.group.group_epoch;
    client.leave(&mut fixture, LEAVE_FOR_A_WHILE).unwrap();
    assert_eq!(fixture.group.group_epoch, epoch, "nobody rebalances");
    other.beat(&mut fixture).unwrap();
    assert_eq!(other.count(), 1);
    rival.beat(&mut fixture).unwrap();
    assert_eq!((rival.holds.clone(), fixture.group.group_epoch), (had, epoch));
    assert_eq!(
        error(fixture.beat(HeartbeatRequest { member_epoch: epoch, ..client.request() })),
        GroupError::FencedInstanceId
    );
    assert!(!fixture.group.members.contains_key("m"));

    rival.leave(&mut fixture, LEAVE_FOR_A_WHILE).unwrap();
    for _ in 0..3 {
        fixture.advance(20_000);
        other.beat(&mut fixture).unwrap();
    }
    assert_eq!(other.count(), 2, "not for ever");
}

#[test]
fn expressions_subscribe_to_what_they_match() {
    let mut fixture = Fixture::with_topics(&[("orders-1", 1), ("orders-2", 2), ("other", 1)]);
    let mut client = Client { regex: Some("orders-.*".into()), ..Client::new("m", &[]) };
    client.beat(&mut fixture).unwrap();
    assert_eq!(client.count(), 3);
    assert!(fixture.group.is_subscribed_to("orders-1") && !fixture.group.is_subscribed_to("other"));
    fixture.topics.set("orders-3", 4);
    client.beat(&mut fixture).unwrap();
    assert_eq!(client.count(), 7, "topics that come later too");
    let mut both = Client { regex: Some("orders-[12]".into()), ..Client::new("n", &["other"]) };
    both.beat(&mut fixture).unwrap();
    assert_eq!(both.holds.keys().copied().collect::<Vec<_>>(), [fixture.topic_id("other")], "topics by name first");
    both.beat(&mut fixture).unwrap();
    assert!(fixture.member("n").target.len() > 1);
    both.leave(&mut fixture, LEAVE).unwrap();
    client.regex = Some("(".into());
    client.full = true;
    assert_eq!(error(client.beat(&mut fixture)), GroupError::InvalidRegularExpression);
    client.regex = Some(String::new());
    client.topics = vec!["other".into()];
    client.beat(&mut fixture).unwrap();
    client.beat(&mut fixture).unwrap();
    assert_eq!(client.partitions(fixture.topic_id("other")), [0]);
}

#[test]
fn a_group_holds_only_so_many() {
    let mut fixture = Fixture::with_topics(&[("a", 2)]);
    fixture.settings.max_size = 1;
    let mut client = Client::new("m", &["a"]);
    client.beat(&mut fixture).unwrap();
    assert_eq!(error(Client::new("n", &["a"]).beat(&mut fixture)), GroupError::GroupMaxSizeReached);
    client.beat(&mut fixture).unwrap();
    fixture.settings.max_size = 1_000;
    for index in 0..REGEXES_MAX {
        let mut other = Client { regex: Some(format!("x{index}")), ..Client::new(&format!("r{index}"), &[]) };
        other.beat(&mut fixture).unwrap();
    }
    let mut one_more = Client { regex: Some("y".into()), ..Client::new("y", &[]) };
    assert_eq!(error(one_more.beat(&mut fixture)), GroupError::InvalidRegularExpression);
    let large = "t".repeat(crate::group::GROUP_METADATA_BYTES_MAX);
    assert_eq!(error(Client::new("large", &[&large]).beat(&mut fixture)), GroupError::GroupMaxSizeReached);
    assert!(!fixture.group.members.contains_key("large"));
}

#[test]
fn most_members_choose_the_assignor() {
    let mut fixture = Fixture::with_topics(&[("a", 3), ("b", 3)]);
    let choose =
        |client: &Client, name: &str| HeartbeatRequest { server_assignor: Some(name.into()), ..client.request() };
    let clients = ["m", "n"].map(|name| Client::new(name, &["a", "b"]));
    for client in &clients {
        fixture.beat(choose(client, "range")).unwrap();
    }
    assert_eq!(fixture.group.describe().assignor, "range");
    let target = &fixture.group.describe().members[0].target;
    assert!(target.values().all(|partitions| partitions.iter().copied().eq([0, 1])), "{target:?}");
    fixture.beat(HeartbeatRequest { member_epoch: 2, ..choose(&clients[1], "uniform") }).unwrap();
    assert_eq!(fixture.group.describe().assignor, "uniform");
}

#[test]
fn a_restart_of_the_broker_disturbs_nobody() {
    let mut fixture = Fixture::with_topics(&[("a", 4)]);
    let mut clients = [Client::new("m", &["a"]), Client::new("n", &["a"])];
    settle(&mut fixture, &mut clients);
    let (head, epoch) = (fixture.group.stored_head(), fixture.group.group_epoch);
    let members: Vec<_> =
        ["m", "n"].map(|name| (name.to_owned(), fixture.group.stored_member(name).unwrap())).into_iter().collect();
    let encoded = StoredHead::Consumer(head.clone()).encode();
    let Ok(StoredHead::Consumer(read)) = StoredHead::decode("g", &encoded) else { panic!("another kind") };
    for (_, member) in &members {
        assert_eq!(&StoredConsumerMember::decode("g", &member.encode()).unwrap(), member);
    }
    fixture.step(|group, step, _| *group = Consumer::load(step, read, members.clone()));
    fixture.effects.clear();
    for client in &mut clients {
        assert_eq!(client.beat(&mut fixture).unwrap().assignment, None);
    }
    assert_eq!(fixture.group.group_epoch, epoch);
    assert!(fixture.effects.is_empty(), "nothing changed, nothing is stored");

    fixture.topics.set("a", 5);
    fixture.step(|group, step, _| *group = Consumer::load(step, head, members));
    clients[0].beat(&mut fixture).unwrap();
    assert_eq!(fixture.group.group_epoch, epoch + 1, "unless a topic changed while it was down");
}

#[test]
fn what_could_not_be_stored_goes_with_the_next_change() {
    let mut fixture = Fixture::with_topics(&[("a", 1)]);
    Client::new("m", &["a"]).beat(&mut fixture).unwrap();
    let Some(Effect::Store(changes)) = fixture.effects.pop() else { panic!("nothing to store") };
    assert_eq!((changes.members.len(), changes.head.is_some()), (1, true));
    fixture.group.not_stored(*changes);
    Client::new("n", &["a"]).beat(&mut fixture).unwrap();
    let Some(Effect::Store(changes)) = fixture.effects.pop() else { panic!("nothing to store") };
    assert_eq!(changes.members.len(), 2);
}
