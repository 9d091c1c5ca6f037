//! An API object as a JSON tree, and short ways to its metadata. Objects are trees so that an unknown or newer field
//! is never dropped; typed structs are for readers.

use serde_json::{Map, Value};

/// A string at a dotted path, or `""`. Paths are plain field names; no indices.
pub fn str_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The value at a dotted path.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |v, name| v.get(name))
}

/// The map at a dotted path, made (also over a null or a scalar) where it is not there.
pub fn map_mut<'a>(object: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut v = object;
    for name in path.split('.').filter(|s| !s.is_empty()) {
        v = as_map_mut(v).entry(name).or_insert(Value::Null);
    }
    as_map_mut(v)
}

fn as_map_mut(v: &mut Value) -> &mut Map<String, Value> {
    if !v.is_object() {
        *v = Value::Object(Map::new());
    }
    match v {
        Value::Object(m) => m,
        _ => unreachable!("just made an object"),
    }
}

pub fn name(object: &Value) -> &str {
    str_at(object, "metadata.name")
}

pub fn namespace(object: &Value) -> &str {
    str_at(object, "metadata.namespace")
}

pub fn uid(object: &Value) -> &str {
    str_at(object, "metadata.uid")
}

pub fn resource_version(object: &Value) -> &str {
    str_at(object, "metadata.resourceVersion")
}

pub fn generation(object: &Value) -> i64 {
    at(object, "metadata.generation").and_then(Value::as_i64).unwrap_or(0)
}

/// The metadata map, made where it is not there.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

/// Labels as (key, value) pairs in key order.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    at(object, "metadata.labels").and_then(Value::as_object).into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}
