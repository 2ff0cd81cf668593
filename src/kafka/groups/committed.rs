//! Committed offsets: OffsetCommit (8), OffsetFetch (9), OffsetDelete (47).

use indexmap::{IndexMap, IndexSet};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{owned, string};
use crate::broker::Broker;
use crate::group::{CommitRequest, Fetched, GroupError, OffsetToCommit, TopicOffsets, TopicPartitions};
use crate::kafka::Context;
use crate::kafka::error::{self, NONE};

/// No offset, no leader epoch, no retention.
const NOTHING: i64 = -1;
const NO_EPOCH: i32 = -1;
/// OffsetCommit versions that know members' epochs, and GROUP_ID_NOT_FOUND (KIP-848).
const MEMBER_EPOCHS_FROM: i16 = 9;
/// OffsetFetch versions that ask for several groups (KIP-709).
const SEVERAL_GROUPS_FROM: i16 = 8;

/// OffsetCommit, versions 2 to 9. Partitions that do not exist are refused one by one; the others stand or fall with the
/// group, but for metadata that is too long. `retention_time_ms` (versions 2 to 4) goes before the broker's own.
pub async fn offset_commit(cx: Context, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let OffsetCommitRequest { group_id, generation_id_or_member_epoch, member_id, topics, .. } = request;
    let mut offsets = Vec::new();
    // Which of `offsets` each partition of the request is; None for those that do not exist.
    let mut places: Vec<Vec<Option<usize>>> = Vec::with_capacity(topics.len());
    for topic in &topics {
        let count = partition_count(&cx.door.broker, &topic.name);
        let place = |partition: &OffsetCommitRequestPartition| {
            let index = existing(partition.partition_index, count)?;
            offsets.push(offset_to_commit(topic, partition, index));
            Some(offsets.len() - 1)
        };
        places.push(topic.partitions.iter().map(place).collect());
    }
    let answers = if offsets.is_empty() {
        Ok(Vec::new())
    } else {
        let request = CommitRequest {
            member_id: member_id.to_string(),
            group_instance_id: owned(request.group_instance_id),
            generation: generation_id_or_member_epoch,
            knows_epochs: cx.version >= MEMBER_EPOCHS_FROM,
            retention_ms: Some(request.retention_time_ms).filter(|retention_ms| *retention_ms != NOTHING),
            offsets,
        };
        cx.door.groups.commit_offsets(&group_id, request).await
    };
    let code = |place: Option<usize>| match (place, &answers) {
        (None, _) => ResponseError::UnknownTopicOrPartition.code(),
        (Some(_), Err(error)) => of_commit(*error, cx.version).code(),
        (Some(place), Ok(answers)) => match answers.get(place) {
            Some(Err(error)) => of_commit(*error, cx.version).code(),
            Some(Ok(())) | None => NONE,
        },
    };
    let answered = topics.into_iter().zip(places).map(|(topic, places)| {
        let partitions = topic.partitions.iter().zip(places).map(|(partition, place)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(place))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(answered.collect())
}

fn offset_to_commit(
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
    index: u32,
) -> OffsetToCommit {
    let epoch = partition.committed_leader_epoch;
    OffsetToCommit {
        topic: topic.name.to_string(),
        partition: index,
        offset: partition.committed_offset,
        leader_epoch: Some(epoch).filter(|epoch| *epoch != NO_EPOCH),
        metadata: owned(partition.committed_metadata.clone()).unwrap_or_default(),
    }
}

/// A member of a group that does not exist learns so only in versions that know the word.
fn of_commit(error: GroupError, version: i16) -> ResponseError {
    match error {
        GroupError::GroupIdNotFound if version < MEMBER_EPOCHS_FROM => ResponseError::IllegalGeneration,
        error => error::of_group(error),
    }
}

/// What an OffsetFetch wants of each group: everything (`None`), or partitions by topic. Each group, topic and partition
/// once, because a request could name the same one, with its metadata, a million times.
type WantedGroups = IndexMap<GroupId, WantedGroup>;

#[derive(Default)]
struct WantedGroup {
    /// Who asks, by member id and epoch, if it says so.
    member: Option<(String, i32)>,
    topics: Option<IndexMap<TopicName, IndexSet<i32>>>,
}

/// A group's offsets, or why there are none to be told.
type Answer = Result<Found, GroupError>;

/// OffsetFetch, versions 1 to 9: of one group, or from 8 on of several; all of its offsets where no topics are given
/// (from 2 on). A member's id and epoch (9) are checked in groups of the consumer protocol. With
/// `require_stable` (from 7 on) commits on their way are waited for, and a partition that an open transaction wants to
/// commit for is answered UNSTABLE_OFFSET_COMMIT, at which the client asks again.
pub async fn offset_fetch(cx: Context, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    let wanted = wanted_groups(request, cx.version);
    let mut found = Vec::with_capacity(wanted.len());
    for (group_id, WantedGroup { member, topics }) in wanted {
        let allowed = match member {
            Some((member_id, epoch)) => cx.door.groups.check_fetch(&group_id, &member_id, epoch),
            None => Ok(()),
        };
        let answer = match allowed {
            Ok(()) => Ok(fetch_of_group(&cx, &group_id, topics, require_stable).await),
            Err(error) => Err(error),
        };
        found.push((group_id, answer));
    }
    fetch_response(found, cx.version)
}

fn wanted_groups(request: OffsetFetchRequest, version: i16) -> WantedGroups {
    let mut wanted = WantedGroups::new();
    if version < SEVERAL_GROUPS_FROM {
        let topics = request.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)));
        want(&mut wanted, request.group_id, None, topics);
    }
    for group in request.groups {
        // Kafka's way to say nothing is a null id with an epoch of -1.
        let member = owned(group.member_id).map(|member_id| (member_id, group.member_epoch));
        let member = member.or((group.member_epoch >= 0).then(|| (String::new(), group.member_epoch)));
        let topics = group.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)));
        want(&mut wanted, group.group_id, member, topics);
    }
    wanted
}

