//! Between JSON trees and values.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::error::EvalError;
use crate::types::{ListSemantics, Type};
use crate::value::{List, Map, Text, Value};

static ATOMIC: ListSemantics = ListSemantics::Atomic;
static ANY: Type = Type::Dyn;

/// Reads a tree by its declared type. What does not fit its type is read as it is: schemas are checked elsewhere.
pub(crate) fn read<'a>(tree: &'a Json, of: &'a Type) -> Value<'a> {
    match (tree, of) {
        (Json::Null, _) => Value::Null,
        (_, Type::Optional(of)) => Value::Optional(Some(Arc::new(read(tree, of)))),
        (Json::Bool(b), _) => Value::Bool(*b),
        (Json::Number(n), of) => number(n, of),
        (Json::String(s), of) => string(s, of),
        (Json::Array(items), Type::List(list)) => Value::List(List::Json { items, elem: &list.elem, semantics: &list.semantics }),
        (Json::Array(items), _) => Value::List(List::Json { items, elem: &ANY, semantics: &ATOMIC }),
        (Json::Object(entries), Type::Object(of)) => Value::Map(Map::Object { entries, of }),
        (Json::Object(entries), Type::Map(map)) => Value::Map(Map::Json { entries, value: &map.value }),
        (Json::Object(entries), _) => Value::Map(Map::Json { entries, value: &ANY }),
    }
}

fn number<'a>(n: &serde_json::Number, of: &Type) -> Value<'a> {
    let float = n.as_f64().unwrap_or_default();
    match (n.as_i64(), of) {
        (_, Type::Double) => Value::Double(float),
        (Some(i), Type::Uint) if i >= 0 => Value::Uint(i.unsigned_abs()),
        (Some(i), _) => Value::Int(i),
        (None, Type::Int) if float.fract() == 0.0 && float.abs() < i64::MAX as f64 => Value::Int(float as i64),
        (None, _) => Value::Double(float),
    }
}

fn string<'a>(s: &'a str, of: &Type) -> Value<'a> {
    let read = match of {
        Type::Timestamp => timestamp(s).map(Value::Timestamp),
        Type::Duration => machinery::duration::parse(s).ok().map(Value::Duration),
        Type::Bytes => STANDARD.decode(s).ok().map(|b| Value::Bytes(b.into())),
        _ => None,
    };
    read.unwrap_or(Value::String(Text::Borrowed(s)))
}

/// What schemas take for `date-time`, whose letters may be small, and for `date`.
fn timestamp(s: &str) -> Option<jiff::Timestamp> {
    use crate::time::parse_timestamp;
    match s.len() {
        10 => parse_timestamp(&format!("{s}T00:00:00Z")),
        _ => parse_timestamp(s).or_else(|| parse_timestamp(&s.to_ascii_uppercase())),
    }
}

/// The tree of a value.
pub(crate) fn write(value: &Value<'_>) -> Result<Json, EvalError> {
    Ok(match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Double(d) => serde_json::Number::from_f64(*d).map_or(Json::Null, Json::Number),
        Value::String(s) => Json::String(s.to_string()),
        Value::Bytes(b) => Json::String(STANDARD.encode(b)),
        Value::Timestamp(t) => Json::String(crate::time::format_timestamp(*t)),
        Value::Duration(d) => Json::String(crate::time::format_duration(*d)),
        Value::Optional(Some(v)) => write(v)?,
        Value::List(List::Json { items, .. }) => Json::Array(items.to_vec()),
        Value::List(List::Owned(items)) => Json::Array(items.iter().map(write).collect::<Result<_, _>>()?),
        Value::Map(Map::Json { entries, .. } | Map::Object { entries, .. }) => Json::Object((*entries).clone()),
        Value::Map(Map::Owned(entries)) => {
            Json::Object(entries.iter().map(|(k, v)| Ok((k.to_string(), write(v)?))).collect::<Result<_, EvalError>>()?)
        }
        Value::Struct(s) => Json::Object(s.fields.iter().map(|(k, v)| Ok((k.to_string(), write(v)?))).collect::<Result<_, EvalError>>()?),
        Value::Map(Map::Prepared(_)) | Value::Type(_) | Value::Opaque(_) => {
            return Err(EvalError::new(format!("unsupported type to convert to JSON: {}", value.type_of())));
        }
    })
}
