//! Nothing is made in a namespace that is missing or being deleted; the system's namespaces are not deleted.

use async_trait::async_trait;
use machinery::object::str_at;
use machinery::status::{Cause, StatusError};
use serde_json::Value;

use super::{Operation, Plugin, Request};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn handles(&self, request: &Request<'_>) -> bool {
        match request.operation {
            Operation::Delete => request.is("", "Namespace"),
            Operation::Create => !request.namespace.is_empty() && !request.is("", "Namespace"),
            _ => false,
        }
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        // Reviews are about a namespace, not in it; what is deleted needs no place.
        if request.operation == Operation::Delete || request.resource.kind == "LocalSubjectAccessReview" {
            return Ok(());
        }
        let namespaces = machinery::gvk::GroupResource::new("", "namespaces");
        let row = request.api.registry.kind("", "Namespace").ok_or_else(|| StatusError::not_found(&namespaces, request.namespace))?;
        let Some(namespace) = request.api.read_hot(&row, "", request.namespace).await? else {
            return Err(StatusError::not_found(&namespaces, request.namespace));
        };
        if str_at(&namespace.tree, "status.phase") != "Terminating" {
            return Ok(());
        }
        let name = request.namespace;
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut error = request.forbidden(value, &why);
        if let Some(details) = &mut error.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            });
        }
        Err(error)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
            return Err(request.forbidden(value, "this namespace may not be deleted"));
        }
        Ok(())
    }
}
