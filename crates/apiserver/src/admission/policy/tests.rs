//! Policies of both kinds against a running API server.

use serde_json::{Value, json};

use crate::testing::{Answer, Cluster};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn put(cluster: &Cluster, kind: &str, name: &str, spec: Value) {
    let plural = format!("{}s", kind.to_lowercase()).replace("policys", "policies");
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    cluster.ok("POST", &format!("{GROUP}/{plural}"), &body).await;
}

fn on(resources: &str, change: Value) -> Value {
    let (group, resource) = resources.split_once('/').unwrap_or(("", resources));
    let mut spec = json!({"matchConstraints": {"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]},
    ]}});
    for (key, value) in change.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

/// A validating policy and a binding of the same name.
async fn validating(cluster: &Cluster, name: &str, spec: Value, binding: Value) {
    put(cluster, "ValidatingAdmissionPolicy", name, spec).await;
    let mut spec = json!({"policyName": name, "validationActions": ["Deny"]});
    for (key, value) in binding.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    put(cluster, "ValidatingAdmissionPolicyBinding", name, spec).await;
}

async fn mutating(cluster: &Cluster, name: &str, mut spec: Value, mutations: Value) {
    spec["mutations"] = mutations;
    if spec.get("reinvocationPolicy").is_none() {
        spec["reinvocationPolicy"] = json!("Never");
    }
    put(cluster, "MutatingAdmissionPolicy", name, spec).await;
    put(cluster, "MutatingAdmissionPolicyBinding", name, json!({"policyName": name})).await;
}

async fn map(cluster: &Cluster, name: &str, data: Value) -> Answer {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    cluster.ask("POST", MAPS, &body).await
}

#[tokio::test]
async fn parameters_decide_and_may_be_missing() {
    let cluster = Cluster::start().await;
    map(&cluster, "limits", json!({"max": "2"})).await;
    let spec = on(
        "configmaps",
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "others", "expression": "request.name != 'limits'"}],
            "variables": [
                {"name": "most", "expression": "int(params.data['max'])"},
                {"name": "count", "expression": "has(object.data) ? size(object.data) : 0"},
            ],
            "validations": [{
                "expression": "variables.count <= variables.most",
                "messageExpression": "'%d entries, %d are allowed'.format([variables.count, variables.most])",
            }],
        }),
    );
    let binding = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    validating(&cluster, "few", spec, binding).await;
    assert_eq!(map(&cluster, "ok", json!({"a": "1", "b": "2"})).await.code, 201);
    let refused = map(&cluster, "bad", json!({"a": "1", "b": "2", "c": "3"})).await;
    assert_eq!(refused.code, 422);
    let text = "ValidatingAdmissionPolicy 'few' with binding 'few' denied request: 3 entries, 2 are allowed";
    assert_eq!(refused.message(), format!("configmaps \"bad\" is forbidden: {text}"));

    cluster.ok("DELETE", &format!("{MAPS}/limits"), &Value::Null).await;
    let refused = map(&cluster, "other", json!({})).await;
    let text = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(refused.message().ends_with(text), "{}", refused.message());
}

#[tokio::test]
async fn failures_follow_the_policy_and_costs_are_limited() {
    let cluster = Cluster::start().await;
    let failing =
        |policy: &str| on("configmaps", json!({"failurePolicy": policy, "validations": [{"expression": "object.data.nothing == 'x'"}]}));
    validating(&cluster, "open", failing("Ignore"), json!({})).await;
    assert_eq!(map(&cluster, "a", json!({"k": "v"})).await.code, 201);
    validating(&cluster, "closed", failing("Fail"), json!({})).await;
    let refused = map(&cluster, "b", json!({"k": "v"})).await;
    let text = "expression 'object.data.nothing == 'x'' resulted in error: no such key: nothing";
    assert!(refused.code == 422 && refused.message().ends_with(text), "{}", refused.message());
    cluster.ok("DELETE", &format!("{GROUP}/validatingadmissionpolicies/closed"), &Value::Null).await;

    let list = "object.data.map(k, k)";
    let costly = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a + b + c + d != ''))))");
    validating(&cluster, "costly", on("configmaps", json!({"validations": [{"expression": costly}]})), json!({})).await;
    let many: serde_json::Map<String, Value> = (0..40).map(|i| (format!("key{i}"), json!("v"))).collect();
    let refused = map(&cluster, "c", Value::Object(many)).await;
    assert!(refused.message().ends_with("operation cancelled: actual cost limit exceeded"), "{}", refused.message());
}

