//! Links, addresses, routes and neighbours of one network namespace, over rtnetlink. Idempotent verbs: adding what is
//! there and deleting what is not are no errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use nix::libc;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use tokio::task::JoinSet;

use crate::{Error, NetNs, Result};

pub(crate) type Mac = [u8; 6];

/// An rtnetlink connection into a namespace. Needs a tokio runtime.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    /// The task that drives the connection; it ends with this.
    _connection: JoinSet<()>,
}

/// A route, apart from the link it leaves through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    pub gateway: Option<IpAddr>,
    /// The gateway need not be on one of the link's networks.
    pub onlink: bool,
    pub source: Option<IpAddr>,
    /// Marks a route as an instance's: it is the route's metric, so it must not be 0. Only these are found again.
    pub owner: Option<u32>,
}

impl Route {
    pub fn to(destination: IpNet) -> Self {
        Route { destination, gateway: None, onlink: false, source: None, owner: None }
    }
}

/// Marks, together with the metric, the routes that are ours (`ip route` shows it as "proto 83").
const ROUTE_PROTOCOL: u8 = 83;
/// VXLAN's headers, inside an underlay of 1500 bytes.
const VXLAN_MTU: u32 = 1450;

/// Where the kernel would send a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub link: u32,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
}

impl Links {
    pub async fn open(netns: &NetNs) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let made = netns.run(|| {
            let _inside = runtime.enter();
            rtnetlink::new_connection()
        })?;
        let (connection, handle, _) = made.map_err(|e| Error::netlink("open a route socket", e))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Links { handle, _connection: tasks })
    }

    pub async fn index(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.get(name).await?.map(|l| l.header.index))
    }

    async fn get(&self, name: &str) -> Result<Option<LinkMessage>> {
        let found = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        ignore(found, libc::ENODEV, None).map_err(|e| failed(format!("find link {name}"), e))
    }

    async fn need(&self, name: &str) -> Result<u32> {
        self.index(name).await?.ok_or_else(|| Error::Invalid(format!("there is no link {name}")))
    }

    /// Names of all links that begin with a prefix.
    pub async fn named(&self, prefix: &str) -> Result<Vec<String>> {
        let all: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.map_err(|e| failed("list links".into(), e))?;
        let names = all.iter().filter_map(|l| {
            l.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
        });
        Ok(names.filter(|n| n.starts_with(prefix)).collect())
    }

    /// A veth pair, the peer born in another namespace.
    pub(crate) async fn add_veth(&self, name: &str, mac: Mac, peer: &Peer<'_>, mtu: Option<u32>) -> Result<()> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new().name(peer.name).address(peer.mac.to_vec()).setns_by_fd(peer.netns.raw_fd());
        let mut near = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth).name(name).address(mac.to_vec());
        if let Some(mtu) = mtu {
            (far, near) = (far.mtu(mtu), near.mtu(mtu));
        }
        let message = near.set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).up().build();
        self.handle.link().add(message).execute().await.map_err(|e| failed(format!("add link {name}"), e))
    }

    /// A link that leads nowhere, to hold routes and addresses: a dummy, or on a kernel without them a bridge without
    /// ports.
    pub async fn add_dummy(&self, name: &str) -> Result<u32> {
        if let Some(index) = self.index(name).await? {
            return Ok(index);
        }
        let add = |message: LinkMessage| self.handle.link().add(message).execute();
        let mut added = add(LinkDummy::new(name).up().build()).await;
        if added.as_ref().is_err_and(|e| code(e) == Some(libc::EOPNOTSUPP)) {
            added = add(LinkBridge::new(name).up().build()).await;
        }
        ignore(added, libc::EEXIST, ()).map_err(|e| failed(format!("add link {name}"), e))?;
        self.need(name).await
    }

    pub(crate) async fn add_vxlan(&self, name: &str, vni: u32, port: u16, mac: Mac) -> Result<u32> {
        let message = LinkVxlan::new(name, vni).port(port).learning(false).address(mac.to_vec()).mtu(VXLAN_MTU).up().build();
        let added = self.handle.link().add(message).execute().await;
        ignore(added, libc::EEXIST, ()).map_err(|e| failed(format!("add link {name}"), e))?;
        self.need(name).await
    }

    pub async fn set_up(&self, name: &str) -> Result<u32> {
        let index = self.need(name).await?;
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(|e| failed(format!("set link {name} up"), e))?;
        Ok(index)
    }

    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        let deleted = self.handle.link().del(index).execute().await;
        ignore(deleted, libc::ENODEV, ()).map_err(|e| failed(format!("delete link {name}"), e))
    }

    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            // The address is ours alone. Looking for duplicates would keep it useless until the link's carrier is
            // noticed, which takes up to a second.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let added = request.execute().await;
        ignore(added, libc::EEXIST, ()).map_err(|e| failed(format!("add address {address}"), e))
    }

    /// Every address of the namespace, loopback and link-local ones too, with the link it is on.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>> {
        let all: Vec<_> = self.handle.address().get().execute().try_collect().await.map_err(|e| failed("list addresses".into(), e))?;
        let one = |m: &rtnetlink::packet_route::address::AddressMessage| {
            let local = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let any = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            Some((m.header.index, IpNet::new(local.or(any)?, m.header.prefix_len).ok()?))
        };
        Ok(all.iter().filter_map(one).collect())
    }

    pub async fn replace_route(&self, link: u32, route: &Route) -> Result<()> {
        let message = route_message(link, route)?;
        let doing = || format!("add route to {}", route.destination);
        self.handle.route().add(message).replace().execute().await.map_err(|e| failed(doing(), e))
    }

    pub async fn delete_route(&self, link: u32, route: &Route) -> Result<()> {
        let message = route_message(link, route)?;
        let deleted = self.handle.route().del(message).execute().await;
        ignore(deleted, libc::ESRCH, ()).map_err(|e| failed(format!("delete route to {}", route.destination), e))
    }

    /// All routes of the main table, with their link.
    pub async fn routes(&self) -> Result<Vec<(u32, Route)>> {
        let mut found = Vec::new();
        for empty in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
            let mut all = std::pin::pin!(self.handle.route().get(empty).execute());
            while let Some(message) = all.try_next().await.map_err(|e| failed("list routes".into(), e))? {
                found.extend(read_route(&message));
            }
        }
        Ok(found)
    }

    /// Delete every route of an owner; how many there were.
    pub async fn delete_routes_of(&self, owner: u32) -> Result<usize> {
        let all = self.routes().await?;
        let owned: Vec<_> = all.iter().filter(|(_, route)| route.owner == Some(owner)).collect();
        for (link, route) in &owned {
            self.delete_route(*link, route).await?;
        }
        Ok(owned.len())
    }

    /// As `ip route get`. None: there is no route.
    pub async fn lookup(&self, to: IpAddr) -> Result<Option<Lookup>> {
        let prefix = if to.is_ipv4() { 32 } else { 128 };
        let mut message =
            RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, prefix).map_err(|e| Error::Invalid(e.to_string()))?.build();
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        let answer = self.handle.route().get(message).execute().try_next().await;
        let answer = match answer {
            Err(e) if matches!(code(&e), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => return Ok(None),
            other => other.map_err(|e| failed(format!("look up the route to {to}"), e))?,
        };
        Ok(answer.map(|m| {
            let mut found = Lookup { link: 0, gateway: None, source: None };
            for attribute in &m.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => found.link = *index,
                    RouteAttribute::Gateway(g) => found.gateway = route_address(g),
                    RouteAttribute::PrefSource(s) => found.source = route_address(s),
                    _ => {}
                }
            }
            found
        }))
    }

    pub(crate) async fn add_neighbour(&self, link: u32, addr: IpAddr, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add(link, addr).link_layer_address(&mac).state(NeighbourState::Permanent).replace();
        request.execute().await.map_err(|e| failed(format!("add neighbour {addr}"), e))
    }

    /// Frames to `mac` leave the VXLAN link towards `remote`. The kernel takes such entries only for the link itself
    /// (`NTF_SELF`).
    pub(crate) async fn add_vxlan_peer(&self, link: u32, mac: Mac, remote: IpAddr) -> Result<()> {
        let request = self.handle.neighbours().add_bridge(link, &mac).destination(remote).flags(NeighbourFlags::Own);
        request.state(NeighbourState::Permanent).replace().execute().await.map_err(|e| failed(format!("add VXLAN peer {remote}"), e))
    }

    /// Whether the link exists and is up.
    pub async fn is_up(&self, name: &str) -> Result<bool> {
        Ok(self.get(name).await?.is_some_and(|l| l.header.flags.contains(LinkFlags::Up)))
    }
}

