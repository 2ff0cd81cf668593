//! Times as they are signed, `20150830T123600Z` and HTTP's `Sun, 30 Aug 2015 12:36:00 GMT`, as policies have them, and as
//! documents do.

const DAY_MS: i64 = 86_400_000;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Milliseconds since 1970 of ISO 8601's basic format.
pub(super) fn parse_basic(text: &str) -> Option<i64> {
    let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
    if day.len() != 8 || time.len() != 6 {
        return None;
    }
    let part = |text: &str, from: usize, to: usize| number(text.get(from..to)?);
    ms_of(
        (part(day, 0, 4)?, part(day, 4, 6)?, part(day, 6, 8)?),
        (part(time, 0, 2)?, part(time, 2, 4)?, part(time, 4, 6)?),
    )
}

/// Milliseconds since 1970 of ISO 8601's extended format: `2015-08-30T12:36:00Z`, or only the day.
pub(super) fn parse_extended(text: &str) -> Option<i64> {
    let (day, time) = match text.strip_suffix('Z') {
        Some(text) => text.split_once('T')?,
        None => (text, "00:00:00"),
    };
    let parts = |text: &str, by: char| {
        let mut parts = text.split(by).map(number);
        let three = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(three)
    };
    ms_of(parts(day, '-')?, parts(time, ':')?)
}

/// Milliseconds since 1970 of the same as documents may have it: with a fraction of a second, or a distance from UTC.
pub fn parse_iso(text: &str) -> Option<i64> {
    let (at, offset_ms) = match text.strip_suffix(['Z', 'z']) {
        Some(at) => (at, 0),
        None => match text.len().checked_sub(6).and_then(|split| text.split_at_checked(split)) {
            Some((at, offset)) if at.contains('T') && offset.starts_with(['+', '-']) => {
                let (hours, minutes) = offset.get(1..)?.split_once(':')?;
                let ms = (number(hours)? * 60 + number(minutes)?) * 60_000;
                (at, if offset.starts_with('-') { -ms } else { ms })
            }
            Some(_) | None => (text, 0),
        },
    };
    let (whole, fraction_ms) = match at.split_once('.') {
        Some((whole, digits)) => {
            let digits: String = digits.chars().chain("000".chars()).take(3).collect();
            (whole, number(&digits)?)
        }
        None => (at, 0),
    };
    let whole_ms = if whole.contains('T') { parse_extended(&format!("{whole}Z")) } else { parse_extended(whole) };
    Some(whole_ms? + fraction_ms - offset_ms)
}

/// ISO 8601's extended format, to the second: `2015-08-30T12:36:00Z`.
pub fn format_extended(ms: i64) -> String {
    let (year, month, day) = civil(ms.div_euclid(DAY_MS));
    let seconds = ms.rem_euclid(DAY_MS) / 1_000;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Milliseconds since 1970 of a `Date` header.
pub(super) fn parse_http(text: &str) -> Option<i64> {
    let (_weekday, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day = number(words.next()?)?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let year = number(words.next()?)?;
    let mut time = words.next()?.split(':').map(number);
    let time = (time.next()??, time.next()??, time.next()??);
    if words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    ms_of((year, month, day), time)
}

/// ISO 8601's basic format, to the second.
pub(super) fn format_basic(ms: i64) -> String {
    let (year, month, day) = civil(ms.div_euclid(DAY_MS));
    let seconds = ms.rem_euclid(DAY_MS) / 1_000;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn ms_of((year, month, day): (i64, i64, i64), (hour, minute, second): (i64, i64, i64)) -> Option<i64> {
    let is_time = hour < 24 && minute < 60 && second < 61;
    let is_day = (1..=9_999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_time || !is_day || civil(days(year, month, day)) != (year, month, day) {
        return None;
    }
    Some(days(year, month, day) * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000)
}

/// Days since 1970-01-01 in the Gregorian calendar, by years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, ms) in [
            ("19700101T000000Z", 0),
            ("20150830T123600Z", 1_440_938_160_000),
            ("20000229T235959Z", 951_868_799_000),
            ("19691231T235959Z", -1_000),
            ("21000301T000000Z", 4_107_542_400_000),
        ] {
            assert_eq!(parse_basic(text), Some(ms), "{text}");
            assert_eq!(format_basic(ms), text);
        }
        assert_eq!(parse_extended("2015-08-30T12:36:00Z"), Some(1_440_938_160_000));
        assert_eq!(parse_extended("1970-01-02"), Some(86_400_000));
        assert_eq!((parse_extended("1970-01-02T00:00Z"), parse_extended("1970-1")), (None, None));
        assert_eq!(parse_http("Sun, 30 Aug 2015 12:36:00 GMT"), Some(1_440_938_160_000));
    }

    #[test]
    fn times_of_documents_are_read_and_written() {
        for text in [
            "2015-08-30T12:36:00Z",
            "2015-08-30T12:36:00",
            "2015-08-30T12:36:00.000Z",
            "2015-08-30T14:36:00+02:00",
            "2015-08-30T08:06:00.000-04:30",
        ] {
            assert_eq!(parse_iso(text), Some(1_440_938_160_000), "{text}");
        }
        assert_eq!(parse_iso("2015-08-30T12:36:00.1239Z"), Some(1_440_938_160_123));
        assert_eq!(parse_iso("1970-01-02"), Some(86_400_000));
        for text in ["", "Z", "+01:00", "2015-08-30T12:36:00.xZ", "2015-08-30T12:36:00+\u{e9}1:00", "a.b"] {
            assert_eq!(parse_iso(text), None, "{text}");
        }
        assert_eq!(format_extended(1_440_938_160_999), "2015-08-30T12:36:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "a",
            "20150830T123600",
            "2015-08-30T12:36:00Z",
            "20150230T000000Z",
            "20150830T250000Z",
            "20151301T000000Z",
            "2015083\u{e9}T12360Z",
            "+0150830T123600Z",
            "00000101T000000Z",
        ] {
            assert_eq!(parse_basic(text), None, "{text}");
        }
        for text in ["", "Sun, 30 Aug 2015 12:36:00", "Sun, 30 Foo 2015 12:36:00 GMT", "30 Aug 2015 12:36:00 GMT"] {
            assert_eq!(parse_http(text), None, "{text}");
        }
    }
}
