//! Retention: what has expired, decided from one clock. One task looks every `retention_check_interval`; another, every
//! `compaction_interval`, for what can be compacted; and a third carries out deletions of streams when they are due.
//!
//! Time is the broker's: a record expires by when it was appended, never by the timestamp a client gave it, and exactly
//! then (to the look that follows). By size whole segments go, oldest first, as in Kafka: while the partition without
//! the segment still holds `retention.bytes`. Shards that are closed go with the last of their records.

use std::sync::Arc;

use crate::broker::{Broker, CatalogError, Stream};
use crate::log::segment::Segment;
use crate::model::ids::Offset;
use crate::model::settings::StreamSettings;

/// Looks for what has expired until the task is dropped.
pub async fn run(broker: Arc<Broker>, interval_ms: i64, producer_expiration_ms: i64) {
    // Until the first look is due, none is late.
    broker.metrics().retention_looked(broker.clock().now_ms());
    loop {
        broker.clock().sleep_ms(interval_ms).await;
        sweep(&broker, producer_expiration_ms).await;
    }
}

/// Compacts what is due, look after look, until the task is dropped. Apart from the other looks, for it may take long.
pub async fn run_compaction(broker: Arc<Broker>, interval_ms: i64) {
    loop {
        broker.clock().sleep_ms(interval_ms).await;
        broker.compact().await;
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
        let before_ms = now_ms.saturating_sub(producer_expiration_ms);
        for partition in stream.partitions() {
            partition.producers(|producers| producers.expire(before_ms));
        }
        if let Err(error) = expire(broker, &stream).await {
            tracing::warn!(%error, stream = &*stream.name, "what has expired could not be dropped");
            return;
        }
    }
    if let Err(error) = broker.reclaim().await {
        tracing::warn!(%error, "disk space could not be given back");
    }
    broker.metrics().retention_looked(broker.clock().now_ms());
}

async fn expire(broker: &Broker, stream: &Stream) -> Result<(), CatalogError> {
    broker.expire(stream).await?;
    let settings = stream.settings();
    for partition in stream.partitions() {
        let bytes = partition.extent().bytes;
        if let Some(until) = partition.with_segments(|segments| surplus_until(segments, bytes, &settings)) {
            broker.trim(&partition, until).await?;
        }
    }
    broker.forget_shards(stream).await
}

/// Up to which offset (exclusive) `segments`, which hold `bytes`, are more than is to be kept, if any is.
fn surplus_until<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    mut bytes: u64,
    settings: &StreamSettings,
) -> Option<Offset> {
    if !settings.cleanup_policy.deletes() {
        return None;
    }
    let bytes_kept = u64::try_from(settings.retention_bytes).unwrap_or(u64::MAX);
    let mut until = None;
    for segment in segments {
        if bytes.saturating_sub(segment.bytes) < bytes_kept {
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

    /// Three segments of 100 bytes and ten records.
    fn segments() -> Vec<Segment> {
        (0..3)
            .map(|n| {
                let mut segment = Segment::open(n * 10, n as u32, 0);
                segment.extend(n * 10 + 10, 100, 0, 0, false);
                segment
            })
            .collect()
    }

    fn settings(retention_bytes: i64) -> StreamSettings {
        let overrides = [("retention.bytes".to_owned(), retention_bytes.to_string())].into();
        StreamSettings::effective(&overrides, &BrokerSettings::default())
    }

    #[test]
    fn segments_expire_by_size_while_enough_is_left() {
        let until = |retention_bytes| surplus_until(segments().iter(), 300, &settings(retention_bytes));
        assert_eq!(until(-1), None);
        assert_eq!(until(201), None);
        assert_eq!(until(200), Some(10));
        assert_eq!(until(100), Some(20));
        assert_eq!(until(0), Some(30));
    }
}
