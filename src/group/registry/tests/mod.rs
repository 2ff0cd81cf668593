use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::group::classic::{JoinRequest, Joined, Leaver, Protocol, State, SyncRequest};
use crate::group::subscription::subscription;
use crate::group::topics::TestTopics;
use crate::group::{GroupType, Topic, Topics};
use crate::store::Op;

mod consumers;

/// A store in memory that can be told to fail, and to keep its answers for a while.
#[derive(Default)]
struct MemoryMeta {
    topics: TestTopics,
    state: Mutex<MetaState>,
}

#[derive(Default)]
struct MetaState {
    entries: BTreeMap<Bytes, Bytes>,
    fails: bool,
    holds: bool,
    held: Vec<(Batch, oneshot::Sender<Result<(), StoreError>>)>,
}

impl MetaState {
    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        if self.fails {
            return Err(StoreError::NotDone("told to fail".into()));
        }
        for op in batch.ops {
            match op {
                Op::Put { key, value, .. } => drop(self.entries.insert(key, value)),
                Op::Delete { key, .. } => drop(self.entries.remove(&key)),
                Op::DeleteRange { .. } => panic!("groups delete by key"),
            }
        }
        Ok(())
    }
}

impl MemoryMeta {
    fn fail(&self, fails: bool) {
        self.state.lock().fails = fails;
    }

    fn hold(&self) {
        self.state.lock().holds = true;
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.holds = false;
        for (batch, client) in std::mem::take(&mut state.held) {
            let _ = client.send(state.apply(batch));
        }
    }

    fn len(&self) -> usize {
        self.state.lock().entries.len()
    }
}

impl MetaLog for MemoryMeta {
    fn commit_meta(&self, batch: Batch) -> oneshot::Receiver<Result<(), StoreError>> {
        let (client, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if state.holds {
            state.held.push((batch, client));
        } else {
            let _ = client.send(state.apply(batch));
        }
        answer
    }

    fn scan_meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let state = self.state.lock();
        let matching = state.entries.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(matching.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl Topics for MemoryMeta {
    fn version(&self) -> u64 {
        self.topics.version()
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.topics.topic(name)
    }

    fn topic_name(&self, id: uuid::Uuid) -> Option<Arc<str>> {
        self.topics.topic_name(id)
    }

    fn topic_names(&self) -> Vec<Arc<str>> {
        self.topics.topic_names()
    }
}

struct Broker {
    meta: Arc<MemoryMeta>,
    clock: Clock,
    groups: Arc<Groups>,
}

impl Broker {
    fn start() -> Broker {
        let (meta, clock) = (Arc::new(MemoryMeta::default()), Clock::manual(1_000_000));
        let groups = Groups::open(meta.clone(), clock.clone(), GroupSettings::default()).unwrap();
        Broker { meta, clock, groups }
    }

    /// As after `kill -9`: only what the store has is left.
    fn restart(&mut self) {
        self.groups = Groups::open(self.meta.clone(), self.clock.clone(), GroupSettings::default()).unwrap();
    }

    fn advance(&self, ms: i64) {
        self.clock.advance(ms);
        self.groups.tick();
    }

    /// A group `g` with one member that has its assignment.
    async fn member(&self) -> Joined {
        let joined = self.groups.join("g", request("")).await.unwrap();
        let synced = self.groups.sync("g", sync_request(&joined)).await.unwrap();
        assert_eq!(synced.assignment, "assigned");
        joined
    }

    async fn commit(&self, member: Option<&Joined>, topic: &str, offset: i64) -> Result<(), GroupError> {
        let answers = self.groups.commit_offsets("g", commit_request(member, topic, offset)).await?;
        answers[0]
    }

    async fn committed(&self, topic: &str) -> Option<i64> {
        let wanted = [TopicPartitions { topic: topic.into(), partitions: vec![0] }];
        let found = self.groups.fetch_offsets("g", Some(&wanted), false).await;
        match &found[0].partitions[0].1 {
            Fetched::Committed(committed) => Some(committed.offset),
            Fetched::Nothing | Fetched::Unstable => None,
        }
    }
}

/// Of the first partition.
fn committed_of(found: &[TopicOffsets]) -> CommittedOffset {
    match &found[0].partitions[0].1 {
        Fetched::Committed(committed) => committed.clone(),
        other => panic!("{other:?}"),
    }
}

fn request(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: subscription(&["t"]) }],
        member_id_required: false,
        can_skip_assignment: false,
    }
}

