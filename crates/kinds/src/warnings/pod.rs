//! Warnings about pods and pod templates, in upstream's order (`warningsForPodSpecAndMeta`).

use machinery::field::{Path, go_quote};
use serde_json::Value;

use super::{address, fractional, node_term, old_label};
use crate::validate::rules::Seen;
use crate::validate::tree::{at as at_path, has, int, int0, list, opt, s};

/// Annotations that have become fields.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_TEXT: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Volume plugins that are gone or going.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// The containers of a spec in the order upstream visits them.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Of a pod or a pod template, which holds a `spec`; `at` is the path of that holder, `None` for a pod.
pub fn pod(holder: &Value, at: Option<&Path<'_>>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = opt(holder, "spec") else { return out };
    let (root, root_meta) = (Path::new("spec"), Path::new("metadata"));
    let (below, meta_below) = (at.map(|p| p.child("spec")), at.map(|p| p.child("metadata")));
    let (p, meta) = (below.as_ref().unwrap_or(&root), meta_below.as_ref().unwrap_or(&root_meta));
    for (key, _) in opt(spec, "nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if let Some(text) = old_label(key) {
            out.push(format!("{}: {text}", p.child("nodeSelector").key(key)));
        }
    }
    node_affinity(spec, p, &mut out);
    spread(spec, p, &mut out);
    let annotations = meta.child("annotations");
    let given = at_path(holder, "metadata.annotations").unwrap_or(&Value::Null);
    for (key, text) in OLD_ANNOTATIONS.iter().filter(|(key, _)| has(given, key)) {
        out.push(format!("{}: {text}", annotations.key(key)));
    }
    volumes(spec, p, &mut out);
    host_aliases(spec, p, &mut out);
    pull_secrets(spec, p, &mut out);
    for name in ["memory", "ephemeral-storage"] {
        fractional(spec, "overhead", name, p, &mut out);
    }
    let of_pod = opt(spec, "securityContext").unwrap_or(&Value::Null);
    if has(given, SECCOMP_POD) && !has(of_pod, "seccompProfile") {
        out.push(format!("{}: {SECCOMP_TEXT}", annotations.key(SECCOMP_POD)));
    }
    for key in CONTAINERS {
        let all = p.child(key);
        for (i, container) in list(spec, key).iter().enumerate() {
            profiles(container, given, &annotations, at.is_some().then_some(of_pod), &mut out);
            let own = all.index(i);
            let resources = own.child("resources");
            let amounts = opt(container, "resources").unwrap_or(&Value::Null);
            for name in ["memory", "ephemeral-storage"] {
                for list in ["limits", "requests"] {
                    fractional(amounts, list, name, &resources, &mut out);
                }
            }
            environment(container, &own, &mut out);
        }
    }
    ports(spec, p, &mut out);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
        let field = p.child("terminationGracePeriodSeconds");
        out.push(format!("{field}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    affinity(spec, p, &mut out);
    addresses(spec, p, &mut out);
    out
}

fn node_affinity(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let Some(affinity) = at_path(spec, "affinity.nodeAffinity") else { return };
    let root = p.child("affinity");
    let at = root.child("nodeAffinity");
    let required = at.child("requiredDuringSchedulingIgnoredDuringExecution");
    let terms = required.child("nodeSelectorTerms");
    let of_required = opt(affinity, "requiredDuringSchedulingIgnoredDuringExecution").unwrap_or(&Value::Null);
    for (i, term) in list(of_required, "nodeSelectorTerms").iter().enumerate() {
        node_term(term, &terms.index(i), out);
    }
    let preferred = at.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, weighted) in list(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        if let Some(term) = opt(weighted, "preference") {
            node_term(term, &preferred.index(i).child("preference"), out);
        }
    }
}

fn volumes(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("volumes");
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let at = all.index(i);
        for (key, text) in OLD_VOLUMES.iter().filter(|(key, _)| has(volume, key)) {
            out.push(format!("{}: {text}", at.child(key)));
        }
        if let Some(claim) = at_path(volume, "ephemeral.volumeClaimTemplate.spec") {
            let ephemeral = at.child("ephemeral");
            let template = ephemeral.child("volumeClaimTemplate");
            super::claim_spec(claim, &template.child("spec"), out);
        }
    }
}

fn host_aliases(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let (all, given) = (p.child("hostAliases"), list(spec, "hostAliases"));
    let mut seen = Seen::default();
    for (i, alias) in given.iter().enumerate() {
        if seen.again(s(alias, "ip")) {
            out.push(format!("{}: duplicate ip {}", all.index(i).child("ip"), go_quote(s(alias, "ip"))));
        }
    }
}

