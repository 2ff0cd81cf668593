//! Three protocols for the same operations: which one a request speaks, its body read, the answer written.
//!
//! | protocol | told by | body | answer |
//! |---|---|---|---|
//! | query | `Action` in a form | form | XML |
//! | AWS JSON 1.0 | `X-Amz-Target: GraniteServiceVersion20100801.Operation` | JSON | JSON |
//! | Smithy RPC v2 | the path `/service/GraniteServiceVersion20100801/operation/Operation` | CBOR | CBOR |
//!
//! Bodies may be compressed by gzip. Called by `http` ([`is_claimed`]) and the door.
//!
//! Source: AWS query protocol, AWS JSON 1.0, Smithy RPC v2 CBOR, the trait `awsQueryCompatible`.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::answer::{Node, escaped};
use super::error::Error;
use super::form::{Form, Malformed};
use super::{SERVICE, SIGNED_AS};
use crate::http::codec::{decode, decode_rpc};
use crate::http::{Format, ServiceReply};

/// AWS's bound for a request, as it is sent.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// What a compressed one may come to: 1,000 metrics of 150 values and counts each.
pub const INFLATED_BYTES_MAX: usize = 8 << 20;

const NAMESPACE: &str = "http://monitoring.amazonaws.com/doc/2010-08-01/";
/// Of the shapes' names in JSON and CBOR.
const SHAPES: &str = "com.amazonaws.cloudwatch#";
const FORM: &str = "application/x-www-form-urlencoded";
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Query,
    Json,
    Cbor,
}

/// Whether a request is for this service.
pub fn is_claimed(head: &Parts, body: &[u8]) -> bool {
    if head.method != Method::POST {
        return false;
    }
    if operation_of_head(head).is_some() {
        return true;
    }
    let is_form = header(&head.headers, &CONTENT_TYPE).starts_with(FORM) && !head.headers.contains_key(TARGET);
    // A compressed form tells its service only by its signature.
    is_form && (is_signed_for_us(head) || action(body).is_some_and(|action| super::row(action).is_some()))
}

fn is_signed_for_us(head: &Parts) -> bool {
    header(&head.headers, &AUTHORIZATION).contains(&format!("/{SIGNED_AS}/aws4_request"))
}

/// The `Action` of a form, where it needs no decoding.
fn action(form: &[u8]) -> Option<&str> {
    let form = std::str::from_utf8(form).ok()?;
    form.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(str::trim_end)
}

/// The protocol and the operation, where the head tells them.
fn operation_of_head(head: &Parts) -> Option<(Protocol, String)> {
    if let Some(rest) = head.uri.path().strip_prefix("/service/") {
        let (service, operation) = rest.split_once("/operation/")?;
        return (service == SERVICE).then(|| (Protocol::Cbor, operation.to_owned()));
    }
    let (service, operation) = header(&head.headers, &TARGET).split_once('.')?;
    (service == SERVICE).then(|| (Protocol::Json, operation.to_owned()))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A request as far as every operation has the same.
pub struct Request {
    pub protocol: Protocol,
    pub operation: String,
    body: Body,
}

enum Body {
    Form(Form),
    Bytes(Bytes),
}

impl Request {
    /// The protocol goes with an error, so that it can be told.
    pub fn open(head: &Parts, body: Bytes) -> Result<Request, (Protocol, Error)> {
        let named = operation_of_head(head);
        let protocol = named.as_ref().map_or(Protocol::Query, |(protocol, _)| *protocol);
        let refuse = |error| (protocol, error);
        if body.len() > BODY_BYTES_MAX {
            return Err(refuse(Error::TooLarge));
        }
        let body = match header(&head.headers, &CONTENT_ENCODING) {
            encoding if encoding.split(',').any(|one| one.trim().eq_ignore_ascii_case("gzip")) => {
                inflate(&body).map_err(refuse)?
            }
            _ => body,
        };
        if let Some((protocol, operation)) = named {
            return Ok(Request { protocol, operation, body: Body::Bytes(body) });
        }
        let unreadable = || refuse(Error::Malformed("The request's form cannot be read.".to_owned()));
        let form = Form::parse(&body).ok_or_else(unreadable)?;
        let operation = form.get("Action").unwrap_or_default().to_owned();
        Ok(Request { protocol, operation, body: Body::Form(form) })
    }

    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match (&self.body, self.protocol) {
            (Body::Form(form), _) => form.read().map_err(|Malformed(text)| Error::Malformed(text)),
            (Body::Bytes(body), Protocol::Cbor) => Ok(decode_rpc(if body.is_empty() { &[0xa0] } else { body })?),
            (Body::Bytes(body), Protocol::Json | Protocol::Query) => {
                Ok(decode(Format::Json, if body.is_empty() { b"{}" } else { body })?)
            }
        }
    }
}

