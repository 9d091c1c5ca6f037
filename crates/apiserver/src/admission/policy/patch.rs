//! What mutations do to an object: JSON patches, and apply configurations merged by the type's schema.

use cel::Value as CelValue;
use machinery::apply::apply_configuration;
use machinery::patch::JsonPatch;
use serde_json::{Map, Value};

use crate::admission::Request;
use crate::admission::matching::Matched;

/// Applies the patches an expression gave, in order. A test that fails leaves the object as it is.
pub fn json_patch(object: &Value, patches: &CelValue<'_>) -> Result<Value, String> {
    let CelValue::List(list) = patches else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut out = object.clone();
    for patch in list.iter() {
        let CelValue::Struct(fields) = &patch else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned());
        };
        if let Some(CelValue::Struct(value)) = fields.fields.get("value") {
            names_match(value, None)?;
        }
        let operation =
            patch.to_json().map_err(|e| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}"))?;
        let bytes = Value::Array(vec![operation.clone()]).to_string();
        let applied = JsonPatch::parse(bytes.as_bytes()).ok().and_then(|p| p.apply(&out).ok());
        match applied {
            Some(next) => out = next,
            None => match explain(&out, &operation) {
                Some(why) => return Err(format!("JSON Patch: {why}")),
                None => return Ok(object.clone()),
            },
        }
    }
    Ok(out)
}

/// Why an operation does not apply, in the words of upstream's library; `None` for a test whose value differs.
fn explain(object: &Value, operation: &Value) -> Option<String> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or("");
    let (op, path) = (text("op"), text("path"));
    let parent = |path: &str| {
        let up = path.rsplit_once('/').map_or("", |(up, _)| up);
        object.pointer(up).filter(|v| v.is_object() || v.is_array()).is_some()
    };
    Some(match op {
        "test" if parent(path) => return None,
        "test" => format!("test operation does not apply: is missing path: {path}: missing value"),
        "add" if !parent(path) => format!("add operation does not apply: doc is missing path: \"{path}\": missing value"),
        "add" => format!("error in add for path: '{path}': invalid index referenced"),
        "remove" if !parent(path) => format!("remove operation does not apply: doc is missing path: \"{path}\": missing value"),
        "remove" => {
            let key = path.rsplit('/').next().unwrap_or("");
            format!("error in remove for path: '{path}': unable to remove nonexistent key: {key}: missing value")
        }
        "replace" if !parent(path) => format!("replace operation does not apply: doc is missing path: {path}: missing value"),
        "replace" => format!("replace operation does not apply: doc is missing key: {path}: missing value"),
        "move" | "copy" if !parent(text("from")) => {
            format!("{op} operation does not apply: doc is missing from path: {}: missing value", text("from"))
        }
        "move" | "copy" => format!("error in {op} for path: '{}': missing value", text("from")),
        other => format!("Unexpected kind: {other}"),
    })
}

/// Types of nested objects must be those of their fields: `Object.spec{...}` belongs to `spec`.
fn names_match(object: &cel::Struct<'_>, name: Option<&str>) -> Result<(), String> {
    if let Some(wanted) = name
        && *object.name != *wanted
    {
        return Err(format!(
            "type mismatch: unexpected type name {:?}, expected {:?}, which matches field name path from root Object type",
            &*object.name, wanted
        ));
    }
    for (field, value) in &object.fields {
        fields_match(value, &format!("{}.{field}", object.name))?;
    }
    Ok(())
}

fn fields_match(value: &CelValue<'_>, name: &str) -> Result<(), String> {
    match value {
        CelValue::Struct(inner) => names_match(inner, Some(name)),
        CelValue::List(list) => list.iter().try_for_each(|item| fields_match(&item, name)),
        _ => Ok(()),
    }
}

/// Merges an apply configuration into the object, by the schema of its kind.
pub fn configuration(request: &Request<'_>, matched: &Matched, object: &Value, config: &CelValue<'_>) -> Result<Value, String> {
    let CelValue::Struct(made) = config else {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", config.type_of()));
    };
    names_match(made, Some("Object"))?;
    let mut patch = config.to_json().map_err(|e| e.to_string())?;
    let map: &mut Map<String, Value> = patch.as_object_mut().ok_or("invalid return type")?;
    map.insert("apiVersion".to_owned(), matched.kind.api_version().into());
    map.insert("kind".to_owned(), matched.kind.kind.clone().into());
    let applied = match request.api.registry.versioned_kind(&matched.kind) {
        Some(row) => apply_configuration(&row.types, row.ty, object, &patch),
        None => match kinds::table().type_of(&matched.kind) {
            Some(ty) => apply_configuration(kinds::types(), ty, object, &patch),
            None => {
                return Err(format!(
                    "Resource kind {} not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.",
                    matched.kind
                ));
            }
        },
    };
    applied.map_err(|why| format!("error applying patch: {why}"))
}
