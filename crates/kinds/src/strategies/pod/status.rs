//! `pods/status`: what a kubelet or scheduler may report.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use crate::validate::rules::{IMMUTABLE, Seen, dns_label, dns_subdomain, legacy_ip, one_of, qualified};
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
    crate::validate::template::annotation_updates(new, old, &mut e);
    conditions(ns, &p, &mut e);
    let nominated = s(ns, "nominatedNodeName");
    if !nominated.is_empty() && nominated != s(os, "nominatedNodeName") {
        let at = p.child("nominatedNodeName");
        dns_subdomain(&at, nominated, &mut e);
        if opt(old, "spec").is_some_and(|spec| !s(spec, "nodeName").is_empty()) {
            e.push(Error::forbidden(&at, "may not be set on pods that are already bound to a node"));
        }
    }
    observed(ns, &p, &mut e);
    if s(ns, "qosClass") != s(os, "qosClass") {
        e.push(Error::invalid_str(&p.child("qosClass"), s(ns, "qosClass"), IMMUTABLE));
    }
    for (key, of) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", "ephemeralContainers"),
    ] {
        restarts(ns, os, opt(old, "spec").unwrap_or(&empty), key, of, &p, &mut e);
    }
    claim_statuses(ns, spec, &p, &mut e);
    extended_claim(ns, spec, &p, &mut e);
    for key in ["podIPs", "hostIPs"] {
        addresses(ns, os, key, &p, &mut e);
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
    let mut seen = Seen::default();
    for (i, status) in list(ns, "resourceClaimStatuses").iter().enumerate() {
        let (own, name) = (at.index(i), s(status, "name"));
        if !list(spec, "resourceClaims").iter().any(|c| s(c, "name") == name) {
            e.push(Error::invalid_str(&own.child("name"), name, "must match the name of an entry in `spec.resourceClaims`"));
        }
        if seen.again(name) {
            e.push(Error::duplicate(&own.child("name"), &json!(name)));
        }
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
    const KEYS: [&str; 3] = ["containerName", "resourceName", "requestName"];
    let mut seen = Seen::default();
    for (i, mapping) in list(status, "requestMappings").iter().enumerate() {
        let own = mappings.index(i);
        let (name, resource) = (s(mapping, "containerName"), s(mapping, "resourceName"));
        match list(spec, "containers").iter().chain(list(spec, "initContainers")).find(|c| s(c, "name") == name) {
            None => {
                let text = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                e.push(Error::invalid_str(&own.child("containerName"), name, text));
            }
            Some(c) if crate::validate::tree::at(c, "resources.requests").is_some_and(|r| r.get(resource).is_some()) => {}
            Some(_) => {
                let text = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                e.push(Error::invalid_str(&own.child("resourceName"), resource, text));
            }
        }
        dns_label(&at.child("requestName"), s(mapping, "requestName"), e);
        if seen.again(KEYS.map(|key| s(mapping, key))) {
            e.extend(KEYS.iter().map(|key| Error::duplicate(&own.child(key), &json!(s(mapping, key)))));
        }
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
            let name = s(resource, "name");
            if container.is_some_and(|c| !asked(c, name)) {
                let text = if name.starts_with("claim:") {
                    "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
                } else {
                    "must match one of the container's resource requests"
                };
                e.push(Error::invalid_str(&here.child("name"), name, text));
            }
            let items = here.child("resources");
            let mut seen = Seen::default();
            for (k, item) in list(resource, "resources").iter().enumerate() {
                let at_item = items.index(k);
                one_of(&at_item.child("health"), s(item, "health"), &HEALTH, e);
                if opt_s(item, "message") == Some("") {
                    e.push(Error::required(&at_item.child("message"), "must be non-empty if specified"));
                }
                let id = s(item, "resourceID");
                if seen.again(id) {
                    e.push(Error::duplicate(&at_item.child("resourceID"), &json!(id)));
                }
            }
        }
    }
}

