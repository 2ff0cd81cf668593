//! Produce (0). Two stages: [`produce`] validates and queues every partition's batch before it returns, so that the
//! connection's order is the log's; the future it returns waits for the commits.
//!
//! A batch that goes beyond its shard's limits is taken all the same, and its connection pauses until the shard has
//! recovered (KIP-124, KIP-219); what was owed before it counts, so that all who write to the shard share its rate.
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
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::{AppendError, Stream, Terms, Ticket};
use crate::kafka::{Context, error};
use crate::model::ids::PartitionIndex;

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
    let all_replicas = request.acks == -1;
    let topics: Vec<PlacedTopic> = request
        .topic_data
        .into_iter()
        .map(|topic| match &refusal {
            Some(error) => refused_topic(topic, *error),
            None => place_topic(&cx, topic, all_replicas),
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
            stream.metrics.write_throttled.paused(topic_ms);
        }
        longest_ms = longest_ms.max(topic_ms);
    }
    longest_ms
}

fn refuse_whole(request: &ProduceRequest) -> Option<ResponseError> {
    match request {
        ProduceRequest { acks, .. } if !(-1..=1).contains(acks) => Some(ResponseError::InvalidRequiredAcks),
        // Transactions are not served: nobody is authorised to use one.
        ProduceRequest { transactional_id: Some(_), .. } => Some(ResponseError::TransactionalIdAuthorizationFailed),
        _ => None,
    }
}

fn refused_topic(topic: TopicProduceData, error: ResponseError) -> PlacedTopic {
    let refused = |partition: PartitionProduceData| (partition.index, Placed::Refused(Refusal::of(error)));
    let partitions = topic.partition_data.into_iter().map(refused).collect();
    let response = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
    PlacedTopic { stream: None, response, partitions }
}

fn place_topic(cx: &Context, topic: TopicProduceData, all_replicas: bool) -> PlacedTopic {
    let (stream, unknown) = if cx.version >= 13 {
        (cx.door.broker.stream_by_topic_id(topic.topic_id), ResponseError::UnknownTopicId)
    } else {
        (cx.door.broker.stream(&topic.name), ResponseError::UnknownTopicOrPartition)
    };
    let Some(stream) = stream else { return refused_topic(topic, unknown) };
    let place = |partition: PartitionProduceData| {
        let placed = place_partition(cx, &stream, partition.index, partition.records, all_replicas);
        (partition.index, placed)
    };
    let partitions = topic.partition_data.into_iter().map(place).collect();
    let response = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
    PlacedTopic { stream: Some(stream), response, partitions }
}

fn place_partition(
    cx: &Context,
    stream: &Arc<Stream>,
    index: i32,
    records: Option<Bytes>,
    all_replicas: bool,
) -> Placed {
    let Ok(partition) = u32::try_from(index).map(PartitionIndex) else {
        return Placed::Refused(Refusal::of(ResponseError::UnknownTopicOrPartition));
    };
    // KIP-110: a client that sends zstd must know how to get it back.
    let zstd_allowed = cx.version >= 7;
    let terms = Terms { all_replicas, zstd_allowed, transactional: false };
    match cx.door.broker.append(stream, partition, &records.unwrap_or_default(), terms) {
        Ok(ticket) => Placed::Queued(ticket),
        Err(error) => Placed::Refused(Refusal::from(error)),
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
