//! Anabranch: one log, two protocols.
//!
//! A broker that Kafka clients use unchanged, built so that a Kafka partition is a sequence of Kinesis shards
//! (a *shard* is a generation of a *partition*). Modules by layer, lowest first; a module imports only from layers
//! below its own, and modules of one layer do not import each other (`tests/house.rs` holds this):
//!
//! | layer | module | what it owns |
//! |---|---|---|
//! | 0 | [`model`] | record batches, shards and their lineage, attributes, ids: pure |
//! | 1 | [`config`], [`clock`], [`metrics`] | settings, time and randomness, Prometheus series |
//! | 2 | [`store`] | ordered keys and values on disk (RocksDB) or in memory; every stored layout |
//! | 3 | [`log`] | one partition's log: append, read, trim, recover, producers |
//! | 4 | [`broker`] | streams, partitions and shards; what doors call |
//! | 5 | [`security`] | principals: who asks and what they may do |
//! | 5 | [`traces`] | a span for each request, told to an OpenTelemetry collector |
//! | 6 | [`group`] | consumer groups and their offsets |
//! | 6 | [`reaper`] | retention: what has expired |
//! | 6 | [`fanout`] | enhanced fan-out: subscriptions, takeover, expiry |
//! | 6 | [`scaler`] | on-demand capacity: when shards split and merge |
//! | 6 | [`audit`] | the audit log: who asked for which control operation |
//! | 6 | [`http`] | what AWS-style doors share; `/metrics` and `/health` |
//! | 7 | [`txn`] | transactions: who has which transactional id, what its transaction holds, how it ends |
//! | 7 | [`share`] | share groups: records handed out one by one, as from a queue |
//! | 8 | [`kafka`] | the Kafka door |
//! | 8 | [`kinesis`] | the Kinesis door |
//! | 8 | [`cloudwatch`] | the CloudWatch door: metrics that clients put, and those of our own streams |
//! | 9 | [`server`] | builds everything, binds, shuts down |
//! | 9 | [`inspect`] | what a stopped broker's folder holds, and whether it is as it should be |
//! | 9 | [`top`] | a running broker, watched in a terminal |
//!
//! Invariants:
//! - Only [`kafka`] knows Kafka messages, only [`kinesis`] and [`cloudwatch`] AWS shapes; [`broker`] names neither.
//! - Only [`store`] imports `rocksdb` or opens a file of the data folder.
//! - [`model`] and the state machines of groups, share groups and transactions are pure: no async, no I/O, time comes in
//!   as an argument.
//! - [`clock`] is the only source of time and randomness, so tests turn 25 hours in a millisecond.
//! - Nothing awaits while it holds a lock.

pub mod audit;
pub mod broker;
pub mod clock;
pub mod cloudwatch;
pub mod config;
pub mod fanout;
pub mod group;
pub mod http;
pub mod inspect;
pub mod kafka;
pub mod kinesis;
pub mod log;
pub mod metrics;
pub mod model;
pub mod reaper;
pub mod scaler;
pub mod security;
pub mod server;
pub mod share;
pub mod store;
pub mod top;
pub mod traces;
pub mod txn;
