//! The "API operations" of single kinds: discovery and every verb. Tests only.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{MERGE, Watch, sure, typed};
use crate::testing::Cluster;

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
    let kind = listed.as_array().unwrap().iter().find(|r| r["name"] == resource).unwrap()["kind"].clone();
    let object = |name: &str| {
        let mut object = spec.clone();
        object["kind"] = kind.clone();
        object["apiVersion"] = json!(format!("{group}/{version}"));
        object["metadata"] = json!({"name": name, "labels": {"special": "yes"}});
        object
    };
    let mut made = Value::Null;
    for name in ["one", "two", "three"] {
        made = sure(&cluster, "POST", &all, &object(name)).await;
    }
    let one = format!("{all}/three");
    assert_eq!(sure(&cluster, "GET", &one, &Value::Null).await["metadata"]["uid"], made["metadata"]["uid"]);
    let list = sure(&cluster, "GET", &ours, &Value::Null).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::typed(&cluster, &format!("{ours}&watch=1&resourceVersion={from}")).await;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = cluster.ask_as("PATCH", &one, MERGE, &patch).await;
    assert_eq!((patched.code, &patched.body["metadata"]["annotations"]["patched"]), (200, &json!("true")), "{}", patched.body);
    let mut updated = patched.body;
    updated["metadata"]["annotations"]["updated"] = json!("true");
    assert_eq!(sure(&cluster, "PUT", &one, &updated).await["metadata"]["annotations"]["updated"], "true");
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
        let put = typed(&cluster, "PUT", &path, &read).await;
        assert_eq!(put.code, 200, "{path}: {}", put.body);
    }
    sure(&cluster, "DELETE", &one, &Value::Null).await;
    assert_eq!(typed(&cluster, "GET", &one, &Value::Null).await.code, 404);
    sure(&cluster, "DELETE", &ours, &Value::Null).await;
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
async fn certificate_signing_request_api_operations() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "e2e-conformance");
    let request = base64::engine::general_purpose::STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap());
    let spec = json!({"spec": {"request": request, "signerName": "example.com/conformance", "usages": ["digital signature", "key encipherment", "server auth"]}});
    api_operations("certificates.k8s.io", "v1", "certificatesigningrequests", &["status", "approval"], &spec).await;
}
