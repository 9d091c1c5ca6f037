//! Texts of `Warning` headers that many kinds share. Called by strategies' `warnings`; nothing here refuses anything.

use machinery::field::{Path, go_quote};
use machinery::names::dns1123_label;
use serde_json::Value;

use crate::validate::tree::{has, int, int0, list, opt, s};

/// Labels that have a successor.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    ("failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, text)| *text)
}

/// For kinds whose pods are called after them.
pub fn pod_names(object: &Value) -> Option<String> {
    name(object, "this is used in Pod names and hostnames")
}

/// For a pod itself.
pub fn host_name(object: &Value) -> Option<String> {
    name(object, "this is used in the Pod's hostname")
}

fn name(object: &Value, used: &str) -> Option<String> {
    let problems = dns1123_label(machinery::object::name(object));
    let because = "which can result in surprising behavior; a DNS label is recommended";
    (!problems.is_empty()).then(|| format!("metadata.name: {used}, {because}: [{}]", problems.join(" ")))
}

/// Of a pod or a pod template, which holds a `spec`; `at` is the path of that holder, `None` for a pod.
pub fn pod(holder: &Value, at: Option<&Path<'_>>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = opt(holder, "spec") else { return out };
    let root = Path::new("spec");
    let below = at.map(|p| p.child("spec"));
    let p = below.as_ref().unwrap_or(&root);
    for (key, _) in opt(spec, "nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if let Some(text) = old_label(key) {
            out.push(format!("{}: {text}", p.child("nodeSelector").key(key)));
        }
    }
    spread(spec, p, &mut out);
    pull_secrets(spec, p, &mut out);
    for key in ["initContainers", "containers"] {
        let at = p.child(key);
        for (i, container) in list(spec, key).iter().enumerate() {
            environment(container, &at.index(i), &mut out);
            ports(container, &at.index(i), &mut out);
        }
    }
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
        let field = p.child("terminationGracePeriodSeconds");
        out.push(format!("{field}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    affinity(spec, p, &mut out);
    out
}

fn null_selector(field: &Path<'_>) -> String {
    format!("{field}: a null labelSelector results in matching no pod")
}

fn spread(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("topologySpreadConstraints");
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = all.index(i);
        if let Some(text) = old_label(s(constraint, "topologyKey")) {
            out.push(format!("{}: {} is {text}", at.child("topologyKey"), s(constraint, "topologyKey")));
        }
        if !has(constraint, "labelSelector") {
            out.push(null_selector(&at.child("labelSelector")));
        }
    }
}

fn pull_secrets(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("imagePullSecrets");
    let mut seen: Vec<&str> = Vec::new();
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        let (at, name) = (all.index(i), s(secret, "name"));
        if name.is_empty() {
            out.push(format!("{}: invalid empty name {}", at.child("name"), go_quote(name)));
        } else if seen.contains(&name) {
            out.push(format!("{}: duplicate name {}", at.child("name"), go_quote(name)));
        }
        seen.push(name);
    }
}

fn environment(container: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("env");
    let mut seen: Vec<&str> = Vec::new();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let name = s(variable, "name");
        if seen.contains(&name) {
            let at = all.index(i);
            out.push(format!("{at}: hides previous definition of {}, which may be dropped when using apply", go_quote(name)));
        }
        seen.push(name);
    }
}

fn ports(container: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("ports");
    let given = list(container, "ports");
    for (i, port) in given.iter().enumerate() {
        let at = all.index(i);
        for (j, other) in given[..i].iter().enumerate() {
            if int0(port, "containerPort") != int0(other, "containerPort") || s(port, "protocol") != s(other, "protocol") {
                continue;
            }
            let earlier = all.index(j);
            let (host, other_host) = (int0(port, "hostPort"), int0(other, "hostPort"));
            let (ip, other_ip) = (s(port, "hostIP"), s(other, "hostIP"));
            if ip == other_ip && host == other_host {
                out.push(format!("{at}: duplicate port definition with {earlier}"));
            } else if host == 0 || other_host == 0 {
                out.push(format!("{at}: overlapping port definition with {earlier}"));
            } else if (ip.is_empty() || other_ip.is_empty()) && host == other_host {
                out.push(format!("{at}: dangerously ambiguous port definition with {earlier}"));
            }
        }
    }
}

fn affinity(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let Some(affinity) = opt(spec, "affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = opt(affinity, kind) else { continue };
        let root = p.child("affinity");
        let at = root.child(kind);
        for (key, within) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
        ] {
            let all = at.child(key);
            for (i, item) in list(terms, key).iter().enumerate() {
                let at = all.index(i);
                let missing = match within {
                    None => !has(item, "labelSelector"),
                    Some(inner) => !opt(item, inner).is_some_and(|t| has(t, "labelSelector")),
                };
                if missing {
                    out.push(match within {
                        None => null_selector(&at.child("labelSelector")),
                        Some(inner) => null_selector(&at.child(inner).child("labelSelector")),
                    });
                }
            }
        }
    }
}

/// Of a Service.
pub fn service(object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = opt(object, "spec") else { return out };
    if opt(object, "metadata").and_then(|m| opt(m, "annotations")).is_some_and(|a| has(a, "service.kubernetes.io/topology-aware-hints")) {
        let (old, new) = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode");
        out.push(format!("annotation {old} is deprecated, please use {new} instead"));
    }
    if !list(spec, "externalIPs").is_empty() {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if s(spec, "clusterIP") == "None" {
        for key in ["loadBalancerIP", "externalIPs"] {
            if !crate::validate::tree::is_empty(spec, key) {
                out.push(format!("spec.{key} is ignored for headless services"));
            }
        }
        if !matches!(s(spec, "sessionAffinity"), "" | "None") {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    if s(spec, "type") != "ExternalName" && !s(spec, "externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if s(spec, "trafficDistribution") == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    out
}

/// Of volumes and claims: annotations that have become fields.
pub fn storage(object: &Value) -> Vec<String> {
    const OLD: [(&str, &str); 2] = [
        ("volume.beta.kubernetes.io/storage-class", "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    let Some(given) = opt(object, "metadata").and_then(|m| opt(m, "annotations")) else { return Vec::new() };
    OLD.iter().filter(|(key, _)| has(given, key)).map(|(key, text)| format!("metadata.annotations[{key}]: {text}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_named_by_its_path() {
        let template = json!({"spec": {"containers": [
            {"name": "c", "env": [{"name": "A"}, {"name": "A"}], "ports": [{"containerPort": 80}, {"containerPort": 80, "hostPort": 80}]}],
            "terminationGracePeriodSeconds": -1}});
        let spec = Path::new("spec");
        assert_eq!(
            pod(&template, Some(&spec.child("template"))),
            [
                "spec.template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
                "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }

    #[test]
    fn plain_objects_are_not_warned_of() {
        assert!(pod(&json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}), None).is_empty());
        assert!(service(&json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}})).is_empty());
        assert_eq!(service(&json!({"spec": {"externalIPs": ["1.2.3.4"]}})).len(), 1);
        assert!(pod_names(&json!({"metadata": {"name": "a"}})).is_none());
        assert_eq!(
            pod_names(&json!({"metadata": {"name": "a.b"}})).unwrap_or_default(),
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
        );
    }
}
