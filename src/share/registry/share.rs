//! One share partition and what surrounds its state machine: the lock, those who wait for news, and the way to the store.
//!
//! Its stored form is small and holds everything, so it is written whole. One write is under way at a time; what changes
//! meanwhile goes with the next one, so many acknowledgements cost few writes.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Alarm, Shares};
use crate::broker::durable;
use crate::clock::fired;
use crate::metrics::ShareGroupMetrics;
use crate::model::ids::PartitionId;
use crate::share::ShareError;
use crate::share::partition::{Changed, SharePartition};
use crate::store::keys::Key;
use crate::store::{Batch, Family};

/// A share partition. Its state belongs to the registry; others hold it to wait for news of it.
pub struct Share {
    pub(super) group_id: Arc<str>,
    pub(super) id: PartitionId,
    pub(super) metrics: Arc<ShareGroupMetrics>,
    pub(super) state: Mutex<ShareState>,
    /// Held by who reads the log for a delivery, so that two do not read the same and one gets nothing. It is one for
    /// tasks: it is held while something is awaited, and nothing else is locked in the meantime but for a moment.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Counts up when there may be something to acquire that was not there before.
    news: watch::Sender<u64>,
    written: watch::Sender<Written>,
}

pub(super) struct ShareState {
    pub partition: SharePartition,
    /// Counts changes of what is stored.
    version: u64,
    writing: bool,
    /// The entry in the registry's alarms.
    pub scheduled: Option<i64>,
    /// Deleted, or about to be: nothing is written any more.
    pub gone: bool,
}

/// The last write.
#[derive(Clone, Copy)]
struct Written {
    version: u64,
    failed: bool,
}

/// What those hear who wait for a write that will not be.
const NEVER: Written = Written { version: u64::MAX, failed: true };

impl Share {
    /// As it is stored.
    pub(super) fn new(
        group_id: Arc<str>,
        id: PartitionId,
        metrics: Arc<ShareGroupMetrics>,
        partition: SharePartition,
    ) -> Share {
        Share {
            group_id,
            id,
            metrics,
            state: Mutex::new(ShareState { partition, version: 0, writing: false, scheduled: None, gone: false }),
            turn: tokio::sync::Mutex::new(()),
            news: watch::Sender::new(0),
            written: watch::Sender::new(Written { version: 0, failed: false }),
        }
    }

    fn alarm(&self) -> Alarm {
        Alarm::Share(self.group_id.clone(), self.id)
    }

    /// Wakes when there may be something to acquire that was not there before, the log's new records apart.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(super) fn note_news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Returns when `version` and everything before it is durable.
    pub(super) async fn stored(&self, version: u64) -> Result<(), ShareError> {
        let mut written = self.written.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let failed = written.wait_for(|written| written.version >= version).await.is_ok_and(|written| written.failed);
        if failed { Err(ShareError::CoordinatorNotAvailable) } else { Ok(()) }
    }
}

impl ShareState {
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl Shares {
    /// Puts another state in the place of this one; the version to wait for.
    pub(super) fn replace(self: &Arc<Self>, share: &Arc<Share>, partition: SharePartition) -> u64 {
        let mut state = share.state.lock();
        state.partition = partition;
        self.changed(share, &mut state, Changed { stored: true, room: true, archived: 0 })
    }

    /// Does what a change asks for; the version to wait for.
    pub(super) fn changed(self: &Arc<Self>, share: &Arc<Share>, state: &mut ShareState, changed: Changed) -> u64 {
        share.metrics.archived(changed.archived);
        if changed.stored {
            state.version += 1;
            self.write(share, state);
        }
        if changed.room {
            share.note_news();
        }
        state.version
    }

    /// Has the state written, now or behind the write that is under way.
    fn write(self: &Arc<Self>, share: &Arc<Share>, state: &mut ShareState) {
        if state.writing || state.gone {
            return;
        }
        state.writing = true;
        let version = state.version;
        let mut batch = Batch::default();
        let key = Key::SharePartition { group: &share.group_id, partition: share.id };
        batch.put(Family::Meta, key.encode(), state.partition.encode());
        let stored = self.broker.commit_meta(batch);
        let (shares, share) = (self.clone(), share.clone());
        tokio::spawn(async move {
            let outcome = durable(stored).await;
            if let Err(error) = &outcome {
                tracing::warn!(group_id = &*share.group_id, %error, "could not store what a share group processed");
            }
            let mut state = share.state.lock();
            state.writing = false;
            // What was acknowledged stays so here, though its client is told of a failure: the next write has it.
            let written = Written { version, failed: outcome.is_err() };
            share.written.send_replace(if state.gone { NEVER } else { written });
            if state.version > version {
                shares.write(&share, &mut state);
            }
        });
    }

    /// Takes a share partition out of service while its deletion is stored.
    pub(super) fn close(&self, share: &Share) {
        let mut state = share.state.lock();
        state.gone = true;
        if !state.writing {
            share.written.send_replace(NEVER);
        }
        self.alarms.clear(&mut state.scheduled, &share.alarm());
        drop(state);
        share.note_news();
    }

    pub(super) fn schedule_share(&self, share: &Share, state: &mut ShareState, at: i64) {
        if !state.gone {
            self.alarms.set(&mut state.scheduled, at, &share.alarm());
        }
    }

    pub(super) fn expire_locks(self: &Arc<Self>, share: &Arc<Share>, at: i64) {
        let bounds = self.bounds_of(&share.group_id);
        let mut state = share.state.lock();
        fired(&mut state.scheduled, at);
        let changed = state.partition.expire(self.clock.tick_ms(), bounds);
        self.changed(share, &mut state, changed);
        if let Some(next) = state.partition.next_expiry() {
            self.schedule_share(share, &mut state, next);
        }
    }

    /// Gives back what a member holds of one share partition.
    pub(super) fn release_in(self: &Arc<Self>, share: &Arc<Share>, member_id: &str) {
        let mut state = share.state.lock();
        let changed = state.partition.release_member(member_id);
        self.changed(share, &mut state, changed);
    }
}
