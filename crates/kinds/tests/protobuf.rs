//! Objects through protobuf and back, without recordings: every kind's minimal object, and one with everything nested that is
//! easily lost. That the bytes are upstream's is the `parity` test's to say.
#![expect(clippy::unwrap_used, reason = "tests")]

use kinds::{table, types};
use machinery::gvk::GroupVersion;
use machinery::proto;
use machinery::schema::TypeId;
use serde_json::{Value, json};

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    table().type_of(&GroupVersion::parse(api_version).ok()?.kind(kind))
}

/// The object in the form of its type, and what is left of it after protobuf.
fn there_and_back(object: &Value) -> (Value, Value) {
    let gv = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).unwrap();
    let row = table().by_kind(&gv.kind(object["kind"].as_str().unwrap())).unwrap();
    let mut formed = object.clone();
    assert_eq!(row.decode(&mut formed), Ok(Vec::new()), "{object}");
    let bytes = proto::to_envelope(types(), row.ty, &formed);
    let mut back = proto::from_envelope(types(), &bytes, type_of).unwrap();
    row.decode(&mut back).unwrap();
    (formed, back)
}

#[test]
fn minimal_objects_survive() {
    for line in include_str!("minimal.jsonl").lines() {
        let (mut formed, mut back) = there_and_back(&serde_json::from_str(line).unwrap());
        // On the wire, a list without items is none.
        forget_empty(&mut formed);
        forget_empty(&mut back);
        assert_eq!(back, formed, "{line}");
    }
}

fn forget_empty(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, v| !v.is_null() && !v.as_array().is_some_and(Vec::is_empty));
        map.values_mut().for_each(forget_empty);
    }
}

#[test]
fn nested_fields_survive() {
    let probe = json!({"httpGet": {"path": "/x", "port": "web", "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": "b"}]},
        "periodSeconds": 7, "terminationGracePeriodSeconds": 3});
    let terms = json!([{"matchExpressions": [{"key": "k", "operator": "In", "values": ["a", "b"]}]}]);
    let pod = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"n": "\u{e9}"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "livenessProbe": probe, "env": [
                {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
                {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
            "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}, "ports": [{"name": "web", "containerPort": 80}],
            "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsUser": 0, "privileged": false}}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
        "tolerations": [{"key": "t", "operator": "Exists", "tolerationSeconds": 5}],
        "volumes": [{"name": "v", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}]}}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}],
            "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-02T03:04:05Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}},
        "status": {"conditions": [{"type": "Available", "status": "True", "lastUpdateTime": "2026-01-02T03:04:05Z",
            "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "r", "message": "m"}]}});
    let (formed, back) = there_and_back(&deployment);
    assert_eq!(back, formed);
    // Nothing of what was written is missing from the form either.
    for (at, value) in [
        ("/spec/template/spec/containers/0/livenessProbe/httpGet/httpHeaders/0/value", json!("b")),
        ("/spec/template/spec/containers/0/env/0/valueFrom/secretKeyRef/optional", json!(true)),
        ("/spec/template/spec/volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds", json!(3607)),
        ("/spec/strategy/rollingUpdate/maxSurge", json!("25%")),
        ("/spec/template/spec/tolerations/0/tolerationSeconds", json!(5)),
        ("/metadata/managedFields/0/fieldsV1/f:spec/f:replicas", json!({})),
    ] {
        assert_eq!(back.pointer(at), Some(&value), "{at}");
    }
}
