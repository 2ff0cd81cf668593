//! `application/vnd.amazon.eventstream`: messages in the body of an answer that goes on.
//!
//! | field | width | what |
//! |---|---|---|
//! | total length | u32 | of the whole message |
//! | headers length | u32 | |
//! | prelude CRC | u32 | CRC-32 (IEEE) of the two lengths |
//! | headers | | name length u8, name, type u8 = 7 (text), value length u16, value |
//! | payload | | the rest |
//! | message CRC | u32 | CRC-32 of everything before |
//!
//! All big-endian. Source: the Amazon event stream specification of Smithy. The first message is always
//! `initial-response`: boto3 fails without it.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::Failure;
use super::api::Format;

pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";
/// Lengths and prelude CRC.
const PRELUDE_BYTES: usize = 12;
const CRC_BYTES: usize = 4;
const TYPE_TEXT: u8 = 7;

/// Messages as they come. It ends when the sender is dropped, and the sender sees a client that has gone as a closed
/// channel. The channel's bound is what a slow client can hold: nothing is taken from it before the connection has room.
#[derive(Debug)]
pub struct EventStream(pub mpsc::Receiver<Event>);

/// One message of an event stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The bytes of a message, as [`message`] makes them: one that many are sent is made once.
    Message(Bytes),
    /// Ends the stream.
    Exception(Failure),
}

pub fn is_last(event: &Event) -> bool {
    matches!(event, Event::Exception(_))
}

/// What every stream begins with.
pub fn initial_response(format: Format) -> Bytes {
    let empty: &[u8] = match format {
        Format::Json => b"{}",
        Format::Cbor => b"\xa0",
    };
    message("initial-response", format, empty)
}

/// A message of a kind, as `SubscribeToShardEvent`, with its body in the call's format.
pub fn message(kind: &'static str, format: Format, body: &[u8]) -> Bytes {
    framed([(":message-type", "event"), (":event-type", kind)], format, body)
}

/// The bytes of what is sent next.
pub fn encode(event: Event, format: Format) -> Bytes {
    match event {
        Event::Message(bytes) => bytes,
        Event::Exception(failure) => {
            let headers = [(":message-type", "exception"), (":exception-type", failure.code)];
            framed(headers, format, &failure.body(format))
        }
    }
}

fn framed(headers: [(&str, &str); 2], format: Format, payload: &[u8]) -> Bytes {
    let headers = headers.into_iter().chain([(":content-type", format.content_type())]);
    let mut encoded = BytesMut::new();
    for (name, value) in headers {
        // Names and values are constants of a few characters.
        encoded.put_u8(name.len() as u8);
        encoded.put_slice(name.as_bytes());
        encoded.put_u8(TYPE_TEXT);
        encoded.put_u16(value.len() as u16);
        encoded.put_slice(value.as_bytes());
    }
    let length = PRELUDE_BYTES + encoded.len() + payload.len() + CRC_BYTES;
    let mut message = BytesMut::with_capacity(length);
    message.put_u32(length as u32);
    message.put_u32(encoded.len() as u32);
    message.put_u32(crc32fast::hash(&message));
    message.put_slice(&encoded);
    message.put_slice(payload);
    message.put_u32(crc32fast::hash(&message));
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of the specification's own kind, taken apart by hand.
    #[test]
    fn a_message_is_framed_as_specified() {
        let bytes = message("SubscribeToShardEvent", Format::Json, b"{\"a\":1}");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(number(0) as usize, bytes.len());
        assert_eq!(number(8), crc32fast::hash(&bytes[..8]));
        assert_eq!(number(bytes.len() - 4), crc32fast::hash(&bytes[..bytes.len() - 4]));
        let headers = &bytes[12..12 + number(4) as usize];
        let wanted = b"\x0d:message-type\x07\x00\x05event\x0b:event-type\x07\x00\x15SubscribeToShardEvent\
            \x0d:content-type\x07\x00\x1aapplication/x-amz-json-1.1";
        assert_eq!(headers, wanted);
        assert_eq!(&bytes[12 + headers.len()..bytes.len() - 4], b"{\"a\":1}");
    }

    #[test]
    fn exceptions_are_named_in_the_headers() {
        let bytes = encode(Event::Exception(Failure::new("ResourceInUseException", "busy")), Format::Json);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(":message-type\u{7}\0\u{9}exception"), "{text}");
        assert!(text.contains(":exception-type\u{7}\0\u{16}ResourceInUseException"), "{text}");
        assert!(text.contains(r#"{"__type":"ResourceInUseException","message":"busy"}"#), "{text}");
    }
}
