//! core/v1 and events.k8s.io/v1 Events differ in the names of fields alone.

use serde_json::Value;

/// (core, events.k8s.io)
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn to_core(event: &mut Value) {
    for (core, new) in NAMES {
        rename(event, new, core);
    }
    // Not omitted when empty in core.
    if let Some(map) = event.as_object_mut() {
        for key in ["reportingComponent", "reportingInstance"] {
            map.entry(key).or_insert_with(|| Value::String(String::new()));
        }
    }
}

pub(super) fn to_events(event: &mut Value) {
    for (core, new) in NAMES {
        rename(event, core, new);
    }
    if let Some(map) = event.as_object_mut() {
        for key in ["reportingController", "reportingInstance"] {
            if map.get(key).is_some_and(|v| v == "") {
                map.remove(key);
            }
        }
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(map) = object.as_object_mut()
        && let Some(value) = map.remove(from)
    {
        map.insert(to.to_owned(), value);
    }
}
