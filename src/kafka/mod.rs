//! The Kafka door: frames in, answers out. [`TABLE`] is the list of what is served; ApiVersions, metrics and the test
//! that every row is exercised read the same table.
//!
//! A handler is a plain function from a request to a future of its answer. What it does before it returns the future
//! happens in the order of the connection; Produce fixes its place in the log there, and its answer comes later, so
//! that a connection is pipelined, and at most one request of it goes beyond its limits. All others are answered before the next request of their connection is read, as
//! Kafka does.
//!
//! Only this folder knows Kafka's messages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message, StrBytes, VersionRange};
use tokio::sync::watch;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::config::Config;
use crate::group::Groups;
use crate::metrics::ApiMetrics;
use crate::share::Shares;
use crate::traces::Tracer;
use crate::txn::Transactions;

mod api_versions;
mod audit;
pub mod budget;
mod chunks;
mod cluster;
mod configs;
pub mod conn;
pub mod error;
mod features;
mod fetch;
mod groups;
mod guard;
mod names;
mod offsets;
mod produce;
mod producers;
mod quotas;
mod security_apis;
mod sessions;
mod share;
#[cfg(test)]
mod tests;
mod throttle;
mod topics;
mod trace;
mod transactions;

use budget::{AnswerBudget, Grant};
use chunks::Chunks;
use guard::Malformed;
pub use quotas::Quotas;
use quotas::work::Work;

/// One API: its key, the versions served, and what runs.
pub struct Row {
    pub key: ApiKey,
    pub versions: VersionRange,
    /// The lowest version told in ApiVersions, where that differs (Produce).
    pub advertised_min: i16,
    pub name: &'static str,
    run: fn(Context, Bytes) -> Result<Started, Malformed>,
}

/// A request that has been started.
pub struct Started {
    answer: Running,
    /// The next request is read before this one is answered: Produce, unless it brought a pause.
    reads_on: bool,
}

/// A request being answered.
pub type Running = BoxFuture<'static, Answer>;

/// What goes back.
pub struct Answer {
    /// The whole frame; None when the client wants no answer (acks=0).
    pub frame: Option<Chunks>,
    /// Kafka's code of the first error in it, for metrics.
    pub error: i16,
    /// The connection is closed after it (acks=0 that failed).
    pub close: bool,
    /// Nothing is read from the connection for this long after it (KIP-219).
    pub pause_ms: i64,
    /// Memory that it holds until it is sent.
    pub grant: Option<Grant>,
}

/// What a handler knows besides its request.
#[derive(Clone)]
pub struct Context {
    pub door: Arc<Door>,
    pub client: Arc<Client>,
    pub client_id: Option<StrBytes>,
    pub version: i16,
    pub correlation_id: i32,
}

/// Who is at the other end of a connection.
pub struct Client {
    /// No other connection of this process has it.
    id: u64,
    pub peer: SocketAddr,
    /// Which of [`Door::listeners`] it came by: its answers name that listener's address.
    pub listener: usize,
    /// What it says it is: `apache-kafka-java/4.1.0`.
    software: OnceLock<String>,
}

impl Client {
    pub fn new(peer: SocketAddr, listener: usize) -> Client {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Client { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), peer, listener, software: OnceLock::new() }
    }
}

