//! Rows of Jobs and CronJobs.

use serde_json::{Value, json};

use super::apps::selector;
use super::{age, name, since};
use crate::validate::tree::{at, int, int0, list, opt, s};

pub fn job(o: &Value, now: i64) -> Vec<Value> {
    let empty = json!({});
    let (spec, status) = (opt(o, "spec").unwrap_or(&empty), opt(o, "status").unwrap_or(&empty));
    let is = |ty: &str| list(status, "conditions").iter().any(|c| s(c, "type") == ty && s(c, "status") == "True");
    let deleted = opt(o, "metadata").is_some_and(|m| opt(m, "deletionTimestamp").is_some());
    let phase = [("Complete", "Complete"), ("Failed", "Failed")].into_iter().find(|(ty, _)| is(ty)).map(|(_, text)| text);
    let phase = phase.unwrap_or(if deleted {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    });
    let done = int0(status, "succeeded");
    let completions = match (int(spec, "completions"), int(spec, "parallelism")) {
        (Some(n), _) => format!("{done}/{n}"),
        (None, Some(n)) if n > 1 => format!("{done}/1 of {n}"),
        _ => format!("{done}/1"),
    };
    let time = |key: &str| opt(status, key).and_then(Value::as_str).and_then(machinery::time::parse);
    let duration = match (time("startTime"), time("completionTime")) {
        (None, _) => String::new(),
        (Some(from), to) => machinery::time::human_duration(to.unwrap_or(now) - from),
    };
    let containers = at(spec, "template.spec").map_or(&[][..], |p| list(p, "containers"));
    let join = |key: &str| containers.iter().map(|c| s(c, key)).collect::<Vec<_>>().join(",");
    vec![
        name(o),
        json!(phase),
        json!(completions),
        json!(duration),
        age(o, now),
        json!(join("name")),
        json!(join("image")),
        selector(opt(spec, "selector")),
    ]
}

pub fn cron_job(o: &Value, now: i64) -> Vec<Value> {
    let empty = json!({});
    let (spec, status) = (opt(o, "spec").unwrap_or(&empty), opt(o, "status").unwrap_or(&empty));
    let last = match opt(status, "lastScheduleTime") {
        None => json!("<none>"),
        time => since(time, now),
    };
    let suspend = match spec.get("suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let zone = opt(spec, "timeZone").and_then(Value::as_str).unwrap_or("<none>");
    let containers = at(spec, "jobTemplate.spec.template.spec").map_or(&[][..], |p| list(p, "containers"));
    let join = |key: &str| containers.iter().map(|c| s(c, key)).collect::<Vec<_>>().join(",");
    vec![
        name(o),
        json!(s(spec, "schedule")),
        json!(zone),
        json!(suspend),
        json!(list(status, "active").len()),
        last,
        age(o, now),
        json!(join("name")),
        json!(join("image")),
        selector(at(spec, "jobTemplate.spec.selector")),
    ]
}