/// The far end of a veth pair.
pub(crate) struct Peer<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub netns: &'a NetNs,
}

fn route_message(link: u32, route: &Route) -> Result<RouteMessage> {
    let invalid = |e: &dyn std::fmt::Display| Error::Invalid(format!("route to {}: {e}", route.destination));
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.addr(), route.destination.prefix_len())
        .map_err(|e| invalid(&e))?
        .output_interface(link);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway).map_err(|e| invalid(&e))?;
    } else if route.destination.addr().is_ipv4() {
        builder = builder.scope(RouteScope::Link);
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(|e| invalid(&e))?;
    }
    if let Some(owner) = route.owner {
        builder = builder.priority(owner).protocol(RouteProtocol::from(ROUTE_PROTOCOL));
    }
    if route.onlink {
        builder = builder.onlink();
    }
    Ok(builder.build())
}

fn read_route(message: &RouteMessage) -> Option<(u32, Route)> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let v4 = message.header.address_family == AddressFamily::Inet;
    let mut address: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (mut link, mut gateway, mut source, mut priority) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(d) => address = route_address(d)?,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(g) => gateway = route_address(g),
            RouteAttribute::PrefSource(s) => source = route_address(s),
            RouteAttribute::Priority(p) => priority = Some(*p),
            _ => {}
        }
    }
    let destination = IpNet::new(address, message.header.destination_prefix_length).ok()?;
    let owner = priority.filter(|_| message.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL));
    let onlink = message.header.flags.contains(rtnetlink::packet_route::route::RouteFlags::Onlink);
    Some((link?, Route { destination, gateway, onlink, source, owner }))
}

fn route_address(a: &rtnetlink::packet_route::route::RouteAddress) -> Option<IpAddr> {
    use rtnetlink::packet_route::route::RouteAddress;
    match a {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

fn code(e: &rtnetlink::Error) -> Option<i32> {
    match e {
        rtnetlink::Error::NetlinkError(m) => Some(m.raw_code().saturating_abs()),
        _ => None,
    }
}

fn ignore<T>(result: std::result::Result<T, rtnetlink::Error>, errno: i32, instead: T) -> std::result::Result<T, rtnetlink::Error> {
    match result {
        Err(e) if code(&e) == Some(errno) => Ok(instead),
        other => other,
    }
}

fn failed(doing: String, e: rtnetlink::Error) -> Error {
    match code(&e) {
        Some(code) => Error::netlink(doing, std::io::Error::from_raw_os_error(code)),
        None => Error::netlink(doing, std::io::Error::other(e)),
    }
}
