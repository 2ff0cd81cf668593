//! Decoding what a stranger sent. The codec reserves memory for as many elements as a frame claims before it reads the
//! first one, so four bytes could ask for 150 GB. Here claims are held against what is left of the frame:
//!
//! - A varint is a length, a count or a tag: one larger than the rest of the frame is refused at its first byte.
//! - An `i32` may be a count or any other number. A first pass reads those larger than the rest as "one more than the
//!   rest": as a count that must run out of bytes, since an element takes at least one; as a number it changes
//!   nothing about where the next field stands. Only when that pass has come through, and had to lower something, a
//!   second one reads the true numbers.
//!
//! Called by `dispatch` for every request.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};

/// A frame that is not the request it claims to be.
#[derive(Debug, thiserror::Error)]
#[error("malformed request: {0}")]
pub struct Malformed(pub String);

/// Decodes a message. Bytes after its end are not looked at, as in Kafka: librdkafka 2.16 asks for the metadata of all
/// topics (Metadata 13) with three of them.
pub fn decode<T: Decodable>(body: Bytes, version: i16) -> Result<T, Malformed> {
    let mut first = Guard { rest: body.clone(), lower: true, lowered: false };
    let message = decode_all(&mut first, version)?;
    if !first.lowered {
        return Ok(message);
    }
    decode_all(&mut Guard { rest: body, lower: false, lowered: false }, version)
}

fn decode_all<T: Decodable>(guard: &mut Guard, version: i16) -> Result<T, Malformed> {
    T::decode(guard, version).map_err(|error| Malformed(error.to_string()))
}

struct Guard {
    rest: Bytes,
    /// Whether to lower `i32`s that are larger than the rest.
    lower: bool,
    lowered: bool,
}

impl Buf for Guard {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.rest
    }

    fn advance(&mut self, count: usize) {
        self.rest.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let claimed = varint(&self.rest);
        // A compact length is one more than the length.
        if claimed > self.rest.len() as u64 + 1 {
            return Err(TryGetError { requested: claimed as usize, available: self.rest.len() });
        }
        self.rest.try_get_u8()
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.rest.try_get_i32()?;
        let rest = self.rest.len() as i64;
        if self.lower && i64::from(value) > rest + 1 {
            self.lowered = true;
            return Ok((rest + 1) as i32);
        }
        Ok(value)
    }
}

impl ByteBuf for Guard {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.rest.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.rest.split_to(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        if self.rest.len() < size { Err(NotEnoughBytesError) } else { Ok(self.rest.split_to(size)) }
    }
}

/// The unsigned varint that `bytes` begin with, as far as there are bytes.
fn varint(bytes: &[u8]) -> u64 {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::{FetchRequest, MetadataRequest, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    #[test]
    fn a_count_beyond_the_frame_is_refused_before_anything_is_reserved() {
        let frame = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(decode::<MetadataRequest>(frame, 1).is_err());
        let compact = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x07]);
        assert!(decode::<MetadataRequest>(compact, 12).is_err());
    }

    #[test]
    fn large_numbers_that_are_no_counts_come_through_unchanged() {
        for version in 4..=18 {
            let request = FetchRequest::default()
                .with_max_wait_ms(i32::MAX)
                .with_min_bytes(1 << 30)
                .with_max_bytes(i32::MAX)
                .with_replica_id((-1).into());
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            let decoded: FetchRequest = decode(body.freeze(), version).unwrap();
            assert_eq!((decoded.max_wait_ms, decoded.min_bytes, decoded.max_bytes), (i32::MAX, 1 << 30, i32::MAX));
        }
    }

    #[test]
    fn librdkafkas_request_for_all_topics_is_read_though_bytes_are_left_over() {
        let body = Bytes::from_static(&[0, 0, 0, 0, 1, 0, 0]);
        let request: MetadataRequest = decode(body, 13).unwrap();
        assert_eq!((request.topics, request.allow_auto_topic_creation), (None, false));
    }

    #[test]
    fn what_is_cut_is_refused() {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str("t"))));
        let mut body = BytesMut::new();
        MetadataRequest::default().with_topics(Some(vec![topic])).encode(&mut body, 12).unwrap();
        let body = body.freeze();
        assert!(decode::<MetadataRequest>(body.clone(), 12).is_ok());
        for len in 0..body.len() {
            assert!(decode::<MetadataRequest>(body.slice(..len), 12).is_err(), "{len} bytes");
        }
    }
}
