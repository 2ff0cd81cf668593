//! The table of topic settings: every name of Kafka 4.1's `TopicConfig` and `LogConfig`, with its defaults and checks,
//! and this broker's own, which begin with `kinesis.`.
//!
//! Called by the doors (through `broker`) when a topic is made or altered, and by the other rooms of this folder. What
//! has no meaning on this log (index files, preallocation, tiers) is accepted, kept and described, as clients expect,
//! and says so in its documentation.

use super::broker::BROKER_SOURCES;
use super::definition::{Check, Definition, SettingError, Value, ValueType, check_length};
use super::{BrokerSettings, Overrides};

/// A topic setting and the broker setting that stands behind it.
#[derive(Clone, Copy, Debug)]
pub struct TopicSetting {
    pub definition: Definition,
    pub server: Option<Server>,
    /// Accepted, but never described: for tests, as in Kafka.
    pub internal: bool,
}

/// The broker setting that gives topics their default.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub name: &'static str,
    /// Settings of other units that count where `name` is not set. Where there are any, `name` itself is null by default.
    pub fallbacks: &'static [&'static str],
}

pub const CLEANUP_POLICY: &str = "cleanup.policy";
pub const COMPRESSION_GZIP_LEVEL: &str = "compression.gzip.level";
pub const COMPRESSION_LZ4_LEVEL: &str = "compression.lz4.level";
pub const COMPRESSION_TYPE: &str = "compression.type";
pub const COMPRESSION_ZSTD_LEVEL: &str = "compression.zstd.level";
pub const DELETE_RETENTION_MS: &str = "delete.retention.ms";
pub const INTERNAL_SEGMENT_BYTES: &str = "internal.segment.bytes";
pub const KINESIS_ISOLATION: &str = "kinesis.isolation";
pub const KINESIS_LIMITS: &str = "kinesis.limits";
pub const KINESIS_STREAM_MODE: &str = "kinesis.stream.mode";
pub const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub const MESSAGE_TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
pub const MESSAGE_TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub const MIN_CLEANABLE_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
pub const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
pub const RETENTION_BYTES: &str = "retention.bytes";
pub const RETENTION_MS: &str = "retention.ms";
pub const SEGMENT_BYTES: &str = "segment.bytes";
pub const SEGMENT_MS: &str = "segment.ms";

/// The greatest long, by which Kafka says "never" or "no limit" in several defaults.
const LONG_MAX: &str = "9223372036854775807";

