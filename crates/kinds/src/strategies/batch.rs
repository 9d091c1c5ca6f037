//! Job and CronJob.

mod cron;
mod policy;
mod status;

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::workload::{StatusOnly, default_template, drop_disabled, keep_status, matching_labels};
use crate::strategy::{Context, Strategy};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, immutable, non_negative, one_of};
use crate::validate::selector::{as_selector, label_selector};
use crate::validate::template::template as pod_template;
use crate::validate::tree::{at, flag, has, int, int0, is_empty, keep, list, opt, opt_s, s, set};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const SELECTOR: &str = "meta.v1.LabelSelector";
static NULL: Value = Value::Null;

pub struct Jobs;

impl Strategy for Jobs {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.template");
        if let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) {
            if !has(v, "completions") && !has(v, "parallelism") {
                set(v, "completions", 1);
            }
            if !has(v, "parallelism") {
                set(v, "parallelism", 1);
            }
            if !has(v, "backoffLimit") {
                set(v, "backoffLimit", if has(v, "backoffLimitPerIndex") { i32::MAX } else { 6 });
            }
            for (key, value) in [("completionMode", "NonIndexed")] {
                if !has(v, key) {
                    set(v, key, value);
                }
            }
            if !has(v, "suspend") {
                set(v, "suspend", false);
            }
            policy::default(v);
            if !has(v, "podReplacementPolicy") {
                set(v, "podReplacementPolicy", if has(v, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" });
            }
        }
        let labels = at(object, "spec.template.metadata.labels").cloned();
        if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|m| !m.is_empty()))
            && object.get("metadata").is_none_or(|m| is_empty(m, "labels"))
        {
            machinery::object::metadata_mut(object).insert("labels".to_owned(), labels);
        }
    }

    /// The labels that creation gives the template are a default for the Job's own.
    fn is_defaulted_when_read(&self, object: &Value) -> bool {
        let labels = at(object, "metadata.labels");
        labels.is_some_and(|l| l.get(UID_LABEL).is_some()) && labels == at(object, "spec.template.metadata.labels")
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload::template_warnings(new, old, &["spec", "template"], true)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        generate_selector(object);
        set(object, "status", json!({}));
        drop_disabled(object, None, "spec.template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        drop_disabled(new, Some(old), "spec.template");
    }

    fn meta_rules(&self) -> crate::strategy::MetaRules {
        crate::strategy::MetaRules { update_again: false, ..Default::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let p = Path::new("spec");
        generated_selector(object, &p, &mut e);
        let v = opt(object, "spec").unwrap_or(&NULL);
        spec(v, false, &p, &mut e);
        indexed_name(object, v, &mut e);
        e
    }

    /// Upstream judges the spec in full twice: on its own, and as a part of the update.
    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        let meta = |o: &Value| o.get("metadata").cloned().unwrap_or_default();
        e.extend(machinery::metadata::validate_update(&meta(new), &meta(old), &Path::new("metadata")));
        let p = Path::new("spec");
        let (n, o) = (opt(new, "spec").unwrap_or(&NULL), opt(old, "spec").unwrap_or(&NULL));
        spec(n, false, &p, &mut e);
        completions(n, o, &p, &mut e);
        let frozen = |key: &str, ty: &str, e: &mut ErrorList| match (opt(n, key), semantic(opt(n, key), opt(o, key), ty)) {
            (_, true) => {}
            (None, _) => e.push(Error::invalid(&p.child(key), &NULL, IMMUTABLE)),
            (Some(value), _) => e.push(go::invalid(&p.child(key), value, ty, IMMUTABLE)),
        };
        frozen("selector", SELECTOR, &mut e);
        template(n, o, opt(old, "status").unwrap_or(&NULL), &p, &mut e);
        immutable(n, o, "completionMode", &p, &mut e);
        frozen("podFailurePolicy", "batch.v1.PodFailurePolicy", &mut e);
        for key in ["backoffLimitPerIndex", "managedBy"] {
            immutable(n, o, key, &p, &mut e);
        }
        frozen("successPolicy", "batch.v1.SuccessPolicy", &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status::validate) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::batch::job(object, now))
    }
}

/// `validatePodTemplateUpdate`: fixed, but for where to run and what to ask for while the job is suspended.
fn template(new: &Value, old: &Value, status: &Value, p: &Path<'_>, e: &mut ErrorList) {
    const TEMPLATE: &str = "core.v1.PodTemplateSpec";
    let rests = |c: &Value| s(c, "type") == "Suspended" && s(c, "status") == "True";
    let waiting = flag(old, "suspend") && (!has(status, "startTime") || list(status, "conditions").iter().any(rests));
    let now = opt(new, "template").unwrap_or(&NULL);
    let before = opt(old, "template").cloned().unwrap_or_default();
    if waiting {
        let before = status::comparable(now, &before);
        let (now, before) = (opt(now, "spec").unwrap_or(&NULL), opt(&before, "spec").unwrap_or(&NULL));
        if !semantic(Some(now), Some(before), "core.v1.PodSpec") {
            e.push(go::invalid(&p.child("template.spec"), now, "core.v1.PodSpec", IMMUTABLE));
        }
        return;
    }
    if !semantic(Some(now), Some(&before), TEMPLATE) {
        e.push(go::invalid(&p.child("template"), now, TEMPLATE, IMMUTABLE));
    }
}

