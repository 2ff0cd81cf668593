//! Sequence numbers: the names of records and of shards' ends, in the 56 decimal digits that AWS gives. Called by the
//! Kinesis door for every record; a place in the log is read from the number, never looked up.
//!
//! Written in hexadecimal such a number has 47 digits, most significant first:
//!
//! | digits | what |
//! |---|---|
//! | 1 | `2` |
//! | 9 | the second in which the shard was created; at most 35 bits |
//! | 1 | low four bits of the shard's ordinal |
//! | 16 | position: a record's offset in its partition, plus one; at most 63 bits |
//! | 2 | `00` |
//! | 9 | the second in which the record was appended, not before the shard's creation |
//! | 8 | the shard's ordinal; at most 31 bits |
//! | 1 | `2`, the layout |
//!
//! The creation second leads and a child is created in a later second than its parents, so numbers sort across a
//! reshard; the position precedes the time, so they sort in a shard whatever the clock did. A shard's own starting number
//! has the position `start_offset`, which lies before its first record's.
//!
//! AWS had two layouts before this one and still reads their numbers. Nothing here ever gave one out, but what AWS says
//! to a client that sends one needs the ordinal in it: [`SequenceNumberError::Earlier`].
//!
//! Source: numbers that AWS gave out, as the tests of kinesalite record them.

use std::cmp::Ordering;
use std::fmt;

use super::ids::{Offset, ShardOrdinal};

/// Decimal digits of every number in this layout.
pub const DIGITS: usize = 56;

const SECOND_MAX: u64 = (1 << 35) - 1;
const POSITION_MAX: u64 = (1 << 63) - 1;
const ORDINAL_MAX: u32 = ShardOrdinal::MAX.0;
const LAYOUT: u128 = 2;
const EIGHT_DIGITS: u64 = 100_000_000;
/// The first digit and the creation second of AWS's first layout, in the upper bits of 128.
const FIRST_LAYOUT_MARK: u128 = 1 << 124;
/// Creation seconds from here on were never valid in AWS's first layout.
const FIRST_LAYOUT_SECONDS: u128 = 16_025_175_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceNumber {
    /// When the shard was created, in seconds since 1970.
    pub created_s: u64,
    pub position: u64,
    /// When the record was appended, in seconds since 1970.
    pub append_s: u64,
    pub ordinal: u32,
}

/// Why a text is no sequence number of this layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceNumberError {
    #[error("it is in no layout of sequence numbers")]
    Malformed,
    /// A number in one of AWS's earlier layouts. `written` is how AWS repeats it.
    #[error("{written} is in an earlier layout of sequence numbers and names {ordinal}")]
    Earlier { ordinal: ShardOrdinal, written: String },
}

impl SequenceNumber {
    /// The offset of the record that has this number. `None` for the starting number of a shard that begins with its
    /// partition; the starting number of a later shard gives the offset before its first record.
    pub fn offset(&self) -> Option<Offset> {
        self.position.checked_sub(1).and_then(|offset| Offset::try_from(offset).ok())
    }

    /// Reads the decimal digits that `Display` writes; whether there is such a shard is for the caller to see.
    pub fn parse(text: &str) -> Result<SequenceNumber, SequenceNumberError> {
        let (high, low) = bits_of(text).ok_or(SequenceNumberError::Malformed)?;
        if high == 0 {
            return Err(first_layout(low));
        }
        // 60 bits lie above the lower 128: the first digit, the second, the ordinal's digit and a quarter of the position.
        let created_s = (high >> 20) & 0xf_ffff_ffff;
        if high >> 56 != 2 || created_s > SECOND_MAX {
            return Err(SequenceNumberError::Malformed);
        }
        let ordinal = (low >> 4) as u32;
        if ordinal > ORDINAL_MAX {
            return Err(SequenceNumberError::Malformed);
        }
        match low & 0xf {
            LAYOUT => {
                let position = (high & 0xffff) << 48 | (low >> 80) as u64;
                let append_s = (low >> 36) as u64 & 0xf_ffff_ffff;
                let fits = position <= POSITION_MAX;
                let number = SequenceNumber { created_s, position, append_s, ordinal };
                fits.then_some(number).ok_or(SequenceNumberError::Malformed)
            }
            1 => Err(SequenceNumberError::Earlier { ordinal: ShardOrdinal(ordinal), written: text.to_owned() }),
            _ => Err(SequenceNumberError::Malformed),
        }
    }

