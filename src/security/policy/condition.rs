//! Conditions of a statement: `{"StringEquals": {"aws:PrincipalAccount": ["1", "2"]}}`.
//!
//! Evaluated are String..., Arn..., Numeric..., Date..., Bool, IpAddress and NotIpAddress, all with `IfExists`, and Null.
//! A request has the keys of [`value_of`]; every other key is absent from it, as `aws:SourceArn` is from everything
//! that no service sends. An absent key fails an operator, unless it is negated or says `IfExists`.

use std::net::IpAddr;

use serde_json::Value;

use super::parse::{refuse, strings};
use super::{Ask, PolicyError, glob};
use crate::security::date;

#[derive(Debug)]
pub(super) struct Condition {
    operator: Operator,
    is_negated: bool,
    if_exists: bool,
    /// In lower case: keys are compared without regard to it.
    key: String,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    /// ArnEquals does the same.
    ArnLike,
    Number(Order),
    Date(Order),
    Bool,
    IpAddress,
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equals,
    LessThan,
    LessThanEquals,
    GreaterThan,
    GreaterThanEquals,
}

/// Names as they stand in documents, their meaning, and whether it is turned round.
const OPERATORS: &[(&str, Operator, bool)] = &[
    ("StringEquals", Operator::StringEquals, false),
    ("StringNotEquals", Operator::StringEquals, true),
    ("StringEqualsIgnoreCase", Operator::StringEqualsIgnoreCase, false),
    ("StringNotEqualsIgnoreCase", Operator::StringEqualsIgnoreCase, true),
    ("StringLike", Operator::StringLike, false),
    ("StringNotLike", Operator::StringLike, true),
    ("ArnEquals", Operator::ArnLike, false),
    ("ArnLike", Operator::ArnLike, false),
    ("ArnNotEquals", Operator::ArnLike, true),
    ("ArnNotLike", Operator::ArnLike, true),
    ("NumericEquals", Operator::Number(Order::Equals), false),
    ("NumericNotEquals", Operator::Number(Order::Equals), true),
    ("NumericLessThan", Operator::Number(Order::LessThan), false),
    ("NumericLessThanEquals", Operator::Number(Order::LessThanEquals), false),
    ("NumericGreaterThan", Operator::Number(Order::GreaterThan), false),
    ("NumericGreaterThanEquals", Operator::Number(Order::GreaterThanEquals), false),
    ("DateEquals", Operator::Date(Order::Equals), false),
    ("DateNotEquals", Operator::Date(Order::Equals), true),
    ("DateLessThan", Operator::Date(Order::LessThan), false),
    ("DateLessThanEquals", Operator::Date(Order::LessThanEquals), false),
    ("DateGreaterThan", Operator::Date(Order::GreaterThan), false),
    ("DateGreaterThanEquals", Operator::Date(Order::GreaterThanEquals), false),
    ("Bool", Operator::Bool, false),
    ("IpAddress", Operator::IpAddress, false),
    ("NotIpAddress", Operator::IpAddress, true),
    ("Null", Operator::Null, false),
];

/// What a request says about a key, which is in lower case.
fn value_of(key: &str, ask: &Ask<'_>) -> Option<String> {
    Some(match key {
        "aws:principalarn" => ask.principal.arn.clone(),
        "aws:principalaccount" => ask.principal.account.clone(),
        "aws:principaltype" => match &ask.principal.arn {
            arn if arn.ends_with(":root") => "Account",
            arn if arn.contains(":assumed-role/") => "AssumedRole",
            _ => "User",
        }
        .to_owned(),
        "aws:username" => ask.principal.arn.split_once(":user/")?.1.rsplit('/').next()?.to_owned(),
        "aws:requestedregion" => ask.resource.split(':').nth(3)?.to_owned(),
        "aws:resourceaccount" => ask.resource.split(':').nth(4)?.to_owned(),
        "aws:sourceip" => ask.source_ip.to_canonical().to_string(),
        "aws:securetransport" => "false".to_owned(),
        "aws:currenttime" => date::format_basic(ask.now_ms),
        "aws:epochtime" => ask.now_ms.div_euclid(1_000).to_string(),
        _ => return None,
    })
}

