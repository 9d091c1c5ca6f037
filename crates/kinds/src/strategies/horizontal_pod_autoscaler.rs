//! HorizontalPodAutoscalers of autoscaling v1 and v2. Both are judged as v2: v1's one CPU target is a metric of it.

use machinery::field::{Error, ErrorList, Path};
use machinery::gvk::GroupVersion;
use machinery::names;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status, reset_status};
use crate::strategy::{Context, Strategy};
use crate::validate::conditions::segment;
use crate::validate::rules::{named, non_negative, one_of, quantity};
use crate::validate::tree::{at, has, int, int0, is_empty, list, opt, s, set};

const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;

pub struct HorizontalPodAutoscalers;

impl Strategy for HorizontalPodAutoscalers {
    fn default(&self, ctx: &Context, object: &mut Value) {
        if ctx.version == "v1" {
            return;
        }
        let Some(spec) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
        if is_empty(spec, "metrics") {
            set(spec, "metrics", json!([cpu_metric(80)]));
        }
        let Some(behavior) = spec.get_mut("behavior").filter(|v| v.is_object()) else { return };
        let up = json!({
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        });
        let down = json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
        for (key, mut rules) in [("scaleUp", up), ("scaleDown", down)] {
            for (field, value) in opt(behavior, key).and_then(Value::as_object).into_iter().flatten().filter(|(_, v)| !v.is_null()) {
                set(&mut rules, field, value.clone());
            }
            set(behavior, key, rules);
        }
    }

    fn prepare_for_create(&self, ctx: &Context, object: &mut Value) {
        let version = if ctx.version == "v1" { "v1" } else { "v2" };
        reset_status(object, &format!("autoscaling.{version}.HorizontalPodAutoscalerStatus"));
        if let Some(status) = object.get_mut("status").filter(|_| version == "v2") {
            set(status, "currentMetrics", Value::Null);
            crate::validate::tree::remove(status, "currentReplicas");
        }
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, ctx: &Context, object: &Value) -> ErrorList {
        judge(ctx, object, false)
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let reference = at(old, "spec.scaleTargetRef").map_or("", |r| s(r, "apiVersion"));
        judge(ctx, new, group_problem(reference).is_some())
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::autoscaling::horizontal_pod_autoscaler(object, now))
    }
}

fn cpu_metric(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("status"));
    let v = opt(new, "status").unwrap_or(&empty);
    non_negative(v, "currentReplicas", &p, e);
    non_negative(v, "desiredReplicas", &p, e);
}

fn judge(ctx: &Context, object: &Value, any_group: bool) -> ErrorList {
    let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
    let v = opt(object, "spec").unwrap_or(&empty);
    let least = int(v, "minReplicas");
    if let Some(n) = least.filter(|n| *n < 1) {
        e.push(Error::invalid(&p.child("minReplicas"), &json!(n), "must be greater than or equal to 1"));
    }
    let most = int0(v, "maxReplicas");
    if most == 0 {
        e.push(Error::required(&p.child("maxReplicas"), "must be set and greater than 0"));
    } else if most < 1 {
        e.push(Error::invalid(&p.child("maxReplicas"), &json!(most), "must be greater than or equal to 1"));
    }
    if least.is_some_and(|least| most < least) {
        e.push(Error::invalid(&p.child("maxReplicas"), &json!(most), "must be greater than or equal to `minReplicas`"));
    }
    let at_ref = p.child("scaleTargetRef");
    let reference = opt(v, "scaleTargetRef").unwrap_or(&empty);
    cross_version(reference, &at_ref, &mut e);
    if let Some(text) = group_problem(s(reference, "apiVersion")).filter(|_| !any_group) {
        e.push(Error::invalid_str(&at_ref.child("apiVersion"), s(reference, "apiVersion"), text));
    }
    let one = int(v, "targetCPUUtilizationPercentage").filter(|_| ctx.version == "v1").map(cpu_metric);
    metrics(list(v, "metrics"), one.as_ref(), least, &p.child("metrics"), &mut e);
    if let Some(behavior) = opt(v, "behavior") {
        for key in ["scaleUp", "scaleDown"] {
            if let Some(rules) = opt(behavior, key) {
                scaling_rules(rules, &p.child("behavior").child(key), &mut e);
            }
        }
    }
    e
}

