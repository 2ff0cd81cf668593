//! The CloudWatch door: PutMetricData, GetMetricData, GetMetricStatistics and ListMetrics, on the port of the Kinesis API, for
//! what Kinesis' libraries publish about themselves (KCL, KPL) and for those who scale by metrics. [`TABLE`] is the list
//! of what is served.
//!
//! | room | what it owns |
//! |---|---|
//! | [`protocol`], [`form`], [`answer`] | query, JSON and CBOR requests and answers |
//! | [`error`] | AWS's errors |
//! | [`shapes`] | what operations take |
//! | [`point`] | statistic sets and values |
//! | [`keeper`] | which metrics there are, and their points in the store |
//! | [`put`], [`query`], [`math`], [`list`] | the operations |
//! | [`own`] | `AWS/Kinesis`: the metrics of our own streams |
//!
//! Invariants: a put that was answered is kept; points are read on threads that may block, [`READERS_MAX`] at once.
//!
//! Source: the CloudWatch API reference and service model of 2010-08-01.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::broker::Broker;
use crate::http::{Service, ServiceCall, ServiceReply};
use crate::metrics::ApiMetrics;
use crate::store::StoreError;

pub mod answer;
pub mod error;
pub mod form;
pub mod keeper;
pub mod list;
pub mod math;
pub mod own;
pub mod point;
pub mod protocol;
pub mod put;
pub mod query;
pub mod shapes;
#[cfg(test)]
mod tests;

use answer::Node;
use error::Error;
use keeper::Keeper;
use protocol::{Protocol, Request};

/// In targets and paths, before the operation.
pub const SERVICE: &str = "GraniteServiceVersion20100801";
/// In signatures.
pub const SIGNED_AS: &str = "monitoring";
pub const VERSION: &str = "2010-08-01";
/// Requests that read points at the same time; further ones wait.
pub const READERS_MAX: usize = 4;

/// One operation.
pub struct Row {
    pub operation: &'static str,
    run: Run,
}

/// How an operation is carried out.
enum Run {
    Put,
    List,
    /// It reads points.
    Read(fn(&Door, &Request) -> Result<Node, Error>),
}

/// What is served.
pub const TABLE: &[Row] = &[
    Row { operation: "GetMetricData", run: Run::Read(|door, request| query::get_metric_data(door, &request.read()?)) },
    Row {
        operation: "GetMetricStatistics",
        run: Run::Read(|door, request| query::get_metric_statistics(door, &request.read()?)),
    },
    Row { operation: "ListMetrics", run: Run::List },
    Row { operation: "PutMetricData", run: Run::Put },
];

/// The row of an operation, with its place in [`TABLE`].
pub fn row(operation: &str) -> Option<(usize, &'static Row)> {
    TABLE.iter().enumerate().find(|(_, row)| row.operation == operation)
}

/// Everything that handlers need.
pub struct Door {
    pub keeper: Arc<Keeper>,
    broker: Arc<Broker>,
    readers: Arc<Semaphore>,
    /// Of each row of [`TABLE`].
    metrics: Vec<ApiMetrics>,
}

impl Door {
    /// Reads which metrics there are. Blocks.
    pub fn open(broker: Arc<Broker>) -> Result<Arc<Door>, StoreError> {
        let keeper = Arc::new(Keeper::open(broker.clone())?);
        let metrics = TABLE.iter().map(|row| broker.metrics().cloudwatch_operation(row.operation)).collect();
        Ok(Arc::new(Door { keeper, broker, readers: Arc::new(Semaphore::new(READERS_MAX)), metrics }))
    }

    /// What `http` serves of it.
    pub fn service(self: &Arc<Door>) -> Service {
        let door = self.clone();
        Service {
            signed_as: SIGNED_AS,
            claims: protocol::is_claimed,
            handler: Arc::new(move |call| Box::pin(dispatch(door.clone(), call))),
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.broker.clock().now_ms()
    }
}

async fn dispatch(door: Arc<Door>, call: ServiceCall) -> ServiceReply {
    let ServiceCall { head, body, principal, request_id, trace, .. } = call;
    let opened = Request::open(&head, body);
    let protocol = match &opened {
        Ok(request) => request.protocol,
        Err((protocol, _)) => *protocol,
    };
    if let Err(error) = principal {
        return protocol::refuse(protocol, &Error::Auth(error), request_id);
    }
    let request = match opened {
        Ok(request) => request,
        Err((protocol, error)) => return refused(protocol, &error, request_id),
    };
    let Some((place, row)) = row(&request.operation) else {
        return refused(protocol, &Error::UnknownOperation(request.operation), request_id);
    };
    let clock = door.broker.clock().clone();
    let started = clock.tick_micros();
    let answered = run(&door, row, request).await;
    let error = answered.as_ref().err().map_or("NONE", Error::code);
    if let Some(metrics) = door.metrics.get(place) {
        metrics.observe(error, (clock.tick_micros() - started) as f64 / 1e6, trace);
    }
    match answered {
        Ok(node) => protocol::answer(protocol, row.operation, &node, request_id),
        Err(error) => refused(protocol, &error, request_id),
    }
}

fn refused(protocol: Protocol, error: &Error, request_id: uuid::Uuid) -> ServiceReply {
    tracing::debug!(%request_id, code = error.code(), "CloudWatch request refused");
    protocol::refuse(protocol, error, request_id)
}

async fn run(door: &Arc<Door>, row: &'static Row, request: Request) -> Result<Node, Error> {
    match row.run {
        Run::Put => put::put_metric_data(door, request.read()?).await,
        Run::List => list::list_metrics(door, &request.read()?),
        Run::Read(read) => {
            let stopped = |error: String| Error::internal(&StoreError::NotDone(error));
            let place = door.readers.clone().acquire_owned().await.map_err(|error| stopped(error.to_string()))?;
            let door = door.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let _place = place;
                read(&door, &request)
            });
            reading.await.map_err(|error| stopped(error.to_string()))?
        }
    }
}
