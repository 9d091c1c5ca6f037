//! `pods/status`: what a kubelet or scheduler may report.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use crate::validate::rules::{IMMUTABLE, dns_label, dns_subdomain, one_of, qualified};
use crate::validate::tree::{at, has, int, int0, is_empty, keep, list, list_mut, opt, opt_s, s, set};

/// Clients that know no observed generations leave those of before (`preserveOldObservedGeneration`).
pub fn preserve_generations(new: &mut Value, old: &Value) {
    let (Some(ns), Some(os)) = (new.get_mut("status").filter(|v| v.is_object()), opt(old, "status")) else { return };
    if int0(ns, "observedGeneration") == 0 {
        keep(ns, os, "observedGeneration");
    }
    let mut known: Vec<(&str, i64)> = list(os, "conditions").iter().map(|c| (s(c, "type"), int0(c, "observedGeneration"))).collect();
    for condition in list_mut(ns, "conditions") {
        let Some(i) = known.iter().position(|(ty, _)| *ty == s(condition, "type")) else { continue };
        let (_, before) = known.remove(i);
        if int0(condition, "observedGeneration") == 0 && before != 0 {
            set(condition, "observedGeneration", before);
        }
    }
}

/// Fields whose feature is off by default are dropped unless the old object has them.
pub fn drop_disabled(new: &mut Value, old: &Value) {
    let used = |key: &str, at: &dyn Fn(&Value) -> bool| opt(old, "status").is_some_and(|st| list(st, key).iter().any(at));
    let mounts = |c: &Value| list(c, "volumeMounts").iter().any(|m| has(m, "volumeStatus"));
    let Some(status) = new.get_mut("status").filter(|v| v.is_object()) else { return };
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        if used(key, &mounts) {
            continue;
        }
        for c in list_mut(status, key) {
            list_mut(c, "volumeMounts").iter_mut().for_each(|m| crate::validate::tree::remove(m, "volumeStatus"));
        }
    }
    if !at(old, "status").is_some_and(|st| has(st, "nodeAllocatableResourceClaimStatuses")) {
        crate::validate::tree::remove(status, "nodeAllocatableResourceClaimStatuses");
    }
}

/// `ValidatePodStatusUpdate`.
pub fn validate(new: &Value, old: &Value) -> ErrorList {
    let mut e = ErrorList::new();
    let p = Path::new("status");
    let empty = json!({});
    let (ns, os) = (opt(new, "status").unwrap_or(&empty), opt(old, "status").unwrap_or(&empty));
    let spec = opt(new, "spec").unwrap_or(&empty);
    let nominated = s(ns, "nominatedNodeName");
    if !nominated.is_empty() {
        dns_subdomain(&p.child("nominatedNodeName"), nominated, &mut e);
    }
    observed(ns, &p, &mut e);
    conditions(ns, &p, &mut e);
    if s(ns, "qosClass") != s(os, "qosClass") {
        e.push(Error::invalid_str(&p.child("qosClass"), s(ns, "qosClass"), IMMUTABLE));
    }
    for (key, of) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", "ephemeralContainers"),
    ] {
        restarts(ns, os, spec, key, of, &p, &mut e);
    }
    claim_statuses(ns, spec, &p, &mut e);
    extended_claim(ns, spec, &p, &mut e);
    for (key, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(ns, key, single, &p, &mut e);
    }
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        users(ns, spec, key, &p, &mut e);
    }
    for (key, of) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        allocated(ns, spec, key, of, &p, &mut e);
    }
    let ephemeral = p.child("ephemeralContainerStatuses");
    for (i, status) in list(ns, "ephemeralContainerStatuses").iter().enumerate() {
        if !is_empty(status, "allocatedResourcesStatus") {
            let text = "must not be specified in container status";
            e.push(Error::forbidden(&ephemeral.index(i).child("allocatedResourcesStatus"), text));
        }
    }
    e
}

fn observed(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(n) = int(v, "observedGeneration").filter(|n| *n < 0) {
        e.push(Error::invalid(&p.child("observedGeneration"), &json!(n), "must be a non-negative integer"));
    }
}

fn conditions(ns: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("conditions");
    for (i, condition) in list(ns, "conditions").iter().enumerate() {
        let own = at.index(i);
        observed(condition, &own, e);
        if !matches!(s(condition, "type"), "PodScheduled" | "Ready" | "Initialized") {
            qualified(&own.child("Type"), s(condition, "type"), e);
        }
    }
}

fn claim_statuses(ns: &Value, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("resourceClaimStatuses");
    let mut seen: Vec<&str> = Vec::new();
    for (i, status) in list(ns, "resourceClaimStatuses").iter().enumerate() {
        let (own, name) = (at.index(i), s(status, "name"));
        if !list(spec, "resourceClaims").iter().any(|c| s(c, "name") == name) {
            e.push(Error::invalid_str(&own.child("name"), name, "must match the name of an entry in `spec.resourceClaims`"));
        }
        if seen.contains(&name) {
            e.push(Error::duplicate(&own.child("name"), &json!(name)));
        }
        seen.push(name);
        if let Some(claim) = opt_s(status, "resourceClaimName") {
            dns_subdomain(&own.child("resourceClaimName"), claim, e);
        }
    }
}

fn extended_claim(ns: &Value, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(status) = opt(ns, "extendedResourceClaimStatus") else { return };
    let at = p.child("extendedResourceClaimStatus");
    let mappings = at.child("requestMappings");
    if is_empty(status, "requestMappings") {
        e.push(Error::required(&mappings, "at least one request mapping is required"));
    }
    for (i, mapping) in list(status, "requestMappings").iter().enumerate() {
        let name = s(mapping, "containerName");
        if !list(spec, "initContainers").iter().chain(list(spec, "containers")).any(|c| s(c, "name") == name) {
            let text = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
            e.push(Error::invalid_str(&mappings.index(i).child("containerName"), name, text));
        }
        dns_label(&at.child("requestName"), s(mapping, "requestName"), e);
    }
    match s(status, "resourceClaimName") {
        "" => e.push(Error::required(&at.child("resourceClaimName"), "")),
        name => dns_subdomain(&at.child("resourceClaimName"), name, e),
    }
}

