//! NetworkPolicies to a table. Only packets that open a connection are judged: replies and what was allowed once pass.
//!
//! A pod that policies select has its address in the map `ingress` or `egress`, which leads to a chain shared by all
//! pods under the same policies: it returns for what one of them allows and drops the rest. What the node itself sends
//! to its pods (probes) is not judged, nor what a pod sends to itself.

mod peers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::names::hash;
use crate::nft::{
    Chain, ChainKind, Expr, Family, Field, FieldType, Hook, Protocol, Register, Rule, Set, Table, Value, Verdict, load_daddr, load_saddr,
    match_new,
};
use peers::Peers;

type Labels = BTreeMap<String, String>;

/// A running pod with an address of its own (not one on the host's network).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyPod {
    pub namespace: String,
    pub labels: Labels,
    pub ips: Vec<IpAddr>,
    /// On this node: only then is it protected here.
    pub local: bool,
    pub named_ports: Vec<(String, Protocol, u16)>,
}

/// What policies are judged by.
#[derive(Clone, Debug, Default)]
pub struct World<'a> {
    pub policies: Vec<&'a NetworkPolicy>,
    pub pods: Vec<PolicyPod>,
    /// Labels of each namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// Addresses of the node that every pod may use: its DNS.
    pub always: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    fn map(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// Whether a policy isolates pods in this direction.
    fn is_of(self, policy: &NetworkPolicy) -> bool {
        let Some(spec) = &policy.spec else { return false };
        match (&spec.policy_types, self) {
            (Some(types), _) if !types.is_empty() => types.iter().any(|t| t.eq_ignore_ascii_case(self.map())),
            (_, Direction::Ingress) => true,
            (_, Direction::Egress) => spec.egress.as_ref().is_some_and(|e| !e.is_empty()),
        }
    }
}

pub fn plan(family: Family, name: &str, world: &World<'_>) -> Table {
    let mut table = skeleton(family, name, &world.always);
    let mut peers = Peers::new(family, world);
    for direction in Direction::BOTH {
        let policies: Vec<&NetworkPolicy> = world.policies.iter().copied().filter(|p| direction.is_of(p)).collect();
        let mut chains: BTreeMap<Vec<usize>, String> = BTreeMap::new();
        for pod in world.pods.iter().filter(|p| p.local) {
            let selecting: Vec<usize> = (0..policies.len()).filter(|i| selects(policies[*i], pod)).collect();
            if selecting.is_empty() {
                continue;
            }
            let chain = chains.entry(selecting.clone()).or_insert_with(|| {
                let ids: Vec<String> = selecting.iter().map(|i| identity(policies[*i])).collect();
                let chain = format!("{}-{:016x}", direction.map(), hash(&ids.join(",")));
                let mut rules: Vec<Rule> = selecting.iter().flat_map(|i| peers.rules(policies[*i], direction)).collect();
                rules.push(vec![Expr::Verdict(Verdict::Drop)]);
                table.chains.insert(chain.clone(), Chain { base: None, rules });
                chain
            });
            let verdict = Value::Verdict(Verdict::jump(chain));
            let Some(map) = table.sets.get_mut(direction.map()) else { continue };
            for ip in pod.ips.iter().filter(|ip| Family::of(ip) == family) {
                map.elements.insert(vec![Field::Addr(*ip)], verdict.clone());
            }
        }
    }
    if let Some(own) = table.sets.get_mut("self") {
        let local = world.pods.iter().filter(|p| p.local).flat_map(|p| &p.ips).filter(|ip| Family::of(ip) == family);
        own.elements.extend(local.map(|ip| (vec![Field::Addr(*ip), Field::Addr(*ip)], Value::None)));
    }
    table.sets.append(&mut peers.sets);
    table
}

fn identity(policy: &NetworkPolicy) -> String {
    let meta = &policy.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn selects(policy: &NetworkPolicy, pod: &PolicyPod) -> bool {
    let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
    policy.metadata.namespace.as_deref() == Some(pod.namespace.as_str()) && peers::matches(selector, &pod.labels)
}

fn skeleton(family: Family, name: &str, always: &BTreeSet<IpAddr>) -> Table {
    let mut table = Table::new(family, name);
    let source = Register(0);
    let destination = source.after(FieldType::Addr, family);
    for direction in Direction::BOTH {
        table.sets.insert(direction.map().into(), Set::verdict_map(&[FieldType::Addr]));
    }
    table.sets.insert("self".into(), Set::plain(&[FieldType::Addr, FieldType::Addr]));
    let mut allowed = Set::plain(&[FieldType::Addr]);
    allowed.elements.extend(always.iter().filter(|ip| Family::of(ip) == family).map(|ip| (vec![Field::Addr(*ip)], Value::None)));
    table.sets.insert("always".into(), allowed);

    let is_in = |set: &str, from| Expr::Lookup { set: set.into(), from, to: None, invert: false };
    let pass = Expr::Verdict(Verdict::Accept);
    let judge = |direction: Direction| {
        let load = match direction {
            Direction::Ingress => load_daddr(family, source),
            Direction::Egress => load_saddr(family, source),
        };
        [match_new(source), vec![load, Expr::VerdictMap { set: direction.map().into(), from: source }]].concat()
    };
    let mut forward = Chain::base(ChainKind::Filter, Hook::Forward, -10);
    forward.rules = vec![
        vec![load_saddr(family, source), load_daddr(family, destination), is_in("self", source), pass.clone()],
        judge(Direction::Egress),
        judge(Direction::Ingress),
    ];
    table.chains.insert("filter-forward".into(), forward);
    // What pods send to the node they are on.
    let mut input = Chain::base(ChainKind::Filter, Hook::Input, -10);
    input.rules = vec![vec![load_daddr(family, source), is_in("always", source), pass], judge(Direction::Egress)];
    table.chains.insert("filter-input".into(), input);
    table
}
