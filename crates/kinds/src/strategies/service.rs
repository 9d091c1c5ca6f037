//! Services: defaults that depend on the type, validation, what may change. Addresses and ports are claimed by the API server,
//! after this.

mod update;

use machinery::field::{Error, ErrorList, Path};
use machinery::{names, names_net};
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::strategy::{Context, Strategy};
use crate::validate::go;
use crate::validate::rules::{dns_label, dns_subdomain, labels, named, one_of, port, port_or_name, qualified};
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
        let taken = |(i, one): &(usize, &Value)| {
            let same = |o: &Value| int0(o, "nodePort") == int0(one, "nodePort") && s(o, "protocol") == s(one, "protocol");
            int0(one, "nodePort") != 0 && all[..*i].iter().any(same)
        };
        let twice = all.iter().enumerate().find(taken).filter(|_| e.is_empty() && matches!(s(v, "type"), "NodePort" | "LoadBalancer"));
        if let Some((i, one)) = twice {
            let port = &one["nodePort"];
            e.push(Error::invalid(&at.index(i).child("nodePort"), port, "provided port is already allocated"));
        }
        e
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        if is_empty(v, "ports") && !headless(v) && s(v, "type") != "ExternalName" {
            e.push(Error::required(&p.child("ports"), ""));
        }
        by_type(v, &p, &mut e);
        ports(v, &p, &mut e);
        if !s(v, "selector").is_empty() || has(v, "selector") {
            labels(v, "selector", &p, &mut e);
        }
        affinity(v, &p, &mut e);
        let at = p.child("externalIPs");
        for (i, ip) in strings(v, "externalIPs").enumerate() {
            let errors = names_net::ip_legacy(&at.index(i), ip, false);
            if errors.is_empty() {
                non_special(ip, &at.index(i), &mut e);
            }
            e.extend(errors);
        }
        match s(v, "type") {
            "" => e.push(Error::required(&p.child("type"), "")),
            ty => one_of(&p.child("type"), ty, &TYPES, &mut e),
        }
        load_balancer(v, &p, &mut e);
        policies(v, &p, &mut e);
        families(v, &p, &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let (empty, p) = (json!({}), Path::new("spec"));
        let (n, o) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
        update::primary(n, o, &p, &mut e);
        if s(n, "type") == "LoadBalancer" && s(o, "type") == "LoadBalancer" && opt(n, "loadBalancerClass") != opt(o, "loadBalancerClass") {
            let class = opt(n, "loadBalancerClass").unwrap_or(&Value::Null);
            e.push(Error::invalid(&p.child("loadBalancerClass"), class, "may not change once set"));
        }
        balancer_class(n, &p, &mut e);
        e.extend(self.validate(ctx, new));
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::service::service(object, now))
    }
}

fn headless(v: &Value) -> bool {
    s(v, "clusterIP") == "None" || strings(v, "clusterIPs").next() == Some("None")
}

