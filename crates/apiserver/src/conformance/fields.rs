//! Field validation: what is unknown or said twice, of built-in and custom objects, under `fieldValidation=Strict`. Tests only.

use serde_json::{Value, json};

use super::{APPLY, MERGE, define, raw};
use crate::testing::Cluster;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json";
const STRICT: &str = "fieldValidation=Strict&fieldManager=field-validation-test";

const TEMPLATE: &str = r#""selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}"#;

fn deployment(metadata: &str, spec: &str) -> String {
    format!(r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{{metadata}}}, "spec": {{{spec}{TEMPLATE}}}}}"#)
}

#[tokio::test]
async fn unknown_and_repeated_fields_of_a_typed_object_are_refused() {
    let cluster = Cluster::start().await;
    let bad = deployment(
        r#""name": "d""#,
        r#""unknown1": "val1", "unknownDupe": "valDupe", "unknownDupe": "valDupe2", "paused": true, "paused": false, "#,
    );
    let refused = raw(&cluster, "POST", &format!("{DEPLOYMENTS}?{STRICT}"), JSON, &bad).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    for part in ["unknown field \"spec.unknown1\"", "unknown field \"spec.unknownDupe\"", "duplicate field \"spec.paused\""] {
        assert!(refused.message().contains(part) && refused.message().contains("strict decoding error"), "{}", refused.message());
    }
    let good = raw(&cluster, "POST", &format!("{DEPLOYMENTS}?{STRICT}"), JSON, &deployment(r#""name": "d""#, "")).await;
    assert_eq!(good.code, 201, "{}", good.body);
    let refused = raw(&cluster, "PUT", &format!("{DEPLOYMENTS}/d?{STRICT}"), JSON, &bad).await;
    assert!(refused.code == 400 && refused.message().contains("unknown field \"spec.unknown1\""), "{}", refused.body);
    for kind in [MERGE, "application/strategic-merge-patch+json"] {
        let patch = r#"{"spec": {"unknown1": "val1", "paused": true, "paused": false}}"#;
        let refused = raw(&cluster, "PATCH", &format!("{DEPLOYMENTS}/d?{STRICT}"), kind, patch).await;
        assert!(
            refused.message().contains("unknown field \"spec.unknown1\"") && refused.message().contains("duplicate field \"spec.paused\""),
            "{}",
            refused.message()
        );
    }
    let applied =
        raw(&cluster, "PATCH", &format!("{DEPLOYMENTS}/d?{STRICT}"), APPLY, &deployment(r#""name": "d""#, r#""unknown1": "val1", "#)).await;
    assert!(applied.code >= 400 && applied.message().contains(".spec.unknown1: field not declared in schema"), "{}", applied.message());
    cluster.end().await;
}

#[tokio::test]
async fn unknown_metadata_of_a_typed_object_is_refused() {
    let cluster = Cluster::start().await;
    let bad = deployment(r#""name": "d", "unknownMeta": "unknown""#, "");
    let refused = raw(&cluster, "POST", &format!("{DEPLOYMENTS}?{STRICT}"), JSON, &bad).await;
    assert!(refused.code == 400 && refused.message().contains("unknown field \"metadata.unknownMeta\""), "{}", refused.body);
    let applied = raw(&cluster, "PATCH", &format!("{DEPLOYMENTS}/d?{STRICT}"), APPLY, &bad).await;
    assert!(
        applied.code >= 400 && applied.message().contains(".metadata.unknownMeta: field not declared in schema"),
        "{}",
        applied.message()
    );
    cluster.end().await;
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-list-type": "map",
            "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                "containerPort": {"type": "integer", "format": "int32"}, "hostIP": {"type": "string"}, "protocol": {"type": "string"}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}}}}}}})
}

/// Without what preserves unknown fields.
fn closed() -> Value {
    let mut schema = schema();
    schema["properties"]["spec"].as_object_mut().unwrap().remove("x-kubernetes-preserve-unknown-fields");
    schema
}

fn custom(group: &str, metadata: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "{group}/v1", "kind": "Tab", "metadata": {{{metadata}"name": "mytest"}}, "spec": {{{spec}"cronSpec": "* * * * */5", "ports": [{{"containerPort": 8080, "protocol": "TCP"}}]}}}}"#
    )
}

fn one(group: &str) -> String {
    format!("/apis/{group}/v1/namespaces/default/tabs/mytest?{STRICT}")
}

#[tokio::test]
async fn custom_objects_keep_to_their_schema_or_have_none() {
    let cluster = Cluster::start().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&cluster, "open.example.com", "Tab", &[("v1", open)]).await;
    define(&cluster, "closed.example.com", "Tab", &[("v1", closed())]).await;
    // Without a schema anything goes.
    let applied =
        raw(&cluster, "PATCH", &one("open.example.com"), APPLY, &custom("open.example.com", "", r#""foo": "foo1", "unknown": "u", "#))
            .await;
    assert_eq!((applied.code, &applied.body["spec"]["foo"]), (201, &json!("foo1")), "{}", applied.body);
    // With one, what it knows.
    let applied = raw(&cluster, "PATCH", &one("closed.example.com"), APPLY, &custom("closed.example.com", "", "")).await;
    assert_eq!((applied.code, &applied.body["spec"]["ports"][0]["containerPort"]), (201, &json!(8080)), "{}", applied.body);
    // And nothing else.
    for extra in [r#""foo": "foo1", "#, r#""extraProp": {"a": 1}, "#] {
        let bad = custom("closed.example.com", "", extra);
        let refused = raw(&cluster, "PATCH", &one("closed.example.com"), APPLY, &bad).await;
        assert!(refused.code >= 400 && refused.message().contains("field not declared in schema"), "{}", refused.message());
        let path = format!("/apis/closed.example.com/v1/namespaces/default/tabs?{STRICT}");
        let refused = raw(&cluster, "POST", &path, JSON, &bad).await;
        assert!(refused.code == 400 && refused.message().contains("strict decoding error: unknown field \"spec."), "{}", refused.message());
    }
    cluster.end().await;
}

#[tokio::test]
async fn fields_said_twice_are_refused_though_unknown_ones_are_kept() {
    let cluster = Cluster::start().await;
    define(&cluster, "keep.example.com", "Tab", &[("v1", schema())]).await;
    let path = format!("/apis/keep.example.com/v1/namespaces/default/tabs?{STRICT}");
    let twice = custom(
        "keep.example.com",
        "",
        r#""unknown1": "val1", "knownField1": "val1", "unknownDupe": "valDupe1", "unknownDupe": "valDupe2", "#,
    );
    let refused = raw(&cluster, "POST", &path, JSON, &twice).await;
    assert_eq!((refused.code, refused.message().contains("duplicate field \"spec.unknownDupe\"")), (400, true), "{}", refused.message());
    assert!(!refused.message().contains("unknown field"), "{}", refused.message());
    let yaml = "apiVersion: keep.example.com/v1\nkind: Tab\nmetadata:\n  name: mytest\nspec:\n  foo: foo1\n  foo: foo2\n  cronSpec: '* * * * */5'\n";
    let refused = raw(&cluster, "PATCH", &one("keep.example.com"), APPLY, yaml).await;
    assert!(refused.code >= 400 && refused.message().contains("key \"foo\" already set in map"), "{} {}", refused.code, refused.message());
    let refused = raw(&cluster, "POST", &path, "application/yaml", yaml).await;
    assert!(refused.code >= 400 && refused.message().contains("key \"foo\" already set in map"), "{} {}", refused.code, refused.message());
    let good = custom("keep.example.com", "", r#""unknown1": "val1", "#);
    assert_eq!(raw(&cluster, "POST", &path, JSON, &good).await.code, 201);
    cluster.end().await;
}

#[tokio::test]
async fn unknown_metadata_is_refused_in_the_root_and_within_a_custom_object() {
    let cluster = Cluster::start().await;
    define(&cluster, "meta.example.com", "Tab", &[("v1", schema())]).await;
    let inner = r#""template": {"apiVersion": "foo/v1", "kind": "Sub", "metadata": {"unknownSubMeta": "unknown", "name": "subobject", "namespace": "default"}}, "#;
    let bad = custom("meta.example.com", r#""unknownMeta": "unknown", "#, inner);
    let path = format!("/apis/meta.example.com/v1/namespaces/default/tabs?{STRICT}");
    let refused = raw(&cluster, "POST", &path, JSON, &bad).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    for part in ["unknown field \"metadata.unknownMeta\"", "unknown field \"spec.template.metadata.unknownSubMeta\""] {
        assert!(refused.message().contains(part), "{part} in {}", refused.message());
    }
    let applied = raw(&cluster, "PATCH", &one("meta.example.com"), APPLY, &bad).await;
    assert!(applied.code >= 400 && applied.message().contains("unknownMeta"), "{} {}", applied.code, applied.message());
    cluster.end().await;
}
