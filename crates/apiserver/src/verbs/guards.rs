//! What no write, watch or token gets past: one test for each guard that could be lost without anything else failing. Each
//! is tried by breaking it (`docs/breakages.md`). Tests only.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::testing::{Answer, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json-patch+json";

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"l": value}}, "data": {"k": value}})
}

/// A quota with its status, which a controller would have filled in.
async fn quota(cluster: &Cluster, what: &str, hard: &str) {
    let mut made = cluster.ok("POST", QUOTAS, &json!({"metadata": {"name": "q"}, "spec": {"hard": {what: hard}}})).await;
    made["status"] = json!({"hard": {what: hard}, "used": {what: "0"}});
    cluster.ok("PUT", &format!("{QUOTAS}/q/status"), &made).await;
}

#[tokio::test]
async fn a_patch_is_admitted_whatever_its_form() {
    let cluster = Cluster::start().await;
    quota(&cluster, "services.nodeports", "0").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let before = cluster.ok("POST", SERVICES, &service).await;
    let mut applied = service.clone();
    applied["spec"]["type"] = json!("NodePort");
    let change = json!({"spec": {"type": "NodePort"}});
    let operations = json!([{"op": "replace", "path": "/spec/type", "value": "NodePort"}]);
    for (kind, body) in [(MERGE, &change), (STRATEGIC, &change), (JSON, &operations), (APPLY, &applied)] {
        let force = if kind == APPLY { "&force=true" } else { "" };
        let refused = cluster.ask_as("PATCH", &format!("{SERVICES}/s?fieldManager=m{force}"), kind, body).await;
        assert_eq!(refused.code, 403, "{kind}: {}", refused.body);
        assert!(refused.message().contains("exceeded quota: q, requested: services.nodeports=1"), "{}", refused.message());
    }
    assert_eq!(cluster.get(&format!("{SERVICES}/s")).await.body, before);
    cluster.end().await;
}

#[tokio::test]
async fn what_is_deleted_has_the_uid_that_was_named() {
    let cluster = Cluster::start().await;
    let made = cluster.ok("POST", MAPS, &map("a", "1")).await;
    let one = format!("{MAPS}/a");
    let (uid, version) = (made["metadata"]["uid"].clone(), made["metadata"]["resourceVersion"].clone());
    for preconditions in [json!({"uid": "another"}), json!({"uid": uid, "resourceVersion": "1"})] {
        let refused = cluster.ask("DELETE", &one, &json!({"preconditions": preconditions})).await;
        assert_eq!((refused.code, refused.body["reason"].as_str()), (409, Some("Conflict")), "{}", refused.body);
    }
    // Neither does a PUT of another of the same name reach this one.
    let mut other = map("a", "2");
    other["metadata"]["uid"] = json!("another");
    assert_eq!(cluster.ask("PUT", &one, &other).await.code, 409);
    assert_eq!(cluster.get(&one).await.body, made);
    cluster.ok("DELETE", &one, &json!({"preconditions": {"uid": uid, "resourceVersion": version}})).await;
    assert_eq!(cluster.get(&one).await.code, 404);
    cluster.end().await;
}

