//! `netplan::nft` values to nf_tables netlink messages. Numbers are those of linux/netfilter/nf_tables.h.

use std::collections::BTreeMap;

use netplan::nft::{
    Base, Batch, ChainKind, Cmp, DAddr, Data, Expr, Family, Hook, Key, Meta, Nat, Op, Register, RejectWith, Rule, Set, Value, Verdict,
    encode_key,
};

use super::dump::Flow;
use super::message::{ACK, APPEND, CREATE, DUMP, Writer};

const NFTABLES: u16 = 10;
const CONNTRACK: u16 = 1;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DEL_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DEL_ELEMENTS: u16 = 14;
const CONNTRACK_GET: u16 = 1;
const CONNTRACK_DELETE: u16 = 2;

const LIST_ELEM: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
const FIRST_32_BIT_REGISTER: u32 = 8;
const VERDICT_DATA: u32 = 0xffff_ff00;
/// Keeps a nest of elements below the 64 KiB of an attribute.
const ELEMENTS_PER_MESSAGE: usize = 400;
/// Clients an affinity map remembers; the kernel refuses more.
const DYNAMIC_SET_SIZE: u32 = 1 << 17;

pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

struct Encoder<'a> {
    w: Writer,
    family: Family,
    table: &'a str,
    next_set_id: u32,
}

pub(super) fn batch(family: Family, table: &str, batch: &Batch) -> Vec<u8> {
    let mut e = Encoder { w: Writer::default(), family, table, next_set_id: 1 };
    e.begin();
    for op in &batch.ops {
        e.op(op);
    }
    e.end()
}

/// Made first, so that deleting cannot fail for want of it.
pub(super) fn delete_table(family: Family, table: &str) -> Vec<u8> {
    let mut e = Encoder { w: Writer::default(), family, table, next_set_id: 1 };
    e.begin();
    e.message(NEW_TABLE, CREATE);
    e.message(DEL_TABLE, 0);
    e.end()
}

pub(super) fn list_tables(family: Family) -> Vec<u8> {
    let mut w = Writer::default();
    w.message(NFTABLES << 8 | GET_TABLE, DUMP, family_number(family), 0);
    w.finish();
    w.bytes
}

pub(super) fn list_elements(family: Family, table: &str, set: &str) -> Vec<u8> {
    let mut w = Writer::default();
    w.message(NFTABLES << 8 | GET_ELEMENTS, DUMP, family_number(family), 0);
    w.str(1, table);
    w.str(2, set);
    w.finish();
    w.bytes
}

pub(super) fn list_flows(family: Family) -> Vec<u8> {
    let mut w = Writer::default();
    w.message(CONNTRACK << 8 | CONNTRACK_GET, DUMP, family_number(family), 0);
    w.finish();
    w.bytes
}

pub(super) fn delete_flow(family: Family, flow: &Flow) -> Vec<u8> {
    const TUPLE_ORIG: u16 = 1;
    const ZONE: u16 = 18;
    const ID: u16 = 12;
    let mut w = Writer::default();
    w.message(CONNTRACK << 8 | CONNTRACK_DELETE, ACK, family_number(family), 0);
    w.attr(TUPLE_ORIG | 0x8000, &flow.original_tuple);
    if let Some(zone) = &flow.zone {
        w.attr(ZONE, zone);
    }
    if let Some(id) = &flow.id {
        w.attr(ID, id);
    }
    w.finish();
    w.bytes
}

