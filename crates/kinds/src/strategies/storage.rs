//! PersistentVolume, PersistentVolumeClaim and the storage group.

use std::collections::{BTreeMap, BTreeSet};

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, Seen, dns_subdomain, named, one_of, qualified, required, resource_entries};
use crate::validate::selector::node_selector;
use crate::validate::tree::{at, entries, flag, has, is_empty, list, opt, opt_s, remove, s, same, same_at, set, strings};
use crate::validate::volume::{claim, csi_driver_name, source};

static NULL: Value = Value::Null;

type Rule = fn(&Value, &Path<'_>, &mut ErrorList);

/// The field, its name in "more than 1 volume type", the rule; in upstream's order.
const SOURCES: [(&str, &str, Rule); 22] = [
    ("hostPath", "hostPath", |v, p, e| source::host_path(v, &p.child("hostPath"), e)),
    ("gcePersistentDisk", "gcePersistentDisk", source::gce),
    ("awsElasticBlockStore", "awsElasticBlockStore", source::aws),
    ("glusterfs", "glusterfs", source::glusterfs_pv),
    ("flocker", "flocker", source::flocker),
    ("nfs", "nfs", source::nfs),
    ("rbd", "rbd", source::rbd),
    ("quobyte", "quobyte", source::quobyte),
    ("cephfs", "cephFS", source::cephfs),
    ("iscsi", "iscsi", source::iscsi),
    ("cinder", "cinder", |v, p, e| source::cinder(v, p, true, e)),
    ("fc", "fc", source::fc),
    ("flexVolume", "", source::flex),
    ("azureFile", "azureFile", source::azure_file),
    ("vsphereVolume", "vsphereVolume", source::vsphere),
    ("photonPersistentDisk", "photonPersistentDisk", source::photon),
    ("portworxVolume", "portworxVolume", source::portworx),
    ("azureDisk", "azureDisk", source::azure_disk),
    ("scaleIO", "scaleIO", source::scale_io),
    ("local", "local", local),
    ("storageos", "storageos", |v, p, e| source::storageos(v, p, true, e)),
    ("csi", "csi", csi),
];

fn local(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("local");
    if required(v, "path", &p, e) {
        crate::validate::volume::no_back_steps(s(v, "path"), &p.child("path"), e);
    }
}

fn csi(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("csi");
    csi_driver_name(s(v, "driver"), &p.child("driver"), e);
    required(v, "volumeHandle", &p, e);
    for key in ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"] {
        if let Some(secret) = opt(v, key) {
            let p = p.child(key);
            for key in ["name", "namespace"] {
                required(secret, key, &p, e);
            }
        }
    }
}

