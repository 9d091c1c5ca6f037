//! Defaults of pod specs that depend on other fields. Those of templates are fewer than those of pods, as upstream's are.

use machinery::quantity::Quantity;
use serde_json::{Map, Value, json};

use crate::validate::resources::aggregate;
use crate::validate::rules::quantity;
use crate::validate::tree::{flag, has, int0, list, list_mut, map, opt, remove, s, set, set_default};
use crate::validate::volume;

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What every pod spec gets, in a template too.
pub fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    for v in list_mut(spec, "volumes") {
        if volume::has_no_source(v) {
            set(v, "emptyDir", json!({}));
        }
        if let Some(image) = v.get_mut("image").filter(|i| i.is_object()) {
            let policy = pull_policy(s(image, "reference"));
            set_default(image, "pullPolicy", policy);
        }
    }
    for key in CONTAINERS {
        for c in list_mut(spec, key) {
            let policy = pull_policy(s(c, "image"));
            set_default(c, "imagePullPolicy", policy);
            if let Some(resources) = c.get_mut("resources") {
                round_lists(resources);
            }
        }
    }
    round(spec.get_mut("overhead"));
    if let Some(resources) = spec.get_mut("resources") {
        round_lists(resources);
    }
    // Either name of the service account gives the other.
    let name = if s(spec, "serviceAccountName").is_empty() { s(spec, "serviceAccount") } else { s(spec, "serviceAccountName") }.to_owned();
    if !name.is_empty() {
        set(spec, "serviceAccountName", name.clone());
        set(spec, "serviceAccount", name);
    }
}

/// Fields whose feature is off by default are dropped unless the old object has them.
pub fn drop_disabled(spec: &mut Value, old: Option<&Value>) {
    let null = Value::Null;
    let old = old.unwrap_or(&null);
    if !has(old, "schedulingGroup") {
        remove(spec, "schedulingGroup");
    }
    let sources = |v: &Value, key: &str| {
        list(v, "volumes").iter().any(|v| opt(v, "projected").is_some_and(|p| list(p, "sources").iter().any(|s| has(s, key))))
    };
    for key in ["clusterTrustBundle", "podCertificate"].into_iter().filter(|key| !sources(old, key)) {
        for volume in list_mut(spec, "volumes") {
            let Some(projected) = volume.get_mut("projected") else { continue };
            list_mut(projected, "sources").iter_mut().for_each(|source| remove(source, key));
        }
    }
    let stops = |v: &Value| CONTAINERS.iter().any(|k| list(v, k).iter().any(|c| opt(c, "lifecycle").is_some_and(|l| has(l, "stopSignal"))));
    if stops(old) {
        return;
    }
    for key in CONTAINERS {
        for c in list_mut(spec, key) {
            let Some(lifecycle) = c.get_mut("lifecycle").filter(|l| has(l, "stopSignal")) else { continue };
            remove(lifecycle, "stopSignal");
            if lifecycle.as_object().is_some_and(Map::is_empty) {
                remove(c, "lifecycle");
            }
        }
    }
}

/// Label keys whose values a pod's own labels give become requirements of the selectors beside them.
pub fn match_label_keys(pod: &mut Value) {
    let labels = map(pod.get("metadata").unwrap_or(&Value::Null), "labels").cloned().unwrap_or_default();
    let Some(spec) = pod.get_mut("spec") else { return };
    for constraint in list_mut(spec, "topologySpreadConstraints") {
        merge_keys(constraint, &labels);
    }
    let Some(affinity) = spec.get_mut("affinity").filter(|a| a.is_object()) else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = affinity.get_mut(kind) else { continue };
        for term in list_mut(terms, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_keys(term, &labels);
        }
        for weighted in list_mut(terms, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                merge_keys(term, &labels);
            }
        }
    }
}

/// `applyLabelKeysToLabelSelector`; without a selector there is nothing to narrow.
fn merge_keys(term: &mut Value, labels: &Map<String, Value>) {
    let mut more: Vec<Value> = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in list(term, field).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                more.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = term.get_mut("labelSelector").filter(|s| s.is_object() && !more.is_empty()) else { return };
    let mut all = list(selector, "matchExpressions").to_vec();
    all.extend(more);
    set(selector, "matchExpressions", all);
}

