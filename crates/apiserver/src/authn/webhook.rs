//! `--authentication-token-webhook-config-file`: somebody else's server is asked whose a token is, by TokenReview.

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use machinery::object::{at, str_at};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::token::{Found, Verdict};
use crate::error::{Error, Result};
use crate::expiring::Expiring;
use crate::state::Api;
use crate::webhook::{self, Endpoint, Manner};

const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Webhook {
    endpoint: Endpoint,
    ttl: Duration,
    /// The review's status, by the hash of token and audiences.
    known: Expiring<Arc<Value>>,
}

impl Webhook {
    pub fn new(path: &std::path::Path, ttl: Duration) -> Result<Self> {
        let endpoint = Endpoint::from_kubeconfig(path).map_err(Error::Config)?;
        Ok(Self { endpoint, ttl, known: Expiring::default() })
    }

    pub async fn authenticate(&self, api: &Arc<Api>, token: &str, audiences: &[String]) -> Verdict {
        let mut hash = Sha256::new().chain_update(token);
        audiences.iter().for_each(|a| hash = hash.clone().chain_update([0]).chain_update(a));
        let key: [u8; 32] = hash.finalize().into();
        let status = match self.known.get(&key) {
            Some(status) => status,
            None => match self.ask(api, token, audiences).await {
                Ok(status) => {
                    let status = Arc::new(status);
                    self.known.put(key, status.clone(), self.ttl);
                    status
                }
                Err(why) => {
                    tracing::warn!(why, "the webhook authenticator did not answer");
                    return Verdict::Refused("the webhook authenticator did not answer".to_owned());
                }
            },
        };
        verdict(&status, audiences, &api.config.audiences())
    }

    async fn ask(&self, api: &Arc<Api>, token: &str, audiences: &[String]) -> Result<Value, String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {"token": token, "audiences": audiences},
        });
        let manner = Manner { timeout: TIMEOUT, tell_timeout: false };
        let answer = webhook::post(api, &self.endpoint, &review, manner).await.map_err(|e| e.to_string())?;
        Ok(answer.get("status").cloned().unwrap_or_default())
    }
}

fn verdict(status: &Value, wanted: &[String], implied: &[String]) -> Verdict {
    if status.get("authenticated") != Some(&Value::Bool(true)) {
        let error = str_at(status, "error");
        return if error.is_empty() { Verdict::Unknown } else { Verdict::Refused(error.to_owned()) };
    }
    let texts = |path: &str| -> Vec<String> {
        at(status, path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut given = texts("audiences");
    if given.is_empty() {
        given = implied.to_vec();
    }
    given.retain(|a| wanted.contains(a));
    if given.is_empty() {
        return Verdict::Unknown;
    }
    let groups = texts("user.groups");
    let mut user = User::new(str_at(status, "user.username"), &groups.iter().map(String::as_str).collect::<Vec<_>>());
    user.uid = str_at(status, "user.uid").to_owned();
    for (key, values) in at(status, "user.extra").and_then(Value::as_object).into_iter().flatten() {
        let values = values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        user.extra.insert(key.clone(), values.collect());
    }
    Verdict::Found(Box::new(Found { user, audiences: given, remarks: super::token::Remarks::default() }))
}
