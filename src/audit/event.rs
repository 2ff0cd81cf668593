//! What an event of the audit log is, and its line: CloudTrail's record of a management event.
//!
//! Source: CloudTrail user guide, "CloudTrail record contents"; Kinesis' examples of it.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::security::{Principal, date};

const VERSION: &str = "1.11";
/// Bytes of a request or an answer that an event tells; of a longer one it says that it is left out.
pub const PARAMETERS_BYTES_MAX: usize = 64 << 10;
/// Characters of what clients call themselves.
const AGENT_CHARS_MAX: usize = 1_024;

/// Which door was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Kinesis,
    Kafka,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Kinesis => "kinesis.amazonaws.com",
            Source::Kafka => "kafka",
        }
    }
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Principal(Principal),
    /// A Kafka client that did not say who it is.
    Anonymous,
}

impl Identity {
    fn value(&self) -> Value {
        match self {
            Identity::Anonymous => json!({"type": "Unknown", "principalId": "User:ANONYMOUS"}),
            Identity::Principal(Principal { account, arn }) => {
                let resource = arn.splitn(6, ':').nth(5).unwrap_or_default();
                let (kind, name) = resource.split_once('/').unwrap_or((resource, ""));
                let kind = match kind {
                    "root" => "Root",
                    "assumed-role" => "AssumedRole",
                    "federated-user" => "FederatedUser",
                    "role" => "Role",
                    _ => "IAMUser",
                };
                let mut identity = json!({"type": kind, "principalId": account, "arn": arn, "accountId": account});
                if let Some(members) = identity.as_object_mut().filter(|_| kind == "IAMUser") {
                    members.insert("userName".to_owned(), json!(name.rsplit('/').next().unwrap_or(name)));
                }
                identity
            }
        }
    }
}

/// A control operation that was answered.
#[derive(Clone, Debug)]
pub struct Event {
    pub source: Source,
    pub name: &'static str,
    pub read_only: bool,
    pub at_ms: i64,
    pub peer: SocketAddr,
    pub user_agent: Option<String>,
    pub identity: Identity,
    /// What was asked for, without data of records and without secrets.
    pub request: Value,
    /// What was answered, of operations that change something.
    pub response: Value,
    /// The protocol's name for what it was refused with, and the text.
    pub error: Option<(String, Option<String>)>,
    pub request_id: String,
}

impl Event {
    pub fn value(&self, region: &str, account: &str, id: Uuid) -> Value {
        let mut event = Map::new();
        let agent = self.user_agent.as_ref().map(|agent| agent.chars().take(AGENT_CHARS_MAX).collect::<String>());
        for (name, value) in [
            ("eventVersion", json!(VERSION)),
            ("userIdentity", self.identity.value()),
            ("eventTime", json!(date::format_extended(self.at_ms))),
            ("eventSource", json!(self.source.name())),
            ("eventName", json!(self.name)),
            ("awsRegion", json!(region)),
            ("sourceIPAddress", json!(self.peer.ip().to_string())),
            ("userAgent", json!(agent)),
            ("requestParameters", self.request.clone()),
            ("responseElements", self.response.clone()),
            ("requestID", json!(self.request_id)),
            ("eventID", json!(id.to_string())),
            ("readOnly", json!(self.read_only)),
            ("eventType", json!("AwsApiCall")),
            ("managementEvent", json!(true)),
            ("recipientAccountId", json!(account)),
            ("eventCategory", json!("Management")),
        ] {
            event.insert(name.to_owned(), value);
        }
        if let Some((code, message)) = &self.error {
            event.insert("errorCode".to_owned(), json!(code));
            event.extend(message.as_ref().map(|message| ("errorMessage".to_owned(), json!(message))));
        }
        Value::Object(event)
    }

    /// Without the end of the line.
    pub fn line(&self, region: &str, account: &str, id: Uuid) -> String {
        self.value(region, account, id).to_string()
    }
}

/// What stands for a request or an answer that is longer than an event tells.
pub fn left_out(bytes: usize) -> Value {
    json!({"omitted": true, "reason": "REQUEST_TOO_LARGE", "bytes": bytes})
}

/// Members by the names that CloudTrail has for them: `StreamName` is `streamName`.
pub fn renamed(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let rename = |(name, value): (String, Value)| {
                let mut chars = name.chars();
                let name = chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect();
                (name, renamed(value))
            };
            Value::Object(members.into_iter().map(rename).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(renamed).collect()),
        other => other,
    }
}
