//! The network of a node: links, addresses, routes, nftables, the service proxy and DNS.
//!
//! The shell around `netplan`, which decides; this crate reads the API, asks, and makes the kernel agree. It knows
//! nothing of containers: the runtime hands it a network namespace and gets addresses back ([`PodNetworker`]).
//!
//! A node is wired in this order: [`pick_cidrs`] once per cluster, [`ensure_node_address`], for an extra node of the same
//! machine [`NodeNamespace::create`], then [`PodNetworker::open`], [`Router`], [`Proxy`] (with the DNS address among its
//! `local_vips`), [`PolicyEnforcer`] and [`DnsServer`], all in the node's namespace. Going down: [`teardown`] of each
//! namespace, then [`NodeNamespace::remove_all`]. Teardown leaves IP forwarding switched on: others may rely on it.
//!
//! Every link, nftables table and route is named from the cluster's [`Instance`], so that several clusters share a host
//! and [`teardown`] removes one of them whole.

pub mod dns;
mod error;
mod instance;
mod link;
pub mod netns;
pub mod nft;
mod node;
mod pods;
mod policy;
pub mod proxy;
mod router;
mod sysctl;

pub use dns::{DnsOptions, DnsServer};
pub use error::{Error, Result};
pub use instance::Instance;
pub use link::{Links, Route};
pub use netns::NetNs;
pub use netplan::ipam::ClusterCidrs;
pub use node::{NodeConfig, NodeNamespace, ensure_node_address, node_addresses, pick_cidrs, teardown};
pub use pods::{HostPort, PodIdentity, PodNetworker};
pub use policy::{PolicyEnforcer, PolicyOptions};
pub use proxy::{Proxy, ProxyOptions};
pub use router::{Router, RouterOptions};
