//! The kubelet with the real API server and the real runtime: containers, probes, volumes, restarts of the daemon.
//! Needs root; says so and passes without. Has its own main because the runtime starts this program as its zygote.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auth::User;
use client::Informers;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PostParams};
use kubelet::Kubelet;
use runtime::{NetworkError, PodNetwork, Runtime, SandboxNetwork};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Loopback, told as the pod's address.
struct Loopback;

#[async_trait::async_trait]
impl PodNetwork for Loopback {
    async fn attach(&self, _: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(vec![[127, 0, 0, 1].into()])
    }
    async fn detach(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }
    async fn check(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }
}

struct Rig {
    dir: tempfile::TempDir,
    api: apiserver::Handle,
    admin: client::Client,
    runtime_config: runtime::Config,
    runtime: Option<runtime::Handle>,
    cancel: CancellationToken,
    kubelet: JoinSet<Result<(), kubelet::Error>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancel.cancel();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| std::path::Path::new(p).starts_with(self.dir.path()));
        for point in points {
            if let Err(error) = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH) {
                eprintln!("unmount {point}: {error}");
            }
        }
        if let Err(error) = runtime::teardown(&self.runtime_config, false) {
            eprintln!("teardown: {error}");
        }
    }
}

/// The program of the sample image, linked statically.
fn hello(dir: &std::path::Path) -> Option<Vec<u8>> {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../hello/src/main.rs");
    let out = dir.join("hello");
    let mut rustc = std::process::Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-A", "warnings", "-o"]);
    let built = rustc.arg(&out).arg(source).status();
    built.is_ok_and(|s| s.success()).then(|| std::fs::read(out).unwrap())
}

