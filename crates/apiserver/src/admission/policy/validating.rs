//! `ValidatingAdmissionPolicy`: what its validations refuse is denied, warned of or noted, as its bindings say.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cel::{Budget, RUNTIME_BUDGET, Value as CelValue};
use machinery::status::{Cause, StatusError};
use serde_json::{Value, json};

use super::definition::{Binding, Definition, Validation};
use super::inputs::{Evaluation, Inputs, failure, ready};
use super::params;
use crate::admission::authorizer::Requester;
use crate::admission::conditions::OUT_OF_BUDGET;
use crate::admission::matching;
use crate::admission::{Plugin, Request};

/// Longer messages of expressions are not used.
const MESSAGE_MAX_BYTES: usize = 5 * 1024;
/// Longer audit annotations are cut.
const ANNOTATION_MAX_BYTES: usize = 10 * 1024;

pub struct ValidatingAdmissionPolicy;

/// What a policy says against a request.
struct Denial {
    message: String,
    reason: String,
}

/// What one evaluation of a policy gives.
#[derive(Default)]
struct Outcome {
    /// With the place of the validation.
    denials: Vec<(usize, Denial)>,
    annotations: Vec<(String, String)>,
    /// Annotations that failed, which denies whatever the binding's actions are.
    failed_annotations: Vec<String>,
}

#[async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.api.policies.has_validating() && !matching::is_exempt(request)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let mut denied: Option<(String, String)> = None;
        let mut deny = |policy: &Definition, binding: Option<&Binding>, denial: Denial| {
            let with = binding.map(|b| format!(" with binding '{}'", b.name)).unwrap_or_default();
            let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {}", policy.name, denial.message);
            denied.get_or_insert((message, denial.reason));
        };
        for hook in request.api.policies.validating().iter() {
            let policy = &*hook.policy;
            let Some(matched) = policy.constraints.find(request, value, old).await? else { continue };
            let mut inputs = Inputs::new(request, &matched, value, old).await?;
            let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for binding in &hook.bindings {
                if !binding.matches(request, value, old).await? {
                    continue;
                }
                let found = match params::collect(request, policy, binding).await {
                    Ok(found) => found,
                    Err(_) if policy.fails_open => continue,
                    Err(why) => {
                        let message = format!("failed to configure binding: {why}");
                        deny(policy, Some(binding), Denial { message, reason: String::new() });
                        continue;
                    }
                };
                for param in found {
                    inputs.params = param;
                    let outcome = evaluate(request, policy, &inputs).await;
                    for (place, denial) in outcome.denials {
                        act(request, policy, binding, place, denial, &mut deny);
                    }
                    for message in outcome.failed_annotations {
                        deny(policy, Some(binding), Denial { message, reason: String::new() });
                    }
                    for (key, text) in outcome.annotations {
                        let all = annotations.entry(key).or_default();
                        if !all.contains(&text) {
                            all.push(text);
                        }
                    }
                }
            }
            for (key, all) in annotations {
                request.annotate(&format!("{}/{key}", policy.name), all.join(", "));
            }
        }
        match denied {
            Some((message, reason)) => Err(refusal(request, value, &message, &reason)),
            None => Ok(()),
        }
    }
}

/// What the binding wants done about a denial.
fn act(
    request: &Request<'_>,
    policy: &Definition,
    binding: &Binding,
    place: usize,
    denial: Denial,
    deny: &mut impl FnMut(&Definition, Option<&Binding>, Denial),
) {
    for action in &binding.actions {
        match action.as_str() {
            "Warn" => request.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, denial.message
            )),
            "Audit" => {
                let failure = json!([{
                    "message": denial.message,
                    "policy": policy.name,
                    "binding": binding.name,
                    "expressionIndex": place,
                    "validationActions": binding.actions,
                }]);
                request.annotate("validation.policy.admission.k8s.io/validation_failure", failure.to_string());
            }
            _ => deny(policy, Some(binding), Denial { message: denial.message.clone(), reason: denial.reason.clone() }),
        }
    }
}

/// `admission.NewForbidden` with the reason and code of the validation.
fn refusal(request: &Request<'_>, value: &Value, message: &str, reason: &str) -> StatusError {
    let mut error = request.forbidden(value, message);
    (error.reason, error.code) = match reason {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    if let Some(details) = &mut error.details {
        details.causes.push(Cause { message: message.to_owned(), ..Cause::default() });
    }
    error
}

/// Evaluates a policy; again when an authorizer had to be waited for.
async fn evaluate(request: &Request<'_>, policy: &Definition, inputs: &Inputs) -> Outcome {
    let requester = Requester::new(request);
    loop {
        let outcome = judge(policy, inputs, &requester);
        if !requester.settle().await {
            return outcome;
        }
    }
}

fn judge(policy: &Definition, inputs: &Inputs, requester: &Requester<'_>) -> Outcome {
    let mut out = Outcome::default();
    let plain = |message: String| Denial { message, reason: String::new() };
    match policy.conditions.hold(inputs.variables(requester)) {
        Ok(true) => {}
        Ok(false) => return out,
        Err(_) if policy.fails_open => return out,
        Err(why) => {
            out.denials.push((0, plain(why)));
            return out;
        }
    }
    let mut evaluation = Evaluation::new(policy, inputs, requester);
    let mut budget = Budget::new(RUNTIME_BUDGET);
    for (place, validation) in policy.validations.iter().enumerate() {
        let judged = ready(&validation.program)
            .and_then(|program| evaluation.eval(program, &mut budget).map_err(|error| failure(&validation.expression, &error)));
        match judged {
            _ if budget.exhausted() => {
                // Nothing else counts then.
                let denials = if policy.fails_open { Vec::new() } else { vec![(0, plain(OUT_OF_BUDGET.to_owned()))] };
                return Outcome { denials, ..Outcome::default() };
            }
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => {
                let message = message(validation, &mut evaluation, &mut budget);
                out.denials.push((place, Denial { message, reason: validation.reason.clone() }));
            }
            Err(why) if !policy.fails_open => out.denials.push((place, plain(why))),
            Err(_) => {}
        }
    }
    annotate(policy, &mut evaluation, &mut out);
    out
}

/// By the message's expression, else the message, else the expression that failed.
fn message<'a>(validation: &'a Validation, evaluation: &mut Evaluation<'a>, budget: &mut Budget) -> String {
    let by_expression = match &validation.message_program {
        Some(Ok(program)) => evaluation.eval(program, budget).ok(),
        _ => None,
    };
    let text = by_expression.as_ref().and_then(|v| v.as_str()).map(str::trim).unwrap_or("");
    if !text.is_empty() && text.len() <= MESSAGE_MAX_BYTES && !text.contains('\n') {
        return text.to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.trim()),
        message => message.to_owned(),
    }
}

fn annotate<'a>(policy: &'a Definition, evaluation: &mut Evaluation<'a>, out: &mut Outcome) {
    let mut budget = Budget::new(RUNTIME_BUDGET);
    for annotation in &policy.audit {
        let value = ready(&annotation.program)
            .and_then(|program| evaluation.eval(program, &mut budget).map_err(|error| failure(&annotation.expression, &error)));
        match value {
            Ok(CelValue::String(text)) if !text.trim().is_empty() => {
                let text = text.trim();
                let text = &text[..text.floor_char_boundary(ANNOTATION_MAX_BYTES)];
                out.annotations.push((annotation.key.clone(), text.to_owned()));
            }
            Ok(_) => {}
            Err(why) if !policy.fails_open => out.failed_annotations.push(why),
            Err(_) => {}
        }
    }
}