fn sync_request(joined: &Joined) -> SyncRequest {
    SyncRequest {
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"assigned"))],
    }
}

fn commit_request(member: Option<&Joined>, topic: &str, offset: i64) -> CommitRequest {
    CommitRequest {
        member_id: member.map(|joined| joined.member_id.clone()).unwrap_or_default(),
        group_instance_id: None,
        generation: member.map_or(-1, |joined| joined.generation),
        knows_epochs: true,
        retention_ms: None,
        offsets: vec![OffsetToCommit {
            topic: topic.into(),
            partition: 0,
            offset,
            leader_epoch: Some(3),
            metadata: "note".into(),
        }],
    }
}

fn leaver(joined: &Joined) -> Leaver {
    Leaver { member_id: joined.member_id.clone(), group_instance_id: None }
}

/// Lets the tasks that were spawned run until they wait.
async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn members_and_offsets_survive_a_restart() {
    let mut broker = Broker::start();
    let member = broker.member().await;
    broker.commit(Some(&member), "t", 42).await.unwrap();
    broker.restart();
    let groups = &broker.groups;
    assert_eq!(groups.heartbeat("g", &member.member_id, None, member.generation), Ok(()), "no rebalance");
    assert_eq!(groups.sync("g", sync_request(&member)).await.unwrap().assignment, "assigned");
    let all = groups.fetch_offsets("g", None, true).await;
    assert_eq!((all.len(), all[0].topic.as_str()), (1, "t"));
    let committed = committed_of(&all);
    assert_eq!((committed.offset, committed.leader_epoch, committed.metadata.as_str()), (42, Some(3), "note"));
    assert_eq!(committed.commit_ms, 1_000_000);

    broker.advance(10_000);
    assert_eq!(groups.describe("g").unwrap().state, State::Empty, "the session began anew, and has ended");
    settle().await;
    broker.restart();
    assert_eq!(broker.groups.describe("g").unwrap().state, State::Empty);
    assert_eq!(broker.committed("t").await, Some(42));
}

#[tokio::test]
async fn sync_is_answered_after_the_assignment_is_durable() {
    let broker = Broker::start();
    let joined = broker.groups.join("g", request("")).await.unwrap();
    broker.meta.hold();
    let groups = broker.groups.clone();
    let sync = tokio::spawn({
        let request = sync_request(&joined);
        async move { groups.sync("g", request).await }
    });
    settle().await;
    assert!(!sync.is_finished());
    assert_eq!(broker.groups.describe("g").unwrap().state, State::CompletingRebalance);
    broker.meta.release();
    assert_eq!(sync.await.unwrap().unwrap().assignment, "assigned");
}

