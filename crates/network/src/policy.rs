//! NetworkPolicies: watches them, Pods and Namespaces, and keeps the node's policy tables what `netplan::policy` plans.
//! Pods and Namespaces are watched only once there is a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use client::{Informer, Informers, Scope};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netplan::nft::{Family, Protocol, Table, create, diff};
use netplan::policy::{PolicyPod, World, plan};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::nft::Nft;
use crate::{Instance, NetNs, Result};

const COALESCE: Duration = Duration::from_millis(5);
const RETRY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub struct PolicyOptions {
    pub instance: Instance,
    pub node_name: String,
    /// Where the node lives.
    pub netns: NetNs,
    /// Addresses of the node that no policy closes: its DNS.
    pub always: BTreeSet<IpAddr>,
}

/// Enforces NetworkPolicies for the pods of one node.
#[derive(Debug)]
pub struct PolicyEnforcer {
    options: PolicyOptions,
    informers: Informers,
    nft: Nft,
    current: BTreeMap<Family, Table>,
}

struct Watched {
    pods: Informer<Pod>,
    namespaces: Informer<Namespace>,
}

impl PolicyEnforcer {
    pub fn new(informers: &Informers, options: PolicyOptions) -> Result<Self> {
        let nft = Nft::open(&options.netns)?;
        Ok(PolicyEnforcer { options, informers: informers.clone(), nft, current: BTreeMap::new() })
    }

    /// Run until cancelled. The rules stay.
    pub async fn run(mut self, cancel: CancellationToken) {
        let policies = self.informers.of::<NetworkPolicy>(Scope::all());
        let mut changes = policies.subscribe();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            synced = policies.synced() => if let Err(e) = synced {
                tracing::error!(error = %e, "cannot watch NetworkPolicies");
                return;
            },
        }
        // Until the first policy there is nothing to enforce, but what an earlier run left may have to go.
        let mut leftover = true;
        while policies.is_empty() {
            if std::mem::take(&mut leftover)
                && let Err(e) = self.apply(&World::default())
            {
                tracing::error!(error = %e, "cannot clear the network policy rules");
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = changes.next() => {}
            }
        }
        let watched = Watched { pods: self.informers.of(Scope::all()), namespaces: self.informers.of(Scope::all()) };
        let ready = async { tokio::try_join!(watched.pods.synced(), watched.namespaces.synced()).map(|_| ()) };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            synced = ready => if let Err(e) = synced {
                tracing::error!(error = %e, "cannot watch what NetworkPolicies select");
                return;
            },
        }
        self.follow(&policies, changes, &watched, cancel).await;
    }

    async fn follow(
        &mut self,
        policies: &Informer<NetworkPolicy>,
        mut changes: client::Subscription<NetworkPolicy>,
        watched: &Watched,
        cancel: CancellationToken,
    ) {
        let mut pods = watched.pods.subscribe();
        let mut namespaces = watched.namespaces.subscribe();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = sleep_until(due) => {
                    while changes.try_next().is_some() || pods.try_next().is_some() || namespaces.try_next().is_some() {}
                    let policies = policies.list();
                    let world = World {
                        policies: policies.iter().map(std::convert::AsRef::as_ref).collect(),
                        pods: watched.pods.list().iter().filter_map(|p| policy_pod(p, &self.options.node_name)).collect(),
                        namespaces: watched.namespaces.list().iter().map(|n| labels_of(n)).collect(),
                        always: self.options.always.clone(),
                    };
                    due = Instant::now() + match self.apply(&world) {
                        Ok(()) => IDLE,
                        Err(e) => {
                            tracing::error!(error = %e, "cannot change the network policy rules");
                            RETRY
                        }
                    };
                }
                _ = changes.next() => due = due.min(Instant::now() + COALESCE),
                _ = pods.next() => due = due.min(Instant::now() + COALESCE),
                _ = namespaces.next() => due = due.min(Instant::now() + COALESCE),
            }
        }
    }

    fn apply(&mut self, world: &World<'_>) -> Result<()> {
        let name = self.options.instance.policy_table();
        for family in Family::BOTH {
            let wanted = plan(family, &name, world);
            // Taken out, so that after a failure everything is made anew.
            let batch = match self.current.remove(&family) {
                Some(have) => diff(&have, &wanted),
                None => create(&wanted),
            };
            self.nft.apply(family, &name, &batch)?;
            self.current.insert(family, wanted);
        }
        Ok(())
    }
}

fn labels_of(namespace: &Namespace) -> (String, BTreeMap<String, String>) {
    (namespace.metadata.name.clone().unwrap_or_default(), namespace.metadata.labels.clone().unwrap_or_default())
}

/// None: no address, one of the node's, or done with it.
fn policy_pod(pod: &Pod, node: &str) -> Option<PolicyPod> {
    let spec = pod.spec.as_ref().filter(|s| s.host_network != Some(true))?;
    let status = pod.status.as_ref().filter(|s| !matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")))?;
    let ips: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|p| p.ip.parse().ok()).collect();
    if ips.is_empty() {
        return None;
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let named =
        ports.filter_map(|p| Some((p.name.clone()?, Protocol::from_api(p.protocol.as_deref())?, u16::try_from(p.container_port).ok()?)));
    Some(PolicyPod {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        ips,
        local: spec.node_name.as_deref() == Some(node),
        named_ports: named.collect(),
    })
}
