//! The status of a Job: what its controller may report. Rules that a stored status already breaks are not asked again until
//! what they look at changes, as upstream's `getStatusValidationOptions` has it.

use machinery::field::{Error, ErrorList, ErrorType, Path};
use serde_json::{Value, json};

use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::Seen;
use crate::validate::tree::{at, flag, has, int, int0, is_empty, list, opt, opt_s, s};

static NULL: Value = Value::Null;

/// `ValidateJobStatusUpdate`
pub fn validate(new: &Value, old: &Value, e: &mut ErrorList) {
    let counts = ["active", "succeeded", "failed", "ready", "terminating"];
    super::super::workload::status_counts(new, &counts, &[], e);
    let job = Job::of(new);
    let before = Job::of(old);
    uncounted(&job, e);
    finished(&job, &before, e);
    indexes(&job, &before, e);
    if (job.moved(&before, "ready") || job.moved(&before, "active"))
        && let Some(ready) = int(job.status, "ready").filter(|ready| *ready > int0(job.status, "active"))
    {
        job.invalid("ready", &json!(ready), "cannot set more ready pods than active", e);
    }
    contradictions(&job, e);
    progress(&job, &before, e);
}

struct Job<'a> {
    spec: &'a Value,
    status: &'a Value,
}

impl<'a> Job<'a> {
    fn of(object: &'a Value) -> Self {
        Self { spec: opt(object, "spec").unwrap_or(&NULL), status: opt(object, "status").unwrap_or(&NULL) }
    }

    fn is(&self, condition: &str) -> bool {
        list(self.status, "conditions").iter().any(|c| s(c, "type") == condition && s(c, "status") == "True")
    }

    fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn moved(&self, before: &Self, key: &str) -> bool {
        opt(self.status, key) != opt(before.status, key)
    }

    fn indexed(&self) -> bool {
        s(self.spec, "completionMode") == "Indexed"
    }

    fn invalid(&self, key: &str, value: &Value, text: impl Into<String>, e: &mut ErrorList) {
        e.push(Error::invalid(&Path::new("status").child(key), value, text));
    }

    fn conditions(&self, text: &str, e: &mut ErrorList) {
        let field = Path::new("status").child("conditions").to_string();
        e.push(Error { kind: ErrorType::Invalid, field, value: String::new(), detail: text.to_owned() });
    }

    fn required(&self, key: &str, text: &str, e: &mut ErrorList) {
        e.push(Error::required(&Path::new("status").child(key), text));
    }
}

fn uncounted(job: &Job<'_>, e: &mut ErrorList) {
    let Some(pods) = opt(job.status, "uncountedTerminatedPods") else { return };
    let p = Path::new("status");
    let here = p.child("uncountedTerminatedPods");
    let mut seen = Seen::default();
    for key in ["succeeded", "failed"] {
        let list_at = here.child(key);
        for (i, uid) in list(pods, key).iter().enumerate() {
            let uid = uid.as_str().unwrap_or("");
            if uid.is_empty() {
                e.push(Error::invalid_str(&list_at.index(i), "", "must not be empty"));
            } else if seen.again(uid) {
                e.push(Error::duplicate(&list_at.index(i), &json!(uid)));
            }
        }
    }
}