impl Encoder<'_> {
    fn begin(&mut self) {
        self.w.message(BATCH_BEGIN, 0, 0, NFTABLES);
    }

    fn end(mut self) -> Vec<u8> {
        self.w.message(BATCH_END, 0, 0, NFTABLES);
        self.w.finish();
        self.w.bytes
    }

    /// Begin a message about the table; every kind has the table's name as attribute 1.
    fn message(&mut self, kind: u16, flags: u16) {
        self.w.message(NFTABLES << 8 | kind, flags, family_number(self.family), 0);
        self.w.str(1, self.table);
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::ResetTable => {
                self.message(NEW_TABLE, CREATE);
                self.message(DEL_TABLE, 0);
                self.message(NEW_TABLE, CREATE);
            }
            Op::AddSet { name, set } => self.add_set(name, set),
            Op::AddChain { name, base } => self.add_chain(name, base.as_ref()),
            Op::FlushChain { name } => {
                self.message(DEL_RULE, 0);
                self.w.str(2, name);
            }
            Op::AddRule { chain, rule } => self.add_rule(chain, rule),
            Op::DeleteElements { set, elements } => self.elements(DEL_ELEMENTS, 0, set, elements),
            Op::AddElements { set, elements } => self.elements(NEW_ELEMENTS, CREATE, set, elements),
            Op::DeleteChain { name } => {
                self.message(DEL_CHAIN, 0);
                self.w.str(3, name);
            }
            Op::DeleteSet { name } => {
                self.message(DEL_SET, 0);
                self.w.str(2, name);
            }
        }
    }

    fn add_set(&mut self, name: &str, set: &Set) {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        let len = |fields: &[netplan::nft::FieldType]| fields.iter().map(|f| f.len(self.family)).sum::<u32>();
        let key_len = len(&set.key);
        let mut flags = if set.data == Data::None { 0 } else { MAP };
        if set.dynamic {
            flags |= TIMEOUT | EVAL;
        }
        let data = match &set.data {
            Data::None => None,
            Data::Verdict => Some((VERDICT_DATA, 0)),
            Data::Fields(fields) => Some((1, len(fields))),
        };
        self.message(NEW_SET, CREATE);
        self.w.str(2, name);
        self.w.u32(3, flags);
        self.w.u32(5, key_len);
        if let Some((kind, len)) = data {
            self.w.u32(6, kind);
            self.w.u32(7, len);
        }
        if set.dynamic {
            self.w.nest(9, |w| w.u32(1, DYNAMIC_SET_SIZE));
        }
        self.w.u32(10, self.next_set_id);
        self.next_set_id += 1;
    }

    fn add_chain(&mut self, name: &str, base: Option<&Base>) {
        self.message(NEW_CHAIN, CREATE);
        self.w.str(3, name);
        let Some(base) = base else { return };
        let hook = match base.hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        self.w.nest(4, |w| {
            w.u32(1, hook);
            w.attr(2, &base.priority.to_be_bytes());
        });
        self.w.str(
            7,
            match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
    }

    fn add_rule(&mut self, chain: &str, rule: &Rule) {
        let family = self.family;
        self.message(NEW_RULE, CREATE | APPEND);
        self.w.str(2, chain);
        self.w.nest(4, |w| {
            for e in rule {
                w.nest(LIST_ELEM, |w| expr(w, family, e));
            }
        });
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &BTreeMap<Key, Value>) {
        let mut rest = elements.iter().peekable();
        while rest.peek().is_some() {
            self.message(kind, flags);
            self.w.str(2, set);
            let chunk = rest.by_ref().take(ELEMENTS_PER_MESSAGE);
            self.w.nest(3, |w| {
                for (key, value) in chunk {
                    w.nest(LIST_ELEM, |w| element(w, key, value, kind == NEW_ELEMENTS));
                }
            });
        }
    }
}

fn element(w: &mut Writer, key: &Key, value: &Value, with_data: bool) {
    w.nest(1, |w| w.attr(1, &encode_key(key)));
    match value {
        Value::Verdict(v) if with_data => w.nest(2, |w| verdict(w, v)),
        Value::Fields(fields) if with_data => w.nest(2, |w| w.attr(1, &encode_key(fields))),
        Value::None | Value::Verdict(_) | Value::Fields(_) => {}
    }
}

fn verdict(w: &mut Writer, verdict: &Verdict) {
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    };
    w.nest(2, |w| {
        w.attr(1, &code.to_be_bytes());
        if let Some(chain) = verdict.target() {
            w.str(2, chain);
        }
    });
}

fn register(r: Register) -> u32 {
    FIRST_32_BIT_REGISTER + u32::from(r.0)
}

fn payload(w: &mut Writer, base: u32, offset: u32, len: u32, to: Register) {
    w.u32(1, register(to));
    w.u32(2, base);
    w.u32(3, offset);
    w.u32(4, len);
}

