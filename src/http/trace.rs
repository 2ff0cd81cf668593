//! Spans of requests for services. Called by `aws`, and only where there is a collector.
//!
//! Attributes by OpenTelemetry's conventions for HTTP servers and RPC.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::header::{HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use uuid::Uuid;

use super::aws::Answer;
use crate::metrics::TraceId;
use crate::traces::{Begun, Tracer, Value};

/// What clients call themselves, as far as it is told.
const AGENT_CHARS_MAX: usize = 256;
const NAME_CHARS_MAX: usize = 128;

/// A request whose span has begun.
pub struct Traced<'a> {
    tracer: &'a Tracer,
    begun: Begun,
    /// `Service.Operation`.
    name: String,
}

/// `None` where there is no collector, or the request is not sampled.
pub fn begin<'a>(tracer: Option<&'a Tracer>, head: &Parts, body: &Bytes) -> Option<Traced<'a>> {
    let tracer = tracer?;
    let begun = tracer.begin(header(&head.headers, "traceparent"))?;
    Some(Traced { tracer, begun, name: name(head, body) })
}

impl Traced<'_> {
    pub fn trace_id(&self) -> TraceId {
        self.begun.trace_id()
    }

    pub fn end(self, head: &Parts, answer: &Answer, peer: SocketAddr, request_id: Uuid) {
        let status = answer.status();
        let (service, method) = self.name.split_once('.').unwrap_or(("", &self.name));
        let mut attributes = vec![
            ("rpc.system", Value::text("aws-api")),
            ("rpc.service", Value::text(service)),
            ("rpc.method", Value::text(method)),
            ("http.request.method", Value::text(&head.method)),
            ("http.response.status_code", Value::Whole(i64::from(status.as_u16()))),
            ("client.address", Value::text(peer.ip())),
            ("aws.request_id", Value::text(request_id)),
        ];
        if let Some(agent) = header(&head.headers, USER_AGENT.as_str()) {
            attributes.push(("user_agent.original", Value::Text(agent.chars().take(AGENT_CHARS_MAX).collect())));
        }
        let error = (status.is_client_error() || status.is_server_error()).then(|| {
            header(answer.headers(), "x-amzn-errortype").map_or_else(|| status.as_u16().to_string(), str::to_owned)
        });
        let Traced { tracer, begun, name } = self;
        tracer.end(begun, name, attributes, error);
    }
}

/// The operation, as the target, the path or the form has it.
fn name(head: &Parts, body: &Bytes) -> String {
    let by_path = || {
        let (service, operation) = head.uri.path().strip_prefix("/service/")?.split_once("/operation/")?;
        Some(format!("{service}.{operation}"))
    };
    let by_form = || {
        let form = std::str::from_utf8(body).ok()?;
        form.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(|action| action.trim_end().to_owned())
    };
    let target = header(&head.headers, "x-amz-target").map(str::to_owned);
    let name = target.or_else(by_path).or_else(by_form).unwrap_or_else(|| head.method.to_string());
    name.chars().take(NAME_CHARS_MAX).collect()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
