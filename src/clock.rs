//! Time and randomness: the only source of both, so that tests can turn 25 hours in a millisecond.
//!
//! Two readings: [`Clock::now_ms`] is the wall clock (append times, expiry of what is stored), [`Clock::tick_ms`] never
//! goes back (deadlines, session timeouts). A manual clock moves both only by [`Clock::advance`].

mod alarms;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

pub use alarms::{Alarms, fired};

#[derive(Clone)]
pub struct Clock(Arc<Kind>);

enum Kind {
    System { origin: Instant },
    Manual { now_ms: AtomicI64, ticks: watch::Sender<i64>, seed: AtomicU64 },
}

impl Clock {
    pub fn system() -> Clock {
        Clock(Arc::new(Kind::System { origin: Instant::now() }))
    }

    /// A clock that stands at `now_ms` (milliseconds since 1970) until it is advanced; its randomness is a fixed sequence.
    pub fn manual(now_ms: i64) -> Clock {
        Clock(Arc::new(Kind::Manual {
            now_ms: AtomicI64::new(now_ms),
            ticks: watch::Sender::new(0),
            seed: AtomicU64::new(1),
        }))
    }

    /// Milliseconds since 1970-01-01T00:00Z. May step when the machine's clock is set.
    pub fn now_ms(&self) -> i64 {
        match &*self.0 {
            Kind::System { .. } => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
            }
            Kind::Manual { now_ms, .. } => now_ms.load(Ordering::SeqCst),
        }
    }

    /// Milliseconds since this clock was made; never goes back.
    pub fn tick_ms(&self) -> i64 {
        match &*self.0 {
            Kind::System { origin } => origin.elapsed().as_millis() as i64,
            Kind::Manual { ticks, .. } => *ticks.borrow(),
        }
    }

    /// The same in microseconds, for measuring how long something took.
    pub fn tick_micros(&self) -> i64 {
        match &*self.0 {
            Kind::System { origin } => origin.elapsed().as_micros() as i64,
            Kind::Manual { .. } => self.tick_ms() * 1_000,
        }
    }

    /// Returns once [`Clock::tick_ms`] has reached `tick_ms`.
    pub async fn sleep_until(&self, tick_ms: i64) {
        match &*self.0 {
            Kind::System { origin } => {
                let at = *origin + Duration::from_millis(tick_ms.max(0) as u64);
                tokio::time::sleep_until(at.into()).await;
            }
            Kind::Manual { ticks, .. } => {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = ticks.subscribe().wait_for(|now| *now >= tick_ms).await;
            }
        }
    }

    pub async fn sleep_ms(&self, ms: i64) {
        self.sleep_until(self.tick_ms().saturating_add(ms)).await;
    }

    /// Moves a manual clock forward by `ms`; a system clock moves by itself and ignores this.
    pub fn advance(&self, ms: i64) {
        if let Kind::Manual { now_ms, ticks, .. } = &*self.0 {
            now_ms.fetch_add(ms, Ordering::SeqCst);
            ticks.send_modify(|tick| *tick += ms);
        }
    }

    /// 128 random bits as a version 4 UUID (topic ids, cluster id, member ids).
    pub fn random_uuid(&self) -> Uuid {
        match &*self.0 {
            Kind::System { .. } => Uuid::new_v4(),
            Kind::Manual { seed, .. } => {
                let half = || splitmix(seed.fetch_add(1, Ordering::SeqCst));
                uuid::Builder::from_random_bytes((u128::from(half()) << 64 | u128::from(half())).to_be_bytes())
                    .into_uuid()
            }
        }
    }

    /// 256 random bits: a key. A version 4 UUID has 122, so three of them are mixed.
    pub fn random_key(&self) -> [u8; 32] {
        let mut mix = Sha256::new();
        for _ in 0..3 {
            mix.update(self.random_uuid());
        }
        mix.finalize().into()
    }
}

/// Steele, Lea and Flood's SplitMix64: a well-mixed value from a counter.
fn splitmix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_only_when_advanced() {
        let clock = Clock::manual(1_000);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_ms(25 * 3_600_000).await }
        });
        clock.advance(25 * 3_600_000 - 1);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        // The sleeper's deadline counts from when it first ran, which may be after the first advance.
        clock.advance(25 * 3_600_000);
        sleeper.await.unwrap();
        assert_eq!(clock.now_ms(), 1_000 + 2 * 25 * 3_600_000 - 1);
    }

    #[test]
    fn a_manual_clocks_randomness_repeats() {
        let ids = |clock: Clock| (clock.random_uuid(), clock.random_uuid());
        assert_eq!(ids(Clock::manual(0)), ids(Clock::manual(0)));
        let (a, b) = ids(Clock::manual(0));
        assert_ne!(a, b);
    }
}
