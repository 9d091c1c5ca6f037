//! Which endpoints of a service port traffic may go to: upstream's `CategorizeEndpoints` with topology hints and the
//! fallback to terminating endpoints.

use super::{Endpoint, ProxyConfig, ServicePort};

/// Endpoints by the traffic policy that uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachable {
    /// For policy Cluster.
    pub cluster: Vec<Endpoint>,
    /// For policy Local.
    pub local: Vec<Endpoint>,
    /// Somewhere there is an endpoint that serves: no traffic is dropped, not refused.
    pub any: bool,
}

enum Topology {
    ClusterWide,
    SameZone,
    SameNode,
}

pub fn categorize(config: &ProxyConfig, port: &ServicePort, endpoints: &[Endpoint]) -> Reachable {
    let usable = |e: &&Endpoint| e.ready;
    let draining = |e: &&Endpoint| e.serving && e.terminating;
    let topology = topology(config, endpoints);
    let near = |e: &&Endpoint| match topology {
        Topology::ClusterWide => true,
        Topology::SameNode => e.node_hints.contains(&config.node_name),
        Topology::SameZone => config.zone.as_ref().is_some_and(|z| e.zone_hints.contains(z)),
    };
    let cluster = or_else(endpoints.iter().filter(usable).filter(near), || endpoints.iter().filter(draining));
    let uses_local = port.internal_local || (port.external_local && port.is_external());
    if !uses_local {
        return Reachable { any: !cluster.is_empty(), cluster, local: Vec::new() };
    }
    let here = || endpoints.iter().filter(|e| e.local);
    let local = or_else(here().filter(usable), || here().filter(draining));
    let any = endpoints.iter().any(|e| usable(&e) || draining(&e));
    Reachable { cluster, local, any }
}

fn or_else<'a, I: Iterator<Item = &'a Endpoint>>(first: impl Iterator<Item = &'a Endpoint>, fallback: impl Fn() -> I) -> Vec<Endpoint> {
    let found: Vec<Endpoint> = first.cloned().collect();
    if found.is_empty() { fallback().cloned().collect() } else { found }
}

/// Hints count only when every ready endpoint has them and one names us (upstream's `topologyModeFromHints`).
fn topology(config: &ProxyConfig, endpoints: &[Endpoint]) -> Topology {
    let ready = || endpoints.iter().filter(|e| e.ready);
    if ready().next().is_none() {
        return Topology::ClusterWide;
    }
    if ready().all(|e| !e.node_hints.is_empty()) && ready().any(|e| e.node_hints.contains(&config.node_name)) {
        return Topology::SameNode;
    }
    let Some(zone) = &config.zone else { return Topology::ClusterWide };
    if ready().all(|e| !e.zone_hints.is_empty()) && ready().any(|e| e.zone_hints.contains(zone)) {
        return Topology::SameZone;
    }
    Topology::ClusterWide
}
