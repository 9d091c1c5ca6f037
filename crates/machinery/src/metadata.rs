//! Validation of `metadata` on create and update (`k8s.io/apimachinery/pkg/api/validation` and its `ObjectMeta` caller in
//! `core/validation`). Not here: filling in names, uids and times, which the generic verbs do before this is called.

use serde_json::{Map, Value, json};

use crate::field::{self, Error, ErrorList, Path};
use crate::names::{self, Problems};

/// Keys and values of all annotations together.
pub const TOTAL_ANNOTATION_SIZE_LIMIT_BYTES: usize = 256 * 1024;
const FIELD_MANAGER_MAX_BYTES: usize = 128;
const SUBRESOURCE_MAX_BYTES: usize = 256;
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

/// Judges a name; the flag says that it is a prefix (`generateName`).
pub type NameFn<'a> = &'a dyn Fn(&str, bool) -> Problems;

/// What differs between kinds.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub namespaced: bool,
    pub name: NameFn<'a>,
    /// Finalizers without a domain must be standard ones; most kinds ask for it, some newer ones do not.
    pub kube_finalizers: bool,
}

/// The names most kinds have; give it [`names::dns1123_subdomain`] and the like.
pub fn masked(rule: fn(&str) -> Problems) -> impl Fn(&str, bool) -> Problems {
    move |name, prefix| if prefix { rule(&names::mask_trailing_dash(name)) } else { rule(name) }
}

