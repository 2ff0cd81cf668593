//! Transactions: `init` (InitProducerId), `add` (AddPartitionsToTxn, AddOffsetsToTxn), `offsets` (TxnOffsetCommit), `end`
//! (EndTxn, WriteTxnMarkers) and `admin` (DescribeTransactions, ListTransactions). What they decide stands in
//! [`crate::txn`]; here requests of all versions become its requests, and its answers theirs.
//!
//! This broker coordinates every transactional id. Produce and FindCoordinator have their part of it where they are.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ProducerId;

use crate::kafka::error;
use crate::txn::TxnError;
use crate::txn::state::ProducerEpoch;

mod add;
mod admin;
mod end;
mod init;
mod offsets;
#[cfg(test)]
mod tests;

pub use add::{add_offsets_to_txn, add_partitions_to_txn};
pub use admin::{describe_transactions, list_transactions};
pub use end::{end_txn, write_txn_markers};
pub use init::init_producer_id;
pub use offsets::txn_offset_commit;

/// No producer id, no epoch.
const NO_PRODUCER: i64 = -1;
const NO_EPOCH: i16 = -1;

fn producer(ProducerId(producer_id): ProducerId, epoch: i16) -> ProducerEpoch {
    ProducerEpoch { producer_id, epoch }
}

/// KIP-588: clients that speak less than `fenced_from` know no PRODUCER_FENCED.
fn of_txn(error: TxnError, version: i16, fenced_from: i16) -> ResponseError {
    match error {
        TxnError::ProducerFenced if version < fenced_from => ResponseError::InvalidProducerEpoch,
        error => error::of_txn(error),
    }
}
