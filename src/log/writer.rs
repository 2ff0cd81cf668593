//! The one thread that writes. It merges what all partitions have queued into one atomic commit (one sync when
//! durability asks for it), then publishes: segments, tails, end offsets, answers. Several writers were measured to be
//! slower; one also makes the order of commits the order of the queue, on which everything durable rests.
//!
//! Appends that stand or fall together are a [`Group`]: however the commits before and after it are cut, one holds all of
//! it. One group is queued at a time, without waiting for anything in between, so the writer may wait for its rest.
//!
//! After a failed commit the outcome is unknown, so nothing further is written until a restart has told: every later
//! append is refused with the same error, while reads go on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::log::partition::Partition;
use crate::log::rewrite::{Rewrite, Swap};
use crate::log::tail::StoredBatch;
use crate::log::transactions::Change;
use crate::metrics::Metrics;
use crate::store::keys::Key;
use crate::store::{Batch, Family, Store, StoreError};

/// A commit takes in no more once it holds this many bytes ...
pub const COMMIT_BYTES_MAX: usize = 2 << 20;
/// ... or this many items.
const COMMIT_ITEMS_MAX: usize = 4_096;

pub type Outcome = Result<(), StoreError>;

/// A batch on its way into the log.
pub struct Append {
    pub partition: Arc<Partition>,
    pub batch: StoredBatch,
    pub change: Option<Change>,
    /// What the store gets in the place of `batch`, which readers at the end get.
    pub sealed: Option<Bytes>,
    pub max_timestamp: i64,
    pub append_ms: i64,
    pub has_producer: bool,
    pub roll: RollRules,
    pub done: oneshot::Sender<Outcome>,
}

/// When a segment ends before its epoch does.
#[derive(Clone, Copy, Debug)]
pub struct RollRules {
    pub segment_bytes: u64,
    pub segment_ms: i64,
}

enum Item {
    Append(Append),
    Meta {
        batch: Batch,
        done: oneshot::Sender<Outcome>,
    },
    /// What follows is committed with the group's end.
    BeginGroup,
    EndGroup,
    Rewrite(Rewrite),
    CloseSegment(Arc<Partition>),
    StepEpoch,
    Close {
        done: oneshot::Sender<Outcome>,
    },
    /// Everything that `producers` speak of is queued before this.
    End {
        producers: Batch,
        done: oneshot::Sender<Outcome>,
    },
    /// Nobody is left to queue or to wait.
    Abandon,
}

pub struct WriterOptions {
    /// The epoch to go on in; nothing may have been written in it yet.
    pub epoch: u32,
    pub sync: bool,
    /// Bytes of recent batches kept in memory for readers at the end, all partitions together.
    pub tail_bytes_max: usize,
}

/// What the rest of the log sees of the writer.
pub struct Writer {
    queue: Sender<Item>,
    failure: Arc<OnceLock<StoreError>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    position: Arc<Position>,
    /// Held by the one who queues a group. Taken before any lock of a stream or a partition.
    groups: Mutex<()>,
}

/// Appends that are queued while this lives are committed together, and with what closes it.
pub struct Group<'a> {
    writer: &'a Writer,
    _only: MutexGuard<'a, ()>,
}

/// Where the writer is, for those who look from outside.
#[derive(Default)]
struct Position {
    epoch: AtomicU32,
    epoch_bytes: AtomicU64,
    tail_bytes: AtomicUsize,
}

impl Writer {
    pub fn start(
        store: Arc<dyn Store>,
        options: WriterOptions,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> std::io::Result<Writer> {
        let (queue, items) = channel();
        let failure = Arc::new(OnceLock::new());
        let position = Arc::new(Position { epoch: AtomicU32::new(options.epoch), ..Position::default() });
        let held = position.clone();
        let tail_bytes = move || held.tail_bytes.load(Ordering::Relaxed);
        metrics.watch_budget("tail", options.tail_bytes_max, tail_bytes);
        let work = Work {
            store,
            items,
            position: position.clone(),
            epoch: options.epoch,
            epoch_bytes: 0,
            step_wanted: false,
            sync: options.sync,
            open: Vec::new(),
            tails: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max: options.tail_bytes_max,
            failure: failure.clone(),
            queue: queue.clone(),
            metrics,
            clock,
        };
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || work.run())?;
        Ok(Writer { queue, failure, thread: Mutex::new(Some(thread)), position, groups: Mutex::new(()) })
    }

