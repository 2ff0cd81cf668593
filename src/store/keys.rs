//! Every key and value layout. Integers are big-endian, so that byte order is numeric order. On disk large values of the
//! log stand apart, and RocksDB holds where: [`super::rocks`] sees to that, and nobody else knows.
//!
//! | family | key | value |
//! |---|---|---|
//! | Log | `epoch u32, stream u32, partition u32, base_offset u64` | [`BatchHeader`], then a Kafka RecordBatch v2 verbatim (offset and leader epoch patched); sealed: [`super::crypt::data`] |
//! | Meta | `'c'` | the cluster: JSON, `broker::catalog` |
//! | Meta | `'e'` | the log's current epoch: `u32` |
//! | Meta | `'s', stream u32` | a stream with its shards and settings: JSON, `broker::catalog` |
//! | Meta | `'g', stream u32, partition u32, first_offset u64` | a segment: `log::segment` |
//! | Meta | `'l', stream u32, partition u32` | log start offset: `u64` |
//! | Meta | `'p', stream u32, partition u32` | producers of a partition: `log::dormant` |
//! | Meta | `'o', stream u32, partition u32, producer_id i64` | a transaction that is open in a partition's log: `log::transactions` |
//! | Meta | `'A', stream u32, partition u32, last_offset u64` | one that was aborted: `log::transactions` |
//! | Meta | `'C', stream u32, partition u32` | how far a partition is compacted: `broker::compaction` |
//! | Meta | `'k', stream u32, number u32` | a data key of a stream, wrapped: [`super::crypt::master`] |
//! | Meta | `'T', stream u32` | the highest loads of an on-demand stream: JSON, `broker::traffic` |
//! | Meta | `'i'` | the next producer id that was never handed out: `u64` |
//! | Meta | `'b'` | the broker's altered settings: JSON, `broker::catalog` |
//! | Meta | `'x'` | the cluster's secret: 32 bytes, `broker::secret` |
//! | Meta | `'a'` | what the account has set: JSON, `kinesis::account` |
//! | Meta | `'Q', entity as JSON` | a client's quotas: JSON, `kafka::quotas` |
//! | Meta | `'G', group` | a consumer group: JSON, `group` |
//! | Meta | `'m', group, 0, member` | a member of a consumer group: JSON, `group` |
//! | Meta | `'n', group` | the settings of a group: JSON, `group` |
//! | Meta | `'O', group, 0, topic, 0, partition u32` | a committed offset: JSON, `group` |
//! | Meta | `'q', group, 0, topic, 0, partition u32, producer id u64` | an offset that an open transaction commits: JSON, `group` |
//! | Meta | `'t', transactional id` | a transactional id with its transaction: JSON, `txn` |
//! | Meta | `'H', group` | a share group: JSON, `share::stored` |
//! | Meta | `'h', group, 0, stream u32, partition u32` | what a share group has processed of a partition: `share::partition::stored` |
//! | Meta | `'M', metric u32` | a metric that was put: JSON, `cloudwatch::keeper` |
//! | Meta | `'P', metric u32, resolution u8, second u32, unit u8` | what was put of it for a second or minute: `cloudwatch::point` |
//!
//! Group ids hold no NUL (refused at the door as INVALID_GROUP_ID); topic names cannot.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::model::ids::{Offset, PartitionId, PartitionIndex, StreamId};

