//! HorizontalPodAutoscaler (stored as autoscaling/v2) and PodDisruptionBudget.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::workload::{StatusOnly, int_or_percent, keep_status, not_over_hundred, status_counts};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::go;
use crate::validate::rules::{named, one_of, quantity_at};
use crate::validate::selector::label_selector_at;
use crate::validate::tree::{at, has, int, int0, is_empty, list, opt, opt_s, s, set, set_default};

static NULL: Value = Value::Null;
const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

pub struct HorizontalPodAutoscalers;

impl Strategy for HorizontalPodAutoscalers {
    fn default(&self, ctx: &Context, object: &mut Value) {
        let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
        if !has(v, "minReplicas") {
            set(v, "minReplicas", 1);
        }
        if ctx.version == "v1" {
            return;
        }
        if is_empty(v, "metrics") {
            let metric =
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            set(v, "metrics", metric);
        }
        let Some(behavior) = v.get_mut("behavior").filter(|b| b.is_object()) else { return };
        let mut up = opt(behavior, "scaleUp").cloned().unwrap_or_else(|| json!({}));
        if !has(&up, "stabilizationWindowSeconds") {
            set(&mut up, "stabilizationWindowSeconds", 0);
        }
        let policies = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]);
        rules(&mut up, policies);
        let mut down = opt(behavior, "scaleDown").cloned().unwrap_or_else(|| json!({}));
        rules(&mut down, json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        set(behavior, "scaleUp", up);
        set(behavior, "scaleDown", down);
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"desiredReplicas": 0, "currentMetrics": null}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        if let Some(n) = int(v, "minReplicas").filter(|n| *n < 1) {
            e.push(Error::invalid(&p.child("minReplicas"), &json!(n), "must be greater than or equal to 1"));
        }
        let max = int0(v, "maxReplicas");
        if max == 0 {
            e.push(Error::required(&p.child("maxReplicas"), "must be set and greater than 0"));
        } else if max < 1 {
            e.push(Error::invalid(&p.child("maxReplicas"), &json!(max), "must be greater than or equal to 1"));
        }
        if int(v, "minReplicas").is_some_and(|n| max < n) {
            e.push(Error::invalid(&p.child("maxReplicas"), &json!(max), "must be greater than or equal to `minReplicas`"));
        }
        target_ref(opt(v, "scaleTargetRef").unwrap_or(&NULL), &p.child("scaleTargetRef"), true, &mut e);
        let metrics = p.child("metrics");
        for (i, metric) in list(v, "metrics").iter().enumerate() {
            metric_rule(metric, &metrics.index(i), &mut e);
        }
        let other = list(v, "metrics").iter().any(|m| matches!(s(m, "type"), "Object" | "External"));
        if int(v, "minReplicas") == Some(0) && !other {
            let text = "must specify at least one Object or External metric to support scaling to zero replicas";
            e.push(Error::forbidden(&metrics, text));
        }
        if let Some(behavior) = opt(v, "behavior") {
            let p = p.child("behavior");
            for key in ["scaleUp", "scaleDown"] {
                if let Some(rules) = opt(behavior, key) {
                    scaling_rules(rules, &p.child(key), &mut e);
                }
            }
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(hpa_status) as &dyn Strategy)
    }
}

fn rules(v: &mut Value, policies: Value) {
    set_default(v, "selectPolicy", "Max");
    if !has(v, "policies") {
        set(v, "policies", policies);
    }
}

fn target_ref(v: &Value, p: &Path<'_>, group_needed: bool, e: &mut ErrorList) {
    for key in ["kind", "name"] {
        match s(v, key) {
            "" => e.push(Error::required(&p.child(key), "")),
            text => named(&p.child(key), text, machinery::names::path_segment(text, false), e),
        }
    }
    let api = s(v, "apiVersion");
    if !api.contains('/') && group_needed && s(v, "kind") != "ReplicationController" {
        e.push(Error::invalid_str(&p.child("apiVersion"), api, "apiVersion must specify API group"));
    }
}

fn hpa_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    status_counts(new, &["currentReplicas", "desiredReplicas"], &[], e);
}

fn metric_rule(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let ty = s(v, "type");
    if ty.is_empty() {
        e.push(Error::required(&p.child("type"), "must specify a metric source type"));
    }
    one_of(&p.child("type"), ty, &SOURCES, e);
    let mut found = 0;
    for key in ["object", "external", "pods", "resource", "containerResource"] {
        let Some(source) = opt(v, key) else { continue };
        found += 1;
        let at_source = p.child(key);
        if found > 1 {
            e.push(Error::forbidden(&at_source, "must populate information for only one metric source"));
            continue;
        }
        metric_source(source, key, &at_source, e);
    }
    if !SOURCES.contains(&ty) {
        one_of(&p.child("type"), ty, &SOURCES, e);
        return;
    }
    let wanted = {
        let mut chars = ty.chars();
        chars.next().map_or_else(String::new, |c| c.to_lowercase().collect::<String>() + chars.as_str())
    };
    if !has(v, &wanted) {
        e.push(Error::required(&p.child(&wanted), "must populate information for the given metric source"));
    }
}

