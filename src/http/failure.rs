//! What a request is refused with: AWS's error names, HTTP codes and messages, in either format.
//!
//! Made by whoever finds the fault (codec, security, the doors) and rendered here alone. Source: recorded answers of
//! AWS; JSON 1.1 errors carry `__type` and `message`, except that SerializationException writes `Message`.

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Format;
use super::codec;

const SERIALIZATION: &str = "SerializationException";

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP's code: 400 for what a service models, 403 for authentication, 500 for what went wrong here.
    pub status: u16,
    /// AWS's name of the error, without a namespace.
    pub code: &'static str,
    /// Some errors have none.
    pub message: Option<String>,
}

impl Failure {
    /// 400 with a message: what services model.
    pub fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status: 400, code, message: Some(message.into()) }
    }

    /// A body that is not what the operation takes; AWS has a text when a value has the wrong type.
    pub fn serialization(message: Option<String>) -> Failure {
        Failure { status: 400, code: SERIALIZATION, message }
    }

    pub fn unknown_operation() -> Failure {
        Failure { status: 400, code: "UnknownOperationException", message: None }
    }

    /// Something failed here that is not the client's fault. The cause belongs into the log.
    pub fn internal() -> Failure {
        Failure { status: 500, code: "InternalFailure", message: None }
    }

    /// The body of the answer.
    pub fn body(&self, format: Format) -> Bytes {
        // Two texts cannot fail to be encoded; if they did, the code and the header still tell the error.
        codec::encode(format, self).unwrap_or_default()
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + usize::from(self.message.is_some())))?;
        map.serialize_entry("__type", self.code)?;
        if let Some(message) = &self.message {
            map.serialize_entry(if self.code == SERIALIZATION { "Message" } else { "message" }, message)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_rendered_as_recorded() {
        let not_found = Failure::new("ResourceNotFoundException", "Stream a \"b\" not found.");
        assert_eq!(
            not_found.body(Format::Json),
            r#"{"__type":"ResourceNotFoundException","message":"Stream a \"b\" not found."}"#
        );
        let wrong = Failure::serialization(Some("Expected null".into()));
        assert_eq!(wrong.body(Format::Json), r#"{"__type":"SerializationException","Message":"Expected null"}"#);
        assert_eq!(Failure::unknown_operation().body(Format::Json), r#"{"__type":"UnknownOperationException"}"#);
        let mut cbor = vec![0xa1, 0x66];
        cbor.extend_from_slice(b"__type\x78\x19UnknownOperationException");
        assert_eq!(Failure::unknown_operation().body(Format::Cbor), cbor);
    }
}
