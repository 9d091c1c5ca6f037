//! PodDisruptionBudgets.

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::workload::{StatusOnly, int_or_percent, keep_status, not_over_hundred, reset_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::conditions::conditions;
use crate::validate::go;
use crate::validate::rules::{non_negative, optional_one_of};
use crate::validate::selector::label_selector_at;
use crate::validate::tree::{at, has, opt};

pub struct PodDisruptionBudgets;

impl Strategy for PodDisruptionBudgets {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "policy.v1.PodDisruptionBudgetStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, update_again: false, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        if has(v, "minAvailable") && has(v, "maxUnavailable") {
            let text = "minAvailable and maxUnavailable cannot be both set";
            e.push(go::invalid(&p, v, "policy.v1.PodDisruptionBudgetSpec", text));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            int_or_percent(v, key, &p, &mut e);
            not_over_hundred(v, key, &p, &mut e);
        }
        label_selector_at(v, "selector", &p, &mut e);
        optional_one_of(v, "unhealthyPodEvictionPolicy", &p, &["AlwaysAllow", "IfHealthyBudget"], &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let bound = |path: &str| match at(o, path) {
            None => json!("N/A"),
            Some(Value::String(text)) => json!(text),
            Some(n) => json!(n.to_string()),
        };
        let allowed = at(o, "status.disruptionsAllowed").cloned().unwrap_or_else(|| json!(0));
        Some(vec![name(o), bound("spec.minAvailable"), bound("spec.maxUnavailable"), allowed, age(o, now)])
    }
}

fn status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("status"));
    let v = opt(new, "status").unwrap_or(&empty);
    conditions(v, "conditions", &p, e);
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        non_negative(v, key, &p, e);
    }
}
