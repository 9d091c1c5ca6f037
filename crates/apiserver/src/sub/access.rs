//! The three access reviews: what is asked, checked and put to the authorizers. `review` decodes and answers.

use auth::{Attributes, Decision, User};
use machinery::field::{Error, ErrorList, Path};
use machinery::gvk::GroupKind;
use machinery::object::{at, str_at};
use machinery::status::StatusError;
use machinery::{fieldselector, labels, names};
use serde_json::{Value, json};

use crate::chain::Call;
use crate::verbs::Target;

/// Fills the status of a checked review.
pub async fn review(call: &Call, target: &Target, review: &mut Value) -> Result<(), StatusError> {
    let kind = target.resource.kind.as_str();
    let errors = validate(review, kind, target);
    if !errors.is_empty() {
        // Upstream takes the kind from an object that has none by then.
        let kind = GroupKind { group: target.resource.group.clone(), kind: String::new() };
        return Err(StatusError::invalid(&kind, "", &errors));
    }
    let user = if kind == "SelfSubjectAccessReview" { call.user.clone() } else { subject(review) };
    let (asked, ignored) = attributes(review, user);
    let mut status = json!({"allowed": false});
    let reason = match call.api.authorizer.decide(&asked).await {
        Decision::Allow(reason) => {
            status["allowed"] = json!(true);
            reason
        }
        Decision::NoOpinion(reason) => reason,
        Decision::Deny(reason) => {
            status["denied"] = json!(true);
            reason
        }
    };
    for (key, text) in [("reason", reason), ("evaluationError", ignored.join("; "))] {
        if !text.is_empty() {
            status[key] = json!(text);
        }
    }
    review["status"] = status;
    Ok(())
}

/// The user of a SubjectAccessReview.
fn subject(review: &Value) -> User {
    let list = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let spec = review.get("spec").cloned().unwrap_or_default();
    let extra = spec.get("extra").and_then(Value::as_object).cloned().unwrap_or_default();
    User {
        name: str_at(&spec, "user").to_owned(),
        uid: str_at(&spec, "uid").to_owned(),
        groups: spec.get("groups").map(list).unwrap_or_default(),
        extra: extra.into_iter().map(|(k, v)| (k.to_lowercase(), list(&v))).collect(),
    }
}

fn given<'a>(review: &'a Value, path: &str) -> Option<&'a Value> {
    at(review, path).filter(|v| !v.is_null())
}

/// Upstream's `ResourceAttributesFrom` and `NonResourceAttributesFrom`, and what of the selectors could not be used.
fn attributes(review: &Value, user: User) -> (Attributes, Vec<String>) {
    let mut asked = Attributes { user, ..Attributes::default() };
    let mut ignored = Vec::new();
    if let Some(a) = given(review, "spec.resourceAttributes") {
        asked.is_resource = true;
        let text = |key: &str| str_at(a, key).to_owned();
        (asked.verb, asked.namespace, asked.group) = (text("verb"), text("namespace"), text("group"));
        (asked.resource, asked.subresource, asked.name) = (text("resource"), text("subresource"), text("name"));
        asked.version = Some(text("version")).filter(|v| !v.is_empty()).unwrap_or_else(|| "*".to_owned());
        let mut note = |which: &str, kept: usize, failed: bool| {
            if failed {
                let how = if kept > 0 { "partially ignored" } else { "ignored" };
                ignored.push(format!("spec.resourceAttributes.{which} {how} due to parse error"));
            }
        };
        if let Some(selector) = given(a, "fieldSelector") {
            let (terms, failed) = field_terms(selector);
            note("fieldSelector", terms.len(), failed);
            asked.field_selector = terms;
        }
        if let Some(selector) = given(a, "labelSelector") {
            let (requirements, failed) = label_requirements(selector);
            note("labelSelector", requirements.len(), failed);
            asked.label_selector = requirements;
        }
    } else if let Some(a) = given(review, "spec.nonResourceAttributes") {
        (asked.verb, asked.path) = (str_at(a, "verb").to_owned(), str_at(a, "path").to_owned());
    }
    (asked, ignored)
}

fn requirements(selector: &Value) -> impl Iterator<Item = (&str, &str, Vec<String>)> {
    at(selector, "requirements").and_then(Value::as_array).into_iter().flatten().map(|r| {
        let values = r.get("values").and_then(Value::as_array);
        let values = values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        (str_at(r, "key"), str_at(r, "operator"), values)
    })
}

/// Only equalities can be said of fields.
fn field_terms(selector: &Value) -> (Vec<fieldselector::Term>, bool) {
    let raw = str_at(selector, "rawSelector");
    if !raw.is_empty() {
        return fieldselector::parse(raw).map_or((Vec::new(), true), |s| (s.terms, false));
    }
    let (mut terms, mut failed) = (Vec::new(), false);
    for (key, operator, values) in requirements(selector) {
        match (operator, values.as_slice()) {
            ("In" | "NotIn", [value]) => {
                terms.push(fieldselector::Term { field: key.to_owned(), value: value.clone(), negated: operator == "NotIn" });
            }
            _ => failed = true,
        }
    }
    (terms, failed)
}

