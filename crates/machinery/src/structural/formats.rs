//! The formats custom resources are checked for, as `strfmt` of `kube-openapi` decides them. A format it does not know, such as
//! `int32`, is dropped from schemas and checks nothing.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use crate::go_url::Url;
use crate::names_net::parse_ip_sloppy;
use crate::{go_mail, names};

type Rule = fn(&str) -> bool;

/// By name, without dashes, which upstream ignores: `date-time` is `datetime`.
const FORMATS: [(&str, Rule); 26] = [
    ("bsonobjectid", |s| s.len() == 24 && s.bytes().all(|b| b.is_ascii_hexdigit())),
    ("byte", base64),
    ("cidr", cidr),
    ("creditcard", credit_card),
    ("date", date),
    ("datetime", date_time),
    ("duration", duration),
    ("email", go_mail::is_address),
    ("hexcolor", |s| matches(&HEX_COLOR, s)),
    ("hostname", hostname),
    ("ipv4", |s| parse_ip_sloppy(s).is_some() && s.contains('.')),
    ("ipv6", |s| s.parse::<IpAddr>().is_ok() && s.contains(':')),
    ("isbn", |s| isbn10(s) || isbn13(s)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("k8slongname", |s| names::dns1123_subdomain(s).is_empty()),
    ("k8sshortname", |s| names::dns1123_label(s).is_empty()),
    ("mac", mac),
    ("password", |_| true),
    ("rgbcolor", |s| matches(&RGB_COLOR, s)),
    // Separators may be left out by the pattern alone.
    ("ssn", |s| s.len() == 11 && matches(&SSN, s)),
    ("uri", |s| Url::parse_request_uri(s).is_ok()),
    ("uuid", |s| uuid(s, None)),
    ("uuid3", |s| uuid(s, Some('3'))),
    ("uuid4", |s| uuid(s, Some('4'))),
    ("uuid5", |s| uuid(s, Some('5'))),
];

/// The rule of a format, if there is one.
pub fn rule(format: &str) -> Option<Rule> {
    let name = format.replace('-', "");
    FORMATS.iter().find(|(n, _)| *n == name).map(|(_, rule)| *rule)
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
    };
}

pattern!(HEX_COLOR, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOR,
    r"^rgb\(S*(B)S*,S*(B)S*,S*(B)S*\)$".replace('S', r"[\t\n\x0C\r ]").replace('B', "0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]").as_str()
);
pattern!(SSN, "^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$");
pattern!(TIME, r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");
pattern!(ONE_LABEL, r"^[a-zA-Z0-9\p{S}\p{L}](-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?$");
pattern!(LABEL, r"^[a-zA-Z0-9\p{S}\p{L}]([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?$");
pattern!(TOP_LABEL, r"^[a-zA-Z\p{L}]{2,63}$");
pattern!(DURATION_PART, "([0-9]+)[ \\t\\n\\x0C\\r]*([A-Za-z\u{b5}]+)");
pattern!(
    CARD,
    concat!(
        "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}",
        "|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}|6[27][0-9]{14})$"
    )
);

fn matches(regex: &LazyLock<Option<Regex>>, text: &str) -> bool {
    regex.as_ref().is_some_and(|r| r.is_match(text))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Padded, and not empty.
fn base64(text: &str) -> bool {
    let plain = text.trim_end_matches('=');
    let padding = text.len() - plain.len();
    !plain.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && plain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn cidr(text: &str) -> bool {
    let Some((ip, length)) = text.split_once('/') else { return false };
    let max = if ip.contains(':') { 128 } else { 32 };
    parse_ip_sloppy(ip).is_some() && digits(length) && length.parse::<u32>().is_ok_and(|n| n <= max)
}

/// The digits' check sum by Luhn, of a number some issuer gives out.
fn credit_card(text: &str) -> bool {
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = number.bytes().rev().enumerate().fold(0, |sum, (i, b)| {
        let digit = u32::from(b - b'0') * if i % 2 == 1 { 2 } else { 1 };
        sum + digit / 10 + digit % 10
    });
    matches(&CARD, &number) && sum.is_multiple_of(10)
}

fn date(text: &str) -> bool {
    text.len() == 10
        && text.as_bytes()[4] == b'-'
        && text.as_bytes()[7] == b'-'
        && text.split('-').all(digits)
        && text.parse::<jiff::civil::Date>().is_ok()
}

fn date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((day, rest)) = lower.split_once('t') else { return false };
    // Upstream looks at what stands between the first two letters t.
    let time = rest.split('t').next().unwrap_or("");
    let Some(found) = TIME.as_ref().and_then(|r| r.captures(time)) else { return false };
    date(day) && &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59"
}

/// Go's durations, or counts of units in words: `3 days`.
fn duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "\u{b5}s", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    if crate::duration::parse(text).is_ok() {
        return true;
    }
    let Some(regex) = DURATION_PART.as_ref() else { return false };
    let mut any = false;
    for found in regex.captures_iter(text) {
        if found[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = found[2].to_lowercase();
        any |= UNITS.iter().any(|names| names.contains(&unit.as_str()) || names.last().is_some_and(|last| unit.starts_with(last)));
    }
    any
}

fn hostname(text: &str) -> bool {
    if text.len() > 255 || text.split('.').any(|label| label.len() > 63) {
        return false;
    }
    match text.rsplit_once('.') {
        None => matches(&ONE_LABEL, text),
        Some((rest, top)) => matches(&TOP_LABEL, top) && rest.split('.').all(|label| matches(&LABEL, label)),
    }
}

fn isbn_digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| if c == 'X' { 10 } else { c.to_digit(10).unwrap_or(99) }).collect()
}

