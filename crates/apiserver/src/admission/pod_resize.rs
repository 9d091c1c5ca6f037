//! What the node of a bound pod must be able to do for a change of the pod: hold what a resize asks for (`PodResizeValidator`),
//! and have the features that the change needs (`NodeDeclaredFeatureValidator`).

use async_trait::async_trait;
use machinery::object::str_at;
use machinery::quantity::Quantity;
use machinery::status::{Cause, StatusError};
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct PodResizeValidator;

pub struct NodeDeclaredFeatureValidator;

fn is_update(request: &Request<'_>, subresources: &[&str]) -> bool {
    request.resource.group.is_empty()
        && request.resource.kind == "Pod"
        && request.operation == Operation::Update
        && subresources.contains(&request.subresource)
}

/// The node of a pod whose spec has changed.
async fn node_of(request: &Request<'_>, pod: &Value) -> Result<Value, StatusError> {
    let name = str_at(pod, "spec.nodeName");
    let node = request.api.read_kind("", "Node", "", name).await?;
    node.ok_or_else(|| request.forbidden(pod, &format!("node {name:?} not found")))
}

fn changed(pod: &Value, old: &Value) -> bool {
    !str_at(pod, "spec.nodeName").is_empty() && pod.get("spec") != old.get("spec")
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn handles(&self, request: &Request<'_>) -> bool {
        is_update(request, &["resize"])
    }

    async fn validate(&self, request: &Request<'_>, pod: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        if !old.is_some_and(|old| changed(pod, old)) {
            return Ok(());
        }
        let node = node_of(request, pod).await?;
        let refuse = |why: &str, reason: &str| {
            let mut error = request.forbidden(pod, why);
            if let Some(details) = &mut error.details {
                details.causes.push(Cause { reason: reason.to_owned(), ..Cause::default() });
            }
            Err(error)
        };
        if let Some(why) = too_large(pod, &node) {
            return refuse(&why, "NodeCapacity");
        }
        let system = node.pointer("/metadata/labels/kubernetes.io~1os").and_then(Value::as_str).unwrap_or("");
        if system != "linux" {
            let name = machinery::object::name(&node);
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return refuse(&why, "UnsupportedPlatform");
        }
        Ok(())
    }
}

/// What of a pod's requests its node could not hold even if it were empty.
fn too_large(pod: &Value, node: &Value) -> Option<String> {
    let requests = kinds::quota::pod_requests(pod);
    let amount = |name: &str| requests.get(name).copied().unwrap_or(Quantity::ZERO);
    let allocatable = |name: &str| Quantity::parse(str_at(node, &format!("status.allocatable.{name}"))).unwrap_or(Quantity::ZERO);
    let mut found = Vec::new();
    let (cpu, cpu_max) = (amount("cpu").milli_value(), allocatable("cpu").milli_value());
    if cpu > cpu_max {
        found.push(format!("cpu, requested: {cpu}, allocatable: {cpu_max}"));
    }
    let (memory, memory_max) = (amount("memory").value(), allocatable("memory").value());
    if memory > memory_max {
        found.push(format!("memory, requested: {memory}, allocatable: {memory_max}"));
    }
    (!found.is_empty()).then(|| format!("Node didn't have enough allocatable resources: {}", found.join("; ")))
}

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn handles(&self, request: &Request<'_>) -> bool {
        is_update(request, &["", "resize"])
    }

    async fn validate(&self, request: &Request<'_>, pod: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let Some(old) = old.filter(|old| changed(pod, old)) else { return Ok(()) };
        let needed = needed(pod, old);
        if needed.is_empty() {
            return Ok(());
        }
        let node = node_of(request, pod).await?;
        let declared = node.pointer("/status/declaredFeatures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let missing: Vec<&str> = needed.into_iter().filter(|feature| !declared.iter().any(|d| d == feature)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let name = machinery::object::name(&node);
        Err(request
            .forbidden(pod, &format!("pod update requires features {} which are not available on node {name:?}", missing.join(", "))))
    }
}

/// Features that the change of a pod asks of its node, in the order of their names.
fn needed(pod: &Value, old: &Value) -> Vec<&'static str> {
    let list = |pod: &Value, key: &str| pod.pointer(&format!("/spec/{key}")).and_then(Value::as_array).cloned().unwrap_or_default();
    let cpu =
        |container: &Value| container.pointer("/resources/requests/cpu").and_then(Value::as_str).and_then(|q| Quantity::parse(q).ok());
    let mut out = Vec::new();
    let class = old.pointer("/status/qosClass").and_then(Value::as_str).unwrap_or("Guaranteed");
    let resized = || list(old, "containers").iter().zip(&list(pod, "containers")).any(|(a, b)| cpu(a) != cpu(b));
    if class == "Guaranteed" && resized() {
        out.push("GuaranteedQoSPodCPUResize");
    }
    if pod.pointer("/spec/resources") != old.pointer("/spec/resources") {
        out.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let differs = |(old, new): (&Value, &Value)| old["restartPolicy"] != "Always" && old.get("resources") != new.get("resources");
    if list(old, "initContainers").iter().zip(&list(pod, "initContainers")).any(differs) {
        out.push("InPlacePodVerticalScalingInitContainers");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_held_against_the_whole_node() {
        let node = json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let pod = |cpu: &str, memory: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
        assert_eq!(too_large(&pod("2", "1Gi"), &node), None);
        assert_eq!(
            too_large(&pod("2500m", "2Gi"), &node).as_deref(),
            Some(
                "Node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"
            )
        );
    }

    #[test]
    fn changes_need_what_they_touch() {
        let pod = |cpu: &str, own: &str, class: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}], "resources": {"limits": {"cpu": own}}}, "status": {"qosClass": class}});
        let old = pod("1", "2", "Guaranteed");
        assert_eq!(needed(&pod("1000m", "2", "Guaranteed"), &old), Vec::<&str>::new());
        assert_eq!(needed(&pod("2", "2", "Guaranteed"), &old), ["GuaranteedQoSPodCPUResize"]);
        assert_eq!(needed(&pod("2", "3", "Burstable"), &pod("1", "2", "Burstable")), ["InPlacePodLevelResourcesVerticalScaling"]);
    }
}