fn label_requirements(selector: &Value) -> (Vec<labels::Requirement>, bool) {
    let raw = str_at(selector, "rawSelector");
    if !raw.is_empty() {
        return labels::parse(raw).map_or((Vec::new(), true), |s| (s.requirements().to_vec(), false));
    }
    let (mut out, mut failed) = (Vec::new(), false);
    for (key, operator, mut values) in requirements(selector) {
        values.sort();
        values.dedup();
        let operator = match operator {
            "In" => labels::Operator::In,
            "NotIn" => labels::Operator::NotIn,
            "Exists" => labels::Operator::Exists,
            "DoesNotExist" => labels::Operator::DoesNotExist,
            _ => {
                failed = true;
                continue;
            }
        };
        out.push(labels::Requirement { key: key.to_owned(), operator, values });
    }
    (out, failed)
}

/// As Go prints the internal type, which has no JSON names.
fn shown(attributes: &Value) -> Value {
    json!({"Path": str_at(attributes, "path"), "Verb": str_at(attributes, "verb")})
}

/// Upstream's `ValidateSubjectAccessReviewSpec` and its kin.
fn validate(review: &Value, kind: &str, target: &Target) -> ErrorList {
    let spec = Path::new("spec");
    let (resource, path) = (given(review, "spec.resourceAttributes"), given(review, "spec.nonResourceAttributes"));
    let mut errors = Vec::new();
    if let (Some(_), Some(path)) = (resource, path) {
        let text = "cannot be specified in combination with resourceAttributes";
        errors.push(Error::invalid(&spec.child("nonResourceAttributes"), &shown(path), text));
    }
    if resource.is_none() && path.is_none() {
        let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(&spec.child("resourceAttributes"), &Value::Null, text));
    }
    if kind != "SelfSubjectAccessReview" {
        let user = subject(review);
        if user.name.is_empty() && user.groups.is_empty() {
            errors.push(Error::invalid_str(&spec.child("user"), "", "at least one of user or group must be specified"));
        }
    }
    if let Some(a) = resource {
        let root = Path::new("spec.resourceAttributes");
        for which in ["fieldSelector", "labelSelector"] {
            if let Some(selector) = given(a, which) {
                validate_selector(selector, &root.child(which), which == "labelSelector", &mut errors);
            }
        }
    }
    validate_metadata(review, kind, &mut errors);
    if kind == "LocalSubjectAccessReview" {
        let namespace = str_at(review, "spec.resourceAttributes.namespace");
        if resource.is_some() && namespace != target.namespace {
            errors.push(Error::invalid_str(&Path::new("spec.resourceAttributes.namespace"), namespace, "must match metadata.namespace"));
        }
        if let Some(path) = path {
            errors.push(Error::invalid(&Path::new("spec.nonResourceAttributes"), &shown(path), "disallowed on this kind of request"));
        }
    }
    errors
}

fn validate_metadata(review: &Value, kind: &str, errors: &mut ErrorList) {
    let local = kind == "LocalSubjectAccessReview";
    let metadata = review.get("metadata").and_then(Value::as_object);
    let more = |key: &str, value: &Value| {
        let filled = match value {
            Value::Null => false,
            Value::String(s) => !s.is_empty(),
            Value::Array(a) => !a.is_empty(),
            Value::Object(o) => !o.is_empty(),
            _ => true,
        };
        filled && key != "managedFields" && !(local && key == "namespace")
    };
    if let Some(metadata) = metadata.filter(|m| m.iter().any(|(k, v)| more(k, v))) {
        let text = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(Error::invalid(&Path::new("metadata"), &json!(metadata), text));
    }
}

/// Operators this server does not know are let through: a newer authorizer behind it may.
fn validate_selector(selector: &Value, path: &Path<'_>, of_labels: bool, errors: &mut ErrorList) {
    let raw = str_at(selector, "rawSelector");
    let count = requirements(selector).count();
    if !raw.is_empty() && count > 0 {
        errors.push(Error::invalid_str(&path.child("rawSelector"), raw, "may not specified at the same time as requirements"));
    }
    if raw.is_empty() && count == 0 {
        let text = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&path.child("requirements"), text));
    }
    let root = path.child("requirements");
    for (i, (key, operator, values)) in requirements(selector).enumerate() {
        let p = root.index(i);
        if key.is_empty() && !of_labels {
            errors.push(Error::required(&p.child("key"), "must be specified"));
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(Error::required(&p.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(Error::forbidden(&p.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            _ => {}
        }
        if of_labels {
            for problem in names::qualified_name(key) {
                errors.push(Error::invalid_str(&p.child("key"), key, problem));
            }
            for (j, value) in values.iter().enumerate() {
                for problem in names::label_value(value) {
                    errors.push(Error::invalid_str(&p.child("values").index(j), value, problem));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_become_requirements_as_far_as_they_can() {
        let asked = |selector: Value| {
            let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}}});
            attributes(&review, User::anonymous())
        };
        let (a, ignored) = asked(json!({"rawSelector": "spec.nodeName=n1"}));
        assert!(a.selects_field("spec.nodeName", "n1") && ignored.is_empty());
        let (a, ignored) = asked(json!({"requirements": [{"key": "a", "operator": "In", "values": ["b"]},
            {"key": "c", "operator": "Exists"}]}));
        assert!(a.selects_field("a", "b"));
        assert_eq!(ignored, ["spec.resourceAttributes.fieldSelector partially ignored due to parse error"]);
        let (a, ignored) = asked(json!({"rawSelector": "x"}));
        assert!(a.field_selector.is_empty());
        assert_eq!(ignored, ["spec.resourceAttributes.fieldSelector ignored due to parse error"]);
        assert_eq!(a.version, "*");
    }
}
