//! The expressions of rules: the kernel's own small machine (load into registers, compare, look up, act), and the few
//! idioms the planners share. Registers are the kernel's sixteen 32-bit ones.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Family, FieldType};

/// A 32-bit register, 0 to 15. A value longer than 4 bytes fills the following ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// The register right after a field kept here.
    pub fn after(self, field: FieldType, family: Family) -> Register {
        Register(self.0 + (field.len(family) / 4) as u8)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(Arc<str>),
    Goto(Arc<str>),
}

impl Verdict {
    pub fn goto(chain: &str) -> Self {
        Verdict::Goto(chain.into())
    }

    pub fn jump(chain: &str) -> Self {
        Verdict::Jump(chain.into())
    }

    pub fn target(&self) -> Option<&str> {
        match self {
            Verdict::Jump(c) | Verdict::Goto(c) => Some(c),
            Verdict::Accept | Verdict::Drop | Verdict::Return => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    L4Proto,
    Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lte,
    Gte,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    Dnat,
    Snat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectWith {
    PortUnreachable,
}

/// Which address `fib` looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DAddr {
    Source,
    Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Network header bytes into a register.
    NetworkHeader {
        offset: u32,
        len: u32,
        to: Register,
    },
    /// Transport header bytes into a register.
    TransportHeader {
        offset: u32,
        len: u32,
        to: Register,
    },
    Meta {
        key: Meta,
        to: Register,
    },
    SetMark {
        from: Register,
    },
    /// Connection tracking state bits (host order) into a register.
    CtState {
        to: Register,
    },
    /// `RTN_*` type of an address, by the routing table.
    FibType {
        of: DAddr,
        to: Register,
    },
    /// `to = (from & mask) ^ xor`
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Cmp {
        op: Cmp,
        from: Register,
        value: Vec<u8>,
    },
    /// Continue only if the key is (or with `invert`, is not) in the set; of a map, put its value into `to`.
    Lookup {
        set: Arc<str>,
        from: Register,
        to: Option<Register>,
        invert: bool,
    },
    /// Look the key up in a verdict map and follow its verdict; continue without one.
    VerdictMap {
        set: Arc<str>,
        from: Register,
    },
    /// A random number below `modulus`.
    Random {
        modulus: u32,
        to: Register,
    },
    /// Add the key with its data to a dynamic map, or start its time to live again.
    Update {
        set: Arc<str>,
        key: Register,
        data: Register,
        timeout_ms: u64,
    },
    Nat {
        kind: Nat,
        addr: Register,
        port: Option<Register>,
    },
    Masquerade,
    Reject(RejectWith),
    Verdict(Verdict),
}

impl Expr {
    pub fn set_name(&self) -> Option<&str> {
        match self {
            Expr::Lookup { set, .. } | Expr::VerdictMap { set, .. } | Expr::Update { set, .. } => Some(set),
            _ => None,
        }
    }
}

pub fn load_saddr(family: Family, to: Register) -> Expr {
    let offset = if family == Family::V4 { 12 } else { 8 };
    Expr::NetworkHeader { offset, len: family.addr_len(), to }
}

pub fn load_daddr(family: Family, to: Register) -> Expr {
    let offset = if family == Family::V4 { 16 } else { 24 };
    Expr::NetworkHeader { offset, len: family.addr_len(), to }
}

pub fn load_l4proto(to: Register) -> Expr {
    Expr::Meta { key: Meta::L4Proto, to }
}

/// TCP, UDP and SCTP all keep it at the same place.
pub fn load_dport(to: Register) -> Expr {
    Expr::TransportHeader { offset: 2, len: 2, to }
}

/// Continue only if the address in `from` is (`Cmp::Eq`) or is not (`Cmp::Ne`) in the network; uses `from` as scratch.
pub fn cidr_match(net: &IpNet, from: Register, op: Cmp) -> Vec<Expr> {
    let (mask, base) = match (net.netmask(), net.network()) {
        (IpAddr::V4(m), IpAddr::V4(n)) => (m.octets().to_vec(), n.octets().to_vec()),
        (IpAddr::V6(m), IpAddr::V6(n)) => (m.octets().to_vec(), n.octets().to_vec()),
        _ => return Vec::new(),
    };
    let xor = vec![0; mask.len()];
    vec![Expr::Bitwise { from, to: from, mask, xor }, Expr::Cmp { op, from, value: base }]
}

/// Continue only for packets that open a connection (`NF_CT_STATE_BIT(NEW)`).
pub fn match_new(scratch: Register) -> Vec<Expr> {
    const NEW: u32 = 8;
    vec![
        Expr::CtState { to: scratch },
        Expr::Bitwise { from: scratch, to: scratch, mask: NEW.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { op: Cmp::Ne, from: scratch, value: vec![0; 4] },
    ]
}