    /// Queues a batch. The caller holds its partition's append lock, so that the queue has the partition's order.
    pub fn append(&self, append: Append) {
        self.send(Item::Append(append));
    }

    /// Queues changes of the catalogue. Calls are committed in their order, with appends in between.
    pub fn commit_meta(&self, batch: Batch) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        self.send(Item::Meta { batch, done });
        outcome
    }

    /// Begins a group. Until it is closed its caller appends, and waits for nothing.
    pub fn group(&self) -> Group<'_> {
        let only = self.groups.lock();
        self.send(Item::BeginGroup);
        Group { writer: self, _only: only }
    }

    pub fn rewrite(&self, rewrite: Rewrite) {
        self.send(Item::Rewrite(rewrite));
    }

    /// Ends the partition's open segment, behind what is queued.
    pub fn close_segment(&self, partition: Arc<Partition>) {
        self.send(Item::CloseSegment(partition));
    }

    /// Why nothing is written any more, if so.
    pub fn failure(&self) -> Option<&StoreError> {
        self.failure.get()
    }

    /// The epoch that appends go to now.
    pub fn epoch(&self) -> u32 {
        self.position.epoch.load(Ordering::Acquire)
    }

    /// Bytes appended in that epoch so far.
    pub fn epoch_bytes(&self) -> u64 {
        self.position.epoch_bytes.load(Ordering::Acquire)
    }

    /// Ends the epoch early, so that what is dead in it can be dropped.
    pub fn step_epoch(&self) {
        self.send(Item::StepEpoch);
    }

    /// Writes what is queued, closes all segments, so that the next start reads no batch, and closes the store.
    pub async fn close(&self) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.send(Item::Close { done });
        let outcome = outcome.await.unwrap_or_else(|_| Err(gone()));
        if let Some(thread) = self.thread.lock().take() {
            // The thread has answered, so it is about to end.
            let _ = thread.join();
        }
        outcome
    }

    /// When the writer has ended, the item is dropped and with it its `done`: the waiter is told by that.
    fn send(&self, item: Item) {
        let _ = self.queue.send(item);
    }
}

impl Group<'_> {
    /// Ends the group with `meta`: the outcome is that of all of it.
    pub fn close(self, meta: Batch) -> oneshot::Receiver<Outcome> {
        let outcome = self.writer.commit_meta(meta);
        drop(self);
        outcome
    }
}

/// The writer waits for a group's end, so there is one whatever becomes of who queues it.
impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.writer.send(Item::EndGroup);
    }
}

/// A broker that is dropped without a close leaves what a killed one does, but not its thread.
impl Drop for Writer {
    fn drop(&mut self) {
        self.send(Item::Abandon);
    }
}

/// What a waiter gets when the writer ended before its turn.
pub fn gone() -> StoreError {
    StoreError::NotDone("the log is closed".into())
}

struct Work {
    store: Arc<dyn Store>,
    items: Receiver<Item>,
    position: Arc<Position>,
    epoch: u32,
    epoch_bytes: usize,
    step_wanted: bool,
    sync: bool,
    /// Partitions that have had an open segment in this epoch; those that were closed and opened again stand more than once.
    open: Vec<Arc<Partition>>,
    /// Which partition holds the oldest batch in memory, in order, with its bytes.
    tails: VecDeque<(Arc<Partition>, usize)>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    failure: Arc<OnceLock<StoreError>>,
    queue: Sender<Item>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// One commit being put together.
#[derive(Default)]
struct Commit {
    batch: Batch,
    bytes: usize,
    appends: Vec<Append>,
    swaps: Vec<Swap>,
    others: Vec<oneshot::Sender<Outcome>>,
}

/// How the thread ends.
enum End {
    Close { producers: Batch, done: oneshot::Sender<Outcome> },
    Abandon,
}

impl Work {
    fn run(mut self) {
        while let Ok(first) = self.items.recv() {
            let (commit, end) = self.gather(first);
            self.finish(commit);
            if (self.step_wanted || self.store.epoch_is_full(self.epoch_bytes)) && self.failure.get().is_none() {
                self.step_epoch();
            }
            match end {
                None => {}
                Some(End::Close { producers, done }) => {
                    let outcome = self.close(producers);
                    let _ = done.send(outcome);
                    return;
                }
                Some(End::Abandon) => return,
            }
        }
    }

