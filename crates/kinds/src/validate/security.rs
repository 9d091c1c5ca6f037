//! Security contexts of containers and pods.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::go;
use super::rules::{Seen, dns_subdomain, one_of};
use super::tree::{flag, flag_is, int, list, opt, opt_s, s, strings};

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn id(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(n) = int(v, key) {
        e.extend(names::unix_id(n).into_iter().map(|text| Error::invalid(&p.child(key), &json!(n), text)));
    }
}

/// A container's.
pub fn container(c: &Value, host_users: bool, p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(c, "securityContext") else { return };
    let p = p.child("securityContext");
    id(v, "runAsUser", &p, e);
    id(v, "runAsGroup", &p, e);
    if let Some(mount) = opt_s(v, "procMount") {
        one_of(&p.child("procMount"), mount, &["Default", "Unmasked"], e);
        if host_users && mount == "Unmasked" {
            e.push(Error::invalid_str(&p.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(v, &p, e);
    if flag_is(v, "allowPrivilegeEscalation", false) {
        if flag(v, "privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            e.push(go::invalid(&p, v, "core.v1.SecurityContext", text));
        }
        if opt(v, "capabilities").is_some_and(|caps| strings(caps, "add").any(|c| c == "CAP_SYS_ADMIN")) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            e.push(go::invalid(&p, v, "core.v1.SecurityContext", text));
        }
    }
    windows(v, &p, e);
    app_armor(v, &p, e);
}

pub fn seccomp(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(profile) = opt(v, "seccompProfile") else { return };
    let p = p.child("seccompProfile");
    let (ty, local) = (s(profile, "type"), opt_s(profile, "localhostProfile"));
    match ty {
        "" => e.push(Error::required(&p.child("type"), "type is required when seccompProfile is set")),
        ty => one_of(&p.child("type"), ty, &PROFILES, e),
    }
    let at = p.child("localhostProfile");
    match (ty == "Localhost", local) {
        (true, None) => e.push(Error::required(&at, "must be set when seccomp type is Localhost")),
        (true, Some(path)) => super::volume::local_path(path, &at, e),
        (false, Some(_)) => {
            e.push(go::invalid(&at, profile, "core.v1.SeccompProfile", "can only be set when seccomp type is Localhost"));
        }
        (false, None) => {}
    }
}

pub fn app_armor(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(profile) = opt(v, "appArmorProfile") else { return };
    let p = p.child("appArmorProfile");
    let at = p.child("localhostProfile");
    match s(profile, "type") {
        "Localhost" => match opt_s(profile, "localhostProfile") {
            None => e.push(Error::required(&at, "must be set when AppArmor type is Localhost")),
            Some(name) => {
                if name.trim() != name {
                    e.push(Error::invalid_str(&at, name, "must not be padded with whitespace"));
                } else if name.is_empty() {
                    e.push(Error::required(&at, "must be set when AppArmor type is Localhost"));
                }
                if name.len() > 4095 {
                    e.push(Error::too_long(&at, 4095));
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = opt_s(profile, "localhostProfile") {
                e.push(Error::invalid_str(&at, name, "can only be set when AppArmor type is Localhost"));
            }
        }
        "" => e.push(Error::required(&p.child("type"), "type is required when appArmorProfile is set")),
        other => e.push(Error::not_supported(&p.child("type"), &json!(other), &PROFILES)),
    }
}

pub fn windows(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(options) = opt(v, "windowsOptions") else { return };
    let p = p.child("windowsOptions");
    if let Some(name) = opt_s(options, "gmsaCredentialSpecName") {
        dns_subdomain(&p.child("gmsaCredentialSpecName"), name, e);
    }
    if let Some(spec) = opt_s(options, "gmsaCredentialSpec") {
        let at = p.child("gmsaCredentialSpec");
        if spec.is_empty() {
            e.push(Error::invalid_str(&at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            e.push(Error::invalid_str(&at, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(user) = opt_s(options, "runAsUserName") {
        windows_user(user, &p.child("runAsUserName"), e);
    }
}

/// `DOMAIN\user` or `user`.
fn windows_user(user: &str, p: &Path<'_>, e: &mut ErrorList) {
    if user.is_empty() {
        e.push(Error::invalid_str(p, user, "runAsUserName cannot be an empty string"));
        return;
    }
    if user.bytes().any(|b| b.is_ascii_control()) {
        e.push(Error::invalid_str(p, user, "runAsUserName cannot contain control characters"));
        return;
    }
    let (domain, name) = match user.split_once('\\') {
        Some((domain, name)) if !name.contains('\\') => (Some(domain), name),
        None => (None, user),
        Some(_) => {
            e.push(Error::invalid_str(p, user, "runAsUserName cannot contain more than one backslash"));
            return;
        }
    };
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            let text = "runAsUserName's Domain length must be under 256 characters";
            e.push(Error::invalid_str(p, user, text));
        }
        if !is_net_bios(domain) && !is_dns_domain(domain) {
            let text = "runAsUserName's Domain doesn't match the NetBios nor the DNS format";
            e.push(Error::invalid_str(p, user, text));
        }
    }
    if name.is_empty() {
        e.push(Error::invalid_str(p, user, "runAsUserName's User cannot be empty"));
    } else if name.len() > 104 {
        e.push(Error::invalid_str(p, user, "runAsUserName's User length must not be longer than 104 characters"));
    }
    if !name.is_empty() && name.bytes().all(|b| b == b' ' || b == b'.') {
        e.push(Error::invalid_str(p, user, "runAsUserName's User cannot contain only periods or spaces"));
    }
    if name.bytes().any(|b| b"\"/\\:;|=,+*?<>@[]".contains(&b)) {
        let text = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        e.push(Error::invalid_str(p, user, text));
    }
}

/// One to fifteen characters, the first no dot.
fn is_net_bios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns_domain(domain: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    domain.split('.').all(|label| {
        let b = label.as_bytes();
        b.len() <= 63 && edge(b.first()) && edge(b.last()) && b.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

/// The pod's, with what of the spec belongs to it.
pub fn pod(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let v = opt(spec, "securityContext").unwrap_or(&empty);
    let at = p.child("securityContext");
    let p = &at;
    id(v, "fsGroup", p, e);
    id(v, "runAsUser", p, e);
    id(v, "runAsGroup", p, e);
    let groups = p.child("supplementalGroups");
    for (i, group) in list(v, "supplementalGroups").iter().enumerate() {
        let n = group.as_i64().unwrap_or(0);
        e.extend(names::unix_id(n).into_iter().map(|text| Error::invalid(&groups.index(i), &json!(n), text)));
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        e.push(Error::invalid(&p.child("shareProcessNamespace"), &json!(true), text));
    }
    sysctls(v, spec, p, e);
    if let Some(policy) = opt_s(v, "fsGroupChangePolicy") {
        one_of(&p.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"], e);
    }
    seccomp(v, p, e);
    windows(v, p, e);
    app_armor(v, p, e);
    if let Some(policy) = opt_s(v, "supplementalGroupsPolicy") {
        one_of(&p.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"], e);
    }
    if let Some(policy) = opt_s(v, "seLinuxChangePolicy") {
        one_of(&p.child("seLinuxChangePolicy"), policy, &["Recursive"], e);
    }
}

/// With the host's network a host port can only be the container's own; templates may leave it to their pods.
pub fn host_network(spec: &Value, alone: bool, p: &Path<'_>, e: &mut ErrorList) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    let containers = p.child("containers");
    for (i, c) in list(spec, "containers").iter().enumerate() {
        let at = containers.index(i);
        let ports = at.child("ports");
        for (j, port) in list(c, "ports").iter().enumerate() {
            let host = super::tree::int0(port, "hostPort");
            if (alone || host != 0) && host != super::tree::int0(port, "containerPort") {
                let text = "must match `containerPort` when `hostNetwork` is true";
                e.push(Error::invalid(&ports.index(j).child("hostPort"), &json!(host), text));
            }
        }
    }
}

fn sysctls(v: &Value, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("sysctls");
    let mut seen = Seen::default();
    for (i, sysctl) in list(v, "sysctls").iter().enumerate() {
        let (at, name) = (at.index(i).child("name").to_string(), s(sysctl, "name"));
        let at = Path::new(&at);
        let again = seen.again(name);
        if name.is_empty() {
            e.push(Error::required(&at, ""));
        } else if name.len() > 253 || !is_sysctl(name) {
            let text =
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            e.push(Error::invalid_str(&at, name, text));
        } else if again {
            e.push(Error::duplicate(&at, &json!(name)));
        }
        host_sysctl(name, spec, &at, e);
    }
}

fn host_sysctl(name: &str, spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let plain = dotted(name);
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| plain.starts_with(start)) || plain == "kernel.sem";
    if flag(spec, "hostNetwork") && plain.starts_with("net.") {
        e.push(Error::invalid_str(p, name, "may not be specified when 'hostNetwork' is true"));
    } else if flag(spec, "hostIPC") && of_ipc {
        e.push(Error::invalid_str(p, name, "may not be specified when 'hostIPC' is true"));
    }
}

/// A name whose first separator is a slash has slashes for dots and dots for slashes (`NormalizeName`).
fn dotted(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|i| i == 0 || name.as_bytes().get(i) == Some(&b'.')) {
        return name.to_owned();
    }
    let swapped = |c: char| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    name.chars().map(swapped).collect()
}

fn is_sysctl(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.split(['.', '/']).all(|part| {
        let b = part.as_bytes();
        matches!((b.first(), b.last()), (Some(f), Some(l)) if alnum(*f) && alnum(*l))
            && b.iter().all(|b| alnum(*b) || matches!(b, b'-' | b'_'))
    })
}

/// Pods with HostProcess containers: all of them, on the host's network.
pub fn windows_host_process(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let of_pod =
        opt(spec, "securityContext").and_then(|sc| opt(sc, "windowsOptions")).and_then(|w| opt(w, "hostProcess")).and_then(Value::as_bool);
    let (mut any, mut all) = (false, true);
    super::os::each_container(spec, p, |c, at| {
        let own =
            opt(c, "securityContext").and_then(|sc| opt(sc, "windowsOptions")).and_then(|w| opt(w, "hostProcess")).and_then(Value::as_bool);
        if let (Some(pods), Some(own)) = (of_pod, own)
            && pods != own
        {
            let text = format!("pod hostProcess value must be identical if both are specified, was {pods}");
            e.push(Error::invalid(&at.child("securityContext.windowsOptions.hostProcess"), &json!(own), text));
        }
        let on = own.or(of_pod).unwrap_or(false);
        any |= on;
        all &= on;
    });
    if any {
        if !all {
            let text = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
            e.push(Error::invalid_str(p, "", text));
        }
        if !flag(spec, "hostNetwork") {
            let text = "hostNetwork must be true if pod contains any hostProcess containers";
            e.push(Error::invalid(&p.child("hostNetwork"), &json!(false), text));
        }
    }
}
