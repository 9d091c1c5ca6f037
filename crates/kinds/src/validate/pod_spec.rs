//! `ValidatePodSpec`: the spec of a pod, alone or in a template. Order is upstream's, because clients see it.

use std::collections::BTreeSet;

use machinery::field::{Error, ErrorList, Path};
use machinery::names_net;
use serde_json::{Value, json};

use super::container::{self, Pod};
use super::rules::{Seen, dns_label, dns_subdomain, in_range, labels, named, one_of, qualified};
use super::tree::{flag, flag_is, has, int, is_empty, list, map, opt, opt_s, s, strings};
use super::{affinity, go, os, resources, scheduling, security, volume};

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

/// `alone`: a pod itself, not a template.
pub fn pod_spec(spec: &Value, meta: &Value, alone: bool, p: &Path<'_>, e: &mut ErrorList) {
    volume::volumes(spec, meta, p, e);
    resource_claims(spec, meta, alone, p, e);
    let pod = Pod {
        spec,
        volumes: volume::mountable(spec),
        restart_policy: s(spec, "restartPolicy"),
        os: opt(spec, "os").map_or("", |os| s(os, "name")),
        grace_seconds: int(spec, "terminationGracePeriodSeconds").unwrap_or(0),
        host_users: !flag_is(spec, "hostUsers", false),
        claims: list(spec, "resourceClaims").iter().map(|c| s(c, "name")).collect(),
        alone,
    };
    let mut names = BTreeSet::new();
    container::regular(&pod, p, &mut names, e);
    container::init(&pod, p, &mut names, e);
    container::ephemeral(&pod, p, &mut names, e);
    resources::pod_level(spec, &pod.claims, p, e);
    security::host_network(spec, alone, p, e);
    match s(spec, "restartPolicy") {
        "" => e.push(Error::required(&p.child("restartPolicy"), "")),
        policy => one_of(&p.child("restartPolicy"), policy, &RESTART_POLICIES, e),
    }
    match s(spec, "dnsPolicy") {
        "" => e.push(Error::required(&p.child("dnsPolicy"), "")),
        policy => one_of(&p.child("dnsPolicy"), policy, &DNS_POLICIES, e),
    }
    labels(spec, "nodeSelector", p, e);
    security::pod(spec, p, e);
    affinity::affinity(spec, p, e);
    dns_config(spec, p, e);
    let at = p.child("readinessGates");
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        qualified(&at.index(i).child("conditionType"), s(gate, "conditionType"), e);
    }
    scheduling::scheduling_gates(spec, p, e);
    scheduling::topology_spread(spec, p, e);
    security::windows_host_process(spec, p, e);
    host_users(spec, p, e);
    hostname_override(spec, p, e);
    identity(spec, p, e);
    scheduling::tolerations(spec, p, e);
    host_aliases(spec, p, e);
    rest(spec, p, e);
    container::env::file_volumes(spec, p, e);
}

fn identity(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    for key in ["serviceAccountName", "nodeName"] {
        if !s(spec, key).is_empty() {
            dns_subdomain(&p.child(key), s(spec, key), e);
        }
    }
    in_range(spec, "activeDeadlineSeconds", p, 1, i64::from(i32::MAX), e);
    for key in ["hostname", "subdomain"] {
        if !s(spec, key).is_empty() {
            dns_label(&p.child(key), s(spec, key), e);
        }
    }
}

