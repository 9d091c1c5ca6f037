//! The Node object and its Lease: registered, then kept up to date.

mod facts;

use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::kubelet::Node;
pub use facts::{Facts, arch, facts};

/// How often the status is computed; it is sent when it changed, and every [`REPORT`] anyway.
const UPDATE: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
const IMAGES_MAX: usize = 50;
const IMAGE_NAMES_MAX: usize = 5;

/// The runtime's conditions that keep the node from being ready.
async fn not_ready(node: &Node) -> Vec<String> {
    let conditions = match node.cri.runtime.clone().status(v1::StatusRequest { verbose: false }).await {
        Ok(answer) => answer.into_inner().status.map(|s| s.conditions).unwrap_or_default(),
        Err(status) => return vec![format!("container runtime is down: {}", status.message())],
    };
    let mut out = Vec::new();
    for (kind, word) in [("RuntimeReady", "container runtime not ready"), ("NetworkReady", "container runtime network not ready")] {
        match conditions.iter().find(|c| c.r#type == kind) {
            Some(c) if !c.status => out.push(format!("{word}: {kind}=false reason:{} message:{}", c.reason, c.message)),
            Some(_) => {}
            None => out.push(format!("{word}: {kind} condition is missing")),
        }
    }
    out
}

async fn images(node: &Node) -> Vec<Value> {
    let list = match node.cri.images.clone().list_images(v1::ListImagesRequest::default()).await {
        Ok(answer) => answer.into_inner().images,
        Err(status) => {
            tracing::debug!(error = status.message(), "images cannot be listed");
            return Vec::new();
        }
    };
    let mut list: Vec<_> = list
        .into_iter()
        .map(|i| (i.size, i.repo_digests.into_iter().chain(i.repo_tags).take(IMAGE_NAMES_MAX).collect::<Vec<_>>()))
        .collect();
    list.sort_by(|a, b| b.cmp(a));
    list.truncate(IMAGES_MAX);
    list.into_iter().map(|(size, names)| json!({"names": names, "sizeBytes": size})).collect()
}

fn conditions(not_ready: &[String], facts: &Facts, node: &Node, now: Timestamp, old: &[Value]) -> Vec<Value> {
    let memory = facts::memory_available().is_some_and(|m| m < 100 << 20);
    let disk = facts::disk_available_percent(&node.config.root_dir).is_some_and(|p| p < node.config.disk_pressure_percent.into());
    let pids = facts.pids_low();
    let pressure = |kind: &str, on: bool, yes: &str, no: &str, text: &str| {
        let (reason, word) = if on { (yes, text.to_owned()) } else { (no, text.replacen("has insufficient", "has sufficient", 1)) };
        json!({"type": kind, "status": if on { "True" } else { "False" }, "reason": reason, "message": word})
    };
    let ready = if not_ready.is_empty() {
        json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"})
    } else {
        let message = machinery::field::aggregate(not_ready);
        json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message})
    };
    let disk_text = if disk { "kubelet has disk pressure" } else { "kubelet has no disk pressure" };
    let mut out = vec![
        pressure(
            "MemoryPressure",
            memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "kubelet has insufficient memory available",
        ),
        pressure("DiskPressure", disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", disk_text),
        pressure("PIDPressure", pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "kubelet has insufficient PID available"),
        ready,
    ];
    for c in &mut out {
        let same = old.iter().find(|o| o["type"] == c["type"] && o["status"] == c["status"]);
        let since = same.and_then(|o| o.get("lastTransitionTime").cloned()).unwrap_or_else(|| json!(seconds(now)));
        c["lastTransitionTime"] = since;
        c["lastHeartbeatTime"] = json!(seconds(now));
    }
    out
}

fn seconds(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn status(node: &Node, facts: &Facts, old: &Value, now: Timestamp) -> Value {
    let (not_ready, images) = tokio::join!(not_ready(node), images(node));
    let none = Vec::new();
    let before = old.get("conditions").and_then(Value::as_array).unwrap_or(&none);
    let mut addresses: Vec<Value> = node.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.config.node_name}));
    json!({
        "capacity": facts.capacity(),
        "allocatable": facts.allocatable(),
        "conditions": conditions(&not_ready, facts, node, now, before),
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.config.port()}},
        "nodeInfo": facts.node_info(&format!("{}://{}", node.runtime_name, node.runtime_version)),
        "images": images,
        "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": false, "userNamespaces": false}}],
    })
}

fn labels(node: &Node) -> Value {
    let arch = arch();
    let mut out = json!({
        "kubernetes.io/hostname": node.config.node_name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch});
    for (k, v) in &node.config.node_labels {
        out[k] = json!(v);
    }
    out
}

/// Creates the Node, or brings the labels of the one that is there up to date. Returns its status.
async fn register(node: &Node, status: &Value) -> Result<Value, Error> {
    let nodes: Api<ApiNode> = Api::all(node.client.clone());
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.config.node_name, "labels": labels(node), "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"taints": node.config.register_with_taints, "providerID": node.config.provider_id},
        "status": status});
    let typed: ApiNode = serde_json::from_value(object).map_err(|e| Error::Server(format!("the node's own object: {e}")))?;
    match nodes.create(&PostParams::default(), &typed).await {
        Ok(_) => return Ok(status.clone()),
        Err(kube::Error::Api(error)) if error.reason == "AlreadyExists" => {}
        Err(error) => return Err(error.into()),
    }
    let patch = json!({"metadata": {"labels": labels(node)}});
    let found = nodes.patch(&node.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(serde_json::to_value(found.status).unwrap_or_default())
}

