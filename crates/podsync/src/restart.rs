//! Restart policies: whether an exited container runs again. Called by the machine and the status.

use k8s_openapi::api::core::v1::{Container, Pod};

/// Whether an init container is a sidecar.
pub fn is_sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

/// The pod's restart policy, `Always` by default.
pub fn pod_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a container that exited with `code` is to run again. `init`: it is an init container that is no sidecar,
/// for which `Always` means until it succeeds.
pub fn restarts(pod: &Pod, c: &Container, code: i32, init: bool) -> bool {
    let rules = c.restart_policy_rules.as_deref().unwrap_or_default();
    for rule in rules {
        let Some(on) = &rule.exit_codes else { continue };
        let listed = on.values.as_deref().unwrap_or_default().contains(&code);
        let hit = if on.operator == "NotIn" { !listed } else { listed };
        if hit && rule.action == "Restart" {
            return true;
        }
    }
    match c.restart_policy.as_deref().unwrap_or(pod_policy(pod)) {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => !init || code != 0,
    }
}

/// A hash of what a change of makes a container be restarted: name and image (FNV-1a, as upstream). It is kept on the
/// container, so it must never change between versions.
pub fn hash(c: &Container) -> String {
    let image = c.image.as_deref().unwrap_or_default();
    format!("{:x}", mix::Fnv32::of(c.name.bytes().chain([0]).chain(image.bytes())))
}
