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
pub const SHARE_DELIVERY_COUNT_LIMIT: &str = "share.delivery.count.limit";
pub const SHARE_HEARTBEAT_INTERVAL_MS: &str = "share.heartbeat.interval.ms";
pub const SHARE_ISOLATION_LEVEL: &str = "share.isolation.level";
pub const SHARE_PARTITION_MAX_RECORD_LOCKS: &str = "share.partition.max.record.locks";
pub const SHARE_RECORD_LOCK_DURATION_MS: &str = "share.record.lock.duration.ms";
pub const SHARE_RENEW_ACKNOWLEDGE_ENABLE: &str = "share.renew.acknowledge.enable";
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

/// Where a share group begins with a partition that it has never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    Earliest,
    Latest,
    /// The first record that is no older than this, in milliseconds.
    ByDuration(i64),
}

impl FromStr for OffsetReset {
    type Err = ();

    fn from_str(text: &str) -> Result<OffsetReset, ()> {
        match text {
            "earliest" => Ok(OffsetReset::Earliest),
            "latest" => Ok(OffsetReset::Latest),
            _ => {
                let duration = text.strip_prefix("by_duration:").and_then(duration_ms);
                duration.filter(|ms| *ms >= 0).map(OffsetReset::ByDuration).ok_or(())
            }
        }
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
    bounded(
        CONSUMER_HEARTBEAT_INTERVAL_MS,
        ("5000", 1),
        "group.consumer.heartbeat.interval.ms",
        ("group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"),
        "Time between two heartbeats that members of the consumer group are told to keep.",
    ),
    bounded(
        CONSUMER_SESSION_TIMEOUT_MS,
        ("45000", 1),
        "group.consumer.session.timeout.ms",
        ("group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"),
        "Time after which a silent member of the consumer group is put out.",
    ),
    free(
        SHARE_AUTO_OFFSET_RESET,
        ValueType::String,
        "latest",
        Check::OffsetReset,
        "Where the share group begins with a partition that it has never read: earliest, latest, or by_duration:PnDTnHnMn.nS.",
    ),
    bounded(
        SHARE_DELIVERY_COUNT_LIMIT,
        ("5", 2),
        "group.share.delivery.count.limit",
        ("group.share.min.delivery.count.limit", "group.share.max.delivery.count.limit"),
        "How often a record is delivered to the share group at most.",
    ),
    bounded(
        SHARE_HEARTBEAT_INTERVAL_MS,
        ("5000", 1),
        "group.share.heartbeat.interval.ms",
        ("group.share.min.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms"),
        "Time between two heartbeats that members of the share group are told to keep.",
    ),
    free(
        SHARE_ISOLATION_LEVEL,
        ValueType::String,
        "read_uncommitted",
        Check::OneOf(&["read_committed", "read_uncommitted"]),
        "Whether the share group is given records of transactions that are open or aborted.",
    ),
    bounded(
        SHARE_PARTITION_MAX_RECORD_LOCKS,
        ("2000", 100),
        "group.share.partition.max.record.locks",
        ("group.share.min.partition.max.record.locks", "group.share.max.partition.max.record.locks"),
        "Offsets of a partition that may be between the first one that the share group has not processed and the last one delivered.",
    ),
    bounded(
        SHARE_RECORD_LOCK_DURATION_MS,
        ("30000", 1_000),
        "group.share.record.lock.duration.ms",
        ("group.share.min.record.lock.duration.ms", "group.share.max.record.lock.duration.ms"),
        "Time for which a record is locked for the member of the share group that acquired it.",
    ),
    free(
        SHARE_RENEW_ACKNOWLEDGE_ENABLE,
        ValueType::Boolean,
        "true",
        Check::Any,
        "Whether members of the share group may ask for more time with a record.",
    ),
    bounded(
        SHARE_SESSION_TIMEOUT_MS,
        ("45000", 1),
        "group.share.session.timeout.ms",
        ("group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"),
        "Time after which a silent member of the share group is put out.",
    ),
];

/// A number for which there are broker settings.
const fn bounded(
    name: &'static str,
    (default, least): (&'static str, i64),
    server: &'static str,
    bounds: (&'static str, &'static str),
    documentation: &'static str,
) -> GroupSetting {
    let (value_type, check) = (ValueType::Int, Check::AtLeast(least));
    let definition = Definition { name, value_type, default: Some(default), check, documentation };
    GroupSetting { definition, server: Some(server), bounds: Some(bounds) }
}

/// One that no broker setting stands behind.
const fn free(
    name: &'static str,
    value_type: ValueType,
    default: &'static str,
    check: Check,
    documentation: &'static str,
) -> GroupSetting {
    let definition = Definition { name, value_type, default: Some(default), check, documentation };
    GroupSetting { definition, server: None, bounds: None }
}

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
            return out_of_bounds("greater than or equal to", min);
        }
        if server_number(broker, max).is_some_and(|max| value > max) {
            return out_of_bounds("less than or equal to", max);
        }
    }
    Ok(())
}

/// What a group's own settings say, if they do.
pub fn own<T: FromStr>(overrides: &Overrides, name: &str) -> Option<T> {
    overrides.get(name)?.parse().ok()
}

