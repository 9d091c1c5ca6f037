//! Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, ControllerRevision and PodTemplate.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::workload::{
    StatusOnly, Wording, count, default_template, drop_disabled, int_or_percent, keep_status, matching_labels, not_over_hundred,
    reset_status, selector_and_template, status_counts,
};
use crate::strategy::{Context, Strategy};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::non_negative;
use crate::validate::selector::{as_selector, is_empty_selector, label_selector};
use crate::validate::template::template as pod_template;
use crate::validate::tree::{at, has, int0, is_empty, opt, s, set, set_default};

const SPEC: Path<'_> = Path::new("spec");
static NULL: Value = Value::Null;

fn spec(object: &Value) -> &Value {
    object.get("spec").unwrap_or(&NULL)
}

pub struct Deployments;

const DEPLOYMENT: Wording = Wording { kind: "deployment", bad_selector: "invalid label selector", deadline: "ReplicaSet" };

impl Strategy for Deployments {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.template");
        let Some(strategy) = object.get_mut("spec").and_then(|s| s.get_mut("strategy")) else { return };
        if s(strategy, "type") == "RollingUpdate" {
            let mut rolling = opt(strategy, "rollingUpdate").cloned().unwrap_or_else(|| json!({}));
            for key in ["maxUnavailable", "maxSurge"] {
                if !has(&rolling, key) {
                    set(&mut rolling, key, "25%");
                }
            }
            set(strategy, "rollingUpdate", rolling);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload::template_warnings(new, old, &["spec", "template"], true)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "apps.v1.DeploymentStatus");
        drop_disabled(object, None, "spec.template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        drop_disabled(new, Some(old), "spec.template");
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, v, p) = (ErrorList::new(), spec(object), SPEC);
        non_negative(v, "replicas", &p, &mut e);
        selector_and_template(v, &DEPLOYMENT, &p, &mut e);
        deployment_strategy(v, &p, &mut e);
        non_negative(v, "minReadySeconds", &p, &mut e);
        non_negative(v, "revisionHistoryLimit", &p, &mut e);
        if let Some(n) = crate::validate::tree::int(v, "progressDeadlineSeconds") {
            non_negative(v, "progressDeadlineSeconds", &p, &mut e);
            if n <= int0(v, "minReadySeconds") {
                e.push(Error::invalid(&p.child("progressDeadlineSeconds"), &json!(n), "must be greater than minReadySeconds"));
            }
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        selector_immutable(new, old, &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(deployment_status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::deployment(object, now))
    }
}

fn selector_immutable(new: &Value, old: &Value, e: &mut ErrorList) {
    if !semantic(at(new, "spec.selector"), at(old, "spec.selector"), "meta.v1.LabelSelector") {
        e.push(match at(new, "spec.selector") {
            Some(selector) => go::invalid(&SPEC.child("selector"), selector, "meta.v1.LabelSelector", "field is immutable"),
            None => Error::invalid(&SPEC.child("selector"), &NULL, "field is immutable"),
        });
    }
}

fn deployment_strategy(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (empty, p) = (json!({}), p.child("strategy"));
    let strategy = opt(v, "strategy").unwrap_or(&empty);
    match s(strategy, "type") {
        "Recreate" => {
            if has(strategy, "rollingUpdate") {
                e.push(Error::forbidden(&p.child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => {
            let (at, Some(rolling)) = (p.child("rollingUpdate"), opt(strategy, "rollingUpdate")) else {
                e.push(Error::required(&p.child("rollingUpdate"), "this should be defaulted and never be nil"));
                return;
            };
            int_or_percent(rolling, "maxUnavailable", &at, e);
            int_or_percent(rolling, "maxSurge", &at, e);
            if count(rolling, "maxUnavailable") == 0 && count(rolling, "maxSurge") == 0 {
                e.push(Error::invalid(&at.child("maxUnavailable"), &rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"));
            }
            not_over_hundred(rolling, "maxUnavailable", &at, e);
        }
        _ => e.push(Error {
            kind: machinery::field::ErrorType::NotSupported,
            field: p.to_string(),
            value: go::text(strategy, "apps.v1.DeploymentStrategy"),
            detail: "supported values: \"Recreate\", \"RollingUpdate\"".to_owned(),
        }),
    }
}

fn deployment_status(new: &Value, old: &Value, e: &mut ErrorList) {
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let bounds = [
        ("updatedReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    status_counts(new, &counts, &bounds, e);
    collisions(new, old, e);
}

/// How many names collided only grows.
pub fn collisions(new: &Value, old: &Value, e: &mut ErrorList) {
    let n = at(new, "status.collisionCount").and_then(Value::as_i64);
    if let Some(before) = at(old, "status.collisionCount").and_then(Value::as_i64)
        && n.unwrap_or(0) < before
    {
        e.push(Error::invalid(&Path::new("status").child("collisionCount"), &json!(n.unwrap_or(0)), "cannot be decremented"));
    }
}

pub struct ReplicaSets;

const REPLICA_SET: Wording = Wording { kind: "deployment", bad_selector: "invalid label selector", deadline: "ReplicaSet" };

impl Strategy for ReplicaSets {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.template");
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload::template_warnings(new, old, &["spec", "template"], true)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "apps.v1.ReplicaSetStatus");
        drop_disabled(object, None, "spec.template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        drop_disabled(new, Some(old), "spec.template");
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, v, p) = (ErrorList::new(), spec(object), SPEC);
        non_negative(v, "replicas", &p, &mut e);
        non_negative(v, "minReadySeconds", &p, &mut e);
        selector_and_template(v, &REPLICA_SET, &p, &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        selector_immutable(new, old, &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(replica_set_status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::replica_set(object, now))
    }
}

fn replica_set_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "terminatingReplicas", "observedGeneration"];
    let bounds = [
        ("fullyLabeledReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    status_counts(new, &counts, &bounds, e);
}

pub struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.template");
        let labels = at(object, "spec.template.metadata.labels").cloned().filter(|l| l.as_object().is_some_and(|m| !m.is_empty()));
        let Some(labels) = labels else { return };
        if is_empty(spec(object), "selector")
            && let Some(spec) = object.get_mut("spec")
        {
            set(spec, "selector", labels.clone());
        }
        if object.get("metadata").is_none_or(|m| is_empty(m, "labels")) {
            machinery::object::metadata_mut(object).insert("labels".to_owned(), labels);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload::template_warnings(new, old, &["spec", "template"], true)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "core.v1.ReplicationControllerStatus");
        drop_disabled(object, None, "spec.template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        drop_disabled(new, Some(old), "spec.template");
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, v, p) = (ErrorList::new(), spec(object), SPEC);
        non_negative(v, "minReadySeconds", &p, &mut e);
        if is_empty(v, "selector") {
            e.push(Error::required(&p.child("selector"), ""));
        }
        match crate::validate::tree::int(v, "replicas") {
            None => e.push(Error::required(&p.child("replicas"), "")),
            Some(_) => non_negative(v, "replicas", &p, &mut e),
        }
        let selector = machinery::labels::from_map(Some(opt(v, "selector").unwrap_or(&json!({}))));
        let wording = Wording { kind: "", bad_selector: "", deadline: "ReplicationController" };
        super::workload::template_of(v, &selector, &wording, &p, &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(replica_set_status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::replication_controller(object, now))
    }
}

pub struct DaemonSets;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Value) -> i64 {
    let text = opt(object, "metadata").and_then(|m| opt(m, "annotations")).map_or("", |a| s(a, TEMPLATE_GENERATION));
    text.parse().unwrap_or(0)
}

impl Strategy for DaemonSets {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.template");
        let Some(strategy) = object.get_mut("spec").and_then(|s| s.get_mut("updateStrategy")) else { return };
        set_default(strategy, "type", "RollingUpdate");
        if s(strategy, "type") == "RollingUpdate" {
            let mut rolling = opt(strategy, "rollingUpdate").cloned().unwrap_or_else(|| json!({}));
            for (key, n) in [("maxUnavailable", 1), ("maxSurge", 0)] {
                if !has(&rolling, key) {
                    set(&mut rolling, key, n);
                }
            }
            set(strategy, "rollingUpdate", rolling);
        }
        // Upstream's internal type has it as a field, whose zero comes back as an annotation.
        machinery::object::map_mut(object, "metadata.annotations").entry(TEMPLATE_GENERATION).or_insert_with(|| json!("0"));
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload::template_warnings(new, old, &["spec", "template"], false)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "apps.v1.DaemonSetStatus");
        drop_disabled(object, None, "spec.template");
        machinery::object::map_mut(object, "metadata.annotations").insert(TEMPLATE_GENERATION.to_owned(), json!("1"));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        drop_disabled(new, Some(old), "spec.template");
        let before = template_generation(old);
        let same = semantic(at(new, "spec.template"), at(old, "spec.template"), "core.v1.PodTemplateSpec");
        let now = if same { before } else { before + 1 };
        machinery::object::map_mut(new, "metadata.annotations").insert(TEMPLATE_GENERATION.to_owned(), json!(now.to_string()));
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, v, p) = (ErrorList::new(), spec(object), SPEC);
        let (empty, at_template) = (json!({}), p.child("template"));
        let template = opt(v, "template").unwrap_or(&empty);
        if let Some(selector) = opt(v, "selector") {
            label_selector(selector, &p.child("selector"), &mut e);
        }
        let selector = opt(v, "selector").unwrap_or(&NULL);
        if let Some(sel) = as_selector(opt(v, "selector"))
            && !sel.matches(at(template, "metadata.labels").unwrap_or(&NULL))
        {
            let labels = at(template, "metadata.labels").unwrap_or(&NULL);
            e.push(Error::invalid(&at_template.child("metadata").child("labels"), labels, "`selector` does not match template `labels`"));
        }
        if opt(v, "selector").is_some_and(is_empty_selector) {
            e.push(go::invalid(&p.child("selector"), selector, "meta.v1.LabelSelector", "empty selector is invalid for daemonset"));
        }
        pod_template(template, &at_template, &mut e);
        super::workload::forever(template, "DaemonSet", &at_template, &mut e);
        non_negative(v, "minReadySeconds", &p, &mut e);
        daemon_strategy(v, &p, &mut e);
        non_negative(v, "revisionHistoryLimit", &p, &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        selector_immutable(new, old, &mut e);
        e.extend(self.validate(ctx, new));
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(daemon_status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::daemon_set(object, now))
    }
}

fn daemon_strategy(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (empty, p) = (json!({}), p.child("updateStrategy"));
    let strategy = opt(v, "updateStrategy").unwrap_or(&empty);
    match s(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = p.child("rollingUpdate");
            let Some(rolling) = opt(strategy, "rollingUpdate") else {
                e.push(Error::required(&at, ""));
                return;
            };
            for key in ["maxUnavailable", "maxSurge"] {
                int_or_percent(rolling, key, &at, e);
                not_over_hundred(rolling, key, &at, e);
            }
            match (count(rolling, "maxUnavailable") != 0, count(rolling, "maxSurge") != 0) {
                (true, true) => {
                    e.push(Error::invalid(&at.child("maxSurge"), &rolling["maxSurge"], "may not be set when maxUnavailable is non-zero"));
                }
                (false, false) => e.push(Error::required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0")),
                _ => {}
            }
        }
        _ => e.push(Error {
            kind: machinery::field::ErrorType::NotSupported,
            field: p.to_string(),
            value: go::text(strategy, "apps.v1.DaemonSetUpdateStrategy"),
            detail: "supported values: \"RollingUpdate\", \"OnDelete\"".to_owned(),
        }),
    }
}

fn daemon_status(new: &Value, old: &Value, e: &mut ErrorList) {
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    status_counts(new, &counts, &[], e);
    collisions(new, old, e);
}

pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("data"));
        match opt(object, "data") {
            None => e.push(Error::required(&p, "data is mandatory")),
            Some(data) if !data.is_object() => e.push(Error::required(&p, "data must be a valid JSON object")),
            Some(_) => {}
        }
        if int0(object, "revision") < 0 {
            let at = Path::new("revision");
            e.push(Error::invalid(&at, &object["revision"], crate::validate::rules::NON_NEGATIVE));
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        // What the data is was asked when it was made.
        e.retain(|error| error.field == "revision");
        if !crate::validate::tree::same_at(new, old, "data") {
            e.push(Error::invalid(&Path::new("data"), new.get("data").unwrap_or(&NULL), "field is immutable"));
        }
        e
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::controller_revision(object, now))
    }
}

pub struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "template");
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::pod(opt(new, "template").unwrap_or(&NULL), Some(&Path::new("template")))
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        drop_disabled(object, None, "template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        drop_disabled(new, Some(old), "template");
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty) = (ErrorList::new(), json!({}));
        pod_template(opt(object, "template").unwrap_or(&empty), &Path::new("template"), &mut e);
        e
    }

    fn cells(&self, object: &Value, _now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::pod_template(object))
    }
}

pub use super::stateful_set::StatefulSets;

/// Shared with StatefulSets.
pub(super) fn selector_of(v: &Value, kind: &str, bad: &str, p: &Path<'_>, e: &mut ErrorList) -> Option<machinery::labels::Selector> {
    let at_selector = p.child("selector");
    match opt(v, "selector") {
        None => e.push(Error::required(&at_selector, "")),
        Some(selector) => {
            label_selector(selector, &at_selector, e);
            if is_empty_selector(selector) {
                e.push(go::invalid(&at_selector, selector, "meta.v1.LabelSelector", format!("empty selector is invalid for {kind}")));
            }
        }
    }
    let selector = as_selector(opt(v, "selector"));
    if selector.is_none() {
        e.push(go::invalid(&at_selector, opt(v, "selector").unwrap_or(&NULL), "meta.v1.LabelSelector", bad));
    }
    selector
}

pub(super) fn template_rules(template: &Value, selector: &machinery::labels::Selector, p: &Path<'_>, e: &mut ErrorList) {
    matching_labels(template, selector, p, e);
    pod_template(template, p, e);
}
