//! Which pod goes first when the node runs short (upstream's eviction ranking): those over their request, then by
//! priority, then by how far over they are. Called by the kubelet under node pressure.

use k8s_openapi::api::core::v1::Pod;

use crate::requests::pod_requests;

/// A pod and what it uses of the starved resource, in whole units.
#[derive(Clone, Debug)]
pub struct Usage<'a> {
    pub pod: &'a Pod,
    pub used: i64,
}

/// Sorts so that the first is evicted first.
pub fn rank(pods: &mut [Usage<'_>], resource: &str) {
    pods.sort_by_key(|u| {
        let request = pod_requests(u.pod).get(resource).copied().unwrap_or(0) / 1000;
        let priority = u.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let over = u.used.saturating_sub(request);
        (over <= 0, priority, std::cmp::Reverse(over))
    });
}

/// Whether a pod must never be evicted: static, mirror, or system-critical.
pub fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let has = |k: &str| annotations.is_some_and(|a| a.contains_key(k));
    let file = annotations.and_then(|a| a.get("kubernetes.io/config.source")).is_some_and(|s| s != "api");
    has("kubernetes.io/config.mirror") || file || pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= 2_000_000_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn over_request_then_priority_then_excess() {
        let pod = |name: &str, request: &str, priority: i32| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
                "containers": [{"name": "a", "resources": {"requests": {"memory": request}}}]}}))
            .unwrap()
        };
        let pods = [pod("under", "1Gi", 0), pod("high", "0", 10), pod("little", "0", 0), pod("much", "0", 0)];
        let mut usage: Vec<Usage<'_>> =
            pods.iter().zip([1 << 20, 1 << 30, 1 << 20, 1 << 25]).map(|(pod, used)| Usage { pod, used }).collect();
        rank(&mut usage, "memory");
        let names: Vec<_> = usage.iter().map(|u| u.pod.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["much", "little", "high", "under"]);
    }
}
