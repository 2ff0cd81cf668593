//! Snappy, in the framing of `snappy-java`: a 16-byte header, then blocks, each an i32 length and a raw Snappy block.
//! Without that header the whole input is one raw block.

use std::io::{self, BufRead, Read, Write};

/// The framing's magic. Versions follow it: the writer's, and the oldest a reader must know, both 1.
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// Bytes of input in a block, as `snappy-java` writes them.
const BLOCK: usize = 32 << 10;

/// A copy of 64 bytes takes 3: no sound block inflates further than this, so a length that claims more is a lie.
const INFLATES_AT_MOST: usize = 22;

pub(super) struct Decoder<T> {
    input: io::Cursor<T>,
    framing: Option<Framing>,
    block: Vec<u8>,
    /// How much of the block has been read.
    at: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Java,
    Raw,
}

impl<T: AsRef<[u8]>> Decoder<T> {
    pub(super) fn new(input: io::Cursor<T>) -> Decoder<T> {
        Decoder { input, framing: None, block: Vec::new(), at: 0 }
    }

    /// Inflates the next block; false at the end of the input.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut rest = self.input.fill_buf()?;
        let before = rest.len();
        // Streams may be concatenated, so the header can come again between blocks.
        while self.framing != Some(Framing::Raw) && rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER.len()..).ok_or_else(cut)?;
            self.framing = Some(Framing::Java);
        }
        if rest.is_empty() {
            self.input.consume(before);
            return Ok(false);
        }
        let packed = match self.framing {
            Some(Framing::Java) => {
                let (length, blocks) = rest.split_first_chunk().ok_or_else(cut)?;
                let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| invalid("a negative length"))?;
                let (packed, after) = blocks.split_at_checked(length).ok_or_else(cut)?;
                rest = after;
                packed
            }
            Some(Framing::Raw) | None => {
                self.framing = Some(Framing::Raw);
                std::mem::take(&mut rest)
            }
        };
        inflate(packed, &mut self.block)?;
        let consumed = before - rest.len();
        self.input.consume(consumed);
        self.at = 0;
        Ok(true)
    }
}

fn inflate(packed: &[u8], block: &mut Vec<u8>) -> io::Result<()> {
    let inflated = snap::raw::decompress_len(packed).map_err(io::Error::other)?;
    if inflated > packed.len().saturating_mul(INFLATES_AT_MOST) {
        return Err(invalid("a block that claims an impossible length"));
    }
    block.resize(inflated, 0);
    if inflated > 0 {
        snap::raw::Decoder::new().decompress(packed, block).map_err(io::Error::other)?;
    }
    Ok(())
}

impl<T: AsRef<[u8]>> Read for Decoder<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = self.block.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

pub(super) fn compress(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    output.write_all(&HEADER)?;
    let mut block = Vec::with_capacity(BLOCK);
    let mut encoder = snap::raw::Encoder::new();
    loop {
        block.clear();
        input.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let packed = encoder.compress_vec(&block).map_err(io::Error::other)?;
        output.write_all(&(packed.len() as u32).to_be_bytes())?;
        output.write_all(&packed)?;
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream is cut")
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        Decoder::new(io::Cursor::new(packed)).read_to_end(&mut unpacked)?;
        Ok(unpacked)
    }

    #[test]
    fn raw_blocks_framed_blocks_and_concatenated_streams_are_read() {
        let input = vec![7; 100_000];
        assert_eq!(unpack(&snap::raw::Encoder::new().compress_vec(&input).unwrap()).unwrap(), input);
        let mut twice = Vec::new();
        compress(&input[..], &mut twice).unwrap();
        assert_eq!(unpack(&twice).unwrap(), input);
        compress(&b"again"[..], &mut twice).unwrap();
        assert_eq!(unpack(&twice).unwrap(), [&input[..], b"again"].concat());
    }

    #[test]
    fn a_block_cannot_claim_memory_it_does_not_fill() {
        // A raw block whose preamble claims 4 GiB - 1, with nothing behind it.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61];
        assert_eq!(unpack(&lie).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let framed = [&HEADER[..], &(lie.len() as u32).to_be_bytes(), &lie].concat();
        assert_eq!(unpack(&framed).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn hostile_block_lengths_are_errors() {
        for length in [-1, i32::MIN, i32::MAX, 5] {
            let framed = [&HEADER[..], &length.to_be_bytes(), b"1234"].concat();
            assert!(unpack(&framed).is_err(), "{length}");
        }
        assert!(unpack(&HEADER[..9]).is_err());
    }
}
