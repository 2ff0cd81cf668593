//! What a span is, and its client's context.

use crate::metrics::TraceId;

/// What a span knows from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_id: Option<[u8; 8]>,
    pub at_ms: i64,
    /// Of the clock that never goes back.
    pub tick_micros: i64,
}

impl Begun {
    /// For the exemplars of `/metrics`.
    pub fn trace_id(&self) -> TraceId {
        TraceId(u128::from_be_bytes(self.trace_id))
    }
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub begun: Begun,
    pub name: String,
    /// How long it took.
    pub micros: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Whole(i64),
}

impl Value {
    pub fn text(text: impl ToString) -> Value {
        Value::Text(text.to_string())
    }
}

/// What a client's `traceparent` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub sampled: bool,
}

/// `VERSION-TRACE_ID-SPAN_ID-FLAGS`, all in small hexadecimal digits. What is not one is as if it were not there; later
/// versions may have more behind.
pub fn parent(text: &str) -> Option<Parent> {
    let mut parts = text.trim().split('-');
    let [version] = hex(parts.next()?)?;
    let trace_id = hex::<16>(parts.next()?)?;
    let span_id = hex::<8>(parts.next()?)?;
    let [flags] = hex(parts.next()?)?;
    let is_known = version != 0xff && (version != 0 || parts.next().is_none());
    let is_set = trace_id != [0; 16] && span_id != [0; 8];
    (is_known && is_set).then_some(Parent { trace_id, span_id, sampled: flags & 1 == 1 })
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let is_small = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    if digits.len() != 2 * N || !digits.iter().all(is_small) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_or_left() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = parent(text).unwrap();
        assert_eq!((read.trace_id[0], read.span_id[7], read.sampled), (0x4b, 0xb7, true));
        assert!(!parent(&text.replace("-01", "-00")).unwrap().sampled);
        assert!(parent(&format!("01{}-more", &text[2..])).is_some());
        for wrong in [
            "",
            "00",
            &text.to_uppercase(),
            &format!("{text}-more"),
            &format!("ff{}", &text[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parent(wrong), None, "{wrong}");
        }
    }
}