fn text<'a>(meta: &'a Value, key: &str) -> &'a str {
    meta.get(key).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(meta: &'a Value, key: &str) -> &'a [Value] {
    meta.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn invalid_each(path: &Path<'_>, value: &str, problems: Problems, out: &mut ErrorList) {
    out.extend(problems.into_iter().map(|p| Error::invalid_str(path, value, p)));
}

/// `ValidateObjectMeta`. `meta` is the object's `metadata`.
pub fn validate(meta: &Value, rules: &Rules<'_>, path: &Path<'_>) -> ErrorList {
    let mut out = ErrorList::new();
    let generate_name = text(meta, "generateName");
    if !generate_name.is_empty() {
        invalid_each(&path.child("generateName"), generate_name, (rules.name)(generate_name, true), &mut out);
    }
    let name = text(meta, "name");
    if name.is_empty() {
        out.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        invalid_each(&path.child("name"), name, (rules.name)(name, false), &mut out);
    }
    let (namespace, at) = (text(meta, "namespace"), path.child("namespace"));
    match (rules.namespaced, namespace.is_empty()) {
        (true, true) => out.push(Error::required(&at, "")),
        (true, false) => invalid_each(&at, namespace, names::dns1123_label(namespace), &mut out),
        (false, false) => out.push(Error::forbidden(&at, "not allowed on this type")),
        (false, true) => {}
    }
    let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation < 0 {
        out.push(Error::invalid(&path.child("generation"), &json!(generation), "must be greater than or equal to 0"));
    }
    labels(meta.get("labels"), &path.child("labels"), &mut out);
    annotations(meta.get("annotations"), &path.child("annotations"), &mut out);
    owner_references(list(meta, "ownerReferences"), &path.child("ownerReferences"), &mut out);
    finalizers(list(meta, "finalizers"), &path.child("finalizers"), &mut out);
    managed_fields(list(meta, "managedFields"), &path.child("managedFields"), &mut out);
    if rules.kube_finalizers {
        kube_finalizers(list(meta, "finalizers"), &path.child("finalizers"), &mut out);
    }
    out
}

/// `ValidateObjectMetaUpdate`: what a client may not change, and the parts that can have become wrong.
pub fn validate_update(new: &Value, old: &Value, path: &Path<'_>) -> ErrorList {
    let mut out = ErrorList::new();
    if set(old.get("deletionTimestamp")) {
        no_new_finalizers(list(new, "finalizers"), list(old, "finalizers"), &path.child("finalizers"), &mut out);
    }
    if text(new, "resourceVersion").is_empty() {
        out.push(Error::invalid_str(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    let generation = |m: &Value| m.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation(new) < generation(old) {
        out.push(Error::invalid(&path.child("generation"), &json!(generation(new)), "must not be decremented"));
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (a, b) = (new.get(key).filter(|v| set(Some(v))), old.get(key).filter(|v| set(Some(v))));
        if a != b {
            out.push(Error::invalid(&path.child(key), a.unwrap_or(&Value::Null), "field is immutable"));
        }
    }
    labels(new.get("labels"), &path.child("labels"), &mut out);
    annotations(new.get("annotations"), &path.child("annotations"), &mut out);
    owner_references(list(new, "ownerReferences"), &path.child("ownerReferences"), &mut out);
    managed_fields(list(new, "managedFields"), &path.child("managedFields"), &mut out);
    out
}

fn set(v: Option<&Value>) -> bool {
    v.is_some_and(|v| !v.is_null() && v.as_str() != Some(""))
}

fn entries(map: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    map.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// `ValidateLabels`; also for label maps elsewhere in an object.
pub fn labels(map: Option<&Value>, path: &Path<'_>, out: &mut ErrorList) {
    for (key, value) in entries(map) {
        invalid_each(path, key, names::qualified_name(key), out);
        let value = value.as_str().unwrap_or("");
        invalid_each(path, value, names::label_value(value), out);
    }
}

/// `ValidateAnnotations`; keys in any case.
pub fn annotations(map: Option<&Value>, path: &Path<'_>, out: &mut ErrorList) {
    let mut total_bytes = 0;
    for (key, value) in entries(map) {
        let problems = names::qualified_name(key);
        // Lower case only differs where a prefix has capitals, so the common case allocates nothing.
        if !problems.is_empty() {
            invalid_each(path, key, names::qualified_name(&key.to_lowercase()), out);
        }
        total_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if total_bytes > TOTAL_ANNOTATION_SIZE_LIMIT_BYTES {
        out.push(Error::too_long(path, TOTAL_ANNOTATION_SIZE_LIMIT_BYTES));
    }
}

fn owner_references(refs: &[Value], path: &Path<'_>, out: &mut ErrorList) {
    let mut controller = String::new();
    for r in refs {
        owner_reference(r, path, out);
        if r.get("controller") != Some(&Value::Bool(true)) {
            continue;
        }
        let current = format!("{}/{}", text(r, "kind"), text(r, "name"));
        if controller.is_empty() {
            controller = current;
            continue;
        }
        let all: Vec<String> = refs.iter().map(owner_reference_text).collect();
        out.push(Error {
            kind: field::ErrorType::Invalid,
            field: path.to_string(),
            value: format!("[{}]", all.join(",")),
            detail: format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {current}"
            ),
        });
    }
}

fn owner_reference(r: &Value, path: &Path<'_>, out: &mut ErrorList) {
    let api_version = text(r, "apiVersion");
    let version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
    if version.is_empty() || api_version.matches('/').count() > 1 {
        out.push(Error::invalid_str(&path.child("apiVersion"), api_version, "version must not be empty"));
    }
    for key in ["kind", "name", "uid"] {
        if text(r, key).is_empty() {
            out.push(Error::invalid_str(&path.child(key), "", "must not be empty"));
        }
    }
    if text(r, "kind") == "Event" && api_version == "v1" {
        out.push(Error {
            kind: field::ErrorType::Invalid,
            field: path.to_string(),
            value: owner_reference_text(r),
            detail: "/v1, Kind=Event is disallowed from being an owner".to_owned(),
        });
    }
}

/// In Go's field order.
fn owner_reference_text(r: &Value) -> String {
    let mut parts = Vec::new();
    for key in ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"] {
        match r.get(key) {
            Some(Value::Null) => {}
            Some(v) => parts.push(format!("\"{key}\":{v}")),
            None if matches!(key, "controller" | "blockOwnerDeletion") => {}
            None => parts.push(format!("\"{key}\":\"\"")),
        }
    }
    format!("{{{}}}", parts.join(","))
}

fn finalizers(values: &[Value], path: &Path<'_>, out: &mut ErrorList) {
    let (mut orphan, mut foreground) = (false, false);
    for value in values.iter().filter_map(Value::as_str) {
        invalid_each(path, value, names::qualified_name(value), out);
        orphan |= value == "orphan";
        foreground |= value == "foregroundDeletion";
    }
    if orphan && foreground {
        out.push(Error::invalid(path, &json!(values), "finalizer orphan and foregroundDeletion cannot be both set"));
    }
}

fn kube_finalizers(values: &[Value], path: &Path<'_>, out: &mut ErrorList) {
    for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
        if !value.contains('/') && !STANDARD_FINALIZERS.contains(&value) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            out.push(Error::invalid_str(&path.index(i), value, text));
        }
    }
}

fn no_new_finalizers(new: &[Value], old: &[Value], path: &Path<'_>, out: &mut ErrorList) {
    let mut extra: Vec<&str> = new.iter().filter(|f| !old.contains(f)).filter_map(Value::as_str).collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.is_empty() {
        let listed: Vec<String> = extra.iter().map(|f| field::go_quote(f)).collect();
        let text = "no new finalizers can be added if the object is being deleted, found new finalizers []string";
        out.push(Error::forbidden(path, format!("{text}{{{}}}", listed.join(", "))));
    }
}

fn managed_fields(entries: &[Value], path: &Path<'_>, out: &mut ErrorList) {
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let operation = text(entry, "operation");
        if !matches!(operation, "Apply" | "Update") {
            out.push(Error::invalid_str(&path.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let fields_type = text(entry, "fieldsType");
        if !matches!(fields_type, "" | "FieldsV1") {
            out.push(Error::invalid_str(&path.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        field_manager(text(entry, "manager"), &path.child("manager"), out);
        if text(entry, "subresource").len() > SUBRESOURCE_MAX_BYTES {
            out.push(Error::too_long(&path.child("subresource"), SUBRESOURCE_MAX_BYTES));
        }
    }
}

/// `ValidateFieldManager`; also for the `fieldManager` parameter of a request.
pub fn field_manager(manager: &str, path: &Path<'_>, out: &mut ErrorList) {
    if manager.len() > FIELD_MANAGER_MAX_BYTES {
        out.push(Error::too_long(path, FIELD_MANAGER_MAX_BYTES));
    }
    for (at, c) in manager.char_indices() {
        // Go's unicode.IsPrint: no controls, and of all spaces only the plain one.
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            out.push(Error::invalid_str(path, manager, format!("invalid character U+{:04X} (at position {at})", c as u32)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(meta: &Value) -> Vec<String> {
        let name = masked(names::dns1123_subdomain);
        let rules = Rules { namespaced: true, name: &name, kube_finalizers: true };
        validate(meta, &rules, &Path::new("metadata")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_metadata_passes() {
        let meta = json!({"name": "a.b", "generateName": "a-", "namespace": "n", "labels": {"a/b": "c"}, "annotations": {"A.b/c": "d"},
            "finalizers": ["orphan", "x.io/y"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]});
        assert_eq!(check(&meta), [""; 0]);
    }

    #[test]
    fn errors_read_as_upstreams() {
        let base = || json!({"name": "a", "namespace": "n"});
        for (key, value, error) in [
            ("name", json!(""), "metadata.name: Required value: name or generateName is required"),
            ("namespace", json!(""), "metadata.namespace: Required value"),
            ("generation", json!(-1), "metadata.generation: Invalid value: -1: must be greater than or equal to 0"),
            (
                "finalizers",
                json!(["orphan", "foregroundDeletion"]),
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
            ),
            (
                "finalizers",
                json!(["nodomain"]),
                "metadata.finalizers[0]: Invalid value: \"nodomain\": name is neither a standard finalizer name nor is it fully qualified",
            ),
            (
                "ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Event", "name": "o", "uid": "u"}]),
                "metadata.ownerReferences: Invalid value: {\"apiVersion\":\"v1\",\"kind\":\"Event\",\"name\":\"o\",\"uid\":\"u\"}: /v1, Kind=Event is disallowed from being an owner",
            ),
            ("annotations", json!({"a": "x".repeat(262_144)}), "metadata.annotations: Too long: may not be more than 262144 bytes"),
        ] {
            let mut meta = base();
            meta[key] = value;
            assert_eq!(check(&meta), [error], "{key}");
        }
    }

    #[test]
    fn updates_keep_identity() {
        let old = json!({"name": "a", "uid": "u", "resourceVersion": "1", "deletionTimestamp": "t", "finalizers": ["a/b"]});
        let mut new = old.clone();
        assert!(validate_update(&new, &old, &Path::new("metadata")).is_empty());
        new["finalizers"] = json!(["a/b", "x/y"]);
        new["uid"] = json!("v");
        let got: Vec<String> = validate_update(&new, &old, &Path::new("metadata")).iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/y\"}",
                "metadata.uid: Invalid value: \"v\": field is immutable",
            ]
        );
    }
}