#[tokio::test]
async fn a_watch_tells_of_what_leaves_its_selector() {
    let cluster = Cluster::start().await;
    let made = cluster.ok("POST", MAPS, &map("a", "in")).await;
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    for (name, value) in [("a", "out"), ("b", "out"), ("b", "still-out"), ("a", "in"), ("a", "in")] {
        let one = format!("{MAPS}/{name}");
        let mut object = map(name, value);
        object["data"]["n"] = json!(cluster.get(MAPS).await.body["metadata"]["resourceVersion"]);
        if cluster.ask("PUT", &one, &object).await.code == 404 {
            cluster.ok("POST", MAPS, &object).await;
        }
    }
    let path = format!("{MAPS}?watch=1&labelSelector=l%3Din&resourceVersion={from}");
    let request = Request::builder().uri(path).body(Full::<bytes::Bytes>::default()).unwrap();
    let mut body = cluster.api.service().oneshot(request).await.unwrap().into_body();
    let (mut text, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < 3 {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
        text.extend_from_slice(&frame.expect("three events").unwrap().unwrap().into_data().unwrap());
        seen = serde_json::Deserializer::from_slice(&text).into_iter::<Value>().map_while(Result::ok).collect();
    }
    let told: Vec<_> = seen.iter().map(|e| [&e["type"], &e["object"]["metadata"]["name"], &e["object"]["data"]["k"]]).collect();
    // The object as it last matched, with the version of the change.
    let (deleted, added, modified) = (["DELETED", "a", "in"], ["ADDED", "a", "in"], ["MODIFIED", "a", "in"]);
    assert_eq!(told, [deleted, added, modified]);
    assert_ne!(seen[0]["object"]["metadata"]["resourceVersion"], from);
    cluster.end().await;
}

#[tokio::test]
async fn an_applier_meets_the_owner_of_a_field() {
    let cluster = Cluster::start().await;
    let apply = async |manager: &str, value: &str, force: bool| -> Answer {
        let path = format!("{MAPS}/a?fieldManager={manager}&force={force}");
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
        cluster.ask_as("PATCH", &path, APPLY, &config).await
    };
    assert_eq!(apply("one", "1", false).await.code, 201);
    let refused = apply("two", "2", false).await;
    let text = "Apply failed with 1 conflict: conflict with \"one\": .data.k";
    assert_eq!((refused.code, refused.message()), (409, text), "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.body["data"]["k"], "1");
    assert_eq!(apply("two", "2", true).await.body["data"]["k"], "2");
    assert_eq!(apply("one", "3", false).await.code, 409);
    cluster.end().await;
}

#[tokio::test]
async fn a_put_of_an_old_version_changes_nothing() {
    let cluster = Cluster::start().await;
    let one = format!("{MAPS}/a");
    let mut old = cluster.ok("POST", MAPS, &map("a", "1")).await;
    let new = cluster.ok("PUT", &one, &map("a", "2")).await;
    old["data"]["k"] = json!("3");
    let refused = cluster.ask("PUT", &one, &old).await;
    let text = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!((refused.code, refused.message()), (409, text), "{}", refused.body);
    let patch = json!({"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"k": "4"}});
    assert_eq!(cluster.ask_as("PATCH", &one, MERGE, &patch).await.code, 409);
    assert_eq!(cluster.get(&one).await.body, new);
    cluster.end().await;
}

#[tokio::test]
async fn strict_writes_name_what_they_refuse() {
    let cluster = Cluster::start().await;
    cluster.ok("POST", MAPS, &map("a", "1")).await;
    let one = format!("{MAPS}/a");
    let mut odd = map("a", "2");
    odd["dat"] = json!({});
    odd["metadata"]["nam"] = json!("x");
    let fields = "unknown field \"dat\", unknown field \"metadata.nam\"";
    for (method, path, kind, body) in [
        ("POST", MAPS, "application/json", &odd),
        ("PUT", one.as_str(), "application/json", &odd),
        ("PATCH", one.as_str(), MERGE, &json!({"dat": {}, "metadata": {"nam": "x"}})),
        ("PATCH", one.as_str(), STRATEGIC, &json!({"dat": {}, "metadata": {"nam": "x"}})),
    ] {
        let strict = cluster.ask_as(method, &format!("{path}?fieldValidation=Strict"), kind, body).await;
        assert!(matches!(strict.code, 400 | 422), "{method} {kind}: {}", strict.body);
        assert!(strict.message().contains(&format!("strict decoding error: {fields}")), "{}", strict.message());
        if method != "POST" {
            let warned = cluster.ask_as(method, &format!("{path}?fieldValidation=Warn"), kind, body).await;
            assert_eq!((warned.code, warned.warnings().len()), (200, 2), "{method} {kind}: {}", warned.body);
        }
    }
    cluster.end().await;
}

#[tokio::test]
async fn whoever_changes_a_field_owns_it() {
    let cluster = Cluster::start().await;
    let one = format!("{MAPS}/a");
    cluster.ok("POST", &format!("{MAPS}?fieldManager=maker"), &map("a", "1")).await;
    let put = cluster.ok("PUT", &format!("{one}?fieldManager=putter"), &map("a", "2")).await;
    let owner = |object: &Value| {
        let entries = object["metadata"]["managedFields"].as_array().unwrap().clone();
        let of: Vec<_> = entries.into_iter().filter(|e| e["fieldsV1"]["f:data"].get("f:k").is_some()).collect();
        of.iter().map(|e| format!("{} {}", e["manager"], e["operation"]).replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(owner(&put), ["putter Update"]);
    let patched = cluster.ask_as("PATCH", &format!("{one}?fieldManager=patcher"), MERGE, &json!({"data": {"k": "3"}})).await;
    assert_eq!(owner(&patched.body), ["patcher Update"]);
    cluster.end().await;
}

#[tokio::test]
async fn a_dry_run_leaves_everything_as_it_was() {
    let cluster = Cluster::start().await;
    let one = format!("{MAPS}/a");
    cluster.ok("POST", MAPS, &map("a", "1")).await;
    let before = cluster.get(MAPS).await.body["items"].clone();
    let dry = |path: &str| format!("{path}?dryRun=All");
    let made = cluster.ok("POST", &dry(MAPS), &map("b", "1")).await;
    assert!(made["metadata"]["uid"].is_string() && made["metadata"].get("resourceVersion").is_none(), "{made}");
    assert_eq!(cluster.ok("PUT", &dry(&one), &map("a", "2")).await["data"]["k"], "2");
    let patched = cluster.ask_as("PATCH", &dry(&one), MERGE, &json!({"data": {"k": "3"}})).await;
    assert_eq!(patched.body["data"]["k"], "3");
    let applied = cluster.ask_as("PATCH", &format!("{MAPS}/c?dryRun=All&fieldManager=m"), APPLY, &map("c", "1")).await;
    assert_eq!(applied.code, 201, "{}", applied.body);
    cluster.ok("DELETE", &dry(&one), &Value::Null).await;
    cluster.ok("DELETE", &one, &json!({"dryRun": ["All"]})).await;
    cluster.ok("DELETE", &dry(MAPS), &Value::Null).await;
    assert_eq!(cluster.get(MAPS).await.body["items"], before);
    cluster.end().await;
}

#[tokio::test]
async fn a_token_ends_when_it_says() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.ok("POST", accounts, &json!({"metadata": {"name": "sa"}})).await;
    let asked = cluster.ok("POST", &format!("{accounts}/sa/token"), &json!({"spec": {}})).await;
    let keys = cluster.api.pki().service_account().await;
    let claims = keys.verify(asked["status"]["token"].as_str().unwrap()).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let expired = "[invalid bearer token, service account token has expired]";
    let early = "[invalid bearer token, service account token is not valid yet]";
    for (claim, at, error) in [("exp", now + 600, None), ("exp", now - 600, Some(expired)), ("nbf", now + 600, Some(early))] {
        let mut claims = claims.clone();
        claims[claim] = json!(at);
        let token = keys.sign(&claims).unwrap();
        let review = json!({"spec": {"token": token}});
        let status = cluster.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review).await["status"].clone();
        assert_eq!(status["error"].as_str(), error, "{claim}");
        assert_eq!(status["authenticated"] == json!(true), error.is_none(), "{status}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_status_takes_no_spec_along_nor_a_spec_a_status() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"selector": {"matchLabels": {"a": "b"}}, "template": pod});
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    let scaled = json!({"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let seen = json!("2026-01-02T03:04:05Z");
    // Where it is, its spec, what is changed of it, and of its status.
    let rows = [
        ("/apis/apps/v1/namespaces/default/deployments", &set, "/replicas", json!(7), "observedGeneration", json!(1)),
        ("/apis/apps/v1/namespaces/default/replicasets", &set, "/replicas", json!(7), "observedGeneration", json!(1)),
        ("/apis/batch/v1/namespaces/default/jobs", &job, "/parallelism", json!(7), "active", json!(1)),
        ("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &scaled, "/maxReplicas", json!(9), "lastScaleTime", seen),
        ("/api/v1/namespaces/default/persistentvolumeclaims", &claim, "/storageClassName", json!("x"), "phase", json!("Pending")),
        ("/api/v1/namespaces/default/pods", &pod["spec"], "/containers/0/image", json!("j"), "message", json!("m")),
        ("/api/v1/nodes", &json!({}), "/unschedulable", json!(true), "phase", json!("Running")),
        (QUOTAS, &json!({"hard": {"pods": "100"}}), "/hard", json!({"pods": "2"}), "hard", json!({"pods": "9"})),
    ];
    for (path, spec, at, new, field, value) in rows {
        let mut made = cluster.ok("POST", path, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
        let before = made["spec"].clone();
        let (parent, key) = at.rsplit_once('/').unwrap();
        made["spec"].pointer_mut(parent).unwrap()[key] = new.clone();
        made["status"][field] = value.clone();
        let put = cluster.ask("PUT", &format!("{path}/a/status"), &made).await;
        assert_eq!((put.code, &put.body["spec"], &put.body["status"][field]), (200, &before, &value), "{path}: {}", put.body);
        let patch = json!({"spec": {key: new}, "status": {field: value}});
        let patched = cluster.ask_as("PATCH", &format!("{path}/a/status"), MERGE, &patch).await;
        assert_eq!((patched.code, &patched.body["spec"]), (200, &before), "{path}: {}", patched.body);
        // And the other way round.
        let status = patched.body["status"].clone();
        let cleared = cluster.ask_as("PATCH", &format!("{path}/a"), MERGE, &json!({"status": {field: null}})).await;
        assert_eq!((cleared.code, &cleared.body["status"]), (200, &status), "{path}: {}", cleared.body);
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_full_quota_lets_nothing_more_in() {
    let cluster = Cluster::start().await;
    quota(&cluster, "count/configmaps", "1").await;
    cluster.ok("POST", MAPS, &map("a", "1")).await;
    let refused = cluster.ask("POST", MAPS, &map("b", "1")).await;
    let why = "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1";
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(refused.message().ends_with(why), "{}", refused.message());
    assert_eq!(cluster.get(&format!("{MAPS}/b")).await.code, 404);
    cluster.end().await;
}

#[tokio::test]
async fn a_limit_holds_from_the_moment_it_is_made() {
    let cluster = Cluster::start().await;
    let ranges = "/api/v1/namespaces/default/limitranges";
    let limits = json!([{"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "3"}}]);
    cluster.ok("POST", ranges, &json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |cpu: &Value| {
        let limits = if cpu.is_null() { json!({}) } else { json!({"limits": {"cpu": cpu}}) };
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": limits}]}})
    };
    assert_eq!(cluster.ask("POST", pods, &pod(&json!("4"))).await.code, 403);
    let made = cluster.ok("POST", pods, &pod(&Value::Null)).await;
    assert_eq!(made["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    cluster.end().await;
}
