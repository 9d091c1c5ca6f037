//! A pod's resolv.conf: policies, cluster DNS, search domains and their limits (upstream's `dns.Configurer`).

use std::net::IpAddr;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

/// Reads a resolv.conf.
pub fn parse(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                out.searches = words.map(|w| if w == "." { w.to_owned() } else { w.trim_end_matches('.').to_owned() }).collect();
            }
            Some("options") => out.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    out
}

/// The configuration of a pod; `host` is what the node's own resolv.conf says. The second value warns users
/// (`DNSConfigForming`, `MissingClusterDNS`).
pub fn config(pod: &Pod, host: &DnsConfig, cluster_dns: &[IpAddr], domain: &str) -> (DnsConfig, Vec<(&'static str, String)>) {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let mut warnings = Vec::new();
    let mut cluster = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => return (limited(with_own(DnsConfig::default(), &spec), &mut warnings), warnings),
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network,
        _ => false,
    };
    if cluster && cluster_dns.is_empty() {
        let text = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
        warnings.push(("MissingClusterDNS", text.to_owned()));
        cluster = false;
    }
    let mut out = host.clone();
    if cluster {
        out.servers = cluster_dns.iter().map(ToString::to_string).collect();
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        searches.extend(host.searches.iter().filter(|s| *s != ".").cloned());
        let mut seen = std::collections::BTreeSet::new();
        searches.retain(|s| seen.insert(s.clone()));
        out.searches = searches;
        out.options = vec!["ndots:5".to_owned()];
    }
    (limited(with_own(out, &spec), &mut warnings), warnings)
}

fn with_own(mut out: DnsConfig, spec: &k8s_openapi::api::core::v1::PodSpec) -> DnsConfig {
    let Some(own) = &spec.dns_config else { return out };
    let add = |list: &mut Vec<String>, more: Option<&Vec<String>>| {
        for item in more.into_iter().flatten() {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    };
    add(&mut out.servers, own.nameservers.as_ref());
    add(&mut out.searches, own.searches.as_ref());
    for option in own.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        out.options.retain(|o| o.split(':').next() != Some(name.as_str()));
        out.options.push(option.value.as_ref().map_or(name.clone(), |v| format!("{name}:{v}")));
    }
    out
}

fn limited(mut c: DnsConfig, warnings: &mut Vec<(&'static str, String)>) -> DnsConfig {
    if c.servers.len() > NAMESERVERS_MAX {
        c.servers.truncate(NAMESERVERS_MAX);
        let text = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            c.servers.join(" ")
        );
        warnings.push(("DNSConfigForming", text));
    }
    let before = c.searches.len();
    c.searches.truncate(SEARCHES_MAX);
    while c.searches.join(" ").len() > SEARCH_CHARS_MAX {
        c.searches.pop();
    }
    if c.searches.len() < before {
        let text = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            c.searches.join(" ")
        );
        warnings.push(("DNSConfigForming", text));
    }
    c
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn make(spec: serde_json::Value) -> DnsConfig {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": spec})).unwrap();
        let host = parse("# x\nnameserver 1.1.1.1\nsearch corp.example. .\noptions rotate\n");
        config(&pod, &host, &["10.96.0.10".parse().unwrap()], "cluster.local").0
    }

    #[test]
    fn policies() {
        let first = make(json!({"containers": []}));
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(first.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        assert_eq!(first.options, ["ndots:5"]);
        for spec in [json!({"containers": [], "hostNetwork": true}), json!({"containers": [], "dnsPolicy": "Default"})] {
            let c = make(spec);
            assert_eq!((c.servers, c.options), (vec!["1.1.1.1".to_owned()], vec!["rotate".to_owned()]));
        }
        let host = make(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert_eq!(host.servers, ["10.96.0.10"]);
        let none = make(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
        );
        assert_eq!(
            (none.servers, none.searches.len(), none.options),
            (vec!["9.9.9.9".to_owned()], 0, vec!["ndots:2".to_owned(), "edns0".to_owned()])
        );
    }

    #[test]
    fn options_replace_and_limits_cut() {
        let c = make(
            json!({"containers": [], "dnsConfig": {"nameservers": ["1.0.0.1", "1.0.0.2", "1.0.0.3"], "options": [{"name": "ndots", "value": "1"}]}}),
        );
        assert_eq!(c.servers.len(), 3);
        assert_eq!(c.options, ["ndots:1"]);
    }
}
