//! The stored form of a share partition: the value of `Key::SharePartition`. It is written whole at every change, for its
//! size is bounded by the group's limit of locks; most of the time it is a few runs.
//!
//! | field | width | |
//! |---|---|---|
//! | version | u8 | 1 |
//! | start | u64 | first offset that is not done |
//! | runs | 10 bytes each | up to the end of the value, covering the offsets from the start on |
//!
//! A run:
//!
//! | field | width | |
//! |---|---|---|
//! | length | u64 | offsets, at least one |
//! | deliveries | u16 | how often they were delivered; 65,535: they are done |
//!
//! Locks are not stored. What a member holds is stored as it was before the delivery, as in Kafka: after a restart it is
//! available, and its last delivery is not counted.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Run, SharePartition, State};

const VERSION: u8 = 1;
const DONE: u16 = u16::MAX;
const HEADER_LEN: usize = 9;
const RUN_LEN: usize = 10;

impl SharePartition {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + RUN_LEN * self.runs.len());
        out.put_u8(VERSION);
        out.put_i64(self.start);
        for (first, run) in &self.runs {
            out.put_i64(run.end - first);
            out.put_u16(match &run.state {
                State::Available(deliveries) => *deliveries,
                State::Acquired(lock) => lock.deliveries.saturating_sub(1),
                State::Done => DONE,
            });
        }
        out.freeze()
    }

    /// `None` for what [`SharePartition::encode`] never wrote.
    pub fn decode(mut value: &[u8]) -> Option<SharePartition> {
        if value.len() < HEADER_LEN || value.get_u8() != VERSION {
            return None;
        }
        let start = value.get_i64();
        let (mut end, mut runs) = (start, BTreeMap::new());
        let (stored, rest) = value.as_chunks::<RUN_LEN>();
        for mut run in stored.iter().map(|run| &run[..]) {
            let (length, deliveries) = (run.get_i64(), run.get_u16());
            let first = end;
            end = first.checked_add(length).filter(|end| *end > first)?;
            let state = if deliveries == DONE { State::Done } else { State::Available(deliveries) };
            runs.insert(first, Run { end, state });
        }
        let mut partition = SharePartition { start, end, runs };
        // Neighbours that differed by their locks alone are the same now.
        partition.join(start..end);
        partition.advance();
        (start >= 0 && rest.is_empty()).then_some(partition)
    }
}
