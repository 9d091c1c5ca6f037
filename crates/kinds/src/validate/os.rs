//! What a pod's operating system rules out (`validateOS`, `validateLinux`, `validateWindows`). Called by `pod_spec`.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::tree::{has, is_empty, list, opt, s};

/// Containers of all kinds in the order in which upstream visits them.
pub const VISITED: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

const NOT_LINUX: &str = "windows options cannot be set for a linux pod";
const NOT_WINDOWS: &str = "cannot be set for a windows pod";

/// Fields of the pod without meaning on windows, in upstream's order, and whether each is within the security context.
const OF_POD: [(&str, bool); 15] = [
    ("appArmorProfile", true),
    ("seLinuxOptions", true),
    ("hostUsers", false),
    ("hostPID", false),
    ("hostIPC", false),
    ("seccompProfile", true),
    ("fsGroup", true),
    ("fsGroupChangePolicy", true),
    ("sysctls", true),
    ("shareProcessNamespace", false),
    ("runAsUser", true),
    ("runAsGroup", true),
    ("supplementalGroups", true),
    ("supplementalGroupsPolicy", true),
    ("seLinuxChangePolicy", true),
];
/// The same of a container's security context.
const OF_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

pub fn os(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(spec, "os") else { return };
    let at = p.child("os");
    match s(v, "name") {
        "" => e.push(Error::required(&at.child("name"), "")),
        "linux" => linux(spec, p, e),
        "windows" => windows(spec, p, e),
        other => e.push(Error::not_supported(&at, &json!(other), &["linux", "windows"])),
    }
}

fn linux(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let judge = |holder: &Value, p: &Path<'_>, e: &mut ErrorList| {
        if opt(holder, "securityContext").is_some_and(|sc| has(sc, "windowsOptions")) {
            e.push(Error::forbidden(&p.child("securityContext").child("windowsOptions"), NOT_LINUX));
        }
    };
    judge(spec, p, e);
    each_container(spec, p, |c, at| judge(c, at, e));
}

fn windows(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let context = opt(spec, "securityContext").unwrap_or(&empty);
    let context_at = p.child("securityContext");
    for (key, within) in OF_POD {
        let set = match key {
            // No pointers in Go: only a value that is true, or not empty, is there.
            "hostPID" | "hostIPC" => super::tree::flag(spec, key),
            "sysctls" => !is_empty(context, key),
            _ => has(if within { context } else { spec }, key),
        };
        if set {
            e.push(Error::forbidden(&if within { &context_at } else { p }.child(key), NOT_WINDOWS));
        }
    }
    each_container(spec, p, |c, at| {
        let Some(context) = opt(c, "securityContext") else { return };
        let at = at.child("securityContext");
        e.extend(OF_CONTAINER.iter().filter(|key| has(context, key)).map(|key| Error::forbidden(&at.child(key), NOT_WINDOWS)));
    });
}

/// `VisitContainersWithPath`
pub fn each_container<'a>(spec: &'a Value, p: &Path<'_>, mut visit: impl FnMut(&'a Value, &Path<'_>)) {
    for key in VISITED {
        let at = p.child(key);
        for (i, c) in list(spec, key).iter().enumerate() {
            visit(c, &at.index(i));
        }
    }
}
