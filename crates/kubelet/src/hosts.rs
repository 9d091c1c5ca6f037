//! A pod's hostname and /etc/hosts (upstream's `managedHostsFileContent`).

use k8s_openapi::api::core::v1::Pod;

/// The short hostname and, when the pod has a subdomain, its domain.
pub fn names(pod: &Pod, node: &str, cluster_domain: &str) -> (String, String) {
    let Some(spec) = &pod.spec else { return (String::new(), String::new()) };
    if let Some(name) = spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return (name.to_owned(), String::new());
    }
    if spec.host_network == Some(true) {
        return (node.to_owned(), String::new());
    }
    let own = spec.hostname.as_deref().filter(|h| !h.is_empty()).or(pod.metadata.name.as_deref()).unwrap_or_default();
    let mut end = own.len().min(63);
    while !own.is_char_boundary(end) {
        end -= 1;
    }
    let host = own[..end].trim_end_matches(['-', '.']).to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = spec.subdomain.as_deref().filter(|s| !s.is_empty()).map(|s| format!("{s}.{namespace}.svc.{cluster_domain}"));
    (host, domain.unwrap_or_default())
}

/// The file of a pod with its own network; a pod on the host's gets the host's file with the aliases added.
pub fn file(pod: &Pod, ips: &[String], host: &str, domain: &str, node_file: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut out = if spec.and_then(|s| s.host_network) == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{node_file}")
    } else {
        let mut out = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n".to_owned();
        for ip in ips {
            if domain.is_empty() {
                out.push_str(&format!("{ip}\t{host}\n"));
            } else {
                out.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
            }
        }
        out
    };
    let aliases: Vec<_> = spec.and_then(|s| s.host_aliases.as_ref()).into_iter().flatten().collect();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for a in aliases {
            out.push_str(&format!("{}\t{}\n", a.ip, a.hostnames.clone().unwrap_or_default().join("\t")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hostnames_and_file() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [],
            "hostname": "h", "subdomain": "sub", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}))
        .unwrap();
        let (host, domain) = names(&pod, "node", "cluster.local");
        assert_eq!((host.as_str(), domain.as_str()), ("h", "sub.ns.svc.cluster.local"));
        let text = file(&pod, &["10.0.0.1".into()], &host, &domain, "");
        assert!(text.contains("\n10.0.0.1\th.sub.ns.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        let long: Pod =
            serde_json::from_value(json!({"metadata": {"name": format!("{}-x", "a".repeat(62))}, "spec": {"containers": []}})).unwrap();
        assert_eq!(names(&long, "n", "c").0, "a".repeat(62));
    }
}
