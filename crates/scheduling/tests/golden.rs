//! Replays recorded decisions of kube-scheduler v1.36.2 (`../shared/scheduler-golden`), where they are there.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test harness that reads files")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;
use scheduling::cluster::{Budget, Spread, SpreadKind};
use scheduling::enqueue::{Hold, held_back};
use scheduling::plugins::Code;
use scheduling::plugins::dynamic_resources;
use scheduling::plugins::volume_binding::{Plan, plan};
use scheduling::preemption::preempt;
use scheduling::selector::Selector;
use scheduling::storage::Volume;
use scheduling::{Cluster, PodInfo, Verdict, schedule};
use serde_json::Value;

/// Least number of identical cases per topic; raise as plugins come.
const FLOOR: [(&str, usize); 16] = [
    ("combined", 281),
    ("defaultspread", 80),
    ("dynamicresources", 85),
    ("hostports", 83),
    ("imagelocality", 67),
    ("misc", 65),
    ("nodeaffinity", 166),
    ("nominated", 83),
    ("podaffinity", 222),
    ("preemption", 242),
    ("preemptpdb", 194),
    ("resources", 219),
    ("sequence", 83),
    ("taints", 121),
    ("topologyspread", 213),
    ("volumes", 192),
];

fn parse<T: serde::de::DeserializeOwned>(v: &Value) -> T {
    serde_json::from_value(v.clone()).unwrap()
}

fn list<'a>(case: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    case[name].as_array().into_iter().flatten()
}

fn cluster(case: &Value) -> Cluster {
    let mut out = Cluster::default();
    for node in list(case, "nodes") {
        out.set_node(Arc::new(parse::<Node>(node)));
    }
    for pod in list(case, "existingPods") {
        out.set_pod(&Arc::new(parse::<Pod>(pod)));
    }
    for namespace in list(case, "namespaces") {
        let namespace: Namespace = parse(namespace);
        out.namespaces.insert(namespace.metadata.name.unwrap(), namespace.metadata.labels.unwrap_or_default());
    }
    for budget in list(case, "podDisruptionBudgets") {
        let key = out.budgets.len().to_string();
        out.budgets.insert(key, Budget::of(&parse::<PodDisruptionBudget>(budget)));
    }
    for service in list(case, "services") {
        let service: Service = parse(service);
        let selector = service.spec.and_then(|s| s.selector).unwrap_or_default();
        let key = out.spread.len().to_string();
        out.spread.insert(
            key,
            Spread { namespace: service.metadata.namespace.unwrap(), kind: SpreadKind::Service, selector: Selector::of_set(&selector) },
        );
    }
    for (name, kind) in
        [("replicaSets", "ReplicaSet"), ("statefulSets", "StatefulSet"), ("replicationControllers", "ReplicationController")]
    {
        for owner in list(case, name) {
            let selector = &owner["spec"]["selector"];
            let selector = if kind == "ReplicationController" {
                Selector::of_set(&parse(selector))
            } else {
                Selector::of(Some(&parse::<LabelSelector>(selector)))
            };
            let meta = &owner["metadata"];
            let key = out.spread.len().to_string();
            out.spread.insert(
                key,
                Spread {
                    namespace: meta["namespace"].as_str().unwrap().to_owned(),
                    kind: SpreadKind::Owner(kind.to_owned(), meta["name"].as_str().unwrap().to_owned()),
                    selector,
                },
            );
        }
    }
    load_storage(case, &mut out);
    let devices = Arc::make_mut(&mut out.devices);
    devices.claims.extend(named(case, "resourceClaims"));
    devices.classes.extend(named(case, "deviceClasses"));
    devices.slices.extend(named(case, "resourceSlices"));
    out
}

fn named<T: serde::de::DeserializeOwned>(case: &Value, list_name: &str) -> Vec<(String, Arc<T>)> {
    let key = |meta: &Value| match meta["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", meta["name"].as_str().unwrap()),
        None => meta["name"].as_str().unwrap().to_owned(),
    };
    list(case, list_name).map(|o| (key(&o["metadata"]), Arc::new(parse(o)))).collect()
}

fn load_storage(case: &Value, out: &mut Cluster) {
    let storage = Arc::make_mut(&mut out.storage);
    storage.claims.extend(named(case, "persistentVolumeClaims"));
    storage.volumes.extend(named(case, "persistentVolumes").into_iter().map(|(k, v)| (k, Volume::new(v))));
    storage.classes.extend(named(case, "storageClasses"));
    storage.csi_nodes.extend(named(case, "csiNodes"));
    storage.csi_drivers.extend(named(case, "csiDrivers"));
    storage.capacities.extend(named(case, "csiStorageCapacities"));
}

