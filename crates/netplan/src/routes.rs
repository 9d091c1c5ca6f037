//! How a node reaches the pods of the other nodes: straight through the other node where it is on the same segment,
//! else in VXLAN.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub name: String,
    /// Its InternalIPs.
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
    /// How packets to its first address of each family leave, by this node's routing table.
    pub reach: BTreeMap<IpAddr, Reach>,
}

/// What the routing table says about a node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On a network of this link.
    Direct { link: u32 },
    /// Behind a gateway that does not know of pods.
    Gateway,
    /// Behind a gateway that routes pods too (the machine an extra node runs on).
    Uplink,
}

/// Where packets to a pod network go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    Via {
        link: u32,
        gateway: IpAddr,
    },
    /// To the VXLAN end with this MAC, at this node address; `inner` is its address within VXLAN.
    Vxlan {
        remote: IpAddr,
        mac: [u8; 6],
        inner: IpAddr,
    },
}

pub fn plan(neighbours: &[Neighbour]) -> BTreeMap<IpNet, Hop> {
    let mut out = BTreeMap::new();
    for node in neighbours {
        for cidr in &node.pod_cidrs {
            let same_family = |a: &&IpAddr| a.is_ipv4() == cidr.addr().is_ipv4();
            let Some(gateway) = node.addresses.iter().find(same_family).copied() else { continue };
            let hop = match node.reach.get(&gateway) {
                Some(Reach::Direct { link }) => Hop::Via { link: *link, gateway },
                Some(Reach::Gateway) => Hop::Vxlan { remote: gateway, mac: vxlan_mac(&node.name), inner: cidr.network() },
                Some(Reach::Uplink) | None => continue,
            };
            out.insert(cidr.trunc(), hop);
        }
    }
    out
}

/// The address of a node's VXLAN end: derived from its name, so nobody has to announce it.
pub fn vxlan_mac(node: &str) -> [u8; 6] {
    let h = crate::names::hash(node).to_be_bytes();
    [0x02, 0x56, h[0], h[1], h[2], h[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ip: &str, cidr: &str, reach: Option<Reach>) -> Neighbour {
        let ip: IpAddr = ip.parse().unwrap();
        Neighbour {
            name: name.into(),
            addresses: vec![ip],
            pod_cidrs: vec![cidr.parse().unwrap()],
            reach: reach.map(|r| (ip, r)).into_iter().collect(),
        }
    }

    #[test]
    fn the_way_follows_the_routing_table() {
        let routes = plan(&[
            node("same-segment", "192.168.1.2", "10.244.1.0/24", Some(Reach::Direct { link: 3 })),
            node("far", "172.16.0.9", "10.244.2.0/24", Some(Reach::Gateway)),
            node("sibling", "100.64.255.3", "10.244.3.0/24", Some(Reach::Uplink)),
            node("unreachable", "100.64.255.4", "10.244.4.0/24", None),
            node("other-family", "fd00::9", "10.244.5.0/24", Some(Reach::Gateway)),
        ]);
        let expected = [
            ("10.244.1.0/24", Hop::Via { link: 3, gateway: "192.168.1.2".parse().unwrap() }),
            (
                "10.244.2.0/24",
                Hop::Vxlan { remote: "172.16.0.9".parse().unwrap(), mac: vxlan_mac("far"), inner: "10.244.2.0".parse().unwrap() },
            ),
        ];
        assert_eq!(routes, expected.map(|(net, hop)| (net.parse().unwrap(), hop)).into());
    }
}
