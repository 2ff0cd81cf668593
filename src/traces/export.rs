//! Tells spans to the collector: up to [`SPANS_MAX`] in one request, at the latest [`WAIT_MS`] after the first of them.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::span::{Span, Value};
use super::{Exporter, Message, protobuf};

const SPANS_MAX: usize = 512;
const WAIT_MS: i64 = 1_000;
/// Milliseconds for one request to the collector.
const EXPORT_MS_MAX: i64 = 10_000;
/// What is read of its answer, which says little.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Tells spans until the server stops.
pub async fn run(mut exporter: Exporter) {
    let service = [
        ("service.name", Value::text(env!("CARGO_PKG_NAME"))),
        ("service.version", Value::text(env!("CARGO_PKG_VERSION"))),
    ];
    let mut reachable = true;
    while let Some((spans, flushed)) = exporter.collect().await {
        if !spans.is_empty() {
            let body = protobuf::request(&spans, &service);
            let told = tokio::select! {
                told = exporter.send(body) => told,
                () = exporter.clock.sleep_ms(EXPORT_MS_MAX) => Err("it does not answer".to_owned()),
            };
            if let Err(error) = &told {
                exporter.metrics.spans_lost(spans.len());
                if reachable {
                    tracing::warn!(collector = %exporter.endpoint.address, error, "spans are lost");
                }
            }
            reachable = told.is_ok();
        }
        if let Some(done) = flushed {
            // Who asked may have given up.
            let _ = done.send(());
        }
    }
}

impl Exporter {
    /// The next spans to be told together; `None` when there will be none any more.
    async fn collect(&mut self) -> Option<(Vec<Span>, Option<oneshot::Sender<()>>)> {
        let mut spans = Vec::new();
        let mut until_ms = None;
        while spans.len() < SPANS_MAX {
            let received = tokio::select! {
                biased;
                received = self.waiting.recv() => received,
                () = self.clock.sleep_until(until_ms.unwrap_or_default()), if until_ms.is_some() => break,
            };
            match received {
                Some(Message::Span(span)) => spans.push(*span),
                Some(Message::Flush(done)) => return Some((spans, Some(done))),
                None if spans.is_empty() => return None,
                None => break,
            }
            until_ms.get_or_insert(self.clock.tick_ms().saturating_add(WAIT_MS));
        }
        Some((spans, None))
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let address = &self.endpoint.address;
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| told(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(|error| told(&error))?;
        let request = Request::post(&self.endpoint.path)
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| told(&error))?;
        let exchange = async move {
            let answer = sender.send_request(request).await.map_err(|error| told(&error))?;
            let status = answer.status();
            // Read to its end, so that the collector does not see a connection that was cut off.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            // The connection ends with its sender.
            drop(sender);
            match status {
                StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
                status => Err(format!("it answers {status}")),
            }
        };
        let (answered, _) = tokio::join!(exchange, connection);
        answered
    }
}
