//! Principals: who asks and what they may do.
//!
//! The HTTP port asks [`Access`] who signed a request; the doors ask [`policy`] what a resource's policy lets them do.
//! Without credentials everyone is the account itself, whatever the signature: that is what people want on their own
//! machine. With credentials a request is refused unless its signature (AWS Signature Version 4) is right.
//!
//! Rooms: `credentials` who there is, `signature` the checks and their texts, `canonical` what is signed, [`chunked`]
//! bodies that are signed piece by piece, [`date`] times as texts, [`policy`] resource policies.

mod canonical;
pub mod chunked;
mod credentials;
pub mod date;
pub mod policy;
mod signature;

use hyper::HeaderMap;

use chunked::Seal;
use credentials::Credentials;

use crate::config::AccessKey;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Twelve digits.
    pub account: String,
    /// `arn:aws:iam::000000000000:user/name`, or `...:root` for the account itself.
    pub arn: String,
}

impl Principal {
    /// The account itself: who everyone is while no credentials are configured.
    pub fn root(account: &str) -> Principal {
        Principal { account: account.to_owned(), arn: format!("arn:aws:iam::{account}:root") }
    }

    /// Whom an ARN names.
    fn of(arn: &str) -> Principal {
        Principal { account: arn.split(':').nth(4).unwrap_or_default().to_owned(), arn: arn.to_owned() }
    }
}

/// Who may ask for anything at all.
pub struct Access {
    account: String,
    region: String,
    /// `None`: any signature passes, and so does none.
    credentials: Option<Credentials>,
}

/// What a signature is made over, as it was received.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    /// Without the query, still encoded.
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// HTTP/2's `:authority`, which stands for `Host`.
    pub authority: Option<&'a str>,
    pub body: &'a [u8],
}

/// Why it is not known who asks. The texts are AWS's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// Something that a signature needs is absent or cannot be read.
    #[error("{0}")]
    Incomplete(String),
    /// The signature is for something else, of another time, or wrong.
    #[error("{0}")]
    Invalid(String),
}

/// Who asked.
#[derive(Debug)]
pub struct Identity {
    pub principal: Principal,
    /// For a body whose pieces are signed one by one.
    pub seal: Option<Seal>,
}

impl Access {
    /// Signatures are made for a region. Without keys none is looked at.
    pub fn new(account: &str, region: &str, keys: &[AccessKey]) -> Access {
        let credentials = Credentials::new(keys, account);
        Access { account: account.to_owned(), region: region.to_owned(), credentials }
    }

    /// Who signed a request to a service (`kinesis`, `sts`).
    pub fn identify(&self, request: &Signed<'_>, service: &str, now_ms: i64) -> Result<Identity, AuthError> {
        match &self.credentials {
            None => Ok(Identity { principal: Principal::root(&self.account), seal: None }),
            Some(credentials) => signature::verify(request, credentials, &self.region, service, now_ms),
        }
    }
}
