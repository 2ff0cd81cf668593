//! LZ4 frames of independent blocks.

use std::io::{self, BufRead, Read, Write};

use lz4::liblz4::BlockChecksum;
use lz4::{BlockMode, BlockSize, ContentChecksum, EncoderBuilder};

use super::{LZ4_LEVEL_DEFAULT, LZ4_LEVELS};

/// The descriptor's flags: the byte after the frame's 4-byte magic.
const FLAGS_AT: usize = 4;
const INDEPENDENT_BLOCKS: u8 = 0x20;

/// liblz4's level that means its fast compressor.
const FAST: u32 = 0;

/// liblz4's lowest level that means its thorough compressor.
const THOROUGH_FROM: u32 = 3;

pub(super) struct Decoder<R: Read> {
    /// Gone once the frame has ended.
    frame: Option<lz4::Decoder<R>>,
}

impl<T: AsRef<[u8]>> Decoder<io::Cursor<T>> {
    /// Java's client cannot read linked blocks, so such a frame would make its batch unreadable for those consumers.
    pub(super) fn new(mut input: io::Cursor<T>) -> io::Result<Decoder<io::Cursor<T>>> {
        match input.fill_buf()?.get(FLAGS_AT) {
            Some(flags) if flags & INDEPENDENT_BLOCKS != 0 => Ok(Decoder { frame: Some(lz4::Decoder::new(input)?) }),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of linked blocks")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(frame) = &mut self.frame else {
            return Ok(0);
        };
        let count = frame.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        // liblz4's reader ends in the same way at the end of the frame and where the frame is cut; only `finish` tells.
        match self.frame.take().map(lz4::Decoder::finish) {
            Some((_, Err(_))) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the frame is cut")),
            Some((_, Ok(()))) | None => Ok(0),
        }
    }
}

pub(super) fn compress(level: i32, mut input: impl BufRead, output: impl Write) -> io::Result<()> {
    let level = match level {
        LZ4_LEVEL_DEFAULT => FAST,
        level => level.clamp(*LZ4_LEVELS.start(), *LZ4_LEVELS.end()).unsigned_abs().max(THOROUGH_FROM),
    };
    let mut encoder = EncoderBuilder::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent)
        .block_checksum(BlockChecksum::NoBlockChecksum)
        .checksum(ContentChecksum::NoChecksum)
        .level(level)
        .build(output)?;
    io::copy(&mut input, &mut encoder)?;
    encoder.finish().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linked_blocks_are_refused() {
        let mut encoder = EncoderBuilder::new().block_mode(BlockMode::Linked).build(Vec::new()).unwrap();
        encoder.write_all(&[1; 100]).unwrap();
        let (linked, result) = encoder.finish();
        result.unwrap();
        assert!(Decoder::new(io::Cursor::new(linked)).is_err());
    }

    #[test]
    fn what_follows_the_frame_is_not_read() {
        let mut packed = Vec::new();
        compress(LZ4_LEVEL_DEFAULT, &b"frame"[..], &mut packed).unwrap();
        packed.extend_from_slice(b"and more");
        let mut unpacked = Vec::new();
        Decoder::new(io::Cursor::new(packed)).unwrap().read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, b"frame");
    }
}
