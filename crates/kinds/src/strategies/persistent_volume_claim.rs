//! PersistentVolumeClaim.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::storage::modes;
use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::equal::semantic;
use crate::validate::rules::{IMMUTABLE, quantity, resource_entries};
use crate::validate::tree::{at, entries, has, keep, opt, remove, s, set};
use crate::validate::volume::claim;
use crate::validate::{go, resources};

static NULL: Value = Value::Null;
const SPEC: &str = "core.v1.PersistentVolumeClaimSpec";
/// Named a claim's class before there was a field for it.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub struct PersistentVolumeClaims;

const CLAIM_FIXED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

impl Strategy for PersistentVolumeClaims {
    /// Creation empties the status; its phase is a default.
    fn is_defaulted_when_read(&self, _object: &Value) -> bool {
        true
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::claim(new)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"phase": "Pending"}));
        if let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) {
            data_sources(v, &NULL);
        }
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        if let Some(v) = new.get_mut("spec").filter(|v| v.is_object()) {
            data_sources(v, opt(old, "spec").unwrap_or(&NULL));
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        claim::spec(opt(object, "spec").unwrap_or(&NULL), &Path::new("spec"), &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        let p = Path::new("spec");
        let (mut n, mut o) = (opt(new, "spec").cloned().unwrap_or_default(), opt(old, "spec").cloned().unwrap_or_default());
        copy_source(&mut o);
        if s(&o, "volumeName").is_empty() {
            keep(&mut o, &n, "volumeName");
        }
        class_annotation(new, old, &mut n, &o, &mut e);
        if at(new, "status.phase").and_then(Value::as_str) == Some("Bound") {
            let before = at(&o, "resources.requests.storage").cloned();
            if let Some(requests) = n.pointer_mut("/resources/requests").filter(|r| r.is_object()) {
                set(requests, "storage", before.unwrap_or_else(|| json!("0")));
            }
            keep(&mut n, &o, "volumeAttributesClassName");
        }
        if !semantic(Some(&n), Some(&o), SPEC) {
            e.push(Error::forbidden(&p, format!("{CLAIM_FIXED}\n{}", go::diff(&n, &o, SPEC))));
        }
        size(new, old, &p, &mut e);
        if at(new, "spec.volumeMode") != at(old, "spec.volumeMode") {
            e.push(Error::invalid(&Path::new("volumeMode"), at(new, "spec.volumeMode").unwrap_or(&NULL), IMMUTABLE));
        }
        attributes_class(new, old, &p.child("volumeAttributesClassName"), &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(claim_status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let text = |path: &str| at(o, path).and_then(Value::as_str).unwrap_or("").to_owned();
        let bound = !text("spec.volumeName").is_empty();
        let phase = if at(o, "metadata.deletionTimestamp").is_some() { "Terminating".to_owned() } else { text("status.phase") };
        let unset = |t: String| if t.is_empty() { "<unset>".to_owned() } else { t };
        Some(vec![
            name(o),
            json!(phase),
            json!(text("spec.volumeName")),
            json!(if bound { text("status.capacity.storage") } else { String::new() }),
            json!(if bound { modes(opt(o, "status").unwrap_or(&NULL)) } else { String::new() }),
            json!(text("spec.storageClassName")),
            json!(unset(text("spec.volumeAttributesClassName"))),
            age(o, now),
            json!(unset(text("spec.volumeMode"))),
        ])
    }
}

/// `DropDisabledFields`, `EnforceDataSourceBackwardsCompatibility`, `NormalizeDataSources`: sources in other namespaces are off by
/// default, `dataSource` knows claims and snapshots alone, and each of the two fields fills the other.
fn data_sources(v: &mut Value, old: &Value) {
    let abroad = |v: &Value| at(v, "dataSourceRef.namespace").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if abroad(v) && !abroad(old) {
        remove(v, "dataSourceRef");
    }
    let known = |source: &Value| {
        matches!((s(source, "apiGroup"), s(source, "kind")), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    };
    if !has(old, "dataSource") && opt(v, "dataSource").is_some_and(|source| !known(source)) {
        remove(v, "dataSource");
    }
    copy_source(v);
}

fn copy_source(v: &mut Value) {
    match (opt(v, "dataSource").cloned(), opt(v, "dataSourceRef").cloned()) {
        (Some(source), None) => set(v, "dataSourceRef", source),
        (None, Some(mut source)) if s(&source, "namespace").is_empty() => {
            remove(&mut source, "namespace");
            set(v, "dataSource", source);
        }
        _ => {}
    }
}

/// The annotation that named the class is fixed, unless it becomes the field; a claim without a class may get one.
fn class_annotation(new: &Value, old: &Value, n: &mut Value, o: &Value, e: &mut ErrorList) {
    let named = |object: &Value| at(object, "metadata.annotations").map_or("", |a| s(a, CLASS)).to_owned();
    let (now, before) = (named(new), named(old));
    let moved = !has(o, "storageClassName") && opt(n, "storageClassName").and_then(Value::as_str) == Some(&*before);
    let unnamed = at(new, "metadata.annotations").is_none_or(|a| !has(a, CLASS));
    if at(old, "metadata.annotations").is_some_and(|a| has(a, CLASS)) && moved && (unnamed || now == before) {
        remove(n, "storageClassName");
        return;
    }
    if now != before {
        let meta = Path::new("metadata");
        e.push(Error::invalid_str(&meta.child("annotations").key(CLASS), &now, IMMUTABLE));
    }
    if before.is_empty() && !has(o, "storageClassName") && has(n, "storageClassName") {
        remove(n, "storageClassName");
    }
}

/// A class that was applied may be changed for another, and not taken away.
fn attributes_class(new: &Value, old: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let class = at(new, "spec.volumeAttributesClassName");
    if at(old, "status.currentVolumeAttributesClassName").is_none() || class == at(old, "spec.volumeAttributesClassName") {
        return;
    }
    let to = match class.map(Value::as_str) {
        None => "nil",
        Some(Some("")) => "empty string",
        _ => return,
    };
    e.push(Error::forbidden(p, format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil")));
}

/// A claim may shrink to recover from a failed expansion, but not below what it has.
fn size(new: &Value, old: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let amount = |object: &Value, path: &str| at(object, path).and_then(quantity).unwrap_or_default();
    let wanted = amount(new, "spec.resources.requests.storage");
    if wanted >= amount(old, "spec.resources.requests.storage") {
        return;
    }
    if wanted <= amount(old, "status.capacity.storage") {
        let (resources, requests) = (p.child("resources"), "requests");
        let requests = resources.child(requests);
        e.push(Error::forbidden(&requests.child("storage"), "field can not be less than status.capacity"));
    }
}

/// `ValidatePersistentVolumeClaimStatusUpdate`
fn claim_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    const PHASES: [&str; 5] =
        ["ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInfeasible", "NodeResizeInProgress", "NodeResizePending"];
    let status = opt(new, "status").unwrap_or(&NULL);
    let p = Path::new("status");
    let capacity = p.child("capacity");
    for (name, q) in resource_entries(status, "capacity").filter(|(_, q)| q.sign() < 0) {
        e.push(Error::invalid(&capacity.key(name), &json!(q.value()), "must be a valid resource quantity"));
    }
    let resizing = p.child("allocatedResourceStatuses");
    let mut phases = PHASES;
    phases.sort_unstable();
    for (name, phase) in entries(status, "allocatedResourceStatuses") {
        resource_key(name, &resizing, e);
        if !phase.as_str().is_some_and(|phase| PHASES.contains(&phase)) {
            e.push(Error::not_supported(&resizing, &json!(name), &phases));
        }
    }
    let allocated = p.child("allocatedResources");
    for (name, q) in resource_entries(status, "allocatedResources") {
        let before = e.len();
        resource_key(name, &allocated, e);
        if e.len() > before {
            continue;
        }
        if q.sign() < 0 {
            e.push(Error::invalid(&allocated.key(name), &json!(q.value()), "must be a valid resource quantity"));
        } else {
            resources::amount("storage", q, &allocated.key(name), e);
        }
    }
}

/// `validatePersistentVolumeClaimResourceKey`: storage, or a resource of somebody's own.
fn resource_key(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        crate::validate::rules::named(p, name, problems, e);
    } else if (!name.contains('/') || name.contains("kubernetes.io/")) && name != "storage" {
        e.push(Error::not_supported(p, &json!(name), &["storage"]));
    }
}
