//! Admission policies judge and change Deployments. Tests only.

use serde_json::{Value, json};

use super::{sure, typed};
use crate::testing::Cluster;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn constraints() -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]})
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// A policy and its binding, for namespaces with the label `unique=yes`.
async fn put_in_force(cluster: &Cluster, kind: &str, spec: &Value) {
    let space = json!({"metadata": {"labels": {"unique": "yes"}}});
    super::merge(cluster, "/api/v1/namespaces/default", &space).await;
    let plural = if kind.starts_with("Validating") { "validatingadmissionpolic" } else { "mutatingadmissionpolic" };
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    sure(cluster, "POST", &format!("{GROUP}/{plural}ies"), &policy).await;
    let mut binding = json!({"policyName": "p", "matchResources": {"namespaceSelector": {"matchLabels": {"unique": "yes"}}}});
    if kind.starts_with("Validating") {
        binding["validationActions"] = json!(["Deny"]);
    }
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": {"name": "b"}, "spec": binding});
    sure(cluster, "POST", &format!("{GROUP}/{plural}ybindings"), &binding).await;
}

/// Asks with a dry run until the policy is in force, which is not at once.
async fn in_force(cluster: &Cluster, marker: &Value, judged: impl Fn(u16, &Value) -> bool) {
    trial::found("the policy is in force", || async {
        let answer = typed(cluster, "POST", &format!("{DEPLOYMENTS}?dryRun=All"), marker).await;
        judged(answer.code, &answer.body).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_policy_judges_deployments() {
    let cluster = Cluster::start().await;
    let spec = json!({"failurePolicy": "Fail", "matchConstraints": constraints(), "validations": [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == 'default'", "message": "Internal error! Other namespace should not be allowed."}]});
    put_in_force(&cluster, "ValidatingAdmissionPolicy", &spec).await;
    in_force(&cluster, &deployment("marker", 1), |code, _| code == 422).await;
    sure(&cluster, "POST", DEPLOYMENTS, &deployment("replicated", 2)).await;
    let refused = typed(&cluster, "POST", DEPLOYMENTS, &deployment("single", 1)).await;
    assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")), "{}", refused.body);
    assert!(refused.message().contains("denied request: wants replicas > 1, got 1"), "{}", refused.message());
    // Elsewhere it is not bound.
    sure(&cluster, "POST", "/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free"}})).await;
    sure(&cluster, "POST", "/apis/apps/v1/namespaces/free/deployments", &deployment("single", 1)).await;
    cluster.end().await;
}

#[tokio::test]
async fn expressions_refer_to_variables() {
    let cluster = Cluster::start().await;
    let spec = json!({"failurePolicy": "Fail", "matchConstraints": constraints(),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [{"expression": "variables.replicas > 1"}, {"expression": "variables.oddReplicas"}]});
    put_in_force(&cluster, "ValidatingAdmissionPolicy", &spec).await;
    in_force(&cluster, &deployment("marker", 1), |code, _| code == 422).await;
    sure(&cluster, "POST", DEPLOYMENTS, &deployment("three", 3)).await;
    for replicas in [1, 4] {
        let refused = typed(&cluster, "POST", DEPLOYMENTS, &deployment("bad", replicas)).await;
        assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")), "{replicas}: {}", refused.body);
    }
    cluster.end().await;
}

fn mutations(expression: &str) -> Value {
    json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": constraints(),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
}

#[tokio::test]
async fn a_policy_changes_deployments() {
    let cluster = Cluster::start().await;
    let spec = mutations("Object{spec: Object.spec{replicas: object.spec.replicas + 10}}");
    put_in_force(&cluster, "MutatingAdmissionPolicy", &spec).await;
    in_force(&cluster, &deployment("marker", 1), |_, made| made["spec"]["replicas"] == 11).await;
    let made = sure(&cluster, "POST", DEPLOYMENTS, &deployment("grown", 2)).await;
    assert_eq!(made["spec"]["replicas"], 12);
    let read = sure(&cluster, "GET", &format!("{DEPLOYMENTS}/grown"), &Value::Null).await;
    assert_eq!(read["spec"]["replicas"], 12);
    cluster.end().await;
}

#[tokio::test]
async fn a_policy_annotates_deployments() {
    let cluster = Cluster::start().await;
    let spec = mutations("Object{metadata: Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}}");
    put_in_force(&cluster, "MutatingAdmissionPolicy", &spec).await;
    let mut own = deployment("marker", 1);
    own["metadata"]["annotations"] = json!({"own": "kept"});
    in_force(&cluster, &own, |_, made| made["metadata"]["annotations"]["my-foo-annotation"] == "myAnnotationValue").await;
    own["metadata"]["name"] = json!("annotated");
    let made = sure(&cluster, "POST", DEPLOYMENTS, &own).await;
    assert_eq!(made["metadata"]["annotations"], json!({"my-foo-annotation": "myAnnotationValue", "own": "kept"}));
    cluster.end().await;
}