/// By name.
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    row(
        CLEANUP_POLICY,
        ValueType::List,
        "delete",
        Check::EachOf(&["compact", "delete"]),
        server("log.cleanup.policy"),
        "What happens to old records: delete drops them when retention.ms or retention.bytes is exceeded, compact drops \
         those whose key has a later record; both may be asked for, and an empty list keeps everything.",
    ),
    row(
        COMPRESSION_GZIP_LEVEL,
        ValueType::Int,
        "-1",
        Check::GzipLevel,
        server(COMPRESSION_GZIP_LEVEL),
        "Level used when compression.type is gzip.",
    ),
    row(
        COMPRESSION_LZ4_LEVEL,
        ValueType::Int,
        "9",
        Check::Between(1, 17),
        server(COMPRESSION_LZ4_LEVEL),
        "Level used when compression.type is lz4.",
    ),
    row(
        COMPRESSION_TYPE,
        ValueType::String,
        "producer",
        Check::OneOf(COMPRESSION_TYPES),
        server(COMPRESSION_TYPE),
        "Codec of the stored batches: gzip, snappy, lz4, zstd, uncompressed, or producer to keep what the producer chose.",
    ),
    row(
        COMPRESSION_ZSTD_LEVEL,
        ValueType::Int,
        "3",
        Check::Between(-131_072, 22),
        server(COMPRESSION_ZSTD_LEVEL),
        "Level used when compression.type is zstd.",
    ),
    row(
        DELETE_RETENTION_MS,
        ValueType::Long,
        "86400000",
        Check::AtLeast(0),
        server("log.cleaner.delete.retention.ms"),
        "How long tombstones stay in a compacted topic once the records before them are gone.",
    ),
    row(
        "file.delete.delay.ms",
        ValueType::Long,
        "60000",
        Check::AtLeast(0),
        server("log.segment.delete.delay.ms"),
        "Delay before a file is removed. Has no effect here: dropped records are gone at once.",
    ),
    row(
        "flush.messages",
        ValueType::Long,
        LONG_MAX,
        Check::AtLeast(1),
        server("log.flush.interval.messages"),
        "Records between two forced syncs. Has no effect here: the broker's durability setting decides when to sync.",
    ),
    row(
        "flush.ms",
        ValueType::Long,
        LONG_MAX,
        Check::AtLeast(0),
        server_or("log.flush.interval.ms", &["log.flush.scheduler.interval.ms"]),
        "Time between two forced syncs. Has no effect here: the broker's durability setting decides when to sync.",
    ),
    row(
        "follower.replication.throttled.replicas",
        ValueType::List,
        "",
        Check::ThrottledReplicas,
        None,
        "Replicas whose replication is throttled as followers. Has no effect on a single broker.",
    ),
    row(
        "index.interval.bytes",
        ValueType::Int,
        "4096",
        Check::AtLeast(0),
        server("log.index.interval.bytes"),
        "Bytes between two entries of an offset index. Has no effect here: there are no index files.",
    ),
    TopicSetting {
        internal: true,
        ..without_default(
            INTERNAL_SEGMENT_BYTES,
            ValueType::Int,
            Check::AtLeast(1),
            "Overrides segment.bytes without its lower bound, for tests.",
        )
    },
    row(
        KINESIS_ISOLATION,
        ValueType::String,
        "read_committed",
        Check::OneOf(&["read_committed", "read_uncommitted"]),
        server(KINESIS_ISOLATION),
        "Which records of Kafka transactions Kinesis clients are given: read_committed leaves out those that were aborted and \
         waits for those that are open, read_uncommitted gives all at once.",
    ),
    row(
        KINESIS_LIMITS,
        ValueType::String,
        "observe",
        Check::OneOf(&["enforce", "observe", "off"]),
        server(KINESIS_LIMITS),
        "What becomes of traffic beyond a shard's limits (1 MiB and 1,000 records a second in, 2 MiB a second out): enforce \
         slows Kafka clients down and refuses Kinesis clients, observe only counts it in the metrics, off ignores it.",
    ),
    row(
        KINESIS_STREAM_MODE,
        ValueType::String,
        "provisioned",
        Check::OneOf(&["provisioned", "on-demand"]),
        None,
        "Who decides how many shards there are: provisioned, whoever splits and merges them; on-demand, the broker, which \
         follows the traffic.",
    ),
    row(
        "leader.replication.throttled.replicas",
        ValueType::List,
        "",
        Check::ThrottledReplicas,
        None,
        "Replicas whose replication is throttled on the leader. Has no effect on a single broker.",
    ),
    row(
        "local.retention.bytes",
        ValueType::Long,
        "-2",
        Check::AtLeast(-2),
        server("log.local.retention.bytes"),
        "Local bytes kept of a tiered topic; -2 means retention.bytes. Has no effect without tiered storage.",
    ),
    row(
        "local.retention.ms",
        ValueType::Long,
        "-2",
        Check::AtLeast(-2),
        server("log.local.retention.ms"),
        "How long a tiered topic is kept locally; -2 means retention.ms. Has no effect without tiered storage.",
    ),
    row(
        MAX_COMPACTION_LAG_MS,
        ValueType::Long,
        LONG_MAX,
        Check::AtLeast(1),
        server("log.cleaner.max.compaction.lag.ms"),
        "Longest time a record of a compacted topic stays uncompacted.",
    ),
    row(
        MAX_MESSAGE_BYTES,
        ValueType::Int,
        "1048588",
        Check::AtLeast(0),
        server("message.max.bytes"),
        "Largest record batch, after compression.",
    ),
    row(
        MESSAGE_TIMESTAMP_AFTER_MAX_MS,
        ValueType::Long,
        "3600000",
        Check::AtLeast(0),
        server("log.message.timestamp.after.max.ms"),
        "How far a record's timestamp may lie after the broker's clock, under CreateTime.",
    ),
    row(
        MESSAGE_TIMESTAMP_BEFORE_MAX_MS,
        ValueType::Long,
        LONG_MAX,
        Check::AtLeast(0),
        server("log.message.timestamp.before.max.ms"),
        "How far a record's timestamp may lie before the broker's clock, under CreateTime.",
    ),
    row(
        MESSAGE_TIMESTAMP_TYPE,
        ValueType::String,
        "CreateTime",
        Check::OneOf(&["CreateTime", "LogAppendTime"]),
        server("log.message.timestamp.type"),
        "Whose clock a record's timestamp is from: the producer's (CreateTime) or the broker's (LogAppendTime).",
    ),
    row(
        MIN_CLEANABLE_DIRTY_RATIO,
        ValueType::Double,
        "0.5",
        Check::Between(0, 1),
        server("log.cleaner.min.cleanable.ratio"),
        "Share of uncompacted records at which a compacted topic is compacted.",
    ),
    row(
        MIN_COMPACTION_LAG_MS,
        ValueType::Long,
        "0",
        Check::AtLeast(0),
        server("log.cleaner.min.compaction.lag.ms"),
        "Shortest time a record of a compacted topic stays uncompacted.",
    ),
    row(
        MIN_INSYNC_REPLICAS,
        ValueType::Int,
        "1",
        Check::AtLeast(1),
        server(MIN_INSYNC_REPLICAS),
        "In-sync replicas that a produce request with acks=all needs. This broker keeps one replica, so more than 1 \
         refuses such requests.",
    ),
    row(
        "preallocate",
        ValueType::Boolean,
        "false",
        Check::Any,
        server("log.preallocate"),
        "Whether segment files are allocated in advance. Has no effect here: there are no segment files.",
    ),
    row(
        "remote.log.copy.disable",
        ValueType::Boolean,
        "false",
        Check::Any,
        None,
        "Whether a tiered topic stops copying. Has no effect without tiered storage.",
    ),
    row(
        "remote.log.delete.on.disable",
        ValueType::Boolean,
        "false",
        Check::Any,
        None,
        "Whether tiered data goes when tiering is switched off. Has no effect without tiered storage.",
    ),
    row(
        "remote.storage.enable",
        ValueType::Boolean,
        "false",
        Check::NoTieredStorage,
        None,
        "Whether the topic is tiered. Must be false: this broker has no tiered storage.",
    ),
    row(
        RETENTION_BYTES,
        ValueType::Long,
        "-1",
        Check::Any,
        server("log.retention.bytes"),
        "Bytes that each partition keeps before its oldest segments are dropped; negative means no limit.",
    ),
    row(
        RETENTION_MS,
        ValueType::Long,
        "604800000",
        Check::AtLeast(-1),
        server_or("log.retention.ms", &["log.retention.minutes", "log.retention.hours"]),
        "How long records are kept before their segments are dropped; -1 means no limit.",
    ),
    row(
        SEGMENT_BYTES,
        ValueType::Int,
        "1073741824",
        Check::AtLeast(1_048_576),
        server("log.segment.bytes"),
        "Size of a segment. Retention drops whole segments, so smaller ones make it more exact.",
    ),
    row(
        "segment.index.bytes",
        ValueType::Int,
        "10485760",
        Check::AtLeast(4),
        server("log.index.size.max.bytes"),
        "Size of a segment's offset index. Has no effect here: there are no index files.",
    ),
    row(
        "segment.jitter.ms",
        ValueType::Long,
        "0",
        Check::AtLeast(0),
        server_or("log.roll.jitter.ms", &["log.roll.jitter.hours"]),
        "Random time taken off segment.ms. Has no effect here: many segments may end at once without harm.",
    ),
    row(
        SEGMENT_MS,
        ValueType::Long,
        "604800000",
        Check::AtLeast(1),
        server_or("log.roll.ms", &["log.roll.hours"]),
        "Time after which a segment ends even when it is not full, so that retention can drop it.",
    ),
    row(
        "unclean.leader.election.enable",
        ValueType::Boolean,
        "false",
        Check::Any,
        server("unclean.leader.election.enable"),
        "Whether a replica that lags may become leader. Has no effect on a single broker.",
    ),
];

