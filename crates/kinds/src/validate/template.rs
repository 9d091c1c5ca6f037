//! Pod templates, as every workload holds one, and the annotations that mean something to pods.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::os::each_container;
use super::pod_spec::pod_spec;
use super::tree::{entries, is_empty, map, opt, opt_s, s};
use super::volume::local_path;

/// The annotation of pods that a kubelet shows for its own files.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `ValidatePodTemplateSpec`.
pub fn template(template: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let meta = opt(template, "metadata").unwrap_or(&empty);
    let spec = opt(template, "spec").unwrap_or(&empty);
    machinery::metadata::labels(meta.get("labels"), &p.child("labels"), e);
    machinery::metadata::annotations(meta.get("annotations"), &p.child("annotations"), e);
    pod_annotations(meta, spec, &p.child("annotations"), e);
    pod_spec(spec, meta, false, &p.child("spec"), e);
    annotations_match(meta, spec, &p.child("spec"), e);
    if !is_empty(spec, "ephemeralContainers") {
        e.push(Error::forbidden(&p.child("spec").child("ephemeralContainers"), "ephemeral containers not allowed in pod template"));
    }
}

/// Annotations that mean something to pods (`ValidatePodSpecificAnnotations`).
pub fn pod_annotations(meta: &Value, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let all = map(meta, "annotations");
    let of = |key: &str| all.and_then(|a| a.get(key)).and_then(Value::as_str);
    if let Some(value) = of(MIRROR).filter(|_| s(spec, "nodeName").is_empty()) {
        e.push(Error::invalid_str(&p.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set"));
    }
    if let Some(text) = of(TOLERATIONS).filter(|text| !text.is_empty()) {
        match serde_json::from_str::<Vec<Value>>(text) {
            Ok(tolerations) => super::scheduling::each_toleration(&tolerations, &p.child(TOLERATIONS), e),
            Err(error) => e.push(Error::invalid_str(p, TOLERATIONS, error.to_string())),
        }
    }
    if let Some(cost) = of(DELETION_COST).filter(|cost| !is_cost(cost)) {
        e.push(Error::invalid_str(&p.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
    if let Some(profile) = of(SECCOMP_POD) {
        seccomp_annotation(profile, &p.child(SECCOMP_POD), e);
    }
    for (key, value) in entries(meta, "annotations").filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        seccomp_annotation(value.as_str().unwrap_or(""), &p.child(key), e);
    }
    for (key, value) in entries(meta, "annotations") {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        app_armor_annotation(name, value.as_str().unwrap_or(""), spec, &p.key(key), e);
    }
}

/// Without a plus sign and leading zeros.
fn is_cost(text: &str) -> bool {
    let first = text.as_bytes().first().copied().unwrap_or(0);
    (first == b'-' || text == "0" || (b'1'..=b'9').contains(&first)) && text.parse::<i32>().is_ok()
}

fn seccomp_annotation(profile: &str, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(path) = profile.strip_prefix("localhost/") {
        local_path(path, p, e);
    } else if !matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        e.push(Error::invalid_str(p, profile, "must be a valid seccomp profile"));
    }
}

fn app_armor_annotation(container: &str, profile: &str, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let mut found = false;
    each_container(spec, p, |c, _| found |= s(c, "name") == container);
    if !found {
        e.push(Error::invalid_str(p, container, "container not found"));
    }
    if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
        e.push(Error::invalid_str(p, profile, format!("invalid AppArmor profile name: {}", machinery::field::go_quote(profile))));
    }
}

/// A profile that stands in an annotation and in a field has to be one profile (`validateSeccompAnnotationsAndFields`,
/// `validateAppArmorAnnotationsAndFieldsMatchOnCreate`).
pub fn annotations_match(meta: &Value, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let of = |key: &str| map(meta, "annotations").and_then(|a| a.get(key)).and_then(Value::as_str);
    let context = opt(spec, "securityContext");
    if let (Some(text), Some(profile)) = (of(SECCOMP_POD), context.and_then(|v| opt(v, "seccompProfile"))) {
        let at = p.child("securityContext");
        matches_field(text, profile, "seccomp", &["runtime/default", "docker/default"], &at.child("seccompProfile"), e);
    }
    each_container(spec, p, |c, at| {
        let own = opt(c, "securityContext").and_then(|v| opt(v, "seccompProfile"));
        if let (Some(profile), Some(text)) = (own, of(&format!("{SECCOMP_CONTAINER}{}", s(c, "name")))) {
            let at = at.child("securityContext");
            matches_field(text, profile, "seccomp", &["runtime/default", "docker/default"], &at.child("seccompProfile"), e);
        }
    });
    if opt(spec, "os").is_some_and(|os| s(os, "name") == "windows") {
        return;
    }
    let of_pod = context.and_then(|v| opt(v, "appArmorProfile"));
    each_container(spec, p, |c, at| {
        let own = opt(c, "securityContext").and_then(|v| opt(v, "appArmorProfile")).or(of_pod);
        if let (Some(profile), Some(text)) = (own, of(&format!("{APP_ARMOR}{}", s(c, "name")))) {
            let at = at.child("securityContext");
            matches_field(text, profile, "apparmor", &["runtime/default"], &at.child("appArmorProfile"), e);
        }
    });
}

fn matches_field(text: &str, profile: &Value, what: &str, runtime: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let fits = match s(profile, "type") {
        "Unconfined" => text == "unconfined",
        "RuntimeDefault" => runtime.contains(&text),
        "Localhost" => text.starts_with("localhost/"),
        _ => return,
    };
    if !fits {
        e.push(Error::forbidden(&p.child("type"), format!("{what} type in annotation and field must match")));
    } else if s(profile, "type") == "Localhost" && opt_s(profile, "localhostProfile") != text.strip_prefix("localhost/") {
        e.push(Error::forbidden(&p.child("localhostProfile"), format!("{what} profile in annotation and field must match")));
    }
}

/// What an update may not do to them (`ValidatePodSpecificAnnotationUpdates`).
pub fn annotation_updates(new: &Value, old: &Value, e: &mut ErrorList) {
    let empty = json!({});
    let (now, before) = (opt(new, "metadata").unwrap_or(&empty), opt(old, "metadata").unwrap_or(&empty));
    let meta = Path::new("metadata");
    let at = meta.child("annotations");
    let value_in = |meta: &Value, key: &str| map(meta, "annotations").and_then(|a| a.get(key)).cloned();
    for (key, _) in entries(before, "annotations").filter(|(key, value)| value_in(now, key).as_ref() != Some(*value)) {
        fixed(key, "may not remove or update", &at, e);
    }
    for (key, _) in entries(now, "annotations").filter(|(key, _)| value_in(before, key).is_none()) {
        fixed(key, "may not add", &at, e);
    }
    let spec = opt(new, "spec").unwrap_or(&empty);
    pod_annotations(now, spec, &at, e);
}

fn fixed(key: &str, verb: &str, at: &Path<'_>, e: &mut ErrorList) {
    if key.starts_with(APP_ARMOR) {
        e.push(Error::forbidden(&at.key(key), format!("{verb} AppArmor annotations")));
    }
    if key == MIRROR {
        e.push(Error::forbidden(&at.key(key), format!("{verb} mirror pod annotation")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_of_pods() {
        let spec = json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]});
        for (annotations, wanted) in [
            (json!({DELETION_COST: "10"}), vec![]),
            (json!({DELETION_COST: "+10"}), vec!["a[controller.kubernetes.io/pod-deletion-cost]: must be a 32bit integer"]),
            (json!({DELETION_COST: "08"}), vec!["a[controller.kubernetes.io/pod-deletion-cost]: must be a 32bit integer"]),
            (json!({MIRROR: ""}), vec!["a[kubernetes.io/config.mirror]: must set spec.nodeName if mirror pod annotation is set"]),
            (json!({format!("{APP_ARMOR}c"): "localhost/x"}), vec![]),
            (json!({format!("{APP_ARMOR}d"): ""}), vec!["a[container.apparmor.security.beta.kubernetes.io/d]: container not found"]),
            (
                json!({format!("{APP_ARMOR}c"): "x"}),
                vec!["a[container.apparmor.security.beta.kubernetes.io/c]: invalid AppArmor profile name: \"x\""],
            ),
            (
                json!({format!("{SECCOMP_CONTAINER}c"): "runtime/default"}),
                vec!["s.containers[0].securityContext.seccompProfile.type: seccomp type in annotation and field must match"],
            ),
            (json!({SECCOMP_POD: "x"}), vec!["a.seccomp.security.alpha.kubernetes.io/pod: must be a valid seccomp profile"]),
            (json!({TOLERATIONS: "[{\"operator\": \"Exists\"}]"}), vec![]),
        ] {
            let (meta, mut e) = (json!({ "annotations": annotations }), ErrorList::new());
            pod_annotations(&meta, &spec, &Path::new("a"), &mut e);
            annotations_match(&meta, &spec, &Path::new("s"), &mut e);
            assert_eq!(e.iter().map(|e| format!("{}: {}", e.field, e.detail)).collect::<Vec<_>>(), wanted, "{annotations}");
        }
    }

    #[test]
    fn annotations_that_stay() {
        let pod = |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n", "containers": [{"name": "c"}]}});
        let key = format!("{APP_ARMOR}c");
        for (old, new, wanted) in [
            (json!({}), json!({MIRROR: "x"}), "may not add mirror pod annotation"),
            (json!({MIRROR: "x"}), json!({MIRROR: "y"}), "may not remove or update mirror pod annotation"),
            (json!({&key: "unconfined"}), json!({}), "may not remove or update AppArmor annotations"),
            (json!({}), json!({&key: "unconfined"}), "may not add AppArmor annotations"),
        ] {
            let mut e = ErrorList::new();
            annotation_updates(&pod(new), &pod(old), &mut e);
            assert_eq!(e.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>(), [wanted]);
        }
    }
}
