//! Base64 as most of a JSON body is: standard alphabet, padded, without line breaks.
//!
//! Sixteen characters at a time where the build says that the processor has SSSE3 (every x86-64 build of this crate
//! does), by the crate `base64` elsewhere, at the end of a text, and for everything that is not valid. Records make up
//! nearly all of PutRecords and GetRecords, so this is what those cost.
//!
//! Source: RFC 4648; Mula and Lemire, "Faster Base64 Encoding and Decoding Using AVX2 Instructions" (2018).

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};

/// Characters that may be left over by blocks: a decoded one is stored whole, so that the last do not fit.
const END_CHARACTERS: usize = 64;
/// Bytes that are encoded at a time: a multiple of 3, so that only the last piece is padded.
const PIECE_BYTES: usize = 3 << 10;

/// The bytes of a text, in a vector without room to spare: it becomes `Bytes` as it is.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let padding = text.iter().rev().take(2).filter(|c| **c == b'=').count();
    let mut bytes = Vec::with_capacity((text.len() / 4 * 3).saturating_sub(padding));
    let read = decode_blocks(text, &mut bytes);
    let rest = text.get(read..).unwrap_or_default();
    let mut end = [0; END_CHARACTERS / 4 * 3];
    if rest.len() <= END_CHARACTERS
        && let Ok(length) = STANDARD.decode_slice(rest, &mut end)
    {
        bytes.extend_from_slice(end.get(..length).unwrap_or_default());
        return Ok(bytes);
    }
    // What is wrong, and where, is told for the whole text.
    STANDARD.decode(text)
}

