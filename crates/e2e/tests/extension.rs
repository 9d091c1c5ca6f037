//! Webhooks and an aggregated API whose server runs in pods behind a Service.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::extension::{Extension, NAME};
use e2e::{Cluster, eventually, has_kubectl, is_root, refused};
use futures::AsyncBufReadExt as _;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_extension"))
}

fn configure(cluster: &Cluster, extension: &Extension, kind: &str, path: &str, rules: &Value) {
    let plural = format!("{}s", kind.to_lowercase());
    let hook = json!({"name": format!("{}.example.com", path.trim_matches('/')), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": extension.client_config(path), "rules": rules, "timeoutSeconds": 5});
    let body =
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "extension"}, "webhooks": [hook]});
    cluster.request("POST", &format!("/apis/admissionregistration.k8s.io/v1/{plural}"), Some(&body)).unwrap();
}

fn map(name: &str, label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {(label): "yes"}}})
}

#[test]
fn webhooks_in_pods_judge_and_change_what_is_written() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let extension = Extension::deploy(&cluster, program(), 2).unwrap();
    let maps = json!([{"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
        {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec", "pods/attach"]}]);
    let written = json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    configure(&cluster, &extension, "MutatingWebhookConfiguration", "/mutate", &written);
    configure(&cluster, &extension, "ValidatingWebhookConfiguration", "/validate", &maps);
    // Both pods get their share.
    let mut seen = BTreeSet::new();
    for number in 0..40 {
        let made = cluster.request("POST", MAPS, Some(&map(&format!("m{number}"), "plain"))).unwrap();
        seen.insert(made["metadata"]["annotations"]["example.com/seen-by"].as_str().unwrap().to_owned());
    }
    assert!(seen.iter().all(|pod| pod.starts_with("extension-")) && !seen.is_empty(), "{seen:?}");
    let denied = "admission webhook \"validate.example.com\" denied the request: the extension forbids this";
    let text = refused(cluster.request("POST", MAPS, Some(&map("no", "forbidden"))));
    assert!(text.contains(&format!("{denied} CREATE")), "{text}");
    cluster.request("POST", MAPS, Some(&map("held", "kept"))).unwrap();
    let text = refused(cluster.request("DELETE", &format!("{MAPS}/held"), None));
    assert!(text.contains(&format!("{denied} DELETE")), "{text}");
    let text = refused(cluster.request("PATCH", &format!("{MAPS}/held"), Some(&json!({"metadata": {"labels": {"forbidden": "yes"}}}))));
    assert!(text.contains(&format!("{denied} UPDATE")), "{text}");
    let pods = cluster.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dextension").unwrap();
    let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let text = refused(cluster.get(&format!("/api/v1/namespaces/default/pods/{pod}/exec?command=ls&stdout=true")));
    assert!(text.contains(&format!("{denied} CONNECT")), "{text}");

    // Without pods the webhooks fail closed, and writes they are not about go on.
    let scale = json!({"spec": {"replicas": 0}});
    cluster.request("PATCH", &format!("/apis/apps/v1/namespaces/default/deployments/{NAME}"), Some(&scale)).unwrap();
    eventually("nobody answers", || {
        let list = cluster.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dextension")?;
        ensure!(list["items"].as_array().is_some_and(Vec::is_empty), "there are pods");
        Ok(())
    })
    .unwrap();
    let text = refused(cluster.request("POST", MAPS, Some(&map("late", "plain"))));
    assert!(text.contains("failed calling webhook \"mutate.example.com\": failed to call webhook: Post \"https://extension.default.svc:443/mutate?timeout=5s\": "), "{text}");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    cluster.request("POST", "/api/v1/namespaces/default/secrets", Some(&secret)).unwrap();
}

#[test]
fn an_aggregated_api_in_pods_is_part_of_the_api() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let extension = Extension::deploy(&cluster, program(), 1).unwrap();
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.things.example.com"}, "spec": {
        "group": "things.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": extension.ca_bundle(),
        "service": {"namespace": "default", "name": NAME, "port": 443}}});
    cluster.request("POST", "/apis/apiregistration.k8s.io/v1/apiservices", Some(&service)).unwrap();
    let wait = |reason: &str| {
        eventually(reason, || {
            let found = cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.things.example.com")?;
            ensure!(found["status"]["conditions"][0]["reason"] == reason, "{}", found["status"]);
            Ok(())
        })
        .unwrap();
    };
    wait("Passed");
    let base = "/apis/things.example.com/v1/namespaces/default/things";
    assert_eq!(cluster.get(base).unwrap()["items"][0]["metadata"]["name"], "thing-1");
    let who = cluster.request("POST", &format!("{base}/whoami"), Some(&json!({"a": 1}))).unwrap();
    assert_eq!((&who["method"], &who["body"]), (&json!("POST"), &json!({"a": 1})));
    assert!(who["groups"].as_array().unwrap().contains(&json!("system:masters")), "{who}");
    assert_eq!(who["user"].as_array().map(Vec::len), Some(1), "{who}");
    assert_eq!(cluster.get("/apis/things.example.com").unwrap()["preferredVersion"]["version"], "v1");

    things_come_and_go(&cluster, base);
    the_service_is_changed_itself(&cluster);

    // Events come through as they are said.
    let times: Vec<Duration> = cluster
        .with_client(|client| async move {
            let start = Instant::now();
            let request = http::Request::get(format!("{base}?watch=true")).body(Vec::new())?;
            let mut lines = client.request_stream(request).await?.lines();
            let mut times = Vec::new();
            while let Some(line) = futures::TryStreamExt::try_next(&mut lines).await? {
                ensure!(serde_json::from_str::<Value>(&line)?["type"] == "ADDED", "{line}");
                times.push(start.elapsed());
            }
            Ok(times)
        })
        .unwrap();
    assert_eq!(times.len(), 5);
    assert!(times[4] - times[0] > Duration::from_millis(500), "all at once: {times:?}");

    let scale = json!({"spec": {"replicas": 0}});
    cluster.request("PATCH", &format!("/apis/apps/v1/namespaces/default/deployments/{NAME}"), Some(&scale)).unwrap();
    wait("MissingEndpoints");
    let text = refused(cluster.get(base));
    assert!(text.contains("service unavailable"), "{text}");
    cluster.request("DELETE", "/apis/apiregistration.k8s.io/v1/apiservices?labelSelector=e2e-apiservice%3Dpatched", None).unwrap();
    let text = refused(cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.things.example.com"));
    assert!(text.contains("not found"), "{text}");
}

