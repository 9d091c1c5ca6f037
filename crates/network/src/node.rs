//! What a node has beside its pods: forwarding, the service link, and, for the extra nodes of one machine, a namespace
//! of its own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use netplan::ipam::{ClusterCidrs, free_cidrs};
use netplan::nft::Family;

use crate::link::Route;
use crate::nft::Nft;
use crate::pods::{Wire, connect};
use crate::{Error, Instance, Links, NetNs, Result, sysctl};

/// One node's part of the network.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub instance: Instance,
    pub node_name: String,
    /// Where the node lives: the host's own namespace, or one made by [`NodeNamespace::create`].
    pub netns: NetNs,
    /// Where the leases of this node's pods are kept.
    pub state_dir: PathBuf,
    /// Pods of the whole cluster.
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of the machine's extra nodes.
    pub node_cidr: Option<IpNet>,
    /// Of pods' links; None: the kernel's 1500.
    pub mtu: Option<u32>,
}

/// Forwarding on, and packets to the service networks routed, so that the nftables rules see them even on a node
/// without a default route.
pub(crate) async fn prepare(config: &NodeConfig, links: &Links) -> Result<()> {
    let v6 = config.cluster_cidrs.iter().chain(&config.service_cidrs).any(|net| net.addr().is_ipv6());
    forward(&config.netns, v6)?;
    let link = links.add_dummy(&config.instance.service_link()).await?;
    let source = node_addresses(&config.netns).await?;
    for cidr in &config.service_cidrs {
        let source = source.iter().find(|a| a.is_ipv4() == cidr.addr().is_ipv4()).copied();
        links.replace_route(link, &Route { source, ..Route::to(cidr.trunc()) }).await?;
    }
    Ok(())
}

/// IPv6 only where the cluster has it: a forwarding host no longer believes router advertisements, and may so lose its
/// own default route.
fn forward(netns: &NetNs, v6: bool) -> Result<()> {
    let mut settings = vec![("ipv4/ip_forward".to_owned(), "1")];
    if v6 {
        settings.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    sysctl::set(netns, &settings)
}

/// The addresses a node in this namespace is known by, at most one per family: the source of its default route, else
/// any global one.
pub async fn node_addresses(netns: &NetNs) -> Result<Vec<IpAddr>> {
    let links = Links::open(netns).await?;
    let all = links.addresses().await?;
    let mut found = Vec::new();
    for outside in [IpAddr::from([192, 0, 2, 255]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xffff])] {
        let usable = |ip: &IpAddr| ip.is_ipv4() == outside.is_ipv4() && is_global(ip);
        let routed = links.lookup(outside).await?.and_then(|l| l.source).filter(usable);
        let any = || all.iter().map(|(_, net)| net.addr()).find(usable);
        found.extend(routed.or_else(any));
    }
    Ok(found)
}

fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// Give a node an address when its namespace has none, so that pods and Services can reach it. Returns the node's addresses.
pub async fn ensure_node_address(netns: &NetNs, instance: &Instance, fallback: IpAddr) -> Result<Vec<IpAddr>> {
    let have = node_addresses(netns).await?;
    if !have.is_empty() {
        return Ok(have);
    }
    let links = Links::open(netns).await?;
    let link = links.add_dummy(&instance.service_link()).await?;
    links.add_address(link, IpNet::from(fallback)).await?;
    Ok(vec![fallback])
}

/// Networks for a new cluster that overlap nothing this namespace routes or has an address in. The default route does
/// not count.
pub async fn pick_cidrs(netns: &NetNs) -> Result<ClusterCidrs> {
    let links = Links::open(netns).await?;
    let mut used: Vec<IpNet> = links.routes().await?.into_iter().map(|(_, route)| route.destination).collect();
    used.extend(links.addresses().await?.into_iter().map(|(_, net)| net.trunc()));
    free_cidrs(&used)
        .ok_or_else(|| Error::Invalid("every private network is in use on this host: choose the cluster's networks yourself".into()))
}

/// The namespace of an extra node: what a second machine would be, connected to the first one's.
#[derive(Debug)]
pub struct NodeNamespace {
    pub netns: NetNs,
    pub path: PathBuf,
    pub addresses: Vec<IpAddr>,
}

impl NodeNamespace {
    /// Make it, or take up the one an earlier run left, at `<run_dir>/netns/<node>`. The host reaches the node through a
    /// point-to-point link, the node everything through the host.
    pub async fn create(instance: &Instance, host: &NetNs, run_dir: &Path, node: &str, addresses: &[IpAddr]) -> Result<Self> {
        let path = Self::path(run_dir, node);
        let link = instance.node_link(node);
        let links = Links::open(host).await?;
        if path.exists() && links.is_up(&link).await? {
            return Ok(NodeNamespace { netns: NetNs::open(&path)?, path, addresses: addresses.to_vec() });
        }
        NetNs::remove(&path)?;
        let netns = NetNs::create(&path)?;
        forward(host, addresses.iter().any(IpAddr::is_ipv6))?;
        connect(host, &links, &netns, &Wire { link: &link, peer: "eth0", addresses, mtu: None }).await?;
        Ok(NodeNamespace { netns, path, addresses: addresses.to_vec() })
    }

    /// Remove it with all that is in it.
    pub async fn remove(instance: &Instance, host: &NetNs, run_dir: &Path, node: &str) -> Result<()> {
        Links::open(host).await?.delete(&instance.node_link(node)).await?;
        NetNs::remove(&Self::path(run_dir, node))
    }

    /// Remove the names of all extra nodes under a run directory, whatever they are; their links go with [`teardown`].
    pub fn remove_all(run_dir: &Path) -> Result<()> {
        let directory = run_dir.join("netns");
        let entries = match std::fs::read_dir(&directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| Error::file("read directory", &directory, e))?,
        };
        for entry in entries {
            NetNs::remove(&entry.map_err(|e| Error::file("read directory", &directory, e))?.path())?;
        }
        std::fs::remove_dir(&directory).map_err(|e| Error::file("remove", directory, e))
    }

    fn path(run_dir: &Path, node: &str) -> PathBuf {
        run_dir.join("netns").join(node)
    }
}

/// Remove every link, route and table of an instance from a namespace; addresses and neighbours go with the links. Extra nodes are removed with [`NodeNamespace::remove`] before.
pub async fn teardown(instance: &Instance, netns: &NetNs) -> Result<()> {
    let nft = Nft::open(netns)?;
    for family in Family::BOTH {
        let there = nft.tables(family)?;
        for table in instance.tables().iter().filter(|t| there.contains(t)) {
            nft.delete_table(family, table)?;
        }
    }
    let links = Links::open(netns).await?;
    links.delete_routes_of(instance.route_owner()).await?;
    for name in links.named(&instance.link_prefix()).await? {
        links.delete(&name).await?;
    }
    Ok(())
}
