use super::*;

#[test]
fn a_dynamic_member_is_told_its_id_and_joins_with_it() {
    let mut bench = Bench::new();
    let waiter = bench.join(request(""));
    let refused = bench.joins[&waiter].clone().unwrap_err();
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    assert!(refused.member_id.starts_with("client-"));
    assert_eq!(bench.group.state(), State::Empty);
    let waiter = bench.join(request(&refused.member_id));
    let joined = bench.joined(waiter);
    assert_eq!((joined.generation, joined.leader.as_str()), (1, refused.member_id.as_str()));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(bench.group.state(), State::CompletingRebalance);
}

#[test]
fn older_clients_join_without_knowing_their_id() {
    let mut bench = Bench::new();
    let waiter = bench.join(JoinRequest { member_id_required: false, ..request("") });
    assert_eq!(bench.joined(waiter).generation, 1);
}

#[test]
fn an_id_that_never_joined_is_forgotten_after_its_session_timeout() {
    let mut bench = Bench::new();
    let waiter = bench.join(request(""));
    let member_id = bench.joins.remove(&waiter).unwrap().unwrap_err().member_id;
    bench.advance(9_999);
    assert!(!bench.group.is_deserted());
    bench.advance(1);
    assert!(bench.group.is_blank());
    let late = bench.join(request(&member_id));
    assert_eq!(bench.join_error(late), GroupError::UnknownMemberId);
}

#[test]
fn ids_on_offer_are_bounded() {
    let mut bench = Bench::new();
    for _ in 0..crate::group::PENDING_MEMBERS_MAX {
        let waiter = bench.join(request(""));
        assert_eq!(bench.join_error(waiter), GroupError::MemberIdRequired);
    }
    let waiter = bench.join(request(""));
    assert_eq!(bench.join_error(waiter), GroupError::GroupMaxSizeReached);
}

#[test]
fn metadata_is_bounded_and_a_member_that_asks_for_more_stays_as_it_was() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(1);
    let metadata = Bytes::from(vec![0; crate::group::GROUP_METADATA_BYTES_MAX + 1]);
    let large = vec![Protocol { name: "range".into(), metadata }];
    let waiter = bench.join(JoinRequest { protocols: large.clone(), ..request(&ids[0]) });
    assert_eq!(bench.join_error(waiter), GroupError::GroupMaxSizeReached);
    assert_eq!(bench.heartbeat(&ids[0], generation), Ok(()));
    let waiter = bench.join(JoinRequest { protocols: large, ..request("") });
    assert_eq!(bench.join_error(waiter), GroupError::GroupMaxSizeReached);
}

