//! Master keys, and data keys wrapped by them with AES-256-GCM.
//!
//! A wrapped data key as stored under [`crate::store::keys::Key::DataKey`]:
//!
//! | field | width | |
//! |---|---|---|
//! | layout | u8 | 1 |
//! | nonce | 12 | random |
//! | secret | 32 | sealed; bound to the stream, the number and the master key's id |
//! | tag | 16 | |
//! | master key id | rest | UTF-8 |
//!
//! Names of master keys as clients give them follow AWS KMS (API reference of StartStreamEncryption, `KeyId`): a key's id,
//! its ARN `arn:aws:kms:REGION:ACCOUNT:key/ID`, `alias/ID`, and that as an ARN. Region and account of an ARN are not
//! looked at: the keys of the settings are all there are. `alias/aws/kinesis` is the current key.

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use bytes::{BufMut, Bytes, BytesMut};

use crate::clock::Clock;
use crate::config::MasterKey;
use crate::model::ids::StreamId;
use crate::store::StoreError;
use crate::store::crypt::KeyError;

/// AWS's name for the key that is used when none is wanted in particular.
const DEFAULT_ALIAS: &str = "alias/aws/kinesis";

const LAYOUT: u8 = 1;
const NONCE_LEN: usize = 12;
const SECRET_LEN: usize = 32;
const TAG_LEN: usize = 16;

pub struct MasterKeys(Vec<Master>);

pub struct Master {
    id: String,
    /// None: disabled.
    cipher: Option<Aes256Gcm>,
}

/// Ids are unique.
impl PartialEq for Master {
    fn eq(&self, other: &Master) -> bool {
        self.id == other.id
    }
}

impl Master {
    fn usable(&self) -> Result<&Aes256Gcm, KeyError> {
        self.cipher.as_ref().ok_or_else(|| KeyError::Disabled(self.id.clone()))
    }
}

impl MasterKeys {
    pub fn new(keys: &[MasterKey]) -> MasterKeys {
        let cipher = |key: &MasterKey| (!key.disabled).then(|| Aes256Gcm::new(&key.secret.into()));
        MasterKeys(keys.iter().map(|key| Master { id: key.id.clone(), cipher: cipher(key) }).collect())
    }

    /// The key that a client means by `name`.
    pub fn find(&self, name: &str) -> Option<&Master> {
        let resource = match name.strip_prefix("arn:") {
            // The partition (aws, aws-cn), kms, the region and the account.
            Some(arn) => match arn.splitn(5, ':').collect::<Vec<_>>()[..] {
                [_, "kms", _, _, resource] => resource.strip_prefix("key/").or(is_alias(resource))?,
                _ => return None,
            },
            None => name,
        };
        if resource == DEFAULT_ALIAS {
            return self.0.first();
        }
        self.by_id(resource.strip_prefix("alias/").unwrap_or(resource))
    }

    fn by_id(&self, id: &str) -> Option<&Master> {
        self.0.iter().find(|key| key.id == id)
    }

    pub fn wrap(
        &self,
        stream: StreamId,
        number: u32,
        secret: &[u8; SECRET_LEN],
        name: &str,
        clock: &Clock,
    ) -> Result<Bytes, KeyError> {
        let not_found = || KeyError::NotFound(name.to_owned());
        let master = self.find(name).ok_or_else(not_found)?;
        let cipher = master.usable()?;
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&clock.random_key()[..NONCE_LEN]);
        let mut sealed = *secret;
        let bound = bound_to(stream, number, &master.id);
        let tag = cipher
            .encrypt_in_place_detached(Nonce::from_slice(&nonce), &bound, &mut sealed)
            // Only a text of many GiB is refused.
            .map_err(|_| not_found())?;
        let mut record = BytesMut::with_capacity(1 + NONCE_LEN + SECRET_LEN + TAG_LEN + master.id.len());
        record.put_u8(LAYOUT);
        record.put_slice(&nonce);
        record.put_slice(&sealed);
        record.put_slice(&tag);
        record.put_slice(master.id.as_bytes());
        Ok(record.freeze())
    }

    /// The secret of a stored data key, or why no master key opens it; an error when it is no such record.
    pub fn unwrap(
        &self,
        stream: StreamId,
        number: u32,
        record: &[u8],
    ) -> Result<Result<[u8; SECRET_LEN], KeyError>, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("data key {number} of stream {} cannot be read", stream.0));
        let (&[LAYOUT], record) = record.split_first_chunk::<1>().ok_or_else(corrupt)? else { return Err(corrupt()) };
        let (nonce, record) = record.split_first_chunk::<NONCE_LEN>().ok_or_else(corrupt)?;
        let (sealed, record) = record.split_first_chunk::<SECRET_LEN>().ok_or_else(corrupt)?;
        let (tag, id) = record.split_first_chunk::<TAG_LEN>().ok_or_else(corrupt)?;
        let id = std::str::from_utf8(id).map_err(|_| corrupt())?;
        let Some(master) = self.by_id(id) else { return Ok(Err(KeyError::Absent(id.to_owned()))) };
        let mut secret = *sealed;
        Ok(master.usable().and_then(|cipher| {
            let (nonce, tag) = (Nonce::from_slice(nonce), Tag::from_slice(tag));
            match cipher.decrypt_in_place_detached(nonce, &bound_to(stream, number, id), &mut secret, tag) {
                Ok(()) => Ok(secret),
                Err(_) => Err(KeyError::Mismatch(id.to_owned())),
            }
        }))
    }
}

fn is_alias(resource: &str) -> Option<&str> {
    resource.starts_with("alias/").then_some(resource)
}

/// What a wrapped data key is good for.
fn bound_to(stream: StreamId, number: u32, master_id: &str) -> Vec<u8> {
    [&b"data key"[..], &stream.0.to_be_bytes(), &number.to_be_bytes(), master_id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_finds_its_key() {
        let key = |id: &str| MasterKey { id: id.into(), secret: [1; 32], disabled: false };
        let keys = MasterKeys::new(&[key("current"), key("1234abcd-12ab-34cd-56ef-1234567890ab"), key("team/logs")]);
        let id = |name: &str| keys.find(name).map(|key| key.id.clone());
        for (name, wanted) in [
            ("current", Some("current")),
            ("alias/aws/kinesis", Some("current")),
            ("arn:aws:kms:us-east-1:000000000000:alias/aws/kinesis", Some("current")),
            ("1234abcd-12ab-34cd-56ef-1234567890ab", Some("1234abcd-12ab-34cd-56ef-1234567890ab")),
            (
                "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
                Some("1234abcd-12ab-34cd-56ef-1234567890ab"),
            ),
            ("alias/team/logs", Some("team/logs")),
            ("arn:aws-cn:kms:cn-north-1:123456789012:alias/team/logs", Some("team/logs")),
            ("arn:aws:kms:us-east-1:000000000000:current", None),
            ("arn:aws:s3:us-east-1:000000000000:key/current", None),
            ("arn:aws:kms", None),
            ("alias/", None),
            ("", None),
            ("Current", None),
        ] {
            assert_eq!(id(name).as_deref(), wanted, "{name}");
        }
        assert!(MasterKeys::new(&[]).find("alias/aws/kinesis").is_none());
    }
}
