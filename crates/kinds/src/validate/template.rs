//! Pod templates, as every workload holds one.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::pod_spec::pod_spec;
use super::tree::{is_empty, opt};

/// `ValidatePodTemplateSpec`.
pub fn template(template: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let meta = opt(template, "metadata").unwrap_or(&empty);
    let spec = opt(template, "spec").unwrap_or(&empty);
    machinery::metadata::labels(meta.get("labels"), &p.child("labels"), e);
    machinery::metadata::annotations(meta.get("annotations"), &p.child("annotations"), e);
    pod_annotations(meta, spec, &p.child("annotations"), e);
    pod_spec(spec, meta, false, &p.child("spec"), e);
    if !is_empty(spec, "ephemeralContainers") {
        e.push(Error::forbidden(&p.child("spec").child("ephemeralContainers"), "ephemeral containers not allowed in pod template"));
    }
}

/// Annotations that mean something to pods (`ValidatePodSpecificAnnotations`).
pub fn pod_annotations(meta: &Value, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    for (key, value) in super::tree::entries(meta, "annotations") {
        let value = value.as_str().unwrap_or("");
        if key == "kubernetes.io/config.mirror" && value.is_empty() {
            e.push(Error::required(&p.key(key), ""));
        } else if key == "kubernetes.io/config.mirror" && super::tree::s(spec, "nodeName").is_empty() {
            e.push(Error::invalid_str(&p.key(key), value, "must set spec.nodeName if mirror pod annotation is set"));
        }
        if key == "controller.kubernetes.io/pod-deletion-cost" && value.parse::<i32>().is_err() {
            e.push(Error::invalid_str(&p.key(key), value, "must be a 32bit integer"));
        }
    }
}