fn rest(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !s(spec, "priorityClassName").is_empty() {
        dns_subdomain(&p.child("priorityClassName"), s(spec, "priorityClassName"), e);
    }
    if let Some(name) = opt_s(spec, "runtimeClassName") {
        dns_subdomain(&p.child("runtimeClassName"), name, e);
    }
    if let Some(policy) = opt_s(spec, "preemptionPolicy") {
        match policy {
            "" => e.push(Error::required(&p.child("preemptionPolicy"), "")),
            policy => one_of(&p.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"], e),
        }
    }
    if map(spec, "overhead").is_some() {
        // Judged as the limits of a container, under that name.
        let limits = json!({ "limits": spec["overhead"] });
        resources::requirements(&limits, false, &BTreeSet::new(), &p.child("overhead"), e);
    }
    os::os(spec, p, e);
}

fn resource_claims(spec: &Value, meta: &Value, alone: bool, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("resourceClaims");
    let claims = list(spec, "resourceClaims");
    if alone && map(meta, "annotations").is_some_and(|a| a.contains_key(super::template::MIRROR)) {
        e.extend(claims.iter().map(|_| Error::forbidden(&Path::new(""), "static pods do not support resource claims")));
        return;
    }
    let mut seen = Seen::default();
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        let name = s(claim, "name");
        if name.is_empty() {
            e.push(Error::required(&at.child("name"), ""));
        } else if seen.again(name) {
            e.push(Error::duplicate(&at.child("name"), &json!(name)));
        } else {
            dns_label(&at.child("name"), name, e);
        }
        match (has(claim, "resourceClaimName"), has(claim, "resourceClaimTemplateName")) {
            (true, true) => {
                let text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                e.push(go::invalid(&at, claim, "core.v1.PodResourceClaim", text));
            }
            (false, false) => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                e.push(go::invalid(&at, claim, "core.v1.PodResourceClaim", text));
            }
            _ => {}
        }
        for key in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = opt_s(claim, key) {
                dns_subdomain(&at.child(key), name, e);
            }
        }
    }
}

fn dns_config(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let none = s(spec, "dnsPolicy") == "None";
    let need = "must provide at least one DNS nameserver when `dnsPolicy` is None";
    let p = p.child("dnsConfig");
    let Some(v) = opt(spec, "dnsConfig") else {
        if none {
            e.push(Error::required(&p, format!("must provide `dnsConfig` when `dnsPolicy` is {}", "None")));
        }
        return;
    };
    let at = p.child("nameservers");
    let servers = list(v, "nameservers");
    if none && servers.is_empty() {
        e.push(Error::required(&at, need));
        return;
    }
    if servers.len() > 3 {
        e.push(Error::invalid(&at, &json!(servers), "must not have more than 3 nameservers"));
    }
    for (i, server) in strings(v, "nameservers").enumerate() {
        e.extend(names_net::ip_legacy(&at.index(i), server, true));
    }
    let at = p.child("searches");
    let searches = list(v, "searches");
    if searches.len() > 32 {
        e.push(Error::invalid(&at, &json!(searches), "must not have more than 32 search paths"));
    }
    let joined: usize = strings(v, "searches").map(|d| d.len() + 1).sum();
    if joined > 2049 {
        e.push(Error::invalid(&at, &json!(searches), "must not have more than 2048 characters (including spaces) in the search list"));
    }
    for (i, search) in strings(v, "searches").enumerate() {
        if search == "." {
            continue;
        }
        let name = search.strip_suffix('.').unwrap_or(search);
        named(&at.index(i), name, machinery::names::dns1123_subdomain_underscore(name), e);
    }
    let at = p.child("options");
    for (i, option) in list(v, "options").iter().enumerate() {
        if s(option, "name").is_empty() {
            e.push(Error::required(&at.index(i), "must not be empty"));
        }
    }
}

fn host_users(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !flag_is(spec, "hostUsers", false) {
        return;
    }
    const TEXT: &str = "when `hostUsers` is false";
    // Upstream writes two of the paths with the field's name in Go.
    for (key, path) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, key) {
            e.push(Error::forbidden(&p.child(path), TEXT));
        }
    }
    os::each_container(spec, p, |c, at| {
        if !is_empty(c, "volumeDevices") {
            e.push(Error::forbidden(&at.child("volumeDevices"), TEXT));
        }
    });
}

fn host_aliases(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("hostAliases");
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let at = at.index(i);
        e.extend(names_net::ip_legacy(&at.child("ip"), s(alias, "ip"), true));
        super::rules::each_string(alias, "hostnames", &at, machinery::names::dns1123_subdomain, e);
    }
}

fn hostname_override(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(name) = opt_s(spec, "hostnameOverride") else { return };
    let at = p.child("hostnameOverride");
    if flag(spec, "setHostnameAsFQDN") {
        e.push(Error::forbidden(&at, "may not be specified when setHostnameAsFQDN is true"));
    }
    if flag(spec, "hostNetwork") {
        e.push(Error::forbidden(&at, "may not be specified when hostNetwork is true"));
    }
    if name.len() > 64 {
        e.push(Error::too_long(&at, 64));
    }
    dns_subdomain(&at, name, e);
}
