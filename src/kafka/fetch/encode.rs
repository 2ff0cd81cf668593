//! A fetch's answer as it goes over the wire, without a copy of its records. The codec wants them in one piece inside its
//! message; so it encodes a partition at a time with no records, and theirs are put in where they belong: at the
//! partition's end, before its tagged fields.
//!
//! | versions | a partition ends with |
//! |---|---|
//! | 4 to 11 | length of the records i32, records |
//! | from 12 | length of the records + 1 uvarint, records, number of tagged fields uvarint |

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use super::{Fetched, IDS_FROM};
use crate::kafka::chunks::Chunks;

/// The answer tells its error and its session.
const SESSIONS_FROM: i16 = 7;
/// Lengths are varints, and everything ends with tagged fields.
const FLEXIBLE_FROM: i16 = 12;
/// Shorter pieces are copied: a system call takes a few dozen pieces, and each costs more than a copy of so little.
const SHARED_BYTES_MIN: usize = 4096;
/// How a partition without records ends.
const EMPTY: &[u8] = &[1, NO_TAGGED_FIELDS];
const EMPTY_BEFORE: &[u8] = &[0, 0, 0, 0];
const NO_TAGGED_FIELDS: u8 = 0;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The whole frame. None when the codec refuses what the handler made, which is a bug of the handler.
pub fn frame(fetched: &Fetched, correlation_id: i32, version: i16) -> Option<Chunks> {
    let mut out = Out { version, pieces: Vec::new(), open: BytesMut::with_capacity(256) };
    out.answer(fetched, correlation_id).map_err(|error| tracing::error!(%error, "an answer cannot be encoded")).ok()?;
    Some(out.framed())
}

struct Out {
    version: i16,
    pieces: Vec<Bytes>,
    /// What follows them.
    open: BytesMut,
}

