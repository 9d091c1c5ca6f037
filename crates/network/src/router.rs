//! Follows the Nodes: tells the pod network which CIDRs it has, and keeps the routes to the pods of all other nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Informers, Scope};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use netplan::routes::{Hop, Neighbour, Reach, plan, vxlan_mac};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::link::Route;
use crate::{Instance, Links, NetNs, PodNetworker, Result};

/// IANA's.
const VXLAN_PORT: u16 = 4789;
const COALESCE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(2);
/// The node's own addresses and routes may change.
const RESYNC: Duration = Duration::from_secs(30);
const LOOPBACK: u32 = 1;

#[derive(Clone, Debug)]
pub struct RouterOptions {
    pub instance: Instance,
    pub node_name: String,
    pub netns: NetNs,
    /// What is behind the default route knows the way to all pods: so it is for the extra nodes of one machine.
    pub uplink_routes_pods: bool,
}

#[derive(Debug)]
pub struct Router {
    options: RouterOptions,
    nodes: Informer<Node>,
    links: Links,
    pods: Arc<PodNetworker>,
    /// What the kernel has.
    current: BTreeMap<IpNet, (u32, Route)>,
}

impl Router {
    pub async fn new(informers: &Informers, options: RouterOptions, pods: Arc<PodNetworker>) -> Result<Self> {
        let links = Links::open(&options.netns).await?;
        let owner = options.instance.route_owner();
        let ours = links.routes().await?.into_iter().filter(|(_, route)| route.owner == Some(owner));
        let current = ours.map(|(link, route)| (route.destination, (link, route))).collect();
        Ok(Router { nodes: informers.of(Scope::all()), options, links, pods, current })
    }

    /// Run until cancelled. The routes stay.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut changes = self.nodes.subscribe();
        let mut due = Instant::now() + RESYNC;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = sleep_until(due) => {
                    while changes.try_next().is_some() {}
                    due = Instant::now() + match self.sync().await {
                        Ok(()) => RESYNC,
                        Err(e) => {
                            tracing::error!(error = %e, "cannot route to the pods of other nodes");
                            RETRY
                        }
                    };
                }
                _ = changes.next() => due = due.min(Instant::now() + COALESCE),
            }
        }
    }

    async fn sync(&mut self) -> Result<()> {
        if !self.nodes.has_synced() {
            return Ok(());
        }
        self.pods.refresh().await?;
        let nodes = self.nodes.list();
        let mut neighbours = Vec::new();
        let mut own_cidrs = Vec::new();
        for node in &nodes {
            if node.metadata.name.as_deref() == Some(&self.options.node_name) {
                own_cidrs = pod_cidrs(node);
                self.pods.set_pod_cidrs(own_cidrs.clone()).await?;
            } else {
                neighbours.push(self.neighbour(node).await?);
            }
        }
        let wanted = self.routes(&plan(&neighbours), &own_cidrs).await?;
        self.apply(wanted).await
    }

    async fn neighbour(&self, node: &Node) -> Result<Neighbour> {
        let addresses = internal_ips(node);
        let mut reach = BTreeMap::new();
        for address in &addresses {
            let Some(found) = self.links.lookup(*address).await? else { continue };
            if found.link == LOOPBACK {
                continue;
            }
            let how = match found.gateway {
                None => Reach::Direct { link: found.link },
                Some(_) if self.options.uplink_routes_pods => Reach::Uplink,
                Some(_) => Reach::Gateway,
            };
            reach.insert(*address, how);
        }
        let name = node.metadata.name.clone().unwrap_or_default();
        Ok(Neighbour { name, addresses, pod_cidrs: pod_cidrs(node), reach })
    }

    /// The plan as routes, and the VXLAN ends they need.
    async fn routes(&self, plan: &BTreeMap<IpNet, Hop>, own_cidrs: &[IpNet]) -> Result<BTreeMap<IpNet, (u32, Route)>> {
        let owner = Some(self.options.instance.route_owner());
        let mut out = BTreeMap::new();
        for (destination, hop) in plan {
            let route = |gateway| Route { gateway: Some(gateway), onlink: true, owner, ..Route::to(*destination) };
            let entry = match hop {
                Hop::Via { link, gateway } => (*link, route(*gateway)),
                Hop::Vxlan { remote, mac, inner } => {
                    let link = self.vxlan(own_cidrs).await?;
                    self.links.add_neighbour(link, *inner, *mac).await?;
                    self.links.add_vxlan_peer(link, *mac, *remote).await?;
                    (link, route(*inner))
                }
            };
            out.insert(*destination, entry);
        }
        Ok(out)
    }

    /// This node's VXLAN end. It has the pod networks' own addresses, which no pod gets, so that what the node itself
    /// sends to pods elsewhere comes from an address that is routed back.
    async fn vxlan(&self, own_cidrs: &[IpNet]) -> Result<u32> {
        let instance = &self.options.instance;
        let mac = vxlan_mac(&self.options.node_name);
        let link = self.links.add_vxlan(&instance.vxlan_link(), instance.vxlan_vni(), VXLAN_PORT, mac).await?;
        for cidr in own_cidrs {
            self.links.add_address(link, IpNet::from(cidr.network())).await?;
        }
        Ok(link)
    }

    async fn apply(&mut self, wanted: BTreeMap<IpNet, (u32, Route)>) -> Result<()> {
        let gone: Vec<IpNet> = self.current.iter().filter(|(net, entry)| wanted.get(net) != Some(*entry)).map(|(net, _)| *net).collect();
        for net in gone {
            if let Some((link, route)) = self.current.get(&net) {
                self.links.delete_route(*link, route).await?;
                self.current.remove(&net);
            }
        }
        // Also those that should be there: a link that went away took its routes along.
        for (net, (link, route)) in wanted {
            self.links.replace_route(link, &route).await?;
            self.current.insert(net, (link, route));
        }
        Ok(())
    }
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|s| s.pod_cidrs.as_deref()).filter(|l| !l.is_empty());
    let one = spec.map(|s| s.pod_cidr.as_slice()).unwrap_or_default();
    all.unwrap_or(one).iter().filter_map(|c| c.parse().ok()).collect()
}

fn internal_ips(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.iter().filter_map(|s| s.addresses.as_ref()).flatten();
    addresses.filter(|a| a.type_ == "InternalIP").filter_map(|a| a.address.parse().ok()).collect()
}
