//! Path elements as texts: `f:name`, `k:{"name":"c"}`, `v:"x"`, `i:0` in `FieldsV1`, and how errors print and order them.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::set::{Set, has_children, is_member};
use crate::field::go_value;

/// The paths of all members, as upstream prints and orders them: those of a level before those below it.
pub fn paths(set: &Set) -> Vec<String> {
    let mut out = Vec::new();
    collect(set, "", &mut out);
    out
}

fn collect(set: &Set, prefix: &str, out: &mut Vec<String>) {
    let mut nodes: Vec<(&String, &Value)> = set.iter().filter(|(k, _)| *k != ".").collect();
    if nodes.iter().any(|(k, _)| !k.starts_with("f:")) {
        nodes.sort_by(|(a, _), (b, _)| order(a, b));
    }
    for (key, _) in nodes.iter().filter(|(_, node)| is_member(node)) {
        out.push(format!("{prefix}{}", element_text(key)));
    }
    for (key, node) in nodes {
        if let Value::Object(below) = node
            && has_children(node)
        {
            collect(below, &format!("{prefix}{}", element_text(key)), out);
        }
    }
}

/// `.name`, `[key="value"]`, `[="value"]`, `[0]`
pub(super) fn element_text(element: &str) -> String {
    let (kind, rest) = element.split_at_checked(2).unwrap_or(("f:", element));
    match kind {
        "k:" => {
            let parts: Vec<String> = keys(rest).iter().map(|(k, v)| format!("{k}={}", go_value(v))).collect();
            format!("[{}]", parts.join(","))
        }
        "v:" => format!("[={}]", go_value(&value(rest))),
        "i:" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

fn keys(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Fields come before keyed items, those before values, and those before indices; numbers go by their size.
fn order(a: &str, b: &str) -> Ordering {
    let ((kind_a, a), (kind_b, b)) = (a.split_at_checked(2).unwrap_or(("f:", a)), b.split_at_checked(2).unwrap_or(("f:", b)));
    let rank = |kind: &str| ["f:", "k:", "v:", "i:"].iter().position(|k| *k == kind);
    rank(kind_a).cmp(&rank(kind_b)).then_with(|| match kind_a {
        "k:" => {
            let (a, b) = (keys(a), keys(b));
            let pairs = a.iter().zip(&b).map(|((k, v), (l, w))| k.cmp(l).then_with(|| order_values(v, w)));
            pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        "v:" | "i:" => order_values(&value(a), &value(b)),
        _ => a.cmp(b),
    })
}

fn order_values(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        _ => rank(a).cmp(&rank(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_come_in_the_order_of_their_values() {
        let set = json!({"f:ports": {
            "k:{\"port\":443,\"protocol\":\"TCP\"}": {"f:name": {}}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {},
            "v:10": {}, "v:9": {}, "v:1.5": {}, "v:\"a\"": {}, "v:true": {}, "i:10": {}, "i:9": {}, "f:z": {},
        }});
        let expected = [
            ".ports.z",
            ".ports[port=80,protocol=\"TCP\"]",
            ".ports[=1.5]",
            ".ports[=9]",
            ".ports[=10]",
            ".ports[=\"a\"]",
            ".ports[=true]",
            ".ports[9]",
            ".ports[10]",
            ".ports[port=443,protocol=\"TCP\"].name",
        ];
        assert_eq!(paths(set.as_object().unwrap()), expected);
    }

    #[test]
    fn paths_print_as_upstream_prints_them() {
        let set = json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:subsets": {}, "f:spec": {"f:ports": {
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}, "v:\"\\u2028\"": {}}}});
        let expected = [".subsets", ".metadata.labels.l", ".spec.ports[=\"\\u2028\"]", ".spec.ports[port=80,protocol=\"TCP\"].name"];
        assert_eq!(paths(set.as_object().unwrap()), expected);
    }
}
