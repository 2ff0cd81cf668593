//! StartStreamEncryption and StopStreamEncryption: what is put from then on is sealed at rest, or no longer. Both answer an
//! empty body.
//!
//! The switch is made when the request is taken; the stream is UPDATING for a while. AWS makes it at the end of that.
//! Starting again, with the same key or another, makes a new data key. Which names of keys there are and what they mean
//! stands in `store::crypt::master`. Counts per day are AWS's ("API Limits" of both operations).

use super::Context;
use super::error::Error;
use super::limits::count_today;
use super::validate::{Rule, input};
use crate::broker::EncryptionError;

pub const KMS: &str = "KMS";
const TYPES: &[&str] = &["NONE", KMS];

/// Starts in a day, and stops.
const CHANGES_MAX: usize = 25;

const TYPE: &[Rule] = &[Rule::Required, Rule::OneOf(TYPES)];
const KEY_ID: &[Rule] = &[Rule::Required, Rule::LengthMin(1), Rule::LengthMax(2_048)];

input! {
    StartStreamEncryption about a stream {
        encryption_type: String = "EncryptionType" TYPE;
        key_id: String = "KeyId" KEY_ID;
    }
}

input! {
    StopStreamEncryption about a stream {
        encryption_type: String = "EncryptionType" TYPE;
        key_id: String = "KeyId" KEY_ID;
    }
}

pub async fn start_stream_encryption(cx: Context, input: StartStreamEncryption) -> Result<(), Error> {
    let stream = cx.stream()?;
    require_kms(input.encryption_type.as_deref())?;
    let key_id = input.key_id.unwrap_or_default();
    let started = cx.change_active(&stream, |draft| {
        let starts_ms = &mut draft.attributes.encryption_starts_ms;
        count_today(starts_ms, CHANGES_MAX, draft.now_ms, || too_often("enabled"))?;
        cx.door.broker.draft_encryption(&stream, draft, &key_id).map_err(|error| Error::key(&error))?;
        cx.updating(draft);
        Ok(())
    });
    started.await
}

pub async fn stop_stream_encryption(cx: Context, input: StopStreamEncryption) -> Result<(), Error> {
    let stream = cx.stream()?;
    require_kms(input.encryption_type.as_deref())?;
    let key_id = input.key_id.unwrap_or_default();
    let stopped = cx.change_active(&stream, |draft| {
        if draft.attributes.encryption.is_none() {
            return Ok(());
        }
        let stops_ms = &mut draft.attributes.encryption_stops_ms;
        count_today(stops_ms, CHANGES_MAX, draft.now_ms, || too_often("disabled"))?;
        cx.door.broker.draft_no_encryption(draft, &key_id).map_err(|error| match error {
            EncryptionError::Key(error) => Error::key(&error),
            EncryptionError::OtherKey { in_use } => Error::InvalidArgument(format!(
                "Stream {} under account {} is encrypted under key {in_use}, not under {key_id}.",
                stream.name, cx.door.home.account
            )),
            EncryptionError::Catalog(error) => {
                tracing::error!(%error, stream = &*stream.name, "encryption cannot be stopped");
                Error::Internal
            }
        })?;
        cx.updating(draft);
        Ok(())
    });
    stopped.await
}

/// The model has NONE, which is what a stream has that is not encrypted; neither operation takes it.
fn require_kms(encryption_type: Option<&str>) -> Result<(), Error> {
    match encryption_type {
        Some(KMS) => Ok(()),
        _ => Err(Error::InvalidArgument(format!("The only valid EncryptionType is {KMS}."))),
    }
}

fn too_often(what: &str) -> String {
    format!("Server-side encryption cannot be {what} more than {CHANGES_MAX} times in a rolling 24-hour period.")
}