/// An indexed job may be resized, if both numbers move together.
fn completions(new: &Value, old: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if s(new, "completionMode") != "Indexed" {
        immutable(new, old, "completions", p, e);
        return;
    }
    let Some(wanted) = int(new, "completions").filter(|n| Some(*n) != int(old, "completions")) else { return };
    if Some(wanted) != int(new, "parallelism") {
        let text = format!("can only be modified in tandem with {}", p.child("parallelism"));
        e.push(Error::invalid(&p.child("completions"), &json!(wanted), text));
    }
}

/// Unless asked not to, a job selects its pods by its own uid.
fn generate_selector(object: &mut Value) {
    let meta = opt(object, "metadata").cloned().unwrap_or_default();
    let (uid, name) = (s(&meta, "uid").to_owned(), s(&meta, "name").to_owned());
    let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
    if flag(v, "manualSelector") {
        return;
    }
    let labels = machinery::object::map_mut(v, "template.metadata.labels");
    for (key, value) in [(UID_LABEL, &uid), ("controller-uid", &uid), (NAME_LABEL, &name), ("job-name", &name)] {
        labels.entry(key).or_insert_with(|| json!(value));
    }
    let selector = machinery::object::map_mut(v, "selector.matchLabels");
    selector.entry(UID_LABEL).or_insert_with(|| json!(uid));
}

fn generated_selector(object: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let v = opt(object, "spec").unwrap_or(&NULL);
    let Some(selector) = opt(v, "selector").filter(|_| !flag(v, "manualSelector")) else { return };
    let meta = opt(object, "metadata").unwrap_or(&NULL);
    let labels = at(v, "template.metadata.labels").unwrap_or(&NULL);
    let template = p.child("template");
    let at_meta = template.child("metadata");
    let at_labels = at_meta.child("labels");
    for (key, want) in
        [("controller-uid", s(meta, "uid")), ("job-name", s(meta, "name")), (UID_LABEL, s(meta, "uid")), (NAME_LABEL, s(meta, "name"))]
    {
        match labels.get(key).and_then(Value::as_str) {
            None => e.push(Error::required(&at_labels.key(key), format!("must be '{want}'"))),
            Some(got) if got != want => e.push(Error::invalid(&at_labels.key(key), labels, format!("must be '{want}'"))),
            Some(_) => {}
        }
    }
    let expected =
        json!({UID_LABEL: s(meta, "uid"), "controller-uid": s(meta, "uid"), NAME_LABEL: s(meta, "name"), "job-name": s(meta, "name")});
    if as_selector(Some(selector)).is_some_and(|sel| !sel.matches(&expected)) {
        e.push(go::invalid(&p.child("selector"), selector, SELECTOR, "`selector` not auto-generated"));
    }
}

/// The names of an indexed job's pods must be host names.
fn indexed_name(object: &Value, v: &Value, e: &mut ErrorList) {
    let name = opt(object, "metadata").map_or("", |m| s(m, "name"));
    if s(v, "completionMode") != "Indexed" || int0(v, "completions") < 1 {
        return;
    }
    let pod = format!("{name}-{}", int0(v, "completions") - 1);
    let meta = Path::new("metadata");
    if !names::dns1123_label(&pod).is_empty() {
        let text = format!("will not able to create pod with invalid DNS label: {pod}");
        e.push(Error::invalid_str(&meta.child("name"), name, text));
    }
}

/// `in_cron`: within a CronJob the selector comes later.
fn spec(v: &Value, in_cron: bool, p: &Path<'_>, e: &mut ErrorList) {
    numbers(v, p, e);
    policy::policies(v, p, e);
    let (empty, at_template) = (json!({}), p.child("template"));
    let template = opt(v, "template").unwrap_or(&empty);
    pod_template(template, &at_template, e);
    let pod = opt(template, "spec").unwrap_or(&empty);
    let at_policy = at_template.child("spec");
    let at_policy = at_policy.child("restartPolicy");
    match s(pod, "restartPolicy") {
        "" | "Always" => e.push(Error::required(&at_policy, "valid values: \"OnFailure\", \"Never\"")),
        policy => {
            if !matches!(policy, "OnFailure" | "Never") {
                e.push(Error::not_supported(&at_policy, &json!(policy), &["OnFailure", "Never"]));
            } else if has(v, "podFailurePolicy") && policy != "Never" {
                e.push(Error::invalid_str(&at_policy, policy, "only \"Never\" is supported when podFailurePolicy is specified"));
            }
        }
    }
    if !in_cron {
        match opt(v, "selector") {
            None => e.push(Error::required(&p.child("selector"), "")),
            Some(selector) => label_selector(selector, &p.child("selector"), e),
        }
    }
    if !in_cron && let Some(selector) = as_selector(opt(v, "selector")) {
        matching_labels(template, &selector, &at_template, e);
    }
}

