//! What the network of a node must be: nftables rules, routes, DNS answers, from Services, EndpointSlices, Nodes and
//! NetworkPolicies.
//!
//! Pure: nothing here opens a socket or reads a clock. `network` reads the API, asks this crate, and makes the kernel agree.

pub mod dns;
pub mod ipam;
pub mod names;
pub mod nft;
pub mod pods;
pub mod policy;
pub mod proxy;
pub mod routes;