#[test]
fn the_leaders_assignment_reaches_all_once_it_is_durable() {
    let mut bench = Bench::new();
    let (first, _) = bench.join_new(request(""));
    let (second, follower) = bench.join_new(request(""));
    assert!(!bench.joins.contains_key(&follower), "the first member has to come back");
    assert_eq!(bench.heartbeat(&first, 1), Err(GroupError::RebalanceInProgress));
    let leader = bench.join(request(&first));
    let (leader, follower) = (bench.joined(leader), bench.joined(follower));
    assert_eq!((leader.generation, follower.generation), (2, 2));
    assert_eq!(leader.members.len(), 2);
    assert_eq!(leader.members[0].metadata, subscription(&["t"]));
    assert!(follower.members.is_empty());
    assert_eq!((leader.leader.as_str(), follower.leader.as_str()), (first.as_str(), first.as_str()));

    let waits = bench.sync(&second, 2, &[]);
    let leads = bench.sync(&first, 2, &[(&first, "a"), (&second, "b"), ("stranger", "c")]);
    assert!(bench.syncs.is_empty());
    assert_eq!(bench.group.state(), State::CompletingRebalance);
    let stored = bench.persist(true);
    assert_eq!(stored.members.iter().map(|member| &member.assignment[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!((&bench.assignment(waits)[..], &bench.assignment(leads)[..]), (&b"b"[..], &b"a"[..]));
    assert_eq!(bench.group.state(), State::Stable);
    let again = bench.sync(&second, 2, &[]);
    assert_eq!(bench.assignment(again), "b", "a client that lost the answer asks again");
}

#[test]
fn an_assignment_that_cannot_be_stored_leads_to_another_rebalance() {
    let mut bench = Bench::new();
    let (id, _) = bench.join_new(request(""));
    let waiter = bench.sync(&id, 1, &[(&id, "a")]);
    bench.persist(false);
    assert_eq!(bench.sync_error(waiter), GroupError::CoordinatorNotAvailable);
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    let waiter = bench.join(request(&id));
    assert_eq!(bench.joined(waiter).generation, 2);
}

#[test]
fn an_assignment_of_a_generation_that_is_over_changes_nothing() {
    let mut bench = Bench::new();
    let (first, _) = bench.join_new(request(""));
    let synced = bench.sync(&first, 1, &[(&first, "a")]);
    let (_, newcomer) = bench.join_new(request(""));
    assert_eq!(bench.sync_error(synced), GroupError::RebalanceInProgress);
    bench.persist(true);
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    bench.join(request(&first));
    assert_eq!(bench.joined(newcomer).generation, 2);
}

#[test]
fn sync_checks_member_generation_and_protocol() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(1);
    let stranger = bench.sync("stranger", generation, &[]);
    assert_eq!(bench.sync_error(stranger), GroupError::UnknownMemberId);
    let late = bench.sync(&ids[0], generation - 1, &[]);
    assert_eq!(bench.sync_error(late), GroupError::IllegalGeneration);
    for (protocol_type, protocol) in [("connect", "range"), ("consumer", "sticky")] {
        let request = SyncRequest {
            member_id: ids[0].clone(),
            group_instance_id: None,
            generation,
            protocol_type: Some(protocol_type.into()),
            protocol: Some(protocol.into()),
            assignments: vec![],
        };
        bench.step(|group, step| group.sync(step, request, Waiter(9_999)));
        bench.answered.clear();
        assert_eq!(bench.sync_error(Waiter(9_999)), GroupError::InconsistentGroupProtocol);
    }
}

#[test]
fn protocols_are_chosen_by_votes_among_those_all_share() {
    let mut bench = Bench::new();
    let with = |names: &[&str]| JoinRequest { protocols: protocols(names, &["t"]), ..request("") };
    let (ids, _) = bench.stable_of(vec![with(&["range"])]);
    let (newcomer, waiter) = bench.join_new(with(&["sticky", "range"]));
    let rejoin = bench.join(JoinRequest { member_id: ids[0].clone(), ..with(&["range", "roundrobin"]) });
    assert_eq!(bench.joined(rejoin).protocol.as_deref(), Some("range"));
    assert_eq!(bench.joined(waiter).member_id, newcomer);
    let refused = bench.join(with(&["sticky"]));
    assert_eq!(bench.join_error(refused), GroupError::InconsistentGroupProtocol);
    let refused = bench.join(JoinRequest { protocol_type: "connect".into(), ..with(&["range"]) });
    assert_eq!(bench.join_error(refused), GroupError::InconsistentGroupProtocol);
}

#[test]
fn most_votes_win() {
    let mut bench = Bench::with(GroupSettings { initial_rebalance_delay_ms: 100, ..GroupSettings::default() });
    let with =
        |names: &[&str]| JoinRequest { protocols: protocols(names, &["t"]), member_id_required: false, ..request("") };
    let first = bench.join(with(&["a", "b", "b"]));
    bench.join(with(&["b", "a"]));
    bench.join(with(&["b", "a"]));
    bench.advance(60_000);
    assert_eq!(bench.joined(first).protocol.as_deref(), Some("b"));
}

#[test]
fn a_group_needs_a_protocol_and_its_type() {
    let mut bench = Bench::new();
    let refused = bench.join(JoinRequest { protocols: vec![], ..request("") });
    assert_eq!(bench.join_error(refused), GroupError::InconsistentGroupProtocol);
    let refused = bench.join(JoinRequest { protocol_type: String::new(), ..request("") });
    assert_eq!(bench.join_error(refused), GroupError::InconsistentGroupProtocol);
    assert!(bench.group.is_blank());
}

#[test]
fn followers_without_news_do_not_disturb_but_leaders_and_changes_do() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    let follower = bench.join(request(&ids[1]));
    let joined = bench.joined(follower);
    assert_eq!((joined.generation, joined.members.len()), (generation, 0));
    assert_eq!(bench.group.state(), State::Stable);

    let changed = JoinRequest { protocols: protocols(&["range"], &["t", "u"]), ..request(&ids[1]) };
    let changed = bench.join(changed);
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    let leader = bench.join(request(&ids[0]));
    assert_eq!(bench.joined(changed).generation, generation + 1);
    assert_eq!(bench.joined(leader).generation, generation + 1);
    assert!(bench.group.is_subscribed_to("u"));

    let (mut bench, (ids, _)) = {
        let mut bench = Bench::new();
        let ids = bench.stable(2);
        (bench, ids)
    };
    bench.join(request(&ids[0]));
    assert_eq!(bench.group.state(), State::PreparingRebalance);
}

#[test]
fn a_member_that_lost_its_answer_gets_it_again_while_the_leader_assigns() {
    let mut bench = Bench::new();
    let (id, waiter) = bench.join_new(request(""));
    let first = bench.joined(waiter);
    let again = bench.join(request(&id));
    assert_eq!(bench.joined(again), first);
    assert_eq!(bench.group.state(), State::CompletingRebalance);
}

#[test]
fn a_join_that_is_sent_again_lets_go_of_the_first() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    bench.leave(&["nobody"]);
    let first = bench.join(request(&ids[0]));
    let second = bench.join(request(&ids[0]));
    assert_eq!(bench.join_error(first), GroupError::RebalanceInProgress);
    bench.join(request(&ids[1]));
    assert_eq!(bench.joined(second).generation, generation + 1);
}

