//! The log: each partition is one append-only run of record batches with offsets, kept in `store`.
//!
//! - [`partition`]: one partition: append, read, where it starts and ends
//! - [`writer`]: the one thread that commits what all partitions have queued
//! - [`segment`]: the index: which offsets stand in which epoch, and what retention needs to know of them
//! - [`tail`]: the newest batches, kept in memory for readers at the end
//! - [`disk`]: batches as they lie in the store, some of them sealed
//! - [`ahead`]: what was read from the store and had no room, or before its reader asked
//! - [`dormant`]: what is addressed to a partition whose log takes nothing any more
//! - [`producers`]: idempotent producers of one partition
//! - [`transactions`]: which transactions of one log are open, and which were aborted
//! - [`times`]: what was appended since when
//! - [`rewrite`]: closed segments moved, or compacted
//! - [`recover`]: from what is stored to partitions that take appends
//!
//! Called by `broker`, which owns streams and knows why a partition exists.
//!
//! **Epochs.** Record batches are keyed by epoch first. The writer steps the epoch when about a memtable's worth has
//! been appended and has the store close the memtable then, so that files never overlap and whole epochs can be
//! dropped as files. All that must be known about older epochs (segments' summaries) is committed with the step: after
//! a crash only the newest epoch is read again.

pub mod ahead;
pub mod disk;
pub mod dormant;
pub mod partition;
pub mod producers;
pub mod recover;
pub mod rewrite;
pub mod segment;
pub mod tail;
pub mod times;
pub mod transactions;
pub mod writer;
