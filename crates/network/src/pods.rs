//! Pods' way into the network: what a runtime calls with a sandbox's network namespace.
//!
//! One veth pair per pod, point to point: the pod has its address as /32 and sends everything to 169.254.1.1, whose
//! link-layer address it knows for good; the node has a /32 route to the pod. No bridge, so no hairpin mode and no
//! br_netfilter. Addresses come from the node's pod CIDRs and are recorded in the state directory, one file per sandbox.

mod state;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netplan::nft::{Family, Protocol, Table, create, diff};
use netplan::pods::{PortMapping, node_table};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::link::Route;
use crate::nft::Nft;
use crate::node::NodeConfig;
use crate::{Error, Links, NetNs, Result, sysctl};
use state::{Lease, Leases};

pub(crate) use wire::{Wire, connect};

/// Whose sandbox it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Unique for all time: a pod's second sandbox is another one.
    pub sandbox_id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// None or unspecified: every address of the node.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// The pod network of one node.
#[derive(Debug)]
pub struct PodNetworker {
    config: NodeConfig,
    links: Links,
    nft: Nft,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    leases: Leases,
    pod_cidrs: Vec<IpNet>,
    /// What the kernel has.
    tables: BTreeMap<Family, Table>,
}

impl PodNetworker {
    /// Prepare the node (forwarding, the service link, masquerading) and take up what an earlier run left.
    pub async fn open(config: NodeConfig) -> Result<Self> {
        let links = Links::open(&config.netns).await?;
        let nft = Nft::open(&config.netns)?;
        crate::node::prepare(&config, &links).await?;
        let leases = Leases::load(&config.state_dir)?;
        let mut inner = Inner { leases, pod_cidrs: Vec::new(), tables: BTreeMap::new() };
        sync_tables(&config, &nft, &mut inner)?;
        Ok(PodNetworker { config, links, nft, inner: Mutex::new(inner) })
    }

    /// `spec.podCIDRs` of our Node. Sandboxes keep the addresses they have. Packets to addresses without a pod end here:
    /// with only a default route they would leave the node, or go in circles between the nodes of one machine.
    pub async fn set_pod_cidrs(&self, cidrs: Vec<IpNet>) -> Result<()> {
        let mut inner = self.inner.lock().await;
        if inner.pod_cidrs != cidrs {
            let link = self.links.add_dummy(&self.config.instance.service_link()).await?;
            for cidr in &cidrs {
                self.links.replace_route(link, &Route::to(cidr.trunc())).await?;
            }
            inner.pod_cidrs = cidrs;
        }
        Ok(())
    }

    /// Look at the node's own addresses again: what it sends to Services comes from them.
    pub async fn refresh(&self) -> Result<()> {
        crate::node::prepare(&self.config, &self.links).await
    }

    /// Whether pods can be attached: the CRI condition NetworkReady.
    pub async fn is_ready(&self) -> bool {
        !self.inner.lock().await.pod_cidrs.is_empty()
    }

    /// Connect a sandbox, giving it one address per pod CIDR, the primary first. Repeating it for a sandbox that is
    /// connected returns what it has. Different sandboxes may be attached at the same time, one sandbox not.
    pub async fn attach(&self, netns: &Path, pod: &PodIdentity, host_ports: &[HostPort]) -> Result<Vec<IpAddr>> {
        self.attach_with(netns, pod, host_ports, &[]).await
    }

    /// As [`PodNetworker::attach`] for a sandbox that lives on from before: it keeps its addresses, even if our record
    /// of them was lost, and what is missing is repaired.
    pub async fn check(&self, netns: &Path, pod: &PodIdentity, host_ports: &[HostPort], addresses: &[IpAddr]) -> Result<()> {
        self.attach_with(netns, pod, host_ports, addresses).await.map(|_| ())
    }

    async fn attach_with(&self, netns: &Path, pod: &PodIdentity, host_ports: &[HostPort], known: &[IpAddr]) -> Result<Vec<IpAddr>> {
        let link = self.config.instance.pod_link(&pod.sandbox_id);
        let connected = self.links.is_up(&link).await?;
        let addresses = {
            let mut guard = self.inner.lock().await;
            let inner = &mut *guard;
            let addresses = match inner.leases.get(&pod.sandbox_id) {
                Some(lease) => lease.addresses.clone(),
                None if !known.is_empty() => known.to_vec(),
                None if inner.pod_cidrs.is_empty() => return Err(Error::NotReady("the Node has no pod CIDR yet")),
                None => inner.leases.pick(&inner.pod_cidrs)?,
            };
            let ports = mappings(&addresses, host_ports);
            let lease = Lease { pod: pod.clone(), link: link.clone(), addresses: addresses.clone(), ports };
            if inner.leases.get(&pod.sandbox_id) != Some(&lease) {
                inner.leases.add(lease)?;
            }
            addresses
        };
        match self.wire_up(netns, &link, &addresses, connected).await {
            Ok(()) => Ok(addresses),
            Err(e) => {
                if let Err(undo) = self.detach(&pod.sandbox_id).await {
                    tracing::warn!(sandbox = pod.sandbox_id, error = %undo, "could not undo a failed attach");
                }
                Err(e)
            }
        }
    }

