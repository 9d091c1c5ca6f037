//! What a YAML scalar is, by the rules of the YAML 1.1 that upstream reads (`resolve` of its `goyaml.v2`): a table of words, then
//! by the first character a number or not. `read` calls it for every scalar.

use base64::Engine as _;

/// A scalar's value. Times stay the text they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn tag(&self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool(_) => "!!bool",
            Self::Int(_) | Self::Uint(_) => "!!int",
            Self::Float(_) => "!!float",
            Self::Text(_) => "!!str",
        }
    }
}

/// `tag` is short (`!!int`), empty where there is none. `Err`: a tag that the text cannot have.
pub(super) fn resolve(text: &str, tag: &str, plain: bool) -> Result<Scalar, String> {
    match tag {
        "" if !plain => return Ok(Scalar::Text(text.to_owned())),
        "!" | "!!str" => return Ok(Scalar::Text(text.to_owned())),
        "!!binary" => {
            let joined: String = text.split_ascii_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(joined);
            let bytes = bytes.map_err(|_| "!!binary value contains invalid base64 data".to_owned())?;
            return Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()));
        }
        "" | "!!null" | "!!bool" | "!!int" | "!!float" | "!!timestamp" => {}
        _ => return Ok(Scalar::Text(text.to_owned())),
    }
    let found = plain_value(text, matches!(tag, "" | "!!timestamp"));
    match (tag, &found) {
        ("", _) => Ok(found),
        ("!!timestamp", Scalar::Text(_)) if is_timestamp(text) => Ok(found),
        ("!!float", Scalar::Int(n)) => Ok(Scalar::Float(*n as f64)),
        ("!!float", Scalar::Uint(n)) => Ok(Scalar::Float(*n as f64)),
        (tag, found) if tag == found.tag() => Ok(found.clone()),
        (tag, found) => Err(format!("cannot decode {} `{text}` as a {tag}", found.tag())),
    }
}

fn plain_value(text: &str, may_be_time: bool) -> Scalar {
    if let Some(word) = word(text) {
        return word;
    }
    let number = match text.as_bytes().first() {
        Some(b'.') => go_float(text),
        Some(b'0'..=b'9' | b'+' | b'-') if !(may_be_time && is_timestamp(text)) => number(&text.replace('_', "")),
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// Words that are no text.
fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => return None,
    })
}

/// An integer as Go reads it with base 0, or a decimal fraction.
fn number(text: &str) -> Option<Scalar> {
    if let Some(integer) = integer(text) {
        return Some(integer);
    }
    is_fraction(text).then(|| go_float(text)).flatten()
}

fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // Rust would take a second sign.
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    let amount = u64::from_str_radix(digits, base).ok()?;
    match (negative, i64::try_from(amount)) {
        (false, Ok(n)) => Some(Scalar::Int(n)),
        (true, Ok(n)) => Some(Scalar::Int(-n)),
        (true, Err(_)) if amount == i64::MIN.unsigned_abs() => Some(Scalar::Int(i64::MIN)),
        (true, Err(_)) => None,
        // Go's unsigned reader takes no sign.
        (false, Err(_)) => (!text.starts_with('+')).then_some(Scalar::Uint(amount)),
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
pub(super) fn is_fraction(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
    digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()) && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

/// As Go reads a decimal float: too large is no float.
fn go_float(text: &str) -> Option<Scalar> {
    let decimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let float: f64 = if decimal { text.parse().ok()? } else { return None };
    float.is_finite().then_some(Scalar::Float(float))
}

/// Dates, alone or with a time: `2006-1-2`, `2006-1-2T15:4:5.9Z`, `2006-1-2 15:4:5`.
pub(super) fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((text.as_bytes()[at], &text[at + 1..]))),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    if year.len() != 4 || !year.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let (Some(month), Some(day)) = (small(month, 1, 12), small(day, 1, 31)) else { return false };
    let year: u32 = year.parse().unwrap_or(0);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    day <= longest
        && match time {
            None => true,
            Some((b' ', clock)) => is_clock(clock),
            Some((_, rest)) => match (rest.strip_suffix('Z'), rest.len().checked_sub(6)) {
                (Some(clock), _) => is_clock(clock),
                (None, Some(at)) => rest.split_at_checked(at).is_some_and(|(clock, zone)| is_clock(clock) && is_zone(zone)),
                _ => false,
            },
        }
}

/// One or two digits within a range.
fn small(text: &str, low: u32, high: u32) -> Option<u32> {
    let fits = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| fits && (low..=high).contains(n))
}

