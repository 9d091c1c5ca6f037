//! Small clusters with known decisions (`decisions.yaml`), and properties of any decision. Needs no recordings.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use scheduling::plugins::volume_binding::plan;
use scheduling::preemption::preempt;
use scheduling::schedule::Filters;
use scheduling::storage::Volume;
use scheduling::{Cluster, PodInfo, Verdict, schedule};
use serde_json::{Value, json};

fn parse<T: serde::de::DeserializeOwned>(v: Value) -> T {
    serde_json::from_value(v).unwrap()
}

fn list<'a>(v: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    v[name].as_array().into_iter().flatten()
}

fn node(short: &Value) -> Node {
    let offers = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
    parse(json!({
        "metadata": { "name": short["name"], "labels": short["labels"] },
        "spec": { "taints": short["taints"], "unschedulable": short["unschedulable"] },
        "status": { "allocatable": offers, "capacity": offers },
    }))
}

fn pod(short: &Value) -> Pod {
    let mut spec = if short["spec"].is_object() { short["spec"].clone() } else { json!({}) };
    if !spec["containers"].is_array() {
        let requests = if short["cpu"].is_string() { json!({ "cpu": short["cpu"] }) } else { json!({}) };
        spec["containers"] = json!([{ "name": "c", "resources": { "requests": requests } }]);
    }
    spec["nodeName"] = short["node"].clone();
    spec["priority"] = short["priority"].clone();
    if short["claim"].is_string() {
        spec["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": short["claim"] } }]);
    }
    if short["resourceClaim"].is_string() {
        spec["resourceClaims"] = json!([{ "name": "r", "resourceClaimName": short["resourceClaim"] }]);
    }
    let name = short["name"].as_str().unwrap_or("pod");
    parse(json!({ "metadata": { "name": name, "namespace": "default", "labels": short["labels"] }, "spec": spec }))
}

fn named<T: serde::de::DeserializeOwned>(from: &Value, name: &str) -> Vec<(String, Arc<T>)> {
    let key = |meta: &Value| match meta["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", meta["name"].as_str().unwrap()),
        None => meta["name"].as_str().unwrap().to_owned(),
    };
    list(from, name).map(|o| (key(&o["metadata"]), Arc::new(parse(o.clone())))).collect()
}

fn cluster(case: &Value) -> Cluster {
    let mut out = Cluster::default();
    for short in list(case, "nodes") {
        out.set_node(Arc::new(node(short)));
    }
    for short in list(case, "pods") {
        out.set_pod(&Arc::new(pod(short)));
    }
    let storage = Arc::make_mut(&mut out.storage);
    storage.classes.extend(named(&case["storage"], "classes"));
    storage.claims.extend(named(&case["storage"], "claims"));
    storage.volumes.extend(named(&case["storage"], "volumes").into_iter().map(|(k, v)| (k, Volume::new(v))));
    storage.csi_drivers.extend(named(&case["storage"], "drivers"));
    storage.capacities.extend(named(&case["storage"], "capacities"));
    let devices = Arc::make_mut(&mut out.devices);
    devices.classes.extend(named(&case["devices"], "classes"));
    devices.slices.extend(named(&case["devices"], "slices"));
    devices.claims.extend(named(&case["devices"], "claims"));
    out
}

/// What was decided, in the words of the table.
fn decide(case: &Value) -> Value {
    let cluster = cluster(case);
    let pod = PodInfo::new(Arc::new(pod(&case["pod"])));
    match schedule(&cluster, &pod, &mut |_| 0) {
        Verdict::Error(why) => json!({ "error": why }),
        Verdict::Place { node, ties, .. } => {
            let plan = plan(&cluster, &pod, &cluster.nodes[&node]).unwrap();
            let mut out = json!({ "goes_to": ties });
            if !plan.bind.is_empty() {
                out["binds"] = json!(plan.bind.into_iter().collect::<BTreeMap<_, _>>());
            }
            if !plan.provision.is_empty() {
                out["provisions"] = json!(plan.provision);
            }
            out
        }
        Verdict::Unschedulable(failed) => {
            let found = preempt(&cluster, &pod, &failed);
            if found.candidates.is_empty() {
                return json!({ "message": format!("{} {}", failed.message, found.message).trim_end() });
            }
            let victims = |c: &scheduling::preemption::Candidate| c.victims.iter().map(|v| v.key()).collect::<Vec<_>>();
            let evicts: BTreeMap<&str, Vec<String>> = found.candidates.iter().map(|c| (c.node.as_str(), victims(c))).collect();
            let best: Vec<&str> = found.best().iter().map(|c| c.node.as_str()).collect();
            json!({ "message": failed.message, "evicts": evicts, "best": best })
        }
    }
}