#[test]
fn heartbeats_keep_a_member_and_silence_ends_its_session() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    for _ in 0..10 {
        bench.advance(9_999);
        assert_eq!(bench.heartbeat(&ids[0], generation), Ok(()));
        assert_eq!(bench.heartbeat(&ids[1], generation), Ok(()));
    }
    assert_eq!(bench.heartbeat(&ids[0], generation - 1), Err(GroupError::IllegalGeneration));
    assert_eq!(bench.heartbeat("stranger", generation), Err(GroupError::UnknownMemberId));
    bench.advance(5_000);
    bench.heartbeat(&ids[1], generation).unwrap();
    bench.advance(5_000);
    assert_eq!(bench.heartbeat(&ids[0], generation), Err(GroupError::UnknownMemberId));
    assert_eq!(bench.heartbeat(&ids[1], generation), Err(GroupError::RebalanceInProgress));
    let waiter = bench.join(request(&ids[1]));
    let joined = bench.joined(waiter);
    assert_eq!((joined.leader, joined.members.len()), (ids[1].clone(), 1));
}

#[test]
fn members_that_wait_are_not_silent_but_new_ones_leave_in_time() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable_of(vec![
        JoinRequest { rebalance_timeout_ms: 900_000, ..request("") },
        JoinRequest { session_timeout_ms: 1_000_000, rebalance_timeout_ms: 900_000, ..request("") },
    ]);
    let long = |id: &str| JoinRequest { rebalance_timeout_ms: 900_000, ..request(id) };
    let waits = bench.join(long(&ids[0]));
    let (_, new) = bench.join_new(long(""));
    bench.advance(299_999);
    assert!(bench.joins.is_empty(), "all sessions are over, but both wait");
    bench.advance(1);
    assert_eq!(bench.join_error(new), GroupError::UnknownMemberId);
    bench.advance(600_000);
    let joined = bench.joined(waits);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 1), "the second member did not come back");
}

#[test]
fn a_rebalance_ends_without_those_who_do_not_come() {
    let mut bench = Bench::new();
    let never = JoinRequest { session_timeout_ms: 1_000_000, ..request("") };
    let (ids, generation) = bench.stable_of(vec![never, request("")]);
    let (_, new) = bench.join_new(request(""));
    let waits = bench.join(request(&ids[1]));
    bench.advance(59_999);
    assert!(bench.joins.is_empty());
    bench.advance(1);
    let (new, waits) = (bench.joined(new), bench.joined(waits));
    assert_eq!((new.generation, waits.generation), (generation + 1, generation + 1));
    assert_eq!(waits.leader, ids[1], "the leader did not come, and gave way");
    assert_eq!(waits.members.len(), 2);
}

