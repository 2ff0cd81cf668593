//! How often control operations may be called: a token bucket for each, of the account, of each stream or of each
//! consumer's subscriptions to a shard, that holds one second's worth. Read by `dispatch` with [`crate::clock::Clock::tick_ms`] as now; `control-rates` switches it off.
//!
//! Source: Kinesis quotas; SubscribeToShard's API reference. (The rates of data operations are the shards': `broker::capacity`.)

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::capacity::{self, Bucket};
use crate::model::ids::{ShardOrdinal, StreamId};

/// With more buckets than this, full ones are dropped: they are as good as new ones.
const BUCKETS_MAX: usize = 4_096;

/// Calls of SubscribeToShard, for each consumer and shard.
const SUBSCRIPTIONS_PER_S: u64 = 1;

/// Calls a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Not limited here.
    Free,
    Account(u64),
    /// Of one stream.
    Stream(u64),
}

/// What has a bucket of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Account(&'static str),
    Stream(&'static str, Arc<str>),
    Subscription(SubscriptionKey),
}

/// A consumer and a shard. A consumer that was registered anew under its name is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionKey {
    pub stream: StreamId,
    pub consumer: String,
    pub created_ms: i64,
    pub shard: ShardOrdinal,
}

#[derive(Default)]
pub struct Rates(Mutex<HashMap<Key, (Bucket, capacity::Rate)>>);

impl Rates {
    /// Whether one more call fits. A rate of streams does not limit calls for one that does not exist.
    pub fn take(&self, operation: &'static str, rate: Rate, stream: Option<&Arc<str>>, now_ms: i64) -> bool {
        match (rate, stream) {
            (Rate::Free, _) | (Rate::Stream(_), None) => true,
            (Rate::Account(per_s), _) => self.take_of(Key::Account(operation), per_s, now_ms),
            (Rate::Stream(per_s), Some(stream)) => self.take_of(Key::Stream(operation, stream.clone()), per_s, now_ms),
        }
    }

    /// Whether one more call of SubscribeToShard fits, whatever comes of it.
    pub fn take_subscription(&self, key: SubscriptionKey, now_ms: i64) -> bool {
        self.take_of(Key::Subscription(key), SUBSCRIPTIONS_PER_S, now_ms)
    }

    fn take_of(&self, key: Key, per_s: u64, now_ms: i64) -> bool {
        let rate = capacity::Rate::steady(per_s);
        let mut buckets = self.0.lock();
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&key) {
            buckets.retain(|_, (bucket, rate)| !bucket.check(*rate, rate.burst, now_ms).is_granted());
        }
        let (bucket, _) = buckets.entry(key).or_insert_with(|| (Bucket::default(), rate));
        bucket.take(rate, 1, now_ms).is_granted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(rates: &Rates, rate: Rate, stream: Option<&Arc<str>>, calls: usize, now_ms: i64) -> usize {
        (0..calls).filter(|_| rates.take("Op", rate, stream, now_ms)).count()
    }

    #[test]
    fn a_second_holds_so_many_calls() {
        let rates = Rates::default();
        assert_eq!(granted(&rates, Rate::Account(5), None, 9, 0), 5);
        assert_eq!(granted(&rates, Rate::Account(5), None, 9, 199), 0);
        assert_eq!(granted(&rates, Rate::Account(5), None, 9, 200), 1);
        assert_eq!(granted(&rates, Rate::Account(5), None, 9, 5_000), 5);
        assert_eq!(granted(&rates, Rate::Free, None, 9, 5_000), 9);
    }

    #[test]
    fn streams_have_rates_of_their_own() {
        let rates = Rates::default();
        let streams: Vec<Arc<str>> = (0..BUCKETS_MAX + 10).map(|n| format!("s{n}").into()).collect();
        for stream in &streams {
            assert_eq!(granted(&rates, Rate::Stream(2), Some(stream), 3, 0), 2);
        }
        assert_eq!(granted(&rates, Rate::Stream(2), None, 9, 0), 9, "what does not exist is not limited");
        // None was full, so none was dropped; a second later all are.
        assert_eq!(rates.0.lock().len(), streams.len());
        assert_eq!(granted(&rates, Rate::Stream(2), Some(&"new".into()), 3, 1_000), 2);
        assert_eq!(rates.0.lock().len(), 1);
    }
}
