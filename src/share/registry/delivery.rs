//! Records out and acknowledgements in.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::{Group, Share, Shares};
use crate::broker::Stream;
use crate::log::partition::{Partition, ReadError};
use crate::log::tail::StoredBatch;
use crate::log::transactions::Aborted;
use crate::model::batch::Header;
use crate::model::ids::{Offset, PartitionId, PartitionIndex};
use crate::model::settings::group::OffsetReset;
use crate::share::partition::{AckBatch, Acquire, Acquired, Bounds, LogBatch, SharePartition};
use crate::share::{DeliveryError, ShareError};

/// Bytes of the log that are read at a time: a member wants some hundred records, not all that there are.
const READ_BYTES: usize = 1 << 20;

/// What a member wants of one share partition.
#[derive(Clone, Debug)]
pub struct Want {
    pub member_id: Arc<str>,
    pub records_max: i64,
    /// Never more records than that; else whole batches.
    pub exact: bool,
    /// An acquired range ends with the batch that brings it to this many records. 0: no matter how long.
    pub range_records: i64,
    pub bytes_max: usize,
    /// The first batch comes whatever its size.
    pub first_anyway: bool,
}

/// What a member got.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Whole batches; what of them is the member's says `acquired`.
    pub batches: Vec<StoredBatch>,
    pub acquired: Vec<Acquired>,
    pub bytes: usize,
}

impl Delivery {
    pub fn records(&self) -> i64 {
        self.acquired.iter().map(|range| range.last - range.first + 1).sum()
    }

    fn add(&mut self, page: &[StoredBatch], acquired: Vec<Acquired>) {
        for batch in page {
            let holds = |range: &Acquired| range.first <= batch.last_offset && batch.base_offset <= range.last;
            let known = self.batches.last().is_some_and(|last| last.base_offset >= batch.base_offset);
            if !known && acquired.iter().any(holds) {
                self.bytes += batch.batch_len();
                self.batches.push(batch.clone());
            }
        }
        self.acquired.extend(acquired);
    }
}

impl Shares {
    pub(super) fn bounds_of(&self, group_id: &str) -> Bounds {
        let settings = self.settings_of(group_id);
        Bounds { locks_max: settings.locks_max, deliveries_max: settings.deliveries_max }
    }

    /// The share partition, if the group has begun with it.
    pub fn share(&self, group_id: &str, id: PartitionId) -> Option<Arc<Share>> {
        self.find(group_id)?.state.lock().shares.get(&id).cloned()
    }

    /// The same; the group begins with it where its settings say.
    pub async fn begin(
        self: &Arc<Self>,
        group_id: &str,
        stream: &Stream,
        index: PartitionIndex,
    ) -> Result<Arc<Share>, DeliveryError> {
        let group = self.find(group_id).ok_or(ShareError::GroupIdNotFound)?;
        let log = stream.partition(index).ok_or(ShareError::UnknownTopicOrPartition)?;
        if let Some(share) = group.state.lock().shares.get(&log.id) {
            return Ok(share.clone());
        }
        let start = self.reset_offset(group_id, &log).await?;
        let (share, version) = self.insert_share(&group, log.id, start)?;
        // Where it begins must not move with a restart.
        share.stored(version).await?;
        Ok(share)
    }

    fn insert_share(
        self: &Arc<Self>,
        group: &Group,
        id: PartitionId,
        start: Offset,
    ) -> Result<(Arc<Share>, u64), ShareError> {
        let mut state = group.state.lock();
        state.check_open()?;
        match state.shares.entry(id) {
            // Someone was quicker.
            Entry::Occupied(entry) => Ok((entry.get().clone(), entry.get().state.lock().version())),
            Entry::Vacant(entry) => {
                let partition = SharePartition::new(start);
                let share = entry
                    .insert(Arc::new(Share::new(group.id.clone(), id, self.metrics_of(&group.id), partition.clone())))
                    .clone();
                let version = self.replace(&share, partition);
                Ok((share, version))
            }
        }
    }

    async fn reset_offset(&self, group_id: &str, log: &Arc<Partition>) -> Result<Offset, ReadError> {
        match self.settings_of(group_id).reset {
            OffsetReset::Earliest => Ok(log.log_start()),
            OffsetReset::Latest => Ok(log.end_offset()),
            OffsetReset::ByDuration(age_ms) => {
                let (since, end) = (self.clock.now_ms().saturating_sub(age_ms), log.end_offset());
                Ok(self.broker.offset_at_time(log, since, end).await?.map_or(end, |found| found.offset))
            }
        }
    }

    /// Where the next delivery begins to look; `None` while the group holds as much of the partition as it may.
    pub fn next_offset(&self, share: &Share) -> Option<Offset> {
        let bounds = self.bounds_of(&share.group_id);
        share.state.lock().partition.next_offset(bounds)
    }

    /// Up to where a group may read now.
    pub fn readable_end(&self, group_id: &str, log: &Partition) -> Offset {
        if self.settings_of(group_id).read_committed { log.last_stable_offset() } else { log.end_offset() }
    }