/// Whether a container asks for a resource by its name, or for a device claim.
fn asked(container: &Value, name: &str) -> bool {
    let Some(claim) = name.strip_prefix("claim:") else {
        return at(container, "resources.requests").is_some_and(|r| r.get(name).is_some());
    };
    let named = |c: &Value| match s(c, "request") {
        "" => claim == s(c, "name"),
        request => claim.split_once('/') == Some((s(c, "name"), request)),
    };
    opt(container, "resources").is_some_and(|r| list(r, "claims").iter().any(named))
}

/// A container that never restarts stays terminated. Where a rule restarts all containers, any may run again.
fn restarts(ns: &Value, os: &Value, spec: &Value, key: &str, of: &str, p: &Path<'_>, e: &mut ErrorList) {
    let ephemeral = of == "ephemeralContainers";
    let all_restart = |c: &Value| list(c, "restartPolicyRules").iter().any(|rule| s(rule, "action") == "RestartAllContainers");
    if !ephemeral && ["containers", "initContainers"].iter().any(|key| list(spec, key).iter().any(all_restart)) {
        return;
    }
    let at_list = p.child(key);
    for (i, old) in list(os, key).iter().enumerate() {
        let Some(ended) = at(old, "state.terminated") else { continue };
        let new = list(ns, key).iter().find(|n| s(n, "name") == s(old, "name") && at(n, "state.terminated").is_none());
        let own = list(spec, of).iter().find(|c| s(c, "name") == s(old, "name"));
        let allowed = !ephemeral && own.is_some_and(|c| should_restart(c, spec, int(ended, "exitCode").unwrap_or(0)));
        if new.is_some() && !allowed {
            e.push(Error::forbidden(&at_list.index(i).child("state"), "may not be transitioned to non-terminated state"));
        }
    }
}

/// `ContainerShouldRestart`: by its rules, else its own policy, else the pod's.
fn should_restart(container: &Value, spec: &Value, exit_code: i64) -> bool {
    let fits = |rule: &Value| {
        let Some(codes) = opt(rule, "exitCodes") else { return false };
        let named = list(codes, "values").iter().any(|code| code.as_i64() == Some(exit_code));
        match s(codes, "operator") {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    };
    if list(container, "restartPolicyRules").iter().any(fits) {
        return true;
    }
    match opt_s(container, "restartPolicy").unwrap_or_else(|| s(spec, "restartPolicy")) {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

/// A pod's addresses, and its node's, whose single field must be the first of the list.
fn addresses(ns: &Value, os: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child(key);
    let of = |status| list(status, key).iter().map(|v| s(v, "ip")).collect::<Vec<_>>();
    let (ips, kept) = (of(ns), of(os));
    if let Some(first) = ips.first().filter(|first| key == "hostIPs" && **first != s(ns, "hostIP")) {
        e.push(Error::invalid_str(&at.index(0).child("ip"), first, "must be equal to `hostIP`"));
    }
    for (i, ip) in ips.iter().enumerate() {
        legacy_ip(&at.index(i), ip, &kept, e);
    }
    if ips.len() < 2 {
        return;
    }
    if let Some(bad) = ips.iter().position(|ip| machinery::names_net::parse_ip_sloppy(ip).is_none()) {
        e.push(Error::internal(&at, format!("failed to check for dual stack with error:invalid IP[{bad}]: {}", ips[bad])));
    }
    let families: Vec<bool> = ips.iter().map(|ip| machinery::names_net::is_v6_text(ip)).collect();
    if ips.len() > 2 || families[0] == families[1] {
        let text = "may specify no more than one IP for each IP family";
        e.push(crate::validate::go::invalid(&at, &ns[key], if key == "podIPs" { "[]core.v1.PodIP" } else { "[]core.v1.HostIP" }, text));
    }
}

/// Of `podIP` and `podIPs`, kubelets of before knew only the first, and it wins (`Convert_v1_PodStatus_To_core_PodStatus`).
pub fn link_addresses(status: &mut Value) {
    let own = s(status, "podIP").to_owned();
    let first = list(status, "podIPs").first().map(|v| s(v, "ip").to_owned());
    match first {
        Some(first) if own.is_empty() => set(status, "podIP", first),
        Some(first) if first == own => {}
        None if own.is_empty() => {}
        _ => set(status, "podIPs", json!([{ "ip": own }])),
    }
}
