//! Resource requests and limits as kernel settings: CPU shares and quota, memory limit, oom_score_adj, hugepages.
//! Numbers only; the runtime writes them. Called by the kubelet when it makes a container or a pod's cgroup.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::quantity::{milli, value};
use crate::requests::{pod_limits, pod_requests, qos_class};
use crate::restart::is_sidecar;

pub const SHARES_MIN: i64 = 2;
pub const SHARES_MAX: i64 = 262_144;
pub const QUOTA_PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1_000;

/// What CRI's `LinuxContainerResources` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_shares: i64,
    pub cpu_period_us: i64,
    /// 0: none.
    pub cpu_quota_us: i64,
    /// 0: none.
    pub memory_limit_bytes: i64,
    pub oom_score_adj: i64,
}

/// Upstream's `MilliCPUToShares`.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { SHARES_MIN } else { (milli_cpu.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX) }
}

/// Upstream's `MilliCPUToQuota` for the default period; 0 is no quota.
pub fn quota_us(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { 0 } else { (milli_cpu.saturating_mul(QUOTA_PERIOD_US) / 1000).max(QUOTA_MIN_US) }
}

/// Upstream's `GetContainerOOMScoreAdjust`.
pub fn oom_score_adj(pod: &Pod, c: &Container, node_memory_bytes: i64) -> i64 {
    let critical = pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= 2_000_000_000);
    let qos = qos_class(pod);
    if critical || qos == "Guaranteed" {
        return -997;
    }
    if qos == "BestEffort" {
        return 1000;
    }
    let memory = |c: &Container| c.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("memory")).map_or(0, value);
    let mut request = memory(c);
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_ref());
    if init.is_some_and(|i| i.iter().any(|i| i.name == c.name && is_sidecar(i))) {
        let least = spec.map(|s| s.containers.iter().map(memory).min().unwrap_or(0)).unwrap_or(0);
        request = request.max(least);
    }
    let capacity = node_memory_bytes.max(1);
    let adj = 1000 - 1000i64.saturating_mul(request) / capacity;
    adj.clamp(3, 999)
}

/// The settings of one container.
pub fn container(pod: &Pod, c: &Container, node_memory_bytes: i64) -> Resources {
    let r = c.resources.as_ref();
    let limit = |k: &str| r.and_then(|r| r.limits.as_ref()).and_then(|l| l.get(k));
    let request = |k: &str| r.and_then(|r| r.requests.as_ref()).and_then(|l| l.get(k));
    let cpu_limit = limit("cpu").map_or(0, milli);
    // A limit without a request is also the request (the API server defaults so; static pods may not have passed it).
    let cpu_request = request("cpu").or(limit("cpu")).map_or(0, milli);
    Resources {
        cpu_shares: shares(cpu_request),
        cpu_period_us: QUOTA_PERIOD_US,
        cpu_quota_us: quota_us(cpu_limit),
        memory_limit_bytes: limit("memory").map_or(0, value),
        oom_score_adj: oom_score_adj(pod, c, node_memory_bytes),
    }
}

/// The settings of the pod's own cgroup: limits only when every container has one (upstream's `ResourceConfigForPod`).
pub fn pod(pod: &Pod) -> Resources {
    let (requests, limits) = (pod_requests(pod), pod_limits(pod));
    let spec = pod.spec.as_ref();
    let all = |k: &str| {
        spec.is_some_and(|s| {
            let pod_level = s.resources.as_ref().and_then(|r| r.limits.as_ref()).is_some_and(|l| l.contains_key(k));
            pod_level
                || s.containers
                    .iter()
                    .chain(s.init_containers.iter().flatten())
                    .all(|c| c.resources.as_ref().and_then(|r| r.limits.as_ref()).is_some_and(|l| l.contains_key(k)))
        })
    };
    let get = |k: &str| limits.get(k).copied().unwrap_or(0);
    Resources {
        cpu_shares: shares(requests.get("cpu").copied().unwrap_or(0)),
        cpu_period_us: QUOTA_PERIOD_US,
        cpu_quota_us: if all("cpu") { quota_us(get("cpu")) } else { 0 },
        memory_limit_bytes: if all("memory") { get("memory") / 1000 } else { 0 },
        oom_score_adj: 0,
    }
}

/// The cgroup parent of a pod under `root` with the cgroupfs driver: `/kubepods/burstable/pod<uid>`.
pub fn parent(pod: &Pod, root: &str) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match qos_class(pod) {
        "Guaranteed" => format!("{root}/pod{uid}"),
        class => format!("{root}/{}/pod{uid}", class.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_and_quota() {
        for (m, s, q) in [(0, 2, 0), (1, 2, 1000), (100, 102, 10_000), (1000, 1024, 100_000), (i64::MAX, SHARES_MAX, i64::MAX / 1000)] {
            assert_eq!((shares(m), quota_us(m)), (s, q), "{m}");
        }
    }

    #[test]
    fn oom_scores() {
        let make = |r: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a", "resources": r}]}})).unwrap()
        };
        let adj = |p: &Pod| container(p, &p.spec.as_ref().unwrap().containers[0], 8 << 30).oom_score_adj;
        assert_eq!(adj(&make(json!({}))), 1000);
        assert_eq!(adj(&make(json!({"requests": {"memory": "4Gi"}}))), 500);
        assert_eq!(adj(&make(json!({"requests": {"memory": "8Gi"}}))), 3);
        assert_eq!(adj(&make(json!({"requests": {"cpu": "1"}}))), 999);
        let all = json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = make(json!({"requests": all, "limits": all}));
        assert_eq!(adj(&guaranteed), -997);
        assert_eq!(parent(&guaranteed, "/kubepods"), "/kubepods/podu");
        assert_eq!(parent(&make(json!({})), "/kubepods"), "/kubepods/besteffort/podu");
        assert_eq!(pod(&guaranteed).memory_limit_bytes, 1 << 30);
    }
}
