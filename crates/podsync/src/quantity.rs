//! Reading quantities as whole or thousandth units, rounded up, saturating. Not a general decimal: what the node does
//! with resources needs no more. Called by requests, cgroup and downward.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths; zero for text that is no quantity (the API server admits none).
pub fn milli(q: &Quantity) -> i64 {
    parse(&q.0, 3).unwrap_or(0)
}

/// Whole units.
pub fn value(q: &Quantity) -> i64 {
    parse(&q.0, 0).unwrap_or(0)
}

/// `text * 10^scale`, rounded up.
fn parse(text: &str, scale: i32) -> Option<i64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (binary, decimal): (u32, i32) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        s => (0, s.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = &fraction[..fraction.len().min(15)];
    let digits: i128 = format!("{whole}{fraction}").get(..).filter(|d| d.len() <= 34)?.parse().ok()?;
    let mut mantissa = digits.checked_mul(1i128.checked_shl(binary)?).unwrap_or(i128::MAX / 10);
    let exponent = decimal.checked_add(scale)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    for _ in 0..exponent.unsigned_abs().min(60) {
        mantissa = if exponent > 0 { mantissa.saturating_mul(10) } else { mantissa / 10 + i128::from(mantissa % 10 != 0) };
    }
    let signed = if negative { -mantissa } else { mantissa };
    Some(i64::try_from(signed).unwrap_or(if negative { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        for (text, m, v) in [
            ("100m", 100, 1),
            ("1", 1000, 1),
            ("1.5", 1500, 2),
            ("128Mi", 134_217_728_000, 134_217_728),
            ("1k", 1_000_000, 1000),
            ("1e3", 1_000_000, 1000),
            ("0.1m", 1, 1),
            ("1500n", 1, 1),
            ("-2", -2000, -2),
            ("8Ei", i64::MAX, i64::MAX),
            ("1e99999", i64::MAX, i64::MAX),
            ("", 0, 0),
            ("x", 0, 0),
        ] {
            let q = Quantity(text.to_owned());
            assert_eq!((milli(&q), value(&q)), (m, v), "{text}");
        }
    }
}
