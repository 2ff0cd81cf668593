//! Encryption at rest, started and stopped for a stream. What is appended from then on is sealed or open; what stands
//! stays as it was written.
//!
//! [`Encryption`] among a stream's attributes is the switch. It changes like everything else of a stream
//! (`broker::catalog`), so each batch is appended wholly before the switch or after it, and the data key is durable
//! before what it seals.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::catalog::Draft;
use crate::broker::{Broker, CatalogError, Stream};
use crate::log::recover;
use crate::model::attributes::{Attributes, Encryption};
use crate::model::ids::StreamId;
use crate::store::crypt::{DataKey, KeyError, KeyRing, NewDataKey};
use crate::store::keys::Key;
use crate::store::{Batch, Family, Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A stop names another key than the one that seals.
    #[error("the stream is encrypted under {in_use}")]
    OtherKey { in_use: String },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Broker {
    /// Seals what is appended from now on with a new data key, wrapped by the master key that `key_name` means
    /// (`store::crypt::master`); also when the stream is encrypted already: the key is rotated. Returns when that is
    /// durable.
    pub async fn start_encryption(&self, stream: &Stream, key_name: &str) -> Result<(), EncryptionError> {
        self.change_stream(stream, |draft| Ok(self.draft_encryption(stream, draft, key_name)?)).await
    }

    /// Seals nothing that is appended from now on; nothing happens when that is so. `key_name` must mean the master key
    /// in use. Returns when it is durable.
    pub async fn stop_encryption(&self, stream: &Stream, key_name: &str) -> Result<(), EncryptionError> {
        self.change_stream(stream, |draft| self.draft_no_encryption(draft, key_name)).await
    }

    /// [`Broker::start_encryption`] as a part of another change of the stream.
    pub fn draft_encryption(&self, stream: &Stream, draft: &mut Draft<'_>, key_name: &str) -> Result<(), KeyError> {
        let NewDataKey { number, record } = self.keys.make(stream.id, key_name)?;
        let mut batch = Batch::default();
        batch.put(Family::Meta, Key::DataKey { stream: stream.id, number }.encode(), record);
        // The change is queued behind it and tells whether both were kept. A key without its change is never used.
        drop(self.writer.commit_meta(batch));
        draft.attributes.encryption = Some(Encryption { key_name: key_name.to_owned(), data_key_id: number });
        Ok(())
    }

    /// [`Broker::stop_encryption`] as a part of another change of the stream.
    pub fn draft_no_encryption(&self, draft: &mut Draft<'_>, key_name: &str) -> Result<(), EncryptionError> {
        match &draft.attributes.encryption {
            Some(Encryption { key_name: in_use, .. }) if !self.keys.is_same(in_use, key_name) => {
                Err(EncryptionError::OtherKey { in_use: in_use.clone() })
            }
            _ => {
                draft.attributes.encryption = None;
                Ok(())
            }
        }
    }

    /// Says at the start which streams take nothing more, because their key cannot be used.
    pub(super) fn warn_of_locked_streams(&self) {
        for stream in self.streams_in_any_state() {
            if let Err(error) = self.data_key(&stream, &stream.attributes()) {
                tracing::warn!(stream = &*stream.name, %error, "an encrypted stream cannot be written");
            }
        }
    }

    /// What seals the appends to a stream with these attributes, if anything does.
    pub(super) fn data_key(&self, stream: &Stream, attributes: &Attributes) -> Result<Option<Arc<DataKey>>, KeyError> {
        let in_use = attributes.encryption.as_ref();
        in_use.map(|encryption| self.keys.data_key(stream.id, encryption.data_key_id)).transpose()
    }
}

/// Takes in all data keys that are stored. Blocks.
pub fn load_keys(store: &dyn Store, keys: &KeyRing) -> Result<(), StoreError> {
    recover::for_each_meta(store, b"k", |key, record: Bytes| {
        let corrupt = || StoreError::Corrupt("a data key's key cannot be read".into());
        let (_, ids) = key.split_first().ok_or_else(corrupt)?;
        let (stream, number) = ids.split_first_chunk::<4>().ok_or_else(corrupt)?;
        let number = number.try_into().map_err(|_| corrupt())?;
        keys.load(StreamId(u32::from_be_bytes(*stream)), u32::from_be_bytes(number), &record)
    })
}

#[cfg(test)]
mod tests;
