//! A kubelet changes its own Node, its own pods and its own lease, and nothing else (upstream's
//! `plugin/pkg/admission/noderestriction`). The Node authorizer has let it ask; here is seen what is in the objects.

use async_trait::async_trait;
use auth::{Attributes, Decision};
use base64::Engine as _;
use machinery::object::{self, at, str_at};
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

pub struct NodeRestriction;

/// `Some`: what is refused, and why.
type Refusal = Result<Option<String>, StatusError>;

#[async_trait]
impl Plugin for NodeRestriction {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation != Operation::Connect && request.user.as_node().is_some()
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
        let Some(node) = request.user.as_node() else { return Ok(()) };
        let refusal = match (request.resource.group.as_str(), request.resource.kind.as_str()) {
            ("", "Pod") => pod(request, node, value, old).await?,
            ("", "Node") => own_node(request, node, value, old),
            ("", "PersistentVolumeClaim") => claim(request, node, value, old),
            ("", "ServiceAccount") => token(request, node, value).await?,
            ("coordination.k8s.io", "Lease") => lease(request, node, value),
            ("storage.k8s.io", "CSINode") => csi_node(request, node, value),
            ("resource.k8s.io", "ResourceSlice") => slice(request, node, value, old),
            ("certificates.k8s.io", "CertificateSigningRequest") => certificate_request(request, value),
            _ => None,
        };
        refusal.map_or(Ok(()), |why| Err(request.forbidden(if value.is_null() { old.unwrap_or(value) } else { value }, &why)))
    }
}

