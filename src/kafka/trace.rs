//! Spans of requests. Called by `conn`, and only where there is a collector.
//!
//! Attributes by OpenTelemetry's conventions for messaging, with Kafka's key and version of the API.

use super::{Context, Row, error};
use crate::metrics::TraceId;
use crate::traces::{Begun, Value};

/// A request whose span has begun.
pub struct Traced {
    cx: Context,
    row: &'static Row,
    begun: Begun,
}

impl Traced {
    /// For the exemplars of `/metrics`.
    pub fn trace_id(&self) -> TraceId {
        self.begun.trace_id()
    }
}

/// `None` where there is no collector, or the request is not sampled. Kafka's requests have no place for their client's
/// context.
pub fn begin(cx: &Context, row: &'static Row) -> Option<Traced> {
    let begun = cx.door.tracer.as_ref()?.begin(None)?;
    Some(Traced { cx: cx.clone(), row, begun })
}

/// The request was answered, with Kafka's code for its first error.
pub fn end(traced: Traced, code: i16) {
    let Traced { cx, row, begun } = traced;
    let Some(tracer) = &cx.door.tracer else { return };
    let mut attributes = vec![
        ("messaging.system", Value::text("kafka")),
        ("messaging.operation.name", Value::text(row.name)),
        ("kafka.api_key", Value::Whole(i64::from(row.key as i16))),
        ("kafka.api_version", Value::Whole(i64::from(cx.version))),
        ("client.address", Value::text(cx.client.peer.ip())),
        ("client.port", Value::Whole(i64::from(cx.client.peer.port()))),
    ];
    if let Some(client_id) = &cx.client_id {
        attributes.push(("messaging.client.id", Value::text(client_id.as_str())));
    }
    let failed = (code != error::NONE).then(|| error::name(code).to_owned());
    tracer.end(begun, row.name.to_owned(), attributes, failed);
}
