//! An nftables table as data: chains, rules, sets, maps and their elements. What a node must have is a value of this
//! type; [`diff`] says which operations turn one value into another.
//!
//! Not a general nftables library: only what `proxy`, `policy` and `pods` build. `network::nft` encodes it for the kernel.

mod diff;
mod expr;

pub use diff::{Batch, Op, apply, create, diff};
pub use expr::{
    Cmp, DAddr, Expr, Hook, Meta, Nat, Register, RejectWith, Verdict, cidr_match, load_daddr, load_dport, load_l4proto, load_saddr,
    match_new,
};

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The address family of a table. One table never holds both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(addr: &IpAddr) -> Self {
        if addr.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Bytes of an address.
    pub fn addr_len(self) -> u32 {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// From the API's spelling; an empty or absent protocol means TCP.
    pub fn from_api(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// The type of one part of a key or of a map's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldType {
    Addr,
    Proto,
    Port,
    /// A 32-bit number in host order: what numgen yields.
    Slot,
}

impl FieldType {
    /// Bytes in a register, padded to whole 32-bit registers.
    pub fn len(self, family: Family) -> u32 {
        match self {
            FieldType::Addr => family.addr_len(),
            FieldType::Proto | FieldType::Port | FieldType::Slot => 4,
        }
    }
}

/// One part of a key or of a map's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    Addr(IpAddr),
    Proto(Protocol),
    Port(u16),
    Slot(u32),
}

impl Field {
    /// As the kernel holds it in registers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Field::Addr(IpAddr::V4(a)) => out.extend_from_slice(&a.octets()),
            Field::Addr(IpAddr::V6(a)) => out.extend_from_slice(&a.octets()),
            Field::Proto(p) => out.extend_from_slice(&[p.number(), 0, 0, 0]),
            Field::Port(p) => {
                let [high, low] = p.to_be_bytes();
                out.extend_from_slice(&[high, low, 0, 0]);
            }
            Field::Slot(n) => out.extend_from_slice(&n.to_ne_bytes()),
        }
    }
}

/// A concatenation of fields.
pub type Key = Vec<Field>;

pub fn encode_key(key: &[Field]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() * 4);
    for field in key {
        field.encode(&mut out);
    }
    out
}

/// What a set element holds beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A plain set has no data.
    None,
    Verdict(Verdict),
    Fields(Key),
}

/// What a set is of: a change here cannot be made in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    None,
    Verdict,
    Fields(Vec<FieldType>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub key: Vec<FieldType>,
    pub data: Data,
    /// Filled by rules, each element with a time to live: its elements are the kernel's own, not part of the plan.
    pub dynamic: bool,
    pub elements: BTreeMap<Key, Value>,
}

impl Set {
    pub fn plain(key: &[FieldType]) -> Self {
        Set { key: key.to_vec(), data: Data::None, dynamic: false, elements: BTreeMap::new() }
    }

    pub fn verdict_map(key: &[FieldType]) -> Self {
        Set { data: Data::Verdict, ..Set::plain(key) }
    }

    pub fn map(key: &[FieldType], data: &[FieldType]) -> Self {
        Set { data: Data::Fields(data.to_vec()), ..Set::plain(key) }
    }

    fn same_shape(&self, other: &Set) -> bool {
        self.key == other.key && self.data == other.data && self.dynamic == other.dynamic
    }
}

pub type Rule = Vec<Expr>;

/// Where a base chain is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

impl Chain {
    pub fn base(kind: ChainKind, hook: Hook, priority: i32) -> Self {
        Chain { base: Some(Base { kind, hook, priority }), rules: Vec::new() }
    }
}

/// A whole table. Chains and sets are named; every name a rule or an element refers to exists in the same table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

impl Table {
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Table { family, name: name.into(), chains: BTreeMap::new(), sets: BTreeMap::new() }
    }

    /// The first name that something refers to and the table lacks.
    pub fn dangling(&self) -> Option<&str> {
        let exprs = self.chains.values().flat_map(|c| c.rules.iter().flatten());
        for expr in exprs {
            if let Some(set) = expr.set_name()
                && !self.sets.contains_key(set)
            {
                return Some(set);
            }
            if let Expr::Verdict(v) = expr
                && let Some(chain) = v.target()
                && !self.chains.contains_key(chain)
            {
                return Some(chain);
            }
        }
        self.sets.values().flat_map(|s| s.elements.values()).find_map(|v| match v {
            Value::Verdict(v) => v.target().filter(|c| !self.chains.contains_key(*c)),
            Value::None | Value::Fields(_) => None,
        })
    }
}
