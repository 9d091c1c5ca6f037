//! A pod tolerates a node that is not ready or not reachable for five minutes, unless it says otherwise.

use async_trait::async_trait;
use machinery::object::map_mut;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "Pod") && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, _request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let mut list = value.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let before = list.len();
        for taint in TAINTS {
            let text = |t: &Value, key: &str| t.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            let tolerated = list
                .iter()
                .any(|t| (text(t, "key") == taint || text(t, "key").is_empty()) && matches!(text(t, "effect").as_str(), "NoExecute" | ""));
            if !tolerated {
                list.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
            }
        }
        if list.len() != before {
            map_mut(value, "spec").insert("tolerations".into(), json!(list));
        }
        Ok(())
    }
}
