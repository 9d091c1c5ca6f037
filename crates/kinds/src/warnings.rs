//! Texts of `Warning` headers that many kinds share. Called by strategies' `warnings`; nothing here refuses anything.

mod pod;

use machinery::field::{Path, go_quote};
use machinery::names::dns1123_label;
use machinery::names_net;
use serde_json::Value;

use crate::validate::rules::quantity;
use crate::validate::tree::{at, has, list, opt, s, strings};

pub use pod::pod;

/// Labels that have a successor.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    ("failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, text)| *text)
}

/// For kinds whose pods are called after them.
pub fn pod_names(object: &Value) -> Option<String> {
    name(object, "this is used in Pod names and hostnames")
}

/// For a pod itself.
pub fn host_name(object: &Value) -> Option<String> {
    name(object, "this is used in the Pod's hostname")
}

fn name(object: &Value, used: &str) -> Option<String> {
    let problems = dns1123_label(machinery::object::name(object));
    let because = "which can result in surprising behavior; a DNS label is recommended";
    (!problems.is_empty()).then(|| format!("metadata.name: {used}, {because}: [{}]", problems.join(" ")))
}

/// Of a Service.
pub fn service(object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = opt(object, "spec") else { return out };
    if opt(object, "metadata").and_then(|m| opt(m, "annotations")).is_some_and(|a| has(a, "service.kubernetes.io/topology-aware-hints")) {
        let (old, new) = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode");
        out.push(format!("annotation {old} is deprecated, please use {new} instead"));
    }
    if !list(spec, "externalIPs").is_empty() {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    let p = Path::new("spec");
    let ips = p.child("clusterIPs");
    for (i, ip) in strings(spec, "clusterIPs").enumerate() {
        address(ip, &ips.index(i), &mut out);
    }
    if s(spec, "clusterIP") == "None" {
        for key in ["loadBalancerIP", "externalIPs"] {
            if !crate::validate::tree::is_empty(spec, key) {
                out.push(format!("spec.{key} is ignored for headless services"));
            }
        }
        if !matches!(s(spec, "sessionAffinity"), "" | "None") {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    let external = p.child("externalIPs");
    for (i, ip) in strings(spec, "externalIPs").enumerate() {
        address(ip, &external.index(i), &mut out);
    }
    address(s(spec, "loadBalancerIP"), &p.child("loadBalancerIP"), &mut out);
    let ranges = p.child("loadBalancerSourceRanges");
    for (i, range) in strings(spec, "loadBalancerSourceRanges").enumerate() {
        cidr(range, &ranges.index(i), &mut out);
    }
    if s(spec, "type") != "ExternalName" && !s(spec, "externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if s(spec, "trafficDistribution") == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    out
}

const CLASS: (&str, &str) =
    ("volume.beta.kubernetes.io/storage-class", "deprecated since v1.8; use \"storageClassName\" attribute instead");
const MOUNT_OPTIONS: (&str, &str) =
    ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead");

fn annotations(object: &Value, known: &[(&str, &str)], out: &mut Vec<String>) {
    let Some(given) = at(object, "metadata.annotations") else { return };
    out.extend(known.iter().filter(|(key, _)| has(given, key)).map(|(key, text)| format!("metadata.annotations[{key}]: {text}")));
}

/// Of a PersistentVolume.
pub fn volume(object: &Value) -> Vec<String> {
    const OLD: [(&str, &str); 8] = [
        ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ];
    let mut out = Vec::new();
    annotations(object, &[CLASS, MOUNT_OPTIONS], &mut out);
    let Some(spec) = opt(object, "spec") else { return out };
    let p = Path::new("spec");
    if s(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let field = p.child("persistentVolumeReclaimPolicy");
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        out.push(format!("{field}: {text}"));
    }
    let affinity = p.child("nodeAffinity");
    let required = affinity.child("required");
    let terms = required.child("nodeSelectorTerms");
    for (i, term) in at(spec, "nodeAffinity.required").map_or(&[][..], |r| list(r, "nodeSelectorTerms")).iter().enumerate() {
        node_term(term, &terms.index(i), &mut out);
    }
    out.extend(OLD.iter().filter(|(key, _)| has(spec, key)).map(|(key, text)| format!("{}: {text}", p.child(key))));
    out
}

/// Of a PersistentVolumeClaim.
pub fn claim(object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    annotations(object, &[CLASS], &mut out);
    if let Some(spec) = opt(object, "spec") {
        claim_spec(spec, &Path::new("spec"), &mut out);
    }
    out
}

fn claim_spec(spec: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let amounts = opt(spec, "resources").unwrap_or(&Value::Null);
    for key in ["requests", "limits"] {
        fractional(amounts, key, "storage", &p.child("resources"), out);
    }
}

/// Bytes come whole.
fn fractional(holder: &Value, key: &str, name: &str, p: &Path<'_>, out: &mut Vec<String>) {
    let Some(q) = opt(holder, key).and_then(|amounts| amounts.get(name)).and_then(quantity) else { return };
    if q.milli_value() % 1000 != 0 {
        let field = p.child(key);
        out.push(format!("{}: fractional byte value {} is invalid, must be an integer", field.key(name), go_quote(&q.to_string())));
    }
}

/// Of a node selector term: labels that have a successor (`GetWarningsForNodeSelectorTerm`).
fn node_term(term: &Value, p: &Path<'_>, out: &mut Vec<String>) {
    let all = p.child("matchExpressions");
    for (i, r) in list(term, "matchExpressions").iter().enumerate() {
        let key = s(r, "key");
        if let Some(text) = old_label(key) {
            out.push(format!("{}: {key} is {text}", all.index(i).child("key")));
        }
    }
}

/// Of a StorageClass.
pub fn topologies(object: &Value) -> Vec<String> {
    let (mut out, root) = (Vec::new(), Path::new("allowedTopologies"));
    for (i, topology) in list(object, "allowedTopologies").iter().enumerate() {
        let term = root.index(i);
        let all = term.child("matchLabelExpressions");
        for (j, r) in list(topology, "matchLabelExpressions").iter().enumerate() {
            if let Some(text) = old_label(s(r, "key")) {
                out.push(format!("{}: {} is {text}", all.index(j).child("key"), s(r, "key")));
            }
        }
    }
    out
}

/// Of a RuntimeClass.
pub fn runtime_class(object: &Value) -> Vec<String> {
    let p = Path::new("scheduling");
    let selector = at(object, "scheduling.nodeSelector").and_then(Value::as_object);
    let keys = selector.into_iter().flatten().map(|(key, _)| key);
    keys.filter_map(|key| Some(format!("{}: {}", p.child("nodeSelector").key(key), old_label(key)?))).collect()
}

/// Of a ServiceAccount.
pub fn service_account(object: &Value) -> Vec<String> {
    const MOUNTABLE: (&str, &str) = (
        "kubernetes.io/enforce-mountable-secrets",
        "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
    );
    let mut out = Vec::new();
    annotations(object, &[MOUNTABLE], &mut out);
    out
}

/// Of a NetworkPolicy.
pub fn network_policy(object: &Value) -> Vec<String> {
    let (mut out, spec) = (Vec::new(), opt(object, "spec").unwrap_or(&Value::Null));
    let p = Path::new("spec");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        let root = p.child(rules);
        for (i, rule) in list(spec, rules).iter().enumerate() {
            let one = root.index(i);
            let all = one.child(peers);
            for (j, peer) in list(rule, peers).iter().enumerate() {
                let Some(block) = opt(peer, "ipBlock") else { continue };
                let item = all.index(j);
                let at_block = item.child("ipBlock");
                cidr(s(block, "cidr"), &at_block.child("cidr"), &mut out);
                let except = at_block.child("except");
                for (k, range) in strings(block, "except").enumerate() {
                    cidr(range, &except.index(k), &mut out);
                }
            }
        }
    }
    out
}

/// Of a Node: ranges, and a field nobody reads.
pub fn node(object: &Value) -> Vec<String> {
    let (mut out, p) = (Vec::new(), Path::new("spec"));
    let Some(spec) = opt(object, "spec") else { return out };
    if !s(spec, "externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    let ranges = p.child("podCIDRs");
    for (i, range) in strings(spec, "podCIDRs").enumerate() {
        cidr(range, &ranges.index(i), &mut out);
    }
    out
}

/// Of Endpoints.
pub fn endpoints(object: &Value) -> Vec<String> {
    let (mut out, root) = (Vec::new(), Path::new("subsets"));
    for (i, subset) in list(object, "subsets").iter().enumerate() {
        let one = root.index(i);
        for key in ["addresses", "notReadyAddresses"] {
            let all = one.child(key);
            for (j, given) in list(subset, key).iter().enumerate() {
                address(s(given, "ip"), &all.index(j).child("ip"), &mut out);
            }
        }
    }
    out
}

/// Of an EndpointSlice.
pub fn endpoint_slice(object: &Value) -> Vec<String> {
    let (mut out, root) = (Vec::new(), Path::new("endpoints"));
    if !matches!(s(object, "addressType"), "IPv4" | "IPv6") {
        return out;
    }
    for (i, endpoint) in list(object, "endpoints").iter().enumerate() {
        let one = root.index(i);
        let all = one.child("addresses");
        for (j, given) in strings(endpoint, "addresses").enumerate() {
            address(given, &all.index(j), &mut out);
        }
    }
    out
}

/// An address in a form that will not be taken for ever (`GetWarningsForIP`).
fn address(text: &str, p: &Path<'_>, out: &mut Vec<String>) {
    let Some(ip) = names_net::parse_ip_sloppy(text) else { return };
    let strict = text.parse::<std::net::IpAddr>().ok();
    let mapped = matches!(strict, Some(std::net::IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    if strict.is_none() || mapped {
        let why = "will be considered invalid in a future Kubernetes release";
        out.push(format!("{p}: non-standard IP address {} {why}: use {}", go_quote(text), go_quote(&ip.to_string())));
    } else if ip.is_ipv6() && ip.to_string() != text {
        out.push(format!("{p}: IPv6 address {} should be in RFC 5952 canonical format ({})", go_quote(text), go_quote(&ip.to_string())));
    }
}

/// As [`address`], of a range, whose host part must be zero (`GetWarningsForCIDR`).
fn cidr(text: &str, p: &Path<'_>, out: &mut Vec<String>) {
    let Some((ip, bits)) = names_net::parse_cidr_sloppy(text) else { return };
    let network = network_of(ip, bits);
    if network != ip {
        let host = format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 });
        let net = go_quote(&format!("{network}/{bits}"));
        out.push(format!("{p}: CIDR value {} is ambiguous in this context (should be {net} or {}?)", go_quote(text), go_quote(&host)));
    }
    let strict = text.split_once('/').and_then(|(head, _)| head.parse::<std::net::IpAddr>().ok());
    let mapped = matches!(strict, Some(std::net::IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    let canonical = go_quote(&format!("{network}/{bits}"));
    if strict.is_none() || mapped {
        let why = "will be considered invalid in a future Kubernetes release";
        out.push(format!("{p}: non-standard CIDR value {} {why}: use {canonical}", go_quote(text)));
    } else if ip.is_ipv6() && format!("{ip}/{bits}") != text {
        out.push(format!("{p}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({canonical})", go_quote(text)));
    }
}

fn network_of(ip: std::net::IpAddr, bits: u8) -> std::net::IpAddr {
    match ip {
        std::net::IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        std::net::IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_named_by_its_path() {
        let template = json!({"spec": {"containers": [
            {"name": "c", "env": [{"name": "A"}, {"name": "A"}], "ports": [{"containerPort": 80}, {"containerPort": 80, "hostPort": 80}]}],
            "terminationGracePeriodSeconds": -1}});
        let spec = Path::new("spec");
        assert_eq!(
            pod(&template, Some(&spec.child("template"))),
            [
                "spec.template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
                "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }

    #[test]
    fn addresses_in_old_forms() {
        let said = |text: &str, rule: fn(&str, &Path<'_>, &mut Vec<String>)| {
            let mut out = Vec::new();
            rule(text, &Path::new("f"), &mut out);
            out.join("; ")
        };
        for (text, wanted) in [
            ("10.0.0.1", ""),
            ("x", ""),
            (
                "010.0.0.1",
                "f: non-standard IP address \"010.0.0.1\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
            ),
            ("fd00:0::1", "f: IPv6 address \"fd00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")"),
        ] {
            assert_eq!(said(text, address), wanted);
        }
        assert_eq!(
            said("10.1.1.1/8", cidr),
            "f: CIDR value \"10.1.1.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.1.1/32\"?)"
        );
        assert_eq!(said("0.0.0.0/0", cidr), "");
    }

    #[test]
    fn claims_volumes_and_ports() {
        assert_eq!(
            claim(&json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}})),
            ["spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"]
        );
        assert_eq!(volume(&json!({"spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}}})).len(), 2);
        let two = json!({"spec": {"initContainers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "TCP"}]}],
            "containers": [{"name": "b", "ports": [{"containerPort": 1, "protocol": "TCP"}], "env": [{"name": "A"}, {"name": "A", "value": "$(A)x"}]}]}});
        assert_eq!(pod(&two, None), ["spec.containers[0].ports[0]: duplicate port definition with spec.initContainers[0].ports[0]"]);
    }

    #[test]
    fn plain_objects_are_not_warned_of() {
        assert!(pod(&json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}), None).is_empty());
        assert!(service(&json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}})).is_empty());
        assert_eq!(service(&json!({"spec": {"externalIPs": ["1.2.3.4"]}})).len(), 1);
        assert!(pod_names(&json!({"metadata": {"name": "a"}})).is_none());
        assert_eq!(
            pod_names(&json!({"metadata": {"name": "a.b"}})).unwrap_or_default(),
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
        );
    }
}