    /// Acquires records before `end` for a member. Empty if there is nothing to acquire now: see [`Share::watch`] and the
    /// log's end.
    pub async fn acquire(
        self: &Arc<Self>,
        share: &Arc<Share>,
        log: &Arc<Partition>,
        end: Offset,
        want: &Want,
    ) -> Result<Delivery, DeliveryError> {
        let bounds = self.bounds_of(&share.group_id);
        let mut delivery = Delivery::default();
        let version = {
            let _turn = share.turn.lock().await;
            while let Some(from) = self.next_of_log(share, log, bounds)? {
                let room = want.bytes_max.saturating_sub(delivery.bytes);
                let first = want.first_anyway && delivery.bytes == 0;
                let enough = delivery.records() >= want.records_max || (room == 0 && !first);
                if from >= end || enough {
                    break;
                }
                let mut page = self.page(log, from, end, room.min(READ_BYTES)).await?;
                if !first && page.first().is_some_and(|batch| batch.batch_len() > room) {
                    page.clear();
                }
                if !self.take((share, log), from, &page, want, bounds, &mut delivery)? {
                    break;
                }
            }
            share.state.lock().version()
        };
        // What the delivery rests on, above all that others gave these records back, must not be lost by a crash: the
        // records would count as delivered less often than they were.
        if !delivery.acquired.is_empty() {
            share.stored(version).await?;
        }
        Ok(delivery)
    }

    /// Where to read on; what is no longer in the log is left behind.
    fn next_of_log(
        self: &Arc<Self>,
        share: &Arc<Share>,
        log: &Partition,
        bounds: Bounds,
    ) -> Result<Option<Offset>, ShareError> {
        let log_start = log.log_start();
        let mut state = share.state.lock();
        if state.gone {
            return Err(ShareError::UnknownTopicOrPartition);
        }
        let changed = state.partition.trim(log_start);
        self.changed(share, &mut state, changed);
        Ok(state.partition.next_offset(bounds))
    }

    /// Batches from `from` on. Empty if the log was trimmed beyond it meanwhile: the next look sees that.
    async fn page(
        &self,
        log: &Arc<Partition>,
        from: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, ReadError> {
        match self.broker.read(log, from, end, bytes_max).await {
            Err(ReadError::OutOfRange { log_start, .. }) if log_start > from => Ok(Vec::new()),
            page => page,
        }
    }

    /// Acquires from a page. True if there may be more.
    fn take(
        self: &Arc<Self>,
        (share, log): (&Arc<Share>, &Partition),
        from: Offset,
        page: &[StoredBatch],
        want: &Want,
        bounds: Bounds,
        delivery: &mut Delivery,
    ) -> Result<bool, ShareError> {
        let settings = self.settings_of(&share.group_id);
        let aborted = match (page.first(), page.last()) {
            (Some(first), Some(last)) if settings.read_committed => {
                log.aborted_within(first.base_offset, last.last_offset + 1)
            }
            _ => Vec::new(),
        };
        let batches = page.iter().map(|batch| log_batch(batch, &aborted));
        let acquire = Acquire {
            member: &want.member_id,
            records_max: want.records_max - delivery.records(),
            exact: want.exact,
            range_records: want.range_records,
            until_ms: self.clock.tick_ms().saturating_add(settings.lock_duration_ms),
        };
        let mut state = share.state.lock();
        if state.gone {
            return Err(ShareError::UnknownTopicOrPartition);
        }
        let (acquired, changed) = state.partition.acquire(from, batches, &acquire, bounds);
        self.changed(share, &mut state, changed);
        if !acquired.is_empty() {
            self.schedule_share(share, &mut state, acquire.until_ms);
        }
        let moved = state.partition.next_offset(bounds).is_some_and(|next| next > from);
        drop(state);
        share.metrics.delivered(acquired.iter().map(|range| range.last - range.first + 1).sum());
        delivery.add(page, acquired);
        Ok(moved)
    }

    /// Takes what a member says of records that it holds; returns when that is durable.
    pub async fn acknowledge(
        self: &Arc<Self>,
        share: &Arc<Share>,
        member_id: &str,
        batches: &[AckBatch],
    ) -> Result<(), ShareError> {
        let settings = self.settings_of(&share.group_id);
        let bounds = Bounds { locks_max: settings.locks_max, deliveries_max: settings.deliveries_max };
        let until_ms = self.clock.tick_ms().saturating_add(settings.lock_duration_ms);
        let version = {
            let mut state = share.state.lock();
            if state.gone {
                return Err(ShareError::UnknownTopicOrPartition);
            }
            let changed = state.partition.acknowledge(member_id, batches, bounds, until_ms)?;
            for (offsets, kind) in batches.iter().flat_map(AckBatch::ranges) {
                share.metrics.acknowledged(kind.name(), offsets.end - offsets.start);
            }
            self.changed(share, &mut state, changed)
        };
        share.stored(version).await
    }

    /// Gives back what a member holds of these share partitions: its session has ended.
    pub fn release(self: &Arc<Self>, group_id: &str, member_id: &str, ids: impl IntoIterator<Item = PartitionId>) {
        for id in ids {
            if let Some(share) = self.share(group_id, id) {
                self.release_in(&share, member_id);
            }
        }
    }
}

fn log_batch(stored: &StoredBatch, aborted: &[Aborted]) -> LogBatch {
    let hidden = Header::parse(&stored.batch()).is_ok_and(|header| {
        let ends = |aborted: &Aborted| {
            aborted.producer_id == header.producer_id
                && (aborted.first_offset..=aborted.last_offset).contains(&stored.base_offset)
        };
        header.is_control() || (header.is_transactional() && aborted.iter().any(ends))
    });
    LogBatch { base_offset: stored.base_offset, last_offset: stored.last_offset, deliverable: !hidden }
}