#[tokio::test]
async fn a_store_that_fails_is_heard_and_the_group_goes_on() {
    let broker = Broker::start();
    let joined = broker.groups.join("g", request("")).await.unwrap();
    broker.meta.fail(true);
    let refused = broker.groups.sync("g", sync_request(&joined)).await;
    assert_eq!(refused, Err(GroupError::CoordinatorNotAvailable));
    broker.meta.fail(false);
    let again = broker.groups.join("g", request(&joined.member_id)).await.unwrap();
    assert_eq!(again.generation, 2);
    broker.groups.sync("g", sync_request(&again)).await.unwrap();

    broker.commit(Some(&again), "t", 1).await.unwrap();
    broker.meta.fail(true);
    assert_eq!(broker.commit(Some(&again), "t", 2).await, Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(broker.committed("t").await, Some(1));
}

#[tokio::test]
async fn a_client_that_went_away_harms_nobody() {
    let broker = Broker::start();
    let first = broker.member().await;
    let groups = broker.groups.clone();
    let gone = tokio::spawn(async move { groups.join("g", request("")).await });
    settle().await;
    gone.abort();
    settle().await;
    let groups = broker.groups.clone();
    let rejoin = request(&first.member_id);
    let rejoined = groups.join("g", rejoin).await.unwrap();
    assert_eq!((rejoined.generation, rejoined.members.len()), (2, 2), "its client may only have lost its connection");
    groups.sync("g", sync_request(&rejoined)).await.unwrap();
    for _ in 0..7 {
        broker.advance(9_000);
        let _ = groups.heartbeat("g", &first.member_id, None, 2);
    }
    let rejoined = groups.join("g", request(&first.member_id)).await.unwrap();
    assert_eq!((rejoined.generation, rejoined.members.len()), (3, 1), "and its silence ended its membership");

    broker.meta.hold();
    let commit = tokio::spawn({
        let groups = groups.clone();
        async move { groups.commit_offsets("other", commit_request(None, "t", 5)).await }
    });
    settle().await;
    commit.abort();
    settle().await;
    broker.meta.release();
    settle().await;
    let all = groups.fetch_offsets("other", None, false).await;
    assert_eq!(committed_of(&all).offset, 5, "what is stored shows");
}

#[tokio::test]
async fn a_stable_fetch_waits_for_commits_on_their_way() {
    let broker = Broker::start();
    broker.commit(None, "t", 1).await.unwrap();
    broker.meta.hold();
    let groups = broker.groups.clone();
    let commit = tokio::spawn(async move { groups.commit_offsets("g", commit_request(None, "t", 2)).await });
    settle().await;
    assert_eq!(broker.committed("t").await, Some(1));
    let groups = broker.groups.clone();
    let fetch = tokio::spawn(async move { groups.fetch_offsets("g", None, true).await });
    settle().await;
    assert!(!fetch.is_finished());
    broker.meta.release();
    assert_eq!(committed_of(&fetch.await.unwrap()).offset, 2);
    commit.await.unwrap().unwrap();
}

#[tokio::test]
async fn commits_are_refused_one_by_one_or_together() {
    let broker = Broker::start();
    let mut request = commit_request(None, "t", 7);
    let mut large = request.offsets[0].clone();
    large.metadata = "\u{e9}".repeat(4_097);
    let mut wide = large.clone();
    wide.partition = 1;
    wide.metadata = "\u{e9}".repeat(4_096);
    request.offsets = vec![large, wide];
    let answers = broker.groups.commit_offsets("g", request).await.unwrap();
    assert_eq!(answers, [Err(GroupError::OffsetMetadataTooLarge), Ok(())], "the limit counts characters");
    assert_eq!(broker.committed("t").await, None);

    let mut of_member = commit_request(None, "t", 7);
    of_member.generation = 1;
    let unknown = broker.groups.commit_offsets("unknown", of_member).await;
    assert_eq!(unknown, Err(GroupError::GroupIdNotFound));
    let invalid = broker.groups.commit_offsets("a\0b", commit_request(None, "t", 7)).await;
    assert_eq!(invalid, Err(GroupError::InvalidGroupId));
    assert!(
        broker.groups.commit_offsets("", commit_request(None, "t", 7)).await.is_ok(),
        "Kafka takes the empty id here"
    );
}

#[tokio::test]
async fn requests_are_checked_before_a_group_comes_into_being() {
    let broker = Broker::start();
    let groups = &broker.groups;
    let error = |answer: JoinAnswer| answer.unwrap_err().error;
    assert_eq!(error(groups.join("", request("")).await), GroupError::InvalidGroupId);
    assert_eq!(error(groups.join("a\0", request("")).await), GroupError::InvalidGroupId);
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let request = JoinRequest { session_timeout_ms, ..request("") };
        assert_eq!(error(groups.join("g", request).await), GroupError::InvalidSessionTimeout);
    }
    assert_eq!(error(groups.join("g", request("someone")).await), GroupError::UnknownMemberId);
    assert_eq!(
        error(groups.join("g", JoinRequest { protocols: vec![], ..request("") }).await),
        GroupError::InconsistentGroupProtocol
    );
    assert_eq!(groups.heartbeat("g", "someone", None, 0), Err(GroupError::UnknownMemberId));
    assert_eq!(groups.leave("g", &[]).await, Ok(vec![]));
    assert!(groups.list(&[], &[]).is_empty() && groups.groups.is_empty());
}

#[tokio::test]
async fn a_group_that_came_to_nothing_is_forgotten() {
    let broker = Broker::start();
    let asked = broker.groups.join("g", JoinRequest { member_id_required: true, ..request("") }).await.unwrap_err();
    assert_eq!(asked.error, GroupError::MemberIdRequired);
    assert_eq!(broker.groups.list(&[], &[]).len(), 1);
    broker.advance(10_000);
    assert!(broker.groups.groups.is_empty() && broker.groups.alarms.is_empty());
}

