//! What the kernel remembers and must forget: UDP flows and client affinities that lead to endpoints that are gone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::ProxyPlan;
use crate::nft::{Field, Key, Table, Value};

/// A UDP entry of connection tracking: where the client sent, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFlow {
    pub destination: (IpAddr, u16),
    pub answered_by: (IpAddr, u16),
}

/// Whether a flow leads to something that is no endpoint of its Service (any more, or not yet: a packet sent before the
/// first endpoint came is tracked without translation). Flows to other addresses are not ours. `is_local` tells the
/// node's own addresses, where node ports are.
pub fn stale_flows(plan: &ProxyPlan, flow: &UdpFlow, is_local: impl Fn(IpAddr) -> bool) -> bool {
    let (addr, port) = flow.destination;
    let by_address = plan.udp.get(&(Some(addr), port));
    let endpoints = by_address.or_else(|| plan.udp.get(&(None, port)).filter(|_| is_local(addr)));
    endpoints.is_some_and(|known| !known.is_empty() && !known.contains(&flow.answered_by))
}

/// The elements of an affinity map whose endpoint no longer belongs to their address.
pub fn stale_affinity<'a>(table: &Table, affinity: &str, elements: impl Iterator<Item = (&'a Key, &'a Key)>) -> Vec<Key> {
    let Some(base) = affinity.strip_suffix("-affinity") else { return Vec::new() };
    let Some(endpoints) = table.sets.get(&format!("{base}-endpoints")) else { return Vec::new() };
    let live: BTreeSet<(&[Field], &[Field])> = endpoints
        .elements
        .iter()
        .filter_map(|(key, value)| match value {
            Value::Fields(to) => Some((key.split_last()?.1, to.as_slice())),
            Value::None | Value::Verdict(_) => None,
        })
        .collect();
    // An affinity key is the client's address followed by the key of the service.
    elements.filter(|(key, to)| !live.contains(&(key.get(1..).unwrap_or_default(), to.as_slice()))).map(|(key, _)| key.clone()).collect()
}
