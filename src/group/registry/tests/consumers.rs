//! Groups of the consumer protocol, groups that go over, and settings of groups.

use super::*;
use crate::group::consumer::{ConsumerState, HeartbeatAnswer, HeartbeatRequest, JOIN, LEAVE};
use crate::model::settings::SettingError;
use crate::model::settings::group::{CONSUMER_HEARTBEAT_INTERVAL_MS, MigrationPolicy};

fn beat(member_id: &str, member_epoch: i32) -> HeartbeatRequest {
    let joins = member_epoch == JOIN;
    HeartbeatRequest {
        member_id: member_id.into(),
        member_epoch,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: joins.then_some(60_000),
        subscribed_topics: joins.then(|| vec!["t".into()]),
        owned: Some(Vec::new()),
        ..HeartbeatRequest::default()
    }
}

impl Broker {
    async fn beat(&self, member_id: &str, member_epoch: i32) -> Result<HeartbeatAnswer, GroupError> {
        self.groups.heartbeat_consumer("g", beat(member_id, member_epoch)).await
    }
}

#[tokio::test]
async fn a_heartbeat_is_answered_after_what_it_tells_is_durable() {
    let mut broker = Broker::start();
    broker.meta.topics.set("t", 2);
    broker.meta.hold();
    let groups = broker.groups.clone();
    let joining = tokio::spawn(async move { groups.heartbeat_consumer("g", beat("m", JOIN)).await });
    settle().await;
    assert!(!joining.is_finished());
    let groups = broker.groups.clone();
    let again = tokio::spawn(async move { groups.heartbeat_consumer("g", beat("m", 1)).await });
    settle().await;
    assert!(!again.is_finished(), "it changes nothing, but rests on what the first one changed");
    broker.meta.release();
    assert_eq!(joining.await.unwrap().unwrap().assignment.unwrap().len(), 1);
    again.await.unwrap().unwrap();

    broker.restart();
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Consumer));
    assert_eq!(broker.beat("m", 1).await.unwrap().member_epoch, 1, "nobody noticed");
    let described = broker.groups.describe_consumer("g").unwrap();
    assert_eq!((described.state, described.members.len()), (ConsumerState::Stable, 1));
    broker.meta.fail(true);
    assert_eq!(broker.beat("n", JOIN).await, Err(GroupError::CoordinatorNotAvailable));
    broker.meta.fail(false);
    broker.beat("n", JOIN).await.unwrap();
    broker.restart();
    assert_eq!(broker.groups.describe_consumer("g").unwrap().members.len(), 2);
}

#[tokio::test]
async fn consumer_groups_are_listed_committed_for_and_deleted() {
    let mut broker = Broker::start();
    broker.meta.topics.set("t", 2);
    assert_eq!(broker.beat("m", 1).await, Err(GroupError::GroupIdNotFound));
    assert!(broker.groups.groups.is_empty());
    broker.beat("m", JOIN).await.unwrap();
    let listed = broker.groups.list(&["stable".into()], &["consumer".into()]);
    assert_eq!((listed[0].group_id.as_str(), listed[0].protocol_type.as_str()), ("g", "consumer"));
    assert_eq!(broker.groups.describe("g"), None);

    let mut commit = commit_request(None, "t", 5);
    (commit.member_id, commit.generation) = ("m".into(), 1);
    broker.groups.commit_offsets("g", commit.clone()).await.unwrap();
    commit.generation = 9;
    assert_eq!(broker.groups.commit_offsets("g", commit).await, Err(GroupError::StaleMemberEpoch));
    assert_eq!(broker.commit(None, "t", 1).await, Err(GroupError::UnknownMemberId));
    assert_eq!(broker.groups.check_fetch("g", "m", 1), Ok(()));
    assert_eq!(broker.groups.check_fetch("g", "m", 2), Err(GroupError::StaleMemberEpoch));
    assert_eq!(broker.groups.check_fetch("nobody", "m", 2), Ok(()));
    let topics = [TopicPartitions { topic: "t".into(), partitions: vec![0] }];
    let deleted = broker.groups.delete_offsets("g", &topics).await.unwrap();
    assert_eq!(deleted, [Err(GroupError::GroupSubscribedToTopic)]);

    let ids = ["g".to_owned()];
    assert_eq!(broker.groups.delete_groups(&ids).await, [Err(GroupError::NonEmptyGroup)]);
    broker.beat("m", LEAVE).await.unwrap();
    assert_eq!(broker.groups.delete_groups(&ids).await, [Ok(())]);
    assert_eq!(broker.meta.len(), 0);
    broker.restart();
    assert!(broker.groups.list(&[], &[]).is_empty());
}

#[tokio::test]
async fn a_silent_member_of_a_consumer_group_goes_and_an_unused_group_with_it() {
    let broker = Broker::start();
    broker.meta.topics.set("t", 2);
    broker.beat("m", JOIN).await.unwrap();
    broker.advance(45_000);
    settle().await;
    assert_eq!(broker.groups.describe_consumer("g").unwrap().state, ConsumerState::Empty);
    broker.groups.expire_offsets();
    settle().await;
    assert!(broker.groups.groups.is_empty());
    assert_eq!(broker.meta.len(), 0);
}

