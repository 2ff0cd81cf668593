//! How transactions end: EndTxn (26), WriteTxnMarkers (27).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    EndTxnRequest, EndTxnResponse, ProducerId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::{NO_EPOCH, NO_PRODUCER, of_txn, producer};
use crate::kafka::Context;
use crate::kafka::error::{self, NONE};
use crate::model::ids::PartitionIndex;
use crate::txn::state::EndRules;

/// EndTxn versions that give every transaction an epoch of its own, and answer with the next one (KIP-890).
const NEXT_EPOCH_FROM: i16 = 5;
const PRODUCER_FENCED_FROM: i16 = 2;

/// EndTxn, versions 0 to 5. Answers when the transaction has ended, with its markers written and its offsets committed,
/// where Kafka answers when it is sure to end.
pub async fn end_txn(cx: Context, request: EndTxnRequest) -> EndTxnResponse {
    let rules = if cx.version >= NEXT_EPOCH_FROM { EndRules::NextEpoch } else { EndRules::SameEpoch };
    let producer = producer(request.producer_id, request.producer_epoch);
    let ended = cx.door.transactions.end(&request.transactional_id, producer, request.committed, rules).await;
    let response = EndTxnResponse::default();
    match ended {
        Ok(next) if rules == EndRules::NextEpoch => {
            response.with_producer_id(ProducerId(next.producer_id)).with_producer_epoch(next.epoch)
        }
        Ok(_) => response,
        Err(error) => response
            .with_error_code(of_txn(error, cx.version, PRODUCER_FENCED_FROM).code())
            .with_producer_id(ProducerId(NO_PRODUCER))
            .with_producer_epoch(NO_EPOCH),
    }
}

/// WriteTxnMarkers, version 1: markers as an operator wants them, to end a transaction that hangs (`kafka-transactions.sh
/// abort`). What the coordinator knows of the producer's transaction is left as it is.
pub async fn write_txn_markers(cx: Context, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in &marker.topics {
            topics.push(write_to_topic(&cx, &marker, topic).await);
        }
        markers.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(markers)
}

async fn write_to_topic(
    cx: &Context,
    marker: &WritableTxnMarker,
    topic: &WritableTxnMarkerTopic,
) -> WritableTxnMarkerTopicResult {
    let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
    for index in &topic.partition_indexes {
        let written = write_to_partition(cx, marker, topic, *index).await;
        partitions.push(
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(*index)
                .with_error_code(written.map_or_else(|error| error.code(), |()| NONE)),
        );
    }
    WritableTxnMarkerTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
}

async fn write_to_partition(
    cx: &Context,
    marker: &WritableTxnMarker,
    topic: &WritableTxnMarkerTopic,
    index: i32,
) -> Result<(), ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let stream = cx.door.broker.stream(&topic.name).ok_or(unknown)?;
    let index = u32::try_from(index).map(PartitionIndex).map_err(|_| unknown)?;
    let partition = stream.partition(index).ok_or(unknown)?;
    let known = partition.producers(|producers| {
        let known = producers.get(marker.producer_id.0);
        known.map(|entry| (entry.producer_epoch(), entry.coordinator_epoch()))
    });
    if let Some((producer_epoch, coordinator_epoch)) = known {
        if marker.producer_epoch < producer_epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if marker.coordinator_epoch < coordinator_epoch {
            return Err(ResponseError::TransactionCoordinatorFenced);
        }
    }
    let producer = producer(marker.producer_id, marker.producer_epoch);
    let (commit, coordinator_epoch) = (marker.transaction_result, marker.coordinator_epoch);
    let written = cx.door.transactions.write_marker(producer, commit, coordinator_epoch, (stream, index));
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(error::of_store(&failure)),
        Err(_) => Err(ResponseError::KafkaStorageError),
    }
}
