//! Where a node's kubelet listens, as the Node's status says (upstream's `NodeConnectionInfoGetter`).

use std::sync::Arc;

use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use super::backend::Backend;
use crate::state::Api;

/// In this order, as kubeadm configures it.
const PREFERRED: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];
const DEFAULT_PORT: u16 = 10250;

/// The kubelet of a node. `verify` is false where the client asked not to.
pub async fn of(api: &Arc<Api>, node: &str, verify: bool) -> Result<Backend, StatusError> {
    let resource = api.registry.kind("", "Node").ok_or_else(|| StatusError::internal("no resource for Node"))?;
    let Some(object) = api.read(&resource, "", node).await? else {
        return Err(StatusError::not_found(&resource.group_resource(), node));
    };
    let tls = if verify { &api.connections.tls.kubelet } else { &api.connections.tls.kubelet_unverified };
    let (host, port) = endpoint(&object).map_err(|why| StatusError::new(500, "", why))?;
    Ok(Backend { host, port, tls: Some(tls.clone()), server_name: None })
}

/// Address and port of the kubelet.
fn endpoint(node: &Value) -> Result<(String, u16), String> {
    let none = Vec::new();
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).unwrap_or(&none);
    let find = |kind: &&str| addresses.iter().find(|a| str_at(a, "type") == *kind).map(|a| str_at(a, "address").to_owned());
    let Some(host) = PREFERRED.iter().find_map(find).filter(|h| !h.is_empty()) else {
        let known: Vec<String> = addresses.iter().map(|a| format!("{{{} {}}}", str_at(a, "type"), str_at(a, "address"))).collect();
        return Err(format!("no preferred addresses found; known addresses: [{}]", known.join(" ")));
    };
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(DEFAULT_PORT);
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_internal_address_comes_first() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}}}});
        assert_eq!(endpoint(&node), Ok(("10.0.0.1".to_owned(), 10260)));
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}]}});
        assert_eq!(endpoint(&node), Ok(("n".to_owned(), DEFAULT_PORT)));
        assert_eq!(endpoint(&json!({})), Err("no preferred addresses found; known addresses: []".to_owned()));
    }
}
