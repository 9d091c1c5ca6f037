//! A new node is tainted not-ready until its controller has seen it.

use async_trait::async_trait;
use machinery::object::map_mut;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "Node") && request.operation == Operation::Create
    }

    async fn mutate(&self, _request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let mut taints = value.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
        if taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
            return Ok(());
        }
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        map_mut(value, "spec").insert("taints".into(), json!(taints));
        Ok(())
    }
}