#[test]
fn those_who_do_not_come_for_their_assignment_are_out() {
    let mut bench = Bench::new();
    let lazy = JoinRequest { session_timeout_ms: 1_000_000, ..request("") };
    let (leader, _) = bench.join_new(lazy.clone());
    let (follower, _) = bench.join_new(lazy.clone());
    bench.join(JoinRequest { member_id: leader.clone(), ..lazy.clone() });
    let waits = bench.sync(&follower, 2, &[]);
    bench.advance(59_999);
    assert!(bench.syncs.is_empty());
    bench.advance(1);
    assert_eq!(bench.sync_error(waits), GroupError::RebalanceInProgress);
    let waiter = bench.join(JoinRequest { member_id: follower.clone(), ..lazy });
    let joined = bench.joined(waiter);
    assert_eq!((joined.generation, joined.leader), (3, follower));
    let gone = bench.sync(&leader, 3, &[]);
    assert_eq!(bench.sync_error(gone), GroupError::UnknownMemberId);
}

#[test]
fn the_first_rebalance_waits_for_more_members_as_long_as_they_come() {
    let mut bench = Bench::with(GroupSettings { initial_rebalance_delay_ms: 3_000, ..GroupSettings::default() });
    let join = |bench: &mut Bench| {
        bench.join(JoinRequest { member_id_required: false, rebalance_timeout_ms: 7_000, ..request("") })
    };
    let first = join(&mut bench);
    bench.advance(2_999);
    join(&mut bench);
    bench.advance(1);
    assert!(bench.joins.is_empty(), "another came, so the wait begins anew");
    bench.advance(2_999);
    join(&mut bench);
    bench.advance(1);
    assert!(bench.joins.is_empty());
    join(&mut bench);
    bench.advance(1_000);
    let joined = bench.joined(first);
    assert_eq!(joined.members.len(), 4, "but never longer than the rebalance timeout");
}

#[test]
fn leaving_answers_each_and_rebalances_once() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(3);
    let answers = bench.leave(&[&ids[1], "stranger", &ids[2], &ids[2]]);
    assert_eq!(answers, [Ok(()), Err(GroupError::UnknownMemberId), Ok(()), Err(GroupError::UnknownMemberId)]);
    assert_eq!(bench.heartbeat(&ids[0], generation), Err(GroupError::RebalanceInProgress));
    let waiter = bench.join(request(&ids[0]));
    assert_eq!(bench.joined(waiter).generation, generation + 1);
}

#[test]
fn the_last_to_leave_empties_the_group_durably() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    bench.advance(5_000);
    bench.leave(&[&ids[0], &ids[1]]);
    assert_eq!(bench.group.state(), State::Empty);
    let stored = bench.persist(true);
    assert_eq!((stored.generation, stored.members.len()), (generation + 1, 0));
    assert_eq!((stored.protocol_type.as_deref(), stored.protocol, stored.leader), (Some("consumer"), None, None));
    assert_eq!(stored.state_since_ms, 1_005_000);
    let waiter = bench.join(request(&ids[0]));
    assert_eq!(bench.join_error(waiter), GroupError::UnknownMemberId);
}

#[test]
fn an_id_on_offer_can_leave_and_no_longer_holds_up_a_rebalance() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(1);
    let offered = bench.join(request(""));
    let offered = bench.joins.remove(&offered).unwrap().unwrap_err().member_id;
    let waits = bench.join(request(&ids[0]));
    assert!(bench.joins.is_empty());
    assert_eq!(bench.leave(&[&offered]), [Ok(())]);
    assert_eq!(bench.joined(waits).generation, generation + 1);
}