fn code(code: Code) -> &'static str {
    match code {
        Code::Unschedulable => "Unschedulable",
        Code::UnschedulableAndUnresolvable => "UnschedulableAndUnresolvable",
        Code::Error => "Error",
    }
}

/// The first difference from the recorded verdict, in words.
fn compare_one(case: &Value) -> Result<(), String> {
    let pod = PodInfo::new(Arc::new(parse::<Pod>(&case["pod"])));
    let cluster = cluster(case);
    let want = &case["verdict"];
    if let Some(hold) = held_back(&cluster, &pod, "default-scheduler") {
        let ours = match hold {
            Hold::NotOurs => "ignored",
            Hold::Gated => "gated",
            Hold::Waiting(_) => "notEnqueued",
        };
        return (want["result"] == ours).then_some(()).ok_or(format!("{ours}, wanted {}", want["result"]));
    }
    compare(&cluster, &pod, want)
}

/// Attempts for several pods, one after the other. Each starts from what upstream did before, not from what we would have done.
fn compare_all(case: &Value) -> Result<(), String> {
    let mut cluster = cluster(case);
    let pods: BTreeMap<String, Arc<PodInfo>> =
        list(case, "pods").map(|p| Arc::new(PodInfo::new(Arc::new(parse::<Pod>(p))))).map(|p| (p.key(), p)).collect();
    for want in list(&case["verdict"], "attempts") {
        let pod = &pods[want["pod"].as_str().unwrap()];
        compare(&cluster, pod, want).map_err(|why| format!("{}: {why}", pod.key()))?;
        if let Some(node) = want["suggestedNode"].as_str() {
            cluster.place(node, pod.clone());
        } else if let Some(node) = want["postFilter"]["selected"]["node"].as_str() {
            cluster.nominated.insert(pod.key(), (node.to_owned(), pod.clone()));
            for victim in list(&want["postFilter"]["selected"], "victims") {
                let key = victim.as_str().unwrap();
                let here = cluster.nodes[node].pods.iter().find(|p| p.key() == key).unwrap();
                let mut leaving = Pod::clone(&here.pod);
                leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                cluster.set_pod(&Arc::new(leaving));
            }
        }
    }
    Ok(())
}

fn compare(cluster: &Cluster, pod: &PodInfo, want: &Value) -> Result<(), String> {
    match schedule(cluster, pod, &mut |_| 0) {
        Verdict::Error(why) => (want["result"] == "error").then_some(()).ok_or(format!("error {why}, wanted {}", want["result"])),
        Verdict::Place { ties, scores, .. } => {
            let chosen = want["node"].as_str().or(want["suggestedNode"].as_str()).unwrap_or("");
            let plan = cluster.nodes.get(chosen).and_then(|n| plan(cluster, pod, n));
            let result = if plan.as_ref().is_some_and(Plan::is_empty) { "bound" } else { "waitingForVolumes" };
            if want["result"] != result || !want["failure"].is_null() {
                return Err(format!("placed, wanted {}: {}", want["result"], want["condition"]["message"]));
            }
            for score in scores.iter().filter(|_| want["scores"].is_object()) {
                let wanted = &want["scores"][&score.node];
                if wanted["total"].as_i64() != Some(score.total) {
                    let theirs: BTreeMap<&str, i64> = wanted["plugins"]
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(k, v)| (k.as_str(), v["weighted"].as_i64().unwrap()))
                        .collect();
                    return Err(format!("{} scores {:?}, wanted {theirs:?}", score.node, score.plugins));
                }
            }
            let acceptable: BTreeSet<&str> = list(want, "acceptableNodes").filter_map(Value::as_str).collect();
            let ours: BTreeSet<&str> = ties.iter().map(String::as_str).collect();
            if acceptable != ours {
                return Err(format!("best {ours:?}, wanted {acceptable:?}"));
            }
            compare_volumes(&plan.unwrap_or_default(), want)?;
            compare_claims(cluster, pod, want)
        }
        Verdict::Unschedulable(failed) => {
            // An attempt may have failed of a pod that was bound in a later one.
            if want["result"] != "unschedulable" && want["failure"].is_null() {
                return Err(format!("{}, wanted {}", failed.message, want["result"]));
            }
            for (node, rejection) in &failed.rejected {
                let wanted = &want["filter"]["rejected"][node];
                if wanted["plugin"] != rejection.plugin || wanted["code"] != code(rejection.code) {
                    return Err(format!("{node}: {rejection:?}, wanted {wanted}"));
                }
            }
            compare_preemption(cluster, pod, &failed, want)
        }
    }
}

