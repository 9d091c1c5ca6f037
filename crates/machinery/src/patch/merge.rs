//! JSON merge patch, RFC 7386.

use serde_json::{Map, Value};

use super::PatchError;
use crate::json;

/// Applies a merge patch. The strings are strict errors of the patch itself: keys that came twice.
pub fn merge(object: &Value, patch: &[u8]) -> Result<(Value, Vec<String>), PatchError> {
    let parsed = json::parse(patch).map_err(|e| PatchError::Decode(e.to_string()))?;
    let Value::Object(patch) = parsed.value else {
        let found = crate::json::go_kind(&parsed.value);
        return Err(PatchError::Decode(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")));
    };
    let mut out = object.clone();
    merge_into(&mut out, patch);
    Ok((out, parsed.strict))
}

fn merge_into(target: &mut Value, patch: Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(below) => merge_into(target.entry(key).or_insert(Value::Null), below),
            other => {
                target.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(object: Value, patch: Value) -> Value {
        merge(&object, patch.to_string().as_bytes()).unwrap().0
    }

    #[test]
    fn examples_of_the_rfc() {
        for (object, patch, want) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(patched(object, patch), want);
        }
    }

    #[test]
    fn errors_are_upstreams() {
        let text = |patch: &str| merge(&json!({}), patch.as_bytes()).unwrap_err().to_string();
        assert_eq!(text("[]"), "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}");
        assert_eq!(text("{\"metadata\":"), "error decoding patch: unexpected end of JSON input");
    }
}
