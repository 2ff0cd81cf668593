//! ShareFetch 2 and ShareAcknowledge 2 (Kafka 4.2: KIP-1206, KIP-1222), which the codec does not know. They are version 1
//! with a few bytes more, so requests are read as version 1 without these bytes, and answers get theirs put in.
//!
//! | message | where | field | width |
//! |---|---|---|---|
//! | ShareFetch request | after `batch_size` | share_acquire_mode: 0 whole batches, 1 exact | i8 |
//! | | | is_renew_ack | bool |
//! | ShareAcknowledge request | after `share_session_epoch` | is_renew_ack | bool |
//! | ShareAcknowledge response | after `error_message` | acquisition_lock_timeout_ms | i32 |

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ShareAcknowledgeRequest, ShareFetchRequest};
use kafka_protocol::protocol::VersionRange;

use crate::kafka::guard::{self, Malformed};

/// Of both.
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 2 };

/// What the codec reads and writes.
const KNOWN: i16 = 1;

/// `share_session_epoch`, `max_wait_ms`, `min_bytes`, `max_bytes`, `max_records`, `batch_size`.
const FETCH_NUMBERS: usize = 24;
/// `share_session_epoch`.
const ACKNOWLEDGE_NUMBERS: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchExtra {
    /// Never more records than `max_records`.
    pub exact: bool,
    pub renews: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcknowledgeExtra {
    pub renews: bool,
}

pub fn decode_fetch(body: Bytes, version: i16) -> Result<(ShareFetchRequest, FetchExtra), Malformed> {
    if version <= KNOWN {
        return Ok((guard::decode(body, version)?, FetchExtra::default()));
    }
    let (body, [mode, renews]) = without(body, FETCH_NUMBERS)?;
    let exact = match mode {
        0 => false,
        1 => true,
        _ => return Err(Malformed(format!("share acquire mode {mode}"))),
    };
    Ok((guard::decode(body, KNOWN)?, FetchExtra { exact, renews: renews != 0 }))
}

pub fn decode_acknowledge(body: Bytes, version: i16) -> Result<(ShareAcknowledgeRequest, AcknowledgeExtra), Malformed> {
    if version <= KNOWN {
        return Ok((guard::decode(body, version)?, AcknowledgeExtra::default()));
    }
    let (body, [renews]) = without(body, ACKNOWLEDGE_NUMBERS)?;
    Ok((guard::decode(body, KNOWN)?, AcknowledgeExtra { renews: renews != 0 }))
}

/// The body without the `N` bytes that stand behind group id, member id and `numbers` bytes, and these bytes.
fn without<const N: usize>(body: Bytes, numbers: usize) -> Result<(Bytes, [u8; N]), Malformed> {
    let cut = || Malformed("a request that is cut".to_owned());
    let mut rest = body.clone();
    for _ in 0..2 {
        skip_string(&mut rest).ok_or_else(cut)?;
    }
    let at = body.len() - rest.len() + numbers;
    let extra = body.get(at..).and_then(|rest| rest.first_chunk::<N>()).ok_or_else(cut)?;
    let mut known = BytesMut::with_capacity(body.len());
    known.extend_from_slice(body.get(..at).unwrap_or_default());
    known.extend_from_slice(body.get(at + N..).unwrap_or_default());
    Ok((known.freeze(), *extra))
}

/// A compact string: a varint of its length and one, or 0 for none.
fn skip_string(rest: &mut Bytes) -> Option<()> {
    let mut claimed = 0_usize;
    for index in 0..5 {
        let byte = rest.try_get_u8().ok()?;
        claimed |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let len = claimed.saturating_sub(1);
            return (len <= rest.len()).then(|| rest.advance(len));
        }
    }
    None
}

/// Makes version 2 of a ShareAcknowledge answer of version 1, a whole frame whose error message is null: `length i32,
/// correlation id i32, no tagged fields u8, throttle time i32, error i16, null u8`.
pub fn put_lock_timeout(frame: BytesMut, lock_timeout_ms: i32) -> BytesMut {
    const AT: usize = 4 + 4 + 1 + 4 + 2 + 1;
    let (head, rest) = frame.split_at_checked(AT).unwrap_or((&frame, &[]));
    let mut longer = BytesMut::with_capacity(frame.len() + 4);
    longer.extend_from_slice(head);
    longer.extend_from_slice(&lock_timeout_ms.to_be_bytes());
    longer.extend_from_slice(rest);
    let length = (longer.len() - 4) as i32;
    longer[..4].copy_from_slice(&length.to_be_bytes());
    longer
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{GroupId, ShareAcknowledgeResponse};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    use super::*;
    use crate::kafka::encode_frame;

    fn fetch() -> (ShareFetchRequest, Bytes) {
        let request = ShareFetchRequest::default()
            .with_group_id(Some(GroupId(StrBytes::from_string("g".repeat(200)))))
            .with_member_id(Some(StrBytes::from_static_str("m")))
            .with_share_session_epoch(7)
            .with_max_wait_ms(500)
            .with_max_records(11)
            .with_batch_size(3);
        let mut body = BytesMut::new();
        request.encode(&mut body, KNOWN).unwrap();
        (request, body.freeze())
    }

    fn with(body: &Bytes, at: usize, extra: &[u8]) -> Bytes {
        [&body[..at], extra, &body[at..]].concat().into()
    }

    #[test]
    fn version_2_of_a_fetch_says_how_to_acquire() {
        let (request, body) = fetch();
        assert_eq!(decode_fetch(body.clone(), 1).unwrap(), (request.clone(), FetchExtra::default()));
        let at = 2 + 200 + 1 + 1 + FETCH_NUMBERS;
        let longer = with(&body, at, &[1, 1]);
        let extra = FetchExtra { exact: true, renews: true };
        assert_eq!(decode_fetch(longer.clone(), 2).unwrap(), (request.clone(), extra));
        assert_eq!(decode_fetch(with(&body, at, &[0, 0]), 2).unwrap(), (request, FetchExtra::default()));
        assert!(decode_fetch(with(&body, at, &[2, 0]), 2).is_err());
        for len in 0..longer.len() {
            assert!(decode_fetch(longer.slice(..len), 2).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn version_2_of_an_acknowledgement_says_whether_it_renews_and_is_told_for_how_long() {
        let request = ShareAcknowledgeRequest::default().with_group_id(None).with_share_session_epoch(7);
        let mut body = BytesMut::new();
        request.encode(&mut body, KNOWN).unwrap();
        let longer = with(&body.freeze(), 1 + 1 + ACKNOWLEDGE_NUMBERS, &[1]);
        let (read, extra) = decode_acknowledge(longer, 2).unwrap();
        assert_eq!((read.share_session_epoch, extra), (7, AcknowledgeExtra { renews: true }));

        let response = ShareAcknowledgeResponse::default().with_error_code(3).with_throttle_time_ms(9);
        let frame = encode_frame(&response, 1, KNOWN).unwrap();
        let mut longer = put_lock_timeout(frame.clone(), 30_000);
        assert_eq!(longer.get_i32() as usize, longer.len());
        let (head, rest) = longer.split_at(12);
        assert_eq!(rest[..4], 30_000_i32.to_be_bytes());
        let mut back = Bytes::from([head, &rest[4..]].concat()).slice(5..);
        assert_eq!(ShareAcknowledgeResponse::decode(&mut back, KNOWN).unwrap(), response);
    }
}
