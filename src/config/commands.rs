//! The command line as a whole: serving, which is what happens unless another word is said, and the tools beside it, each
//! with flags of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::values::{duration, host_port};
use super::{Config, ConfigError, HostPort, MasterKey, SETTINGS, arg, command, file_of, find, read_file};

/// What the process is to do.
#[derive(Debug)]
pub enum Invocation {
    Serve(Box<Config>),
    Inspect(Inspect),
    Top(Top),
}

/// `anabranch top`.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// Of the broker's HTTP door.
    pub address: HostPort,
    pub interval_ms: i64,
    /// One frame as plain text instead of a screen.
    pub once: bool,
}

/// `anabranch inspect FOLDER`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspect {
    pub folder: PathBuf,
    pub json: bool,
    /// Only this one.
    pub stream: Option<String>,
    /// Batches of this shard of it, instead of everything.
    pub shard: Option<u32>,
    /// The offset from which they are printed; from where the shard begins.
    pub from: Option<i64>,
    pub count: usize,
    /// With what is in them.
    pub records: bool,
    pub master_keys: Vec<MasterKey>,
}

const MASTER_KEYS: &str = "master-keys";

impl Invocation {
    /// Of this process.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ConfigError> {
        Invocation::from_sources(args, |name| std::env::var_os(name))
    }

    /// [`Invocation::load`] with an environment of the caller's.
    pub fn from_sources(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Invocation, ConfigError> {
        let tools =
            command().args_conflicts_with_subcommands(true).subcommand(inspect_command()).subcommand(top_command());
        let matches = tools.disable_help_subcommand(true).try_get_matches_from(args)?;
        match matches.subcommand() {
            Some(("top", matches)) => Top::from_matches(matches).map(Invocation::Top),
            Some((_, matches)) => Inspect::from_matches(matches, &env).map(Invocation::Inspect),
            None => Config::from_matches(&matches, &env).map(|config| Invocation::Serve(Box::new(config))),
        }
    }
}

fn inspect_command() -> Command {
    let folder = Arg::new("folder")
        .value_name("FOLDER")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The data folder of a broker that is stopped, or a copy of one");
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let value = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let whole = |name: &'static str, shown: &'static str| value(name, shown).requires("shard");
    Command::new("inspect")
        .about(
            "Tell what a stopped broker's folder holds and check every batch in it; nothing is changed\n\n\
             Exit codes: 0 without a fault, 1 with faults (a line each), 2 when the folder cannot be read.",
        )
        .arg(folder)
        .arg(switch("json").help("Print JSON: times are milliseconds since 1970, sizes bytes"))
        .arg(value("stream", "NAME").help("Only this stream, more closely"))
        .arg(
            value("shard", "N")
                .requires("stream")
                .value_parser(shard)
                .help("Print batches of this shard of the stream: 3, or shardId-000000000003"),
        )
        .arg(
            whole("from", "OFFSET")
                .value_parser(value_parser!(i64).range(0..))
                .help("The first offset to print [default: where the shard begins]"),
        )
        .arg(
            whole("count", "N")
                .value_parser(value_parser!(u32).range(1..=100_000))
                .default_value("20")
                .help("How many batches to print"),
        )
        .arg(switch("records").requires("shard").help("Print the records of the batches, too"))
        .args(SETTINGS.iter().filter(|setting| setting.name == MASTER_KEYS).map(arg))
        .arg(config_arg())
}

fn top_command() -> Command {
    let value = |name: &'static str, shown: &'static str, default: &'static str| {
        Arg::new(name).long(name).value_name(shown).default_value(default)
    };
    Command::new("top")
        .about("Watch a running broker: streams, shards, consumers, groups, throughput and throttling")
        .arg(value("url", "URL", "http://127.0.0.1:4567").help("The broker's HTTP door; its /metrics are asked for"))
        .arg(value("interval", "DURATION", "2s").help("Time between two looks"))
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Look twice, an interval apart, print one frame as plain text and end"),
        )
}

impl Top {
    fn from_matches(matches: &ArgMatches) -> Result<Top, ConfigError> {
        let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
        let refused = |name: &str| {
            let from = format!("--{name}");
            move |reason: String| ConfigError::Value { from, reason }
        };
        let url = text("url");
        let place = url.strip_prefix("http://").unwrap_or(url);
        let place = place.trim_end_matches('/').trim_end_matches("/metrics");
        Ok(Top {
            address: host_port(place).map_err(refused("url"))?,
            interval_ms: duration(100, super::values::DAY)(text("interval")).map_err(refused("interval"))?,
            once: matches.get_flag("once"),
        })
    }
}

/// The flag that names the settings file, for those who read one.
pub(super) fn config_arg() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("TOML file of settings: lines like num-partitions = 3, or kafka-addr = [\"...\", \"...\"]")
}

