//! The FlowSchemas and PriorityLevelConfigurations every cluster has: mandatory ones, which nobody may change, and suggested
//! ones, which follow this table as long as their annotation says so (upstream's `bootstrap` package).

use serde_json::{Value, json};

/// `"true"`: the server keeps the spec as it is here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// The names in both tables that are mandatory.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Name, shares, lendable percent, and queues, hand size, length where requests wait.
type Limited = (&'static str, u32, u32, Option<(u32, u32, u32)>);
const LIMITED: [Limited; 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
    ("global-default", 20, 50, Some((128, 6, 50))),
];

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

pub fn priority_levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut out = vec![object("PriorityLevelConfiguration", "exempt", &exempt)];
    for (name, shares, lendable, queuing) in LIMITED {
        let response = match queuing {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
            }
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        out.push(object("PriorityLevelConfiguration", name, &json!({"type": "Limited", "limited": limited})));
    }
    out
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})
}

fn all_resources() -> Value {
    json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}])
}

fn all_others() -> Value {
    json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])
}

/// One rule for everything these subjects do.
fn all(subjects: Value) -> Value {
    json!([{"subjects": subjects, "resourceRules": all_resources(), "nonResourceRules": all_others()}])
}

pub fn flow_schemas() -> Vec<Value> {
    let everybody = || json!([group("system:unauthenticated"), group("system:authenticated")]);
    let (controllers, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let leases =
        |verbs: &[&str]| json!({"verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]});
    let probes =
        json!([{"subjects": everybody(), "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    let election = json!([{"subjects": [user(controllers), user(scheduler), system_accounts()],
        "resourceRules": [leases(&["get", "create", "update"])]}]);
    let own_nodes =
        json!({"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": true, "namespaces": ["*"]});
    let nodes = json!([{"subjects": [group("system:nodes")], "resourceRules": [own_nodes, leases(&["*"])]}]);
    let table = [
        ("exempt", "exempt", 1, "", all(json!([group("system:masters")]))),
        ("probes", "exempt", 2, "", probes),
        ("system-leader-election", "leader-election", 100, "ByUser", election),
        ("system-node-high", "node-high", 400, "ByUser", nodes),
        ("system-nodes", "system", 500, "ByUser", all(json!([group("system:nodes")]))),
        ("kube-controller-manager", "workload-high", 800, "ByNamespace", all(json!([user(controllers)]))),
        ("kube-scheduler", "workload-high", 800, "ByNamespace", all(json!([user(scheduler)]))),
        ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", all(json!([system_accounts()]))),
        ("service-accounts", "workload-low", 9000, "ByUser", all(json!([group("system:serviceaccounts")]))),
        ("global-default", "global-default", 9900, "ByUser", all(everybody())),
        ("catch-all", "catch-all", 10000, "ByUser", all(everybody())),
    ];
    let schema = |(name, level, precedence, by, rules): (&str, &str, u32, &str, Value)| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules});
        if !by.is_empty() {
            spec["distinguisherMethod"] = json!({"type": by});
        }
        object("FlowSchema", name, &spec)
    };
    table.map(schema).to_vec()
}

/// What the server does about one object of this table that it finds in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Upkeep {
    Keep,
    /// Write this instead.
    Replace(Value),
}

/// Compares an object of the cluster with what this table has. Upstream's `EnsureStrategy`: the spec is taken over where the
/// object is mandatory, or its annotation says so, or it has none and nobody changed it yet.
pub fn upkeep(wanted: &Value, current: &Value) -> Upkeep {
    let name = wanted.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let annotation = current.pointer("/metadata/annotations").and_then(|a| a.get(AUTO_UPDATE)).and_then(Value::as_str);
    let untouched = current.pointer("/metadata/generation").and_then(Value::as_u64) == Some(1);
    let mandatory = MANDATORY.contains(&name);
    let auto = mandatory
        || match annotation {
            Some("true") => true,
            Some("false") => false,
            _ => untouched,
        };
    let spec_right = !auto || current.get("spec").is_some_and(|have| covers(have, &free(&wanted["spec"], have)));
    let said = annotation == Some(if auto { "true" } else { "false" });
    if spec_right && said {
        return Upkeep::Keep;
    }
    let mut object = current.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[AUTO_UPDATE] = json!(if auto { "true" } else { "false" });
        metadata.remove("managedFields");
    }
    if auto {
        object["spec"] = wanted["spec"].clone();
    }
    Upkeep::Replace(object)
}

/// How exempt the exempt level is, an administrator may say.
fn free(wanted: &Value, have: &Value) -> Value {
    let mut wanted = wanted.clone();
    if let (Some(exempt), Some(own)) = (wanted.get_mut("exempt"), have.get("exempt").filter(|own| own.is_object())) {
        *exempt = own.clone();
    }
    wanted
}

/// Whether `have` says all that `want` says: defaults may have come on top.
fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(h), Value::Object(w)) => w.iter().all(|(k, v)| h.get(k).is_some_and(|h| covers(h, v))),
        (Value::Array(h), Value::Array(w)) => h.len() == w.len() && h.iter().zip(w).all(|(h, w)| covers(h, w)),
        (have, want) => have == want,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_objects_may_be_changed_and_mandatory_ones_not() {
        let levels = priority_levels();
        let find = |name: &str| levels.iter().find(|l| l["metadata"]["name"] == name).unwrap();
        for (name, annotation, generation, replaced) in [
            ("catch-all", Some("false"), 2, true),
            ("system", Some("false"), 1, false),
            ("system", Some("true"), 2, true),
            ("system", None, 1, true),
        ] {
            let mut current = find(name).clone();
            current["metadata"]["generation"] = json!(generation);
            current["spec"]["limited"]["nominalConcurrencyShares"] = json!(77);
            match annotation {
                Some(text) => current["metadata"]["annotations"][AUTO_UPDATE] = json!(text),
                None => drop(current["metadata"].as_object_mut().unwrap().remove("annotations")),
            }
            match upkeep(find(name), &current) {
                Upkeep::Replace(object) => {
                    assert!(replaced, "{name} {annotation:?}");
                    assert_eq!(object["spec"], find(name)["spec"]);
                    assert_eq!(object["metadata"]["annotations"][AUTO_UPDATE], "true");
                }
                Upkeep::Keep => assert!(!replaced, "{name} {annotation:?}"),
            }
        }
        // Changed by somebody who set no annotation: theirs from now on.
        let mut current = find("system").clone();
        current["metadata"] = json!({"name": "system", "generation": 3});
        let Upkeep::Replace(object) = upkeep(find("system"), &current) else { panic!("the annotation is missing") };
        assert_eq!(object["metadata"]["annotations"][AUTO_UPDATE], "false");
        assert_eq!(upkeep(find("system"), find("system")), Upkeep::Keep);
    }

    #[test]
    fn how_exempt_the_exempt_level_is_may_be_said() {
        let levels = priority_levels();
        let exempt = levels.iter().find(|l| l["metadata"]["name"] == "exempt").unwrap();
        for (spec, kept) in [
            (json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 7, "lendablePercent": 50}}), true),
            (json!({"type": "Exempt"}), false),
            (json!({"type": "Limited", "exempt": {"nominalConcurrencyShares": 7}}), false),
        ] {
            let mut current = exempt.clone();
            current["spec"] = spec;
            assert_eq!(upkeep(exempt, &current) == Upkeep::Keep, kept, "{current}");
        }
    }
}
