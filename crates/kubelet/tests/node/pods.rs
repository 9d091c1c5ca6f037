//! Nodes and pods: registration, starts, restarts, deletion, and a kubelet that comes back.

use serde_json::json;
use trial::found;

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_registers_and_renews_its_lease() {
    let mut c = Cluster::start(true).await;
    let node = c.node().await;
    let labels = node.metadata.labels.unwrap();
    assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["kubernetes.io/os"].as_str()), ("n1", "linux"));
    let status = node.status.unwrap();
    let info = status.node_info.unwrap();
    assert!(info.kubelet_version.starts_with("v1.36.") && info.container_runtime_version == "fake://1");
    assert_eq!(status.addresses.unwrap()[0].address, "192.168.7.1");
    assert_eq!(status.capacity.unwrap()["pods"].0, "110");
    assert_eq!(status.images.unwrap()[0].names.as_ref().unwrap()[0], "docker.io/skiff/hello:latest");
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> = kube::Api::namespaced(c.admin.clone(), "kube-node-lease");
    let lease = found("the lease", || async { leases.get_opt("n1").await.unwrap() }).await;
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n1"), Some(40)));
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_restarts_and_is_deleted() {
    for streaming in [true, false] {
        let mut c = Cluster::start(streaming).await;
        c.node().await;
        let spec = json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "IfNotPresent", "env": [{"name": "WHO", "value": "$(KUBERNETES_SERVICE_HOST)"}]}]});
        c.pod("p", spec).await;
        let pod = c.running("p").await;
        let status = &pod["status"];
        assert_eq!(status["podIP"], "127.0.0.1");
        assert_eq!(status["hostIP"], "192.168.7.1");
        let running = c.fake.running("a").unwrap();
        let who = running.config.envs.iter().find(|e| e.key == "WHO").unwrap();
        assert_eq!(String::from_utf8(who.value.clone()).unwrap(), "10.96.0.1");
        assert!(running.config.mounts.iter().any(|m| m.container_path == "/etc/hosts"));
        c.fake.exit(&running.status.id, 3);
        let pod = c
            .until("p", "restarted", |p| {
                p["status"]["containerStatuses"][0]["restartCount"] == 1
                    && !p["status"]["containerStatuses"][0]["state"]["running"].is_null()
            })
            .await;
        assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
        c.delete("p").await;
        c.gone("p").await;
        found("nothing is left", || async {
            let state = c.fake.state.lock().unwrap();
            (state.sandboxes.is_empty() && state.containers.is_empty()).then_some(())
        })
        .await;
        found("the pod's directories are gone", || async {
            let empty = |p: std::path::PathBuf| std::fs::read_dir(p).unwrap().next().is_none();
            (empty(c.config.root_dir.join("pods")) && empty(c.config.pod_logs_dir.clone())).then_some(())
        })
        .await;
        let want = ["Created Container created", "Started Container started", "Killing Stopping container a"];
        found("the events", || async {
            let events = c.events().await;
            want.iter().all(|w| events.iter().any(|e| e == w)).then_some(())
        })
        .await;
        c.stop_kubelet().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_comes_back_restarts_nothing_and_removes_what_was_deleted() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    let spec = || json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never", "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}]});
    c.pod("stays", spec()).await;
    c.pod("goes", spec()).await;
    for name in ["stays", "goes"] {
        c.until(name, "is ready", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    }
    let before = c.until("stays", "is there", |_| true).await;
    c.stop_kubelet().await;
    assert_eq!(c.fake.state.lock().unwrap().sandboxes.len(), 2, "pods outlive the kubelet");
    let params = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    c.pods().delete("goes", &params).await.unwrap();
    c.fake.state.lock().unwrap().calls.clear();
    c.start_kubelet();
    found("the deleted pod's sandbox is removed", || async { (c.fake.state.lock().unwrap().sandboxes.len() == 1).then_some(()) }).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let calls = c.fake.calls();
    assert!(!calls.iter().any(|c| c.starts_with("create") || c.starts_with("start") || c.starts_with("run")), "{calls:?}");
    let after = c.until("stays", "is there", |_| true).await;
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    assert_eq!(after["status"]["conditions"], before["status"]["conditions"], "not even for a moment unready");
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_in_upstreams_words() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.pod("nopull", json!({"containers": [{"name": "a", "image": "nope", "imagePullPolicy": "IfNotPresent"}]})).await;
    c.pod("never", json!({"containers": [{"name": "a", "image": "nope", "imagePullPolicy": "Never"}]})).await;
    let env = json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]);
    c.pod("config", json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never", "env": env}]})).await;
    let waiting =
        |reason: &'static str| move |p: &serde_json::Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
    c.until("nopull", "fails to pull", waiting("ErrImagePull")).await;
    c.until("nopull", "backs off", waiting("ImagePullBackOff")).await;
    let never = c.until("never", "never pulls", waiting("ErrImageNeverPull")).await;
    assert_eq!(
        never["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "Container image \"nope\" is not present with pull policy of Never"
    );
    let config = c.until("config", "waits for its ConfigMap", waiting("CreateContainerConfigError")).await;
    assert_eq!(config["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"late\" not found");
    c.config_map("late", json!({"k": "v"})).await;
    c.running("config").await;
    found("the events", || async { c.events().await.iter().any(|e| e == "BackOff Back-off pulling image \"nope\"").then_some(()) }).await;
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_liveness_probe_restarts_and_a_finished_pod_succeeds() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.fake.state.lock().unwrap().exec.insert("sick".into(), 1);
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    c.pod("live", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "sick", "image": "skiff/hello", "imagePullPolicy": "Never", "livenessProbe": probe}]})).await;
    c.until("live", "restarts", |p| p["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)).await;
    found("the events", || async { c.events().await.iter().any(|e| e == "Unhealthy Liveness probe failed: check").then_some(()) }).await;
    c.pod("once", json!({"restartPolicy": "Never", "containers": [{"name": "job", "image": "skiff/hello", "imagePullPolicy": "Never"}]}))
        .await;
    c.running("once").await;
    c.fake.exit(&c.fake.running("job").unwrap().status.id, 0);
    let done = c.until("once", "succeeds", |p| p["status"]["phase"] == "Succeeded").await;
    assert_eq!(done["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_somebody_else_wrote_is_put_right_and_then_left_alone() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.pod("p", json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never"}]})).await;
    c.running("p").await;
    let patch = json!({"status": {"message": "nonsense", "conditions": [{"type": "Ready", "status": "False"}, {"type": "example.com/Own", "status": "True"}]}});
    c.pods().patch_status("p", &Default::default(), &kube::api::Patch::Strategic(patch)).await.unwrap();
    let has = |p: &serde_json::Value, kind: &str, status: &str| {
        p["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == kind && c["status"] == status)
    };
    let pod = c.until("p", "is put right", |p| has(p, "Ready", "True") && p["status"]["message"].is_null()).await;
    assert!(has(&pod, "example.com/Own", "True"), "conditions of others stay");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let later = c.until("p", "is there", |_| true).await;
    assert_eq!(later["metadata"]["resourceVersion"], pod["metadata"]["resourceVersion"], "an idle pod is not written");
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_create_to_running() {
    let mut c = Cluster::start(true).await;
    c.node().await;
    let mut times = Vec::new();
    for i in 0..10 {
        let name = format!("p{i}");
        let begun = std::time::Instant::now();
        c.pod(&name, json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never"}]})).await;
        while c.pods().get(&name).await.unwrap().status.and_then(|s| s.phase).as_deref() != Some("Running") {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        times.push(begun.elapsed().as_millis());
    }
    times.sort_unstable();
    println!("create -> Running in the API, median of ten: {} ms (slowest {} ms)", times[5], times[9]);
    c.stop_kubelet().await;
}
