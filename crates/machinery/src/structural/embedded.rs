//! Embedded resources: each must say what it is, and its metadata must be sound. Upstream's `objectmeta.Validate`.

use serde_json::Value;

use super::{ObjectMeta, Place, Schema};
use crate::field::{Error, ErrorList};
use crate::{metadata, names};

impl Schema {
    /// Embedded resources of a value that stands at `place`; with `root` it is one itself.
    pub fn check_resources(&self, meta: ObjectMeta<'_>, value: &Value, root: bool, place: Place<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        if root && !self.embedded_resource && value.is_object() {
            resource(meta, value, &place, &mut errors);
        }
        self.check_embedded(meta, value, &place, &mut errors);
        errors
    }

    /// Embedded resources anywhere below, and here where the schema says so.
    pub(super) fn check_embedded(&self, meta: ObjectMeta<'_>, value: &Value, at: &Place<'_>, errors: &mut ErrorList) {
        if !self.holds_embedded {
            return;
        }
        match value {
            Value::Object(map) => {
                if self.embedded_resource {
                    resource(meta, value, at, errors);
                }
                for (name, item) in map {
                    if let Some(property) = self.properties.get(name) {
                        property.check_embedded(meta, item, &at.child(name), errors);
                    } else if let Some(schema) = self.additional_schema() {
                        schema.check_embedded(meta, item, &at.key(name), errors);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check_embedded(meta, item, &at.index(index), errors);
                    }
                }
            }
            _ => {}
        }
    }
}

/// One resource: `apiVersion` and `kind` must be there, metadata need not.
fn resource(meta: ObjectMeta<'_>, value: &Value, at: &Place<'_>, errors: &mut ErrorList) {
    for name in ["apiVersion", "kind"] {
        if value.get(name).is_none() {
            errors.push(at.child(name).with(|p| Error::required(p, "")));
        }
    }
    for name in ["apiVersion", "kind"] {
        let Some(given) = value.get(name) else { continue };
        at.child(name).with(|p| match given.as_str() {
            None => errors.push(Error::invalid(p, given, "must be a string")),
            Some("") => errors.push(Error::required(p, "")),
            Some(text) if name == "kind" => {
                let problems = names::dns1035_label(&text.to_lowercase());
                if !problems.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
                    errors.push(Error::invalid_str(p, text, detail));
                }
            }
            Some(text) if text.matches('/').count() > 1 => {
                errors.push(Error::invalid_str(p, text, format!("unexpected GroupVersion string: {text}")));
            }
            Some(_) => {}
        });
    }
    if let Some(given) = value.get("metadata") {
        check_metadata(meta, given, &at.child("metadata"), errors);
    }
}

fn check_metadata(meta: ObjectMeta<'_>, given: &Value, at: &Place<'_>, errors: &mut ErrorList) {
    let mut decoded = given.clone();
    if let Err(error) = crate::decode::decode(meta.types, meta.ty, &mut decoded) {
        errors.push(at.with(|p| Error::invalid(p, given, error.text)));
        return;
    }
    let Some(map) = decoded.as_object_mut() else { return };
    if map.get("name").and_then(Value::as_str).unwrap_or("").is_empty() {
        map.insert("name".to_owned(), Value::from("fakename"));
    }
    let namespaced = map.get("namespace").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    let rules = metadata::Rules { namespaced, name: &names::path_segment, kube_finalizers: false };
    errors.extend(at.with(|p| metadata::validate(&decoded, &rules, p)));
}
