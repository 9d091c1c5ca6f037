//! Three API servers over three etcd members, with controllers and schedulers of which one leads, clients behind a load
//! balancer: parts are killed and machines cut off, the cluster goes on, nothing acknowledged is lost and nothing is done
//! twice. `SKIFF_HA=long` uses upstream's election times and more rounds.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::balancer::Balancer;
use e2e::eventually_within;
use e2e::fleet::{Fleet, Gaps, MACHINES, with_etcd};
use futures::StreamExt as _;
use kube::Client;
use serde_json::{Value, json};
use store::{Revision, Store, WatchItem};

const REPLICAS: usize = 3;
const WRITERS: usize = 4;
const NODES: usize = 3;

/// What happened meanwhile, shared with the clients.
#[derive(Default)]
struct Run {
    stop: AtomicBool,
    gaps: Gaps,
    /// Names of ConfigMaps whose creation was acknowledged.
    config_maps: Mutex<BTreeSet<String>>,
    replica_sets: Mutex<BTreeSet<String>>,
    kubeconfig: Mutex<Option<(PathBuf, std::net::SocketAddr)>>,
    /// When nodes could not renew their leases, and why.
    silent: Mutex<Vec<String>>,
}

impl Run {
    /// A new connection through the balancer.
    async fn client(&self) -> Result<Client> {
        let (path, address) = self.kubeconfig.lock().unwrap().clone().context("not started")?;
        Ok(Client::try_from(e2e::config_of(&path, &address.to_string()).await?)?)
    }

