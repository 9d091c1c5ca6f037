//! Flow control and the limits of requests.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{As, Cluster, Slow};

const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn allow(cluster: &Cluster) -> impl Future<Output = Value> {
    cluster.ok(
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]}),
    )
}

#[tokio::test]
async fn upstreams_objects_are_there_and_answers_name_them() {
    let cluster = Cluster::start(|_| {}).await;
    let levels = cluster.ok("GET", &format!("{FLOWS}/prioritylevelconfigurations"), Value::Null).await;
    assert_eq!(levels["items"].as_array().unwrap().len(), 8);
    let dangling = |schema: &Value| schema.pointer("/status/conditions/0/status").and_then(Value::as_str).map(str::to_owned);
    trial::until("all eleven schemas have a status", async || {
        let schemas = cluster.ok("GET", &format!("{FLOWS}/flowschemas"), Value::Null).await;
        let items = schemas["items"].as_array().unwrap();
        items.len() == 11 && items.iter().all(|s| dangling(s).as_deref() == Some("False"))
    })
    .await;
    let schema = cluster.ok("GET", &format!("{FLOWS}/flowschemas/exempt"), Value::Null).await;
    let managers: Vec<&str> =
        schema["metadata"]["managedFields"].as_array().unwrap().iter().filter_map(|m| m["manager"].as_str()).collect();
    assert_eq!(managers, ["api-priority-and-fairness-config-consumer-v1", "api-priority-and-fairness-config-producer-v1"]);
    let message = "This FlowSchema references the PriorityLevelConfiguration object named \"exempt\" and it exists";
    assert_eq!(schema["status"]["conditions"][0]["message"], message);
    let uid = |name: &str, kind: &str| {
        let path = format!("{FLOWS}/{kind}/{name}");
        let cluster = &cluster;
        async move { cluster.ok("GET", &path, Value::Null).await["metadata"]["uid"].as_str().unwrap().to_owned() }
    };
    for (who, schema, level) in [(As::Admin, "exempt", "exempt"), (As::User("jane", &[]), "global-default", "global-default")] {
        let said = cluster.client(who).await.get("/api/v1/namespaces/default").await;
        assert_eq!(said.header("x-kubernetes-pf-flowschema-uid"), uid(schema, "flowschemas").await);
        assert_eq!(said.header("x-kubernetes-pf-prioritylevel-uid"), uid(level, "prioritylevelconfigurations").await);
    }
    let dump = cluster.ask("GET", "/debug/api_priority_and_fairness/dump_priority_levels", Value::Null).await.text;
    assert!(dump.starts_with("PriorityLevelName, ActiveQueues, IsIdle, ") && dump.contains("\nworkload-low,"), "{dump}");
    let queues = cluster.ask("GET", "/debug/api_priority_and_fairness/dump_queues", Value::Null).await.text;
    assert_eq!(queues.lines().filter(|l| l.starts_with("system,")).count(), 64);
    let metrics = cluster.metrics().await;
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\"} 1",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"global-default\",priority_level=\"global-default\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn changed_objects_take_effect_and_are_put_right() {
    let cluster = Cluster::start(|_| {}).await;
    cluster.ok("DELETE", &format!("{FLOWS}/flowschemas/probes"), Value::Null).await;
    cluster.ok("DELETE", &format!("{FLOWS}/prioritylevelconfigurations/catch-all"), Value::Null).await;
    let back = async |path: &str| cluster.ask("GET", &format!("{FLOWS}/{path}"), Value::Null).await.code == 200;
    trial::until("both are back", async || back("flowschemas/probes").await && back("prioritylevelconfigurations/catch-all").await).await;
    let dangling = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "mine"}, "spec": {
        "priorityLevelConfiguration": {"name": "my-level"}, "matchingPrecedence": 50, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
                   "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                   "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}});
    let mine = cluster.ok("POST", &format!("{FLOWS}/flowschemas"), dangling).await;
    let status = async || cluster.ok("GET", &format!("{FLOWS}/flowschemas/mine"), Value::Null).await["status"]["conditions"][0].clone();
    trial::until("it dangles", async || status().await["status"] == "True").await;
    assert_eq!(status().await["reason"], "NotFound");
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "my-level"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    cluster.ok("POST", &format!("{FLOWS}/prioritylevelconfigurations"), level).await;
    trial::until("it does not", async || status().await["status"] == "False").await;
    let jane = cluster.client(As::User("jane", &[])).await;
    let uid = mine["metadata"]["uid"].as_str().unwrap();
    trial::until("it is used", async || jane.get("/version").await.header("x-kubernetes-pf-flowschema-uid") == uid).await;
    cluster.end().await;
}