/// `15:4:5`, perhaps with a fraction.
fn is_clock(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return false };
    let (second, fraction) = second.split_once(['.', ',']).unwrap_or((second, "0"));
    let digits = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    hour.len() == 2 && small(hour, 0, 23).is_some() && small(minute, 0, 59).is_some() && small(second, 0, 59).is_some() && digits
}

/// `+01:00`
fn is_zone(text: &str) -> bool {
    let rest = text.strip_prefix(['+', '-']).and_then(|rest| rest.split_once(':'));
    rest.is_some_and(|(h, m)| h.len() == 2 && m.len() == 2 && small(h, 0, 24).is_some() && small(m, 0, 60).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_read_as_upstream_reads_them() {
        use Scalar::{Bool, Float, Int, Null, Text, Uint};
        let text = |s: &str| Text(s.to_owned());
        for (given, want) in [
            ("yes", Bool(true)),
            ("On", Bool(true)),
            ("y", Bool(true)),
            ("NO", Bool(false)),
            ("n", Bool(false)),
            ("off", Bool(false)),
            ("yEs", text("yEs")),
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("nUll", text("nUll")),
            ("0", Int(0)),
            ("-0", Int(0)),
            ("+5", Int(5)),
            ("1_000", Int(1000)),
            ("0644", Int(420)),
            ("0o7", Int(7)),
            ("0O17", Int(15)),
            ("0x1f", Int(31)),
            ("-0x1F", Int(-31)),
            ("0b101", Int(5)),
            ("-0b11", Int(-3)),
            ("08", Float(8.0)),
            ("0x", text("0x")),
            ("0xg", text("0xg")),
            ("9223372036854775807", Int(i64::MAX)),
            ("-9223372036854775808", Int(i64::MIN)),
            ("18446744073709551615", Uint(u64::MAX)),
            ("18446744073709551616", Float(18_446_744_073_709_551_616.0)),
            ("1.5", Float(1.5)),
            ("-.5", Float(-0.5)),
            (".5", Float(0.5)),
            (".5e3", Float(500.0)),
            (".", text(".")),
            ("..", text("..")),
            ("1.", Float(1.0)),
            (".", text(".")),
            ("1e3", Float(1000.0)),
            ("1e", text("1e")),
            ("1E+3", Float(1000.0)),
            ("1.5e-3", Float(0.0015)),
            ("1e+999", text("1e+999")),
            ("1.2.3", text("1.2.3")),
            ("1-2", text("1-2")),
            ("+", text("+")),
            ("--1", text("--1")),
            ("12:30:45", text("12:30:45")),
            ("2020-01-01", text("2020-01-01")),
            ("2020-1-1T1:2:3Z", text("2020-1-1T1:2:3Z")),
            ("+.inf", Float(f64::INFINITY)),
            ("-.INF", Float(f64::NEG_INFINITY)),
            ("inf", text("inf")),
            ("Infinity", text("Infinity")),
            ("<<", text("<<")),
            ("1Gi", text("1Gi")),
        ] {
            assert_eq!(resolve(given, "", true), Ok(want), "{given}");
        }
        assert!(matches!(resolve(".NaN", "", true), Ok(Float(f)) if f.is_nan()));
        assert_eq!(resolve("yes", "", false), Ok(text("yes")));
    }

    #[test]
    fn tags_decide_or_are_refused() {
        assert_eq!(resolve("5", "!!str", true), Ok(Scalar::Text("5".into())));
        assert_eq!(resolve("5", "!!int", false), Ok(Scalar::Int(5)));
        assert_eq!(resolve("5", "!!float", true), Ok(Scalar::Float(5.0)));
        assert_eq!(resolve("aGk=", "!!binary", false), Ok(Scalar::Text("hi".into())));
        assert_eq!(resolve("5", "!mine", true), Ok(Scalar::Text("5".into())));
        assert_eq!(resolve("a", "!!int", true), Err("cannot decode !!str `a` as a !!int".into()));
        assert_eq!(resolve("1.5", "!!int", true), Err("cannot decode !!float `1.5` as a !!int".into()));
    }

    #[test]
    fn dates_are_noticed() {
        for date in ["2006-01-02", "2006-1-2", "2024-02-29", "2006-01-02T15:04:05Z", "2006-01-02t15:04:05.5+01:00", "2006-1-2 15:4:5"] {
            assert!(is_timestamp(date), "{date}");
        }
        for other in ["2006", "206-01-02", "2006-13-02", "2023-02-29", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02x", "é-1-2"] {
            assert!(!is_timestamp(other), "{other}");
        }
    }
}
