//! Control operations of this door as events of the audit log. Reads and writes of records, and what goes with them, are
//! none: with AWS, too, they are data events, which trails leave out unless they are asked for.
//!
//! Called by `dispatch`.

use bytes::Bytes;
use serde_json::Value;

use super::Door;
use crate::audit::event::{PARAMETERS_BYTES_MAX, left_out, renamed};
use crate::audit::{Event, Identity, Source};
use crate::http::codec::decode;
use crate::http::{Call, Failure, Format, Reply};

const OF_RECORDS: &[&str] = &["GetRecords", "GetShardIterator", "PutRecord", "PutRecords", "SubscribeToShard"];

/// What is told of a request when it is answered.
pub struct Asked {
    event: Event,
    format: Format,
}

/// `None` where nothing is to be told.
pub fn asked(door: &Door, operation: &'static str, call: &Call) -> Option<Asked> {
    if !door.audit.is_on() || OF_RECORDS.contains(&operation) {
        return None;
    }
    let agent = call.user_agent.as_ref().and_then(|agent| agent.to_str().ok());
    let event = Event {
        source: Source::Kinesis,
        name: operation,
        read_only: ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb)),
        at_ms: door.audit.now_ms(),
        peer: call.peer,
        user_agent: agent.map(str::to_owned),
        identity: Identity::Principal(call.principal.clone()),
        request: document(call.format, &call.body),
        response: Value::Null,
        error: None,
        request_id: call.request_id.to_string(),
    };
    Some(Asked { event, format: call.format })
}

pub fn answered(door: &Door, asked: Asked, answer: &Result<Reply, Failure>) {
    let Asked { mut event, format } = asked;
    match answer {
        Ok(Reply::Whole(Ok(body))) if !event.read_only => event.response = document(format, body),
        Ok(Reply::Whole(Ok(_)) | Reply::Events(_)) => {}
        Ok(Reply::Whole(Err(failure))) | Err(failure) => {
            event.error = Some((failure.code.to_owned(), failure.message.clone()));
        }
    }
    door.audit.record(event);
}

/// Null where there is none, or none that can be read.
fn document(format: Format, body: &Bytes) -> Value {
    match body.len() {
        0 => Value::Null,
        bytes if bytes > PARAMETERS_BYTES_MAX => left_out(bytes),
        _ => decode(format, body).map(renamed).unwrap_or_default(),
    }
}
