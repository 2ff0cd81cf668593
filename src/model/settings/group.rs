//! The table of group settings: what can be set for one group (Kafka 4's `GroupConfig`), with the broker setting that
//! gives the default and those that bound it. Kept by `group`; judged and described for the Kafka door.

use std::str::FromStr;

use super::definition::{Check, Definition, SettingError, Value, ValueType, check_length};
use super::{BrokerSettings, Overrides, Source};

/// Groups that have settings of their own.
pub const CONFIGURED_GROUPS_MAX: usize = 100_000;

pub const CONSUMER_SESSION_TIMEOUT_MS: &str = "consumer.session.timeout.ms";
pub const CONSUMER_HEARTBEAT_INTERVAL_MS: &str = "consumer.heartbeat.interval.ms";
pub const SHARE_AUTO_OFFSET_RESET: &str = "share.auto.offset.reset";
pub const SHARE_HEARTBEAT_INTERVAL_MS: &str = "share.heartbeat.interval.ms";
pub const SHARE_ISOLATION_LEVEL: &str = "share.isolation.level";
pub const SHARE_RECORD_LOCK_DURATION_MS: &str = "share.record.lock.duration.ms";
pub const SHARE_SESSION_TIMEOUT_MS: &str = "share.session.timeout.ms";

/// Which way groups that have members may go over between the classic protocol and KIP-848's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    Bidirectional,
    Upgrade,
    Downgrade,
    Disabled,
}

impl MigrationPolicy {
    const ALL: [MigrationPolicy; 4] = [
        MigrationPolicy::Bidirectional,
        MigrationPolicy::Upgrade,
        MigrationPolicy::Downgrade,
        MigrationPolicy::Disabled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            MigrationPolicy::Bidirectional => "bidirectional",
            MigrationPolicy::Upgrade => "upgrade",
            MigrationPolicy::Downgrade => "downgrade",
            MigrationPolicy::Disabled => "disabled",
        }
    }

    pub fn upgrades(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Upgrade)
    }

    pub fn downgrades(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Downgrade)
    }
}

impl FromStr for MigrationPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<MigrationPolicy, String> {
        let named = MigrationPolicy::ALL.into_iter().find(|policy| policy.name() == text);
        named.ok_or_else(|| format!("{text:?} is not one of bidirectional, upgrade, downgrade, disabled"))
    }
}

/// One setting of groups.
pub struct GroupSetting {
    pub definition: Definition,
    /// The broker setting whose value holds for a group that does not set this; else its own default does.
    pub server: Option<&'static str>,
    /// The broker settings with the least and the greatest value.
    pub bounds: Option<(&'static str, &'static str)>,
}

/// By name.
pub const GROUP_SETTINGS: &[GroupSetting] = &[
    GroupSetting {
        definition: Definition {
            name: CONSUMER_HEARTBEAT_INTERVAL_MS,
            value_type: ValueType::Int,
            default: Some("5000"),
            check: Check::AtLeast(1),
            documentation: "Time between two heartbeats that members of the consumer group are told to keep.",
        },
        server: Some("group.consumer.heartbeat.interval.ms"),
        bounds: Some(("group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms")),
    },
    GroupSetting {
        definition: Definition {
            name: CONSUMER_SESSION_TIMEOUT_MS,
            value_type: ValueType::Int,
            default: Some("45000"),
            check: Check::AtLeast(1),
            documentation: "Time after which a silent member of the consumer group is put out.",
        },
        server: Some("group.consumer.session.timeout.ms"),
        bounds: Some(("group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms")),
    },
    GroupSetting {
        definition: Definition {
            name: SHARE_AUTO_OFFSET_RESET,
            value_type: ValueType::String,
            default: Some("latest"),
            check: Check::OneOf(&["earliest", "latest"]),
            documentation: "Where the share group begins with a partition that it has never read.",
        },
        server: None,
        bounds: None,
    },
    GroupSetting {
        definition: Definition {
            name: SHARE_HEARTBEAT_INTERVAL_MS,
            value_type: ValueType::Int,
            default: Some("5000"),
            check: Check::Between(5_000, 15_000),
            documentation: "Time between two heartbeats that members of the share group are told to keep.",
        },
        server: None,
        bounds: None,
    },
    GroupSetting {
        definition: Definition {
            name: SHARE_ISOLATION_LEVEL,
            value_type: ValueType::String,
            default: Some("read_uncommitted"),
            check: Check::OneOf(&["read_committed", "read_uncommitted"]),
            documentation: "Whether the share group is given records of transactions that are open or aborted.",
        },
        server: None,
        bounds: None,
    },
    GroupSetting {
        definition: Definition {
            name: SHARE_RECORD_LOCK_DURATION_MS,
            value_type: ValueType::Int,
            default: Some("30000"),
            check: Check::Between(15_000, 60_000),
            documentation: "Time for which a record is locked for the member of the share group that acquired it.",
        },
        server: None,
        bounds: None,
    },
    GroupSetting {
        definition: Definition {
            name: SHARE_SESSION_TIMEOUT_MS,
            value_type: ValueType::Int,
            default: Some("45000"),
            check: Check::Between(45_000, 60_000),
            documentation: "Time after which a silent member of the share group is put out.",
        },
        server: None,
        bounds: None,
    },
];

