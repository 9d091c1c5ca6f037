//! Every node gets a network for its pods, cut from the cluster's. Upstream's `nodeipam` range allocator. What is taken
//! is read from the nodes each time, so all nodes are one key and nothing is kept in memory.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::action::{Action, Event, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "node-ipam-controller",
    identity: "node-controller",
    component: "cidrAllocator",
    watches: &[Watch::Nodes(
        |_, node| if has_networks(node) && !meta::is_deleting(node) { Vec::new() } else { vec![Key::cluster("nodes")] },
    )],
    reconcile,
};

fn has_networks(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.pod_cidrs.as_ref().is_some_and(|networks| !networks.is_empty()))
}

pub fn reconcile(view: &View<'_>, _key: &Key, context: &Context<'_>) -> Outcome {
    let nodes = view.nodes.list();
    let specs = || nodes.iter().filter_map(|node| node.spec.as_ref());
    let mut taken: BTreeSet<Network> =
        specs().flat_map(|spec| spec.pod_cidrs.iter().flatten()).filter_map(|text| Network::parse(text)).collect();
    let pools: Vec<(Network, u8)> =
        context.config.cluster_cidrs.iter().filter_map(|text| Network::parse(text)).map(|pool| (pool, node_mask(pool, context))).collect();
    let mut actions = Vec::new();
    for node in nodes.iter().filter(|node| !has_networks(node) && !meta::is_deleting(&***node)) {
        let picked: Option<Vec<Network>> = pools.iter().map(|(pool, mask)| pool.first_free(*mask, &taken)).collect();
        let Some(picked) = picked else {
            let text = format!("Node {} status is now: CIDRNotAvailable", meta::name(&**node));
            actions.push(Action::Record(Event::normal(&**node, "CIDRNotAvailable", text)));
            continue;
        };
        let texts: Vec<String> = picked.iter().map(Network::to_string).collect();
        taken.extend(picked);
        if let Some(first) = texts.first() {
            actions.push(Action::patch(&**node, json!({"spec": {"podCIDR": first, "podCIDRs": texts}})));
        }
    }
    actions.into()
}

fn node_mask(pool: Network, context: &Context<'_>) -> u8 {
    if pool.bits == 32 { context.config.node_cidr_mask_v4 } else { context.config.node_cidr_mask_v6 }
}

/// An IP network, its address as a number of `bits` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    bits: u8,
    address: u128,
    mask: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, mask) = text.split_once('/')?;
        let mask: u8 = mask.parse().ok()?;
        let (bits, address) = match address.parse().ok()? {
            IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (128, u128::from(v6)),
        };
        (mask <= bits).then_some(Self { bits, address, mask })
    }

    /// The first part with this mask that overlaps nothing taken.
    fn first_free(&self, mask: u8, taken: &BTreeSet<Self>) -> Option<Self> {
        if mask < self.mask || mask > self.bits {
            return None;
        }
        let step = 1_u128.checked_shl(u32::from(self.bits - mask))?;
        let count = 1_u128.checked_shl(u32::from(mask - self.mask)).unwrap_or(u128::MAX);
        let mut at = 0;
        while at < count {
            let candidate = Self { bits: self.bits, address: self.address + at * step, mask };
            if !taken.contains(&candidate) && taken.iter().all(|other| !candidate.overlaps(other)) {
                return Some(candidate);
            }
            at += 1;
        }
        None
    }

    fn overlaps(&self, other: &Self) -> bool {
        let common = self.mask.min(other.mask);
        let shift = u32::from(self.bits - common.min(self.bits));
        let cut = |address: u128| address.checked_shr(shift).unwrap_or(0);
        self.bits == other.bits && cut(self.address) == cut(other.address)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bits == 32 {
            let address = u32::try_from(self.address).unwrap_or(0);
            write!(f, "{}/{}", Ipv4Addr::from(address), self.mask)
        } else {
            write!(f, "{}/{}", Ipv6Addr::from(self.address), self.mask)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::Value;

    fn node(name: &str, network: Option<&str>) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": network.map(|network| vec![network])}})
    }

    fn networks(model: &Model) -> Vec<String> {
        model.of_kind::<Node>().iter().map(|node| node["spec"]["podCIDRs"].to_string()).collect()
    }

    #[test]
    fn each_node_gets_a_free_network() {
        let mut model = Model::new(&[node("a", None), node("b", Some("10.244.0.0/24")), node("c", None)]);
        model.settle(&CONTROLLER, &Key::cluster("nodes"));
        assert_eq!(networks(&model), [r#"["10.244.1.0/24"]"#, r#"["10.244.0.0/24"]"#, r#"["10.244.2.0/24"]"#]);
    }

    #[test]
    fn two_families_and_an_exhausted_pool() {
        let mut model = Model::new(&[node("a", None), node("b", None), node("c", None)]);
        model.config.cluster_cidrs = vec!["10.0.0.0/23".into(), "fd00::/48".into()];
        model.step(&CONTROLLER, &Key::cluster("nodes"));
        assert_eq!(networks(&model), [r#"["10.0.0.0/24","fd00::/64"]"#, r#"["10.0.1.0/24","fd00:0:0:1::/64"]"#, "null"]);
        assert_eq!(model.events, ["CIDRNotAvailable: Node c status is now: CIDRNotAvailable"]);
    }
}
