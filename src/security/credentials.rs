//! Who there is: principals by the ids of the access keys that the settings give them.

use std::collections::HashMap;

use super::Principal;
use crate::config::AccessKey;

/// The keys that are known, by their ids.
pub struct Credentials(HashMap<String, Key>);

pub(super) struct Key {
    pub(super) secret: String,
    pub(super) principal: Principal,
}

impl Credentials {
    /// `None` without keys. `account` is whose the keys without a principal are.
    pub fn new(keys: &[AccessKey], account: &str) -> Option<Credentials> {
        let keys: HashMap<_, _> = keys
            .iter()
            .map(|key| {
                let principal = match &key.principal_arn {
                    Some(arn) => Principal::of(arn),
                    None => Principal::root(account),
                };
                (key.id.clone(), Key { secret: key.secret.clone(), principal })
            })
            .collect();
        (!keys.is_empty()).then_some(Credentials(keys))
    }

    pub(super) fn key(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }
}
