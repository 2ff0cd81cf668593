//! Bodies in AWS's own chunks (`Content-Encoding: aws-chunked`), each with a signature over the one before, or none.
//!
//! `SIZE[;chunk-signature=S]\r\n DATA \r\n ... 0[;chunk-signature=S]\r\n [trailing headers \r\n ...] \r\n`
//!
//! Called by `http` with a body that was received whole. Source: AWS, "Signature calculations for the Authorization
//! header: transferring payload in multiple chunks", and the same with trailing headers.

use bytes::{Bytes, BytesMut};

use super::AuthError;
use super::canonical;

/// How a body says in `x-amz-content-sha256` that it comes so.
const STREAMING: &str = "STREAMING-";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// What signs the pieces of a body: the key, and the signature of the request that they follow.
pub struct Seal {
    pub(super) key: [u8; 32],
    pub(super) date: String,
    pub(super) scope: String,
    pub(super) previous: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seal({})", self.scope)
    }
}

/// Why a body is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkError {
    Malformed,
    Signature(AuthError),
}

/// Whether a body of this `x-amz-content-sha256` and `Content-Encoding` is in chunks.
pub fn is_chunked(content_sha256: Option<&str>, content_encoding: Option<&str>) -> bool {
    content_sha256.is_some_and(|hash| hash.starts_with(STREAMING))
        || content_encoding.is_some_and(|all| all.split(',').any(|one| one.trim().eq_ignore_ascii_case("aws-chunked")))
}

/// Whether the chunks of a body are signed.
pub(super) fn is_sealed(content_sha256: &str) -> bool {
    content_sha256.starts_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
}

/// The data in a body. With a seal every chunk, and the headers behind the last, must be signed.
pub fn decode(body: &[u8], mut seal: Option<Seal>) -> Result<Bytes, ChunkError> {
    let mut data = BytesMut::new();
    let mut rest = body;
    loop {
        let (line, behind) = split_line(rest)?;
        let (size, signature) = line.split_once(';').unwrap_or((line, ""));
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| ChunkError::Malformed)?;
        let (chunk, behind) = behind.split_at_checked(size).ok_or(ChunkError::Malformed)?;
        if let Some(seal) = &mut seal {
            seal.check_chunk(chunk, signature.trim().strip_prefix("chunk-signature=").unwrap_or_default())?;
        }
        if size == 0 {
            trailer(behind, seal)?;
            return Ok(data.freeze());
        }
        data.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n").ok_or(ChunkError::Malformed)?;
    }
}

/// Checks what stands behind the last chunk.
fn trailer(mut rest: &[u8], seal: Option<Seal>) -> Result<(), ChunkError> {
    let mut headers = String::new();
    let mut signature = None;
    while !rest.is_empty() {
        let (line, behind) = split_line(rest)?;
        rest = behind;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or(ChunkError::Malformed)?;
        let name = name.trim().to_ascii_lowercase();
        if name == TRAILER_SIGNATURE {
            signature = Some(value.trim().to_owned());
        } else {
            headers.push_str(&format!("{name}:{}\n", value.trim()));
        }
    }
    match seal {
        Some(mut seal) if !headers.is_empty() => {
            seal.check("AWS4-HMAC-SHA256-TRAILER", &canonical::hash(headers.as_bytes()), &signature.unwrap_or_default())
        }
        _ => Ok(()),
    }
}

/// A line and what follows its end.
fn split_line(bytes: &[u8]) -> Result<(&str, &[u8]), ChunkError> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").ok_or(ChunkError::Malformed)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(ChunkError::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| ChunkError::Malformed)?;
    Ok((line, rest.get(2..).unwrap_or_default()))
}

impl Seal {
    fn check_chunk(&mut self, chunk: &[u8], signature: &str) -> Result<(), ChunkError> {
        let hashes = format!("{}\n{}", canonical::hash(b""), canonical::hash(chunk));
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &hashes, signature)
    }

    fn check(&mut self, kind: &str, hashes: &str, signature: &str) -> Result<(), ChunkError> {
        let text = format!("{kind}\n{}\n{}\n{}\n{hashes}", self.date, self.scope, self.previous);
        let wanted = canonical::sign(&self.key, &text);
        if !canonical::is_equal(&wanted, signature) {
            return Err(ChunkError::Signature(AuthError::Invalid(super::signature::MISMATCH.to_owned())));
        }
        self.previous = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's page on chunked uploads: 64 KiB and 1 KiB of the letter a.
    fn example() -> (Vec<u8>, Seal) {
        let scope = "20130524/us-east-1/s3/aws4_request";
        let seal = Seal {
            key: canonical::signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3"),
            date: "20130524T000000Z".into(),
            scope: scope.into(),
            previous: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9".into(),
        };
        let mut body = Vec::new();
        for (size, signature) in [
            (65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
            (1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
            (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ] {
            body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend_from_slice(b"\r\n");
        }
        (body, seal)
    }

    #[test]
    fn the_published_example_is_right_and_nothing_else() {
        let (body, seal) = example();
        assert_eq!(decode(&body, Some(seal)).unwrap(), vec![b'a'; 65_536 + 1_024]);
        let (mut body, seal) = example();
        body[70_000 - 3_500] = b'b';
        assert!(matches!(decode(&body, Some(seal)), Err(ChunkError::Signature(AuthError::Invalid(_)))));
        // The end is signed too: a body cannot be cut between chunks.
        let (body, seal) = example();
        let cut = [&body[..65_536 + 88], b"0;chunk-signature=00\r\n\r\n"].concat();
        assert!(decode(&cut, Some(seal)).is_err());
    }

    #[test]
    fn chunks_without_signatures_are_put_together() {
        let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        assert_eq!(decode(body, None).unwrap(), "abcde");
        assert_eq!(decode(b"0\r\n\r\n", None).unwrap(), "");
        for body in
            [&b""[..], b"3\r\nab", b"3\r\nabcd\r\n0\r\n\r\n", b"x\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n\r\n"]
        {
            assert_eq!(decode(body, None), Err(ChunkError::Malformed), "{body:?}");
        }
    }

    #[test]
    fn a_body_says_how_it_comes() {
        assert!(is_chunked(Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), None));
        assert!(is_chunked(None, Some("gzip, aws-chunked")));
        assert!(!is_chunked(Some("UNSIGNED-PAYLOAD"), Some("gzip")));
    }
}