/// An address that clients are told to connect to.
#[derive(Clone, Debug)]
pub struct Advertised {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// Everything that handlers need.
pub struct Door {
    pub broker: Arc<Broker>,
    pub groups: Arc<Groups>,
    pub transactions: Arc<Transactions>,
    pub shares: Arc<Shares>,
    pub config: Arc<Config>,
    pub listeners: Vec<Advertised>,
    pub quotas: Quotas,
    pub audit: Arc<Audit>,
    tracer: Option<Arc<Tracer>>,
    sessions: sessions::Sessions,
    share_sessions: crate::share::sessions::Sessions,
    answers: AnswerBudget,
    /// Of each row of [`TABLE`].
    api_metrics: Vec<ApiMetrics>,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// Who coordinates what members and producers do together.
pub struct Coordinators {
    pub groups: Arc<Groups>,
    pub transactions: Arc<Transactions>,
    pub shares: Arc<Shares>,
}

/// Who is told what is asked.
pub struct Watchers {
    pub audit: Arc<Audit>,
    /// `None`: nobody wants spans.
    pub tracer: Option<Arc<Tracer>>,
}

impl Door {
    pub fn new(
        broker: Arc<Broker>,
        coordinators: Coordinators,
        quotas: Quotas,
        config: Arc<Config>,
        listeners: Vec<Advertised>,
        stopping: watch::Receiver<bool>,
        watchers: Watchers,
    ) -> Arc<Door> {
        let Watchers { audit, tracer } = watchers;
        let Coordinators { groups, transactions, shares } = coordinators;
        let api_metrics = TABLE.iter().map(|row| broker.metrics().api(row.name)).collect();
        let sessions = sessions::Sessions::new(config.fetch_sessions_max);
        let share_sessions = crate::share::sessions::Sessions::new(shares.settings().sessions_max);
        let answers = AnswerBudget::new(config.memory_shares().kafka_answers, broker.metrics());
        Arc::new(Door {
            broker,
            groups,
            transactions,
            shares,
            config,
            listeners,
            quotas,
            audit,
            tracer,
            sessions,
            share_sessions,
            answers,
            api_metrics,
            stopping,
        })
    }

