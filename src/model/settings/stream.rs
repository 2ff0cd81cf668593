//! The typed values that one stream's partitions work with. `broker` resolves them when a stream is opened or when its
//! settings or the broker's change, and hands the result to the log.

use super::definition::{SettingError, Value, invalid};
use super::topic::{self, effective, number};
use super::{BrokerSettings, Overrides};

/// What a stream's settings amount to. Times are milliseconds, sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    pub cleanup_policy: CleanupPolicy,
    /// `None`: no limit.
    pub retention_ms: Option<i64>,
    /// Of one partition; `None`: no limit.
    pub retention_bytes: Option<i64>,
    pub segment_bytes: i64,
    pub segment_ms: i64,
    pub max_message_bytes: i32,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub compression: Compression,
    pub min_insync_replicas: i32,
    pub delete_retention_ms: i64,
}

/// What may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Segments beyond the retention settings.
    Delete,
    /// Nothing: the list of policies is empty.
    Keep,
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

impl StreamSettings {
    /// The effective settings of a stream that overrides `overrides`. Fails only where a stored value is none that
    /// validation would have let through.
    pub fn resolve(overrides: &Overrides, broker: &BrokerSettings) -> Result<StreamSettings, SettingError> {
        let long = |name| number(name, overrides, broker);
        let int = |name| long(name).map(narrow);
        let limit = |name| long(name).map(|value| (value >= 0).then_some(value));
        let segment_bytes = match effective(topic::INTERNAL_SEGMENT_BYTES, overrides, broker)? {
            Some(Value::Number(bytes)) => bytes,
            Some(_) | None => long(topic::SEGMENT_BYTES)?,
        };
        Ok(StreamSettings {
            cleanup_policy: cleanup_policy(overrides, broker)?,
            retention_ms: limit(topic::RETENTION_MS)?,
            retention_bytes: limit(topic::RETENTION_BYTES)?,
            segment_bytes,
            segment_ms: long(topic::SEGMENT_MS)?,
            max_message_bytes: int(topic::MAX_MESSAGE_BYTES)?,
            timestamp_type: timestamp_type(overrides, broker)?,
            timestamp_before_max_ms: long(topic::MESSAGE_TIMESTAMP_BEFORE_MAX_MS)?,
            timestamp_after_max_ms: long(topic::MESSAGE_TIMESTAMP_AFTER_MAX_MS)?,
            compression: compression(overrides, broker)?,
            min_insync_replicas: int(topic::MIN_INSYNC_REPLICAS)?,
            delete_retention_ms: long(topic::DELETE_RETENTION_MS)?,
        })
    }
}

fn cleanup_policy(overrides: &Overrides, broker: &BrokerSettings) -> Result<CleanupPolicy, SettingError> {
    let policies = text(topic::CLEANUP_POLICY, overrides, broker)?;
    Ok(if policies.is_empty() { CleanupPolicy::Keep } else { CleanupPolicy::Delete })
}

fn timestamp_type(overrides: &Overrides, broker: &BrokerSettings) -> Result<TimestampType, SettingError> {
    let name = topic::MESSAGE_TIMESTAMP_TYPE;
    match text(name, overrides, broker)?.as_str() {
        "CreateTime" => Ok(TimestampType::CreateTime),
        "LogAppendTime" => Ok(TimestampType::LogAppendTime),
        other => Err(invalid(name, other, "not a timestamp type")),
    }
}

fn compression(overrides: &Overrides, broker: &BrokerSettings) -> Result<Compression, SettingError> {
    let level = |name| number(name, overrides, broker).map(narrow);
    let name = topic::COMPRESSION_TYPE;
    Ok(match text(name, overrides, broker)?.as_str() {
        "producer" => Compression::Producer,
        "uncompressed" => Compression::Uncompressed,
        "gzip" => Compression::Gzip(level(topic::COMPRESSION_GZIP_LEVEL)?),
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4(level(topic::COMPRESSION_LZ4_LEVEL)?),
        "zstd" => Compression::Zstd(level(topic::COMPRESSION_ZSTD_LEVEL)?),
        other => return Err(invalid(name, other, "not a compression type")),
    })
}

fn text(name: &str, overrides: &Overrides, broker: &BrokerSettings) -> Result<String, SettingError> {
    Ok(effective(name, overrides, broker)?.map(|value| value.to_string()).unwrap_or_default())
}

/// Settings of type INT have been parsed as 32 bits, so nothing is lost.
fn narrow(value: i64) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{BrokerValues, DynamicSettings};

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn resolve(topic: &[(&str, &str)], broker: &BrokerSettings) -> StreamSettings {
        StreamSettings::resolve(&overrides(topic), broker).unwrap()
    }

    #[test]
    fn without_overrides_the_defaults_are_kafkas() {
        let broker = BrokerSettings::new(BrokerValues::default(), DynamicSettings::default());
        let expected = StreamSettings {
            cleanup_policy: CleanupPolicy::Delete,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: Compression::Producer,
            min_insync_replicas: 1,
            delete_retention_ms: 86_400_000,
        };
        assert_eq!(resolve(&[], &broker), expected);
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
        assert_eq!(retention(&[], with(&[], &[])), Some(5_000));
        assert_eq!(retention(&[], with(&[], &cluster)), Some(4_000));
        assert_eq!(retention(&[], with(&node, &cluster)), Some(3_000));
        assert_eq!(retention(&[("retention.ms", "-1")], with(&node, &cluster)), None);
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
        assert_eq!((settings.retention_bytes, settings.segment_bytes), (Some(0), 512));
    }

    #[test]
    fn a_stored_value_that_is_none_is_an_error() {
        let broker = BrokerSettings::new(BrokerValues::default(), DynamicSettings::default());
        let broken = StreamSettings::resolve(&overrides(&[("segment.ms", "soon")]), &broker);
        assert!(matches!(broken, Err(SettingError::Invalid { .. })));
    }
}