/// Annotations of a container's profiles without the field; AppArmor's only in templates (`of_pod` is the pod's security context).
fn profiles(container: &Value, given: &Value, annotations: &Path<'_>, of_pod: Option<&Value>, out: &mut Vec<String>) {
    let own = opt(container, "securityContext").unwrap_or(&Value::Null);
    let key = format!("{SECCOMP_CONTAINER}{}", s(container, "name"));
    if has(given, &key) && !has(own, "seccompProfile") {
        out.push(format!("{}: {SECCOMP_TEXT}", annotations.key(&key)));
    }
    let key = format!("{APPARMOR_CONTAINER}{}", s(container, "name"));
    let covered = |pod: &Value| opt(pod, "appArmorProfile").is_some_and(|profile| says(profile) == s(given, &key));
    if has(given, &key) && !has(own, "appArmorProfile") && of_pod.is_some_and(|pod| !covered(pod)) {
        out.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", annotations.key(&key)));
    }
}

/// An AppArmor profile as the annotation says it.
fn says(profile: &Value) -> String {
    match s(profile, "type") {
        "RuntimeDefault" => "runtime/default".to_owned(),
        "Unconfined" => "unconfined".to_owned(),
        _ => format!("localhost/{}", s(profile, "localhostProfile")),
    }
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
    let mut seen = Seen::default();
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        let (at, name) = (all.index(i), s(secret, "name"));
        if seen.again(name) {
            out.push(format!("{}: duplicate name {}", at.child("name"), go_quote(name)));
        }
    }
    for (i, _) in list(spec, "imagePullSecrets").iter().enumerate().filter(|(_, secret)| s(secret, "name").is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", all.index(i).child("name")));
    }
}

/// A repeated variable that does not build on the one before.
fn environment(container: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("env");
    let mut seen = Seen::default();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let name = s(variable, "name");
        let builds_on = !has(variable, "valueFrom") && s(variable, "value").contains(&format!("$({name})"));
        if seen.again(name) && !builds_on {
            let at = all.index(i);
            out.push(format!("{at}: hides previous definition of {}, which may be dropped when using apply", go_quote(name)));
        }
    }
}

/// Ports of all containers share one address.
fn ports(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let mut known: Vec<(String, &Value)> = Vec::new();
    for key in CONTAINERS {
        let containers = p.child(key);
        for (i, container) in list(spec, key).iter().enumerate() {
            let own = containers.index(i);
            let all = own.child("ports");
            for (j, port) in list(container, "ports").iter().enumerate() {
                let at = all.index(j).to_string();
                if !s(port, "hostIP").is_empty() && int0(port, "hostPort") == 0 {
                    out.push(format!("{at}: hostIP set without hostPort: {}", port_text(port)));
                }
                for (earlier, other) in &known {
                    overlap(&at, port, earlier, other, out);
                }
                known.push((at, port));
            }
        }
    }
}

/// A port as Go prints it with `%+v`.
fn port_text(port: &Value) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        s(port, "name"),
        int0(port, "hostPort"),
        int0(port, "containerPort"),
        s(port, "protocol"),
        s(port, "hostIP")
    )
}

fn overlap(at: &str, port: &Value, earlier: &str, other: &Value, out: &mut Vec<String>) {
    if int0(port, "containerPort") != int0(other, "containerPort") || s(port, "protocol") != s(other, "protocol") {
        return;
    }
    let (host, other_host) = (int0(port, "hostPort"), int0(other, "hostPort"));
    let (ip, other_ip) = (s(port, "hostIP"), s(other, "hostIP"));
    if ip == other_ip && host == other_host {
        out.push(format!("{at}: duplicate port definition with {earlier}"));
    } else if host == 0 || other_host == 0 {
        out.push(format!("{at}: overlapping port definition with {earlier}"));
    } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
        out.push(format!("{at}: dangerously ambiguous port definition with {earlier}"));
    }
}

/// Addresses in forms that will not be taken for ever.
fn addresses(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let config = p.child("dnsConfig");
    let servers = config.child("nameservers");
    let of_config = opt(spec, "dnsConfig").unwrap_or(&Value::Null);
    for (i, server) in list(of_config, "nameservers").iter().enumerate() {
        address(server.as_str().unwrap_or(""), &servers.index(i), out);
    }
    let aliases = p.child("hostAliases");
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        address(s(alias, "ip"), &aliases.index(i).child("ip"), out);
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
