//! `MutatingAdmissionPolicy`: its mutations change the object, one after the other; those that want it are asked once more
//! when something changed the object after them.

use async_trait::async_trait;
use cel::{Budget, RUNTIME_BUDGET};
use machinery::status::{Cause, StatusError};
use serde_json::Value;

use super::definition::{Binding, Definition, Mutation};
use super::inputs::{Evaluation, Inputs, failure, ready};
use super::{params, patch};
use crate::admission::authorizer::Requester;
use crate::admission::matching::{self, Matched};
use crate::admission::{Plugin, Request};

const NAME: &str = "MutatingAdmissionPolicy";

pub struct MutatingAdmissionPolicy;

/// A policy, its binding and a parameter that are about a request.
struct Invocation<'h> {
    policy: &'h Definition,
    binding: &'h Binding,
    matched: Matched,
    param: Value,
}

impl Invocation<'_> {
    fn key(&self) -> String {
        let param = format!("{}/{}", machinery::object::namespace(&self.param), machinery::object::name(&self.param));
        format!("{}\n{}\n{param}", self.policy.name, self.binding.name)
    }

    fn refuse(&self, why: &str) -> String {
        format!("policy '{}' with binding '{}' denied request: {why}", self.policy.name, self.binding.name)
    }
}

#[async_trait]
impl Plugin for MutatingAdmissionPolicy {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.api.policies.has_mutating() && !matching::is_exempt(request)
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
        let second = request.reinvocation.is_second();
        if second {
            request.reinvocation.rounds(NAME, |rounds| rounds.compare(value));
        }
        let hooks = request.api.policies.mutating();
        let mut refusals: Vec<String> = Vec::new();
        let mut invocations = Vec::new();
        for hook in hooks.iter() {
            let policy = &*hook.policy;
            let Some(matched) = policy.constraints.find(request, value, old).await? else { continue };
            for binding in &hook.bindings {
                if !binding.matches(request, value, old).await? {
                    continue;
                }
                match params::collect(request, policy, binding).await {
                    Ok(found) => {
                        invocations.extend(found.into_iter().map(|param| Invocation { policy, binding, matched: matched.clone(), param }))
                    }
                    Err(_) if policy.fails_open => {}
                    Err(why) => {
                        let why = format!("failed to configure binding: {why}");
                        refusals.push(format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name));
                    }
                }
            }
        }
        for invocation in &invocations {
            invoke(request, invocation, value, old, second, &mut refusals).await?;
        }
        request.reinvocation.rounds(NAME, |rounds| rounds.leave(value));
        if refusals.is_empty() { Ok(()) } else { Err(refused(request, value, &refusals)) }
    }
}

async fn invoke(
    request: &Request<'_>,
    invocation: &Invocation<'_>,
    value: &mut Value,
    old: Option<&Value>,
    second: bool,
    refusals: &mut Vec<String>,
) -> Result<(), StatusError> {
    let mut inputs = Inputs::new(request, &invocation.matched, value, old).await?;
    inputs.params = invocation.param.clone();
    match conditions(request, invocation.policy, &inputs).await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(why) => {
            if !invocation.policy.fails_open {
                refusals.push(invocation.refuse(&why));
            }
            return Ok(());
        }
    }
    let key = invocation.key();
    if second && !request.reinvocation.rounds(NAME, |rounds| rounds.should_call(&key)) {
        return Ok(());
    }
    let before = inputs.object.clone();
    for mutation in &invocation.policy.mutations {
        if inputs.object.is_null() {
            continue;
        }
        match one(request, invocation, mutation, &inputs).await {
            Ok(changed) => inputs.object = in_form(request, &invocation.matched, changed)?,
            Err(why) if !invocation.policy.fails_open => refusals.push(invocation.refuse(&why)),
            Err(_) => {}
        }
    }
    if before != inputs.object {
        request.reinvocation.rounds(NAME, |rounds| rounds.call_again());
        request.reinvocation.want();
        *value = matching::taken_back(request, &invocation.matched, inputs.object).await?;
    }
    if invocation.policy.reinvocable {
        request.reinvocation.rounds(NAME, |rounds| rounds.called(&key));
    }
    Ok(())
}

async fn conditions(request: &Request<'_>, policy: &Definition, inputs: &Inputs) -> Result<bool, String> {
    let requester = Requester::new(request);
    loop {
        let held = policy.conditions.hold(inputs.variables(&requester));
        if !requester.settle().await {
            return held;
        }
    }
}

async fn one(request: &Request<'_>, invocation: &Invocation<'_>, mutation: &Mutation, inputs: &Inputs) -> Result<Value, String> {
    let requester = Requester::new(request);
    loop {
        let changed = mutated(request, invocation, mutation, inputs, &requester);
        if !requester.settle().await {
            return changed;
        }
    }
}

fn mutated(
    request: &Request<'_>,
    invocation: &Invocation<'_>,
    mutation: &Mutation,
    inputs: &Inputs,
    requester: &Requester<'_>,
) -> Result<Value, String> {
    let program = ready(&mutation.program)?;
    let mut evaluation = Evaluation::new(invocation.policy, inputs, requester);
    let result = evaluation.eval(program, &mut Budget::new(RUNTIME_BUDGET));
    let result = result.map_err(|error| failure(&mutation.expression, &error))?;
    if mutation.json_patch {
        patch::json_patch(&inputs.object, &result)
    } else {
        patch::configuration(request, &invocation.matched, &inputs.object, &result)
    }
}

/// The object in the form of its type and with its defaults.
fn in_form(request: &Request<'_>, matched: &Matched, mut object: Value) -> Result<Value, StatusError> {
    let bad = |e: machinery::decode::DecodeError| StatusError::internal(e.text);
    match request.api.registry.versioned_kind(&matched.kind) {
        Some(row) => {
            machinery::decode::decode(&row.types, row.ty, &mut object).map_err(bad)?;
            row.defaults.apply(&mut object);
            row.strategy.default(&kinds::Context { version: row.version.clone(), ..kinds::Context::default() }, &mut object);
        }
        None => {
            if let Some(ty) = kinds::table().type_of(&matched.kind) {
                machinery::decode::decode(kinds::types(), ty, &mut object).map_err(bad)?;
            }
        }
    }
    Ok(object)
}

/// Forbidden by its code, with the first refusal as its message and all of them as causes.
fn refused(request: &Request<'_>, value: &Value, refusals: &[String]) -> StatusError {
    let mut error = request.forbidden(value, "admission request denied by policy");
    error.reason = "Invalid";
    error.message = refusals.first().cloned().unwrap_or_default();
    if let Some(details) = &mut error.details {
        details.causes.extend(refusals.iter().map(|message| Cause { message: message.clone(), ..Cause::default() }));
    }
    error
}
