//! What the server owns of `metadata`: names, uids, times, generations. Its rules are called by `kinds::validate`.

use kinds::Resource;
use kinds::resource::Generation;
use machinery::object::{self, metadata_mut};
use serde_json::{Map, Value, json};

use crate::identifiers;

/// Before creation: upstream's `FillObjectMetaSystemFields` and what `BeforeCreate` resets.
pub fn fill_new(resource: &Resource, value: &mut Value, namespace: &str, now: &str) {
    let meta = metadata_mut(value);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        meta.remove(key);
    }
    if resource.namespaced {
        meta.insert("namespace".into(), json!(namespace))
    } else {
        meta.remove("namespace")
    };
    meta.insert("creationTimestamp".into(), json!(now));
    meta.insert("uid".into(), json!(identifiers::uuid()));
}

/// What a client may not say of a new object is forgotten before it is noted who set what (`WipeObjectMetaSystemFields`).
pub fn wipe(value: &mut Value) {
    let meta = metadata_mut(value);
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "selfLink"] {
        meta.remove(key);
    }
}

/// Leaves out repeated owner references, and warns of it.
pub fn dedup_owners(value: &mut Value) -> Option<String> {
    let owners = value.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            repeated.push(object::str_at(&owner, "uid").to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    (!repeated.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        )
    })
}

pub fn first_generation(resource: &Resource, value: &mut Value) {
    if !matches!(resource.generation, Generation::Untouched | Generation::ByStrategy | Generation::Updates) {
        metadata_mut(value).insert("generation".into(), json!(1));
    }
}

/// Before an update: what the server owns stays as it was.
pub fn keep(value: &mut Value, old: &Value) {
    let old_meta = old.get("metadata").unwrap_or(&Value::Null);
    let meta = metadata_mut(value);
    for key in ["creationTimestamp", "uid", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        match (meta.get(key).filter(|v| given(v)), old_meta.get(key)) {
            // A name, uid or time given wrongly is left for validation to refuse.
            (Some(_), _) if key == "uid" => {}
            (Some(same), Some(was)) if same == was => {}
            (_, Some(was)) => drop(meta.insert(key.to_owned(), was.clone())),
            (_, None) => drop(meta.remove(key)),
        }
    }
    meta.remove("selfLink");
}

fn given(v: &Value) -> bool {
    !v.is_null() && v.as_str() != Some("")
}

/// Moves `generation` when what counts for it has changed.
pub fn next_generation(resource: &Resource, value: &mut Value, old: &Value) {
    let differs = |paths: &[&str]| paths.iter().any(|p| object::at(value, p) != object::at(old, p));
    let changed = match resource.generation {
        Generation::Untouched | Generation::ByStrategy | Generation::Once => false,
        Generation::Spec | Generation::Updates => content_differs(resource, value, old),
        Generation::SpecOrAnnotations => content_differs(resource, value, old) || differs(&["metadata.annotations"]),
        Generation::SpecOrLabels => content_differs(resource, value, old) || differs(&["metadata.labels"]),
    };
    if changed {
        let next = object::generation(old) + 1;
        metadata_mut(value).insert("generation".into(), json!(next));
    }
}

fn content_differs(resource: &Resource, a: &Value, b: &Value) -> bool {
    if resource.custom.is_none() {
        return !kinds::validate::equal::content(resource, a, b);
    }
    let content = |v: &Value| -> Map<String, Value> {
        let mut map = v.as_object().cloned().unwrap_or_default();
        for key in ["metadata", "status", "kind", "apiVersion"] {
            map.remove(key);
        }
        map
    };
    content(a) != content(b)
}
