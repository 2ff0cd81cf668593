//! The broker's settings: those that stand behind topic settings and can be altered while running, and those that are
//! fixed at the start and only described.
//!
//! [`BrokerValues`] is what the start decided, filled in by `server`; [`DynamicSettings`] is what clients altered since,
//! stored by `broker` and applied at once, because every stream resolves its settings through [`BrokerSettings`].
//! Altering a fixed setting is refused as Kafka refuses its read-only ones. A name that is neither is a custom setting:
//! as in Kafka it is kept and listed, its value treated as sensitive, and it changes nothing.

use serde::{Deserialize, Serialize};

use super::definition::{SettingError, check_length};
use super::topic::{self, Server, TOPIC_SETTINGS, TopicSetting};
use super::{Overrides, Source};
use crate::model::attributes::{Isolation, LimitsPolicy};

mod fixed;

pub(super) use fixed::{FIXED, Fixed};

/// Custom settings of one scope.
pub const CUSTOM_MAX: usize = 1_000;

/// What the start decided. Times are milliseconds, sizes are bytes, -1 means no limit for the two retention values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerValues {
    pub node_id: i32,
    /// As Kafka writes listeners: `PLAINTEXT://127.0.0.1:9092,...`.
    pub listeners: String,
    pub advertised_listeners: String,
    /// The data folder.
    pub log_dirs: String,
    pub num_partitions: i32,
    pub auto_create_topics_enable: bool,
    pub message_max_bytes: i64,
    pub log_retention_ms: i64,
    pub log_retention_bytes: i64,
    pub log_segment_bytes: i64,
    pub log_cleaner_backoff_ms: i64,
    pub log_cleaner_dedupe_buffer_size: i64,
    pub log_retention_check_interval_ms: i64,
    /// `kinesis.isolation` of a topic that does not set it.
    pub kinesis_isolation: Isolation,
    /// `kinesis.limits` of a topic that does not set it.
    pub kafka_limits: LimitsPolicy,
    pub socket_request_max_bytes: i64,
    pub connections_max_idle_ms: i64,
    pub max_connections: i64,
    pub fetch_max_bytes: i64,
    pub max_incremental_fetch_session_cache_slots: i64,
    pub producer_id_expiration_ms: i64,
    pub transaction_max_timeout_ms: i64,
    pub transactional_id_expiration_ms: i64,
    pub group_initial_rebalance_delay_ms: i64,
    pub group_min_session_timeout_ms: i64,
    pub group_max_session_timeout_ms: i64,
    pub group_max_size: i64,
    pub group_consumer_session_timeout_ms: i64,
    pub group_consumer_min_session_timeout_ms: i64,
    pub group_consumer_max_session_timeout_ms: i64,
    pub group_consumer_heartbeat_interval_ms: i64,
    pub group_consumer_min_heartbeat_interval_ms: i64,
    pub group_consumer_max_heartbeat_interval_ms: i64,
    pub group_consumer_migration_policy: &'static str,
    pub share_groups: ShareGroupValues,
    pub offsets_retention_ms: i64,
    pub offset_metadata_max_bytes: i64,
}

/// A value that groups can have of their own, and between what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded {
    pub value: i64,
    pub min: i64,
    pub max: i64,
}

/// What the start decided for share groups. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareGroupValues {
    pub session_timeout_ms: Bounded,
    pub heartbeat_interval_ms: Bounded,
    pub record_lock_duration_ms: Bounded,
    pub delivery_count_limit: Bounded,
    pub partition_max_record_locks: Bounded,
    pub max_size: i64,
    pub max_share_sessions: i64,
}

impl Default for ShareGroupValues {
    /// Kafka's.
    fn default() -> ShareGroupValues {
        ShareGroupValues {
            session_timeout_ms: Bounded { value: 45_000, min: 45_000, max: 60_000 },
            heartbeat_interval_ms: Bounded { value: 5_000, min: 5_000, max: 15_000 },
            record_lock_duration_ms: Bounded { value: 30_000, min: 15_000, max: 60_000 },
            delivery_count_limit: Bounded { value: 5, min: 2, max: 10 },
            partition_max_record_locks: Bounded { value: 2_000, min: 100, max: 4_000 },
            max_size: 200,
            max_share_sessions: 2_000,
        }
    }
}

