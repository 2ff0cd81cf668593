//! JSON (RFC 8259) as a [`Source`].

use std::borrow::Cow;

use super::reader::{Item, Malformed, Place, Source};
use super::scan::plain_length;

pub(super) struct Json<'de> {
    /// What is still to be read.
    rest: &'de [u8],
}

impl<'de> Json<'de> {
    pub(super) fn new(body: &'de [u8]) -> Json<'de> {
        Json { rest: body }
    }

    /// The next byte that is no white space, not taken.
    fn peek(&mut self) -> Option<u8> {
        let blanks = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.skip(blanks);
        self.rest.first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn require(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed(None));
        }
        self.skip(1);
        Ok(())
    }

    fn word(&mut self, word: &[u8], item: Item<'de>) -> Result<Item<'de>, Malformed> {
        self.rest = self.rest.strip_prefix(word).ok_or(Malformed(None))?;
        Ok(item)
    }

    /// A text, its opening quote first.
    fn text(&mut self) -> Result<Cow<'de, str>, Malformed> {
        self.require(b'"')?;
        let plain = self.plain()?;
        if self.rest.first() == Some(&b'"') {
            self.skip(1);
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        while self.rest.first() == Some(&b'\\') {
            self.skip(1);
            text.push(self.escaped()?);
            text.push_str(self.plain()?);
        }
        match self.rest.first() {
            Some(b'"') => self.skip(1),
            _ => return Err(Malformed(None)),
        }
        Ok(Cow::Owned(text))
    }

    /// The characters of a text up to a quote, an escape or the end.
    fn plain(&mut self) -> Result<&'de str, Malformed> {
        let (plain, rest) = self.rest.split_at_checked(plain_length(self.rest)).ok_or(Malformed(None))?;
        self.rest = rest;
        std::str::from_utf8(plain).map_err(|_| Malformed(None))
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, Malformed> {
        let escape = self.rest.first().copied().ok_or(Malformed(None))?;
        self.skip(1);
        Ok(match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hexadecimal()?;
                let code = match first {
                    0xd800..0xdc00 => {
                        self.rest = self.rest.strip_prefix(b"\\u").ok_or(Malformed(None))?;
                        let low = self.hexadecimal()?.checked_sub(0xdc00).filter(|low| *low < 0x400);
                        0x1_0000 + ((first - 0xd800) << 10) + low.ok_or(Malformed(None))?
                    }
                    other => other,
                };
                char::from_u32(code).ok_or(Malformed(None))?
            }
            _ => return Err(Malformed(None)),
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, Malformed> {
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(Malformed(None))?;
        self.rest = rest;
        digits
            .iter()
            .try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
            .ok_or(Malformed(None))
    }

    fn number(&mut self) -> Result<Item<'de>, Malformed> {
        let body = self.rest;
        let start = self.rest.len();
        self.rest = self.rest.strip_prefix(b"-").unwrap_or(self.rest);
        let whole = self.digits();
        if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
            return Err(Malformed(None));
        }
        let mut is_integer = true;
        if let Some(rest) = self.rest.strip_prefix(b".") {
            (self.rest, is_integer) = (rest, false);
            if self.digits().is_empty() {
                return Err(Malformed(None));
            }
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            (self.rest, is_integer) = (rest, false);
            if let [b'+' | b'-', rest @ ..] = self.rest {
                self.rest = rest;
            }
            if self.digits().is_empty() {
                return Err(Malformed(None));
            }
        }
        let text = body.get(..start - self.rest.len()).and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or(Malformed(None))?;
        match text.parse() {
            Ok(number) if is_integer => Ok(Item::Integer(number)),
            // Beyond 64 bits a number is clamped, which the conversion from a float does as well.
            _ => text.parse().map(Item::Float).map_err(|_| Malformed(None)),
        }
    }

    fn digits(&mut self) -> &'de [u8] {
        let length = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        self.rest = rest;
        digits
    }

    /// Whether something follows in a list or structure that `close` ends.
    fn follows(&mut self, place: &mut Place, close: u8) -> Result<bool, Malformed> {
        let next = self.peek().ok_or(Malformed(None))?;
        if next == close {
            self.skip(1);
            return Ok(false);
        }
        if !std::mem::replace(&mut place.is_first, false) {
            self.require(b',')?;
        }
        Ok(true)
    }
}

impl<'de> Source<'de> for Json<'de> {
    const TIME_UNIT_MS: i64 = 1_000;
    const TEXT_BLOBS: bool = true;

    fn item(&mut self) -> Result<Item<'de>, Malformed> {
        match self.peek() {
            Some(b'"') => self.text().map(Item::Text),
            Some(b'{') => self.word(b"{", Item::Map(Place { left: None, is_first: true })),
            Some(b'[') => self.word(b"[", Item::List(Place { left: None, is_first: true })),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Item::Bool(true)),
            Some(b'f') => self.word(b"false", Item::Bool(false)),
            Some(b'n') => self.word(b"null", Item::Null),
            _ => Err(Malformed(None)),
        }
    }

    fn element(&mut self, place: &mut Place) -> Result<bool, Malformed> {
        self.follows(place, b']')
    }

    fn member(&mut self, place: &mut Place) -> Result<Option<Cow<'de, str>>, Malformed> {
        if !self.follows(place, b'}')? {
            return Ok(None);
        }
        let name = self.text()?;
        self.require(b':')?;
        Ok(Some(name))
    }

    fn null(&mut self) -> Result<bool, Malformed> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word(b"null", Item::Null).map(|_| true)
    }

    fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_some() { Err(Malformed(None)) } else { Ok(()) }
    }
}
