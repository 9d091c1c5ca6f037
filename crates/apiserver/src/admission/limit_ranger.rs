//! LimitRanges of the namespace give containers defaults and bound what pods and claims ask for; the rules are
//! `kinds::limits`.

use async_trait::async_trait;
use kinds::limits;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn handles(&self, request: &Request<'_>) -> bool {
        let core = request.resource.group.is_empty();
        match (request.resource.kind.as_str(), request.subresource) {
            // The containers of a pod change through `resize` alone.
            ("Pod", "") => core && request.operation == Operation::Create,
            ("Pod", "resize") => core && request.operation == Operation::Update,
            ("PersistentVolumeClaim", "") => core && matches!(request.operation, Operation::Create | Operation::Update),
            _ => false,
        }
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if request.resource.kind == "Pod" && !is_going(value) {
            for range in ranges(request).await? {
                limits::default_pod(&range, value);
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if is_going(value) {
            return Ok(());
        }
        let is_pod = request.resource.kind == "Pod";
        for range in ranges(request).await? {
            let problems = if is_pod { limits::pod_problems(&range, value) } else { limits::claim_problems(&range, value) };
            match problems.as_slice() {
                [] => {}
                [one] => return Err(request.forbidden(value, one)),
                many => return Err(request.forbidden(value, &format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

async fn ranges(request: &Request<'_>) -> Result<Vec<Value>, StatusError> {
    request.api.read_all("", "LimitRange", request.namespace).await
}

fn is_going(value: &Value) -> bool {
    !str_at(value, "metadata.deletionTimestamp").is_empty()
}
