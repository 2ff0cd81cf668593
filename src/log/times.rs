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

/// A batch that a search came to.
struct Found {
    base_offset: Offset,
    /// Inclusive.
    last_offset: Offset,
    appended_ms: i64,
}

impl Partition {
    /// Whether all that can be read was appended at `ms` or later, as far as memory knows.
    pub fn begins_at_or_after(&self, ms: i64) -> bool {
        let index = self.index.read();
        index.oldest_append_ms >= ms || index.live().next().is_none_or(|first| first.first_append_ms >= ms)
    }

    /// When the oldest record that can be read was appended, or somewhat before; `None` where there is none.
    pub fn oldest_append_ms(&self) -> Option<i64> {
        let index = self.index.read();
        let first = index.live().next().filter(|_| index.log_start < self.end_offset())?;
        Some(index.oldest_append_ms.max(first.first_append_ms))
    }

    /// When the segment was begun that holds `offset` or is the first behind it.
    pub fn segment_begun_ms(&self, offset: Offset) -> Option<i64> {
        let index = self.index.read();
        index.live().find(|segment| offset < segment.end_offset).map(|segment| segment.first_append_ms)
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
        // What lies before `from` is older than `ms`, what lies from `until` on is not. Compaction leaves offsets at which
        // nothing stands any more.
        let (mut from, mut until) = (segment.first_offset.max(self.log_start()), segment.end_offset.min(end));
        let mut found = Sought { offset: until, append_ms: None };
        while from < until {
            let middle = from + (until - from) / 2;
            match self.first_from(store, middle, until)? {
                // Nothing stands there, or it was trimmed meanwhile.
                None => until = middle,
                Some(first) if first.appended_ms >= ms => {
                    found = Sought { offset: first.base_offset, append_ms: Some(first.appended_ms) };
                    until = middle.min(first.base_offset);
                }
                Some(first) => from = first.last_offset + 1,
            }
        }
        found.offset = found.offset.max(self.log_start());
        Ok(if found.offset < end { found } else { nothing })
    }

    /// The batch that holds `offset`, or the first behind it, if it begins before `until`.
    fn first_from(&self, store: &dyn Store, offset: Offset, until: Offset) -> Result<Option<Found>, StoreError> {
        let mut looked: Option<Segment> = None;
        loop {
            if let Some(batch) = self.index.read().tail.first_from(offset) {
                let (base_offset, last_offset) = (batch.base_offset, batch.last_offset);
                let found = Found { base_offset, last_offset, appended_ms: batch.append_time_ms() };
                return Ok(Some(found).filter(|found| found.base_offset < until));
            }
            // A segment that has moved is looked for once more where it is now.
            let segment = self.segment_from(offset).filter(|segment| segment.first_offset < until);
            let Some(segment) = segment.filter(|now| looked.as_ref().is_none_or(|before| !before.is_where(now))) else {
                return Ok(None);
            };
            let from = offset.max(segment.first_offset);
            if let Some(batch) = scan_segment(store, self.id, &segment, from, until, 1)?.batches.first() {
                let (base_offset, last_offset) = (batch.base_offset, batch.last_offset);
                return Ok(Some(Found { base_offset, last_offset, appended_ms: batch.stored.append_time_ms }));
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
