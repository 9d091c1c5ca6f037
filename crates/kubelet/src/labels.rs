//! The labels and annotations upstream's kubelet puts on sandboxes and containers: what it knows after a restart.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Where the termination message is on the host; so that it is found after a restart.
pub const MESSAGE_HOST_PATH: &str = "skiff.dev/termination-message-host-path";

/// Namespace, name and UID of a pod.
pub fn identity(pod: &Pod) -> (&str, &str, &str) {
    let m = &pod.metadata;
    (m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default(), m.uid.as_deref().unwrap_or_default())
}

pub fn sandbox(pod: &Pod) -> BTreeMap<String, String> {
    let (namespace, name, uid) = identity(pod);
    let mut out = pod.metadata.labels.clone().unwrap_or_default();
    out.insert(POD_NAME.into(), name.into());
    out.insert(POD_NAMESPACE.into(), namespace.into());
    out.insert(POD_UID.into(), uid.into());
    out
}

pub fn container(pod: &Pod, c: &Container) -> BTreeMap<String, String> {
    let (namespace, name, uid) = identity(pod);
    BTreeMap::from([
        (POD_NAME.into(), name.into()),
        (POD_NAMESPACE.into(), namespace.into()),
        (POD_UID.into(), uid.into()),
        (CONTAINER_NAME.into(), c.name.clone()),
    ])
}

pub fn container_annotations(pod: &Pod, c: &Container, attempt: u32, message_host_path: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        (HASH.into(), podsync::restart::hash(c)),
        (RESTART_COUNT.into(), attempt.to_string()),
        (MESSAGE_PATH.into(), c.termination_message_path.clone().unwrap_or_default()),
        (MESSAGE_POLICY.into(), c.termination_message_policy.clone().unwrap_or_default()),
        (MESSAGE_HOST_PATH.into(), message_host_path.into()),
    ]);
    if let Some(grace) = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds) {
        out.insert(POD_GRACE.into(), grace.to_string());
    }
    out
}