#[tokio::test]
async fn groups_go_over_to_the_consumer_protocol_and_back() {
    let mut broker = Broker::start();
    broker.meta.topics.set("t", 2);
    let classic = broker.member().await;
    broker.commit(Some(&classic), "t", 7).await.unwrap();
    let joined = broker.beat("m", JOIN).await;
    assert_eq!(joined, Err(GroupError::GroupIdNotFound), "an assignment that is not the consumers' own");
    let assignment = crate::group::subscription::write_assignment(0, Vec::new());
    let again = broker.groups.join("g", request(&classic.member_id)).await.unwrap();
    let assignments = vec![(again.member_id.clone(), assignment)];
    broker.groups.sync("g", SyncRequest { assignments, ..sync_request(&again) }).await.unwrap();
    let mut refused = beat("m", JOIN);
    refused.subscribed_regex = Some("(".into());
    let refused = broker.groups.heartbeat_consumer("g", refused).await;
    assert_eq!(refused, Err(GroupError::InvalidRegularExpression));
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Classic), "a refused member moves nobody");
    broker.beat("m", JOIN).await.unwrap();
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Consumer));
    let beaten = broker.groups.heartbeat("g", &again.member_id, None, again.generation);
    assert_eq!(beaten, Err(GroupError::RebalanceInProgress));
    let rejoined = broker.groups.join("g", request(&again.member_id)).await.unwrap();
    assert!(rejoined.generation > again.generation && rejoined.leader.is_empty());
    broker.groups.sync("g", SyncRequest { assignments: vec![], ..sync_request(&rejoined) }).await.unwrap();
    assert_eq!(broker.committed("t").await, Some(7));

    broker.restart();
    assert_eq!(broker.groups.describe_consumer("g").unwrap().members.len(), 2);
    broker.beat("m", LEAVE).await.unwrap();
    settle().await;
    assert_eq!(broker.groups.describe("g").unwrap().state, State::PreparingRebalance);
    broker.restart();
    assert_eq!(broker.groups.describe("g").unwrap().members.len(), 1);
    let back = broker.groups.join("g", request(&again.member_id)).await.unwrap();
    assert_eq!(back.leader, again.member_id);
    broker.groups.sync("g", sync_request(&back)).await.unwrap();
    broker.groups.leave("g", &[leaver(&back)]).await.unwrap();
    broker.beat("m", JOIN).await.unwrap();
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Consumer), "an empty group at once");
    broker.beat("m", LEAVE).await.unwrap();
    broker.member().await;
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Classic));
    assert_eq!(broker.committed("t").await, Some(7));
}

#[tokio::test]
async fn groups_with_members_go_over_only_if_the_policy_says_so() {
    let meta = Arc::new(MemoryMeta::default());
    meta.topics.set("t", 2);
    let settings = GroupSettings { migration: MigrationPolicy::Disabled, ..GroupSettings::default() };
    let clock = Clock::manual(1_000_000);
    let groups = Groups::open(meta.clone(), clock.clone(), settings).unwrap();
    let broker = Broker { meta, clock, groups };
    let joined = broker.groups.join("g", request("")).await.unwrap();
    assert_eq!(broker.beat("m", JOIN).await, Err(GroupError::GroupIdNotFound));
    broker.groups.leave("g", &[leaver(&joined)]).await.unwrap();
    broker.beat("m", JOIN).await.unwrap();
    broker.groups.join("g", request("")).await.unwrap();
    broker.beat("m", LEAVE).await.unwrap();
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Consumer));
}

#[tokio::test]
async fn a_group_keeps_its_settings() {
    let mut broker = Broker::start();
    broker.meta.topics.set("t", 2);
    let set = |value: &str| {
        let value = value.to_owned();
        move |_: &Overrides| Ok(Overrides::from([(CONSUMER_HEARTBEAT_INTERVAL_MS.to_owned(), value)]))
    };
    assert_eq!(broker.beat("m", JOIN).await.unwrap().heartbeat_interval_ms, 5_000);
    broker.groups.alter_config("g", set("7000")).await.unwrap();
    assert_eq!(broker.beat("m", 1).await.unwrap().heartbeat_interval_ms, 7_000);
    broker.restart();
    assert_eq!((broker.groups.configured(), broker.groups.config("g").len()), (vec!["g".to_owned()], 1));
    assert_eq!(broker.beat("m", 1).await.unwrap().heartbeat_interval_ms, 7_000);
    broker.groups.alter_config("g", |_| Ok(Overrides::new())).await.unwrap();
    assert!(broker.groups.configured().is_empty());
    let refused = broker.groups.alter_config("g", |_| Err(SettingError::UnknownGroupName("x".into()))).await;
    assert!(matches!(refused, Err(ConfigError::Setting(_))));
    assert!(matches!(broker.groups.alter_config("", set("1")).await, Err(ConfigError::Group(_))));
}
