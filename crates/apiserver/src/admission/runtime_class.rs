//! A pod's RuntimeClass must exist; its overhead and scheduling rules become the pod's.

use async_trait::async_trait;
use machinery::object::map_mut;
use machinery::quantity::Quantity;
use machinery::status::StatusError;
use serde_json::{Map, Value, json};

use super::{Operation, Plugin, Request};

pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "Pod") && request.operation == Operation::Create
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let Some(class) = find(request, value).await? else { return Ok(()) };
        if let Some(fixed) = fixed(&class) {
            if overhead(value).is_some_and(|own| !same(own, fixed)) {
                return Err(request.forbidden(value, OTHER_OVERHEAD));
            }
            map_mut(value, "spec").insert("overhead".into(), Value::Object(fixed.clone()));
        }
        schedule(request, value, &class)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let class = find(request, value).await?;
        match (class.as_ref().and_then(fixed), overhead(value)) {
            (Some(fixed), own) if !own.is_some_and(|own| same(own, fixed)) && !fixed.is_empty() => {
                Err(request.forbidden(value, OTHER_OVERHEAD))
            }
            (None, Some(_)) => {
                Err(request.forbidden(value, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
            _ => Ok(()),
        }
    }
}

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

async fn find(request: &Request<'_>, pod: &Value) -> Result<Option<Value>, StatusError> {
    let Some(wanted) = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str) else { return Ok(None) };
    if wanted.is_empty() {
        // Upstream looks it up with a client, which refuses to ask for nothing.
        let text = "resource name may not be empty".to_owned();
        return Err(StatusError { message: text, details: None, ..StatusError::new(500, "", "") });
    }
    let class = request.api.read_kind("node.k8s.io", "RuntimeClass", "", wanted).await?;
    if class.is_none() {
        return Err(request.forbidden(pod, &format!("pod rejected: RuntimeClass {wanted:?} not found")));
    }
    Ok(class)
}

fn fixed(class: &Value) -> Option<&Map<String, Value>> {
    class.pointer("/overhead/podFixed")?.as_object()
}

fn overhead(pod: &Value) -> Option<&Map<String, Value>> {
    pod.pointer("/spec/overhead")?.as_object()
}

fn same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    one.len() == other.len() && one.iter().all(|(key, value)| other.get(key).is_some_and(|o| o == value || amount(o) == amount(value)))
}

fn schedule(request: &Request<'_>, pod: &mut Value, class: &Value) -> Result<(), StatusError> {
    let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    for (key, wanted) in selector.into_iter().flatten() {
        let own = pod.pointer("/spec/nodeSelector").and_then(|s| s.get(key));
        if let Some(own) = own.filter(|own| *own != wanted) {
            let (wanted, own) = (wanted.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
            let why = format!("conflict: runtimeClass.Scheduling.NodeSelector[{key}] = {wanted}; pod.Spec.NodeSelector[{key}] = {own}");
            return Err(request.forbidden(pod, &why));
        }
        map_mut(pod, "spec.nodeSelector").insert(key.clone(), wanted.clone());
    }
    let more = class.pointer("/scheduling/tolerations").and_then(Value::as_array);
    if let Some(more) = more.filter(|more| !more.is_empty()) {
        let mut all = pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        all.extend(more.iter().filter(|one| !all.contains(one)).cloned().collect::<Vec<_>>());
        map_mut(pod, "spec").insert("tolerations".into(), json!(all));
    }
    Ok(())
}
