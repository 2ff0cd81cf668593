//! What is wrong with a request's members, all of it told at once in AWS's words:
//! `2 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: Member must have ...; Value ...`.
//!
//! Every input declares its members and their rules once, with [`input!`]; `dispatch` checks them before a handler sees
//! the request. Rules are checked member by member in the order of declaration, and at most [`VIOLATIONS_MAX`] violations
//! are told. Paths are the wire's names with a small first letter.
//!
//! Sources: Kinesis' service model (limits), answers recorded from AWS (texts and order).

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use serde::de::DeserializeOwned;

use super::arn::Asked;
use super::error::Error;
use crate::http::Timestamp;

/// AWS tells no more than this many violations.
const VIOLATIONS_MAX: usize = 10;

/// One constraint of a member.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    Required,
    Min(i64),
    Max(i64),
    /// Characters of a text, entries of a list or map, bytes of a blob.
    LengthMin(usize),
    LengthMax(usize),
    Matches(Pattern),
    /// One of the values, or a list of them.
    OneOf(&'static [&'static str]),
    /// Characters of each text in a list: from, to.
    Items(usize, usize),
    /// Characters of each key of a map: from, to.
    Keys(usize, usize),
    /// Characters of each value of a map: from, to.
    Values(usize, usize),
}

/// The patterns of the service model. Each must match the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Of streams, shards and consumers.
    Name,
    StreamId,
    StreamArn,
    ConsumerArn,
    ResourceArn,
    HashKey,
    SequenceNumber,
}

pub const NAME: &[Rule] = &[Rule::Matches(Pattern::Name), Rule::LengthMin(1), Rule::LengthMax(128)];
pub const REQUIRED_NAME: &[Rule] =
    &[Rule::Required, Rule::Matches(Pattern::Name), Rule::LengthMin(1), Rule::LengthMax(128)];
pub const STREAM_ID: &[Rule] = &[Rule::Matches(Pattern::StreamId), Rule::LengthMin(1), Rule::LengthMax(24)];
pub const STREAM_ARN: &[Rule] = &[Rule::Matches(Pattern::StreamArn), Rule::LengthMin(1), Rule::LengthMax(2_048)];
pub const REQUIRED_STREAM_ARN: &[Rule] =
    &[Rule::Required, Rule::Matches(Pattern::StreamArn), Rule::LengthMin(1), Rule::LengthMax(2_048)];
pub const CONSUMER_ARN: &[Rule] = &[Rule::Matches(Pattern::ConsumerArn), Rule::LengthMin(1), Rule::LengthMax(2_048)];
pub const REQUIRED_CONSUMER_ARN: &[Rule] =
    &[Rule::Required, Rule::Matches(Pattern::ConsumerArn), Rule::LengthMin(1), Rule::LengthMax(2_048)];
pub const RESOURCE_ARN: &[Rule] =
    &[Rule::Required, Rule::Matches(Pattern::ResourceArn), Rule::LengthMin(1), Rule::LengthMax(2_048)];

/// A request's body.
pub trait Input: DeserializeOwned + Send + 'static {
    /// Checks every member.
    fn check(&self, found: &mut Violations);

    /// Checks that something is named.
    fn check_named(&self, _found: &mut Violations) {}

    /// What the request is about.
    fn asked(&self) -> Asked<'_>;

    fn validate(&self) -> Result<(), Error> {
        let mut found = Violations::default();
        self.check(&mut found);
        self.check_named(&mut found);
        found.into_result()
    }
}

/// What can stand in a member.
pub trait Value {
    /// As Java prints it; `None` for data, which AWS does not repeat.
    fn shown(&self) -> Option<String>;

    fn number(&self) -> Option<i64> {
        None
    }

    fn length(&self) -> Option<usize> {
        None
    }

    /// Its text, or the texts of a list.
    fn texts(&self) -> Vec<&str> {
        Vec::new()
    }

    fn entries(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    /// Checks members of its own.
    fn check_inside(&self, _path: &str, _found: &mut Violations) {}
}

/// What a violation says of the value.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    Value(&'a str),
    Null,
    /// That there is one.
    Hidden,
}

/// The violations found so far.
#[derive(Debug, Default)]
pub struct Violations(Vec<String>);

impl Violations {
    /// Checks a member; `path` is its wire name, or that behind the path of what holds it.
    pub fn member<V: Value>(&mut self, path: &str, value: Option<&V>, rules: &[Rule]) {
        let Some(value) = value else {
            if rules.iter().any(|rule| matches!(rule, Rule::Required)) {
                self.missing(path);
            }
            return;
        };
        for rule in rules {
            if let Some(constraint) = rule.broken_by(value) {
                let shown = value.shown();
                self.add(path, shown.as_deref().map_or(Told::Hidden, Told::Value), constraint);
            }
        }
        value.check_inside(path, self);
    }

