//! A webhook authorizer: somebody else's server is asked by SubjectAccessReview, and its answer kept for a while.

use std::sync::Arc;
use std::time::Duration;

use auth::authorization::review_spec;
use auth::{Attributes, Decision};
use machinery::object::str_at;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::options;
use crate::error::{Error, Result};
use crate::expiring::Expiring;
use crate::state::Api;
use crate::webhook::{self, CallError, Endpoint, Manner};

/// Longer questions are not remembered: whoever asks chooses their length.
const CACHED_BYTES_MAX: usize = 10_000;
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

pub struct Webhook {
    options: options::Webhook,
    endpoint: Endpoint,
    known: Expiring<Decision>,
}

impl Webhook {
    pub fn new(options: options::Webhook) -> Result<Self> {
        let endpoint = Endpoint::from_kubeconfig(&options.kubeconfig).map_err(Error::Config)?;
        Ok(Self { options, endpoint, known: Expiring::default() })
    }

    pub async fn decide(&self, api: &Arc<Api>, asked: &Attributes) -> Decision {
        let spec = review_spec(asked);
        if !self.options.conditions.is_empty() {
            match self.options.conditions.hold(&spec) {
                Ok(true) => {}
                Ok(false) => return Decision::NoOpinion(String::new()),
                Err(why) => {
                    tracing::warn!(why, "a match condition of a webhook authorizer failed");
                    return self.failed();
                }
            }
        }
        let text = spec.to_string();
        let key: [u8; 32] = Sha256::digest(&text).into();
        if let Some(decision) = self.known.get(&key) {
            return decision;
        }
        let status = match self.ask(api, &spec).await {
            Ok(status) => status,
            Err(why) => {
                tracing::warn!(why, "a webhook authorizer did not answer");
                return self.failed();
            }
        };
        let decision = decision(&status);
        if text.len() <= CACHED_BYTES_MAX {
            let allowed = matches!(decision, Decision::Allow(_));
            let ttl = if allowed { self.options.authorized_ttl } else { self.options.unauthorized_ttl };
            self.known.put(key, decision.clone(), ttl);
        }
        decision
    }

    fn failed(&self) -> Decision {
        if self.options.deny_on_failure { Decision::Deny(String::new()) } else { Decision::NoOpinion(String::new()) }
    }

    async fn ask(&self, api: &Arc<Api>, spec: &Value) -> Result<Value, String> {
        let mut spec = spec.clone();
        let version = &self.options.version;
        if version == "v1beta1"
            && let Some(map) = spec.as_object_mut()
            && let Some(groups) = map.remove("groups")
        {
            map.insert("group".to_owned(), groups);
        }
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{version}"), "kind": "SubjectAccessReview", "metadata": {}, "spec": spec,
        });
        let manner = Manner { timeout: self.options.timeout, tell_timeout: false };
        let mut attempt = 0;
        loop {
            attempt += 1;
            match webhook::post(api, &self.endpoint, &review, manner).await {
                Ok(answer) => return Ok(answer.get("status").cloned().unwrap_or_default()),
                Err(CallError::Transport { .. }) if attempt < ATTEMPTS => tokio::time::sleep(PAUSE * attempt).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

fn decision(status: &Value) -> Decision {
    let said = |key: &str| status.get(key) == Some(&Value::Bool(true));
    let reason = str_at(status, "reason").to_owned();
    match (said("allowed"), said("denied")) {
        // Both make no sense: what refuses counts.
        (_, true) => Decision::Deny(reason),
        (true, false) => Decision::Allow(reason),
        (false, false) => Decision::NoOpinion(reason),
    }
}
