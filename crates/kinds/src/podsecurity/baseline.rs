//! The baseline standard: what makes privilege escalation easy is forbidden.

use machinery::field::go_quote;
use serde_json::Value;

use super::Version;
use super::checks::{Pod, Values, Violation, containers, plural, quoted, security, setters};
use crate::validate::tree::{flag_is, has, int0, list, opt, opt_s, s, strings};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls a pod may set, with the minor version that added each.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// From this version on, pods in user namespaces are judged less strictly.
pub const USER_NAMESPACES: Version = Version::Minor(35);

/// In the order of upstream's check names. `restricted` replaces some checks by stricter ones.
pub fn violations(pod: &Pod<'_>, version: Version, restricted: bool) -> Vec<Violation> {
    let seccomp = version >= Version::Minor(19);
    let found = [
        apparmor(pod),
        (!restricted || version < Version::Minor(22)).then(|| capabilities(pod)).flatten(),
        host_namespaces(pod),
        (!restricted).then(|| host_path(pod)).flatten(),
        host_ports(pod),
        (version >= Version::Minor(34)).then(|| probe_hosts(pod)).flatten(),
        privileged(pod),
        proc_mount(pod, version),
        selinux(pod, version),
        match (seccomp, restricted) {
            (false, _) => seccomp_annotations(pod),
            (true, false) => seccomp_profile(pod),
            (true, true) => None,
        },
        sysctls(pod, version),
        host_process(pod),
    ];
    found.into_iter().flatten().collect()
}

fn apparmor(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = Values::new();
    let mut is_bad = |context| {
        let bad = opt(context, "appArmorProfile").map(|p| s(p, "type")).filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        values.extend(bad);
        bad.is_some()
    };
    let by_pod = is_bad(pod.security());
    let names = pod.bad(|c| is_bad(security(c)));
    let mut who: Vec<String> = setters(by_pod, &names).into_iter().collect();
    let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
    let is_fine = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations: Vec<String> = annotations(pod)
        .filter(|(key, value)| key.starts_with(APPARMOR_ANNOTATION) && !is_fine(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
        values.extend(annotations);
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let values = quoted(values.iter().map(String::as_str));
    (!who.is_empty()).then(|| Violation { reason, detail: format!("{} must not set AppArmor profile type to {values}", who.join(" and ")) })
}

fn annotations<'a>(pod: &Pod<'a>) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    pod.annotations.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let mut added = Values::new();
    let names = pod.bad(|c| {
        let extra: Vec<&str> = strings(&security(c)["capabilities"], "add").filter(|name| !CAPABILITIES.contains(name)).collect();
        added.extend(&extra);
        !extra.is_empty()
    });
    let detail = |who| format!("{who} must not include {} in securityContext.capabilities.add", quoted(added));
    containers(&names).map(|who| Violation { reason: "non-default capabilities", detail: detail(who) })
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| flag_is(pod.spec, key, true))
        .map(|key| format!("{key}=true"))
        .collect();
    (!set.is_empty()).then(|| Violation { reason: "host namespaces", detail: set.join(", ") })
}