fn want(
    wanted: &mut WantedGroups,
    group: GroupId,
    member: Option<(String, i32)>,
    topics: Option<impl Iterator<Item = (TopicName, Vec<i32>)>>,
) {
    let some = || WantedGroup { member: None, topics: Some(IndexMap::new()) };
    let wanted = wanted.entry(group).or_insert_with(some);
    wanted.member = member.or(wanted.member.take());
    let held = &mut wanted.topics;
    match (topics, held.as_mut()) {
        (Some(topics), Some(held)) => {
            for (topic, partitions) in topics {
                held.entry(topic).or_default().extend(partitions);
            }
        }
        (None, _) | (_, None) => *held = None,
    }
}

/// Partitions with what is committed for them, by topic.
type Found = Vec<(TopicName, Vec<(i32, Fetched)>)>;

async fn fetch_of_group(
    cx: &Context,
    group_id: &str,
    wanted: Option<IndexMap<TopicName, IndexSet<i32>>>,
    require_stable: bool,
) -> Found {
    let Some(wanted) = wanted else {
        let all = cx.door.groups.fetch_offsets(group_id, None, require_stable).await;
        let topic = |found: TopicOffsets| (TopicName(string(found.topic)), indexes(found.partitions).collect());
        return all.into_iter().map(topic).collect();
    };
    let asked: Vec<TopicPartitions> = wanted
        .iter()
        .map(|(topic, partitions)| TopicPartitions {
            topic: topic.to_string(),
            partitions: partitions.iter().filter_map(|index| u32::try_from(*index).ok()).collect(),
        })
        .collect();
    let found = cx.door.groups.fetch_offsets(group_id, Some(&asked), require_stable).await;
    let topics = wanted.into_iter().zip(found).map(|((topic, partitions), found)| {
        // Nothing is ever committed for a negative index.
        let negative = partitions.into_iter().filter(|index| *index < 0).map(|index| (index, Fetched::Nothing));
        (topic, indexes(found.partitions).chain(negative).collect())
    });
    topics.collect()
}

fn indexes(found: Vec<(u32, Fetched)>) -> impl Iterator<Item = (i32, Fetched)> {
    found.into_iter().filter_map(|(index, fetched)| Some((i32::try_from(index).ok()?, fetched)))
}

