//! The shape of the proxy's table and how one exposed address becomes elements and shared chains.
//!
//! `vip . proto . port` leads, by a verdict map, to a chain shared by all services with the same number of endpoints,
//! masquerading and affinity. Its last rule picks a number below that count and takes the endpoint from
//! `vip . proto . port . slot -> ip . port`. So every slot of every service can be hit, and a change of one service
//! touches only its own elements.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::nft::{
    Chain, ChainKind, Cmp, DAddr, Expr, Family, Field, FieldType, Hook, Key, Meta, Nat, Protocol, Register, RejectWith, Rule, Set, Table,
    Value, Verdict, cidr_match, load_daddr, load_dport, load_l4proto, load_saddr, match_new,
};

/// Set on packets that must leave with the node's own address. Upstream's bit 14.
pub const MASQUERADE_MARK: u32 = 0x4000;
const RTN_LOCAL: u32 = 2;
const SCRATCH: Register = Register(0);

/// Which pair of maps serves a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dispatch {
    /// By destination address, protocol and port.
    Services,
    /// By protocol and port, for packets to the node's own addresses.
    NodePorts,
    /// As the two above, but asked first and only for packets of pods and of the node itself: external addresses with
    /// policy Local are reached through all endpoints from inside (upstream's short circuit).
    InsideServices,
    InsideNodePorts,
}

impl Dispatch {
    pub(super) const ALL: [Dispatch; 4] = [Dispatch::Services, Dispatch::NodePorts, Dispatch::InsideServices, Dispatch::InsideNodePorts];

    pub(super) fn map(self) -> &'static str {
        match self {
            Dispatch::Services => "services",
            Dispatch::NodePorts => "node-ports",
            Dispatch::InsideServices => "inside-services",
            Dispatch::InsideNodePorts => "inside-node-ports",
        }
    }

    pub(super) fn endpoints(self) -> String {
        format!("{}-endpoints", self.map())
    }

    pub(super) fn affinity(self) -> String {
        format!("{}-affinity", self.map())
    }

    pub(super) fn by_address(self) -> bool {
        matches!(self, Dispatch::Services | Dispatch::InsideServices)
    }

    fn key(self) -> Vec<FieldType> {
        let mut key = if self.by_address() { vec![FieldType::Addr] } else { Vec::new() };
        key.extend([FieldType::Proto, FieldType::Port]);
        key
    }
}

/// Which packets get the node's address as source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Masquerade {
    Never,
    Always,
    /// Those that no pod sent.
    Outside,
}

/// Where every field lies while a rule runs: source, destination, protocol, port, slot, result, next to each other, so
/// that each key is a run of registers.
struct Layout {
    source: Register,
    destination: Register,
    proto: Register,
    port: Register,
    slot: Register,
    result: Register,
}

impl Layout {
    fn of(family: Family) -> Self {
        let source = Register(0);
        let destination = source.after(FieldType::Addr, family);
        let proto = destination.after(FieldType::Addr, family);
        let port = proto.after(FieldType::Proto, family);
        let slot = port.after(FieldType::Port, family);
        Layout { source, destination, proto, port, slot, result: slot.after(FieldType::Slot, family) }
    }

    fn load(&self, family: Family, dispatch: Dispatch) -> (Rule, Register) {
        let mut rule = Rule::new();
        if dispatch.by_address() {
            rule.push(load_daddr(family, self.destination));
        }
        rule.extend([load_l4proto(self.proto), load_dport(self.port)]);
        (rule, if dispatch.by_address() { self.destination } else { self.proto })
    }
}

/// One address of one service port.
pub(super) struct Exposed<'a> {
    pub dispatch: Dispatch,
    pub vip: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
    pub masquerade: Masquerade,
    pub affinity_seconds: Option<u32>,
    pub endpoints: &'a [(IpAddr, u16)],
}

impl Exposed<'_> {
    fn key(&self) -> Key {
        let mut key: Key = self.vip.map(Field::Addr).into_iter().collect();
        key.extend([Field::Proto(self.protocol), Field::Port(self.port)]);
        key
    }
}

