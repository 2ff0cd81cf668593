//! The codecs of a batch's records: streaming readers that inflate as much as is asked for, and writers.
//!
//! Frames are those that every client reads: gzip members, Snappy in the framing of `snappy-java` (raw blocks are read as
//! well, librdkafka can send them), LZ4 frames of independent 64 KiB blocks (Java reads no linked ones), zstd frames.

mod lz4;
mod snappy;

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::ops::RangeInclusive;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::model::settings;

/// How the records of a batch are compressed, by its number in the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub fn from_id(id: u8) -> Option<Codec> {
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].get(usize::from(id)).copied()
    }

    pub fn id(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        })
    }
}

/// Kafka's default for `compression.gzip.level`: zlib's own choice.
const GZIP_LEVEL_DEFAULT: i32 = -1;
const GZIP_LEVELS: RangeInclusive<i32> = 1..=9;

/// Kafka's default for `compression.lz4.level`. It means the fast compressor, every other level the thorough one.
const LZ4_LEVEL_DEFAULT: i32 = 9;
const LZ4_LEVELS: RangeInclusive<i32> = 1..=17;

/// Kafka's default for `compression.zstd.level`.
const ZSTD_LEVEL_DEFAULT: i32 = 3;
const ZSTD_LEVELS: RangeInclusive<i32> = -131_072..=22;

/// A codec to write with, at a level. Levels out of range are taken for the nearest in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    None,
    Gzip(i32),
    Snappy,
    Lz4(i32),
    Zstd(i32),
}

impl Compressor {
    /// The codec at Kafka's default level.
    pub fn of(codec: Codec) -> Compressor {
        match codec {
            Codec::None => Compressor::None,
            Codec::Gzip => Compressor::Gzip(GZIP_LEVEL_DEFAULT),
            Codec::Snappy => Compressor::Snappy,
            Codec::Lz4 => Compressor::Lz4(LZ4_LEVEL_DEFAULT),
            Codec::Zstd => Compressor::Zstd(ZSTD_LEVEL_DEFAULT),
        }
    }

    /// What a topic's `compression.type` asks for; `None` where the producer chooses.
    pub(super) fn wanted(setting: settings::Compression) -> Option<Compressor> {
        Some(match setting {
            settings::Compression::Producer => return None,
            settings::Compression::Uncompressed => Compressor::None,
            settings::Compression::Gzip(level) => Compressor::Gzip(level),
            settings::Compression::Snappy => Compressor::Snappy,
            settings::Compression::Lz4(level) => Compressor::Lz4(level),
            settings::Compression::Zstd(level) => Compressor::Zstd(level),
        })
    }

    pub fn codec(self) -> Codec {
        match self {
            Compressor::None => Codec::None,
            Compressor::Gzip(_) => Codec::Gzip,
            Compressor::Snappy => Codec::Snappy,
            Compressor::Lz4(_) => Codec::Lz4,
            Compressor::Zstd(_) => Codec::Zstd,
        }
    }
}

/// Inflates `input` as it is read. Ends only where the codec's stream ends whole; a stream that is cut is an error.
pub(super) fn reader<'a, T: AsRef<[u8]> + 'a>(codec: Codec, input: io::Cursor<T>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(input),
        Codec::Gzip => Box::new(MultiGzDecoder::new(input)),
        Codec::Snappy => Box::new(snappy::Decoder::new(input)),
        Codec::Lz4 => Box::new(lz4::Decoder::new(input)?),
        // The window is bounded by zstd's own limit (128 MiB of address space, touched only as far as it is used).
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
    })
}

/// Writes all of `input` to `output` as one stream of the codec.
pub(super) fn compress<W: Write>(compressor: Compressor, mut input: impl BufRead, mut output: W) -> io::Result<()> {
    match compressor {
        Compressor::None => io::copy(&mut input, &mut output).map(|_| ()),
        Compressor::Gzip(level) => {
            let level = if GZIP_LEVELS.contains(&level) {
                flate2::Compression::new(level.unsigned_abs())
            } else {
                flate2::Compression::default()
            };
            let mut encoder = GzEncoder::new(output, level);
            io::copy(&mut input, &mut encoder)?;
            encoder.finish().map(|_| ())
        }
        Compressor::Snappy => snappy::compress(input, output),
        Compressor::Lz4(level) => lz4::compress(level, input, output),
        Compressor::Zstd(level) => {
            zstd::stream::copy_encode(input, output, level.clamp(*ZSTD_LEVELS.start(), *ZSTD_LEVELS.end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn all() -> Vec<Compressor> {
        let mut all: Vec<_> =
            [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].map(Compressor::of).into();
        all.extend([1, 5, 9].map(Compressor::Gzip));
        all.extend([1, 2, 12, 17].map(Compressor::Lz4));
        all.extend([-131_072, -5, 1, 19].map(Compressor::Zstd));
        all
    }

    fn pack(compressor: Compressor, input: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        compress(compressor, input, &mut packed).unwrap();
        packed
    }

    fn unpack(codec: Codec, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        reader(codec, io::Cursor::new(packed))?.read_to_end(&mut unpacked)?;
        Ok(unpacked)
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| b"an arm of a river that leaves the main stream and joins it again; "[i * i / 7 % 66])
            .collect()
    }

    #[test]
    fn every_codec_and_level_gives_back_what_it_was_given() {
        for compression in all() {
            for len in [0, 1, 11, 1_000, 32 << 10, (64 << 10) + 1, 300_000] {
                let input = text(len);
                let packed = pack(compression, &input);
                assert_eq!(unpack(compression.codec(), &packed).unwrap(), input, "{compression:?}, {len} bytes");
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_is_an_error_not_an_end() {
        for compression in all().into_iter().filter(|compression| *compression != Compressor::None) {
            let input = text(100_000);
            let packed = pack(compression, &input);
            for cut in [1, 2, 5, packed.len() / 2, packed.len() - 3] {
                match unpack(compression.codec(), &packed[..packed.len() - cut]) {
                    Err(_) => {}
                    // Snappy's framing has no end mark: cut between two blocks it is whole, only shorter.
                    Ok(unpacked) => {
                        assert!(compression == Compressor::Snappy && unpacked.len() < input.len(), "{compression:?}")
                    }
                }
            }
        }
    }

    #[test]
    fn ids_are_those_of_the_attributes() {
        for id in 0..=7 {
            assert_eq!(Codec::from_id(id).map(Codec::id), (id < 5).then_some(id));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(codec in 0u8..5, garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(Codec::from_id(codec).unwrap(), &garbage);
        }

        #[test]
        fn a_garbled_stream_never_panics(which in 0usize..12, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let compression = all()[which];
            let mut packed = pack(compression, &text(5_000));
            let at = at.index(packed.len());
            packed[at] = byte;
            let _ = unpack(compression.codec(), &packed);
        }
    }
}
