//! A definition's spec as upstream's internal version has it: what all versions share stands at the top, not with each version.
//! Error paths speak of that form.

use machinery::structural::format_is_known;
use serde_json::Value;

use crate::validate::tree::{entries, flag, list, opt, s, same};

/// What may stand at the top or with each version.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    pub tree: &'a Value,
    pub versions: &'a [Value],
    /// Whether schemas, subresources, columns and selectable fields are shared by all versions.
    shared: [bool; 4],
}

const SHARED: [&str; 4] = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];

impl<'a> Spec<'a> {
    pub fn of(definition: &'a Value) -> Self {
        let tree = definition.get("spec").unwrap_or(&Value::Null);
        let versions = list(tree, "versions");
        let shared = SHARED.map(|key| versions.iter().all(|v| same(v.get(key), versions.first().and_then(|first| first.get(key)))));
        Self { tree, versions, shared }
    }

    /// What all versions share.
    pub fn shared(&self, key: &str) -> Option<&'a Value> {
        let at = SHARED.iter().position(|k| *k == key)?;
        self.versions.first().filter(|_| self.shared[at]).and_then(|v| opt(v, key))
    }

    /// What a version has for itself alone.
    pub fn own(&self, version: &'a Value, key: &str) -> Option<&'a Value> {
        let at = SHARED.iter().position(|k| *k == key)?;
        opt(version, key).filter(|_| !self.shared[at])
    }

    /// Every schema, once.
    pub fn schemas(&self) -> impl Iterator<Item = &'a Value> {
        let own = self.versions.iter().filter_map(|v| self.own(v, "schema"));
        self.shared("schema").into_iter().chain(own).filter_map(|v| opt(v, "openAPIV3Schema"))
    }

    pub fn preserves_unknown_fields(&self) -> bool {
        flag(self.tree, "preserveUnknownFields")
    }
}

/// Whether anything in a schema, wherever it may be, is as asked.
pub fn schema_has(schema: &Value, asked: &dyn Fn(&Value) -> bool) -> bool {
    let below = |v: Option<&Value>| v.filter(|v| v.is_object()).is_some_and(|v| schema_has(v, asked));
    asked(schema)
        || below(opt(schema, "items"))
        || ["items", "allOf", "anyOf", "oneOf"].iter().any(|key| list(schema, key).iter().any(|v| schema_has(v, asked)))
        || below(opt(schema, "not"))
        || below(opt(schema, "additionalProperties"))
        || below(opt(schema, "additionalItems"))
        || ["properties", "patternProperties", "definitions", "dependencies"]
            .iter()
            .any(|key| entries(schema, key).any(|(_, v)| v.is_object() && schema_has(v, asked)))
}

/// Formats of strings that nothing checks, in the order they come up.
pub fn unrecognized_formats(definition: &Value) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    for schema in Spec::of(definition).schemas() {
        schema_has(schema, &|v| {
            let format = s(v, "format");
            let known = match s(v, "type") {
                "" | "string" => format_is_known(format),
                "integer" => matches!(format, "int32" | "int64"),
                "number" => matches!(format, "float" | "double"),
                _ => false,
            };
            if !format.is_empty() && !known {
                found.borrow_mut().push(format.to_owned());
            }
            false
        });
    }
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_versions_share_stands_at_the_top() {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let one = json!({"spec": {"versions": [{"name": "v1", "schema": schema}]}});
        let spec = Spec::of(&one);
        assert_eq!(spec.shared("schema"), Some(&schema));
        assert_eq!(spec.own(&spec.versions[0], "schema"), None);
        let two = json!({"spec": {"versions": [{"name": "v1", "schema": schema}, {"name": "v2"}]}});
        let spec = Spec::of(&two);
        assert_eq!(spec.shared("schema"), None);
        assert_eq!(spec.own(&spec.versions[0], "schema"), Some(&schema));
    }

    #[test]
    fn formats_belong_to_types() {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "a": {"type": "string", "format": "odd"}, "b": {"type": "integer", "format": "int32"}, "c": {"type": "string", "format": "date-time"},
            "d": {"type": "number", "format": "int32"}, "e": {"type": "boolean", "format": "x"}, "f": {"format": "double"},
        }}});
        assert_eq!(
            unrecognized_formats(&json!({"spec": {"versions": [{"name": "v1", "schema": schema}]}})),
            ["odd", "int32", "x", "double"]
        );
    }
}
