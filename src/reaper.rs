//! Retention: what has expired, decided from one clock. One task looks every `retention_check_interval`; another carries
//! out deletions of streams when they are due.
//!
//! Time is the broker's: a record expires by when it was appended, never by the timestamp a client gave it. As in Kafka
//! whole segments go, oldest first: by time when a segment's last record is older than `retention.ms`, by size while
//! the partition without the segment still holds `retention.bytes`.

use std::sync::Arc;

use crate::broker::Broker;
use crate::log::segment::Segment;
use crate::model::ids::Offset;
use crate::model::settings::{CleanupPolicy, StreamSettings};

/// Looks for what has expired until the task is dropped.
pub async fn run(broker: Arc<Broker>, interval_ms: i64, producer_expiration_ms: i64) {
    loop {
        broker.clock().sleep_ms(interval_ms).await;
        sweep(&broker, producer_expiration_ms).await;
    }
}

/// Carries out deletions when they are due, those that a stop has left behind too, until the task is dropped. `deleted`
/// is called after each look and does what follows for those who keep something by a stream's name.
pub async fn run_deletions<F: Future<Output = ()>>(broker: Arc<Broker>, deleted: impl Fn() -> F) {
    let mut changed = broker.watch_deletions();
    loop {
        changed.mark_unchanged();
        let next_ms = match broker.finish_deletions().await {
            Ok(next_ms) => next_ms,
            Err(error) => {
                tracing::warn!(%error, "a stream could not be deleted");
                return;
            }
        };
        deleted().await;
        let due = async {
            match next_ms {
                Some(next_ms) => broker.clock().sleep_ms(next_ms.saturating_sub(broker.clock().now_ms())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            // The sender lives as long as the broker.
            _ = changed.changed() => {}
        }
    }
}

/// One look at every partition, then at the disk space that is free by it.
pub async fn sweep(broker: &Arc<Broker>, producer_expiration_ms: i64) {
    let now_ms = broker.clock().now_ms();
    for stream in broker.streams_in_any_state() {
        let settings = stream.settings();
        for partition in stream.partitions() {
            partition.producers(|producers| producers.expire(now_ms.saturating_sub(producer_expiration_ms)));
            let bytes = partition.extent().bytes;
            let until = partition.with_segments(|segments| expired_until(segments, bytes, &settings, now_ms));
            let Some(until) = until else { continue };
            if let Err(error) = broker.trim(&partition, until).await {
                tracing::warn!(%error, stream = &*stream.name, "expired records could not be dropped");
                return;
            }
        }
    }
    if let Err(error) = broker.reclaim().await {
        tracing::warn!(%error, "disk space could not be given back");
    }
}

/// Up to which offset (exclusive) `segments`, which hold `bytes`, have expired, if any has.
fn expired_until<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    mut bytes: u64,
    settings: &StreamSettings,
    now_ms: i64,
) -> Option<Offset> {
    if settings.cleanup_policy == CleanupPolicy::Keep {
        return None;
    }
    let bytes_kept = u64::try_from(settings.retention_bytes).unwrap_or(u64::MAX);
    let mut until = None;
    for segment in segments {
        let age_ms = now_ms.saturating_sub(segment.last_append_ms);
        let too_old = settings.retention_ms >= 0 && age_ms > settings.retention_ms;
        let too_much = bytes.saturating_sub(segment.bytes) >= bytes_kept;
        if !too_old && !too_much {
            break;
        }
        bytes -= segment.bytes;
        until = Some(segment.end_offset);
    }
    until
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::BrokerSettings;

    const HOUR: i64 = 3_600_000;

    /// Three segments of 100 bytes and ten records, the last append of each an hour after the one before.
    fn segments() -> Vec<Segment> {
        (0..3)
            .map(|n| {
                let mut segment = Segment::open(n * 10, n as u32, n * HOUR);
                segment.extend(n * 10 + 10, 100, 0, n * HOUR, false);
                segment
            })
            .collect()
    }

    fn settings(retention_ms: i64, retention_bytes: i64) -> StreamSettings {
        let overrides = [("retention.ms", retention_ms), ("retention.bytes", retention_bytes)];
        let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_string())).into();
        StreamSettings::effective(&overrides, &BrokerSettings::default())
    }

    #[test]
    fn segments_expire_by_the_time_of_their_last_append() {
        let until = |retention_ms, now_ms| expired_until(segments().iter(), 300, &settings(retention_ms, -1), now_ms);
        assert_eq!(until(HOUR, HOUR), None);
        assert_eq!(until(HOUR, HOUR + 1), Some(10));
        assert_eq!(until(HOUR, 3 * HOUR + 1), Some(30));
        assert_eq!(until(-1, i64::MAX), None);
    }

    #[test]
    fn segments_expire_by_size_while_enough_is_left() {
        let until = |retention_bytes| expired_until(segments().iter(), 300, &settings(-1, retention_bytes), 0);
        assert_eq!(until(-1), None);
        assert_eq!(until(201), None);
        assert_eq!(until(200), Some(10));
        assert_eq!(until(100), Some(20));
        assert_eq!(until(0), Some(30));
    }
}
