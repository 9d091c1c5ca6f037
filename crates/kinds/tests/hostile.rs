//! No tree makes a strategy panic, whatever its shape: decoding comes first in the server, but nothing may rest on that. And
//! none is judged in a time that grows as the square of its length.

use kinds::Context;
use machinery::apply::Writer;
use serde_json::{Value, json};

/// Replaces each node of a tree in turn by values of other types.
fn mutations(seed: &Value) -> Vec<Value> {
    let mut out = vec![json!(null), json!("x"), json!(-1), json!([]), json!([null, 1, "a", {}]), json!({})];
    match seed {
        Value::Object(map) => {
            for (key, inner) in map {
                for changed in mutations(inner) {
                    let mut copy = map.clone();
                    copy.insert(key.clone(), changed);
                    out.push(Value::Object(copy));
                }
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                for changed in mutations(inner) {
                    let mut copy = items.clone();
                    copy[i] = changed;
                    out.push(Value::Array(copy));
                }
            }
        }
        _ => {}
    }
    out
}

#[test]
fn strategies_survive_any_shape() {
    let container = json!({"name": "c", "image": "é:-", "ports": [{"containerPort": 1, "hostPort": 1}], "resources": {"limits": {"cpu": "1"}},
        "env": [{"name": "", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['é']"}}}],
        "livenessProbe": {"httpGet": {"port": "x"}}, "volumeMounts": [{"name": "v", "mountPath": "é"}]});
    let pod = json!({"containers": [container], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"items": [{}]}}]}}],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}, "tolerations": [{}]});
    let seed = json!({"metadata": {"name": "é-", "generateName": "é-", "labels": {"é": "é"}},
        "spec": {"template": {"metadata": {}, "spec": pod}, "containers": [container], "selector": {"matchLabels": {"a": "b"}},
            "ports": [{"port": 1, "nodePort": 1}], "clusterIPs": ["é", "::"], "schedule": "TZ=é", "podCIDRs": ["1", "é/"],
            "metrics": [{"type": "é"}], "cidrs": ["é/1", "::/0"], "capacity": {"storage": "1é"}, "strategy": {"type": "RollingUpdate"}},
        "data": {"é": "é"}, "rules": [{}], "subjects": [{}], "endpoints": [{"addresses": ["é"]}], "status": {"conditions": [{}]}});
    let variants = mutations(&seed);
    for row in kinds::table::table().resources() {
        let ctx =
            Context { version: row.version.clone(), now: "2026-01-02T03:04:05Z".to_owned(), user: "u".to_owned(), ..Context::default() };
        for variant in variants.iter().step_by(3) {
            let (mut new, strategy) = (variant.clone(), &row.strategy);
            strategy.default(&ctx, &mut new);
            strategy.prepare_for_create(&ctx, &mut new);
            drop(kinds::validate::create(row, &ctx, &new));
            drop(strategy.cells(&new, 0));
            let mut changed = new.clone();
            strategy.prepare_for_update(&ctx, &mut changed, &seed);
            drop(kinds::validate::update(row, &ctx, &changed, &seed));
            for sub in ["status", "resize", "ephemeralcontainers", "finalize", "approval"] {
                if let Some(inner) = strategy.subresource(sub) {
                    let mut changed = new.clone();
                    inner.prepare_for_update(&ctx, &mut changed, &seed);
                    drop(kinds::validate::update_with(row, inner, &ctx, &changed, &seed));
                }
            }
        }
    }
}

/// A list of as many different items as a request has room for, each with these fields.
fn long(fields: &[&str]) -> Value {
    let item = |i: usize| -> Value {
        match fields {
            [] => json!(format!("n{i}")),
            _ => fields.iter().map(|field| ((*field).to_owned(), json!(format!("n{i}")))).collect::<serde_json::Map<_, _>>().into(),
        }
    };
    (0..30_000).map(item).collect()
}

