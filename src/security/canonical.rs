//! What is signed: a request in the one spelling that client and server agree on, and the signature over it.
//!
//! Source: AWS Signature Version 4 (all services but S3: paths are normalised, and encoded again).

use std::borrow::Cow;
use std::fmt::Write;

use hmac::{Hmac, Mac};
use hyper::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::Signed;

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(super) const TERMINATOR: &str = "aws4_request";
pub(super) const SIGNATURE_PARAMETER: &str = "X-Amz-Signature";
/// Characters that stand for themselves: RFC 3986's unreserved ones.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// The canonical request. `signed_headers` is the list as the client gave it, names apart by semicolons.
pub(super) fn request(request: &Signed<'_>, signed_headers: &str, payload_hash: &str) -> String {
    let mut canonical = format!("{}\n{}\n{}\n", request.method, path(request.path), query(request.query));
    for name in signed_headers.split(';') {
        let _ = writeln!(canonical, "{name}:{}", header(request.headers, name, request.authority));
    }
    let _ = write!(canonical, "\n{signed_headers}\n{payload_hash}");
    canonical
}

pub(super) fn string_to_sign(date: &str, scope: &str, canonical: &str) -> String {
    format!("{ALGORITHM}\n{date}\n{scope}\n{}", hash(canonical.as_bytes()))
}

/// The key for a day, a region and a service.
pub(super) fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> [u8; 32] {
    let first = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    [region, service, TERMINATOR].iter().fold(first, |key, part| hmac(&key, part.as_bytes()))
}

/// A signature in hexadecimal digits.
pub(super) fn sign(key: &[u8; 32], text: &str) -> String {
    hexadecimal(&hmac(key, text.as_bytes()))
}

/// Takes as long for a signature that is nearly right as for one that is not.
pub(super) fn is_equal(ours: &str, theirs: &str) -> bool {
    ours.len() == theirs.len() && ours.bytes().zip(theirs.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The pairs of a query, decoded.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).decode_utf8_lossy(), percent_decode_str(value).decode_utf8_lossy())
    })
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length, so that there is no key to refuse.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Without empty segments and dots; what is encoded already is encoded once more.
fn path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let is_folder = !segments.is_empty() && matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let normal = format!("/{}{}", segments.join("/"), if is_folder { "/" } else { "" });
    utf8_percent_encode(&normal, RESERVED_IN_PATHS).to_string()
}

/// Sorted by name and value, without the signature.
fn query(query: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let mut pairs: Vec<_> = parameters(query)
        .filter(|(name, _)| name != SIGNATURE_PARAMETER)
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// A header's values in the order they came, apart by commas, white space in them reduced to single blanks.
fn header(headers: &HeaderMap, name: &str, authority: Option<&str>) -> String {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    match authority {
        Some(authority) if values.is_empty() && name == "host" => authority.to_owned(),
        _ => values.join(","),
    }
}
