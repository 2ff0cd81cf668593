//! AWS Signature Version 4, verified: in the Authorization header or in the query (presigned).
//!
//! Called by [`Access::identify`](super::Access::identify) when there are credentials. The order of the checks and the
//! texts are AWS's, as recorded; the time that a signature is good for is the five minutes that Kinesis' own texts tell.

use std::borrow::Cow;
use std::collections::HashMap;

use super::canonical::{self, ALGORITHM, SIGNATURE_PARAMETER, TERMINATOR};
use super::chunked::{self, Seal};
use super::credentials::Credentials;
use super::{AuthError, Identity, Signed, date};

/// How far a client's clock may be off.
const SKEW_MS: i64 = 5 * 60_000;
/// A presigned request is good for a week at most.
const EXPIRES_S_MAX: i64 = 7 * 86_400;
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

pub(super) const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check \
    your AWS Secret Access Key and signing method. Consult the service documentation for details.";
const BOTH: &str = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.";

/// A signature as it was sent.
struct Claim<'a> {
    credential: Cow<'a, str>,
    signature: Cow<'a, str>,
    signed_headers: Cow<'a, str>,
    date: Cow<'a, str>,
    /// How long after its date a presigned request is good.
    expires_s: Option<i64>,
}

pub(super) fn verify(
    request: &Signed<'_>,
    credentials: &Credentials,
    region: &str,
    service: &str,
    now_ms: i64,
) -> Result<Identity, AuthError> {
    let claim = claim(request)?;
    let [id, day, claimed_region, claimed_service, terminator] = scope_of(&claim.credential)?;
    let signed_ms = signed_ms(&claim.date)?;
    require_host(&claim.signed_headers)?;
    let key = credentials.key(id).ok_or(AuthError::UnknownKey)?;
    let mut wrong = String::new();
    if claimed_region != region {
        wrong.push_str(&format!("Credential should be scoped to a valid region, not '{claimed_region}'. "));
    }
    if claimed_service != service {
        wrong.push_str(&format!("Credential should be scoped to correct service: '{service}'. "));
    }
    if terminator != TERMINATOR {
        wrong.push_str(&format!(
            "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{terminator}'. "
        ));
    }
    // In basic format, and so made again from what was read: a Date header has another.
    let date = date::format_basic(signed_ms);
    if !date.starts_with(day) || day.len() != 8 {
        let signed_day = date.get(..8).unwrap_or_default();
        wrong.push_str(&format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' != \
             '{signed_day}', from '{date}'. "
        ));
    }
    if !wrong.is_empty() {
        return Err(AuthError::Invalid(wrong));
    }
    check_time(signed_ms, claim.expires_s, now_ms)?;

    let scope = format!("{day}/{region}/{service}/{TERMINATOR}");
    let hash = payload_hash(request);
    let canonical = canonical::request(request, &claim.signed_headers, &hash);
    let signing_key = canonical::signing_key(&key.secret, day, region, service);
    let signature = canonical::sign(&signing_key, &canonical::string_to_sign(&date, &scope, &canonical));
    if !canonical::is_equal(&signature, &claim.signature) {
        return Err(AuthError::Invalid(MISMATCH.to_owned()));
    }
    let seal = chunked::is_sealed(&hash).then_some(Seal { key: signing_key, date, scope, previous: signature });
    Ok(Identity { principal: key.principal.clone(), seal })
}

/// The signature in the header or the query.
fn claim<'a>(request: &Signed<'a>) -> Result<Claim<'a>, AuthError> {
    let header = request.headers.get(hyper::header::AUTHORIZATION);
    let query: HashMap<_, _> = canonical::parameters(request.query).collect();
    match (header, query.contains_key("X-Amz-Algorithm")) {
        (Some(_), true) => Err(AuthError::Invalid(BOTH.to_owned())),
        (None, false) => Err(AuthError::Missing),
        (Some(header), false) => claim_in_header(request, String::from_utf8_lossy(header.as_bytes())),
        (None, true) => claim_in_query(query),
    }
}