pub fn group_setting(name: &str) -> Option<&'static GroupSetting> {
    GROUP_SETTINGS.iter().find(|setting| setting.definition.name == name)
}

/// Judges what is set for a group: names, types, and the broker's bounds.
pub fn validate(overrides: &Overrides, broker: &BrokerSettings) -> Result<(), SettingError> {
    for (name, value) in overrides {
        check_length(name, value)?;
        let setting = group_setting(name).ok_or_else(|| SettingError::UnknownGroupName(name.clone()))?;
        let value = setting.definition.parse(value)?;
        let (Value::Number(value), Some((min, max))) = (value, setting.bounds) else { continue };
        let out_of_bounds = |relation, bound: &str| {
            Err(SettingError::OutOfBounds { name: name.clone(), relation, bound: bound.to_owned() })
        };
        if server_number(broker, min).is_some_and(|min| value < min) {
            return out_of_bounds("greater than or equals to", min);
        }
        if server_number(broker, max).is_some_and(|max| value > max) {
            return out_of_bounds("less than or equals to", max);
        }
    }
    Ok(())
}

/// The number that a group's own settings give, if they do.
pub fn own_number(overrides: &Overrides, name: &str) -> Option<i64> {
    overrides.get(name)?.parse().ok()
}

/// The value of a broker setting: given at the start or built in.
pub(super) fn server_value(broker: &BrokerSettings, name: &str) -> Option<String> {
    broker.given(name).map(|(value, _)| value).or_else(|| broker.given_by(Source::Default, name))
}

fn server_number(broker: &BrokerSettings, name: &str) -> Option<i64> {
    server_value(broker, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, value: &str) -> Result<(), String> {
        let overrides = Overrides::from([(name.to_owned(), value.to_owned())]);
        validate(&overrides, &BrokerSettings::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_held_against_the_brokers_bounds() {
        assert_eq!(judged(CONSUMER_SESSION_TIMEOUT_MS, "50000"), Ok(()));
        assert_eq!(
            judged(CONSUMER_SESSION_TIMEOUT_MS, "44999").unwrap_err(),
            "consumer.session.timeout.ms must be greater than or equals to group.consumer.min.session.timeout.ms"
        );
        assert_eq!(
            judged(CONSUMER_HEARTBEAT_INTERVAL_MS, "15001").unwrap_err(),
            "consumer.heartbeat.interval.ms must be less than or equals to group.consumer.max.heartbeat.interval.ms"
        );
        assert!(judged(CONSUMER_SESSION_TIMEOUT_MS, "soon").unwrap_err().contains("Not a number of type INT"));
        assert_eq!(judged("retention.ms", "1").unwrap_err(), "Unknown group config name: retention.ms");
    }

    #[test]
    fn share_groups_have_settings_of_their_own() {
        assert_eq!(judged(SHARE_AUTO_OFFSET_RESET, "earliest"), Ok(()));
        assert_eq!(judged(SHARE_ISOLATION_LEVEL, "read_committed"), Ok(()));
        assert!(judged(SHARE_AUTO_OFFSET_RESET, "never").is_err());
        assert!(judged(SHARE_RECORD_LOCK_DURATION_MS, "1").is_err());
        assert!(GROUP_SETTINGS.is_sorted_by_key(|setting| setting.definition.name), "they are told in this order");
    }

    #[test]
    fn every_setting_stands_on_broker_settings_that_there_are() {
        let broker = BrokerSettings::default();
        for setting in GROUP_SETTINGS {
            if let Some(server) = setting.server {
                assert_eq!(server_value(&broker, server).as_deref(), setting.definition.default);
            }
            let bounds = setting.bounds.into_iter().flat_map(|(min, max)| [min, max]);
            assert!(bounds.into_iter().all(|bound| server_number(&broker, bound).is_some()));
        }
    }
}
