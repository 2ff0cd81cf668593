//! A data key: seals the batches of one stream with AES-256-GCM.
//!
//! A sealed batch as stored under [`crate::store::keys::Key::Batch`]:
//!
//! | field | width | |
//! |---|---|---|
//! | [`BatchHeader`] | 16 | clear; says which data key |
//! | batch header | 61 | clear, its CRC zero |
//! | records | n | sealed |
//! | CRC | u32 | sealed |
//! | tag | 16 | |
//! | salt | 16 | of the run that sealed it |
//! | counter | u64 | of batches sealed in that run |
//!
//! What is clear, the CRC's place included, is authenticated, and so is the batch's place: stream, partition and base
//! offset, not the epoch, so that a batch can move to another epoch as it is.
//!
//! **Why the batch header is clear.** It tells offsets, times, counts and producers but nothing of the records, and
//! recovery needs it: without the key too the log's end and the producers' sequences are exact, so an absent master key
//! costs nothing but the reading of what it sealed. The CRC is of the open records, and would confirm a guess of them:
//! it is sealed.
//!
//! **Nonces.** GCM breaks when a nonce comes twice under one key. Offsets may (a batch lost with a power cut leaves its
//! offset to the next), and random 96 bits are good for 2^32 batches only (NIST SP 800-38D), days for a busy stream. So
//! each run of the process seals under a key of its own, derived from the data key and a random salt by HMAC-SHA-256,
//! and counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm::aead::generic_array::GenericArray;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use parking_lot::RwLock;
use sha2::Sha256;

use crate::model::batch::{HEADER_LEN, at};
use crate::model::ids::{Offset, PartitionId};
use crate::store::StoreError;
use crate::store::keys::BatchHeader;

/// Bytes that a sealed batch has more than the open one.
pub const OVERHEAD: usize = CRC_LEN + TRAILER_LEN;

const CRC_LEN: usize = 4;
const TAG_LEN: usize = 16;
const SALT_LEN: usize = 16;
const COUNTER_LEN: usize = 8;
const TRAILER_LEN: usize = TAG_LEN + SALT_LEN + COUNTER_LEN;
/// Where the records begin.
const CLEAR_LEN: usize = BatchHeader::LEN + HEADER_LEN;
const CRC_AT: usize = BatchHeader::LEN + at::CRC;

/// Ciphers of earlier runs that are kept for reading; beyond that they are derived anew, which takes a microsecond.
const RUNS_MAX: usize = 64;

type Salt = [u8; SALT_LEN];

pub struct DataKey {
    number: u32,
    secret: [u8; 32],
    salt: Salt,
    cipher: Aes256Gcm,
    sealed: AtomicU64,
    earlier: RwLock<HashMap<Salt, Arc<Aes256Gcm>>>,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: PartitionId,
    pub base_offset: Offset,
}

impl DataKey {
    /// `salt` was never used before.
    pub(super) fn new(number: u32, secret: [u8; 32], salt: Salt) -> DataKey {
        let cipher = cipher(&secret, &salt);
        DataKey { number, secret, salt, cipher, sealed: AtomicU64::new(0), earlier: RwLock::default() }
    }

    /// What [`BatchHeader::sealed_by`] says of batches that this key seals.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// `open` is a value with its [`BatchHeader`], which names this key already.
    pub fn seal(&self, place: Place, open: &[u8]) -> Result<Bytes, StoreError> {
        let refuse = || StoreError::NotDone(format!("the batch at {place} cannot be sealed"));
        let (clear, records) = open.split_at_checked(CLEAR_LEN).ok_or_else(refuse)?;
        let mut sealed = BytesMut::with_capacity(open.len() + OVERHEAD);
        sealed.put_slice(clear);
        sealed.put_slice(records);
        sealed.put_slice(&clear[CRC_AT..CRC_AT + CRC_LEN]);
        let (clear, text) = sealed.split_at_mut(CLEAR_LEN);
        clear[CRC_AT..CRC_AT + CRC_LEN].fill(0);
        let counter = self.sealed.fetch_add(1, Ordering::Relaxed);
        let tag = self.cipher.encrypt_in_place_detached(&nonce(counter), &bound_to(place, clear), text);
        sealed.put_slice(&tag.map_err(|_| refuse())?);
        sealed.put_slice(&self.salt);
        sealed.put_u64(counter);
        Ok(sealed.freeze())
    }

    /// The value as it was before [`DataKey::seal`]. [`StoreError::Corrupt`] when a bit of it changed or it stood
    /// elsewhere. Opens in place if nobody else holds `sealed`.
    pub fn open(&self, place: Place, sealed: Bytes) -> Result<Bytes, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("the sealed batch at {place} does not open"));
        let text_end = sealed.len().checked_sub(TRAILER_LEN).filter(|end| *end >= CLEAR_LEN + CRC_LEN);
        let text_end = text_end.ok_or_else(corrupt)?;
        let mut value = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let trailer = value.split_off(text_end);
        let (tag, rest) = trailer.split_first_chunk::<TAG_LEN>().ok_or_else(corrupt)?;
        let (salt, rest) = rest.split_first_chunk::<SALT_LEN>().ok_or_else(corrupt)?;
        let counter = rest.first_chunk().map(|counter| u64::from_be_bytes(*counter)).ok_or_else(corrupt)?;
        let (clear, text) = value.split_at_mut(CLEAR_LEN);
        let bound = bound_to(place, clear);
        self.with_cipher(salt, |cipher| {
            cipher.decrypt_in_place_detached(&nonce(counter), &bound, text, Tag::from_slice(tag))
        })
        .map_err(|_| corrupt())?;
        let (_, crc) = text.split_last_chunk::<CRC_LEN>().ok_or_else(corrupt)?;
        clear[CRC_AT..CRC_AT + CRC_LEN].copy_from_slice(crc);
        value.truncate(text_end - CRC_LEN);
        Ok(value.freeze())
    }

    fn with_cipher<T>(&self, salt: &Salt, work: impl FnOnce(&Aes256Gcm) -> T) -> T {
        if *salt == self.salt {
            return work(&self.cipher);
        }
        let known = self.earlier.read().get(salt).cloned();
        let cipher = known.unwrap_or_else(|| {
            let derived = Arc::new(cipher(&self.secret, salt));
            let mut earlier = self.earlier.write();
            if earlier.len() < RUNS_MAX {
                earlier.insert(*salt, derived.clone());
            }
            derived
        });
        work(&cipher)
    }
}

