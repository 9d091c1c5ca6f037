//! All Services to one [`ProxyPlan`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::table::{Builder, Dispatch, Exposed, Masquerade};
use super::{Endpoint, ProxyConfig, Reachable, ServicePort, categorize, service_ports};
use crate::nft::{Family, Field, Protocol, Table, Value, Verdict};

/// By address (none for node ports) and port.
type UdpEndpoints = BTreeMap<(Option<IpAddr>, u16), BTreeSet<(IpAddr, u16)>>;

/// What the node must have for the Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyPlan {
    pub v4: Table,
    pub v6: Table,
    /// By `healthCheckNodePort`.
    pub health_checks: BTreeMap<u16, HealthCheck>,
    /// Endpoints of every UDP address; of node ports the address is absent.
    pub(super) udp: UdpEndpoints,
}

impl ProxyPlan {
    pub fn table(&self, family: Family) -> &Table {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Whether UDP flows may have become stale on the way from `before` to this plan.
    pub fn udp_changed(&self, before: &ProxyPlan) -> bool {
        self.udp != before.udp
    }
}

/// What a load balancer may ask about a Service with `externalTrafficPolicy: Local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub namespace: String,
    pub name: String,
    pub local_endpoints: usize,
}

/// `services` must come in a stable order: where two claim the same external address, the first has it.
pub fn plan<'a>(config: &ProxyConfig, services: impl Iterator<Item = (&'a Service, Vec<&'a EndpointSlice>)>) -> ProxyPlan {
    let mut planner = Planner {
        config,
        v4: Builder::new(Family::V4, &config.table, &config.cluster_cidrs),
        v6: Builder::new(Family::V6, &config.table, &config.cluster_cidrs),
        health_checks: BTreeMap::new(),
        udp: BTreeMap::new(),
    };
    for (service, slices) in services {
        for (port, endpoints) in service_ports(config, service, &slices) {
            planner.add(&port, &endpoints);
        }
    }
    ProxyPlan { v4: planner.v4.table, v6: planner.v6.table, health_checks: planner.health_checks, udp: planner.udp }
}

struct Planner<'a> {
    config: &'a ProxyConfig,
    v4: Builder,
    v6: Builder,
    health_checks: BTreeMap<u16, HealthCheck>,
    udp: UdpEndpoints,
}

/// What happens to packets for an address without endpoints.
#[derive(Clone, Copy)]
enum Nobody {
    Refuse,
    Drop,
}

