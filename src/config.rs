//! Settings: what they are called, what they default to, and where their values come from.
//!
//! Each setting is declared once, in [`settings!`](self) below; its flag (`--num-partitions`), environment variable
//! (`ANABRANCH_NUM_PARTITIONS`), line of the optional TOML file (`num-partitions = 1`) and place in `--help` all follow
//! from that row. A value comes from the first of: flag, environment, file, default. Other `ANABRANCH_*` variables are
//! ignored, because orchestrators set such names for services that happen to be called anabranch; unknown keys of the
//! file are errors.
//!
//! Read by `main` ([`Invocation::load`], which also knows the tools beside the server) and handed to `server`; tests start from [`Config::default`]. Units in [`Config`]:
//! times are milliseconds, sizes are bytes, and -1 means unlimited where a row says so.

mod access_keys;
mod commands;
mod keys;
mod memory;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::model::attributes::{Isolation, LimitsPolicy};
use crate::model::settings::broker::{Bounded, ShareGroupValues};
use crate::model::settings::group::MigrationPolicy;

pub use access_keys::AccessKey;
use access_keys::credentials;
pub use commands::{Inspect, Invocation, Top};
pub use keys::MasterKey;
use keys::master_keys;
pub use memory::MemoryShares;
pub use values::{AuditLog, Durability, Endpoint, HostPort, Listener, LogFormat};
use values::{
    account_id, bytes, bytes_or_unlimited, duration, duration_or_unlimited, endpoint, host_port, listeners, log_filter,
    one_of, path, ratio, region, switch, whole,
};

/// One row of the table.
struct Setting {
    /// As in the flag and the file: `num-partitions`.
    name: &'static str,
    section: &'static str,
    /// What the value is, unit included: `DURATION`.
    value: &'static str,
    default: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Reads a section, then rows of: what it is; `field: type = default, <VALUE> parser`.
macro_rules! settings {
    ($($section:literal { $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:literal, <$value:ident> $parse:expr;)+ })+) => {
        /// Every setting, parsed and validated.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($($(#[doc = $doc])+ pub $field: $type,)+)+
        }

        const SETTINGS: &[Setting] = &[$($(Setting {
            name: {
                const KEBAB: [u8; stringify!($field).len()] = kebab(stringify!($field));
                match std::str::from_utf8(&KEBAB) {
                    Ok(name) => name,
                    Err(_) => stringify!($field),
                }
            },
            section: $section,
            value: stringify!($value),
            default: $default,
            help: concat!($($doc),+),
            set: |config, text| {
                config.$field = ($parse)(text)?;
                Ok(())
            },
        }),+),+];

        impl Default for Config {
            fn default() -> Config {
                Config { $($($field: constant(($parse)($default)),)+)+ }
            }
        }
    };
}

