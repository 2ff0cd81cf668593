//! The field's own objects, pure: no I/O, no async, time comes in as an argument.

pub mod attributes;
pub mod batch;
pub mod hash_key;
pub mod ids;
pub mod sequence_number;
pub mod settings;
pub mod shard;
