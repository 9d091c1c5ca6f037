//! Upstream's bootstrap policy as objects, from the compact table `bootstrap_policy.txt`. The API server creates those that
//! are not there.

use serde_json::{Value, json};

use crate::rbac::Rule;

const TABLE: &str = include_str!("bootstrap_policy.txt");
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const API_GROUP: &str = "rbac.authorization.k8s.io";

/// All Role, ClusterRole, RoleBinding and ClusterRoleBinding objects, as a client would post them. Aggregated roles have no
/// rules here; a controller fills them.
pub fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => objects.push(head(line)),
            Some(detail) => {
                if let Some(object) = objects.last_mut() {
                    add(object, detail);
                }
            }
        }
    }
    objects
}

fn head(line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    let (kind, name) = (words[0], words.get(1).copied().unwrap_or_default());
    let mut metadata = json!({
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "name": name,
    });
    if let Some((namespace, name)) = name.split_once('/') {
        metadata["namespace"] = json!(namespace);
        metadata["name"] = json!(name);
    }
    let mut object = json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata});
    if let ["to", role_kind, role] = words[2..] {
        object["roleRef"] = json!({"apiGroup": API_GROUP, "kind": role_kind, "name": role});
    } else {
        object["rules"] = json!([]);
    }
    object
}

fn add(object: &mut Value, detail: &str) {
    let words: Vec<&str> = detail.split(' ').collect();
    match words.as_slice() {
        ["label", pair] => {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            object["metadata"]["labels"][key] = json!(value);
        }
        ["aggregates", pair] => {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A controller's to say.
            if let Some(object) = object.as_object_mut() {
                object.remove("rules");
            }
            push(object, "/aggregationRule", "clusterRoleSelectors", json!({"matchLabels": {key: value}}));
        }
        [verbs, "url", urls] => push(object, "", "rules", json!(Rule { verbs: list(verbs), urls: list(urls), ..Rule::default() })),
        [verbs, "on", groups, resources, rest @ ..] => {
            let names = rest.get(1).map(|n| list(n)).unwrap_or_default();
            let rule = Rule { verbs: list(verbs), groups: list(groups), resources: list(resources), names, urls: Vec::new() };
            push(object, "", "rules", json!(rule));
        }
        ["ServiceAccount", name] => {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            push(object, "", "subjects", json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        [kind, name] => push(object, "", "subjects", json!({"apiGroup": API_GROUP, "kind": kind, "name": name})),
        _ => {}
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|s| if s == "\"\"" { String::new() } else { s.to_owned() }).collect()
}

fn push(object: &mut Value, parent: &str, field: &str, item: Value) {
    if !parent.is_empty() && object.pointer(parent).is_none() {
        object[&parent[1..]] = json!({});
    }
    let Some(holder) = object.pointer_mut(parent) else { return };
    match holder.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => holder[field] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_makes_upstreams_objects() {
        let objects = objects();
        let count = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).count();
        assert_eq!((count("ClusterRole"), count("ClusterRoleBinding"), count("Role"), count("RoleBinding")), (69, 50, 7, 7));
        let find = |kind: &str, name: &str| objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap();
        assert_eq!(find("ClusterRole", "cluster-admin")["rules"][0]["resources"], json!(["*"]));
        assert_eq!(find("ClusterRoleBinding", "system:kube-dns")["subjects"][0]["namespace"], "kube-system");
        assert!(find("ClusterRole", "edit")["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"].is_object());
    }
}
