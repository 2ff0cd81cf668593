//! InitProducerId (22).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{NO_EPOCH, NO_PRODUCER, of_txn, producer};
use crate::kafka::{Context, error};
use crate::txn::state::ProducerEpoch;

const PRODUCER_FENCED_FROM: i16 = 4;

/// InitProducerId, versions 0 to 5. With a transactional id: the id's producer id, with an epoch that fences whoever had
/// it; a producer that goes on after an error tells the pair it has (from 3 on, KIP-360). A transaction that is open is
/// aborted, and the answer waits for that, where Kafka has the client ask again.
///
/// Without one: a new producer id, with epoch 0. A producer that tells its pair gets a new id as well: nobody else can go
/// on in its place, so there is none to fence.
pub async fn init_producer_id(cx: Context, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (NO_PRODUCER, NO_EPOCH) => None,
        (NO_PRODUCER, _) | (_, NO_EPOCH) => return refused(ResponseError::InvalidRequest),
        (_, epoch) => Some(producer(request.producer_id, epoch)),
    };
    let begun = match &request.transactional_id {
        Some(id) => cx
            .door
            .transactions
            .init(id, expected, request.transaction_timeout_ms)
            .await
            .map_err(|error| of_txn(error, cx.version, PRODUCER_FENCED_FROM)),
        None => {
            let fresh = cx.door.broker.new_producer_id().await;
            fresh.map(|producer_id| ProducerEpoch { producer_id, epoch: 0 }).map_err(|error| error::of_store(&error))
        }
    };
    match begun {
        Ok(begun) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(begun.producer_id))
            .with_producer_epoch(begun.epoch),
        Err(error) => refused(error),
    }
}

fn refused(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(NO_PRODUCER))
        .with_producer_epoch(NO_EPOCH)
}
