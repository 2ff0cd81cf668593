//! Bodies to typed values and back: AWS's JSON 1.1 and CBOR, over serde.
//!
//! Called by the doors with a request's body and for the answer's. Decoding is one pass over the body into the caller's
//! type, no tree of values between; texts and byte strings without escapes are borrowed when the type asks for it.
//! Both formats share one [`reader::Reader`], so that types, nulls and errors are the same in both:
//!
//! - a member that is null is absent; unknown members are skipped;
//! - numbers are truncated and clamped to the member's type, as AWS does;
//! - a value of the wrong type is a SerializationException with AWS's text, a body that does not parse one without;
//! - whatever the body claims, memory grows only with bytes that are there, and nesting is bounded.
//!
//! For AWS's texts the Rust type says AWS's: `bool` Boolean, `i32` Integer, `i64` Long, `f64` Double, `String`,
//! [`Blob`](super::Blob), [`Timestamp`](super::Timestamp), `Vec` List, maps Map, structs Structure.
//!
//! Source: AWS JSON 1.1 protocol, RFC 8259, RFC 8949, answers recorded from AWS.

mod base64;
mod cbor;
mod json;
mod reader;
mod scan;
mod types;

use std::io::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;

use super::{Failure, Format};
use reader::{Malformed, Reader, Source};

pub use types::{Blob, Timestamp};

/// What an encoded answer begins with.
const ANSWER_BYTES: usize = 512;
/// The value that a body holds. Errors are SerializationException.
pub fn decode<'de, T: Deserialize<'de>>(format: Format, body: &'de [u8]) -> Result<T, Failure> {
    let decoded = match format {
        Format::Json => whole(Reader::new(json::Json::new(body))),
        Format::Cbor => whole(Reader::new(cbor::Cbor::new(body))),
    };
    decoded.map_err(|malformed| Failure::serialization(malformed.0))
}

/// The same for Smithy's RPC v2, whose CBOR has times in seconds.
pub fn decode_rpc<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Failure> {
    whole(Reader::new(cbor::Cbor::in_seconds(body))).map_err(|malformed| Failure::serialization(malformed.0))
}

fn whole<'de, T: Deserialize<'de>, S: Source<'de>>(mut reader: Reader<S>) -> Result<T, Malformed> {
    let value = T::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Whether a body is a structure (or list) in its format, whatever it holds: some errors are told only then.
pub fn is_document(format: Format, body: &[u8]) -> bool {
    match format {
        Format::Json => Reader::new(json::Json::new(body)).holds_document(),
        Format::Cbor => Reader::new(cbor::Cbor::new(body)).holds_document(),
    }
}

/// The body for a value. It fails only for types that the format cannot say (maps without text keys).
pub fn encode<T: Serialize + ?Sized>(format: Format, value: &T) -> Result<Bytes, Failure> {
    let mut body = Vec::with_capacity(ANSWER_BYTES);
    let encoded = match format {
        Format::Json => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut body, AwsJson)).map_err(|e| e.to_string())
        }
        Format::Cbor => ciborium::into_writer(value, &mut body).map_err(|error| error.to_string()),
    };
    match encoded {
        Ok(()) => Ok(body.into()),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be encoded");
            Err(Failure::internal())
        }
    }
}

/// Compact JSON that writes byte strings as base64, straight into the body.
struct AwsJson;

impl Formatter for AwsJson {
    fn write_byte_array<W: ?Sized + Write>(&mut self, writer: &mut W, value: &[u8]) -> std::io::Result<()> {
        writer.write_all(b"\"")?;
        base64::encode(value, writer)?;
        writer.write_all(b"\"")
    }
}

#[cfg(test)]
mod tests;
