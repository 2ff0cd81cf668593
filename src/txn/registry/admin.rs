//! What administrators ask: listing and describing. And the expiry of ids that nobody uses any more.

use std::sync::Arc;

use super::{Entry, Shared, Transactions, check_id};
use crate::store::keys::Key;
use crate::store::{Batch, Family};
use crate::txn::TxnError;
use crate::txn::state::{ProducerEpoch, State};

/// Which transactional ids are wanted.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// `None` means all.
    pub states: Option<Vec<State>>,
    /// Empty means all.
    pub producer_ids: Vec<i64>,
    /// Only those whose transaction began longer ago than this.
    pub longer_than_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub transactional_id: Arc<str>,
    pub producer_id: i64,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub state: State,
    pub producer: ProducerEpoch,
    pub timeout_ms: i32,
    pub start_ms: Option<i64>,
    /// Partitions of the open transaction, by topic.
    pub topics: Vec<(Arc<str>, Vec<u32>)>,
}

impl Transactions {
    pub fn list(&self, filter: &ListFilter) -> Vec<Listed> {
        let now_ms = self.clock.now_ms();
        let wanted = |entry: &Entry| {
            let transaction = &entry.transaction;
            let producer_id = transaction.producer().producer_id;
            // As in Kafka, an id that never had a transaction counts as having begun one before all time.
            let age_ms = now_ms.saturating_sub(transaction.start_ms().unwrap_or(-1));
            !entry.gone
                && filter.states.as_ref().is_none_or(|states| states.contains(&transaction.state()))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&producer_id))
                && filter.longer_than_ms.is_none_or(|longer_than_ms| age_ms > longer_than_ms)
        };
        let listed = |shared: Shared| {
            let entry = shared.lock();
            wanted(&entry).then(|| Listed {
                transactional_id: entry.id.clone(),
                producer_id: entry.transaction.producer().producer_id,
                state: entry.transaction.state(),
            })
        };
        self.all().into_iter().filter_map(listed).collect()
    }

    pub fn describe(&self, id: &str) -> Result<Described, TxnError> {
        check_id(id)?;
        let described = self.find(id, |_, entry| {
            let transaction = &entry.transaction;
            let name = |topic_id| self.broker.stream_by_topic_id(topic_id).map(|stream| stream.name.clone());
            let partitions = transaction.partitions().iter();
            let topics =
                partitions.filter_map(|(topic, indexes)| Some((name(*topic)?, indexes.iter().copied().collect())));
            Described {
                state: transaction.state(),
                producer: transaction.producer(),
                timeout_ms: transaction.timeout_ms(),
                start_ms: transaction.start_ms(),
                topics: topics.collect(),
            }
        });
        described.ok_or(TxnError::TransactionalIdNotFound)
    }

    /// Forgets ids that have been without a transaction for long enough. Does not wait for the store: what fails comes back
    /// with the next start, and expires then.
    pub fn expire_ids(&self) {
        let now_ms = self.clock.now_ms();
        for shared in self.all() {
            let mut locked = shared.lock();
            let entry = &mut *locked;
            if entry.gone || !entry.transaction.is_expired(now_ms, self.settings.id_expiration_ms) {
                continue;
            }
            tracing::info!(transactional_id = &*entry.id, "forgetting a transactional id that nobody uses any more");
            let mut batch = Batch::default();
            batch.delete(Family::Meta, Key::Transaction(&entry.id).encode());
            drop(self.broker.commit_meta(batch));
            entry.gone = true;
            self.alarms.clear(&mut entry.scheduled, &entry.id);
            self.transactions.remove_if(&entry.id, |_, listed| Arc::ptr_eq(listed, &shared));
        }
    }

    /// All ids, to be locked one by one.
    fn all(&self) -> Vec<Shared> {
        self.transactions.iter().map(|entry| entry.value().clone()).collect()
    }
}
