//! Mutating webhooks: called one after the other, each seeing what the one before made of the object; those that want it are
//! called once more when a later one changed it.

use async_trait::async_trait;
use kinds::Context;
use machinery::object::map_mut;
use machinery::patch::JsonPatch;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::Caller;
use super::call::{self, Refused};
use super::configurations::Hook;
use crate::admission::configuration::Given;
use crate::admission::matching::{self, Matched};
use crate::admission::review::Response;
use crate::admission::{Plugin, Request};

const NAME: &str = "MutatingAdmissionWebhook";

pub struct MutatingAdmissionWebhook(Caller);

impl MutatingAdmissionWebhook {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        Caller::new(given, true).map(Self)
    }
}

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.api.hooks.has_mutating() && !matching::is_exempt(request)
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
        let second = request.reinvocation.is_second();
        if second {
            request.reinvocation.rounds(NAME, |rounds| rounds.compare(value));
        }
        for (index, hook) in request.api.hooks.mutating().iter().enumerate() {
            let Some(matched) = call::invocation(hook, request, value, old).await? else { continue };
            if second && !request.reinvocation.rounds(NAME, |rounds| rounds.should_call(&hook.uid)) {
                continue;
            }
            let done = one(&self.0, hook, request, &matched, value, old).await;
            if matches!(done, Ok(Some(_))) {
                request.reinvocation.rounds(NAME, |rounds| rounds.call_again());
                request.reinvocation.want();
            }
            if hook.reinvocable {
                request.reinvocation.rounds(NAME, |rounds| rounds.called(&hook.uid));
            }
            let place = format!("round_{}_index_{index}", u8::from(second));
            match done {
                Ok(patch) => annotate(hook, request, &place, patch),
                Err(refused) => {
                    let failed = matches!(refused, Refused::Call(_));
                    call::judge(hook, request, call::MUTATING, refused)?;
                    if failed {
                        request.annotate(&format!("failed-open.mutation.webhook.admission.k8s.io/{place}"), &hook.name);
                    }
                    annotate(hook, request, &place, None);
                }
            }
        }
        request.reinvocation.rounds(NAME, |rounds| rounds.leave(value));
        Ok(())
    }
}

/// Upstream's audit annotations; the patch itself is for events of requests, which carry bodies.
fn annotate(hook: &Hook, request: &Request<'_>, place: &str, patch: Option<Value>) {
    let mutated = patch.is_some();
    let text = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated}).to_string();
    request.annotate(&format!("mutation.webhook.admission.k8s.io/{place}"), text);
    if let Some(patch) = patch {
        let text = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
        request.annotate(&format!("patch.webhook.admission.k8s.io/{place}"), text.to_string());
    }
}

/// Calls one webhook and applies its patch; answers the patch if it changed the object.
async fn one(
    by: &Caller,
    hook: &Hook,
    request: &Request<'_>,
    matched: &Matched,
    value: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Value>, Refused> {
    let shown = matching::shown(request, matched, value).await?;
    let response = call::call(hook, request, matched, &shown, old, by).await?;
    let Some(patched) = patched(hook, request, matched, &shown, &response)? else { return Ok(None) };
    if patched == shown {
        return Ok(None);
    }
    *value = matching::taken_back(request, matched, patched).await?;
    Ok(Some(serde_json::from_slice(&response.patch).unwrap_or_default()))
}

/// The object with the webhook's patch, in the form of its type and with its defaults.
fn patched(hook: &Hook, request: &Request<'_>, matched: &Matched, shown: &Value, response: &Response) -> Result<Option<Value>, Refused> {
    if response.patch.is_empty() {
        return Ok(None);
    }
    let internal = |why: String| Refused::Rejected(StatusError::internal(why));
    let patch = JsonPatch::parse(&response.patch).map_err(|e| internal(e.to_string()))?;
    if patch.is_empty() {
        return Ok(None);
    }
    if shown.is_null() {
        let why = format!("admission webhook {:?} attempted to modify the object, which is not supported for this operation", hook.name);
        return Err(internal(why));
    }
    if response.patch_type != "JSONPatch" {
        return Err(Refused::Call(format!("unsupported patch type {:?}", response.patch_type)));
    }
    let mut out = patch.apply(shown).map_err(|e| internal(e.to_string()))?;
    if !out.is_object() {
        return Err(internal("the patched object is not an object".to_owned()));
    }
    // As Go's decoder, which is told the kind.
    for (key, text) in [("kind", matched.kind.kind.clone()), ("apiVersion", matched.kind.api_version())] {
        map_mut(&mut out, "").entry(key).or_insert_with(|| text.into());
    }
    let row = request.api.registry.versioned_kind(&matched.kind);
    match &row {
        Some(row) => {
            machinery::decode::decode(&row.types, row.ty, &mut out).map_err(|e| internal(e.text))?;
            row.defaults.apply(&mut out);
            row.strategy.default(&Context { version: row.version.clone(), ..Context::default() }, &mut out);
        }
        None => {
            if let Some(ty) = kinds::table().type_of(&matched.kind) {
                machinery::decode::decode(kinds::types(), ty, &mut out).map_err(|e| internal(e.text))?;
            }
        }
    }
    Ok(Some(out))
}
