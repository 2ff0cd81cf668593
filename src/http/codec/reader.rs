//! The serde side of decoding, the same for both formats: what AWS makes of each kind of value where it expects another.

use std::borrow::Cow;
use std::fmt;

use base64::DecodeError;
use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The name under which [`Timestamp`](super::Timestamp) asks for milliseconds.
pub(super) const TIMESTAMP: &str = "Timestamp";
/// Levels of nesting; Kinesis has four.
const DEPTH_MAX: usize = 100;

/// Why a body is refused: AWS's text, or `None` where AWS has none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) Option<String>);

/// The next value of a body, its list or structure only opened.
pub(super) enum Item<'de> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'de, str>),
    Bytes(Cow<'de, [u8]>),
    /// Milliseconds since 1970, said to be a time.
    Time(i64),
    List(Place),
    Map(Place),
}

/// Where reading stands in a list or structure.
pub(super) struct Place {
    /// Elements (or pairs) still to come, where the format says it beforehand.
    pub(super) left: Option<u64>,
    pub(super) is_first: bool,
}

/// A format.
pub(super) trait Source<'de> {
    /// Milliseconds in a time that is written as a bare 1.
    const TIME_UNIT_MS: i64;
    /// Whether blobs are base64 in a text.
    const TEXT_BLOBS: bool;

    fn item(&mut self) -> Result<Item<'de>, Malformed>;
    /// Whether an element follows in the list; past the end, the list is closed.
    fn element(&mut self, place: &mut Place) -> Result<bool, Malformed>;
    /// The next member's name; `None` closes the structure.
    fn member(&mut self, place: &mut Place) -> Result<Option<Cow<'de, str>>, Malformed>;
    /// Takes the next value if it is null.
    fn null(&mut self) -> Result<bool, Malformed>;
    /// Refuses anything behind the value.
    fn end(&mut self) -> Result<(), Malformed>;
}

/// What a member is to be, in AWS's words.
#[derive(Clone, Copy)]
enum Kind {
    Boolean,
    Integer,
    Long,
    Double,
    String,
    Blob,
    Timestamp,
    List,
    Map,
    Structure,
}

pub(super) struct Reader<S> {
    source: S,
    depth: usize,
}