#[test]
fn whoever_is_put_out_while_it_waits_hears_of_it() {
    let mut bench = Bench::new();
    let (ids, _) = bench.stable(2);
    let waits = bench.join(request(&ids[0]));
    bench.leave(&[&ids[0]]);
    assert_eq!(bench.join_error(waits), GroupError::UnknownMemberId);

    let mut bench = Bench::new();
    let (leader, _) = bench.join_new(request(""));
    let (follower, _) = bench.join_new(request(""));
    bench.join(request(&leader));
    let waits = bench.sync(&follower, 2, &[]);
    bench.leave(&[&follower]);
    assert_eq!(bench.sync_error(waits), GroupError::UnknownMemberId);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable_of(vec![static_request("", "i-0"), static_request("", "i-1")]);
    assert!(ids[1].starts_with("i-1-"));
    let waiter = bench.join(static_request("", "i-1"));
    assert_eq!(bench.group.state(), State::Stable);
    assert!(bench.joins.is_empty(), "the new id has to be durable first");
    let stored = bench.persist(true);
    let joined = bench.joined(waiter);
    assert_ne!(joined.member_id, ids[1]);
    assert_eq!(stored.members[1].member_id, joined.member_id);
    assert_eq!(stored.members[1].assignment, "one");
    assert_eq!((joined.generation, joined.leader.as_str()), (generation, ids[0].as_str()));
    let sync = bench.sync(&joined.member_id, generation, &[]);
    assert_eq!(bench.assignment(sync), "one");
    let fenced = bench.step(|group, step| group.heartbeat(step, &ids[1], Some("i-1"), generation));
    assert_eq!(fenced, Err(GroupError::FencedInstanceId));
    assert_eq!(bench.heartbeat(&ids[0], generation), Ok(()));
}

#[test]
fn a_static_leader_comes_back_and_does_not_assign_again() {
    for can_skip_assignment in [false, true] {
        let mut bench = Bench::new();
        let (ids, _) = bench.stable_of(vec![static_request("", "i-0"), static_request("", "i-1")]);
        let waiter = bench.join(JoinRequest { can_skip_assignment, ..static_request("", "i-0") });
        bench.persist(true);
        let joined = bench.joined(waiter);
        assert_eq!(joined.skip_assignment, can_skip_assignment);
        if can_skip_assignment {
            assert_eq!((joined.leader, joined.members.len()), (joined.member_id, 2));
        } else {
            assert_eq!((joined.leader, joined.members.len()), (ids[0].clone(), 0), "an id that is no longer in use");
        }
    }
}

#[test]
fn a_static_member_that_cannot_be_stored_is_as_it_was() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable_of(vec![static_request("", "i-0")]);
    let waiter =
        bench.join(JoinRequest { protocols: protocols(&["range", "sticky"], &["u"]), ..static_request("", "i-0") });
    bench.persist(false);
    assert_eq!(bench.join_error(waiter), GroupError::CoordinatorNotAvailable);
    assert_eq!(bench.heartbeat(&ids[0], generation), Ok(()));
    assert_eq!(bench.group.describe().members[0].metadata, subscription(&["t"]));
}

#[test]
fn a_static_member_that_changes_the_protocol_rebalances_the_group() {
    let mut bench = Bench::new();
    let both = |names: &[&str], instance: &str| JoinRequest {
        protocols: protocols(names, &["t"]),
        ..static_request("", instance)
    };
    let (_, generation) = bench.stable_of(vec![both(&["range", "sticky"], "i-0")]);
    let waiter = bench.join(both(&["sticky", "range"], "i-0"));
    let joined = bench.joined(waiter);
    assert_eq!((joined.generation, joined.protocol.as_deref()), (generation + 1, Some("sticky")));
}

#[test]
fn a_static_member_that_comes_back_while_the_leader_assigns_starts_over() {
    let mut bench = Bench::new();
    let first = bench.join(static_request("", "i-0"));
    let first = bench.joined(first).member_id;
    let waits = bench.sync("nobody", 1, &[]);
    assert_eq!(bench.sync_error(waits), GroupError::UnknownMemberId);
    let second = bench.join(static_request("", "i-0"));
    let second = bench.joined(second);
    assert_eq!(second.generation, 2);
    let old = bench.join(static_request(&first, "i-0"));
    assert_eq!(bench.join_error(old), GroupError::FencedInstanceId);
}

#[test]
fn a_static_member_that_waits_is_fenced_by_its_successor() {
    let mut bench = Bench::new();
    let (ids, _) = bench.stable_of(vec![static_request("", "i-0"), request("")]);
    let old = bench.join(static_request(&ids[0], "i-0"));
    let new = bench.join(static_request("", "i-0"));
    assert_eq!(bench.join_error(old), GroupError::FencedInstanceId);
    bench.join(request(&ids[1]));
    assert_eq!(bench.joined(new).members.len(), 2);
}