impl Rig {
    async fn new() -> Option<Rig> {
        let dir = tempfile::tempdir().unwrap();
        let program = hello(dir.path())?;
        let mut server = apiserver::Config::new(dir.path().join("pki"));
        server.secure_port = 0;
        server.bind_address = [127, 0, 0, 1].into();
        server.advertise_address = Some([192, 168, 7, 1].into());
        let api = apiserver::Server::start(server, Arc::new(store::Embedded::in_memory())).await.unwrap();
        let admin = client::in_process(api.service_as(User::new("admin", &["system:masters"])));
        let name = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let mut config = runtime::Config::new(dir.path().join("data"), dir.path().join("run"), format!("kubelet-{name}"));
        config.zygote = vec!["/proc/self/exe".into(), "zygote".into()];
        let mut rig =
            Rig { dir, api, admin, runtime_config: config, runtime: None, cancel: CancellationToken::new(), kubelet: JoinSet::new() };
        rig.start().await;
        let links = ["/bin/sh", "/bin/sleep", "/bin/cat", "/bin/wget"];
        let program = runtime::images::Program {
            image: "skiff/hello",
            bytes: &program,
            path: "/bin/hello",
            links: &links,
            config: Default::default(),
        };
        rig.runtime.as_ref().unwrap().images().build(&program).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(rig.admin.clone(), "default");
        accounts.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap()).await.unwrap();
        rig.config_map("kube-root-ca.crt", json!({"ca.crt": "CA"})).await;
        Some(rig)
    }

    async fn start(&mut self) {
        self.cancel = CancellationToken::new();
        self.runtime = Some(Runtime::start(self.runtime_config.clone(), Arc::new(Loopback), self.cancel.clone()).await.unwrap());
        let mut config = kubelet::Config::new("n1");
        config.node_ips = vec!["192.168.7.1".parse().unwrap()];
        config.root_dir = self.dir.path().join("kubelet");
        config.pod_logs_dir = self.dir.path().join("logs");
        config.cgroup_root = format!("{}/kubepods", self.runtime_config.cgroup_parent);
        let node = client::in_process(self.api.service_as(User::new("system:node:n1", &["system:nodes"])));
        self.kubelet.spawn(Kubelet::run(
            config,
            node.clone(),
            Informers::new(node),
            self.runtime_config.socket.clone(),
            self.cancel.clone(),
        ));
    }

    async fn stop(&mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.kubelet.join_next().await {
            ended.unwrap().unwrap();
        }
        self.runtime.take().unwrap().stop().await;
    }

    async fn config_map(&self, name: &str, data: Value) {
        let api: Api<ConfigMap> = Api::namespaced(self.admin.clone(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap())
            .await
            .unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), "default")
    }

    async fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        for c in spec["containers"].as_array_mut().unwrap() {
            c["image"] = json!("skiff/hello");
            c["imagePullPolicy"] = json!("IfNotPresent");
        }
        let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    async fn until(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let pod = serde_json::to_value(self.pods().get_opt(name).await.unwrap()).unwrap();
            if check(&pod) {
                return pod;
            }
            assert!(Instant::now() < deadline, "{name}: {what}: not within 20 s: {}", pod["status"]);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(name, "is gone", Value::is_null).await;
    }

    fn log(&self, pod: &Value, container: &str, attempt: u32) -> String {
        let m = &pod["metadata"];
        let dir = format!("default_{}_{}", m["name"].as_str().unwrap(), m["uid"].as_str().unwrap());
        let path = self.dir.path().join("logs").join(dir).join(container).join(format!("{attempt}.log"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The host's process that runs a container, by a mark in its arguments.
    fn process(&self, mark: &str) -> Option<i32> {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line.split(|b| *b == 0).any(|a| a == mark.as_bytes()) && pid != i32::try_from(std::process::id()).unwrap() {
                return Some(pid);
            }
        }
        None
    }
}

fn running(p: &Value) -> bool {
    p["status"]["phase"] == "Running"
}

async fn a_real_pod(rig: &Rig) {
    rig.config_map("cm", json!({"k": "from-the-map"})).await;
    let script = "echo $GREETING; cat /cm/k; cat /etc/hosts; cat /etc/resolv.conf; echo bye > /dev/termination-log; exit 3";
    let spec = json!({"restartPolicy": "Never", "hostname": "dolphin",
        "volumes": [{"name": "cm", "configMap": {"name": "cm"}}],
        "containers": [{"name": "a", "command": ["/bin/sh", "-c", script], "env": [{"name": "GREETING", "value": "hi"}],
            "volumeMounts": [{"name": "cm", "mountPath": "/cm"}], "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}}}]});
    rig.pod("once", spec).await;
    let pod = rig.until("once", "fails", |p| p["status"]["phase"] == "Failed").await;
    let log = rig.log(&pod, "a", 0);
    for text in ["F hi\n", "from-the-map", "127.0.0.1\tdolphin", "nameserver 10.96.0.10", "default.svc.cluster.local"] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(3), &json!("Error")), "{end}");
    assert_eq!(end["message"].as_str().unwrap().trim(), "bye");
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    rig.delete("once").await;
}

async fn a_killed_process_is_restarted(rig: &Rig) {
    let mark = format!("9{:08}", std::process::id());
    let probe = json!({"exec": {"command": ["/bin/cat", "/etc/hostname"]}, "periodSeconds": 1});
    rig.pod("killed", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a", "command": ["/bin/sleep", mark], "readinessProbe": probe}]})).await;
    rig.until("killed", "is ready", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    let pid = rig.process(&mark).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let pod = rig.until("killed", "is restarted", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    rig.until("killed", "is ready again", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    rig.delete("killed").await;
    assert_eq!(rig.process(&mark), None);
}

async fn a_daemon_that_comes_back(rig: &mut Rig) {
    let mark = format!("8{:08}", std::process::id());
    rig.pod("survivor", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a", "command": ["/bin/sleep", mark]}]})).await;
    let before = rig.until("survivor", "runs", running).await;
    let pid = rig.process(&mark).unwrap();
    rig.stop().await;
    assert_eq!(rig.process(&mark), Some(pid), "pods run on");
    rig.start().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.process(&mark), Some(pid));
    let after = rig.until("survivor", "is there", running).await;
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    rig.delete("survivor").await;
    assert_eq!(rig.process(&mark), None);
}

async fn live_updates_and_sub_paths(rig: &Rig) {
    rig.config_map("live", json!({"k": "one"})).await;
    let mark = format!("7{:08}", std::process::id());
    let script = format!("echo x > /sub/file; exec /bin/sleep {mark}");
    let spec = json!({"terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "cm", "configMap": {"name": "live"}}, {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "containers": [{"name": "a", "command": ["/bin/sh", "-c", script],
            "readinessProbe": {"exec": {"command": ["/bin/sh", "-c", "cat /cm/k; cat /all/deep/er/file"]}, "periodSeconds": 1},
            "volumeMounts": [{"name": "cm", "mountPath": "/cm"}, {"name": "e", "mountPath": "/sub", "subPath": "deep/er"}, {"name": "e", "mountPath": "/all"}]}]});
    rig.pod("volumes", spec).await;
    let pod = rig.until("volumes", "is ready", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    let maps: Api<ConfigMap> = Api::namespaced(rig.admin.clone(), "default");
    maps.patch("live", &Default::default(), &Patch::Merge(json!({"data": {"k": "two"}}))).await.unwrap();
    let root = format!("{}/kubelet/pods/{}", rig.dir.path().display(), pod["metadata"]["uid"].as_str().unwrap());
    let inside = format!("/proc/{}/root/cm/k", rig.process(&mark).unwrap());
    trial::until("the container sees the update", async || std::fs::read_to_string(&inside).unwrap() == "two").await;
    rig.delete("volumes").await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&root), "a mount was left behind");
}

async fn mistakes_and_hooks(rig: &Rig) {
    rig.pod("nocmd", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a", "command": ["/bin/none"]}]})).await;
    let waiting = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let pod = rig.until("nocmd", "cannot start", |p| ["RunContainerError", "CreateContainerError"].iter().any(|r| waiting(p) == *r)).await;
    println!("  a missing command: {}", pod["status"]["containerStatuses"][0]["state"]["waiting"]);
    rig.until("nocmd", "backs off", |p| waiting(p) == "CrashLoopBackOff").await;
    rig.delete("nocmd").await;
    // A preStop hook leaves a file on the host before the container is stopped.
    let dir = rig.dir.path().join("hook");
    std::fs::create_dir(&dir).unwrap();
    let lifecycle = json!({"postStart": {"exec": {"command": ["/bin/sh", "-c", "echo started > /hook/post"]}},
        "preStop": {"exec": {"command": ["/bin/sh", "-c", "echo stopping > /hook/pre"]}}});
    rig.pod("hooked", json!({"terminationGracePeriodSeconds": 5, "volumes": [{"name": "h", "hostPath": {"path": dir, "type": "Directory"}}],
        "containers": [{"name": "a", "command": ["/bin/sleep", "infinity"], "lifecycle": lifecycle, "volumeMounts": [{"name": "h", "mountPath": "/hook"}]}]})).await;
    rig.until("hooked", "is ready", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    assert_eq!(std::fs::read_to_string(dir.join("post")).unwrap(), "started\n");
    rig.delete("hooked").await;
    assert_eq!(std::fs::read_to_string(dir.join("pre")).unwrap(), "stopping\n");
    // Init containers one after the other, a sidecar beside.
    let init = |name: &str, script: &str| {
        json!({"name": name, "image": "skiff/hello", "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script],
        "volumeMounts": [{"name": "h", "mountPath": "/hook"}]})
    };
    let mut side = init("side", "exec /bin/sleep infinity");
    side["restartPolicy"] = json!("Always");
    rig.pod("inits", json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": [{"name": "h", "hostPath": {"path": dir}}],
        "initContainers": [init("i1", "echo 1 > /hook/order"), side, init("i2", "cat /hook/order; echo 2 > /hook/order")],
        "containers": [{"name": "a", "command": ["/bin/sh", "-c", "cat /hook/order"], "volumeMounts": [{"name": "h", "mountPath": "/hook"}]}]})).await;
    let pod = rig.until("inits", "succeeds", |p| p["status"]["phase"] == "Succeeded").await;
    assert!(rig.log(&pod, "a", 0).ends_with("F 2\n") && rig.log(&pod, "i2", 0).ends_with("F 1\n"));
    rig.delete("inits").await;
}

async fn how_fast(rig: &Rig) {
    let spec = || json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a", "command": ["/bin/sleep", "infinity"]}]});
    let mut times = Vec::new();
    for i in 0..20 {
        let name = format!("one{i}");
        let begun = Instant::now();
        rig.pod(&name, spec()).await;
        rig.until(&name, "runs", running).await;
        times.push(begun.elapsed().as_millis());
    }
    times.sort_unstable();
    println!("create -> Running, one after the other: p50 {} ms, max {} ms", times[10], times[19]);
    let begun = Instant::now();
    for i in 0..20 {
        rig.pod(&format!("many{i}"), spec()).await;
    }
    for i in 0..20 {
        rig.until(&format!("many{i}"), "runs", running).await;
    }
    println!("twenty at once: {} ms", begun.elapsed().as_millis());
    let begun = Instant::now();
    let all: Vec<String> = (0..20).flat_map(|i| [format!("one{i}"), format!("many{i}")]).collect();
    for name in &all {
        rig.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }
    for name in &all {
        rig.until(name, "is gone", Value::is_null).await;
    }
    println!("forty deleted: {} ms", begun.elapsed().as_millis());
}

async fn scenarios() {
    let Some(mut rig) = Rig::new().await else { return println!("skipped: rustc cannot link a static program here") };
    let nodes: Api<Node> = Api::all(rig.admin.clone());
    trial::until("the node registers", async || nodes.get_opt("n1").await.unwrap().is_some()).await;
    let step = |name: &str| println!("test {name} ...");
    step("a_real_pod");
    a_real_pod(&rig).await;
    step("a_killed_process_is_restarted");
    a_killed_process_is_restarted(&rig).await;
    step("live_updates_and_sub_paths");
    live_updates_and_sub_paths(&rig).await;
    step("mistakes_and_hooks");
    mistakes_and_hooks(&rig).await;
    step("a_daemon_that_comes_back");
    a_daemon_that_comes_back(&mut rig).await;
    step("how_fast");
    how_fast(&rig).await;
    rig.stop().await;
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("zygote") {
        return runtime::zygote::main();
    }
    if !trial::is_root() {
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(scenarios());
    println!("ok");
    ExitCode::SUCCESS
}
