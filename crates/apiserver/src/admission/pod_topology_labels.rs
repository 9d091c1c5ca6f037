//! The zone and the region of a node become labels of the pods that are bound to it (KEP-4742).

use async_trait::async_trait;
use machinery::object::{map_mut, str_at};
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels;

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn handles(&self, request: &Request<'_>) -> bool {
        let pods = request.resource.group.is_empty() && matches!(request.resource.kind.as_str(), "Pod" | "Binding");
        pods && request.operation == Operation::Create && matches!(request.subresource, "" | "binding")
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let is_binding = request.subresource == "binding" || request.resource.kind == "Binding";
        let node = match is_binding {
            true if !matches!(str_at(value, "target.kind"), "" | "Node") => "",
            true => str_at(value, "target.name"),
            false => str_at(value, "spec.nodeName"),
        };
        if node.is_empty() {
            return Ok(());
        }
        // A node nobody knows yet has no labels to give.
        let Some(node) = request.api.cached("", "Node", "", node) else { return Ok(()) };
        for key in LABELS {
            if let Some(label) = node["metadata"]["labels"].get(key) {
                map_mut(value, "metadata.labels").insert(key.into(), label.clone());
            }
        }
        Ok(())
    }
}
