//! What a transaction is going to touch: AddPartitionsToTxn (24), AddOffsetsToTxn (25).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
};
use uuid::Uuid;

use super::{of_txn, producer};
use crate::kafka::Context;
use crate::kafka::error::NONE;

/// AddPartitionsToTxn versions that name several transactions (KIP-890).
const SEVERAL_FROM: i16 = 4;
const PRODUCER_FENCED_FROM: i16 = 2;

/// AddPartitionsToTxn, versions 0 to 5: all of a transaction's partitions or none. From 4 on it is for brokers, which also
/// ask whether partitions were added (`verify_only`).
pub async fn add_partitions_to_txn(cx: Context, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    if cx.version < SEVERAL_FROM {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let added = add_partitions(&cx, transaction).await;
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(added.topic_results);
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results.push(add_partitions(&cx, transaction).await);
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
}

async fn add_partitions(cx: &Context, transaction: AddPartitionsToTxnTransaction) -> AddPartitionsToTxnResult {
    let AddPartitionsToTxnTransaction { transactional_id, producer_id, producer_epoch, verify_only, topics, .. } =
        transaction;
    let producer = producer(producer_id, producer_epoch);
    let found = find(cx, &topics);
    let all: Option<Vec<(Uuid, u32)>> = found.iter().flatten().copied().collect();
    let answer = |code: &dyn Fn(Option<(Uuid, u32)>) -> i16| {
        let results = topics.iter().zip(&found).map(|(topic, found)| topic_result(topic, found, code));
        AddPartitionsToTxnResult::default()
            .with_transactional_id(transactional_id.clone())
            .with_topic_results(results.collect())
    };
    let Some(all) = all else {
        // Any that does not exist is why none was added.
        let (unknown, others) = (ResponseError::UnknownTopicOrPartition, ResponseError::OperationNotAttempted);
        return answer(&|partition| if partition.is_none() { unknown } else { others }.code());
    };
    let of_txn = |error| of_txn(error, cx.version, PRODUCER_FENCED_FROM).code();
    let transactions = &cx.door.transactions;
    if verify_only {
        let verify = |at: (Uuid, u32)| transactions.verify_partition(&transactional_id, producer, at);
        return answer(&|partition| partition.map_or(NONE, |at| verify(at).map_or_else(of_txn, |()| NONE)));
    }
    let added = transactions.add_partitions(&transactional_id, producer, &all).await;
    let code = added.map_or_else(of_txn, |()| NONE);
    answer(&|_| code)
}

/// Each partition by its topic id, or nothing where there is none.
fn find(cx: &Context, topics: &[AddPartitionsToTxnTopic]) -> Vec<Vec<Option<(Uuid, u32)>>> {
    let of_topic = |topic: &AddPartitionsToTxnTopic| {
        let stream = cx.door.broker.stream(&topic.name);
        let (topic_id, count) = stream.map_or((Uuid::nil(), 0), |stream| (stream.topic_id, stream.partition_count()));
        let existing = |index: &i32| u32::try_from(*index).ok().filter(|index| *index < count);
        topic.partitions.iter().map(|index| Some((topic_id, existing(index)?))).collect()
    };
    topics.iter().map(of_topic).collect()
}

fn topic_result(
    topic: &AddPartitionsToTxnTopic,
    found: &[Option<(Uuid, u32)>],
    code: &dyn Fn(Option<(Uuid, u32)>) -> i16,
) -> AddPartitionsToTxnTopicResult {
    let results = topic.partitions.iter().zip(found).map(|(index, found)| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(*index)
            .with_partition_error_code(code(*found))
    });
    AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(results.collect())
}

/// AddOffsetsToTxn, versions 0 to 4: the transaction is going to commit a group's offsets.
pub async fn add_offsets_to_txn(cx: Context, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let producer = producer(request.producer_id, request.producer_epoch);
    let added = cx.door.transactions.add_group(&request.transactional_id, producer, &request.group_id).await;
    let code = added.map_or_else(|error| of_txn(error, cx.version, PRODUCER_FENCED_FROM).code(), |()| NONE);
    AddOffsetsToTxnResponse::default().with_error_code(code)
}
