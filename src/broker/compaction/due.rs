//! When a partition is compacted, and which part of it. Pure.
//!
//! As in Kafka, what lies before a point is *clean*: no two records of it have the same key; behind it everything is
//! *dirty*. Only whole closed segments are compacted, once all of their records are old enough. Ages are those of the
//! append, by the broker's clock: what time a producer wrote into a record delays nothing.

use std::ops::Range;

use crate::log::segment::Segment;
use crate::model::ids::Offset;
use crate::model::settings::Compaction;

/// How far a partition is compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What lies before this is clean.
    pub until: Offset,
    /// When the last of the tombstones and markers may go that were left there.
    pub horizon_ms: Option<i64>,
}

/// What a compaction looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its keys supersede those before; empty where only tombstones are to go.
    pub dirty: Range<Offset>,
}

/// What is to be compacted of `segments`, which hold what can be read, at `now_ms`. Nothing at or after `stable` is
/// touched.
pub fn due<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    log_start: Offset,
    stable: Offset,
    progress: &Progress,
    rules: &Compaction,
    now_ms: i64,
) -> Option<Due> {
    let young_ms = now_ms.saturating_sub(rules.min_lag_ms);
    let compactable = segments
        .take_while(|segment| segment.closed && segment.end_offset <= stable && segment.last_append_ms <= young_ms);
    let from = progress.until.max(log_start);
    let (mut clean_bytes, mut dirty_bytes, mut oldest_ms, mut end) = (0, 0, None, None);
    for segment in compactable {
        match segment.end_offset <= from {
            true => clean_bytes += segment.bytes,
            false => {
                dirty_bytes += segment.bytes;
                oldest_ms = oldest_ms.or(Some(segment.first_append_ms));
            }
        }
        end = Some(segment.end_offset);
    }
    let end = end?;
    let is_late = oldest_ms.is_some_and(|oldest_ms| now_ms.saturating_sub(oldest_ms) > rules.max_lag_ms);
    let ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes).max(1) as f64;
    if dirty_bytes > 0 && (ratio > rules.min_dirty_ratio || is_late) {
        return Some(Due { dirty: from..end });
    }
    let horizon_is_over = progress.horizon_ms.is_some_and(|horizon_ms| horizon_ms <= now_ms);
    (horizon_is_over && log_start < from).then_some(Due { dirty: from..from })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed segments of ten records and 100 bytes each, appended at 1,000, 2,000 and so on.
    fn segments(count: i64) -> Vec<Segment> {
        (0..count)
            .map(|n| {
                let mut segment = Segment::open(n * 10, 1, (n + 1) * 1_000);
                segment.extend(n * 10 + 10, 100, 0, (n + 1) * 1_000, false);
                segment.closed = true;
                segment
            })
            .collect()
    }

    const RULES: Compaction =
        Compaction { min_lag_ms: 0, max_lag_ms: i64::MAX, min_dirty_ratio: 0.5, delete_retention_ms: 0 };

    fn dirty(segments: &[Segment], until: Offset, rules: Compaction, now_ms: i64) -> Option<Range<Offset>> {
        let progress = Progress { until, horizon_ms: None };
        due(segments.iter(), 0, Offset::MAX, &progress, &rules, now_ms).map(|due| due.dirty)
    }

    #[test]
    fn the_share_of_dirty_bytes_decides() {
        let segments = segments(4);
        assert_eq!(dirty(&segments, 0, RULES, 9_000), Some(0..40));
        assert_eq!(dirty(&segments, 10, RULES, 9_000), Some(10..40));
        assert_eq!(dirty(&segments, 20, RULES, 9_000), None);
        assert_eq!(dirty(&segments, 40, RULES, 9_000), None);
        let eager = Compaction { min_dirty_ratio: 0.0, ..RULES };
        assert_eq!(dirty(&segments, 30, eager, 9_000), Some(30..40));
        assert_eq!(dirty(&segments, 40, eager, 9_000), None);
        assert_eq!(dirty(&segments, 0, Compaction { min_dirty_ratio: 1.0, ..RULES }, 9_000), None);
    }

    #[test]
    fn what_is_too_young_or_open_or_not_stable_waits() {
        let mut segments = segments(4);
        let rules = Compaction { min_lag_ms: 1_500, ..RULES };
        assert_eq!(dirty(&segments, 0, rules, 4_499), Some(0..20));
        assert_eq!(dirty(&segments, 0, rules, 4_500), Some(0..30));
        assert_eq!(dirty(&segments, 0, rules, 2_000), None);
        let stable = |stable| due(segments.iter(), 0, stable, &Progress::default(), &RULES, 9_000);
        assert_eq!(stable(29), Some(Due { dirty: 0..20 }));
        assert_eq!(stable(5), None);
        segments[1].closed = false;
        assert_eq!(dirty(&segments, 0, RULES, 9_000), Some(0..10));
    }

    #[test]
    fn after_the_longest_lag_the_share_does_not_matter() {
        let segments = segments(4);
        let rules = Compaction { max_lag_ms: 5_000, ..RULES };
        assert_eq!(dirty(&segments, 30, rules, 9_000), None);
        assert_eq!(dirty(&segments, 30, rules, 9_001), Some(30..40));
    }

    #[test]
    fn tombstones_go_though_nothing_is_dirty() {
        let segments = segments(4);
        let at = |until, horizon_ms, log_start| {
            let progress = Progress { until, horizon_ms: Some(horizon_ms) };
            due(segments.iter().filter(|one| one.end_offset > log_start), log_start, 99, &progress, &RULES, 9_000)
        };
        assert_eq!(at(40, 9_001, 0), None);
        assert_eq!(at(40, 9_000, 0), Some(Due { dirty: 40..40 }));
        assert_eq!(at(30, 9_000, 0), Some(Due { dirty: 30..30 }));
        // They were trimmed.
        assert_eq!(at(30, 9_000, 30), Some(Due { dirty: 30..40 }));
        assert_eq!(at(40, 9_000, 40), None);
    }
}
