//! The spec of a PersistentVolumeClaim, also inside `ephemeral` volumes and StatefulSets.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::super::rules::{dns_subdomain, one_of, quantity_at, required};
use super::super::selector::label_selector_at;
use super::super::tree::{at, has, is_empty, list, opt, opt_s, s, strings};

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Metadata a template may not have, with the name upstream's error gives it, in upstream's order.
const NOT_IN_TEMPLATE: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

/// The metadata of a template for claims: labels and annotations alone.
pub fn template_metadata(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let meta = opt(v, "metadata").unwrap_or(&empty);
    let meta_at = p.child("metadata");
    machinery::metadata::annotations(meta.get("annotations"), &meta_at.child("annotations"), e);
    machinery::metadata::labels(meta.get("labels"), &meta_at.child("labels"), e);
    for (key, text) in NOT_IN_TEMPLATE {
        let zero = opt(meta, key).and_then(Value::as_i64) == Some(0) && key == "generation";
        if (!is_empty(meta, key) || opt(meta, key).is_some_and(Value::is_array)) && !zero {
            e.push(Error::forbidden(&meta_at.child(text), "cannot be set"));
        }
    }
}

/// `ephemeral.volumeClaimTemplate`
pub fn template(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    template_metadata(v, p, e);
    let empty = json!({});
    spec(opt(v, "spec").unwrap_or(&empty), &p.child("spec"), e);
}

/// `ValidatePersistentVolumeClaimSpec`.
pub fn spec(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if is_empty(v, "accessModes") {
        e.push(Error::required(&p.child("accessModes"), "at least 1 access mode is required"));
    }
    label_selector_at(v, "selector", p, e);
    access_modes(v, p, e);
    let resources = p.child("resources");
    match at(v, "resources.requests").and_then(|r| quantity_at(r, "storage")) {
        None => e.push(Error::required(&resources.key("storage"), "")),
        Some(q) => {
            let at = resources.key("storage");
            if q.sign() <= 0 {
                e.push(Error::invalid_str(&at, &q.to_string(), "must be greater than zero"));
            } else {
                super::super::resources::amount("storage", q, &at, e);
            }
        }
    }
    if let Some(class) = opt_s(v, "storageClassName").filter(|c| !c.is_empty()) {
        dns_subdomain(&p.child("storageClassName"), class, e);
    }
    if let Some(mode) = opt_s(v, "volumeMode") {
        one_of(&p.child("volumeMode"), mode, &["Block", "Filesystem"], e);
    }
    data_source(v, p, e);
    if let Some(class) = opt_s(v, "volumeAttributesClassName").filter(|c| !c.is_empty()) {
        dns_subdomain(&p.child("volumeAttributesClassName"), class, e);
    }
}

pub fn access_modes(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("accessModes");
    let (mut alone, mut others) = (false, false);
    for mode in strings(v, "accessModes") {
        one_of(&at, mode, &ACCESS_MODES, e);
        if mode == "ReadWriteOncePod" {
            alone = true;
        } else if ACCESS_MODES.contains(&mode) {
            others = true;
        }
    }
    if alone && others {
        e.push(Error::forbidden(&at, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn data_source(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(source) = opt(v, "dataSource") {
        object_ref(source, &p.child("dataSource"), e);
    }
    if let Some(source) = opt(v, "dataSourceRef") {
        let at = p.child("dataSourceRef");
        object_ref(source, &at, e);
        if let Some(namespace) = opt_s(source, "namespace").filter(|n| !n.is_empty()) {
            super::super::rules::dns_label(&at.child("namespace"), namespace, e);
            if has(v, "dataSource") {
                let text = "may not be specified when dataSourceRef.namespace is specified";
                e.push(Error::invalid(p, &json!({}), text));
            }
            return;
        }
    }
    let (Some(a), Some(b)) = (opt(v, "dataSource"), opt(v, "dataSourceRef")) else { return };
    if ["apiGroup", "kind", "name"].iter().any(|key| s(a, key) != s(b, key)) {
        e.push(Error::invalid(p, v, "must match dataSourceRef"));
    }
}

fn object_ref(source: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(source, "name", p, e);
    required(source, "kind", p, e);
    let group = s(source, "apiGroup");
    if group.is_empty() && s(source, "kind") != "PersistentVolumeClaim" {
        let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        e.push(Error::invalid_str(p, s(source, "kind"), text));
    }
    if !group.is_empty() {
        dns_subdomain(&p.child("apiGroup"), group, e);
    }
}

/// Whether the list holds a mode.
pub fn has_mode(v: &Value, mode: &str) -> bool {
    list(v, "accessModes").iter().any(|m| m.as_str() == Some(mode))
}
