//! Requests as AWS's JSON services take them: which service and operation, who asks, and the answer's form.
//!
//! The order of the checks and the answers to what is wrong are as recorded from AWS: the method, the body's presence,
//! the content type, its syntax, the operation, the signature, then the operation's own checks. The path means nothing.
//! A body is parsed once, by the operation's handler; only when something is wrong it is looked at before, because the
//! answer depends on it.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use sha2::{Digest, Sha512};
use uuid::Uuid;

use super::api::{Api, Call, Format, Reply, Service, ServiceCall};
use super::body::AnswerBody;
use super::budget::Budget;
use super::listen::Stopping;
use super::trace::{self, Traced};
use super::{Failure, HttpState, codec, event_stream, sts};
use crate::clock::Clock;
use crate::metrics::TraceId;
use crate::security::chunked::{self, ChunkError};
use crate::security::{AuthError, Principal, Signed};

const JSON_1_0: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const TARGET: &str = "x-amz-target";
const SERVICE: &str = "kinesis";
const STS: &str = "sts";
/// Headers that a page of another origin may read.
const EXPOSED: &str = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date";
const CORS_MAX_AGE: &str = "172800";

pub type Answer = Response<AnswerBody>;

/// What a request needs beside itself.
pub struct Around<'a> {
    pub state: &'a Arc<HttpState>,
    pub budget: &'a Budget,
    pub clock: &'a Clock,
    pub peer: SocketAddr,
    pub stopping: Stopping,
}

/// Answers a request whose body was read.
pub async fn answer(around: Around<'_>, head: &Parts, body: Bytes) -> Answer {
    let request_id = around.clock.random_uuid();
    let is_preflight = head.method == Method::OPTIONS && head.headers.contains_key(ORIGIN);
    let (state, peer) = (around.state, around.peer);
    let traced = trace::begin(state.tracer.as_deref(), head, &body);
    let asked = Asked { request_id, trace: traced.as_ref().map(Traced::trace_id) };
    let mut answer = if is_preflight { preflight(&head.headers) } else { route(around, head, body, asked).await };
    let headers = answer.headers_mut();
    header(headers, "x-amzn-requestid", &request_id.to_string());
    if !is_preflight {
        header(headers, "x-amz-id-2", &second_id(request_id));
    }
    if head.headers.contains_key(ORIGIN) {
        header(headers, "access-control-allow-origin", "*");
        if !is_preflight {
            header(headers, "access-control-expose-headers", EXPOSED);
        }
    }
    if let Some(traced) = traced {
        traced.end(head, &answer, peer, request_id);
    }
    answer
}

/// By what a request is known outside.
#[derive(Clone, Copy)]
struct Asked {
    request_id: Uuid,
    trace: Option<TraceId>,
}

async fn route(around: Around<'_>, head: &Parts, body: Bytes, asked: Asked) -> Answer {
    let Asked { request_id, trace } = asked;
    if let Some(service) = around.state.services.iter().find(|service| (service.claims)(head, &body)) {
        return serve(&around, service, head, body, asked).await;
    }
    let content_type = content_type(&head.headers);
    let query = head.uri.query().unwrap_or_default();
    let is_form = content_type == FORM && !head.headers.contains_key(TARGET);
    if is_form || (head.method == Method::GET && sts::is_action(query.as_bytes())) {
        return sts(&around, head, &body, request_id);
    }
    match check(&around, head, content_type, &body) {
        Ok(Checked { api, operation, format }) => {
            let (principal, body) = match identify(&around, head, SERVICE, body) {
                Ok(identified) => identified,
                Err(Unidentified { error, body }) => {
                    around.state.metrics.http_refused("signature");
                    let malformed = !codec::is_document(format, &body);
                    return whole(format, &if malformed { Failure::serialization(None) } else { failure_of(error) });
                }
            };
            let user_agent = head.headers.get(USER_AGENT).cloned();
            let call = Call { operation, format, body, principal, peer: around.peer, user_agent, request_id, trace };
            reply(&around, format, (api.handler)(call).await)
        }
        Err(answer) => {
            around.state.metrics.http_refused("no_operation");
            *answer
        }
    }
}