#[tokio::test]
async fn groups_are_listed_by_state_and_type_in_any_case() {
    let broker = Broker::start();
    broker.member().await;
    broker.groups.commit_offsets("simple", commit_request(None, "t", 1)).await.unwrap();
    let ids = |states: &[&str], types: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut ids: Vec<String> =
            broker.groups.list(&owned(states), &owned(types)).into_iter().map(|listed| listed.group_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[], &[]), ["g", "simple"]);
    assert_eq!(ids(&["stable"], &["Classic"]), ["g"]);
    assert_eq!(ids(&["Empty", "Nonsense"], &[]), ["simple"]);
    assert_eq!(ids(&[], &["consumer"]), [""; 0]);
    assert_eq!(broker.groups.describe("simple").unwrap().protocol_type, "");
    assert_eq!(broker.groups.describe("nobody"), None);
}

#[tokio::test]
async fn groups_are_deleted_with_their_offsets_once_nobody_is_in() {
    let mut broker = Broker::start();
    let member = broker.member().await;
    broker.commit(Some(&member), "t", 1).await.unwrap();
    let ids = ["g".to_owned(), "nobody".to_owned()];
    let answers = broker.groups.delete_groups(&ids).await;
    assert_eq!(answers, [Err(GroupError::NonEmptyGroup), Err(GroupError::GroupIdNotFound)]);
    broker.groups.leave("g", &[leaver(&member)]).await.unwrap();

    broker.meta.fail(true);
    assert_eq!(broker.groups.delete_groups(&ids[..1]).await, [Err(GroupError::CoordinatorNotAvailable)]);
    broker.meta.fail(false);
    assert_eq!(broker.committed("t").await, Some(1));
    assert_eq!(broker.groups.delete_groups(&ids[..1]).await, [Ok(())]);
    assert_eq!(broker.committed("t").await, None);
    assert!(broker.groups.groups.is_empty());
    assert_eq!(broker.meta.len(), 0);
    broker.restart();
    assert!(broker.groups.list(&[], &[]).is_empty());
}

#[tokio::test]
async fn offsets_are_deleted_unless_the_group_reads_the_topic() {
    let broker = Broker::start();
    let member = broker.member().await;
    broker.commit(Some(&member), "t", 1).await.unwrap();
    broker.commit(Some(&member), "other", 2).await.unwrap();
    let topics = ["t", "other", "unknown"].map(|topic| TopicPartitions { topic: topic.into(), partitions: vec![0, 1] });
    let answers = broker.groups.delete_offsets("g", &topics).await.unwrap();
    assert_eq!(answers, [Err(GroupError::GroupSubscribedToTopic), Ok(()), Ok(())]);
    assert_eq!((broker.committed("t").await, broker.committed("other").await), (Some(1), None));
    assert_eq!(broker.groups.delete_offsets("nobody", &topics).await, Err(GroupError::GroupIdNotFound));
}

#[tokio::test]
async fn offsets_go_with_their_topic() {
    let mut broker = Broker::start();
    broker.commit(None, "t", 1).await.unwrap();
    broker.commit(None, "u", 2).await.unwrap();
    broker.groups.forget_topics(|topic| topic == "t").await.unwrap();
    assert_eq!((broker.committed("t").await, broker.committed("u").await), (None, Some(2)));
    broker.restart();
    let mut seen = Vec::new();
    broker.groups.visit_committed(|group, topic, partition, offset| {
        seen.push((group.to_owned(), topic.to_owned(), partition, offset));
    });
    assert_eq!(seen, [("g".to_owned(), "u".to_owned(), 0, 2)]);
    broker.meta.fail(true);
    assert_eq!(broker.groups.forget_topics(|_| true).await, Err(GroupError::CoordinatorNotAvailable));
}

#[tokio::test]
async fn offsets_expire_a_week_after_the_group_emptied_and_the_group_with_them() {
    let week = GroupSettings::default().offsets_retention_ms;
    let broker = Broker::start();
    let member = broker.member().await;
    broker.commit(Some(&member), "t", 1).await.unwrap();
    broker.clock.advance(9 * week);
    broker.groups.expire_offsets();
    settle().await;
    assert_eq!(broker.committed("t").await, Some(1), "the group is subscribed to it");
    broker.groups.leave("g", &[leaver(&member)]).await.unwrap();
    broker.clock.advance(week - 1);
    broker.groups.expire_offsets();
    settle().await;
    assert_eq!(broker.committed("t").await, Some(1));
    broker.clock.advance(1);
    broker.groups.expire_offsets();
    settle().await;
    assert!(broker.groups.groups.is_empty());
    assert_eq!(broker.meta.len(), 0);
}

