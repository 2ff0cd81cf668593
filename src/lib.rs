//! Anabranch: one log, two protocols.
//!
//! A broker that Kafka clients use unchanged, built so that a Kafka partition is a sequence of Kinesis shards
//! (a *shard* is a generation of a *partition*). Modules by layer, lowest first; a module imports only from layers
//! below its own, and modules of one layer do not import each other (`tests/house.rs` holds this):
//!
//! | layer | module | what it owns |
//! |---|---|---|
//! | 0 | [`model`] | record batches, shards and their lineage, ids: pure |
//! | 0 | [`config`], [`clock`], [`metrics`] | settings, time and randomness, Prometheus series |
//! | 1 | [`store`] | ordered keys and values on disk (RocksDB) or in memory; every stored layout |
//! | 2 | [`log`] | one partition's log: append, read, trim, recover, producers |
//! | 3 | [`broker`] | streams, partitions and shards; what doors call |
//! | 4 | [`group`] | consumer groups and their offsets |
//! | 4 | [`reaper`] | retention: what has expired |
//! | 4 | [`http`] | `/metrics` and `/health` |
//! | 5 | [`kafka`] | the Kafka door |
//! | 6 | [`server`] | builds everything, binds, shuts down |
//!
//! Invariants:
//! - Only [`kafka`] knows Kafka messages; [`broker`] names no protocol's shapes.
//! - Only [`store`] imports `rocksdb` or opens a file of the data folder.
//! - [`model`] and the group state machine are pure: no async, no I/O, time comes in as an argument.
//! - [`clock`] is the only source of time and randomness, so tests turn 25 hours in a millisecond.
//! - Nothing awaits while it holds a lock.

pub mod broker;
pub mod clock;
pub mod config;
pub mod group;
pub mod http;
pub mod kafka;
pub mod log;
pub mod metrics;
pub mod model;
pub mod reaper;
pub mod server;
pub mod store;