/// The value of a broker setting: given at the start or built in.
pub(super) fn server_value(broker: &BrokerSettings, name: &str) -> Option<String> {
    broker.given(name).map(|(value, _)| value).or_else(|| broker.given_by(Source::Default, name))
}

fn server_number(broker: &BrokerSettings, name: &str) -> Option<i64> {
    server_value(broker, name)?.parse().ok()
}

/// Milliseconds of a duration as ISO 8601 writes it and Java reads it: `P[nD][T[nH][nM][n.nS]]`, with signs, in either
/// case. `None` if it is none, or one too long to count.
fn duration_ms(text: &str) -> Option<i64> {
    let text = text.to_ascii_uppercase();
    let (sign, rest) = signed(&text);
    let (days, time) = match rest.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (rest.strip_prefix('P')?, ""),
    };
    let (days, rest) = part(days, 'D', DAY_MS)?;
    let (hours, time) = part(time, 'H', 3_600_000)?;
    let (minutes, time) = part(time, 'M', 60_000)?;
    let (seconds, time) = part(time, 'S', 1_000)?;
    let parts = [days, hours, minutes, seconds];
    if !rest.is_empty() || !time.is_empty() || parts.iter().all(Option::is_none) {
        return None;
    }
    parts.into_iter().flatten().try_fold(0_i64, i64::checked_add)?.checked_mul(sign)
}

const DAY_MS: i64 = 86_400_000;

/// The number before `unit` in milliseconds, and what follows; seconds may have a fraction. The first is `None` if there
/// is no such unit.
fn part(text: &str, unit: char, unit_ms: i64) -> Option<(Option<i64>, &str)> {
    let Some((number, rest)) = text.split_once(unit) else { return Some((None, text)) };
    let (sign, digits) = signed(number);
    let (whole, fraction) = match digits.split_once(['.', ',']) {
        Some((whole, fraction)) if unit == 'S' && fraction.len() <= 9 => (whole, fraction),
        Some(_) => return None,
        None => (digits, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let ms = whole.parse::<i64>().ok()?.checked_mul(unit_ms)?.checked_add(thousandths.parse().ok()?)?;
    Some((Some(ms * sign), rest))
}

fn signed(text: &str) -> (i64, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
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
            "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"
        );
        assert_eq!(
            judged(CONSUMER_HEARTBEAT_INTERVAL_MS, "15001").unwrap_err(),
            "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms"
        );
        assert!(judged(CONSUMER_SESSION_TIMEOUT_MS, "soon").unwrap_err().contains("Not a number of type INT"));
        assert_eq!(judged("retention.ms", "1").unwrap_err(), "Unknown group config name: retention.ms");
    }

    #[test]
    fn share_groups_have_settings_of_their_own() {
        assert_eq!(judged(SHARE_AUTO_OFFSET_RESET, "earliest"), Ok(()));
        assert_eq!(judged(SHARE_ISOLATION_LEVEL, "read_committed"), Ok(()));
        assert_eq!(judged(SHARE_AUTO_OFFSET_RESET, "by_duration:PT1H"), Ok(()));
        assert_eq!(
            judged(SHARE_AUTO_OFFSET_RESET, "none").unwrap_err(),
            "Invalid value none for configuration share.auto.offset.reset: Invalid value `none` for configuration \
             share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format \
             'by_duration:<PnDTnHnMn.nS>'."
        );
        assert_eq!(judged(SHARE_RENEW_ACKNOWLEDGE_ENABLE, "false"), Ok(()));
        assert_eq!(judged(SHARE_DELIVERY_COUNT_LIMIT, "10"), Ok(()));
        assert!(judged(SHARE_DELIVERY_COUNT_LIMIT, "1").unwrap_err().ends_with("Value must be at least 2"));
        assert_eq!(
            judged(SHARE_DELIVERY_COUNT_LIMIT, "11").unwrap_err(),
            "share.delivery.count.limit must be less than or equal to group.share.max.delivery.count.limit"
        );
        assert!(judged(SHARE_PARTITION_MAX_RECORD_LOCKS, "99").is_err());
        assert!(judged(SHARE_RECORD_LOCK_DURATION_MS, "14999").unwrap_err().contains("group.share.min.record.lock"));
        assert!(GROUP_SETTINGS.is_sorted_by_key(|setting| setting.definition.name), "they are told in this order");
    }

    #[test]
    fn durations_are_read_as_java_reads_them() {
        for (text, ms) in [
            ("PT1H", 3_600_000),
            ("P2DT3H4M", 2 * DAY_MS + 3 * 3_600_000 + 4 * 60_000),
            ("pt20.3456s", 20_345),
            ("PT0,5S", 500),
            ("P1D", DAY_MS),
            ("PT-6H+3M", -6 * 3_600_000 + 3 * 60_000),
            ("-PT-1S", 1_000),
            ("PT0S", 0),
        ] {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1DT",
            "1H",
            "PT1",
            "PTH",
            "PT1.5H",
            "P1H",
            "PT1S2M",
            "P1DD",
            "PT1.0123456789S",
            "P9999999999999D",
        ] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
        assert_eq!("by_duration:PT-1S".parse::<OffsetReset>(), Err(()), "negative");
        assert_eq!("by_duration".parse::<OffsetReset>(), Err(()));
        assert_eq!("by_duration:PT1S".parse(), Ok(OffsetReset::ByDuration(1_000)));
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