    pub fn missing(&mut self, path: &str) {
        self.add(path, Told::Null, "Member must not be null");
    }

    pub fn add(&mut self, path: &str, value: Told<'_>, constraint: impl Display) {
        if self.0.len() >= VIOLATIONS_MAX {
            return;
        }
        let mut text = match value {
            Told::Value(value) => format!("Value '{value}' at '"),
            Told::Null => "Value null at '".to_owned(),
            Told::Hidden => "Value at '".to_owned(),
        };
        push_path(&mut text, path);
        // Writing to a text does not fail.
        let _ = write!(text, "' failed to satisfy constraint: {constraint}");
        self.0.push(text);
    }

    /// The one error that tells them all.
    pub fn into_result(self) -> Result<(), Error> {
        let count = self.0.len();
        if count == 0 {
            return Ok(());
        }
        let errors = if count == 1 { "error" } else { "errors" };
        Err(Error::Validation(format!("{count} validation {errors} detected: {}", self.0.join("; "))))
    }
}

/// Every name of a path begins with a small letter.
fn push_path(out: &mut String, path: &str) {
    for (index, name) in path.split('.').enumerate() {
        if index > 0 {
            out.push('.');
        }
        let mut chars = name.chars();
        out.extend(chars.next().map(|first| first.to_ascii_lowercase()));
        out.push_str(chars.as_str());
    }
}

impl Rule {
    /// The constraint that the value does not satisfy.
    fn broken_by<V: Value>(&self, value: &V) -> Option<String> {
        let number = |broken: fn(i64, i64) -> bool, bound: i64| value.number().is_some_and(|n| broken(n, bound));
        let length = |broken: fn(usize, usize) -> bool, bound: usize| value.length().is_some_and(|n| broken(n, bound));
        let sized = |texts: Vec<&str>, from: usize, to: usize| {
            texts.into_iter().any(|text| !(from..=to).contains(&text_length(text)))
        };
        let bounds = |what: &str, from: usize, to: usize| {
            format!(
                "{what} must satisfy constraint: [Member must have length less than or equal to {to}, \
                 Member must have length greater than or equal to {from}]"
            )
        };
        match *self {
            Rule::Required => None,
            Rule::Min(min) => {
                number(|n, min| n < min, min).then(|| format!("Member must have value greater than or equal to {min}"))
            }
            Rule::Max(max) => {
                number(|n, max| n > max, max).then(|| format!("Member must have value less than or equal to {max}"))
            }
            Rule::LengthMin(min) => {
                length(|n, min| n < min, min).then(|| format!("Member must have length greater than or equal to {min}"))
            }
            Rule::LengthMax(max) => {
                length(|n, max| n > max, max).then(|| format!("Member must have length less than or equal to {max}"))
            }
            Rule::Matches(pattern) => value
                .texts()
                .iter()
                .any(|text| !pattern.matches(text))
                .then(|| format!("Member must satisfy regular expression pattern: {}", pattern.text())),
            Rule::OneOf(allowed) => value
                .texts()
                .iter()
                .any(|text| !allowed.contains(text))
                .then(|| format!("Member must satisfy enum value set: [{}]", allowed.join(", "))),
            Rule::Items(from, to) => sized(value.texts(), from, to).then(|| bounds("Member", from, to)),
            Rule::Keys(from, to) => sized(value.entries().into_iter().map(|(key, _)| key).collect(), from, to)
                .then(|| bounds("Map keys", from, to)),
            Rule::Values(from, to) => sized(value.entries().into_iter().map(|(_, value)| value).collect(), from, to)
                .then(|| bounds("Map value", from, to)),
        }
    }
}

/// Java counts a text in UTF-16 code units.
pub fn text_length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