settings! {
    "Storage" {
        /// Folder that holds everything; made if it is missing
        data_dir: PathBuf = "anabranch-data", <DIR> path;
        /// What acknowledged records survive: os, a crash of this process; sync, one of the machine too
        durability: Durability = "os", <WHEN> one_of;
        /// Memory that the process keeps within under any load: write buffers, caches, requests and answers under way
        memory: usize = "512MiB", <SIZE> bytes(16 << 20, 1 << 40);
        /// Memory for the keys of one partition being compacted: a key takes about 29 bytes, whatever its length
        compaction_memory: usize = "64MiB", <SIZE> bytes(64 << 10, 1 << 40);
        /// How long records of a topic without retention.ms are kept, or -1
        log_retention: i64 = "7d", <DURATION> duration_or_unlimited(1);
        /// How much a partition of a topic without retention.bytes keeps, or -1
        log_retention_bytes: i64 = "-1", <SIZE> bytes_or_unlimited(0);
        /// segment.bytes of a topic that does not set it
        log_segment_bytes: i64 = "1GiB", <SIZE> bytes(1 << 20, i64::from(i32::MAX));
        /// Time between two looks for what can be compacted
        compaction_interval: i64 = "15s", <DURATION> duration(100, values::DAY);
        /// Time between two looks for expired records
        retention_check_interval: i64 = "30s", <DURATION> duration(100, values::DAY);
    }
    "Doors" {
        /// Kafka listeners [NAME=]HOST:PORT[@ADVERTISED_HOST:PORT], comma separated; port 0 picks a free one
        kafka_addr: Vec<Listener> = "127.0.0.1:9092", <LISTENERS> listeners;
        /// The Kinesis API, /health and /metrics
        http_addr: HostPort = "127.0.0.1:4567", <ADDRESS> host_port;
        /// This broker's id
        node_id: i32 = "1", <N> whole(0, i32::MAX);
        /// Kafka connections at once; further ones are closed
        connections_max: usize = "20000", <N> whole(1, 10_000_000);
        /// A Kafka connection without a request for this long is closed
        connections_idle_max: i64 = "10min", <DURATION> duration(100, 365 * values::DAY);
        /// Time for open requests to end when the server is stopped
        shutdown_grace: i64 = "10s", <DURATION> duration(0, values::DAY);
    }
    "Topics and records" {
        /// Make a topic when a client first asks for it
        auto_create_topics: bool = "true", <BOOL> switch;
        /// Partitions of a topic made without saying how many
        num_partitions: i32 = "1", <N> whole(1, 10_000);
        /// Take a replication factor above 1 and keep one replica, instead of refusing it
        lenient_replication: bool = "true", <BOOL> switch;
        /// Largest record batch of a topic that does not set max.message.bytes
        message_max_bytes: usize = "1048588", <SIZE> bytes(1, i32::MAX as usize);
        /// Largest Kafka request
        request_bytes_max: usize = "100MiB", <SIZE> bytes(1 << 10, i32::MAX as usize);
        /// Most bytes of records in one fetch answer
        fetch_bytes_max: usize = "55MiB", <SIZE> bytes(1 << 10, 1 << 30);
        /// Incremental fetch sessions kept
        fetch_sessions_max: usize = "1000", <N> whole(0, 1_000_000);
        /// An idempotent producer silent for this long is forgotten
        producer_id_expiration: i64 = "1d", <DURATION> duration(1, 3_650 * values::DAY);
        /// Longest timeout that a transactional producer may ask for
        transaction_timeout_max: i64 = "15min", <DURATION> duration(1, 24 * values::DAY);
        /// A transactional id without a transaction for this long is forgotten
        transactional_id_expiration: i64 = "7d", <DURATION> duration(1, 3_650 * values::DAY);
    }
    "Kinesis" {
        /// The AWS account that streams belong to
        account_id: String = "000000000000", <DIGITS> account_id;
        /// The AWS region in ARNs
        region: String = "us-east-1", <NAME> region;
        /// How long a stream stays CREATING, UPDATING or DELETING, and a consumer CREATING or DELETING
        state_delay: i64 = "500ms", <DURATION> duration(0, values::DAY);
        /// kinesis.limits of a stream made through the Kinesis API: enforce, observe or off
        kinesis_limits: LimitsPolicy = "enforce", <POLICY> one_of;
        /// kinesis.limits of a topic that does not set it: enforce, observe or off
        kafka_limits: LimitsPolicy = "observe", <POLICY> one_of;
        /// kinesis.isolation of a stream that does not set it: read_committed or read_uncommitted
        kinesis_isolation: Isolation = "read_committed", <LEVEL> one_of;
        /// Open shards of all streams together that the Kinesis API may make
        shards_max: usize = "20000", <N> whole(1, 10_000_000);
        /// On-demand streams at once
        on_demand_streams_max: usize = "50", <N> whole(0, 10_000_000);
        /// Throttle control operations at AWS's rates
        control_rates: bool = "true", <BOOL> switch;
        /// File of access keys, a line each: ACCESS_KEY_ID SECRET_KEY [PRINCIPAL_ARN]; without it any signature passes
        credentials: Vec<AccessKey> = "", <FILE> credentials;
        /// File of master keys for encryption at rest, a line each, the current one first: KEY_ID 32_BYTES_IN_BASE64
        /// [disabled]; or such rows themselves after keys: and separated by commas
        master_keys: Vec<MasterKey> = "", <FILE> master_keys;
        /// Serve POST /moto-api/reset, which deletes every stream: for test suites
        test_reset: bool = "false", <BOOL> switch;
    }
    "Consumer groups" {
        /// Time a new group waits for more members before its first rebalance
        group_initial_rebalance_delay: i64 = "0", <DURATION> duration(0, values::DAY);
        /// Shortest session timeout a member may ask for
        group_session_timeout_min: i64 = "6s", <DURATION> duration(1, values::DAY);
        /// Longest session timeout a member may ask for
        group_session_timeout_max: i64 = "30min", <DURATION> duration(1, values::DAY);
        /// Time after which a silent member of a group of the consumer protocol is put out
        group_consumer_session_timeout: i64 = "45s", <DURATION> duration(1, values::DAY);
        /// Shortest consumer.session.timeout.ms that can be set for a group
        group_consumer_session_timeout_min: i64 = "45s", <DURATION> duration(1, values::DAY);
        /// Longest consumer.session.timeout.ms that can be set for a group
        group_consumer_session_timeout_max: i64 = "1min", <DURATION> duration(1, values::DAY);
        /// Heartbeat interval of groups of the consumer protocol
        group_consumer_heartbeat_interval: i64 = "5s", <DURATION> duration(1, values::DAY);
        /// Shortest consumer.heartbeat.interval.ms that can be set for a group
        group_consumer_heartbeat_interval_min: i64 = "5s", <DURATION> duration(1, values::DAY);
        /// Longest consumer.heartbeat.interval.ms that can be set for a group
        group_consumer_heartbeat_interval_max: i64 = "15s", <DURATION> duration(1, values::DAY);
        /// Whether groups with members go over to the consumer protocol and back: bidirectional, upgrade, downgrade or disabled
        group_consumer_migration_policy: MigrationPolicy = "bidirectional", <POLICY> one_of;
        /// Members of one group
        group_size_max: usize = "2147483647", <N> whole(1, i32::MAX as usize);
        /// Time after which a silent member of a share group is put out
        group_share_session_timeout: i64 = "45s", <DURATION> duration(1, values::DAY);
        /// Shortest share.session.timeout.ms that can be set for a group
        group_share_session_timeout_min: i64 = "45s", <DURATION> duration(1, values::DAY);
        /// Longest share.session.timeout.ms that can be set for a group
        group_share_session_timeout_max: i64 = "1min", <DURATION> duration(1, values::DAY);
        /// Heartbeat interval of share groups
        group_share_heartbeat_interval: i64 = "5s", <DURATION> duration(1, values::DAY);
        /// Shortest share.heartbeat.interval.ms that can be set for a group
        group_share_heartbeat_interval_min: i64 = "5s", <DURATION> duration(1, values::DAY);
        /// Longest share.heartbeat.interval.ms that can be set for a group
        group_share_heartbeat_interval_max: i64 = "15s", <DURATION> duration(1, values::DAY);
        /// How long a record is locked for the member of a share group that acquired it
        group_share_record_lock_duration: i64 = "30s", <DURATION> duration(1_000, values::HOUR);
        /// Shortest share.record.lock.duration.ms that can be set for a group
        group_share_record_lock_duration_min: i64 = "15s", <DURATION> duration(1_000, values::HOUR);
        /// Longest share.record.lock.duration.ms that can be set for a group
        group_share_record_lock_duration_max: i64 = "1min", <DURATION> duration(1_000, values::HOUR);
        /// How often a record is delivered to a share group at most
        group_share_delivery_count_limit: i64 = "5", <N> whole(2, 25);
        /// Least share.delivery.count.limit that can be set for a group
        group_share_delivery_count_limit_min: i64 = "2", <N> whole(2, 25);
        /// Greatest share.delivery.count.limit that can be set for a group
        group_share_delivery_count_limit_max: i64 = "10", <N> whole(2, 25);
        /// Offsets of a partition that a share group may have in flight
        group_share_partition_record_locks: i64 = "2000", <N> whole(100, 10_000);
        /// Least share.partition.max.record.locks that can be set for a group
        group_share_partition_record_locks_min: i64 = "100", <N> whole(100, 10_000);
        /// Greatest share.partition.max.record.locks that can be set for a group
        group_share_partition_record_locks_max: i64 = "4000", <N> whole(100, 10_000);
        /// Members of one share group
        group_share_size_max: usize = "200", <N> whole(1, 1_000);
        /// Share sessions at once, of all share groups
        group_share_sessions_max: usize = "2000", <N> whole(1, 1_000_000);
        /// How long the offsets of an empty group are kept
        offsets_retention: i64 = "7d", <DURATION> duration(1, 3_650 * values::DAY);
        /// Longest metadata of a committed offset
        offset_metadata_bytes_max: usize = "4096", <SIZE> bytes(0, 1 << 20);
    }
    "Watching" {
        /// Topics, groups and partitions that get metric series of their own; the rest share one labelled _other
        metrics_label_max: usize = "1000", <N> whole(0, 1_000_000);
        /// Who asked for which control operation, as events of CloudTrail's shape: off, stdout, file:PATH or stream:NAME
        audit_log: AuditLog = "off", <WHERE> one_of;
        /// Where an OpenTelemetry collector takes traces by OTLP over HTTP: http://HOST[:PORT][/PATH]; without it there are none
        otlp_endpoint: Option<Endpoint> = "", <URL> endpoint;
        /// Share of requests that are traced, 0 to 1, where the client's traceparent does not say
        otlp_sampling: f64 = "1", <RATIO> ratio;
        /// What is logged, to stderr: error, warn, info, debug, trace, or a filter like warn,anabranch::kafka=debug
        log_level: String = "warn", <FILTER> log_filter;
        /// text or json
        log_format: LogFormat = "text", <FORMAT> one_of;
    }
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line asks for help or the version, or has a flag that does not exist.
    #[error("{0}")]
    CommandLine(#[from] clap::Error),
    /// A value was refused; `from` says where it stands.
    #[error("{from}: {reason}")]
    Value { from: String, reason: String },
    /// The settings file cannot be read or holds something that is no setting.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
}

impl Config {
    /// The settings for serving: from the command line, the environment, and the file that one of them names.
    pub fn from_sources(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigError> {
        Config::from_matches(&command().try_get_matches_from(args)?, &env)
    }

    fn from_matches(matches: &ArgMatches, env: &impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let file = file_of(matches, env);
        let file_values = match &file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let mut config = Config::default();
        for setting in SETTINGS {
            if let Some((from, text)) = find(setting, matches, env, file.as_deref(), &file_values)? {
                (setting.set)(&mut config, &text).map_err(|reason| ConfigError::Value { from, reason })?;
            }
        }
        config.check()?;
        Ok(config)
    }

    /// What share groups go by.
    pub fn share_groups(&self) -> ShareGroupValues {
        ShareGroupValues {
            session_timeout_ms: Bounded {
                value: self.group_share_session_timeout,
                min: self.group_share_session_timeout_min,
                max: self.group_share_session_timeout_max,
            },
            heartbeat_interval_ms: Bounded {
                value: self.group_share_heartbeat_interval,
                min: self.group_share_heartbeat_interval_min,
                max: self.group_share_heartbeat_interval_max,
            },
            record_lock_duration_ms: Bounded {
                value: self.group_share_record_lock_duration,
                min: self.group_share_record_lock_duration_min,
                max: self.group_share_record_lock_duration_max,
            },
            delivery_count_limit: Bounded {
                value: self.group_share_delivery_count_limit,
                min: self.group_share_delivery_count_limit_min,
                max: self.group_share_delivery_count_limit_max,
            },
            partition_max_record_locks: Bounded {
                value: self.group_share_partition_record_locks,
                min: self.group_share_partition_record_locks_min,
                max: self.group_share_partition_record_locks_max,
            },
            max_size: self.group_share_size_max as i64,
            max_share_sessions: self.group_share_sessions_max as i64,
        }
    }

    /// What groups can have of their own: name, unit, and what holds for those that have not.
    fn of_groups(&self) -> [(&'static str, &'static str, Bounded); 7] {
        let consumer_session = Bounded {
            value: self.group_consumer_session_timeout,
            min: self.group_consumer_session_timeout_min,
            max: self.group_consumer_session_timeout_max,
        };
        let consumer_heartbeat = Bounded {
            value: self.group_consumer_heartbeat_interval,
            min: self.group_consumer_heartbeat_interval_min,
            max: self.group_consumer_heartbeat_interval_max,
        };
        let share = self.share_groups();
        [
            ("group-consumer-session-timeout", " ms", consumer_session),
            ("group-consumer-heartbeat-interval", " ms", consumer_heartbeat),
            ("group-share-session-timeout", " ms", share.session_timeout_ms),
            ("group-share-heartbeat-interval", " ms", share.heartbeat_interval_ms),
            ("group-share-record-lock-duration", " ms", share.record_lock_duration_ms),
            ("group-share-delivery-count-limit", "", share.delivery_count_limit),
            ("group-share-partition-record-locks", "", share.partition_max_record_locks),
        ]
    }

    /// What no single value can tell.
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |from: &str, reason: String| Err(ConfigError::Value { from: from.to_owned(), reason });
        if self.group_session_timeout_min > self.group_session_timeout_max {
            return refuse(
                "group-session-timeout-min",
                format!(
                    "{} ms is more than group-session-timeout-max, {} ms",
                    self.group_session_timeout_min, self.group_session_timeout_max
                ),
            );
        }
        for (name, unit, Bounded { value, min, max }) in self.of_groups() {
            if !(min..=max).contains(&value) {
                return refuse(
                    name,
                    format!("{value}{unit} is not within {name}-min, {min}{unit}, and {name}-max, {max}{unit}"),
                );
            }
        }
        if self.group_share_sessions_max < self.group_share_size_max {
            return refuse(
                "group-share-sessions-max",
                format!(
                    "{} is less than group-share-size-max, {}",
                    self.group_share_sessions_max, self.group_share_size_max
                ),
            );
        }
        if self.message_max_bytes > self.request_bytes_max {
            return refuse(
                "message-max-bytes",
                format!("{} is more than request-bytes-max, {}", self.message_max_bytes, self.request_bytes_max),
            );
        }
        Ok(())
    }
}

/// The settings file, if there is one.
fn file_of(matches: &ArgMatches, env: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let named = matches.get_one::<String>("config").map(PathBuf::from);
    named.or_else(|| env("ANABRANCH_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// The first source that has `setting`: where it stands and its text.
fn find(
    setting: &Setting,
    matches: &ArgMatches,
    env: &impl Fn(&str) -> Option<OsString>,
    file: Option<&Path>,
    file_values: &BTreeMap<String, String>,
) -> Result<Option<(String, String)>, ConfigError> {
    if let Some(values) = matches.get_many::<String>(setting.name) {
        let text = values.map(String::as_str).collect::<Vec<_>>().join(",");
        return Ok(Some((format!("--{}", setting.name), text)));
    }
    let variable = variable_of(setting.name);
    if let Some(value) = env(&variable) {
        let text = value
            .into_string()
            .map_err(|_| ConfigError::Value { from: variable.clone(), reason: "the value is not UTF-8".to_owned() })?;
        return Ok(Some((variable, text)));
    }
    let Some(text) = file_values.get(setting.name) else { return Ok(None) };
    let path = file.map(|path| path.display().to_string()).unwrap_or_default();
    Ok(Some((format!("{path}: {}", setting.name), text.clone())))
}

/// The lines of a settings file, by name, as the texts that a flag would have.
fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let refuse = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        if !SETTINGS.iter().any(|setting| setting.name == name) {
            return Err(refuse(format!("unknown setting {name:?}; anabranch --help lists them")));
        }
        let text =
            text_of(&value).ok_or_else(|| refuse(format!("{name}: a {} cannot be a setting", value.type_str())))?;
        values.insert(name, text);
    }
    Ok(values)
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str()).collect();
            Some(texts?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// The command line. `serve` is a word that may be left out, so that every flag may stand before or after it.
fn command() -> Command {
    let serve = Arg::new("command")
        .value_name("serve")
        .value_parser(["serve"])
        .hide_possible_values(true)
        .help("Serve until interrupted; this is the default");
    Command::new("anabranch")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "One log, two protocols: a broker that Kafka clients use unchanged and that serves the AWS Kinesis API.\n\n\
             Every setting below is a flag, an environment variable (--num-partitions is ANABRANCH_NUM_PARTITIONS) and a \
             line of the file that --config or ANABRANCH_CONFIG names (num-partitions = 3). A flag wins over the \
             environment, the environment over the file.\n\
             SIZE is bytes or a number with KiB, MiB, GiB or TiB. DURATION is a number with ms, s, min, h or d. \
             -1 means unlimited where it is said.",
        )
        .next_line_help(true)
        .arg(serve)
        .arg(commands::config_arg())
        .args(SETTINGS.iter().map(arg))
}

fn arg(setting: &'static Setting) -> Arg {
    // A list may be given in several flags; anything else once.
    let action = if setting.value == "LISTENERS" { ArgAction::Append } else { ArgAction::Set };
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value)
        .action(action)
        .allow_hyphen_values(true)
        .help_heading(setting.section)
        .help(format!("{} [default: {default}]", setting.help.trim()))
}

/// `ANABRANCH_NUM_PARTITIONS` of `num-partitions`.
fn variable_of(name: &str) -> String {
    format!("ANABRANCH_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// The name of a field with hyphens.
const fn kebab<const N: usize>(field: &str) -> [u8; N] {
    let mut name = [0; N];
    let mut at = 0;
    while at < N {
        let byte = field.as_bytes()[at];
        name[at] = if byte == b'_' { b'-' } else { byte };
        at += 1;
    }
    name
}

/// A default of the table, which is text so that the help shows what is used.
fn constant<T>(parsed: Result<T, String>) -> T {
    // allowed: the defaults are constants of this file, and its tests parse every one.
    parsed.expect("the default of a setting is a value that its parser takes")
}

impl ConfigError {
    /// Prints what is to be said where it belongs (help to stdout, errors to stderr, in one line where that is possible)
    /// and tells the exit code.
    pub fn report(&self) -> u8 {
        match self {
            ConfigError::CommandLine(error) => {
                // Nothing is left to tell anyone when stdout or stderr is closed.
                let _ = error.print();
                match error.kind() {
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                    _ => 2,
                }
            }
            ConfigError::Value { .. } | ConfigError::File { .. } => {
                eprintln!("anabranch: {self}");
                2
            }
        }
    }
}

#[cfg(test)]
mod tests;
