//! What a pod asks for, read from typed pods: requests and limits over containers, init containers and sidecars, and its QoS
//! class. Called by cgroup and the status. How they add up, `machinery::requests` says.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::requests::{self, List};

use crate::restart::is_sidecar;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requests,
    Limits,
}

/// An amount that does not parse is left out: the API server admits none.
fn list(given: Option<&BTreeMap<String, Quantity>>) -> List {
    let read = |(name, amount): (&String, &Quantity)| Some((name.clone(), amount.0.parse().ok()?));
    given.into_iter().flatten().filter_map(read).collect()
}

fn of(resources: Option<&ResourceRequirements>, kind: Kind) -> List {
    list(resources.and_then(|r| if kind == Kind::Limits { r.limits.as_ref() } else { r.requests.as_ref() }))
}

fn parts(spec: &PodSpec, kind: Kind) -> requests::Pod<List> {
    let one = |c: &Container| of(c.resources.as_ref(), kind);
    requests::Pod {
        containers: spec.containers.iter().map(one).collect(),
        init_containers: spec.init_containers.iter().flatten().map(|c| (one(c), is_sidecar(c))).collect(),
        own: of(spec.resources.as_ref(), kind).into_iter().collect(),
        overhead: list(spec.overhead.as_ref()),
    }
}

fn milli(list: List) -> BTreeMap<String, i64> {
    list.into_iter().map(|(name, amount)| (name, amount.milli_value())).collect()
}

/// What the pod requests at most at any moment of its life, in thousandths (upstream's `PodRequests`).
pub fn pod_requests(pod: &Pod) -> BTreeMap<String, i64> {
    pod.spec.as_ref().map(|s| milli(parts(s, Kind::Requests).requests())).unwrap_or_default()
}

/// The pod's limits in thousandths (upstream's `PodLimits`).
pub fn pod_limits(pod: &Pod) -> BTreeMap<String, i64> {
    pod.spec.as_ref().map(|s| milli(parts(s, Kind::Limits).limits())).unwrap_or_default()
}

/// `Guaranteed`, `Burstable` or `BestEffort` (upstream's `ComputePodQOS`).
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let read = |r: Option<&ResourceRequirements>| (of(r, Kind::Requests), of(r, Kind::Limits));
    match &spec.resources {
        Some(own) if own.requests.is_some() || own.limits.is_some() => requests::qos_class([read(Some(own))]),
        _ => {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            requests::qos_class(all.map(|c| read(c.resources.as_ref())))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn classes() {
        let c = |r: serde_json::Value| json!({"containers": [{"name": "a", "resources": r}]});
        for (spec, want) in [
            (c(json!({})), "BestEffort"),
            (c(json!({"requests": {"cpu": "0"}})), "BestEffort"),
            (c(json!({"requests": {"cpu": "1"}})), "Burstable"),
            (c(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed"),
            (c(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})), "Burstable"),
            (c(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})), "Burstable"),
        ] {
            assert_eq!(qos_class(&pod(spec.clone())), want, "{spec}");
        }
    }

    #[test]
    fn init_containers_take_turns_and_sidecars_add_up() {
        let p = pod(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "big", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}],
            "overhead": {"cpu": "10m"}}));
        assert_eq!(pod_requests(&p)["cpu"], 2110);
    }
}
