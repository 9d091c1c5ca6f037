//! `resource.Quantity`: decimal numbers with a unit suffix, as in `100m`, `1.5Gi`, `12e6`.
//!
//! A value is an `i128` count of nanos, which holds everything upstream can hold in practice: parsing long numbers caps
//! magnitudes at 2^63-1 and rounds up below one nano, as upstream does. Text is upstream's canonical form. Pure arithmetic, no
//! allocation but for text. Called wherever resources are compared or summed: validation, quota, scheduler, kubelet.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

const NANO: i128 = 1_000_000_000;
/// The largest magnitude: 2^63-1 units.
const MAX: i128 = i64::MAX as i128 * NANO;

/// Where numbers that upstream holds exactly, but nobody means, end here: 10^28 units.
const HUGE: i128 = 10i128.pow(37);

/// Which suffixes the text form uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, ...
    BinarySI,
    /// `m`, `k`, `M`, ...
    #[default]
    DecimalSI,
    /// `e3`, `e6`, ...
    DecimalExponent,
}

/// A fixed-point number with the format it was written in. Compares and adds by value; the left side's format is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity. The texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Decimal suffixes with their powers of ten.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Binary suffixes with their powers of two.
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

enum Scale {
    Ten(i32),
    Two(u32),
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSI };

    /// A whole number of units.
    pub const fn new(units: i64, format: Format) -> Self {
        Self { nanos: units as i128 * NANO, format }
    }

    /// A number of thousandths.
    pub const fn milli(milli: i64, format: Format) -> Self {
        Self { nanos: milli as i128 * 1_000_000, format }
    }

    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, digits, fraction, suffix) = split(text)?;
        let (scale, format) = interpret(suffix)?;
        let nanos = match scale {
            // Upstream's fast path knows no cap: `100E` is more than 2^63-1 and stays so.
            Scale::Ten(exponent) if digits.trim_start_matches('0').len() + fraction.len() <= 18 => {
                scale_decimal(digits, fraction, exponent).min(HUGE)
            }
            Scale::Ten(exponent) => scale_decimal(digits, fraction, exponent).min(MAX),
            Scale::Two(shift) => scale_binary(digits, fraction, shift).min(MAX),
        };
        // Values under 1 cannot be told in binary units.
        let format = if format == Format::BinarySI && nanos > 0 && nanos < NANO { Format::DecimalSI } else { format };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub const fn format(&self) -> Format {
        self.format
    }

    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub const fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Units, rounded up (away from zero), clamped to `i64`.
    pub fn value(&self) -> i64 {
        self.rounded(NANO)
    }

    /// Thousandths, rounded up (away from zero), clamped to `i64`.
    pub fn milli_value(&self) -> i64 {
        self.rounded(1_000_000)
    }

    pub const fn nano_value(&self) -> i128 {
        self.nanos
    }

    /// Whether the value is whole in units of thousandths.
    pub const fn is_whole_milli(&self) -> bool {
        self.nanos % 1_000_000 == 0
    }

    /// Whether the value is a whole number.
    pub const fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    fn rounded(&self, unit: i128) -> i64 {
        let up = self.nanos / unit + (self.nanos % unit).signum();
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Sign, digits before the point, digits after it, suffix. Follows `parseQuantityString`.
fn split(text: &str) -> Result<(bool, &str, &str, &str), ParseError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_len = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = rest.split_at(digits_len);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    if digits.is_empty() && fraction.is_empty() {
        return Err(ParseError::Format);
    }
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &suffix.as_bytes()[letters..];
    let tail = tail.strip_prefix(b"-").or_else(|| tail.strip_prefix(b"+")).unwrap_or(tail);
    if tail.iter().all(u8::is_ascii_digit) { Ok((negative, digits, fraction, suffix)) } else { Err(ParseError::Format) }
}

fn interpret(suffix: &str) -> Result<(Scale, Format), ParseError> {
    if let Some((_, ten)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Scale::Ten(*ten), Format::DecimalSI));
    }
    if let Some((_, two)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Scale::Two(*two), Format::BinarySI));
    }
    match suffix.as_bytes() {
        [b'e' | b'E', _, ..] => {
            let exponent: i64 = suffix[1..].parse().map_err(|_| ParseError::Suffix)?;
            let exponent = i32::try_from(exponent.clamp(-1000, 1000)).map_err(|_| ParseError::Suffix)?;
            Ok((Scale::Ten(exponent), Format::DecimalExponent))
        }
        _ => Err(ParseError::Suffix),
    }
}

/// `digits.fraction * 10^exponent` in nanos, rounded up, saturating.
fn scale_decimal(digits: &str, fraction: &str, exponent: i32) -> i128 {
    let mut value: i128 = 0;
    // How many decimal places of `value` still are to come before it counts nanos.
    let mut places = i64::from(exponent) + 9;
    let mut lost = false;
    for (in_fraction, b) in digits.bytes().map(|b| (false, b)).chain(fraction.bytes().map(|b| (true, b))) {
        // A digit counts while its weight is at least one nano; integer digits always shift what is there.
        if in_fraction {
            places -= 1;
        }
        if in_fraction && places < 0 && places < -40 {
            lost |= b != b'0';
            continue;
        }
        match value.checked_mul(10).and_then(|v| v.checked_add(i128::from(b - b'0'))) {
            Some(v) => value = v,
            // Too many digits: if they are fraction digits, drop them; if integer ones the number is beyond the cap.
            None if in_fraction => {
                places += 1;
                lost |= b != b'0';
            }
            None => return if places < -30 { tiny(value) } else { i128::MAX },
        }
    }
    shift_decimal(value, places, lost)
}

