//! IncrementalAlterConfigs' four operations on a set of values. Called by `broker` before it judges the outcome:
//! [`super::topic::validate_overrides`] for topics, [`super::DynamicSettings::replaced`] for the broker,
//! [`super::group::validate`] for groups.

use std::collections::HashSet;

use indexmap::IndexSet;

use super::broker::behind;
use super::definition::{Definition, SettingError, ValueType, check_length};
use super::group::group_setting;
use super::topic::topic_setting;
use super::{Overrides, broker};

/// One setting's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub op: Op,
}

/// What to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Set(String),
    Delete,
    /// Adds the items that a list lacks.
    Append(String),
    /// Takes items off a list.
    Subtract(String),
}

/// A topic's overrides after `changes`, not yet judged.
pub fn topic(current: &Overrides, changes: &[Change]) -> Result<Overrides, SettingError> {
    altered(current, changes, |name| topic_setting(name).map(|setting| setting.definition))
}

/// One scope of the broker's altered settings after `changes`, not yet judged.
pub fn broker(current: &Overrides, changes: &[Change]) -> Result<Overrides, SettingError> {
    altered(current, changes, |name| {
        behind(name)
            .map(|(setting, _)| setting.definition)
            .or_else(|| broker::fixed_setting(name).map(|setting| setting.definition))
    })
}

/// A group's settings after `changes`, not yet judged.
pub fn group(current: &Overrides, changes: &[Change]) -> Result<Overrides, SettingError> {
    altered(current, changes, |name| group_setting(name).map(|setting| setting.definition))
}

fn altered(
    current: &Overrides,
    changes: &[Change],
    definition: impl Fn(&str) -> Option<Definition>,
) -> Result<Overrides, SettingError> {
    let mut values = current.clone();
    for Change { name, op } in changes {
        let list = |operation| {
            let definition = definition(name).filter(|definition| definition.value_type == ValueType::List);
            let default = definition.map(|definition| definition.default.unwrap_or_default());
            let default = default.ok_or_else(|| SettingError::NotAList { operation, name: name.clone() })?;
            let value = current.get(name).map_or(default, String::as_str);
            Ok(value.split(',').filter(|item| !item.is_empty()).collect::<IndexSet<_>>())
        };
        let joined = |items: IndexSet<&str>| Some(items.into_iter().collect::<Vec<_>>().join(","));
        let value = match op {
            Op::Delete => None,
            Op::Set(value) => Some(value.clone()),
            Op::Append(added) => {
                check_length(name, added)?;
                let mut items = list("APPEND")?;
                items.extend(added.split(',').map(str::trim).filter(|item| !item.is_empty()));
                joined(items)
            }
            Op::Subtract(removed) => {
                let mut items = list("SUBTRACT")?;
                let removed: HashSet<&str> = removed.split(',').map(str::trim).collect();
                items.retain(|item| !removed.contains(item));
                joined(items)
            }
        };
        match value {
            Some(value) => values.insert(name.clone(), value),
            None => values.remove(name),
        };
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn change(name: &str, op: Op) -> Change {
        Change { name: name.to_owned(), op }
    }

    #[test]
    fn values_are_set_and_deleted() {
        let current = overrides(&[("retention.ms", "1"), ("segment.ms", "2")]);
        let changes = [change("retention.ms", Op::Delete), change("flush.ms", Op::Set("3".into()))];
        assert_eq!(topic(&current, &changes).unwrap(), overrides(&[("flush.ms", "3"), ("segment.ms", "2")]));
    }

    #[test]
    fn lists_gain_and_lose_items_from_their_value_or_default() {
        let throttled = "leader.replication.throttled.replicas";
        let apply = |current: &Overrides, name: &str, op| topic(current, &[change(name, op)]).unwrap()[name].clone();
        let empty = Overrides::new();
        assert_eq!(apply(&empty, "cleanup.policy", Op::Append("compact".into())), "delete,compact");
        assert_eq!(apply(&empty, "cleanup.policy", Op::Append("delete".into())), "delete");
        assert_eq!(apply(&empty, "cleanup.policy", Op::Subtract("delete".into())), "");
        assert_eq!(apply(&empty, throttled, Op::Append("0:1, 1:1".into())), "0:1,1:1");
        let current = overrides(&[(throttled, "0:1,1:1,2:1")]);
        assert_eq!(apply(&current, throttled, Op::Subtract("2:1,0:1,9:9".into())), "1:1");
        let policy = broker(&empty, &[change("log.cleanup.policy", Op::Append("compact".into()))]).unwrap();
        assert_eq!(policy["log.cleanup.policy"], "delete,compact");
    }

    #[test]
    fn only_lists_have_items() {
        for (name, op, operation) in
            [("retention.ms", Op::Append("1".into()), "APPEND"), ("no.such", Op::Subtract("1".into()), "SUBTRACT")]
        {
            assert_eq!(
                topic(&Overrides::new(), &[change(name, op)]).unwrap_err().to_string(),
                format!("Can't {operation} to key {name} because its type is not LIST.")
            );
        }
    }
}
