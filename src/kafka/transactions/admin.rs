//! Looking at transactions: DescribeTransactions (65), ListTransactions (66).

use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState as DescribedState};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedState;
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse,
    ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use regex::{Regex, RegexBuilder};

use crate::kafka::{Context, error, names};
use crate::txn::state::State;
use crate::txn::{Described, ListFilter};

/// No time.
const NEVER: i64 = -1;

/// States that Kafka can name and no transaction here is ever seen in.
const UNSEEN_STATES: [&str; 2] = ["Dead", "PrepareEpochFence"];

/// Memory that a pattern may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// DescribeTransactions, version 0. Where Kafka shows partitions of `__consumer_offsets` for the groups whose offsets a
/// transaction commits, nothing is shown: there is no such topic.
pub async fn describe_transactions(cx: Context, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    // Each once: a transaction may have many partitions, and a request could name it a million times.
    let wanted: IndexSet<TransactionalId> = request.transactional_ids.into_iter().collect();
    let describe = |id: TransactionalId| match cx.door.transactions.describe(&id) {
        Ok(described) => described_state(id, described),
        Err(error) => DescribedState::default().with_transactional_id(id).with_error_code(error::of_txn(error).code()),
    };
    DescribeTransactionsResponse::default().with_transaction_states(wanted.into_iter().map(describe).collect())
}

fn described_state(id: TransactionalId, described: Described) -> DescribedState {
    let topics = described.topics.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().filter_map(|index| i32::try_from(index).ok());
        TopicData::default().with_topic(names::topic(&topic)).with_partitions(partitions.collect())
    });
    DescribedState::default()
        .with_transactional_id(id)
        .with_transaction_state(StrBytes::from_static_str(described.state.name()))
        .with_transaction_timeout_ms(described.timeout_ms)
        .with_transaction_start_time_ms(described.start_ms.unwrap_or(NEVER))
        .with_producer_id(ProducerId(described.producer.producer_id))
        .with_producer_epoch(described.producer.epoch)
        .with_topics(topics.collect())
}

/// ListTransactions, versions 0 to 2: from 1 on by how long ago they began (KIP-994), from 2 on by a pattern that the whole
/// transactional id matches (KIP-1152).
pub async fn list_transactions(cx: Context, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let Ok(pattern) = pattern(request.transactional_id_pattern.as_deref()) else {
        let error = ResponseError::InvalidRegularExpression.code();
        return ListTransactionsResponse::default().with_error_code(error);
    };
    let state = |name: &StrBytes| State::ALL.into_iter().find(|state| state.name() == &**name);
    let unknown = |name: &&StrBytes| state(name).is_none() && !UNSEEN_STATES.contains(&&***name);
    let unknown_states = request.state_filters.iter().filter(unknown).cloned().collect();
    let filter = ListFilter {
        states: (!request.state_filters.is_empty()).then(|| request.state_filters.iter().filter_map(state).collect()),
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        longer_than_ms: Some(request.duration_filter).filter(|duration_ms| *duration_ms >= 0),
    };
    let listed = cx.door.transactions.list(&filter).into_iter();
    let matching = listed.filter(|one| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&one.transactional_id)));
    let states = matching.map(|one| {
        ListedState::default()
            .with_transactional_id(TransactionalId(StrBytes::from_string(one.transactional_id.to_string())))
            .with_producer_id(ProducerId(one.producer_id))
            .with_transaction_state(StrBytes::from_static_str(one.state.name()))
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown_states)
        .with_transaction_states(states.collect())
}

/// An empty pattern is none, as in Kafka.
fn pattern(text: Option<&str>) -> Result<Option<Regex>, regex::Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    RegexBuilder::new(&format!("^(?:{text})$")).size_limit(PATTERN_BYTES_MAX).build().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_matched_by_the_whole_id() {
        let matches = |text, id| pattern(Some(text)).unwrap().unwrap().is_match(id);
        assert!(matches("pay.*|x", "payments") && matches("pay.*|x", "x"));
        assert!(!matches("pay", "payments") && !matches("pay.*|x", "xy"));
        assert!(pattern(None).unwrap().is_none() && pattern(Some("")).unwrap().is_none());
        assert!(pattern(Some("(")).is_err() && pattern(Some(r"\w{1000000}")).is_err());
    }
}
