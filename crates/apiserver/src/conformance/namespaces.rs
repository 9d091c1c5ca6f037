//! Namespaces and ResourceQuotas as objects: patched, updated, their status and finalizers. What controllers do with them is in
//! the crate `e2e`. Tests only.

use serde_json::{Value, json};

use super::{merge, names, sure};
use crate::testing::Cluster;

const SPACES: &str = "/api/v1/namespaces";

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[tokio::test]
async fn a_namespace_is_patched_and_updated() {
    let cluster = Cluster::start().await;
    sure(&cluster, "POST", SPACES, &namespace("n")).await;
    let path = format!("{SPACES}/n");
    let patch = json!({"metadata": {"labels": {"testLabel": "testValue"}}});
    let answer = cluster.ask_as("PATCH", &path, "application/strategic-merge-patch+json", &patch).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let mut read = sure(&cluster, "GET", &path, &Value::Null).await;
    assert_eq!(read["metadata"]["labels"], json!({"testLabel": "testValue", "kubernetes.io/metadata.name": "n"}));
    read["metadata"]["labels"]["updated"] = json!("yes");
    assert_eq!(sure(&cluster, "PUT", &path, &read).await["metadata"]["labels"]["updated"], "yes");
    cluster.end().await;
}

#[tokio::test]
async fn the_status_of_a_namespace_is_patched_and_updated() {
    let cluster = Cluster::start().await;
    sure(&cluster, "POST", SPACES, &namespace("n")).await;
    let path = format!("{SPACES}/n/status");
    let read = sure(&cluster, "GET", &path, &Value::Null).await;
    assert_eq!(read["status"]["phase"], "Active");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Patched by an e2e test"});
    let patch = json!({"metadata": {"annotations": {"e2e-patched-ns-status": "n"}}, "status": {"conditions": [condition("StatusPatch")]}});
    let patched = merge(&cluster, &path, &patch).await;
    assert_eq!(patched["metadata"]["annotations"]["e2e-patched-ns-status"], "n");
    assert_eq!(patched["status"]["conditions"][0]["reason"], "E2E");
    let mut read = sure(&cluster, "GET", &path, &Value::Null).await;
    read["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdate"));
    let updated = sure(&cluster, "PUT", &path, &read).await;
    let kinds: Vec<&Value> = updated["status"]["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!((kinds, &updated["status"]["phase"]), (vec![&json!("StatusPatch"), &json!("StatusUpdate")], &json!("Active")));
    cluster.end().await;
}

#[tokio::test]
async fn a_finalizer_is_put_on_a_namespace_and_taken_away() {
    let cluster = Cluster::start().await;
    let mut made = sure(&cluster, "POST", SPACES, &namespace("n")).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    made["spec"]["finalizers"].as_array_mut().unwrap().push(json!("e2e.example.com/fakeFinalizer"));
    let path = format!("{SPACES}/n/finalize");
    let updated = sure(&cluster, "PUT", &path, &made).await;
    assert_eq!(updated["spec"]["finalizers"], json!(["kubernetes", "e2e.example.com/fakeFinalizer"]));
    let mut read = sure(&cluster, "GET", &format!("{SPACES}/n"), &Value::Null).await;
    assert_eq!(read["spec"]["finalizers"].as_array().unwrap().len(), 2);
    read["spec"]["finalizers"] = json!(["kubernetes"]);
    sure(&cluster, "PUT", &path, &read).await;
    let read = sure(&cluster, "GET", &format!("{SPACES}/n"), &Value::Null).await;
    assert_eq!(read["spec"]["finalizers"], json!(["kubernetes"]));
    cluster.end().await;
}

fn quota(name: &str, cpu: &str, memory: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "labels": {"e2e": name}},
        "spec": {"hard": {"cpu": cpu, "memory": memory}}})
}

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

#[tokio::test]
async fn a_quota_is_updated_and_deleted() {
    let cluster = Cluster::start().await;
    let mut made = sure(&cluster, "POST", QUOTAS, &quota("q", "1", "500Mi")).await;
    assert_eq!(made["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    made["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    sure(&cluster, "PUT", &format!("{QUOTAS}/q"), &made).await;
    assert_eq!(sure(&cluster, "GET", &format!("{QUOTAS}/q"), &Value::Null).await["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    sure(&cluster, "DELETE", &format!("{QUOTAS}/q"), &Value::Null).await;
    assert_eq!(cluster.get(&format!("{QUOTAS}/q")).await.code, 404);
    cluster.end().await;
}

#[tokio::test]
async fn a_quota_lives_is_listed_patched_and_deleted_by_label() {
    let cluster = Cluster::start().await;
    sure(&cluster, "POST", QUOTAS, &quota("q", "1", "500Mi")).await;
    let all = "/api/v1/resourcequotas?labelSelector=e2e%3Dq";
    assert_eq!(names(&sure(&cluster, "GET", all, &Value::Null).await), ["q"]);
    let patch = json!({"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let answer = cluster.ask_as("PATCH", &format!("{QUOTAS}/q"), "application/strategic-merge-patch+json", &patch).await;
    assert_eq!((answer.code, &answer.body["spec"]["hard"]["memory"]), (200, &json!("750Mi")), "{}", answer.body);
    let patched = format!("{QUOTAS}?labelSelector=q%3Dpatched");
    sure(&cluster, "DELETE", &patched, &Value::Null).await;
    assert_eq!(names(&sure(&cluster, "GET", all, &Value::Null).await), Vec::<&str>::new());
    cluster.end().await;
}

#[tokio::test]
async fn the_status_of_a_quota_is_written_apart_from_its_spec() {
    let cluster = Cluster::start().await;
    sure(&cluster, "POST", QUOTAS, &quota("q", "500m", "500Mi")).await;
    let (path, status) = (format!("{QUOTAS}/q"), format!("{QUOTAS}/q/status"));
    let mut read = sure(&cluster, "GET", &path, &Value::Null).await;
    read["status"]["hard"] = read["spec"]["hard"].clone();
    let updated = sure(&cluster, "PUT", &status, &read).await;
    assert_eq!(updated["status"]["hard"], json!({"cpu": "500m", "memory": "500Mi"}));
    let hard = json!({"cpu": "1", "memory": "1Gi"});
    let patched = merge(&cluster, &path, &json!({"spec": {"hard": hard}})).await;
    assert_eq!((&patched["spec"]["hard"], &patched["status"]["hard"]["cpu"]), (&hard, &json!("500m")));
    assert_eq!(merge(&cluster, &status, &json!({"status": {"hard": hard}})).await["status"]["hard"], hard);
    assert_eq!(sure(&cluster, "GET", &status, &Value::Null).await["status"]["hard"], hard);
    // A patch of the status leaves the spec alone, whatever it says.
    let odd = json!({"spec": {"hard": {"cpu": "9"}}, "status": {"hard": {"cpu": "2", "memory": "2Gi"}}});
    let patched = merge(&cluster, &status, &odd).await;
    assert_eq!((&patched["spec"]["hard"], &patched["status"]["hard"]), (&hard, &json!({"cpu": "2", "memory": "2Gi"})));
    cluster.end().await;
}