#[tokio::test]
async fn expressions_see_the_namespace_the_requester_and_what_it_may_do() {
    let cluster = Cluster::start().await;
    let spec = on(
        "configmaps",
        json!({"matchConditions": [
            {"name": "may", "expression": "authorizer.requestResource.check('create').allowed() && namespaceObject == null"},
        ], "validations": [
            {"expression": "namespaceObject.metadata.name == 'default' && namespaceObject.status.phase == 'Active'"},
            {"expression": "request.operation == 'CREATE' && request.kind.kind == 'ConfigMap' && !request.dryRun && oldObject == null"},
            {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"},
            {"expression": "authorizer.requestResource.check('delete').allowed()"},
            {"expression": "!authorizer.serviceAccount('default', 'nobody').group('').resource('secrets').check('get').allowed()"},
            {"expression": "'system:masters' in request.userInfo.groups", "message": "not a master", "reason": "Forbidden"},
        ]}),
    );
    validating(
        &cluster,
        "see",
        spec,
        json!({"matchResources": {"excludeResourceRules": [
            {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "resourceNames": ["free"]},
        ]}}),
    )
    .await;
    let answer = map(&cluster, "a", json!({})).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    validating(
        &cluster,
        "never",
        on("configmaps", json!({"validations": [{"expression": "false", "reason": "Forbidden"}]})),
        json!({
            "matchResources": {"excludeResourceRules": [
                {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "resourceNames": ["free"]},
            ]},
        }),
    )
    .await;
    let refused = map(&cluster, "b", json!({})).await;
    assert!(refused.code == 403 && refused.message().ends_with("denied request: failed expression: false"), "{}", refused.message());
    assert_eq!(map(&cluster, "free", json!({})).await.code, 201);
}

#[tokio::test]
async fn other_versions_are_matched_and_shown() {
    let cluster = Cluster::start().await;
    // The rule speaks of autoscaling/v1; the request of v2.
    let spec = on(
        "autoscaling/horizontalpodautoscalers",
        json!({"validations": [
            {"expression": "object.apiVersion == 'autoscaling/v1' && object.spec.targetCPUUtilizationPercentage == 50", "message": "half"},
        ]}),
    );
    validating(&cluster, "v1", spec, json!({})).await;
    let scaler = |percent: u32| {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": format!("h{percent}")},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}},
            ]},
        })
    };
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let good = cluster.ask("POST", path, &scaler(50)).await;
    assert_eq!(good.code, 201, "{}", good.message());
    assert!(cluster.ask("POST", path, &scaler(60)).await.message().ends_with("half"));
}

#[tokio::test]
async fn mutations_merge_by_the_schema_and_run_in_order() {
    let cluster = Cluster::start().await;
    let spec = on("apps/deployments", json!({}));
    let container = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [\
        Object.spec.template.spec.containers{name: 'main', env: [Object.spec.template.spec.containers.env{name: 'A', value: '1'}]}]}}}}";
    let label = "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'example.com/env': \
        object.spec.template.spec.containers[0].env[0].name}}]";
    mutating(
        &cluster,
        "env",
        spec,
        json!([
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": container}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": label}},
        ]),
    )
    .await;
    let body = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "main", "image": "x"}, {"name": "other", "image": "y"},
        ]}}},
    });
    let made = cluster.ask("POST", "/apis/apps/v1/namespaces/default/deployments", &body).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let containers = &made.body["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!((&containers[0]["image"], containers.as_array().map(Vec::len)), (&json!("x"), Some(2)));
    assert_eq!(made.body["metadata"]["annotations"]["example.com/env"], "A");
}

#[tokio::test]
async fn what_a_mutation_may_not_do_is_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    for (name, patch, text) in [
        ("atomic", "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'x': 'y'}}}}", "may not mutate atomic"),
        ("wrong", "Object{spec: Object.spec.wrong{}}", "type mismatch"),
        ("field", "Object{spec: Object.spec{nothing: 1}}", ".spec.nothing: field not declared in schema"),
    ] {
        let configuration = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": patch}}]);
        mutating(&cluster, name, on("apps/deployments", json!({})), configuration).await;
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                {"name": "main", "image": "x"},
            ]}}},
        });
        let refused = cluster.ask("POST", "/apis/apps/v1/namespaces/default/deployments", &body).await;
        let head = format!("policy '{name}' with binding '{name}' denied request: ");
        assert!(refused.code == 403 && refused.message().starts_with(&head) && refused.message().contains(text), "{}", refused.message());
        cluster.ok("DELETE", &format!("{GROUP}/mutatingadmissionpolicies/{name}"), &Value::Null).await;
    }
    // A test that fails leaves the object alone.
    let patch = "[JSONPatch{op: 'test', path: '/data/k', value: 'other'}, JSONPatch{op: 'add', path: '/data/new', value: 'x'}]";
    mutating(&cluster, "test", on("configmaps", json!({})), json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}])).await;
    assert_eq!(map(&cluster, "a", json!({"k": "v"})).await.body["data"], json!({"k": "v"}));
    assert_eq!(map(&cluster, "b", json!({"k": "other"})).await.body["data"], json!({"k": "other", "new": "x"}));
}

#[tokio::test]
async fn policies_that_want_it_are_asked_again() {
    let cluster = Cluster::start().await;
    let count = |key: &str| {
        let expression = format!("[JSONPatch{{op: 'add', path: '/data/{key}', value: string(int(object.data.?{key}.orValue('0')) + 1)}}]");
        json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}])
    };
    mutating(&cluster, "a-again", on("configmaps", json!({"reinvocationPolicy": "IfNeeded"})), count("again")).await;
    mutating(&cluster, "b-once", on("configmaps", json!({})), count("once")).await;
    assert_eq!(map(&cluster, "m", json!({"k": "v"})).await.body["data"], json!({"k": "v", "again": "2", "once": "1"}));
}

#[tokio::test]
async fn warnings_and_notes_leave_the_request_alone() {
    let cluster = Cluster::start().await;
    let spec = on(
        "configmaps",
        json!({
            "validations": [{"expression": "has(object.data.owner)", "message": "who owns it?"}],
            "auditAnnotations": [{"key": "seen", "valueExpression": "'name=' + object.metadata.name"}, {"key": "no", "valueExpression": "null"}],
        }),
    );
    validating(&cluster, "soft", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = map(&cluster, "m", json!({})).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    assert_eq!(answer.warnings(), ["Validation failed for ValidatingAdmissionPolicy 'soft' with binding 'soft': who owns it?"]);
}