    async fn wire_up(&self, netns: &Path, link: &str, addresses: &[IpAddr], connected: bool) -> Result<()> {
        if !connected {
            let pod_ns = NetNs::open(netns)?;
            let wire = Wire { link, peer: "eth0", addresses, mtu: self.config.mtu };
            connect(&self.config.netns, &self.links, &pod_ns, &wire).await?;
        }
        sync_tables(&self.config, &self.nft, &mut *self.inner.lock().await)
    }

    /// Disconnect a sandbox and free its addresses. One that is not connected is no error.
    pub async fn detach(&self, sandbox_id: &str) -> Result<()> {
        self.links.delete(&self.config.instance.pod_link(sandbox_id)).await?;
        let mut inner = self.inner.lock().await;
        inner.leases.remove(sandbox_id)?;
        sync_tables(&self.config, &self.nft, &mut inner)
    }

    /// What a sandbox has; empty if it is not connected.
    pub async fn addresses(&self, sandbox_id: &str) -> Vec<IpAddr> {
        self.inner.lock().await.leases.get(sandbox_id).map(|l| l.addresses.clone()).unwrap_or_default()
    }

    /// Detach every sandbox that is not in `live`: the truth is the runtime's. Returns the ids that were detached.
    pub async fn retain(&self, live: &BTreeSet<String>) -> Result<Vec<String>> {
        let inner = self.inner.lock().await;
        let gone: Vec<String> = inner.leases.ids().filter(|id| !live.contains(*id)).cloned().collect();
        drop(inner);
        for id in &gone {
            self.detach(id).await?;
        }
        Ok(gone)
    }
}

fn mappings(addresses: &[IpAddr], host_ports: &[HostPort]) -> Vec<PortMapping> {
    let mut out = Vec::new();
    for port in host_ports.iter().filter(|p| p.host_port != 0) {
        let fits = |pod_ip: &&IpAddr| port.host_ip.is_none_or(|h| h.is_unspecified() || h.is_ipv4() == pod_ip.is_ipv4());
        out.extend(addresses.iter().filter(fits).map(|pod_ip| PortMapping {
            host_ip: port.host_ip.filter(|ip| !ip.is_unspecified()),
            host_port: port.host_port,
            protocol: port.protocol,
            pod_ip: *pod_ip,
            pod_port: port.container_port,
        }));
    }
    out
}

/// Make the kernel's node tables what the leases demand.
fn sync_tables(config: &NodeConfig, nft: &Nft, inner: &mut Inner) -> Result<()> {
    let name = config.instance.node_table();
    let inside: Vec<IpNet> = config.cluster_cidrs.iter().chain(&config.node_cidr).copied().collect();
    let ports: Vec<PortMapping> = inner.leases.all().flat_map(|l| l.ports.iter().cloned()).collect();
    for family in Family::BOTH {
        let wanted = node_table(family, &name, &inside, &ports);
        let batch = match inner.tables.get(&family) {
            Some(have) => diff(have, &wanted),
            None => create(&wanted),
        };
        nft.apply(family, &name, &batch)?;
        inner.tables.insert(family, wanted);
    }
    Ok(())
}

/// Settings a link of ours needs.
pub(crate) fn link_sysctls(netns: &NetNs, link: &str) -> Result<()> {
    let settings = [
        (format!("ipv4/conf/{link}/forwarding"), "1"),
        (format!("ipv6/conf/{link}/forwarding"), "1"),
        // A pod can use no source address but its own: only the route to that one leads back through its link.
        (format!("ipv4/conf/{link}/rp_filter"), "1"),
        (format!("ipv4/conf/{link}/send_redirects"), "0"),
        (format!("ipv6/conf/{link}/accept_ra"), "0"),
        // Nobody else is on the link, and ICMPv6 errors need an address at once.
        (format!("ipv6/conf/{link}/accept_dad"), "0"),
    ];
    sysctl::set(netns, &settings)
}
