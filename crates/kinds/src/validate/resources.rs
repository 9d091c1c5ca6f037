//! Resource names, amounts and requirements.

use machinery::field::{Error, ErrorList, Path};
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::rules::{dns_label, go_slice, named, non_negative_quantity, quantity_at, resource_entries};
use super::tree::{entries, has, list, opt, s};

/// Names of resources without a domain.
const STANDARD: [&str; 20] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];
const QUOTA: [&str; 18] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
];

/// Only whole numbers of these.
const INTEGER: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_pages(name)
}

pub fn is_standard_container(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

pub fn is_standard_quota(name: &str) -> bool {
    QUOTA.contains(&name) || name == "services.nodeports" || is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// Without a domain, or with one of kubernetes.io.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && machinery::names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_integer(name: &str) -> bool {
    INTEGER.contains(&name) || is_extended(name)
}

/// `validateResourceName`.
pub fn name(value: &str, p: &Path<'_>, e: &mut ErrorList) {
    let problems = machinery::names::qualified_name(value);
    if !problems.is_empty() {
        named(p, value, problems, e);
        return;
    }
    if !value.contains('/') && !is_standard(value) {
        e.push(Error::invalid_str(p, value, "must be a standard resource type or fully qualified"));
    }
}

pub fn container_name(value: &str, p: &Path<'_>, e: &mut ErrorList) {
    // Unlike quota's, this check ends with what is no name at all.
    let qualified = machinery::names::qualified_name(value).is_empty();
    name(value, p, e);
    if !qualified {
        return;
    }
    if !value.contains('/') {
        if !is_standard_container(value) {
            e.push(Error::invalid_str(p, value, "must be a standard resource for containers"));
        }
    } else if !is_native(value) && !is_extended(value) {
        e.push(Error::invalid_str(p, value, "doesn't follow extended resource name standard"));
    }
}

/// `ValidateResourceQuantityValue`.
pub fn amount(name: &str, q: Quantity, p: &Path<'_>, e: &mut ErrorList) {
    non_negative_quantity(p, q, e);
    if is_integer(name) && q.milli_value() % 1000 != 0 {
        e.push(Error::invalid_str(p, &q.to_string(), "must be an integer"));
    }
}

/// Whether a request may be smaller than its limit.
fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Requirements of a container, or of a pod (`pod`).
pub fn requirements(v: &Value, pod: bool, claims_of_pod: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let (limits_at, requests_at) = (p.child("limits"), p.child("requests"));
    let mut huge_pages = false;
    let mut cpu_or_memory = false;
    let rule = if pod { pod_level_name } else { container_name };
    for (name, q) in resource_entries(v, "limits") {
        let at = limits_at.key(name);
        rule(name, &at, e);
        amount(name, q, &at, e);
        whole_pages(name, q, &at, e);
        huge_pages |= is_huge_pages(name);
        cpu_or_memory |= matches!(name, "cpu" | "memory");
    }
    for (name, q) in resource_entries(v, "requests") {
        let at = requests_at.key(name);
        rule(name, &at, e);
        amount(name, q, &at, e);
        match opt(v, "limits").and_then(|limits| quantity_at(limits, name)) {
            Some(limit) if q != limit && !overcommit_allowed(name) => {
                e.push(Error::invalid_str(&at, &q.to_string(), format!("must be equal to {name} limit of {limit}")));
            }
            Some(limit) if q > limit => {
                e.push(Error::invalid_str(&at, &q.to_string(), format!("must be less than or equal to {name} limit of {limit}")));
            }
            None if !overcommit_allowed(name) => {
                e.push(Error::required(&p.child("limits").key(name), "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
        whole_pages(name, q, &at, e);
        huge_pages |= is_huge_pages(name);
        cpu_or_memory |= matches!(name, "cpu" | "memory");
    }
    if huge_pages && !cpu_or_memory {
        e.push(Error::forbidden(p, "HugePages require cpu or memory"));
    }
    claims(v, claims_of_pod, &p.child("claims"), e);
}

fn pod_level_name(value: &str, p: &Path<'_>, e: &mut ErrorList) {
    let before = e.len();
    name(value, p, e);
    if e.len() == before && !matches!(value, "cpu" | "memory") && !is_huge_pages(value) {
        e.push(Error::not_supported(p, &json!(value), &["cpu", "hugepages-", "memory"]));
    }
}

fn whole_pages(name: &str, q: Quantity, p: &Path<'_>, e: &mut ErrorList) {
    let Some(page) = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()).filter(|s| s.sign() > 0) else { return };
    if q.value() % page.value() != 0 {
        e.push(Error::invalid_str(p, &q.to_string(), format!("must be an integer multiple of page size {page}")));
    }
}

fn claims(v: &Value, claims_of_pod: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, claim) in list(v, "claims").iter().enumerate() {
        let (at, name, request) = (p.index(i), s(claim, "name"), s(claim, "request"));
        if name.is_empty() {
            e.push(Error::required(&at, ""));
            continue;
        }
        if !request.is_empty() {
            dns_label(&at.child("request"), request, e);
        }
        if seen.contains(&(name, request)) {
            let value = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            e.push(Error::duplicate(&at, &json!(value)));
        } else if !claims_of_pod.contains(&name) {
            let mut error = Error::not_found(&at, &json!(name));
            error.detail = if claims_of_pod.is_empty() {
                "must be one of the names in pod.spec.resourceClaims which is empty".to_owned()
            } else {
                format!("must be one of the names in pod.spec.resourceClaims {}", go_slice(claims_of_pod))
            };
            e.push(error);
        }
        seen.push((name, request));
    }
}

/// `spec.resources`: requirements of the pod as a whole.
pub fn pod_level(spec: &Value, claims_of_pod: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(spec, "resources") else { return };
    let p = p.child("resources");
    // Also an empty list is set.
    if has(v, "claims") {
        e.push(Error::forbidden(&p.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    requirements(v, true, claims_of_pod, &p, e);
    for (name, limit) in resource_entries(v, "limits") {
        let mut sum = Quantity::ZERO;
        for c in list(spec, "containers") {
            let at = opt(c, "resources").and_then(|r| opt(r, "requests")).and_then(|r| quantity_at(r, name));
            sum += at.unwrap_or_default();
        }
        if sum > limit && !entries(v, "requests").any(|(k, _)| k == name) {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            e.push(Error::invalid_str(&p.child("limits").key(name), &limit.to_string(), text));
        }
    }
    for (name, request) in resource_entries(v, "requests") {
        let mut sum = Quantity::ZERO;
        for c in list(spec, "containers") {
            let at = opt(c, "resources").and_then(|r| opt(r, "requests")).and_then(|r| quantity_at(r, name));
            sum += at.unwrap_or_default();
        }
        if sum > request {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            e.push(Error::invalid_str(&p.child("requests").key(name), &request.to_string(), text));
        }
    }
}

/// How a container is resized. `restart` is the pod's restart policy.
pub fn resize_policy(container: &Value, restart: &str, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("resizePolicy");
    let mut seen: Vec<&str> = Vec::new();
    for (i, policy) in list(container, "resizePolicy").iter().enumerate() {
        let resource = s(policy, "resourceName");
        if seen.contains(&resource) {
            e.push(Error::duplicate(&p.index(i), &json!(resource)));
        }
        seen.push(resource);
        match resource {
            "cpu" | "memory" => {}
            "" => e.push(Error::required(&p, "")),
            other => e.push(Error::not_supported(&p, &json!(other), &["cpu", "memory"])),
        }
        match s(policy, "restartPolicy") {
            "NotRequired" => {}
            "RestartContainer" => {
                if restart == "Never" {
                    e.push(Error::invalid_str(&p, "RestartContainer", NEVER));
                }
            }
            "" => {
                e.push(Error::required(&p, ""));
                if restart == "Never" {
                    e.push(Error::invalid_str(&p, "", NEVER));
                }
            }
            other => {
                e.push(Error::not_supported(&p, &json!(other), &["NotRequired", "RestartContainer"]));
                if restart == "Never" {
                    e.push(Error::invalid_str(&p, other, NEVER));
                }
            }
        }
    }
}

const NEVER: &str = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
