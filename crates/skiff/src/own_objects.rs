//! What a local cluster's own parts need in the API beyond upstream's bootstrap objects: the pod network's role, for it
//! reads what a network plugin reads, and the Service that names the cluster's DNS.

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// The proxy, DNS, routes and policies of every node.
pub const NETWORK_USER: &str = "skiff:network";

/// Creates or renews them. `dns` is where every node answers DNS itself.
pub async fn ensure(client: &Client, dns: Option<IpAddr>) -> Result<()> {
    ensure_role(client).await?;
    let Some(dns) = dns else { return Ok(()) };
    let port = |name: &str, protocol: &str| json!({ "name": name, "port": 53, "protocol": protocol, "targetPort": 53 });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": { "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS" },
        },
        // No selector: it is no pod that answers, but each node.
        "spec": { "clusterIP": dns.to_string(), "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")] },
    });
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    let by = PatchParams::apply("skiff").force();
    services.patch("kube-dns", &by, &Patch::Apply(&service)).await.context("writing the Service kube-dns")?;
    Ok(())
}

async fn ensure_role(client: &Client) -> Result<()> {
    let read = json!(["get", "list", "watch"]);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": NETWORK_USER },
        "rules": [
            { "apiGroups": [""], "resources": ["services", "endpoints", "nodes", "namespaces", "pods"], "verbs": read },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read },
            { "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies", "servicecidrs"], "verbs": read },
            { "apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"] },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": NETWORK_USER },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NETWORK_USER },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": NETWORK_USER }],
    });
    let by = PatchParams::apply("skiff").force();
    let roles: Api<ClusterRole> = Api::all(client.clone());
    roles.patch(NETWORK_USER, &by, &Patch::Apply(&role)).await.context("writing the role of the pod network")?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.patch(NETWORK_USER, &by, &Patch::Apply(&binding)).await.context("binding the role of the pod network")?;
    Ok(())
}