fn by_type(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match s(v, "type") {
        "LoadBalancer" => {
            let at = p.child("ports");
            for (i, port) in list(v, "ports").iter().enumerate() {
                if !matches!(s(port, "protocol"), "TCP" | "UDP" | "SCTP" | "") {
                    e.push(Error::not_supported(&at.index(i).child("protocol"), &json!(s(port, "protocol")), &["SCTP", "TCP", "UDP"]));
                }
            }
            no_headless("LoadBalancer", v, p, e);
        }
        "NodePort" => no_headless("NodePort", v, p, e),
        "ExternalName" => {
            if !is_empty(v, "clusterIPs") {
                let ips: Vec<&str> = strings(v, "clusterIPs").collect();
                e.push(Error::invalid(&p.child("clusterIPs"), &json!(ips), "may not be set for ExternalName services"));
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
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        service_port(one, all.len() > 1, &mut seen, &at.index(i), e);
    }
    for (i, one) in all.iter().enumerate() {
        if s(v, "type") == "ClusterIP" && int0(one, "nodePort") != 0 {
            e.push(Error::forbidden(&at.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
        }
    }
    for (i, one) in all.iter().enumerate() {
        let same = |o: &&Value| int0(o, "port") == int0(one, "port") && s(o, "protocol") == s(one, "protocol");
        if all[..i].iter().any(|o| same(&o)) {
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

fn service_port<'a>(v: &'a Value, must_name: bool, seen: &mut Vec<&'a str>, p: &Path<'_>, e: &mut ErrorList) {
    let name = s(v, "name");
    if must_name && name.is_empty() {
        e.push(Error::required(&p.child("name"), ""));
    } else if !name.is_empty() {
        dns_label(&p.child("name"), name, e);
        if seen.contains(&name) {
            e.push(Error::duplicate(&p.child("name"), &json!(name)));
        }
        seen.push(name);
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

fn load_balancer(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let balanced = s(v, "type") == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    if !is_empty(v, "loadBalancerSourceRanges") {
        let at = p.child("LoadBalancerSourceRanges");
        if !balanced {
            e.push(Error::forbidden(&at, only));
        }
        for (i, range) in strings(v, "loadBalancerSourceRanges").enumerate() {
            e.extend(names_net::cidr_legacy(&at.index(i), range.trim(), false).into_iter().map(|mut error| {
                error.value = machinery::field::go_quote(range);
                error
            }));
        }
    }
    if has(v, "allocateLoadBalancerNodePorts") && !balanced {
        e.push(Error::forbidden(&p.child("allocateLoadBalancerNodePorts"), only));
    }
    if balanced && !has(v, "allocateLoadBalancerNodePorts") {
        e.push(Error::required(&p.child("allocateLoadBalancerNodePorts"), ""));
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
            e.push(Error::required(&at, "must be specified for externally-accessible services"));
        }
    } else if !reachable {
        e.push(Error::invalid_str(&at, external, "may only be set for externally-accessible services"));
    } else {
        one_of(&at, external, &["Cluster", "Local"], e);
    }
    let check = int0(v, "healthCheckNodePort");
    let needs_check = s(v, "type") == "LoadBalancer" && external == "Local";
    if check != 0 && !needs_check {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        e.push(Error::invalid(&p.child("healthCheckNodePort"), &json!(check), text));
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
    if s(v, "type") == "ExternalName" {
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if !is_empty(v, key) {
                e.push(Error::invalid(&p.child(key), &v[key], "may not be set for ExternalName services"));
            }
        }
        return;
    }
    let at = p.child("clusterIPs");
    let single = s(v, "clusterIP");
    if single.is_empty() {
        if !ips.is_empty() {
            e.push(Error::invalid(&at, &json!(ips), "must be empty when `clusterIP` is not specified"));
        }
    } else if ips.is_empty() || ips[0] != single {
        e.push(Error::invalid(&at, &json!(ips), "first value must match `clusterIP`"));
    }
    let at = p.child("ipFamilies");
    let mut seen: Vec<&str> = Vec::new();
    for (i, family) in families.iter().enumerate() {
        one_of(&at.index(i), family, &FAMILIES, e);
        if seen.contains(family) {
            e.push(Error::duplicate(&at.index(i), &json!(family)));
        }
        seen.push(family);
    }
    if let Some(policy) = opt_s(v, "ipFamilyPolicy") {
        one_of(&p.child("ipFamilyPolicy"), policy, &POLICIES, e);
    }
    let at = p.child("clusterIPs");
    if ips.first() == Some(&"None") && ips.len() > 1 {
        e.push(Error::invalid(&at, &json!(ips), "'None' must be the first and only value"));
    }
    for (i, ip) in ips.iter().enumerate() {
        if *ip == "None" {
            continue;
        }
        let errors = names_net::ip_legacy(&at.index(i), ip, false);
        let good = errors.is_empty();
        e.extend(errors);
        if good && let Some(family) = families.get(i).filter(|f| FAMILIES.contains(f)) {
            let v6 = names_net::is_v6_text(ip);
            if v6 != (*family == "IPv6") {
                let text = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                e.push(Error::invalid_str(&at.index(i), ip, text));
            }
        }
    }
    if ips.len() > 2 {
        e.push(Error::invalid(&at, &json!(ips), "may only hold up to 2 values"));
    }
    if ips.len() == 2 && names_net::parse_ip_sloppy(ips[0]).is_some() && names_net::parse_ip_sloppy(ips[1]).is_some() {
        let same = names_net::is_v6_text(ips[0]) == names_net::is_v6_text(ips[1]);
        if same {
            e.push(Error::invalid(&at, &json!(ips), "may specify no more than one IP for each IP family"));
        }
    }
}

fn status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("status"));
    let (spec, status) = (opt(new, "spec").unwrap_or(&empty), opt(new, "status").unwrap_or(&empty));
    let at = p.child("loadBalancer");
    let ingress_at = at.child("ingress");
    let ingress = opt(status, "loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
    if s(spec, "type") != "LoadBalancer" && !ingress.is_empty() {
        e.push(Error::forbidden(&ingress_at, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for (i, one) in ingress.iter().enumerate() {
        let at = ingress_at.index(i);
        if !s(one, "ip").is_empty() {
            e.extend(names_net::ip_legacy(&at.child("ip"), s(one, "ip"), false));
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
