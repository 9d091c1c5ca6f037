//! Resource names, amounts and requirements.

use std::collections::BTreeSet;

use machinery::field::{Error, ErrorList, Path};
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::rules::{Seen, dns_label, named, non_negative_quantity, quantity_at, resource_entries};
use super::tree::{has, list, opt, s};

/// Names of resources without a domain that a quota may limit; `storage` is the only other.
const QUOTA: [&str; 19] = [
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
    QUOTA.contains(&name) || name == "storage" || is_huge_pages(name)
}

pub fn is_standard_container(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

pub fn is_standard_quota(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-")
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
pub fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Requirements of a container, or of a pod (`pod`).
pub fn requirements(v: &Value, pod: bool, claims_of_pod: &BTreeSet<&str>, p: &Path<'_>, e: &mut ErrorList) {
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
                e.push(Error::invalid_str(&requests_at, &q.to_string(), format!("must be equal to {name} limit of {limit}")));
            }
            Some(limit) if q > limit => {
                e.push(Error::invalid_str(&requests_at, &q.to_string(), format!("must be less than or equal to {name} limit of {limit}")));
            }
            None if !overcommit_allowed(name) => {
                e.push(Error::required(&limits_at, "Limit must be set for non overcommitable resources"));
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
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let page = Quantity::parse(size).ok().filter(|page| page.sign() > 0 && page.milli_value() % 1000 == 0);
    if page.is_none_or(|page| q.value() % page.value() != 0) {
        e.push(Error::invalid_str(p, &q.to_string(), format!("{q} is not positive integer multiple of {name}")));
    }
}

/// An error lists what would have been right: so many names, and no more than one of them once there are many errors.
const LISTED_MAX: usize = 256;
const LISTING_ERRORS_MAX: usize = 1000;

fn claims(v: &Value, claims_of_pod: &BTreeSet<&str>, p: &Path<'_>, e: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, claim) in list(v, "claims").iter().enumerate() {
        let (at, name, request) = (p.index(i), s(claim, "name"), s(claim, "request"));
        if name.is_empty() {
            e.push(Error::required(&at, ""));
            continue;
        }
        claim_once((name, request), &mut seen, &at, e);
        if !claims_of_pod.contains(name) {
            let mut error = Error::not_found(&at, &json!(name));
            let names = claims_of_pod.iter().copied().filter(|name| !name.is_empty());
            let known: Vec<&str> = names.take(if e.len() < LISTING_ERRORS_MAX { LISTED_MAX } else { 1 }).collect();
            error.detail = if known.is_empty() {
                "must be one of the names in pod.spec.resourceClaims which is empty".to_owned()
            } else {
                format!("must be one of the names in pod.spec.resourceClaims: {}", known.join(", "))
            };
            e.push(error);
        }
    }
}

/// A claim as a whole takes in all its requests, so none of them can be named beside it.
fn claim_once<'a>(key: (&'a str, &'a str), seen: &mut BTreeSet<(&'a str, &'a str)>, p: &Path<'_>, e: &mut ErrorList) {
    let (name, request) = key;
    if seen.contains(&(name, "")) {
        e.push(Error::duplicate(p, &json!(name)));
        return;
    }
    if !request.is_empty() {
        dns_label(&p.child("request"), request, e);
        if seen.contains(&key) {
            e.push(Error::duplicate(p, &json!(format!("{name}/{request}"))));
        }
    }
    if request.is_empty() {
        let overlapping = seen.range((name, "")..).take_while(|(other, _)| *other == name).count();
        e.extend((0..overlapping).map(|_| Error::duplicate(p, &json!(name))));
    }
    seen.insert(key);
}

/// `spec.resources`: requirements of the pod as a whole.
pub fn pod_level(spec: &Value, claims_of_pod: &BTreeSet<&str>, p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(spec, "resources") else { return };
    let p = p.child("resources");
    if opt(spec, "os").is_some_and(|os| s(os, "name") == "windows") {
        e.push(Error::forbidden(&p, "may not be set for a windows pod"));
        return;
    }
    // Also an empty list is set.
    if has(v, "claims") {
        e.push(Error::forbidden(&p.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    requirements(v, true, claims_of_pod, &p, e);
    pod_level_consistency(spec, v, &p, e);
}

/// `validatePodResourceConsistency`: what the pod has must be enough for its containers.
fn pod_level_consistency(spec: &Value, v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (requests_at, limits_at, containers_at) = (p.child("requests"), p.child("limits"), p.child("containers"));
    for (name, request) in resource_entries(v, "requests") {
        if let Some(sum) = aggregate(spec, "requests", name).filter(|sum| *sum > request) {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            e.push(Error::invalid_str(&requests_at.key(name), &request.to_string(), text));
        }
    }
    for (name, limit) in resource_entries(v, "limits").filter(|(name, _)| is_huge_pages(name)) {
        if let Some(sum) = aggregate(spec, "limits", name).filter(|sum| *sum > limit) {
            let text = format!("must be greater than or equal to aggregate container limits of {sum}");
            e.push(Error::invalid_str(&limits_at.key(name), &limit.to_string(), text));
        }
    }
    for (i, c) in list(spec, "containers").iter().enumerate() {
        for (name, own) in opt(c, "resources").into_iter().flat_map(|r| resource_entries(r, "limits")) {
            let limit = opt(v, "limits").and_then(|limits| quantity_at(limits, name));
            if let Some(limit) = limit.filter(|limit| own > *limit) {
                let text = format!("must be less than or equal to pod limits of {limit}");
                e.push(Error::invalid_str(&containers_at.index(i).key(name).child("limits"), &own.to_string(), text));
            }
        }
    }
}

/// What containers need at once: the regular ones and sidecars together, or more while init containers run one by one
/// (`AggregateContainerRequests`, `AggregateContainerLimits`). `None` where no container says anything.
pub fn aggregate(spec: &Value, key: &str, name: &str) -> Option<Quantity> {
    let of = |c: &Value| opt(c, "resources").and_then(|r| opt(r, key)).and_then(|r| quantity_at(r, name));
    let mut sum: Option<Quantity> = list(spec, "containers").iter().filter_map(of).reduce(|a, b| a + b);
    let (mut sidecars, mut peak): (Option<Quantity>, Option<Quantity>) = (None, None);
    for c in list(spec, "initContainers") {
        let mut running = of(c);
        if s(c, "restartPolicy") == "Always" {
            sum = plus(sum, running);
            sidecars = plus(sidecars, running);
            running = sidecars;
        } else if running.is_some() {
            running = plus(running, sidecars);
        }
        peak = peak.max(running);
    }
    sum.max(peak)
}

fn plus(a: Option<Quantity>, b: Option<Quantity>) -> Option<Quantity> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// How a container is resized. `restart` is the pod's restart policy.
pub fn resize_policy(container: &Value, restart: &str, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("resizePolicy");
    let mut seen = Seen::default();
    for (i, policy) in list(container, "resizePolicy").iter().enumerate() {
        let resource = s(policy, "resourceName");
        if seen.again(resource) {
            e.push(Error::duplicate(&p.index(i), &json!(resource)));
        }
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
