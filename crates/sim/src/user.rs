//! The user of a simulated cluster: makes a Deployment and a Service, changes them while things fail, and looks in the end
//! whether they are as asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use client::{Informer, Informers, Scope, Subscription};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::farewell;
use crate::invariants::{Invariants, networks_are_disjoint};
use crate::{Error, Options, World};

/// Time after the last fault in which everything must come right: eviction and the longest back-off are over by then.
const SETTLE: Duration = Duration::from_secs(40 * 60);

struct Observer {
    world: World,
    start: Instant,
    invariants: Invariants,
    deployments: Informer<Deployment>,
    sets: Subscription<ReplicaSet>,
    pods: Informer<Pod>,
    pod_changes: Subscription<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

pub async fn drive(world: &World, options: Options) -> Result<Vec<String>, Error> {
    let informers = Informers::with_entropy(world.sure_client(), world.entropy.clone());
    let all = Scope::all;
    let mut observer = Observer {
        world: world.clone(),
        start: Instant::now(),
        invariants: Invariants::default(),
        deployments: informers.of(all()),
        sets: informers.of(all()).subscribe(),
        pods: informers.of(all()),
        pod_changes: informers.of(all()).subscribe(),
        nodes: informers.of(all()),
        slices: informers.of(all()),
    };
    match observer.story(options).await {
        Ok(()) => Ok(observer.invariants.trace),
        Err(what) => {
            let trace = &observer.invariants.trace;
            let recent = trace[trace.len().saturating_sub(30)..].to_vec();
            Err(Error::Violation { at_seconds: observer.start.elapsed().as_secs(), what, recent })
        }
    }
}

impl Observer {
    async fn story(&mut self, options: Options) -> Result<(), String> {
        let client = self.world.sure_client();
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let deployments: Api<Deployment> = Api::namespaced(client, "default");
        let entropy = self.world.entropy.clone();
        services.create(&PostParams::default(), &parse(service())?).await.map_err(|error| format!("creating the Service: {error}"))?;
        deployments
            .create(&PostParams::default(), &parse(deployment())?)
            .await
            .map_err(|error| format!("creating the Deployment: {error}"))?;
        self.watch_for(Duration::from_secs(60)).await?;
        self.world.faults.turn(true);
        let end = Instant::now() + Duration::from_secs(60 * options.minutes);
        let mut version = 1;
        while Instant::now() < end {
            self.watch_for(Duration::from_secs(20 + entropy.below(400))).await?;
            let change = match entropy.below(3) {
                0 => json!({"spec": {"replicas": 1 + entropy.below(12)}}),
                _ => {
                    version += 1;
                    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": format!("app:v{version}")}]}}}})
                }
            };
            self.invariants.trace.push(format!("the user asks for {change}"));
            let patch = Patch::Strategic(change);
            deployments.patch("web", &PatchParams::default(), &patch).await.map_err(|error| format!("patching the Deployment: {error}"))?;
        }
        self.world.faults.turn(false);
        let deadline = Instant::now() + SETTLE;
        loop {
            self.watch_for(Duration::from_secs(5)).await?;
            match self.unsettled() {
                None => break,
                Some(what) if Instant::now() >= deadline => {
                    let (seconds, nodes) = (SETTLE.as_secs(), self.describe_nodes());
                    return Err(format!("not settled {seconds} s after the last fault: {what}\n  {nodes}"));
                }
                Some(_) => {}
            }
        }
        farewell::run(self.world.sure_client(), &self.world.faults).await
    }

    /// Checks invariants for a while.
    async fn watch_for(&mut self, time: Duration) -> Result<(), String> {
        let mut end = std::pin::pin!(tokio::time::sleep(time));
        loop {
            tokio::select! {
                biased;
                change = self.sets.next() => self.invariants.set(&change),
                change = self.pod_changes.next() => self.invariants.pod(&change)?,
                () = &mut end => break,
            }
        }
        networks_are_disjoint(self.nodes.list().iter().map(|node| &**node))
    }

    fn describe_nodes(&self) -> String {
        let nodes = self.nodes.list();
        let one = |node: &std::sync::Arc<Node>| {
            let taints: Vec<_> = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).map(|taint| taint.key.clone()).collect();
            let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|one| one.type_ == "Ready");
            format!("{:?} ready {:?} taints {taints:?}", node.metadata.name, ready.map(|ready| ready.status.clone()))
        };
        nodes.iter().map(one).collect::<Vec<_>>().join("\n  ")
    }

    /// What is not yet as asked for.
    fn unsettled(&self) -> Option<String> {
        let Some(deployment) = self.deployments.get("default", "web") else { return Some("no Deployment".to_owned()) };
        let (spec, status) = (deployment.spec.as_ref()?, deployment.status.clone().unwrap_or_default());
        let wanted = spec.replicas;
        if status.observed_generation != deployment.metadata.generation {
            return Some("the newest generation was not observed".to_owned());
        }
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
        if counts.iter().any(|count| *count != wanted) {
            return Some(format!("{wanted:?} replicas wanted, but total, updated, ready, available are {counts:?}"));
        }
        let pods: Vec<_> = self.pods.list_namespace("default");
        let image = &spec.template.spec.as_ref()?.containers.first()?.image;
        for pod in &pods {
            let has = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| &container.image);
            if has != Some(image) || !controllers::pods::is_ready(pod) {
                return Some(format!("pod {:?} is old or not ready", pod.metadata.name));
            }
        }
        let ips: BTreeSet<String> = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
        let slices: Vec<_> = self.slices.list_namespace("default");
        let of_web = slices.iter().filter(|slice| controllers::meta::label(&***slice, "kubernetes.io/service-name") == Some("web"));
        let endpoints: BTreeSet<String> =
            of_web.flat_map(|slice| slice.endpoints.iter().flatten().flat_map(|one| one.addresses.clone())).collect();
        (ips != endpoints).then(|| format!("pods have {ips:?}, the Service has {endpoints:?}"))
    }
}

fn service() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 6, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}}}})
}

fn parse<K: for<'de> k8s_openapi::serde::Deserialize<'de>>(value: Value) -> Result<K, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}
