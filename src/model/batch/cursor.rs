//! Bounded readers: over bytes in memory, and over what a codec inflates.

use std::io::{ErrorKind, Read};

use bytes::{Bytes, BytesMut};

use super::codec::Codec;
use super::error::RecordFault;

/// How much of an inflated stream is held at a time.
const WINDOW: usize = 16 << 10;

/// Reads forward through the records of a batch; never beyond what is really there.
pub(super) trait Cursor {
    /// Bytes read so far.
    fn position(&self) -> u64;
    fn byte(&mut self) -> Result<u8, RecordFault>;
    fn skip(&mut self, len: u64) -> Result<(), RecordFault>;
    fn at_end(&mut self) -> Result<bool, RecordFault>;

    /// A zigzag varint of at most 32 bits.
    fn varint(&mut self) -> Result<i32, RecordFault> {
        let mut raw = u32::from(self.byte()?);
        if raw >= 0x80 {
            raw &= 0x7f;
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                if shift == 28 && byte > 0x0f {
                    return Err(RecordFault::Varint);
                }
                raw |= u32::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
            }
        }
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A zigzag varint of at most 64 bits.
    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let mut raw = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 0x01 {
                return Err(RecordFault::Varint);
            }
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
            shift += 7;
        }
    }
}

/// A cursor that can also hand out what it passes.
pub(super) trait Take: Cursor {
    fn take(&mut self, len: u64) -> Result<Bytes, RecordFault>;
}

/// Over bytes in memory.
pub(super) struct Slice<T> {
    bytes: T,
    at: usize,
}

impl<T: AsRef<[u8]>> Slice<T> {
    pub(super) fn new(bytes: T) -> Slice<T> {
        Slice { bytes, at: 0 }
    }

    /// Where the next `len` bytes end.
    fn end_of(&self, len: u64) -> Result<usize, RecordFault> {
        let len = usize::try_from(len).map_err(|_| RecordFault::Cut)?;
        self.at.checked_add(len).filter(|end| *end <= self.bytes.as_ref().len()).ok_or(RecordFault::Cut)
    }
}

impl<T: AsRef<[u8]>> Cursor for Slice<T> {
    fn position(&self) -> u64 {
        self.at as u64
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, RecordFault> {
        let byte = *self.bytes.as_ref().get(self.at).ok_or(RecordFault::Cut)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, len: u64) -> Result<(), RecordFault> {
        self.at = self.end_of(len)?;
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool, RecordFault> {
        Ok(self.at == self.bytes.as_ref().len())
    }
}

impl Take for Slice<Bytes> {
    fn take(&mut self, len: u64) -> Result<Bytes, RecordFault> {
        let start = self.at;
        self.at = self.end_of(len)?;
        Ok(self.bytes.slice(start..self.at))
    }
}

/// Over what a codec inflates, through a window of fixed size.
pub(super) struct Inflated<R> {
    codec: Codec,
    source: R,
    window: Vec<u8>,
    /// The part of the window that is filled and not yet read.
    start: usize,
    end: usize,
    /// Bytes inflated before this window.
    before: u64,
    inflated_max: u64,
}

impl<R: Read> Inflated<R> {
    /// `inflated_max` caps the bytes that the source may give in all.
    pub(super) fn new(codec: Codec, source: R, inflated_max: u64) -> Inflated<R> {
        Inflated { codec, source, window: vec![0; WINDOW], start: 0, end: 0, before: 0, inflated_max }
    }

    /// What is left in the window, filled again when nothing is; empty at the end.
    #[inline]
    fn available(&mut self) -> Result<&[u8], RecordFault> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(self.window.get(self.start..self.end).unwrap_or_default())
    }

    #[cold]
    fn refill(&mut self) -> Result<(), RecordFault> {
        self.before += self.end as u64;
        self.start = 0;
        self.end = 0;
        self.end = loop {
            match self.source.read(&mut self.window) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(RecordFault::Decompress { codec: self.codec, reason: error.to_string() }),
            }
        };
        if self.before + self.end as u64 > self.inflated_max {
            return Err(RecordFault::InflatesTooMuch(self.inflated_max));
        }
        Ok(())
    }

