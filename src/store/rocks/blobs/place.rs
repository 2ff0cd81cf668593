//! Which values stand apart, and what RocksDB holds instead of them.

use bytes::BufMut;

use crate::store::{Batch, Family, Op};

/// From here on a value is stored apart. Below, a place and a system call would cost more than writing it twice.
pub(super) const VALUE_BYTES_MIN: usize = 8 << 10;
/// A synced commit of fewer bytes of such values is synced once, as a part of the write-ahead log, not twice.
pub(super) const SYNCED_APART_BYTES_MIN: usize = 256 << 10;
/// Of a key, what names the epoch, and what the offset in a partition.
const NUMBER_BYTES: usize = 4;
const OFFSET_BYTES: usize = 8;

/// What RocksDB holds in the place of a value:
///
/// | field | width | |
/// |---|---|---|
/// | tag | u32 | [`Place::TAG`]; no batch begins with it |
/// | position | u64 | in the file that the key names |
/// | length | u32 | |
/// | CRC-32C | u32 | of the value |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub position: u64,
    pub len: usize,
    pub(super) crc: u32,
}

impl Place {
    const TAG: u32 = 0xFFFF_B10B;
    pub const LEN: usize = 20;

    pub(super) fn encode(self) -> [u8; Place::LEN] {
        let mut out = [0; Place::LEN];
        let mut fields = &mut out[..];
        fields.put_u32(Place::TAG);
        fields.put_u64(self.position);
        fields.put_u32(self.len as u32);
        fields.put_u32(self.crc);
        out
    }

    /// None where `value` is the value itself.
    pub fn parse(key: &[u8], value: &[u8]) -> Option<Place> {
        let place: &[u8; Place::LEN] = value.try_into().ok()?;
        let (tag, rest) = place.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let crc = rest.first_chunk()?;
        let is_place = u32::from_be_bytes(*tag) == Place::TAG && number_of(key).is_some();
        is_place.then(|| Place {
            position: u64::from_be_bytes(*position),
            len: u32::from_be_bytes(*len) as usize,
            crc: u32::from_be_bytes(*crc),
        })
    }

    pub fn end(&self) -> u64 {
        self.position.saturating_add(self.len as u64)
    }
}

/// The file that a key's value belongs to. Keys too short to name one are none of the log's own.
pub(super) fn number_of(key: &[u8]) -> Option<u32> {
    key.first_chunk().map(|number| u32::from_be_bytes(*number))
}

/// What keys of one partition share beside their epoch.
pub(super) fn partition_of(key: &[u8]) -> &[u8] {
    key.get(NUMBER_BYTES..key.len().saturating_sub(OFFSET_BYTES)).unwrap_or_default()
}

/// The size from which on values of `batch` are stored apart.
pub fn apart_from(batch: &Batch, sync: bool) -> usize {
    let large = |op: &Op| match op {
        Op::Put { family: Family::Log, value, .. } if value.len() >= VALUE_BYTES_MIN => value.len(),
        _ => 0,
    };
    let few = || batch.ops.iter().map(large).sum::<usize>() < SYNCED_APART_BYTES_MIN;
    if sync && few() { usize::MAX } else { VALUE_BYTES_MIN }
}

/// Whether a value of the log is stored apart. One that looks like a place must be, to be told from it.
pub fn is_apart(key: &[u8], value: &[u8], apart_from: usize) -> bool {
    let large = value.len() >= apart_from && u32::try_from(value.len()).is_ok();
    (large && number_of(key).is_some()) || Place::parse(key, value).is_some()
}
