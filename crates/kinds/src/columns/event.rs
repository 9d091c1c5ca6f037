//! Rows of Events, as the core group and as events.k8s.io show them.

use serde_json::{Value, json};

use super::{name, since};
use crate::validate::tree::{at, int0, opt, s};

pub fn event(o: &Value, now: i64) -> Vec<Value> {
    let empty = json!({});
    let either = |one: &str, other: &str| opt(o, one).or_else(|| opt(o, other)).unwrap_or(&empty).clone();
    let object = either("involvedObject", "regarding");
    let source = either("source", "deprecatedSource");
    let first_time = opt(o, "firstTimestamp").or_else(|| opt(o, "deprecatedFirstTimestamp")).or_else(|| opt(o, "eventTime"));
    let last_time =
        at(o, "series.lastObservedTime").or_else(|| opt(o, "lastTimestamp")).or_else(|| opt(o, "deprecatedLastTimestamp")).or(first_time);
    let kind = s(&object, "kind").to_lowercase();
    let shown = if s(&object, "name").is_empty() { kind } else { format!("{kind}/{}", s(&object, "name")) };
    let one_of = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { a.to_owned() };
    let controller = one_of(s(o, "reportingComponent"), s(o, "reportingController"));
    let component = one_of(s(&source, "component"), &controller);
    let host = one_of(s(&source, "host"), s(o, "reportingInstance"));
    let from = if host.is_empty() { component } else { format!("{component}, {host}") };
    let message = one_of(s(o, "message"), s(o, "note"));
    let count = match at(o, "series").map(|v| int0(v, "count")) {
        Some(n) => n,
        None => int0(o, "count").max(int0(o, "deprecatedCount")).max(1),
    };
    vec![
        since(last_time, now),
        json!(s(o, "type")),
        json!(s(o, "reason")),
        json!(shown),
        json!(s(&object, "fieldPath")),
        json!(from),
        json!(message.trim()),
        since(first_time, now),
        json!(count),
        name(o),
    ]
}