fn group_problem(api_version: &str) -> Option<String> {
    match GroupVersion::parse(api_version) {
        Err(_) => Some(format!("unexpected GroupVersion string: {api_version}")),
        Ok(gv) => gv.group.is_empty().then(|| "apiVersion must specify API group".to_owned()),
    }
}

fn cross_version(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    segment(v, "kind", p, "", e);
    segment(v, "name", p, "", e);
}

fn metrics(given: &[Value], more: Option<&Value>, least: Option<i64>, p: &Path<'_>, e: &mut ErrorList) {
    let mut outside = false;
    for (i, metric) in more.into_iter().chain(given).enumerate() {
        metric_spec(metric, &p.index(i), e);
        outside |= matches!(s(metric, "type"), "Object" | "External");
    }
    if least == Some(0) && !outside {
        e.push(Error::forbidden(p, "must specify at least one Object or External metric to support scaling to zero replicas"));
    }
}

type SourceRule = fn(&Value, &Path<'_>, &mut ErrorList);

fn metric_spec(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let rules: [(&str, &str, SourceRule); 5] = [
        ("object", "Object", object_source),
        ("external", "External", external_source),
        ("pods", "Pods", pods_source),
        ("resource", "Resource", resource_source),
        ("containerResource", "ContainerResource", container_source),
    ];
    let (ty, at_type) = (s(v, "type"), p.child("type"));
    if ty.is_empty() {
        e.push(Error::required(&at_type, "must specify a metric source type"));
    }
    one_of(&at_type, ty, &SOURCES, e);
    let present: Vec<_> = rules.iter().filter(|(key, ..)| has(v, key)).collect();
    if let Some((key, _, rule)) = present.first() {
        rule(&v[*key], &p.child(key), e);
    }
    let expected = rules.iter().find(|(_, name, _)| *name == ty).map(|(key, ..)| *key);
    match expected {
        Some(key) if !has(v, key) => e.push(Error::required(&p.child(key), "must populate information for the given metric source")),
        Some(_) => {}
        None => one_of(&at_type, ty, &SOURCES, e),
    }
    if present.len() > 1 {
        for (key, ..) in present.iter().filter(|(key, ..)| Some(*key) != expected) {
            e.push(Error::forbidden(&p.child(key), "must populate the given metric source only"));
        }
    }
}

fn target_of<'a>(v: &'a Value, p: &Path<'_>, e: &mut ErrorList) -> &'a Value {
    static EMPTY: Value = Value::Null;
    let t = opt(v, "target").unwrap_or(&EMPTY);
    let p = p.child("target");
    if s(t, "type").is_empty() {
        e.push(Error::required(&p.child("type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&s(t, "type")) {
        e.push(Error::invalid_str(&p.child("type"), s(t, "type"), "must be either Utilization, Value, or AverageValue"));
    }
    for key in ["value", "averageValue"] {
        if let Some(q) = opt(t, key).and_then(quantity).filter(|q| q.sign() != 1) {
            e.push(Error::invalid_str(&p.child(key), &q.to_string(), "must be positive"));
        }
    }
    if let Some(n) = int(t, "averageUtilization").filter(|n| *n < 1) {
        e.push(Error::invalid(&p.child("averageUtilization"), &json!(n), "must be greater than 0"));
    }
    t
}

fn identifier(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let (metric, p) = (opt(v, "metric").unwrap_or(&empty), p.child("metric"));
    segment(metric, "name", &p, "must specify a metric name", e);
}

fn object_source(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    cross_version(opt(v, "describedObject").unwrap_or(&empty), &p.child("describedObject"), e);
    identifier(v, p, e);
    let t = target_of(v, p, e);
    if !has(t, "value") && !has(t, "averageValue") {
        e.push(Error::required(&p.child("target").child("averageValue"), "must set either a target value or averageValue"));
    }
}

fn external_source(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    identifier(v, p, e);
    let t = target_of(v, p, e);
    match (has(t, "value"), has(t, "averageValue")) {
        (false, false) => {
            let text = "must set either a target value for metric or a per-pod target";
            e.push(Error::required(&p.child("target").child("averageValue"), text));
        }
        (true, true) => {
            let text = "may not set both a target value for metric and a per-pod target";
            e.push(Error::forbidden(&p.child("target").child("value"), text));
        }
        _ => {}
    }
}

fn pods_source(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    identifier(v, p, e);
    let t = target_of(v, p, e);
    if !has(t, "averageValue") {
        e.push(Error::required(&p.child("target").child("averageValue"), "must specify a positive target averageValue"));
    }
}

fn resource_source(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if s(v, "name").is_empty() {
        e.push(Error::required(&p.child("name"), "must specify a resource name"));
    }
    resource_target(v, p, e);
}

fn container_source(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match s(v, "name") {
        "" => e.push(Error::required(&p.child("name"), "must specify a resource name")),
        name => {
            crate::validate::resources::container_name(name, &p.child("name"), e);
            if !name.contains('/') && !names::qualified_name(name).is_empty() {
                e.push(Error::invalid_str(&p.child("name"), name, "must be a standard resource for containers"));
            }
        }
    }
    match s(v, "container") {
        "" => e.push(Error::required(&p.child("container"), "must specify a container")),
        name => named(&p.child("container"), name, names::dns1123_label(name), e),
    }
    resource_target(v, p, e);
}

fn resource_target(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let t = target_of(v, p, e);
    match (has(t, "averageUtilization"), has(t, "averageValue")) {
        (false, false) => {
            let text = "must set either a target raw value or a target utilization";
            e.push(Error::required(&p.child("target").child("averageUtilization"), text));
        }
        (true, true) => {
            let text = "may not set both a target raw value and a target utilization";
            e.push(Error::forbidden(&p.child("target").child("averageValue"), text));
        }
        _ => {}
    }
}

fn scaling_rules(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at_window = p.child("stabilizationWindowSeconds");
    if let Some(n) = int(v, "stabilizationWindowSeconds") {
        if n < 0 {
            e.push(Error::invalid(&at_window, &json!(n), "must be greater than or equal to zero"));
        } else if n > WINDOW_MAX_SECONDS {
            e.push(Error::invalid(&at_window, &json!(n), format!("must be less than or equal to {WINDOW_MAX_SECONDS}")));
        }
    }
    if let Some(policy) = opt(v, "selectPolicy").and_then(Value::as_str) {
        one_of(&p.child("selectPolicy"), policy, &["Disabled", "Max", "Min"], e);
    }
    let at = p.child("policies");
    if is_empty(v, "policies") {
        e.push(Error::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in list(v, "policies").iter().enumerate() {
        let p = at.index(i);
        one_of(&p.child("type"), s(policy, "type"), &["Percent", "Pods"], e);
        for key in ["value", "periodSeconds"] {
            if int0(policy, key) <= 0 {
                e.push(Error::invalid(&p.child(key), &json!(int0(policy, key)), "must be greater than zero"));
            }
        }
        if int0(policy, "periodSeconds") > PERIOD_MAX_SECONDS {
            let text = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
            e.push(Error::invalid(&p.child("periodSeconds"), &policy["periodSeconds"], text));
        }
    }
    if let Some(q) = opt(v, "tolerance").and_then(quantity).filter(|q| q.sign() < 0) {
        e.push(Error::invalid_str(&p.child("tolerance"), &q.to_string(), "must be greater than or equal to zero"));
    }
}