/// A request whose operation exists.
struct Checked<'a> {
    api: &'a Api,
    operation: String,
    format: Format,
}

fn check<'a>(around: &Around<'a>, head: &Parts, content_type: &str, body: &[u8]) -> Result<Checked<'a>, Box<Answer>> {
    let denied = || {
        let message = "Unable to determine service/operation name to be authorized";
        xml(StatusCode::FORBIDDEN, "AccessDeniedException", Some(message))
    };
    if head.method != Method::POST {
        return Err(denied().into());
    }
    let target = head.headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
    let (service, rest) = target.split_once('.').unwrap_or((target, ""));
    let operation = rest.split('.').next().unwrap_or_default();
    let known = around.state.apis.iter().find(|api| api.name == service && (api.knows)(operation));
    let format = match content_type {
        _ if content_type == Format::Json.content_type() => Some(Format::Json),
        _ if content_type == Format::Cbor.content_type() => Some(Format::Cbor),
        _ => None,
    };
    if body.is_empty() {
        let failure = if known.is_some() { Failure::serialization(None) } else { Failure::unknown_operation() };
        return Err(whole(format.unwrap_or(Format::Cbor), &failure).into());
    }
    let Some(format) = format else {
        return Err(Box::new(match content_type {
            JSON_1_0 => old_json(body),
            _ if service.is_empty() || operation.is_empty() => denied(),
            _ => xml(StatusCode::NOT_FOUND, "UnknownOperationException", None),
        }));
    };
    match known {
        Some(api) => Ok(Checked { api, operation: operation.to_owned(), format }),
        None if !codec::is_document(format, body) => Err(whole(format, &Failure::serialization(None)).into()),
        None => Err(whole(format, &Failure::unknown_operation()).into()),
    }
}

/// Who asks is not known; the body, to tell whether it is even one.
struct Unidentified {
    error: AuthError,
    body: Bytes,
}

/// Who asks, and the body without AWS's chunks.
fn identify(around: &Around<'_>, head: &Parts, service: &str, body: Bytes) -> Result<(Principal, Bytes), Unidentified> {
    let request = Signed {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
        authority: head.uri.authority().map(|authority| authority.as_str()),
        body: &body,
    };
    let identity = match around.state.access.identify(&request, service, around.clock.now_ms()) {
        Ok(identity) => identity,
        Err(error) => return Err(Unidentified { error, body }),
    };
    let text = |value: Option<&'_ HeaderValue>| value.and_then(|value| value.to_str().ok().map(str::to_owned));
    let hash = text(head.headers.get("x-amz-content-sha256"));
    if !chunked::is_chunked(hash.as_deref(), text(head.headers.get(CONTENT_ENCODING)).as_deref()) {
        return Ok((identity.principal, body));
    }
    match chunked::decode(&body, identity.seal) {
        Ok(data) => Ok((identity.principal, data)),
        // What is in no chunks is taken for what it is: it will not be a document.
        Err(ChunkError::Malformed) => Ok((identity.principal, body)),
        Err(ChunkError::Signature(error)) => Err(Unidentified { error, body }),
    }
}

fn failure_of(error: AuthError) -> Failure {
    let code = match &error {
        AuthError::Missing => "MissingAuthenticationTokenException",
        AuthError::UnknownKey => "UnrecognizedClientException",
        AuthError::Incomplete(_) => "IncompleteSignatureException",
        AuthError::Invalid(_) => "InvalidSignatureException",
    };
    Failure::new(code, error.to_string())
}

