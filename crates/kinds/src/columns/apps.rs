//! Rows of the workload kinds.

use serde_json::{Value, json};

use super::{age, name};
use crate::validate::tree::{at, int, int0, list, opt, s};

fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// Names and images of a template's containers, and the selector, for wide rows.
fn wide(object: &Value, template: &str) -> [Value; 2] {
    let containers = at(object, template).and_then(|t| opt(t, "spec")).map_or(&[][..], |spec| list(spec, "containers"));
    let join = |key: &str| containers.iter().map(|c| s(c, key)).collect::<Vec<_>>().join(",");
    [json!(join("name")), json!(join("image"))]
}

/// A LabelSelector as text, `<none>` where there is none.
pub fn selector(v: Option<&Value>) -> Value {
    match v {
        None => json!("<none>"),
        Some(v) => match machinery::labels::from_label_selector(Some(v)) {
            Ok(selector) if selector.is_everything() => json!("<none>"),
            Ok(selector) => json!(selector.to_string()),
            Err(_) => json!("<error>"),
        },
    }
}

/// A map as `a=b,c=d`.
pub fn map_text(v: Option<&Value>) -> Value {
    let Some(map) = v.and_then(Value::as_object).filter(|m| !m.is_empty()) else { return json!("<none>") };
    let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    json!(pairs.join(","))
}

pub fn deployment(o: &Value, now: i64) -> Vec<Value> {
    let [names, images] = wide(o, "spec.template");
    vec![
        name(o),
        json!(format!("{}/{}", number(o, "status.readyReplicas"), number(o, "spec.replicas"))),
        json!(number(o, "status.updatedReplicas")),
        json!(number(o, "status.availableReplicas")),
        age(o, now),
        names,
        images,
        at(o, "spec.selector").map_or_else(|| json!(""), |v| selector(Some(v))),
    ]
}

pub fn replica_set(o: &Value, now: i64) -> Vec<Value> {
    let [names, images] = wide(o, "spec.template");
    vec![
        name(o),
        json!(number(o, "spec.replicas")),
        json!(number(o, "status.replicas")),
        json!(number(o, "status.readyReplicas")),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.selector")),
    ]
}

pub fn replication_controller(o: &Value, now: i64) -> Vec<Value> {
    let mut row = replica_set(o, now);
    row.pop();
    row.push(map_text(at(o, "spec.selector")));
    row
}

pub fn stateful_set(o: &Value, now: i64) -> Vec<Value> {
    let [names, images] = wide(o, "spec.template");
    let ready = format!("{}/{}", number(o, "status.readyReplicas"), number(o, "spec.replicas"));
    vec![name(o), json!(ready), age(o, now), names, images]
}

pub fn daemon_set(o: &Value, now: i64) -> Vec<Value> {
    let [names, images] = wide(o, "spec.template");
    let n = |key: &str| json!(at(o, "status").map_or(0, |st| int0(st, key)));
    vec![
        name(o),
        n("desiredNumberScheduled"),
        n("currentNumberScheduled"),
        n("numberReady"),
        n("updatedNumberScheduled"),
        n("numberAvailable"),
        map_text(at(o, "spec.template.spec.nodeSelector")),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.selector")),
    ]
}

pub fn pod_template(o: &Value) -> Vec<Value> {
    let [names, images] = wide(o, "template");
    vec![name(o), names, images, map_text(at(o, "template.metadata.labels"))]
}

pub fn controller_revision(o: &Value, now: i64) -> Vec<Value> {
    let owner = opt(o, "metadata").map_or(&[][..], |m| list(m, "ownerReferences"));
    let controller = owner.iter().find(|r| crate::validate::tree::flag(r, "controller"));
    let text = controller.map_or_else(
        || "<none>".to_owned(),
        |r| {
            let group = s(r, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = s(r, "kind").to_lowercase();
            if group.is_empty() { format!("{kind}/{}", s(r, "name")) } else { format!("{kind}.{group}/{}", s(r, "name")) }
        },
    );
    vec![name(o), json!(text), json!(int(o, "revision").unwrap_or(0)), age(o, now)]
}
