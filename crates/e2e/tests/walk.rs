//! The walk of a new user, without kubectl: up, a Deployment behind a Service, self-healing, kill -9, down, up, delete.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, eventually, is_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "hello", "image": "skiff/hello", "ports": [{ "containerPort": 80 }] }] },
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "type": "LoadBalancer", "selector": { "app": name }, "ports": [{ "port": 80 }] },
    })
}

fn create(cluster: &Cluster, path: &str, object: &Value) {
    cluster.request("POST", path, Some(object)).unwrap();
}

/// Running and ready pods that are not being deleted.
fn ready(cluster: &Cluster, app: &str) -> Result<Vec<Value>> {
    let list = cluster.get(&format!("{PODS}?labelSelector=app%3D{app}"))?;
    let is_ready = |p: &&Value| {
        p["metadata"]["deletionTimestamp"].is_null()
            && p["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    Ok(list["items"].as_array().context("a list")?.iter().filter(is_ready).cloned().collect())
}

fn wait_ready(cluster: &Cluster, app: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} ready pods of {app}"), || {
        let pods = ready(cluster, app)?;
        ensure!(pods.len() == count, "{} are ready", pods.len());
        Ok(pods)
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{:#}\n{}", cluster.get(PODS).unwrap()["items"], cluster.log()))
}

/// Fetches until every one of so many pods has answered.
fn reach_all(cluster: &Cluster, host: &str, count: usize) {
    let mut seen = BTreeSet::new();
    for _ in 0..count * 20 {
        seen.insert(cluster.fetch(host, 80).unwrap());
        if seen.len() == count {
            return;
        }
    }
    panic!("only {} of {count} pods answer: {seen:?}", seen.len());
}

fn external_ip(cluster: &Cluster, name: &str) -> String {
    eventually("an external address", || {
        let service = cluster.get(&format!("/api/v1/namespaces/default/services/{name}"))?;
        let ip = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
        Ok(ip.as_str().context("none yet")?.to_owned())
    })
    .unwrap()
}

/// The process on this machine that runs a pod's container: its host name is the pod's name.
fn process_of(pod: &str) -> Result<i32> {
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim() == "hello" && environment.split(|b| *b == 0).any(|v| v == format!("HOSTNAME={pod}").as_bytes()) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no process has the host name {pod}")
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap()
}

fn scale(cluster: &Cluster, deployment: &str, replicas: u32) {
    let path = format!("/apis/apps/v1/namespaces/default/deployments/{deployment}");
    cluster.request("PATCH", &path, Some(&json!({ "spec": { "replicas": replicas } }))).unwrap();
}

#[test]
fn a_new_user_walks() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::place().unwrap();
    fs::write(
        cluster.kubeconfig(),
        "apiVersion: v1\nkind: Config\nclusters: [{name: other, cluster: {server: 'https://other'}}]\ncontexts: [{name: other, context: {cluster: other, user: other}}]\nusers: [{name: other, user: {token: x}}]\ncurrent-context: other\n",
    )
    .unwrap();
    let said = cluster.skiff(&["up"]).unwrap().ok().unwrap();
    assert!(said.contains("ready after") && said.contains("kubectl get nodes"), "{said}");
    let config = fs::read_to_string(cluster.kubeconfig()).unwrap();
    assert!(config.contains("https://other") && config.contains("current-context: skiff"), "{config}");
    assert!(cluster.skiff(&["up"]).unwrap().ok().unwrap().contains("already runs"));
    let dns = cluster.get("/api/v1/namespaces/kube-system/services/kube-dns").unwrap();
    assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");

    create(&cluster, "/apis/apps/v1/namespaces/default/deployments", &deployment("hello", 1));
    create(&cluster, "/api/v1/namespaces/default/services", &service("hello"));
    wait_ready(&cluster, "hello", 1);
    let address = external_ip(&cluster, "hello");
    eventually("the service answers", || cluster.fetch(&address, 80)).unwrap();
    scale(&cluster, "hello", 5);
    let pods = wait_ready(&cluster, "hello", 5);
    eventually("five endpoints", || {
        let slices = cluster.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")?;
        let count: usize = slices["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "hello")
            .map(|s| s["endpoints"].as_array().map_or(0, Vec::len))
            .sum();
        ensure!(count == 5, "{count}");
        Ok(())
    })
    .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    reach_all(&cluster, &address, 5);

    heal(&cluster, &pods);
    survive_kill(&cluster);
    leave_nothing(&cluster);
}

/// A killed container is started again and counted; a deleted pod is replaced.
fn heal(cluster: &Cluster, pods: &[Value]) {
    let victim = name(&pods[0]).to_owned();
    kill(Pid::from_raw(process_of(&victim).unwrap()), Signal::SIGKILL).unwrap();
    eventually("the container runs again", || {
        let pod = cluster.get(&format!("{PODS}/{victim}"))?;
        ensure!(restarts(&pod) == 1, "{}", pod["status"]["containerStatuses"][0]);
        ensure!(pod["status"]["containerStatuses"][0]["state"]["running"].is_object(), "{}", pod["status"]["containerStatuses"][0]);
        ensure!(
            pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137,
            "{}",
            pod["status"]["containerStatuses"][0]
        );
        Ok(())
    })
    .unwrap();
    let gone = name(&pods[1]).to_owned();
    cluster.request("DELETE", &format!("{PODS}/{gone}"), None).unwrap();
    eventually("the pod is gone", || match cluster.get(&format!("{PODS}/{gone}")) {
        Err(_) => Ok(()),
        Ok(pod) => anyhow::bail!("{}", pod["metadata"]),
    })
    .unwrap();
    wait_ready(cluster, "hello", 5);
}

/// kill -9 of the daemon: it comes back, pods ran on, nothing acknowledged is lost.
fn survive_kill(cluster: &Cluster) {
    let before = wait_ready(cluster, "hello", 5);
    let pids: Vec<i32> = before.iter().map(|p| process_of(name(p)).unwrap()).collect();
    create(
        cluster,
        "/api/v1/namespaces/default/configmaps",
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kept" }, "data": { "a": "b" } }),
    );
    let daemon = cluster.process("daemon").unwrap();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    eventually("another daemon answers", || {
        ensure!(cluster.process("daemon")? != daemon, "still the old one");
        cluster.get("/readyz").map(|_| ()).or_else(|_| cluster.get("/version").map(|_| ()))
    })
    .unwrap();
    assert_eq!(cluster.get("/api/v1/namespaces/default/configmaps/kept").unwrap()["data"]["a"], "b");
    // The kubelet has taken them up once it has written a status; a restart would show by then.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let after = wait_ready(cluster, "hello", 5);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((name(old), restarts(old)), (name(new), restarts(new)));
    }
    let still: Vec<i32> = after.iter().map(|p| process_of(name(p)).unwrap()).collect();
    assert_eq!(pids, still);
}

/// `down` leaves nothing but data, `up` brings the workloads back, `delete` removes the data too.
fn leave_nothing(cluster: &Cluster) {
    let id = cluster.id().unwrap();
    cluster.skiff(&["down"]).unwrap().ok().unwrap();
    assert_nothing_left(cluster, &id);
    assert!(cluster.data_dir().exists());
    assert!(cluster.skiff(&["status"]).unwrap().ok().unwrap().contains("stopped"));
    cluster.skiff(&["up"]).unwrap().ok().unwrap();
    wait_ready(cluster, "hello", 5);
    let address = external_ip(cluster, "hello");
    eventually("the service answers again", || cluster.fetch(&address, 80)).unwrap();
    let status = cluster.skiff(&["status"]).unwrap().ok().unwrap();
    assert!(status.contains("Ready") && status.contains("v1.36"), "{status}");
    cluster.skiff(&["delete"]).unwrap().ok().unwrap();
    assert_nothing_left(cluster, &id);
    assert!(!cluster.data_dir().exists());
    let config = fs::read_to_string(cluster.kubeconfig()).unwrap();
    assert!(config.contains("https://other") && !config.contains("skiff"), "{config}");
}

fn assert_nothing_left(cluster: &Cluster, id: &str) {
    assert_eq!(cluster.processes().unwrap(), Vec::<i32>::new(), "processes are left");
    assert_eq!(cluster.mounts().unwrap(), Vec::<String>::new(), "mounts are left");
    assert_eq!(cluster.links().unwrap(), ["lo"], "links are left");
    assert_eq!(cluster.tables().unwrap(), Vec::<String>::new(), "nftables tables are left");
    let mut groups = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        if let Ok(entries) = fs::read_dir(hierarchy.path()) {
            groups.extend(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.contains(id)));
        }
    }
    assert!(groups.is_empty(), "control groups are left: {groups:?}");
    assert!(!cluster.run_dir().exists(), "the run directory is left");
}

#[test]
fn fifty_endpoints_are_all_reached() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    create(&cluster, "/apis/apps/v1/namespaces/default/deployments", &deployment("many", 50));
    create(&cluster, "/api/v1/namespaces/default/services", &service("many"));
    wait_ready(&cluster, "many", 50);
    let ip = cluster.get("/api/v1/namespaces/default/services/many").unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    std::thread::sleep(std::time::Duration::from_millis(500));
    reach_all(&cluster, &ip, 50);
}
