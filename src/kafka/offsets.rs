//! Where logs begin and end: ListOffsets (2), OffsetForLeaderEpoch (23), DeleteRecords (21).
//!
//! A client that names the leader epoch it knows is fenced if that is not the partition's. `replica_id` is not looked
//! at: there are no followers. To a client that reads committed records only, logs end at the last stable offset; records
//! are deleted up to the high watermark all the same.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, TopicName,
};

use crate::broker::Stream;
use crate::broker::read::FoundOffset;
use crate::kafka::{Context, error, fetch};
use crate::log::partition::{Partition, ReadError};
use crate::model::attributes::Isolation;
use crate::model::ids::{Offset, PartitionIndex};
use crate::model::shard::Lineage;

/// Partitions of one request that are searched for a timestamp at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// ListOffsets versions that answer the leader epoch, and that know OFFSET_NOT_AVAILABLE.
const EPOCH_FROM: i16 = 4;
const NOT_AVAILABLE_FROM: i16 = 5;

/// Nothing found: an offset, a timestamp or an epoch on the wire.
const NONE: i64 = -1;

/// A client that knows no leader epoch sends this.
const NO_EPOCH: i32 = -1;

/// DeleteRecords up to the high watermark.
const TO_HIGH_WATERMARK: i64 = -1;

/// What ListOffsets asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Latest,
    Earliest,
    MaxTimestamp,
    /// The end of what is in tiered storage: nothing is.
    LatestTiered,
    Time(i64),
}

impl Wanted {
    /// None where `version` does not have it.
    fn of(timestamp: i64, version: i16) -> Option<Wanted> {
        match timestamp {
            0.. => Some(Wanted::Time(timestamp)),
            -1 => Some(Wanted::Latest),
            -2 => Some(Wanted::Earliest),
            -3 if version >= 7 => Some(Wanted::MaxTimestamp),
            // All that there is is local.
            -4 if version >= 8 => Some(Wanted::Earliest),
            -5 if version >= 9 => Some(Wanted::LatestTiered),
            _ => None,
        }
    }
}

/// ListOffsets, versions 1 to 10.
pub async fn list_offsets(cx: Context, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut seen = HashSet::new();
    let mut repeated = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (&topic.name, partition.partition_index);
            if !seen.insert(key) {
                repeated.insert(key);
            }
        }
    }
    let isolation = fetch::isolation(request.isolation_level);
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let stream = cx.door.broker.stream(&topic.name);
        let lineage = OnceLock::new();
        let (cx, stream, lineage) = (&cx, stream.as_ref(), &lineage);
        let answers: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| {
                let repeated = repeated.contains(&(&topic.name, partition.partition_index));
                async move {
                    let found = match repeated {
                        true => Err(ResponseError::InvalidRequest),
                        false => list_offset(cx, stream, lineage, partition, isolation).await,
                    };
                    listed(partition.partition_index, found, cx.version)
                }
            })
            .collect();
        let partitions = stream::iter(answers).buffered(LOOKS_AT_ONCE).collect().await;
        response
            .topics
            .push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    response
}

fn listed(
    partition_index: i32,
    found: Result<Option<FoundOffset>, ResponseError>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(partition_index)
        .with_timestamp(NONE)
        .with_offset(NONE);
    match found {
        Ok(None) => answer,
        Ok(Some(FoundOffset { offset, timestamp, leader_epoch })) => {
            let answer = answer.with_offset(offset).with_timestamp(timestamp);
            if version >= EPOCH_FROM { answer.with_leader_epoch(leader_epoch) } else { answer }
        }
        Err(failure) => answer.with_error_code(failure.code()),
    }
}

