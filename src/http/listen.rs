//! Connections: accepted, bounded, and ended when they have lived long enough.
//!
//! HTTP/1.1 and HTTP/2 (by prior knowledge) on one port. Invariants: as many connections as the state says (further
//! ones wait in the socket's backlog); a head of at most [`HEAD_BYTES_MAX`] bytes; on HTTP/2 at most [`STREAMS_MAX`]
//! requests at once, whose unread bodies are bounded by windows; bodies in memory within a [`Budget`]; every connection
//! within the times of [`activity`](super::activity). Nothing ends a connection by its age: SubscribeToShard streams
//! live for minutes, and pools keep what works.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::Version;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::activity::{Activity, Due, Watched};
use super::aws::{self, Answer, Around};
use super::body::{self, AnswerBody, Refused};
use super::budget::Budget;
use super::{Failure, Format, HttpState, site};
use crate::clock::Clock;

/// Enough connections for the pools of many SDKs, and the few of every consumer with a pipe of its own.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Bytes of a request's line and headers. HTTP/1.1 also reads bodies by pieces of at most this.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
pub const HEADERS_MAX: usize = 100;
/// Requests of one HTTP/2 connection at once.
pub const STREAMS_MAX: u32 = 128;
/// Bytes of a request's body that a client may send before they are taken, for one request and for all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Bytes of answers that HTTP/2 holds for each request.
const SEND_BYTES_MAX: usize = 256 << 10;
/// A peer that does not answer HTTP/2's ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Milliseconds between two looks at how long a connection may live.
const LOOK_MS: i64 = 5_000;
/// Milliseconds for a connection that was asked to end.
const PARTING_MS: i64 = 5_000;
/// Milliseconds between two attempts when the process is out of file descriptors.
const ACCEPT_RETRY_MS: i64 = 100;

/// Tells when the server is to stop.
#[derive(Clone)]
pub struct Stopping(pub watch::Receiver<bool>);

impl Stopping {
    /// Returns once the server is to stop.
    pub async fn wait(&mut self) {
        // An error says that the sender is gone, and with it the server.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    pub fn future(mut self) -> BoxFuture<'static, ()> {
        async move { self.wait().await }.boxed()
    }
}

/// Serves until `shutdown` is true, then lets requests that have begun end. Dropping the future ends them at once.
pub async fn serve(listener: TcpListener, state: Arc<HttpState>, clock: Clock, shutdown: watch::Receiver<bool>) {
    let budget = Budget::new(state.body_bytes_max, clock.clone(), &state.metrics);
    let places = Arc::new(Semaphore::new(state.connections_max));
    let mut stopping = Stopping(shutdown);
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let watched = stopping.clone();
        tokio::select! {
            () = stopping.wait() => break,
            Some(_) = connections.join_next() => {}
            Some((place, accepted)) = accepted => match accepted {
                Ok((socket, peer)) => {
                    let server = Connection {
                        state: state.clone(),
                        budget: budget.clone(),
                        activity: Activity::new(clock.clone()),
                        clock: clock.clone(),
                        stopping: watched,
                        peer,
                    };
                    connections.spawn(async move {
                        server.serve(socket).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection cannot be accepted");
                    clock.sleep_ms(ACCEPT_RETRY_MS).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

#[derive(Clone)]
struct Connection {
    state: Arc<HttpState>,
    budget: Budget,
    activity: Activity,
    clock: Clock,
    stopping: Stopping,
    peer: SocketAddr,
}

impl Connection {
    /// One connection, to its end.
    async fn serve(self, socket: TcpStream) {
        let peer = self.peer;
        let _open = self.state.metrics.http_connection_opened();
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%peer, %error, "answers may be delayed");
        }
        let mut stopping = self.stopping.clone();
        let server = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let builder = builder();
        let socket = TokioIo::new(Watched::new(socket, self.activity.clone()));
        let connection = builder.serve_connection(socket, service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            why = self.expired() => {
                tracing::debug!(%peer, ?why, "an HTTP connection has lived long enough");
                self.state.metrics.http_refused(why.name());
                if why != Due::Idle {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.clock.sleep_ms(PARTING_MS) => return,
                }
            }
            () = stopping.wait() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    _ = self.expired() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "an HTTP connection ended");
        }
    }

    /// Returns when the connection has lived long enough.
    async fn expired(&self) -> Due {
        loop {
            let (due_ms, why) = self.activity.due();
            let now_ms = self.clock.tick_ms();
            if due_ms <= now_ms {
                return why;
            }
            // What happens meanwhile may move the time, also to an earlier one.
            self.clock.sleep_until(due_ms.min(now_ms.saturating_add(LOOK_MS))).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let is_multiplexed = request.version() == Version::HTTP_2;
        let busy = self.activity.begin(is_multiplexed);
        let (head, body) = request.into_parts();
        let mut answer = match site::answer(&head, &self.state).await {
            Some(mut answer) => {
                if !hyper::body::Body::is_end_stream(&body) && !is_multiplexed {
                    // Nothing here takes a body, so none is read: the connection ends with the answer instead.
                    close(&mut answer);
                }
                answer
            }
            None => self.answer_call(&head, body, is_multiplexed).await,
        };
        if self.stopping.0.borrow().to_owned() && !is_multiplexed {
            close(&mut answer);
        }
        answer.map(|body| body.watched(busy))
    }

    async fn answer_call(&self, head: &hyper::http::request::Parts, body: Incoming, is_multiplexed: bool) -> Answer {
        let read = match self.budget.room_for_answer().await {
            Ok(()) => body::read(body, &self.budget, &self.clock).await,
            Err(_) => Err(Refused::Busy),
        };
        match read {
            Ok(body::Whole { bytes, share }) => {
                let around = Around {
                    state: &self.state,
                    budget: &self.budget,
                    clock: &self.clock,
                    peer: self.peer,
                    stopping: self.stopping.clone(),
                };
                let answer = aws::answer(around, head, bytes).await;
                drop(share);
                answer
            }
            Err(why) => {
                self.state.metrics.http_refused(why.name());
                let mut answer = refuse(&why);
                if !is_multiplexed {
                    // The rest of the body may still come; it is not read.
                    close(&mut answer);
                }
                answer
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The connection's activity counts the time, on the server's clock.
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

fn refuse(why: &Refused) -> Answer {
    let empty = |code| aws::response(code, None, AnswerBody::whole(bytes::Bytes::new(), None));
    match why {
        Refused::TooLarge => empty(StatusCode::PAYLOAD_TOO_LARGE),
        Refused::Slow | Refused::Gone => empty(StatusCode::REQUEST_TIMEOUT),
        Refused::Busy => {
            let message = "The request has failed due to a temporary failure of the server.".to_owned();
            let failure = Failure { status: 503, code: "ServiceUnavailable", message: Some(message) };
            aws::whole(Format::Json, &failure)
        }
    }
}

fn close(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