/// What a job that is over must and must not say.
fn finished(job: &Job<'_>, before: &Job<'_>, e: &mut ErrorList) {
    let turned = |condition: &str| job.is(condition) != before.is(condition);
    let over = job.finished() != before.finished();
    let complete = job.is("Complete");
    let time = |key: &str| opt(job.status, key);
    if (turned("Complete") || turned("Failed")) && complete && job.is("Failed") {
        job.conditions("cannot set Complete=True and Failed=true conditions", e);
    }
    if (turned("Complete") || turned("FailureTarget")) && complete && job.is("FailureTarget") {
        job.conditions("cannot set Complete=True and FailureTarget=true conditions", e);
    }
    let completion = job.moved(before, "completionTime");
    if turned("Complete") || completion {
        match (time("completionTime"), complete) {
            (Some(t), false) => {
                job.invalid("completionTime", t, "cannot set completionTime when there is no Complete=True condition", e);
            }
            (None, true) => job.required("completionTime", "completionTime is required for Complete jobs", e),
            _ => {}
        }
    }
    if (completion || job.moved(before, "startTime"))
        && let (Some(end), Some(start)) = (opt_s(job.status, "completionTime"), opt_s(job.status, "startTime"))
        && end < start
    {
        job.invalid("completionTime", &json!(end), "must be equal to or after `startTime`", e);
    }
    if (turned("Failed") || turned("FailureTarget")) && job.is("Failed") && !job.is("FailureTarget") {
        job.conditions("cannot set Failed=True condition without the FailureTarget=true condition", e);
    }
    if (turned("Complete") || turned("SuccessCriteriaMet")) && complete && !job.is("SuccessCriteriaMet") {
        job.conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition", e);
    }
    if !job.finished() {
        return;
    }
    if (over || job.moved(before, "active")) && int0(job.status, "active") > 0 {
        job.invalid("active", &job.status["active"], "active>0 is invalid for finished job", e);
    }
    if (over || job.moved(before, "startTime")) && time("startTime").is_none() {
        job.required("startTime", "startTime is required for finished job", e);
    }
    if (over || job.moved(before, "uncountedTerminatedPods"))
        && let Some(pods) = time("uncountedTerminatedPods").filter(|p| !is_empty(p, "succeeded") || !is_empty(p, "failed"))
    {
        let p = Path::new("status");
        let text = "must be empty for finished job";
        e.push(go::invalid(&p.child("uncountedTerminatedPods"), pods, "batch.v1.UncountedTerminatedPods", text));
    }
}

fn indexes(job: &Job<'_>, before: &Job<'_>, e: &mut ErrorList) {
    let completions = int(job.spec, "completions");
    let done = s(job.status, "completedIndexes");
    let failed = opt_s(job.status, "failedIndexes");
    let (done_moved, failed_moved) = (job.moved(before, "completedIndexes"), job.moved(before, "failedIndexes"));
    let per_index = has(job.spec, "backoffLimitPerIndex");
    if let Some(max) = completions {
        if done_moved && let Err(why) = intervals(done, max) {
            job.invalid("completedIndexes", &json!(done), format!("error parsing completedIndexes: {why}"), e);
        }
        if failed_moved
            && per_index
            && let Some(Err(why)) = failed.map(|f| intervals(f, max))
        {
            job.invalid("failedIndexes", &json!(failed), format!("error parsing failedIndexes: {why}"), e);
        }
    }
    if done_moved && !done.is_empty() && !job.indexed() {
        job.invalid("completedIndexes", &json!(done), "cannot set non-empty completedIndexes when non-indexed completion mode", e);
    }
    if failed_moved && !per_index && failed.is_some() {
        job.invalid("failedIndexes", &json!(failed), "cannot set non-null failedIndexes when backoffLimitPerIndex is null", e);
    }
    if (done_moved || failed_moved)
        && let (Some(max), Some(failed)) = (completions, failed)
        && let (Ok(a), Ok(b)) = (intervals(done, max), intervals(failed, max))
        && let Some(both) = b.iter().find_map(|f| a.iter().find(|d| d.0 <= f.1 && f.0 <= d.1).map(|d| d.0.max(f.0)))
    {
        job.invalid("failedIndexes", &json!(failed), format!("failedIndexes and completedIndexes overlap at index: {both}"), e);
    }
    let over = job.finished() != before.finished();
    if (over || job.moved(before, "terminating")) && job.finished() && int0(job.status, "terminating") > 0 {
        job.invalid("terminating", &job.status["terminating"], "terminating>0 is invalid for finished job", e);
    }
}

/// `1,3-5,7` (`validateIndexesFormat`).
pub fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut out: Vec<(i64, i64)> = Vec::new();
    if text.is_empty() {
        return Ok(out);
    }
    let quoted = machinery::field::go_quote;
    let index = |part: &str| -> Result<i64, String> {
        let n: i64 = part.parse().map_err(|_| format!("cannot convert string to integer for index: {}", quoted(part)))?;
        if n >= completions { Err(format!("too large index: {}", quoted(part))) } else { Ok(n) }
    };
    for piece in text.split(',') {
        let parts: Vec<&str> = piece.split('-').collect();
        let (first, last) = match parts[..] {
            [one] => (index(one)?, None),
            [from, to] => (index(from)?, Some(index(to)?)),
            _ => {
                let rule = "violates the requirement that an index interval can have at most two parts separated by '-'";
                return Err(format!("the fragment {} {rule}", quoted(piece)));
            }
        };
        if let Some(last) = last.filter(|last| first >= *last) {
            return Err(format!("non-increasing order, previous: {first}, current: {last}"));
        }
        if let Some((_, before)) = out.last().filter(|(_, before)| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        out.push((first, last.unwrap_or(first)));
    }
    Ok(out)
}