/// Writes the text of some bytes.
pub(super) fn encode<W: std::io::Write + ?Sized>(bytes: &[u8], writer: &mut W) -> std::io::Result<()> {
    let mut text = [0; PIECE_BYTES / 3 * 4];
    for piece in bytes.chunks(PIECE_BYTES) {
        let (read, written) = encode_blocks(piece, &mut text);
        let (rest, room) = (piece.get(read..).unwrap_or_default(), text.get_mut(written..).unwrap_or_default());
        let length = written + STANDARD.encode_slice(rest, room).map_err(std::io::Error::other)?;
        writer.write_all(text.get(..length).unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(all(target_arch = "x86_64", target_feature = "ssse3"))]
use ssse3::{decode_blocks, encode_blocks};

/// How many characters were decoded: a multiple of 4, before the first that is not in the alphabet.
#[cfg(not(all(target_arch = "x86_64", target_feature = "ssse3")))]
fn decode_blocks(_text: &[u8], _bytes: &mut Vec<u8>) -> usize {
    0
}

/// How many bytes were encoded, a multiple of 3, and how many characters they are.
#[cfg(not(all(target_arch = "x86_64", target_feature = "ssse3")))]
fn encode_blocks(_bytes: &[u8], _text: &mut [u8]) -> (usize, usize) {
    (0, 0)
}

#[cfg(all(target_arch = "x86_64", target_feature = "ssse3"))]
mod ssse3 {
    use std::arch::x86_64::*;

    const BLOCK: usize = 16;
    /// Bytes of a block's characters.
    const PLAIN: usize = 12;

    pub(super) fn decode_blocks(text: &[u8], bytes: &mut Vec<u8>) -> usize {
        // A block is stored whole, although only its first twelve bytes count: the last is left to others.
        bytes.resize(bytes.capacity(), 0);
        let mut done = 0;
        let mut room = bytes.as_mut_slice();
        for block in text.as_chunks::<BLOCK>().0 {
            // SAFETY: the build has SSSE3, or this module would not be compiled.
            let (Some(plain), Some(place)) = (unsafe { decode(block) }, room.first_chunk_mut::<BLOCK>()) else { break };
            *place = plain;
            room = room.get_mut(PLAIN..).unwrap_or_default();
            done += 1;
        }
        bytes.truncate(done * PLAIN);
        done * BLOCK
    }

    pub(super) fn encode_blocks(bytes: &[u8], text: &mut [u8]) -> (usize, usize) {
        let mut done = 0;
        let (mut rest, rooms) = (bytes, text.as_chunks_mut::<BLOCK>().0);
        for room in rooms {
            // A block is loaded whole, although only its first twelve bytes count.
            let Some(block) = rest.first_chunk::<BLOCK>() else { break };
            // SAFETY: the build has SSSE3, or this module would not be compiled.
            *room = unsafe { encode(block) };
            rest = rest.get(PLAIN..).unwrap_or_default();
            done += 1;
        }
        (done * PLAIN, done * BLOCK)
    }

    /// The twelve bytes of sixteen characters, and four zeros; `None` if one is not in the alphabet, as padding is not.
    #[target_feature(enable = "ssse3")]
    fn decode(block: &[u8; BLOCK]) -> Option<[u8; BLOCK]> {
        let text = load(block);
        // Which bits of a low half and of a high half exclude each other: a character is in the alphabet when the sets
        // that its halves belong to have none in common.
        let by_low = _mm_setr_epi8(
            0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1a, 0x1b, 0x1b, 0x1b, 0x1a,
        );
        let by_high = _mm_setr_epi8(
            0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10,
        );
        // What is added to a character for its value, by its high half; '/' shares one with '+' and has its own.
        let shift = _mm_setr_epi8(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0);
        let half = _mm_set1_epi8(0x0f);
        let high = _mm_and_si128(_mm_srli_epi32::<4>(text), half);
        let low = _mm_and_si128(text, half);
        let common = _mm_and_si128(_mm_shuffle_epi8(by_low, low), _mm_shuffle_epi8(by_high, high));
        if _mm_movemask_epi8(_mm_cmpeq_epi8(common, _mm_setzero_si128())) != 0xffff {
            return None;
        }
        let is_slash = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'/' as i8));
        let values = _mm_add_epi8(text, _mm_shuffle_epi8(shift, _mm_add_epi8(is_slash, high)));
        // Four values of six bits become three bytes: two pairs, then one of the pairs.
        let pairs = _mm_maddubs_epi16(values, _mm_set1_epi32(0x0140_0140));
        let fours = _mm_madd_epi16(pairs, _mm_set1_epi32(0x0001_1000));
        let order = _mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
        Some(store(_mm_shuffle_epi8(fours, order)))
    }

    /// The sixteen characters of the first twelve bytes.
    #[target_feature(enable = "ssse3")]
    fn encode(block: &[u8; BLOCK]) -> [u8; BLOCK] {
        // Each three bytes, the middle one twice, make a word that four values are multiplied out of.
        let order = _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
        let words = _mm_shuffle_epi8(load(block), order);
        let first = _mm_mulhi_epu16(_mm_and_si128(words, _mm_set1_epi32(0x0fc0_fc00)), _mm_set1_epi32(0x0400_0040));
        let second = _mm_mullo_epi16(_mm_and_si128(words, _mm_set1_epi32(0x003f_03f0)), _mm_set1_epi32(0x0100_0010));
        let values = _mm_or_si128(first, second);
        // 0 for a value below 26 after the correction 13, 0 for 26 to 51, then 1 to 12 for digits and signs.
        let class = _mm_subs_epu8(values, _mm_set1_epi8(51));
        let is_upper = _mm_cmpgt_epi8(_mm_set1_epi8(26), values);
        let class = _mm_or_si128(class, _mm_and_si128(is_upper, _mm_set1_epi8(13)));
        let shift = _mm_setr_epi8(71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0);
        store(_mm_add_epi8(values, _mm_shuffle_epi8(shift, class)))
    }

    #[target_feature(enable = "ssse3")]
    fn load(block: &[u8; BLOCK]) -> __m128i {
        let whole = u128::from_le_bytes(*block);
        _mm_set_epi64x((whole >> 64) as i64, whole as i64)
    }

    #[target_feature(enable = "ssse3")]
    fn store(value: __m128i) -> [u8; BLOCK] {
        let low = _mm_cvtsi128_si64(value) as u64;
        let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(value, value)) as u64;
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        encode(bytes, &mut text).unwrap();
        text
    }

    #[test]
    fn every_character_is_told_from_every_other_in_every_place() {
        for place in 0..32 {
            for byte in 0..=255 {
                let mut text = *b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
                text[place] = byte;
                assert_eq!(decode(&text), STANDARD.decode(text), "{byte} at {place}");
            }
        }
    }

    #[test]
    fn all_values_are_encoded_and_decoded() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_be_bytes).collect();
        for start in 0..3 {
            let text = encoded(&all[start..]);
            assert_eq!(text, STANDARD.encode(&all[start..]).into_bytes());
            assert_eq!(decode(&text).unwrap(), &all[start..]);
        }
    }

    proptest! {
        #[test]
        fn it_is_the_base64_of_others(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = encoded(&bytes);
            prop_assert_eq!(&text, &STANDARD.encode(&bytes).into_bytes());
            prop_assert_eq!(decode(&text).unwrap(), bytes);
        }

        #[test]
        fn what_others_refuse_is_refused(text in "[A-Za-z0-9+/=.\u{e9}]{0,80}") {
            prop_assert_eq!(decode(text.as_bytes()), STANDARD.decode(&text));
        }
    }
}
