//! Rows of HorizontalPodAutoscalers.

use serde_json::{Value, json};

use super::{age, name};
use crate::validate::tree::{at, int, int0, list, opt, s};

pub fn horizontal_pod_autoscaler(o: &Value, now: i64) -> Vec<Value> {
    let empty = json!({});
    let v = opt(o, "spec").unwrap_or(&empty);
    let reference = opt(v, "scaleTargetRef").unwrap_or(&empty);
    let least = int(v, "minReplicas").map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    let replicas = opt(o, "status").map_or(0, |st| int0(st, "currentReplicas"));
    vec![
        name(o),
        json!(format!("{}/{}", s(reference, "kind"), s(reference, "name"))),
        json!(targets(o, v)),
        json!(least),
        json!(int0(v, "maxReplicas")),
        json!(replicas),
        age(o, now),
    ]
}

fn targets(o: &Value, v: &Value) -> String {
    let current = at(o, "status").map_or(&[][..], |st| list(st, "currentMetrics"));
    if let Some(percent) = int(v, "targetCPUUtilizationPercentage") {
        let now = at(o, "status.currentCPUUtilizationPercentage").and_then(Value::as_i64);
        return format!("cpu: {}/{percent}%", now.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%")));
    }
    let specs = list(v, "metrics");
    let texts: Vec<String> = specs.iter().take(2).enumerate().map(|(i, m)| metric(m, current.get(i))).collect();
    match specs.len() {
        0 => "<none>".to_owned(),
        1 | 2 => texts.join(", "),
        n => format!("{} + {} more...", texts.join(", "), n - 2),
    }
}

fn metric(spec: &Value, current: Option<&Value>) -> String {
    let source = match s(spec, "type") {
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let text = |v: Option<&Value>| v.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    let target = at(spec, source).and_then(|m| opt(m, "target"));
    let wanted = |key: &str| text(target.and_then(|t| opt(t, key)));
    let seen = |key: &str| text(current.and_then(|c| at(c, source)).and_then(|m| at(m, "current")).and_then(|c| opt(c, key)));
    let seen_or_unknown = |key: &str| seen(key).unwrap_or_else(|| "<unknown>".to_owned());
    match source {
        "external" | "object" => match wanted("averageValue") {
            Some(average) => format!("{}/{average} (avg)", seen_or_unknown("averageValue")),
            None => format!("{}/{}", seen_or_unknown("value"), wanted("value").unwrap_or_else(|| "0".to_owned())),
        },
        "pods" => format!("{}/{}", seen_or_unknown("averageValue"), wanted("averageValue").unwrap_or_else(|| "0".to_owned())),
        _ => {
            let name = at(spec, source).map_or("", |m| s(m, "name"));
            if let Some(average) = wanted("averageValue") {
                return format!("{name}: {}/{average}", seen_or_unknown("averageValue"));
            }
            let now = seen("averageUtilization").map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
            let goal = wanted("averageUtilization").map_or_else(|| "<auto>".to_owned(), |n| format!("{n}%"));
            format!("{name}: {now}/{goal}")
        }
    }
}
