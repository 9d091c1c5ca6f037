//! Two machines without etcd, as docs/reliability.md says: snapshots are shipped, the standby is read by who may only read, and
//! takes over by hand with the address. Controllers and a kubelet on a third machine go on by themselves: a pod that the snapshot
//! knows runs on, one that it does not know is removed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::fleet::Fleet;
use e2e::{eventually, eventually_within};
use serde_json::{Value, json};

/// Where clients look for the API, whichever machine has it.
const SHARED: &str = "10.99.0.100";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const NODE: &str = "n1";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

struct Place {
    fleet: Fleet,
}

impl Place {
    fn data(&self, at: usize) -> PathBuf {
        self.fleet.dir().join(format!("machine{at}"))
    }

    fn run_api(&mut self, at: usize, address: &str) -> Result<()> {
        let data = self.data(at);
        let tokens = self.fleet.dir().join("tokens");
        self.fleet.start_api(at, address, &data, |command| {
            command.args(["--datastore-snapshot-schedule-cron", "@every 1s", "--node-names", NODE]).arg("--token-auth-file").arg(tokens);
        })
    }

    /// A kubeconfig of the first machine, for who finds the server at the shared address.
    fn kubeconfig(&self, stem: &str) -> Result<PathBuf> {
        let to = self.fleet.dir().join(format!("{stem}.kubeconfig"));
        let text = std::fs::read_to_string(self.data(0).join(format!("{stem}.kubeconfig")))?;
        std::fs::write(&to, text.replace("127.0.0.1", SHARED))?;
        Ok(to)
    }

    fn run_kubelet(&mut self, at: usize) -> Result<()> {
        let (own, proxy) = (self.kubeconfig(&format!("kubelet-{NODE}"))?, self.kubeconfig("admin")?);
        self.fleet.run_kubelet(at, NODE, &own, |command| {
            command.arg("--proxy-kubeconfig").arg(proxy);
        })
    }

    fn run_controllers(&mut self, at: usize) -> Result<()> {
        let kubeconfig = self.kubeconfig("controller-manager")?;
        let mut command = Command::new(e2e::skiff());
        command.arg("kube-controller-manager").arg("--kubeconfig").arg(kubeconfig);
        command.arg("--root-ca-file").arg(self.data(0).join("pki/ca.crt"));
        command.args(["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s"]);
        self.fleet.spawn(at, "controllers", &mut command)
    }

    /// A request as the administrator, or with a token.
    fn request(&self, host: &str, token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let text = self.text(host, token, method, path, body)?;
        Ok(serde_json::from_str(&text)?)
    }

    fn text(&self, host: &str, token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
        let file = self.data(0).join("admin.kubeconfig");
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        self.fleet.with_clients(|| async {
            let mut config = e2e::config_of(&file, &format!("{host}:6443")).await?;
            config.read_timeout = Some(Duration::from_secs(5));
            if let Some(token) = token {
                config.auth_info = kube::config::AuthInfo { token: Some(token.to_owned().into()), ..Default::default() };
            }
            let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json").body(bytes)?;
            Ok(kube::Client::try_from(config)?.request_text(request).await?)
        })
    }

    fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.request(SHARED, None, "POST", path, Some(object))
    }

    fn names(&self, host: &str, token: Option<&str>) -> Result<Vec<String>> {
        let list = self.request(host, token, "GET", MAPS, None)?;
        let items = list["items"].as_array().context("a list")?;
        Ok(items.iter().filter_map(|i| i["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// The newest snapshot that was begun after now, copied to the standby as `rsync` would.
    fn ship(&self) -> Result<PathBuf> {
        let from = self.data(0).join("snapshots");
        let newest = || -> Result<PathBuf> {
            let mut all = std::fs::read_dir(&from)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
            all.retain(|path| path.extension().is_some_and(|e| e == "snapshot"));
            all.sort();
            all.pop().context("no snapshot yet")
        };
        // Names tell whole seconds: the next but one was certainly begun after now.
        let mut seen = std::collections::BTreeSet::new();
        let path = eventually("snapshots are taken", || {
            let path = newest()?;
            seen.insert(path.clone());
            if seen.len() > 2 { Ok(path) } else { bail!("{} snapshots", seen.len()) }
        })?;
        let to = self.fleet.dir().join("shipped");
        std::fs::create_dir_all(&to)?;
        let to = to.join(path.file_name().context("a name")?);
        std::fs::copy(&path, &to)?;
        Ok(to)
    }

    /// Throws away what the standby has, and puts a snapshot in its place.
    fn restore(&mut self, file: &Path) -> Result<()> {
        self.fleet.kill(1, "api")?;
        let store = self.data(1).join("store");
        if store.exists() {
            std::fs::remove_dir_all(store)?;
        }
        let output = Command::new(e2e::skiff()).args(["datastore", "restore"]).arg(file).env("SKIFF_DATA_DIR", self.data(1)).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn set(name: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "skiff/hello"}]}});
    json!({"metadata": {"name": name}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}})
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        std::fs::copy(&path, to.join(path.file_name().unwrap()))?;
    }
    Ok(())
}

fn has_pods(place: &Place, app: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{app}");
    let pods = place.request(SHARED, None, "GET", &path, None)?;
    let count = pods["items"].as_array().map_or(0, Vec::len);
    if count == 2 { Ok(()) } else { bail!("{count} pods of {app}; the controllers: {}", place.fleet.log(2, "controllers")) }
}

/// Makes a pod on the node and waits until it runs; answers its UID and its container.
fn run_pod(place: &Place, name: &str) -> Result<(String, Value)> {
    let containers = json!([{"name": "c", "image": "skiff/hello"}]);
    let spec =
        json!({"nodeName": NODE, "containers": containers, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1});
    let made = place.create(PODS, &json!({"metadata": {"name": name}, "spec": spec}))?;
    let uid = made["metadata"]["uid"].as_str().context("a UID")?.to_owned();
    let said = |e| format!("{e:#}; the kubelet: {}", place.fleet.log(2, "kubelet"));
    let container =
        eventually_within(Duration::from_secs(60), "a pod runs", || running(place, name)).map_err(|e| anyhow::anyhow!(said(e)))?;
    ensure!(processes(&uid) > 0, "a running pod without a process");
    Ok((uid, container))
}

/// The container of a running pod, and how often it was started again.
fn running(place: &Place, name: &str) -> Result<Value> {
    let pod = place.request(SHARED, None, "GET", &format!("{PODS}/{name}"), None)?;
    let container = &pod["status"]["containerStatuses"][0];
    ensure!(pod["status"]["phase"] == "Running" && container["ready"] == true, "{}", pod["status"]);
    Ok(json!([container["containerID"], container["restartCount"]]))
}

/// How many processes there are in a pod's cgroups.
fn processes(uid: &str) -> usize {
    let of_pod = |text: &String| text.contains(uid) || text.contains(&uid.replace('-', "_"));
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup")).ok()).filter(of_pod).count()
}

