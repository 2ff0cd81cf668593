//! How long a connection is to pause, and how its client is told (KIP-219). Called by `fetch` for what shards' pipes let
//! through, and by the rows of the table; pure but for the counting.
//!
//! Kafka throttles a client by what all its fetches take together; here each shard has a read pipe of its own. A fetch
//! that finds a pipe open may overdraw it, which makes it owe; while it owes, its partition gives nothing. The connection
//! pauses only when nothing is left that could be read at once, and no longer than until the first of the pipes that
//! hold something back lets it through: a client that reads many shards gets each one's full rate.

use std::sync::Arc;

use kafka_protocol::messages::*;

use crate::broker::{ReadPipe, Stream};
use crate::metrics::Direction;

/// A consumer's heartbeats may share the connection, and no group's session is shorter than 6 seconds. What is owed
/// beyond is not forgotten: the next fetch is told the rest.
pub const PAUSE_MS_MAX: i64 = 5_000;

/// An answer that has a place for the pause.
pub trait Throttled {
    /// `None` where Kafka's answer has none: the connection pauses all the same.
    fn throttle_time_ms(&mut self) -> Option<&mut i32>;
}

macro_rules! throttled {
    ($($response:ident)*) => {
        $(impl Throttled for $response {
            fn throttle_time_ms(&mut self) -> Option<&mut i32> {
                Some(&mut self.throttle_time_ms)
            }
        })*
    };
}

throttled!(
    AddOffsetsToTxnResponse
    AddPartitionsToTxnResponse
    AlterClientQuotasResponse
    AlterConfigsResponse
    AlterPartitionReassignmentsResponse
    AlterReplicaLogDirsResponse
    AlterShareGroupOffsetsResponse
    AlterUserScramCredentialsResponse
    ApiVersionsResponse
    ConsumerGroupDescribeResponse
    ConsumerGroupHeartbeatResponse
    CreateAclsResponse
    CreatePartitionsResponse
    CreateTopicsResponse
    DeleteAclsResponse
    DeleteGroupsResponse
    DeleteRecordsResponse
    DeleteShareGroupOffsetsResponse
    DeleteTopicsResponse
    DescribeAclsResponse
    DescribeClientQuotasResponse
    DescribeClusterResponse
    DescribeConfigsResponse
    DescribeGroupsResponse
    DescribeLogDirsResponse
    DescribeProducersResponse
    DescribeShareGroupOffsetsResponse
    DescribeTopicPartitionsResponse
    DescribeTransactionsResponse
    DescribeUserScramCredentialsResponse
    ElectLeadersResponse
    EndTxnResponse
    FetchResponse
    FindCoordinatorResponse
    HeartbeatResponse
    IncrementalAlterConfigsResponse
    InitProducerIdResponse
    JoinGroupResponse
    LeaveGroupResponse
    ListConfigResourcesResponse
    ListGroupsResponse
    ListOffsetsResponse
    ListPartitionReassignmentsResponse
    ListTransactionsResponse
    MetadataResponse
    OffsetCommitResponse
    OffsetDeleteResponse
    OffsetFetchResponse
    OffsetForLeaderEpochResponse
    ProduceResponse
    ShareAcknowledgeResponse
    ShareFetchResponse
    ShareGroupDescribeResponse
    ShareGroupHeartbeatResponse
    SyncGroupResponse
    TxnOffsetCommitResponse
    UpdateFeaturesResponse
);

impl Throttled for DescribeQuorumResponse {
    fn throttle_time_ms(&mut self) -> Option<&mut i32> {
        None
    }
}

impl Throttled for WriteTxnMarkersResponse {
    fn throttle_time_ms(&mut self) -> Option<&mut i32> {
        None
    }
}

/// As an answer has it.
pub fn told_ms(pause_ms: i64) -> i32 {
    i32::try_from(pause_ms).unwrap_or(i32::MAX)
}

/// What a partition can give after an answer.
#[derive(Clone, Copy, Debug)]
pub struct Supply {
    /// Until its shard's pipe lets anything through; 0: now.
    pub wait_ms: i64,
    /// There are records behind the answer's.
    pub more: bool,
}

impl Supply {
    /// Charges the shard's pipe for `bytes` that go out; `withheld_ms` is until it lets through what could not.
    pub fn charge(pipe: &ReadPipe, withheld_ms: i64, bytes: usize, more: bool, now_ms: i64) -> Supply {
        let wait_ms = if withheld_ms > 0 {
            pipe.turn_away();
            withheld_ms
        } else if bytes > 0 {
            pipe.charge(bytes as u64, now_ms)
        } else {
            0
        };
        Supply { wait_ms, more }
    }
}

/// For how long a connection that reads these streams is to pause; counted for those that bring the pause.
pub fn pause_for(supplies: &[(&Arc<Stream>, Supply)]) -> i64 {
    let pause_ms = pause_ms(supplies.iter().map(|(_, supply)| *supply));
    if pause_ms > 0 {
        count(supplies.iter().filter(|(_, supply)| supply.wait_ms > 0).map(|(stream, _)| *stream), pause_ms);
    }
    pause_ms
}