async fn list_offset(
    cx: &Context,
    stream: Option<&Arc<Stream>>,
    lineage: &OnceLock<Arc<Lineage>>,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Option<FoundOffset>, ResponseError> {
    let look = Wanted::of(wanted.timestamp, cx.version).ok_or(ResponseError::UnsupportedVersion)?;
    let (stream, index, partition) = find(stream, wanted.partition_index)?;
    let leader_epoch = fence(stream, index, wanted.current_leader_epoch)?;
    let end = partition.end_for(isolation);
    let at = |offset, leader_epoch| Ok(Some(FoundOffset { offset, timestamp: NONE, leader_epoch }));
    let found = match look {
        Wanted::Latest => return at(end, leader_epoch),
        Wanted::Earliest => {
            let log_start = partition.log_start();
            // The lineage of a large stream is a large copy: taken once, and only if there was another epoch.
            let epoch = match leader_epoch {
                0 => 0,
                _ => epoch_of(lineage.get_or_init(|| stream.lineage()), index, log_start),
            };
            return at(log_start, epoch);
        }
        Wanted::LatestTiered => return at(NONE, NO_EPOCH),
        Wanted::MaxTimestamp => cx.door.broker.offset_of_max_time(&partition, end).await,
        Wanted::Time(timestamp) => cx.door.broker.offset_at_time(&partition, timestamp, end).await,
    };
    found.map_err(|failure| match failure {
        // The log was trimmed during the search: the client may ask again.
        ReadError::OutOfRange { .. } if cx.version >= NOT_AVAILABLE_FROM => ResponseError::OffsetNotAvailable,
        ReadError::OutOfRange { .. } => ResponseError::LeaderNotAvailable,
        ReadError::Key(failure) => error::of_key(&failure),
        ReadError::Store(failure) => error::of_store(&failure),
    })
}

/// The leader epoch of the generation that `offset` lies in.
fn epoch_of(lineage: &Lineage, index: PartitionIndex, offset: Offset) -> i32 {
    lineage.epochs(index).take_while(|(_, start, _)| *start <= offset).last().map_or(NO_EPOCH, |(epoch, ..)| epoch)
}

/// OffsetForLeaderEpoch, versions 2 to 4.
pub async fn offset_for_leader_epoch(
    cx: Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topic = |topic: kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic| {
        let stream = cx.door.broker.stream(&topic.topic);
        let partitions = topic.partitions.iter().map(|wanted| epoch_end(stream.as_ref(), wanted)).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    };
    OffsetForLeaderEpochResponse::default().with_topics(request.topics.into_iter().map(topic).collect())
}

fn epoch_end(stream: Option<&Arc<Stream>>, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let found = find(stream, wanted.partition).and_then(|(stream, index, _)| {
        fence(stream, index, wanted.current_leader_epoch)?;
        stream.end_offset_for_epoch(index, wanted.leader_epoch).ok_or(ResponseError::UnknownTopicOrPartition)
    });
    let answer =
        EpochEndOffset::default().with_partition(wanted.partition).with_leader_epoch(NO_EPOCH).with_end_offset(NONE);
    match found {
        Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
        Err(failure) => answer.with_error_code(failure.code()),
    }
}

/// DeleteRecords, versions 0 to 2: moves the start of logs. A partition is answered when that is durable.
pub async fn delete_records(cx: Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let cx = &cx;
    // All are queued before any is awaited, so that they become durable together.
    let topics = request.topics.into_iter().map(|topic| async move {
        let stream = cx.door.broker.stream(&topic.name);
        let trimmed = topic.partitions.iter().map(|wanted| delete_before(cx, stream.as_ref(), &topic.name, wanted));
        let partitions = join_all(trimmed).await;
        DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(join_all(topics).await)
}

async fn delete_before(
    cx: &Context,
    stream: Option<&Arc<Stream>>,
    topic: &TopicName,
    wanted: &DeleteRecordsPartition,
) -> DeleteRecordsPartitionResult {
    let log_start = async {
        let (stream, _, partition) = find(stream, wanted.partition_index)?;
        let policy = stream.settings().cleanup_policy;
        if policy.compacts() && !policy.deletes() {
            return Err(ResponseError::PolicyViolation);
        }
        let high_watermark = partition.end_offset();
        let offset = match wanted.offset {
            TO_HIGH_WATERMARK => high_watermark,
            offset if (0..=high_watermark).contains(&offset) => offset,
            _ => return Err(ResponseError::OffsetOutOfRange),
        };
        cx.door.broker.trim(&partition, offset).await.map_err(|failure| error::of_store(&failure))
    };
    let answer = DeleteRecordsPartitionResult::default().with_partition_index(wanted.partition_index);
    match log_start.await {
        Ok(log_start) => {
            tracing::debug!(topic = topic.as_str(), partition = wanted.partition_index, log_start, "records deleted");
            answer.with_low_watermark(log_start)
        }
        Err(failure) => answer.with_low_watermark(NONE).with_error_code(failure.code()),
    }
}

type Found<'a> = (&'a Arc<Stream>, PartitionIndex, Arc<Partition>);

fn find(stream: Option<&Arc<Stream>>, partition_index: i32) -> Result<Found<'_>, ResponseError> {
    let found = || {
        let index = PartitionIndex(u32::try_from(partition_index).ok()?);
        Some((stream?, index, stream?.partition(index)?))
    };
    found().ok_or(ResponseError::UnknownTopicOrPartition)
}

/// The partition's leader epoch, if the client knows it or does not care.
fn fence(stream: &Stream, index: PartitionIndex, known: i32) -> Result<i32, ResponseError> {
    let current = stream.leader_epoch(index);
    error::check_leader_epoch(current, known)?;
    current.ok_or(ResponseError::UnknownTopicOrPartition)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use kafka_protocol::messages::delete_records_request::DeleteRecordsTopic;
    use kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;
    use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;

    use super::*;
    use crate::broker::End;
    use crate::kafka::names;
    use crate::kafka::tests::fixture::{Fixture, NOW_MS, encodes};
    use crate::model::batch::Producer;

    #[test]
    fn special_timestamps_come_with_versions() {
        assert_eq!(Wanted::of(0, 1), Some(Wanted::Time(0)));
        assert_eq!((Wanted::of(-1, 1), Wanted::of(-2, 1)), (Some(Wanted::Latest), Some(Wanted::Earliest)));
        let from = [(-3, 7, Wanted::MaxTimestamp), (-4, 8, Wanted::Earliest), (-5, 9, Wanted::LatestTiered)];
        for (timestamp, version, wanted) in from {
            assert_eq!(Wanted::of(timestamp, version - 1), None);
            assert_eq!(Wanted::of(timestamp, version), Some(wanted));
        }
        assert_eq!((Wanted::of(-6, 10), Wanted::of(i64::MIN, 10)), (None, None));
    }

    #[test]
    fn an_offset_has_the_epoch_of_its_generation() {
        let mut lineage = Lineage::uniform(NonZeroU32::MIN, 0);
        lineage.add_partitions(2, |_| 70, 0).unwrap();
        lineage.add_partitions(4, |_| 90, 0).unwrap();
        let epoch = |offset| epoch_of(&lineage, PartitionIndex(0), offset);
        assert_eq!([0, 69, 70, 89, 90, 1_000].map(epoch), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn the_leader_epoch_is_told_only_to_versions_that_have_it() {
        let found = FoundOffset { offset: 7, timestamp: 9, leader_epoch: 3 };
        let epoch = |version| listed(0, Ok(Some(found)), version).leader_epoch;
        // The codec refuses a field that the version does not have.
        assert_eq!((epoch(3), epoch(4)), (-1, 3));
        let failed = listed(1, Err(ResponseError::FencedLeaderEpoch), 10);
        assert_eq!((failed.offset, failed.timestamp, failed.error_code), (-1, -1, 74));
    }

    /// Error, offset, timestamp and leader epoch of topic `t`'s partitions.
    async fn list(door: &Fixture, version: i16, wanted: &[(i32, i32, i64)]) -> Vec<(i16, i64, i64, i32)> {
        let partition = |(index, epoch, timestamp): &(i32, i32, i64)| {
            ListOffsetsPartition::default()
                .with_partition_index(*index)
                .with_current_leader_epoch(*epoch)
                .with_timestamp(*timestamp)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(names::topic("t"))
            .with_partitions(wanted.iter().map(partition).collect());
        let answer = list_offsets(door.cx(version), ListOffsetsRequest::default().with_topics(vec![topic])).await;
        let found = encodes(answer, version).topics.remove(0).partitions;
        found.iter().map(|found| (found.error_code, found.offset, found.timestamp, found.leader_epoch)).collect()
    }

    #[tokio::test]
    async fn offsets_are_found_by_special_and_by_time() {
        let door = Fixture::new();
        let stream = door.topic("t", 1).await;
        for version in 1..=10 {
            assert_eq!(list(&door, version, &[(0, -1, -1)]).await[0].1, 0);
        }
        assert_eq!(list(&door, 10, &[(0, -1, -3)]).await, [(0, -1, -1, -1)]);
        door.append(&stream, 0, &[NOW_MS, NOW_MS + 5, NOW_MS + 2], None).await;
        door.append(&stream, 0, &[NOW_MS + 1, NOW_MS + 9], None).await;
        let mut found = Vec::new();
        for wanted in [-1, -2, -3, -4, -5, 0, NOW_MS + 3, NOW_MS + 6, NOW_MS + 10] {
            let (error, offset, timestamp, epoch) = list(&door, 9, &[(0, 0, wanted)]).await[0];
            assert_eq!(error, 0);
            found.push((offset, (timestamp - NOW_MS).max(-1), epoch));
        }
        let specials = [(5, -1, 0), (0, -1, 0), (4, 9, 0), (0, -1, 0), (-1, -1, -1)];
        assert_eq!(found[..5], specials);
        // The first record at or after the time, inside its batch; then none.
        assert_eq!(found[5..], [(0, 0, 0), (1, 5, 0), (4, 9, 0), (-1, -1, -1)]);
    }

    #[tokio::test]
    async fn to_readers_of_committed_records_the_log_ends_where_a_transaction_is_open() {
        let door = Fixture::new();
        let stream = door.topic("t", 1).await;
        door.append(&stream, 0, &[NOW_MS], None).await;
        let producer = Some(Producer { id: 7, epoch: 0, base_sequence: 0, transactional: true });
        door.append(&stream, 0, &[NOW_MS + 5], producer).await;
        let list = async |isolation_level, timestamp| {
            let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default().with_name(names::topic("t")).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_isolation_level(isolation_level).with_topics(vec![topic]);
            encodes(list_offsets(door.cx(7), request).await, 7).topics[0].partitions[0].offset
        };
        for (wanted, uncommitted, committed) in
            [(-1, 2, 1), (-2, 0, 0), (-3, 1, -1), (NOW_MS + 1, 1, -1), (NOW_MS, 0, 0)]
        {
            assert_eq!((list(0, wanted).await, list(1, wanted).await), (uncommitted, committed), "{wanted}");
        }
        let partitions = vec![(stream.clone(), PartitionIndex(0))];
        let end = End { producer_id: 7, producer_epoch: 0, coordinator_epoch: 0, commit: false, partitions };
        door.door.broker.end_transaction(end, Default::default()).await.unwrap().unwrap();
        assert_eq!((list(0, -1).await, list(1, -1).await, list(1, NOW_MS + 1).await), (3, 3, 1));
    }

    #[tokio::test]
    async fn partitions_that_cannot_be_listed_are_told_why() {
        let door = Fixture::new();
        let stream = door.topic("t", 2).await;
        door.append(&stream, 0, &[NOW_MS], None).await;
        door.door.broker.add_partitions(&stream, 3).await.unwrap();
        let errors = |listed: Vec<(i16, i64, i64, i32)>| listed.into_iter().map(|listed| listed.0).collect::<Vec<_>>();
        let wanted = [(0, 0, -1), (0, 1, -1), (1, 1, -1), (3, -1, -1), (-1, -1, -1), (2, -1, -3)];
        for (wanted, error) in wanted.into_iter().zip([74, 0, 75, 3, 3, 35]) {
            assert_eq!(errors(list(&door, 6, &[wanted]).await), [error], "{wanted:?}");
        }
        let repeated = [(0, -1, -1), (1, -1, -1), (0, -1, -2)];
        assert_eq!(errors(list(&door, 4, &repeated).await), [42, 0, 42]);
        // The log begins in the first epoch and ends in the second.
        assert_eq!(list(&door, 4, &[(0, -1, -2)]).await, [(0, 0, -1, 0)]);
        assert_eq!(list(&door, 4, &[(0, -1, -1)]).await, [(0, 1, -1, 1)]);
    }

    #[tokio::test]
    async fn an_epoch_ends_where_the_next_one_begins() {
        let door = Fixture::new();
        let stream = door.topic("t", 1).await;
        door.append(&stream, 0, &[NOW_MS; 3], None).await;
        door.door.broker.add_partitions(&stream, 2).await.unwrap();
        door.append(&stream, 0, &[NOW_MS; 2], None).await;
        let ask = async |partition, current, epoch| {
            let wanted = OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default().with_topic(names::topic("t")).with_partitions(vec![wanted]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            let answer = encodes(offset_for_leader_epoch(door.cx(4), request).await, 4);
            let end = &answer.topics[0].partitions[0];
            (end.error_code, end.leader_epoch, end.end_offset)
        };
        assert_eq!(ask(0, -1, 0).await, (0, 0, 3));
        assert_eq!(ask(0, 1, 1).await, (0, 1, 5));
        assert_eq!(ask(0, -1, 2).await, (0, -1, -1));
        assert_eq!(ask(0, 0, 0).await, (74, -1, -1));
        assert_eq!(ask(0, 2, 0).await, (75, -1, -1));
        assert_eq!(ask(9, -1, 0).await, (3, -1, -1));
    }

    #[tokio::test]
    async fn records_are_deleted_up_to_an_offset_within_the_log() {
        let door = Fixture::new();
        let stream = door.topic("t", 1).await;
        door.append(&stream, 0, &[NOW_MS; 5], None).await;
        let delete = async |topic: &str, offset| {
            let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
            let topic = DeleteRecordsTopic::default().with_name(names::topic(topic)).with_partitions(vec![partition]);
            let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
            let answer = encodes(delete_records(door.cx(2), request).await, 2);
            let partition = &answer.topics[0].partitions[0];
            (partition.error_code, partition.low_watermark)
        };
        assert_eq!(delete("t", 2).await, (0, 2));
        assert_eq!(delete("t", 1).await, (0, 2));
        assert_eq!(delete("t", 6).await, (1, -1));
        assert_eq!(delete("t", -2).await, (1, -1));
        assert_eq!(list(&door, 4, &[(0, -1, -2)]).await[0].1, 2);
        assert_eq!(list(&door, 4, &[(0, -1, 0)]).await[0].1, 2);
        assert_eq!(delete("t", -1).await, (0, 5));
        assert_eq!(delete("nowhere", 0).await, (3, -1));
    }
}