#[test]
fn static_members_leave_by_instance_and_survive_a_missed_rebalance() {
    let mut bench = Bench::new();
    let lasting = JoinRequest { session_timeout_ms: 200_000, ..static_request("", "i-0") };
    let (ids, generation) = bench.stable_of(vec![lasting, request("")]);
    let waits = bench.join(JoinRequest { protocols: protocols(&["range"], &["u"]), ..request(&ids[1]) });
    bench.advance(60_000);
    let joined = bench.joined(waits);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 2), "the static member keeps its place");

    let by_instance = |instance: &str| Leaver { member_id: String::new(), group_instance_id: Some(instance.into()) };
    let leavers = [by_instance("i-0"), by_instance("i-0"), by_instance("i-9")];
    let answers = bench.step(|group, step| group.leave(step, &leavers)).unwrap();
    assert_eq!(answers, [Ok(()), Err(GroupError::UnknownMemberId), Err(GroupError::UnknownMemberId)]);
}

#[test]
fn a_group_is_full_at_its_size() {
    let mut bench = Bench::with(GroupSettings { max_size: 2, ..GroupSettings::default() });
    let (ids, generation) = bench.stable(2);
    let refused = bench.join(request(""));
    assert_eq!(bench.join_error(refused), GroupError::GroupMaxSizeReached);
    assert_eq!(bench.heartbeat(&ids[0], generation), Ok(()));
    bench.join(request(&ids[0]));
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    let third = bench.join(JoinRequest { member_id_required: false, ..request("") });
    let late = bench.join(request(&ids[1]));
    assert_eq!(bench.join_error(late), GroupError::GroupMaxSizeReached, "the last to come back is out");
    assert_eq!(bench.joined(third).generation, generation + 1, "and nobody waits for it");
}

#[test]
fn a_restart_keeps_members_in_their_generation_and_their_sessions_begin_anew() {
    let mut bench = Bench::new();
    let (first, _) = bench.join_new(request(""));
    bench.sync(&first, 1, &[(&first, "a")]);
    let stored = bench.persist(true);
    bench.advance(9_000);
    bench.restart(stored.clone());
    assert_eq!(bench.group.state(), State::Stable);
    assert!(bench.group.is_subscribed_to("t"));
    bench.advance(9_999);
    assert_eq!(bench.heartbeat(&first, 1), Ok(()));
    let sync = bench.sync(&first, 1, &[]);
    assert_eq!(bench.assignment(sync), "a");
    bench.restart(stored);
    bench.advance(10_000);
    assert_eq!(bench.group.state(), State::Empty);
    assert_eq!(bench.persist(true).generation, 2);
}

#[test]
fn a_restart_with_a_smaller_size_rebalances() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    let stored = bench.group.stored(None);
    bench.settings.max_size = 1;
    bench.restart(stored);
    assert_eq!(bench.heartbeat(&ids[1], generation), Err(GroupError::RebalanceInProgress));
    let stays = bench.join(request(&ids[1]));
    let goes = bench.join(request(&ids[0]));
    assert_eq!(bench.join_error(goes), GroupError::GroupMaxSizeReached);
    assert_eq!(bench.joined(stays).generation, generation + 1);
}

#[test]
fn offsets_are_committed_by_members_of_the_generation_or_while_nobody_is_in() {
    let mut bench = Bench::new();
    let commit = |bench: &mut Bench, id: &str, instance: Option<&str>, generation| {
        bench.step(|group, step| group.check_commit(step, id, instance, generation))
    };
    assert_eq!(commit(&mut bench, "", None, -1), Ok(()));
    assert_eq!(commit(&mut bench, "m", None, 0), Err(GroupError::UnknownMemberId));
    let (id, _) = bench.join_new(request(""));
    assert_eq!(commit(&mut bench, &id, None, 1), Err(GroupError::RebalanceInProgress));
    bench.sync(&id, 1, &[]);
    bench.persist(true);
    assert_eq!(commit(&mut bench, &id, None, 1), Ok(()));
    assert_eq!(commit(&mut bench, &id, None, 0), Err(GroupError::IllegalGeneration));
    assert_eq!(commit(&mut bench, &id, None, -1), Err(GroupError::IllegalGeneration));
    assert_eq!(commit(&mut bench, "", None, -1), Err(GroupError::UnknownMemberId));
    assert_eq!(commit(&mut bench, &id, Some("i-0"), 1), Err(GroupError::UnknownMemberId));
    bench.advance(9_000);
    assert_eq!(commit(&mut bench, &id, None, 1), Ok(()));
    bench.advance(9_000);
    assert_eq!(bench.heartbeat(&id, 1), Ok(()), "a commit keeps the session");
}

