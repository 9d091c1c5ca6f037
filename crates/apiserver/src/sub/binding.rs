//! `pods/binding` and `bindings`: the scheduler's word where a pod runs.

use http::Request;
use machinery::field::{Error, Path};
use machinery::gvk::{GroupKind, GroupVersionKind};
use machinery::object::{self, map_mut, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{RequestBody, negotiate};
use crate::verbs::Target;
use crate::verbs::options::WriteOptions;
use crate::verbs::write::update::{Admission, Change, update};
use crate::verbs::write::{Ctx, body};

pub fn gvk() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Binding")
}

/// `admitted_as`: `pods/binding`, or the old `bindings`.
pub async fn serve(call: Call, request: Request<RequestBody>, target: Target, admitted_as: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, false, true)?;
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let ty = kinds::table().type_of(&gvk()).ok_or_else(|| StatusError::internal("no type for Binding"))?;
    let mut binding = body::object(request, &call.api.registry, &gvk(), ty, options.validation).await?.object;
    let name = object::name(&binding).to_owned();
    if !target.name.is_empty() && name != target.name {
        return Err(StatusError::bad_request("name in URL does not match name in Binding object"));
    }
    let ctx = Ctx::new(&call, options);
    let place = admitted_as.named(&name);
    admission::admit(&admission::Request::new(&ctx, &place, Operation::Create), &mut binding, None).await?;
    bind(&ctx, &target.named(&name), binding).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::value(201, &negotiated, &done))
}

async fn bind(ctx: &Ctx, target: &Target, binding: Value) -> Result<(), StatusError> {
    let kind = str_at(&binding, "target.kind");
    let node = str_at(&binding, "target.name").to_owned();
    let mut errors = Vec::new();
    if !kind.is_empty() && kind != "Node" {
        errors.push(Error::not_supported(&Path::new("target.kind"), &json!(kind), &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(Error::required(&Path::new("target.name"), ""));
    }
    if !errors.is_empty() {
        let kind = GroupKind { group: String::new(), kind: "Binding".into() };
        return Err(StatusError::invalid(&kind, &target.name, &errors));
    }
    let group_resource = target.resource.group_resource();
    let (name, now) = (target.name.clone(), ctx.now.clone());
    let edit = move |pod: &mut Value| {
        let conflict = |why: String| {
            let mut error =
                StatusError::conflict(&machinery::gvk::GroupResource::new("", format!("{}/binding", group_resource.resource)), &name, &why);
            error.message = format!("Operation cannot be fulfilled on {}/binding {name:?}: {why}", group_resource.resource);
            error
        };
        let uid = object::uid(&binding);
        if !uid.is_empty() && uid != object::uid(pod) {
            return Err(conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(pod))));
        }
        if !str_at(pod, "metadata.deletionTimestamp").is_empty() {
            return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let assigned = str_at(pod, "spec.nodeName");
        if !assigned.is_empty() {
            return Err(conflict(format!("pod {name} is already assigned to node {assigned:?}")));
        }
        if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
            return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        map_mut(pod, "spec").insert("nodeName".into(), json!(node));
        for key in ["annotations", "labels"] {
            if let Some(more) = binding.pointer(&format!("/metadata/{key}")).and_then(Value::as_object) {
                map_mut(pod, &format!("metadata.{key}")).extend(more.clone());
            }
        }
        scheduled(pod, &now);
        Ok(())
    };
    let place = Target { subresource: "binding".into(), ..target.clone() };
    update(ctx, &place, Change::Edit(Box::new(edit), Admission::Done)).await?;
    Ok(())
}

/// Sets the condition PodScheduled to true.
fn scheduled(pod: &mut Value, now: &str) {
    let mut conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let generation = object::generation(pod);
    let at = conditions.iter().position(|c| c["type"] == "PodScheduled");
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if generation > 0 {
        condition["observedGeneration"] = json!(generation);
    }
    match at {
        Some(at) if conditions[at]["status"] == "True" => {}
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    map_mut(pod, "status").insert("conditions".into(), json!(conditions));
}
