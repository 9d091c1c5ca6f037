//! StatefulSet.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::apps::{collisions, selector_of, template_rules};
use super::workload::{StatusOnly, default_template, drop_disabled, forever, keep_status, reset_status, status_counts};
use crate::strategy::{Context, Strategy};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::{dns_label, non_negative, one_of};
use crate::validate::tree::{has, int0, list, list_mut, opt, s, set, set_default};
use crate::validate::volume::claim;

const ONLY: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub struct StatefulSets;

/// Its feature is off by default: it goes unless the old object has it.
fn drop_max_unavailable(new: &mut Value, old: &Value) {
    const PATH: &str = "/spec/updateStrategy/rollingUpdate";
    if old.pointer(PATH).is_some_and(|r| has(r, "maxUnavailable")) {
        return;
    }
    if let Some(rolling) = new.pointer_mut(PATH) {
        crate::validate::tree::remove(rolling, "maxUnavailable");
    }
}

impl Strategy for StatefulSets {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_template(object, "spec.template");
        let Some(spec) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
        for c in list_mut(spec, "volumeClaimTemplates") {
            set_default(c, "kind", "PersistentVolumeClaim");
            set_default(c, "apiVersion", "v1");
            if let Some(claim_spec) = c.get_mut("spec").filter(|v| v.is_object())
                && !has(claim_spec, "volumeMode")
            {
                set(claim_spec, "volumeMode", "Filesystem");
            }
            if let Some(status) = c.get_mut("status").filter(|v| v.is_object()) {
                set_default(status, "phase", "Pending");
            } else {
                set(c, "status", json!({"phase": "Pending"}));
            }
        }
        let Some(strategy) = spec.get_mut("updateStrategy").filter(|v| v.is_object()) else { return };
        if s(strategy, "type").is_empty() {
            set(strategy, "type", "RollingUpdate");
            set_default(strategy, "rollingUpdate", json!({}));
        }
        if let Some(rolling) = strategy.get_mut("rollingUpdate").filter(|r| r.is_object())
            && !has(rolling, "partition")
        {
            set(rolling, "partition", 0);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = super::workload::template_warnings(new, old, &["spec", "template"], false);
        if crate::validate::tree::at(new, "spec.revisionHistoryLimit").and_then(Value::as_i64).is_some_and(|n| n < 0) {
            out.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned(),
            );
        }
        out
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "apps.v1.StatefulSetStatus");
        drop_max_unavailable(object, &Value::Null);
        drop_disabled(object, None, "spec.template");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        drop_max_unavailable(new, old);
        drop_disabled(new, Some(old), "spec.template");
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        set_spec(object, true)
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = set_spec(new, false);
        let plain = |object: &Value| {
            let mut spec = object.get("spec").cloned().unwrap_or_default();
            if let Some(map) = spec.as_object_mut() {
                map.retain(|key, _| !CHANGEABLE.contains(&key.as_str()));
            }
            spec
        };
        if !semantic(Some(&plain(new)), Some(&plain(old)), "apps.v1.StatefulSetSpec") {
            e.push(Error::forbidden(&Path::new("spec"), ONLY));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::apps::stateful_set(object, now))
    }
}

/// `ValidateStatefulSetSpec`; what cannot change is asked of new ones alone.
fn set_spec(object: &Value, new: bool) -> ErrorList {
    let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
    let v = opt(object, "spec").unwrap_or(&empty);
    match s(v, "podManagementPolicy") {
        "" => e.push(Error::required(&p.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => e.push(Error::invalid_str(&p.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'")),
    }
    update_strategy(v, &p, &mut e);
    retention(v, &p, &mut e);
    non_negative(v, "replicas", &p, &mut e);
    non_negative(v, "minReadySeconds", &p, &mut e);
    if let Some(ordinals) = opt(v, "ordinals") {
        non_negative(ordinals, "start", &p.child("ordinals"), &mut e);
    }
    let at = p.child("volumeClaimTemplates");
    let claims = if new { list(v, "volumeClaimTemplates") } else { &[] };
    for (i, c) in claims.iter().enumerate() {
        claim::spec(opt(c, "spec").unwrap_or(&empty), &at.index(i).child("spec"), &mut e);
    }
    if new && !s(v, "serviceName").is_empty() {
        dns_label(&p.child("serviceName"), s(v, "serviceName"), &mut e);
    }
    let with_claims = template_with_claims(v);
    let template = with_claims.as_ref().or_else(|| opt(v, "template")).unwrap_or(&empty);
    let at_template = p.child("template");
    if let Some(selector) = selector_of(v, "statefulset", "", &p, &mut e) {
        template_rules(template, &selector, &at_template, &mut e);
    }
    forever(template, "StatefulSet", &at_template, &mut e);
    e
}

/// The template with a volume for each claim, as the controller will make its pods; `None` where there are no claims.
fn template_with_claims(v: &Value) -> Option<Value> {
    let claims = list(v, "volumeClaimTemplates");
    if claims.is_empty() {
        return None;
    }
    let mut template = opt(v, "template")?.clone();
    let name_of = |c: &Value| opt(c, "metadata").map_or("", |m| s(m, "name")).to_owned();
    let mut volumes: Vec<Value> =
        claims.iter().map(|c| json!({"name": name_of(c), "persistentVolumeClaim": {"claimName": name_of(c)}})).collect();
    let own = opt(&template, "spec").map_or(&[][..], |spec| list(spec, "volumes"));
    let others: Vec<Value> = own.iter().filter(|o| !claims.iter().any(|c| name_of(c) == s(o, "name"))).cloned().collect();
    volumes.extend(others);
    if let Some(spec) = template.get_mut("spec") {
        set(spec, "volumes", volumes);
    }
    Some(template)
}

fn update_strategy(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (empty, p) = (json!({}), p.child("updateStrategy"));
    let strategy = opt(v, "updateStrategy").unwrap_or(&empty);
    let rolling = opt(strategy, "rollingUpdate");
    match s(strategy, "type") {
        "" => e.push(Error::required(&p, "")),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let text = "only allowed for updateStrategy 'RollingUpdate'";
                e.push(go::invalid(&p.child("rollingUpdate"), rolling, "apps.v1.RollingUpdateStatefulSetStrategy", text));
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                let at = p.child("rollingUpdate");
                if int0(rolling, "partition") < 0 {
                    e.push(Error::invalid(&at.child("partition"), &rolling["partition"], crate::validate::rules::NON_NEGATIVE));
                }
            }
        }
        _ => e.push(go::invalid(&p, strategy, "apps.v1.StatefulSetUpdateStrategy", "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn retention(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(policy) = opt(v, "persistentVolumeClaimRetentionPolicy") else { return };
    let p = p.child("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        one_of(&p.child(key), s(policy, key), &["Retain", "Delete"], e);
    }
}

fn status(new: &Value, old: &Value, e: &mut ErrorList) {
    let counts =
        ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "observedGeneration", "collisionCount", "availableReplicas"];
    let bounds = [
        ("readyReplicas", "replicas", "status.replicas"),
        ("currentReplicas", "replicas", "status.replicas"),
        ("updatedReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "status.readyReplicas"),
    ];
    status_counts(new, &counts, &bounds, e);
    collisions(new, old, e);
}
