//! `metav1.LabelSelector` and node selectors inside specs.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::rules::{named, qualified};
use super::tree::{is_empty, list, opt, s};

/// `unversionedvalidation.ValidateLabelSelector`.
pub fn label_selector(selector: &Value, p: &Path<'_>, e: &mut ErrorList) {
    machinery::metadata::labels(selector.get("matchLabels"), &p.child("matchLabels"), e);
    let at = p.child("matchExpressions");
    for (i, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        requirement_rule(requirement, &at.index(i), e);
    }
}

/// As [`label_selector`] at a field, where given.
pub fn label_selector_at(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(selector) = opt(v, key) {
        label_selector(selector, &p.child(key), e);
    }
}

/// The operators of every selector, with how many values they take. False: it is another.
fn set_operator(r: &Value, p: &Path<'_>, e: &mut ErrorList) -> bool {
    let no_values = list(r, "values").is_empty();
    match s(r, "operator") {
        "In" | "NotIn" if no_values => {
            e.push(Error::required(&p.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !no_values => {
            e.push(Error::forbidden(&p.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => return false,
    }
    true
}

fn requirement_rule(r: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !set_operator(r, p, e) {
        e.push(Error::invalid_str(&p.child("operator"), s(r, "operator"), "not a valid selector operator"));
    }
    qualified(&p.child("key"), s(r, "key"), e);
    let at = p.child("values");
    for (i, value) in list(r, "values").iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        named(&at.index(i), value, names::label_value(value), e);
    }
}

/// `ValidateNodeSelector`.
pub fn node_selector(selector: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("nodeSelectorTerms");
    if is_empty(selector, "nodeSelectorTerms") {
        e.push(Error::required(&at, "must have at least one node selector term"));
        return;
    }
    for (i, term) in list(selector, "nodeSelectorTerms").iter().enumerate() {
        let at = at.index(i);
        node_selector_term(term, &at, e);
        let expressions = at.child("matchExpressions");
        for (j, r) in list(term, "matchExpressions").iter().enumerate() {
            let at = expressions.index(j);
            let values = at.child("values");
            for (k, value) in list(r, "values").iter().filter_map(Value::as_str).enumerate() {
                named(&values.index(k), value, names::label_value(value), e);
            }
        }
    }
}

pub fn node_selector_term(term: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("matchExpressions");
    for (i, r) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(r, &at.index(i), e);
    }
    let at = p.child("matchFields");
    for (i, r) in list(term, "matchFields").iter().enumerate() {
        node_field_requirement(r, &at.index(i), e);
    }
}

fn node_requirement(r: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match s(r, "operator") {
        "Gt" | "Lt" if list(r, "values").len() != 1 => {
            e.push(Error::required(&p.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "Gt" | "Lt" => {}
        _ if set_operator(r, p, e) => {}
        other => e.push(Error::invalid_str(&p.child("operator"), other, "not a valid selector operator")),
    }
    qualified(&p.child("key"), s(r, "key"), e);
}

fn node_field_requirement(r: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let values = list(r, "values");
    match s(r, "operator") {
        "In" | "NotIn" => {
            if values.len() != 1 {
                e.push(Error::required(
                    &p.child("values"),
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                ));
            }
        }
        other => e.push(Error::invalid_str(&p.child("operator"), other, "not a valid selector operator")),
    }
    match s(r, "key") {
        "metadata.name" => {
            let at = p.child("values");
            for (i, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or("");
                named(&at.index(i), value, names::dns1123_subdomain(value), e);
            }
        }
        key => e.push(Error::invalid(&p.child("key"), &json!(key), "not a valid field selector key")),
    }
}

/// A selector ready to match, `None` where it is not valid. Null selects nothing.
pub fn as_selector(selector: Option<&Value>) -> Option<machinery::labels::Selector> {
    let mut e = ErrorList::new();
    if let Some(selector) = selector {
        label_selector(selector, &Path::new("selector"), &mut e);
    }
    if e.is_empty() { machinery::labels::from_label_selector(selector).ok() } else { None }
}

/// Whether a selector selects a set of labels; an unreadable one selects nothing.
pub fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    machinery::labels::from_label_selector(selector).is_ok_and(|s| s.matches(&labels.unwrap_or(&Value::Null)))
}

/// No labels and no expressions.
pub fn is_empty_selector(selector: &Value) -> bool {
    is_empty(selector, "matchLabels") && is_empty(selector, "matchExpressions")
}
