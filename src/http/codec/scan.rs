//! Where a JSON text ends that is written as it is. Most of a body is base64, so this looks at sixteen bytes at a time, or
//! eight where the processor's vectors are not known.

/// How many bytes stand before a quote, a backslash or a control character.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk::<BLOCK>() {
        if let Some(found) = first_in(block) {
            return length + found;
        }
        length += BLOCK;
        rest = behind;
    }
    length + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}

#[cfg(target_arch = "x86_64")]
use sse2::{BLOCK, first_in};
#[cfg(not(target_arch = "x86_64"))]
use words::{BLOCK, first_in};

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::*;

    pub(super) const BLOCK: usize = 16;

    /// The first byte of a block that is not plain.
    pub(super) fn first_in(block: &[u8; BLOCK]) -> Option<usize> {
        // SAFETY: every x86-64 processor has SSE2.
        let found = unsafe { not_plain(block) };
        (found != 0).then(|| found.trailing_zeros() as usize)
    }

    /// A bit for each byte that is not plain.
    #[target_feature(enable = "sse2")]
    fn not_plain(block: &[u8; BLOCK]) -> u32 {
        let whole = u128::from_le_bytes(*block);
        let text = _mm_set_epi64x((whole >> 64) as i64, whole as i64);
        let is_quote = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'"' as i8));
        let is_backslash = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'\\' as i8));
        let is_control = _mm_cmpeq_epi8(_mm_min_epu8(text, _mm_set1_epi8(0x1f)), text);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(is_quote, is_backslash), is_control)) as u32
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod words {
    pub(super) const BLOCK: usize = 8;

    /// The first byte of a block that is not plain.
    pub(super) fn first_in(block: &[u8; BLOCK]) -> Option<usize> {
        const ONES: u64 = u64::MAX / 0xff;
        const HIGH: u64 = ONES << 7;
        let word = u64::from_le_bytes(*block);
        let equal = |byte: u8| {
            let difference = word ^ (ONES * u64::from(byte));
            difference.wrapping_sub(ONES) & !difference
        };
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        // The lowest bit that is set is exact; those above may be its borrow.
        let found = (equal(b'"') | equal(b'\\') | control) & HIGH;
        (found != 0).then(|| found.trailing_zeros() as usize / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_is_not_plain_is_found_wherever_it_stands() {
        let is_plain = |byte: u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
        for place in 0..40 {
            for byte in 0..=255 {
                let mut text = [b'a'; 41];
                text[place] = byte;
                assert_eq!(plain_length(&text), if is_plain(byte) { 41 } else { place }, "{byte} at {place}");
                // What follows the first may be anything.
                text[place..].fill(byte);
                assert_eq!(plain_length(&text), if is_plain(byte) { 41 } else { place }, "{byte} from {place}");
                let word = text.first_chunk().unwrap();
                let wanted = (!is_plain(byte) && place < words::BLOCK).then_some(place);
                assert_eq!(words::first_in(word), wanted, "{byte} from {place}");
            }
        }
    }
}
