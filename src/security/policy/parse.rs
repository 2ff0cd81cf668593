//! A policy's document, read member by member so that what is wrong can be told.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::condition::Condition;
use super::{DOCUMENT_BYTES_MAX, Effect, Element, Policy, PolicyError, Statement, Who};

const VERSIONS: [&str; 2] = ["2012-10-17", "2008-10-17"];
const MEMBERS: [&str; 3] = ["Version", "Id", "Statement"];
const STATEMENT_MEMBERS: [&str; 9] =
    ["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

type Object = Map<String, Value>;

pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError(why.into()))
}

pub(super) fn policy(document: &str) -> Result<Policy, PolicyError> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return refuse(format!("The policy is larger than {DOCUMENT_BYTES_MAX} bytes."));
    }
    let Ok(Value::Object(policy)) = serde_json::from_str(document) else {
        return refuse("The policy is not valid JSON, or not an object.");
    };
    check_members(&policy, &MEMBERS, "The policy")?;
    if let Some(version) = policy.get("Version")
        && !version.as_str().is_some_and(|version| VERSIONS.contains(&version))
    {
        return refuse(format!("The policy's Version must be one of {}.", VERSIONS.join(", ")));
    }
    let statements: Vec<&Value> = match policy.get("Statement") {
        Some(Value::Array(statements)) if !statements.is_empty() => statements.iter().collect(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return refuse("The policy has no Statement."),
    };
    let mut sids = BTreeSet::new();
    let mut parsed = Vec::new();
    for value in statements {
        let Value::Object(object) = value else { return refuse("A Statement is not an object.") };
        match object.get("Sid") {
            None => {}
            Some(Value::String(sid)) if sids.insert(sid.as_str()) => {}
            Some(Value::String(sid)) => return refuse(format!("The Sid {sid} is not unique.")),
            Some(_) => return refuse("A Sid is not a string."),
        }
        parsed.push(statement(object)?);
    }
    Ok(Policy { statements: parsed })
}

fn statement(object: &Object) -> Result<Statement, PolicyError> {
    check_members(object, &STATEMENT_MEMBERS, "A Statement")?;
    let effect = match object.get("Effect").and_then(Value::as_str) {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        _ => return refuse("A Statement's Effect must be Allow or Deny."),
    };
    let (value, is_negated) = either(object, "Principal", "NotPrincipal")?;
    if is_negated && effect == Effect::Allow {
        return refuse("NotPrincipal is for statements that deny.");
    }
    let principals = Element { items: principals(value)?, is_negated };
    let (value, is_negated) = either(object, "Action", "NotAction")?;
    let actions = Element { items: checked(value, "Action", is_action)?, is_negated };
    let (value, is_negated) = either(object, "Resource", "NotResource")?;
    let resources = Element { items: checked(value, "Resource", is_resource)?, is_negated };
    let conditions = match object.get("Condition") {
        None => Vec::new(),
        Some(Value::Object(operators)) => conditions(operators)?,
        Some(_) => return refuse("A Condition is not an object."),
    };
    Ok(Statement { effect, principals, actions, resources, conditions })
}

fn check_members(object: &Object, known: &[&str], whose: &str) -> Result<(), PolicyError> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => refuse(format!("{whose} has the unknown element {name}.")),
        None => Ok(()),
    }
}

/// The one of two elements that is there, and whether it is the negated one.
fn either<'a>(object: &'a Object, name: &str, negated: &str) -> Result<(&'a Value, bool), PolicyError> {
    match (object.get(name), object.get(negated)) {
        (Some(value), None) => Ok((value, false)),
        (None, Some(value)) => Ok((value, true)),
        (Some(_), Some(_)) => refuse(format!("A Statement has both {name} and {negated}.")),
        (None, None) => refuse(format!("A Statement has no {name}.")),
    }
}

/// A string or a list of them, none of them a template.
pub(super) fn strings(value: &Value, what: &str) -> Result<Vec<String>, PolicyError> {
    let texts: Option<Vec<&str>> = match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) if !items.is_empty() => items.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(texts) = texts else { return refuse(format!("{what} must be a string or a list of strings.")) };
    match texts.iter().find(|text| text.contains("${")) {
        Some(text) => refuse(format!("Policy variables are not supported: {text}")),
        None => Ok(texts.into_iter().map(str::to_owned).collect()),
    }
}

fn checked(value: &Value, what: &str, is_valid: fn(&str) -> bool) -> Result<Vec<String>, PolicyError> {
    let texts = strings(value, what)?;
    match texts.iter().find(|text| !is_valid(text)) {
        Some(text) => refuse(format!("Invalid {what}: {text}")),
        None => Ok(texts),
    }
}

fn is_action(text: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'*' | b'?'));
    match text.split_once(':') {
        None => text == "*",
        Some((service, name)) => service.eq_ignore_ascii_case("kinesis") && is_name(name),
    }
}

fn is_resource(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let is_kinesis = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("kinesis");
    text == "*" || (is_kinesis && parts.count() == 3)
}

fn principals(value: &Value) -> Result<Vec<Who>, PolicyError> {
    let kinds = match value {
        Value::String(text) if text == "*" => return Ok(vec![Who::Everyone]),
        Value::Object(kinds) if !kinds.is_empty() => kinds,
        _ => return refuse("A Principal must be \"*\" or an object."),
    };
    let mut all = Vec::new();
    for (kind, value) in kinds {
        let names = strings(value, "A Principal")?;
        match kind.as_str() {
            "AWS" => {
                for name in names {
                    all.push(principal(name)?);
                }
            }
            "Service" => all.extend(names.iter().map(|_| Who::Service)),
            _ => return refuse(format!("Invalid kind of Principal: {kind}")),
        }
    }
    Ok(all)
}

fn principal(name: String) -> Result<Who, PolicyError> {
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit());
    if name == "*" {
        return Ok(Who::Everyone);
    }
    if is_account(&name) {
        return Ok(Who::Account(name));
    }
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    let ["arn", _partition, service @ ("iam" | "sts"), "", account, entity] = parts.as_slice() else {
        return refuse(format!("Invalid Principal: {name}"));
    };
    let kinds: &[&str] = if *service == "iam" { &["user/", "role/"] } else { &["assumed-role/", "federated-user/"] };
    let is_named = |kind: &&str| entity.strip_prefix(kind).is_some_and(|rest| !rest.is_empty() && !rest.contains('*'));
    match *entity {
        _ if !is_account(account) => refuse(format!("Invalid Principal: {name}")),
        "root" if *service == "iam" => Ok(Who::Account((*account).to_owned())),
        _ if kinds.iter().any(is_named) => Ok(Who::Arn(name)),
        _ => refuse(format!("Invalid Principal: {name}")),
    }
}

fn conditions(operators: &Object) -> Result<Vec<Condition>, PolicyError> {
    let mut all = Vec::new();
    for (operator, keys) in operators {
        let Value::Object(keys) = keys else { return refuse(format!("The Condition {operator} is not an object.")) };
        for (key, value) in keys {
            all.push(Condition::parse(operator, key, value)?);
        }
    }
    Ok(all)
}
