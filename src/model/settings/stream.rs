//! The typed values that one stream's partitions work with. `broker` computes them when a stream is opened and whenever
//! its settings or the broker's change, and hands the result to the log.

use std::str::FromStr;

use super::topic::{self, effective, number};
use super::{BrokerSettings, Overrides};
use crate::model::attributes::{CapacityMode, Isolation, LimitsPolicy};

/// What a stream's settings amount to. Times are milliseconds, sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSettings {
    pub cleanup_policy: CleanupPolicy,
    /// -1: no limit.
    pub retention_ms: i64,
    /// Of one partition; -1: no limit.
    pub retention_bytes: i64,
    pub segment_bytes: i64,
    pub segment_ms: i64,
    pub max_message_bytes: i32,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub compression: Compression,
    pub min_insync_replicas: i32,
    pub compaction: Compaction,
    pub kinesis_isolation: Isolation,
    pub limits: LimitsPolicy,
    pub capacity_mode: CapacityMode,
}

/// What may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// What is beyond the retention settings.
    Delete,
    /// Records whose key has a later one.
    Compact,
    /// Both.
    CompactAndDelete,
    /// Nothing: the list of policies is empty.
    Keep,
}

impl CleanupPolicy {
    /// Whether the retention settings count.
    pub fn deletes(self) -> bool {
        matches!(self, CleanupPolicy::Delete | CleanupPolicy::CompactAndDelete)
    }

    pub fn compacts(self) -> bool {
        matches!(self, CleanupPolicy::Compact | CleanupPolicy::CompactAndDelete)
    }
}

/// When a compacted stream is compacted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compaction {
    /// A record stays at least this long.
    pub min_lag_ms: i64,
    /// A record that a later one supersedes stays no longer than this and the time until somebody looks.
    pub max_lag_ms: i64,
    /// Share of a partition's bytes not compacted yet beyond which it is compacted.
    pub min_dirty_ratio: f64,
    /// How long tombstones and transactions' markers stay once nothing is left before them that they speak of.
    pub delete_retention_ms: i64,
}

/// Whose clock timestamps are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// How stored batches are compressed. Levels are the codecs' own; gzip's -1 means the codec's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the producer chose.
    Producer,
    Uncompressed,
    Gzip(i32),
    Snappy,
    Lz4(i32),
    Zstd(i32),
}

impl Default for StreamSettings {
    /// The built-in defaults of [`topic::TOPIC_SETTINGS`].
    fn default() -> StreamSettings {
        StreamSettings {
            cleanup_policy: CleanupPolicy::Delete,
            retention_ms: 604_800_000,
            retention_bytes: -1,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: Compression::Producer,
            min_insync_replicas: 1,
            compaction: Compaction {
                min_lag_ms: 0,
                max_lag_ms: i64::MAX,
                min_dirty_ratio: 0.5,
                delete_retention_ms: 86_400_000,
            },
            kinesis_isolation: Isolation::Committed,
            limits: LimitsPolicy::Observe,
            capacity_mode: CapacityMode::Provisioned,
        }
    }
}

impl StreamSettings {
    /// After how long a segment ends though it is not full: what is not closed cannot be compacted.
    pub fn roll_ms(&self) -> i64 {
        match self.cleanup_policy.compacts() {
            true => self.segment_ms.min(self.compaction.max_lag_ms),
            false => self.segment_ms,
        }
    }

