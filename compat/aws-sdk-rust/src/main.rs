//! The AWS SDK for Rust on the protocol of ../../lib/kinesis-steps/bridge.py.

mod operations;

use std::io::Write;
use std::process::exit;

use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Region};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A message to the bridge: a line, written at once.
pub fn say(message: &Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{message}").and_then(|()| out.flush()).is_err() {
        exit(1);
    }
}

fn client(endpoint: &str, attempts: u32) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::from_keys("compat", "compat", None))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::standard().with_max_attempts(attempts))
        .build();
    Client::from_conf(config)
}

/// What the lock file pins.
fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split("name = \"aws-sdk-kinesis\"\nversion = \"").nth(1);
    entry.and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

async fn answer(client: Client, request: Value) {
    let id = request["id"].clone();
    let operation = request["operation"].as_str().unwrap_or_default().to_owned();
    match operations::call(&client, &operation, &request["parameters"], &id).await {
        Ok(answer) => say(&json!({"id": id, "answer": answer})),
        Err((code, message)) => say(&json!({"id": id, "error": {"code": code, "message": message}})),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Ok(endpoint) = std::env::var("KINESIS") else {
        eprintln!("KINESIS is not set");
        exit(2);
    };
    let (patient, single) = (client(&endpoint, 12), client(&endpoint, 1));
    say(&json!({"version": version()}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(request) = serde_json::from_str::<Value>(&line) else {
            eprintln!("not a request: {line}");
            exit(2);
        };
        let with = if request["retry"] == true { &patient } else { &single };
        tokio::spawn(answer(with.clone(), request));
    }
}
