//! Memory for bodies of all connections: requests from their first byte until they are answered, answers until they are
//! taken. Without it, clients hold as much as they like by sending much slowly or by reading nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::metrics::Metrics;

/// A permit stands for this many bytes.
const PERMIT_BYTES: usize = 1 << 10;
/// Milliseconds that a request waits for memory before it is refused.
pub const WAIT_MS_MAX: i64 = 10_000;

/// Bodies in memory.
#[derive(Clone)]
pub struct Budget {
    requests: Arc<Semaphore>,
    answers: Arc<Answers>,
    clock: Clock,
}

struct Answers {
    bytes_max: usize,
    held: AtomicUsize,
    room: Notify,
}

/// There was no room in time.
#[derive(Debug)]
pub struct Exhausted;

impl Budget {
    /// `bytes` for requests and as much for answers.
    pub fn new(bytes: usize, clock: Clock, metrics: &Metrics) -> Budget {
        let permits = (bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        let answers = Answers { bytes_max: bytes, held: AtomicUsize::new(0), room: Notify::new() };
        let budget = Budget { requests: Arc::new(Semaphore::new(permits)), answers: Arc::new(answers), clock };
        let (requests, answers) = (budget.requests.clone(), budget.answers.clone());
        let requests_bytes = move || (permits - requests.available_permits()) * PERMIT_BYTES;
        metrics.watch_budget("http_requests", permits * PERMIT_BYTES, requests_bytes);
        metrics.watch_budget("http_answers", bytes, move || answers.held.load(Ordering::Relaxed));
        budget
    }

    /// Room for `bytes` more of a request. Those who hold some and wait for more give up after a while, so they cannot
    /// wait for each other for ever.
    pub async fn request(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Exhausted> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).map_err(|_| Exhausted)?;
        tokio::select! {
            biased;
            permit = self.requests.clone().acquire_many_owned(permits) => permit.map_err(|_| Exhausted),
            () = self.clock.sleep_ms(WAIT_MS_MAX) => Err(Exhausted),
        }
    }

    /// Returns when there is room for another answer. How large it will be is not known yet, so what is bounded is
    /// when answers are begun: beyond the bound by those that are being made.
    pub async fn room_for_answer(&self) -> Result<(), Exhausted> {
        let wait = async {
            loop {
                let room = self.answers.room.notified();
                tokio::pin!(room);
                room.as_mut().enable();
                if self.answers.held.load(Ordering::Acquire) < self.answers.bytes_max {
                    return;
                }
                room.await;
            }
        };
        tokio::select! {
            biased;
            () = wait => Ok(()),
            () = self.clock.sleep_ms(WAIT_MS_MAX) => Err(Exhausted),
        }
    }

    /// Counts an answer until it is dropped.
    pub fn answer(&self, bytes: usize) -> Held {
        self.answers.held.fetch_add(bytes, Ordering::AcqRel);
        Held { answers: self.answers.clone(), bytes }
    }
}

/// Bytes of an answer.
pub struct Held {
    answers: Arc<Answers>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let before = self.answers.held.fetch_sub(self.bytes, Ordering::AcqRel);
        if before >= self.answers.bytes_max && before - self.bytes < self.answers.bytes_max {
            self.answers.room.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn requests_wait_for_room_and_give_up() {
        let clock = Clock::manual(0);
        let budget = Budget::new(4 << 10, clock.clone(), &Metrics::new(1));
        let first = budget.request(3 << 10).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.request(2 << 10).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
        let _all = budget.request(4 << 10).await.unwrap();
        let refused = budget.request(1);
        tokio::pin!(refused);
        assert!(refused.as_mut().now_or_never().is_none());
        clock.advance(WAIT_MS_MAX);
        assert!(refused.await.is_err());
    }

    #[tokio::test]
    async fn answers_are_begun_only_while_there_is_room() {
        let budget = Budget::new(1_000, Clock::manual(0), &Metrics::new(1));
        let (first, second) = (budget.answer(600), budget.answer(600));
        let waiting = budget.room_for_answer();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiting.await.is_ok());
        drop(second);
        assert!(budget.room_for_answer().now_or_never().is_some());
    }
}
