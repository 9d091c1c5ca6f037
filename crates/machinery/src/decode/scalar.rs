//! Leaves: what each scalar accepts, and how Go writes it back.

use serde_json::Value;

use crate::duration;
use crate::gotime;
use crate::quantity::Quantity;
use crate::schema::Scalar;

/// Why a leaf was refused.
pub(super) enum Refusal {
    /// `json: cannot unmarshal {found} into ... of type {wanted}`
    Type { found: String, wanted: &'static str },
    /// The text of a type's own `UnmarshalJSON`.
    Text(String),
}

pub(super) fn go_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String | Scalar::Time | Scalar::MicroTime | Scalar::Duration | Scalar::Quantity => "string",
        Scalar::Bytes => "[]uint8",
        Scalar::Bool => "bool",
        Scalar::Int32 | Scalar::IntOrString => "int32",
        Scalar::Int64 => "int64",
        Scalar::Uint32 => "uint32",
        Scalar::Uint64 => "uint64",
        Scalar::Float32 => "float32",
        Scalar::Float64 => "float64",
        Scalar::FieldsV1 => "map[string]interface {}",
    }
}

/// The kind of the Go type: `[]uint8` is a slice.
pub(super) fn go_kind(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Bytes => "slice",
        Scalar::FieldsV1 => "struct",
        other => go_name(other),
    }
}

fn wrong(scalar: Scalar, value: &Value) -> Refusal {
    Refusal::Type { found: crate::json::go_kind(value).to_owned(), wanted: go_name(scalar) }
}

/// Rewrites a leaf that is not null.
pub(super) fn decode(scalar: Scalar, value: &mut Value) -> Result<(), Refusal> {
    match (scalar, &mut *value) {
        (Scalar::String, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) | (Scalar::FieldsV1, _) => Ok(()),
        (Scalar::Int32, Value::Number(_)) => integer(scalar, value, i64::from(i32::MIN), i64::from(i32::MAX)),
        (Scalar::Int64, Value::Number(_)) => integer(scalar, value, i64::MIN, i64::MAX),
        (Scalar::Uint32, Value::Number(_)) => integer(scalar, value, 0, i64::from(u32::MAX)),
        (Scalar::Uint64, Value::Number(_)) => integer(scalar, value, 0, i64::MAX),
        (Scalar::Float32 | Scalar::Float64, Value::Number(_)) => Ok(()),
        (Scalar::IntOrString, Value::Number(_)) => integer(scalar, value, i64::from(i32::MIN), i64::from(i32::MAX)),
        (Scalar::IntOrString, Value::String(_)) => Ok(()),
        (Scalar::Bytes, Value::String(text)) => bytes(text),
        (Scalar::Time, Value::String(text)) => rewrite(text, gotime::parse_seconds),
        (Scalar::MicroTime, Value::String(text)) => rewrite(text, gotime::parse_micros),
        (Scalar::Duration, Value::String(text)) => rewrite(text, |t| duration::parse(t).map(duration::format)),
        (Scalar::Quantity, Value::String(text)) => quantity(text).map(|changed| {
            if let Some(changed) = changed {
                *value = Value::String(changed);
            }
        }),
        (Scalar::Quantity, Value::Number(number)) => {
            let text = number.to_string();
            let canonical = quantity(&text)?.unwrap_or(text);
            *value = Value::String(canonical);
            Ok(())
        }
        (Scalar::Quantity, other) => quantity(&other.to_string()).map(|_| ()),
        (_, other) => Err(wrong(scalar, other)),
    }
}

fn integer(scalar: Scalar, value: &Value, min: i64, max: i64) -> Result<(), Refusal> {
    match value.as_i64() {
        Some(n) if (min..=max).contains(&n) => Ok(()),
        _ => Err(Refusal::Type { found: format!("number {value}"), wanted: go_name(scalar) }),
    }
}

fn rewrite(text: &mut String, parse: impl Fn(&str) -> Result<String, String>) -> Result<(), Refusal> {
    let canonical = parse(text).map_err(Refusal::Text)?;
    if canonical != *text {
        *text = canonical;
    }
    Ok(())
}

/// The canonical form where it differs.
fn quantity(text: &str) -> Result<Option<String>, Refusal> {
    let canonical = Quantity::parse(text).map_err(|e| Refusal::Text(e.to_string()))?.to_string();
    Ok((canonical != text).then_some(canonical))
}

/// Checks base64 as Go's `StdEncoding` does, which skips line ends; they are removed.
fn bytes(text: &mut String) -> Result<(), Refusal> {
    if text.contains(['\r', '\n']) {
        text.retain(|c| c != '\r' && c != '\n');
    }
    match bad_base64_at(text.as_bytes()) {
        None => Ok(()),
        Some(at) => Err(Refusal::Text(format!("illegal base64 data at input byte {at}"))),
    }
}

fn bad_base64_at(text: &[u8]) -> Option<usize> {
    let mut in_quantum = 0;
    for (at, c) in text.iter().enumerate() {
        match c {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => in_quantum = (in_quantum + 1) % 4,
            b'=' => {
                let rest = &text[at + 1..];
                return match (in_quantum, rest) {
                    (2, [b'=']) | (3, []) => None,
                    (2, []) => Some(text.len()),
                    (2, [b'=', ..]) => Some(at + 2),
                    (2, _) => Some(at),
                    (3, _) => Some(at + 1),
                    _ => Some(at),
                };
            }
            _ => return Some(at),
        }
    }
    (in_quantum != 0).then(|| text.len() - in_quantum)
}
