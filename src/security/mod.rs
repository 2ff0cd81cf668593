//! Principals: who asks and what they may do.

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
}