#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// The one key of [`super::Family::Log`].
    Batch {
        epoch: u32,
        partition: PartitionId,
        base_offset: Offset,
    },
    Cluster,
    Epoch,
    Stream(StreamId),
    Traffic(StreamId),
    Segment {
        partition: PartitionId,
        first_offset: Offset,
    },
    LogStart(PartitionId),
    Producers(PartitionId),
    OpenTransaction {
        partition: PartitionId,
        producer_id: i64,
    },
    AbortedTransaction {
        partition: PartitionId,
        /// Of the batch that ends it.
        last_offset: Offset,
    },
    Compacted(PartitionId),
    DataKey {
        stream: StreamId,
        number: u32,
    },
    NextProducerId,
    BrokerSettings,
    Secret,
    Account,
    /// The entity as JSON.
    ClientQuota(&'a str),
    Group(&'a str),
    GroupMember {
        group: &'a str,
        member: &'a str,
    },
    GroupSettings(&'a str),
    CommittedOffset {
        group: &'a str,
        topic: &'a str,
        partition: u32,
    },
    PendingOffset {
        group: &'a str,
        topic: &'a str,
        partition: u32,
        producer_id: i64,
    },
    Transaction(&'a str),
    ShareGroup(&'a str),
    SharePartition {
        group: &'a str,
        partition: PartitionId,
    },
    Metric(u32),
    MetricPoint {
        metric: u32,
        /// 0: minutes, 1: seconds.
        resolution: u8,
        /// Where it begins, since 1970.
        second: u32,
        unit: u8,
    },
}

impl Key<'_> {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        match *self {
            Key::Batch { epoch, partition, base_offset } => {
                out.put_u32(epoch);
                put_partition(&mut out, partition);
                out.put_u64(base_offset as u64);
            }
            Key::Cluster => out.put_u8(b'c'),
            Key::Epoch => out.put_u8(b'e'),
            Key::Stream(stream) => {
                out.put_u8(b's');
                out.put_u32(stream.0);
            }
            Key::Traffic(stream) => {
                out.put_u8(b'T');
                out.put_u32(stream.0);
            }
            Key::Segment { partition, first_offset } => {
                out.put_u8(b'g');
                put_partition(&mut out, partition);
                out.put_u64(first_offset as u64);
            }
            Key::LogStart(partition) => {
                out.put_u8(b'l');
                put_partition(&mut out, partition);
            }
            Key::Producers(partition) => {
                out.put_u8(b'p');
                put_partition(&mut out, partition);
            }
            Key::OpenTransaction { partition, producer_id } => {
                out.put_u8(b'o');
                put_partition(&mut out, partition);
                out.put_i64(producer_id);
            }
            Key::AbortedTransaction { partition, last_offset } => {
                out.put_u8(b'A');
                put_partition(&mut out, partition);
                out.put_u64(last_offset as u64);
            }
            Key::Compacted(partition) => {
                out.put_u8(b'C');
                put_partition(&mut out, partition);
            }
            Key::DataKey { stream, number } => {
                out.put_u8(b'k');
                out.put_u32(stream.0);
                out.put_u32(number);
            }
            Key::NextProducerId => out.put_u8(b'i'),
            Key::BrokerSettings => out.put_u8(b'b'),
            Key::Secret => out.put_u8(b'x'),
            Key::Account => out.put_u8(b'a'),
            Key::ClientQuota(entity) => {
                out.put_u8(b'Q');
                out.put_slice(entity.as_bytes());
            }
            Key::Group(group) => {
                out.put_u8(b'G');
                out.put_slice(group.as_bytes());
            }
            Key::GroupMember { group, member } => {
                out.put_u8(b'm');
                out.put_slice(group.as_bytes());
                out.put_u8(0);
                out.put_slice(member.as_bytes());
            }
            Key::GroupSettings(group) => {
                out.put_u8(b'n');
                out.put_slice(group.as_bytes());
            }
            Key::CommittedOffset { group, topic, partition } => {
                out.put_u8(b'O');
                out.put_slice(group.as_bytes());
                out.put_u8(0);
                out.put_slice(topic.as_bytes());
                out.put_u8(0);
                out.put_u32(partition);
            }
            Key::PendingOffset { group, topic, partition, producer_id } => {
                out.put_u8(b'q');
                out.put_slice(group.as_bytes());
                out.put_u8(0);
                out.put_slice(topic.as_bytes());
                out.put_u8(0);
                out.put_u32(partition);
                out.put_u64(producer_id as u64);
            }
            Key::Transaction(transactional_id) => {
                out.put_u8(b't');
                out.put_slice(transactional_id.as_bytes());
            }
            Key::ShareGroup(group) => {
                out.put_u8(b'H');
                out.put_slice(group.as_bytes());
            }
            Key::SharePartition { group, partition } => {
                out.put_u8(b'h');
                out.put_slice(group.as_bytes());
                out.put_u8(0);
                put_partition(&mut out, partition);
            }
            Key::Metric(metric) => {
                out.put_u8(b'M');
                out.put_u32(metric);
            }
            Key::MetricPoint { metric, resolution, second, unit } => {
                out.put_u8(b'P');
                out.put_u32(metric);
                out.put_u8(resolution);
                out.put_u32(second);
                out.put_u8(unit);
            }
        }
        out.freeze()
    }
}

fn put_partition(out: &mut BytesMut, partition: PartitionId) {
    out.put_u32(partition.stream.0);
    out.put_u32(partition.index.0);
}

/// What precedes every stored record batch.
///
/// | field | width | |
/// |---|---|---|
/// | flags | u32 | low 8 bits: 1 the batch is sealed, 2 it was addressed to another partition; high 24 bits: which one |
/// | key_id | u32 | number of the stream's data key that sealed it; 0 when none did |
/// | append_time_ms | i64 | the broker's clock at the append, never going back within a partition |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub append_time_ms: i64,
    /// The data key that sealed the batch. In memory, where batches are open, it tells that the store's copy is sealed.
    pub sealed_by: Option<u32>,
    /// The dormant partition that the batch was addressed to, if not to the one that holds it. Below 2^24, as there are
    /// never more partitions than shards open at once.
    pub addressed: Option<PartitionIndex>,
}

