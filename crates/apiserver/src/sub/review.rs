//! Resources that are only ever created and never stored: access reviews, token reviews, who am I, and `bindings`.

use auth::rbac::Rule;
use auth::{Attributes, Decision, User};
use http::Request;
use kinds::Resource;
use machinery::field::{Error, Path};
use machinery::gvk::GroupKind;
use machinery::object::{at, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use crate::authn::token;
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{RequestBody, negotiate};
use crate::identifiers;
use crate::verbs::Target;
use crate::verbs::options::WriteOptions;
use crate::verbs::write::{self, Ctx, body};

/// Whether a resource has no storage.
pub fn is(resource: &Resource) -> bool {
    matches!(
        resource.kind.as_str(),
        "SelfSubjectAccessReview"
            | "SubjectAccessReview"
            | "LocalSubjectAccessReview"
            | "SelfSubjectRulesReview"
            | "SelfSubjectReview"
            | "TokenReview"
            | "Binding"
    ) && resource.verbs.iter().all(|v| v == "create")
}

pub async fn create(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    if target.resource.kind == "Binding" {
        let Some(pods) = call.api.registry.kind("", "Pod") else { return Ok(respond::page_not_found()) };
        return super::binding::serve(call, request, Target { resource: pods, ..target }).await;
    }
    let negotiated = negotiate::negotiate(&call.headers, &call.query, false, true)?;
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let decoded = body::of_resource(request, &call.api.registry, &target.resource, options.validation).await?;
    let mut review = decoded.object;
    // As upstream, the two reviews of oneself without a question note no owner.
    if !matches!(target.resource.kind.as_str(), "SelfSubjectReview" | "SelfSubjectRulesReview") {
        write::managed(&Ctx::new(&call, options), &target, &mut review, None);
    }
    match target.resource.kind.as_str() {
        "SelfSubjectReview" => {
            machinery::object::metadata_mut(&mut review).insert("creationTimestamp".into(), json!(identifiers::now()));
            review["status"] = json!({"userInfo": user_info(&call.user)});
        }
        "TokenReview" => token_review(&call, &mut review).await?,
        "SelfSubjectRulesReview" => rules_review(&call, &mut review)?,
        kind => access_review(&call, &target, kind, &mut review)?,
    }
    let mut answer = respond::value(201, &negotiated, &review);
    respond::warn(&mut answer, &decoded.warnings);
    Ok(answer)
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

async fn token_review(call: &Call, review: &mut Value) -> Result<(), StatusError> {
    let text = str_at(review, "spec.token").to_owned();
    if text.is_empty() {
        return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = at(review, "spec.audiences").and_then(Value::as_array).cloned().unwrap_or_default();
    let asked: Vec<String> = asked.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let audiences = if asked.is_empty() { call.api.config.audiences() } else { asked };
    review["status"] = match token::authenticate(&call.api, &text, &audiences).await {
        Some(found) => json!({"authenticated": true, "user": user_info(&found.user), "audiences": found.audiences}),
        None => json!({"user": {}, "error": "[invalid bearer token, service account token is not valid yet or no longer]"}),
    };
    Ok(())
}

fn rules_review(call: &Call, review: &mut Value) -> Result<(), StatusError> {
    let namespace = str_at(review, "spec.namespace").to_owned();
    if namespace.is_empty() {
        return Err(StatusError::bad_request("no namespace on request"));
    }
    let (rules, errors) = call.api.authorizer.policy().rules_for(&call.user, &namespace);
    let mut resource_rules: Vec<Value> = Vec::new();
    let mut other: Vec<Value> = Vec::new();
    if call.user.in_group(auth::user::SYSTEM_MASTERS) {
        resource_rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        other.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for Rule { verbs, groups, resources, names, urls } in rules {
        if !resources.is_empty() {
            let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            resource_rules.push(rule);
        } else if !urls.is_empty() {
            other.push(json!({"verbs": verbs, "nonResourceURLs": urls}));
        }
    }
    let mut status = json!({"resourceRules": resource_rules, "nonResourceRules": other, "incomplete": false});
    if !errors.is_empty() {
        status["incomplete"] = json!(true);
        status["evaluationError"] = json!(errors.join(", "));
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

/// Upstream's `ValidateSubjectAccessReviewSpec` and its kin.
fn validate(review: &Value, kind: &str, target: &Target) -> Vec<Error> {
    let spec = Path::new("spec");
    let (resource, path) = (given(review, "spec.resourceAttributes"), given(review, "spec.nonResourceAttributes"));
    let mut errors = Vec::new();
    if resource.is_some() && path.is_some() {
        let text = "cannot be specified in combination with resourceAttributes";
        errors.push(Error::invalid(&spec.child("nonResourceAttributes"), path.unwrap_or(&Value::Null), text));
    }
    if resource.is_none() && path.is_none() {
        let value = resource.unwrap_or(&Value::Null);
        let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(&spec.child("resourceAttributes"), value, text));
    }
    if kind != "SelfSubjectAccessReview" {
        let user = subject(review);
        if user.name.is_empty() && user.groups.is_empty() {
            errors.push(Error::invalid_str(&spec.child("user"), "", "at least one of user or group must be specified"));
        }
    }
    if kind == "LocalSubjectAccessReview" {
        let namespace = str_at(review, "spec.resourceAttributes.namespace");
        if resource.is_some() && namespace != target.namespace {
            errors.push(Error::invalid_str(&Path::new("spec.resourceAttributes.namespace"), namespace, "must match metadata.namespace"));
        }
        if path.is_some() {
            let text = "disallowed on this kind of request";
            errors.push(Error::invalid(&spec.child("nonResourceAttributes"), path.unwrap_or(&Value::Null), text));
        }
    }
    errors
}

fn given<'a>(review: &'a Value, path: &str) -> Option<&'a Value> {
    at(review, path).filter(|v| !v.is_null())
}

fn access_review(call: &Call, target: &Target, kind: &str, review: &mut Value) -> Result<(), StatusError> {
    let errors = validate(review, kind, target);
    if !errors.is_empty() {
        // Upstream takes the kind from an object that has none by then.
        let kind = GroupKind { group: target.resource.group.clone(), kind: String::new() };
        return Err(StatusError::invalid(&kind, "", &errors));
    }
    let user = if kind == "SelfSubjectAccessReview" { call.user.clone() } else { subject(review) };
    let mut asked = Attributes { user, ..Attributes::default() };
    if let Some(a) = given(review, "spec.resourceAttributes") {
        asked.is_resource = true;
        let text = |key: &str| str_at(a, key).to_owned();
        (asked.verb, asked.namespace, asked.group) = (text("verb"), text("namespace"), text("group"));
        (asked.version, asked.resource, asked.subresource, asked.name) =
            (text("version"), text("resource"), text("subresource"), text("name"));
    } else if let Some(a) = given(review, "spec.nonResourceAttributes") {
        (asked.verb, asked.path) = (str_at(a, "verb").to_owned(), str_at(a, "path").to_owned());
    }
    let mut status = json!({"allowed": false});
    match call.api.authorizer.decide(&asked) {
        Decision::Allow(reason) => {
            status["allowed"] = json!(true);
            if !reason.is_empty() {
                status["reason"] = json!(reason);
            }
        }
        Decision::NoOpinion(reason) => {
            if !reason.is_empty() {
                status["reason"] = json!(reason);
            }
        }
        Decision::Deny(reason) => {
            status["denied"] = json!(true);
            status["reason"] = json!(reason);
        }
    }
    review["status"] = status;
    Ok(())
}
