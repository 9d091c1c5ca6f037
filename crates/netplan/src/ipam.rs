//! Which address a pod gets, and which networks a new cluster may use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// The next free address after `last`, going round. The network's first two addresses (its own name, which VXLAN uses,
/// and .1) and IPv4's broadcast address are never given. Recently freed addresses come last, so that old connections do
/// not find a new pod.
pub fn next_free(net: &IpNet, taken: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpAddr> {
    let first = number(net.network()).checked_add(2)?;
    let end = number(net.broadcast()).checked_sub(u128::from(net.addr().is_ipv4()))?;
    if first > end {
        return None;
    }
    let size = end - first + 1;
    let start = last.filter(|l| net.contains(l)).map_or(0, |l| (number(l) + 1).saturating_sub(first) % size);
    // Among one more than the taken ones, one is free.
    let tries = size.min(taken.len() as u128 + 1);
    (0..tries).map(|i| address(net, first + (start + i) % size)).find(|a| !taken.contains(a))
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn address(net: &IpNet, number: u128) -> IpAddr {
    if net.addr().is_ipv4() { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

/// The networks of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterCidrs {
    pub pods: IpNet,
    pub services: IpNet,
    /// Addresses of the extra nodes of one machine.
    pub nodes: IpNet,
}

/// Networks that overlap nothing in `used` (routes and addresses of the host, other instances' among them). The first
/// choice is what kubeadm users know, so one cluster on a plain host has the usual addresses.
pub fn free_cidrs(used: &[IpNet]) -> Option<ClusterCidrs> {
    let parse = |text: String| text.parse::<IpNet>().ok();
    let overlaps = |a: &IpNet| used.iter().filter(|u| u.prefix_len() > 0).any(|u| u.contains(a) || a.contains(u));
    let free = |mut candidates: Box<dyn Iterator<Item = String>>| candidates.find_map(|c| parse(c).filter(|net| !overlaps(net)));
    let pods = free(Box::new((244..=255).chain(128..=243).map(|b| format!("10.{b}.0.0/16"))))?;
    let services = free(Box::new((96..128).chain(32..96).map(|b| format!("10.{b}.0.0/16"))))?;
    let nodes = free(Box::new((64..128).map(|c| format!("100.{c}.255.0/24"))))?;
    Some(ClusterCidrs { pods, services, nodes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn goes_round_and_ends() {
        let net: IpNet = "10.0.0.0/29".parse().unwrap();
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        let mut last = None;
        while let Some(a) = next_free(&net, &taken, last) {
            taken.insert(a);
            given.push(a.to_string());
            last = Some(a);
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        taken.remove(&"10.0.0.3".parse().unwrap());
        assert_eq!(next_free(&net, &taken, last), Some("10.0.0.3".parse().unwrap()));
    }

    #[test]
    fn a_freed_address_is_not_given_at_once() {
        let net: IpNet = "fd00::/120".parse().unwrap();
        let last = "fd00::5".parse().unwrap();
        assert_eq!(next_free(&net, &BTreeSet::new(), Some(last)), Some("fd00::6".parse().unwrap()));
    }

    #[test]
    fn too_small_networks_have_nothing() {
        for net in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/128", "255.255.255.255/32"] {
            assert_eq!(next_free(&net.parse().unwrap(), &BTreeSet::new(), None), None, "{net}");
        }
    }

    #[test]
    fn free_networks_avoid_the_hosts() {
        let usual = free_cidrs(&["0.0.0.0/0".parse().unwrap()]).unwrap();
        assert_eq!((usual.pods.to_string(), usual.services.to_string()), ("10.244.0.0/16".into(), "10.96.0.0/16".into()));
        let second = free_cidrs(&[usual.pods, usual.services, usual.nodes]).unwrap();
        assert_eq!((second.pods.to_string(), second.services.to_string()), ("10.245.0.0/16".into(), "10.97.0.0/16".into()));
        assert_eq!(free_cidrs(&["10.0.0.0/8".parse().unwrap()]), None);
    }

    proptest! {
        #[test]
        fn never_a_taken_or_foreign_address(taken in proptest::collection::btree_set(0u8..=255, 0..255), last in proptest::option::of(0u8..=255)) {
            let net: IpNet = "10.9.8.0/24".parse().unwrap();
            let addr = |n: u8| IpAddr::from([10, 9, 8, n]);
            let taken: BTreeSet<IpAddr> = taken.into_iter().map(addr).collect();
            let found = next_free(&net, &taken, last.map(addr));
            let free = (2..=254).map(addr).any(|a| !taken.contains(&a));
            prop_assert_eq!(found.is_some(), free);
            if let Some(a) = found {
                prop_assert!(net.contains(&a) && !taken.contains(&a) && a != addr(0) && a != addr(1) && a != addr(255));
            }
        }
    }
}
