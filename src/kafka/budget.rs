//! Memory for what is on its way out: records of fetch answers, from the read until the client has taken them. Without
//! it, clients that ask and do not read would hold as much as they like.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// A permit stands for this many bytes.
const PERMIT_BYTES: usize = 1 << 10;
/// The least that is worth reading: a batch of the default `max.message.bytes`.
const GRANT_BYTES_MIN: usize = 1 << 20;
/// One answer may take this part of what is left, so that a few large ones leave room for many.
const SHARE: usize = 8;

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
