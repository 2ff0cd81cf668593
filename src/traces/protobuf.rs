//! Spans as OTLP's `ExportTraceServiceRequest`, as far as we say anything.
//!
//! | message | fields |
//! |---|---|
//! | ExportTraceServiceRequest | 1 resource_spans |
//! | ResourceSpans | 1 resource (1 attributes), 2 scope_spans |
//! | ScopeSpans | 1 scope (1 name, 2 version), 2 spans |
//! | Span | 1 trace_id, 2 span_id, 4 parent_span_id, 5 name, 6 kind, 7 and 8 start and end in ns (fixed64), 9 attributes, 15 status (3 code) |
//! | KeyValue | 1 key, 2 value (1 string, 3 int) |
//!
//! Source: opentelemetry-proto, `trace/v1/trace.proto`, `common/v1/common.proto`.

use super::span::{Span, Value};

const KIND_SERVER: u64 = 2;
const STATUS_ERROR: u64 = 2;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn whole(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn fixed(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn attribute(&mut self, field: u64, key: &str, value: &Value) {
        self.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| match value {
                Value::Text(text) => any.bytes(1, text.as_bytes()),
                Value::Whole(number) => any.whole(3, *number as u64),
            });
        });
    }

    fn span(&mut self, field: u64, span: &Span) {
        let begun = &span.begun;
        let start_ns = begun.at_ms.max(0).unsigned_abs() * 1_000_000;
        self.message(field, |out| {
            out.bytes(1, &begun.trace_id);
            out.bytes(2, &begun.span_id);
            if let Some(parent) = &begun.parent_id {
                out.bytes(4, parent);
            }
            out.bytes(5, span.name.as_bytes());
            out.whole(6, KIND_SERVER);
            out.fixed(7, start_ns);
            out.fixed(8, start_ns.saturating_add(span.micros.saturating_mul(1_000)));
            for (key, value) in &span.attributes {
                out.attribute(9, key, value);
            }
            if let Some(error) = &span.error {
                out.attribute(9, "error.type", &Value::text(error));
                out.message(15, |status| status.whole(3, STATUS_ERROR));
            }
        });
    }
}

/// The body of one export.
pub fn request(spans: &[Span], service: &[(&str, Value)]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |resource| {
            service.iter().for_each(|(key, value)| resource.attribute(1, key, value));
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.bytes(1, env!("CARGO_PKG_NAME").as_bytes());
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            spans.iter().for_each(|span| of_scope.span(2, span));
        });
    });
    request.0
}