async fn pod(request: &Request<'_>, node: &str, value: &Value, old: Option<&Value>) -> Refusal {
    let bound_elsewhere = |pod: &Value| str_at(pod, "spec.nodeName") != node;
    Ok(match (request.subresource, request.operation) {
        ("", Operation::Create) => return create_pod(request, node, value).await,
        ("", Operation::Delete) => {
            old.filter(|o| bound_elsewhere(o)).map(|_| format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        ("status", Operation::Update) => old.and_then(|old| {
            if bound_elsewhere(old) {
                return Some(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
            }
            let differs = |path: &str| filled(value, path) != filled(old, path);
            if differs("metadata.labels") {
                return Some(format!("node {node:?} cannot update labels through pod status"));
            }
            differs("status.resourceClaimStatuses").then(|| format!("node {node:?} cannot update resource claim statues"))
        }),
        ("eviction", Operation::Create) => {
            let Some(found) = request.api.read_kind("", "Pod", request.namespace, request.name).await? else {
                return Err(StatusError::not_found(&request.resource.group_resource(), request.name));
            };
            bound_elsewhere(&found).then(|| format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        ("status" | "eviction", operation) => Some(format!("unexpected operation {:?}", operation.name())),
        ("", operation) => {
            Some(format!("unexpected operation {:?}, node {node:?} can only create and delete mirror pods", operation.name()))
        }
        (sub, _) => Some(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed")),
    })
}

/// What is there and not empty.
fn filled<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    at(object, path).filter(|v| match v {
        Value::Null => false,
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
        _ => true,
    })
}

async fn create_pod(request: &Request<'_>, node: &str, pod: &Value) -> Refusal {
    if pod.pointer(MIRROR).is_none() {
        let text = "pod does not have \"kubernetes.io/config.mirror\" annotation";
        return Ok(Some(format!("{text}, node {node:?} can only create mirror pods")));
    }
    if str_at(pod, "spec.nodeName") != node {
        return Ok(Some(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
    }
    if let Some(why) = owner(request, node, pod).await? {
        return Ok(Some(why));
    }
    Ok(references(pod).map(|what| format!("node {node:?} can not create pods that reference {what}")))
}

/// A mirror pod belongs to its node and to nothing else.
async fn owner(request: &Request<'_>, node: &str, pod: &Value) -> Refusal {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let owner = match owners {
        [owner] => owner,
        [] => return Ok(Some(format!("node {node:?} can only create pods with an owner reference set to itself"))),
        _ => return Ok(Some(format!("node {node:?} can only create pods with a single owner reference set to itself"))),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Ok(Some(format!("node {node:?} can only create pods with an owner reference set to itself")));
    }
    if owner["controller"] != true {
        return Ok(Some(format!("node {node:?} can only create pods with a controller owner reference set to itself")));
    }
    if owner["blockOwnerDeletion"] == true {
        return Ok(Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference")));
    }
    let Some(found) = request.api.read_kind("", "Node", "", node).await? else {
        let nodes = machinery::gvk::GroupResource::new("", "nodes");
        return Err(StatusError::not_found(&nodes, node));
    };
    let (given, own) = (str_at(owner, "uid"), object::uid(&found));
    Ok((given != own).then(|| format!("node {node} UID mismatch: expected {given} got {own}")))
}

/// Other API objects that a pod would let its node see.
fn references(pod: &Value) -> Option<&'static str> {
    if !str_at(pod, "spec.serviceAccountName").is_empty() {
        return Some("a service account");
    }
    for (kind, what) in [("secrets", "secrets"), ("configmaps", "configmaps")] {
        if auth::node::pod_references(pod, kind) {
            return Some(what);
        }
    }
    let volumes = || pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let projected = |v: &Value| v.pointer("/projected/sources").and_then(Value::as_array).cloned().unwrap_or_default();
    if volumes().any(|v| projected(v).iter().any(|s| filled(s, "clusterTrustBundle").is_some())) {
        return Some("clustertrustbundles");
    }
    if volumes().any(|v| filled(v, "persistentVolumeClaim").is_some()) {
        return Some("persistentvolumeclaims");
    }
    (filled(pod, "spec.resourceClaims").is_some()).then_some("resourceclaims")
}

/// Beside its capacity and conditions a node changes nothing of a claim.
fn claim(request: &Request<'_>, node: &str, value: &Value, old: Option<&Value>) -> Option<String> {
    if request.subresource != "status" {
        return Some("may only update PVC status".to_owned());
    }
    let Some(old) = old.filter(|_| request.operation == Operation::Update) else {
        return Some(format!("unexpected operation {:?}", request.operation.name()));
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (holder, keys) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"]),
        ] {
            let map = object::map_mut(&mut claim, holder);
            keys.iter().for_each(|k| drop(map.remove(*k)));
        }
        claim
    };
    (rest(value) != rest(old))
        .then(|| format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions"))
}

fn own_node(request: &Request<'_>, node: &str, value: &Value, old: Option<&Value>) -> Option<String> {
    let name = if request.name.is_empty() { object::name(value) } else { request.name };
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    match request.operation {
        Operation::Create => {
            if filled(value, "spec.configSource").is_some() {
                return Some(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            let forbidden = changed_labels(value, None);
            (!forbidden.is_empty()).then(|| format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        Operation::Update => {
            let differs = |path: &str| old.is_some_and(|old| filled(value, path) != filled(old, path));
            if filled(value, "spec.configSource").is_some() && differs("spec.configSource") {
                return Some(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
            }
            if differs("spec.taints") {
                return Some(format!("node {node:?} is not allowed to modify taints"));
            }
            let forbidden = changed_labels(value, old);
            if !forbidden.is_empty() {
                return Some(format!("is not allowed to modify labels: {}", forbidden.join(", ")));
            }
            // An owner that is gone takes the node with it.
            differs("metadata.ownerReferences").then(|| format!("node {node:?} is not allowed to modify ownerReferences"))
        }
        _ => None,
    }
}

/// The restricted labels that would be set, changed or removed.
fn changed_labels(value: &Value, old: Option<&Value>) -> Vec<String> {
    let labels = |v: Option<&Value>| v.and_then(|v| v.pointer("/metadata/labels")).and_then(Value::as_object).cloned().unwrap_or_default();
    let (new, was) = (labels(Some(value)), labels(old));
    let added = new.iter().filter(|(k, v)| was.get(*k) != Some(v)).map(|(k, _)| k);
    let gone = was.keys().filter(|k| !new.contains_key(*k));
    let mut forbidden: Vec<String> = added.chain(gone).filter(|k| is_restricted(k)).cloned().collect();
    forbidden.sort_unstable();
    forbidden
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

/// A node gets tokens for its own pods, for the audiences they name.
async fn token(request: &Request<'_>, node: &str, value: &Value) -> Refusal {
    if request.operation != Operation::Create || request.subresource != "token" {
        return Ok(None);
    }
    let text = |path: &str| str_at(value, path);
    let (kind, version) = (text("spec.boundObjectRef.kind"), text("spec.boundObjectRef.apiVersion"));
    let (name, uid) = (text("spec.boundObjectRef.name"), text("spec.boundObjectRef.uid"));
    if (kind, version) != ("Pod", "v1") || name.is_empty() {
        return Ok(Some("node requested token not bound to a pod".to_owned()));
    }
    if uid.is_empty() {
        return Ok(Some("node requested token with a pod binding without a uid".to_owned()));
    }
    let Some(pod) = request.api.read_kind("", "Pod", request.namespace, name).await? else {
        return Err(StatusError::not_found(&machinery::gvk::GroupResource::new("", "pods"), name));
    };
    if uid != object::uid(&pod) {
        return Ok(Some(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if str_at(&pod, "spec.nodeName") != node {
        return Ok(Some("node requested token bound to a pod scheduled on a different node".to_owned()));
    }
    audience(request, value, &pod).await
}

async fn audience(request: &Request<'_>, value: &Value, pod: &Value) -> Refusal {
    let audiences = at(value, "spec.audiences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let wanted = match audiences {
        [] => "",
        [one] => one.as_str().unwrap_or(""),
        _ => return Ok(Some("node may only request 0 or 1 audiences".to_owned())),
    };
    if names_audience(request, pod, wanted).await? {
        return Ok(None);
    }
    let asked = Attributes {
        user: request.user.clone(),
        verb: "request-serviceaccounts-token-audience".to_owned(),
        namespace: request.namespace.to_owned(),
        version: "v1".to_owned(),
        resource: wanted.to_owned(),
        name: request.name.to_owned(),
        is_resource: true,
        ..Attributes::default()
    };
    if matches!(request.api.authorizer.decide(&asked).await, Decision::Allow(_)) {
        return Ok(None);
    }
    let text = "not found in pod spec volume";
    Ok(Some(format!("audience {wanted:?} {text}, {:?} is not authorized to request tokens for this audience", request.user.name)))
}

/// Whether a volume of the pod needs a token for the audience, itself or through its driver.
async fn names_audience(request: &Request<'_>, pod: &Value, wanted: &str) -> Result<bool, StatusError> {
    for volume in pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten() {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        let tokens = sources.into_iter().flatten().filter_map(|s| s.get("serviceAccountToken").filter(|t| !t.is_null()));
        if tokens.into_iter().any(|t| str_at(t, "audience") == wanted) {
            return Ok(true);
        }
        let mut driver = str_at(volume, "csi.driver").to_owned();
        let mut claim = str_at(volume, "persistentVolumeClaim.claimName").to_owned();
        if filled(volume, "ephemeral").is_some() {
            claim = format!("{}-{}", object::name(pod), str_at(volume, "name"));
        }
        if !claim.is_empty()
            && let Some(found) = request.api.read_kind("", "PersistentVolumeClaim", request.namespace, &claim).await?
            && let Some(bound) = request.api.read_kind("", "PersistentVolume", "", str_at(&found, "spec.volumeName")).await?
        {
            driver = str_at(&bound, "spec.csi.driver").to_owned();
        }
        if driver.is_empty() {
            continue;
        }
        let found = request.api.read_kind("storage.k8s.io", "CSIDriver", "", &driver).await?;
        let wants = found.as_ref().and_then(|d| d.pointer("/spec/tokenRequests")).and_then(Value::as_array);
        if wants.into_iter().flatten().any(|t| str_at(t, "audience") == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lease(request: &Request<'_>, node: &str, value: &Value) -> Option<String> {
    if request.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    let name = if request.operation == Operation::Create { object::name(value) } else { request.name };
    (name != node).then(|| "can only access node lease with the same name as the requesting node".to_owned())
}

fn csi_node(request: &Request<'_>, node: &str, value: &Value) -> Option<String> {
    let name = if request.operation == Operation::Create { object::name(value) } else { request.name };
    (name != node).then(|| "can only access CSINode with the same name as the requesting node".to_owned())
}

fn slice(request: &Request<'_>, node: &str, value: &Value, old: Option<&Value>) -> Option<String> {
    let object = match request.operation {
        Operation::Create => value,
        Operation::Delete => old?,
        _ => return None,
    };
    let text = "can only create/delete ResourceSlice with the same NodeName as the requesting node";
    (str_at(object, "spec.nodeName") != node).then(|| text.to_owned())
}

/// A node asks for certificates in its own name.
fn certificate_request(request: &Request<'_>, value: &Value) -> Option<String> {
    let signer = str_at(value, "spec.signerName");
    let of_kubelets = matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet");
    if request.operation != Operation::Create || !of_kubelets {
        return None;
    }
    let pem = base64::engine::general_purpose::STANDARD.decode(str_at(value, "spec.request")).unwrap_or_default();
    let Some(name) = crate::pki::request_common_name(&pem) else { return Some("unable to parse csr".to_owned()) };
    (name.starts_with("system:node:") && name != request.user.name)
        .then(|| format!("can only create a node CSR with CN={}", request.user.name))
}

#[cfg(test)]
mod tests;
