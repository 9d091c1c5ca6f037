//! Discovery: groups, versions, the aggregated documents, the server's version. Tests only.

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use super::define;
use crate::testing::{Answer, Cluster};

#[tokio::test]
async fn discovery_has_every_group_its_versions_and_the_extensions() {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await.body["groups"].clone();
    for group in groups.as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let own = cluster.get(&format!("/apis/{name}")).await.body;
        let (preferred, versions) = (&own["preferredVersion"]["groupVersion"], own["versions"].as_array().unwrap());
        assert!(versions.iter().any(|v| v["groupVersion"] == *preferred), "{own}");
        assert_eq!(own["preferredVersion"], group["preferredVersion"]);
        for version in versions {
            let gv = version["groupVersion"].as_str().unwrap();
            let list = cluster.get(&format!("/apis/{gv}")).await.body;
            assert_eq!(list["groupVersion"], gv);
            assert!(!list["resources"].as_array().unwrap().is_empty(), "{list}");
        }
    }
    for (gv, resource) in [
        ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
        ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
        ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    ] {
        let list = cluster.get(&format!("/apis/{gv}")).await.body;
        assert!(list["resources"].as_array().unwrap().iter().any(|r| r["name"] == resource), "{list}");
    }
    let version = cluster.get("/version").await.body;
    for part in ["major", "minor"] {
        assert!(version[part].as_str().unwrap().parse::<u32>().is_ok(), "{version}");
    }
    cluster.end().await;
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn accepting(cluster: &Cluster, path: &str, accept: &str) -> Answer {
    let request = Request::builder().uri(path).header("accept", accept).body(Full::default()).unwrap();
    cluster.send(request).await
}

/// Resource names of a version in an aggregated document.
fn resources(document: &Value, group: &str, version: &str) -> Vec<String> {
    let groups = document["items"].as_array().unwrap().iter();
    let of_group = groups.filter(|g| g["metadata"]["name"].as_str().unwrap_or_default() == group);
    let versions = of_group.flat_map(|g| g["versions"].as_array().unwrap().iter()).filter(|v| v["version"] == version);
    versions.flat_map(|v| v["resources"].as_array().unwrap()).map(|r| r["resource"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn aggregated_discovery_has_all_built_in_resources() {
    let cluster = Cluster::start().await;
    let accept = format!("{AGGREGATED},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json");
    let (core, groups) = (accepting(&cluster, "/api", &accept).await, accepting(&cluster, "/apis", &accept).await);
    assert_eq!((&core.body["kind"], &groups.body["kind"]), (&json!("APIGroupDiscoveryList"), &json!("APIGroupDiscoveryList")));
    // Every list there is says the same.
    let mut all = vec![("v1".to_owned(), String::new(), "v1".to_owned())];
    for group in cluster.get("/apis").await.body["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            all.push((text(&version["groupVersion"]), text(&group["name"]), text(&version["version"])));
        }
    }
    assert!(all.len() > 20);
    for (path, group, version) in all {
        let (prefix, document) = if group.is_empty() { ("/api", &core.body) } else { ("/apis", &groups.body) };
        let list = cluster.get(&format!("{prefix}/{path}")).await.body;
        let mut want: Vec<&str> =
            list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).filter(|n| !n.contains('/')).collect();
        let found = resources(document, &group, &version);
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        want.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, want, "{path}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn the_accept_header_decides_between_the_discovery_documents() {
    let cluster = Cluster::start().await;
    for path in ["/api", "/apis"] {
        let answer = accepting(&cluster, path, AGGREGATED).await;
        assert_eq!(answer.headers["content-type"], AGGREGATED);
        assert_eq!((&answer.body["kind"], &answer.body["apiVersion"]), (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2")));
        let kind = if path == "/api" { "APIVersions" } else { "APIGroupList" };
        for accept in ["application/json", "*/*", "application/json;g=none.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"] {
            let answer = accepting(&cluster, path, accept).await;
            assert_eq!((answer.code, &answer.body["kind"]), (200, &json!(kind)), "{accept}");
        }
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_definition_is_in_the_aggregated_document() {
    let cluster = Cluster::start().await;
    define(&cluster, "seen.example.com", "Gadget", &[("v1", json!({"type": "object"}))]).await;
    let found = trial::found("the group is discovered", || async {
        let document = accepting(&cluster, "/apis", AGGREGATED).await.body;
        let found = resources(&document, "seen.example.com", "v1");
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(found, ["gadgets"]);
    let document = accepting(&cluster, "/apis", AGGREGATED).await.body;
    let group = document["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "seen.example.com").unwrap();
    let gadget = &group["versions"][0]["resources"][0];
    assert_eq!(gadget["responseKind"], json!({"group": "seen.example.com", "version": "v1", "kind": "Gadget"}));
    assert_eq!((&gadget["scope"], &gadget["subresources"][0]["subresource"]), (&json!("Namespaced"), &json!("status")), "{gadget}");
    cluster.end().await;
}
