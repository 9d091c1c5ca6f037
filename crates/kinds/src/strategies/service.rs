//! Services: defaults that depend on the type, validation, what may change. Addresses and ports are claimed by the API server,
//! after this.

mod update;

use machinery::field::{Error, ErrorList, Path};
use machinery::{names, names_net};
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::strategy::{Context, Strategy};
use crate::validate::go;
use crate::validate::rules::{
    Seen, dns_label, dns_subdomain, labels, legacy_cidr, legacy_ip, named, one_of, port, port_or_name, qualified,
};
use crate::validate::tree::{has, int, int0, is_empty, list, list_mut, opt, opt_s, remove, s, set, set_default, strings};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub struct Services;

impl Strategy for Services {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
        set_default(v, "sessionAffinity", "None");
        match s(v, "sessionAffinity") {
            "None" => remove(v, "sessionAffinityConfig"),
            "ClientIP" => {
                let given = opt(v, "sessionAffinityConfig").and_then(|c| opt(c, "clientIP")).and_then(|c| int(c, "timeoutSeconds"));
                if given.is_none() {
                    set(v, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
                }
            }
            _ => {}
        }
        set_default(v, "type", "ClusterIP");
        for p in list_mut(v, "ports") {
            set_default(p, "protocol", "TCP");
            let unset = match p.get("targetPort") {
                None | Some(Value::Null) => true,
                Some(target) => target.as_i64() == Some(0) || target.as_str() == Some(""),
            };
            if unset {
                let own = int0(p, "port");
                set(p, "targetPort", own);
            }
        }
        let ty = s(v, "type").to_owned();
        if matches!(ty.as_str(), "NodePort" | "LoadBalancer") || (ty == "ClusterIP" && !is_empty(v, "externalIPs")) {
            set_default(v, "externalTrafficPolicy", "Cluster");
        }
        if matches!(ty.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") && !has(v, "internalTrafficPolicy") {
            set(v, "internalTrafficPolicy", "Cluster");
        }
        if ty == "LoadBalancer" && !has(v, "allocateLoadBalancerNodePorts") {
            set(v, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::service(new)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
        update::normalise(object, None);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        update::drop_of_type(new, old);
        update::keep_allocated(new, old);
        update::normalise(new, Some(old));
    }

    /// Addresses are looked at first, where they are chosen.
    fn validate_first(&self, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let (v, p) = (opt(object, "spec").unwrap_or(&Value::Null), Path::new("spec"));
        families(v, &p, &mut e);
        // A number serves a protocol once.
        let (at, all) = (p.child("ports"), list(v, "ports"));
        let mut seen = Seen::default();
        let numbered = all.iter().enumerate().filter(|(_, one)| int0(one, "nodePort") != 0);
        let mut taken = numbered.filter(|&(_, one)| seen.again((int0(one, "nodePort"), s(one, "protocol"))));
        let twice = taken.next().filter(|_| e.is_empty() && matches!(s(v, "type"), "NodePort" | "LoadBalancer"));
        if let Some((i, one)) = twice {
            let port = &one["nodePort"];
            e.push(Error::invalid(&at.index(i).child("nodePort"), port, "provided port is already allocated"));
        }
        e
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        whole(object, None, &mut e);
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let (empty, p) = (json!({}), Path::new("spec"));
        let (n, o) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
        update::primary(n, o, &p, &mut e);
        update::families(n, o, &p, &mut e);
        if s(n, "type") == "LoadBalancer" && s(o, "type") == "LoadBalancer" && opt(n, "loadBalancerClass") != opt(o, "loadBalancerClass") {
            let class = opt(n, "loadBalancerClass").unwrap_or(&Value::Null);
            e.push(Error::invalid(&p.child("loadBalancerClass"), class, "may not change once set"));
        }
        balancer_class(n, &p, &mut e);
        if needs_health_check(n) && needs_health_check(o) && int0(n, "healthCheckNodePort") != int0(o, "healthCheckNodePort") {
            e.push(Error::forbidden(&p.child("healthCheckNodePort"), "field is immutable"));
        }
        whole(new, Some(old), &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::service::service(object, now))
    }
}

/// `validateService`; what stood in the old one is not judged by stricter rules.
fn whole(object: &Value, old: Option<&Value>, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("spec"));
    let v = opt(object, "spec").unwrap_or(&empty);
    let before = old.and_then(|old| opt(old, "spec")).unwrap_or(&empty);
    topology_annotations(object, e);
    if is_empty(v, "ports") && !headless(v) && s(v, "type") != "ExternalName" {
        e.push(Error::required(&p.child("ports"), ""));
    }
    by_type(v, &p, e);
    ports(v, &p, e);
    if has(v, "selector") {
        labels(v, "selector", &p, e);
    }
    affinity(v, &p, e);
    families(v, &p, e);
    let (at, kept) = (p.child("externalIPs"), strings(before, "externalIPs").collect::<Vec<_>>());
    for (i, ip) in strings(v, "externalIPs").enumerate() {
        let problems = e.len();
        legacy_ip(&at.index(i), ip, &kept, e);
        if e.len() == problems {
            non_special(ip, &at.index(i), e);
        }
    }
    match s(v, "type") {
        "" => e.push(Error::required(&p.child("type"), "")),
        ty => one_of(&p.child("type"), ty, &TYPES, e),
    }
    ports_together(v, &p, e);
    source_ranges(object, old, e);
    load_balancer(v, &p, e);
    policies(v, &p, e);
}

/// The annotation has an old name, and both may not say different things.
fn topology_annotations(object: &Value, e: &mut ErrorList) {
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let of = |key: &str| annotation(object, key);
    if let (Some(mode), Some(hints)) = (of(MODE), of(HINTS))
        && mode != hints
    {
        let meta = Path::new("metadata");
        let text = format!("must match annotations[{HINTS}] when both are specified");
        e.push(Error::invalid_str(&meta.child("annotations").key(MODE), mode, text));
    }
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    crate::validate::tree::at(object, "metadata.annotations").and_then(|a| opt_s(a, key))
}

fn needs_health_check(v: &Value) -> bool {
    s(v, "type") == "LoadBalancer" && s(v, "externalTrafficPolicy") == "Local"
}

fn headless(v: &Value) -> bool {
    s(v, "clusterIP") == "None" || strings(v, "clusterIPs").next() == Some("None")
}

fn by_type(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match s(v, "type") {
        "LoadBalancer" => no_headless("LoadBalancer", v, p, e),
        "NodePort" => no_headless("NodePort", v, p, e),
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if has(v, key) && (key == "ipFamilyPolicy" || !is_empty(v, key)) {
                    e.push(Error::forbidden(&p.child(key), "may not be set for ExternalName services"));
                }
            }
            let name = s(v, "externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                e.push(Error::required(&p.child("externalName"), ""));
            } else {
                dns_subdomain(&p.child("externalName"), name, e);
            }
        }
        _ => {}
    }
}