impl<'de, S: Source<'de>> Reader<S> {
    pub(super) fn new(source: S) -> Reader<S> {
        Reader { source, depth: 0 }
    }

    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.source.end()
    }

    pub(super) fn holds_document(mut self) -> bool {
        let mut skip = || {
            match self.source.item()? {
                Item::List(place) => self.skip_list(place)?,
                Item::Map(place) => self.skip_map(place)?,
                _ => return Err(Malformed(None)),
            }
            self.source.end()
        };
        skip().is_ok()
    }

    fn enter(&mut self) -> Result<(), Malformed> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Malformed(None)) } else { Ok(()) }
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        match self.source.item()? {
            Item::List(place) => self.skip_list(place),
            Item::Map(place) => self.skip_map(place),
            Item::Null
            | Item::Bool(_)
            | Item::Integer(_)
            | Item::Float(_)
            | Item::Text(_)
            | Item::Bytes(_)
            | Item::Time(_) => Ok(()),
        }
    }

    fn skip_list(&mut self, mut place: Place) -> Result<(), Malformed> {
        self.enter()?;
        while self.source.element(&mut place)? {
            self.skip()?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn skip_map(&mut self, mut place: Place) -> Result<(), Malformed> {
        self.enter()?;
        while self.source.member(&mut place)?.is_some() {
            self.skip()?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// A whole number, truncated towards the smaller as AWS does.
    fn whole(&mut self, kind: Kind) -> Result<i64, Malformed> {
        match self.source.item()? {
            Item::Integer(number) => Ok(number),
            Item::Float(number) => Ok(number.floor() as i64),
            other => Err(mismatch(&other, kind)),
        }
    }

    fn list<V: Visitor<'de>>(&mut self, place: Place, visitor: V) -> Result<V::Value, Malformed> {
        self.enter()?;
        let value = visitor.visit_seq(Elements { reader: self, place })?;
        self.depth -= 1;
        Ok(value)
    }

    fn map<V: Visitor<'de>>(&mut self, place: Place, skips_nulls: bool, visitor: V) -> Result<V::Value, Malformed> {
        self.enter()?;
        let value = visitor.visit_map(Members { reader: self, place, skips_nulls })?;
        self.depth -= 1;
        Ok(value)
    }
}

/// AWS's text for a value where another kind is expected.
fn mismatch(found: &Item<'_>, kind: Kind) -> Malformed {
    let class = match found {
        // Where a null may stand, it was taken before.
        Item::Null => return Malformed(None),
        Item::List(_) => return text("Start of list found where not expected"),
        Item::Map(_) => return text("Start of structure or map found where not expected."),
        Item::Bool(_) => "java.lang.Boolean",
        Item::Integer(_) | Item::Float(_) => "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
        Item::Text(_) => "java.lang.String",
        Item::Bytes(_) => "java.nio.ByteBuffer",
        Item::Time(_) => "java.util.Date",
    };
    let wanted = match kind {
        Kind::Boolean => match found {
            Item::Text(text) => {
                let text = text.to_uppercase();
                return Malformed(Some(format!("'{text}' can not be converted to an Boolean")));
            }
            _ => "an Boolean",
        },
        Kind::Integer => "an Integer",
        Kind::Long => "an Long",
        Kind::Double => "an Double",
        Kind::String => "an String",
        Kind::Blob => "a Blob",
        Kind::Timestamp => "milliseconds since epoch",
        Kind::List => return text("Expected list or null"),
        Kind::Map => return text("Expected map or null"),
        Kind::Structure => return text("Expected null"),
    };
    Malformed(Some(format!("class {class} can not be converted to {wanted}")))
}

fn text(text: &str) -> Malformed {
    Malformed(Some(text.to_owned()))
}

/// The bytes of a base64 text, or AWS's text for what is wrong with it.
fn blob(text: &str) -> Result<Vec<u8>, Malformed> {
    super::base64::decode(text.as_bytes()).map_err(|error| {
        let character = |at: usize| text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or('=');
        let why = match error {
            _ if !text.len().is_multiple_of(4) => {
                format!("Base64 encoded length is expected a multiple of 4 bytes but found: {}", text.len())
            }
            DecodeError::InvalidByte(at, _) => format!("Invalid Base64 character: '{}'", character(at)),
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => "Invalid Base64 character: '='".to_owned(),
            // The spelling is AWS's.
            DecodeError::InvalidLastSymbol(..) => "Invalid last non-pad Base64 character dectected".to_owned(),
        };
        Malformed(Some(format!("'{text}' can not be converted to a Blob: {why}")))
    })
}

/// What AWS takes for a Boolean beside the two.
fn boolean(text: &str) -> Option<bool> {
    let is = |word: &&str| text.eq_ignore_ascii_case(word);
    if ["true", "1", "yes"].iter().any(is) {
        return Some(true);
    }
    ["false", "0", "no"].iter().any(is).then_some(false)
}

macro_rules! whole_numbers {
    ($($method:ident $kind:ident $least:expr, $most:expr;)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
            visitor.visit_i64(self.whole(Kind::$kind)?.clamp($least, $most))
        })+
    };
}

