//! `intstr.IntOrString` read from trees: ports, and counts that may be percents of a whole.

use serde_json::Value;

/// A number or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrString<'a> {
    Int(i64),
    String(&'a str),
}

impl<'a> IntOrString<'a> {
    pub fn read(value: &'a Value) -> Option<Self> {
        match value {
            Value::Number(n) => n.as_i64().map(Self::Int),
            Value::String(s) => Some(Self::String(s)),
            _ => None,
        }
    }

    /// The percents of `"30%"`.
    pub fn percent(self) -> Option<i64> {
        match self {
            Self::String(s) => s.strip_suffix('%').and_then(|n| n.parse().ok()),
            Self::Int(_) => None,
        }
    }

    /// The number itself, or that part of `total`; `None` for a text that is no percent.
    pub fn scaled(self, total: i64, round_up: bool) -> Option<i64> {
        match self {
            Self::Int(n) => Some(n),
            Self::String(_) => {
                let part = i128::from(self.percent()?) * i128::from(total);
                let scaled = if round_up { part.div_euclid(100) + i128::from(part.rem_euclid(100) != 0) } else { part.div_euclid(100) };
                i64::try_from(scaled).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scales() {
        for (value, total, up, down) in [
            (json!(3), 10, Some(3), Some(3)),
            (json!("25%"), 10, Some(3), Some(2)),
            (json!("100%"), 7, Some(7), Some(7)),
            (json!("0%"), 7, Some(0), Some(0)),
            (json!("x"), 7, None, None),
        ] {
            let read = IntOrString::read(&value);
            assert_eq!(read.and_then(|v| v.scaled(total, true)), up, "{value}");
            assert_eq!(read.and_then(|v| v.scaled(total, false)), down, "{value}");
        }
    }
}
