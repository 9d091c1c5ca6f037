//! Go's `time.Duration` text: `1h2m3.5s`, `100ms`. Used by fields of type `metav1.Duration` and by configuration.

/// Parses into nanoseconds; the error is Go's.
pub fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {}", crate::gotime::quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(whole_len);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(bad());
        }
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", crate::gotime::quote(text)));
        }
        let scale = unit_nanos(unit)
            .ok_or_else(|| format!("time: unknown unit {} in duration {}", crate::gotime::quote(unit), crate::gotime::quote(text)))?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        total = whole.checked_mul(scale).and_then(|n| n.checked_add(total)).ok_or_else(bad)?;
        let mut place = scale;
        for b in fraction.bytes().take(18) {
            total += i128::from(b - b'0') * place / 10;
            place /= 10;
        }
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(bad());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| bad())
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Go's `Duration.String`.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    if n == 0 {
        return "0s".to_owned();
    }
    if n < 1_000_000_000 {
        let (unit, scale) = match n {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", fractional(n, scale));
    }
    let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
    let seconds = fractional(n % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// As [`format`], of an unsigned duration.
pub fn text(duration: std::time::Duration) -> String {
    format(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// `n / scale` with as many decimals as it needs.
fn fractional(n: u64, scale: u64) -> String {
    let (whole, rest) = (n / scale, n % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for (text, nanos, canonical) in [
            ("0", 0, "0s"),
            ("1s", 1_000_000_000, "1s"),
            ("1h2m3.5s", 3_723_500_000_000, "1h2m3.5s"),
            ("90m", 5_400_000_000_000, "1h30m0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.5us", 1_500, "1.5\u{b5}s"),
            ("-1.5h", -5_400_000_000_000, "-1h30m0s"),
            (".5s", 500_000_000, "500ms"),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
            assert_eq!(format(nanos), canonical, "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("1", "time: missing unit in duration \"1\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("99999999999h", "time: invalid duration \"99999999999h\""),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_duration_round_trips(nanos: i64) {
            proptest::prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }
    }
}