pub(super) struct Builder {
    pub table: Table,
    cidrs: Vec<IpNet>,
}

impl Builder {
    pub(super) fn new(family: Family, name: &str, cluster_cidrs: &[IpNet]) -> Self {
        let cidrs = cluster_cidrs.iter().filter(|c| Family::of(&c.addr()) == family).copied().collect();
        let mut builder = Builder { table: Table::new(family, name), cidrs };
        builder.add_sets();
        builder.add_nat_chains();
        builder.add_filter_chains();
        builder
    }

    fn add_sets(&mut self) {
        let sets = &mut self.table.sets;
        for dispatch in Dispatch::ALL {
            let key = dispatch.key();
            sets.insert(dispatch.map().into(), Set::verdict_map(&key));
            let slots = [key.as_slice(), &[FieldType::Slot]].concat();
            sets.insert(dispatch.endpoints(), Set::map(&slots, &[FieldType::Addr, FieldType::Port]));
            let clients = [&[FieldType::Addr], key.as_slice()].concat();
            let affinity = Set { dynamic: true, ..Set::map(&clients, &[FieldType::Addr, FieldType::Port]) };
            sets.insert(dispatch.affinity(), affinity);
        }
        let by_address = Dispatch::Services.key();
        sets.insert("no-endpoints".into(), Set::verdict_map(&by_address));
        sets.insert("no-endpoint-node-ports".into(), Set::verdict_map(&Dispatch::NodePorts.key()));
        sets.insert("firewall".into(), Set::verdict_map(&by_address));
        sets.insert("cluster-ips".into(), Set::plain(&[FieldType::Addr]));
        sets.insert("hairpin".into(), Set::plain(&[FieldType::Addr, FieldType::Addr]));
    }

    fn add_nat_chains(&mut self) {
        let family = self.table.family;
        let layout = Layout::of(family);
        for (name, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
            let mut chain = Chain::base(ChainKind::Nat, hook, -100);
            chain.rules.push(vec![Expr::Verdict(Verdict::jump("nat"))]);
            self.table.chains.insert(name.into(), chain);
        }
        let mut nat = Chain::default();
        let inside = Expr::Verdict(Verdict::jump("inside"));
        for cidr in &self.cidrs {
            let mut rule = vec![load_saddr(family, layout.source)];
            rule.extend(cidr_match(cidr, layout.source, Cmp::Eq));
            rule.push(inside.clone());
            nat.rules.push(rule);
        }
        let mut from_node = fib_local(DAddr::Source);
        from_node.push(inside);
        nat.rules.push(from_node);
        nat.rules.extend(lookups(family, Dispatch::Services, Dispatch::NodePorts));
        self.table.chains.insert("nat".into(), nat);
        let rules = lookups(family, Dispatch::InsideServices, Dispatch::InsideNodePorts);
        self.table.chains.insert("inside".into(), Chain { base: None, rules });

        let mut post = Chain::base(ChainKind::Nat, Hook::Postrouting, 100);
        let mark = MASQUERADE_MARK.to_ne_bytes().to_vec();
        let zero = vec![0; 4];
        post.rules.push(vec![
            Expr::Meta { key: Meta::Mark, to: SCRATCH },
            Expr::Bitwise { from: SCRATCH, to: SCRATCH, mask: mark.clone(), xor: zero.clone() },
            Expr::Cmp { op: Cmp::Ne, from: SCRATCH, value: zero },
            // The bit is gone before another hook or another instance sees the packet.
            Expr::Meta { key: Meta::Mark, to: SCRATCH },
            Expr::Bitwise { from: SCRATCH, to: SCRATCH, mask: (!MASQUERADE_MARK).to_ne_bytes().to_vec(), xor: vec![0; 4] },
            Expr::SetMark { from: SCRATCH },
            Expr::Masquerade,
        ]);
        post.rules.push(vec![
            load_saddr(family, layout.source),
            load_daddr(family, layout.destination),
            Expr::Lookup { set: "hairpin".into(), from: layout.source, to: None, invert: false },
            Expr::Masquerade,
        ]);
        self.table.chains.insert("nat-postrouting".into(), post);
    }

