//! Encryption at rest: record batches are sealed by a data key, data keys are wrapped by a master key, master keys come
//! from the settings and are never stored.
//!
//! - [`master`]: which master key a name means; data keys wrapped and unwrapped
//! - [`data`]: batches sealed and opened
//!
//! Every start of encryption makes the stream a new data key. Those before it stay, for what they sealed, until the
//! stream is deleted. Called by `log` (batches, on their way into and out of the store) and `broker` (starts, stops,
//! deletions). All of a stream's keys are unwrapped once, when the store is opened: a master key that is absent then
//! is absent for good, and only what was sealed under it cannot be read.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::clock::Clock;
use crate::config::MasterKey;
use crate::model::ids::StreamId;
use crate::store::StoreError;

pub mod data;
pub mod master;

pub use data::{DataKey, Place};
use master::MasterKeys;

/// Why a key cannot be used. The stored batches are as they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Asked for by a name that no configured master key has.
    #[error("no master key {0} is configured")]
    NotFound(String),
    /// The master key is configured as disabled.
    #[error("master key {0} is disabled")]
    Disabled(String),
    /// The stream's data key is wrapped by a master key that is not configured (any more).
    #[error("the stream is encrypted under master key {0}, which is not configured")]
    Absent(String),
    /// The master key of that id is not the one that wrapped the stream's data key.
    #[error("master key {0} does not open the stream's data key: it is not the one that wrapped it")]
    Mismatch(String),
    /// The stream's data key itself is not stored.
    #[error("data key {0} of the stream is not stored")]
    Lost(u32),
}

/// All data keys of all streams, as far as the master keys open them.
pub struct KeyRing {
    masters: MasterKeys,
    clock: Clock,
    data: RwLock<HashMap<StreamId, HashMap<u32, Slot>>>,
}

type Slot = Result<Arc<DataKey>, KeyError>;

/// A data key that was just made: what is to be stored under [`crate::store::keys::Key::DataKey`] before, or in the
/// same commit as, anything that it seals.
pub struct NewDataKey {
    pub number: u32,
    pub record: Bytes,
}

impl KeyRing {
    pub fn new(masters: &[MasterKey], clock: Clock) -> KeyRing {
        KeyRing { masters: MasterKeys::new(masters), clock, data: RwLock::default() }
    }

    /// Takes in what is stored of a data key.
    pub fn load(&self, stream: StreamId, number: u32, record: &[u8]) -> Result<(), StoreError> {
        let unwrapped = self.masters.unwrap(stream, number, record)?;
        self.insert(stream, number, unwrapped.map(|secret| self.data_key_of(number, secret)));
        Ok(())
    }

    /// Makes a stream's next data key, wrapped by the master key that `key_name` means. Calls for one stream do not
    /// overlap.
    pub fn make(&self, stream: StreamId, key_name: &str) -> Result<NewDataKey, KeyError> {
        let newest = self.data.read().get(&stream).and_then(|keys| keys.keys().max().copied());
        let number = newest.unwrap_or(0) + 1;
        let secret = self.clock.random_key();
        let record = self.masters.wrap(stream, number, &secret, key_name, &self.clock)?;
        self.insert(stream, number, Ok(self.data_key_of(number, secret)));
        Ok(NewDataKey { number, record })
    }

    pub fn data_key(&self, stream: StreamId, number: u32) -> Result<Arc<DataKey>, KeyError> {
        let data = self.data.read();
        data.get(&stream).and_then(|keys| keys.get(&number)).cloned().unwrap_or(Err(KeyError::Lost(number)))
    }

    /// Whether two names of clients mean the same master key.
    pub fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || self.masters.find(one).is_some_and(|key| self.masters.find(other) == Some(key))
    }

    /// Forgets the keys of a deleted stream.
    pub fn forget(&self, stream: StreamId) {
        self.data.write().remove(&stream);
    }

    fn data_key_of(&self, number: u32, secret: [u8; 32]) -> Arc<DataKey> {
        Arc::new(DataKey::new(number, secret, self.clock.random_uuid().into_bytes()))
    }

    fn insert(&self, stream: StreamId, number: u32, slot: Slot) {
        self.data.write().entry(stream).or_default().insert(number, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{PartitionId, PartitionIndex};

    fn key(id: &str, byte: u8) -> MasterKey {
        MasterKey { id: id.into(), secret: [byte; 32], disabled: false }
    }

    fn ring(keys: &[MasterKey]) -> KeyRing {
        KeyRing::new(keys, Clock::manual(0))
    }

    #[test]
    fn what_one_run_sealed_a_later_one_opens_if_it_has_the_master_key() {
        let stream = StreamId(7);
        let first = ring(&[key("new", 1), key("old", 2)]);
        let by_old = first.make(stream, "old").unwrap();
        let by_new = first.make(stream, "alias/aws/kinesis").unwrap();
        assert_eq!((by_old.number, by_new.number), (1, 2));
        let place = Place { partition: PartitionId { stream, index: PartitionIndex(0) }, base_offset: 5 };
        let open = data::tests::open_value(1);
        let sealed = first.data_key(stream, 1).unwrap().seal(place, &open).unwrap();

        let reopened = |keys: &[MasterKey]| {
            let ring = ring(keys);
            ring.load(stream, 1, &by_old.record).unwrap();
            ring.load(stream, 2, &by_new.record).unwrap();
            ring
        };
        let both = reopened(&[key("third", 3), key("old", 2), key("new", 1)]);
        assert_eq!(both.data_key(stream, 1).unwrap().open(place, sealed.clone()).unwrap(), open);
        assert!(both.data_key(stream, 2).unwrap().open(place, sealed).is_err());
        assert_eq!(both.make(stream, "new").unwrap().number, 3);

        let refusal = |keys: &[MasterKey]| reopened(keys).data_key(stream, 1).err();
        assert_eq!(refusal(&[key("new", 1)]), Some(KeyError::Absent("old".into())));
        assert_eq!(refusal(&[]), Some(KeyError::Absent("old".into())));
        assert_eq!(refusal(&[key("old", 9)]), Some(KeyError::Mismatch("old".into())));
        let disabled = MasterKey { disabled: true, ..key("old", 2) };
        assert_eq!(refusal(&[disabled]), Some(KeyError::Disabled("old".into())));
        assert_eq!(both.data_key(stream, 9).err(), Some(KeyError::Lost(9)));
        both.forget(stream);
        assert_eq!(both.data_key(stream, 1).err(), Some(KeyError::Lost(1)));
    }

    #[test]
    fn a_wrapped_key_is_bound_to_its_stream_and_number() {
        let ring = ring(&[key("a", 1)]);
        let made = ring.make(StreamId(1), "a").unwrap();
        for (stream, number) in [(StreamId(2), 1), (StreamId(1), 2)] {
            ring.load(stream, number, &made.record).unwrap();
            assert_eq!(ring.data_key(stream, number).err(), Some(KeyError::Mismatch("a".into())));
        }
        assert!(ring.load(StreamId(1), 1, b"").is_err());
        assert!(ring.load(StreamId(1), 1, &made.record[..20]).is_err());
    }

    #[test]
    fn names_of_the_same_key_are_the_same() {
        let ring = ring(&[key("a", 1), key("b", 2)]);
        assert!(ring.is_same("a", "alias/aws/kinesis"));
        assert!(ring.is_same("alias/a", "arn:aws:kms:us-east-1:000000000000:key/a"));
        assert!(!ring.is_same("a", "b"));
        // An absent key can still be named as it was.
        assert!(ring.is_same("gone", "gone"));
        assert!(!ring.is_same("gone", "lost"));
    }
}
