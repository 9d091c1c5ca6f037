//! Steps that upstream's conformance tests take at the API alone, by their names in `docs/conformance.tsv`. Tests only.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::testing::Cluster;

const MERGE: &str = "application/merge-patch+json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A watch that is read event by event.
struct Watch {
    body: crate::Body,
    events: std::collections::VecDeque<Value>,
}

impl Watch {
    async fn start(cluster: &Cluster, path: &str) -> Self {
        let request = Request::builder().uri(path).body(Full::<Bytes>::default()).unwrap();
        let answer = cluster.api.service().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        Self { body: answer.into_body(), events: std::collections::VecDeque::new() }
    }

    async fn next(&mut self) -> Value {
        while self.events.is_empty() {
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame()).await;
            let bytes = frame.expect("an event").unwrap().unwrap().into_data().unwrap();
            self.events.extend(serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>().map(Result::unwrap));
        }
        self.events.pop_front().unwrap()
    }

    /// The next event's type, name and `data.n`.
    async fn told(&mut self) -> (String, String, String) {
        let event = self.next().await;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/type"), text("/object/metadata/name"), text("/object/data/n"))
    }
}

/// What upstream's "should support ... API operations" do: discovery, then each verb, on objects with a label.
async fn api_operations(group: &str, version: &str, resource: &str, subresources: &[&str], spec: &Value) {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await.body["groups"].clone();
    let of_group = groups.as_array().unwrap().iter().find(|g| g["name"] == group).unwrap();
    assert!(of_group["versions"].as_array().unwrap().iter().any(|v| v["version"] == version), "{of_group}");
    assert!(cluster.get(&format!("/apis/{group}")).await.body["versions"].as_array().unwrap().iter().any(|v| v["version"] == version));
    let base = format!("/apis/{group}/{version}");
    let listed = cluster.get(&base).await.body["resources"].clone();
    let names: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    for name in std::iter::once(resource.to_owned()).chain(subresources.iter().map(|s| format!("{resource}/{s}"))) {
        assert!(names.contains(&name.as_str()), "{name} in {names:?}");
    }
    let (all, ours) = (format!("{base}/{resource}"), format!("{base}/{resource}?labelSelector=special%3Dyes"));
    let object = |name: &str| {
        let mut object = spec.clone();
        object["metadata"] = json!({"name": name, "labels": {"special": "yes"}});
        object
    };
    let mut made = Value::Null;
    for name in ["one", "two", "three"] {
        made = cluster.ok("POST", &all, &object(name)).await;
    }
    let one = format!("{all}/three");
    assert_eq!(cluster.get(&one).await.body["metadata"]["uid"], made["metadata"]["uid"]);
    let list = cluster.get(&ours).await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::start(&cluster, &format!("{ours}&watch=1&resourceVersion={from}")).await;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = cluster.ask_as("PATCH", &one, MERGE, &patch).await;
    assert_eq!((patched.code, &patched.body["metadata"]["annotations"]["patched"]), (200, &json!("true")), "{}", patched.body);
    let mut updated = patched.body;
    updated["metadata"]["annotations"]["updated"] = json!("true");
    assert_eq!(cluster.ok("PUT", &one, &updated).await["metadata"]["annotations"]["updated"], "true");
    for (event, annotation) in [("MODIFIED", "patched"), ("MODIFIED", "updated")] {
        let seen = watch.next().await;
        assert_eq!((&seen["type"], &seen["object"]["metadata"]["annotations"][annotation]), (&json!(event), &json!("true")), "{seen}");
    }
    for subresource in subresources {
        let path = format!("{one}/{subresource}");
        let mut read = cluster.get(&path).await.body;
        assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"], "{path}");
        let patch = json!({"metadata": {"annotations": {"through": subresource}}});
        assert_eq!(cluster.ask_as("PATCH", &path, MERGE, &patch).await.code, 200, "{path}");
        read = cluster.get(&path).await.body;
        let put = cluster.ask("PUT", &path, &read).await;
        assert_eq!(put.code, 200, "{path}: {}", put.body);
    }
    cluster.ok("DELETE", &one, &Value::Null).await;
    assert_eq!(cluster.get(&one).await.code, 404);
    cluster.ok("DELETE", &ours, &Value::Null).await;
    assert_eq!(cluster.get(&ours).await.body["items"], json!([]));
    cluster.end().await;
}

