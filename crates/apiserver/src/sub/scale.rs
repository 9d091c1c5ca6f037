//! `scale`: the replicas of a workload as an autoscaling/v1 Scale.

use http::Request;
use kinds::Resource;
use machinery::field::{Error, Path};
use machinery::gvk::{GroupKind, GroupVersionKind};
use machinery::object::{self, map_mut, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::status::number;
use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{RequestBody, View, negotiate};
use crate::verbs::Target;
use crate::verbs::options::WriteOptions;
use crate::verbs::write::update::{Admission, Change, uid_mismatch, update};
use crate::verbs::write::{Ctx, body, fetch, patch};

/// The Scale of an object. The selector is text.
fn scale_of(resource: &Resource, object: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{key}")) {
            metadata[key] = value.clone();
        }
    }
    let mut spec = json!({});
    if number(object, "spec.replicas") != 0 {
        spec["replicas"] = json!(number(object, "spec.replicas"));
    }
    let mut status = json!({"replicas": number(object, "status.replicas")});
    let selector = selector_text(resource, object);
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn selector_text(resource: &Resource, object: &Value) -> String {
    let selector = object.pointer("/spec/selector");
    let selector = if resource.kind == "ReplicationController" {
        machinery::labels::from_map(selector)
    } else {
        machinery::labels::from_label_selector(selector).unwrap_or_default()
    };
    selector.to_string()
}

fn gvk() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, true)?;
    if negotiated.view != View::Object {
        return Err(StatusError::not_acceptable("the server does not show a Scale that way"));
    }
    if call.info.verb == "get" {
        let Some((object, _)) = fetch(&call.api, &target).await? else { return Err(target.not_found()) };
        return Ok(respond::value(200, &negotiated, &scale_of(&target.resource, &object)));
    }
    let patching = call.info.verb == "patch";
    let options = WriteOptions::parse(&call, if patching { "PatchOptions" } else { "UpdateOptions" })?;
    let ty = kinds::table().type_of(&gvk()).ok_or_else(|| StatusError::internal("no type for Scale"))?;
    let (wanted, patch) = if patching {
        (None, Some(patch::read(request).await?))
    } else {
        (Some(body::object(request, &call.api.registry, &gvk(), ty, options.validation).await?.object), None)
    };
    let ctx = Ctx::new(&call, options);
    let api = ctx.api.clone();
    let Some((current, _)) = fetch(&api, &target).await? else { return Err(target.not_found()) };
    let mut change = match (wanted, patch) {
        (Some(scale), _) => {
            match_name(&scale, &target)?;
            check(&scale, &target, &current)?;
            scale
        }
        (None, Some(patch)) => {
            let scale = patch::apply_plain(&patch, scale_of(&target.resource, &current), ty)?;
            check(&scale, &target, &current)?;
            scale
        }
        (None, None) => return Err(StatusError::bad_request("no body")),
    };
    let request = admission::Request::new(&ctx, &target, Operation::Update);
    let old = scale_of(&target.resource, &current);
    admission::mutate(&request, &mut change, Some(&old)).await?;
    check(&change, &target, &current)?;
    admission::validate(&request, &change, Some(&old)).await?;
    let replicas = number(&change, "spec.replicas");
    let written = set_replicas(&ctx, &target, replicas, object::resource_version(&change)).await?;
    Ok(respond::value(200, &negotiated, &scale_of(&target.resource, &written)))
}

async fn set_replicas(ctx: &Ctx, target: &Target, replicas: i64, version: &str) -> Result<Value, StatusError> {
    let (place, version) = (Target { subresource: String::new(), ..target.clone() }, version.to_owned());
    let stale = StatusError::stale(&target.resource.group_resource(), &target.name);
    let edit = move |value: &mut Value| {
        if !version.is_empty() && version != object::resource_version(value) {
            return Err(stale.clone());
        }
        map_mut(value, "spec").insert("replicas".into(), json!(replicas));
        Ok(())
    };
    Ok(update(ctx, &place, &Change::Edit(Box::new(edit), Admission::Done)).await?.object)
}

fn match_name(scale: &Value, target: &Target) -> Result<(), StatusError> {
    let name = object::name(scale);
    if name.is_empty() {
        let text = format!("the name of the object ({} based on URL) was undeterminable: name must be provided", target.name);
        return Err(StatusError::bad_request(text));
    }
    if name != target.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(StatusError::bad_request(text));
    }
    Ok(())
}

/// Upstream's `ValidateScale` and the preconditions a Scale can carry.
fn check(scale: &Value, target: &Target, current: &Value) -> Result<(), StatusError> {
    let namespace = str_at(scale, "metadata.namespace");
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(StatusError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    let uid = object::uid(scale);
    if !uid.is_empty() && uid != object::uid(current) {
        let why = uid_mismatch(&target.key(), uid, object::uid(current));
        return Err(StatusError::conflict(&target.resource.group_resource(), &target.name, &why));
    }
    let replicas = number(scale, "spec.replicas");
    if replicas < 0 {
        let error = Error::invalid(&Path::new("spec.replicas"), &json!(replicas), "must be greater than or equal to 0");
        let kind = GroupKind { group: "autoscaling".into(), kind: "Scale".into() };
        return Err(StatusError::invalid(&kind, &target.name, &[error]));
    }
    Ok(())
}
