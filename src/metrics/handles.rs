//! Handles by which series are written where things happen. They are fetched once, so that a request looks nothing up.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::NONE;

/// One API of a door: a Kafka API, a Kinesis operation.
#[derive(Clone)]
pub struct ApiMetrics {
    pub(super) name: &'static str,
    pub(super) well: IntCounter,
    pub(super) requests: IntCounterVec,
    pub(super) seconds: Histogram,
}

impl ApiMetrics {
    /// One answer; `error` is the protocol's name of its (first) error, or NONE.
    pub fn observe(&self, error: &'static str, seconds: f64) {
        self.seconds.observe(seconds);
        match error {
            NONE => self.well.inc(),
            _ => self.requests.with_label_values(&[self.name, error]).inc(),
        }
    }
}

/// A connection that counts as open until this is dropped.
pub struct OpenConnection {
    pub(super) open: IntGauge,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.dec();
    }
}
