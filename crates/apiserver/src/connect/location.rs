//! Where a node, pod or service is to be proxied to (the `ResourceLocation` functions of upstream's registries).

use std::net::IpAddr;
use std::sync::Arc;

use machinery::object::{self, str_at};
use machinery::status::StatusError;
use serde_json::Value;

use super::backend::Backend;
use super::{address, kubelet, pod};
use crate::state::Api;
use crate::verbs::Target;
use crate::webhook::service;

/// `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some(Self { https: scheme == "https", name, port })
    }
}

fn unavailable(why: String) -> StatusError {
    StatusError::new(503, "ServiceUnavailable", why)
}

fn number(port: &str) -> Result<u16, StatusError> {
    port.parse().map_err(|_| unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port")))
}

/// Where to, for a target of `nodes`, `pods` or `services`.
pub async fn find(api: &Arc<Api>, target: &Target) -> Result<Backend, StatusError> {
    let invalid = |what: &str| StatusError::bad_request(format!("invalid {what} request {:?}", target.name));
    let parsed = Id::parse(&target.name);
    match target.resource.resource.as_str() {
        "nodes" => node(api, &parsed.ok_or_else(|| invalid("node"))?).await,
        "pods" => of_pod(api, target, &parsed.ok_or_else(|| invalid("pod"))?).await,
        _ => service(api, target, &parsed.ok_or_else(|| invalid("service"))?).await,
    }
}

fn workload(api: &Arc<Api>, id: &Id<'_>, ip: IpAddr, port: u16) -> Result<Backend, StatusError> {
    address::proxyable(api, ip, port)?;
    Ok(Backend { host: ip.to_string(), port, tls: id.https.then(|| api.connections.tls.workload.clone()), server_name: None })
}

async fn node(api: &Arc<Api>, id: &Id<'_>) -> Result<Backend, StatusError> {
    let own = kubelet::of(api, id.name, true).await?;
    if id.port.is_empty() || id.port == own.port.to_string() {
        return Ok(own);
    }
    let port = number(id.port)?;
    let ip = address::resolve(api, &own.host, port).await?;
    workload(api, id, ip, port)
}

async fn of_pod(api: &Arc<Api>, target: &Target, id: &Id<'_>) -> Result<Backend, StatusError> {
    let pod = pod::read(api, &target.named(id.name)).await?;
    let port = match id.port {
        "" => first_port(&pod).unwrap_or(if id.https { 443 } else { 80 }),
        text => number(text)?,
    };
    let not_allowed = || StatusError::bad_request("address not allowed");
    let ip = pod_ips(&pod).first().and_then(|ip| ip.parse().ok()).ok_or_else(not_allowed)?;
    workload(api, id, ip, port)
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let port = containers.iter().find_map(|c| c.pointer("/ports/0/containerPort").and_then(Value::as_u64))?;
    u16::try_from(port).ok()
}

fn pod_ips(pod: &Value) -> Vec<&str> {
    let list = pod.pointer("/status/podIPs").and_then(Value::as_array);
    let ips: Vec<&str> = list.into_iter().flatten().map(|ip| str_at(ip, "ip")).collect();
    if ips.is_empty() { vec![str_at(pod, "status.podIP")] } else { ips }
}

async fn service(api: &Arc<Api>, target: &Target, id: &Id<'_>) -> Result<Backend, StatusError> {
    let mut port_name = id.port.to_owned();
    let found = api.read(&target.resource, &target.namespace, id.name).await?.ok_or_else(|| target.named(id.name).not_found())?;
    if let Ok(number) = id.port.parse::<i64>() {
        let ports = found.pointer("/spec/ports").and_then(Value::as_array);
        let port = ports.into_iter().flatten().find(|p| p["port"].as_i64() == Some(number));
        let port = port.ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", id.name)))?;
        port_name = str_at(port, "name").to_owned();
    }
    let slices = api.read_all("discovery.k8s.io", "EndpointSlice", &target.namespace).await?;
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|s| s.pointer("/metadata/labels/kubernetes.io~1service-name").is_some_and(|n| n == id.name)) {
        candidates.extend(endpoints(slice, &port_name));
    }
    let turn = api.connections.turn();
    for offset in 0..candidates.len() {
        let (ip, port, pod) = candidates[(turn + offset) % candidates.len()];
        if is_pods(api, &target.namespace, pod, ip).await?
            && let Ok(ip) = ip.parse()
        {
            return workload(api, id, ip, port);
        }
    }
    Err(unavailable(format!("no endpoints available for service {:?}", target.name)))
}

/// Ready endpoints of a slice that have the port and are pods: address, port number and the pod's name.
fn endpoints<'a>(slice: &'a Value, port_name: &str) -> Vec<(&'a str, u16, &'a str)> {
    let pods = service::endpoints(slice, port_name).filter(|(_, _, e)| {
        let (kind, namespace) = (str_at(e, "targetRef.kind"), str_at(e, "targetRef.namespace"));
        kind == "Pod" && namespace == object::namespace(slice)
    });
    pods.map(|(ip, port, e)| (ip, port, str_at(e, "targetRef.name"))).collect()
}

/// Whether an endpoint's address is its pod's own: anybody may write EndpointSlices.
async fn is_pods(api: &Arc<Api>, namespace: &str, pod: &str, ip: &str) -> Result<bool, StatusError> {
    let found = api.read_kind("", "Pod", namespace, pod).await?;
    Ok(found.is_some_and(|p| pod_ips(&p).contains(&ip)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(Id::parse("a"), Some(Id { https: false, name: "a", port: "" }));
        assert_eq!(Id::parse("a:80"), Some(Id { https: false, name: "a", port: "80" }));
        assert_eq!(Id::parse("https:a:"), Some(Id { https: true, name: "a", port: "" }));
        for bad in ["", ":80", "ftp:a:1", "a:b:c:d"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_ready_pods_with_the_port_serve() {
        let end = |ip: &str, pod: &str, ready: bool, namespace: &str| json!({"addresses": [ip], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}});
        let slice = json!({
            "metadata": {"namespace": "n"}, "addressType": "IPv4", "ports": [{"name": "web", "port": 8080}],
            "endpoints": [end("10.0.0.1", "a", true, "n"), end("10.0.0.2", "b", false, "n"), end("10.0.0.3", "c", true, "other"),
                          {"addresses": ["10.0.0.4"], "conditions": {"ready": true}}]});
        assert_eq!(endpoints(&slice, "web"), [("10.0.0.1", 8080, "a")]);
        assert!(endpoints(&slice, "").is_empty());
    }
}