    fn add_filter_chains(&mut self) {
        let family = self.table.family;
        let layout = Layout::of(family);
        self.table.chains.insert("reject".into(), rules(vec![vec![Expr::Reject(RejectWith::PortUnreachable)]]));

        let (mut by_address, key) = layout.load(family, Dispatch::Services);
        let mut firewall = Chain::base(ChainKind::Filter, Hook::Prerouting, -110);
        firewall.rules.push([match_new(SCRATCH), by_address.clone(), vec![verdict_map("firewall", key)]].concat());
        self.table.chains.insert("filter-prerouting".into(), firewall);

        by_address.push(verdict_map("no-endpoints", key));
        let cluster_ips = vec![
            load_daddr(family, layout.destination),
            Expr::Lookup { set: "cluster-ips".into(), from: layout.destination, to: None, invert: false },
            Expr::Reject(RejectWith::PortUnreachable),
        ];
        // A packet that still bears a ClusterIP here was for a port the Service does not have.
        self.table.chains.insert("no-endpoints".into(), rules(vec![by_address, cluster_ips]));

        let (load, key) = layout.load(family, Dispatch::NodePorts);
        let node_ports = [fib_local(DAddr::Destination), load, vec![verdict_map("no-endpoint-node-ports", key)]].concat();
        self.table.chains.insert("no-endpoint-node-ports".into(), rules(vec![node_ports]));

        for (name, hook) in [("filter-input", Hook::Input), ("filter-forward", Hook::Forward), ("filter-output", Hook::Output)] {
            let mut chain = Chain::base(ChainKind::Filter, hook, 0);
            let mut targets = vec!["no-endpoints"];
            if hook != Hook::Forward {
                targets.push("no-endpoint-node-ports");
            }
            for target in targets {
                chain.rules.push([match_new(SCRATCH), vec![Expr::Verdict(Verdict::jump(target))]].concat());
            }
            self.table.chains.insert(name.into(), chain);
        }
    }

    /// Route an address to endpoints. False if another service holds the address.
    pub(super) fn expose(&mut self, exposed: &Exposed<'_>) -> bool {
        let key = exposed.key();
        let taken = self.table.sets.get(exposed.dispatch.map()).is_none_or(|s| s.elements.contains_key(&key));
        if taken || exposed.endpoints.is_empty() {
            return !taken;
        }
        let chain = self.pick_chain(exposed);
        self.insert(exposed.dispatch.map(), key.clone(), Value::Verdict(Verdict::Goto(chain)));
        for (slot, (addr, port)) in exposed.endpoints.iter().enumerate() {
            let mut key = key.clone();
            key.push(Field::Slot(slot as u32));
            self.insert(&exposed.dispatch.endpoints(), key, Value::Fields(vec![Field::Addr(*addr), Field::Port(*port)]));
        }
        true
    }