/// The kubelet was told nothing but a lost connection, either.
fn node_goes_on(place: &Place, kept: &(String, Value), lost: &(String, Value)) -> Result<()> {
    let patience = Duration::from_secs(60);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let before = place.request(SHARED, None, "GET", lease, None)?["spec"]["renewTime"].clone();
    eventually_within(patience, "the kubelet renews its lease", || {
        ensure!(place.request(SHARED, None, "GET", lease, None)?["spec"]["renewTime"] != before, "not yet");
        Ok(())
    })?;
    eventually_within(patience, "a pod that nobody knows any more is removed", || match processes(&lost.0) {
        0 => Ok(()),
        left => bail!("{left} processes; the kubelet: {}", place.fleet.log(2, "kubelet")),
    })?;
    let now = eventually("the pod that was shipped is told of", || running(place, "kept"))?;
    ensure!(now == kept.1 && processes(&kept.0) > 0, "the pod did not run on: {} before, {now} now", kept.1);
    run_pod(place, "new")?;
    for name in ["kept", "new"] {
        place.request(SHARED, None, "DELETE", &format!("{PODS}/{name}"), None)?;
    }
    eventually_within(patience, "the pods are gone", || {
        let left = place.request(SHARED, None, "GET", &format!("{PODS}?fieldSelector=spec.nodeName%3D{NODE}"), None)?;
        if left["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { bail!("{left}") }
    })
}

fn stand_by_and_take_over() -> Result<()> {
    let mut place = Place { fleet: Fleet::bare()? };
    std::fs::write(place.fleet.dir().join("tokens"), "secret,reader,1\n")?;
    place.fleet.take_address(0, SHARED)?;
    place.run_api(0, SHARED)?;
    copy(&place.data(0).join("pki"), &place.data(1).join("pki"))?;
    place.run_controllers(2)?;
    let subject = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let binding = json!({"metadata": {"name": "reader"}, "subjects": subject, "roleRef": role});
    place.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding)?;
    place.run_kubelet(2)?;
    place.create(MAPS, &map("first"))?;
    place.create(SETS, &set("before"))?;
    eventually("pods are made", || has_pods(&place, "before"))?;
    let kept = run_pod(&place, "kept")?;

    // The standby shows the past to who may read it.
    let (standby, reader) = (Fleet::address(1), Some("secret"));
    let shipped = place.ship()?;
    place.restore(&shipped)?;
    place.run_api(1, &standby)?;
    place.create(MAPS, &map("later"))?;
    let names = place.names(&standby, reader)?;
    ensure!(names.iter().any(|n| n == "first") && !names.iter().any(|n| n == "later"), "the standby shows {names:?}");
    let refused = place.request(&standby, reader, "POST", MAPS, Some(&map("never"))).expect_err("read only");
    ensure!(refused.to_string().contains("forbidden"), "{refused}");
    let shipped = place.ship()?;
    place.restore(&shipped)?;
    place.run_api(1, &standby)?;
    let names = place.names(&standby, reader)?;
    ensure!(names.iter().any(|n| n == "later"), "after the next snapshot the standby shows {names:?}");

    // The first machine is lost, with what was not shipped.
    let unknown = run_pod(&place, "unknown")?;
    let lost = place.create(MAPS, &map("lost"))?;
    let known = lost["metadata"]["resourceVersion"].as_str().context("a revision")?.to_owned();
    place.fleet.kill(0, "api")?;
    place.fleet.cut(0)?;
    let began = Instant::now();
    place.restore(&shipped)?;
    place.fleet.take_address(1, SHARED)?;
    place.run_api(1, SHARED)?;
    let list = eventually("the address answers", || place.request(SHARED, None, "GET", MAPS, None))?;
    println!("taken over {:.1} s after the decision", began.elapsed().as_secs_f64());
    let revision: u64 = list["metadata"]["resourceVersion"].as_str().context("a revision")?.parse()?;
    ensure!(revision > known.parse::<u64>()? + 900_000_000, "revision {revision} after {known}");
    let names = place.names(SHARED, None)?;
    ensure!(names.iter().any(|n| n == "later") && !names.iter().any(|n| n == "lost"), "{names:?}");
    // Who knows revisions that are lost is told to list again.
    let watch = place.text(SHARED, None, "GET", &format!("{MAPS}?watch=1&timeoutSeconds=2&resourceVersion={known}"), None)?;
    ensure!(watch.contains("\"code\":410"), "a watch from a lost revision: {watch}");
    // The controllers were told nothing but a lost connection.
    place.create(SETS, &set("after"))?;
    eventually_within(Duration::from_secs(60), "the controllers go on", || has_pods(&place, "after"))?;
    println!("the controllers work {:.1} s after the decision", began.elapsed().as_secs_f64());
    has_pods(&place, "before")?;
    node_goes_on(&place, &kept, &unknown)?;
    println!("the node is as the snapshot wants it {:.1} s after the decision", began.elapsed().as_secs_f64());
    Ok(())
}

#[test]
fn a_standby_is_read_and_takes_over() {
    if !e2e::is_root() {
        return;
    }
    if let Err(error) = stand_by_and_take_over() {
        panic!("{error:#}");
    }
}
