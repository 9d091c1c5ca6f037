//! Containers of all three kinds: what they share, and what regular, init and ephemeral ones add or forbid.

pub mod env;
mod mounts;

use std::collections::{BTreeMap, BTreeSet};

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::probes::{Kind, lifecycle, probe};
use super::rules::{Seen, dns_label, named, one_of, port};
use super::tree::{has, int0, is_empty, list, opt, opt_s, s};
use super::volume::Mountable;
use super::{resources, security};

/// What containers need to know of their pod.
pub struct Pod<'a> {
    pub spec: &'a Value,
    pub volumes: BTreeMap<&'a str, Mountable>,
    pub restart_policy: &'a str,
    pub os: &'a str,
    pub grace_seconds: i64,
    pub host_users: bool,
    pub claims: BTreeSet<&'a str>,
    /// A pod itself, not a template of one.
    pub alone: bool,
}

fn shared(c: &Value, pod: &Pod<'_>, p: &Path<'_>, e: &mut ErrorList) {
    let name = s(c, "name");
    if name.is_empty() {
        e.push(Error::required(&p.child("name"), ""));
    } else {
        dns_label(&p.child("name"), name, e);
    }
    if s(c, "image").is_empty() {
        e.push(Error::required(&p.child("image"), ""));
    }
    let policy = s(c, "terminationMessagePolicy");
    match policy {
        "" => e.push(Error::required(&p.child("terminationMessagePolicy"), "")),
        policy => one_of(&p.child("terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"], e),
    }
    ports(c, p, e);
    env::env(c, p, e);
    env::env_from(c, p, e);
    mounts::mounts(c, &pod.volumes, p, e);
    mounts::devices(c, &pod.volumes, p, e);
    match s(c, "imagePullPolicy") {
        "" => e.push(Error::required(&p.child("imagePullPolicy"), "")),
        policy => one_of(&p.child("imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"], e),
    }
    if let Some(v) = opt(c, "resources") {
        resources::requirements(v, false, &pod.claims, &p.child("resources"), e);
    }
    resources::resize_policy(c, pod.restart_policy, p, e);
    security::container(c, pod.host_users, p, e);
}

