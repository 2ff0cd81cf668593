//! CBOR (RFC 8949) as a [`Source`], as AWS SDKs write it: lists, maps and strings of known or unknown length, times as
//! tag 1 with whole milliseconds.

use std::borrow::Cow;

use super::reader::{Item, Malformed, Place, Source};

const BREAK: u8 = 0xff;
const NULL: u8 = 0xf6;
const UNDEFINED: u8 = 0xf7;
const TAG_TIME: u64 = 1;
/// Tags before one value.
const TAGS_MAX: usize = 8;

pub(super) struct Cbor<'de> {
    /// What is still to be read.
    rest: &'de [u8],
    /// Milliseconds in a tagged time that is a whole 1.
    time_unit_ms: i64,
}

/// A value's first bytes.
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    /// The low five bits.
    minor: u8,
    /// The number that follows; `None`: of unknown length.
    argument: Option<u64>,
}

impl<'de> Cbor<'de> {
    pub(super) fn new(body: &'de [u8]) -> Cbor<'de> {
        Cbor { rest: body, time_unit_ms: 1 }
    }

    /// As in Smithy's RPC v2: tagged times are seconds, as RFC 8949 has them.
    pub(super) fn in_seconds(body: &'de [u8]) -> Cbor<'de> {
        Cbor { rest: body, time_unit_ms: 1_000 }
    }

    fn take(&mut self, length: u64) -> Result<&'de [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed(None))?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed(None))?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, Malformed> {
        let first = self.take(1)?.iter().fold(0, |_, byte| *byte);
        let (major, minor) = (first >> 5, first & 0x1f);
        let argument = match minor {
            0..24 => Some(u64::from(minor)),
            24..28 => {
                let bytes = self.take(1 << (minor - 24))?;
                Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            31 if (2..6).contains(&major) => None,
            _ => return Err(Malformed(None)),
        };
        Ok(Head { major, minor, argument })
    }

    /// A byte or text string whose head was read.
    fn string(&mut self, head: Head) -> Result<Cow<'de, [u8]>, Malformed> {
        if let Some(length) = head.argument {
            return self.take(length).map(Cow::Borrowed);
        }
        let mut pieces = Cow::Borrowed(&[][..]);
        while !self.is_break() {
            let piece = self.head()?;
            let length = piece.argument.filter(|_| piece.major == head.major).ok_or(Malformed(None))?;
            let bytes = self.take(length)?;
            match pieces.is_empty() {
                true => pieces = Cow::Borrowed(bytes),
                false => pieces.to_mut().extend_from_slice(bytes),
            }
        }
        Ok(pieces)
    }

    fn text(&mut self, head: Head) -> Result<Cow<'de, str>, Malformed> {
        match self.string(head)? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Malformed(None)),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Malformed(None)),
        }
    }

    /// Takes a break if it is next.
    fn is_break(&mut self) -> bool {
        match self.rest {
            [BREAK, rest @ ..] => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Whether something follows in a list or map.
    fn follows(&mut self, place: &mut Place) -> bool {
        match &mut place.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => !self.is_break(),
        }
    }

    /// A value whose head was read, tags apart.
    fn untagged(&mut self, head: Head) -> Result<Item<'de>, Malformed> {
        let argument = head.argument.unwrap_or_default();
        let whole = || i64::try_from(argument).unwrap_or(i64::MAX);
        Ok(match head.major {
            0 => Item::Integer(whole()),
            1 => Item::Integer(-1 - whole()),
            2 => Item::Bytes(self.string(head)?),
            3 => Item::Text(self.text(head)?),
            4 => Item::List(Place { left: head.argument, is_first: true }),
            5 => Item::Map(Place { left: head.argument, is_first: true }),
            7 => match head.minor {
                20 => Item::Bool(false),
                21 => Item::Bool(true),
                22 | 23 => Item::Null,
                25 => Item::Float(half(argument as u16)),
                26 => Item::Float(f32::from_bits(argument as u32).into()),
                27 => Item::Float(f64::from_bits(argument)),
                _ => return Err(Malformed(None)),
            },
            _ => return Err(Malformed(None)),
        })
    }
}

impl<'de> Source<'de> for Cbor<'de> {
    const TIME_UNIT_MS: i64 = 1;
    const TEXT_BLOBS: bool = false;

    fn item(&mut self) -> Result<Item<'de>, Malformed> {
        let mut is_time = false;
        for _ in 0..=TAGS_MAX {
            let head = self.head()?;
            if head.major == 6 {
                is_time |= head.argument == Some(TAG_TIME);
                continue;
            }
            return Ok(match self.untagged(head)? {
                Item::Integer(time) if is_time => Item::Time(time.saturating_mul(self.time_unit_ms)),
                other => other,
            });
        }
        Err(Malformed(None))
    }

    fn element(&mut self, place: &mut Place) -> Result<bool, Malformed> {
        Ok(self.follows(place))
    }

    fn member(&mut self, place: &mut Place) -> Result<Option<Cow<'de, str>>, Malformed> {
        if !self.follows(place) {
            return Ok(None);
        }
        let head = self.head()?;
        if head.major != 3 {
            return Err(Malformed(None));
        }
        self.text(head).map(Some)
    }

    fn null(&mut self) -> Result<bool, Malformed> {
        match self.rest {
            [NULL | UNDEFINED, rest @ ..] => {
                self.rest = rest;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn end(&mut self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(None)) }
    }
}

/// A number of 16 bits: sign, 5 of exponent, 10 of mantissa.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1_024.0) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}