impl Default for BrokerValues {
    /// This broker's defaults: Kafka's, but that a new group does not wait for more members, more connections are bounded
    /// and expired records are looked for more often.
    fn default() -> BrokerValues {
        BrokerValues {
            node_id: 1,
            listeners: String::new(),
            advertised_listeners: String::new(),
            log_dirs: String::new(),
            num_partitions: 1,
            auto_create_topics_enable: true,
            message_max_bytes: 1_048_588,
            log_retention_ms: 604_800_000,
            log_retention_bytes: -1,
            log_segment_bytes: 1 << 30,
            log_cleaner_backoff_ms: 15_000,
            log_cleaner_dedupe_buffer_size: 64 << 20,
            log_retention_check_interval_ms: 30_000,
            kinesis_isolation: Isolation::Committed,
            kafka_limits: LimitsPolicy::Observe,
            socket_request_max_bytes: 100 << 20,
            connections_max_idle_ms: 600_000,
            max_connections: 20_000,
            fetch_max_bytes: 55 << 20,
            max_incremental_fetch_session_cache_slots: 1_000,
            producer_id_expiration_ms: 86_400_000,
            transaction_max_timeout_ms: 900_000,
            transactional_id_expiration_ms: 604_800_000,
            group_initial_rebalance_delay_ms: 0,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_max_size: i64::from(i32::MAX),
            group_consumer_session_timeout_ms: 45_000,
            group_consumer_min_session_timeout_ms: 45_000,
            group_consumer_max_session_timeout_ms: 60_000,
            group_consumer_heartbeat_interval_ms: 5_000,
            group_consumer_min_heartbeat_interval_ms: 5_000,
            group_consumer_max_heartbeat_interval_ms: 15_000,
            group_consumer_migration_policy: "bidirectional",
            share_groups: ShareGroupValues::default(),
            offsets_retention_ms: 7 * 86_400_000,
            offset_metadata_max_bytes: 4_096,
        }
    }
}

/// What clients altered while the broker ran. Stored as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DynamicSettings {
    /// For this node.
    pub node: Overrides,
    /// For every node of the cluster: Kafka's resource with the empty name.
    pub cluster: Overrides,
}

/// Which of the two an alteration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Node,
    Cluster,
}

/// The broker's settings as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerSettings {
    values: BrokerValues,
    dynamic: DynamicSettings,
}

/// Where a broker setting's value may come from, highest precedence first.
pub(super) const BROKER_SOURCES: [Source; 4] =
    [Source::DynamicBroker, Source::DynamicDefaultBroker, Source::StaticBroker, Source::Default];

/// The topic setting that the broker setting `name` stands behind.
pub(super) fn behind(name: &str) -> Option<(&'static TopicSetting, Server)> {
    TOPIC_SETTINGS
        .iter()
        .find_map(|setting| setting.server.filter(|server| server.name == name).map(|server| (setting, server)))
}

pub(super) fn fixed_setting(name: &str) -> Option<&'static Fixed> {
    FIXED.iter().find(|setting| setting.definition.name == name)
}

impl BrokerSettings {
    pub fn new(values: BrokerValues, dynamic: DynamicSettings) -> BrokerSettings {
        BrokerSettings { values, dynamic }
    }

    pub fn dynamic(&self) -> &DynamicSettings {
        &self.dynamic
    }

    /// The same start with other alterations.
    pub fn with_dynamic(&self, dynamic: DynamicSettings) -> BrokerSettings {
        BrokerSettings { values: self.values.clone(), dynamic }
    }

    /// The value that the broker setting `name` was given, and by what; `None` where only its default is left.
    pub fn given(&self, name: &str) -> Option<(String, Source)> {
        let mut sources = BROKER_SOURCES.into_iter().filter(|source| *source != Source::Default);
        sources.find_map(|source| self.given_by(source, name).map(|value| (value, source)))
    }

    /// What one source says of the broker setting `name`.
    pub(super) fn given_by(&self, source: Source, name: &str) -> Option<String> {
        match source {
            Source::DynamicTopic | Source::DynamicGroup => None,
            Source::DynamicBroker => self.dynamic.node.get(name).cloned(),
            Source::DynamicDefaultBroker => self.dynamic.cluster.get(name).cloned(),
            Source::StaticBroker => self.given_at_start(name),
            Source::Default => default_of(name).map(str::to_owned),
        }
    }

    /// The value from the start, where it is not the default.
    fn given_at_start(&self, name: &str) -> Option<String> {
        if let Some(setting) = fixed_setting(name) {
            return setting.read(&self.values).filter(|value| Some(value.as_str()) != setting.definition.default);
        }
        let (setting, _) = behind(name)?;
        let value = match setting.definition.name {
            topic::KINESIS_ISOLATION => self.values.kinesis_isolation.to_string(),
            topic::KINESIS_LIMITS => self.values.kafka_limits.to_string(),
            topic::MAX_MESSAGE_BYTES => self.values.message_max_bytes.to_string(),
            topic::RETENTION_MS => self.values.log_retention_ms.to_string(),
            topic::RETENTION_BYTES => self.values.log_retention_bytes.to_string(),
            topic::SEGMENT_BYTES => self.values.log_segment_bytes.to_string(),
            _ => return None,
        };
        Some(value).filter(|value| Some(value.as_str()) != setting.definition.default)
    }
}

impl DynamicSettings {
    pub fn scope(&self, scope: Scope) -> &Overrides {
        match scope {
            Scope::Node => &self.node,
            Scope::Cluster => &self.cluster,
        }
    }