#[tokio::test]
async fn an_offset_may_expire_by_the_clients_own_retention() {
    let broker = Broker::start();
    let mut request = commit_request(None, "t", 1);
    request.retention_ms = Some(1_000);
    broker.groups.commit_offsets("g", request).await.unwrap();
    broker.commit(None, "u", 1).await.unwrap();
    broker.clock.advance(1_000);
    broker.groups.expire_offsets();
    settle().await;
    assert_eq!((broker.committed("t").await, broker.committed("u").await), (None, Some(1)));
}

#[tokio::test]
async fn the_timer_task_wakes_for_deadlines_and_for_expiry() {
    let broker = Broker::start();
    let timers = tokio::spawn(broker.groups.clone().run_timers());
    settle().await;
    broker.member().await;
    settle().await;
    // One step of the clock may be past several deadlines; each wakes the task.
    for _ in 0..20 {
        broker.clock.advance(1_000);
        settle().await;
    }
    assert_eq!(broker.groups.describe("g").unwrap().state, State::Empty);
    let interval_ms = GroupSettings::default().offsets_retention_check_interval_ms;
    broker.clock.advance(interval_ms);
    settle().await;
    assert!(broker.groups.groups.is_empty(), "an empty group without offsets goes at the next check");
    timers.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_race_deletions_and_all_are_answered() {
    let broker = Broker::start();
    let groups = broker.groups.clone();
    let deleter = tokio::spawn(async move {
        for _ in 0..200 {
            groups.delete_groups(&["g".to_owned()]).await;
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..200 {
        let groups = broker.groups.clone();
        match tokio::time::timeout(Duration::from_secs(30), groups.join("g", request(""))).await.expect("an answer") {
            Ok(joined) => drop(groups.leave("g", &[leaver(&joined)]).await.unwrap()),
            Err(refused) => assert_eq!(refused.error, GroupError::CoordinatorNotAvailable),
        }
    }
    deleter.await.unwrap();
    settle().await;
    let listed = broker.groups.list(&[], &[]);
    assert!(listed.iter().all(|listed| listed.state == "Empty"));
}

#[tokio::test]
async fn a_group_id_stands_for_one_group() {
    let broker = Broker::start();
    broker.member().await;
    broker.groups.commit_offsets("simple", commit_request(None, "t", 1)).await.unwrap();
    for taken in ["g", "simple"] {
        assert_eq!(broker.groups.claim(taken, GroupType::Share), Err(GroupError::GroupIdNotFound));
        assert_eq!(broker.groups.group_type(taken), Some(GroupType::Classic));
    }
    assert_eq!(broker.groups.claim("", GroupType::Share), Err(GroupError::InvalidGroupId));

    broker.groups.claim("share", GroupType::Share).unwrap();
    broker.groups.claim("share", GroupType::Share).unwrap();
    assert_eq!(broker.groups.group_type("share"), Some(GroupType::Share));
    let join = broker.groups.join("share", request("")).await;
    assert_eq!(join.unwrap_err().error, GroupError::InconsistentGroupProtocol);
    let commit = broker.groups.commit_offsets("share", commit_request(None, "t", 1)).await;
    assert_eq!(commit, Err(GroupError::GroupIdNotFound));
    assert_eq!(broker.groups.delete_groups(&["share".into()]).await, [Err(GroupError::GroupIdNotFound)]);
    assert_eq!(broker.groups.list(&[], &[]).len(), 2, "who keeps it lists it");
    assert_eq!(broker.groups.count().into_values().sum::<usize>(), 2);

    broker.groups.release("share", GroupType::Share);
    broker.groups.release("g", GroupType::Share);
    assert_eq!(broker.groups.group_type("share"), None);
    assert!(broker.groups.join("share", request("")).await.is_ok());
    assert_eq!(broker.groups.group_type("g"), Some(GroupType::Classic));
}

/// Commits `offset` of topic `t` in the open transaction of a producer.
async fn commit_pending(broker: &Broker, producer_id: i64, request: CommitRequest) -> Result<(), GroupError> {
    let queued = broker.groups.commit_in_transaction("g", producer_id, request)?;
    queued.answers().await?[0]
}

/// Ends it, with a key of the coordinator's in the same commit.
fn end_pending(broker: &Broker, producer_id: i64, commit: bool) -> JoinHandle<Result<(), StoreError>> {
    let mut batch = Batch::default();
    batch.put(Family::Meta, Key::Transaction("t").encode(), Bytes::from_static(b"ended"));
    let groups = BTreeSet::from(["g".to_owned(), "no such group".to_owned()]);
    let meta = broker.meta.clone();
    broker.groups.end_transaction(producer_id, commit, &groups, batch, |batch| meta.commit_meta(batch))
}

async fn fetched(broker: &Broker, require_stable: bool) -> Fetched {
    let wanted = [TopicPartitions { topic: "t".into(), partitions: vec![0] }];
    broker.groups.fetch_offsets("g", Some(&wanted), require_stable).await[0].partitions[0].1.clone()
}

#[tokio::test]
async fn offsets_of_a_transaction_are_unstable_until_it_ends() {
    let mut broker = Broker::start();
    broker.commit(None, "t", 1).await.unwrap();
    commit_pending(&broker, 7, commit_request(None, "t", 5)).await.unwrap();
    // They outlive a restart.
    for _ in 0..2 {
        assert_eq!(fetched(&broker, true).await, Fetched::Unstable);
        assert_eq!(broker.committed("t").await, Some(1));
        broker.restart();
    }
    broker.meta.hold();
    let ended = end_pending(&broker, 7, true);
    assert_eq!(broker.committed("t").await, Some(1));
    broker.meta.release();
    ended.await.unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(committed_of(&broker.groups.fetch_offsets("g", None, true).await).offset, 5);
        broker.restart();
    }
    assert_eq!(broker.meta.len(), 2, "the committed offset and what the coordinator wrote");
}

#[tokio::test]
async fn an_aborted_transaction_leaves_no_group_behind() {
    let broker = Broker::start();
    commit_pending(&broker, 7, commit_request(None, "t", 5)).await.unwrap();
    broker.clock.advance(365 * 24 * 3_600_000);
    broker.groups.expire_offsets();
    assert_eq!(fetched(&broker, true).await, Fetched::Unstable, "it is not for the retention to end a transaction");
    end_pending(&broker, 7, false).await.unwrap().unwrap();
    assert_eq!(fetched(&broker, true).await, Fetched::Nothing);
    assert!(broker.groups.list(&[], &[]).is_empty());
    assert_eq!(broker.meta.len(), 1, "what the coordinator wrote");
}

#[tokio::test]
async fn a_transaction_is_fenced_by_the_group() {
    let broker = Broker::start();
    let member = broker.member().await;
    commit_pending(&broker, 7, commit_request(Some(&member), "t", 5)).await.unwrap();
    // Older producers do not tell for whom they commit.
    commit_pending(&broker, 7, commit_request(None, "t", 6)).await.unwrap();
    let stale = CommitRequest { generation: member.generation - 1, ..commit_request(Some(&member), "t", 7) };
    assert_eq!(commit_pending(&broker, 7, stale).await, Err(GroupError::IllegalGeneration));
    let stranger = CommitRequest { member_id: "stranger".into(), ..commit_request(Some(&member), "t", 7) };
    assert_eq!(commit_pending(&broker, 7, stranger.clone()).await, Err(GroupError::UnknownMemberId));
    let queued = broker.groups.commit_in_transaction("no such group", 7, stranger);
    assert_eq!(queued.map(|_| ()), Err(GroupError::IllegalGeneration));
    end_pending(&broker, 7, true).await.unwrap().unwrap();
    assert_eq!(broker.committed("t").await, Some(6));
}

#[tokio::test]
async fn deleting_a_topic_or_a_group_takes_pending_offsets_along() {
    let mut broker = Broker::start();
    commit_pending(&broker, 7, commit_request(None, "t", 5)).await.unwrap();
    broker.groups.forget_topics(|topic| topic == "t").await.unwrap();
    assert_eq!(broker.meta.len(), 0);
    commit_pending(&broker, 7, commit_request(None, "t", 5)).await.unwrap();
    broker.restart();
    assert_eq!(broker.groups.delete_groups(&["g".into()]).await, [Ok(())]);
    assert_eq!(broker.meta.len(), 0);
    end_pending(&broker, 7, true).await.unwrap().unwrap();
    assert_eq!(fetched(&broker, true).await, Fetched::Nothing);
}
