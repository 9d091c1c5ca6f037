//! Endpoints and EndpointSlices.

use machinery::field::{Error, ErrorList, Path};
use machinery::{names, names_net};
use serde_json::{Value, json};

use super::service::non_special;
use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::equal::semantic;
use crate::validate::rules::{Seen, dns_label, dns_subdomain, legacy_ip, named, one_of, port, qualified};
use crate::validate::tree::{int, int0, is_empty, list, list_mut, opt, opt_s, s, set_default, strings};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub struct Endpoints;

impl Strategy for Endpoints {
    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::endpoints(new)
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        // What does not change may be what older servers let pass.
        let errors = self.validate(ctx, new);
        let same = |errors: &ErrorList| {
            !errors.is_empty()
                && semantic(
                    Some(&json!({"subsets": new.get("subsets")})),
                    Some(&json!({"subsets": old.get("subsets")})),
                    "core.v1.Endpoints",
                )
        };
        if same(&errors) { ErrorList::new() } else { errors }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, subsets) = (ErrorList::new(), Path::new("subsets"));
        for (i, subset) in list(object, "subsets").iter().enumerate() {
            let p = subsets.index(i);
            if is_empty(subset, "addresses") && is_empty(subset, "notReadyAddresses") {
                e.push(Error::required(&p, "must specify `addresses` or `notReadyAddresses`"));
            }
            for key in ["addresses", "notReadyAddresses"] {
                let at = p.child(key);
                for (j, address) in list(subset, key).iter().enumerate() {
                    endpoint_address(address, &at.index(j), &mut e);
                }
            }
            let (at, many) = (p.child("ports"), list(subset, "ports").len() > 1);
            for (j, v) in list(subset, "ports").iter().enumerate() {
                endpoint_port(v, many, &at.index(j), &mut e);
            }
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), json!(endpoints_text(o)), age(o, now)])
    }
}

fn endpoint_address(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    legacy_ip(&p.child("ip"), s(v, "ip"), &[], e);
    if !s(v, "hostname").is_empty() {
        dns_label(&p.child("hostname"), s(v, "hostname"), e);
    }
    if let Some(node) = opt_s(v, "nodeName") {
        dns_subdomain(&p.child("nodeName"), node, e);
    }
    non_special(s(v, "ip"), &p.child("ip"), e);
}

fn endpoint_port(v: &Value, must_name: bool, p: &Path<'_>, e: &mut ErrorList) {
    if must_name && s(v, "name").is_empty() {
        e.push(Error::required(&p.child("name"), ""));
    } else if !s(v, "name").is_empty() {
        dns_label(&p.child("name"), s(v, "name"), e);
    }
    port(&p.child("port"), int0(v, "port"), e);
    match s(v, "protocol") {
        "" => e.push(Error::required(&p.child("protocol"), "")),
        protocol => one_of(&p.child("protocol"), protocol, &PROTOCOLS, e),
    }
    if let Some(protocol) = opt_s(v, "appProtocol") {
        qualified(&p.child("appProtocol"), protocol, e);
    }
}

/// The first three addresses with ports, and how many more.
fn endpoints_text(o: &Value) -> String {
    let mut all: Vec<String> = Vec::new();
    for subset in list(o, "subsets") {
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(list(subset, "addresses").iter().map(|a| s(a, "ip").to_owned()));
        }
        for p in ports {
            all.extend(list(subset, "addresses").iter().map(|a| {
                let ip = s(a, "ip");
                if ip.contains(':') { format!("[{ip}]:{}", int0(p, "port")) } else { format!("{ip}:{}", int0(p, "port")) }
            }));
        }
    }
    first_three(&all, "<none>")
}