const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

const fn row(
    name: &'static str,
    value_type: ValueType,
    default: &'static str,
    check: Check,
    server: Option<Server>,
    documentation: &'static str,
) -> TopicSetting {
    let definition = Definition { name, value_type, default: Some(default), check, documentation };
    TopicSetting { definition, server, internal: false }
}

const fn without_default(
    name: &'static str,
    value_type: ValueType,
    check: Check,
    documentation: &'static str,
) -> TopicSetting {
    let definition = Definition { name, value_type, default: None, check, documentation };
    TopicSetting { definition, server: None, internal: false }
}

const fn server(name: &'static str) -> Option<Server> {
    server_or(name, &[])
}

const fn server_or(name: &'static str, fallbacks: &'static [&'static str]) -> Option<Server> {
    Some(Server { name, fallbacks })
}

impl Server {
    /// What the broker setting defaults to, for a topic setting that defaults to `default`.
    pub fn default(&self, default: Option<&'static str>) -> Option<&'static str> {
        if self.fallbacks.is_empty() { default } else { None }
    }
}

/// The setting of that name.
pub fn topic_setting(name: &str) -> Option<&'static TopicSetting> {
    TOPIC_SETTINGS.iter().find(|setting| setting.definition.name == name)
}

/// Judges one value and gives its canonical text.
pub fn validate(name: &str, value: &str) -> Result<String, SettingError> {
    parse(name, value).map(|value| value.to_string())
}

/// Judges all that a topic is to override, as Kafka does: names first, then each value, then what they say together
/// with the broker's defaults.
pub fn validate_overrides<'a>(
    overrides: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    broker: &BrokerSettings,
) -> Result<Overrides, SettingError> {
    let mut values = Vec::new();
    let mut nulls = Vec::new();
    for (name, value) in overrides {
        match value {
            Some(value) => values.push((name, value)),
            None => nulls.push(name.to_owned()),
        }
    }
    if !nulls.is_empty() {
        return Err(SettingError::Null(nulls));
    }
    if let Some((name, _)) = values.iter().find(|(name, _)| topic_setting(name).is_none()) {
        return Err(SettingError::UnknownName((*name).to_owned()));
    }
    let mut canonical = Overrides::new();
    for (name, value) in values {
        check_length(name, value)?;
        canonical.insert(name.to_owned(), validate(name, value)?);
    }
    let lag = |name| number(name, &canonical, broker);
    match (lag(MIN_COMPACTION_LAG_MS), lag(MAX_COMPACTION_LAG_MS)) {
        (Some(min), Some(max)) if min > max => Err(SettingError::CompactionLags { min, max }),
        _ => Ok(canonical),
    }
}

