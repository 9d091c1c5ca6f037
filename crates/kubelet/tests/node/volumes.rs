//! Volumes on a real file system: content, live updates, tokens, subPaths.

use std::fs;

use serde_json::json;
use trial::found;

use crate::cluster::Cluster;

fn host(c: &crate::fake_cri::Container, path: &str) -> std::path::PathBuf {
    c.config.mounts.iter().find(|m| m.container_path == path).unwrap().host_path.clone().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_updates_and_tokens() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.config_map("cm", json!({"k": "v1"})).await;
    c.secret("s", json!({"pw": "hi"})).await;
    let volumes = json!([
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "s", "secret": {"secretName": "s", "items": [{"key": "pw", "path": "a/b", "mode": 256}]}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "e", "emptyDir": {}}]);
    let mounts = json!([{"name": "cm", "mountPath": "/cm"}, {"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"}, {"name": "e", "mountPath": "/e"}]);
    c.pod("p", json!({"volumes": volumes, "containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never", "volumeMounts": mounts}]})).await;
    c.running("p").await;
    let a = c.fake.running("a").unwrap();
    assert_eq!(fs::read_to_string(host(&a, "/cm").join("k")).unwrap(), "v1");
    assert_eq!(fs::read_to_string(host(&a, "/s").join("a/b")).unwrap(), "hi");
    assert_eq!(fs::read_to_string(host(&a, "/d").join("labels")).unwrap(), "app=\"p\"");
    assert!(host(&a, "/e").is_dir());
    let token = host(&a, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(fs::read_to_string(token.join("ca.crt")).unwrap(), "CA");
    assert_eq!(fs::read_to_string(token.join("namespace")).unwrap(), "default");
    assert_eq!(fs::read_to_string(token.join("token")).unwrap().split('.').count(), 3, "a JWT");
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(c.admin.clone(), "default");
    maps.patch("cm", &Default::default(), &kube::api::Patch::Merge(json!({"data": {"k": "v2"}}))).await.unwrap();
    let file = host(&a, "/cm").join("k");
    found("the update", || async { (fs::read_to_string(&file).unwrap() == "v2").then_some(()) }).await;
    let dir = c.config.root_dir.join("pods");
    c.delete("p").await;
    c.gone("p").await;
    assert!(fs::read_dir(dir).unwrap().next().is_none(), "volumes are gone before the object is");
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_config_map_holds_the_pod_back() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.pod("p", json!({"volumes": [{"name": "cm", "configMap": {"name": "late"}}], "containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never"}]})).await;
    let want = "FailedMount MountVolume.SetUp failed for volume \"cm\" : configmap \"late\" not found";
    found("the event", || async { c.events().await.iter().any(|e| e == want).then_some(()) }).await;
    assert!(c.fake.running("a").is_none());
    c.config_map("late", json!({"k": "v"})).await;
    c.running("p").await;
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_pod_left_is_removed() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.pod("p", json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never"}]})).await;
    c.running("p").await;
    let (lost, logs) = (c.config.root_dir.join("pods/lost"), c.config.pod_logs_dir.join("default_lost_lost"));
    fs::create_dir_all(lost.join("volumes")).unwrap();
    fs::create_dir_all(&logs).unwrap();
    fs::create_dir_all(c.config.pod_logs_dir.join("default_other_nodes")).unwrap();
    found("the remains go", || async { (!lost.exists() && !logs.exists()).then_some(()) }).await;
    assert!(c.config.pod_logs_dir.join("default_other_nodes").exists());
    assert_eq!(fs::read_dir(c.config.root_dir.join("pods")).unwrap().count(), 1, "the pod that lives keeps its own");
    c.stop_kubelet().await;
}
