//! Tolerations, taints, topology spread and scheduling gates.

use std::collections::{BTreeMap, BTreeSet};

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::rules::{Seen, one_of, qualified};
use super::selector::label_selector_at;
use super::tree::{has, int, int0, is_empty, list, opt, opt_s, s, strings};

pub const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn tolerations(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    each_toleration(list(v, "tolerations"), &p.child("tolerations"), e);
}

pub fn each_toleration(tolerations: &[Value], at: &Path<'_>, e: &mut ErrorList) {
    for (i, t) in tolerations.iter().enumerate() {
        toleration(t, &at.index(i), e);
    }
}

fn toleration(t: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (key, operator, effect, value) = (s(t, "key"), s(t, "operator"), s(t, "effect"), s(t, "value"));
    if !key.is_empty() {
        qualified(&p.child("key"), key, e);
    }
    let at = p.child("operator");
    if key.is_empty() && operator != "Exists" {
        let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        e.push(Error::invalid_str(&at, operator, text));
    }
    if has(t, "tolerationSeconds") && effect != "NoExecute" {
        e.push(Error::invalid_str(&p.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"));
    }
    match operator {
        "Equal" | "" => {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                e.push(Error::invalid_str(&at, value, problems.join(";")));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                e.push(Error::invalid_str(&at, value, "value must be empty when `operator` is 'Exists'"));
            }
        }
        // Comparisons are of a feature that is off by default, but named already.
        "Lt" | "Gt" => e.push(Error::not_supported(&at, &json!(operator), &["Equal", "Exists", "Lt", "Gt"])),
        other => e.push(Error::not_supported(&at, &json!(other), &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        one_of(&p.child("effect"), effect, &TAINT_EFFECTS, e);
    }
}

pub fn topology_spread(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("topologySpreadConstraints");
    let all = list(spec, "topologySpreadConstraints");
    let last: BTreeMap<_, usize> = all.iter().enumerate().map(|(i, c)| ((s(c, "topologyKey"), s(c, "whenUnsatisfiable")), i)).collect();
    for (i, c) in all.iter().enumerate() {
        let p = at.index(i);
        if int0(c, "maxSkew") <= 0 {
            e.push(Error::invalid(&p.child("maxSkew"), &json!(int0(c, "maxSkew")), "must be greater than zero"));
        }
        let (key, when) = (s(c, "topologyKey"), s(c, "whenUnsatisfiable"));
        if key.is_empty() {
            e.push(Error::required(&p.child("topologyKey"), "can not be empty"));
        }
        one_of(&p.child("whenUnsatisfiable"), when, &["DoNotSchedule", "ScheduleAnyway"], e);
        // The earlier ones of equals are refused.
        if last.get(&(key, when)).is_some_and(|last| *last > i) {
            e.push(Error::duplicate(&p.child("{topologyKey, whenUnsatisfiable}"), &json!(format!("{{{key}, {when}}}"))));
        }
        min_domains(c, when, &p.child("minDomains"), e);
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = opt_s(c, key) {
                one_of(&p.child(key), policy, &["Honor", "Ignore"], e);
            }
        }
        label_keys(c, &p, e);
        label_selector_at(c, "labelSelector", &p, e);
    }
}

fn min_domains(c: &Value, when: &str, p: &Path<'_>, e: &mut ErrorList) {
    let Some(n) = int(c, "minDomains") else { return };
    if n <= 0 {
        e.push(Error::invalid(p, &json!(n), "must be greater than zero"));
    }
    if when != "DoNotSchedule" {
        let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
        e.push(Error::invalid(p, &json!(n), text));
    }
}

/// Label keys whose values come from the pod (`ValidateMatchLabelKeysAndMismatchLabelKeys`). A pod's have become expressions of
/// the selector by now, so only a key that is there twice was there before.
pub fn label_keys(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let selector = opt(v, "labelSelector");
    for key in ["matchLabelKeys", "mismatchLabelKeys"].into_iter().filter(|key| !is_empty(v, key)) {
        let at = p.child(key);
        if selector.is_none() {
            e.push(Error::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, label) in strings(v, key).enumerate() {
            qualified(&at.index(i), label, e);
        }
    }
    if let Some(selector) = selector {
        let mut seen: BTreeSet<&str> = super::tree::entries(selector, "matchLabels").map(|(key, _)| key.as_str()).collect();
        let last: BTreeMap<&str, usize> = strings(v, "matchLabelKeys").enumerate().map(|(i, key)| (key, i)).collect();
        for key in list(selector, "matchExpressions").iter().map(|expression| s(expression, "key")) {
            // Upstream leaves the name of the list out of this path.
            if let Some(i) = last.get(key).filter(|_| seen.contains(key)) {
                e.push(Error::invalid_str(&p.index(*i), key, "exists in both matchLabelKeys and labelSelector"));
            }
            seen.insert(key);
        }
    }
    let (at, others) = (p.child("matchLabelKeys"), strings(v, "mismatchLabelKeys").collect::<BTreeSet<_>>());
    for (i, key) in strings(v, "matchLabelKeys").enumerate() {
        if others.contains(key) {
            e.push(Error::invalid_str(&at.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}

pub fn scheduling_gates(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("schedulingGates");
    let gates = list(spec, "schedulingGates");
    let mut seen = Seen::default();
    for (i, gate) in gates.iter().enumerate() {
        qualified(&at.index(i), s(gate, "name"), e);
        if seen.again(s(gate, "name")) {
            e.push(Error::duplicate(&at.index(i), &json!(s(gate, "name"))));
        }
    }
}