fn host_path(pod: &Pod<'_>) -> Option<Violation> {
    let names: Vec<&str> = list(pod.spec, "volumes").iter().filter(|v| has(v, "hostPath")).map(|v| s(v, "name")).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", names.len()), quoted(names.iter().copied()));
    (!names.is_empty()).then(|| Violation { reason: "hostPath volumes", detail: detail() })
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let mut ports = std::collections::BTreeSet::new();
    let names = pod.bad(|c| {
        let used: Vec<String> = list(c, "ports").iter().map(|p| int0(p, "hostPort")).filter(|p| *p != 0).map(|p| p.to_string()).collect();
        let any = !used.is_empty();
        ports.extend(used);
        any
    });
    let many = ports.len();
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    let reason = plural("hostPort", "hostPorts", many);
    containers(&names).map(|who| Violation { reason, detail: format!("{who} {} {reason} {ports}", plural("uses", "use", names.len())) })
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    let mut hosts = Values::new();
    let names: Values<'_> = pod
        .bad(|c| {
            let lifecycle = &c["lifecycle"];
            let handlers = [&c["livenessProbe"], &c["readinessProbe"], &c["startupProbe"], &lifecycle["postStart"], &lifecycle["preStop"]];
            let named = handlers.into_iter().flat_map(|h| [s(&h["httpGet"], "host"), s(&h["tcpSocket"], "host")]).filter(|h| !h.is_empty());
            let named: Vec<&str> = named.collect();
            hosts.extend(&named);
            !named.is_empty()
        })
        .into_iter()
        .collect();
    let names: Vec<&str> = names.into_iter().collect();
    let who = containers(&names)?;
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    let detail = format!("{who} {} {what} {}", plural("uses", "use", names.len()), quoted(hosts));
    Some(Violation { reason: "probe or lifecycle host", detail })
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.bad(|c| flag_is(security(c), "privileged", true));
    containers(&names).map(|who| Violation { reason: "privileged", detail: format!("{who} must not set securityContext.privileged=true") })
}

fn proc_mount(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version >= USER_NAMESPACES && pod.has_user_namespace() {
        return None;
    }
    let mut values = Values::new();
    let names = pod.bad(|c| {
        let set = opt_s(security(c), "procMount").filter(|kind| *kind != "Default");
        values.extend(set);
        set.is_some()
    });
    let detail = |who| format!("{who} must not set securityContext.procMount to {}", quoted(values));
    containers(&names).map(|who| Violation { reason: "procMount", detail: detail(who) })
}

fn selinux(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let allowed = |kind: &str| {
        let engine = kind == "container_engine_t" && version >= Version::Minor(31);
        engine || matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
    };
    let (mut types, mut user, mut role) = (Values::new(), false, false);
    let mut is_bad = |options| {
        let (kind, has_user, has_role) = (s(options, "type"), !s(options, "user").is_empty(), !s(options, "role").is_empty());
        if !allowed(kind) {
            types.insert(kind);
        }
        user |= has_user;
        role |= has_role;
        !allowed(kind) || has_user || has_role
    };
    let by_pod = is_bad(&pod.security()["seLinuxOptions"]);
    let names = pod.bad(|c| is_bad(&security(c)["seLinuxOptions"]));
    let who = setters(by_pod, &names)?;
    let mut what: Vec<String> = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    Some(Violation { reason: "seLinuxOptions", detail: format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")) })
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let of_containers: Vec<String> = pod.containers().map(|c| format!("{SECCOMP_CONTAINER_ANNOTATION}{}", s(c, "name"))).collect();
    let is_fine = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let bad: Vec<String> = annotations(pod)
        .filter(|(key, value)| (*key == SECCOMP_ANNOTATION || of_containers.iter().any(|c| c == key)) && !is_fine(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    let detail = || format!("forbidden {} {}", plural("annotation", "annotations", bad.len()), bad.join(", "));
    (!bad.is_empty()).then(|| Violation { reason: "seccompProfile", detail: detail() })
}

/// A seccomp profile, where one is set, must be of a known kind.
pub fn seccomp_profile(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = Values::new();
    let mut is_bad = |context| {
        let Some(profile) = opt(context, "seccompProfile") else { return false };
        let kind = s(profile, "type");
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind);
        }
        bad
    };
    let by_pod = is_bad(pod.security());
    let names = pod.bad(|c| is_bad(security(c)));
    let detail = |who| format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    setters(by_pod, &names).map(|who| Violation { reason: "seccompProfile", detail: detail(who) })
}

fn sysctls(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && version >= Version::Minor(*since));
    let bad: Vec<&str> = list(pod.security(), "sysctls").iter().map(|one| s(one, "name")).filter(|name| !allowed(name)).collect();
    (!bad.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: bad.join(", ") })
}

fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let set = |context: &Value| flag_is(&context["windowsOptions"], "hostProcess", true);
    let names = pod.bad(|c| set(security(c)));
    let detail = |who| format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    setters(set(pod.security()), &names).map(|who| Violation { reason: "hostProcess", detail: detail(who) })
}
