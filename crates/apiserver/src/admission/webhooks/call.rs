//! One call of one webhook: whether it is asked, what it is asked, and what its answer means for the request.

use std::time::Instant;

use cel::{AuthzRequest, Variables};
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::Caller;
use super::configurations::Hook;
use crate::admission::authorizer::Requester;
use crate::admission::matching::{self, Matched};
use crate::admission::review::{self, Response};
use crate::admission::{Operation, Request};
use crate::identifiers;
use crate::metrics::table;
use crate::webhook::{self, CallError, Manner};

/// The two kinds of webhooks in metrics.
pub const MUTATING: &str = "admit";
pub const VALIDATING: &str = "validating";

/// Why a webhook stops a request.
pub enum Refused {
    /// It could not be called properly; the failure policy says what that means.
    Call(String),
    Rejected(StatusError),
}

impl From<StatusError> for Refused {
    fn from(error: StatusError) -> Self {
        Self::Rejected(error)
    }
}

/// Whether the webhook is asked about the request, and in which version.
pub async fn invocation(hook: &Hook, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<Option<Matched>, StatusError> {
    let Some(matched) = matching::find(&hook.rules, hook.equivalent, request) else { return Ok(None) };
    if !matching::selected(request, &hook.namespaces, &hook.objects, value, old).await? {
        return Ok(None);
    }
    if hook.conditions.is_empty() {
        return Ok(Some(matched));
    }
    let object = matching::shown(request, &matched, value).await?;
    let old = matching::shown(request, &matched, old.unwrap_or(&Value::Null)).await?;
    let about = review::request(request, &matched, "");
    match holds(hook, request, &about, &object, &old).await {
        Ok(true) => Ok(Some(matched)),
        Ok(false) => Ok(None),
        Err(_) if hook.fails_open => Ok(None),
        Err(why) => {
            tracing::warn!(webhook = hook.name, why, "match conditions could not be evaluated: failing closed");
            Err(request.forbidden(value, &why))
        }
    }
}

/// Whether all its conditions are true of the request.
async fn holds(hook: &Hook, request: &Request<'_>, about: &Value, object: &Value, old: &Value) -> Result<bool, String> {
    let authorizer = Requester::new(request);
    let text = |path: &str| str_at(about, path).to_owned();
    let asked_for = AuthzRequest {
        group: text("resource.group"),
        resource: text("resource.resource"),
        subresource: text("subResource"),
        namespace: text("namespace"),
        name: text("name"),
        ..AuthzRequest::default()
    };
    loop {
        let mut variables = Variables::new();
        variables.json("object", object);
        variables.json("oldObject", old);
        variables.json("request", about);
        variables.authorizer("authorizer", &authorizer);
        variables.resource_check("authorizer.requestResource", &authorizer, asked_for.clone());
        let held = hook.conditions.hold(variables);
        if !authorizer.settle().await {
            return held;
        }
    }
}

/// Calls the webhook; `shown` is the object in the matched version.
pub async fn call(
    hook: &Hook,
    request: &Request<'_>,
    matched: &Matched,
    shown: &Value,
    old: Option<&Value>,
    by: &Caller,
) -> Result<Response, Refused> {
    let started = Instant::now();
    let answer = asked(hook, request, matched, shown, old, by).await;
    let code = match &answer {
        Ok(_) => 200,
        Err(Refused::Rejected(error)) => error.code,
        Err(Refused::Call(_)) => 500,
    };
    let rejected = match &answer {
        Ok(_) => "false",
        Err(Refused::Call(_)) if hook.fails_open => "false",
        Err(_) => "true",
    };
    let (metrics, operation, step) = (&request.api.metrics, request.operation.name(), if by.mutating { MUTATING } else { VALIDATING });
    metrics.observe(&table::ADMISSION_WEBHOOK_DURATION, &[&hook.name, operation, rejected, step], started.elapsed().as_secs_f64());
    metrics.count(&table::ADMISSION_WEBHOOK_REQUESTS, &[&code.to_string(), &hook.name, operation, rejected, step]);
    answer
}

async fn asked(
    hook: &Hook,
    request: &Request<'_>,
    matched: &Matched,
    shown: &Value,
    old: Option<&Value>,
    by: &Caller,
) -> Result<Response, Refused> {
    dry_run(hook, request)?;
    let created = |why: String| Refused::Call(format!("could not create admission objects: {why}"));
    let version = review::version(&hook.review_versions).map_err(created)?;
    let endpoint = hook.endpoint.as_ref().map_err(|why| Refused::Call(format!("could not get REST client: {why}")))?;
    let uid = identifiers::uuid();
    let old = match old.filter(|_| request.operation != Operation::Create) {
        Some(old) => matching::shown(request, matched, old).await?,
        None => Value::Null,
    };
    let body = review::review(request, matched, &uid, version, shown.clone(), old);
    let manner = Manner { timeout: hook.timeout, tell_timeout: true };
    let answer = webhook::post(request.api, &by.credentials.dress(endpoint), &body, manner).await.map_err(|error| match error {
        CallError::Config(why) => Refused::Call(format!("could not get REST client: {why}")),
        other => Refused::Call(format!("failed to call webhook: {other}")),
    })?;
    let response = review::verify(&answer, &uid, version, by.mutating);
    let response = response.map_err(|why| Refused::Call(format!("received invalid webhook response: {why}")))?;
    for (key, value) in &response.audit_annotations {
        request.annotate(&format!("{}/{key}", hook.name), value);
    }
    for warning in &response.warnings {
        request.warn(warning);
    }
    if response.allowed { Ok(response) } else { Err(Refused::Rejected(denied(&hook.name, &response.status))) }
}

/// A dry run calls only what has no side effects.
fn dry_run(hook: &Hook, request: &Request<'_>) -> Result<(), Refused> {
    if !request.dry_run {
        return Ok(());
    }
    match hook.side_effects.as_str() {
        "" => Err(Refused::Call("Webhook SideEffects is nil".to_owned())),
        "None" | "NoneOnDryRun" => Ok(()),
        _ => Err(Refused::Rejected(StatusError::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)))),
    }
}

