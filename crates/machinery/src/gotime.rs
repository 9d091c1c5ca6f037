//! Times on the way through Go's structs: RFC 3339 in seconds (`metav1.Time`) and microseconds (`MicroTime`), read with the
//! errors of Go's `time.Parse`. `decode` and `proto` call it; for everything else there is `time`.

use std::fmt::Write as _;

/// Seconds since the epoch and nanoseconds within the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    pub seconds: i64,
    pub nanos: u32,
}

/// Go's zero time, year 1: printed as null.
pub const ZERO_SECONDS: i64 = -62_135_596_800;

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const LAYOUT_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Parses and rewrites as `2006-01-02T15:04:05Z`.
pub fn parse_seconds(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let instant = parse(text, LAYOUT)?;
    if bytes.len() == 20 && bytes[19] == b'Z' { Ok(text.to_owned()) } else { Ok(format_seconds(instant.seconds)) }
}

/// Parses and rewrites as `2006-01-02T15:04:05.000000Z`.
pub fn parse_micros(text: &str) -> Result<String, String> {
    parse(text, LAYOUT_MICRO).map(format_micros)
}

/// RFC 3339 with or without a fraction.
pub fn parse_rfc3339(text: &str) -> Result<Instant, String> {
    parse(text, LAYOUT)
}

struct Cursor<'a> {
    whole: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl<'a> Cursor<'a> {
    fn fail(&self, element: &str) -> String {
        format!("parsing time {} as {:?}: cannot parse {} as {element:?}", quote(self.whole), self.layout, quote(self.rest))
    }

    fn range(&self, what: &str) -> String {
        format!("parsing time {}: {what} out of range", quote(self.whole))
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<u32, String> {
        match self.rest.get(..count) {
            Some(head) if head.bytes().all(|b| b.is_ascii_digit()) => {
                self.rest = &self.rest[count..];
                Ok(head.parse().unwrap_or(0))
            }
            _ => Err(self.fail(element)),
        }
    }

    fn literal(&mut self, c: char) -> Result<(), String> {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.fail(&c.to_string())),
        }
    }

    fn fraction(&mut self) -> u32 {
        let digits: &str = match self.rest.strip_prefix(['.', ',']) {
            Some(rest) => &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()],
            None => "",
        };
        if digits.is_empty() {
            return 0;
        }
        self.rest = &self.rest[digits.len() + 1..];
        let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
        nine.parse().unwrap_or(0)
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bad = self.fail("Z07:00");
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(bad),
        };
        let zone = self.rest.get(1..6).ok_or_else(|| bad.clone())?;
        let (hours, minutes) = zone.split_once(':').ok_or_else(|| bad.clone())?;
        let number = |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<i64>().ok()).flatten();
        let (Some(hours), Some(minutes)) = (number(hours), number(minutes)) else { return Err(bad) };
        for (value, max, what) in [(hours, 24, "hour"), (minutes, 60, "minute")] {
            if value > max {
                return Err(self.range(&format!("time zone offset {what}")));
            }
        }
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

/// The `time` package quotes for itself: bytes of anything but ASCII.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=0x7f => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('"');
    out
}

fn parse(text: &str, layout: &'static str) -> Result<Instant, String> {
    let mut at = Cursor { whole: text, rest: text, layout };
    let year = at.digits(4, "2006")?;
    at.literal('-')?;
    let month = at.digits(2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(at.range("month"));
    }
    at.literal('-')?;
    let day = at.digits(2, "02")?;
    at.literal('T')?;
    // Go takes hours of one digit.
    let hour = at.digits(2, "15").or_else(|_| at.digits(1, "15"))?;
    if hour > 23 {
        return Err(at.range("hour"));
    }
    at.literal(':')?;
    let minute = at.digits(2, "04")?;
    if minute > 59 {
        return Err(at.range("minute"));
    }
    at.literal(':')?;
    let second = at.digits(2, "05")?;
    if second > 59 {
        return Err(at.range("second"));
    }
    let nanos;
    if layout == LAYOUT_MICRO {
        let Some(six) = at.rest.strip_prefix(['.', ',']).and_then(|r| r.get(..6)).filter(|d| d.bytes().all(|b| b.is_ascii_digit())) else {
            return Err(at.fail(".000000"));
        };
        nanos = six.parse::<u32>().unwrap_or(0) * 1000;
        at.rest = &at.rest[7..];
    } else {
        nanos = at.fraction();
    }
    let offset = at.zone()?;
    if !at.rest.is_empty() {
        return Err(format!("parsing time {}: extra text: {}", quote(text), quote(at.rest)));
    }
    if day < 1 || day > days_in(year, month) {
        return Err(at.range("day"));
    }
    let days = days_from_civil(i64::from(year), i64::from(month), i64::from(day));
    let seconds = days * 86400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second) - offset;
    Ok(Instant { seconds, nanos })
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch of a date of the proleptic Gregorian calendar (Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * mp + 2) / 5 + 1)
}

/// `2006-01-02T15:04:05Z`
pub fn format_seconds(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86400));
    let time = seconds.rem_euclid(86400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// `2006-01-02T15:04:05.000000Z`
pub fn format_micros(at: Instant) -> String {
    let mut out = format_seconds(at.seconds);
    out.pop();
    let _ = write!(out, ".{:06}Z", at.nanos / 1000);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_are_gos() {
        for (text, why) in [
            ("yesterday", "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\""),
            ("2020-13-01T00:00:00Z", "parsing time \"2020-13-01T00:00:00Z\": month out of range"),
            ("2020-02-30T00:00:00Z", "parsing time \"2020-02-30T00:00:00Z\": day out of range"),
            ("2020\u{e9}", "parsing time \"2020\\xc3\\xa9\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\\xc3\\xa9\" as \"-\""),
            ("2020-01-01T00:00:00+01:61", "parsing time \"2020-01-01T00:00:00+01:61\": time zone offset minute out of range"),
            ("2020-01-01", "parsing time \"2020-01-01\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\""),
        ] {
            assert_eq!(parse_seconds(text).unwrap_err(), why);
        }
        let micro = parse_micros("2020-01-01T00:00:00Z").unwrap_err();
        let seven = parse_micros("2020-01-01T00:00:00.1234567Z").unwrap_err();
        assert!(seven.ends_with(": cannot parse \"7Z\" as \"Z07:00\""), "{seven}");
        assert!(micro.ends_with("as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\""), "{micro}");
    }

    #[test]
    fn times_are_rewritten_in_utc() {
        assert_eq!(parse_seconds("2020-01-01T01:00:00.5+01:00").unwrap(), "2020-01-01T00:00:00Z");
        assert_eq!(parse_micros("2020-01-01T00:00:00.000001Z").unwrap(), "2020-01-01T00:00:00.000001Z");
        assert_eq!(parse_seconds("2020-01-01T1:00:00Z").unwrap(), "2020-01-01T01:00:00Z");
        assert_eq!(parse_rfc3339("1970-01-02T00:00:01Z").unwrap().seconds, 86401);
        assert_eq!(format_seconds(ZERO_SECONDS), "0001-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn seconds_survive(seconds in -62_000_000_000_i64..250_000_000_000) {
            prop_assert_eq!(parse_rfc3339(&format_seconds(seconds)).unwrap().seconds, seconds);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = parse_seconds(&text);
            let _ = parse_micros(&text);
        }
    }
}
