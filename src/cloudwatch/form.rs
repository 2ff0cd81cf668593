//! The query protocol's requests: a form whose names are paths, `MetricData.member.1.Dimensions.member.2.Name=...`, read
//! into the same types as JSON and CBOR, over serde.
//!
//! Called by `protocol`. Lists end at the first number that is missing. Memory grows only with what the form holds, and
//! nesting is that of the types.
//!
//! Source: AWS query protocol.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::security::date;

/// The name under which [`crate::http::Timestamp`] asks for milliseconds.
const TIMESTAMP: &str = "Timestamp";

/// Parameters by their names.
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// `None` when it is not text.
    pub fn parse(body: &[u8]) -> Option<Form> {
        let text = std::str::from_utf8(body).ok()?.trim_end();
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        pairs.collect::<Option<_>>().map(Form)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, Malformed> {
        T::deserialize(Place { form: self, path: String::new() })
    }

    /// Whether there is anything at the path or below it.
    fn holds(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.0.contains_key(path)
            || self.0.range(below.clone()..).next().is_some_and(|(key, _)| key.starts_with(&below))
    }
}

/// Why a form is not what the operation takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl serde::de::Error for Malformed {
    fn custom<T: fmt::Display>(message: T) -> Malformed {
        Malformed(message.to_string())
    }
}

/// A value of the form.
struct Place<'de> {
    form: &'de Form,
    path: String,
}

impl<'de> Place<'de> {
    fn text(&self) -> Result<&'de str, Malformed> {
        let missing = || Malformed(format!("The parameter {} has no value.", self.path));
        self.form.get(&self.path).ok_or_else(missing)
    }

    fn parse<T: std::str::FromStr>(&self, what: &str) -> Result<T, Malformed> {
        let text = self.text()?;
        text.trim()
            .parse()
            .map_err(|_| Malformed(format!("{text} is no {what}, as the parameter {} takes.", self.path)))
    }

    fn child(&self, name: &str) -> Place<'de> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Place { form: self.form, path }
    }
}

impl<'de> Deserializer<'de> for Place<'de> {
    type Error = Malformed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_bool(self.parse("boolean")?)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_i32(self.parse("whole number")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_f64(self.parse("number")?)
    }

    /// Asked for only where there is something.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        if name != TIMESTAMP {
            return visitor.visit_newtype_struct(self);
        }
        let text = self.text()?;
        let ms = date::parse_iso(text.trim());
        visitor.visit_i64(
            ms.ok_or_else(|| Malformed(format!("{text} is no time, as the parameter {} takes.", self.path)))?,
        )
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_seq(Members { place: self, next: 1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        visitor.visit_map(Fields { place: self, rest: fields, current: None })
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct map
        enum identifier ignored_any
    }
}

struct Members<'de> {
    place: Place<'de>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Members<'de> {
    type Error = Malformed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Malformed> {
        let member = self.place.child(&format!("member.{}", self.next));
        if !self.place.form.holds(&member.path) {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(member).map(Some)
    }
}

struct Fields<'de> {
    place: Place<'de>,
    rest: &'static [&'static str],
    current: Option<Place<'de>>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Malformed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Malformed> {
        while let Some((name, rest)) = self.rest.split_first() {
            self.rest = rest;
            let field = self.place.child(name);
            if field.form.holds(&field.path) {
                self.current = Some(field);
                return seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Malformed> {
        match self.current.take() {
            Some(field) => seed.deserialize(field),
            None => Err(Malformed("a value without a name".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Timestamp;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Outer {
        name: Option<String>,
        inner: Option<Vec<Inner>>,
        empty: Option<Vec<Inner>>,
        at: Option<Timestamp>,
        yes: Option<bool>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inner {
        count: Option<i32>,
        values: Option<Vec<f64>>,
    }

    #[test]
    fn names_are_paths() {
        let body = "Action=X&Name=a%20b+c%26&Inner.member.1.Count=3&Inner.member.2.Values.member.1=1.5&\
                    Inner.member.2.Values.member.2=-2e3&Inner.member.4.Count=9&Empty=&At=1970-01-02T00%3A00%3A00.5Z&\
                    Yes=true&Other=1\n";
        let form = Form::parse(body.as_bytes()).unwrap();
        let inner =
            vec![Inner { count: Some(3), values: None }, Inner { count: None, values: Some(vec![1.5, -2_000.0]) }];
        let outer = Outer {
            name: Some("a b c&".into()),
            inner: Some(inner),
            empty: Some(Vec::new()),
            at: Some(Timestamp(86_400_500)),
            yes: Some(true),
        };
        assert_eq!(form.read::<Outer>(), Ok(outer));
        assert_eq!(form.get("Action"), Some("X"));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (body, text) in [
            ("Inner.member.1.Count=x", "x is no whole number, as the parameter Inner.member.1.Count takes."),
            ("At=now", "now is no time, as the parameter At takes."),
            ("Name.member.1=x", "The parameter Name has no value."),
        ] {
            assert_eq!(Form::parse(body.as_bytes()).unwrap().read::<Outer>(), Err(Malformed(text.to_owned())));
        }
        assert!(Form::parse(b"a=%ff").is_none() && Form::parse(b"\xff").is_none());
    }
}