/// The cipher of one run.
fn cipher(secret: &[u8; 32], salt: &Salt) -> Aes256Gcm {
    let mut mac = <Hmac<Sha256> as Mac>::new(GenericArray::from_slice(&padded(secret)));
    mac.update(b"record batches");
    mac.update(salt);
    Aes256Gcm::new(&mac.finalize().into_bytes())
}

/// The secret as HMAC's block; a shorter key is filled with zeros by definition (RFC 2104).
fn padded(secret: &[u8; 32]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..secret.len()].copy_from_slice(secret);
    block
}

fn nonce(counter: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// What is authenticated beside the text: the place and everything clear. `clear` has [`CLEAR_LEN`] bytes.
fn bound_to(place: Place, clear: &[u8]) -> [u8; 16 + CLEAR_LEN] {
    let mut bound = [0; 16 + CLEAR_LEN];
    bound[..4].copy_from_slice(&place.partition.stream.0.to_be_bytes());
    bound[4..8].copy_from_slice(&place.partition.index.0.to_be_bytes());
    bound[8..16].copy_from_slice(&place.base_offset.to_be_bytes());
    bound[16..].copy_from_slice(clear);
    bound
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PartitionId { stream, index } = self.partition;
        write!(f, "offset {} of partition {} of stream {}", self.base_offset, index.0, stream.0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::batch::{Compressor, Options, Record, assemble, build};
    use crate::model::ids::{PartitionIndex, StreamId};

    /// A value whose header says that `number` seals it.
    pub fn open_value(number: u32) -> Bytes {
        let record =
            Record { offset: 0, timestamp: 9, key: None, value: Some("the marker".into()), headers: Vec::new() };
        let batch = build(&[record], &Options { compressor: Compressor::None, producer: None }).unwrap();
        let mut prefix = Vec::new();
        BatchHeader { append_time_ms: 77, sealed_by: Some(number), addressed: None }.put(&mut prefix);
        assemble(&prefix, &batch, 5, 0, None)
    }

    fn place(stream: u32, index: u32, base_offset: Offset) -> Place {
        Place { partition: PartitionId { stream: StreamId(stream), index: PartitionIndex(index) }, base_offset }
    }

    #[test]
    fn a_sealed_batch_opens_to_what_it_was_and_shows_nothing() {
        let key = DataKey::new(3, [9; 32], [1; 16]);
        let open = open_value(3);
        let sealed = key.seal(place(1, 2, 5), &open).unwrap();
        assert_eq!(sealed.len(), open.len() + OVERHEAD);
        assert!(!sealed.windows(6).any(|bytes| bytes == b"marker"));
        let crc = &open[CRC_AT..CRC_AT + 4];
        assert!(!sealed.windows(4).any(|bytes| bytes == crc), "the CRC would confirm a guess");
        assert_eq!(BatchHeader::parse(&sealed).unwrap().sealed_by, Some(3));
        // Held by someone else, then by nobody.
        assert_eq!(key.open(place(1, 2, 5), sealed.clone()).unwrap(), open);
        assert_eq!(key.open(place(1, 2, 5), sealed).unwrap(), open);
    }

    #[test]
    fn any_bit_that_changed_any_byte_that_is_missing_and_any_other_place_is_noticed() {
        let key = DataKey::new(3, [9; 32], [1; 16]);
        let sealed = key.seal(place(1, 2, 5), &open_value(3)).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(key.open(place(1, 2, 5), changed.into()).is_err(), "byte {at}");
            assert!(key.open(place(1, 2, 5), sealed.slice(..at)).is_err(), "cut at {at}");
        }
        for elsewhere in [place(0, 2, 5), place(1, 0, 5), place(1, 2, 6)] {
            assert!(key.open(elsewhere, sealed.clone()).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn runs_and_batches_never_share_a_nonce() {
        let (first, second) = (DataKey::new(1, [9; 32], [1; 16]), DataKey::new(1, [9; 32], [2; 16]));
        let seal = |key: &DataKey| key.seal(place(1, 0, 5), &open_value(1)).unwrap();
        let sealed = [seal(&first), seal(&first), seal(&second)];
        for (index, one) in sealed.iter().enumerate() {
            // Equal bytes under equal nonces would be equal again.
            assert!(sealed[..index].iter().all(|other| other[CLEAR_LEN..] != one[CLEAR_LEN..]));
            for key in [&first, &second] {
                assert_eq!(key.open(place(1, 0, 5), one.clone()).unwrap(), open_value(1));
            }
        }
    }

    #[test]
    fn what_is_no_batch_is_not_sealed() {
        assert!(DataKey::new(1, [9; 32], [1; 16]).seal(place(1, 0, 0), b"short").is_err());
    }
}