    pub fn node_id(&self) -> BrokerId {
        BrokerId(self.config.node_id)
    }
}

/// A handler's answer as a frame is made of it: an answer, or none (acks=0).
struct Reply<R> {
    response: Option<R>,
    error: i16,
    close: bool,
}

impl<R> Reply<R> {
    fn encode(self, cx: &Context) -> Answer
    where
        R: Encodable + HeaderVersion,
    {
        let frame = self.response.and_then(|response| encode_frame(&response, cx.correlation_id, cx.version));
        let frame = frame.map(Chunks::from);
        Answer { close: self.close, error: self.error, frame, pause_ms: 0, grant: None }
    }
}

/// `length i32, correlation id i32, [no tagged fields], body`. None when the codec refuses what a handler made, which
/// is a bug of the handler: the connection is then closed rather than left waiting.
fn encode_frame<R: Encodable + HeaderVersion>(response: &R, correlation_id: i32, version: i16) -> Option<BytesMut> {
    let size = response.compute_size(version).map_err(|error| tracing::error!(%error, "an answer has no size")).ok()?;
    let mut frame = BytesMut::with_capacity(size + 9);
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    if R::header_version(version) >= 1 {
        frame.put_u8(0);
    }
    response
        .encode(&mut frame, version)
        .map_err(|error| tracing::error!(%error, "an answer cannot be encoded"))
        .ok()?;
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Some(frame)
}

impl Started {
    /// One that is answered before the next request is read.
    fn before_others(answer: impl Future<Output = Answer> + Send + 'static) -> Started {
        Started { answer: Box::pin(answer), reads_on: false }
    }
}

/// A row: `Key, Request, handler, codes of a response`.
macro_rules! row {
    ($key:ident, $request:ty, $handler:path, $codes:expr) => {
        Row {
            key: ApiKey::$key,
            versions: <$request as Message>::VERSIONS,
            advertised_min: <$request as Message>::VERSIONS.min,
            name: stringify!($key),
            run: |cx, body| {
                let mut work = Work::new(&cx);
                let request: $request = work.at_once(|| guard::decode(body, cx.version))?;
                let answer = work.at_once(|| $handler(cx.clone(), request));
                Ok(Started::before_others(async move {
                    let mut response = work.until_done(answer).await;
                    let mut codes = error::Codes::default();
                    error::note(&mut codes, &response, $codes);
                    let pause_ms = work.tell(&mut response);
                    let reply = Reply { response: Some(response), error: codes.first(), close: false };
                    Answer { pause_ms, ..reply.encode(&cx) }
                }))
            },
        }
    };
}

/// Produce alone is answered in two stages, and may want no answer.
const PRODUCE: Row = Row {
    key: ApiKey::Produce,
    versions: <ProduceRequest as Message>::VERSIONS,
    // librdkafka before 2.11.1 stops compressing where the lowest version is not 0 (KAFKA-18659). 0 to 2 are refused.
    advertised_min: 0,
    name: "Produce",
    run: |cx, body| {
        let mut work = Work::new(&cx);
        let bytes = body.len();
        let request: ProduceRequest = work.at_once(|| guard::decode(body, cx.version))?;
        let answered = request.acks != 0;
        let (answer, shards_ms) = work.at_once(|| produce::produce(cx.clone(), request));
        let pause_ms = shards_ms.max(cx.door.quotas.produced(&cx, bytes)).max(work.pause_ms());
        let answer = Box::pin(async move {
            let mut response = answer.await;
            response.throttle_time_ms = throttle::told_ms(pause_ms);
            let error = produce::first_error(&response);
            // A client that wants no answer learns of an error by losing its connection, as with Kafka.
            let close = !answered && error != 0;
            Answer { pause_ms, ..Reply { response: answered.then_some(response), error, close }.encode(&cx) }
        });
        // What stands behind a request that went beyond its limits waits, like what is not sent yet.
        Ok(Started { answer, reads_on: pause_ms == 0 })
    },
};

/// Fetch alone answers with records, and has its share of the memory for them.
const FETCH: Row = Row {
    key: ApiKey::Fetch,
    versions: <FetchRequest as Message>::VERSIONS,
    advertised_min: <FetchRequest as Message>::VERSIONS.min,
    name: "Fetch",
    run: |cx, body| {
        let mut work = Work::new(&cx);
        let request: FetchRequest = work.at_once(|| guard::decode(body, cx.version))?;
        Ok(Started::before_others(async move {
            let (mut fetched, grant) = work.until_done(fetch::fetch(cx.clone(), request)).await;
            let (error, pause_ms) = (fetched.first_error(), work.tell(&mut fetched.response));
            let frame = fetch::encode::frame(&fetched, cx.correlation_id, cx.version);
            Answer { frame, error, close: false, pause_ms, grant }
        }))
    },
};

/// Of ShareFetch and ShareAcknowledge there is a version that the codec does not know.
const SHARE_FETCH: Row = Row {
    key: ApiKey::ShareFetch,
    versions: share::VERSIONS,
    advertised_min: share::VERSIONS.min,
    name: "ShareFetch",
    run: |cx, body| {
        let mut work = Work::new(&cx);
        let (request, extra) = work.at_once(|| share::decode_fetch(body, cx.version))?;
        Ok(Started::before_others(async move {
            let (mut response, grant) = work.until_done(share::share_fetch(cx.clone(), request, extra)).await;
            let (error, pause_ms) = (share::first_error(&response), work.tell(&mut response));
            let reply = Reply { response: Some(response), error, close: false };
            // What is told is the same in all versions.
            Answer { grant, pause_ms, ..reply.encode(&Context { version: share::VERSIONS.min, ..cx }) }
        }))
    },
};

const SHARE_ACKNOWLEDGE: Row = Row {
    key: ApiKey::ShareAcknowledge,
    versions: share::VERSIONS,
    advertised_min: share::VERSIONS.min,
    name: "ShareAcknowledge",
    run: |cx, body| {
        let mut work = Work::new(&cx);
        let (request, extra) = work.at_once(|| share::decode_acknowledge(body, cx.version))?;
        Ok(Started::before_others(async move {
            let answer = share::share_acknowledge(cx.clone(), request, extra);
            let (mut response, lock_timeout_ms) = work.until_done(answer).await;
            let mut codes = error::Codes::default();
            codes.add(response.error_code);
            response.responses.iter().flat_map(|topic| &topic.partitions).for_each(|p| codes.add(p.error_code));
            let pause_ms = work.tell(&mut response);
            let tells = cx.version > share::VERSIONS.min;
            let mut frame = encode_frame(&response, cx.correlation_id, share::VERSIONS.min);
            if tells {
                frame = frame.map(|frame| share::put_lock_timeout(frame, lock_timeout_ms));
            }
            let frame = frame.map(Chunks::from);
            Answer { frame, error: codes.first(), close: false, pause_ms, grant: None }
        }))
    },
};

/// What is served. Not here means not advertised.
pub const TABLE: &[Row] = &[
    PRODUCE,
    FETCH,
    row!(ListOffsets, ListOffsetsRequest, offsets::list_offsets, |r: &ListOffsetsResponse, c| {
        r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(Metadata, MetadataRequest, topics::metadata, |r: &MetadataResponse, c| {
        r.topics.iter().for_each(|topic| c.add(topic.error_code));
    }),
    row!(OffsetCommit, OffsetCommitRequest, groups::offset_commit, |r: &OffsetCommitResponse, c| {
        r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(OffsetFetch, OffsetFetchRequest, groups::offset_fetch, |r: &OffsetFetchResponse, c| {
        c.add(r.error_code);
        r.groups.iter().for_each(|group| c.add(group.error_code));
    }),
    row!(FindCoordinator, FindCoordinatorRequest, groups::find_coordinator, |r: &FindCoordinatorResponse, c| {
        c.add(r.error_code);
        r.coordinators.iter().for_each(|coordinator| c.add(coordinator.error_code));
    }),
    row!(JoinGroup, JoinGroupRequest, groups::join_group, |r: &JoinGroupResponse, c| c.add(r.error_code)),
    row!(Heartbeat, HeartbeatRequest, groups::heartbeat, |r: &HeartbeatResponse, c| c.add(r.error_code)),
    row!(LeaveGroup, LeaveGroupRequest, groups::leave_group, |r: &LeaveGroupResponse, c| {
        c.add(r.error_code);
        r.members.iter().for_each(|member| c.add(member.error_code));
    }),
    row!(SyncGroup, SyncGroupRequest, groups::sync_group, |r: &SyncGroupResponse, c| c.add(r.error_code)),
    row!(DescribeGroups, DescribeGroupsRequest, groups::describe_groups, |r: &DescribeGroupsResponse, c| {
        r.groups.iter().for_each(|group| c.add(group.error_code));
    }),
    row!(ListGroups, ListGroupsRequest, groups::list_groups, |r: &ListGroupsResponse, c| c.add(r.error_code)),
    row!(DeleteGroups, DeleteGroupsRequest, groups::delete_groups, |r: &DeleteGroupsResponse, c| {
        r.results.iter().for_each(|group| c.add(group.error_code));
    }),
    row!(
        ConsumerGroupHeartbeat,
        ConsumerGroupHeartbeatRequest,
        groups::consumer_group_heartbeat,
        |r: &ConsumerGroupHeartbeatResponse, c| c.add(r.error_code)
    ),
    row!(
        ConsumerGroupDescribe,
        ConsumerGroupDescribeRequest,
        groups::consumer_group_describe,
        |r: &ConsumerGroupDescribeResponse, c| r.groups.iter().for_each(|group| c.add(group.error_code))
    ),
    row!(OffsetDelete, OffsetDeleteRequest, groups::offset_delete, |r: &OffsetDeleteResponse, c| {
        c.add(r.error_code);
        r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(ApiVersions, ApiVersionsRequest, api_versions::api_versions, |r: &ApiVersionsResponse, c| {
        c.add(r.error_code)
    }),
    row!(CreateTopics, CreateTopicsRequest, topics::create_topics, |r: &CreateTopicsResponse, c| {
        r.topics.iter().for_each(|topic| c.add(topic.error_code));
    }),
    row!(DeleteTopics, DeleteTopicsRequest, topics::delete_topics, |r: &DeleteTopicsResponse, c| {
        r.responses.iter().for_each(|topic| c.add(topic.error_code));
    }),
    row!(CreatePartitions, CreatePartitionsRequest, topics::create_partitions, |r: &CreatePartitionsResponse, c| {
        r.results.iter().for_each(|topic| c.add(topic.error_code));
    }),
    row!(
        DescribeTopicPartitions,
        DescribeTopicPartitionsRequest,
        topics::describe_topic_partitions,
        |r: &DescribeTopicPartitionsResponse, c| r.topics.iter().for_each(|topic| c.add(topic.error_code))
    ),
    row!(DeleteRecords, DeleteRecordsRequest, offsets::delete_records, |r: &DeleteRecordsResponse, c| {
        r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(
        OffsetForLeaderEpoch,
        OffsetForLeaderEpochRequest,
        offsets::offset_for_leader_epoch,
        |r: &OffsetForLeaderEpochResponse, c| {
            r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
        }
    ),
    row!(InitProducerId, InitProducerIdRequest, transactions::init_producer_id, |r: &InitProducerIdResponse, c| {
        c.add(r.error_code)
    }),
    row!(
        AddPartitionsToTxn,
        AddPartitionsToTxnRequest,
        transactions::add_partitions_to_txn,
        |r: &AddPartitionsToTxnResponse, c| {
            let topics = r.results_by_transaction.iter().flat_map(|transaction| &transaction.topic_results);
            let partitions =
                topics.chain(&r.results_by_topic_v3_and_below).flat_map(|topic| &topic.results_by_partition);
            partitions.for_each(|partition| c.add(partition.partition_error_code));
        }
    ),
    row!(
        AddOffsetsToTxn,
        AddOffsetsToTxnRequest,
        transactions::add_offsets_to_txn,
        |r: &AddOffsetsToTxnResponse, c| { c.add(r.error_code) }
    ),
    row!(EndTxn, EndTxnRequest, transactions::end_txn, |r: &EndTxnResponse, c| c.add(r.error_code)),
    row!(WriteTxnMarkers, WriteTxnMarkersRequest, transactions::write_txn_markers, |r: &WriteTxnMarkersResponse, c| {
        let topics = r.markers.iter().flat_map(|marker| &marker.topics);
        topics.flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(TxnOffsetCommit, TxnOffsetCommitRequest, transactions::txn_offset_commit, |r: &TxnOffsetCommitResponse, c| {
        r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(
        DescribeTransactions,
        DescribeTransactionsRequest,
        transactions::describe_transactions,
        |r: &DescribeTransactionsResponse, c| r.transaction_states.iter().for_each(|state| c.add(state.error_code))
    ),
    row!(
        ListTransactions,
        ListTransactionsRequest,
        transactions::list_transactions,
        |r: &ListTransactionsResponse, c| c.add(r.error_code)
    ),
    row!(
        DescribeProducers,
        DescribeProducersRequest,
        producers::describe_producers,
        |r: &DescribeProducersResponse, c| {
            r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
        }
    ),
    row!(DescribeConfigs, DescribeConfigsRequest, configs::describe_configs, |r: &DescribeConfigsResponse, c| {
        r.results.iter().for_each(|resource| c.add(resource.error_code));
    }),
    row!(AlterConfigs, AlterConfigsRequest, configs::alter_configs, |r: &AlterConfigsResponse, c| {
        r.responses.iter().for_each(|resource| c.add(resource.error_code));
    }),
    row!(
        IncrementalAlterConfigs,
        IncrementalAlterConfigsRequest,
        configs::incremental_alter_configs,
        |r: &IncrementalAlterConfigsResponse, c| r.responses.iter().for_each(|resource| c.add(resource.error_code))
    ),
    row!(
        ListConfigResources,
        ListConfigResourcesRequest,
        configs::list_config_resources,
        |r: &ListConfigResourcesResponse, c| c.add(r.error_code)
    ),
    row!(DescribeCluster, DescribeClusterRequest, cluster::describe_cluster, |r: &DescribeClusterResponse, c| {
        c.add(r.error_code)
    }),
    row!(
        AlterReplicaLogDirs,
        AlterReplicaLogDirsRequest,
        cluster::alter_replica_log_dirs,
        |r: &AlterReplicaLogDirsResponse, c| {
            r.results.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
        }
    ),
    row!(DescribeLogDirs, DescribeLogDirsRequest, cluster::describe_log_dirs, |r: &DescribeLogDirsResponse, c| {
        r.results.iter().for_each(|dir| c.add(dir.error_code));
    }),
    row!(ElectLeaders, ElectLeadersRequest, cluster::elect_leaders, |r: &ElectLeadersResponse, c| {
        c.add(r.error_code);
        r.replica_election_results.iter().flat_map(|topic| &topic.partition_result).for_each(|p| c.add(p.error_code));
    }),
    row!(
        AlterPartitionReassignments,
        AlterPartitionReassignmentsRequest,
        cluster::alter_partition_reassignments,
        |r: &AlterPartitionReassignmentsResponse, c| {
            r.responses.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
        }
    ),
    row!(
        ListPartitionReassignments,
        ListPartitionReassignmentsRequest,
        cluster::list_partition_reassignments,
        |r: &ListPartitionReassignmentsResponse, c| c.add(r.error_code)
    ),
    row!(
        DescribeClientQuotas,
        DescribeClientQuotasRequest,
        quotas::handlers::describe_client_quotas,
        |r: &DescribeClientQuotasResponse, c| c.add(r.error_code)
    ),
    row!(
        AlterClientQuotas,
        AlterClientQuotasRequest,
        quotas::handlers::alter_client_quotas,
        |r: &AlterClientQuotasResponse, c| r.entries.iter().for_each(|entry| c.add(entry.error_code))
    ),
    row!(DescribeAcls, DescribeAclsRequest, security_apis::describe_acls, |r: &DescribeAclsResponse, c| {
        c.add(r.error_code)
    }),
    row!(CreateAcls, CreateAclsRequest, security_apis::create_acls, |r: &CreateAclsResponse, c| {
        r.results.iter().for_each(|result| c.add(result.error_code));
    }),
    row!(DeleteAcls, DeleteAclsRequest, security_apis::delete_acls, |r: &DeleteAclsResponse, c| {
        r.filter_results.iter().for_each(|result| c.add(result.error_code));
    }),
    row!(
        DescribeUserScramCredentials,
        DescribeUserScramCredentialsRequest,
        security_apis::describe_user_scram_credentials,
        |r: &DescribeUserScramCredentialsResponse, c| c.add(r.error_code)
    ),
    row!(
        AlterUserScramCredentials,
        AlterUserScramCredentialsRequest,
        security_apis::alter_user_scram_credentials,
        |r: &AlterUserScramCredentialsResponse, c| r.results.iter().for_each(|user| c.add(user.error_code))
    ),
    row!(UpdateFeatures, UpdateFeaturesRequest, features::update_features, |r: &UpdateFeaturesResponse, c| {
        c.add(r.error_code);
        r.results.iter().for_each(|feature| c.add(feature.error_code));
    }),
    row!(DescribeQuorum, DescribeQuorumRequest, cluster::describe_quorum, |r: &DescribeQuorumResponse, c| {
        r.topics.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
    }),
    row!(
        ShareGroupHeartbeat,
        ShareGroupHeartbeatRequest,
        share::share_group_heartbeat,
        |r: &ShareGroupHeartbeatResponse, c| c.add(r.error_code)
    ),
    row!(
        ShareGroupDescribe,
        ShareGroupDescribeRequest,
        share::share_group_describe,
        |r: &ShareGroupDescribeResponse, c| r.groups.iter().for_each(|group| c.add(group.error_code))
    ),
    SHARE_FETCH,
    SHARE_ACKNOWLEDGE,
    row!(
        DescribeShareGroupOffsets,
        DescribeShareGroupOffsetsRequest,
        share::describe_share_group_offsets,
        |r: &DescribeShareGroupOffsetsResponse, c| r.groups.iter().for_each(|group| c.add(group.error_code))
    ),
    row!(
        AlterShareGroupOffsets,
        AlterShareGroupOffsetsRequest,
        share::alter_share_group_offsets,
        |r: &AlterShareGroupOffsetsResponse, c| {
            c.add(r.error_code);
            r.responses.iter().flat_map(|topic| &topic.partitions).for_each(|partition| c.add(partition.error_code));
        }
    ),
    row!(
        DeleteShareGroupOffsets,
        DeleteShareGroupOffsetsRequest,
        share::delete_share_group_offsets,
        |r: &DeleteShareGroupOffsetsResponse, c| {
            c.add(r.error_code);
            r.responses.iter().for_each(|topic| c.add(topic.error_code));
        }
    ),
];

/// The row of an API key, with its place in [`TABLE`].
pub fn row(key: i16) -> Option<(usize, &'static Row)> {
    TABLE.iter().enumerate().find(|(_, row)| row.key as i16 == key)
}
