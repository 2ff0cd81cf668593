//! Handles by which series are written where things happen. They are fetched once, so that a request looks nothing up.

use prometheus::{Counter, Histogram, IntCounter, IntCounterVec, IntGauge};

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

/// One topic. Bytes are those of record batches, as stored.
#[derive(Clone)]
pub struct StreamMetrics {
    pub bytes_in: IntCounter,
    pub records_in: IntCounter,
    pub bytes_out: IntCounter,
    pub records_out: IntCounter,
    /// In seconds.
    pub iterator_age: Histogram,
    pub write_throttled: Throttled,
    pub read_throttled: Throttled,
}

/// What went beyond the limits of one topic's shards, in one direction.
#[derive(Clone)]
pub struct Throttled {
    pub(super) enforced: IntCounter,
    pub(super) observed: IntCounter,
    pub(super) seconds: Counter,
}

impl Throttled {
    /// One more; `observe` when it was let through.
    pub fn count(&self, observe: bool) {
        if observe { self.observed.inc() } else { self.enforced.inc() }
    }

    /// A client was told to pause for this long.
    pub fn paused(&self, ms: i64) {
        self.seconds.inc_by(ms.max(0) as f64 / 1e3);
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
