//! Somebody else's server says which images may run (`imagepolicy.k8s.io` ImageReview). Its answers are kept for a while.

use std::time::Duration;

use async_trait::async_trait;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::configuration::{Given, known};
use super::pods::containers;
use super::{Operation, Plugin, Request};
use crate::expiring::Expiring;
use crate::webhook::{self, CallError, Endpoint, Manner};

const AUDIT: &str = "imagepolicywebhook.image-policy.k8s.io/";
const ANNOTATIONS: &str = ".image-policy.k8s.io/";
const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 3;

pub struct ImagePolicyWebhook {
    endpoint: Endpoint,
    allowed_ttl: Duration,
    denied_ttl: Duration,
    backoff: Duration,
    /// What holds while the server does not answer.
    default_allow: bool,
    known: Expiring<Value>,
}

impl ImagePolicyWebhook {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        let given = given.ok_or("no config specified")?;
        let policy = given.tree.get("imagePolicy").unwrap_or(&Value::Null);
        known(policy, "imagePolicy.", &["kubeConfigFile", "allowTTL", "denyTTL", "retryBackoff", "defaultAllow"])?;
        let number = |key: &str, default: u64, unit: Duration, (min, max): (Duration, Duration)| match policy[key].as_i64().unwrap_or(0) {
            0 => Ok(unit * u32::try_from(default).unwrap_or(0)),
            // Not kept, not waited.
            n if n < 0 => Ok(Duration::ZERO),
            n => {
                let given = unit * u32::try_from(n).unwrap_or(u32::MAX);
                if given < min || given > max {
                    Err(format!("valid value is between {min:?} and {max:?}, got {given:?} for {key}"))
                } else {
                    Ok(given)
                }
            }
        };
        let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
        let ttl = (second, second * 1800);
        Ok(Self {
            endpoint: Endpoint::from_kubeconfig(&given.dir.join(str_at(policy, "kubeConfigFile")))?,
            allowed_ttl: number("allowTTL", 300, second, ttl)?,
            denied_ttl: number("denyTTL", 30, second, ttl)?,
            backoff: number("retryBackoff", 500, millisecond, (millisecond, second * 300))?,
            default_allow: policy["defaultAllow"] == true,
            known: Expiring::default(),
        })
    }

    async fn status(&self, request: &Request<'_>, spec: Value) -> Result<Value, String> {
        let key: [u8; 32] = Sha256::digest(spec.to_string()).into();
        if let Some(status) = self.known.get(&key) {
            return Ok(status);
        }
        let review = json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "metadata": {}, "spec": spec});
        let manner = Manner { timeout: TIMEOUT, tell_timeout: false };
        let mut attempt = 0;
        let status = loop {
            attempt += 1;
            match webhook::post(request.api, &self.endpoint, &review, manner).await {
                Ok(answer) => break answer.get("status").cloned().unwrap_or_default(),
                Err(CallError::Transport { .. }) if attempt < ATTEMPTS => tokio::time::sleep(self.backoff * attempt).await,
                Err(error) => return Err(error.to_string()),
            }
        };
        let ttl = if status["allowed"] == true { self.allowed_ttl } else { self.denied_ttl };
        self.known.put(key, status.clone(), ttl);
        Ok(status)
    }
}

#[async_trait]
impl Plugin for ImagePolicyWebhook {
    fn handles(&self, request: &Request<'_>) -> bool {
        let pods = request.resource.group.is_empty() && request.resource.kind == "Pod";
        let part = matches!(request.subresource, "" | "ephemeralcontainers");
        pods && part && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let images: Vec<Value> = containers(value).map(|(_, c)| json!({"image": c["image"]})).collect();
        let notes = value.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
        let notes: serde_json::Map<String, Value> =
            notes.filter(|(key, _)| key.contains(ANNOTATIONS)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut spec = json!({"containers": images, "namespace": request.namespace});
        if !notes.is_empty() {
            spec["annotations"] = Value::Object(notes);
        }
        let status = match self.status(request, spec).await {
            Ok(status) => status,
            Err(why) => {
                tracing::warn!(why, "the image policy webhook did not answer");
                if self.default_allow {
                    request.annotate(&format!("{AUDIT}failed-open"), "true");
                    return Ok(());
                }
                return Err(request.forbidden(value, &why));
            }
        };
        for (key, note) in status.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten() {
            request.annotate(&format!("{AUDIT}{key}"), note.as_str().unwrap_or_default());
        }
        match (status["allowed"] == true, str_at(&status, "reason")) {
            (true, _) => Ok(()),
            (false, "") => Err(request.forbidden(value, "one or more images rejected by webhook backend")),
            (false, reason) => Err(request.forbidden(value, &format!("image policy webhook backend denied one or more images: {reason}"))),
        }
    }
}