    /// Passes `len` bytes, piece by piece as they come.
    fn pass(&mut self, mut len: u64, mut piece: impl FnMut(&[u8])) -> Result<(), RecordFault> {
        while len > 0 {
            let available = self.available()?;
            let count = available.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(RecordFault::Cut);
            }
            piece(available.get(..count).unwrap_or_default());
            self.start += count;
            len -= count as u64;
        }
        Ok(())
    }
}

impl<R: Read> Cursor for Inflated<R> {
    fn position(&self) -> u64 {
        self.before + self.start as u64
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, RecordFault> {
        let byte = *self.available()?.first().ok_or(RecordFault::Cut)?;
        self.start += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, len: u64) -> Result<(), RecordFault> {
        if len <= (self.end - self.start) as u64 {
            self.start += len as usize;
            return Ok(());
        }
        self.pass(len, |_| ())
    }

    fn at_end(&mut self) -> Result<bool, RecordFault> {
        Ok(self.available()?.is_empty())
    }
}

impl<R: Read> Take for Inflated<R> {
    fn take(&mut self, len: u64) -> Result<Bytes, RecordFault> {
        // Grows with what really comes, whatever length was claimed.
        let mut taken = BytesMut::with_capacity(usize::try_from(len).unwrap_or(WINDOW).min(WINDOW));
        self.pass(len, |piece| taken.extend_from_slice(piece))?;
        Ok(taken.freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::varint;
    use super::*;

    /// A reader that gives one byte at a time, so that every boundary is met.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }

    fn inflated(bytes: &[u8], max: u64) -> Inflated<Drip<'_>> {
        Inflated::new(Codec::Gzip, Drip(bytes), max)
    }

    proptest! {
        #[test]
        fn varints_come_back(value in any::<i64>(), small in any::<i32>()) {
            let (long, short) = (varint(value), varint(small.into()));
            prop_assert_eq!(Slice::new(&long).varlong(), Ok(value));
            prop_assert_eq!(inflated(&long, 100).varlong(), Ok(value));
            prop_assert_eq!(Slice::new(&short).varint(), Ok(small));
            prop_assert_eq!(inflated(&short, 100).varint(), Ok(small));
            prop_assert_eq!(Slice::new(&long[..long.len() - 1]).varlong(), Err(RecordFault::Cut));
        }
    }

    #[test]
    fn varints_are_bounded() {
        for value in [i32::MIN, -1, 0, 63, 64, i32::MAX] {
            assert_eq!(Slice::new(varint(value.into())).varint(), Ok(value));
        }
        assert_eq!(Slice::new(varint(i64::from(i32::MAX) + 1)).varint(), Err(RecordFault::Varint));
        assert_eq!(Slice::new([0xff; 20]).varint(), Err(RecordFault::Varint));
        assert_eq!(Slice::new([0xff; 20]).varlong(), Err(RecordFault::Varint));
    }

    #[test]
    fn both_cursors_stop_at_the_end() {
        let bytes = Bytes::from_static(b"0123456789");
        let mut slice = Slice::new(bytes.clone());
        let mut stream = inflated(&bytes, 10);
        fn drive(cursor: &mut impl Take) {
            cursor.skip(2).unwrap();
            assert_eq!(cursor.take(3).unwrap(), "234");
            assert_eq!((cursor.byte(), cursor.position(), cursor.at_end()), (Ok(b'5'), 6, Ok(false)));
            cursor.skip(4).unwrap();
            assert_eq!(cursor.at_end(), Ok(true));
            assert_eq!(cursor.byte(), Err(RecordFault::Cut));
            assert_eq!(cursor.take(u64::MAX), Err(RecordFault::Cut));
            assert_eq!(cursor.skip(u64::MAX), Err(RecordFault::Cut));
        }
        drive(&mut slice);
        drive(&mut stream);
    }

    #[test]
    fn a_stream_is_read_up_to_its_cap() {
        assert_eq!(inflated(b"0123456789", 10).skip(10), Ok(()));
        assert_eq!(inflated(b"0123456789", 9).skip(10), Err(RecordFault::InflatesTooMuch(9)));
        assert_eq!(inflated(b"0123456789", 9).skip(9), Ok(()));
    }
}
