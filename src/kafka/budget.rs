//! Memory of all connections together. Without bounds on it, clients hold as much as they like by sending much slowly, or by
//! asking and not reading.
//!
//! - [`RequestBudget`]: requests, from what has arrived of them until they are answered. Called by `conn`.
//! - [`AnswerBudget`]: records of answers, from the read until the client has taken them. Called by fetches.
//!
//! Invariant: among the requests that hold memory and need more, one can always go on. Most ask once, before they hold any;
//! of those that ask again, one at a time goes beyond the budget if it has to, by as much as one request may have.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// A permit stands for this many bytes.
const PERMIT_BYTES: usize = 1 << 10;
/// Requests up to this size ask once: those that fill `max.request.size` of usual clients, which is 1 MiB, with what is
/// around it. Larger ones ask for more as it comes, for who claims much need not send it.
const WHOLE_BYTES_MAX: usize = 2 << 20;
/// What larger ones ask for at a time.
const STEP_BYTES: usize = 1 << 20;
/// The least that is worth reading: a batch of the default `max.message.bytes`.
const GRANT_BYTES_MIN: usize = 1 << 20;
/// One answer may take this part of what is left, so that a few large ones leave room for many.
const SHARE: usize = 8;

/// Memory for requests.
#[derive(Clone)]
pub struct RequestBudget {
    left: Arc<Semaphore>,
    /// Held by the one request that goes beyond the budget.
    beyond: Arc<Semaphore>,
}

/// What one request may hold, until this is dropped.
#[derive(Default)]
pub struct Room {
    permits: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl RequestBudget {
    pub fn new(bytes: usize, metrics: &Metrics) -> RequestBudget {
        let permits = (bytes.max(WHOLE_BYTES_MAX) / PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        let left = Arc::new(Semaphore::new(permits));
        let watched = left.clone();
        let used_bytes = move || (permits - watched.available_permits()) * PERMIT_BYTES;
        metrics.watch_budget("kafka_requests", permits * PERMIT_BYTES, used_bytes);
        RequestBudget { left, beyond: Arc::new(Semaphore::new(1)) }
    }

    /// More room for a request of `whole` bytes, all of it or a step towards it; waits while there is none. May be dropped
    /// while it waits.
    pub async fn enlarge(&self, room: &mut Room, whole: usize) {
        if room.permits.is_empty() {
            let bytes = if whole <= WHOLE_BYTES_MAX { whole } else { STEP_BYTES };
            // The semaphores are never closed.
            room.permits.extend(self.left.clone().acquire_many_owned(permits(bytes)).await);
            room.bytes = bytes;
            return;
        }
        // Others may hold the rest and wait as well.
        tokio::select! {
            biased;
            step = self.left.clone().acquire_many_owned(permits(STEP_BYTES)) => {
                room.permits.extend(step);
                room.bytes += STEP_BYTES;
            }
            alone = self.beyond.clone().acquire_owned() => {
                room.permits.extend(alone);
                room.bytes = room.bytes.max(whole);
            }
        }
    }
}

impl Room {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.permits.is_empty()
    }
}

#[derive(Clone)]
pub struct AnswerBudget(Arc<Semaphore>);

/// Bytes that an answer may hold, until this is dropped.
pub struct Grant(OwnedSemaphorePermit);

impl AnswerBudget {
    pub fn new(bytes: usize, metrics: &Metrics) -> AnswerBudget {
        let permits = (bytes / PERMIT_BYTES).clamp(GRANT_BYTES_MIN / PERMIT_BYTES, Semaphore::MAX_PERMITS);
        let left = Arc::new(Semaphore::new(permits));
        let watched = left.clone();
        let used_bytes = move || (permits - watched.available_permits()) * PERMIT_BYTES;
        metrics.watch_budget("kafka_answers", permits * PERMIT_BYTES, used_bytes);
        AnswerBudget(left)
    }

