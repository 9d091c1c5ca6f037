//! Services get no external IPs beyond those they have: whoever sets one could draw other people's traffic.

use async_trait::async_trait;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct DenyServiceExternalIPs;

#[async_trait]
impl Plugin for DenyServiceExternalIPs {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "Service") && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let list = |service: &Value| service.pointer("/spec/externalIPs").and_then(Value::as_array).cloned().unwrap_or_default();
        let before = old.map(list).unwrap_or_default();
        match list(value).iter().all(|ip| before.contains(ip)) {
            true => Ok(()),
            false => Err(request.forbidden(value, "Use of external IPs is denied by admission control.")),
        }
    }
}
