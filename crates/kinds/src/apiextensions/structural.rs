//! Whether a schema is structural: every field has a type, and what stands under `allOf` and the like only says more of what is
//! declared outside. Upstream's `structuralschema.ValidateStructural`.

use machinery::re2;
use serde_json::{Value, json};

use crate::validate::tree::{entries, flag, has, list, opt, s};
use crate::validate::{Error, ErrorList, Path};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All errors, sorted by their text as upstream does.
pub fn validate(schema: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete(schema, Some(schema), path, path, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

/// Why a schema has no structural form at all: it uses what Kubernetes does not support.
pub fn unsupported(schema: &Value) -> Option<String> {
    const NAMED: [(&str, &str); 7] = [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("additionalItems", "additionalItems"),
        ("definitions", "definitions"),
    ];
    let given = |key: &str| match opt(schema, key) {
        None => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => key == "additionalItems" || !map.is_empty(),
        Some(_) => true,
    };
    if let Some((_, name)) = NAMED.iter().find(|(key, _)| given(key)) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    if opt(schema, "x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned());
    }
    if !list(schema, "items").is_empty() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    let single = ["not", "additionalProperties", "items"].iter().filter_map(|key| opt(schema, key)).filter(|v| v.is_object());
    let many = ["allOf", "anyOf", "oneOf"].iter().flat_map(|key| list(schema, key));
    let named = entries(schema, "properties").map(|(_, v)| v);
    single.chain(many).chain(named).find_map(unsupported)
}

fn invariants(v: &Value, level: Level, p: &Path<'_>, e: &mut ErrorList) {
    let (kind, embedded, preserves) =
        (s(v, "type"), flag(v, "x-kubernetes-embedded-resource"), flag(v, "x-kubernetes-preserve-unknown-fields"));
    let int_or_string = flag(v, "x-kubernetes-int-or-string");
    match opt(v, "items") {
        Some(items) => invariants(items, Level::Item, &p.child("items"), e),
        None if kind == "array" => e.push(Error::required(&p.child("items"), "must be specified")),
        None => {}
    }
    let at_properties = p.child("properties");
    for (name, property) in entries(v, "properties") {
        invariants(property, Level::Field, &at_properties.key(name), e);
    }
    let at_additional = p.child("additionalProperties");
    if let Some(additional) = opt(v, "additionalProperties") {
        if level == Level::Root {
            e.push(Error::forbidden(&at_additional, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &at_additional, e);
        }
        if embedded {
            e.push(Error::forbidden(&at_additional, "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }
    if int_or_string {
        for (on, key) in [(preserves, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")] {
            if on {
                e.push(Error::invalid(&p.child(key), &json!(true), "must be false if x-kubernetes-int-or-string is true"));
            }
        }
    }
    let pair = json!([{"type": "integer"}, {"type": "string"}]);
    let skip_any = opt(v, "anyOf") == Some(&pair);
    let skip_first_all = list(v, "allOf").first().and_then(|first| opt(first, "anyOf")) == Some(&pair);
    value_validation(v, skip_any, skip_first_all, p, e);
    types(v, level, kind, embedded, !int_or_string && !preserves, p, e);
    metadata(v, level, embedded, &at_properties, e);
    if embedded && !preserves && entries(v, "properties").next().is_none() {
        const EMPTY: &str = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        e.push(Error::required(&at_properties, EMPTY));
    }
}

fn types(v: &Value, level: Level, kind: &str, embedded: bool, needed: bool, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("type");
    if embedded && kind != "object" {
        must_be_object(v, &at, "must be object if x-kubernetes-embedded-resource is true", e);
    } else if kind.is_empty() && needed {
        let text = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        e.push(Error::required(&at, text));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        e.push(Error::invalid_str(&at, kind, "must be object at the root"));
    }
}

/// A type that is there but another, or not there.
pub fn must_be_object(v: &Value, at: &Path<'_>, text: &str, e: &mut ErrorList) {
    match s(v, "type") {
        "" => e.push(Error::required(at, text)),
        kind => e.push(Error::invalid_str(at, kind, text)),
    }
}

fn metadata(v: &Value, level: Level, embedded: bool, at_properties: &Path<'_>, e: &mut ErrorList) {
    let checked = level == Level::Root || embedded;
    let property = |name: &str| v.get("properties").and_then(|p| opt(p, name));
    for name in ["kind", "apiVersion"] {
        if let Some(kind) = property(name).filter(|_| checked).map(|v| s(v, "type")).filter(|kind| *kind != "string") {
            e.push(Error::invalid_str(&at_properties.key(name).child("type"), kind, "must be string"));
        }
    }
    let Some(meta) = property("metadata") else { return };
    let at = at_properties.key("metadata");
    if checked && s(meta, "type") != "object" {
        e.push(Error::invalid_str(&at.child("type"), s(meta, "type"), "must be object"));
    }
    if level == Level::Root {
        let names_only = entries(meta, "properties").all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        let silent = |key: &str| matches!(key, "type" | "default" | "externalDocs" | "example") || (key == "properties" && names_only);
        if meta.as_object().into_iter().flatten().any(|(key, _)| has(meta, key) && !silent(key)) {
            const ONLY_NAMES: &str = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            e.push(Error::forbidden(&at, ONLY_NAMES));
        }
    }
}

fn value_validation(v: &Value, skip_any: bool, skip_first_all: bool, p: &Path<'_>, e: &mut ErrorList) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if key == "anyOf" && skip_any {
            continue;
        }
        let at = p.child(key);
        for (index, part) in list(v, key).iter().enumerate() {
            nested(part, key == "allOf" && index == 0 && skip_first_all, &at.index(index), e);
        }
    }
    if let Some(not) = opt(v, "not") {
        nested(not, false, &p.child("not"), e);
    }
    let pattern = s(v, "pattern");
    if let Some(why) = Some(pattern).filter(|p| !p.is_empty()).and_then(|p| re2::check(p).err()) {
        let text = format!("must be a valid regular expression, but isn't: {why}");
        e.push(Error::invalid_str(&p.child("pattern"), pattern, text));
    }
}

/// What stands under `allOf` and the like may only hold value validations.
fn nested(v: &Value, skip_any: bool, p: &Path<'_>, e: &mut ErrorList) {
    const FORBIDDEN: [(&str, &str); 13] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("externalDocs", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    value_validation(v, skip_any, false, p, e);
    if let Some(items) = opt(v, "items").filter(|v| v.is_object()) {
        nested(items, false, &p.child("items"), e);
    }
    let at = p.child("properties");
    for (name, property) in entries(v, "properties") {
        nested(property, false, &at.key(name), e);
    }
    let given = |key: &str| match opt(v, key) {
        None => false,
        // A flag that is off says nothing; so does an empty text.
        Some(Value::Bool(on)) => *on || matches!(key, "default" | "additionalProperties"),
        Some(Value::String(text)) => !text.is_empty() || matches!(key, "default" | "x-kubernetes-list-type" | "x-kubernetes-map-type"),
        Some(Value::Array(items)) => !items.is_empty() || key == "default",
        Some(_) => true,
    };
    for (key, text) in FORBIDDEN.iter().filter(|(key, _)| given(key)) {
        e.push(Error::forbidden(&p.child(key), *text));
    }
    if !list(v, "x-kubernetes-validations").is_empty() {
        e.push(Error::forbidden(&p.child("x-kubernetes-validations"), "must be empty to be structural"));
    }
    if v.get("properties").and_then(|p| p.get("metadata")).is_some() {
        e.push(Error::forbidden(&at.key("metadata"), "must not be specified in a nested context"));
    }
}

/// Everything named in the value validations of `v` must be declared in `declared`.
fn complete(v: &Value, declared: Option<&Value>, at: &Path<'_>, named: &Path<'_>, e: &mut ErrorList) {
    if let Some(not) = opt(v, "not") {
        nested_complete(not, declared, at, &named.child("not"), e);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let named = named.child(key);
        for (index, part) in list(v, key).iter().enumerate() {
            nested_complete(part, declared, at, &named.index(index), e);
        }
    }
}

fn nested_complete(v: &Value, declared: Option<&Value>, at: &Path<'_>, named: &Path<'_>, e: &mut ErrorList) {
    let Some(declared) = declared else {
        e.push(Error::required(at, format!("because it is defined in {named}")));
        return;
    };
    complete(v, Some(declared), at, named, e);
    if let Some(items) = opt(v, "items").filter(|v| v.is_object()) {
        nested_complete(items, opt(declared, "items"), &at.child("items"), &named.child("items"), e);
    }
    let (at, named) = (at.child("properties"), named.child("properties"));
    for (name, property) in entries(v, "properties") {
        let declared = declared.get("properties").and_then(|p| opt(p, name));
        nested_complete(property, declared, &at.key(name), &named.key(name), e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_structural_is_named() {
        for (schema, wanted) in [
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                vec!["s.properties[a].items: Required value: must be specified"],
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                vec!["s.additionalProperties: Forbidden: must not be used at the root"],
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
                vec!["s.properties[a].items.type: Required value: must not be empty for specified array items"],
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"b": {"minLength": 1}}}]}),
                vec!["s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]"],
            ),
            (
                json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
                vec![],
            ),
            (
                json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"type": "string"}]}}}),
                vec!["s.properties[a].allOf[1].type: Forbidden: must be empty to be structural"],
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}}}),
                vec![],
            ),
            (
                json!({"type": "object", "properties": {"kind": {"type": "integer"}, "metadata": {"type": "string"}}}),
                vec![
                    "s.properties[kind].type: Invalid value: \"integer\": must be string",
                    "s.properties[metadata].type: Invalid value: \"string\": must be object",
                ],
            ),
            (
                json!({"type": "object", "not": {"properties": {"metadata": {"minProperties": 1}}}}),
                vec![
                    "s.not.properties[metadata]: Forbidden: must not be specified in a nested context",
                    "s.properties[metadata]: Required value: because it is defined in s.not.properties[metadata]",
                ],
            ),
        ] {
            let errors: Vec<String> = validate(&schema, &Path::new("s")).iter().map(ToString::to_string).collect();
            assert_eq!(errors, wanted, "{schema}");
        }
    }

    #[test]
    fn unsupported_keywords_are_found_anywhere() {
        assert_eq!(unsupported(&json!({"properties": {"a": {"$ref": "x"}}})).as_deref(), Some("OpenAPIV3Schema '$ref' is not supported"));
        assert_eq!(unsupported(&json!({"items": [{}]})).as_deref(), Some("OpenAPIV3Schema 'items' must be a schema, but is an array"));
        assert_eq!(unsupported(&json!({"type": "object", "properties": {"a": {"type": "string"}}})), None);
    }
}
