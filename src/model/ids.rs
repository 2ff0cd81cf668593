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
}

/// As Kinesis writes it: `shardId-000000000042`.
impl fmt::Display for ShardOrdinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}
