//! Handles by which series are written where things happen. They are fetched once, so that a request looks nothing up.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::NONE;
use super::declare::REQUEST_SECONDS;

/// One API of a door: a Kafka API, a Kinesis operation.
#[derive(Clone)]
pub struct ApiMetrics {
    pub(super) name: &'static str,
    pub(super) well: IntCounter,
    pub(super) requests: IntCounterVec,
    pub(super) seconds: Histogram,
    pub(super) exemplars: Arc<ApiExemplars>,
}

/// The trace that a request is part of, as OpenTelemetry numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// A request that stands for those of its bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub trace: TraceId,
    pub value: f64,
}

/// The last traced request of each bucket of one API.
pub(super) struct ApiExemplars {
    /// Of the histogram.
    pub series: &'static str,
    pub api: &'static str,
    pub buckets: Mutex<Vec<Option<Exemplar>>>,
}

impl ApiExemplars {
    pub fn new(series: &'static str, api: &'static str) -> ApiExemplars {
        ApiExemplars { series, api, buckets: Mutex::new(vec![None; REQUEST_SECONDS.len() + 1]) }
    }
}

impl ApiMetrics {
    /// One answer; `error` is the protocol's name of its (first) error, or NONE; `trace` is set where it is traced.
    pub fn observe(&self, error: &'static str, seconds: f64, trace: Option<TraceId>) {
        self.seconds.observe(seconds);
        if let Some(trace) = trace {
            let bucket = REQUEST_SECONDS.partition_point(|bound| *bound < seconds);
            if let Some(exemplar) = self.exemplars.buckets.lock().get_mut(bucket) {
                *exemplar = Some(Exemplar { trace, value: seconds });
            }
        }
        match error {
            NONE => self.well.inc(),
            _ => self.requests.with_label_values(&[self.name, error]).inc(),
        }
    }
}

/// One share group, whose partitions all have this handle.
pub struct ShareGroupMetrics {
    pub(super) delivered: IntCounter,
    pub(super) acknowledged: IntCounterVec,
    pub(super) archived: IntCounter,
    pub(super) label: String,
}

impl ShareGroupMetrics {
    pub fn delivered(&self, records: i64) {
        self.delivered.inc_by(records.max(0) as u64);
    }

    /// With a kind from the fixed set of the caller.
    pub fn acknowledged(&self, kind: &'static str, records: i64) {
        self.acknowledged.with_label_values(&[&*self.label, kind]).inc_by(records.max(0) as u64);
    }

    pub fn archived(&self, records: i64) {
        self.archived.inc_by(records.max(0) as u64);
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
