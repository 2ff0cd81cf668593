//! What a quota is measured with: Kafka's sampled rate and its token bucket, exact on the clock of whoever calls. Pure:
//! time comes in as an argument, in milliseconds of a clock that never goes back.
//!
//! - **Sampled rate** (bytes, request time, connections): the sum of the samples of the last [`SAMPLES`] windows of
//!   [`WINDOW_MS`] each, over the time since the oldest of them began, which counts as [`SAMPLES`] - 1 windows at least.
//!   Beyond the limit, the answer says after how long the same sum would be within it.
//! - **Token bucket** (mutations): filled at the limit, holds [`SAMPLES`] windows' worth, may go below nothing.
//!
//! Sources: KIP-13, KIP-124, KIP-599; Kafka's `Rate`, `SampledStat` and `TokenBucket`, with the defaults of
//! `quota.window.num` and `quota.window.size.seconds`.

use std::collections::VecDeque;

/// `quota.window.num`.
pub const SAMPLES: usize = 11;
/// `quota.window.size.seconds`.
pub const WINDOW_MS: i64 = 1_000;

/// A meter for one client, user or address.
#[derive(Debug)]
pub enum Meter {
    Rate(SampledRate),
    Tokens(TokenBucket),
}

impl Meter {
    /// It says the same as a new one.
    pub fn is_idle(&mut self, now_ms: i64) -> bool {
        match self {
            Meter::Rate(rate) => rate.is_idle(now_ms),
            Meter::Tokens(bucket) => {
                now_ms.saturating_sub(bucket.at_ms) >= SAMPLES as i64 * WINDOW_MS && bucket.tokens >= 0.0
            }
        }
    }
}

/// How much came in the last windows.
#[derive(Debug, Default)]
pub struct SampledRate {
    /// In the order they began; at most one more than [`SAMPLES`], so that none is lost that still counts.
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    start_ms: i64,
    last_ms: i64,
    sum: f64,
}

impl SampledRate {
    /// `value` has come. Tells for how long nothing more should, for the rate to be `limit` a second; 0 when it is within.
    pub fn record(&mut self, value: f64, limit: f64, now_ms: i64) -> i64 {
        self.add(value, now_ms);
        self.excess_ms(limit, now_ms)
    }

    /// `value` did not come after all.
    pub fn unrecord(&mut self, value: f64, now_ms: i64) {
        self.add(-value, now_ms);
    }

    fn add(&mut self, value: f64, now_ms: i64) {
        match self.samples.back_mut() {
            Some(current) if now_ms.saturating_sub(current.start_ms) < WINDOW_MS => {
                current.sum += value;
                current.last_ms = current.last_ms.max(now_ms);
            }
            _ => {
                if self.samples.len() > SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(Sample { start_ms: now_ms, last_ms: now_ms, sum: value });
            }
        }
    }

    fn excess_ms(&mut self, limit: f64, now_ms: i64) -> i64 {
        self.forget_old(now_ms);
        let sum: f64 = self.samples.iter().map(|sample| sample.sum).sum();
        let window_ms = self.window_ms(now_ms) as f64;
        let rate = sum / window_ms * 1_000.0;
        if rate <= limit {
            return 0;
        }
        // A conversion from a float ends at the bounds of the integer.
        ((rate - limit) / limit * window_ms).round() as i64
    }

    /// Over how long the samples are taken together.
    fn window_ms(&self, now_ms: i64) -> i64 {
        let oldest_ms = self.samples.front().map_or(now_ms, |oldest| oldest.start_ms);
        let elapsed_ms = now_ms.saturating_sub(oldest_ms).max(0);
        let missing = (SAMPLES as i64 - 1 - elapsed_ms / WINDOW_MS).max(0);
        elapsed_ms + missing * WINDOW_MS
    }

    /// A sample counts while its last value is within the windows.
    fn forget_old(&mut self, now_ms: i64) {
        let is_old = |sample: &Sample| now_ms.saturating_sub(sample.last_ms) >= SAMPLES as i64 * WINDOW_MS;
        while self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
    }

    fn is_idle(&mut self, now_ms: i64) -> bool {
        self.forget_old(now_ms);
        self.samples.is_empty()
    }
}

/// Tokens that come at the limit, a second. Full at first.
#[derive(Debug)]
pub struct TokenBucket {
    tokens: f64,
    /// When that was true.
    at_ms: i64,
}

