//! Cells of table rows, per kind, by the rules of upstream's printers. The columns themselves are facts.

pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod event;
pub mod pod;
pub mod service;

use serde_json::{Value, json};

use crate::validate::tree::{at, opt};

/// The `Age` cell.
pub fn age(object: &Value, now: i64) -> Value {
    since(at(object, "metadata.creationTimestamp"), now)
}

/// The time since an RFC 3339 time; `<unknown>` where there is none.
pub fn since(time: Option<&Value>, now: i64) -> Value {
    let text = time.and_then(Value::as_str).and_then(machinery::time::parse);
    text.map_or_else(|| json!("<unknown>"), |then| json!(machinery::time::human_duration(now - then)))
}

/// The `Created At` cell. What was never made, as the object of a bookmark, shows Go's zero time.
pub fn created_at(object: &Value) -> Value {
    at(object, "metadata.creationTimestamp").filter(|t| !t.is_null()).cloned().unwrap_or_else(|| json!("0001-01-01T00:00:00Z"))
}

pub fn name(object: &Value) -> Value {
    opt(object, "metadata").and_then(|m| opt(m, "name")).cloned().unwrap_or_else(|| json!(""))
}
