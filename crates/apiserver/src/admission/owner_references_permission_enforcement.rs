//! Whoever changes owner references could have the object deleted with its owner, or hold the owner's deletion up: so the first
//! needs to be allowed to delete it, the second to set the owner's finalizers (upstream's `plugin/pkg/admission/gc`).

use async_trait::async_trait;
use auth::{Attributes, Decision};
use machinery::gvk::GroupVersion;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct OwnerReferencesPermissionEnforcement;

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    fn handles(&self, request: &Request<'_>) -> bool {
        let kubelets = request.resource.group.is_empty() && request.resource.kind == "Pod" && request.subresource == "status";
        matches!(request.operation, Operation::Create | Operation::Update) && !kubelets
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let before = old.map(owners).unwrap_or_default();
        let now = owners(value);
        if now == before {
            return Ok(());
        }
        if request.operation != Operation::Create
            && let Err(reason) = may(request, &deletion(request)).await
        {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
            return Err(request.forbidden(value, &why));
        }
        for owner in newly_blocking(&now, &before) {
            for asked in finalizers(request, owner).map_err(|why| request.forbidden(value, &why))? {
                if let Err(reason) = may(request, &asked).await {
                    let why = format!(
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
                    );
                    return Err(request.forbidden(value, &why));
                }
            }
        }
        Ok(())
    }
}

fn owners(object: &Value) -> Vec<Value> {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Those that block their owner's deletion and did not before.
fn newly_blocking<'a>(now: &'a [Value], before: &[Value]) -> Vec<&'a Value> {
    let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
    let known = |owner: &Value| before.iter().any(|b| b["uid"] == owner["uid"] && blocks(b));
    now.iter().filter(|owner| blocks(owner) && !known(owner)).collect()
}

async fn may(request: &Request<'_>, asked: &Attributes) -> Result<(), String> {
    match request.api.authorizer.decide(asked).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(reason),
    }
}

fn deletion(request: &Request<'_>) -> Attributes {
    Attributes {
        user: request.user.clone(),
        verb: "delete".to_owned(),
        group: request.resource.group.clone(),
        version: request.resource.version.clone(),
        resource: request.resource.resource.clone(),
        subresource: request.subresource.to_owned(),
        namespace: request.namespace.to_owned(),
        name: request.name.to_owned(),
        is_resource: true,
        ..Attributes::default()
    }
}

/// What one must be allowed for an owner.
fn finalizers(request: &Request<'_>, owner: &Value) -> Result<Vec<Attributes>, String> {
    let (version, kind) = (str_at(owner, "apiVersion"), str_at(owner, "kind"));
    let found = GroupVersion::parse(version).ok().and_then(|gv| request.api.registry.versioned_kind(&gv.kind(kind)));
    let Some(resource) = found else {
        let nowhere = format!("no matches for kind {kind:?} in version {version:?}");
        return Err(format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} Kind {kind}: {nowhere}"
        ));
    };
    Ok(vec![Attributes {
        user: request.user.clone(),
        verb: "update".to_owned(),
        group: resource.group.clone(),
        version: resource.version.clone(),
        resource: resource.resource.clone(),
        subresource: "finalizers".to_owned(),
        namespace: if resource.namespaced { request.namespace.to_owned() } else { String::new() },
        name: str_at(owner, "name").to_owned(),
        is_resource: true,
        ..Attributes::default()
    }])
}
