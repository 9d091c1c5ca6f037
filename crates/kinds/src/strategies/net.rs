//! Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

use machinery::field::{Error, ErrorList, Path};
use machinery::{names, names_net};
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::rules::{IMMUTABLE, dns_label, dns_subdomain, named, one_of, port, port_or_name, required};
use crate::validate::selector::label_selector_at;
use crate::validate::tree::{at, has, int, is_empty, list, opt, opt_s, s, same, same_at, set, strings};

static NULL: Value = Value::Null;

pub struct Ingresses;

impl Strategy for Ingresses {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, ctx: &Context, object: &Value) -> ErrorList {
        let mut e = self.validate_update(ctx, object, &NULL);
        let (class, own) =
            (at(object, "metadata.annotations").map_or("", |a| s(a, "kubernetes.io/ingress.class")), at(object, "spec.ingressClassName"));
        if let Some(own) = own.and_then(Value::as_str)
            && !class.is_empty()
            && own != class
        {
            let at = Path::new("annotations").child("kubernetes.io/ingress.class").to_string();
            e.push(Error::invalid_str(&Path::new(&at), class, "must match `ingressClassName` when both are specified"));
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, _old: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(new, "spec").unwrap_or(&NULL);
        if is_empty(v, "rules") && !has(v, "defaultBackend") {
            let rules = opt(v, "rules").unwrap_or(&NULL);
            e.push(Error::invalid(&p, rules, "either `defaultBackend` or `rules` must be specified"));
        }
        if let Some(b) = opt(v, "defaultBackend") {
            backend(b, &p.child("defaultBackend"), &mut e);
        }
        let rules = p.child("rules");
        for (i, rule) in list(v, "rules").iter().enumerate() {
            ingress_rule(rule, &rules.index(i), &mut e);
        }
        tls(v, &p, &mut e);
        if let Some(class) = opt_s(v, "ingressClassName") {
            dns_subdomain(&p.child("ingressClassName"), class, &mut e);
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(ingress_status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let v = opt(o, "spec").unwrap_or(&NULL);
        let hosts: Vec<&str> = list(v, "rules").iter().map(|r| s(r, "host")).filter(|h| !h.is_empty()).collect();
        let hosts = match hosts.len() {
            0 => "*".to_owned(),
            1..=3 => hosts.join(","),
            n => format!("{} + {} more...", hosts[..3].join(","), n - 3),
        };
        let balancers = at(o, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
        let addresses: Vec<&str> = balancers.iter().map(|i| if s(i, "ip").is_empty() { s(i, "hostname") } else { s(i, "ip") }).collect();
        let ports = if is_empty(v, "tls") { "80" } else { "80, 443" };
        let class = opt_s(v, "ingressClassName").unwrap_or("<none>");
        Some(vec![name(o), json!(class), json!(hosts), json!(addresses.join(",")), json!(ports), age(o, now)])
    }
}

fn host(text: &str, ip_too: bool, p: &Path<'_>, e: &mut ErrorList) {
    if ip_too && names_net::parse_ip_sloppy(text).is_some() {
        e.push(Error::invalid_str(p, text, "must be a DNS name, not an IP address"));
    }
    if text.contains('*') {
        named(p, text, names::wildcard_dns1123_subdomain(text), e);
    } else {
        dns_subdomain(p, text, e);
    }
}

fn ingress_rule(rule: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !s(rule, "host").is_empty() {
        host(s(rule, "host"), true, &p.child("host"), e);
    }
    let Some(http) = opt(rule, "http") else { return };
    let at_http = p.child("http");
    let paths = at_http.child("paths");
    if is_empty(http, "paths") {
        e.push(Error::required(&paths, ""));
    }
    for (i, one) in list(http, "paths").iter().enumerate() {
        let at = paths.index(i);
        let path = s(one, "path");
        match opt_s(one, "pathType") {
            None => {
                e.push(Error::required(&at.child("pathType"), "pathType must be specified"));
                continue;
            }
            Some("Exact" | "Prefix") => exact_path(path, &at.child("path"), e),
            Some("ImplementationSpecific") => {
                if !path.is_empty() && !path.starts_with('/') {
                    e.push(Error::invalid_str(&at.child("path"), path, "must be an absolute path"));
                }
            }
            Some(other) => {
                let allowed = ["Exact", "ImplementationSpecific", "Prefix"];
                e.push(Error::not_supported(&at.child("pathType"), &json!(other), &allowed));
            }
        }
        backend(opt(one, "backend").unwrap_or(&NULL), &at.child("backend"), e);
    }
}

fn exact_path(path: &str, p: &Path<'_>, e: &mut ErrorList) {
    if !path.starts_with('/') {
        e.push(Error::invalid_str(p, path, "must be an absolute path"));
    }
    if path.is_empty() {
        return;
    }
    for bad in ["//", "/./", "/../", "%2f", "%2F"] {
        if path.contains(bad) {
            e.push(Error::invalid_str(p, path, format!("must not contain '{bad}'")));
        }
    }
    for bad in ["/..", "/."] {
        if path.ends_with(bad) {
            e.push(Error::invalid_str(p, path, format!("cannot end with '{bad}'")));
        }
    }
}

fn backend(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (service, resource) = (opt(v, "service"), opt(v, "resource"));
    match (service, resource) {
        (Some(_), Some(_)) => {
            e.push(Error::invalid_str(p, "", "cannot set both resource and service backends"));
            return;
        }
        (None, None) => e.push(Error::invalid_str(p, "", "resource or service backend is required")),
        _ => {}
    }
    if let Some(resource) = resource {
        let at = p.child("resource");
        required(resource, "name", &at, e);
        required(resource, "kind", &at, e);
        if let Some(group) = opt_s(resource, "apiGroup") {
            dns_subdomain(&at.child("apiGroup"), group, e);
        }
    }
    let Some(service) = service else { return };
    let at = p.child("service");
    match s(service, "name") {
        "" => e.push(Error::required(&at.child("name"), "")),
        name => named(&at.child("name"), name, names::dns1123_label(name), e),
    }
    let port_value = opt(service, "port").unwrap_or(&NULL);
    let (port_name, number) = (s(port_value, "name"), int(port_value, "number").unwrap_or(0));
    let at_port = at.child("port");
    match (port_name.is_empty(), number == 0) {
        (false, false) => e.push(Error::invalid_str(p, "", "cannot set both port name & port number")),
        (true, true) => e.push(Error::required(p, "port name or number is required")),
        (false, true) => named(&at_port.child("name"), port_name, names::port_name(port_name), e),
        (true, false) => port(&at_port.child("number"), number, e),
    }
}

fn tls(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("tls");
    for (i, one) in list(v, "tls").iter().enumerate() {
        let item = at.index(i);
        let hosts = item.child("hosts");
        for (j, name) in strings(one, "hosts").enumerate() {
            host(name, false, &hosts.index(j), e);
        }
        if !s(one, "secretName").is_empty() {
            dns_subdomain(&item.child("secretName"), s(one, "secretName"), e);
        }
    }
}

fn ingress_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let p = Path::new("status");
    let at_lb = p.child("loadBalancer");
    let root = at_lb.child("ingress");
    for (i, one) in at(new, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress")).iter().enumerate() {
        let item = root.index(i);
        if !s(one, "ip").is_empty() {
            e.extend(names_net::ip_legacy(&item.child("ip"), s(one, "ip"), false));
        }
        let name = s(one, "hostname");
        if !name.is_empty() {
            dns_subdomain(&item.child("hostname"), name, e);
            if names_net::parse_ip_sloppy(name).is_some() {
                e.push(Error::invalid_str(&item.child("hostname"), name, "must be a DNS name, not an IP address"));
            }
        }
    }
}

pub struct IngressClasses;

impl Strategy for IngressClasses {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        if let Some(parameters) = object.get_mut("spec").and_then(|v| v.get_mut("parameters")).filter(|v| v.is_object())
            && !has(parameters, "scope")
        {
            set(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        let controller = s(v, "controller");
        if controller.len() > 250 {
            e.push(Error::too_long(&p.child("controller"), 250));
        }
        if controller.is_empty() {
            e.push(Error::required(&p.child("controller"), ""));
        } else {
            named(&p.child("controller"), controller, names::domain_prefixed_path(controller), &mut e);
        }
        let Some(parameters) = opt(v, "parameters") else { return e };
        let at = p.child("parameters");
        if let Some(group) = opt_s(parameters, "apiGroup") {
            dns_subdomain(&at.child("apiGroup"), group, &mut e);
        }
        for key in ["kind", "name"] {
            match s(parameters, key) {
                "" => e.push(Error::required(&at.child(key), "")),
                text => named(&at.child(key), text, names::path_segment(text, false), &mut e),
            }
        }
        let namespace = opt_s(parameters, "namespace");
        match s(parameters, "scope") {
            "Cluster" => {
                if namespace.is_some() {
                    e.push(Error::forbidden(&at.child("namespace"), "`parameters.scope` is set to 'Cluster'"));
                }
            }
            "Namespace" => match namespace {
                None | Some("") => e.push(Error::required(&at.child("namespace"), "`parameters.scope` is set to 'Namespace'")),
                Some(namespace) => dns_label(&at.child("namespace"), namespace, &mut e),
            },
            other => e.push(Error::not_supported(&at.child("scope"), &json!(other), &["Cluster", "Namespace"])),
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if !same_at(new, old, "spec.controller") {
            let spec = Path::new("spec");
            e.push(Error::invalid(&spec.child("controller"), at(new, "spec.controller").unwrap_or(&NULL), IMMUTABLE));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let parameters = at(o, "spec.parameters").map_or_else(
            || "<none>".to_owned(),
            |p| match s(p, "apiGroup") {
                "" => format!("{}/{}", s(p, "kind"), s(p, "name")),
                group => format!("{}.{group}/{}", s(p, "kind"), s(p, "name")),
            },
        );
        Some(vec![name(o), at(o, "spec.controller").cloned().unwrap_or_else(|| json!("")), json!(parameters), age(o, now)])
    }
}

pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
        if is_empty(v, "policyTypes") {
            let types = if is_empty(v, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            set(v, "policyTypes", types);
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
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        label_selector_at(v, "podSelector", &p, &mut e);
        for (key, peers) in [("ingress", "from"), ("egress", "to")] {
            let at = p.child(key);
            for (i, rule) in list(v, key).iter().enumerate() {
                policy_rule(rule, peers, &at.index(i), &mut e);
            }
        }
        let at = p.child("policyTypes");
        let types = list(v, "policyTypes");
        if types.len() > 2 {
            e.push(Error::invalid(&at, &json!(types), "may not specify more than two policyTypes"));
            return e;
        }
        for (i, ty) in strings(v, "policyTypes").enumerate() {
            one_of(&at.index(i), ty, &["Ingress", "Egress"], &mut e);
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let selector = crate::columns::apps::selector(at(o, "spec.podSelector"));
        Some(vec![name(o), selector, age(o, now)])
    }
}

fn policy_rule(rule: &Value, peers: &str, p: &Path<'_>, e: &mut ErrorList) {
    let at_ports = p.child("ports");
    for (i, v) in list(rule, "ports").iter().enumerate() {
        policy_port(v, &at_ports.index(i), e);
    }
    let at_peers = p.child(peers);
    for (i, v) in list(rule, peers).iter().enumerate() {
        peer(v, &at_peers.index(i), e);
    }
}

fn policy_port(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(protocol) = opt_s(v, "protocol") {
        one_of(&p.child("protocol"), protocol, &["TCP", "UDP", "SCTP"], e);
    }
    let end = int(v, "endPort");
    let at_end = p.child("endPort");
    let Some(own) = opt(v, "port") else {
        if let Some(n) = end {
            e.push(Error::invalid(&at_end, &json!(n), "may not be specified when `port` is not specified"));
        }
        return;
    };
    port_or_name(Some(own), &p.child("port"), e);
    let Some(n) = end else { return };
    match own.as_i64() {
        None => e.push(Error::invalid(&at_end, &json!(n), "may not be specified when `port` is non-numeric")),
        Some(first) => {
            if n < first {
                e.push(Error::invalid(&at_end, &json!(n), "must be greater than or equal to `port`"));
            }
            port(&at_end, n, e);
        }
    }
}

fn peer(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let mut found = 0;
    for key in ["podSelector", "namespaceSelector"] {
        found += usize::from(has(v, key));
        label_selector_at(v, key, p, e);
    }
    if let Some(block) = opt(v, "ipBlock") {
        found += 1;
        ip_block(block, &p.child("ipBlock"), e);
    }
    if found == 0 {
        e.push(Error::required(p, "must specify a peer"));
    } else if found > 1 && has(v, "ipBlock") {
        e.push(Error::forbidden(p, "may not specify both ipBlock and another peer"));
    }
}

fn ip_block(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let cidr = s(v, "cidr");
    if cidr.is_empty() {
        e.push(Error::required(&p.child("cidr"), ""));
        return;
    }
    e.extend(names_net::cidr_legacy(&p.child("cidr"), cidr, false));
    let Some((ip, len)) = names_net::parse_cidr_sloppy(cidr) else { return };
    let at = p.child("except");
    for (i, except) in strings(v, "except").enumerate() {
        e.extend(names_net::cidr_legacy(&at.index(i), except, false));
        let Some((other, other_len)) = names_net::parse_cidr_sloppy(except) else { continue };
        let within = ip.is_ipv4() == other.is_ipv4() && names_net::masked(other, len) == names_net::masked(ip, len);
        if !within || len >= other_len {
            e.push(Error::invalid_str(&at.index(i), except, "must be a strict subset of `cidr`"));
        }
    }
}

pub struct IpAddresses;

impl Strategy for IpAddresses {
    fn name_problems(&self, _object: &Value, name: &str, _prefix: bool) -> names::Problems {
        let p = Path::new("");
        names_net::ip(&p, name).into_iter().map(|e| e.detail.into()).collect()
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, spec) = (ErrorList::new(), Path::new("spec"));
        let p = spec.child("parentRef");
        let Some(parent) = at(object, "spec.parentRef") else {
            e.push(Error::required(&p, ""));
            return e;
        };
        if !s(parent, "group").is_empty() {
            dns_subdomain(&p.child("group"), s(parent, "group"), &mut e);
        }
        for key in ["resource", "name"] {
            match s(parent, key) {
                "" => e.push(Error::required(&p.child(key), "")),
                text => named(&p.child(key), text, names::path_segment(text, false), &mut e),
            }
        }
        if !s(parent, "namespace").is_empty() {
            named(&p.child("namespace"), s(parent, "namespace"), names::path_segment(s(parent, "namespace"), false), &mut e);
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        if !same_at(new, old, "spec.parentRef") {
            let spec = Path::new("spec");
            let value = at(new, "spec.parentRef").unwrap_or(&NULL);
            e.push(crate::validate::go::invalid(&spec.child("parentRef"), value, "networking.v1.ParentReference", IMMUTABLE));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let parent = at(o, "spec.parentRef").map_or_else(String::new, |p| {
            let parts = [s(p, "resource"), s(p, "namespace"), s(p, "name")];
            let text = parts.iter().filter(|t| !t.is_empty()).copied().collect::<Vec<_>>().join("/");
            if s(p, "group").is_empty() {
                text
            } else {
                text.replacen(s(p, "resource"), &format!("{}.{}", s(p, "resource"), s(p, "group")), 1)
            }
        });
        Some(vec![name(o), json!(parent), age(o, now)])
    }
}

pub struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, spec) = (ErrorList::new(), Path::new("spec"));
        let p = spec.child("cidrs");
        let cidrs: Vec<&str> = opt(object, "spec").map_or_else(Vec::new, |v| strings(v, "cidrs").collect());
        if cidrs.is_empty() {
            e.push(Error::required(&p, "at least one CIDR required"));
            return e;
        }
        if cidrs.len() > 2 {
            e.push(Error::invalid(&p, &json!(cidrs), "may only hold up to 2 values"));
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            e.extend(names_net::cidr(&p.index(i), cidr));
        }
        if cidrs.len() == 2 && names_net::is_v6_text(cidrs[0]) == names_net::is_v6_text(cidrs[1]) {
            e.push(Error::invalid(
                &p,
                &json!(cidrs),
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96",
            ));
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        if !same(at(new, "spec.cidrs"), at(old, "spec.cidrs")) {
            let spec = Path::new("spec");
            e.push(Error::invalid(&spec.child("cidrs"), at(new, "spec.cidrs").unwrap_or(&NULL), IMMUTABLE));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(|_, _, _| {}) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let cidrs: Vec<&str> = opt(o, "spec").map_or_else(Vec::new, |v| strings(v, "cidrs").collect());
        Some(vec![name(o), json!(cidrs.join(",")), age(o, now)])
    }
}