/// What is served there is made, listed and deleted as anything else, also by kubectl.
fn things_come_and_go(cluster: &Cluster, base: &str) {
    let names = |path: &str| -> Vec<String> {
        let list = cluster.get(path).unwrap();
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let thing =
        |name: &str| json!({"apiVersion": "things.example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"color": "blue"}});
    let made = cluster.request("POST", base, Some(&thing("rest"))).unwrap();
    assert_eq!((&made["metadata"]["name"], &made["spec"]["color"]), (&json!("rest"), &json!("blue")));
    assert_eq!(names(base), ["rest", "thing-1"]);
    cluster.request("DELETE", &format!("{base}/rest"), None).unwrap();
    assert!(refused(cluster.get(&format!("{base}/rest"))).contains("NotFound"));
    if has_kubectl() {
        let out = cluster.kubectl_with(&["create", "--validate=false", "-f", "-"], &thing("dynamic").to_string()).unwrap().ok().unwrap();
        assert!(out.contains("thing.things.example.com/dynamic created"), "{out}");
        let out = cluster.kubectl(&["get", "things", "-o", "name"]).unwrap().ok().unwrap();
        assert_eq!(out, "thing.things.example.com/dynamic\nthing.things.example.com/thing-1\n");
        cluster.kubectl(&["delete", "thing", "dynamic", "--wait=false"]).unwrap().ok().unwrap();
    }
    assert_eq!(names(base), ["thing-1"]);
    // Discovery has its resources, also the aggregated one.
    assert_eq!(cluster.get("/apis/things.example.com/v1").unwrap()["resources"][0]["name"], "things");
}

/// The APIService as an object: its status, annotations and label.
fn the_service_is_changed_itself(cluster: &Cluster) {
    let (all, one) = ("/apis/apiregistration.k8s.io/v1/apiservices", "/apis/apiregistration.k8s.io/v1/apiservices/v1.things.example.com");
    let status = format!("{one}/status");
    let read = cluster.get(&status).unwrap();
    assert!(read["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Available" && c["status"] == "True"), "{read}");
    let mut conditions = read["status"]["conditions"].clone();
    conditions
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "StatusUpdated", "status": "True", "reason": "E2E", "message": "Set from an e2e test",
        "lastTransitionTime": "2026-01-02T03:04:05Z"}));
    let patched = cluster.request("PATCH", &status, Some(&json!({"status": {"conditions": conditions}}))).unwrap();
    assert!(patched["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "StatusUpdated"), "{patched}");
    let annotated = json!({"metadata": {"annotations": {"e2e": "patched"}, "labels": {"e2e-apiservice": "patched"}}});
    assert_eq!(cluster.request("PATCH", one, Some(&annotated)).unwrap()["metadata"]["annotations"]["e2e"], "patched");
    eventually("an update of the newest", || {
        let mut read = cluster.get(one)?;
        read["metadata"]["annotations"]["e2e"] = json!("updated");
        cluster.request("PUT", one, Some(&read))
    })
    .unwrap();
    let labelled = cluster.get(&format!("{all}?labelSelector=e2e-apiservice%3Dpatched")).unwrap();
    assert_eq!(labelled["items"].as_array().unwrap().len(), 1);
}
