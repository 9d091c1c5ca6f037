//! A hollow node: registers, renews its lease, and takes pods through their lives without running anything. What the image
//! is called says what becomes of it: `work:` ends by itself, well or badly. Its machine may be away for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use auth::User;
use client::{Client, Entropy, Informer, Informers, Scope};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::World;
use crate::wire::Wire;

const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// How often pods are looked at.
const STEP: Duration = Duration::from_millis(500);
/// How long a pod takes to start or to end, and to do its work.
const CHANGE_MS_MAX: u64 = 4000;
const WORK_MS_MAX: u64 = 30_000;
/// What slow work takes at least.
const SLOW_WORK: Duration = Duration::from_secs(300);
const NAMES: [&str; 8] = ["node-0", "node-1", "node-2", "node-3", "node-4", "node-5", "node-6", "node-7"];

struct Hollow {
    world: World,
    entropy: Entropy,
    name: &'static str,
    number: usize,
    /// Its clock is off by so much.
    skew_seconds: i64,
    nodes: Api<Node>,
    leases: Api<Lease>,
    client: Client,
    pods: Informer<Pod>,
    /// When to do the next thing to a pod, by UID, and in which state it is due.
    due: BTreeMap<String, (Stage, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Working,
    Ending,
}

/// One instance of a node's agent. It keeps nothing but what the API shows.
pub(crate) async fn run(world: World, number: usize, alive: CancellationToken) {
    let name = NAMES[number % NAMES.len()];
    let user = User::new(format!("system:node:{name}"), &["system:nodes"]);
    let client = client::in_process(Wire::new(&world, user, name, alive));
    let informers = Informers::with_entropy(client.clone(), world.entropy.clone());
    let pods = informers.of::<Pod>(Scope::all().with_fields(&format!("spec.nodeName={name}")));
    let (nodes, leases) = (Api::all(client.clone()), Api::namespaced(client.clone(), "kube-node-lease"));
    let entropy = world.entropy.clone();
    let most = world.faults.profile.node_skew_seconds;
    let skew_seconds = entropy.below(2 * most + 1).cast_signed() - most.cast_signed();
    let mut node = Hollow { world, entropy, name, number, skew_seconds, nodes, leases, client, pods, due: BTreeMap::new() };
    tokio::time::sleep(Duration::from_millis(node.entropy.below(3000))).await;
    let mut next_lease = Instant::now();
    loop {
        if node.world.hosts.is_away(number) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        if node.world.hosts.was_lost(number) {
            node.due.clear();
            next_lease = Instant::now();
        }
        if Instant::now() >= next_lease {
            let well = node.told(node.renew().await) && node.told(node.report().await);
            next_lease = Instant::now() + if well { LEASE_PERIOD } else { Duration::from_secs(1) };
        }
        node.step().await;
        tokio::time::sleep(STEP).await;
    }
}

impl Hollow {
    /// Whether it worked; what did not is tried again.
    fn told(&self, result: kube::Result<()>) -> bool {
        if let Err(error) = &result {
            tracing::info!(node = self.name, %error, "a request failed");
        }
        result.is_ok()
    }

    fn now(&self) -> Timestamp {
        let now = self.world.clock.now();
        now.checked_add(SignedDuration::from_secs(self.skew_seconds)).unwrap_or(now)
    }

