//! Which topics the members' subscriptions name, and when that calls for a new target.
//!
//! Regular expressions are those of the crate `regex`, which are RE2's but for rarities, match in linear time, and must
//! match the whole name, as with Kafka.

use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;
use sha2::{Digest, Sha256};

use super::{Consumer, GroupError, Member, Step};
use crate::group::topics::{Topic, Topics};

/// Different regular expressions in one group.
pub const REGEXES_MAX: usize = 100;

/// The memory that one regular expression may take, compiled.
const REGEX_BYTES_MAX: usize = 1 << 20;

fn compile(regex: &str) -> Result<regex::Regex, GroupError> {
    let whole = format!(r"\A(?:{regex})\z");
    let build =
        |text: &str| RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    // By itself as well, so that an unbalanced parenthesis cannot pair with those around it.
    build(regex).and_then(|_| build(&whole)).map_err(|_| GroupError::InvalidRegularExpression)
}

pub(super) fn check_regex(regex: &str) -> Result<(), GroupError> {
    compile(regex).map(drop)
}

impl Consumer {
    /// Whether the group has room for this regular expression.
    pub(super) fn check_regexes(&self, regex: &str) -> Result<(), GroupError> {
        let used: BTreeSet<&str> = self.members.values().filter_map(|member| member.regex.as_deref()).collect();
        match used.contains(regex) || used.len() < REGEXES_MAX {
            true => Ok(()),
            false => Err(GroupError::InvalidRegularExpression),
        }
    }

    /// Steps the group epoch if a member's subscription changed (`changed` is who it is), or what the members are
    /// subscribed to; then sees to the target.
    pub(super) fn follow_topics(&mut self, step: &Step, changed: Option<&str>) {
        let version = Some(step.topics.version());
        if changed.is_some() || self.topics_version != version {
            let is_later = self.look_up_topics(step.topics, changed);
            let hash = hash(&self.subscribed, &self.regexes);
            let topics_changed = hash != self.metadata_hash;
            if changed.is_some() || topics_changed {
                self.step_epoch();
                self.metadata_hash = hash;
            }
            self.topics_version = version.filter(|_| !is_later);
        }
        if self.group_epoch > self.assignment_epoch {
            self.compute_target();
        }
    }

    /// Finds the topics of all subscriptions as they are now. Kafka looks expressions up beside the heartbeat that brings
    /// them, so that a member which names topics as well gets those first, and clients hold a broker to that: the
    /// new expression of such a member, `changed`, is left for the next heartbeat. Says whether it was.
    pub(super) fn look_up_topics(&mut self, topics: &dyn Topics, changed: Option<&str>) -> bool {
        let used: BTreeSet<&String> = self.members.values().filter_map(|member| member.regex.as_ref()).collect();
        let names = if used.is_empty() { Vec::new() } else { topics.topic_names() };
        let waits = |regex: &String| {
            let mut members = self.members.iter().filter(|(_, member)| member.regex.as_ref() == Some(regex));
            let is_new = |(id, member): (&String, &Member)| Some(id.as_str()) == changed && !member.topics.is_empty();
            !self.regexes.contains_key(regex) && members.all(is_new)
        };
        let mut regexes = BTreeMap::new();
        let mut is_later = false;
        for regex in used {
            if waits(regex) {
                is_later = true;
                continue;
            }
            // What does not compile any more matches nothing: it was checked when it came.
            let matching = compile(regex)
                .ok()
                .map(|regex| names.iter().filter(|name| regex.is_match(name)).map(|name| name.to_string()).collect());
            regexes.insert(regex.clone(), matching.unwrap_or_default());
        }
        self.regexes = regexes;
        let mut subscribed = BTreeMap::new();
        for member in self.members.values() {
            for name in self.names_of(member) {
                if !subscribed.contains_key(name)
                    && let Some(topic) = topics.topic(name)
                {
                    subscribed.insert(name.clone(), topic);
                }
            }
        }
        self.subscribed = subscribed;
        is_later
    }

    /// Everything that a member subscribes to, whether it exists or not; a topic may come twice.
    pub(super) fn names_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a String> {
        let matched = member.regex.as_ref().and_then(|regex| self.regexes.get(regex));
        member.topics.iter().chain(matched.into_iter().flatten())
    }
}

/// Says whether topics, or what expressions match, have changed, also across a restart.
fn hash(subscribed: &BTreeMap<String, Topic>, regexes: &BTreeMap<String, BTreeSet<String>>) -> u64 {
    let mut hasher = Sha256::new();
    for (name, topic) in subscribed {
        hasher.update(name.as_bytes());
        hasher.update([0]);
        hasher.update(topic.id.as_bytes());
        hasher.update(topic.partitions.to_be_bytes());
    }
    for (regex, names) in regexes {
        // Neither can be in a name.
        for part in std::iter::once(regex).chain(names) {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        hasher.update([1]);
    }
    let digest = hasher.finalize();
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_names() {
        let matches = |regex: &str, name: &str| compile(regex).unwrap().is_match(name);
        assert!(matches("orders-.*", "orders-1") && !matches("orders", "orders-1"));
        assert!(matches("a|b", "b") && !matches("a|b", "bc") && !matches("a|b", "ca"));
        assert!(!matches("^a$", "a\n"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for regex in ["(", "a)(b", "*", "a{2000000}", "(?P<n", "\\1", "(?=a)"] {
            assert_eq!(check_regex(regex), Err(GroupError::InvalidRegularExpression), "{regex}");
        }
    }

    #[test]
    fn another_topic_another_id_another_count_makes_another_hash() {
        let topic = |id: u128, partitions| Topic { id: uuid::Uuid::from_u128(id), partitions };
        let none = BTreeMap::new();
        let of = |name: &str, topic| hash(&BTreeMap::from([(name.to_owned(), topic)]), &none);
        let base = of("a", topic(1, 1));
        assert_eq!(base, of("a", topic(1, 1)));
        let matched = BTreeMap::from([("a|b".to_owned(), BTreeSet::from(["a".to_owned()]))]);
        let by_expression = hash(&BTreeMap::from([("a".to_owned(), topic(1, 1))]), &matched);
        let others = [of("b", topic(1, 1)), of("a", topic(2, 1)), of("a", topic(1, 2)), hash(&BTreeMap::new(), &none)];
        for other in others.into_iter().chain([by_expression]) {
            assert_ne!(base, other);
        }
    }
}