const ADMISSION: &str = "admissionregistration.k8s.io";

fn constraints() -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]})
}

#[tokio::test]
async fn flow_schema_api_operations() {
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "none-such"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/none-such"]}]}]);
    let spec = json!({"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"}, "rules": rules}});
    api_operations("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", &["status"], &spec).await;
}

#[tokio::test]
async fn priority_level_configuration_api_operations() {
    let spec = json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}});
    api_operations("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", &["status"], &spec).await;
}

#[tokio::test]
async fn validating_admission_policy_api_operations() {
    let spec = json!({"spec": {"failurePolicy": "Ignore", "matchConstraints": constraints(),
        "validations": [{"expression": "object.spec.replicas <= 100"}]}});
    api_operations(ADMISSION, "v1", "validatingadmissionpolicies", &["status"], &spec).await;
}

#[tokio::test]
async fn validating_admission_policy_binding_api_operations() {
    let spec = json!({"spec": {"policyName": "none-such", "validationActions": ["Deny"]}});
    api_operations(ADMISSION, "v1", "validatingadmissionpolicybindings", &[], &spec).await;
}

#[tokio::test]
async fn mutating_admission_policy_api_operations() {
    let expression = "Object{metadata: Object.metadata{labels: {'a': 'b'}}}";
    let spec = json!({"spec": {"failurePolicy": "Ignore", "reinvocationPolicy": "Never", "matchConstraints": constraints(),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]}});
    api_operations(ADMISSION, "v1", "mutatingadmissionpolicies", &[], &spec).await;
}

#[tokio::test]
async fn mutating_admission_policy_binding_api_operations() {
    api_operations(ADMISSION, "v1", "mutatingadmissionpolicybindings", &[], &json!({"spec": {"policyName": "none-such"}})).await;
}

fn labelled(name: &str, label: &str, n: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch": label}}, "data": {"n": n}})
}

