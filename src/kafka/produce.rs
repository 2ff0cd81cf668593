//! Produce (0). Two stages: [`produce`] validates and queues every partition's batch before it returns, so that the
//! connection's order is the log's; the future it returns waits for the commits.
//!
//! A batch that goes beyond its shard's limits is taken all the same, and its connection pauses until the shard has
//! recovered (KIP-124, KIP-219); what was owed before it counts, so that all who write to the shard share its rate.
//!
//! A batch of a transaction needs its transactional id. Up to version 11 its partition must have been added to the
//! transaction; from 12 on it is added by its first batch (KIP-890). Either way the transaction cannot end before the
//! batch has its place.
//!
//! Versions 3 to 13: from 10 on a wrong leader is told who leads (never wrong here); 13 names topics by id.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use crate::broker::{AppendError, Stream, Terms, Ticket};
use crate::kafka::{Context, error};
use crate::metrics::Direction;
use crate::model::batch::Header;
use crate::model::ids::PartitionIndex;
use crate::txn::state::ProducerEpoch;
use crate::txn::{TxnError, Verification};

/// Produce versions that know TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_FROM: i16 = 11;
/// Produce versions that add partitions to the transaction (KIP-890).
const ADDS_FROM: i16 = 12;

/// What a request says of all its batches.
struct Sender {
    transactional_id: Option<TransactionalId>,
    all_replicas: bool,
}

/// A partition's batch after the first stage.
enum Placed {
    Queued(Ticket),
    Refused(Refusal),
}

struct Refusal {
    error: ResponseError,
    message: Option<String>,
    /// `(index in the batch, message)` of the records that are to blame.
    records: Vec<(i32, String)>,
}

struct PlacedTopic {
    /// `None` where there is none.
    stream: Option<Arc<Stream>>,
    response: TopicProduceResponse,
    partitions: Vec<(i32, Placed)>,
}

/// The answer, and for how long the connection is to pause after it.
pub fn produce(cx: Context, request: ProduceRequest) -> (impl Future<Output = ProduceResponse> + Send + 'static, i64) {
    let refusal = refuse_whole(&request);
    let sender = Sender { transactional_id: request.transactional_id, all_replicas: request.acks == -1 };
    let topics: Vec<PlacedTopic> = request
        .topic_data
        .into_iter()
        .map(|topic| match &refusal {
            Some(error) => refused_topic(topic, *error),
            None => place_topic(&cx, topic, &sender),
        })
        .collect();
    let pause_ms = pause_ms(&topics);
    let answer = async move {
        let mut responses = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (index, placed) in topic.partitions {
                partitions.push(answer(index, placed).await);
            }
            responses.push(topic.response.with_partition_responses(partitions));
        }
        ProduceResponse::default().with_responses(responses).with_throttle_time_ms(pause_ms as i32)
    };
    (answer, pause_ms)
}

/// The code of the first partition that failed, or 0.
pub fn first_error(response: &ProduceResponse) -> i16 {
    let mut codes = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    codes.find(|partition| partition.error_code != error::NONE).map_or(error::NONE, |partition| partition.error_code)
}

/// The longest that any shard needs to recover: a connection pauses as a whole. It is seconds at most, because more is
/// not remembered (`capacity::DEBT_MS_MAX`).
fn pause_ms(topics: &[PlacedTopic]) -> i64 {
    let mut longest_ms = 0;
    for topic in topics {
        let queued = |placed: &Placed| match placed {
            Placed::Queued(ticket) => ticket.throttle_ms(),
            Placed::Refused(_) => 0,
        };
        let topic_ms = topic.partitions.iter().map(|(_, placed)| queued(placed)).max().unwrap_or(0);
        if let (Some(stream), true) = (&topic.stream, topic_ms > 0) {
            stream.metrics.paused(Direction::Write, topic_ms);
        }
        longest_ms = longest_ms.max(topic_ms);
    }
    longest_ms
}

fn refuse_whole(request: &ProduceRequest) -> Option<ResponseError> {
    match request {
        ProduceRequest { acks, .. } if !(-1..=1).contains(acks) => Some(ResponseError::InvalidRequiredAcks),
        _ => None,
    }
}

fn refused_topic(topic: TopicProduceData, error: ResponseError) -> PlacedTopic {
    let refused = |partition: PartitionProduceData| (partition.index, Placed::Refused(Refusal::of(error)));
    let partitions = topic.partition_data.into_iter().map(refused).collect();
    let response = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
    PlacedTopic { stream: None, response, partitions }
}

