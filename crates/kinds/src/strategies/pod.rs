//! Pods and their subresources.

mod gated;
mod resize;
mod status;
mod update;

use machinery::field::{Error, ErrorList, Path};
use machinery::requests;
use serde_json::{Value, json};

use super::pod_defaults;
use crate::quota::amounts;
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::container::trimmed_image;
use crate::validate::pod_spec::pod_spec;
use crate::validate::template::{annotations_match, pod_annotations};
use crate::validate::tree::{at, has, is_empty, keep, list, opt, s, set};

pub struct Pods;

/// `pods/status`
pub struct Status;

/// `pods/ephemeralcontainers`
pub struct EphemeralContainers;

/// `pods/resize`
pub struct Resize;

impl Strategy for Pods {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            pod_defaults::spec(spec);
            pod_defaults::alone(spec);
            // Reading a pod makes a negative grace period one second.
            if crate::validate::tree::int(spec, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
                set(spec, "terminationGracePeriodSeconds", 1);
            }
        }
        if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
            status::link_addresses(status);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out: Vec<String> = old.is_none().then(|| crate::warnings::host_name(new)).flatten().into_iter().collect();
        out.extend(crate::warnings::pod(new, None));
        out
    }

    fn prepare_for_create(&self, ctx: &Context, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            pod_defaults::drop_disabled(spec, None);
        }
        pod_defaults::match_label_keys(object);
        let given = at(object, "status.qosClass").and_then(Value::as_str).unwrap_or("").to_owned();
        let qos = if given.is_empty() { qos_class(object) } else { given };
        let mut status = json!({"phase": "Pending", "qosClass": qos});
        if opt(object, "spec").is_some_and(|spec| !is_empty(spec, "schedulingGates")) {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": ctx.now, "lastProbeTime": null,
            }]);
        }
        set(object, "status", status);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        if let Some(spec) = new.get_mut("spec") {
            pod_defaults::drop_disabled(spec, opt(old, "spec"));
        }
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: false, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        whole(object, &mut e);
        let (p, spec) = (Path::new("spec"), object.get("spec").unwrap_or(&Value::Null));
        if !is_empty(spec, "ephemeralContainers") {
            e.push(Error::forbidden(&p.child("ephemeralContainers"), "cannot be set on create"));
        }
        if !s(spec, "nodeName").is_empty() && !is_empty(spec, "schedulingGates") {
            e.push(Error::forbidden(&p.child("nodeName"), "cannot be set until all schedulingGates have been cleared"));
        }
        annotations_match(object.get("metadata").unwrap_or(&Value::Null), spec, &p, &mut e);
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        update::spec(new, old)
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        match name {
            "status" => Some(&Status),
            "ephemeralcontainers" => Some(&EphemeralContainers),
            "resize" => Some(&Resize),
            _ => None,
        }
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::pod::cells(object, now))
    }
}

impl Strategy for Status {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        // All metadata but this stays as it was.
        const CHANGED: [&str; 5] = ["labels", "annotations", "finalizers", "resourceVersion", "managedFields"];
        let before = old.get("metadata").and_then(Value::as_object);
        let mut meta = match new.get_mut("metadata").map(Value::take) {
            Some(Value::Object(meta)) => meta,
            _ => serde_json::Map::new(),
        };
        meta.retain(|key, _| CHANGED.contains(&key.as_str()));
        let kept = before.into_iter().flatten().filter(|(key, _)| !CHANGED.contains(&key.as_str()));
        meta.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
        set(new, "metadata", meta);
        let before = opt(old, "status").map(|st| s(st, "qosClass").to_owned()).unwrap_or_default();
        if let Some(status) = new.get_mut("status").filter(|st| st.is_object() && s(st, "qosClass").is_empty() && !before.is_empty()) {
            set(status, "qosClass", before);
        }
        status::preserve_generations(new, old);
        status::drop_disabled(new, old);
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        status::validate(new, old)
    }
}

impl Strategy for EphemeralContainers {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        let added = new.get("spec").and_then(|spec| spec.get("ephemeralContainers")).cloned();
        let version = new.get("metadata").and_then(|m| m.get("resourceVersion")).cloned();
        let managed = new.get("metadata").and_then(|m| m.get("managedFields")).cloned();
        *new = old.clone();
        if let (Some(spec), Some(added)) = (new.get_mut("spec"), added) {
            set(spec, "ephemeralContainers", added);
        }
        if let (Some(meta), Some(version)) = (new.get_mut("metadata"), version) {
            set(meta, "resourceVersion", version);
        }
        if let (Some(meta), Some(managed)) = (new.get_mut("metadata"), managed) {
            set(meta, "managedFields", managed);
        }
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        update::ephemeral(new, old)
    }
}

impl Strategy for Resize {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        resize::prepare(new, old);
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        resize::validate(new, old)
    }
}

/// `validatePodMetadataAndSpec`, less the shared rules of metadata.
fn whole(object: &Value, e: &mut ErrorList) {
    let empty = json!({});
    let (meta, spec) = (opt(object, "metadata").unwrap_or(&empty), opt(object, "spec").unwrap_or(&empty));
    let p = Path::new("spec");
    let meta_at = Path::new("metadata");
    pod_annotations(meta, spec, &meta_at.child("annotations"), e);
    pod_spec(spec, meta, true, &p, e);
    if s(spec, "serviceAccountName").is_empty() {
        let volumes = p.child("volumes");
        for (i, volume) in list(spec, "volumes").iter().enumerate() {
            let at_volume = volumes.index(i);
            let projected = at_volume.child("projected");
            let sources = projected.child("sources");
            for (j, source) in opt(volume, "projected").map_or(&[][..], |v| list(v, "sources")).iter().enumerate() {
                if has(source, "serviceAccountToken") {
                    let text = "must not be specified when serviceAccountName is not set";
                    e.push(Error::forbidden(&sources.index(j).child("serviceAccountToken"), text));
                }
            }
        }
    }
    for key in ["containers", "initContainers"] {
        let at = p.child(key);
        for (i, c) in list(spec, key).iter().enumerate() {
            trimmed_image(c, &at.index(i), e);
        }
    }
}

pub fn qos_class(pod: &Value) -> String {
    let Some(spec) = opt(pod, "spec") else { return "BestEffort".to_owned() };
    let read = |v: &Value| (amounts(v, "requests"), amounts(v, "limits"));
    let own = opt(spec, "resources").filter(|r| !is_empty(r, "limits") || !is_empty(r, "requests"));
    match own {
        Some(_) => requests::qos_class([read(spec)]),
        None => requests::qos_class(list(spec, "containers").iter().chain(list(spec, "initContainers")).map(read)),
    }
    .to_owned()
}
