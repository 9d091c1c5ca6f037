//! What a local cluster's own parts may do beyond upstream's bootstrap policy: the pod network reads what a network plugin
//! reads.

use anyhow::{Context, Result};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// The proxy, DNS, routes and policies of every node.
pub const NETWORK_USER: &str = "skiff:network";

/// Creates or renews the role and its binding.
pub async fn ensure(client: &Client) -> Result<()> {
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
