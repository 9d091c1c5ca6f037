//! Requests on ConfigMaps and pods.

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::connection::{Call, Connection};
use crate::server::Server;
use crate::{Options, reads, report, writes};

pub const CORE: &str = "/api/v1";
pub const NAMESPACE: &str = "bench";
pub const PODS: usize = 1000;

/// The reads, then the writes.
pub async fn run(options: &Options) -> Result<()> {
    let servers = prepared(options).await?;
    reads::run(&servers, options).await?;
    writes::run(&servers, options).await
}

/// The reads alone.
pub async fn reads(options: &Options) -> Result<()> {
    reads::run(&prepared(options).await?, options).await
}

/// The writes alone.
pub async fn writes(options: &Options) -> Result<()> {
    writes::run(&prepared(options).await?, options).await
}

/// The servers, each with what is measured on; then the table's head.
async fn prepared(options: &Options) -> Result<Vec<Server>> {
    let servers = Server::all(options).await?;
    for server in &servers {
        prepare(&mut Connection::open(&server.access).await?, options.connections).await?;
    }
    report::head();
    Ok(servers)
}

/// What the measurements work on. What is there already stays.
pub async fn prepare(admin: &mut Connection, workers: usize) -> Result<()> {
    prepare_namespace(admin).await?;
    for worker in 0..workers {
        make(admin, format!("{CORE}/namespaces/{NAMESPACE}/configmaps"), config_map(&format!("w{worker}"))).await?;
    }
    for n in 0..PODS {
        make(admin, format!("{CORE}/namespaces/{NAMESPACE}/pods"), pod(&format!("p{n}"))).await?;
    }
    Ok(())
}

/// The namespace, and the account that pods need and nobody makes without a controller manager.
pub async fn prepare_namespace(admin: &mut Connection) -> Result<()> {
    make(admin, format!("{CORE}/namespaces"), json!({"metadata": {"name": NAMESPACE}})).await?;
    make(admin, format!("{CORE}/namespaces/{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await
}

async fn make(admin: &mut Connection, path: String, object: Value) -> Result<()> {
    admin.text(Call::json(Method::POST, path, &object), &[409]).await.map(|_| ())
}

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"key": "x".repeat(700)}})
}

/// A pod of an everyday size.
pub fn pod(name: &str) -> Value {
    let env: Vec<Value> = (0..20).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value of {n}")})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "backend"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "main", "image": "registry.example/app:1",
            "args": ["--serve", "--port=8080"], "env": env, "ports": [{"containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5}}]}})
}