fn first_three(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

/// Zones, and nodes, that an endpoint may be meant for.
const HINTS_MAX: usize = 8;
const SLICE: &str = "discovery.v1.EndpointSlice";

/// v1 has no topology labels; a node name that was known only by its label stays known (`dropTopologyOnV1`).
fn drop_topology(object: &mut Value, old: &Value) {
    const HOST: &str = "kubernetes.io/hostname";
    let host = |e: &Value| opt(e, "deprecatedTopology").map_or("", |t| s(t, HOST)).to_owned();
    let before: Vec<String> = list(old, "endpoints").iter().map(host).collect();
    for endpoint in list_mut(object, "endpoints") {
        let own = host(endpoint);
        if opt_s(endpoint, "nodeName").is_none() && !own.is_empty() && before.contains(&own) {
            crate::validate::tree::set(endpoint, "nodeName", own);
        }
        crate::validate::tree::remove(endpoint, "deprecatedTopology");
    }
}

pub struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn meta_rules(&self) -> crate::strategy::MetaRules {
        crate::strategy::MetaRules { update_again: false, create_on_update: true, ..Default::default() }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::endpoint_slice(new)
    }

    fn default(&self, _ctx: &Context, object: &mut Value) {
        for p in list_mut(object, "ports") {
            if opt_s(p, "name").is_none() {
                crate::validate::tree::set(p, "name", "");
            }
            if opt_s(p, "protocol").is_none() {
                set_default(p, "protocol", "TCP");
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        drop_topology(object, &Value::Null);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        if !semantic(Some(&json!({"endpoints": new.get("endpoints")})), Some(&json!({"endpoints": old.get("endpoints")})), SLICE) {
            drop_topology(new, old);
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        slice(object, &[])
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let kept: Vec<&str> = list(old, "endpoints").iter().flat_map(|v| strings(v, "addresses")).collect();
        let mut e = slice(new, &kept);
        if s(new, "addressType") != s(old, "addressType") {
            e.push(Error::invalid_str(&Path::new("addressType"), s(new, "addressType"), "field is immutable"));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let ports: Vec<String> =
            list(o, "ports").iter().map(|p| int(p, "port").map_or_else(|| "*".to_owned(), |n| n.to_string())).collect();
        let ips: Vec<String> = list(o, "endpoints").iter().flat_map(|v| strings(v, "addresses").map(str::to_owned)).collect();
        let ports = if ports.is_empty() { "<unset>".to_owned() } else { first_three(&ports, "<unset>") };
        Some(vec![name(o), json!(s(o, "addressType")), json!(ports), json!(first_three(&ips, "<unset>")), age(o, now)])
    }
}

/// `kept` are addresses that were there before.
fn slice(object: &Value, kept: &[&str]) -> ErrorList {
    let mut e = ErrorList::new();
    let (ty, at) = (s(object, "addressType"), Path::new("addressType"));
    match ty {
        "" => e.push(Error::required(&at, "")),
        ty => one_of(&at, ty, &["FQDN", "IPv4", "IPv6"], &mut e),
    }
    slice_ports(object, &mut e);
    let at = Path::new("endpoints");
    let endpoints = list(object, "endpoints");
    if endpoints.len() > 1000 {
        e.push(Error::too_many(&at, endpoints.len(), 1000));
        return e;
    }
    for (i, v) in endpoints.iter().enumerate() {
        endpoint(v, ty, kept, &at.index(i), &mut e);
    }
    e
}

fn endpoint(v: &Value, ty: &str, kept: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("addresses");
    let addresses = list(v, "addresses");
    if addresses.is_empty() {
        e.push(Error::required(&at, "must contain at least 1 address"));
    } else if addresses.len() > 100 {
        e.push(Error::too_many(&at, addresses.len(), 100));
    }
    for (i, address) in strings(v, "addresses").enumerate() {
        let at = at.index(i);
        match ty {
            "IPv4" | "IPv6" => {
                let before = e.len();
                legacy_ip(&at, address, kept, e);
                if e.len() == before {
                    if names_net::is_v6_text(address) != (ty == "IPv6") {
                        e.push(Error::invalid_str(&at, address, format!("must be an {ty} address")));
                    }
                    non_special(address, &at, e);
                }
            }
            "FQDN" => named(&at, address, names::fully_qualified_domain_name(address), e),
            _ => {}
        }
    }
    if let Some(node) = opt_s(v, "nodeName") {
        dns_subdomain(&p.child("nodeName"), node, e);
    }
    if let Some(hostname) = opt_s(v, "hostname") {
        dns_label(&p.child("hostname"), hostname, e);
    }
    if let Some(given) = opt(v, "hints") {
        hints(given, &p.child("hints"), e);
    }
}

/// `validateHints`: one list that is too long ends it.
fn hints(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    for key in ["forZones", "forNodes"] {
        let (at, all) = (p.child(key), list(v, key));
        if all.len() > HINTS_MAX {
            e.push(Error::too_many(&at, all.len(), HINTS_MAX));
            return;
        }
        let mut seen = Seen::default();
        for (i, hint) in all.iter().enumerate() {
            let (at, given) = (at.index(i), s(hint, "name"));
            if seen.again(given) {
                e.push(Error::duplicate(&at.child("name"), &json!(given)));
            }
            let problems = if key == "forZones" { names::label_value(given) } else { names::dns1123_subdomain(given) };
            named(&at.child("name"), given, problems, e);
        }
    }
}

fn slice_ports(object: &Value, e: &mut ErrorList) {
    let at = Path::new("ports");
    let ports = list(object, "ports");
    if ports.len() > 20_000 {
        e.push(Error::too_many(&at, ports.len(), 20_000));
        return;
    }
    let mut seen = Seen::default();
    for (i, v) in ports.iter().enumerate() {
        let p = at.index(i);
        let port_name = s(v, "name");
        if !port_name.is_empty() {
            dns_label(&p.child("name"), port_name, e);
        }
        if seen.again(port_name) {
            e.push(Error::duplicate(&p.child("name"), &json!(port_name)));
        }
        match opt_s(v, "protocol") {
            None => e.push(Error::required(&p.child("protocol"), "")),
            Some(protocol) => one_of(&p.child("protocol"), protocol, &PROTOCOLS, e),
        }
        if let Some(protocol) = opt_s(v, "appProtocol") {
            qualified(&p.child("appProtocol"), protocol, e);
        }
    }
}
