//! Several nodes on one machine, and several clusters.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, eventually, eventually_within, is_root};
use serde_json::{Value, json};

fn tolerant(replicas: u32) -> Value {
    let toleration = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3 });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "mover" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "mover" } },
            "template": {
                "metadata": { "labels": { "app": "mover" } },
                "spec": {
                    "tolerations": [toleration("node.kubernetes.io/unreachable"), toleration("node.kubernetes.io/not-ready")],
                    "containers": [{ "name": "hello", "image": "skiff/hello" }],
                },
            },
        },
    })
}

/// Nodes of the running pods that nobody is deleting.
fn places(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dmover")?;
    let running = |p: &&Value| p["status"]["phase"] == "Running" && p["metadata"]["deletionTimestamp"].is_null();
    Ok(pods["items"]
        .as_array()
        .context("a list")?
        .iter()
        .filter(running)
        .filter_map(|p| Some(p["spec"]["nodeName"].as_str()?.to_owned()))
        .collect())
}

#[test]
fn pods_of_a_lost_node_move() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(2).unwrap();
    cluster.request("POST", "/apis/apps/v1/namespaces/default/deployments", Some(&tolerant(4))).unwrap();
    let nodes = eventually("four pods run", || {
        let nodes = places(&cluster)?;
        ensure!(nodes.len() == 4, "{nodes:?}");
        Ok(nodes.into_iter().collect::<BTreeSet<_>>())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cluster.log()));
    assert_eq!(nodes, BTreeSet::from(["skiff".to_owned(), "skiff-2".to_owned()]), "both nodes take pods");
    // Across nodes: every pod answers the host, which is the first node.
    let pods = cluster.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dmover").unwrap();
    for pod in pods["items"].as_array().unwrap() {
        let ip = pod["status"]["podIP"].as_str().unwrap();
        eventually("a pod answers", || cluster.fetch(ip, 80)).unwrap();
    }
    cluster.skiff(&["node", "stop", "skiff-2"]).unwrap().ok().unwrap();
    eventually_within(Duration::from_secs(120), "the pods have moved", || {
        let nodes = places(&cluster)?;
        ensure!(nodes.len() == 4 && nodes.iter().all(|n| n == "skiff"), "{nodes:?}");
        Ok(())
    })
    .unwrap();
    let node = cluster.get("/api/v1/nodes/skiff-2").unwrap();
    let ready = node["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_eq!((ready["status"].as_str(), ready["reason"].as_str()), (Some("Unknown"), Some("NodeStatusUnknown")), "{ready}");
    cluster.skiff(&["node", "start", "skiff-2"]).unwrap().ok().unwrap();
    eventually_within(Duration::from_secs(60), "the node is back", || {
        let node = cluster.get("/api/v1/nodes/skiff-2")?;
        let conditions = node["status"]["conditions"].as_array().context("conditions")?.clone();
        ensure!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{conditions:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn two_clusters_live_side_by_side() {
    if !is_root() {
        return;
    }
    let first = Cluster::up(1).unwrap();
    let second = first.beside().unwrap();
    second.skiff(&["up"]).unwrap().ok().unwrap();
    let server = |cluster: &Cluster| cluster.get("/api/v1/namespaces/kube-system").unwrap()["metadata"]["uid"].clone();
    assert_ne!(server(&first), server(&second));
    for cluster in [&first, &second] {
        let nodes = cluster.get("/api/v1/nodes").unwrap();
        assert_eq!(nodes["items"].as_array().unwrap().len(), 1);
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": { "app": "p" } }, "spec": { "containers": [{ "name": "c", "image": "skiff/hello" }] } });
        cluster.request("POST", "/api/v1/namespaces/default/pods", Some(&pod)).unwrap();
        let ip = eventually("the pod runs", || {
            let pod = cluster.get("/api/v1/namespaces/default/pods/p")?;
            ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]);
            Ok(pod["status"]["podIP"].as_str().context("an address")?.to_owned())
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cluster.log()));
        assert_eq!(eventually("the pod answers", || cluster.fetch(&ip, 80)).unwrap(), "Hello from p");
    }
    second.skiff(&["delete"]).unwrap().ok().unwrap();
    assert_eq!(first.get("/api/v1/namespaces/default/pods/p").unwrap()["status"]["phase"], "Running");
    let ip = first.get("/api/v1/namespaces/default/pods/p").unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(first.fetch(&ip, 80).unwrap(), "Hello from p");
}
