//! Two plugins about namespaces that are not there: NamespaceExists refuses what is to be in one, NamespaceAutoProvision makes it.

use async_trait::async_trait;
use machinery::gvk::GroupResource;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

fn in_namespace(request: &Request<'_>) -> bool {
    !(request.namespace.is_empty() || request.resource.group.is_empty() && request.resource.kind == "Namespace")
}

async fn is_missing(request: &Request<'_>) -> Result<bool, StatusError> {
    Ok(request.api.read_kind("", "Namespace", "", request.namespace).await?.is_none())
}

pub struct NamespaceExists;

#[async_trait]
impl Plugin for NamespaceExists {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation != Operation::Connect && in_namespace(request)
    }

    async fn validate(&self, request: &Request<'_>, _value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        match is_missing(request).await? {
            true => Err(StatusError::not_found(&GroupResource::new("", "namespaces"), request.namespace)),
            false => Ok(()),
        }
    }
}

pub struct NamespaceAutoProvision;

#[async_trait]
impl Plugin for NamespaceAutoProvision {
    fn handles(&self, request: &Request<'_>) -> bool {
        // A dry run leaves nothing behind.
        request.operation == Operation::Create && in_namespace(request) && !request.dry_run
    }

    async fn mutate(&self, request: &Request<'_>, _value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if !is_missing(request).await? {
            return Ok(());
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": request.namespace}});
        // In the server's own name: who may write there need not be allowed to make namespaces.
        let made = crate::bootstrap::write_as(request.api, http::Method::POST, &namespace, "kube-apiserver", "").await;
        made.map_err(StatusError::internal)
    }
}
