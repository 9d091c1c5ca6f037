//! What a pod asks for: effective requests and limits over containers, init containers and sidecars, and its QoS
//! class. Called by cgroup, downward, eviction and the status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::milli;
use crate::restart::is_sidecar;

type List = BTreeMap<String, Quantity>;

/// Requests or limits of a container in thousandths.
fn of(c: &Container, limits: bool) -> BTreeMap<String, i64> {
    let list = c.resources.as_ref().and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
    list.into_iter().flatten().map(|(k, v)| (k.clone(), milli(v))).collect()
}

fn add(to: &mut BTreeMap<String, i64>, from: &BTreeMap<String, i64>) {
    for (k, v) in from {
        let slot = to.entry(k.clone()).or_default();
        *slot = slot.saturating_add(*v);
    }
}

fn max(to: &mut BTreeMap<String, i64>, from: &BTreeMap<String, i64>) {
    for (k, v) in from {
        let slot = to.entry(k.clone()).or_default();
        *slot = (*slot).max(*v);
    }
}

fn aggregate(spec: &PodSpec, limits: bool) -> BTreeMap<String, i64> {
    let mut total = BTreeMap::new();
    for c in &spec.containers {
        add(&mut total, &of(c, limits));
    }
    let mut sidecars = BTreeMap::new();
    let mut peak = BTreeMap::new();
    for c in spec.init_containers.iter().flatten() {
        let mut here = of(c, limits);
        if is_sidecar(c) {
            add(&mut total, &here);
            add(&mut sidecars, &here);
            here.clone_from(&sidecars);
        } else {
            add(&mut here, &sidecars);
        }
        max(&mut peak, &here);
    }
    max(&mut total, &peak);
    let pod_level = spec.resources.as_ref().and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
    for (k, v) in pod_level.into_iter().flatten() {
        total.insert(k.clone(), milli(v));
    }
    if let Some(overhead) = &spec.overhead {
        for (k, v) in overhead {
            if !limits || total.contains_key(k) {
                let slot = total.entry(k.clone()).or_default();
                *slot = slot.saturating_add(milli(v));
            }
        }
    }
    total
}

/// What the pod requests at most at any moment of its life, in thousandths (upstream's `PodRequests`).
pub fn pod_requests(pod: &Pod) -> BTreeMap<String, i64> {
    pod.spec.as_ref().map(|s| aggregate(s, false)).unwrap_or_default()
}

/// The pod's limits in thousandths (upstream's `PodLimits`).
pub fn pod_limits(pod: &Pod) -> BTreeMap<String, i64> {
    pod.spec.as_ref().map(|s| aggregate(s, true)).unwrap_or_default()
}

/// `Guaranteed`, `Burstable` or `BestEffort` (upstream's `ComputePodQOS`).
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    let mut read = |r: Option<&List>, l: Option<&List>| {
        let pick = |list: Option<&List>| -> BTreeMap<String, i64> {
            let only = |k: &str| k == "cpu" || k == "memory";
            list.into_iter().flatten().filter(|(k, q)| only(k) && milli(q) > 0).map(|(k, q)| (k.clone(), milli(q))).collect()
        };
        let (r, l) = (pick(r), pick(l));
        guaranteed &= l.len() == 2;
        add(&mut requests, &r);
        add(&mut limits, &l);
    };
    match &spec.resources {
        Some(r) if r.requests.is_some() || r.limits.is_some() => read(r.requests.as_ref(), r.limits.as_ref()),
        _ => {
            for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let r = c.resources.as_ref();
                read(r.and_then(|r| r.requests.as_ref()), r.and_then(|r| r.limits.as_ref()));
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests.len() == limits.len() && requests.iter().all(|(k, v)| limits.get(k) == Some(v)) {
        "Guaranteed"
    } else {
        "Burstable"
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