fn reply(around: &Around<'_>, format: Format, reply: Reply) -> Answer {
    match reply {
        Reply::Whole(Ok(body)) => {
            let held = around.budget.answer(body.len());
            response(StatusCode::OK, Some(format.content_type()), AnswerBody::whole(body, Some(held)))
        }
        Reply::Whole(Err(failure)) => whole(format, &failure),
        Reply::Events(stream) => {
            let body = AnswerBody::events(stream, format, around.stopping.clone().future());
            response(StatusCode::OK, Some(event_stream::CONTENT_TYPE), body)
        }
    }
}

/// The answer of a service that has protocols of its own.
async fn serve(around: &Around<'_>, service: &Service, head: &Parts, body: Bytes, asked: Asked) -> Answer {
    let Asked { request_id, trace } = asked;
    let (principal, body) = match identify(around, head, service.signed_as, body) {
        Ok((principal, body)) => (Ok(principal), body),
        Err(Unidentified { error, body }) => {
            around.state.metrics.http_refused("signature");
            (Err(error), body)
        }
    };
    let call = ServiceCall { head: head.clone(), body, principal, peer: around.peer, request_id, trace };
    let reply = (service.handler)(call).await;
    let code = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let held = around.budget.answer(reply.body.len());
    let mut answer = response(code, None, AnswerBody::whole(reply.body, Some(held)));
    for (name, value) in reply.headers {
        header(answer.headers_mut(), name, &value);
    }
    answer
}

fn sts(around: &Around<'_>, head: &Parts, body: &Bytes, request_id: Uuid) -> Answer {
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let parameters = if head.method == Method::GET { query } else { body };
    let (status, text) = match identify(around, head, STS, body.clone()) {
        Ok((principal, _)) => sts::answer(parameters, &principal, request_id),
        Err(Unidentified { error, .. }) => {
            around.state.metrics.http_refused("signature");
            sts::refuse(&error, request_id)
        }
    };
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response(code, Some("text/xml"), AnswerBody::whole(text.into(), None))
}

/// An error in the request's format.
pub fn whole(format: Format, failure: &Failure) -> Answer {
    let code = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = response(code, Some(format.content_type()), AnswerBody::whole(failure.body(format), None));
    header(answer.headers_mut(), "x-amzn-errortype", failure.code);
    answer
}

/// An error where the format is not known: without a content type, as AWS has it.
fn xml(code: StatusCode, name: &str, message: Option<&str>) -> Answer {
    let text = match message {
        Some(message) => format!("<{name}>\n  <Message>{message}</Message>\n</{name}>\n"),
        None => format!("<{name}/>\n"),
    };
    response(code, None, AnswerBody::whole(text.into(), None))
}

/// The answer to the JSON of another age.
fn old_json(body: &[u8]) -> Answer {
    let (code, name) = match codec::is_document(Format::Json, body) {
        true => (StatusCode::NOT_FOUND, "UnknownOperationException"),
        false => (StatusCode::BAD_REQUEST, "SerializationException"),
    };
    let text = format!(r#"{{"Output":{{"__type":"com.amazon.coral.service#{name}"}},"Version":"1.0"}}"#);
    response(code, Some(JSON_1_0), AnswerBody::whole(text.into(), None))
}

fn preflight(asked: &HeaderMap) -> Answer {
    let mut answer = response(StatusCode::OK, None, AnswerBody::whole(Bytes::new(), None));
    let headers = answer.headers_mut();
    for (asked_for, granted) in [
        ("access-control-request-headers", "access-control-allow-headers"),
        ("access-control-request-method", "access-control-allow-methods"),
    ] {
        if let Some(value) = asked.get(asked_for) {
            headers.insert(granted, value.clone());
        }
    }
    header(headers, "access-control-max-age", CORS_MAX_AGE);
    answer
}

pub fn response(code: StatusCode, content_type: Option<&'static str>, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    if let Some(content_type) = content_type {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

/// Without its parameters.
fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// AWS's second name of a request: 64 bytes in base64. It follows from the first, so that it costs no randomness.
fn second_id(request_id: Uuid) -> String {
    STANDARD.encode(Sha512::digest(request_id.as_bytes()))
}
