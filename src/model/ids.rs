//! Names of things. Offsets are plain `i64`, as both protocols' arithmetic has them (see [`Offset`]).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in one partition's log: the first record ever is 0. -1 means "none" on the Kafka wire only, never here.
pub type Offset = i64;

/// A stream's number in the store, never reused. (Kafka's topic id is a UUID kept beside it.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// A partition's place in its stream: `0..P`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionIndex(pub u32);

/// One partition of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionId {
    pub stream: StreamId,
    pub index: PartitionIndex,
}

/// A shard's number in its stream, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardOrdinal(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream.0, self.index.0)
    }
}

impl ShardOrdinal {
    /// The largest, as AWS has it.
    pub const MAX: ShardOrdinal = ShardOrdinal(i32::MAX as u32);

    /// Reads a shard id as AWS does: the digits after the first hyphen, or all of it. So `shardId-000000000042`,
    /// `shardId-42`, `any-42` and `42` are the same shard; whether it exists is for the caller to see.
    pub fn parse(text: &str) -> Option<ShardOrdinal> {
        let digits = text.split('-').nth(1).filter(|digits| !digits.is_empty()).unwrap_or(text);
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let ordinal = is_number.then(|| digits.parse().ok()).flatten().map(ShardOrdinal);
        ordinal.filter(|ordinal| *ordinal <= ShardOrdinal::MAX)
    }
}

/// As Kinesis writes it: `shardId-000000000042`.
impl fmt::Display for ShardOrdinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_id_is_read_as_aws_reads_it() {
        for text in ["shardId-000000000042", "shardId-42", "x-42", "-0042", "42", "a-42-b"] {
            assert_eq!(ShardOrdinal::parse(text), Some(ShardOrdinal(42)), "{text}");
        }
        assert_eq!(ShardOrdinal::parse("2147483647"), Some(ShardOrdinal::MAX));
        for text in ["2147483648", "shardId-002147483648", "ABKLFD8", "2.14E4", "shardId-", "a-b-42", "99999999999", ""]
        {
            assert_eq!(ShardOrdinal::parse(text), None, "{text}");
        }
    }
}