    /// One request, with as many further attempts and connections as it takes.
    async fn create(&self, client: &mut Client, path: &str, object: &Value) -> Result<()> {
        for _ in 0..200 {
            let request = http::Request::post(path).header("content-type", "application/json").body(serde_json::to_vec(object)?)?;
            match tokio::time::timeout(Duration::from_secs(3), client.request::<Value>(request)).await {
                Ok(Ok(_)) => return Ok(()),
                // An attempt that nobody answered has done it.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => return Ok(()),
                Ok(Err(kube::Error::Api(status))) if (400..429).contains(&status.code) => bail!("{path}: {status:?}"),
                _ => *client = self.client().await?,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{path}: given up")
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let request = http::Request::get(path).body(Vec::new())?;
        let client = self.client().await?;
        Ok(tokio::time::timeout(Duration::from_secs(3), client.request::<Value>(request)).await??)
    }
}

/// Creates ConfigMaps until told to stop.
async fn writer(run: Arc<Run>, id: usize) -> Result<()> {
    let mut client = run.client().await?;
    for n in 0.. {
        if run.stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("c-{id}-{n}");
        let object = json!({"metadata": {"name": name}, "data": {"n": n.to_string()}});
        run.create(&mut client, "/api/v1/namespaces/default/configmaps", &object).await?;
        run.gaps.success(id);
        run.config_maps.lock().unwrap().insert(name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Creates a ReplicaSet every second.
async fn deployer(run: Arc<Run>) -> Result<()> {
    let mut client = run.client().await?;
    for n in 0.. {
        if run.stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("r-{n}");
        let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "skiff/hello"}]}});
        let object = json!({"metadata": {"name": name},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": name}}, "template": template}});
        run.create(&mut client, "/apis/apps/v1/namespaces/default/replicasets", &object).await?;
        run.replica_sets.lock().unwrap().insert(name);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Nodes that report to be well, and run nothing.
async fn nodes(run: Arc<Run>) -> Result<()> {
    let mut client = run.client().await?;
    for n in 0..NODES {
        let room = json!({"cpu": "64", "memory": "256Gi", "pods": "500"});
        let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let object =
            json!({"metadata": {"name": format!("node-{n}")}, "status": {"capacity": room, "allocatable": room, "conditions": ready}});
        run.create(&mut client, "/api/v1/nodes", &object).await?;
    }
    while !run.stop.load(Ordering::Relaxed) {
        for n in 0..NODES {
            // The API server takes microseconds, and nothing finer.
            let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            let spec = json!({"holderIdentity": format!("node-{n}"), "leaseDurationSeconds": 40, "renewTime": now});
            let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": format!("node-{n}"), "namespace": "kube-node-lease"}, "spec": spec});
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-{n}?fieldManager=test&force=true");
            let request =
                http::Request::patch(path).header("content-type", "application/apply-patch+yaml").body(serde_json::to_vec(&object)?)?;
            match tokio::time::timeout(Duration::from_secs(3), client.request::<Value>(request)).await {
                Ok(Ok(_)) => {}
                failed => {
                    run.silent.lock().unwrap().push(format!("{now} node-{n}: {:?}", failed.map(|answer| answer.map(drop))));
                    client = run.client().await?;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    Ok(())
}

/// The API servers, controllers and schedulers of the machines.
struct Cluster {
    fleet: Fleet,
    long: bool,
}

impl Cluster {
    fn start() -> Result<Self> {
        let mut cluster = Self { fleet: Fleet::start()?, long: std::env::var("SKIFF_HA").is_ok_and(|v| v == "long") };
        cluster.run_api(0)?;
        cluster.fleet.wait_for_api(0, &cluster.data(0))?;
        // The machines share one authority and one key for tokens.
        for at in 1..MACHINES {
            let to = cluster.data(at).join("pki");
            std::fs::create_dir_all(&to)?;
            for name in ["ca.crt", "ca.key", "sa.key"] {
                std::fs::copy(cluster.data(0).join("pki").join(name), to.join(name))?;
            }
            cluster.run_api(at)?;
        }
        for at in 1..MACHINES {
            cluster.fleet.wait_for_api(at, &cluster.data(at))?;
        }
        for at in 0..MACHINES {
            cluster.run_elected(at)?;
        }
        Ok(cluster)
    }

    fn data(&self, at: usize) -> PathBuf {
        self.fleet.dir().join(format!("api{at}"))
    }

    fn run_api(&mut self, at: usize) -> Result<()> {
        let mut urls = Fleet::etcd_urls();
        urls.rotate_left(at);
        let data = self.data(at);
        self.fleet.run_api(at, &Fleet::address(at), &data, |command| {
            command.args(["--etcd-servers", &urls.join(",")]);
        })
    }

    /// Controllers and scheduler, which take part in elections.
    fn run_elected(&mut self, at: usize) -> Result<()> {
        let data = self.data(at);
        for (role, stem) in [("kube-controller-manager", "controller-manager"), ("kube-scheduler", "scheduler")] {
            let mut command = Command::new(e2e::skiff());
            command.arg(role).arg("--kubeconfig").arg(data.join(format!("{stem}.kubeconfig")));
            if role == "kube-controller-manager" {
                command.arg("--root-ca-file").arg(data.join("pki/ca.crt"));
            }
            if !self.long {
                let times = ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s"];
                command.args(times);
            }
            self.fleet.spawn(at, role, &mut command)?;
        }
        Ok(())
    }

    /// Starts again what has ended on its own: who loses a lease exits, and is restarted by whoever runs it.
    fn restart_ended(&mut self) -> Result<()> {
        for at in 0..MACHINES {
            if !(self.fleet.runs(at, "kube-controller-manager") && self.fleet.runs(at, "kube-scheduler")) {
                self.fleet.kill(at, "kube-controller-manager")?;
                self.fleet.kill(at, "kube-scheduler")?;
                self.run_elected(at)?;
            }
        }
        Ok(())
    }

    /// Who leads, by its lease.
    fn holder(&self, run: &Run, name: &str) -> Result<String> {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}");
        let lease = self.fleet.with_clients(|| run.get(&path))?;
        let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default();
        if holder.is_empty() { bail!("nobody holds {name}") } else { Ok(holder.to_owned()) }
    }

    /// Whether the caches of all API servers know of leases that were renewed a moment ago.
    fn hear(&self, run: &Run) -> Result<()> {
        let fresh = k8s_openapi::jiff::Timestamp::now().as_second() - 12;
        for at in 0..MACHINES {
            let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?resourceVersion=0";
            let list = self.fleet.request(at, &self.data(0), "GET", path, None).with_context(|| format!("API server {at}"))?;
            let times = list["items"].as_array().context("a list")?.iter().filter_map(|i| i["spec"]["renewTime"].as_str());
            let times: Vec<k8s_openapi::jiff::Timestamp> = times.map(str::parse).collect::<Result<_, _>>()?;
            let old = times.len() != NODES || times.iter().any(|time| time.as_second() < fresh);
            let silent = run.silent.lock().unwrap();
            ensure!(!old, "API server {at} knows of {times:?}; {} {:?}", silent.len(), &silent[silent.len().saturating_sub(10)..]);
        }
        Ok(())
    }

    /// kill -9 the leader: its log says that it leads.
    fn depose(&mut self, run: &Run, name: &str) -> Result<Duration> {
        // Right after another trouble nobody may lead: who lost its API server has given its lease back.
        let before = eventually_within(Duration::from_secs(45), "one leads", || self.holder(run, name))?;
        let leader = (0..MACHINES).find(|at| self.fleet.said(*at, name).contains(&before));
        let leader = leader.with_context(|| format!("no log of {name} mentions {before}: {}", self.fleet.log(0, name)))?;
        self.fleet.kill(leader, name)?;
        let began = Instant::now();
        let another = || match self.holder(run, name)? {
            holder if holder != before => Ok(()),
            holder => bail!("{holder} still holds {name}"),
        };
        eventually_within(Duration::from_secs(45), "another leads", another)?;
        Ok(began.elapsed())
    }
}

fn disturb(cluster: &mut Cluster, run: &Run, round: usize) -> Result<()> {
    let at = round % MACHINES;
    let next = (at + 1) % MACHINES;
    let last = (at + 2) % MACHINES;
    let pause = Duration::from_millis(if cluster.long { 5000 } else { 1000 });
    let report = |what: &str, began: Instant| {
        let (all, one) = run.gaps.longest(began, Instant::now());
        println!("{what}: {all:.1} s without any write, {one:.1} s for the unluckiest client");
    };
    let began = Instant::now();
    cluster.fleet.kill(at, "etcd")?;
    std::thread::sleep(pause * 2);
    cluster.fleet.run_etcd(at)?;
    std::thread::sleep(pause);
    report("kill -9 of an etcd member", began);

    let began = Instant::now();
    cluster.fleet.kill(next, "api")?;
    std::thread::sleep(pause);
    report("kill -9 of an API server", began);
    cluster.run_api(next)?;

    let began = Instant::now();
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let took = cluster.depose(run, name)?;
        println!("kill -9 of the leading {name}: another leads after {:.1} s", took.as_secs_f64());
    }
    report("meanwhile", began);
    cluster.restart_ended()?;

    let began = Instant::now();
    cluster.fleet.cut(last)?;
    std::thread::sleep(pause * 4);
    cluster.fleet.join(last)?;
    std::thread::sleep(pause);
    report("a whole machine cut off", began);
    cluster.restart_ended()?;
    eventually_within(Duration::from_secs(20), "every API server hears of the nodes", || cluster.hear(run))
}

/// All that ever happened to pods, as etcd kept it.
#[derive(Default)]
struct Pods {
    /// By ReplicaSet.
    created: BTreeMap<String, usize>,
    bound: usize,
    deleted: usize,
    rebound: usize,
}

async fn pods() -> Result<Pods> {
    let store = etcd::Etcd::connect(etcd::Options::new(Fleet::etcd_urls())).await?;
    let newest = store.revision().await?;
    let mut stream = store.watch("/registry/pods/", Revision(1)).await?;
    let mut pods = Pods::default();
    let node = |v: &Value| v.pointer("/spec/nodeName").and_then(Value::as_str).map(str::to_owned);
    let expected = store.list("/registry/pods/", store::ListOptions::default()).await?;
    let last = expected.items.iter().map(|i| i.mod_revision).max().unwrap_or_default();
    loop {
        let item = tokio::time::timeout(Duration::from_secs(10), stream.next()).await?.context("the watch ended")??;
        let WatchItem::Events(events) = item else { continue };
        for event in &events {
            let parse = |kv: &store::KeyValue| serde_json::from_slice::<Value>(&kv.value).unwrap();
            let (value, previous) = (event.value.as_ref().map(parse), event.previous.as_ref().map(parse));
            match (&previous, &value) {
                (None, Some(new)) => {
                    let owner = new.pointer("/metadata/ownerReferences/0/name").and_then(Value::as_str).unwrap_or_default();
                    *pods.created.entry(owner.to_owned()).or_default() += 1;
                }
                (Some(old), Some(new)) => match (node(old), node(new)) {
                    (None, Some(_)) => pods.bound += 1,
                    (old, new) if old != new => pods.rebound += 1,
                    _ => {}
                },
                _ => pods.deleted += 1,
            }
        }
        if events.last().is_some_and(|e| e.revision >= last || e.revision >= newest) {
            return Ok(pods);
        }
    }
}

#[test]
fn a_cluster_goes_on_while_its_parts_die() {
    with_etcd(go_on);
}

fn go_on() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let run = Arc::new(Run::default());
    let (hub, path) = (cluster.fleet.hub().clone(), cluster.data(0).join("admin.kubeconfig"));
    let clients = std::thread::spawn({
        let run = run.clone();
        move || hub.run(|| load(&run, &path))
    });
    let ready = || if run.config_maps.lock().unwrap().len() > 20 { Ok(()) } else { bail!("no writes yet") };
    eventually_within(Duration::from_secs(30), "clients write", ready)?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        eventually_within(Duration::from_secs(30), "one leads", || cluster.holder(&run, name))?;
    }
    for round in 0..if cluster.long { 6 } else { 1 } {
        disturb(&mut cluster, &run, round)?;
        settle(&cluster, &run)?;
    }
    run.stop.store(true, Ordering::Relaxed);
    clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))???;
    settle(&cluster, &run)?;
    judge(&cluster, &run)
}

fn load(run: &Arc<Run>, kubeconfig: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let servers = (0..MACHINES).map(|at| format!("{}:6443", Fleet::address(at)).parse().unwrap());
        let balancer = Balancer::start(servers).await?;
        *run.kubeconfig.lock().unwrap() = Some((kubeconfig.to_owned(), balancer.address));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(nodes(run.clone()));
        tasks.spawn(deployer(run.clone()));
        for id in 0..WRITERS {
            tasks.spawn(writer(run.clone(), id));
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// Waits until every ReplicaSet there is by now has its pods, and they have nodes.
fn settle(cluster: &Cluster, run: &Run) -> Result<()> {
    let want = run.replica_sets.lock().unwrap().len() * REPLICAS;
    let settled = || {
        let pods = cluster.fleet.with_clients(pods)?;
        let created = pods.created.values().sum::<usize>();
        ensure!(created >= want && pods.bound >= want, "{created} of {want} pods are made, {} bound", pods.bound);
        Ok(())
    };
    eventually_within(Duration::from_secs(60), "all pods are bound", settled).with_context(|| {
        let names = ["kube-controller-manager", "kube-scheduler", "api"];
        let shown = [("/api/v1/nodes", "/spec/taints"), ("/api/v1/pods", "/status/conditions")].map(|(path, pointer)| {
            let list = cluster.fleet.with_clients(|| run.get(path)).unwrap_or_else(|e| json!({"items": [e.to_string()]}));
            let items = list["items"].as_array().cloned().unwrap_or_default();
            let unbound = items.into_iter().filter(|i| i.pointer("/spec/nodeName").is_none());
            unbound.take(5).map(|i| format!("{} {:?}", i["metadata"]["name"], i.pointer(pointer))).collect::<Vec<_>>().join("\n")
        });
        println!("{}\nleases: {:?}\nsilent: {:#?}", shown.join("\n"), cluster.hear(run), run.silent.lock().unwrap());
        let logs = (0..MACHINES).flat_map(|at| names.map(|name| format!("--- {name} {at}:\n{}", cluster.fleet.log(at, name))));
        logs.collect::<Vec<_>>().join("\n")
    })
}

fn judge(cluster: &Cluster, run: &Run) -> Result<()> {
    let direct = || async {
        let store = etcd::Etcd::connect(etcd::Options::new(Fleet::etcd_urls())).await?;
        Ok(store.list("/registry/configmaps/default/", store::ListOptions::default()).await?)
    };
    let listing = cluster.fleet.with_clients(direct)?;
    let there: BTreeSet<String> = listing.items.iter().filter_map(|i| i.key.rsplit('/').next().map(str::to_owned)).collect();
    let acknowledged = run.config_maps.lock().unwrap().clone();
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let sets = run.replica_sets.lock().unwrap().clone();
    let pods = cluster.fleet.with_clients(pods)?;
    let wrong: Vec<_> = sets.iter().filter(|set| pods.created.get(*set) != Some(&REPLICAS)).map(|s| (s, pods.created.get(s))).collect();
    ensure!(wrong.is_empty(), "ReplicaSets whose pods were made too often or too rarely: {wrong:?}");
    ensure!(pods.bound == sets.len() * REPLICAS && pods.rebound == 0, "{} bindings, {} moved", pods.bound, pods.rebound);
    ensure!(pods.deleted == 0, "{} pods were deleted", pods.deleted);
    println!(
        "{} acknowledged ConfigMaps, none lost; {} ReplicaSets with {} pods, each made once and bound once",
        acknowledged.len(),
        sets.len(),
        pods.bound
    );
    Ok(())
}
