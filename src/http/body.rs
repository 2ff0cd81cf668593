//! Bodies: a request's read whole within its bounds, an answer's given out in pieces.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::Busy;
use super::api::Format;
use super::budget::{Budget, Held};
use super::event_stream::{self, EventStream};
use crate::clock::Clock;

/// A request's body: 10 MiB of records in base64, their keys and the names of members.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// How much of a body that is too large is read and forgotten; its claim counts too.
const DRAINED_BYTES_MAX: usize = 8 * REQUEST_BYTES_MAX;
/// Memory for bodies with which the largest requests pass.
pub const BODY_BYTES_LEAST: usize = 2 * REQUEST_BYTES_MAX;
/// Milliseconds for a request's body.
pub const REQUEST_MS_MAX: i64 = 2 * 60_000;
/// Memory for a body is asked for as its bytes arrive: as much again as is there, and at most this much more at once. What
/// is claimed and does not come is nobody's.
const READ_STEP: usize = 1 << 20;
/// An answer's body is given to the connection by pieces of this size, so that it is known how far the client is.
const PIECE_BYTES: usize = 128 << 10;

/// A request's bytes with its share of the budget.
pub struct Whole {
    pub bytes: Bytes,
    pub share: Vec<OwnedSemaphorePermit>,
}

/// Why a body is not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    TooLarge,
    /// There is no memory for it now.
    Busy,
    /// It did not arrive in time.
    Slow,
    /// The client is gone.
    Gone,
}

impl Refused {
    /// As it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Refused::TooLarge => "too_large",
            Refused::Busy => "no_memory",
            Refused::Slow => "slow_body",
            Refused::Gone => "gone",
        }
    }
}

/// Reads a request's body.
pub async fn read(body: Incoming, budget: &Budget, clock: &Clock) -> Result<Whole, Refused> {
    if body.is_end_stream() {
        return Ok(Whole { bytes: Bytes::new(), share: Vec::new() });
    }
    tokio::select! {
        biased;
        read = read_all(body, budget) => read,
        () = clock.sleep_ms(REQUEST_MS_MAX) => Err(Refused::Slow),
    }
}

async fn read_all(mut body: Incoming, budget: &Budget) -> Result<Whole, Refused> {
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if claimed > REQUEST_BYTES_MAX {
        return Err(drain(body, claimed).await);
    }
    let mut share = Vec::new();
    let mut granted = 0;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| Refused::Gone)?.into_data() else { continue };
        let length = bytes.len() + piece.len();
        if length > REQUEST_BYTES_MAX {
            drop((bytes, share));
            return Err(drain(body, length).await);
        }
        if length > granted {
            let more = claimed.min(length + length.min(READ_STEP)).max(length) - granted;
            share.push(budget.request(more).await.map_err(|_| Refused::Busy)?);
            granted += more;
            if bytes.is_empty() && body.is_end_stream() {
                // All of it came in one piece, which is taken as it is.
                return Ok(Whole { bytes: piece, share });
            }
            bytes.reserve(granted - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: bytes.freeze(), share })
}

/// Reads on and forgets, so that the client hears why it is refused: many do not listen before they have said all. What
/// is absurdly large is cut off.
async fn drain(mut body: Incoming, mut length: usize) -> Refused {
    while length <= DRAINED_BYTES_MAX {
        match body.frame().await {
            None | Some(Err(_)) => break,
            Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
        }
    }
    Refused::TooLarge
}

/// An answer's body. It tells the connection's activity what the client has taken.
pub struct AnswerBody {
    content: Content,
    busy: Option<Busy>,
}

enum Content {
    Whole { rest: Bytes, _held: Option<Held> },
    Events { stream: EventStream, format: Format, stage: Stage, stopped: BoxFuture<'static, ()> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    Ended,
}

impl AnswerBody {
    pub fn whole(bytes: Bytes, held: Option<Held>) -> AnswerBody {
        AnswerBody { content: Content::Whole { rest: bytes, _held: held }, busy: None }
    }

    /// An event stream that also ends when `stopped` returns.
    pub fn events(stream: EventStream, format: Format, stopped: BoxFuture<'static, ()>) -> AnswerBody {
        AnswerBody { content: Content::Events { stream, format, stage: Stage::Opening, stopped }, busy: None }
    }

    /// Ties the connection's knowledge of the request to this body's life.
    pub fn watched(mut self, busy: Busy) -> AnswerBody {
        busy.offer();
        self.busy = Some(busy);
        self
    }
}

impl Content {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Content::Whole { rest, .. } if rest.is_empty() => Poll::Ready(None),
            Content::Whole { rest, .. } => Poll::Ready(Some(rest.split_to(rest.len().min(PIECE_BYTES)))),
            Content::Events { stage: Stage::Ended, .. } => Poll::Ready(None),
            Content::Events { stage: stage @ Stage::Opening, format, .. } => {
                *stage = Stage::Open;
                Poll::Ready(Some(event_stream::initial_response(*format)))
            }
            Content::Events { stream, format, stage, stopped } => {
                let next = match stream.0.poll_recv(cx) {
                    Poll::Ready(event) => event,
                    Poll::Pending => {
                        std::task::ready!(stopped.as_mut().poll(cx));
                        None
                    }
                };
                if next.as_ref().is_none_or(event_stream::is_last) {
                    *stage = Stage::Ended;
                }
                Poll::Ready(next.map(|event| event_stream::encode(event, *format)))
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.content.poll_next(cx);
        if let (Content::Events { .. }, Some(busy)) = (&self.content, &self.busy) {
            // A whole answer has one deadline, an event stream one for each event: what is asked for is taken.
            match next {
                Poll::Ready(_) => busy.offer(),
                Poll::Pending => busy.taken(),
            }
        }
        next.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole { rest, .. } if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Content::Events { .. } => SizeHint::default(),
        }
    }
}