impl Pattern {
    /// As AWS prints it.
    pub fn text(self) -> &'static str {
        match self {
            Pattern::Name => "[a-zA-Z0-9_.-]+",
            Pattern::StreamId => "[a-z0-9]{20}-[a-z0-9]{3}",
            Pattern::StreamArn => r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
            Pattern::ConsumerArn => {
                r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+"
            }
            Pattern::ResourceArn => r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+",
            Pattern::HashKey => r"0|([1-9]\d{0,38})",
            Pattern::SequenceNumber => r"0|([1-9]\d{0,128})",
        }
    }

    pub fn matches(self, text: &str) -> bool {
        match self {
            Pattern::Name => !text.is_empty() && text.bytes().all(is_name_byte),
            Pattern::StreamId => {
                let part = |part: &str, length: usize| {
                    part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                };
                text.split_once('-').is_some_and(|(id, tail)| part(id, 20) && part(tail, 3))
            }
            Pattern::StreamArn => {
                resources(text).any(|resource| resource.strip_prefix("stream/").is_some_and(is_unspaced))
            }
            Pattern::ConsumerArn => resources(text).any(|resource| {
                resource.match_indices("stream/").any(|(at, word)| is_consumer(&resource[at + word.len()..]))
            }),
            Pattern::ResourceArn => resources(text).any(|resource| {
                ["stream/", "channel/", "queue/"]
                    .iter()
                    .any(|word| resource.match_indices(word).any(|(at, _)| is_unspaced(&resource[at + word.len()..])))
            }),
            Pattern::HashKey => is_decimal(text, 39),
            Pattern::SequenceNumber => is_decimal(text, 129),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn is_unspaced(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_ascii_whitespace())
}

/// `name/consumer/name:digits`.
fn is_consumer(text: &str) -> bool {
    let Some((stream, rest)) = text.split_once("/consumer/") else { return false };
    let Some((consumer, created)) = rest.rsplit_once(':') else { return false };
    let is_number = !created.is_empty() && created.bytes().all(|b| b.is_ascii_digit());
    Pattern::Name.matches(stream) && Pattern::Name.matches(consumer) && is_number
}

/// A whole number without leading zeros, of at most `digits` digits.
fn is_decimal(text: &str, digits: usize) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number && text.len() <= digits && (text == "0" || !text.starts_with('0'))
}

/// What can follow `arn:aws.*:kinesis:.*:\d{12}:` in `text`, longest first.
fn resources(text: &str) -> impl Iterator<Item = &str> {
    const SERVICE: &str = ":kinesis:";
    let head = text.strip_prefix("arn:aws").filter(|rest| !rest.contains(['\n', '\r'])).unwrap_or_default();
    // A region, even an empty one, ends with a colon of its own.
    let rest = head.find(SERVICE).map_or("", |at| &head[at + SERVICE.len()..]);
    rest.match_indices(':').filter_map(move |(at, _)| {
        let (account, resource) = rest[at + 1..].split_once(':')?;
        (account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())).then_some(resource)
    })
}

impl Value for i32 {
    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn number(&self) -> Option<i64> {
        Some((*self).into())
    }
}