/// `ValidatePersistentVolumeSpec`; `inline` for volumes inside VolumeAttachments.
pub fn volume_spec(v: &Value, inline: bool, p: &Path<'_>, e: &mut ErrorList) {
    if inline {
        not_inline(has(v, "claimRef"), "claimRef", p, e);
        not_inline(!is_empty(v, "capacity"), "capacity", p, e);
        if !has(v, "csi") {
            e.push(Error::required(&p.child("csi"), "has to be specified in the context of inline volumes"));
        }
    }
    if is_empty(v, "accessModes") {
        e.push(Error::required(&p.child("accessModes"), ""));
    }
    claim::access_modes(v, p, e);
    if !inline {
        capacity(v, p, e);
    }
    match s(v, "persistentVolumeReclaimPolicy") {
        "" => {}
        "Retain" if inline => {}
        _ if inline => {
            let text = "may only be Retain in the context of inline volumes";
            e.push(Error::forbidden(&p.child("persistentVolumeReclaimPolicy"), text));
        }
        policy => one_of(&p.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"], e),
    }
    if inline {
        not_inline(has(v, "nodeAffinity"), "nodeAffinity", p, e);
    } else if let Some(required) = at(v, "nodeAffinity") {
        node_affinity(required, &p.child("nodeAffinity"), e);
    }
    let mut found = 0;
    for (key, forbidden, rule) in SOURCES {
        let Some(value) = opt(v, key) else { continue };
        found += 1;
        // Upstream forgot to forbid a second one here.
        if found > 1 && !forbidden.is_empty() {
            e.push(Error::forbidden(&p.child(forbidden), "may not specify more than 1 volume type"));
            continue;
        }
        rule(value, p, e);
        if key == "local" && opt(v, "nodeAffinity").is_none_or(|a| !has(a, "required")) {
            e.push(Error::required(&p.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
    if found == 0 {
        e.push(Error::required(p, "must specify a volume type"));
    }
    if at(v, "hostPath.path").and_then(Value::as_str).is_some_and(|path| path.trim_matches('/').is_empty() && path.starts_with('/'))
        && s(v, "persistentVolumeReclaimPolicy") == "Recycle"
    {
        let text = "may not be 'recycle' for a hostPath mount of '/'";
        e.push(Error::forbidden(&p.child("persistentVolumeReclaimPolicy"), text));
    }
    match s(v, "storageClassName") {
        "" => {}
        _ if inline => not_inline(true, "storageClassName", p, e),
        class => dns_subdomain(&p.child("storageClassName"), class, e),
    }
    match opt_s(v, "volumeMode") {
        None => {}
        Some("Filesystem") if inline => {}
        Some(_) if inline => {
            let text = "may not specify volumeMode other than Filesystem in the context of inline volumes";
            e.push(Error::forbidden(&p.child("volumeMode"), text));
        }
        Some(mode) => one_of(&p.child("volumeMode"), mode, &["Block", "Filesystem"], e),
    }
    attributes_class(v, p, e);
}

fn not_inline(given: bool, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if given {
        e.push(Error::forbidden(&p.child(key), "may not be specified in the context of inline volumes"));
    }
}

fn attributes_class(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(class) = opt_s(v, "volumeAttributesClassName") else { return };
    let at = p.child("volumeAttributesClassName");
    if class.is_empty() {
        e.push(Error::required(&at, "an empty string is disallowed"));
    } else {
        dns_subdomain(&at, class, e);
    }
    if !has(v, "csi") {
        e.push(Error::required(&p.child("csi"), "has to be specified when using volumeAttributesClassName"));
    }
}

fn capacity(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("capacity");
    let entries: Vec<_> = resource_entries(v, "capacity").collect();
    if entries.is_empty() {
        e.push(Error::required(&at, ""));
    }
    if entries.len() != 1 || entries[0].0 != "storage" {
        e.push(Error::not_supported(&at, opt(v, "capacity").unwrap_or(&NULL), &["storage"]));
    }
    for (name, q) in entries {
        if q.sign() < 0 {
            e.push(Error::invalid(&at.key(name), &json!(q.value()), "must be a valid resource quantity"));
        }
        if q.sign() <= 0 {
            e.push(Error::invalid_str(&at.key(name), &q.to_string(), "must be greater than zero"));
        }
    }
}

fn node_affinity(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match opt(v, "required") {
        None => e.push(Error::required(&p.child("required"), "must specify required node constraints")),
        Some(required) => node_selector(required, &p.child("required"), e),
    }
}

pub struct PersistentVolumes;

/// `status`, which notes when the phase changed.
struct VolumeStatus;

impl Strategy for VolumeStatus {
    fn prepare_for_update(&self, ctx: &Context, new: &mut Value, old: &Value) {
        StatusOnly(|_, _, _| {}).prepare_for_update(ctx, new, old);
        let time = |o: &Value| crate::validate::tree::at(o, "status.lastPhaseTransitionTime").cloned();
        let phase_moved = !crate::validate::tree::same_at(new, old, "status.phase");
        if phase_moved
            && time(new).is_none_or(|t| Some(t) == time(old))
            && let Some(status) = new.get_mut("status").filter(|s| s.is_object())
        {
            set(status, "lastPhaseTransitionTime", ctx.now.clone());
        }
    }

    fn validate_update(&self, _ctx: &Context, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }
}

impl Strategy for PersistentVolumes {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { update_again: false, ..Default::default() }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::volume(new)
    }

    fn prepare_for_create(&self, ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": ctx.now}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        volume_spec(opt(object, "spec").unwrap_or(&NULL), false, &Path::new("spec"), &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        // Upstream validates the whole volume twice on update, and clients see each error twice.
        let mut e = self.validate(ctx, new);
        e.extend(e.clone());
        let (n, o) = (opt(new, "spec").unwrap_or(&NULL), opt(old, "spec").unwrap_or(&NULL));
        let plain = |v: &Value| {
            let keys = SOURCES.iter().map(|(key, ..)| *key);
            Value::Object(keys.filter_map(|key| Some((key.to_owned(), opt(v, key)?.clone()))).collect())
        };
        let (mut a, b) = (plain(n), plain(o));
        // The secret with which a volume grows may come later.
        if has(&b, "csi")
            && at(&b, "csi.controllerExpandSecretRef").is_none()
            && let Some(csi) = a.get_mut("csi")
        {
            remove(csi, "controllerExpandSecretRef");
        }
        if !semantic(Some(&a), Some(&b), "core.v1.PersistentVolumeSource") {
            let text =
                format!("spec.persistentvolumesource is immutable after creation\n{}", go::diff(&a, &b, "core.v1.PersistentVolumeSource"));
            e.push(Error::forbidden(&Path::new("spec").child("persistentvolumesource"), text));
        }
        if !same(opt(n, "volumeMode"), opt(o, "volumeMode")) {
            e.push(Error::invalid(&Path::new("volumeMode"), opt(n, "volumeMode").unwrap_or(&NULL), IMMUTABLE));
        }
        if has(o, "nodeAffinity") && !semantic(opt(n, "nodeAffinity"), opt(o, "nodeAffinity"), "core.v1.VolumeNodeAffinity") {
            e.push(go::invalid(
                &Path::new("nodeAffinity"),
                opt(n, "nodeAffinity").unwrap_or(&NULL),
                "core.v1.VolumeNodeAffinity",
                IMMUTABLE,
            ));
        }
        if has(o, "volumeAttributesClassName") && !has(n, "volumeAttributesClassName") {
            let p = Path::new("spec");
            e.push(Error::forbidden(&p.child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&VolumeStatus as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let v = opt(o, "spec").unwrap_or(&NULL);
        let text = |path: &str| at(o, path).and_then(Value::as_str).unwrap_or("").to_owned();
        let claim = opt(v, "claimRef").map_or_else(String::new, |c| format!("{}/{}", s(c, "namespace"), s(c, "name")));
        let phase = if at(o, "metadata.deletionTimestamp").is_some() { "Terminating".to_owned() } else { text("status.phase") };
        let unset = |t: String| if t.is_empty() { "<unset>".to_owned() } else { t };
        Some(vec![
            name(o),
            json!(Some(text("spec.capacity.storage")).filter(|t| !t.is_empty()).unwrap_or_else(|| "0".to_owned())),
            json!(modes(v)),
            json!(s(v, "persistentVolumeReclaimPolicy")),
            json!(phase),
            json!(claim),
            json!(s(v, "storageClassName")),
            json!(unset(text("spec.volumeAttributesClassName"))),
            json!(text("status.reason")),
            age(o, now),
            json!(unset(text("spec.volumeMode"))),
        ])
    }
}

/// `RWO,ROX,RWX,RWOP` in that order.
pub(super) fn modes(v: &Value) -> String {
    let short = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let there: Vec<&str> = short.iter().filter(|(long, _)| claim::has_mode(v, long)).map(|(_, short)| *short).collect();
    there.join(",")
}

pub struct StorageClasses;

impl Strategy for StorageClasses {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::topologies(new)
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        provisioner(object, "provisioner", &mut e);
        parameters(object, true, &mut e);
        if let Some(policy) = opt_s(object, "reclaimPolicy").filter(|p| !p.is_empty()) {
            one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"], &mut e);
        }
        match opt_s(object, "volumeBindingMode") {
            None => e.push(Error::required(&Path::new("volumeBindingMode"), "")),
            Some(mode) => one_of(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"], &mut e),
        }
        topologies(object, &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        // Compared by `reflect.DeepEqual`, to which an empty map is not none.
        if opt(new, "parameters") != opt(old, "parameters") {
            e.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        if s(new, "provisioner") != s(old, "provisioner") {
            e.push(Error::forbidden(&Path::new("provisioner"), "updates to provisioner are forbidden."));
        }
        if s(new, "reclaimPolicy") != s(old, "reclaimPolicy") {
            e.push(Error::forbidden(&Path::new("reclaimPolicy"), "updates to reclaimPolicy are forbidden."));
        }
        if !same_at(new, old, "volumeBindingMode") {
            let value = opt(new, "volumeBindingMode").unwrap_or(&NULL);
            e.push(Error::invalid(&Path::new("volumeBindingMode"), value, IMMUTABLE));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let annotation = |key: &str| at(o, "metadata.annotations").map_or("", |a| s(a, key)) == "true";
        let default =
            annotation("storageclass.kubernetes.io/is-default-class") || annotation("storageclass.beta.kubernetes.io/is-default-class");
        let title = if default { format!("{} (default)", machinery::object::name(o)) } else { machinery::object::name(o).to_owned() };
        let or = |key: &str, none: &str| opt_s(o, key).unwrap_or(none).to_owned();
        Some(vec![
            json!(title),
            json!(s(o, "provisioner")),
            json!(or("reclaimPolicy", "Delete")),
            json!(or("volumeBindingMode", "Immediate")),
            json!(flag(o, "allowVolumeExpansion")),
            age(o, now),
        ])
    }
}

fn provisioner(object: &Value, key: &str, e: &mut ErrorList) {
    let (text, p) = (s(object, key), Path::new(key));
    if text.is_empty() {
        e.push(Error::required(&p, ""));
    } else {
        let lower = text.to_lowercase();
        named(&p, &lower, names::qualified_name(&lower), e);
    }
}

fn parameters(object: &Value, allow_empty: bool, e: &mut ErrorList) {
    let p = Path::new("parameters");
    let entries: Vec<_> = entries(object, "parameters").collect();
    if entries.len() > 512 {
        e.push(Error::too_long(&p, 512));
        return;
    }
    let mut total = 0;
    for (key, value) in &entries {
        if key.is_empty() {
            e.push(Error::invalid_str(&p, key, "field can not be empty."));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > 256 * 1024 {
        e.push(Error::too_long(&p, 256 * 1024));
    }
    if !allow_empty && entries.is_empty() {
        e.push(Error::required(&p, "must contain at least one key/value pair"));
    }
}

/// Repeated terms make as many errors as there are pairs of them; so many are told of.
const TOPOLOGY_ERRORS_MAX: usize = 1000;

fn topologies(object: &Value, e: &mut ErrorList) {
    let root = Path::new("allowedTopologies");
    let terms = list(object, "allowedTopologies");
    let mut terms_seen: BTreeMap<_, usize> = BTreeMap::new();
    for (i, term) in terms.iter().enumerate() {
        let term_at = root.index(i);
        let at = term_at.child("matchLabelExpressions");
        let all = list(term, "matchLabelExpressions");
        let mut keys_seen = Seen::default();
        for (j, r) in all.iter().enumerate() {
            let item = at.index(j);
            let values = item.child("values");
            if is_empty(r, "values") {
                e.push(Error::required(&values, ""));
            }
            let mut seen = Seen::default();
            for (k, value) in strings(r, "values").enumerate() {
                if seen.again(value) {
                    e.push(Error::duplicate(&values.index(k), &json!(value)));
                }
            }
            qualified(&item.child("key"), s(r, "key"), e);
            if keys_seen.again(s(r, "key")) {
                e.push(Error::duplicate(&item.child("key"), &json!(s(r, "key"))));
            }
        }
        // Upstream compares with as many empty terms as there are terms, too.
        let empty = if all.is_empty() { terms.len() } else { 0 };
        let before = terms_seen.entry(meaning(term)).or_default();
        let room = TOPOLOGY_ERRORS_MAX.saturating_sub(e.len());
        e.extend((0..empty + *before).take(room).map(|_| Error::duplicate(&at, &json!(""))));
        *before += 1;
    }
}

/// Terms with the same values under the same keys, in any order, mean the same.
fn meaning(term: &Value) -> BTreeMap<&str, BTreeSet<&str>> {
    list(term, "matchLabelExpressions").iter().map(|r| (s(r, "key"), strings(r, "values").collect())).collect()
}

pub struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        provisioner(object, "driverName", &mut e);
        parameters(object, false, &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        if s(new, "driverName") != s(old, "driverName") {
            e.push(Error::forbidden(&Path::new("driverName"), "updates to driverName are forbidden."));
        }
        if !same_at(new, old, "parameters") {
            e.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        e.extend(self.validate(ctx, new));
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), json!(s(o, "driverName")), age(o, now)])
    }
}