fn parse(name: &str, value: &str) -> Result<Value, SettingError> {
    let setting = topic_setting(name).ok_or_else(|| SettingError::UnknownName(name.to_owned()))?;
    setting.definition.parse(value)
}

/// The effective value; `None` where nothing gives one. A stored value that does not read as its type (only another
/// version of this broker can have written it) counts as not set.
pub(super) fn effective(name: &str, overrides: &Overrides, broker: &BrokerSettings) -> Option<Value> {
    let setting = topic_setting(name)?;
    let definition = &setting.definition;
    let own = overrides.get(name).and_then(|value| definition.typed(name, value).ok());
    let given = || {
        let server = setting.server?;
        let mut values = BROKER_SOURCES.into_iter().filter_map(|source| broker.given_by(source, server.name));
        values.find_map(|value| definition.typed(server.name, &value).ok())
    };
    own.or_else(given).or_else(|| definition.typed(name, definition.default?).ok())
}

/// The effective value of a setting that is a whole number.
pub(super) fn number(name: &str, overrides: &Overrides, broker: &BrokerSettings) -> Option<i64> {
    match effective(name, overrides, broker)? {
        Value::Number(number) => Some(number),
        Value::Boolean(_) | Value::Double(_) | Value::Text(_) | Value::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{BrokerValues, DynamicSettings};

    /// Every name of Kafka 4.1 and this broker's own, with its default.
    const NAMES: &[(&str, &str)] = &[
        ("cleanup.policy", "delete"),
        ("compression.gzip.level", "-1"),
        ("compression.lz4.level", "9"),
        ("compression.type", "producer"),
        ("compression.zstd.level", "3"),
        ("delete.retention.ms", "86400000"),
        ("file.delete.delay.ms", "60000"),
        ("flush.messages", "9223372036854775807"),
        ("flush.ms", "9223372036854775807"),
        ("follower.replication.throttled.replicas", ""),
        ("index.interval.bytes", "4096"),
        ("kinesis.isolation", "read_committed"),
        ("kinesis.limits", "observe"),
        ("kinesis.stream.mode", "provisioned"),
        ("leader.replication.throttled.replicas", ""),
        ("local.retention.bytes", "-2"),
        ("local.retention.ms", "-2"),
        ("max.compaction.lag.ms", "9223372036854775807"),
        ("max.message.bytes", "1048588"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("message.timestamp.type", "CreateTime"),
        ("min.cleanable.dirty.ratio", "0.5"),
        ("min.compaction.lag.ms", "0"),
        ("min.insync.replicas", "1"),
        ("preallocate", "false"),
        ("remote.log.copy.disable", "false"),
        ("remote.log.delete.on.disable", "false"),
        ("remote.storage.enable", "false"),
        ("retention.bytes", "-1"),
        ("retention.ms", "604800000"),
        ("segment.bytes", "1073741824"),
        ("segment.index.bytes", "10485760"),
        ("segment.jitter.ms", "0"),
        ("segment.ms", "604800000"),
        ("unclean.leader.election.enable", "false"),
    ];

    fn broker() -> BrokerSettings {
        BrokerSettings::new(BrokerValues::default(), DynamicSettings::default())
    }

    #[test]
    fn the_table_is_kafkas_and_our_own() {
        let described: Vec<_> = TOPIC_SETTINGS
            .iter()
            .filter(|setting| !setting.internal)
            .map(|setting| (setting.definition.name, setting.definition.default.unwrap()))
            .collect();
        assert_eq!(described, NAMES);
        let names: Vec<_> = TOPIC_SETTINGS.iter().map(|setting| setting.definition.name).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn every_default_is_a_canonical_value_of_its_setting() {
        for setting in TOPIC_SETTINGS {
            let name = setting.definition.name;
            if let Some(default) = setting.definition.default {
                assert_eq!(validate(name, default).as_deref(), Ok(default), "{name}");
            }
            assert!(!setting.definition.documentation.is_empty(), "{name}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for (name, value) in [
            ("cleanup.policy", "compacted"),
            ("compression.gzip.level", "10"),
            ("compression.lz4.level", "0"),
            ("compression.type", "GZIP"),
            ("compression.zstd.level", "23"),
            ("kinesis.isolation", "committed"),
            ("kinesis.limits", "Enforce"),
            ("kinesis.stream.mode", "on_demand"),
            ("max.message.bytes", "-1"),
            ("message.timestamp.type", "createtime"),
            ("min.cleanable.dirty.ratio", "1.01"),
            ("min.insync.replicas", "0"),
            ("preallocate", "yes"),
            ("remote.storage.enable", "true"),
            ("retention.ms", "-2"),
            ("retention.bytes", "1GiB"),
            ("segment.bytes", "1048575"),
            ("segment.ms", "0"),
        ] {
            assert!(validate(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(validate("retention.bytes", "-9").as_deref(), Ok("-9"));
        assert_eq!(validate("internal.segment.bytes", "1024").as_deref(), Ok("1024"));
    }

    #[test]
    fn overrides_are_judged_as_kafka_does() {
        let validate = |overrides: &[(&str, Option<&str>)]| validate_overrides(overrides.iter().copied(), &broker());
        let message = |overrides: &[(&str, Option<&str>)]| validate(overrides).unwrap_err().to_string();
        // A bad name is named before a bad value.
        let both = [("retention.ms", Some("x")), ("no.such", Some("1"))];
        assert_eq!(message(&both), "Unknown topic config name: no.such");
        assert_eq!(message(&[("retention.ms", None)]), "Null value not supported for topic configs: retention.ms");
        assert_eq!(
            message(&[("retention.ms", Some("x"))]),
            "Invalid value x for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            message(&[("min.compaction.lag.ms", Some("10")), ("max.compaction.lag.ms", Some("9"))]),
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (9)"
        );
        let canonical = validate(&[("preallocate", Some(" True")), ("cleanup.policy", Some("delete "))]).unwrap();
        assert_eq!(canonical["preallocate"], "true");
        assert_eq!(canonical["cleanup.policy"], "delete");
    }

    #[test]
    fn the_brokers_lags_count_against_a_topics() {
        let mut dynamic = DynamicSettings::default();
        dynamic.cluster.insert("log.cleaner.min.compaction.lag.ms".into(), "50".into());
        let broker = BrokerSettings::new(BrokerValues::default(), dynamic);
        let refused = validate_overrides([("max.compaction.lag.ms", Some("49"))], &broker);
        assert_eq!(refused, Err(SettingError::CompactionLags { min: 50, max: 49 }));
    }
}
