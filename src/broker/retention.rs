//! What a stream has kept for long enough: records expire exactly by the time they were appended, and shards that are
//! closed are forgotten once the last of their records has. `reaper` asks for it, and so does a change of the retention:
//! what had expired under the old one stays away under a longer one, what has expired under a shorter one goes at once.

use std::sync::Arc;

use crate::broker::read::blocking;
use crate::broker::{Broker, CatalogError, Stream};
use crate::log::partition::Partition;
use crate::log::times::Sought;
use crate::model::ids::Offset;
use crate::model::settings::StreamSettings;
use crate::model::shard::Shard;
use crate::store::StoreError;

impl Broker {
    /// Where the first batch stands that was appended at `ms` or later, by the broker's clock; the end of the log if
    /// there is none.
    pub async fn offset_at_append_time(&self, partition: &Arc<Partition>, ms: i64) -> Result<Offset, StoreError> {
        Ok(self.seek(partition, ms).await?.offset)
    }

    async fn seek(&self, partition: &Arc<Partition>, ms: i64) -> Result<Sought, StoreError> {
        match partition.seek_hot(ms) {
            Some(sought) => Ok(sought),
            None => {
                let (store, partition) = (self.store.clone(), partition.clone());
                blocking(move || partition.seek_cold(&*store, ms)).await?
            }
        }
    }

    /// Drops the records of a stream that its retention is over for.
    pub async fn expire(&self, stream: &Stream) -> Result<(), StoreError> {
        match expiry(&stream.settings(), self.clock.now_ms()) {
            Some(before_ms) => self.expire_before(stream, before_ms).await,
            None => Ok(()),
        }
    }

    /// Drops the records of a stream that were appended before `before_ms`.
    pub(super) async fn expire_before(&self, stream: &Stream, before_ms: i64) -> Result<(), StoreError> {
        for partition in stream.partitions() {
            if partition.begins_at_or_after(before_ms) {
                continue;
            }
            let Sought { offset, append_ms } = self.seek(&partition, before_ms).await?;
            self.trim(&partition, offset).await?;
            if let Some(append_ms) = append_ms {
                partition.note_oldest(append_ms);
            }
        }
        Ok(())
    }

    /// For how long the oldest record that is still there has been expired, of all streams; 0 when none has.
    pub fn retention_behind_ms(&self) -> i64 {
        let now_ms = self.clock.now_ms();
        let behind_ms = |stream: Arc<Stream>| {
            let before_ms = expiry(&stream.settings(), now_ms)?;
            let oldest_ms = stream.partitions().iter().filter_map(|partition| partition.oldest_append_ms()).min()?;
            Some(before_ms.saturating_sub(oldest_ms))
        };
        self.streams_in_any_state().into_iter().filter_map(behind_ms).max().unwrap_or(0).max(0)
    }

    /// Forgets the shards that have been closed for longer than the retention and whose records are all gone.
    pub async fn forget_shards(&self, stream: &Stream) -> Result<(), CatalogError> {
        let Some(before_ms) = expiry(&stream.settings(), self.clock.now_ms()) else { return Ok(()) };
        let partitions = stream.partitions();
        let gone = |shard: &Shard| {
            let log_start = partitions.get(shard.partition.0 as usize).map(|partition| partition.log_start());
            shard.closed_ms.is_some_and(|closed_ms| closed_ms < before_ms)
                && shard.end_offset.zip(log_start).is_some_and(|(end_offset, log_start)| end_offset <= log_start)
        };
        if !stream.lineage().shards().iter().any(gone) {
            return Ok(());
        }
        let forget = self.change_stream(stream, |draft| {
            draft.lineage.forget(gone);
            Ok(())
        });
        match forget.await {
            // It was deleted meanwhile, and its shards with it.
            Err(CatalogError::NotFound) => Ok(()),
            forgotten => forgotten,
        }
    }
}

/// What was appended before this has expired at `now_ms`; none if nothing ever does.
pub(super) fn expiry(settings: &StreamSettings, now_ms: i64) -> Option<i64> {
    let expires = settings.retention_ms >= 0 && settings.cleanup_policy.deletes();
    expires.then(|| now_ms.saturating_sub(settings.retention_ms))
}
