//! The objects themselves, in the order in which they need each other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use machinery::object::{metadata_mut, str_at};
use serde_json::{Value, json};

use crate::net::Cidr;
use crate::state::Api;

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// Those that are the same as long as the server runs.
pub fn fixed(api: &Api) -> Vec<Value> {
    let mut objects: Vec<Value> =
        NAMESPACES.iter().map(|n| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}})).collect();
    objects.extend(auth::bootstrap::objects());
    for (name, value, text) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
    ] {
        objects.push(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "description": text}));
    }
    objects.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": api.config.service_cluster_ip_ranges}}));
    objects
}

/// Those that hang on who serves and with what certificates.
pub fn changing(api: &Api) -> Vec<Value> {
    let mut objects = own_service(api);
    objects.push(authentication(api));
    objects.push(tracking());
    objects
}

/// What the aggregation controller would apply to the sums among the bootstrap roles: done here at once, so that `edit` and its
/// like are there before any controller runs.
pub fn sums() -> Vec<Value> {
    let objects = auth::bootstrap::objects();
    let policy = auth::rbac::Policy::new(&objects);
    let sums = objects.iter().filter(|o| o.get("aggregationRule").is_some()).filter_map(|o| {
        let name = str_at(o, "metadata.name");
        let role = auth::rbac::RoleRef { kind: "ClusterRole".into(), name: name.to_owned(), ..auth::rbac::RoleRef::default() };
        let rules = policy.rules(&role, "")?;
        Some(json!({"apiVersion": o["apiVersion"], "kind": o["kind"], "metadata": {"name": name}, "rules": **rules}))
    });
    sums.collect()
}

/// `default/kubernetes`, and where it leads.
pub fn own_service(api: &Api) -> Vec<Value> {
    let Some(range) = api.config.service_cluster_ip_ranges.first().and_then(|r| Cidr::parse(r).ok()) else { return Vec::new() };
    let Some(ip) = range.nth(1) else { return Vec::new() };
    let (address, port) = (api.config.advertised(), api.port);
    let family = |ip: &IpAddr| if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let mut servers: BTreeSet<IpAddr> = (**api.masters.load()).clone();
    servers.retain(|s| s.is_ipv6() == address.is_ipv6() && !s.is_loopback());
    servers.insert(address);
    let addresses: Vec<Value> = servers.iter().map(|s| json!({"ip": s.to_string()})).collect();
    let endpoints: Vec<Value> = servers.iter().map(|s| json!({"addresses": [s.to_string()], "conditions": {"ready": true}})).collect();
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": ip.to_string(), "clusterIPs": [ip.to_string()], "ipFamilies": [family(&ip)], "ipFamilyPolicy": "SingleStack",
                "type": "ClusterIP", "sessionAffinity": "None", "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]}}),
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": family(&address), "endpoints": endpoints,
            "ports": [{"name": "https", "protocol": "TCP", "port": port}]}),
    ];
    if address.is_loopback() {
        // Nobody else could reach it, and endpoints must not be loopback addresses.
        objects.truncate(1);
    }
    objects
}

/// How extension API servers are to judge clients.
fn authentication(api: &Api) -> Value {
    let header = &api.config.authentication.request_header;
    let list = |texts: &[String]| json!(texts).to_string();
    let (clients, proxies) = api.authn.bundles();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
    "data": {
        "client-ca-file": clients,
        "requestheader-client-ca-file": proxies,
        "requestheader-allowed-names": list(&header.allowed_names),
        "requestheader-extra-headers-prefix": list(&header.extra_headers_prefix),
        "requestheader-group-headers": list(&header.group_headers),
        "requestheader-uid-headers": list(&header.uid_headers),
        "requestheader-username-headers": list(&header.username_headers),
    }})
}

/// Since when the use of tokens in Secrets is noted on them: an unused one can be told from then on.
fn tracking() -> Value {
    let today: String = crate::identifiers::now().chars().take(10).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}, "data": {"since": today}})
}

/// What an existing object should become; `None`: it is good.
pub fn repaired(wanted: &Value, current: &Value) -> Option<Value> {
    let fields: &[&str] = match str_at(wanted, "kind") {
        "Endpoints" => &["subsets"],
        "EndpointSlice" => &["endpoints", "ports"],
        // The day of the first start stays.
        "ConfigMap" if str_at(wanted, "metadata.name").ends_with("-tracking") => return None,
        "ConfigMap" => &["data"],
        "ClusterRole" | "Role" => return with_missing(wanted, current, "rules", covers_rule),
        "ClusterRoleBinding" | "RoleBinding" => return with_missing(wanted, current, "subjects", |have, want| have.contains(want)),
        "Service" => return port_moved(wanted, current),
        _ => return None,
    };
    if fields.iter().all(|f| covers(current.get(f), wanted.get(f))) {
        return None;
    }
    let mut object = current.clone();
    for field in fields {
        object[field] = wanted[field].clone();
    }
    metadata_mut(&mut object).remove("managedFields");
    Some(object)
}

/// Upstream's reconciliation of the bootstrap policy: what is missing is added, what was added stays, and who wants none of it
/// says so by the annotation.
fn with_missing(wanted: &Value, current: &Value, field: &str, has: fn(&[Value], &Value) -> bool) -> Option<Value> {
    let update = current.pointer("/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate");
    if update.is_none_or(|u| u != "true") || wanted.get("aggregationRule").is_some() {
        return None;
    }
    let list = |o: &Value| o.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = list(current);
    let missing: Vec<Value> = list(wanted).into_iter().filter(|one| !has(&all, one)).collect();
    if missing.is_empty() || (field == "subjects" && current.get("roleRef") != wanted.get("roleRef")) {
        return None;
    }
    all.extend(missing);
    let mut object = current.clone();
    object[field] = Value::Array(all);
    metadata_mut(&mut object).remove("managedFields");
    Some(object)
}

fn covers_rule(have: &[Value], want: &Value) -> bool {
    let parse = |rules: &[Value]| auth::rbac::rules_of(&json!({"rules": rules}));
    auth::rbac::escalation::missing(&parse(have), &parse(std::slice::from_ref(want))).is_empty()
}

fn port_moved(wanted: &Value, current: &Value) -> Option<Value> {
    let path = "/spec/ports/0/targetPort";
    if current.pointer(path) == wanted.pointer(path) {
        return None;
    }
    let mut object = current.clone();
    *object.pointer_mut(path)? = wanted.pointer(path)?.clone();
    metadata_mut(&mut object).remove("managedFields");
    Some(object)
}

/// Whether `have` says all that `want` says.
fn covers(have: Option<&Value>, want: Option<&Value>) -> bool {
    match (have, want) {
        (_, None) => true,
        (Some(Value::Object(h)), Some(Value::Object(w))) => w.iter().all(|(k, v)| covers(h.get(k), Some(v))),
        (Some(Value::Array(h)), Some(Value::Array(w))) => h.len() == w.len() && h.iter().zip(w).all(|(h, w)| covers(Some(h), Some(w))),
        (have, want) => have == want,
    }
}
