//! Shard iterators: a place in a shard and when it was given out, sealed so that clients can only hand it back.
//!
//! Called by `get`. Nothing is kept here of the iterators that are out: all of one is in its text, and the key is the
//! broker's secret, so they stay good across a restart.
//!
//! An iterator is base64 of the 8 bytes `0000000000000001`, as AWS's begin, a nonce of 12 bytes, and sealed with
//! AES-256-GCM (the first 8 bytes are authenticated as well):
//!
//! | field | width | |
//! |---|---|---|
//! | created_ms | i64 | when it was given out |
//! | stream | u32 | the stream's number: another stream of the same name is another one |
//! | ordinal | u32 | the shard's |
//! | next | i64 | offset of the next record |
//! | name | rest | the stream's name, UTF-8 |
//!
//! A name has at most 249 bytes, so an iterator has at most 412 of the 512 characters that AWS allows.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut};

use super::error::Error;
use crate::clock::Clock;
use crate::model::ids::{Offset, ShardOrdinal, StreamId};

/// How long an iterator is good.
pub const ITERATOR_MS_MAX: i64 = 300_000;

const VERSION: [u8; 8] = 1_u64.to_be_bytes();
const NONCE_LEN: usize = 12;
const FIXED_LEN: usize = 24;

/// What an iterator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub stream: StreamId,
    pub stream_name: String,
    pub ordinal: ShardOrdinal,
    pub next: Offset,
}

/// Makes iterators and reads them.
pub struct Iterators {
    cipher: Aes256Gcm,
    clock: Clock,
}

impl Iterators {
    pub fn new(secret: &[u8; 32], clock: Clock) -> Iterators {
        Iterators { cipher: Aes256Gcm::new(secret.into()), clock }
    }

    /// The text of an iterator that is good from now on.
    pub fn seal(&self, position: &Position) -> Result<String, Error> {
        let mut plain = Vec::with_capacity(FIXED_LEN + position.stream_name.len());
        plain.put_i64(self.clock.now_ms());
        plain.put_u32(position.stream.0);
        plain.put_u32(position.ordinal.0);
        plain.put_i64(position.next);
        plain.put_slice(position.stream_name.as_bytes());
        let random = self.clock.random_uuid().into_bytes();
        let nonce = random.first_chunk::<NONCE_LEN>().copied().unwrap_or_default();
        let sealed = self
            .cipher
            .encrypt(Nonce::from_slice(&nonce), Payload { msg: &plain, aad: &VERSION })
            .map_err(|_| Error::Internal)?;
        Ok(STANDARD.encode([&VERSION[..], &nonce, &sealed].concat()))
    }

    /// What the iterator says, if it was made here and is still good. One in quotes is taken, as AWS does.
    pub fn open(&self, text: &str) -> Result<Position, Error> {
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let (created_ms, position) = self.read(text).ok_or_else(invalid)?;
        let now_ms = self.clock.now_ms();
        if now_ms.saturating_sub(created_ms) > ITERATOR_MS_MAX {
            return Err(expired(created_ms, now_ms));
        }
        Ok(position)
    }

    fn read(&self, text: &str) -> Option<(i64, Position)> {
        let bytes = STANDARD.decode(text).ok()?;
        let (version, rest) = bytes.split_first_chunk::<8>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let plain = self.cipher.decrypt(Nonce::from_slice(nonce), Payload { msg: sealed, aad: version }).ok()?;
        let mut fields = plain.as_slice();
        if *version != VERSION || fields.len() < FIXED_LEN {
            return None;
        }
        let created_ms = fields.get_i64();
        let stream = StreamId(fields.get_u32());
        let ordinal = ShardOrdinal(fields.get_u32());
        let next = fields.get_i64();
        let stream_name = std::str::from_utf8(fields).ok()?.to_owned();
        Some((created_ms, Position { stream, stream_name, ordinal, next }))
    }
}

