//! NetworkPolicies.

use machinery::field::{Error, ErrorList, Path};
use machinery::{names, names_net};
use serde_json::{Value, json};

use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::rules::{legacy_cidr, named, one_of, port};
use crate::validate::selector::{label_selector, label_selector_at};
use crate::validate::tree::{at, has, int, is_empty, list, opt, opt_s, s, set, strings};

pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::network_policy(new)
    }

    fn default(&self, _ctx: &Context, object: &mut Value) {
        if !object.is_object() {
            return;
        }
        if !object.get("spec").is_some_and(Value::is_object) {
            set(object, "spec", json!({}));
        }
        let Some(v) = object.get_mut("spec") else { return };
        if is_empty(v, "policyTypes") {
            let both = !is_empty(v, "egress");
            set(v, "policyTypes", if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
        for key in ["ingress", "egress"] {
            for rule in crate::validate::tree::list_mut(v, key) {
                for p in crate::validate::tree::list_mut(rule, "ports") {
                    if !has(p, "protocol") {
                        set(p, "protocol", "TCP");
                    }
                }
            }
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        spec(object, &[])
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        // A network that stood anywhere in the old policy may stand anywhere in the new one.
        let rules = ["ingress", "egress"].into_iter().flat_map(|key| at(old, "spec").map_or(&[][..], |v| list(v, key)));
        let peers = rules.flat_map(|rule| list(rule, "from").iter().chain(list(rule, "to")));
        let kept = peers.filter_map(|peer| opt(peer, "ipBlock")).flat_map(|b| std::iter::once(s(b, "cidr")).chain(strings(b, "except")));
        spec(new, &kept.collect::<Vec<_>>())
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let selector = crate::columns::apps::selector(Some(at(o, "spec.podSelector").unwrap_or(&json!({}))));
        Some(vec![name(o), selector, age(o, now)])
    }
}

fn spec(object: &Value, kept: &[&str]) -> ErrorList {
    let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
    let v = opt(object, "spec").unwrap_or(&empty);
    label_selector(opt(v, "podSelector").unwrap_or(&empty), &p.child("podSelector"), &mut e);
    for (key, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = p.child(key);
        for (i, rule) in list(v, key).iter().enumerate() {
            let p = rules.index(i);
            let ports = p.child("ports");
            for (j, given) in list(rule, "ports").iter().enumerate() {
                policy_port(given, &ports.index(j), &mut e);
            }
            let at = p.child(peers);
            for (j, given) in list(rule, peers).iter().enumerate() {
                peer(given, kept, &at.index(j), &mut e);
            }
        }
    }
    let types: Vec<&str> = strings(v, "policyTypes").collect();
    let at = p.child("policyTypes");
    if types.len() > 2 {
        e.push(Error::invalid(&at, &json!(types), "may not specify more than two policyTypes"));
        return e;
    }
    for (i, ty) in types.iter().enumerate() {
        one_of(&at.index(i), ty, &["Ingress", "Egress"], &mut e);
    }
    e
}

fn policy_port(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(protocol) = opt_s(v, "protocol") {
        one_of(&p.child("protocol"), protocol, &["TCP", "UDP", "SCTP"], e);
    }
    let (at_port, at_end, end) = (p.child("port"), p.child("endPort"), int(v, "endPort"));
    match (opt(v, "port"), end) {
        (None, Some(end)) => e.push(Error::invalid(&at_end, &json!(end), "may not be specified when `port` is not specified")),
        (None, None) => {}
        (Some(Value::String(text)), end) => {
            if let Some(end) = end {
                e.push(Error::invalid(&at_end, &json!(end), "may not be specified when `port` is non-numeric"));
            }
            named(&at_port, text, names::port_name(text), e);
        }
        (Some(given), end) => {
            let n = given.as_i64().unwrap_or(0);
            port(&at_port, n, e);
            if let Some(end) = end {
                if end < n {
                    e.push(Error::invalid(&at_end, &json!(n), "must be greater than or equal to `port`"));
                }
                port(&at_end, end, e);
            }
        }
    }
}

fn peer(v: &Value, kept: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    label_selector_at(v, "podSelector", p, e);
    label_selector_at(v, "namespaceSelector", p, e);
    if let Some(block) = opt(v, "ipBlock") {
        ip_block(block, kept, &p.child("ipBlock"), e);
    }
    match ["podSelector", "namespaceSelector", "ipBlock"].iter().filter(|key| has(v, key)).count() {
        0 => e.push(Error::required(p, "must specify a peer")),
        n if n > 1 && has(v, "ipBlock") => e.push(Error::forbidden(p, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(v: &Value, kept: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let at_cidr = p.child("cidr");
    if s(v, "cidr").is_empty() {
        e.push(Error::required(&at_cidr, ""));
        return;
    }
    legacy_cidr(&at_cidr, s(v, "cidr"), kept, e);
    let Some((whole, bits)) = names_net::parse_cidr_sloppy(s(v, "cidr")) else { return };
    let at_except = p.child("except");
    for (i, except) in strings(v, "except").enumerate() {
        let p = at_except.index(i);
        legacy_cidr(&p, except, kept, e);
        let Some((part, part_bits)) = names_net::parse_cidr_sloppy(except) else { continue };
        let inside = whole.is_ipv4() == part.is_ipv4() && names_net::masked(part, bits.min(part_bits)) == names_net::masked(whole, bits);
        if !inside || bits >= part_bits {
            e.push(Error::invalid_str(&p, except, "must be a strict subset of `cidr`"));
        }
    }
}
