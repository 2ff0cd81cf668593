use std::collections::HashMap;

use super::*;

fn load(args: &[&str], env: &[(&str, &str)]) -> Result<Config, String> {
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    let args = std::iter::once("anabranch").chain(args.iter().copied()).map(OsString::from);
    Config::from_sources(args, |name| env.get(name).map(OsString::from)).map_err(|error| error.to_string())
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anabranch.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = load(&[], &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config, load(&["serve"], &[]).unwrap());
    assert_eq!(config.memory, 512 << 20);
    assert_eq!(config.log_retention, 7 * values::DAY);
    assert_eq!(config.kafka_addr[0].bind, HostPort { host: "127.0.0.1".to_owned(), port: 9092 });
    assert_eq!(config.check().map_err(|error| error.to_string()), Ok(()));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let (_folder, path) = file("num-partitions = 3\nnode-id = 30\nmemory = \"64 MiB\"\nauto-create-topics = false\n");
    let config = load(
        &["--config", &path, "--num-partitions", "5"],
        &[("ANABRANCH_NUM_PARTITIONS", "4"), ("ANABRANCH_NODE_ID", "40")],
    )
    .unwrap();
    assert_eq!((config.num_partitions, config.node_id, config.memory), (5, 40, 64 << 20));
    assert!(!config.auto_create_topics);
    // The environment may name the file, and names that are no settings mean nothing.
    let config = load(&[], &[("ANABRANCH_CONFIG", &path), ("ANABRANCH_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert_eq!((config.num_partitions, config.node_id), (3, 30));
}

#[test]
fn every_setting_is_reached_by_flag_variable_and_file() {
    for setting in SETTINGS {
        let flag = format!("--{}", setting.name);
        let by_flag = load(&[&flag, "?,?"], &[]).err();
        let by_variable = load(&[], &[(&variable_of(setting.name), "?,?")]).err();
        let (_folder, path) = file(&format!("{} = \"?,?\"\n", setting.name));
        let by_file = load(&["--config", &path], &[]).err();
        if setting.name == "data-dir" {
            assert_eq!((by_flag, by_variable, by_file), (None, None, None), "any text is a path");
            continue;
        }
        for (error, from) in
            [(by_flag, flag), (by_variable, variable_of(setting.name)), (by_file, format!("{path}: {}", setting.name))]
        {
            let error = error.unwrap_or_else(|| panic!("{} takes anything", setting.name));
            assert!(error.starts_with(&format!("{from}: ")), "{error}");
        }
        assert_eq!(load(&[&format!("--{}={}", setting.name, setting.default)], &[]), Ok(Config::default()));
    }
}

#[test]
fn collectors_have_otlps_port_and_path() {
    for (text, address, path) in [
        ("http://collector", "collector:4318", "/v1/traces"),
        ("http://[::1]:1/", "[::1]:1", "/v1/traces"),
        ("http://c/otlp/", "c:4318", "/otlp/v1/traces"),
        ("http://c:80/v1/traces", "c:80", "/v1/traces"),
    ] {
        let endpoint = load(&["--otlp-endpoint", text], &[]).unwrap().otlp_endpoint.unwrap();
        assert_eq!((&*endpoint.address.to_string(), &*endpoint.path), (address, path));
    }
    for wrong in ["https://c", "c:4318", "http://", "http://c/a b", "http://c:x"] {
        assert!(load(&["--otlp-endpoint", wrong], &[]).is_err(), "{wrong}");
    }
    assert!(load(&["--otlp-sampling", "1.1"], &[]).is_err());
}

#[test]
fn the_audit_log_goes_somewhere() {
    let log = |text| load(&["--audit-log", text], &[]).map(|config| config.audit_log);
    assert_eq!(log("file:/var/log/audit"), Ok(AuditLog::File("/var/log/audit".into())));
    assert_eq!(log("stream:audit-log"), Ok(AuditLog::Stream("audit-log".into())));
    for wrong in ["", "file:", "stream:", "stream:a b", "stream:..", "syslog"] {
        assert!(log(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn help_lists_every_setting_with_its_default() {
    let help = command().render_long_help().to_string();
    for setting in SETTINGS {
        let flag = format!("--{} <{}>", setting.name, setting.value);
        let at = help.find(&flag).unwrap_or_else(|| panic!("{flag} is missing"));
        let line: String = help[at + flag.len()..].lines().take(4).collect();
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        assert!(line.contains(&format!("[default: {default}]")), "{line}");
    }
}

#[test]
fn the_file_is_read_strictly() {
    let refused = |text: &str| {
        let (_folder, path) = file(text);
        load(&["--config", &path], &[]).unwrap_err().replace(&path, "FILE")
    };
    assert_eq!(refused("num_partitions = 1"), "FILE: unknown setting \"num_partitions\"; anabranch --help lists them");
    assert_eq!(refused("memory = 1.5"), "FILE: memory: a float cannot be a setting");
    assert_eq!(refused("num-partitions = 0"), "FILE: num-partitions: \"0\" is not a whole number from 1 to 10000");
    assert!(refused("num-partitions = ").starts_with("FILE: "));
    assert!(load(&["--config", "/nowhere/at/all"], &[]).unwrap_err().starts_with("/nowhere/at/all: "));
}

#[test]
fn listeners_have_names_and_advertised_addresses() {
    let flags = ["--kafka-addr", "127.0.0.1:0", "--kafka-addr", "OUT=0.0.0.0:9093@broker.example:19093,[::1]:9094"];
    let listeners = load(&flags, &[]).unwrap().kafka_addr;
    let names: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["PLAINTEXT", "OUT", "PLAINTEXT-3"]);
    let told = |index: usize, bound: &str| listeners[index].advertise(bound.parse().unwrap()).to_string();
    assert_eq!(told(0, "127.0.0.1:40001"), "127.0.0.1:40001");
    assert_eq!(told(1, "0.0.0.0:9093"), "broker.example:19093");
    assert_eq!(told(2, "[::1]:9094"), "[::1]:9094");
    let (_folder, path) =
        file("kafka-addr = [\"127.0.0.1:0\", \"OUT=0.0.0.0:9093@broker.example:19093\", \"[::1]:9094\"]");
    assert_eq!(load(&["--config", &path], &[]).unwrap().kafka_addr, listeners);
}

#[test]
fn listeners_that_nobody_could_use_are_refused() {
    let refused = |text: &str| load(&["--kafka-addr", text], &[]).unwrap_err();
    assert_eq!(
        refused("0.0.0.0:9092"),
        "--kafka-addr: \"0.0.0.0:9092\": clients cannot connect to a wildcard address; add where they can reach this \
         broker, as in 0.0.0.0:9092@HOST:9092"
    );
    assert!(refused("[::]:9092").contains("wildcard"));
    assert!(refused("A=h:1,A=h:2").contains("two listeners are called \"A\""));
    assert!(refused("A B=h:1").contains("name is made of"));
    for text in ["", ":9092", "host", "host:", "host:65536", "host:-1", "::1:9092", "[h]:1", "h:1@", "h:1,"] {
        assert!(load(&["--kafka-addr", text], &[]).is_err(), "{text:?} was taken");
    }
}

#[test]
fn sizes_and_durations_say_their_unit() {
    let memory = |text: &str| load(&["--memory", text], &[]).map(|config| config.memory);
    assert_eq!(memory("134217728"), Ok(128 << 20));
    assert_eq!(memory("2GiB"), Ok(2 << 30));
    for text in ["512MB", "1.5GiB", "GiB", "-1", "1KiB", "99999999999TiB", "512 mib"] {
        assert!(memory(text).is_err(), "{text:?} was taken");
    }
    let idle = |text: &str| load(&["--connections-idle-max", text], &[]).map(|config| config.connections_idle_max);
    assert_eq!(idle("1500ms"), Ok(1_500));
    assert_eq!(idle("2 min"), Ok(120_000));
    assert_eq!(idle("1d"), Ok(values::DAY));
    assert_eq!(
        idle("90"),
        Err("--connections-idle-max: \"90\" is not a duration: a whole number with ms, s, min, h or d".to_owned())
    );
    let retention = |text: &str| load(&["--log-retention", text], &[]).map(|config| config.log_retention);
    assert_eq!((retention("-1"), retention("unlimited"), retention("12h")), (Ok(-1), Ok(-1), Ok(43_200_000)));
    assert!(retention("-2").is_err());
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let error = load(&["--group-consumer-session-timeout", "10s"], &[]).unwrap_err();
    let bounds = "group-consumer-session-timeout-min, 45000 ms, and group-consumer-session-timeout-max, 60000 ms";
    assert_eq!(error, format!("group-consumer-session-timeout: 10000 ms is not within {bounds}"));
    let error = load(&["--group-consumer-migration-policy", "sideways"], &[]).unwrap_err();
    assert!(error.ends_with("\"sideways\" is not one of bidirectional, upgrade, downgrade, disabled"), "{error}");
    let error = load(&["--group-share-delivery-count-limit", "11"], &[]).unwrap_err();
    let bounds = "group-share-delivery-count-limit-min, 2, and group-share-delivery-count-limit-max, 10";
    assert_eq!(error, format!("group-share-delivery-count-limit: 11 is not within {bounds}"));
    let error = load(&["--group-share-sessions-max", "100"], &[]).unwrap_err();
    assert_eq!(error, "group-share-sessions-max: 100 is less than group-share-size-max, 200");
    let error = load(&["--group-session-timeout-max", "5s"], &[]).unwrap_err();
    assert_eq!(error, "group-session-timeout-min: 6000 ms is more than group-session-timeout-max, 5000 ms");
    assert!(load(&["--request-bytes-max", "1MiB"], &[]).unwrap_err().starts_with("message-max-bytes: "));
}

#[test]
fn what_is_no_setting_is_refused() {
    for args in [&["--num-partition", "1"][..], &["sever"], &["--memory", "1GiB", "--memory", "2GiB"], &["--memory"]] {
        assert!(load(args, &[]).is_err(), "{args:?} was taken");
    }
    assert!(load(&["--memory", "1GiB", "serve", "--node-id", "7"], &[]).is_ok());
}