fn compare_volumes(plan: &Plan, want: &Value) -> Result<(), String> {
    let changes = plan.bind.iter().map(|(volume, claim)| (format!("pv/{volume}"), format!("claimRef {claim}")));
    let node = want["node"].as_str().unwrap_or("");
    let changes = changes.chain(plan.provision.iter().map(|claim| (format!("pvc/{claim}"), format!("selected-node {node}"))));
    let ours: BTreeMap<String, String> = changes.collect();
    let theirs = want["volumeChanges"].as_object().into_iter().flatten().map(|(key, change)| {
        let (what, value) = change.as_object().unwrap().iter().next().unwrap();
        (key.clone(), format!("{what} {}", value.as_str().unwrap()))
    });
    let theirs: BTreeMap<String, String> = theirs.collect();
    (ours == theirs).then_some(()).ok_or(format!("writes {ours:?}, wanted {theirs:?}"))
}

/// Which devices the pod's claims get on the node that upstream chose.
fn compare_claims(cluster: &Cluster, pod: &PodInfo, want: &Value) -> Result<(), String> {
    let Some(node) = want["resourceClaims"].as_object().and_then(|_| cluster.nodes.get(want["node"].as_str()?)) else { return Ok(()) };
    let plan = dynamic_resources::plan(cluster, pod, node).unwrap();
    let claims = plan.claims.into_iter().map(|(key, a)| (key.split('/').nth(1).unwrap().to_owned(), a));
    let extended = plan.extended.map(|(_, a)| ("<extended resource claim>".to_owned(), Some(a)));
    for (claim, allocation) in claims.chain(extended) {
        let wanted = &want["resourceClaims"][&claim];
        let reserved = list(wanted, "reservedFor").any(|r| r == pod.name());
        let ours = serde_json::to_value(&allocation).unwrap();
        let same =
            allocation.is_none() || ours["devices"]["results"] == wanted["devices"] && ours["nodeSelector"] == wanted["nodeSelector"];
        if !reserved || !same {
            return Err(format!("{claim} gets {ours}, wanted {wanted}"));
        }
    }
    Ok(())
}

fn compare_preemption(cluster: &Cluster, pod: &PodInfo, failed: &scheduling::schedule::Unschedulable, want: &Value) -> Result<(), String> {
    let found = preempt(cluster, pod, failed);
    let theirs: BTreeMap<&str, (BTreeSet<&str>, u64)> = list(&want["postFilter"], "candidates")
        .map(|c| {
            (c["node"].as_str().unwrap(), (list(c, "victims").filter_map(Value::as_str).collect(), c["pdbViolations"].as_u64().unwrap()))
        })
        .collect();
    let keys: Vec<(String, Vec<String>, u64)> = found
        .candidates
        .iter()
        .map(|c| (c.node.clone(), c.victims.iter().map(|v| v.key()).collect(), c.budget_violations as u64))
        .collect();
    let ours: BTreeMap<&str, (BTreeSet<&str>, u64)> =
        keys.iter().map(|(n, v, b)| (n.as_str(), (v.iter().map(String::as_str).collect(), *b))).collect();
    if ours != theirs {
        return Err(format!("candidates {ours:?}, wanted {theirs:?}"));
    }
    let best: BTreeSet<&str> = found.best().iter().map(|c| c.node.as_str()).collect();
    let acceptable: BTreeSet<&str> = list(&want["postFilter"], "acceptableNominatedNodes").filter_map(Value::as_str).collect();
    if best != acceptable {
        return Err(format!("best candidates {best:?}, wanted {acceptable:?}"));
    }
    let message = if found.message.is_empty() { failed.message.clone() } else { format!("{} {}", failed.message, found.message) };
    let wanted = want["condition"]["message"].as_str().or(want["failure"]["message"].as_str()).unwrap_or("");
    (message == wanted).then_some(()).ok_or(format!("says {message:?}, wanted {wanted:?}"))
}

#[test]
fn decides_as_upstream() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/scheduler-golden");
    let folder = std::env::var_os("SKIFF_SHARED").map_or(folder, |f| Path::new(&f).join("scheduler-golden"));
    if !folder.exists() {
        println!("skipped: no recorded decisions here");
        return;
    }
    // How many differences to print per topic.
    let show: usize = std::env::var("SHOW").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for (topic, floor) in FLOOR {
        let file = std::fs::File::open(folder.join(format!("{topic}.jsonl.gz"))).unwrap();
        let (mut same, mut all) = (0, 0);
        for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines() {
            let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
            all += 1;
            match if case["pods"].is_array() { compare_all(&case) } else { compare_one(&case) } {
                Ok(()) => same += 1,
                Err(why) if all - same <= show => println!("{}: {why}", case["id"]),
                Err(_) => {}
            }
        }
        println!("{topic}: {same} of {all} identical");
        assert!(same >= floor, "{topic}: {same} of {all} identical, {floor} before");
    }
}