/// What only pods themselves get.
pub fn alone(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set_default(spec, "enableServiceLinks", true);
    let host_network = flag(spec, "hostNetwork");
    for key in ["containers", "initContainers"] {
        for c in list_mut(spec, key) {
            requests_from_limits(c);
            for port in list_mut(c, "ports").iter_mut().filter(|_| host_network) {
                if int0(port, "hostPort") == 0 {
                    let own = int0(port, "containerPort");
                    set(port, "hostPort", own);
                }
            }
        }
    }
    if has(spec, "resources") {
        huge_pages(spec);
        pod_level(spec);
    }
}

/// The pod's limits of huge pages, where it has requirements of its own: what its containers have together.
fn huge_pages(spec: &mut Value) {
    let of = |key: &str| spec.get("resources").and_then(|r| map(r, key)).cloned().unwrap_or_default();
    let (requests, mut limits) = (of("requests"), of("limits"));
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let containers = ["containers", "initContainers"].into_iter().flat_map(|key| list(spec, key));
    let named = containers.filter_map(|c| map(opt(c, "resources")?, "limits")).flat_map(Map::keys);
    let names: Vec<String> = named.filter(|name| name.starts_with("hugepages-") && !requests.contains_key(*name)).cloned().collect();
    for name in names {
        if let Some(sum) = aggregate(spec, "limits", &name) {
            limits.entry(name).or_insert_with(|| json!(sum.to_string()));
        }
    }
    if let Some(resources) = spec.get_mut("resources").filter(|_| !limits.is_empty()) {
        set(resources, "limits", limits);
    }
}

fn requests_from_limits(c: &mut Value) {
    let Some(resources) = c.get_mut("resources") else { return };
    let Some(limits) = map(resources, "limits").filter(|l| !l.is_empty()).cloned() else { return };
    let mut requests = map(resources, "requests").cloned().unwrap_or_default();
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    set(resources, "requests", requests);
}

/// Requests of the pod as a whole: sums of its containers' where they have any, else its own limit.
fn pod_level(spec: &mut Value) {
    let limits = spec.get("resources").and_then(|r| map(r, "limits")).cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let mut requests = spec.get("resources").and_then(|r| map(r, "requests")).cloned().unwrap_or_default();
    // Of what may be had beyond requests, the sum of the containers'; of the rest, and of what no container asks for, the limit.
    for name in ["cpu", "memory"].into_iter().filter(|name| !requests.contains_key(*name)).collect::<Vec<_>>() {
        if let Some(sum) = aggregate(spec, "requests", name) {
            requests.insert(name.to_owned(), json!(sum.to_string()));
        }
    }
    for (name, limit) in &limits {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    if let Some(resources) = spec.get_mut("resources") {
        set(resources, "requests", requests);
    }
}

fn round_lists(resources: &mut Value) {
    for key in ["limits", "requests"] {
        round(resources.get_mut(key));
    }
}

/// Amounts finer than thousandths are rounded up to them.
fn round(list: Option<&mut Value>) {
    let Some(Value::Object(entries)) = list else { return };
    round_entries(entries);
}

pub fn round_entries(entries: &mut Map<String, Value>) {
    for value in entries.values_mut() {
        if let Some(q) = quantity(value).filter(|q| !q.is_whole_milli()) {
            *value = json!(Quantity::milli(q.milli_value(), q.format()).to_string());
        }
    }
}

/// `Always` for the tag `latest` and for no tag at all; a name that cannot be read is `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    if image.is_empty() || image.trim() != image || image.contains(' ') {
        return "IfNotPresent";
    }
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) && !name.contains(['.', ':']) {
        return "IfNotPresent";
    }
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest => "IfNotPresent",
        None => "Always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn limits_become_requests_in_pods() {
        let mut v = json!({"hostNetwork": true, "containers": [{"image": "a", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "0.0001", "memory": "1Gi"}, "requests": {"memory": "1Mi"}}}]});
        spec(&mut v);
        alone(&mut v);
        let c = &v["containers"][0];
        assert_eq!(c["resources"]["requests"], json!({"cpu": "1m", "memory": "1Mi"}));
        assert_eq!(c["ports"][0]["hostPort"], 80);
        assert_eq!(c["imagePullPolicy"], "Always");
    }
}
