//! A stream goes: at once, or in a while, during which it is shown as being deleted and can be read and written still.
//! A deletion that has begun is stored, so that a restart does not lose it; `reaper` carries it out when it is due.

use super::CatalogError;
use crate::broker::{Broker, Stream, durable};
use crate::model::attributes::{Passing, Transition};
use crate::store::keys::{Key, prefix_range};
use crate::store::{Batch, Family, StoreError};

impl Broker {
    /// Deletes a stream with all it holds; returns when that is durable. The disk space follows with the reaper.
    pub async fn delete_stream(&self, stream: &Stream) -> Result<(), CatalogError> {
        let done = {
            let _changes = self.catalog.changes.lock();
            if stream.is_deleted() {
                return Err(CatalogError::NotFound);
            }
            stream.mark_deleted();
            self.catalog.by_name.remove(&stream.name);
            self.catalog.by_topic_id.remove(&stream.topic_id);
            self.catalog.note_change();
            self.metrics.forget_stream(&stream.metrics);
            self.keys.forget(stream.id);
            self.compactor.forget(stream.id);
            let mut batch = Batch::default();
            batch.delete(Family::Meta, Key::Stream(stream.id).encode());
            batch.delete(Family::Meta, Key::Traffic(stream.id).encode());
            for kind in [b'g', b'k', b'l', b'p', b'o', b'A', b'C'] {
                let (from, to) = prefix_range(&[&[kind][..], &stream.id.0.to_be_bytes()].concat());
                batch.delete_range(from, to);
            }
            self.writer.commit_meta(batch)
        };
        let deleted = durable(done).await;
        self.catalog.deletions.send_modify(|count| *count += 1);
        Ok(deleted?)
    }

    /// Has a stream deleted at `until_ms`, at once where that is not in the future; returns when that is durable. To begin
    /// again changes nothing.
    pub async fn begin_deletion(&self, stream: &Stream, until_ms: i64) -> Result<(), CatalogError> {
        if until_ms <= self.clock.now_ms() {
            return self.delete_stream(stream).await;
        }
        let passing = Passing { transition: Transition::Deleting, until_ms };
        let begun = self
            .change_stream(stream, |draft| {
                match draft.attributes.passing {
                    Some(Passing { transition: Transition::Deleting, .. }) => {}
                    _ => draft.attributes.passing = Some(passing),
                }
                Ok(())
            })
            .await;
        self.catalog.deletions.send_modify(|count| *count += 1);
        begun
    }

    /// Wakes when a deletion has begun or was carried out.
    pub fn watch_deletions(&self) -> tokio::sync::watch::Receiver<u64> {
        self.catalog.deletions.subscribe()
    }

    /// Carries out the deletions that are due. Returns when the next one is, if there is one.
    pub async fn finish_deletions(&self) -> Result<Option<i64>, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut next_ms: Option<i64> = None;
        for stream in self.streams_in_any_state() {
            match stream.attributes().passing {
                Some(Passing { transition: Transition::Deleting, until_ms }) if until_ms > now_ms => {
                    next_ms = Some(next_ms.map_or(until_ms, |next| next.min(until_ms)));
                }
                Some(Passing { transition: Transition::Deleting, .. }) => {
                    // Any other error means that someone else was quicker.
                    if let Err(CatalogError::Store(error)) = self.delete_stream(&stream).await {
                        return Err(error);
                    }
                }
                _ => {}
            }
        }
        Ok(next_ms)
    }
}
