//! A claim grows only when it is bound and its class allows that.

use async_trait::async_trait;
use machinery::object::str_at;
use machinery::quantity::Quantity;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "PersistentVolumeClaim") && request.operation == Operation::Update
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let Some(old) = old else { return Ok(()) };
        let size = |claim: &Value| Quantity::parse(str_at(claim, "spec.resources.requests.storage")).unwrap_or(Quantity::ZERO);
        if size(value) <= size(old) {
            return Ok(());
        }
        if str_at(old, "status.phase") != "Bound" {
            return Err(request.forbidden(value, "Only bound persistent volume claims can be expanded"));
        }
        if grows(request, old, value).await? {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(request.forbidden(value, why))
    }
}

async fn grows(request: &Request<'_>, old: &Value, new: &Value) -> Result<bool, StatusError> {
    let (before, now) = (class_of(old), class_of(new));
    if before.is_empty() || before != now {
        return Ok(false);
    }
    let class = request.api.read_kind("storage.k8s.io", "StorageClass", "", before).await?;
    Ok(class.is_some_and(|class| class["allowVolumeExpansion"] == true))
}

fn class_of(claim: &Value) -> &str {
    claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .unwrap_or_else(|| str_at(claim, "spec.storageClassName"))
}