fn contradictions(job: &Job<'_>, e: &mut ErrorList) {
    if !job.is("SuccessCriteriaMet") {
        return;
    }
    if job.is("Failed") {
        job.conditions("cannot set Failed=True and SuccessCriteriaMet=true conditions", e);
    }
    if job.is("FailureTarget") {
        job.conditions("cannot set FailureTarget=True and SuccessCriteriaMet=true conditions", e);
    }
}

/// What may not go back.
fn progress(job: &Job<'_>, before: &Job<'_>, e: &mut ErrorList) {
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if before.is(condition) && !job.is(condition) {
            job.conditions(&format!("cannot disable the terminal {condition}=True condition"), e);
        }
    }
    let resizable = job.indexed() && int(job.spec, "completions") == int(job.spec, "parallelism");
    for (key, fixed) in [("failed", true), ("succeeded", !resizable)] {
        let now = int0(job.status, key);
        if fixed && now < int0(before.status, key) {
            job.invalid(key, &json!(now), format!("cannot decrease the {key} counter"), e);
        }
    }
    if let (Some(now), Some(then)) = (opt(job.status, "completionTime"), opt(before.status, "completionTime"))
        && now != then
    {
        job.invalid("completionTime", now, "field is immutable", e);
    }
    if job.moved(before, "startTime") && has(before.status, "startTime") && !flag(job.spec, "suspend") {
        let now = opt(job.status, "startTime").unwrap_or(&NULL);
        job.invalid("startTime", now, "field is immutable for unsuspended job once set", e);
    }
    if before.is("SuccessCriteriaMet") && !job.is("SuccessCriteriaMet") {
        job.conditions("cannot disable the SuccessCriteriaMet=True condition", e);
    }
}

/// The old template as it may be compared: a job that rests may still be told where to run, and with what.
pub fn comparable(new: &Value, old: &Value) -> Value {
    let mut out = old.clone();
    let Some(spec) = out.get_mut("spec").filter(|v| v.is_object()) else { return out };
    let ns = opt(new, "spec").unwrap_or(&NULL);
    let node = at(ns, "affinity.nodeAffinity").cloned();
    match (opt(ns, "affinity").is_some(), spec.get_mut("affinity").filter(|a| a.is_object())) {
        (true, None) => crate::validate::tree::set(spec, "affinity", json!({"nodeAffinity": node})),
        (given, Some(affinity)) => {
            match node.filter(|_| given) {
                Some(node) => crate::validate::tree::set(affinity, "nodeAffinity", node),
                None => crate::validate::tree::remove(affinity, "nodeAffinity"),
            }
            if !given && semantic(Some(affinity), Some(&json!({})), "core.v1.Affinity") {
                crate::validate::tree::remove(spec, "affinity");
            }
        }
        (false, None) => {}
    }
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        crate::validate::tree::keep(spec, ns, key);
    }
    for key in ["containers", "initContainers"].into_iter().filter(|key| list(ns, key).len() == list(spec, key).len()).collect::<Vec<_>>() {
        for (old, new) in crate::validate::tree::list_mut(spec, key).iter_mut().zip(list(ns, key)) {
            if s(old, "name") == s(new, "name") {
                crate::validate::tree::keep(old, new, "resources");
            }
        }
    }
    let (meta, now) = (machinery::object::metadata_mut(&mut out), opt(new, "metadata").unwrap_or(&NULL));
    for key in ["labels", "annotations"] {
        match opt(now, key) {
            Some(v) => meta.insert(key.to_owned(), v.clone()),
            None => meta.remove(key),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_intervals() {
        assert_eq!(intervals("0,2-4", 5), Ok(vec![(0, 0), (2, 4)]));
        for (text, why) in [
            ("x", "cannot convert string to integer for index: \"x\""),
            ("5", "too large index: \"5\""),
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("3-2", "non-increasing order, previous: 3, current: 2"),
        ] {
            assert_eq!(intervals(text, 5), Err(why.to_owned()), "{text}");
        }
    }
}
