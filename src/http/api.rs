//! What a door behind the HTTP port is to it: a [`Call`] in, a [`Reply`] out; and for a door with protocols of its own, a
//! [`ServiceCall`] and a [`ServiceReply`].

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use uuid::Uuid;

use super::Failure;
use super::event_stream::EventStream;
use crate::metrics::TraceId;
use crate::security::{AuthError, Principal};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/x-amz-json-1.1`
    Json,
    /// `application/x-amz-cbor-1.1`
    Cbor,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/x-amz-json-1.1",
            Format::Cbor => "application/x-amz-cbor-1.1",
        }
    }
}

/// One service: what follows its name in `X-Amz-Target: NAME.Operation` comes to its handler.
pub struct Api {
    /// With its version: `Kinesis_20131202`.
    pub name: &'static str,
    /// Whether there is such an operation; the handler is called for no other.
    pub knows: fn(&str) -> bool,
    pub handler: Handler,
}

/// Answers calls. It runs on the connection's task, so it may wait but not block.
pub type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Reply> + Send + Sync>;

/// A request whose operation exists and whose signature, if they are checked, is right.
#[derive(Clone, Debug)]
pub struct Call {
    pub operation: String,
    /// Of the body and of the answer.
    pub format: Format,
    pub body: Bytes,
    pub principal: Principal,
    pub peer: SocketAddr,
    /// What the client calls itself.
    pub user_agent: Option<HeaderValue>,
    /// As the client is told in `x-amzn-RequestId`.
    pub request_id: Uuid,
    /// Set where it is traced.
    pub trace: Option<TraceId>,
}

/// An answer.
#[derive(Debug)]
pub enum Reply {
    /// The body in the call's format.
    Whole(Result<Bytes, Failure>),
    Events(EventStream),
}

/// A service that speaks protocols of its own: what it claims comes to it as it was received.
pub struct Service {
    /// As requests to it are signed: `monitoring`.
    pub signed_as: &'static str,
    /// Whether a request is for it; asked of every request, so it looks at the head first.
    pub claims: fn(&Parts, &[u8]) -> bool,
    pub handler: ServiceHandler,
}

/// Answers calls. It runs on the connection's task, so it may wait but not block.
pub type ServiceHandler = Arc<dyn Fn(ServiceCall) -> BoxFuture<'static, ServiceReply> + Send + Sync>;

/// A request that a service claims.
#[derive(Clone, Debug)]
pub struct ServiceCall {
    pub head: Parts,
    /// Without AWS's chunks; still compressed, if it came so.
    pub body: Bytes,
    /// Who signed it, or why that is not known: each protocol tells it in its own way.
    pub principal: Result<Principal, AuthError>,
    pub peer: SocketAddr,
    /// As the client is told in `x-amzn-RequestId`.
    pub request_id: Uuid,
    /// Set where it is traced.
    pub trace: Option<TraceId>,
}

/// Its answer.
#[derive(Debug)]
pub struct ServiceReply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}
