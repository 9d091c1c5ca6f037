//! What the admission webhooks of conformance tests do, by path: refuse, change, dawdle.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

const KEY: &str = "webhook-e2e-test";
const DISALLOW: &str = "webhook-disallow";

fn refuse(why: &str) -> Value {
    json!({"allowed": false, "status": {"message": why}})
}

fn patch(operations: &Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// The `response` to a review's `request`; `None` for other paths.
pub async fn judge(path: &str, request: &Value) -> Option<Value> {
    let object = &request["object"];
    // A deletion is about what was.
    let subject = if object.is_object() { object } else { &request["oldObject"] };
    let allow = || json!({"allowed": true});
    Some(match path {
        "/always-deny" => refuse("this webhook denies all requests"),
        "/always-allow-delay-5s" => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            allow()
        }
        "/pods" => return Some(pods(object).await),
        "/pods/attach" => refuse("attaching to pod 'to-be-attached-pod' is not allowed"),
        "/configmaps" if object["data"][KEY] == DISALLOW => refuse("the configmap contains unwanted key and value"),
        "/custom-resource" if subject["data"][KEY] == DISALLOW => refuse("the custom resource contains unwanted data"),
        "/crd" if object["metadata"]["labels"][KEY] == DISALLOW => refuse("the crd contains unwanted label"),
        "/mutating-data" => stages(object),
        "/mutating-pods" => {
            let container = json!({"image": "skiff/hello", "name": "webhook-added-init-container", "command": ["true"], "resources": {}});
            patch(&json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
        }
        "/add-label" => {
            let first = if object["metadata"]["labels"].is_object() {
                json!([])
            } else {
                json!([{"op": "add", "path": "/metadata/labels", "value": {}}])
            };
            let mut operations = first;
            if let Some(list) = operations.as_array_mut() {
                list.push(json!({"op": "add", "path": "/metadata/labels/added-label", "value": "yes"}));
            }
            patch(&operations)
        }
        "/configmaps" | "/custom-resource" | "/crd" => allow(),
        _ => return None,
    })
}

async fn pods(pod: &Value) -> Value {
    let label = &pod["metadata"]["labels"][KEY];
    if label == "wait-forever" {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let mut why = Vec::new();
    if pod["spec"]["containers"].as_array().into_iter().flatten().any(|c| c["name"].as_str().is_some_and(|n| n.contains(DISALLOW))) {
        why.push("the pod contains unwanted container name");
    }
    if label == DISALLOW {
        why.push("the pod contains unwanted label");
    }
    if why.is_empty() { json!({"allowed": true}) } else { refuse(&why.join("; ")) }
}

/// Each stage follows the one before.
fn stages(object: &Value) -> Value {
    let has = |key: &str| object["data"][key] == "yes";
    let mut operations = Vec::new();
    for (before, after) in [("mutation-start", "mutation-stage-1"), ("mutation-stage-1", "mutation-stage-2")] {
        if has(before) {
            operations.push(json!({"op": "add", "path": format!("/data/{after}"), "value": "yes"}));
        }
    }
    if operations.is_empty() { json!({"allowed": true}) } else { patch(&json!(operations)) }
}
