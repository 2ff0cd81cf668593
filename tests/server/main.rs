//! Whole servers, over sockets: one binary, since each would link RocksDB anew.

mod audit;
mod bad_input;
mod compaction;
mod connections;
mod encryption;
mod fetch;
mod groups;
mod harness;
mod killed;
mod kinesis;
mod kinesis_input;
mod kinesis_killed;
mod memory;
mod metrics;
mod offsets;
mod process;
mod produce;
#[path = "../common/random.rs"]
mod random;
mod reshard;
mod retention;
mod samples;
mod share;
mod subscribe;
mod table;
mod throttling;
mod tools;
mod traces;
