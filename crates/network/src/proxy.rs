//! kube-proxy: watches Services, EndpointSlices and its Node, and keeps the kernel's rules what `netplan::proxy` plans.
//!
//! Changes that come together are applied together, a few milliseconds after the first. A failed change is tried again
//! from scratch: the whole table is then replaced in one transaction.

mod health;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Informers, Scope};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netplan::proxy::{ProxyConfig, ProxyPlan, plan};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{Instance, NetNs, Result};
use health::Health;
pub use rules::Rules;

const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
const LABEL_SERVICE: &str = "kubernetes.io/service-name";
/// How long to gather further changes after the first.
const COALESCE: Duration = Duration::from_millis(5);
const RETRY: Duration = Duration::from_secs(1);
/// Nothing is expected to change the rules behind our back, but the node's own addresses may have changed.
const RESYNC: Duration = Duration::from_secs(30);

/// One node's proxy.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    pub instance: Instance,
    pub node_name: String,
    /// Where the node lives.
    pub netns: NetNs,
    pub cluster_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    /// ClusterIPs the node answers itself, such as its DNS.
    pub local_vips: BTreeSet<IpAddr>,
    /// `--healthz-bind-address`: upstream's default is 0.0.0.0:10256. None: no such server.
    pub healthz: Option<SocketAddr>,
}

/// kube-proxy for one node.
#[derive(Debug)]
pub struct Proxy {
    options: ProxyOptions,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
}

impl Proxy {
    pub fn new(informers: &Informers, options: ProxyOptions) -> Self {
        Proxy { options, services: informers.of(Scope::all()), slices: informers.of(Scope::all()), nodes: informers.of(Scope::all()) }
    }

    /// Run until cancelled. The rules stay: connections go on while the proxy is restarted.
    pub async fn run(self, cancel: CancellationToken) -> Result<()> {
        let rules = Rules::open(&self.options.netns, &self.options.instance)?;
        let health = Health::new(&self.options.netns);
        if let Some(at) = self.options.healthz {
            health.serve_healthz(at)?;
        }
        let mut worker = Worker { proxy: Arc::new(self), rules: Some(rules), health };
        worker.run(cancel).await;
        Ok(())
    }

    fn config(&self) -> ProxyConfig {
        let node = self.nodes.get("", &self.options.node_name);
        let zone = node.and_then(|n| n.metadata.labels.as_ref()?.get(LABEL_ZONE).cloned());
        ProxyConfig {
            table: self.options.instance.proxy_table(),
            node_name: self.options.node_name.clone(),
            zone,
            cluster_cidrs: self.options.cluster_cidrs.clone(),
            masquerade_all: self.options.masquerade_all,
            local_vips: self.options.local_vips.clone(),
        }
    }

    fn plan(&self) -> ProxyPlan {
        let services = self.services.list();
        let all = self.slices.list();
        let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in &all {
            if let Some(name) = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE)) {
                slices.entry((slice.metadata.namespace.as_deref().unwrap_or_default(), name)).or_default().push(slice);
            }
        }
        let inputs = services.iter().map(|s| {
            let key = (s.metadata.namespace.as_deref().unwrap_or_default(), s.metadata.name.as_deref().unwrap_or_default());
            (Arc::as_ref(s), slices.get(&key).cloned().unwrap_or_default())
        });
        plan(&self.config(), inputs)
    }
}

struct Worker {
    proxy: Arc<Proxy>,
    /// Away while a blocking thread works with it.
    rules: Option<Rules>,
    health: Health,
}

impl Worker {
    async fn run(&mut self, cancel: CancellationToken) {
        let mut services = self.proxy.services.subscribe();
        let mut slices = self.proxy.slices.subscribe();
        let mut nodes = self.proxy.nodes.subscribe();
        let ready = async {
            let synced = tokio::try_join!(self.proxy.services.synced(), self.proxy.slices.synced(), self.proxy.nodes.synced());
            if let Err(e) = synced {
                tracing::error!(error = %e, "proxy cannot watch");
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = ready => {}
        }
        let mut due = Instant::now();
        // As long as the last change took, so that a storm of changes to many Services takes half a core at most.
        let mut pause = COALESCE;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = sleep_until(due) => {
                    // What came meanwhile is in the informers already.
                    while services.try_next().is_some() || slices.try_next().is_some() || nodes.try_next().is_some() {}
                    let started = Instant::now();
                    let after = if self.sync().await { RESYNC } else { RETRY };
                    pause = started.elapsed().max(COALESCE);
                    due = Instant::now() + after;
                }
                _ = services.next() => due = due.min(Instant::now() + pause),
                _ = slices.next() => due = due.min(Instant::now() + pause),
                change = nodes.next() => if *change.key.name == *self.proxy.options.node_name {
                    due = due.min(Instant::now() + pause);
                },
            }
        }
    }

    /// Whether the kernel now has what the API says.
    async fn sync(&mut self) -> bool {
        self.health.queued();
        let rules = match self.rules.take() {
            Some(rules) => rules,
            None => match Rules::open(&self.proxy.options.netns, &self.proxy.options.instance) {
                Ok(rules) => rules,
                Err(e) => {
                    tracing::error!(error = %e, "cannot change the service rules");
                    return false;
                }
            },
        };
        let proxy = self.proxy.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut rules = rules;
            let plan = proxy.plan();
            let checks = plan.health_checks.clone();
            let outcome = rules.apply(plan);
            (rules, checks, outcome)
        });
        match work.await {
            Ok((rules, checks, outcome)) => {
                self.rules = Some(rules);
                self.health.set_services(&checks);
                match outcome {
                    Ok(()) => {
                        self.health.updated();
                        true
                    }
                    Err(e) => {
                        tracing::error!(error = %e, "cannot change the service rules");
                        false
                    }
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "changing the service rules panicked");
                false
            }
        }
    }
}
