//! The rules of one policy: whom it lets in or out, to which ports.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::labels::from_label_selector;

use super::{Direction, Labels, World};
use crate::names::hash;
use crate::nft::{
    Cmp, Expr, Family, Field, FieldType, Protocol, Register, Rule, Set, Value, Verdict, cidr_match, load_daddr, load_dport, load_l4proto,
    load_saddr,
};

/// Whether a selector matches; none selects nothing, an empty one everything. A malformed one (the API admits none)
/// selects nothing.
pub(super) fn matches(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let parsed = serde_json::to_value(selector).ok().and_then(|v| from_label_selector(Some(&v)).ok());
    parsed.is_some_and(|s| s.matches(labels))
}

/// Makes rules, and collects the sets of addresses they refer to. Equal peers share a set.
pub(super) struct Peers<'a> {
    family: Family,
    world: &'a World<'a>,
    pub sets: BTreeMap<String, Set>,
}

const SCRATCH: Register = Register(0);

impl<'a> Peers<'a> {
    pub(super) fn new(family: Family, world: &'a World<'a>) -> Self {
        Peers { family, world, sets: BTreeMap::new() }
    }

    /// Each rule matches something a policy allows and returns.
    pub(super) fn rules(&mut self, policy: &NetworkPolicy, direction: Direction) -> Vec<Rule> {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let Some(spec) = &policy.spec else { return Vec::new() };
        let clauses: Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> = match direction {
            Direction::Ingress => spec.ingress.iter().flatten().map(|r| (list(&r.from), list(&r.ports))).collect(),
            Direction::Egress => spec.egress.iter().flatten().map(|r| (list(&r.to), list(&r.ports))).collect(),
        };
        let mut out = Vec::new();
        for (peers, ports) in clauses {
            let from: Vec<Rule> = match peers {
                [] => vec![Rule::new()],
                some => some.iter().filter_map(|p| self.peer(p, namespace, direction)).collect(),
            };
            let to: Vec<Rule> = match ports {
                [] => vec![Rule::new()],
                some => some.iter().filter_map(|p| self.port(p)).collect(),
            };
            for peer in &from {
                for port in &to {
                    out.push([peer.as_slice(), port, &[Expr::Verdict(Verdict::Return)]].concat());
                }
            }
        }
        out
    }

    /// The other side's address. None: nothing of this family.
    fn peer(&mut self, peer: &NetworkPolicyPeer, namespace: &str, direction: Direction) -> Option<Rule> {
        let load = match direction {
            Direction::Ingress => load_saddr(self.family, SCRATCH),
            Direction::Egress => load_daddr(self.family, SCRATCH),
        };
        if let Some(block) = &peer.ip_block {
            return self.block(block, load);
        }
        let everything = LabelSelector::default();
        let pods = peer.pod_selector.as_ref().unwrap_or(&everything);
        let in_namespace = |name: &str| match &peer.namespace_selector {
            Some(selector) => self.world.namespaces.get(name).is_some_and(|labels| matches(Some(selector), labels)),
            None => name == namespace,
        };
        let mut set = Set::plain(&[FieldType::Addr]);
        for pod in self.world.pods.iter().filter(|p| in_namespace(&p.namespace) && matches(Some(pods), &p.labels)) {
            let ips = pod.ips.iter().filter(|ip| Family::of(ip) == self.family);
            set.elements.extend(ips.map(|ip| (vec![Field::Addr(*ip)], Value::None)));
        }
        let place = if peer.namespace_selector.is_none() { namespace } else { "" };
        let name = format!("peers-{:016x}", hash(&format!("{place} {:?} {pods:?}", peer.namespace_selector)));
        self.sets.insert(name.clone(), set);
        Some(vec![load, Expr::Lookup { set: name.into(), from: SCRATCH, to: None, invert: false }])
    }

    fn block(&self, block: &IPBlock, load: Expr) -> Option<Rule> {
        let of_family = |text: &String| text.parse::<IpNet>().ok().filter(|n| Family::of(&n.addr()) == self.family);
        let mut rule = vec![load.clone()];
        rule.extend(cidr_match(&of_family(&block.cidr)?, SCRATCH, Cmp::Eq));
        for except in block.except.iter().flatten().filter_map(of_family) {
            rule.push(load.clone());
            rule.extend(cidr_match(&except, SCRATCH, Cmp::Ne));
        }
        Some(rule)
    }

    fn port(&mut self, port: &NetworkPolicyPort) -> Option<Rule> {
        let protocol = Protocol::from_api(port.protocol.as_deref())?;
        let mut rule = vec![load_l4proto(SCRATCH), Expr::Cmp { op: Cmp::Eq, from: SCRATCH, value: vec![protocol.number()] }];
        let number = |n: i32| u16::try_from(n).ok().map(|n| n.to_be_bytes().to_vec());
        match (&port.port, port.end_port) {
            (None, _) => {}
            (Some(IntOrString::Int(first)), None) => {
                rule.push(load_dport(SCRATCH));
                rule.push(Expr::Cmp { op: Cmp::Eq, from: SCRATCH, value: number(*first)? });
            }
            (Some(IntOrString::Int(first)), Some(last)) => {
                rule.push(load_dport(SCRATCH));
                rule.push(Expr::Cmp { op: Cmp::Gte, from: SCRATCH, value: number(*first)? });
                rule.push(Expr::Cmp { op: Cmp::Lte, from: SCRATCH, value: number(last)? });
            }
            (Some(IntOrString::String(name)), _) => return Some(self.named_port(name, protocol)),
        }
        Some(rule)
    }

    /// A name means another number in each pod: a set of destinations.
    fn named_port(&mut self, name: &str, protocol: Protocol) -> Rule {
        let mut set = Set::plain(&[FieldType::Addr, FieldType::Proto, FieldType::Port]);
        for pod in &self.world.pods {
            for (_, _, number) in pod.named_ports.iter().filter(|(n, p, _)| n == name && *p == protocol) {
                let ips = pod.ips.iter().filter(|ip| Family::of(ip) == self.family);
                set.elements.extend(ips.map(|ip| (vec![Field::Addr(*ip), Field::Proto(protocol), Field::Port(*number)], Value::None)));
            }
        }
        let set_name = format!("ports-{:016x}", hash(&format!("{name} {protocol:?}")));
        self.sets.insert(set_name.clone(), set);
        let proto = SCRATCH.after(FieldType::Addr, self.family);
        vec![
            load_daddr(self.family, SCRATCH),
            load_l4proto(proto),
            load_dport(proto.after(FieldType::Proto, self.family)),
            Expr::Lookup { set: set_name.into(), from: SCRATCH, to: None, invert: false },
        ]
    }
}

fn list<T>(items: &Option<Vec<T>>) -> &[T] {
    items.as_deref().unwrap_or_default()
}