    /// The number's decimal digits, ASCII.
    pub fn digits(&self) -> [u8; DIGITS] {
        let (high, low) = self.bits();
        let mut words =
            [(high >> 32) as u32, high as u32, (low >> 96) as u32, (low >> 64) as u32, (low >> 32) as u32, low as u32];
        let mut digits = [0; DIGITS];
        let mut top = 0;
        // Eight digits at a time from the right: the remainder of a division by 10^8.
        for chunk in digits.rchunks_exact_mut(8) {
            let mut rest = 0;
            for word in words.iter_mut().skip(top) {
                let value = rest << 32 | u64::from(*word);
                *word = (value / EIGHT_DIGITS) as u32;
                rest = value % EIGHT_DIGITS;
            }
            top += words.iter().skip(top).take_while(|word| **word == 0).count();
            let rest = rest as u32;
            for (pair, value) in chunk.chunks_exact_mut(2).zip([rest / 1_000_000, rest / 10_000, rest / 100, rest]) {
                let value = value % 100;
                pair.copy_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
            }
        }
        digits
    }

    /// The number itself: what lies above the lower 128 bits, and those. What does not fit its field is cut to the
    /// largest that does; with a clock before the year 3058 nothing is.
    fn bits(&self) -> (u64, u128) {
        let position = self.position.min(POSITION_MAX);
        let ordinal = self.ordinal.min(ORDINAL_MAX);
        let created_s = self.created_s.min(SECOND_MAX);
        let high = 2 << 56 | created_s << 20 | u64::from(ordinal & 0xf) << 16 | position >> 48;
        let append_s = u128::from(self.append_s.min(SECOND_MAX));
        let low = u128::from(position) << 80 | append_s << 36 | u128::from(ordinal) << 4 | LAYOUT;
        (high, low)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &SequenceNumber) -> Ordering {
        self.bits().cmp(&other.bits())
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &SequenceNumber) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// The bits of a decimal number below 2^188: above the lower 128, and those. As the API has it, 0 is the only number
/// that begins with a zero.
fn bits_of(text: &str) -> Option<(u64, u128)> {
    let digits = text.as_bytes();
    if digits.is_empty() || digits.len() > DIGITS || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut words = [0u64; 3];
    // Eighteen digits at a time fit a word.
    for chunk in digits.chunks(18) {
        let (mut value, mut scale) = (0u64, 1u64);
        for digit in chunk {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value * 10 + u64::from(digit - b'0');
            scale *= 10;
        }
        let mut carry = u128::from(value);
        for word in words.iter_mut().rev() {
            let scaled = u128::from(*word) * u128::from(scale) + carry;
            *word = scaled as u64;
            carry = scaled >> 64;
        }
    }
    // 56 digits are less than 2^192: nothing was carried out of the last word.
    Some((words[0], u128::from(words[1]) << 64 | u128::from(words[2])))
}

/// What AWS makes of a number of its first layout: 32 hexadecimal digits that begin with `1` (which a client may leave
/// out), then the creation second, and end with four of the ordinal.
fn first_layout(number: u128) -> SequenceNumberError {
    let written = number & (FIRST_LAYOUT_MARK - 1) | FIRST_LAYOUT_MARK;
    let created_s = written >> 88 & 0xf_ffff_ffff;
    match created_s < FIRST_LAYOUT_SECONDS {
        true => SequenceNumberError::Earlier {
            ordinal: ShardOrdinal(u32::from(written as u16)),
            written: written.to_string(),
        },
        false => SequenceNumberError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(created_s: u64, position: u64, append_s: u64, ordinal: u32) -> SequenceNumber {
        SequenceNumber { created_s, position, append_s, ordinal }
    }

    /// Decimal digits of a hexadecimal number, by the schoolbook.
    fn decimal(hex: &str) -> String {
        let mut digits = vec![0u32];
        for nibble in hex.chars() {
            let mut carry = nibble.to_digit(16).unwrap();
            for digit in &mut digits {
                let value = *digit * 16 + carry;
                *digit = value % 10;
                carry = value / 10;
            }
            while carry > 0 {
                digits.push(carry % 10);
                carry /= 10;
            }
        }
        digits.iter().rev().map(|digit| char::from_digit(*digit, 10).unwrap()).collect()
    }

    #[test]
    fn numbers_that_aws_gave_out_are_read() {
        // The Lambda developer guide's event of 2018 and the Kinesis API reference's PutRecord.
        let from_lambda = "49590338271490256608559692538361571095921575989136588898";
        let read = number(0x5bf4_e5c2, 0x6764_8a17, 0x5c18_1eea, 6);
        assert_eq!((SequenceNumber::parse(from_lambda), read.to_string().as_str()), (Ok(read), from_lambda));
        let from_reference = "49544985256907370027570885864065577703022652638596431874";
        let read = number(0x5461_6917, 0x3_2003_d1f4, 0x5554_d797, 0);
        assert_eq!((SequenceNumber::parse(from_reference), read.to_string().as_str()), (Ok(read), from_reference));
    }

    #[test]
    fn the_layout_is_that_of_aws() {
        let number = number(0x0_5f5e_1000, 0x1234_5678_9abc_def0, 0x0_5f5e_1abc, 0x7654_321f);
        let hex = concat!("2", "05f5e1000", "f", "123456789abcdef0", "00", "05f5e1abc", "7654321f", "2");
        assert_eq!(hex.len(), 47);
        assert_eq!(number.to_string(), decimal(hex));
        assert_eq!(SequenceNumber::parse(&decimal(hex)), Ok(number));
    }

    #[test]
    fn every_number_has_56_digits() {
        for number in [number(0, 0, 0, 0), number(u64::MAX, u64::MAX, u64::MAX, u32::MAX)] {
            let text = number.to_string();
            assert_eq!(text.len(), 56);
            assert!(!text.starts_with('0'));
            assert_eq!(SequenceNumber::parse(&text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_aws_refuses_is_refused() {
        // Recorded: an index or an ordinal whose first digit is 8 is invalid, as is a creation second that is too late.
        let malformed =
            |text: &str| assert_eq!(SequenceNumber::parse(text), Err(SequenceNumberError::Malformed), "{text}");
        malformed(&decimal("20000000000800000000000000000000000000000000002"));
        malformed(&decimal("20000000000000000000000000000000000000800000002"));
        malformed(&decimal("28000000000000000000000000000000000000000000002"));
        malformed(&decimal("20000000000000000000000000000000000000000000003"));
        malformed(&decimal("10000000000000000000000000000000000000000000002"));
        malformed(&decimal("13bb2cc3d80000000000000000000000"));
        malformed(&"9".repeat(56));
        malformed(&"1".repeat(129));
        for text in ["", "-1", "+1", "1 ", "00", "049537279973004700513262647537344055487333686783087640578", "ABC"] {
            malformed(text);
        }
    }

    #[test]
    fn numbers_of_earlier_layouts_are_repeated_as_aws_repeats_them() {
        let earlier = |text: &str| match SequenceNumber::parse(text) {
            Err(SequenceNumberError::Earlier { ordinal, written }) => (ordinal.0, written),
            other => panic!("{text}: {other:?}"),
        };
        // Recorded from AWS.
        assert_eq!(earlier("0"), (0, "21267647932558653966460912964485513216".to_owned()));
        assert_eq!(earlier("5").0, 5);
        assert_eq!(
            earlier("425352958651173072921826052383309826"),
            (2, "21693000891209827039382739016868823042".to_owned())
        );
        assert_eq!(
            earlier(&decimal("f3bb2cc3d7ff7fffffffffffffff0000")),
            (0, "26227199374821822965252748908982894592".to_owned())
        );
        // The second layout ends with 1 and is repeated as it came.
        let second =
            decimal(concat!("2", "0520beca0", "3", "00", "0520beca1", "00000000000000", "01", "00000003", "1"));
        assert_eq!(earlier(&second), (3, second));
    }

    #[test]
    fn a_position_gives_the_offset_back() {
        assert_eq!(number(1, 0, 1, 0).offset(), None);
        assert_eq!(number(1, 1, 1, 0).offset(), Some(0));
        assert_eq!(number(1, POSITION_MAX, 1, 0).offset(), Some(i64::MAX - 1));
    }

    fn any_number() -> impl Strategy<Value = SequenceNumber> {
        (0..=SECOND_MAX, 0..=POSITION_MAX, 0..=SECOND_MAX, 0..=ORDINAL_MAX)
            .prop_map(|(created_s, position, append_s, ordinal)| number(created_s, position, append_s, ordinal))
    }

    proptest! {
        #[test]
        fn text_and_number_are_the_same(number in any_number()) {
            prop_assert_eq!(SequenceNumber::parse(&number.to_string()), Ok(number));
        }

        #[test]
        fn numbers_sort_as_their_digits_do(a in any_number(), b in any_number()) {
            prop_assert_eq!(a.cmp(&b), a.digits().cmp(&b.digits()));
        }

        #[test]
        fn a_later_second_of_creation_sorts_later_and_then_the_position(a in any_number(), b in any_number()) {
            if a.created_s != b.created_s {
                prop_assert_eq!(a < b, a.created_s < b.created_s);
            } else if a.ordinal & 0xf == b.ordinal & 0xf && a.position != b.position {
                prop_assert_eq!(a < b, a.position < b.position);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{0,60}") {
            let _ = SequenceNumber::parse(&text);
        }
    }
}