    /// Add an element unless its key is taken.
    pub(super) fn insert(&mut self, set: &str, key: Key, value: Value) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.entry(key).or_insert(value);
        }
    }

    /// The chain that picks among so many endpoints, made when first needed.
    fn pick_chain(&mut self, exposed: &Exposed<'_>) -> Arc<str> {
        let count = exposed.endpoints.len() as u32;
        let masquerade = match exposed.masquerade {
            Masquerade::Never => "",
            Masquerade::Always => "-masq",
            Masquerade::Outside => "-masq-outside",
        };
        let sticky = exposed.affinity_seconds.map(|s| format!("-sticky-{s}")).unwrap_or_default();
        let name = format!("{}{masquerade}{sticky}-{count}", exposed.dispatch.map());
        if !self.table.chains.contains_key(&name) {
            let rules = self.pick_rules(exposed.dispatch, exposed.masquerade, exposed.affinity_seconds, count);
            self.table.chains.insert(name.clone(), Chain { base: None, rules });
        }
        name.into()
    }

    fn pick_rules(&self, dispatch: Dispatch, masquerade: Masquerade, affinity: Option<u32>, count: u32) -> Vec<Rule> {
        let family = self.table.family;
        let layout = Layout::of(family);
        let mut rules = Vec::new();
        if masquerade != Masquerade::Never {
            let mut rule = Rule::new();
            if masquerade == Masquerade::Outside {
                for cidr in &self.cidrs {
                    rule.push(load_saddr(family, SCRATCH));
                    rule.extend(cidr_match(cidr, SCRATCH, Cmp::Ne));
                }
            }
            rule.extend(set_mark());
            rules.push(rule);
        }
        let dnat = Expr::Nat { kind: Nat::Dnat, addr: layout.result, port: Some(layout.result.after(FieldType::Addr, family)) };
        let (load, key) = layout.load(family, dispatch);
        let endpoints: Arc<str> = dispatch.endpoints().into();
        let mut pick = load.clone();
        pick.push(Expr::Random { modulus: count, to: layout.slot });
        pick.push(Expr::Lookup { set: endpoints, from: key, to: Some(layout.result), invert: false });
        if let Some(seconds) = affinity {
            // The client's address lies right before the rest of the key.
            let client = if dispatch.by_address() { layout.source } else { layout.destination };
            let set: Arc<str> = dispatch.affinity().into();
            let remember = Expr::Update { set: set.clone(), key: client, data: layout.result, timeout_ms: u64::from(seconds) * 1000 };
            let mut known = vec![load_saddr(family, client)];
            known.extend(load);
            known.push(Expr::Lookup { set, from: client, to: Some(layout.result), invert: false });
            known.extend([remember.clone(), dnat.clone()]);
            rules.push(known);
            pick.insert(0, load_saddr(family, client));
            pick.push(remember);
        }
        pick.push(dnat);
        rules.push(pick);
        rules
    }

    /// Only these sources may open connections to an address.
    pub(super) fn restrict(&mut self, vip: IpAddr, protocol: Protocol, port: u16, sources: &[IpNet], name: &str) {
        let family = self.table.family;
        let mut chain = Chain::default();
        for source in sources {
            let mut rule = vec![load_saddr(family, SCRATCH)];
            rule.extend(cidr_match(source, SCRATCH, Cmp::Eq));
            rule.push(Expr::Verdict(Verdict::Return));
            chain.rules.push(rule);
        }
        chain.rules.push(vec![Expr::Verdict(Verdict::Drop)]);
        self.table.chains.insert(name.into(), chain);
        let key = vec![Field::Addr(vip), Field::Proto(protocol), Field::Port(port)];
        self.insert("firewall", key, Value::Verdict(Verdict::goto(name)));
    }
}

fn rules(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn verdict_map(set: &str, from: Register) -> Expr {
    Expr::VerdictMap { set: set.into(), from }
}

fn fib_local(of: DAddr) -> Rule {
    vec![Expr::FibType { of, to: SCRATCH }, Expr::Cmp { op: Cmp::Eq, from: SCRATCH, value: RTN_LOCAL.to_ne_bytes().to_vec() }]
}

/// Ask the map by address, then, for the node's own addresses but loopback, the one by port.
fn lookups(family: Family, services: Dispatch, node_ports: Dispatch) -> Vec<Rule> {
    let layout = Layout::of(family);
    let (mut by_address, key) = layout.load(family, services);
    by_address.push(verdict_map(services.map(), key));
    let mut by_port = fib_local(DAddr::Destination);
    let loopback = if family == Family::V4 { "127.0.0.0/8" } else { "::1/128" };
    if let Ok(net) = loopback.parse::<IpNet>() {
        by_port.push(load_daddr(family, SCRATCH));
        by_port.extend(cidr_match(&net, SCRATCH, Cmp::Ne));
    }
    let (load, key) = layout.load(family, node_ports);
    by_port.extend(load);
    by_port.push(verdict_map(node_ports.map(), key));
    vec![by_address, by_port]
}

fn set_mark() -> Rule {
    let mask = (!MASQUERADE_MARK).to_ne_bytes().to_vec();
    vec![
        Expr::Meta { key: Meta::Mark, to: SCRATCH },
        Expr::Bitwise { from: SCRATCH, to: SCRATCH, mask, xor: MASQUERADE_MARK.to_ne_bytes().to_vec() },
        Expr::SetMark { from: SCRATCH },
    ]
}
