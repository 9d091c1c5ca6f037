//! What an object counts for in a ResourceQuota, on trees: the one function that admission (before a write) and the
//! resourcequota controller (of what is there) share. Upstream's `pkg/quota/v1/evaluator/core`.
//!
//! Resources are named as in `count/RESOURCE`: the plural, and the group after a dot where there is one. Not looked at:
//! a pod's resources as its status has them while it is resized in place.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use machinery::quantity::{Format, Quantity};
use machinery::requests::{self, List};
use serde_json::Value;

use crate::validate::tree::{flag_is, has, int, list, opt, opt_s, s, strings};

/// Amounts by the names that `spec.hard` uses. They add up as [`requests::Amounts`] do.
pub type Usage = List;

/// Resources that may be counted by their plain plural, too.
const PLAIN: [&str; 6] = ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// What one object uses. `now` tells which deleted pods are past their grace period and count no more.
pub fn usage(resource: &str, object: &Value, now: Timestamp) -> Usage {
    let mut usage = Usage::from([(format!("count/{resource}"), one())]);
    if PLAIN.contains(&resource) {
        usage.insert(resource.to_owned(), one());
    }
    match resource {
        "pods" if pod_counts(object, now) => pod(object, &mut usage),
        "services" => service(object, &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        _ => {}
    }
    usage
}

/// Whether objects of a resource can use anything that a quota limits.
pub fn concerns(hard: &serde_json::Map<String, Value>, resource: &str) -> bool {
    hard.keys().any(|name| resource_of(name).as_deref() == Some(resource))
}

/// The resource whose objects use what a quota limits under a name.
pub fn resource_of(name: &str) -> Option<String> {
    if let Some(counted) = name.strip_prefix("count/") {
        return Some(counted.to_owned());
    }
    if PLAIN.contains(&name) {
        return Some(name.to_owned());
    }
    if name == "requests.storage" || name.contains(STORAGE_CLASS) {
        return Some("persistentvolumeclaims".to_owned());
    }
    if name.starts_with("services.") {
        return Some("services".to_owned());
    }
    let plain = matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage");
    let of_pods = plain || name.starts_with("requests.") || name.starts_with("limits.") || name.starts_with("hugepages-");
    of_pods.then(|| "pods".to_owned())
}

/// Whether a quota's scopes take an object in. Scopes are about pods, and one of them about claims; of other resources only
/// a quota without scopes counts.
pub fn in_scope(spec: &Value, resource: &str, object: &Value) -> bool {
    let plain = strings(spec, "scopes").all(|scope| scope_matches(scope, "Exists", &[], resource, object));
    let selected = opt(spec, "scopeSelector").is_none_or(|selector| {
        list(selector, "matchExpressions").iter().all(|one| {
            let values: Vec<&str> = strings(one, "values").collect();
            scope_matches(s(one, "scopeName"), s(one, "operator"), &values, resource, object)
        })
    });
    plain && selected
}

fn scope_matches(scope: &str, operator: &str, values: &[&str], resource: &str, object: &Value) -> bool {
    let by_name = |name: Option<&str>| match operator {
        "In" => name.is_some_and(|name| values.contains(&name)),
        "NotIn" => name.is_none_or(|name| !values.contains(&name)),
        "DoesNotExist" => name.is_none(),
        _ => name.is_some(),
    };
    let spec = &object["spec"];
    match (resource, scope) {
        ("pods", "Terminating") => int(spec, "activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0),
        ("pods", "NotTerminating") => int(spec, "activeDeadlineSeconds").is_none_or(|seconds| seconds < 0),
        ("pods", "BestEffort") => is_best_effort(spec),
        ("pods", "NotBestEffort") => !is_best_effort(spec),
        ("pods", "PriorityClass") => by_name(opt_s(spec, "priorityClassName").filter(|name| !name.is_empty())),
        ("pods", "CrossNamespacePodAffinity") => has_cross_namespace_affinity(spec),
        ("persistentvolumeclaims", "VolumeAttributesClass") => {
            by_name(opt_s(spec, "volumeAttributesClassName").filter(|name| !name.is_empty()))
        }
        _ => false,
    }
}

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSI)
}

fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// Finished pods count no more, nor do those whose time to end is over.
fn pod_counts(pod: &Value, now: Timestamp) -> bool {
    if matches!(s(&pod["status"], "phase"), "Succeeded" | "Failed") {
        return false;
    }
    let metadata = &pod["metadata"];
    let deleted = opt_s(metadata, "deletionTimestamp").and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(deleted), Some(grace)) = (deleted, int(metadata, "deletionGracePeriodSeconds")) else { return true };
    deleted.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end)
}