const fn tiny(value: i128) -> i128 {
    if value > 0 { 1 } else { 0 }
}

fn shift_decimal(mut value: i128, mut places: i64, mut lost: bool) -> i128 {
    if value == 0 {
        return i128::from(lost);
    }
    while places > 0 {
        match value.checked_mul(10) {
            Some(v) => value = v,
            None => return i128::MAX,
        }
        places -= 1;
    }
    while places < 0 && value > 0 {
        lost |= value % 10 != 0;
        value /= 10;
        places += 1;
    }
    value.saturating_add(i128::from(lost))
}

/// `digits.fraction * 2^shift` in nanos, rounded up, saturating.
fn scale_binary(digits: &str, fraction: &str, shift: u32) -> i128 {
    let mut units: i128 = 0;
    for b in digits.bytes() {
        units = units.saturating_mul(10).saturating_add(i128::from(b - b'0'));
    }
    // 2^60 * 10^18 still fits in an i128, so eighteen places are exact; later ones can only round up.
    let (mut numerator, mut denominator): (i128, i128) = (0, 1);
    let mut lost = false;
    for (i, b) in fraction.bytes().enumerate() {
        if i < 18 {
            numerator = numerator * 10 + i128::from(b - b'0');
            denominator *= 10;
        } else {
            lost |= b != b'0';
        }
    }
    let whole = units.saturating_mul(1 << shift).saturating_mul(NANO);
    // numerator * 2^shift overflows i128 times NANO, so divide in two steps.
    let scaled = numerator.saturating_mul(1 << shift);
    let (q, r) = (scaled / denominator, scaled % denominator);
    let part = q.saturating_mul(NANO).saturating_add(div_up(r.saturating_mul(NANO), denominator));
    whole.saturating_add(part).saturating_add(i128::from(lost && part % NANO == 0))
}

const fn div_up(n: i128, d: i128) -> i128 {
    n / d + (n % d != 0) as i128
}

impl fmt::Display for Quantity {
    /// The canonical form: no precision lost, no fraction, the largest suffix possible.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let magnitude = self.nanos.abs();
        // Values under 1024 or with a fraction are told in decimal units.
        if self.format == Format::BinarySI && magnitude >= 1024 * NANO && magnitude % NANO == 0 {
            let (mut n, mut i) = (magnitude / NANO, 0);
            while n % 1024 == 0 && i < BINARY.len() {
                n /= 1024;
                i += 1;
            }
            return write!(f, "{sign}{n}{}", if i == 0 { "" } else { BINARY[i - 1].0 });
        }
        let (mut n, mut exponent) = (magnitude, -9);
        while n % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            n /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{sign}{n}"),
            Format::DecimalExponent => write!(f, "{sign}{n}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
                write!(f, "{sign}{n}{suffix}")
            }
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        Self::parse(s)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Zero takes the other's format.
    fn add(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), format: if self.is_zero() { other.format } else { self.format } }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), format: if self.is_zero() { other.format } else { self.format } }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_text() {
        for (text, canonical) in [
            ("0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.5Mi", "512Ki"),
            ("1.1Ki", "1126400m"),
            ("0.0001Ki", "102400u"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("1e-3", "1e-3"),
            ("1E", "1E"),
            ("1Ei", "1Ei"),
            ("100E", "100E"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("99999999999999999999999999999999999999999999", "9223372036854775807"),
            ("1e-1000", "1e-9"),
            ("0.00000000001", "1n"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+1", "1"),
            (".5", "500m"),
            ("5.", "5"),
            ("00012", "12"),
            ("1000000000000000000000", "9223372036854775807"),
            ("1k", "1k"),
            ("0Ki", "0"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn bad_text() {
        for (text, error) in [
            ("", ParseError::Format),
            ("a", ParseError::Format),
            ("-", ParseError::Format),
            (".", ParseError::Format),
            ("1 ", ParseError::Format),
            ("1.2.3", ParseError::Format),
            ("--1", ParseError::Format),
            ("1Kii", ParseError::Suffix),
            ("1K", ParseError::Suffix),
            ("1mm", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("1ki", ParseError::Suffix),
            ("1-5", ParseError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn rounding_goes_up() {
        let q = Quantity::parse("1.0001").unwrap();
        assert_eq!((q.value(), q.milli_value()), (2, 1001));
        let q = Quantity::parse("-1.0001").unwrap();
        assert_eq!((q.value(), q.milli_value()), (-2, -1001));
        assert_eq!(Quantity::parse("9E").unwrap().milli_value(), i64::MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_safe_and_canonical_text_is_stable(text in "[+-]?[0-9.]{0,40}([eEinumkKMGTP]{0,2}[-+]?[0-9]{0,4})?") {
            // Above the cap upstream's own canonical text need not parse to the same number.
            if let Ok(q) = Quantity::parse(&text).map(|q| Quantity { nanos: q.nanos.clamp(-MAX, MAX), ..q }) {
                let once = q.to_string();
                let again = Quantity::parse(&once).unwrap();
                prop_assert_eq!(again, q);
                prop_assert_eq!(again.to_string(), once);
            }
        }

        #[test]
        fn sums(a in -1_000_000_000_000i64..1_000_000_000_000, b in -1_000_000_000_000i64..1_000_000_000_000) {
            let (x, y) = (Quantity::milli(a, Format::DecimalSI), Quantity::milli(b, Format::BinarySI));
            prop_assert_eq!((x + y).milli_value(), a + b);
            prop_assert_eq!((x - y) + y, x);
            prop_assert_eq!(x < y, a < b);
        }
    }
}
