//! One stored kind in several versions: autoscaling/v1 beside v2, and Events of the core group and of events.k8s.io, which are
//! stored as one. Lossless both ways.

use kinds::Resource;
use serde_json::Value;

mod event;
mod horizontal_pod_autoscaler;

/// A stored object as the row's version shows it.
pub fn from_storage(resource: &Resource, mut object: Value) -> Value {
    match resource.kind.as_str() {
        "Event" if resource.group.is_empty() => event::to_core(&mut object),
        "Event" => event::to_events(&mut object),
        "HorizontalPodAutoscaler" if resource.version == "v1" => horizontal_pod_autoscaler::to_v1(&mut object),
        _ => {}
    }
    object["apiVersion"] = Value::String(resource.gvk().api_version());
    object
}

/// An object of the row's version as it is stored.
pub fn to_storage(resource: &Resource, mut object: Value) -> Value {
    if resource.storage_version.group == resource.group && resource.storage_version.version == resource.version {
        return object;
    }
    match resource.kind.as_str() {
        "Event" if resource.group.is_empty() => event::to_events(&mut object),
        "Event" => event::to_core(&mut object),
        "HorizontalPodAutoscaler" if resource.version == "v1" => horizontal_pod_autoscaler::to_v2(&mut object),
        _ => {}
    }
    object["apiVersion"] = Value::String(resource.storage_version.to_string());
    object
}