fn expr(w: &mut Writer, family: Family, expr: &Expr) {
    w.str(1, name(expr));
    w.nest(2, |w| match expr {
        Expr::NetworkHeader { offset, len, to } => payload(w, 1, *offset, *len, *to),
        Expr::TransportHeader { offset, len, to } => payload(w, 2, *offset, *len, *to),
        Expr::Meta { key, to } => {
            w.u32(1, register(*to));
            w.u32(2, if *key == Meta::Mark { 3 } else { 16 });
        }
        Expr::SetMark { from } => {
            w.u32(2, 3);
            w.u32(3, register(*from));
        }
        Expr::CtState { to } => {
            w.u32(1, register(*to));
            w.u32(2, 0);
        }
        Expr::FibType { of, to } => {
            w.u32(1, register(*to));
            w.u32(2, 3);
            w.u32(3, if *of == DAddr::Source { 1 } else { 2 });
        }
        Expr::Bitwise { from, to, mask, xor } => {
            w.u32(1, register(*from));
            w.u32(2, register(*to));
            w.u32(3, mask.len() as u32);
            w.nest(4, |w| w.attr(1, mask));
            w.nest(5, |w| w.attr(1, xor));
        }
        Expr::Cmp { op, from, value } => {
            w.u32(1, register(*from));
            w.u32(
                2,
                match op {
                    Cmp::Eq => 0,
                    Cmp::Ne => 1,
                    Cmp::Lte => 3,
                    Cmp::Gte => 5,
                },
            );
            w.nest(3, |w| w.attr(1, value));
        }
        other => action(w, family, other),
    });
}

/// The expressions that look up or act; the loads and tests are in [`expr`].
fn action(w: &mut Writer, family: Family, expr: &Expr) {
    match expr {
        Expr::Lookup { set, from, to, invert } => {
            w.str(1, set);
            w.u32(2, register(*from));
            if let Some(to) = to {
                w.u32(3, register(*to));
            }
            if *invert {
                w.u32(5, 1);
            }
        }
        Expr::VerdictMap { set, from } => {
            w.str(1, set);
            w.u32(2, register(*from));
            w.u32(3, VERDICT_REGISTER);
        }
        Expr::Random { modulus, to } => {
            w.u32(1, register(*to));
            w.u32(2, *modulus);
            w.u32(3, 1);
        }
        Expr::Update { set, key, data, timeout_ms } => {
            w.str(1, set);
            w.u32(3, 1);
            w.u32(4, register(*key));
            w.u32(5, register(*data));
            w.u64(6, *timeout_ms);
        }
        Expr::Nat { kind, addr, port } => {
            w.u32(1, if *kind == Nat::Snat { 0 } else { 1 });
            w.u32(2, u32::from(family_number(family)));
            w.u32(3, register(*addr));
            if let Some(port) = port {
                w.u32(5, register(*port));
            }
        }
        Expr::Reject(RejectWith::PortUnreachable) => {
            w.u32(1, 0);
            w.attr(2, &[if family == Family::V4 { 3 } else { 4 }]);
        }
        Expr::Verdict(v) => {
            w.u32(1, VERDICT_REGISTER);
            w.nest(2, |w| verdict(w, v));
        }
        // Masquerade has nothing to say; the rest is in `expr`.
        _ => {}
    }
}

fn name(expr: &Expr) -> &'static str {
    match expr {
        Expr::NetworkHeader { .. } | Expr::TransportHeader { .. } => "payload",
        Expr::Meta { .. } | Expr::SetMark { .. } => "meta",
        Expr::CtState { .. } => "ct",
        Expr::FibType { .. } => "fib",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Cmp { .. } => "cmp",
        Expr::Lookup { .. } | Expr::VerdictMap { .. } => "lookup",
        Expr::Random { .. } => "numgen",
        Expr::Update { .. } => "dynset",
        Expr::Nat { .. } => "nat",
        Expr::Masquerade => "masq",
        Expr::Reject(_) => "reject",
        Expr::Verdict(_) => "immediate",
    }
}
