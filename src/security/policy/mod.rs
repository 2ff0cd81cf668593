//! Resource policies: who of other accounts may use a stream or a consumer, and who of its own may not.
//!
//! Put by a client as a document, which [`Policy::parse`] validates; the doors ask [`authorize`] before they act. An
//! explicit denial wins over everything. Principals of the resource's own account are allowed otherwise, because their
//! identity policies are not known here; those of other accounts need a statement that allows it, and their own
//! account's consent is taken for granted for the same reason.
//!
//! Of IAM's policy language everything is evaluated but what is refused when a policy is put: policy variables, set
//! operators (`ForAnyValue:`), and condition operators other than those of [`condition`]. Services as principals are
//! accepted and match nobody, because none calls here.
//!
//! Source: AWS, IAM JSON policy element reference, policy evaluation logic; Kinesis, sharing access by resource policies.

mod condition;
mod parse;

use std::net::IpAddr;

use super::Principal;
use condition::Condition;

/// Bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 20 << 10;

/// A valid policy.
#[derive(Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

/// A request to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub principal: &'a Principal,
    /// With its service: `kinesis:PutRecord`.
    pub action: &'a str,
    /// The ARN of the stream or consumer.
    pub resource: &'a str,
    pub source_ip: IpAddr,
    pub now_ms: i64,
}

/// The text of AccessDeniedException.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("User: {principal} is not authorized to perform: {action} on resource: {resource} {why}")]
pub struct Denied {
    principal: String,
    action: String,
    resource: String,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Debug)]
struct Statement {
    effect: Effect,
    principals: Element<Who>,
    actions: Element<String>,
    resources: Element<String>,
    conditions: Vec<Condition>,
}

/// A list that a request must match, or must not (`NotAction`).
#[derive(Debug)]
struct Element<T> {
    items: Vec<T>,
    is_negated: bool,
}

impl<T> Element<T> {
    fn matches(&self, mut is_match: impl FnMut(&T) -> bool) -> bool {
        self.items.iter().any(&mut is_match) != self.is_negated
    }
}

/// Whom a statement is about.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    Everyone,
    Account(String),
    /// A user, a role (with its sessions) or a session.
    Arn(String),
    /// Calls nothing here.
    Service,
}

/// Whether a request on a resource of the account `owner` may go on. `policy` is the document that was put on it.
pub fn authorize(owner: &str, policy: Option<&str>, ask: &Ask<'_>) -> Result<(), Denied> {
    let effect = match policy.map(Policy::parse) {
        None => None,
        Some(Ok(policy)) => policy.effect(ask),
        // It was valid when it was put. What cannot be read must not allow.
        Some(Err(_)) => Some(Effect::Deny),
    };
    let why = match effect {
        Some(Effect::Allow) => return Ok(()),
        None if ask.principal.account == owner => return Ok(()),
        Some(Effect::Deny) => "with an explicit deny in a resource-based policy".to_owned(),
        None => format!("because no resource-based policy allows the {} action", ask.action),
    };
    Err(Denied {
        principal: ask.principal.arn.clone(),
        action: ask.action.to_owned(),
        resource: ask.resource.to_owned(),
        why,
    })
}

impl Policy {
    /// Reads and validates a document.
    pub fn parse(document: &str) -> Result<Policy, PolicyError> {
        parse::policy(document)
    }

    /// What the statements that match say together; a denial wins.
    fn effect(&self, ask: &Ask<'_>) -> Option<Effect> {
        let matching = self.statements.iter().filter(|statement| statement.matches(ask));
        matching.map(|statement| statement.effect).max_by_key(|effect| *effect == Effect::Deny)
    }
}

impl Statement {
    fn matches(&self, ask: &Ask<'_>) -> bool {
        let action = ask.action.to_ascii_lowercase();
        self.principals.matches(|who| who.is(ask.principal))
            && self.actions.matches(|pattern| glob(&pattern.to_ascii_lowercase(), &action))
            && self.resources.matches(|pattern| glob(pattern, ask.resource))
            && self.conditions.iter().all(|condition| condition.holds(ask))
    }
}

impl Who {
    fn is(&self, principal: &Principal) -> bool {
        match self {
            Who::Everyone => true,
            Who::Account(account) => principal.account == *account,
            Who::Arn(arn) => principal.arn == *arn || role_of(&principal.arn).as_deref() == Some(arn),
            Who::Service => false,
        }
    }
}

/// The role of a session: `arn:aws:sts::1:assumed-role/R/session` is of `arn:aws:iam::1:role/R`.
fn role_of(arn: &str) -> Option<String> {
    let (prefix, rest) = arn.split_once(":assumed-role/")?;
    let role = rest.split('/').next()?;
    Some(format!("{}:role/{role}", prefix.replacen(":sts:", ":iam:", 1)))
}

/// Whether a text is what a pattern says: `*` any characters, `?` one. The time is at most the product of
/// both lengths, however many stars there are.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and the text that it has taken so far ends.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests;