fn inflate(body: &[u8]) -> Result<Bytes, Error> {
    let mut out = Vec::new();
    let mut reader = MultiGzDecoder::new(body).take(INFLATED_BYTES_MAX as u64 + 1);
    match reader.read_to_end(&mut out) {
        Ok(length) if length > INFLATED_BYTES_MAX => Err(Error::TooLarge),
        Ok(_) => Ok(out.into()),
        Err(error) => Err(Error::Malformed(format!("The request's body cannot be decompressed: {error}"))),
    }
}

/// What went well.
pub fn answer(protocol: Protocol, operation: &str, node: &Node, request_id: Uuid) -> ServiceReply {
    let (headers, body) = match protocol {
        Protocol::Query => {
            let mut out = format!("<{operation}Response xmlns=\"{NAMESPACE}\">");
            if !node.is_empty() {
                out.push_str(&format!("<{operation}Result>"));
                node.xml(&mut out);
                out.push_str(&format!("</{operation}Result>"));
            }
            out.push_str(&format!("<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"));
            out.push_str(&format!("</{operation}Response>"));
            (content("text/xml"), out.into_bytes())
        }
        Protocol::Json => (content("application/x-amz-json-1.0"), json(node)),
        // An operation that answers with nothing has no body at all.
        Protocol::Cbor if node.is_empty() => (rpc(Vec::new()), Vec::new()),
        Protocol::Cbor => (rpc(content("application/cbor")), cbor(node)),
    };
    ServiceReply { status: 200, headers, body: body.into() }
}

pub fn refuse(protocol: Protocol, error: &Error, request_id: Uuid) -> ServiceReply {
    let status = error.status();
    let node = Node::Structure(vec![
        ("__type", Node::Text(format!("{SHAPES}{}", error.shape()))),
        ("message", Node::Text(error.message())),
    ]);
    let at_fault = if status >= 500 { "Receiver" } else { "Sender" };
    let with_query_error = |mut headers: Headers| {
        headers.push(("x-amzn-query-error", format!("{};{at_fault}", error.code())));
        headers
    };
    let (headers, body) = match protocol {
        Protocol::Query => {
            let text = format!(
                "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{at_fault}</Type><Code>{}</Code><Message>{}</Message>\
                 </Error><RequestId>{request_id}</RequestId></ErrorResponse>",
                error.code(),
                escaped(&error.message())
            );
            (content("text/xml"), text.into_bytes())
        }
        Protocol::Json => (with_query_error(content("application/x-amz-json-1.0")), json(&node)),
        Protocol::Cbor => (with_query_error(rpc(content("application/cbor"))), cbor(&node)),
    };
    ServiceReply { status, headers, body: body.into() }
}

type Headers = Vec<(&'static str, String)>;

fn content(content_type: &str) -> Headers {
    vec![("content-type", content_type.to_owned())]
}

fn rpc(mut headers: Headers) -> Headers {
    headers.push(("smithy-protocol", "rpc-v2-cbor".to_owned()));
    headers
}

/// Trees of texts and numbers always encode.
fn json(node: &Node) -> Vec<u8> {
    serde_json::to_vec(node).unwrap_or_default()
}

fn cbor(node: &Node) -> Vec<u8> {
    let mut out = Vec::new();
    match ciborium::into_writer(node, &mut out) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}