fn ports(c: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("ports");
    let mut seen = Seen::default();
    for (i, v) in list(c, "ports").iter().enumerate() {
        let at = at.index(i);
        let name = s(v, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if !problems.is_empty() {
                named(&at.child("name"), name, problems, e);
            } else if seen.again(name) {
                e.push(Error::duplicate(&at.child("name"), &json!(name)));
            }
        }
        match int0(v, "containerPort") {
            0 => e.push(Error::required(&at.child("containerPort"), "")),
            n => port(&at.child("containerPort"), n, e),
        }
        if int0(v, "hostPort") != 0 {
            port(&at.child("hostPort"), int0(v, "hostPort"), e);
        }
        match s(v, "protocol") {
            "" => e.push(Error::required(&at.child("protocol"), "")),
            protocol => one_of(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"], e),
        }
    }
}

/// Two containers cannot have one port of the host.
fn host_ports(containers: &[Value], p: &Path<'_>, e: &mut ErrorList) {
    let mut seen = Seen::default();
    for (i, c) in containers.iter().enumerate() {
        for (j, v) in list(c, "ports").iter().enumerate() {
            let port = int0(v, "hostPort");
            if port == 0 {
                continue;
            }
            let key = (port, s(v, "hostIP"), s(v, "protocol"));
            if seen.again(key) {
                let at = p.index(i);
                let ports = at.child("ports");
                let text = format!("{}/{}/{}", key.2, key.1, key.0);
                e.push(Error::duplicate(&ports.index(j).child("hostPort"), &json!(text)));
            }
        }
    }
}

/// A restart policy of the container's own, and rules by exit code.
fn restart(c: &Value, init: bool, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(policy) = opt_s(c, "restartPolicy") {
        one_of(&p.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"], e);
    }
    if is_empty(c, "restartPolicyRules") {
        return;
    }
    if !has(c, "restartPolicy") {
        e.push(Error::required(&p.child("restartPolicy"), "must specify restartPolicy when restart rules are used"));
        if init {
            return;
        }
    }
    let at = p.child("restartPolicyRules");
    let rules = list(c, "restartPolicyRules");
    if rules.len() > 20 {
        e.push(Error::too_many(&at, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        one_of(&at.child("action"), s(rule, "action"), &["Restart", "RestartAllContainers"], e);
        let codes_at = at.child("exitCodes");
        let Some(codes) = opt(rule, "exitCodes") else {
            e.push(Error::required(&codes_at, "must be specified"));
            continue;
        };
        one_of(&codes_at.child("operator"), s(codes, "operator"), &["In", "NotIn"], e);
        let count = list(codes, "values").len();
        if count > 255 {
            e.push(Error::too_many(&codes_at.child("values"), count, 255));
        }
    }
}

fn probes(c: &Value, pod: &Pod<'_>, p: &Path<'_>, e: &mut ErrorList) {
    lifecycle(c, pod.os, pod.grace_seconds, p, e);
    probe(c, "livenessProbe", Kind::Liveness, pod.grace_seconds, p, e);
    probe(c, "readinessProbe", Kind::Readiness, pod.grace_seconds, p, e);
    probe(c, "startupProbe", Kind::Startup, pod.grace_seconds, p, e);
}

/// `spec.containers`
pub fn regular<'a>(pod: &Pod<'a>, p: &Path<'_>, names: &mut BTreeSet<&'a str>, e: &mut ErrorList) {
    let at = p.child("containers");
    let containers = list(pod.spec, "containers");
    if containers.is_empty() {
        e.push(Error::required(&at, ""));
    }
    for (i, c) in containers.iter().enumerate() {
        let at = at.index(i);
        shared(c, pod, &at, e);
        unique_name(c, false, names, &at, e);
        probes(c, pod, &at, e);
        restart(c, false, &at, e);
    }
    host_ports(containers, &at, e);
}

/// Two without a name are of one name, too, unless they are init containers.
fn unique_name<'a>(c: &'a Value, init: bool, names: &mut BTreeSet<&'a str>, p: &Path<'_>, e: &mut ErrorList) {
    let name = s(c, "name");
    if names.contains(name) {
        e.push(Error::duplicate(&p.child("name"), &json!(name)));
    } else if !init || !name.is_empty() {
        names.insert(name);
    }
}

/// `spec.initContainers`; those that restart always are sidecars and may have probes.
pub fn init<'a>(pod: &Pod<'a>, p: &Path<'_>, names: &mut BTreeSet<&'a str>, e: &mut ErrorList) {
    let at = p.child("initContainers");
    for (i, c) in list(pod.spec, "initContainers").iter().enumerate() {
        let at = at.index(i);
        shared(c, pod, &at, e);
        restart(c, true, &at, e);
        unique_name(c, true, names, &at, e);
        host_ports(std::slice::from_ref(c), &p.child("initContainers"), e);
        if s(c, "restartPolicy") == "Always" {
            probes(c, pod, &at, e);
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(c, key) {
                e.push(Error::forbidden(&at.child(key), "may not be set for init containers without restartPolicy=Always"));
            }
        }
        let policies = at.child("resizePolicy");
        for (j, policy) in list(c, "resizePolicy").iter().enumerate() {
            let policy = s(policy, "restartPolicy");
            if policy == "RestartContainer" {
                let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                e.push(Error::invalid_str(&policies.index(j).child("restartPolicy"), policy, text));
            }
        }
    }
}

/// In the order of Go's struct.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];
const EPHEMERAL_TEXT: &str = "cannot be set for an Ephemeral Container";

/// `spec.ephemeralContainers`
pub fn ephemeral<'a>(pod: &Pod<'a>, p: &Path<'_>, names: &mut BTreeSet<&'a str>, e: &mut ErrorList) {
    let at = p.child("ephemeralContainers");
    let others = names.clone();
    for (i, c) in list(pod.spec, "ephemeralContainers").iter().enumerate() {
        let at = at.index(i);
        shared(c, pod, &at, e);
        trimmed_image(c, &at, e);
        unique_name(c, false, names, &at, e);
        let target = s(c, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            e.push(Error::not_found(&at.child("targetContainerName"), &json!(target)));
        }
        for key in NOT_EPHEMERAL {
            if !hollow(c, key) {
                e.push(Error::forbidden(&at.child(key), EPHEMERAL_TEXT));
            }
        }
        let mounts = at.child("volumeMounts");
        for (j, mount) in list(c, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !s(mount, key).is_empty() {
                    e.push(Error::forbidden(&mounts.index(j).child(key), EPHEMERAL_TEXT));
                }
            }
        }
    }
}

/// Go's zero: absent, or for structures that are no pointers, all empty within.
fn hollow(c: &Value, key: &str) -> bool {
    match opt(c, key) {
        None => true,
        Some(Value::Object(fields)) if key == "resources" => fields.values().all(Value::is_null),
        Some(_) => false,
    }
}

/// Only pods are judged so; templates with such images have always passed.
pub fn trimmed_image(c: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let image = s(c, "image");
    if image.trim() != image {
        e.push(Error::invalid_str(&p.child("image"), image, "must not have leading or trailing whitespace"));
    }
}