fn claim_in_header<'a>(request: &Signed<'a>, header: Cow<'a, str>) -> Result<Claim<'a>, AuthError> {
    let mut words = header.split([',', ' ', '\t']).filter(|word| !word.is_empty());
    let algorithm = words.next().unwrap_or_default();
    let parameters: HashMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    let mut wrong = String::new();
    let mut parameter = |name: &str| match parameters.get(name) {
        Some(value) if !value.is_empty() => (*value).to_owned(),
        _ => {
            wrong.push_str(&format!("Authorization header requires '{name}' parameter. "));
            String::new()
        }
    };
    let (credential, signature) = (parameter("Credential"), parameter("Signature"));
    let signed_headers = parameter("SignedHeaders");
    let text = |name: &str| request.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let date = text("x-amz-date").or_else(|| text("date"));
    if date.is_none() {
        wrong.push_str("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
    }
    if wrong.is_empty() && algorithm != ALGORITHM {
        wrong.push_str(&format!("Unsupported AWS 'algorithm': '{algorithm}'. "));
    }
    if !wrong.is_empty() {
        return Err(AuthError::Incomplete(format!("{wrong}Authorization={header}")));
    }
    Ok(Claim {
        credential: credential.into(),
        signature: signature.into(),
        signed_headers: signed_headers.into(),
        date: date.unwrap_or_default(),
        expires_s: None,
    })
}

fn claim_in_query<'a>(mut query: HashMap<Cow<'a, str>, Cow<'a, str>>) -> Result<Claim<'a>, AuthError> {
    let mut wrong = String::new();
    let mut parameter = |name: &str| {
        let value = query.remove(name).unwrap_or_default();
        if value.is_empty() {
            wrong.push_str(&format!("AWS query-string parameters must include '{name}'. "));
        }
        value
    };
    let (algorithm, credential) = (parameter("X-Amz-Algorithm"), parameter("X-Amz-Credential"));
    let (signature, signed_headers) = (parameter(SIGNATURE_PARAMETER), parameter("X-Amz-SignedHeaders"));
    let date = parameter("X-Amz-Date");
    let expires_s = match query.get("X-Amz-Expires").map(|text| text.parse::<i64>()) {
        None => None,
        Some(Ok(expires_s @ 0..=EXPIRES_S_MAX)) => Some(expires_s),
        Some(_) => {
            wrong.push_str("'X-Amz-Expires' must be a number of seconds between 0 and 604800. ");
            None
        }
    };
    if wrong.is_empty() && algorithm != ALGORITHM {
        wrong.push_str(&format!("Unsupported AWS 'algorithm': '{algorithm}'. "));
    }
    if !wrong.is_empty() {
        return Err(AuthError::Incomplete(format!("{wrong}Re-examine the query-string parameters.")));
    }
    Ok(Claim { credential, signature, signed_headers, date, expires_s })
}

/// Key id, day, region, service and terminator.
fn scope_of(credential: &str) -> Result<[&str; 5], AuthError> {
    let parts: Vec<&str> = credential.split('/').collect();
    parts.try_into().map_err(|_| {
        AuthError::Incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
             '{credential}'"
        ))
    })
}

fn signed_ms(text: &str) -> Result<i64, AuthError> {
    date::parse_basic(text).or_else(|| date::parse_http(text)).ok_or_else(|| {
        AuthError::Incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ))
    })
}

/// A signature that does not cover the host is good for any.
fn require_host(signed_headers: &str) -> Result<(), AuthError> {
    match signed_headers.split(';').any(|name| matches!(name, "host" | ":authority")) {
        true => Ok(()),
        false => Err(AuthError::Invalid(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
        )),
    }
}

fn check_time(signed_ms: i64, expires_s: Option<i64>, now_ms: i64) -> Result<(), AuthError> {
    let text = date::format_basic;
    let good_ms = expires_s.map_or(SKEW_MS, |seconds| seconds * 1_000);
    if signed_ms.saturating_add(good_ms) < now_ms {
        let span = match good_ms % 60_000 {
            0 => format!("{} min.", good_ms / 60_000),
            _ => format!("{} sec.", good_ms / 1_000),
        };
        let earliest = text(now_ms - good_ms);
        let (signed, now) = (text(signed_ms), text(now_ms));
        return Err(AuthError::Invalid(format!(
            "Signature expired: {signed} is now earlier than {earliest} ({now} - {span})"
        )));
    }
    if signed_ms > now_ms.saturating_add(SKEW_MS) {
        let (signed, latest, now) = (text(signed_ms), text(now_ms + SKEW_MS), text(now_ms));
        return Err(AuthError::Invalid(format!(
            "Signature not yet current: {signed} is still later than {latest} ({now} + {} min.)",
            SKEW_MS / 60_000
        )));
    }
    Ok(())
}

/// What stands for the body in the canonical request: its hash, unless the client says that it is not covered or comes
/// in chunks with signatures of their own.
fn payload_hash(request: &Signed<'_>) -> String {
    let told = request.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    let told = told.map(Cow::Borrowed).or_else(|| {
        let mut parameters = canonical::parameters(request.query);
        parameters.find(|(name, _)| name == "X-Amz-Content-Sha256").map(|(_, value)| value)
    });
    match told {
        Some(told) if told == UNSIGNED || told.starts_with("STREAMING-") => told.into_owned(),
        _ => canonical::hash(request.body),
    }
}

#[cfg(test)]
mod tests;
