//! TxnOffsetCommit (28).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::producer;
use crate::group::{CommitRequest, OffsetToCommit};
use crate::kafka::error::NONE;
use crate::kafka::{Context, error};
use crate::txn::{TxnError, Verification};

/// No leader epoch.
const NO_LEADER_EPOCH: i32 = -1;
/// TxnOffsetCommit versions that know TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_FROM: i16 = 4;
/// TxnOffsetCommit versions that add the group to the transaction (KIP-890).
const ADDS_FROM: i16 = 5;

/// TxnOffsetCommit, versions 0 to 5. Partitions that do not exist are refused one by one; the others stand or fall
/// together, but for metadata that is too long. From 3 on a consumer's member and generation are checked (KIP-447); up to
/// 4 the group must have been added by AddOffsetsToTxn.
pub async fn txn_offset_commit(cx: Context, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let mut offsets = Vec::new();
    // Which of `offsets` each partition of the request is; None for those that do not exist.
    let mut places: Vec<Vec<Option<usize>>> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let count = cx.door.broker.stream(&topic.name).map_or(0, |stream| stream.partition_count());
        let place = |partition: &TxnOffsetCommitRequestPartition| {
            let index = u32::try_from(partition.partition_index).ok().filter(|index| *index < count)?;
            offsets.push(offset_to_commit(topic, partition, index));
            Some(offsets.len() - 1)
        };
        places.push(topic.partitions.iter().map(place).collect());
    }
    let commit = CommitRequest {
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id,
        knows_epochs: true,
        retention_ms: None,
        offsets,
    };
    let producer = producer(request.producer_id, request.producer_epoch);
    let verification = if cx.version >= ADDS_FROM { Verification::Add } else { Verification::Added };
    let (id, group_id) = (&request.transactional_id, &request.group_id);
    let answers = match commit.offsets.is_empty() {
        true => Ok(Vec::new()),
        false => cx.door.transactions.commit_offsets(id, producer, group_id, verification, commit).await,
    };
    let code = |place: Option<usize>| match (place, &answers) {
        (None, _) => ResponseError::UnknownTopicOrPartition.code(),
        (Some(_), Err(error)) => of_commit(*error, cx.version).code(),
        (Some(place), Ok(answers)) => match answers.get(place) {
            Some(Err(error)) => error::of_group(*error).code(),
            Some(Ok(())) | None => NONE,
        },
    };
    let topics = request.topics.into_iter().zip(places).map(|(topic, places)| {
        let partitions = topic.partitions.iter().zip(places).map(|(partition, place)| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(place))
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

fn offset_to_commit(
    topic: &TxnOffsetCommitRequestTopic,
    partition: &TxnOffsetCommitRequestPartition,
    index: u32,
) -> OffsetToCommit {
    OffsetToCommit {
        topic: topic.name.to_string(),
        partition: index,
        offset: partition.committed_offset,
        leader_epoch: Some(partition.committed_leader_epoch).filter(|epoch| *epoch != NO_LEADER_EPOCH),
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
    }
}

/// As Kafka's group coordinator words what the transaction coordinator told it.
fn of_commit(error: TxnError, version: i16) -> ResponseError {
    match error {
        TxnError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        TxnError::TransactionAbortable if version < ABORTABLE_FROM => ResponseError::InvalidTxnState,
        // Older clients do not all ask again after it.
        TxnError::ConcurrentTransactions if version < ADDS_FROM => ResponseError::CoordinatorNotAvailable,
        error => error::of_txn(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_clients_are_told_what_they_know() {
        assert_eq!(of_commit(TxnError::TransactionAbortable, 3), ResponseError::InvalidTxnState);
        assert_eq!(of_commit(TxnError::TransactionAbortable, 4), ResponseError::TransactionAbortable);
        assert_eq!(of_commit(TxnError::ConcurrentTransactions, 4), ResponseError::CoordinatorNotAvailable);
        assert_eq!(of_commit(TxnError::ConcurrentTransactions, 5), ResponseError::ConcurrentTransactions);
        assert_eq!(of_commit(TxnError::ProducerFenced, 5), ResponseError::InvalidProducerEpoch);
    }
}
