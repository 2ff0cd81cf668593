//! Finding batches by when they were appended: the log's own clock, which never goes back within a partition, so that
//! a few looks are enough. Called by `broker` for retention and for readers that begin at a time.

use crate::log::disk::scan_segment;
use crate::log::partition::Partition;
use crate::log::segment::Segment;
use crate::model::ids::Offset;
use crate::store::{Store, StoreError};

/// The first committed batch that was appended at a time or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Of the batch, or the log's start where that lies inside it; the end of the log if there is no such batch.
    pub offset: Offset,
    /// No later than the batch's append; none if there is no such batch.
    pub append_ms: Option<i64>,
}

impl Partition {
    /// Whether all that can be read was appended at `ms` or later, as far as memory knows.
    pub fn begins_at_or_after(&self, ms: i64) -> bool {
        let index = self.index.read();
        index.oldest_append_ms >= ms || index.live().next().is_none_or(|first| first.first_append_ms >= ms)
    }

    /// The first batch appended at `ms` or later; none if that takes a look into the store.
    pub fn seek_hot(&self, ms: i64) -> Option<Sought> {
        let end = self.end_offset();
        let index = self.index.read();
        let at = |offset: Offset, append_ms| match offset < end {
            true => Sought { offset, append_ms: Some(append_ms) },
            false => Sought { offset: end, append_ms: None },
        };
        let Some(segment) = index.live().find(|segment| segment.last_append_ms >= ms) else {
            return Some(Sought { offset: end, append_ms: None });
        };
        if index.oldest_append_ms >= ms {
            return Some(at(index.log_start, index.oldest_append_ms));
        }
        if segment.first_append_ms >= ms {
            return Some(at(segment.first_offset.max(index.log_start), segment.first_append_ms));
        }
        let batch = index.tail.first_appended_at(ms)?;
        Some(at(batch.base_offset.max(index.log_start), batch.append_time_ms()))
    }

    /// The same from the store. Blocks.
    pub fn seek_cold(&self, store: &dyn Store, ms: i64) -> Result<Sought, StoreError> {
        let end = self.end_offset();
        let nothing = Sought { offset: end, append_ms: None };
        let Some(segment) = self.segments().into_iter().find(|segment| segment.last_append_ms >= ms) else {
            return Ok(nothing);
        };
        // What lies before `from` is older than `ms`, what lies from `until` on is not.
        let (mut from, mut until) = (segment.first_offset.max(self.log_start()), segment.end_offset.min(end));
        let mut append_ms = None;
        while from < until {
            let middle = from + (until - from) / 2;
            let Some((first, last, appended_ms)) = self.holding(store, middle)? else {
                // Trimmed meanwhile, or deleted.
                from = from.max(self.log_start()).max(middle + 1);
                continue;
            };
            match appended_ms >= ms {
                true => (until, append_ms) = (first, Some(appended_ms)),
                false => from = last + 1,
            }
        }
        Ok(if from < end { Sought { offset: from, append_ms } } else { nothing })
    }

    /// First and last offset and append time of the batch that holds `offset`; none if it is no longer there.
    fn holding(&self, store: &dyn Store, offset: Offset) -> Result<Option<(Offset, Offset, i64)>, StoreError> {
        let mut looked: Option<Segment> = None;
        loop {
            if let Some(batch) = self.index.read().tail.holding(offset) {
                return Ok(Some((batch.base_offset, batch.last_offset, batch.append_time_ms())));
            }
            // A segment that has moved is looked for once more where it is now.
            let segment = self.segment_from(offset).filter(|segment| segment.first_offset <= offset);
            let Some(segment) = segment.filter(|now| looked.as_ref().is_none_or(|before| before.epoch != now.epoch))
            else {
                return Ok(None);
            };
            if let Some(batch) = scan_segment(store, self.id, &segment, offset, offset + 1, 1)?.first() {
                return Ok(Some((batch.base_offset, batch.last_offset, batch.stored.append_time_ms)));
            }
            looked = Some(segment);
        }
    }

    /// Notes that nothing that can be read was appended before `ms`.
    pub fn note_oldest(&self, ms: i64) {
        let mut index = self.index.write();
        index.oldest_append_ms = index.oldest_append_ms.max(ms);
    }
}
