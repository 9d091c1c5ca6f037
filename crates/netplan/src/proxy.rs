//! kube-proxy's decisions: Services and EndpointSlices to nftables tables, health check ports and the UDP flows that
//! have become stale. `network::proxy` calls [`plan`] and makes the kernel agree.

mod categorize;
mod model;
mod plan;
mod stale;
mod table;
#[cfg(test)]
mod tests;

pub use categorize::{Reachable, categorize};
pub use model::{Endpoint, ServicePort, service_ports};
pub use plan::{HealthCheck, ProxyPlan, plan};
pub use stale::{UdpFlow, stale_affinity, stale_flows};
pub use table::MASQUERADE_MARK;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// What does not change with the Services.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// Name of the nftables tables (one per family).
    pub table: String,
    pub node_name: String,
    /// The node's `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Addresses of pods. Traffic from elsewhere to a ClusterIP is masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    /// Addresses this node answers itself (the DNS Service's ClusterIP): no rule touches them.
    pub local_vips: BTreeSet<IpAddr>,
}
