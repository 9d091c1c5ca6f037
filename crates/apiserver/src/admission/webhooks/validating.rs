//! Validating webhooks: all that are about a request are called at once; the first refusal in their order is the answer.

use async_trait::async_trait;
use futures::future::join_all;
use machinery::status::StatusError;
use serde_json::Value;

use super::Caller;
use super::call::{self, Refused};
use super::configurations::Hook;
use crate::admission::configuration::Given;
use crate::admission::matching::{self, Matched};
use crate::admission::{Plugin, Request};

pub struct ValidatingAdmissionWebhook(Caller);

impl ValidatingAdmissionWebhook {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        Caller::new(given, false).map(Self)
    }
}

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.api.hooks.has_validating() && !matching::is_exempt(request)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let hooks = request.api.hooks.validating();
        let mut calls = Vec::new();
        for hook in hooks.iter() {
            if let Some(matched) = call::invocation(hook, request, value, old).await? {
                calls.push((hook, matched));
            }
        }
        let answers = join_all(calls.iter().map(|(hook, matched)| one(&self.0, hook, request, matched, value, old))).await;
        let mut first = Ok(());
        for (index, ((hook, _), answer)) in calls.iter().zip(answers).enumerate() {
            let Err(refused) = answer else { continue };
            let failed = matches!(refused, Refused::Call(_));
            match call::judge(hook, request, call::VALIDATING, refused) {
                Ok(()) if failed => {
                    request.annotate(&format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}"), &hook.name)
                }
                Ok(()) => {}
                Err(error) if first.is_ok() => first = Err(error),
                Err(error) => tracing::debug!(webhook = hook.name, %error, "another webhook had refused already"),
            }
        }
        first
    }
}

async fn one(
    by: &Caller,
    hook: &Hook,
    request: &Request<'_>,
    matched: &Matched,
    value: &Value,
    old: Option<&Value>,
) -> Result<(), Refused> {
    let shown = matching::shown(request, matched, value).await?;
    call::call(hook, request, matched, &shown, old, by).await.map(|_| ())
}