/// A shard by its number or its id.
fn shard(text: &str) -> Result<u32, String> {
    text.trim_start_matches("shardId-").parse().map_err(|_| format!("{text} is no shard"))
}

impl Inspect {
    fn from_matches(matches: &ArgMatches, env: &impl Fn(&str) -> Option<OsString>) -> Result<Inspect, ConfigError> {
        Ok(Inspect {
            folder: matches.get_one::<PathBuf>("folder").cloned().unwrap_or_default(),
            json: matches.get_flag("json"),
            stream: matches.get_one::<String>("stream").cloned(),
            shard: matches.get_one::<u32>("shard").copied(),
            from: matches.get_one::<i64>("from").copied(),
            count: matches.get_one::<u32>("count").map_or(0, |count| *count as usize),
            records: matches.get_flag("records"),
            master_keys: configured_keys(matches, env)?,
        })
    }
}

/// The broker's master keys, from where a broker has them.
fn configured_keys(
    matches: &ArgMatches,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<MasterKey>, ConfigError> {
    let file = file_of(matches, env);
    let values = match &file {
        Some(path) => read_file(path)?,
        None => BTreeMap::new(),
    };
    let mut config = Config::default();
    for setting in SETTINGS.iter().filter(|setting| setting.name == MASTER_KEYS) {
        if let Some((from, text)) = find(setting, matches, env, file.as_deref(), &values)? {
            (setting.set)(&mut config, &text).map_err(|reason| ConfigError::Value { from, reason })?;
        }
    }
    Ok(config.master_keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, String> {
        let args = std::iter::once("anabranch").chain(args.iter().copied()).map(OsString::from);
        let env: BTreeMap<&str, &str> = env.iter().copied().collect();
        Invocation::from_sources(args, |name| env.get(name).map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn serving_is_what_happens_unless_another_word_is_said() {
        for args in
            [&[][..], &["serve"], &["--node-id", "7"], &["serve", "--node-id", "7"], &["--node-id", "7", "serve"]]
        {
            assert!(matches!(load(args, &[]), Ok(Invocation::Serve(_))), "{args:?}");
        }
        // A setting of the broker means nothing to a tool.
        assert!(load(&["--node-id", "7", "inspect", "x"], &[]).is_err());
        assert!(load(&["inspect", "x", "--node-id", "7"], &[]).is_err());
        assert!(load(&["help"], &[]).is_err());
    }

    #[test]
    fn an_inspection_is_read_from_its_own_flags() {
        let Ok(Invocation::Inspect(plain)) = load(&["inspect", "folder"], &[]) else { panic!("refused") };
        assert_eq!(plain, Inspect { folder: "folder".into(), count: 20, ..Inspect::default() });
        let args = ["inspect", "folder", "--json", "--stream", "orders", "--shard", "shardId-000000000003"];
        let more = ["--from", "17", "--count", "5", "--records"];
        let Ok(Invocation::Inspect(full)) = load(&[&args[..], &more].concat(), &[]) else { panic!("refused") };
        assert_eq!((full.json, full.records, full.stream.as_deref()), (true, true, Some("orders")));
        assert_eq!((full.shard, full.from, full.count), (Some(3), Some(17), 5));
        for refused in [
            &["inspect"][..],
            &["inspect", "a", "b"],
            &["inspect", "a", "--shard", "3"],
            &["inspect", "a", "--stream", "s", "--from", "3"],
            &["inspect", "a", "--stream", "s", "--shard", "x"],
            &["inspect", "a", "--stream", "s", "--shard", "1", "--count", "0"],
        ] {
            assert!(load(refused, &[]).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn what_is_watched_is_named_by_its_url() {
        let top = |args: &[&str]| match load(&[&["top"], args].concat(), &[]) {
            Ok(Invocation::Top(top)) => Ok((top.address.to_string(), top.interval_ms, top.once)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        assert_eq!(top(&[]), Ok(("127.0.0.1:4567".to_owned(), 2_000, false)));
        let long = ["--url", "http://broker.example:80/metrics", "--interval", "500ms", "--once"];
        assert_eq!(top(&long), Ok(("broker.example:80".to_owned(), 500, true)));
        for refused in [&["--url", "https://a:1"][..], &["--url", "a"], &["--interval", "1ms"], &["x"]] {
            assert!(top(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn master_keys_come_from_where_a_broker_has_them() {
        let keys = "keys:a AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let of = |args: &[&str], env: &[(&str, &str)]| match load(args, env) {
            Ok(Invocation::Inspect(inspect)) => inspect.master_keys.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&["inspect", "x"], &[]), 0);
        assert_eq!(of(&["inspect", "x", "--master-keys", keys], &[]), 1);
        assert_eq!(of(&["inspect", "x"], &[("ANABRANCH_MASTER_KEYS", keys)]), 1);
        assert!(load(&["inspect", "x", "--master-keys", "keys:a short"], &[]).is_err());
    }
}
