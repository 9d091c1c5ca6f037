//! A kubelet changes its own Node, its own pods and its own lease, and nothing else (upstream's `plugin/pkg/admission/noderestriction`).

use async_trait::async_trait;
use machinery::object::{self, str_at};
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.user.as_node().is_some()
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let Some(node) = request.user.as_node() else { return Ok(()) };
        let refusal = match (request.resource.group.as_str(), request.resource.kind.as_str()) {
            ("", "Pod") => pod(request, node, value, old).await?,
            ("", "Node") => own_node(request, node, value, old),
            ("coordination.k8s.io", "Lease") => lease(request, node, value),
            ("storage.k8s.io", "CSINode") => csi_node(request, node, value),
            _ => None,
        };
        refusal.map_or(Ok(()), |why| Err(request.forbidden(if value.is_null() { old.unwrap_or(value) } else { value }, &why)))
    }
}

async fn pod(request: &Request<'_>, node: &str, value: &Value, old: Option<&Value>) -> Result<Option<String>, StatusError> {
    let bound_elsewhere = |pod: &Value| str_at(pod, "spec.nodeName") != node;
    Ok(match (request.subresource, request.operation) {
        ("", Operation::Create) => create_pod(request, node, value),
        ("", Operation::Delete) => {
            old.filter(|o| bound_elsewhere(o)).map(|_| format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        ("status", Operation::Update) => old.and_then(|old| {
            if bound_elsewhere(old) {
                return Some(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
            }
            let labels = |v: &Value| v.pointer("/metadata/labels").cloned();
            (labels(value) != labels(old)).then(|| format!("node {node:?} cannot update labels through pod status"))
        }),
        ("eviction", Operation::Create) => {
            let found = request.api.read_kind("", "Pod", request.namespace, request.name).await?;
            found.filter(|p| bound_elsewhere(p)).map(|_| format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        (sub, _) if !sub.is_empty() => Some(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed")),
        _ => Some(format!("unexpected operation {:?}, node {node:?} can only create and delete mirror pods", request.operation)),
    })
}

fn create_pod(request: &Request<'_>, node: &str, pod: &Value) -> Option<String> {
    let name = object::name(pod);
    if pod.pointer(MIRROR).is_none() {
        return Some(format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"));
    }
    if str_at(pod, "spec.nodeName") != node {
        return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    if !str_at(pod, "spec.serviceAccountName").is_empty() {
        return Some(format!("node {node:?} can not create pods that reference a service account"));
    }
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
    if owners.len() > 1 {
        return Some(format!("node {node:?} can only create pods with a single owner reference set to itself"));
    }
    if let Some(owner) = owners.first()
        && (owner["kind"] != "Node" || owner["name"] != node)
    {
        return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    let _ = (request, name);
    None
}

fn own_node(request: &Request<'_>, node: &str, value: &Value, old: Option<&Value>) -> Option<String> {
    let name = if request.name.is_empty() { object::name(value) } else { request.name };
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    if request.operation == Operation::Delete {
        return None;
    }
    let labels = |v: Option<&Value>| v.and_then(|v| v.pointer("/metadata/labels")).and_then(Value::as_object).cloned().unwrap_or_default();
    let (new, was) = (labels(Some(value)), labels(old));
    let mut forbidden: Vec<&str> = new
        .iter()
        .filter(|(k, v)| was.get(*k) != Some(v))
        .map(|(k, _)| k.as_str())
        .chain(was.keys().filter(|k| !new.contains_key(*k)).map(String::as_str))
        .filter(|k| is_restricted(k))
        .collect();
    forbidden.sort_unstable();
    if !forbidden.is_empty() {
        let verb = if old.is_none() { "set" } else { "modify" };
        return Some(format!("is not allowed to {verb} the following labels: {}", forbidden.join(", ")));
    }
    let taints = |v: &Value| v.pointer("/spec/taints").cloned().filter(|t| t.as_array().is_some_and(|t| !t.is_empty()));
    if let Some(old) = old
        && taints(old) != taints(value)
    {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    None
}

/// Labels a kubelet may not give itself.
fn is_restricted(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(d, _)| d);
    if domain == "node-restriction.kubernetes.io" || domain.ends_with(".node-restriction.kubernetes.io") {
        return true;
    }
    let ours = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") || domain == "k8s.io" || domain.ends_with(".k8s.io");
    let allowed_domain = domain == "kubelet.kubernetes.io"
        || domain.ends_with(".kubelet.kubernetes.io")
        || domain == "node.kubernetes.io"
        || domain.ends_with(".node.kubernetes.io");
    const ALLOWED: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    ours && !allowed_domain && !ALLOWED.contains(&key)
}

fn lease(request: &Request<'_>, node: &str, value: &Value) -> Option<String> {
    if request.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    let name = if request.name.is_empty() { object::name(value) } else { request.name };
    (name != node).then(|| "can only access node lease with the same name as the requesting node".to_owned())
}

fn csi_node(request: &Request<'_>, node: &str, value: &Value) -> Option<String> {
    let name = if request.name.is_empty() { object::name(value) } else { request.name };
    (name != node).then(|| "can only access CSINode with the same name as the requesting node".to_owned())
}
