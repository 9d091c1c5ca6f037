//! Resources that are only ever created and never stored: access reviews, token reviews, who am I, and `bindings`.

use auth::User;
use auth::rbac::Rule;
use http::Request;
use kinds::Resource;
use machinery::object::{at, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::access;
use crate::admission::{self, Operation};
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
        let admitted_as = target.clone();
        return super::binding::serve(call, request, Target { resource: pods, ..target }, admitted_as).await;
    }
    let negotiated = negotiate::negotiate(&call.headers, &call.query, false, true)?;
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let decoded = body::of_resource(request, &call.api.registry, &target.resource, options.validation).await?;
    call.notes.warn_of(decoded.warnings);
    let mut review = decoded.object;
    if target.resource.namespaced {
        write::create::match_namespace(&mut review, &target)?;
    }
    let ctx = Ctx::new(&call, options);
    // As upstream, the two reviews of oneself without a question note no owner.
    if !matches!(target.resource.kind.as_str(), "SelfSubjectReview" | "SelfSubjectRulesReview") {
        write::managed(&ctx, &target, &mut review, None);
    }
    let place = target.named(machinery::object::name(&review));
    admission::admit(&admission::Request::new(&ctx, &place, Operation::Create), &mut review, None).await?;
    match target.resource.kind.as_str() {
        "SelfSubjectReview" => {
            machinery::object::metadata_mut(&mut review).insert("creationTimestamp".into(), json!(identifiers::now()));
            review["status"] = json!({"userInfo": user_info(&call.user)});
        }
        "TokenReview" => token_review(&call, &mut review).await?,
        "SelfSubjectRulesReview" => rules_review(&call, &mut review)?,
        _ => access::review(&call, &target, &mut review).await?,
    }
    Ok(respond::value(201, &negotiated, &review))
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
        Ok(found) => json!({"authenticated": true, "user": user_info(&found.user), "audiences": found.audiences}),
        Err(why) => json!({"user": {}, "error": why}),
    };
    Ok(())
}

fn rules_review(call: &Call, review: &mut Value) -> Result<(), StatusError> {
    let namespace = str_at(review, "spec.namespace").to_owned();
    if namespace.is_empty() {
        return Err(StatusError::bad_request("no namespace on request"));
    }
    let (rules, mut errors) = call.api.authorizer.policy().rules_for(&call.user, &namespace);
    if call.user.as_node().is_some() {
        errors.insert(0, "node authorizer does not support user rule resolution".to_owned());
    }
    if !call.api.authorizer.is_enumerable() {
        errors.push("webhook authorizer does not support user rule resolution".to_owned());
    }
    let mut resource_rules: Vec<Value> = Vec::new();
    let mut other: Vec<Value> = Vec::new();
    for Rule { verbs, groups, resources, names, urls } in rules {
        if !resources.is_empty() {
            let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            resource_rules.push(rule);
        }
        if !urls.is_empty() {
            other.push(json!({"verbs": verbs, "nonResourceURLs": urls}));
        }
    }
    let mut status = json!({"resourceRules": resource_rules, "nonResourceRules": other, "incomplete": !errors.is_empty()});
    if !errors.is_empty() {
        status["evaluationError"] = json!(machinery::field::aggregate(&errors));
    }
    // Upstream answers with the status alone.
    *review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "metadata": {}, "spec": {}, "status": status});
    Ok(())
}