fn users(ns: &Value, spec: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let windows = opt(spec, "os").is_some_and(|os| s(os, "name") == "windows");
    let at_list = p.child(key);
    for (i, status) in list(ns, key).iter().enumerate() {
        let Some(linux) = at(status, "user.linux") else { continue };
        let own = at_list.index(i);
        let user = own.child("user");
        let here = user.child("linux");
        if windows {
            e.push(Error::forbidden(&here, "cannot be set for a windows pod"));
            continue;
        }
        let mut id = |path: &Path<'_>, n: i64| {
            if !(0..=i64::from(i32::MAX)).contains(&n) {
                e.push(Error::invalid(path, &json!(n), machinery::names::inclusive_range(0, i64::from(i32::MAX))));
            }
        };
        id(&here.child("uid"), int0(linux, "uid"));
        id(&here.child("gid"), int0(linux, "gid"));
        let groups = here.child("supplementalGroups");
        for (j, group) in list(linux, "supplementalGroups").iter().enumerate() {
            id(&groups.index(j), group.as_i64().unwrap_or(0));
        }
    }
}

fn allocated(ns: &Value, spec: &Value, key: &str, of: &str, p: &Path<'_>, e: &mut ErrorList) {
    const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
    let at_list = p.child(key);
    for (i, status) in list(ns, key).iter().enumerate() {
        let container = list(spec, of).iter().find(|c| s(c, "name") == s(status, "name"));
        let own = at_list.index(i);
        let resources_at = own.child("allocatedResourcesStatus");
        for (j, resource) in list(status, "allocatedResourcesStatus").iter().enumerate() {
            let here = resources_at.index(j);
            if container.is_some_and(|c| !asked(c, s(resource, "name"))) {
                let text = "must match one of the container's resource requests";
                e.push(Error::invalid_str(&here.child("name"), s(resource, "name"), text));
            }
            let items = here.child("resources");
            let mut seen: Vec<&str> = Vec::new();
            for (k, item) in list(resource, "resources").iter().enumerate() {
                let at_item = items.index(k);
                one_of(&at_item.child("health"), s(item, "health"), &HEALTH, e);
                if opt_s(item, "message") == Some("") {
                    e.push(Error::required(&at_item.child("message"), "must be non-empty if specified"));
                }
                let id = s(item, "resourceID");
                if seen.contains(&id) {
                    e.push(Error::duplicate(&at_item.child("resourceID"), &json!(id)));
                }
                seen.push(id);
            }
        }
    }
}

/// Whether a container asks for a resource by its name, or for a device claim.
fn asked(container: &Value, name: &str) -> bool {
    if let Some(claim) = name.strip_prefix("claim:") {
        return opt(container, "resources").is_some_and(|r| {
            list(r, "claims")
                .iter()
                .any(|c| claim == s(c, "name") || claim.split_once('/').is_some_and(|(n, r)| n == s(c, "name") && r == s(c, "request")))
        });
    }
    at(container, "resources.requests").is_some_and(|r| r.get(name).is_some())
}

/// A container that never restarts stays terminated.
fn restarts(ns: &Value, os: &Value, spec: &Value, key: &str, of: &str, p: &Path<'_>, e: &mut ErrorList) {
    // Ephemeral containers never restart.
    let policy = if of == "ephemeralContainers" { "Never" } else { s(spec, "restartPolicy") };
    if policy == "Always" {
        return;
    }
    let at_list = p.child(key);
    for (i, old) in list(os, key).iter().enumerate() {
        let ended = at(old, "state.terminated");
        let Some(ended) = ended else { continue };
        if policy == "OnFailure" && int(ended, "exitCode").unwrap_or(0) != 0 {
            continue;
        }
        let own = list(spec, of).iter().find(|c| s(c, "name") == s(old, "name"));
        if own.is_some_and(|c| s(c, "restartPolicy") == "Always" || !is_empty(c, "restartPolicyRules")) {
            continue;
        }
        let new = list(ns, key).iter().find(|n| s(n, "name") == s(old, "name"));
        if new.is_some_and(|n| at(n, "state.terminated").is_none()) {
            let at = at_list.index(i);
            e.push(Error::forbidden(&at.child("state"), "may not be transitioned to non-terminated state"));
        }
    }
}

fn addresses(ns: &Value, key: &str, single: &str, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child(key);
    let ips: Vec<&str> = list(ns, key).iter().map(|v| s(v, "ip")).collect();
    for (i, ip) in ips.iter().enumerate() {
        e.extend(machinery::names_net::ip_legacy(&at.index(i), ip, false));
    }
    if ips.len() > 1 {
        let families: Vec<bool> = ips.iter().map(|ip| machinery::names_net::is_v6_text(ip)).collect();
        if ips.len() > 2 || families[0] == families[1] {
            let text = "may specify no more than one IP for each IP family";
            e.push(crate::validate::go::invalid(&at, &ns[key], if key == "podIPs" { "[]core.v1.PodIP" } else { "[]core.v1.HostIP" }, text));
        }
    }
    if let (Some(first), false) = (ips.first(), s(ns, single).is_empty())
        && *first != s(ns, single)
    {
        e.push(Error::invalid_str(&at.index(0).child("ip"), first, format!("must be equal to `{single}`")));
    }
}
