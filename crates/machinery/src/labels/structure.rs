//! `metav1.LabelSelector` and plain maps as selectors.

use serde_json::Value;

use super::{Operator, Requirement, Selector};

/// A map of equalities: `spec.selector` of a Service or a ReplicationController. Null or absent selects nothing here; an
/// empty map selects everything.
pub fn from_map(map: Option<&Value>) -> Selector {
    let Some(map) = map.and_then(Value::as_object) else { return Selector::nothing() };
    Selector::from_requirements(map.iter().filter_map(|(k, v)| Some(equality(k, v.as_str()?))).collect())
}

fn equality(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::Equals, values: vec![value.to_owned()] }
}

/// `LabelSelectorAsSelector`: null selects nothing, empty selects everything. The error is upstream's text for an operator
/// that does not exist.
pub fn from_label_selector(selector: Option<&Value>) -> Result<Selector, String> {
    let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Selector::nothing()) };
    let mut out: Vec<Requirement> = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        out.extend(labels.iter().filter_map(|(k, v)| Some(equality(k, v.as_str()?))));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or("");
        let operator = match text("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(format!("\"{other}\" is not a valid label selector operator")),
        };
        let mut values: Vec<String> = expression
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect();
        values.sort();
        values.dedup();
        out.push(Requirement { key: text("key").to_owned(), operator, values });
    }
    Ok(Selector::from_requirements(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn structures_match() {
        let labels = json!({"a": "1"});
        for (selector, matches) in [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"a": "1"}}), true),
            (json!({"matchLabels": {"a": "2"}}), false),
            (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "1"]}]}), true),
            (json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), false),
        ] {
            assert_eq!(from_label_selector(Some(&selector)).unwrap().matches(&labels), matches, "{selector}");
        }
        assert_eq!(
            from_label_selector(Some(&json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]}))).unwrap_err(),
            "\"Gt\" is not a valid label selector operator"
        );
        assert!(!from_map(None).matches(&labels));
    }
}