    /// Takes in what is queued, up to the bounds, or up to the end.
    fn gather(&mut self, first: Item) -> (Commit, Option<End>) {
        let mut commit = Commit::default();
        let mut next = Some(first);
        let (mut in_group, mut end) = (false, None);
        while let Some(item) = next.take() {
            match item {
                Item::Append(append) => self.take_append(&mut commit, append),
                Item::Meta { batch, done } => {
                    commit.batch.ops.extend(batch.ops);
                    commit.others.push(done);
                }
                Item::Rewrite(rewrite) => self.take_rewrite(&mut commit, rewrite),
                Item::CloseSegment(partition) => partition.close_segment(&mut commit.batch),
                Item::BeginGroup => in_group = true,
                Item::EndGroup => in_group = false,
                // The next turn steps, once what was queued before is written.
                Item::StepEpoch => self.step_wanted = self.epoch_bytes > 0 || commit.bytes > 0,
                Item::Close { done } => self.begin_close(done),
                Item::End { producers, done } => end = Some(End::Close { producers, done }),
                Item::Abandon => end = Some(End::Abandon),
            }
            if in_group {
                next = self.items.recv().ok();
                continue;
            }
            if end.is_some() {
                break;
            }
            if commit.bytes >= COMMIT_BYTES_MAX || commit.appends.len() + commit.others.len() >= COMMIT_ITEMS_MAX {
                break;
            }
            next = self.items.try_recv().ok();
        }
        (commit, end)
    }

    fn take_append(&mut self, commit: &mut Commit, mut append: Append) {
        let batch_bytes = append.batch.batch_len() as u64;
        let opened = append.partition.extend_segments(self.epoch, &append, batch_bytes, &mut commit.batch);
        if opened {
            self.open.push(append.partition.clone());
        }
        if let Some(change) = &append.change {
            change.store(append.partition.id, &mut commit.batch);
        }
        let key =
            Key::Batch { epoch: self.epoch, partition: append.partition.id, base_offset: append.batch.base_offset };
        let value = append.sealed.take().unwrap_or_else(|| append.batch.value.clone());
        commit.bytes += value.len();
        commit.batch.put(Family::Log, key.encode(), value);
        commit.appends.push(append);
    }

    fn take_rewrite(&mut self, commit: &mut Commit, rewrite: Rewrite) {
        if let Some(swap) = rewrite.partition.plan_rewrite(self.epoch, &rewrite.new, &mut commit.batch) {
            commit.bytes += rewrite.new.kept.iter().map(|batch| batch.value.len()).sum::<usize>();
            commit.swaps.push(swap);
        }
        commit.others.push(rewrite.done);
    }

    /// Commits, publishes and answers.
    fn finish(&mut self, commit: Commit) {
        let Commit { batch, appends, swaps, others, .. } = commit;
        let outcome = match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None if batch.is_empty() => Ok(()),
            None => self.commit(&batch, appends.len()),
        };
        self.epoch_bytes += batch.log_bytes();
        self.position.epoch_bytes.store(self.epoch_bytes as u64, Ordering::Release);
        if outcome.is_ok() {
            for append in &appends {
                append.partition.publish(append.batch.clone(), append.change.as_ref());
                self.tail_bytes += append.batch.value.len();
                self.tails.push_back((append.partition.clone(), append.batch.value.len()));
            }
            self.shrink_tails();
            self.position.tail_bytes.store(self.tail_bytes, Ordering::Relaxed);
            swaps.into_iter().for_each(Swap::apply);
        }
        // A waiter that has gone (its connection closed) does not matter.
        for done in appends.into_iter().map(|append| append.done).chain(others) {
            let _ = done.send(outcome.clone());
        }
    }