impl Planner<'_> {
    fn builder(&mut self, family: Family) -> &mut Builder {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn add(&mut self, port: &ServicePort, endpoints: &[Endpoint]) {
        let reachable = categorize(self.config, port, endpoints);
        let cluster: Vec<_> = reachable.cluster.iter().map(|e| (e.addr, e.port)).collect();
        let local: Vec<_> = reachable.local.iter().map(|e| (e.addr, e.port)).collect();
        for endpoint in endpoints.iter().filter(|e| e.local || e.anywhere) {
            let key = vec![Field::Addr(endpoint.addr), Field::Addr(endpoint.addr)];
            self.builder(port.family).insert("hairpin", key, Value::None);
        }
        self.add_health_check(port, &reachable);
        if !self.config.local_vips.contains(&port.cluster_ip) {
            self.add_internal(port, &reachable, if port.internal_local { &local } else { &cluster });
        }
        if port.is_external() {
            self.add_external(port, &reachable, &cluster, &local);
        }
    }

    fn add_health_check(&mut self, port: &ServicePort, reachable: &Reachable) {
        let Some(number) = port.health_check_node_port.filter(|_| port.external_local) else { return };
        let ready = reachable.local.iter().filter(|e| e.ready).map(|e| e.addr).collect::<BTreeSet<_>>().len();
        let check = self.health_checks.entry(number).or_insert_with(|| HealthCheck {
            namespace: port.namespace.clone(),
            name: port.service.clone(),
            local_endpoints: 0,
        });
        check.local_endpoints = check.local_endpoints.max(ready);
    }

    fn add_internal(&mut self, port: &ServicePort, reachable: &Reachable, endpoints: &[(IpAddr, u16)]) {
        let masquerade = match (self.config.masquerade_all, self.config.cluster_cidrs.is_empty()) {
            (true, _) => Masquerade::Always,
            (false, true) => Masquerade::Never,
            (false, false) => Masquerade::Outside,
        };
        let vip = port.cluster_ip;
        self.builder(port.family).insert("cluster-ips", vec![Field::Addr(vip)], Value::None);
        self.expose(port, Dispatch::Services, Some(vip), masquerade, endpoints);
        if endpoints.is_empty() {
            let nobody = if reachable.any { Nobody::Drop } else { Nobody::Refuse };
            self.nobody(port, "no-endpoints", Some(vip), port.port, nobody);
        }
    }

    fn add_external(&mut self, port: &ServicePort, reachable: &Reachable, cluster: &[(IpAddr, u16)], local: &[(IpAddr, u16)]) {
        let (endpoints, masquerade) = if port.external_local { (local, Masquerade::Never) } else { (cluster, Masquerade::Always) };
        let nobody = if reachable.any { Nobody::Drop } else { Nobody::Refuse };
        let vips = port.external_ips.iter().chain(&port.load_balancer_ips).copied().collect::<BTreeSet<_>>();
        for vip in vips {
            self.expose(port, Dispatch::Services, Some(vip), masquerade, endpoints);
            if port.external_local {
                self.expose(port, Dispatch::InsideServices, Some(vip), Masquerade::Outside, cluster);
            }
            if endpoints.is_empty() {
                self.nobody(port, "no-endpoints", Some(vip), port.port, nobody);
            }
        }
        if port.restricted {
            for (index, vip) in port.load_balancer_ips.iter().enumerate() {
                let proto = port.protocol.number();
                let name = format!("firewall-{}-{}-{proto}-{}-{index}", port.namespace, port.service, port.port);
                self.builder(port.family).restrict(*vip, port.protocol, port.port, &port.source_ranges, &name);
            }
        }
        let Some(number) = port.node_port else { return };
        self.expose_at(port, Dispatch::NodePorts, None, number, masquerade, endpoints);
        if port.external_local {
            self.expose_at(port, Dispatch::InsideNodePorts, None, number, Masquerade::Outside, cluster);
        }
        if endpoints.is_empty() {
            self.nobody(port, "no-endpoint-node-ports", None, number, nobody);
        }
    }

    fn expose(&mut self, port: &ServicePort, dispatch: Dispatch, vip: Option<IpAddr>, masquerade: Masquerade, to: &[(IpAddr, u16)]) {
        self.expose_at(port, dispatch, vip, port.port, masquerade, to);
    }

    fn expose_at(
        &mut self,
        port: &ServicePort,
        dispatch: Dispatch,
        vip: Option<IpAddr>,
        number: u16,
        masquerade: Masquerade,
        endpoints: &[(IpAddr, u16)],
    ) {
        let exposed = Exposed {
            dispatch,
            vip,
            protocol: port.protocol,
            port: number,
            masquerade,
            affinity_seconds: port.affinity_seconds,
            endpoints,
        };
        let ours = self.builder(port.family).expose(&exposed);
        if ours && port.protocol == Protocol::Udp {
            self.udp.entry((vip, number)).or_default().extend(endpoints.iter().copied());
        }
    }

    fn nobody(&mut self, port: &ServicePort, map: &str, vip: Option<IpAddr>, number: u16, nobody: Nobody) {
        let verdict = match nobody {
            Nobody::Refuse => Verdict::goto("reject"),
            Nobody::Drop => Verdict::Drop,
        };
        let mut key: Vec<Field> = vip.map(Field::Addr).into_iter().collect();
        key.extend([Field::Proto(port.protocol), Field::Port(number)]);
        self.builder(port.family).insert(map, key, Value::Verdict(verdict));
    }
}
