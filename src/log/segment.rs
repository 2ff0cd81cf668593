//! A segment: a run of one partition's log that lies in one epoch. The list of a partition's segments is its index:
//! kept in memory, one small entry in `Meta` each. Retention drops whole segments, as in Kafka; a segment ends when
//! the epoch steps, at `segment.bytes` or `segment.ms`.
//!
//! Stored under [`crate::store::keys::Key::Segment`], whose key holds the first offset:
//!
//! | field | width | |
//! |---|---|---|
//! | layout | u8 | 1 |
//! | flags | u8 | 1: closed (the summary is final); 2: holds batches of idempotent producers |
//! | epoch | u32 | where its batches are keyed |
//! | end_offset | i64 | exclusive; meaningful when closed |
//! | bytes | u64 | of batches, without headers; meaningful when closed |
//! | max_timestamp | i64 | largest record timestamp; meaningful when closed |
//! | first_append_ms | i64 | |
//! | last_append_ms | i64 | meaningful when closed |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::model::ids::Offset;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first_offset: Offset,
    /// Exclusive.
    pub end_offset: Offset,
    pub epoch: u32,
    pub bytes: u64,
    /// Largest timestamp of a record in it; -1 when no record has one.
    pub max_timestamp: i64,
    pub first_append_ms: i64,
    pub last_append_ms: i64,
    pub has_producers: bool,
    pub closed: bool,
}

const LAYOUT: u8 = 1;
const CLOSED: u8 = 1;
const HAS_PRODUCERS: u8 = 2;
const ENCODED_LEN: usize = 46;

impl Segment {
    pub fn open(first_offset: Offset, epoch: u32, append_ms: i64) -> Segment {
        Segment {
            first_offset,
            end_offset: first_offset,
            epoch,
            bytes: 0,
            max_timestamp: -1,
            first_append_ms: append_ms,
            last_append_ms: append_ms,
            has_producers: false,
            closed: false,
        }
    }

    /// Takes one more batch in.
    pub fn extend(&mut self, end_offset: Offset, bytes: u64, max_timestamp: i64, append_ms: i64, has_producer: bool) {
        self.end_offset = end_offset;
        self.bytes += bytes;
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        self.last_append_ms = self.last_append_ms.max(append_ms);
        self.has_producers |= has_producer;
    }

    /// Whether `now` is this segment at the same place in the store, perhaps longer if it is still open.
    pub fn is_where(&self, now: &Segment) -> bool {
        let place = |segment: &Segment| (segment.epoch, segment.first_offset, segment.closed);
        place(self) == place(now) && (!self.closed || self.end_offset == now.end_offset)
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ENCODED_LEN);
        out.put_u8(LAYOUT);
        out.put_u8((u8::from(self.closed) * CLOSED) | (u8::from(self.has_producers) * HAS_PRODUCERS));
        out.put_u32(self.epoch);
        out.put_i64(self.end_offset);
        out.put_u64(self.bytes);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.first_append_ms);
        out.put_i64(self.last_append_ms);
        out.freeze()
    }

    /// None when `value` is not this layout.
    pub fn decode(first_offset: Offset, mut value: &[u8]) -> Option<Segment> {
        if value.len() != ENCODED_LEN || value.get_u8() != LAYOUT {
            return None;
        }
        let flags = value.get_u8();
        Some(Segment {
            first_offset,
            closed: flags & CLOSED != 0,
            has_producers: flags & HAS_PRODUCERS != 0,
            epoch: value.get_u32(),
            end_offset: value.get_i64(),
            bytes: value.get_u64(),
            max_timestamp: value.get_i64(),
            first_append_ms: value.get_i64(),
            last_append_ms: value.get_i64(),
        })
    }
}

/// The position in `segments` (ascending, without holes except where trimmed or compacted) of the one that holds `offset`, or of
/// the first after it.
pub fn find(segments: &[Segment], offset: Offset) -> usize {
    segments.partition_point(|segment| segment.end_offset <= offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_reads_back_as_it_was_written() {
        let mut segment = Segment::open(7, 3, 1_000);
        segment.extend(19, 4_096, 999, 1_001, true);
        segment.closed = true;
        assert_eq!(Segment::decode(7, &segment.encode()), Some(segment.clone()));
        assert_eq!(Segment::decode(7, &segment.encode()[1..]), None);
    }

    #[test]
    fn the_segment_of_an_offset_is_found_at_its_edges() {
        let run = |first_offset, end_offset| Segment { end_offset, ..Segment::open(first_offset, 0, 0) };
        let segments = [run(5, 10), run(10, 20)];
        let found: Vec<usize> = [0, 5, 9, 10, 19, 20].iter().map(|offset| find(&segments, *offset)).collect();
        assert_eq!(found, [0, 0, 0, 1, 1, 2]);
    }
}