/// Upstream's `ToStatusErr`: the webhook's own Status, with at least a code of failure and a message that names the webhook.
fn denied(webhook: &str, status: &Value) -> StatusError {
    let mut status = if status.is_object() { status.clone() } else { json!({}) };
    let code = status.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).filter(|c| (400..=599).contains(c));
    let code = code.unwrap_or(400);
    let (message, reason) = (str_at(&status, "message"), str_at(&status, "reason"));
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match (message, reason) {
        ("", "") => format!("{by} without explanation"),
        ("", why) | (why, _) => format!("{by}: {why}"),
    };
    status["message"] = json!(message);
    status["code"] = json!(code);
    if matches!(str_at(&status, "status"), "" | "Success") {
        status["status"] = json!("Failure");
    }
    status["kind"] = json!("Status");
    status["apiVersion"] = json!("v1");
    if !status["metadata"].is_object() {
        status["metadata"] = json!({});
    }
    StatusError::verbatim(code, status)
}

/// What a failed call means: nothing, where the webhook fails open.
pub fn judge(hook: &Hook, request: &Request<'_>, step: &'static str, refused: Refused) -> Result<(), StatusError> {
    let metrics = &request.api.metrics;
    let rejection = |error_type: &str, code: u16| {
        let values = [error_type, &hook.name, request.operation.name(), &code.to_string(), step];
        metrics.count(&table::ADMISSION_WEBHOOK_REJECTIONS, &values);
    };
    match refused {
        Refused::Rejected(error) => {
            rejection("no_error", error.code);
            Err(error)
        }
        Refused::Call(why) => {
            if hook.fails_open {
                metrics.count(&table::ADMISSION_WEBHOOK_FAIL_OPEN, &[&hook.name, step]);
            } else {
                rejection("calling_webhook_error", 0);
            }
            let text = format!("failed calling webhook {:?}: {why}", hook.name);
            tracing::warn!(webhook = hook.name, open = hook.fails_open, "{text}");
            if hook.fails_open { Ok(()) } else { Err(StatusError::internal(text)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_always_fails_and_names_the_webhook() {
        let text = |status: Value| {
            let error = denied("w", &status);
            format!("{} {}", error.code, error.message)
        };
        assert_eq!(text(json!(null)), "400 admission webhook \"w\" denied the request without explanation");
        assert_eq!(text(json!({"message": "no", "code": 200})), "400 admission webhook \"w\" denied the request: no");
        assert_eq!(text(json!({"reason": "Because", "code": 418})), "418 admission webhook \"w\" denied the request: Because");
        let status = denied("w", &json!({"status": "Success", "reason": "Own", "code": 403, "details": {"name": "x"}})).to_status();
        assert_eq!((&status["status"], &status["reason"], &status["details"]["name"]), (&json!("Failure"), &json!("Own"), &json!("x")));
    }
}