    fn commit(&self, batch: &Batch, batches: usize) -> Outcome {
        let begun = self.clock.tick_micros();
        let outcome = self.store.commit(batch, self.sync);
        self.metrics.store_commit((self.clock.tick_micros() - begun) as f64 / 1e6, batches);
        if let Err(error) = &outcome {
            tracing::error!(%error, "a commit failed; nothing more is written until a restart");
            // Set once: this thread alone writes it, and only after finding it empty.
            let _ = self.failure.set(error.clone());
        }
        outcome
    }

    fn shrink_tails(&mut self) {
        while self.tail_bytes > self.tail_bytes_max {
            let Some((partition, bytes)) = self.tails.pop_front() else { return };
            partition.drop_oldest_of_tail();
            self.tail_bytes -= bytes;
        }
    }

    /// Ends the epoch: commits the summaries of its segments, then has the store close its memtable.
    fn step_epoch(&mut self) {
        let mut batch = Batch::default();
        let open = std::mem::take(&mut self.open);
        for partition in &open {
            partition.close_segment(&mut batch);
        }
        self.epoch += 1;
        batch.put(Family::Meta, Key::Epoch.encode(), Bytes::copy_from_slice(&self.epoch.to_be_bytes()));
        if self.commit(&batch, 0).is_err() {
            return;
        }
        self.epoch_bytes = 0;
        self.step_wanted = false;
        self.position.epoch_bytes.store(0, Ordering::Release);
        self.position.epoch.store(self.epoch, Ordering::Release);
        if let Err(error) = self.store.roll() {
            // Nothing is lost: the memtable is closed later by the store itself.
            tracing::warn!(%error, "a memtable could not be closed");
        }
        self.queue_producer_snapshots(&open);
    }

    /// Queues, behind what is queued already, what each partition knows of its producers by then: a snapshot never
    /// speaks of batches that are not committed before it.
    fn queue_producer_snapshots(&self, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            partition.snapshot_producers(|batch| {
                let (done, _) = oneshot::channel();
                // The queue's other end is this thread's own.
                let _ = self.queue.send(Item::Meta { batch, done });
            });
        }
    }

    /// What is known of producers runs ahead of what is written: it is taken now, and stored when everything is that was
    /// queued by now. What comes after may be lost, and its senders are told so: then nobody may take it for known when it
    /// comes again.
    fn begin_close(&self, done: oneshot::Sender<Outcome>) {
        let mut producers = Batch::default();
        for partition in &self.open {
            partition.snapshot_producers(|snapshot| producers.ops.extend(snapshot.ops));
        }
        // The queue's other end is this thread's own.
        let _ = self.queue.send(Item::End { producers, done });
    }

    fn close(&mut self, producers: Batch) -> Outcome {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        let mut batch = producers;
        for partition in std::mem::take(&mut self.open) {
            partition.close_segment(&mut batch);
        }
        self.store.commit(&batch, true)?;
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn a_writer_that_is_dropped_leaves_no_thread_and_no_store_behind() {
        let store = Arc::new(MemoryStore::new());
        let options = WriterOptions { epoch: 1, sync: false, tail_bytes_max: 0 };
        let writer = Writer::start(store.clone(), options, Metrics::new(10), Clock::manual(0)).unwrap();
        let mut batch = Batch::default();
        batch.put(Family::Meta, "queued", "before");
        let outcome = writer.commit_meta(batch);
        let thread = writer.thread.lock().take().unwrap();
        drop(writer);
        thread.join().unwrap();
        assert!(outcome.blocking_recv().unwrap().is_ok());
        assert_eq!(Arc::strong_count(&store), 1);
    }
}
