//! What a LimitRange makes of a pod or a claim: defaults for its containers, and what is out of bounds. Upstream's
//! `plugin/pkg/admission/limitranger`, whose plugin here asks for each LimitRange of the namespace.

use std::collections::BTreeMap;

use machinery::object::metadata_mut;
use machinery::quantity::Quantity;
use machinery::requests::List;
use serde_json::{Value, json};

use crate::quota::{amounts, total};
use crate::validate::tree::{list, list_mut, map, s};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives a pod's containers the requests and limits they lack, and notes which in an annotation.
pub fn default_pod(range: &Value, pod: &mut Value) {
    let mut given = BTreeMap::from([("requests", BTreeMap::new()), ("limits", BTreeMap::new())]);
    for limit in list(&range["spec"], "limits").iter().filter(|l| s(l, "type") == "Container") {
        for (kind, key) in [("requests", "defaultRequest"), ("limits", "default")] {
            for (name, amount) in map(limit, key).into_iter().flatten() {
                given.entry(kind).or_default().insert(name.clone(), amount.clone());
            }
        }
    }
    let mut notes = Vec::new();
    for key in ["containers", "initContainers"] {
        let word = if key == "containers" { "container" } else { "init container" };
        for container in list_mut(&mut pod["spec"], key) {
            notes.extend(default_container(container, word, &given));
        }
    }
    if !notes.is_empty() {
        let annotations = metadata_mut(pod).entry("annotations").or_insert_with(|| json!({}));
        annotations[ANNOTATION] = json!(format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn default_container(container: &mut Value, word: &str, given: &BTreeMap<&str, BTreeMap<String, Value>>) -> Vec<String> {
    let name = s(container, "name").to_owned();
    let mut notes = Vec::new();
    for (kind, said) in [("requests", "request"), ("limits", "limit")] {
        let mut set: Vec<&str> = Vec::new();
        for (resource, amount) in given.get(kind).into_iter().flatten() {
            if container["resources"][kind].get(resource).is_none() {
                container["resources"][kind][resource] = amount.clone();
                set.push(resource);
            }
        }
        if !set.is_empty() {
            notes.push(format!("{} {said} for {word} {name}", set.join(", ")));
        }
    }
    notes
}

/// What in a pod is out of a range's bounds, in words.
pub fn pod_problems(range: &Value, pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut problems = Vec::new();
    for limit in list(&range["spec"], "limits") {
        match s(limit, "type") {
            "Container" => {
                for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
                    let used = Used { requests: amounts(container, "requests"), limits: amounts(container, "limits") };
                    bounds("Container", limit, &used, &mut problems);
                }
            }
            "Pod" => bounds("Pod", limit, &Used { requests: total(spec, "requests"), limits: total(spec, "limits") }, &mut problems),
            _ => {}
        }
    }
    problems
}

/// What in a PersistentVolumeClaim is out of a range's bounds. A claim's request is held against the maximum, too.
pub fn claim_problems(range: &Value, claim: &Value) -> Vec<String> {
    let requests = amounts(&claim["spec"], "requests");
    let mut problems = Vec::new();
    for limit in list(&range["spec"], "limits").iter().filter(|l| s(l, "type") == "PersistentVolumeClaim") {
        let kind = "PersistentVolumeClaim";
        let used = Used { requests: requests.clone(), limits: List::new() };
        problems.extend(quantities(limit, "min").filter_map(|(name, bound)| minimum(kind, name, bound, &used)));
        problems.extend(quantities(limit, "max").filter_map(|(name, bound)| match requests.get(name) {
            None => Some(format!("maximum {name} usage per {kind} is {bound}.  No request is specified")),
            Some(request) if *request > bound => Some(format!("maximum {name} usage per {kind} is {bound}, but request is {request}")),
            Some(_) => None,
        }));
    }
    problems
}

struct Used {
    requests: List,
    limits: List,
}

fn quantities<'a>(limit: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, Quantity)> {
    map(limit, key).into_iter().flatten().filter_map(|(name, text)| Some((name.as_str(), Quantity::parse(text.as_str()?).ok()?)))
}

fn bounds(kind: &str, limit: &Value, used: &Used, problems: &mut Vec<String>) {
    problems.extend(quantities(limit, "min").filter_map(|(name, bound)| minimum(kind, name, bound, used)));
    problems.extend(quantities(limit, "max").filter_map(|(name, bound)| maximum(kind, name, bound, used)));
    problems.extend(quantities(limit, "maxLimitRequestRatio").filter_map(|(name, bound)| ratio(kind, name, bound, used)));
}

fn minimum(kind: &str, name: &str, bound: Quantity, used: &Used) -> Option<String> {
    let rule = format!("minimum {name} usage per {kind} is {bound}");
    let Some(request) = used.requests.get(name) else { return Some(format!("{rule}.  No request is specified")) };
    if *request < bound {
        return Some(format!("{rule}, but request is {request}"));
    }
    used.limits.get(name).filter(|limit| **limit < bound).map(|limit| format!("{rule}, but limit is {limit}"))
}

fn maximum(kind: &str, name: &str, bound: Quantity, used: &Used) -> Option<String> {
    let rule = format!("maximum {name} usage per {kind} is {bound}");
    let Some(limit) = used.limits.get(name) else { return Some(format!("{rule}.  No limit is specified")) };
    if *limit > bound {
        return Some(format!("{rule}, but limit is {limit}"));
    }
    used.requests.get(name).filter(|request| **request > bound).map(|request| format!("{rule}, but request is {request}"))
}

fn ratio(kind: &str, name: &str, bound: Quantity, used: &Used) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {bound}");
    let some = |amounts: &List| amounts.get(name).filter(|amount| !amount.is_zero()).copied();
    let Some(request) = some(&used.requests) else { return Some(format!("{rule}, but no request is specified or request is 0")) };
    let Some(limit) = some(&used.limits) else { return Some(format!("{rule}, but no limit is specified or limit is 0")) };
    let observed = limit.as_f64() / request.as_f64();
    (observed > bound.as_f64()).then(|| format!("{rule}, but provided ratio is {observed:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": [limits]}})
    }

    #[test]
    fn containers_get_what_they_lack() {
        let range = range(json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}));
        let mut pod = json!({"metadata": {}, "spec": {
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"limits": {"memory": "2Gi"}}}],
        }});
        default_pod(&range, &mut pod);
        let resources = |pointer: &str| pod.pointer(pointer).cloned().unwrap();
        assert_eq!(
            resources("/spec/containers/0/resources"),
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}})
        );
        assert_eq!(resources("/spec/containers/1/resources/limits/memory"), "1Mi");
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; \
             cpu request for init container i; cpu limit for init container i"
        );
        let before = pod.clone();
        default_pod(&super::tests::range(json!({"type": "Pod", "max": {"cpu": "1"}})), &mut pod);
        assert_eq!(pod, before, "only limits of containers have defaults");
    }

    #[test]
    fn bounds_are_told_in_words() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let strict = json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "10"}});
        for (limit, resources, expected) in [
            (
                strict.clone(),
                json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "500m"}}),
                vec![
                    "minimum cpu usage per Container is 50m, but request is 10m",
                    "cpu max limit to request ratio per Container is 10, but provided ratio is 50.000000",
                ],
            ),
            (
                strict,
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}),
                vec!["maximum cpu usage per Container is 2, but limit is 3"],
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}, "min": {"cpu": "100m"}}),
                json!({}),
                vec![
                    "minimum cpu usage per Pod is 100m.  No request is specified",
                    "maximum cpu usage per Pod is 1.  No limit is specified",
                    "maximum memory usage per Pod is 1Gi.  No limit is specified",
                ],
            ),
            (json!({"type": "PersistentVolumeClaim", "max": {"cpu": "1"}}), json!({}), vec![]),
        ] {
            assert_eq!(pod_problems(&range(limit), &pod(resources)), expected);
        }
    }

    #[test]
    fn claims_have_bounds() {
        let range = range(json!({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}, "min": {"storage": "1Gi"}}));
        let claim = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
        assert_eq!(
            claim_problems(&range, &claim("500Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"]
        );
        assert_eq!(claim_problems(&range, &claim("3Gi")), ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]);
        assert!(claim_problems(&range, &claim("1.5Gi")).is_empty());
    }
}