async fn put(cluster: &Cluster, name: &str, label: &str, n: &str) -> String {
    let put = cluster.ok("PUT", &format!("{MAPS}/{name}"), &labelled(name, label, n)).await;
    put["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn event(kind: &str, name: &str, n: &str) -> (String, String, String) {
    (kind.to_owned(), name.to_owned(), n.to_owned())
}

#[tokio::test]
async fn watchers_observe_add_update_and_delete() {
    let cluster = Cluster::start().await;
    let mut a = Watch::start(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DA")).await;
    let mut b = Watch::start(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DB")).await;
    let mut both = Watch::start(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch+in+(A,B)")).await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    put(&cluster, "a", "A", "1").await;
    put(&cluster, "a", "A", "2").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    cluster.ok("POST", MAPS, &labelled("b", "B", "0")).await;
    cluster.ok("DELETE", &format!("{MAPS}/b"), &Value::Null).await;
    for (kind, n) in [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("DELETED", "2")] {
        assert_eq!(a.told().await, event(kind, "a", n));
        assert_eq!(both.told().await, event(kind, "a", n));
    }
    for kind in ["ADDED", "DELETED"] {
        assert_eq!(b.told().await, event(kind, "b", "0"));
        assert_eq!(both.told().await, event(kind, "b", "0"));
    }
    cluster.end().await;
}

#[tokio::test]
async fn watchers_start_from_a_resource_version() {
    let cluster = Cluster::start().await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    let first = put(&cluster, "a", "A", "1").await;
    put(&cluster, "a", "A", "2").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    let mut watch = Watch::start(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DA&resourceVersion={first}")).await;
    assert_eq!(watch.told().await, event("MODIFIED", "a", "2"));
    assert_eq!(watch.told().await, event("DELETED", "a", "2"));
    cluster.end().await;
}

#[tokio::test]
async fn watchers_restart_from_the_last_version_observed() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}?watch=1&labelSelector=watch%3DA");
    let mut watch = Watch::start(&cluster, &path).await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    put(&cluster, "a", "A", "1").await;
    assert_eq!(watch.told().await, event("ADDED", "a", "0"));
    let last = watch.next().await["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    drop(watch);
    put(&cluster, "a", "A", "2").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    let mut watch = Watch::start(&cluster, &format!("{path}&resourceVersion={last}")).await;
    assert_eq!(watch.told().await, event("MODIFIED", "a", "2"));
    assert_eq!(watch.told().await, event("DELETED", "a", "2"));
    cluster.end().await;
}

#[tokio::test]
async fn watchers_observe_a_deletion_when_the_selector_is_left() {
    let cluster = Cluster::start().await;
    let mut watch = Watch::start(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DA")).await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    put(&cluster, "a", "A", "1").await;
    put(&cluster, "a", "other", "1").await;
    assert_eq!(watch.told().await, event("ADDED", "a", "0"));
    assert_eq!(watch.told().await, event("MODIFIED", "a", "1"));
    assert_eq!(watch.told().await, event("DELETED", "a", "1"));
    // Nothing is heard of it until it is back.
    put(&cluster, "a", "other", "2").await;
    put(&cluster, "a", "A", "2").await;
    put(&cluster, "a", "A", "3").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    for (kind, n) in [("ADDED", "2"), ("MODIFIED", "3"), ("DELETED", "3")] {
        assert_eq!(watch.told().await, event(kind, "a", n));
    }
    cluster.end().await;
}

#[tokio::test]
async fn lists_come_in_chunks() {
    let cluster = Cluster::start().await;
    let templates = "/api/v1/namespaces/default/podtemplates";
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    for number in 0..400 {
        let name = format!("template-{number:04}");
        cluster.ok("POST", templates, &json!({"metadata": {"name": name}, "template": template})).await;
    }
    for limit in [17, 400, 133] {
        let (mut seen, mut token, mut version) = (0, String::new(), Value::Null);
        loop {
            let path = format!("{templates}?limit={limit}&continue={token}");
            let page = cluster.ok("GET", &path, &Value::Null).await;
            let (meta, items) = (&page["metadata"], page["items"].as_array().unwrap());
            assert!(items.len() <= limit);
            assert!(version.is_null() || version == meta["resourceVersion"], "one snapshot");
            version = meta["resourceVersion"].clone();
            for item in items {
                assert_eq!(item["metadata"]["name"], format!("template-{seen:04}"));
                seen += 1;
            }
            token = meta["continue"].as_str().unwrap_or("").to_owned();
            let left = meta["remainingItemCount"].as_u64().unwrap_or(0);
            assert_eq!(left, 400 - seen);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 400);
    }
    assert_eq!(cluster.ok("GET", templates, &Value::Null).await["items"].as_array().unwrap().len(), 400);
    cluster.end().await;
}

#[tokio::test]
async fn webhook_configurations_keep_valid_match_conditions_and_refuse_others() {
    let cluster = Cluster::start().await;
    for kind in ["mutating", "validating"] {
        let path = format!("/apis/{ADMISSION}/v1/{kind}webhookconfigurations");
        let with = |expression: &str| {
            json!({"metadata": {"name": "w"}, "webhooks": [{"name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/x"}, "matchConditions": [{"name": "c", "expression": expression}],
                "rules": [{"operations": ["CREATE"], "apiGroups": ["g.io"], "apiVersions": ["v1"], "resources": ["none"]}]}]})
        };
        let refused = cluster.ask("POST", &path, &with("... [] bad expression")).await;
        assert_eq!(refused.code, 422, "{}", refused.body);
        assert!(refused.message().contains("compilation failed"), "{}", refused.message());
        let at = "/webhooks/0/matchConditions/0/expression";
        cluster.ok("POST", &path, &with("object.metadata.namespace == 'a'")).await;
        let mut read = cluster.get(&format!("{path}/w")).await.body;
        assert_eq!(read.pointer(at), Some(&json!("object.metadata.namespace == 'a'")));
        *read.pointer_mut(at).unwrap() = json!("object.metadata.name != 'b'");
        cluster.ok("PUT", &format!("{path}/w"), &read).await;
        assert_eq!(cluster.get(&format!("{path}/w")).await.body.pointer(at), Some(&json!("object.metadata.name != 'b'")));
    }
    cluster.end().await;
}

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
