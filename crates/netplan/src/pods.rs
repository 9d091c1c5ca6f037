//! The table a node has for its pods, apart from Services: what they send outside leaves with the node's address, and
//! host ports lead to them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::nft::{
    Chain, ChainKind, Cmp, DAddr, Expr, Family, Field, FieldType, Hook, Nat, Protocol, Register, Rule, Set, Table, Value, Verdict,
    cidr_match, load_daddr, load_dport, load_l4proto, load_saddr,
};

/// One `hostPort` of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMapping {
    /// None: every address of the node.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub protocol: Protocol,
    pub pod_ip: IpAddr,
    pub pod_port: u16,
}

const RTN_LOCAL: u32 = 2;

/// `inside` are the networks of pods and of the machine's extra nodes: traffic from them to anywhere else is masqueraded.
pub fn node_table(family: Family, name: &str, inside: &[IpNet], ports: &[PortMapping]) -> Table {
    let mut table = Table::new(family, name);
    let inside: Vec<&IpNet> = inside.iter().filter(|n| Family::of(&n.addr()) == family).collect();
    let scratch = Register(0);
    let (addr, proto, port) = fields(family);
    table.sets.insert("host-ports".into(), Set::map(&[FieldType::Proto, FieldType::Port], &[FieldType::Addr, FieldType::Port]));
    let by_address = [FieldType::Addr, FieldType::Proto, FieldType::Port];
    table.sets.insert("host-ip-ports".into(), Set::map(&by_address, &[FieldType::Addr, FieldType::Port]));
    table.sets.insert("hairpin".into(), Set::plain(&[FieldType::Addr, FieldType::Addr]));

    let result = port.after(FieldType::Port, family);
    let dnat = Expr::Nat { kind: Nat::Dnat, addr: result, port: Some(result.after(FieldType::Addr, family)) };
    let lookup = |set: &str, from| Expr::Lookup { set: set.into(), from, to: Some(result), invert: false };
    let to_local = vec![
        Expr::FibType { of: DAddr::Destination, to: scratch },
        Expr::Cmp { op: Cmp::Eq, from: scratch, value: RTN_LOCAL.to_ne_bytes().to_vec() },
    ];
    let load = vec![load_daddr(family, addr), load_l4proto(proto), load_dport(port)];
    let mut not_loopback = vec![load_daddr(family, scratch)];
    if let Ok(loopback) = (if family == Family::V4 { "127.0.0.0/8" } else { "::1/128" }).parse() {
        not_loopback.extend(cidr_match(&loopback, scratch, Cmp::Ne));
    }
    let mapped = Chain {
        base: None,
        rules: vec![
            [load.clone(), vec![lookup("host-ip-ports", addr), dnat.clone()]].concat(),
            [to_local, not_loopback, load, vec![lookup("host-ports", proto), dnat]].concat(),
        ],
    };
    table.chains.insert("host-ports".into(), mapped);
    for (chain, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        let mut base = Chain::base(ChainKind::Nat, hook, -99);
        base.rules.push(vec![Expr::Verdict(Verdict::jump("host-ports"))]);
        table.chains.insert(chain.into(), base);
    }
    let mut post = Chain::base(ChainKind::Nat, Hook::Postrouting, 101);
    let hairpin = Expr::Lookup { set: "hairpin".into(), from: scratch, to: None, invert: false };
    post.rules.push(vec![load_saddr(family, scratch), load_daddr(family, addr), hairpin, Expr::Masquerade]);
    post.rules.extend(inside.iter().map(|net| masquerade_from(family, net, &inside)));
    table.chains.insert("nat-postrouting".into(), post);
    for mapping in ports.iter().filter(|m| Family::of(&m.pod_ip) == family) {
        add(&mut table, mapping);
    }
    table
}

fn fields(family: Family) -> (Register, Register, Register) {
    let addr = Register(0).after(FieldType::Addr, family);
    let proto = addr.after(FieldType::Addr, family);
    (addr, proto, proto.after(FieldType::Proto, family))
}

fn masquerade_from(family: Family, net: &IpNet, inside: &[&IpNet]) -> Rule {
    let scratch = Register(0);
    let mut rule = vec![load_saddr(family, scratch)];
    rule.extend(cidr_match(net, scratch, Cmp::Eq));
    for net in inside {
        rule.push(load_daddr(family, scratch));
        rule.extend(cidr_match(net, scratch, Cmp::Ne));
    }
    rule.push(Expr::Masquerade);
    rule
}

fn add(table: &mut Table, mapping: &PortMapping) {
    let port = [Field::Proto(mapping.protocol), Field::Port(mapping.host_port)];
    let unspecified = mapping.host_ip.is_none_or(|ip| ip.is_unspecified());
    let (set, key) = match mapping.host_ip {
        Some(ip) if !unspecified => ("host-ip-ports", [&[Field::Addr(ip)], port.as_slice()].concat()),
        _ => ("host-ports", port.to_vec()),
    };
    let to = Value::Fields(vec![Field::Addr(mapping.pod_ip), Field::Port(mapping.pod_port)]);
    if let Some(set) = table.sets.get_mut(set) {
        set.elements.entry(key).or_insert(to);
    }
    if let Some(set) = table.sets.get_mut("hairpin") {
        set.elements.insert(vec![Field::Addr(mapping.pod_ip), Field::Addr(mapping.pod_ip)], Value::None);
    }
}
