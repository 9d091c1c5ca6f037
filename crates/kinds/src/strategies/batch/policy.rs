//! Failure, success and replacement policies of jobs.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use crate::validate::go;
use crate::validate::rules::{Seen, named, one_of};
use crate::validate::tree::{at, has, int, is_empty, list, list_mut, opt, opt_s, s, set_default};

const INDEXES_MAX_BYTES: usize = 64 * 1024;
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

pub fn default(v: &mut Value) {
    if let Some(policy) = v.get_mut("podFailurePolicy") {
        for rule in list_mut(policy, "rules") {
            for pattern in list_mut(rule, "onPodConditions") {
                set_default(pattern, "status", "True");
            }
        }
    }
}

pub fn policies(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(policy) = opt(v, "podFailurePolicy") {
        failure(policy, v, &p.child("podFailurePolicy"), e);
    }
    if let Some(policy) = opt(v, "successPolicy") {
        success(policy, v, &p.child("successPolicy"), e);
    }
    if let Some(policy) = opt_s(v, "podReplacementPolicy") {
        let at = p.child("podReplacementPolicy");
        if has(v, "podFailurePolicy") {
            one_of(&at, policy, &["Failed"], e);
        } else {
            one_of(&at, policy, &["Failed", "TerminatingOrFailed"], e);
        }
    }
}

fn failure(policy: &Value, v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at_rules = p.child("rules");
    let rules = list(policy, "rules");
    if rules.len() > 20 {
        e.push(Error::too_many(&at_rules, rules.len(), 20));
    }
    let containers: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|key| at(v, "template.spec").map_or(&[][..], |spec| list(spec, key)))
        .map(|c| s(c, "name"))
        .collect();
    for (i, rule) in rules.iter().enumerate() {
        failure_rule(rule, v, &containers, &at_rules.index(i), e);
    }
}

fn plain_invalid(p: &Path<'_>, detail: &str) -> Error {
    Error { kind: machinery::field::ErrorType::Invalid, field: p.to_string(), value: String::new(), detail: detail.to_owned() }
}

fn failure_rule(rule: &Value, v: &Value, containers: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("action");
    match s(rule, "action") {
        "" => e.push(Error::required(&at, format!("valid values: {}", crate::validate::rules::go_slice(&ACTIONS)))),
        "FailIndex" => {
            if !has(v, "backoffLimitPerIndex") {
                e.push(Error::invalid_str(&at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
            }
        }
        action => one_of(&at, action, &ACTIONS, e),
    }
    if let Some(codes) = opt(rule, "onExitCodes") {
        exit_codes(codes, containers, &p.child("onExitCodes"), e);
    }
    let at = p.child("onPodConditions");
    let patterns = list(rule, "onPodConditions");
    if patterns.len() > 20 {
        e.push(Error::too_many(&at, patterns.len(), 20));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = at.index(i);
        named(&at.child("type"), s(pattern, "type"), names::qualified_name(s(pattern, "type")), e);
        match s(pattern, "status") {
            "" => e.push(Error::required(&at.child("status"), format!("valid values: {}", crate::validate::rules::go_slice(&STATUSES)))),
            status => one_of(&at.child("status"), status, &STATUSES, e),
        }
    }
    match (has(rule, "onExitCodes"), !patterns.is_empty()) {
        (true, true) => e.push(plain_invalid(p, "specifying both OnExitCodes and OnPodConditions is not supported")),
        (false, false) => e.push(plain_invalid(p, "specifying one of OnExitCodes and OnPodConditions is required")),
        _ => {}
    }
}

fn exit_codes(codes: &Value, containers: &[&str], p: &Path<'_>, e: &mut ErrorList) {
    let operator = s(codes, "operator");
    let at = p.child("operator");
    match operator {
        "" => e.push(Error::required(&at, format!("valid values: {}", crate::validate::rules::go_slice(&["In", "NotIn"])))),
        operator => one_of(&at, operator, &["In", "NotIn"], e),
    }
    if let Some(name) = opt_s(codes, "containerName")
        && !containers.contains(&name)
    {
        let text = "must be one of the container or initContainer names in the pod template";
        e.push(Error::invalid_str(&p.child("containerName"), name, text));
    }
    let at = p.child("values");
    let values = list(codes, "values");
    if values.is_empty() {
        e.push(Error::invalid(&at, codes.get("values").unwrap_or(&Value::Null), "at least one value is required"));
    } else if values.len() > 255 {
        e.push(Error::too_many(&at, values.len(), 255));
    }
    let mut ordered = true;
    let numbers: Vec<i64> = values.iter().map(|v| v.as_i64().unwrap_or(0)).collect();
    let mut seen = Seen::default();
    for (i, n) in numbers.iter().enumerate() {
        if *n == 0 && operator == "In" {
            e.push(Error::invalid(&at.index(i), &json!(n), "must not be 0 for the In operator"));
        }
        if seen.again(*n) {
            e.push(Error::duplicate(&at.index(i), &json!(n)));
        }
        ordered &= i == 0 || numbers[i - 1] <= *n;
    }
    if !ordered {
        e.push(Error::invalid(&at, &json!(numbers), "must be ordered"));
    }
}

fn success(policy: &Value, v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if s(v, "completionMode") != "Indexed" {
        e.push(go::invalid(p, policy, "batch.v1.SuccessPolicy", "requires indexed completion mode"));
        return;
    }
    let at = p.child("rules");
    if is_empty(policy, "rules") {
        e.push(Error::required(&at, "at least one rules must be specified when the successPolicy is specified"));
    }
    let rules = list(policy, "rules");
    if rules.len() > 20 {
        e.push(Error::too_many(&at, rules.len(), 20));
    }
    let completions = int(v, "completions").unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &at.index(i), e);
    }
}

fn success_rule(rule: &Value, completions: i64, p: &Path<'_>, e: &mut ErrorList) {
    if !has(rule, "succeededIndexes") && !has(rule, "succeededCount") {
        e.push(Error::required(p, "at least one of succeededCount or succeededIndexes must be specified"));
    }
    let mut total = None;
    if let Some(text) = opt_s(rule, "succeededIndexes") {
        let at = p.child("succeededIndexes");
        if text.len() > INDEXES_MAX_BYTES {
            e.push(Error::too_long(&at, INDEXES_MAX_BYTES));
        }
        let all = super::status::intervals(text, completions);
        total = Some(all.as_ref().map_or(0, |all| all.iter().map(|(first, last)| last - first + 1).sum::<i64>()));
        if let Err(why) = all {
            e.push(Error::invalid_str(&at, text, format!("error parsing succeededIndexes: {why}")));
        }
    }
    if let Some(n) = int(rule, "succeededCount") {
        let at = p.child("succeededCount");
        crate::validate::rules::non_negative(rule, "succeededCount", p, e);
        if n > completions {
            let text = format!("must be less than or equal to {completions} (the number of specified completions)");
            e.push(Error::invalid(&at, &json!(n), text));
        }
        if let Some(total) = total.filter(|total| n > *total) {
            let text = format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)");
            e.push(Error::invalid(&at, &json!(n), text));
        }
    }
}