    /// The effective settings of a stream that overrides `overrides`.
    pub fn effective(overrides: &Overrides, broker: &BrokerSettings) -> StreamSettings {
        let default = StreamSettings::default();
        let long = |name, default| number(name, overrides, broker).unwrap_or(default);
        let limit = |name, default| long(name, default).max(-1);
        let segment_bytes = long(topic::SEGMENT_BYTES, default.segment_bytes);
        let max_message_bytes = number(topic::MAX_MESSAGE_BYTES, overrides, broker);
        let min_insync_replicas = number(topic::MIN_INSYNC_REPLICAS, overrides, broker);
        StreamSettings {
            cleanup_policy: cleanup_policy(overrides, broker),
            retention_ms: limit(topic::RETENTION_MS, default.retention_ms),
            retention_bytes: limit(topic::RETENTION_BYTES, default.retention_bytes),
            segment_bytes: long(topic::INTERNAL_SEGMENT_BYTES, segment_bytes),
            segment_ms: long(topic::SEGMENT_MS, default.segment_ms),
            max_message_bytes: narrow(max_message_bytes).unwrap_or(default.max_message_bytes),
            timestamp_type: timestamp_type(overrides, broker).unwrap_or(default.timestamp_type),
            timestamp_before_max_ms: long(topic::MESSAGE_TIMESTAMP_BEFORE_MAX_MS, default.timestamp_before_max_ms),
            timestamp_after_max_ms: long(topic::MESSAGE_TIMESTAMP_AFTER_MAX_MS, default.timestamp_after_max_ms),
            compression: compression(overrides, broker).unwrap_or(default.compression),
            min_insync_replicas: narrow(min_insync_replicas).unwrap_or(default.min_insync_replicas),
            compaction: compaction(overrides, broker),
            kinesis_isolation: word(topic::KINESIS_ISOLATION, overrides, broker).unwrap_or(default.kinesis_isolation),
            limits: word(topic::KINESIS_LIMITS, overrides, broker).unwrap_or(default.limits),
            capacity_mode: word(topic::KINESIS_STREAM_MODE, overrides, broker).unwrap_or(default.capacity_mode),
        }
    }
}

fn cleanup_policy(overrides: &Overrides, broker: &BrokerSettings) -> CleanupPolicy {
    let Some(policies) = text(topic::CLEANUP_POLICY, overrides, broker) else { return CleanupPolicy::Delete };
    let has = |wanted| policies.split(',').any(|policy| policy == wanted);
    match (has("compact"), has("delete")) {
        (true, true) => CleanupPolicy::CompactAndDelete,
        (true, false) => CleanupPolicy::Compact,
        (false, true) => CleanupPolicy::Delete,
        (false, false) => CleanupPolicy::Keep,
    }
}

fn compaction(overrides: &Overrides, broker: &BrokerSettings) -> Compaction {
    let default = StreamSettings::default().compaction;
    let long = |name, default| number(name, overrides, broker).unwrap_or(default);
    Compaction {
        min_lag_ms: long(topic::MIN_COMPACTION_LAG_MS, default.min_lag_ms),
        max_lag_ms: long(topic::MAX_COMPACTION_LAG_MS, default.max_lag_ms),
        min_dirty_ratio: word(topic::MIN_CLEANABLE_DIRTY_RATIO, overrides, broker).unwrap_or(default.min_dirty_ratio),
        delete_retention_ms: long(topic::DELETE_RETENTION_MS, default.delete_retention_ms),
    }
}

fn timestamp_type(overrides: &Overrides, broker: &BrokerSettings) -> Option<TimestampType> {
    match text(topic::MESSAGE_TIMESTAMP_TYPE, overrides, broker)?.as_str() {
        "CreateTime" => Some(TimestampType::CreateTime),
        "LogAppendTime" => Some(TimestampType::LogAppendTime),
        _ => None,
    }
}

fn compression(overrides: &Overrides, broker: &BrokerSettings) -> Option<Compression> {
    let level = |name| narrow(number(name, overrides, broker));
    Some(match text(topic::COMPRESSION_TYPE, overrides, broker)?.as_str() {
        "producer" => Compression::Producer,
        "uncompressed" => Compression::Uncompressed,
        "gzip" => Compression::Gzip(level(topic::COMPRESSION_GZIP_LEVEL)?),
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4(level(topic::COMPRESSION_LZ4_LEVEL)?),
        "zstd" => Compression::Zstd(level(topic::COMPRESSION_ZSTD_LEVEL)?),
        _ => return None,
    })
}

fn text(name: &str, overrides: &Overrides, broker: &BrokerSettings) -> Option<String> {
    effective(name, overrides, broker).map(|value| value.to_string())
}

/// What reads from its text: one of a closed set of words, or a fraction.
fn word<T: FromStr>(name: &str, overrides: &Overrides, broker: &BrokerSettings) -> Option<T> {
    text(name, overrides, broker)?.parse().ok()
}