/// For how long a client that reads these is to pause.
fn pause_ms(supplies: impl Iterator<Item = Supply>) -> i64 {
    let mut first_ms = None;
    for supply in supplies {
        match supply {
            Supply { wait_ms: 0, more: true } => return 0,
            Supply { wait_ms: 0, more: false } => {}
            Supply { wait_ms, .. } => first_ms = Some(first_ms.map_or(wait_ms, |first_ms: i64| first_ms.min(wait_ms))),
        }
    }
    first_ms.unwrap_or(0).min(PAUSE_MS_MAX)
}

/// Counts a pause once for each stream that brought it.
fn count<'a>(streams: impl Iterator<Item = &'a Arc<Stream>>, pause_ms: i64) {
    let mut counted: Vec<&Arc<Stream>> = Vec::new();
    for stream in streams {
        if !counted.iter().any(|known| known.id == stream.id) {
            stream.metrics.paused(Direction::Read, pause_ms);
            counted.push(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::broker::{CatalogError, Terms};
    use crate::kafka::fetch::fetch;
    use crate::kafka::tests::fixture::{Fixture, NOW_MS, received};
    use crate::model::attributes::Consumer;
    use crate::model::batch::{Compressor, Options, Record, build};
    use crate::model::ids::PartitionIndex;
    use crate::model::settings::topic::KINESIS_LIMITS;

    const VERSION: i16 = 12;

    /// A stream with one partition of 5 MiB, whose limits are enforced, and a registered consumer.
    async fn stream_with_a_consumer(fixture: &Fixture) -> Arc<Stream> {
        let stream = fixture.topic("t", 1).await;
        let value = Some(Bytes::from(vec![b'v'; 1 << 20]));
        let record = Record { offset: 0, timestamp: NOW_MS, key: None, value, headers: Vec::new() };
        let batch = build(&[record], &Options { compressor: Compressor::None, producer: None }).unwrap();
        // A little more than what a batch may have by default.
        let larger = stream.overrides().into_iter().chain([("max.message.bytes".to_owned(), "2000000".to_owned())]);
        let larger = larger.collect();
        fixture.door.broker.alter_stream(&stream, |_| Ok(larger)).await.unwrap();
        for _ in 0..5 {
            let ticket = fixture.door.broker.append(&stream, PartitionIndex(0), &batch, Terms::default()).unwrap();
            ticket.committed().await.unwrap();
        }
        let register = fixture.door.broker.change_stream(&stream, |draft| {
            draft.overrides.insert(KINESIS_LIMITS.to_owned(), "enforce".to_owned());
            draft.attributes.consumers = vec![Consumer {
                name: "fan".to_owned(),
                created_ms: NOW_MS,
                passing: None,
                tags: Default::default(),
                policy: None,
            }];
            Ok::<_, CatalogError>(())
        });
        register.await.unwrap();
        stream
    }

    async fn fetch_as(fixture: &Fixture, client_id: &str) -> FetchResponse {
        let partition = FetchPartition::default().with_partition_max_bytes(4 << 20).with_current_leader_epoch(-1);
        let name = TopicName(StrBytes::from_static_str("t"));
        let topic = FetchTopic::default().with_topic(name).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_bytes(4 << 20).with_session_epoch(-1).with_topics(vec![topic]);
        let mut cx = fixture.cx(VERSION);
        cx.client_id = Some(StrBytes::from_string(client_id.to_owned()));
        received(&fetch(cx, request).await.0, VERSION)
    }

    #[tokio::test]
    async fn a_client_by_the_name_of_a_registered_consumer_reads_through_its_pipe() {
        let fixture = Fixture::new();
        stream_with_a_consumer(&fixture).await;
        let pauses = async |client_id| {
            let answer = fetch_as(&fixture, client_id).await;
            (answer.throttle_time_ms > 0, !answer.responses.is_empty())
        };
        // What anybody reads is the pipe's whom they share, and none of the registered consumer's.
        assert_eq!(pauses("anybody").await, (true, true));
        assert_eq!(pauses("another").await, (true, false));
        assert_eq!(pauses("fan").await, (true, true));
        assert_eq!(pauses("fan").await, (true, false));
        fixture.door.broker.clock().advance(1_000);
        assert_eq!(pauses("fan").await, (true, true));
        assert_eq!(pauses("another").await, (true, true));
    }

    fn pause(supplies: &[(i64, bool)]) -> i64 {
        pause_ms(supplies.iter().map(|(wait_ms, more)| Supply { wait_ms: *wait_ms, more: *more }))
    }

    #[test]
    fn a_connection_pauses_until_the_first_pipe_opens() {
        assert_eq!(pause(&[]), 0);
        assert_eq!(pause(&[(0, false), (0, false)]), 0);
        assert_eq!(pause(&[(700, true), (300, false), (0, false)]), 300);
        assert_eq!(pause(&[(700, true), (0, true)]), 0);
        assert_eq!(pause(&[(9_000, true)]), PAUSE_MS_MAX);
    }
}
