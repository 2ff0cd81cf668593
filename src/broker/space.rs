//! Giving disk space back. An epoch in which nothing is alive is dropped as files; one that a few long-lived partitions
//! keep is moved on into the current epoch once the disk holds far more than what is alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::broker::read::blocking;
use crate::broker::{Broker, durable};
use crate::log::disk::{DiskBatch, scan_segment};
use crate::log::partition::Partition;
use crate::log::rewrite::{New, Rewrite};
use crate::log::segment::Segment;
use crate::model::ids::Offset;
use crate::store::StoreError;

/// Bytes of a segment that move in one commit.
const MOVE_BYTES_MAX: usize = 4 << 20;
/// Files may hold this many times what is alive, and some epochs more, before anything moves.
const WASTE_FACTOR: u64 = 2;
const WASTE_EPOCHS: u64 = 3;

/// The one turn to change what closed segments there are, other than by adding one: whoever rewrites has it from reading
/// to the commit, whoever trims for a moment.
pub(super) struct Turn(Semaphore);

impl Default for Turn {
    fn default() -> Turn {
        Turn(Semaphore::new(1))
    }
}

impl Turn {
    /// Waits for the turn, which is over when the answer is dropped.
    pub async fn take(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so the turn always comes.
        self.0.acquire().await.ok()
    }
}

/// Batches of a closed segment, from its first on.
pub(super) struct Run {
    pub segment: Segment,
    pub batches: Vec<DiskBatch>,
    /// One past the last offset of the batches.
    pub until: Offset,
}

impl Run {
    /// Where each batch begins, and its bytes.
    pub fn read(&self) -> Vec<(Offset, u64)> {
        self.batches.iter().map(|batch| (batch.base_offset, batch.batch_len() as u64)).collect()
    }
}

impl Broker {
    /// Drops what is dead, and moves a little of what is in its way. Called after retention moved log starts.
    pub async fn reclaim(&self) -> Result<(), StoreError> {
        let current = self.writer.epoch();
        let alive = self.alive();
        if self.dead_in(current, &alive) >= self.store.epoch_bytes_max() as u64 / 4 {
            // Nothing of the current epoch can be dropped; ending it lets the next look do so.
            self.writer.step_epoch();
        }
        // A kill must not bring back what made epochs dead when their files are gone.
        self.settled().await?;
        let (store, dead) = (self.store.clone(), dead_epochs(alive.keys().copied(), current));
        let held_bytes = blocking(move || {
            for (from, to) in dead {
                store.drop_range(&from.to_be_bytes(), &to.to_be_bytes())?;
            }
            Ok::<u64, StoreError>(store.figures().file_bytes)
        })
        .await??;
        let alive_bytes: u64 = alive.values().sum();
        let epoch_bytes = self.store.epoch_bytes_max() as u64;
        if held_bytes <= WASTE_FACTOR * alive_bytes + WASTE_EPOCHS * epoch_bytes {
            return Ok(());
        }
        match alive.range(..current).min_by_key(|(_, bytes)| **bytes) {
            Some((epoch, bytes)) if *bytes < epoch_bytes / WASTE_FACTOR => self.move_on(*epoch).await,
            _ => Ok(()),
        }
    }

    /// Bytes alive in each epoch that has any.
    fn alive(&self) -> BTreeMap<u32, u64> {
        let mut epochs = BTreeMap::new();
        for partition in self.streams_in_any_state().iter().flat_map(|stream| stream.partitions()) {
            partition.with_segments(|segments| {
                segments.for_each(|segment| *epochs.entry(segment.epoch).or_default() += segment.bytes);
            });
        }
        epochs
    }

    /// Bytes in the current epoch that nobody can read any more.
    fn dead_in(&self, current: u32, alive: &BTreeMap<u32, u64>) -> u64 {
        let alive = alive.get(&current).copied().unwrap_or(0);
        self.writer.epoch_bytes().saturating_sub(alive)
    }

