//! Flow schemas and priority levels, priority classes, and what endpoints hint at.

use serde_json::{Value, json};

use super::{check_create, check_update, created};

fn subjects(subject: Value) -> Value {
    let all = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    json!({"spec": {"rules": [{"subjects": [subject], "nonResourceRules": all}]}})
}

fn url(url: &str) -> Value {
    let subjects = json!([{"kind": "User", "user": {"name": "u"}}]);
    json!({"spec": {"rules": [{"subjects": subjects, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]}]}})
}

#[test]
fn flow_schemas() {
    check_create(vec![
        (
            "FlowSchema",
            subjects(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "a"}})),
            &["spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account"],
        ),
        ("FlowSchema", subjects(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}})), &[]),
    ]);
    for (given, problem) in [
        ("", Some("must not be empty")),
        ("/", None),
        ("a b", Some("must start with slash")),
        ("/a b//", Some("must not contain white-space")),
        ("/a//*b", Some("must not contain double slash")),
        ("/a*", Some("wildcard can only do suffix matching")),
        ("/*/*", Some("wildcard can only do suffix matching")),
        ("/a/*", None),
    ] {
        let at = "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]";
        let wanted: Vec<String> = problem.iter().map(|text| format!("{at}: Invalid value: {given:?}: {text}")).collect();
        assert_eq!(created("FlowSchema", &url(given)).2, wanted, "{given}");
    }
}

#[test]
fn what_is_mandatory_stays_as_it_is() {
    let of = |all: Vec<Value>, name: &str| all.into_iter().find(|o| o["metadata"]["name"] == name).unwrap();
    let level = |name: &str, change: Value| {
        let mut object = of(flowcontrol::defaults::priority_levels(), name);
        object["spec"].as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        json!({"metadata": {"name": name}, "spec": {"limited": null, "exempt": null}, "status": null}).as_object().cloned().map(|mut o| {
            o["spec"].as_object_mut().unwrap().extend(object["spec"].as_object().cloned().unwrap());
            Value::Object(o)
        })
    };
    for (name, change, wanted) in [
        ("exempt", json!({}), None),
        ("exempt", json!({"exempt": {"nominalConcurrencyShares": 7}}), None),
        ("catch-all", json!({}), None),
        (
            "catch-all",
            json!({"limited": {"nominalConcurrencyShares": 6, "limitResponse": {"type": "Reject"}}}),
            Some("spec of 'catch-all' must equal the fixed value"),
        ),
        (
            "exempt",
            json!({"limited": {"nominalConcurrencyShares": 6, "limitResponse": {"type": "Reject"}}}),
            Some("spec of 'exempt' except the 'spec.exempt' field must equal the fixed value"),
        ),
    ] {
        let (_, _, errors) = created("PriorityLevelConfiguration", &level(name, change.clone()).unwrap());
        assert_eq!(errors.last().and_then(|e| e.rsplit(": ").next()), wanted, "{name} {change}");
    }
    let schema = |name: &str, precedence: i64| {
        let mut spec = of(flowcontrol::defaults::flow_schemas(), name)["spec"].clone();
        spec["matchingPrecedence"] = json!(precedence);
        json!({"metadata": {"name": name}, "spec": spec})
    };
    assert_eq!(created("FlowSchema", &schema("catch-all", 10_000)).2, [""; 0]);
    assert_eq!(created("FlowSchema", &schema("exempt", 1)).2, [""; 0]);
    assert!(created("FlowSchema", &schema("catch-all", 9_999)).2[0].ends_with("spec of 'catch-all' must equal the fixed value"));
}

#[test]
fn hints() {
    let nine: Vec<Value> = (0..9).map(|i| json!({"name": format!("a{i}")})).collect();
    let endpoint = |hints: Value| json!({"endpoints": [{"addresses": ["10.1.2.3"], "hints": hints}]});
    check_create(vec![
        (
            "EndpointSlice",
            endpoint(json!({"forZones": nine, "forNodes": [{}]})),
            &["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"],
        ),
        ("EndpointSlice", endpoint(json!({"forNodes": nine})), &["endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items"]),
        (
            "EndpointSlice",
            endpoint(json!({"forZones": [{"name": "a"}, {"name": "a"}]})),
            &["endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""],
        ),
    ]);
    check_update(vec![(
        "EndpointSlice",
        "",
        json!({}),
        json!({"addressType": "FQDN"}),
        &["addressType: Invalid value: \"FQDN\": field is immutable"],
    )]);
}

#[test]
fn system_priorities() {
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
    for (object, problem) in [
        (class("system-node-critical", 2_000_001_000, false), None),
        (class("system-node-critical", 1, false), Some("value of system-node-critical PriorityClass must be 2000001000")),
        (class("system-node-critical", 2_000_001_000, true), Some("globalDefault of system-node-critical PriorityClass must be false")),
        (class("system-x", 1, false), Some("system-x is not a known system priority class")),
    ] {
        let wanted: Vec<String> = problem.iter().map(|problem| format!("{reserved}{problem}")).collect();
        assert_eq!(created("PriorityClass", &object).2, wanted, "{object}");
    }
}

/// Kinds differ in how often an update judges metadata: in general, as an update, and as if the object were new.
#[test]
fn metadata_is_judged_as_often_as_upstream_does() {
    for (kind, sub, times) in [
        ("CSIDriver", "", 2),
        ("CSINode", "", 2),
        ("CSIStorageCapacity", "", 3),
        ("CertificateSigningRequest", "", 3),
        ("CertificateSigningRequest", "approval", 3),
        ("ClusterRole", "", 3),
        ("DeviceClass", "", 3),
        ("EndpointSlice", "", 2),
        ("FlowSchema", "", 2),
        ("Lease", "", 2),
        ("LimitRange", "", 2),
        ("PriorityClass", "", 2),
        ("PriorityLevelConfiguration", "", 2),
        ("ResourceClaim", "", 3),
        ("RoleBinding", "", 3),
        ("RuntimeClass", "", 3),
        ("StorageClass", "", 3),
        ("VolumeAttachment", "", 2),
        ("VolumeAttributesClass", "", 3),
    ] {
        let text = "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        check_update(vec![(kind, sub, json!({}), json!({"metadata": {"labels": {"a": "-"}}}), &vec![text; times])]);
    }
}