#[test]
fn a_group_is_deleted_only_while_empty_and_comes_back_if_that_fails() {
    let mut bench = Bench::new();
    let (ids, _) = bench.stable(1);
    assert_eq!(bench.group.begin_deletion(), Err(GroupError::NonEmptyGroup));
    bench.leave(&[&ids[0]]);
    assert_eq!(bench.group.begin_deletion(), Ok(()));
    assert_eq!(bench.group.begin_deletion(), Err(GroupError::GroupIdNotFound));
    let waiter = bench.join(request(""));
    assert_eq!(bench.join_error(waiter), GroupError::CoordinatorNotAvailable);
    bench.group.undo_deletion();
    let waiter = bench.join(request(""));
    assert_eq!(bench.join_error(waiter), GroupError::MemberIdRequired);
}

#[test]
fn expiry_counts_from_the_commit_or_from_when_the_group_emptied() {
    use crate::group::offsets::ExpireFrom;
    let mut bench = Bench::new();
    assert_eq!(bench.group.offset_expiry(), Some(ExpireFrom::Commit), "never had members");
    let (id, _) = bench.join_new(request(""));
    assert_eq!(bench.group.offset_expiry(), None, "rebalancing");
    bench.sync(&id, 1, &[]);
    bench.persist(true);
    assert_eq!(bench.group.offset_expiry(), Some(ExpireFrom::Commit));
    assert!(bench.group.is_subscribed_to("t") && !bench.group.is_subscribed_to("other"));
    assert_eq!(bench.group.check_offset_deletion(), Ok(()));
    bench.advance(7_000);
    bench.leave(&[&id]);
    assert_eq!(bench.group.offset_expiry(), Some(ExpireFrom::Moment(1_007_000)));
    assert!(!bench.group.is_subscribed_to("t"));
}

#[test]
fn groups_that_are_not_consumers_keep_all_their_offsets() {
    let mut bench = Bench::new();
    let connect = JoinRequest { protocol_type: "connect".into(), ..request("") };
    let (_, waiter) = bench.join_new(connect);
    let id = bench.joined(waiter).member_id;
    let request = SyncRequest {
        member_id: id,
        group_instance_id: None,
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![],
    };
    bench.step(|group, step| group.sync(step, request, Waiter(500)));
    bench.persist(true);
    assert_eq!(bench.group.offset_expiry(), None);
    assert!(!bench.group.is_subscribed_to("t"));
    assert_eq!(bench.group.check_offset_deletion(), Err(GroupError::NonEmptyGroup));
}

#[test]
fn consumers_that_cannot_be_read_count_as_subscribed_to_everything() {
    let mut bench = Bench::new();
    let garbled = vec![Protocol { name: "range".into(), metadata: Bytes::from_static(b"?") }];
    bench.stable_of(vec![JoinRequest { protocols: garbled, ..request("") }]);
    assert_eq!(bench.group.offset_expiry(), None);
    assert!(bench.group.is_subscribed_to("anything"));
}

#[test]
fn only_a_stable_group_shows_its_protocol() {
    let mut bench = Bench::new();
    let (ids, _) = bench.stable(1);
    let description = bench.group.describe();
    assert_eq!((description.protocol.as_str(), description.protocol_type.as_str()), ("range", "consumer"));
    assert_eq!(description.members[0].member_id, ids[0]);
    assert_eq!(
        (&description.members[0].assignment[..], &description.members[0].metadata),
        (&b"zero"[..], &subscription(&["t"]))
    );
    bench.join_new(request(""));
    let description = bench.group.describe();
    assert_eq!((description.state, description.protocol.as_str()), (State::PreparingRebalance, ""));
    assert!(description.members[0].metadata.is_empty());
}
