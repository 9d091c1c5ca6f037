//! What the kernel lists, decoded as far as anyone here needs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netplan::nft::{Data, Family, Field, FieldType, Key, Protocol, Set};
use netplan::proxy::UdpFlow;

use super::message::{attrs, find};

/// A UDP connection, with the bytes that name it to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub udp: UdpFlow,
    pub(super) original_tuple: Vec<u8>,
    pub(super) zone: Option<Vec<u8>>,
    pub(super) id: Option<Vec<u8>>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

pub(super) fn table_name(message: &[u8]) -> Option<String> {
    find(message, 1).map(text)
}

/// The elements in a message that are keys with data of the given shape.
pub(super) fn elements(message: &[u8], family: Family, set: &Set) -> Vec<(Key, Key)> {
    let Data::Fields(data_shape) = &set.data else { return Vec::new() };
    let list = find(message, 3).unwrap_or_default();
    let one = |element: &[u8]| {
        let key = decode(find(find(element, 1)?, 1)?, family, &set.key)?;
        let data = decode(find(find(element, 2)?, 1)?, family, data_shape)?;
        Some((key, data))
    };
    attrs(list).filter_map(|(_, element)| one(element)).collect()
}

fn decode(mut bytes: &[u8], family: Family, shape: &[FieldType]) -> Option<Key> {
    let mut key = Key::new();
    for field in shape {
        let (value, rest) = bytes.split_at_checked(field.len(family) as usize)?;
        bytes = rest;
        key.push(match field {
            FieldType::Addr => Field::Addr(address(value)?),
            FieldType::Proto => Field::Proto(protocol(value[0])?),
            FieldType::Port => Field::Port(u16::from_be_bytes(value[..2].try_into().ok()?)),
            FieldType::Slot => Field::Slot(u32::from_ne_bytes(value.try_into().ok()?)),
        });
    }
    Some(key)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == number)
}

struct Tuple {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    const IP: u16 = 1;
    const PROTO: u16 = 2;
    let ip = find(bytes, IP)?;
    let (source, destination) = match find(ip, 1) {
        Some(v4) => (v4, find(ip, 2)?),
        None => (find(ip, 3)?, find(ip, 4)?),
    };
    let proto = find(bytes, PROTO)?;
    let port = |kind| Some(u16::from_be_bytes(find(proto, kind)?.try_into().ok()?));
    Some(Tuple {
        source: (address(source)?, port(2)?),
        destination: (address(destination)?, port(3)?),
        protocol: *find(proto, 1)?.first()?,
    })
}

pub(super) fn udp_flow(message: &[u8]) -> Option<Flow> {
    const ORIGINAL: u16 = 1;
    const REPLY: u16 = 2;
    const ID: u16 = 12;
    const ZONE: u16 = 18;
    let original_tuple = find(message, ORIGINAL)?.to_vec();
    let original = tuple(&original_tuple)?;
    let reply = tuple(find(message, REPLY)?)?;
    if original.protocol != Protocol::Udp.number() {
        return None;
    }
    Some(Flow {
        udp: UdpFlow { destination: original.destination, answered_by: reply.source },
        original_tuple,
        zone: find(message, ZONE).map(<[u8]>::to_vec),
        id: find(message, ID).map(<[u8]>::to_vec),
    })
}