/// What must differ for a status to be sent before its time.
fn essence(status: &Value) -> Value {
    let mut out = status.clone();
    for c in out.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(c) = c.as_object_mut() {
            c.remove("lastHeartbeatTime");
        }
    }
    out
}

/// Registers the node and keeps its status until cancelled.
pub async fn keep_status(node: Arc<Node>, facts: Facts, cancel: CancellationToken) -> Result<(), Error> {
    let mut sent = Value::Null;
    let mut sent_at = tokio::time::Instant::now();
    let mut registered = false;
    node.record_node(false, "Starting", "Starting kubelet.".to_owned());
    loop {
        let now = Timestamp::now();
        let next = status(&node, &facts, &sent, now).await;
        let result = if !registered {
            register(&node, &next).await.map(|on_server| {
                registered = true;
                sent = on_server;
            })
        } else {
            Ok(())
        };
        let due = essence(&next) != essence(&sent) || sent_at.elapsed() > REPORT;
        let result = match result {
            Ok(()) if due => write(&node, &sent, &next, now).await.map(|status| {
                tell(&node, &sent, &status);
                (sent, sent_at) = (status, tokio::time::Instant::now());
            }),
            other => other,
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the node's status could not be written; trying again");
            if matches!(&error, Error::Api(kube::Error::Api(status)) if status.code == 404) {
                registered = false;
            }
        }
        let ready = sent.pointer("/conditions/3/status").and_then(Value::as_str) == Some("True");
        // A node that waits for its runtime or for the API server looks often; one that is ready seldom.
        let pause = if registered && ready { UPDATE } else { Duration::from_millis(200) };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write(node: &Node, old: &Value, next: &Value, now: Timestamp) -> Result<Value, Error> {
    let mut status = next.clone();
    let none = Vec::new();
    let before = old.get("conditions").and_then(Value::as_array).unwrap_or(&none);
    for c in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|o| o["type"] == c["type"] && o["status"] == c["status"]);
        c["lastTransitionTime"] = same.and_then(|o| o.get("lastTransitionTime").cloned()).unwrap_or_else(|| json!(seconds(now)));
    }
    let mut sent = status.clone();
    if let Some(list) = sent.get_mut("addresses").and_then(Value::as_array_mut) {
        list.insert(0, json!({"$patch": "replace"}));
    }
    let nodes: Api<ApiNode> = Api::all(node.client.clone());
    let patch = json!({"status": sent});
    nodes.patch_status(&node.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(status)
}

/// Events for conditions that turned.
fn tell(node: &Node, old: &Value, new: &Value) {
    let of = |s: &Value, kind: &str| {
        let list = s.get("conditions").and_then(Value::as_array);
        list.and_then(|l| l.iter().find(|c| c["type"] == kind)).and_then(|c| c["status"].as_str()).map(|s| s == "True")
    };
    let kinds = [
        ("Ready", "NodeReady", "NodeNotReady"),
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ];
    for (kind, yes, no) in kinds {
        let now = of(new, kind);
        if let Some(on) = now.filter(|_| now != of(old, kind) || old.is_null()) {
            let reason = if on { yes } else { no };
            node.record_node(false, reason, format!("Node {} status is now: {reason}", node.config.node_name));
        }
    }
}

/// Renews the node's Lease until cancelled.
pub async fn keep_lease(node: Arc<Node>, cancel: CancellationToken) -> Result<(), Error> {
    use k8s_openapi::api::coordination::v1::Lease;
    let name = &node.config.node_name;
    let leases: Api<Lease> = Api::namespaced(node.client.clone(), "kube-node-lease");
    let nodes: Api<ApiNode> = Api::all(node.client.clone());
    let every = Duration::from_secs(u64::try_from(node.config.lease_seconds).unwrap_or(40).max(4) / 4);
    loop {
        let renewed = json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
        let patch = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": node.config.lease_seconds, "renewTime": renewed}});
        let result = match leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => create_lease(&leases, &nodes, name, patch).await,
            other => other.map(|_| ()).map_err(Error::from),
        };
        let pause = match result {
            Ok(()) => every,
            Err(error) => {
                tracing::debug!(%error, "the node's lease could not be renewed; trying again");
                Duration::from_millis(500)
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn create_lease(
    leases: &Api<k8s_openapi::api::coordination::v1::Lease>,
    nodes: &Api<ApiNode>,
    name: &str,
    mut lease: Value,
) -> Result<(), Error> {
    let uid = nodes.get(name).await?.metadata.uid.unwrap_or_default();
    lease["metadata"] = json!({"name": name, "namespace": "kube-node-lease",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]});
    let typed = serde_json::from_value(lease).map_err(|e| Error::Server(format!("the node's lease: {e}")))?;
    leases.create(&PostParams::default(), &typed).await?;
    Ok(())
}