    /// These settings with all of `scope` replaced by `altered`, once that has been judged.
    pub fn replaced(&self, scope: Scope, altered: Overrides) -> Result<DynamicSettings, SettingError> {
        let altered = validate_dynamic(altered)?;
        let mut settings = self.clone();
        match scope {
            Scope::Node => settings.node = altered,
            Scope::Cluster => settings.cluster = altered,
        }
        Ok(settings)
    }
}

/// Judges all that one scope is to hold.
fn validate_dynamic(altered: Overrides) -> Result<Overrides, SettingError> {
    let refused: Vec<_> = altered.keys().filter(|name| fixed_setting(name).is_some()).cloned().collect();
    if !refused.is_empty() {
        return Err(SettingError::NotDynamic(refused));
    }
    if altered.keys().filter(|name| behind(name).is_none()).count() > CUSTOM_MAX {
        return Err(SettingError::TooManyCustom { max: CUSTOM_MAX });
    }
    altered
        .into_iter()
        .map(|(name, value)| {
            check_length(&name, &value)?;
            let value = match behind(&name) {
                Some((setting, _)) => setting.definition.parse_as(&name, &value)?.to_string(),
                None => value,
            };
            Ok((name, value))
        })
        .collect()
}

/// The built-in default of a broker setting.
fn default_of(name: &str) -> Option<&'static str> {
    match behind(name) {
        Some((setting, server)) => server.default(setting.definition.default),
        None => fixed_setting(name).and_then(|setting| setting.definition.default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_tables_are_sorted_apart_and_their_fallbacks_exist() {
        let names: Vec<_> = FIXED.iter().map(|setting| setting.definition.name).collect();
        assert!(names.is_sorted());
        assert!(names.iter().all(|name| behind(name).is_none()));
        for server in TOPIC_SETTINGS.iter().filter_map(|setting| setting.server) {
            assert!(server.fallbacks.iter().all(|name| fixed_setting(name).is_some()), "{}", server.name);
        }
        for setting in FIXED {
            let definition = setting.definition;
            if let Some(default) = definition.default {
                assert_eq!(definition.parse(default).unwrap().to_string(), default, "{}", definition.name);
            }
        }
    }

    #[test]
    fn the_defaults_of_the_start_are_the_tables() {
        let settings = BrokerSettings::default();
        let given: Vec<_> = FIXED
            .iter()
            .map(|setting| setting.definition.name)
            .chain(TOPIC_SETTINGS.iter().filter_map(|setting| setting.server.map(|server| server.name)))
            .filter(|name| settings.given(name).is_some())
            .collect();
        assert_eq!(given, ["advertised.listeners", "broker.id", "listeners", "log.dirs", "node.id"]);
    }

    #[test]
    fn values_of_the_start_and_altered_ones_know_their_source() {
        let values = BrokerValues { log_segment_bytes: 1 << 20, num_partitions: 4, ..BrokerValues::default() };
        let dynamic = DynamicSettings::default()
            .replaced(Scope::Cluster, overrides(&[("log.segment.bytes", " 2097152")]))
            .unwrap();
        let start = BrokerSettings::new(values, DynamicSettings::default());
        let at = |value: &str, source| Some((value.to_owned(), source));
        assert_eq!(start.given("log.segment.bytes"), at("1048576", Source::StaticBroker));
        assert_eq!(start.given("num.partitions"), at("4", Source::StaticBroker));
        assert_eq!(start.given("log.retention.ms"), None);
        let altered = start.with_dynamic(dynamic);
        assert_eq!(altered.given("log.segment.bytes"), at("2097152", Source::DynamicDefaultBroker));
    }

    #[test]
    fn only_what_is_applied_live_can_be_altered() {
        let replace = |pairs: &[(&str, &str)]| DynamicSettings::default().replaced(Scope::Node, overrides(pairs));
        assert_eq!(
            replace(&[("num.partitions", "3"), ("node.id", "2"), ("log.retention.ms", "1")]).unwrap_err().to_string(),
            "Cannot update these configs dynamically: Set(node.id, num.partitions)"
        );
        assert_eq!(
            replace(&[("log.roll.ms", "0")]).unwrap_err().to_string(),
            "Invalid value 0 for configuration log.roll.ms: Value must be at least 1"
        );
        assert!(replace(&[("log.cleanup.policy", "compacted")]).is_err());
        let long = "x".repeat(32_768);
        assert_eq!(replace(&[("my.plugin.key", &long)]), Err(SettingError::TooLong));
        assert_eq!(replace(&[(&long, "v")]), Err(SettingError::TooLong));
        // A plugin's setting, in Kafka's eyes.
        assert_eq!(replace(&[("my.plugin.key", " v ")]).unwrap().node["my.plugin.key"], " v ");
        let many: Overrides = (0..=CUSTOM_MAX).map(|n| (format!("custom.{n}"), String::new())).collect();
        let refused = DynamicSettings::default().replaced(Scope::Node, many);
        assert_eq!(refused, Err(SettingError::TooManyCustom { max: CUSTOM_MAX }));
    }
}
