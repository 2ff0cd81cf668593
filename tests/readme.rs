//! Runs the tour of `README.md` as a reader would: every `sh` block with bash, in order, against the real binary, and what
//! it prints must be the `text` block that follows it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const KAFKA: &str = "127.0.0.1:9092";
const HTTP: &str = "127.0.0.1:4567";
/// A block that begins with this is run after a restart.
const RESTART: &str = "# The broker was stopped and started again.";
/// Lines with a command of another program mention that one's flags.
const OTHERS: [&str; 4] =
    ["aws --endpoint-url", "kafka-configs.sh --bootstrap-server", "docker compose", "cargo bench"];
const BLOCK_SECONDS: &str = "60";

struct Broker {
    process: Child,
    kafka: String,
    http: String,
}

impl Broker {
    /// Starts on free ports and learns them from the banner.
    fn start(folder: &Path) -> Broker {
        let mut process = Command::new(env!("CARGO_BIN_EXE_anabranch"))
            .args(["serve", "--kafka-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut kafka, mut http) = (None, None);
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("Kafka") => kafka = words.next().map(str::to_owned),
                Some("Kinesis") => http = words.next().map(|url| url.split('/').nth(2).unwrap().to_owned()),
                _ => {}
            }
            if let (Some(kafka), Some(http)) = (&kafka, &http) {
                return Broker { process, kafka: kafka.clone(), http: http.clone() };
            }
        }
        panic!("no banner; the broker ended with {:?}", process.wait());
    }

    /// A script for the addresses of this broker. Both are replaced in one pass: a Kafka address just written, say
    /// 127.0.0.1:45678, may begin with the one that HTTP has in the README.
    fn localised(&self, script: &str) -> String {
        let parts: Vec<String> = script.split(KAFKA).map(|part| part.replace(HTTP, &self.http)).collect();
        parts.join(&self.kafka)
    }

    fn stop(mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.process.wait().unwrap().code(), Some(0), "a clean stop");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails when it has ended already, which is all that is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The fenced blocks of a section: their language and text.
fn blocks(readme: &str, section: &str) -> Vec<(String, String)> {
    let start = readme.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section:?}"));
    let text = &readme[start + 1..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).map(|(language, body)| (language.into(), body.into())).collect()
}

fn missing(tool: &str) -> bool {
    Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
}

fn readme() -> String {
    std::fs::read_to_string("README.md").unwrap()
}

#[test]
fn the_tour_does_what_it_says() {
    if let Some(tool) = ["bash", "kcat", "curl", "timeout", "kill"].into_iter().find(|tool| missing(tool)) {
        println!("the tour is left out: {tool} is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Shown when a step fails: what kcat saw of its connections.
    let kcat_config = folder.path().join("kcat.conf");
    std::fs::write(&kcat_config, "debug=broker,protocol,cgrp\n").unwrap();
    let mut broker = Broker::start(&data);
    let blocks = blocks(&readme(), "Five minutes");
    assert!(blocks.iter().filter(|(language, _)| language == "sh").count() >= 5);
    for (index, (language, script)) in blocks.iter().enumerate() {
        if language != "sh" {
            continue;
        }
        if script.starts_with(RESTART) {
            broker.stop();
            broker = Broker::start(&data);
        }
        let here = broker.localised(script);
        let done = Command::new("timeout")
            .args([BLOCK_SECONDS, "bash", "-euo", "pipefail", "-c", &here])
            .current_dir(folder.path())
            .env("KCAT_CONFIG", &kcat_config)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        let ended = broker.process.try_wait().unwrap();
        assert!(done.status.success(), "{here}ended with {}:\n{said}{errors}(broker ended: {ended:?})", done.status);
        if let Some((_, expected)) = blocks.get(index + 1).filter(|(language, _)| language == "text") {
            assert_eq!(&said, expected, "{script}{errors}");
        }
    }
    broker.stop();
}

#[test]
fn every_flag_that_is_mentioned_exists() {
    let help = |words: &[&str]| {
        let told = Command::new(env!("CARGO_BIN_EXE_anabranch")).args(words).output().unwrap();
        String::from_utf8(told.stdout).unwrap()
    };
    let help = [help(&["--help"]), help(&["inspect", "--help"]), help(&["top", "--help"])].concat();
    let readme = readme();
    let ours = readme.lines().filter(|line| !OTHERS.iter().any(|tool| line.contains(tool)));
    let flags: Vec<&str> = ours
        .flat_map(|line| line.split(|c: char| !(c.is_ascii_lowercase() || c == '-')))
        .filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase())))
        .collect();
    assert!(flags.len() > 8, "{flags:?}");
    for flag in flags {
        assert!(help.split_whitespace().any(|word| word == flag), "{flag} is not in --help");
    }
}