/// Were each item compared with all before it, these would take minutes.
#[test]
fn long_lists_are_judged_in_time() {
    for (kind, path, fields) in [
        ("Service", "/spec/ports", &["name", "port"][..]),
        ("Pod", "/spec/volumes", &["name"]),
        ("Pod", "/spec/containers", &["name"]),
        ("Pod", "/spec/containers/0/volumeMounts", &["name", "mountPath"]),
        ("Pod", "/spec/containers/0/resources/claims", &["name"]),
        ("Pod", "/spec/topologySpreadConstraints", &["topologyKey"]),
        ("Pod", "/spec/schedulingGates", &["name"]),
        ("Pod", "/spec/resourceClaims", &["name"]),
        ("Pod", "/spec/hostAliases", &["ip"]),
        ("Pod", "/spec/imagePullSecrets", &["name"]),
        ("Pod", "/status/conditions", &["type"]),
        ("Node", "/spec/taints", &["key", "effect"]),
        ("LimitRange", "/spec/limits", &["type"]),
        ("CSIDriver", "/spec/tokenRequests", &["audience"]),
        ("CSINode", "/spec/drivers", &["name"]),
        ("CertificateSigningRequest", "/spec/usages", &[]),
        ("StorageClass", "/allowedTopologies", &["x"]),
        ("ValidatingWebhookConfiguration", "/webhooks", &["name"]),
        ("ValidatingAdmissionPolicyBinding", "/spec/validationActions", &[]),
    ] {
        let row = kinds::table::table().resources().iter().find(|row| row.kind == kind).unwrap();
        let mut object = json!({"metadata": {"name": "a"}, "spec": {}, "status": {}});
        if path.contains("/containers/") {
            let volumes: Vec<Value> = (0..30_000).map(|i| json!({"name": format!("v{i}"), "emptyDir": {}})).collect();
            object["spec"] = json!({"containers": [{"name": "c", "resources": {}}], "volumes": volumes, "resourceClaims": long(&["name"])});
        }
        let (parent, field) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = long(fields);
        let ctx = Context { version: row.version.clone(), ..Context::default() };
        drop(kinds::validate::create(row, &ctx, &object));
        drop(kinds::validate::update(row, &ctx, &object, &object));
        drop(row.strategy.warnings(&ctx, &object, None));
        if let Some(status) = row.strategy.subresource("status") {
            drop(kinds::validate::update_with(row, status, &ctx, &object, &object));
        }
    }
}

/// Two long lists, half of the one in the other, merge by key in a time that grows with them.
#[test]
fn long_lists_merge_in_time() {
    let row = kinds::table::table().resources().iter().find(|row| row.kind == "Service").unwrap();
    let ports = |from: usize| -> Vec<Value> { (from..from + 20_000).map(|i| json!({"port": i, "name": format!("n{i}")})).collect() };
    let finalizers = |from: usize| -> Vec<Value> { (from..from + 20_000).map(|i| json!(format!("n{i}"))).collect() };
    let object = json!({"metadata": {"finalizers": finalizers(0)}, "spec": {"ports": ports(0)}});
    let order: Vec<Value> = (10_000..30_000).map(|i| json!({"port": i})).collect();
    let mut gone = ports(0);
    gone.iter_mut().for_each(|port| port["$patch"] = json!("delete"));
    for (patch, left) in [
        (json!({"metadata": {"finalizers": finalizers(10_000)}, "spec": {"ports": ports(10_000)}}), (30_000, 30_000)),
        (json!({"spec": {"ports": ports(10_000), "$setElementOrder/ports": order}}), (20_000, 30_000)),
        (json!({"spec": {"ports": gone}}), (20_000, 0)),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": finalizers(10_000)}}), (10_000, 20_000)),
    ] {
        let merged = machinery::patch::strategic(&row.types, row.ty, &object, patch.to_string().as_bytes()).unwrap().0;
        let count = |path: &str| merged.pointer(path).and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!((count("/metadata/finalizers"), count("/spec/ports")), left);
    }
    // And so do lists that are applied, whose owners are kept for each item.
    let writer = |manager| Writer { manager, api_version: "v1", subresource: "", time: "2026-01-01T00:00:00Z", reset_fields: &[] };
    let config = |from: usize| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports(from)}});
    let apply =
        |live: Option<&Value>, from, manager| machinery::apply::apply(&row.types, row.ty, live, &config(from), &writer(manager), true);
    let first = apply(None, 0, "one").unwrap().object;
    let second = apply(Some(&first), 10_000, "two").unwrap().object;
    assert_eq!(second["spec"]["ports"].as_array().unwrap().len(), 30_000);
    let third = apply(Some(&second), 40_000, "one").unwrap().object;
    assert_eq!(third["spec"]["ports"].as_array().unwrap().len(), 40_000);
}
