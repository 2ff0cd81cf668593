//! Hash-key ranges, and how a whole stream is divided evenly.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The hash keys `start..=end`: inclusive, as Kinesis has it, because 2^128 does not fit. In JSON both are decimal
/// strings, as they are on the Kinesis wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKeyRange {
    #[serde(serialize_with = "put_decimal", deserialize_with = "get_decimal")]
    pub start: u128,
    #[serde(serialize_with = "put_decimal", deserialize_with = "get_decimal")]
    pub end: u128,
}

impl HashKeyRange {
    pub const ALL: HashKeyRange = HashKeyRange { start: 0, end: u128::MAX };

    pub fn contains(&self, hash_key: u128) -> bool {
        (self.start..=self.end).contains(&hash_key)
    }

    /// How many hash keys it holds, less one: the whole range holds 2^128, which does not fit.
    pub fn span(&self) -> u128 {
        self.end.saturating_sub(self.start)
    }

    /// Where the upper half begins.
    pub fn midpoint(&self) -> u128 {
        self.start.saturating_add(self.span() / 2).saturating_add(1)
    }

    /// The ranges below and from `at`, if each keeps at least two hash keys, as Kinesis asks of a split.
    pub(super) fn divided(&self, at: u128) -> Option<(HashKeyRange, HashKeyRange)> {
        let fits = at > self.start.saturating_add(1) && at < self.end;
        if fits { self.cut(at) } else { None }
    }

    /// The ranges below and from `at`, if neither is empty.
    pub(super) fn cut(&self, at: u128) -> Option<(HashKeyRange, HashKeyRange)> {
        let fits = at > self.start && at <= self.end;
        fits.then(|| (HashKeyRange { start: self.start, end: at - 1 }, HashKeyRange { start: at, end: self.end }))
    }

    /// The range of both together, if one begins where the other ends.
    pub fn joined(&self, other: &HashKeyRange) -> Option<HashKeyRange> {
        let (low, high) = if self.start <= other.start { (self, other) } else { (other, self) };
        let meet = low.end.checked_add(1) == Some(high.start);
        meet.then_some(HashKeyRange { start: low.start, end: high.end })
    }
}

/// The ranges of `n` shards that divide the hash keys evenly, as AWS divides them: each begins at a multiple of 2^128 /
/// `n` rounded down, and the last takes the rest.
pub(super) fn uniform(n: NonZeroU32) -> impl Iterator<Item = HashKeyRange> {
    let n = n.get();
    let count = u128::from(n);
    // 2^128 / n without 2^128: one more than (2^128 - 1) / n where n divides evenly. With one shard the width wraps to
    // 0, which is only ever multiplied by 0.
    let width = (u128::MAX / count).wrapping_add(u128::from(u128::MAX % count == count - 1));
    (0..n).map(move |index| {
        let start = width * u128::from(index);
        let end = if index == n - 1 { u128::MAX } else { start + (width - 1) };
        HashKeyRange { start, end }
    })
}

fn put_decimal<S: Serializer>(value: &u128, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

fn get_decimal<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}
