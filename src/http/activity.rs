//! When a connection has lived long enough: what it is doing, and until when it may.
//!
//! One [`Activity`] per connection, told of by its socket ([`Watched`]), its requests ([`Busy`]) and its answers; the
//! connection asks for the [`Due`] that comes first. Invariants: a silent client, one that sends its request slowly and
//! one that does not take its answers each cost a bounded time; an event stream lives as long as its client takes what
//! is sent.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;

/// Milliseconds for a request's head, and for the first request of a connection.
pub const HEAD_MS_MAX: i64 = 15_000;
/// Milliseconds that a connection may be kept open without a request.
pub const IDLE_MS_MAX: i64 = 5 * 60_000;
/// Milliseconds in which a client takes an answer whole, or one event of a stream.
pub const ANSWER_MS_MAX: i64 = 2 * 60_000;

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Nobody waits: it is closed politely.
    Idle,
    SlowHead,
    SlowAnswer,
}

impl Due {
    /// As it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Due::Idle => "idle",
            Due::SlowHead => "slow_head",
            Due::SlowAnswer => "slow_answer",
        }
    }
}

#[derive(Clone)]
pub struct Activity {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    /// When the connection was accepted or its last request ended.
    quiet_since_ms: i64,
    /// When the first byte of the head that is arriving came, or the connection before its first request.
    head_since_ms: Option<i64>,
    /// On HTTP/2, bytes come between requests that belong to none.
    is_multiplexed: bool,
    requests: usize,
    next_answer: u64,
    /// When what a client has been offered has to be taken.
    answers: BTreeMap<u64, i64>,
}

impl Activity {
    pub fn new(clock: Clock) -> Activity {
        let now_ms = clock.tick_ms();
        let state = State {
            quiet_since_ms: now_ms,
            head_since_ms: Some(now_ms),
            is_multiplexed: false,
            requests: 0,
            next_answer: 0,
            answers: BTreeMap::new(),
        };
        Activity { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// What ends the connection first, and when, if nothing else happens before.
    pub fn due(&self) -> (i64, Due) {
        let state = self.state.lock();
        let idle = (state.requests == 0).then(|| (state.quiet_since_ms.saturating_add(IDLE_MS_MAX), Due::Idle));
        let head = state.head_since_ms.map(|since_ms| (since_ms.saturating_add(HEAD_MS_MAX), Due::SlowHead));
        let answer = state.answers.values().min().map(|due_ms| (*due_ms, Due::SlowAnswer));
        let first = [idle, head, answer].into_iter().flatten().min();
        // A request under way has limits of its own.
        first.unwrap_or((i64::MAX, Due::Idle))
    }

    fn received(&self) {
        let mut state = self.state.lock();
        if state.requests == 0 && !state.is_multiplexed && state.head_since_ms.is_none() {
            state.head_since_ms = Some(self.clock.tick_ms());
        }
    }

    /// A request's head is complete.
    pub fn begin(&self, is_multiplexed: bool) -> Busy {
        let mut state = self.state.lock();
        state.requests += 1;
        state.head_since_ms = None;
        state.is_multiplexed = is_multiplexed;
        state.next_answer += 1;
        Busy { activity: self.clone(), answer: state.next_answer }
    }
}

/// A request under way, until its answer has been taken.
pub struct Busy {
    activity: Activity,
    answer: u64,
}

impl Busy {
    /// There is something for the client to take, from now on.
    pub fn offer(&self) {
        let due_ms = self.activity.clock.tick_ms().saturating_add(ANSWER_MS_MAX);
        self.activity.state.lock().answers.insert(self.answer, due_ms);
    }

    /// The client has taken all there is so far.
    pub fn taken(&self) {
        self.activity.state.lock().answers.remove(&self.answer);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now_ms = self.activity.clock.tick_ms();
        let mut state = self.activity.state.lock();
        state.answers.remove(&self.answer);
        state.requests = state.requests.saturating_sub(1);
        state.quiet_since_ms = now_ms;
    }
}

/// A socket that tells of what arrives.
pub struct Watched<S> {
    socket: S,
    activity: Activity,
}

impl<S> Watched<S> {
    pub fn new(socket: S, activity: Activity) -> Watched<S> {
        Watched { socket, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_connection_follows_what_it_does() {
        let clock = Clock::manual(0);
        let activity = Activity::new(clock.clone());
        activity.received();
        assert_eq!(activity.due(), (HEAD_MS_MAX, Due::SlowHead));
        clock.advance(1_000);
        let busy = activity.begin(false);
        assert_eq!(activity.due().0, i64::MAX);
        busy.offer();
        assert_eq!(activity.due(), (1_000 + ANSWER_MS_MAX, Due::SlowAnswer));
        busy.taken();
        assert_eq!(activity.due().0, i64::MAX);
        clock.advance(1_000);
        drop(busy);
        assert_eq!(activity.due(), (2_000 + IDLE_MS_MAX, Due::Idle));
        // The next head counts from its own first byte.
        clock.advance(60_000);
        activity.received();
        clock.advance(1_000);
        activity.received();
        assert_eq!(activity.due(), (62_000 + HEAD_MS_MAX, Due::SlowHead));
    }

    #[test]
    fn on_http_2_bytes_between_requests_begin_none() {
        let clock = Clock::manual(0);
        let activity = Activity::new(clock.clone());
        let (first, second) = (activity.begin(true), activity.begin(true));
        first.offer();
        drop(first);
        assert_eq!(activity.due().0, i64::MAX);
        drop(second);
        activity.received();
        assert_eq!(activity.due(), (IDLE_MS_MAX, Due::Idle));
    }
}
