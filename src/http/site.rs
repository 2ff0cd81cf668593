//! What the server says about itself: `/health` and `/metrics`.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;

use super::HttpState;
use super::aws::{self, Answer};
use super::body::AnswerBody;
use crate::metrics::TextFormat;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const RESET: &str = "/moto-api/reset";

/// The body of `/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    pub status: Status,
    pub version: &'static str,
    pub uptime_seconds: i64,
    /// Why the status is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Everything but `Ok` is answered with 503, so that load balancers and orchestrators look elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Starting,
    Draining,
    /// The store refuses to write.
    Broken,
}

/// The answer to a request for the server itself; `None` for everything else. Its body is not read.
pub async fn answer(head: &Parts, state: &Arc<HttpState>) -> Option<Answer> {
    let (method, path) = (&head.method, head.uri.path());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (path, &state.reset) {
        ("/health" | "/metrics", _) if !reads => Some(refused("GET, HEAD")),
        ("/health", _) => Some(health(&(state.health)())),
        ("/metrics", _) => Some(metrics(state.clone(), format_for(head)).await),
        (RESET, Some(_)) if *method != Method::POST => Some(refused("POST")),
        (RESET, Some(reset)) => Some(match reset().await {
            Ok(()) => response(StatusCode::OK, JSON, r#"{"status": "ok"}"#),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error),
        }),
        _ => None,
    }
}

fn refused(allowed: &'static str) -> Answer {
    let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n");
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refused
}

fn health(health: &Health) -> Answer {
    let code = match health.status {
        Status::Ok => StatusCode::OK,
        Status::Starting | Status::Draining | Status::Broken => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_vec(health) {
        Ok(body) => response(code, JSON, body),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
    }
}

fn format_for(head: &Parts) -> TextFormat {
    TextFormat::negotiate(head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()))
}

async fn metrics(state: Arc<HttpState>, format: TextFormat) -> Answer {
    match tokio::task::spawn_blocking(move || (state.metrics_text)(format)).await {
        Ok(metrics) => response(StatusCode::OK, format.content_type(), metrics),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be collected");
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be collected\n")
        }
    }
}

fn response(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = aws::response(code, Some(content_type), AnswerBody::whole(body.into(), None));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
