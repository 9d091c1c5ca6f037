//! What workload kinds share: status that only its own endpoint writes, counts that may be percents, selector against template.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::pod_defaults;
use crate::strategy::{Context, Strategy};
use crate::types::types;
use crate::validate::go;
use crate::validate::rules::{NON_NEGATIVE, named};
use crate::validate::selector::{as_selector, is_empty_selector, label_selector};
use crate::validate::template::template as pod_template;
use crate::validate::tree::{at, keep, opt, s, set};

/// Gives a new object the status Go prints for an empty one. `ty` is the type of the status: `apps.v1.DeploymentStatus`.
pub fn reset_status(object: &mut Value, ty: &str) {
    let zero = types().named(&format!("io.k8s.api.{ty}")).map(|id| machinery::decode::zero(types(), id));
    let mut zero = zero.unwrap_or_else(|| json!({}));
    if let Some(map) = zero.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
    set(object, "status", zero);
}

/// The usual status endpoint: all but the status, labels and annotations stay.
pub struct StatusOnly(pub fn(&Value, &Value, &mut ErrorList));

impl Strategy for StatusOnly {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
            new.retain(|key, _| old.contains_key(key) || key == "status");
            for (key, value) in old.iter().filter(|(key, _)| !matches!(key.as_str(), "status" | "metadata" | "apiVersion" | "kind")) {
                new.insert(key.clone(), value.clone());
            }
        }
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        (self.0)(new, old, &mut e);
        e
    }
}

/// Defaults of the pod template at a path.
pub fn default_template(object: &mut Value, path: &str) {
    let spec = path.split('.').try_fold(&mut *object, |v, key| v.get_mut(key)).and_then(|t| t.get_mut("spec"));
    if let Some(spec) = spec {
        pod_defaults::spec(spec);
    }
}

/// Warnings of a kind whose pods are called after it, once what it wants has changed; `path` leads to its pod template.
pub fn template_warnings(new: &Value, old: Option<&Value>, path: &[&str], names_pods: bool) -> Vec<String> {
    let generation = |o: &Value| at(o, "metadata.generation").cloned();
    if old.is_some_and(|old| generation(old) == generation(new)) {
        return Vec::new();
    }
    let mut out: Vec<String> = Vec::new();
    if old.is_none() && names_pods {
        out.extend(crate::warnings::pod_names(new));
    }
    let template = path.iter().try_fold(new, |v, key| opt(v, key));
    out.extend(template.map(|t| at_path(path, |p| crate::warnings::pod(t, Some(p)))).unwrap_or_default());
    out
}

fn at_path<T>(path: &[&str], then: impl FnOnce(&Path<'_>) -> T) -> T {
    then(&Path::new(&path.join(".")))
}

/// Drops disabled fields of the template at a path, unless the old object's has them.
pub fn drop_disabled(object: &mut Value, old: Option<&Value>, path: &str) {
    let before = old.and_then(|old| at(old, path)).and_then(|t| opt(t, "spec"));
    let spec = path.split('.').try_fold(&mut *object, |v, key| v.get_mut(key)).and_then(|t| t.get_mut("spec"));
    if let Some(spec) = spec {
        pod_defaults::drop_disabled(spec, before);
    }
}

pub fn keep_status(new: &mut Value, old: &Value) {
    keep(new, old, "status");
}

/// A number or a percent, not negative (`ValidatePositiveIntOrPercent`).
pub fn int_or_percent(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    match opt(v, key) {
        Some(Value::String(text)) => named(&p.child(key), text, names::percent(text), e),
        Some(Value::Number(n)) if n.as_i64().unwrap_or(0) < 0 => e.push(Error::invalid(&p.child(key), &v[key], NON_NEGATIVE)),
        _ => {}
    }
}

pub fn not_over_hundred(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let over =
        opt(v, key).and_then(Value::as_str).and_then(|t| t.strip_suffix('%')).and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 100);
    if over {
        e.push(Error::invalid(&p.child(key), &v[key], "must not be greater than 100%"));
    }
}

/// The number, or the percents, or zero.
pub fn count(v: &Value, key: &str) -> i64 {
    match opt(v, key) {
        Some(Value::String(text)) => text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0),
        Some(Value::Number(n)) => n.as_i64().unwrap_or(0),
        _ => 0,
    }
}

/// How a kind words its errors about selector and template.
pub struct Wording {
    /// `deployment` in "empty selector is invalid for deployment".
    pub kind: &'static str,
    /// The detail of a selector that cannot be used.
    pub bad_selector: &'static str,
    /// `ReplicaSet` in "activeDeadlineSeconds in ReplicaSet is not Supported".
    pub deadline: &'static str,
}

/// Selector and template of a spec: each valid, the one selecting the other, and pods that run forever.
pub fn selector_and_template(spec: &Value, wording: &Wording, p: &Path<'_>, e: &mut ErrorList) {
    let at_selector = p.child("selector");
    match opt(spec, "selector") {
        None => e.push(Error::required(&at_selector, "")),
        Some(selector) => {
            label_selector(selector, &at_selector, e);
            if is_empty_selector(selector) {
                let text = format!("empty selector is invalid for {}", wording.kind);
                e.push(go::invalid(&at_selector, selector, "meta.v1.LabelSelector", text));
            }
        }
    }
    match as_selector(opt(spec, "selector")) {
        None => {
            let selector = opt(spec, "selector").unwrap_or(&Value::Null);
            e.push(go::invalid(&at_selector, selector, "meta.v1.LabelSelector", wording.bad_selector));
        }
        Some(selector) => template_of(spec, &selector, wording, p, e),
    }
}

/// `ValidatePodTemplateSpecForReplicaSet` and its like.
pub fn template_of(spec: &Value, selector: &machinery::labels::Selector, wording: &Wording, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("template");
    let Some(template) = opt(spec, "template") else {
        e.push(Error::required(&p, ""));
        return;
    };
    matching_labels(template, selector, &p, e);
    pod_template(template, &p, e);
    forever(template, wording.deadline, &p, e);
}

pub fn matching_labels(template: &Value, selector: &machinery::labels::Selector, p: &Path<'_>, e: &mut ErrorList) {
    let labels = at(template, "metadata.labels").unwrap_or(&Value::Null);
    if !selector.is_everything() && !selector.matches(labels) {
        e.push(Error::invalid(&p.child("metadata").child("labels"), labels, "`selector` does not match template `labels`"));
    }
}

pub fn forever(template: &Value, kind: &str, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let (spec, p) = (opt(template, "spec").unwrap_or(&empty), p.child("spec"));
    if s(spec, "restartPolicy") != "Always" {
        e.push(Error::not_supported(&p.child("restartPolicy"), &json!(s(spec, "restartPolicy")), &["Always"]));
    }
    if opt(spec, "activeDeadlineSeconds").is_some() && !kind.is_empty() {
        e.push(Error::forbidden(&p.child("activeDeadlineSeconds"), format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
}

/// Counts of a status must not be negative, and some not above others: `(small, big, big as the text names it)`.
pub fn status_counts(new: &Value, fields: &[&str], bounds: &[(&str, &str, &str)], e: &mut ErrorList) {
    let p = Path::new("status");
    let empty = json!({});
    let status = opt(new, "status").unwrap_or(&empty);
    for key in fields {
        crate::validate::rules::non_negative(status, key, &p, e);
    }
    for (small, big, named) in bounds {
        let n = crate::validate::tree::int0(status, small);
        if n > crate::validate::tree::int0(status, big) {
            e.push(Error::invalid(&p.child(small), &json!(n), format!("cannot be greater than {named}")));
        }
    }
}
