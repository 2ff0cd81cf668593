//! Where the last record of each key stands, in bounded memory: a key is known by 16 bytes of its SHA-256, so that no two
//! keys are ever taken for one, not even keys that were made for it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use sha2::{Digest, Sha256};

use crate::model::ids::Offset;

/// What an entry takes: digest and offset, and a byte of the table's own.
const ENTRY_BYTES: usize = 25;

type Key = [u8; 16];

/// How many keys fit into so many bytes. The table has a power of two of places, of which an eighth stays free.
pub fn keys_max(bytes_max: usize) -> usize {
    let places = (bytes_max / ENTRY_BYTES).max(2);
    let power = 1 << places.ilog2();
    power - power / 8
}

/// Filled once, in the order of the log, then asked.
pub struct Latest {
    by_key: HashMap<Key, Offset, BuildHasherDefault<Digested>>,
    keys_max: usize,
}

impl Latest {
    /// For the keys of at most `records` records.
    pub fn new(keys_max: usize, records: u64) -> Latest {
        let capacity = usize::try_from(records).unwrap_or(keys_max).min(keys_max);
        Latest { by_key: HashMap::with_capacity_and_hasher(capacity, BuildHasherDefault::default()), keys_max }
    }

    /// Notes a record; false where its key is one too many, and nothing was noted.
    pub fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let digest = digest(key);
        if self.by_key.len() >= self.keys_max && !self.by_key.contains_key(&digest) {
            return false;
        }
        self.by_key.insert(digest, offset);
        true
    }

    /// Whether a later record has the key.
    pub fn supersedes(&self, key: &[u8], offset: Offset) -> bool {
        !self.by_key.is_empty() && self.by_key.get(&digest(key)).is_some_and(|latest| *latest > offset)
    }
}

fn digest(key: &[u8]) -> Key {
    let digest = Sha256::digest(key);
    let mut short = Key::default();
    short.iter_mut().zip(digest).for_each(|(byte, of)| *byte = of);
    short
}

/// Digests are spread as they are.
#[derive(Default)]
struct Digested(u64);

impl Hasher for Digested {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length of an array that is hashed comes before it and tells nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_superseded_by_a_later_one_of_its_key_only() {
        let mut latest = Latest::new(10, 10);
        assert!(!latest.supersedes(b"a", 0));
        for (key, offset) in [(b"a", 1), (b"b", 2), (b"a", 5)] {
            assert!(latest.note(key, offset));
        }
        assert!(latest.supersedes(b"a", 1) && latest.supersedes(b"a", 4));
        assert!(!latest.supersedes(b"a", 5) && !latest.supersedes(b"a", 6));
        assert!(!latest.supersedes(b"b", 2) && !latest.supersedes(b"c", 0));
    }

    #[test]
    fn beyond_the_bound_only_known_keys_are_noted() {
        let mut latest = Latest::new(2, 1_000);
        assert!(latest.note(b"a", 1) && latest.note(b"b", 2));
        assert!(!latest.note(b"c", 3));
        assert!(latest.note(b"a", 4));
        assert!(latest.supersedes(b"a", 1) && !latest.supersedes(b"c", 0));
    }

    #[test]
    fn the_table_stays_within_its_bytes() {
        assert_eq!(keys_max(0), 2);
        for bytes_max in [64 << 10, 1 << 20, 64 << 20, 100_000_000] {
            let keys = keys_max(bytes_max);
            let table = HashMap::<Key, Offset, BuildHasherDefault<Digested>>::with_capacity_and_hasher(
                keys,
                BuildHasherDefault::default(),
            );
            // As the table is laid out: places for 8 keys in 7 of 8.
            assert!(table.capacity() / 7 * 8 * ENTRY_BYTES <= bytes_max, "{bytes_max}: {}", table.capacity());
            assert!(keys * ENTRY_BYTES * 3 > bytes_max, "{bytes_max}: {keys}");
        }
    }
}
