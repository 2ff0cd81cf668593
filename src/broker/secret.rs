//! A secret of this cluster, made at its first start and kept: what doors seal that clients are to hand back unread.

use bytes::Bytes;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::log::writer::Writer;
use crate::store::keys::Key;
use crate::store::{Batch, Family, Store, StoreError};

pub type Secret = [u8; 32];

pub(super) fn load(store: &dyn Store, writer: &Writer, clock: &Clock) -> Result<Secret, StoreError> {
    let key = Key::Secret.encode();
    if let Some(kept) = store.get(Family::Meta, &key)? {
        return kept[..].try_into().map_err(|_| StoreError::Corrupt("the cluster's secret cannot be read".into()));
    }
    // Each has 122 random bits.
    let halves = [clock.random_uuid().into_bytes(), clock.random_uuid().into_bytes()];
    let mut secret = Secret::default();
    secret.iter_mut().zip(halves.as_flattened()).for_each(|(to, from)| *to = *from);
    let mut batch = Batch::default();
    batch.put(Family::Meta, key, Bytes::copy_from_slice(&secret));
    // Whatever is made durable later is so only after this.
    drop(writer.commit_meta(batch));
    Ok(secret)
}

impl Broker {
    /// The cluster's secret; the same after a restart.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}
