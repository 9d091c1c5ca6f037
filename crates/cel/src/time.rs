//! Timestamps and durations in text, as Go reads and writes them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// RFC 3339 between the years 1 and 9999.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    // jiff takes more forms than RFC 3339: hold it to the shape first.
    let shape = b.len() >= 20
        && b[..19].iter().enumerate().all(|(i, c)| match i {
            4 | 7 => *c == b'-',
            10 => *c == b'T',
            13 | 16 => *c == b':',
            _ => c.is_ascii_digit(),
        });
    let fraction = b.get(19..)?.strip_prefix(b".").map_or(0, |f| f.iter().take_while(|c| c.is_ascii_digit()).count() + 1);
    let zone = b.get(19 + fraction..)?;
    let zoned = match zone {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|c| c.is_ascii_digit()),
        _ => false,
    };
    if !shape || !zoned || fraction == 1 {
        return None;
    }
    text.parse::<Timestamp>().ok().filter(in_range)
}

/// Upstream's years: 1 to 9999.
fn in_range(t: &Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&t.as_second())
}

pub(crate) fn from_second(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok().filter(in_range)
}

pub(crate) fn shift(t: Timestamp, nanos: i128) -> Option<Timestamp> {
    Timestamp::from_nanosecond(t.as_nanosecond().checked_add(nanos)?).ok().filter(in_range)
}

pub(crate) fn format_timestamp(t: Timestamp) -> String {
    let zoned = t.to_zoned(TimeZone::UTC);
    let nanos = zoned.subsec_nanosecond();
    let fraction = if nanos == 0 { String::new() } else { format!(".{}", format!("{nanos:09}").trim_end_matches('0')) };
    format!("{}{fraction}Z", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// CEL's own form: seconds with a fraction, `1.5s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let (sign, magnitude) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    let fraction = if rest == 0 { String::new() } else { format!(".{}", format!("{rest:09}").trim_end_matches('0')) };
    format!("{sign}{seconds}{fraction}s")
}
