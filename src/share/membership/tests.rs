use super::*;

const RULES: Rules = Rules { session_timeout_ms: 45_000, members_max: 3 };
const T: Uuid = Uuid::from_u128(1);
const U: Uuid = Uuid::from_u128(2);

fn topics(of: &[(&str, Uuid, u32)]) -> Topics {
    of.iter().map(|(name, id, partitions)| ((*name).to_owned(), (*id, *partitions))).collect()
}

fn beat(member_id: &str, epoch: i32, subscribed: Option<&[&str]>) -> Heartbeat {
    Heartbeat {
        member_id: member_id.to_owned(),
        epoch,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rack_id: None,
        subscribed: subscribed.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
    }
}

fn t(partitions: u32) -> Topics {
    topics(&[("t", T, partitions)])
}

fn assigned(beat: &Beat) -> Option<Vec<u32>> {
    Some(beat.assignment.as_ref()?.get(&T).into_iter().flatten().copied().collect())
}

#[test]
fn members_share_partitions_and_hear_of_it_with_their_next_heartbeat() {
    let mut group = Membership::default();
    let (first, stored) = group.beat(beat("a", 0, Some(&["t"])), t(4), RULES, 0).unwrap();
    assert_eq!((first.epoch, assigned(&first), stored), (1, Some(vec![0, 1, 2, 3]), true));
    let (second, _) = group.beat(beat("b", 0, Some(&["t"])), t(4), RULES, 0).unwrap();
    assert_eq!((second.epoch, assigned(&second)), (2, Some(vec![2, 3])));
    let (first, stored) = group.beat(beat("a", 1, None), t(4), RULES, 0).unwrap();
    assert_eq!((first.epoch, assigned(&first), stored), (2, Some(vec![0, 1]), true));
    // Nothing new: nothing is told and nothing stored.
    assert_eq!(group.beat(beat("a", 2, None), t(4), RULES, 0).unwrap(), (Beat { epoch: 2, assignment: None }, false));
    group.leave("b").unwrap();
    let (first, _) = group.beat(beat("a", 2, None), t(4), RULES, 0).unwrap();
    assert_eq!((first.epoch, assigned(&first)), (3, Some(vec![0, 1, 2, 3])));
}

#[test]
fn an_epoch_is_the_last_or_the_one_before() {
    let mut group = Membership::default();
    group.beat(beat("a", 0, Some(&["t"])), t(1), RULES, 0).unwrap();
    group.beat(beat("b", 0, Some(&["t"])), t(1), RULES, 0).unwrap();
    group.beat(beat("a", 1, None), t(1), RULES, 0).unwrap();
    assert!(group.beat(beat("a", 1, None), t(1), RULES, 0).is_ok(), "its answer may have been lost");
    for epoch in [3, 9] {
        assert_eq!(group.beat(beat("a", epoch, None), t(1), RULES, 0), Err(ShareError::FencedMemberEpoch));
    }
    assert_eq!(group.beat(beat("c", 2, None), t(1), RULES, 0), Err(ShareError::UnknownMemberId));
    assert_eq!(group.leave("c"), Err(ShareError::UnknownMemberId));
    // It begins anew with what it had.
    let (again, stored) = group.beat(beat("a", 0, Some(&["t"])), t(1), RULES, 0).unwrap();
    assert_eq!((again.epoch, assigned(&again), stored), (2, Some(vec![0]), false));
}

#[test]
fn topics_and_subscriptions_that_change_begin_an_epoch() {
    let mut group = Membership::default();
    group.beat(beat("a", 0, Some(&["t"])), t(1), RULES, 0).unwrap();
    let (grown, _) = group.beat(beat("a", 1, None), t(2), RULES, 0).unwrap();
    assert_eq!((grown.epoch, assigned(&grown)), (2, Some(vec![0, 1])));
    let both = topics(&[("t", T, 2), ("u", U, 1)]);
    assert_eq!(group.names(&beat("a", 2, Some(&["u"]))).into_iter().collect::<Vec<_>>(), ["t", "u"]);
    let (moved, _) = group.beat(beat("a", 2, Some(&["u"])), both, RULES, 0).unwrap();
    assert_eq!((moved.epoch, moved.assignment), (3, Some(Assignment::from([(U, BTreeSet::from([0]))]))));
    // The topic is gone.
    let (gone, _) = group.beat(beat("a", 3, None), Topics::new(), RULES, 0).unwrap();
    assert_eq!((gone.epoch, gone.assignment), (4, Some(Assignment::new())));
}

#[test]
fn sessions_end_and_groups_are_bounded() {
    let mut group = Membership::default();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        group.beat(beat(name, 0, Some(&["t"])), t(1), RULES, at as i64 * 10).unwrap();
    }
    assert_eq!(group.beat(beat("d", 0, Some(&["t"])), t(1), RULES, 0), Err(ShareError::GroupMaxSizeReached));
    let many: Vec<String> = (0..=MEMBER_TOPICS_MAX).map(|at| at.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(group.beat(beat("a", 0, Some(&many)), t(1), RULES, 0), Err(ShareError::InvalidRequest));
    assert_eq!(group.next_deadline(), Some(45_000));
    assert_eq!(group.expire(44_999), 0);
    group.beat(beat("a", 1, None), t(1), RULES, 1_000).unwrap();
    assert_eq!(group.expire(45_010), 1);
    assert_eq!((group.epoch(), group.state()), (4, State::Stable));
    assert_eq!(group.expire(i64::MAX), 2);
    assert_eq!((group.epoch(), group.state(), group.next_deadline()), (5, State::Empty, None));
}
