//! CustomResourceDefinitions: made, listed, watched, changed; defaults of their objects, and selectable fields. Tests only.

use serde_json::{Value, json};

use super::{DEFINITIONS, Watch, define, merge, names};
use crate::testing::Cluster;

fn labelled(group: &str, kind: &str, label: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "labels": {"test": label}},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
}

#[tokio::test]
async fn definitions_are_listed_and_deleted_by_label() {
    let cluster = Cluster::start().await;
    for number in 0..10 {
        cluster.ok("POST", DEFINITIONS, &labelled("mine.example.com", &format!("Thing{number}"), "mine")).await;
    }
    cluster.ok("POST", DEFINITIONS, &labelled("other.example.com", "Other", "other")).await;
    let mine = format!("{DEFINITIONS}?labelSelector=test%3Dmine");
    assert_eq!(names(&cluster.get(&mine).await.body).len(), 10);
    cluster.ok("DELETE", &mine, &Value::Null).await;
    trial::found("they are gone", || async { names(&cluster.get(&mine).await.body).is_empty().then_some(()) }).await;
    assert_eq!(names(&cluster.get(DEFINITIONS).await.body), ["others.other.example.com"]);
    cluster.end().await;
}

#[tokio::test]
async fn the_status_of_a_definition_is_read_updated_and_patched() {
    let cluster = Cluster::start().await;
    define(&cluster, "st.example.com", "Thing", &[("v1", json!({"type": "object"}))]).await;
    let path = format!("{DEFINITIONS}/things.st.example.com/status");
    let condition = |of: &Value, kind: &str| {
        of["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).map(|c| c["reason"].clone())
    };
    let made = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    // Its own controllers write there too.
    let updated = trial::found("the status is updated", || async {
        let mut read = cluster.get(&path).await.body;
        assert!(condition(&read, "Established").is_some(), "{read}");
        read["status"]["conditions"].as_array_mut().unwrap().push(made.clone());
        read["spec"]["scope"] = json!("Cluster");
        let answer = cluster.ask("PUT", &path, &read).await;
        (answer.code == 200).then_some(answer.body)
    })
    .await;
    assert_eq!(condition(&updated, "StatusUpdate"), Some(json!("E2E")));
    assert_eq!(updated["spec"]["scope"], "Namespaced", "only the status is written");
    let mut conditions = updated["status"]["conditions"].clone();
    conditions.as_array_mut().unwrap().push(json!({"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "m"}));
    let patched = merge(&cluster, &path, &json!({"status": {"conditions": conditions}})).await;
    assert_eq!(condition(&patched, "StatusPatched"), Some(json!("E2E")));
    let read = cluster.get(&format!("{DEFINITIONS}/things.st.example.com")).await.body;
    assert!(condition(&read, "StatusUpdate").is_some() && condition(&read, "StatusPatched").is_some(), "{read}");
    cluster.end().await;
}

#[tokio::test]
async fn objects_of_a_definition_are_watched() {
    let cluster = Cluster::start().await;
    define(&cluster, "w.example.com", "Watched", &[("v1", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))]).await;
    let path = "/apis/w.example.com/v1/namespaces/default/watcheds";
    let mut watches = Vec::new();
    for name in ["name1", "name2"] {
        watches.push(Watch::start(&cluster, &format!("{path}?watch=1&fieldSelector=metadata.name%3D{name}")).await);
        let object = json!({"apiVersion": "w.example.com/v1", "kind": "Watched", "metadata": {"name": name}});
        cluster.ok("POST", path, &object).await;
    }
    for (name, watch) in ["name1", "name2"].iter().zip(&mut watches) {
        merge(&cluster, &format!("{path}/{name}"), &json!({"content": {"key": "value"}})).await;
        cluster.ok("DELETE", &format!("{path}/{name}"), &Value::Null).await;
        for kind in ["ADDED", "MODIFIED", "DELETED"] {
            let event = watch.next().await;
            assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(kind), &json!(name)), "{event}");
        }
    }
    // And the definition itself.
    let mut watch = Watch::start(&cluster, &format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3Dwatcheds.w.example.com")).await;
    assert_eq!(watch.next().await["type"], "ADDED");
    cluster.ok("DELETE", &format!("{DEFINITIONS}/watcheds.w.example.com"), &Value::Null).await;
    while watch.next().await["type"] != "DELETED" {}
    cluster.end().await;
}

fn with_defaults(properties: &Value) -> Value {
    json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}]}})
}

#[tokio::test]
async fn defaults_come_with_requests_and_from_storage() {
    let cluster = Cluster::start().await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    define(&cluster, "d.example.com", "Thing", &[("v1", schema)]).await;
    let (path, definition) = ("/apis/d.example.com/v1/namespaces/default/things", format!("{DEFINITIONS}/things.d.example.com"));
    let thing = |name: &str| json!({"apiVersion": "d.example.com/v1", "kind": "Thing", "metadata": {"name": name}});
    let made = cluster.ok("POST", path, &thing("foo")).await;
    assert!(made.get("a").is_none() && made.get("b").is_none(), "{made}");
    merge(&cluster, &definition, &with_defaults(&json!({"a": {"type": "string", "default": "A"}, "b": {"type": "string"}}))).await;
    let read = |name: &'static str, key: &'static str| {
        let path = format!("{path}/{name}");
        let cluster = &cluster;
        async move {
            trial::found("the default is read", || async {
                let found = cluster.get(&path).await.body;
                found.get(key).is_some().then_some(found)
            })
            .await
        }
    };
    assert_eq!(read("foo", "a").await["a"], "A");
    let made = cluster.ok("POST", path, &thing("bar")).await;
    assert_eq!((&made["a"], made.get("b")), (&json!("A"), None));
    merge(&cluster, &definition, &with_defaults(&json!({"a": {"type": "string"}, "b": {"type": "string", "default": "B"}}))).await;
    let old = read("foo", "b").await;
    assert_eq!((old.get("a"), &old["b"]), (None, &json!("B")), "it was never written");
    let written = read("bar", "b").await;
    assert_eq!((&written["a"], &written["b"]), (&json!("A"), &json!("B")), "the old default was written");
    cluster.end().await;
}