fn invalid() -> Error {
    Error::InvalidArgument("Invalid ShardIterator.".to_owned())
}

fn expired(created_ms: i64, now_ms: i64) -> Error {
    Error::ExpiredIterator(format!(
        "Iterator expired. The iterator was created at time {} while right now it is {} which is further in the future \
         than the tolerated delay of {ITERATOR_MS_MAX} milliseconds.",
        utc(created_ms),
        utc(now_ms)
    ))
}

/// A time as AWS's message has it: `Thu Jan 22 01:22:02 UTC 2015`.
fn utc(ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = ms.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let weekday = DAYS.get(days.rem_euclid(7) as usize).unwrap_or(&"");
    // Years that begin in March, in eras of 400 of them (146,097 days), so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    let month = MONTHS.get(month as usize).unwrap_or(&"");
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(name: &str) -> Position {
        Position { stream: StreamId(7), stream_name: name.to_owned(), ordinal: ShardOrdinal(3), next: 1 << 40 }
    }

    fn refused(iterators: &Iterators, text: &str) -> (&'static str, String) {
        let error = iterators.open(text).unwrap_err();
        (error.code(), error.to_string())
    }

    #[test]
    fn an_iterator_is_read_back_by_another_process_with_the_same_secret() {
        let clock = Clock::manual(1_000);
        let text = Iterators::new(&[1; 32], clock.clone()).seal(&position("orders")).unwrap();
        assert!(text.starts_with("AAAAAAAAAA"), "{text}");
        let later = Iterators::new(&[1; 32], clock.clone());
        assert_eq!(later.open(&text), Ok(position("orders")));
        assert_eq!(later.open(&format!("\"{text}\"")), Ok(position("orders")));
        let stranger = Iterators::new(&[2; 32], clock);
        assert_eq!(refused(&stranger, &text), ("InvalidArgumentException", "Invalid ShardIterator.".to_owned()));
    }

    #[test]
    fn the_longest_name_fits() {
        let iterators = Iterators::new(&[1; 32], Clock::manual(0));
        assert_eq!(iterators.seal(&position(&"x".repeat(249))).unwrap().len(), 412);
    }

    #[test]
    fn what_was_changed_is_invalid() {
        let iterators = Iterators::new(&[1; 32], Clock::manual(1_000));
        let text = iterators.seal(&position("orders")).unwrap();
        let bytes = STANDARD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(refused(&iterators, &STANDARD.encode(changed)).0, "InvalidArgumentException", "{at}");
        }
        for text in ["", "\"", "\"\"", "AAAA", "not base64", &text[..text.len() - 4], &text[1..]] {
            assert_eq!(refused(&iterators, text).0, "InvalidArgumentException", "{text}");
        }
    }

    #[test]
    fn an_iterator_is_good_for_five_minutes() {
        let clock = Clock::manual(1_421_889_422_000);
        let iterators = Iterators::new(&[1; 32], clock.clone());
        let text = iterators.seal(&position("orders")).unwrap();
        clock.advance(ITERATOR_MS_MAX);
        assert!(iterators.open(&text).is_ok());
        clock.advance(1);
        let message = "Iterator expired. The iterator was created at time Thu Jan 22 01:17:02 UTC 2015 while right now it \
                       is Thu Jan 22 01:22:02 UTC 2015 which is further in the future than the tolerated delay of \
                       300000 milliseconds.";
        assert_eq!(refused(&iterators, &text), ("ExpiredIteratorException", message.to_owned()));
    }

    #[test]
    fn times_are_written_as_recorded() {
        assert_eq!(utc(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(utc(951_782_400_000), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(utc(1_709_251_199_999), "Thu Feb 29 23:59:59 UTC 2024");
        assert_eq!(utc(4_107_542_400_000), "Mon Mar 01 00:00:00 UTC 2100");
        assert_eq!(utc(-1), "Wed Dec 31 23:59:59 UTC 1969");
    }
}