impl Condition {
    pub(super) fn parse(name: &str, key: &str, value: &Value) -> Result<Condition, PolicyError> {
        let (plain, if_exists) = match name.strip_suffix("IfExists") {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let found = OPERATORS.iter().find(|(known, ..)| *known == plain);
        let Some((_, operator, is_negated)) = found.filter(|(known, ..)| !(if_exists && *known == "Null")) else {
            return refuse(format!("The Condition operator {name} is not supported."));
        };
        let values = match value {
            // Numbers and booleans may stand there without quotes.
            Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
            _ => strings(value, "A Condition's value")?,
        };
        if let Some(value) = values.iter().find(|value| !operator.takes(value)) {
            return refuse(format!("The Condition {name} has the invalid value {value}."));
        }
        let key = key.to_ascii_lowercase();
        Ok(Condition { operator: *operator, is_negated: *is_negated, if_exists, key, values })
    }

    pub(super) fn holds(&self, ask: &Ask<'_>) -> bool {
        let found = value_of(&self.key, ask);
        if self.operator == Operator::Null {
            return self.values.iter().any(|value| value.eq_ignore_ascii_case("true") == found.is_none());
        }
        match found {
            None => self.is_negated || self.if_exists,
            Some(found) => self.values.iter().any(|value| self.operator.is_match(value, &found)) != self.is_negated,
        }
    }
}

impl Operator {
    /// Whether a policy's value is of the operator's kind.
    fn takes(self, value: &str) -> bool {
        match self {
            Operator::StringEquals | Operator::StringEqualsIgnoreCase | Operator::StringLike => true,
            Operator::ArnLike => value == "*" || value.split(':').count() >= 6,
            Operator::Number(_) => value.parse::<f64>().is_ok(),
            Operator::Date(_) => time(value).is_some(),
            Operator::Bool | Operator::Null => {
                value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false")
            }
            Operator::IpAddress => network(value).is_some(),
        }
    }

    fn is_match(self, value: &str, found: &str) -> bool {
        match self {
            Operator::StringEquals => value == found,
            Operator::StringEqualsIgnoreCase => value.eq_ignore_ascii_case(found),
            Operator::StringLike => glob(value, found),
            Operator::ArnLike => arn_like(value, found),
            Operator::Number(order) => match (found.parse::<f64>(), value.parse::<f64>()) {
                (Ok(found), Ok(value)) => order.holds(found.partial_cmp(&value)),
                _ => false,
            },
            Operator::Date(order) => match (time(found), time(value)) {
                (Some(found), Some(value)) => order.holds(Some(found.cmp(&value))),
                _ => false,
            },
            Operator::Bool => value.eq_ignore_ascii_case(found),
            Operator::IpAddress => match (network(value), found.parse()) {
                (Some((network, bits)), Ok(address)) => is_inside(network, bits, address),
                _ => false,
            },
            Operator::Null => false,
        }
    }
}

impl Order {
    fn holds(self, order: Option<std::cmp::Ordering>) -> bool {
        order.is_some_and(|order| match self {
            Order::Equals => order.is_eq(),
            Order::LessThan => order.is_lt(),
            Order::LessThanEquals => order.is_le(),
            Order::GreaterThan => order.is_gt(),
            Order::GreaterThanEquals => order.is_ge(),
        })
    }
}

/// Each of an ARN's six parts is matched by itself: a star does not reach over colons, but in the last.
fn arn_like(pattern: &str, arn: &str) -> bool {
    let mut found = arn.splitn(6, ':');
    pattern == "*" || pattern.splitn(6, ':').all(|part| found.next().is_some_and(|text| glob(part, text)))
}

/// Milliseconds since 1970 of a time in ISO 8601 or in seconds.
fn time(text: &str) -> Option<i64> {
    date::parse_basic(text)
        .or_else(|| date::parse_extended(text))
        .or_else(|| text.parse::<i64>().ok()?.checked_mul(1_000))
}

/// An address and how many of its bits count: `10.0.0.0/8`, `::1`.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address.parse().ok()?, Some(bits.parse().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let width = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    Some((address, bits.unwrap_or(width))).filter(|(_, bits)| *bits <= width)
}

fn is_inside(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let same = |difference: u128, width: u32| bits == 0 || difference >> (width - bits) == 0;
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => same((network.to_bits() ^ address.to_bits()).into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => same(network.to_bits() ^ address.to_bits(), 128),
        _ => false,
    }
}