fn isbn10(text: &str) -> bool {
    let all = isbn_digits(text);
    let sound = all.len() == 10 && all[..9].iter().all(|d| *d < 10) && all[9] <= 10;
    sound && (1..).zip(&all).map(|(i, d)| i * d).sum::<u32>().is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let all = isbn_digits(text);
    let sound = all.len() == 13 && all.iter().all(|d| *d < 10);
    sound && [1, 3].iter().cycle().zip(&all).map(|(w, d)| w * d).sum::<u32>().is_multiple_of(10)
}

/// 6, 8 or 20 bytes: pairs with colons or dashes, or fours with dots.
fn mac(text: &str) -> bool {
    let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = |separator: char, length: usize, counts: [usize; 3]| {
        counts.contains(&text.split(separator).count()) && text.split(separator).all(|part| hex(part, length))
    };
    parts(':', 2, [6, 8, 20]) || parts('-', 2, [6, 8, 20]) || parts('.', 4, [3, 4, 10])
}

/// Dashes may be left out.
fn uuid(text: &str, version: Option<char>) -> bool {
    let mut rest = text;
    let mut all = String::with_capacity(32);
    for (i, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((part, after)) = rest.split_at_checked(length) else { return false };
        all.push_str(part);
        rest = after;
    }
    let variant = all.chars().nth(16).map(|c| c.to_ascii_lowercase());
    rest.is_empty()
        && all.bytes().all(|b| b.is_ascii_hexdigit())
        && version.is_none_or(|v| all.chars().nth(12) == Some(v) && (v == '3' || variant.is_some_and(|c| "89ab".contains(c))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_decide_as_upstream() {
        let cases: [(&str, &[&str], &[&str]); 24] = [
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f", "zz7f1f77bcf86cd799439011"]),
            ("byte", &["aGk=", "aGkh", "YQ=="], &["", "aGk", "a===", "a_b=", "===="]),
            ("cidr", &["10.0.0.0/8", "010.0.0.0/08", "::ffff:1.2.3.4/64", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33", "fd00::/129"]),
            ("creditcard", &["4111-1111-1111-1111", "378282246310005"], &["4111111111111112", "1234"]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-9", "20240229", "-024-02-29"]),
            (
                "date-time",
                &["2024-01-02T03:04:05Z", "2024-01-02t03:04:05.5+01:00"],
                &["2024-01-02", "2024-01-02T24:00:00Z", "2024-01-02 03:04:05Z"],
            ),
            ("duration", &["1h30m", "3 days", "1 wk", "3 weeks", "2 hours 5 minutes"], &["", "x", "5", "3 wks", "3 fortnights"]),
            ("email", &["a@b", "A B <a@b.c>", "\"q q\"@b"], &["a", "@b", "a@", "a@b@c<"]),
            ("hexcolor", &["#fff", "aabbcc"], &["#ff", "#gggggg"]),
            ("hostname", &["a", "a.example.com", "a-b.example.com"], &["", "-a", "a.b1", "a..com", "a b"]),
            ("ipv4", &["1.2.3.4", "01.2.3.4", "::ffff:1.2.3.4"], &["1.2.3", "1.2.3.256", "::1"]),
            ("ipv6", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4", "::g"]),
            ("isbn", &["0-306-40615-2", "978-0-306-40615-7"], &["0306406153", "123"]),
            ("k8s-short-name", &["a-b"], &["a.b", "A"]),
            ("k8s-long-name", &["a.b"], &["a_b"]),
            (
                "mac",
                &["01:23:45:67:89:ab", "01-23-45-67-89-ab", "0123.4567.89ab"],
                &["01:23:45:67:89", "0123.4567.89a", "01:23-45:67:89:ab"],
            ),
            ("password", &["", "x"], &[]),
            ("rgbcolor", &["rgb(0, 12,255)", "rgb(\n1,2,\t3)"], &["rgb(256,0,0)", "rgb(0,0)"]),
            ("ssn", &["111-22-3333", "111 22 3333"], &["11-22-3333", "111223333"]),
            (
                "uri",
                &["http://a.b/c", "/c", "mailto:a@b", "http://[::1]:80/x"],
                &["", "a.b/c", "http://a b/", "http://a:x/", "/%zz", "http://[::1"],
            ),
            ("uuid", &["f47ac10b-58cc-4372-a567-0e02b2c3d479", "f47ac10b58cc4372a5670e02b2c3d479"], &["f47ac10b", ""]),
            ("uuid3", &["f47ac10b-58cc-3372-0567-0e02b2c3d479"], &["f47ac10b-58cc-4372-a567-0e02b2c3d479"]),
            ("uuid4", &["f47ac10b-58cc-4372-a567-0e02b2c3d479"], &["f47ac10b-58cc-4372-0567-0e02b2c3d479"]),
            ("uuid5", &["F47AC10B-58CC-5372-A567-0E02B2C3D479"], &["f47ac10b-58cc-4372-a567-0e02b2c3d479"]),
        ];
        for (format, good, bad) in cases {
            let rule = rule(format).unwrap();
            good.iter().for_each(|text| assert!(rule(text), "{format} takes {text}"));
            bad.iter().for_each(|text| assert!(!rule(text), "{format} refuses {text:?}"));
        }
        assert!(["int32", "int64", "float", "double", "", "nope"].iter().all(|format| rule(format).is_none()));
    }

    proptest! {
        #[test]
        fn anything_may_come(text in any::<String>(), part in "[-0-9a-fT:.@<>/%\\[\\]?# ]{0,40}") {
            for (_, rule) in FORMATS {
                rule(&text);
                rule(&part);
            }
        }
    }
}