fn no_headless(ty: &str, v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if headless(v) {
        let at = p.child("clusterIPs");
        e.push(Error::invalid_str(&at.index(0), "None", format!("may not be set to 'None' for {ty} services")));
    }
}

fn ports(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (at, all) = (p.child("ports"), list(v, "ports"));
    let mut seen = Seen::default();
    for (i, one) in all.iter().enumerate() {
        service_port(one, all.len() > 1, &mut seen, &at.index(i), e);
    }
}

/// What ports may not be beside each other, and for the type.
fn ports_together(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (at, all) = (p.child("ports"), list(v, "ports"));
    for (i, one) in all.iter().enumerate() {
        if s(v, "type") == "ClusterIP" && int0(one, "nodePort") != 0 {
            e.push(Error::forbidden(&at.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let mut seen = Seen::default();
    for (i, one) in all.iter().enumerate().filter(|(_, one)| int0(one, "nodePort") != 0) {
        if seen.again((int0(one, "nodePort"), s(one, "protocol"))) {
            e.push(Error::duplicate(&at.index(i).child("nodePort"), &one["nodePort"]));
        }
    }
    let mut seen = Seen::default();
    for (i, one) in all.iter().enumerate() {
        if seen.again((int0(one, "port"), s(one, "protocol"))) {
            let plain = json!({"protocol": s(one, "protocol"), "port": int0(one, "port"), "targetPort": 0});
            e.push(Error {
                kind: machinery::field::ErrorType::Duplicate,
                field: at.index(i).to_string(),
                value: go::text(&plain, "core.v1.ServicePort"),
                detail: String::new(),
            });
        }
    }
}

fn service_port<'a>(v: &'a Value, must_name: bool, seen: &mut Seen<&'a str>, p: &Path<'_>, e: &mut ErrorList) {
    let name = s(v, "name");
    if must_name && name.is_empty() {
        e.push(Error::required(&p.child("name"), ""));
    } else if !name.is_empty() {
        dns_label(&p.child("name"), name, e);
        if seen.again(name) {
            e.push(Error::duplicate(&p.child("name"), &json!(name)));
        }
    }
    port(&p.child("port"), int0(v, "port"), e);
    match s(v, "protocol") {
        "" => e.push(Error::required(&p.child("protocol"), "")),
        protocol => one_of(&p.child("protocol"), protocol, &["SCTP", "TCP", "UDP"], e),
    }
    port_or_name(opt(v, "targetPort"), &p.child("targetPort"), e);
    if let Some(protocol) = opt_s(v, "appProtocol") {
        qualified(&p.child("appProtocol"), protocol, e);
    }
}

fn affinity(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match s(v, "sessionAffinity") {
        "" => e.push(Error::required(&p.child("sessionAffinity"), "")),
        affinity => one_of(&p.child("sessionAffinity"), affinity, &["ClientIP", "None"], e),
    }
    let at = p.child("sessionAffinityConfig");
    match (s(v, "sessionAffinity"), opt(v, "sessionAffinityConfig")) {
        ("ClientIP", config) => {
            let seconds = config.and_then(|c| opt(c, "clientIP")).and_then(|c| int(c, "timeoutSeconds"));
            match seconds {
                None => e.push(Error::required(&at, "when session affinity type is ClientIP")),
                Some(n) if !(1..=86_400).contains(&n) => {
                    let at = at.child("clientIP");
                    e.push(Error::invalid(&at.child("timeoutSeconds"), &json!(n), "must be greater than 0 and less than 86400"));
                }
                Some(_) => {}
            }
        }
        ("None", Some(_)) => e.push(Error::forbidden(&at, "must not be set when session affinity is None")),
        _ => {}
    }
}

/// No unspecified, loopback, link-local or multicast address.
pub fn non_special(ip: &str, p: &Path<'_>, e: &mut ErrorList) {
    use std::net::IpAddr;
    let Some(parsed) = names_net::parse_ip_sloppy(ip) else {
        e.push(Error::invalid_str(p, ip, "must be a valid IP address"));
        return;
    };
    let (link_local, multicast_local) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if parsed.is_unspecified() {
        e.push(Error::invalid_str(p, ip, format!("may not be unspecified ({ip})")));
    }
    if parsed.is_loopback() {
        e.push(Error::invalid_str(p, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        e.push(Error::invalid_str(p, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if multicast_local {
        e.push(Error::invalid_str(p, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
}

const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

/// Who may come in: a field, or where that is empty, an annotation from before it.
fn source_ranges(object: &Value, old: Option<&Value>, e: &mut ErrorList) {
    const KEY: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let (empty, p, meta) = (json!({}), Path::new("spec"), Path::new("metadata"));
    let v = opt(object, "spec").unwrap_or(&empty);
    let balanced = s(v, "type") == "LoadBalancer";
    if !is_empty(v, "loadBalancerSourceRanges") {
        let at = p.child("LoadBalancerSourceRanges");
        if !balanced {
            e.push(Error::forbidden(&at, ONLY_BALANCED));
        }
        let before = old.and_then(|old| opt(old, "spec")).unwrap_or(&empty);
        let kept: Vec<&str> = strings(before, "loadBalancerSourceRanges").map(str::trim).collect();
        for (i, range) in strings(v, "loadBalancerSourceRanges").enumerate() {
            legacy_cidr(&at.index(i), range.trim(), &kept, e);
        }
    } else if let Some(ranges) = annotation(object, KEY) {
        let annotations = meta.child("annotations");
        let at = annotations.key(KEY);
        if !balanced {
            e.push(Error::forbidden(&at, ONLY_BALANCED));
        }
        if old.and_then(|old| annotation(old, KEY)) != Some(ranges) && !ranges.trim().is_empty() {
            ranges.trim().split(',').for_each(|range| legacy_cidr(&at, range.trim(), &[], e));
        }
    }
}

fn load_balancer(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let balanced = s(v, "type") == "LoadBalancer";
    let only = ONLY_BALANCED;
    if has(v, "allocateLoadBalancerNodePorts") && !balanced {
        e.push(Error::forbidden(&p.child("allocateLoadBalancerNodePorts"), only));
    }
    if balanced && !has(v, "allocateLoadBalancerNodePorts") {
        e.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
    }
    balancer_class(v, p, e);
}

fn balancer_class(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(class) = opt_s(v, "loadBalancerClass") else { return };
    if s(v, "type") == "LoadBalancer" {
        qualified(&p.child("loadBalancerClass"), class, e);
    } else {
        e.push(Error::forbidden(&p.child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'"));
    }
}

fn policies(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let external = s(v, "externalTrafficPolicy");
    let reachable = matches!(s(v, "type"), "NodePort" | "LoadBalancer") || (s(v, "type") == "ClusterIP" && !is_empty(v, "externalIPs"));
    let at = p.child("externalTrafficPolicy");
    if external.is_empty() {
        if reachable {
            e.push(Error::required(&at, ""));
        }
    } else if !reachable {
        e.push(Error::invalid_str(&at, external, "may only be set for externally-accessible services"));
    } else {
        one_of(&at, external, &["Cluster", "Local"], e);
    }
    let check = int0(v, "healthCheckNodePort");
    if check != 0 && !needs_health_check(v) {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        e.push(Error::invalid(&p.child("healthCheckNodePort"), &json!(check), text));
    } else if check != 0 {
        port(&p.child("healthCheckNodePort"), check, e);
    }
    match opt_s(v, "internalTrafficPolicy") {
        None => {
            if matches!(s(v, "type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
                e.push(Error::required(&p.child("internalTrafficPolicy"), ""));
            }
        }
        Some(policy) => one_of(&p.child("internalTrafficPolicy"), policy, &["Cluster", "Local"], e),
    }
    if let Some(distribution) = opt_s(v, "trafficDistribution") {
        one_of(&p.child("trafficDistribution"), distribution, &["PreferClose", "PreferSameZone", "PreferSameNode"], e);
    }
}

/// `ValidateServiceClusterIPsRelatedFields`.
fn families(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let ips: Vec<&str> = strings(v, "clusterIPs").collect();
    let families: Vec<&str> = strings(v, "ipFamilies").collect();
    // Those have none, and are told so elsewhere.
    if s(v, "type") == "ExternalName" {
        return;
    }
    let at = p.child("clusterIPs");
    let single = s(v, "clusterIP");
    if single.is_empty() {
        if !ips.is_empty() {
            e.push(Error::invalid(&at, &json!(ips), "must be empty when `clusterIP` is not specified"));
        }
    } else if ips.is_empty() {
        e.push(Error::required(&at, ""));
    } else if ips[0] != single {
        e.push(Error::invalid(&at, &json!(ips), "first value must match `clusterIP`"));
    }
    let at = p.child("ipFamilies");
    let mut seen = Seen::default();
    for (i, family) in families.iter().enumerate() {
        one_of(&at.index(i), family, &FAMILIES, e);
        if seen.again(*family) {
            e.push(Error::duplicate(&at.index(i), &json!(family)));
        }
    }
    if let Some(policy) = opt_s(v, "ipFamilyPolicy") {
        one_of(&p.child("ipFamilyPolicy"), policy, &POLICIES, e);
    }
    cluster_ips(&ips, &families, p, e);
}

fn cluster_ips(ips: &[&str], families: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("clusterIPs");
    let before = e.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                e.push(Error::invalid(&at, &json!(ips), "'None' must be the first and only value"));
            }
        } else {
            legacy_ip(&at.index(i), ip, &[], e);
        }
    }
    let unreadable = e.len() != before;
    if ips.len() > 2 {
        e.push(Error::invalid(&at, &json!(ips), "may only hold up to 2 values"));
    }
    if unreadable {
        return;
    }
    if ips.len() > 1 && (ips.iter().all(|ip| names_net::is_v6_text(ip)) || !ips.iter().any(|ip| names_net::is_v6_text(ip))) {
        e.push(Error::invalid(&at, &json!(ips), "may specify no more than one IP for each IP family"));
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate().filter(|(_, (ip, family))| **ip != "None" && FAMILIES.contains(family)) {
        if names_net::is_v6_text(ip) != (*family == "IPv6") {
            e.push(Error::invalid_str(&at.index(i), ip, format!("expected an {family} value as indicated by `ipFamilies[{i}]`")));
        }
    }
}

fn status(new: &Value, old: &Value, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("status"));
    let (spec, status) = (opt(new, "spec").unwrap_or(&empty), opt(new, "status").unwrap_or(&empty));
    let at = p.child("loadBalancer");
    let ingress_at = at.child("ingress");
    let ingress = opt(status, "loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
    if s(spec, "type") != "LoadBalancer" && !ingress.is_empty() {
        e.push(Error::forbidden(&ingress_at, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    let before = crate::validate::tree::at(old, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
    let kept: Vec<&str> = before.iter().map(|one| s(one, "ip")).collect();
    for (i, one) in ingress.iter().enumerate() {
        let at = ingress_at.index(i);
        if !s(one, "ip").is_empty() {
            legacy_ip(&at.child("ip"), s(one, "ip"), &kept, e);
            if opt_s(one, "ipMode").is_none() {
                e.push(Error::required(&at.child("ipMode"), "must be specified when `ip` is set"));
            }
        } else if has(one, "ipMode") {
            e.push(Error::forbidden(&at.child("ipMode"), "may not be specified when `ip` is not set"));
        }
        if let Some(mode) = opt_s(one, "ipMode").filter(|_| !s(one, "ip").is_empty()) {
            one_of(&at.child("ipMode"), mode, &["Proxy", "VIP"], e);
        }
        if !s(one, "hostname").is_empty() {
            named(&at.child("hostname"), s(one, "hostname"), names::dns1123_subdomain(s(one, "hostname")), e);
            if names_net::parse_ip_sloppy(s(one, "hostname")).is_some() {
                let text = "must be a DNS name, not an IP address";
                e.push(Error::invalid_str(&at.child("hostname"), s(one, "hostname"), text));
            }
        }
    }
}
