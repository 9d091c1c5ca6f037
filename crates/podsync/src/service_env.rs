//! Environment variables that name the Services of a namespace (upstream's `envvars.FromServices`).
//! Called when a container is about to be created.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Variables for `namespace`'s services when `links` is on, and always for `kubernetes` in `default`.
pub fn variables<'a>(services: impl Iterator<Item = &'a Service>, namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<String, &Service> = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        if spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None") {
            continue;
        }
        let name = service.metadata.name.clone().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = of == "default" && name == "kubernetes";
        if of == namespace && links {
            chosen.insert(name, service);
        } else if master {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut out = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut out, &upper(&name), service);
    }
    out
}

fn add(out: &mut BTreeMap<String, String>, prefix: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let (Some(ip), Some(ports)) = (&spec.cluster_ip, &spec.ports) else { return };
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    let Some(first) = ports.first() else { return };
    out.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
    out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (i, port) in ports.iter().enumerate() {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if i == 0 {
            out.insert(format!("{prefix}_PORT"), url.clone());
        }
        let one = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.insert(one.clone(), url);
        out.insert(format!("{one}_PROTO"), lower);
        out.insert(format!("{one}_PORT"), port.port.to_string());
        out.insert(format!("{one}_ADDR"), ip.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn upstream_names() {
        let make = |ns: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": ns},
                "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}))
            .unwrap()
        };
        let all = [make("default", "kubernetes", "10.96.0.1"), make("ns", "my-db", "10.96.0.9"), make("ns", "headless", "None")];
        let got = variables(all.iter(), "ns", true);
        assert_eq!(got["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(got["MY_DB_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(got["MY_DB_PORT"], "tcp://10.96.0.9:443");
        assert_eq!(got["MY_DB_PORT_443_TCP_ADDR"], "10.96.0.9");
        assert!(!got.keys().any(|k| k.starts_with("HEADLESS")));
        assert!(!variables(all.iter(), "ns", false).contains_key("MY_DB_PORT"));
    }
}