#[tokio::test]
async fn without_a_seat_requests_wait_or_are_refused_and_others_are_served() {
    let store = Slow::new();
    // global-default gets one seat of these few, and a queue.
    let cluster = Cluster::start_on(store.clone(), |config| {
        config.max_requests_inflight = 4;
        config.max_mutating_requests_inflight = 0;
        config.request_timeout = Duration::from_secs(6);
    })
    .await;
    allow(&cluster).await;
    let jane = cluster.client(As::User("jane", &[])).await;
    store.gate.send_replace(false);
    let held: Vec<_> = (0..2)
        .map(|_| {
            let jane = jane.clone();
            tokio::spawn(async move { jane.get("/api/v1/namespaces/default/configmaps/slow").await })
        })
        .collect();
    let waiting = "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"global-default\",priority_level=\"global-default\"} 1";
    trial::until("one runs and one waits", async || cluster.metrics().await.contains(waiting)).await;
    let requests = cluster.ask("GET", "/debug/api_priority_and_fairness/dump_requests", Value::Null).await.text;
    assert_eq!(requests.lines().filter(|l| l.starts_with("global-default,")).count(), 1, "{requests}");
    // Another level does not feel it.
    let node = cluster.client(As::User("system:node:n", &["system:nodes"])).await;
    assert_eq!(node.get("/version").await.code, 200);
    let late = jane.get("/api/v1/namespaces/default").await;
    assert_eq!((late.code, late.text.as_str(), late.header("retry-after")), (429, "Too many requests, please try again later.\n", "1"));
    assert_ne!(late.header("x-kubernetes-pf-flowschema-uid"), "");
    store.gate.send_replace(true);
    // The one that ran is answered. The other had waited too long.
    let mut codes = Vec::new();
    for task in held {
        codes.push(task.await.unwrap().code);
    }
    codes.sort_unstable();
    assert_eq!(codes, [404, 429]);
    let metrics = cluster.metrics().await;
    let refused = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\",reason=\"time-out\"} 2";
    assert!(metrics.contains(refused), "{metrics}");
    assert_eq!(jane.get("/api/v1/namespaces/default").await.code, 200);
    cluster.end().await;
}

#[tokio::test]
async fn without_flow_control_requests_in_flight_are_limited() {
    let store = Slow::new();
    let cluster = Cluster::start_on(store.clone(), |config| {
        config.priority_and_fairness = false;
        config.max_requests_inflight = 1;
        config.max_mutating_requests_inflight = 1;
    })
    .await;
    allow(&cluster).await;
    let jane = cluster.client(As::User("jane", &[])).await;
    store.gate.send_replace(false);
    let held = tokio::spawn({
        let jane = jane.clone();
        async move { jane.get("/api/v1/namespaces/default/configmaps/slow").await }
    });
    let admin = cluster.client(As::Admin).await;
    trial::until("it is in flight", async || {
        admin.get("/metrics").await.text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 2")
    })
    .await;
    assert_eq!(jane.get("/version").await.code, 429);
    assert_eq!(admin.get("/version").await.code, 200, "masters are never refused");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}).to_string();
    let made = jane.send("POST", "/api/v1/namespaces/default/configmaps", "application/json", body.into()).await.unwrap();
    assert_eq!(made.code, 201, "writes have a limit of their own");
    store.gate.send_replace(true);
    assert_eq!(held.await.unwrap().code, 404);
    cluster.end().await;
}

#[tokio::test]
async fn requests_end_in_time_and_bodies_have_a_limit() {
    let store = Slow::new();
    let cluster = Cluster::start_on(store.clone(), |config| config.request_timeout = Duration::from_millis(700)).await;
    let admin = cluster.client(As::Admin).await;
    store.gate.send_replace(false);
    let path = "/api/v1/namespaces/default/configmaps";
    let said = admin.get(&format!("{path}/slow")).await;
    assert_eq!((said.code, said.message().as_str()), (504, "Timeout: request did not complete within the allotted timeout"));
    assert_eq!(said.json()["reason"], "Timeout");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "slow"}}).to_string();
    let begun = std::time::Instant::now();
    let said = admin.send("POST", &format!("{path}?timeout=100ms"), "application/json", body.into()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "the client's own limit holds");
    let late = "Timeout: request did not complete within requested timeout - context deadline exceeded";
    assert_eq!((said.code, said.message().as_str()), (504, late));
    store.gate.send_replace(true);
    let said = admin.get(&format!("{path}?timeout=soon")).await;
    assert_eq!(
        (said.code, said.message().as_str()),
        (400, "invalid timeout specified in the request URL - time: invalid duration \"soon\"")
    );
    let large = Bytes::from(vec![b' '; 3 * 1024 * 1024 + 1]);
    let said = admin.send("POST", path, "application/json", large).await.unwrap();
    assert_eq!((said.code, said.message().as_str()), (413, "Request entity too large: limit is 3145728"));
    cluster.end().await;
}
