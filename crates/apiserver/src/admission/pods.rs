//! What several plugins ask of a pod: its containers of all sorts, and where they are.

use serde_json::Value;

use super::{Operation, Request};

/// Lists of containers in a pod's spec.
pub const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Whether pods themselves are created or changed, not a subresource of them.
pub fn written(request: &Request<'_>) -> bool {
    request.is("", "Pod") && matches!(request.operation, Operation::Create | Operation::Update)
}

/// Each container with its path as errors name it.
pub fn containers(pod: &Value) -> impl Iterator<Item = (String, &Value)> {
    CONTAINERS.into_iter().flat_map(move |list| {
        let found = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten();
        found.enumerate().map(move |(i, container)| (format!("spec.{list}[{i}]"), container))
    })
}

pub fn containers_mut(pod: &mut Value) -> Vec<&mut Value> {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Vec::new() };
    let lists = spec.iter_mut().filter(|(key, _)| CONTAINERS.contains(&key.as_str()));
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten().collect()
}