#[test]
fn small_clusters() {
    let cases: Vec<Value> = serde_saphyr::from_str(include_str!("decisions.yaml")).unwrap();
    assert!(cases.len() >= 12, "the table is read");
    for case in cases {
        let wanted = case.as_object().unwrap().iter();
        let wanted: serde_json::Map<String, Value> = wanted
            .filter(|(k, _)| ["goes_to", "message", "error", "evicts", "best", "binds", "provisions"].contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert_eq!(decide(&case), Value::Object(wanted), "{}", case["name"]);
    }
}

fn a_node(i: usize) -> impl Strategy<Value = Value> {
    (0..3usize, 0..6usize).prop_map(move |(zone, kind)| {
        let taints = if kind == 0 { json!([{ "key": "full", "effect": "NoSchedule" }]) } else { json!(null) };
        json!({ "name": format!("n{i}"), "labels": { "zone": format!("z{zone}"), "host": format!("n{i}") }, "taints": taints, "unschedulable": kind == 1 })
    })
}

fn a_pod(i: usize, nodes: usize) -> impl Strategy<Value = Value> {
    (0..nodes, 0..3usize, 0..4u32, 0..3i32, 0..6usize).prop_map(move |(node, app, cpu, priority, rule)| {
        let app = format!("a{app}");
        let term = json!({ "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": "zone" });
        let spec = match rule {
            0 => json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } }),
            1 => json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } }),
            2 => json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": app } } }] }),
            _ => json!({}),
        };
        json!({ "name": format!("p{i}"), "node": format!("n{node}"), "labels": { "app": app }, "cpu": cpu.to_string(), "priority": priority, "spec": spec })
    })
}

prop_compose! {
    fn a_case()(nodes in 1..7usize, pods in 0..10usize)(
        nodes_ in (0..nodes).map(a_node).collect::<Vec<_>>(),
        pods_ in (0..pods).map(|i| a_pod(i, nodes)).collect::<Vec<_>>(),
        mut pod in a_pod(99, nodes),
    ) -> Value {
        pod["node"] = Value::Null;
        json!({ "nodes": nodes_, "pods": pods_, "pod": pod })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A node is feasible exactly if every filter passes it; the one chosen is among the best; a candidate's victims are
    /// enough, less important, and on that node.
    #[test]
    fn decisions_follow_from_filters(case in a_case(), entropy in 0..100usize) {
        let cluster = cluster(&case);
        let pod = PodInfo::new(Arc::new(pod(&case["pod"])));
        let Ok(filters) = Filters::prepare(&cluster, &pod) else { return Ok(()) };
        let passing: BTreeSet<&str> =
            cluster.nodes.values().filter(|n| filters.check(&pod, n).is_ok()).map(|n| n.name()).collect();
        match schedule(&cluster, &pod, &mut |n| entropy % n) {
            Verdict::Error(why) => prop_assert!(false, "{why}"),
            Verdict::Place { node, ties, scores } => {
                prop_assert!(passing.contains(node.as_str()));
                prop_assert!(ties.contains(&node));
                let scored: BTreeSet<&str> = scores.iter().map(|s| s.node.as_str()).collect();
                prop_assert!(passing.len() == 1 || scored == passing);
                let best = scores.iter().map(|s| s.total).max();
                prop_assert!(scores.iter().all(|s| (Some(s.total) == best) == ties.contains(&s.node)));
            }
            Verdict::Unschedulable(failed) => {
                prop_assert!(passing.is_empty());
                prop_assert_eq!(failed.rejected.len(), cluster.nodes.len());
                for candidate in preempt(&cluster, &pod, &failed).candidates {
                    let mut after = cluster.clone();
                    for victim in &candidate.victims {
                        prop_assert!(victim.priority() < pod.priority());
                        prop_assert_eq!(cluster.node_of(&victim.key()), Some(candidate.node.as_str()));
                        after.remove_pod(&victim.key());
                    }
                    let fits = Filters::prepare(&after, &pod).is_ok_and(|f| f.check(&pod, &after.nodes[&candidate.node]).is_ok());
                    prop_assert!(fits, "{} without {:?}", candidate.node, candidate.victims.len());
                }
            }
        }
    }
}
