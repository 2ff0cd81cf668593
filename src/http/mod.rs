//! The HTTP door: what AWS-style services share on one port, and `GET /health` and `GET /metrics`.
//!
//! Run by `server`, which says through [`HttpState`] what is answered: services as [`Api`]s, each a handler of
//! [`Call`]s. Rooms: [`listen`] connections and their bounds, `activity` how long they live, `budget` and `body` bodies
//! in memory, `aws` requests by target and their errors, [`codec`] JSON and CBOR, `event_stream` answers that go on, `trace` their spans,
//! `sts` GetCallerIdentity, `site` the server's own pages. Invariant: slow, silent or greedy clients cost bounded memory
//! for a bounded time.

mod activity;
mod api;
mod aws;
mod body;
mod budget;
pub mod codec;
mod event_stream;
mod failure;
pub mod listen;
mod site;
mod sts;
mod trace;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::metrics::{Metrics, TextFormat};
use crate::security::Access;
use crate::traces::Tracer;

pub use api::{Api, Call, Format, Handler, Reply, Service, ServiceCall, ServiceHandler, ServiceReply};
pub use body::BODY_BYTES_LEAST;
pub use codec::{Blob, Timestamp};
pub use event_stream::{Event, EventStream, message};
pub use failure::Failure;
pub use listen::serve;
pub use site::{Health, Status};

/// What the server answers with.
pub struct HttpState {
    /// Every series, in the form asked for. May touch the disk: it is called on a thread that may block.
    pub metrics_text: Box<dyn Fn(TextFormat) -> String + Send + Sync>,
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
    /// Where connections and what is refused are counted.
    pub metrics: Arc<Metrics>,
    /// The services on this port.
    pub apis: Vec<Api>,
    /// Those that have protocols of their own.
    pub services: Vec<Service>,
    pub access: Access,
    /// Where spans of requests go, if there is anyone who wants them.
    pub tracer: Option<Arc<Tracer>>,
    /// Deletes every stream, for suites that ask for it; the error is told to the client.
    pub reset: Option<Reset>,
    /// Bytes of request bodies in memory, and as many of answers; at least [`BODY_BYTES_LEAST`], or large requests wait
    /// for room that there never is.
    pub body_bytes_max: usize,
    /// Connections served at once; further ones wait in the socket's backlog.
    pub connections_max: usize,
}

pub type Reset = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[cfg(test)]
mod tests;