    async fn register(&self) -> kube::Result<()> {
        let node: Node = parse(json!({"metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}}}))?;
        match self.nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    async fn renew(&self) -> kube::Result<()> {
        let now = self.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now});
        match self.leases.patch(self.name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease: Lease = parse(json!({"metadata": {"name": self.name, "namespace": "kube-node-lease"}, "spec": spec}))?;
                self.leases.create(&PostParams::default(), &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Posts that it is ready, when the API says otherwise.
    async fn report(&self) -> kube::Result<()> {
        let node = match self.nodes.get(self.name).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.register().await?;
                self.nodes.get(self.name).await?
            }
            other => other?,
        };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        let now = self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now, "lastTransitionTime": now});
        let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        let status = json!({
            "capacity": room, "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": format!("192.168.0.{}", self.number + 1)}],
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"), condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"), condition("Ready", "True", "KubeletReady"),
            ],
        });
        self.nodes.patch_status(self.name, &PatchParams::default(), &Patch::Strategic(json!({ "status": status }))).await.map(drop)
    }

    /// Starts and ends pods whose time has come.
    async fn step(&mut self) {
        let now = Instant::now();
        let pods = self.pods.list();
        self.due.retain(|uid, _| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
        for pod in pods {
            let Some(uid) = pod.metadata.uid.clone() else { continue };
            let Some(stage) = stage(&pod) else {
                self.due.remove(&uid);
                continue;
            };
            let known = self.due.get(&uid).copied().filter(|(at, _)| *at == stage);
            let (least, limit_ms) = takes(stage, &pod);
            let (_, due) = known.unwrap_or_else(|| (stage, now + least + Duration::from_millis(self.entropy.below(limit_ms))));
            self.due.insert(uid.clone(), (stage, due));
            if due > now {
                continue;
            }
            let done = match stage {
                Stage::Starting => {
                    // What has ended does not start: nobody may have heard of it, and somebody that the node was silent.
                    let status = self.world.hosts.ended(&uid).map_or_else(|| self.running(&pod), ended);
                    self.set_status(&pod, status).await
                }
                Stage::Working => {
                    let phase = self.world.hosts.end(&uid, outcome(&pod, &self.entropy));
                    self.set_status(&pod, ended(phase)).await
                }
                Stage::Ending => self.end(&pod).await,
            };
            // What failed is tried again in the next step, on what the informer shows then.
            if self.told(done) {
                self.due.remove(&uid);
            }
        }
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// Of exactly this pod, not of the next one with its name.
    async fn set_status(&self, pod: &Pod, status: Value) -> kube::Result<()> {
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.api(pod).patch_status(name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Its containers have ended: says so, and lets it go.
    async fn end(&self, pod: &Pod) -> kube::Result<()> {
        let never = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Never"));
        if never && !controllers::pods::is_finished(pod) {
            let phase = self.world.hosts.end(pod.metadata.uid.as_deref().unwrap_or_default(), "Failed");
            self.set_status(pod, ended(phase)).await?;
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        self.api(pod).delete(pod.metadata.name.as_deref().unwrap_or_default(), &params).await.map(drop)
    }

    fn running(&self, pod: &Pod) -> Value {
        let now = self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_else(|| {
            let number = self.world.hosts.next_address(self.number);
            format!("10.{}.{}.{}", 244 + self.number, number / 250, number % 250 + 1)
        });
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
            "conditions": [condition("Initialized"), condition("ContainersReady"), condition("Ready")]})
    }
}

/// What is to be done to a pod next, if anything.
fn stage(pod: &Pod) -> Option<Stage> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Stage::Ending);
    }
    if controllers::pods::is_finished(pod) {
        return None;
    }
    let running = controllers::pods::phase(pod) == "Running" && controllers::pods::is_ready(pod);
    match (running, image(pod).starts_with("work:")) {
        (false, _) => Some(Stage::Starting),
        (true, true) => Some(Stage::Working),
        (true, false) => None,
    }
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()).unwrap_or_default()
}

/// How long a stage takes at least, and by how much at most more.
fn takes(stage: Stage, pod: &Pod) -> (Duration, u64) {
    match stage {
        Stage::Working if image(pod) == "work:slow" => (SLOW_WORK, WORK_MS_MAX),
        Stage::Working => (Duration::ZERO, WORK_MS_MAX),
        Stage::Starting | Stage::Ending => (Duration::ZERO, CHANGE_MS_MAX),
    }
}

fn outcome(pod: &Pod, entropy: &Entropy) -> &'static str {
    match image(pod) {
        "work:bad" => "Failed",
        "work:flaky" if entropy.below(3) == 0 => "Failed",
        _ => "Succeeded",
    }
}

fn ended(phase: &str) -> Value {
    json!({"phase": phase, "conditions": [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "False"}]})
}

fn parse<K: for<'de> k8s_openapi::serde::Deserialize<'de>>(value: Value) -> kube::Result<K> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
