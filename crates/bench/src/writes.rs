//! Writes: each operation of its own kind, durable before it is answered. Called by `api`, or alone (`bench writes`).

use std::sync::Arc;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::Options;
use crate::api::{CORE, NAMESPACE, PODS, config_map, pod};
use crate::connection::Call;
use crate::load::{self, MakeCall};
use crate::server::Server;

const APPS: &str = "/apis/apps/v1";

pub async fn run(servers: &[Server], options: &Options) -> Result<()> {
    let operations: [(&str, MakeCall); 5] = [
        ("create a ConfigMap", create()),
        ("merge-patch a ConfigMap", merge()),
        ("update a pod's status", status()),
        ("strategic-merge a pod's status", strategic()),
        ("apply a Deployment", apply()),
    ];
    for (name, make) in operations {
        if options.only.as_deref().is_none_or(|only| name.contains(only)) {
            load::measure(servers, name, options.connections, options.duration(), make).await?;
        }
    }
    Ok(())
}

fn create() -> MakeCall {
    let (run, collection) = (run_id(), format!("{CORE}/namespaces/{NAMESPACE}/configmaps"));
    Arc::new(move |worker, n| Call::json(Method::POST, collection.clone(), &config_map(&format!("c-{run}-{worker}-{n}"))))
}

fn merge() -> MakeCall {
    let collection = format!("{CORE}/namespaces/{NAMESPACE}/configmaps");
    Arc::new(move |worker, n| Call {
        content_type: "application/merge-patch+json",
        ..Call::json(Method::PATCH, format!("{collection}/w{worker}"), &json!({"data": {"n": n.to_string()}}))
    })
}

fn status() -> MakeCall {
    let collection = format!("{CORE}/namespaces/{NAMESPACE}/pods");
    Arc::new(move |worker, n| {
        let name = format!("p{}", worker % PODS);
        let mut pod = pod(&name);
        pod["status"] = json!({"phase": "Running", "message": n.to_string(), "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        Call::json(Method::PUT, format!("{collection}/{name}/status"), &pod)
    })
}

/// As a kubelet does it: the conditions' order, and those that changed.
fn strategic() -> MakeCall {
    let collection = format!("{CORE}/namespaces/{NAMESPACE}/pods");
    Arc::new(move |worker, n| {
        let ready = if n % 2 == 0 { "True" } else { "False" };
        let patch = json!({"status": {
            "$setElementOrder/conditions": [{"type": "PodReadyToStartContainers"}, {"type": "Initialized"}, {"type": "Ready"},
                {"type": "ContainersReady"}, {"type": "PodScheduled"}],
            "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z", "message": n.to_string()},
                {"type": "ContainersReady", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "containerStatuses": [{"name": "main", "image": "registry.example/app:1", "imageID": "sha256:1", "ready": n % 2 == 0,
                "restartCount": 0, "started": true, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
        Call {
            content_type: "application/strategic-merge-patch+json",
            ..Call::json(Method::PATCH, format!("{collection}/p{}/status", worker % PODS), &patch)
        }
    })
}

/// As client-go and kubectl do it: the whole configuration, of which one value changed.
fn apply() -> MakeCall {
    let collection = format!("{APPS}/namespaces/{NAMESPACE}/deployments");
    Arc::new(move |worker, n| {
        let name = format!("d{worker}");
        Call {
            content_type: "application/apply-patch+yaml",
            ..Call::json(Method::PATCH, format!("{collection}/{name}?fieldManager=bench&force=true"), &deployment(&name, n))
        }
    })
}

fn deployment(name: &str, n: u64) -> Value {
    let mut template = pod(name);
    let container = &mut template["spec"]["containers"][0];
    container["env"][0]["value"] = json!(n.to_string());
    let (labels, spec) = (template["metadata"]["labels"].take(), template["spec"].take());
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "bench"}}, "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

/// Tells this run's objects from those of earlier ones on the same server.
fn run_id() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs())
}
