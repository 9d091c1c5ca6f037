//! Tolerations, taints, topology spread and scheduling gates.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::go;
use super::rules::{one_of, qualified};
use super::selector::label_selector_at;
use super::tree::{has, int, int0, is_empty, list, opt, opt_s, s, strings};

pub const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn tolerations(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("tolerations");
    for (i, t) in list(v, "tolerations").iter().enumerate() {
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
                e.push(go::invalid(&at, t, "core.v1.Toleration", "value must be empty when `operator` is 'Exists'"));
            }
        }
        other => e.push(Error::not_supported(&at, &json!(other), &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        one_of(&p.child("effect"), effect, &TAINT_EFFECTS, e);
    }
}

pub fn topology_spread(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("topologySpreadConstraints");
    let all = list(spec, "topologySpreadConstraints");
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
        if all[..i].iter().any(|other| s(other, "topologyKey") == key && s(other, "whenUnsatisfiable") == when) {
            e.push(Error::duplicate(&p.child("{topologyKey, whenUnsatisfiable}"), &json!(format!("{{{key}, {when}}}"))));
        }
        min_domains(c, when, &p.child("minDomains"), e);
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = opt_s(c, key) {
                one_of(&p.child(key), policy, &["Honor", "Ignore"], e);
            }
        }
        spread_label_keys(c, &p, e);
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

fn spread_label_keys(c: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if is_empty(c, "matchLabelKeys") {
        return;
    }
    let at = p.child("matchLabelKeys");
    let Some(selector) = opt(c, "labelSelector") else {
        e.push(Error::forbidden(&at, "must not be specified when labelSelector is not set"));
        return;
    };
    for (i, key) in strings(c, "matchLabelKeys").enumerate() {
        qualified(&at.index(i), key, e);
        let taken = super::tree::entries(selector, "matchLabels").any(|(k, _)| k == key)
            || list(selector, "matchExpressions").iter().any(|x| s(x, "key") == key);
        if taken {
            e.push(Error::invalid_str(&at.index(i), key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
}

pub fn scheduling_gates(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("schedulingGates");
    let gates = list(spec, "schedulingGates");
    for (i, gate) in gates.iter().enumerate() {
        qualified(&at.index(i), s(gate, "name"), e);
        if gates[..i].iter().any(|other| s(other, "name") == s(gate, "name")) {
            e.push(Error::duplicate(&at.index(i), &json!(s(gate, "name"))));
        }
    }
}
