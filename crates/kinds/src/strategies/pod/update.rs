//! What may change in a pod after its creation.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use crate::validate::container::{Pod, ephemeral as ephemeral_rules};
use crate::validate::rules::IMMUTABLE;
use crate::validate::tree::{at, int, is_empty, keep, list, list_mut, opt, s, same};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate`.
pub fn spec(new: &Value, old: &Value) -> ErrorList {
    let mut e = ErrorList::new();
    super::whole(new, &mut e);
    let p = Path::new("spec");
    let empty = json!({});
    let (ns, os) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
    for key in ["containers", "initContainers"] {
        if list(ns, key).len() != list(os, key).len() {
            e.push(Error::forbidden(&p.child(key), "pod updates may not add or remove containers"));
            return e;
        }
    }
    for key in ["containers", "initContainers"] {
        let at = p.child(key);
        for (i, c) in list(ns, key).iter().enumerate() {
            if s(c, "image").is_empty() {
                e.push(Error::required(&at.index(i).child("image"), ""));
            } else if s(c, "image").trim() != s(c, "image") {
                let text = "must not have leading or trailing whitespace";
                e.push(Error::invalid_str(&at.index(i).child("image"), s(c, "image"), text));
            }
        }
    }
    deadline(ns, os, &p, &mut e);
    let gated = !is_empty(os, "schedulingGates");
    gates(ns, os, &p, &mut e);
    tolerations(ns, os, &p, &mut e);
    let munged = munge(ns, os, gated);
    if !same(Some(&munged), Some(os)) {
        let text = format!("{ONLY}\n{}", crate::validate::go::diff(&munged, os, "core.v1.PodSpec"));
        e.push(Error::forbidden(&p, text));
    }
    e
}

fn deadline(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("activeDeadlineSeconds");
    match (int(ns, "activeDeadlineSeconds"), int(os, "activeDeadlineSeconds")) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            e.push(Error::invalid(&at, &json!(n), machinery::names::inclusive_range(0, i64::from(i32::MAX))));
        }
        (Some(n), Some(o)) if n > o => {
            e.push(Error::invalid(&at, &json!(n), "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            e.push(Error::invalid(&at, &Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn gates(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("schedulingGates");
    let old: Vec<&str> = list(os, "schedulingGates").iter().map(|g| s(g, "name")).collect();
    for (i, gate) in list(ns, "schedulingGates").iter().enumerate() {
        if !old.contains(&s(gate, "name")) {
            let text = "only deletion is allowed, but found new scheduling gate '".to_owned() + s(gate, "name") + "'";
            e.push(Error::forbidden(&at.index(i), text));
        }
    }
}

fn tolerations(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (new, old) = (list(ns, "tolerations"), list(os, "tolerations"));
    let except_seconds = |t: &Value| {
        let mut t = t.clone();
        crate::validate::tree::remove(&mut t, "tolerationSeconds");
        t
    };
    if old.iter().any(|o| !new.iter().any(|n| same(Some(&except_seconds(n)), Some(&except_seconds(o))))) {
        e.push(Error::forbidden(&p.child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// The new spec with all that may change put back.
fn munge(ns: &Value, os: &Value, gated: bool) -> Value {
    let mut out = ns.clone();
    for key in ["containers", "initContainers"] {
        for (c, old) in list_mut(&mut out, key).iter_mut().zip(list(os, key)) {
            keep(c, old, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep(&mut out, os, key);
    }
    if int(os, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) && int(ns, "terminationGracePeriodSeconds") == Some(1) {
        keep(&mut out, os, "terminationGracePeriodSeconds");
    }
    // serviceAccount mirrors serviceAccountName.
    keep(&mut out, os, "serviceAccount");
    if gated {
        keep(&mut out, os, "nodeSelector");
        if at(os, "affinity.nodeAffinity").is_none() || at(&out, "affinity.nodeAffinity").is_some() {
            keep(&mut out, os, "affinity");
        }
    }
    out
}

/// `ValidatePodStatusUpdate`.
pub fn status(new: &Value, old: &Value) -> ErrorList {
    let mut e = ErrorList::new();
    let p = Path::new("status");
    let empty = json!({});
    let (ns, os) = (opt(new, "status").unwrap_or(&empty), opt(old, "status").unwrap_or(&empty));
    let spec = opt(new, "spec").unwrap_or(&empty);
    let nominated = s(ns, "nominatedNodeName");
    if !nominated.is_empty() {
        crate::validate::rules::dns_subdomain(&p.child("nominatedNodeName"), nominated, &mut e);
    }
    if int(ns, "observedGeneration").is_some_and(|n| n < 0) {
        crate::validate::rules::non_negative(ns, "observedGeneration", &p, &mut e);
    }
    for (key, of) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        restarts(ns, os, spec, key, of, &p, &mut e);
    }
    for (key, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(ns, key, single, &p, &mut e);
    }
    if !same(opt(ns, "qosClass"), opt(os, "qosClass")) && !s(os, "qosClass").is_empty() {
        e.push(Error::invalid_str(&p.child("qosClass"), s(ns, "qosClass"), IMMUTABLE));
    }
    e
}

/// A container that never restarts stays terminated.
fn restarts(ns: &Value, os: &Value, spec: &Value, key: &str, of: &str, p: &Path<'_>, e: &mut ErrorList) {
    let policy = s(spec, "restartPolicy");
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

/// `ValidatePodEphemeralContainersUpdate`: only additions.
pub fn ephemeral(new: &Value, old: &Value) -> ErrorList {
    let mut e = ErrorList::new();
    let empty = json!({});
    let (ns, os) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
    let p = Path::new("spec");
    let mut names: Vec<&str> = list(ns, "containers").iter().chain(list(ns, "initContainers")).map(|c| s(c, "name")).collect();
    let pod = Pod {
        spec: ns,
        restart_policy: s(ns, "restartPolicy"),
        os: opt(ns, "os").map_or("", |os| s(os, "name")),
        grace_seconds: int(ns, "terminationGracePeriodSeconds").unwrap_or(0),
        host_users: true,
        claims: Vec::new(),
        alone: true,
    };
    ephemeral_rules(&pod, &p, &mut names, &mut e);
    let at = p.child("ephemeralContainers");
    for old in list(os, "ephemeralContainers") {
        match list(ns, "ephemeralContainers").iter().enumerate().find(|(_, n)| s(n, "name") == s(old, "name")) {
            None => {
                let text = format!("existing ephemeral containers {} may not be removed\n", machinery::field::go_quote(s(old, "name")));
                e.push(Error::forbidden(&at, text));
            }
            Some((i, n)) if !same(Some(n), Some(old)) => {
                let text = format!("existing ephemeral containers {} may not be changed\n", machinery::field::go_quote(s(old, "name")));
                e.push(Error::forbidden(&at.index(i), text));
            }
            Some(_) => {}
        }
    }
    e
}

/// `ValidatePodResize`: resources of running containers, within the pod's quality of service.
pub fn resize(new: &Value, old: &Value) -> ErrorList {
    let mut e = ErrorList::new();
    super::whole(new, &mut e);
    let p = Path::new("spec");
    if super::qos_class(new) != super::qos_class(old) {
        let text = format!(
            "Pod QOS Class may not change as a result of resizing (is {}, would be {})",
            super::qos_class(old),
            super::qos_class(new)
        );
        e.push(Error::invalid_str(&p, &super::qos_class(new), text));
    }
    let mut munged = opt(new, "spec").cloned().unwrap_or_default();
    let empty = json!({});
    let os = opt(old, "spec").unwrap_or(&empty);
    for key in ["containers", "initContainers"] {
        for (c, old) in list_mut(&mut munged, key).iter_mut().zip(list(os, key)) {
            keep(c, old, "resources");
            keep(c, old, "resizePolicy");
        }
    }
    if !same(Some(&munged), Some(os)) {
        e.push(Error::forbidden(&p, "only cpu and memory resources are mutable"));
    }
    e
}