fn numbers(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    for key in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex"] {
        non_negative(v, key, p, e);
    }
    if has(v, "maxFailedIndexes") {
        non_negative(v, "maxFailedIndexes", p, e);
        if !has(v, "backoffLimitPerIndex") {
            e.push(Error::required(&p.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
        }
    }
    if let Some(by) = opt_s(v, "managedBy") {
        let at = p.child("managedBy");
        if by.is_empty() {
            e.push(Error::required(&at, ""));
        } else {
            crate::validate::rules::named(&at, by, names::domain_prefixed_path(by), e);
        }
        if by.len() > 63 {
            e.push(Error::too_long(&at, 63));
        }
    }
    if let Some(mode) = opt_s(v, "completionMode") {
        if !matches!(mode, "NonIndexed" | "Indexed") {
            one_of(&p.child("completionMode"), mode, &["NonIndexed", "Indexed"], e);
        }
        if mode == "Indexed" {
            indexed(v, p, e);
        }
    }
    if matches!(s(v, "completionMode"), "" | "NonIndexed") {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(n) = int(v, key) {
                e.push(Error::invalid(&p.child(key), &json!(n), "requires indexed completion mode"));
            }
        }
    }
}

/// Of pods at once, of failed indexes, and of indexes before the next limit counts.
const INDEXES_MAX: i64 = 100_000;
const MANY_INDEXES_MAX: i64 = 10_000;

fn indexed(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (completions, failed) = (int(v, "completions"), int(v, "maxFailedIndexes"));
    if completions.is_none() {
        e.push(Error::required(&p.child("completions"), "when completion mode is Indexed"));
    }
    let most = |key: &str, limit: i64, when: &str, e: &mut ErrorList| {
        if let Some(n) = int(v, key).filter(|n| *n > limit) {
            e.push(Error::invalid(&p.child(key), &json!(n), format!("must be less than or equal to {limit}{when}")));
        }
    };
    most("parallelism", INDEXES_MAX, " when completion mode is Indexed", e);
    if let Some(failed) = failed.filter(|failed| completions.is_some_and(|n| *failed > n)) {
        e.push(Error::invalid(&p.child("maxFailedIndexes"), &json!(failed), "must be less than or equal to completions"));
    }
    most("maxFailedIndexes", INDEXES_MAX, "", e);
    if completions.is_some_and(|n| n > INDEXES_MAX) && has(v, "backoffLimitPerIndex") {
        if failed.is_none() {
            let text = format!("must be specified when completions is above {INDEXES_MAX}");
            e.push(Error::required(&p.child("maxFailedIndexes"), text));
        }
        let when = format!(" when completions are above {INDEXES_MAX} and used with backoff limit per index");
        most("parallelism", MANY_INDEXES_MAX, &when, e);
        most("maxFailedIndexes", MANY_INDEXES_MAX, &when, e);
    }
}

pub struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.jobTemplate.spec.template");
        if let Some(v) = object.get_mut("spec").and_then(|v| v.get_mut("jobTemplate")).and_then(|v| v.get_mut("spec")) {
            policy::default(v);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload::template_warnings(new, old, &["spec", "jobTemplate", "spec", "template"], true)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({}));
        drop_disabled(object, None, "spec.jobTemplate.spec.template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        drop_disabled(new, Some(old), "spec.jobTemplate.spec.template");
    }

    fn validate(&self, ctx: &Context, object: &Value) -> ErrorList {
        let mut e = self.validate_update(ctx, object, &NULL);
        let name = opt(object, "metadata").map_or("", |m| s(m, "name"));
        if name.len() > 52 {
            let meta = Path::new("metadata");
            e.push(Error::invalid_str(&meta.child("name"), name, "must be no more than 52 characters"));
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(new, "spec").unwrap_or(&NULL);
        let before = opt(old, "spec").unwrap_or(&NULL);
        cron::schedule(v, before, &p, &mut e);
        non_negative(v, "startingDeadlineSeconds", &p, &mut e);
        match s(v, "concurrencyPolicy") {
            "" => e.push(Error::required(&p.child("concurrencyPolicy"), "")),
            policy => one_of(&p.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"], &mut e),
        }
        let at_template = p.child("jobTemplate");
        let job = at(v, "jobTemplate.spec").unwrap_or(&NULL);
        let at_job = at_template.child("spec");
        spec(job, true, &at_job, &mut e);
        if let Some(selector) = opt(job, "selector") {
            e.push(go::invalid(&at_job.child("selector"), selector, SELECTOR, "`selector` will be auto-generated"));
        }
        if flag(job, "manualSelector") {
            e.push(Error::not_supported(&at_job.child("manualSelector"), &json!(true), &["nil", "false"]));
        }
        non_negative(v, "successfulJobsHistoryLimit", &p, &mut e);
        non_negative(v, "failedJobsHistoryLimit", &p, &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(|_, _, _| {}) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::batch::cron_job(object, now))
    }
}