impl Out {
    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE_FROM
    }

    fn answer(&mut self, fetched: &Fetched, correlation_id: i32) -> Outcome {
        let Fetched { response, records } = fetched;
        self.open.put_i32(correlation_id);
        if FetchResponse::header_version(self.version) >= 1 {
            self.open.put_u8(NO_TAGGED_FIELDS);
        }
        self.open.put_i32(response.throttle_time_ms);
        if self.version >= SESSIONS_FROM {
            self.open.put_i16(response.error_code);
            self.open.put_i32(response.session_id);
        }
        self.length(response.responses.len())?;
        let mut records = records.iter();
        for topic in &response.responses {
            self.topic(topic)?;
            for partition in &topic.partitions {
                self.partition(partition, records.next().map_or(&[], Vec::as_slice))?;
            }
            self.end();
        }
        self.end();
        Ok(())
    }

    fn topic(&mut self, topic: &FetchableTopicResponse) -> Outcome {
        if self.version >= IDS_FROM {
            self.open.put_slice(topic.topic_id.as_bytes());
        } else {
            if self.is_flexible() {
                self.length(topic.topic.len())?;
            } else {
                self.open.put_i16(topic.topic.len().try_into()?);
            }
            self.open.put_slice(topic.topic.as_bytes());
        }
        self.length(topic.partitions.len())
    }

    fn partition(&mut self, partition: &PartitionData, records: &[Bytes]) -> Outcome {
        partition.encode(&mut self.open, self.version)?;
        if records.is_empty() {
            return Ok(());
        }
        let empty = if self.is_flexible() { EMPTY } else { EMPTY_BEFORE };
        if !self.open.ends_with(empty) {
            return Err("a partition with records has tagged fields".into());
        }
        self.open.truncate(self.open.len() - empty.len());
        self.length(records.iter().map(Bytes::len).sum())?;
        records.iter().for_each(|piece| self.put(piece));
        self.end();
        Ok(())
    }

    fn put(&mut self, piece: &Bytes) {
        if piece.len() < SHARED_BYTES_MIN {
            return self.open.extend_from_slice(piece);
        }
        self.pieces.push(self.open.split().freeze());
        self.pieces.push(piece.clone());
    }

    /// Of an array or of bytes. 0 would be none at all in a varint.
    fn length(&mut self, of: usize) -> Outcome {
        if !self.is_flexible() {
            self.open.put_i32(of.try_into()?);
            return Ok(());
        }
        let mut left = u32::try_from(of)?.saturating_add(1);
        while left > 0x7F {
            self.open.put_u8(left as u8 | 0x80);
            left >>= 7;
        }
        self.open.put_u8(left as u8);
        Ok(())
    }

    fn end(&mut self) {
        if self.is_flexible() {
            self.open.put_u8(NO_TAGGED_FIELDS);
        }
    }

    fn framed(self) -> Chunks {
        let length: usize = self.pieces.iter().map(Bytes::len).sum::<usize>() + self.open.len();
        let mut frame = Chunks::default();
        frame.push(Bytes::copy_from_slice(&(length as i32).to_be_bytes()));
        self.pieces.into_iter().for_each(|piece| frame.push(piece));
        frame.push(self.open.freeze());
        frame
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::messages::fetch_response::AbortedTransaction;
    use kafka_protocol::messages::{ProducerId, TopicName};
    use kafka_protocol::protocol::{Message, StrBytes};

    use super::*;

    fn partition(index: i32, version: i16) -> PartitionData {
        let aborted = AbortedTransaction::default().with_producer_id(ProducerId(7)).with_first_offset(9);
        let data = PartitionData::default()
            .with_partition_index(index)
            .with_error_code(3)
            .with_high_watermark(1 << 40)
            .with_last_stable_offset(99)
            .with_aborted_transactions(Some(vec![aborted; index as usize]))
            .with_preferred_read_replica((-1).into())
            .with_records(Some(Bytes::new()));
        if version >= 5 { data.with_log_start_offset(5) } else { data }
    }

    /// As the codec would have it with all records in one piece.
    fn encoded(fetched: &Fetched, correlation_id: i32, version: i16) -> BytesMut {
        let (mut response, mut records) = (fetched.response.clone(), fetched.records.iter());
        for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.records = Some(records.next().unwrap().concat().into());
        }
        crate::kafka::encode_frame(&response, correlation_id, version).unwrap()
    }

    #[test]
    fn every_version_is_the_codecs_byte_for_byte() {
        let large = Bytes::from(vec![7; 70_000]);
        let contents: [&[Bytes]; 4] =
            [&[], &[Bytes::from_static(b"one")], &[large.clone(), Bytes::from_static(b"two"), large], &[]];
        for version in FetchResponse::VERSIONS.min..=FetchResponse::VERSIONS.max {
            let topic = |name: &'static str, partitions| {
                let topic = FetchableTopicResponse::default().with_partitions(partitions);
                match version >= IDS_FROM {
                    true => topic.with_topic_id(uuid::Uuid::from_u128(5)),
                    false => topic.with_topic(TopicName(StrBytes::from_static_str(name))),
                }
            };
            let of = |indexes: std::ops::Range<i32>| indexes.map(|index| partition(index, version)).collect();
            let mut response = FetchResponse::default().with_throttle_time_ms(17).with_responses(vec![
                topic("one", of(0..3)),
                topic("none", vec![]),
                topic("two", of(0..1)),
            ]);
            if version >= SESSIONS_FROM {
                response = response.with_error_code(2).with_session_id(-12);
            }
            let fetched = Fetched { response, records: contents.map(<[Bytes]>::to_vec).to_vec() };
            let mut frame = frame(&fetched, 1234, version).unwrap();
            assert_eq!(frame.copy_to_bytes(frame.remaining()), encoded(&fetched, 1234, version), "version {version}");
        }
        let refused = Fetched { response: FetchResponse::default(), records: Vec::new() };
        let mut frame = frame(&refused, 1, 17).unwrap();
        assert_eq!(frame.copy_to_bytes(frame.remaining()), encoded(&refused, 1, 17));
    }
}
