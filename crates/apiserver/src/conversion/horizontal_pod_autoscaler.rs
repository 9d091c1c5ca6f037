//! autoscaling/v1 shows one CPU target as a field, and what else v2 has as annotations (upstream's `pkg/apis/autoscaling/v1`).

use serde_json::{Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub(super) fn to_v1(object: &mut Value) {
    let metrics = take(object, "/spec", "metrics").and_then(|m| m.as_array().cloned()).unwrap_or_default();
    let (cpu, other): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_utilization);
    let mut cpu = cpu.into_iter();
    if let Some(target) = cpu.next().and_then(|m| m.pointer("/resource/target/averageUtilization").cloned()) {
        object["spec"]["targetCPUUtilizationPercentage"] = target;
    }
    let other: Vec<Value> = cpu.chain(other).collect();
    if !other.is_empty() {
        annotate(object, METRICS, &json!(other));
    }
    if let Some(behavior) = take(object, "/spec", "behavior") {
        annotate(object, BEHAVIOR, &behavior);
    }
    let current = take(object, "/status", "currentMetrics").and_then(|m| m.as_array().cloned()).unwrap_or_default();
    let cpu = current.iter().find(|m| m.pointer("/resource/name").is_some_and(|n| n == "cpu"));
    if let Some(used) = cpu.and_then(|m| m.pointer("/resource/current/averageUtilization").cloned()) {
        object["status"]["currentCPUUtilizationPercentage"] = used;
    }
    if !current.is_empty() {
        annotate(object, CURRENT, &json!(current));
    }
    if let Some(conditions) = take(object, "/status", "conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty())) {
        annotate(object, CONDITIONS, &conditions);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.entry("currentReplicas").or_insert(json!(0));
        status.entry("desiredReplicas").or_insert(json!(0));
    }
}

pub(super) fn to_v2(object: &mut Value) {
    let mut metrics = unannotate(object, METRICS).and_then(|m| m.as_array().cloned()).unwrap_or_default();
    if let Some(percent) = take(object, "/spec", "targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
        let cpu =
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}});
        metrics.insert(0, cpu);
    }
    if !metrics.is_empty() {
        object["spec"]["metrics"] = json!(metrics);
    }
    if let Some(behavior) = unannotate(object, BEHAVIOR) {
        object["spec"]["behavior"] = behavior;
    }
    let used = take(object, "/status", "currentCPUUtilizationPercentage");
    match (unannotate(object, CURRENT), used) {
        (Some(current), _) => object["status"]["currentMetrics"] = current,
        (None, Some(used)) if !used.is_null() => {
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}});
            object["status"]["currentMetrics"] = json!([cpu]);
        }
        _ => {}
    }
    if let Some(conditions) = unannotate(object, CONDITIONS) {
        object["status"]["conditions"] = conditions;
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric.get("type").is_some_and(|t| t == "Resource")
        && metric.pointer("/resource/name").is_some_and(|n| n == "cpu")
        && metric.pointer("/resource/target/averageUtilization").is_some_and(|u| !u.is_null())
}

fn take(object: &mut Value, parent: &str, field: &str) -> Option<Value> {
    object.pointer_mut(parent)?.as_object_mut()?.remove(field)
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    machinery::object::map_mut(object, "metadata.annotations").insert(key.to_owned(), Value::String(value.to_string()));
}

fn unannotate(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.pointer_mut("/metadata/annotations")?.as_object_mut()?;
    let value = annotations.remove(key)?;
    if annotations.is_empty() {
        take(object, "/metadata", "annotations");
    }
    serde_json::from_str(value.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_survives_it() {
        let v2 = json!({"metadata": {"name": "h"}, "status": {"conditions": [{"type": "AbleToScale"}], "currentReplicas": 0, "desiredReplicas": 0},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Pods", "pods": {"metric": {"name": "m"}}}]}});
        let mut object = v2.clone();
        to_v1(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(object["spec"].get("metrics").is_none());
        to_v2(&mut object);
        assert_eq!(object, v2);
    }
}
