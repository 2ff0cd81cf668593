//! Kafka's RecordBatch v2, the one stored format: read, judged, patched and written here, and nowhere else.
//!
//! The Kafka door takes a batch out of a Produce request ([`single_batch`]), the log judges it ([`validate`]) and lays it
//! into the store's value ([`assemble`]); ListOffsets and whoever needs records inside use [`offset_for_timestamp`],
//! [`offset_of_max_timestamp`] and [`records`]; [`build`] encodes a batch from records, [`Plain`] the ones that the broker
//! writes itself; [`Marker`] the ends of transactions; [`filter`] takes records out of a stored one; [`verify`] doubts one; [`partition_key`]
//! names a record's key where keys are texts.
//!
//! Invariants:
//! - Counts and lengths found inside are claims. Nothing is allocated by a claim, no loop runs longer than the bytes that
//!   are really there, and what a codec inflates is capped by [`DECOMPRESSED_BYTES_MAX`].
//! - Uncompressed batches are judged in one pass without allocation.
//! - No input panics; `tests/fuzz.rs` and the `record_batch` fuzz target hold this.
//!
//! | offset | field | width |
//! |---|---|---|
//! | 0 | base offset | i64 |
//! | 8 | batch length: bytes after this field | i32 |
//! | 12 | partition leader epoch | i32 |
//! | 16 | magic: 2 | i8 |
//! | 17 | CRC-32C of everything from 21 on | u32 |
//! | 21 | attributes: bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon | i16 |
//! | 23 | last offset delta | i32 |
//! | 27 | base timestamp | i64 |
//! | 35 | max timestamp | i64 |
//! | 43 | producer id | i64 |
//! | 51 | producer epoch | i16 |
//! | 53 | base sequence | i32 |
//! | 57 | records count | i32 |
//! | 61 | records, compressed as one stream by the codec | |
//!
//! Each record: varint length, i8 attributes (unused), varlong timestamp delta, varint offset delta, varint key length
//! (-1 is null) and key, the same for the value, varint count of headers, each a varint length and key (never null) and
//! a value like the record's. Everything is big-endian, variable lengths are zigzag.
//!
//! Source: Kafka's protocol guide ("Record Batch"), KIP-98; what a broker refuses follows Kafka 4.

mod assemble;
mod build;
mod codec;
mod control;
mod cursor;
mod error;
mod exchange;
mod filter;
mod header;
mod plain;
mod records;
#[cfg(test)]
mod samples;
mod validate;
mod verify;
mod walk;

pub use assemble::assemble;
pub use build::{Options, Producer, build};
pub use codec::{Codec, Compressor};
pub use control::Marker;
pub use error::{BatchError, ErrorKind, RECORD_ERRORS_MAX, RecordError, RecordErrors, RecordFault};
pub use exchange::{PARTITION_KEY_CHARS_MAX, partition_key};
pub use filter::{Filtered, emptied, filter, with_delete_horizon};
pub use header::{HEADER_LEN, Header, Split, at, single_batch, split};
pub use plain::Plain;
pub use records::{Record, RecordHeader, Records, offset_for_timestamp, offset_of_max_timestamp, records};
pub use validate::{Rules, Validated, validate};
pub use verify::verify;

/// The timestamp that says there is none.
pub const NO_TIMESTAMP: i64 = -1;

/// The producer id of a batch that no idempotent producer wrote.
pub const NO_PRODUCER_ID: i64 = -1;

/// The producer epoch beside [`NO_PRODUCER_ID`].
pub const NO_PRODUCER_EPOCH: i16 = -1;

/// The base sequence beside [`NO_PRODUCER_ID`].
pub const NO_SEQUENCE: i32 = -1;

/// How many bytes one batch may inflate to. Clients bound a batch before they compress it (Java's `batch.size`, librdkafka's
/// `message.max.bytes`), so an honest one stays far below; a bomb costs at most this much inflating, and no memory.
pub const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;