    /// `wanted` or a share of what is left, whichever is less; waits while there is room for nothing.
    pub async fn grant(&self, wanted: usize) -> Option<Grant> {
        let left = self.0.available_permits() * PERMIT_BYTES;
        let bytes = wanted.min((left / SHARE).max(GRANT_BYTES_MIN));
        // The semaphore is never closed.
        self.0.clone().acquire_many_owned(permits(bytes)).await.ok().map(Grant)
    }
}

impl Grant {
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * PERMIT_BYTES
    }

    /// Gives back what `bytes` do not need.
    pub fn shrink(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(permits(bytes) as usize);
        drop(self.0.split(surplus));
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn enlarge(budget: &RequestBudget, room: &mut Room, whole: usize) -> bool {
        budget.enlarge(room, whole).now_or_never().is_some()
    }

    #[test]
    fn usual_requests_ask_once_and_wait_without_holding_anything() {
        let budget = RequestBudget::new(4 * MIB, &Metrics::new(1));
        let mut rooms: Vec<Room> = (0..4).map(|_| Room::default()).collect();
        let whole = MIB + 500;
        let granted: Vec<bool> = rooms.iter_mut().map(|room| enlarge(&budget, room, whole)).collect();
        assert_eq!(granted, [true, true, true, false]);
        assert!(rooms[..3].iter().all(|room| room.bytes() == whole) && rooms[3].is_empty());
        rooms.remove(0);
        assert!(enlarge(&budget, &mut rooms[2], whole));
    }

    #[test]
    fn of_large_requests_that_wait_for_each_other_one_goes_on() {
        let budget = RequestBudget::new(4 * MIB, &Metrics::new(1));
        let mut rooms: Vec<Room> = (0..4).map(|_| Room::default()).collect();
        assert!(rooms.iter_mut().all(|room| enlarge(&budget, room, 50 * MIB)));
        // All of the budget is held by requests that need more.
        let on: Vec<bool> = rooms.iter_mut().map(|room| enlarge(&budget, room, 50 * MIB)).collect();
        assert_eq!(on, [true, false, false, false]);
        assert_eq!((rooms[0].bytes(), rooms[1].bytes()), (50 * MIB, MIB));
        rooms.remove(0);
        // What it held and its turn are free again.
        assert!(enlarge(&budget, &mut rooms[0], 50 * MIB) && enlarge(&budget, &mut rooms[1], 50 * MIB));
        assert!(!enlarge(&budget, &mut rooms[2], 50 * MIB));
        assert_eq!((rooms[0].bytes(), rooms[1].bytes()), (2 * MIB, 50 * MIB));
    }

    #[test]
    fn a_request_larger_than_the_budget_passes() {
        let budget = RequestBudget::new(100, &Metrics::new(1));
        let mut room = Room::default();
        for expected in [MIB, 2 * MIB, 100 * MIB] {
            assert!(enlarge(&budget, &mut room, 100 * MIB));
            assert_eq!(room.bytes(), expected);
        }
    }

    #[test]
    fn answers_share_what_there_is_and_wait_for_the_rest() {
        let budget = AnswerBudget::new(8 * MIB, &Metrics::new(1));
        let mut grants: Vec<Grant> = (0..8).map(|_| budget.grant(50 * MIB).now_or_never().flatten().unwrap()).collect();
        assert!(grants.iter().all(|grant| grant.bytes() == MIB));
        assert_eq!(
            AnswerBudget::new(80 * MIB, &Metrics::new(1)).grant(50 * MIB).now_or_never().flatten().unwrap().bytes(),
            10 * MIB
        );
        assert!(budget.grant(10).now_or_never().is_none());
        grants[0].shrink(1_000);
        assert_eq!(grants[0].bytes(), 1 << 10);
        assert!(budget.grant(10).now_or_never().is_some());
        assert!(budget.grant(MIB).now_or_never().is_none());
        grants.pop();
        assert!(budget.grant(MIB).now_or_never().is_some());
    }
}