fn place_topic(cx: &Context, topic: TopicProduceData, sender: &Sender) -> PlacedTopic {
    let (stream, unknown) = if cx.version >= 13 {
        (cx.door.broker.stream_by_topic_id(topic.topic_id), ResponseError::UnknownTopicId)
    } else {
        (cx.door.broker.stream(&topic.name), ResponseError::UnknownTopicOrPartition)
    };
    let Some(stream) = stream else { return refused_topic(topic, unknown) };
    let place = |partition: PartitionProduceData| {
        let placed = place_partition(cx, &stream, partition.index, partition.records, sender);
        (partition.index, placed)
    };
    let partitions = topic.partition_data.into_iter().map(place).collect();
    let response = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
    PlacedTopic { stream: Some(stream), response, partitions }
}

fn place_partition(cx: &Context, stream: &Arc<Stream>, index: i32, records: Option<Bytes>, sender: &Sender) -> Placed {
    let existing = |index: &u32| *index < stream.partition_count();
    let Some(index) = u32::try_from(index).ok().filter(existing) else {
        return Placed::Refused(Refusal::of(ResponseError::UnknownTopicOrPartition));
    };
    let records = records.unwrap_or_default();
    let transactional = transactional_producer(&records);
    // KIP-110: a client that sends zstd must know how to get it back.
    let zstd_allowed = cx.version >= 7;
    let terms = Terms { all_replicas: sender.all_replicas, zstd_allowed, transactional: transactional.is_some() };
    let append = || cx.door.broker.append(stream, PartitionIndex(index), &records, terms);
    let appended = match (transactional, &sender.transactional_id) {
        (None, _) => append(),
        (Some(_), None) => {
            return Placed::Refused(Refusal::of(ResponseError::TransactionalIdAuthorizationFailed));
        }
        (Some(producer), Some(id)) => {
            let verification = if cx.version >= ADDS_FROM { Verification::Add } else { Verification::Added };
            let at = (stream.topic_id, index);
            match cx.door.transactions.write(id, producer, at, verification, append) {
                Ok(appended) => appended,
                Err(error) => {
                    let message = Some(error.to_string());
                    return Placed::Refused(Refusal { message, ..Refusal::of(of_txn(error, cx.version)) });
                }
            }
        }
    };
    match appended {
        Ok(ticket) => Placed::Queued(ticket),
        Err(error) => Placed::Refused(Refusal::from(error)),
    }
}

/// The producer of a batch that says it is part of a transaction. What is no batch is not looked into: it is refused when
/// it is appended.
fn transactional_producer(records: &[u8]) -> Option<ProducerEpoch> {
    let header = Header::parse(records).ok().filter(Header::is_transactional)?;
    Some(ProducerEpoch { producer_id: header.producer_id, epoch: header.producer_epoch })
}

/// As Kafka's brokers word what the transaction coordinator told them.
fn of_txn(error: TxnError, version: i16) -> ResponseError {
    match error {
        TxnError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        TxnError::TransactionAbortable if version < ABORTABLE_FROM => ResponseError::InvalidTxnState,
        // Older clients would not send the batch again after it.
        TxnError::ConcurrentTransactions if version < ADDS_FROM => ResponseError::NotEnoughReplicas,
        TxnError::CoordinatorNotAvailable => ResponseError::NotEnoughReplicas,
        error => error::of_txn(error),
    }
}

async fn answer(index: i32, placed: Placed) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    let refusal = match placed {
        Placed::Queued(ticket) => match ticket.committed().await {
            Ok(at) => {
                return response
                    .with_base_offset(at.base_offset.unwrap_or(-1))
                    .with_log_append_time_ms(at.log_append_ms.unwrap_or(-1))
                    .with_log_start_offset(at.log_start);
            }
            Err(error) => Refusal::from(error),
        },
        Placed::Refused(refusal) => refusal,
    };
    let records = refusal.records.into_iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(StrBytes::from_string(message)))
    });
    response
        .with_error_code(refusal.error.code())
        .with_error_message(refusal.message.map(StrBytes::from_string))
        .with_record_errors(records.collect())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}

impl Refusal {
    fn of(error: ResponseError) -> Refusal {
        Refusal { error, message: None, records: Vec::new() }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        let records = match &error {
            AppendError::Batch(error) => {
                error.record_errors().iter().map(|record| (record.batch_index, record.message.clone())).collect()
            }
            AppendError::NoSuchPartition
            | AppendError::NotEnoughReplicas { .. }
            | AppendError::Sequence(_)
            | AppendError::Key(_)
            | AppendError::Store(_) => Vec::new(),
        };
        Refusal { error: error::of_append(&error), message: Some(error.to_string()), records }
    }
}
