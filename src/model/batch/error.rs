//! What can be wrong with a batch, and the few kinds a protocol tells apart.

use std::fmt;

use super::codec::Codec;

/// How many records' errors one answer lists; a hostile batch has millions of records.
pub const RECORD_ERRORS_MAX: usize = 100;

/// Why a batch is refused. [`BatchError::kind`] is what a door maps to its own codes; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("there is no record batch")]
    NoBatch,
    #[error("the record batch is cut: {have} of {need} bytes")]
    Cut { have: usize, need: usize },
    #[error("a batch length of {0} is impossible")]
    Length(i32),
    #[error("magic {0} is unknown")]
    UnknownMagic(i8),
    #[error("message format v{0} is not accepted, only record batches v2 (magic 2)")]
    OldMagic(i8),
    #[error("{0} bytes follow the record batch; exactly one batch per partition is accepted")]
    BytesAfterBatch(usize),
    #[error("the CRC-32C is {computed:#010x}, the batch says {stored:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("the record batch has {size} bytes, more than the {max} this topic takes")]
    TooLarge { size: usize, max: usize },
    #[error("the base offset of a client's batch must be 0, not {0}")]
    BaseOffset(i64),
    #[error("a count of {records_count} records does not fit a last offset delta of {last_offset_delta}")]
    Count { records_count: i32, last_offset_delta: i32 },
    #[error("clients may not write control records")]
    Control,
    #[error("the record batch is not part of an ongoing transaction")]
    Transactional,
    #[error("a transactional batch needs a producer id")]
    TransactionalWithoutProducer,
    #[error("sequence {base_sequence} of producer {producer_id} is invalid")]
    Sequence { producer_id: i64, base_sequence: i32 },
    #[error("compression codec {0} is unknown")]
    UnknownCodec(u8),
    #[error("zstd needs Produce version 7 or later")]
    ZstdNotAllowed,
    #[error("record {index} is malformed: {fault}")]
    Record { index: i32, fault: RecordFault },
    #[error("recompressing as {codec} failed: {reason}")]
    Compress { codec: Codec, reason: String },
    #[error("{0}")]
    Records(RecordErrors),
}

/// What a client can do about a [`BatchError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes are not those the client made: sending them again may help (Kafka's CORRUPT_MESSAGE).
    Corrupt,
    /// The client made something that is not accepted (INVALID_RECORD).
    InvalidRecord,
    /// Records outside of the topic's bounds, or a timestamp type that is the broker's to set (INVALID_TIMESTAMP).
    InvalidTimestamp,
    /// Over `max.message.bytes` (MESSAGE_TOO_LARGE).
    TooLarge,
    /// UNSUPPORTED_COMPRESSION_TYPE.
    UnsupportedCompression,
    /// INVALID_TXN_STATE.
    InvalidTransactionState,
    /// The broker could not do what the topic asks for (UNKNOWN_SERVER_ERROR).
    Internal,
}

impl BatchError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            BatchError::Length(_) | BatchError::UnknownMagic(_) | BatchError::Crc { .. } => ErrorKind::Corrupt,
            BatchError::NoBatch
            | BatchError::Cut { .. }
            | BatchError::OldMagic(_)
            | BatchError::BytesAfterBatch(_)
            | BatchError::BaseOffset(_)
            | BatchError::Count { .. }
            | BatchError::Control
            | BatchError::TransactionalWithoutProducer
            | BatchError::Sequence { .. }
            | BatchError::Record { .. } => ErrorKind::InvalidRecord,
            BatchError::Records(errors) if errors.any_timestamp => ErrorKind::InvalidTimestamp,
            BatchError::Records(_) => ErrorKind::InvalidRecord,
            BatchError::TooLarge { .. } => ErrorKind::TooLarge,
            BatchError::UnknownCodec(_) | BatchError::ZstdNotAllowed => ErrorKind::UnsupportedCompression,
            BatchError::Transactional => ErrorKind::InvalidTransactionState,
            BatchError::Compress { .. } => ErrorKind::Internal,
        }
    }

    /// The records at fault, where the fault lies with single records that could be read.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            BatchError::Records(errors) => &errors.errors,
            _ => &[],
        }
    }
}

/// Why the walk through the records of a batch ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("the batch ends inside it")]
    Cut,
    #[error("a varint is too long")]
    Varint,
    #[error("a length or count of {0} is impossible")]
    Length(i32),
    #[error("a field reaches beyond the record")]
    BeyondRecord,
    #[error("its length claims {0} bytes more than its fields have")]
    UnusedBytes(u64),
    #[error("its offset delta is {0}")]
    OffsetDelta(i32),
    #[error("its timestamp overflows")]
    Timestamp,
    #[error("bytes follow it, though it is the last one counted")]
    BytesAfterLast,
    #[error("the {codec} stream does not decompress: {reason}")]
    Decompress { codec: Codec, reason: String },
    #[error("the batch inflates to more than {0} bytes")]
    InflatesTooMuch(u64),
}

/// Single records at fault: at most [`RECORD_ERRORS_MAX`] of them are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordErrors {
    pub errors: Vec<RecordError>,
    /// How many more there are.
    pub omitted: usize,
    /// Whether a timestamp is among them: Kafka then answers INVALID_TIMESTAMP for the whole batch.
    pub any_timestamp: bool,
}

/// One record at fault, by its place in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    pub batch_index: i32,
    pub message: String,
}

impl RecordErrors {
    pub(super) fn push(&mut self, batch_index: i32, timestamp: bool, message: impl FnOnce() -> String) {
        self.any_timestamp |= timestamp;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError { batch_index, message: message() });
        } else {
            self.omitted += 1;
        }
    }
}

impl fmt::Display for RecordErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len() + self.omitted;
        write!(f, "{count} record(s) refused")?;
        match self.errors.first() {
            Some(first) => write!(f, ", the first is record {}: {}", first.batch_index, first.message),
            None => Ok(()),
        }
    }
}