impl<'de, S: Source<'de>> Deserializer<'de> for &mut Reader<S> {
    type Error = Malformed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Null => visitor.visit_unit(),
            Item::Bool(value) => visitor.visit_bool(value),
            Item::Integer(number) | Item::Time(number) => visitor.visit_i64(number),
            Item::Float(number) => visitor.visit_f64(number),
            Item::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Item::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Item::Bytes(Cow::Borrowed(bytes)) => visitor.visit_borrowed_bytes(bytes),
            Item::Bytes(Cow::Owned(bytes)) => visitor.visit_byte_buf(bytes),
            Item::List(place) => self.list(place, visitor),
            Item::Map(place) => self.map(place, false, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Bool(value) => visitor.visit_bool(value),
            // AWS refuses whole numbers, but not others.
            Item::Float(number) => visitor.visit_bool(number != 0.0),
            Item::Text(text) => match boolean(&text) {
                Some(value) => visitor.visit_bool(value),
                None => Err(mismatch(&Item::Text(text), Kind::Boolean)),
            },
            other => Err(mismatch(&other, Kind::Boolean)),
        }
    }

    whole_numbers! {
        deserialize_i8 Integer i8::MIN.into(), i8::MAX.into();
        deserialize_i16 Integer i16::MIN.into(), i16::MAX.into();
        deserialize_i32 Integer i32::MIN.into(), i32::MAX.into();
        deserialize_i64 Long i64::MIN, i64::MAX;
        deserialize_u8 Integer 0, u8::MAX.into();
        deserialize_u16 Integer 0, u16::MAX.into();
        deserialize_u32 Integer 0, u32::MAX.into();
        deserialize_u64 Long 0, i64::MAX;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Integer(number) => visitor.visit_f64(number as f64),
            Item::Float(number) => visitor.visit_f64(number),
            other => Err(mismatch(&other, Kind::Double)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Item::Text(Cow::Owned(text)) => visitor.visit_string(text),
            other => Err(mismatch(&other, Kind::String)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Bytes(Cow::Borrowed(bytes)) => visitor.visit_borrowed_bytes(bytes),
            Item::Bytes(Cow::Owned(bytes)) => visitor.visit_byte_buf(bytes),
            Item::Text(text) if S::TEXT_BLOBS => visitor.visit_byte_buf(blob(&text)?),
            other => Err(mismatch(&other, Kind::Blob)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        if self.source.null()? { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        if name != TIMESTAMP {
            return visitor.visit_newtype_struct(self);
        }
        match self.source.item()? {
            Item::Integer(number) => visitor.visit_i64(number.saturating_mul(S::TIME_UNIT_MS)),
            // A fraction is always one of a second.
            Item::Float(number) => visitor.visit_i64((number * 1_000.0).round() as i64),
            Item::Time(ms) => visitor.visit_i64(ms),
            other => Err(mismatch(&other, Kind::Timestamp)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::List(place) => self.list(place, visitor),
            other => Err(mismatch(&other, Kind::List)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Map(place) => self.map(place, false, visitor),
            other => Err(mismatch(&other, Kind::Map)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        match self.source.item()? {
            Item::Map(place) => self.map(place, true, visitor),
            other => Err(mismatch(&other, Kind::Structure)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        S::TEXT_BLOBS
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char unit unit_struct tuple tuple_struct enum identifier
    }
}

struct Elements<'a, S> {
    reader: &'a mut Reader<S>,
    place: Place,
}

impl<'de, S: Source<'de>> SeqAccess<'de> for Elements<'_, S> {
    type Error = Malformed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Malformed> {
        match self.reader.source.element(&mut self.place)? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

struct Members<'a, S> {
    reader: &'a mut Reader<S>,
    place: Place,
    /// In a structure a null says that the member is absent; in a map it is a value.
    skips_nulls: bool,
}

impl<'de, S: Source<'de>> MapAccess<'de> for Members<'_, S> {
    type Error = Malformed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Malformed> {
        loop {
            let Some(name) = self.reader.source.member(&mut self.place)? else { return Ok(None) };
            if self.skips_nulls && self.reader.source.null()? {
                continue;
            }
            let key = match name {
                Cow::Borrowed(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
                Cow::Owned(name) => seed.deserialize(StringDeserializer::new(name)),
            };
            return key.map(Some);
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Malformed> {
        seed.deserialize(&mut *self.reader)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("malformed"))
    }
}

impl std::error::Error for Malformed {}

impl serde::de::Error for Malformed {
    fn custom<T: fmt::Display>(message: T) -> Malformed {
        Malformed(Some(message.to_string()))
    }
}