impl Value for bool {
    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for Timestamp {
    fn shown(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl Value for String {
    fn shown(&self) -> Option<String> {
        Some(self.clone())
    }

    fn length(&self) -> Option<usize> {
        Some(text_length(self))
    }

    fn texts(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Value for Vec<String> {
    fn shown(&self) -> Option<String> {
        Some(format!("[{}]", self.join(", ")))
    }

    fn length(&self) -> Option<usize> {
        Some(self.len())
    }

    fn texts(&self) -> Vec<&str> {
        self.iter().map(String::as_str).collect()
    }
}

impl Value for BTreeMap<String, String> {
    fn shown(&self) -> Option<String> {
        let entries: Vec<_> = self.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Some(format!("{{{}}}", entries.join(", ")))
    }

    fn length(&self) -> Option<usize> {
        Some(self.len())
    }

    fn entries(&self) -> Vec<(&str, &str)> {
        self.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}

/// Declares a request's body: `field: type = "WireName" rules;` for each member, and what names the resource, whose
/// members come last:
///
/// - `about the account`: nothing does;
/// - `about a stream`: StreamName, StreamARN or both (and StreamId, which AWS reserves and does not use);
/// - `about a stream by arn`: StreamARN, required;
/// - `about a resource`: ResourceARN, required;
/// - `about a consumer`: ConsumerARN, or StreamARN with ConsumerName.
macro_rules! input {
    ($(#[$doc:meta])* $name:ident about the account { $($body:tt)* }) => {
        $crate::kinesis::validate::input! { @define [$(#[$doc])*] $name { $($body)* } {
            fn asked(&self) -> $crate::kinesis::arn::Asked<'_> {
                $crate::kinesis::arn::Asked::Account
            }
        } }
    };
    ($(#[$doc:meta])* $name:ident about a stream { $($body:tt)* }) => {
        $crate::kinesis::validate::input! { @define [$(#[$doc])*] $name {
            $($body)*
            stream_name: String = "StreamName" $crate::kinesis::validate::NAME;
            stream_arn: String = "StreamARN" $crate::kinesis::validate::STREAM_ARN;
            stream_id: String = "StreamId" $crate::kinesis::validate::STREAM_ID;
        } {
            fn check_named(&self, found: &mut $crate::kinesis::validate::Violations) {
                if self.stream_name.is_none() && self.stream_arn.is_none() {
                    found.missing("StreamName");
                }
            }

            fn asked(&self) -> $crate::kinesis::arn::Asked<'_> {
                let (name, arn) = (self.stream_name.as_deref(), self.stream_arn.as_deref());
                $crate::kinesis::arn::Asked::Stream { name, arn }
            }
        } }
    };
    ($(#[$doc:meta])* $name:ident about a stream by arn { $($body:tt)* }) => {
        $crate::kinesis::validate::input! { @define [$(#[$doc])*] $name {
            $($body)*
            stream_arn: String = "StreamARN" $crate::kinesis::validate::REQUIRED_STREAM_ARN;
            stream_id: String = "StreamId" $crate::kinesis::validate::STREAM_ID;
        } {
            fn asked(&self) -> $crate::kinesis::arn::Asked<'_> {
                $crate::kinesis::arn::Asked::Stream { name: None, arn: self.stream_arn.as_deref() }
            }
        } }
    };
    ($(#[$doc:meta])* $name:ident about a resource { $($body:tt)* }) => {
        $crate::kinesis::validate::input! { @define [$(#[$doc])*] $name {
            $($body)*
            resource_arn: String = "ResourceARN" $crate::kinesis::validate::RESOURCE_ARN;
            stream_id: String = "StreamId" $crate::kinesis::validate::STREAM_ID;
        } {
            fn asked(&self) -> $crate::kinesis::arn::Asked<'_> {
                $crate::kinesis::arn::Asked::Resource { arn: self.resource_arn.as_deref() }
            }
        } }
    };
    ($(#[$doc:meta])* $name:ident about a consumer { $($body:tt)* }) => {
        $crate::kinesis::validate::input! { @define [$(#[$doc])*] $name {
            $($body)*
            stream_arn: String = "StreamARN" $crate::kinesis::validate::STREAM_ARN;
            consumer_name: String = "ConsumerName" $crate::kinesis::validate::NAME;
            consumer_arn: String = "ConsumerARN" $crate::kinesis::validate::CONSUMER_ARN;
            stream_id: String = "StreamId" $crate::kinesis::validate::STREAM_ID;
        } {
            fn asked(&self) -> $crate::kinesis::arn::Asked<'_> {
                $crate::kinesis::arn::Asked::Consumer {
                    arn: self.consumer_arn.as_deref(),
                    stream_arn: self.stream_arn.as_deref(),
                    name: self.consumer_name.as_deref(),
                }
            }
        } }
    };
    (@define [$(#[$doc:meta])*] $name:ident {
        $($field:ident: $type:ty = $wire:literal $rules:expr;)*
    } { $($items:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(#[serde(rename = $wire)] pub $field: Option<$type>,)*
        }

        impl $crate::kinesis::validate::Input for $name {
            // Some requests have no members to check.
            #[allow(unused_variables)]
            fn check(&self, found: &mut $crate::kinesis::validate::Violations) {
                $(found.member($wire, self.$field.as_ref(), $rules);)*
            }

            $($items)*
        }
    };
}

/// The same for a structure inside a request: only its members.
macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $wire:literal $rules:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
        #[serde(default)]
        pub struct $name {
            $(#[serde(rename = $wire, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl $crate::kinesis::validate::Value for $name {
            /// A structure has no rules of its own.
            fn shown(&self) -> Option<String> {
                None
            }

            fn check_inside(&self, path: &str, found: &mut $crate::kinesis::validate::Violations) {
                $(found.member(&format!("{path}.{}", $wire), self.$field.as_ref(), $rules);)*
            }
        }
    };
}

pub(super) use {input, part};

#[cfg(test)]
mod tests {
    use super::*;

    input! {
        Sample about a stream {
            tags: BTreeMap<String, String> = "Tags"
                &[Rule::Required, Rule::LengthMax(2), Rule::Keys(1, 3), Rule::Values(0, 3)];
            keys: Vec<String> = "TagKeys" &[Rule::LengthMin(1), Rule::Items(1, 3)];
            limit: i32 = "Limit" &[Rule::Min(1), Rule::Max(10)];
            mode: Mode = "ModeDetails" &[];
        }
    }

    part! {
        Mode { mode: String = "StreamMode" &[Rule::Required, Rule::OneOf(&["A", "B"])]; }
    }

    fn told(sample: Sample) -> String {
        match sample.validate() {
            Ok(()) => String::new(),
            Err(Error::Validation(text)) => text,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_violations_are_told_at_once() {
        assert_eq!(
            told(Sample { stream_name: Some(String::new()), limit: Some(0), ..Sample::default() }),
            "4 validation errors detected: Value null at 'tags' failed to satisfy constraint: Member must not be null; \
             Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1; \
             Value '' at 'streamName' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; \
             Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        );
        assert_eq!(
            told(Sample { tags: Some(map(&[("a", "b")])), ..Sample::default() }),
            "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: \
             Member must not be null"
        );
    }

    #[test]
    fn lists_maps_and_structures_are_shown_as_java_shows_them() {
        let sample = Sample {
            stream_arn: Some("arn:aws:kinesis:us-east-1:000000000000:stream/s".to_owned()),
            tags: Some(map(&[("long key", "1"), ("b", "2"), ("c", "long")])),
            keys: Some(vec!["a".to_owned(), "long".to_owned()]),
            mode: Some(Mode { mode: Some("C".to_owned()) }),
            ..Sample::default()
        };
        assert_eq!(
            told(sample),
            "5 validation errors detected: Value '{b=2, c=long, long key=1}' at 'tags' failed to satisfy constraint: \
             Member must have length less than or equal to 2; \
             Value '{b=2, c=long, long key=1}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: \
             [Member must have length less than or equal to 3, Member must have length greater than or equal to 1]; \
             Value '{b=2, c=long, long key=1}' at 'tags' failed to satisfy constraint: Map value must satisfy \
             constraint: [Member must have length less than or equal to 3, Member must have length greater than or equal \
             to 0]; \
             Value '[a, long]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: \
             [Member must have length less than or equal to 3, Member must have length greater than or equal to 1]; \
             Value 'C' at 'modeDetails.streamMode' failed to satisfy constraint: \
             Member must satisfy enum value set: [A, B]"
        );
    }

    #[test]
    fn no_more_than_ten_are_told() {
        let mut found = Violations::default();
        for _ in 0..12 {
            found.missing("Data");
        }
        let Err(Error::Validation(text)) = found.into_result() else { panic!("nothing found") };
        assert!(text.starts_with("10 validation errors detected: Value null at 'data'"), "{text}");
    }

    #[test]
    fn patterns_match_as_the_models_regular_expressions() {
        use Pattern::*;
        let stream = "arn:aws:kinesis:us-east-1:123456789012:stream/a.B_c-1";
        let consumer = format!("{stream}/consumer/c:1700000000");
        for (pattern, text, matches) in [
            (Name, "aZ0_.-", true),
            (Name, "a b", false),
            (Name, "\u{e9}", false),
            (Name, "", false),
            (HashKey, "0", true),
            (HashKey, "01", false),
            (HashKey, &"9".repeat(39), true),
            (HashKey, &"9".repeat(40), false),
            (HashKey, "-1", false),
            (SequenceNumber, &"9".repeat(129), true),
            (StreamId, "abcdefghij0123456789-abc", true),
            (StreamId, "abcdefghij0123456789-ab", false),
            (StreamArn, stream, true),
            (StreamArn, &consumer, true),
            (StreamArn, "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/x", true),
            (StreamArn, "arn:aws:kinesis::123456789012:stream/x", true),
            (StreamArn, "arn:aws:kinesis:123456789012:stream/x", false),
            (StreamArn, "arn:aws:kinesis:us-east-1:12345678901:stream/x", false),
            (StreamArn, "arn:aws:kinesis:us-east-1:123456789012:stream/", false),
            (StreamArn, "arn:aws:kinesis:us-east-1:123456789012:stream/a b", false),
            (StreamArn, "arn:aws:sqs:us-east-1:123456789012:stream/x", false),
            (StreamArn, "arn:aws:kinesis:us-east-1:123456789012:table/x", false),
            (StreamArn, "stream/x", false),
            (ConsumerArn, &consumer, true),
            (ConsumerArn, stream, false),
            (ConsumerArn, &format!("{stream}/consumer/c"), false),
            (ConsumerArn, &format!("{stream}/consumer/c:x"), false),
            (ResourceArn, stream, true),
            (ResourceArn, &consumer, true),
            (ResourceArn, "arn:aws:kinesis:us-east-1:123456789012:queue/x", true),
            (ResourceArn, "arn:aws:kinesis:us-east-1:123456789012:x", false),
        ] {
            assert_eq!(pattern.matches(text), matches, "{pattern:?}: {text}");
        }
    }
}
