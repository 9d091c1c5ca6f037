//! Security contexts of a pod and its containers as CRI has them (upstream's `determineEffectiveSecurityContext`).

use cri::v1;
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile};

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn number(n: Option<i64>) -> Option<v1::Int64Value> {
    n.map(|value| v1::Int64Value { value })
}

fn selinux(o: Option<&SELinuxOptions>) -> Option<v1::SeLinuxOption> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    o.map(|o| v1::SeLinuxOption { user: text(&o.user), role: text(&o.role), r#type: text(&o.type_), level: text(&o.level) })
}

fn profile(kind: &str, local: Option<&String>) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let profile_type = match kind {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    v1::SecurityProfile { profile_type: profile_type as i32, localhost_ref: local.cloned().unwrap_or_default() }
}

fn seccomp(p: Option<&SeccompProfile>) -> v1::SecurityProfile {
    p.map_or_else(|| profile("Unconfined", None), |p| profile(&p.type_, p.localhost_profile.as_ref()))
}

fn apparmor(p: Option<&AppArmorProfile>) -> Option<v1::SecurityProfile> {
    p.map(|p| profile(&p.type_, p.localhost_profile.as_ref()))
}

/// Which namespaces are the node's, the pod's or the container's.
pub fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = pod.spec.as_ref();
    let is = |f: fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<bool>| spec.and_then(f) == Some(true);
    let mode = |host: bool| if host { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let pid = match (is(|s| s.host_pid), is(|s| s.share_process_namespace)) {
        (true, _) => v1::NamespaceMode::Node,
        (false, true) => v1::NamespaceMode::Pod,
        (false, false) => v1::NamespaceMode::Container,
    };
    v1::NamespaceOption {
        network: mode(is(|s| s.host_network)) as i32,
        ipc: mode(is(|s| s.host_ipc)) as i32,
        pid: pid as i32,
        ..Default::default()
    }
}

/// Whether any container of the pod is privileged: then its sandbox must be able to hold it.
pub fn has_privileged(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let all = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    all.into_iter().any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true))
}

fn groups(pod: &Pod) -> Vec<i64> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let mut out = context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    out.extend(context.and_then(|c| c.fs_group));
    out
}

fn group_policy(pod: &Pod) -> i32 {
    let strict =
        pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict");
    if strict { v1::SupplementalGroupsPolicy::Strict as i32 } else { v1::SupplementalGroupsPolicy::Merge as i32 }
}

pub fn sandbox(pod: &Pod) -> v1::LinuxSandboxSecurityContext {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(context.se_linux_options.as_ref()),
        run_as_user: number(context.run_as_user),
        run_as_group: number(context.run_as_group.filter(|_| context.run_as_user.is_some())),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: group_policy(pod),
        privileged: has_privileged(pod),
        seccomp: Some(profile("RuntimeDefault", None)),
        ..Default::default()
    }
}

/// A container's context. `image_uid` and `image_user` are whom the image runs as. An error is the message of
/// `CreateContainerConfigError`.
pub fn container(pod: &Pod, c: &Container, image_uid: Option<i64>, image_user: &str) -> Result<v1::LinuxContainerSecurityContext, String> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = c.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(context.run_as_user);
    let pod_name = podsync_display(pod);
    if own.run_as_non_root.or(context.run_as_non_root) == Some(true) {
        match (user, image_uid) {
            (Some(0), _) => {
                return Err(format!("container's runAsUser breaks non-root policy (pod: \"{pod_name}\", container: {})", c.name));
            }
            (None, Some(0)) => {
                return Err(format!("container has runAsNonRoot and image will run as root (pod: \"{pod_name}\", container: {})", c.name));
            }
            (None, None) if !image_user.is_empty() => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root (pod: \"{pod_name}\", container: {})",
                    c.name
                ));
            }
            (None, None) => {
                return Err(format!("container has runAsNonRoot and image will run as root (pod: \"{pod_name}\", container: {})", c.name));
            }
            _ => {}
        }
    }
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let list = |items: &[&str]| if unmasked { Vec::new() } else { items.iter().map(|s| (*s).to_owned()).collect() };
    let capabilities = own.capabilities.as_ref().map(|caps| v1::Capability {
        add_capabilities: caps.add.clone().unwrap_or_default(),
        drop_capabilities: caps.drop.clone().unwrap_or_default(),
        ..Default::default()
    });
    // Without a numeric user the image's own name or number is resolved by the runtime.
    let run_as_user = number(user.or(image_uid));
    let run_as_username = if run_as_user.is_none() { image_user.to_owned() } else { String::new() };
    Ok(v1::LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(own.se_linux_options.as_ref().or(context.se_linux_options.as_ref())),
        run_as_group: number(own.run_as_group.or(context.run_as_group)),
        run_as_user,
        run_as_username,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: group_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: list(&MASKED),
        readonly_paths: list(&READ_ONLY),
        seccomp: Some(if privileged {
            profile("Unconfined", None)
        } else {
            seccomp(own.seccomp_profile.as_ref().or(context.seccomp_profile.as_ref()))
        }),
        apparmor: apparmor(own.app_armor_profile.as_ref().or(context.app_armor_profile.as_ref())),
        ..Default::default()
    })
}

fn podsync_display(pod: &Pod) -> String {
    let (namespace, name, uid) = crate::labels::identity(pod);
    format!("{name}_{namespace}({uid})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn non_root_is_verified() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]}}))
        .unwrap();
        let c = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(
            container(&pod, c, Some(0), "").unwrap_err(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: a)"
        );
        assert!(container(&pod, c, None, "www").unwrap_err().contains("non-numeric user (www)"));
        assert_eq!(container(&pod, c, Some(7), "").unwrap().run_as_user.unwrap().value, 7);
    }
}
