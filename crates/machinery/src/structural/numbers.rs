//! Numbers as Go has them: what is a whole number, and what is a multiple.

use serde_json::{Number, Value};

/// JSON's whole numbers that every `float64` holds exactly.
const SAFE_MAX: f64 = 9_007_199_254_740_991.0;
const EPSILON: f64 = 1e-9;

/// A number as the decoder hands it to validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    pub fn of(number: &Number) -> Self {
        number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
    }

    pub fn float(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(f) => f,
        }
    }
}

/// `swag.IsFloat64AJSONInteger`: near enough to a whole number.
pub(super) fn is_whole(f: f64) -> bool {
    if !f.is_finite() || f.abs() > SAFE_MAX {
        return false;
    }
    let whole = f.trunc();
    let difference = (f - whole).abs();
    if f == whole {
        return true;
    }
    if f == 0.0 || whole == 0.0 {
        return false;
    }
    difference / (f.abs() + whole.abs()) < EPSILON
}

/// Whether a value equals an entry of an enum, which Go converts it to the type of first: whole numbers forget fractions.
pub(super) fn enum_equal(value: &Value, entry: &Value) -> bool {
    match (value, entry) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Number(a), Value::Number(b)) => match (Num::of(a), Num::of(b)) {
            (Num::Int(a), Num::Int(b)) => a == b,
            (a, Num::Float(b)) => a.float() == b,
            (Num::Float(a), Num::Int(b)) => a.trunc() == b as f64,
        },
        (a, b) => a == b,
    }
}

/// Whether `data` is a multiple; the factor is not negative.
pub(super) fn is_multiple(data: f64, factor: f64) -> bool {
    is_whole(if factor < 1.0 { 1.0 / factor * data } else { data / factor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_and_multiples() {
        assert!(is_whole(3.0) && is_whole(-3.0) && is_whole(0.0) && !is_whole(3.5) && !is_whole(1e300) && !is_whole(f64::NAN));
        assert!(is_multiple(9.0, 3.0) && !is_multiple(10.0, 3.0) && is_multiple(0.3, 0.1) && is_multiple(1.0, 0.01));
        assert!(!is_multiple(1.0, 0.0));
    }

    #[test]
    fn enums_convert() {
        for (value, entry, wanted) in [
            (json!(1), json!(1), true),
            (json!(1), json!(1.0), true),
            (json!(1.5), json!(1), true),
            (json!(1), json!(1.5), false),
            (json!(null), json!(null), false),
            (json!("a"), json!("a"), true),
            (json!([1]), json!([1]), true),
            (json!("1"), json!(1), false),
        ] {
            assert_eq!(enum_equal(&value, &entry), wanted, "{value} {entry}");
        }
    }
}