impl TokenBucket {
    pub fn full(limit: f64, now_ms: i64) -> TokenBucket {
        TokenBucket { tokens: burst(limit), at_ms: now_ms }
    }

    /// Takes `tokens` unless some are owed; then it tells for how long they will be.
    pub fn take(&mut self, tokens: f64, limit: f64, now_ms: i64) -> Result<(), i64> {
        self.refill(limit, now_ms);
        match self.owed_ms(limit) {
            0 => {
                self.tokens -= tokens;
                Ok(())
            }
            owed_ms => Err(owed_ms),
        }
    }

    /// Takes `tokens` in any case, and tells for how long some will be owed.
    pub fn charge(&mut self, tokens: f64, limit: f64, now_ms: i64) -> i64 {
        self.refill(limit, now_ms);
        self.tokens -= tokens;
        self.owed_ms(limit)
    }

    fn refill(&mut self, limit: f64, now_ms: i64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms).max(0);
        self.tokens = (self.tokens + limit * elapsed_ms as f64 / 1_000.0).min(burst(limit));
        self.at_ms = self.at_ms.max(now_ms);
    }

    fn owed_ms(&self, limit: f64) -> i64 {
        if self.tokens >= 0.0 {
            return 0;
        }
        // What is owed is never told as nothing.
        ((-self.tokens / limit * 1_000.0).round() as i64).max(1)
    }
}

fn burst(limit: f64) -> f64 {
    SAMPLES as f64 * WINDOW_MS as f64 / 1_000.0 * limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_spread_over_ten_windows() {
        let mut rate = SampledRate::default();
        assert_eq!(rate.record(1_000.0, 100.0, 5_000), 0, "ten seconds' worth is within");
        // 1,500 over 10 s are 150 a second: half as much again as may be, so 5 s more.
        assert_eq!(rate.record(500.0, 100.0, 5_000), 5_000);
        rate.unrecord(500.0, 5_000);
        assert_eq!(rate.record(0.0, 100.0, 5_000), 0);
    }

    #[test]
    fn samples_count_until_their_windows_are_over() {
        let mut rate = SampledRate::default();
        rate.record(2_000.0, 100.0, 0);
        // The window grows with time once it has all its parts: 2,000 over 10.9 s.
        assert_eq!(rate.record(0.0, 100.0, 10_900), 9_100);
        assert_eq!(rate.record(0.0, 100.0, 11_000), 0);
        assert!(!rate.is_idle(11_000));
        assert!(rate.is_idle(22_000));
    }

    #[test]
    fn a_steady_client_is_let_through_near_its_limit_and_not_beyond() {
        // Both ends of ten windows count, as in Kafka: eleven values of a second each are taken over ten.
        for (step, told) in [(90.0, false), (100.0, true)] {
            let mut rate = SampledRate::default();
            let excess = (0..60).map(|second| rate.record(step, 100.0, second * 1_000)).max();
            assert_eq!(excess > Some(0), told);
            assert!(rate.samples.len() <= SAMPLES + 1);
        }
    }

    /// As a client behaves that waits as it is told.
    #[test]
    fn who_waits_as_told_has_its_rate() {
        let (mut rate, mut now_ms, mut sum) = (SampledRate::default(), 0, 0.0);
        while now_ms < 120_000 {
            sum += 700.0;
            now_ms += rate.record(700.0, 1_000.0, now_ms).max(20);
        }
        let per_s = sum / 120.0;
        assert!((950.0..1_150.0).contains(&per_s), "{per_s}");
    }

    #[test]
    fn a_bucket_is_taken_from_until_something_is_owed() {
        let mut bucket = TokenBucket::full(2.0, 0);
        assert_eq!(bucket.take(25.0, 2.0, 0), Ok(()), "22 were there");
        assert_eq!(bucket.take(1.0, 2.0, 0), Err(1_500));
        assert_eq!(bucket.take(1.0, 2.0, 1_499), Err(1));
        assert_eq!(bucket.take(1.0, 2.0, 1_500), Ok(()));
        assert_eq!(bucket.charge(3.0, 2.0, 1_500), 2_000);
        // Never more than a burst.
        assert_eq!(bucket.charge(22.0, 2.0, 1_000_000), 0);
        assert_eq!(bucket.charge(2.0, 2.0, 1_000_000), 1_000);
    }
}
