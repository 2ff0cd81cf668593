//! Traces: one span for each request of both doors, told to an OpenTelemetry collector over OTLP (HTTP with protobuf).
//!
//! The doors call [`Tracer::begin`] when a request has come and [`Tracer::end`] when it is answered; neither waits nor fails.
//! Spans go through a queue of [`QUEUE_MAX`] to one task ([`run`]), and what does not fit or is not taken is counted as lost.
//! Without a collector there is no [`Tracer`], and a request costs a look at that.
//!
//! An HTTP request's `traceparent` is its span's parent, and says whether it is sampled; others are sampled at the ratio
//! of the settings. What traces clients carry in headers of records is theirs: nothing here reads or writes it.
//!
//! Rooms: [`span`] what a span is, `protobuf` its bytes, `export` where it goes. The exporter is our own: what is said
//! takes five small messages, OpenTelemetry's crates an HTTP client and a protobuf library more. It speaks plain HTTP: a
//! collector that wants TLS has one beside it that does not.
//!
//! Source: OTLP 1.x, W3C Trace Context, OpenTelemetry's semantic conventions for HTTP, RPC and messaging.

mod export;
mod protobuf;
pub mod span;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use export::run;
pub use span::{Begun, Span, Value};

use crate::clock::Clock;
use crate::config::{Config, Endpoint};
use crate::metrics::Metrics;

/// Spans that wait to be told.
pub const QUEUE_MAX: usize = 16_384;

pub struct Tracer {
    queue: mpsc::Sender<Message>,
    /// How many of 2^32 requests are sampled, where their client does not say.
    sampled: u64,
    clock: Clock,
    metrics: Arc<Metrics>,
}

enum Message {
    Span(Box<Span>),
    /// Answered when everything before it is told.
    Flush(oneshot::Sender<()>),
}

/// Tells what the queue holds; for [`run`].
pub struct Exporter {
    waiting: mpsc::Receiver<Message>,
    endpoint: Endpoint,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// As the settings say; `None` without a collector.
    pub fn open(config: &Config, clock: Clock, metrics: Arc<Metrics>) -> Option<(Arc<Tracer>, Exporter)> {
        let endpoint = config.otlp_endpoint.clone()?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let sampled = (config.otlp_sampling * (1u64 << 32) as f64) as u64;
        let tracer = Tracer { queue, sampled, clock: clock.clone(), metrics: metrics.clone() };
        Some((Arc::new(tracer), Exporter { waiting, endpoint, clock, metrics }))
    }

    /// A span's beginning; `None` when it is not sampled. `parent` is the client's `traceparent`.
    pub fn begin(&self, parent: Option<&str>) -> Option<Begun> {
        let random = self.clock.random_uuid().into_bytes();
        let (trace_id, parent_id) = match parent.and_then(span::parent) {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => (parent.trace_id, Some(parent.span_id)),
            None => {
                // The first 32 bits of such an id are random.
                let [a, b, c, d, ..] = random;
                if u64::from(u32::from_be_bytes([a, b, c, d])) >= self.sampled {
                    return None;
                }
                (random, None)
            }
        };
        let [.., a, b, c, d, e, f, g, h] = self.clock.random_uuid().into_bytes();
        Some(Begun {
            trace_id,
            span_id: [a, b, c, d, e, f, g, h],
            parent_id,
            at_ms: self.clock.now_ms(),
            tick_micros: self.clock.tick_micros(),
        })
    }

    /// The request was answered: `error` is the protocol's name for why it failed, if it did.
    pub fn end(&self, begun: Begun, name: String, attributes: Vec<(&'static str, Value)>, error: Option<String>) {
        let micros = (self.clock.tick_micros() - begun.tick_micros).max(0).unsigned_abs();
        let span = Span { begun, name, micros, attributes, error };
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.metrics.spans_lost(1);
        }
    }

    /// Returns when what has ended is told, or nobody tells any more.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // An error says that the exporter is gone.
            let _ = flushed.await;
        }
    }
}
