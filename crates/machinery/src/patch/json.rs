//! JSON patch, RFC 6902, as the library upstream uses carries it out: replacing a missing key of an object adds it, negative
//! indices count from the end.

use serde_json::{Map, Value};

use super::PatchError;
use crate::field::go_quote;
use crate::json::{self, go_kind};

pub const OPERATIONS_MAX: usize = 10_000;
/// What copies may add up to, as upstream.
const COPY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A parsed patch, and the strict errors found in it: unknown and repeated fields of its operations.
#[derive(Debug)]
pub struct JsonPatch {
    operations: Vec<Value>,
    pub strict: Vec<String>,
}

impl JsonPatch {
    pub fn parse(bytes: &[u8]) -> Result<Self, PatchError> {
        let parsed = json::parse(bytes).map_err(|e| PatchError::Decode(e.to_string()))?;
        let Value::Array(operations) = parsed.value else {
            let found = go_kind(&parsed.value);
            return Err(PatchError::Decode(format!("json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp")));
        };
        if operations.len() > OPERATIONS_MAX {
            return Err(PatchError::TooManyOperations(operations.len()));
        }
        let mut strict: Vec<String> = parsed.strict.iter().map(|s| format!("json patch {s}")).collect();
        for (index, operation) in operations.iter().enumerate() {
            let Value::Object(map) = operation else {
                let found = go_kind(operation);
                return Err(PatchError::Decode(format!("json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp")));
            };
            let unknown = map.keys().filter(|k| !["op", "path", "from", "value"].contains(&k.as_str()));
            strict.extend(unknown.map(|k| format!("json patch unknown field {}", go_quote(&format!("[{index}].{k}")))));
        }
        Ok(Self { operations, strict })
    }

    /// Whether it has no operations.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The objects and lists the operations go into, as a tree of their keys: for [`super::shown`].
    pub fn touched(&self) -> Value {
        let mut out = Value::Object(Map::new());
        for operation in &self.operations {
            for key in ["path", "from"] {
                let Some((steps, _)) = operation.get(key).and_then(Value::as_str).and_then(split) else { continue };
                let mut at = &mut out;
                for step in steps {
                    let Value::Object(map) = at else { break };
                    at = map.entry(step).or_insert_with(|| Value::Object(Map::new()));
                }
            }
        }
        out
    }

    /// Carries the operations out in order; all or nothing.
    pub fn apply(&self, object: &Value) -> Result<Value, PatchError> {
        let mut out = object.clone();
        let mut copied = 0;
        for operation in &self.operations {
            run(&mut out, operation, &mut copied).ok_or(PatchError::Rejected)?;
        }
        Ok(out)
    }
}

fn run(object: &mut Value, operation: &Value, copied: &mut usize) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let value = operation.get("value").cloned().unwrap_or(Value::Null);
    let from = || operation.get("from").and_then(Value::as_str);
    match operation.get("op")?.as_str()? {
        "add" => add(object, path, value),
        "remove" => remove(object, path).map(|_| ()),
        "replace" => replace(object, path, value),
        "test" => {
            let found = if path.is_empty() { Some(&*object) } else { find(object, path) };
            let same = match found {
                None | Some(Value::Null) => value.is_null(),
                Some(found) => *found == value,
            };
            same.then_some(())
        }
        "move" => {
            let moved = remove(object, from()?)?;
            add(object, path, moved)
        }
        "copy" => {
            let value = find(object, from()?)?.clone();
            *copied += value.to_string().len();
            if *copied > COPY_BYTES_MAX {
                return None;
            }
            add(object, path, value)
        }
        _ => None,
    }
}

/// The parent of the last step, and that step. A path without a leading slash leads nowhere.
fn split(path: &str) -> Option<(Vec<String>, String)> {
    let mut steps: Vec<String> = path.strip_prefix('/')?.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    let last = steps.pop()?;
    Some((steps, last))
}

fn index(step: &str, len: usize) -> Option<usize> {
    let number: i64 = step.parse().ok()?;
    let len = i64::try_from(len).ok()?;
    let at = if number < 0 { number + len } else { number };
    (0..len).contains(&at).then(|| usize::try_from(at).ok()).flatten()
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(step),
        Value::Array(items) => items.get(index(step, items.len())?),
        _ => None,
    }
}

fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let (steps, last) = split(path)?;
    child(steps.iter().try_fold(object, |v, step| child(v, step))?, &last)
}

fn parent<'a>(object: &'a mut Value, steps: &[String]) -> Option<&'a mut Value> {
    steps.iter().try_fold(object, |value, step| match value {
        Value::Object(map) => map.get_mut(step),
        Value::Array(items) => {
            let at = index(step, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

fn add(object: &mut Value, path: &str, value: Value) -> Option<()> {
    let (steps, last) = split(path)?;
    match parent(object, &steps)? {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&last, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (steps, last) = split(path)?;
    match parent(object, &steps)? {
        Value::Object(map) => map.remove(&last),
        Value::Array(items) => {
            let at = index(&last, items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

fn replace(object: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return None;
        }
        *object = value;
        return Some(());
    }
    let (steps, last) = split(path)?;
    match parent(object, &steps)? {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(items) => {
            let at = index(&last, items.len())?;
            items[at] = value;
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(patch: Value) -> Result<Value, PatchError> {
        JsonPatch::parse(patch.to_string().as_bytes())?.apply(&json!({"l": [1, 2, 3], "m": {"a/b": 1}}))
    }

    #[test]
    fn operations() {
        for (patch, want) in [
            (json!([{"op": "add", "path": "/l/-", "value": 4}]), json!({"l": [1, 2, 3, 4], "m": {"a/b": 1}})),
            (json!([{"op": "remove", "path": "/l/-1"}]), json!({"l": [1, 2], "m": {"a/b": 1}})),
            (json!([{"op": "replace", "path": "/m/a~1b", "value": 2}]), json!({"l": [1, 2, 3], "m": {"a/b": 2}})),
            (json!([{"op": "replace", "path": "/m/new", "value": 2}]), json!({"l": [1, 2, 3], "m": {"a/b": 1, "new": 2}})),
            (json!([{"op": "move", "from": "/l/0", "path": "/m/x"}]), json!({"l": [2, 3], "m": {"a/b": 1, "x": 1}})),
            (json!([{"op": "copy", "from": "/l/0", "path": "/l/1"}]), json!({"l": [1, 1, 2, 3], "m": {"a/b": 1}})),
            (json!([{"op": "test", "path": "/l/0", "value": 1}]), json!({"l": [1, 2, 3], "m": {"a/b": 1}})),
        ] {
            assert_eq!(patched(patch.clone()).unwrap(), want, "{patch}");
        }
        for bad in [
            json!([{"op": "add", "path": "/l/9", "value": 4}]),
            json!([{"op": "add", "path": "/x/y", "value": 4}]),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "test", "path": "/l/0", "value": 2}]),
            json!([{"op": "add", "path": "l", "value": 2}]),
            json!([{"op": "bogus", "path": "/l", "value": 2}]),
            json!([{"path": "/l"}]),
        ] {
            assert_eq!(patched(bad.clone()), Err(PatchError::Rejected), "{bad}");
        }
    }

    #[test]
    fn limits_and_strict_errors() {
        let many = Value::Array(vec![json!({"op": "test", "path": "/x"}); OPERATIONS_MAX + 1]);
        assert_eq!(patched(many), Err(PatchError::TooManyOperations(OPERATIONS_MAX + 1)));
        let patch = JsonPatch::parse(br#"[{"op":"add","op":"add","path":"/a","value":1,"foo":1}]"#).unwrap();
        assert_eq!(patch.strict, ["json patch duplicate field \"[0].op\"", "json patch unknown field \"[0].foo\""]);
        assert!(matches!(patched(json!({})), Err(PatchError::Decode(t)) if t.ends_with("[]handlers.jsonPatchOp")));
    }

    proptest! {
        #[test]
        fn no_path_panics(op in "add|remove|replace|test|move|copy", path in "[/a-c0-9~-]{0,8}", from in "[/a-c0-9-]{0,8}") {
            let _ = patched(json!([{"op": op, "path": path, "from": from, "value": {"a": 1}}]));
        }
    }
}