pub(crate) fn amounts(container: &Value, kind: &str) -> List {
    let all = container["resources"][kind].as_object();
    all.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), parse(value)?))).collect()
}

/// What a pod requests at most at any moment of its life.
pub fn pod_requests(pod: &Value) -> List {
    total(&pod["spec"], "requests")
}

/// A pod's requests or limits.
pub(crate) fn total(spec: &Value, kind: &str) -> List {
    let of = |container: &Value| amounts(container, kind);
    let overhead = spec["overhead"].as_object().into_iter().flatten();
    let pod = requests::Pod {
        containers: list(spec, "containers").iter().map(of).collect(),
        init_containers: list(spec, "initContainers").iter().map(|c| (of(c), s(c, "restartPolicy") == "Always")).collect(),
        own: of(spec).into_iter().collect(),
        overhead: overhead.filter_map(|(name, value)| Some((name.clone(), parse(value)?))).collect(),
    };
    if kind == "limits" { pod.limits() } else { pod.requests() }
}

fn pod(object: &Value, usage: &mut Usage) {
    let spec = &object["spec"];
    usage.insert("pods".to_owned(), one());
    for (name, amount) in total(spec, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
            usage.insert(format!("requests.{name}"), amount);
        } else if name.contains('/') {
            usage.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in total(spec, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

/// Nobody asks for or is limited in CPU or memory.
fn is_best_effort(spec: &Value) -> bool {
    let asks = |of: &Value| {
        let mut all = ["requests", "limits"].into_iter().flat_map(|kind| amounts(of, kind));
        all.any(|(name, amount)| matches!(name.as_str(), "cpu" | "memory") && amount > Quantity::ZERO)
    };
    !asks(spec) && !list(spec, "containers").iter().chain(list(spec, "initContainers")).any(asks)
}

/// Which containers leave unsaid what a quota on it counts: `cpu for: a,b; limits.memory for: a`. Empty: none does.
pub fn unspecified(hard: &serde_json::Map<String, Value>, pod: &Value) -> String {
    let spec = &pod["spec"];
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in hard.keys() {
        let (kind, resource) = match name.split_once('.') {
            None => ("requests", name.as_str()),
            Some((kind @ ("requests" | "limits"), resource)) => (kind, resource),
            _ => continue,
        };
        if !matches!(resource, "cpu" | "memory") || amounts(spec, kind).contains_key(resource) {
            continue;
        }
        let all = list(spec, "containers").iter().chain(list(spec, "initContainers"));
        for container in all.filter(|container| !amounts(container, kind).contains_key(resource)) {
            missing.entry(name).or_default().push(s(container, "name"));
        }
    }
    let one = |(name, mut containers): (&str, Vec<&str>)| {
        containers.sort_unstable();
        format!("{name} for: {}", containers.join(","))
    };
    missing.into_iter().map(one).collect::<Vec<_>>().join("; ")
}

fn has_cross_namespace_affinity(spec: &Value) -> bool {
    let is_cross = |term: &Value| strings(term, "namespaces").next().is_some() || has(term, "namespaceSelector");
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = &spec["affinity"][kind];
        list(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(is_cross)
            || list(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter().any(|one| is_cross(&one["podAffinityTerm"]))
    })
}

fn service(object: &Value, usage: &mut Usage) {
    let spec = &object["spec"];
    let ports = i64::try_from(list(spec, "ports").len()).unwrap_or(i64::MAX);
    let count = |number| Quantity::new(number, Format::DecimalSI);
    match s(spec, "type") {
        "NodePort" => drop(usage.insert("services.nodeports".to_owned(), count(ports))),
        "LoadBalancer" => {
            usage.insert("services.loadbalancers".to_owned(), one());
            let given = list(spec, "ports").iter().filter(|port| int(port, "nodePort").is_some_and(|number| number != 0)).count();
            let given = i64::try_from(given).unwrap_or(i64::MAX);
            let none = flag_is(spec, "allocateLoadBalancerNodePorts", false);
            usage.insert("services.nodeports".to_owned(), count(if none { given } else { ports }));
        }
        _ => {}
    }
}

fn claim(object: &Value, usage: &mut Usage) {
    let spec = &object["spec"];
    let annotated = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotated.or_else(|| opt_s(spec, "storageClassName")).filter(|name| !name.is_empty());
    if let Some(class) = class {
        usage.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), one());
    }
    let asked = parse(&spec["resources"]["requests"]["storage"]);
    let allocated = parse(&object["status"]["allocatedResources"]["storage"]);
    let Some(storage) = asked.into_iter().chain(allocated).max_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)) else {
        return;
    };
    usage.insert("requests.storage".to_owned(), storage);
    if let Some(class) = class {
        usage.insert(format!("{class}{STORAGE_CLASS}requests.storage"), storage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(resource: &str, object: &Value) -> String {
        let now = "2024-01-01T00:01:00Z".parse().unwrap();
        usage(resource, object, now).iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_objects_count_for() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}});
        let gpu = json!({"resources": {"limits": {"memory": "1Gi", "example.com/gpu": "2"}, "requests": {"memory": "1Gi", "example.com/gpu": "2"}}});
        for (resource, object, expected) in [
            ("configmaps", json!({}), "configmaps=1 count/configmaps=1"),
            ("deployments.apps", json!({}), "count/deployments.apps=1"),
            ("pods", json!({"spec": {"containers": [ask("100m"), ask("1")]}}), "count/pods=1 cpu=1100m pods=1 requests.cpu=1100m"),
            // Init containers run one after another, beside the sidecars before them.
            (
                "pods",
                json!({"spec": {"containers": [ask("100m")], "initContainers": [sidecar, ask("300m"), ask("200m")]}}),
                "count/pods=1 cpu=350m pods=1 requests.cpu=350m",
            ),
            (
                "pods",
                json!({"spec": {"containers": [gpu], "overhead": {"memory": "1Gi", "cpu": "1"}}}),
                "count/pods=1 cpu=1 limits.memory=2Gi memory=2Gi pods=1 requests.cpu=1 requests.example.com/gpu=2 requests.memory=2Gi",
            ),
            (
                "pods",
                json!({"spec": {"containers": [ask("1")], "resources": {"requests": {"cpu": "3"}}}}),
                "count/pods=1 cpu=3 pods=1 requests.cpu=3",
            ),
            ("pods", json!({"spec": {"containers": [ask("1")]}, "status": {"phase": "Failed"}}), "count/pods=1"),
            ("pods", json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}}), "count/pods=1"),
            (
                "pods",
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:50Z", "deletionGracePeriodSeconds": 30}}),
                "count/pods=1 pods=1",
            ),
            ("services", json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}), "count/services=1 services=1 services.nodeports=2"),
            (
                "services",
                json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30000}, {}]}}),
                "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1",
            ),
            (
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}, "status": {"allocatedResources": {"storage": "3Gi"}}}),
                "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/requests.storage=3Gi persistentvolumeclaims=1 requests.storage=3Gi",
            ),
        ] {
            assert_eq!(shown(resource, &object), expected);
        }
    }

    #[test]
    fn a_quota_wants_everything_said() {
        let hard = json!({"cpu": "1", "limits.memory": "1Gi", "pods": "1", "requests.storage": "1Gi", "requests.example.com/gpu": "1"});
        let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"limits": {"memory": "1"}}}]}});
        assert_eq!(unspecified(hard.as_object().unwrap(), &pod), "cpu for: a,b; limits.memory for: b");
        let pod = json!({"spec": {"containers": [{"name": "b"}], "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1"}}}});
        assert_eq!(unspecified(hard.as_object().unwrap(), &pod), "", "the pod as a whole may say it");
    }

    #[test]
    fn scopes() {
        let named = json!({"spec": {"priorityClassName": "high", "activeDeadlineSeconds": 5, "containers": []}});
        let asking = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}]}});
        let select = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        for (spec, of_named, of_asking) in [
            (json!({}), true, true),
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating"]}), false, true),
            (json!({"scopes": ["BestEffort"]}), true, false),
            (json!({"scopes": ["NotBestEffort"]}), false, true),
            (json!({"scopes": ["Terminating", "NotBestEffort"]}), false, false),
            (json!({"scopes": ["PriorityClass"]}), true, false),
            (select("In", json!(["high"])), true, false),
            (select("NotIn", json!(["high"])), false, true),
            (select("DoesNotExist", Value::Null), false, true),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), false, false),
        ] {
            assert_eq!((in_scope(&spec, "pods", &named), in_scope(&spec, "pods", &asking)), (of_named, of_asking), "{spec}");
        }
        assert!(!in_scope(&json!({"scopes": ["BestEffort"]}), "services", &json!({})));
    }

    #[test]
    fn what_a_limit_is_about() {
        for (name, resource) in [
            ("pods", "pods"),
            ("limits.cpu", "pods"),
            ("requests.example.com/gpu", "pods"),
            ("requests.storage", "persistentvolumeclaims"),
            ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"),
            ("services.nodeports", "services"),
            ("secrets", "secrets"),
            ("count/jobs.batch", "jobs.batch"),
        ] {
            assert_eq!(resource_of(name).as_deref(), Some(resource), "{name}");
        }
        assert_eq!(resource_of("bogus"), None);
        assert!(concerns(json!({"cpu": 1}).as_object().unwrap(), "pods") && !concerns(json!({"cpu": 1}).as_object().unwrap(), "services"));
    }
}