    /// Copies what is alive in `epoch` into the current one, piece by piece.
    async fn move_on(&self, epoch: u32) -> Result<(), StoreError> {
        let of_epoch = |partition: Arc<Partition>| {
            let segments: Vec<Segment> = partition
                .with_segments(|segments| segments.filter(|segment| segment.epoch == epoch).cloned().collect());
            segments.into_iter().map(move |segment| (partition.clone(), segment))
        };
        let partitions = self.streams_in_any_state().into_iter().flat_map(|stream| stream.partitions());
        for (partition, segment) in partitions.flat_map(of_epoch).collect::<Vec<_>>() {
            let mut next = segment.first_offset;
            while next < segment.end_offset {
                let _turn = self.rewriting.take().await;
                let run = self.closed_run(&partition, next, MOVE_BYTES_MAX).await?;
                let Some(run) = run.filter(|run| run.segment.epoch == epoch) else { break };
                next = run.until;
                let (from, until, read, kept) = (run.segment.first_offset, run.until, run.read(), run.batches);
                let new = New { from, read, until, kept, markers_gone: Vec::new(), join_bytes_max: 0 };
                self.rewrite(&partition, new).await?;
            }
        }
        Ok(())
    }

    /// Some batches of the closed segment that holds `offset` or is the first behind it, from its first on; `None` where
    /// no closed segment follows. The caller has the turn.
    pub(super) async fn closed_run(
        &self,
        partition: &Arc<Partition>,
        offset: Offset,
        bytes_max: usize,
    ) -> Result<Option<Run>, StoreError> {
        let Some(segment) = partition.closed_from(offset) else { return Ok(None) };
        let (store, id) = (self.store.clone(), partition.id);
        blocking(move || {
            let batches =
                scan_segment(&*store, id, &segment, segment.first_offset, segment.end_offset, bytes_max)?.batches;
            // None are there where the stream is being deleted.
            let until = batches.last().map(|last| last.last_offset + 1);
            Ok(until.map(|until| Run { segment, batches, until }))
        })
        .await?
    }

    /// Has something take the place of a run; returns when that is committed. The caller has the turn since it read the run.
    pub(super) async fn rewrite(&self, partition: &Arc<Partition>, new: New) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        self.writer.rewrite(Rewrite { partition: partition.clone(), new, done });
        durable(outcome).await
    }

    /// Moves a partition's log start to `offset`, at most its end; returns the start when it is durable.
    pub async fn trim(&self, partition: &Partition, offset: Offset) -> Result<Offset, StoreError> {
        let mut done = None;
        {
            let _turn = self.rewriting.take().await;
            if partition.trims_producers(offset) {
                // What recovery would have read from the batches that go: queued before they do.
                partition.snapshot_producers(|batch| drop(self.writer.commit_meta(batch)));
            }
            let freed = partition.trim(offset, |batch| done = Some(self.writer.commit_meta(batch)));
            self.metrics.retention_deleted(freed);
        }
        if let Some(done) = done {
            durable(done).await?;
        }
        Ok(partition.log_start())
    }
}

/// The longest runs `from..to` of epochs before `current` that are not among `alive` (ascending).
fn dead_epochs(alive: impl Iterator<Item = u32>, current: u32) -> Vec<(u32, u32)> {
    let mut runs = Vec::new();
    let mut from = 0;
    for epoch in alive.take_while(|epoch| *epoch < current).chain([current]) {
        if from < epoch {
            runs.push((from, epoch));
        }
        from = epoch + 1;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_epochs_are_those_between_the_living_and_before_the_current_one() {
        assert_eq!(dead_epochs([].into_iter(), 0), []);
        assert_eq!(dead_epochs([].into_iter(), 3), [(0, 3)]);
        assert_eq!(dead_epochs([1, 2, 5].into_iter(), 7), [(0, 1), (3, 5), (6, 7)]);
        assert_eq!(dead_epochs([7].into_iter(), 7), [(0, 7)]);
    }
}
