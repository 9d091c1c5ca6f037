//! CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment.

use std::collections::BTreeMap;

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::storage::volume_spec;
use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, Seen, dns_subdomain, named, one_of, quantity_at};
use crate::validate::tree::{at, entries, flag, has, int, is_empty, list, opt, opt_s, s, same_at, set, strings};
use crate::validate::volume::csi_driver_name;

/// What upstream calls `attachRequired` in errors.
const ATTACH: &str = "attachedRequired";
/// What an attacher may tell of a volume, and say of an error.
const METADATA_MAX_BYTES: usize = 256 * 1024;
const MESSAGE_MAX_BYTES: usize = 1024;
static NULL: Value = Value::Null;

pub struct CsiDrivers;

impl Strategy for CsiDrivers {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        // Alpha, and off.
        if let Some(v) = object.get_mut("spec") {
            crate::validate::tree::remove(v, "preventPodSchedulingIfMissing");
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let meta = Path::new("metadata");
        if !machinery::object::name(object).is_empty() && machinery::object::name(object).len() > 63 {
            e.push(Error::too_long(&meta.child("name"), 63));
        }
        let v = opt(object, "spec").unwrap_or(&NULL);
        for (key, named) in [("attachRequired", ATTACH), ("podInfoOnMount", "podInfoOnMount"), ("storageCapacity", "storageCapacity")] {
            if !has(v, key) {
                e.push(Error::required(&p.child(named), ""));
            }
        }
        if let Some(policy) = opt_s(v, "fsGroupPolicy") {
            one_of(&p.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"], &mut e);
        }
        token_requests(v, &p, &mut e);
        for mode in strings(v, "volumeLifecycleModes") {
            one_of(&p.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"], &mut e);
        }
        if let Some(n) = int(v, "nodeAllocatableUpdatePeriodSeconds").filter(|n| *n < 10) {
            e.push(Error::invalid(
                &p.child("nodeAllocatableUpdatePeriodSeconds"),
                &json!(n),
                "must be greater than or equal to 10 seconds",
            ));
        }
        if has(v, "serviceAccountTokenInSecrets") && is_empty(v, "tokenRequests") {
            let text = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            e.push(Error::invalid(&p.child("serviceAccountTokenInSecrets"), &v["serviceAccountTokenInSecrets"], text));
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        let p = Path::new("spec");
        for (key, named) in [("attachRequired", ATTACH), ("volumeLifecycleModes", "volumeLifecycleModes")] {
            let path = format!("spec.{key}");
            if !same_at(new, old, &path) {
                e.push(Error::invalid(&p.child(named), at(new, &path).unwrap_or(&NULL), IMMUTABLE));
            }
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let v = opt(o, "spec").unwrap_or(&NULL);
        let audiences: Vec<&str> = list(v, "tokenRequests").iter().map(|t| s(t, "audience")).collect();
        let modes: Vec<&str> = strings(v, "volumeLifecycleModes").collect();
        let or = |texts: Vec<&str>, none: &str| if texts.is_empty() { none.to_owned() } else { texts.join(",") };
        Some(vec![
            name(o),
            json!(opt(v, "attachRequired").and_then(Value::as_bool).unwrap_or(true)),
            json!(flag(v, "podInfoOnMount")),
            json!(flag(v, "storageCapacity")),
            json!(or(audiences, "<unset>")),
            json!(flag(v, "requiresRepublish")),
            json!(or(modes, "<unset>")),
            age(o, now),
        ])
    }
}

fn token_requests(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("tokenRequests");
    let mut seen = Seen::default();
    for (i, request) in list(v, "tokenRequests").iter().enumerate() {
        let at = at.index(i);
        let audience = s(request, "audience");
        if seen.again(audience) {
            e.push(Error::duplicate(&at.child("audience"), &json!(audience)));
        }
        if let Some(n) = int(request, "expirationSeconds") {
            if n < 600 {
                e.push(Error::invalid(&at.child("expirationSeconds"), &json!(n), "may not specify a duration less than 10 minutes"));
            }
            if n > 1 << 32 {
                e.push(Error::invalid(&at.child("expirationSeconds"), &json!(n), "may not specify a duration larger than 2^32 seconds"));
            }
        }
    }
}

pub struct CsiNodes;

impl Strategy for CsiNodes {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { update_again: false, create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, root) = (ErrorList::new(), Path::new("spec"));
        let p = root.child("drivers");
        let mut names_seen = Seen::default();
        for (i, d) in drivers(object).iter().enumerate() {
            let at = p.index(i);
            csi_driver_name(s(d, "name"), &at.child("name"), &mut e);
            match s(d, "nodeID") {
                "" => e.push(Error::required(&at.child("nodeID"), "")),
                id if id.len() > 192 => e.push(Error::invalid_str(&at.child("nodeID"), id, "must be 192 characters or less")),
                _ => {}
            }
            if let Some(n) = at_count(d).filter(|n| *n < 0) {
                let allocatable = at.child("allocatable");
                e.push(Error::invalid(&allocatable.child("count"), &json!(n), crate::validate::rules::NON_NEGATIVE));
            }
            let keys = at;
            let mut seen = Seen::default();
            for key in strings(d, "topologyKeys") {
                if key.is_empty() {
                    e.push(Error::required(&keys, ""));
                }
                if seen.again(key) {
                    e.push(Error::duplicate(&keys, &json!(key)));
                }
                named(&keys, key, names::qualified_name(key), &mut e);
            }
            if names_seen.again(s(d, "name")) {
                e.push(Error::duplicate(&at.child("name"), &json!(s(d, "name"))));
            }
        }
        e
    }

    /// Of a driver that stays only how many volumes it takes may change.
    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            crate::validate::tree::remove(&mut driver, "allocatable");
            driver
        };
        let by_name: BTreeMap<&str, &Value> = drivers(new).iter().map(|driver| (s(driver, "name"), driver)).collect();
        for old in drivers(old) {
            let Some(new) = by_name.get(s(old, "name")) else { continue };
            if !semantic(Some(&fixed(new)), Some(&fixed(old)), "storage.v1.CSINodeDriver") {
                e.push(go::invalid(&Path::new("CSINodeDriver"), new, "storage.v1.CSINodeDriver", IMMUTABLE));
            }
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let count = opt(o, "spec").map_or(0, |v| list(v, "drivers").len());
        Some(vec![name(o), json!(count), age(o, now)])
    }
}

fn drivers(node: &Value) -> &[Value] {
    opt(node, "spec").map_or(&[][..], |v| list(v, "drivers"))
}

fn at_count(driver: &Value) -> Option<i64> {
    at(driver, "allocatable.count").and_then(Value::as_i64)
}

pub struct CsiStorageCapacities;

impl Strategy for CsiStorageCapacities {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        label_selector_root(object, &mut e);
        dns_subdomain(&Path::new("storageClassName"), s(object, "storageClassName"), &mut e);
        if let Some(q) = quantity_at(object, "capacity") {
            crate::validate::rules::non_negative_quantity(&Path::new("capacity"), q, &mut e);
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        // An empty selector selects all nodes, none selects none.
        if opt(new, "nodeTopology") != opt(old, "nodeTopology") {
            e.push(go::invalid(&Path::new("nodeTopology"), opt(new, "nodeTopology").unwrap_or(&NULL), "meta.v1.LabelSelector", IMMUTABLE));
        }
        if s(new, "storageClassName") != s(old, "storageClassName") {
            e.push(Error::invalid_str(&Path::new("storageClassName"), s(new, "storageClassName"), IMMUTABLE));
        }
        e
    }
}

fn label_selector_root(object: &Value, e: &mut ErrorList) {
    if let Some(selector) = opt(object, "nodeTopology") {
        crate::validate::selector::label_selector(selector, &Path::new("nodeTopology"), e);
    }
}

/// `ValidateCSIDriverName`
fn attacher_name(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    if name.len() > 63 {
        e.push(Error::too_long(p, 63));
    }
    named(p, name, machinery::names::dns1123_subdomain(&name.to_lowercase()), e);
}

fn attachment_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let p = Path::new("status");
    let size = |map: &Value| entries(map, "attachmentMetadata").map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum::<usize>();
    if opt(new, "status").is_some_and(|st| size(st) > METADATA_MAX_BYTES) {
        e.push(Error::too_long(&p.child("attachmentMetadata"), METADATA_MAX_BYTES));
    }
    for key in ["attachError", "detachError"] {
        if let Some(error) = opt(new, "status").and_then(|st| opt(st, key)) {
            if s(error, "message").len() > MESSAGE_MAX_BYTES {
                // Upstream names the other limit.
                e.push(Error::too_long(&p.child(key).child("message"), METADATA_MAX_BYTES));
            }
            crate::validate::rules::in_range(error, "errorCode", &p.child(key), 0, i64::from(i32::MAX), e);
        }
    }
}

pub struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { update_again: false, create_on_update: true, ..MetaRules::default() }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"attached": false}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        let attacher = s(v, "attacher");
        if attacher.is_empty() {
            e.push(Error::required(&p.child("attacher"), ""));
        }
        let at_source = p.child("source");
        let (inline, pv) = (at(v, "source.inlineVolumeSpec"), at(v, "source.persistentVolumeName"));
        match (inline, pv) {
            (None, None) => e.push(Error::required(&at_source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")),
            (Some(_), Some(_)) => {
                e.push(Error::forbidden(&at_source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"));
            }
            (None, Some(pv)) => {
                let pv = pv.as_str().unwrap_or("");
                if pv.is_empty() {
                    e.push(Error::required(&at_source.child("persistentVolumeName"), "must specify non empty persistentVolumeName"));
                }
            }
            (Some(inline), None) => volume_spec(inline, true, &at_source.child("inlineVolumeSpec"), &mut e),
        }
        dns_subdomain(&p.child("nodeName"), s(v, "nodeName"), &mut e);
        if !attacher.is_empty() {
            attacher_name(attacher, &p.child("attacher"), &mut e);
        }
        if let Some(pv) = pv.and_then(Value::as_str) {
            dns_subdomain(&at_source.child("persistentVolumeName"), pv, &mut e);
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if !semantic(opt(new, "spec"), opt(old, "spec"), "storage.v1.VolumeAttachmentSpec") {
            e.push(go::invalid(&Path::new("spec"), opt(new, "spec").unwrap_or(&NULL), "storage.v1.VolumeAttachmentSpec", IMMUTABLE));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(attachment_status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let text = |path: &str| at(o, path).and_then(Value::as_str).unwrap_or("").to_owned();
        let attached = at(o, "status.attached").and_then(Value::as_bool).unwrap_or(false);
        let pv = text("spec.source.persistentVolumeName");
        Some(vec![name(o), json!(text("spec.attacher")), json!(pv), json!(text("spec.nodeName")), json!(attached), age(o, now)])
    }
}
