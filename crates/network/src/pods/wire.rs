//! One point-to-point connection between a node and what lives on it: a pod, or an extra node's namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::link_sysctls;
use crate::link::{Mac, Peer, Route};
use crate::{Links, NetNs, Result, sysctl};

/// Every near end has the same link-layer address: each is alone on its link.
const NEAR_MAC: Mac = [0xee; 6];
/// What the far end sends everything to. No link has these addresses: their link-layer address is set for good.
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

pub(crate) struct Wire<'a> {
    /// The near end's name.
    pub link: &'a str,
    /// The far end's name.
    pub peer: &'a str,
    pub addresses: &'a [IpAddr],
    pub mtu: Option<u32>,
}

/// Make the pair, and the addresses and routes on both ends. A near end left by an earlier attempt is replaced. Deleting
/// the near end undoes it all.
pub(crate) async fn connect(near: &NetNs, links: &Links, far: &NetNs, wire: &Wire<'_>) -> Result<()> {
    let far_mac = far_mac(wire.addresses);
    links.delete(wire.link).await?;
    links.add_veth(wire.link, NEAR_MAC, &Peer { name: wire.peer, mac: far_mac, netns: far }, wire.mtu).await?;
    link_sysctls(near, wire.link)?;
    connect_far(far, wire).await?;
    let index = links.set_up(wire.link).await?;
    for address in wire.addresses {
        links.add_neighbour(index, *address, far_mac).await?;
        links.replace_route(index, &Route::to(IpNet::from(*address))).await?;
    }
    Ok(())
}

async fn connect_far(far: &NetNs, wire: &Wire<'_>) -> Result<()> {
    // The address is ours alone: duplicate detection would only keep IPv6 waiting.
    sysctl::set(far, &[(format!("ipv6/conf/{}/accept_dad", wire.peer), "0"), (format!("ipv6/conf/{}/accept_ra", wire.peer), "0")])?;
    let links = Links::open(far).await?;
    links.set_up("lo").await?;
    let index = links.set_up(wire.peer).await?;
    for address in wire.addresses {
        let (gateway, everything) = match address {
            IpAddr::V4(_) => (GATEWAY_V4, IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0)),
            IpAddr::V6(_) => (GATEWAY_V6, IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0)),
        };
        links.add_address(index, IpNet::from(*address)).await?;
        links.add_neighbour(index, gateway, NEAR_MAC).await?;
        if gateway.is_ipv4() {
            links.replace_route(index, &Route::to(IpNet::from(gateway))).await?;
        }
        links.replace_route(index, &Route { gateway: Some(gateway), ..Route::to(everything) }).await?;
    }
    Ok(())
}

/// Locally administered, from the first address.
fn far_mac(addresses: &[IpAddr]) -> Mac {
    let [a, b, c, d] = match addresses.first() {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => (netplan::names::hash(&ip.to_string()) as u32).to_be_bytes(),
        None => [0; 4],
    };
    [0x02, 0x53, a, b, c, d]
}