/// Settings of type INT have been read as 32 bits, so nothing is lost.
fn narrow(value: Option<i64>) -> Option<i32> {
    value.and_then(|value| i32::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{BrokerValues, DynamicSettings};

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn resolve(topic: &[(&str, &str)], broker: &BrokerSettings) -> StreamSettings {
        StreamSettings::effective(&overrides(topic), broker)
    }

    #[test]
    fn without_overrides_the_defaults_are_the_tables() {
        let broker = BrokerSettings::new(BrokerValues::default(), DynamicSettings::default());
        assert_eq!(resolve(&[], &broker), StreamSettings::default());
    }

    #[test]
    fn the_nearest_source_wins() {
        let values = BrokerValues { log_retention_ms: 5_000, ..BrokerValues::default() };
        let with = |node: &[(&str, &str)], cluster: &[(&str, &str)]| {
            let dynamic = DynamicSettings { node: overrides(node), cluster: overrides(cluster) };
            BrokerSettings::new(values.clone(), dynamic)
        };
        let retention = |topic: &[(&str, &str)], broker| resolve(topic, &broker).retention_ms;
        let (node, cluster) = ([("log.retention.ms", "3000")], [("log.retention.ms", "4000")]);
        assert_eq!(retention(&[], with(&[], &[])), 5_000);
        assert_eq!(retention(&[], with(&[], &cluster)), 4_000);
        assert_eq!(retention(&[], with(&node, &cluster)), 3_000);
        assert_eq!(retention(&[("retention.ms", "-1")], with(&node, &cluster)), -1);
    }

    #[test]
    fn choices_and_levels_are_typed() {
        let broker = BrokerSettings::new(BrokerValues::default(), DynamicSettings::default());
        let compression = |pairs: &[(&str, &str)]| resolve(pairs, &broker).compression;
        assert_eq!(compression(&[("compression.type", "gzip")]), Compression::Gzip(-1));
        assert_eq!(
            compression(&[("compression.type", "zstd"), ("compression.zstd.level", "-7")]),
            Compression::Zstd(-7)
        );
        let settings = resolve(
            &[
                ("cleanup.policy", ""),
                ("message.timestamp.type", "LogAppendTime"),
                ("retention.bytes", "0"),
                ("internal.segment.bytes", "512"),
            ],
            &broker,
        );
        assert_eq!(settings.cleanup_policy, CleanupPolicy::Keep);
        assert_eq!(settings.timestamp_type, TimestampType::LogAppendTime);
        assert_eq!((settings.retention_bytes, settings.segment_bytes), (0, 512));
    }

    #[test]
    fn policies_and_their_settings_are_typed() {
        let broker = BrokerSettings::new(BrokerValues::default(), DynamicSettings::default());
        for (text, policy) in [
            ("delete", CleanupPolicy::Delete),
            ("compact", CleanupPolicy::Compact),
            ("compact,delete", CleanupPolicy::CompactAndDelete),
            ("delete,compact", CleanupPolicy::CompactAndDelete),
            ("", CleanupPolicy::Keep),
        ] {
            assert_eq!(resolve(&[("cleanup.policy", text)], &broker).cleanup_policy, policy, "{text}");
        }
        let pairs = [
            ("min.compaction.lag.ms", "1"),
            ("max.compaction.lag.ms", "20"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("delete.retention.ms", "4"),
        ];
        let wanted = Compaction { min_lag_ms: 1, max_lag_ms: 20, min_dirty_ratio: 0.25, delete_retention_ms: 4 };
        assert_eq!(resolve(&pairs, &broker).compaction, wanted);
    }

    #[test]
    fn only_a_compacted_stream_ends_its_segments_for_its_lag() {
        let broker = BrokerSettings::new(BrokerValues::default(), DynamicSettings::default());
        let roll_ms = |policy, lag| {
            let pairs = [("cleanup.policy", policy), ("segment.ms", "50"), ("max.compaction.lag.ms", lag)];
            resolve(&pairs, &broker).roll_ms()
        };
        assert_eq!(roll_ms("delete", "20"), 50);
        assert_eq!(roll_ms("compact", "20"), 20);
        assert_eq!(roll_ms("compact", "70"), 50);
    }

    #[test]
    fn a_stored_value_that_does_not_read_counts_as_not_set() {
        let cluster = overrides(&[("log.roll.ms", "77"), ("log.message.timestamp.type", "Never")]);
        let dynamic = DynamicSettings { cluster, ..DynamicSettings::default() };
        let settings = resolve(&[("segment.ms", "soon")], &BrokerSettings::new(BrokerValues::default(), dynamic));
        assert_eq!((settings.segment_ms, settings.timestamp_type), (77, TimestampType::CreateTime));
    }
}
