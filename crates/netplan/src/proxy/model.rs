//! Services and EndpointSlices as the proxy sees them: one [`ServicePort`] per Service, family and port, with its
//! endpoints. Mirrors what upstream's `ServiceChangeTracker` and `EndpointSliceCache` keep and skip.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use super::ProxyConfig;
use crate::nft::{Family, Protocol};

const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// One port of one Service in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub namespace: String,
    pub service: String,
    /// Empty for the only, unnamed port.
    pub name: String,
    pub family: Family,
    pub protocol: Protocol,
    pub cluster_ip: IpAddr,
    pub port: u16,
    pub node_port: Option<u16>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Of this family. Empty: everyone may.
    pub source_ranges: Vec<IpNet>,
    /// `loadBalancerSourceRanges` was given, perhaps with ranges of the other family only: then nobody may.
    pub restricted: bool,
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    pub health_check_node_port: Option<u16>,
}

impl ServicePort {
    /// Whether anything outside the cluster can reach it.
    pub fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub addr: IpAddr,
    pub port: u16,
    pub local: bool,
    /// Nobody says which node it is on: it may be this one.
    pub anywhere: bool,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub zone_hints: Vec<String>,
    pub node_hints: Vec<String>,
}

/// The ports of a Service with the endpoints of each, sorted and without duplicates. Empty for a Service that is not
/// the proxy's business (headless, ExternalName, another proxy's).
pub fn service_ports(config: &ProxyConfig, service: &Service, slices: &[&EndpointSlice]) -> Vec<(ServicePort, Vec<Endpoint>)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let labels = service.metadata.labels.as_ref();
    let skipped = labels.is_some_and(|l| l.contains_key(LABEL_PROXY_NAME) || l.contains_key(LABEL_HEADLESS));
    if skipped || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut out = Vec::new();
    for cluster_ip in cluster_ips(spec) {
        let family = Family::of(&cluster_ip);
        for port in spec.ports.iter().flatten() {
            let Some(service_port) = service_port(service, spec, cluster_ip, port) else { continue };
            let endpoints = endpoints(config, family, &service_port, slices);
            out.push((service_port, endpoints));
        }
    }
    out
}

/// `spec.clusterIPs`, or of an old object `spec.clusterIP`. "None" and "" do not parse.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = spec.cluster_ips.as_deref().filter(|l| !l.is_empty());
    let one = spec.cluster_ip.as_slice();
    all.unwrap_or(one).iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn service_port(service: &Service, spec: &ServiceSpec, cluster_ip: IpAddr, port: &ApiPort) -> Option<ServicePort> {
    let family = Family::of(&cluster_ip);
    let of_family = |ip: &IpAddr| Family::of(ip) == family;
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let ingress = service.status.iter().filter_map(|s| s.load_balancer.as_ref()).filter_map(|lb| lb.ingress.as_ref()).flatten();
    let load_balancer_ips = ingress
        .filter(|_| kind == "LoadBalancer")
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_deref()?.parse().ok())
        .filter(of_family)
        .collect();
    let ranges: Vec<IpNet> = match kind {
        "LoadBalancer" => spec.load_balancer_source_ranges.iter().flatten().filter_map(|r| r.trim().parse().ok()).collect(),
        _ => Vec::new(),
    };
    let node_port = port.node_port.filter(|_| kind == "NodePort" || kind == "LoadBalancer");
    let affinity = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    Some(ServicePort {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        service: service.metadata.name.clone().unwrap_or_default(),
        name: port.name.clone().unwrap_or_default(),
        family,
        protocol: Protocol::from_api(port.protocol.as_deref())?,
        cluster_ip,
        port: u16::try_from(port.port).ok()?,
        node_port: node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
        external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).filter(of_family).collect(),
        load_balancer_ips,
        restricted: !ranges.is_empty(),
        source_ranges: ranges.into_iter().filter(|r| of_family(&r.addr())).collect(),
        affinity_seconds: sticky.then(|| affinity.and_then(|s| u32::try_from(s).ok()).unwrap_or(DEFAULT_AFFINITY_SECONDS)),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: kind != "ClusterIP" && spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
    })
}

fn endpoints(config: &ProxyConfig, family: Family, port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<Endpoint> {
    let wanted = if family == Family::V4 { "IPv4" } else { "IPv6" };
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices.iter().filter(|s| s.address_type == wanted) {
        let ports = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == port.name && Protocol::from_api(p.protocol.as_deref()) == Some(port.protocol)
        });
        for number in ports.filter_map(|p| p.port).filter_map(|p| u16::try_from(p).ok()) {
            for endpoint in slice.endpoints.iter().flatten().filter_map(|e| endpoint_of(config, e, number)) {
                // While a pod moves between slices it may be in two of them: the one that can serve counts.
                let known = found.entry((endpoint.addr, number)).or_insert_with(|| endpoint.clone());
                if !known.ready && endpoint.ready {
                    *known = endpoint;
                }
            }
        }
    }
    found.into_values().collect()
}

fn endpoint_of(config: &ProxyConfig, endpoint: &ApiEndpoint, port: u16) -> Option<Endpoint> {
    // Only the first address of an endpoint counts: all are of the same backend.
    let addr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    Some(Endpoint {
        addr,
        port,
        local: endpoint.node_name.as_deref() == Some(config.node_name.as_str()),
        anywhere: endpoint.node_name.is_none(),
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        zone_hints: hints.and_then(|h| h.for_zones.as_ref()).into_iter().flatten().map(|z| z.name.clone()).collect(),
        node_hints: hints.and_then(|h| h.for_nodes.as_ref()).into_iter().flatten().map(|n| n.name.clone()).collect(),
    })
}