fn fetch_response(found: Vec<(GroupId, Answer)>, version: i16) -> OffsetFetchResponse {
    if version >= SEVERAL_GROUPS_FROM {
        let groups = found.into_iter().map(|(group_id, answer)| {
            let group = OffsetFetchResponseGroup::default().with_group_id(group_id);
            let topics = match answer {
                Ok(topics) => topics,
                Err(error) => return group.with_error_code(error::of_group(error).code()),
            };
            let topics = topics.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(partition_of_several).collect();
                OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
            });
            group.with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = found.into_iter().flat_map(|(_, answer)| answer.unwrap_or_default()).map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(partition_of_one).collect();
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// Versions 8 and later; [`partition_of_one`] says the same before.
fn partition_of_several((index, fetched): (i32, Fetched)) -> OffsetFetchResponsePartitions {
    let Told { offset, leader_epoch, metadata, error_code } = told(fetched);
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(leader_epoch)
        .with_metadata(Some(metadata))
        .with_error_code(error_code)
}

fn partition_of_one((index, fetched): (i32, Fetched)) -> OffsetFetchResponsePartition {
    let Told { offset, leader_epoch, metadata, error_code } = told(fetched);
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(leader_epoch)
        .with_metadata(Some(metadata))
        .with_error_code(error_code)
}

struct Told {
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error_code: i16,
}

fn told(fetched: Fetched) -> Told {
    let nothing =
        |error_code| Told { offset: NOTHING, leader_epoch: NO_EPOCH, metadata: StrBytes::default(), error_code };
    match fetched {
        Fetched::Committed(committed) => Told {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch.unwrap_or(NO_EPOCH),
            metadata: string(committed.metadata),
            error_code: NONE,
        },
        Fetched::Nothing => nothing(NONE),
        Fetched::Unstable => nothing(ResponseError::UnstableOffsetCommit.code()),
    }
}

/// OffsetDelete, version 0: of partitions that exist, and of topics that the group is not subscribed to.
pub async fn offset_delete(cx: Context, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let OffsetDeleteRequest { group_id, topics, .. } = request;
    let counts: Vec<u32> = topics.iter().map(|topic| partition_count(&cx.door.broker, &topic.name)).collect();
    let asked = |(topic, count): (&OffsetDeleteRequestTopic, &u32)| TopicPartitions {
        topic: topic.name.to_string(),
        partitions: topic.partitions.iter().filter_map(|one| existing(one.partition_index, *count)).collect(),
    };
    let asked: Vec<TopicPartitions> = topics.iter().zip(&counts).map(asked).collect();
    let answers = match cx.door.groups.delete_offsets(&group_id, &asked).await {
        Ok(answers) => answers,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error::of_group(error).code()),
    };
    let answered = topics.into_iter().zip(counts).zip(answers).map(|((topic, count), answer)| {
        let code = answer.map_or_else(|error| error::of_group(error).code(), |()| NONE);
        let partitions = topic.partitions.iter().map(|partition| {
            let exists = existing(partition.partition_index, count).is_some();
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(if exists { code } else { ResponseError::UnknownTopicOrPartition.code() })
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(answered.collect())
}

/// 0 for a topic that does not exist.
fn partition_count(broker: &Broker, topic: &str) -> u32 {
    broker.stream(topic).map_or(0, |stream| stream.partition_count())
}

fn existing(partition_index: i32, count: u32) -> Option<u32> {
    u32::try_from(partition_index).ok().filter(|index| *index < count)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    use kafka_protocol::protocol::{Encodable, Message};

    use super::*;
    use crate::group::offsets::CommittedOffset;

    fn topic(name: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(name))
    }

    fn group(id: &'static str) -> GroupId {
        GroupId(StrBytes::from_static_str(id))
    }

    #[test]
    fn each_partition_is_looked_up_once_however_often_it_is_named() {
        let twice = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![1, 0, 1, -1]);
        let request =
            OffsetFetchRequest::default().with_group_id(group("g")).with_topics(Some(vec![twice.clone(), twice]));
        let wanted = wanted_groups(request, 7);
        let topics = wanted[&group("g")].topics.as_ref().unwrap();
        assert_eq!(topics.len(), 1);
        assert_eq!(topics[&topic("t")].iter().copied().collect::<Vec<_>>(), [1, 0, -1]);
    }

    #[test]
    fn all_topics_of_a_group_go_before_some() {
        let some = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
        let of = |id, topics| OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(topics);
        let groups = vec![of("a", None), of("a", Some(vec![some.clone()])), of("b", Some(vec![some]))];
        let wanted = wanted_groups(OffsetFetchRequest::default().with_groups(groups), 8);
        assert_eq!(wanted.len(), 2);
        assert!(wanted[&group("a")].topics.is_none() && wanted[&group("b")].topics.is_some());
    }

    #[test]
    fn answers_to_fetches_can_be_encoded_in_every_version() {
        let committed =
            CommittedOffset { offset: 5, leader_epoch: Some(2), metadata: "m".into(), commit_ms: 0, expire_ms: None };
        let partitions = vec![(0, Fetched::Committed(committed)), (1, Fetched::Nothing), (2, Fetched::Unstable)];
        for version in OffsetFetchRequest::VERSIONS.min..=OffsetFetchRequest::VERSIONS.max {
            let found = vec![(group("g"), Ok(vec![(topic("t"), partitions.clone())]))];
            let response = fetch_response(found, version);
            response.encode(&mut BytesMut::new(), version).unwrap_or_else(|error| panic!("version {version}: {error}"));
        }
    }

    #[test]
    fn older_commits_do_not_know_that_a_group_can_be_missing() {
        assert_eq!(of_commit(GroupError::GroupIdNotFound, 8), ResponseError::IllegalGeneration);
        assert_eq!(of_commit(GroupError::GroupIdNotFound, 9), ResponseError::GroupIdNotFound);
        assert_eq!(of_commit(GroupError::RebalanceInProgress, 2), ResponseError::RebalanceInProgress);
    }
}