const SEALED: u32 = 1;
const ADDRESSED: u32 = 2;
const FLAGS_BITS: u32 = 8;

impl BatchHeader {
    pub const LEN: usize = 16;

    pub fn put(&self, out: &mut impl BufMut) {
        let sealed = if self.sealed_by.is_some() { SEALED } else { 0 };
        let addressed = self.addressed.map_or(0, |index| ADDRESSED | index.0 << FLAGS_BITS);
        out.put_u32(sealed | addressed);
        out.put_u32(self.sealed_by.unwrap_or(0));
        out.put_i64(self.append_time_ms);
    }

    pub fn parse(value: &[u8]) -> Option<BatchHeader> {
        let mut fields = value.get(..BatchHeader::LEN)?;
        let (flags, key_id) = (fields.get_u32(), fields.get_u32());
        Some(BatchHeader {
            append_time_ms: fields.get_i64(),
            sealed_by: (flags & SEALED != 0).then_some(key_id),
            addressed: (flags & ADDRESSED != 0).then_some(PartitionIndex(flags >> FLAGS_BITS)),
        })
    }
}

/// A parsed key of [`super::Family::Log`]: `(epoch, partition, base_offset)`.
pub fn parse_batch_key(key: &[u8]) -> Option<(u32, PartitionId, Offset)> {
    let key: &[u8; 20] = key.try_into().ok()?;
    let u32_at = |at: usize| u32::from_be_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let partition = PartitionId { stream: StreamId(u32_at(4)), index: PartitionIndex(u32_at(8)) };
    Some((u32_at(0), partition, (u64::from(u32_at(12)) << 32 | u64::from(u32_at(16))) as Offset))
}

/// A parsed key of a metric's point: `(second, unit)`.
pub fn parse_point_key(key: &[u8]) -> Option<(u32, u8)> {
    let key: &[u8; 11] = key.try_into().ok()?;
    Some((u32::from_be_bytes([key[6], key[7], key[8], key[9]]), key[10]))
}

/// The partition of a key of [`super::Family::Meta`] that is about one: `letter, stream u32, partition u32, ...`.
pub fn parse_partition(key: &[u8]) -> Option<PartitionId> {
    let number = |at: usize| Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?));
    Some(PartitionId { stream: StreamId(number(1)?), index: PartitionIndex(number(5)?) })
}

/// The bounds `from..to` of all keys that begin with `prefix`.
pub fn prefix_range(prefix: &[u8]) -> (Bytes, Bytes) {
    let mut to = prefix.to_vec();
    while let Some(last) = to.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            break;
        }
        to.pop();
    }
    (Bytes::copy_from_slice(prefix), Bytes::from(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_keys_sort_by_epoch_then_partition_then_offset() {
        let at = |epoch, stream, index, base_offset| {
            let partition = PartitionId { stream: StreamId(stream), index: PartitionIndex(index) };
            Key::Batch { epoch, partition, base_offset }.encode()
        };
        let ordered =
            [at(0, 9, 9, 9), at(1, 0, 0, 0), at(1, 0, 0, 256), at(1, 0, 1, 0), at(1, 256, 0, 0), at(256, 0, 0, 0)];
        assert!(ordered.is_sorted());
        let (epoch, partition, offset) = parse_batch_key(&at(1, 2, 3, i64::MAX)).unwrap();
        assert_eq!((epoch, partition.stream.0, partition.index.0, offset), (1, 2, 3, i64::MAX));
    }

    #[test]
    fn a_batch_tells_whether_it_is_sealed_and_whom_it_was_addressed_to() {
        for (sealed_by, addressed) in [(None, None), (Some(7), None), (None, Some(0)), (Some(0), Some((1 << 24) - 1))] {
            let header = BatchHeader { append_time_ms: -5, sealed_by, addressed: addressed.map(PartitionIndex) };
            let mut bytes = Vec::new();
            header.put(&mut bytes);
            assert_eq!((bytes.len(), BatchHeader::parse(&bytes)), (BatchHeader::LEN, Some(header)));
        }
    }

    #[test]
    fn a_prefix_range_ends_at_the_next_prefix() {
        assert_eq!(prefix_range(b"a").1, &b"b"[..]);
        assert_eq!(prefix_range(&[1, 255]).1, &[2][..]);
    }
}
