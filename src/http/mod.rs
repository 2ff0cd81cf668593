//! The HTTP door: `GET /health` and `GET /metrics` over HTTP/1.1.
//!
//! Run by `server`, which says through [`HttpState`] what is answered. Invariants: at most [`CONNECTIONS_MAX`]
//! connections at once (further ones wait in the socket's backlog), a request head of at most [`HEAD_BYTES_MAX`] bytes
//! that arrives within [`HEAD_TIMEOUT`], no request body, and no connection older than [`CONNECTION_AGE_MAX_MS`], so that
//! slow or silent clients cost bounded memory for a bounded time.

mod api;
pub mod codec;
mod failure;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;

pub use api::{Api, Call, Event, EventStream, Format, Handler, Reply};
pub use codec::{Blob, Timestamp};
pub use failure::Failure;

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's line and headers.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
pub const HEADERS_MAX: usize = 64;
/// For a request's head; a connection kept open without a request ends then too.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Milliseconds; ends clients that read their answers too slowly.
pub const CONNECTION_AGE_MAX_MS: i64 = 10 * 60_000;
/// Milliseconds between two attempts when the process is out of file descriptors.
const ACCEPT_RETRY_MS: i64 = 100;

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// What the server says about itself.
pub struct HttpState {
    /// Everything in Prometheus' text format. May touch the disk: it is called on a thread that may block.
    pub metrics_text: Box<dyn Fn() -> String + Send + Sync>,
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
    /// The services on this port.
    pub apis: Vec<Api>,
}

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

/// Serves until `shutdown` is true, then lets requests that have begun end. Dropping the future ends them at once.
pub async fn serve(listener: TcpListener, state: Arc<HttpState>, clock: Clock, mut shutdown: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            Some((place, accepted)) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, state.clone(), clock.clone(), shutdown.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection cannot be accepted");
                    clock.sleep_ms(ACCEPT_RETRY_MS).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns once the server is to stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and with it the server.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// One connection, to its end.
async fn connection(stream: TcpStream, state: Arc<HttpState>, clock: Clock, mut shutdown: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&request, &state).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = clock.sleep_ms(CONNECTION_AGE_MAX_MS) => return,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

async fn answer<B: Body>(request: &Request<B>, state: &Arc<HttpState>) -> Response<Full<Bytes>> {
    let mut response = match request.uri().path() {
        "/health" | "/metrics" if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
        "/health" => health(&(state.health)()),
        "/metrics" => metrics(state.clone()).await,
        _ => text(StatusCode::NOT_FOUND, "not found; there are /health and /metrics\n"),
    };
    // Nothing here takes a body, so none is read: the connection ends with the answer instead.
    if !request.body().is_end_stream() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn health(health: &Health) -> Response<Full<Bytes>> {
    let code = match health.status {
        Status::Ok => StatusCode::OK,
        Status::Starting | Status::Draining | Status::Broken => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_vec(health) {
        Ok(body) => response(code, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn metrics(state: Arc<HttpState>) -> Response<Full<Bytes>> {
    match tokio::task::spawn_blocking(move || (state.metrics_text)()).await {
        Ok(metrics) => response(StatusCode::OK, PROMETHEUS_TEXT, metrics),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be collected");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be collected\n")
        }
    }
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(code, TEXT, body)
}

fn response(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