fn metric_source(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let target = opt(v, "target").unwrap_or(&NULL);
    let at_target = p.child("target");
    match key {
        "object" => {
            let object = opt(v, "describedObject").unwrap_or(&NULL);
            target_ref(object, &p.child("describedObject"), false, e);
            metric_name(v, p, e);
            metric_target(target, &at_target, e);
            if !has(target, "value") && !has(target, "averageValue") {
                e.push(Error::required(&at_target.child("averageValue"), "must set either a target value or averageValue"));
            }
        }
        "pods" => {
            metric_name(v, p, e);
            metric_target(target, &at_target, e);
            if quantity_at(target, "averageValue").is_none_or(|q| q.sign() != 1) {
                e.push(Error::required(&at_target.child("averageValue"), "must specify a positive target averageValue"));
            }
        }
        "external" => {
            metric_name(v, p, e);
            metric_target(target, &at_target, e);
            match (has(target, "value"), has(target, "averageValue")) {
                (true, true) => {
                    e.push(Error::forbidden(&at_target.child("value"), "may not set both a target value for metric and a per-pod target"));
                }
                (false, false) => {
                    let text = "must set either a target value for metric or a per-pod target";
                    e.push(Error::required(&at_target.child("averageValue"), text));
                }
                _ => {}
            }
        }
        _ => {
            if s(v, "name").is_empty() {
                e.push(Error::required(&p.child("name"), "must specify a resource name"));
            }
            if key == "containerResource" && s(v, "container").is_empty() {
                e.push(Error::required(&p.child("container"), "must specify a container"));
            }
            metric_target(target, &at_target, e);
            match (has(target, "averageUtilization"), has(target, "averageValue")) {
                (true, true) => {
                    let text = "may not set both a target raw value and a target utilization";
                    e.push(Error::forbidden(&at_target.child("averageValue"), text));
                }
                (false, false) => {
                    let text = "must set either a target raw value or a target utilization";
                    e.push(Error::required(&at_target.child("averageUtilization"), text));
                }
                _ => {}
            }
        }
    }
}

fn metric_name(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let metric = opt(v, "metric").unwrap_or(&NULL);
    let at_name = p.child("metric");
    match s(metric, "name") {
        "" => e.push(Error::required(&at_name.child("name"), "must specify a metric name")),
        text => named(&at_name.child("name"), text, machinery::names::path_segment(text, false), e),
    }
}

fn metric_target(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let ty = s(v, "type");
    if ty.is_empty() {
        e.push(Error::required(&p.child("type"), "must specify a metric target type"));
    }
    if !matches!(ty, "Utilization" | "Value" | "AverageValue") {
        e.push(Error::invalid_str(&p.child("type"), ty, "must be either Utilization, Value, or AverageValue"));
    }
    for key in ["value", "averageValue"] {
        if key == "averageValue"
            && let Some(n) = int(v, "averageUtilization").filter(|n| *n < 1)
        {
            e.push(Error::invalid(&p.child("averageUtilization"), &json!(n), "must be greater than 0"));
        }
        if let Some(q) = quantity_at(v, key).filter(|q| q.sign() != 1) {
            e.push(Error::invalid_str(&p.child(key), &q.to_string(), "must be positive"));
        }
    }
}

fn scaling_rules(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let window = int(v, "stabilizationWindowSeconds");
    let at_window = p.child("stabilizationWindowSeconds");
    match window {
        Some(n) if n < 0 => e.push(Error::invalid(&at_window, &json!(n), "must be greater than or equal to zero")),
        Some(n) if n > 3600 => e.push(Error::invalid(&at_window, &json!(n), "must be less than or equal to 3600")),
        _ => {}
    }
    if let Some(policy) = opt_s(v, "selectPolicy") {
        one_of(&p.child("selectPolicy"), policy, &["Disabled", "Max", "Min"], e);
    }
    let at_policies = p.child("policies");
    if is_empty(v, "policies") {
        e.push(Error::required(&at_policies, "must specify at least one Policy"));
    }
    for (i, policy) in list(v, "policies").iter().enumerate() {
        let item = at_policies.index(i);
        one_of(&item.child("type"), s(policy, "type"), &["Percent", "Pods"], e);
        for (key, cap) in [("value", i64::MAX), ("periodSeconds", 1800)] {
            let n = int0(policy, key);
            if n <= 0 {
                e.push(Error::invalid(&item.child(key), &json!(n), "must be greater than zero"));
            } else if n > cap {
                e.push(Error::invalid(&item.child(key), &json!(n), format!("must be less than or equal to {cap}")));
            }
        }
    }
}

pub struct PodDisruptionBudgets;

impl Strategy for PodDisruptionBudgets {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, update_again: false, ..MetaRules::default() }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        super::workload::reset_status(object, "policy.v1.PodDisruptionBudgetStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        if has(v, "minAvailable") && has(v, "maxUnavailable") {
            let text = "minAvailable and maxUnavailable cannot be both set";
            e.push(go::invalid(&p, v, "policy.v1.PodDisruptionBudgetSpec", text));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            int_or_percent(v, key, &p, &mut e);
            not_over_hundred(v, key, &p, &mut e);
        }
        label_selector_at(v, "selector", &p, &mut e);
        if let Some(policy) = opt_s(v, "unhealthyPodEvictionPolicy") {
            one_of(&p.child("unhealthyPodEvictionPolicy"), policy, &["AlwaysAllow", "IfHealthyBudget"], &mut e);
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(pdb_status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let text = |path: &str| match at(o, path) {
            None => "N/A".to_owned(),
            Some(Value::String(t)) => t.clone(),
            Some(other) => other.to_string(),
        };
        let allowed = at(o, "status.disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
        Some(vec![name(o), json!(text("spec.minAvailable")), json!(text("spec.maxUnavailable")), json!(allowed), age(o, now)])
    }
}

fn pdb_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    status_counts(new, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], &[], e);
}
