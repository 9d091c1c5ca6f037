//! Path elements as texts: `f:name`, `k:{"name":"c"}`, `v:"x"`, `i:0` in `FieldsV1`, and how errors print and order them.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::set::{Set, has_children, is_member};
use crate::field::{go_json, go_value};

/// A value inside of an element, as Go's JSON has it: safe in HTML, and floats without needless zeros.
pub(super) fn push_value(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => push_text(out, text),
        Value::Number(n) if n.is_f64() => out.push_str(&go_json_float(n.as_f64().unwrap_or_default())),
        other => out.push_str(&go_json(&other.to_string())),
    }
}

/// A JSON string.
pub(super) fn push_text(out: &mut String, text: &str) {
    if text.bytes().any(|c| c < b' ' || matches!(c, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)) {
        out.push_str(&go_json(&Value::from(text).to_string()));
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn go_json_float(f: f64) -> String {
    let text = format!("{f:e}");
    let exponent = text.split_once('e').and_then(|(digits, e)| Some((digits, e.parse::<i32>().ok()?)));
    match exponent {
        Some((digits, exponent)) if exponent < -6 => format!("{digits}e-{}", -exponent),
        Some((digits, exponent)) if exponent >= 21 => format!("{digits}e+{exponent}"),
        _ => format!("{f}"),
    }
}

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

    #[test]
    fn values_are_written_as_go_writes_them() {
        for (value, expected) in [
            (json!("a<b>&c"), "\"a\\u003cb\\u003e\\u0026c\""),
            (json!("\u{2028}"), "\"\\u2028\""),
            (json!("é\t\"\\"), "\"é\\t\\\"\\\\\""),
            (json!(1.0), "1"),
            (json!(1e21), "1e+21"),
            (json!(1.5e-7), "1.5e-7"),
            (json!(0.000001), "0.000001"),
            (json!(100_000_000.5), "100000000.5"),
            (json!(7), "7"),
            (json!(true), "true"),
        ] {
            let mut out = String::new();
            push_value(&mut out, &value);
            assert_eq!(out, expected);
        }
    }
}
