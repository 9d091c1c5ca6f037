//! Ingresses and IngressClasses.

use machinery::field::{Error, ErrorList, Path};
use machinery::{names, names_net};
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status, reset_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::conditions::segment;
use crate::validate::rules::{dns_subdomain, immutable, legacy_ip, named, port};
use crate::validate::tree::{at, has, int0, list, opt, opt_s, s, set, strings};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX_BYTES: usize = 250;

pub struct Ingresses;

impl Strategy for Ingresses {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "networking.v1.IngressStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = spec(object);
        let annotation = at(object, "metadata.annotations").and_then(|a| opt_s(a, CLASS_ANNOTATION));
        let class = opt(object, "spec").and_then(|v| opt_s(v, "ingressClassName"));
        if let (Some(annotation), Some(class)) = (annotation, class)
            && annotation != class
        {
            let text = "must match `ingressClassName` when both are specified";
            e.push(Error::invalid_str(&Path::new("annotations").child(CLASS_ANNOTATION), annotation, text));
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, _old: &Value) -> ErrorList {
        spec(new)
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated = |o: &Value| at(o, "metadata.annotations").is_some_and(|a| has(a, CLASS_ANNOTATION));
        let mut out = Vec::new();
        if annotated(new) && old.is_none_or(|old| !annotated(old)) {
            out.push(format!(
                "annotation {} is deprecated, please use 'spec.ingressClassName' instead",
                machinery::field::go_quote(CLASS_ANNOTATION)
            ));
        }
        out
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let class = at(o, "spec.ingressClassName").cloned().unwrap_or_else(|| json!("<none>"));
        let rules = at(o, "spec").map_or(&[][..], |v| list(v, "rules"));
        let hosts: Vec<&str> = rules.iter().take(3).map(|r| s(r, "host")).filter(|h| !h.is_empty()).collect();
        let mut hosts = if hosts.is_empty() { "*".to_owned() } else { hosts.join(",") };
        if rules.len() > 3 {
            hosts = format!("{hosts} + {} more...", rules.len() - 3);
        }
        let tls = at(o, "spec.tls").and_then(Value::as_array).is_some_and(|t| !t.is_empty());
        let ports = if tls { "80, 443" } else { "80" };
        let points = at(o, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
        let mut addresses: Vec<&str> = points.iter().map(|i| if s(i, "ip").is_empty() { s(i, "hostname") } else { s(i, "ip") }).collect();
        addresses.retain(|a| !a.is_empty());
        addresses.sort_unstable();
        addresses.dedup();
        Some(vec![name(o), class, json!(hosts), json!(addresses.join(",")), json!(ports), age(o, now)])
    }
}

fn spec(object: &Value) -> ErrorList {
    let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
    let v = opt(object, "spec").unwrap_or(&empty);
    let rules = list(v, "rules");
    if rules.is_empty() && !has(v, "defaultBackend") {
        e.push(Error::invalid(&p, &Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(b) = opt(v, "defaultBackend") {
        backend(b, &p.child("defaultBackend"), &mut e);
    }
    let at_rules = p.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        let p = at_rules.index(i);
        host(s(rule, "host"), &p.child("host"), &mut e);
        if let Some(http) = opt(rule, "http") {
            paths(http, &p.child("http"), &mut e);
        }
    }
    let at_tls = p.child("tls");
    for (i, tls) in list(v, "tls").iter().enumerate() {
        let p = at_tls.index(i);
        let at_hosts = p.child("hosts");
        for (j, h) in strings(tls, "hosts").enumerate() {
            dns_host(h, &at_hosts.index(j), &mut e);
        }
        if !s(tls, "secretName").is_empty() {
            dns_subdomain(&p.child("secretName"), s(tls, "secretName"), &mut e);
        }
    }
    if let Some(class) = opt_s(v, "ingressClassName") {
        dns_subdomain(&p.child("ingressClassName"), class, &mut e);
    }
    e
}

fn host(h: &str, p: &Path<'_>, e: &mut ErrorList) {
    if h.is_empty() {
        return;
    }
    if names_net::parse_ip_sloppy(h).is_some() {
        e.push(Error::invalid_str(p, h, "must be a DNS name, not an IP address"));
    }
    dns_host(h, p, e);
}

fn dns_host(h: &str, p: &Path<'_>, e: &mut ErrorList) {
    let problems = if h.contains('*') { names::wildcard_dns1123_subdomain(h) } else { names::dns1123_subdomain(h) };
    named(p, h, problems, e);
}

fn paths(http: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("paths");
    let all = list(http, "paths");
    if all.is_empty() {
        e.push(Error::required(&at, ""));
    }
    for (i, v) in all.iter().enumerate() {
        http_path(v, &at.index(i), e);
    }
}

fn http_path(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (path, at_path) = (s(v, "path"), p.child("path"));
    let Some(ty) = opt_s(v, "pathType") else {
        e.push(Error::required(&p.child("pathType"), "pathType must be specified"));
        return;
    };
    let relative = !path.starts_with('/');
    match ty {
        "Exact" | "Prefix" => {
            if relative {
                e.push(Error::invalid_str(&at_path, path, "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.contains(part) {
                    e.push(Error::invalid_str(&at_path, path, format!("must not contain '{part}'")));
                }
            }
            for end in ["/..", "/."] {
                if path.ends_with(end) {
                    e.push(Error::invalid_str(&at_path, path, format!("cannot end with '{end}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if relative && !path.is_empty() {
                e.push(Error::invalid_str(&at_path, path, "must be an absolute path"));
            }
        }
        _ => e.push(Error::not_supported(&p.child("pathType"), &json!(ty), &["Exact", "ImplementationSpecific", "Prefix"])),
    }
    let empty = json!({});
    backend(opt(v, "backend").unwrap_or(&empty), &p.child("backend"), e);
}

fn backend(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match (opt(v, "resource"), opt(v, "service")) {
        (Some(_), Some(_)) => e.push(Error::invalid_str(p, "", "cannot set both resource and service backends")),
        (Some(resource), None) => {
            let p = p.child("resource");
            if let Some(group) = opt_s(resource, "apiGroup") {
                dns_subdomain(&p.child("apiGroup"), group, e);
            }
            segment(resource, "kind", &p, "kind is required", e);
            segment(resource, "name", &p, "name is required", e);
        }
        (None, Some(service)) => {
            let (at, empty) = (p.child("service"), json!({}));
            match s(service, "name") {
                "" => e.push(Error::required(&at.child("name"), "")),
                n => named(&at.child("name"), n, names::dns1123_label(n), e),
            }
            let at_port = at.child("port");
            let given = opt(service, "port").unwrap_or(&empty);
            match (s(given, "name"), int0(given, "number")) {
                ("", 0) => e.push(Error::required(p, "port name or number is required")),
                ("", n) => port(&at_port.child("number"), n, e),
                (n, 0) => named(&at_port.child("name"), n, names::port_name(n), e),
                _ => e.push(Error::invalid_str(p, "", "cannot set both port name & port number")),
            }
        }
        (None, None) => e.push(Error::invalid_str(p, "", "resource or service backend is required")),
    }
}

fn status(new: &Value, old: &Value, e: &mut ErrorList) {
    let balancer = Path::new("status.loadBalancer");
    let points = balancer.child("ingress");
    let before = at(old, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
    let kept: Vec<&str> = before.iter().map(|one| s(one, "ip")).collect();
    for (i, v) in at(new, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress")).iter().enumerate() {
        let p = points.index(i);
        if !s(v, "ip").is_empty() {
            legacy_ip(&p.child("ip"), s(v, "ip"), &kept, e);
        }
        let h = s(v, "hostname");
        if !h.is_empty() {
            dns_subdomain(&p.child("hostname"), h, e);
            if names_net::parse_ip_sloppy(h).is_some() {
                e.push(Error::invalid_str(&p.child("hostname"), h, "must be a DNS name, not an IP address"));
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

    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        let (controller, at) = (s(v, "controller"), p.child("controller"));
        if controller.len() > CONTROLLER_MAX_BYTES {
            e.push(Error::too_long(&at, CONTROLLER_MAX_BYTES));
        }
        domain_prefixed_path(controller, &at, &mut e);
        if let Some(parameters) = opt(v, "parameters") {
            class_parameters(parameters, &p.child("parameters"), &mut e);
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let (mut e, empty) = (ErrorList::new(), json!({}));
        let (n, o) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
        if s(n, "controller") != s(o, "controller") {
            immutable(&json!({"controller": s(n, "controller")}), o, "controller", &Path::new("spec"), &mut e);
        }
        e.extend(self.validate(ctx, new));
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let default = at(o, "metadata.annotations").is_some_and(|a| s(a, "ingressclass.kubernetes.io/is-default-class") == "true");
        let name = name(o).as_str().unwrap_or("").to_owned();
        let shown = if default { format!("{name} (default)") } else { name };
        let parameters = at(o, "spec.parameters").map_or_else(
            || "<none>".to_owned(),
            |r| match s(r, "apiGroup") {
                "" => format!("{}/{}", s(r, "kind"), s(r, "name")),
                group => format!("{}.{group}/{}", s(r, "kind"), s(r, "name")),
            },
        );
        let controller = at(o, "spec.controller").cloned().unwrap_or_else(|| json!(""));
        Some(vec![json!(shown), controller, json!(parameters), age(o, now)])
    }
}

/// `IsDomainPrefixedPath`: the errors show the part that is wrong.
fn domain_prefixed_path(value: &str, p: &Path<'_>, e: &mut ErrorList) {
    if value.is_empty() {
        e.push(Error::required(p, ""));
        return;
    }
    let Some((host, path)) = value.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty()) else {
        e.push(Error::invalid_str(p, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    named(p, host, names::dns1123_subdomain(host), e);
    named(p, path, names::domain_prefixed_path(&format!("a/{path}")), e);
}

fn class_parameters(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(group) = opt_s(v, "apiGroup") {
        dns_subdomain(&p.child("apiGroup"), group, e);
    }
    segment(v, "kind", p, "", e);
    segment(v, "name", p, "", e);
    let namespace = opt_s(v, "namespace");
    match opt_s(v, "scope") {
        None => e.push(Error::required(&p.child("scope"), "")),
        Some("Cluster") if namespace.is_some() => {
            e.push(Error::forbidden(&p.child("namespace"), "`parameters.scope` is set to 'Cluster'"));
        }
        Some("Cluster") => {}
        Some("Namespace") => match namespace.unwrap_or("") {
            "" => e.push(Error::required(&p.child("namespace"), "`parameters.scope` is set to 'Namespace'")),
            ns => named(&p.child("namespace"), ns, names::dns1123_label(ns), e),
        },
        Some(scope) => e.push(Error::not_supported(&p.child("scope"), &json!(scope), &["Cluster", "Namespace"])),
    }
}
