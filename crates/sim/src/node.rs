//! A hollow node: registers, renews its lease, and takes pods through their lives without running anything. It may fall
//! silent for a while.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auth::User;
use client::{Client, Informer, Informers, Scope};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{World, dawdle};

const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// How often pods are looked at.
const STEP: Duration = Duration::from_millis(250);
/// A node that may fail does so about once in so many minutes.
const FAILURE_MINUTES: u64 = 10;
const SILENT_SECONDS_MAX: u64 = 900;

struct Hollow {
    world: World,
    name: String,
    number: usize,
    nodes: Api<Node>,
    leases: Api<Lease>,
    client: Client,
    pods: Informer<Pod>,
    /// When to do the next thing to a pod, by UID.
    due: BTreeMap<String, Instant>,
    next_ip: u32,
}

pub async fn run(world: World, number: usize) {
    let name = format!("node-{number}");
    let client = world.client(User::new(format!("system:node:{name}"), &["system:nodes"]));
    let informers = Informers::with_entropy(client.clone(), world.entropy.clone());
    let pods = informers.of::<Pod>(Scope::all().with_fields(&format!("spec.nodeName={name}")));
    let (nodes, leases) = (Api::all(client.clone()), Api::namespaced(client.clone(), "kube-node-lease"));
    let mut node = Hollow { world, name, number, nodes, leases, client, pods, due: BTreeMap::new(), next_ip: 1 };
    dawdle(&node.world.entropy, 3000).await;
    let mut next_lease = Instant::now();
    let mut registered = false;
    loop {
        if Instant::now() >= next_lease {
            registered = registered || node.told(node.register().await);
            let renewed = node.told(node.renew().await) && node.told(node.report().await);
            next_lease = Instant::now() + if renewed && registered { LEASE_PERIOD } else { Duration::from_secs(1) };
        }
        node.step().await;
        node.fail_sometimes().await;
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

    async fn register(&self) -> kube::Result<()> {
        let node: Node = parse(json!({"metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}}}))?;
        match self.nodes.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    async fn renew(&self) -> kube::Result<()> {
        let now = self.world.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now});
        match self.leases.patch(&self.name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease: Lease = parse(json!({"metadata": {"name": self.name, "namespace": "kube-node-lease"}, "spec": spec}))?;
                self.leases.create(&PostParams::default(), &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Posts that it is ready, when the API says otherwise.
    async fn report(&self) -> kube::Result<()> {
        let node = self.nodes.get(&self.name).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        let now = self.world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
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
        self.nodes.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(json!({ "status": status }))).await.map(drop)
    }

    /// Starts and ends pods whose time has come.
    async fn step(&mut self) {
        let now = Instant::now();
        let pods = self.pods.list();
        self.due.retain(|uid, _| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
        for pod in pods {
            let (Some(uid), Some(name)) = (pod.metadata.uid.clone(), pod.metadata.name.clone()) else { continue };
            let deleting = pod.metadata.deletion_timestamp.is_some();
            let running = pod.status.as_ref().is_some_and(|status| {
                status.phase.as_deref() == Some("Running")
                    && status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
            });
            if (running || controllers::pods::is_finished(&pod)) && !deleting {
                self.due.remove(&uid);
                continue;
            }
            let due = *self.due.entry(uid.clone()).or_insert_with(|| now + Duration::from_millis(self.world.entropy.below(4000)));
            if due > now {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
            let done = if deleting {
                api.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.map(drop)
            } else {
                let status = self.running(&pod);
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(json!({ "status": status }))).await.map(drop)
            };
            // What failed is tried again in the next step, on what the informer shows then.
            if self.told(done) {
                self.due.remove(&uid);
            }
        }
    }

    fn running(&mut self, pod: &Pod) -> Value {
        let now = self.world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_else(|| {
            self.next_ip += 1;
            format!("10.244.{}.{}", self.number, self.next_ip % 250 + 1)
        });
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
            "conditions": [condition("Initialized"), condition("ContainersReady"), condition("Ready")]})
    }

    async fn fail_sometimes(&mut self) {
        let steps = FAILURE_MINUTES * 60 * 4;
        if !self.world.faults.are_on() || self.world.entropy.below(steps) != 0 {
            return;
        }
        self.world.node_failures.fetch_add(1, Ordering::Relaxed);
        let silence = Duration::from_secs(1 + self.world.entropy.below(SILENT_SECONDS_MAX));
        let until = Instant::now() + silence;
        while Instant::now() < until && self.world.faults.are_on() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn parse<K: for<'de> k8s_openapi::serde::Deserialize<'de>>(value: Value) -> kube::Result<K> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}
