//! Requests on ConfigMaps and pods.

use std::sync::Arc;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::connection::{Call, Connection};
use crate::load::{self, MakeCall};
use crate::server::Server;
use crate::{Options, report, writes};

pub const CORE: &str = "/api/v1";
pub const NAMESPACE: &str = "bench";
pub const PODS: usize = 1000;

pub async fn run(options: &Options) -> Result<()> {
    let server = Server::get(options).await?;
    let mut admin = Connection::open(&server.access).await?;
    prepare(&mut admin, options.connections).await?;
    report::head();
    let (n, time) = (options.connections, options.duration());
    let maps = format!("{CORE}/namespaces/{NAMESPACE}/configmaps");
    let one = format!("{maps}/w0");
    let get: MakeCall = Arc::new(move |_, _| Call::get(one.clone()));
    report::print(load::run(&server, "GET a ConfigMap", 1, time, get.clone()).await?);
    report::print(load::run(&server, "GET a ConfigMap", n, time, get).await?);

    writes::run(&server, options).await?;

    let pods = format!("{CORE}/namespaces/{NAMESPACE}/pods");
    let list: MakeCall = Arc::new(move |_, _| Call::get(pods.clone()));
    report::print(load::run(&server, "list 1,000 pods", 8, time, list).await?);
    Ok(())
}

/// What the measurements work on. What is there already stays.
pub async fn prepare(admin: &mut Connection, workers: usize) -> Result<()> {
    let make = async |admin: &mut Connection, path: String, object: Value| {
        admin.text(Call::json(Method::POST, path, &object), &[409]).await.map(|_| ())
    };
    make(admin, format!("{CORE}/namespaces"), json!({"metadata": {"name": NAMESPACE}})).await?;
    // Without a controller manager nobody makes the account that pods need.
    let account = json!({"metadata": {"name": "default"}});
    make(admin, format!("{CORE}/namespaces/{NAMESPACE}/serviceaccounts"), account).await?;
    for worker in 0..workers {
        let object = config_map(&format!("w{worker}"));
        make(admin, format!("{CORE}/namespaces/{NAMESPACE}/configmaps"), object).await?;
    }
    for n in 0..PODS {
        make(admin, format!("{CORE}/namespaces/{NAMESPACE}/pods"), pod(&format!("p{n}"))).await?;
    }
    Ok(())
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
