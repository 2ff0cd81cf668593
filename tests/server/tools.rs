//! `anabranch inspect` and `anabranch top` as people run them: the real binary on a folder and beside a broker.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Client, batch};
use crate::process::Process;

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anabranch")).args(words).output().unwrap()
}

fn inspect(folder: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let words = [&["inspect", folder.to_str().unwrap()], more].concat();
    let Output { status, stdout, stderr } = run(&words);
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn a_folder_is_inspected_once_its_broker_is_gone_however_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (code, _, told) = inspect(&data, &[]);
    assert_eq!((code, told.contains("no broker has written in it")), (Some(2), true), "{told}");

    let mut process = Process::start(&data, &[]);
    let mut client = Client::connect_to(process.kafka).await;
    client.create_topic("orders", 2, &[]).await;
    client.produced("orders", 1, batch(&["first", "second"])).await;
    let (code, _, told) = inspect(&data, &[]);
    assert_eq!((code, told.contains(&process.id().to_string())), (Some(2), true), "{told}");

    process.kill();
    let (code, told, _) = inspect(&data, &[]);
    assert_eq!((code, told.contains("Stream orders")), (Some(0), true), "{told}");
    let (code, told, _) = inspect(&data, &["--stream", "orders", "--shard", "1", "--records"]);
    assert_eq!((code, told.contains("second")), (Some(0), true), "{told}");
    let (code, told, _) = inspect(&data, &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, told["streams"][0]["name"].as_str()), (Some(0), Some("orders")), "{told}");
    let (code, ..) = inspect(&data, &["--stream", "nobody"]);
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn top_shows_a_running_broker_and_says_when_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &[]);
    let mut client = Client::connect_to(process.kafka).await;
    client.create_topic("orders", 2, &[]).await;
    client.produced("orders", 0, batch(&["first"])).await;
    let url = format!("http://{}", process.http);
    let words = ["top", "--once", "--url", &url];
    let seen = run(&words);
    let told = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.status.success() && told.contains("orders"), "{told}");
    process.kill();
    let seen = run(&words);
    let told = String::from_utf8(seen.stderr).unwrap();
    assert!(!seen.status.success() && !told.is_empty(), "{told}");
}
